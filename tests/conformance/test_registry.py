"""The container registry through skopeo, podman, boto3, the aws CLI and the operator's `image import`."""
import base64
import gzip
import hashlib
import io
import json
import shutil
import subprocess
import tarfile
import tempfile
import urllib.request

import pytest

from tests.harness.engine import ACCOUNT, REGION
from tests.harness.wire import exchange, refused

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"


def layer(*members):
    """A tar of `(name, data)` files or ready TarInfo entries."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
                continue
            info = tarfile.TarInfo(member[0])
            info.size = len(member[1])
            archive.addfile(info, io.BytesIO(member[1]))
    return out.getvalue()


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def architecture():
    return subprocess.run(["dpkg", "--print-architecture"], check=True, text=True, capture_output=True).stdout.strip()


def oci_layout(folder, layers, change=lambda blobs: None):
    """An OCI layout of one image; `change` may alter its blobs, a dict by digest. Returns the manifest's digest."""
    blobs = {}

    def keep(data):
        blobs[digest(data)] = data
        return digest(data)

    config = json.dumps({
        "architecture": architecture(), "os": "linux", "config": {"Cmd": ["/hello"]},
        "rootfs": {"type": "layers", "diff_ids": [digest(data) for data in layers]},
    }).encode()
    manifest = json.dumps({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "digest": keep(config), "size": len(config)},
        "layers": [{"mediaType": LAYER, "digest": keep(data), "size": len(data)} for data in layers],
    }).encode()
    index = {"schemaVersion": 2, "manifests": [{
        "mediaType": MANIFEST, "digest": keep(manifest), "size": len(manifest),
        "annotations": {"org.opencontainers.image.ref.name": "v1"},
    }]}
    change(blobs)
    (folder / "blobs/sha256").mkdir(parents=True)
    for name, data in blobs.items():
        (folder / "blobs/sha256" / name.removeprefix("sha256:")).write_bytes(data)
    (folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    (folder / "index.json").write_text(json.dumps(index))
    return digest(manifest)


def tarred(folder, archive):
    """The folder's content as a tar file."""
    with tarfile.open(archive, "w") as out:
        out.add(folder, arcname=".")
    return archive


@pytest.fixture(scope="module")
def ecr(engine):
    return engine.client("ecr")


@pytest.fixture
def repository(ecr, name):
    ecr.create_repository(repositoryName=f"team/{name}")
    return f"team/{name}"


@pytest.fixture(scope="module")
def host(engine):
    return engine.url.removeprefix("http://")


@pytest.fixture
def source(tmp_path):
    """An image of two layers, and its digest."""
    folder = tmp_path / "source"
    return folder, oci_layout(folder, [layer(("hello", b"hello")), layer(("data/more", bytes(100_000)))])


@pytest.fixture(scope="module")
def token(ecr):
    """User and password from GetAuthorizationToken."""
    (given,) = ecr.get_authorization_token()["authorizationData"]
    return base64.b64decode(given["authorizationToken"]).decode()


@pytest.fixture
def skopeo(tmp_path):
    def run(*arguments, succeeds=True):
        done = subprocess.run(
            ["skopeo", "--insecure-policy", *map(str, arguments)], text=True, capture_output=True, timeout=60,
            env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path), "TMPDIR": str(tmp_path)},
        )
        assert (done.returncode == 0) == succeeds, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


def test_skopeo_copies_in_and_out_with_a_token(ecr, skopeo, source, repository, host, token, tmp_path):
    """Proves: IAM-67"""
    folder, name = source
    remote = f"docker://{host}/{repository}"
    push = ["copy", "--preserve-digests", "--dest-tls-verify=false"]
    skopeo(*push, "--dest-creds", "AWS:wrong", f"oci:{folder}:v1", f"{remote}:v1", succeeds=False)
    skopeo(*push, f"oci:{folder}:v1", f"{remote}:v1", succeeds=False)
    refused("ImageNotFoundException", ecr.describe_images, repositoryName=repository, imageIds=[{"imageTag": "v1"}])
    skopeo(*push, "--dest-creds", token, f"oci:{folder}:v1", f"{remote}:v1")
    (image,) = ecr.describe_images(repositoryName=repository)["imageDetails"]
    assert image["imageDigest"] == name and image["imageTags"] == ["v1"] and image["registryId"] == ACCOUNT
    told = json.loads(skopeo("inspect", "--tls-verify=false", "--creds", token, f"{remote}:v1"))
    assert told["Digest"] == name and told["RepoTags"] == ["v1"]
    skopeo("copy", "--preserve-digests", "--src-tls-verify=false", "--src-creds", token, f"{remote}:v1", f"oci:{tmp_path / 'back'}:v1")
    (entry,) = json.loads((tmp_path / "back/index.json").read_text())["manifests"]
    assert entry["digest"] == name
    skopeo(*push, "--dest-creds", token, f"oci:{folder}:v1", f"docker://{host}/team/never-made:v1", succeeds=False)
    skopeo("delete", "--tls-verify=false", "--creds", token, f"{remote}:v1")
    assert ecr.list_images(repositoryName=repository)["imageIds"] == []


def test_the_cli_hands_out_a_password_for_docker_archives(engine, ecr, skopeo, source, repository, host, tmp_path):
    """Proves: IAM-67"""
    password = subprocess.run(
        ["/usr/bin/aws", "--endpoint-url", engine.url, "ecr", "get-login-password"],
        check=True, text=True, capture_output=True, env=engine.environment(), timeout=60,
    ).stdout.strip()
    folder, _ = source
    archive, back = tmp_path / "image.tar", tmp_path / "back.tar"
    skopeo("copy", f"oci:{folder}:v1", f"docker-archive:{archive}:app:v1")
    skopeo("copy", "--dest-tls-verify=false", "--dest-creds", f"AWS:{password}", f"docker-archive:{archive}", f"docker://{host}/{repository}:docker")
    skopeo("copy", "--src-tls-verify=false", "--src-creds", f"AWS:{password}", f"docker://{host}/{repository}:docker", f"docker-archive:{back}:app:v1")

    def configuration(path):
        with tarfile.open(path) as opened:
            manifest = json.load(opened.extractfile("manifest.json"))
            return json.load(opened.extractfile(manifest[0]["Config"]))

    assert configuration(back)["rootfs"] == configuration(archive)["rootfs"]
    (image,) = ecr.describe_images(repositoryName=repository)["imageDetails"]
    assert image["imageTags"] == ["docker"] and image["imageManifestMediaType"].startswith("application/vnd.docker.")


def test_podman_pushes_and_pulls(request, ecr, repository, host, token, tmp_path):
    """Proves: IAM-67"""
    # Podman wants a short path for its sockets.
    run_root = tempfile.mkdtemp(prefix="podman-")
    request.addfinalizer(lambda: shutil.rmtree(run_root))
    folders = ["--root", str(tmp_path / "root"), "--runroot", run_root, "--tmpdir", str(tmp_path / "tmp")]
    podman = ["podman", *folders, "--storage-driver", "vfs"]

    def run(*arguments):
        done = subprocess.run([*podman, *arguments], text=True, capture_output=True, timeout=90)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    archive = tmp_path / "rootfs.tar"
    archive.write_bytes(layer(("hello", b"hello")))
    remote = f"{host}/{repository}:v1"
    run("import", str(archive), remote)
    made = run("image", "inspect", "--format", "{{.Id}}", remote)
    run("push", "--tls-verify=false", "--creds", token, remote)
    assert ecr.list_images(repositoryName=repository)["imageIds"][0]["imageTag"] == "v1"
    run("rmi", remote)
    run("pull", "--tls-verify=false", "--creds", token, remote)
    assert run("image", "inspect", "--format", "{{.Id}}", remote) == made


@pytest.mark.parametrize("form", ["layout", "oci-archive", "docker-archive"])
def test_the_operator_imports_layouts_and_archives(engine, ecr, skopeo, source, name, tmp_path, form):
    """Proves: IAM-67"""
    folder, expected = source
    given = folder
    if form == "oci-archive":
        given = tarred(folder, tmp_path / "oci.tar")
    if form == "docker-archive":
        given = tmp_path / "docker.tar"
        skopeo("copy", f"oci:{folder}:v1", f"docker-archive:{given}:app:v1")
    done = engine.run("image", "import", str(given), "--name", f"imported/{name}:v1")
    assert f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/imported/{name}:v1" in done.stdout
    (image,) = ecr.describe_images(repositoryName=f"imported/{name}")["imageDetails"]
    assert image["imageTags"] == ["v1"]
    if form != "docker-archive":
        assert image["imageDigest"] == expected


def wrong_blob(blobs):
    blobs[next(iter(blobs))] += b"more"


def missing_blob(blobs):
    del blobs[next(iter(blobs))]


@pytest.mark.parametrize("form", ["layout", "archive"])
@pytest.mark.parametrize("change", [wrong_blob, missing_blob])
def test_images_whose_bytes_are_not_their_digests_are_refused(engine, ecr, name, tmp_path, form, change):
    """Proves: IAM-67"""
    layers = [layer(("hello", b"hello"))]
    for folder, spoil, code in ((tmp_path / "good", lambda blobs: None, 0), (tmp_path / "bad", change, 1)):
        oci_layout(folder, layers, spoil)
        given = folder if form == "layout" else tarred(folder, folder.with_suffix(".tar"))
        done = engine.run("image", "import", str(given), "--name", f"{folder.name}/{name}:v1", check=False)
        assert done.returncode == code and "panicked" not in done.stderr, done.stderr
    assert ecr.list_images(repositoryName=f"good/{name}")["imageIds"]
    try:
        assert ecr.list_images(repositoryName=f"bad/{name}")["imageIds"] == []
    except ecr.exceptions.RepositoryNotFoundException:
        pass


def linked(name, target, kind):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize("members", [
    [("../../escape", b"x"), ("index.json", b"{}")],
    [("/etc/escape", b"x"), ("index.json", b"{}")],
    [linked("index.json", "/etc/passwd", tarfile.SYMTYPE), ("oci-layout", b"{}")],
    [linked("index.json", "/etc/passwd", tarfile.LNKTYPE), ("oci-layout", b"{}")],
    [linked("blobs", "/etc", tarfile.SYMTYPE), ("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')],
    [("manifest.json", b'[{"Config":"/etc/passwd","RepoTags":null,"Layers":["../../etc/passwd"]}]')],
    [("manifest.json", b"[]")],
    [("index.json", b"not json"), ("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')],
    [],
])
def test_archives_that_point_elsewhere_are_refused(engine, name, tmp_path, members):
    """Proves: IAM-67"""
    archive = tmp_path / "hostile.tar"
    archive.write_bytes(layer(*members))
    done = engine.run("image", "import", str(archive), "--name", f"hostile/{name}:v1", check=False)
    assert done.returncode == 1 and done.stderr.strip() and "panicked" not in done.stderr, done
    assert "root:" not in done.stdout + done.stderr, "nothing of the file that was pointed at"


def test_the_api_keeps_repositories_images_and_tags(ecr, name):
    """Proves: IAM-67"""
    repository = f"api/{name}"
    made = ecr.create_repository(repositoryName=repository, tags=[{"Key": "team", "Value": "ml"}], imageTagMutability="IMMUTABLE")["repository"]
    assert made["repositoryArn"] == f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/{repository}"
    assert made["repositoryUri"].endswith(f"/{repository}") and made["registryId"] == ACCOUNT
    refused("RepositoryAlreadyExistsException", ecr.create_repository, repositoryName=repository)
    assert ecr.describe_repositories(repositoryNames=[repository])["repositories"] == [made]
    assert ecr.list_tags_for_resource(resourceArn=made["repositoryArn"])["tags"] == [{"Key": "team", "Value": "ml"}]
    ecr.tag_resource(resourceArn=made["repositoryArn"], tags=[{"Key": "stage", "Value": "test"}])
    ecr.untag_resource(resourceArn=made["repositoryArn"], tagKeys=["team"])
    assert ecr.list_tags_for_resource(resourceArn=made["repositoryArn"])["tags"] == [{"Key": "stage", "Value": "test"}]
    refused("RepositoryNotFoundException", ecr.describe_repositories, repositoryNames=["api/none"])

    blob = gzip.compress(layer(("hello", b"hello")))
    config = json.dumps({"architecture": architecture(), "os": "linux", "rootfs": {
        "type": "layers", "diff_ids": [digest(gzip.decompress(blob))]}}).encode()
    for data in (blob, config):
        (found,) = ecr.batch_check_layer_availability(repositoryName=repository, layerDigests=[digest(data)])["layers"]
        assert found["layerAvailability"] == "UNAVAILABLE"
        upload = ecr.initiate_layer_upload(repositoryName=repository)["uploadId"]
        ecr.upload_layer_part(repositoryName=repository, uploadId=upload, partFirstByte=0, partLastByte=len(data) - 1, layerPartBlob=data)
        refused("InvalidLayerException", ecr.complete_layer_upload, repositoryName=repository, uploadId=upload, layerDigests=["sha256:" + "0" * 64])
        upload = ecr.initiate_layer_upload(repositoryName=repository)["uploadId"]
        ecr.upload_layer_part(repositoryName=repository, uploadId=upload, partFirstByte=0, partLastByte=len(data) - 1, layerPartBlob=data)
        assert ecr.complete_layer_upload(repositoryName=repository, uploadId=upload, layerDigests=[digest(data)])["layerDigest"] == digest(data)
    url = ecr.get_download_url_for_layer(repositoryName=repository, layerDigest=digest(blob))["downloadUrl"]
    assert urllib.request.urlopen(url).read() == blob
    manifest = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": {
        "mediaType": CONFIG, "digest": digest(config), "size": len(config)}, "layers": [{
            "mediaType": LAYER + "+gzip", "digest": digest(blob), "size": len(blob)}]})
    put = ecr.put_image(repositoryName=repository, imageManifest=manifest, imageTag="one")["image"]
    assert put["imageId"] == {"imageDigest": digest(manifest.encode()), "imageTag": "one"}
    refused("ImageAlreadyExistsException", ecr.put_image, repositoryName=repository, imageManifest=manifest, imageTag="one")
    refused("ImageTagAlreadyExistsException", ecr.put_image, repositoryName=repository, imageManifest=manifest.replace(" ", "  ", 1), imageTag="one")
    ecr.put_image(repositoryName=repository, imageManifest=manifest, imageTag="two")
    ids = ecr.list_images(repositoryName=repository)["imageIds"]
    assert sorted(entry["imageTag"] for entry in ids) == ["one", "two"]
    pages = ecr.get_paginator("list_images").paginate(repositoryName=repository, PaginationConfig={"PageSize": 1})
    assert sorted(entry["imageTag"] for page in pages for entry in page["imageIds"]) == ["one", "two"]
    got = ecr.batch_get_image(repositoryName=repository, imageIds=[{"imageTag": "one"}, {"imageTag": "none"}])
    assert got["images"][0]["imageManifest"] == manifest and got["failures"][0]["failureCode"] == "ImageNotFound"
    refused("RepositoryNotEmptyException", ecr.delete_repository, repositoryName=repository)
    gone = ecr.batch_delete_image(repositoryName=repository, imageIds=[{"imageDigest": digest(manifest.encode())}])
    assert gone["imageIds"] and gone["failures"] == []
    ecr.delete_repository(repositoryName=repository)
    refused("RepositoryNotFoundException", ecr.describe_repositories, repositoryNames=[repository])


def test_the_registry_challenges_strangers_on_every_path(engine, token, repository):
    """Proves: IAM-47, IAM-67"""
    basic = "Basic " + base64.b64encode(token.encode()).decode()
    assert exchange(engine.url, "GET", "/v2/", {"authorization": basic}).status == 200
    assert exchange(engine.url, "GET", f"/v2/{repository}/tags/list", {"authorization": basic}).status == 200
    for method, path in [
        ("GET", "/v2/"), ("GET", f"/v2/{repository}/tags/list"), ("GET", f"/v2/{repository}/manifests/v1"),
        ("PUT", f"/v2/{repository}/manifests/v1"), ("DELETE", f"/v2/{repository}/manifests/v1"),
        ("POST", f"/v2/{repository}/blobs/uploads/"), ("PATCH", f"/v2/{repository}/blobs/uploads/1"),
        ("GET", f"/v2/{repository}/blobs/sha256:{'0' * 64}"), ("GET", "/v2/_catalog"), ("GET", "/v2/../../etc/passwd"),
    ]:
        for headers in ({}, {"authorization": "Basic QVdTOndyb25n"}, {"authorization": "Bearer x"}, {"authorization": "Basic %%%"}):
            answer = exchange(engine.url, method, path, headers)
            assert answer.status == 401 and answer.headers["www-authenticate"].startswith("Basic realm="), (method, path, headers, answer)
            assert answer.code == "UNAUTHORIZED"
