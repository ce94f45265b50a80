//! The output of a program, with assertions that print it when they fail.

use std::fmt;

#[derive(Default)]
pub struct Output {
    pub command: String,
    pub stdout: Vec<u8>,
    pub stderr: String,
    /// `None` if a signal ended the program.
    pub code: Option<i32>,
}

impl Output {
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard output as JSON; that of the product is as its schema says.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        let json: serde_json::Value = serde_json::from_slice(&self.stdout)
            .unwrap_or_else(|error| panic!("stdout is not JSON: {error}\n{self}"));
        // `cargo dev bench` prints with the same code.
        let is_product = json.get("version").is_some() && !self.command.contains("\"bench\"");
        if is_product && let Err(why) = check_schema(&json) {
            panic!("not as docs/reference/output.schema.json says: {why:#}\n{self}");
        }
        json
    }

    #[track_caller]
    pub fn ok(self) -> Output {
        self.fails(0)
    }

    /// Asserts this exit code.
    #[track_caller]
    pub fn fails(self, code: i32) -> Output {
        assert_eq!(self.code, Some(code), "wrong exit code\n{self}");
        self
    }

    #[track_caller]
    pub fn stderr_has(self, text: &str) -> Output {
        assert!(self.stderr.contains(text), "no {text:?} on stderr\n{self}");
        self
    }

    #[track_caller]
    pub fn stderr_lacks(self, text: &str) -> Output {
        assert!(!self.stderr.contains(text), "{text:?} on stderr\n{self}");
        self
    }

    #[track_caller]
    pub fn stderr_is(self, text: &str) -> Output {
        assert!(self.stderr == text, "stderr is not {text:?}\n{self}");
        self
    }

    #[track_caller]
    pub fn is_harmless(self) -> Output {
        assert_eq!(self.harmful(), None, "{self}");
        self
    }

    /// The text from the first character that a terminal would obey, or that would hide or reorder
    /// text.
    pub fn harmful(&self) -> Option<String> {
        let hidden = ['\u{200b}', '\u{202e}', '\u{2066}', '\u{feff}', '\u{e0041}'];
        let harmful = |c: char| c.is_control() && c != '\n' || hidden.contains(&c);
        let said = [self.stdout(), self.stderr.clone()];
        said.iter().find_map(|said| said.find(harmful).map(|at| said[at..].to_owned()))
    }

    #[track_caller]
    pub fn stdout_has(self, text: &str) -> Output {
        assert!(self.stdout().contains(text), "no {text:?} on stdout\n{self}");
        self
    }

    #[track_caller]
    pub fn stdout_is(self, text: impl AsRef<[u8]>) -> Output {
        let text = text.as_ref();
        let wanted = String::from_utf8_lossy(text);
        assert!(self.stdout == text, "stdout is not {wanted:?}\n{self}");
        self
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Output { command, stderr, code, .. } = self;
        writeln!(f, "---- command\n{command}\n---- exit {code:?}")?;
        writeln!(f, "---- stdout\n{}\n---- stderr\n{stderr}\n----", self.stdout())
    }
}

/// Makes text comparable between runs: times of snapshots become `<TIME>`, recent ones `<WHEN>`, durations `<SECS>`,
/// sizes `<SIZE>`, and each `path` its `name`.
pub fn normalize(text: &str, names: &[(String, &str)]) -> String {
    let mut text = text.to_owned();
    for (path, name) in names {
        text = text.replace(path, name);
    }
    normalize_quantities(&normalize_times(&text))
}

/// The patterns of times; `0` stands for any digit.
const TIMES: [(&str, &str); 3] = [
    ("0000-00-00T00-00-00-000Z", "<TIME>"),
    ("yesterday 00:00", "<WHEN>"),
    ("today 00:00", "<WHEN>"),
];

fn normalize_times(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let matches = |pattern: &str| {
            rest.len() >= pattern.len()
                && pattern.bytes().zip(rest.bytes()).all(|(pattern, byte)| match pattern {
                    b'0' => byte.is_ascii_digit(),
                    other => other == byte,
                })
        };
        let found = TIMES.iter().find(|(pattern, _)| matches(pattern));
        let (name, length) = match found {
            Some((pattern, name)) => (*name, pattern.len()),
            None => (&rest[..next.len_utf8()], next.len_utf8()),
        };
        out.push_str(name);
        rest = &rest[length..];
    }
    out
}

const UNITS: [(&str, &str); 18] = [
    ("seconds", "<SECS>"),
    ("second", "<SECS>"),
    ("ms", "<SECS>"),
    ("min", "<SECS>"),
    ("s", "<SECS>"),
    ("bytes", "<SIZE>"),
    ("byte", "<SIZE>"),
    ("kB", "<SIZE>"),
    ("KB", "<SIZE>"),
    ("KiB", "<SIZE>"),
    ("MiB/s", "<RATE>"),
    ("MiB", "<SIZE>"),
    ("MB/s", "<RATE>"),
    ("MB", "<SIZE>"),
    ("GiB", "<SIZE>"),
    ("GB", "<SIZE>"),
    ("kB/s", "<RATE>"),
    ("B", "<SIZE>"),
];

/// Replaces each number with a unit, with or without a space between them.
fn normalize_quantities(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let (before, from) = rest.split_at(start);
        out.push_str(before);
        let digits =
            from.find(|c: char| !c.is_ascii_digit() && c != '.' && c != ',').unwrap_or(from.len());
        let (number, after) = from.split_at(digits);
        let inside_word = out.ends_with(|c: char| c.is_alphanumeric() || "-_".contains(c));
        match unit(after).filter(|_| !inside_word) {
            Some((length, name)) => {
                out.push_str(name);
                rest = &after[length..];
            }
            None => {
                out.push_str(number);
                rest = after;
            }
        }
    }
    out + rest
}

fn unit(after: &str) -> Option<(usize, &'static str)> {
    let space = usize::from(after.starts_with(' '));
    let candidates = UNITS.iter().filter(|(unit, _)| {
        after[space..].strip_prefix(unit).is_some_and(|behind| {
            !behind.starts_with(|c: char| c.is_alphanumeric() || c == '_' || c == '/')
        })
    });
    candidates.map(|(unit, name)| (space + unit.len(), *name)).max_by_key(|found| found.0)
}

/// Whether `docs/reference/output.schema.json` allows this.
fn check_schema(json: &serde_json::Value) -> Result<(), String> {
    let (mut schemas, mut compiler) = (boon::Schemas::new(), boon::Compiler::new());
    let schema = include_str!("../../docs/reference/output.schema.json");
    let schema = serde_json::from_str(schema).expect("the schema is JSON");
    compiler.add_resource("output.json", schema).expect("the schema is one");
    let index = compiler.compile("output.json", &mut schemas).expect("the schema is one");
    schemas.validate(json, index).map_err(|why| format!("{why:#}"))
}

#[cfg(test)]
mod tests {
    use super::normalize;

    #[test]
    fn volatile_parts_have_names() {
        let text = "/tmp/x1/data/backup_2026-03-15T14-18-50-365Z: 3 databases, 12.5 MB \
                    (1,024 bytes) at 3 MB/s in 0.3s; v2s abc12s 7 pages, today 14:18";
        assert_eq!(
            normalize(text, &[("/tmp/x1".to_owned(), "<ROOT>")]),
            "<ROOT>/data/backup_<TIME>: 3 databases, <SIZE> (<SIZE>) at <RATE> in <SECS>; \
             v2s abc12s 7 pages, <WHEN>"
        );
    }
}
