//! A bucket behind a shaped link, for benchmarks: a real server of S3, and a relay. It ends when its
//! standard input closes.
//!
//! It first prints how to connect, with the keys of a member. Then it reads the lines of
//! `shaped_server`.

#![expect(clippy::print_stdout, reason = "it is asked and answers")]

use std::io::stdin;

use age::secrecy::ExposeSecret as _;
use anyhow::{Context as _, Result};
use serde_json::json;
use tests::link::{Link, Shape};
use tests::share::{BUCKET, SharedStore};

fn main() -> Result<()> {
    let store = SharedStore::bucket();
    let link = Link::start(store.port().context("a server")?, Shape::FAST)?;
    let identity = age::x25519::Identity::generate();
    let way = json!({
        "port": link.port(),
        "bucket": BUCKET,
        "identity": identity.to_string().expose_secret(),
        "recipient": identity.to_public().to_string(),
    });
    println!("{way}");
    for line in stdin().lines() {
        println!("{}", link.answer(&line?)?);
    }
    Ok(())
}
