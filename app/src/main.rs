//! A multi-tenant pull-request tracker: the service whose databases
//! `cargo xtask pull-db` brings to a laptop.

mod migrate;
mod prng;
mod seed;
mod serve;
mod setup;
mod store;
#[cfg(test)]
mod tests;
mod tracker;

use std::io::{Write as _, stderr, stdout};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Args, Parser};

use crate::migrate::{Kind, Versions};

/// A multi-tenant pull-request tracker on SQLite
#[derive(Parser)]
#[command(version)]
enum Command {
    /// Create, migrate and seed the databases of a data directory
    ///
    /// The directory gets data.db, tenant_iris.db and tenant_juno.db. What is
    /// there already is migrated and keeps its rows.
    Setup {
        #[command(flatten)]
        data: DataDir,
        /// Pull requests in each of the two tenants; each takes 705 bytes, so 150000 make 210 MB in total
        #[arg(long, default_value_t = 1000)]
        rows: u32,
    },
    /// Migrate one database file in place
    Migrate {
        file: PathBuf,
        /// The schema of the file [default: by its name, else by its tables]
        #[arg(long, value_enum)]
        kind: Option<Kind>,
    },
    /// Serve the HTTP API until SIGINT or SIGTERM
    Serve {
        #[command(flatten)]
        data: DataDir,
        /// Port 0 takes a free one
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: SocketAddr,
    },
}

#[derive(Args)]
struct DataDir {
    /// The directory of the databases [default: $DATA_DIR, else data]
    #[arg(long)]
    data_dir: Option<PathBuf>,
}

impl DataDir {
    fn resolve(self) -> PathBuf {
        let from_environment =
            || std::env::var_os("DATA_DIR").filter(|dir| !dir.is_empty()).map(PathBuf::from);
        self.data_dir.or_else(from_environment).unwrap_or_else(|| "data".into())
    }
}

fn main() -> ExitCode {
    let Err(error) = run(Command::parse()) else { return ExitCode::SUCCESS };
    let mut message = format!("error: {error}\n");
    // SQLite's error code says again what the message above it says.
    for cause in error.chain().skip(1).filter(|cause| !cause.is::<rusqlite::ffi::Error>()) {
        message += &format!("  caused by: {cause}\n");
    }
    // Where stderr is closed, the exit code still tells.
    let _ = stderr().write_all(message.as_bytes());
    ExitCode::FAILURE
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Setup { data, rows } => setup::run(&data.resolve(), rows, &mut stdout().lock()),
        Command::Migrate { file, kind } => {
            let versions = migrate_file(&file, kind)
                .with_context(|| format!("cannot migrate {}", file.display()))?;
            let Versions { from, to } = versions;
            writeln!(stdout(), "{}: version {from} to {to}", file.display())?;
            Ok(())
        }
        Command::Serve { data, listen } => serve::run(&data.resolve(), listen),
    }
}

/// Keeps the journal mode of the file as it is, which is part of its bytes.
fn migrate_file(file: &Path, kind: Option<Kind>) -> Result<Versions> {
    let mut conn = store::connect(file)?;
    let kind = kind.map_or_else(|| Kind::of(file, &conn), Ok)?;
    migrate::migrate(&mut conn, kind.migrations())
}
