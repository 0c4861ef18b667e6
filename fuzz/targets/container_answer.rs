//! What containers answer, as HTTP/1.1: however it arrives it is read as the same, and chunked bodies as the definition,
//! spelled out, reads them.
#![no_main]

// The proxy's reader is no part of a library's face; it needs one name of its parent.
#[allow(dead_code)]
#[path = "../../crates/app/server/src/invoke/answer.rs"]
mod answer;

use answer::{Chunk, Framing, Malformed, Piece};
use bytes::BytesMut;
use http::HeaderName;
use libfuzzer_sys::fuzz_target;

const CUSTOM_ATTRIBUTES: HeaderName = HeaderName::from_static("x-amzn-sagemaker-custom-attributes");

/// How far an answer was read: its body, whether it was complete, what was behind it.
#[derive(Debug, PartialEq)]
struct Read {
    status: u16,
    framing: Framing,
    keeps: bool,
    body: Vec<u8>,
    end: Result<bool, Malformed>,
    behind: Vec<u8>,
}

/// `None` when there is no head.
fn read<'a>(mut arriving: impl Iterator<Item = &'a [u8]>) -> Result<Option<Read>, Malformed> {
    let (mut bytes, mut looked) = (BytesMut::new(), 0);
    let head = loop {
        match answer::head(&mut bytes, &mut looked)? {
            Some(head) => break head,
            None => match arriving.next() {
                Some(more) => bytes.extend_from_slice(more),
                None => return Ok(None),
            },
        }
    };
    let (mut framing, mut body) = (head.framing, Vec::new());
    let end = loop {
        match framing.next(&mut bytes) {
            Ok(Piece::Data(data)) => {
                assert!(!data.is_empty());
                body.extend_from_slice(&data);
            }
            Ok(Piece::End) => break Ok(true),
            Ok(Piece::More) => match arriving.next() {
                Some(more) => bytes.extend_from_slice(more),
                None => break Ok(false),
            },
            Err(error) => break Err(error),
        }
    };
    arriving.for_each(|more| bytes.extend_from_slice(more));
    assert_eq!(end == Ok(true), framing.is_at_end());
    Ok(Some(Read {
        status: head.status.as_u16(),
        framing: head.framing,
        keeps: head.keeps,
        body,
        end,
        // What lies behind a fault is nobody's business, and how much was taken depends on how it came.
        behind: if end == Ok(true) { bytes.to_vec() } else { Vec::new() },
    }))
}

/// A chunked body and what follows it, when it is complete.
fn dechunked(mut text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    fn line(text: &[u8]) -> Option<(&[u8], &[u8])> {
        let at = text.windows(2).position(|two| two == b"\r\n")?;
        Some((&text[..at], &text[at + 2..]))
    }
    let mut body = Vec::new();
    loop {
        let (size, rest) = line(text)?;
        let digits = size.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let size = u64::from_str_radix(std::str::from_utf8(&size[..digits]).ok()?, 16).ok()?;
        text = rest;
        if size == 0 {
            break;
        }
        let size = usize::try_from(size).ok().filter(|size| *size <= text.len())?;
        body.extend_from_slice(&text[..size]);
        text = text[size..].strip_prefix(b"\r\n")?;
    }
    loop {
        let (trailer, rest) = line(text)?;
        text = rest;
        if trailer.is_empty() {
            return Some((body, text));
        }
    }
}

fuzz_target!(|input: (&[u8], u8, bool)| {
    let (bytes, step, chunked) = input;
    let mut text = Vec::new();
    if chunked {
        text.extend_from_slice(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
    }
    let head = text.len();
    text.extend_from_slice(bytes);
    let whole = read(std::iter::once(text.as_slice()));
    assert_eq!(read(text.chunks(usize::from(step).max(1))), whole);
    let Ok(Some(whole)) = whole else { return };
    match whole.framing {
        Framing::Length(length) => assert!(whole.body.len() as u64 <= length),
        Framing::UntilClose => assert!(whole.end == Ok(false)),
        Framing::Chunked(Chunk::Size) if chunked && whole.end == Ok(true) => {
            assert_eq!(dechunked(&text[head..]), Some((whole.body, whole.behind.as_slice())));
        }
        Framing::Chunked(_) => {}
    }
});
