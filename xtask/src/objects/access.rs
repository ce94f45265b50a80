//! Where objects are, and what is needed to get there.

use std::collections::BTreeMap;

/// Whether this program can open buckets.
pub const HAS_BUCKETS: bool = cfg!(feature = "share");

/// A bucket or a directory. Of what `settings` lack, the usual variables are read.
#[derive(Clone)]
pub struct Access {
    pub url: String,
    #[cfg_attr(
        not(any(feature = "share", test)),
        expect(dead_code, reason = "directories need none")
    )]
    /// Credentials and the like, with the names that Litestream gives them.
    pub settings: BTreeMap<String, String>,
    #[cfg_attr(not(feature = "share"), expect(dead_code, reason = "nothing is opened"))]
    /// What to check if it fails, for a hint.
    pub named_by: &'static str,
}

impl Access {
    #[cfg(feature = "share")]
    /// A setting, of itself or of one of these variables.
    pub fn get(&self, name: &str, variables: &[&str]) -> Option<String> {
        let set = |name: &&str| std::env::var(name).ok().filter(|value| !value.is_empty());
        self.settings.get(name).cloned().or_else(|| variables.iter().find_map(set))
    }

    /// The scheme, and the host or bucket and the path without a query.
    pub fn parts(&self) -> (&str, &str, &str) {
        let place = self.url.split('?').next().unwrap_or_default();
        let (scheme, rest) = place.split_once("://").unwrap_or(("", place));
        let (bucket, path) = rest.split_once('/').unwrap_or((rest, ""));
        (scheme, bucket, path)
    }

    /// For messages: a query may have what is nobody's business.
    pub fn shown(&self) -> &str {
        self.url.split('?').next().unwrap_or_default()
    }
}
