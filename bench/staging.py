"""File-mode staging of 10 MB, 1 GB and 10 GB at equal object counts: no byte is copied. FastFile over a hundred keys that
share one object. Many small objects in File, FastFile and Pipe mode against `aws s3 sync` from the same server.

Measured from before the request is sent to the container's first instruction, so nothing of the staging can hide; in Pipe
mode to the first instruction after the last byte was read.
"""
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

from bench.launch import engine_latencies
from tests.harness.engine import Engine, execution_statements
from tests.harness.small_image import small_rootfs

OBJECTS = 10
SHARED = 100
SMALL = 1024
# What a job does with its channel before the clock is read.
READ = {"File": None, "FastFile": None, "Pipe": "cat /opt/ml/input/data/train_0 > /dev/null"}


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
        yield from shared(engine, image, role, bucket, quick)
        yield from many(engine, image, role, bucket, quick)


def shared(engine, image, role, bucket, quick):
    """One object under a hundred keys: 100 GB in the full form, of which the disk holds one."""
    s3, sizes = engine.client("s3"), {"1 MB": 1 << 20, "64 MB": 64 << 20} if quick else {"1 MB": 1 << 20, "1 GB": 1 << 30}
    for label, size in sizes.items():
        folder = f"shared-{size}"
        with tempfile.TemporaryFile() as body:
            body.truncate(size)
            s3.put_object(Bucket=bucket, Key=f"{folder}/0", Body=body)
        for index in range(1, SHARED):
            s3.copy_object(Bucket=bucket, Key=f"{folder}/{index}", CopySource={"Bucket": bucket, "Key": f"{folder}/0"})
    times = {label: [] for label in sizes}
    for repeat in range(5 if quick else 15):
        for label, size in sizes.items():
            times[label] += engine_latencies(engine, image, role, bucket, 1, f"s3://{bucket}/shared-{size}/", f"shared-{size}-{repeat}", "FastFile")
    small, large = (statistics.median(took) / 1e6 for took in times.values())
    first, last = sizes
    yield {"name": f"request to first instruction, FastFile, {SHARED} keys of one object of {last}", "unit": "ms", "ours": large, "reference": small, "reference_name": f"of one object of {first}", "budget": "<= 2"}


def many(engine, image, role, bucket, quick):
    """Objects of a kilobyte each."""
    s3, count = engine.client("s3"), 2_000 if quick else 100_000
    with ThreadPoolExecutor(8) as pool:
        for done in pool.map(lambda index: s3.put_object(Bucket=bucket, Key=f"many/{index // 1000:03}/{index:06}", Body=os.urandom(SMALL)), range(count)):
            assert done["ETag"]
    times, sync = {mode: [] for mode in READ}, []
    for repeat in range(3 if quick else 1):
        for mode, before in READ.items():
            times[mode] += engine_latencies(engine, image, role, bucket, 1, f"s3://{bucket}/many/", f"many-{mode.lower()}-{repeat}", mode, before, timeout=3600)
        with tempfile.TemporaryDirectory(dir=engine.directory) as copy:
            started = time.monotonic_ns()
            subprocess.run(["/usr/bin/aws", "--endpoint-url", engine.url, "s3", "sync", "--quiet", f"s3://{bucket}/many/", copy], env=engine.environment(), check=True)
            sync.append(time.monotonic_ns() - started)
            assert sum(len(files) for _, _, files in os.walk(copy)) == count
    reference = statistics.median(sync) / 1e6
    for mode, took in times.items():
        until = "the last byte read" if READ[mode] else "first instruction"
        yield {"name": f"request to {until}, {count} small objects, {mode}", "unit": "ms", "ours": statistics.median(took) / 1e6, "reference": reference, "reference_name": "aws s3 sync", "budget": "<= 1"}
