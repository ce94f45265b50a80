//! The pre-commit hook, run by real commits.

use std::fs::{self, File};
use std::time::{Duration, SystemTime};

use tests::env::TestEnv;
use tests::hooks::{
    SCRIPT, add_xtask, call, calls, cargo_exits, chmod, commit, commit_with, developer, foreign,
    hook, install_in, replace_cargo, standin,
};
use tests::process::Running;
use tests::shells;

const BUILDING: &str = "pre-commit: building xtask first, this may take a minute\n";

fn installed() -> TestEnv {
    let env = developer();
    env.xtask(["install-hooks"]).ok();
    env
}

/// How many commits there are, without the first.
fn commits(env: &TestEnv) -> usize {
    env.git(&["rev-list", "HEAD"]).stdout().lines().count() - 1
}

#[test]
fn a_commit_refreshes_the_fixtures_of_what_is_staged() {
    let env = installed();
    commit(&env, "repo", "a b").ok();
    assert_eq!(calls(&env), call("repo", "repo", "a b"));
    assert_eq!(commits(&env), 1);
}

#[test]
fn a_failure_stops_the_commit_with_its_exit_code() {
    let env = installed();
    cargo_exits(&env, 7);
    commit(&env, "repo", "a").fails(1);
    assert_eq!((calls(&env).len(), commits(&env)), (1, 0));
    let run = Running::start(&mut env.command(hook(&env))).wait();
    run.fails(7);
}

#[test]
fn skip_fixtures_skips_it() {
    let env = installed();
    cargo_exits(&env, 1);
    commit_with(&env, "repo", "a", &[("SKIP_FIXTURES", "1")]).ok().stderr_is("");
    assert_eq!((calls(&env).len(), commits(&env)), (0, 1));
    for no in ["", "0"] {
        commit_with(&env, "repo", "b", &[("SKIP_FIXTURES", no)]).fails(1);
        assert_eq!(calls(&env).len(), 1);
    }
}

#[test]
fn a_branch_from_before_the_hook_is_left_in_peace() {
    let env = installed();
    cargo_exits(&env, 1);
    fs::remove_file(env.path("repo/xtask/db.toml")).expect("remove a file");
    commit(&env, "repo", "a").ok().stderr_is("");
    assert_eq!(calls(&env), [""; 0]);
}

#[test]
fn xtask_may_lie_below_the_top_in_every_work_tree() {
    let env = developer();
    for inside in ["it's a $HOME", "sub/-dir"] {
        let directory = format!("repo/{inside}");
        add_xtask(&env, &directory);
        env.git(&["add", "."]);
        env.git(&["commit", "--quiet", "--message=x"]);
        install_in(&env, &directory).ok();
        // CDPATH would lead a `cd` elsewhere that trusts it.
        fs::create_dir_all(env.path("repo/other").join(inside)).expect("make a directory");
        let file = format!("{inside}/new");
        commit_with(&env, "repo", &file, &[("CDPATH", "other")]).ok();
        assert_eq!(calls(&env), call(&directory, "repo", &file));

        let tree = env.path("linked").display().to_string();
        env.git(&["worktree", "add", "--quiet", &tree]);
        commit(&env, "linked", "top").ok();
        assert_eq!(calls(&env), call(&format!("linked/{inside}"), "linked", "top"));
        let mut git = env.command("git");
        git.args(["--git-dir=.git", "--work-tree=.", "commit", "--allow-empty", "-qm", "x"]);
        Running::start(&mut git).wait().ok();
        assert_eq!(calls(&env), call(&directory, "repo", ""));
        env.git(&["worktree", "remove", "--force", &tree]);
        env.git(&["branch", "--quiet", "-D", "linked"]);
        env.xtask(["install-hooks", "--uninstall"]).ok();
    }
    let env = developer();
    add_xtask(&env, "repo/sub");
    install_in(&env, "repo/sub").ok();
    fs::remove_dir_all(env.path("repo/sub")).expect("remove a directory");
    commit(&env, "repo", "a").ok().stderr_is("");
    assert_eq!(calls(&env), [""; 0]);
}

/// Hooks of all shells run ours first, then all of their own, in the same state.
#[test]
fn it_runs_before_the_rest_of_a_hook_and_leaves_no_trace_in_it() {
    let busybox = format!("#!{} sh", shells::find("busybox").display());
    for shebang in ["#!/bin/sh", "#!/usr/bin/env bash", "#!/usr/bin/env dash", &busybox, ""] {
        let env = developer();
        let rest = format!(
            "set -eu\n[ ! -e '{ours}' ] || echo second >&2\n[ -z \"${{built-}}${{newer-}}\" ]\n\
             [ \"$PWD\" = '{repo}' ]\n[ \"$PATH\" = \"$before\" ]\n\
             echo kept=$kept >&2\nexec true",
            ours = env.path("calls").display(),
            repo = env.repo().display(),
        );
        // What is moved before the block by hand is in force while it runs.
        let options = "set -euf; set -o noclobber; IFS=/; kept=1; built=; newer=; before=$PATH\nunset HOME CARGO_TARGET_DIR\n";
        foreign(&env, format!("{shebang}\n{options}{rest}\n"));
        env.xtask(["install-hooks"]).ok();
        let text = fs::read_to_string(hook(&env)).expect("read the hook");
        let (block, others) = split(&text);
        fs::write(hook(&env), others.replacen(options, &format!("{options}{block}"), 1))
            .expect("move the block");
        commit(&env, "repo", "a").ok().stderr_has("second\nkept=1\n").stderr_lacks("parameter");
        assert_eq!(calls(&env), call("repo", "repo", "a"), "{shebang}");

        cargo_exits(&env, 3);
        commit(&env, "repo", "b").fails(1).stderr_lacks("second");
        assert_eq!((calls(&env).len(), commits(&env)), (1, 1), "{shebang}");
    }
}

/// The block of an installed hook, and the hook without it.
fn split(text: &str) -> (String, String) {
    let start = text.find("# >>>").expect("a start");
    let end = text.find("<<<\n").expect("an end") + 4;
    (text[start..end].to_owned(), text[..start].to_owned() + &text[end..])
}

#[test]
fn a_hook_that_ends_in_exec_or_fails_does_so_after_ours() {
    let env = developer();
    foreign(&env, "#!/bin/sh\nexec sh -c 'echo theirs >&2; exit 5'\n");
    env.xtask(["install-hooks"]).ok();
    commit(&env, "repo", "a").fails(1).stderr_has("theirs");
    assert_eq!((calls(&env).len(), commits(&env)), (1, 0));
    Running::start(&mut env.command(hook(&env))).wait().fails(5);
}

#[test]
fn the_rest_of_a_hook_has_all_of_its_input() {
    let env = developer();
    foreign(&env, "#!/bin/sh\ncat\n");
    env.xtask(["install-hooks"]).ok();
    Running::start_with_stdin(&mut env.command(hook(&env)), "for the rest")
        .wait()
        .ok()
        .stdout_is("for the rest");
    assert_eq!(calls(&env), call("repo", "repo", ""));
}

#[test]
fn cargo_is_found_at_home_or_the_way_out_is_named() {
    let env = installed();
    fs::remove_file(env.path("bin/cargo")).expect("it was there");
    let path = shells::debian(&env.path(""), &["cargo"]).display().to_string();
    commit_with(&env, "repo", "a", &[("PATH", &path)]).fails(1).stderr_is(
        "pre-commit: no cargo on PATH or in ~/.cargo/bin to refresh the fixtures: https://rustup.rs has it\n\
         pre-commit: to commit without: SKIP_FIXTURES=1 git commit\n",
    );
    assert_eq!(commits(&env), 0);
    shells::script(&env.path("home/.cargo/bin"), "cargo", &standin(&env));
    commit_with(&env, "repo", "a", &[("PATH", &path)]).ok();
    assert_eq!(calls(&env), call("repo", "repo", "a"));
    let elsewhere = env.path("cargo home").display().to_string();
    fs::rename(env.path("home/.cargo"), &elsewhere).expect("rename");
    commit_with(&env, "repo", "b", &[("PATH", &path), ("CARGO_HOME", &elsewhere)]).ok();
    assert_eq!(calls(&env).len(), 1);
}

/// Gives a file a time so many seconds ago.
fn age(env: &TestEnv, file: &str, seconds: u64) {
    let file = File::options().append(true).create(true).open(env.path(file)).expect("open");
    let time = SystemTime::now() - Duration::from_secs(seconds);
    file.set_modified(time).expect("set the time");
}

#[test]
fn that_it_is_built_first_is_said_when_it_is() {
    let elsewhere = ("CARGO_TARGET_DIR", "elsewhere");
    for (built, variables) in [
        ("repo/target/xtask/xtask", &[][..]),
        ("repo/xtask/target/xtask/xtask", &[]),
        ("repo/elsewhere/xtask/xtask", &[elsewhere]),
    ] {
        let env = installed();
        let commit = |name: &str| commit_with(&env, "repo", name, variables).ok();
        for source in ["src/main.rs", "Cargo.toml"] {
            age(&env, &format!("repo/xtask/{source}"), 100);
        }
        commit("a").stderr_is(BUILDING);
        commit("b").stderr_is(BUILDING);
        env.write(built, "");
        age(&env, built, 50);
        commit("c").stderr_is("");
        let sources = ["xtask/Cargo.toml", "xtask/src/new.rs", "Cargo.lock", "xtask/Cargo.lock"];
        for (n, source) in sources.iter().enumerate() {
            age(&env, built, 50);
            age(&env, &format!("repo/{source}"), 20);
            cargo_exits(&env, 1);
            commit_with(&env, "repo", "d", variables).fails(1).stderr_is(BUILDING);
            cargo_exits(&env, 0);
            commit(&format!("e{n}")).stderr_is(BUILDING);
            // Not again, although Cargo has found nothing to do about it.
            commit(&format!("f{n}")).stderr_is("");
        }
    }
}

#[test]
fn a_target_directory_of_another_place_does_not_count() {
    let env = installed();
    env.write("repo/target/xtask/xtask", "");
    commit_with(&env, "repo", "a", &[("CARGO_TARGET_DIR", "elsewhere")]).ok().stderr_is(BUILDING);
}

/// Cargo itself says nothing, as the alias has `--quiet`.
#[test]
fn that_cargo_waits_for_another_is_said() {
    let env = installed();
    env.write("repo/target/xtask/xtask", "");
    env.write("repo/target/xtask/.cargo-lock", "");
    commit(&env, "repo", "a").ok().stderr_is("");
    let lock = File::open(env.path("repo/target/xtask/.cargo-lock")).expect("open");
    lock.lock().expect("lock");
    commit(&env, "repo", "b").ok().stderr_is(
        "pre-commit: waiting for another cargo: it has the lock on the build directory\n",
    );
    let path = shells::debian(&env.path(""), &["cargo", "perl"]);
    fs::remove_file(path.join("cargo")).unwrap_or_default();
    shells::script(&path, "cargo", &standin(&env));
    let path = path.display().to_string();
    commit_with(&env, "repo", "c", &[("PATH", &path)]).ok().stderr_is("");
    lock.unlock().expect("unlock");
    commit(&env, "repo", "d").ok().stderr_is("");
    assert_eq!(calls(&env).len(), 4);
}

#[test]
fn every_form_of_it_passes_shellcheck() {
    let env = developer();
    replace_cargo(&env);
    foreign(&env, "#!/bin/sh\ntrue\n");
    env.xtask(["install-hooks"]).ok();
    add_xtask(&env, "repo/it's 1");
    let in_directory = env.path("in-directory");
    env.git(&["config", "core.hooksPath", &in_directory.display().to_string()]);
    install_in(&env, "repo/it's 1").ok();
    for file in [hook(&env), in_directory.join("pre-commit")] {
        chmod(&file, 0o644);
        let mut check = env.command("shellcheck");
        Running::start(check.args(["--enable=all", "--exclude=SC2250,SC2312"]).arg(&file))
            .wait()
            .ok();
    }
    assert!(SCRIPT.lines().count() <= 28);
}
