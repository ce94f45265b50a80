use rusqlite::Connection;

use super::*;

fn audit(toml: &str) -> Result<Audit> {
    toml::from_str::<AuditToml>(toml).unwrap().resolve()
}

fn finding(table: &str, column: &str) -> Finding {
    let (table, column, database) = (table.to_owned(), column.to_owned(), "a.db".to_owned());
    Finding { table, column, kind: Kind::Secret, rows: 4200, databases: 1, database }
}

#[test]
fn a_class_is_repeated_as_often_as_its_number_says() {
    assert_eq!(spelt_out("a[0-9]{3}b[x]{1}*"), "a[0-9][0-9][0-9]b[x]*");
    for (_, patterns) in words::VALUES {
        for pattern in patterns {
            let begin = pattern.split('*').next().unwrap_or_default();
            assert!(begin.len() > 7, "{pattern}: grep would find it everywhere");
        }
    }
}

#[test]
fn every_word_is_lower_case_and_in_one_list() {
    let rows = suspects();
    for row in &rows {
        let pattern = row[3].trim_matches('\'');
        assert!(
            pattern.chars().all(|c| c.is_ascii_lowercase() || c == '_' || c == '*'),
            "{pattern}"
        );
    }
    let mut names: Vec<_> = rows.iter().map(|row| (&row[2], &row[3])).collect();
    names.sort();
    names.windows(2).for_each(|two| assert_ne!(two[0], two[1]));
}

#[test]
fn the_script_is_sql_and_none_where_nobody_looks() {
    assert!(script(&audit("level = 'off'").unwrap(), &[]).is_none());
    let sql = script(&audit("allow = [\"O'A.it's[!x]\"]").unwrap(), &[]).unwrap();
    let db = Connection::open_in_memory().unwrap();
    db.execute_batch(&sql).unwrap();
    let fine = db.query_row("SELECT database, tbl, col FROM temp.xtask_fine", [], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?))
    });
    assert_eq!(fine, Ok(("*".to_owned(), "o'a".to_owned(), "it's[^x]".to_owned())));
}

/// For each name that a hint has, what it says is TOML, and stands for that name.
#[test]
fn what_a_hint_says_can_be_written_down() {
    for (table, column) in [
        ("users", "email"),
        ("a.b", "c.d"),
        ("it's \"x\"", "[*]?"),
        ("\u{202e}\n", "\u{1b}\u{7f}\\"),
    ] {
        let findings = Findings { columns: vec![finding(table, column)], more: 0 };
        let advice = escape(&findings.advice());
        let (rule, allow) = advice.split_once("\nor say which are fine:\n").unwrap();
        let (tables, columns) = audit(&allow.replace("[audit]", "")).unwrap().allow.remove(0);
        assert!(tables.matches(table) && columns.matches(column), "{advice}");
        let rule = rule.split_once("[[sanitize]]").unwrap().1;
        let rule: toml::Table = rule.parse().unwrap();
        assert_eq!(rule["table"].as_str(), Some(table));
        assert!(rule["set"].as_table().unwrap().contains_key(column));
    }
}

#[test]
fn numbers_of_rows_can_be_read() {
    assert_eq!(
        [0, 999, 1000, 4200, 1_234_567].map(thousands),
        ["0", "999", "1,000", "4,200", "1,234,567"]
    );
}
