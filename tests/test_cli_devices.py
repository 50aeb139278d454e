"""The commands about devices, as a person or a service manager uses them: real processes, on loopback."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from atop import File, Item, Store
from atop.cli.run import unit_of
from atop.cli.session import Session

PATIENCE = 60


class Shell:
    """Runs `atop` on stores of this test, one for each device."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.running: list[subprocess.Popen[str]] = []

    def settle(self, device: str) -> Path:
        """A device that looks for others at the addresses it is given, and nowhere else."""
        local = self.directory / device / "local"
        local.mkdir(parents=True, exist_ok=True)
        if not (local / "settings.toml").exists():
            (local / "settings.toml").write_text(f'name = "{device}"\nport = 0\nmulticast = false\n')
        return local.parent

    def start(self, device: str, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "atop.cli", "--store", str(self.settle(device)), *arguments]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.running.append(process)
        return process

    def run(self, device: str, *arguments: str, code: int = 0) -> str:
        process = self.start(device, *arguments)
        out, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == code, out + err
        return out + (err if code else "")

    def close(self) -> None:
        for process in self.running:
            if process.poll() is None:
                process.kill()
            process.communicate()


@pytest.fixture
def shell(store_path: Path) -> Iterator[Shell]:
    shell = Shell(store_path.parent)
    yield shell
    shell.close()


def lines(process: subprocess.Popen[str]) -> Iterator[Any]:
    assert process.stdout is not None
    for line in process.stdout:
        yield json.loads(line)


def wait_for(process: subprocess.Popen[str], key: str) -> Any:
    for line in lines(process):
        if key in line:
            return line
    assert process.stderr is not None
    raise AssertionError(process.stderr.read())


@pytest.mark.slow
def test_two_commands_make_two_devices_that_stay_equal(shell: Shell) -> None:
    class Note(Item):
        text: str = ""
        scan: File | None = None

    with Store(shell.settle("laptop"), create=True) as store, store.transaction():
        for number in range(200):
            Note(store, text="before", scan=store.file(f"scan {number}".encode() * 1_000, name=f"{number}.jpg"))
    laptop = shell.start("laptop", "--json", "run", "--invite", "--yes")
    invited = wait_for(laptop, "code")
    joined = json.loads(
        shell.run(
            "desktop", "--json", "join", invited["code"], "--yes", "--address", f"127.0.0.1:{invited['port']}"
        ).splitlines()[0]
    )
    assert (joined["device"], joined["files_missing"]) == ("desktop", 0)
    assert len([path for path in (shell.directory / "desktop" / "files").rglob("*") if path.is_file()]) == 200
    assert wait_for(laptop, "paired")["paired"]["name"] == "desktop"
    shown = [json.loads(line) for line in shell.run("desktop", "--json", "devices").splitlines()]
    assert [(one["name"], one["state"]) for one in shown] == [("desktop", "this device"), ("laptop", "in sync")]

    beside = json.loads(shell.run("laptop", "--json", "status"))
    assert (beside["role"], beside["device"]["name"]) == ("master", "laptop")
    assert shell.run("laptop", "status").splitlines()[1] == f"device  laptop ({beside['device']['device_id'][:7]})"

    desktop = shell.start("desktop", "--json", "status", "--watch")
    in_sync = next(line for line in lines(desktop) if line["device"]["in_sync"] and line["role"] == "replica")
    assert {pool["name"] for pool in in_sync["pools"]} == {"devices"}
    desktop.send_signal(signal.SIGINT)
    laptop.send_signal(signal.SIGTERM)
    for process in (desktop, laptop):
        process.communicate(timeout=PATIENCE)
        assert process.returncode == 0
    heads = [json.loads(shell.run(device, "--json", "status")) for device in ("laptop", "desktop")]
    assert len({(head["commit"], head["chain"]) for head in heads}) == 1
    assert {head["role"] for head in heads} == {"stopped"}

    assert (
        json.loads(shell.run("laptop", "--json", "devices", "rename", "desktop", "workstation"))["name"]
        == "workstation"
    )
    shell.run("laptop", "devices", "remove", "workstation", "--yes")
    assert json.loads(shell.run("laptop", "--json", "status"))["role"] == "master"


class Terminal:
    """A command with a person at its terminal."""

    def __init__(self, shell: Shell, device: str, *arguments: str) -> None:
        self.keyboard, inside = pty.openpty()
        command = [sys.executable, "-m", "atop.cli", "--store", str(shell.settle(device)), *arguments]
        self.process = subprocess.Popen(command, stdin=inside, stdout=inside, stderr=inside, text=True)
        shell.running.append(self.process)
        os.close(inside)
        self.shown = ""

    def until(self, pattern: str) -> str:
        """What the pattern matches, once it is shown."""
        deadline = time.monotonic() + PATIENCE
        while (found := re.search(pattern, self.shown)) is None:
            assert time.monotonic() < deadline, self.shown
            if select.select([self.keyboard], [], [], 0.2)[0]:
                try:
                    self.shown += os.read(self.keyboard, 4096).decode()
                except OSError:  # it has ended
                    assert re.search(pattern, self.shown), self.shown
        return found[0]

    def type(self, text: str) -> None:
        os.write(self.keyboard, text.encode() + b"\n")

    def end(self, code: int) -> None:
        assert self.process.wait(PATIENCE) == code, self.shown
        os.close(self.keyboard)


@pytest.mark.slow
def test_people_compare_digits_at_two_terminals(shell: Shell) -> None:
    shell.run("laptop", "init")
    laptop = Terminal(shell, "laptop", "run", "--invite")
    code, port = laptop.until(r"\d+-[a-z]+-[a-z]+"), laptop.until(r"--address \S+:\d+").rpartition(":")[2]
    join = ("join", code, "--address", f"127.0.0.1:{port}")
    desktop = Terminal(shell, "desktop", *join)
    digits = desktop.until(r"\d{3} \d{3}")
    assert laptop.until(r"\d{3} \d{3}") == digits
    desktop.type("what?")
    desktop.until(r"(?s)Equal\?.*Equal\?")  # asked again
    desktop.type("y")
    laptop.type("y")
    desktop.until("keep it up to date")
    laptop.until("has joined")
    desktop.end(0)
    laptop.process.send_signal(signal.SIGTERM)
    laptop.end(0)


@pytest.mark.slow
def test_a_question_that_nobody_answers_keeps_no_command_from_ending(shell: Shell) -> None:
    shell.run("laptop", "init")
    laptop = Terminal(shell, "laptop", "run", "--invite")
    code, port = laptop.until(r"\d+-[a-z]+-[a-z]+"), laptop.until(r"--address \S+:\d+").rpartition(":")[2]
    desktop = Terminal(shell, "desktop", "join", code, "--address", f"127.0.0.1:{port}")
    for terminal in (laptop, desktop):
        terminal.until(r"Equal\?")
    laptop.process.send_signal(signal.SIGTERM)
    laptop.end(0)
    desktop.until("ended the connection|stopped on the other")
    desktop.end(1)


def test_a_store_that_is_not_there_is_not_made_by_asking_about_its_devices(shell: Shell) -> None:
    for command in (["devices"], ["invite", "--yes"], ["status", "--watch"]):
        assert "there is no store" in shell.run("nowhere", *command, code=1)
    assert not (shell.directory / "nowhere" / "data").exists()


def test_where_nobody_can_be_asked_it_says_what_to_add(shell: Shell) -> None:
    shell.run("laptop", "init")
    assert "add --yes" in shell.run("laptop", "--json", "invite", code=2)
    assert "add --yes" in shell.run("desktop", "--json", "join", "7-guitar-orbit", code=2)
    assert "add --yes" in shell.run("laptop", "--json", "devices", "remove", "x", code=2)


def test_a_lack_of_network_is_told_once(shell: Shell) -> None:
    local = shell.directory / "laptop" / "local"
    local.mkdir(parents=True)
    (local / "settings.toml").write_text('name = "laptop"\nport = 0\ninterfaces = ["nothing-there"]\n')
    laptop = shell.start("laptop", "run", "--invite", "--yes")
    assert laptop.stdout is not None
    told = next(line for line in laptop.stdout if "no network interface can be used" in line)
    laptop.send_signal(signal.SIGTERM)
    out, err = laptop.communicate(timeout=PATIENCE)
    assert (told + out + err).count("no network interface can be used") == 1


def test_a_mistyped_code_is_told_before_anything_is_sent(shell: Shell) -> None:
    out = shell.run("desktop", "join", "7-guitarr-orbit", "--yes", code=1)
    assert "first word" in out
    assert "guitarr" not in out


def test_the_unit_names_the_store_and_the_program(tmp_path: Path) -> None:
    session = Session()
    session.store_option = str(tmp_path / "100% mine")
    unit = unit_of(session, ["--port", "5000"])
    assert f"ExecStart={sys.executable} -m atop.cli --store " in unit
    assert "100%% mine' run --port 5000\n" in unit
    assert os.linesep + "WantedBy=default.target" in unit


@pytest.mark.slow
def test_the_browser_beside_a_device_is_of_that_device(shell: Shell) -> None:
    process = shell.start("laptop", "--json", "run", "--browse")
    url = wait_for(process, "url")["url"]
    jar = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    with jar.open(url, timeout=PATIENCE) as page:
        assert page.status == 200
    with jar.open(urllib.parse.urljoin(url, "/devices"), timeout=PATIENCE) as page:
        assert "laptop" in page.read().decode()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
