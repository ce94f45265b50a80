//! Before anything is sent, the server looks for columns that no rule covers, and
//! whose names or values suggest a secret or personal data.

use std::collections::BTreeSet;

use serde_json::Value;
use tests::databases;
use tests::env::TestEnv;
use tests::shells::{self, find};
use tests::sqlite3::Build;

/// What the audit finds: `table.column kind rows`.
#[track_caller]
fn findings(env: &TestEnv) -> BTreeSet<String> {
    let json = env.local_pull(&["--json"]).ok().json();
    let columns = json["audit"].as_array().expect("the audit is an array").iter();
    columns.map(|found| words(found, &["table", "column", "kind", "rows"])).collect()
}

fn words(found: &Value, keys: &[&str]) -> String {
    let values: Vec<_> = keys.iter().map(|key| found[key].to_string().replace('"', "")).collect();
    values.join(" ").replacen(' ', ".", 1)
}

fn set(texts: &[&str]) -> BTreeSet<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn names_and_types_that_suggest_something_are_found_and_others_are_not() {
    let secret = "api_key, apiKey2, APIKey3, \"API KEY\", key, keys, passwd, pwd, password, passwordHash, \
         encrypted_password, userpassword, hash, token, id_token, ACCESSTOKEN, backupCodes, session, \
         session_data, cookie, otp, pin INTEGER, cvv, salt, client_secret, webhook_url, anything \"Pass Phrase\", \
         signing_key_, mfa_seed, confirm, \"clé secret\"";
    let personal = "email, e_mail, unconfirmedEmail, phone, phone_number INTEGER, mobile, card_number, ssn, iban, \
         dob DATE, tax_ref, birth_year INT, date_of_birth DATETIME, ip_address, last_sign_in_ip, address, street2, \
         first_name, lastName, username, gender, x EMAIL, y \"PHONE(20)\", tax_id TEXT, vat_id";
    let none = "id, monkey, keyboard, hashtag_count, keywords, compass, bypass, microphone, ship, zip, discard, \
         secretaryName, tokenizer, email_verified, emailVerified INTEGER, is_email, has_password, email_count, \
         password_changed_at, token_expires_at INTEGER, token_type, phone_type, last_login DATETIME, \
         prompt_tokens INTEGER, max_tokens, key_name, primary_key, public_key, commit_hash, contentHash, \
         session_id INTEGER, address_id BIGINT, apiKeyId TEXT REFERENCES api (id), password BOOLEAN, pinned, \
         cardTitle, name, title, body, \"\", \"'\"";
    let table = |name: &str, columns: &str| format!("CREATE TABLE \"{name}\" ({columns});");
    let env = TestEnv::with_database(
        &[
            table("s", secret),
            table("p", personal),
            table("n", none),
            table("api", "id PRIMARY KEY"),
            table("settings", "key, value"),
            table("active_storage_blobs", "key"),
            table("products", "\"key\", lat"),
            table("auth_user", "id, name, lat REAL, zip"),
            table("verification", "id, identifier, value"),
            table("sessions", "id PRIMARY KEY, data, title"),
            table("shop_giftcard", "code, balance"),
            table("shop_order", "ship_city, ship_zip, shipped, confirm BOOL"),
            "CREATE VIEW v AS SELECT email FROM p".to_owned(),
        ]
        .join("\n"),
    );
    let found = findings(&env);
    let names = |columns: &str| columns.split(", ").count();
    let of = |table: &str| found.iter().filter(|found| found.starts_with(table)).count();
    assert_eq!(of("s."), names(secret), "{found:#?}");
    assert_eq!(of("p."), names(personal), "{found:#?}");
    let rest: BTreeSet<_> = found
        .iter()
        .filter(|one| !one.starts_with("s.") && !one.starts_with("p."))
        .cloned()
        .collect();
    assert_eq!(
        rest,
        set(&[
            "auth_user.lat personal 0",
            "auth_user.name personal 0",
            "auth_user.zip personal 0",
            "sessions.data secret 0",
            "sessions.id secret 0",
            "shop_giftcard.code secret 0",
            "shop_order.ship_city personal 0",
            "shop_order.ship_zip personal 0",
            "verification.identifier secret 0",
            "verification.value secret 0",
        ])
    );
}

#[test]
fn what_a_rule_covers_or_the_settings_allow_is_no_finding() {
    let schema = "CREATE TABLE users (email, Token, phone, password); CREATE TABLE visits (ip, token);
                  CREATE TABLE legacy_a (phone); CREATE TABLE sessions (token); CREATE TABLE logs (ip);
                  INSERT INTO users VALUES ('a@b.c', 'x', NULL, ''), ('', x'', '1', '');";
    let env = TestEnv::with_database(schema);
    databases::execute(&env.production().join("other.db"), "CREATE TABLE logs (ip, email)");
    let all = [
        "legacy_a.phone personal 0",
        "logs.email personal 0",
        "logs.ip personal 0",
        "sessions.token secret 0",
        "users.Token secret 1",
        "users.email personal 1",
        "users.password secret 0",
        "users.phone personal 1",
        "visits.ip personal 0",
        "visits.token secret 0",
    ];
    assert_eq!(findings(&env), set(&all));
    for (toml, covered) in [
        ("[[sanitize]]\ntable = 'USERS'\nset = { EMAIL = \"'e'\", token = \"'x'\" }", &all[4..6]),
        ("[[sanitize]]\ntable = 'users'\nset = { email = \"'e'\" }\nwhere = '0'", &all[5..6]),
        ("[[sanitize]]\ntable = 'visits'\ndelete = true", &all[8..]),
        // The other rows stay as they are.
        ("[[sanitize]]\ntable = 'visits'\ndelete = true\nwhere = '0'", &[]),
        // Of these nobody knows what they do.
        ("[[sanitize]]\ndatabase = 'data.db'\nsql = 'UPDATE visits SET ip = 1, token = 2'", &[]),
        ("[[sanitize]]\ntable = 'logs'\ndatabase = 'o*.db'\nset = { email = '1' }", &all[1..2]),
        // In the other database it is as it was.
        ("[[sanitize]]\ntable = 'logs'\ndatabase = 'o*.db'\nset = { ip = '1' }", &[]),
        ("[audit]\nallow = ['Legacy_*.PHONE', 'sessions.token']", &[all[0], all[3]]),
        (
            "[audit]\nallow = ['*.[!tpe]?*', 'us?rs.*']",
            &[all[2], all[4], all[5], all[6], all[7], all[8]],
        ),
        ("[audit]\nallow = ['visits.*', 'users.passwor']", &all[8..]),
        ("[audit]\nlevel = 'off'", &all),
    ] {
        env.db_toml(toml);
        let covered = set(covered);
        let left: BTreeSet<_> = set(&all).difference(&covered).cloned().collect();
        assert_eq!(findings(&env), left, "{toml}");
    }
    env.db_toml("[[sanitize]]\ntable = 'gone'\ndelete = true");
    let json = env.local_pull(&["--json", "--yes", "--no-sanitize"]).ok().json();
    assert_eq!(json["audit"], serde_json::json!([]), "who wants the secrets is not told of them");
}

/// Values of each kind, which are in no other place of the tests' output.
const VALUES: [(&str, &str); 35] = [
    (
        "pem",
        "-----BEGIN OPENSSH PRIVATE KEY-----\nhunter2isnosecret\n-----END OPENSSH PRIVATE KEY-----",
    ),
    ("pem", "-----BEGIN PRIVATE KEY-----\nhunter2isnosecret"),
    ("aws", "AKIAHUNTER2ISNOSECRE"),
    ("aws", "ASIAHUNTER2ISNOSECRE"),
    ("github", "ghp_hunter2isnosecrethunter2isnosecret12"),
    ("github", "github_pat_hunter2isnosecret_hunter2"),
    ("stripe", "sk_live_hunter2isnosecret"),
    ("slack", "xoxb-2345-hunter2isnosecret"),
    ("slack", "https://hooks.slack.com/services/T024BE7LH/B0/hunter2isnosecret"),
    ("jwt", "eyJodW50ZXIyaXNub3NlY3JldA.eyJodW50ZXIyaXNub3NlY3JldA.hunter2isnosecret"),
    ("json", r#"{"providers":[{"clientSecret":"hunter2isnosecret"}]}"#),
    ("json", r#"{"smtp": {"password": "hunter2isnosecret"}}"#),
    ("json", r#"[{"password":"$2a$10$hunter2isnosecret"}]"#),
    ("json", r#"{"refreshToken": "hunter2isnosecret"}"#),
    ("json-personal", r#"{"contactEmail":"hunter2isnosecret@example.com"}"#),
    ("json-personal", r#"{"to": {"first_name": "hunter2isnosecret"}}"#),
    ("key", "sk-proj-hunter2isnosecret_hunter2"),
    ("key", "SG.hunter2isnosecrethunte.hunter2isnosecrethunter2"),
    ("key", "bot4839574:AAhunter2isnosecrethunter2isnosecret1"),
    ("stripe", "whsec_hunter2isnosecrethunter2"),
    ("hash", "$2b$12$hunter2isnosecrethunter2"),
    ("hash", "$argon2id$v=19$m=65536,t=3,p=4$hunter2isnosecret$hunter2isnosecret"),
    ("hash", "pbkdf2_sha256$600000$hunter2isnosecret"),
    ("url", "postgres://app:hunter2isnosecret@db.internal:5432/app"),
    ("url", "see http://a:80/x@y, redis://:hunter2isnosecret@cache"),
    ("url", "[https://hunter2isnosecret:x-oauth@github.com]"),
    ("slack", "xapp-1-A0HUNTER2-hunter2isnosecret"),
    ("stripe", "pi_3Nhunter2_secret_hunter2isnosecrethunter2"),
    ("key", "ya29.hunter2isnosecret_hunter2"),
    ("key", "1//0hunter2isnosecret_hunter2isnosecret"),
    ("key", "https://discord.com/api/webhooks/123456789012345678/hunter2isnosecret"),
    ("key", "https://fcm.googleapis.com/fcm/send/hunter2isnosecret"),
    ("key", "https://api.example/v2?apikey=hunter2isnosecret"),
    ("key", "https://app.example/reset?token=hunter2isnosecret_hunter2"),
    ("key", "/reset/Mg/unter2-0123456789abcdef0123456789abcdef"),
];

/// Each of the values in rows of another table; `n` after the name of its kind.
fn live_secrets() -> String {
    let tables = VALUES.iter().enumerate().map(|(i, (kind, value))| {
        format!(
            "CREATE TABLE \"{kind}{i}\" (plain INT, note, body BLOB, fine);
             INSERT INTO \"{kind}{i}\" VALUES (NULL, 'see {value} there', CAST('{value}' AS BLOB), '{{\"password\":\"[FILTERED]\", \"newPassword\":\"is too short\"}}'),
             (1, 'AKIA https://a.b:80/c@d {{\"email\":\"\"}} ssh://git@h:22/ postgres://u:${{PW}}@h http://h?a=b:c@d', 'eyJ.eyJ.x {{\"password\":\"\", \"apiKey\": null}}', '{{\"secret\":\"********\", \"apiKey\":\"${{API_KEY_2}}\", \"isSecret\":\"no\"}}');\n"
        )
    });
    tables.collect()
}

fn found_live_secrets() -> BTreeSet<String> {
    let columns = |(i, (kind, _)): (usize, &(&str, &str))| {
        ["note", "body"].map(|column| format!("{kind}{i}.{column} {kind} 1"))
    };
    VALUES.iter().enumerate().flat_map(columns).collect()
}

/// So much that GNU grep is asked first.
const LARGE: &str = "CREATE TABLE filler (x); INSERT INTO filler VALUES (zeroblob(2000000));";

#[test]
fn values_that_look_like_live_secrets_are_found_and_never_shown() {
    for (begin, build) in [
        ("", Build::Machine),
        ("", Build::Old),
        (LARGE, Build::New),
        ("PRAGMA encoding = 'UTF-16le';", Build::Machine),
    ] {
        let env = TestEnv::with_database(&format!("{begin} {}", live_secrets()));
        build.install(&env.path("bin"));
        assert_eq!(findings(&env), found_live_secrets(), "{begin}");
        for args in
            [&["-v"][..], &["--json"], &["--dry-run", "-v"], &["--dry-run", "--json"], &["-q"]]
        {
            let output =
                env.local_pull(args).ok().stderr_has("github4.note").stderr_lacks("unter2");
            assert!(!output.stdout().contains("unter2"), "{args:?}");
        }
        env.db_toml("[audit]\nlevel = 'fail'");
        env.local_pull(&["-v"]).fails(1).stderr_lacks("unter2").stderr_has("a GitHub token");
    }
}

/// A token that goes on in the next page: only in large databases grep is asked first.
#[test]
fn in_small_databases_a_value_is_found_wherever_its_pages_end() {
    let env = TestEnv::new();
    // SQLite leaves 489 bytes of such a row in its first page.
    for length in (449..485).step_by(3) {
        let path = env.production().join(format!("t{length}.db"));
        databases::execute(
            &path,
            &format!(
                "CREATE TABLE posts (body); INSERT INTO posts VALUES
                 (printf('%.*c %s %.*c', {length}, 'z', '{}', 3700, 'z'))",
                VALUES[4].1
            ),
        );
    }
    env.db_toml("[audit]\nlevel = 'fail'");
    env.local_pull(&[]).fails(1).stderr_has("posts.body  in 12 databases");
}

#[test]
fn only_the_kinds_that_are_there_are_looked_for_in_a_large_database() {
    let secret = VALUES[4].1;
    let env = TestEnv::with_database(&format!(
        "{LARGE} CREATE TABLE t (a, b); INSERT INTO t VALUES ('{secret}', 'AKIA'), ('{secret}', x'00')"
    ));
    assert_eq!(findings(&env), set(&["t.a github 2"]));
    // What cannot look is no reason to overlook one.
    let version = format!("[ \"$1\" != --version ] || exec {} --version;", find("grep").display());
    for grep in ["exit 2", "kill -KILL $$"] {
        shells::script(&env.path("bin"), "grep", &format!("{version} {grep}"));
        assert_eq!(findings(&env), set(&["t.a github 2"]), "{grep}");
    }
    // One that says that there is nothing: without it, the database would have been read.
    shells::script(&env.path("bin"), "grep", &format!("{version} exit 1"));
    assert_eq!(findings(&env), set(&[]));
}

#[test]
fn every_form_of_table_is_looked_at_once() {
    for build in Build::versions() {
        every_form_of_table(*build);
    }
}

fn every_form_of_table(build: Build) {
    let env = TestEnv::with_database(
        "CREATE TABLE w (k TEXT PRIMARY KEY, email) WITHOUT ROWID; INSERT INTO w VALUES ('1', 'a'), ('2', 'b');
         CREATE TABLE g (a, email AS (a) STORED, phone AS (a || 'x')); INSERT INTO g VALUES (NULL), ('1');
         CREATE TABLE c (id INTEGER PRIMARY KEY, email COLLATE NOCASE);
         INSERT INTO c VALUES (1, 'a');
         CREATE VIRTUAL TABLE own USING fts5 (email, body); INSERT INTO own VALUES ('a', 'AKIAHUNTER2ISNOSECRE');
         CREATE VIRTUAL TABLE own4 USING fts4 (email, body); INSERT INTO own4 VALUES ('a', 'b');
         CREATE VIRTUAL TABLE external USING fts5 (email, content = 'c', content_rowid = 'id');
         CREATE VIRTUAL TABLE none USING fts5 (email, content = '');
         INSERT INTO external (external) VALUES ('rebuild'); INSERT INTO none (rowid, email) VALUES (1, 'a');
         CREATE TABLE like_content (id INTEGER PRIMARY KEY, email);
         CREATE VIRTUAL TABLE like USING fts5 (email, content = 'like_content', content_rowid = 'id');
         CREATE TABLE \"it's\" (\"e\"\"m\", email); INSERT INTO \"it's\" VALUES (1, 2);",
    );
    build.install(&env.path("bin"));
    let wanted = [
        "c.email personal 1",
        "g.email personal 1",
        "g.phone personal 1",
        "it's.email personal 1",
        "like_content.email personal 0",
        "own.body aws 1",
        "own.email personal 1",
        "own4.email personal 1",
        "w.email personal 2",
    ];
    assert_eq!(findings(&env), set(&wanted));
    let wide: Vec<_> = (0..500).map(|i| format!("c{i}")).collect();
    let wide = format!("CREATE TABLE wide ({}, token)", wide.join(", "));
    databases::execute(&env.production().join("data.db"), &wide);
    assert!(findings(&env).contains("wide.token secret 0"), "of many columns, the last");
}

/// As Django makes them: SQLite 3.40 trusts none of these functions in a schema.
#[test]
fn a_schema_with_functions_of_json_is_looked_at() {
    for build in Build::versions() {
        functions_of_json(*build);
    }
}

fn functions_of_json(build: Build) {
    let env = TestEnv::with_database(
        "CREATE TABLE shop (id INTEGER PRIMARY KEY, data TEXT CHECK (json_valid(data) OR data IS NULL),
             api_key TEXT, shown TEXT AS (json_extract(data, '$.token')), kept AS (json(data)) STORED);
         INSERT INTO shop (data, api_key) VALUES ('{\"token\": \"ghp_0123456789abcdefghijABCDEFGHIJ012345\"}', 'unter2');
         CREATE INDEX by_token ON shop (json_extract(data, '$.token'))",
    );
    build.install(&env.path("bin"));
    let found = findings(&env);
    assert!(found.contains("shop.api_key secret 1"), "{found:?}");
    assert!(found.contains("shop.shown github 1"), "{found:?}");
    assert!(!found.iter().any(|finding| finding.contains("unread")), "{found:?}");
}

#[test]
fn what_a_framework_keeps_of_its_migrations_is_no_finding() {
    let env = TestEnv::with_database(
        "CREATE TABLE __drizzle_migrations (id SERIAL PRIMARY KEY, hash text NOT NULL, created_at numeric);
         CREATE TABLE _prisma_migrations (id TEXT PRIMARY KEY, checksum TEXT NOT NULL, logs TEXT);
         CREATE TABLE _sqlx_migrations (version BIGINT PRIMARY KEY, description TEXT, checksum BLOB NOT NULL);
         CREATE TABLE flyway_schema_history (installed_rank INT PRIMARY KEY, script VARCHAR(100), checksum INT);
         CREATE TABLE atlas_schema_revisions (version TEXT PRIMARY KEY, hash TEXT, partial_hashes JSON);
         CREATE TABLE room_master_table (id INTEGER PRIMARY KEY, identity_hash TEXT);
         CREATE TABLE DATABASECHANGELOG (ID, MD5SUM); CREATE TABLE d1_migrations (id, name);
         CREATE TABLE ar_internal_metadata (key PRIMARY KEY, value);
         CREATE TABLE schema_migrations (version, hash, api_key); INSERT INTO __drizzle_migrations VALUES (1, 'abc', 1);",
    );
    assert_eq!(findings(&env), set(&["schema_migrations.api_key secret 0"]));
}

#[test]
fn only_the_sessions_of_users_have_ids_that_are_secrets() {
    let env = TestEnv::with_database(
        "CREATE TABLE sessions (id TEXT PRIMARY KEY, title TEXT, room TEXT, starts_at TEXT);
         CREATE TABLE session (id TEXT PRIMARY KEY, user_id TEXT, expiresAt INTEGER);
         CREATE TABLE user_sessions (id TEXT PRIMARY KEY, user_agent TEXT);",
    );
    let wanted = set(&["session.id secret 0", "user_sessions.id secret 0"]);
    assert_eq!(findings(&env), wanted);
}

/// By its name, and by what its values look like.
#[test]
fn a_column_is_counted_once() {
    let env = TestEnv::with_database(&format!(
        "CREATE TABLE t (token, email); INSERT INTO t VALUES ('{0}', 'AKIAHUNTER2ISNOSECRE'), ('x', 'y'), ('AKIAHUNTER2ISNOSECRE', '')",
        VALUES[4].1
    ));
    assert_eq!(findings(&env), set(&["t.token aws 1", "t.email aws 1"]));
    env.local_pull(&[]).ok().stderr_has("2 columns with likely secrets are now in ");
}

#[test]
fn columns_of_other_names_with_addresses_and_numbers_are_found() {
    let schema = r#"CREATE TABLE t (contact, line, body, package, ref, at);
        INSERT INTO t VALUES
          ('a.b@example.co', '+49 (30) 1234-567', 'write to a@b.co', 'left-pad@1.3.0', 'git@h.io:a/b', '<1@h.io>'),
          ('', '+1', 'see a@b.co', '@types/a.b', 'a@b@c.de', '+49-word'), (x'00', 5, NULL, 'a@1.x2', 'a@b', '+'), ('x@y.org', '', 'a', 'b', 'c', 'd');
        CREATE TABLE more (seen, account, args, version);
        INSERT INTO more VALUES
          ('145.53.201.77', 'NL91 ABNA 0417 1643 00', '["a.b@example.co", "Welcome"]', '128.0.6613.84'),
          ('10.0.0.1', 'NL861234577B01', '{"lodash": "left-pad@1.3.0"}', '1.2.3.4'),
          ('2001:db8::1', 'DE89370400440532013000', '["see a@b, co"]', '127.0.0.1');
        CREATE TABLE few (a); INSERT INTO few SELECT 'x' FROM t, t, t, t, t, t, t;
        INSERT INTO few VALUES ('late@example.com');"#;
    let found = [
        "more.account iban 2",
        "more.args json-personal 1",
        "more.seen ip 1",
        "t.contact email 2",
        "t.line phone 1",
    ];
    for (begin, build) in [("", Build::Machine), ("", Build::Old), (LARGE, Build::New)] {
        let env = TestEnv::with_database(&format!("{begin} {schema}"));
        build.install(&env.path("bin"));
        assert_eq!(findings(&env), set(&found), "only the first 10,000 rows are read");
    }
    let env = TestEnv::with_database(schema);
    let output = env.local_pull(&[]).ok();
    output
        .stderr_has("table = \"t\"")
        .stderr_has(r#""account" = "fake(iban)", "seen" = "fake(ip)""#)
        .stderr_has(r#""contact" = "fake(email)", "line" = "fake(phone)""#);
}

#[test]
fn a_setting_whose_name_says_so_is_found_and_the_others_stay() {
    let env = TestEnv::with_database(
        "CREATE TABLE settings (Name PRIMARY KEY, Value);
         INSERT INTO settings VALUES ('smtp.password', 'hunter2isnosecret'), ('MAPS_API_KEY', 'hunter2isnosecret'),
           ('title', 'My shop'), ('password_length', '12'), ('token', NULL);
         CREATE TABLE tags (name, value); INSERT INTO tags VALUES ('color', 'a long value');
         CREATE TABLE tokens (name, value); INSERT INTO tokens VALUES ('a', 'b');",
    );
    assert_eq!(findings(&env), set(&["settings.Value setting 2", "tokens.value secret 1"]));
    let report = env.local_pull(&[]).ok().stderr;
    let (_, rules) = report.split_once("adds a rule for each:").unwrap();
    let (rules, _) = rules.split_once("columns that are fine").unwrap();
    env.db_toml(rules);
    env.local_pull(&[]).ok().stderr_lacks("likely secrets");
    let all =
        "SELECT group_concat(Name || '=' || Value, ' ') FROM (SELECT * FROM settings ORDER BY 1)";
    let settings = databases::query(&env.data().join("data.db"), all);
    assert_eq!(
        settings,
        rusqlite::types::Value::Text(
            "MAPS_API_KEY= password_length=12 smtp.password= title=My shop".to_owned()
        )
    );
}

/// One value tells nothing of the other settings, but that a secret may have any name.
#[test]
fn of_settings_with_a_value_that_looks_like_a_secret_the_short_ones_stay() {
    let env = TestEnv::with_database(
        "CREATE TABLE settings (name PRIMARY KEY, value TEXT NOT NULL);
         INSERT INTO settings VALUES ('backup', 'sftp://a:hunter2@nas.example/b'), ('door', 'hunter2isnosecret'),
           ('mail_from', 'ada@shop.example'), ('smtp_password', 'hunter2isnosecret'), ('vat_rate', '9');
         CREATE TABLE options (key PRIMARY KEY, value TEXT NOT NULL);
         INSERT INTO options VALUES ('mail_from', 'ada@shop.example'), ('dark', 'true');",
    );
    assert_eq!(findings(&env), set(&["options.value email 1", "settings.value url 1"]));
    let report = env.local_pull(&[]).ok().stderr;
    let (_, rules) = report.split_once("adds a rule for each:").unwrap();
    let (rules, _) = rules.split_once("columns that are fine").unwrap();
    env.db_toml(rules);
    env.local_pull(&[]).ok().stderr_lacks("likely secrets");
    let all = "SELECT group_concat(name || '=' || value, ' ') FROM
               (SELECT * FROM settings UNION ALL SELECT * FROM options ORDER BY 1, 2)";
    assert_eq!(
        databases::query(&env.data().join("data.db"), all),
        rusqlite::types::Value::Text(
            "backup= dark=true door= mail_from= mail_from= smtp_password= vat_rate=9".to_owned()
        )
    );
}
