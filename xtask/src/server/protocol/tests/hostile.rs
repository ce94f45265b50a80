//! Input from a hostile server.

use super::*;

#[test]
fn a_member_that_is_no_plain_file_in_its_place_is_refused() {
    let good = members(&two());
    let data = &two()[0].1;
    let named = |name: &str| file(name, data);
    let kind = |kind| member(b"0.db", kind, 0, b"");
    let long = |kind| [member(b"././@LongLink", kind, 5, b"0.db\0"), named("0.db")].concat();
    let path = b"13 path=0.db\n";
    let pax = |kind| [member(b"PaxHeaders/0.db", kind, 13, path), named("0.db")].concat();
    let mut prefixed = named("0.db");
    prefixed[345..347].copy_from_slice(b"..");
    let instead = [
        named("../0.db"),
        named("/0.db"),
        named("./0.db"),
        named("0.db/"),
        named("data.db"),
        named("1.db"),
        named("index.json"),
        named(""),
        prefixed,
        kind(EntryType::Symlink),
        kind(EntryType::Link),
        kind(EntryType::Char),
        kind(EntryType::Block),
        kind(EntryType::Fifo),
        kind(EntryType::Directory),
        kind(EntryType::GNUSparse),
        member(b"0.db", EntryType::new(b'7'), 700, data),
        long(EntryType::GNULongName),
        long(EntryType::GNULongLink),
        pax(EntryType::XHeader),
        pax(EntryType::XGlobalHeader),
        good[2].clone(),
        [good[1].clone(), good[1].clone()].concat(),
        [good[1].clone(), file("2.db", b"more")].concat(),
        named("0.db")[..1024].to_vec(),
    ];
    for (i, instead) in instead.into_iter().enumerate() {
        let members = [good[0].clone(), instead, good[2].clone(), good[3].clone()];
        let (read, sink) = receive(&stream(Codec::Zstd, &members)[..]);
        assert!(matches!(read, Err(Error::Refused(_))), "number {i}: {read:?}");
        assert!(sink.files.len() <= 2 && sink.files.iter().all(|(_, data)| data.len() <= 700));
    }
}

#[test]
fn a_member_too_many_too_few_or_out_of_order_is_refused() {
    let good = members(&two());
    let order = |order: &[usize]| {
        let members: Vec<_> = order.iter().map(|&i| good[i].clone()).collect();
        receive(&stream(Codec::Gzip, &members)[..]).0.unwrap_err()
    };
    for wrong in
        [&[1, 0, 2, 3][..], &[0, 2, 1, 3], &[0, 1, 3], &[0, 1, 3, 2], &[0, 3], &[0, 0, 1, 2, 3]]
    {
        assert!(matches!(order(wrong), Error::Refused(_)), "{wrong:?}");
    }
    for more in [3, 2, 0] {
        assert!(matches!(order(&[0, 1, 2, 3, more]), Error::Refused(_)), "{more} behind the end");
    }
    for short in [&[0][..], &[0, 1], &[0, 1, 2]] {
        assert!(matches!(order(short), Error::Cut), "{short:?} lacks its end record");
    }
}

#[test]
fn an_archive_cut_anywhere_in_whole_compression_delivers_no_part_of_a_database() {
    let tars = tars(&members(&two()));
    let whole = tars.len() - 1024; // The zeros at the end carry no information.
    for end in (0..whole).step_by(7) {
        let (read, sink) = receive(&marked(&compressed(Codec::Gzip, &tars[..end]))[..]);
        let done = end > whole - 512 && read.is_ok(); // The whole record, without its padding.
        assert!(done || matches!(read, Err(Error::Cut | Error::Refused(_))), "{end}: {read:?}");
        assert!(two().starts_with(&sink.files), "{end}");
    }
}

#[test]
fn a_database_of_another_size_than_announced_is_refused_before_it_is_written() {
    for size in [0, 5, 7, 700, u64::MAX] {
        let members = [
            json("index.json", &index_of(&[(b"a.db", 6)])),
            member(b"0.db", EntryType::Regular, size, &[1; 700][..size.min(700) as usize]),
        ];
        let (read, sink) = receive(&stream(Codec::Zstd, &members)[..]);
        assert!(matches!(read, Err(Error::Refused(_))), "{size}: {read:?}");
        assert_eq!(sink.advanced, 0);
    }
}

#[test]
fn records_that_say_anything_unknown_are_refused() {
    let sums: Vec<_> = two().iter().map(|(_, data)| hex(&Sha256::digest(data))).collect();
    let index = index_of(&[(b"data.db", 700), ("tenant_é.db".as_bytes(), 6)]);
    let end_of = |sums: &[String], sanitized: &str| end_of(&index, sums, sanitized);
    let end = end_of(&sums, "null");
    let read = |index: &str, end: &str| {
        let mut members = members(&two());
        members[0] = json("index.json", index);
        members[3] = json("end.json", end);
        receive(&stream(Codec::Gzip, &members)[..]).0
    };
    assert!(read(&index, &end).is_ok());
    let swapped = end_of(&[sums[1].clone(), sums[0].clone()], "null");
    let mut bad = vec![
        (index.clone(), swapped),
        (index.clone(), end_of(&sums[..1], "null")),
        (index.clone(), end_of(&[sums.clone(), sums.clone()].concat(), "null")),
        (index.clone(), end_of(&sums, "[1]")),
        (index.clone(), end_of(&sums, "[1,2,3]")),
        (index.clone(), end_of(&sums, "[1,-2]")),
        (index.clone(), end.replace("sha256", "md5")),
        (index.clone(), end.to_uppercase()),
        (index.clone(), String::new()),
        (index.replace("nrt", "ams"), end.clone()),
        (" ".repeat((MAX_RECORD + 1) as usize) + &index, end.clone()),
    ];
    for (from, to) in [
        (r#""version":1"#, r#""version":2"#),
        (r#""version":1"#, r#""version":1,"version":1"#),
        (r#""version":1"#, r#""version":1,"extra":true"#),
        (r#""version":1,"#, ""),
        ("}", "}}"),
        ("{", "\u{0}{"),
    ] {
        bad.push((index.replacen(from, to, 1), end.clone()));
        bad.push((index.clone(), end.replacen(from, to, 1)));
    }
    bad.push((index.replacen(r#"{"name""#, r#"{"path":"x","name""#, 1), end.clone()));
    bad.push((index.replacen("700", "-700", 1), end));
    for (i, (index, end)) in bad.iter().enumerate() {
        let read = read(index, end);
        assert!(matches!(read, Err(Error::Refused(_))), "number {i}: {read:?}");
    }
}

fn named(name: &[u8]) -> Vec<u8> {
    let index = index_of(&[(name, 4)]);
    let members = [json("index.json", &index), file("0.db", b"some")];
    let end = json("end.json", &end_of(&index, &[hex(&Sha256::digest(b"some"))], "null"));
    stream(Codec::Zstd, &[&members[..], &[end]].concat())
}

#[test]
fn a_name_that_is_not_one_plain_file_is_refused() {
    let long = [b'a'; 256];
    for name in [
        &b""[..],
        b".",
        b"..",
        b".hidden.db",
        b".xtask",
        b"../a.db",
        b"/a.db",
        b"a//b.db",
        b"a/../b.db",
        b"a/.b.db",
        b"a/",
        b"backup_x/b.db",
        b"a\\b.db",
        b"a\n.db",
        b"a\0.db",
        b"\x1b]52;c;x\x07.db",
        b"\xc2\x9b2J.db",
        b"\x7f.db",
        b"\xff\xfe.db",
        b"a.db-wal",
        b"a.DB-SHM",
        b"a.db-journal",
        b"snapshot.json",
        b"Snapshot.JSON",
        &long,
    ] {
        let (read, sink) = receive(&named(name)[..]);
        assert!(matches!(read, Err(Error::Refused(_))), "{name:?}: {read:?}");
        let said = read.unwrap_err().to_string();
        assert!(!said.chars().any(char::is_control), "{said:?}");
        assert_eq!((sink.announced, sink.advanced), (0, 0));
    }
    for name in [&b"a.db"[..], b"a b.db", b"-rf.db", "\u{6771}\u{4eac}.db".as_bytes(), &long[..255]]
    {
        assert!(receive(&named(name)[..]).0.is_ok(), "{name:?}");
    }
}

#[test]
fn unchanged_bases_are_listed_in_order_and_states_are_plain_words() {
    let index = index_of(&[(b"a.db", 4)]);
    let read = |same: &str, extra: &str| {
        let index = index.replacen("}]}", &format!("}}],\"same\":{same}}}"), 1);
        let end = end_of(&index, &[hex(&Sha256::digest(b"some"))], "null");
        let end = end.replacen('{', &format!("{{{extra}"), 1);
        let members = [json("index.json", &index), file("0.db", b"some"), json("end.json", &end)];
        receive(&stream(Codec::Zstd, &members)[..]).0
    };
    let received =
        read("[0,3]", r#""state":["1.2-3_4 0,1/-"],"found":["61 62 1 t -;63"],"#).unwrap();
    assert_eq!(received.same, [0, 3]);
    assert_eq!(received.databases[0].remote.as_ref().unwrap().matched, "0,1/-");
    for same in ["[3,0]", "[0,0]", "[-1]", "[1.5]", "null", "\"0\""] {
        assert!(matches!(read(same, ""), Err(Error::Refused(_))), "{same}");
    }
    for extra in [
        r#""state":["1"],"#,
        r#""state":["1 2 3"],"#,
        r#""state":["1\n 2"],"#,
        r#""state":["1 //x"],"found":["a\nb"],"#,
        r#""state":["a 0/0","b 0/0"],"#,
        r#""state":["a 0/0"],"found":[],"#,
        r#""scrubbed":[1,1],"#,
        r#""scrubbed":[-1],"#,
    ] {
        assert!(matches!(read("[]", extra), Err(Error::Refused(_))), "{extra}");
    }
}

#[test]
fn a_name_that_is_no_hex_is_refused() {
    for hex in ["a", "zz", "+a", "6", "é0", "aéb", "61 ", "0x61", "6 61"] {
        let index = index_of(&[(b"a.db", 4)]).replacen(&super::hex(b"a.db"), hex, 1);
        let members = [json("index.json", &index), file("0.db", b"some")];
        why(&stream(Codec::Zstd, &members)[..]);
    }
}

#[test]
fn names_that_would_be_one_file_are_refused() {
    for (a, b) in [("a.db", "a.db"), ("a.db", "A.DB"), ("é.db", "É.db")] {
        let index = json("index.json", &index_of(&[(a.as_bytes(), 4), (b.as_bytes(), 4)]));
        let files = [index, file("0.db", b"some"), file("1.db", b"some")];
        assert!(why(&stream(Codec::Zstd, &files)[..]).contains("twice"), "{a} {b}");
    }
}

#[test]
fn an_empty_set_is_refused() {
    assert!(why(&stream(Codec::Gzip, &members(&Vec::new()))[..]).contains("no database"));
}

#[test]
fn more_databases_than_anyone_has_are_refused() {
    let index = index_of(&vec![(&b"a"[..], 0); 10_001]);
    let read = why(&stream(Codec::Gzip, &[json("index.json", &index), Vec::new()])[..]);
    assert!(read.contains("10000"), "{read}");
}

/// Repeats its bytes without end.
struct Endless<'a>(&'a [u8]);

impl Read for Endless<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.0.len().min(buffer.len());
        buffer[..n].copy_from_slice(&self.0[..n]);
        Ok(n)
    }
}

/// Counts the bytes that are read.
struct Counted<R>(R, u64);

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.0.read(buffer)?;
        self.1 += n as u64;
        Ok(n)
    }
}

#[test]
fn zeros_without_end_are_refused_wherever_they_come() {
    let good = members(&two());
    let until = |n: usize| good[..n].concat();
    let big = |name: &[u8]| member(name, EntryType::Regular, u64::from(u32::MAX), b"");
    for before in [
        Vec::new(),
        big(b"index.json"),
        until(1),
        [until(1), big(b"0.db")].concat(),
        until(2),
        until(3),
        [until(3), big(b"end.json")].concat(),
        until(4),
    ] {
        let mut input = Counted(before.chain(io::repeat(0)), 0);
        let read = read_tar(&mut input, &mut Recorder::default());
        assert!(matches!(read, Err(Error::Refused(_))), "{read:?}");
        assert!(input.1 < 2 * MAX_RECORD, "{} bytes were read", input.1);
    }
}

#[test]
fn a_bomb_is_refused() {
    for (codec, size) in [(Codec::Zstd, 1 << 30), (Codec::Gzip, 64 << 20)] {
        let bomb = compressed(codec, members(&two())[0].chain(io::repeat(0).take(size)));
        assert!((bomb.len() as u64) < size / 100);
        assert!(why(&marked(&bomb)[..]).contains("announced"));
    }
}

#[test]
fn talk_without_end_is_given_up() {
    for talk in [&b"\n"[..], b"\r\n", b"hello\n", b"x", b"\xff", b"\0", b"XTASK-DB 1 \n"] {
        let mut input = Counted(Endless(talk), 0);
        let read = read(&mut input, &mut Recorder::default());
        assert!(matches!(read, Err(Error::NoStream)), "{read:?}");
        assert!(input.1 < 2 * MAX_PREAMBLE);
    }
}

#[test]
fn a_line_longer_than_any_talk_is_given_up() {
    let long = [&vec![b'x'; 1 << 20][..], &stream(Codec::Zstd, &members(&two()))].concat();
    assert!(matches!(receive(&long[..]).0, Err(Error::NoStream)));
}

#[test]
fn why_the_server_gave_up_is_told() {
    let failed = |words: &str| {
        let text = format!("Connecting...\n\nXTASK-DB-FAILED 1 {NONCE}{words}\r\nmore");
        match receive(text.as_bytes()).0 {
            Err(Error::Server { code, text }) => (code, text),
            other => panic!("{other:?}"),
        }
    };
    let said = |code: &str, text: &str| (code.to_owned(), text.to_owned());
    assert_eq!(failed(" no-space /tmp is full: 3 KiB"), said("no-space", "/tmp is full: 3 KiB"));
    assert_eq!(failed(" no-space"), said("no-space", ""));
    assert_eq!(failed(""), said("", ""));
}

#[test]
fn only_a_plain_absolute_path_is_an_archive() {
    let find = |said: &str| {
        let text = format!("talk\n\nXTASK-DB-ARCHIVE 1 {NONCE}{said}\n");
        find_archive(text.as_bytes())
    };
    let path = "/tmp/xtask-pull.aB3/pull.archive";
    let found = find(&format!(" 7811aa {path}\r")).unwrap();
    assert_eq!(found, (Some("7811aa".to_owned()), path.to_owned()));
    assert_eq!(find(&format!(" - {path}")).unwrap(), (None, path.to_owned()));
    for said in [
        "",
        " ",
        " m1",
        " m1 ",
        "  /tmp/a",
        " m1 tmp/a",
        " m1  /tmp/a",
        " m1 /tmp/../etc/passwd",
        " m1 /tmp/$(id)",
        " m1 /tmp/a;id",
        " m1 /tmp/a\u{1b}",
        " m1 /tmp/é",
        " m1 ~/a",
        " m;1 /tmp/a",
        " m'1 /tmp/a",
        " é /tmp/a",
        " -a /tmp/a",
        " m1\t/tmp/a",
    ] {
        let found = find(said);
        assert!(matches!(found, Err(Error::Refused(_))), "{said:?}: {found:?}");
    }
    let cut = find_archive(&b"talk"[..]);
    assert!(matches!(cut, Err(Error::NoStream)));
    let stream = stream(Codec::Zstd, &members(&two()));
    assert!(find_archive(&stream[..]).is_err());
}
