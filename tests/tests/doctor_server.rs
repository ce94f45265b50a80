//! `cargo xtask doctor`: what it says of the server, and that it only looks.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use rusqlite::Connection;
use tests::databases;
use tests::disk::SmallDisk;
use tests::doctor::{doctor, line, local, with_programs};
use tests::env::TestEnv;
use tests::output::Output;
use tests::pull::production;
use tests::server::login_user;
use tests::shells;

/// What is beside the databases, and when each was last written or read.
fn traces(directory: &Path) -> Vec<(String, i64, i64, i64, u64)> {
    let of = |name: String| {
        let it = fs::metadata(directory.join(&name)).expect("it is there");
        let (written, changed) = (it.mtime_nsec(), it.ctime_nsec());
        (name, it.mtime(), written, changed, it.size())
    };
    databases::files(directory).into_iter().map(of).collect()
}

#[test]
fn production_stays_as_it_is() {
    for busybox in [false, true] {
        let (env, _sshd) = with_programs(|env| match busybox {
            true => shells::busybox(&env.path(""), &["sqlite3"]),
            false => shells::debian(&env.path(""), &[]),
        });
        // One is closed, one is open, one is of another mode.
        databases::create(&env.production().join("open.db"), 40, 1);
        let app = Connection::open(env.production().join("open.db")).expect("open");
        app.execute_batch("PRAGMA wal_autocheckpoint = 0; INSERT INTO items (key) VALUES ('x')")
            .expect("write");
        databases::execute(&env.production().join("old.db"), "CREATE TABLE t (a)");
        let before = traces(&env.production());
        let output = doctor(&env, &[]).ok();
        assert_eq!(traces(&env.production()), before);
        line(&output, "3 databases (2 WAL, 1 rollback journal)");
        let file = app.execute_batch("INSERT INTO items (key) VALUES ('y')");
        file.expect("the app goes on");
        assert_eq!(env.unexpected(), [""; 0]);
    }
}

#[test]
fn programs_that_the_server_lacks_are_named_with_what_installs_them() {
    let (env, _sshd) = with_programs(|env| {
        let bin = shells::debian(&env.path(""), &["zstd", "apk", "apt-get"]);
        shells::script(&bin, "apt-get", "exit 1");
        bin
    });
    let output = doctor(&env, &[]).ok();
    let said = line(&output, "zstd");
    assert_eq!(
        said,
        " ⚠ zstd is not there: pulls take longer → add to the Dockerfile: apt-get install -y zstd"
    );

    let (env, _sshd) = with_programs(|env| {
        let bin = shells::debian(&env.path(""), &["sqlite3", "apk", "apt-get"]);
        shells::script(&bin, "apk", "exit 1");
        bin
    });
    let output = doctor(&env, &[]).fails(1).stderr_has("error: 1 check failed\n");
    let said = line(&output, "sqlite3");
    assert_eq!(said, " ✗ sqlite3 is not there → add to the Dockerfile: apk add sqlite");
    line(&output, "1 database (WAL)");

    let (env, _sshd) = with_programs(|env| shells::busybox(&env.path(""), &["sqlite3"]));
    env.db_toml("[[sanitize]]\ntable = 'items'\nset = { data = \"''\" }\n");
    let output = doctor(&env, &[]).ok();
    line(
        &output,
        "⚠ no GNU grep there: the leak check finds masked values only where they are whole",
    );
    line(&output, "→ add to the Dockerfile: ");
    assert_eq!(env.unexpected(), [""; 0]);

    let (env, _sshd) = with_programs(|env| {
        let bin = shells::debian(&env.path(""), &["sqlite3"]);
        shells::script(&bin, "sqlite3", "echo 'Segmentation fault' >&2; exit 139");
        bin
    });
    let output = doctor(&env, &[]).fails(1);
    line(&output, "✗ sqlite3 is there, but does not run → run on the server: sqlite3 --version");
}

/// Each question fails alone: the words of its statement.
#[test]
fn what_a_sqlite3_lacks_is_told() {
    for (word, said) in [
        ("sha3", "cannot compare databases: each comes whole → an image with 3.39 or newer"),
        ("group_concat", "cannot compare databases: each comes whole → an image with 3.39"),
        ("dbstat", "lacks dbstat: masking runs VACUUM, and more pages differ → "),
        ("zipfile", "✓ sqlite3 "),
    ] {
        let (env, _sshd) = with_programs(|env| {
            let bin = shells::debian(&env.path(""), &["sqlite3"]);
            let real = shells::find("sqlite3");
            let body =
                format!("case \"$*\" in *{word}*) exit 1 ;; esac\nexec {} \"$@\"", real.display());
            shells::script(&bin, "sqlite3", &body);
            bin
        });
        let output = doctor(&env, &[]).ok();
        line(&output, said);
        assert_eq!(output.stdout().contains("without zipfile"), word == "zipfile", "{output}");
    }
}

fn obedient(env: &TestEnv, args: &[&str]) -> Output {
    let via = format!("local:{}", env.production().display());
    env.xtask_obeying_permissions([&["doctor", "--via", &via], args].concat())
}

#[test]
fn a_directory_or_a_file_that_cannot_be_read_is_named() {
    let (env, _sshd) = production();
    env.db_toml("remote-dir = '/no/such place'\n");
    let output = doctor(&env, &[]).fails(1);
    let said = line(&output, "/no/such place");
    assert_eq!(
        said,
        " ✗ there is no directory /no/such place on the server → set remote-dir in xtask/db.toml"
    );
    let output = doctor(&env, &["--via", "local:/no/such place"]).fails(1);
    let said = line(&output, "there is no directory");
    assert!(said.ends_with(" → check the path after local:"), "{said}");

    env.db_toml("");
    let user = login_user();
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
    };
    mode(&env.production().join("data.db"), 0o000);
    let output = obedient(&env, &[]).fails(1);
    line(
        &output,
        &format!("✗ user {user} may not read data.db → connect as the app's user or as root"),
    );
    mode(&env.production(), 0o000);
    let output = obedient(&env, &[]).fails(1);
    line(
        &output,
        &format!("✗ user {user} may not read the directory {}", env.production().display()),
    );
    mode(&env.production(), 0o755);
    mode(&env.production().join("data.db"), 0o644);
    // The facts until then are there.
    fs::create_dir(env.production().join("tenants")).expect("make a directory");
    env.db_toml("include = ['*.db', 'tenants/*/main.db']\n");
    mode(&env.production().join("tenants"), 0o000);
    let output = obedient(&env, &[]).fails(1);
    line(&output, "✗ user ");
    line(&output, " ✓ zstd there");
    mode(&env.production().join("tenants"), 0o755);
    env.db_toml("");
    mode(&env.path("local-tmp"), 0o555);
    let output = obedient(&env, &[]).fails(1);
    line(&output, "local-tmp, is not writable → set staging-dir in xtask/db.toml");
    mode(&env.path("local-tmp"), 0o755);
}

#[test]
fn databases_that_no_pattern_names_are_told_with_the_line_to_write() {
    let (env, _sshd) = production();
    for name in ["one.sqlite3", "cache", "excluded.db", "tenants/a/main.db", "backup_x/b.sqlite3"] {
        let path = env.production().join(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("make a directory");
        databases::execute(&path, "CREATE TABLE t (a)");
    }
    fs::write(env.production().join("photo.jpg"), vec![7; 4000]).expect("write");
    fs::write(env.production().join(".hidden.sqlite3"), vec![7; 4000]).expect("write");
    env.db_toml("exclude = ['excluded.db']\n");
    for busybox in [false, true] {
        let output = match busybox {
            false => doctor(&env, &[]).ok(),
            true => {
                let bin = shells::busybox(&env.path(""), &["sqlite3"]);
                let _other = env.start_server(&env.server_environment().set("PATH", bin));
                doctor(&env, &[]).ok()
            }
        };
        let said = line(&output, "include");
        let (names, fix) = said.split_once(" → ").expect("it says what to do");
        assert!(names.starts_with(" ⚠ 3 databases are in no pattern of include: "), "{output}");
        for name in ["one.sqlite3", "cache", "tenants/a/main.db"] {
            assert!(names.contains(name), "{output}");
        }
        for pattern in ["\"*.db\"", "\"*.sqlite3\"", "\"cache\"", "\"tenants/a/*.db\""] {
            assert!(fix.contains(pattern), "{output}");
        }
    }
    let include = "include = [\"*.db\", \"*.sqlite3\", \"cache\", \"tenants/a/*.db\"]\n";
    env.db_toml(&format!("{include}exclude = ['excluded.db']\n"));
    let output = local(&env, &[]).ok();
    assert!(!output.stdout().contains("include"), "{output}");
    line(&output, "6 databases");
    env.db_toml("include = ['x.db']\n");
    let output = local(&env, &[]).fails(1);
    line(&output, "production: no database matches include = [\"x.db\"] → set include and exclude");
}

#[test]
fn a_long_wal_and_what_is_no_database_are_named() {
    let (env, _sshd) = production();
    let log = fs::File::create(env.production().join("data.db-wal")).expect("create");
    log.set_len(70 << 20).expect("a hole");
    fs::write(env.production().join("notes.db"), "no database\n").expect("write");
    let output = local(&env, &[]).fails(1);
    line(
        &output,
        "⚠ the -wal of data.db has up to 73.4 MB, which each pull copies → in the app: PRAGMA wal_checkpoint(TRUNCATE)",
    );
    line(&output, "✗ no SQLite header, or encrypted: notes.db → add them to exclude");
    assert_eq!(env.unexpected(), [""; 0]);
}

#[test]
fn copies_that_do_not_fit_are_told_before_they_are_made() {
    let (env, _sshd) = production();
    env.db_toml("staging-dir = '/no/such'\n");
    let output = local(&env, &[]).fails(1);
    line(&output, "✗ there is no directory /no/such for the copies → set staging-dir");
    env.db_toml("");
    let Some(_disk) = SmallDisk::mount(&env.path("local-tmp"), 3000) else { return };
    let output = local(&env, &[]).fails(1);
    assert!(
        env.normalize(&output.stdout())
            .contains("✗ the copies in <ROOT>/local-tmp need <SIZE>, and <SIZE> are free → set"),
        "{output}"
    );
    // In memory, and larger than any.
    let large = fs::File::options().write(true).open(env.production().join("data.db"));
    large.expect("open").set_len(1 << 43).expect("a hole");
    let output = local(&env, &[]).fails(1);
    let said = line(&output, "✗ the copies in ");
    assert!(said.contains(" need 17.6 TB of memory, of which "), "{output}");
    let said = line(&output, " are free for data, and a pull can need 17.6 TB → ");
    assert!(said.contains("⚠ "), "{output}");
}
