//! What `fuzz/` feeds with arbitrary bytes: each takes any input, and panics
//! where something is believed that should not be.

use std::collections::{BTreeSet, HashSet};
use std::io::{BufRead, BufReader};
use std::path::Path;

use sha2::{Digest as _, Sha256};

use xtask_db::internals::durable::hex;
use xtask_db::internals::live::State;
use xtask_db::internals::settings::NamePattern;
use xtask_db::internals::snapshots::{self, Kind, Snapshot};
use xtask_db::internals::stream::{
    Archive, Content, Error, Event, Index, IndexEntry, Marker, Preamble, PreambleEvent, Received,
    archive_place, planned_bytes,
};

const NONCE: &str = "0123456789abcdef";
/// Stands for a disk: a stream that announces more is given up. Two chunks fit onto it.
const ROOM: u64 = 4 << 20;

/// The first byte says how far the rest has come on its way through a stream: as
/// it arrives, without its compression, or in parts that are put together with
/// the sums that fit, so that what lies behind those is reached.
pub fn stream(data: &[u8]) {
    let Some((way, rest)) = data.split_first() else { return };
    let mut sink = Recorder::default();
    let received = match way {
        b'r' => read(rest, &mut sink),
        b'a' => read_archive(rest, &mut sink),
        b't' => read_archive(&stored(rest)[..], &mut sink),
        b'p' => read_archive(&stored(&parts(rest, false))[..], &mut sink),
        b'd' => read_archive(&stored(&parts(rest, true))[..], &mut sink),
        b'n' => {
            sink.is_of_plan = true;
            let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
            let (said, rest) = rest.split_at(end);
            let marker = format!("XTASK-DB-PLAN 1 {NONCE} ").into_bytes();
            let archive = stored(&parts(rest.get(1..).unwrap_or_default(), true));
            read_plan(&[&marker, said, b"\n", &archive].concat(), &mut sink)
        }
        b'f' => {
            if let Ok((machine, path)) = find_archive(rest, &mut sink) {
                let harmless = |c: char| c.is_ascii() && !c.is_control() && !"'\"`$;\\".contains(c);
                assert!(path.starts_with('/') && path.chars().all(harmless), "{path:?}");
                assert!(!machine.is_some_and(|machine| machine.starts_with('-')));
            }
            return;
        }
        _ => return,
    };
    sink.assert_bounded();
    match received {
        Ok(received) => sink.assert_proven(&received),
        Err(error) => assert!(error.to_string().len() < 10_000),
    }
}

fn read(input: &[u8], sink: &mut Recorder) -> Result<Received, Error> {
    let (_, input) = read_preamble(input, Marker::Databases, sink)?;
    read_archive(input, sink)
}

fn read_plan(input: &[u8], sink: &mut Recorder) -> Result<Received, Error> {
    let (said, input) = read_preamble(input, Marker::Plan, sink)?;
    planned_bytes(&said)?;
    read_archive(input, sink)
}

fn find_archive(input: &[u8], sink: &mut Recorder) -> Result<(Option<String>, String), Error> {
    let (said, _) = read_preamble(input, Marker::Archive, sink)?;
    archive_place(&said)
}

fn read_preamble<'i>(
    input: &'i [u8],
    marker: Marker,
    sink: &mut Recorder,
) -> Result<(String, BufReader<&'i [u8]>), Error> {
    let mut preamble = Preamble::new(BufReader::new(input), NONCE, marker);
    loop {
        match preamble.read_event()? {
            PreambleEvent::End(said) => return Ok((said, preamble.into_input())),
            event => sink.record(&event),
        }
    }
}

fn read_archive(input: impl BufRead, sink: &mut Recorder) -> Result<Received, Error> {
    let mut archive = Archive::new(input)?;
    let content = if sink.is_of_plan { Content::Plan } else { Content::Databases };
    let mut events = archive.events(content)?;
    loop {
        match events.read_event()? {
            Event::Index(index) => sink.begin(index)?,
            Event::Database(_) => sink.open = Written::default(),
            Event::Data { offset, bytes } => sink.write(offset, bytes),
            Event::Complete(database) => sink.complete(database),
            Event::End(received) => return Ok(received),
        }
    }
}

/// A zstd frame that holds this as it is.
fn stored(data: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x68];
    let mut block = |bytes: &[u8], last: u32| {
        let header = ((bytes.len() as u32) << 3 | last).to_le_bytes();
        frame.extend_from_slice(&header[..3]);
        frame.extend_from_slice(bytes);
    };
    data.chunks(1 << 16).for_each(|bytes| block(bytes, 0));
    block(&[], 1);
    frame
}

/// Index, databases and end record, which a `0xff` separates, as an archive. In
/// the end record `#i` stands for the sum of the index and `#` with a digit for
/// that of a database. If they are `named`, each but the records has its name before a `=`.
fn parts(data: &[u8], named: bool) -> Vec<u8> {
    let mut parts: Vec<_> = data.split(|byte| *byte == 0xff).map(<[u8]>::to_vec).collect();
    let mut end = parts.pop().unwrap_or_default();
    let name = |(i, part): (usize, &mut Vec<u8>)| match i.checked_sub(1) {
        None => b"index.json".to_vec(),
        Some(_) if named => {
            let length = part.iter().position(|byte| *byte == b'=').unwrap_or_default();
            let mut name: Vec<_> = part.drain(..part.len().min(length + 1)).collect();
            name.truncate(length.min(100));
            name
        }
        Some(i) => format!("{i}.db").into_bytes(),
    };
    let names: Vec<_> = parts.iter_mut().enumerate().map(name).collect();
    let sums: Vec<_> = parts.iter().map(|part| hex(&Sha256::digest(part))).collect();
    let mut filled = Vec::new();
    while let Some(at) = end.iter().position(|byte| *byte == b'#') {
        let number = match end.get(at + 1) {
            Some(b'i') => Some(0),
            Some(digit @ b'0'..=b'8') => Some(usize::from(digit - b'0') + 1),
            _ => None,
        };
        filled.extend_from_slice(&end[..at]);
        filled.extend(number.and_then(|n| sums.get(n)).into_iter().flat_map(|sum| sum.bytes()));
        end.drain(..end.len().min(at + 2));
    }
    filled.append(&mut end);
    let mut archive = tar::Builder::new(Vec::new());
    let last = (b"end.json".to_vec(), &filled);
    for (name, content) in names.into_iter().zip(&parts).chain([last]) {
        let mut header = tar::Header::new_ustar();
        header.as_old_mut().name[..name.len()].copy_from_slice(&name);
        header.set_size(content.len() as u64);
        header.set_cksum();
        archive.append(&header, &content[..]).unwrap();
    }
    archive.into_inner().unwrap()
}

/// Of each database what is to be proven.
#[derive(Default)]
struct Recorder {
    announced: u64,
    names: Vec<String>,
    advanced: u64,
    open: Written,
    /// With the sum of what came whole.
    files: Vec<(String, u64, Option<String>)>,
    is_of_plan: bool,
    said: usize,
    findings: usize,
}

#[derive(Default)]
struct Written {
    bytes: u64,
    gap: bool,
    hash: Sha256,
}

impl Recorder {
    fn record(&mut self, event: &PreambleEvent) {
        match event {
            PreambleEvent::Text(text) | PreambleEvent::Status(text) => self.said += text.len(),
            PreambleEvent::Finding(finding) => {
                self.findings += 1;
                self.said += finding.table.len() + finding.column.len() + finding.database.len();
            }
            PreambleEvent::MoreFindings(_)
            | PreambleEvent::Need(..)
            | PreambleEvent::Fact(_)
            | PreambleEvent::End(_) => {}
        }
    }

    fn begin(&mut self, index: &Index) -> Result<(), Error> {
        let sum = |sum: u64, database: &IndexEntry| sum.saturating_add(database.bytes);
        self.announced = index.databases.iter().fold(0, sum);
        self.names = index.databases.iter().map(|database| database.name.clone()).collect();
        if self.announced > ROOM { Err(Error::Cut) } else { Ok(()) }
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) {
        assert!(offset >= self.open.bytes, "bytes come in their order");
        self.open.gap |= offset > self.open.bytes;
        self.open.bytes = offset + bytes.len() as u64;
        self.open.hash.update(bytes);
        self.advanced += bytes.len() as u64;
    }

    fn complete(&mut self, database: &IndexEntry) {
        let Written { bytes, gap, hash } = std::mem::take(&mut self.open);
        let sum = if database.is_delta {
            assert!(bytes <= database.bytes, "no block lies behind the end");
            None
        } else {
            assert!(bytes == database.bytes && !gap);
            Some(hex(&hash.finalize()))
        };
        self.files.push((database.name.clone(), database.bytes, sum));
    }

    fn assert_bounded(&self) {
        assert!(self.advanced <= self.announced, "more than was announced");
        // Each byte of what is no UTF-8 becomes three.
        assert!(self.said <= 3 * (4 << 20) && self.findings <= 1000);
        for name in &self.names {
            let components: Vec<_> = Path::new(name).components().collect();
            assert!(matches!(components[..], [std::path::Component::Normal(_)]), "{name:?}");
            assert!(!name.starts_with('.') && !name.chars().any(char::is_control), "{name:?}");
            assert_ne!(name, "snapshot.json");
        }
        let distinct: HashSet<_> = self.names.iter().map(|name| name.to_lowercase()).collect();
        assert_eq!(distinct.len(), self.names.len(), "{:?}", self.names);
    }

    fn assert_proven(&self, received: &Received) {
        assert!(!received.databases.is_empty());
        if self.is_of_plan {
            assert_eq!((self.files.len(), self.advanced), (0, 0));
        } else {
            assert_eq!(self.files.len(), received.databases.len());
            for ((name, bytes, sum), proven) in self.files.iter().zip(&received.databases) {
                assert_eq!((name, bytes), (&proven.name, &proven.bytes));
                assert_eq!(sum.is_none(), proven.changed.is_some());
                assert!(sum.as_ref().is_none_or(|sum| *sum == proven.sha256));
            }
        }
        // It is added up for the summary.
        let _: u64 = received.databases.iter().map(|database| database.sanitized).sum();
    }
}

/// Snapshots as lines of their parts, separated by `0xff`: the name of the
/// directory, its `snapshot.json`, and a line of a size and a name for each file.
/// Before them a byte says how many are to be kept, and a line which is sought.
pub fn snapshot(data: &[u8]) {
    let Some((keep, rest)) = data.split_first() else { return };
    let keep = usize::from(*keep % 8);
    let mut parts = rest.split(|byte| *byte == 0xff);
    let sought = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    let (mut snapshots, mut names) = (Vec::new(), HashSet::new());
    while let (Some(name), Some(meta), Some(files)) = (parts.next(), parts.next(), parts.next()) {
        let name = String::from_utf8_lossy(name).replace(['/', '\0'], "");
        if !names.insert(name.clone()) {
            continue; // No directory has two of one name.
        }
        let files = String::from_utf8_lossy(files).into_owned();
        // No file system has more than fits into the sum of all of them.
        let file = |line: &str| {
            let (bytes, name) = line.split_once(' ')?;
            Some((name.to_owned(), u64::from(bytes.parse::<u32>().ok()?)))
        };
        snapshots.extend(Snapshot::of(
            Path::new("/data").join(name),
            Some(meta).filter(|meta| !meta.is_empty()),
            files.lines().filter_map(file).collect(),
        ));
    }
    snapshots.sort_by(|a, b| (b.order, &b.name).cmp(&(a.order, &a.name)));
    look_at(&snapshots, keep, &sought);
    // Of a state any name may come out, and is then sought like one that was typed.
    if let Ok(State { live: Some(live), .. }) = serde_json::from_slice(rest) {
        look_at(&snapshots, keep, &live);
    }
}

fn look_at(snapshots: &[Snapshot], keep: usize, sought: &str) {
    for snapshot in snapshots {
        let whole = snapshot.meta.is_some() && snapshot.defect.is_none();
        let has =
            |name: &str, bytes| snapshot.files.iter().any(|file| *file == (name.to_owned(), bytes));
        let listed = snapshot.meta.iter().flat_map(|meta| &meta.databases);
        assert!(!whole || listed.clone().all(|database| has(&database.name, database.bytes)));
        let _ = (snapshot.bytes(), snapshot.kind(), snapshot.origin(), snapshot.raw());
        if let Some(Ok(only)) = snapshot.only().map(NamePattern::anywhere) {
            drop(snapshot.defect_of(Some(&only)));
        }
    }
    let needed: Vec<_> = snapshots.iter().step_by(3).map(|one| one.name.clone()).collect();
    let kinds = [Kind::Pull, Kind::BeforePull, Kind::BeforeRestore];
    let expired: BTreeSet<_> = snapshots.iter().step_by(5).map(|one| one.name.clone()).collect();
    let plan = snapshots::prune_plan(snapshots, keep, &expired, &needed, &BTreeSet::new(), None);
    for doomed in &plan.remove {
        assert!(doomed.defect.is_none() && !needed.contains(&doomed.name));
        let kind = doomed.meta.as_ref().map(|meta| meta.kind);
        assert!(kind.is_some_and(|kind| kinds.contains(&kind)));
        // As many of its kind that are newer, and could be restored, stay.
        let newer = snapshots.iter().take_while(|one| one.name != doomed.name);
        let stay = newer.filter(|one| one.defect.is_none() && class(one) == class(doomed));
        assert!(stay.count() >= keep || expired.contains(&doomed.name));
        // Of what a save has, a sound snapshot that stays has a copy.
        let stays = |one: &&Snapshot| !plan.remove.iter().any(|doomed| doomed.name == one.name);
        let stay = || snapshots.iter().filter(|one| one.defect.is_none()).filter(stays);
        let has = |name: &str| stay().any(|one| one.files.iter().any(|(file, _)| file == name));
        assert!(doomed.is_pull() || doomed.files.iter().all(|(name, _)| has(name)));
    }
    if let Ok(found) = snapshots::find(snapshots, sought, Path::new("/data")) {
        assert!(!sought.is_empty() && found.name.contains(sought));
    }
}

/// Whole pulls, other pulls, and saves are counted apart.
fn class(snapshot: &Snapshot) -> (Option<bool>, bool) {
    match snapshot.meta.as_ref().map(|meta| meta.kind) {
        Some(Kind::Pull) => (Some(true), snapshot.only().is_some()),
        Some(Kind::BeforePull | Kind::BeforeRestore) => (Some(false), false),
        Some(Kind::Manual) | None => (None, false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus");

    fn replay(target: &str, run: fn(&[u8])) {
        let corpus = Path::new(CORPUS).join(target);
        let mut inputs = 0;
        for entry in std::fs::read_dir(corpus).unwrap() {
            run(&std::fs::read(entry.unwrap().path()).unwrap());
            inputs += 1;
        }
        assert!(inputs > 10, "{inputs} inputs");
    }

    #[test]
    fn the_corpus_of_streams_is_replayed() {
        replay("stream", stream);
    }

    #[test]
    fn the_corpus_of_snapshots_is_replayed() {
        replay("snapshot", snapshot);
    }

    #[test]
    fn an_input_of_parts_can_be_a_whole_stream() {
        let index = r#"{"version":1,"machine":"m","region":"r","sqlite":"3","databases":[{"name":"61","bytes":1}]}"#;
        let end = r##"{"version":1,"sanitized":[1],"copy_ms":1,"sanitize_ms":2,"pack_ms":3,"index":"#i","sha256":["#0"]}"##;
        let input = [index.as_bytes(), b"\xffx\xff", end.as_bytes()].concat();
        let mut sink = Recorder::default();
        read_archive(&stored(&parts(&input, false))[..], &mut sink).unwrap();
    }

    #[test]
    fn the_corpus_has_whole_streams_of_chunks_and_a_plan() {
        let corpus = Path::new(CORPUS).join("stream");
        for (name, files, advanced) in [("chunks", 2, 3), ("far-chunk", 1, 3)] {
            let input = std::fs::read(corpus.join(name)).unwrap();
            let mut sink = Recorder::default();
            read_archive(&stored(&parts(&input[1..], true))[..], &mut sink).unwrap();
            assert_eq!((sink.files.len(), sink.advanced >= advanced), (files, true), "{name}");
        }
    }
}
