//! Whether a Docker image that is built of the repository would contain the data.

use std::path::Path;

use glob::{MatchOptions, Pattern};

/// The line that is missing in `.dockerignore`, if the repository has a `Dockerfile` and the data
/// directory is in it.
pub fn missing_line(root: &Path, data: &Path) -> Option<String> {
    let below = data.strip_prefix(root).ok().filter(|below| !below.as_os_str().is_empty())?;
    if !root.join("Dockerfile").exists() {
        return None;
    }
    let lines = std::fs::read_to_string(root.join(".dockerignore")).unwrap_or_default();
    let directory = below.to_str()?;
    (!ignores(&lines, directory)).then(|| directory.to_owned())
}

/// The last line that matches the directory, or one above it, counts.
fn ignores(lines: &str, directory: &str) -> bool {
    let options = MatchOptions { require_literal_separator: true, ..MatchOptions::default() };
    let mut ignored = false;
    for line in lines.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        let (sets, pattern) = match line.strip_prefix('!') {
            Some(pattern) => (false, pattern),
            None => (true, line),
        };
        let pattern = pattern.trim_start_matches("./").trim_matches('/');
        // All that is in it is as good as the directory itself.
        let pattern =
            ["/**", "/*"].iter().find_map(|end| pattern.strip_suffix(end)).unwrap_or(pattern);
        let Ok(pattern) = Pattern::new(pattern) else { continue };
        let above = Path::new(directory).ancestors().filter_map(Path::to_str);
        if above.filter(|path| !path.is_empty()).any(|path| pattern.matches_with(path, options)) {
            ignored = sets;
        }
    }
    ignored
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_that_matches_counts() {
        for lines in [
            "data",
            "/data/",
            "./data",
            "data/**",
            "data/*",
            "*",
            "**/data",
            "# x\n\n d*a",
            "!data\ndata",
        ] {
            assert!(ignores(lines, "data"), "{lines}");
        }
        for lines in ["", "# data", "data2", "data/*.db", "*.db", "data\n!data", "x/data"] {
            assert!(!ignores(lines, "data"), "{lines}");
        }
        assert!(ignores("var", "var/data") && ignores("var/*", "var/data"));
        assert!(!ignores("data", "var/data"));
    }

    #[test]
    fn it_is_missing_only_where_an_image_is_built_of_the_directory() {
        let root = tempfile::tempdir().unwrap();
        let data = root.path().join("var/data");
        assert_eq!(missing_line(root.path(), &data), None);
        std::fs::write(root.path().join("Dockerfile"), "").unwrap();
        assert_eq!(missing_line(root.path(), &data).as_deref(), Some("var/data"));
        assert_eq!(missing_line(&root.path().join("app"), &data), None);
        std::fs::write(root.path().join(".dockerignore"), "var\n").unwrap();
        assert_eq!(missing_line(root.path(), &data), None);
    }
}
