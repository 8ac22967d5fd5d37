"""What all tests share: where the checkout is. Everything else belongs to the room that it tests.

Nothing is mocked here. A test that needs a server starts it on a free port of 127.0.0.1 and ends it itself.
"""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest

# Tests run side by side: threads of OpenMP that spin while they wait for a core make each other ten times as slow.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # of those who ask for more than one
# Ray's workers would wait for all other tests, as they are nicer by 15.
os.environ.setdefault("RAY_worker_niceness", "0")
# Else each Ray begins with a process for every logical processor that a test gives it, needed or not.
os.environ.setdefault("RAY_prestart_worker_first_driver", "0")

# Nothing is timed in a test: a busy machine is no failure. A failing example is printed so that it can be run again.
hypothesis.settings.register_profile(
    "project", deadline=None, print_blob=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("project")

pytest_plugins = ["tests.kubernetes"]


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The root folder of the project."""
    return Path(__file__).resolve().parents[1]
