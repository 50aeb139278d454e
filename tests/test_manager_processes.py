"""The manager in real processes with real links: killed, stopped, and brought back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PATIENCE = 30.0  # seconds after which a test that waits has failed
PROGRAM = Path(__file__).with_name("replica_process.py")

pytestmark = pytest.mark.slow


class Device:
    """A device in a process."""

    def __init__(self, directory: Path, name: str, size: int, how: str, *others: Device) -> None:
        self.directory, self.name = directory, name
        ports = ["0", *(str(other.port) for other in others)]
        self.process = subprocess.Popen(
            [sys.executable, str(PROGRAM), str(directory / name), name, str(size), how, *ports],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(PROGRAM.parent.parent)},
        )
        self.port: int = self.receive()["port"]

    def send(self, *words: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()

    def receive(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"device {self.name} has ended"
        return json.loads(line)

    def ask(self, *words: object) -> Any:
        self.send(*words)
        answer = self.receive()
        assert not (isinstance(answer, dict) and "error" in answer), answer
        return answer

    def run_and_fail(self, *words: object) -> str:
        """What it says in answer to a command that fails."""
        self.send(*words)
        return str(self.receive()["error"])

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()


class Lab:
    """Devices by name, and where their stores are."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.devices: dict[str, Device] = {}
        self.all: list[Device] = []

    def start(self, name: str, size: int = 2) -> Device:
        others = [device for key, device in self.devices.items() if key != name and device.process.poll() is None]
        new = not (self.directory / name / "data").exists()
        how = "open" if not new else "join" if others else "found"
        device = self.devices[name] = Device(self.directory, name, 1 if how == "found" else size, how, *others)
        self.all.append(device)
        for other in others:
            other.ask("members", size)
        return device

    def settle(self) -> None:
        """Wait until all living devices have the same history, and check that it is sound."""
        living = [device for device in self.devices.values() if device.process.poll() is None]
        deadline = time.monotonic() + PATIENCE
        while True:
            states = [device.ask("status") for device in living]
            equal = len({(state["number"], state["chain"]) for state in states}) == 1
            if equal and {state["role"] for state in states} <= {"master", "replica"}:
                break
            assert time.monotonic() < deadline, states
            time.sleep(0.02)
        for device in living:
            assert device.ask("verify") == []
        assert len({json.dumps(device.ask("texts")) for device in living}) == 1


@pytest.fixture
def lab() -> Iterator[Lab]:
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="atop-test-", dir=memory) as name:
        lab = Lab(Path(name))
        yield lab
        for device in lab.all:
            device.end()


def test_a_killed_master_is_replaced_and_comes_back_as_a_replica(lab: Lab) -> None:
    a, b = lab.start("a"), lab.start("b")
    a.ask("writes", 50, "before")
    lab.settle()
    a.kill()
    b.ask("write", "after")
    assert b.ask("status")["role"] == "master"
    a = lab.start("a")
    lab.settle()
    assert a.ask("texts") == sorted(["before"] * 50 + ["after"])


def test_writes_on_a_replica_whose_master_is_killed_are_all_there_once(lab: Lab) -> None:
    a, b = lab.start("a"), lab.start("b")
    lab.settle()
    b.send("writes", 600, "x")
    while a.ask("status")["number"] < 100:
        time.sleep(0.002)
    a.kill()
    assert "error" not in b.receive()
    assert b.ask("texts") == ["x"] * 600
    lab.start("a")
    lab.settle()


def test_a_killed_replica_catches_up(lab: Lab) -> None:
    a, b = lab.start("a"), lab.start("b")
    lab.settle()
    a.send("writes", 800, "x")
    while b.ask("status")["number"] < 100:
        time.sleep(0.002)
    b.kill()
    assert "error" not in a.receive()
    lab.start("b")
    lab.settle()


def test_both_killed_and_started_again_elect_a_master(lab: Lab) -> None:
    a, b = lab.start("a"), lab.start("b")
    a.ask("writes", 50, "x")
    lab.settle()
    a.kill()
    b.kill()
    b = lab.start("b")
    a = lab.start("a")
    lab.settle()
    a.ask("write", "from-a")
    b.ask("write", "from-b")
    lab.settle()
    assert a.ask("texts") == sorted(["from-a", "from-b", *["x"] * 50])


def test_a_stopped_replica_does_not_hold_up_the_master_and_catches_up(lab: Lab) -> None:
    a, b = lab.start("a"), lab.start("b")
    lab.settle()
    b.process.send_signal(signal.SIGSTOP)
    a.ask("writes", 500, "x")
    b.process.send_signal(signal.SIGCONT)
    lab.settle()


def test_a_stopped_master_is_replaced_and_follows_when_it_continues(lab: Lab) -> None:
    a, b = lab.start("a"), lab.start("b")
    a.ask("writes", 20, "x")
    lab.settle()
    a.process.send_signal(signal.SIGSTOP)
    b.ask("write", "while-stopped")
    assert b.ask("status")["role"] == "master"
    a.process.send_signal(signal.SIGCONT)
    lab.settle()
    assert "while-stopped" in a.ask("texts")


def test_a_device_killed_while_it_is_copied_to_gets_its_copy_the_next_time(lab: Lab) -> None:
    a = lab.start("a")
    a.ask("writes", 3000, "y" * 1000)
    ports = ["0", str(a.port)]
    joiner = subprocess.Popen(
        [sys.executable, str(PROGRAM), str(lab.directory / "b"), "b", "2", "join", *ports],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(PROGRAM.parent.parent)},
    )
    while not any((lab.directory / "b" / "data").glob("*.db")):
        time.sleep(0.0005)
    joiner.kill()
    joiner.wait()
    lab.start("b")
    lab.settle()


def test_of_three_devices_any_may_be_killed_while_all_write(lab: Lab) -> None:
    for name in "abc":
        lab.start(name, 3)
    lab.settle()
    for victim in "abc":
        rest = [device for name, device in lab.devices.items() if name != victim]
        for device in rest:
            device.send("writes", 100, f"without-{victim}")
        lab.devices[victim].kill()
        for device in rest:
            assert "error" not in device.receive()
        lab.start(victim, 3)
        lab.settle()
    assert len(lab.devices["a"].ask("texts")) == 600
