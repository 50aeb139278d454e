"""A full disk costs what could not be written, and tells so; nothing else, and only until there is room again."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from devices import Home
from small_disk import SmallDisk, small_disk
from victims import Say, Victim, killed_after

from atop import File, Item, Store, StoreFull, StoreReadOnly, engine, ids
from atop.environment import free_space
from replication import Device

# Bytes for pages: enough for all that a test writes. Berkeley DB takes long to give up when the cache is full of pages
# that cannot be written out, which the space that commits leave free prevents.
CACHE = 32 << 20


class Note(Item, type_name="full.Note"):
    text: str = ""
    number: int = 0
    photo: File | None = None


disk = pytest.fixture(small_disk)


@pytest.fixture
def careless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that looks for no room before it writes, so that the disk is full in the middle of it."""
    monkeypatch.setattr(engine, "RESERVE", -(1 << 40))


@pytest.fixture
def store(disk: SmallDisk) -> Iterator[Store]:
    store = Store(disk.path / "store", cache_size=CACHE)
    yield store
    store.close()


def labels(store: Store) -> set[str]:
    return {commit.label for commit in store.history()}


def check(store: Store) -> None:
    """Nothing is wrong with a store, nor with what is read of it when it is opened again."""
    assert store.verify().problems == []
    before = store.head
    store.close()
    with Store(store.path, cache_size=CACHE) as again:
        assert again.head == before
        assert again.verify().problems == []


# -- commits


def test_a_commit_that_would_fill_the_disk_is_refused_and_reading_goes_on(store: Store, disk: SmallDisk) -> None:
    note = Note(store, text="before")
    disk.fill(leave=engine.RESERVE // 2)
    with pytest.raises(StoreFull, match="make room"):
        note.text = "after"
    assert note.text == "before"
    assert store.get(note.item_id).text == "before"
    disk.free()
    note.text = "after"
    assert note.text == "after"
    check(store)


@pytest.mark.usefixtures("careless")
def test_of_a_commit_that_finds_the_disk_full_nothing_is_kept(store: Store, disk: SmallDisk) -> None:
    pool = store.pool("notes", indexes=["number"])
    note = Note(store, text="before", number=1)
    pool.add(note)
    disk.fill()
    with pytest.raises(StoreFull), store.transaction("lost"):
        note.text = "x" * 2_000_000
        note.number = 2
        other = Note(store, number=3)
        pool.add(other)
    disk.free()
    assert (note.text, note.number) == ("before", 1)
    assert [found.number for found in pool.query("number")] == [1]
    assert store.get(note.item_id) is note
    assert "lost" not in labels(store)
    note.text = "after"
    check(store)


@pytest.mark.usefixtures("careless")
def test_a_disk_that_stays_full_is_told_to_every_caller_until_there_is_room(store: Store, disk: SmallDisk) -> None:
    note = Note(store, text="before")
    disk.fill()
    for number in range(5):
        with pytest.raises(StoreFull):
            note.text = str(number) * 1_000_000
    disk.free()
    note.text = "after"
    check(store)


@pytest.mark.usefixtures("careless")
@pytest.mark.slow
def test_each_of_many_threads_is_told_the_truth_about_its_commits(store: Store, disk: SmallDisk) -> None:
    """Whose commit returned has it, whose commit raised has not; time and again, in one process."""
    returned: set[str] = set()
    raised: set[str] = set()
    everyone_stops = threading.Event()

    def write(worker: int) -> None:
        note, chance = Note(store), random.Random(worker)
        number = 0
        while not everyone_stops.is_set():
            number += 1
            label = f"{worker}/{number}"
            try:
                with store.transaction(label):
                    note.number = number
                    note.text = f"{number} " * chance.randrange(200)
                returned.add(label)
            except StoreFull:
                raised.add(label)
                with contextlib.suppress(StoreFull):  # it cannot be read either until there is room
                    assert note.number != number
            everyone_stops.wait(0.002)  # what is tried takes space in the log, too

    with ThreadPoolExecutor(6) as threads:
        workers = [threads.submit(write, worker) for worker in range(6)]
        try:
            for _ in range(4):
                count = len(raised)
                while len(raised) < count + 20 and not any(w.done() for w in workers):
                    disk.fill(leave=100_000)  # again and again: a checkpoint may give log files back
                    everyone_stops.wait(0.01)
                disk.free()
                count = len(returned)
                while len(returned) < count + 50 and not any(w.done() for w in workers):
                    everyone_stops.wait(0.01)
        finally:
            everyone_stops.set()
        for done in workers:
            done.result()
    assert {label for label in labels(store) if "/" in label} == returned
    assert raised
    check(store)


@pytest.mark.usefixtures("careless")
def test_a_checkpoint_that_finds_the_disk_full_is_made_later(store: Store, disk: SmallDisk) -> None:
    pool = store.pool("notes")
    with store.transaction():
        for number in range(3_000):
            pool.add(Note(store, number=number, text="x" * 300))
    disk.fill()
    with pytest.raises(StoreFull):
        store._engine.checkpoint()
    assert len(list(pool)) == 3_000
    disk.free()
    store._engine.checkpoint()
    check(store)


@pytest.mark.usefixtures("careless")
def test_a_process_that_ends_while_the_disk_is_full_leaves_a_store_that_opens(disk: SmallDisk) -> None:
    """Handles that are destroyed in any order at the end of a program must not write pages without their log."""
    program = """if True:
        import os, sys
        sys.path.insert(0, {tests!r})
        from test_disk_full import CACHE, Note, SmallDisk
        from atop import Store, StoreFull, engine
        from pathlib import Path
        engine.RESERVE = -(1 << 40)
        disk = SmallDisk(Path({path!r}))
        store = Store(disk.path / "store", cache_size=CACHE, durability="buffered")
        note = Note(store, text="first")
        store._engine.flush()
        disk.fill()
        try:
            for number in range(1_000_000):
                note.text = str(number) * 300
        except StoreFull:
            sys.exit(0)
    """
    program = program.format(tests=str(Path(__file__).parent), path=str(disk.path))
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    disk.free()
    with Store(disk.path / "store", cache_size=CACHE) as store:
        assert len([item for item in store.items() if isinstance(item, Note)]) == 1
        store.transact(lambda: Note(store))
        check(store)


def test_a_buffered_store_keeps_what_it_has_acknowledged_until_there_is_room(
    disk: SmallDisk, careless: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "MAINTENANCE_SECONDS", 0.01)
    with Store(disk.path / "store", cache_size=CACHE, durability="buffered") as store:
        note = Note(store)
        store._engine.flush()
        disk.fill()
        note.text = "buffered" * 1_000
        with pytest.raises(StoreFull):
            store._engine.flush()
        disk.free()
        store._engine.flush()
        assert note.text == "buffered" * 1_000
        check(store)


def test_closing_a_buffered_store_whose_last_commits_do_not_fit_says_so(disk: SmallDisk, careless: None) -> None:
    store = Store(disk.path / "store", cache_size=CACHE, durability="buffered")
    note = Note(store, text="first")
    store._engine.flush()
    disk.fill()
    note.text = "x" * 500_000
    with pytest.raises(StoreFull):
        store.close()
    disk.free()
    with Store(disk.path / "store", cache_size=CACHE) as again:
        assert again.get(note.item_id).text == "first"
        check(again)


# -- everything else that writes


def test_a_file_that_does_not_fit_leaves_nothing(store: Store, disk: SmallDisk) -> None:
    disk.fill(leave=30 << 20)
    before = free_space(disk.path)
    with Path("/dev/zero").open("rb") as endless, pytest.raises(StoreFull, match="make room"):
        store.file(endless)
    assert free_space(disk.path) == before
    assert list((store.path / "files" / "incoming").iterdir()) == []
    disk.free()
    assert store.file(b"fits").read() == b"fits"


def test_a_source_that_fails_is_no_fault_of_the_disk(store: Store) -> None:
    class Broken:
        def read(self, size: int) -> bytes:
            raise OSError(5, "the camera was pulled out")

    with pytest.raises(OSError, match="pulled out"):
        store.file(Broken())  # type: ignore[arg-type]
    assert list((store.path / "files" / "incoming").iterdir()) == []


def test_an_index_build_that_finds_the_disk_full_is_gone_on_with(store: Store, disk: SmallDisk) -> None:
    pool = store.pool("notes")
    with store.transaction():
        for number in range(1_200):
            pool.add(Note(store, number=number))

    def fill_up(done: int, total: int) -> None:
        disk.fill()

    with pytest.raises(StoreFull):
        pool.add_index("number", progress=fill_up)
    assert pool.indexes["number"].state == "building"
    assert len(list(pool)) == 1_200
    disk.free()
    pool.add_index("number")
    assert [note.number for note in pool.query("number")] == list(range(1_200))
    check(store)


@pytest.mark.parametrize("contents", ["database", "files"])
def test_a_backup_that_does_not_fit_leaves_nothing(tmp_path: Path, disk: SmallDisk, contents: str) -> None:
    with Store(tmp_path / "store", cache_size=CACHE) as store:
        note = Note(store, text="kept")
        if contents == "files":
            note.photo = store.file(os.urandom(20 << 20))
        disk.fill(leave=12 << 20 if contents == "files" else 1 << 20)
        with pytest.raises(StoreFull, match=str(disk.path)):
            store.backup(disk.path / "backup")
        assert [path.name for path in disk.path.iterdir()] == ["hog"]
        note.text = "goes on"
        disk.free()
        store.backup(disk.path / "backup")
        assert store.verify().problems == []
    with Store(disk.path / "backup") as backup:
        assert backup.get(note.item_id).text == "goes on"


def test_numbers_that_cannot_be_reserved_are_not_handed_out(
    store: Store, disk: SmallDisk, careless: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ids, "LARGEST_BLOCK", 4)
    made = [Note(store).item_id]
    disk.fill()
    with pytest.raises(StoreFull):
        while True:
            made.append(Note(store).item_id)
    disk.free()
    made.append(Note(store).item_id)
    assert made == sorted(set(made))
    check(store)


def test_a_new_store_on_a_full_disk_is_refused_and_made_when_there_is_room(disk: SmallDisk) -> None:
    disk.fill()
    with pytest.raises(StoreFull):
        Store(disk.path / "store")
    disk.free()
    with Store(disk.path / "store") as store:
        Note(store)
        check(store)


def test_a_store_that_needs_recovery_on_a_full_disk_is_refused_and_has_all_when_there_is_room(disk: SmallDisk) -> None:
    path = disk.path / "store"

    def work(say: Say) -> None:
        store = Store(path, cache_size=CACHE)
        pool = store.pool("notes")
        for number in range(200):
            pool.add(Note(store, number=number, text="x" * 5_000))
            say(str(number))

    acknowledged = len(killed_after(10, work))
    disk.fill()
    for _ in range(3):
        with pytest.raises(StoreFull):
            Store(path, cache_size=CACHE)
    disk.free()
    with Store(path, cache_size=CACHE) as store:
        assert len(list(store.pool("notes"))) == acknowledged == 200
        check(store)


# -- a disk that cannot be written at all


def test_a_store_on_a_read_only_disk_is_refused(disk: SmallDisk) -> None:
    with Store(disk.path / "store"):
        pass
    subprocess.run(["mount", "-o", "remount,ro", disk.path], check=True)
    with pytest.raises(StoreReadOnly, match="permissions"):
        Store(disk.path / "store")
    with pytest.raises(StoreReadOnly):
        Store(disk.path / "another")
    subprocess.run(["mount", "-o", "remount,rw", disk.path], check=True)
    with Store(disk.path / "store") as store:
        Note(store)
        check(store)


@pytest.mark.parametrize("part", [".", "local", "data", "files"])
def test_a_directory_that_may_not_be_written_is_refused(store_path: Path, part: str) -> None:
    with Store(store_path):
        pass
    (store_path / "files" / "incoming").rmdir()
    if part == ".":
        (store_path / "files").rmdir()
    if part == "local":
        (store_path / "local" / "owner.lock").unlink()
    (store_path / part).chmod(0o500)
    if os.geteuid() == 0:  # whom no permission stops: so somebody else tries
        for path in (store_path.parent, store_path, *store_path.rglob("*")):
            os.chown(path, 65534, 65534)

    def work(say: Say) -> None:
        if os.geteuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
        with pytest.raises(StoreReadOnly, match="check its permissions"):
            Store(store_path)
        (store_path / part).chmod(0o700)
        Store(store_path).close()
        say("opened")

    assert Victim(work).wait() == ["opened"]


def test_a_copy_that_has_no_room_is_told_and_comes_when_there_is(disk: SmallDisk, tmp_path: Path) -> None:
    laptop_home, desktop_home = Home(tmp_path), Home(disk.path)
    try:
        laptop = laptop_home.open("laptop")
        with laptop.store.transaction():
            for number in range(40):
                Note(laptop.store, text=os.urandom(500_000).hex(), number=number)
        disk.fill(leave=30 << 20)
        code = laptop.invite().code
        address = f"127.0.0.1:{laptop.port}"
        with pytest.raises(StoreFull, match="make room"):
            Device.join(disk.path / "desktop", code, address=address, port=0, multicast=False)
        disk.free()
        with Device.open(disk.path / "desktop", port=0, multicast=False, peers=[address]) as desktop:
            assert sorted(note.number for note in desktop.store.items() if isinstance(note, Note)) == list(range(40))
    finally:
        desktop_home.end()
        laptop_home.end()
