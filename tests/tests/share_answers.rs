//! What answers in the place of a store.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};

use tests::env::TestEnv;
use tests::output::Output;
use tests::process::Running;
use tests::sets::developer;
use tests::share::SharedStore;

const PULL: [&str; 3] = ["pull-db", "--via", "share"];

/// Answers all requests alike; returns its URL.
fn always(status: &'static str, body: &'static str) -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
    let address = listener.local_addr().expect("it is bound");
    std::thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            std::thread::spawn(move || answer(&connection, status, body));
        }
    });
    format!("http://{address}")
}

fn answer(mut connection: &TcpStream, status: &str, body: &str) -> std::io::Result<()> {
    let mut reader = BufReader::new(connection.try_clone()?);
    let (mut line, mut length) = (String::new(), 0);
    while reader.read_line(&mut line)? > 2 {
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().expect("a length");
        }
        line.clear();
    }
    reader.take(length).read_to_end(&mut Vec::new())?;
    write!(
        connection,
        "HTTP/1.1 {status}\r\nContent-Type: text/html\r\nETag: \"x\"\r\n\
         Last-Modified: Wed, 21 Oct 2015 07:28:00 GMT\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn xtask(env: &TestEnv, endpoint: &str, args: &[&str]) -> Output {
    let store = SharedStore::directory();
    let mut command = store.command(env, args);
    command.env("AWS_ENDPOINT_URL", endpoint);
    command.env("AWS_ACCESS_KEY_ID", "key").env("AWS_SECRET_ACCESS_KEY", "secret");
    Running::start(&mut command).wait()
}

#[test]
fn a_page_to_sign_in_is_no_store() {
    let endpoint = always("200 OK", "<html><body><h1>Sign in</h1></body></html>");
    let env = developer();
    env.db_toml("[share]\nurl = 's3://team/db'\n");
    for args in [&["snapshots", "publish"][..], &["snapshots", "list", "--share"], &PULL] {
        let refused = xtask(&env, &endpoint, args).fails(1);
        refused.stderr_has("does not keep what is written there").stderr_lacks("Stored");
    }
    let record = env.data().join(".xtask/share.json");
    assert!(!record.exists(), "an index was seen");
}

#[test]
fn an_error_is_told_once() {
    let endpoint = always("404 Not Found", "nothing to see");
    let env = developer();
    env.db_toml("[share]\nurl = 's3://team/db'\n");
    let refused = xtask(&env, &endpoint, &PULL).fails(1);
    assert_eq!(refused.to_string().matches("nothing to see").count(), 1, "{refused}");
}

#[test]
fn a_url_with_credentials_is_refused_without_showing_them() {
    let env = developer();
    env.db_toml("[share]\nurl = 's3://key:hunter2@team/db'\n");
    let refused = xtask(&env, "http://127.0.0.1:1", &PULL).fails(2);
    refused.stderr_has("hint: it is s3://BUCKET/PREFIX").stderr_lacks("hunter2");
}
