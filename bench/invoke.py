"""InvokeEndpoint, authenticated, against a direct connection to the same container and against nginx proxying it unsigned.

The sealed container has only loopback, so the direct client and nginx run inside its network namespace.
"""
import tempfile

from bench import wrk
from bench.processes import containers, favour
from bench.s3 import Nginx
from tests.harness.engine import Engine, execution_statements
from tests.harness.jobs import settled
from tests.harness.small_image import small_rootfs


BODY = "x" * 128


def live_endpoint(engine, directory):
    """The model m and the endpoint e, in service: a static responder in a sealed container."""
    sagemaker = engine.client("sagemaker")
    role = engine.create_role("exec", execution_statements("none"))
    image = engine.pack_image(small_rootfs(directory), "small:1")
    sagemaker.create_model(ModelName="m", ExecutionRoleArn=role, PrimaryContainer={"Image": image}, EnableNetworkIsolation=True)
    variant = {"VariantName": "AllTraffic", "ModelName": "m", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    sagemaker.create_endpoint_config(EndpointConfigName="e", ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName="e", EndpointConfigName="e")
    assert settled(sagemaker, "e")["EndpointStatus"] == "InService"


def invocation(engine):
    """What wrk sends to the endpoint e: url, body, signing name, headers."""
    return engine.url + "/endpoints/e/invocations", BODY, "sagemaker", {"Content-Type": "text/plain"}


def run(binary, cache, quick):
    seconds = 2 if quick else 10
    with tempfile.TemporaryDirectory() as directory, Engine(binary, {"endpoints.ping_interval": "5s"}, internet=False) as engine:
        live_endpoint(engine, directory)
        ((container, _),) = containers(engine).values()
        favour(*engine.pids().values(), container)
        inside = ["nsenter", "-t", str(container), "-n"]
        url, body, service, headers = invocation(engine)
        headers = wrk.signed(url, body, service, headers, *engine.credentials())
        proxy = "upstream c { server 127.0.0.1:8080; keepalive 64; } server { listen 127.0.0.1:PORT; location / { proxy_pass http://c; proxy_http_version 1.1; proxy_set_header Connection ''; } }"
        with Nginx(directory, proxy, inside) as nginx:
            for connections in (1, 8):
                direct = wrk.run("http://127.0.0.1:8080/invocations", body, {}, connections, seconds, inside)
                ours = wrk.run(url, body, headers, connections, seconds)
                peer = wrk.run(f"http://127.0.0.1:{nginx.port}/invocations", body, {}, connections, seconds, inside)
                kind = f"InvokeEndpoint, {connections} connection{'s' if connections > 1 else ''}"
                p50 = {"budget": "<= 6"} if connections == 1 else {}
                yield {"name": f"{kind}: added p50", "unit": "us", "ours": ours["p50"] - direct["p50"], "reference": direct["p50"], "reference_name": "direct connection, p50"} | p50
                yield {"name": f"{kind}: added p99", "unit": "us", "ours": ours["p99"] - direct["p99"], "reference": direct["p99"], "reference_name": "direct connection, p99"}
                yield {"name": f"{kind}: requests/s", "unit": "1/s", "ours": ours["rate"], "reference": peer["rate"], "reference_name": "nginx as reverse proxy", "budget": ">= 0.5"}
        engine.client("sagemaker").delete_endpoint(EndpointName="e")
