//! `cargo xtask pull-db`, again, when what an earlier pull left was damaged, when the
//! server cannot compare, and when it fails while it does.

use std::fs;
use std::path::{Path, PathBuf};

use tests::databases;
use tests::delta::{Report, Scene, files_below};
use tests::disk::SmallDisk;
use tests::env::TestEnv;
use tests::long::depth;
use tests::process::{find_by_environment, wait_for};
use tests::pull::{NAMES, assert_live_equals_production, assert_tidy, production, snapshot};
use tests::shells;
use tests::sqlite3::Build;
use tests::store::LEFTOVER;

/// What an earlier pull has of the second database.
fn base(env: &TestEnv) -> PathBuf {
    snapshot(env).path.join(NAMES[1])
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).expect("read");
    bytes[30_000] ^= 0xff;
    fs::write(path, bytes).expect("write");
}

#[test]
fn of_a_base_that_was_damaged_what_is_damaged_comes() {
    for &sftp in depth(&[false][..], &[false, true]) {
        let (env, _sshd) = production();
        let pull = |changed: [Option<u64>; 3]| {
            let before = env.fly_invocations().len();
            let args = ["pull-db", "--json"].into_iter().chain(sftp.then_some("--sftp"));
            let report = Report::of(env.xtask(args).ok());
            assert_tidy(&env);
            assert_eq!(report.all_changed(&NAMES), changed, "{}", report.output);
            assert_live_equals_production(&env, &NAMES);
            let log = &env.fly_invocations()[before..];
            assert_eq!(log.iter().filter(|argv| argv[1] == "console").count(), 1, "{log:?}");
            assert!(!report.output.stderr.contains("warning"), "{}", report.output);
            // No older pull stands in.
            let newest = snapshot(&env).path;
            for old in tests::store::snapshots(&env.data()) {
                if old.path != newest {
                    fs::remove_dir_all(old.path).expect("remove");
                }
            }
            report.wire_bytes()
        };
        let whole = pull([None; 3]);
        let overwrite: fn(&Path) -> u64 = |path| {
            let bytes = fs::metadata(path).expect("it is there").len();
            fs::write(path, vec![7; bytes as usize]).expect("write");
            bytes / 4096
        };
        let one_page: fn(&Path) -> u64 = |path| {
            flip(path);
            1
        };
        for damage in [one_page, overwrite] {
            let pages = damage(&base(&env));
            let bytes = pull([Some(0), Some(pages), Some(0)]);
            assert!(bytes + 4000 < whole, "{bytes} bytes, of {whole}");
        }
        // These are known beforehand.
        for length in [Some(20_000), None] {
            match length {
                Some(length) => {
                    let file = fs::File::options().write(true).open(base(&env)).expect("open");
                    file.set_len(length).expect("cut");
                }
                None => fs::remove_file(base(&env)).expect("remove"),
            }
            pull([Some(0), None, Some(0)]);
        }
        // What is compared is what is there: the damage comes with what changed.
        flip(&base(&env));
        let change = "UPDATE items SET data = 'y' WHERE id = 1";
        databases::execute(&env.production().join(NAMES[1]), change);
        pull([Some(0), Some(2), Some(0)]);
    }
}

#[test]
fn all_may_be_damaged() {
    let scene = Scene::new();
    scene.create(&NAMES, 50);
    scene.pull(&[]);
    for name in NAMES {
        flip(&snapshot(&scene.env).path.join(name));
    }
    assert_eq!(scene.pull(&[]).all_changed(&NAMES), [Some(1); 3]);
}

#[test]
fn a_dry_run_does_not_believe_a_base_that_was_damaged() {
    let scene = Scene::new();
    scene.create(&NAMES, 50);
    scene.pull(&[]);
    flip(&base(&scene.env));
    let report = scene.report(&["--dry-run"]);
    assert_eq!(report.all_changed(&NAMES), [Some(0), Some(1), Some(0)]);
}

#[test]
fn a_base_may_vanish_during_the_pull() {
    let scene = Scene::new();
    scene.create(&NAMES, 100);
    scene.pull(&[]);
    scene.add(NAMES[1], 50);
    let body = format!("rm -f '{}'\nexec {} \"$@\"", base(&scene.env).display(), sqlite3());
    shells::script(&scene.env.path("bin"), "sqlite3", &body);
    let report = scene.pull(&[]);
    assert_eq!((report.changed(NAMES[0]), report.changed(NAMES[2])), (Some(0), Some(0)));
}

fn sqlite3() -> String {
    shells::find("sqlite3").display().to_string()
}

#[test]
fn a_server_that_cannot_compare_sends_all() {
    let scene = Scene::new();
    scene.create(&NAMES, 50);
    scene.pull(&[]);
    let whole = || {
        let report = scene.pull(&[]);
        assert_eq!(report.all_changed(&NAMES), [None; 3]);
        assert!(report.output.stderr.contains("hint: the server's sqlite3 cannot compare"));
        assert_eq!(scene.report(&["--dry-run"]).all_changed(&NAMES), [None; 3]);
    };
    // Built without it.
    let body = format!("sed 's/sha3/no_such_function/g' | {} \"$@\"", sqlite3());
    shells::script(&scene.env.path("bin"), "sqlite3", &body);
    whole();
    scene.add(NAMES[1], 50);
    Build::Old.install(&scene.env.path("bin"));
    whole();
}

#[test]
fn a_server_without_zstd_compares_too() {
    let env = TestEnv::new();
    let bin = shells::debian(&env.path(""), &["zstd"]);
    let _sshd = env.start_server(&env.server_environment().set("PATH", &bin));
    for (seed, name) in (1..).zip(NAMES) {
        databases::create(&env.production().join(name), 400, seed);
    }
    tests::pull::pull(&env, &[]);
    let change = "UPDATE items SET data = 'y' WHERE id = 1";
    databases::execute(&env.production().join(NAMES[1]), change);
    let report = Report::of(env.xtask(["pull-db", "--json"]).ok());
    assert_eq!(report.all_changed(&NAMES), [Some(0), Some(1), Some(0)]);
    assert_live_equals_production(&env, &NAMES);
}

/// A job of the server that is killed as it begins may not heed the signal.
#[test]
fn a_client_that_leaves_ends_what_waits_for_its_word() {
    let env = TestEnv::new();
    let bin = shells::debian(&env.path(""), &["head"]);
    let _sshd = env.start_server(&env.server_environment().set("PATH", &bin));
    databases::create(&env.production().join("data.db"), 400, 1);
    let head = shells::find("head");
    shells::script(&bin, "head", &format!("trap '' TERM\nexec {} \"$@\"", head.display()));
    tests::pull::pull(&env, &[]);
    databases::execute(
        &env.production().join("data.db"),
        "UPDATE items SET data = 'y' WHERE id = 1",
    );
    for at in [600, 700, 800, 900] {
        env.edit_world(|world| world.faults.flip_byte_at = Some(at));
        tests::pull::pull_fails(&env, &[], 1).stderr_has("nothing was changed");
    }
}

/// While a client reads slowly and all has changed, what differs does not pile up.
#[test]
fn what_differs_takes_as_much_room_as_the_largest_database() {
    for (count, kibibytes, largest) in [(24, 1000, 1000), (4, 1000, 12_000)] {
        let (env, _sshd) = TestEnv::with_server();
        let names: Vec<_> = (0..count).map(|i| format!("tenant_{i:02}.db")).collect();
        let fill = || {
            for (i, name) in names.iter().enumerate() {
                let path = env.production().join(name);
                let _ = fs::remove_file(&path);
                let size = if i == 0 { largest } else { kibibytes };
                let table = "CREATE TABLE items (data)";
                let rows = "INSERT INTO items VALUES (randomblob(1000000))";
                databases::execute(
                    &path,
                    &format!("{table};{}", format!("{rows};").repeat(size / 1000)),
                );
            }
        };
        fill();
        tests::pull::pull(&env, &[]);
        fill();
        let sizes = names
            .iter()
            .map(|name| fs::metadata(env.production().join(name)).expect("it is there").len());
        let (total, largest) = (sizes.clone().sum::<u64>(), sizes.max().expect("some"));
        // Each KiB has four bytes; beside that are some small files.
        let bound = total + largest + (8 << 20) + total / 256 + (1 << 18);

        env.edit_world(|world| world.faults.stall_after_bytes = Some(100_000));
        let running = env.start_xtask(["pull-db"]);
        let mark = format!("TMPDIR={}", env.path("tmp").display());
        let mut most = 0;
        wait_for("the comparing to stand still", || {
            most = most.max(size_of(&env.path("tmp")));
            let programs = find_by_environment(&mark);
            let sends = programs.iter().any(|(_, name)| name == "zstd");
            let works = programs.iter().any(|(_, name)| name == "sqlite3");
            (sends && !works && most > total + total / 256 + (1 << 20)).then_some(())
        });
        running.interrupt();
        running.wait().fails(130);
        assert_tidy(&env);
        assert!(most < bound, "{most} bytes for {total}, of which {largest} are of one");
    }
}

/// In bytes, without what is removed meanwhile.
fn size_of(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let sizes = entries.filter_map(|entry| {
        let metadata = entry.metadata().ok()?;
        Some(if metadata.is_dir() { size_of(&entry.path()) } else { metadata.len() })
    });
    sizes.sum()
}

/// Puts a `sqlite3` in place that does `what` when it is to compare: `$1` of it is the
/// first line of the script, the rest is on its input.
fn when_comparing(scene: &Scene, what: &str) {
    let body = format!(
        "for last do :; done
         if [ \"$last\" != :memory: ]; then exec {0} \"$@\"; fi
         IFS= read -r first
         real() {{ {{ printf '%s\\n' \"$first\"; cat; }} | {0} -batch -bail -init /dev/null :memory:; }}
         case $first in 'PRAGMA temp_store'*) {what} ;; *) real ;; esac",
        sqlite3()
    );
    shells::script(&scene.env.path("bin"), "sqlite3", &body);
}

/// A pull that fails says so, which is returned, and changes nothing; one that does not
/// brings all.
fn fails_or_brings_all(scene: &Scene, what: &str) -> Option<String> {
    let files = || {
        let mut files = files_below(&scene.env.data());
        files.retain(|path, _| !path.contains(LEFTOVER));
        files
    };
    let before = files();
    let output = scene.start(&[]).wait();
    assert_tidy(&scene.env);
    if output.code == Some(0) {
        assert_live_equals_production(&scene.env, &NAMES);
        return None;
    }
    assert_eq!(output.code, Some(1), "{what}\n{output}");
    assert!(output.stderr.contains("nothing was changed"), "{what}\n{output}");
    assert!(files() == before, "{what}\n{output}");
    Some(output.stderr)
}

#[test]
fn what_fails_while_it_compares_fails_the_pull() {
    let scene = Scene::new();
    scene.create(&NAMES, 300);
    scene.pull(&[]);
    for name in NAMES {
        scene.add(name, 2500);
    }
    let half = format!("{{ echo \"$first\"; head -n 20; }} | {} :memory:; exit 1", sqlite3());
    for what in ["kill -KILL $$", "cat >/dev/null; exit 1", &half] {
        when_comparing(&scene, what);
        let said = fails_or_brings_all(&scene, what).expect("it fails");
        assert!(said.contains("comparing failed"), "{what}: {said}");
        let output = scene.start(&["--dry-run"]).wait().fails(1);
        output.stderr_has("error: ");
    }
    fs::remove_file(scene.env.path("bin/sqlite3")).expect("it was there");

    // The bootstrap takes its script with the same program.
    let dd = shells::find("dd");
    for what in ["exit 1", ": >new.0; : >new.1; exit 0", "kill -KILL $$"] {
        for file in ["[0-9]*.db", "base"] {
            let body =
                format!("case $1 in if={file}) {what} ;; esac\nexec {} \"$@\"", dd.display());
            shells::script(&scene.env.path("bin"), "dd", &body);
            fails_or_brings_all(&scene, &body);
        }
    }
    fs::remove_file(scene.env.path("bin/dd")).expect("it was there");
    scene.pull(&[]);
}

#[test]
fn a_disk_with_too_little_room_to_compare_is_known_beforehand() {
    let scene = Scene::new();
    let Some(disk) = SmallDisk::mount(&scene.env.path("tmp"), 8 << 10) else { return };
    scene.create(&["data.db"], 1000);
    scene.pull(&[]);
    scene.start(&[]).wait().fails(1).stderr_has(" KiB free, and copying the databases needs ");
    assert_tidy(&scene.env);
    scene.pull(&["--full"]);
    drop(disk);
}

#[test]
fn a_disk_that_is_full_while_it_compares_fails_the_pull() {
    let scene = Scene::new();
    let Some(disk) = SmallDisk::mount(&scene.env.path("tmp"), 64 << 10) else { return };
    scene.create(&NAMES, 300);
    scene.pull(&[]);
    for name in NAMES {
        scene.add(name, 3000);
    }
    for &kibibytes in depth(&[0, 2100, 5000][..], &[0, 100, 2100, 4200, 5000]) {
        let fill = "head -c 99999999 /dev/zero >filler 2>/dev/null";
        let leave = format!("truncate -s -{kibibytes}K filler");
        when_comparing(&scene, &format!("[ -e filler ] || {{ {fill}; {leave}; }}; real"));
        let failed = fails_or_brings_all(&scene, &leave);
        assert!(failed.is_some() || kibibytes > 2000, "{leave}");
    }
    fs::remove_file(scene.env.path("bin/sqlite3")).expect("it was there");
    scene.pull(&[]);
    drop(disk);
}
