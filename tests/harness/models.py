"""Every operation of the models, said by hand: inputs made from the shapes, botocore's serializers, a signer of our own."""
import contextlib
import datetime
import functools
import io
import random
import re
import tomllib
from urllib.parse import urlencode

import botocore.loaders
import botocore.model
import botocore.parsers
import botocore.serialize
from urllib3._collections import HTTPHeaderDict

from tests.harness.engine import REPOSITORY
from tests.harness.wire import Signer, ask

SERVED = tomllib.loads((REPOSITORY / "models/served-operations.toml").read_text())


@functools.cache
def model_of(service):
    """A service's model as botocore has it."""
    return botocore.model.ServiceModel(botocore.loaders.Loader().load_service_model(service, "service-2"), service)


# Service, signing name, protocols.
SERVICES = [(name, model_of(name).signing_name, model_of(name).metadata["protocols"]) for name in SERVED]

WILD = ["", "a", "Z", "0", "-", " ", "é", "<", "&", '"', "\n", "😀", "+", "%", "=", ".", "../", "x" * 300, "${a}", "\x7f"]


def example(parsed, repeats):
    """A text that a parsed pattern matches; what may repeat does so `repeats` times where it can."""
    made = ""
    for kind, detail in parsed:
        match str(kind):
            case "LITERAL":
                made += chr(detail)
            case "ANY" | "NOT_LITERAL":
                made += "a"
            case "IN":
                made += one_of(detail)
            case "MAX_REPEAT" | "MIN_REPEAT":
                least, most, inner = detail
                made += example(inner, repeats) * max(int(least), min(int(most), repeats))
            case "SUBPATTERN":
                made += example(detail[-1], repeats)
            case "BRANCH":
                made += example(detail[1][0], repeats)
    return made


def one_of(choices):
    """A character of a set such as `[a-z0-9]`."""
    kinds = {str(kind): detail for kind, detail in choices}
    if "NEGATE" in kinds:
        shut = {chr(detail) for kind, detail in choices if str(kind) == "LITERAL"}
        return next(character for character in "a0-_/ " if character not in shut)
    if "RANGE" in kinds:
        return chr(kinds["RANGE"][0])
    if "LITERAL" in kinds:
        return chr(kinds["LITERAL"])
    return {"CATEGORY_DIGIT": "0", "CATEGORY_SPACE": " "}.get(str(kinds["CATEGORY"]), "a")


class Writer:
    """Makes inputs of an operation: `wild` ones, or the least that the model allows."""

    def __init__(self, seed=None):
        self.random = random.Random(seed)
        self.wild = seed is not None

    def value(self, shape, depth=0, in_header=False):
        return getattr(self, shape.type_name)(shape, depth, in_header)

    def structure(self, shape, depth, _):
        members = list(shape.members.items())
        if getattr(shape, "is_tagged_union", False):
            members = [self.random.choice(members) if self.wild else members[0]]
            wanted = {members[0][0]}
        elif self.wild and depth < 4:
            wanted = {name for name, _ in members if name in shape.required_members or self.random.random() < 0.4}
        else:
            # Query protocols cannot say an empty structure.
            wanted = set(shape.required_members) or {name for name, _ in members[:1] if depth}
        made = {}
        for name, member in members:
            place = member.serialization.get("location")
            streams = member.serialization.get("eventstream") or member.serialization.get("jsonvalue")
            if place == "uri" or (name in wanted and not streams):
                made[name] = self.value(member, depth + 1, place in ("header", "uri", "querystring", "headers"))
        return made

    def list(self, shape, depth, in_header):
        count = self.random.randint(0, 3) if self.wild else max(1, shape.metadata.get("min", 0))
        return [self.value(shape.member, depth + 1, in_header) for _ in range(0 if depth > 6 else min(count, 20))]

    def map(self, shape, depth, in_header):
        count = self.random.randint(0, 2) if self.wild else max(1, shape.metadata.get("min", 0))
        return {self.value(shape.key, depth + 1, in_header): self.value(shape.value, depth + 1, in_header) for _ in range(count)}

    def string(self, shape, _, in_header):
        if self.wild and self.random.random() < 0.5:
            if in_header:
                return "".join(self.random.choice("aZ09-") for _ in range(4))
            return "".join(self.random.choice(WILD) for _ in range(self.random.randint(0, 5)))
        if shape.enum:
            return self.random.choice(shape.enum) if self.wild else shape.enum[0]
        least, most = max(shape.metadata.get("min", 1), 1), shape.metadata.get("max", 1 << 20)
        pattern = shape.metadata.get("pattern")
        with contextlib.suppress(re.error):
            for repeats in (0, 1, 2, 4, 8, least) if pattern else ():
                text = example(re._parser.parse(pattern), repeats)
                if least <= len(text) <= most and re.fullmatch(pattern, text):
                    return text
        return "a" * least

    def number(self, shape, odd):
        return self.random.choice(odd) if self.wild else shape.metadata.get("min", 1)

    def integer(self, shape, *_):
        return self.number(shape, [0, 1, -1, 255, 65536, 2**31 - 1, -(2**31)])

    def long(self, shape, *_):
        return self.number(shape, [0, 1, -25, 2**32, 2**53 + 1, 2**63 - 1, -(2**63)])

    def float(self, shape, *_):
        return float(self.number(shape, [0.5, 1.0, -3.25, 1e300]))

    double = float

    def boolean(self, *_):
        return self.random.random() < 0.5

    def timestamp(self, *_):
        return datetime.datetime.fromtimestamp(self.random.choice([0, 1732188000, 1600000000.5]), datetime.timezone.utc)

    def blob(self, shape, *_):
        return bytes(self.random.randrange(256) for _ in range(max(1, shape.metadata.get("min", 1))))


class Speaker:
    """Says operations of one service in one protocol over one connection, signed as an account of its own."""

    def __init__(self, engine, connection, keys, service, signing, protocol):
        self.engine, self.connection, self.keys, self.signing = engine, connection, keys, signing
        self.model = model_of(service)
        self.serializer = botocore.serialize.create_serializer(protocol, include_validation=False)
        self.parser = botocore.parsers.create_parser(protocol)

    def written(self, operation, parameters):
        request = self.serializer.serialize_to_request(parameters, operation)
        body = request["body"]
        if isinstance(body, dict):
            body = urlencode(body, doseq=True)
        body = body.read() if isinstance(body, io.IOBase) else body
        body = body.encode() if isinstance(body, str) else body or b""
        target, query = request["url_path"], request["query_string"]
        query = urlencode(query, doseq=True) if isinstance(query, dict) else query
        headers = {name: str(value) for name, value in request["headers"].items()}
        return request["method"], f"{target}{'&' if '?' in target else '?'}{query}" if query else target, headers, body

    def say(self, operation, parameters):
        """The answer, and what botocore reads in it."""
        answer = self.send(*self.written(operation, parameters))
        return answer, self.read(answer, operation)

    def send(self, method, target, headers, body):
        """Signs a request and returns the answer."""
        signer = Signer(self.keys["aws_access_key_id"], self.keys["aws_secret_access_key"], self.signing)
        host = self.engine.url.removeprefix("http://")
        return ask(self.connection, method, target, signer.headers(host, method, target, body, headers), body)

    def read(self, answer, operation):
        headers = HTTPHeaderDict(answer.headers)
        streams = operation.has_streaming_output or operation.has_event_stream_output
        if streams and answer.status < 300:
            return {}
        return self.parser.parse({"status_code": answer.status, "headers": headers, "body": answer.body, "context": {}}, operation.output_shape)
