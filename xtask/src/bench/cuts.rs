//! Runs `refresh-fixtures` as a user does, and measures it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use xshell::{Shell, cmd};

use super::{Times, source};
use crate::interrupt;
use crate::spent::Spent;
use crate::sqlite;

/// A fixture to be cut.
pub struct Cut {
    pub name: &'static str,
    settings: &'static str,
}

/// The organization that [`CUTS`] and the naive way keep.
pub const ORGANIZATION: u32 = 3;

/// The first takes one organization, that is [`source::ROWS_OF_ONE`] rows, down all
/// references. The second goes up all of them. The third has to look at each row of the
/// largest table before it knows the first.
pub const CUTS: [Cut; 3] = [
    Cut { name: "children", settings: "rows = { organizations = \"id = 3\" }\nchildren = true\n" },
    Cut { name: "parents", settings: "rows = { comments = \"ORDER BY id DESC LIMIT 60\" }\n" },
    Cut {
        name: "sorted",
        settings: "rows = { comments = \"ORDER BY body, created_at DESC LIMIT 60\" }\n",
    },
];

/// How one of them went.
#[derive(Debug, Serialize)]
pub struct Measured {
    pub name: &'static str,
    /// Of the fixture.
    pub rows: u64,
    pub bytes: u64,
    pub tables: BTreeMap<String, u64>,
    pub seconds: Times,
    /// The most memory that a run had, in bytes; none where the system does not tell.
    pub memory: Option<u64>,
}

/// A repository with the settings of each cut.
pub struct Bench<'a> {
    sh: &'a Shell,
    root: PathBuf,
    data: &'a Path,
}

/// What `refresh-fixtures --json` says of a fixture.
#[derive(Deserialize)]
struct Said {
    bytes: u64,
    rows: BTreeMap<String, u64>,
}

struct Run {
    time: Duration,
    memory: Option<u64>,
    said: Said,
    content: Vec<u8>,
}

impl<'a> Bench<'a> {
    /// Makes the repository `root` anew; its data directory is `data`.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub fn new(sh: &'a Shell, root: PathBuf, data: &'a Path) -> Result<Self> {
        if root.exists() {
            std::fs::remove_dir_all(&root)?;
        }
        std::fs::create_dir_all(root.join("xtask"))?;
        cmd!(sh, "git -c init.defaultBranch=main init --quiet {root}").quiet().run()?;
        let from = source::NAME;
        for Cut { name, settings } in &CUTS {
            let fixture = fixture(name);
            std::fs::write(
                root.join(config(name)),
                format!("[[fixture]]\npath = \"{fixture}\"\nfrom = \"{from}\"\n{settings}"),
            )?;
        }
        Ok(Self { sh, root, data })
    }

    /// # Errors
    ///
    /// A run fails, or does not give what the others gave.
    pub fn measure(&self, cut: &Cut, runs: u32) -> Result<Measured> {
        // What the disk has to do the first time is not this tool's.
        let first = self.run(cut.name)?;
        let mut times = Vec::new();
        let mut memory = None;
        for _ in 0..runs {
            interrupt::check()?;
            let run = self.run(cut.name)?;
            if run.content != first.content {
                bail!("two runs made different fixtures");
            }
            times.push(run.time);
            memory = memory.max(run.memory);
        }
        self.check(cut.name)?;
        Ok(Measured {
            name: cut.name,
            rows: first.said.rows.values().sum(),
            bytes: first.said.bytes,
            tables: first.said.rows,
            seconds: Times::of(times),
            memory,
        })
    }

    /// Each time the fixture is new, so that it is also written.
    fn run(&self, name: &str) -> Result<Run> {
        let (sh, data, config) = (self.sh, self.data, self.root.join(config(name)));
        let fixture = self.root.join(fixture(name));
        if let Some(dir) = fixture.parent().filter(|dir| dir.exists()) {
            std::fs::remove_dir_all(dir)?;
        }
        let xtask = std::env::current_exe()?;
        let command = cmd!(
            sh,
            "{xtask} refresh-fixtures --verbose --json --config {config} --local-dir {data}"
        );
        let started = Instant::now();
        let output = command.quiet().ignore_status().output()?;
        let time = started.elapsed();
        let said = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            bail!("{}", said.trim());
        }
        let mut reports: Vec<Said> = serde_json::from_slice(&output.stdout)?;
        Ok(Run {
            time,
            memory: said.lines().find_map(|line| line.parse::<Spent>().ok()?.memory),
            said: reports.pop().context("it made no fixture")?,
            content: std::fs::read(fixture)?,
        })
    }

    /// A quick way to a wrong result would be worth nothing.
    fn check(&self, name: &str) -> Result<()> {
        let path = self.root.join(fixture(name));
        sqlite::check(&path)?;
        let db = sqlite::open_closed(&path)?;
        let sql = "SELECT count(*) FROM pragma_foreign_key_check";
        match db.query_row(sql, [], |row| row.get::<_, i64>(0))? {
            0 => Ok(()),
            n => bail!("{n} rows of the fixture refer to what is not in it"),
        }
    }
}

/// By its name, from the root of the repository. It has a directory, and so
/// `fixtures.lock`, of its own.
fn fixture(name: &str) -> String {
    format!("{name}/fixture.db")
}

fn config(name: &str) -> String {
    format!("xtask/{name}.toml")
}
