//! The canonical request: one text per request, whatever its spelling on the wire.

use super::Head;
use std::borrow::Cow;
use std::fmt::Write;

/// How the path enters the canonical request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PathRule {
    /// S3: encoded once, dot segments and double slashes kept.
    AsIs,
    /// Every other service: normalised, then the encoded path is encoded again.
    EncodeAgain,
    /// Exactly the bytes that were sent.
    Sent,
}

/// How the query enters the canonical request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum QueryRule {
    /// Names and values decoded and encoded again.
    Canonical,
    /// Names and values as sent, sorted.
    Sent,
}

/// The canonical request without any body: method, path, query, headers, names of headers, payload text.
pub(super) fn request(
    head: &Head<'_>,
    path_rule: PathRule,
    query_rule: QueryRule,
    signed_headers: &str,
    payload: &str,
) -> Vec<u8> {
    let mut text = Vec::with_capacity(1000);
    text.extend_from_slice(head.method.as_bytes());
    text.push(b'\n');
    text.extend_from_slice(path(head.path, path_rule).as_bytes());
    text.push(b'\n');
    text.extend_from_slice(query(head.query, query_rule).as_bytes());
    text.push(b'\n');
    for name in super::pieces(signed_headers, b';') {
        text.extend_from_slice(name.as_bytes());
        text.push(b':');
        header_value(head, name, &mut text);
        text.push(b'\n');
    }
    text.push(b'\n');
    text.extend_from_slice(signed_headers.as_bytes());
    text.push(b'\n');
    text.extend_from_slice(payload.as_bytes());
    text
}

/// All values of a header, each trimmed and with runs of blanks made one, joined by commas.
fn header_value(head: &Head<'_>, name: &str, text: &mut Vec<u8>) {
    let mut values = head.headers.get_all(name).iter().peekable();
    if values.peek().is_none() {
        if name == "host" {
            text.extend_from_slice(head.authority.unwrap_or("").as_bytes());
        }
        return;
    }
    for (at, value) in values.enumerate() {
        if at > 0 {
            text.push(b',');
        }
        if !value.as_bytes().iter().any(|byte| matches!(byte, b' ' | b'\t')) {
            text.extend_from_slice(value.as_bytes());
            continue;
        }
        let words = value
            .as_bytes()
            .split(|byte| matches!(byte, b' ' | b'\t'))
            .filter(|word| !word.is_empty());
        for (word_at, word) in words.enumerate() {
            if word_at > 0 {
                text.push(b' ');
            }
            text.extend_from_slice(word);
        }
    }
}

pub(super) fn path(sent: &str, rule: PathRule) -> Cow<'_, str> {
    let sent = if sent.is_empty() { "/" } else { sent };
    match rule {
        PathRule::Sent => sent.into(),
        _ if is_canonical(sent) => sent.into(),
        PathRule::AsIs => encode(&decode(sent), true).into(),
        PathRule::EncodeAgain => encode(normalised(sent).as_bytes(), true).into(),
    }
}

/// Whether every rule leaves a path as it is, which is so for most: nothing to encode or decode, no segments to drop.
fn is_canonical(path: &str) -> bool {
    let Some(rest) = path.strip_prefix('/') else {
        return false;
    };
    let segments = rest.strip_suffix('/').unwrap_or(rest);
    rest.bytes().all(|byte| is_unreserved(byte) || byte == b'/')
        && (rest.is_empty() || !super::pieces(segments, b'/').any(|segment| matches!(segment, "" | "." | "..")))
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~')
}

/// RFC 3986 dot segments removed and empty segments dropped.
fn normalised(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(kept.pop()),
            other => kept.push(other),
        }
    }
    let mut text = format!("/{}", kept.join("/"));
    if path.ends_with('/') && !kept.is_empty() {
        text.push('/');
    }
    text
}

/// The sorted query without the signature itself.
pub(super) fn query(sent: &str, rule: QueryRule) -> String {
    if sent.is_empty() {
        return String::new();
    }
    let mut pairs: Vec<(String, String)> = sent
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .filter(|(name, _)| *name != "X-Amz-Signature")
        .map(|(name, value)| match rule {
            QueryRule::Canonical => (encode(&decode(name), false), encode(&decode(value), false)),
            QueryRule::Sent => (name.into(), value.into()),
        })
        .collect();
    pairs.sort();
    let pairs: Vec<String> = pairs
        .into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    pairs.join("&")
}

/// Decoded names and values of a query, in the order sent. Bytes that are no UTF-8 are replaced: none of the parameters
/// looked at here may hold them.
pub(super) fn pairs(sent: &str) -> Vec<(String, String)> {
    let text = |part: &str| String::from_utf8_lossy(&decode(part)).into_owned();
    sent.split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (text(name), text(value)))
        .collect()
}

/// Percent-decoding; a percent sign without two digits stays as it is. A plus is a plus.
pub(super) fn decode(text: &str) -> Vec<u8> {
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match (byte, digit(bytes.get(at + 1)), digit(bytes.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                out.push(u8::try_from(high * 16 + low).unwrap_or(b'%'));
                at += 3;
            }
            _ => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    out
}

/// AWS's encoding: everything but letters, digits, `-`, `_`, `.`, `~` (and `/` in paths) as `%XX`.
pub(super) fn encode(bytes: &[u8], keep_slash: bool) -> String {
    let mut out = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            plain if is_unreserved(*plain) => out.push(char::from(*plain)),
            b'/' if keep_slash => out.push('/'),
            other => drop(write!(out, "%{other:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_is_taken_as_it_is_would_be_made_the_same_text() {
        let mut taken = 0;
        let pieces = ["", "/", "a", "B9", "-_.~", ".", "..", "%41", " ", "é", "+", "a.b"];
        for first in pieces {
            for second in pieces {
                for third in pieces {
                    for path in [format!("/{first}{second}{third}"), format!("/{first}/{second}/{third}")] {
                        if is_canonical(&path) {
                            taken += 1;
                            assert_eq!(encode(&decode(&path), true), path);
                            assert_eq!(encode(normalised(&path).as_bytes(), true), path);
                        }
                    }
                }
            }
        }
        assert!(taken > 300, "{taken}");
        for (odd, made) in [
            ("/a//b", "/a/b"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a b", "/a%20b"),
            ("//", "/"),
            ("a", "/a"),
        ] {
            assert_eq!(path(odd, PathRule::EncodeAgain), made, "{odd}");
        }
    }
}
