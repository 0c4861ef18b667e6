"""The network as code: apply, an empty plan, a change in place, destroy, by Terraform with the unmodified AWS provider.

`./x test-terraform` finds both: TERRAFORM_BIN is the program, TF_MIRROR the provider's file system mirror.
"""
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.harness.engine import Engine  # noqa: E402

MODULE = Path(__file__).resolve().parent / "network"


class Terraform:
    """One working directory with a command line configuration of its own: nothing of the machine's is read."""

    def __init__(self, directory, engine):
        self.directory, self.engine = Path(directory), engine
        shutil.copytree(MODULE, self.directory, dirs_exist_ok=True)
        rc = self.directory / "cli.tfrc"
        rc.write_text(f'provider_installation {{\n  filesystem_mirror {{\n    path = {json.dumps(os.environ["TF_MIRROR"])}\n  }}\n}}\n')
        self.environment = engine.environment() | {"TF_CLI_CONFIG_FILE": str(rc), "TF_IN_AUTOMATION": "1", "CHECKPOINT_DISABLE": "1"}

    def run(self, *arguments, ends=(0,)):
        command = [os.environ["TERRAFORM_BIN"], *arguments]
        done = subprocess.run(command, cwd=self.directory, env=self.environment, text=True, capture_output=True, timeout=600)
        assert done.returncode in ends, f"terraform {' '.join(arguments)}:\n{done.stdout[-6000:]}\n{done.stderr[-6000:]}\n{self.engine.tail()}"
        return done

    def apply(self, **variables):
        return self.run("apply", "-no-color", "-input=false", "-auto-approve", *self._given(variables))

    def changes(self, **variables):
        """Addresses with the actions that a plan would take; empty when nothing is to be done."""
        done = self.run("plan", "-no-color", "-input=false", "-detailed-exitcode", "-out=plan", *self._given(variables), ends=(0, 2))
        plan = json.loads(self.run("show", "-json", "plan").stdout)
        found = {one["address"]: one["change"]["actions"] for one in plan.get("resource_changes", []) if one["change"]["actions"] not in (["no-op"], ["read"])}
        assert bool(found) == (done.returncode == 2), done.stdout
        self.shown = done.stdout
        return found

    @staticmethod
    def _given(variables):
        return [part for name, value in variables.items() for part in ("-var", f"{name}={value}")]


@pytest.fixture
def engine():
    with Engine(os.environ["ISOLARIUM_BINARY"], internet=True) as running:
        yield running


# Proves: NET-5, NET-82, NET-83, NET-85, BT-13, BT-14, BT-16
def test_a_network_is_applied_planned_changed_and_destroyed(engine, tmp_path):
    terraform = Terraform(tmp_path, engine)
    terraform.run("init", "-no-color", "-input=false")
    terraform.apply()
    assert terraform.changes() == {}, f"the second plan is not empty: {terraform.shown}"
    ec2 = engine.client("ec2")
    vpc = json.loads(terraform.run("output", "-json").stdout)["vpc_id"]["value"]
    mine = [{"Name": "vpc-id", "Values": [vpc]}]
    assert len(ec2.describe_subnets(Filters=mine)["Subnets"]) == 3
    tables = ec2.describe_route_tables(Filters=mine)["RouteTables"]
    through = [route for table in tables for route in table["Routes"] if route.get("DestinationPrefixListId")]
    assert [route["GatewayId"][:5] for route in through] == ["vpce-"], "one table has the endpoint's route"
    changed = {"https_port": 8443, "description": "two", "project": "churn2"}
    wanted = terraform.changes(**changed)
    assert wanted and all(actions == ["update"] for actions in wanted.values()), wanted
    terraform.apply(**changed)
    assert terraform.changes(**changed) == {}, f"what was changed in place does not stay: {terraform.shown}"
    assert ec2.describe_vpcs(VpcIds=[vpc])["Vpcs"][0]["VpcId"] == vpc, "in place"
    terraform.run("destroy", "-no-color", "-input=false", "-auto-approve", *terraform._given(changed))
    assert ec2.describe_vpcs()["Vpcs"] == [] and ec2.describe_addresses()["Addresses"] == []
    assert ec2.describe_network_interfaces()["NetworkInterfaces"] == [] and ec2.describe_internet_gateways()["InternetGateways"] == []
