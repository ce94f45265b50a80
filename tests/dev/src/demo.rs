use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result};
use xshell::{Shell, cmd};
use xtask_db::internals::interrupt;

use crate::Context;
use crate::install::{self, SQLITE3};

/// Show a pull, an accident and a restore, on temporary databases
///
/// Start this repository's app on a temporary directory, pull from it while it
/// runs, damage the local data, and restore it. Leave no file behind.
#[derive(clap::Args)]
pub struct Args {
    /// Give each of the two tenants this many pull requests
    #[arg(long, default_value_t = 20_000)]
    rows: u32,
}

impl Args {
    pub fn run(self, cx: &Context) -> Result<()> {
        self.show(cx).map_err(interrupt::prefer_interrupt)
    }

    fn show(self, cx: &Context) -> Result<()> {
        let sh = &cx.sh;
        install::ensure(&cx.ui, sh, &[SQLITE3])?;

        let scratch = tempfile::tempdir()?;
        let (production, data) = (scratch.path().join("production"), scratch.path().join("data"));
        let xtask = cx.build("xtask-db", "xtask")?;
        let demo = Demo { cx, xtask: &xtask, data: &data };
        let rows = self.rows.to_string();

        demo.say("A production: the app of this repository, with three databases, serving.");
        let app = cx.build("app", "app")?;
        cmd!(sh, "{app} setup --data-dir {production} --rows {rows}").quiet().read()?;
        let server = Server::start(sh, &app, &production)?;
        demo.shell(cmd!(sh, "ls -l {production}"))?;

        demo.say(
            "Pull them. From Fly.io it is `cargo xtask pull-db`; here the server is a directory.",
        );
        let via = format!("local:{}", production.display());
        demo.xtask(&["pull-db", "--via", &via])?;
        demo.say("Secrets were masked on the server:");
        let shared = data.join("data.db");
        demo.shell(cmd!(sh, "sqlite3 {shared} {SECRETS}"))?;

        demo.say("An accident: one database is overwritten, one is deleted.");
        let (iris, juno) = (data.join("tenant_iris.db"), data.join("tenant_juno.db"));
        std::fs::write(&iris, "no database any more")?;
        std::fs::remove_file(&juno)?;
        demo.shell(cmd!(sh, "sqlite3 {iris} {COUNT}").ignore_status())?;

        demo.say("Restore both:");
        demo.xtask(&["restore-db", "--latest", "--yes"])?;
        demo.shell(cmd!(sh, "sqlite3 {iris} {COUNT}"))?;
        demo.shell(cmd!(sh, "sqlite3 {juno} {COUNT}"))?;

        demo.say("The app may run here as well. Someone deletes rows that it serves:");
        let here = Server::start(sh, &app, &data)?;
        demo.shell(cmd!(sh, "sqlite3 {shared} {DELETE}"))?;
        demo.say("It keeps running, and sees the restored data at its next query:");
        demo.xtask(&["restore-db", "--latest", "--yes"])?;
        demo.shell(cmd!(sh, "sqlite3 {shared} {SECRETS}"))?;
        drop(here);

        demo.say("The snapshots that were saved meanwhile; without a flag, `restore-db` lets you pick one:");
        demo.xtask(&["restore-db", "--list"])?;
        drop(server);
        demo.say(
            "That was all. Every temporary file is removed; README.md says how to use it for your app.",
        );
        Ok(())
    }
}

const SECRETS: &str =
    "SELECT organization_id, length(sheet_id), length(private_key) FROM export_settings";
const DELETE: &str = "DELETE FROM export_settings";
const COUNT: &str = "SELECT count(*) FROM pull_requests";

/// Prints each step as a user would type it.
struct Demo<'a> {
    cx: &'a Context,
    xtask: &'a Path,
    data: &'a Path,
}

impl Demo<'_> {
    fn say(&self, text: &str) {
        self.cx.ui.status("", "");
        self.cx.ui.status("Demo", text);
    }

    fn shell(&self, command: xshell::Cmd<'_>) -> Result<()> {
        interrupt::check()?;
        self.cx.ui.status("$", &command);
        Ok(command.quiet().run()?)
    }

    fn xtask(&self, args: &[&str]) -> Result<()> {
        self.cx.ui.status("$", format!("cargo xtask {}", args.join(" ")));
        let (sh, xtask, data) = (&self.cx.sh, self.xtask, self.data);
        let config = self.cx.root.join("xtask/db.toml");
        // As if Cargo ran it by its alias.
        cmd!(sh, "{xtask} {args...} --config {config} --local-dir {data}")
            .env("CARGO_MANIFEST_DIR", self.cx.root.join("xtask"))
            .env("CARGO_PKG_NAME", "xtask-db")
            .quiet()
            .run()?;
        Ok(())
    }
}

/// The app, serving; killed when dropped.
struct Server(Child);

impl Server {
    fn start(sh: &Shell, app: &Path, dir: &Path) -> Result<Self> {
        let mut command: Command =
            cmd!(sh, "{app} serve --data-dir {dir} --listen 127.0.0.1:0").into();
        let mut server = Self(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?);
        let stdout = server.0.stdout.take().context("the app has an output")?;
        BufReader::new(stdout).read_line(&mut String::new())?;
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
