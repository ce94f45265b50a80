//! Chooses a value that a rule can set in a column without violating the schema.

use super::{Kind, words};

/// The server's facts about a column, a letter each, merged over all databases that have it.
#[derive(Clone, Copy)]
pub struct Facts<'a>(&'a str);

impl<'a> Facts<'a> {
    /// Generated, the rowid itself, NOT NULL, unique, WITHOUT ROWID, made for NULL (has a CHECK, a
    /// reference, or a generated column over it), JSON, x if no known value fits (in a unique index
    /// by an expression or condition, or a generated column); type integer or real, blob, text.
    const ALL: &'static str = "gknuwzjxibt";

    pub fn parse(said: &'a str) -> Option<Self> {
        let known = !said.is_empty() && said.chars().all(|fact| Self::ALL.contains(fact));
        known.then_some(Self(said))
    }

    fn has(self, fact: char) -> bool {
        self.0.contains(fact)
    }

    /// SQL that masks the column of this name and respects its type, NOT NULL and unique indexes;
    /// `None` if no such SQL is known. Personal data becomes invented data if its name or its values
    /// tell the kind.
    pub fn mask(self, column: &str, kind: Kind) -> Option<String> {
        if "gkx".chars().any(|fact| self.has(fact)) {
            return None;
        }
        let fake =
            kind.is_personal().then(|| self.fake(kind_of(column).or(kind.fake())?)).flatten();
        fake.or_else(|| self.constant(column).map(str::to_owned))
    }

    /// A call of `fake()`, which needs a rowid. If the column is unique, so is the value.
    fn fake(self, kind: &str) -> Option<String> {
        let is_text = !"wjib".chars().any(|fact| self.has(fact));
        let may_be_null = self.has('z') && !self.has('n');
        if !is_text || may_be_null {
            return None;
        }
        Some(match kind {
            _ if !self.has('u') => format!("fake({kind})"),
            "email" | "username" | "iban" => format!("fake({kind})"),
            "ip" => "fake(ipv6)".to_owned(),
            "birthday" | "postcode" => return None,
            "phone" => "fake(phone) || ' x' || rowid".to_owned(),
            _ => format!("fake({kind}) || ' ' || rowid"),
        })
    }

    /// A value that shows nothing. Login forms take no address without an `@`.
    fn constant(self, column: &str) -> Option<&'static str> {
        let is_mail = column.to_ascii_lowercase().contains("mail");
        let [unique, number, json] = ['u', 'i', 'j'].map(|fact| self.has(fact));
        let blob = self.has('b') && !self.has('t');
        let by_chance = self.has('w');
        if !self.has('n') && (unique || number || json || self.has('z')) {
            return Some("NULL");
        }
        Some(match (unique, by_chance) {
            (true, _) if json => return None,
            // The column may require JSONB.
            _ if json && blob => return None,
            // Rows are changed one by one, so the new values must differ from all old ones.
            (true, false) if number => "-1000000000000000 - rowid",
            (true, true) if number => "random()",
            (true, false) if blob => "CAST('masked-' || rowid AS BLOB)",
            (true, true) if blob => "randomblob(16)",
            (true, true) if is_mail => "'masked-' || hex(randomblob(8)) || '@example.com'",
            (true, false) if is_mail => "'masked-' || rowid || '@example.com'",
            (true, false) => "'masked-' || rowid",
            (true, true) => "'masked-' || hex(randomblob(8))",
            _ if number => "0",
            _ if json => "'{}'",
            _ if blob => "x''",
            _ => "''",
        })
    }
}

/// The kind of `fake()` for the column of this name: `homePhone` is `_home_phone_` here.
fn kind_of(column: &str) -> Option<&'static str> {
    let mut name = "_".to_owned();
    for c in column.chars() {
        if c.is_uppercase() && name.ends_with(char::is_lowercase) {
            name.push('_');
        }
        name.extend(if c.is_alphabetic() { c.to_lowercase().next() } else { Some('_') });
    }
    name.push('_');
    let matches = |parts: &str| parts.split(", ").any(|part| name.contains(part));
    words::FAKES.iter().find(|(parts, _)| matches(parts)).map(|(_, kind)| *kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_some_databases_must_fit_all() {
        let mask = |said| Facts::parse(said).unwrap().mask("token", Kind::Secret);
        for (facts, expected) in [
            ("t", "''"),
            ("tut", "NULL"),
            ("nttu", "'masked-' || rowid"),
            ("nutnuwt", "'masked-' || hex(randomblob(8))"),
            ("bt", "''"),
        ] {
            assert_eq!(mask(facts).as_deref(), Some(expected), "{facts}");
        }
        assert_eq!(mask("tgt"), None);
        assert!(Facts::parse("").is_none() && Facts::parse("t'").is_none());
    }

    #[test]
    fn personal_data_becomes_invented_data_where_that_fits() {
        let mask = |column, said| Facts::parse(said).unwrap().mask(column, Kind::Personal);
        for (column, facts, expected) in [
            ("email", "t", "fake(email)"),
            ("E_Mail", "nut", "fake(email)"),
            ("E_Mail", "nutw", "'masked-' || hex(randomblob(8)) || '@example.com'"),
            ("lastName", "ut", "fake(last_name) || ' ' || rowid"),
            ("homePhone2", "nu", "fake(phone) || ' x' || rowid"),
            ("last_sign_in_ip", "nut", "fake(ipv6)"),
            ("ip_address", "nt", "fake(ip)"),
            ("remote_addr", "nt", "fake(ip)"),
            ("address", "t", "fake(street)"),
            ("dob", "nut", "'masked-' || rowid"),
            ("dob", "ni", "0"),
            ("name", "t", "fake(name)"),
            ("name", "tz", "NULL"),
            ("name", "ntz", "fake(name)"),
            ("name", "tw", "''"),
            ("name", "tb", "''"),
            ("emails", "ntj", "'{}'"),
            ("ssn", "t", "''"),
        ] {
            assert_eq!(mask(column, facts).as_deref(), Some(expected), "{column} {facts}");
        }
        assert_eq!(mask("email", "tg"), None);
    }
}
