//! One snapshot: a directory with its `snapshot.json`.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::config::{MaxAge, NamePattern};
use crate::fs;
use crate::sanitize::{self, Rule};
use crate::ui::escape;

pub const META: &str = "snapshot.json";
pub const PREFIX: &str = "backup_";

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    Pull,
    BeforePull,
    BeforeRestore,
    /// Made by the user: never pruned.
    Manual,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::BeforePull => "before-pull",
            Self::BeforeRestore => "before-restore",
            Self::Manual => "manual",
        }
    }
}

/// `snapshot.json`. Unknown keys are from a later version, and are ignored.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Meta {
    pub version: u32,
    pub kind: Kind,
    pub time: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    pub git_commit: Option<String>,
    /// The pattern of the databases; a restore leaves other databases as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only: Option<String>,
    /// What the user calls it; such a snapshot is never pruned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Whether the user has pinned it, so that it is never pruned.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pinned: bool,
    pub databases: Vec<Database>,
}

impl Meta {
    /// The databases to which no rule was applied, see [`Snapshot::raw`].
    pub fn raw(&self) -> BTreeSet<String> {
        let all = self.origin.as_ref().is_some_and(|origin| origin.sanitize_rules.is_none());
        let raw = self.databases.iter().filter(|one| all || one.raw || one.unsanitized);
        raw.map(|database| database.name.clone()).collect()
    }

    /// Whether the user wants it to stay.
    pub fn is_kept(&self) -> bool {
        self.kind == Kind::Manual || self.label.is_some() || self.pinned
    }
}

/// The source of a pulled snapshot, and the cost of the transfer.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Origin {
    pub app: Option<String>,
    /// The transport, the app or host, and the directory; not recorded by old versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The name of the source in `db.toml`; none for the one at its top.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The data directory into which it was pulled; not recorded by old versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_dir: Option<PathBuf>,
    /// The flags that selected the machine.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<String>,
    pub machine: Option<String>,
    pub region: Option<String>,
    /// sha256 of the rules; `None` without rules.
    pub sanitize_rules: Option<String>,
    /// Names the script, the rules and the audit that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe: Option<String>,
    /// The run of the server's kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<String>,
    /// The moment that was asked for, of a replica that keeps earlier ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moment: Option<Timestamp>,
    /// The tables and columns that its audit found and no rule covered; `None` without an audit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uncovered: Option<Vec<(String, String)>>,
    /// The store of the team from which it was fetched; the rest says how it got there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<String>,
    pub seconds: f64,
    pub wire_bytes: u64,
}

impl Database {
    /// Whether nobody has written to its file, which is at `path`, since it was recorded.
    pub fn is_recorded(&self, path: &Path) -> bool {
        self.file.is_some() && FileId::of(path).ok() == self.file
    }
}

/// What the server said of a database beside its content, all of it in words that only the
/// script of the same recipe understands.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct RemoteState {
    /// Of its files: the same state is the same content.
    pub state: String,
    /// Which rules matched something in it.
    pub matched: String,
    /// What the audit found in it, with a `;` between two.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub found: String,
}

/// Which file it is, and when it was written: a file of a snapshot is never written to again.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct FileId {
    dev: u64,
    ino: u64,
    size: u64,
    /// Seconds and nanoseconds.
    mtime: (i64, i64),
}

impl FileId {
    /// # Errors
    ///
    /// The file is not there.
    pub fn of(path: &Path) -> io::Result<Self> {
        let metadata = path.symlink_metadata()?;
        let mtime = (metadata.mtime(), metadata.mtime_nsec());
        Ok(Self { dev: metadata.dev(), ino: metadata.ino(), size: metadata.len(), mtime })
    }
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Database {
    pub name: String,
    pub bytes: u64,
    /// In hex. Missing if a running program wrote to the database during the save, until the hash
    /// is added later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    pub page_size: u32,
    pub user_version: i64,
    /// sha256 of the schema, in hex.
    pub schema: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub damaged: bool,
    /// Whether it was pulled without the rules that match it, or saved while such a database was
    /// live.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unsanitized: bool,
    /// Whether no rule was applied to it, even if none matched then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub raw: bool,
    /// Whether the server has zeroed all of its unused bytes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub scrubbed: bool,
    /// Whether it was saved as it was pulled, without what `prepare` and `compact` had made of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[cfg_attr(test, schemars(skip))]
    pub as_pulled: bool,
    /// Of a pull, what the server said of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(skip))]
    pub remote: Option<RemoteState>,
    /// The file as it was recorded: an equal one need not be hashed again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(skip))]
    pub file: Option<FileId>,
}

/// The databases in `raw` that a rule matches.
pub fn unsanitized(raw: &BTreeSet<String>, rules: &[Rule]) -> BTreeSet<String> {
    raw.iter().filter(|name| sanitize::is_for(rules, name)).cloned().collect()
}

/// Whether a snapshot is what `meta` describes.
pub fn has_same_content(snapshot: &Snapshot, meta: &Meta) -> bool {
    let content = |meta: &Meta| {
        let each = meta.databases.iter().map(|one| (one.name.clone(), one.sha256.clone()));
        each.collect::<Vec<_>>()
    };
    snapshot.defect.is_none()
        && snapshot
            .meta
            .as_ref()
            .is_some_and(|it| it.time == meta.time && content(it) == content(meta))
}

/// A location that the user chose for a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum External {
    /// A symbolic link to this path.
    Link(PathBuf),
    /// The root of another file system.
    Mount,
}

#[derive(Clone, Debug)]
pub struct Snapshot {
    /// `backup_2026-03-15T14-18-50-365Z`
    pub name: String,
    pub path: PathBuf,
    /// The time in its name, which determines the order of snapshots.
    pub order: Timestamp,
    /// The clock's time when it was made; the clock may have been set back.
    pub time: Timestamp,
    /// The location of its files, if not in the data directory.
    pub elsewhere: Option<External>,
    /// `None` if the user or an older tool made the directory.
    pub meta: Option<Meta>,
    /// Name and size in bytes of its `.db` files, sorted.
    pub files: Vec<(String, u64)>,
    /// Why it cannot be restored, as far as metadata tells.
    pub defect: Option<String>,
}

impl Snapshot {
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|(_, bytes)| bytes).sum()
    }

    pub fn kind(&self) -> &'static str {
        self.meta.as_ref().map_or("by hand", |meta| meta.kind.name())
    }

    pub fn label(&self) -> Option<&str> {
        self.meta.as_ref()?.label.as_deref()
    }

    pub fn is_pinned(&self) -> bool {
        self.meta.as_ref().is_some_and(|meta| meta.pinned)
    }

    pub fn is_pull(&self) -> bool {
        self.meta.as_ref().is_some_and(|meta| meta.kind == Kind::Pull)
    }

    /// Whether `prepare` and `compact` change this database when it is installed: it is not data
    /// that was current here.
    pub fn is_unprepared(&self, name: &str) -> bool {
        self.is_pull() || self.database(name).is_some_and(|database| database.as_pulled)
    }

    /// What is recorded of a database.
    pub fn database(&self, name: &str) -> Option<&Database> {
        self.meta.as_ref()?.databases.iter().find(|database| database.name == name)
    }

    pub fn origin(&self) -> Option<&Origin> {
        self.meta.as_ref()?.origin.as_ref()
    }

    /// The databases to which no rule was applied. Old versions recorded this only for a complete
    /// pull, or if rules were left out.
    pub fn raw(&self) -> BTreeSet<String> {
        self.meta.as_ref().map(Meta::raw).unwrap_or_default()
    }

    /// The raw databases that one of `rules` matches.
    pub fn unsanitized(&self, rules: &[Rule]) -> BTreeSet<String> {
        unsanitized(&self.raw(), rules)
    }

    /// When its unsanitized databases have been here for as long as `keep` allows; `None` if it has
    /// none, or nothing limits that.
    pub fn unsanitized_until(&self, rules: &[Rule], keep: Option<&MaxAge>) -> Option<Timestamp> {
        let until = self.time.checked_add(keep?.limit()).ok()?;
        (!self.unsanitized(rules).is_empty()).then_some(until)
    }

    /// Whether a prune may remove it: a command made it unasked, and all of it is here.
    pub fn is_prunable(&self) -> bool {
        self.meta.as_ref().is_some_and(|meta| !meta.is_kept())
            && self.elsewhere.is_none()
            && self.defect.is_none()
    }

    /// Whether it was pulled with exactly these rules.
    pub fn has_rules(&self, rules: &[Rule]) -> bool {
        self.origin().is_some_and(|origin| origin.sanitize_rules == sanitize::rules_hash(rules))
    }

    /// The name of its source in `db.toml`, if it is not of the one at the top of the file.
    pub fn source(&self) -> Option<&str> {
        self.origin()?.name.as_deref()
    }

    /// The pattern that selected its databases; `None` for a complete set.
    pub fn only(&self) -> Option<&str> {
        self.meta.as_ref()?.only.as_deref()
    }

    /// Why the databases that match `only` cannot be restored.
    pub fn defect_of(&self, only: Option<&NamePattern>) -> Option<String> {
        match (&self.meta, only) {
            (Some(meta), Some(only)) => {
                let mut meta = meta.clone();
                meta.databases.retain(|database| only.matches(&database.name));
                defect(Some(&meta), &self.files)
            }
            _ => self.defect.clone(),
        }
    }

    /// `None` if this is not a directory, has another name, or was removed meanwhile.
    pub(super) fn read(path: PathBuf) -> Result<Option<Self>> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some(order) = time_of(&name) else { return Ok(None) };
        let is_gone = |path: &Path| {
            path.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
        };
        let elsewhere = match place(&path) {
            Ok(Some(elsewhere)) => elsewhere,
            Ok(None) => return Ok(None),
            Err(_) if is_gone(&path) => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut snapshot = Self { elsewhere, ..Self::empty(name, path, order) };
        // A snapshot that cannot be read must not hide the others.
        if let Err(why) = snapshot.look() {
            snapshot.defect = Some(format!("{why:#}"));
        }
        let is_there = snapshot.defect.is_none() || !is_gone(&snapshot.path);
        Ok(is_there.then_some(snapshot))
    }

    fn empty(name: String, path: PathBuf, order: Timestamp) -> Self {
        let (elsewhere, meta, files, defect) = (None, None, Vec::new(), None);
        Self { name, path, order, time: order, elsewhere, meta, files, defect }
    }

    /// A snapshot of this `snapshot.json` and these files; `None` if the path is not named like
    /// one.
    pub fn of(path: PathBuf, meta: Option<&[u8]>, files: Vec<(String, u64)>) -> Option<Self> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let order = time_of(&name)?;
        let mut snapshot = Self::empty(name, path, order);
        if let Err(why) = snapshot.understand(meta, files) {
            snapshot.defect = Some(format!("{why:#}"));
        }
        Some(snapshot)
    }

    fn look(&mut self) -> Result<()> {
        if let Some(External::Link(target)) = &self.elsewhere {
            let target = target.display();
            self.path.metadata().with_context(|| format!("it is a link to {target}"))?;
        }
        let meta = fs::read(&self.path.join(META))?;
        let entries = fs::files_below(&self.path, |_| true).context("it cannot be read")?;
        let mut files = Vec::new();
        for (name, entry) in entries {
            if entry.file_type()?.is_file() {
                files.push((name, entry.metadata()?.len()));
            }
        }
        self.understand(meta.as_deref(), files)
    }

    fn understand(&mut self, meta: Option<&[u8]>, files: Vec<(String, u64)>) -> Result<()> {
        if let Some(text) = meta {
            let meta: Meta =
                serde_json::from_slice(text).with_context(|| format!("its {META} is malformed"))?;
            self.time = meta.time;
            self.meta = Some(meta);
        }
        self.files = files;
        self.files.retain(|(name, _)| is_database(name, self.meta.as_ref()));
        self.files.sort();
        self.defect = defect(self.meta.as_ref(), &self.files);
        Ok(())
    }
}

/// The location of the files of a directory or link; `None` for any other file.
fn place(path: &Path) -> Result<Option<Option<External>>> {
    let file = path.symlink_metadata()?;
    if file.is_symlink() {
        let is_file = path.metadata().is_ok_and(|target| !target.is_dir());
        return Ok((!is_file).then_some(Some(External::Link(path.read_link()?))));
    }
    let parent = path.parent().unwrap_or(path).metadata()?;
    let is_mount = file.dev() != parent.dev();
    Ok(file.is_dir().then_some(is_mount.then_some(External::Mount)))
}

/// Whether `snapshot.json` lists this file, or, without one, whether it looks like a database.
fn is_database(name: &str, meta: Option<&Meta>) -> bool {
    match meta {
        Some(meta) => meta.databases.iter().any(|database| database.name == name),
        None => {
            [".db", ".sqlite", ".sqlite3"].iter().any(|end| name.ends_with(end))
                && !super::is_hidden(name)
                && !super::is_of_desktop(name)
        }
    }
}

fn defect(meta: Option<&Meta>, files: &[(String, u64)]) -> Option<String> {
    let announced = meta.map_or(&[][..], |meta| &meta.databases);
    if let Some(Meta { version: version @ (0 | 2..), .. }) = meta {
        return Some(format!("it has format {version}, and this tool knows format 1"));
    }
    if files.is_empty() && announced.is_empty() {
        return Some("it holds no database".to_owned());
    }
    announced.iter().find_map(|Database { name, bytes, damaged, .. }| {
        let shown = escape(name);
        match files.iter().find(|(file, _)| file == name) {
            None => Some(format!("{shown} is missing")),
            Some((_, found)) if found != bytes => {
                Some(format!("{shown} has {found} bytes, not {bytes}"))
            }
            Some(_) if *damaged => Some(format!("{shown} was damaged when it was saved")),
            Some(_) => None,
        }
    })
}

pub(super) fn name_of(time: Timestamp) -> String {
    format!("{PREFIX}{}", time.strftime("%Y-%m-%dT%H-%M-%S-%3fZ"))
}

pub(super) fn time_of(name: &str) -> Option<Timestamp> {
    let digits = name.strip_prefix(PREFIX)?.strip_suffix('Z')?;
    // Other spellings of a time have characters that a shell or a terminal may interpret.
    if !digits.bytes().all(|byte| byte.is_ascii_digit() || b"-T".contains(&byte)) {
        return None;
    }
    let (date, time) = digits.split_once('T')?;
    let mut parts = time.split('-');
    let (h, m, s) = (parts.next()?, parts.next()?, parts.next()?);
    let fraction = parts.next().unwrap_or("0");
    if parts.next().is_some() {
        return None;
    }
    format!("{date}T{h}:{m}:{s}.{fraction}Z").parse().ok()
}
