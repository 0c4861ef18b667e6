"""Standing inside a VPC: unmodified clients as hosts of a subnet, with nothing of the machine's own network."""
import inspect
import json
import select
import subprocess
import sys
from pathlib import Path

def each(service, operations, region, url, key, secret):
    """What a service answers to every operation without any member: the error's code, or that there is none."""
    import boto3
    from botocore.config import Config
    from botocore.exceptions import ClientError
    from botocore import xform_name
    plain = Config(retries={"max_attempts": 1, "mode": "standard"}, parameter_validation=False, read_timeout=60)
    client = boto3.client(
        service, region_name=region, endpoint_url=url, aws_access_key_id=key, aws_secret_access_key=secret, config=plain)
    told = {}
    for operation in operations:
        try:
            getattr(client, xform_name(operation))()
            told[operation] = "answered"
        except ClientError as error:
            told[operation] = error.response["Error"]["Code"]
    return told


# Answers one JSON request a line; runs with the clients' Python inside the namespace.
PROGRAM = inspect.getsource(each) + r"""
import json, socket, ssl, sys

def call(service, operation, region, url=None, key=None, secret=None, token=None, **members):
    import boto3
    from botocore.config import Config
    quick = Config(retries={"max_attempts": 1, "mode": "standard"}, connect_timeout=4, read_timeout=60)
    client = boto3.client(
        service, region_name=region, endpoint_url=url, aws_access_key_id=key, aws_secret_access_key=secret,
        aws_session_token=token, config=quick)
    answer = getattr(client, operation)(**members)
    answer.pop("ResponseMetadata", None)
    for name, value in list(answer.items()):
        if hasattr(value, "read"):
            answer[name] = value.read().decode()
    return answer

def own():
    return socket.gethostbyname(socket.gethostname())

def lookup(name):
    return [one[4][0] for one in socket.getaddrinfo(name, 443, socket.AF_INET, socket.SOCK_STREAM)]

def connect(address, port, timeout=3):
    socket.create_connection((address, port), timeout).close()
    return True

def connects(address, port):
    try:
        return connect(address, port)
    except OSError:
        return False

def handshake(address, name, check=None, alpn=None):
    import os
    context = ssl.create_default_context(cafile=os.environ["AWS_CA_BUNDLE"])
    if alpn:
        context.set_alpn_protocols(alpn)
    with socket.create_connection((address, 443), 5) as plain, context.wrap_socket(plain, server_hostname=name) as secure:
        return {"names": [value for _, value in secure.getpeercert()["subjectAltName"]], "alpn": secure.selected_alpn_protocol()}

def raw(address, name, text):
    # What a server answers to bytes.
    import os
    context = ssl.create_default_context(cafile=os.environ["AWS_CA_BUNDLE"])
    with socket.create_connection((address, 443), 5) as plain, context.wrap_socket(plain, server_hostname=name) as secure:
        secure.settimeout(20)
        secure.sendall(text.encode())
        got = b""
        while True:
            part = secure.recv(65536)
            got += part
            if not part:
                return got.decode(errors="replace")

for line in sys.stdin:
    asked = json.loads(line)
    try:
        answer = {"value": globals()[asked.pop("do")](**asked)}
    except Exception as error:
        told = getattr(error, "response", {}).get("Error", {})
        status = getattr(error, "response", {}).get("ResponseMetadata", {}).get("HTTPStatusCode")
        answer = {"kind": type(error).__name__, "code": told.get("Code"), "text": told.get("Message") or str(error), "status": status}
    print(json.dumps(answer, default=str), flush=True)
"""


class Refused(Exception):
    """What a client inside was told: the exception's kind, AWS's code and text."""

    def __init__(self, told):
        super().__init__(f"{told['kind']} {told['code']}: {told['text']}")
        self.kind, self.code, self.text, self.status = told["kind"], told["code"], told["text"], told["status"]


class Inside:
    """A host in a subnet with one security group, by `isolarium vpc exec`."""

    def __init__(self, engine, subnet, group):
        self.engine = engine
        self.place = ["vpc", "exec", "--subnet", subnet, "--security-group", group, "--data-dir", str(engine.data), "--"]
        self.inner = self.address = None

    def __enter__(self):
        self.inner = subprocess.Popen(
            self.command(sys.executable, "-u", "-c", PROGRAM), env=self.environment(), text=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE)
        self.address = self.ask("own")
        return self

    def __exit__(self, *_):
        self.inner.stdin.close()
        try:
            self.inner.wait(60)
        except subprocess.TimeoutExpired:
            self.inner.kill()
            self.inner.wait()
        self.inner.stdout.close()

    def command(self, *arguments):
        """The command, in the subnet."""
        return [self.engine.binary, *self.place, *(str(argument) for argument in arguments)]

    def environment(self, **more):
        """What clients find there: credentials and the engine's authority, no endpoint URL."""
        plain = self.engine.environment()
        del plain["AWS_ENDPOINT_URL"]
        bundle = {"AWS_CA_BUNDLE": str(self.engine.data / "ca/ca.pem")}
        # Else clients of us-east-1 ask for S3's global name, which no endpoint takes over.
        regional = {"AWS_S3_US_EAST_1_REGIONAL_ENDPOINT": "regional"}
        return plain | bundle | regional | {"AWS_MAX_ATTEMPTS": "1"} | more

    def aws(self, *arguments):
        """The aws CLI inside, as a host beside this one in the same subnet; its answer."""
        cli = Path(sys.executable).parent / "aws"
        line = self.command(sys.executable, cli, *arguments, "--cli-connect-timeout", "4", "--output", "json")
        done = subprocess.run(line, env=self.environment(), text=True, capture_output=True, timeout=120)
        assert done.returncode == 0, (arguments, done.stderr)
        return json.loads(done.stdout)

    def ask(self, do, **members):
        """One request to the program."""
        self.inner.stdin.write(json.dumps({"do": do} | members) + "\n")
        self.inner.stdin.flush()
        # One line for one request: nothing is left in the reader's own buffer.
        ready, _, _ = select.select([self.inner.stdout], [], [], 180)
        line = self.inner.stdout.readline() if ready else ""
        if not line:
            self.inner.kill()
            raise AssertionError(f"the program inside did not answer {do} {members}; it ended with {self.inner.wait(60)}")
        answer = json.loads(line)
        if "value" not in answer:
            raise Refused(answer)
        return answer["value"]

    def call(self, service, operation, url=None, key=None, **members):
        """An operation by boto3. Without a URL the client uses the service's default name."""
        access, secret = key or self.engine.credentials()
        return self.ask(
            "call", service=service, operation=operation, region="us-east-1", url=url, key=access, secret=secret, **members)

    def refused(self, do, **members):
        """The refusal of a request that must not succeed."""
        try:
            answer = self.call(**members) if do == "call" else self.ask(do, **members)
        except Refused as refusal:
            return refusal
        raise AssertionError(f"not refused: {do} {members}: {answer}")
