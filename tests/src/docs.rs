//! The settings that pages of `docs/` tell users to copy.

use std::fs;

/// The first block of settings in the section of this heading.
#[track_caller]
pub fn settings(page: &str, heading: &str) -> String {
    let path = format!("{}/../docs/{page}", env!("CARGO_MANIFEST_DIR"));
    let document = fs::read_to_string(path).expect("the page is there");
    let section = document.split("\n## ").find(|section| section.starts_with(heading));
    let block = section.and_then(|section| section.split("```toml\n").nth(1)?.split("```").next());
    block.unwrap_or_else(|| panic!("{page} has no settings for {heading}")).to_owned()
}
