//! A server that is not ours: what it says, and what must then have happened
//! here, which is nothing.

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
use crate::store::left_behind;

/// Far above what a pull of a few databases needs, and far below what a hostile
/// stream would like to have.
const MEMORY_KIB: u64 = 768 << 10;
const FILE_KIB: u64 = 160 << 10;
/// Generous for a machine under load, and nothing against what a bomb takes.
const TIME: Duration = Duration::from_secs(20);

/// In a `fly` that is a script: takes the script of a pull from its input, and no more.
pub const TAKE_SCRIPT: &str = "read -r n; dd bs=\"$n\" count=1 iflag=fullblock >/dev/null 2>&1";

/// A developer who has pulled once, and whose `fly` says from now on what the
/// test gives it.
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

    /// The same of a developer who pulled through `fly`: the next pull has what that
    /// brought as its base.
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

    /// The base is so large, and has nothing in most of it.
    pub fn has_base_of(&self, bytes: u64) {
        let base = fs::File::options().write(true).open(self.base()).expect("it is there");
        base.set_len(bytes).expect("make it longer");
        let path = self.base().with_file_name("snapshot.json");
        let text = fs::read_to_string(&path).expect("read");
        let mut meta: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        meta["databases"][0]["bytes"] = bytes.into();
        fs::write(path, meta.to_string()).expect("write");
    }

    /// From now on it says `first` behind a marker, and after it was asked for some that
    /// did not fit, `second` behind another.
    pub fn sends_in_turn(&self, first: &[u8], second: &[u8]) {
        fs::write(self.env.path("first"), first).expect("write what is said");
        fs::write(self.env.path("second"), second).expect("write what is said");
        let hashes = fs::metadata(self.base()).expect("a base").len().div_ceil(16384) * 64;
        let marker = "printf '\\nXTASK-DB 1 %s\\n' \"$nonce\"";
        self.runs(&format!(
            "while read -r line && [ \"$line\" != end ]; do :; done
             head -c {hashes} >/dev/null; {marker}; cat \"$here/first\"
             read -r word && printf %s \"$word\" >\"$here/word\"; {marker}; cat \"$here/second\""
        ));
    }

    /// In the place of the `fly` of this developer.
    pub fn of(env: TestEnv) -> Impostor {
        let answer = env.path("answer");
        env.replace_fly(&format!(". '{}'", answer.display()));
        Impostor { env }
    }

    /// From now on `fly` runs this, in which `$nonce` is that of the pull and
    /// `$here` has the files of the test.
    pub fn runs(&self, script: &str) {
        let listen = format!("{TAKE_SCRIPT}; read -r _ nonce");
        let here = self.env.path("");
        let here = here.display();
        self.env.write("answer", &format!("here='{here}'\n{listen}\n{script}\n"));
    }

    /// From now on it says `before`, so much of the nonce, and `after`.
    pub fn says(&self, before: &[u8], nonce: usize, after: &[u8]) {
        fs::write(self.env.path("before"), before).expect("write what is said");
        fs::write(self.env.path("after"), after).expect("write what is said");
        self.runs(&format!(
            "cat \"$here/before\"; printf %.{nonce}s \"$nonce\"; cat \"$here/after\""
        ));
    }

    /// From now on it says this behind a marker.
    pub fn sends(&self, stream: &[u8]) {
        self.says(b"\nXTASK-DB 1 ", 1000, &[b"\n", stream].concat());
    }

    /// Pulls with little memory and little disk, and in no time.
    #[track_caller]
    pub fn pull(&self, args: &[&str]) -> Output {
        let mut command = self.env.command("sh");
        // Not every system can limit the memory of a process.
        let limits = format!("ulimit -v {MEMORY_KIB} 2>/dev/null; ulimit -f {}", FILE_KIB * 2);
        command.args(["-c", &format!("{limits}; exec \"$0\" \"$@\"")]).arg(binaries::xtask());
        command.arg("pull-db").args(args).env("CARGO_MANIFEST_DIR", self.env.path("repo/xtask"));
        let start = Instant::now();
        let output = Running::start(&mut command).wait();
        assert!(start.elapsed() < TIME, "took {:?}\n{output}", start.elapsed());
        output
    }

    /// Pulls what is refused, changes nothing and leaves nothing; `name` says
    /// which it is when it does.
    #[track_caller]
    pub fn is_refused(&self, name: &str, args: &[&str]) -> Output {
        let before = stamps(&self.env.data());
        let all = || {
            let mut all: BTreeMap<_, _> =
                crate::store::modes(&self.env.path("")).into_iter().collect();
            // Says what this one was asked for.
            all.remove(&self.env.path("word"));
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
        assert_harmless(name, &output);
        output
    }

    /// Nothing is left of a run.
    #[track_caller]
    pub fn assert_tidy(&self, name: &str) {
        let none: [&str; 0] = [];
        assert_eq!(left_behind(&self.env.data()), none, "{name}: in .xtask");
        // A stand-in that is not waited for is ended, and leaves its log.
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

/// No raw control bytes, and no more than a few screens: what `fly` says last is
/// part of some messages.
#[track_caller]
pub fn assert_harmless(name: &str, output: &Output) {
    assert_eq!(output.harmful(), None, "{name}");
    assert!(output.stderr.len() < 10_000, "{name}: {} bytes said", output.stderr.len());
}

/// All that is below the data directory, but for the lock, which every command
/// writes its name into: the inode, length and times of each file.
pub fn stamps(data: &Path) -> BTreeMap<PathBuf, [i64; 6]> {
    let paths = crate::store::modes(data).into_iter().map(|(path, _)| path);
    let paths = paths.filter(|path| !path.ends_with(".xtask/lock"));
    paths
        .map(|path| {
            let found = path.symlink_metadata().expect("it is there");
            // A directory changes with what comes and goes in it meanwhile.
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
