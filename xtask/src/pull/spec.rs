//! The identity of a pull, and the earlier pulls that match it.

use std::collections::BTreeMap;

use anyhow::Result;
use jiff::Timestamp;

use crate::config::{MaxAge, NamePattern};
use crate::pull::base::Base;
use crate::sanitize::EffectiveRules;
use crate::snapshots::{Database, Leftover, Origin, Snapshot, Store};

/// The identity of a pull. An earlier one replaces it only if these are equal.
pub struct PullSpec<'a> {
    /// As in [`Origin`], like the next two.
    pub source: String,
    pub flags: Vec<String>,
    pub rules: EffectiveRules<'a>,
    /// As [`Origin`] has it.
    pub recipe: String,
    /// The name of the source in `db.toml`.
    pub name: Option<String>,
    pub only: Option<&'a NamePattern>,
    /// The maximum age; `None` if a new pull is required.
    pub if_older: Option<&'a MaxAge>,
}

impl PullSpec<'_> {
    /// The newest sound snapshot of these databases, with any rules. Snapshots dated in the future
    /// are ignored: their age is unknown, and they would count as fresh for ever.
    pub fn newest(&self, store: &Store) -> Result<Option<Snapshot>> {
        self.newest_of(store, |_| true)
    }

    fn newest_of(
        &self,
        store: &Store,
        counts: impl Fn(&Origin) -> bool,
    ) -> Result<Option<Snapshot>> {
        let now = Timestamp::now();
        let fits = |snapshot: &Snapshot| {
            snapshot.is_pull()
                && snapshot.defect.is_none()
                && snapshot.time <= now
                && snapshot.origin().is_some_and(|it| self.comes_from(it) && counts(it))
                && self.is_covered_by(snapshot.only())
        };
        Ok(store.list()?.into_iter().find(fits))
    }

    /// Without flags for a machine, a pull from any machine matches.
    fn comes_from(&self, origin: &Origin) -> bool {
        origin.source.as_ref() == Some(&self.source)
            && (self.flags.is_empty() || self.flags == origin.flags)
    }

    fn is_covered_by(&self, only: Option<&str>) -> bool {
        only.is_none() || only == self.only.map(NamePattern::as_str)
    }

    /// The newest snapshot of this data directory, if it is fresh and was made with exactly the rules
    /// of this pull: after a change of the rules, or with another `--no-sanitize`, it does not
    /// replace a pull. Nor does the pull of another directory that shares the snapshots.
    ///
    /// # Errors
    ///
    /// The snapshots cannot be read.
    pub fn fresh(&self, store: &Store) -> Result<Option<Snapshot>> {
        let Some(limit) = self.if_older.map(MaxAge::limit) else { return Ok(None) };
        let fresh = |snapshot: &Snapshot| {
            Timestamp::now().duration_since(snapshot.time) <= limit
                && snapshot.origin().is_some_and(|origin| self.has_same_rules(origin))
        };
        let is_here = |origin: &Origin| origin.data_dir.as_ref().is_none_or(|it| *it == store.dir);
        Ok(self.newest_of(store, is_here)?.filter(fresh))
    }

    /// The newest pulled copy of each database, from any machine and from pulls of any databases;
    /// newer than all is what arrived by a pull that was cut. Pulls with other rules are skipped:
    /// their copies may contain what these rules remove.
    ///
    /// # Errors
    ///
    /// The snapshots cannot be read.
    pub fn bases(&self, store: &Store) -> Result<Vec<Base>> {
        let fits = |origin: &Origin| {
            origin.source.as_ref() == Some(&self.source) && self.has_same_rules(origin)
        };
        let leftover = store.leftover().filter(|leftover| fits(&leftover.origin));
        let fits = |snapshot: &Snapshot| snapshot.is_pull() && snapshot.origin().is_some_and(fits);
        let mut bases = BTreeMap::new();
        if let Some(Leftover { path, databases, .. }) = leftover {
            let wanted =
                |database: &Database| self.only.is_none_or(|only| only.matches(&database.name));
            for database in databases.into_iter().filter(wanted) {
                bases.insert(database.name.clone(), Base::partial(&path, database));
            }
        }
        for snapshot in store.list()?.iter().filter(|snapshot| fits(snapshot)) {
            let origin = snapshot.origin().filter(|origin| self.was_made_alike(origin));
            let boot = origin.and_then(|origin| origin.boot.as_deref());
            for database in snapshot.meta.iter().flat_map(|meta| &meta.databases) {
                let Database { name, bytes, .. } = database;
                if snapshot.files.contains(&(name.clone(), *bytes))
                    && self.only.is_none_or(|only| only.matches(name))
                    && let boot = boot.filter(|_| !self.rules.depend_on_time(name))
                    && let Some(base) = Base::new(&snapshot.path, database, origin.is_some(), boot)
                {
                    bases.entry(name.clone()).or_insert(base);
                }
            }
        }
        let mut bases: Vec<Base> = bases.into_values().collect();
        let boot = bases.iter().find_map(|base| base.boot.clone());
        for base in bases.iter_mut().filter(|base| base.boot != boot) {
            base.boot = None; // The request names one.
        }
        Ok(bases)
    }

    /// Whether the server would make the same of the same database.
    fn was_made_alike(&self, origin: &Origin) -> bool {
        origin.recipe.as_ref() == Some(&self.recipe)
    }

    fn has_same_rules(&self, origin: &Origin) -> bool {
        origin.sanitize_rules == self.rules.hash()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RuleToml;
    use crate::sanitize::Rule;

    const SOURCE: &str = "fly:upflow:/data";

    /// A snapshot of `a.db` and `b.db`, modified by `change`.
    fn snapshot(store: &Store, day: u32, change: impl FnOnce(&mut serde_json::Value)) {
        let dir = store.dir.join(format!("backup_2026-03-{day:02}T00-00-00-000Z"));
        std::fs::create_dir(&dir).unwrap();
        let database = |name: &str| {
            std::fs::write(dir.join(name), [0; 700]).unwrap();
            serde_json::json!({
                "name": name, "bytes": 700, "sha256": format!("{day}{name}"), "page_size": 4096,
                "user_version": 0, "schema": "",
            })
        };
        let mut meta = serde_json::json!({
            "version": 1, "kind": "pull", "time": format!("2026-03-{day:02}T00:00:00Z"),
            "git_commit": null, "databases": [database("a.db"), database("b.db")],
            "origin": {
                "app": "upflow", "source": SOURCE, "flags": ["--machine", "1"], "machine": null,
                "region": null, "sanitize_rules": hash_of("rules"), "seconds": 1.0, "wire_bytes": 1,
            },
        });
        change(&mut meta);
        std::fs::write(dir.join("snapshot.json"), meta.to_string()).unwrap();
    }

    fn rule(table: &str) -> Rule {
        toml::from_str::<RuleToml>(&format!("sql = 'DELETE FROM {table}'"))
            .unwrap()
            .resolve()
            .unwrap()
    }

    fn hash_of(table: &str) -> Option<String> {
        EffectiveRules::new(&[rule(table)], true).hash()
    }

    /// The sha256 of each base: the date of its snapshot, and its name.
    fn bases(store: &Store, only: Option<&str>, rules: Option<&str>) -> Vec<String> {
        let only = only.map(|only| NamePattern::anywhere(only).unwrap());
        let rules: Vec<_> = rules.map(rule).into_iter().collect();
        let spec = PullSpec {
            source: SOURCE.to_owned(),
            flags: Vec::new(),
            rules: EffectiveRules::new(&rules, true),
            recipe: String::new(),
            name: None,
            only: only.as_ref(),
            if_older: None,
        };
        let bases = spec.bases(store).unwrap().into_iter();
        let sums = bases.map(|base| {
            assert_eq!(base.path.file_name().unwrap(), &*base.database.name);
            assert!(base.path.exists());
            base.database.sha256.unwrap()
        });
        sums.collect()
    }

    #[test]
    fn the_base_of_each_database_is_the_newest_that_it_can_have() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path());
        assert_eq!(bases(&store, None, Some("rules")), [""; 0]);
        snapshot(&store, 1, |_| ());
        assert_eq!(bases(&store, None, Some("rules")), ["1a.db", "1b.db"]);
        // A pull of some databases has newer copies of these.
        snapshot(&store, 2, |meta| {
            meta["only"] = "a.db".into();
            meta["databases"].as_array_mut().unwrap().pop();
        });
        assert_eq!(bases(&store, None, Some("rules")), ["2a.db", "1b.db"]);
        assert_eq!(bases(&store, Some("b*"), Some("rules")), ["1b.db"]);
        assert_eq!(bases(&store, Some("c*"), Some("rules")), [""; 0]);
        for (day, [key, value]) in (3..).zip([
            ["/origin/sanitize_rules", "other"],
            ["/origin/source", "fly:upflow:/other"],
            ["/origin/source", "fly:other:/data"],
            ["/kind", "before-pull"],
            ["/kind", "manual"],
        ]) {
            snapshot(&store, day, |meta| *meta.pointer_mut(key).unwrap() = value.into());
            assert_eq!(bases(&store, None, Some("rules")), ["2a.db", "1b.db"], "{key} {value}");
        }
        snapshot(&store, 20, |meta| *meta.pointer_mut("/origin").unwrap() = None::<u8>.into());
        for (day, [key, value]) in (21..).zip([
            ["bytes", "701"],
            ["bytes", "0"],
            ["sha256", "null"],
            ["damaged", "true"],
            ["name", "\"c.db\""],
        ]) {
            snapshot(&store, day, |meta| {
                meta["databases"][0][key] = value.parse().unwrap();
            });
            assert_eq!(bases(&store, None, Some("rules"))[0], "2a.db", "{key} {value}");
        }
        assert_eq!(bases(&store, None, Some("rules")), ["2a.db", "25b.db"]);
    }

    #[test]
    fn a_pull_with_other_rules_or_none_is_no_base() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path());
        snapshot(&store, 1, |_| ());
        snapshot(&store, 2, |meta| meta["origin"]["sanitize_rules"] = None::<u8>.into());
        assert_eq!(bases(&store, None, Some("rules")), ["1a.db", "1b.db"]);
        assert_eq!(bases(&store, None, None), ["2a.db", "2b.db"]);
        assert_eq!(bases(&store, None, Some("new_rules")), [""; 0]);
    }
}
