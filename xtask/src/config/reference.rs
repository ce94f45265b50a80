//! `references`: which rows belong together where the schema does not declare it.

use std::str::FromStr;

use crate::error::Failure;

/// Rows of the table `child` refer to the rows of `parent` whose `key` is the value of their
/// `column`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Association {
    pub child: String,
    pub column: String,
    pub parent: String,
    pub key: String,
    /// SQL over the columns of the child: which of its rows refer to this parent.
    pub condition: Option<String>,
}

impl FromStr for Association {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        let wrong = || {
            Failure::usage(format!("references: {text:?} is no reference")).hint(
                "such as \"posts.user_id -> users.id\" or \
                 \"comments.item_id -> posts.id WHERE item_type = 'Post'\"",
            )
        };
        if text.chars().any(char::is_control) {
            return Err(wrong());
        }
        let (from, to) = text.split_once("->").ok_or_else(wrong)?;
        let at = to.to_ascii_lowercase().find(" where ");
        let (to, condition) = match at {
            Some(at) => (&to[..at], Some(to[at + 7..].trim().to_owned())),
            None => (to, None),
        };
        let place = |text: &str| {
            let (table, column) = text.trim().rsplit_once('.')?;
            let name = |quoted: &str| quoted.trim().trim_matches(['"', '`']).to_owned();
            let (table, column) = (name(table), name(column));
            (!table.is_empty() && !column.is_empty()).then_some((table, column))
        };
        let ((child, column), (parent, key)) =
            (place(from).ok_or_else(wrong)?, place(to).ok_or_else(wrong)?);
        if condition.as_deref() == Some("") {
            return Err(wrong());
        }
        Ok(Self { child, column, parent, key, condition })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_has_two_columns_and_maybe_a_condition() {
        let parse = |text: &str| text.parse::<Association>();
        let one = parse("posts.user_id->users.id").unwrap();
        assert_eq!(
            (&*one.child, &*one.column, &*one.parent, &*one.key),
            ("posts", "user_id", "users", "id")
        );
        let one = parse("\"a.b\".\"c d\" -> Post.id where t = 'x -> y'").unwrap();
        assert_eq!((&*one.child, &*one.column), ("a.b", "c d"));
        assert_eq!((&*one.parent, one.condition.as_deref()), ("Post", Some("t = 'x -> y'")));
        for bad in
            ["", "a.b", "a -> b.c", "a.b -> c", "a.b -> .c", "a.b -> c.d WHERE  ", "a.\nb -> c.d"]
        {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
