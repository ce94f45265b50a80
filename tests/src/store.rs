//! The content of a data directory: the live set, its snapshots, and files that no run should
//! leave.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hasher as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::databases::files_below;

pub struct Snapshot {
    pub name: String,
    pub path: PathBuf,
    /// Its `snapshot.json`.
    pub json: Value,
}

impl Snapshot {
    pub fn kind(&self) -> &str {
        self.json["kind"].as_str().unwrap_or("none")
    }

    pub fn databases(&self) -> Vec<&str> {
        let databases = self.json["databases"].as_array().expect("databases is an array");
        databases.iter().filter_map(|database| database["name"].as_str()).collect()
    }

    /// Edits its `snapshot.json`.
    pub fn edit(&self, change: impl FnOnce(&mut Value)) {
        let mut json = self.json.clone();
        change(&mut json);
        fs::write(self.path.join("snapshot.json"), json.to_string()).expect("write");
    }

    /// Moves it to the time that SQLite's `modifier` gives, such as `-25 hours`; returns its new
    /// name.
    pub fn date(&self, data: &Path, modifier: &str) -> String {
        let clock = rusqlite::Connection::open_in_memory().expect("SQLite opens");
        let at = |format: &str| -> String {
            let sql = "SELECT strftime(?1, 'now', ?2)";
            clock.query_row(sql, [format, modifier], |row| row.get(0)).expect("a time")
        };
        self.edit(|json| json["time"] = at("%Y-%m-%dT%H:%M:%SZ").into());
        let name = at("backup_%Y-%m-%dT%H-%M-%S-000Z");
        fs::rename(&self.path, data.join(&name)).expect("rename a snapshot");
        name
    }
}

/// The snapshots, oldest first; empty if the directory does not exist.
pub fn snapshots(data: &Path) -> Vec<Snapshot> {
    let mut paths: Vec<PathBuf> = (fs::read_dir(data).into_iter().flatten())
        .map(|entry| entry.expect("read a directory").path())
        .filter(|path| name(path).starts_with("backup_"))
        .collect();
    paths.sort();
    let read = |path: PathBuf| {
        let text = fs::read(path.join("snapshot.json")).expect("a snapshot has a snapshot.json");
        let json = serde_json::from_slice(&text).expect("snapshot.json is JSON");
        Snapshot { name: name(&path), path, json }
    };
    paths.into_iter().map(read).collect()
}

pub fn kinds(data: &Path) -> Vec<String> {
    snapshots(data).iter().map(|snapshot| snapshot.kind().to_owned()).collect()
}

/// The files directly in a directory, each with its length and a hash: equal ones are the same live
/// set. No file may be open in this process.
pub fn fingerprint(directory: &Path) -> BTreeMap<String, (usize, u64)> {
    (fs::read_dir(directory).into_iter().flatten())
        .map(|entry| entry.expect("read a directory").path())
        .filter(|path| path.is_file())
        .map(|path| {
            let bytes = fs::read(&path).expect("read a file");
            let mut hasher = DefaultHasher::new();
            hasher.write(&bytes);
            (name(&path), (bytes.len(), hasher.finish()))
        })
        .collect()
}

/// Everything below a directory, with its permissions.
pub fn modes(directory: &Path) -> Vec<(PathBuf, u32)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten() {
        let path = entry.expect("read a directory").path();
        let metadata = path.symlink_metadata().expect("it is there");
        found.push((path.clone(), metadata.permissions().mode() & 0o777));
        if metadata.is_dir() {
            found.extend(modes(&path));
        }
    }
    found
}

/// The files below a directory that contain these bytes.
pub fn files_with(directory: &Path, needle: &str) -> Vec<PathBuf> {
    let files = modes(directory).into_iter().map(|(path, _)| path).filter(|path| path.is_file());
    files.filter(|path| crate::databases::bytes_contain(path, needle)).collect()
}

/// Files in `.xtask` that a finished run should have removed; not what the next pull resumes from.
pub fn left_behind(data: &Path) -> Vec<String> {
    let state = data.join(".xtask");
    let entries = fs::read_dir(state).into_iter().flatten();
    let mut names: Vec<_> =
        entries.map(|entry| name(&entry.expect("read a directory").path())).collect();
    names.retain(|name| !["CACHEDIR.TAG", "lock", "share.json", "state.json"].contains(&&**name));
    if leftover(data).is_some() {
        names.retain(|name| name != LEFTOVER);
    }
    names
}

/// The directory of a pull, also of one that was cut.
pub const LEFTOVER: &str = "incoming-pull";

/// What the next pull resumes from: the record and databases, and nothing else.
pub fn leftover(data: &Path) -> Option<PathBuf> {
    let path = data.join(".xtask").join(LEFTOVER);
    let files = path.is_dir().then(|| files_below(&path))?;
    let is_known = |file: &String| file == "snapshot.json" || file.ends_with(".db");
    (files.len() > 1 && files.iter().all(is_known)).then_some(path)
}

/// Whether a running pull has written this many bytes of a database.
pub fn has_arrived(data: &Path, database: &str, bytes: u64) -> bool {
    let entries = fs::read_dir(data.join(".xtask")).into_iter().flatten().flatten();
    let mut files = entries.filter_map(|entry| entry.path().join(database).metadata().ok());
    files.any(|file| file.len() >= bytes)
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Records that an earlier pull brought this database.
pub fn brings(data: &Path, name: &str) {
    let path = data.join(".xtask/state.json");
    let state = fs::read(&path).unwrap_or_else(|_| b"{\"brought\":[]}".to_vec());
    let mut state: Value = serde_json::from_slice(&state).expect("it is JSON");
    state["brought"].as_array_mut().expect("a list").push(name.into());
    fs::create_dir_all(data.join(".xtask")).expect("make a directory");
    fs::write(path, state.to_string()).expect("write the state");
}
