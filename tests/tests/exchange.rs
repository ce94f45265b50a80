//! `snapshots export` and `import`: one file, which is a whole snapshot or nothing.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tests::databases;
use tests::env::TestEnv;
use tests::process::{Running, command};
use tests::sets::{assert_same, change, content, developer, named, pull, snapshots};
use tests::store::left_behind;

/// The newest pull of one developer, as a file.
fn exported() -> (TestEnv, PathBuf) {
    let env = developer();
    let file = env.path("today.tar.zst");
    env.xtask(["snapshots", "export", &named(&env, "pull")[0], text(&file)])
        .ok()
        .stdout_is("")
        .stderr_has("Wrote ");
    (env, file)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of the tests")
}

#[test]
fn another_developer_imports_what_one_has_exported() {
    let (env, file) = exported();
    assert_eq!(file.metadata().expect("it is there").permissions().mode() & 0o777, 0o600);
    let wanted = content(&env.data().join(&named(&env, "pull")[0]));
    env.xtask(["snapshots", "rename", &named(&env, "pull")[0], "the bug"]).ok();
    let labelled = env.path("labelled.tar.zst");
    env.xtask(["snapshots", "export", "the bug", text(&labelled)]).ok();

    let other = TestEnv::new();
    let import = ["snapshots", "import", text(&file)];
    let output = other.xtask(import).ok().stdout_is("").stderr_has("Imported backup_");
    let manual = named(&other, "manual");
    assert!(output.stderr.contains(&format!("hint: cargo xtask restore-db {}\n", manual[0])));
    other.xtask(import).ok().stderr_has(&format!("Already here as {}", manual[0]));
    assert_same(&content(&other.data().join(&manual[0])), &wanted);
    other.xtask(["restore-db", &manual[0], "--yes"]).ok();
    assert_same(&content(&other.data()), &wanted);
    other.xtask(["snapshots", "prune", "--keep", "1", "--yes"]).ok();
    assert_eq!(named(&other, "manual"), manual, "it is never pruned");

    // What one machine knows of its own files is not told to another.
    let recorded = fs::read_to_string(other.data().join(&manual[0]).join("snapshot.json"));
    let recorded = recorded.expect("read");
    for secret in ["\"data_dir\"", "\"recipe\"", "\"boot\"", "\"state\"", "\"ino\""] {
        assert!(!recorded.contains(secret), "{secret}: {recorded}");
    }

    let third = TestEnv::new();
    third.xtask(["snapshots", "import", text(&labelled)]).ok();
    third.xtask(["restore-db", "the bug", "--yes"]).ok();
    assert_same(&content(&third.data()), &wanted);
}

/// The rows of a snapshot that was imported are those of a pull, which stays what it is.
#[test]
fn an_import_is_no_base_and_no_newest_pull() {
    let (env, file) = exported();
    env.xtask(["snapshots", "import", text(&file)]).ok().stderr_has("Already here as ");
    change(&env.production().join("data.db"));
    let newer = pull(&env);
    let other = developer();
    let before = named(&other, "pull");
    other.xtask(["snapshots", "import", text(&file)]).ok();
    assert_eq!(named(&other, "pull"), before);
    assert_ne!(newer, before[0]);
}

#[test]
fn what_is_unmasked_leaves_and_arrives_only_with_a_flag() {
    let (env, _) = exported();
    let name = named(&env, "pull").remove(0);
    let file = env.path("raw.tar.zst");
    let rule = "[[sanitize]]\ntable = 'items'\ndelete = true\n";
    env.db_toml(rule);
    let export = ["snapshots", "export", &name, text(&file)];
    let refused = env.xtask(export).fails(1);
    refused.stderr_has(&format!("{name} is unmasked: ")).stderr_has("--unsanitized");
    assert!(!file.exists());
    env.xtask([&export[..], &["--unsanitized"]].concat()).ok();

    let other = TestEnv::new();
    other.db_toml(rule);
    let import = ["snapshots", "import", text(&file)];
    other.xtask(import).fails(1).stderr_has("is unmasked: ");
    assert_eq!(snapshots(&other).len(), 0);
    other.xtask([&import[..], &["--unsanitized"]].concat()).ok();
    other.xtask(["snapshots"]).ok().stdout_has("unmasked");
}

#[test]
fn a_file_that_was_changed_anywhere_is_no_snapshot() {
    let (env, file) = exported();
    let wanted = content(&env.data().join(&named(&env, "pull")[0]));
    let whole = fs::read(&file).expect("read the file");
    let other = TestEnv::new();
    let broken = other.path("broken.tar.zst");
    let import = |bytes: &[u8]| {
        fs::write(&broken, bytes).expect("write a file");
        let output = other.xtask(["snapshots", "import", text(&broken)]).fails(1).is_harmless();
        assert_eq!(snapshots(&other).len(), 0, "{output}");
        assert_eq!(left_behind(&other.data()), Vec::<String>::new(), "{output}");
        output
    };
    for at in (0..whole.len()).step_by(whole.len() / 40) {
        import(&whole[..at]);
        let mut changed = whole.clone();
        changed[at] ^= 0x10;
        // zstd has bits without a meaning: then the databases are what they were.
        let apart = TestEnv::new();
        let path = apart.path("changed.tar.zst");
        fs::write(&path, changed).expect("write a file");
        let output = apart.xtask(["snapshots", "import", text(&path)]).is_harmless();
        match output.code {
            Some(0) => {
                assert_same(&content(&apart.data().join(&named(&apart, "manual")[0])), &wanted);
            }
            code => assert_eq!((code, snapshots(&apart).len()), (Some(1), 0), "{output}"),
        }
    }
    import(b"").stderr_has("holds no snapshot");
    import(b"SQLite format 3\0").stderr_has("holds no snapshot");
    other.xtask(["snapshots", "import", "nowhere"]).fails(1).stderr_has("nowhere");
}

/// A tar of these members, compressed.
fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, content) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        let field = &mut header.as_old_mut().name;
        field[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        tar.append(&header, *content).expect("append to memory");
    }
    zstd::encode_all(&tar.into_inner().expect("a tar")[..], 3).expect("compress")
}

#[test]
fn a_file_of_somebody_else_writes_nothing_outside() {
    let env = TestEnv::new();
    let database = |name: &str| {
        format!(
            r#"{{"version": 1, "kind": "pull", "time": "2026-03-15T14:18:50Z", "git_commit": null, "databases": [
                {{"name": "{name}", "bytes": 3, "sha256": "{}", "page_size": 4096, "user_version": 0, "schema": ""}}]}}"#,
            "0".repeat(64)
        )
    };
    let file = env.path("evil.tar.zst");
    for name in
        ["../evil.db", "/tmp/evil.db", ".xtask/lock", "a.db-wal", "a\\u001b.db", "snapshot.json"]
    {
        let json = database(name);
        let member = format!("databases/{name}");
        fs::write(&file, archive(&[("snapshot.json", json.as_bytes()), (&member, b"abc")]))
            .expect("write");
        let output = env.xtask(["snapshots", "import", text(&file)]).fails(1).is_harmless();
        output.stderr_has("is not a name for a database");
    }
    let json = database("a.db");
    for members in [
        &[("snapshot.json", json.as_bytes())][..],
        &[("snapshot.json", json.as_bytes()), ("databases/b.db", b"abc")],
        &[("snapshot.json", json.as_bytes()), ("databases/a.db", b"abcd")],
        &[("snapshot.json", json.as_bytes()), ("databases/a.db", b"abc")],
        &[("databases/a.db", b"abc"), ("snapshot.json", json.as_bytes())],
        &[("snapshot.json", b"{}")],
    ] {
        fs::write(&file, archive(members)).expect("write");
        env.xtask(["snapshots", "import", text(&file)]).fails(1).is_harmless();
    }
    assert_eq!(snapshots(&env).len(), 0);
    assert!(!env.data().join("../evil.db").exists());
}

#[test]
fn an_export_replaces_no_file_unasked_and_leaves_none_behind() {
    let (env, file) = exported();
    let name = named(&env, "pull").remove(0);
    let export = ["snapshots", "export", &name, text(&file)];
    // What is no export is never replaced, whoever says yes.
    let other = env.data().join("data.db");
    let mine = fs::read(&other).expect("read");
    let refused = env.xtask(["snapshots", "export", &name, text(&other), "--yes"]).fails(2);
    refused.stderr_has("data.db was not written by an export");
    env.xtask(["snapshots", "export", &name, "/dev/null"]).fails(2).stderr_has("no regular file");
    assert!(fs::read(&other).expect("read") == mine);

    let before = fs::read(&file).expect("read");
    env.xtask(export).fails(2).stderr_has("hint: add --yes");
    assert!(fs::read(&file).expect("read") == before);
    // A database that is not what was recorded.
    let database = env.data().join(&name).join("data.db");
    let mut bytes = fs::read(&database).expect("read");
    bytes[5000] ^= 1;
    fs::write(&database, bytes).expect("write");
    env.xtask([&export[..], &["--yes"]].concat()).fails(1).stderr_has("data.db in backup_");
    assert!(fs::read(&file).expect("read") == before);
    let unfinished = databases::files(&env.path("")).into_iter();
    assert_eq!(unfinished.filter(|it| it.contains("unfinished")).count(), 0);
}

/// A rename would replace them.
#[test]
fn an_export_replaces_neither_a_database_nor_a_device() {
    let env = developer();
    let name = named(&env, "pull").remove(0);
    let (pipe, link) = (env.path("pipe"), env.path("link"));
    command("mkfifo").arg(&pipe).status().expect("mkfifo runs");
    std::os::unix::fs::symlink("/dev/null", &link).expect("link");
    let export = |file: &Path| env.xtask(["snapshots", "export", &name, text(file), "--yes"]);
    for special in [&pipe, &link, &env.data()] {
        export(special).fails(2).stderr_has("is no regular file");
    }
    assert!(link.is_symlink() && !pipe.is_file());
    let before = content(&env.data());
    for database in ["data.db".to_owned(), format!("{name}/data.db")] {
        export(&env.data().join(database)).fails(2).stderr_has("was not written by an export");
    }
    assert_same(&content(&env.data()), &before);
    env.write("empty", "");
    export(&env.path("empty")).ok();
}

#[test]
fn an_interrupted_import_leaves_nothing() {
    let (env, file) = exported();
    // So much that half of it begins with a whole snapshot.json.
    let large = "INSERT INTO items (key, data) VALUES ('large', randomblob(1000000))";
    databases::execute(&env.production().join("data.db"), large);
    env.xtask(["snapshots", "export", &pull(&env), text(&file), "--yes"]).ok();
    let other = TestEnv::new();
    let pipe = other.path("pipe");
    command("mkfifo").arg(&pipe).status().expect("mkfifo runs");
    let mut running =
        Running::start(&mut other.xtask_command(["snapshots", "import", text(&pipe)]));
    let whole = fs::read(&file).expect("read");
    let mut writer = fs::OpenOptions::new().write(true).open(&pipe).expect("open the pipe");
    writer.write_all(&whole[..whole.len() / 2]).expect("write");
    running.wait_for_stderr("Importing");
    running.interrupt();
    drop(writer);
    running.wait().fails(130);
    assert_eq!(left_behind(&other.data()), Vec::<String>::new());
}
