//! Words out of numbers: the text of the seed. The generator is our own, so that
//! a seed has the same bytes on every machine and after every `cargo update`.

use std::fmt::Write as _;

pub const BASE62: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
const HEX: &[u8] = b"0123456789abcdef";

const VERBS: &[&str] = &[
    "Add", "Allow", "Avoid", "Cache", "Check", "Clean up", "Document", "Drop", "Fix", "Handle",
    "Inline", "Limit", "Log", "Measure", "Move", "Rename", "Replace", "Retry", "Revert",
    "Simplify", "Split", "Support", "Test", "Validate",
];
const THINGS: &[&str] = &[
    "a deadlock",
    "a flaky test",
    "a missing index",
    "an off-by-one error",
    "pagination",
    "the access checks",
    "the audit log",
    "the connection pool",
    "the date picker",
    "the error message",
    "the export job",
    "the feature flag",
    "the invoice totals",
    "the login form",
    "the migration",
    "the rate limit",
    "the retry policy",
    "the search results",
    "the session token",
    "the spreadsheet export",
    "the time zone",
    "the unread counter",
    "the upload size",
    "the webhook",
];
const PLACES: &[&str] = &[
    "after a restart",
    "behind a proxy",
    "for archived teams",
    "for large accounts",
    "for new members",
    "in dark mode",
    "in the background worker",
    "in the billing page",
    "in the command line",
    "in the daily report",
    "in the mobile view",
    "in the public API",
    "in the settings",
    "on slow networks",
    "on the dashboard",
    "when a job is cancelled",
    "when the cache is cold",
    "when the queue is full",
    "while a deploy runs",
    "without JavaScript",
];
const WORDS: &[&str] = &[
    "about",
    "account",
    "after",
    "again",
    "already",
    "always",
    "because",
    "before",
    "behind",
    "better",
    "branch",
    "browser",
    "build",
    "button",
    "cache",
    "change",
    "check",
    "client",
    "column",
    "commit",
    "config",
    "counter",
    "customer",
    "default",
    "deploy",
    "different",
    "edge",
    "empty",
    "endpoint",
    "enough",
    "error",
    "every",
    "exactly",
    "failure",
    "faster",
    "field",
    "filter",
    "first",
    "follow",
    "format",
    "found",
    "header",
    "index",
    "instead",
    "invoice",
    "latency",
    "layout",
    "limit",
    "locally",
    "longer",
    "member",
    "memory",
    "message",
    "metric",
    "missing",
    "mobile",
    "never",
    "number",
    "office",
    "older",
    "only",
    "order",
    "page",
    "parser",
    "payload",
    "pending",
    "problem",
    "production",
    "query",
    "queue",
    "rather",
    "reader",
    "record",
    "refactor",
    "release",
    "report",
    "request",
    "response",
    "review",
    "rollback",
    "schema",
    "screen",
    "second",
    "server",
    "setting",
    "several",
    "should",
    "signal",
    "simple",
    "single",
    "slower",
    "staging",
    "state",
    "still",
    "string",
    "support",
    "system",
    "table",
    "team",
    "through",
    "timeout",
    "together",
    "token",
    "trace",
    "update",
    "upstream",
    "user",
    "value",
    "version",
    "visible",
    "warning",
    "window",
    "without",
    "worker",
    "writer",
];

/// SplitMix64.
pub struct Prng(u64);

impl Prng {
    /// A generator of its own for each name (FNV-1a).
    pub fn new(name: &str) -> Self {
        Self(name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        }))
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`; the bias of the remainder is too small to matter.
    pub fn below(&mut self, n: u32) -> u32 {
        (self.next() % u64::from(n)) as u32
    }

    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u32) as usize]
    }

    pub fn characters(&mut self, alphabet: &[u8], len: usize) -> String {
        (0..len).map(|_| char::from(self.pick(alphabet))).collect()
    }

    pub fn title(&mut self) -> String {
        format!("{} {} {}", self.pick(VERBS), self.pick(THINGS), self.pick(PLACES))
    }

    /// Sentences, until there are at least `len` bytes.
    pub fn prose(&mut self, len: usize) -> String {
        let mut text = String::with_capacity(len + 80);
        while text.len() < len {
            let start = text.len();
            for _ in 0..5 + self.below(8) {
                text.push_str(self.pick(WORDS));
                text.push(' ');
            }
            text[start..=start].make_ascii_uppercase();
            text.pop();
            text.push_str(". ");
        }
        text.pop();
        text
    }

    /// The description of a pull request, with a commit in it as they tend to have.
    pub fn description(&mut self) -> String {
        let len = 100 + self.pick(&[0, 50, 100, 150, 200, 300]);
        let mut text = self.prose(len);
        let commit = self.characters(HEX, 12);
        write!(text, "\n\nSince {commit}, see #{}.", 1 + self.below(5000))
            .expect("a String takes all that is written");
        text
    }
}
