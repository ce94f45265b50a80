//! `docs/reference/commands.md`, which is made of the help of each command.

use std::fmt::Write as _;

use clap::{Command, CommandFactory as _};

use super::{Cli, with_examples};
use crate::tests::assert_file;

const HEAD: &str = "# Commands

The help of each command, as `--help` prints it. This page is generated.

- Data goes to standard output, and everything else to standard error. Without a terminal nothing prompts: a command that needs an answer fails, and
  names the flag that gives it.
- Exit codes: 0 done, 1 failed (nothing changed, unless the message says so), 2 wrong usage, 130 declined or interrupted.
- With `--json`, data is one JSON object, as [output.schema.json](output.schema.json) describes it for each command. Its `version` (1)
  changes when a key is removed or changes its meaning. Keys may be added.
- Where a command takes the name of a snapshot, the beginning or the end of a name will do, and so will a label.
";

/// The help without the global options, which the whole program has.
fn help(command: &Command) -> String {
    let text = command.clone().render_long_help().to_string();
    let Some((before, globals)) = text.split_once("\nGlobal options:") else { return text };
    let examples = globals.split_once("\nExamples:").map_or("", |(_, examples)| examples);
    let examples =
        if examples.is_empty() { String::new() } else { format!("\nExamples:{examples}") };
    format!("{before}{examples}")
}

fn add(page: &mut String, command: &Command, name: &str, text: &str) {
    write!(page, "\n## {name}\n\n```text\n{}\n```\n", text.trim_end()).unwrap();
    for below in command.get_subcommands().filter(|one| !one.is_hide_set()) {
        if below.get_name() != "help" {
            add(page, below, &format!("{name} {}", below.get_name()), &help(below));
        }
    }
}

#[test]
fn the_commands_in_the_reference_are_those_of_the_help() {
    let mut command = with_examples(Cli::command().bin_name("cargo xtask"));
    command.build();
    let mut page = HEAD.to_owned();
    let whole = command.clone().render_long_help().to_string();
    add(&mut page, &command, "cargo xtask", &whole);
    // clap fills empty lines of a list with blanks.
    let lines: Vec<_> = page.lines().map(str::trim_end).collect();
    assert_file("commands.md", &(lines.join("\n") + "\n"));
}
