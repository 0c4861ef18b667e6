"""The SDK behind the engine's proxy: STS at its fixed address and telemetry, with nothing configured but the proxy."""
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness.engine import ACCOUNT, REGION, Engine, execution_statements  # noqa: E402
from harness.small_image import small_rootfs  # noqa: E402


@pytest.fixture(scope="module")
def engine():
    with Engine(os.environ["ISOLARIUM_BINARY"], {"proxy_listen": "127.0.0.1:0"}) as running:
        yield running


SCRIPT = """
import json, logging, sys
logging.getLogger("sagemaker.telemetry.telemetry_logging").setLevel(logging.DEBUG)
logging.getLogger("sagemaker.telemetry.telemetry_logging").addHandler(logging.StreamHandler())
import requests, sagemaker
image, role = sys.argv[1:]
session = sagemaker.Session()
bucket = session.default_bucket()
job = sagemaker.estimator.Estimator(
    image_uri=image, role=role, instance_count=1, instance_type="ml.m5.large", sagemaker_session=session,
    enable_network_isolation=True, hyperparameters={"seconds": "0"})
session.upload_string_as_file_body("1,2", bucket=bucket, key="in/a.csv")
job.fit(f"s3://{bucket}/in/", wait=False)
try:
    requests.get("https://pypi.org/simple/", timeout=20)
    other = "reached"
except requests.exceptions.ProxyError as error:
    other = str(error)
described = session.describe_training_job(job.latest_training_job.name)
print(json.dumps({"bucket": bucket, "account": session.account_id(), "isolated": described["EnableNetworkIsolation"], "other": other}))
"""


def test_the_sdk_works_unchanged_behind_the_proxy_and_leaks_nothing(engine, tmp_path):
    role = engine.create_role("sdk-proxy", execution_statements(f"sagemaker-{REGION}-{ACCOUNT}"))
    image = engine.pack_image(small_rootfs(tmp_path), "small:1")
    names = ("AWS_", "HTTP", "http", "NO_PROXY", "no_proxy", "SAGEMAKER_")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(names)}
    line = f"{engine.run('proxy').stdout}\nexec {sys.executable} - {image} {role}"
    done = subprocess.run(
        ["bash", "-c", line], env=clean | {"SAGEMAKER_SUPPRESS_V2_WARNING": "1", "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/dev/null", "HOME": str(tmp_path)},
        input=SCRIPT, text=True, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert (seen["bucket"], seen["account"], seen["isolated"]) == (f"sagemaker-{REGION}-{ACCOUNT}", ACCOUNT, True)
    # The engine answered it, that there is no such bucket.
    assert "telemetry successfully emitted" in done.stderr, done.stderr
    assert "403" in seen["other"] and "pypi.org" in seen["other"], seen
    listed = json.loads(engine.run("proxy", "--refusals", "--json").stdout)
    assert [(one["target"], one["reason"]) for one in listed["refusals"]] == [("pypi.org:443", "name")], listed
    assert engine.internet.arrivals() == []
