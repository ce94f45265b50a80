//! An app whose databases the real Litestream replicates.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;

use crate::databases;
use crate::env::TestEnv;
use crate::output::Output;
use crate::process::{Running, wait_for};
use crate::s3::Bucket;
use crate::shells::script;
use crate::{binaries, python};

pub const VERSIONS: &str = include_str!("../litestream/requirements.txt");
pub const SECRET: &str = "hunter2isnosecret";

const TO_DIRECTORY: &str = "dbs:
  - path: ${DATA_DIR}/main.db
    replica:
      url: file://${REPLICAS}/main
  - dir: ${DATA_DIR}/tenants
    pattern: '*.db'
    watch: true
    replica:
      type: file
      path: ${REPLICAS}/t
      sync-interval: 100ms
";
const TO_BUCKET: &str = "access-key-id: ${KEY}
secret-access-key: ${KEY}
dbs:
  - path: ${DATA_DIR}/main.db
    replica:
      url: s3://team/r/main?endpoint=${ENDPOINT}
  - dir: ${DATA_DIR}/tenants
    pattern: '*.db'
    watch: true
    replica:
      type: s3
      bucket: team
      path: r/t
      endpoint: ${ENDPOINT}
      sync-interval: 100ms
";

/// An app with databases, which Litestream replicates to a directory or a bucket.
pub struct Scene {
    pub env: TestEnv,
    pub replicate: Option<Running>,
    bucket: Option<Bucket>,
}

impl Scene {
    /// Two databases by path, and a directory of tenants.
    pub fn in_directory() -> Scene {
        Self::with(None)
    }

    pub fn in_bucket() -> Scene {
        Self::with(Some(Bucket::new("team")))
    }

    fn with(bucket: Option<Bucket>) -> Scene {
        let env = TestEnv::new();
        let production = env.production();
        fs::create_dir(production.join("tenants")).expect("make a directory");
        for name in ["main.db", "queue.db", "tenants/iris.db", "tenants/juno.db"] {
            create(&production.join(name));
        }
        let config = if bucket.is_some() { TO_BUCKET } else { TO_DIRECTORY };
        env.write("repo/litestream.yml", config);
        env.db_toml(&format!(
            "via = 'litestream'\nremote-dir = '{}'\ninclude = ['*.db', 'tenants/*.db']\n
             [[sanitize]]\ntable = 'users'\nset.token = \"''\"\n",
            production.display()
        ));
        let mut scene = Scene { env, replicate: None, bucket };
        scene.script("");
        scene.replicate();
        scene
    }

    /// Puts the program where the tool finds it, after these commands.
    pub fn script(&self, before: &str) {
        let program = python::programs("litestream", VERSIONS).join("litestream");
        let body = before.replace("LITESTREAM", &format!("'{}'", program.display()));
        let body = format!("{body}\nexec '{}' \"$@\"", program.display());
        script(&self.env.path("bin"), "litestream", &body);
    }

    fn with_variables<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env("DATA_DIR", self.env.production()).env("REPLICAS", self.replicas());
        match &self.bucket {
            Some(bucket) => command.env("ENDPOINT", bucket.endpoint()).env("KEY", "any"),
            None => command,
        }
    }

    /// The URL of what is below the directory of the replicas.
    pub fn url(&self, below: &str) -> String {
        match &self.bucket {
            Some(bucket) => format!("s3://team/r{below}?endpoint={}", bucket.endpoint()),
            None => format!("file://{}{below}", self.replicas().display()),
        }
    }

    pub fn replicas(&self) -> PathBuf {
        self.env.path("replicas")
    }

    pub fn litestream(&self, args: &[&str]) -> Command {
        let mut command = self.env.command("litestream");
        self.with_variables(command.args(args));
        command
    }

    /// Starts replicating, and waits until all of it is there.
    pub fn replicate(&mut self) {
        let config = self.env.repo().join("litestream.yml");
        let args = ["replicate", "-config", config.to_str().expect("a path")];
        self.replicate = Some(Running::start(&mut self.litestream(&args)));
        self.settle();
    }

    /// Waits until what is in the databases is in the replicas too.
    pub fn settle(&self) {
        for name in ["main", "t/iris.db", "t/juno.db"] {
            let file = match name {
                "main" => "main.db".to_owned(),
                tenant => tenant.replace("t/", "tenants/"),
            };
            let rows = databases::count(&self.env.production().join(file), "users");
            wait_for(name, || (self.replicated_rows(name) == Some(rows)).then_some(()));
        }
    }

    pub fn replicated_rows(&self, name: &str) -> Option<i64> {
        // Litestream refuses to write beside the -shm of an earlier file.
        let dir = self.env.path("probe");
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir(&dir).expect("make a directory");
        let to = dir.join("probe.db");
        let url = self.url(&format!("/{name}"));
        let args = ["restore", "-o", to.to_str().expect("a path"), &url];
        let mut restore = self.litestream(&args);
        if let Some(bucket) = &self.bucket {
            restore.envs(bucket.variables());
        }
        let restored = Running::start(&mut restore).wait();
        (restored.code == Some(0)).then(|| databases::count(&to, "users"))
    }

    pub fn pull(&self, args: &[&str]) -> Output {
        let args = [&["pull-db", "--yes"], args].concat();
        Running::start(&mut self.command(&args)).wait()
    }

    /// The tool, which can look into a bucket if there is one.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = match &self.bucket {
            Some(_) => self.env.command(binaries::xtask_share()),
            None => self.env.command(binaries::xtask()),
        };
        self.with_variables(&mut command);
        command.args(args).env("CARGO_MANIFEST_DIR", self.env.path("repo/xtask"));
        command
    }

    pub fn add(&self, name: &str) {
        databases::execute(
            &self.env.production().join(name),
            &format!("INSERT INTO users (token) VALUES ('{SECRET}')"),
        );
    }

    /// Writes to a database until that is dropped.
    pub fn write(&self, name: &str) -> Writing {
        Writing::start(&self.env.production().join(name))
    }

    /// The present second.
    pub fn second(&self) -> String {
        let sql = "SELECT strftime('%Y-%m-%dT%H:%M:%SZ', 'now')";
        match databases::query(&self.env.production().join("queue.db"), sql) {
            rusqlite::types::Value::Text(text) => text,
            other => panic!("{other:?} is no time"),
        }
    }

    /// The current databases, also those of tenants.
    pub fn live(&self) -> Vec<String> {
        let tenants = self.env.data().join("tenants");
        let tenants = if tenants.exists() { databases::files(&tenants) } else { Vec::new() };
        let mut names = databases::files(&self.env.data());
        names.extend(tenants.iter().map(|name| format!("tenants/{name}")));
        names.retain(|name| name.ends_with(".db"));
        names
    }

    pub fn rows(&self, name: &str) -> i64 {
        databases::count(&self.env.data().join(name), "users")
    }
}

pub fn create(path: &Path) {
    databases::execute(
        path,
        &format!(
            "PRAGMA journal_mode = WAL; CREATE TABLE users (id INTEGER PRIMARY KEY, token);
             INSERT INTO users (token) VALUES ('{SECRET}')"
        ),
    );
}

/// Adds a row to a database again and again, until this is dropped.
pub struct Writing {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Writing {
    pub fn start(path: &Path) -> Writing {
        let stop = Arc::new(AtomicBool::new(false));
        let (path, asked) = (path.to_owned(), Arc::clone(&stop));
        let write = move || {
            let db = Connection::open(path).expect("open");
            db.busy_timeout(Duration::from_secs(60)).expect("wait for locks");
            while !asked.load(Ordering::Relaxed) {
                db.execute("INSERT INTO users (token) VALUES (?1)", [SECRET]).expect("insert");
                std::thread::sleep(Duration::from_millis(5));
            }
        };
        Writing { stop, thread: Some(std::thread::spawn(write)) }
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            ended.transpose().expect("it could write");
        }
    }
}
