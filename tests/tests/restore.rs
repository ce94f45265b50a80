//! `restore-db` brings an earlier set back, or leaves the live set as it is.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;

use rusqlite::Connection;
use tests::env::TestEnv;
use tests::output::Output;
use tests::sets::{assert_same, change, content, developer, named, pull, snapshots};
use tests::store::{fingerprint, left_behind, modes};
use tests::{databases, tree};

const OLD: &str = "backup_2025-01-02T03-04-05-678Z";

fn restore(env: &TestEnv, args: &[&str]) -> Output {
    env.xtask([&["restore-db", "--yes"], args].concat())
}

/// Runs what must fail, and proves that it changed nothing.
#[track_caller]
fn refused(env: &TestEnv, args: &[&str], code: i32) -> Output {
    let (live, names) = (fingerprint(&env.data()), databases::files(&env.data()));
    let output = env.xtask([&["restore-db"], args].concat()).fails(code).stdout_is("");
    assert_eq!(fingerprint(&env.data()), live, "the live set was changed by {args:?}");
    assert_eq!(databases::files(&env.data()), names);
    assert_tidy(env);
    output
}

#[track_caller]
fn assert_tidy(env: &TestEnv) {
    assert_eq!(left_behind(&env.data()), [""; 0]);
}

#[track_caller]
fn assert_live(env: &TestEnv, snapshot: &str) {
    assert_same(&content(&env.data()), &content(&env.data().join(snapshot)));
    assert_tidy(env);
}

#[test]
fn a_snapshot_is_found_by_its_name_or_a_part_that_only_it_has() {
    let env = developer();
    let first = named(&env, "pull").remove(0);
    change(&env.production().join("data.db"));
    let second = pull(&env);
    let differ = first.bytes().zip(second.bytes()).position(|(a, b)| a != b).expect("two names");
    for text in [&first[..], &first[..=differ], &first["backup_".len()..=differ]] {
        restore(&env, &["--name", text]).ok().stderr_has(&first);
        assert_live(&env, &first);
        restore(&env, &[&second[differ..]]).ok().stderr_has(&second);
        assert_live(&env, &second);
        let suffix = second[differ..].trim_end_matches('Z');
        restore(&env, &["--name", suffix]).ok().stderr_has(&second);
    }
    refused(&env, &["--yes", "--name", "backup_"], 2)
        .stderr_has("error: \"backup_\" matches 2: ")
        .stderr_has(&format!("hint: name one, for example {second}\n"));
    refused(&env, &["--yes", "--name", "1999"], 1)
        .stderr_has("is called \"1999\"; the newest are: ")
        .stderr_has("hint: cargo xtask restore-db --list\n");
    refused(&env, &["--yes", "--name", ""], 2);
    refused(&env, &["--yes", "--name", "../production"], 1);
}

#[test]
fn what_is_current_already_is_not_asked() {
    let env = developer();
    let name = named(&env, "pull").remove(0);
    let on_terminal = |args: &[&str]| env.xtask_on_pty([&["restore-db"], args].concat());
    for args in [&[&name[..]][..], &["--latest"]] {
        refused(&env, args, 0).stderr_has(&format!(" Already up to date ({name})\n"));
        let session = on_terminal(args);
        assert_eq!(session.wait_exit(), 0);
        assert_eq!(env.normalize(session.screen().trim()), "Already up to date (backup_<TIME>)");
    }
    change(&env.data().join("data.db"));
    refused(&env, &[&name], 2).stderr_has("hint: add --yes\n");
    let session = on_terminal(&[&name]);
    let screen = env.normalize(&session.wait_for_text("(y/N)"));
    let question = "? Restore the pull of <WHEN> over 2 databases? Current ones are saved first.";
    assert!(screen.starts_with(question), "{screen}");
    session.send("y\r");
    assert_eq!(session.wait_exit(), 0);
    assert_live(&env, &name);
}

#[test]
fn a_moment_names_the_newest_snapshot_that_was_there() {
    let env = developer();
    let mut made = Vec::new();
    for time in ["2026-01-05T10:00:00Z", "2026-01-05T12:00:30Z", "2026-01-07T08:00:00Z"] {
        change(&env.production().join("data.db"));
        made.push(pull(&env));
        let newest = tests::store::snapshots(&env.data()).pop().expect("it was pulled");
        newest.edit(|json| json["time"] = time.into());
    }
    env.xtask(["snapshots", "rm", "--yes", &named(&env, "pull")[3]]).ok();
    for (at, wanted) in [
        ("2026-01-05T11:59:00Z", 0),
        ("2026-01-05 12:00", 1),
        ("2026-01-06", 1),
        ("2 hours ago", 2),
    ] {
        restore(&env, &["--at", at]).ok();
        assert_live(&env, &made[wanted]);
    }
    refused(&env, &["--yes", "--at", "2026-01-04"], 1)
        .stderr_has("no snapshot is as old as \"2026-01-04\": the oldest is ")
        .stderr_has(" (2026-01-05), the newest ");
    refused(&env, &["--yes", "--at", "soon"], 2)
        .stderr_has("\"soon\" is not a moment")
        .stderr_has("\"yesterday 18:00\"");
    refused(&env, &["--yes", "--at", "2026-01-06", "--latest"], 2);
}

#[test]
fn the_latest_is_the_newest_pulled_one_even_when_newer_ones_were_saved() {
    let env = developer();
    change(&env.production().join("data.db"));
    let pulled = pull(&env);
    change(&env.data().join("data.db"));
    env.xtask(["snapshots", "create"]).ok();
    change(&env.data().join("data.db"));
    restore(&env, &["--latest"]).ok();
    assert_live(&env, &pulled);
    assert_ne!(snapshots(&env)[0]["name"], pulled.as_str());
    assert_same(&content(&env.data()), &content(&env.production()));
}

#[test]
fn undo_goes_back_and_undo_of_undo_goes_forth() {
    let env = developer();
    change(&env.data().join("data.db"));
    let mine = content(&env.data());
    change(&env.production().join("tenant_iris.db"));
    let pulled = pull(&env);
    for _ in 0..2 {
        restore(&env, &["--undo"]).ok();
        assert_same(&content(&env.data()), &mine);
        restore(&env, &["--undo"]).ok();
        assert_live(&env, &pulled);
    }
    change(&env.data().join("tenant_iris.db"));
    let mine = content(&env.data());
    restore(&env, &["--latest"]).ok().stderr_has("restore-db --undo brings back");
    restore(&env, &["--undo"]).ok();
    assert_same(&content(&env.data()), &mine);
}

#[test]
fn undo_takes_away_what_a_wider_pull_brought() {
    let env = TestEnv::new();
    databases::create(&env.production().join("data.db"), 30, 1);
    databases::create(&env.production().join("tenant_iris.db"), 30, 2);
    let via = format!("local:{}", env.production().display());
    env.xtask(["pull-db", "--via", &via, "--only", "data.db"]).ok();
    let narrow = content(&env.data());
    assert_eq!(narrow.len(), 1);
    pull(&env);
    restore(&env, &["--undo"]).ok();
    assert_same(&content(&env.data()), &narrow);
}

#[test]
fn without_a_change_there_is_nothing_to_undo() {
    let env = developer();
    refused(&env, &["--yes", "--undo"], 1)
        .stderr_has("there is nothing to undo")
        .stderr_has("restore-db --list");
}

#[test]
fn only_restores_what_matches_and_leaves_the_rest() {
    let env = developer();
    for name in ["data.db", "tenant_iris.db"] {
        change(&env.data().join(name));
    }
    databases::create(&env.data().join("mine.db"), 5, 9);
    tests::store::brings(&env.data(), "mine.db");
    let live = fingerprint(&env.data());
    restore(&env, &["--latest", "--only", "tenant_*"]).ok();
    let after = fingerprint(&env.data());
    assert_eq!((&after["data.db"], &after["mine.db"]), (&live["data.db"], &live["mine.db"]));
    databases::assert_same(
        &env.data().join("tenant_iris.db"),
        &env.production().join("tenant_iris.db"),
    );
    refused(&env, &["--yes", "--latest", "--only", "x*"], 1).stderr_has("no database of backup_");
    refused(&env, &["--yes", "--latest", "--only", "a//b"], 2);
    restore(&env, &["--latest"]).ok().stderr_has("Removed mine.db");
    assert_same(&content(&env.data()), &content(&env.production()));
}

#[test]
fn the_list_is_data_on_standard_output() {
    let env = developer();
    change(&env.data().join("data.db"));
    restore(&env, &["--latest"]).ok();
    let list = env.xtask(["restore-db", "--list"]).ok().stderr_is("");
    assert_eq!(
        env.normalize(&list.stdout()),
        "backup_<TIME> <WHEN>     before-restore  2 db  <SIZE>  what --undo brings back\n\
         backup_<TIME> <WHEN>     pull            2 db  <SIZE>  current\n"
    );
    let [saved, pulled] = &snapshots(&env)[..] else { panic!("two snapshots") };
    assert_eq!((&saved["kind"], &pulled["kind"]), (&"before-restore".into(), &"pull".into()));
    assert_eq!(pulled["databases"], serde_json::json!(["data.db", "tenant_iris.db"]));
    assert_eq!(pulled["last_put_in_place"], true);
    assert_eq!((&pulled["only"], &pulled["defect"]), (&().into(), &().into()));
    env.xtask(["restore-db", "--list", "--latest"]).fails(2);
    let report = env.xtask(["restore-db", "--undo", "--yes", "--json"]).ok().json();
    assert_eq!(report["snapshot"], saved["name"]);
    assert_eq!(report["before"], pulled["name"]);
}

#[test]
fn without_a_terminal_a_question_is_an_error_that_names_the_flag() {
    let env = developer();
    change(&env.data().join("data.db"));
    refused(&env, &[], 2).stderr_has("NAME, --at, --latest or --undo");
    refused(&env, &["--latest"], 2).stderr_has("hint: add --yes\n");
    refused(&env, &["--latest", "--undo"], 2);
}

#[test]
fn what_was_live_is_saved_once() {
    let env = developer();
    change(&env.data().join("data.db"));
    let mine = content(&env.data());
    restore(&env, &["--latest"]).ok().stderr_has("Saved the previous data as backup_");
    let saved = named(&env, "before-restore");
    assert_eq!(saved.len(), 1);
    assert_same(&content(&env.data().join(&saved[0])), &mine);
    restore(&env, &["--latest"]).ok().stderr_has("Already up to date (backup_");
    for _ in 0..3 {
        restore(&env, &["--undo"]).ok().stderr_has("Previous data: backup_");
    }
    assert_eq!(named(&env, "before-restore"), saved);
    assert_same(&content(&env.data()), &mine);
}

#[test]
fn without_a_snapshot_the_next_step_is_a_pull() {
    let env = TestEnv::new();
    for args in [&["restore-db"][..], &["restore-db", "--latest", "--yes"]] {
        env.xtask(args)
            .fails(1)
            .stderr_has("there is no snapshot in ")
            .stderr_has("hint: cargo xtask pull-db\n");
    }
    env.xtask(["restore-db", "--list"]).ok().stdout_is("").stderr_has("no snapshot in");
    env.xtask(["restore-db", "--list", "--json"])
        .ok()
        .stdout_is("{\n  \"version\": 1,\n  \"snapshots\": []\n}\n")
        .stderr_is("");
    assert!(!env.data().exists(), "looking makes no directory");
}

#[test]
fn a_damaged_snapshot_changes_nothing() {
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 7] = [
        ("holds no database", |dir| {
            fs::remove_dir_all(dir).expect("remove");
            fs::create_dir(dir).expect("make an empty one");
        }),
        ("tenant_iris.db is missing", |dir| {
            fs::remove_file(dir.join("tenant_iris.db")).expect("remove");
        }),
        ("tenant_iris.db has 4096 bytes, not ", |dir| {
            let file = fs::File::options().write(true).open(dir.join("tenant_iris.db"));
            file.and_then(|file| file.set_len(4096)).expect("truncate");
        }),
        ("tenant_iris.db is damaged", |dir| {
            let mut bytes = fs::read(dir.join("tenant_iris.db")).expect("read");
            bytes[9000] ^= 0x20;
            fs::write(dir.join("tenant_iris.db"), bytes).expect("write");
        }),
        ("its snapshot.json is malformed", |dir| {
            fs::write(dir.join("snapshot.json"), "{\"version\": 1, ").expect("write");
        }),
        ("it has format 2, and this tool knows format 1", |dir| {
            let meta = fs::read_to_string(dir.join("snapshot.json")).expect("read");
            let meta = meta.replace("\"version\": 1", "\"version\": 2");
            fs::write(dir.join("snapshot.json"), meta).expect("write");
        }),
        ("junk.db is damaged", |dir| {
            fs::remove_file(dir.join("snapshot.json")).expect("remove");
            fs::write(dir.join("junk.db"), "no database").expect("write");
        }),
    ];
    let env = developer();
    let good = env.data().join(named(&env, "pull").remove(0));
    change(&env.data().join("data.db"));
    change(&env.data().join("tenant_iris.db"));
    for (message, damage) in damages {
        let bad = env.data().join(OLD);
        tree::copy(&good, &bad);
        damage(&bad);
        refused(&env, &["--yes", "--name", OLD], 1)
            .stderr_has(message)
            .stderr_has("restore-db --list")
            .stderr_lacks("a run was killed");
        fs::remove_dir_all(&bad).expect("remove the bad one");
    }
    restore(&env, &["--latest"]).ok().stderr_lacks("warning");
}

#[test]
fn a_directory_of_an_older_tool_is_a_snapshot_too() {
    let env = developer();
    let old = env.data().join(OLD);
    fs::create_dir(&old).expect("make a directory");
    databases::create(&old.join("data.db"), 7, 7);
    // A copy that was made while the program wrote has the rows in its -wal.
    databases::create(&env.path("tenant.db"), 8, 8);
    let writer = Connection::open(env.path("tenant.db")).expect("open");
    databases::insert(&writer, 5, 9);
    for end in ["", "-wal"] {
        fs::copy(env.path(format!("tenant.db{end}")), old.join(format!("tenant_iris.db{end}")))
            .expect("copy");
    }
    drop(writer);
    let before = fingerprint(&old);
    env.xtask(["restore-db", "--list"]).ok().stdout_has(OLD).stdout_has("by hand");
    restore(&env, &["--name", "2025"]).ok();
    assert_eq!(fingerprint(&old), before, "the snapshot is only read");
    assert_eq!(databases::files(&env.data()).len(), 5, "{:?}", databases::files(&env.data()));
    assert_eq!(databases::count(&env.data().join("data.db"), "items"), 7);
    databases::assert_same(&env.data().join("tenant_iris.db"), &env.path("tenant.db"));
    assert_tidy(&env);
}

#[test]
fn what_a_killed_program_left_beside_the_live_set_does_no_harm() {
    let env = TestEnv::new();
    let production = env.production().display().to_string();
    env.app(["setup", "--data-dir", &production, "--rows", "10"]).ok();
    let pulled = pull(&env);
    let app = env.serve(&env.data());
    let load = app.load(&["iris"]);
    load.wait_for_writes(5);
    let written = i64::try_from(load.stop().acknowledged["iris"]).expect("a small number");
    app.kill();
    assert!(databases::files(&env.data()).contains(&"tenant_iris.db-wal".to_owned()));
    restore(&env, &["--latest"]).ok();
    assert_live(&env, &pulled);
    let stray = databases::files(&env.data()).into_iter().find(|name| name.contains(".db-"));
    assert_eq!(stray, None);
    let saved = env.data().join(named(&env, "before-restore").remove(0)).join("tenant_iris.db");
    let before = databases::count(&env.data().join("tenant_iris.db"), "pull_requests");
    assert_eq!(databases::count(&saved, "pull_requests"), before + written);
    // The -wal of another database, in rollback and in WAL mode, is no better.
    fs::write(env.data().join("data.db-wal"), vec![0x37; 50_000]).expect("write");
    fs::write(env.data().join("data.db-shm"), vec![0x37; 32_768]).expect("write");
    restore(&env, &["--latest"]).ok();
    assert_live(&env, &pulled);
}

#[test]
fn a_damaged_live_database_is_replaced_and_kept() {
    let env = developer();
    let pulled = named(&env, "pull").remove(0);
    let garbage = b"garbage ".repeat(5000);
    fs::write(env.data().join("data.db"), &garbage).expect("overwrite");
    let restored = restore(&env, &["--latest"]).ok();
    restored.stderr_has("warning: data.db is damaged").stderr_has("--undo --only GLOB");
    assert_live(&env, &pulled);
    let saved = env.data().join(named(&env, "before-restore").remove(0));
    assert!(fs::read(saved.join("data.db")).expect("read") == garbage);
    databases::assert_same(&saved.join("tenant_iris.db"), &env.data().join("tenant_iris.db"));

    for name in ["data.db", "tenant_iris.db"] {
        fs::write(env.data().join(name), &garbage).expect("overwrite");
    }
    let restored = restore(&env, &["--latest"]).ok();
    restored.stderr_has("hint: the damaged data is kept in backup_").stderr_lacks("--undo");
}

#[test]
fn nobody_else_can_read_what_is_here() {
    let env = TestEnv::new();
    fs::create_dir(env.data()).expect("a directory that everyone may read");
    databases::create(&env.production().join("data.db"), 30, 1);
    pull(&env);
    change(&env.data().join("data.db"));
    env.xtask(["snapshots", "create"]).ok();
    change(&env.data().join("data.db"));
    restore(&env, &["--latest"]).ok();
    for (path, mode) in modes(&env.data()) {
        let wanted = if path.is_dir() { 0o700 } else { 0o600 };
        assert!(mode == wanted || path.ends_with("lock"), "{mode:o} {}", path.display());
    }
}

/// As an app in a container has it, which runs as another user.
#[test]
fn a_database_stays_of_its_owner_and_a_new_one_is_for_the_same_group() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let env = developer();
    let whose = |name: &str| {
        let found = env.data().join(name).metadata().expect("it is there");
        (found.uid(), found.gid(), found.permissions().mode() & 0o777)
    };
    assert_eq!(whose("data.db"), (0, 0, 0o600), "of a first pull");
    for name in ["data.db", "tenant_iris.db"] {
        let path = env.data().join(name);
        chown(&path, Some(1000), Some(1001)).expect("give it away");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o664)).expect("set a mode");
    }
    change(&env.data().join("data.db"));
    restore(&env, &["--latest"]).ok();
    assert_eq!([whose("data.db"), whose("tenant_iris.db")], [(1000, 1001, 0o664); 2]);
    databases::create(&env.production().join("tenant_new.db"), 5, 5);
    pull(&env);
    assert_eq!([whose("data.db"), whose("tenant_iris.db")], [(1000, 1001, 0o664); 2]);
    assert_eq!(whose("tenant_new.db"), (0, 1001, 0o664));
    let snapshots = modes(&env.data().join(named(&env, "pull").remove(0)));
    assert!(snapshots.iter().all(|(_, mode)| mode & 0o077 == 0), "{snapshots:?}");
}
