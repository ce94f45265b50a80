//! Databases that come as deltas.

use super::*;
use crate::fixtures::random::Sequence;
use crate::pull::delta::{BLOCK, CHUNK};

/// For each database, the client's base and the server's copy.
type Copies = Vec<(Option<Vec<u8>>, Vec<u8>)>;

/// The script's output for copy `i`: for each chunk with differences a map and the blocks, in an
/// archive of its own; and the number of blocks.
fn chunks(i: usize, base: &[u8], new: &[u8]) -> (Vec<Vec<u8>>, u64) {
    let (mut members, mut changed) = (Vec::new(), 0);
    for (k, chunk) in new.chunks(CHUNK as usize).enumerate() {
        let (mut map, mut blocks) = (Vec::new(), Vec::new());
        for (b, block) in chunk.chunks(BLOCK as usize).enumerate() {
            let old = base.get(k * CHUNK as usize + b * BLOCK as usize..).unwrap_or_default();
            let same = old[..old.len().min(BLOCK as usize)] == *block;
            map.push(if same { b'0' } else { b'1' });
            blocks.extend_from_slice(if same { b"" } else { block });
            changed += u64::from(!same);
        }
        if !blocks.is_empty() {
            let archive = [file(&format!("{i}.{k}"), &[map, blocks].concat()), vec![0; 1024]];
            members.push(archive.concat());
        }
    }
    (members, changed)
}

fn name(i: usize) -> String {
    format!("t {i}.db")
}

fn index_of(copies: &Copies) -> String {
    let list = copies.iter().enumerate().map(|(i, (base, new))| {
        let (name, delta) = (hex(name(i).as_bytes()), base.is_some());
        format!(r#"{{"name":"{name}","bytes":{},"delta":{delta}}}"#, new.len())
    });
    let list = list.collect::<Vec<_>>().join(",");
    super::index_of(&[]).replace("[]", &format!("[{list}]"))
}

/// An end record with the `changed` field.
fn end_for(copies: &Copies, changed: &str) -> String {
    let sums: Vec<_> = copies.iter().map(|(_, new)| hex(&Sha256::digest(new))).collect();
    let end = end_of(&index_of(copies), &sums, "null");
    end.replace(r#""sha256""#, &format!(r#""changed":{changed},"sha256""#))
}

fn members_of(copies: &Copies) -> Vec<Vec<u8>> {
    let mut members = vec![json("index.json", &index_of(copies))];
    let mut changed = Vec::new();
    for (i, (base, new)) in copies.iter().enumerate() {
        if let Some(base) = base {
            let (chunks, blocks) = chunks(i, base, new);
            members.extend(chunks);
            changed.push(format!("[{blocks},{blocks}]"));
        } else {
            members.push(file(&format!("{i}.db"), new));
            changed.push("null".to_owned());
        }
    }
    members.push(json("end.json", &end_for(copies, &format!("[{}]", changed.join(",")))));
    members
}

fn receive(copies: &Copies, input: impl Read) -> (Result<Received, Error>, Recorder) {
    let bases = copies.iter().enumerate();
    let bases = bases.filter_map(|(i, (base, _))| Some((name(i), base.clone()?))).collect();
    let mut sink = Recorder { bases, ..Recorder::default() };
    (read(input, &mut sink), sink)
}

fn assert_put_together(received: &Received, sink: &Recorder, copies: &Copies) {
    let sent = copies.iter().enumerate().map(|(i, (_, new))| (name(i), new));
    assert!(sink.files.iter().map(|(name, data)| (name.clone(), data)).eq(sent));
    let changed = received.databases.iter().map(|database| database.changed.map(|c| c.blocks));
    let sent = copies.iter().enumerate();
    assert!(changed.eq(sent.map(|(i, (base, new))| Some(chunks(i, base.as_ref()?, new).1))));
}

/// The same for the same seed.
fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let random = Sequence::new(seed);
    std::iter::repeat_with(|| random.number() as u8).take(bytes).collect()
}

/// Sizes around the ends of a block, a tar block and a chunk, and others.
fn a_size() -> impl Strategy<Value = usize> {
    let around = |at: u64| at as usize - 2..at as usize + 3;
    prop_oneof![0..5_usize, around(BLOCK), around(CHUNK), around(2 * CHUNK), 0..5_usize << 20]
}

fn a_copy() -> impl Strategy<Value = (Option<Vec<u8>>, Vec<u8>)> {
    let changes = vec((any::<prop::sample::Index>(), 1_usize..5000), 0..8);
    (any::<bool>(), any::<u64>(), a_size(), a_size(), changes).prop_map(
        |(has_base, seed, old, size, changes)| {
            let base = noise(seed, old);
            let mut new = base.clone();
            new.resize(size, 7);
            for (at, bytes) in changes.into_iter().filter(|_| size > 0) {
                let at = at.index(size);
                new[at..size.min(at + bytes)].iter_mut().for_each(|byte| *byte ^= 0x55);
            }
            (has_base.then_some(base), new)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(60) })]

    #[test]
    fn what_differs_and_what_is_here_become_what_the_server_has(
        copies in vec(a_copy(), 1..4),
        reads in vec(1_usize..100_000, 1..20),
        codec in a_codec(),
    ) {
        let stream = stream(codec, &members_of(&copies));
        let (received, sink) = receive(&copies, Reads(&stream, reads.iter().cycle()));
        assert_put_together(&received.unwrap(), &sink, &copies);
    }

    #[test]
    fn a_mutation_of_an_archive_of_blocks_is_refused_or_no_longer_than_announced(
        at in any::<prop::sample::Index>(), gone in 0_usize..40, put in vec(any::<u8>(), 0..40),
    ) {
        let copies = changed();
        let mut tars = tars(&members_of(&copies));
        let at = at.index(tars.len());
        tars.splice(at..tars.len().min(at + gone), put);
        let (_, sink) = receive(&copies, &marked(&compressed(Codec::Zstd, &tars[..]))[..]);
        let sizes = sink.files.iter().map(|(_, data)| data.len());
        assert!(sizes.zip(&copies).all(|(size, (_, new))| size <= new.len().max(700)));
    }
}

/// A database with a base, two different blocks and a short last block, and one without a base.
fn changed() -> Copies {
    let base = noise(1, 5000);
    let mut new = base.clone();
    new[1500] ^= 1;
    new[4999] ^= 1;
    vec![(Some(base), new), (None, noise(2, 700))]
}

#[test]
fn where_nothing_differs_nothing_comes() {
    let copies: Copies = vec![(Some(noise(1, 5000)), noise(1, 5000)), (Some(vec![]), vec![])];
    let members = members_of(&copies);
    assert_eq!(members.len(), 2);
    let (received, sink) = receive(&copies, &stream(Codec::Zstd, &members)[..]);
    assert_put_together(&received.unwrap(), &sink, &copies);
}

#[test]
fn blocks_that_are_cut_anywhere_are_known_as_cut() {
    let copies = changed();
    for codec in CODECS {
        let stream = stream(codec, &members_of(&copies));
        for end in marked(b"").len()..stream.len() {
            let error = receive(&copies, &stream[..end]).0.unwrap_err();
            assert!(matches!(error, Error::Cut), "{codec:?} cut at {end}: {error:?}");
        }
    }
}

#[test]
fn chunks_that_are_malformed_or_misplaced_are_refused() {
    let copies = changed();
    let good = members_of(&copies);
    let new = &copies[0].1;
    let sent = [&new[1024..2048], &new[4096..]].concat();
    let chunk = |name: &str, map: &[u8], blocks: &[u8]| file(name, &[map, blocks].concat());
    assert!(chunk("0.0", b"01001", &sent)[..] == good[1][..good[1].len() - 1024]);
    let honest = good[1].clone();
    let claims = |size| member(b"0.0", EntryType::Regular, size, &[b"01001", &sent[..]].concat());
    let kind = |kind| member(b"0.0", kind, 0, b"");
    let instead = [
        // Invalid names.
        chunk("0.00", b"01001", &sent),
        chunk("00.0", b"01001", &sent),
        chunk("0.-1", b"01001", &sent),
        chunk("0.+0", b"01001", &sent),
        chunk("0.0x", b"01001", &sent),
        chunk("0. 0", b"01001", &sent),
        chunk("0.", b"01001", &sent),
        chunk(".0", b"01001", &sent),
        chunk("./0.0", b"01001", &sent),
        chunk("0.0/", b"01001", &sent),
        chunk("0.18446744073709551616", b"01001", &sent),
        // Wrong databases or chunks.
        chunk("1.0", b"01001", &sent),
        chunk("2.0", b"01001", &sent),
        chunk("0.1", b"01001", &sent),
        chunk("0.8796093022207", b"01001", &sent),
        chunk("0.18446744073709551615", b"01001", &sent),
        [honest.clone(), honest.clone()].concat(),
        [chunk("0.1", b"1", b"x"), honest.clone()].concat(),
        [honest.clone(), chunk("0.1", b"1", b"x")].concat(),
        [honest.clone(), chunk("1.0", b"1", &[1; 700])].concat(),
        file("0.db", new),
        [honest.clone(), file("0.db", new)].concat(),
        // Invalid maps.
        chunk("0.0", b"0100", &sent),
        chunk("0.0", b"010010", &sent),
        chunk("0.0", b"01011", &sent),
        chunk("0.0", b"00001", &sent),
        chunk("0.0", b"00000", &sent),
        chunk("0.0", b"01002", &sent),
        chunk("0.0", b"0\x0100\x01", &sent),
        chunk("0.0", b"", &sent),
        chunk("0.0", b"11111", b""),
        chunk("0.0", b"01001", &[&sent[..], b"x"].concat()),
        chunk("0.0", b"01001", &sent[1..]),
        chunk("0.0", b"0", b""),
        chunk("0.0", b"", b""),
        // Invalid sizes and member types.
        claims(0),
        claims(4),
        claims(1 << 31),
        claims(1 << 63),
        claims(u64::MAX),
        kind(EntryType::Symlink),
        kind(EntryType::Directory),
        kind(EntryType::GNUSparse),
        kind(EntryType::Fifo),
    ];
    for (i, instead) in instead.into_iter().enumerate() {
        let members = [good[0].clone(), instead, good[2].clone(), good[3].clone()];
        let (read, sink) = receive(&copies, &stream(CODECS[i % 2], &members)[..]);
        assert!(matches!(read, Err(Error::Refused(_))), "number {i}: {read:?}");
        let said = read.unwrap_err().to_string();
        assert!(!said.chars().any(char::is_control), "{said:?}");
        assert!(sink.files.iter().all(|(_, data)| data.len() <= 5000), "number {i}");
    }
}

#[test]
fn what_changed_must_fit_what_comes_as_a_delta() {
    let copies = changed();
    let good = members_of(&copies);
    let read = |changed: &str| {
        let mut members = good.clone();
        members[3] = json("end.json", &end_for(&copies, changed));
        receive(&copies, &stream(Codec::Zstd, &members)[..]).0
    };
    assert!(read("[[2,2],null]").is_ok());
    for changed in [
        "[]",
        "null",
        "[null,null]",
        "[[2,2]]",
        "[[2,2],[0,0]]",
        "[null,[2,2]]",
        "[[2,2],null,null]",
        "[[2],null]",
        "[[2,2,2],null]",
        "[[-2,2],null]",
        "[[4294967296,2],null]",
        "[[2.5,2],null]",
        "[\"2\",null]",
        "{}",
    ] {
        let read = read(changed);
        assert!(matches!(read, Err(Error::Refused(_))), "{changed}: {read:?}");
    }
}

#[test]
fn the_last_block_of_all_that_can_be_announced_is_none() {
    let copies: Copies = vec![(Some(Vec::new()), Vec::new())];
    let index = index_of(&copies).replace(r#""bytes":0"#, &format!(r#""bytes":{}"#, u64::MAX));
    let chunk = file("0.8796093022207", &[&b"0".repeat(2047)[..], b"1", &[1; 1023]].concat());
    let members = [json("index.json", &index), chunk, good_end()];
    let (read, _) = receive(&copies, &stream(Codec::Zstd, &members)[..]);
    assert!(read.is_err(), "{read:?}");
}

fn good_end() -> Vec<u8> {
    members_of(&changed()).pop().expect("an end record")
}

#[test]
fn zeros_without_end_are_refused_behind_chunks_too() {
    let copies = changed();
    let chunks = members_of(&copies)[..2].concat();
    let mut sink = Recorder { bases: vec![(name(0), Vec::new())], ..Recorder::default() };
    let read = read_tar(chunks.chain(io::repeat(0)), &mut sink);
    assert!(matches!(read, Err(Error::Refused(_))), "{read:?}");
}

fn plan(said: &str, members: &[Vec<u8>]) -> Result<(u64, Received), Error> {
    let marker = format!("talk\n\nXTASK-DB-PLAN 1 {NONCE}{said}\n");
    let archives = compressed(Codec::Gzip, &tars(members)[..]);
    let input = [marker.as_bytes(), &archives].concat();
    read_plan(&input[..])
}

#[test]
fn a_plan_is_an_index_and_an_end_record() {
    let copies = changed();
    let good = members_of(&copies);
    let records = [good[0].clone(), good[3].clone()];
    let (bytes, received) = plan(" 1234\r", &records).unwrap();
    assert_eq!(bytes, 1234);
    let changed: Vec<_> = received.databases.iter().map(|database| database.changed).collect();
    assert_eq!(changed, [Some(Changed { blocks: 2, pages: 2 }), None]);
    for said in ["", " ", " -1", " x", " 1 2", " 1.5", " 18446744073709551616", " 0x10"] {
        let read = plan(said, &records);
        assert!(matches!(read, Err(Error::Refused(_))), "{said:?}: {read:?}");
    }
    for members in [
        good.clone(),
        vec![good[0].clone(), good[1].clone(), good[3].clone()],
        vec![good[0].clone(), good[2].clone(), good[3].clone()],
        vec![good[0].clone(), good[0].clone(), good[3].clone()],
        vec![good[3].clone(), good[0].clone()],
        vec![good[0].clone(), good[3].clone(), good[3].clone()],
        vec![good[0].clone(), json("end.json", &end_for(&copies, "[null,null]"))],
    ] {
        let read = plan(" 1", &members);
        assert!(matches!(read, Err(Error::Refused(_))), "{read:?}");
    }
    let read = plan(" 1", &good[..1]);
    assert!(matches!(read, Err(Error::Cut)), "{read:?}");
}

#[test]
fn a_plan_is_no_pull_and_a_pull_no_plan() {
    let good = members_of(&changed());
    let planned = [
        format!("XTASK-DB-PLAN 1 {NONCE} 5\n").as_bytes(),
        &compressed(Codec::Zstd, &tars(&[good[0].clone(), good[3].clone()])[..]),
    ]
    .concat();
    assert!(matches!(receive(&changed(), &planned[..]).0, Err(Error::NoStream)));
    let sent = read_plan(&stream(Codec::Zstd, &good)[..]);
    assert!(matches!(sent, Err(Error::NoStream)), "{sent:?}");
}
