//! README and `docs/`: the command lines and settings that they show exist, and README stays short.

use std::fs;
use std::path::Path;

use clap::{CommandFactory as _, Parser};
use tests::env::TestEnv;
use tests::process::command;

/// The command line of xtask, as another program flattens it.
#[derive(Parser)]
#[command(name = "xtask", version)]
struct Cli {
    #[command(flatten)]
    _global: xtask_db::GlobalArgs,
    #[command(subcommand)]
    _command: xtask_db::Command,
}

/// README and the pages of `docs/` that people write, each by its path.
fn pages() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the root");
    let listing = command("git").current_dir(root).args(["ls-files", "*.md"]).output();
    let listing = String::from_utf8(listing.expect("git runs").stdout).expect("names in UTF-8");
    let written = |path: &&str| {
        ["README.md", "CONTRIBUTING.md", "SECURITY.md"].contains(path)
            || path.starts_with("docs/") && !path.starts_with("docs/decisions/")
    };
    let paths = listing.lines().filter(written).map(str::to_owned);
    paths.map(|path| (path.clone(), fs::read_to_string(root.join(path)).expect("read"))).collect()
}

/// The fenced blocks of a page, each with its language, and the rest.
fn split(page: &str) -> (Vec<(String, String)>, String) {
    let (mut blocks, mut rest, mut inside) = (Vec::new(), String::new(), false);
    for line in page.lines() {
        match (line.trim_start().strip_prefix("```"), inside) {
            (Some(_), true) => inside = false,
            (Some(language), false) => {
                blocks.push((language.to_owned(), String::new()));
                inside = true;
            }
            (None, true) => {
                let (_, block) = blocks.last_mut().expect("it has begun");
                *block += &format!("{line}\n");
            }
            (None, false) => rest += &format!("{line}\n"),
        }
    }
    (blocks, rest)
}

/// The commands of this repository in a page: what is typed in blocks, and code within text.
fn commands(page: &str) -> Vec<String> {
    let (blocks, rest) = split(page);
    let typed = blocks.iter().flat_map(|(language, block)| {
        let lines = block.lines().map(str::trim_start);
        lines.filter_map(move |line| match language.as_str() {
            "console" => line.strip_prefix("$ "),
            "sh" => Some(line),
            _ => None,
        })
    });
    let typed = typed.map(|line| line.split("  #").next().unwrap_or_default().to_owned());
    let code = rest.split('`').skip(1).step_by(2).map(|code| code.replace('\n', " "));
    let all = typed.chain(code).collect::<Vec<_>>();
    let parts = all.iter().flat_map(|line| line.split(" && ")).map(str::trim);
    let ours = |part: &&str| {
        ["cargo xtask ", "cargo dev "].iter().any(|begin| part.starts_with(begin))
            && !part.contains('…')
    };
    parts.filter(ours).map(str::to_owned).collect()
}

#[test]
fn commands_in_documents_are_accepted() {
    let (mut wrong, mut count) = (Vec::new(), 0);
    for (path, page) in pages() {
        for line in commands(&page) {
            let line = line.split([';', '|', '>', '<']).next().unwrap_or_default();
            let words = shlex::split(line).unwrap_or_else(|| panic!("{path}: {line}"));
            count += 1;
            let is_known = match words.get(1).map(String::as_str) {
                Some("xtask") => Cli::command().try_get_matches_from(&words[1..]).err(),
                _ => {
                    let known = ["test", "demo", "bench", "fuzz", "record"];
                    assert!(known.contains(&&*words[2]), "{path}: {line}");
                    None
                }
            };
            let asks = |error: &clap::Error| error.exit_code() == 0;
            if let Some(error) = is_known.filter(|error| !asks(error)) {
                wrong.push(format!("{path}: {line}: {}", error.kind()));
            }
        }
    }
    assert!(count > 60, "only {count} were found");
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

/// A block may also be the rest of a rule or of a fixture.
#[test]
fn settings_in_documents_are_accepted() {
    let env = TestEnv::new();
    let begins = ["", "[[fixture]]\npath = 'a.db'\nfrom = 'b.db'\n", "[[sanitize]]\ntable = 't'\n"];
    let (mut wrong, mut count) = (Vec::new(), 0);
    for (path, page) in pages() {
        let blocks = split(&page).0.into_iter().filter(|(language, _)| language == "toml");
        for (_, block) in blocks.filter(|(_, block)| !block.contains("xtask-db")) {
            count += 1;
            let accepts = |begin: &&str| {
                fs::write(env.repo().join("xtask/db.toml"), format!("{begin}{block}")).unwrap();
                env.xtask(["snapshots"]).code == Some(0)
            };
            if !begins.iter().any(accepts) {
                fs::write(env.repo().join("xtask/db.toml"), &block).unwrap();
                wrong.push(format!("{path}:\n{block}{}", env.xtask(["snapshots"]).stderr));
            }
        }
    }
    assert!(count > 20, "only {count} were found");
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

/// The anchor that a heading gets where Markdown is shown.
fn anchor(heading: &str) -> String {
    let heading = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn anchors_in_documents_lead_to_headings() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the root");
    let mut wrong = Vec::new();
    for (path, page) in pages() {
        for link in page.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let Some((file, wanted)) = link.split_once('#') else { continue };
            if file.contains("://") {
                continue;
            }
            let target = if file.is_empty() {
                root.join(&path)
            } else {
                root.join(&path).with_file_name(file)
            };
            let text = split(&fs::read_to_string(target).expect("it is there")).1;
            let mut headings = text.lines().filter(|line| line.starts_with('#')).map(anchor);
            if !headings.any(|heading| heading == wanted) {
                wrong.push(format!("{path}: {link}"));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn readme_is_read_in_a_few_minutes() {
    let (_, readme) =
        pages().into_iter().find(|(path, _)| path == "README.md").expect("it is there");
    assert!(readme.lines().count() <= 180 && readme.split_whitespace().count() <= 1000);
}
