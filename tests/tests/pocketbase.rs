//! PocketBase itself, in production and here, with the settings of `docs/layouts.md`.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use tests::env::TestEnv;
use tests::http::Client;
use tests::process::Running;
use tests::store::{files_with, left_behind};
use tests::{docs, python};

const VERSIONS: &str = include_str!("../pocketbase/requirements.txt");

/// Values of production that must not arrive.
const SECRETS: [&str; 7] = [
    "ada@private.example",
    "Ada Lovelace",
    "boss@private.example",
    "smtp-password-1",
    "s3-access-key-1",
    "s3-secret-1",
    "oauth2-secret-1",
];

fn pocketbase(env: &TestEnv, args: &[&str], data: &Path) -> Command {
    let mut command = env.command(python::programs("pocketbase", VERSIONS).join("pocketbase"));
    command.args(args).arg("--dir").arg(data);
    command
}

/// A server that runs until it is dropped.
struct Server {
    _running: Running,
    address: SocketAddr,
}

impl Server {
    /// It says which port it was told, so that cannot be 0. Another process may take the port
    /// first.
    #[track_caller]
    fn start(env: &TestEnv, data: &Path) -> Server {
        for _ in 0..10 {
            let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|it| it.local_addr());
            let address = free.expect("there is a free port");
            let args = ["serve", "--http", &address.to_string()];
            let mut running = Running::start(&mut pocketbase(env, &args, data));
            let said = |running: &Running| {
                let said = [running.stdout_so_far(), running.stderr_so_far().into_bytes()].concat();
                String::from_utf8_lossy(&said).into_owned()
            };
            running.wait_for("PocketBase to listen, or to end", |running| {
                ["Server started at", "address already in use"]
                    .iter()
                    .any(|it| said(running).contains(it))
            });
            if said(&running).contains("Server started at") {
                return Server { _running: running, address };
            }
        }
        panic!("there is no free port");
    }

    fn client(&self) -> Client {
        Client::connect(self.address).expect("it listens")
    }

    /// Logs in; the token, if the password is right.
    #[track_caller]
    fn log_in(&self, collection: &str, identity: &str, password: &str) -> Option<String> {
        let path = format!("/api/collections/{collection}/auth-with-password");
        let answer =
            self.client().post(&path, &json!({ "identity": identity, "password": password }));
        let (status, body) = answer.expect("it answers");
        (status == 200).then(|| body["token"].as_str().expect("a token").to_owned())
    }

    /// How many users somebody sees.
    #[track_caller]
    fn users(&self, token: &str) -> u64 {
        let mut client = self.client();
        client.authorization = Some(token.to_owned());
        let (_, body) = client.get("/api/collections/users/records").expect("it answers");
        body["totalItems"].as_u64().expect("a number")
    }
}

/// A production that runs, with two users, and the token of its superuser.
fn production(env: &TestEnv) -> (Server, String) {
    let args = ["superuser", "upsert", "boss@private.example", "hunter2-hunter2"];
    Running::start(&mut pocketbase(env, &args, &env.production())).wait().ok();
    let server = Server::start(env, &env.production());
    let boss = server.log_in("_superusers", "boss@private.example", "hunter2-hunter2");
    let boss = boss.expect("that is the password");
    let mut client = server.client();
    client.authorization = Some(boss.clone());
    add_user(&mut client, "ada@private.example", "Ada Lovelace");
    let s3 = json!({ "enabled": false, "bucket": "b", "region": "r", "endpoint": "http://s3.example",
                     "accessKey": "s3-access-key-1", "secret": "s3-secret-1" });
    let smtp = json!({ "enabled": true, "host": "smtp.example", "port": 587, "username": "mailer",
                       "password": "smtp-password-1" });
    let (status, body) =
        client.patch("/api/settings", &json!({ "smtp": smtp, "s3": s3 })).expect("an answer");
    assert_eq!(status, 200, "{body}");
    let google = json!({ "name": "google", "clientId": "id", "clientSecret": "oauth2-secret-1" });
    let oauth2 = json!({ "oauth2": { "enabled": true, "providers": [google] } });
    let (status, body) = client.patch("/api/collections/users", &oauth2).expect("an answer");
    assert_eq!(status, 200, "{body}");
    (server, boss)
}

fn add_user(client: &mut Client, email: &str, name: &str) {
    let user = json!({ "email": email, "name": name, "password": "hunter2-hunter2",
                       "passwordConfirm": "hunter2-hunter2" });
    let (status, body) = client.post("/api/collections/users/records", &user).expect("an answer");
    assert_eq!(status, 200, "{body}");
}

fn assert_masked(data: &Path) {
    for secret in SECRETS {
        assert_eq!(files_with(data, secret), Vec::<PathBuf>::new(), "{secret}");
    }
}

#[test]
fn a_copy_of_a_server_that_runs_is_masked_and_takes_the_development_password() {
    let env = TestEnv::new();
    env.write("repo/.gitignore", "/pb_data\n");
    env.db_toml(&docs::settings("layouts.md", "PocketBase"));
    let (server, boss) = production(&env);
    for secret in SECRETS {
        assert!(!files_with(&env.production(), secret).is_empty(), "{secret} is in production");
    }

    let data = env.repo().join("pb_data");
    env.local_pull(&[]).ok().stderr_lacks("likely secrets");
    assert_masked(&data);
    let here = Server::start(&env, &data);
    for (collection, name) in
        [("_superusers", "admin1@example.com"), ("users", "user1@example.com")]
    {
        assert!(here.log_in(collection, name, "development").is_some(), "{collection}");
    }
    assert_eq!(here.log_in("_superusers", "admin1@example.com", "hunter2-hunter2"), None);
    let admin = here.log_in("_superusers", "admin1@example.com", "development").expect("it is");
    // Who could log in to production is nobody here, and the other way round.
    assert_eq!(
        [(&here, &admin), (&here, &boss), (&server, &admin), (&server, &boss)]
            .map(|(it, who)| it.users(who)),
        [1, 0, 0, 1]
    );

    // Both run, while the next pull changes one, and an undo changes it back.
    let mut client = server.client();
    client.authorization = Some(boss);
    add_user(&mut client, "bob@private.example", "Bob");
    env.local_pull(&[]).ok().stderr_has("pocketbase (process ");
    assert_masked(&data);
    assert_eq!(here.users(&admin), 2);
    env.xtask(["restore-db", "--undo", "--yes"]).ok();
    assert_eq!(here.users(&admin), 1);
    assert_eq!(left_behind(&data), [""; 0]);
}
