//! Pulls with bases, and the checks after each.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::databases;
use crate::env::TestEnv;
use crate::output::Output;
use crate::process::Running;
use crate::pull::assert_tidy;
use crate::shells;
use crate::store::{leftover, modes};

/// A production on this machine, and its developer.
pub struct Scene {
    pub env: TestEnv,
    /// If set, the only directory of programs.
    bin: Option<PathBuf>,
    /// Whether the databases count as just written before each pull.
    pub fresh: bool,
}

/// The output of a pull or dry run with `--json`.
pub struct Report {
    pub output: Output,
    json: Value,
}

impl Scene {
    pub fn new() -> Scene {
        let env = TestEnv::new();
        env.write("repo/.gitignore", "/data\n/full\n");
        Scene { env, bin: None, fresh: true }
    }

    /// A scene whose script runs in busybox, with busybox's programs.
    pub fn busybox() -> Scene {
        let scene = Scene::new();
        let bin = shells::busybox(&scene.env.path(""), &["sqlite3", "git"]);
        Scene { bin: Some(bin), ..scene }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.env.production().join(name)
    }

    /// Runs statements on a database of production.
    pub fn execute(&self, name: &str, sql: &str) {
        databases::execute(&self.path(name), sql);
    }

    /// Creates databases with a table `items`, some pages of which are incompressible.
    pub fn create(&self, names: &[&str], kibibytes: u32) {
        for (seed, name) in (1..).zip(names) {
            databases::create(&self.path(name), 100, seed);
            self.add(name, kibibytes);
        }
    }

    /// Adds this amount of incompressible data.
    pub fn add(&self, name: &str, kibibytes: u32) {
        self.execute(
            name,
            &format!(
                "WITH n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < {kibibytes})
                 INSERT INTO items (data) SELECT randomblob(1000) FROM n"
            ),
        );
    }

    #[track_caller]
    pub fn start(&self, args: &[&str]) -> Running {
        if self.fresh {
            self.env.touch_production();
        }
        let via = format!("local:{}", self.env.production().display());
        let args = [&["pull-db", "--json", "--yes", "--via", &via], args].concat();
        let mut xtask = self.env.xtask_command(args);
        xtask.env("TMPDIR", self.env.path("tmp"));
        if let Some(bin) = &self.bin {
            xtask.env("PATH", bin);
        }
        Running::start(&mut xtask)
    }

    /// A pull whose snapshot is valid and equals production.
    #[track_caller]
    pub fn pull(&self, args: &[&str]) -> Report {
        let report = self.report(args);
        for database in report.databases() {
            let name = database["name"].as_str().expect("a name");
            let file = self.env.data().join(report.text("snapshot")).join(name);
            assert_eq!(sha256(&file), database["sha256"], "{name} is not what is recorded");
            databases::assert_same(&file, &self.path(name));
        }
        report
    }

    /// The report of a successful command; asserts that no temporary files are left.
    #[track_caller]
    pub fn report(&self, args: &[&str]) -> Report {
        let output = self.start(args).wait().ok();
        assert_tidy(&self.env);
        assert_eq!(leftover(&self.env.data()), None, "{output}");
        Report { json: output.json(), output }
    }
}

impl Default for Scene {
    fn default() -> Scene {
        Scene::new()
    }
}

impl Report {
    /// The report in an existing output.
    #[track_caller]
    pub fn of(output: Output) -> Report {
        Report { json: output.json(), output }
    }

    pub fn databases(&self) -> &[Value] {
        self.json["databases"].as_array().expect("an array")
    }

    #[track_caller]
    pub fn text(&self, key: &str) -> &str {
        self.json[key].as_str().expect("a text")
    }

    /// The number of pages that were transferred; `None` if the database came complete.
    #[track_caller]
    pub fn changed(&self, name: &str) -> Option<u64> {
        let found = self.databases().iter().find(|database| database["name"] == name);
        found.unwrap_or_else(|| panic!("no {name}\n{}", self.output))["changed_pages"].as_u64()
    }

    /// [`Self::changed`] for several databases.
    #[track_caller]
    pub fn all_changed(&self, names: &[&str]) -> Vec<Option<u64>> {
        names.iter().map(|name| self.changed(name)).collect()
    }

    pub fn wire_bytes(&self) -> u64 {
        self.json["wire_bytes"].as_u64().expect("a number")
    }
}

/// The file must not be open in this process.
pub fn sha256(path: &Path) -> String {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// All files below a directory, each with its sha256.
pub fn files_below(directory: &Path) -> BTreeMap<String, String> {
    let paths = modes(directory).into_iter().map(|(path, _)| path);
    let files = paths.filter(|path| path.is_file());
    files.map(|path| (path.display().to_string(), sha256(&path))).collect()
}
