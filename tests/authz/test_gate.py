"""Nothing runs unasked: every operation of every service as nobody, as strangers, without a policy, against a deny.

Operations come from models/served-operations.toml and, for S3, from botocore's model; the registry's routes are all methods
on all paths. An operation that is added later is in these tests without a line being written for it.
"""
import base64
import contextlib
import gzip
import hashlib
import http.client
import json
import re
import sqlite3
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import ClientError

from tests.harness.engine import ACCOUNT, REGION, REPOSITORY, TRUST
from tests.harness.models import SERVED, SERVICES, Speaker, Writer, model_of
from tests.harness.wire import ask, exchange, printed

OTHER = "222222222222"
# Stands in everything that the account owns; no stranger may ever read it.
CANARY = "canary-7c1f"
ALLOW_ALL = {"Effect": "Allow", "Action": "*", "Resource": "*"}
REFERENCE = json.loads(gzip.decompress((REPOSITORY / "models/authorization.json.gz").read_bytes()))["services"]
# Names of services in actions, where they differ.
PREFIX = {"sagemaker-runtime": "sagemaker", "sagemaker-featurestore-runtime": "sagemaker", "cloudwatch": "cloudwatch"}
# Operations that AWS lets every authenticated caller run, even against an explicit deny.
FREE = {
    ("sts", "GetCallerIdentity"): "tells callers who they are (IAM-53)",
    ("sts", "GetSessionToken"): "policies cannot control authentication; the session has the user's own rights (IAM-53)",
}
# HEAD answers have no text that names the action.
BACKEND = (REPOSITORY / "crates/app/services/src/s3/backend.rs").read_text()
# The protocol layer answers the others, some of them only after it has found fault with their bodies.
S3_SERVED = {name.title().replace("_", "") for name in re.findall(r"async fn (\w+)\(", BACKEND)}
# Answers 200 with an error for each key.
BATCHES = {"DeleteObjects"}
HEADS = {"HeadBucket": "s3:ListBucket", "HeadObject": "s3:GetObject"}
DENIAL = {
    "json": (400, "AccessDeniedException"), "rest-json": (403, "AccessDeniedException"), "query": (403, "AccessDenied"),
    "ec2": (403, "UnauthorizedOperation"), "rest-xml": (403, "AccessDenied"), "smithy-rpc-v2-cbor": (400, "AccessDeniedException"),
}
UNSIGNED = {
    "json": "MissingAuthenticationTokenException", "rest-json": "MissingAuthenticationTokenException", "query": "MissingAuthenticationToken",
    "ec2": "AuthFailure", "rest-xml": "AccessDenied", "smithy-rpc-v2-cbor": "MissingAuthenticationTokenException",
}
SIGNING = {name: (signing, protocols[0]) for name, signing, protocols in SERVICES} | {"s3": ("s3", "rest-xml")}
OPERATIONS = [(service, name) for service, entry in SERVED.items() for name in entry["operations"]]
OPERATIONS += [("s3", name) for name in model_of("s3").operation_names]

ROLE_ARN = f"arn:aws:iam::{ACCOUNT}:role/gate"
RESOURCES = {
    "sagemaker": f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:model/gate", "ecr": f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/gate",
    "logs": f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:gate",
}
POLICY = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}]})
# Members that must name something of the account, or hold a document; the rest is made from the model.
MEMBERS = {
    "RoleArn": ROLE_ARN, "ExecutionRoleArn": ROLE_ARN, "PolicyArn": f"arn:aws:iam::{ACCOUNT}:policy/gate", "PolicyDocument": POLICY,
    "PolicySourceArn": f"arn:aws:iam::{ACCOUNT}:user/gate", "AssumeRolePolicyDocument": json.dumps(TRUST), "Policy": POLICY,
    "PermissionsBoundary": f"arn:aws:iam::{ACCOUNT}:policy/gate", "PolicyInputList": [POLICY], "Bucket": "gate", "Key": "gate",
    "CopySource": "gate/source", "ActionNames": ["s3:GetObject"],
    "MultipartUpload": {"Parts": [{"ETag": "etag", "PartNumber": 1}]}, "VersioningConfiguration": {"Status": "Suspended"},
    "ModelPackageArn": f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:model-package/gate",
    "OwnershipControls": {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]},
}
KINDS = {str: "string", list: "list", dict: "structure"}
# Optional members without which a request would be about the caller itself or about nothing.
ALWAYS = {"UserName", "logGroupName", "MultipartUpload"}


class NamedWriter(Writer):
    """The least input, about resources called `gate`."""

    def __init__(self, service, network):
        super().__init__()
        self.service, self.network = service, network if service == "ec2" else {}

    def structure(self, shape, depth, in_header):
        made = super().structure(shape, depth, in_header)
        for name, member in shape.members.items():
            if name not in made and not (name in ALWAYS and depth == 0):
                continue
            if member.type_name == KINDS.get(type(self.network.get(name))):
                made[name] = self.network[name]
            elif name.lower() == "resourcearn" and self.service in RESOURCES:
                made[name] = RESOURCES[self.service]
            elif name in MEMBERS and member.type_name == KINDS[type(MEMBERS[name])]:
                made[name] = MEMBERS[name]
            elif name.endswith("Name") and member.type_name == "string" and not member.enum:
                made[name] = "gate"
        return made


def policy(*statements):
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


class World:
    """Two accounts on one engine: one that owns things, and one whose users try to reach them."""

    def __init__(self, engine):
        self.engine = engine
        self.host = urlsplit(engine.url).netloc
        self.iam = engine.client("iam")
        other = printed(engine.run("account", "create", OTHER).stdout)
        other = engine.client("iam", key=other["aws_access_key_id"], secret=other["aws_secret_access_key"])
        self.keys = {
            "administrator": self.user(self.iam, "administrator", ALLOW_ALL), "no policy": self.user(self.iam, "no-policy"),
            "explicit deny": self.user(self.iam, "explicit-deny", ALLOW_ALL),
            "other account's administrator": self.user(other, "administrator", ALLOW_ALL), "other account": self.user(other, "no-policy"),
        }
        self.clients = {service: engine.client(service) for service in ("s3", "logs", "ecr", "ec2")}
        self.network = {}
        self.complete = False

    @staticmethod
    def user(iam, name, *statements):
        iam.create_user(UserName=name)
        if statements:
            iam.put_user_policy(UserName=name, PolicyName="own", PolicyDocument=policy(*statements))
        key = iam.create_access_key(UserName=name)["AccessKey"]
        return {"aws_access_key_id": key["AccessKeyId"], "aws_secret_access_key": key["SecretAccessKey"]}

    def deny(self, action):
        """Lets the user with the deny do everything but one action."""
        document = policy(ALLOW_ALL, {"Effect": "Deny", "Action": action, "Resource": "*"})
        self.iam.put_user_policy(UserName="explicit-deny", PolicyName="own", PolicyDocument=document)

    def furnish(self):
        """Makes what an earlier control removed. Nothing of it starts work of its own in the background."""
        if self.complete:
            return
        self.complete = True
        trust = TRUST["Statement"] + [{"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, "Action": "sts:AssumeRole"}]
        s3, logs, ecr = (self.clients[service] for service in ("s3", "logs", "ecr"))
        tags = [{"Key": "note", "Value": CANARY}]
        for call, members in [
            (s3.create_bucket, {"Bucket": "gate"}), (s3.put_object, {"Bucket": "gate", "Key": "gate", "Body": CANARY}),
            (logs.create_log_group, {"logGroupName": "gate", "tags": {"note": CANARY}}),
            (logs.create_log_stream, {"logGroupName": "gate", "logStreamName": "gate"}),
            (ecr.create_repository, {"repositoryName": "gate", "tags": tags}),
            (self.iam.create_role, {"RoleName": "gate", "AssumeRolePolicyDocument": policy(*trust), "Description": CANARY}),
            (self.iam.update_assume_role_policy, {"RoleName": "gate", "PolicyDocument": policy(*trust)}),
            (self.iam.create_user, {"UserName": "gate", "Tags": tags}),
        ]:
            with contextlib.suppress(ClientError):
                call(**members)
        self.network = self.furnish_network(self.clients["ec2"])

    @staticmethod
    def furnish_network(ec2):
        """A VPC with something of every kind, by the members that requests name them with."""
        tags = [{"Key": "note", "Value": CANARY}]

        def one(kind, describe, key, make):
            found = describe(Filters=[{"Name": "tag:note", "Values": [CANARY]}])
            items = next(value for name, value in found.items() if isinstance(value, list))
            return items[0][key] if items else make([{"ResourceType": kind, "Tags": tags}])[key]

        vpc = one("vpc", ec2.describe_vpcs, "VpcId", lambda t: ec2.create_vpc(CidrBlock="10.77.0.0/16", TagSpecifications=t)["Vpc"])
        within = {"VpcId": vpc}
        subnet = one("subnet", ec2.describe_subnets, "SubnetId",
                     lambda t: ec2.create_subnet(CidrBlock="10.77.1.0/24", TagSpecifications=t, **within)["Subnet"])
        group = one("security-group", ec2.describe_security_groups, "GroupId",
                    lambda t: ec2.create_security_group(GroupName="gate", Description=CANARY, TagSpecifications=t, **within))
        table = one("route-table", ec2.describe_route_tables, "RouteTableId",
                    lambda t: ec2.create_route_table(TagSpecifications=t, **within)["RouteTable"])
        acl = one("network-acl", ec2.describe_network_acls, "NetworkAclId",
                  lambda t: ec2.create_network_acl(TagSpecifications=t, **within)["NetworkAcl"])
        service = f"com.amazonaws.{REGION}.s3"
        endpoint = one("vpc-endpoint", ec2.describe_vpc_endpoints, "VpcEndpointId",
                       lambda t: ec2.create_vpc_endpoint(ServiceName=service, TagSpecifications=t, **within)["VpcEndpoint"])
        gateway = one("internet-gateway", ec2.describe_internet_gateways, "InternetGatewayId",
                      lambda t: ec2.create_internet_gateway(TagSpecifications=t)["InternetGateway"])
        interface = one("network-interface", ec2.describe_network_interfaces, "NetworkInterfaceId",
                        lambda t: ec2.create_network_interface(SubnetId=subnet, TagSpecifications=t)["NetworkInterface"])
        return {
            "VpcId": vpc, "SubnetId": subnet, "GroupId": group, "RouteTableId": table, "NetworkAclId": acl, "VpcEndpointId": endpoint,
            "InternetGatewayId": gateway, "NetworkInterfaceId": interface, "VpcEndpointIds": [endpoint], "Resources": [vpc, group],
            "ResourceIds": [vpc], "ServiceName": service,
        }


@pytest.fixture(scope="module")
def world(engine):
    return World(engine)


# Tables whose rows name their account by the id of another table's row.
OWNERS = {"state_record": ("state_shelf", "shelf"), "logs_stream": ("logs_group", "grp"), "logs_block": ("logs_group", "grp"),
          "metrics_point": ("metrics_series", "series")}


class Watch:
    """Says what changed on the engine's disk. Trail and access log do not count: denials belong into them."""

    def __init__(self, engine):
        self.data = engine.data
        self.before = self.look()

    def look(self):
        seen = set()
        with contextlib.closing(sqlite3.connect(f"file:{self.data}/state.db?mode=ro", uri=True)) as database:
            tables = [row[0] for row in database.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
            for table in tables:
                if table in ("state_revision", "state_shelf") or table.startswith(("sqlite_", "audit")):
                    continue
                # Rows that only point at the account they belong to are shown with it.
                join, key = OWNERS.get(table, ("", None))
                rows = database.execute(f"SELECT * FROM {table} {f'JOIN {join} AS owner ON {table}.{key} = owner.id' if join else ''}")
                seen |= {f"{table}: {row}" for row in rows}
        for folder in ("buckets", "escape", "registry", "logs"):
            for path in (self.data / folder).rglob("*"):
                if path.is_file() and path.name != "s3-access.log":
                    seen.add(f"file {path.relative_to(self.data)} {path.stat().st_size} {path.stat().st_mtime_ns}")
        return seen

    def changes(self):
        before, self.before = self.before, self.look()
        return before ^ self.before


def has_format(arn, written):
    """Whether an ARN has a format of the reference."""
    broad = {"ObjectName", "RepositoryName", "LogGroupName"}
    parts = re.split(r"\$\{(\w+)\}", written)
    pattern = "".join(
        re.escape(part) if at % 2 == 0 else "[^:]*" if part in broad or part.endswith("WithPath") else "[^:/]*"
        for at, part in enumerate(parts)
    )
    return re.fullmatch(f"{pattern}(:log-stream:)?", arn) is not None


def assert_aws_asks_so(action, resource):
    """The reference knows the action, and its resource is of a kind that the action has."""
    service, _, name = action.partition(":")
    known = REFERENCE[service]["actions"][name].get("resources", {})
    kinds = [kind for kind in known if has_format(resource, REFERENCE[service]["resources"][kind]["arn"])]
    nameless = resource.endswith(":log-group::log-stream:") and not known
    assert kinds or nameless or (resource == "*" and not any(kind.get("required") for kind in known.values())), (action, resource)


class Attempt:
    """One operation that different callers try."""

    def __init__(self, world, service, operation):
        self.world, self.service = world, service
        self.signing, self.protocol = SIGNING[service]
        self.operation = model_of(service).operation_model(operation)
        shape = self.operation.input_shape
        self.parameters = NamedWriter(service, world.network).value(shape) if shape else {}
        self.watch = Watch(world.engine)

    def by(self, caller):
        """The answer and its error; `None` is a caller without a signature."""
        with contextlib.closing(http.client.HTTPConnection(self.world.host, timeout=30)) as connection:
            keys = self.world.keys.get(caller)
            speaker = Speaker(self.world.engine, connection, keys, self.service, self.signing, self.protocol)
            method, target, headers, body = speaker.written(self.operation, self.parameters)
            if self.service == "s3" and body:
                headers["content-md5"] = base64.b64encode(hashlib.md5(body).digest()).decode()
            if caller is None:
                # Without a signature a form says nothing of its service but by its host.
                host = f"ec2.{REGION}.amazonaws.com" if self.service == "ec2" else self.world.host
                answer = ask(connection, method, target, headers | {"host": host}, body)
            else:
                answer = speaker.send(method, target, headers, body)
            return answer

    def is_denial(self, answer):
        status, code = DENIAL[self.protocol]
        head = self.operation.http.get("method") == "HEAD"
        if self.operation.name in BATCHES:
            return answer.status == 200 and answer.code == code and b"<Deleted>" not in answer.body
        return answer.status == status and (answer.code == code or (head and not answer.body))

    def assert_denied(self, caller):
        """The caller is denied in the service's words and nothing changes; returns action, resource and reason."""
        answer = self.by(caller)
        assert self.is_denial(answer), (caller, self.operation.name, answer)
        assert not self.watch.changes(), (caller, self.operation.name)
        text = answer.body.decode(errors="replace")
        told = re.search(r"is not authorized to perform: (\S+) on resource: (\S+) ([a-zA-Z0-9: -]*)", text)
        if not told:
            assert self.operation.http.get("method") == "HEAD", answer
            return HEADS[self.operation.name], None, None
        return told.groups()

    def assert_untouched_by(self, caller):
        """The caller's own account may serve it, but nothing of ours is changed or told."""
        answer = self.by(caller)
        ours = [change for change in self.watch.changes() if OTHER not in change]
        assert not ours, (caller, self.operation.name, ours)
        assert CANARY.encode() not in answer.body, (caller, answer)

    def assert_refused(self, caller):
        """Whatever the answer: no success, no change."""
        answer = self.by(caller)
        assert answer.status >= 400 or self.is_denial(answer), (caller, self.operation.name, answer)
        assert not self.watch.changes(), (caller, self.operation.name)
        return answer


@pytest.mark.parametrize("service, operation", OPERATIONS, ids=lambda value: value)
def test_no_operation_runs_unless_iam_allows_it(world, service, operation):
    """Proves: IAM-7, IAM-58, IAM-59, IAM-60, IAM-61, IAM-63"""
    world.furnish()
    attempt = Attempt(world, service, operation)
    unsigned = attempt.assert_refused(None)
    if service == "s3" and operation not in S3_SERVED:
        # Another name of a route that is served, or none at all: it must not be taken for an operation that changes something.
        attempt.assert_untouched_by("other account's administrator")
        for caller in ("other account", "no policy"):
            attempt.assert_refused(caller)
        attempt.by("administrator")
        assert not attempt.watch.changes()
        return
    head = attempt.operation.http.get("method") == "HEAD"
    assert unsigned.code == UNSIGNED[attempt.protocol] or (head and unsigned.status == 403), unsigned
    attempt.assert_untouched_by("other account's administrator")
    if (service, operation) in FREE:
        for caller in world.keys:
            assert attempt.by(caller).status == 200, caller
        assert not attempt.watch.changes()
        return
    attempt.assert_denied("other account")
    action, resource, reason = attempt.assert_denied("no policy")
    if reason:
        assert reason.startswith(f"because no identity-based policy allows the {action} action"), reason
        assert_aws_asks_so(action, resource)
    if service != "s3":
        assert action == f"{PREFIX.get(service, service)}:{operation}"
    world.deny(action)
    attempt.watch.changes()
    assert attempt.assert_denied("explicit deny")[::2] in ((action, "with an explicit deny in an identity-based policy"), (action, None))
    attempt.watch.changes()
    control = attempt.by("administrator")
    world.complete = not attempt.watch.changes()
    assert not attempt.is_denial(control) and control.status != 501 and control.code != "UnsupportedOperation", control


DIGEST = "sha256:" + hashlib.sha256(b"").hexdigest()
ROUTES = [
    "/v2/", "/v2/_catalog", "/v2/gate/tags/list", "/v2/gate/manifests/latest", f"/v2/gate/manifests/{DIGEST}", f"/v2/gate/blobs/{DIGEST}",
    "/v2/gate/blobs/uploads/", f"/v2/gate/blobs/uploads/?mount={DIGEST}&from=gate", f"/v2/gate/blobs/uploads/?digest={DIGEST}",
    "/v2/gate/blobs/uploads/00000000-0000-0000-0000-000000000000", f"/v2/gate/referrers/{DIGEST}",
]


@pytest.fixture(scope="module")
def tokens(world):
    """Authorization tokens. Whoever may not ask for one may do so for a moment: what counts is what it is worth later."""
    made = {}
    for caller, keys in world.keys.items():
        own = caller.startswith("other")
        iam = world.engine.client("iam") if not own else None
        if caller == "no policy":
            iam.put_user_policy(UserName="no-policy", PolicyName="moment", PolicyDocument=policy(ALLOW_ALL))
        elif caller == "other account":
            continue
        ecr = world.engine.client("ecr", key=keys["aws_access_key_id"], secret=keys["aws_secret_access_key"])
        made[caller] = ecr.get_authorization_token()["authorizationData"][0]["authorizationToken"]
    world.iam.delete_user_policy(UserName="no-policy", PolicyName="moment")
    return made


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("path", ROUTES, ids=lambda path: path.replace(DIGEST, "DIGEST").removeprefix("/v2/") or "root")
def test_no_route_of_the_registry_runs_unless_iam_allows_it(world, tokens, method, path):
    """Proves: IAM-59, IAM-67"""
    world.furnish()
    watch = Watch(world.engine)

    def by(caller):
        headers = {"authorization": f"Basic {tokens[caller]}"} if caller else {}
        return exchange(world.engine.url, method, path, headers | {"content-type": "application/json"})

    unsigned = by(None)
    assert unsigned.status in (401, 405) or (unsigned.status == 404 and "_catalog" in path), unsigned
    assert not watch.changes()
    world.deny("s3:GetObject")
    watch.changes()
    control = by("administrator")
    world.complete = not watch.changes()
    # HEAD answers name no code: GET tells whether there is such a route.
    told = exchange(world.engine.url, "GET", path, {"authorization": f"Basic {tokens['administrator']}"}) if method == "HEAD" else control
    served = control.status not in (401, 403, 405) and told.code != "UNSUPPORTED"
    answer = by("no policy")
    assert not watch.changes(), answer
    if not served:
        assert control.status != 403 and answer.status >= 400, (control, answer)
        return
    denial = answer.status == 403 and (answer.code == "DENIED" or method == "HEAD")
    assert denial, answer
    told = re.search(r"is not authorized to perform: (\S+) on resource: (\S+) because no identity-based policy", answer.body.decode(errors="replace"))
    actions = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:ListImages", "ecr:GetAuthorizationToken", "ecr:UploadLayerPart"]
    if told:
        assert_aws_asks_so(*told.groups())
        actions = [told[1]]
    else:
        assert method == "HEAD", answer
    world.deny(actions)
    watch.changes()
    refused = by("explicit deny")
    assert refused.status == 403 and not watch.changes(), refused
    stranger = by("other account's administrator")
    assert CANARY.encode() not in stranger.body and not [change for change in watch.changes() if OTHER not in change], stranger
