"""Load by wrk: one fixed request, signed once, over keep-alive connections."""
import re
import subprocess
import tempfile


def signed(url, body, service, headers, key, secret, region="us-east-1"):
    """Headers of one SigV4-signed POST; valid for fifteen minutes."""
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    request = AWSRequest(method="POST", url=url, data=body, headers=headers)
    SigV4Auth(Credentials(key, secret), service, region).add_auth(request)
    return dict(request.headers)


def quoted(text):
    """A Lua string literal of printable ASCII text."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def run(url, body, headers, connections, seconds, prefix=(), method="POST"):
    """Requests per second and latency percentiles in microseconds: {rate, p50, p99, errors}."""
    script = f"wrk.method = '{method}'\nwrk.body = {quoted(body)}\n" + "".join(f"wrk.headers[{quoted(k)}] = {quoted(v)}\n" for k, v in headers.items() if k.lower() not in ("host", "content-length"))
    script += "done = function(s, l, r)\n io.write(string.format('RESULT %f %f %f %d\\n', s.requests / s.duration * 1e6, l:percentile(50), l:percentile(99), s.errors.status + s.errors.connect + s.errors.read + s.errors.timeout))\nend\n"
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script)
        file.flush()
        done = subprocess.run(
            [*prefix, "wrk", "-t", "1", "-c", str(connections), "-d", f"{seconds}s", "-s", file.name, url],
            text=True, capture_output=True, check=True,
        )
    result = re.search(r"RESULT (\S+) (\S+) (\S+) (\S+)", done.stdout)
    if not result:
        raise RuntimeError(f"wrk did not report: {done.stdout}{done.stderr}")
    rate, p50, p99, errors = result.groups()
    if int(errors):
        raise RuntimeError(f"{errors} failed requests against {url}: {done.stdout}")
    return {"rate": float(rate), "p50": float(p50), "p99": float(p99)}
