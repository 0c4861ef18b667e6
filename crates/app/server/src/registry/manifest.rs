//! Manifests and tags.

use super::Visit;
use super::answer::{Answer, BodyError, Refusal};
use super::route::{Method, parameter};
use bytes::Bytes;
use http::header;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use isolarium_model::ecr::ImageVersion;
use isolarium_services::ecr::manifest::MANIFEST_BYTES;
use isolarium_services::ecr::{Push, RegistryError};
use serde_json::json;

/// Most tags in one page.
const TAGS: usize = 1000;

pub(super) async fn serve<B>(visit: &Visit, repository: &str, version: ImageVersion, body: B) -> Result<Answer, Refusal>
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BodyError>,
{
    let name = repository.to_owned();
    match Method::of(&visit.head) {
        Method::Put => put(visit, repository, version, body).await,
        Method::Delete => {
            visit
                .registry(repository, move |shelf| shelf.delete_image(&name, &version))
                .await?;
            Ok(Answer::empty(202))
        }
        _ => {
            let find = move |shelf: &isolarium_services::ecr::Shelf<'_>| {
                shelf.repository(&name)?;
                shelf.image(&name, &version)
            };
            let image = visit.registry(repository, find).await?;
            Ok(Answer::text(200, &image.media_type, image.manifest).with_digest(&image.digest))
        }
    }
}

async fn put<B>(visit: &Visit, repository: &str, version: ImageVersion, body: B) -> Result<Answer, Refusal>
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BodyError>,
{
    let text = match Limited::new(body, MANIFEST_BYTES).collect().await {
        Ok(collected) => collected.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => {
            return Err(Refusal::new(413, "SIZE_INVALID", "A manifest has at most 4 MiB."));
        }
        Err(error) => return Err(Refusal::bad_body(&error)),
    };
    let media_type = visit
        .head
        .headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let media_type = media_type.map(|text| text.split(';').next().unwrap_or(text).trim().to_owned());
    let name = repository.to_owned();
    let pushed = visit
        .registry(repository, move |shelf| {
            let (tag, digest) = match &version {
                ImageVersion::Tag(tag) => (Some(tag.as_str()), None),
                ImageVersion::Digest(digest) => (None, Some(digest)),
            };
            shelf.push(
                &name,
                &Push {
                    text: &text,
                    media_type: media_type.as_deref(),
                    tag,
                    digest,
                },
            )
        })
        .await?;
    let place = format!("/v2/{repository}/manifests/{}", pushed.digest);
    Ok(Answer::empty(201)
        .with(header::LOCATION, place)
        .with_digest(&pushed.digest))
}

pub(super) async fn tags(visit: &Visit, repository: &str) -> Result<Answer, Refusal> {
    let name = repository.to_owned();
    let all = visit
        .registry(repository, move |shelf| {
            shelf.repository(&name)?;
            Ok::<_, RegistryError>(
                shelf
                    .tags(&name)?
                    .into_iter()
                    .map(|tag| tag.record.tag)
                    .collect::<Vec<_>>(),
            )
        })
        .await?;
    let size = parameter(&visit.head, "n")
        .and_then(|n| n.parse().ok())
        .filter(|n| *n > 0)
        .unwrap_or(TAGS)
        .min(TAGS);
    let last = parameter(&visit.head, "last").unwrap_or_default();
    let mut left = all.into_iter().filter(|tag| *tag > last).peekable();
    let tags: Vec<String> = left.by_ref().take(size).collect();
    let next = left
        .peek()
        .and(tags.last())
        .map(|last| format!("</v2/{repository}/tags/list?n={size}&last={last}>; rel=\"next\""));
    let answer = Answer::json(200, &json!({"name": repository, "tags": tags}));
    Ok(match next {
        Some(next) => answer.with(header::LINK, next),
        None => answer,
    })
}
