#!/usr/bin/env python3
"""The internet of the demo: a namespace with an HTTP server on 203.0.113.10 and a DNS server on 198.51.100.53.

Run inside the namespace. Appends one JSON line per thing that arrives to the file given as argument.
"""
import json
import socket
import struct
import subprocess
import sys
import threading

WEB, DNS = "203.0.113.10", "198.51.100.53"
log = open(sys.argv[1], "a", buffering=1, encoding="utf-8")


def note(**entry):
    log.write(json.dumps(entry) + "\n")


def web(port):
    server = socket.create_server((WEB, port))
    while True:
        connection, peer = server.accept()
        note(kind="tcp", peer=peer[0], port=port)
        connection.settimeout(1)
        try:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 6\r\n\r\nhello\n")
        except OSError:
            pass
        connection.close()


def names():
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((DNS, 53))
    while True:
        question, peer = server.recvfrom(2048)
        labels, at = [], 12
        while at < len(question) and question[at]:
            labels.append(question[at + 1 : at + 1 + question[at]].decode("latin-1"))
            at += 1 + question[at]
        end = at + 5
        note(kind="dns", peer=peer[0], name=".".join(labels))
        kind = struct.unpack("!H", question[at + 1 : at + 3])[0] if at + 3 <= len(question) else 0
        answer = question[12:end]
        if kind == 1:
            record = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04" + socket.inet_aton(WEB)
            server.sendto(question[:2] + b"\x81\x80\x00\x01\x00\x01\x00\x00\x00\x00" + answer + record, peer)
        else:
            server.sendto(question[:2] + b"\x81\x80\x00\x01\x00\x00\x00\x00\x00\x00" + answer, peer)


for address in (WEB, DNS):
    subprocess.run(["ip", "addr", "add", f"{address}/32", "dev", "lo"], check=True)
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
for target, arguments in ((web, (80,)), (web, (443,)), (names, ())):
    threading.Thread(target=target, args=arguments, daemon=True).start()
print("ready", flush=True)
sys.stdin.read()
