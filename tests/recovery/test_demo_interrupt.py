"""Ctrl-C in the middle of the demo: everything it made is gone, wherever it was."""
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("ISOLARIUM_CACHE", Path.home() / ".cache/isolarium"))
# What the demo says when it begins something, and whether a container of its is to run by then.
POINTS = {
    "the engine comes up": ("Isolarium", False),
    "the image is packed": ("engine at", False),
    "a job trains": ("1. training", True),
    "an endpoint starts": ("3. serving", True),
}


def left(directory, binary, workloads, process):
    """What belongs to the demo that `process` was."""
    found = [str(path) for path in directory.iterdir()]
    found += [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(directory) in line]
    found += [name for name in os.listdir("/run/netns") if name.startswith(f"isolarium-net-{process.pid}-")] if Path("/run/netns").exists() else []
    for root in Path("/sys/fs/cgroup").iterdir():
        found += [str(path) for path in root.glob("isolarium/w-*") if path.name in workloads]
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
            groups = Path(f"/proc/{pid}/cgroup").read_text()
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state == "Z":
            # Ended, and not yet fetched by its parent: it holds nothing any more.
            continue
        if command[0] == binary and str(directory) in " ".join(command) or any(workload in groups for workload in workloads):
            found.append(f"process {pid} {command}")
    return found


@pytest.mark.parametrize("point", POINTS, ids=lambda point: point.replace(" ", "-"))
def test_ctrl_c_leaves_nothing_behind(tmp_path, point):
    binary, workloads, over = str(Path(os.environ["ISOLARIUM_BINARY"]).resolve()), set(), threading.Event()
    heading, wants_container = POINTS[point]

    def learn():
        while not over.wait(0.01):
            workloads.update(path.name for path in tmp_path.glob("*/data/work/*"))

    def is_there(process, output):
        """Reads until the demo is at the point; False when it ended before."""
        for line in process.stdout:
            output.append(line)
            if heading in line:
                break
        else:
            return False
        known = set(workloads)
        while wants_container and process.poll() is None and workloads <= known:
            over.wait(0.01)
        return process.poll() is None

    watcher = threading.Thread(target=learn)
    watcher.start()
    try:
        command = [sys.executable, str(REPOSITORY / "demo/demo.py"), "--binary", binary, "--rootfs", str(CACHE / "demo-rootfs")]
        # Started in the background, the suite was told to ignore the interrupt; a program in a terminal is not.
        process = subprocess.Popen(
            command, env=os.environ | {"ISOLARIUM_TMP": str(tmp_path), "PYTHONUNBUFFERED": "1"}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
            start_new_session=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        patience, output = threading.Timer(180, process.kill), []
        patience.start()
        running = is_there(process, output)
        # As a terminal does: to the whole foreground group.
        os.killpg(process.pid, signal.SIGINT) if running else None
        output = "".join(output) + process.communicate()[0]
        patience.cancel()
    finally:
        over.set()
        watcher.join()
    assert running, f"the demo was over before {heading!r}:\n{output}"
    assert process.returncode != 0
    assert left(tmp_path, binary, workloads, process) == [], output
