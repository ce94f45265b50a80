//! What a rule removes is in no page, index or trigger's table of what arrives.

use rusqlite::types::Value;
use tests::databases;
use tests::sets::{developer, pull};

#[test]
fn a_rule_of_several_statements_leaves_no_word_in_an_index() {
    let env = developer();
    databases::execute(
        &env.production().join("data.db"),
        "CREATE TABLE notes (id INTEGER PRIMARY KEY, body); INSERT INTO notes VALUES (1, 'hunter2isnosecret');
         CREATE VIRTUAL TABLE f USING fts5 (body, content = 'notes', content_rowid = 'id');
         INSERT INTO f (f) VALUES ('rebuild')",
    );
    env.db_toml("[[sanitize]]\ndatabase = 'data.db'\nsql = \"UPDATE notes SET body = 'x'; DELETE FROM items WHERE 0\"\n");
    pull(&env);
    assert!(!databases::bytes_contain(&env.data().join("data.db"), "hunter2isnosecret"));
}

#[test]
fn rules_run_in_their_order() {
    let env = developer();
    env.db_toml(
        "[[sanitize]]\nsql = \"UPDATE items SET key = 'one' || id\"\n\
         [[sanitize]]\ntable = 'items'\ndelete = true\nwhere = \"key LIKE 'one%'\"\n",
    );
    pull(&env);
    assert_eq!(databases::count(&env.data().join("data.db"), "items"), 0);
}

/// Tenants are not all migrated at once.
#[test]
fn a_column_that_some_databases_lack_is_left_out_there() {
    let env = developer();
    databases::execute(
        &env.production().join("data.db"),
        "ALTER TABLE items ADD COLUMN token; UPDATE items SET token = 'hunter2isnosecret'",
    );
    env.db_toml("[[sanitize]]\ntable = 'items'\nset = { token = 'NULL', key = \"'k' || id\" }\n");
    pull(&env);
    for name in ["data.db", "tenant_iris.db"] {
        let path = env.data().join(name);
        assert!(!databases::bytes_contain(&path, "hunter2isnosecret"));
        let left = "SELECT count(*) FROM items WHERE key <> 'k' || id";
        assert_eq!(databases::query(&path, left), Value::Integer(0), "{name}");
    }
}

/// What was deleted before is in free pages, where SQLite was not told to wipe them:
/// nobody knows what it was.
#[test]
fn what_was_deleted_before_goes_where_a_rule_changes_something_or_scrub_says_so() {
    let env = developer();
    let path = env.production().join("data.db");
    databases::execute(
        &path,
        "PRAGMA secure_delete = OFF; CREATE TABLE tokens (t);
         WITH n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
         INSERT INTO tokens SELECT 'hunter2isnosecret' || i FROM n; DELETE FROM tokens",
    );
    assert!(databases::bytes_contain(&path, "hunter2isnosecret"));
    let unchanged = "[[sanitize]]\nsql = 'UPDATE items SET id = id WHERE 0'\n";
    for (rules, is_left) in [
        (unchanged.to_owned(), true),
        ("[[sanitize]]\nsql = 'UPDATE items SET id = id WHERE id = 1'\n".to_owned(), false),
        (format!("{unchanged}scrub = 'deleted-rows'\n"), false),
        (format!("scrub = 'deleted-rows'\n{unchanged}"), false),
        ("scrub = 'deleted-rows'\n".to_owned(), false),
        ("[[sanitize]]\ndatabase = 'd*.db'\nscrub = 'deleted-rows'\n".to_owned(), false),
        ("[[sanitize]]\ndatabase = 't*.db'\nscrub = 'deleted-rows'\n".to_owned(), true),
    ] {
        env.db_toml(&rules);
        pull(&env);
        let live = env.data().join("data.db");
        assert_eq!(databases::bytes_contain(&live, "hunter2isnosecret"), is_left, "{rules}");
        databases::assert_same(&path, &live);
    }
}

#[test]
fn a_trigger_does_not_copy_what_a_rule_removes() {
    let env = developer();
    databases::execute(
        &env.production().join("data.db"),
        "CREATE TABLE users (token); INSERT INTO users VALUES ('hunter2isnosecret');
         CREATE TABLE audit (old);
         CREATE TRIGGER t AFTER UPDATE ON users BEGIN INSERT INTO audit VALUES (old.token); END",
    );
    env.db_toml("[[sanitize]]\ntable = 'users'\nset = { token = 'NULL' }\n");
    pull(&env);
    assert!(!databases::bytes_contain(&env.data().join("data.db"), "hunter2isnosecret"));
    assert_eq!(databases::count(&env.data().join("data.db"), "audit"), 0);
}

#[test]
fn an_index_of_any_making_forgets_what_a_rule_removes() {
    for index in [
        "fts5 (body, content = 'notes', content_rowid = 'id')",
        "\"fts5\" (body)",
        "fts5 /* words */ (body)",
        "fts5 (body, content = '')",
        "fts4 (body)",
        "fts4 (body, content=\"\")",
        "fts4 (body, content=\"notes\")",
    ] {
        let env = developer();
        let sql = format!(
            "CREATE TABLE notes (id INTEGER PRIMARY KEY, body);
             INSERT INTO notes VALUES (1, 'hunter2isnosecret');
             CREATE VIRTUAL TABLE f USING {index};
             INSERT INTO f (rowid, body) VALUES (1, 'hunter2isnosecret')"
        );
        databases::execute(&env.production().join("data.db"), &sql);
        let own = if index.contains("content") { "" } else { "UPDATE f SET body = 'x';" };
        env.db_toml(&format!(
            "[[sanitize]]\ndatabase = 'data.db'\nsql = \"{own} UPDATE notes SET body = 'x'\"\n"
        ));
        pull(&env);
        assert!(
            !databases::bytes_contain(&env.data().join("data.db"), "hunter2isnosecret"),
            "{index}"
        );
    }
}
