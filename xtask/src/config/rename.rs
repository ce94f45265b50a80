//! `rename`: databases that are called otherwise here than on the server.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::error::Failure;

/// The renames of the settings, of which the first that matches counts.
#[derive(Clone, Debug, Default)]
pub struct Renames(Vec<Rename>);

#[derive(Clone, Debug)]
struct Rename {
    server: Form,
    local: Form,
}

/// A name, or what is before and after the `*` in it.
#[derive(Clone, Debug)]
struct Form {
    before: String,
    after: Option<String>,
}

impl Renames {
    /// # Errors
    ///
    /// One is no name, or only one of two has a `*`.
    pub fn new(renames: &BTreeMap<String, String>) -> Result<Self> {
        let each = renames.iter().map(|(server, local)| {
            let rename = Rename { server: Form::new(server)?, local: Form::new(local)? };
            if rename.server.after.is_some() != rename.local.after.is_some() {
                let why = "both have a `*`, which stands for the same text, or none has";
                return Err(Failure::usage(format!("{server:?} = {local:?}: {why}")).into());
            }
            Ok(rename)
        });
        Ok(Self(each.collect::<Result<_>>()?))
    }

    /// What a database of the server is called here.
    pub fn local(&self, server: &str) -> String {
        let found = self.0.iter().find_map(|one| one.local.with(one.server.star(server)?));
        found.unwrap_or_else(|| server.to_owned())
    }

    /// What a database may be called on a server; nothing if none of there has this name here.
    pub fn servers(&self, local: &str) -> Vec<String> {
        let found = self.0.iter().filter_map(|one| one.server.with(one.local.star(local)?));
        found.chain([local.to_owned()]).filter(|server| self.local(server) == local).collect()
    }

    /// What databases are called here, some with a `*`.
    pub fn locals(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|one| one.local.text())
    }

    /// As `local_name` of `ops-remote/find.sh` reads them, a line each.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|one| format!("{}//{}", one.server.text(), one.local.text()))
    }
}

impl Form {
    fn new(text: &str) -> Result<Self> {
        let is_part = |part: &str| !part.is_empty() && !part.starts_with('.');
        let stars = text.matches('*').count();
        if !text.split('/').all(is_part)
            || text.contains(['?', '[', '\\'])
            || stars > 1
            || text.chars().any(char::is_control)
        {
            return Err(Failure::usage(format!("{text:?} is not a name that rename knows"))
                .hint(
                    "a name, or one with a `*`: \"production*.sqlite3\" = \"development*.sqlite3\"",
                )
                .into());
        }
        Ok(match text.split_once('*') {
            Some((before, after)) => Self { before: before.into(), after: Some(after.into()) },
            None => Self { before: text.into(), after: None },
        })
    }

    /// The text that the `*` stands for in a name that matches; empty without a `*`.
    fn star<'a>(&self, name: &'a str) -> Option<&'a str> {
        let Some(after) = &self.after else { return (name == self.before).then_some("") };
        let star = name.strip_prefix(&*self.before)?.strip_suffix(&**after)?;
        (!star.contains('/')).then_some(star)
    }

    fn with(&self, star: &str) -> Option<String> {
        Some(format!("{}{star}{}", self.before, self.after.as_deref().unwrap_or_default()))
    }

    fn text(&self) -> String {
        self.after
            .as_ref()
            .map_or_else(|| self.before.clone(), |after| format!("{}*{after}", self.before))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn renames(pairs: &[(&str, &str)]) -> Result<Renames> {
        Renames::new(&pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect())
    }

    #[test]
    fn a_star_stands_for_the_same_text_in_both_directions() {
        let renames =
            renames(&[("production*.sqlite3", "development*.sqlite3"), ("storage/a.db", "a.db")])
                .unwrap();
        for (server, local) in [
            ("production.sqlite3", "development.sqlite3"),
            ("production_queue.sqlite3", "development_queue.sqlite3"),
            ("storage/a.db", "a.db"),
            ("other.sqlite3", "other.sqlite3"),
            ("production/x.sqlite3", "production/x.sqlite3"),
        ] {
            assert_eq!(renames.local(server), local);
            assert_eq!(renames.servers(local)[0], server);
        }
        assert!(renames.servers("production.sqlite3").is_empty(), "it has another name here");
        assert!(renames.servers("storage/a.db").is_empty());
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for (server, local) in [
            ("a*.db", "b.db"),
            ("a.db", "b*.db"),
            ("a**.db", "b**.db"),
            ("a?.db", "b.db"),
            ("../a.db", "b.db"),
            ("a.db", "/b.db"),
            ("a.db", ""),
            ("a.db", ".b.db"),
            ("a.db", "b/"),
            ("a.db", "b\n.db"),
        ] {
            assert!(renames(&[(server, local)]).is_err(), "{server:?} {local:?}");
        }
    }
}
