//! A stream that was recorded from a server of ours and is played again, cut or
//! with a bit flipped: nothing here changes, whichever byte it is.
//!
//! With `cargo dev test --long` that is each byte.

use std::fs;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};

use tests::databases;
use tests::developer::Found;
use tests::env::TestEnv;
use tests::forge::{CODECS, Codec, TAR_BLOCK, compress, decompress};
use tests::impostor::{Impostor, stamps};
use tests::long::{depth, spread};
use tests::pull::pull;
use tests::secrets::Random;
use tests::sets::{assert_same, change, content};
use tests::shells;

/// How many places are tried where not all of them are.
const PLACES: usize = 8;
const PLACES_OF_BIG: usize = 1000;

/// What a server said to a pull with another nonce.
struct Recording {
    bytes: Vec<u8>,
    /// Where the nonce of the marker begins, and what follows it.
    nonce: usize,
    behind: usize,
}

/// A developer who has pulled this, and changed it since; `fly` can say it again.
fn recorded(codec: Codec, rows: u32, blob: u32) -> (Impostor, Recording) {
    record(codec, rows, blob, None)
}

/// The same of what a server sends to who has pulled before, when `change` was made
/// meanwhile: the developer has still what came first.
fn recorded_delta(codec: Codec, rows: u32, blob: u32, change: &str) -> (Impostor, Recording) {
    record(codec, rows, blob, Some(change))
}

fn record(codec: Codec, rows: u32, blob: u32, later: Option<&str>) -> (Impostor, Recording) {
    let env = TestEnv::new();
    let without = if codec == Codec::Zstd { &[][..] } else { &["zstd"] };
    let environment = env.server_environment().set("PATH", shells::debian(&env.path(""), without));
    let sshd = env.start_server(&environment);
    let database = env.production().join("data.db");
    databases::create(&database, rows, 1);
    databases::execute(&database, &format!("UPDATE items SET data = randomblob({blob})"));
    let before = later.map(|change| {
        pull(&env, &[]);
        databases::execute(&database, change);
        Found::now(&env)
    });
    let captured = env.path("captured");
    env.replace_fly(&format!("standin-fly \"$@\" | tee '{}'", captured.display()));
    pull(&env, &[]);
    drop(sshd);
    if let Some(before) = before {
        before.restore();
    }
    let bytes = fs::read(&captured).expect("it was captured");
    let marker = b"\nXTASK-DB 1 ";
    let at = bytes.windows(marker.len()).position(|window| window == marker);
    let nonce = at.expect("a marker") + marker.len();
    let behind = nonce + bytes[nonce..].iter().position(|b| *b == b'\n').expect("a line");
    let magic = if codec == Codec::Zstd { 0x28 } else { 0x1f };
    assert_eq!(bytes[behind + 1], magic, "{codec:?}");
    change(&env.data().join("data.db"));
    env.uninstall("standin-fly");
    (Impostor::of(env), Recording { bytes, nonce, behind })
}

/// Plays these bytes, with the nonce of the pull that listens.
fn play(impostor: &Impostor, recording: &Recording, bytes: &[u8]) {
    let (nonce, behind) = (recording.nonce.min(bytes.len()), recording.behind.min(bytes.len()));
    impostor.says(&bytes[..nonce], behind - nonce, &bytes[behind..]);
}

/// All places up to `end` where there is time; else so many, spread over it, the
/// first and the last among them.
fn places(end: usize) -> Vec<usize> {
    spread(end, PLACES)
}

#[track_caller]
fn assert_cut_changes_nothing(impostor: &Impostor, recording: &Recording, at: usize) {
    play(impostor, recording, &recording.bytes[..at]);
    let output = impostor.is_refused(&format!("cut after {at} bytes"), &[]);
    if at > recording.behind {
        output.stderr_has(&format!("the connection was cut after {at} bytes, before the end rec"));
    }
}

#[test]
fn a_small_stream_that_is_cut_at_any_byte_changes_nothing() {
    for codec in CODECS {
        let (impostor, recording) = recorded(codec, 3, 20);
        for at in places(recording.bytes.len()) {
            assert_cut_changes_nothing(&impostor, &recording, at);
        }
        play(&impostor, &recording, &recording.bytes);
        impostor.pull(&[]).ok();
    }
}

/// Of each database, a part here and there.
const CHANGE: &str = "UPDATE items SET value = -1 WHERE id % 700 = 1";

#[test]
fn a_page_delta_that_is_cut_at_any_byte_changes_nothing() {
    for codec in CODECS {
        let (impostor, recording) = recorded_delta(codec, 2000, 20, CHANGE);
        assert!(recording.bytes.len() < 40_000, "{} bytes", recording.bytes.len());
        for at in places(recording.bytes.len()) {
            assert_cut_changes_nothing(&impostor, &recording, at);
        }
        play(&impostor, &recording, &recording.bytes);
        impostor.pull(&[]).ok();
        assert_same(&content(&impostor.env.data()), &content(&impostor.env.production()));
    }
}

#[test]
fn a_page_delta_of_several_chunks_that_is_cut_changes_nothing() {
    let (impostor, recording) = recorded_delta(Codec::Zstd, 4000, 1500, CHANGE);
    let size = fs::metadata(impostor.base()).expect("a base").len();
    assert!(size > 3 * (2 << 20), "{size} bytes");
    for at in places(recording.bytes.len()).into_iter().step_by(depth(2, 97)) {
        assert_cut_changes_nothing(&impostor, &recording, at);
    }
    play(&impostor, &recording, &recording.bytes);
    impostor.pull(&[]).ok();
    assert_same(&content(&impostor.env.data()), &content(&impostor.env.production()));
}

/// A flip in the parts themselves, behind a checksum that fits it: the sha256 of the
/// whole file is what finds it, and then all of it is asked for.
#[test]
fn a_bit_that_is_flipped_in_a_part_is_found() {
    let (impostor, recording) = recorded_delta(Codec::Gzip, 2000, 20, CHANGE);
    let archive = decompress(Codec::Gzip, &recording.bytes[recording.behind + 1..]);
    let archive = archive.expect("it is whole");
    // Behind the index with its header, the header of the chunk, and its map.
    let base = fs::metadata(impostor.base()).expect("a base").len();
    let begin = archive.windows(4).position(|window| window == b"0.0\0").expect("a chunk");
    let parts = begin + TAR_BLOCK + base.div_ceil(1024) as usize;
    let size = std::str::from_utf8(&archive[begin + 124..begin + 135]).expect("octal");
    let size = usize::from_str_radix(size, 8).expect("octal");
    for at in [parts, parts + 1023, begin + TAR_BLOCK + size - 1] {
        let mut archive = archive.clone();
        archive[at] ^= 0x10;
        let mut bytes = recording.bytes[..=recording.behind].to_vec();
        bytes.extend(compress(Codec::Gzip, &archive[..]));
        play(&impostor, &recording, &bytes);
        let output = impostor.is_refused(&format!("flipped at {at}"), &[]);
        output.stderr_has("the database is fetched whole");
    }
}

#[test]
fn a_big_stream_that_is_cut_at_a_random_byte_changes_nothing() {
    let seed = std::env::var("XTASK_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| RandomState::new().build_hasher().finish());
    let (impostor, recording) = recorded(Codec::Zstd, 4000, 800);
    let length = recording.bytes.len();
    assert!(length > 3_000_000, "{length} bytes");
    let mut random = Random::new(seed);
    for _ in 0..depth(PLACES, PLACES_OF_BIG) {
        let at = random.below(length);
        let cut = || assert_cut_changes_nothing(&impostor, &recording, at);
        let cut = std::panic::catch_unwind(std::panic::AssertUnwindSafe(cut));
        assert!(cut.is_ok(), "again with XTASK_TEST_SEED={seed}");
    }
}

#[test]
fn a_bit_that_is_flipped_in_any_byte_changes_nothing() {
    for codec in CODECS {
        let (impostor, recording) = recorded(codec, 3, 20);
        let sent = {
            play(&impostor, &recording, &recording.bytes);
            impostor.pull(&[]).ok();
            content(&impostor.env.data())
        };
        // What is said before the marker may be anything.
        let marker = recording.nonce - "XTASK-DB 1 ".len();
        for at in places(recording.bytes.len() - marker) {
            let at = marker + at;
            // The nonce that is played is the right one, whatever was recorded.
            if (recording.nonce..recording.behind).contains(&at) {
                continue;
            }
            change(&impostor.env.data().join("data.db"));
            let mut bytes = recording.bytes.clone();
            bytes[at] ^= 1 << (at % 8);
            play(&impostor, &recording, &bytes);
            let before = stamps(&impostor.env.data());
            let output = impostor.pull(&[]);
            // Some bits mean nothing, such as the time in gzip's header, or the
            // distance between two zeros: such a flip arrives as what was sent.
            let archive = |bytes: &[u8]| decompress(codec, bytes.get(recording.behind + 1..)?);
            if at > recording.behind && archive(&bytes) == archive(&recording.bytes) {
                let output = output.ok();
                output.stderr_has("Pulled 1 database");
                assert_same(&content(&impostor.env.data()), &sent);
            } else {
                assert_eq!(output.code, Some(1), "{codec:?}, flipped at {at}\n{output}");
                assert!(before == stamps(&impostor.env.data()), "flipped at {at}\n{output}");
                impostor.assert_tidy(&format!("flipped at {at}"));
            }
        }
    }
}
