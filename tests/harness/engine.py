"""Starts the real binary in a directory of its own and hands out unmodified clients.

Used by the demo, the client suites and the benchmarks. Everything an Engine makes (namespace, processes, directory) is
gone when its `with` block ends, also after an error or Ctrl-C.
"""
import configparser
import contextlib
import json
import os
import secrets
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
WEB, DNS = "203.0.113.10", "198.51.100.53"
ACCOUNT, REGION = "123456789012", "us-east-1"
TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}],
}


def toml(value):
    """A value as TOML: JSON, but for tables."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml(one)}" for key, one in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value)


class EngineFailed(Exception):
    """The engine did not start or ended; the text holds the end of its log."""


@contextlib.contextmanager
def uninterrupted():
    """Ctrl-C waits for the end of the block: what it starts is known by then, and ended."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came = []
    before = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if came:
            signal.raise_signal(signal.SIGINT)


class Internet:
    """A namespace that stands for the internet, with its arrivals in a file."""

    def __init__(self, directory):
        self.name = f"isolarium-net-{os.getpid()}-{id(self) & 0xFFFF:x}"
        self.log = Path(directory) / "internet.jsonl"
        self.process = None

    def __enter__(self):
        try:
            with uninterrupted():
                subprocess.run(["ip", "netns", "add", self.name], check=True)
                self.process = subprocess.Popen(
                    ["ip", "netns", "exec", self.name, sys.executable, str(REPOSITORY / "demo/stub.py"), str(self.log)],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
                )
            if self.process.stdout.readline().strip() != "ready":
                raise EngineFailed("the internet stub did not start")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if self.process:
            self.process.stdin.close()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        subprocess.run(["ip", "netns", "del", self.name], check=False)

    @property
    def path(self):
        return f"/run/netns/{self.name}"

    def arrivals(self):
        if not self.log.exists():
            return []
        return [json.loads(line) for line in self.log.read_text().splitlines()]


class Engine:
    """One engine with its data directory. `settings` are configuration keys, dotted or nested as TOML tables."""

    def __init__(self, binary, settings=None, internet=True, directory=None, keep=False):
        self.binary = str(Path(binary).resolve())
        self.settings = settings or {}
        self.wants_internet = internet
        self.own_directory = directory is None
        # Made by `with`, which removes it whatever comes.
        self.directory = Path(directory or Path(os.environ.get("ISOLARIUM_TMP", "/var/tmp")) / f"isolarium-{secrets.token_hex(4)}")
        self.data = self.directory / "data"
        self.keep = keep
        self.internet = None
        self.process = None
        self.url = None

    def __enter__(self):
        try:
            if self.own_directory:
                self.directory.mkdir(mode=0o700)
            uplink = '"none"'
            if self.wants_internet:
                self.internet = Internet(self.directory).__enter__()
                uplink = f'{{ netns = "{self.internet.path}" }}'
            self._write_config(uplink)
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _write_config(self, uplink):
        tables, plain = {}, {"uplink": uplink}
        for key, value in self.settings.items():
            table, _, name = key.rpartition(".")
            (tables.setdefault(table, {}) if table else plain)[name] = toml(value)
        if self.wants_internet:
            tables.setdefault("resolver", {}).setdefault("upstream", json.dumps([f"{DNS}:53"]))
        lines = [f"{name} = {value}" for name, value in plain.items()]
        for table, keys in tables.items():
            lines += [f"[{table}]"] + [f"{name} = {value}" for name, value in keys.items()]
        self.config = self.directory / "isolarium.toml"
        self.config.write_text("\n".join(lines) + "\n")

    def start(self, timeout=30):
        """Starts (or restarts) the server and waits until it says that it is ready."""
        listen = self.url.removeprefix("http://") if self.url else "127.0.0.1:0"
        self.stderr = open(self.directory / "engine.log", "ab")
        with uninterrupted():
            self.process = subprocess.Popen(
                [self.binary, "serve", "--data-dir", str(self.data), "--listen", listen, "--config", str(self.config)],
                stdout=subprocess.PIPE, stderr=self.stderr, start_new_session=True,
                umask=0o077,  # A careful operator's; nothing may depend on a lax one.
            )
        deadline = time.monotonic() + timeout
        text, out = b"", self.process.stdout.fileno()
        while time.monotonic() < deadline and self.process.poll() is None:
            if select.select([out], [], [], 0.1)[0]:
                text += os.read(out, 4096)
            for line in text.decode().splitlines(keepends=True):
                if line.startswith("ready ") and line.endswith("\n"):
                    self.url = line.split()[1]
                    return
        raise EngineFailed(f"the engine is not ready:\n{self.tail()}")

    def tail(self, lines=25):
        """The end of the engine's own log."""
        path = self.directory / "engine.log"
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else ""

    def stop(self):
        """SIGTERM, drain, end."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self.process and self.process.stdout:
            self.process.stdout.close()
            self.stderr.close()

    def pids(self):
        """Process ids of both halves, by name."""
        found = {}
        for half in ("node", "serve"):
            path = self.data / "run" / f"{half}.pid"
            if path.exists():
                found[half] = int(path.read_text())
        return found

    def __exit__(self, *_):
        if self.process:
            self.stop()
            # Containers outlive the server by design; a test's must not.
            subprocess.run([self.binary, "teardown", "--data-dir", str(self.data)], check=False, capture_output=True, timeout=120)
        if self.internet:
            self.internet.__exit__()
        if self.own_directory and not self.keep:
            shutil.rmtree(self.directory, ignore_errors=True)

    def credentials(self):
        """The default account's root key from DIR/credentials as (id, secret)."""
        return self.profile("default")

    def profile(self, name):
        """A profile of DIR/credentials as (id, secret); accounts other than the default one have their id as name."""
        profiles = configparser.ConfigParser()
        profiles.read_string((self.data / "credentials").read_text())
        return profiles[name]["aws_access_key_id"], profiles[name]["aws_secret_access_key"]

    def environment(self):
        """Environment for the aws CLI: nothing of the machine's own AWS settings."""
        key, secret = self.credentials()
        clean = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        return clean | {
            "AWS_ENDPOINT_URL": self.url, "AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_DEFAULT_REGION": REGION, "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null", "AWS_PAGER": "", "LC_ALL": "C.UTF-8",
        }

    def client(self, service, **options):
        """An unmodified boto3 client."""
        import boto3
        from botocore.config import Config

        key, secret = self.credentials()
        settings = {"retries": {"max_attempts": 2}, "connect_timeout": 5, "read_timeout": 70} | options.pop("config", {})
        return boto3.session.Session().client(
            service, endpoint_url=self.url, region_name=REGION, aws_access_key_id=options.pop("key", key),
            aws_secret_access_key=options.pop("secret", secret), verify=False, config=Config(**settings), **options,
        )

    def run(self, *arguments, check=True, **options):
        """Runs a subcommand of the binary, such as `report`."""
        return subprocess.run([self.binary, *arguments, "--data-dir", str(self.data)], check=check, text=True, capture_output=True, **options)

    def attempts(self, name):
        """The isolation report of a job or endpoint: attempts of all its containers."""
        report = json.loads(self.run("report", name, "--json").stdout)
        return [attempt for workload in report["workloads"] for attempt in workload["attempts"]]

    def pack_image(self, rootfs, name, *options):
        """`isolarium image pack`; returns the image URI."""
        done = self.run("image", "pack", str(rootfs), "--name", name, *options)
        return done.stdout.split()[-1]

    def create_role(self, name, statements):
        """An execution role with one inline policy; returns its ARN."""
        iam = self.client("iam")
        arn = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(TRUST))["Role"]["Arn"]
        policy = {"Version": "2012-10-17", "Statement": statements}
        iam.put_role_policy(RoleName=name, PolicyName="inline", PolicyDocument=json.dumps(policy))
        return arn


def execution_statements(bucket):
    """What a training job's or model's role needs (IAM-54)."""
    return [
        {"Effect": "Allow", "Action": ["s3:GetObject", "s3:PutObject", "s3:DeleteObject"], "Resource": f"arn:aws:s3:::{bucket}/*"},
        {"Effect": "Allow", "Action": "s3:ListBucket", "Resource": f"arn:aws:s3:::{bucket}"},
        {"Effect": "Allow", "Action": ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents", "logs:DescribeLogStreams"], "Resource": "*"},
        {"Effect": "Allow", "Action": ["ecr:GetAuthorizationToken", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer", "ecr:BatchCheckLayerAvailability"], "Resource": "*"},
        {"Effect": "Allow", "Action": "cloudwatch:PutMetricData", "Resource": "*"},
    ]


def digits_csv(rootfs):
    """scikit-learn's digits as CSV with the label first: 1,797 rows of 64 pixels."""
    import gzip

    path = next(Path(rootfs).glob("usr/lib/python3/dist-packages/sklearn/datasets/data/digits.csv.gz"))
    rows = []
    for line in gzip.open(path, "rt").read().splitlines():
        *pixels, label = line.split(",")
        rows.append(",".join([str(int(float(label)))] + pixels))
    return rows
