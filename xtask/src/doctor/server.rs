//! Checks of the server, by the facts that it has reported.

use super::facts::{
    Databases, Directory, Facts, Lack, Packages, Problem, ProblemKind, Programs, Sqlite3, shown,
};
use super::{Check, Fix, several};
use crate::config::{NamePattern, Settings};
use crate::server::transport::Via;
use crate::ui::{bytes, count};

/// KiB besides the copies: for hashes of an earlier pull, and files of the script.
const BESIDE: u64 = 9 << 10;

/// What the checks go by.
pub struct Expected<'a> {
    pub settings: &'a Settings,
    pub via: &'a Via,
    /// The name of the server.
    pub peer: &'a str,
}

pub fn checks(facts: &Facts, expected: &Expected<'_>) -> Vec<Check> {
    let Expected { settings, via, .. } = *expected;
    let mut checks = Vec::new();
    checks.extend(machine(facts, expected));
    checks.extend(directory(facts, via));
    if let (Some(Directory::There(path)), Some(databases)) = (&facts.directory, &facts.databases) {
        checks.push(set(path, *databases, settings));
    }
    checks.extend(problems(facts));
    checks.extend(missed(facts, settings));
    let packages = facts.programs.map_or(Packages::Unknown, |programs| programs.packages);
    let install = Install { via, packages };
    checks.extend(facts.sqlite3.as_ref().map(|sqlite3| self::sqlite3(sqlite3, &install)));
    let has_rules = !settings.rules.is_empty();
    checks.extend(facts.programs.iter().flat_map(|it| programs(*it, &install, has_rules)));
    checks.extend(staging(facts));
    checks.extend(leftovers(facts));
    checks.into_iter().map(Check::on_server).collect()
}

fn machine(facts: &Facts, expected: &Expected<'_>) -> Option<Check> {
    let user = shown(facts.user.as_ref()?);
    let mut message = expected.peer.to_owned();
    if *expected.via == Via::Fly
        && let Some(machine) = &facts.machine
    {
        let region = facts.region.as_ref().map(|region| format!(" in {region}"));
        message += &format!(": machine {machine}{}, started", region.unwrap_or_default());
    }
    Some(Check::ok("server", format!("{message}, as {user}")))
}

fn directory(facts: &Facts, via: &Via) -> Option<Check> {
    let user = facts.user.as_deref().map(shown).unwrap_or_default();
    Some(match facts.directory.as_ref()? {
        Directory::There(_) => return None,
        Directory::Missing(path) => {
            let message = format!("there is no directory {} on the server", shown(path));
            let fix = match via {
                Via::Local(_) | Via::Litestream(_) => "check the path after local:",
                _ => "set remote-dir in xtask/db.toml",
            };
            Check::error("directory", message).fix(fix)
        }
        Directory::Barred(path) => {
            let message = format!("user {user} may not read the directory {}", shown(path));
            Check::error("directory", message).fix(OTHER_USER)
        }
    })
}

const OTHER_USER: &str =
    "connect as the app's user or as root, such as with `as` or `via` in xtask/db.toml";

/// The databases as a whole.
fn set(path: &str, databases: Databases, settings: &Settings) -> Check {
    let Databases { count: n, bytes: size, logged, .. } = databases;
    let path = shown(path);
    if n == 0 {
        let include = include_line(settings, &[]);
        let message = format!("{path}: no database matches {include}");
        return Check::error("databases", message).fix("set include and exclude in xtask/db.toml");
    }
    let modes = match n - logged.min(n) {
        0 => "WAL".to_owned(),
        other if other == n => "rollback journal".to_owned(),
        other => format!("{logged} WAL, {other} rollback journal"),
    };
    let n = count(usize::try_from(n).unwrap_or(usize::MAX), "database");
    Check::ok("databases", format!("{path}: {n} ({modes}), {}", bytes(size)))
}

fn problems(facts: &Facts) -> Vec<Check> {
    let of = |kind| {
        let found = facts.problems.iter().filter(move |it| it.kind == kind);
        found.collect::<Vec<_>>()
    };
    let names = |found: &[&Problem]| {
        let names: Vec<_> = found.iter().map(|problem| shown(&problem.name)).collect();
        several(&names)
    };
    let mut checks = Vec::new();
    let unreadable = of(ProblemKind::Unreadable);
    if !unreadable.is_empty() {
        let user = facts.user.as_deref().map(shown).unwrap_or_default();
        let message = format!("user {user} may not read {}", names(&unreadable));
        checks.push(Check::error("rights", message).fix(OTHER_USER));
    }
    let foreign = of(ProblemKind::Foreign);
    if !foreign.is_empty() {
        let message = format!("no SQLite header, or encrypted: {}", names(&foreign));
        checks.push(Check::error("header", message).fix("add them to exclude in xtask/db.toml"));
    }
    let logs = of(ProblemKind::LongLog);
    if let Some(longest) = logs.iter().map(|log| log.bytes).max() {
        let message = format!(
            "the -wal of {} has up to {}, which each pull copies",
            names(&logs),
            bytes(longest)
        );
        checks.push(Check::warning("wal", message).fix(
            "in the app: PRAGMA wal_checkpoint(TRUNCATE); a read transaction that never ends prevents it",
        ));
    }
    checks
}

/// Databases that no pattern names.
fn missed(facts: &Facts, settings: &Settings) -> Option<Check> {
    let Facts { missed, more_missed, .. } = facts;
    let names: Vec<_> = missed.iter().map(|name| shown(name)).collect();
    let total = missed.len() as u64 + more_missed;
    let message = match total {
        0 => return None,
        1 => format!("a database is in no pattern of include: {}", several(&names)),
        n => format!("{n} databases are in no pattern of include: {}", several(&names)),
    };
    let mut patterns: Vec<String> = Vec::new();
    for name in missed {
        if let Some(pattern) = pattern_of(name).filter(|pattern| !patterns.contains(pattern)) {
            patterns.push(pattern);
        }
    }
    let fix =
        format!("in xtask/db.toml: {}; or add them to exclude", include_line(settings, &patterns));
    Some(Check::warning("include", message).fix(fix))
}

/// A pattern for databases like this one, if a pattern can name it.
fn pattern_of(name: &str) -> Option<String> {
    let (dir, file) = name.rsplit_once('/').map_or(("", name), |(dir, file)| (dir, file));
    let escaped = glob::Pattern::escape(file);
    let alike = match file.rsplit_once('.') {
        Some((begin, end)) if !begin.is_empty() => format!("*.{}", glob::Pattern::escape(end)),
        _ => escaped,
    };
    let slash = if dir.is_empty() { "" } else { "/" };
    let pattern = format!("{}{slash}{alike}", glob::Pattern::escape(dir));
    NamePattern::path(&pattern).ok().filter(|it| it.matches(name)).map(|_| pattern)
}

/// `include` with more patterns, as TOML.
fn include_line(settings: &Settings, more: &[String]) -> String {
    let patterns = settings.names.include.iter().map(NamePattern::as_str);
    let patterns = patterns.chain(more.iter().map(String::as_str));
    // A string of JSON is one of TOML, as patterns have no control characters.
    let quoted: Vec<_> =
        patterns.map(|text| serde_json::to_string(text).unwrap_or_default()).collect();
    format!("include = [{}]", quoted.join(", "))
}

/// How a program is installed on the server.
struct Install<'a> {
    via: &'a Via,
    packages: Packages,
}

impl Install<'_> {
    fn package(&self, apt: &str, apk: &str) -> String {
        let command = match self.packages {
            Packages::Apk => format!("apk add {apk}"),
            Packages::Apt => format!("apt-get install -y {apt}"),
            Packages::Unknown => format!("install {apt}"),
        };
        match self.via {
            Via::Fly | Via::Docker(_) => format!("add to the Dockerfile: {command}"),
            Via::Ssh { .. } | Via::Exec(_) | Via::Local(_) | Via::Litestream(_) => {
                format!("there: {command}")
            }
        }
    }
}

fn sqlite3(sqlite3: &Sqlite3, install: &Install<'_>) -> Check {
    let newer =
        "an image with 3.39 or newer: that of debian:bookworm has 3.40, of alpine:3.20 3.45";
    let (version, lacks) = match sqlite3 {
        Sqlite3::Missing => {
            return Check::error("sqlite3", "sqlite3 is not there")
                .fix(install.package("sqlite3", "sqlite"));
        }
        Sqlite3::Broken => {
            return Check::error("sqlite3", "sqlite3 is there, but does not run")
                .fix("run on the server: sqlite3 --version");
        }
        Sqlite3::There { version, lacks } => (version, lacks),
    };
    let has_no = |lack| lacks.contains(&lack);
    let message = format!("sqlite3 {version} there");
    if has_no(Lack::Blobs) || has_no(Lack::Sha3) {
        let message = message + " cannot compare databases: each comes whole";
        Check::warning("sqlite3", message).fix(newer)
    } else if has_no(Lack::Dbstat) {
        let message = message + " lacks dbstat: masking runs VACUUM, and more pages differ";
        Check::warning("sqlite3", message).fix("a build with SQLITE_ENABLE_DBSTAT_VTAB")
    } else if has_no(Lack::Zipfile) {
        Check::ok("sqlite3", message + ", without zipfile: comparing takes longer")
    } else {
        Check::ok("sqlite3", message)
    }
}

fn programs(programs: Programs, install: &Install<'_>, has_rules: bool) -> Vec<Check> {
    let mut checks = vec![match programs.zstd {
        true => Check::ok("zstd", "zstd there"),
        false => Check::warning("zstd", "zstd is not there: pulls take longer")
            .fix(install.package("zstd", "zstd")),
    }];
    if !programs.gnu_grep && has_rules {
        let message = "no GNU grep there: the leak check finds masked values only where they are whole values";
        checks.push(Check::warning("grep", message).fix(install.package("grep", "grep")));
    }
    checks
}

/// Whether the copies fit.
fn staging(facts: &Facts) -> Option<Check> {
    let set = "set staging-dir in xtask/db.toml to a directory on a larger disk";
    let path = match facts.staging.as_ref()? {
        Directory::There(path) => shown(path),
        Directory::Missing(path) => {
            let message = format!("there is no directory {} for the copies", shown(path));
            return Some(Check::error("staging", message).fix(set));
        }
        Directory::Barred(path) => {
            let message = format!("the directory for the copies, {}, is not writable", shown(path));
            return Some(Check::error("staging", message).fix(set));
        }
    };
    let Databases { bytes: total, largest, .. } = facts.databases?;
    let needed = (total + largest) / 1024 + BESIDE;
    let [need, free, memory] = [Some(needed), facts.free, facts.free_memory]
        .map(|kib| bytes(kib.unwrap_or_default().saturating_mul(1024)));
    let in_memory =
        format!("the copies in {path} need {need} of memory, of which {memory} are free");
    Some(match (facts.free_memory, facts.free) {
        (Some(memory), _) if memory < needed => Check::error("staging", in_memory).fix(set),
        (_, Some(disk)) if disk < needed => {
            let message = format!("the copies in {path} need {need}, and {free} are free");
            Check::error("staging", message).fix(set)
        }
        (Some(memory), _) if memory / 2 < needed => Check::warning("staging", in_memory).fix(set),
        (_, None) => Check::ok("staging", format!("the copies in {path} need {need}")),
        _ => Check::ok("staging", format!("the copies in {path} need {need}, and {free} are free")),
    })
}

fn leftovers(facts: &Facts) -> Option<Check> {
    let paths: Vec<_> = facts.leftovers.iter().map(|leftover| shown(&leftover.path)).collect();
    let kib = facts.leftovers.iter().fold(0_u64, |sum, one| sum.saturating_add(one.kib));
    let size = bytes(kib.saturating_mul(1024));
    (!paths.is_empty()).then(|| {
        let message = format!("killed pulls left {size} on the server: {}", several(&paths));
        let fix = "the next pull removes them, and so does cargo xtask doctor --fix";
        Check::warning("remote-leftovers", message).fix(fix).can_fix(Fix::There)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suggested_pattern_names_the_database() {
        for (name, pattern) in [
            ("a.sqlite3", Some("*.sqlite3")),
            ("production", Some("production")),
            ("x/y z/a.db", Some("x/y z/*.db")),
            ("odd[1]/a.db", Some("odd[[]1[]]/*.db")),
            ("a\nb", None),
            ("a\\b", None),
        ] {
            assert_eq!(pattern_of(name).as_deref(), pattern, "{name}");
        }
    }
}
