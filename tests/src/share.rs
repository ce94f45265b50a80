//! A team that shares snapshots, in a directory or in a bucket of a real server.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use age::secrecy::ExposeSecret as _;
use tempfile::TempDir;

use crate::env::TestEnv;
use crate::output::Output;
use crate::process::Running;
use crate::{binaries, python};

const VERSIONS: &str = include_str!("../s3/requirements.txt");

/// A store: a directory, or a bucket of a server that runs until this is dropped.
pub struct SharedStore {
    root: TempDir,
    server: Option<(Running, String)>,
}

impl SharedStore {
    pub fn directory() -> SharedStore {
        let root = tempfile::Builder::new().prefix("xtask-store-").tempdir().expect("a temp dir");
        SharedStore { root, server: None }
    }

    pub fn bucket() -> SharedStore {
        let store = SharedStore::directory();
        let mut command =
            crate::process::command(python::programs("s3", VERSIONS).join("moto_server"));
        let mut running = Running::start(command.args(["-H", "127.0.0.1", "-p", "0"]));
        running.wait_for_stderr("Press CTRL+C");
        let said = running.stderr_so_far();
        let (_, address) = said.split_once("http://").expect("it says where it listens");
        let address = address.split_whitespace().next().expect("an address").to_owned();
        let mut stream = TcpStream::connect(&address).expect("it listens");
        let auth = "AWS4-HMAC-SHA256 Credential=k/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0";
        write!(stream, "PUT /team HTTP/1.1\r\nHost: {address}\r\nAuthorization: {auth}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            .expect("send");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        SharedStore { server: Some((running, address)), ..store }
    }

    pub fn url(&self) -> String {
        match &self.server {
            Some(_) => "s3://team/db/upflow".to_owned(),
            None => format!("file://{}", self.path().display()),
        }
    }

    /// The directory of the store.
    pub fn path(&self) -> PathBuf {
        self.root.path().join("store")
    }

    /// All files of the directory, each with its content.
    pub fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut files = Vec::new();
        for below in ["", "index", "objects"] {
            for entry in fs::read_dir(self.path().join(below)).into_iter().flatten().flatten() {
                if entry.path().is_file() {
                    files.push((entry.path(), fs::read(entry.path()).expect("read an object")));
                }
            }
        }
        files.sort();
        files
    }

    /// The names of the objects.
    pub fn objects(&self) -> Vec<PathBuf> {
        let files = self.files().into_iter().map(|(path, _)| path);
        files.filter(|path| path.parent().is_some_and(|dir| dir.ends_with("objects"))).collect()
    }

    /// The settings of a member of the team.
    pub fn settings(&self, env: &TestEnv, more: &str) {
        env.db_toml(&format!("{more}\n[share]\nurl = {:?}\n", self.url()));
    }

    /// A new member who has no access to production.
    pub fn member(&self) -> TestEnv {
        let env = TestEnv::new();
        self.settings(&env, "");
        env
    }

    pub fn command(&self, env: &TestEnv, args: &[&str]) -> Command {
        let mut command = env.command(binaries::xtask_share());
        command.args(args).env("CARGO_MANIFEST_DIR", env.path("repo/xtask"));
        if let Some((_, address)) = &self.server {
            command
                .env("AWS_ENDPOINT_URL", format!("http://{address}"))
                .env("AWS_ACCESS_KEY_ID", "key")
                .env("AWS_SECRET_ACCESS_KEY", "secret");
        }
        command
    }

    #[track_caller]
    pub fn xtask(&self, env: &TestEnv, args: &[&str]) -> Output {
        Running::start(&mut self.command(env, args)).wait()
    }

    /// Publishes the newest pull; returns how many bytes that took.
    #[track_caller]
    pub fn publish(&self, env: &TestEnv) -> u64 {
        let report = self.xtask(env, &["snapshots", "publish", "--json"]).ok().json();
        report["wire_bytes"].as_u64().expect("a number")
    }

    /// Pulls what was published; returns how many bytes that took.
    #[track_caller]
    pub fn pull(&self, env: &TestEnv) -> u64 {
        let report = self.xtask(env, &["pull-db", "--via", "share", "--json"]).ok().json();
        report["wire_bytes"].as_u64().expect("a number")
    }
}

/// Gives a developer a private key; returns the public one.
pub fn add_identity(env: &TestEnv) -> String {
    let identity = age::x25519::Identity::generate();
    env.write("home/.config/age/keys.txt", identity.to_string().expose_secret());
    identity.to_public().to_string()
}

/// Commits these public keys.
pub fn recipients(env: &TestEnv, keys: &[&str]) {
    env.write("repo/xtask/recipients.txt", &keys.join("\n"));
}

/// Changes a bit in the middle of a file.
pub fn flip(path: &Path) {
    let mut content = fs::read(path).expect("read an object");
    let middle = content.len() / 2;
    content[middle] ^= 4;
    fs::write(path, content).expect("write an object");
}
