"""File-mode staging of 10 MB, 1 GB and 10 GB at equal object counts: no byte is copied.

Measured from before the request is sent to the container's first instruction, so nothing of the staging can hide.
"""
import os
import shutil
import statistics
import tempfile

from bench.launch import engine_latencies
from tests.harness.engine import Engine, execution_statements
from tests.harness.small_image import small_rootfs

OBJECTS = 10


def run(binary, cache, quick):
    sizes = {"10 MB": 10 << 20, "1 GB": 1 << 30} | ({} if quick else {"10 GB": 10 << 30})
    with tempfile.TemporaryDirectory() as directory, Engine(binary, internet=False) as engine:
        room, wanted = shutil.disk_usage(engine.directory).free, sum(sizes.values()) + (2 << 30)
        if room < wanted:
            raise RuntimeError(f"{engine.directory} has {room >> 30} GiB free, this benchmark needs {wanted >> 30}")
        s3, bucket = engine.client("s3"), "staging"
        s3.create_bucket(Bucket=bucket)
        role = engine.create_role("exec", execution_statements(bucket))
        image = engine.pack_image(small_rootfs(directory), "small:1")
        for label, size in sizes.items():
            block = os.urandom(1 << 20) * (size // OBJECTS >> 20)
            for index in range(OBJECTS):
                s3.put_object(Bucket=bucket, Key=f"{label.replace(' ', '')}/{index}", Body=block)
            del block
        times = {label: [] for label in sizes}
        # The first round unpacks the image and is not counted; the sizes take turns.
        for repeat in range((5 if quick else 15) + 1):
            for label in sizes:
                folder = label.replace(" ", "")
                took = engine_latencies(engine, image, role, bucket, 1, f"s3://{bucket}/{folder}/", f"staging-{folder}-{repeat}")
                times[label] += took if repeat else []
        medians = {label: statistics.median(took) / 1e6 for label, took in times.items()}
        small = medians.pop("10 MB")
        yield {"name": f"request to first instruction, {OBJECTS} objects, 10 MB", "unit": "ms", "ours": small}
        for label, took in medians.items():
            yield {"name": f"request to first instruction, {OBJECTS} objects, {label}", "unit": "ms", "ours": took, "reference": small, "reference_name": "10 MB in as many objects", "budget": "<= 2"}
