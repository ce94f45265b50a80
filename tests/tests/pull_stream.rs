//! `cargo xtask pull-db` believes nothing that comes over the line.

use std::fs;
use std::path::Path;

use tests::databases;
use tests::env::TestEnv;
use tests::process::{Running, command};
use tests::pull::{NAMES, assert_live_equals_production, production, pull, pull_fails, recorded};
use tests::server::{Environment, Sshd};
use tests::store;
use tests::world::Faults;

/// How many places a stream is broken at, for each way to break it.
const PLACES: u64 = 40;

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
    (0..PLACES).map(move |i| from + (to - from) * i / PLACES)
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
            output.stderr_has("error: the connection failed").stderr_has("\nhint: try by hand: ");
        }
    }
    assert!(before_the_end > PLACES / 2, "most are behind the marker: {before_the_end}");
    set_faults(&env, Faults::default());
    pull(&env, &[]);
    assert_live_equals_production(&env, &NAMES);
}

#[test]
fn a_stream_whose_last_bytes_are_lost_changes_nothing() {
    let (env, _sshd, wire) = broken_line();
    for lost in [1, 2, 3, 4, 8, 50, 300, wire / 2] {
        set_faults(&env, Faults { lose_last_bytes: Some(lost), ..Faults::default() });
        pull_fails(&env, &["--full"], 1)
            .stderr_has("error: the connection was cut after ")
            .stderr_has("hint: run the same command again\n");
    }
    set_faults(&env, Faults { kill_ssh_after_bytes: Some(wire / 3), ..Faults::default() });
    pull_fails(&env, &["--full"], 1).stderr_has("error: the connection was cut after ");
}

/// All that a damaged stream may do is to fail, or to make no difference.
fn flipped(args: &[&str]) {
    let args = &[args, &["--full"]].concat()[..];
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
    for at in places(0, begin - 1).step_by(5) {
        set_faults(&env, Faults { flip_byte_at: Some(at), ..Faults::default() });
        pull(&env, args);
        assert_live_equals_production(&env, &NAMES);
    }
}

#[test]
fn a_byte_that_is_flipped_anywhere_in_the_stream_changes_nothing() {
    flipped(&[]);
}

/// Answers a pull with `stream` behind a marker, as a server that is not ours might.
fn impostor(env: &TestEnv, stream: &Path) {
    env.replace_fly(&format!(
        "read -r n; dd bs=1 count=\"$n\" >/dev/null 2>&1; read -r _ nonce
         printf '\\nXTASK-DB 1 %s\\n' \"$nonce\"; cat {}",
        stream.display()
    ));
}

fn sha256(path: &Path) -> String {
    let output = command("sha256sum").arg(path).output().expect("sha256sum runs");
    String::from_utf8_lossy(&output.stdout)[..64].to_owned()
}

fn hex(name: &str) -> String {
    name.bytes().map(|byte| format!("{byte:02x}")).collect()
}

/// A stream with one database, as our server sends it, but changed.
struct Forged<'a> {
    name: &'a str,
    bytes: i64,
    sha256: Option<&'a str>,
    members: &'a str,
}

const HONEST: Forged<'_> =
    Forged { name: "data.db", bytes: 0, sha256: None, members: "index.json 0.db end.json" };

#[track_caller]
fn forge(env: &TestEnv, forged: &Forged<'_>) {
    let work = env.path("forged");
    drop(fs::remove_dir_all(&work));
    fs::create_dir_all(&work).expect("make a directory");
    let database = work.join("0.db");
    databases::create(&env.path("tmp/forged.db"), 50, 5);
    fs::rename(env.path("tmp/forged.db"), &database).expect("rename");
    let bytes = fs::metadata(&database).expect("it is there").len() as i64 + forged.bytes;
    let sum = forged.sha256.map_or_else(|| sha256(&database), str::to_owned);
    let index = format!(
        r#"{{"version":1,"machine":"","region":"","sqlite":"3","databases":[{{"name":"{}","bytes":{bytes}}}]}}"#,
        hex(forged.name)
    );
    fs::write(work.join("index.json"), index).expect("write");
    let index = sha256(&work.join("index.json"));
    let end = format!(
        r#"{{"version":1,"sanitized":null,"copy_ms":1,"sanitize_ms":1,"pack_ms":1,"index":"{index}","sha256":["{sum}"]}}"#
    );
    fs::write(work.join("end.json"), end).expect("write");
    let script = format!(
        "ln -s /etc/passwd link.db; tar -cf - {} | gzip >{}",
        forged.members,
        env.path("stream").display()
    );
    Running::start(command("sh").current_dir(work).args(["-c", &script])).wait().ok();
}

#[test]
fn a_forged_stream_puts_nothing_anywhere() {
    let (env, _sshd) = production();
    env.db_toml("exclude = ['durably.db']\n");
    impostor(&env, &env.path("stream"));
    forge(&env, &HONEST);
    pull(&env, &[]).stderr_has("Pulled 1 database");
    let outside = || store::modes(&env.path("")).len() - store::modes(&env.data()).len();
    for (forged, why) in [
        (Forged { name: "evil.sqlite", ..HONEST }, "\"evil.sqlite\" was not asked for"),
        (Forged { name: "durably.db", ..HONEST }, "\"durably.db\" was not asked for"),
        (Forged { name: "../evil.db", ..HONEST }, "is no name for a database"),
        (Forged { name: "/tmp/evil.db", ..HONEST }, "is no name for a database"),
        (Forged { name: "a.db-wal", ..HONEST }, "is no name for a database"),
        (Forged { name: ".xtask", ..HONEST }, "is no name for a database"),
        (Forged { bytes: 1, ..HONEST }, "not the "),
        (Forged { bytes: i64::MAX / 4, ..HONEST }, "is full; nothing was changed"),
        (Forged { sha256: Some("00"), ..HONEST }, "is not what the server sent"),
        (Forged { members: "0.db index.json end.json", ..HONEST }, "where the file \"index.json\""),
        (Forged { members: "index.json link.db end.json", ..HONEST }, "where the file \"0.db\""),
        (
            Forged { members: "index.json 0.db 0.db end.json", ..HONEST },
            "where the file \"end.json\"",
        ),
        (Forged { members: "index.json 0.db end.json 0.db", ..HONEST }, "more"),
        (
            Forged {
                members: "--transform 's|0.db|../../evil.db|;s|0.db|x|' -P index.json 0.db end.json",
                ..HONEST
            },
            "where the file \"0.db\"",
        ),
        (Forged { members: "index.json 0.db", ..HONEST }, "the connection was cut after "),
    ] {
        forge(&env, &forged);
        let files = outside();
        pull_fails(&env, &[], 1).stderr_has(why).stderr_has("nothing was changed");
        assert_eq!(outside(), files, "{why}");
    }
}

#[test]
fn what_others_say_never_reaches_the_terminal_raw() {
    let (env, sshd) = production();
    let nasty = r"\033]0;owned\007\033[2J\342\200\256gpj\r";
    env.replace_fly(&format!("printf 'Error: {nasty}\\n' >&2; exit 1"));
    for verbose in [&[][..], &["-v"]] {
        pull_fails(&env, verbose, 1).stderr_has("Error: \\u{1b}]0;owned\\u{7}").is_harmless();
    }
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
        "read -r n; dd bs=1 count=\"$n\" >/dev/null 2>&1; read -r _ nonce
         printf '\\nXTASK-DB-STATUS 1 %s {nasty}\\n' \"$nonce\"
         printf '\\nXTASK-DB-FAILED 1 %s unreadable {nasty}\\n' \"$nonce\""
    ));
    pull_fails(&env, &[], 1).stderr_has("the server gave up: \\u{1b}]0;owned").is_harmless();
}

#[test]
fn only_what_only_names_is_taken() {
    let (env, _sshd) = production();
    impostor(&env, &env.path("stream"));
    forge(&env, &HONEST);
    pull_fails(&env, &["--only", "tenant_*"], 1).stderr_has("\"data.db\" was not asked for");
}
