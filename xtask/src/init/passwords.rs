//! Hashes of the password `development`, with which one can log in after masking; those of
//! `docs/passwords.md`.

use crate::init::surveyed::Surveyed;
use crate::init::tables::framework;

/// Framework, column, and SQL that sets it.
const ALL: [(&str, &str, &str); 3] = [
    (
        "Django",
        "password",
        "'pbkdf2_sha256$1000000$developmentdevelopment$i/Ui0J33zTjUtzuPHCGbpQpv7/7i3b1U9MIQhhymYX4='",
    ),
    (
        "Rails",
        "encrypted_password",
        "'$2a$12$LjvSyr7ROVr2GzpGYQ89uOoRAQ0tQEbeJs9pGl6i3F96diDjY2vHG'",
    ),
    ("Rails", "password_digest", "'$2a$12$4T/OZ.DMyseSeKDsJn0Nwe22w7tFEur6R5GkCo.U78TeBrVHrR./G'"),
];

/// SQL for a column with hashes of passwords, if the framework's form of them is known.
pub fn of(databases: &[Surveyed], table: &str, column: &str) -> Option<&'static str> {
    let mut made_by = databases
        .iter()
        .filter(|one| one.tables.iter().any(|name| name.eq_ignore_ascii_case(table)))
        .map(|one| framework(&one.tables));
    let first = made_by.next()??;
    let is_same = made_by.all(|other| other == Some(first));
    let known = ALL.iter().find(|(framework, name, _)| *framework == first && *name == column);
    known.filter(|_| is_same).map(|(.., sql)| *sql)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_on_passwords_has_the_same() {
        let page = std::fs::read_to_string("../docs/passwords.md").unwrap();
        for (_, column, sql) in ALL {
            assert!(page.contains(&format!("set.{column} = \"{sql}\"")), "{column}");
        }
    }

    #[test]
    fn a_hash_is_one_of_the_framework_that_made_the_table() {
        let database = |tables: &[&str]| Surveyed {
            tables: tables.iter().map(|table| (*table).to_owned()).collect(),
            ..Surveyed::unknown("a.db")
        };
        let django = database(&["auth_user", "django_migrations"]);
        let other = database(&["auth_user", "knex_migrations"]);
        assert!(of(std::slice::from_ref(&django), "auth_user", "password").is_some());
        assert_eq!(of(std::slice::from_ref(&django), "auth_user", "token"), None);
        assert_eq!(of(&[django], "accounts", "password"), None);
        assert_eq!(of(&[other], "auth_user", "password"), None);
    }
}
