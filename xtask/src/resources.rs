//! The resources of a run: time, and memory if the system reports it.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

/// Displayed as `took 0.41 s, 18.3 MB of memory at most`.
#[derive(Debug, PartialEq)]
pub struct ResourceUsage {
    pub time: Duration,
    /// The peak resident memory of this process so far, in bytes.
    pub memory: Option<u64>,
}

impl ResourceUsage {
    pub fn since(started: Instant) -> Self {
        let status = std::fs::read_to_string("/proc/self/status");
        Self { time: started.elapsed(), memory: status.ok().and_then(|text| peak(&text)) }
    }
}

/// Linux reports it as `VmHWM:     18312 kB`, in units of 1024 bytes.
pub fn peak(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

impl fmt::Display for ResourceUsage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "took {:.2} s", self.time.as_secs_f64())?;
        match self.memory {
            Some(bytes) => write!(f, ", {:.1} MB of memory at most", bytes as f64 / 1e6),
            None => Ok(()),
        }
    }
}

/// Parses the report of a child process. (wait4 would give a child's memory, but neither std nor
/// rustix offers it.)
impl FromStr for ResourceUsage {
    type Err = ();

    fn from_str(line: &str) -> Result<Self, ()> {
        let rest = line.trim().strip_prefix("took ").ok_or(())?;
        let (seconds, memory) = rest.split_once(" s").ok_or(())?;
        let memory = match memory.strip_prefix(", ") {
            Some(text) => {
                let megabytes: f64 =
                    text.strip_suffix(" MB of memory at most").ok_or(())?.parse().map_err(drop)?;
                Some((megabytes * 1e6) as u64)
            }
            None if memory.is_empty() => None,
            None => return Err(()),
        };
        let seconds = seconds.parse().map_err(drop)?;
        Ok(Self { time: Duration::try_from_secs_f64(seconds).map_err(drop)?, memory })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_understood() {
        for (memory, text) in
            [(Some(18_300_000), "took 0.41 s, 18.3 MB of memory at most"), (None, "took 0.41 s")]
        {
            let usage = ResourceUsage { time: Duration::from_millis(410), memory };
            assert_eq!(usage.to_string(), text);
            assert_eq!(format!("   {text}").parse(), Ok(usage));
        }
        for other in ["", "took long", "took 1.00 s, 3 MB", "Took 4.9 s, 71.2 MB on the wire"] {
            assert_eq!(other.parse::<ResourceUsage>(), Err(()), "{other}");
        }
        assert_eq!(peak("VmPeak:\t9 kB\nVmHWM:\t   18312 kB\nVmRSS:\t1 kB"), Some(18_751_488));
        assert_eq!(peak("VmPeak:\t9 kB"), None);
    }
}
