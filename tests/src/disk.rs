//! File systems for single tests: too small, read-only, or separate.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::process::command;

/// A file system mounted at a directory until it is dropped.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None`, with a message, if this account cannot mount one.
    pub fn mount(directory: &Path, kibibytes: u32) -> Option<SmallDisk> {
        fs::create_dir_all(directory).expect("make a directory");
        let options = format!("size={kibibytes}k,mode=700");
        if mount(&["-t", "tmpfs", "-o", &options, "tmpfs"], directory) {
            return Some(SmallDisk(directory.to_owned()));
        }
        let _ = writeln!(std::io::stderr(), "skipped: only root can mount a small disk");
        None
    }

    #[track_caller]
    pub fn make_read_only(&self, read_only: bool) {
        let options = if read_only { "remount,ro" } else { "remount,rw" };
        assert!(mount(&["-o", options], &self.0), "{options}");
    }

    /// Fills the disk, except for this space.
    #[track_caller]
    pub fn leave(&self, kibibytes: u64) {
        self.fill();
        let filler = File::options().write(true).open(self.0.join("filler")).expect("open a file");
        let length = filler.metadata().expect("it is there").len();
        filler.set_len(length.checked_sub(kibibytes << 10).expect("so much")).expect("cut a file");
    }

    /// Fills the disk.
    pub fn fill(&self) {
        let mut file = File::create(self.0.join("filler")).expect("create a file");
        while file.write_all(&[0; 4096]).is_ok() {}
    }

    pub fn free(&self) {
        fs::remove_file(self.0.join("filler")).expect("it was filled");
    }
}

fn mount(args: &[&str], directory: &Path) -> bool {
    let mounted = command("mount").args(args).arg(directory).output();
    mounted.is_ok_and(|output| output.status.success())
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A lazy umount, because a killed program may still use it.
        drop(command("umount").arg("-l").arg(&self.0).output());
    }
}
