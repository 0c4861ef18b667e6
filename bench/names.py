"""DNS answers per second of the resolver that containers ask: a public service name, 32 questions on their way."""
import json
import subprocess
import sys

from bench.processes import favour
from tests.harness.engine import Engine

RESOLVER = "100.64.0.2"
ASK = """
import json, socket, struct, sys, time
server, seconds, window = sys.argv[1], float(sys.argv[2]), 32
name = b"".join(bytes([len(part)]) + part for part in b"api.sagemaker.us-east-1.amazonaws.com".split(b".")) + b"\\0"
question = lambda n: struct.pack(">6H", n & 0xffff, 0x0100, 1, 0, 0, 0) + name + struct.pack(">2H", 1, 1)
ask = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
ask.connect((server, 53))
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
print(json.dumps({"rate": answered / (time.monotonic() - began), "lost": lost}))
"""


def run(binary, cache, quick):
    seconds = 3 if quick else 10
    with Engine(binary, internet=False) as engine:
        favour(*engine.pids().values())
        inside = ["nsenter", f"--net={engine.data}/run/netns/platform", sys.executable, "-c", ASK, RESOLVER, str(seconds)]
        asked = json.loads(subprocess.run(inside, check=True, capture_output=True, text=True).stdout)
        yield {"name": "DNS answers/s, one client, 32 on their way", "unit": "1/s", "ours": asked["rate"]}
