"""What a container without network isolation can reach, asked by plain Python from inside: no AWS SDK, nothing that knows
Isolarium. Prints one line `RESULT <json>`.

Environment: BUCKET, KEY (an object to read), STOP (a key whose appearance ends the program), TARGETS (comma-separated
addresses on PORT to connect to), OTHER (another container's credentials path, to be stolen).
"""
import datetime
import hashlib
import hmac
import json
import os
import socket
import ssl
import struct
import time
import urllib.error
import urllib.parse
import urllib.request

REGION = os.environ["AWS_REGION"]
CREDENTIALS = "http://169.254.170.2"


def fetch(request, context=None):
    """Status and body; errors of the service are answers too."""
    try:
        with urllib.request.urlopen(request, timeout=10, context=context) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def credentials(path):
    return fetch(CREDENTIALS + path)


def signed(session, service, host, path, body=b"", headers=None):
    """A request signed with version 4, as AWS documents it."""
    now = datetime.datetime.now(datetime.timezone.utc)
    stamp, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
    digest = hashlib.sha256(body).hexdigest()
    headers = {"host": host, "x-amz-content-sha256": digest, "x-amz-date": stamp, "x-amz-security-token": session["Token"]} | (headers or {})
    names = sorted(headers)
    canonical = "\n".join([
        "POST" if body else "GET", path, "", *[f"{name}:{headers[name]}" for name in names], "", ";".join(names), digest,
    ])
    scope = f"{day}/{REGION}/{service}/aws4_request"
    text = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = ("AWS4" + session["SecretAccessKey"]).encode()
    for part in (day, REGION, service, "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    headers["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={session['AccessKeyId']}/{scope}, SignedHeaders={';'.join(names)}, Signature={signature}"
    )
    return urllib.request.Request(f"https://{host}{path}", data=body or None, headers=headers)


def question(name):
    """A DNS question for the A records of a name."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!HHHHHH", 0x5150, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", 1, 1)


def address(answer):
    """The last A record of an answer; all of them end it."""
    return socket.inet_ntoa(answer[-4:]) if len(answer) > 12 and struct.unpack("!H", answer[6:8])[0] else None


def over_udp(server, name):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        sock.sendto(question(name), (server, 53))
        return address(sock.recv(4096))


def over_tcp(server, name):
    with socket.create_connection((server, 53), 5) as sock:
        asked = question(name)
        sock.sendall(struct.pack("!H", len(asked)) + asked)
        stream = sock.makefile("rb")
        return address(stream.read(struct.unpack("!H", stream.read(2))[0]))


def connects(target, port):
    try:
        socket.create_connection((target, port), 3).close()
        return True
    except OSError:
        return False


def trusts_nobody(host):
    """Whether a client without any certificate authority refuses the server."""
    try:
        fetch(f"https://{host}/", ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
        return False
    except urllib.error.URLError as error:
        return "CERTIFICATE_VERIFY_FAILED" in str(error.reason)


def main():
    own = os.environ["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"]
    status, text = credentials(own)
    session = json.loads(text)
    s3, sts = f"s3.{REGION}.amazonaws.com", f"sts.{REGION}.amazonaws.com"
    result = {"path": own, "credentials": status, "members": sorted(session), "role": session["RoleArn"]}
    result["wrong_path"] = credentials("/v2/credentials/" + "0" * 32)[0]
    if "OTHER" in os.environ:
        result["other"] = credentials(os.environ["OTHER"])[0]
    bucket, key = os.environ["BUCKET"], os.environ["KEY"]
    result["object"] = fetch(signed(session, "s3", s3, f"/{bucket}/{key}"))
    result["foreign_object"] = fetch(signed(session, "s3", s3, "/not-mine/key"))[0]
    result["unsigned_object"] = fetch(f"https://{s3}/{bucket}/{key}")[0]
    result["trusts_nobody"] = trusts_nobody(s3)
    result["bundle"] = {name: os.environ.get(name) for name in ("AWS_CA_BUNDLE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")}
    try:
        open(os.environ["SSL_CERT_FILE"], "a").close()
        result["bundle_writable"] = True
    except OSError:
        result["bundle_writable"] = False
    form = {"content-type": "application/x-www-form-urlencoded"}
    result["identity"] = fetch(signed(session, "sts", sts, "/", b"Action=GetCallerIdentity&Version=2011-06-15", form))
    described = json.dumps({"TrainingJobName": os.environ["TRAINING_JOB_NAME"]}).encode()
    target = {"content-type": "application/x-amz-json-1.1", "x-amz-target": "SageMaker.DescribeTrainingJob"}
    status, text = fetch(signed(session, "sagemaker", f"api.sagemaker.{REGION}.amazonaws.com", "/", described, target))
    result["described"] = (status, json.loads(text).get("TrainingJobStatus"))
    resolver = open("/etc/resolv.conf").read().split()
    result["resolv"] = resolver
    names = (s3, "www.example.org")
    result["dns"] = {how.__name__: [how(resolver[1], name) for name in names] for how in (over_udp, over_tcp)}
    port = int(os.environ["PORT"])
    result["connected"] = [target for target in os.environ["TARGETS"].split(",") if connects(target, port)]
    print("RESULT " + json.dumps(result), flush=True)
    deadline = time.monotonic() + 60
    while fetch(signed(session, "s3", s3, f"/{bucket}/{os.environ['STOP']}"))[0] != 200 and time.monotonic() < deadline:
        time.sleep(0.2)
    print("RESULT " + json.dumps({"still": credentials(own)[0]}), flush=True)


main()
