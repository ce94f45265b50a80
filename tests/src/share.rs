//! A team that shares snapshots, in a directory or in a bucket of a real server.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use age::secrecy::ExposeSecret as _;
use tempfile::TempDir;

use crate::binaries;
use crate::env::TestEnv;
use crate::output::Output;
use crate::process::Running;
use crate::s3::Bucket;
use crate::server::{Environment, Sshd, login_user};
use crate::shells;

/// The bucket of the server.
pub const BUCKET: &str = "team";

/// A store: a directory, here or behind a server that runs until this is dropped, or a bucket.
pub struct SharedStore {
    root: TempDir,
    server: Option<Bucket>,
    sshd: Option<Sshd>,
}

impl SharedStore {
    pub fn each_kind() -> [SharedStore; 3] {
        [SharedStore::directory(), SharedStore::bucket(), SharedStore::behind_ssh()]
    }

    pub fn directory() -> SharedStore {
        let root = tempfile::Builder::new().prefix("xtask-store-").tempdir().expect("a temp dir");
        SharedStore { root, server: None, sshd: None }
    }

    pub fn bucket() -> SharedStore {
        SharedStore { server: Some(Bucket::new(BUCKET)), ..SharedStore::directory() }
    }

    /// The directory, where ssh reaches it.
    pub fn behind_ssh() -> SharedStore {
        Self::behind(&Environment::default())
    }

    /// The same where sessions have this environment.
    pub fn behind(environment: &Environment) -> SharedStore {
        let sshd = Sshd::start(environment);
        SharedStore { sshd: Some(sshd), ..SharedStore::directory() }
    }

    pub fn url(&self) -> String {
        match (&self.server, &self.sshd) {
            (Some(_), _) => format!("s3://{BUCKET}/db/upflow"),
            (None, Some(sshd)) => {
                let place = self.path().display().to_string();
                format!("ssh://{}@127.0.0.1:{}{place}", login_user(), sshd.port())
            }
            (None, None) => format!("file://{}", self.path().display()),
        }
    }

    /// Where the server listens on the loopback.
    pub fn port(&self) -> Option<u16> {
        self.server.as_ref().and_then(Bucket::port)
    }

    /// How often somebody has logged in.
    pub fn logins(&self) -> usize {
        self.sshd.as_ref().map_or(0, Sshd::connections)
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
        if let Some(server) = &self.server {
            command.envs(server.variables());
        }
        if let Some(sshd) = &self.sshd {
            env.write("home/.ssh/config", &sshd.ssh_config());
            let ssh = shells::find("ssh").display().to_string();
            let body = format!("exec {ssh} -F \"$HOME/.ssh/config\" \"$@\"");
            shells::script(&env.path("bin"), "ssh", &body);
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
