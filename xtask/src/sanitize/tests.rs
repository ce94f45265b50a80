use super::*;
use crate::config::RuleToml;

fn rule(toml: &str) -> Result<Rule> {
    toml::from_str::<RuleToml>(toml).unwrap().resolve()
}

#[test]
fn rules_become_statements() {
    let sql = |toml| rule(toml).unwrap().statement(|_| true).unwrap();
    assert_eq!(
        sql("table = 'a\"b'\nset = { y = 'NULL', x = \"''\" }\nwhere = 'id > 1'"),
        r#"UPDATE "a""b" SET "x" = '', "y" = NULL WHERE id > 1"#
    );
    assert_eq!(sql("table = 't'\ndelete = true"), r#"DELETE FROM "t""#);
    assert_eq!(sql("sql = 'UPDATE t SET a = 1'"), "UPDATE t SET a = 1");
}

#[test]
fn what_is_not_one_statement_is_refused() {
    for toml in [
        "table = 't'",
        "set = { a = '1' }",
        "table = 't'\nset = {}",
        "table = 't'\nset = { a = '1' }\ndelete = true",
        "sql = ''",
        "sql = 'UPDATE t SET a = 1'\nwhere = 'x'",
        "sql = \"SELECT 1;\\n.shell ls\"",
        "table = 't'\nset = { a = '1' }\ndatabase = 'a//b'",
        "sql = \"DELETE FROM t WHERE a = '\\u0000'\"",
        "table = \"t\\u001b\"\ndelete = true",
        "sql = 'DELETE FROM t /* all'",
        "sql = 'DELETE FROM t /*/'",
        "sql = \"UPDATE t SET a = 'x''\"",
        "table = 't'\ndelete = true\nwhere = 'a = \"x'",
        "sql = 'DELETE FROM [t'",
        "sql = 'DELETE FROM t'\nlook = true",
        "scrub = 'deleted-rows'\nwhere = 'x'",
        "",
    ] {
        assert!(rule(toml).is_err(), "{toml}");
    }
}

#[test]
fn the_script_is_sql_that_quotes_what_it_carries() {
    let rules = [
        rule("database = \"o'[!x].db\"\ntable = \"it's\"\nset = { \"o'r\" = \"''\" }\nwhere = \"b = 'it''s';\"").unwrap(),
        rule("sql = 'DELETE FROM t -- all'\nscrub = 'deleted-rows'").unwrap(),
        rule("table = 't'\ndelete = true\nlook = true").unwrap(),
    ];
    let db = Connection::open_in_memory().unwrap();
    db.execute_batch(&script(&rules)).unwrap();
    let rows = |sql: &str| -> Vec<String> {
        let mut all = db.prepare(sql).unwrap();
        all.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    assert_eq!(
        rows(
            "SELECT concat_ws('|', tbl, sql, condition, deletes, look, scrub) FROM temp.xtask_rule ORDER BY rule"
        ),
        ["it's| WHERE b = 'it''s'|0|1|0", "DELETE FROM t -- all|0|0|1", "t||1|1|0"]
    );
    assert_eq!(rows("SELECT concat_ws('|', rule, col, value) FROM temp.xtask_set"), ["0|o'r|''"]);
}

#[test]
fn a_column_that_a_database_lacks_is_left_out() {
    let set = rule("table = 'T'\nset = { A = '1', b = '2' }").unwrap();
    let other = rule("table = 't'\nset = { c = '3' }").unwrap();
    let db = Connection::open_in_memory().unwrap();
    db.execute_batch("CREATE TABLE t (a); INSERT INTO t VALUES (0)").unwrap();
    set.apply(&db).and_then(|()| other.apply(&db)).unwrap();
    assert_eq!(db.query_row("SELECT a FROM t", [], |row| row.get::<_, i64>(0)), Ok(1));
}

#[test]
fn the_hash_changes_with_the_rules() {
    let one = rules_hash(&[rule("sql = 'DELETE FROM t'").unwrap()]);
    let other = rules_hash(&[rule("sql = 'DELETE FROM u'").unwrap()]);
    assert!(one.is_some() && one != other && rules_hash(&[]).is_none());
    let scrubbed = rule("sql = 'DELETE FROM t'\nscrub = 'deleted-rows'").unwrap();
    assert_ne!(rules_hash(&[scrubbed]), one);
}
