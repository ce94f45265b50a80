//! `restore-db` on a terminal: what its user sees, and what each key does.

use tests::databases;
use tests::env::TestEnv;
use tests::process::{Running, command};
use tests::pty::{CTRL_C, DOWN, ENTER, ESC, Session, UP};
use tests::sets::{Set, assert_same, change, content, developer, named, pull, snapshots};

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
        session.wait_for_text("type to filter");
        session
    }

    /// Exactly these lines, once the screen has this text.
    #[track_caller]
    fn screen_is(&self, session: &Session, until: &str, lines: &[&str]) {
        assert_eq!(self.plain(&session.wait_for_text(until)), lines);
    }

    /// The lines of a screen, with one blank between two words and the newest snapshot as `<0>`.
    fn plain(&self, screen: &str) -> Vec<String> {
        let mut screen = self.env.normalize(screen);
        for (i, short) in short_names(&self.env).iter().enumerate() {
            screen = screen.replace(short, &format!("<{i}>"));
        }
        let one_blank = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        screen.lines().map(one_blank).collect()
    }

    /// After an answer that is none.
    #[track_caller]
    fn unchanged(&self, session: &Session) {
        assert_eq!(session.wait_exit(), 130, "{}", session.screen());
        let screen = session.wait_for_text("Cancelled; nothing changed");
        assert!(!screen.contains("error"), "{screen}");
        assert_same(&content(&self.env.data()), &self.live);
        assert_eq!(named(&self.env, "before-restore"), [""; 0]);
    }
}

/// The ends of the names by which a list calls the snapshots, newest first.
fn short_names(env: &TestEnv) -> Vec<String> {
    let names = snapshots(env);
    let names: Vec<&str> = names.iter().filter_map(|it| it["name"].as_str()).collect();
    let short = |name: &&str| {
        let end = |n: usize| &name[name.len() - n..];
        let is_unique = |n: &usize| names.iter().filter(|it| it.ends_with(end(*n))).count() == 1;
        end((4..=name.len()).find(is_unique).expect("names differ")).to_owned()
    };
    names.iter().map(short).collect()
}

const MANUAL: &str = "<0> <WHEN> manual 3 <SIZE>";
const SECOND: &str = "● <1> <WHEN> pull 3 <SIZE> current, edited since";
const FIRST: &str =
    "↶ <2> <WHEN> pull 2 <SIZE> what --undo brings back at least 1 of 3 differ from now";
const KEYS: &str = "[↑↓ · type to filter · enter · esc]";

#[test]
fn the_picker_shows_the_newest_first_and_restores_what_is_chosen() {
    let desk = Desk::new();
    let session = desk.pick();
    let (manual, second, first) = (format!("> {MANUAL}"), SECOND, FIRST);
    desk.screen_is(&session, KEYS, &["? Restore which snapshot?", &manual, second, first, KEYS]);
    session.send(DOWN);
    session.send(DOWN);
    session.wait_for_text("> ↶");
    session.send(ENTER);
    let chosen = "? Restore which snapshot? <2> (<WHEN>, pull)";
    let question = "Restore the pull of <WHEN> over 2 databases, remove tenant_juno.db? Current \
                    ones are saved first.";
    let asked = format!("? {question} (y/N)");
    desk.screen_is(&session, "(y/N)", &[chosen, &asked]);
    session.send("y");
    session.send(ENTER);
    assert_eq!(session.wait_exit(), 0);
    let answered = format!("? {question} Yes");
    desk.screen_is(
        &session,
        "hint: ",
        &[
            "? Restore which snapshot? <3> (<WHEN>, pull)",
            &answered,
            "Saved the previous data as backup_<TIME>",
            "Removed tenant_juno.db, which the snapshot does not have",
            "Current backup_<TIME> (2 databases)",
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
    session.send("UNDO");
    session.wait_for(|screen| !screen.contains("manual"), "one line");
    desk.screen_is(
        &session,
        KEYS,
        &["? Restore which snapshot? UNDO", &format!("> {FIRST}"), KEYS],
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
        assert_eq!(session.screen().trim(), "Cancelled; nothing changed");
    }
    let session = desk.pick();
    session.send("no such snapshot");
    session.wait_for_text("> nothing matches: change what you typed");
    session.send(ENTER);
    // It is asked again, without that text.
    session.wait_for(|screen| screen.contains("manual"), "all lines");
    session.send(ESC);
    desk.unchanged(&session);
    assert_eq!(session.screen().trim(), "Cancelled; nothing changed");
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
        assert!(!session.screen().contains("esc]"), "{}", session.screen());
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
    assert!(listed.contains("  damaged: data.db is missing  what --undo"), "{listed}");
    session.send("is missing\r");
    assert_eq!(session.wait_exit(), 1);
    let screen = session.wait_for_text("hint:");
    assert!(screen.contains("cannot be restored: data.db is missing"), "{screen}");
    assert_same(&content(&desk.env.data()), &desk.live);
}

#[test]
fn the_current_snapshot_is_not_the_one_that_enter_takes() {
    let env = developer();
    change(&env.production().join("data.db"));
    pull(&env);
    let session = env.xtask_on_pty(["restore-db"]);
    let screen = session.wait_for_text("type to filter");
    let row = |start: &str| screen.lines().any(|line| line.starts_with(start));
    assert!(row("  ● ") && row("> ↶ "), "{screen}");
    assert!(screen.contains("current  same as now") && screen.contains("1 of 2 differ from now"));
    session.send(ESC);
    assert_eq!(session.wait_exit(), 130);
}

#[test]
fn a_narrow_terminal_shows_each_snapshot_on_one_line() {
    let desk = Desk::new();
    let name = named(&desk.env, "manual").remove(0);
    let label = "a label that is longer than any column should ever be";
    desk.env.xtask(["snapshots", "rename", &name, label]).ok();
    for columns in [200, 100, 60, 40] {
        for args in [&["restore-db"][..], &["snapshots"]] {
            let command = desk.env.xtask_command(args);
            let session = Session::spawn_sized(&command, 30, columns);
            let is_list = args == ["snapshots"];
            let screen = session.wait_for_text(if is_list { " on disk" } else { "type to filter" });
            // The header or the question, three rows, the summary or the keys.
            assert_eq!(screen.trim_end().lines().count(), 5, "{columns}\n{screen}");
            let has = |text: &str| screen.contains(text);
            assert!(has("●") && has("↶") && has("\"a lab"), "{columns}\n{screen}");
            assert_eq!(has("edited since"), columns > 40, "{columns}\n{screen}");
            assert!(!is_list || has(" DBS") == (columns > 60), "{columns}\n{screen}");
            session.send(if is_list { "" } else { ESC });
            assert_eq!(session.wait_exit(), if is_list { 0 } else { 130 });
        }
    }
}
