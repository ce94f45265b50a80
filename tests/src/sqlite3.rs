//! Other builds of SQLite for a server. Debian compiles with SECURE_DELETE, which hides missing
//! wipes of a script. `sqlite3` loads a shared library: here one made from the source that rusqlite
//! bundles, which is another version too. Crates provide the program's source for other versions.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use sha2::{Digest as _, Sha256};

use crate::long::long;
use crate::process::command;
use crate::shells::{find, script};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Build {
    /// The `sqlite3` of this machine.
    Machine,
    /// Keeps deleted bytes in the file, unless told otherwise.
    WithoutSecureDelete,
    /// Like [`Self::WithoutSecureDelete`], and without `dbstat`.
    WithoutDbstat,
    /// 3.34.1, the oldest supported version.
    Old,
    /// 3.49.1.
    New,
}

/// The compile options that a distribution's `sqlite3` needs in its library.
const OPTIONS: [&str; 14] = [
    "THREADSAFE=1",
    "SOUNDEX",
    "USE_URI",
    "ENABLE_COLUMN_METADATA",
    "ENABLE_FTS3",
    "ENABLE_FTS3_PARENTHESIS",
    "ENABLE_FTS3_TOKENIZER",
    "ENABLE_FTS4",
    "ENABLE_FTS5",
    "ENABLE_MATH_FUNCTIONS",
    "ENABLE_PREUPDATE_HOOK",
    "ENABLE_SESSION",
    "ENABLE_STMTVTAB",
    "ENABLE_UNLOCK_NOTIFY",
];

impl Build {
    /// The builds that this system supports: only on Linux does a program load the library that is
    /// given.
    pub fn all() -> &'static [Build] {
        match cfg!(target_os = "linux") {
            true => &[Build::Machine, Build::WithoutSecureDelete, Build::WithoutDbstat],
            false => &[Build::Machine],
        }
    }

    /// All builds with `--long`, else the one that hides least.
    pub fn some() -> &'static [Build] {
        let all = Build::all();
        if long() { all } else { &all[all.len() / 2..][..1] }
    }

    /// Builds of other versions; the others differ only in their options.
    pub fn versions() -> &'static [Build] {
        &[Build::Machine, Build::Old, Build::New]
    }

    /// Installs it into `bin`, to be put before others in a PATH.
    pub fn install(self, bin: &Path) {
        let program = match self {
            Build::Machine => find("sqlite3"),
            _ => self.directory().join("sqlite3"),
        };
        script(bin, "sqlite3", &format!("exec '{}' \"$@\"", program.display()));
    }

    /// A PATH with this `sqlite3`, and all other programs of the machine.
    pub fn path(self) -> String {
        let inherited = std::env::var("PATH").expect("a PATH that is text");
        match self {
            Build::Machine => inherited,
            _ => format!("{}:{inherited}", self.directory().display()),
        }
    }

    /// The directory of its `sqlite3`, which the first test that needs it compiles.
    fn directory(self) -> PathBuf {
        match self {
            Build::Old => compile_program("0.3.0"),
            Build::New => compile_program("0.7.0"),
            _ => self.compile_library(),
        }
    }

    fn compile_library(self) -> PathBuf {
        let (program, identity) = machine();
        let mut options = OPTIONS.map(|option| format!("-DSQLITE_{option}")).to_vec();
        if self == Build::WithoutSecureDelete {
            options.push("-DSQLITE_ENABLE_DBSTAT_VTAB".to_owned());
        }
        // `sqlite3` compares this id, and refuses a library of another version.
        let source = format!(
            "#define sqlite3_sourceid their_sourceid\n#include \"{}\"\n#undef sqlite3_sourceid\n\
             const char *sqlite3_sourceid(void) {{ return \"{identity}\"; }}\n",
            amalgamation().display()
        );
        let wrapper = "LD_LIBRARY_PATH=${0%/*} exec";
        once(&format!("{source}{options:?}{wrapper}{}", program.display()), |new| {
            fs::write(new.join("sqlite3.c"), &source).expect("write a file");
            options.extend(
                ["-shared", "-fPIC", "-o", "libsqlite3.so.0", "sqlite3.c"].map(str::to_owned),
            );
            compile(new, &options);
            script(new, "sqlite3", &format!("{wrapper} '{}' \"$@\"", program.display()));
        })
    }
}

/// Compiles the program from its published source, with the options of distributions. `sqlite3-src`
/// cannot be a dependency of ours: it links to `sqlite3`, like rusqlite's crate.
fn compile_program(crate_version: &str) -> PathBuf {
    let manifest = format!(
        "[package]\nname = \"source\"\nversion = \"0.0.0\"\nedition = \"2024\"\n[lib]\npath = \"lib.rs\"\n\
         [workspace]\n[dependencies]\nsqlite3-src = \"={crate_version}\"\n"
    );
    let mut options = OPTIONS.map(|option| format!("-DSQLITE_{option}")).to_vec();
    let more = ["ENABLE_DBSTAT_VTAB", "ENABLE_JSON1", "SECURE_DELETE"];
    options.extend(more.map(|option| format!("-DSQLITE_{option}")));
    once(&format!("{manifest}{options:?}"), |new| {
        fs::write(new.join("Cargo.toml"), &manifest).expect("write a file");
        fs::write(new.join("lib.rs"), "").expect("write a file");
        let source = manifest_of("sqlite3-src", new, &[]).with_file_name("source");
        options.extend(["-o", "sqlite3"].map(str::to_owned));
        options
            .extend(["shell.c", "sqlite3.c"].map(|file| source.join(file).display().to_string()));
        compile(new, &options);
    })
}

/// A directory that `make` fills, unless it exists for the same `inputs`.
fn once(inputs: &str, make: impl FnOnce(&Path)) -> PathBuf {
    let hash = Sha256::digest(inputs);
    let hash: String = hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let builds = target().join("sqlite3-builds");
    fs::create_dir_all(&builds).expect("make a directory");
    let lock = File::create(builds.join("lock")).expect("make a lock");
    lock.lock().expect("lock");
    let directory = builds.join(hash);
    if !directory.exists() {
        let new = tempfile::tempdir_in(&builds).expect("make a directory");
        make(new.path());
        fs::rename(new.keep(), &directory).expect("rename a directory");
    }
    directory
}

fn compile(directory: &Path, options: &[String]) {
    let mut cc = command("cc");
    cc.current_dir(directory).args(["-O1", "-w"]).args(options);
    let output = cc.args(["-lm", "-ldl", "-lpthread"]).output().expect("there is a C compiler");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "SQLite does not compile:\n{errors}");
}

/// The program of this machine, and the id of its source.
fn machine() -> (PathBuf, String) {
    let program = find("sqlite3");
    let output = command(&program).arg("--version").output().expect("sqlite3 runs");
    let version = String::from_utf8(output.stdout).expect("a version is text");
    let source = version.trim().split_once(' ').expect("a version and a source").1;
    // Newer versions add the number of bits.
    let source = source.split(" (").next().unwrap_or_default().to_owned();
    (program, source)
}

/// SQLite's amalgamation, which rusqlite bundles.
fn amalgamation() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let manifest = manifest_of("libsqlite3-sys", here, &["--locked"]);
        manifest.with_file_name("sqlite3").join("sqlite3.c")
    })
}

/// The manifest of a package that the one in `directory` depends on.
fn manifest_of(package: &str, directory: &Path, options: &[&str]) -> PathBuf {
    // Packages for other platforms may not be downloaded.
    let output = command(env!("CARGO"))
        .current_dir(directory)
        .args(["metadata", "--format-version=1", "--filter-platform", &host()])
        .args(options)
        .output()
        .expect("cargo runs");
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| {
        panic!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr))
    });
    let packages = json["packages"].as_array().expect("packages");
    let manifest = packages
        .iter()
        .find(|found| found["name"] == package)
        .and_then(|found| found["manifest_path"].as_str())
        .unwrap_or_else(|| panic!("{package} is no dependency"));
    PathBuf::from(manifest)
}

/// The target triple of this machine.
fn host() -> String {
    let output = command("rustc").arg("-vV").output().expect("rustc runs");
    let version = String::from_utf8(output.stdout).expect("a version is text");
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    host.expect("rustc names its host").to_owned()
}

/// Test executables are in `target/<profile>/deps`.
fn target() -> PathBuf {
    let executable = std::env::current_exe().expect("this process has a program");
    executable.ancestors().nth(3).expect("tests are in target/<profile>/deps").to_owned()
}
