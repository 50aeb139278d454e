"""Devices in real processes, broken on purpose: their wires, their disks, their clocks, and the devices themselves.

Whatever was acknowledged is on every device in the end, and all devices are equal, table by table (`Lab.settle`).
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

import pytest
from laboratory import Lab, Proxy, laboratory
from small_disk import SmallDisk, small_disk
from waiting import until

pytestmark = pytest.mark.slow
lab = pytest.fixture(laboratory)
disk = pytest.fixture(small_disk)


def stall(wire: Proxy) -> None:
    """Pull the wire out long enough for both ends to notice, and put it in again."""
    wire.stall()
    threading.Timer(4.0, wire.resume).start()


def cut(wire: Proxy) -> None:
    wire.cut()


def break_off(wire: Proxy) -> None:
    wire.break_off()
    threading.Timer(1.0, wire.resume).start()


each_trouble = pytest.mark.parametrize("trouble", [stall, cut, break_off], ids=["stall", "cut", "break-off"])


@each_trouble
def test_a_wire_that_fails_while_both_commit(lab: Lab, trouble: Callable[[Proxy], None]) -> None:
    a, b = lab.start("a"), lab.start("b")
    lab.settle()
    a.send("writes", 300, "from-a")
    b.send("writes", 300, "from-b")
    wire = lab.wires[frozenset("ab")]
    passed = wire.passed
    until(lambda: wire.passed > passed + 50_000)
    trouble(wire)
    assert "error" not in a.receive()
    assert "error" not in b.receive()
    lab.settle()
    assert a.ask("texts") == ["from-a"] * 300 + ["from-b"] * 300


@each_trouble
def test_a_wire_that_fails_while_a_device_is_copied_to(lab: Lab, trouble: Callable[[Proxy], None]) -> None:
    a = lab.start("a", DURABILITY="buffered")
    a.ask("fill", 120, 100_000)
    b = lab.start("b", wait=False)
    wire = lab.wires[frozenset("ab")]
    until(lambda: wire.passed > 3_000_000)
    trouble(wire)
    b.receive()
    lab.settle()
    assert len(b.ask("texts")) == 120


def test_wires_that_fail_while_devices_elect(lab: Lab) -> None:
    a, b, c = (lab.start(name, 3) for name in "abc")
    a.ask("writes", 20, "x")
    lab.settle()
    between = lab.wires[frozenset("bc")]
    for trouble in (cut, break_off):
        between.stall()  # so that the election has begun, and not ended
        a.kill()
        until(lambda: b.ask("status")["reachable"] < 2)
        between.resume()
        trouble(between)
        b.ask("write", "from-b")
        c.ask("write", "from-c")
        a = lab.start("a", 3)
        lab.settle()
    assert a.ask("texts") == sorted(["x"] * 20 + ["from-b", "from-c"] * 2)


def test_a_device_that_was_off_for_ten_thousand_commits(lab: Lab) -> None:
    a, b = lab.start("a", DURABILITY="buffered"), lab.start("b")
    lab.settle()
    b.leave()
    a.ask("writes", 10_000, "x")
    lab.start("b")
    lab.settle()


def test_a_device_whose_log_was_removed_meanwhile_gets_a_copy(lab: Lab) -> None:
    a, b = lab.start("a"), lab.start("b")
    a.ask("writes", 20, "before")
    lab.settle()
    b.kill()
    a.leave()  # Berkeley DB keeps all of the log for half a minute after a copy; what is opened anew does not know
    a = lab.start("a", DURABILITY="buffered", LOG_FILES="1")
    a.ask("fill", 600, 100_000)
    assert not (a.path / "data" / "log.0000000001").exists()
    b = lab.start("b")
    lab.settle()
    b.ask("write", "after")
    lab.settle()


@pytest.mark.parametrize("killed", [False, True], ids=["it-stays", "it-is-killed"])
def test_a_replica_whose_disk_is_full_holds_up_nobody_and_catches_up(disk: SmallDisk, lab: Lab, killed: bool) -> None:
    a = lab.start("a")
    lab.places["b"] = disk.path / "b"
    b = lab.start("b")
    a.ask("writes", 20, "before")
    lab.settle()
    disk.fill()
    a.ask("writes", 50, "y" * 20_000)
    assert len(a.ask("texts")) == 70
    if killed:
        b.kill()
    disk.free()
    if killed:
        b = lab.start("b")
    lab.settle()
    assert len(b.ask("texts")) == 70


def test_a_master_whose_disk_is_full_says_so_and_goes_on_when_there_is_room(disk: SmallDisk, lab: Lab) -> None:
    lab.places["a"] = disk.path / "a"
    a, b = lab.start("a"), lab.start("b")
    a.ask("writes", 20, "before")
    lab.settle()
    disk.fill()
    b.send("write", "refused")
    assert "full" in str(b.receive()).lower()
    disk.free()
    b.ask("write", "after")
    lab.settle()
    assert a.ask("texts") == ["after", *["before"] * 20]


def test_clocks_that_are_hours_apart(lab: Lab) -> None:
    a, b = lab.start("a", HOURS_AHEAD="5"), lab.start("b", HOURS_AHEAD="-7")
    for device in (a, b, a, b):
        device.ask("write", f"from-{device.name}")
    lab.settle()
    wire = lab.wires[frozenset("ab")]
    wire.break_off()
    until(lambda: a.ask("status")["links"] == b.ask("status")["links"] == 0)
    a.ask("writes", 5, "a-apart")
    b.ask("writes", 3, "b-apart")
    wire.resume()
    lab.settle()
    texts = ["a-apart"] * 5 + ["b-apart"] * 3 + ["from-a"] * 2 + ["from-b"] * 2
    assert a.ask("texts") == texts
    a.kill()
    b.ask("write", "alone")
    lab.start("a", HOURS_AHEAD="-5")
    lab.settle()


def test_of_five_devices_one_is_always_away(lab: Lab) -> None:
    chance = random.Random(5)
    devices = {name: lab.start(name, 5) for name in "abcde"}
    lab.settle()
    written = 0
    for victim in "acebd":
        if chance.random() < 0.5:
            devices[victim].kill()
        else:
            devices[victim].leave()
        for name in devices.keys() - {victim}:
            devices[name].send("writes", 20, f"while-{victim}-is-away")
        for name in devices.keys() - {victim}:
            assert "error" not in devices[name].receive()
            written += 20
        devices[victim] = lab.start(victim, 5)
    lab.settle()
    assert len(devices["a"].ask("texts")) == written


def test_two_devices_with_a_broken_wire_between_them_work_through_a_third(lab: Lab) -> None:
    a, b = lab.start("a", 3), lab.start("b", 3)
    a.ask("writes", 20, "before")
    c = lab.start("c", 3, to="b")
    until(lambda: all(device.ask("status")["reachable"] == 2 for device in (a, b, c)))
    assert (a.ask("status")["links"], b.ask("status")["links"], c.ask("status")["links"]) == (1, 2, 1)
    c.ask("writes", 50, "from-c")
    a.ask("writes", 50, "from-a")
    lab.settle()
    c.send("writes", 200, "on-the-way")
    a.ask("found", lab.wire("a", "c").port)  # from here on they reach each other
    assert "error" not in c.receive()
    until(lambda: a.ask("status")["links"] == 2)
    lab.wires[frozenset("ac")].break_off()
    c.ask("writes", 50, "again")
    lab.settle()
    assert len(a.ask("texts")) == 20 + 50 + 50 + 200 + 50
