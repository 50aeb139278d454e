"""A device that another process owns: the same interface from beside it, and its part taken when that one is gone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from devices import CACHE, Home, Note, equal, member_names, texts
from waiting import PATIENCE, until

from atop import Store, StoreFull
from replication import Device, NoSuchDevice, NotRunning, PairingFailed
from replication.group import Group

PROGRAM = Path(__file__).with_name("device_process.py")


class Owner:
    """A process that has the device open."""

    def __init__(self, path: Path, name: str) -> None:
        settings = json.dumps({"multicast": False, "port": 0, "cache_size": CACHE})
        self.process = subprocess.Popen(
            [sys.executable, str(PROGRAM), str(path), name, settings],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(PROGRAM.parent.parent)},
        )

    def ask(self, *words: str) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(" ".join(words) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        assert not (isinstance(answer, dict) and "error" in answer), answer
        return answer

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


@pytest.fixture
def home(store_path: Path) -> Iterator[Home]:
    home = Home(store_path.parent)
    yield home
    home.end()


@pytest.fixture
def owner(home: Home) -> Iterator[Owner]:
    owner = Owner(home.directory / "laptop", "laptop")
    owner.ask("open")
    yield owner
    owner.end()


def test_beside_a_running_device_everything_can_be_asked(home: Home, owner: Owner) -> None:
    a = home.open("laptop")
    assert a.attached
    assert (a.name, a.role, a.port, a.peers) == ("laptop", "master", None, ())
    invitation = a.invite()
    b = home.join("desktop", a, invitation.code)
    assert invitation.wait(PATIENCE).other_name == "desktop"
    Note(a.store, text="beside")
    until(lambda: texts(b.store) == ["beside"])
    until(lambda: a.status().in_sync and b.status().in_sync)
    assert a.status().summary == "in sync"
    a.rename("notebook")
    assert a.name == "notebook"
    with pytest.raises(NoSuchDevice):
        a.remove("nobody")
    b.take_over()
    until(lambda: a.role == "replica")
    a.take_over()
    assert a.role == "master"
    a.remove("desktop")
    until(lambda: b.status().removed)
    assert member_names(a) == ["notebook"]


def test_a_person_beside_a_running_device_compares_the_digits(home: Home, owner: Owner) -> None:
    a = home.open("laptop")
    invitation = a.invite(ask=True)
    seen: list[str | None] = []

    def confirm(comparison: Any) -> bool:
        seen.append(comparison.digits)
        status = invitation.wait(PATIENCE, states=("comparing",))
        seen.append(status.digits)
        invitation.answer(True)
        return True

    home.join("desktop", a, invitation.code, confirm=confirm)
    assert seen[0] == seen[1] is not None
    with pytest.raises(PairingFailed, match="no device waits"):
        invitation.answer(True)


def test_when_the_owner_is_killed_the_process_beside_it_takes_its_part(home: Home, owner: Owner) -> None:
    a = home.open("laptop")
    b = home.join("desktop", a)
    Note(a.store, text="before")
    until(lambda: equal(a, b))
    owner.process.kill()
    until(lambda: not a.attached and a.status().grouped)
    Note(a.store, text="after")
    home.close("desktop")
    b = home.open("desktop", a)
    until(lambda: texts(b.store) == ["after", "before"] and a.status().in_sync)


def test_beside_a_program_that_runs_no_device_nothing_can_be_asked_of_one(home: Home) -> None:
    path = home.directory / "laptop"
    program = (
        "import sys; from atop import Store\n"
        "store = Store(sys.argv[1]); print('open', flush=True); sys.stdin.read(); store.close()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(PROGRAM.parent.parent)},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "open\n"
        a = home.open("laptop")
        assert (a.role, a.attached) == ("stopped", True)
        assert "runs no device" in a.status().problems[0]
        with pytest.raises(NotRunning):
            a.invite()
        process.stdin.close()
        process.wait(PATIENCE)
        until(lambda: not a.attached and a.role == "master")
        assert a.invite().code
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_device_that_takes_over_and_cannot_begin_says_so_and_tries_again(
    home: Home, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = home.open("laptop")
    home.join("desktop", a)

    def mark_copied(self: Group) -> None:
        raise StoreFull("the disk is full: make room and try again")

    with monkeypatch.context() as patch:
        patch.setattr(Group, "mark_copied", mark_copied)
        owner.end()
        until(lambda: any("disk is full" in problem for problem in a.status().problems))
    until(lambda: not a.status().problems)
    a.rename("notebook")
    assert member_names(a) == ["desktop", "notebook"]


def test_a_plain_store_beside_a_device_writes_through_it(home: Home, owner: Owner) -> None:
    b = home.join("desktop", home.open("laptop"))
    home.close("laptop")
    with Store(home.directory / "laptop", cache_size=CACHE) as store:
        Note(store, text="by another program")
        until(lambda: texts(b.store) == ["by another program"])


def test_a_device_is_opened_once_in_a_process(home: Home) -> None:
    home.open("laptop")
    with pytest.raises(Exception, match="this process"):
        Device.open(home.directory / "laptop", multicast=False)


def test_a_copy_that_was_cut_off_by_a_kill_is_taken_up_again(home: Home) -> None:
    a = home.open("laptop")
    with a.store.transaction():
        for number in range(3000):
            Note(a.store, text=f"{number} " + "x" * 2000)
    code = a.invite().code
    path = home.directory / "desktop"
    joiner = Owner(path, "desktop")
    assert joiner.process.stdin is not None
    joiner.process.stdin.write(f"join {code} 127.0.0.1:{a.port}\n")
    joiner.process.stdin.flush()
    until((path / "local" / "group.json").exists)  # paired; the copy begins
    joiner.end()
    b = home.open("desktop", a)
    assert equal(a, b)
    assert b.store.verify().problems == []
    assert member_names(b) == ["desktop", "laptop"]


def test_a_program_that_ends_without_closing_its_device_hands_over(home: Home, owner: Owner) -> None:
    a = home.open("laptop")
    b = home.join("desktop", a)
    home.close("laptop")
    until(lambda: b.status().in_sync and b.status().master == "laptop")
    assert owner.process.stdin is not None
    owner.process.stdin.close()
    assert owner.process.wait(PATIENCE) == 0
    until(lambda: b.role == "master")
