"""DNS answers per second of the resolver that containers ask: a public service name, 32 questions on their way. unbound answers
the same name from its own records in the same place; without unbound a program that only turns questions round.
"""
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.processes import favour
from tests.harness.engine import Engine

RESOLVER, NAME = "100.64.0.2", "api.sagemaker.us-east-1.amazonaws.com"
ASK = f"""
import json, socket, struct, sys, time
server, port, seconds, window = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), 32
name = b"".join(bytes([len(part)]) + part for part in b"{NAME}".split(b".")) + b"\\0"
question = lambda n: struct.pack(">6H", n & 0xffff, 0x0100, 1, 0, 0, 0) + name + struct.pack(">2H", 1, 1)
ask = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
ask.connect((server, port))
ask.settimeout(2)
answered = lost = sent = 0
for _ in range(window):
    ask.send(question(sent)); sent += 1
began = time.monotonic()
while time.monotonic() - began < seconds:
    try:
        answer = ask.recv(1500)
    except TimeoutError:
        lost += window
        for _ in range(window):
            ask.send(question(sent)); sent += 1
        continue
    assert answer[3] & 0xf == 0 and answer[6:8] == b"\\0\\1", answer
    answered += 1
    ask.send(question(sent)); sent += 1
print(json.dumps({{"rate": answered / (time.monotonic() - began), "lost": lost}}))
"""
TURN = """
import socket, sys
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind((sys.argv[1], int(sys.argv[2])))
while True:
    question, peer = server.recvfrom(1500)
    server.sendto(question[:2] + b"\\x81\\x80" + question[4:6] + b"\\0\\1" + question[8:], peer)
"""


def rate(space, address, port, seconds):
    """Answers a second, asked from inside the namespace at the path `space`."""
    inside = ["nsenter", f"--net={space}", sys.executable, "-c", ASK, address, str(port), str(seconds)]
    return json.loads(subprocess.run(inside, check=True, capture_output=True, text=True).stdout)["rate"]


class Peer:
    """A name server inside the namespace at the path `space`, at an address of it. `name` says which."""

    def __init__(self, space, address, port):
        self.space, self.address, self.port = space, address, port

    def __enter__(self):
        self.directory = tempfile.TemporaryDirectory()
        inside = ["nsenter", f"--net={self.space}"]
        program = shutil.which("unbound", path="/usr/sbin:/usr/bin:/usr/local/sbin")
        if program:
            config = Path(self.directory.name) / "unbound.conf"
            config.write_text(f"""server:
  interface: {self.address}
  port: {self.port}
  access-control: 0.0.0.0/0 allow
  do-daemonize: no
  use-syslog: no
  logfile: ""
  chroot: ""
  username: ""
  pidfile: ""
  num-threads: 1
  module-config: "iterator"
  local-zone: "amazonaws.com." static
  local-data: "{NAME}. 60 IN A 198.18.0.1"
""")
            self.name, command = "unbound, one thread, local data", [program, "-d", "-c", str(config)]
        else:
            self.name, command = "a program that turns questions round", [sys.executable, "-c", TURN, self.address, str(self.port)]
        self.process = subprocess.Popen([*inside, *command], stderr=subprocess.DEVNULL)
        favour(self.process.pid)
        for _ in range(100):
            try:
                rate(self.space, self.address, self.port, 0.01)
                return self
            except subprocess.CalledProcessError:
                time.sleep(0.05)
        self.__exit__()
        raise RuntimeError(f"{self.name} does not answer")

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        self.directory.cleanup()


def run(binary, cache, quick):
    seconds = 2 if quick else 8
    with Engine(binary, internet=False) as engine:
        favour(*engine.pids().values())
        space = f"{engine.data}/run/netns/platform"
        ours = rate(space, RESOLVER, 53, seconds)
        with Peer(space, "127.0.0.1", 5300) as peer:
            yield {
                "name": "DNS answers/s, one client, 32 on their way", "unit": "1/s", "ours": ours,
                "reference": rate(space, peer.address, peer.port, seconds), "reference_name": peer.name,
            }
