//! Reading blobs, whole or in part.

use super::Visit;
use super::answer::{Answer, Refusal};
use super::route::Method;
use crate::http::body;
use bytes::{Bytes, BytesMut};
use http::header;
use http_body::Frame;
use http_body_util::StreamBody;
use isolarium_model::Sha256Digest;
use isolarium_services::ecr::RegistryError;
use std::fs::File;
use std::io;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};

/// Bytes read at once.
const CHUNK: usize = 256 << 10;

pub(super) async fn read(visit: &Visit, repository: &str, digest: &Sha256Digest) -> Result<Answer, Refusal> {
    if Method::of(&visit.head) != Method::Read {
        return Err(Refusal::unsupported());
    }
    let (name, wanted) = (repository.to_owned(), digest.clone());
    let found = visit
        .registry(repository, move |shelf| {
            shelf.repository(&name)?;
            match shelf.layer(&name, &wanted)? {
                Some(_) => Ok::<_, RegistryError>(shelf.registry.blobs.get(&wanted)?),
                None => Ok(None),
            }
        })
        .await?;
    let (file, size) = found.ok_or_else(Refusal::blob_unknown)?;
    let kind = |answer: Answer| {
        answer
            .with(header::CONTENT_TYPE, "application/octet-stream")
            .with(header::ACCEPT_RANGES, "bytes")
            .with(header::ETAG, format!("\"{digest}\""))
            .with_digest(digest)
    };
    let range = visit
        .head
        .headers
        .get(header::RANGE)
        .and_then(|value| value.to_str().ok());
    match range.map_or(Range::Whole, |text| Range::parse(text, size)) {
        Range::Whole => Ok(kind(Answer::stream(200, size, part(file, 0, size)))),
        Range::Part { first, last } => {
            let length = last - first + 1;
            let answer = kind(Answer::stream(206, length, part(file, first, length)));
            Ok(answer.with(header::CONTENT_RANGE, format!("bytes {first}-{last}/{size}")))
        }
        Range::Beyond => Err(Refusal::new(416, "RANGE_INVALID", "The range lies behind the blob.")
            .with(header::CONTENT_RANGE, format!("bytes */{size}"))),
    }
}

/// A `Range` header held against a blob's size.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Range {
    Whole,
    Part { first: u64, last: u64 },
    Beyond,
}

impl Range {
    /// Several ranges and malformed ones count as none, as HTTP allows.
    pub(super) fn parse(text: &str, size: u64) -> Self {
        let Some((first, last)) = text.strip_prefix("bytes=").and_then(|text| text.split_once('-')) else {
            return Self::Whole;
        };
        match (first.trim().parse::<u64>(), last.trim().parse::<u64>()) {
            (Ok(first), _) if first >= size => Self::Beyond,
            (Ok(first), Ok(last)) if last >= first => Self::Part {
                first,
                last: last.min(size - 1),
            },
            (Ok(first), Err(_)) if last.trim().is_empty() => Self::Part { first, last: size - 1 },
            (Err(_), Ok(0)) if first.trim().is_empty() => Self::Beyond,
            (Err(_), Ok(tail)) if first.trim().is_empty() && size > 0 => Self::Part {
                first: size.saturating_sub(tail),
                last: size - 1,
            },
            _ => Self::Whole,
        }
    }
}

/// Streams a part of a file.
fn part(file: File, first: u64, length: u64) -> crate::http::Body {
    let state = (tokio::fs::File::from_std(file), Some(first), length);
    let frames = futures_util::stream::try_unfold(state, |(mut file, seek, left)| async move {
        if let Some(first) = seek.filter(|first| *first > 0) {
            file.seek(io::SeekFrom::Start(first)).await?;
        }
        if left == 0 {
            return Ok(None);
        }
        let wanted = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        let mut chunk = BytesMut::with_capacity(wanted);
        let got = (&mut file).take(left).read_buf(&mut chunk).await?;
        if got == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        let left = left.saturating_sub(u64::try_from(got).unwrap_or(u64::MAX));
        Ok(Some((Frame::<Bytes>::data(chunk.freeze()), (file, None, left))))
    });
    body::stream(StreamBody::new(frames))
}
