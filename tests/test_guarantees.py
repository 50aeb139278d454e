"""Every sentence of docs/guarantees.md names tests, and those are there."""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "guarantees.md"


def rows() -> list[str]:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.startswith("| ") and not line.startswith("| what holds")]


def test_every_guarantee_names_a_test_that_is_there() -> None:
    there = {
        name for path in HERE.glob("test_*.py") for name in re.findall(r"^ *def (test_\w+)", path.read_text(), re.M)
    }
    assert rows()
    for row in rows():
        named = re.findall(r"`(test_\w+)`", row)
        assert named, row
        assert [name for name in named if name not in there] == []
