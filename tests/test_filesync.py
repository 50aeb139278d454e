"""Contents of files between devices, over real links."""

from __future__ import annotations

import datetime
import hashlib
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from file_group import Device, Document, FileGroup, contents, fetching_at_most
from linking import PATIENCE, wait_until

from atop import File, NoSuchFile, StoreDamaged
from atop import contents as contents_module
from atop.values import FileInfo
from replication import filesync
from replication.elsewhere import Elsewhere
from replication.fileserving import Server
from replication.identity import DeviceId
from replication.messages import MAX_ASKED_BYTES as MOST
from replication.messages import FileAbsent, FileAsked, FileChunk, Message, Reason

DATA = contents(700_000)
KEEP_NOTHING = datetime.timedelta(0)


@pytest.fixture
def group() -> Iterator[FileGroup]:
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="atop-test-", dir=memory) as name:
        group = FileGroup(Path(name))
        yield group
        group.close()


@pytest.fixture
def a(group: FileGroup) -> Device:
    """The first device: master."""
    return group.start("a")


@pytest.fixture
def b(group: FileGroup, a: Device) -> Device:
    """The second one: a replica."""
    return group.start("b")


def add(device: Device, data: bytes = DATA, title: str = "x") -> File:
    """A new file on a device, in an item."""
    file = device.store.file(data, name=f"{title}.bin")
    Document(device.store, title=title, file=file)
    return file


def seen(device: Device, title: str = "x") -> File:
    """The file of an item, on another device, once the item is there."""
    wait_until(lambda: title in device.files())
    return device.files()[title]


def damage(device: Device, file: File) -> None:
    """Flip a byte of contents where they are."""
    path = device.store._file_area.path_of(file.digest)
    path.chmod(0o600)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


# -- there and back ---------------------------------------------------------------------------------------------


def test_contents_follow_the_item_that_names_them(a: Device, b: Device) -> None:
    add(a)
    there = seen(b)
    wait_until(lambda: there.is_here)
    assert there.read() == DATA
    wait_until(lambda: b.manager.status().files.missing == 0)
    assert b.store.verify().problems == []


def test_a_device_that_joins_gets_the_contents_that_were_there_before_it(group: FileGroup, a: Device) -> None:
    for number in range(30):
        add(a, contents(20_000, number), str(number))
    add(a, b"", "empty")
    b = group.start("b")
    wait_until(lambda: b.manager.status().files.fetched == 31)
    assert {title: file.read() for title, file in b.files().items()} == {
        **{str(number): contents(20_000, number) for number in range(30)},
        "empty": b"",
    }


def test_what_a_replica_adds_is_accepted_by_the_master_and_gets_there(a: Device, b: Device) -> None:
    add(b)
    assert seen(a).read() == DATA


def test_it_comes_from_whoever_has_it_also_if_that_is_not_the_master(group: FileGroup, a: Device, b: Device) -> None:
    c = group.start("c", size=3, find="ab")
    with fetching_at_most(a, 0):
        add(b)
        wait_until(lambda: seen(c).is_here)
        assert not seen(a).is_here
    assert seen(a).read() == DATA


def test_it_comes_through_a_device_that_both_sides_reach(group: FileGroup, a: Device, b: Device) -> None:
    c = group.start("c", size=3, find="a")
    assert not c.is_linked(b)
    add(b)
    wait_until(lambda: seen(c).is_here)


def test_a_file_that_is_opened_is_fetched_now(a: Device, b: Device) -> None:
    with fetching_at_most(b, 0):
        add(a)
        assert not seen(b).is_here
        wait_until(lambda: b.manager.status().files.missing == 1)
    assert seen(b).read() == DATA


def test_what_is_opened_comes_before_what_is_not(a: Device, b: Device) -> None:
    order: list[bytes] = []
    with fetching_at_most(b, 0):
        for number in range(40):
            add(a, contents(100_000, number), str(number))
        last = seen(b, "39")
        fetches = b.manager.files._fetches
        finished = fetches.finished
        fetches.finished = lambda digest, good: (order.append(digest), finished(digest, good=good))[1]  # type: ignore[method-assign]
        reader = threading.Thread(target=last.read)
        reader.start()
        wait_until(lambda: (w := fetches.wanted.get(last.digest)) is not None and w.urgent)
    reader.join()
    wait_until(lambda: last.digest in order)
    assert order.index(last.digest) < 10


def test_a_file_that_nobody_has_is_told_with_who_was_asked(a: Device, b: Device) -> None:
    with fetching_at_most(b, 0):
        file = add(a, title="holiday")
        seen(b, "holiday")
        a.store._file_area.path_of(file.digest).unlink()
    with pytest.raises(NoSuchFile, match=rf"holiday.bin.*asked: {a.id.short}\).*switch on a device"):
        seen(b, "holiday").read()
    wait_until(lambda: b.manager.status().files.waiting == 1)


def test_a_file_is_not_waited_for_longer_than_the_time_given(a: Device, b: Device) -> None:
    with fetching_at_most(b, 100_000):
        add(a)
        with pytest.raises(NoSuchFile, match=r"did not come in time \(100,000 of 700,000 bytes; asked"):
            seen(b).read(timeout=0.2)
    assert seen(b).read() == DATA


def test_without_any_link_a_file_is_not_waited_for_long(a: Device, b: Device) -> None:
    with fetching_at_most(b, 0):
        add(a)
        there = seen(b)
        a.close()
        wait_until(lambda: not b.peers.links())
        with pytest.raises(NoSuchFile, match="no other device can be reached"):
            there.open(timeout=0.1)


def test_contents_that_the_store_does_not_name_are_not_fetched(a: Device, b: Device) -> None:
    there = a.store.file(DATA)
    with pytest.raises(NoSuchFile, match="no item names them"):
        b.store._file(FileInfo(there.digest, there.size)).read()


def test_an_item_that_names_a_wrong_size_costs_nobody_anything(a: Device, b: Device) -> None:
    file = add(a)
    wait_until(lambda: seen(b).is_here)
    Document(a.store, title="lie", file=a.store._file(FileInfo(file.digest, 5)))
    with pytest.raises(StoreDamaged, match="the size, 5 bytes, that is wrong"):
        seen(b, "lie").read()
    assert seen(b).read() == DATA


# -- cut, resumed, wrong, damaged -------------------------------------------------------------------------------


def test_after_a_cut_only_the_rest_travels(a: Device, b: Device) -> None:
    with fetching_at_most(b, 400_000):
        add(a)
        wait_until(lambda: b.manager.status().files.received_bytes == 400_000)
        b.peers.links()[0].close(wait=True)
    wait_until(lambda: seen(b).is_here)
    assert b.manager.status().files.received_bytes == len(DATA)
    assert seen(b).read() == DATA


def test_after_a_restart_only_the_rest_travels(group: FileGroup, a: Device, b: Device) -> None:
    with fetching_at_most(b, 400_000):
        add(a)
        wait_until(lambda: b.manager.status().files.received_bytes == 400_000)
        b.close()
    b = group.start("b")
    wait_until(lambda: seen(b).is_here)
    assert b.manager.status().files.received_bytes == len(DATA) - 400_000
    assert seen(b).read() == DATA


def test_a_beginning_that_was_damaged_meanwhile_is_thrown_away(group: FileGroup, a: Device, b: Device) -> None:
    with fetching_at_most(b, 400_000):
        file = add(a)
        wait_until(lambda: b.manager.status().files.received_bytes == 400_000)
        b.close()
    path = b.store._file_area.partial_path(file.digest)
    path.write_bytes(bytes(300_000))
    b = group.start("b")
    wait_until(lambda: seen(b).is_here)
    assert seen(b).read() == DATA
    assert b.manager.status().files.wrong == ()


def test_a_beginning_of_what_nothing_names_any_more_is_removed(group: FileGroup, a: Device, b: Device) -> None:
    stray = b.store._file_area.partial_path(bytes(32))
    stray.write_bytes(b"x")
    b.close()
    b = group.start("b")
    wait_until(lambda: not stray.exists())


def test_a_device_that_sends_something_else_is_named_and_another_one_is_asked(group: FileGroup, a: Device) -> None:
    b = group.start("b")
    file = add(a)
    wait_until(lambda: seen(b).is_here)
    damage(a, file)
    c = group.start("c", size=3, find="a")
    wait_until(lambda: c.manager.status().files.wrong == ((a.id, file.digest),))
    assert not seen(c).is_here
    with pytest.raises(NoSuchFile, match=f"of which {a.id.short} has other contents in its place"):
        seen(c).read()
    c.find(b)
    b.find(c)
    wait_until(lambda: seen(c).is_here)
    assert seen(c).read() == DATA
    assert c.manager.status().files.wrong == ((a.id, file.digest),)


def test_damage_is_found_by_reading_and_mended_from_another_device(a: Device, b: Device) -> None:
    file = add(a)
    wait_until(lambda: seen(b).is_here)
    damage(a, file)
    assert a.files()["x"].read() == DATA
    assert not any((a.path / "files" / "damaged").iterdir())


def test_a_stream_tells_of_damage_at_its_end_and_the_next_one_is_whole(a: Device, b: Device) -> None:
    file = add(a)
    wait_until(lambda: seen(b).is_here)
    damage(a, file)
    with a.files()["x"].open() as stream, pytest.raises(StoreDamaged, match="changed on the disk"):
        while stream.read(10_000):
            pass
    assert a.files()["x"].read() == DATA


def test_contents_that_were_cut_short_are_fetched_again_when_another_device_asks(group: FileGroup, a: Device) -> None:
    b = group.start("b")
    file = add(a)
    wait_until(lambda: seen(b).is_here)
    path = a.store._file_area.path_of(file.digest)
    path.chmod(0o600)
    os.truncate(path, 1_000)
    c = group.start("c", size=3, find="a")
    wait_until(lambda: seen(c).is_here)
    assert a.files()["x"].read() == DATA


def test_damage_is_found_by_verify_and_mended_from_another_device(a: Device, b: Device) -> None:
    file = add(a)
    wait_until(lambda: seen(b).is_here)
    damage(b, file)
    assert ["fetched again" in problem for problem in b.store.verify().problems] == [True]
    wait_until(lambda: seen(b).is_here)
    assert b.store.verify().problems == []


@pytest.mark.parametrize("at", ["the middle", "the end"])
def test_damaged_contents_that_come_again_at_once_are_read(
    at: str, a: Device, b: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = add(a)
    wait_until(lambda: seen(b).is_here)
    area, mend = b.store._file_area, contents_module.mend

    def mend_and_wait(*arguments: Any) -> str:
        told = mend(*arguments)
        wait_until(lambda: area.has(file.digest) and area.is_whole(file.digest))
        return told

    monkeypatch.setattr(contents_module, "mend", mend_and_wait)
    if at == "the middle":
        damage(b, file)
    else:
        path = area.path_of(file.digest)
        path.chmod(0o600)
        os.truncate(path, 1_000)
    assert seen(b).read() == DATA


def test_without_another_device_damaged_contents_stay_where_they_are(a: Device) -> None:
    a.manager.set_members(1)
    file = add(a)
    damage(a, file)
    with pytest.raises(StoreDamaged, match="restore them from a backup"):
        file.read()
    assert file.is_here


def test_what_has_no_room_is_told_and_goes_on_when_there_is_some(a: Device, b: Device) -> None:
    b.manager.files.free_bytes = 1 << 60
    b.manager.files._fetches.disk_seconds = 0.1
    add(a)
    wait_until(lambda: "make room" in (b.manager.status().files.problem or ""))
    with pytest.raises(NoSuchFile, match="make room"):
        seen(b).read()
    b.manager.files.free_bytes = 0
    wait_until(lambda: seen(b).is_here)
    wait_until(lambda: b.manager.status().files.problem is None)


# -- what is removed, and what is not ---------------------------------------------------------------------------


def forget(device: Device, title: str = "x") -> None:
    """Delete an item, and all history of it."""
    next(item for item in device.store.items() if isinstance(item, Document) and item.title == title).delete()
    Document(device.store, title="the last commit stays in the journal")


def test_what_no_device_names_is_removed_everywhere(a: Device, b: Device) -> None:
    file = add(a)
    wait_until(lambda: seen(b).is_here)
    forget(a)
    wait_until(lambda: b.store.head == a.store.head)
    assert a.store.compact(keep=KEEP_NOTHING, grace=0).files in (0, 1)  # the other one may not have heard yet
    wait_until(lambda: not b.store._tenure.engine.names_file(file.digest))
    a.store.compact(keep=KEEP_NOTHING, grace=0)
    assert not a.has(file)
    assert b.store.compact(grace=0).files == 1
    assert not b.has(file)


def test_nothing_is_removed_while_a_device_cannot_be_asked(group: FileGroup, a: Device, b: Device) -> None:
    with fetching_at_most(b, 0):
        file = add(a)
        seen(b)
        b.close()
    forget(a)
    report = a.store.compact(keep=KEEP_NOTHING, grace=0)
    assert (report.files, report.elsewhere) == (0, 1)
    assert a.has(file)
    b = group.start("b")
    wait_until(lambda: b.store.head == a.store.head and b.peers.links())
    wait_until(lambda: not b.store._tenure.engine.names_file(file.digest))
    assert a.store.compact(keep=KEEP_NOTHING, grace=0).files == 1


def test_what_another_device_names_is_not_removed(a: Device, b: Device) -> None:
    stray = a.store.file(DATA)
    with b.store._pins.held([stray.digest]):  # as by a commit that is on its way
        assert a.store.compact(grace=0).elsewhere == 1
    assert a.store.compact(grace=0).files == 1


def test_nothing_is_removed_while_salvaged_commits_wait(a: Device, b: Device) -> None:
    a.store.file(DATA)
    (b.path / "local" / "salvage").mkdir(exist_ok=True)
    waiting = b.path / "local" / "salvage" / "00000001.salvage"
    waiting.write_bytes(b"")
    assert a.store.compact(grace=0).elsewhere == 1
    waiting.unlink()
    assert a.store.compact(grace=0).files == 1


def test_undoing_a_deletion_on_a_device_that_lacks_the_contents_brings_the_file_back(a: Device, b: Device) -> None:
    with fetching_at_most(b, 0):
        file = add(a)
        seen(b)
        forget(a)
        wait_until(lambda: b.store.head == a.store.head)
        assert a.store.compact(grace=0).files == 0  # the history names it
        assert not b.has(file)
        deletion = next(
            commit for commit in b.store.history() if any(change.kind == "deleted" for change in commit.changes)
        )
        b.store.undo(deletion)
        wait_until(lambda: a.store.head == b.store.head)
    assert seen(b).read() == DATA
    assert a.files()["x"].read() == DATA


# -- commits ----------------------------------------------------------------------------------------------------


def test_a_replicated_commit_returns_when_another_device_has_the_contents(a: Device, b: Device) -> None:
    a.store._durability = "replicated"
    file = add(a)
    assert b.has(file)


def test_a_copy_of_a_file_value_may_be_kept_where_the_contents_have_not_come(a: Device, b: Device) -> None:
    with fetching_at_most(b, 0):
        add(a)
        Document(b.store, title="copy", file=seen(b))
        assert seen(a, "copy").read() == DATA


# -- peers that do not keep to the protocol ---------------------------------------------------------------------


def test_bytes_that_nobody_asked_for_are_thrown_away(a: Device, b: Device) -> None:
    link = a.peers.link(b.id)
    assert link is not None
    for offset in range(100):
        link.send_file(FileChunk(bytes(32), offset, bytes(60_000)), 10)
    add(a)
    wait_until(lambda: seen(b).is_here)
    assert b.manager.status().files.received_bytes == len(DATA)
    assert not any((b.path / "files" / "partial").glob("00*"))


def test_a_device_that_asks_for_too_much_loses_its_link(a: Device, b: Device) -> None:
    file = add(a)
    wait_until(lambda: seen(b).is_here)
    link = b.peers.link(a.id)
    assert link is not None
    for _ in range(5):
        if link.open:
            link.send(FileAsked(file.digest, file.size, 0, MOST))
    assert link.wait_ended(20)


def test_a_hash_that_is_no_file_here_is_answered_as_such(a: Device, b: Device) -> None:
    with fetching_at_most(b, 0):
        add(a)
        seen(b)
        (a.path / "files" / "incoming" / "secret").write_bytes(b"secret")
        link = b.peers.link(a.id)
        assert link is not None
        for digest in (bytes(32), b"\xff" * 32, b"incoming/secret".ljust(32, b"/")):
            link.send(FileAsked(digest, 6, 0, 6))
    assert seen(b).read() == DATA  # in the same lane, after these
    assert b.manager.status().files.received_bytes == len(DATA)


# -- other processes of the device ------------------------------------------------------------------------------


def read_in_another_process(path: Path, title: str) -> str:
    """What a process that is attached to the owner of a store says about a file: its hash, or the error."""
    program = """
import hashlib, sys
from atop import Item, File, Store
class Document(Item, type_name="file_group.Document"):
    title: str = ""
    file: File | None = None
with Store(sys.argv[1], create=False) as store:
    assert store.owner_pid is not None
    item = next(item for item in store.items() if isinstance(item, Document) and item.title == sys.argv[2])
    try:
        print(hashlib.sha256(item.file.read(timeout=5)).hexdigest())
    except Exception as error:
        print(type(error).__name__, error)
"""
    outcome = subprocess.run(
        [sys.executable, "-c", program, str(path), title],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
    )
    return outcome.stdout.strip()


def test_an_attached_process_has_the_owner_fetch_what_it_reads(a: Device, b: Device) -> None:
    with fetching_at_most(b, 0):
        file = add(a)
        add(a, contents(1_000, 1), "gone")
        assert not seen(b, "gone").is_here
        a.store._file_area.path_of(a.files()["gone"].digest).unlink()
    assert read_in_another_process(b.path, "x") == hashlib.sha256(DATA).hexdigest()
    assert b.has(file)
    said = read_in_another_process(b.path, "gone")
    assert said.startswith("NoSuchFile")
    assert a.id.short in said
    damage(b, file)
    assert read_in_another_process(b.path, "x") == hashlib.sha256(DATA).hexdigest()


def test_what_a_device_asks_for_again_and_again_is_done_once_at_a_time(
    a: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, begun, go_on = a.manager.files, threading.Semaphore(0), threading.Event()
    looked: list[bytes] = []

    def check(digest: bytes, size: int) -> None:
        begun.release()
        assert go_on.wait(PATIENCE)
        looked.append(digest)

    monkeypatch.setattr(files, "_check", check)
    monkeypatch.setattr(filesync, "MAX_ERRANDS", 2)
    hashes = [bytes([number]) * 32 for number in range(3)]
    for digest in hashes * 50:
        files._errand(digest, lambda digest=digest: files._check(digest, 1))  # type: ignore[misc]
    assert begun.acquire(timeout=PATIENCE)
    assert begun.acquire(timeout=PATIENCE)
    go_on.set()
    wait_until(lambda: not files._errands)
    assert sorted(looked) == hashes[:2]


# -- what several wait for, and a system without threads


class Line:
    """A link that notes what is sent on it."""

    device_id = DeviceId(bytes(32))
    open = True

    def __init__(self) -> None:
        self.sent: list[Message] = []

    def send(self, message: Message, route: object = None) -> None:
        self.sent.append(message)

    def send_file(self, chunk: FileChunk, timeout: float) -> bool:
        self.sent.append(chunk)
        return True

    def close(self, reason: Reason = Reason.LEAVING, *, wait: bool = True) -> None:
        self.open = False


def test_each_of_two_that_wait_for_the_same_contents_is_told_that_another_device_has_them() -> None:
    line, wanted, other = Line(), b"w" * 32, b"o" * 32
    elsewhere = Elsewhere(lambda: [line], lambda: 2, lambda: 0)
    found: list[str] = []

    def wait(name: str, sizes: dict[bytes, int]) -> None:
        if elsewhere._await_some(sizes, PATIENCE):
            found.append(name)

    both = threading.Thread(target=wait, args=("both", {wanted: 1, other: 1}))
    one = threading.Thread(target=wait, args=("one", {wanted: 1}))
    both.start()
    one.start()
    wait_until(lambda: len(line.sent) == 3)
    elsewhere.here(b"b", [wanted])
    one.join()
    assert found == ["one"]
    elsewhere.here(b"b", [other])
    both.join()
    assert found == ["one", "both"]
    assert not elsewhere._awaited
    assert not elsewhere._awaiting


def test_who_asks_for_contents_while_there_is_no_thread_to_send_them_is_told_so(
    a: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest, line = add(a).digest, Line()
    server = Server(line, a.store._file_area, lambda digest: False, lambda digest, size: None)
    asked = FileAsked(digest, len(DATA), 0, 1_000)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", lambda thread: _no_thread())
        server.ask(asked)
    assert line.sent == [FileAbsent(digest, coming=True)]
    server.ask(asked)
    wait_until(lambda: len(line.sent) == 2)
    server.close()
    assert line.sent[1] == FileChunk(digest, 0, DATA[:1_000])


def _no_thread() -> None:
    raise RuntimeError("can't start new thread")
