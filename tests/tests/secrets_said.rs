//! What is said of a rule that fails has no value in it, however SQLite words it.

use tests::env::TestEnv;
use tests::planted::SECRET;

fn production() -> TestEnv {
    TestEnv::with_database(&format!(
        "CREATE TABLE t (v TEXT UNIQUE, n INTEGER CHECK (n < 9)); CREATE TABLE s (i INT) STRICT;
         CREATE VIRTUAL TABLE f USING fts5 (body); INSERT INTO f VALUES ('hello');
         INSERT INTO t VALUES ('{SECRET}', 1), ('{SECRET}3', 2)"
    ))
}

#[test]
fn no_value_is_in_what_is_said_of_a_rule_that_fails() {
    let env = production();
    let withheld = "masking data.db failed: rule 2: a value made it fail";
    for (value, said) in [
        ("json_extract('{}', v)", withheld),
        ("json_set('{}', '$.\"' || v, 1)", withheld),
        ("(SELECT count(*) FROM json_each('{}', v))", withheld),
        ("(SELECT 1 FROM f WHERE f MATCH v || ' : x')", withheld),
        ("load_extension(v)", withheld),
        ("sha3_query(v)", withheld),
        ("sha3_query('DELETE FROM t WHERE v = ' || quote(v))", withheld),
        ("(SELECT 1 FROM pragma_table_info(v, v))", withheld),
        ("json(v)", "rule 2: Runtime error: malformed JSON\n"),
        ("'x'", "UNIQUE constraint failed: t.v"),
        (
            "nope",
            "rule 2: Parse error: no such column: nope\nhint: edit rule 2 (t), xtask/db.toml:4; nothing",
        ),
        ("(SELECT i FROM s WHERE nope)", "no such column: nope"),
    ] {
        env.db_toml(&format!(
            "[[sanitize]]\ntable = 't'\nset.n = '3'\n[[sanitize]]\ntable = 't'\nset.v = '''{value}'''"
        ));
        let output = env.local_pull(&["-v"]).fails(1);
        output.stderr_has(said).stderr_lacks(SECRET).stdout_is("");
    }
}

#[test]
fn what_a_constraint_or_a_type_forbids_is_said_by_its_name() {
    let env = production();
    for (sql, said) in [
        ("INSERT INTO s SELECT v FROM t", "cannot store TEXT value in INT column s.i"),
        ("UPDATE t SET n = 1000", "CHECK constraint failed: n < 9"),
        ("INSERT INTO t (rowid) SELECT v FROM t", "datatype mismatch"),
        ("SELECT v FROM t; UPDATE t SET v = json_extract('{}', v)", "rule 1: a value made it fail"),
        ("UPDATE t SET v = abs(-9223372036854775807 - 1)", "integer overflow"),
    ] {
        env.db_toml(&format!("[[sanitize]]\nsql = \"{sql}\"\n"));
        let output = env.local_pull(&["-v"]).fails(1);
        output.stderr_has(said).stderr_lacks(SECRET);
    }
}
