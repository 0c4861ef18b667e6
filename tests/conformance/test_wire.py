"""What the server says to requests that no client sends, and to every operation that botocore can write."""
import base64
import contextlib
import datetime
import hashlib
import http.client
import json
import re

import botocore.exceptions
import botocore.session
import pytest

from tests.harness.models import SERVED, SERVICES, Speaker, Writer
from tests.harness.wire import ask, empty_members, exchange, printed, refused, signed

JSON = "application/x-amz-json-1.1"
FORM = "application/x-www-form-urlencoded; charset=utf-8"
PROTOCOLS = [pytest.param(name, signing, protocol, id=f"{name}-{protocol}") for name, signing, protocols in SERVICES for protocol in protocols]


@pytest.fixture(scope="module")
def stranger(engine):
    """Root of an account that nothing else uses."""
    return printed(engine.run("account", "create", "333333333333").stdout)


@pytest.fixture
def speaker(engine, stranger):
    with contextlib.ExitStack() as stack:
        def make(service, signing, protocol):
            connection = http.client.HTTPConnection(engine.url.removeprefix("http://"), timeout=30)
            stack.callback(connection.close)
            return Speaker(engine, connection, stranger, service, signing, protocol)

        yield make


def assert_error(answer, parsed, what):
    """A refusal that a client can read."""
    error = parsed.get("Error", {})
    # KMS says no more about a ciphertext than that it is none.
    silent = error.get("Code") == "InvalidCiphertextException"
    assert error.get("Code") and (silent or error.get("Message") not in (None, "", "Unknown")), (what, answer)
    assert "x-amzn-requestid" in answer.headers and not error["Code"].isdigit() and b"<html" not in answer.body.lower(), (what, answer)


@pytest.mark.parametrize("service, signing, protocol", PROTOCOLS)
def test_every_operation_that_is_not_served_is_named_in_its_refusal(speaker, service, signing, protocol):
    """Proves: SM-3"""
    speaks, writer, unreached = speaker(service, signing, protocol), Writer(), []
    served = SERVED[service]["operations"]
    names = [name for name in speaks.model.operation_names if name not in served]
    for name in names:
        operation = speaks.model.operation_model(name)
        parameters = writer.value(operation.input_shape) if operation.input_shape else {}
        answer, parsed = speaks.say(operation, parameters)
        assert answer.status == 400, (name, answer)
        assert_error(answer, parsed, name)
        if parsed["Error"]["Code"] != "UnsupportedOperation":
            # A pattern with look-ahead or the like, for which no example was found.
            assert "regular expression pattern" in parsed["Error"]["Message"], (name, parameters, answer)
            unreached.append((name, parsed["Error"]["Message"]))
            continue
        assert f"operation {name} " in parsed["Error"]["Message"], parsed
    assert len(unreached) * 20 <= len(names), unreached


def listed(service, operation):
    """The path of what an operation lists page by page."""
    try:
        return "." + botocore.session.get_session().get_paginator_model(service).get_paginator(operation)["result_key"]
    except (ValueError, botocore.exceptions.DataNotFoundError):
        return None


def is_null(told, path):
    """Whether the member at a path of `empty_members` is null."""
    for step in re.findall(r"\.([^.\[]+)|\[(\d+)\]", path):
        told = told[step[0]] if step[0] else told[int(step[1])]
    return told is None


@pytest.mark.parametrize("service, signing, protocol", PROTOCOLS)
def test_whatever_the_serializer_writes_is_answered_in_its_protocol(speaker, service, signing, protocol):
    """Proves: IAM-48, SM-3"""
    speaks, writer = speaker(service, signing, protocol), Writer(seed=f"{service} {protocol}")
    statuses = set()
    for name in speaks.model.operation_names:
        operation = speaks.model.operation_model(name)
        for _ in range(2):
            parameters = writer.value(operation.input_shape) if operation.input_shape else {}
            answer, parsed = speaks.say(operation, parameters)
            assert answer.status < 500, (name, parameters, answer)
            statuses.add(answer.status)
            if answer.status < 300 and answer.body.startswith(b"{"):
                told = json.loads(answer.body)
                faults = list(empty_members(told, operation.output_shape)) if operation.output_shape else []
                # Lists and maps that are empty say so in other services, as AWS's do, and so does what a list operation lists.
                strict = [fault for fault in faults if service == "sagemaker" and fault != listed(service, name) or is_null(told, fault)]
                assert strict == [], (name, answer.body)
            if answer.status >= 300:
                assert_error(answer, parsed, (name, parameters))
    assert 400 in statuses


def json_call(engine, service, target, body, **more):
    headers = {"content-type": more.pop("media", JSON), "x-amz-target": target}
    return signed(engine, service, "POST", more.pop("path", "/"), headers, body, **more)


def form_call(engine, service, body, **more):
    return signed(engine, service, "POST", "/", {"content-type": more.pop("media", FORM)}, body, **more)


def assert_refused(answer, status, code, what):
    """The code in the language of the service, with words, and never a page."""
    assert (answer.status, answer.code) == (status, code), (what, answer)
    assert b"<html" not in answer.body.lower() and re.search(rb"[Mm]essage", answer.body), (what, answer)


def test_malformed_bodies_are_refused_in_the_language_of_the_service(engine):
    """Proves: IAM-48, SM-3"""
    for body in (b"", b"{}"):
        assert json_call(engine, "sagemaker", "SageMaker.ListModels", body).status == 200, "control"
    for body in (b"{", b"[]", b"null", b'"x"', b"{}{}", b'{"a":1,}', b"\xff\xfe", b"[" * 100_000, b'{"NameContains":1}', b'{"MaxResults":"1"}'):
        assert_refused(json_call(engine, "sagemaker", "SageMaker.ListModels", body), 400, "SerializationException", body[:40])
    assert b"<ListUsersResult>" in form_call(engine, "iam", b"Action=ListUsers&Version=2010-05-08").body, "control"
    for body, code in [
        (b"Action=ListUsers&Version=2010-05-08&MaxItems=x", "MalformedInput"), (b"Action=ListUsers&Version=1999-01-01", "InvalidAction"),
        (b"Action=NoSuchThing&Version=2010-05-08", "InvalidAction"), (b"Version=2010-05-08", "MissingAction"), (b"", "MissingAction"),
        (b"Action=ListUsers&Version=2010-05-08&MaxItems=%zz", "MalformedInput"), (b"Action=ListUsers%00&Version=2010-05-08", "InvalidAction"),
    ]:
        assert_refused(form_call(engine, "iam", body), 400, code, body)
    for body in (b"\xff", b"\xa1", b"\x9f" * 5000, b"\xbf\x61", b"{}", b"\x5b" + b"\xff" * 8):
        headers = {"smithy-protocol": "rpc-v2-cbor", "content-type": "application/cbor"}
        answer = signed(engine, "monitoring", "POST", "/service/GraniteServiceVersion20100801/operation/ListMetrics", headers, body)
        assert answer.status == 400 and answer.headers["content-type"] == "application/cbor" and answer.headers["smithy-protocol"] == "rpc-v2-cbor", (body, answer)
        assert b"__type" in answer.body and b"essage" in answer.body, answer


def test_malformed_xml_is_refused(engine, bucket):
    """Proves: IAM-48"""
    listed = b"<Delete><Object><Key>none</Key></Object></Delete>"
    digest = {"x-amz-sdk-checksum-algorithm": "SHA256"}
    assert signed(engine, "s3", "POST", f"/{bucket}?delete", digest | {"x-amz-checksum-sha256": sha256(listed)}, listed).status == 200, "control"
    bomb = b'<!DOCTYPE d [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><Delete><Object><Key>&b;</Key></Object></Delete>'
    outside = b'<!DOCTYPE d [<!ENTITY a SYSTEM "file:///etc/passwd">]><Delete><Object><Key>&a;</Key></Object></Delete>'
    for body in (b"<Delete>", b"x", b"<Other/>", b"<Delete><Object/></Delete>", b"\xff\xfe<", bomb, outside, b"<a>" * 50_000):
        answer = signed(engine, "s3", "POST", f"/{bucket}?delete", digest | {"x-amz-checksum-sha256": sha256(body)}, body)
        assert_refused(answer, 400, "MalformedXML", body[:60])
        assert b"root:" not in answer.body


def sha256(body):
    return base64.b64encode(hashlib.sha256(body).digest()).decode()


def test_wrong_types_targets_and_operations_are_refused(engine):
    """Proves: SM-1, SM-2, SM-3"""
    for target in ("SageMaker.NoSuchThing", "SageMaker", ".ListModels", "SageMaker.", "x" * 4000, "SageMaker.ListModels.x"):
        answer = json_call(engine, "sagemaker", target, b"{}")
        assert_refused(answer, 400, "UnknownOperationException", target[:40])
    answer = json_call(engine, "sagemaker", "Logs_20140328.DescribeLogGroups", b"{}")
    assert_refused(answer, 400, "InvalidSignatureException", "another service's operation")
    for media in ("text/html", "application/xml", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        answer = json_call(engine, "sagemaker", "SageMaker.ListModels", b"{}", media=media)
        assert 400 <= answer.status < 500 and answer.code and b"<html" not in answer.body.lower(), (media, answer)
        answer = form_call(engine, "iam", b"Action=NoSuchThing&Version=2010-05-08", media=media)
        assert 400 <= answer.status < 500 and answer.code and b"<html" not in answer.body.lower(), (media, answer)
    for method, path in (("GET", "/"), ("PUT", "/"), ("DELETE", "/x"), ("POST", "/no/such/path"), ("GET", "/endpoints/e/invocations"), ("OPTIONS", "/"), ("TRACE", "/")):
        for service in ("sagemaker", "iam", "ec2", "logs", "ecr", "monitoring", "nonsense"):
            answer = signed(engine, service, method, path)
            assert 400 <= answer.status < 500 and b"<html" not in answer.body.lower() and answer.code, (service, method, path, answer)


def test_oversized_bodies_are_refused_before_they_are_read(engine):
    """Proves: SM-54"""
    large = b'{"NameContains":"' + b"x" * (9 << 20) + b'"}'
    answer = json_call(engine, "sagemaker", "SageMaker.ListModels", large)
    assert answer.status == 413 and b"essage" in answer.body and answer.code, (answer.status, answer.body[:200])
    assert json_call(engine, "sagemaker", "SageMaker.ListModels", b"{}").status == 200


@pytest.mark.parametrize("service, signing, protocol", PROTOCOLS)
def test_nothing_is_served_to_a_request_without_a_signature(engine, speaker, service, signing, protocol):
    """Proves: IAM-47"""
    speaks, writer = speaker(service, signing, protocol), Writer()
    for name in speaks.model.operation_names:
        operation = speaks.model.operation_model(name)
        parameters = writer.value(operation.input_shape) if operation.input_shape else {}
        method, target, headers, body = speaks.written(operation, parameters)
        answer = ask(speaks.connection, method, target, headers, body)
        parsed = speaks.read(answer, operation)
        assert 400 <= answer.status < 500, (name, answer)
        assert_error(answer, parsed, name)
        assert parsed["Error"]["Code"] in ("MissingAuthenticationToken", "MissingAuthenticationTokenException", "AuthFailure"), (name, parsed)


@pytest.mark.parametrize("path", ["/", "/bucket", "/bucket/key", "/v2/", "/v2/x/tags/list", "/health", "/metrics", "/console", "/admin", "/latest/meta-data/", "/.well-known/x", "/endpoints/e/invocations", "//", "/%2e%2e/x", "/index.html", "/favicon.ico"])
def test_no_path_is_open(engine, path):
    """Proves: IAM-47"""
    for method in ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"):
        answer = exchange(engine.url, method, path)
        # S3 says 501 for a request that it has no operation for.
        unknown = answer.status == 501 and answer.code == ("" if method == "HEAD" else "NotImplemented")
        assert 400 <= answer.status < 500 or unknown, (method, path, answer)
        assert b"<html" not in answer.body.lower()
        if path.startswith("/v2/"):
            assert answer.status == 401 and answer.headers["www-authenticate"], (method, path, answer)


@pytest.mark.parametrize("service, target, status, codes", [
    ("sagemaker", "SageMaker.ListModels", 400, ("UnrecognizedClientException", "InvalidSignatureException", "InvalidSignatureException")),
    ("logs", "Logs_20140328.DescribeLogGroups", 400, ("UnrecognizedClientException", "InvalidSignatureException", "InvalidSignatureException")),
    ("iam", "Action=ListUsers&Version=2010-05-08", 403, ("InvalidClientTokenId", "SignatureDoesNotMatch", "SignatureDoesNotMatch")),
    ("ec2", "Action=DescribeVpcs&Version=2016-11-15", 401, ("AuthFailure", "AuthFailure", "RequestExpired")),
])
def test_signature_faults_have_the_codes_of_their_service(engine, service, target, status, codes):
    """Proves: IAM-44, IAM-47"""
    def call(**mistakes):
        if "=" in target:
            return form_call(engine, service, target.encode(), **mistakes)
        return json_call(engine, service, target, b"{}", **mistakes)

    assert call(late=datetime.timedelta(minutes=14)).code in ("", "UnsupportedOperation"), "control: believed"
    unknown, wrong, skewed = codes
    for mistake, code in [
        ({"key": "AKIAAAAAAAAAAAAAAAAA"}, unknown), ({"secret": "x" * 40}, wrong), ({"signature": "0" * 64}, wrong),
        ({"late": datetime.timedelta(minutes=16)}, skewed), ({"late": datetime.timedelta(minutes=-16)}, skewed),
    ]:
        assert_refused(call(**mistake), 400 if code == "RequestExpired" else status, code, mistake)


def test_cloudwatch_by_boto3_reads_the_refusal_in_cbor(engine):
    """Proves: SM-3"""
    error = refused("UnsupportedOperation", engine.client("cloudwatch").describe_alarms)
    assert "DescribeAlarms" in str(error) and error.response["ResponseMetadata"]["HTTPStatusCode"] == 400
