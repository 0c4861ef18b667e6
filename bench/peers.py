"""What two instances of one training job say to each other, plain and encrypted (EnableInterContainerTrafficEncryption): bytes
per second of one TCP stream, against a bare veth pair and against wireguard-go alone over one, by the same program.
"""
import contextlib
import os
import statistics
import subprocess
import tempfile
from pathlib import Path

from tests.harness.engine import Engine, execution_statements
from tests.harness.jobs import eventually, finished, training_request, with_program
from tests.harness.small_image import small_rootfs

BUCKET = "peers"
PORT = "5201"
HERE = Path(__file__).resolve().parent
SCRIPT = """case "$(cat /etc/hostname)" in
  algo-1) exec stream take PORT ;;
  *) exec stream give algo-1 PORT BYTES ;;
esac
"""


def ip(*words):
    subprocess.run(["ip", *words], check=True)


def inside(space, *command):
    return ["ip", "netns", "exec", space, *map(str, command)]


@contextlib.contextmanager
def pair():
    """Two namespaces joined by a veth pair: their names."""
    names = [f"peers-{os.getpid()}-{which}" for which in ("a", "b")]
    try:
        for name in names:
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        ip("-n", names[0], "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", names[1])
        for number, name in enumerate(names, 1):
            ip("-n", name, "address", "add", f"10.0.0.{number}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], check=False)


@contextlib.contextmanager
def wireguard(names, directory):
    """wireguard-go between the two, as 10.1.0.1 and 10.1.0.2."""
    keys = [subprocess.check_output(["wg", "genkey"], text=True).strip() for _ in names]
    public = [subprocess.run(["wg", "pubkey"], input=key, text=True, capture_output=True, check=True).stdout.strip() for key in keys]
    running = []
    try:
        for number, (name, key) in enumerate(zip(names, keys), 1):
            device = f"wg{os.getpid() % 100000}-{number}"
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            running.append(subprocess.Popen(inside(name, "wireguard-go", "-f", device), **quiet))
            eventually(lambda: Path(f"/var/run/wireguard/{device}.sock").exists(), 20)  # noqa: B023
            file = Path(directory) / f"key-{number}"
            file.write_text(key)
            other = 3 - number
            subprocess.run(inside(name, "wg", "set", device, "private-key", file, "listen-port", "500", "peer", public[other - 1],
                                  "endpoint", f"10.0.0.{other}:500", "allowed-ips", f"10.1.0.{other}/32"), check=True)
            ip("-n", name, "address", "add", f"10.1.0.{number}/24", "dev", device)
            # As long as a job's encrypted packets.
            ip("-n", name, "link", "set", device, "mtu", "1440", "up")
        yield
    finally:
        for process in running:
            process.terminate()
            process.wait()


def between(names, program, address, size):
    """Bytes per second from the second namespace to `address` in the first."""
    taking = subprocess.Popen(inside(names[0], program, "take", PORT), stdout=subprocess.PIPE, text=True)
    subprocess.run(inside(names[1], program, "give", address, PORT, size), check=True)
    told, _ = taking.communicate(timeout=120)
    return float(told.removeprefix("RATE "))


def rate(engine, name):
    events = engine.client("logs").filter_log_events(logGroupName="/aws/sagemaker/TrainingJobs", logStreamNamePrefix=f"{name}/")["events"]
    return next((float(event["message"].removeprefix("RATE ")) for event in events if event["message"].startswith("RATE ")), None)


def of_a_job(engine, image, role, name, size, encrypted):
    request = training_request(name, image, role, BUCKET, "s3://none/", InputDataConfig=[], HyperParameters={})
    request["ResourceConfig"]["InstanceCount"] = 2
    script = SCRIPT.replace("PORT", PORT).replace("BYTES", str(size))
    request = with_program(engine, BUCKET, request, script, "/bin/sh") | {"EnableInterContainerTrafficEncryption": encrypted}
    sagemaker = engine.client("sagemaker")
    sagemaker.create_training_job(**request)
    done = finished(sagemaker, name, 240)
    if done["TrainingJobStatus"] != "Completed":
        raise RuntimeError(f"{name}: {done.get('FailureReason')}")
    return eventually(lambda: rate(engine, name), 30)


def run(binary, cache, quick):
    rounds, plain_size, sealed_size = (1, 2e9, 2e8) if quick else (3, 8e9, 1e9)
    with tempfile.TemporaryDirectory() as directory, Engine(binary, internet=False) as engine, pair() as names:
        root = small_rootfs(directory)
        program = root / "usr/bin/stream"
        subprocess.run(["gcc", "-O2", "-static", "-w", "-o", str(program), str(HERE / "stream.c")], check=True, stderr=subprocess.DEVNULL)
        engine.client("s3").create_bucket(Bucket=BUCKET)
        role = engine.create_role("exec", execution_statements(BUCKET))
        image = engine.pack_image(root, "small:1")
        plain, encrypted, veth, alone = [], [], [], []
        with wireguard(names, directory):
            for number in range(rounds):
                plain.append(of_a_job(engine, image, role, f"plain-{number}", plain_size, False))
                veth.append(between(names, program, "10.0.0.1", plain_size))
                encrypted.append(of_a_job(engine, image, role, f"encrypted-{number}", sealed_size, True))
                alone.append(between(names, program, "10.1.0.1", sealed_size))
    plain, encrypted, veth, alone = map(statistics.median, (plain, encrypted, veth, alone))
    yield {"name": "two instances of a job, one TCP stream", "unit": "B/s", "ours": plain, "reference": veth, "reference_name": "bare veth pair"}
    name = "two instances of a job, one encrypted TCP stream"
    yield {"name": name, "unit": "B/s", "ours": encrypted, "reference": alone, "reference_name": "wireguard-go alone over a veth pair"}
    yield {"name": f"{name}, against none", "unit": "B/s", "ours": encrypted, "reference": veth, "reference_name": "bare veth pair"}
