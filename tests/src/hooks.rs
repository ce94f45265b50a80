//! A repository with a pre-commit hook, and a `cargo` that notes what the hook
//! wants of it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::env::TestEnv;
use crate::output::Output;
use crate::process::Running;
use crate::{binaries, shells};

/// What the hook does, as `install-hooks` puts it into a file of its own.
pub const SCRIPT: &str = include_str!("../../xtask/src/pre-commit.sh");

/// A repository with xtask in it, everything committed, and the stand-in.
pub fn developer() -> TestEnv {
    let env = TestEnv::new();
    add_xtask(&env, "repo");
    env.git(&["add", "."]);
    env.git(&["commit", "--quiet", "--message=first"]);
    replace_cargo(&env);
    env
}

/// As much of xtask as the hook looks at.
pub fn add_xtask(env: &TestEnv, directory: &str) {
    let fixture = "[[fixture]]\npath = 'tests/fixtures/some.db'\nfrom = 'some.db'\n";
    env.write(&format!("{directory}/xtask/db.toml"), fixture);
    env.write(&format!("{directory}/xtask/Cargo.toml"), "");
    env.write(&format!("{directory}/xtask/src/main.rs"), "");
}

/// Puts a program in the place of Cargo, which exits as the file `code` says.
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

/// What the stand-in was asked for, with the directory that it ran in, the top
/// of the work tree as git saw it there, and the staged files.
pub fn calls(env: &TestEnv) -> Vec<String> {
    let calls = fs::read_to_string(env.path("calls")).unwrap_or_default();
    let _ = fs::remove_file(env.path("calls"));
    calls.lines().map(|line| env.normalize(line)).collect()
}

/// The one call that a commit of `file` is to make, or one of nothing.
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
    // Where Cargo is not to be found, it is not to be found by this either.
    command.env_remove("CARGO_HOME").envs(variables.iter().copied());
    Running::start(&mut command).wait()
}

pub fn hook(env: &TestEnv) -> PathBuf {
    env.path("repo/.git/hooks/pre-commit")
}

/// A hook that is there already.
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

/// Runs `install-hooks` by the settings in another directory than `repo`.
#[track_caller]
pub fn install_in(env: &TestEnv, directory: &str) -> Output {
    let mut command = env.command(binaries::xtask());
    command.arg("install-hooks").env("CARGO_MANIFEST_DIR", env.path(directory).join("xtask"));
    Running::start(&mut command).wait()
}
