//! The clock of a laptop may be wrong, and go back: what is newest stays what was
//! made last.

use serde_json::Value;
use tests::env::TestEnv;
use tests::process::Running;
use tests::sets::{assert_same, change, content, developer, named, pull, snapshots};
use tests::{fixtures, store};

/// The first pull was made when the clock was ahead by so much.
fn pulled_in_the_future(modifier: &str) -> (TestEnv, String) {
    let env = developer();
    let name = store::snapshots(&env.data()).remove(0).date(&env.data(), modifier);
    change(&env.production().join("data.db"));
    (env, name)
}

#[test]
fn the_pull_just_made_is_the_latest_when_the_clock_has_gone_back() {
    for modifier in ["+1 hour", "+1 year", "+7000 years"] {
        let (env, future) = pulled_in_the_future(modifier);
        let second = pull(&env);
        assert_eq!(named(&env, "pull"), [&second[..], &future]);
        assert_same(&content(&env.data()), &content(&env.production()));
        change(&env.data().join("data.db"));
        let mine = content(&env.data());
        env.xtask(["restore-db", "--latest", "--yes"])
            .ok()
            .stderr_has(&format!("Current {second}"));
        env.xtask(["restore-db", "--undo", "--yes"]).ok();
        assert_same(&content(&env.data()), &mine);
        env.xtask(["restore-db", "--undo", "--yes"]).ok();
        assert_same(&content(&env.data()), &content(&env.production()));
        // The way back is in what was saved, which no prune removes.
        env.xtask(["snapshots", "prune", "--keep", "1", "--yes"]).ok();
        assert_eq!(named(&env, "pull"), [second]);
    }
}

#[test]
fn times_are_told_by_the_clock_and_the_order_by_names() {
    let (env, future) = pulled_in_the_future("+1 year");
    let second = pull(&env);
    let list = env.xtask(["snapshots", "list"]).ok().stdout();
    let lines: Vec<_> = list.lines().collect();
    assert!(lines[0].starts_with(&format!("{second} today ")), "{list}");
    let date = &future["backup_".len()..][..10];
    assert!(lines[1].starts_with(&format!("{future} {date} ")), "{list}");
    let times: Vec<_> = snapshots(&env).iter().map(|listed| listed["time"].clone()).collect();
    assert!(times[0].as_str() < times[1].as_str(), "{times:?}");
    let recorded: Vec<_> = store::snapshots(&env.data()).into_iter().map(|s| s.json).collect();
    let recorded: Vec<&Value> = recorded.iter().rev().map(|json| &json["time"]).collect();
    assert_eq!(times.iter().collect::<Vec<_>>(), recorded);
}

#[test]
fn an_earlier_pull_is_as_old_as_the_clock_said_whatever_it_is_called() {
    let (env, _) = pulled_in_the_future("+1 hour");
    let via = format!("local:{}", env.production().display());
    let hook = || env.xtask(["pull-db", "--via", &via, "--if-older", "24h"]).ok();
    hook().stderr_has("Pulled ");
    hook().stderr_has("is fresh (pulled just now, ");
    for made in store::snapshots(&env.data()) {
        made.edit(|json| json["time"] = "2020-01-01T00:00:00Z".into());
    }
    hook().stderr_has("Pulled ");
}

#[test]
fn a_fixture_is_cut_from_the_pull_just_made() {
    let env = fixtures::pulled();
    store::snapshots(&env.data()).remove(0).date(&env.data(), "+1 day");
    env.xtask(["refresh-fixtures"]).ok();
    let second = pull(&env);
    env.xtask(["refresh-fixtures"]).ok().stderr_has(&format!("from shop.db of {second}\n"));
}

#[test]
fn a_time_zone_changes_only_how_times_are_shown() {
    let env = developer();
    let run = |zone: &str, args: &[&str]| {
        Running::start(env.xtask_command(args).env("TZ", zone)).wait().ok()
    };
    for zone in ["Pacific/Kiritimati", "XYZ-14:59:59", "/dev/null", ":no/such/zone", "\u{1b}[31m"] {
        run(zone, &["snapshots", "create"]);
        run(zone, &["snapshots", "list"]).is_harmless();
        let list = run(zone, &["snapshots", "list", "--json"]).is_harmless().stdout();
        assert_eq!(list, run("UTC", &["snapshots", "list", "--json"]).stdout());
    }
    for made in store::snapshots(&env.data()) {
        made.edit(|json| json["time"] = "2026-01-01T23:30:00Z".into());
    }
    // A zone that nobody knows is UTC.
    let zones = [("UTC", "01"), ("XYZ-3", "02"), ("Asia/Tokyo", "02"), (":no/such/zone", "01")];
    for (zone, day) in zones {
        let list = run(zone, &["snapshots", "list"]).stdout();
        let shown = format!(" 2026-01-{day} ");
        assert!(list.lines().all(|line| line.contains(&shown)), "{zone}: {list}");
    }
}
