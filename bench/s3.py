"""S3 PUT and GET of 8 MB objects: against cp + fsync + MD5 + SHA-256 of the bytes, and against nginx without sendfile."""
import hashlib
import http.client
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

from bench.processes import favour
from bench.requests import free_port
from tests.harness.engine import Engine

SIZE = 8 << 20


class Nginx:
    """nginx on a loopback port with the given configuration of its server."""

    def __init__(self, directory, server, prefix=()):
        self.directory, self.server, self.prefix = Path(directory), server, prefix

    def __enter__(self):
        self.port = free_port()
        config = self.directory / "nginx.conf"
        config.write_text(
            f"daemon off; pid {self.directory}/nginx.pid; error_log stderr crit; worker_processes 2; events {{ worker_connections 512; }}\n"
            f"http {{ access_log off; sendfile off; keepalive_requests 1000000; client_body_temp_path {self.directory}/b; proxy_temp_path {self.directory}/p; fastcgi_temp_path {self.directory}/f; uwsgi_temp_path {self.directory}/u; scgi_temp_path {self.directory}/s;\n"
            + self.server.replace("PORT", str(self.port)) + "\n}\n"
        )
        self.process = subprocess.Popen([*self.prefix, "/usr/sbin/nginx", "-c", str(config)])
        time.sleep(0.5)
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()


def transfer(connection, method, path, body=None, headers=None):
    connection.request(method, path, body=body, headers=headers or {})
    answer = connection.getresponse()
    size = len(answer.read())
    if answer.status != 200:
        raise RuntimeError(f"{method} {path}: {answer.status}")
    return size


def rates(count, *actions):
    """Median MB/s of each 8 MB action over `count` repetitions. They take turns, so that a slow spell hits all."""
    times = [[] for _ in actions]
    for index in range(count):
        for action, took in zip(actions, times):
            started = time.monotonic()
            action(index)
            took.append(time.monotonic() - started)
    return [SIZE / 1e6 / statistics.median(took) for took in times]


def run(binary, cache, quick):
    count = 20 if quick else 80
    block = os.urandom(SIZE)
    with Engine(binary, internet=False) as engine, tempfile.TemporaryDirectory(dir=engine.directory) as directory:
        favour(*engine.pids().values())
        source, copies = Path(directory) / "source", Path(directory) / "copies"
        source.write_bytes(block)
        copies.mkdir()

        def floor(index):
            target = copies / str(index)
            shutil.copyfile(source, target)
            with open(target, "rb") as file:
                os.fsync(file.fileno())
            data = source.read_bytes()
            hashlib.md5(data).digest()
            hashlib.sha256(data).digest()

        s3 = engine.client("s3")
        s3.create_bucket(Bucket="bench")
        connection = http.client.HTTPConnection(urlsplit(engine.url).netloc)
        put_urls = [s3.generate_presigned_url("put_object", {"Bucket": "bench", "Key": f"k{i}"}) for i in range(count)]
        get_urls = [s3.generate_presigned_url("get_object", {"Bucket": "bench", "Key": f"k{i}"}) for i in range(count)]
        path = lambda url: url.removeprefix(engine.url)  # noqa: E731
        put_rate, floor_rate = rates(count, lambda i: transfer(connection, "PUT", path(put_urls[i]), block), floor)
        yield {"name": "S3 PUT 8 MB", "unit": "MB/s", "ours": put_rate, "reference": floor_rate, "reference_name": "cp + fsync + MD5 + SHA-256", "budget": ">= 0.7"}
        with Nginx(directory, f"server {{ listen 127.0.0.1:PORT; root {copies}; }}") as nginx:
            os.chmod(directory, 0o755)
            os.chmod(engine.directory, 0o755)
            peer = http.client.HTTPConnection(f"127.0.0.1:{nginx.port}")
            get_rate, peer_rate = rates(count, lambda i: transfer(connection, "GET", path(get_urls[i])), lambda i: transfer(peer, "GET", f"/{i}"))
        yield {"name": "S3 GET 8 MB", "unit": "MB/s", "ours": get_rate, "reference": peer_rate, "reference_name": "nginx, sendfile off", "budget": ">= 0.7"}
