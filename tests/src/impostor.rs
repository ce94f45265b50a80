//! A hostile server: its output, and the check that a pull from it changes nothing here.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::binaries;
use crate::databases;
use crate::env::TestEnv;
use crate::output::Output;
use crate::process::Running;
use crate::store::{LEFTOVER, left_behind, leftover};

/// Limits far above the needs of a pull of a few databases, and far below those of a hostile
/// stream.
const MEMORY_KIB: u64 = 768 << 10;
const FILE_KIB: u64 = 160 << 10;
/// Generous for a machine under load, and short compared with what a bomb takes.
const TIME: Duration = Duration::from_secs(20);

/// For a script in place of `fly`: reads the script of a pull from its input, and no more.
pub const TAKE_SCRIPT: &str = "read -r n; dd bs=\"$n\" count=1 iflag=fullblock >/dev/null 2>&1";

/// A developer who has pulled once, and whose `fly` from then on prints what the test defines.
pub struct Impostor {
    pub env: TestEnv,
}

impl Impostor {
    /// The live set is one database `data.db`, changed since the pull.
    pub fn new() -> Impostor {
        let env = TestEnv::new();
        databases::create(&env.production().join("data.db"), 30, 1);
        crate::sets::pull(&env);
        crate::sets::change(&env.data().join("data.db"));
        Impostor::of(env)
    }

    /// Like [`Self::new`], for a developer who pulled through `fly`: that pull is the base of the
    /// next.
    pub fn with_base() -> Impostor {
        let (env, _sshd) = TestEnv::with_server();
        databases::create(&env.production().join("data.db"), 300, 1);
        crate::pull::pull(&env, &[]);
        crate::sets::change(&env.data().join("data.db"));
        Impostor::of(env)
    }

    /// The newest snapshot's `data.db`.
    pub fn base(&self) -> PathBuf {
        crate::pull::snapshot(&self.env).path.join("data.db")
    }

    /// Extends the base to `bytes` bytes, most of which are a hole.
    pub fn has_base_of(&self, bytes: u64) {
        let base = fs::File::options().write(true).open(self.base()).expect("it is there");
        base.set_len(bytes).expect("make it longer");
        let path = self.base().with_file_name("snapshot.json");
        let text = fs::read_to_string(&path).expect("read");
        let mut meta: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        meta["databases"][0]["bytes"] = bytes.into();
        fs::write(path, meta.to_string()).expect("write");
    }

    /// `fly` prints `first` after a marker, and `second` after another one once the client has
    /// requested databases again.
    pub fn sends_in_turn(&self, first: &[u8], second: &[u8]) {
        fs::write(self.env.path("first"), first).expect("write what is said");
        fs::write(self.env.path("second"), second).expect("write what is said");
        let hashes = fs::metadata(self.base()).expect("a base").len().div_ceil(16384) * 64;
        let marker = "printf '\\nXTASK-DB 1 %s\\n' \"$nonce\"";
        self.runs(&format!(
            "while read -r line && [ \"$line\" != end ]; do :; done
             printf '\\nXTASK-DB-NEED 1 %s sha3 0\\n' \"$nonce\"; head -c {hashes} >/dev/null
             {marker}; cat \"$here/first\"
             read -r word && printf %s \"$word\" >\"$here/word\"; {marker}; cat \"$here/second\""
        ));
    }

    /// Replaces the `fly` of this developer.
    pub fn of(env: TestEnv) -> Impostor {
        let answer = env.path("answer");
        env.replace_fly(&format!(". '{}'", answer.display()));
        Impostor { env }
    }

    /// `fly` runs this script, in which `$nonce` is that of the pull, and `$here` the directory of
    /// the test's files.
    pub fn runs(&self, script: &str) {
        let listen = format!("{TAKE_SCRIPT}; read -r _ nonce");
        let here = self.env.path("");
        let here = here.display();
        self.env.write("answer", &format!("here='{here}'\n{listen}\n{script}\n"));
    }

    /// `fly` prints `before`, the first `nonce` characters of the nonce, and `after`.
    pub fn says(&self, before: &[u8], nonce: usize, after: &[u8]) {
        fs::write(self.env.path("before"), before).expect("write what is said");
        fs::write(self.env.path("after"), after).expect("write what is said");
        self.runs(&format!(
            "cat \"$here/before\"; printf %.{nonce}s \"$nonce\"; cat \"$here/after\""
        ));
    }

    /// `fly` prints this stream after a marker.
    pub fn sends(&self, stream: &[u8]) {
        self.says(b"\nXTASK-DB 1 ", 1000, &[b"\n", stream].concat());
    }

    /// Pulls with limits for memory, file size and time.
    #[track_caller]
    pub fn pull(&self, args: &[&str]) -> Output {
        let mut command = self.env.command("sh");
        // Some systems cannot limit the memory of a process.
        let limits = format!("ulimit -v {MEMORY_KIB} 2>/dev/null; ulimit -f {}", FILE_KIB * 2);
        command.args(["-c", &format!("{limits}; exec \"$0\" \"$@\"")]).arg(binaries::xtask());
        command.arg("pull-db").args(args).env("CARGO_MANIFEST_DIR", self.env.path("repo/xtask"));
        let start = Instant::now();
        let output = Running::start(&mut command).wait();
        assert!(start.elapsed() < TIME, "took {:?}\n{output}", start.elapsed());
        output
    }

    /// A pull that must be refused, change nothing and leave nothing; `name` identifies the case in
    /// a failure.
    #[track_caller]
    pub fn is_refused(&self, name: &str, args: &[&str]) -> Output {
        let before = stamps(&self.env.data());
        let all = || {
            let mut all: BTreeMap<_, _> =
                crate::store::modes(&self.env.path("")).into_iter().collect();
            // This file has the client's last request.
            all.remove(&self.env.path("word"));
            all.retain(|path, _| !is_of_leftover(path));
            all
        };
        let there = all();
        let output = self.pull(args);
        assert_eq!(output.code, Some(1), "{name}\n{output}");
        assert!(output.stdout.is_empty(), "{name}\n{output}");
        let after = stamps(&self.env.data());
        assert!(before == after, "{name}: the data directory was touched: {after:?}\n{output}");
        assert!(all() == there, "{name}: not all is as it was beside the data directory");
        self.assert_tidy(name);
        let resumes = output.stderr.contains("hint: the next pull resumes from what arrived\n");
        let was_cut = output.stderr.contains("error: the connection was cut after ");
        assert_eq!(leftover(&self.env.data()).is_some(), resumes, "{name}\n{output}");
        assert!(was_cut || !resumes, "{name}\n{output}");
        assert_harmless(name, &output);
        output
    }

    /// Asserts that a run has left no files.
    #[track_caller]
    pub fn assert_tidy(&self, name: &str) {
        let none: [&str; 0] = [];
        assert_eq!(left_behind(&self.env.data()), none, "{name}: in .xtask");
        // A stand-in that is not waited for is killed, and leaves its log.
        let mut local = databases::files(&self.env.path("local-tmp"));
        local.retain(|name| !name.starts_with("standin-fly-"));
        assert_eq!(local, none, "{name}: in TMPDIR");
    }
}

impl Default for Impostor {
    fn default() -> Impostor {
        Impostor::new()
    }
}

/// Asserts that there are no raw control bytes, and not more than a few screens of text: some
/// messages quote `fly`.
#[track_caller]
pub fn assert_harmless(name: &str, output: &Output) {
    assert_eq!(output.harmful(), None, "{name}");
    assert!(output.stderr.len() < 10_000, "{name}: {} bytes said", output.stderr.len());
}

fn is_of_leftover(path: &Path) -> bool {
    path.iter().any(|name| name == LEFTOVER)
}

/// Inode, length and times of each file below the data directory, except for the lock, into which
/// every command writes its name, and what the next pull resumes from.
pub fn stamps(data: &Path) -> BTreeMap<PathBuf, [i64; 6]> {
    let paths = crate::store::modes(data).into_iter().map(|(path, _)| path);
    let paths = paths.filter(|path| !path.ends_with(".xtask/lock") && !is_of_leftover(path));
    paths
        .map(|path| {
            let found = path.symlink_metadata().expect("it is there");
            // The times of a directory change with temporary files in it.
            let stamp = if found.is_dir() {
                [found.ino() as i64, 0, 0, 0, 0, 0]
            } else {
                let (modified, changed) = (found.mtime_nsec(), found.ctime_nsec());
                let seconds = (found.mtime(), found.ctime());
                let length = found.len() as i64;
                [found.ino() as i64, length, seconds.0, modified, seconds.1, changed]
            };
            (path, stamp)
        })
        .collect()
}
