"""Contents of files between real processes: killed in the middle, and while others commit."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from laboratory import PATIENCE, Device, Lab, laboratory

SIZE = 40 << 20

pytestmark = pytest.mark.slow


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "did not come true"
        time.sleep(0.005)


lab = pytest.fixture(laboratory)


@pytest.fixture
def two(lab: Lab) -> Iterator[tuple[Lab, Device, Device]]:
    """A master and a replica."""
    a, b = lab.start("a"), lab.start("b")
    lab.settle()
    return lab, a, b


def partial(device: Device) -> int:
    """How many bytes are there of contents that are not complete."""
    directory = device.path / "files" / "partial"
    return sum(path.stat().st_size for path in files_in(directory))


def files_in(directory: Path) -> list[Path]:
    return list(directory.iterdir()) if directory.exists() else []


def complete(device: Device, digest: str) -> bool:
    return (device.path / "files" / digest[:2] / digest[2:]).exists()


def test_a_device_killed_while_it_fetches_goes_on_where_it_was(two: tuple[Lab, Device, Device]) -> None:
    lab, a, b = two
    a.send("add-file", "x", SIZE, "seed")
    wait_until(lambda: partial(b) > 1 << 20)
    b.kill()
    there = partial(b)
    digest = a.receive()["digest"]
    assert not complete(b, digest)
    b = lab.start("b")
    assert b.ask("read-file", "x", 20) == {"digest": digest}
    wait_until(lambda: b.ask("files")["missing"] == 0)
    assert b.ask("files")["received"] == SIZE - there
    lab.settle()


def test_a_device_killed_while_it_sends_goes_on_sending_when_it_is_back(two: tuple[Lab, Device, Device]) -> None:
    lab, a, b = two
    a.send("add-file", "x", SIZE, "seed")
    wait_until(lambda: partial(b) > 1 << 20)
    a.kill()
    wait_until(lambda: b.ask("documents") == ["x"])
    error = b.run_and_fail("read-file", "x", 0.2)
    assert error.startswith("NoSuchFile")
    assert "no other device can be reached" in error
    there = b.ask("files")["received"]
    a = lab.start("a")
    wait_until(lambda: b.ask("files")["missing"] == 0)
    assert b.ask("files")["received"] == SIZE
    assert 0 < there < SIZE
    lab.settle()


def test_a_writer_killed_before_its_contents_have_travelled_sends_them_when_it_is_back(
    two: tuple[Lab, Device, Device],
) -> None:
    """The commit was acknowledged: its contents are on the writer's disk, and nowhere else so far."""
    lab, a, b = two
    b.send("add-file", "x", SIZE, "seed")
    wait_until(lambda: partial(a) > 0)
    b.kill()
    assert a.ask("documents") == ["x"]
    assert a.run_and_fail("read-file", "x", 0.2).startswith("NoSuchFile")
    assert a.ask("write", "goes on")
    assert a.ask("verify") == []
    b = lab.start("b")
    digest = b.ask("read-file", "x", 20)["digest"]
    assert a.ask("read-file", "x", 20) == {"digest": digest}
    lab.settle()


def test_commits_get_there_while_a_file_travels(two: tuple[Lab, Device, Device]) -> None:
    """They overtake it: the replica has all of them before it has the file. How quickly is measured, not tested."""
    lab, a, b = two
    a.ask("add-file", "x", 4 * SIZE, "seed")
    for _ in range(20):
        a.ask("write", "meanwhile")
        b.ask("await", a.ask("status")["number"])
    wait_until(lambda: b.ask("files")["missing"] == 0)
    lab.settle()


def test_of_three_devices_two_get_the_contents_from_whoever_is_left(lab: Lab) -> None:
    a, b, c = lab.start("a", 3), lab.start("b", 3), lab.start("c", 3)
    lab.settle()
    c.send("add-file", "x", SIZE, "seed")
    wait_until(lambda: partial(b) > 0 or b.ask("documents") == ["x"])
    a.kill()
    digest = c.receive()["digest"]
    assert b.ask("read-file", "x", 20) == {"digest": digest}
    c.kill()
    a = lab.start("a", 3)
    assert a.ask("read-file", "x", 20) == {"digest": digest}
