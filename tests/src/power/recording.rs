//! Runs a command, and records what it does to a directory.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::calls::{Call, parse};
use super::disk::{Disk, Id, Op, is_left_out};
use crate::env::TestEnv;
use crate::faults::under_strace;
use crate::process::Running;

/// All calls that change a directory or its files, make that durable, or move where is written.
const CALLS: [&str; 42] = [
    "openat",
    "open",
    "creat",
    "close",
    "dup",
    "dup2",
    "dup3",
    "fcntl",
    "lseek",
    "read",
    "write",
    "pwrite64",
    "pwritev",
    "pwritev2",
    "writev",
    "ftruncate",
    "truncate",
    "fallocate",
    "copy_file_range",
    "sendfile",
    "ioctl",
    "rename",
    "renameat",
    "renameat2",
    "unlink",
    "unlinkat",
    "rmdir",
    "link",
    "linkat",
    "symlink",
    "symlinkat",
    "mkdir",
    "mkdirat",
    "fsync",
    "fdatasync",
    "sync_file_range",
    "sync",
    "syncfs",
    "msync",
    "openat2",
    "splice",
    "mknodat",
];

#[derive(Clone, Debug)]
pub enum Event {
    Op(Op),
    /// Of a file or directory, and what it was called.
    Sync(Id, String),
}

/// What a command has done to a directory.
pub struct Recording {
    /// The directory before.
    pub before: Disk,
    pub events: Vec<Event>,
    /// What it would be after, without a power cut.
    after: Disk,
    root: PathBuf,
    /// Where the next write of each descriptor goes.
    offsets: BTreeMap<u64, usize>,
}

/// Runs xtask successfully, and records what it does below a directory.
#[track_caller]
pub fn record(env: &TestEnv, args: &[impl AsRef<str>], root: &Path) -> Recording {
    let before = Disk::read(root);
    let flags = ["-f", "--detach-on=execve", "-y", "-xx", "-s", "100000000"];
    let output = Running::start(&mut under_strace(env, args, &CALLS, &flags)).wait();
    output.ok();
    let trace = fs::read_to_string(env.path("trace")).expect("read");
    let mut recording = Recording {
        after: before.clone(),
        before,
        events: Vec::new(),
        root: root.to_owned(),
        offsets: BTreeMap::new(),
    };
    for call in parse(&trace) {
        recording.call(&call);
    }
    // What was recorded is all that has happened.
    let (found, expected) = (Disk::read(root), &recording.after);
    if found.hash() != expected.hash() {
        expected.write_to(&env.path("expected"));
        panic!("{} is not {}", root.display(), env.path("expected").display());
    }
    recording
}

impl Recording {
    fn op(&mut self, op: Op) {
        self.after.apply(self.events.len() + 1, &op);
        self.events.push(Event::Op(op));
    }

    /// What a path names now.
    fn find(&self, path: &Path) -> Option<Id> {
        let below = path.strip_prefix(&self.root).ok()?;
        below.iter().try_fold(0, |dir, name| self.after.entry(dir, name.to_str()?))
    }

    /// The directory of a path, and the name in it.
    fn place(&self, path: &Path) -> Option<(Id, String)> {
        let name = path.file_name()?.to_str()?.to_owned();
        if is_left_out(&name) || path == self.root {
            return None;
        }
        Some((self.find(path.parent()?)?, name))
    }

    /// The file of a descriptor, which is an argument.
    fn open_file(&self, call: &Call, i: usize) -> Option<Id> {
        self.find(&call.open_path(i)?)
    }

    fn call(&mut self, call: &Call) {
        match call.name.as_str() {
            "openat" => self.open(call, &call.path(1), 2),
            "open" => self.open(call, &call.path(0), 1),
            "fcntl" if call.has(1, "F_DUPFD_CLOEXEC") || call.has(1, "F_DUPFD") => self.copy(call),
            "dup" | "dup2" | "dup3" => self.copy(call),
            "lseek" => _ = self.offsets.insert(call.descriptor(0), size(call.returned())),
            "read" => *self.offsets.entry(call.descriptor(0)).or_default() += size(call.returned()),
            "write" | "pwrite64" => self.write(call),
            "ftruncate" => {
                if let Some(file) = self.open_file(call, 0) {
                    self.op(Op::Truncate { file, size: size(call.number(1)) });
                }
            }
            "fallocate" => self.allocate(call),
            "copy_file_range" => self.copy_range(call),
            "sendfile" => self.send(call),
            "ioctl" if ["FICLONE", "BTRFS_IOC_CLONE"].iter().any(|it| call.has(1, it)) => {
                self.clone_whole(call);
            }
            "ioctl" => {}
            "fsync" | "fdatasync" => self.sync(call),
            "rename" => self.rename(&call.path(0), &call.path(1)),
            "renameat" | "renameat2" => {
                assert!(!call.has(4, "RENAME_EXCHANGE"), "exchanges are not recorded");
                self.rename(&call.path(1), &call.path(3));
            }
            "link" => self.link(&call.path(0), &call.path(1)),
            "linkat" => self.link(&call.path(1), &call.path(3)),
            "unlink" | "rmdir" => self.remove(&call.path(0)),
            "unlinkat" => self.remove(&call.path(1)),
            "mkdir" => self.make_directory(&call.path(0)),
            "mkdirat" => self.make_directory(&call.path(1)),
            "symlink" => self.make_link(call, &call.path(1)),
            "symlinkat" => self.make_link(call, &call.path(2)),
            "close" | "fcntl" | "sync_file_range" => {}
            other => {
                let is_ours = call.open_path(0).is_some_and(|path| path.starts_with(&self.root));
                assert!(!is_ours, "{other} is not recorded");
            }
        }
    }

    fn open(&mut self, call: &Call, path: &Path, flags: usize) {
        self.offsets.insert(call.returned(), 0);
        assert!(!call.has(flags, "O_TMPFILE"), "files without a name are not recorded");
        if call.opened_path().is_none_or(|opened| !opened.starts_with(&self.root)) {
            return;
        }
        match (self.find(path), self.place(path)) {
            (Some(file), _) if call.has(flags, "O_TRUNC") && self.after.size(file) > 0 => {
                self.op(Op::Truncate { file, size: 0 });
            }
            (None, Some((dir, name))) if call.has(flags, "O_CREAT") => {
                let file = self.after.add_file();
                self.op(Op::Names(vec![(dir, name, Some(file))]));
            }
            _ => {}
        }
    }

    /// A second descriptor of the same file; that they share where is written, is no matter here: only
    /// one of them is written to.
    fn copy(&mut self, call: &Call) {
        let at = self.offsets.get(&call.descriptor(0)).copied().unwrap_or_default();
        self.offsets.insert(call.returned(), at);
    }

    fn write(&mut self, call: &Call) {
        let Some(file) = self.open_file(call, 0) else { return };
        let mut data = call.bytes(1);
        data.truncate(size(call.returned()));
        let at = if call.name == "pwrite64" {
            size(call.number(3))
        } else {
            let at = self.offsets.entry(call.descriptor(0)).or_default();
            *at += data.len();
            *at - data.len()
        };
        self.op(Op::Write { file, at, data: data.into() });
    }

    fn allocate(&mut self, call: &Call) {
        let Some(file) = self.open_file(call, 0) else { return };
        let (at, length) = (size(call.number(2)), size(call.number(3)));
        if call.has(1, "FALLOC_FL_PUNCH_HOLE") {
            self.op(Op::Punch { file, at, size: length });
        } else if !call.has(1, "FALLOC_FL_KEEP_SIZE") && self.after.size(file) < at + length {
            self.op(Op::Truncate { file, size: at + length });
        }
    }

    /// The content of a file that is copied within the kernel: it may be outside.
    fn source(&self, call: &Call, i: usize, at: usize, length: usize) -> Rc<[u8]> {
        let path = call.open_path(i).expect("a file");
        let inside = self.find(&path).map(|file| self.after.content(file).to_vec());
        let content = inside.unwrap_or_else(|| fs::read(&path).expect("the source is there"));
        content[at..at + length].into()
    }

    fn copy_range(&mut self, call: &Call) {
        let length = size(call.returned());
        assert!(call.is_null(1) == call.is_null(3), "both have an offset, or none");
        let [from, to] = [0, 2].map(|i| {
            if !call.is_null(i + 1) {
                return call.offset(i + 1);
            }
            let at = self.offsets.entry(call.descriptor(i)).or_default();
            *at += length;
            *at - length
        });
        if let (Some(file), true) = (self.open_file(call, 2), length > 0) {
            let data = self.source(call, 0, from, length);
            self.op(Op::Write { file, at: to, data });
        }
    }

    fn clone_whole(&mut self, call: &Call) {
        let Some(file) = self.open_file(call, 0) else { return };
        let path = call.open_path(2).expect("a file");
        let inside = self.find(&path).map(|file| self.after.content(file).to_vec());
        let data = inside.unwrap_or_else(|| fs::read(&path).expect("the source is there"));
        self.op(Op::Truncate { file, size: data.len() });
        self.op(Op::Write { file, at: 0, data: data.into() });
    }

    fn send(&mut self, call: &Call) {
        let length = size(call.returned());
        let Some(file) = self.open_file(call, 0).filter(|_| length > 0) else { return };
        assert!(call.is_null(2), "an offset is not recorded");
        let [to, from] = [0, 1].map(|i| {
            let at = self.offsets.entry(call.descriptor(i)).or_default();
            *at += length;
            *at - length
        });
        let data = self.source(call, 1, from, length);
        self.op(Op::Write { file, at: to, data });
    }

    fn sync(&mut self, call: &Call) {
        let path = call.open_path(0).unwrap_or_default();
        if let Some(id) = self.find(&path) {
            let below = path.strip_prefix(&self.root).expect("it is below");
            self.events.push(Event::Sync(id, below.display().to_string()));
        }
    }

    fn rename(&mut self, from: &Path, to: &Path) {
        let id = self.find(from);
        let mut names = Vec::new();
        names.extend(self.place(from).map(|(dir, name)| (dir, name, None)));
        names.extend(self.place(to).map(|(dir, name)| (dir, name, id)));
        self.op(Op::Names(names));
    }

    fn link(&mut self, from: &Path, to: &Path) {
        let id = self.find(from);
        if let Some((dir, name)) = self.place(to) {
            self.op(Op::Names(vec![(dir, name, id)]));
        }
    }

    fn remove(&mut self, path: &Path) {
        if let Some((dir, name)) = self.place(path) {
            self.op(Op::Names(vec![(dir, name, None)]));
        }
    }

    fn make_directory(&mut self, path: &Path) {
        if let Some((dir, name)) = self.place(path) {
            let id = self.after.add_directory();
            self.op(Op::Names(vec![(dir, name, Some(id))]));
        }
    }

    fn make_link(&mut self, call: &Call, path: &Path) {
        if let Some((dir, name)) = self.place(path) {
            let id = self.after.add_link(String::from_utf8_lossy(&call.bytes(0)).into_owned());
            self.op(Op::Names(vec![(dir, name, Some(id))]));
        }
    }

    /// All that was made, without names.
    pub fn known(&self) -> Disk {
        let mut disk = self.before.clone();
        disk.know(&self.after);
        disk
    }
}

fn size(n: u64) -> usize {
    usize::try_from(n).expect("it fits")
}
