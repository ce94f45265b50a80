//! A disk that is too small.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::process::command;

/// A file system of its own at a directory, until it is dropped.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// None, with a word about it, where this account may not mount one.
    pub fn mount(directory: &Path, kibibytes: u32) -> Option<SmallDisk> {
        fs::create_dir_all(directory).expect("make a directory");
        let mut mount = command("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={kibibytes}k,mode=700"), "tmpfs"]);
        let mounted = mount.arg(directory).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(SmallDisk(directory.to_owned()));
        }
        let _ = writeln!(std::io::stderr(), "skipped: only root can mount a small disk");
        None
    }

    /// Takes all that is free.
    pub fn fill(&self) {
        let mut file = File::create(self.0.join("filler")).expect("create a file");
        while file.write_all(&[0; 4096]).is_ok() {}
    }

    pub fn free(&self) {
        fs::remove_file(self.0.join("filler")).expect("it was filled");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily, because a program that is being killed may still be in it.
        drop(command("umount").arg("-l").arg(&self.0).output());
    }
}
