//! The CPU time of a server: that of its sshd and of all processes below it.

use std::time::{Duration, Instant};

use xtask_db::internals::interrupt;

use super::watch::children;

/// Ticks a second of `/proc/PID/stat`, which the interface of Linux fixes.
const TICKS: f64 = 100.0;
/// How long a connection that has ended may keep a process on the server.
const SETTLE: Duration = Duration::from_secs(10);

/// A measurement under way.
pub struct Cpu {
    pid: u32,
    before: f64,
}

impl Cpu {
    /// Nothing where the system does not tell.
    pub fn start(pid: u32) -> Option<Self> {
        Some(Self { pid, before: settled(pid)? })
    }

    /// The seconds since the start.
    pub fn end(self) -> Option<f64> {
        Some(settled(self.pid)? - self.before)
    }
}

/// The time of a process and of its children, once it has reaped all: only then they count.
fn settled(pid: u32) -> Option<f64> {
    let since = Instant::now();
    while !children(&pid.to_string()).is_empty() && since.elapsed() < SETTLE {
        interrupt::sleep(Duration::from_millis(5)).ok()?;
    }
    seconds(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The seconds of all children that this process has reaped. Nothing where the system does not
/// tell.
pub fn of_children() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    Some(ticks(&stat)?[2..].iter().sum::<u64>() as f64 / TICKS)
}

/// `utime`, `stime`, `cutime` and `cstime`: the fields 14 to 17. The second is a name in
/// brackets, which may have spaces.
fn ticks(stat: &str) -> Option<Vec<u64>> {
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<_> = fields.split_whitespace().collect();
    fields.get(11..15)?.iter().map(|field| field.parse().ok()).collect()
}

fn seconds(stat: &str) -> Option<f64> {
    Some(ticks(stat)?.iter().sum::<u64>() as f64 / TICKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_fields_are_added_up() {
        let stat = "17 (a) b) S 1 17 17 0 -1 4194560 900 80 0 0 100 20 3000 400 20 0 1 0 7";
        assert_eq!(seconds(stat), Some(35.2));
        assert_eq!(seconds("17 (sh) S 1"), None);
        assert_eq!(seconds(""), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_process_has_used_some() {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        assert!(seconds(&stat).is_some());
        assert!(Cpu::start(u32::MAX).is_none());
    }
}
