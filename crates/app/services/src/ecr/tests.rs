use super::fixture::{Fixture, START, refusal, root, scope};
use super::manifest::{DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST};
use super::resolve::pull_questions;
use super::shapes::*;
use super::*;
use crate::context::Session;
use isolarium_model::{Sha256Digest, Timestamp};
use isolarium_wire::Document;
use serde_json::json;

const REPOSITORY: &str = "team/app";

fn call<I: Into<Document>, O>(fixture: &Fixture, operation: &str, input: I) -> Result<O, ApiError>
where
    O: TryFrom<Document>,
    O::Error: std::fmt::Debug,
{
    fixture.call("ecr", operation, input)
}

fn create(fixture: &Fixture, name: &str, mutability: ImageTagMutability) -> Result<CreateRepositoryResponse, ApiError> {
    let request = CreateRepositoryRequest {
        repository_name: name.into(),
        image_tag_mutability: Some(mutability),
        ..Default::default()
    };
    call(fixture, "CreateRepository", request)
}

/// Uploads a blob in two parts by the layer API.
fn upload(fixture: &Fixture, repository: &str, bytes: &[u8]) -> Sha256Digest {
    let digest = isolarium_store::blobs::digest(bytes);
    let begin = InitiateLayerUploadRequest {
        repository_name: repository.into(),
        ..Default::default()
    };
    let begun: InitiateLayerUploadResponse = call(fixture, "InitiateLayerUpload", begin).unwrap();
    let upload_id = begun.upload_id.unwrap();
    let half = bytes.len() / 2;
    for (first, part) in [(0, &bytes[..half]), (half, &bytes[half..])] {
        let part = UploadLayerPartRequest {
            registry_id: None,
            repository_name: repository.into(),
            upload_id: upload_id.clone(),
            part_first_byte: i64::try_from(first).unwrap(),
            part_last_byte: i64::try_from(first + part.len()).unwrap() - 1,
            layer_part_blob: part.to_vec(),
        };
        call::<_, UploadLayerPartResponse>(fixture, "UploadLayerPart", part).unwrap();
    }
    let end = CompleteLayerUploadRequest {
        registry_id: None,
        repository_name: repository.into(),
        upload_id,
        layer_digests: vec![digest.to_string()],
    };
    let done: CompleteLayerUploadResponse = call(fixture, "CompleteLayerUpload", end).unwrap();
    assert_eq!(done.layer_digest, Some(digest.to_string()));
    digest
}

/// Uploads configuration and layer of a small image; its manifest's text.
fn image(fixture: &Fixture, repository: &str, architecture: &str, mark: &str) -> String {
    let layer = format!("layer {mark}").into_bytes();
    let config = json!({
        "architecture": architecture, "os": "linux",
        "config": {"Entrypoint": ["/train"], "Env": ["A=1"], "Cmd": null, "User": "1000:1000"},
        "rootfs": {"type": "layers", "diff_ids": [isolarium_store::blobs::digest(mark.as_bytes()).to_string()]},
    })
    .to_string()
    .into_bytes();
    let (config_digest, layer_digest) = (
        upload(fixture, repository, &config),
        upload(fixture, repository, &layer),
    );
    json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config_digest, "size": config.len()},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer_digest, "size": layer.len()}],
    })
    .to_string()
}

fn put(fixture: &Fixture, manifest: &str, tag: Option<&str>) -> Result<PutImageResponse, ApiError> {
    let request = PutImageRequest {
        repository_name: REPOSITORY.into(),
        image_manifest: manifest.into(),
        image_tag: tag.map(Into::into),
        ..Default::default()
    };
    call(fixture, "PutImage", request)
}

fn tagged(tag: &str) -> ImageIdentifier {
    ImageIdentifier {
        image_tag: Some(tag.into()),
        ..Default::default()
    }
}

fn made(mutability: ImageTagMutability) -> Fixture {
    let fixture = Fixture::new();
    create(&fixture, REPOSITORY, mutability).unwrap();
    fixture
}

/// Proves: IAM-67
#[test]
fn repositories_are_made_once_described_tagged_and_deleted_only_when_empty_or_forced() {
    let fixture = Fixture::new();
    let made = create(&fixture, REPOSITORY, ImageTagMutability::Mutable)
        .unwrap()
        .repository
        .unwrap();
    assert_eq!(
        made.repository_uri.as_deref(),
        Some("123456789012.dkr.ecr.us-east-1.amazonaws.com/team/app")
    );
    assert_eq!(
        made.repository_arn.as_deref(),
        Some("arn:aws:ecr:us-east-1:123456789012:repository/team/app")
    );
    let again = refusal(create(&fixture, REPOSITORY, ImageTagMutability::Mutable));
    assert_eq!(again.0, "RepositoryAlreadyExistsException");
    assert_eq!(
        refusal(create(&fixture, "Bad Name", ImageTagMutability::Mutable)).0,
        "InvalidParameterException"
    );
    for n in 0..3 {
        create(&fixture, &format!("zz{n}"), ImageTagMutability::Mutable).unwrap();
    }
    let (mut names, mut next_token) = (Vec::new(), None);
    loop {
        let request = DescribeRepositoriesRequest {
            max_results: Some(3),
            next_token,
            ..Default::default()
        };
        let page: DescribeRepositoriesResponse = call(&fixture, "DescribeRepositories", request).unwrap();
        names.extend(
            page.repositories
                .unwrap()
                .into_iter()
                .map(|r| r.repository_name.unwrap()),
        );
        next_token = page.next_token;
        if next_token.is_none() {
            break;
        }
    }
    assert_eq!(names, [REPOSITORY, "zz0", "zz1", "zz2"]);
    let missing = DescribeRepositoriesRequest {
        repository_names: Some(vec!["none".into()]),
        ..Default::default()
    };
    assert_eq!(
        refusal(call::<_, DescribeRepositoriesResponse>(
            &fixture,
            "DescribeRepositories",
            missing
        )),
        (
            "RepositoryNotFoundException".into(),
            "The repository with name 'none' does not exist in the registry with id '123456789012'".into()
        )
    );
    let resource_arn = made.repository_arn.unwrap();
    let tag = TagResourceRequest {
        resource_arn: resource_arn.clone(),
        tags: vec![Tag {
            key: "a".into(),
            value: "1".into(),
        }],
    };
    call::<_, TagResourceResponse>(&fixture, "TagResource", tag).unwrap();
    let list = || -> ListTagsForResourceResponse {
        call(
            &fixture,
            "ListTagsForResource",
            ListTagsForResourceRequest {
                resource_arn: resource_arn.clone(),
            },
        )
        .unwrap()
    };
    assert_eq!(list().tags.unwrap()[0].value, "1");
    let untag = UntagResourceRequest {
        resource_arn: resource_arn.clone(),
        tag_keys: vec!["a".into()],
    };
    call::<_, UntagResourceResponse>(&fixture, "UntagResource", untag).unwrap();
    assert!(list().tags.unwrap().is_empty());
    put(&fixture, &image(&fixture, REPOSITORY, "amd64", "x"), Some("v1")).unwrap();
    let delete = |force| {
        let request = DeleteRepositoryRequest {
            repository_name: REPOSITORY.into(),
            force,
            ..Default::default()
        };
        call::<_, DeleteRepositoryResponse>(&fixture, "DeleteRepository", request)
    };
    assert_eq!(refusal(delete(None)).0, "RepositoryNotEmptyException");
    delete(Some(true)).unwrap();
    assert_eq!(refusal(delete(Some(true))).0, "RepositoryNotFoundException");
    create(&fixture, REPOSITORY, ImageTagMutability::Mutable).unwrap();
    let images = ListImagesRequest {
        repository_name: REPOSITORY.into(),
        ..Default::default()
    };
    let listed: ListImagesResponse = call(&fixture, "ListImages", images).unwrap();
    assert!(
        listed.image_ids.unwrap().is_empty(),
        "nothing of the deleted repository comes back"
    );
}

/// Proves: IAM-67
#[test]
fn images_are_put_listed_described_fetched_and_deleted() {
    let fixture = made(ImageTagMutability::Mutable);
    let (one, two) = (
        image(&fixture, REPOSITORY, "amd64", "one"),
        image(&fixture, REPOSITORY, "amd64", "two"),
    );
    let first = put(&fixture, &one, Some("v1"))
        .unwrap()
        .image
        .unwrap()
        .image_id
        .unwrap()
        .image_digest
        .unwrap();
    assert_eq!(first, isolarium_store::blobs::digest(one.as_bytes()).to_string());
    assert_eq!(
        refusal(put(&fixture, &one, Some("v1"))).0,
        "ImageAlreadyExistsException"
    );
    put(&fixture, &one, Some("stable")).unwrap();
    put(&fixture, &two, Some("v1")).unwrap();
    let get = BatchGetImageRequest {
        repository_name: REPOSITORY.into(),
        image_ids: vec![
            tagged("v1"),
            tagged("none"),
            ImageIdentifier {
                image_digest: Some(first.clone()),
                image_tag: Some("v1".into()),
            },
            ImageIdentifier {
                image_digest: Some("nonsense".into()),
                ..Default::default()
            },
            ImageIdentifier::default(),
        ],
        ..Default::default()
    };
    let got: BatchGetImageResponse = call(&fixture, "BatchGetImage", get).unwrap();
    assert_eq!(got.images.unwrap()[0].image_manifest.as_deref(), Some(two.as_str()));
    let codes: Vec<_> = got
        .failures
        .unwrap()
        .into_iter()
        .map(|f| f.failure_code.unwrap())
        .collect();
    assert_eq!(
        codes,
        [
            ImageFailureCode::ImageNotFound,
            ImageFailureCode::ImageTagDoesNotMatchDigest,
            ImageFailureCode::InvalidImageDigest,
            ImageFailureCode::MissingDigestAndTag
        ]
    );
    let describe = DescribeImagesRequest {
        repository_name: REPOSITORY.into(),
        ..Default::default()
    };
    let described: DescribeImagesResponse = call(&fixture, "DescribeImages", describe).unwrap();
    let mut tags: Vec<_> = described
        .image_details
        .unwrap()
        .into_iter()
        .map(|d| d.image_tags.unwrap())
        .collect();
    tags.sort();
    assert_eq!(tags, [["stable"], ["v1"]]);
    let missing = DescribeImagesRequest {
        repository_name: REPOSITORY.into(),
        image_ids: Some(vec![tagged("none")]),
        ..Default::default()
    };
    assert_eq!(
        refusal(call::<_, DescribeImagesResponse>(&fixture, "DescribeImages", missing)).0,
        "ImageNotFoundException"
    );
    let delete = |id: ImageIdentifier| -> BatchDeleteImageResponse {
        let request = BatchDeleteImageRequest {
            registry_id: None,
            repository_name: REPOSITORY.into(),
            image_ids: vec![id],
        };
        call(&fixture, "BatchDeleteImage", request).unwrap()
    };
    assert_eq!(delete(tagged("stable")).image_ids.unwrap().len(), 1);
    let by_digest = ImageIdentifier {
        image_digest: Some(first),
        ..Default::default()
    };
    assert_eq!(
        delete(by_digest).failures.unwrap()[0].failure_code,
        Some(ImageFailureCode::ImageNotFound),
        "an image goes with its last tag"
    );
    let list = ListImagesRequest {
        repository_name: REPOSITORY.into(),
        ..Default::default()
    };
    let listed: ListImagesResponse = call(&fixture, "ListImages", list).unwrap();
    assert_eq!(listed.image_ids.unwrap().len(), 1, "control: the other image stays");
}

/// Proves: IAM-67
#[test]
fn a_manifest_is_refused_unless_everything_it_names_is_in_its_own_repository() {
    let fixture = made(ImageTagMutability::Immutable);
    create(&fixture, "other", ImageTagMutability::Mutable).unwrap();
    let foreign = image(&fixture, "other", "amd64", "elsewhere");
    assert_eq!(
        refusal(put(&fixture, &foreign, Some("v1"))).0,
        "LayersNotFoundException"
    );
    let own = image(&fixture, REPOSITORY, "amd64", "own");
    assert!(
        put(&fixture, &own, Some("v1")).is_ok(),
        "control: the same kind of image with its own layers"
    );
    let wrong_size = own.replace("\"size\":9", "\"size\":10");
    assert_ne!(own, wrong_size);
    assert_eq!(
        refusal(put(&fixture, &wrong_size, Some("v2"))).0,
        "LayersNotFoundException"
    );
    let next = image(&fixture, REPOSITORY, "amd64", "next");
    assert_eq!(
        refusal(put(&fixture, &next, Some("v1"))).0,
        "ImageTagAlreadyExistsException"
    );
    assert!(put(&fixture, &next, Some("v2")).is_ok(), "control: a new tag");
    for bad in ["", "[]", "{\"schemaVersion\":1}", "{\"schemaVersion\":2,\"config\":{}}"] {
        assert_eq!(
            refusal(put(&fixture, bad, None)).0,
            "InvalidParameterException",
            "{bad}"
        );
    }
    let many = json!({"schemaVersion": 2, "mediaType": DOCKER_MANIFEST,
        "config": {"digest": format!("sha256:{}", "0".repeat(64)), "size": 1},
        "layers": vec![json!({"digest": format!("sha256:{}", "0".repeat(64)), "size": 1}); 200]});
    assert_eq!(
        refusal(put(&fixture, &many.to_string(), None)).0,
        "InvalidParameterException"
    );
}

/// Proves: CC-1, CC-11
#[test]
fn a_reference_resolves_to_the_variant_of_the_hosts_architecture() {
    let fixture = made(ImageTagMutability::Mutable);
    let variants = ["amd64", "arm64"].map(|architecture| {
        let manifest = image(&fixture, REPOSITORY, architecture, architecture);
        put(&fixture, &manifest, None).unwrap();
        json!({"mediaType": OCI_MANIFEST, "digest": isolarium_store::blobs::digest(manifest.as_bytes()),
               "size": manifest.len(), "platform": {"os": "linux", "architecture": architecture}})
    });
    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": variants}).to_string();
    put(&fixture, &index, Some("latest")).unwrap();
    let base = "123456789012.dkr.ecr.us-east-1.amazonaws.com/team/app";
    let resolve =
        |reference: &str, architecture| resolve_image(&fixture.registry, &fixture.store, reference, architecture);
    let arm = resolve(base, "arm64").unwrap();
    assert_eq!(arm.digest, isolarium_store::blobs::digest(index.as_bytes()));
    assert_eq!(arm.manifest_digest.to_string(), variants[1]["digest"]);
    assert_eq!(arm.layers[0].diff_id, isolarium_store::blobs::digest(b"arm64"));
    assert_eq!(arm.layers[0].blob, isolarium_store::blobs::digest(b"layer arm64"));
    let run = arm.config.config.unwrap();
    assert_eq!(
        (run.entrypoint.unwrap(), run.cmd, run.user.unwrap()),
        (vec!["/train".to_owned()], None, "1000:1000".to_owned())
    );
    let by_digest = format!("{base}@{}", variants[0]["digest"].as_str().unwrap());
    assert!(resolve(&by_digest, "amd64").is_ok());
    assert!(matches!(
        resolve(&by_digest, "arm64"),
        Err(ResolveError::Architecture { .. })
    ));
    assert!(matches!(
        resolve(base, "riscv64"),
        Err(ResolveError::Architecture { .. })
    ));
    assert!(matches!(
        resolve(&format!("{base}:none"), "amd64"),
        Err(ResolveError::NoImage(_))
    ));
    assert!(matches!(
        resolve(&base.replace("team", "x"), "amd64"),
        Err(ResolveError::NoRepository(_))
    ));
    assert!(matches!(
        resolve("docker.io/library/busybox", "amd64"),
        Err(ResolveError::Reference(..))
    ));
    let asked: Vec<_> = pull_questions(base)
        .unwrap()
        .into_iter()
        .map(|q| (q.action, q.resource))
        .collect();
    let arn = "arn:aws:ecr:us-east-1:123456789012:repository/team/app".to_owned();
    assert_eq!(asked[0], ("ecr:GetAuthorizationToken".into(), "*".into()));
    assert!(asked[1..].iter().all(|(_, resource)| *resource == arn) && asked.len() == 4);
    let gone = BatchDeleteImageRequest {
        registry_id: None,
        repository_name: REPOSITORY.into(),
        image_ids: vec![ImageIdentifier {
            image_digest: variants[0]["digest"].as_str().map(Into::into),
            image_tag: None,
        }],
    };
    let answer: BatchDeleteImageResponse = call(&fixture, "BatchDeleteImage", gone).unwrap();
    assert_eq!(
        answer.failures.unwrap()[0].failure_code,
        Some(ImageFailureCode::ImageReferencedByManifestList)
    );
}

/// Proves: IAM-67
#[test]
fn a_token_speaks_for_its_caller_until_it_expires_and_cannot_be_altered() {
    let fixture = Fixture::new();
    let token: GetAuthorizationTokenResponse = call(
        &fixture,
        "GetAuthorizationToken",
        GetAuthorizationTokenRequest::default(),
    )
    .unwrap();
    let data = token.authorization_data.unwrap().remove(0);
    assert_eq!(data.expires_at, Some(START + 12 * 3_600_000));
    let text = base64::engine::general_purpose::STANDARD
        .decode(data.authorization_token.unwrap())
        .unwrap();
    let text = String::from_utf8(text).unwrap();
    let password = text.strip_prefix("AWS:").unwrap();
    let key = &fixture.registry.key;
    assert_eq!(
        key.bearer(password, Timestamp(START)).unwrap().principal,
        root("123456789012").principal
    );
    assert!(
        key.bearer(password, Timestamp(START + 12 * 3_600_000)).is_none(),
        "expired"
    );
    assert!(
        TokenKey::derive(&[8; 32]).bearer(password, Timestamp(START)).is_none(),
        "another engine's key"
    );
    let (body, mac) = password.split_once('.').unwrap();
    let mut forged = URL_SAFE_NO_PAD.decode(body).unwrap();
    let at = forged.windows(12).position(|w| w == b"123456789012").unwrap();
    forged[at] = b'9';
    let forged = format!("{}.{mac}", URL_SAFE_NO_PAD.encode(forged));
    assert!(key.bearer(&forged, Timestamp(START)).is_none(), "altered");
    let digest = isolarium_store::blobs::digest(b"x");
    let link = key
        .link(&scope("123456789012"), "team/app", &digest, Timestamp(START))
        .unwrap();
    assert!(key.bearer(&link, Timestamp(START)).is_none(), "a link is no token");
    assert!(key.follow(&link, "team/app", &digest, Timestamp(START)).is_some());
    assert!(key.follow(&link, "other", &digest, Timestamp(START)).is_none());
    assert!(
        key.follow(password, "team/app", &digest, Timestamp(START)).is_none(),
        "a token is no link"
    );
    let mut caller = root("123456789012");
    let session = Session {
        policies: Some(vec!["{}".into()]),
        tags: [("k".to_owned(), "v".to_owned())].into(),
        ..Session::lasting(Timestamp(START), Timestamp(START + 900_000))
    };
    caller.session = Some(session.clone());
    let (_, expires) = key.login(&caller, Timestamp(START)).unwrap();
    assert_eq!(expires, session.expires, "no longer than the credentials themselves");
}

#[test]
fn garbage_collection_keeps_what_images_use_and_what_is_young() {
    let fixture = made(ImageTagMutability::Mutable);
    let manifest = image(&fixture, REPOSITORY, "amd64", "kept");
    put(&fixture, &manifest, Some("v1")).unwrap();
    let loose = upload(&fixture, REPOSITORY, b"never used");
    let collect = |now| {
        fixture
            .registry
            .collect_garbage(&fixture.store, Timestamp(now))
            .unwrap()
    };
    let wall = i64::try_from(
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_millis(),
    )
    .unwrap();
    assert_eq!(collect(START), 0, "a push may still be going on");
    assert!(fixture.registry.blobs.get(&loose).unwrap().is_some());
    let later = wall + 2 * 24 * 3_600_000;
    assert_eq!(collect(later), 1);
    assert!(fixture.registry.blobs.get(&loose).unwrap().is_none());
    assert!(
        fixture
            .registry
            .blobs
            .get(&isolarium_store::blobs::digest(b"layer kept"))
            .unwrap()
            .is_some()
    );
}
