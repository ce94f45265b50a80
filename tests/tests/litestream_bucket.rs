//! Pulls from what the real Litestream has replicated to a bucket.

use tests::databases;
use tests::env::TestEnv;
use tests::litestream::{SECRET, Scene, create};
use tests::output::Output;
use tests::process::{Running, wait_for};
use tests::s3::Bucket;
use tests::store::left_behind;
use tests::{binaries, python};

#[test]
fn replicas_in_a_bucket_are_found_and_restored_as_of_a_moment() {
    let scene = Scene::in_bucket();
    scene.pull(&[]).ok().stderr_has("Pulled 3 databases from the replicas of litestream.yml\n");
    assert_eq!(scene.live(), ["main.db", "tenants/iris.db", "tenants/juno.db"]);
    let early = scene.second();
    wait_for("a later second", || (scene.second() > early).then_some(()));
    create(&scene.env.production().join("tenants/kali.db"));
    scene.add("main.db");
    scene.settle();
    wait_for("kali", || scene.replicated_rows("t/kali.db"));

    scene.pull(&[]).ok().stderr_has("Pulled 4 databases").stderr_lacks(SECRET);
    for name in scene.live() {
        assert!(!databases::bytes_contain(&scene.env.data().join(&name), SECRET), "{name}");
    }
    assert_eq!(scene.rows("main.db"), 2);
    scene.pull(&["--only", "main.db", "--at", &early]).ok();
    assert_eq!(scene.rows("main.db"), 1);
    assert_eq!(left_behind(&scene.env.data()), Vec::<String>::new());
}

#[test]
fn an_earlier_moment_is_not_published_as_the_newest_pull() {
    let scene = Scene::in_bucket();
    let toml = scene.env.repo().join("xtask/db.toml");
    let text = std::fs::read_to_string(&toml).expect("read");
    let url = scene.env.path("store").display().to_string();
    std::fs::write(&toml, format!("{text}\n[share]\nurl = 'file://{url}'\n")).expect("write");
    let early = scene.second();
    wait_for("a later second", || (scene.second() > early).then_some(()));
    scene.pull(&[]).ok();
    let newest = tests::sets::named(&scene.env, "pull").remove(0);
    scene.pull(&["--at", &early]).ok();
    let mut publish = scene.command(&["snapshots", "publish", "--unsanitized", "--json"]);
    assert_eq!(Running::start(&mut publish).wait().ok().json()["snapshot"], newest.as_str());
}

#[test]
fn a_pull_beside_an_app_that_writes_has_a_state_of_it() {
    let scene = Scene::in_bucket();
    let writing = scene.write("main.db");
    let mut least = 1;
    for _ in 0..3 {
        let more = least + 20;
        wait_for("more rows", || scene.replicated_rows("main").filter(|rows| *rows >= more));
        scene.pull(&[]).ok();
        assert!(scene.rows("main.db") >= more);
        least = scene.rows("main.db");
    }
    drop(writing);
    scene.settle();
    scene.pull(&[]).ok();
    let rows = databases::count(&scene.env.production().join("main.db"), "users");
    assert_eq!(scene.rows("main.db"), rows);
}

#[test]
fn a_url_of_a_bucket_names_one_replica_or_all_below_it() {
    let scene = Scene::in_bucket();
    let rule = "[[sanitize]]\ntable = 'users'\nset.token = \"''\"\n";
    scene.env.db_toml(&format!("include = ['*', 't/*']\n{rule}"));
    let pull = |below: &str| {
        let via = format!("litestream:{}", scene.url(below));
        let mut command = scene.command(&["pull-db", "--yes", "--via", &via]);
        command.env("AWS_ACCESS_KEY_ID", "any").env("AWS_SECRET_ACCESS_KEY", "any");
        Running::start(&mut command).wait()
    };
    pull("/t").ok().stderr_has("Pulled 2 databases from s3://team/r/t\n");
    assert_eq!(scene.live(), ["iris.db", "juno.db"]);
    pull("").ok().stderr_has("Pulled 3 databases");
    pull("/t/iris.db").ok();
    pull("/nothing").fails(1).stderr_has("no replica in s3://team/r/nothing matches: it has none");
}

/// A developer with a URL, and with a program that can look into buckets or cannot.
fn pull(lists: bool, url: &str, variables: &[(&str, String)]) -> Output {
    let env = TestEnv::new();
    env.db_toml(&format!("via = 'litestream:{url}'\ninclude = ['*']\n"));
    let program = python::programs("litestream", tests::litestream::VERSIONS);
    tests::shells::script(
        &env.path("bin"),
        "litestream",
        &format!("exec '{}' \"$@\"", program.join("litestream").display()),
    );
    let xtask = if lists { binaries::xtask_share() } else { binaries::xtask().to_owned() };
    let mut command = env.command(xtask);
    command.args(["pull-db", "--yes"]).env("CARGO_MANIFEST_DIR", env.path("repo/xtask"));
    command.envs(variables.iter().map(|(name, value)| (name, value)));
    let output = Running::start(&mut command).wait();
    assert!(!env.data().exists() || left_behind(&env.data()).is_empty());
    output
}

#[test]
fn what_a_bucket_refuses_is_explained() {
    for lists in [true, false] {
        let closed = Bucket::closed("team");
        let refused = pull(lists, "s3://team/r/main", &closed.variables()).fails(1);
        refused.stderr_has("credentials").stderr_has("hint: ").stderr_lacks("secret");

        let open = Bucket::new("team");
        let none = pull(lists, "s3://no-such-bucket/r", &open.variables()).fails(1);
        none.stderr_has("no such bucket");
        let empty = pull(lists, "s3://team/nothing", &open.variables()).fails(1);
        empty.stderr_has("s3://team/nothing").stderr_has("hint: ");
        if lists {
            // Litestream alone tries it for a minute.
            let variables = open.variables();
            drop(open);
            let dead = pull(lists, "s3://team/r", &variables).fails(1);
            dead.stderr_has("the store cannot be reached");
        }
    }
    let nobody = pull(true, "s3://team/r", &[]).fails(2);
    nobody.stderr_has("there are no credentials for s3://team/r").stderr_has("AWS_ACCESS_KEY_ID");
}
