//! Who wants no colours gets none, wherever they come from: messages, lists, help and questions.

use std::process::Command;

use tests::env::TestEnv;
use tests::process::Running;
use tests::pty::{ESC, Session};

/// Commands whose output has colours on a terminal.
fn commands(env: &TestEnv) -> [Command; 3] {
    env.db_toml("include = '*.db'\n");
    [
        env.xtask_command(["pull-db"]),
        env.xtask_command(["doctor", "--via", "local:production"]),
        env.xtask_command(["pull-db", "--help"]),
    ]
}

#[test]
fn a_terminal_has_colours_unless_somebody_wants_none() {
    let env = TestEnv::new();
    for (variables, is_coloured) in [
        (&[("TERM", "xterm-256color")][..], true),
        (&[("TERM", "xterm-256color"), ("NO_COLOR", "1")], false),
        (&[("TERM", "dumb")], false),
    ] {
        for mut command in commands(&env) {
            command.env_remove("NO_COLOR").envs(variables.iter().copied());
            let session = Session::spawn(&command);
            session.wait_exit();
            assert_eq!(session.has_colors(), is_coloured, "{variables:?}\n{}", session.screen());
        }
    }
}

#[test]
fn a_file_has_colours_only_if_they_are_forced() {
    let env = TestEnv::new();
    for (variables, is_coloured) in [
        (&[][..], false),
        (&[("CLICOLOR_FORCE", "1")], true),
        (&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")], false),
    ] {
        for mut command in commands(&env) {
            command.env_remove("NO_COLOR").envs(variables.iter().copied());
            let output = Running::start(&mut command).wait();
            let all = output.stdout() + &output.stderr;
            assert_eq!(all.contains("\x1b["), is_coloured, "{variables:?}\n{all:?}");
        }
    }
}

#[test]
fn a_question_has_no_colours_either() {
    let env = TestEnv::with_database("CREATE TABLE t (a)");
    env.db_toml("[[sanitize]]\ntable = 't'\nset.a = \"''\"\n");
    for (variables, is_coloured) in [
        (&[("TERM", "xterm-256color")][..], true),
        (&[("TERM", "xterm-256color"), ("NO_COLOR", "1")], false),
        (&[("TERM", "dumb")], false),
    ] {
        let mut command = env.local_pull_command(&["--no-sanitize"]);
        command.env_remove("NO_COLOR").envs(variables.iter().copied());
        let session = Session::spawn(&command);
        session.wait_for_text("Pull production data without masking its secrets?");
        assert_eq!(session.has_colors(), is_coloured, "{variables:?}\n{}", session.screen());
        session.send(ESC);
        session.wait_exit();
    }
}
