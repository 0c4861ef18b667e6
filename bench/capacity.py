"""Jobs per minute through the queue: many jobs that wait for room, against a client that keeps as many running by itself and
starts the next one when one has ended.

The jobs are sealed containers that end at once, so what is measured is how fast room changes hands.
"""
import tempfile
import time

from tests.harness.engine import Engine, execution_statements
from tests.harness.jobs import training_request
from tests.harness.small_image import small_rootfs

BUCKET = "queue"
ENDED = ("Completed", "Failed", "Stopped")


def prepared(engine, directory):
    """A function that creates a job by name."""
    s3, sagemaker = engine.client("s3"), engine.client("sagemaker")
    s3.create_bucket(Bucket=BUCKET)
    s3.put_object(Bucket=BUCKET, Key="in/a", Body=b"x")
    role = engine.create_role("exec", execution_statements(BUCKET))
    image = engine.pack_image(small_rootfs(directory), "small:1")
    return lambda name: sagemaker.create_training_job(**training_request(name, image, role, BUCKET, f"s3://{BUCKET}/in/"))


def status(sagemaker, name):
    found = sagemaker.describe_training_job(TrainingJobName=name)["TrainingJobStatus"]
    assert found != "Failed", name
    return found


def queued(engine, create, count):
    """Jobs per minute when all of them are created at once."""
    sagemaker = engine.client("sagemaker")
    began = time.monotonic()
    names = [f"queued-{number}" for number in range(count)]
    for name in names:
        create(name)
    left = set(names)
    while left:
        left = {name for name in left if status(sagemaker, name) not in ENDED}
        time.sleep(0.05)
    return count * 60 / (time.monotonic() - began)


def by_hand(engine, create, count, room):
    """Jobs per minute when the client starts the next one."""
    sagemaker = engine.client("sagemaker")
    began = time.monotonic()
    names, running, done = iter([f"hand-{number}" for number in range(count)]), set(), 0
    while done < count:
        for name in list(running):
            if status(sagemaker, name) in ENDED:
                running.remove(name)
                done += 1
        while len(running) < room and (name := next(names, None)):
            create(name)
            running.add(name)
        time.sleep(0.05)
    return count * 60 / (time.monotonic() - began)


def run(binary, cache, quick):
    count, room = (40, 4) if quick else (200, 8)
    with tempfile.TemporaryDirectory() as directory:
        with Engine(binary, {"capacity.vcpus": 2 * room}, internet=False) as engine:
            ours = queued(engine, prepared(engine, directory), count)
        with Engine(binary, internet=False) as engine:
            reference = by_hand(engine, prepared(engine, directory), count, room)
    yield {
        "name": f"jobs per minute through the queue, {count} jobs, {room} at once", "unit": "1/min", "ours": ours,
        "reference": reference, "reference_name": "client that starts the next", "budget": ">= 0.9",
    }
