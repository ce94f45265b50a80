//! Chooses a value that a rule can set in a column without violating the schema.

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
    /// `None` if no such SQL is known. Login forms take no address without an `@`.
    pub fn mask(self, column: &str) -> Option<&'static str> {
        let is_mail = column.to_ascii_lowercase().contains("mail");
        let [unique, number, json] = ['u', 'i', 'j'].map(|fact| self.has(fact));
        let blob = self.has('b') && !self.has('t');
        let by_chance = self.has('w');
        if "gkx".chars().any(|fact| self.has(fact)) {
            return None;
        }
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
            (true, false) if is_mail => "'masked-' || rowid || '@example.com'",
            (true, true) if is_mail => "'masked-' || hex(randomblob(8)) || '@example.com'",
            (true, false) => "'masked-' || rowid",
            (true, true) => "'masked-' || hex(randomblob(8))",
            _ if number => "0",
            _ if json => "'{}'",
            _ if blob => "x''",
            _ => "''",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_some_databases_must_fit_all() {
        let mask = |said| Facts::parse(said).unwrap().mask("name");
        assert_eq!(mask("t"), Some("''"));
        assert_eq!(mask("tut"), Some("NULL"));
        assert_eq!(mask("nttu"), Some("'masked-' || rowid"));
        assert_eq!(mask("nutnuwt"), Some("'masked-' || hex(randomblob(8))"));
        assert_eq!(mask("bt"), Some("''"));
        assert_eq!(mask("tgt"), None);
        let mail = |said| Facts::parse(said).unwrap().mask("E_Mail");
        assert_eq!(mail("nut"), Some("'masked-' || rowid || '@example.com'"));
        assert_eq!((mail("nt"), mail("t")), (Some("''"), Some("''")));
        assert!(Facts::parse("").is_none() && Facts::parse("t'").is_none());
    }
}
