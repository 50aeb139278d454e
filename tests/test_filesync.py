"""Contents of files between devices, over real links."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from file_group import Device, Document, FileGroup, contents, without_fetching
from linking import wait_until

from atop import NoSuchFile


@pytest.fixture
def group() -> Iterator[FileGroup]:
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="atop-test-", dir=memory) as name:
        group = FileGroup(Path(name))
        yield group
        group.close()


@pytest.fixture
def a(group: FileGroup) -> Device:
    return group.start("a")


@pytest.fixture
def b(group: FileGroup, a: Device) -> Device:
    return group.start("b")


def test_contents_follow_the_item_that_names_them(a: Device, b: Device) -> None:
    data = contents(700_000)
    item = Document(a.store, title="x", file=a.store.file(data, name="x.bin"))
    assert item.file is not None
    wait_until(lambda: b.has(item.file))
    assert b.files()["x"].read() == data
    wait_until(lambda: b.manager.status().files.missing == 0)
    assert b.store.verify().problems == []


def test_what_a_replica_adds_is_accepted_by_the_master_and_gets_there(a: Device, b: Device) -> None:
    data = contents(700_000)
    item = Document(b.store, title="x", file=b.store.file(data, name="x.bin"))
    assert item.file is not None
    wait_until(lambda: a.has(item.file))
    assert a.files()["x"].read() == data


def test_a_file_that_is_opened_is_fetched_now(a: Device, b: Device) -> None:
    with without_fetching(b):
        data = contents(300_000)
        Document(a.store, title="x", file=a.store.file(data))
        wait_until(lambda: "x" in b.files())
        assert not b.files()["x"].is_here
    assert b.files()["x"].read() == data


def test_a_file_that_nobody_has_is_told_with_who_was_asked(a: Device, b: Device) -> None:
    with without_fetching(b):
        file = a.store.file(contents(300_000), name="holiday.jpg")
        Document(a.store, title="x", file=file)
        wait_until(lambda: "x" in b.files())
        a.store._file_area.path_of(file.digest).unlink()
    with pytest.raises(NoSuchFile, match=f"holiday.jpg.*asked: {a.id.short}.*switch on a device") as caught:
        b.files()["x"].read()
    print(caught.value)
