use super::blob::Range;
use super::*;
use crate::http::body;
use http_body_util::BodyExt as _;
use hyper_util::rt::TokioIo;
use isolarium_model::ecr::Repository;
use isolarium_model::{Principal, Sha256Digest};
use isolarium_services::ecr::TokenKey;
use isolarium_store::blobs::digest;
use isolarium_store::state::MemoryState;
use isolarium_store::{Batch, BlobStore, Expect};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

const NOW: Timestamp = Timestamp(1_700_000_000_000);

struct Fixed(AtomicU64);

impl Clock for Fixed {
    fn now(&self) -> Timestamp {
        NOW
    }
}

impl IdSource for Fixed {
    fn hex(&self, digits: usize) -> String {
        format!("{:0digits$x}", self.0.fetch_add(1, Ordering::Relaxed))
    }
}

/// Allows everything but what concerns repositories under `secret/`.
struct NoSecrets;

impl Permit for NoSecrets {
    fn permit(&self, _: &Caller, questions: &[Question]) -> Result<(), Denied> {
        match questions
            .iter()
            .find(|question| question.resource.contains("repository/secret/"))
        {
            Some(question) => Err(Denied::Policy(format!(
                "User is not authorized to perform: {}",
                question.action
            ))),
            None => Ok(()),
        }
    }
}

struct Lab {
    dir: tempfile::TempDir,
    distribution: Arc<Distribution>,
    password: String,
    runtime: tokio::runtime::Runtime,
}

fn scope() -> Scope {
    Scope {
        account: "123456789012".parse().unwrap(),
        region: "us-east-1".parse().unwrap(),
    }
}

fn source() -> Source {
    Source::Public {
        address: [127, 0, 0, 1].into(),
        secure: false,
    }
}

fn origin() -> Origin {
    Origin {
        source: source(),
        request_id: "r".into(),
    }
}

impl Lab {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry {
            blobs: BlobStore::open(dir.path()).unwrap(),
            key: TokenKey::derive(&[3; 32]),
            endpoint: "http://127.0.0.1:4599".into(),
        };
        let caller = Caller {
            principal: Principal::Root {
                account: scope().account,
            },
            scope: scope(),
            source: source(),
            session: None,
            request_id: String::new(),
            user_agent: String::new(),
            inquiry: Default::default(),
        };
        let (token, _) = registry.key.login(&caller, NOW).unwrap();
        let text = String::from_utf8(STANDARD.decode(token).unwrap()).unwrap();
        let distribution = Distribution {
            registry: Arc::new(registry),
            store: Arc::new(MemoryState::new()),
            clock: Arc::new(Fixed(AtomicU64::new(0))),
            ids: Arc::new(Fixed(AtomicU64::new(0x1000))),
            permit: Arc::new(NoSecrets),
            audit: Arc::new(crate::audit_of(dir.path())),
        };
        let lab = Self {
            dir,
            distribution: Arc::new(distribution),
            password: text.strip_prefix("AWS:").unwrap().into(),
            runtime: tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap(),
        };
        for name in ["team/app", "team/other", "secret/app"] {
            lab.create(name, false);
        }
        lab
    }

    fn create(&self, name: &str, immutable_tags: bool) {
        let repository = Repository {
            name: name.into(),
            created: NOW,
            modified: NOW,
            immutable_tags,
            policy: None,
            tags: std::collections::BTreeMap::new(),
        };
        let batch = Batch::default()
            .put(&Repository::key(&scope(), name), Expect::Absent, &repository)
            .unwrap();
        self.distribution.store.commit(batch).unwrap();
    }

    /// One request; the answer's status, headers and body.
    fn send(&self, request: http::request::Builder, bytes: &[u8]) -> (u16, http::HeaderMap, Vec<u8>) {
        let request = request.body(body::full(bytes.to_vec())).unwrap();
        self.runtime.block_on(async {
            let answer = serve(request, scope(), origin(), Arc::clone(&self.distribution)).await;
            let (head, body) = answer.into_parts();
            (
                head.status.as_u16(),
                head.headers,
                body.collect().await.unwrap().to_bytes().to_vec(),
            )
        })
    }

    fn request(&self, method: &str, path: &str) -> http::request::Builder {
        let basic = STANDARD.encode(format!("AWS:{}", self.password));
        Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("Basic {basic}"))
    }

    fn call(&self, method: &str, path: &str, bytes: &[u8]) -> (u16, http::HeaderMap, Vec<u8>) {
        self.send(self.request(method, path), bytes)
    }

    fn push_blob(&self, repository: &str, bytes: &[u8]) -> Sha256Digest {
        let digest = digest(bytes);
        let (status, ..) = self.call(
            "POST",
            &format!("/v2/{repository}/blobs/uploads/?digest={digest}"),
            bytes,
        );
        assert_eq!(status, 201);
        digest
    }

    /// Listens on a loopback port until the runtime goes.
    fn listen(&self) -> u16 {
        let listener = self
            .runtime
            .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
            .unwrap();
        let port = listener.local_addr().unwrap().port();
        let distribution = Arc::clone(&self.distribution);
        self.runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let distribution = Arc::clone(&distribution);
                let service = hyper::service::service_fn(move |request| {
                    let distribution = Arc::clone(&distribution);
                    async move { Ok::<_, std::convert::Infallible>(serve(request, scope(), origin(), distribution).await) }
                });
                tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        port
    }
}

fn error_code(body: &[u8]) -> String {
    let value: Value = serde_json::from_slice(body).unwrap();
    value["errors"][0]["code"].as_str().unwrap().into()
}

fn text<'a>(headers: &'a http::HeaderMap, name: &str) -> &'a str {
    headers.get(name).unwrap().to_str().unwrap()
}

fn manifest_of(config: &[u8], layer: &[u8]) -> String {
    json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(config), "size": config.len()},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest(layer), "size": layer.len()}],
    })
    .to_string()
}

/// Proves: IAM-67
#[test]
fn nobody_enters_without_a_token_and_nobody_does_what_iam_denies() {
    let lab = Lab::new();
    let blob = lab.push_blob("team/app", b"layer");
    for (name, value) in [
        ("no token", None),
        ("nonsense", Some("Basic AAAA".to_owned())),
        (
            "another user",
            Some(format!("Basic {}", STANDARD.encode(format!("root:{}", lab.password)))),
        ),
        (
            "altered",
            Some(format!("Basic {}", STANDARD.encode(format!("AWS:{}x", lab.password)))),
        ),
    ] {
        for path in ["/v2/".to_owned(), format!("/v2/team/app/blobs/{blob}")] {
            let request = Request::builder().uri(path);
            let request = value
                .iter()
                .fold(request, |request, value| request.header("authorization", value));
            let (status, headers, body) = lab.send(request, b"");
            assert_eq!((status, error_code(&body).as_str()), (401, "UNAUTHORIZED"), "{name}");
            assert!(text(&headers, "www-authenticate").starts_with("Basic realm="), "{name}");
        }
    }
    assert_eq!(lab.call("GET", "/v2/", b"").0, 200, "control: the token itself enters");
    let bearer = Request::builder()
        .uri("/v2/")
        .header("authorization", format!("Bearer {}", lab.password));
    assert_eq!(lab.send(bearer, b"").0, 200);
    for (method, path) in [
        ("GET", "/v2/secret/app/tags/list".to_owned()),
        ("PUT", "/v2/secret/app/manifests/v1".to_owned()),
        ("POST", "/v2/secret/app/blobs/uploads/".to_owned()),
        (
            "POST",
            format!("/v2/team/app/blobs/uploads/?mount={blob}&from=secret/app"),
        ),
    ] {
        let (status, _, body) = lab.call(method, &path, b"{}");
        assert_eq!((status, error_code(&body).as_str()), (403, "DENIED"), "{path}");
    }
    let mount = format!("/v2/team/other/blobs/uploads/?mount={blob}&from=team/app");
    assert_eq!(lab.call("POST", &mount, b"").0, 201, "control: an allowed mount");
}

/// Proves: IAM-67
#[test]
fn blobs_arrive_whole_in_chunks_or_by_mount_and_only_under_their_digest() {
    let lab = Lab::new();
    let bytes: Vec<u8> = (0..600_000_u32).flat_map(u32::to_le_bytes).collect();
    let name = digest(&bytes);
    let (status, headers, _) = lab.call("POST", "/v2/team/app/blobs/uploads/", b"");
    assert_eq!(status, 202);
    let place = text(&headers, "location").to_owned();
    let (first, rest) = bytes.split_at(1_000_000);
    let (status, headers, _) = lab.call("PATCH", &place, first);
    assert_eq!((status, text(&headers, "range")), (202, "0-999999"));
    let wrong = lab.request("PATCH", &place).header("content-range", "5-9");
    let (status, headers, body) = lab.send(wrong, b"xxxxx");
    assert_eq!(
        (status, error_code(&body).as_str(), text(&headers, "range")),
        (416, "RANGE_INVALID", "0-999999")
    );
    assert_eq!(lab.call("GET", &place, b"").0, 204);
    let other = place.replace("team/app", "team/other");
    assert_eq!(
        error_code(&lab.call("PATCH", &other, b"x").2),
        "BLOB_UPLOAD_UNKNOWN",
        "of another repository"
    );
    let (status, headers, _) = lab.call(
        "PUT",
        &format!("{place}?digest={}", name.as_str().replace(':', "%3A")),
        rest,
    );
    assert_eq!((status, text(&headers, "docker-content-digest")), (201, name.as_str()));
    let (status, headers, body) = lab.call("GET", &format!("/v2/team/app/blobs/{name}"), b"");
    assert_eq!(
        (status, text(&headers, "content-length"), body == bytes),
        (200, "2400000", true)
    );
    let (status, headers, body) = lab.call("HEAD", &format!("/v2/team/app/blobs/{name}"), b"");
    assert_eq!(
        (status, text(&headers, "content-length"), body.len()),
        (200, "2400000", 0)
    );
    let part = lab
        .request("GET", &format!("/v2/team/app/blobs/{name}"))
        .header("range", "bytes=999998-1000001");
    let (status, headers, body) = lab.send(part, b"");
    assert_eq!(
        (status, text(&headers, "content-range")),
        (206, "bytes 999998-1000001/2400000")
    );
    assert_eq!(body, bytes[999_998..=1_000_001]);
    let beyond = lab
        .request("GET", &format!("/v2/team/app/blobs/{name}"))
        .header("range", "bytes=2400000-");
    assert_eq!(lab.send(beyond, b"").0, 416);
    let elsewhere = format!("/v2/team/other/blobs/{name}");
    assert_eq!(
        error_code(&lab.call("GET", &elsewhere, b"").2),
        "BLOB_UNKNOWN",
        "knowing a digest is no permission"
    );
    let (status, ..) = lab.call(
        "POST",
        &format!("/v2/team/other/blobs/uploads/?mount={name}&from=team/app"),
        b"",
    );
    assert_eq!(status, 201);
    assert_eq!(lab.call("HEAD", &elsewhere, b"").0, 200);
    let (status, headers, _) = lab.call(
        "POST",
        &format!("/v2/team/app/blobs/uploads/?mount={}&from=team/other", digest(b"?")),
        b"",
    );
    assert_eq!(status, 202, "what is not there to be mounted is uploaded");
    let place = text(&headers, "location").to_owned();
    let (status, _, body) = lab.call("PUT", &format!("{place}?digest={name}"), b"forged");
    assert_eq!((status, error_code(&body).as_str()), (400, "DIGEST_INVALID"));
    assert_eq!(lab.call("DELETE", &place, b"").0, 404, "a forged upload is over");
    assert_eq!(std::fs::read_dir(lab.dir.path().join("uploads")).unwrap().count(), 0);
}

/// Proves: IAM-67
#[test]
fn manifests_are_pushed_pulled_listed_and_deleted() {
    let lab = Lab::new();
    let manifest = manifest_of(b"{}", b"layer");
    let put = |path: &str| lab.call("PUT", path, manifest.as_bytes());
    let (status, _, body) = put("/v2/team/app/manifests/v1");
    assert_eq!((status, error_code(&body).as_str()), (404, "MANIFEST_BLOB_UNKNOWN"));
    lab.push_blob("team/app", b"{}");
    lab.push_blob("team/app", b"layer");
    let name = digest(manifest.as_bytes());
    for tag in ["v1", "v2", "v3"] {
        let (status, headers, _) = put(&format!("/v2/team/app/manifests/{tag}"));
        assert_eq!((status, text(&headers, "docker-content-digest")), (201, name.as_str()));
    }
    assert_eq!(
        put("/v2/team/app/manifests/v1").0,
        201,
        "pushing the same again is no error"
    );
    let (status, _, body) = put(&format!("/v2/team/app/manifests/{}", digest(b"other")));
    assert_eq!((status, error_code(&body).as_str()), (400, "DIGEST_INVALID"));
    for reference in ["v1", name.as_str()] {
        let (status, headers, body) = lab.call("GET", &format!("/v2/team/app/manifests/{reference}"), b"");
        assert_eq!((status, body.as_slice()), (200, manifest.as_bytes()));
        assert_eq!(
            text(&headers, "content-type"),
            "application/vnd.oci.image.manifest.v1+json"
        );
    }
    let (status, headers, body) = lab.call("HEAD", "/v2/team/app/manifests/v1", b"");
    assert_eq!(
        (status, text(&headers, "content-length"), body.len()),
        (200, manifest.len().to_string().as_str(), 0)
    );
    let (_, headers, body) = lab.call("GET", "/v2/team/app/tags/list?n=2", b"");
    assert_eq!(
        serde_json::from_slice::<Value>(&body).unwrap(),
        json!({"name": "team/app", "tags": ["v1", "v2"]})
    );
    assert_eq!(
        text(&headers, "link"),
        "</v2/team/app/tags/list?n=2&last=v2>; rel=\"next\""
    );
    let (_, headers, body) = lab.call("GET", "/v2/team/app/tags/list?n=2&last=v2", b"");
    assert_eq!(serde_json::from_slice::<Value>(&body).unwrap()["tags"], json!(["v3"]));
    assert!(headers.get("link").is_none());
    assert_eq!(lab.call("DELETE", "/v2/team/app/manifests/v1", b"").0, 202);
    assert_eq!(
        error_code(&lab.call("GET", "/v2/team/app/manifests/v1", b"").2),
        "MANIFEST_UNKNOWN"
    );
    assert_eq!(lab.call("GET", "/v2/team/app/manifests/v2", b"").0, 200, "control");
    assert_eq!(
        lab.call("DELETE", &format!("/v2/team/app/manifests/{name}"), b"").0,
        202
    );
    assert_eq!(lab.call("GET", "/v2/team/app/manifests/v2", b"").0, 404);
    lab.create("team/fixed", true);
    for (config, outcome) in [(b"{}" as &[u8], 201), (b"{ }", 400)] {
        lab.push_blob("team/fixed", config);
        lab.push_blob("team/fixed", b"layer");
        let manifest = manifest_of(config, b"layer");
        assert_eq!(
            lab.call("PUT", "/v2/team/fixed/manifests/v1", manifest.as_bytes()).0,
            outcome,
            "immutable tags"
        );
    }
}

/// Proves: IAM-67
#[test]
fn what_does_not_exist_or_is_not_served_gets_the_specifications_errors() {
    let lab = Lab::new();
    for (method, path, status, code) in [
        ("GET", "/v2/none/app/tags/list", 404, "NAME_UNKNOWN"),
        ("GET", "/v2/none/app/manifests/v1", 404, "NAME_UNKNOWN"),
        ("POST", "/v2/none/app/blobs/uploads/", 404, "NAME_UNKNOWN"),
        ("PUT", "/v2/none/app/manifests/v1", 400, "MANIFEST_INVALID"),
        ("GET", "/v2/team/app/manifests/none", 404, "MANIFEST_UNKNOWN"),
        ("GET", "/v2/team/app/manifests/.bad", 400, "TAG_INVALID"),
        ("GET", "/v2/team/app/blobs/sha256:12", 400, "DIGEST_INVALID"),
        ("GET", "/v2/../etc/manifests/v1", 400, "NAME_INVALID"),
        (
            "GET",
            "/v2/team/app/blobs/uploads/../../../x",
            404,
            "BLOB_UPLOAD_UNKNOWN",
        ),
        ("GET", "/v2/_catalog", 405, "UNSUPPORTED"),
        ("DELETE", "/v2/team/app/tags/list", 405, "UNSUPPORTED"),
        ("GET", "/v2/team/app/nothing", 404, "UNSUPPORTED"),
        ("PUT", "/v2/team/app/manifests/v1", 400, "MANIFEST_INVALID"),
    ] {
        let (found, headers, body) = lab.call(method, path, b"");
        assert_eq!((found, error_code(&body).as_str()), (status, code), "{method} {path}");
        assert_eq!(text(&headers, "docker-distribution-api-version"), "registry/2.0");
    }
    let long = vec![b' '; (4 << 20) + 1];
    assert_eq!(
        error_code(&lab.call("PUT", "/v2/team/app/manifests/v1", &long).2),
        "SIZE_INVALID"
    );
}

/// Proves: IAM-67
#[test]
fn a_layer_link_reads_its_layer_and_nothing_else() {
    let lab = Lab::new();
    let (blob, other) = (lab.push_blob("team/app", b"layer"), lab.push_blob("team/app", b"other"));
    let link = lab
        .distribution
        .registry
        .key
        .link(&scope(), "team/app", &blob, NOW)
        .unwrap();
    let get = |path: String| lab.send(Request::builder().uri(path), b"");
    assert_eq!(get(format!("/v2/team/app/blobs/{blob}?link={link}")).2, b"layer");
    assert_eq!(get(format!("/v2/team/app/blobs/{other}?link={link}")).0, 403);
    assert_eq!(get(format!("/v2/team/app/blobs/{blob}?link=x{link}")).0, 403);
    assert_eq!(get(format!("/v2/team/app/manifests/v1?link={link}")).0, 401);
    let (status, ..) = lab.send(
        Request::builder()
            .method("DELETE")
            .uri(format!("/v2/team/app/blobs/{blob}?link={link}")),
        b"",
    );
    assert_eq!(status, 401);
}

#[test]
fn ranges_are_read_as_http_says() {
    let part = |first, last| Range::Part { first, last };
    for (text, size, range) in [
        ("bytes=0-0", 10, part(0, 0)),
        ("bytes=5-", 10, part(5, 9)),
        ("bytes=5-50", 10, part(5, 9)),
        ("bytes=-3", 10, part(7, 9)),
        ("bytes=-30", 10, part(0, 9)),
        ("bytes=10-", 10, Range::Beyond),
        ("bytes=-0", 10, Range::Beyond),
        ("bytes=0-", 0, Range::Beyond),
        ("bytes=-5", 0, Range::Whole),
        ("bytes=5-4", 10, Range::Whole),
        ("bytes=0-1,3-4", 10, Range::Whole),
        ("lines=0-1", 10, Range::Whole),
    ] {
        assert_eq!(Range::parse(text, size), range, "{text} of {size}");
    }
}

/// An OCI layout with one image of a few megabytes.
fn layout(at: &Path) -> Sha256Digest {
    let blobs = at.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    let write = |bytes: &[u8]| {
        let name = digest(bytes);
        std::fs::write(blobs.join(name.hex()), bytes).unwrap();
        name
    };
    let layer: Vec<u8> = (0..900_000_u32)
        .flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect();
    let config = json!({"architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]}})
    .to_string();
    write(&layer);
    write(config.as_bytes());
    let manifest = manifest_of(config.as_bytes(), &layer);
    let name = write(manifest.as_bytes());
    let index = json!({"schemaVersion": 2, "manifests": [{
        "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": name, "size": manifest.len()}]});
    std::fs::write(at.join("index.json"), index.to_string()).unwrap();
    std::fs::write(at.join("oci-layout"), "{\"imageLayoutVersion\":\"1.0.0\"}").unwrap();
    name
}

/// The promise to users: an unmodified client pushes and pulls.
///
/// Proves: IAM-67
#[test]
fn skopeo_copies_an_image_into_the_registry_and_out_again() {
    let lab = Lab::new();
    let port = lab.listen();
    let name = layout(&lab.dir.path().join("in"));
    let skopeo = |arguments: &[&str]| {
        let mut command = Command::new("skopeo");
        command
            .arg("--insecure-policy")
            .args(arguments)
            .env("XDG_RUNTIME_DIR", lab.dir.path());
        let output = command.output().expect("skopeo is installed");
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let credentials = format!("AWS:{}", lab.password);
    let (from, to) = (lab.dir.path().join("in"), lab.dir.path().join("out"));
    let (from, to) = (format!("oci:{}", from.display()), format!("oci:{}:v1", to.display()));
    let remote = format!("docker://127.0.0.1:{port}/team/app:v1");
    let push = |target: &str, credentials: &str| {
        skopeo(&[
            "copy",
            "--preserve-digests",
            "--dest-tls-verify=false",
            "--dest-creds",
            credentials,
            &from,
            target,
        ])
    };
    let (pushed, said) = push(&remote, &credentials);
    assert!(pushed, "{said}");
    assert!(!push(&remote, "AWS:wrong").0, "not without the token");
    let (missing, said) = push(&format!("docker://127.0.0.1:{port}/none/app:v1"), &credentials);
    assert!(!missing && said.contains("does not exist in the registry"), "{said}");
    let (pulled, said) = skopeo(&[
        "copy",
        "--preserve-digests",
        "--src-tls-verify=false",
        "--src-creds",
        &credentials,
        &remote,
        &to,
    ]);
    assert!(pulled, "{said}");
    let index = std::fs::read_to_string(lab.dir.path().join("out/index.json")).unwrap();
    assert!(index.contains(name.as_str()), "the same manifest came back: {index}");
    let (listed, said) = skopeo(&[
        "list-tags",
        "--tls-verify=false",
        "--creds",
        &credentials,
        &format!("docker://127.0.0.1:{port}/team/app"),
    ]);
    assert!(listed, "{said}");
}

/// Proves: IAM-67
#[test]
fn images_are_imported_over_http_and_refusals_are_told() {
    use crate::cli::image::{HttpSink, ImageError, SinkError, import};
    let lab = Lab::new();
    let endpoint = format!("http://127.0.0.1:{}", lab.listen());
    let from = lab.dir.path().join("in");
    let name = layout(&from);
    let token = STANDARD.encode(format!("AWS:{}", lab.password));
    let mut sink = HttpSink::new(&endpoint, "team/app", &token).unwrap();
    assert_eq!(import(&from, "v1", &mut sink).unwrap(), name);
    assert_eq!(import(&from, "v2", &mut sink).unwrap(), name, "again");
    let (status, headers, _) = lab.call("HEAD", "/v2/team/app/manifests/v2", b"");
    assert_eq!((status, text(&headers, "docker-content-digest")), (200, name.as_str()));
    for (repository, status) in [("none/app", 404), ("secret/app", 403)] {
        let mut sink = HttpSink::new(&endpoint, repository, &token).unwrap();
        match import(&from, "v1", &mut sink) {
            Err(ImageError::Sink(SinkError::Refused { status: found, .. })) => assert_eq!(found, status),
            other => panic!("{other:?}"),
        }
    }
    let mut sink = HttpSink::new("http://127.0.0.1:1", "team/app", &token).unwrap();
    assert!(matches!(
        import(&from, "v1", &mut sink),
        Err(ImageError::Sink(SinkError::Unreachable(..)))
    ));
    assert!(matches!(
        HttpSink::new(&endpoint, "../x", &token),
        Err(SinkError::Name(_))
    ));
}

/// Proves: IAM-67
#[test]
fn podman_pushes_an_image_that_it_compresses_itself() {
    let lab = Lab::new();
    let port = lab.listen();
    let rootfs = lab.dir.path().join("rootfs");
    std::fs::create_dir(&rootfs).unwrap();
    std::fs::write(rootfs.join("hello"), "hello").unwrap();
    let podman = |arguments: &[&str]| {
        let mut command = Command::new("podman");
        for (option, folder) in [("--root", "root"), ("--runroot", "runroot"), ("--tmpdir", "tmp")] {
            command.arg(option).arg(lab.dir.path().join(folder));
        }
        let output = command
            .args(["--storage-driver", "vfs"])
            .args(arguments)
            .output()
            .expect("podman is installed");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {said}");
    };
    let archive = lab.dir.path().join("rootfs.tar");
    let mut tar = tar::Builder::new(std::fs::File::create(&archive).unwrap());
    tar.append_dir_all("", &rootfs).unwrap();
    tar.finish().unwrap();
    let remote = format!("127.0.0.1:{port}/team/app:v1");
    podman(&["import", archive.to_str().unwrap(), &remote]);
    let credentials = format!("AWS:{}", lab.password);
    podman(&["push", "--tls-verify=false", "--creds", &credentials, &remote]);
    let reference = "123456789012.dkr.ecr.us-east-1.amazonaws.com/team/app:v1";
    let architecture = isolarium_services::ecr::resolve::host_architecture();
    let image = isolarium_services::ecr::resolve_image(
        &lab.distribution.registry,
        &*lab.distribution.store,
        reference,
        architecture,
    );
    let layers = image.unwrap().layers;
    assert_eq!(layers.len(), 1);
    assert_ne!(layers[0].blob, layers[0].diff_id, "the layer was compressed on its way");
    podman(&["rmi", &remote]);
    podman(&["pull", "--tls-verify=false", "--creds", &credentials, &remote]);
}
