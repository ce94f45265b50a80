//! `docs/reference/settings.md`, which is made of the types that read `db.toml`.

use std::fmt::Write as _;

use schemars::{JsonSchema, schema_for};
use serde_json::Value;

use super::{AuditToml, DbToml, FixtureToml, HooksToml, RuleToml, ShareToml, SourceToml};
use crate::tests::assert_file;

const HEAD: &str = "# Settings

All keys of `xtask/db.toml`. An unknown key is an error that names the nearest one. This page is generated from the types
that read the file.
";

/// A table of TOML: its heading, an example of its first line, and its keys.
type Table = (&'static str, &'static str, Value);

fn keys<T: JsonSchema>() -> Value {
    schema_for!(T).to_value()
}

fn tables() -> [Table; 7] {
    [
        ("At the top", "These keys come before the first table.", keys::<DbToml>()),
        (
            "`[[sanitize]]`",
            "A rule that masks data: `table` with `set` or `delete`, or `sql`, or only `scrub`. See [Masking](../masking.md).",
            keys::<RuleToml>(),
        ),
        ("`[audit]`", "See [Masking](../masking.md#audit).", keys::<AuditToml>()),
        ("`[[fixture]]`", "See [Fixtures](../fixtures.md).", keys::<FixtureToml>()),
        (
            "`[hooks]`",
            "Commands that run from the root of the repository. `$XTASK_DATABASES` has the names of the databases, a line each, and `$XTASK_SNAPSHOT` is the directory that they come from.",
            keys::<HooksToml>(),
        ),
        (
            "`[source.NAME]`",
            "Another place to pull from: `cargo xtask pull-db --source NAME`. A key that is missing is as at the top.",
            keys::<SourceToml>(),
        ),
        ("`[share]`", "See [A team's snapshots](../sharing.md).", keys::<ShareToml>()),
    ]
}

/// The description of a key, and its default.
fn described(key: &str, property: &Value, is_required: bool) -> (String, String) {
    let text = property["description"].as_str().unwrap_or_default();
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|");
    assert!(!text.is_empty(), "{key} has no comment");
    match text.split_once(" Default: ") {
        Some((text, default)) => (text.to_owned(), default.trim_end_matches('.').to_owned()),
        None if is_required => (text, "required".to_owned()),
        None => (text, String::new()),
    }
}

fn page() -> String {
    let mut page = HEAD.to_owned();
    for (heading, about, schema) in tables() {
        write!(page, "\n## {heading}\n\n{about}\n\n| key | default | |\n| --- | --- | --- |\n")
            .unwrap();
        let required = schema["required"].as_array().cloned().unwrap_or_default();
        for (key, property) in schema["properties"].as_object().expect("it has keys") {
            let is_required = required.iter().any(|one| one == key);
            let (text, default) = described(key, property, is_required);
            writeln!(page, "| `{key}` | {default} | {text} |").unwrap();
        }
    }
    page
}

#[test]
fn the_settings_in_the_reference_are_those_of_the_types() {
    assert_file("settings.md", &page());
}
