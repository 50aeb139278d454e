"""The manager in real processes with real links: killed, stopped, and brought back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from laboratory import PROGRAM, Lab, laboratory

pytestmark = pytest.mark.slow
lab = pytest.fixture(laboratory)


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
