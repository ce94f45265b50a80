//! `fly ssh sftp get`.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tests::world::World;

use crate::cli::Sftp;
use crate::select;
use crate::ssh::Session;

pub fn run(world: &World, command: &Sftp) -> Result<()> {
    let Sftp::Get { target, remote, local } = command;
    let local = match local {
        Some(local) => local,
        None => remote.rsplit('/').next().unwrap_or(remote),
    };
    if Path::new(local).exists() {
        bail!(
            "file {local} is already there. `fly ssh` doesn't override existing files for safety."
        );
    }
    let destination = select::destination(world, target)?;
    sleep(Duration::from_millis(world.connect_millis));
    let session = Session::new(world, &destination)?;
    get(&session, remote, local)?;
    if let Some(limit) = world.faults.sftp_cut_after_bytes
        && limit < fs::metadata(local)?.len()
    {
        // The partial file stays, and blocks the next attempt.
        File::options().write(true).open(local)?.set_len(limit)?;
        bail!("get: copy file: connection lost ({limit} bytes written)");
    }
    println!("{} bytes written to {local}", fs::metadata(local)?.len());
    Ok(())
}

fn get(session: &Session, remote: &str, local: &str) -> Result<()> {
    let mut child = session
        .sftp()
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("start sftp")?;
    let mut batch = child.stdin.take().context("stdin is piped")?;
    writeln!(batch, "get {} {}", quote(remote), quote(local))?;
    drop(batch);
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let reason = said.lines().last().unwrap_or("connection lost");
    if reason.contains("not found") || reason.contains("No such file") {
        bail!("get: remote file {remote}: file does not exist");
    }
    if reason.contains("ermission denied") {
        bail!("get: remote file {remote}: permission denied");
    }
    bail!("get: copy file: {reason}")
}

/// Quoted, so that sftp does not expand wildcards.
fn quote(path: &str) -> String {
    format!("\"{}\"", path.replace('\\', r"\\").replace('"', "\\\""))
}
