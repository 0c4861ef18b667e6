"""Notebook instances: boto3 against the real engine, and a browser's requests and WebSockets through it."""
import base64
import http.client
import json
import os
import socket
import time
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import ClientError, WaiterError

from tests.conformance.test_vpc_jobs import Network
from tests.harness.engine import REGION, WEB, execution_statements
from tests.harness.jobs import P6, eventually

GROUP = "/aws/sagemaker/NotebookInstances"
TYPE = "ml.t3.medium"
PATIENCE = 120


def settled(sagemaker, name, *wanted):
    """Waits for a status without botocore's half-minute steps."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        found = sagemaker.describe_notebook_instance(NotebookInstanceName=name)
        if found["NotebookInstanceStatus"] in wanted:
            return found
        assert found["NotebookInstanceStatus"] not in ("Failed", "InService", "Stopped"), found
        time.sleep(0.1)
    raise AssertionError(f"{name} is still {found['NotebookInstanceStatus']}")


def gone(sagemaker, name):
    def absent():
        try:
            sagemaker.describe_notebook_instance(NotebookInstanceName=name)
        except ClientError as error:
            assert error.response["Error"] == {"Code": "ValidationException", "Message": "RecordNotFound"}
            return True
        return False
    eventually(absent, timeout=PATIENCE)


def refusal(call, **request):
    with pytest.raises(ClientError) as refused:
        call(**request)
    assert refused.value.response["Error"]["Code"] == "ValidationException"
    return refused.value.response["Error"]["Message"]


@pytest.fixture
def notebooks(sagemaker, role, image):
    """Makes notebook instances and removes them."""
    made = []

    def make(name, role=role, **members):
        sagemaker.create_notebook_instance(NotebookInstanceName=name, InstanceType=TYPE, RoleArn=role, **members)
        made.append(name)

    yield make
    for name in made:
        try:
            found = sagemaker.describe_notebook_instance(NotebookInstanceName=name)
            while found["NotebookInstanceStatus"] not in ("Stopped", "Failed", "Deleting"):
                if found["NotebookInstanceStatus"] == "InService":
                    sagemaker.stop_notebook_instance(NotebookInstanceName=name)
                time.sleep(0.1)
                found = sagemaker.describe_notebook_instance(NotebookInstanceName=name)
            if found["NotebookInstanceStatus"] != "Deleting":
                sagemaker.delete_notebook_instance(NotebookInstanceName=name)
        except ClientError as error:
            assert error.response["Error"]["Message"] == "RecordNotFound", error
            continue
        gone(sagemaker, name)


@pytest.fixture
def lifecycle(sagemaker):
    """Makes lifecycle configurations and removes them."""
    made = []

    def make(name, create=None, start=None):
        hooks = {"OnCreate": create, "OnStart": start}
        given = {hook: [{"Content": base64.b64encode(text.encode()).decode()}] for hook, text in hooks.items() if text}
        sagemaker.create_notebook_instance_lifecycle_config(NotebookInstanceLifecycleConfigName=name, **given)
        made.append(name)

    yield make
    for name in made:
        sagemaker.delete_notebook_instance_lifecycle_config(NotebookInstanceLifecycleConfigName=name)


# The visitor's address; presigned URLs are made from another one.
VISITOR = "127.0.0.9"


class Browser:
    """Speaks to one host name at the engine's own listener, and keeps its cookies."""

    def __init__(self, engine, host):
        self.engine, self.host, self.cookies = urlsplit(engine.url), host, {}

    def headers(self, more):
        own = {"Host": self.host}
        if self.cookies:
            own["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        return own | more

    def ask(self, method, path, body=None, **more):
        connection = http.client.HTTPConnection(self.engine.hostname, self.engine.port, timeout=30, source_address=(VISITOR, 0))
        try:
            headers = self.headers({name.replace("_", "-"): value for name, value in more.items()})
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            answer.text = answer.read().decode()
            return answer
        finally:
            connection.close()

    def open(self, url):
        """Follows a presigned URL; keeps the session."""
        parts = urlsplit(url)
        assert parts.netloc == self.host
        answer = self.ask("GET", "/?" + parts.query)
        for cookie in answer.headers.get_all("Set-Cookie") or []:
            name, _, value = cookie.split(";")[0].partition("=")
            self.cookies[name] = value
        return answer

    def json(self, path):
        answer = self.ask("GET", path)
        assert answer.status == 200, answer.text
        return json.loads(answer.text)


class WebSocket:
    """The client's side of RFC 6455, as far as short texts need it."""

    def __init__(self, browser, path="/socket", **more):
        self.socket = socket.create_connection((browser.engine.hostname, browser.engine.port), timeout=30, source_address=(VISITOR, 0))
        own = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
               "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode()}
        headers = browser.headers(own | more)
        head = f"GET {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self.socket.sendall(head.encode() + b"\r\n")
        self.stream = self.socket.makefile("rb")
        self.status = int(self.stream.readline().split()[1])
        while self.stream.readline() not in (b"\r\n", b""):
            pass

    def send(self, text):
        mask, bytes_ = os.urandom(4), text.encode()
        masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(bytes_))
        try:
            self.socket.sendall(bytes([0x81, 0x80 | len(bytes_)]) + mask + masked)
        except OSError:
            pass  # Ended already, which the answer tells.

    def receive(self):
        """The next text; None at the end of the connection."""
        try:
            head = self.stream.read(2)
            return self.stream.read(head[1]).decode() if len(head) == 2 else None
        except ConnectionError:
            return None

    def close(self):
        self.stream.close()
        self.socket.close()


def visit(engine, sagemaker, name):
    """A browser with a session."""
    url = sagemaker.create_presigned_notebook_instance_url(NotebookInstanceName=name)["AuthorizedUrl"]
    browser = Browser(engine, urlsplit(url).netloc)
    assert browser.open(url).status == 302
    return browser


def test_an_instance_keeps_its_volume_from_start_to_start_and_loses_it_in_the_end(engine, sagemaker, notebooks, role, name):
    """Proves: SM-46, SM-49, SM-60, SM-66"""
    notebooks(name, VolumeSizeInGB=7, Tags=[{"Key": "team", "Value": "ml"}])
    assert "duplicate" in refusal(
        sagemaker.create_notebook_instance, NotebookInstanceName=name.upper(), InstanceType=TYPE, RoleArn=role)
    quick = {"NotebookInstanceName": name, "WaiterConfig": {"Delay": 1, "MaxAttempts": PATIENCE}}
    sagemaker.get_waiter("notebook_instance_in_service").wait(**quick)
    found = settled(sagemaker, name, "InService")
    arn = found["NotebookInstanceArn"]
    assert arn == f"arn:aws:sagemaker:{REGION}:123456789012:notebook-instance/{name}"
    assert found["Url"] == f"{name}.notebook.{REGION}.sagemaker.aws"
    assert (found["DirectInternetAccess"], found["RootAccess"], found["VolumeSizeInGB"]) == ("Enabled", "Enabled", 7)
    assert not {"SubnetId", "SecurityGroups", "NetworkInterfaceId", "FailureReason"} & set(found)
    assert sagemaker.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "team", "Value": "ml"}]
    listed = sagemaker.list_notebook_instances(NameContains=name, StatusEquals="InService")["NotebookInstances"]
    assert [one["NotebookInstanceArn"] for one in listed] == [arn]
    assert not sagemaker.list_notebook_instances(NameContains=name, StatusEquals="Failed")["NotebookInstances"]

    browser = visit(engine, sagemaker, name)
    assert browser.ask("PUT", "/home/notes", b"kept across starts").status == 200
    assert browser.json("/read?file=/opt/ml/metadata/resource-metadata.json") == {"ResourceArn": arn, "ResourceName": name}
    message = refusal(sagemaker.delete_notebook_instance, NotebookInstanceName=name)
    assert message == (f"Status (InService) not in ([Stopped, Failed]). Unable to transition to (Deleting) for Notebook "
                       f"Instance ({arn})")
    for change in (sagemaker.start_notebook_instance, sagemaker.update_notebook_instance):
        assert message[:32] in refusal(change, NotebookInstanceName=name)

    sagemaker.stop_notebook_instance(NotebookInstanceName=name)
    settled(sagemaker, name, "Stopped")
    assert browser.ask("GET", "/home/notes").status == 503, "the session's container is gone"
    assert "InService" in refusal(sagemaker.create_presigned_notebook_instance_url, NotebookInstanceName=name)
    assert "only grow" in refusal(sagemaker.update_notebook_instance, NotebookInstanceName=name, VolumeSizeInGB=6)
    sagemaker.update_notebook_instance(NotebookInstanceName=name, VolumeSizeInGB=9, RootAccess="Disabled")
    assert settled(sagemaker, name, "Stopped")["VolumeSizeInGB"] == 9
    sagemaker.start_notebook_instance(NotebookInstanceName=name)
    settled(sagemaker, name, "InService")
    assert browser.ask("GET", "/home/notes").status == 503, "a session does not outlive its container"
    again = visit(engine, sagemaker, name)
    assert again.ask("GET", "/home/notes").text == "kept across starts"
    assert again.json("/who")["uid"] == 1000, "RootAccess Disabled"
    assert again.ask("PUT", "/home/more", b"x").status == 200, "the volume is the user's"

    volumes = list((engine.data / "work").glob("*/scratch/volume/notes"))
    assert len(volumes) == 1, "control: the file is on the host"
    sagemaker.stop_notebook_instance(NotebookInstanceName=name)
    settled(sagemaker, name, "Stopped")
    assert volumes[0].exists()
    sagemaker.get_waiter("notebook_instance_stopped").wait(**quick)
    sagemaker.delete_notebook_instance(NotebookInstanceName=name)
    sagemaker.get_waiter("notebook_instance_deleted").wait(**quick)
    gone(sagemaker, name)
    assert not volumes[0].exists()
    for call in (sagemaker.start_notebook_instance, sagemaker.stop_notebook_instance, sagemaker.delete_notebook_instance):
        assert refusal(call, NotebookInstanceName=name) == "RecordNotFound"


def user(engine, name, statements):
    """A user with one policy, as a client for SageMaker; and how to change the policy."""
    iam = engine.client("iam")
    iam.create_user(UserName=name)
    key = iam.create_access_key(UserName=name)["AccessKey"]

    def allow(statements):
        policy = {"Version": "2012-10-17", "Statement": statements}
        iam.put_user_policy(UserName=name, PolicyName="own", PolicyDocument=json.dumps(policy))

    allow(statements)
    return engine.client("sagemaker", key=key["AccessKeyId"], secret=key["SecretAccessKey"]), allow


def test_a_presigned_url_opens_once_and_its_session_is_worth_what_its_maker_may_do(engine, sagemaker, notebooks, name):
    """Proves: SM-47, SM-48, PL-17, PL-18, IAM-40"""
    notebooks(name)
    settled(sagemaker, name, "InService")
    mint = {"Effect": "Allow", "Action": "sagemaker:CreatePresignedNotebookInstanceUrl", "Resource": "*"}
    from_here = mint | {"Condition": {"IpAddress": {"aws:SourceIp": "127.0.0.0/8"}}}
    from_elsewhere = mint | {"Condition": {"IpAddress": {"aws:SourceIp": "203.0.113.0/24"}}}
    maker, allow = user(engine, name, [from_here])
    url = maker.create_presigned_notebook_instance_url(
        NotebookInstanceName=name, SessionExpirationDurationInSeconds=1800)["AuthorizedUrl"]
    host = f"{name}.notebook.{REGION}.sagemaker.aws"
    assert url.startswith(f"https://{host}?authToken=")

    browser, stranger = Browser(engine, host), Browser(engine, host)
    assert stranger.ask("GET", "/who").status == 403, "no session"
    assert stranger.open(url[:-1] + ("0" if url[-1] != "0" else "1")).status == 403, "not the token"
    allow([from_elsewhere])
    assert browser.open(url).status == 403, "its maker may not make one from here"
    allow([from_here])
    opened = browser.open(url)
    assert (opened.status, opened.headers["Location"]) == (302, "/")
    cookie = opened.headers["Set-Cookie"]
    for part in ("HttpOnly", "SameSite=Lax", "Path=/", "Max-Age=1800"):
        assert part in cookie.split("; "), cookie
    assert "Domain" not in cookie
    assert stranger.open(url).status == 403, "a URL opens once"
    assert browser.ask("GET", "/").text == '"hello"'

    seen = browser.ask("GET", "/who?x=1", X_Forwarded_For="9.9.9.9", X_Own="mine", Connection="close, x-hop", X_Hop="1",
                       Authorization="AWS4-HMAC-SHA256 x", Cookie="a=1; " + browser.headers({})["Cookie"])
    headers = json.loads(seen.text)["headers"]
    asked = dict(headers)
    assert json.loads(seen.text)["path"] == "/who?x=1"
    assert (asked["host"], asked["x-own"], asked["cookie"]) == (host, "mine", "a=1")
    assert (asked["x-forwarded-for"], asked["x-forwarded-proto"]) == (VISITOR, "http")
    assert not {"authorization", "x-hop"} & set(asked), "neither for this hop nor the engine's own reach the server"
    cookies = browser.ask("GET", "/cookies")
    assert cookies.headers.get_all("Set-Cookie") == ["own=1; Path=/"], "no other host's cookie, and not the session's"
    assert cookies.headers["X-Own"] == "kept", "control: others pass"
    assert not {"Alt-Svc", "Clear-Site-Data"} & set(cookies.headers)
    assert "forged" not in cookies.headers["x-amzn-requestid"]
    other = Browser(engine, host.replace(name, name + "x"))
    other.cookies = dict(browser.cookies)
    assert other.ask("GET", "/").status == 403, "a session is for one instance"
    own = {"Origin": f"http://{host}"}
    assert browser.ask("POST", "/echo", b"body", **own).text == "body"
    assert browser.ask("POST", "/echo", b"body", Origin="http://evil.example").status == 403
    assert WebSocket(browser, Origin="http://evil.example").status == 403

    ws = WebSocket(browser, **own)
    assert ws.status == 101
    ws.send("one")
    assert ws.receive() == "one"
    allow([from_elsewhere])
    ws.send("two")
    assert ws.receive() is None, "the next frame ends it"
    refused = browser.ask("GET", "/")
    assert refused.status == 403 and "CreatePresignedNotebookInstanceUrl" in refused.text
    assert WebSocket(browser, **own).status == 403
    allow([from_here])
    assert browser.ask("GET", "/").status == 200, "control: with the right the same session goes on"
    again = WebSocket(browser, **own)
    again.send("three")
    assert again.receive() == "three"
    sagemaker.stop_notebook_instance(NotebookInstanceName=name)
    again.send("four")
    assert again.receive() is None, "it ends with the instance"
    settled(sagemaker, name, "Stopped")
    assert browser.ask("GET", "/").status == 503
    logs = engine.client("logs").get_log_events(logGroupName=GROUP, logStreamName=f"{name}/jupyter.log", startFromHead=True)
    said = [event["message"] for event in logs["events"]]
    assert "frame one" in said and "frame three" in said
    assert not {"frame two", "frame four"} & set(said), "what was refused never reached the server"
    for one in (ws, again):
        one.close()


def test_lifecycle_scripts_run_as_root_before_the_server_and_their_failure_is_told(engine, sagemaker, notebooks, lifecycle, name):
    """Proves: SM-46, SM-66, CC-90"""
    ask = "#!/usr/bin/python3\nimport os\nprint('uid', os.getuid())\nopen('/tmp/%s', 'a').write('ran\\n')\n"
    both = f"{name}-both"
    lifecycle(both, create=ask % "created", start=ask % "started")
    described = sagemaker.describe_notebook_instance_lifecycle_config(NotebookInstanceLifecycleConfigName=both)
    assert base64.b64decode(described["OnCreate"][0]["Content"]).decode() == ask % "created"
    listed = sagemaker.list_notebook_instance_lifecycle_configs(NameContains=both)["NotebookInstanceLifecycleConfigs"]
    assert [one["NotebookInstanceLifecycleConfigName"] for one in listed] == [both]
    notebooks(name, LifecycleConfigName=both, RootAccess="Disabled")
    by_config = sagemaker.list_notebook_instances(NotebookInstanceLifecycleConfigNameContains=both)["NotebookInstances"]
    assert [one["NotebookInstanceName"] for one in by_config] == [name]
    settled(sagemaker, name, "InService")
    browser = visit(engine, sagemaker, name)
    assert (browser.json("/who")["uid"], browser.json("/who")["gid"]) == (1000, 1000), "the server is not root"
    for file in ("created", "started"):
        assert browser.ask("GET", f"/read?file=/tmp/{file}").text == "ran\n"
    logs = engine.client("logs")
    for stream in ("LifecycleConfigOnCreate", "LifecycleConfigOnStart"):
        events = logs.get_log_events(logGroupName=GROUP, logStreamName=f"{name}/{stream}", startFromHead=True)["events"]
        assert [event["message"] for event in events] == ["uid 0"], "the scripts are"

    # The second start runs OnStart alone, as it is now; a script that fails is told, and repaired.
    failing = base64.b64encode(b"echo nothing works; exit 7").decode()
    sagemaker.update_notebook_instance_lifecycle_config(NotebookInstanceLifecycleConfigName=both, OnStart=[{"Content": failing}])
    sagemaker.stop_notebook_instance(NotebookInstanceName=name)
    settled(sagemaker, name, "Stopped")
    sagemaker.start_notebook_instance(NotebookInstanceName=name)
    for waiter in ("notebook_instance_in_service", "notebook_instance_stopped", "notebook_instance_deleted"):
        with pytest.raises(WaiterError) as failed:
            sagemaker.get_waiter(waiter).wait(NotebookInstanceName=name, WaiterConfig={"Delay": 1, "MaxAttempts": PATIENCE})
        assert failed.value.last_response["NotebookInstanceStatus"] == "Failed", waiter
    why = settled(sagemaker, name, "Failed")["FailureReason"]
    assert f"notebook-instance-lifecycle-config/{both}" in why and "LifecycleConfigOnStart" in why and "exit code 7" in why
    hanging = base64.b64encode(b"#!/usr/bin/python3\nimport time\ntime.sleep(600)\n").decode()
    sagemaker.update_notebook_instance_lifecycle_config(NotebookInstanceLifecycleConfigName=both, OnStart=[{"Content": hanging}])
    sagemaker.start_notebook_instance(NotebookInstanceName=name)
    assert "took longer than" in settled(sagemaker, name, "Failed")["FailureReason"]
    sagemaker.update_notebook_instance(NotebookInstanceName=name, DisassociateLifecycleConfig=True)
    settled(sagemaker, name, "Stopped")
    sagemaker.start_notebook_instance(NotebookInstanceName=name)
    settled(sagemaker, name, "InService")
    browser = visit(engine, sagemaker, name)
    assert browser.ask("GET", "/read?file=/tmp/started").status == 404, "and the root file system is a new one"
    # A server that ends is told too, and can be started again.
    browser.ask("GET", "/end")
    assert "exit code 3" in settled_after_end(sagemaker, name)["FailureReason"]


def settled_after_end(sagemaker, name):
    def failed():
        found = sagemaker.describe_notebook_instance(NotebookInstanceName=name)
        return found if found["NotebookInstanceStatus"] == "Failed" else None
    return eventually(failed, timeout=PATIENCE)


def test_wrong_requests_change_nothing(sagemaker, role, image, lifecycle, name):
    create = {"NotebookInstanceName": name, "InstanceType": TYPE, "RoleArn": role}
    for members, words in (
        ({"DirectInternetAccess": "Disabled"}, "SubnetId"),
        ({"SecurityGroupIds": ["sg-0123456789abcdef0"]}, "SubnetId"),
        ({"SubnetId": "subnet-0123456789abcdef0"}, "SecurityGroupIds"),
        ({"SubnetId": "subnet-0123456789abcdef0", "SecurityGroupIds": ["sg-0123456789abcdef0"]}, "DirectInternetAccess"),
        ({"SubnetId": "subnet-0123456789abcdef0", "SecurityGroupIds": ["sg-0123456789abcdef0"],
          "DirectInternetAccess": "Disabled"}, "ec2:"),
        ({"LifecycleConfigName": name}, "does not exist"),
        ({"KmsKeyId": "alias/own"}, "KmsKeyId"),
        ({"DefaultCodeRepository": "https://example.com/x.git"}, "DefaultCodeRepository"),
        ({"RoleArn": "arn:aws:iam::123456789012:role/no-such-role"}, "Could not assume role"),
    ):
        assert words in refusal(sagemaker.create_notebook_instance, **create | members), members
    assert not sagemaker.list_notebook_instances(NameContains=name)["NotebookInstances"]
    config = {"NotebookInstanceLifecycleConfigName": name}
    bad = {"OnStart": [{"Content": "no base64!"}]}
    assert "base64" in refusal(sagemaker.create_notebook_instance_lifecycle_config, **config, **bad)
    for call in (sagemaker.describe_notebook_instance_lifecycle_config, sagemaker.delete_notebook_instance_lifecycle_config):
        assert "does not exist" in refusal(call, **config)
    lifecycle(name, start="true")
    assert "already exists" in refusal(sagemaker.create_notebook_instance_lifecycle_config, **config)
    assert refusal(sagemaker.create_presigned_notebook_instance_url, NotebookInstanceName=name) == "RecordNotFound"


def test_without_direct_internet_access_the_vpcs_interface_is_the_only_way(engine, sagemaker, notebooks, role, bucket, name):
    """Proves: SM-46, NET-12"""
    ec2 = engine.client("ec2")
    network = Network(ec2, block="10.33.0.0/16", subnet="10.33.1.0/24")
    try:
        allow = {"Effect": "Allow", "Action": P6, "Resource": "*"}
        vpc_role = engine.create_role(f"{name}-vpc", [*execution_statements(bucket), allow])
        inside, outside = f"{name}-in", f"{name}-out"
        notebooks(inside, role=vpc_role, SubnetId=network.subnet, SecurityGroupIds=[network.group], DirectInternetAccess="Disabled")
        notebooks(outside)
        found = settled(sagemaker, inside, "InService")
        assert (found["SubnetId"], found["SecurityGroups"]) == (network.subnet, [network.group])
        assert found["DirectInternetAccess"] == "Disabled"
        own = [one for one in network.interfaces() if one["NetworkInterfaceId"] == found["NetworkInterfaceId"]]
        assert own[0]["Description"].endswith(f"in your VPC for SageMaker Notebook Instance {inside}")
        settled(sagemaker, outside, "InService")
        reach = f"/reach?host={WEB}&port=80"
        assert visit(engine, sagemaker, outside).json(reach) == "reached", "control: the path exists"
        browser = visit(engine, sagemaker, inside)
        assert browser.json(reach).startswith("not reached")
        for one, its_role in ((browser, vpc_role), (visit(engine, sagemaker, outside), role)):
            assert one.json("/credentials")["RoleArn"] == its_role
        for one in (inside, outside):
            sagemaker.stop_notebook_instance(NotebookInstanceName=one)
        assert "NetworkInterfaceId" not in settled(sagemaker, inside, "Stopped")
        assert not [one for one in network.interfaces() if one.get("RequesterManaged")]
    finally:
        for one in (f"{name}-in",):
            try:
                found = settled(sagemaker, one, "Stopped", "Failed", "InService")
                if found["NotebookInstanceStatus"] == "InService":
                    sagemaker.stop_notebook_instance(NotebookInstanceName=one)
                    settled(sagemaker, one, "Stopped")
            except ClientError:
                pass
        network.remove()


def test_notebooks_can_be_locked_down_by_policy(engine, sagemaker, role, image, name):
    """Proves: IAM-40"""
    lock = {"Effect": "Allow", "Action": "sagemaker:CreateNotebookInstance", "Resource": "*", "Condition": {
        "StringEquals": {"sagemaker:DirectInternetAccess": "Disabled", "sagemaker:RootAccess": "Disabled"},
        "Null": {"sagemaker:VpcSubnets": "false", "sagemaker:VpcSecurityGroupIds": "false"}}}
    passing = {"Effect": "Allow", "Action": "iam:PassRole", "Resource": role}
    client, _ = user(engine, name, [lock, passing])
    vpc = {"SubnetId": "subnet-0123456789abcdef0", "SecurityGroupIds": ["sg-0123456789abcdef0"]}
    good = vpc | {"DirectInternetAccess": "Disabled", "RootAccess": "Disabled"}
    create = {"NotebookInstanceName": name, "InstanceType": TYPE, "RoleArn": role}
    assert "ec2:" in refusal(client.create_notebook_instance, **create, **good), "control: it is let through to the role's rights"
    for lacks in ("DirectInternetAccess", "RootAccess", "SubnetId", "SecurityGroupIds"):
        with pytest.raises(ClientError) as denied:
            client.create_notebook_instance(**create, **{key: value for key, value in good.items() if key != lacks})
        assert denied.value.response["Error"]["Code"] == "AccessDeniedException", lacks
