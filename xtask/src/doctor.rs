//! Checks of what a pull needs, on this machine and on the server. Each is a line with the command
//! or the change that fixes it.

pub mod data;
mod facts;
pub mod fix;
pub mod here;
pub mod report;
pub mod server;
pub mod there;

use serde::Serialize;

use self::fix::Fix;
use crate::{error, ui};

/// Where what is checked is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum Place {
    Here,
    Server,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum State {
    Ok,
    /// A pull works, but for something.
    Warning,
    /// A pull fails, or brings what it should not.
    Error,
    /// Not checked, because of something else.
    Skipped,
}

/// The result of one check.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Check {
    /// Names what is checked, for programs.
    pub check: &'static str,
    pub r#where: Place,
    pub state: State,
    pub message: String,
    /// The command to type, or the change to make.
    pub fix: Option<String>,
    /// How `--fix` does that.
    #[serde(skip)]
    pub can_fix: Option<Fix>,
}

impl Check {
    fn new(check: &'static str, state: State, message: impl Into<String>) -> Self {
        let (message, fix, can_fix) = (message.into(), None, None);
        Self { check, r#where: Place::Here, state, message, fix, can_fix }
    }

    pub fn ok(check: &'static str, message: impl Into<String>) -> Self {
        Self::new(check, State::Ok, message)
    }

    pub fn warning(check: &'static str, message: impl Into<String>) -> Self {
        Self::new(check, State::Warning, message)
    }

    pub fn error(check: &'static str, message: impl Into<String>) -> Self {
        Self::new(check, State::Error, message)
    }

    pub fn skipped(check: &'static str, message: impl Into<String>) -> Self {
        Self::new(check, State::Skipped, message)
    }

    /// The check that failed with this error.
    pub fn failed(check: &'static str, error: &anyhow::Error) -> Self {
        let failed = Self::error(check, error::chain(error).join(": "));
        match &error::hints(error)[..] {
            [] => failed,
            hints => failed.fix(hints.join("; ")),
        }
    }

    #[must_use]
    pub fn fix(self, fix: impl Into<String>) -> Self {
        Self { fix: Some(fix.into()), ..self }
    }

    /// Adds what `--fix` does.
    #[must_use]
    pub fn can_fix(self, fix: Fix) -> Self {
        Self { can_fix: Some(fix), ..self }
    }

    pub fn is_error(&self) -> bool {
        self.state == State::Error
    }

    #[must_use]
    pub fn on_server(self) -> Self {
        Self { r#where: Place::Server, ..self }
    }
}

/// The first of the names, and the number of the others.
fn several(names: &[String]) -> String {
    ui::several(names, 3)
}
