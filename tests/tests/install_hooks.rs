//! Where `install-hooks` puts what, and that it leaves everything else alone.

use std::fs;
use std::os::unix::fs::symlink;

use tests::env::TestEnv;
use tests::hooks::{
    SCRIPT, call, calls, chmod, commit, developer, foreign, hook, install_in, mode,
};
use tests::process::Running;

const INSTALLED: &str = "   Installed the pre-commit hook .git/hooks/pre-commit\n   \
                         Installed git diff of fixtures as text\n\
                         hint: SKIP_FIXTURES=1 git commit skips the hook\n";

fn read(path: impl AsRef<std::path::Path>) -> Vec<u8> {
    fs::read(path).expect("read a file")
}

#[test]
fn it_says_what_it_did_and_then_that_there_is_nothing_to_do() {
    let env = developer();
    fs::remove_dir_all(env.path("repo/.git/hooks")).expect("git has made one");
    env.xtask(["install-hooks"]).ok().stderr_is(INSTALLED).stdout_is("");
    assert_eq!(String::from_utf8_lossy(&read(hook(&env))), SCRIPT);
    assert_eq!(mode(&hook(&env)) & 0o700, 0o700);
    env.xtask(["install-hooks"]).ok().stderr_is(
        "        Kept the pre-commit hook .git/hooks/pre-commit, which is up to date\n        \
         Kept git diff of fixtures as text, which is up to date\n\
         hint: SKIP_FIXTURES=1 git commit skips the hook\n",
    );
    env.xtask(["install-hooks", "--uninstall"]).ok().stderr_is(
        "     Removed the pre-commit hook .git/hooks/pre-commit\n     \
         Removed git diff of fixtures as text\n",
    );
    assert!(!hook(&env).exists());
    env.xtask(["install-hooks", "--uninstall"]).ok().stderr_is(
        "       Found nothing of ours in .git/hooks/pre-commit\n       \
         Found no git diff of fixtures as text\n",
    );
}

#[test]
fn a_hook_that_is_there_comes_back_byte_for_byte() {
    let env = developer();
    let hooks: [&[u8]; 8] = [
        b"#!/bin/sh\n",
        b"#!/bin/sh\n\n",
        b"#!/bin/sh",
        b"#!/usr/bin/env bash\nset -e\n\n# \xe9\xff\necho 'a\r\nb'\nexec true",
        b"echo no shebang\n",
        b"",
        b"\n\n#!/bin/sh\n",
        b"#!/bin/busybox sh\n\r\n\r\n",
    ];
    for content in hooks {
        let shown = String::from_utf8_lossy(content);
        foreign(&env, content);
        env.xtask(["install-hooks"]).ok().stderr_has("Installed the pre-commit hook");
        let installed = read(hook(&env));
        assert!(installed.len() > content.len(), "{shown:?}");
        env.xtask(["install-hooks"]).ok().stderr_has("Kept the pre-commit hook");
        assert!(read(hook(&env)) == installed, "{shown:?}");
        env.xtask(["install-hooks", "--uninstall"])
            .ok()
            .stderr_has("Removed our block from .git/hooks/pre-commit; the rest of it stays\n");
        assert!(read(hook(&env)) == content, "{shown:?}");
        assert_eq!(mode(&hook(&env)), 0o755);
    }
    assert_eq!(fs::read_dir(env.path("repo/.git/hooks")).expect("list").count(), {
        let fresh = TestEnv::new();
        fs::read_dir(fresh.path("repo/.git/hooks")).expect("list").count() + 1
    });
}

#[test]
fn an_old_block_is_updated_where_it_was_moved_to() {
    let env = developer();
    let block = SCRIPT.strip_prefix("#!/bin/sh\n\n").expect("a header");
    let old = block.replace("building xtask first", "building");
    foreign(&env, format!("#!/bin/sh\necho first\n{old}echo last\n"));
    env.xtask(["install-hooks"])
        .ok()
        .stderr_has("     Updated the pre-commit hook .git/hooks/pre-commit\n");
    let wanted = format!("#!/bin/sh\necho first\n{block}echo last\n");
    assert_eq!(String::from_utf8_lossy(&read(hook(&env))), wanted);
}

#[test]
fn what_our_block_cannot_go_into_is_left_alone() {
    let env = developer();
    let start = SCRIPT.lines().nth(2).expect("the start of the block");
    let by_hand = "hint: add to it by hand, so that it fails when this does: \
                   cargo xtask refresh-fixtures --staged\n";
    let cases: [(&[u8], &str, &str); 4] = [
        (b"#!/usr/bin/env python3\nprint(1)\n", "is not a shell script; it was", by_hand),
        (b"\x7fELF\0\0", "is not a shell script; it was not changed", by_hand),
        (b"#!/bin/sh\r\necho\r\n", "has Windows line endings", "hint: perl -pi -e "),
        (&[b"#!/bin/sh\n", start.as_bytes()].concat(), "is broken", "hint: it must have one"),
    ];
    for (content, why, hint) in cases {
        foreign(&env, content);
        let path = format!("{}", hook(&env).display());
        let refused = env.xtask(["install-hooks"]).fails(1).stderr_has(why).stderr_has(hint);
        assert!(refused.stderr.contains(&path), "{refused}");
        assert!(read(hook(&env)) == content);
        // The diff does not depend on the hook.
        env.git(&["config", "--get", "diff.xtask-sqlite.textconv"]);
        env.git(&["config", "--remove-section", "diff.xtask-sqlite"]);
    }
    env.xtask(["install-hooks", "--uninstall"]).fails(1).stderr_has("is broken");
}

#[test]
fn a_link_stays_and_what_it_leads_to_is_edited() {
    let env = developer();
    env.write("repo/scripts/check", "#!/bin/sh\necho checked >&2\n");
    chmod(&env.path("repo/scripts/check"), 0o750);
    fs::create_dir_all(env.path("repo/.git/hooks")).expect("make a directory");
    symlink("../../scripts/check", hook(&env)).expect("make a link");
    env.xtask(["install-hooks"])
        .ok()
        .stderr_has(".git/hooks/pre-commit is a link: the file is scripts/check\n")
        .stderr_has("hint: commit scripts/check, so that others have the hook too\n");
    assert!(hook(&env).is_symlink());
    assert_eq!(mode(&hook(&env)), 0o750);
    commit(&env, "repo", "a").ok().stderr_has("checked");
    assert_eq!(calls(&env), call("repo", "repo", "a"));
    env.xtask(["install-hooks", "--uninstall"]).ok();
    assert_eq!(read(env.path("repo/scripts/check")), b"#!/bin/sh\necho checked >&2\n");

    fs::remove_file(env.path("repo/scripts/check")).expect("remove a file");
    let rm = format!("hint: rm {}\n", hook(&env).display());
    env.xtask(["install-hooks"]).fails(1).stderr_has("is a dangling symbolic link").stderr_has(&rm);
}

#[test]
fn a_hook_that_git_ignored_is_made_executable() {
    let env = developer();
    foreign(&env, "#!/bin/sh\n");
    chmod(&hook(&env), 0o644);
    let warning = "warning: git ignored .git/hooks/pre-commit, because it was not executable; \
                   now all of it runs\n";
    env.xtask(["install-hooks"]).ok().stderr_has(warning);
    assert_eq!(mode(&hook(&env)), 0o755);
    commit(&env, "repo", "a").ok();
    assert_eq!(calls(&env).len(), 1);
    chmod(&hook(&env), 0o640);
    env.xtask(["install-hooks"]).ok().stderr_has("Updated").stderr_has(warning);
    assert_eq!(mode(&hook(&env)), 0o750);
}

#[test]
fn the_directory_is_the_one_that_git_is_told_of() {
    let env = developer();
    let outside = env.path("my hooks");
    let outside_text = outside.display().to_string();
    let warning = format!(
        "warning: the hook is for every repository that has its hooks in {outside_text}; \
         in one without xtask/db.toml it does nothing\n"
    );
    let commit_it = "hint: commit .githooks/pre-commit, so that others have the hook too\n";
    for (setting, file, said) in [
        (".githooks", "repo/.githooks/pre-commit", commit_it),
        (&*outside_text, "my hooks/pre-commit", &*warning),
        ("~/hooks", "home/hooks/pre-commit", "for every repository that has its hooks in "),
        (".husky/_", "repo/.husky/pre-commit", "hint: commit .husky/pre-commit, so"),
    ] {
        env.git(&["config", "core.hooksPath", setting]);
        env.xtask(["install-hooks"]).ok().stderr_has(said);
        assert!(env.path(file).exists(), "{setting}");
        if setting == ".husky/_" {
            // As Husky's own do, it starts what is in the directory above.
            let run = "#!/bin/sh\nexec sh -e \"$(dirname \"$(dirname \"$0\")\")/pre-commit\"\n";
            env.write("repo/.husky/_/pre-commit", run);
            chmod(&env.path("repo/.husky/_/pre-commit"), 0o755);
        }
        commit(&env, "repo", &setting.replace(['/', '~', '.'], "-")).ok();
        assert_eq!(calls(&env).len(), 1, "{setting}");
        env.xtask(["install-hooks", "--uninstall"]).ok();
        assert!(!env.path(file).exists(), "{setting}");
    }
    env.write("repo/.gitignore", ".githooks\n");
    env.git(&["config", "core.hooksPath", ".githooks"]);
    env.xtask(["install-hooks"]).ok().stderr_lacks("hint: commit");
    env.git(&["config", "core.hooksPath", "/dev/null"]);
    env.xtask(["install-hooks"])
        .fails(1)
        .stderr_has("git looks for hooks in /dev/null, which is not a directory")
        .stderr_has("hint: git config --show-origin core.hooksPath");
}

#[test]
fn linked_work_trees_share_the_hook() {
    let env = developer();
    let tree = env.path("linked").display().to_string();
    env.git(&["worktree", "add", "--quiet", &tree]);
    let shared = hook(&env).display().to_string();
    install_in(&env, "linked").ok().stderr_has(&format!("hook {shared}\n")).stderr_lacks("warn");
    commit(&env, "linked", "a").ok();
    assert_eq!(calls(&env), call("linked", "linked", "a"));
    env.xtask(["install-hooks"]).ok().stderr_has("Kept the").stderr_has("Kept git diff");
    commit(&env, "repo", "b").ok();
    assert_eq!(calls(&env), call("repo", "repo", "b"));
}

#[test]
fn without_a_repository_it_says_how_to_make_one() {
    let env = TestEnv::new();
    fs::remove_dir_all(env.path("repo/.git")).expect("remove the repository");
    let said = env.xtask(["install-hooks"]).fails(1);
    let repo = env.repo().display().to_string();
    said.stderr_has(&format!("error: {repo} is not in the work tree of a git repository\n"))
        .stderr_has("caused by: not a git repository")
        .stderr_has(&format!("hint: git init {repo}\n"));
}

#[test]
fn other_attributes_and_settings_stay() {
    let env = developer();
    let config = read(env.path("repo/.git/config"));
    let attributes = env.path("repo/.git/info/attributes");
    env.write("repo/.git/info/attributes", "*.png binary\né -text");
    env.xtask(["install-hooks"]).ok().stderr_has("Installed git diff");
    env.git(&["config", "diff.xtask-sqlite.textconv", "old"]);
    env.xtask(["install-hooks"]).ok().stderr_has("     Updated git diff");
    let checked = env.git(&["check-attr", "diff", "tests/fixtures/a.db", "b.db", "a.png"]);
    checked.stdout_is(
        "tests/fixtures/a.db: diff: xtask-sqlite\nb.db: diff: unspecified\na.png: diff: unset\n",
    );
    env.xtask(["install-hooks", "--uninstall"]).ok().stderr_has("Removed git diff");
    assert_eq!(String::from_utf8_lossy(&read(&attributes)), "*.png binary\né -text");
    assert!(read(env.path("repo/.git/config")) == config);

    fs::remove_dir_all(env.path("repo/.git/info")).expect("remove a directory");
    env.xtask(["install-hooks"]).ok();
    env.xtask(["install-hooks", "--uninstall"]).ok();
    assert!(!attributes.exists());
}

#[test]
fn a_directory_of_the_work_tree_with_a_strange_name_is_matched_alone() {
    let env = developer();
    let directory = "repo/a \"b\" [c]*\\d";
    tests::hooks::add_xtask(&env, directory);
    install_in(&env, directory).ok();
    let mut check = env.command("git");
    check.args([
        "check-attr",
        "-z",
        "diff",
        "tests/fixtures/a.db",
        "a \"b\" c\\d/tests/fixtures/a.db",
    ]);
    check.arg("a \"b\" [c]*\\d/tests/fixtures/a.db");
    let said = Running::start(&mut check).wait().ok().stdout();
    let values: Vec<&str> = said.split_terminator('\0').skip(2).step_by(3).collect();
    assert_eq!(values, ["unspecified", "unspecified", "xtask-sqlite"]);
}
