"""One engine for the authorization suites."""
import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.harness.engine import Engine  # noqa: E402


@pytest.fixture(scope="session")
def engine():
    with Engine(os.environ["ISOLARIUM_BINARY"], internet=False) as running:
        yield running
