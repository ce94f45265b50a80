//! What bash, zsh and fish show at TAB: keys typed on a terminal, and its screen.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use tests::binaries;
use tests::env::TestEnv;
use tests::pty::{ENTER, Session};
use tests::sets::{developer, snapshots};
use tests::shells::script;
use tests::store::{fingerprint, modes};

const SHELLS: [&str; 3] = ["bash", "zsh", "fish"];

/// Typed into a shell, this would make a file.
const EVIL: &str = "it's $(touch pwned) `touch pwned` & \"x\" \\";

/// A developer whose repository has built the program, with two snapshots.
fn desk(alias: &str) -> TestEnv {
    let env = developer();
    env.write("repo/xtask/Cargo.toml", "# has xtask-db\n");
    env.write("repo/xtask/db.toml", "[source.staging]\napp = 'staging'\n");
    let config = format!("[alias]\n{alias} = 'run --manifest-path xtask/Cargo.toml --'\n");
    env.write("repo/.cargo/config.toml", &config);
    let built = env.path("repo/target/xtask");
    fs::create_dir_all(&built).expect("make a directory");
    fs::copy(binaries::xtask(), built.join("xtask")).expect("copy the program");
    env.xtask(["snapshots", "create", EVIL]).ok();
    env
}

/// Writes the script of a shell, as `cargo xtask completions` does.
fn completions(env: &TestEnv, shell: &str) -> String {
    let mut xtask = env.command(env.path("repo/target/xtask/xtask"));
    xtask.args(["completions", shell]).env("CARGO_MANIFEST_DIR", env.path("repo/xtask"));
    let output = xtask.env("CARGO_PKG_NAME", "xtask-db").output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let file = env.path(format!("home/ours.{shell}"));
    fs::write(&file, output.stdout).expect("write");
    format!("source '{}'\n", file.display())
}

/// Another completion of cargo, and a cargo that shows its arguments.
fn others(shell: &str) -> &'static str {
    match shell {
        "bash" => {
            "_theirs() { COMPREPLY=($(compgen -W 'build theirs' -- \"$2\")); }\n\
             complete -F _theirs cargo\n"
        }
        "zsh" => {
            "autoload -Uz compinit; compinit -D -u\n\
             _theirs() { compadd build theirs }\ncompdef _theirs cargo\n"
        }
        _ => "complete -c cargo -n 'test (count (commandline -opc)) -eq 1' -f -a 'build theirs'\n",
    }
}

/// An interactive shell in a directory, which has read `rc`.
fn start(env: &TestEnv, shell: &str, directory: &Path, rc: &str) -> Session {
    let (file, common) = match shell {
        "fish" => (
            "home/.config/fish/config.fish",
            "set -g fish_greeting\nfunction fish_prompt; echo -n '$ '; end\n\
             function cargo; printf '<%s>' $argv; echo; end\n",
        ),
        "zsh" => ("home/.zshrc", "PS1='$ '\ncargo() { printf '<%s>' \"$@\"; echo }\n"),
        _ => ("home/.bashrc", "PS1='$ '\ncargo() { printf '<%s>' \"$@\"; echo; }\n"),
    };
    env.write(file, &format!("{common}{rc}"));
    let mut command: Command = env.command(shell);
    command.current_dir(directory);
    match shell {
        "bash" => command.args(["--noprofile", "--rcfile"]).arg(env.path(file)).arg("-i"),
        // Not the files of this machine.
        "zsh" => command.args(["-d", "-i"]),
        _ => command.arg("-i"),
    };
    let session = Session::spawn_sized(&command, 30, 140);
    session.wait_for(|screen| screen.trim() == "$", "the prompt");
    session
}

/// Types on an empty screen, and waits for the line that this becomes.
#[track_caller]
fn types(session: &Session, keys: &str, line: &str) {
    session.send("\x15\x0c");
    session.wait_for(|screen| screen.trim() == "$", "an empty screen");
    session.send(keys);
    let whole = format!("$ {line}");
    let is_there = |screen: &str| screen.lines().next().is_some_and(|it| it.trim_end() == whole);
    session.wait_for(is_there, &format!("{line:?} after {keys:?}"));
}

#[test]
fn commands_flags_and_names_are_completed_in_each_shell() {
    let env = desk("xtask");
    let newest = snapshots(&env)[0]["name"].as_str().expect("a name").to_owned();
    let before = (fingerprint(&env.data()), modes(&env.repo()));
    for shell in SHELLS {
        let rc = others(shell).to_owned() + &completions(&env, shell);
        let session = start(&env, shell, &env.repo().join("xtask"), &rc);
        types(&session, "cargo xtask rest\t", "cargo xtask restore-db");
        types(&session, "cargo -q +nightly xtask doc\t", "cargo -q +nightly xtask doctor");
        types(&session, "cargo xtask pull-db --if-\t", "cargo xtask pull-db --if-older");
        types(&session, "cargo xtask pull-db --source s\t", "cargo xtask pull-db --source staging");
        types(&session, "cargo xtask pull-db --source=s\t", "cargo xtask pull-db --source=staging");
        types(&session, "cargo xtask pull-db --only d\t", "cargo xtask pull-db --only data.db");
        let typed = &newest[..newest.len() - 2];
        let pin = "cargo xtask snapshots pin";
        types(&session, &format!("{pin} {typed}\t"), &format!("{pin} {newest}"));
        types(&session, "cargo xtask snapshots diff cur\t", "cargo xtask snapshots diff current");
        // The list of a shell that shows descriptions has the kind.
        session.send("\x15\x0ccargo xtask restore-db \t\t");
        session.wait_for_text(if shell == "bash" { "Z  " } else { "manual" });
    }
    assert_eq!(before, (fingerprint(&env.data()), modes(&env.repo())));
    assert!(env.fly_invocations().is_empty());
}

#[test]
fn a_hostile_label_stays_one_word() {
    let env = desk("xtask");
    for shell in SHELLS {
        let rc = others(shell).to_owned() + &completions(&env, shell);
        let session = start(&env, shell, &env.repo(), &rc);
        session.send("cargo xtask restore-db it\t");
        session.wait_for_text("pwned");
        session.send(ENTER);
        session.wait_for_text(&format!("<xtask><restore-db><{EVIL}>"));
        // In a double quote, bash could not quote it.
        session.send("\x0ccargo xtask restore-db \"it\t");
        if shell == "bash" {
            session.send("x\"");
        }
        session.send(ENTER);
        let is_whole =
            format!("<xtask><restore-db><{}>", if shell == "bash" { "itx" } else { EVIL });
        session.wait_for_text(&is_whole);
    }
    assert!(!env.repo().join("pwned").exists());
}

#[test]
fn other_commands_of_cargo_are_completed_as_before_whichever_is_loaded_first() {
    let env = desk("xtask");
    for shell in SHELLS {
        let (ours, theirs) = (completions(&env, shell), others(shell));
        for rc in [format!("{ours}{theirs}"), format!("{theirs}{ours}")] {
            let session = start(&env, shell, &env.repo(), &rc);
            types(&session, "cargo bu\t", "cargo build");
            types(&session, "cargo xtask rest\t", "cargo xtask restore-db");
            types(&session, "cargo th\t", "cargo theirs");
        }
    }
    // As bash-completion does it, at the first TAB.
    let lazy = others("bash")
        .replace("complete -F", "_completion_loader() { complete -F")
        .trim_end()
        .to_owned()
        + "; return 124; }\n";
    let session = start(&env, "bash", &env.repo(), &(lazy + &completions(&env, "bash")));
    types(&session, "cargo xtask rest\t", "cargo xtask restore-db");
    types(&session, "cargo bu\t", "cargo build");
    types(&session, "cargo xtask rest\t", "cargo xtask restore-db");
}

#[test]
fn an_alias_of_another_name_is_completed() {
    let env = desk("data-1");
    for shell in SHELLS {
        let rc = others(shell).to_owned() + &completions(&env, shell);
        let session = start(&env, shell, &env.repo(), &rc);
        types(&session, "cargo data-1 rest\t", "cargo data-1 restore-db");
        session.send("\x15\x0ccargo xtask rest\tx");
        session.wait_for(|screen| screen.trim() == "$ cargo xtask restx", "no completion");
    }
}

/// Nor is an error shown of a program that does not know the question.
#[test]
fn nothing_is_run_where_the_tool_is_not() {
    let env = desk("xtask");
    env.write("other/xtask/Cargo.toml", "# another tool\n");
    fs::create_dir_all(env.path("other/target/xtask")).expect("make a directory");
    script(&env.path("other/target/xtask"), "xtask", "touch run; echo restore-db");
    for shell in SHELLS {
        let rc = others(shell).to_owned() + &completions(&env, shell);
        for directory in [env.path("home"), env.path("other")] {
            let session = start(&env, shell, &directory, &rc);
            session.send("cargo xtask rest\tx");
            session.wait_for(|screen| screen.trim() == "$ cargo xtask restx", "no completion");
        }
    }
    assert!(!env.path("other/run").exists());
    // An earlier version does not know the question, and says so on standard error.
    let program = env.path("repo/target/xtask/xtask");
    fs::remove_file(&program).expect("remove");
    script(&env.path("repo/target/xtask"), "xtask", "echo unknown >&2; exit 2");
    assert!(program.metadata().expect("it is there").permissions().mode() & 0o100 != 0);
    for shell in SHELLS {
        let rc = others(shell).to_owned()
            + &format!("source '{}'\n", env.path(format!("home/ours.{shell}")).display());
        let session = start(&env, shell, &env.repo(), &rc);
        session.send("cargo xtask rest\tx");
        session.wait_for(|screen| screen.trim() == "$ cargo xtask restx", "no completion");
    }
}
