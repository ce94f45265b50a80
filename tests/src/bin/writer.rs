//! An app that writes steadily into a database, for benchmarks: a commit at
//! each tick that it does not miss. It ends with its standard input.
//!
//! The answer to each line of input covers the time since the last one: the number of commits, the
//! seconds, and the duration of the longest commit in seconds.

#![expect(clippy::print_stdout, reason = "it is asked and answers")]

use std::io::stdin;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Parser;
use rusqlite::Connection;

#[derive(Parser)]
struct Args {
    database: PathBuf,
    /// How it commits
    #[arg(long, value_name = "MODE", default_value = "WAL", value_parser = ["WAL", "DELETE"])]
    journal_mode: String,
    /// Milliseconds from one commit to the next
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    every: u64,
}

#[derive(Clone, Copy, Default)]
struct Tally {
    commits: u64,
    longest: Duration,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let db = open(&args.database, &args.journal_mode)
        .with_context(|| format!("cannot write to {}", args.database.display()))?;
    let tally = Arc::new(Mutex::new(Tally::default()));
    let writer = {
        let tally = Arc::clone(&tally);
        thread::spawn(move || write(&db, Duration::from_millis(args.every), &tally))
    };
    let mut since = Instant::now();
    for line in stdin().lines() {
        line?;
        if writer.is_finished() {
            break;
        }
        let Tally { commits, longest } = std::mem::take(&mut *tally.lock().expect("no panic"));
        let seconds = std::mem::replace(&mut since, Instant::now()).elapsed().as_secs_f64();
        println!("{commits} {seconds} {}", longest.as_secs_f64());
    }
    if writer.is_finished() {
        return writer.join().expect("no panic");
    }
    Ok(())
}

fn open(path: &Path, journal_mode: &str) -> rusqlite::Result<Connection> {
    let db = Connection::open(path)?;
    db.busy_timeout(Duration::from_secs(10))?;
    db.pragma_update(None, "journal_mode", journal_mode)?;
    db.execute_batch(
        "PRAGMA synchronous = NORMAL;
         CREATE TABLE IF NOT EXISTS written (id INTEGER PRIMARY KEY, at TEXT NOT NULL, body TEXT)",
    )?;
    Ok(db)
}

fn write(db: &Connection, every: Duration, tally: &Mutex<Tally>) -> Result<()> {
    let sql = "INSERT INTO written (at, body) VALUES (datetime(), hex(randomblob(100)))";
    let mut insert = db.prepare(sql)?;
    let mut tick = Instant::now();
    loop {
        let begun = Instant::now();
        insert.execute([])?;
        let took = begun.elapsed();
        {
            let mut tally = tally.lock().expect("no panic");
            tally.commits += 1;
            tally.longest = tally.longest.max(took);
        }
        // Missed ticks are skipped.
        while tick <= Instant::now() {
            tick += every;
        }
        thread::sleep(tick.saturating_duration_since(Instant::now()));
    }
}
