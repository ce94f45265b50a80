//! The tool in a repository that has nothing to do with Rust: what was copied
//! there is all that it needs.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hasher as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use tests::databases;
use tests::env::TestEnv;
use tests::process::{Running, command};
use tests::sets::{assert_same, change, content};

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the root")
}

/// The files that git knows below these paths.
fn tracked(paths: &[&str]) -> Vec<String> {
    let mut git = command("git");
    git.current_dir(workspace()).args(["ls-files", "-z"]).args(paths);
    let listing = git.output().expect("git runs").stdout;
    let listing = String::from_utf8(listing).expect("tracked paths are UTF-8");
    let files: Vec<String> = listing.split_terminator('\0').map(str::to_owned).collect();
    assert!(!files.is_empty(), "no tracked files: is this a git repository?");
    files
}

/// With the time of the original, so that Cargo sees what it has built before.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to.parent().expect("a file has a parent")).expect("make a directory");
    fs::copy(from, to).unwrap_or_else(|error| panic!("copy {}: {error}", from.display()));
    let time = from.metadata().and_then(|metadata| metadata.modified()).expect("a time");
    let copy = File::options().write(true).open(to).expect("open the copy");
    copy.set_modified(time).expect("set the time");
}

/// Where this workspace is built.
fn build_directory() -> PathBuf {
    let executable = std::env::current_exe().expect("this process has a program");
    executable.ancestors().nth(3).expect("tests are in target/<profile>/deps").to_owned()
}

/// Always at the same place, because Cargo takes a package at another one for
/// another package; and outside of this workspace, which would claim it.
fn repository(target: &Path) -> PathBuf {
    let mut hasher = DefaultHasher::new();
    hasher.write(target.as_os_str().as_bytes());
    std::env::temp_dir().join(format!("xtask-elsewhere-{:016x}", hasher.finish()))
}

/// Compiles xtask itself. What it depends on is there: in the same versions, with the same
/// features and settings, Cargo takes it from where this workspace was built.
#[test]
fn a_repository_without_rust_needs_only_what_was_copied() {
    let build = build_directory();
    let target = build.join("elsewhere");
    fs::create_dir_all(&target).expect("make a directory");
    let lock = File::create(target.join("lock")).expect("create a lock");
    lock.lock().expect("no other run of this test is going on");
    let root = repository(&target);
    drop(fs::remove_dir_all(&root));

    for file in tracked(&["xtask", "ops-remote", ".cargo/config.toml"]) {
        copy(&workspace().join(&file), &root.join(&file));
    }
    // The versions that this workspace is tested with, and no others.
    copy(&workspace().join("Cargo.lock"), &root.join("xtask/Cargo.lock"));
    fs::write(root.join("package.json"), "{ \"name\": \"elsewhere\" }\n").expect("write");
    fs::write(root.join(".gitignore"), "/data\n/xtask/target\n").expect("write");
    fs::write(root.join("xtask/db.toml"), "local-dir = \"data\"\nexclude = [\"no*.db\"]\n")
        .expect("write");
    fs::create_dir(root.join("data")).expect("make a directory");
    databases::create(&root.join("data/own.db"), 5, 5);

    let env = TestEnv::new();
    databases::create(&env.production().join("data.db"), 30, 1);
    databases::create(&env.production().join("tenant_iris.db"), 300, 2);
    databases::create(&env.production().join("no.db"), 3, 3);
    // The compiler that belongs to this Cargo, without rustup in between: the
    // test must neither choose nor install a toolchain.
    let toolchain = Path::new(env!("CARGO")).parent().expect("Cargo is in a directory");
    let inherited = std::env::var_os("PATH").unwrap_or_default();
    let path = std::iter::once(toolchain.to_owned()).chain(std::env::split_paths(&inherited));
    let path = std::env::join_paths(path).expect("no directory has a colon");
    let cargo = |args: &[&str]| {
        let mut cargo = env.command(env!("CARGO"));
        cargo.current_dir(&root).env("PATH", &path);
        cargo.env("CARGO_TARGET_DIR", &target).env("CARGO_BUILD_BUILD_DIR", &build);
        // Of xtask alone: that takes half the time, and is nothing that is tested here.
        cargo.env("CARGO_PROFILE_XTASK_OPT_LEVEL", "0");
        cargo.arg("xtask").args(args);
        cargo
    };
    // Compiling has no deadline.
    let built = cargo(&["--version"]).output().expect("Cargo runs");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let cargo = |args: &[&str]| Running::start(&mut cargo(args)).wait().ok();
    let git = |args: &[&str]| {
        Running::start(env.command("git").current_dir(&root).args(args)).wait().ok()
    };
    git(&["init", "--quiet"]);
    git(&["add", "--all"]);
    let via = format!("local:{}", env.production().display());
    cargo(&["pull-db", "--via", &via]).stderr_has("Pulled 2 databases").stderr_lacks("warning");
    fs::remove_file(env.production().join("no.db")).expect("remove");
    let pulled = content(&env.production());
    // Whose own it was, it stays.
    fs::remove_file(root.join("data/own.db")).expect("it is there");
    assert_same(&content(&root.join("data")), &pulled);
    change(&root.join("data/data.db"));
    let app = Connection::open(root.join("data/data.db")).expect("open");
    app.execute_batch("SELECT * FROM items").expect("read");
    // This takes what `.cargo/config.toml` builds into SQLite.
    cargo(&["restore-db", "--latest", "--yes"]).stderr_has(": has it at its next query");
    drop(app);
    assert_same(&content(&root.join("data")), &pulled);
    // Nothing was written beside: git sees the files that were copied, unchanged.
    let status = git(&["status", "--porcelain"]).stdout();
    let other = |line: &&str| !line.starts_with("A  ") && *line != "AM xtask/Cargo.lock";
    assert_eq!(status.lines().find(other), None);
    drop(fs::remove_dir_all(&root));
}
