"""Ctrl-C in a test run of `./x`: what the ended suite left behind is removed, and no other suite begins."""
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.harness.traces import _group_roots  # noqa: E402

REPOSITORY = Path(__file__).resolve().parents[2]
# Stands in for cargo. As a test program of Rust it ends at once when it is interrupted, and leaves an engine and a container.
SUITE = """#!{python}
import os, signal, sys, time
sys.path.insert(0, {repository!r})
if sys.argv[1] != "test":
    sys.exit(0)
signal.signal(signal.SIGINT, signal.SIG_DFL)
from tests.harness.engine import Engine, execution_statements
from tests.harness.jobs import training_request, with_program
from tests.harness.small_image import small_rootfs
from pathlib import Path
folder = Path(os.environ["TMPDIR"]) / "suite"
folder.mkdir()
engine = Engine(os.environ["ISOLARIUM_BINARY"], internet=False, directory=folder).__enter__()
engine.client("s3").create_bucket(Bucket="bucket")
role = engine.create_role("r", execution_statements("bucket"))
(folder / "root").mkdir()
image = engine.pack_image(small_rootfs(folder / "root"), "small:1")
request = training_request("endless", image, role, "bucket", "unused") | {{"InputDataConfig": []}}
engine.client("sagemaker").create_training_job(**with_program(engine, "bucket", request, "echo up; while :; do sleep 1; done", "/bin/sh"))
while engine.client("sagemaker").describe_training_job(TrainingJobName="endless")["SecondaryStatus"] != "Training":
    time.sleep(0.1)
print("LEFT", folder, *os.listdir(engine.data / "work"), flush=True)
time.sleep(600)
"""


def processes_of(folder, workloads):
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
            groups = Path(f"/proc/{pid}/cgroup").read_text()
            zombie = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except OSError:
            continue
        if not zombie and (str(folder) in command or any(one in groups for one in workloads)):
            found.append((pid, command))
    return found


def test_ctrl_c_of_a_suite(tmp_path):
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "cargo").write_text(SUITE.format(python=sys.executable, repository=str(REPOSITORY)))
    (tools / "cargo").chmod(0o755)
    (tmp_path / "t").mkdir()
    scratch = {"TMPDIR": str(tmp_path / "t"), "ISOLARIUM_TMP": str(tmp_path / "t")}
    # Without a home there is no other cargo.
    environment = os.environ | scratch | {"PATH": f"{tools}:{os.environ['PATH']}", "HOME": str(tmp_path), "PYTEST_ADDOPTS": ""}
    process = subprocess.Popen(
        [str(REPOSITORY / "x"), "test-isolation"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    patience = threading.Timer(240, process.kill)
    patience.start()
    try:
        said, left = [], None
        for line in process.stdout:
            said.append(line)
            if line.startswith("LEFT "):
                _, left, *workloads = line.split()
                break
        assert left and workloads, "".join(said)
        groups = [path for root in _group_roots() for path in Path(root).glob("isolarium/w-*") if path.name in workloads]
        assert groups and processes_of(left, workloads), "control: they are there"
        os.killpg(process.pid, signal.SIGINT)
        said.append(process.communicate()[0])
    finally:
        patience.cancel()
    assert process.returncode == 130, "".join(said)
    assert list((tmp_path / "t").iterdir()) == [] and processes_of(left, workloads) == [], "".join(said)
    assert [path for path in groups if path.exists()] == []
    assert left not in Path("/proc/self/mountinfo").read_text()
