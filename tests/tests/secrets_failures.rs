//! A pull that fails leaves no piece of a secret either: not here, not in what was
//! sent, not in what is said, and not on the server.

use tests::leaky::{AUDIT_RULE, Leaky, RULES};
use tests::output::Output;
use tests::process::wait_for;
use tests::pull::{live, pull_fails};
use tests::sqlite3::Build;

/// A pull that fails, before anything of a database was sent.
#[track_caller]
fn fails_and_sends_nothing(leaky: &Leaky, rules: &[&str]) -> Output {
    leaky.env.db_toml(&rules.concat());
    let output = pull_fails(&leaky.env, &["--yes", "-v"], 1);
    leaky.assert_no_secret(&output);
    for stream in leaky.streams() {
        let marker = stream.windows(11).any(|window| window == b"XTASK-DB 1 ");
        assert!(!marker, "a stream begins\n{output}");
    }
    assert!(live(&leaky.env).is_empty());
    output
}

#[test]
fn a_rule_that_fails_halfway_leaves_nothing() {
    let leaky = Leaky::new(Build::Machine);
    for rule in [
        "sql = 'UPDATE users SET token ='",
        "sql = \"UPDATE users SET note = 'x'; UPDATE keys SET name = NULL\"",
        "table = 'users'\nset = { no_such_column = \"''\" }",
        // Of two with the same address only one can be; what is said must not be it.
        "table = 'users'\nset = { email = 'email', token = 'label', id = '1' }",
        "sql = 'CREATE UNIQUE INDEX one ON events (length(kept))'",
        "sql = 'SELECT abs(-9223372036854775808)'",
    ] {
        fails_and_sends_nothing(&leaky, &[RULES, AUDIT_RULE, "[[sanitize]]\n", rule, "\n"])
            .stderr_has("nothing was sent");
    }
}

/// Whoever writes `json(token)`, say, gets the token into the error.
#[test]
fn what_an_error_of_sqlite_quotes_is_not_said() {
    let leaky = Leaky::new(Build::Machine);
    for expression in
        ["json(token)", "json_extract('{}', token)", "load_extension(token)", "token MATCH token"]
    {
        let rule = format!("[[sanitize]]\ntable = 'users'\nset = {{ note = \"{expression}\" }}\n");
        fails_and_sends_nothing(&leaky, &[&rule, RULES]);
    }
}

#[test]
fn a_value_that_another_column_has_stops_the_pull_and_is_not_said() {
    for &build in Build::some() {
        let leaky = Leaky::new(build);
        let copy = "INSERT INTO audit (user, old) SELECT id, token FROM users WHERE id = 30";
        leaky.open("wide.db").execute_batch(copy).expect("copy a token");
        fails_and_sends_nothing(&leaky, &[RULES])
            .stderr_has("wide.db")
            .stderr_has("users")
            .stderr_has("token")
            .stderr_has("audit")
            .stderr_has("old");
    }
}

#[test]
fn the_table_of_an_index_with_its_own_content_stops_the_pull() {
    let leaky = Leaky::new(Build::Machine);
    for name in tests::leaky::NAMES {
        let db = leaky.open(name);
        db.execute_batch("INSERT INTO own5 (body) SELECT body FROM notes").expect("insert");
    }
    let rules =
        RULES.replace("table = 'own5'", "table = 'own5'\nwhere = \"body LIKE '%and some words'\"");
    fails_and_sends_nothing(&leaky, &[&rules, AUDIT_RULE]).stderr_has("notes").stderr_has("own5");
}

#[test]
fn a_connection_that_breaks_leaves_nothing() {
    let leaky = Leaky::new(Build::WithoutSecureDelete);
    for bytes in [0, 100, 5000, 60_000, 100_000] {
        leaky.env.edit_world(|world| world.faults.kill_ssh_after_bytes = Some(bytes));
        // What the one before has left would make this one need fewer bytes.
        let output = pull_fails(&leaky.env, &["--yes", "-v", "--full"], 1);
        leaky.assert_no_secret(&output);
    }
    leaky.env.edit_world(|world| world.faults.kill_ssh_after_bytes = None);
    let mut killed = leaky.env.start_xtask(["pull-db", "--yes", "-v"]);
    killed.wait_for_stderr("Masking");
    killed.kill();
    let output = killed.wait();
    wait_for("the server to clean up", || {
        tests::databases::files(&leaky.env.path("tmp")).is_empty().then_some(())
    });
    leaky.assert_no_secret(&output);
    leaky.pull(&[]);
}
