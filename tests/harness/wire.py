"""Requests by hand, with a signer of their own: what unmodified clients never send."""
import contextlib
import datetime
import hashlib
import hmac
import http.client
import json
import re
from dataclasses import dataclass, field
from urllib.parse import quote, urlencode, urlsplit

from botocore.exceptions import ClientError
from botocore.parsers import RpcV2CBORParser

from tests.harness.engine import REGION

EMPTY = hashlib.sha256(b"").hexdigest()


@dataclass
class Answer:
    """Status, headers with lower-case names, and body of an answer."""

    status: int
    headers: dict
    body: bytes

    @property
    def code(self):
        """The error code, whatever the language of the answer."""
        header = self.headers.get("x-amzn-errortype", "").split(":")[0]
        if header:
            return header
        if self.body.startswith(b"{"):
            told = json.loads(self.body)
            if "errors" in told:
                return told["errors"][0]["code"]
            return told.get("__type", "").split("#")[-1]
        if self.headers.get("content-type") == "application/cbor":
            reader = RpcV2CBORParser()
            told = reader.parse_data_item(reader.get_peekable_stream_from_bytes(self.body))
            return told.get("__type", "").split("#")[-1]
        found = re.search(rb"<Code>([^<]*)</Code>", self.body)
        return found.group(1).decode() if found else ""


@dataclass
class Signer:
    """Signature version 4 (IAM-42), with every mistake a sender can make."""

    key: str
    secret: str
    service: str
    token: str = None
    region: str = REGION
    late: datetime.timedelta = datetime.timedelta()
    signature: str = None
    stamp: str = field(init=False, default="")

    def derived(self):
        """The signing key of the day."""
        key = b"AWS4" + self.secret.encode()
        for text in (self.stamp[:8], self.region, self.service, "aws4_request"):
            key = hmac.new(key, text.encode(), hashlib.sha256).digest()
        return key

    def scope(self):
        return f"{self.stamp[:8]}/{self.region}/{self.service}/aws4_request"

    def sign(self, kind, *lines):
        """The signature of `lines` as the algorithm `kind`."""
        text = "\n".join((kind, self.stamp, self.scope(), *lines))
        return hmac.new(self.derived(), text.encode(), hashlib.sha256).hexdigest()

    def headers(self, host, method, target, body=b"", headers=(), payload=None):
        """All headers of the signed request. `payload` replaces the hash of the body."""
        now = datetime.datetime.now(datetime.timezone.utc) - self.late
        self.stamp = now.strftime("%Y%m%dT%H%M%SZ")
        payload = payload or hashlib.sha256(body).hexdigest()
        sent = {"host": host, "x-amz-date": self.stamp} | {name.lower(): value for name, value in dict(headers).items()}
        if self.service == "s3":
            sent["x-amz-content-sha256"] = payload
        if self.token:
            sent["x-amz-security-token"] = self.token
        path, _, query = target.partition("?")
        pairs = sorted(pair if "=" in pair else f"{pair}=" for pair in query.split("&") if pair)
        names = ";".join(sorted(sent))
        canonical = "\n".join([
            method, path if self.service == "s3" else quote(path, safe="/-_.~"), "&".join(pairs),
            *(f"{name}:{sent[name].strip()}" for name in sorted(sent)), "", names, payload,
        ])
        self.last = self.signature or self.sign("AWS4-HMAC-SHA256", hashlib.sha256(canonical.encode()).hexdigest())
        sent["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={self.key}/{self.scope()}, SignedHeaders={names}, Signature={self.last}"
        )
        return sent

    def presigned(self, url, method, target, lifetime):
        """A URL of S3 that carries its signature for `lifetime` seconds."""
        self.stamp = (datetime.datetime.now(datetime.timezone.utc) - self.late).strftime("%Y%m%dT%H%M%SZ")
        query = urlencode(sorted({
            "X-Amz-Algorithm": "AWS4-HMAC-SHA256", "X-Amz-Credential": f"{self.key}/{self.scope()}", "X-Amz-Date": self.stamp,
            "X-Amz-Expires": str(lifetime), "X-Amz-SignedHeaders": "host",
        }.items()))
        canonical = "\n".join([method, target, query, f"host:{urlsplit(url).netloc}", "", "host", "UNSIGNED-PAYLOAD"])
        signature = self.sign("AWS4-HMAC-SHA256", hashlib.sha256(canonical.encode()).hexdigest())
        return f"{url}{target}?{query}&X-Amz-Signature={signature}"

    def chunks(self, pieces, trailer=None):
        """The signed framing of aws-chunked; to be called after `headers`. `trailer` is a pair of name and value."""
        framed, before = b"", self.last
        for piece in (*pieces, b""):
            before = self.sign("AWS4-HMAC-SHA256-PAYLOAD", before, EMPTY, hashlib.sha256(piece).hexdigest())
            framed += b"%x;chunk-signature=%s\r\n" % (len(piece), before.encode())
            framed += piece + b"\r\n" if piece else b""
        if not trailer:
            return framed + b"\r\n"
        line = f"{trailer[0]}:{trailer[1]}"
        mark = self.sign("AWS4-HMAC-SHA256-TRAILER", before, hashlib.sha256(f"{line}\n".encode()).hexdigest())
        return framed + f"{line}\r\nx-amz-trailer-signature:{mark}\r\n\r\n".encode()


def exchange(url, method, target, headers=(), body=b""):
    """Sends a request as it stands and reads the whole answer."""
    with contextlib.closing(http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)) as connection:
        return ask(connection, method, target, headers, body)


def ask(connection, method, target, headers=(), body=b""):
    """The same on a connection that stays open."""
    sent = {name.lower(): value for name, value in dict(headers).items()}
    connection.putrequest(method, target, skip_host="host" in sent, skip_accept_encoding=True)
    for name, value in sent.items():
        connection.putheader(name, value)
    if "content-length" not in sent and (body or method in ("POST", "PUT")):
        connection.putheader("content-length", str(len(body)))
    connection.endheaders(body or None)
    response = connection.getresponse()
    return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())


def signed(engine, service, method, target, headers=(), body=b"", payload=None, **mistakes):
    """Sends a signed request as the account's root; `mistakes` replace fields of the signer."""
    key, secret = engine.credentials()
    signer = Signer(**({"key": key, "secret": secret, "service": service} | mistakes))
    host = urlsplit(engine.url).netloc
    return exchange(engine.url, method, target, signer.headers(host, method, target, body, headers, payload), body)


def empty_members(value, shape, path=""):
    """Paths of members that are null, and of empty structures, maps and lists that the model does not require: what is
    absent is left out."""
    if shape.type_name == "structure" and isinstance(value, dict):
        by_name = {member.serialization.get("name", name): (name, member) for name, member in shape.members.items()}
        for key, inner in value.items():
            name, member = by_name.get(key, (key, None))
            if inner is None or (inner in ({}, []) and name not in shape.required_members):
                yield f"{path}.{key}"
            elif member is not None:
                yield from empty_members(inner, member, f"{path}.{key}")
    elif shape.type_name == "list" and isinstance(value, list):
        for number, inner in enumerate(value):
            yield from empty_members(inner, shape.member, f"{path}[{number}]")
    elif shape.type_name == "map" and isinstance(value, dict):
        for key, inner in value.items():
            yield from empty_members(inner, shape.value, f"{path}.{key}")


def printed(output):
    """What the operator's commands print: NAME=VALUE lines."""
    pairs = dict(line.split("=", 1) for line in output.splitlines() if "=" in line)
    return {key.strip(): value.strip() for key, value in pairs.items()}


def refused(code, call, *arguments, **members):
    """The call of a client must fail with this code; returns the error."""
    try:
        call(*arguments, **members)
    except ClientError as error:
        got = error.response["Error"]["Code"]
        assert got == code, f"{got} instead of {code}: {error}"
        return error
    raise AssertionError(f"{call.__name__} succeeded instead of {code}")
