//! Streams that no server of ours would send: each is refused, in little time,
//! memory and disk, and in words that are harmless for a terminal.

use tests::forge::{
    self, CODECS, Codec, TAR_BLOCK, archives, compress, end, file, header, index, index_with,
    member, members, set_checksum, sha256, stream,
};
use tests::impostor::{Impostor, assert_harmless};

const NAME: &str = "data.db";
/// Nearly a database.
const DATA: &[u8] = &[b'x'; 700];

/// One database, and another index, member or end record in the place of one.
struct Forged {
    index: Vec<u8>,
    data: Vec<u8>,
    end: Vec<u8>,
}

fn honest() -> Forged {
    let [index, data, end] =
        members(&[(NAME, DATA.to_vec())]).try_into().expect("one database makes three members");
    Forged { index, data, end }
}

impl Forged {
    fn archives(self) -> Vec<u8> {
        archives(&[self.index, self.data, self.end])
    }
}

/// Another member where the database belongs.
fn instead(data: Vec<u8>) -> Vec<u8> {
    Forged { data, ..honest() }.archives()
}

/// Another index, by itself well-formed.
fn announced(index: &str) -> Vec<u8> {
    let end = file("end.json", end(index, &[DATA]));
    Forged { index: file("index.json", index), end, ..honest() }.archives()
}

fn called(name: impl AsRef<[u8]>) -> Vec<u8> {
    announced(&index(&[(name.as_ref(), DATA.len().to_string())]))
}

fn two_called(first: &str, second: &str) -> Vec<u8> {
    archives(&members(&[(first, DATA.to_vec()), (second, DATA.to_vec())]))
}

fn sized(bytes: &str) -> Vec<u8> {
    announced(&index(&[(NAME.as_bytes(), bytes.to_owned())]))
}

fn ended(end: &str) -> Vec<u8> {
    Forged { end: file("end.json", end), ..honest() }.archives()
}

fn rows_that_overflow() -> Vec<u8> {
    let mut members = members(&[("a.db", DATA.to_vec()), ("b.db", DATA.to_vec())]);
    let index = index(&[(b"a.db", DATA.len().to_string()), (b"b.db", DATA.len().to_string())]);
    let end = end(&index, &[DATA, DATA]).replace("null", &format!("[{0},{0}]", u64::MAX));
    members[3] = file("end.json", end);
    archives(&members)
}

/// A header that was changed, in the place of the database's.
fn tampered(change: impl FnOnce(&mut [u8; TAR_BLOCK])) -> Vec<u8> {
    let mut header = header(b"0.db", b'0', DATA.len() as u64);
    change(&mut header);
    set_checksum(&mut header);
    let mut data = [&header[..], DATA].concat();
    data.resize(3 * TAR_BLOCK, 0);
    instead(data)
}

/// A member that says something of the next one, before it.
fn before(kind: u8, name: &[u8], said: &[u8]) -> Vec<u8> {
    let said = member(name, kind, said.len() as u64, said);
    instead([said, honest().data].concat())
}

/// What is wrong with it, the bytes of both archives, and what is said of it.
fn archives_of_others() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let misplaced = "came where the file \"0.db\" belongs";
    let no_name = "is not a name for a database";
    let kind = |kind| instead(member(b"0.db", kind, 0, b""));
    let many = |n: usize| {
        let list: Vec<_> = (0..n).map(|i| (format!("{i}.db"), "1".to_owned())).collect();
        index(&list.iter().map(|(name, n)| (name.as_bytes(), n.clone())).collect::<Vec<_>>())
    };
    let from = |machine: &str| {
        index(&[(NAME.as_bytes(), DATA.len().to_string())])
            .replace("\"m1\"", &format!("\"{machine}\""))
    };
    let long = "a".repeat(252) + ".db";
    assert_eq!(long.len(), 255);
    let honest_end = |change: fn(&str) -> String| {
        let index = index(&[(NAME.as_bytes(), DATA.len().to_string())]);
        ended(&change(&end(&index, &[DATA])))
    };
    let mut duplicate = honest();
    duplicate.data = duplicate.data.repeat(2);
    let mut surplus = honest();
    surplus.end.extend(file("1.db", DATA));
    vec![
        // Members.
        ("dots", instead(file("../0.db", DATA)), misplaced),
        ("dots that lead back", instead(file("../incoming/0.db", DATA)), misplaced),
        ("an absolute path", instead(file("/tmp/0.db", DATA)), misplaced),
        ("a name with control codes", instead(file("\x1b]0;x\x07\n\r", DATA)), misplaced),
        ("a prefix of dots", tampered(|h| h[345..347].copy_from_slice(b"..")), misplaced),
        ("a symlink", kind(b'2'), misplaced),
        (
            "a symlink to somewhere",
            tampered(|h| {
                h[156] = b'2';
                h[157..168].copy_from_slice(b"/etc/passwd");
            }),
            misplaced,
        ),
        ("a hard link", kind(b'1'), misplaced),
        ("a device", kind(b'3'), misplaced),
        ("a block device", kind(b'4'), misplaced),
        ("a fifo", kind(b'6'), misplaced),
        ("a directory", kind(b'5'), misplaced),
        ("a kind that is none", kind(0xff), misplaced),
        ("a sparse file", kind(b'S'), misplaced),
        ("a long name", before(b'L', b"././@LongLink", b"../../0.db\0"), misplaced),
        ("a long link", before(b'K', b"././@LongLink", b"../../0.db\0"), misplaced),
        ("an extended header", before(b'x', b"Pax/0.db", b"18 path=../../0.db\n"), misplaced),
        ("an extended size", before(b'x', b"Pax/0.db", b"20 size=99999999999\n"), misplaced),
        ("a global header", before(b'g', b"Pax/0.db", b"18 path=../../0.db\n"), misplaced),
        ("a sparse extension", before(b'x', b"Pax/0.db", b"22 GNU.sparse.major=1\n"), misplaced),
        ("no database", Forged { data: Vec::new(), ..honest() }.archives(), misplaced),
        ("a duplicate", duplicate.archives(), "came where the file \"end.json\" belongs"),
        ("a surplus member", surplus.archives(), "there is more after the end record"),
        ("a longer one", instead(file("0.db", [b'x'; 701])), "has 701 bytes, not the 700"),
        ("a shorter one", instead(file("0.db", [b'x'; 699])), "has 699 bytes, not the 700"),
        ("a header alone", header(b"0.db", b'0', 700).to_vec(), "came where the file \"index.json"),
        ("a size of all there is", tampered(|h| h[124..136].fill(0xff)), "refused"),
        ("a size that is no number", tampered(|h| h[124..136].fill(b'z')), "refused"),
        ("an archive of nothing", vec![0; 4 * TAR_BLOCK], "the connection was cut"),
        ("no archive", vec![b'x'; 40 * TAR_BLOCK], "refused"),
        // The index.
        ("a size that overflows", sized("18446744073709551616"), "the index is malformed"),
        ("a size of all there is", sized("18446744073709551615"), " free, but the pull needs "),
        ("a size below nothing", sized("-1"), "the index is malformed"),
        ("a size beyond the disk", sized("1000000000000000"), " free, but the pull needs "),
        (
            "sizes whose sum overflows",
            announced(&index(&[(b"a.db", u64::MAX.to_string()), (b"b.db", u64::MAX.to_string())])),
            " free, but the pull needs ",
        ),
        ("no databases", announced(&index(&[])), "it announces no database"),
        ("10,001 databases", announced(&many(10_001)), "more than 10000 databases"),
        ("a name twice", two_called(NAME, NAME), "announces \"data.db\" twice"),
        ("a name in two cases", two_called("Data.db", "data.db"), "twice"),
        ("a name in two cases of Unicode", two_called("É.db", "é.db"), "twice"),
        ("a name in two long cases", two_called("ß.db", "ẞ.db"), "twice"),
        ("a name with control codes", called("\x1b]0;x\x07\u{202e}.db"), no_name),
        ("a name with a newline", called("a\nb.db"), no_name),
        ("a name with NUL", called("a\0.db"), no_name),
        ("a name that is no UTF-8", called(b"\xff\xfe.db"), "is not UTF-8 in hex"),
        ("a name that is empty", called(""), no_name),
        ("a name that is a dot", called("."), no_name),
        ("a name that leads up", called(".."), no_name),
        ("a name that leads up and down", called("../data.db"), no_name),
        ("a name that is absolute", called("/tmp/data.db"), no_name),
        ("a name with a backslash", called("a\\b.db"), no_name),
        ("a name with a leading dot", called(".hidden.db"), no_name),
        ("a path that leads up and down", called("t/../data.db"), no_name),
        ("a path that leads nowhere", called("t//data.db"), no_name),
        ("a path to a directory", called("t/data.db/"), no_name),
        ("a path in a hidden directory", called("t/.git/data.db"), no_name),
        ("a path in our directory", called(".xtask/data.db"), no_name),
        ("a path in a snapshot", called("BACKUP_2026/data.db"), no_name),
        ("a path of more than 1024 bytes", called("long/".repeat(250) + "data.db"), no_name),
        ("a path that was not requested", called("t/data.db"), "was not requested"),
        ("a path below a database", two_called("t.db", "T.db/data.db"), "is a database as well"),
        ("the name of a log", called("data.db-wal"), no_name),
        ("the name of a journal", called("DATA.DB-JOURNAL"), no_name),
        ("the name of shared memory", called("data.db-shm"), no_name),
        ("the name of our record", called("snapshot.json"), no_name),
        ("a name of 256 bytes", called(format!("a{long}")), no_name),
        ("a name of a megabyte", called("a".repeat(1 << 20)), no_name),
        ("a name that was not requested", called("data.sqlite"), "was not requested"),
        (
            "a name that is not hex",
            announced(&index_with(r#"[{"name":"zz\u001b]0;x\u0007","bytes":700}]"#)),
            "is not UTF-8 in hex",
        ),
        ("deep nesting", announced(&index_with(&"[".repeat(1 << 20))), "the index is malformed"),
        (
            "nesting in what is ignored",
            announced(&index_with(&format!("[],\"x\":{}", "{\"a\":".repeat(1 << 19)))),
            "the index is malformed",
        ),
        (
            "a key of a megabyte",
            announced(&index_with(&format!("[],\"\\u001b{}\":1", "x".repeat(1 << 20)))),
            "the index is malformed",
        ),
        ("a machine of a megabyte", announced(&from(&"m".repeat(1 << 20))), "is not a machine"),
        (
            "a machine with control codes",
            announced(&from("\\u001b]0;x\\u0007")),
            "is not a machine",
        ),
        ("keys twice", announced(&index_with("[],\"version\":1")), "the index is malformed"),
        ("an index that is none", announced("{"), "the index is malformed"),
        (
            "an index of ten gigabytes",
            [&header(b"index.json", b'0', 10 << 30)[..], &[b' '; 9000]].concat(),
            "index.json is too long",
        ),
        (
            "an index that is no text",
            Forged { index: file("index.json", [0xff; 9]), ..honest() }.archives(),
            "refused",
        ),
        // The end record.
        ("no end record", Forged { end: Vec::new(), ..honest() }.archives(), "was cut"),
        ("an end record that is none", ended("[]"), "the end record is malformed"),
        ("an end record for none", ended(&end("", &[] as &[&[u8]])), "is not what the server sent"),
        ("an end record of another index", ended(&end("{}", &[DATA])), "the index is not what"),
        ("another sum", honest_end(|end| end.replace(&sha256(DATA), &sha256("x"))), "is not what"),
        (
            "a sum too many",
            honest_end(|end| end.replace("\"sha256\":[", "\"sha256\":[\"\",")),
            "does not fit",
        ),
        ("rows of no database", honest_end(|end| end.replace("null", "[1,2]")), "does not fit"),
        ("rows that overflow", rows_that_overflow(), "does not fit"),
        ("rows below nothing", honest_end(|end| end.replace("null", "[-1]")), "is malformed"),
    ]
}

#[test]
fn an_archive_that_is_not_ours_changes_nothing() {
    let impostor = Impostor::new();
    for (i, (name, archives, why)) in archives_of_others().into_iter().enumerate() {
        let codec = CODECS[i % 2];
        impostor.sends(&compress(codec, &archives[..]));
        impostor.is_refused(name, &[]).stderr_has(why).stderr_has("nothing was changed");
    }
}

#[test]
fn a_database_that_was_not_asked_for_changes_nothing() {
    let impostor = Impostor::new();
    impostor.env.db_toml("exclude = ['durably.db']\n");
    for (name, args) in [("durably.db", &[][..]), (NAME, &["--only", "tenant_*"])] {
        impostor.sends(&stream(Codec::Gzip, &members(&[(name, DATA.to_vec())])));
        let why = format!("\"{name}\" was not requested");
        impostor.is_refused(name, args).stderr_has(&why).stderr_has("nothing was changed");
    }
}

/// Gigabytes that were not announced are not decompressed, wherever they come.
#[test]
fn a_bomb_does_not_go_off() {
    let impostor = Impostor::new();
    let whole = honest().archives();
    let Forged { index, data, .. } = honest();
    let claim = header(b"0.db", b'0', 10 << 30);
    for codec in CODECS {
        let more = "the stream was refused: more than was announced; nothing was changed";
        for (name, begin, why) in [
            ("zeros only", &[][..], more),
            ("zeros instead of the database", &index, more),
            ("zeros in a longer database", &[&index[..], &claim].concat(), "bytes, not the 700"),
            ("zeros instead of the end record", &[&index[..], &data].concat(), more),
            ("zeros behind the end", &whole, more),
        ] {
            impostor.sends(&forge::bomb(codec, begin, 10));
            impostor.is_refused(&format!("{name}, {codec:?}"), &[]).stderr_has(why);
        }
    }
}

#[test]
fn a_compression_that_is_not_ours_changes_nothing() {
    let impostor = Impostor::new();
    let zstd = stream(Codec::Zstd, &members(&[(NAME, DATA.to_vec())]));
    let gzip = stream(Codec::Gzip, &members(&[(NAME, DATA.to_vec())]));
    let half = zstd.len() / 2;
    let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4][..], &zstd].concat();
    let archives = honest().archives();
    let (first, second) = archives.split_at(2 * TAR_BLOCK);
    let split = |codec| [compress(codec, first), compress(codec, second)].concat();
    let mut named = gzip.clone();
    named[3] = 8;
    named.splice(10..10, b"a".repeat(1 << 20));
    for (name, stream) in [
        ("nothing", vec![]),
        ("a newline", b"\n".to_vec()),
        ("no compression", archives.clone()),
        ("another compression", b"BZh91AY&SY".to_vec()),
        ("a skippable frame first", skippable),
        ("zstd's first bytes only", zstd[..4].to_vec()),
        ("gzip's first bytes only", gzip[..4].to_vec()),
        ("a window of two gigabytes", vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8, 0x02, 0, 0, 0]),
        ("a window beyond all", vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xff, 0x02, 0, 0, 0]),
        ("a dictionary", vec![0x28, 0xb5, 0x2f, 0xfd, 0x01, 0x68, 0x07, 2, 0, 0]),
        ("an empty frame", compress(Codec::Zstd, &[][..])),
        ("an empty member", compress(Codec::Gzip, &[][..])),
        ("a name without end", named),
        ("two frames for one", split(Codec::Zstd)),
        ("two members for one", split(Codec::Gzip)),
        ("gzip within zstd", compress(Codec::Zstd, &gzip[..])),
        ("zstd that goes on as gzip", [&zstd[..half], &gzip[..]].concat()),
    ] {
        impostor.sends(&stream);
        impostor.is_refused(name, &[]);
    }
}

/// `fly` may say a word behind the stream; that is never an archive.
#[test]
fn what_follows_a_whole_stream_is_not_looked_at() {
    let impostor = Impostor::new();
    let database = std::fs::read(impostor.env.production().join(NAME)).expect("read a database");
    let evil = members(&[("evil.db", database.clone())]);
    for codec in CODECS {
        let stream = stream(codec, &members(&[(NAME, database.clone())]));
        for behind in [b"bye\x1b[2J".to_vec(), forge::stream(codec, &evil), vec![0; 1 << 20]] {
            impostor.sends(&[&stream[..], &behind].concat());
            assert_harmless("behind", &impostor.pull(&["-v"]).ok());
            impostor.assert_tidy("behind");
            assert!(!impostor.env.data().join("evil.db").exists());
        }
        impostor.sends(&stream);
        let answer = std::fs::read_to_string(impostor.env.path("answer")).expect("read");
        impostor.env.write("answer", &format!("{answer}cat /dev/zero\n"));
        impostor.pull(&[]).ok();
    }
}

#[test]
fn talk_without_end_changes_nothing() {
    let impostor = Impostor::new();
    let failed = "printf '\\nXTASK-DB-FAILED 1 %s";
    for (name, script) in [
        ("zeros", "cat /dev/zero"),
        ("a line without end", "tr '\\0' 'x' </dev/zero"),
        ("lines without end", "yes"),
        ("empty lines without end", "yes ''"),
        ("control codes without end", "printf '\\033]0;x\\007\\r' ; tr '\\0' '\\033' </dev/zero"),
        ("status without end", "yes \"XTASK-DB-STATUS 1 $nonce packing\""),
        ("the marker of another pull", "printf '\\nXTASK-DB 1 %s\\n' 0123456789abcdef"),
        ("a marker without end", "printf '\\nXTASK-DB 1 %s ' \"$nonce\"; cat /dev/zero"),
        ("a marker that does not end its line", "printf '\\nXTASK-DB 1 %s' \"$nonce\""),
        (
            "a failure that is long",
            &format!("{failed} x %s\\n' $nonce \"$(head -c 60000 /dev/zero | tr '\\0' z)\""),
        ),
        ("a failure without a code", &format!("{failed}\\n' \"$nonce\"")),
        (
            "a failure with a code that is none",
            &format!("{failed} \\033[2J \\033[2J\\n' \"$nonce\""),
        ),
        ("noise on standard error", "head -c 3000000 /dev/zero | tr '\\0' 'x' >&2; exit 1"),
    ] {
        impostor.runs(script);
        impostor.is_refused(name, &[]);
    }
}

#[test]
fn an_archive_that_is_fetched_is_trusted_no_more() {
    let impostor = Impostor::new();
    for path in ["/tmp/../a", "a", "/tmp/a;id", "/tmp/\x1b[2J", "/tmp/$(id)", ""] {
        impostor.says(
            b"\nXTASK-DB-ARCHIVE 1 ",
            1000,
            &[b" 7811 ", path.as_bytes(), b"\n"].concat(),
        );
        impostor.is_refused(path, &["--sftp"]).stderr_has("is not a path of an archive");
    }
}
