"""scripts/torture, for a short while: the long run is for people and nights."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parent.parent / "scripts" / "torturing" / "run.py"


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_short_torture_loses_nothing() -> None:
    outcome = subprocess.run(
        [sys.executable, str(PROGRAM), "--devices", "3", "--seconds", "5", "--seed", "5"],
        capture_output=True,
        text=True,
        timeout=390,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert "all is well" in outcome.stdout
