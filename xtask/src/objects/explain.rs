//! What stores, and programs that use them, say in words of their own.

use crate::error::{Failure, Reason};
use crate::ui::quoted;

/// Parts of what they say, what that means, and what to do.
const KNOWN: [(&[&str], &str, &str); 2] = [
    (
        &[
            "get credentials",
            "InvalidAccessKeyId",
            "SignatureDoesNotMatch",
            "AccessDenied",
            "Forbidden",
            "StatusCode: 403",
            "no EC2 IMDS role",
        ],
        "the store refuses these credentials",
        "check the access key (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY), and what it may do",
    ),
    (
        &["NoSuchBucket", "NotFound: bucket", "bucket doesn't exist"],
        "there is no such bucket",
        "check the URL, and the endpoint (AWS_ENDPOINT_URL, or ?endpoint=…)",
    ),
];

/// What they say without a network, or without the store in it.
const OFFLINE: [&str; 13] = [
    "Could not resolve",
    "No route to host",
    "no such host",
    "dns error",
    "connection refused",
    "Connection refused",
    "no sign of it",
    "network is unreachable",
    "Network is unreachable",
    "i/o timeout",
    "timed out",
    "request send failed",
    "error sending request",
];

/// The failure if there is no network, or the store is not in it; `what` is the beginning of the message.
pub fn offline(what: &str, said: &str) -> Option<Failure> {
    if !OFFLINE.iter().any(|part| said.contains(part)) {
        return None;
    }
    let what = format!("{what}: the store cannot be reached{}", detail(said));
    Some(Failure::new(what).because(Reason::Offline).hint(
        "check the network and the endpoint (AWS_ENDPOINT_URL, or ?endpoint=…), and run the command again",
    ))
}

/// What failed and why, if that is known.
pub fn explain(what: &str, said: &str) -> Option<Failure> {
    if let Some(failure) = offline(what, said) {
        return Some(failure);
    }
    let known = KNOWN.iter().find(|(parts, ..)| parts.iter().any(|part| said.contains(part)));
    known.map(|(_, why, hint)| Failure::new(format!("{what}: {why}{}", detail(said))).hint(*hint))
}

/// An error and its causes, without those that an earlier one has in its words.
#[cfg(any(feature = "share", test))]
pub fn once(chain: impl Iterator<Item = String>) -> String {
    chain.fold(String::new(), |said, cause| match said.contains(&cause) {
        true => said,
        false if said.is_empty() => cause,
        false => format!("{said}: {cause}"),
    })
}

/// Of an answer in XML its code, which says it all; else its words.
pub fn detail(said: &str) -> String {
    let code = said.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>"));
    match code {
        Some((code, _)) if code.chars().all(|c| c.is_ascii_alphanumeric()) => format!(" ({code})"),
        _ => quoted(said),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_told_once() {
        let chain = ["cannot list: 500 oops", "500 oops", "oops", "at x"].map(str::to_owned);
        assert_eq!(once(chain.into_iter()), "cannot list: 500 oops: at x");
    }

    #[test]
    fn answers_are_told_in_our_words() {
        let refused = "GET http://x: 403 Forbidden: <Error><Code>AccessDenied</Code><Message>x";
        let failure = explain("cannot list x", refused).unwrap().to_string();
        assert_eq!(failure, "cannot list x: the store refuses these credentials (AccessDenied)");
        let failure = explain("x", "dial tcp: connection refused\u{1b}[31m").unwrap();
        let failure = failure.to_string();
        assert!(failure.starts_with("x: the store cannot be reached\n  | dial tcp"), "{failure}");
        assert!(!failure.contains('\u{1b}'), "{failure}");
        assert!(explain("x", "something else").is_none());
    }
}
