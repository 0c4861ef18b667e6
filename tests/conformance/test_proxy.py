"""The proxy: clients whose endpoints are fixed work unchanged through it, and reach nobody but the engine."""
import json
import os
import socket
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.harness.engine import ACCOUNT, REGION, WEB, Engine

AWS = str(Path(sys.executable).parent / "aws")
STS = f"sts.{REGION}.amazonaws.com"


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as held:
        return held.getsockname()[1]


def exports(engine):
    """What `isolarium proxy` prints, put into an environment without anything of the machine's own AWS settings."""
    names = ("AWS_", "HTTP", "http", "NO_PROXY", "no_proxy")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(names)}
    script = f"{engine.run('proxy').stdout}\nenv -0"
    done = subprocess.run(["bash", "-c", script], env=clean, capture_output=True, check=True)
    found = dict(line.split("=", 1) for line in done.stdout.decode().split("\0") if "=" in line)
    return found | {"AWS_EC2_METADATA_DISABLED": "true", "AWS_PAGER": "", "AWS_CONFIG_FILE": "/dev/null"}


def refusals(engine):
    listed = json.loads(engine.run("proxy", "--refusals", "--json").stdout)
    return {(one["target"], one["reason"]): one["count"] for one in listed["refusals"]}


class Connection:
    """A raw conversation with the proxy."""

    def __init__(self, engine, text=b""):
        host, _, port = engine.settings["proxy_listen"].rpartition(":")
        self.socket = socket.create_connection((host, int(port)), 20)
        if text:
            self.socket.sendall(text)

    def head(self):
        """Status line and headers of the next answer; what was read when the other end closed."""
        said = b""
        while b"\r\n\r\n" not in said:
            piece = self.socket.recv(1)
            if not piece:
                break
            said += piece
        return said.decode("latin-1")

    def close(self):
        self.socket.close()


def told(engine, text):
    connection = Connection(engine, text)
    try:
        return connection.head()
    finally:
        connection.close()


def connect(engine, target, host=None):
    return told(engine, f"CONNECT {target} HTTP/1.1\r\nHost: {host or target}\r\n\r\n".encode())


BOTO = """
import boto3, json, sys
from botocore.exceptions import ClientError, ProxyConnectionError
bucket = sys.argv[1]
session = boto3.session.Session()
s3 = session.client("s3")
s3.put_object(Bucket=bucket, Key="proxy/a.txt", Body=b"x" * 300000)
body = s3.get_object(Bucket=bucket, Key="proxy/a.txt")["Body"].read()
out = {
    "account": session.client("sts").get_caller_identity()["Account"],
    "host": s3.meta.endpoint_url,
    "bytes": len(body),
    "jobs": "TrainingJobSummaries" in session.client("sagemaker").list_training_jobs(),
}
try:
    session.client("sns").list_topics()
except ProxyConnectionError as error:
    out["refused"] = str(error)
try:
    session.client("sts", aws_secret_access_key="wrong", aws_access_key_id="AKIAAAAAAAAAAAAAAAAA").get_caller_identity()
except ClientError as error:
    out["stranger"] = error.response["Error"]["Code"]
print(json.dumps(out))
"""


def test_unmodified_clients_work_without_an_endpoint_and_reach_nobody_else(engine, bucket):
    """
    SM-1 by the names of the services.
    """
    environment, before = exports(engine), refusals(engine)
    arrived = len(engine.internet.arrivals())
    assert "AWS_ENDPOINT_URL" not in environment and environment["HTTPS_PROXY"] == f"http://{engine.settings['proxy_listen']}"
    done = subprocess.run([sys.executable, "-c", BOTO, bucket], env=environment, text=True, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert (seen["account"], seen["bytes"], seen["jobs"]) == (ACCOUNT, 300000, True)
    assert "amazonaws.com" in seen["host"], "control: the client thinks that it speaks to AWS"
    # A service that there is not; and who has no key is nobody here either.
    assert "Failed to connect to proxy" in seen["refused"]
    assert seen["stranger"] == "InvalidClientTokenId"
    cli = subprocess.run([AWS, "sts", "get-caller-identity", "--query", "Account", "--output", "text"], env=environment, text=True, capture_output=True, timeout=120)
    assert cli.stdout.strip() == ACCOUNT, cli.stderr
    now = refusals(engine)
    key = (f"sns.{REGION}.amazonaws.com:443", "name")
    assert now[key] > before.get(key, 0)
    table = engine.run("proxy", "--refusals").stdout
    assert f"sns.{REGION}.amazonaws.com:443" in table and "not a service of this engine" in table
    assert len(engine.internet.arrivals()) == arrived


def test_plain_http_is_for_s3_alone(engine, bucket):
    s3 = engine.client("s3")
    s3.put_object(Bucket=bucket, Key="proxy/plain.txt", Body=b"by plain HTTP")
    import boto3
    from botocore.config import Config

    key, secret = engine.credentials()
    client = boto3.client("s3", region_name=REGION, aws_access_key_id=key, aws_secret_access_key=secret, config=Config(signature_version="s3v4", s3={"addressing_style": "virtual"}))
    url = client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "proxy/plain.txt"}).replace("https://", "http://")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({"http": f"http://{engine.settings['proxy_listen']}"}))
    assert opener.open(url, timeout=20).read() == b"by plain HTTP"
    for other in (f"http://{STS}/", f"http://{WEB}/", "http://169.254.169.254/latest/meta-data/", "http://localhost:4599/"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            opener.open(other, timeout=20)
        assert refused.value.code == 403 and "isolarium proxy" in refused.value.read().decode(), other
    # Signed for one name and sent to another.
    host = url.split("/")[2]
    path = url.split(host, 1)[1]
    assert " 400 " in told(engine, f"GET http://{host}{path} HTTP/1.1\r\nHost: other.s3.{REGION}.amazonaws.com\r\n\r\n".encode()).splitlines()[0]


@pytest.mark.parametrize("target, status, reason", [
    (f"{STS}:443", 200, None),
    ("pypi.org:443", 403, "name"),
    (f"{STS}.evil.example:443", 403, "name"),
    ("sts.eu-west-1.amazonaws.com:443", 403, "name"),
    (f"{WEB}:443", 403, "address"),
    ("127.0.0.1:22", 403, "address"),
    ("0x7f000001:443", 403, "address"),
    ("[::1]:443", 403, "address"),
    (f"{STS}:22", 403, "port"),
    (f"user:word@{STS}:443", 400, "malformed"),
    (f"{STS}@{WEB}:443", 400, "malformed"),
    (STS, 400, "malformed"),
])
def test_a_tunnel_leads_to_a_service_or_nowhere(engine, target, status, reason):
    before = refusals(engine)
    answer = connect(engine, target)
    assert answer.split()[1] == str(status), answer
    if reason:
        shown = target.rpartition("@")[2]
        assert refusals(engine).get((shown, reason), 0) == before.get((shown, reason), 0) + 1
        assert "word" not in json.dumps(list(refusals(engine))) and "isolarium proxy" in answer.splitlines()[0]
    # A Host header that says something else does not count.
    assert connect(engine, target, host=f"{STS}:443").split()[1] == str(status)


def test_hostile_clients_get_nothing_and_harm_nobody(engine):
    context = ssl.create_default_context(cafile=engine.data / "ca/bundle.pem")

    def tunnel(name):
        connection = Connection(engine, f"CONNECT {STS}:443 HTTP/1.1\r\nHost: {STS}:443\r\n\r\n".encode())
        assert " 200 " in connection.head().splitlines()[0]
        return connection, context.wrap_socket(connection.socket, server_hostname=name)

    def asked(name):
        connection, secure = tunnel(name)
        with secure:
            secure.sendall(f"POST / HTTP/1.1\r\nHost: {STS}\r\nContent-Length: 0\r\n\r\n".encode())
            try:
                return secure.recv(100)
            except ConnectionResetError:
                # Closed with our request unread.
                return b""

    before = refusals(engine)
    assert asked(STS).startswith(b"HTTP/1.1 4"), "control: the front door answers, and refuses who does not sign"
    # TLS for another of our names than the tunnel's: the handshake is all there is.
    assert asked("iam.amazonaws.com") == b""
    assert refusals(engine)[(f"{STS}:443", "sni")] == before.get((f"{STS}:443", "sni"), 0) + 1
    # A name that is nobody's has no certificate.
    with pytest.raises(ssl.SSLCertVerificationError):
        tunnel("pypi.org")
    # Heads without end, other protocols, a second proxy inside the tunnel.
    answer = told(engine, b"CONNECT " + b"a" * 300_000 + b":443 HTTP/1.1\r\n\r\n")
    assert not answer or answer.split()[1].startswith("4"), answer[:200]
    answer = told(engine, f"CONNECT {STS}:443 HTTP/1.1\r\n".encode() + b"x-a: " + b"a" * 300_000 + b"\r\n\r\n")
    assert not answer or answer.split()[1].startswith("4"), answer[:200]
    assert "403" in told(engine, b"GET http://pypi.org/ HTTP/1.1\r\nHost: pypi.org\r\n\r\n").splitlines()[0]
    assert "400" in told(engine, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").splitlines()[0]
    secure = tunnel(STS)[1]
    with secure:
        secure.sendall(b"CONNECT pypi.org:443 HTTP/1.1\r\nHost: pypi.org:443\r\n\r\n")
        assert not secure.recv(100).startswith(b"HTTP/1.1 2")
    # Three hundred that open a tunnel and say nothing more: the next one is served all the same.
    silent = [Connection(engine, f"CONNECT {STS}:443 HTTP/1.1\r\nHost: x\r\n\r\n".encode()) for _ in range(300)]
    assert all(" 200 " in one.head().splitlines()[0] for one in silent[-10:])
    assert asked(STS).startswith(b"HTTP/1.1 4")
    for one in silent:
        one.close()


def test_a_stop_does_not_wait_for_tunnels_that_say_nothing():
    with Engine(os.environ["ISOLARIUM_BINARY"], {"proxy_listen": f"127.0.0.1:{free_port()}", "limits.head_timeout": "10m", "serve.drain": "10m"}, internet=False) as engine:
        silent = Connection(engine, f"CONNECT {STS}:443 HTTP/1.1\r\nHost: {STS}:443\r\n\r\n".encode())
        assert " 200 " in silent.head().splitlines()[0]
        idle = Connection(engine, f"CONNECT {STS}:443 HTTP/1.1\r\nHost: {STS}:443\r\n\r\n".encode())
        idle.head()
        secure = ssl.create_default_context(cafile=engine.data / "ca/bundle.pem").wrap_socket(idle.socket, server_hostname=STS)
        engine.process.terminate()
        # Far less than either limit; a connection that is idle closes, too.
        assert engine.process.wait(120) == 0 and secure.recv(10) == b""
        secure.close()
        silent.close()


def test_only_a_loopback_address_can_be_a_proxy(engine, tmp_path):
    line = [engine.binary, "serve", "--data-dir", str(tmp_path / "data"), "--listen", "127.0.0.1:0", "--proxy-listen", "0.0.0.0:0"]
    done = subprocess.run(line, text=True, capture_output=True, timeout=30)
    assert done.returncode == 2 and "must be a loopback address" in done.stderr and not (tmp_path / "data").exists()
    assert subprocess.run([engine.binary, "proxy", "--data-dir", str(tmp_path)], capture_output=True).returncode == 3
