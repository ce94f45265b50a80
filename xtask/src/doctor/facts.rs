//! What `ops-remote/doctor.sh` reports of the server: a line for each fact, names in hex. Pure, and
//! trusts nothing.

use crate::fs::from_hex;
use crate::server::protocol::clipped;
use crate::ui::on_one_line;

/// What is known of the server. A fact that is missing was not reported.
#[derive(Debug, Default, PartialEq)]
pub struct Facts {
    pub user: Option<String>,
    pub machine: Option<String>,
    pub region: Option<String>,
    pub programs: Option<Programs>,
    pub sqlite3: Option<Sqlite3>,
    pub staging: Option<Directory>,
    /// In KiB, of the disk with the staging directory.
    pub free: Option<u64>,
    /// In KiB, if the staging directory is in memory.
    pub free_memory: Option<u64>,
    pub leftovers: Vec<Leftover>,
    pub directory: Option<Directory>,
    pub databases: Option<Databases>,
    pub problems: Vec<Problem>,
    /// Databases that no pattern names.
    pub missed: Vec<String>,
    pub more_missed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Programs {
    pub zstd: bool,
    pub gnu_grep: bool,
    /// What installs packages there.
    pub packages: Packages,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Packages {
    Apk,
    Apt,
    Unknown,
}

#[derive(Debug, PartialEq)]
pub enum Sqlite3 {
    Missing,
    /// It does not run.
    Broken,
    There {
        version: String,
        lacks: Vec<Lack>,
    },
}

/// What a `sqlite3` cannot do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Lack {
    Sha3,
    /// To put blobs together with `group_concat()`, before 3.39.
    Blobs,
    Zipfile,
    Dbstat,
}

#[derive(Debug, PartialEq)]
pub enum Directory {
    There(String),
    Missing(String),
    /// This user may not enter or list it, or not write into it.
    Barred(String),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Databases {
    pub count: u64,
    /// With each `-wal`.
    pub bytes: u64,
    /// Of the largest one.
    pub largest: u64,
    /// The number in WAL mode.
    pub logged: u64,
}

#[derive(Debug, PartialEq)]
pub struct Problem {
    pub kind: ProblemKind,
    pub name: String,
    /// Of the file, or of its `-wal`.
    pub bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ProblemKind {
    Unreadable,
    /// It has no SQLite header.
    Foreign,
    LongLog,
}

/// The copies of a run that was killed.
#[derive(Debug, PartialEq)]
pub struct Leftover {
    pub path: String,
    pub kib: u64,
}

impl Facts {
    /// `None` if a line is none of the script's.
    pub fn parse<'a>(lines: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let mut facts = Self::default();
        lines.into_iter().try_for_each(|line| facts.add(line))?;
        Some(facts)
    }

    fn add(&mut self, line: &str) -> Option<()> {
        let words: Vec<_> = line.split(' ').collect();
        match words[..] {
            ["server", user, machine, region] => {
                self.user = Some(name(user)?);
                (self.machine, self.region) = (word(machine)?, word(region)?);
            }
            ["programs", zstd, grep, packages] => {
                self.programs = Some(Programs {
                    zstd: one_of(zstd, [("yes", true), ("no", false)])?,
                    gnu_grep: one_of(grep, [("gnu", true), ("other", false)])?,
                    packages: one_of(
                        packages,
                        [("apk", Packages::Apk), ("apt", Packages::Apt), ("-", Packages::Unknown)],
                    )?,
                });
            }
            ["sqlite3", "missing"] => self.sqlite3 = Some(Sqlite3::Missing),
            ["sqlite3", "broken"] => self.sqlite3 = Some(Sqlite3::Broken),
            ["sqlite3", version, ref lacks @ ..] => {
                let lacks = lacks.iter().map(|lack| one_of(lack, LACKS)).collect::<Option<_>>()?;
                self.sqlite3 = Some(Sqlite3::There { version: word(version)??, lacks });
            }
            ["staging", "there", path, free, memory] => {
                self.staging = Some(Directory::There(name(path)?));
                (self.free, self.free_memory) = (number_or_none(free)?, number_or_none(memory)?);
            }
            ["staging", "missing", path] => self.staging = Some(Directory::Missing(name(path)?)),
            ["staging", "unwritable", path] => self.staging = Some(Directory::Barred(name(path)?)),
            ["leftover", path, kib] => {
                self.leftovers.push(Leftover { path: name(path)?, kib: number(kib)? });
            }
            ["directory", "there", path] => self.directory = Some(Directory::There(name(path)?)),
            ["directory", "missing", path] => {
                self.directory = Some(Directory::Missing(name(path)?));
            }
            ["directory", "barred", path] => self.directory = Some(Directory::Barred(name(path)?)),
            ["databases", count, bytes, largest, logged] => {
                let [count, bytes, largest, logged] =
                    [number(count)?, number(bytes)?, number(largest)?, number(logged)?];
                self.databases = Some(Databases { count, bytes, largest, logged });
            }
            ["problem", kind, database, bytes] => self.problems.push(Problem {
                kind: one_of(kind, PROBLEMS)?,
                name: name(database)?,
                bytes: number(bytes)?,
            }),
            ["missed", database] => self.missed.push(name(database)?),
            ["more-missed", count] => self.more_missed = number(count)?,
            _ => return None,
        }
        Some(())
    }
}

const LACKS: [(&str, Lack); 4] = [
    ("sha3", Lack::Sha3),
    ("blobs", Lack::Blobs),
    ("zipfile", Lack::Zipfile),
    ("dbstat", Lack::Dbstat),
];

const PROBLEMS: [(&str, ProblemKind); 3] = [
    ("unreadable", ProblemKind::Unreadable),
    ("foreign", ProblemKind::Foreign),
    ("log", ProblemKind::LongLog),
];

fn one_of<T, const N: usize>(word: &str, values: [(&str, T); N]) -> Option<T> {
    values.into_iter().find(|(name, _)| *name == word).map(|(_, value)| value)
}

fn name(hex: &str) -> Option<String> {
    Some(String::from_utf8_lossy(&from_hex(hex)?).into_owned())
}

/// A number that this program can add to others.
fn number(text: &str) -> Option<u64> {
    text.parse().ok().filter(|number| *number < 1 << 60)
}

fn number_or_none(text: &str) -> Option<Option<u64>> {
    if text == "-" { Some(None) } else { Some(Some(number(text)?)) }
}

/// `-` for none.
fn word(text: &str) -> Option<Option<String>> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let is_word = !text.is_empty() && text.len() < 256 && text.chars().all(is_plain);
    is_word.then(|| Some(text.to_owned()).filter(|text| text != "-"))
}

/// A name from the server as part of a line.
pub fn shown(name: &str) -> String {
    clipped(&on_one_line(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_facts_of_a_server_are_read() {
        let facts = Facts::parse(["server 726f6f74 48ed - "]);
        assert_eq!(facts, None, "a word too many");
        let facts = Facts::parse([
            "server 726f6f74 48ed -",
            "programs yes other apk",
            "sqlite3 3.34.1 blobs dbstat",
            "staging there 2f746d70 1024 -",
            "leftover 2f746d702f78 12",
            "directory barred 2f64",
            "databases 2 100 60 1",
            "problem log 610a62 70",
            "missed 78ff",
            "more-missed 3",
        ])
        .unwrap();
        assert_eq!(facts.user.as_deref(), Some("root"));
        assert_eq!((facts.machine.as_deref(), facts.region), (Some("48ed"), None));
        let lacks = vec![Lack::Blobs, Lack::Dbstat];
        assert_eq!(facts.sqlite3, Some(Sqlite3::There { version: "3.34.1".to_owned(), lacks }));
        assert_eq!((facts.free, facts.free_memory), (Some(1024), None));
        assert_eq!(facts.directory, Some(Directory::Barred("/d".to_owned())));
        assert_eq!(shown(&facts.problems[0].name), "a\\nb");
        assert_eq!(facts.missed, ["x\u{fffd}"]);
    }

    #[test]
    fn a_line_that_the_script_does_not_write_is_refused() {
        for line in [
            "",
            "x",
            "server 7 a b",
            "server 72 a;b -",
            "programs maybe gnu apk",
            "sqlite3",
            "sqlite3 -",
            "sqlite3 3.40 wings",
            "staging there 2f -1 -",
            "databases 1 2 3",
            "databases 1 2 3 99999999999999999999",
            "problem odd 61 1",
            "missed zz",
        ] {
            assert_eq!(Facts::parse([line]), None, "{line}");
        }
    }
}
