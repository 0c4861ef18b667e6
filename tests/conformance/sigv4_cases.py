"""Makes the table of signed requests that the signature verifier is tested against.

botocore's own signers sign random requests; the table holds what then goes over the wire. Run it with any recent
botocore and commit the result:

    python3 tests/conformance/sigv4_cases.py > crates/core/wire/src/sigv4/cases.json
"""

import base64
import datetime
import hashlib
import json
import random
import sys
from urllib.parse import quote, urlsplit

import botocore
import botocore.auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

NOW = datetime.datetime(2026, 3, 4, 5, 6, 7, tzinfo=datetime.timezone.utc)
SECRETS = ["wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "0/+abcdefghijklmnopqrstuvwxyzABCDEFGHIJK"]
TOKEN = "FwoGZXIvYXdzEBYaD/+==&token"
SERVICES = ["sagemaker", "s3", "ec2", "iam", "sts", "logs", "cloudformation", "ecr", "monitoring", "s3", "s3"]
REGIONS = ["us-east-1", "eu-west-1", "ap-southeast-2"]
PIECES = ["a", "Z", "9", "-", "_", ".", "~", " ", "/", "//", "+", "=", "&", "%", ":", "@", "ü", "日本", "😀", "'", "(", ")",
          "*", "!", "$", ",", ";", "[", "]", "|", "\\", "^", "..", "./"]


def text(rng, most):
    return "".join(rng.choice(PIECES) for _ in range(rng.randint(0, most)))


def query(rng):
    pairs = []
    for _ in range(rng.choice([0, 0, 1, 2, 5])):
        name = rng.choice(["list-type", "prefix", "uploads", "a", "A", "b", "a b", "ä", "delimiter"])
        pairs.append((name, text(rng, 4)))
    if rng.random() < 0.2:
        pairs.append(("acl", ""))
    return pairs


def headers(rng):
    found = {}
    if rng.random() < 0.6:
        found["Content-Type"] = rng.choice(["application/x-amz-json-1.1", "text/plain; charset=utf-8", "  a   b  "])
    if rng.random() < 0.3:
        found["X-Amz-Meta-Note"] = rng.choice(["", "  two   words ", "a,b", "x;y=z"])
    if rng.random() < 0.3:
        found["X-Amz-Target"] = "SageMaker.CreateModel"
    if rng.random() < 0.2:
        found["X-Amzn-SageMaker-Target-Variant"] = "AllTraffic"
    if rng.random() < 0.2:
        found["Range"] = "bytes=0-9"
    return found


def signer(rng, service, credentials, region, form):
    if form == "query":
        kind = botocore.auth.S3SigV4QueryAuth if service == "s3" else botocore.auth.SigV4QueryAuth
        return kind(credentials, service, region, expires=rng.choice([1, 60, 3600, 604800]))
    if form == "v2":
        return botocore.auth.HmacV1QueryAuth(credentials, expires=900)
    kind = botocore.auth.S3SigV4Auth if service == "s3" else botocore.auth.SigV4Auth
    return kind(credentials, service, region)


def case(rng, form):
    service = "s3" if form == "v2" else rng.choice(SERVICES)
    region = rng.choice(REGIONS)
    token = TOKEN if rng.random() < 0.3 else None
    which = rng.randrange(len(SECRETS))
    host = rng.choice(["127.0.0.1:4599", "localhost:4599", f"{service}.{region}.amazonaws.com"])
    path = "/" + text(rng, 8)
    safe = "/~" if rng.random() < 0.8 else "/~()!*'"
    if service != "s3":
        path, safe = path.replace("//", "/").replace("..", "."), "/~"
    url = f"http://{host}{quote(path, safe=safe)}"
    given, pairs = headers(rng), query(rng)
    if form == "v2":
        # Only the headers of this form are signed; repeated and sub-resource parameters are S3's own.
        given, pairs = {}, [("versionId", "a b")] if rng.random() < 0.5 else []
    if form == "query":
        # A presigned URL covers each parameter once, and its signer reads them back from the URL.
        pairs = list(dict(pairs).items())
    if pairs:
        url += "?" + "&".join(f"{quote(k, safe='-_.~')}={quote(v, safe='-_.~')}" for k, v in pairs)
    body = rng.choice(["", "", '{"a":1}', "Action=ListRoles&Version=2010-05-08", "ünï"]) if form == "header" else ""
    request = AWSRequest(method=rng.choice(["GET", "PUT", "POST", "DELETE", "HEAD"]), url=url, data=body.encode(),
                         headers=given)
    request.context["timestamp"] = NOW.strftime("%Y%m%dT%H%M%SZ")
    if form == "header" and service == "s3" and rng.random() < 0.3:
        request.context["payload_signing_enabled"] = False
        request.url = request.url.replace("http://", "https://")
        request.headers["Content-MD5"] = base64.b64encode(hashlib.md5(body.encode()).digest()).decode()
    signer(rng, service, Credentials(f"AKIDEXAMPLE{which}", SECRETS[which], token), region, form).add_auth(request)
    parts = urlsplit(request.url)
    sent = [["host", parts.netloc]]
    sent += [[name.lower(), value] for name, value in request.headers.items() if form != "v2"]
    return {"form": form, "service": service, "region": region, "method": request.method, "path": parts.path,
            "query": parts.query, "headers": sent, "body": body, "secret": which, "token": token}


def form_upload(rng):
    which = rng.randrange(len(SECRETS))
    token = TOKEN if rng.random() < 0.5 else None
    request = AWSRequest(method="POST", url="http://127.0.0.1:4599/bucket1")
    request.context["timestamp"] = NOW.strftime("%Y%m%dT%H%M%SZ")
    fields = {"key": "up/a.txt"}
    request.context["s3-presign-post-fields"] = fields
    request.context["s3-presign-post-policy"] = {
        "expiration": "2026-03-04T06:06:07Z",
        "conditions": [{"bucket": "bucket1"}, ["starts-with", "$key", "up/"], ["content-length-range", 1, 10]],
    }
    credentials = Credentials(f"AKIDEXAMPLE{which}", SECRETS[which], token)
    botocore.auth.S3SigV4PostAuth(credentials, "s3", rng.choice(REGIONS)).add_auth(request)
    return {"secret": which, "token": token, "fields": request.context["s3-presign-post-fields"]}


def main():
    botocore.auth.get_current_datetime = lambda *_args, **_kwargs: NOW.replace(tzinfo=None)
    botocore.auth.time.time = lambda: NOW.timestamp()
    rng = random.Random(20260304)
    cases = [case(rng, form) for form, count in [("header", 200), ("query", 80), ("v2", 20)] for _ in range(count)]
    uploads = [form_upload(rng) for _ in range(4)]
    table = {"botocore": botocore.__version__, "now": int(NOW.timestamp()), "secrets": SECRETS}
    lines = [json.dumps(entry, ensure_ascii=False, separators=(",", ":")) for entry in cases]
    posts = [json.dumps(entry, separators=(",", ":")) for entry in uploads]
    sys.stdout.write(json.dumps(table)[:-1] + ',"cases":[\n' + ",\n".join(lines) + '\n],"uploads":[\n'
                     + ",\n".join(posts) + "\n]}\n")


main()
