//! Answers of containers as HTTP/1.1 writes them (RFC 9112), read from bytes alone. Containers are not trusted:
//! whatever is not plainly correct is malformed, and what their answers may hold in memory is bounded.

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderValue;
use http::StatusCode;

#[cfg(test)]
mod tests;

/// Longest head, bytes.
pub(super) const HEAD_LIMIT: usize = 64 << 10;
/// Most header fields.
const FIELDS: usize = 100;
/// Longest line in front of a chunk, and all trailers of an answer together, bytes.
const LINE_LIMIT: usize = 4 << 10;

/// An answer that is no HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the answer is no HTTP/1.1: {0}")]
pub(super) struct Malformed(&'static str);

/// The part of an answer's head that the contract passes on (CC-52), and how its body is framed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub status: StatusCode,
    pub content_type: Option<HeaderValue>,
    pub attributes: Option<HeaderValue>,
    pub framing: Framing,
    /// The connection may carry another request afterwards.
    pub keeps: bool,
}

/// Where an answer's body ends, and how far it has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// So many bytes are to come.
    Length(u64),
    Chunked(Chunk),
    /// With the connection.
    UntilClose,
}

/// Where in a chunked body the next byte lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chunk {
    /// In the line with a chunk's size.
    Size,
    /// In a chunk that has so many bytes left.
    Data(u64),
    /// In the line end after a chunk.
    DataEnd,
    /// In the trailers, of which so many bytes may come.
    Trailer(usize),
    /// Behind the body.
    End,
}

/// What the bytes at hand are of a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// Never empty.
    Data(Bytes),
    /// Incomplete: more bytes are needed.
    More,
    End,
}

/// Takes the head from the front of `bytes`; `None` while it is incomplete. `looked` is how far earlier calls for this
/// answer have looked, 0 at first. Interim answers (1xx) are passed over.
///
/// # Errors
/// When it is malformed.
pub(super) fn head(bytes: &mut BytesMut, looked: &mut usize) -> Result<Option<Head>, Malformed> {
    loop {
        let Some(end) = end_of_head(bytes, *looked) else {
            *looked = bytes.len();
            return if bytes.len() > HEAD_LIMIT {
                Err(Malformed("the head is too long"))
            } else {
                Ok(None)
            };
        };
        if end > HEAD_LIMIT {
            return Err(Malformed("the head is too long"));
        }
        let head = parse(bytes.get(..end).unwrap_or_default())?;
        bytes.advance(end);
        *looked = 0;
        match head.status {
            StatusCode::SWITCHING_PROTOCOLS => return Err(Malformed("it changes the protocol unasked")),
            interim if interim.is_informational() => {}
            _ => return Ok(Some(head)),
        }
    }
}

/// Length of the head including its empty line. Every byte is looked at once, however slowly they come.
fn end_of_head(bytes: &[u8], looked: usize) -> Option<usize> {
    // An empty line that began before is found again: it has at most three bytes in front of its last one.
    let from = looked.saturating_sub(3);
    let fresh = bytes.get(from..).unwrap_or_default();
    let at = fresh.windows(4).position(|four| four == b"\r\n\r\n")?;
    Some(from + at + 4)
}

fn parse(bytes: &[u8]) -> Result<Head, Malformed> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
        // The parser takes a bare LF for a line end too: two of them would end the head before it ends.
        Ok(_) => return Err(Malformed("its head does not end where it should")),
        Err(_) => return Err(Malformed("its head cannot be read")),
    }
    let status = response.code.and_then(|code| StatusCode::from_u16(code).ok());
    let status = status.ok_or(Malformed("it has no status"))?;
    let newest = response.version == Some(1);
    let (mut content_type, mut attributes) = (None, None);
    let (mut length, mut coded, mut chunked) = (None::<u64>, false, false);
    let (mut close, mut keep_alive) = (false, false);
    for field in response.headers.iter() {
        let named = |name: &str| field.name.eq_ignore_ascii_case(name);
        if named("content-length") {
            let value = number(field.value).ok_or(Malformed("its length is no number"))?;
            if length.replace(value).is_some_and(|before| before != value) {
                return Err(Malformed("it has two lengths"));
            }
        } else if named("transfer-encoding") {
            coded = true;
            chunked = words(field.value).last().is_some_and(|last| last == "chunked");
        } else if named("connection") {
            close |= words(field.value).any(|word| word == "close");
            keep_alive |= words(field.value).any(|word| word == "keep-alive");
        } else if named("content-type") && content_type.is_none() {
            content_type = HeaderValue::from_bytes(field.value).ok();
        } else if named(super::CUSTOM_ATTRIBUTES.as_str()) && attributes.is_none() {
            attributes = HeaderValue::from_bytes(field.value).ok();
        }
    }
    let empty = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let framing = match length {
        _ if empty => Framing::Length(0),
        _ if chunked => Framing::Chunked(Chunk::Size),
        Some(length) if !coded => Framing::Length(length),
        _ => Framing::UntilClose,
    };
    Ok(Head {
        status,
        content_type,
        attributes,
        framing,
        // Two statements about the end of the body: whoever wrote them may mean either.
        keeps: !close && (newest || keep_alive) && !(coded && (length.is_some() || !newest)),
    })
}

/// Decimal digits alone.
fn number(value: &[u8]) -> Option<u64> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(value)
        .ok()
        .filter(|_| digits)
        .and_then(|text| text.parse().ok())
}

/// The words of a list, lower-cased.
fn words(value: &[u8]) -> impl Iterator<Item = String> {
    let text = value.to_ascii_lowercase();
    let words: Vec<String> = text
        .split(|byte| *byte == b',')
        .map(|word| String::from_utf8_lossy(word.trim_ascii()).into_owned())
        .collect();
    words.into_iter()
}

impl Framing {
    /// Whether the whole body has been read.
    pub fn is_at_end(self) -> bool {
        matches!(self, Self::Length(0) | Self::Chunked(Chunk::End))
    }

    /// Bytes that are known to come at once, to make room for them.
    pub fn expected(self) -> usize {
        match self {
            Self::Length(left) | Self::Chunked(Chunk::Data(left)) => usize::try_from(left).unwrap_or(usize::MAX),
            Self::Chunked(_) | Self::UntilClose => 0,
        }
    }

    /// Takes the next piece of the body from the front of `bytes`.
    ///
    /// # Errors
    /// When the chunks are malformed.
    pub fn next(&mut self, bytes: &mut BytesMut) -> Result<Piece, Malformed> {
        match self {
            Self::Length(left) => Ok(take(bytes, left)),
            Self::UntilClose if bytes.is_empty() => Ok(Piece::More),
            Self::UntilClose => Ok(Piece::Data(bytes.split().freeze())),
            Self::Chunked(chunk) => chunk.next(bytes),
        }
    }
}

/// At most `left` bytes.
fn take(bytes: &mut BytesMut, left: &mut u64) -> Piece {
    if *left == 0 {
        return Piece::End;
    }
    if bytes.is_empty() {
        return Piece::More;
    }
    let length = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
    *left = left.saturating_sub(length as u64);
    Piece::Data(bytes.split_to(length).freeze())
}

impl Chunk {
    fn next(&mut self, bytes: &mut BytesMut) -> Result<Piece, Malformed> {
        loop {
            match self {
                Self::Size => {
                    let Some(line) = line(bytes)? else {
                        return Ok(Piece::More);
                    };
                    *self = match size(&line)? {
                        0 => Self::Trailer(LINE_LIMIT),
                        size => Self::Data(size),
                    };
                }
                Self::Data(left) => match take(bytes, left) {
                    Piece::End => *self = Self::DataEnd,
                    piece => return Ok(piece),
                },
                Self::DataEnd => {
                    let Some(line) = line(bytes)? else {
                        return Ok(Piece::More);
                    };
                    if !line.is_empty() {
                        return Err(Malformed("a chunk is longer than it says"));
                    }
                    *self = Self::Size;
                }
                // Nobody asked for trailers: they are read and dropped.
                Self::Trailer(left) => {
                    let Some(line) = line(bytes)? else {
                        return Ok(Piece::More);
                    };
                    *self = if line.is_empty() {
                        Self::End
                    } else {
                        let left = left.checked_sub(line.len());
                        Self::Trailer(left.ok_or(Malformed("its trailers are too long"))?)
                    };
                }
                Self::End => return Ok(Piece::End),
            }
        }
    }
}

/// A line without its end; `None` while it is incomplete.
fn line(bytes: &mut BytesMut) -> Result<Option<Bytes>, Malformed> {
    let near = bytes.get(..bytes.len().min(LINE_LIMIT)).unwrap_or_default();
    let Some(at) = near.iter().position(|byte| *byte == b'\n') else {
        return if bytes.len() >= LINE_LIMIT {
            Err(Malformed("a line between chunks is too long"))
        } else {
            Ok(None)
        };
    };
    let mut line = bytes.split_to(at + 1).freeze();
    match line.strip_suffix(b"\r\n") {
        Some(text) => {
            line.truncate(text.len());
            Ok(Some(line))
        }
        None => Err(Malformed("a line between chunks does not end in CR LF")),
    }
}

/// Hexadecimal digits, and extensions that nobody asked for.
fn size(line: &[u8]) -> Result<u64, Malformed> {
    let bad = Malformed("the size of a chunk is no number");
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (number, rest) = line.split_at_checked(digits).ok_or(bad)?;
    if !matches!(rest.trim_ascii_start().first(), None | Some(b';')) {
        return Err(bad);
    }
    std::str::from_utf8(number)
        .ok()
        .and_then(|text| u64::from_str_radix(text, 16).ok())
        .ok_or(bad)
}
