//! A production machine behind a shaped link, for benchmarks: a real sshd, and a relay. It ends
//! when its standard input closes.
//!
//! It first prints how to connect. Then it reads lines: `shape MS MBIT` sets the round trip and the
//! rate of new connections and resets the counts, `passed` does nothing. The answer to each is the
//! number of bytes up and down.

#![expect(clippy::print_stdout, reason = "it is asked and answers")]

use std::io::stdin;
use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;
use serde_json::json;
use tests::link::{Link, Shape};
use tests::server::{Environment, Sshd, login_user};
use tests::shells;

#[derive(Parser)]
struct Args {
    /// Where its sessions make temporary files
    #[arg(long)]
    tmp: PathBuf,
    /// A program that it does not have; its others are linked below DIR
    #[arg(long, num_args = 2, value_names = ["PROGRAM", "DIR"])]
    without: Option<Vec<String>>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let mut environment = Environment::default().set("TMPDIR", &args.tmp);
    if let Some([program, directory]) = args.without.as_deref() {
        let bin = shells::debian(directory.as_ref(), &[program.as_str()]);
        environment = environment.set("PATH", bin);
    }
    let sshd = Sshd::start(&environment);
    let link = Link::start(sshd.port(), Shape::FAST)?;
    let (user, config) = (login_user(), sshd.ssh_config());
    let way = json!({ "port": link.port(), "sshd": sshd.id(), "user": user, "ssh_config": config });
    println!("{way}");
    for line in stdin().lines() {
        println!("{}", link.answer(&line?)?);
    }
    Ok(())
}
