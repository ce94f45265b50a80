//! What each command prints with `--json` is as `docs/reference/output.schema.json` says, which
//! [`tests::output::Output::json`] checks in every test.

use tests::fixtures;

#[test]
fn each_command_prints_an_object_with_the_version() {
    let env = fixtures::pulled();
    let via = format!("local:{}", env.production().display());
    for (args, keys) in [
        (&["pull-db", "--via", &via][..], &["snapshot", "databases", "audit"][..]),
        (&["pull-db", "--via", &via, "--if-older", "24h"], &["skipped", "reason"]),
        (&["pull-db", "--via", &via, "--dry-run"], &["dry_run", "databases"]),
        (&["restore-db", "--latest", "--yes"], &["snapshot", "restored"]),
        (&["restore-db", "--list"], &["snapshots"]),
        (&["snapshots"], &["snapshots"]),
        (&["snapshots", "diff"], &["a", "b", "databases"]),
        (&["snapshots", "diff", "--table", "orders"], &["rows", "a", "b", "databases"]),
        (&["doctor", "--via", &via], &["checks"]),
        (&["refresh-fixtures"], &["fixtures"]),
        (&["refresh-fixtures", "--check"], &["problems"]),
        (&["refresh-fixtures", "--suggest"], &["references"]),
    ] {
        let output = env.xtask([args, &["--json"]].concat());
        let json = output.json();
        assert_eq!(json["version"], 1, "{args:?}\n{output}");
        assert!(keys.iter().all(|key| json.get(key).is_some()), "{args:?}\n{output}");
    }
}
