//! `docs/reference/`: `output.schema.json`, which is made of the types that `--json` prints.

use std::path::Path;

use schemars::generate::{SchemaGenerator, SchemaSettings};
use schemars::{JsonSchema, json_schema};
use serde_json::{Value, json};

use crate::ui::JSON_VERSION;
use crate::{commands, diff, doctor, fixtures, live, pull, share};

const REFERENCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference");

/// Panics if a file of `docs/reference/` is not what is made now; writes it if `UPDATE_REFERENCE` is set.
pub fn assert_file(name: &str, made: &str) {
    let file = Path::new(REFERENCE).join(name);
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        std::fs::write(&file, made).unwrap();
    }
    let found = std::fs::read_to_string(&file).unwrap_or_default();
    let update = "UPDATE_REFERENCE=1 cargo test --profile xtask -p xtask-db --lib in_the_reference";
    assert!(made == found, "{name} is stale; write it with: {update}");
}

/// Of `snapshots diff --table`, whose rows are printed one by one.
#[derive(JsonSchema)]
#[schemars(rename = "snapshots-diff-table")]
#[expect(dead_code, reason = "only its schema is used")]
struct WithRows {
    rows: Vec<diff::report::ChangedRow<'static>>,
    #[serde(flatten)]
    report: diff::report::Report,
}

type Add = fn(&mut SchemaGenerator) -> String;

/// Adds the document of a command, and returns its name.
fn add<T: JsonSchema>(generator: &mut SchemaGenerator) -> String {
    generator.subschema_for::<T>();
    T::schema_name().into_owned()
}

fn schema() -> Value {
    let mut generator = SchemaSettings::draft2020_12().for_serialize().into_generator();
    let documents: [(&str, Add); 17] = [
        ("pull-db", add::<pull::report::Report<'static>>),
        ("pull-db (skipped by --if-older or --offline-ok)", add::<pull::report::Skipped<'static>>),
        ("pull-db --dry-run", add::<pull::report::Plan<'static>>),
        ("pull-db --via share", add::<share::report::Pulled<'static>>),
        ("pull-db --via share --dry-run", add::<share::report::Plan<'static>>),
        ("restore-db", add::<commands::restore_db::Report<'static>>),
        ("snapshots list and restore-db --list", add::<live::list::List<'static>>),
        ("snapshots export and import", add::<commands::snapshots::exchange::Report<'static>>),
        ("snapshots publish", add::<share::report::Published<'static>>),
        ("snapshots list --share", add::<share::report::List<'static>>),
        ("snapshots prune --share", add::<share::report::Pruned<'static>>),
        ("snapshots diff", add::<diff::report::Report>),
        ("snapshots diff --table", add::<WithRows>),
        ("doctor", add::<doctor::report::Checks<'static>>),
        ("refresh-fixtures", add::<fixtures::refresh::Reports>),
        ("refresh-fixtures --check", add::<commands::refresh_fixtures::Problems<'static>>),
        ("refresh-fixtures --suggest", add::<commands::refresh_fixtures::Suggestions>),
    ];
    let names = documents.map(|(command, add)| (command, add(&mut generator)));
    let mut defs = Value::Object(generator.take_definitions(true));
    for (command, name) in &names {
        let document = &mut defs[name];
        document["description"] = format!("With --json, of {command}.").into();
        document["properties"]["version"] = json!({ "const": JSON_VERSION });
        document["required"].as_array_mut().expect("it has keys").insert(0, "version".into());
    }
    let any = names.iter().map(|(_, name)| json!({ "$ref": format!("#/$defs/{name}") }));
    json_schema!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "What the commands of cargo xtask print with --json",
        "description": "Keys may be added; when one is removed or changes its meaning, version is another.",
        "anyOf": any.collect::<Vec<_>>(),
        "$defs": defs,
    })
    .to_value()
}

#[test]
fn the_schema_in_the_reference_is_that_of_the_types() {
    let made = serde_json::to_string_pretty(&schema()).unwrap() + "\n";
    assert_file("output.schema.json", &made);
}
