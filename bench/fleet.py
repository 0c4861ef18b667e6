"""Many running sealed containers: what each costs the platform while idle, and a restart of the engine beside them."""
import statistics
import tempfile
import time

from bench.processes import containers, memory_mib
from tests.harness.engine import Engine, execution_statements
from tests.harness.jobs import eventually, training_request
from tests.harness.small_image import small_rootfs


def run(binary, cache, quick):
    count = 100 if quick else 300
    with tempfile.TemporaryDirectory() as directory, Engine(binary, internet=False) as engine:
        sagemaker, bucket = engine.client("sagemaker"), "fleet"
        engine.client("s3").create_bucket(Bucket=bucket)
        engine.client("s3").put_object(Bucket=bucket, Key="in/a", Body=b"x")
        role = engine.create_role("exec", execution_statements(bucket))
        image = engine.pack_image(small_rootfs(directory), "small:1")
        before = memory_mib(engine.pids().values())
        for index in range(count):
            request = training_request(f"rest-{index}", image, role, bucket, f"s3://{bucket}/in/")
            request["AlgorithmSpecification"] |= {"ContainerEntrypoint": ["/usr/bin/serve"]}
            sagemaker.create_training_job(**request)
        eventually(lambda: len(containers(engine)) == count, timeout=300)
        running = containers(engine)
        time.sleep(2)
        shims = [memory_mib([shim]) for _, shim in running.values()]
        grown = memory_mib(engine.pids().values()) - before
        engine.stop()
        started = time.monotonic()
        engine.start()
        took = time.monotonic() - started
        # The same processes, and every job still runs by its record.
        assert containers(engine) == running, "a restart touched running containers"
        jobs = [job for page in sagemaker.get_paginator("list_training_jobs").paginate(StatusEquals="InProgress") for job in page["TrainingJobSummaries"]]
        assert len(jobs) == count, f"{len(jobs)} of {count} jobs run after the restart"
    yield {"name": f"idle sealed container: its shim (PSS, median of {count})", "unit": "MiB", "ours": statistics.median(shims)}
    yield {"name": "idle sealed container: growth of serve + node, each", "unit": "MiB", "ours": grown / count}
    yield {"name": f"restart to ready beside {count} running containers, all adopted", "unit": "ms", "ours": took * 1e3}
