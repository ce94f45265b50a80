//! `restore-db` on a terminal: what its user sees, and what each key does.

use tests::databases;
use tests::env::TestEnv;
use tests::process::{Running, command};
use tests::pty::{CTRL_C, DOWN, ENTER, ESC, Session, UP};
use tests::sets::{Set, assert_same, change, content, developer, named, pull};

/// A live set that differs from the newest pull, which differs from the first.
struct Desk {
    env: TestEnv,
    live: Set,
    /// The pulls, newest first.
    pulls: Vec<String>,
}

impl Desk {
    fn new() -> Desk {
        let env = developer();
        databases::create(&env.production().join("tenant_juno.db"), 20, 3);
        pull(&env);
        change(&env.data().join("data.db"));
        env.xtask(["snapshots", "create"]).ok();
        change(&env.data().join("data.db"));
        Desk { live: content(&env.data()), pulls: named(&env, "pull"), env }
    }

    fn start(&self, args: &[&str]) -> Session {
        Session::spawn_sized(&self.env.xtask_command(args), 30, 200)
    }

    fn pick(&self) -> Session {
        let session = self.start(&["restore-db"]);
        session.wait_for_text("enter to select");
        session
    }

    /// Exactly these lines, once the screen has this text.
    #[track_caller]
    fn screen_is(&self, session: &Session, until: &str, lines: &[&str]) {
        let screen = self.env.normalize(&session.wait_for_text(until));
        let screen: Vec<&str> = screen.lines().map(str::trim_end).collect();
        assert_eq!(screen, lines);
    }

    /// After an answer that is none.
    #[track_caller]
    fn unchanged(&self, session: &Session) {
        assert_eq!(session.wait_exit(), 130, "{}", session.screen());
        let screen = session.wait_for_text("; nothing was changed");
        let said = ["error: declined; ", "error: interrupted; "];
        assert!(said.iter().any(|said| screen.contains(said)), "{screen}");
        assert_same(&content(&self.env.data()), &self.live);
        assert_eq!(named(&self.env, "before-restore"), [""; 0]);
    }
}

const MANUAL: &str = "backup_<TIME> just now   manual          3 db  <SIZE>";
const SECOND: &str = "backup_<TIME> just now   pull            3 db  <SIZE> current";
const FIRST: &str = "backup_<TIME> just now   pull            2 db  <SIZE>";
const KEYS: &str = "[↑↓ to move, enter to select, type to filter]";

#[test]
fn the_picker_shows_the_newest_first_and_restores_what_is_chosen() {
    let desk = Desk::new();
    let session = desk.pick();
    let (manual, second, first) =
        (format!("> {MANUAL}"), format!("  {SECOND}"), format!("  {FIRST}"));
    desk.screen_is(&session, KEYS, &["? Restore which snapshot?", &manual, &second, &first, KEYS]);
    session.send(DOWN);
    session.send(DOWN);
    session.wait_for_text(&format!("> {}", desk.pulls[1]));
    session.send(ENTER);
    let chosen = format!("? Restore which snapshot? {FIRST}");
    let question = "Replace 2 databases in <ROOT>/repo/data, remove tenant_juno.db (saved first), \
                    to get backup_<TIME>?";
    let asked = format!("? {question} (y/N)");
    desk.screen_is(&session, "(y/N)", &[&chosen, &asked]);
    session.send("y");
    session.send(ENTER);
    assert_eq!(session.wait_exit(), 0);
    let chosen = format!("? Restore which snapshot? {FIRST}");
    let answered = format!("? {question} Yes");
    desk.screen_is(
        &session,
        "hint: ",
        &[
            &chosen,
            &answered,
            "       Saved the previous data as backup_<TIME>",
            "     Removed tenant_juno.db, which the snapshot does not have",
            "     Current backup_<TIME> (2 databases)",
            "hint: cargo xtask restore-db --undo brings back the previous data",
        ],
    );
    assert_same(&content(&desk.env.data()), &content(&desk.env.data().join(&desk.pulls[1])));
    desk.env.xtask(["restore-db", "--undo", "--yes"]).ok();
    assert_same(&content(&desk.env.data()), &desk.live);
}

#[test]
fn the_arrows_go_both_ways() {
    let desk = Desk::new();
    let session = desk.pick();
    for key in [DOWN, DOWN, UP, ENTER] {
        session.send(key);
    }
    session.wait_for_text("(y/N)");
    session.send("y\r");
    assert_eq!(session.wait_exit(), 0);
    assert_same(&content(&desk.env.data()), &content(&desk.env.data().join(&desk.pulls[0])));
}

#[test]
fn typing_filters() {
    let desk = Desk::new();
    let session = desk.pick();
    session.send("2 db");
    session.wait_for(|screen| !screen.contains("3 db"), "one line");
    desk.screen_is(
        &session,
        KEYS,
        &["? Restore which snapshot? 2 db", &format!("> {FIRST}"), KEYS],
    );
    session.send(ENTER);
    session.wait_for_text("(y/N)");
    session.send("y\r");
    assert_eq!(session.wait_exit(), 0);
    assert_same(&content(&desk.env.data()), &content(&desk.env.data().join(&desk.pulls[1])));
}

#[test]
fn choosing_nothing_changes_nothing() {
    let desk = Desk::new();
    for key in [ESC, CTRL_C] {
        let session = desk.pick();
        session.send(key);
        desk.unchanged(&session);
    }
    let session = desk.pick();
    session.send("no such snapshot");
    session.wait_for(|screen| !screen.contains("backup_"), "no line");
    session.send(ENTER);
    session.send(ESC);
    desk.unchanged(&session);
}

#[cfg(target_os = "linux")]
#[test]
fn a_signal_at_a_question_gives_the_terminal_back() {
    let desk = Desk::new();
    for (args, asks) in [(&["restore-db"][..], KEYS), (&["restore-db", "--latest"], "(y/N)")] {
        let xtask = desk.env.xtask_command(args);
        let mut shell = desk.env.command("sh");
        shell.args(["-c", "\"$@\"; echo \"code $?\"; stty -a", "sh"]);
        let session =
            Session::spawn_sized(shell.arg(xtask.get_program()).args(xtask.get_args()), 30, 200);
        session.wait_for_text(asks);
        let (pid, _) = (desk.env.processes().into_iter().find(|(_, name)| name == "xtask"))
            .expect("it asks, and so it runs");
        Running::start(command("kill").args(["-INT", &pid.to_string()])).wait().ok();
        let screen = session.wait_for_text("icanon");
        assert!(screen.contains("error: interrupted; nothing was changed\ncode 130\n"), "{screen}");
        assert!(screen.contains(" icanon") && screen.contains(" echo "), "{screen}");
        assert!(session.shows_cursor());
        assert_same(&content(&desk.env.data()), &desk.live);
    }
}

#[test]
fn every_answer_but_yes_changes_nothing() {
    let desk = Desk::new();
    for answer in ["n\r", "\r", ESC, CTRL_C] {
        let session = desk.pick();
        session.send(DOWN);
        session.send(ENTER);
        session.wait_for_text("(y/N)");
        session.send(answer);
        desk.unchanged(&session);
    }
}

#[test]
fn a_terminal_is_asked_also_where_flags_choose() {
    let desk = Desk::new();
    for flag in ["--latest", "--undo"] {
        let session = desk.start(&["restore-db", flag]);
        let asked = session.wait_for_text("(y/N)");
        assert!(!asked.contains("which snapshot"), "{asked}");
        session.send("n\r");
        desk.unchanged(&session);
    }
    let name = &named(&desk.env, "manual")[0];
    let session = desk.start(&["snapshots", "rm", name]);
    desk.screen_is(&session, "(y/N)", &["? Remove backup_<TIME> (<SIZE>)? (y/N)"]);
    session.send("n\r");
    desk.unchanged(&session);
    assert_eq!(&named(&desk.env, "manual")[0], name);
}

#[test]
fn a_damaged_snapshot_is_shown_as_such_and_refused() {
    let desk = Desk::new();
    std::fs::remove_file(desk.env.data().join(&desk.pulls[1]).join("data.db")).expect("remove");
    let session = desk.pick();
    let listed = session.screen();
    assert!(listed.contains("  damaged: data.db is missing\n"), "{listed}");
    session.send("is missing\r");
    assert_eq!(session.wait_exit(), 1);
    let screen = session.wait_for_text("hint:");
    assert!(screen.contains("cannot be restored: data.db is missing"), "{screen}");
    assert_same(&content(&desk.env.data()), &desk.live);
}
