//! What a newcomer asks the program first, and what it says of a command line that it cannot read.

use tests::env::TestEnv;

const COMMANDS: [&[&str]; 15] = [
    &["init"],
    &["pull-db"],
    &["restore-db"],
    &["snapshots"],
    &["snapshots", "list"],
    &["snapshots", "create"],
    &["snapshots", "rm"],
    &["snapshots", "prune"],
    &["snapshots", "diff"],
    &["snapshots", "publish"],
    &["setup-db"],
    &["doctor"],
    &["refresh-fixtures"],
    &["install-hooks"],
    &["completions"],
];

#[test]
fn without_a_command_the_help_is_shown() {
    let env = TestEnv::new();
    let output = env.xtask([""; 0]).fails(2).stdout_is("");
    output
        .stderr_has("\n  pull-db ")
        .stderr_has("First steps:\n")
        .stderr_lacks("error")
        .stderr_lacks("textconv");
    env.xtask(["-v"]).fails(2).stderr_has("[subcommands: init, pull-db").stderr_lacks("textconv");
    env.xtask(["--help"]).ok().stdout_has("\nFirst steps:\n  cargo xtask init ");
}

#[test]
fn the_short_help_has_what_the_command_has_and_the_long_one_ends_with_examples() {
    let env = TestEnv::new();
    for command in COMMANDS {
        let help = |flag: &str| env.xtask([command, &[flag]].concat()).ok().stdout();
        let short = help("-h");
        assert!(!short.contains("--no-wait  ") && !short.contains("Examples:"), "{short}");
        assert!(short.ends_with(" --config --local-dir (see --help)\n"), "{short}");
        let long = help("--help");
        assert!(long.contains("      --no-wait\n"), "{long}");
        let (_, examples) = long.split_once("\nExamples:\n").expect("it has examples");
        let this = format!("  cargo xtask {}", command.join(" "));
        let of_this = |line: &&str| line.starts_with(&this) || line.ends_with("init --dry-run");
        assert_eq!(examples.lines().filter(of_this).count(), examples.lines().count(), "{long}");
        assert!((2..4).contains(&examples.lines().count()), "{long}");
    }
}

#[test]
fn a_misspelt_flag_has_the_nearest_one_of_its_command() {
    let env = TestEnv::new();
    for (args, tip) in [
        (&["pull-db", "--vai", "x"][..], Some("--via")),
        (&["pull-db", "--olny", "x"], Some("--only")),
        (&["snapshots", "prune", "--kep", "3"], Some("--keep")),
        (&["restore-db", "--lastest"], Some("--latest")),
        (&["pull-db", "--qqqqqq"], None),
    ] {
        let output = env.xtask(args).fails(2);
        let usage = &args[..args.len().min(if args[0] == "snapshots" { 2 } else { 1 })];
        match tip {
            Some(tip) => output
                .stderr_has(&format!("\n  tip: a similar argument exists: '{tip}'\n"))
                .stderr_has(&format!("\nUsage: cargo xtask {} [OPTIONS]", usage.join(" "))),
            None => output.stderr_lacks("tip: a similar"),
        };
    }
}
