use rusqlite::Connection;

use anyhow::Result;

use super::*;
use crate::config::AuditToml;

fn audit(toml: &str) -> Result<Audit> {
    toml::from_str::<AuditToml>(toml).unwrap().resolve()
}

#[test]
fn a_class_is_repeated_as_often_as_its_number_says() {
    let db = Connection::open_in_memory().unwrap();
    let pattern = counted("a[0-9]{3}b[x]{1}*");
    db.execute_batch(&format!(
        "CREATE TEMP TABLE xtask_value (pattern); INSERT INTO temp.xtask_value VALUES ('{pattern}'); {REPEAT}"
    ))
    .unwrap();
    let repeated: String =
        db.query_row("SELECT pattern FROM temp.xtask_value", [], |row| row.get(0)).unwrap();
    assert_eq!(repeated, "a[0-9][0-9][0-9]b[x]*");
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
    let mut names: Vec<_> = rows.iter().map(|row| (&row[2], &row[3], &row[4])).collect();
    names.sort();
    names.windows(2).for_each(|two| assert_ne!(two[0], two[1]));
}

#[test]
fn the_script_is_sql_and_none_where_nobody_looks() {
    assert!(script(&audit("level = 'off'").unwrap(), &[]).is_none());
    let sql = script(&audit("allow = [\"O'A.it's[!x]\"]").unwrap(), &[]).unwrap();
    let db = Connection::open_in_memory().unwrap();
    db.execute_batch(&sql).unwrap();
    let fine = db.query_row("SELECT rule, tbl, col FROM temp.xtask_fine", [], |row| {
        Ok((row.get::<_, Option<u32>>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?))
    });
    assert_eq!(fine, Ok((None, "o'a".to_owned(), "it's[^x]".to_owned())));
}
