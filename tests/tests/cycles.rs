//! No two files of the product import each other, not even by way of others: each can be read
//! with what it stands on, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

type Module = Vec<String>;
type Imports = BTreeMap<Module, BTreeSet<Module>>;

/// The modules below a directory of sources, each with its text.
fn modules(sources: &Path) -> BTreeMap<Module, String> {
    let mut found = BTreeMap::new();
    let mut directories: Vec<PathBuf> = vec![sources.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).expect("read sources") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                let from_sources = path.strip_prefix(sources).expect("it is in there");
                let names = from_sources.with_extension("");
                let mut module: Module =
                    names.iter().map(|name| name.to_string_lossy().into_owned()).collect();
                module.pop_if(|name| name == "mod");
                // Tests may look at anything.
                if !module.iter().any(|name| ["tests", "main", "lib"].contains(&name.as_str())) {
                    found.insert(module, fs::read_to_string(path).expect("read a source"));
                }
            }
        }
    }
    found
}

/// The paths that a text names, from the crate, from itself or from above.
fn paths(text: &str) -> Vec<Module> {
    let text = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let code: String = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join(" ");
    let mut paths = Vec::new();
    for start in ["crate::", "super::", "self::"] {
        for (at, _) in code.match_indices(start) {
            let before = code[..at].chars().next_back().unwrap_or(' ');
            if !before.is_alphanumeric() && !":_".contains(before) {
                expand(&Vec::new(), &code[at..], &mut paths);
            }
        }
    }
    paths
}

/// A path, or all that one with braces stands for.
fn expand(prefix: &Module, text: &str, paths: &mut Vec<Module>) {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let mut path = prefix.clone();
    let mut rest = text;
    loop {
        if let Some(inner) = rest.strip_prefix('{') {
            for item in items(inner) {
                expand(&path, item.trim(), paths);
            }
            return;
        }
        let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
        path.push(rest[..end].to_owned());
        match rest[end..].strip_prefix("::") {
            Some(after) => rest = after,
            None => break,
        }
    }
    paths.push(path);
}

/// What is between the commas, up to the closing brace.
fn items(text: &str) -> Vec<&str> {
    let (mut depth, mut start, mut found) = (0, 0, Vec::new());
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                found.push(&text[start..at]);
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                found.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    found
}

/// A module and those within it are one house.
fn is_within(one: &Module, other: &Module) -> bool {
    one.starts_with(other) || other.starts_with(one)
}

fn imports(modules: &BTreeMap<Module, String>) -> Imports {
    let resolve = |from: &Module, path: &Module| {
        let mut at = if path[0] == "crate" { Vec::new() } else { from.clone() };
        for name in path {
            match name.as_str() {
                "super" => drop(at.pop()),
                "crate" | "self" => {}
                name => at.push(name.to_owned()),
            }
        }
        while !at.is_empty() && !modules.contains_key(&at) {
            at.pop();
        }
        at
    };
    let of = |(module, text): (&Module, &String)| {
        let targets = paths(text).into_iter().map(|path| resolve(module, &path));
        let others = targets.filter(|target| !target.is_empty() && !is_within(target, module));
        (module.clone(), others.collect())
    };
    modules.iter().map(of).collect()
}

/// A way back to a module, if there is one.
fn cycle(imports: &Imports, start: &Module) -> Option<Vec<String>> {
    let mut ways = vec![vec![start.clone()]];
    let mut seen = BTreeSet::new();
    while let Some(way) = ways.pop() {
        for next in &imports[way.last()?] {
            let mut longer = way.clone();
            longer.push(next.clone());
            if next == start {
                return Some(longer.iter().map(|module| module.join("::")).collect());
            }
            if seen.insert(next.clone()) {
                ways.push(longer);
            }
        }
    }
    None
}

#[test]
fn no_file_of_the_product_imports_one_that_imports_it() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../xtask/src");
    let modules = modules(&sources);
    assert!(modules.len() > 60, "{} modules", modules.len());
    let imports = imports(&modules);
    // That imports are seen at all.
    assert!(imports[&vec!["cli".to_owned()]].contains(&vec!["error".to_owned()]));
    let cycles: Vec<_> = imports.keys().filter_map(|start| cycle(&imports, start)).collect();
    assert!(cycles.is_empty(), "{cycles:#?}");
}

#[test]
fn commands_do_not_import_commands() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../xtask/src");
    let imports = imports(&modules(&sources));
    let is_command = |module: &Module| module[0] == "commands" && module.len() > 1;
    for (module, imported) in imports.iter().filter(|(module, _)| is_command(module)) {
        let other = imported.iter().find(|other| is_command(other));
        assert_eq!(other, None, "{module:?}");
    }
}

#[test]
fn an_import_in_any_form_is_seen() {
    let text = "use crate::a::{self, b::{C, d}};\n//! crate::no\nfn f() { crate::e::f(); super::g }\n\
                #[cfg(test)]\nmod tests { use crate::h; }";
    let found: Vec<_> = paths(text).iter().map(|path| path.join("::")).collect();
    assert_eq!(
        found,
        ["crate::a::self", "crate::a::b::C", "crate::a::b::d", "crate::e::f", "super::g"]
    );
    let module = |text: &str| -> Module { text.split("::").map(str::to_owned).collect() };
    let texts = [
        ("a", "use crate::b::c::X;"),
        ("b", ""),
        ("b::c", "use super::d;"),
        ("b::d", "use crate::a;"),
    ];
    let modules = texts.map(|(name, text)| (module(name), text.to_owned()));
    let imports = imports(&modules.into());
    assert_eq!(
        cycle(&imports, &module("a")),
        Some(["a", "b::c", "b::d", "a"].map(str::to_owned).into())
    );
    assert_eq!(cycle(&imports, &module("b")), None);
}
