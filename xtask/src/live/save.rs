//! Saving the live set.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use rusqlite::Connection;
use xshell::Shell;

use super::State;
use super::locked_db::{self, Access, LockedDb};
use super::placed::{self, Placed, Stamp};
use super::shared_db::SharedDb;
use crate::config::Settings;
use crate::pages::{self, PageFile};
use crate::snapshots::{Database, Kind, LockedStore, Meta, Snapshot, SnapshotBuilder};
use crate::sqlite::{SIDECARS, sidecar};
use crate::ui::{Ui, count, escape};
use crate::{fs, git, sanitize, sqlite};

/// The snapshot with the previous live set.
pub struct Saved {
    pub name: String,
    /// False if an existing snapshot has the same content.
    pub new: bool,
    pub damage: Damage,
    /// Whether the sha256 of each database is recorded.
    pub(super) hashed: bool,
}

/// Which of the saved databases SQLite could not read.
#[derive(Clone, Copy)]
pub enum Damage {
    None,
    Some,
    All,
}

/// Copies of the live set that are not yet a snapshot.
pub(super) struct Copies<'a> {
    /// The databases whose content a file of a snapshot has: they are not copied.
    known: BTreeMap<String, Known>,
    incoming: SnapshotBuilder<'a>,
    names: Vec<String>,
    /// Databases that SQLite cannot read: copied byte by byte, with their sidecars.
    damaged: Vec<String>,
    /// Databases that were written to since the copy, and copied again.
    pub changed: Vec<String>,
    /// Databases that were written to since the copy, and not copied again.
    pub outdated: Vec<String>,
    /// The snapshot that has the same content.
    held_by: Option<String>,
    /// The sha256 of each, in hex, unless a snapshot has the same content.
    hashes: Vec<Option<String>>,
    git_commit: Option<String>,
    /// The databases to which no rule was applied.
    pub raw: BTreeSet<String>,
}

/// A live database that is as it was installed.
struct Known {
    placed: Placed,
    /// The file of a snapshot with this content, before `prepare` and `compact` have changed it.
    file: PathBuf,
}

impl Known {
    fn is_prepared(&self) -> bool {
        !self.placed.prepared.is_empty()
    }
}

/// The context of saving a locked live set.
#[derive(Clone, Copy)]
pub(super) struct Saver<'a> {
    pub ui: &'a Ui,
    pub sh: &'a Shell,
    pub settings: &'a Settings,
    pub store: &'a LockedStore,
}

impl<'a> Saver<'a> {
    /// Copies the live set for a snapshot of this kind, all of one moment; `None` if it is empty. Locked databases are read
    /// through their connections.
    ///
    /// # Errors
    ///
    /// A database cannot be read, or a copy cannot be written.
    pub(super) fn copy(
        &self,
        kind: Kind,
        names: Vec<String>,
        locked: &mut [LockedDb],
    ) -> Result<Option<Copies<'a>>> {
        let dir = &self.store.dir;
        if names.is_empty() {
            return Ok(None);
        }
        let mut raw = State::read(self.store)?.raw(self.store);
        raw.retain(|name| names.contains(name));
        let known = self.known(kind, &names)?;
        let unknown = names.len() - known.len();
        let what = format!("{} in {}", count(unknown, "database"), dir.display());
        let _working = (unknown > 0).then(|| self.ui.working("Saving", what));
        let incoming = self.store.begin(kind)?;
        let mut copies = Copies {
            known,
            incoming,
            damaged: Vec::new(),
            changed: Vec::new(),
            outdated: Vec::new(),
            held_by: None,
            hashes: vec![None; names.len()],
            names,
            git_commit: git::head(self.sh, &self.settings.root),
            raw,
        };
        copies.fill(dir, locked).context("cannot save the current data")?;
        if copies.is_written_meanwhile(dir, locked) {
            // The copies must be of one moment.
            copies.known.clear();
            copies.fill(dir, locked).context("cannot save the current data")?;
        }
        for name in &copies.damaged {
            self.ui.warn(format!("{} is damaged: it is saved as it is", escape(name)));
        }
        Ok(Some(copies))
    }

    /// The databases that are as they were installed from a snapshot, and that a restore of the file
    /// there brings back. What the user saves is the very content.
    fn known(&self, kind: Kind, names: &[String]) -> Result<BTreeMap<String, Known>> {
        let preparation = self.settings.preparation();
        let comes_back = |placed: &Placed| {
            placed.prepared.is_empty() || (kind != Kind::Manual && placed.prepared == preparation)
        };
        let state = State::read(self.store)?;
        let snapshots = self.store.list()?;
        let unchanged = placed::unchanged(self.store, &state).into_iter();
        let known = unchanged
            .filter(|(name, it)| names.contains(name) && comes_back(it))
            .filter_map(|(name, placed)| {
                let file = placed::find_file(&snapshots, &name, &placed.sha256)?;
                Some((name, Known { placed, file }))
            });
        Ok(known.collect())
    }

    /// Searches for a snapshot with the content of `copies`, first in `next`, which is about to be
    /// installed.
    pub(super) fn find_same(&self, copies: &mut Copies<'_>, next: Option<&str>) -> Result<()> {
        let last = State::read(self.store)?.live;
        let mut snapshots = self.store.list()?;
        // The likely ones first, because a comparison reads both completely.
        snapshots.sort_by_key(|snapshot| {
            let name = Some(snapshot.name.as_str());
            (name != next, name != last.as_deref())
        });
        for snapshot in snapshots {
            if copies.damaged.is_empty() && copies.are_held_by(&snapshot, self.settings)? {
                copies.held_by = Some(snapshot.name);
                return Ok(());
            }
        }
        copies.hash()
    }

    /// Makes a snapshot of `copies`, unless one holds the same.
    pub(super) fn keep(&self, copies: Copies<'_>, kind: Kind) -> Result<Saved> {
        if let Some(name) = copies.held_by.clone().filter(|_| copies.changed.is_empty()) {
            return Ok(Saved { name, new: false, damage: Damage::None, hashed: true });
        }
        copies.link_known()?;
        let dir = copies.incoming.path();
        let databases = copies.names.iter().zip(copies.hashes).map(|(name, hash)| {
            let hash = hash.filter(|_| !copies.changed.contains(name));
            let described = describe(dir, name, copies.damaged.contains(name), hash)?;
            let raw = copies.raw.contains(name);
            let unsanitized = raw && sanitize::is_for(&self.settings.rules, name);
            let as_pulled = copies.known.get(name).is_some_and(Known::is_prepared);
            Ok(Database { unsanitized, raw, as_pulled, ..described })
        });
        let meta = Meta {
            version: 1,
            kind,
            time: Timestamp::now(),
            origin: None,
            git_commit: copies.git_commit,
            only: None,
            label: None,
            pinned: false,
            databases: databases.collect::<Result<_>>()?,
        };
        let mut damaged = meta.databases.iter().map(|database| database.damaged);
        let damage = match (damaged.clone().all(|it| it), damaged.any(|it| it)) {
            (true, _) => Damage::All,
            (false, true) => Damage::Some,
            (false, false) => Damage::None,
        };
        let hashed = meta.databases.iter().all(|database| database.sha256.is_some());
        Ok(Saved { name: copies.incoming.commit(meta)?.name, new: true, damage, hashed })
    }
}

impl Copies<'_> {
    pub fn path(&self, name: &str) -> PathBuf {
        self.incoming.path().join(name)
    }

    /// The copy of a database that programs have open and that is locked by now, as pages; `None`
    /// if the database is still known.
    fn pages(&mut self, one: &Path, name: &str, live: &SharedDb) -> Result<Option<PageFile>> {
        if let Some(known) = self.known.get(name) {
            if Stamp::of(one).as_ref() == Some(&known.placed.stamp) {
                return Ok(None);
            }
            self.known.remove(name);
            self.changed.push(name.to_owned());
            drop(fs::create(&self.path(name))?);
            let copy = PageFile::open(&self.path(name), live.page_size()?, true)?;
            return live.copy_to(&copy).map(|()| Some(copy));
        }
        PageFile::open(&self.path(name), live.page_size()?, true).map(Some)
    }

    /// Whether a program has written to a known database. A shared one is checked again when it is
    /// locked.
    fn is_written_meanwhile(&self, dir: &Path, locked: &[LockedDb]) -> bool {
        let is_shared = |name: &String| {
            locked.iter().any(|one| one.name == *name && one.access.shared().is_some())
        };
        self.known.iter().any(|(name, known)| {
            !is_shared(name) && Stamp::of(&dir.join(name)).as_ref() != Some(&known.placed.stamp)
        })
    }

    fn link_known(&self) -> Result<()> {
        for (name, known) in &self.known {
            fs::link(&known.file, &self.path(name))?;
        }
        Ok(())
    }

    fn fill(&mut self, dir: &Path, locked: &mut [LockedDb]) -> Result<()> {
        self.names.iter().try_for_each(|name| fs::create_parents(self.incoming.path(), name))?;
        let not_copied = |name: &str| format!("{} cannot be copied", dir.join(name).display());
        let locked: BTreeMap<_, _> =
            locked.iter_mut().map(|one| (one.name.clone(), &mut one.access)).collect();
        let is_known = |name: &String| self.known.contains_key(name);
        let others =
            self.names.iter().filter(|name| !locked.contains_key(*name) && !is_known(name));
        let others: Vec<_> = others.collect();
        let pin = |name: &&String| {
            let source = Source::pin(&dir.join(name)).with_context(|| not_copied(name))?;
            anyhow::Ok(((*name).clone(), source))
        };
        let mut sources = locked_db::all_or_none(None, sqlite::BUSY, || {
            others.iter().map(pin).collect::<Result<Vec<_>>>()
        })?;
        let locked = locked.into_iter();
        let locked = locked.filter(|(name, _)| self.names.contains(name) && !is_known(name));
        sources.extend(locked.map(|(name, by)| (name, Source::LockedDb(by))));
        for (name, source) in &mut sources {
            source.copy(&self.path(name)).with_context(|| not_copied(name))?;
        }
        for (name, source) in sources {
            match source {
                Source::Pinned(db, version) => {
                    db.execute_batch("COMMIT")?;
                    if sqlite::data_version(&db)? != version {
                        self.outdated.push(name);
                    }
                }
                Source::Damaged | Source::LockedDb(Access::Corrupt) => self.damaged.push(name),
                Source::LockedDb(_) => {}
            }
        }
        for name in &self.damaged {
            let (from, to) = (dir.join(name), self.path(name));
            fs::copy(&from, &to)?;
            for end in SIDECARS.iter().filter(|end| sidecar(&from, end).exists()) {
                fs::copy(&sidecar(&from, end), &sidecar(&to, end))?;
            }
        }
        for name in self.names.iter().filter(|name| !self.known.contains_key(*name)) {
            // SQLite copies free pages too. That they take room is no error.
            if pages::has_free_pages(&self.path(name)) {
                let _ = fs::punch_holes(&self.path(name));
            }
            fs::sync(&self.path(name))?;
        }
        Ok(())
    }

    pub fn hash(&mut self) -> Result<()> {
        for (name, hash) in self.names.iter().zip(&mut self.hashes) {
            *hash = Some(match self.known.get(name) {
                Some(known) => known.placed.sha256.clone(),
                None => fs::sha256(&self.incoming.path().join(name))?,
            });
        }
        Ok(())
    }

    /// Whether a restore of `snapshot` brings back exactly these databases with this content. It must
    /// also agree which are raw, since a restore would mark the live set so. The snapshot's mark is
    /// not changed: it is correct for its own pull.
    fn are_held_by(&self, snapshot: &Snapshot, settings: &Settings) -> Result<bool> {
        let same_names = snapshot.files.iter().map(|(name, _)| name).eq(&self.names);
        // A restore of an incomplete set would not remove databases that were added later.
        let whole = snapshot.meta.as_ref().is_some_and(|meta| meta.only.is_none());
        let same_marks = snapshot.raw() == self.raw;
        let is_changed = !settings.preparation().is_empty();
        let same_preparation = self.names.iter().all(|name| {
            let is_prepared = self.known.get(name).is_some_and(Known::is_prepared);
            is_prepared == (is_changed && snapshot.is_unprepared(name))
        });
        if snapshot.defect.is_some() || !whole || !same_names || !same_marks || !same_preparation {
            return Ok(false);
        }
        for name in &self.names {
            let is_same = match self.known.get(name) {
                Some(known) if placed::sha256_in(snapshot, name) != Some(&known.placed.sha256) => {
                    false
                }
                // What is recorded may no longer be what the file has.
                Some(known) => {
                    let snapshots = std::slice::from_ref(snapshot);
                    placed::find_file(snapshots, name, &known.placed.sha256).is_some()
                        || pages::same_content(&snapshot.path.join(name), &known.file)?
                }
                None => pages::same_content(&snapshot.path.join(name), &self.path(name))?,
            };
            if !is_same {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// The source of a copy of a live database; all sources see the same moment.
enum Source<'a> {
    LockedDb(&'a mut Access),
    /// A database that is not replaced; with its data version at that moment.
    Pinned(Connection, i64),
    /// SQLite cannot read it.
    Damaged,
}

impl Source<'_> {
    fn pin(path: &Path) -> Result<Self> {
        match sqlite::pin(path).and_then(|db| sqlite::data_version(&db).map(|now| (db, now))) {
            Ok((db, version)) => {
                // For the query of the data version after the copy.
                db.busy_timeout(sqlite::BUSY)?;
                Ok(Self::Pinned(db, version))
            }
            Err(error) if sqlite::is_damage(&error) => Ok(Self::Damaged),
            Err(error) => Err(error.into()),
        }
    }

    /// Copies what it sees. A corrupt database is left out and its connection closed: a plain file
    /// may only be read while this process has no connection to it.
    fn copy(&mut self, to: &Path) -> Result<()> {
        let db = match self {
            Self::Pinned(db, _) | Self::LockedDb(Access::Exclusive(db)) => &*db,
            Self::LockedDb(Access::Shared(shared)) => &shared.reader,
            Self::Damaged | Self::LockedDb(Access::Corrupt | Access::Missing) => return Ok(()),
        };
        let Err(error) = sqlite::backup(db, to) else { return Ok(()) };
        match self {
            _ if !sqlite::tells_damage(&error) => return Err(error),
            Self::LockedDb(Access::Shared(_)) => return Err(error),
            Self::LockedDb(by) => **by = Access::Corrupt,
            _ => *self = Self::Damaged,
        }
        fs::remove(to)
    }
}

/// Describes a closed file for `snapshot.json`. A file that cannot be described is recorded as
/// damaged, because that must not make the save fail.
///
/// # Errors
///
/// The file cannot be read.
pub(super) fn describe(
    dir: &Path,
    name: &str,
    damaged: bool,
    sha256: Option<String>,
) -> Result<Database> {
    let path = dir.join(name);
    let found = match sqlite::describe(&path) {
        _ if damaged => None,
        Err(error) if !sqlite::tells_damage(&error) => return Err(error),
        found => found.ok(),
    };
    let damaged = found.is_none();
    let found = found.unwrap_or_default();
    Ok(Database {
        name: name.to_owned(),
        bytes: path.metadata()?.len(),
        sha256,
        page_size: found.page_size,
        user_version: found.user_version,
        schema: found.schema,
        damaged,
        ..Database::default()
    })
}

/// Writes the new pages into the databases that programs have open, without a commit, and brings
/// `copies` up to date with earlier writes. Returns the names of those databases.
///
/// # Errors
///
/// SQLite or the file system fails.
pub(super) fn write(
    locked: &mut [LockedDb],
    copies: Option<&mut Copies<'_>>,
) -> Result<Vec<String>> {
    let mut copies = copies;
    let mut in_place = Vec::new();
    for one in locked {
        let (path, name) = (&one.path, &one.name);
        let Some(shared) = one.access.shared_mut() else { continue };
        let mut write = || {
            let saved = copies.as_mut().map(|copies| copies.pages(path, name, shared));
            if shared.catch_up(saved.transpose()?.flatten().as_ref())?
                && let Some(copies) = &mut copies
                && !copies.changed.contains(name)
            {
                copies.changed.push(name.clone());
            }
            shared.write()
        };
        write().with_context(|| format!("cannot change {}", path.display()))?;
        in_place.push(name.clone());
    }
    Ok(in_place)
}
