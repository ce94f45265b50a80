//! A repository with a pre-commit hook, and a `cargo` that records its calls by the hook.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::env::TestEnv;
use crate::output::Output;
use crate::process::Running;
use crate::{binaries, shells};

/// The hook, as `install-hooks` writes it to a new file.
pub const SCRIPT: &str = include_str!("../../xtask/src/pre-commit.sh");

/// A committed repository with xtask in it, and the stand-in.
pub fn developer() -> TestEnv {
    let env = TestEnv::new();
    add_xtask(&env, "repo");
    env.git(&["add", "."]);
    env.git(&["commit", "--quiet", "--message=first"]);
    replace_cargo(&env);
    env
}

/// Adds the parts of xtask that the hook reads.
pub fn add_xtask(env: &TestEnv, directory: &str) {
    let fixture = "[[fixture]]\npath = 'tests/fixtures/some.db'\nfrom = 'some.db'\n";
    env.write(&format!("{directory}/xtask/db.toml"), fixture);
    env.write(&format!("{directory}/xtask/Cargo.toml"), "");
    env.write(&format!("{directory}/xtask/src/main.rs"), "");
}

/// Replaces Cargo by a script, which exits with the code in the file `code`.
pub fn replace_cargo(env: &TestEnv) {
    shells::script(&env.path("bin"), "cargo", &standin(env));
    cargo_exits(env, 0);
}

pub fn cargo_exits(env: &TestEnv, code: u8) {
    env.write("code", &format!("{code}\n"));
}

/// The body of the stand-in.
pub fn standin(env: &TestEnv) -> String {
    format!(
        "cd '{root}' && : >> calls || exit 99; cd \"$OLDPWD\" || exit 99\n\
         {{ echo \"$*\"; pwd; git rev-parse --show-toplevel; git diff --cached --name-only\n\
         cat; }} | tr '\\n' '|' >> '{root}/calls'\n\
         echo >> '{root}/calls'\n\
         exit \"$(cat '{root}/code')\"",
        root = env.path("").display()
    )
}

/// The recorded calls of the stand-in: its arguments, its directory, the top of the work tree for
/// git, and the staged files.
pub fn calls(env: &TestEnv) -> Vec<String> {
    let calls = fs::read_to_string(env.path("calls")).unwrap_or_default();
    let _ = fs::remove_file(env.path("calls"));
    calls.lines().map(|line| env.normalize(line)).collect()
}

/// The expected call for a commit of `file`, or of no file.
pub fn call(directory: &str, top: &str, file: &str) -> Vec<String> {
    let file = if file.is_empty() { String::new() } else { format!("{file}|") };
    vec![format!("xtask refresh-fixtures --staged|<ROOT>/{directory}|<ROOT>/{top}|{file}")]
}

/// Stages a new file in the work tree and commits it.
#[track_caller]
pub fn commit(env: &TestEnv, tree: &str, file: &str) -> Output {
    commit_with(env, tree, file, &[])
}

#[track_caller]
pub fn commit_with(env: &TestEnv, tree: &str, file: &str, variables: &[(&str, &str)]) -> Output {
    env.write(&format!("{tree}/{file}"), "x");
    let tree = env.path(tree);
    Running::start(env.command("git").arg("-C").arg(&tree).args(["add", "--", file])).wait().ok();
    let mut command = env.command("git");
    command.arg("-C").arg(&tree).args(["commit", "--quiet", "--message=x"]);
    // The hook must not find Cargo through this variable either.
    command.env_remove("CARGO_HOME").envs(variables.iter().copied());
    Running::start(&mut command).wait()
}

pub fn hook(env: &TestEnv) -> PathBuf {
    env.path("repo/.git/hooks/pre-commit")
}

/// Writes an existing hook of the user.
pub fn foreign(env: &TestEnv, content: impl AsRef<[u8]>) {
    fs::create_dir_all(env.path("repo/.git/hooks")).expect("make a directory");
    fs::write(hook(env), content).expect("write a hook");
    chmod(&hook(env), 0o755);
}

pub fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
}

pub fn mode(path: &Path) -> u32 {
    path.metadata().expect("it is there").permissions().mode() & 0o777
}

/// Runs `install-hooks` with the settings in another directory than `repo`.
#[track_caller]
pub fn install_in(env: &TestEnv, directory: &str) -> Output {
    let mut command = env.command(binaries::xtask());
    command.arg("install-hooks").env("CARGO_MANIFEST_DIR", env.path(directory).join("xtask"));
    Running::start(&mut command).wait()
}
