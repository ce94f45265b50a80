//! Receives the databases of a server into a directory, and verifies them.

use std::path::Path;

use anyhow::Result;

use crate::pull::base::Base;
use crate::pull::error::PullError;
use crate::pull::incoming::Incoming;
use crate::pull::session::Session;
use crate::pull::verify::VerifiedDb;
use crate::sanitize::audit::Findings;
use crate::sanitize::unmatched::Unmatched;
use crate::server::protocol::{Changed, Received, ReceivedDb, Timings};
use crate::server::request::{Mode, Request};
use crate::server::transport::Transport;
use crate::snapshots::retain;
use crate::ui::Ui;

/// The received databases, and facts about the transfer.
pub struct Pulled {
    pub databases: Vec<VerifiedDb>,
    pub findings: Findings,
    pub timings: Timings,
    pub boot: Option<String>,
    pub machine: Option<String>,
    pub region: Option<String>,
    pub wire_bytes: u64,
}

/// Receives the databases that `request` asks for into `dir`; `reserved` bytes must stay free on
/// its disk for later steps.
///
/// # Errors
///
/// A database did not arrive complete and intact. The files in `dir` are then at most good as bases
/// of the next pull.
pub fn receive(
    ui: &Ui,
    transport: &mut Transport<'_>,
    request: &Request<'_>,
    dir: &Path,
    reserved: u64,
) -> Result<Pulled> {
    let mut session = Session::connect(ui, transport, request)?;
    let mut incoming = Incoming::new(ui, request, dir, reserved, session.wire.clone());
    match receive_sound(&mut session, &mut incoming, dir) {
        Ok((databases, received)) => Ok(Pulled {
            databases,
            timings: received.timings,
            boot: received.boot,
            wire_bytes: session.wire.get(),
            machine: session.status.machine,
            region: session.status.region,
            findings: session.status.findings,
        }),
        Err(error) => {
            incoming.pause();
            let error = session.find_cause(error);
            if error.spoils_data() {
                // The error matters more than a file that cannot be removed.
                let _ = retain(dir, &[]);
            }
            Err(session.explain(error, dir))
        }
    }
}

/// Requests databases again whose delta did not give the right hash.
fn receive_sound(
    session: &mut Session<'_, '_>,
    incoming: &mut Incoming<'_>,
    dir: &Path,
) -> Result<(Vec<VerifiedDb>, Received), PullError> {
    let mut received = session.receive(incoming, dir)?;
    incoming.hide_changes(&mut received);
    session.check_rules_matched(&received)?;
    let mut databases = incoming.verify(&received.databases)?;

    let missing: Vec<_> = (0..databases.len()).filter(|&i| databases[i].is_none()).collect();
    if !missing.is_empty() {
        let names: Vec<_> = missing.iter().map(|&i| received.databases[i].name.clone()).collect();
        incoming.warn_of_bases(&names);
        session.ask_for(&missing);
        incoming.expect_whole(names)?;
        let whole = session.receive(incoming, dir)?;
        for (i, arrived) in missing.into_iter().zip(incoming.verify(&whole.databases)?) {
            databases[i] = arrived;
        }
    }
    let databases: Option<Vec<_>> = databases.into_iter().collect();
    let mut databases = databases.ok_or(PullError::Incomplete)?;
    databases.iter_mut().for_each(|arrived| incoming.share(&mut arrived.database));
    databases.extend(incoming.link_same(&received.same)?);
    databases.sort_by(|a, b| a.database.name.cmp(&b.database.name));
    for VerifiedDb { database, .. } in &mut databases {
        database.unsanitized = session.request.rules.leave_unsanitized(&database.name);
        database.raw = session.request.rules.leave_raw(&database.name);
    }
    let names: Vec<_> = databases.iter().map(|arrived| &*arrived.database.name).collect();
    retain(dir, &names)?;
    session.release();
    Ok((databases, received))
}

/// The databases that a pull would transfer.
pub struct Planned {
    pub databases: Vec<ReceivedDb>,
    /// How many of them are those of an earlier pull.
    pub untouched: usize,
    /// Whether each would come without the rules that match it.
    pub unsanitized: Vec<bool>,
    pub findings: Findings,
    /// What a survey or a plan tells of databases and rules.
    pub facts: Vec<String>,
    /// The rules that match nothing, of a survey: otherwise they are an error.
    pub unmatched: Vec<Unmatched>,
    pub machine: Option<String>,
    pub region: Option<String>,
    /// The size of the compressed stream.
    pub wire_bytes: u64,
}

/// Finds out what [`receive`] would transfer; writes nothing to `dir`.
///
/// # Errors
///
/// The pull itself would fail too.
pub fn plan(
    ui: &Ui,
    transport: &mut Transport<'_>,
    request: &Request<'_>,
    dir: &Path,
) -> Result<Planned> {
    let mut session = Session::connect(ui, transport, request)?;
    let mut incoming = Incoming::new(ui, request, dir, 0, session.wire.clone());
    let planned = plan_sound(&mut session, &mut incoming);
    incoming.pause();
    let (databases, untouched, wire_bytes) =
        planned.map_err(|error| session.explain(error, dir))?;
    let unsanitized = |database: &ReceivedDb| request.rules.leave_unsanitized(&database.name);
    Ok(Planned {
        unsanitized: databases.iter().map(unsanitized).collect(),
        databases,
        untouched,
        wire_bytes,
        machine: session.status.machine,
        region: session.status.region,
        findings: session.status.findings,
        facts: session.status.facts,
        unmatched: session.status.unmatched,
    })
}

fn plan_sound(
    session: &mut Session<'_, '_>,
    incoming: &mut Incoming<'_>,
) -> Result<(Vec<ReceivedDb>, usize, u64), PullError> {
    let (wire_bytes, mut received) = session.receive_plan(incoming)?;
    incoming.hide_changes(&mut received);
    if session.request.mode == Mode::DryRun {
        session.check_rules_matched(&received)?;
    }
    session.release();
    let mut databases = received.databases;
    databases.extend(received.same.iter().map(|&number| unchanged(&session.request.bases[number])));
    databases.sort_by(|a, b| a.name.cmp(&b.name));
    Ok((databases, received.same.len(), wire_bytes))
}

fn unchanged(Base { database, .. }: &Base) -> ReceivedDb {
    ReceivedDb {
        name: database.name.clone(),
        bytes: database.bytes,
        sha256: database.sha256.clone().unwrap_or_default(),
        sanitized: 0,
        changed: Some(Changed::default()),
        scrubbed: database.scrubbed,
        remote: None,
    }
}
