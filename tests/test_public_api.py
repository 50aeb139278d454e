"""What `atop` shows to programs, and who may import whom."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import atop

ROOT = Path(atop.__file__).resolve().parent.parent
# Packages that `pip install atop` does not bring: each belongs to an extra.
EXTRAS = {
    *("click", "rich", "platformdirs", "vobject", "icalendar", "msgspec", "cryptography", "zeroconf", "spake2"),
    *("starlette", "uvicorn", "jinja2", "multipart", "python_multipart", "noise", "hypothesis", "pytest"),
}
# What takes about as long to import as all of Atop, so that a command would no longer seem to answer at once.
SLOW = {"asyncio", "ssl", "sqlite3", "multiprocessing", "email", "http"}
# What only a part of a package may import, and which.
DEVICE_USERS = ("atop/cli", "atop/browser")


def public_names() -> list[str]:
    return list(atop.__all__)


def modules(*packages: str) -> Iterator[Path]:
    for package in packages:
        yield from sorted((ROOT / package).rglob("*.py"))


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """(module, whether it is imported when this one is) for each import in a file, those for type checkers left out."""
    tree = ast.parse(path.read_text("utf-8"))
    for_checkers = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
        for inner in block.body
        for node in ast.walk(inner)
    }
    within = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if id(node) in for_checkers:
            continue
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [node.module]
        for name in names:
            yield name, id(node) not in within


def package_of(module: str) -> str:
    return module.partition(".")[0]


# -- the public surface


def test_the_public_names_are_sorted_and_there() -> None:
    assert public_names() == sorted(set(public_names()))
    assert all(hasattr(atop, name) for name in public_names())


def test_nothing_public_is_left_out() -> None:
    shown = {
        name
        for name, value in vars(atop).items()
        if not name.startswith("_") and not inspect.ismodule(value) and name != "annotations"
    }
    assert shown - set(public_names()) == set()


@pytest.mark.parametrize("name", public_names())
def test_every_public_name_and_its_methods_say_what_they_do(name: str) -> None:
    value = getattr(atop, name)
    assert inspect.getdoc(value), f"{name} has no docstring"
    if not inspect.isclass(value):
        return
    for member, function in inspect.getmembers(value):
        mine = str(getattr(function, "__module__", "")).startswith("atop") or isinstance(function, property)
        if not member.startswith("_") and mine and not issubclass(value, BaseException):
            assert inspect.getdoc(function), f"{name}.{member} has no docstring"


def test_every_error_of_the_package_is_public() -> None:
    from atop import errors

    classes = {n for n, v in vars(errors).items() if inspect.isclass(v) and issubclass(v, Exception)}
    assert classes <= set(public_names())


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        str(path.relative_to(ROOT)) for path in modules("atop") if not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert silent == []


# -- layers


def test_atop_imports_neither_replication_nor_discovery_but_where_a_command_needs_a_device() -> None:
    wrong = []
    for path in modules("atop"):
        where = path.relative_to(ROOT).as_posix()
        for module, at_import in imports(path):
            if package_of(module) in {"replication", "discovery"}:
                allowed = where.startswith(DEVICE_USERS) and package_of(module) == "replication" and not at_import
                if not allowed:
                    wrong.append(f"{where} imports {module}")
    assert wrong == []


def test_discovery_imports_neither_atop_nor_replication() -> None:
    wrong = [
        f"{path.name} imports {module}"
        for path in modules("discovery")
        for module, _ in imports(path)
        if package_of(module) in {"atop", "replication"}
    ]
    assert wrong == []


def test_only_the_engine_of_atop_and_what_it_stands_on_import_berkeley_db() -> None:
    users = {
        path.relative_to(ROOT).as_posix()
        for path in modules("atop")
        for module, _ in imports(path)
        if package_of(module) in {"berkeleydb", "bsddb3"}
    }
    assert users == {"atop/engine.py", "atop/calls.py", "atop/environment.py", "atop/alone.py"}


def test_the_store_knows_nothing_of_what_is_built_on_it() -> None:
    above = ("atop.cli", "atop.browser", "atop.pim", "atop.classic")
    core = [p for p in (ROOT / "atop").glob("*.py") if p.name not in {"__main__.py"}]
    wrong = [
        f"{path.name} imports {module}" for path in core for module, _ in imports(path) if module.startswith(above[:3])
    ]
    assert wrong == []


def test_import_atop_pulls_in_no_extra_and_nothing_slow() -> None:
    program = "import sys, atop; print(*sorted(m.partition('.')[0] for m in sys.modules))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = set(result.stdout.split())
    assert "atop" in loaded
    assert loaded & (EXTRAS | {"replication", "discovery"}) == set()
    assert loaded & SLOW == set()
