"""S3 through an unmodified boto3.

usage: s3.py SERVER   (the built example s3_server of the services crate)

Starts the server on a directory of its own, runs every function below whose name begins with `check_`, prints one line
for each and exits with 1 if any failed. Needs boto3 1.44.5 with awscrt (for CRC32C and CRC64NVME).
"""
import base64, concurrent.futures, hashlib, io, json, os, subprocess, sys, tempfile, traceback
import urllib.error, urllib.parse, urllib.request

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore import UNSIGNED

PORT = None
MB = 1 << 20


def client(key="ROOT", secret="root-secret", **config):
    settings = {"s3": {"addressing_style": "path"}, "retries": {"max_attempts": 1}, **config}
    return boto3.client(
        "s3", endpoint_url=f"http://127.0.0.1:{PORT}", region_name="us-east-1", aws_access_key_id="AKIA" + key,
        aws_secret_access_key=secret, config=Config(**settings))


def anonymous():
    return client(signature_version=UNSIGNED)


def refused(code, call, *args, **kwargs):
    """The call must fail with this code."""
    try:
        call(*args, **kwargs)
    except ClientError as error:
        got = error.response["Error"]["Code"]
        assert got == code, f"{got} instead of {code}: {error}"
        return error
    raise AssertionError(f"{call.__name__} succeeded instead of {code}")


def fresh(s3, name):
    s3.create_bucket(Bucket=name)
    return name


def check_buckets(s3):
    bucket = fresh(s3, "buckets-one")
    s3.create_bucket(Bucket=bucket)  # us-east-1: again is fine
    refused("BucketAlreadyExists", client("OTHER", "other-secret").create_bucket, Bucket=bucket)
    refused("InvalidLocationConstraint", s3.create_bucket, Bucket="buckets-two",
            CreateBucketConfiguration={"LocationConstraint": "us-east-1"})
    assert s3.head_bucket(Bucket=bucket)["BucketRegion"] == "us-east-1"
    assert s3.get_bucket_location(Bucket=bucket)["LocationConstraint"] is None
    assert bucket in [b["Name"] for b in s3.list_buckets()["Buckets"]]
    s3.head_bucket(Bucket=bucket, ExpectedBucketOwner="123456789012")
    refused("403", s3.head_bucket, Bucket=bucket, ExpectedBucketOwner="111111111111")
    refused("404", s3.head_bucket, Bucket="no-such-bucket-here")
    s3.put_object(Bucket=bucket, Key="k", Body=b"")
    refused("BucketNotEmpty", s3.delete_bucket, Bucket=bucket)
    s3.delete_object(Bucket=bucket, Key="k")
    s3.delete_bucket(Bucket=bucket)
    refused("404", s3.head_bucket, Bucket=bucket)
    refused("NoSuchBucket", s3.list_objects_v2, Bucket=bucket)


def check_never_set_configurations(s3):
    bucket = fresh(s3, "terraform-reads")
    for call, code in [
        (s3.get_bucket_cors, "NoSuchCORSConfiguration"), (s3.get_bucket_website, "NoSuchWebsiteConfiguration"),
        (s3.get_bucket_lifecycle_configuration, "NoSuchLifecycleConfiguration"),
        (s3.get_bucket_replication, "ReplicationConfigurationNotFoundError"),
        (s3.get_bucket_encryption, "ServerSideEncryptionConfigurationNotFoundError"),
        (s3.get_object_lock_configuration, "ObjectLockConfigurationNotFoundError"),
        (s3.get_bucket_tagging, "NoSuchTagSet"), (s3.get_bucket_policy, "NoSuchBucketPolicy"),
        (s3.get_public_access_block, "NoSuchPublicAccessBlockConfiguration"),
    ]:
        error = refused(code, call, Bucket=bucket)
        assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 404
    assert "Status" not in s3.get_bucket_versioning(Bucket=bucket)
    assert s3.get_bucket_request_payment(Bucket=bucket)["Payer"] == "BucketOwner"
    assert "Status" not in s3.get_bucket_accelerate_configuration(Bucket=bucket)
    assert "LoggingEnabled" not in s3.get_bucket_logging(Bucket=bucket)
    grants = s3.get_bucket_acl(Bucket=bucket)["Grants"]
    assert grants[0]["Permission"] == "FULL_CONTROL" and len(grants) == 1
    for call, arguments in [
        (s3.put_bucket_cors, {"CORSConfiguration": {"CORSRules": [{"AllowedMethods": ["GET"], "AllowedOrigins": ["*"]}]}}),
        (s3.put_bucket_website, {"WebsiteConfiguration": {"IndexDocument": {"Suffix": "i"}}}),
        (s3.put_bucket_encryption, {"ServerSideEncryptionConfiguration": {
            "Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]}}),
        (s3.put_bucket_lifecycle_configuration, {"LifecycleConfiguration": {
            "Rules": [{"Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 1}}]}}),
        (s3.put_bucket_logging, {"BucketLoggingStatus": {}}),
    ]:
        refused("NotImplemented", call, Bucket=bucket, **arguments)
    # A setting that the server does not know never becomes a deletion of the bucket.
    refused("NotImplemented", s3.delete_bucket_metadata_configuration, Bucket=bucket)
    s3.head_bucket(Bucket=bucket)


def check_put_get_head(s3):
    bucket = fresh(s3, "objects")
    put = s3.put_object(Bucket=bucket, Key="dir/k", Body=b"hello", ContentType="text/plain", CacheControl="no-store",
                        ContentDisposition="inline", ContentLanguage="en", ContentEncoding="identity",
                        Metadata={"a": "1", "Mixed": "two words"}, StorageClass="STANDARD")
    assert put["ETag"] == '"5d41402abc4b2a76b9719d911017c592"' and "VersionId" not in put
    got = s3.get_object(Bucket=bucket, Key="dir/k")
    assert got["Body"].read() == b"hello" and got["ContentType"] == "text/plain" and got["CacheControl"] == "no-store"
    assert got["Metadata"]["a"] == "1" and got["ContentEncoding"] == "identity" and got["ContentLanguage"] == "en"
    head = s3.head_object(Bucket=bucket, Key="dir/k")
    assert head["ContentLength"] == 5 and head["ETag"] == put["ETag"] and head["AcceptRanges"] == "bytes"
    assert head["LastModified"] == got["LastModified"]
    refused("404", s3.head_object, Bucket=bucket, Key="nothing")
    refused("NoSuchKey", s3.get_object, Bucket=bucket, Key="nothing")
    refused("InvalidStorageClass", s3.put_object, Bucket=bucket, Key="x", StorageClass="GLACIER")
    refused("NotImplemented", s3.put_object, Bucket=bucket, Key="x", ServerSideEncryption="AES256")
    refused("AccessControlListNotSupported", s3.put_object, Bucket=bucket, Key="x", ACL="public-read")
    s3.put_object(Bucket=bucket, Key="x", ACL="bucket-owner-full-control")
    got = s3.get_object(Bucket=bucket, Key="dir/k", ResponseContentType="a/b", ResponseContentDisposition="attachment")
    assert got["ContentType"] == "a/b" and got["ContentDisposition"] == "attachment"
    assert s3.get_object(Bucket=bucket, Key="x")["ContentType"] == "binary/octet-stream"
    s3.put_object(Bucket=bucket, Key="empty")
    assert s3.get_object(Bucket=bucket, Key="empty")["Body"].read() == b""


def check_ranges(s3):
    bucket = fresh(s3, "ranges")
    data = os.urandom(3 * MB)
    s3.put_object(Bucket=bucket, Key="k", Body=data)
    for text, piece in [("bytes=0-9", data[:10]), ("bytes=5-", data[5:]), ("bytes=-7", data[-7:]),
                        ("bytes=100-99999999", data[100:]), (f"bytes={MB}-{2 * MB}", data[MB:2 * MB + 1])]:
        got = s3.get_object(Bucket=bucket, Key="k", Range=text)
        assert got["ResponseMetadata"]["HTTPStatusCode"] == 206 and got["Body"].read() == piece, text
        assert got["ContentRange"].endswith(f"/{len(data)}")
    refused("InvalidRange", s3.get_object, Bucket=bucket, Key="k", Range=f"bytes={len(data)}-")
    assert s3.head_object(Bucket=bucket, Key="k", Range="bytes=0-9")["ContentLength"] == 10
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == data


def check_conditional_reads(s3):
    bucket = fresh(s3, "conditional-reads")
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"x")["ETag"]
    modified = s3.head_object(Bucket=bucket, Key="k")["LastModified"]
    s3.get_object(Bucket=bucket, Key="k", IfMatch=etag)
    refused("PreconditionFailed", s3.get_object, Bucket=bucket, Key="k", IfMatch='"0"')
    refused("304", s3.get_object, Bucket=bucket, Key="k", IfNoneMatch=etag)
    refused("304", s3.head_object, Bucket=bucket, Key="k", IfModifiedSince=modified)
    s3.get_object(Bucket=bucket, Key="k", IfUnmodifiedSince=modified)
    refused("412", s3.head_object, Bucket=bucket, Key="k", IfUnmodifiedSince=modified.replace(year=2001))


def check_conditional_writes(s3):
    bucket = fresh(s3, "conditional-writes")
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"1", IfNoneMatch="*")["ETag"]
    refused("PreconditionFailed", s3.put_object, Bucket=bucket, Key="k", Body=b"2", IfNoneMatch="*")
    refused("PreconditionFailed", s3.put_object, Bucket=bucket, Key="k", Body=b"2", IfMatch='"0"')
    s3.put_object(Bucket=bucket, Key="k", Body=b"2", IfMatch=etag)
    refused("NoSuchKey", s3.put_object, Bucket=bucket, Key="none", Body=b"2", IfMatch=etag)
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"2"

    def race(n):
        try:
            client().put_object(Bucket=bucket, Key="lock", Body=str(n).encode(), IfNoneMatch="*")
            return 1
        except ClientError:
            return 0
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(race, range(8))) == 1


def check_checksums(s3):
    bucket = fresh(s3, "checksums")
    for algorithm in ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"]:
        member = "Checksum" + algorithm
        put = s3.put_object(Bucket=bucket, Key=algorithm, Body=b"123456789", ChecksumAlgorithm=algorithm)
        got = s3.get_object(Bucket=bucket, Key=algorithm, ChecksumMode="ENABLED")
        assert got["Body"].read() == b"123456789" and got[member] == put[member], algorithm
        assert got["ChecksumType"] == "FULL_OBJECT"
        assert member not in s3.head_object(Bucket=bucket, Key=algorithm)
        wrong = base64.b64encode(b"\1" * len(base64.b64decode(put[member]))).decode()
        refused("BadDigest", s3.put_object, Bucket=bucket, Key="wrong", Body=b"other", **{member: wrong})
    attributes = s3.get_object_attributes(Bucket=bucket, Key="SHA256", ObjectAttributes=["Checksum", "ETag", "ObjectSize"])
    assert attributes["ObjectSize"] == 9 and attributes["Checksum"]["ChecksumSHA256"]
    assert attributes["ETag"].strip(chr(34)) == hashlib.md5(b"123456789").hexdigest()
    md5 = base64.b64encode(hashlib.md5(b"x").digest()).decode()
    s3.put_object(Bucket=bucket, Key="md5", Body=b"x", ContentMD5=md5)
    refused("BadDigest", s3.put_object, Bucket=bucket, Key="md5", Body=b"y", ContentMD5=md5)
    refused("InvalidDigest", s3.put_object, Bucket=bucket, Key="md5", Body=b"y", ContentMD5="short")
    refused("404", s3.head_object, Bucket=bucket, Key="wrong")


def check_trailing_checksums(s3):
    bucket = fresh(s3, "trailers")

    class Once(io.RawIOBase):  # not seekable: botocore must send the checksum as a trailer
        def __init__(self, data): self.inner = io.BytesIO(data)
        def readable(self): return True
        def seekable(self): return False
        def read(self, size=-1): return self.inner.read(size)

    data = os.urandom(300_000)
    put = client(s3={"addressing_style": "path", "payload_signing_enabled": False})
    digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
    # The framing of aws-chunked by hand: botocore uses it over TLS only.
    def send(checksum, body=data):
        framed = b"%x\r\n" % len(body) + body + b"\r\n0\r\nx-amz-checksum-sha256:" + checksum.encode() + b"\r\n\r\n"
        from botocore.auth import S3SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.credentials import Credentials
        request = AWSRequest("PUT", f"http://127.0.0.1:{PORT}/{bucket}/trailer", data=framed, headers={
            "X-Amz-Content-SHA256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER", "Content-Encoding": "aws-chunked,gzip",
            "X-Amz-Trailer": "x-amz-checksum-sha256", "X-Amz-Decoded-Content-Length": str(len(body)),
            "Content-Length": str(len(framed))})
        signer = S3SigV4Auth(Credentials("AKIAROOT", "root-secret"), "s3", "us-east-1")
        signer.payload = lambda request: "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
        signer.add_auth(request)
        wire = urllib.request.Request(request.url, data=framed, method="PUT", headers=dict(request.headers))
        return urllib.request.urlopen(wire)
    answer = send(digest)
    assert answer.headers["x-amz-checksum-sha256"] == digest
    got = put.get_object(Bucket=bucket, Key="trailer")
    assert got["Body"].read() == data and got["ContentEncoding"] == "gzip"
    try:
        send(digest, b"altered" + data)
    except urllib.error.HTTPError as error:
        assert b"<Code>BadDigest</Code>" in error.read()
    else:
        raise AssertionError("a wrong trailer was accepted")
    assert put.head_object(Bucket=bucket, Key="trailer")["ContentLength"] == len(data)


def check_altered_bodies_are_refused(s3):
    bucket = fresh(s3, "altered")
    s3.put_object(Bucket=bucket, Key="k", Body=b"before")
    plain = client(request_checksum_calculation="when_required")
    plain.meta.events.register("before-send.s3.PutObject", lambda request, **_: setattr(request, "body", b"forged"))
    refused("XAmzContentSHA256Mismatch", plain.put_object, Bucket=bucket, Key="k", Body=b"signed")
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"before"


def check_listing(s3):
    bucket = fresh(s3, "listing")
    keys = sorted([f"a/{n:03}" for n in range(25)] + ["b", "c/d/e", "ünï/ço dé", "z+z", "new\nline"], key=str.encode)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: s3.put_object(Bucket=bucket, Key=key, Body=b"1"), keys))
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, PaginationConfig={"PageSize": 7})
    assert [o["Key"] for page in pages for o in page.get("Contents", [])] == keys
    pages = s3.get_paginator("list_objects").paginate(Bucket=bucket, PaginationConfig={"PageSize": 7})
    assert [o["Key"] for page in pages for o in page.get("Contents", [])] == keys
    page = s3.list_objects_v2(Bucket=bucket, Delimiter="/")
    assert [p["Prefix"] for p in page["CommonPrefixes"]] == ["a/", "c/", "ünï/"] and page["KeyCount"] == 6
    found = []
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Delimiter="/", PaginationConfig={"PageSize": 1}):
        found += [p["Prefix"] for p in page.get("CommonPrefixes", [])] + [o["Key"] for o in page.get("Contents", [])]
    assert sorted(found) == sorted(["a/", "c/", "ünï/", "b", "z+z", "new\nline"])
    page = s3.list_objects_v2(Bucket=bucket, Prefix="a/", StartAfter="a/022", FetchOwner=True)
    assert [o["Key"] for o in page["Contents"]] == ["a/023", "a/024"] and page["Contents"][0]["Owner"]["ID"]
    page = s3.list_objects_v2(Bucket=bucket, MaxKeys=0)
    assert page["KeyCount"] == 0 and not page["IsTruncated"]
    refused("InvalidArgument", s3.list_objects_v2, Bucket=bucket, ContinuationToken="%%%")
    assert s3.get_object(Bucket=bucket, Key="new\nline")["Body"].read() == b"1"


def check_awkward_keys(s3):
    bucket = fresh(s3, "awkward")
    keys = ["a/../../../etc/passwd", "..", "dir/", "dir", "dir/x", "a//b", "/lead", "s p a c e", "x" * 700, "%2e%2e/up",
            "tab\tkey", "日本", "q?a=b&c", "#frag", "plus+plus", "." , "a" * 1024]
    for key in keys:
        s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
    for key in keys:
        assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == key.encode(), key
    assert [o["Key"] for o in s3.list_objects_v2(Bucket=bucket)["Contents"]] == sorted(keys, key=str.encode)
    refused("KeyTooLongError", s3.put_object, Bucket=bucket, Key="a" * 1025)
    done = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": key} for key in keys] + [{"Key": "missing"}]})
    assert len(done["Deleted"]) == len(keys) + 1 and "Errors" not in done
    s3.delete_bucket(Bucket=bucket)


def check_copies(s3):
    bucket = fresh(s3, "copies")
    s3.put_object(Bucket=bucket, Key="from é", Body=b"bytes", Metadata={"m": "1"}, ContentType="a/b", Tagging="t=1")
    source = {"Bucket": bucket, "Key": "from é"}
    done = s3.copy_object(Bucket=bucket, Key="to", CopySource=source)
    assert done["CopyObjectResult"]["ETag"] == s3.head_object(Bucket=bucket, Key="from é")["ETag"]
    head = s3.head_object(Bucket=bucket, Key="to")
    assert head["Metadata"] == {"m": "1"} and head["ContentType"] == "a/b"
    assert s3.get_object_tagging(Bucket=bucket, Key="to")["TagSet"] == [{"Key": "t", "Value": "1"}]
    refused("InvalidRequest", s3.copy_object, Bucket=bucket, Key="to", CopySource={"Bucket": bucket, "Key": "to"})
    s3.copy_object(Bucket=bucket, Key="to", CopySource={"Bucket": bucket, "Key": "to"}, MetadataDirective="REPLACE",
                   Metadata={"n": "2"}, ContentType="c/d", ChecksumAlgorithm="SHA256", TaggingDirective="REPLACE")
    head = s3.head_object(Bucket=bucket, Key="to", ChecksumMode="ENABLED")
    assert head["Metadata"] == {"n": "2"} and head["ContentType"] == "c/d" and head["ChecksumSHA256"]
    refused("NoSuchKey", s3.copy_object, Bucket=bucket, Key="x", CopySource={"Bucket": bucket, "Key": "none"})
    refused("PreconditionFailed", s3.copy_object, Bucket=bucket, Key="x", CopySource=source, CopySourceIfMatch='"0"')
    s3.delete_object(Bucket=bucket, Key="from é")
    assert s3.get_object(Bucket=bucket, Key="to")["Body"].read() == b"bytes"


def check_tagging(s3):
    bucket = fresh(s3, "tagging")
    s3.put_object(Bucket=bucket, Key="k", Body=b"", Tagging="a=1&b=two%20words")
    tags = s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"]
    assert tags == [{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "two words"}]
    assert s3.get_object(Bucket=bucket, Key="k")["TagCount"] == 2
    s3.put_object_tagging(Bucket=bucket, Key="k", Tagging={"TagSet": [{"Key": "c", "Value": ""}]})
    assert s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == [{"Key": "c", "Value": ""}]
    twice = {"TagSet": [{"Key": "c", "Value": "1"}, {"Key": "c", "Value": "2"}]}
    refused("InvalidTag", s3.put_object_tagging, Bucket=bucket, Key="k", Tagging=twice)
    s3.delete_object_tagging(Bucket=bucket, Key="k")
    assert s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == []
    s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": [{"Key": "team", "Value": "ml"}]})
    assert s3.get_bucket_tagging(Bucket=bucket)["TagSet"] == [{"Key": "team", "Value": "ml"}]
    s3.delete_bucket_tagging(Bucket=bucket)
    refused("NoSuchTagSet", s3.get_bucket_tagging, Bucket=bucket)


def check_versioning(s3):
    bucket = fresh(s3, "versions")
    s3.put_object(Bucket=bucket, Key="k", Body=b"0")
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    one = s3.put_object(Bucket=bucket, Key="k", Body=b"1")["VersionId"]
    two = s3.put_object(Bucket=bucket, Key="k", Body=b"2")["VersionId"]
    assert s3.get_object(Bucket=bucket, Key="k", VersionId=one)["Body"].read() == b"1"
    assert s3.get_object(Bucket=bucket, Key="k", VersionId="null")["Body"].read() == b"0"
    marker = s3.delete_object(Bucket=bucket, Key="k")
    assert marker["DeleteMarker"]
    error = refused("NoSuchKey", s3.get_object, Bucket=bucket, Key="k")
    assert error.response["ResponseMetadata"]["HTTPHeaders"]["x-amz-delete-marker"] == "true"
    refused("MethodNotAllowed", s3.get_object, Bucket=bucket, Key="k", VersionId=marker["VersionId"])
    refused("NoSuchVersion", s3.get_object, Bucket=bucket, Key="k", VersionId="0" * 32)
    listing = s3.list_object_versions(Bucket=bucket)
    assert [v["VersionId"] for v in listing["Versions"]] == [two, one, "null"]
    assert listing["DeleteMarkers"][0]["IsLatest"] and not listing["Versions"][0]["IsLatest"]
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)
    s3.delete_object(Bucket=bucket, Key="k", VersionId=marker["VersionId"])
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"2"
    s3.delete_object(Bucket=bucket, Key="k", VersionId=two)
    assert s3.get_object(Bucket=bucket, Key="k")["VersionId"] == one
    copied = s3.copy_object(Bucket=bucket, Key="k", CopySource={"Bucket": bucket, "Key": "k", "VersionId": "null"})
    assert copied["VersionId"] and s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"0"
    pages = s3.get_paginator("list_object_versions").paginate(Bucket=bucket, PaginationConfig={"PageSize": 1})
    doomed = [{"Key": v["Key"], "VersionId": v["VersionId"]} for page in pages for v in page.get("Versions", [])]
    assert len(doomed) == 3
    s3.delete_objects(Bucket=bucket, Delete={"Objects": doomed, "Quiet": True})
    s3.delete_bucket(Bucket=bucket)


def check_multipart(s3):
    bucket = fresh(s3, "multipart")
    for algorithm, kind in [("CRC32", "COMPOSITE"), ("SHA256", "COMPOSITE"), ("CRC64NVME", "FULL_OBJECT"),
                            ("CRC32C", "FULL_OBJECT")]:
        upload = s3.create_multipart_upload(Bucket=bucket, Key="k", ChecksumAlgorithm=algorithm, ChecksumType=kind,
                                            Metadata={"m": "1"}, Tagging="t=1")["UploadId"]
        bodies, parts = [os.urandom(5 * MB), os.urandom(5 * MB + 1), b"tail"], []
        for number, body in enumerate(bodies, 1):
            done = s3.upload_part(Bucket=bucket, Key="k", UploadId=upload, PartNumber=number, Body=body,
                                  ChecksumAlgorithm=algorithm)
            parts.append({"PartNumber": number, "ETag": done["ETag"], "Checksum" + algorithm: done["Checksum" + algorithm]})
        listed = s3.list_parts(Bucket=bucket, Key="k", UploadId=upload, MaxParts=2)
        assert listed["IsTruncated"] and [p["Size"] for p in listed["Parts"]] == [5 * MB, 5 * MB + 1]
        found = s3.list_multipart_uploads(Bucket=bucket)["Uploads"]
        assert [u["UploadId"] for u in found] == [upload]
        complete = lambda parts: s3.complete_multipart_upload(
            Bucket=bucket, Key="k", UploadId=upload, MultipartUpload={"Parts": parts})
        refused("InvalidPartOrder", complete, parts[::-1])
        refused("InvalidPart", complete, [{"PartNumber": 9, "ETag": parts[0]["ETag"]}])
        refused("EntityTooSmall", complete, [parts[2] | {"PartNumber": 3}] if False else
                [*small_first(s3, bucket, upload, parts, algorithm)])
        s3.upload_part(Bucket=bucket, Key="k", UploadId=upload, PartNumber=1, Body=bodies[0], ChecksumAlgorithm=algorithm)
        done = complete(parts)
        whole = b"".join(bodies)
        etag = hashlib.md5(b"".join(hashlib.md5(b).digest() for b in bodies)).hexdigest()
        assert done["ETag"] == f'"{etag}-3"', done
        got = s3.get_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
        assert got["Body"].read() == whole and got["ChecksumType"] == kind and got["Metadata"] == {"m": "1"}
        assert got["Checksum" + algorithm].endswith("-3") == (kind == "COMPOSITE")
        second = s3.get_object(Bucket=bucket, Key="k", PartNumber=2)
        assert second["Body"].read() == bodies[1] and second["PartsCount"] == 3
        attributes = s3.get_object_attributes(Bucket=bucket, Key="k", ObjectAttributes=["ObjectParts"])
        assert attributes["ObjectParts"]["TotalPartsCount"] == 3 and len(attributes["ObjectParts"]["Parts"]) == 3
        refused("NoSuchUpload", complete, parts)
    upload = s3.create_multipart_upload(Bucket=bucket, Key="copied")["UploadId"]
    one = s3.upload_part_copy(Bucket=bucket, Key="copied", UploadId=upload, PartNumber=1,
                              CopySource={"Bucket": bucket, "Key": "k"}, CopySourceRange=f"bytes=0-{5 * MB - 1}")
    two = s3.upload_part_copy(Bucket=bucket, Key="copied", UploadId=upload, PartNumber=2,
                              CopySource={"Bucket": bucket, "Key": "k"}, CopySourceRange="bytes=10-19")
    s3.complete_multipart_upload(Bucket=bucket, Key="copied", UploadId=upload, MultipartUpload={"Parts": [
        {"PartNumber": n, "ETag": part["CopyPartResult"]["ETag"]} for n, part in [(1, one), (2, two)]]})
    assert s3.get_object(Bucket=bucket, Key="copied")["Body"].read() == whole[:5 * MB] + whole[10:20]
    upload = s3.create_multipart_upload(Bucket=bucket, Key="gone")["UploadId"]
    s3.upload_part(Bucket=bucket, Key="gone", UploadId=upload, PartNumber=1, Body=b"x")
    s3.abort_multipart_upload(Bucket=bucket, Key="gone", UploadId=upload)
    refused("NoSuchUpload", s3.list_parts, Bucket=bucket, Key="gone", UploadId=upload)


def small_first(s3, bucket, upload, parts, algorithm):
    """Replaces part 1 by a small one."""
    done = s3.upload_part(Bucket=bucket, Key="k", UploadId=upload, PartNumber=1, Body=b"small", ChecksumAlgorithm=algorithm)
    return [{"PartNumber": 1, "ETag": done["ETag"], "Checksum" + algorithm: done["Checksum" + algorithm]}, parts[1]]


def check_transfer_manager(s3):
    bucket = fresh(s3, "transfers")
    data = os.urandom(20 * MB + 5)
    s3.upload_fileobj(io.BytesIO(data), bucket, "big", Config=TransferConfig(multipart_chunksize=5 * MB))
    back = io.BytesIO()
    s3.download_fileobj(bucket, "big", back, Config=TransferConfig(multipart_threshold=MB, multipart_chunksize=3 * MB))
    assert back.getvalue() == data
    s3.copy({"Bucket": bucket, "Key": "big"}, bucket, "copy", Config=TransferConfig(multipart_threshold=6 * MB))
    assert s3.head_object(Bucket=bucket, Key="copy")["ContentLength"] == len(data)


def check_presigned(s3):
    bucket = fresh(s3, "presigned")
    for version in ["s3v4", "s3"]:
        signer = client(signature_version=version)
        url = signer.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "a b/ü"})
        urllib.request.urlopen(urllib.request.Request(url, data=b"by url", method="PUT", headers={"Content-Type": ""}))
        url = signer.generate_presigned_url("get_object", Params={
            "Bucket": bucket, "Key": "a b/ü", "ResponseContentType": "x/y"})
        answer = urllib.request.urlopen(url)
        assert answer.read() == b"by url" and answer.headers["Content-Type"] == "x/y", version
        try:
            urllib.request.urlopen(url.replace("a%20b", "b%20b"))
        except urllib.error.HTTPError as error:
            assert error.code == 403
        else:
            raise AssertionError("another key was accepted")


def post_form(url, fields, data, filename="f.bin"):
    mark, lines = "form-boundary-7", []
    for name, value in fields.items():
        lines.append(f'--{mark}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode())
    lines.append(f'--{mark}\r\nContent-Disposition: form-data; name="file"; filename="{filename}"\r\n'
                 f'Content-Type: text/csv\r\n\r\n'.encode() + data + f"\r\n--{mark}--\r\n".encode())
    request = urllib.request.Request(url, data=b"".join(lines), method="POST",
                                     headers={"Content-Type": f"multipart/form-data; boundary={mark}"})
    try:
        return urllib.request.urlopen(request)
    except urllib.error.HTTPError as error:
        return error


def check_presigned_post(s3):
    bucket = fresh(s3, "forms")
    data = os.urandom(3 * MB) + b"\r\n--form-boundary"
    sign = lambda signer, **more: signer.generate_presigned_post(bucket, "in/${filename}", **more)
    s3 = client(signature_version="s3v4")  # forms of signature version 2 are not accepted
    form = sign(s3, Conditions=[["content-length-range", 10, 4 * MB], {"success_action_status": "201"}],
                Fields={"success_action_status": "201"})
    answer = post_form(form["url"], form["fields"], data, "a b.csv")
    told = answer.read()
    assert answer.status == 201 and b"<Key>in/a b.csv</Key>" in told, told
    got = s3.get_object(Bucket=bucket, Key="in/a b.csv")
    assert got["Body"].read() == data and got["ContentType"] == "text/csv"
    assert b"EntityTooSmall" in post_form(form["url"], form["fields"], b"short").read()
    assert b"EntityTooLarge" in post_form(form["url"], form["fields"], b"x" * (5 * MB)).read()
    altered = form["fields"] | {"key": "elsewhere"}
    assert post_form(form["url"], altered, data).status in (400, 403)
    refused("404", s3.head_object, Bucket=bucket, Key="elsewhere")
    plain = sign(s3)
    assert post_form(plain["url"], plain["fields"], b"").status == 204
    forged = plain["fields"] | {"x-amz-signature": "0" * 64}
    assert b"SignatureDoesNotMatch" in post_form(plain["url"], forged, b"x").read()
    denied = sign(client("READER", "reader-secret", signature_version="s3v4"))
    assert b"<Code>AccessDenied</Code>" in post_form(denied["url"], denied["fields"], b"x").read()
    assert b"<Code>AccessDenied</Code>" in post_form(plain["url"], {"key": "anonymous"}, b"x").read()
    assert [o["Key"] for o in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["in/a b.csv", "in/f.bin"]


def check_policies(s3):
    bucket, reader, other = fresh(s3, "policies"), client("READER", "reader-secret"), client("OTHER", "other-secret")
    s3.put_object(Bucket=bucket, Key="open/k", Body=b"o")
    s3.put_object(Bucket=bucket, Key="shut/k", Body=b"s")
    # Identity policy: reads and listings, nothing else (IAM-36).
    assert reader.get_object(Bucket=bucket, Key="open/k")["Body"].read() == b"o"
    reader.head_object(Bucket=bucket, Key="open/k")
    reader.get_object(Bucket=bucket, Key="open/k", Range="bytes=0-0")
    reader.list_objects_v2(Bucket=bucket)
    reader.list_objects(Bucket=bucket)
    reader.head_bucket(Bucket=bucket)
    version = s3.head_object(Bucket=bucket, Key="open/k").get("VersionId", "null")
    for call, arguments in [
        (reader.get_object, {"Key": "open/k", "VersionId": version}), (reader.put_object, {"Key": "x"}),
        (reader.delete_object, {"Key": "open/k"}), (reader.create_multipart_upload, {"Key": "x"}),
        (reader.copy_object, {"Key": "x", "CopySource": f"{bucket}/open/k"}), (reader.list_object_versions, {}),
        (reader.get_bucket_policy, {}), (reader.list_multipart_uploads, {}), (reader.get_object_tagging, {"Key": "open/k"}),
        (reader.delete_bucket, {}),
    ]:
        error = refused("AccessDenied", call, Bucket=bucket, **arguments)
    assert "user/reader is not authorized to perform: s3:DeleteBucket" in str(error), error
    failed = reader.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "open/k"}]})["Errors"]
    assert failed[0]["Code"] == "AccessDenied"
    # Another account and nobody: only with a policy.
    refused("AccessDenied", other.get_object, Bucket=bucket, Key="open/k")
    refused("AccessDenied", anonymous().get_object, Bucket=bucket, Key="open/k")
    allow = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{bucket}/open/*"}
    deny = {"Effect": "Deny", "Principal": {"AWS": "arn:aws:iam::123456789012:user/reader"}, "Action": "s3:*",
            "Resource": f"arn:aws:s3:::{bucket}/*"}
    text = json.dumps({"Version": "2012-10-17", "Statement": [allow, deny]})
    s3.put_bucket_policy(Bucket=bucket, Policy=text)
    assert s3.get_bucket_policy(Bucket=bucket)["Policy"] == text
    assert s3.get_bucket_policy_status(Bucket=bucket)["PolicyStatus"]["IsPublic"]
    assert anonymous().get_object(Bucket=bucket, Key="open/k")["Body"].read() == b"o"
    assert other.get_object(Bucket=bucket, Key="open/k")["Body"].read() == b"o"
    refused("AccessDenied", anonymous().get_object, Bucket=bucket, Key="shut/k")
    refused("AccessDenied", other.get_object, Bucket=bucket, Key="none")  # not told that it is missing
    refused("AccessDenied", reader.get_object, Bucket=bucket, Key="open/k")
    s3.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration={
        "BlockPublicPolicy": True, "RestrictPublicBuckets": True})
    refused("AccessDenied", anonymous().get_object, Bucket=bucket, Key="open/k")
    refused("AccessDenied", s3.put_bucket_policy, Bucket=bucket, Policy=text)
    s3.delete_public_access_block(Bucket=bucket)
    s3.delete_bucket_policy(Bucket=bucket)
    refused("AccessDenied", anonymous().get_object, Bucket=bucket, Key="open/k")
    for broken in ["no", "{}", json.dumps({"Statement": [allow | {"Resource": "arn:aws:s3:::other/*"}]}),
                   json.dumps({"Statement": [{k: v for k, v in allow.items() if k != "Principal"}]})]:
        refused("MalformedPolicy", s3.put_bucket_policy, Bucket=bucket, Policy=broken)


def check_access_log(s3):
    bucket = fresh(s3, "logged")
    refused("AccessDenied", client("READER", "reader-secret").put_object, Bucket=bucket, Key="k/é", Body=b"")
    with open(os.path.join(DIR, "s3-access.jsonl")) as file:
        last = json.loads(file.readlines()[-1])
    assert last["principal"] == "arn:aws:iam::123456789012:user/reader" and last["operation"] == "PutObject", last
    assert (last["bucket"], last["key"], last["status"], last["error"]) == (bucket, "k/é", 403, "AccessDenied"), last


def main():
    global PORT, DIR
    failures = 0
    with tempfile.TemporaryDirectory() as DIR:
        server = subprocess.Popen([sys.argv[1], DIR], stdout=subprocess.PIPE, text=True)
        try:
            PORT = int(server.stdout.readline())
            only = sys.argv[2:]
            for name, check in list(globals().items()):
                if name.startswith("check_") and (not only or name in only):
                    try:
                        check(client())
                        print("ok  ", name)
                    except Exception:
                        failures += 1
                        print("FAIL", name)
                        traceback.print_exc()
            left = [f for _, _, files in os.walk(os.path.join(DIR, "escape", "new")) for f in files]
            if left:
                failures += 1
                print("FAIL files left on the move:", left)
        finally:
            server.kill()
            server.wait()
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
