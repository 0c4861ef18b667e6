"""File-mode staging time for 10 MB, 1 GB and 10 GB at equal object counts: no byte is copied."""
import os
import statistics
import tempfile

from tests.harness.engine import Engine, execution_statements
from tests.harness.jobs import finished, training_request
from tests.harness.small_image import small_rootfs

OBJECTS = 10


def staged(job):
    """Seconds of the Downloading phase, from the published transitions."""
    step = next(step for step in job["SecondaryStatusTransitions"] if step["Status"] == "Downloading")
    return (step["EndTime"] - step["StartTime"]).total_seconds()


def run(binary, cache, quick):
    sizes = {"10 MB": 10 << 20, "1 GB": 1 << 30} | ({} if quick else {"10 GB": 10 << 30})
    with tempfile.TemporaryDirectory() as directory, Engine(binary, internet=False) as engine:
        s3, sagemaker, bucket = engine.client("s3"), engine.client("sagemaker"), "staging"
        s3.create_bucket(Bucket=bucket)
        role = engine.create_role("exec", execution_statements(bucket))
        image = engine.pack_image(small_rootfs(directory), "small:1")
        medians = {}
        for label, size in sizes.items():
            folder, block = label.replace(" ", ""), os.urandom(1 << 20) * (size // OBJECTS >> 20)
            for index in range(OBJECTS):
                s3.put_object(Bucket=bucket, Key=f"{folder}/{index}", Body=block)
            times = []
            for repeat in range(3 if quick else 7):
                name = f"staging-{folder}-{repeat}".lower()
                request = training_request(name, image, role, bucket, f"s3://{bucket}/{folder}/")
                # A job of its own program: it looks at the sizes and reads nothing.
                request["AlgorithmSpecification"] |= {"ContainerEntrypoint": ["/bin/sh", "-c", "ls -l /opt/ml/input/data/train"]}
                sagemaker.create_training_job(**request)
                job = finished(sagemaker, name)
                assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
                times.append(staged(job))
            medians[label] = max(statistics.median(times), 0.001)
            for index in range(OBJECTS):
                s3.delete_object(Bucket=bucket, Key=f"{folder}/{index}")
        small = medians.pop("10 MB")
        yield {"name": f"staging, {OBJECTS} objects, 10 MB", "unit": "ms", "ours": small * 1e3}
        for label, took in medians.items():
            yield {"name": f"staging, {OBJECTS} objects, {label}", "unit": "ms", "ours": took * 1e3, "reference": small * 1e3, "reference_name": "10 MB of as many objects", "budget": "<= 2"}
