"""An endpoint under constant load while it is updated and the engine is killed: updates cost no request, and what a kill
cuts is a broken connection, never a wrong answer.

SEED chooses when the kills come; a failure prints it.
"""
import http.client
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.harness.engine import Engine, execution_statements  # noqa: E402
from tests.harness.jobs import eventually, gone, settled  # noqa: E402
from tests.harness.small_image import small_rootfs  # noqa: E402
from tests.harness.traces import Traces  # noqa: E402
from tests.harness.wire import Signer, ask  # noqa: E402
from tests.recovery.test_crash import crash  # noqa: E402

SEED = int(os.environ.get("SEED", "20260202"))
SETTINGS = {"jobs.stop_grace": "1s", "endpoints.ping_interval": "200ms", "endpoints.startup_timeout": "60s", "endpoints.restart_backoff": "100ms"}
UPDATES, FAILING = 10, 5
# Requests a second, over all callers.
RATE, CALLERS = 200, 10
NAME = "steady"


class Load:
    """Callers that keep to a schedule, whatever comes of their requests. Each sends a body of its own, which the container
    sends back, so an answer that belongs to another request shows."""

    def __init__(self, engine):
        self.engine, self.stop = engine, threading.Event()
        self.answered, self.by_variant, self.cut, self.wrong = Counter(), Counter(), [], []
        self.threads = [threading.Thread(target=self.call, args=(number,), daemon=True) for number in range(CALLERS)]

    def __enter__(self):
        self.began = time.monotonic()
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        for thread in self.threads:
            thread.join(90)
        self.seconds = time.monotonic() - self.began
        assert not any(thread.is_alive() for thread in self.threads), "a request was never answered"

    def call(self, number):
        host, target = urlsplit(self.engine.url).netloc, f"/endpoints/{NAME}/invocations"
        body = b"echo %d %s" % (number, bytes(97 + (number + at) % 26 for at in range(300)))
        signer = Signer(*self.engine.credentials(), "sagemaker")
        due, connection, signed = time.monotonic() + number / RATE, None, 0
        while not self.stop.is_set():
            time.sleep(max(0, due - time.monotonic()))
            due += CALLERS / RATE
            if time.monotonic() - signed > 60:
                headers, signed = signer.headers(host, "POST", target, body), time.monotonic()
            try:
                if connection is None:
                    connection = http.client.HTTPConnection(host, timeout=60)
                answer = ask(connection, "POST", target, headers, body)
                if (answer.status, answer.body) == (200, body):
                    self.answered[number] += 1
                    self.by_variant[answer.headers["x-amzn-invoked-production-variant"]] += 1
                else:
                    self.wrong.append((answer.status, answer.body[:300]))
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                connection = None
                self.cut.append(repr(error))

    def total(self):
        return sum(self.answered.values())

    def more(self, count):
        """Waits until so many further requests were answered."""
        before = self.total()
        eventually(lambda: self.total() >= before + count, 120, pause=0.02)


def variant(model):
    return [{"VariantName": "AllTraffic", "ModelName": model, "InstanceType": "ml.t2.medium", "InitialInstanceCount": 2}]


def kill_both(engine):
    """The half that answers dies first: alive without the other it would say that it cannot reach containers, and be right."""
    pids = engine.pids()
    for half in ("serve", "node"):
        os.kill(pids[half], signal.SIGKILL)
    engine.process.wait(20)
    engine.start()


@pytest.fixture(scope="module")
def engine(request):
    with Engine(os.environ["ISOLARIUM_BINARY"], SETTINGS, internet=False) as running:
        yield running
        if request.session.testsfailed:
            print(f"\nseed {SEED}; the end of the engine's log:\n{running.tail(60)}")


def test_updates_cost_no_request_and_kills_only_cut_connections(engine, tmp_path):
    """Ten updates under load, of which one cannot come up, and two kills of the engine, the second in the middle of a
    further update.

    Proves: AU-26, AU-27, AU-29, SM-22, SM-23, CC-54, NET-72
    """
    sagemaker, chance = engine.client("sagemaker"), random.Random(SEED)
    role = engine.create_role("updates", execution_statements("none"))
    root = small_rootfs(tmp_path)
    good = engine.pack_image(root, "small:1")
    bad = engine.pack_image(root, "small:broken", "--entrypoint", "/usr/bin/no-such-program")
    for name, image, isolated in (("one", good, True), ("two", good, False), ("broken", bad, True)):
        sagemaker.create_model(ModelName=name, ExecutionRoleArn=role, EnableNetworkIsolation=isolated, PrimaryContainer={"Image": image})
        sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=variant(name))
    with Traces(engine) as traces:
        sagemaker.create_endpoint(EndpointName=NAME, EndpointConfigName="one")
        assert settled(sagemaker, NAME)["EndpointStatus"] == "InService"
        with Load(engine) as load:
            load.more(50)
            serving = "one"
            for number in range(UPDATES):
                wanted = "broken" if number == FAILING else {"one": "two", "two": "one"}[serving]
                sagemaker.update_endpoint(EndpointName=NAME, EndpointConfigName=wanted)
                status = sagemaker.describe_endpoint(EndpointName=NAME)["EndpointStatus"]
                assert status in ("Updating", "RollingBack", "InService"), status
                endpoint = settled(sagemaker, NAME)
                assert endpoint["EndpointStatus"] == "InService", endpoint
                if wanted == "broken":
                    assert "could not be started" in endpoint["FailureReason"], endpoint
                else:
                    assert "FailureReason" not in endpoint, endpoint
                    serving = wanted
                assert endpoint["EndpointConfigName"] == serving
                load.more(20)
            assert (load.cut, load.wrong) == ([], []), "updates cost requests"
            updated = load.total()

            time.sleep(chance.uniform(0, 0.2))
            crash(engine, "serve")
            load.more(50)
            wanted = {"one": "two", "two": "one"}[serving]
            sagemaker.update_endpoint(EndpointName=NAME, EndpointConfigName=wanted)
            time.sleep(chance.uniform(0, 0.2))
            kill_both(engine)
            load.more(50)
            endpoint = settled(sagemaker, NAME)
            assert (endpoint["EndpointStatus"], endpoint["EndpointConfigName"]) == ("InService", wanted), endpoint
            load.more(50)
        rate = load.total() / load.seconds
        print(f"\nseed {SEED}: {updated} answers during {UPDATES} updates, {load.total()} in all, {rate:.0f}/s, {len(load.cut)} cut by kills")
        assert load.wrong == [], "a kill cuts connections; it gives no wrong answer"
        assert len(load.answered) == CALLERS
        # Every caller may lose what it has in flight, and asks on in vain while nobody listens.
        assert load.total() > UPDATES * 20
        sagemaker.delete_endpoint(EndpointName=NAME)
        gone(sagemaker, NAME)
        eventually(lambda: not list((engine.data / "work").iterdir()), 30)
        eventually(lambda: not traces.containers(), 30)
