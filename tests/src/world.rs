//! The state of the stand-in `fly`: a JSON file that tests and the stand-in read and change.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

/// The environment variable that names the file of the world.
pub const WORLD_VARIABLE: &str = "STANDIN_FLY_WORLD";

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct World {
    pub apps: BTreeMap<String, Vec<Machine>>,
    pub logged_in: bool,
    /// Printed by `fly version`, without the `v`.
    pub version: String,
    pub ssh_key: PathBuf,
    /// The account on the sshd, whatever user `fly` names.
    pub ssh_user: String,
    /// Each invocation appends its arguments here, as one JSON array.
    pub log: PathBuf,
    /// The duration of connecting. The real one takes two to four seconds.
    pub connect_millis: u64,
    pub faults: Faults,
}

impl Default for World {
    fn default() -> World {
        World {
            apps: BTreeMap::new(),
            logged_in: true,
            version: "0.4.87".to_owned(),
            ssh_key: PathBuf::new(),
            ssh_user: "root".to_owned(),
            log: PathBuf::new(),
            connect_millis: 0,
            faults: Faults::default(),
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Machine {
    pub id: String,
    pub name: String,
    /// `started`, `stopped`, `suspended`, …
    pub state: String,
    pub region: String,
    pub private_ip: String,
    pub created_at: String,
    pub process_group: String,
    pub containers: Vec<Container>,
    /// The loopback port of the sshd that plays this machine.
    pub port: u16,
    pub mounts: Vec<Mount>,
}

impl Default for Machine {
    fn default() -> Machine {
        Machine {
            id: "48ed667c733018".to_owned(),
            name: "quiet-river-1234".to_owned(),
            state: "started".to_owned(),
            region: "nrt".to_owned(),
            private_ip: "fdaa:0:1a2b:a7b:1f60:1:2d3e:2".to_owned(),
            created_at: "2026-01-02T03:04:05Z".to_owned(),
            process_group: "app".to_owned(),
            containers: Vec::new(),
            port: 0,
            mounts: Vec::new(),
        }
    }
}

impl Machine {
    pub fn started(&self) -> bool {
        self.state == "started" && self.active()
    }

    /// Whether it is neither made for a single command, nor destroyed.
    pub fn active(&self) -> bool {
        let reserved = ["fly_app_release_command", "fly_app_console"];
        let gone = ["destroyed", "destroying"];
        !reserved.contains(&self.process_group.as_str()) && !gone.contains(&self.state.as_str())
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Container {
    pub name: String,
    /// Each container of a machine has its own sshd.
    pub port: u16,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    pub volume: String,
    pub path: String,
}

/// Faults of the connection. Offsets count bytes of the remote command's stdout, without the output
/// of `fly` before them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Faults {
    /// DNS lookups fail; exit 1.
    pub offline: bool,
    /// The connection breaks after exactly this many bytes; exit 0.
    pub cut_stdout_after_bytes: Option<u64>,
    /// The last bytes are lost, as before flyctl 0.4.80; exit 0.
    pub lose_last_bytes: Option<u64>,
    /// All bits of this byte are flipped.
    pub flip_byte_at: Option<u64>,
    /// The connection stalls after exactly this many bytes, until it is killed.
    pub stall_after_bytes: Option<u64>,
    /// An sftp download fails here and leaves the partial file; exit 1.
    pub sftp_cut_after_bytes: Option<u64>,
    /// The connection is killed at some point after this many bytes; exit 0.
    pub kill_ssh_after_bytes: Option<u64>,
}

impl World {
    pub fn load(path: &Path) -> Result<World> {
        let text = fs::read(path).with_context(|| format!("read {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("parse {}", path.display()))
    }

    /// Replaces the file atomically, so that no stand-in reads a partial world.
    pub fn save(&self, path: &Path) -> Result<()> {
        let parent = path.parent().context("the world is a file")?;
        let mut file = tempfile::NamedTempFile::new_in(parent)?;
        file.write_all(&serde_json::to_vec_pretty(self)?)?;
        file.persist(path)?;
        Ok(())
    }

    /// Changes the file under a lock, since tests and stand-ins both change it.
    pub fn edit(path: &Path, change: impl FnOnce(&mut World)) -> Result<World> {
        let lock = File::create(path.with_extension("lock"))?;
        lock.lock()?;
        let mut world = World::load(path)?;
        change(&mut world);
        world.save(path)?;
        Ok(world)
    }

    pub fn record(&self, argv: &[String]) -> Result<()> {
        let mut line = serde_json::to_string(argv)?;
        line.push('\n');
        let mut log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .with_context(|| format!("open {}", self.log.display()))?;
        log.write_all(line.as_bytes())?;
        Ok(())
    }

    /// The recorded standard error of the remotes.
    pub fn said(&self) -> PathBuf {
        self.log.with_extension("said")
    }

    /// The invocations so far, oldest first, without the program's name.
    pub fn invocations(&self) -> Vec<Vec<String>> {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        text.lines()
            .map(|line| serde_json::from_str(line).expect("the log has a JSON array per line"))
            .collect()
    }
}
