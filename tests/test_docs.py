"""The documentation is true: its programs run, and it lists what there is."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import atop

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


def program(page: str) -> str:
    return "\n".join(re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL))


def test_the_guide_runs(tmp_path: Path) -> None:
    outcome = subprocess.run(
        [sys.executable, "-c", program("guide.md")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stderr
    assert "at 50%" in outcome.stdout


def test_every_error_is_in_the_guide() -> None:
    text = (DOCS / "guide.md").read_text(encoding="utf-8")
    errors = [n for n in atop.__all__ if isinstance(v := getattr(atop, n), type) and issubclass(v, Exception)]
    assert [name for name in errors if f"`{name}`" not in text] == []


def listed() -> list[str]:
    """The modules of the store in the order of the architecture page, topmost first."""
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    return re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)


def test_every_module_of_the_store_is_in_the_architecture() -> None:
    there = {path.stem for path in (ROOT / "atop").glob("*.py")} - {"__init__"}
    assert set(listed()) == there


# Imports that go upwards: what they say is needed only when the function that holds them is called.
LATE = {("backup", "store")}


@pytest.mark.parametrize("module", listed())
def test_imports_go_downwards(module: str) -> None:
    order = listed()
    tree = ast.parse((ROOT / "atop" / f"{module}.py").read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = [ast.Pass()]
    imported = {
        name.split(".")[1]
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("atop")
        for name in ([node.module] if node.module != "atop" else [f"atop.{a.name}" for a in node.names])
        if name and "." in name
    }
    upwards = {name for name in imported if name in order and order.index(name) < order.index(module)}
    assert {name for name in upwards if (module, name) not in LATE} == set()
