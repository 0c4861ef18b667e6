"""A notebook server in place of Jupyter: HTTP and WebSocket on loopback, and questions about its container. It runs as
`python3 -c`, so it is one text with nothing but the standard library."""

PROGRAM = r'''
import base64, hashlib, json, os, signal, socket, struct, urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

HOME = "/home/ec2-user/SageMaker/"

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_): print("request", self.command, self.path, flush=True)

    def answer(self, body, status=200, headers=()):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers: self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        self.answer(self.rfile.read(int(self.headers.get("Content-Length") or 0)))

    def do_PUT(self):
        with open(HOME + self.path.rsplit("/", 1)[1], "wb") as out:
            out.write(self.rfile.read(int(self.headers["Content-Length"])))
        self.answer("kept")

    def do_GET(self):
        url = urlsplit(self.path)
        asked = {name: values[0] for name, values in parse_qs(url.query).items()}
        if url.path == "/socket": return self.socket()
        if url.path == "/who":
            return self.answer({"headers": [[n.lower(), v] for n, v in self.headers.items()], "uid": os.getuid(),
                                "gid": os.getgid(), "path": self.path, "environment": dict(os.environ)})
        if url.path == "/cookies":
            return self.answer("set", headers=[
                ("Set-Cookie", "own=1; Domain=localhost; Path=/"), ("Set-Cookie", "isolarium-notebook=stolen; Path=/"),
                ("Alt-Svc", "h3=\":1\""), ("Clear-Site-Data", "\"*\""), ("X-Amzn-RequestId", "forged"), ("X-Own", "kept")])
        if url.path.startswith("/home/"):
            try:
                with open(HOME + url.path[6:], "rb") as kept: return self.answer(kept.read())
            except FileNotFoundError: return self.answer("absent", 404)
        if url.path == "/read":
            try:
                with open(asked["file"], "rb") as found: return self.answer(found.read())
            except OSError as error: return self.answer(repr(error), 404)
        if url.path == "/reach":
            try:
                socket.create_connection((asked["host"], int(asked["port"])), 3).close()
                return self.answer("reached")
            except OSError as error: return self.answer("not reached: %r" % error)
        if url.path == "/credentials":
            where = "http://169.254.170.2" + os.environ["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"]
            return self.answer(urllib.request.urlopen(where, timeout=10).read())
        if url.path == "/end": os._exit(3)
        self.answer("hello")

    def socket(self):
        key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(key.encode()).digest()).decode())
        self.end_headers()
        self.wfile.flush()
        self.close_connection = True
        while True:
            head = self.rfile.read(2)
            if len(head) < 2: return
            length = head[1] & 127
            if length == 126: length = struct.unpack(">H", self.rfile.read(2))[0]
            mask = self.rfile.read(4)
            text = bytes(b ^ mask[i % 4] for i, b in enumerate(self.rfile.read(length)))
            print("frame", text.decode(errors="replace"), flush=True)
            if head[0] & 15 == 8: return
            self.wfile.write(bytes([0x81, len(text)]) + text)
            self.wfile.flush()

# The first process of a container has to ask for its end.
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
ThreadingHTTPServer(("127.0.0.1", 8888), Handler).serve_forever()
'''
