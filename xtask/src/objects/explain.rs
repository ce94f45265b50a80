//! What stores, and programs that use them, say in words of their own.

use crate::ui::quoted;

/// Parts of what they say, what that means, and what to do.
const KNOWN: [(&[&str], &str, &str); 3] = [
    (
        &[
            "get credentials",
            "InvalidAccessKeyId",
            "SignatureDoesNotMatch",
            "AccessDenied",
            "Forbidden",
            "403",
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
    (
        &[
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
        ],
        "the store cannot be reached",
        "check the network and the endpoint (AWS_ENDPOINT_URL, or ?endpoint=…), and run the command again",
    ),
];

/// What it means, with its own words, and what to do, if that is known.
pub fn explain(said: &str) -> Option<(String, &'static str)> {
    let known = KNOWN.iter().find(|(parts, ..)| parts.iter().any(|part| said.contains(part)));
    known.map(|(_, why, hint)| (format!("{why}{}", detail(said)), *hint))
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
    fn answers_are_told_in_our_words() {
        let refused = "GET http://x: 403 Forbidden: <Error><Code>AccessDenied</Code><Message>x";
        let (why, hint) = explain(refused).unwrap();
        assert_eq!(why, "the store refuses these credentials (AccessDenied)");
        assert!(hint.contains("AWS_ACCESS_KEY_ID"));
        let (why, _) = explain("dial tcp: connection refused\u{1b}[31m").unwrap();
        assert!(why.starts_with("the store cannot be reached\n  | dial tcp"), "{why}");
        assert!(!why.contains('\u{1b}'), "{why}");
        assert!(explain("something else").is_none());
    }
}
