//! Samples the resources that a pull takes on the server.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::Serialize;
use xtask_db::internals::resources;

/// Short enough to see programs while they grow, and long enough not to disturb them.
const LOOK: Duration = Duration::from_millis(20);

/// Bytes of memory. A smaller process has just started, or does not matter.
const LEAST: u64 = 500_000;

/// Programs that read databases: too many at once would take the disk from the app.
const READERS: [&str; 2] = ["sqlite3", "dd"];

/// The most that was seen.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Seen {
    /// The memory of each program, in bytes. Empty if the system does not report it.
    pub programs: BTreeMap<String, u64>,
    /// The size of the directory of temporary files, in bytes.
    pub staging: u64,
    /// How many processes that read databases there were at the same time.
    pub readers: usize,
}

impl Seen {
    pub fn add(&mut self, other: Self) {
        for (name, bytes) in other.programs {
            let most = self.programs.entry(name).or_default();
            *most = bytes.max(*most);
        }
        self.staging = self.staging.max(other.staging);
        self.readers = self.readers.max(other.readers);
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
                let started = Instant::now();
                let mut now = Seen { staging: size(&dir), ..Seen::default() };
                look_below(&pid.to_string(), &mut now);
                seen.add(now);
                // Of many files, a look takes long: it must not take a core.
                std::thread::sleep(LOOK.max(started.elapsed() * 20));
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

fn look_below(pid: &str, seen: &mut Seen) {
    for child in children(pid) {
        let status = read(&Path::new("/proc").join(&child).join("status"));
        let name = status.lines().find_map(|line| line.strip_prefix("Name:\t"));
        let peak = resources::peak(&status).filter(|bytes| *bytes >= LEAST);
        seen.readers += usize::from(name.is_some_and(|name| READERS.contains(&name)));
        if let (Some(name), Some(bytes)) = (name, peak) {
            let most = seen.programs.entry(name.to_owned()).or_default();
            *most = bytes.max(*most);
        }
        look_below(&child, seen);
    }
}

/// The processes that one has started and not reaped. None where the system does not tell.
pub fn children(pid: &str) -> Vec<String> {
    let threads = std::fs::read_dir(Path::new("/proc").join(pid).join("task"));
    let lists = threads.into_iter().flatten().flatten().map(|t| read(&t.path().join("children")));
    lists.flat_map(|list| list.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).collect()
}

/// Nothing of a process that has ended.
fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// What a directory and those in it hold, by the lengths of files. What goes
/// away meanwhile counts nothing.
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
            let programs = [(name.to_owned(), bytes)].into();
            seen.add(Seen { programs, staging: bytes, readers: 4 - bytes as usize });
        }
        assert_eq!(seen.programs, [("sh".to_owned(), 3), ("tar".to_owned(), 2)].into());
        assert_eq!((seen.staging, seen.readers), (3, 3));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_program_below_is_seen() {
        let sh = Shell::new().unwrap();
        let mut child = std::process::Command::from(cmd!(sh, "sleep 60")).spawn().unwrap();
        let mut seen = Seen::default();
        // At first it is what it was started by, and then nothing.
        for _ in 0..10_000 {
            look_below(&std::process::id().to_string(), &mut seen);
            if seen.programs.contains_key("sleep") {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(seen.programs["sleep"] >= LEAST);
    }
}
