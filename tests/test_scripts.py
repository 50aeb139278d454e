"""The two commands of the README: what they do where something is missing, and the demonstration itself."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parent.parent / "scripts"

# What the scripts use of a system besides Python: without it they could not even say what is missing.
BARE_SYSTEM = ("bash", "cat", "cksum", "dirname", "env", "grep", "id", "mkdir", "sed", "tail", "uname")


@pytest.fixture
def bare_system(tmp_path: Path) -> dict[str, str]:
    """An environment whose programs are the bare ones, and whose virtual environment would be made elsewhere."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in BARE_SYSTEM:
        found = shutil.which(name)
        assert found is not None
        (programs / name).symlink_to(found)
    return {"PATH": str(programs), "HOME": str(tmp_path), "ATOP_VENV": str(tmp_path / "venv")}


def program(environment: dict[str, str], name: str, script: str) -> None:
    """Add a program to the bare system."""
    path = Path(environment["PATH"]) / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def run(script: str, environment: dict[str, str]) -> tuple[int, str, str]:
    """The exit code, output and errors of a script in this environment."""
    outcome = subprocess.run(
        [SCRIPTS / script], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    return outcome.returncode, outcome.stdout, outcome.stderr


@pytest.mark.parametrize("script", ["demo", "test", "check"])
def test_what_is_missing_is_said_where_nothing_can_be_installed(script: str, bare_system: dict[str, str]) -> None:
    code, out, err = run(script, bare_system)
    assert (code, out) == (1, "")
    assert "Python 3.11 or later" in err
    assert "a C compiler" in err
    assert "Please type this" in err


def test_on_debian_it_says_which_packages_to_install_and_installs_none_if_told_so(
    bare_system: dict[str, str], tmp_path: Path
) -> None:
    program(bare_system, "apt-get", f"echo called >> {shlex.quote(str(tmp_path / 'apt'))}; exit 1")
    code, _, err = run("test", {**bare_system, "ATOP_SETUP_SYSTEM": "no"})
    assert code == 1
    assert "apt-get install python3 python3-venv python3-dev gcc libc6-dev" in err
    assert "apt-get install chromium\n" in err  # of its own: there is no such package everywhere
    assert not (tmp_path / "apt").exists()


def test_an_old_python_is_named_with_its_version(bare_system: dict[str, str]) -> None:
    program(bare_system, "python3", '[ "$1" = -V ] && echo Python 3.9.2 || exit 1')
    code, _, err = run("test", bare_system)
    assert code == 1
    assert "Python 3.9.2: too old" in err


def test_a_python_that_is_asked_for_and_does_not_start_is_named(bare_system: dict[str, str]) -> None:
    code, _, err = run("test", {**bare_system, "PYTHON": "/nowhere/python"})
    assert code == 1
    assert "PYTHON=/nowhere/python" in err


def demonstrate(directory: Path) -> subprocess.CompletedProcess[str]:
    """The demonstration, without the set-up before it."""
    command = [sys.executable, str(SCRIPTS / "demo.py"), str(directory)]
    return subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)


@pytest.mark.slow
def test_the_demonstration_runs_and_so_does_what_it_proposes(tmp_path: Path) -> None:
    directory = tmp_path / "a demo"
    (directory / "store").mkdir(parents=True)
    (directory / "store" / "of an earlier demonstration").touch()
    (directory / "made-by-atop-demo").touch()
    outcome = demonstrate(directory)
    assert outcome.returncode == 0, outcome.stderr
    assert "the same history, to the byte" in outcome.stdout
    assert "no problems found" in outcome.stdout
    proposed = outcome.stdout.partition("yours to play with:")[2].partition("with your own data")[0]
    lines = [line for line in proposed.splitlines() if line.startswith("    ")]
    script = "\n".join(["shopt -s expand_aliases", *lines])
    code = subprocess.run(
        ["bash", "-e", "-c", script], cwd=tmp_path, stdin=subprocess.DEVNULL, timeout=60, check=False
    ).returncode
    assert code == 0
    assert (tmp_path / "everyone.csv").is_file()


def test_the_demonstration_leaves_a_directory_of_others_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.odt").write_text("years of work")
    outcome = demonstrate(tmp_path)
    assert outcome.returncode == 1
    assert "is not empty" in outcome.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.odt"]


def test_without_a_browser_it_says_what_to_type_and_goes_on(bare_system: dict[str, str], tmp_path: Path) -> None:
    program(bare_system, "apt-get", f"echo called >> {shlex.quote(str(tmp_path / 'apt'))}; exit 1")
    script = f". {shlex.quote(str(SCRIPTS / 'setup.sh'))}; ensure_chromium; echo went on"
    environment = {**bare_system, "ATOP_SETUP_SYSTEM": "no"}
    outcome = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert outcome.stdout == "went on\n"
    assert "NOT tested" in outcome.stderr
    assert "apt-get install chromium" in outcome.stderr
    assert not (tmp_path / "apt").exists()
