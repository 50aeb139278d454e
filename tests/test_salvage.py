"""The salvage file: complete and on the disk, or not there; cut or changed anywhere, it is told from a good one."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from atop.errors import StoreFull
from atop.records import State
from replication.salvage import Change, Commit, Header, Salvage, SalvageDamaged, write

HEADER = Header(7, 12, bytes(32), 10, ((10, bytes(32)),))


def commits() -> list[Commit]:
    state = State(5, "a.B", 1, {"name": "Ada", "tags": ["x"]}, (2,))
    return [
        Commit(5, 10**15, "first", (Change("+", 1, 0, {}, (), None, state, {"owner": b"c"}),), (("root/x", None, 1),)),
        Commit(6, 10**15 + 1, "second", (Change("-", 1, 5, {"name": "Ada"}, (), (2,), None, {}),), (), ((3, 44),)),
    ]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "local" / "salvage" / "00000001.salvage"


@pytest.fixture
def salvaged(path: Path) -> Path:
    path.parent.parent.mkdir()
    assert write(path, HEADER, reversed(commits())) == 2
    return path


def test_what_is_written_is_read(salvaged: Path) -> None:
    found = Salvage(salvaged)
    assert found.header == HEADER
    assert len(found) == 2
    assert list(found.commits()) == commits()
    assert list(found.commits(latest_first=True)) == commits()[::-1]
    assert oct(salvaged.stat().st_mode & 0o777) == "0o600"


def test_a_file_cut_at_any_byte_is_found_out(salvaged: Path) -> None:
    whole = salvaged.read_bytes()
    for length in range(len(whole)):
        salvaged.write_bytes(whole[:length])
        with pytest.raises(SalvageDamaged):
            Salvage(salvaged)


def test_a_file_changed_at_any_byte_is_found_out(salvaged: Path) -> None:
    whole = salvaged.read_bytes()
    for place in range(len(whole)):
        salvaged.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(SalvageDamaged):
            Salvage(salvaged)


def test_a_longer_file_is_found_out(salvaged: Path) -> None:
    salvaged.write_bytes(salvaged.read_bytes() + b"\0")
    with pytest.raises(SalvageDamaged):
        Salvage(salvaged)


def test_damage_while_it_is_read_is_found_out(salvaged: Path) -> None:
    found = Salvage(salvaged)
    whole = salvaged.read_bytes()
    salvaged.write_bytes(whole[:40] + b"x" * (len(whole) - 40))
    with pytest.raises(SalvageDamaged):
        list(found.commits())


@pytest.mark.parametrize("calls", range(3))
def test_a_full_disk_leaves_nothing(path: Path, monkeypatch: pytest.MonkeyPatch, calls: int) -> None:
    path.parent.parent.mkdir()
    real = os.fsync

    def fsync(fd: int) -> None:
        nonlocal calls
        calls -= 1
        if calls < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(StoreFull):
        write(path, HEADER, reversed(commits()))
    assert not path.with_suffix(".new").exists()
    left: list[Any] = list(path.parent.glob("*.salvage"))
    assert all(list(Salvage(file).commits()) == commits() for file in left)
