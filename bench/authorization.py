"""Policy decisions per second against Cedar, and what authorization adds to DescribeModel and InvokeEndpoint.

The first part is a Rust program beside this file (bench/cedar, built by ./x bench): both engines answer the same questions over the same
permissions in one process. The second compares a user with 1, 10 and 100 attached policies with the account's root, which
is authenticated the same way and needs no policy. All four take short turns, and what a user adds is the median of the
differences from root's latency in the same round, so that a slow spell of the machine hits both. When root itself drifts
between the halves of a run, nothing is reported: the suite fails.
"""
import json
import statistics
import subprocess
import tempfile
from pathlib import Path

from bench import wrk
from bench.invoke import invocation, live_endpoint
from bench.processes import favour
from bench.requests import TARGET
from tests.harness.engine import Engine

REPOSITORY = Path(__file__).resolve().parents[1]
STATEMENTS = 12
# How far root's median latency may move between the halves of a run.
DRIFT = 0.2


def decisions():
    done = subprocess.run([REPOSITORY / "target/bench-cedar/release/isolarium-bench-cedar"], check=True, capture_output=True, text=True)
    for row in map(json.loads, done.stdout.splitlines()):
        name = f"policy decisions/s, {row['policies']} x {row['bytes'] / 1000:.1f} kB, {row['verdict']}"
        yield {"name": name, "unit": "1/s", "ours": row["ours"], "reference": row["cedar"], "reference_name": "Cedar", "budget": ">= 1"}


def document(policy, last):
    """About 6 kB; only the very last statement of the last policy allows what is asked."""
    statements = [
        {
            "Sid": f"Allow{at}", "Effect": "Allow",
            "Action": [f"sagemaker:{name}" for name in ("CreateModel", "DescribeModel", "InvokeEndpoint", "AddTags")],
            "Resource": [f"arn:aws:sagemaker:us-east-1:123456789012:{kind}/team-{policy:03}-{at:02}-*" for kind in ("model", "endpoint")],
            "Condition": {"StringEquals": {"aws:PrincipalTag/team": f"team-{policy:03}-{at:02}"}},
        }
        for at in range(STATEMENTS)
    ]
    if last:
        statements[-1] = {"Effect": "Allow", "Action": ["sagemaker:DescribeModel", "sagemaker:InvokeEndpoint"], "Resource": "*"}
    return json.dumps({"Version": "2012-10-17", "Statement": statements}, indent=1)


def user(iam, policies):
    """A user with so many managed policies, its own ten and the rest through ten groups; its key."""
    name = f"bench-{policies}"
    iam.create_user(UserName=name)
    groups = [f"{name}-{at}" for at in range(10)] if policies > 10 else []
    for group in groups:
        iam.create_group(GroupName=group)
        iam.add_user_to_group(GroupName=group, UserName=name)
    for at in range(policies):
        arn = iam.create_policy(PolicyName=f"{name}-{at:03}", PolicyDocument=document(at, at == policies - 1))["Policy"]["Arn"]
        if at < 10:
            iam.attach_user_policy(UserName=name, PolicyArn=arn)
        else:
            iam.attach_group_policy(GroupName=groups[at // 10], PolicyArn=arn)
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return key["AccessKeyId"], key["SecretAccessKey"]


def turns(callers, rounds):
    """The p50 of every caller's turns of a second each: one in every round, in an order that moves on from round to round."""
    took = {name: [] for name in callers}
    order = list(callers)
    for _ in range(rounds):
        for name in order:
            took[name].append(callers[name](1)["p50"])
        order.append(order.pop(0))
    return took


def steady(latencies):
    """The median, if both halves of the run agree on it."""
    half = len(latencies) // 2
    early, late = statistics.median(latencies[:half]), statistics.median(latencies[half:])
    if abs(early - late) > DRIFT * min(early, late):
        raise RuntimeError(f"root's p50 went from {early:.0f} to {late:.0f} us within one run: the machine is not quiet enough to tell what authorization adds")
    return statistics.median(latencies)


def run(binary, cache, quick):
    yield from decisions()
    rounds, all_connections = (3, [1]) if quick else (12, [1, 8])
    with tempfile.TemporaryDirectory() as directory, Engine(binary, internet=False) as engine:
        favour(*engine.pids().values())
        live_endpoint(engine, directory)
        keys = {"root": engine.credentials()} | {policies: user(engine.client("iam"), policies) for policies in (1, 10, 100)}
        loads = {
            "DescribeModel": (engine.url + "/", '{"ModelName": "m"}', "sagemaker", TARGET),
            "InvokeEndpoint": invocation(engine),
        }
        for operation, (url, body, service, headers) in loads.items():
            for connections in all_connections:
                def load(key):
                    signed = wrk.signed(url, body, service, headers, *key)
                    return lambda seconds: wrk.run(url, body, signed, connections, seconds)
                took = turns({name: load(key) for name, key in keys.items()}, rounds)
                as_root = took.pop("root")
                floor = steady(as_root)
                many = f"{connections} connection{'s' if connections > 1 else ''}"
                for policies, own in took.items():
                    added = statistics.median(mine - theirs for mine, theirs in zip(own, as_root))
                    yield {"name": f"{operation}, {many}, user with {policies} policies: added p50", "unit": "us", "ours": added, "reference": floor, "reference_name": "the same as root, p50"}
