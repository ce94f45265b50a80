//! Which value a rule can set in a column, so that the database still takes it.

/// What the server says of a column, a letter each, of all databases that have it.
#[derive(Clone, Copy)]
pub struct Facts<'a>(&'a str);

impl<'a> Facts<'a> {
    /// Generated, the rowid itself, required, unique, without rowid, made for NULL (with a
    /// CHECK, a reference, or a generated column made of it), JSON, something that no known
    /// value satisfies (an expression or the condition of a unique index, a generated column that is
    /// unique, or NOT NULL and made of its JSON); its type: integer or real, blob, text.
    const ALL: &'static str = "gknuwzjxibt";

    pub fn parse(said: &'a str) -> Option<Self> {
        let known = !said.is_empty() && said.chars().all(|fact| Self::ALL.contains(fact));
        known.then_some(Self(said))
    }

    fn has(self, fact: char) -> bool {
        self.0.contains(fact)
    }

    /// SQL that hides what is in the column and keeps to its type, its NOT NULL and its
    /// unique indexes; none where that is not known.
    pub fn mask(self) -> Option<&'static str> {
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
            // It may have to be the binary form.
            _ if json && blob => return None,
            // Values of one's own may be small numbers of either sign, and are changed row by row.
            (true, false) if number => "-1000000000000000 - rowid",
            (true, true) if number => "random()",
            (true, false) if blob => "CAST('masked-' || rowid AS BLOB)",
            (true, true) if blob => "randomblob(16)",
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
        let mask = |said| Facts::parse(said).unwrap().mask();
        assert_eq!(mask("t"), Some("''"));
        assert_eq!(mask("tut"), Some("NULL"));
        assert_eq!(mask("nttu"), Some("'masked-' || rowid"));
        assert_eq!(mask("nutnuwt"), Some("'masked-' || hex(randomblob(8))"));
        assert_eq!(mask("bt"), Some("''"));
        assert_eq!(mask("tgt"), None);
        assert!(Facts::parse("").is_none() && Facts::parse("t'").is_none());
    }
}
