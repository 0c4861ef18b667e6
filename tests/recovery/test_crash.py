"""kill -9 at random moments: nothing acknowledged is lost, nothing is left over, every resource ends in a legal state.

CRASHES and SEED choose how often and where; a failure prints its seed.
"""
import hashlib
import io
import os
import random
import signal
import sys
import tarfile
import threading
import time
from pathlib import Path

import pytest
from botocore.exceptions import BotoCoreError, ClientError

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.harness.engine import Engine, execution_statements  # noqa: E402
from tests.harness.jobs import eventually, finished, gone, settled, training_request  # noqa: E402
from tests.harness.small_image import small_rootfs  # noqa: E402
from tests.harness.traces import Traces  # noqa: E402

CRASHES = int(os.environ.get("CRASHES", "50"))
SEED = int(os.environ.get("SEED", "20260101"))
JOB_STATES = {"InProgress", "Stopping", "Completed", "Failed", "Stopped"}
ENDPOINT_STATES = {"Creating", "Updating", "RollingBack", "InService", "Deleting"}
SETTINGS = {"jobs.stop_grace": "1s", "endpoints.ping_interval": "200ms", "endpoints.startup_timeout": "60s", "endpoints.restart_backoff": "100ms"}
BUCKET, VERSIONED = "crash", "crash-versions"
REFUSED = (ClientError, BotoCoreError)


def digest(body):
    return hashlib.sha256(body).hexdigest()


def variant(model):
    return [{"VariantName": "AllTraffic", "ModelName": model, "InstanceType": "ml.t2.medium", "InitialInstanceCount": 1}]


class Work:
    """Functions that run beside a test, each in a thread with its own chance, until the test is over."""

    def __init__(self, *targets):
        self.stop, self.broken = threading.Event(), []
        self.threads = [threading.Thread(target=self._guard, args=(target,), daemon=True) for target in targets]

    def _guard(self, target):
        try:
            target(random.Random(f"{SEED} {target.__name__}"))
        except BaseException as error:  # shown by the test
            self.broken.append(f"{target.__name__}: {error!r}")
            raise

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        for thread in self.threads:
            thread.join(90)


class Load(Work):
    """Uploads, deletions, jobs, invocations and changes of endpoints that go on through the crashes; remembers what was
    acknowledged."""

    def __init__(self, engine, image, role):
        self.engine, self.image, self.role = engine, image, role
        # What a key may hold: one value after an acknowledged change, several (None: nothing) after unanswered ones.
        self.objects = {}
        self.versions = {}
        self.jobs, self.stopped = {}, set()
        self.answers = self.wrong = self.deployments = 0
        super().__init__(self.upload, self.upload_parts, self.upload_versions, self.train, self.invoke, self.deploy)

    def change(self, key, value, request):
        """One upload or deletion: afterwards the key holds the new value if it was acknowledged, else this or what it held."""
        before = self.objects.get(key, {None})
        self.objects[key] = before | {value}
        try:
            request()
            self.objects[key] = {value}
            return True
        except REFUSED:
            time.sleep(0.05)
            return False

    def upload(self, chance):
        s3 = self.engine.client("s3")
        while not self.stop.is_set():
            key = f"load/{chance.randrange(40)}"
            if chance.random() < 0.2:
                self.change(key, None, lambda: s3.delete_object(Bucket=BUCKET, Key=key))
            else:
                body = chance.randbytes(chance.choice((0, 10, 5_000, 300_000, 3_000_000)))
                self.change(key, digest(body), lambda: s3.put_object(Bucket=BUCKET, Key=key, Body=body))

    def upload_parts(self, chance):
        s3 = self.engine.client("s3")
        while not self.stop.is_set():
            key, parts = f"parts/{chance.randrange(4)}", [chance.randbytes(5 << 20), chance.randbytes(1000)]

            def request():
                upload = s3.create_multipart_upload(Bucket=BUCKET, Key=key)["UploadId"]
                done = [
                    {"PartNumber": number, "ETag": s3.upload_part(Bucket=BUCKET, Key=key, UploadId=upload, PartNumber=number, Body=part)["ETag"]}
                    for number, part in enumerate(parts, 1)
                ]
                s3.complete_multipart_upload(Bucket=BUCKET, Key=key, UploadId=upload, MultipartUpload={"Parts": done})

            self.change(key, digest(b"".join(parts)), request)
            time.sleep(0.1)

    def upload_versions(self, chance):
        s3 = self.engine.client("s3")
        while not self.stop.is_set():
            key, body = f"load/{chance.randrange(5)}", chance.randbytes(chance.choice((10, 100_000)))
            try:
                version = s3.put_object(Bucket=VERSIONED, Key=key, Body=body)["VersionId"]
                self.versions[key, version] = digest(body)
            except REFUSED:
                time.sleep(0.05)
            time.sleep(0.02)

    def train(self, chance):
        sagemaker, index = self.engine.client("sagemaker"), 0
        while not self.stop.is_set():
            name, index = f"crash-{index}", index + 1
            lines = chance.choice((0, 5, 40))
            chosen = {"lines": str(lines), "pause": chance.choice(("0", "0.02")), "seconds": f"{chance.choice((0, 0, 0.3, 1)):.1f}"}
            request = training_request(name, self.image, self.role, BUCKET, f"s3://{BUCKET}/input/", chance.random() < 0.6, HyperParameters=chosen)
            try:
                sagemaker.create_training_job(**request)
                self.jobs[name] = lines
                if chance.random() < 0.15:
                    time.sleep(chance.uniform(0, 0.4))
                    self.stopped.add(name)
                    sagemaker.stop_training_job(TrainingJobName=name)
            except REFUSED:
                time.sleep(0.05)
            time.sleep(0.3)

    def invoke(self, _):
        runtime = self.engine.client("sagemaker-runtime")
        while not self.stop.is_set():
            try:
                if runtime.invoke_endpoint(EndpointName="steady", Body=b"x")["Body"].read() == b"fixed\n":
                    self.answers += 1
                else:
                    self.wrong += 1
                time.sleep(0.005)
            except REFUSED:
                time.sleep(0.02)

    def deploy(self, chance):
        """Creates, updates and deletes one endpoint over and over."""
        sagemaker, index = self.engine.client("sagemaker"), 0
        while not self.stop.is_set():
            index += 1
            change = chance.choice((
                lambda: sagemaker.create_endpoint(EndpointName="moving", EndpointConfigName="moving-a"),
                lambda: sagemaker.update_endpoint(EndpointName="moving", EndpointConfigName=chance.choice(("moving-a", "moving-b"))),
                lambda: sagemaker.delete_endpoint(EndpointName="moving"),
            ))
            try:
                change()
                self.deployments += 1
            except REFUSED:
                pass
            time.sleep(chance.uniform(0, 0.4))


def crash(engine, choice):
    """Kills one half or both and brings the engine back, at once, as a supervisor would. Returns the seconds until it answered."""
    pids = engine.pids()
    began = time.monotonic()
    for victim in {"serve": ["serve"], "node": ["node"], "both": ["node", "serve"]}[choice]:
        try:
            os.kill(pids[victim], signal.SIGKILL)
        except (ProcessLookupError, KeyError):
            pass
    if choice == "serve":
        s3 = engine.client("s3", config={"retries": {"max_attempts": 0}})
        eventually(lambda: answers(s3), 30, pause=0.01)
    else:
        engine.process.wait(20)
        engine.start()
    return time.monotonic() - began


def answers(s3):
    try:
        return s3.list_buckets()
    except REFUSED:
        return None


@pytest.fixture(scope="module")
def engine(request):
    with Engine(os.environ["ISOLARIUM_BINARY"], SETTINGS, internet=False) as running:
        yield running
        if request.session.testsfailed:
            print(f"\nseed {SEED}; the end of the engine's log:\n{running.tail(60)}")


def lines_of(logs, job):
    """Every line of a job's log stream, by GetLogEvents."""
    group = "/aws/sagemaker/TrainingJobs"
    streams = [stream["logStreamName"] for stream in logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=f"{job}/")["logStreams"]]
    found = []
    for stream in [name for name in streams if not name.endswith("/network-isolation")]:
        token = None
        while True:
            page = logs.get_log_events(logGroupName=group, logStreamName=stream, startFromHead=True, **({"nextToken": token} if token else {}))
            found += [event["message"] for event in page["events"]]
            if page["nextForwardToken"] == token:
                break
            token = page["nextForwardToken"]
    return found


def expected_lines(count):
    return ["loss=0.5;", *(f"line {number}" for number in range(count)), "done"]


def check_objects(s3, load):
    for key, allowed in load.objects.items():
        try:
            seen = digest(s3.get_object(Bucket=BUCKET, Key=key)["Body"].read())
        except s3.exceptions.NoSuchKey:
            seen = None
        assert seen in allowed, key
    listed = {entry["Key"] for page in s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET) for entry in page.get("Contents", [])}
    assert {key for key, allowed in load.objects.items() if allowed == {None}}.isdisjoint(listed)
    assert {key for key, allowed in load.objects.items() if None not in allowed} <= listed
    for (key, version), expected in load.versions.items():
        assert digest(s3.get_object(Bucket=VERSIONED, Key=key, VersionId=version)["Body"].read()) == expected, (key, version)


def check_jobs(engine, load):
    sagemaker, s3, logs = engine.client("sagemaker"), engine.client("s3"), engine.client("logs")
    for job, lines in load.jobs.items():
        done = finished(sagemaker, job)
        allowed = {"Completed", "Stopped"} if job in load.stopped else {"Completed"}
        assert done["TrainingJobStatus"] in allowed, (job, done.get("FailureReason"))
        written, whole = lines_of(logs, job), expected_lines(lines)
        if done["TrainingJobStatus"] == "Stopped":
            assert written == whole[: len(written)], job
            continue
        assert written == whole, job
        key = done["ModelArtifacts"]["S3ModelArtifacts"].removeprefix(f"s3://{BUCKET}/")
        archive = tarfile.open(fileobj=io.BytesIO(s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()))
        assert archive.extractfile(next(name for name in archive.getnames() if name.endswith("seen"))).read() == b"input data", job


def check_states(engine, load, sagemaker):
    for job in list(load.jobs)[-5:]:
        assert sagemaker.describe_training_job(TrainingJobName=job)["TrainingJobStatus"] in JOB_STATES
    for endpoint in sagemaker.list_endpoints()["Endpoints"]:
        assert endpoint["EndpointStatus"] in ENDPOINT_STATES, endpoint
    assert sagemaker.describe_endpoint(EndpointName="steady")["EndpointStatus"] == "InService"


def test_a_killed_server_loses_nothing_and_leaves_nothing(engine, tmp_path):
    """Proves: NET-72
    """
    s3, sagemaker = engine.client("s3"), engine.client("sagemaker")
    for name in (BUCKET, VERSIONED):
        s3.create_bucket(Bucket=name)
    s3.put_bucket_versioning(Bucket=VERSIONED, VersioningConfiguration={"Status": "Enabled"})
    s3.put_object(Bucket=BUCKET, Key="input/a", Body=b"input data")
    with Traces(engine) as traces:
        role = engine.create_role("crash", execution_statements(BUCKET))
        image = engine.pack_image(small_rootfs(tmp_path), "small:1")
        for name, isolated in (("sealed", True), ("open", False)):
            sagemaker.create_model(ModelName=name, ExecutionRoleArn=role, EnableNetworkIsolation=isolated, PrimaryContainer={"Image": image})
        for name, model in (("steady", "sealed"), ("moving-a", "sealed"), ("moving-b", "open")):
            sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=variant(model))
        sagemaker.create_endpoint(EndpointName="steady", EndpointConfigName="steady")
        assert settled(sagemaker, "steady")["EndpointStatus"] == "InService"
        steady = traces.containers()
        chance, back = random.Random(SEED), {"serve": [], "node": [], "both": []}
        with Load(engine, image, role) as load:
            for _ in range(CRASHES):
                time.sleep(chance.uniform(0.02, 0.8))
                choice = chance.choice(("serve", "node", "both"))
                back[choice].append(crash(engine, choice))
                check_states(engine, load, sagemaker)
        print(f"\nseed {SEED}: {len(load.jobs)} jobs, {len(load.objects)} keys, {len(load.versions)} versions, {load.answers} answers, {load.deployments} deployments")
        for choice, seconds in back.items():
            print(f"back after the death of {choice}: {sorted(f'{one * 1000:.0f} ms' for one in seconds)}")
        assert load.broken == []
        assert load.wrong == 0
        assert load.answers > CRASHES, "the endpoint went on answering between crashes"
        assert len(load.jobs) > CRASHES // 4
        check_objects(s3, load)
        check_jobs(engine, load)
        assert settled(sagemaker, "steady")["EndpointStatus"] == "InService"
        assert steady.items() <= traces.containers().items(), "adopted, not restarted"
        for name in ("steady", "moving"):
            try:
                settled(sagemaker, name)
                sagemaker.delete_endpoint(EndpointName=name)
            except ClientError:
                assert name == "moving"
            gone(sagemaker, name)
        for upload in s3.list_multipart_uploads(Bucket=BUCKET).get("Uploads", []):
            s3.abort_multipart_upload(Bucket=BUCKET, Key=upload["Key"], UploadId=upload["UploadId"])
        try:
            eventually(lambda: not traces.left(), 30)
        except AssertionError:
            assert traces.left() == []
        engine.stop()
        engine.run("teardown")
        assert traces.left(running=False) == []
        engine.start()
        check_objects(s3, load)
