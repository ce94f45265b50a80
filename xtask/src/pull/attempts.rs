//! Tries a pull again after a question, or on another machine.

use anyhow::Result;

use crate::config::Settings;
use crate::error::{self, Choice, Reason};
use crate::interrupt;
use crate::server::request::Request;
use crate::server::transport::Transport;
use crate::ui::Ui;

/// Runs `work` until it succeeds, or fails for a reason that nobody can answer. A machine that was
/// started is stopped in any case.
pub struct Attempts<'a> {
    pub ui: &'a Ui,
    /// Where the choice of a machine can be written; `None` if the caller does that.
    pub settings: Option<&'a Settings>,
    /// The machine that the user has chosen of several.
    pub chosen: Option<String>,
    /// Whether to start a machine if none is started.
    pub start: bool,
}

impl Attempts<'_> {
    /// # Errors
    ///
    /// The last attempt failed.
    pub fn run<'t, T>(
        &mut self,
        transport: &mut Transport<'t>,
        request: &mut Request<'_>,
        work: impl Fn(&mut Transport<'t>, &Request<'_>) -> Result<T>,
    ) -> Result<T> {
        let done = loop {
            let started = if self.start { transport.start_machine(self.ui) } else { Ok(()) };
            let done = started.and_then(|()| work(transport, request));
            let Err(error) = done else { break done };
            match self.answer(transport, request, &error) {
                Ok(true) => {}
                Ok(false) => break Err(error),
                Err(declined) => break Err(declined),
            }
        };
        transport.stop_machine(self.ui);
        done.map_err(interrupt::prefer_interrupt)
    }

    /// Changes what made the attempt fail; returns whether another makes sense. Each change is made
    /// once.
    fn answer(
        &mut self,
        transport: &mut Transport<'_>,
        request: &mut Request<'_>,
        error: &anyhow::Error,
    ) -> Result<bool> {
        let target = &mut transport.target;
        match error::reason(error) {
            Reason::Elsewhere(machine) if target.machine.is_none() => {
                self.ui.status("Choosing", format!("machine {machine}, which has the databases"));
                target.pin(machine.clone());
            }
            Reason::Unconfirmed if self.ui.interactive() && request.max_lock.is_some() => {
                self.ui.confirm(&format!("{error}. Pull it nevertheless?"))?;
                request.max_lock = None;
            }
            Reason::Stopped(machine) if self.ui.interactive() && !self.start => {
                let which =
                    machine.as_ref().map_or("a machine".to_owned(), |id| format!("machine {id}"));
                let app = &target.app;
                self.ui.confirm(&format!(
                    "No machine of {app} is started. Start {which} for this pull, and stop it afterwards?"
                ))?;
                if let Some(machine) = machine {
                    target.pin(machine.clone());
                }
                self.start = true;
            }
            Reason::Ambiguous(choices) if self.ui.interactive() && target.machine.is_none() => {
                let machine = self.choose(&target.app, choices)?;
                self.chosen = Some(machine.clone());
                target.pin(machine);
            }
            _ => return Ok(false),
        }
        request.any_machine = target.machine.is_none() && request.any_machine;
        Ok(true)
    }

    /// Lets the user choose a machine, and writes it into the settings if asked to.
    fn choose(&self, app: &str, choices: &[Choice]) -> Result<String> {
        let lines = choices.iter().map(|choice| choice.line.clone()).collect();
        let chosen = self.ui.select(&format!("Pull from which machine of {app}?"), lines)?;
        let id = choices[chosen].id.clone();
        let Some(settings) = self.settings else { return Ok(id) };
        let file = settings.file.display();
        // Who answers yes to everything has not been asked.
        if !self.ui.yes
            && self.ui.offer(&format!("Write machine = {id:?} into {file}, for the next pulls?"))?
        {
            // The pull does not depend on it.
            if let Err(error) = settings.write_machine(&id) {
                self.ui.warn(format!("{error:#}"));
                error::hints(&error).into_iter().for_each(|hint| self.ui.hint(hint));
            }
        }
        Ok(id)
    }
}
