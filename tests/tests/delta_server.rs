//! The server's side of a page delta when it is left alone, by its client or by a part
//! of itself: all of it ends, and nothing stays.

use std::fs;
use std::io::{Read as _, Write as _};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, sleep};
use std::time::Duration;

use tests::databases;
use tests::env::TestEnv;
use tests::forge::{Codec, decompress};
use tests::long::depth;
use tests::process::wait_for;
use tests::shells;

const SHELLS: [&[&str]; 3] = [&["dash"], &["bash", "--posix"], &["busybox", "sh"]];
const MARKER: &[u8] = b"\nXTASK-DB 1 00\n";

/// Databases of several chunks, of which the client has other ones.
struct Production {
    env: TestEnv,
    request: String,
    hashes: Vec<u8>,
}

/// A server's side that runs, and a client that listens to it.
struct Server<'a> {
    env: &'a TestEnv,
    script: Child,
    input: ChildStdin,
    said: Arc<Mutex<Vec<u8>>>,
    listener: thread::JoinHandle<()>,
}

impl Production {
    fn new() -> Production {
        let env = TestEnv::new();
        for (name, chunks) in [("data.db", 3), ("tenant.db", 1)] {
            let path = env.production().join(name);
            databases::create(&path, 30, 1);
            databases::execute(
                &path,
                &format!(
                    "CREATE TABLE noise AS WITH n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n
                     WHERE i < {chunks} * 18) SELECT randomblob(100000) AS data FROM n"
                ),
            );
        }
        shells::pull_script(&env.path("."));
        let (production, staging) = (env.production(), env.path("tmp"));
        let mut request = format!(
            "nonce 00\nmode stream\ndirectory {}\nstaging {}\ninclude *.db\n",
            production.display(),
            staging.display()
        );
        let mut hashes = Vec::new();
        for name in ["data.db", "tenant.db"] {
            let bytes = production.join(name).metadata().expect("it is there").len() as usize;
            request += &format!("base {:064} {bytes} 4096 0 - -/-//{name}\n", 0);
            hashes.resize(hashes.len() + bytes.div_ceil(16384) * 64, 0);
        }
        Production { env, request: request + "end\n", hashes }
    }

    fn start(&self, shell: &[&str]) -> Server<'_> {
        let env = &self.env;
        let mut script = env.command(shell[0]);
        script.args(&shell[1..]).arg(env.path("pull.sh")).env("XTASK_REQUEST", "1");
        script.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut script = script.spawn().expect("start the script");
        let mut input = script.stdin.take().expect("it listens");
        let mut output = script.stdout.take().expect("it speaks");
        let said = Arc::new(Mutex::new(Vec::new()));
        let heard = said.clone();
        let listener = thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            while let Ok(n @ 1..) = output.read(&mut buffer) {
                heard.lock().expect("nobody panics").extend_from_slice(&buffer[..n]);
            }
        });
        input.write_all(self.request.as_bytes()).expect("ask");
        Server { env, script, input, said, listener }
    }
}

impl Server<'_> {
    fn send(&mut self, bytes: &[u8]) {
        self.input.write_all(bytes).expect("send");
    }

    /// Waits for so many whole streams.
    fn wait_for_streams(&self, count: usize) {
        let streams = || {
            let said = self.said.lock().expect("nobody panics");
            let begins = said.windows(MARKER.len()).enumerate();
            let begins = begins.filter(|(_, window)| *window == MARKER).map(|(at, _)| at);
            let is_whole = |at: usize| {
                let stream = &said[at + MARKER.len()..];
                let codec = if stream.first() == Some(&0x28) { Codec::Zstd } else { Codec::Gzip };
                decompress(codec, stream).is_some()
            };
            begins.filter(|at| is_whole(*at)).count()
        };
        wait_for("a whole stream", || (streams() == count).then_some(()));
    }

    /// The client goes, and then all of the server's side.
    fn leave(mut self, when: &str) {
        drop(self.input);
        wait_for(&format!("the script to end: {when}"), || {
            self.script.try_wait().expect("it is ours")
        });
        assert_eq!(databases::files(&self.env.path("tmp")), [""; 0], "{when}");
        wait_for(&format!("all to end: {when}"), || {
            let left = self.env.processes();
            left.is_empty().then_some(())
        });
        self.listener.join().expect("nobody panics");
    }
}

#[test]
fn a_client_that_goes_while_it_sends_hashes_leaves_nothing() {
    let production = Production::new();
    let hashes = &production.hashes;
    for shell in SHELLS {
        let all = [hashes.len() / 2, 0, 1, hashes.len() - 1];
        for &sent in &all[..depth(2, all.len())] {
            for &millis in depth(&[20][..], &[0, 60]) {
                let mut server = production.start(shell);
                server.send(&hashes[..sent]);
                sleep(Duration::from_millis(millis));
                server.leave(&format!("{shell:?} after {sent} bytes and {millis} ms"));
            }
        }
    }
}

#[test]
fn a_client_that_goes_while_the_server_compares_leaves_nothing() {
    let production = Production::new();
    for shell in SHELLS {
        for moment in 0..depth(3, 80) {
            let mut server = production.start(shell);
            server.send(&production.hashes);
            let millis = moment * depth(90, 5);
            sleep(Duration::from_millis(millis));
            server.leave(&format!("{shell:?} after {millis} ms"));
        }
    }
}

#[test]
fn a_client_that_goes_while_its_word_is_waited_for_leaves_nothing() {
    let production = Production::new();
    for shell in SHELLS {
        let mut server = production.start(shell);
        server.send(&production.hashes);
        server.wait_for_streams(1);
        server.leave(&format!("{shell:?} before the word"));
        for &millis in depth(&[20][..], &[0, 5, 40, 100]) {
            let mut server = production.start(shell);
            server.send(&production.hashes);
            server.wait_for_streams(1);
            server.send(b"1 0\n");
            sleep(Duration::from_millis(millis));
            server.leave(&format!("{shell:?} {millis} ms after the word"));
        }
    }
}

#[test]
fn what_was_asked_for_comes_and_then_the_server_ends_before_its_client() {
    let production = Production::new();
    for shell in SHELLS {
        let mut server = production.start(shell);
        server.send(&production.hashes);
        server.wait_for_streams(1);
        server.send(b"1\n");
        server.wait_for_streams(2);
        wait_for("the script to end", || server.script.try_wait().expect("it is ours"));
        server.leave(&format!("{shell:?} at the end"));
    }
}

/// What it has started does not wait on, for a word that nobody could bring.
#[test]
fn nobody_outlives_a_script_that_is_killed_while_it_waits() {
    let production = Production::new();
    for shell in SHELLS {
        for hashes in [&production.hashes[..1], &production.hashes] {
            let mut server = production.start(shell);
            server.send(hashes);
            if hashes.len() > 1 {
                server.wait_for_streams(1);
            }
            wait_for("the script to wait for a word", || {
                let left = production.env.processes();
                let heads = left.iter().filter(|(_, name)| name == "head").count();
                (heads == if hashes.len() > 1 { 1 } else { 2 }).then_some(())
            });
            server.script.kill().expect("it is ours");
            drop(server.input);
            server.script.wait().expect("it is ours");
            wait_for(&format!("all of {shell:?} to end"), || {
                production.env.processes().is_empty().then_some(())
            });
            for left in databases::files(&production.env.path("tmp")) {
                fs::remove_dir_all(production.env.path("tmp").join(left)).expect("remove");
            }
        }
    }
}
