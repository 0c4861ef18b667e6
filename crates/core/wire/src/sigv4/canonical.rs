//! The canonical request: one text per request, whatever its spelling on the wire.

use super::Head;
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
    for name in signed_headers.split(';') {
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

pub(super) fn path(sent: &str, rule: PathRule) -> String {
    let sent = if sent.is_empty() { "/" } else { sent };
    match rule {
        PathRule::Sent => sent.into(),
        PathRule::AsIs => encode(&decode(sent), true),
        PathRule::EncodeAgain => encode(normalised(sent).as_bytes(), true),
    }
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
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(*byte)),
            b'/' if keep_slash => out.push('/'),
            other => drop(write!(out, "%{other:02X}")),
        }
    }
    out
}
