//! One snapshot: a directory, and what its `snapshot.json` says.

use std::io;
use std::path::PathBuf;

use anyhow::Result;
use glob::Pattern;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ui::escape;

pub const META: &str = "snapshot.json";
pub const PREFIX: &str = "backup_";

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    Pull,
    BeforePull,
    BeforeRestore,
    /// Made by a person: never pruned.
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

/// `snapshot.json`. Unknown keys are a later version's, and are left alone.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Meta {
    pub version: u32,
    pub kind: Kind,
    pub time: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    pub git_commit: Option<String>,
    /// Only what matches was taken: a restore leaves the other databases alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only: Option<String>,
    pub databases: Vec<Database>,
}

/// Where a pulled snapshot came from, and at what price.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Origin {
    pub app: Option<String>,
    /// The way, the app or host, and the directory; none in older ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The flags that chose the machine.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<String>,
    pub machine: Option<String>,
    pub region: Option<String>,
    /// sha256 of the rules; none when it was not sanitized.
    pub sanitize_rules: Option<String>,
    pub seconds: f64,
    pub wire_bytes: u64,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Database {
    pub name: String,
    pub bytes: u64,
    pub sha256: String,
    pub page_size: u32,
    pub user_version: i64,
    /// sha256 of the schema.
    pub schema: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub damaged: bool,
}

#[derive(Clone, Debug)]
pub struct Snapshot {
    /// `backup_2026-03-15T14-18-50-365Z`
    pub name: String,
    pub path: PathBuf,
    pub time: Timestamp,
    /// Missing where a person or an older tool made the directory.
    pub meta: Option<Meta>,
    /// Name and size of its `.db` files, sorted.
    pub files: Vec<(String, u64)>,
    /// Why it cannot be restored, as far as a look from outside tells.
    pub defect: Option<String>,
}

impl Snapshot {
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|(_, bytes)| bytes).sum()
    }

    pub fn kind(&self) -> &'static str {
        self.meta.as_ref().map_or("by hand", |meta| meta.kind.name())
    }

    pub fn is_pull(&self) -> bool {
        self.meta.as_ref().is_some_and(|meta| meta.kind == Kind::Pull)
    }

    pub fn origin(&self) -> Option<&Origin> {
        self.meta.as_ref()?.origin.as_ref()
    }

    /// The pattern that its databases were taken by; none for a whole set.
    pub fn only(&self) -> Option<&str> {
        self.meta.as_ref()?.only.as_deref()
    }

    /// Why those of its databases that match cannot be restored.
    pub fn defect_of(&self, only: Option<&Pattern>) -> Option<String> {
        match (&self.meta, only) {
            (Some(meta), Some(only)) => {
                let mut meta = meta.clone();
                meta.databases.retain(|database| only.matches(&database.name));
                defect(Some(&meta), &self.files)
            }
            _ => self.defect.clone(),
        }
    }

    pub(super) fn read(path: PathBuf) -> Result<Option<Self>> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if time_of(&name).is_none() {
            return Ok(None);
        }
        let meta = std::fs::read(path.join(META));
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&path)? {
            let entry = entry?;
            if let Ok(name) = entry.file_name().into_string()
                && entry.file_type()?.is_file()
            {
                files.push((name, entry.metadata()?.len()));
            }
        }
        Ok(Self::new(path, meta, files))
    }

    /// What a directory is that has this in its `snapshot.json`, and these files;
    /// none if it is not called like a snapshot.
    pub fn new(
        path: PathBuf,
        meta: io::Result<Vec<u8>>,
        mut files: Vec<(String, u64)>,
    ) -> Option<Self> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let time = time_of(&name)?;
        let (meta, malformed) = match meta {
            Ok(text) => match serde_json::from_slice::<Meta>(&text) {
                Ok(meta) => (Some(meta), None),
                Err(error) => (None, Some(format!("its {META} is malformed: {error}"))),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => (None, None),
            Err(error) => (None, Some(format!("its {META} cannot be read: {error}"))),
        };
        files.retain(|(name, _)| is_database(name, meta.as_ref()));
        files.sort();
        let defect = malformed.or_else(|| defect(meta.as_ref(), &files));
        Some(Self { name, path, time, meta, files, defect })
    }
}

/// Of the files in a directory those that its `snapshot.json` lists, else those
/// that look like databases.
fn is_database(name: &str, meta: Option<&Meta>) -> bool {
    match meta {
        Some(meta) => meta.databases.iter().any(|database| database.name == name),
        None => {
            [".db", ".sqlite", ".sqlite3"].iter().any(|end| name.ends_with(end))
                && !name.starts_with('.')
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
    let (date, time) = digits.split_once('T')?;
    let mut parts = time.split('-');
    let (h, m, s) = (parts.next()?, parts.next()?, parts.next()?);
    let fraction = parts.next().unwrap_or("0");
    if parts.next().is_some() {
        return None;
    }
    format!("{date}T{h}:{m}:{s}.{fraction}Z").parse().ok()
}
