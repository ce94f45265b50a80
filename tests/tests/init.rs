//! `init`: from a repository that has nothing but the tool to settings with which a pull works.

use std::fs;
use std::path::Path;

use tests::databases;
use tests::env::TestEnv;
use tests::process::Running;
use tests::pty::{ENTER, ESC, Session};
use tests::server::Sshd;
use tests::{shells, store};

const USERS: &str = "CREATE TABLE users (id INTEGER PRIMARY KEY, email TEXT NOT NULL UNIQUE, token TEXT);
    INSERT INTO users VALUES (1, 'ada@example.com', 'TOKEN-of-ada'), (2, 'bob@example.com', 'TOKEN-of-bob');";

/// A repository without settings, and a production with one database.
fn new(sql: &str) -> (TestEnv, Sshd) {
    let (env, sshd) = TestEnv::with_server();
    fs::remove_file(env.repo().join("xtask/db.toml")).expect("remove");
    fs::remove_file(env.repo().join(".gitignore")).expect("remove");
    databases::execute(&env.production().join("app.db"), sql);
    (env, sshd)
}

fn written(env: &TestEnv) -> String {
    fs::read_to_string(env.repo().join("xtask/db.toml")).expect("it was written")
}

/// How often the server was entered.
fn connections(env: &TestEnv) -> usize {
    env.fly_invocations().iter().filter(|args| args.iter().any(|arg| arg == "console")).count()
}

#[test]
fn one_command_ends_with_settings_that_a_pull_works_with() {
    let (env, _sshd) = new(USERS);
    let output = env.xtask(["init", "--yes"]).ok();
    // One to look around, one to try the rules.
    assert_eq!(connections(&env), 2);
    output
        .stderr_has(" ✓ fly.toml: app upflow, volume at ")
        .stderr_has(" ✓ 1 database in ")
        .stderr_has("\n    app.db ")
        .stderr_has("rollback, of ")
        .stderr_has(
            " ✓ wrote xtask/db.toml and .gitignore\nhint: cargo xtask pull-db\nhint: to commit: git add xtask/db.toml .gitignore\n",
        )
        .stderr_lacks("TOKEN")
        .stderr_lacks("ada@");
    assert_eq!(
        written(&env),
        "# Which databases `cargo xtask pull-db` brings, from where, and what it masks.\n\
         # app and remote-dir are those of fly.toml\n\
         # Where your app opens them on this machine.\n\
         local-dir = \"data\"\n\
         # Snapshots with unmasked data are removed after this time.\n\
         unmasked-keep = \"7d\"\n\
         include = [\"*.db\"]\n\n\
         # What looks like secrets or personal data is masked on the server, before anything is sent.\n\
         [[sanitize]]\n\
         table = \"users\"\n\
         set.token = \"''\"\n\
         set.email = \"fake(email)\"\n\n\
         # A small database for tests, cut from the pulled one; `cargo xtask install-hooks` keeps it fresh:\n\
         # [[fixture]]\n\
         # path = \"tests/fixtures/app.db\"\n\
         # from = \"app.db\"\n\
         # rows = { \"*\" = 20 }\n"
    );
    assert_eq!(fs::read_to_string(env.repo().join(".gitignore")).expect("read"), "/data\n");
    assert!(!env.data().exists(), "nothing was brought");

    let before = store::fingerprint(&env.repo());
    env.xtask(["init", "--yes"]).ok().stderr_has("lacks nothing");
    assert_eq!(store::fingerprint(&env.repo()), before);
    env.xtask(["pull-db", "--yes"]).ok().stderr_lacks("warning");
    assert!(store::files_with(&env.data(), "TOKEN-of").is_empty());
    // The example can be used.
    let example = written(&env)
        .replace("# [[fixture]]\n# ", "[[fixture]]\n")
        .replace("\n# from", "\nfrom")
        .replace("\n# rows", "\nrows");
    env.db_toml(&example);
    env.xtask(["refresh-fixtures"]).ok();
}

#[test]
fn again_it_proposes_only_what_is_new() {
    let (env, _sshd) = new(USERS);
    env.xtask(["init", "--yes"]).ok();
    let first = written(&env).replace("include = [\"*.db\"]", "include = [\n  \"*.db\", # mine\n]");
    env.db_toml(&first);
    databases::execute(
        &env.production().join("app.db"),
        "ALTER TABLE users ADD COLUMN phone TEXT; UPDATE users SET phone = '4711'",
    );
    for tenant in ["a", "b"] {
        let dir = env.production().join("tenants").join(tenant);
        fs::create_dir_all(&dir).expect("make a directory");
        databases::execute(&dir.join("main.db"), "CREATE TABLE t (x)");
    }
    let output = env.xtask(["init", "--yes"]).ok();
    output
        .stderr_has(" ✓ new: tenants/a/main.db and 1 more\n")
        .stderr_has("-   \"*.db\", # mine\n")
        .stderr_has("+   \"*.db\", \"tenants/*/main.db\", # mine\n")
        .stderr_has("+ set.phone = \"fake(phone)\"\n")
        .stderr_lacks("+ set.email")
        .stderr_lacks("gitignore");
    let rule = "\n# What looks like secrets or personal data is masked on the server, before anything is sent.\n\
                [[sanitize]]\ntable = \"users\"\nset.phone = \"fake(phone)\"\n";
    let expected = first.replace("\"*.db\", #", "\"*.db\", \"tenants/*/main.db\", #") + rule;
    assert_eq!(written(&env), expected);
    env.xtask(["init", "--yes"]).ok().stderr_has("lacks nothing");
}

#[test]
fn files_of_others_keep_their_bytes_and_their_place() {
    let (env, _sshd) = new(USERS);
    let (shared, link) = (env.path("shared.toml"), env.repo().join("xtask/db.toml"));
    fs::write(&shared, "# ours\r\nkeep = 3").expect("write");
    std::os::unix::fs::symlink(&shared, &link).expect("link");
    let ignore = env.repo().join(".gitignore");
    fs::write(&ignore, b"caf\xe9/\r\n").expect("write");
    env.xtask(["init", "--yes"]).ok();
    assert_eq!(fs::read_link(&link).expect("it is a link"), shared);
    let settings = fs::read_to_string(&shared).expect("read");
    assert!(settings.starts_with("# ours\r\nkeep = 3\r\n\r\n#"), "{settings}");
    assert!(settings.ends_with("set.email = \"fake(email)\"\r\n"), "{settings}");
    assert_eq!(fs::read(&ignore).expect("read"), b"caf\xe9/\r\n/data\n");
}

#[test]
fn what_somebody_writes_while_it_asks_stays() {
    let (env, _sshd) = new(USERS);
    env.db_toml("keep = 3\n");
    let session = Session::spawn_sized(&env.xtask_command(["init"]), 50, 150);
    session.wait_for_text("(Y/n)");
    session.send(ENTER);
    session.wait_for_text("(y/N)");
    env.db_toml("keep = 4\n");
    session.send("y");
    session.send(ENTER);
    session.wait_for_text("has changed meanwhile; nothing was written");
    assert_eq!(session.wait_exit(), 1);
    assert_eq!(written(&env), "keep = 4\n");
    assert!(!env.repo().join(".gitignore").exists());
}

/// Names that no line of the server, no rule and no comment of TOML can contain.
#[test]
fn hostile_names_are_no_obstacle() {
    let long: String = (0..200)
        .map(|i| format!("CREATE TABLE \"{}{i:03}\" (x);", "\u{6771}".repeat(57)))
        .collect();
    let names = "CREATE TABLE \"o\n\u{1b}\" (\"api_key\u{1b}\", \"json\u{1b}\"); INSERT INTO \"o\n\u{1b}\" VALUES ('x', '{\"password\":\"hunter2hunter2\"}');";
    let (env, _sshd) = new(&format!("{USERS} {long} {names}"));
    for tenant in ["b.db", "c.db"] {
        databases::execute(&env.production().join(tenant), USERS);
    }
    env.xtask(["init", "--yes"])
        .ok()
        .stderr_has("    c.db     12.3 kB  rollback, of ")
        .stderr_has(", 1 table\n")
        .stderr_lacks("0 tables")
        .stderr_lacks(" 200 ");
    assert!(written(&env).contains("#   o\\n\\u{1b}.json\\u{1b}: in app.db, 1 row with"));
    env.xtask(["pull-db", "--yes", "-q"]).ok();
}

#[test]
fn without_an_answer_nothing_is_written() {
    let (env, _sshd) = new(USERS);
    let before = store::fingerprint(&env.repo());
    env.xtask(["init"]).fails(2).stderr_has("hint: add --yes\n");
    env.xtask(["init", "--dry-run"])
        .ok()
        .stderr_has("+ set.token = \"''\"\n")
        .stderr_lacks("wrote");
    assert_eq!(store::fingerprint(&env.repo()), before);

    env.write("repo/fly.staging.toml", "app = 'staging'\n");
    env.xtask(["init", "--yes"])
        .fails(2)
        .stderr_has("error: several may be production: app staging; app upflow, volume at ");
    fs::remove_file(env.repo().join("fly.staging.toml")).expect("remove");
    fs::remove_file(env.repo().join("fly.toml")).expect("remove");
    env.xtask(["init", "--yes"])
        .fails(2)
        .stderr_has("hint: give --app, or --via and --remote-dir\n");
    env.xtask(["init", "--yes", "--app", "upflow", "--no-rules", "--remote-dir"]).fails(2);
    let production = env.production().display().to_string();
    env.xtask(["init", "--yes", "--app", "upflow", "--no-rules", "--remote-dir", &production]).ok();
    assert!(written(&env).contains(&format!("app = \"upflow\"\nremote-dir = \"{production}\"\n")));
    assert!(!written(&env).contains("sanitize"));
}

#[test]
fn a_person_is_asked_what_nobody_can_know() {
    let (env, _sshd) = new(USERS);
    let session = Session::spawn_sized(&env.xtask_command(["init"]), 50, 150);
    session.wait_for_text("Where does your app open its databases here? (data)");
    session.send("var/db");
    session.send(ENTER);
    session.wait_for_text("Mask 2 columns that look like secrets or personal data? (Y/n)");
    session.send("n");
    session.send(ENTER);
    session.wait_for_text("Write xtask/db.toml and .gitignore? (y/N)");
    session.send(ESC);
    assert_eq!(session.wait_exit(), 130);
    assert!(!env.repo().join("xtask/db.toml").exists());

    let session = Session::spawn_sized(&env.xtask_command(["init"]), 50, 150);
    session.wait_for_text("Where does your app open its databases here?");
    session.send(ENTER);
    session.wait_for_text("(Y/n)");
    session.send(ENTER);
    session.wait_for_text("(y/N)");
    session.send("y");
    session.send(ENTER);
    assert_eq!(session.wait_exit(), 0);
    assert!(written(&env).contains("set.email"));
}

/// Rails 8 has a database for each of its caches and queues, and calls the first one otherwise here.
#[test]
fn frameworks_say_what_databases_are_called_here_and_which_are_made_again() {
    let (env, _sshd) = new(USERS);
    let rename = |from: &str, to: &str| {
        fs::rename(env.production().join(from), env.production().join(to)).expect("rename");
    };
    rename("app.db", "production.sqlite3");
    let records =
        "CREATE TABLE schema_migrations (version); CREATE TABLE ar_internal_metadata (key, value);";
    databases::execute(&env.production().join("production.sqlite3"), records);
    databases::execute(
        &env.production().join("production.sqlite3"),
        "ALTER TABLE users ADD COLUMN password_digest TEXT; UPDATE users SET password_digest = 'x'; CREATE TABLE solid_cache_entries (id)",
    );
    databases::execute(
        &env.production().join("production_queue.sqlite3"),
        &format!("{records} CREATE TABLE solid_queue_jobs (id, arguments)"),
    );
    databases::execute(&env.production().join("archive.sqlite3"), "CREATE TABLE t (x)");
    env.write(
        "repo/config/database.yml",
        "development: {primary: {database: storage/development.sqlite3}}\n\
         production:\n  primary: {database: storage/production.sqlite3}\n  queue: {database: storage/production_queue.sqlite3}\n",
    );
    let output = env.xtask(["init", "--yes"]).ok();
    output
        .stderr_has(" ✓ config/database.yml: Rails opens storage/development.sqlite3\n")
        .stderr_has(", 4 tables, Rails\n")
        .stderr_has(", 3 tables, Rails, a cache or queue\n")
        .stderr_has(" ✓ production.sqlite3 becomes development.sqlite3 here\n");
    let text = written(&env);
    for line in [
        "local-dir = \"storage\"\n",
        "exclude = [\"production_queue.sqlite3\"]\n",
        "omit = [\"solid_cache_entries\"]\n",
        "[rename]\n\"production.sqlite3\" = \"development.sqlite3\"\n",
        // Of two databases, the one that has most.
        "# from = \"development.sqlite3\"\n",
        "# The password of every user: development\nset.password_digest = \"'$2a$12$",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    env.xtask(["pull-db", "--yes"]).ok().stderr_lacks("warning");
    let here = env.repo().join("storage");
    assert_eq!(databases::count(&here.join("development.sqlite3"), "users"), 2);
    assert!(!here.join("production_queue.sqlite3").exists());
    // The databases are the same, under the names that they have here.
    env.xtask(["init", "--yes"]).ok().stderr_has(", 4 tables, Rails\n").stderr_has("lacks nothing");
}

/// The app needs the rest of such JSON; a password in it is worse.
#[test]
fn json_with_a_password_is_emptied_and_says_how_to_keep_the_rest() {
    let (env, _sshd) = new("CREATE TABLE hooks (id INTEGER PRIMARY KEY, config TEXT NOT NULL);
         INSERT INTO hooks VALUES (1, '{\"smtp\": {\"password\": \"hunter2hunter2\"}}')");
    env.xtask(["init", "--yes"]).ok().stderr_has("    hooks.config  '{}'\n");
    let keep =
        "# json_replace(config, '$.NAME', '') keeps the rest of the JSON.\nset.config = \"'{}'\"\n";
    assert!(written(&env).contains(keep), "{}", written(&env));
    env.xtask(["pull-db", "--yes"]).ok().stderr_lacks("warning");
    assert!(store::files_with(&env.data(), "hunter2").is_empty());
    env.xtask(["init", "--yes"]).ok().stderr_has("lacks nothing");
}

#[test]
fn names_of_any_kind_become_valid_settings() {
    let (env, _sshd) = new(
        "CREATE TABLE \"it's \"\"x\"\" = [1]\" (id INTEGER PRIMARY KEY, \"api key\n\" TEXT, \"e.mail\" TEXT);
         INSERT INTO \"it's \"\"x\"\" = [1]\" VALUES (1, 'k', 'm')",
    );
    databases::execute(&env.production().join("a [b] \u{202e}.data"), "CREATE TABLE t (x)");
    let output = env.xtask(["init", "--yes"]).ok().is_harmless();
    output.stderr_has("a [b] \\u{202e}.data");
    env.xtask(["pull-db", "--yes"]).ok();
    assert!(env.data().join("a [b] \u{202e}.data").exists());
    let path = env.data().join("app.db");
    assert_eq!(
        databases::query(&path, "SELECT \"api key\n\" FROM \"it's \"\"x\"\" = [1]\""),
        rusqlite::types::Value::Text(String::new())
    );
}

#[test]
fn columns_with_copies_of_masked_values_are_masked_too() {
    let sql = "CREATE TABLE users (id INTEGER PRIMARY KEY, address TEXT);
         CREATE TABLE orders (id INTEGER PRIMARY KEY, ship_to TEXT NOT NULL, ref TEXT NOT NULL UNIQUE);
         INSERT INTO users VALUES (1, '12 Rowan Crescent, Oldham');
         INSERT INTO orders VALUES (7, 'to: 12 Rowan Crescent, Oldham', 'for 12 Rowan Crescent, Oldham');";
    let (env, _sshd) = new(sql);
    let output = env.xtask(["init", "--yes"]).ok();
    output
        .stderr_has(" ✓ 2 more columns with values that these rules remove: masked too\n")
        .stderr_has("    orders.ship_to  ''  has values of users.address\n")
        .stderr_lacks("warning");
    // To look around, to find these columns, and to try the rules for them.
    assert_eq!(connections(&env), 3);
    let rule = "[[sanitize]]\ntable = \"orders\"\n\
                # It has values of users.address, which a rule removes.\nset.ref = \"'masked-' || rowid\"\n\
                # It has values of users.address, which a rule removes.\nset.ship_to = \"''\"\n";
    assert!(written(&env).contains(rule), "{}", written(&env));
    env.xtask(["pull-db", "--yes"]).ok().stderr_lacks("warning");
    assert!(store::files_with(&env.data(), "Rowan").is_empty());

    // Of a file that somebody has written, the survey finds them.
    env.db_toml("[audit]\nlevel = 'fail'\n[[sanitize]]\ntable = 'users'\nset.address = \"''\"\n");
    env.xtask(["pull-db", "--yes", "--full"]).fails(1).stderr_has("which are still in orders.");
    let output = env.xtask(["init", "--yes"]).ok();
    output
        .stderr_has("warning: in app.db, a rule removes values of users.address")
        .stderr_has("+ set.ref = ");
    env.xtask(["pull-db", "--yes", "--full"]).ok().stderr_lacks("warning");
}

#[test]
fn a_rule_that_fails_on_the_data_is_told_before_it_is_written() {
    let (env, _sshd) = new(
        "CREATE TABLE users (id INTEGER PRIMARY KEY, token TEXT NOT NULL CHECK (length(token) > 3));
         INSERT INTO users VALUES (1, 'TOKEN-of-ada')",
    );
    let output = env.xtask(["init", "--dry-run"]).ok();
    output
        .stderr_has("warning: a pull with these rules fails: masking app.db failed: rule 1: Runtime error: CHECK constraint failed")
        .stderr_has("hint: edit rule 1 (users), xtask/db.toml:10; nothing was sent\n");
    assert_eq!(connections(&env), 2);
}

#[test]
fn rules_for_what_is_gone_are_named_and_do_not_stop_it() {
    let (env, _sshd) = new(USERS);
    env.db_toml(
        "[[sanitize]]\ntable = 'users'\nset = { email = 'fake(email)', phone = \"''\" }\n\n\
         [[sanitize]]\ntable = 'members'\ndelete = true\n",
    );
    let output = env.xtask(["init", "--yes"]).ok();
    output
        .stderr_has("warning: rule 1: none of the databases has a column phone in users\n")
        .stderr_has("warning: rule 2: none of the databases has a table members\n")
        .stderr_has("edit rule 2 (members), xtask/db.toml:5\n")
        .stderr_has("+ set.token = \"''\"\n");
    assert!(written(&env).contains("set.token"));
}

#[test]
fn flags_and_renames_are_written_where_the_settings_say_nothing() {
    let (env, _sshd) = new(USERS);
    let other = env.path("elsewhere").display().to_string();
    let here = env.production().display().to_string();
    env.write(
        "repo/config/database.yml",
        "development: {primary: {database: storage/dev.db}}\nproduction: {primary: {database: storage/app.db}}\n",
    );
    let first = format!(
        "remote-dir = '{other}'\n[[sanitize]]\ntable = 'users'\nset = {{ email = 'fake(email)', token = '2' }}\n"
    );
    env.db_toml(&first);
    let flags = ["--app", "upflow", "--remote-dir", &here, "--local-dir", "storage"];
    let output = env.xtask([&["init", "--yes"][..], &flags].concat()).ok();
    output
        .stderr_has(&format!(" ✓ kept: remote-dir = \"{other}\"\nhint: to change it, edit xtask/db.toml: remote-dir = \"{here}\"\n"))
        .stderr_has(" ✓ app.db becomes dev.db here\n")
        .stderr_has("+ app = \"upflow\"\n+ local-dir = \"storage\"\n")
        // What the settings say needs no flag.
        .stderr_has("hint: cargo xtask pull-db\n");
    let text = written(&env);
    assert!(
        text.contains("app = \"upflow\"\n") && text.contains("local-dir = \"storage\"\n"),
        "{text}"
    );
    assert!(text.ends_with("\n[rename]\n\"app.db\" = \"dev.db\"\n"), "{text}");
    assert!(text.contains(&format!("remote-dir = '{other}'\n")), "{text}");
    env.xtask([&["init", "--yes"][..], &flags].concat()).ok().stderr_has("lacks nothing");
}

#[test]
fn keys_by_which_an_app_finds_something_stay() {
    let (env, _sshd) = new(
        "CREATE TABLE active_storage_blobs (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE);
         CREATE TABLE licenses (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE);
         INSERT INTO active_storage_blobs VALUES (1, 'k3y'); INSERT INTO licenses VALUES (1, 'l3y');",
    );
    env.xtask(["init", "--yes"]).ok();
    let text = written(&env);
    let key = "# If your app finds rows by it: allow = [\"licenses.key\"] in [audit] instead.\nset.key = ";
    assert!(text.contains(key) && !text.contains("storage_blobs"), "{text}");
    env.xtask(["pull-db", "--yes"]).ok().stderr_lacks("warning");
    assert_eq!(
        databases::query(&env.data().join("app.db"), "SELECT key FROM active_storage_blobs"),
        rusqlite::types::Value::Text("k3y".to_owned())
    );
}

#[test]
fn a_wrong_directory_and_a_missing_program_are_told_as_what_they_are() {
    let (env, _sshd) = new(USERS);
    let bin = shells::debian(&env.path(""), &["sqlite3"]);
    let init = |dir: &str, path: Option<&Path>| {
        let via = format!("local:{}", env.path(dir).display());
        let mut command = env.xtask_command(["init", "--yes", "--via", &via]);
        command.envs(path.map(|path| ("PATH", path)));
        Running::start(&mut command).wait().fails(1)
    };
    env.write("empty/notes.txt", "x");
    init("empty", None)
        .stderr_has("error: no database in ")
        .stderr_has(
            "hint: name the directory that has them: --remote-dir DIR, or --via local:DIR\n",
        )
        .stderr_lacks("include");
    init("nowhere", Some(&bin))
        .stderr_has("error: there is no directory ")
        .stderr_has("hint: check the path after local:\n");
    init("production", Some(&bin)).stderr_has("error: sqlite3 is not installed\n").stderr_has(
        "hint: install it on this machine: apt-get install -y sqlite3, or apk add sqlite\n",
    );
}

#[test]
fn what_cargo_builds_in_a_workspace_of_its_own_is_ignored_before_it_is_there() {
    let (env, _sshd) = new(USERS);
    for (name, text) in [("Cargo.toml", "[workspace]\n"), ("Cargo.lock", "x"), ("src/main.rs", "x")]
    {
        env.write(&format!("repo/xtask/{name}"), text);
    }
    let output = env.xtask(["init", "--yes"]).ok();
    output.stderr_has(
        "hint: to commit: git add xtask/db.toml .gitignore xtask/Cargo.toml xtask/Cargo.lock xtask/src/main.rs\n",
    );
    let ignored = fs::read_to_string(env.repo().join(".gitignore")).expect("read");
    assert_eq!(ignored, "/data\n/xtask/target\n");
    env.xtask(["init", "--yes"]).ok().stderr_has("lacks nothing");
    fs::write(env.repo().join(".gitignore"), "/data\ntarget/\n").expect("write");
    env.xtask(["init", "--yes"]).ok().stderr_has("lacks nothing");
}

#[test]
fn a_database_that_git_tracks_is_named_before_anything_is_written() {
    let (env, _sshd) = new(USERS);
    fs::create_dir(env.data()).expect("make a directory");
    databases::execute(&env.data().join("app.db"), "CREATE TABLE t (x)");
    env.git(&["add", "data/app.db"]);
    let tracked = format!("hint: git rm --cached {}\n", env.data().join("app.db").display());
    let output = env.xtask(["init", "--yes", "--dry-run"]).ok();
    output.stderr_has("warning: git tracks a database here: ").stderr_has(&tracked);
    env.git(&["rm", "--quiet", "--cached", "data/app.db"]);
    env.xtask(["init", "--yes"]).ok().stderr_lacks("git tracks");
}
