"""VPCs in the kernel: attaching an interface against a bare namespace with a veth pair, filtering against a raw veth pair,
a changed rule until the first packet. Built from crates/edge/dataplane/examples/vpc-bench.rs, which measures ours and the
floor in one process, pinned, one beside the other.
"""
import json
import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
BARE, VETH = "bare namespace + veth by netlink", "raw veth pair"


def run(_binary, _cache, quick):
    build = ["cargo", "build", "--release", "--locked", "-q", "-p", "isolarium-dataplane", "--example", "vpc-bench"]
    subprocess.run(build, cwd=REPOSITORY, check=True)
    command = [REPOSITORY / "target/release/examples/vpc-bench", *(["--quick"] if quick else [])]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    many = int(found["many"])
    for name, told in (("few", "VPC interface attach"), ("many", f"VPC interface attach, {many} attached")):
        yield {"name": told, "unit": "us", "ours": found[f"attach_{name}"], "reference": found[f"bare_{name}"], "reference_name": BARE, "budget": "<= 1.6"}
    yield {"name": "VPC interface detach", "unit": "us", "ours": found["detach"]}
    yield {"name": f"VPC intent with one more interface, {many} in it", "unit": "us", "ours": found["apply_interface_many"]}
    for rules in (1, 100, 10_000):
        for name, told, unit, budget in (
            ("trip", "TCP round trip", "us", "<= 1.4"),
            ("connect", "TCP connect", "us", "<= 1.5"),
            ("rate", "TCP throughput", "B/s", ">= 0.8"),
        ):
            judged = {"budget": budget} if rules == 10_000 else {}
            yield {"name": f"filtered {told}, {rules} rules", "unit": unit, "ours": found[f"{name}_{rules}"], "reference": found[f"raw_{name}_{rules}"], "reference_name": VETH, **judged}
    yield {"name": "rule change to next packet, 10,000 rules, 200 interfaces", "unit": "us", "ours": found["rule_to_packet"]}
