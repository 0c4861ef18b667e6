"""More jobs than the machine has room for, while containers and the engine are killed: every job ends, every record tells a
legal story, and nothing is left on the host.

QUEUE_JOBS, QUEUE_ROOM and QUEUE_KILLS choose how many jobs there are, how many run at once and how often something dies; the
long form is QUEUE_JOBS=100 QUEUE_ROOM=20 QUEUE_KILLS=20.
"""
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.harness.engine import Engine, execution_statements  # noqa: E402
from tests.harness.jobs import eventually, finished, training_request  # noqa: E402
from tests.harness.small_image import small_rootfs  # noqa: E402
from tests.harness.traces import Traces  # noqa: E402
from tests.recovery.test_crash import crash  # noqa: E402

JOBS = int(os.environ.get("QUEUE_JOBS", "20"))
ROOM = int(os.environ.get("QUEUE_ROOM", "6"))
KILLS = int(os.environ.get("QUEUE_KILLS", "5"))
SEED = int(os.environ.get("SEED", "20260101"))
BUCKET = "queue"
# What may follow a secondary status.
NEXT = {
    "Starting": {"Pending", "Downloading", "Stopping", "Failed"},
    "Pending": {"Downloading", "Stopping", "Failed"},
    "Downloading": {"Training", "Stopping", "Failed"},
    "Training": {"Uploading", "Stopping", "Failed"},
    "Uploading": {"Completed", "Stopping", "Failed"},
    "Stopping": {"Stopped", "Failed"},
}


@pytest.fixture(scope="module")
def engine():
    settings = {"capacity.vcpus": 2 * ROOM, "jobs.stop_grace": "1s"}
    with Engine(os.environ["ISOLARIUM_BINARY"], settings, internet=False) as running:
        yield running


def usage(engine):
    return json.loads(engine.run("top", "--json").stdout)


def check_story(job):
    """Starting first, an end last, and only legal steps between."""
    story = [entry["Status"] for entry in job["SecondaryStatusTransitions"]]
    assert story[0] == "Starting" and story[-1] == job["SecondaryStatus"], story
    for before, after in zip(story, story[1:]):
        assert after in NEXT[before], (job["TrainingJobName"], story)
    entries = job["SecondaryStatusTransitions"]
    assert all(one["EndTime"] <= two["StartTime"] for one, two in zip(entries, entries[1:])), entries
    return story


def test_a_queue_survives_kills_of_containers_and_of_the_engine(engine, tmp_path):
    """Proves: CC-7, SM-28, NET-72"""
    s3, sagemaker, chance = engine.client("s3"), engine.client("sagemaker"), random.Random(SEED)
    s3.create_bucket(Bucket=BUCKET)
    s3.put_object(Bucket=BUCKET, Key="input/a", Body=b"input data")
    with Traces(engine) as traces:
        role = engine.create_role("queue", execution_statements(BUCKET))
        image = engine.pack_image(small_rootfs(tmp_path), "small:1")
        names = [f"queue-{number:03}" for number in range(JOBS)]
        # These have all the room until everything else waits, however slow the machine is.
        first = [f"first-{number}" for number in range(ROOM)]
        for name in first + names:
            isolated = chance.random() < 0.6
            chosen = {"lines": "3", "pause": "0", "seconds": "600" if name in first else f"{chance.uniform(0.5, 2):.1f}"}
            sagemaker.create_training_job(**training_request(name, image, role, BUCKET, f"s3://{BUCKET}/input/", isolated, HyperParameters=chosen))
        full = eventually(lambda: (lambda now: now if len(now["running"]) == ROOM and now["waiting"] else None)(usage(engine)), 60)
        assert full["vcpus"] == full["capacity_vcpus"] == 2 * ROOM

        def last():
            found = sagemaker.describe_training_job(TrainingJobName=names[-1])
            return found if found["SecondaryStatus"] != "Starting" else None

        told = eventually(last, 60)
        eventually(lambda: len(usage(engine)["waiting"]) == JOBS, 60)
        assert (told["TrainingJobStatus"], told["SecondaryStatus"]) == ("InProgress", "Pending")
        assert told["SecondaryStatusTransitions"][-1]["StatusMessage"] == "Training job waiting for capacity"
        waiting = [one["name"] for one in usage(engine)["waiting"]]
        assert waiting == names, "in the order of their creation"
        for name in first:
            sagemaker.stop_training_job(TrainingJobName=name)
        killed, most = 0, 0
        for kill in range(KILLS):
            time.sleep(chance.uniform(0.1, 0.8))
            if kill % 2:
                inside = traces.containers()
                if inside:
                    try:
                        os.kill(chance.choice(sorted(inside)), signal.SIGKILL)
                        killed += 1
                    except ProcessLookupError:
                        pass
            else:
                crash(engine, chance.choice(("serve", "node", "both")))
            now = eventually(lambda: (lambda done: done.returncode == 0 and json.loads(done.stdout))(engine.run("top", "--json", check=False)), 30)
            most = max(most, now["vcpus"])
            left = [one["name"] for one in now["waiting"]]
            assert left == names[len(names) - len(left):], "the order is kept over a restart"
        assert most <= 2 * ROOM, "never more than there is"
        ended = [finished(sagemaker, name, 240) for name in names]
        failed = [job for job in ended if job["TrainingJobStatus"] != "Completed"]
        assert all(job["TrainingJobStatus"] == "Failed" and job["FailureReason"].startswith("AlgorithmError") for job in failed), failed
        assert len(failed) <= killed, [job["FailureReason"] for job in failed]
        stories = [check_story(job) for job in ended]
        assert all("Pending" in story for story in stories)
        for name in first:
            ended = finished(sagemaker, name, 60)
            assert ended["TrainingJobStatus"] == "Stopped" or killed, ended
            check_story(ended)
        after = eventually(lambda: (lambda now: now if not now["running"] else None)(usage(engine)), 30)
        assert (after["vcpus"], after["waiting"]) == (0, [])
        try:
            eventually(lambda: not traces.left(), 30)
        except AssertionError:
            assert traces.left() == []


def test_a_queued_job_can_be_stopped(engine):
    """Proves: SM-33"""
    sagemaker = engine.client("sagemaker")
    image = sagemaker.describe_training_job(TrainingJobName="queue-000")["AlgorithmSpecification"]["TrainingImage"]
    role = sagemaker.describe_training_job(TrainingJobName="queue-000")["RoleArn"]
    long = {"lines": "0", "pause": "0", "seconds": "60"}
    names = [f"stop-{number}" for number in range(ROOM + 1)]
    for name in names:
        sagemaker.create_training_job(**training_request(name, image, role, BUCKET, f"s3://{BUCKET}/input/", HyperParameters=long))

    def phase(name):
        return sagemaker.describe_training_job(TrainingJobName=name)["SecondaryStatus"]

    eventually(lambda: phase(names[-1]) == "Pending", 60)
    sagemaker.stop_training_job(TrainingJobName=names[-1])
    stopped = finished(sagemaker, names[-1], 60)
    assert [entry["Status"] for entry in stopped["SecondaryStatusTransitions"]] == ["Starting", "Pending", "Stopping", "Stopped"]
    assert "TrainingStartTime" not in stopped
    assert {phase(name) for name in names[:-1]} <= {"Starting", "Downloading", "Training"}, "control: the others were not stopped"
    for name in names[:-1]:
        sagemaker.stop_training_job(TrainingJobName=name)
    for name in names[:-1]:
        assert finished(sagemaker, name, 120)["TrainingJobStatus"] == "Stopped"
