"""Whoever of the engine is killed: hosts of the operator's end, and their places are given back."""
import os
import signal

import pytest

from tests.conformance.test_vpc_hosts import Hosts
from tests.harness.engine import Engine
from tests.harness.jobs import eventually


@pytest.mark.parametrize("half", ["serve", "node"])
def test_hosts_end_with_the_engine_and_leave_nothing(half):
    """
    Proves: PL-5, NET-72
    """
    with Engine(os.environ["ISOLARIUM_BINARY"]) as engine:
        hosts = Hosts(engine, engine.client("ec2"))
        free = hosts.free()
        host = hosts.start("sh", "-c", "echo begun; sleep 300")
        assert hosts.left() and hosts.free() == free - 1
        os.kill(engine.pids()[half], signal.SIGKILL)
        _, said = host.communicate(timeout=60)
        assert host.returncode == 1 and "the engine went away" in said
        if half == "node":
            engine.process.wait(60)
            engine.start()

        def free_again():
            try:
                return not hosts.left() and hosts.free() == free
            except OSError:
                return False
            except Exception as error:  # The serving half comes back meanwhile.
                if "Could not connect" in str(error) or "Connection" in type(error).__name__:
                    return False
                raise

        eventually(free_again, timeout=60)
        assert hosts.run("echo", "again").stdout == "again\n", "control: the VPC takes hosts again"
