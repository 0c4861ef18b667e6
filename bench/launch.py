"""CreateTrainingJob sent → first instruction of a sealed container, against the OCI runtime's own run of the same bundle
and `podman run --network none` of the same image.

Every starter and the container read the same monotonic clock. The engine's figure is taken from before the request is
sent, so it includes HTTP, authorization, the durable record, staging and sealing.
"""
import http.client
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from urllib.parse import urlsplit

from bench import wrk
from bench.processes import containers, favour
from tests.harness.engine import Engine, execution_statements
from tests.harness.jobs import eventually, finished, training_request
from tests.harness.small_image import small_rootfs

FIRST = re.compile(r"first=(\d+)")
# Runs the bundle inside the mount namespace where its file systems are; prints one latency in ns a line.
RUNTIME_LOOP = """
import json, os, re, subprocess, sys, time
bundle, count, netns = sys.argv[1], int(sys.argv[2]), sys.argv[3]
for index in range(count):
    folder = f"{bundle}-bench"
    os.makedirs(folder, exist_ok=True)
    config = json.load(open(f"{bundle}/config.json"))
    config["process"]["args"] = ["/usr/bin/stamp"]
    for space in config["linux"]["namespaces"]:
        if space["type"] == "network":
            space["path"] = netns
    config["linux"]["cgroupsPath"] = f"/isolarium-bench/{os.getpid()}-{index}"
    json.dump(config, open(f"{folder}/config.json", "w"))
    name = f"bench-{os.getpid()}-{index}"
    started = time.monotonic_ns()
    done = subprocess.run(["crun", "--cgroup-manager=cgroupfs", "--root", f"{folder}/state", "run", "--bundle", folder, name], capture_output=True, text=True)
    first = re.search(r"first=(\\d+)", done.stdout)
    if not first:
        sys.exit(done.stderr)
    print(int(first.group(1)) - started, flush=True)
"""


def engine_latencies(engine, image, role, bucket, count, uri=None, prefix="launch", mode="File", before=None, timeout=120):
    """Request sent to first instruction, ns, of `count` jobs one after the other; with `before`, to the first instruction
    after that shell command. The requests are signed beforehand and sent on a kept connection, so that the time is the
    engine's and not the client library's."""
    sagemaker, logs = engine.client("sagemaker"), engine.client("logs")
    connection = http.client.HTTPConnection(urlsplit(engine.url).netloc)
    target = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": "SageMaker.CreateTrainingJob"}
    names, sent = [], {}
    for index in range(count):
        name = f"{prefix}-{index}"
        request = training_request(name, image, role, bucket, uri or f"s3://{bucket}/in/")
        command = ["/bin/sh", "-c", f"{before}; exec /usr/bin/stamp"] if before else ["/usr/bin/stamp"]
        request["AlgorithmSpecification"] |= {"ContainerEntrypoint": command, "TrainingInputMode": mode}
        body = json.dumps(request)
        headers = wrk.signed(engine.url + "/", body, "sagemaker", target, *engine.credentials())
        sent[name] = time.monotonic_ns()
        connection.request("POST", "/", body=body, headers=headers)
        answer = connection.getresponse()
        text = answer.read()
        assert answer.status == 200, text
        job = finished(sagemaker, name, timeout)
        assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
        names.append(name)
    connection.close()

    def first(name):
        found = logs.filter_log_events(logGroupName="/aws/sagemaker/TrainingJobs", logStreamNamePrefix=f"{name}/algo-1-", filterPattern="first")
        return [int(FIRST.search(event["message"]).group(1)) for event in found["events"] if FIRST.search(event["message"])]

    return [eventually(lambda name=name: first(name))[0] - sent[name] for name in names]


def runtime_latencies(engine, image, role, bucket, count):
    """crun on the bundle of a live sealed container, in that container's own mount namespace."""
    sagemaker = engine.client("sagemaker")
    request = training_request("holder", image, role, bucket, f"s3://{bucket}/in/")
    request["AlgorithmSpecification"] |= {"ContainerEntrypoint": ["/bin/sh", "-c", "trap 'exit 0' TERM; sleep 600 & wait"]}
    sagemaker.create_training_job(**request)
    eventually(lambda: sagemaker.describe_training_job(TrainingJobName="holder")["SecondaryStatus"] == "Training")
    time.sleep(0.5)
    ((_, shim),) = containers(engine).values()
    netns = f"isolarium-bench-{os.getpid()}"
    # A descriptor, because the shim's mount namespace does not see names made after it.
    subprocess.run(["ip", "netns", "add", netns], check=True)
    try:
        handle = os.open(f"/run/netns/{netns}", os.O_RDONLY)
        done = subprocess.run(
            ["nsenter", "-t", str(shim), "-m", sys.executable, "-c", RUNTIME_LOOP, "/mnt/bundle", str(count), f"/proc/{os.getpid()}/fd/{handle}"],
            text=True, capture_output=True, check=False,
        )
        os.close(handle)
    finally:
        subprocess.run(["ip", "netns", "del", netns], check=False)
        sagemaker.stop_training_job(TrainingJobName="holder")
    if done.returncode:
        raise RuntimeError(f"crun on the same bundle failed: {done.stderr}")
    finished(sagemaker, "holder")
    return [int(line) for line in done.stdout.split()]


def podman_latencies(rootfs, directory, count):
    """podman with its own storage below `directory`."""
    base = ["podman", "--root", f"{directory}/storage", "--runroot", f"{directory}/run", "--cgroup-manager=cgroupfs"]
    # crun refuses a hybrid cgroup layout; podman gets the same way round it as the engine's shim.
    wrap = ["unshare", "-m", "--propagation", "slave", "sh", "-c", 'umount /sys/fs/cgroup/unified 2>/dev/null; exec "$@"', "sh"]
    archive = f"{directory}/image.tar"
    subprocess.run(["tar", "-C", str(rootfs), "-cf", archive, "."], check=True)
    subprocess.run([*wrap, *base, "import", archive, "bench:1"], check=True, capture_output=True)
    # podman asks for more than it may have where the machine's own limits are low.
    limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]
    times = []
    for _ in range(count):
        started = time.monotonic_ns()
        done = subprocess.run([*wrap, *base, "run", "--rm", "--network", "none", *limits, "bench:1", "/usr/bin/stamp"], text=True, capture_output=True)
        first = FIRST.search(done.stdout)
        if not first:
            raise RuntimeError(f"podman run failed: {done.stderr}")
        times.append(int(first.group(1)) - started)
    return times


def run(binary, cache, quick):
    count = 10 if quick else 40
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory, Engine(binary, internet=False) as engine:
        favour(*engine.pids().values())
        bucket = "launch"
        engine.client("s3").create_bucket(Bucket=bucket)
        engine.client("s3").put_object(Bucket=bucket, Key="in/a", Body=b"x")
        role = engine.create_role("exec", execution_statements(bucket))
        rootfs = small_rootfs(directory)
        image = engine.pack_image(rootfs, "small:1")
        # The first job unpacks the image; "image present" starts after it.
        warm = training_request("warm", image, role, bucket, f"s3://{bucket}/in/")
        engine.client("sagemaker").create_training_job(**warm)
        assert finished(engine.client("sagemaker"), "warm")["TrainingJobStatus"] == "Completed"
        ours = statistics.median(engine_latencies(engine, image, role, bucket, count)) / 1e6
        runtime = statistics.median(runtime_latencies(engine, image, role, bucket, count)) / 1e6
        podman = statistics.median(podman_latencies(rootfs, directory, 5 if quick else 15)) / 1e6
        subprocess.run(["podman", "--root", f"{directory}/storage", "--runroot", f"{directory}/run", "system", "reset", "--force"], check=False, capture_output=True)
        shutil.rmtree(f"{directory}/storage", ignore_errors=True)
    name = "CreateTrainingJob sent to first instruction"
    yield {"name": name, "unit": "ms", "ours": ours, "reference": runtime, "reference_name": "crun run of the same bundle", "budget": "<= 2.5"}
    yield {"name": f"{name}, against podman", "unit": "ms", "ours": ours, "reference": podman, "reference_name": "podman run --network none", "budget": "<= 0.2"}
