//! The script and the request that are sent to the server.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io::Write as _;
use std::path::Path;

use anyhow::Result;
use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::SignedDuration;

use crate::config::{NamePattern, Settings};
use crate::error::Failure;
use crate::fs;
use crate::pull::base::Base;
use crate::sanitize::audit::{self, Level};
use crate::sanitize::{self, EffectiveRules, Rule};

/// The script for the server; the last file runs what the others define.
const SCRIPT: [&str; 15] = [
    include_str!("../../ops-remote/request.sh"),
    include_str!("../../ops-remote/unchanged.sh"),
    include_str!("../../ops-remote/facts.sh"),
    include_str!("../../ops-remote/cores.sh"),
    include_str!("../../ops-remote/audit.sh"),
    include_str!("../../ops-remote/compare.sh"),
    include_str!("../../ops-remote/pack.sh"),
    include_str!("../../ops-remote/survey.sh"),
    include_str!("../../ops-remote/plan.sh"),
    include_str!("../../ops-remote/scrub.sh"),
    include_str!("../../ops-remote/leak-check.sh"),
    include_str!("../../ops-remote/sanitize.sh"),
    include_str!("../../ops-remote/find.sh"),
    include_str!("../../ops-remote/copy.sh"),
    include_str!("../../ops-remote/prepare-pull.sh"),
];

/// The script of a doctor, which shares files with that of a pull.
const DOCTOR: [&str; 5] = [
    include_str!("../../ops-remote/request.sh"),
    include_str!("../../ops-remote/pack.sh"),
    include_str!("../../ops-remote/find.sh"),
    include_str!("../../ops-remote/doctor.sh"),
    include_str!("../../ops-remote/prepare-pull.sh"),
];

/// How the copies are transferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// On the script's standard output.
    Stream,
    /// As an archive file on the server.
    Archive,
    /// No transfer: the script only reports what a pull would transfer.
    DryRun,
    /// The same, and what kind of databases these are. What would stop a pull because of a rule is only
    /// reported.
    Survey,
    /// A survey that does not describe the databases.
    Trial,
    /// No copies: the script only looks around.
    Doctor,
}

/// The request of one pull, or of a doctor, to the server.
pub struct Request<'a> {
    /// Identifies this pull in all lines of the script.
    pub nonce: String,
    pub mode: Mode,
    /// Whether nobody has chosen a machine: then the script says whether this is the right one.
    pub any_machine: bool,
    pub settings: &'a Settings,
    pub directory: String,
    pub only: Option<&'a NamePattern>,
    pub rules: EffectiveRules<'a>,
    /// How long a copy may block writers of the app; `None` for no limit.
    pub max_lock: Option<SignedDuration>,
    /// The databases of earlier pulls, which reduce the transfer.
    pub bases: Vec<Base>,
}

impl Request<'_> {
    /// The script and the request, in the format of `BOOTSTRAP` and `read_request`. Each value is a
    /// line of its own, which the script reads as data.
    ///
    /// # Errors
    ///
    /// A value contains a newline.
    pub fn render(&self) -> Result<Vec<u8>> {
        let settings = self.settings;
        let parts = if self.mode == Mode::Doctor { &DOCTOR[..] } else { &SCRIPT };
        let mut message = script(parts)?;
        let mut line = |key: &str, value: &str| line(&mut message, key, value);
        line("nonce", &self.nonce)?;
        let mode = match self.mode {
            Mode::Stream => "stream",
            Mode::Archive => "archive",
            Mode::DryRun | Mode::Survey | Mode::Trial => "dry-run",
            Mode::Doctor => "doctor",
        };
        line("mode", mode)?;
        if self.any_machine {
            line("machine", "any")?;
        }
        match self.mode {
            Mode::Survey => line("survey", "all")?,
            Mode::Trial => line("survey", "rules")?,
            Mode::Stream | Mode::Archive | Mode::DryRun | Mode::Doctor => {}
        }
        line("directory", &self.directory)?;
        if let Some(dir) = &settings.staging_dir {
            line("staging", dir)?;
        }
        if let Some(limit) = self.max_lock {
            line("max-lock", &limit.as_millis().to_string())?;
        }
        for pattern in &settings.names.include {
            line("include", pattern.as_path())?;
        }
        for pattern in &settings.names.exclude {
            line("exclude", pattern.as_path())?;
        }
        for rename in settings.names.renames.lines() {
            line("rename", &rename)?;
        }
        if let Some(only) = self.only {
            line("only", only.as_path())?;
        }
        if settings.source.is_some() {
            line("partial", "source")?;
        }
        if let Some(boot) = self.bases.iter().find_map(|base| base.boot.as_deref()) {
            line("boot", boot)?;
        }
        for base in &self.bases {
            line("base", &base.line())?;
        }
        let found: String = (0..).zip(&self.bases).flat_map(|(i, base)| base.findings(i)).collect();
        if !found.is_empty() {
            write!(message, "found {}\n{found}", found.len())?;
        }
        message.extend(rule_lines(self.rules.applied()).as_bytes());
        let rules = sanitize::script(self.rules.applied());
        if !rules.is_empty() {
            writeln!(message, "rules {}", rules.len())?;
            message.extend(rules.as_bytes());
        }
        message.extend(audit_lines(settings, self.rules).as_bytes());
        message.extend(b"end\n");
        Ok(message)
    }
}

/// A request that makes the script only audit the databases in `directory`; it writes its files to
/// `staging`.
///
/// # Errors
///
/// A path contains a newline.
pub fn audit_request(
    nonce: &str,
    staging: &Path,
    directory: &Path,
    audit: &str,
    rules: &[Rule],
) -> Result<Vec<u8>> {
    let mut message = script(&SCRIPT)?;
    let path = |path: &Path| path.to_string_lossy().into_owned();
    for (key, value) in [
        ("nonce", nonce),
        ("mode", "dry-run"),
        ("directory", &path(directory)),
        ("staging", &path(staging)),
        ("include", "**/*"),
    ] {
        line(&mut message, key, value)?;
    }
    message.extend(rule_lines(rules).as_bytes());
    write!(message, "audit warn {}\n{audit}end\n", audit.len())?;
    Ok(message)
}

/// For each rule, in order, which databases it is for.
fn rule_lines(rules: &[Rule]) -> String {
    rules.iter().map(|rule| format!("rule-for {}\n", rule.database.as_path())).collect()
}

/// The SQL of the audit, if there is one.
fn audit_lines(settings: &Settings, rules: EffectiveRules<'_>) -> String {
    let audit = || audit::script(&settings.audit, rules.applied());
    let level = if settings.audit.level == Level::Fail { "fail" } else { "warn" };
    let audit = rules.are_audited().then(audit).flatten();
    audit.map_or_else(String::new, |audit| format!("audit {level} {}\n{audit}", audit.len()))
}

/// The sha256 of everything that decides what the server makes of a database: the script, the
/// rules and the audit.
pub fn recipe(settings: &Settings, rules: EffectiveRules<'_>) -> String {
    let applied = rules.applied();
    let rest = [rule_lines(applied), sanitize::script(applied), audit_lines(settings, rules)];
    fs::sha256_of(SCRIPT.concat() + &rest.concat())
}

/// The script in the format of `BOOTSTRAP`.
fn script(parts: &[&str]) -> Result<Vec<u8>> {
    let mut script = GzEncoder::new(Vec::new(), Compression::best());
    for part in parts {
        script.write_all(part.as_bytes())?;
    }
    let script = script.finish()?;
    Ok([format!("{}\n", script.len()).into_bytes(), script].concat())
}

fn line(message: &mut Vec<u8>, key: &str, value: &str) -> Result<()> {
    if value.is_empty() || value.chars().any(char::is_control) {
        let why = "it is empty, or has a control character";
        return Err(Failure::usage(format!("{value:?} cannot be the {key}: {why}")).into());
    }
    Ok(writeln!(message, "{key} {value}")?)
}

/// Sixteen random hex digits, which no other line contains.
pub fn nonce() -> String {
    format!("{:016x}", RandomState::new().build_hasher().finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_new_each_time() {
        assert_ne!(nonce(), nonce());
        assert_eq!(nonce().len(), 16);
    }

    #[test]
    fn a_value_with_a_newline_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("db.toml");
        std::fs::write(&config, "").unwrap();
        let settings = Settings::load(Some(&config), None).unwrap();
        for directory in ["/data\nend", "", "/data\x1b"] {
            let request = Request {
                nonce: nonce(),
                mode: Mode::Stream,
                settings: &settings,
                any_machine: false,
                directory: directory.to_owned(),
                only: None,
                rules: EffectiveRules::new(&[], true),
                max_lock: None,
                bases: Vec::new(),
            };
            assert!(request.render().is_err(), "{directory:?}");
        }
    }
}
