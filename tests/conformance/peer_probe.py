"""What a container of a job with several instances reaches, asked by plain Python from inside. Prints one line
`RESULT <json>` and then waits until every peer has asked as well, or, with the hyperparameter `stay`, until it is stopped.

Hyperparameters: `token` (what this job's servers answer), `others` (comma-separated addresses that belong to somebody else),
`names` (comma-separated names that are no peers), `stay`.
"""
import json
import os
import socket
import struct
import threading
import time

CONFIG = "/opt/ml/input/config/"
resources = json.load(open(CONFIG + "resourceconfig.json"))
given = json.load(open(CONFIG + "hyperparameters.json"))
TOKEN = given["token"].encode()
PORTS = (23, 5555, 61234)
UDP = 9999
DONE = 7999
peers = [host for host in resources["hosts"] if host != resources["current_host"]]
finished = set()


def serve_tcp(port):
    with socket.create_server(("0.0.0.0", port)) as server:
        while True:
            connection, _ = server.accept()
            with connection:
                if port == DONE:
                    finished.add(connection.recv(64).decode())
                connection.sendall(TOKEN)


def serve_udp():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("0.0.0.0", UDP))
        while True:
            _, sender = server.recvfrom(64)
            server.sendto(TOKEN, sender)


def patiently(ask, *arguments):
    """The barrier promises that peers have begun, not that they listen."""
    deadline = time.monotonic() + 20
    while True:
        try:
            return ask(*arguments)
        except OSError as error:
            if time.monotonic() > deadline:
                return f"error {error.errno}"
            time.sleep(0.05)


def tcp(host, port, say=b"?"):
    with socket.create_connection((host, port), 3) as connection:
        connection.sendall(say)
        return connection.recv(64).decode()


def udp(host, port=UDP):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(2)
        sock.sendto(b"?", (host, port))
        return sock.recv(64).decode()


def ping(host):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP) as sock:
        sock.settimeout(2)
        sock.sendto(struct.pack("!BBHHH", 8, 0, 0, 0, 1) + b"payload", (host, 0))
        answer = sock.recv(128)
        return "echo" if answer[0] == 0 and answer.endswith(b"payload") else answer.hex()


def outcome(ask, *arguments):
    """One try: the answer, or the error's number."""
    try:
        return ask(*arguments)
    except socket.gaierror as error:
        return f"no name {error.errno}"
    except OSError as error:
        return f"error {error.errno}"


def lookup(name):
    begun = time.monotonic()
    told = outcome(lambda: socket.gethostbyname(name))
    return [told, time.monotonic() - begun < 10]


def interfaces():
    return sorted(name for _, name in socket.if_nameindex())


for port in (*PORTS, DONE):
    threading.Thread(target=serve_tcp, args=(port,), daemon=True).start()
threading.Thread(target=serve_udp, daemon=True).start()

result = {
    "host": socket.gethostname(),
    "config": resources,
    "interfaces": interfaces(),
    "addresses": {host: outcome(socket.gethostbyname, host) for host in resources["hosts"]},
    "tcp": {f"{peer}:{port}": patiently(tcp, peer, port) for peer in peers for port in PORTS},
    "udp": {peer: patiently(udp, peer) for peer in peers},
    "ping": {peer: outcome(ping, peer) for peer in peers} if given.get("ping") else {},
    "others": {address: outcome(tcp, address, PORTS[1]) for address in given.get("others", "").split(",") if address},
    "others_udp": {address: outcome(udp, address) for address in given.get("others", "").split(",") if address},
    "web": {address: outcome(lambda a=address: socket.create_connection((a, 80), 3).close() or "connected")
            for address in given.get("web", "").split(",") if address},
    "names": {name: lookup(name) for name in given.get("names", "").split(",") if name},
    "data": {channel: sorted(os.listdir(f"/opt/ml/input/data/{channel}")) for channel in os.listdir("/opt/ml/input/data")},
    "credentials": "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI" in os.environ,
}
print("RESULT " + json.dumps(result), flush=True)
with open(f"/opt/ml/model/{result['host']}", "w") as file:
    file.write(TOKEN.decode())
for peer in peers:
    patiently(tcp, peer, DONE, result["host"].encode())
while given.get("stay") or finished != set(peers):
    time.sleep(0.05)
