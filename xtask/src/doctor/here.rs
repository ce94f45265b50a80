//! Checks of this machine, but for its data: the settings, the program that connects, git, docker,
//! the hook, the disk.

use std::path::Path;

use anyhow::Result;
use xshell::Shell;

use super::{Check, Fix};
use crate::config::Settings;
use crate::git::Repository;
use crate::hooks::{Hook, IN_HOOKS};
use crate::server::transport::{Via, client};
use crate::snapshots::Store;
use crate::ui::{bytes, count, from_root};
use crate::{exposure, live};

/// Files by which hook managers run this tool.
const HOOK_MANAGERS: [&str; 5] =
    [".pre-commit-config.yaml", "prek.toml", "lefthook.yml", ".lefthook.yml", "lefthook.yaml"];

pub fn settings(settings: &Settings) -> Check {
    let fixtures = match settings.fixtures.len() {
        0 => String::new(),
        n => format!(", {}", count(n, "fixture")),
    };
    let (file, rules) =
        (from_root(&settings.root, &settings.file), count(settings.rules.len(), "rule"));
    Check::ok("settings", format!("{file}: {rules}{fixtures}"))
}

/// The program that connects to the server.
pub fn program(sh: &Shell, via: &Via) -> Option<Check> {
    let client = match client::of(sh, via) {
        Ok(client) => client?,
        Err(error) => return Some(Check::failed("program", &error)),
    };
    let version = client.version.map(|version| format!(" {version}")).unwrap_or_default();
    let account = client.account.map(|it| format!(", logged in as {it}")).unwrap_or_default();
    let message = format!("{}{version}{account}", client.name);
    Some(match client.is_old {
        true => Check::warning("program", format!("{message}: it may lose the end of a stream"))
            .fix("fly version upgrade"),
        false => Check::ok("program", message),
    })
}

/// Whether git and docker ignore the data, and the hook is there.
pub fn repository(sh: &Shell, settings: &Settings) -> Vec<Check> {
    let store = Store::of(settings);
    let dirs = [Some(&*settings.data_dir), store.shared()];
    let mut checks: Vec<_> =
        dirs.into_iter().flatten().flat_map(|dir| ignored(sh, settings, dir)).collect();
    match hook(sh, settings) {
        Ok(check) => checks.extend(check),
        Err(error) => checks.push(Check::failed("hook", &error)),
    }
    checks
}

fn ignored(sh: &Shell, settings: &Settings, dir: &Path) -> Vec<Check> {
    let live = live::databases(&settings.data_dir, &settings.names).unwrap_or_default();
    let exposures = exposure::of(sh, settings, dir, &live);
    let in_repository =
        dir.starts_with(&settings.root) && Repository::of(sh, &settings.root).is_ok();
    if exposures.is_empty() && in_repository {
        let docker = if settings.root.join("Dockerfile").exists() { " and docker" } else { "" };
        let message = format!("{} is ignored by git{docker}", from_root(&settings.root, dir));
        return vec![Check::ok("ignored", message)];
    }
    let checks = exposures.into_iter().map(|exposure| {
        let check = Check::error("ignored", exposure.message).fix(exposure.hints.join("; "));
        match exposure.missing {
            Some((file, lines)) => check.can_fix(Fix::AddLines(file, lines)),
            None => check,
        }
    });
    checks.collect()
}

/// Where fixtures are configured: whether a commit refreshes them.
fn hook(sh: &Shell, settings: &Settings) -> Result<Option<Check>> {
    if settings.fixtures.is_empty() {
        return Ok(None);
    }
    let tree = Repository::of(sh, &settings.root)?;
    let has_line = |name: &str| {
        std::fs::read_to_string(tree.top.join(name)).is_ok_and(|text| text.contains(IN_HOOKS))
    };
    if Hook::find(&tree)?.is_installed() || HOOK_MANAGERS.into_iter().any(has_line) {
        return Ok(Some(Check::ok("hook", "commits refresh the fixtures")));
    }
    let check = Check::warning("hook", "no pre-commit hook refreshes the fixtures");
    Ok(Some(check.fix("cargo xtask install-hooks").can_fix(Fix::Hook)))
}

/// Whether this disk has room for a pull of so many bytes, if the snapshot shares nothing with
/// earlier ones.
pub fn disk(settings: &Settings, set: u64) -> Option<Check> {
    let dir = settings.snapshots_dir.ancestors().find(|dir| dir.exists())?;
    let fs = rustix::fs::statvfs(dir).ok()?;
    let free = fs.f_bavail.saturating_mul(fs.f_frsize);
    let live = live::databases(&settings.data_dir, &settings.names).unwrap_or_default();
    let size = |name: &String| settings.data_dir.join(name).metadata().map_or(0, |it| it.len());
    let saved: u64 = live.iter().map(size).sum();
    // The snapshot, its copy that becomes current, and what was current before.
    let needed = set.saturating_mul(2).saturating_add(saved);
    let message = format!(
        "{} are free for {}, and a pull can need {}",
        bytes(free),
        from_root(&settings.root, &settings.snapshots_dir),
        bytes(needed)
    );
    Some(match free < needed {
        true => Check::warning("disk", message).fix("cargo xtask snapshots prune --keep 3"),
        false => Check::ok("disk", message),
    })
}
