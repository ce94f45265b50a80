//! Copies the remote's stdout to ours, with the faults of the world.

use std::io::{ErrorKind, Read, Write};

use anyhow::Result;
use tests::world::Faults;

#[derive(Debug, PartialEq)]
pub enum Ending {
    /// Everything was received, and forwarded as far as the faults allow.
    Whole,
    Cut,
    Kill,
    Stall,
}

pub fn pump(mut from: impl Read, to: &mut impl Write, faults: &Faults) -> Result<Ending> {
    let mut sink = Sink { to, broken: false, held: Vec::new() };
    let mut buffer = vec![0; 64 * 1024];
    let mut passed = 0;
    loop {
        let read = match from.read(&mut buffer) {
            Ok(0) => return Ok(Ending::Whole),
            Ok(read) => read as u64,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.into()),
        };
        let chunk = &mut buffer[..usize::try_from(read)?];
        if let Some(at) = faults.flip_byte_at.and_then(|at| at.checked_sub(passed))
            && at < read
        {
            chunk[usize::try_from(at)?] ^= 0xff;
        }
        let limits = [
            (faults.cut_stdout_after_bytes, Ending::Cut),
            (faults.stall_after_bytes, Ending::Stall),
        ];
        for (limit, ending) in limits {
            if let Some(room) = limit.map(|limit| limit - passed)
                && room <= read
            {
                sink.write(&chunk[..usize::try_from(room)?]);
                return Ok(ending);
            }
        }
        sink.write_all_but(faults.lose_last_bytes.unwrap_or(0), chunk)?;
        passed += read;
        if faults.kill_ssh_after_bytes.is_some_and(|limit| limit <= passed) {
            return Ok(Ending::Kill);
        }
    }
}

struct Sink<'w, W> {
    to: &'w mut W,
    broken: bool,
    /// The last bytes received, which a fault may drop.
    held: Vec<u8>,
}

impl<W: Write> Sink<'_, W> {
    /// Ignores a failed local write, like flyctl: the remote is read to the end, and its exit
    /// status counts.
    fn write(&mut self, bytes: &[u8]) {
        self.broken |= self.to.write_all(bytes).and_then(|()| self.to.flush()).is_err();
    }

    fn write_all_but(&mut self, hold: u64, bytes: &[u8]) -> Result<()> {
        self.held.extend_from_slice(bytes);
        let ready = self.held.len().saturating_sub(usize::try_from(hold)?);
        let ready: Vec<u8> = self.held.drain(..ready).collect();
        if !self.broken {
            self.write(&ready);
        }
        Ok(())
    }
}
