//! The files that make the tool work in other clones of a repository.

use xshell::{Shell, cmd};

use crate::config::Location;
use crate::ui::from_root;

/// Beside the settings file, of a crate that is a workspace of its own or a member of one.
const OF_CRATE: [&str; 3] = ["Cargo.toml", "Cargo.lock", "src/main.rs"];

/// Those that git has not committed as they are, as shell words: of the tool, and `written`. `None`
/// if git does not know.
pub fn uncommitted(sh: &Shell, location: &Location, written: &[String]) -> Option<String> {
    let Location { root, file } = location;
    let crate_dir = file.parent()?;
    let of_crate = OF_CRATE.iter().map(|name| from_root(root, &crate_dir.join(name)));
    let of_tool = of_crate.chain([".cargo/config.toml".to_owned()]);
    let mut files = written.to_vec();
    files.extend(of_tool.filter(|name| root.join(name).is_file()));
    let listed = |name: &String| {
        // Names are paths here, not patterns.
        let status = cmd!(sh, "git --literal-pathspecs -C {root} status --porcelain -- {name}");
        status.quiet().ignore_stderr().read().is_ok_and(|text| !text.is_empty())
    };
    files.retain(listed);
    let words: Option<Vec<_>> = files.iter().map(|name| shlex::try_quote(name).ok()).collect();
    words.filter(|words| !words.is_empty()).map(|words| words.join(" "))
}
