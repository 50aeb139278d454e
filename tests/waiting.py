"""Waiting for a condition: the one way in which tests wait."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE = 60.0
"""Seconds after which a test that waits has failed: long, since machines that run tests are often busy."""


def until(condition: Callable[[], object]) -> None:
    """Return once `condition` holds, which another thread or process brings about."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "what the test waits for did not come"
        time.sleep(0.005)
