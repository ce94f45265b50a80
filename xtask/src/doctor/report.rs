//! Prints the checks, and fixes what can be fixed.

use anyhow::Result;
use serde::Serialize;

use super::there::Server;
use super::{Check, Fix, Place, State};
use crate::config::Settings;
use crate::context::Context;
use crate::error::Failure;
use crate::ui::{Mark, Ui, count};

pub struct Report<'a> {
    pub cx: &'a Context,
    pub settings: &'a Settings,
    /// Whether to fix what can be fixed.
    pub fix: bool,
}

impl Report<'_> {
    /// Prints all checks, and what is fixed then. `server` waits, if it was reached.
    ///
    /// # Errors
    ///
    /// A check failed, or the user declined.
    pub fn finish(
        &self,
        mut checks: Vec<Check>,
        mut server: Option<Server<'_, '_, '_>>,
    ) -> Result<()> {
        let ui = &self.cx.ui;
        let fixable = checks.iter().filter(|check| check.can_fix.is_some()).count();
        if !self.fix || fixable == 0 {
            return finish(ui, &checks);
        }
        if !ui.json {
            checks.iter().try_for_each(|check| line(ui, check))?;
        }
        ui.confirm(&format!("Fix {fixable} of these?"))?;
        for check in &mut checks {
            let Some(fix) = check.can_fix.take() else { continue };
            let fixed = match self.apply(&fix, server.as_mut()) {
                Ok(done) => Check::ok(check.check, done),
                Err(error) => Check::failed(check.check, &error),
            };
            let fixed = if check.r#where == Place::Server { fixed.on_server() } else { fixed };
            *check = fixed;
            if !ui.json {
                line(ui, check)?;
            }
        }
        if ui.json { finish(ui, &checks) } else { outcome(&checks) }
    }

    /// Returns what was done.
    fn apply(&self, fix: &Fix, server: Option<&mut Server<'_, '_, '_>>) -> Result<String> {
        match (fix, server) {
            (Fix::There, Some(server)) => server.remove_leftovers(),
            _ => fix.apply(self.cx, self.settings),
        }
    }
}

/// Printed with `--json`.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "doctor"))]
pub struct Checks<'a> {
    checks: &'a [Check],
}

/// Prints the checks.
///
/// # Errors
///
/// A check failed.
pub fn finish(ui: &Ui, checks: &[Check]) -> Result<()> {
    if ui.json {
        ui.json(&Checks { checks })?;
    } else {
        checks.iter().try_for_each(|check| line(ui, check))?;
    }
    outcome(checks)
}

fn outcome(checks: &[Check]) -> Result<()> {
    match checks.iter().filter(|check| check.is_error()).count() {
        0 => Ok(()),
        n => Err(Failure::new(format!("{} failed", count(n, "check"))).into()),
    }
}

fn line(ui: &Ui, check: &Check) -> Result<()> {
    let mark = match check.state {
        State::Ok => Mark::Good,
        State::Warning => Mark::Warning,
        State::Error => Mark::Bad,
        State::Skipped => Mark::None,
    };
    ui.check(mark, &check.message, check.fix.as_deref())
}
