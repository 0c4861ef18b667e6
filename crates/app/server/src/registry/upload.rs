//! Uploading blobs: in one request, in chunks, or by mounting one from another repository.

use super::Visit;
use super::answer::{Answer, BodyError, Refusal};
use super::route::{Method, parameter};
use bytes::Bytes;
use http::header;
use http_body_util::BodyExt as _;
use isolarium_model::Sha256Digest;
use isolarium_model::ecr::is_repository_name;
use isolarium_services::ecr::{RegistryError, upload_owner};
use isolarium_store::blobs::Upload;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Chunks that may wait for the disk before the network has to.
const QUEUE: usize = 16;

/// POST: mounts, takes a whole blob, or begins an upload.
pub(super) async fn begin<B>(visit: &Visit, repository: &str, body: B) -> Result<Answer, Refusal>
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BodyError>,
{
    let name = repository.to_owned();
    visit.registry(repository, move |shelf| shelf.repository(&name)).await?;
    if let Some(answer) = mount(visit, repository).await? {
        return Ok(answer);
    }
    let id = isolarium_model::time::uuid(visit.distribution.ids.as_ref());
    let (owner, upload_id) = (upload_owner(&visit.scope, repository), id.clone());
    let upload = visit
        .registry(repository, move |shelf| {
            Ok(shelf.registry.blobs.begin(&upload_id, &owner, shelf.now)?)
        })
        .await?;
    match parameter(&visit.head, "digest") {
        Some(digest) => {
            receive(visit, &upload, body).await?;
            finish(visit, repository, &id, &digest).await
        }
        None => Ok(progress(repository, &id, 0)),
    }
}

/// Takes a blob over from another repository of the registry. Whoever asks may read it there: that was a question.
async fn mount(visit: &Visit, repository: &str) -> Result<Option<Answer>, Refusal> {
    let digest = parameter(&visit.head, "mount").and_then(|digest| digest.parse::<Sha256Digest>().ok());
    let from = parameter(&visit.head, "from").filter(|from| is_repository_name(from));
    let Some((digest, from)) = digest.zip(from) else {
        return Ok(None);
    };
    let (name, wanted) = (repository.to_owned(), digest.clone());
    let mounted = visit
        .registry(repository, move |shelf| {
            let Some(layer) = shelf.layer(&from, &wanted)? else {
                return Ok::<_, RegistryError>(false);
            };
            shelf.add_layer(&name, &wanted, layer.size)?;
            Ok(true)
        })
        .await?;
    Ok(mounted.then(|| stored(repository, &digest)))
}

/// GET, PATCH, PUT, DELETE of an upload.
pub(super) async fn go_on<B>(visit: &Visit, repository: &str, id: &str, body: B) -> Result<Answer, Refusal>
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BodyError>,
{
    let owner = upload_owner(&visit.scope, repository);
    let blobs = &visit.distribution.registry.blobs;
    let upload = blobs.upload(id, &owner).map_err(Refusal::upload)?;
    match Method::of(&visit.head) {
        Method::Read => Ok(Answer::empty(204)
            .with(header::RANGE, range(upload.size()))
            .with(header::LOCATION, place(repository, id))),
        Method::Delete => {
            blobs.cancel(id, &owner).map_err(Refusal::upload)?;
            Ok(Answer::empty(204))
        }
        Method::Patch => {
            check_range(visit, &upload)?;
            let size = receive(visit, &upload, body).await?;
            Ok(progress(repository, id, size))
        }
        Method::Put => {
            let digest = parameter(&visit.head, "digest").ok_or_else(|| Refusal::bad_digest(""))?;
            check_range(visit, &upload)?;
            receive(visit, &upload, body).await?;
            finish(visit, repository, id, &digest).await
        }
        Method::Post | Method::Other => Err(Refusal::unsupported()),
    }
}

/// A chunk that says where it begins must begin at the upload's end.
fn check_range(visit: &Visit, upload: &Upload) -> Result<(), Refusal> {
    let Some(text) = visit
        .head
        .headers
        .get(header::CONTENT_RANGE)
        .and_then(|value| value.to_str().ok())
    else {
        return Ok(());
    };
    let text = text.strip_prefix("bytes ").unwrap_or(text);
    let first = text
        .split(['-', '/'])
        .next()
        .and_then(|first| first.trim().parse::<u64>().ok());
    let at = upload.size();
    if first == Some(at) {
        Ok(())
    } else {
        Err(Refusal::upload(isolarium_store::BlobError::Gap { at }))
    }
}

/// Writes the body to the upload as it arrives; the disk holds the network back, memory holds a few chunks.
async fn receive<B>(visit: &Visit, upload: &Arc<Upload>, mut body: B) -> Result<u64, Refusal>
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BodyError>,
{
    let (chunks, mut queue) = mpsc::channel::<Bytes>(QUEUE);
    let (target, now) = (Arc::clone(upload), visit.now);
    let writer = tokio::task::spawn_blocking(move || {
        while let Some(chunk) = queue.blocking_recv() {
            target.append(None, &chunk, now)?;
        }
        Ok::<_, isolarium_store::BlobError>(target.size())
    });
    let mut broken = None;
    while let Some(frame) = body.frame().await {
        match frame.map(http_body::Frame::into_data) {
            Ok(Ok(chunk)) => {
                if chunks.send(chunk).await.is_err() {
                    break; // the writer stops only by an error of its own, which it tells below
                }
            }
            Ok(Err(_)) => {} // trailers
            Err(error) => {
                broken = Some(error.into());
                break;
            }
        }
    }
    drop(chunks);
    let written = writer
        .await
        .map_err(|error| Refusal::internal(&error))?
        .map_err(Refusal::upload)?;
    match broken {
        Some(error) => Err(Refusal::bad_body(&error)),
        None => Ok(written),
    }
}

async fn finish(visit: &Visit, repository: &str, id: &str, digest: &str) -> Result<Answer, Refusal> {
    let digest: Sha256Digest = digest.parse().map_err(|_| Refusal::bad_digest(digest))?;
    let (name, id, wanted) = (repository.to_owned(), id.to_owned(), digest.clone());
    visit
        .registry(repository, move |shelf| {
            let size = shelf
                .registry
                .blobs
                .commit(&id, &upload_owner(shelf.scope, &name), &wanted)?;
            shelf.add_layer(&name, &wanted, size)
        })
        .await?;
    Ok(stored(repository, &digest))
}

fn place(repository: &str, id: &str) -> String {
    format!("/v2/{repository}/blobs/uploads/{id}")
}

fn range(size: u64) -> String {
    format!("0-{}", size.saturating_sub(1))
}

fn progress(repository: &str, id: &str, size: u64) -> Answer {
    Answer::empty(202)
        .with(header::LOCATION, place(repository, id))
        .with(header::RANGE, range(size))
        .with(header::HeaderName::from_static("docker-upload-uuid"), id)
}

fn stored(repository: &str, digest: &Sha256Digest) -> Answer {
    let place = format!("/v2/{repository}/blobs/{digest}");
    Answer::empty(201).with(header::LOCATION, place).with_digest(digest)
}
