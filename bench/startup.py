"""Start-up time and idle memory of both halves against moto's server; restart included."""
import statistics
import subprocess
import time
import urllib.request

from bench.processes import memory_mib
from bench.requests import Moto, free_port
from tests.harness.engine import Engine


def moto_start(cache):
    port = free_port()
    started = time.monotonic()
    process = subprocess.Popen([cache / "venv/moto/bin/moto_server", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/moto-api/", timeout=1)
            break
        except OSError:
            time.sleep(0.002)
    took = time.monotonic() - started
    process.terminate()
    process.wait()
    return took


def run(binary, cache, quick):
    ours, peer = [], []
    with Engine(binary, internet=False) as engine:
        for _ in range(3 if quick else 9):
            engine.stop()
            started = time.monotonic()
            engine.start()
            ours.append(time.monotonic() - started)
            peer.append(moto_start(cache))
        # One request of each kind, so that neither side profits from what it has not loaded yet.
        engine.client("sagemaker").list_models()
        engine.client("s3").list_buckets()
        time.sleep(1)
        idle = memory_mib(engine.pids().values())
        with Moto(cache) as moto:
            peer_idle = memory_mib([moto.process.pid])
    yield {"name": "start to ready", "unit": "ms", "ours": statistics.median(ours) * 1e3, "reference": statistics.median(peer) * 1e3, "reference_name": "moto server", "budget": "<= 1"}
    yield {"name": "idle memory, serve + node (PSS)", "unit": "MiB", "ours": idle, "reference": peer_idle, "reference_name": "moto server", "budget": "<= 0.5"}
