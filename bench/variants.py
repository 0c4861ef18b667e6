"""InvokeEndpoint of an endpoint with 1, 4 and 10 production variants (the API allows no more) of one container each."""
import tempfile

from bench import wrk
from bench.invoke import BODY
from bench.processes import containers, favour
from tests.harness.engine import Engine, execution_statements
from tests.harness.jobs import settled
from tests.harness.small_image import small_rootfs


def run(binary, cache, quick):
    rounds, seconds = (2, 1) if quick else (5, 3)
    with tempfile.TemporaryDirectory() as directory, Engine(binary, {"endpoints.ping_interval": "5s"}, internet=False) as engine:
        sagemaker = engine.client("sagemaker")
        role = engine.create_role("exec", execution_statements("none"))
        image = engine.pack_image(small_rootfs(directory), "small:1")
        sagemaker.create_model(ModelName="m", ExecutionRoleArn=role, PrimaryContainer={"Image": image}, EnableNetworkIsolation=True)
        counts = (1, 4, 10)
        for count in counts:
            name = f"of-{count}"
            variant = {"ModelName": "m", "InstanceType": "ml.t2.medium", "InitialInstanceCount": 1, "InitialVariantWeight": 1.0}
            sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant | {"VariantName": f"v{at}"} for at in range(count)])
            sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
            assert settled(sagemaker, name)["EndpointStatus"] == "InService"
        favour(*engine.pids().values(), *(pid for pid, _ in containers(engine).values()))
        best = dict.fromkeys(counts, 0.0)
        # In turns, so that all of them meet the same machine.
        for _ in range(rounds):
            for count in counts:
                url = f"{engine.url}/endpoints/of-{count}/invocations"
                headers = wrk.signed(url, BODY, "sagemaker", {"Content-Type": "text/plain"}, *engine.credentials())
                best[count] = max(best[count], wrk.run(url, BODY, headers, 8, seconds)["rate"])
        for count in counts:
            peer = {"reference": best[1], "reference_name": "one variant"} if count > 1 else {}
            yield {"name": f"InvokeEndpoint, 8 connections, {count} variants: requests/s", "unit": "1/s", "ours": best[count]} | peer
        for count in counts:
            sagemaker.delete_endpoint(EndpointName=f"of-{count}")
