"""DescribeModel requests per second and p99 against moto's server, at 1 and 8 connections."""
import socket
import subprocess
import tempfile
import time
import urllib.request

from bench import wrk
from bench.processes import favour
from tests.harness.engine import Engine
from tests.harness.small_image import small_rootfs

TARGET = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": "SageMaker.DescribeModel"}


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


class Moto:
    """moto's server with one model; the peer of the control plane."""

    def __init__(self, cache):
        self.program = cache / "venv/moto/bin/moto_server"

    def __enter__(self):
        import boto3

        self.url = f"http://127.0.0.1:{free_port()}"
        self.process = subprocess.Popen([self.program, "-p", self.url.rsplit(":", 1)[1]], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(600):
            try:
                urllib.request.urlopen(self.url + "/moto-api/", timeout=1)
                break
            except OSError:
                time.sleep(0.05)
        options = {"endpoint_url": self.url, "region_name": "us-east-1", "aws_access_key_id": "k", "aws_secret_access_key": "s"}
        role = boto3.client("iam", **options).create_role(RoleName="exec", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
        boto3.client("sagemaker", **options).create_model(ModelName="m", ExecutionRoleArn=role, PrimaryContainer={"Image": "x:1"})
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()


def run(binary, cache, quick):
    seconds = 2 if quick else 10
    with tempfile.TemporaryDirectory() as directory, Engine(binary, internet=False) as engine, Moto(cache) as moto:
        favour(*engine.pids().values())
        role = engine.create_role("exec", [{"Effect": "Allow", "Action": "ecr:*", "Resource": "*"}])
        image = engine.pack_image(small_rootfs(directory), "small:1")
        engine.client("sagemaker").create_model(ModelName="m", ExecutionRoleArn=role, PrimaryContainer={"Image": image}, EnableNetworkIsolation=True)
        body = '{"ModelName": "m"}'
        for connections in (1, 8):
            ours = wrk.run(engine.url, body, wrk.signed(engine.url + "/", body, "sagemaker", TARGET, *engine.credentials()), connections, seconds)
            peer = wrk.run(moto.url, body, wrk.signed(moto.url + "/", body, "sagemaker", TARGET, "k", "s"), connections, seconds)
            yield {"name": f"DescribeModel requests/s, {connections} connections", "unit": "1/s", "ours": ours["rate"], "reference": peer["rate"], "reference_name": "moto server", "budget": ">= 20"}
            yield {"name": f"DescribeModel p99, {connections} connections", "unit": "us", "ours": ours["p99"], "reference": peer["p99"], "reference_name": "moto server", "budget": "<= 0.1"}
