//! The programs under test, built once per test process and with the profile of the tests.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::process::command;

/// Set by CI, which has built everything before and runs tests in parallel.
const PREBUILT_VARIABLE: &str = "XTASK_TESTS_PREBUILT";

pub fn xtask() -> &'static Path {
    static XTASK: OnceLock<PathBuf> = OnceLock::new();
    XTASK.get_or_init(|| built("xtask-db", "xtask"))
}

pub fn app() -> &'static Path {
    static APP: OnceLock<PathBuf> = OnceLock::new();
    APP.get_or_init(|| built("app", "app"))
}

/// `cargo dev`.
pub fn dev() -> &'static Path {
    static DEV: OnceLock<PathBuf> = OnceLock::new();
    DEV.get_or_init(|| built("dev", "dev"))
}

/// Already built by Cargo, because it belongs to the package of the tests.
pub fn fly() -> PathBuf {
    profile_directory().join("fly")
}

/// xtask with the store of a team.
pub fn xtask_share() -> PathBuf {
    profile_directory().join("xtask_share")
}

/// Builds one package at a time: together they would get other features than with `cargo xtask`,
/// and be compiled twice.
fn built(package: &str, program: &str) -> PathBuf {
    let directory = profile_directory();
    let binary = directory.join(program);
    if std::env::var_os(PREBUILT_VARIABLE).is_none() {
        let profile = match directory.file_name().and_then(|name| name.to_str()) {
            Some("debug") => "dev",
            Some(name) => name,
            None => panic!("{} is no profile's directory", directory.display()),
        };
        let output = command(env!("CARGO"))
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args(["build", "--quiet", "--bins", "--package", package, "--profile", profile])
            .arg("--target-dir")
            .arg(directory.parent().expect("a profile's directory is in target"))
            .output()
            .expect("cargo runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{package} does not compile:\n{errors}");
    }
    assert!(binary.exists(), "{} is missing: build it first", binary.display());
    binary
}

/// Test executables are in `target/<profile>/deps`.
fn profile_directory() -> PathBuf {
    let mut path = std::env::current_exe().expect("this process has a program");
    path.pop();
    if path.ends_with("deps") {
        path.pop();
    }
    path
}
