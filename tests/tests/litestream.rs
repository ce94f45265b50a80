//! Pulls from what the real Litestream has replicated, at any moment, without touching production.

use std::fs;

use tests::databases;
use tests::litestream::{SECRET, Scene, create};
use tests::process::{Running, wait_for};
use tests::sets::named;
use tests::shells::script;
use tests::store::left_behind;

#[test]
fn replicas_are_restored_here_masked_and_nothing_else_stays() {
    let scene = Scene::in_directory();
    let output = scene.pull(&["-v"]).ok();
    output
        .stderr_has("Restoring 3 databases with Litestream")
        .stderr_has("Masking the copies here\n")
        .stderr_lacks("on the server")
        .stderr_has("Pulled 3 databases from the replicas of litestream.yml\n")
        .stderr_lacks(SECRET);
    assert_eq!(scene.live(), ["main.db", "tenants/iris.db", "tenants/juno.db"]);
    for name in scene.live() {
        assert!(!databases::bytes_contain(&scene.env.data().join(&name), SECRET), "{name}");
    }
    assert_eq!(left_behind(&scene.env.data()), Vec::<String>::new());
    // The next pull brings what changed, and a new tenant.
    scene.add("tenants/iris.db");
    create(&scene.env.production().join("tenants/kali.db"));
    scene.settle();
    wait_for("kali", || scene.replicated_rows("t/kali.db"));
    let only = scene.pull(&["--only", "tenants/iris.db", "--dry-run"]).ok();
    only.stderr_has("Would pull 1 database").stderr_has(" in 1 changed page");
    assert_eq!(scene.rows("tenants/iris.db"), 1);
    scene.pull(&[]).ok();
    assert_eq!((scene.rows("tenants/iris.db"), scene.rows("tenants/kali.db")), (2, 1));
    assert_eq!(left_behind(&scene.env.data()), Vec::<String>::new());
}

#[test]
fn each_moment_has_what_was_committed_before_it() {
    let scene = Scene::in_directory();
    let mut moments = Vec::new();
    for _ in 0..3 {
        scene.settle();
        // The times in a replica are of whole seconds.
        let committed = scene.second();
        moments.push(wait_for("a later second", || {
            Some(scene.second()).filter(|now| *now > committed)
        }));
        let moment = scene.second();
        wait_for("a second after that", || (scene.second() > moment).then_some(()));
        scene.add("main.db");
    }
    scene.settle();
    for (i, at) in moments.iter().enumerate() {
        scene.pull(&["--at", at]).ok();
        assert_eq!(scene.rows("main.db"), 1 + i as i64, "{at}");
        // Nothing was written to it since: its newest state is that of the moment.
        assert_eq!(scene.rows("tenants/juno.db"), 1);
    }
    scene.env.xtask(["snapshots"]).ok().stdout_has("as of today ");
    let early = scene.pull(&["--at", "2020-01-01T00:00:00Z"]).fails(1);
    early
        .stderr_has("cannot be restored as of 2020-01-01T00:00:00Z: its replica goes from 20")
        .stderr_has("is the earliest that can be restored");
    scene.pull(&["--at", "soon"]).fails(2);
    for future in ["2999-01-01T00:00:00Z", "2999-01-01"] {
        scene.pull(&["--at", future]).fails(2).stderr_has("is in the future");
    }
    scene.env.local_pull(&["--at", "1 hour ago"]).fails(2).stderr_has("--via litestream");
}

#[test]
fn a_url_names_one_replica_or_all_below_it() {
    let scene = Scene::in_directory();
    let url = |below: &str| format!("litestream:file://{}{below}", scene.replicas().display());
    scene.pull(&["--via", &url("/t")]).ok().stderr_has("Pulled 2 databases from file://");
    assert_eq!(scene.live(), ["iris.db", "juno.db"]);
    scene.pull(&["--via", &url("/t/iris.db")]).ok();
    let none = scene.pull(&["--via", &url("/main")]).fails(1);
    none.stderr_has("no replica in file://").stderr_has("matches: main\n");
    scene.pull(&["--via", &url("/nowhere")]).fails(1).stderr_has("cannot list the replicas in ");
    let refused = scene.pull(&["--via", "litestream:s3://u:p@b/x"]).fails(2);
    refused.stderr_has("leave the password out of the URL");
}

/// Four of five are whole: none of them replaces anything.
#[test]
fn a_replica_that_lacks_a_part_fails_the_pull_as_a_whole() {
    let mut scene = Scene::in_directory();
    scene.pull(&[]).ok();
    for _ in 0..3 {
        scene.add("tenants/iris.db");
        scene.settle();
    }
    drop(scene.replicate.take());
    let before = named(&scene.env, "pull");
    let level = scene.replicas().join("t/iris.db/ltx/0");
    let mut parts: Vec<_> = fs::read_dir(&level).expect("parts").flatten().collect();
    parts.sort_by_key(fs::DirEntry::file_name);
    fs::remove_file(parts[parts.len() - 2].path()).expect("remove a part");
    // Nor must a compaction have it.
    for other in ["1", "2", "3"] {
        let _ = fs::remove_dir_all(scene.replicas().join("t/iris.db/ltx").join(other));
    }
    let output = scene.pull(&[]).fails(1);
    output
        .stderr_has("tenants/iris.db cannot be restored: its replica lacks a part, or is damaged")
        .stderr_has("--only");
    assert_eq!(named(&scene.env, "pull"), before);
    assert_eq!(left_behind(&scene.env.data()), Vec::<String>::new());
    scene.pull(&["--only", "main.db"]).ok();
}

#[test]
fn what_is_not_replicated_is_told_once_and_stays() {
    let scene = Scene::in_directory();
    let via = format!("local:{}", scene.env.production().display());
    scene.pull(&["--via", &via]).ok();
    assert_eq!(scene.live().len(), 4);
    let told = "warning: Litestream does not replicate queue.db: left as it is here\n";
    scene.pull(&[]).ok().stderr_has(told);
    assert_eq!(scene.live().len(), 4);
    scene.env.xtask(["restore-db", "--latest", "--yes"]).ok();
    assert_eq!(scene.live().len(), 4, "nor does a restore remove it");
}

#[test]
fn unmasked_databases_do_not_come_here_where_that_is_not_allowed() {
    let scene = Scene::in_directory();
    let toml = scene.env.repo().join("xtask/db.toml");
    let text = fs::read_to_string(&toml).expect("read");
    fs::write(&toml, format!("allow-local-staging = false\n{text}")).expect("write");
    for args in [&[][..], &["--dry-run"]] {
        scene.pull(args).fails(2).stderr_has("allow-local-staging = false");
    }
    assert!(tests::store::files_with(&scene.env.data(), SECRET).is_empty());
}

#[test]
fn a_killed_or_interrupted_pull_leaves_nothing_unmasked() {
    let scene = Scene::in_directory();
    let restoring = |signal: fn(&mut Running)| {
        // It stops within the restore of the last database.
        let stop = scene.env.path("stop");
        let restored = format!("LITESTREAM \"$@\"; touch '{}'; exec sleep 100", stop.display());
        scene.script(&format!("case \"$*\" in *juno*) {restored} ;; esac"));
        let mut running = Running::start(&mut scene.command(&["pull-db", "--yes"]));
        running.wait_for("the last database", |_| stop.exists());
        assert!(!tests::store::files_with(&scene.env.data(), SECRET).is_empty());
        signal(&mut running);
        scene.script("");
        fs::remove_file(&stop).expect("remove a file");
        running.wait()
    };
    restoring(|running| running.interrupt()).fails(130);
    assert!(tests::store::files_with(&scene.env.data(), SECRET).is_empty());
    restoring(Running::kill);
    scene.pull(&["--only", "main.db"]).ok();
    assert!(tests::store::files_with(&scene.env.data(), SECRET).is_empty());
}

#[test]
fn a_missing_or_old_program_is_told() {
    let scene = Scene::in_directory();
    script(&scene.env.path("bin"), "litestream", "echo 0.3.13");
    scene.pull(&[]).fails(1).stderr_has("litestream here is 0.3.13, and 0.5 is needed");
    scene.env.uninstall("litestream");
    scene.pull(&[]).fails(1).stderr_has("litestream is not installed here");
    let mut pull = scene.env.xtask_command(["pull-db"]);
    Running::start(&mut pull).wait().fails(1).stderr_has("litestream is not installed here");
}
