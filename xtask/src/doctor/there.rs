//! The connection to the server, over which the script reports the facts, and removes what killed
//! pulls left if it is told to.

use anyhow::Result;

use super::facts::Facts;
use crate::config::Settings;
use crate::context::Context;
use crate::error::{self, Failure, Reason};
use crate::pull::session::Session;
use crate::sanitize::EffectiveRules;
use crate::server::request::{self, Mode, Request};
use crate::server::transport::Transport;

/// A server that has reported the facts, and waits.
pub struct Server<'a, 'b, 'c> {
    session: &'a mut Session<'b, 'c>,
    pub facts: Facts,
    /// Why there are not more facts.
    pub error: Option<anyhow::Error>,
}

impl Server<'_, '_, '_> {
    /// Removes what killed pulls left there; returns what was done.
    ///
    /// # Errors
    ///
    /// Some of it stays, or the connection was cut.
    pub fn remove_leftovers(&mut self) -> Result<String> {
        let dir = self.session.request.settings.data_dir.clone();
        let removed = self.session.remove_leftovers();
        removed.map_err(|error| self.session.explain(error, &dir))?;
        match parse(self.session)?.leftovers.len() {
            0 => Ok("removed what killed pulls left on the server".to_owned()),
            n => Err(Failure::new(format!("{n} directories of killed pulls stay on the server"))
                .hint("connect as their owner or as root")
                .into()),
        }
    }
}

/// Connects, and calls `then` with the facts. Connects again only if `fly` chose a machine that is
/// not the one with the databases.
///
/// # Errors
///
/// The server reported nothing.
pub fn visit<T>(
    cx: &Context,
    settings: &Settings,
    transport: &mut Transport<'_>,
    mut then: impl FnMut(Server<'_, '_, '_>) -> T,
) -> Result<T> {
    loop {
        let request = Request {
            nonce: request::nonce(),
            mode: Mode::Doctor,
            any_machine: transport.is_fly() && transport.target.is_open(),
            settings,
            directory: transport.target.directory.clone(),
            only: None,
            rules: EffectiveRules::new(&[], false),
            max_lock: None,
            bases: Vec::new(),
        };
        match attempt(cx, transport, &request, &mut then) {
            Err(error) => match error::reason(&error) {
                Reason::Elsewhere(machine) if transport.target.machine.is_none() => {
                    transport.target.pin(machine.clone());
                }
                _ => return Err(error),
            },
            done => return done,
        }
    }
}

fn attempt<T>(
    cx: &Context,
    transport: &mut Transport<'_>,
    request: &Request<'_>,
    then: &mut impl FnMut(Server<'_, '_, '_>) -> T,
) -> Result<T> {
    let mut session = Session::connect(&cx.ui, transport, request)?;
    let received = session.receive_facts();
    let dir = &request.settings.data_dir;
    let error = received.err().map(|error| session.explain(error, dir));
    session.status.spinner = None;
    let mut facts = parse(&session)?;
    if facts == Facts::default()
        && let Some(error) = error
    {
        return Err(error);
    }
    let status = &session.status;
    facts.machine = facts.machine.or_else(|| status.machine.clone());
    facts.region = facts.region.or_else(|| status.region.clone());
    let done = then(Server { session: &mut session, facts, error });
    session.release();
    Ok(done)
}

fn parse(session: &Session<'_, '_>) -> Result<Facts> {
    Facts::parse(session.status.facts.iter().map(String::as_str)).ok_or_else(|| {
        Failure::new("the server's report was refused: it has lines that our script does not write")
            .hint("run the same command again, with -v to see what the server says")
            .into()
    })
}
