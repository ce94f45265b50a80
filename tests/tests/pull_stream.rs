//! `cargo xtask pull-db` believes nothing that comes over the line.

use std::fs;

use tests::databases;
use tests::env::TestEnv;
use tests::impostor::TAKE_SCRIPT;
use tests::long::depth;
use tests::pull::{NAMES, assert_live_equals_production, production, pull, pull_fails, recorded};
use tests::server::{Environment, Sshd};
use tests::world::Faults;

/// How many places a stream is broken at, for each way to break it: `pull_cut.rs` tries
/// more of them, without a server.
fn number_of_places() -> u64 {
    depth(4, 40)
}

/// A production whose stream has several blocks, and how long the stream is; the
/// live set differs from it.
fn broken_line() -> (TestEnv, Sshd, u64) {
    let (env, sshd) = production();
    databases::execute(&env.production().join(NAMES[1]), "UPDATE items SET data = randomblob(600)");
    pull(&env, &[]);
    databases::execute(&env.data().join(NAMES[0]), "UPDATE items SET value = -1");
    let wire = recorded(&env, "/origin/wire_bytes").as_u64().expect("a number");
    (env, sshd, wire)
}

fn set_faults(env: &TestEnv, faults: Faults) {
    env.edit_world(|world| world.faults = faults);
}

/// Spread over the whole of it, its first bytes among them.
fn places(from: u64, to: u64) -> impl Iterator<Item = u64> {
    let count = number_of_places();
    (0..count).map(move |i| from + (to - from) * i / count)
}

#[test]
fn a_stream_that_is_cut_anywhere_changes_nothing() {
    let (env, _sshd, wire) = broken_line();
    let mut before_the_end = 0;
    for at in places(0, wire - 20) {
        set_faults(&env, Faults { cut_stdout_after_bytes: Some(at), ..Faults::default() });
        let output = pull_fails(&env, &["--full"], 1);
        let cut = format!(
            "error: the connection was cut after {at} bytes, before the end record; nothing was \
             changed\n"
        );
        if output.stderr.contains(&cut) {
            before_the_end += 1;
            output.stderr_has("hint: run the same command again\n");
        } else {
            assert!(at < 500, "cut after {at} bytes\n{output}");
            output
                .stderr_has("error: the connection was cut before any database arrived; nothing")
                .stderr_has("\nhint: run the same command again\n");
        }
    }
    assert!(
        before_the_end > number_of_places() / 2,
        "most are behind the marker: {before_the_end}"
    );
    set_faults(&env, Faults::default());
    pull(&env, &[]);
    assert_live_equals_production(&env, &NAMES);
}

#[test]
fn a_stream_whose_last_bytes_are_lost_changes_nothing() {
    let (env, _sshd, wire) = broken_line();
    for &lost in &[1, 50, wire / 2, 2, 3, 4, 8, 300][..depth(3, 8)] {
        set_faults(&env, Faults { lose_last_bytes: Some(lost), ..Faults::default() });
        pull_fails(&env, &["--full"], 1)
            .stderr_has("error: the connection was cut after ")
            .stderr_has("hint: run the same command again\n");
    }
    set_faults(&env, Faults { kill_ssh_after_bytes: Some(wire / 3), ..Faults::default() });
    pull_fails(&env, &["--full"], 1).stderr_has("error: the connection was cut after ");
}

/// All that a damaged stream may do is to fail, or to make no difference.
#[test]
fn a_byte_that_is_flipped_anywhere_in_the_stream_changes_nothing() {
    let args = &["--full"][..];
    let (env, _sshd, wire) = broken_line();
    let captured = env.path("captured");
    env.replace_fly(&format!("standin-fly \"$@\" | tee {}", captured.display()));
    pull(&env, args);
    let stream = fs::read(&captured).expect("it was captured");
    let marker = stream.windows(11).position(|window| window == b"XTASK-DB 1 ");
    let begin = marker.expect("a marker") as u64;
    databases::execute(&env.data().join(NAMES[0]), "UPDATE items SET value = -2");
    for at in places(begin, wire - 20).chain([wire - 20, wire - 12]) {
        set_faults(&env, Faults { flip_byte_at: Some(at), ..Faults::default() });
        let output = pull_fails(&env, args, 1);
        assert!(output.stderr.contains("\nhint: "), "flipped at {at}\n{output}");
    }
    // The talk before the marker may be anything.
    for at in places(0, begin - 1).step_by(depth(3, 5)) {
        set_faults(&env, Faults { flip_byte_at: Some(at), ..Faults::default() });
        pull(&env, args);
        assert_live_equals_production(&env, &NAMES);
    }
}

#[test]
fn what_others_say_never_reaches_the_terminal_raw() {
    let (env, sshd) = production();
    let nasty = r"\033]0;owned\007\033[2J\342\200\256gpj\r";
    env.replace_fly(&format!("printf 'Error: {nasty}\\n' >&2; exit 1"));
    pull_fails(&env, &[], 1).stderr_has("| Error: \\u{202e}gpj\n").is_harmless();
    pull_fails(&env, &["-v"], 1).stderr_has("Error: \\u{1b}]0;owned\\u{7}").is_harmless();
    drop(sshd);
    let _sshd = env.start_server(&Environment::default().set("TMPDIR", env.path("tmp")));
    env.uninstall("standin-fly");
    env.replace_fly(&format!(
        "printf 'No machine specified, using {nasty} in region {nasty}\\n{nasty}\\n'
         printf '{nasty}\\n' >&2; exec standin-fly \"$@\""
    ));
    for verbose in [&[][..], &["-v"]] {
        pull(&env, verbose).is_harmless();
    }
    env.replace_fly(&format!(
        "{TAKE_SCRIPT}; read -r _ nonce
         printf '\\nXTASK-DB-STATUS 1 %s {nasty}\\n' \"$nonce\"
         printf '\\nXTASK-DB-FAILED 1 %s unreadable {nasty}\\n' \"$nonce\""
    ));
    pull_fails(&env, &[], 1).stderr_has("error: \\u{1b}]0;owned").is_harmless();
}
