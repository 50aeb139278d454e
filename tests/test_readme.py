"""What the README says to type works, word for word."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")

# Blocks marked so install software, or run these tests; a person runs them by hand.
BY_HAND = "<!-- by hand -->\n"


def blocks(language: str) -> list[str]:
    """The code blocks in a language that tests can run, in order."""
    found = re.finditer(rf"(?P<mark>{BY_HAND})?```{language}\n(?P<code>.*?)```", README, re.DOTALL)
    return [match["code"] for match in found if not match["mark"]]


def test_the_programmers_tour_runs(tmp_path: Path) -> None:
    tour = "\n".join(blocks("python"))
    assert "store.undo" in tour
    outcome = subprocess.run(
        [sys.executable, "-c", tour], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert outcome.returncode == 0, outcome.stderr
    assert "Charles Babbage of Analytical Engines" in outcome.stdout


@pytest.mark.slow
def test_the_persons_tour_runs(tmp_path: Path) -> None:
    tour = "".join(blocks("sh"))
    assert "atop undo" in tour
    subprocess.run([sys.executable, str(ROOT / "scripts" / "sample_data.py"), str(tmp_path)], check=True, timeout=60)
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "ATOP_STORE": str(tmp_path / "store"),
    }
    outcome = subprocess.run(
        ["bash", "-e", "-u", "-c", tour],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stderr
    assert (tmp_path / "everyone.vcf").stat().st_size > 0


@pytest.mark.parametrize("path", re.findall(r"\]\(([^)#:]+)\)", README))
def test_every_page_it_points_to_is_there(path: str) -> None:
    assert (ROOT / path).is_file()
