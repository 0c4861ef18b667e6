"""What an engine leaves on the host: processes, control groups, mounts, interfaces, rules, records and files."""
import ctypes
import os
import platform
import sqlite3
import subprocess
import threading
from collections import Counter
from pathlib import Path

FIRST_WORKLOAD_UID = 600_000_000
# What a data directory holds while an engine runs that has no workload, upload or request.
TOP = {
    "VERSION", "state.db", "state.db-wal", "state.db-shm", "credentials", "master.key", "ca", "buckets", "escape", "registry", "layers", "logs",
    "audit", "flows", "work", "volumes", "run",
}
RUN = {"bpf", "netns", "host", "shims", "slots", "tunnels", "node.lock", "node.pid", "node.sock", "operator.sock", "serve.lock", "serve.pid", "url"}
EMPTY = ("work", "volumes", "run/shims", "run/slots", "run/tunnels", "escape/new", "registry/uploads")
MOUNTS = ("run/bpf", "run/netns", "run/netns/platform")


class Traces:
    """Looks for what belongs to one data directory, while other engines may run on the same machine."""

    def __init__(self, engine):
        self.engine, self.data = engine, engine.data
        self.workloads = set()
        self.stopping = threading.Event()
        self.watcher = threading.Thread(target=self._watch, daemon=True)
        self.rules = self._rules()

    def __enter__(self):
        self.watcher.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        self.watcher.join()

    def _watch(self):
        """Learns every workload's id: its directory lives from before its first process until after its last."""
        while not self.stopping.wait(0.01):
            self._note()

    def _note(self):
        for folder in ("work", "run/shims"):
            try:
                self.workloads.update(name.split(".")[0] for name in os.listdir(self.data / folder))
            except FileNotFoundError:
                pass

    def containers(self):
        """Processes inside containers of this data directory, by pid."""
        self._note()
        found = {}
        for pid, groups in _groups_of_processes():
            if groups & self.workloads and _uid(pid) >= FIRST_WORKLOAD_UID:
                found[pid] = min(groups & self.workloads)
        return found

    def helpers(self):
        """Shims and archive processes of this binary that have something to do."""
        waiting = self.waiting()
        return {pid: name for pid, name in self._helpers().items() if pid not in waiting}

    def waiting(self):
        """The one shim that waits for the next launch: a child of the node that runs, which has no job yet, and so
        nothing open but its socket and no mounts of its own. Anything else counts as a helper."""
        node = self.engine.pids().get("node")
        for pid, name in self._helpers().items():
            try:
                status = Path(f"/proc/{pid}/status").read_text()
                files = {os.readlink(path).split(":")[0] for path in Path(f"/proc/{pid}/fd").iterdir()}
                own = os.readlink(f"/proc/{pid}/ns/mnt") != os.readlink(f"/proc/{node}/ns/mnt")
            except OSError:
                continue
            if name == "shim" and f"\nPPid:\t{node}\n" in status and files <= {"/dev/null", "socket"} and not own:
                return {pid: name}
        return {}

    def _helpers(self):
        found = {}
        for pid in _pids():
            try:
                command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                program = os.readlink(f"/proc/{pid}/exe").removesuffix(" (deleted)")
            except OSError:
                continue
            if program == self.engine.binary and command[1:2] in ([b"shim"], [b"unpack"], [b"tunnel"]):
                found[pid] = command[1].decode()
        return found

    def left(self, running=True):
        """Everything that should not be there when no workload is wanted. `running`: whether the engine runs, and may
        so have its shared mounts and sockets; after `teardown` even these are left-overs."""
        found = [f"process {pid} of container {workload}" for pid, workload in self.containers().items()]
        found += [f"process {pid} {name}" for pid, name in self.helpers().items()]
        for point in _group_roots():
            found += [f"group {path}" for path in Path(point).glob("isolarium/w-*") if path.name in self.workloads]
        found += self._mounts(MOUNTS if running else ())
        found += self._files()
        found += self._records()
        if running:
            found += self._network()
            found += self._report()
        elif "node.pid" in os.listdir(self.data / "run"):
            found.append("run/node.pid")
        return found

    def _mounts(self, documented):
        points = Counter(line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines())
        ours = {point: times for point, times in points.items() if point.startswith(f"{self.data}/")}
        allowed = {str(self.data / name) for name in documented}
        return [f"mount {point} ({times} times)" for point, times in ours.items() if times > (point in allowed)]

    def _files(self):
        found = [f"file {name}" for name in set(os.listdir(self.data)) - TOP]
        found += [f"file run/{name}" for name in set(os.listdir(self.data / "run")) - RUN]
        for folder in EMPTY:
            if (self.data / folder).is_dir():
                found += [f"file {folder}/{name}" for name in os.listdir(self.data / folder)]
        found += [f"file layers/{name}" for name in os.listdir(self.data / "layers") if len(name) != 64]
        return found

    def _records(self):
        """Rows that only a workload or an unfinished upload has, files of objects that no row knows, and rows without their file."""
        found = []
        database = sqlite3.connect(f"file:{self.data}/state.db?mode=ro", uri=True)
        try:
            found += [f"log position {row[0]}" for row in database.execute("SELECT id FROM logs_source")]
            found += [f"address lease {row[0]}" for row in database.execute("SELECT name FROM state_record JOIN state_shelf ON shelf = state_shelf.id WHERE kind = 'platform.address'")]
            known = {row[0] for row in database.execute("SELECT file FROM s3_versions WHERE file IS NOT NULL UNION SELECT file FROM s3_parts")}
            count = database.execute("SELECT count(*) FROM s3_versions WHERE file IS NOT NULL").fetchone()[0]
        finally:
            database.close()
        kept = set(os.listdir(self.data / "escape/kept"))
        found += [f"file escape/kept/{name}" for name in kept - known]
        plain = sum(path.is_file() for path in (self.data / "buckets").rglob("*"))
        if plain + len(kept & known) != count:
            found.append(f"{count} versions in the index, {plain} files at keys, {len(kept & known)} in the escape area")
        return found

    def _inside(self, *command):
        return subprocess.run(["nsenter", f"--net={self.data}/run/netns/platform", *command], check=True, text=True, capture_output=True).stdout

    def _rules(self):
        return self._inside("nft", "-s", "list", "ruleset") + self._inside("ip", "rule") + self._inside("ip", "route", "show", "table", "all")

    def _network(self):
        links = [line.split(":")[1].strip().split("@")[0] for line in self._inside("ip", "-o", "link").splitlines()]
        found = [f"interface {name} of the platform" for name in links if name not in ("lo", "up", "uplink", "eth0")]
        return found + (["rules or routes of the platform changed"] if self._rules() != self.rules else [])

    def _report(self):
        return [f"report entry in {name}" for name in ("cgroups_v1", "attempts_v1", "questions_v1") if _map_has_entries(self.data / "run/bpf" / name)]


def _pids():
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _uid(pid):
    try:
        return os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return -1


def _groups_of_processes():
    for pid in _pids():
        try:
            lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
        except OSError:
            continue
        groups = {part for line in lines for part in line.split(":", 2)[2].split("/") if part.startswith("w-")}
        if groups:
            yield pid, groups


def _group_roots():
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return {line.split()[1] for line in lines if line.split()[2] in ("cgroup", "cgroup2")}


def _map_has_entries(path):
    """Whether a pinned BPF map holds anything."""
    number = {"x86_64": 321, "aarch64": 280}[platform.machine()]
    libc = ctypes.CDLL(None, use_errno=True)
    name = ctypes.create_string_buffer(str(path).encode())
    request = (ctypes.c_uint64 * 16)(ctypes.addressof(name))
    handle = libc.syscall(number, 7, ctypes.byref(request), 16)  # BPF_OBJ_GET
    if handle < 0:
        raise OSError(ctypes.get_errno(), f"cannot open {path}")
    try:
        key = ctypes.create_string_buffer(1024)
        request = (ctypes.c_uint64 * 16)(handle, 0, ctypes.addressof(key))
        return libc.syscall(number, 4, ctypes.byref(request), 24) == 0  # BPF_MAP_GET_NEXT_KEY, the first one
    finally:
        os.close(handle)
