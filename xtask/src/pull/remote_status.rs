//! The server's reports about itself and its work before the stream.

use crate::fs::from_hex;
use crate::sanitize::audit::Findings;
use crate::sanitize::unmatched::Unmatched;
use crate::server::protocol::{Index, PreambleEvent};
use crate::server::transport::plain_word;
use crate::sql::identifier;
use crate::ui::{Spinner, Ui, bytes, count, escape};

pub struct RemoteStatus<'a> {
    pub ui: &'a Ui,
    place: &'static str,
    pub machine: Option<String>,
    pub region: Option<String>,
    pub findings: Findings,
    pub unmatched: Vec<Unmatched>,
    /// What a doctor or a survey found.
    pub facts: Vec<String>,
    /// Shows the current step.
    pub spinner: Option<Spinner>,
}

impl<'a> RemoteStatus<'a> {
    /// `place` is where the copies are made.
    pub fn new(ui: &'a Ui, place: &'static str) -> Self {
        Self {
            ui,
            place,
            machine: None,
            region: None,
            findings: Findings::default(),
            unmatched: Vec::new(),
            facts: Vec::new(),
            spinner: None,
        }
    }

    pub fn record(&mut self, event: PreambleEvent) {
        match event {
            PreambleEvent::Text(line) => self.text(&line),
            PreambleEvent::Status(text) => self.status(&text),
            PreambleEvent::Finding(finding) => self.findings.columns.push(finding),
            PreambleEvent::Fact(fact) => self.facts.push(fact),
            PreambleEvent::MoreFindings(more) => self.findings.more = more,
            PreambleEvent::Need(..) | PreambleEvent::End(_) => {}
        }
    }

    pub fn record_index(&mut self, index: &Index) {
        self.machine = index.machine.clone().or_else(|| self.machine.take());
        self.region = index.region.clone().or_else(|| self.region.take());
        self.finish_step();
        self.ui.verbose(format!("the server has SQLite {}", escape(&index.sqlite)));
    }

    fn finish_step(&mut self) {
        if let Some(spinner) = self.spinner.take() {
            spinner.finish();
        }
    }

    fn text(&mut self, line: &str) {
        self.ui.verbose(escape(line));
        // `fly` prints which of several machines it chose to standard output.
        let words: Vec<_> = line.split(' ').collect();
        if let ["No", "machine", "specified,", "using", machine, "in", "region", region] = words[..]
            && [machine, region].iter().all(|word| plain_word(word, "-").is_ok())
        {
            self.machine = Some(machine.to_owned());
            self.region = Some(region.to_owned());
        }
    }

    /// Warns of a full-text index that the server's rules emptied in some databases.
    fn emptied(&self, number: &str, database: &str, what: &str, index: &str) {
        let name = |hex| from_hex(hex).and_then(|name| String::from_utf8(name).ok());
        let (Ok(number), Some(database), Some(index)) =
            (number.parse::<usize>(), name(database), name(index))
        else {
            return;
        };
        let plain = index.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        let quoted = if plain { index.clone() } else { identifier(&index) };
        let others = match number {
            0 | 1 => String::new(),
            _ => format!(" and {}", count(number - 1, "more database")),
        };
        let lacks = "the server's sqlite3 lacks its tokenizer or module";
        let text = match what {
            "text" => format!(", with its text: a rule is for it, and {lacks}"),
            _ => format!(
                ": {lacks}; rebuild it in your app: INSERT INTO {quoted}({quoted}) VALUES ('rebuild')"
            ),
        };
        let place = escape(&format!("{index} in {database}{others}"));
        self.ui.warn(format!("the full-text index {place} is empty here{}", escape(&text)));
    }

    fn status(&mut self, text: &str) {
        if let Some(rule) = text.strip_prefix("unmatched-rule ") {
            self.unmatched.extend(Unmatched::parse(rule));
            return;
        }
        let words: Vec<_> = text.split(' ').collect();
        match words[..] {
            ["mount", _] => return,
            ["emptied", number, database, what, index] => {
                return self.emptied(number, database, what, index);
            }
            _ => {}
        }
        self.finish_step();
        self.spinner = match words[..] {
            ["copying", n, size] => {
                let (n, size) = (n.parse().unwrap_or(0), size.parse().unwrap_or(0));
                Some(self.ui.step(
                    "Copying",
                    Some("Copied"),
                    format!("{} {} ({})", count(n, "database"), self.place, bytes(size)),
                ))
            }
            ["sanitizing"] => {
                Some(self.ui.step("Masking", Some("Masked"), format!("the copies {}", self.place)))
            }
            ["whole"] => {
                self.ui.hint("the server's sqlite3 cannot compare databases, so each comes whole: 3.39 or newer can");
                None
            }
            ["unlooked", why] => {
                let why = match why {
                    "grep" => "the server has no GNU grep (apk add grep)",
                    "many" => "there are very many (at most 200,000 are searched for)",
                    _ => "the database is in UTF-16",
                };
                self.ui
                    .hint(format!("removed values were searched for as whole values only: {why}"));
                None
            }
            ["auditing"] => Some(self.ui.step(
                "Auditing",
                Some("Audited"),
                format!("the copies {}", self.place),
            )),
            ["comparing"] => {
                Some(self.ui.step("Comparing", Some("Compared"), "the copies with an earlier pull"))
            }
            ["packing"] => Some(self.ui.working("Packing", self.place)),
            _ => None,
        };
    }
}
