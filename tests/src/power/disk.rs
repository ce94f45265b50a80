//! A directory as a file system has it, and the operations that change it.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::Path;
use std::rc::Rc;

use sha2::{Digest as _, Sha256};

/// A file or directory, whatever its names are.
pub type Id = usize;

#[derive(Clone, Debug)]
pub enum Op {
    Write {
        file: Id,
        at: usize,
        data: Rc<[u8]>,
    },
    Truncate {
        file: Id,
        size: usize,
    },
    /// Zeros, which take no room.
    Punch {
        file: Id,
        at: usize,
        size: usize,
    },
    /// Names that get or lose what they name, all at once.
    Names(Vec<(Id, String, Option<Id>)>),
}

impl Op {
    /// Whether a sync of this file or directory makes it durable.
    pub fn is_of(&self, id: Id) -> bool {
        match self {
            Op::Write { file, .. } | Op::Truncate { file, .. } | Op::Punch { file, .. } => {
                *file == id
            }
            Op::Names(names) => names.iter().any(|(dir, ..)| *dir == id),
        }
    }
}

/// Of a file. Most files are the same in most states: a copy costs nothing, nor does its hash.
#[derive(Clone, Debug, Default)]
struct Content {
    bytes: Rc<Vec<u8>>,
    hash: OnceCell<u64>,
}

impl Content {
    fn of(bytes: Vec<u8>) -> Content {
        Content { bytes: Rc::new(bytes), hash: OnceCell::new() }
    }

    fn change(&mut self) -> &mut Vec<u8> {
        self.hash = OnceCell::new();
        Rc::make_mut(&mut self.bytes)
    }

    fn hash(&self) -> u64 {
        // Of std's, most of the time of these tests would be.
        *self.hash.get_or_init(|| {
            let digest = Sha256::digest(&*self.bytes);
            u64::from_le_bytes(digest[..8].try_into().expect("it has more"))
        })
    }
}

#[derive(Clone, Debug)]
enum Node {
    File(Content),
    Link(String),
    /// Each name with what it names, and which operation said so.
    Directory(BTreeMap<String, (Option<Id>, usize)>),
}

/// The root is 0.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    nodes: Vec<Node>,
}

impl Disk {
    /// What is at a path, without maps of SQLite's shared memory, which are made anew.
    pub fn read(path: &Path) -> Disk {
        let mut disk = Disk { nodes: vec![Node::Directory(BTreeMap::new())] };
        disk.read_into(0, path);
        disk
    }

    fn read_into(&mut self, dir: Id, path: &Path) {
        let mut known: BTreeMap<u64, Id> = BTreeMap::new();
        self.read_linked(dir, path, &mut known);
    }

    fn read_linked(&mut self, dir: Id, path: &Path, known: &mut BTreeMap<u64, Id>) {
        use std::os::unix::fs::MetadataExt as _;

        for entry in fs::read_dir(path).expect("read a directory") {
            let entry = entry.expect("an entry");
            let name = entry.file_name().into_string().expect("a name in UTF-8");
            if is_left_out(&name) {
                continue;
            }
            let metadata = entry.path().symlink_metadata().expect("metadata");
            let id = if metadata.is_dir() {
                let id = self.add_directory();
                self.read_linked(id, &entry.path(), known);
                id
            } else if metadata.is_symlink() {
                let target = fs::read_link(entry.path()).expect("a link");
                self.add_link(target.to_string_lossy().into_owned())
            } else if let Some(id) = known.get(&metadata.ino()) {
                *id
            } else {
                let content = fs::read(entry.path()).expect("read a file");
                let id = self.add_file();
                self.nodes[id] = Node::File(Content::of(content));
                known.insert(metadata.ino(), id);
                id
            };
            self.name(dir, name, Some(id), 0);
        }
    }

    pub fn add_file(&mut self) -> Id {
        self.nodes.push(Node::File(Content::default()));
        self.nodes.len() - 1
    }

    pub fn add_directory(&mut self) -> Id {
        self.nodes.push(Node::Directory(BTreeMap::new()));
        self.nodes.len() - 1
    }

    pub fn add_link(&mut self, target: String) -> Id {
        self.nodes.push(Node::Link(target));
        self.nodes.len() - 1
    }

    /// Also knows what another disk has made, which has no name here yet.
    pub fn know(&mut self, other: &Disk) {
        for node in &other.nodes[self.nodes.len()..] {
            self.nodes.push(match node {
                Node::File(_) => Node::File(Content::default()),
                Node::Link(target) => Node::Link(target.clone()),
                Node::Directory(_) => Node::Directory(BTreeMap::new()),
            });
        }
    }

    pub fn entry(&self, dir: Id, name: &str) -> Option<Id> {
        match &self.nodes[dir] {
            Node::Directory(names) => names.get(name)?.0,
            _ => None,
        }
    }

    pub fn size(&self, file: Id) -> usize {
        self.content(file).len()
    }

    pub fn content(&self, file: Id) -> &[u8] {
        match &self.nodes[file] {
            Node::File(content) => &content.bytes,
            _ => &[],
        }
    }

    fn name(&mut self, dir: Id, name: String, id: Option<Id>, number: usize) {
        if let Node::Directory(names) = &mut self.nodes[dir] {
            let known = names.entry(name).or_insert((None, 0));
            // One that came later may be durable already.
            if known.1 <= number {
                *known = (id, number);
            }
        }
    }

    /// Applies the operation of this number.
    pub fn apply(&mut self, number: usize, op: &Op) {
        match op {
            Op::Write { file, at, data } => self.write(*file, *at, data),
            Op::Truncate { file, size } => {
                if let Node::File(content) = &mut self.nodes[*file] {
                    content.change().resize(*size, 0);
                }
            }
            Op::Punch { file, at, size } => {
                let end = (at + size).min(self.size(*file));
                let zeros = vec![0; end.saturating_sub(*at)];
                self.write(*file, *at, &zeros);
            }
            Op::Names(names) => {
                for (dir, name, id) in names {
                    self.name(*dir, name.clone(), *id, number);
                }
            }
        }
    }

    fn write(&mut self, file: Id, at: usize, data: &[u8]) {
        if let Node::File(content) = &mut self.nodes[file] {
            let content = content.change();
            if content.len() < at + data.len() {
                content.resize(at + data.len(), 0);
            }
            content[at..at + data.len()].copy_from_slice(data);
        }
    }

    /// A number for what has a name.
    pub fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.hash_below(0, &mut hasher);
        hasher.finish()
    }

    fn hash_below(&self, id: Id, hasher: &mut DefaultHasher) {
        match &self.nodes[id] {
            Node::File(content) => content.hash().hash(hasher),
            Node::Link(target) => target.hash(hasher),
            Node::Directory(names) => {
                for (name, id) in names.iter().filter_map(|(name, (id, _))| Some((name, (*id)?))) {
                    name.hash(hasher);
                    self.hash_below(id, hasher);
                }
                0xff_u8.hash(hasher);
            }
        }
    }

    /// Makes the directory at a path what this is, with its hard links.
    pub fn write_to(&self, path: &Path) {
        if path.exists() {
            fs::remove_dir_all(path).expect("remove");
        }
        self.make(0, path, &mut BTreeMap::new());
    }

    fn make(&self, id: Id, path: &Path, made: &mut BTreeMap<Id, std::path::PathBuf>) {
        use std::os::unix::fs::{PermissionsExt as _, symlink};

        match &self.nodes[id] {
            Node::File(content) => {
                if let Some(first) = made.get(&id) {
                    fs::hard_link(first, path).expect("link");
                    return;
                }
                fs::write(path, &*content.bytes).expect("write");
                fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("chmod");
                made.insert(id, path.to_owned());
            }
            Node::Link(target) => symlink(target, path).expect("a link"),
            Node::Directory(names) => {
                fs::create_dir(path).expect("make a directory");
                for (name, id) in names.iter().filter_map(|(name, (id, _))| Some((name, (*id)?))) {
                    self.make(id, &path.join(name), made);
                }
            }
        }
    }
}

/// Nothing of it is on a disk.
pub fn is_left_out(name: &str) -> bool {
    name.ends_with("-shm")
}
