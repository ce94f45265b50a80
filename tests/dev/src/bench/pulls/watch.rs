//! Samples the resources that a pull takes on the server.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::Serialize;
use xtask_db::internals::resources;

/// Short enough to see programs while they grow, and long enough not to disturb them.
const LOOK: Duration = Duration::from_millis(20);

/// Bytes of memory. A smaller process has just started, or does not matter.
const LEAST: u64 = 500_000;

/// The maxima of all samples.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Seen {
    /// The memory of each program, in bytes. Empty if the system does not report it.
    pub programs: BTreeMap<String, u64>,
    /// The size of the directory of temporary files, in bytes.
    pub staging: u64,
}

impl Seen {
    pub fn add(&mut self, other: Self) {
        for (name, bytes) in other.programs {
            let most = self.programs.entry(name).or_default();
            *most = bytes.max(*most);
        }
        self.staging = self.staging.max(other.staging);
    }
}

/// Samples until it is ended.
pub struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Seen>,
}

impl Watch {
    /// Samples all processes below `pid`, and the size of `dir`.
    pub fn start(pid: u32, dir: &Path) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, dir) = (stop.clone(), dir.to_owned());
        let thread = std::thread::spawn(move || {
            let mut seen = Seen::default();
            while !stopped.load(Ordering::SeqCst) {
                let mut programs = BTreeMap::new();
                look_below(&pid.to_string(), &mut programs);
                seen.add(Seen { programs, staging: size(&dir) });
                std::thread::sleep(LOOK);
            }
            seen
        });
        Self { stop, thread }
    }

    pub fn end(self) -> Seen {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().unwrap_or_default()
    }
}

fn look_below(pid: &str, programs: &mut BTreeMap<String, u64>) {
    let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
    let process = Path::new("/proc").join(pid);
    for thread in std::fs::read_dir(process.join("task")).into_iter().flatten().flatten() {
        for child in read(&thread.path().join("children")).split_whitespace() {
            let status = read(&Path::new("/proc").join(child).join("status"));
            let name = status.lines().find_map(|line| line.strip_prefix("Name:\t"));
            let peak = resources::peak(&status).filter(|bytes| *bytes >= LEAST);
            if let (Some(name), Some(bytes)) = (name, peak) {
                let most = programs.entry(name.to_owned()).or_default();
                *most = bytes.max(*most);
            }
            look_below(child, programs);
        }
    }
}

/// The total length of the files below a directory. Files that disappear meanwhile do not count.
fn size(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => size(&entry.path()),
        metadata => metadata.map_or(0, |metadata| metadata.len()),
    });
    sizes.sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use xshell::{Shell, cmd};

    #[test]
    fn the_most_is_kept_and_directories_are_summed_up() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("in")).unwrap();
        std::fs::write(dir.path().join("in/a"), [0; 70]).unwrap();
        std::fs::write(dir.path().join("b"), [0; 7]).unwrap();
        assert_eq!(size(dir.path()), 77);
        let mut seen = Seen::default();
        for (name, bytes) in [("sh", 3), ("tar", 2), ("sh", 1)] {
            seen.add(Seen { programs: [(name.to_owned(), bytes)].into(), staging: bytes });
        }
        assert_eq!(seen.programs, [("sh".to_owned(), 3), ("tar".to_owned(), 2)].into());
        assert_eq!(seen.staging, 3);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_program_below_is_seen() {
        let sh = Shell::new().unwrap();
        let mut child = std::process::Command::from(cmd!(sh, "sleep 60")).spawn().unwrap();
        let mut programs = BTreeMap::new();
        // After the fork the child has the name of its parent, and then for a moment none.
        for _ in 0..10_000 {
            look_below(&std::process::id().to_string(), &mut programs);
            if programs.contains_key("sleep") {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(programs["sleep"] >= LEAST);
    }
}
