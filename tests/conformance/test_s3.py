"""S3 through unmodified boto3 and both aws CLIs, and by hand what these do not send."""
import base64
import concurrent.futures
import datetime
import hashlib
import hmac
import io
import json
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from boto3.s3.transfer import TransferConfig
from botocore import UNSIGNED
from botocore.exceptions import ClientError

from tests.harness.engine import ACCOUNT
from tests.harness.wire import Signer, exchange, printed, refused, signed

MB = 1 << 20
OTHER_ACCOUNT = "210987654321"
READER = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": ["s3:GetObject", "s3:ListBucket"], "Resource": "*"}]}


@pytest.fixture(scope="module")
def s3(engine):
    return engine.client("s3")


@pytest.fixture
def bucket(s3, name):
    """A bucket of the test's own."""
    s3.create_bucket(Bucket=name)
    return name


@pytest.fixture(scope="module")
def reader(engine, tmp_path_factory):
    """A user of the account who may read objects and list buckets, and how to sign as that user."""
    policy = tmp_path_factory.mktemp("reader") / "policy.json"
    policy.write_text(json.dumps(READER))
    made = printed(engine.run("user", "create", "s3-reader", "--policy", str(policy)).stdout)
    return {"key": made["aws_access_key_id"], "secret": made["aws_secret_access_key"]}


@pytest.fixture(scope="module")
def other(engine):
    """The root of another account."""
    made = printed(engine.run("account", "create", OTHER_ACCOUNT).stdout)
    return engine.client("s3", key=made["aws_access_key_id"], secret=made["aws_secret_access_key"])


@pytest.fixture(scope="module")
def anonymous(engine):
    return engine.client("s3", config={"signature_version": UNSIGNED})


def test_buckets_are_made_found_and_removed(s3, bucket, other):
    """Proves: IAM-65"""
    s3.create_bucket(Bucket=bucket)  # us-east-1: again is fine
    refused("BucketAlreadyExists", other.create_bucket, Bucket=bucket)
    refused("InvalidLocationConstraint", s3.create_bucket, Bucket=f"{bucket}-two",
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


def test_settings_that_were_never_made_answer_as_terraform_expects(s3, bucket):
    """Proves: IAM-65"""
    for call, code in [
        (s3.get_bucket_cors, "NoSuchCORSConfiguration"), (s3.get_bucket_website, "NoSuchWebsiteConfiguration"),
        (s3.get_bucket_lifecycle_configuration, "NoSuchLifecycleConfiguration"),
        (s3.get_bucket_replication, "ReplicationConfigurationNotFoundError"),
        (s3.get_bucket_encryption, "ServerSideEncryptionConfigurationNotFoundError"),
        (s3.get_object_lock_configuration, "ObjectLockConfigurationNotFoundError"),
        (s3.get_bucket_tagging, "NoSuchTagSet"), (s3.get_bucket_policy, "NoSuchBucketPolicy"),
    ]:
        error = refused(code, call, Bucket=bucket)
        assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 404
    block = s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"]
    assert len(block) == 4 and all(block.values()), "a new bucket is shut to the public"
    s3.delete_public_access_block(Bucket=bucket)
    refused("NoSuchPublicAccessBlockConfiguration", s3.get_public_access_block, Bucket=bucket)
    assert "Status" not in s3.get_bucket_versioning(Bucket=bucket)
    assert s3.get_bucket_request_payment(Bucket=bucket)["Payer"] == "BucketOwner"
    assert "Status" not in s3.get_bucket_accelerate_configuration(Bucket=bucket)
    assert "LoggingEnabled" not in s3.get_bucket_logging(Bucket=bucket)
    grants = s3.get_bucket_acl(Bucket=bucket)["Grants"]
    assert grants[0]["Permission"] == "FULL_CONTROL" and len(grants) == 1
    for call, arguments in [
        (s3.put_bucket_cors, {"CORSConfiguration": {"CORSRules": [{"AllowedMethods": ["GET"], "AllowedOrigins": ["*"]}]}}),
        (s3.put_bucket_website, {"WebsiteConfiguration": {"IndexDocument": {"Suffix": "i"}}}),
        (s3.put_bucket_lifecycle_configuration, {"LifecycleConfiguration": {
            "Rules": [{"Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 1}}]}}),
        (s3.put_bucket_logging, {"BucketLoggingStatus": {}}),
    ]:
        refused("NotImplemented", call, Bucket=bucket, **arguments)
    # A setting that the server does not know never becomes a deletion of the bucket.
    refused("NotImplemented", s3.delete_bucket_metadata_configuration, Bucket=bucket)
    s3.head_bucket(Bucket=bucket)


def test_objects_keep_their_bytes_and_headers(s3, bucket):
    """Proves: IAM-65"""
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
    refused("NotImplemented", s3.put_object, Bucket=bucket, Key="x", ServerSideEncryption="aws:kms:dsse")
    refused("AccessControlListNotSupported", s3.put_object, Bucket=bucket, Key="x", ACL="public-read")
    s3.put_object(Bucket=bucket, Key="x", ACL="bucket-owner-full-control")
    for harmless in ("bucket-owner-full-control", "private"):
        s3.put_object_acl(Bucket=bucket, Key="x", ACL=harmless)
    refused("AccessControlListNotSupported", s3.put_object_acl, Bucket=bucket, Key="x", ACL="public-read")
    refused("AccessControlListNotSupported", s3.put_object_acl, Bucket=bucket, Key="x", GrantRead="id=1")
    refused("NoSuchKey", s3.put_object_acl, Bucket=bucket, Key="nothing", ACL="private")
    assert len(s3.get_object_acl(Bucket=bucket, Key="x")["Grants"]) == 1
    got = s3.get_object(Bucket=bucket, Key="dir/k", ResponseContentType="a/b", ResponseContentDisposition="attachment")
    assert got["ContentType"] == "a/b" and got["ContentDisposition"] == "attachment"
    assert s3.get_object(Bucket=bucket, Key="x")["ContentType"] == "binary/octet-stream"
    s3.put_object(Bucket=bucket, Key="empty")
    assert s3.get_object(Bucket=bucket, Key="empty")["Body"].read() == b""


def test_ranges_are_read_as_asked(s3, bucket):
    """Proves: IAM-65"""
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


def test_conditional_reads_hold(s3, bucket):
    """Proves: IAM-65"""
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"x")["ETag"]
    modified = s3.head_object(Bucket=bucket, Key="k")["LastModified"]
    s3.get_object(Bucket=bucket, Key="k", IfMatch=etag)
    refused("PreconditionFailed", s3.get_object, Bucket=bucket, Key="k", IfMatch='"0"')
    refused("304", s3.get_object, Bucket=bucket, Key="k", IfNoneMatch=etag)
    refused("304", s3.head_object, Bucket=bucket, Key="k", IfModifiedSince=modified)
    s3.get_object(Bucket=bucket, Key="k", IfUnmodifiedSince=modified)
    refused("412", s3.head_object, Bucket=bucket, Key="k", IfUnmodifiedSince=modified.replace(year=2001))


def test_conditional_writes_let_exactly_one_in(engine, s3, bucket):
    """Proves: IAM-65"""
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"1", IfNoneMatch="*")["ETag"]
    refused("PreconditionFailed", s3.put_object, Bucket=bucket, Key="k", Body=b"2", IfNoneMatch="*")
    refused("PreconditionFailed", s3.put_object, Bucket=bucket, Key="k", Body=b"2", IfMatch='"0"')
    s3.put_object(Bucket=bucket, Key="k", Body=b"2", IfMatch=etag)
    refused("NoSuchKey", s3.put_object, Bucket=bucket, Key="none", Body=b"2", IfMatch=etag)
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"2"

    def race(n):
        try:
            engine.client("s3").put_object(Bucket=bucket, Key="lock", Body=str(n).encode(), IfNoneMatch="*")
            return 1
        except ClientError:
            return 0
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(race, range(8))) == 1


def test_every_checksum_is_verified_kept_and_told(s3, bucket):
    """Proves: IAM-65"""
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


def test_a_body_altered_after_signing_is_refused(engine, s3, bucket):
    """Proves: IAM-42"""
    s3.put_object(Bucket=bucket, Key="k", Body=b"before")
    plain = engine.client("s3", config={"request_checksum_calculation": "when_required"})
    plain.meta.events.register("before-send.s3.PutObject", lambda request, **_: setattr(request, "body", b"forged"))
    refused("XAmzContentSHA256Mismatch", plain.put_object, Bucket=bucket, Key="k", Body=b"signed")
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"before"


def test_listings_page_group_and_order_their_keys(s3, bucket):
    """Proves: IAM-65"""
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


def test_awkward_keys_stay_within_their_bucket(s3, bucket):
    """Proves: IAM-65"""
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


def test_copies_carry_or_replace_what_belongs_to_the_object(s3, bucket):
    """Proves: IAM-65"""
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


def test_tags_are_kept_on_objects_and_buckets(s3, bucket):
    """Proves: IAM-65"""
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


def test_versions_and_delete_markers_behave(s3, bucket):
    """Proves: IAM-65"""
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


def test_multipart_uploads_join_their_parts(s3, bucket):
    """Proves: IAM-36, IAM-65"""
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

        def complete(parts):
            return s3.complete_multipart_upload(Bucket=bucket, Key="k", UploadId=upload, MultipartUpload={"Parts": parts})

        refused("InvalidPartOrder", complete, parts[::-1])
        refused("InvalidPart", complete, [{"PartNumber": 9, "ETag": parts[0]["ETag"]}])
        refused("EntityTooSmall", complete, small_first(s3, bucket, upload, parts, algorithm))
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


def test_the_transfer_manager_moves_large_objects(s3, bucket):
    """Proves: IAM-65"""
    data = os.urandom(20 * MB + 5)
    s3.upload_fileobj(io.BytesIO(data), bucket, "big", Config=TransferConfig(multipart_chunksize=5 * MB))
    back = io.BytesIO()
    s3.download_fileobj(bucket, "big", back, Config=TransferConfig(multipart_threshold=MB, multipart_chunksize=3 * MB))
    assert back.getvalue() == data
    s3.copy({"Bucket": bucket, "Key": "big"}, bucket, "copy", Config=TransferConfig(multipart_threshold=6 * MB))
    assert s3.head_object(Bucket=bucket, Key="copy")["ContentLength"] == len(data)


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


def test_presigned_forms_upload_within_their_conditions(engine, s3, bucket, reader):
    """Proves: IAM-42, IAM-65"""
    data = os.urandom(3 * MB) + b"\r\n--form-boundary"

    def sign(signer, **more):
        return signer.generate_presigned_post(bucket, "in/${filename}", **more)

    s3 = engine.client("s3", config={"signature_version": "s3v4"})  # forms of signature version 2 are not accepted
    form = sign(s3, Conditions=[["content-length-range", 10, 4 * MB], {"success_action_status": "201"}],
                Fields={"success_action_status": "201"})
    answer = post_form(form["url"], form["fields"], data, "a b.csv")
    told = answer.read()
    assert answer.status == 201 and b"<Key>in/a b.csv</Key>" in told, told
    got = s3.get_object(Bucket=bucket, Key="in/a b.csv")
    assert got["Body"].read() == data and got["ContentType"] == "text/csv"
    assert b"EntityTooSmall" in post_form(form["url"], form["fields"], b"short").read()
    # More than any socket buffers: the answer reaches a client that is still sending when it is refused.
    long = b"x" * (5 * MB)
    narrow = sign(s3, Conditions=[["content-length-range", 10, 1000]])
    assert b"EntityTooLarge" in post_form(narrow["url"], narrow["fields"], long).read()
    assert b"EntityTooLarge" in post_form(form["url"], form["fields"], long).read()
    altered = form["fields"] | {"key": "elsewhere"}
    refusal = post_form(form["url"], altered, long)
    assert refusal.status in (400, 403) and b"<Code>" in refusal.read()
    refused("404", s3.head_object, Bucket=bucket, Key="elsewhere")
    plain = sign(s3)
    assert post_form(plain["url"], plain["fields"], b"").status == 204
    forged = plain["fields"] | {"x-amz-signature": "0" * 64}
    assert b"SignatureDoesNotMatch" in post_form(plain["url"], forged, b"x").read()
    denied = sign(engine.client("s3", config={"signature_version": "s3v4"}, **reader))
    assert b"<Code>AccessDenied</Code>" in post_form(denied["url"], denied["fields"], b"x").read()
    assert b"<Code>AccessDenied</Code>" in post_form(plain["url"], {"key": "anonymous"}, b"x").read()
    assert [o["Key"] for o in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["in/a b.csv", "in/f.bin"]


def test_a_form_is_signed_for_a_region_that_is_served(engine, s3, bucket):
    """Proves: IAM-46"""
    for region, status, code in [("us-east-1", 204, b""), ("eu-west-1", 400, b"<Code>AuthorizationHeaderMalformed</Code>")]:
        signer = Signer(*engine.credentials(), "s3", region=region)
        now = datetime.datetime.now(datetime.timezone.utc)
        signer.stamp = now.strftime("%Y%m%dT%H%M%SZ")
        fields = {"key": region, "x-amz-algorithm": "AWS4-HMAC-SHA256", "x-amz-credential": f"{signer.key}/{signer.scope()}",
                  "x-amz-date": signer.stamp}
        document = {"expiration": (now + datetime.timedelta(minutes=5)).strftime("%Y-%m-%dT%H:%M:%SZ"),
                    "conditions": [{"bucket": bucket}, *({name: value} for name, value in fields.items())]}
        policy = base64.b64encode(json.dumps(document).encode())
        mark = hmac.new(signer.derived(), policy, hashlib.sha256).hexdigest()
        answer = post_form(f"{engine.url}/{bucket}", fields | {"policy": policy.decode(), "x-amz-signature": mark}, b"x")
        told = answer.read()
        assert answer.status == status and code in told, told
    assert [found["Key"] for found in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["us-east-1"]


def test_presigned_urls_work_as_both_signers_make_them(engine, bucket):
    """The client's own choice for loopback is signature version 2.

    Proves: IAM-42, IAM-65
    """
    for config in ({}, {"signature_version": "s3"}, {"signature_version": "s3v4"}):
        signer = engine.client("s3", config=config)
        url = signer.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "a b/ü"})
        urllib.request.urlopen(urllib.request.Request(url, data=b"by url", method="PUT", headers={"Content-Type": ""}))
        url = signer.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "a b/ü", "ResponseContentType": "x/y"})
        answer = urllib.request.urlopen(url)
        assert answer.read() == b"by url" and answer.headers["Content-Type"] == "x/y", config
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(url.replace("a%20b", "b%20b"))
        assert error.value.code == 403 and b"<Code>SignatureDoesNotMatch</Code>" in error.value.read()


def test_a_presigned_url_ends_when_it_says(engine, s3, bucket):
    """Proves: IAM-44"""
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    week = 7 * 86400

    def got(age, lifetime):
        signer = Signer(*engine.credentials(), "s3", late=datetime.timedelta(seconds=age))
        url = signer.presigned(engine.url, "GET", f"/{bucket}/k", lifetime)
        return exchange(engine.url, "GET", url.removeprefix(engine.url))

    for age, lifetime in ((0, 1000), (600, 700), (86400, week), (-600, 60)):
        assert got(age, lifetime).body == b"x", (age, lifetime)
    assert (got(600, 500).status, got(600, 500).code) == (403, "AccessDenied")
    assert got(-1000, 60).status == 403
    for lifetime in (0, week + 1, "soon"):
        assert (got(0, lifetime).status, got(0, lifetime).code) == (400, "AuthorizationQueryParametersError")


def trailing(engine, bucket, checksum, body):
    """Sends a body in unsigned chunks with a checksum behind it, as clients do over TLS."""
    framed = b"%x\r\n" % len(body) + body + b"\r\n0\r\nx-amz-checksum-sha256:" + checksum.encode() + b"\r\n\r\n"
    headers = {
        "content-encoding": "aws-chunked,gzip", "x-amz-trailer": "x-amz-checksum-sha256",
        "x-amz-decoded-content-length": str(len(body)),
    }
    return signed(engine, "s3", "PUT", f"/{bucket}/trailer", headers, framed, payload="STREAMING-UNSIGNED-PAYLOAD-TRAILER")


def test_a_checksum_behind_the_body_is_verified(engine, s3, bucket):
    """Proves: IAM-42, IAM-65"""
    data = os.urandom(300_000)
    digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
    answer = trailing(engine, bucket, digest, data)
    assert answer.status == 200 and answer.headers["x-amz-checksum-sha256"] == digest, answer.body
    got = s3.get_object(Bucket=bucket, Key="trailer")
    assert got["Body"].read() == data and got["ContentEncoding"] == "gzip"
    assert trailing(engine, bucket, digest, b"altered" + data).code == "BadDigest"
    assert s3.head_object(Bucket=bucket, Key="trailer")["ContentLength"] == len(data)


@pytest.mark.parametrize("with_trailer", [False, True])
def test_signed_chunks_are_each_verified(engine, s3, bucket, with_trailer):
    """Proves: IAM-42"""
    key, secret = engine.credentials()
    host = engine.url.removeprefix("http://")
    pieces = [os.urandom(64 * 1024), os.urandom(64 * 1024), os.urandom(1000)]
    whole = b"".join(pieces)
    trailer = ("x-amz-checksum-sha1", base64.b64encode(hashlib.sha1(whole).digest()).decode()) if with_trailer else None
    kind = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD" + ("-TRAILER" if trailer else "")

    def put(target, spoil=lambda framed: framed):
        signer = Signer(key, secret, "s3")
        given = {"content-encoding": "aws-chunked", "x-amz-decoded-content-length": str(len(whole))}
        if trailer:
            given["x-amz-trailer"] = trailer[0]
        headers = signer.headers(host, "PUT", target, headers=given, payload=kind)
        framed = spoil(signer.chunks(pieces, trailer))
        return exchange(engine.url, "PUT", target, headers | {"content-length": str(len(framed))}, framed)

    answer = put(f"/{bucket}/good")
    assert answer.status == 200, answer.body
    got = s3.get_object(Bucket=bucket, Key="good", ChecksumMode="ENABLED")
    assert got["Body"].read() == whole and "ContentEncoding" not in got
    if trailer:
        assert got["ChecksumSHA1"] == trailer[1]

    def another_byte(framed):
        at = len(framed) // 2
        return framed[:at] + bytes([framed[at] ^ 1]) + framed[at + 1:]

    def another_order(framed):
        first = len(b"10000;chunk-signature=") + 64 + 2 + 64 * 1024 + 2
        return framed[first:2 * first] + framed[:first] + framed[2 * first:]

    spoilt = [another_byte, another_order]
    if trailer:
        spoilt.append(lambda framed: framed.replace(trailer[1].encode(), b"A" * 27 + b"="))
    for number, spoil in enumerate(spoilt):
        answer = put(f"/{bucket}/spoilt", spoil)
        assert (answer.status, answer.code) == (403, "SignatureDoesNotMatch"), (number, answer.body)
    refused("404", s3.head_object, Bucket=bucket, Key="spoilt")


def test_signature_faults_have_the_codes_of_s3(engine, s3, bucket):
    """Proves: IAM-44, IAM-45, IAM-46, IAM-47"""
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    target = f"/{bucket}/k"
    assert signed(engine, "s3", "GET", target).body == b"x"
    assert signed(engine, "s3", "GET", target, late=datetime.timedelta(minutes=14)).body == b"x"
    for mistake, status, code in [
        ({"key": "AKIAAAAAAAAAAAAAAAAA"}, 403, "InvalidAccessKeyId"),
        ({"secret": "x" * 40}, 403, "SignatureDoesNotMatch"),
        ({"signature": "0" * 64}, 403, "SignatureDoesNotMatch"),
        ({"late": datetime.timedelta(minutes=16)}, 403, "RequestTimeTooSkewed"),
        ({"late": datetime.timedelta(minutes=-16)}, 403, "RequestTimeTooSkewed"),
        ({"token": "made-up"}, 400, "InvalidToken"),
        ({"region": "eu-west-1"}, 400, "AuthorizationHeaderMalformed"),
    ]:
        answer = signed(engine, "s3", "GET", target, **mistake)
        assert (answer.status, answer.code) == (status, code), (mistake, answer.body)
    answer = signed(engine, "s3", "GET", target, key="AKIAAAAAAAAAAAAAAAAA")
    assert b"<Message>The AWS Access Key Id you provided does not exist in our records.</Message>" in answer.body
    answer = exchange(engine.url, "GET", target)
    assert (answer.status, answer.code) == (403, "AccessDenied")


def test_errors_carry_message_resource_and_request_ids(engine, s3, bucket):
    """Proves: IAM-48"""
    for call, arguments, code, resource in [
        (s3.get_object, {"Bucket": bucket, "Key": "none ü"}, "NoSuchKey", f"/{bucket}/none%20%C3%BC"),
        (s3.list_objects_v2, {"Bucket": "no-such-bucket-here"}, "NoSuchBucket", "/no-such-bucket-here"),
        (s3.get_bucket_policy, {"Bucket": bucket}, "NoSuchBucketPolicy", f"/{bucket}"),
        (s3.create_bucket, {"Bucket": "Not-Valid"}, "InvalidBucketName", "/Not-Valid"),
        (s3.put_object, {"Bucket": bucket, "Key": "k", "Body": b"x", "ContentMD5": "short"}, "InvalidDigest", f"/{bucket}/k"),
        (s3.put_bucket_cors, {"Bucket": bucket, "CORSConfiguration": {"CORSRules": [
            {"AllowedMethods": ["GET"], "AllowedOrigins": ["*"]}]}}, "NotImplemented", f"/{bucket}"),
    ]:
        told = refused(code, call, **arguments).response
        error, meta = told["Error"], told["ResponseMetadata"]
        assert error["Message"] not in ("", "Unknown", code), (code, error)
        assert error["Resource"] == resource, error
        assert meta["RequestId"] == meta["HTTPHeaders"]["x-amz-request-id"] and meta["HostId"] == meta["HTTPHeaders"]["x-amz-id-2"], told
    answer = signed(engine, "s3", "GET", f"/{bucket}/none")
    for member, header in ((b"RequestId", "x-amz-request-id"), (b"HostId", "x-amz-id-2")):
        assert b"<%s>%s</%s>" % (member, answer.headers[header].encode(), member) in answer.body, answer
    for method, target in [("GET", "/"), ("GET", f"/{bucket}"), ("PUT", f"/{bucket}/k"), ("POST", f"/{bucket}?delete"), ("PATCH", "/x/y")]:
        answer = exchange(engine.url, method, target)
        assert 400 <= answer.status < 500 and answer.code and b"<Message>" in answer.body, (method, target, answer)
        assert answer.headers["content-type"] == "application/xml"


def test_errors_of_head_have_a_status_and_no_body(engine, s3, bucket, reader):
    """Proves: IAM-48"""
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    for answer, status in [
        (signed(engine, "s3", "HEAD", f"/{bucket}/k"), 200),
        (signed(engine, "s3", "HEAD", f"/{bucket}/none"), 404),
        (signed(engine, "s3", "HEAD", "/no-such-bucket-here"), 404),
        (signed(engine, "s3", "HEAD", f"/{bucket}/k", secret="x" * 40), 403),
        (exchange(engine.url, "HEAD", f"/{bucket}/k"), 403),
    ]:
        assert answer.status == status and answer.body == b"" and answer.headers["x-amz-request-id"], answer
    limited = engine.client("s3", **reader)
    assert limited.head_object(Bucket=bucket, Key="k")["ContentLength"] == 1
    assert "Forbidden" in str(refused("403", limited.head_object, Bucket=bucket, Key="k", VersionId="null"))
    assert "Not Found" in str(refused("404", s3.head_object, Bucket=bucket, Key="none"))


def test_the_expected_owner_of_a_bucket_is_compared(s3, bucket):
    """Proves: IAM-65"""
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", ExpectedBucketOwner=ACCOUNT)
    for call, arguments in [
        (s3.get_object, {"Key": "k"}), (s3.put_object, {"Key": "k", "Body": b"y"}), (s3.delete_object, {"Key": "k"}),
        (s3.list_objects_v2, {}), (s3.get_bucket_policy, {}), (s3.create_multipart_upload, {"Key": "k"}),
        (s3.copy_object, {"Key": "c", "CopySource": f"{bucket}/k"}),
    ]:
        refused("AccessDenied", call, Bucket=bucket, ExpectedBucketOwner="111111111111", **arguments)
    refused("AccessDenied", s3.copy_object, Bucket=bucket, Key="c", CopySource=f"{bucket}/k", ExpectedSourceBucketOwner="111111111111")
    assert s3.get_object(Bucket=bucket, Key="k", ExpectedBucketOwner=ACCOUNT)["Body"].read() == b"x"


def test_more_than_a_thousand_keys_come_in_pages(s3, bucket):
    """Proves: IAM-65"""
    keys = sorted([f"many/{n:04}" for n in range(1003)] + ["other/one", "root"])
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: s3.put_object(Bucket=bucket, Key=key, Body=b""), keys))
    page = s3.list_objects_v2(Bucket=bucket)
    assert page["IsTruncated"] and page["KeyCount"] == page["MaxKeys"] == 1000 and page["NextContinuationToken"]
    for operation in ("list_objects_v2", "list_objects", "list_object_versions"):
        member = "Versions" if operation.endswith("versions") else "Contents"
        pages = list(s3.get_paginator(operation).paginate(Bucket=bucket))
        assert [entry["Key"] for page in pages for entry in page[member]] == keys and len(pages) == 2, operation
        grouped = getattr(s3, operation)(Bucket=bucket, Delimiter="/")
        assert [group["Prefix"] for group in grouped["CommonPrefixes"]] == ["many/", "other/"] and not grouped["IsTruncated"]
        assert [entry["Key"] for entry in grouped[member]] == ["root"]
    doomed = [{"Key": key} for key in keys]
    refused("MalformedXML", s3.delete_objects, Bucket=bucket, Delete={"Objects": doomed})
    assert len(s3.delete_objects(Bucket=bucket, Delete={"Objects": doomed[:1000]})["Deleted"]) == 1000
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 5


def test_policies_decide_for_users_accounts_and_strangers(engine, s3, bucket, reader, other, anonymous):
    """Proves: IAM-36, IAM-47, IAM-59, IAM-60, IAM-62, IAM-65"""
    reader = engine.client("s3", **reader)
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
    assert "user/s3-reader is not authorized to perform: s3:DeleteBucket" in str(error), error
    failed = reader.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "open/k"}]})["Errors"]
    assert failed[0]["Code"] == "AccessDenied"
    # Another account and nobody: only with a policy.
    refused("AccessDenied", other.get_object, Bucket=bucket, Key="open/k")
    refused("AccessDenied", anonymous.get_object, Bucket=bucket, Key="open/k")
    allow = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{bucket}/open/*"}
    deny = {"Effect": "Deny", "Principal": {"AWS": "arn:aws:iam::123456789012:user/s3-reader"}, "Action": "s3:*",
            "Resource": f"arn:aws:s3:::{bucket}/*"}
    text = json.dumps({"Version": "2012-10-17", "Statement": [allow, deny]})
    refused("AccessDenied", s3.put_bucket_policy, Bucket=bucket, Policy=text)
    s3.delete_public_access_block(Bucket=bucket)
    s3.put_bucket_policy(Bucket=bucket, Policy=text)
    assert s3.get_bucket_policy(Bucket=bucket)["Policy"] == text
    assert s3.get_bucket_policy_status(Bucket=bucket)["PolicyStatus"]["IsPublic"]
    assert anonymous.get_object(Bucket=bucket, Key="open/k")["Body"].read() == b"o"
    assert other.get_object(Bucket=bucket, Key="open/k")["Body"].read() == b"o"
    refused("AccessDenied", anonymous.get_object, Bucket=bucket, Key="shut/k")
    refused("AccessDenied", other.get_object, Bucket=bucket, Key="none")  # not told that it is missing
    refused("AccessDenied", reader.get_object, Bucket=bucket, Key="open/k")
    s3.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration={
        "BlockPublicPolicy": True, "RestrictPublicBuckets": True})
    refused("AccessDenied", anonymous.get_object, Bucket=bucket, Key="open/k")
    refused("AccessDenied", s3.put_bucket_policy, Bucket=bucket, Policy=text)
    for wide in [{"IpAddress": {"aws:SourceIp": ["0.0.0.0/1", "128.0.0.0/1"]}}, {"StringLike": {"aws:userid": "?*"}}]:
        reaching = json.dumps({"Version": "2012-10-17", "Statement": [allow | {"Condition": wide}]})
        refused("AccessDenied", s3.put_bucket_policy, Bucket=bucket, Policy=reaching)
        s3.delete_public_access_block(Bucket=bucket)
        s3.put_bucket_policy(Bucket=bucket, Policy=reaching)
        assert anonymous.get_object(Bucket=bucket, Key="open/k")["Body"].read() == b"o", "control: the statement reaches"
        s3.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration={
            "BlockPublicPolicy": True, "RestrictPublicBuckets": True})
        refused("AccessDenied", anonymous.get_object, Bucket=bucket, Key="open/k")
        refused("AccessDenied", other.get_object, Bucket=bucket, Key="open/k")
    s3.delete_public_access_block(Bucket=bucket)
    s3.delete_bucket_policy(Bucket=bucket)
    refused("AccessDenied", anonymous.get_object, Bucket=bucket, Key="open/k")
    for broken in ["no", "{}", json.dumps({"Statement": [allow | {"Resource": "arn:aws:s3:::other/*"}]}),
                   json.dumps({"Statement": [{k: v for k, v in allow.items() if k != "Principal"}]})]:
        refused("MalformedPolicy", s3.put_bucket_policy, Bucket=bucket, Policy=broken)


def test_the_access_log_names_who_did_what(engine, bucket, reader):
    """Proves: IAM-27"""
    refused("AccessDenied", engine.client("s3", **reader).put_object, Bucket=bucket, Key="k/é", Body=b"")
    entries = [json.loads(line) for line in (engine.data / "logs/s3-access.log").read_text().splitlines()]
    (mine,) = [entry for entry in entries if entry.get("bucket") == bucket and entry.get("key")]
    assert mine["principal"] == f"arn:aws:iam::{ACCOUNT}:user/s3-reader" and mine["operation"] == "PutObject", mine
    assert (mine["key"], mine["status"], mine["error"]) == ("k/é", 403, "AccessDenied"), mine


def test_a_connection_is_kept_only_by_those_who_got_leave_to_send(engine, s3, bucket):
    """Proves: IAM-65

    An empty object is answered before leave to send: the aws CLI misreads its next answer on the same connection.
    """
    host = urlsplit(engine.url)
    signer = Signer(*engine.credentials(), "s3")
    with socket.create_connection((host.hostname, host.port), timeout=30) as connection, connection.makefile("rb") as answers:

        def put(key, body):
            headers = signer.headers(host.netloc, "PUT", f"/{bucket}/{key}", body, {"expect": "100-continue"})
            headers["content-length"] = str(len(body))
            lines = [f"PUT /{bucket}/{key} HTTP/1.1"] + [f"{name}: {value}" for name, value in headers.items()]
            connection.sendall("\r\n".join(lines + ["", ""]).encode())
            first = head()
            if first[0].split()[1] == "100":
                connection.sendall(body)
                return ["100", *head()]
            return first

        def head():
            lines = []
            while line := answers.readline().strip().decode():
                lines.append(line.lower())
            return lines

        for key in ("one", "two"):
            told = put(key, b"leave is given")
            assert told[0] == "100" and " 200 " in told[1] and "connection: close" not in told, told
        told = put("empty", b"")
        assert " 200 " in told[0] and "connection: close" in told, told
        assert answers.read() == b""
    assert [found["Size"] for found in s3.list_objects_v2(Bucket=bucket)["Contents"]] == [0, 14, 14]


@pytest.fixture(params=[1, 2])
def aws(request, engine):
    """Runs one of the two generations of the aws CLI on S3 and returns what it printed."""
    program = str(Path(sys.executable).parent / "aws") if request.param == 1 else "/usr/bin/aws"

    def run(*arguments, code=0):
        command = [program, "--endpoint-url", engine.url, *map(str, arguments)]
        done = subprocess.run(command, env=engine.environment(), text=True, capture_output=True, timeout=60)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    run.generation = request.param
    return run


def tree(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_cli_copies_syncs_lists_and_removes(aws, s3, name, tmp_path):
    """Proves: IAM-42, IAM-65"""
    bucket = f"s3://{name}-{aws.generation}"
    assert "make_bucket" in aws("s3", "mb", bucket)
    source = tmp_path / "source"
    for path, data in {"a.txt": b"a", "deep/er/b.bin": os.urandom(1000), "ünï cödé/c+d &.txt": b"c", "empty": b""}.items():
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_bytes(data)
    big = os.urandom(9 * MB + 1)
    (source / "big").write_bytes(big)
    aws("s3", "sync", source, f"{bucket}/tree", "--no-progress")
    back = tmp_path / "back"
    aws("s3", "sync", f"{bucket}/tree", back, "--no-progress")
    assert tree(back) == tree(source)
    assert aws("s3", "sync", source, f"{bucket}/tree", "--no-progress") == ""
    assert s3.head_object(Bucket=f"{name}-{aws.generation}", Key="tree/big")["ETag"].endswith('-2"')
    (source / "a.txt").unlink()
    assert "delete: " in aws("s3", "sync", source, f"{bucket}/tree", "--delete", "--no-progress")
    assert "delete: " in aws("s3", "sync", f"{bucket}/tree", back, "--delete", "--no-progress")
    assert tree(back) == tree(source) and "a.txt" not in tree(back)
    aws("s3", "cp", source / "big", f"{bucket}/big copy", "--no-progress")
    aws("s3", "cp", f"{bucket}/big copy", f"{bucket}/again", "--no-progress")
    aws("s3", "cp", f"{bucket}/again", tmp_path / "again", "--no-progress")
    assert (tmp_path / "again").read_bytes() == big
    listed = aws("s3", "ls", f"{bucket}/tree/")
    assert "PRE deep/" in listed and "PRE ünï cödé/" in listed and f"{len(big)} big" in listed
    assert "Total Objects: 6" in aws("s3", "ls", bucket, "--recursive", "--summarize")
    assert bucket.removeprefix("s3://") in aws("s3", "ls")
    assert "NoSuchKey" in aws("s3api", "get-object", "--bucket", bucket.removeprefix("s3://"), "--key", "none", tmp_path / "x", code=255 if aws.generation == 1 else 254)
    url = aws("s3", "presign", f"{bucket}/again").strip()
    assert urllib.request.urlopen(url).read() == big
    aws("s3", "rm", f"{bucket}/again")
    assert "BucketNotEmpty" in aws("s3", "rb", bucket, code=1)
    assert "remove_bucket" in aws("s3", "rb", bucket, "--force")
    refused("404", s3.head_bucket, Bucket=bucket.removeprefix("s3://"))
