mod delta;
mod hostile;

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::collection::vec;
use proptest::prelude::*;
use tar::EntryType;

use sha2::{Digest as _, Sha256};

use std::io::{self, BufRead, BufReader, Read};

use super::archive::MAX_RECORD;
use super::preamble::MAX_PREAMBLE;
use super::*;
use crate::fs::hex;
use crate::sanitize::audit::{Finding, Kind};

const NONCE: &str = "0123456789abcdef";
const CODECS: [Codec; 2] = [Codec::Zstd, Codec::Gzip];

#[derive(Clone, Copy, Debug)]
enum Codec {
    Zstd,
    Gzip,
}

/// A tar member; its header may be wrong.
fn member(name: &[u8], kind: EntryType, size: u64, data: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.set_entry_type(kind);
    header.set_mode(0o600);
    header.set_size(size);
    header.set_cksum();
    let mut bytes = [header.as_bytes(), data].concat();
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn file(name: &str, data: &[u8]) -> Vec<u8> {
    member(name.as_bytes(), EntryType::Regular, data.len() as u64, data)
}

fn json(name: &str, text: &str) -> Vec<u8> {
    file(name, text.as_bytes())
}

type Databases = Vec<(String, Vec<u8>)>;

fn index_of(names: &[(&[u8], u64)]) -> String {
    let list: Vec<_> = names
        .iter()
        .map(|(name, bytes)| format!(r#"{{"name":"{}","bytes":{bytes}}}"#, hex(name)))
        .collect();
    let list = list.join(",");
    format!(
        r#"{{"version":1,"machine":"m1","region":"nrt","sqlite":"3.40.1","databases":[{list}]}}"#
    )
}

fn index_for(databases: &Databases) -> String {
    let sizes: Vec<_> = databases.iter().map(|(n, d)| (n.as_bytes(), d.len() as u64)).collect();
    index_of(&sizes)
}

fn end_of(index: &str, sums: &[String], sanitized: &str) -> String {
    let index = hex(&Sha256::digest(index));
    let sums = serde_json::to_string(sums).unwrap();
    format!(
        r#"{{"version":1,"sanitized":{sanitized},"copy_ms":1,"sanitize_ms":2,"pack_ms":3,"index":"{index}","sha256":{sums}}}"#
    )
}

/// The members of a well-formed stream: index, databases, end record.
fn members(databases: &Databases) -> Vec<Vec<u8>> {
    let sums: Vec<_> = databases.iter().map(|(_, data)| hex(&Sha256::digest(data))).collect();
    let index = index_for(databases);
    let mut members = vec![json("index.json", &index)];
    members
        .extend(databases.iter().enumerate().map(|(i, (_, data))| file(&format!("{i}.db"), data)));
    members.push(json("end.json", &end_of(&index, &sums, "null")));
    members
}

/// Two archives in sequence, as the script writes them: the last member has its own.
fn tars(members: &[Vec<u8>]) -> Vec<u8> {
    let (last, first) = members.split_last().unwrap();
    [first.concat(), vec![0; 1024], last.clone(), vec![0; 1024]].concat()
}

fn compressed(codec: Codec, mut data: impl Read) -> Vec<u8> {
    match codec {
        Codec::Zstd => {
            let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
            encoder.include_checksum(true).unwrap(); // As the zstd command does by default.
            io::copy(&mut data, &mut encoder).unwrap();
            encoder.finish().unwrap()
        }
        Codec::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            io::copy(&mut data, &mut encoder).unwrap();
            encoder.finish().unwrap()
        }
    }
}

fn marked(after: &[u8]) -> Vec<u8> {
    [format!("\nXTASK-DB 1 {NONCE}\n").as_bytes(), after].concat()
}

fn stream(codec: Codec, members: &[Vec<u8>]) -> Vec<u8> {
    marked(&compressed(codec, &tars(members)[..]))
}

fn two() -> Databases {
    vec![("data.db".to_owned(), vec![7; 700]), ("tenant_é.db".to_owned(), b"SQLite".to_vec())]
}

#[derive(Default)]
struct Recorder {
    talk: Vec<String>,
    status: Vec<String>,
    findings: Vec<Finding>,
    more: u64,
    announced: usize,
    advanced: u64,
    open: Vec<u8>,
    files: Databases,
    /// The client's bases of the databases that come as deltas.
    bases: Databases,
}

/// The maximum file size in these tests, in bytes.
const MAX_FILE: usize = 16 << 20;

impl Recorder {
    fn heard(&mut self, event: PreambleEvent) {
        match event {
            PreambleEvent::Text(line) => self.talk.push(line),
            PreambleEvent::Status(text) => self.status.push(text),
            PreambleEvent::Finding(finding) => self.findings.push(finding),
            PreambleEvent::MoreFindings(more) => self.more += more,
            PreambleEvent::Need(..) | PreambleEvent::Fact(_) | PreambleEvent::End(_) => {}
        }
    }

    fn begin(&mut self, database: &IndexEntry) {
        let base = self.bases.iter().find(|(name, _)| *name == database.name);
        let mut file = base.filter(|_| database.is_delta).map(|(_, base)| base.clone());
        if let Some(file) = &mut file {
            file.resize(usize::try_from(database.bytes).unwrap().min(MAX_FILE), 0);
        }
        self.open = file.unwrap_or_default();
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) {
        self.advanced += bytes.len() as u64;
        let offset = usize::try_from(offset).unwrap();
        let end = offset + bytes.len();
        if end > MAX_FILE {
            return; // Else a hostile size would fill the disk.
        }
        if self.open.len() < end {
            assert_eq!(self.open.len(), offset);
            self.open.resize(end, 0);
        }
        self.open[offset..end].copy_from_slice(bytes);
    }
}

fn read_preamble<'r, R: Read + 'r>(
    input: R,
    marker: Marker,
    sink: &mut Recorder,
) -> Result<(String, BufReader<R>), Error> {
    let mut preamble = Preamble::new(BufReader::new(input), NONCE, marker);
    loop {
        match preamble.read_event()? {
            PreambleEvent::End(said) => return Ok((said, preamble.into_input())),
            event => sink.heard(event),
        }
    }
}

fn read_events(
    mut archive: Archive<'_>,
    content: Content,
    sink: &mut Recorder,
) -> Result<Received, Error> {
    let mut events = archive.events(content)?;
    loop {
        match events.read_event()? {
            Event::Index(index) => sink.announced = index.databases.len(),
            Event::Database(database) => sink.begin(database),
            Event::Data { offset, bytes } => sink.write(offset, bytes),
            Event::Complete(database) => {
                sink.files.push((database.name.clone(), std::mem::take(&mut sink.open)));
            }
            Event::End(received) => return Ok(received),
        }
    }
}

fn read_archive(
    input: impl BufRead,
    content: Content,
    sink: &mut Recorder,
) -> Result<Received, Error> {
    read_events(Archive::new(input)?, content, sink)
}

/// Reads a tar without compression.
fn read_tar(input: impl Read, sink: &mut Recorder) -> Result<Received, Error> {
    read_events(Archive::of_tar(Box::new(input)), Content::Databases, sink)
}

fn read(input: impl Read, sink: &mut Recorder) -> Result<Received, Error> {
    let (_, input) = read_preamble(input, Marker::Databases, sink)?;
    read_archive(input, Content::Databases, sink)
}

fn find_archive(input: impl Read) -> Result<(Option<String>, String), Error> {
    let (said, _) = read_preamble(input, Marker::Archive, &mut Recorder::default())?;
    archive_place(&said)
}

fn read_plan(input: impl Read) -> Result<(u64, Received), Error> {
    let mut sink = Recorder::default();
    let (said, input) = read_preamble(input, Marker::Plan, &mut sink)?;
    Ok((planned_bytes(&said)?, read_archive(input, Content::Plan, &mut sink)?))
}

fn receive(input: impl Read) -> (Result<Received, Error>, Recorder) {
    let mut sink = Recorder::default();
    (read(input, &mut sink), sink)
}

fn why(input: impl Read) -> String {
    match receive(input).0 {
        Err(Error::Refused(why)) => why,
        other => panic!("not refused: {other:?}"),
    }
}

/// Asserts that the received files are `databases`, and verified.
fn assert_delivered(received: &Received, sink: &Recorder, databases: &Databases) {
    assert_eq!(sink.files, *databases);
    let proven = received.databases.iter().map(|d| (d.name.as_str(), d.bytes, d.sha256.clone()));
    let sent = databases.iter().map(|(n, d)| (n.as_str(), d.len() as u64, hex(&Sha256::digest(d))));
    assert!(proven.eq(sent));
}

#[test]
fn a_whole_stream_is_read_past_the_talk_before_it() {
    let talk = format!(
        "Connecting to fdaa::3... complete\r\n\
         No machine specified, using 7811 in region nrt\n\n\
         \u{7}\u{1b}[2Jodd \u{fffd}\n\
         XTASK-DB 1 ffffffffffffffff\nXTASK-DB 2 {NONCE}\n XTASK-DB 1 {NONCE}\nXTASK-DB 1 {NONCE}0\n\
         XTASK-DB-FAILED 1 ffffffffffffffff no-space of another pull\n\
         XTASK-DB-ARCHIVE 1 {NONCE} m1 /tmp/a\n\
         XTASK-DB-STATUS 1 {NONCE} copying 2 706\r\nXTASK-DB-STATUS 1 {NONCE} packing\n"
    );
    for codec in CODECS {
        let input = [talk.as_bytes(), &stream(codec, &members(&two())), b"bye\n"].concat();
        let (received, sink) = receive(&input[..]);
        let received = received.unwrap();
        assert_delivered(&received, &sink, &two());
        assert_eq!((sink.announced, sink.advanced), (2, 706));
        assert_eq!(sink.status, ["copying 2 706", "packing"]);
        assert_eq!(sink.talk[1], "No machine specified, using 7811 in region nrt");
        assert_eq!(sink.talk.len(), 9, "{:?}", sink.talk);
        let Timings { copy, sanitize, pack, .. } = received.timings;
        assert_eq!((copy, sanitize, pack), (1, 2, 3));
    }
}

#[test]
fn what_an_audit_found_is_told_before_the_marker_or_with_the_failure() {
    let said = format!(
        "XTASK-DB-AUDIT 1 {NONCE} 2 612e6462 75e2869273 c3a9ff 4200 personal tgu 61,62\n\
         XTASK-DB-AUDIT 1 ffffffffffffffff 1 61 62 63 1 secret t -\n\
         XTASK-DB-AUDIT 1 {NONCE} 1 61  2a 0 unread module -\nXTASK-DB-AUDIT-MORE 1 {NONCE} 7\n"
    );
    let finding = |table: &str, column: &str, kind, rows, databases, database: &str| Finding {
        table: table.to_owned(),
        column: column.to_owned(),
        kind,
        rows,
        databases,
        database: database.to_owned(),
        set: None,
        empty: None,
        condition: None,
        generated_from: Vec::new(),
        unread: None,
    };
    let personal = finding("u→s", "é\u{fffd}", Kind::Personal, 4200, 2, "a.db");
    let unread = finding("", "*", Kind::Unread, 0, 1, "a");
    let wanted = [
        Finding { generated_from: vec!["a".to_owned(), "b".to_owned()], ..personal },
        Finding { unread: Some("no such module"), ..unread },
    ];
    let failed = format!("XTASK-DB-FAILED 1 {NONCE} audit found\n");
    for after in [&stream(Codec::Zstd, &members(&two())), failed.as_bytes()] {
        let (received, sink) = receive(&[said.as_bytes(), after].concat()[..]);
        assert_eq!(received.is_ok(), after.len() > failed.len());
        assert_eq!((&sink.findings[..], sink.more, sink.talk.len()), (&wanted[..], 7, 1));
    }
}

#[test]
fn what_is_no_finding_is_refused() {
    for said in [
        "AUDIT 1 {} ",
        "AUDIT 1 {}",
        "AUDIT 1 {} 1 61 62 63 1 secret t",
        "AUDIT 1 {} 1 61 62 63 1 secret t - more",
        "AUDIT 1 {} 1 61 62 63 1 odd t -",
        "AUDIT 1 {} 1 61 62 63 1 secret q -",
        "AUDIT 1 {} 1 61 62 63 1 secret t 6g",
        "AUDIT 1 {} 1 61 62 63 0 unread t -",
        "AUDIT 1 {} 1 61 62 6 1 secret t -",
        "AUDIT 1 {} 1 61 62 6g 1 secret t -",
        "AUDIT 1 {} 1 61 62 63 -1 secret t -",
        "AUDIT 1 {} x 61 62 63 1 secret t -",
        "AUDIT-MORE 1 {} x",
        "AUDIT-MORE 1 {} -1",
        "AUDIT-MORE 1 {} 18446744073709551615",
    ] {
        let line = format!("XTASK-DB-{}\n", said.replace("{}", NONCE));
        why(&[line.as_bytes(), &stream(Codec::Zstd, &members(&two()))].concat()[..]);
    }
    let line = format!("XTASK-DB-AUDIT 1 {NONCE} 1 61 62 63 1 secret t -\n");
    assert!(
        receive(
            &[line.repeat(1000).as_bytes(), &stream(Codec::Zstd, &members(&two()))].concat()[..]
        )
        .0
        .is_ok()
    );
    assert!(why(line.repeat(1001).as_bytes()).contains("more than 1000"));
}

#[test]
fn hashes_are_asked_for_once_in_order_and_by_a_known_name() {
    let read = |lines: &[&str]| {
        let text: String =
            lines.iter().map(|line| format!("XTASK-DB-NEED 1 {NONCE}{line}\n")).collect();
        let mut preamble = Preamble::new(BufReader::new(text.as_bytes()), NONCE, Marker::Databases);
        let first = preamble.read_event();
        let second = preamble.read_event();
        (first, second)
    };
    for (line, numbers) in [(" crc32 0 2 9", &[0, 2, 9][..]), (" sha3", &[]), (" sha3 4\r", &[4])] {
        let (first, second) = read(&[line]);
        assert!(
            matches!(&first, Ok(PreambleEvent::Need(_, found)) if found == numbers),
            "{first:?}"
        );
        assert!(matches!(second, Err(Error::NoStream)));
    }
    for line in ["", " ", " md5 0", " 0", " sha3 x", " sha3 -1", " sha3 1 1", " crc32 2 1"] {
        let (first, _) = read(&[line]);
        assert!(matches!(first, Err(Error::Refused(_))), "{line:?}: {first:?}");
    }
    let (_, second) = read(&[" sha3 0", " sha3 1"]);
    assert!(matches!(second, Err(Error::Refused(_))), "{second:?}");
}

#[test]
fn a_carriage_return_before_the_newline_of_the_marker_is_none_of_the_archive() {
    let archive = compressed(Codec::Zstd, &tars(&members(&two()))[..]);
    let input = [format!("XTASK-DB 1 {NONCE}\r\n").as_bytes(), &archive].concat();
    assert!(receive(&input[..]).0.is_ok());
}

#[test]
fn rows_changed_are_told_for_each_database() {
    let mut members = members(&two());
    let sums = two().iter().map(|(_, data)| hex(&Sha256::digest(data))).collect::<Vec<_>>();
    *members.last_mut().unwrap() = json("end.json", &end_of(&index_for(&two()), &sums, "[3,0]"));
    let received = receive(&stream(Codec::Gzip, &members)[..]).0.unwrap();
    assert_eq!(received.databases.iter().map(|d| d.sanitized).collect::<Vec<_>>(), [3, 0]);
}

#[test]
fn a_stream_cut_anywhere_is_known_as_cut() {
    for codec in CODECS {
        let stream = stream(codec, &members(&two()));
        for end in 0..stream.len() {
            let error = receive(&stream[..end]).0.unwrap_err();
            let fits = match end < marked(b"").len() {
                true => matches!(error, Error::NoStream),
                false => matches!(error, Error::Cut),
            };
            assert!(fits, "{codec:?} cut at {end} of {}: {error:?}", stream.len());
        }
    }
}

#[test]
fn a_changed_byte_never_changes_what_is_delivered() {
    for codec in CODECS {
        let stream = stream(codec, &members(&two()));
        let start = marked(b"").len();
        for i in start..stream.len() {
            for mask in [1, 4, 0x20, 0x80, 0xff] {
                let mut changed = stream.clone();
                changed[i] ^= mask;
                if let (Ok(received), sink) = receive(&changed[..]) {
                    assert_delivered(&received, &sink, &two());
                }
            }
        }
    }
}

/// Returns its bytes in reads of these sizes, in turn.
struct Reads<'a>(&'a [u8], std::iter::Cycle<std::slice::Iter<'a, usize>>);

impl Read for Reads<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = (*self.1.next().unwrap()).min(self.0.len()).min(buffer.len());
        let (now, later) = self.0.split_at(n);
        buffer[..n].copy_from_slice(now);
        self.0 = later;
        Ok(n)
    }
}

fn a_codec() -> impl Strategy<Value = Codec> {
    prop_oneof![Just(Codec::Zstd), Just(Codec::Gzip)]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn what_is_sent_arrives_however_it_is_read(
        contents in vec(vec(any::<u8>(), 0..2000), 1..5),
        reads in vec(1_usize..900, 1..20),
        codec in a_codec(),
    ) {
        let databases: Databases =
            contents.into_iter().enumerate().map(|(i, data)| (format!("t {i}.db"), data)).collect();
        let stream = stream(codec, &members(&databases));
        let (received, sink) = receive(Reads(&stream, reads.iter().cycle()));
        assert_delivered(&received.unwrap(), &sink, &databases);
    }

    #[test]
    fn noise_is_never_a_stream(noise in vec(any::<u8>(), 0..3000), form in 0..5) {
        let after = match form {
            0 => noise,
            1 => [&[0x28, 0xb5, 0x2f, 0xfd], &noise[..]].concat(),
            2 => [&[0x1f, 0x8b, 8, 0], &noise[..]].concat(),
            3 => compressed(Codec::Zstd, &noise[..]),
            _ => compressed(Codec::Gzip, &[&members(&two())[0], &noise[..]].concat()[..]),
        };
        prop_assert!(receive(&marked(&after)[..]).0.is_err());
    }

    #[test]
    fn a_mutation_of_the_compressed_stream_never_changes_what_is_delivered(
        at in any::<prop::sample::Index>(), gone in 0_usize..40, put in vec(any::<u8>(), 0..40), codec in a_codec(),
    ) {
        let mut stream = stream(codec, &members(&two()));
        let start = marked(b"").len();
        let at = start + at.index(stream.len() - start);
        stream.splice(at..stream.len().min(at + gone), put);
        if let (Ok(received), sink) = receive(&stream[..]) {
            assert_delivered(&received, &sink, &two());
        }
    }

    #[test]
    fn a_mutation_of_the_archive_is_refused_or_proven(
        at in any::<prop::sample::Index>(), gone in 0_usize..40, put in vec(any::<u8>(), 0..40),
    ) {
        let mut tars = tars(&members(&two()));
        let at = at.index(tars.len());
        tars.splice(at..tars.len().min(at + gone), put);
        if let (Ok(received), sink) = receive(&marked(&compressed(Codec::Zstd, &tars[..]))[..]) {
            assert_delivered(&received, &sink, &sink.files);
        }
    }
}
