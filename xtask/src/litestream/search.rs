//! Finds the replicas in a directory or a bucket.

use std::path::Path;

use anyhow::{Context as _, Result};

use crate::each::each;
use crate::objects::Remote;
use crate::objects::access::{Access, HAS_BUCKETS};

/// The stores whose names can be listed.
const BUCKETS: [&str; 3] = ["s3", "gs", "abs"];
/// How far below a prefix of a bucket replicas are looked for.
const DEPTH: usize = 8;
/// The number of requests at a time.
const REQUESTS: usize = 16;

/// Whether this program can look what is there.
pub fn can_list(access: &Access) -> bool {
    let (scheme, ..) = access.parts();
    scheme == "file" || HAS_BUCKETS && BUCKETS.contains(&scheme)
}

/// What it would need.
pub fn needed(access: &Access) -> &'static str {
    let (scheme, ..) = access.parts();
    if BUCKETS.contains(&scheme) {
        "build xtask with the feature share (docs/sharing.md)"
    } else {
        "use s3, gs or abs"
    }
}

/// The paths of the replicas below a place; an empty one if it is a replica itself. Unless
/// `recursive`, only those directly in it.
///
/// # Errors
///
/// It cannot be listed.
pub fn below(access: &Access, recursive: bool) -> Result<Vec<String>> {
    let depth = if recursive { DEPTH } else { 1 };
    let list = |path: &str| -> Result<Vec<String>> {
        let (_, host, dir) = access.parts();
        subdirectories(&Path::new(&format!("{host}/{dir}")).join(path))
    };
    let found = if access.parts().0 == "file" {
        search(depth, list)
    } else {
        let remote = Remote::open(access, false)?;
        search(depth, |path| remote.directories(path))
    };
    found.with_context(|| format!("cannot list the replicas in {}", access.shown()))
}

/// Looks into all directories of one depth after the other.
fn search(depth: usize, list: impl Fn(&str) -> Result<Vec<String>> + Sync) -> Result<Vec<String>> {
    let (mut found, mut look_into) = (Vec::new(), vec![String::new()]);
    for _ in 0..=depth {
        let listed = each(REQUESTS, &look_into, |path| list(path))?;
        let (replicas, others): (Vec<_>, Vec<_>) =
            look_into.into_iter().zip(listed).partition(|(_, names)| is_replica(names));
        found.extend(replicas.into_iter().map(|(path, _)| path));
        let join = |path: &str, name: &str| {
            if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") }
        };
        let each = |(path, names): &(String, Vec<String>)| {
            names.iter().map(|name| join(path, name)).collect::<Vec<_>>()
        };
        look_into = others.iter().flat_map(each).collect();
    }
    found.sort();
    Ok(found)
}

/// Whether a directory with these in it is a replica: of Litestream 0.5, of 0.5 in S3, or of 0.3.
fn is_replica(names: &[String]) -> bool {
    let is_level = |name: &str| name.len() == 4 && name.starts_with("000");
    names.iter().any(|name| name == "ltx" || name == "generations" || is_level(name))
}

fn subdirectories(dir: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs_err::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_are_found_at_any_depth() {
        let list = |path: &str| -> Result<Vec<String>> {
            let names: &[&str] = match path {
                "" => &["main", "t"],
                "main" => &["ltx"],
                "t" => &["iris.db", "old.db", "more", "empty"],
                "t/iris.db" => &["0000", "0001", "0009"],
                "t/old.db" => &["generations"],
                "t/more" => &["juno.db"],
                "t/more/juno.db" => &["0000"],
                _ => &[],
            };
            Ok(names.iter().copied().map(str::to_owned).collect())
        };
        let all = search(DEPTH, list).unwrap();
        assert_eq!(all, ["main", "t/iris.db", "t/more/juno.db", "t/old.db"]);
        let direct = search(1, |path: &str| list(format!("t/{path}").trim_end_matches('/')));
        assert_eq!(direct.unwrap(), ["iris.db", "old.db"]);
        assert_eq!(search(DEPTH, |_: &str| Ok(vec!["0000".to_owned()])).unwrap(), [""]);
    }
}
