//! When a pull is left out: an earlier one is young enough, or there is no
//! network.

use std::str::FromStr;

use anyhow::Result;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::wanted::Wanted;
use crate::settings::duration;
use crate::snapshots::{Snapshot, Store};
use crate::ui::{Ui, age, escape};

/// How old a pull may be to stand for a new one.
#[derive(Clone, Debug)]
pub struct MaxAge {
    /// As it was given.
    text: String,
    limit: SignedDuration,
}

impl MaxAge {
    pub fn limit(&self) -> SignedDuration {
        self.limit
    }
}

impl FromStr for MaxAge {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        duration(text)
            .map(|limit| Self { text: text.to_owned(), limit })
            .ok_or_else(|| "a duration such as 24h, 90m, 7d or 1h30m is expected".to_owned())
    }
}

/// What `--json` prints instead of the report of a pull.
#[derive(Serialize)]
struct Skipped<'a> {
    skipped: bool,
    reason: &'a str,
    /// The newest pull.
    snapshot: Option<&'a str>,
}

/// Says that `young` stands for a new pull.
///
/// # Errors
///
/// It cannot be printed.
pub fn report_young(ui: &Ui, wanted: &Wanted<'_>, young: &Snapshot) -> Result<()> {
    let limit = wanted.if_older.map_or("", |limit| &limit.text);
    let when = format!("pulled {}, --if-older {limit}", ago(young));
    ui.status("Skipped", format!("the pull: {} is young enough ({when})", young.name));
    print(ui, "young", Some(young))
}

/// Says that there is no network, and what there is to work with.
///
/// # Errors
///
/// The snapshots cannot be read.
pub fn report_offline(
    ui: &Ui,
    error: &anyhow::Error,
    wanted: &Wanted<'_>,
    store: &Store,
) -> Result<()> {
    let newest = wanted.newest(store)?;
    let stays = match &newest {
        Some(newest) => format!("the newest pull is {}, {}", newest.name, ago(newest)),
        None => "there is no earlier pull of it".to_owned(),
    };
    ui.warn(format!("{}\n  nothing was changed; {stays}", escape(&format!("{error:#}"))));
    print(ui, "offline", newest.as_ref())
}

fn ago(snapshot: &Snapshot) -> String {
    age(Timestamp::now().duration_since(snapshot.time).as_secs())
}

fn print(ui: &Ui, reason: &str, snapshot: Option<&Snapshot>) -> Result<()> {
    if !ui.json {
        return Ok(());
    }
    let snapshot = snapshot.map(|snapshot| snapshot.name.as_str());
    ui.json(&Skipped { skipped: true, reason, snapshot })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_what_people_write() {
        for (text, hours) in [
            ("24h", 24.0),
            ("90m", 1.5),
            ("7d", 168.0),
            ("1 day", 24.0),
            ("1h30m", 1.5),
            ("2 weeks", 336.0),
            ("36s", 0.01),
        ] {
            let age: MaxAge = text.parse().unwrap();
            assert_eq!(age.limit, SignedDuration::from_secs_f64(hours * 3600.0), "{text}");
        }
        for text in ["", "0h", "-1h", "24h ago", "1 month", "1y", "24", "soon", "999999999999d"] {
            let why = text.parse::<MaxAge>().unwrap_err();
            assert!(why.contains("such as 24h"), "{text}: {why}");
        }
    }
}
