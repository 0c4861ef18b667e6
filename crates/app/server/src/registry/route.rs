//! Which resource a path means, and which ECR actions a request to it is.

use super::answer::Refusal;
use http::request::Parts;
use isolarium_model::ecr::{ImageVersion, Repository, is_repository_name, is_tag};
use isolarium_model::{Scope, Sha256Digest};
use isolarium_policy::Question;

/// A resource of the distribution API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Root,
    Tags { repository: String },
    Manifest { repository: String, version: ImageVersion },
    Blob { repository: String, digest: Sha256Digest },
    Uploads { repository: String },
    Upload { repository: String, id: String },
}

/// The methods in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    /// GET and HEAD.
    Read,
    Post,
    Patch,
    Put,
    Delete,
    Other,
}

impl Method {
    pub(super) fn of(head: &Parts) -> Self {
        match head.method.as_str() {
            "GET" | "HEAD" => Self::Read,
            "POST" => Self::Post,
            "PATCH" => Self::Patch,
            "PUT" => Self::Put,
            "DELETE" => Self::Delete,
            _ => Self::Other,
        }
    }
}

impl Route {
    /// Reads a path.
    pub(super) fn parse(head: &Parts) -> Result<Self, Refusal> {
        let path = head.uri.path().strip_prefix("/v2").ok_or_else(Refusal::unknown_path)?;
        if path.is_empty() || path == "/" {
            return Ok(Self::Root);
        }
        let path = decode(path.strip_prefix('/').ok_or_else(Refusal::unknown_path)?);
        if path.starts_with("_catalog") {
            return Err(Refusal::unsupported());
        }
        if let Some(name) = path.strip_suffix("/tags/list") {
            return Ok(Self::Tags {
                repository: repository(name)?,
            });
        }
        if let Some((name, reference)) = path.rsplit_once("/manifests/") {
            let version = match reference.parse() {
                Ok(digest) => ImageVersion::Digest(digest),
                Err(_) if is_tag(reference) => ImageVersion::Tag(reference.into()),
                Err(_) => return Err(Refusal::bad_reference(reference)),
            };
            return Ok(Self::Manifest {
                repository: repository(name)?,
                version,
            });
        }
        if let Some((name, id)) = path.rsplit_once("/blobs/uploads") {
            let repository = repository(name)?;
            return Ok(match id.strip_prefix('/').unwrap_or(id) {
                "" => Self::Uploads { repository },
                id => Self::Upload {
                    repository,
                    id: id.into(),
                },
            });
        }
        if let Some((name, digest)) = path.rsplit_once("/blobs/") {
            let digest = digest.parse().map_err(|_| Refusal::bad_digest(digest))?;
            return Ok(Self::Blob {
                repository: repository(name)?,
                digest,
            });
        }
        Err(Refusal::unknown_path())
    }

    /// The ECR actions that a request is. Methods a resource does not have are refused here.
    pub(super) fn questions(&self, scope: &Scope, head: &Parts) -> Result<Vec<Question>, Refusal> {
        let on = |name: &str, actions: &[&str]| -> Vec<Question> {
            let arn = Repository::arn(scope, name);
            actions.iter().map(|action| Question::on(action, &arn)).collect()
        };
        let check = head.method == http::Method::HEAD;
        match (self, Method::of(head)) {
            (Self::Root, Method::Read) => Ok(vec![Question::any("ecr:GetAuthorizationToken")]),
            (Self::Tags { repository }, Method::Read) => Ok(on(repository, &["ecr:ListImages"])),
            (Self::Manifest { repository, .. }, Method::Read) => Ok(on(repository, &["ecr:BatchGetImage"])),
            (Self::Manifest { repository, .. }, Method::Put) => Ok(on(repository, &["ecr:PutImage"])),
            (Self::Manifest { repository, .. }, Method::Delete) => Ok(on(repository, &["ecr:BatchDeleteImage"])),
            (Self::Blob { repository, .. }, Method::Read) if check => {
                Ok(on(repository, &["ecr:BatchCheckLayerAvailability"]))
            }
            (Self::Blob { repository, .. }, Method::Read) => Ok(on(repository, &["ecr:GetDownloadUrlForLayer"])),
            (Self::Uploads { repository }, Method::Post) => {
                let mut questions = on(repository, &["ecr:InitiateLayerUpload"]);
                if let Some(from) = parameter(head, "from").filter(|from| is_repository_name(from)) {
                    // A mount reads the other repository's layer.
                    questions.extend(on(
                        &from,
                        &["ecr:BatchCheckLayerAvailability", "ecr:GetDownloadUrlForLayer"],
                    ));
                }
                if parameter(head, "digest").is_some() {
                    questions.extend(on(repository, &["ecr:UploadLayerPart", "ecr:CompleteLayerUpload"]));
                }
                Ok(questions)
            }
            (Self::Upload { repository, .. }, Method::Read | Method::Patch | Method::Delete) => {
                Ok(on(repository, &["ecr:UploadLayerPart"]))
            }
            (Self::Upload { repository, .. }, Method::Put) => {
                Ok(on(repository, &["ecr:UploadLayerPart", "ecr:CompleteLayerUpload"]))
            }
            _ => Err(Refusal::unsupported()),
        }
    }
}

fn repository(name: &str) -> Result<String, Refusal> {
    if is_repository_name(name) {
        Ok(name.into())
    } else {
        Err(Refusal::bad_name(name))
    }
}

/// The first query parameter of that name, decoded.
pub(super) fn parameter(head: &Parts, name: &str) -> Option<String> {
    let mut pairs = head
        .uri
        .query()?
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| decode(value))
}

/// Resolves percent escapes; what is no escape stays.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digit = |at: usize| {
            after
                .get(at)
                .and_then(|b| char::from(*b).to_digit(16))
                .and_then(|d| u8::try_from(d).ok())
        };
        match (first, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push(high * 16 + low);
                rest = after.get(2..).unwrap_or(&[]);
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
