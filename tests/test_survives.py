"""What a store meets in a long life: damage, hostile records, newer versions, crowds, and values at their extremes."""

from __future__ import annotations

import errno
import math
import pickle
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from berkeleydb import db

import atop
from atop import Commit, Item, Store, StoreDamaged, StoreError, StoreFull, UnsafePickle, UnsupportedStore
from atop.calls import Pending
from atop.environment import FORMAT_KEY
from atop.records import pack_u64
from atop.writeset import ITEMS

PATIENCE = 30.0  # seconds after which a test that waits has failed


class Note(Item, type_name="survives.Note"):
    text: str = ""
    number: float = 0.0


def write_raw(store_path: Path, table: str, key: bytes, value: bytes) -> None:
    """Put a record straight into a table of a store that is closed."""
    environment = db.DBEnv()
    flags = db.DB_CREATE | db.DB_RECOVER | db.DB_PRIVATE | db.DB_INIT_TXN
    environment.open(str(store_path / "data"), flags | db.DB_INIT_LOG | db.DB_INIT_LOCK | db.DB_INIT_MPOOL)
    handle = db.DB(environment)
    handle.open(f"{table}.db", dbtype=db.DB_BTREE, flags=db.DB_AUTO_COMMIT)
    handle.put(key, value)
    handle.close()
    environment.txn_checkpoint()
    environment.close()


def flip(path: Path, page: int, page_size: int) -> None:
    """Change some bytes in the middle of a page."""
    with path.open("r+b") as file:
        file.seek(page * page_size + page_size // 2)
        old = file.read(16)
        file.seek(-16, 1)
        file.write(bytes(byte ^ 0x5A for byte in old))


@pytest.fixture
def full(store_path: Path) -> Path:
    """A closed store with some pages in every table that holds items."""
    with Store(store_path) as store, store.transaction():
        pool = store.pool("notes", indexes=["text"])
        for number in range(2_000):
            pool.add(Note(store, text=f"note {number} {'x' * 50}", number=number))
    return store_path


@pytest.mark.parametrize("table", ["items", "index", "journal"])
def test_a_damaged_page_is_told_found_and_mended(full: Path, tmp_path: Path, table: str) -> None:
    with Store(full) as store:
        store.backup(tmp_path / "backup")
    path = full / "data" / f"{table}.db"
    page_size = int.from_bytes(path.read_bytes()[20:24], "little")
    for page in range(1, path.stat().st_size // page_size):
        flip(path, page, page_size)

    def use() -> None:
        with Store(full) as store:
            for note in store.pool("notes").query("text"):
                assert note.text
            list(store.history())

    with pytest.raises(StoreDamaged) as damage:
        use()
    assert damage.value.table == table
    assert table in str(damage.value)
    assert "restore" in str(damage.value)
    atop.restore(tmp_path / "backup", full, force=True)
    use()


@pytest.mark.parametrize("table", ["index", "references"])
def test_verify_finds_a_damaged_page_that_nothing_has_read(full: Path, table: str) -> None:
    path = full / "data" / f"{table}.db"
    page_size = int.from_bytes(path.read_bytes()[20:24], "little")
    flip(path, path.stat().st_size // page_size - 1, page_size)
    with Store(full) as store:
        report = store.verify()
    assert not report.ok
    assert any(table in problem for problem in report.problems)


class Exploit:
    def __reduce__(self) -> tuple[object, ...]:
        import os

        return os.system, ("touch exploited",)


def test_a_record_that_names_a_function_is_reported_and_not_executed(
    full: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with Store(full) as store:
        note = next(store.pool("notes").query("text"))
        item_id, version = note.item_id, note.version
    body = pickle.dumps(("survives.Note", 1, {"text": Exploit()}, ()), 5)
    write_raw(full, "items", pack_u64(item_id), pack_u64(version) + body)
    with Store(full) as store:
        with pytest.raises(UnsafePickle, match="system"):
            store.get(item_id)
        assert any("system" in problem for problem in store.verify().problems)
    assert list(tmp_path.iterdir()) == []


def test_a_store_of_a_newer_format_is_refused_and_left_alone(full: Path) -> None:
    write_raw(full, "catalog", FORMAT_KEY, pack_u64(99))
    with pytest.raises(UnsupportedStore, match=r"99.*update"):
        Store(full)
    with pytest.raises(UnsupportedStore):
        Store(full)


@pytest.mark.slow
def test_sixty_four_threads_write_at_once(store: Store) -> None:
    pool = store.pool("notes", indexes=["text"])
    shared = Note(store, number=0)
    failures: list[BaseException] = []

    def increment() -> None:
        shared.number += 1

    def write(thread: int) -> None:
        try:
            for turn in range(5):
                with store.transaction():
                    pool.add(Note(store, text=f"{thread}/{turn}"))
                store.transact(increment)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert shared.number == 64 * 5 == len(pool)
    assert store.verify().problems == []


@pytest.mark.slow
def test_ten_thousand_pools(store: Store, open_store: Callable[[], Store]) -> None:
    for start in range(0, 10_000, 1_000):
        with store.transaction():
            for number in range(start, start + 1_000):
                store.pool(f"pool {number}", indexes=["text"])
    note = Note(store, text="here")
    store.pool("pool 9999").add(note)
    store = open_store()
    assert sum(1 for _ in store.pools()) == 10_000
    assert [found.text for found in store.pool("pool 9999", create=False).query("text")] == ["here"]


class Zeros:
    """A stream of zero bytes."""

    def __init__(self, size: int) -> None:
        self._left = size

    def read(self, size: int) -> bytes:
        size = min(size, self._left)
        self._left -= size
        return bytes(size)


@pytest.mark.slow
def test_a_file_of_a_gigabyte(tmp_path: Path) -> None:
    size = 1 << 30
    with Store(tmp_path / "store") as store:
        note = Note(store)
        note.contents = store.file(Zeros(size), name="zeros")
        assert note.contents.size == size
        with note.contents.open() as stream:
            stream.seek(size - 1)
            assert stream.read() == b"\0"
        note.delete()
        Note(store, text="the last commit stays in the journal, so it should not be the deletion")
        assert store.compact(keep=timedelta(0), grace=0).files == 1


def test_keys_of_64_kib_are_ordered_and_found(store: Store) -> None:
    pool = store.pool("notes", indexes=["text"])
    texts = [letter * (64 << 10) for letter in "cab"]
    for text in texts:
        pool.add(Note(store, text=text))
    assert [note.text for note in pool.query("text")] == sorted(texts)
    assert [note.text for note in pool.query("text", key=texts[1])] == [texts[1]]
    assert store.verify().problems == []


@pytest.mark.parametrize("text", ["\0", "a\0b", "\ud800", "\udfff\0", "", "𝔘\u0301"])
def test_odd_text_is_kept_indexed_and_found(store: Store, open_store: Callable[[], Store], text: str) -> None:
    pool = store.pool("notes", indexes=["text"])
    pool.add(Note(store, text=text))
    pool = open_store().pool("notes")
    assert [note.text for note in pool.query("text", key=text)] == [text]


def test_not_a_number_and_the_infinities_are_kept_in_order(store: Store, open_store: Callable[[], Store]) -> None:
    pool = store.pool("notes", indexes=["number"])
    for number in (math.inf, 0.0, math.nan, -math.inf):
        pool.add(Note(store, number=number))
    numbers = [note.number for note in open_store().pool("notes").query("number")]
    assert math.isnan(numbers[0])
    assert numbers[1:] == [-math.inf, 0.0, math.inf]


@pytest.mark.parametrize("name", ["../../escape", "/etc/passwd", "a\0b", "..", "con\nfig"])
def test_a_files_name_is_never_a_path(store: Store, name: str) -> None:
    before = {path for path in store.path.parent.rglob("*") if store.path not in path.parents}
    note = Note(store)
    note.contents = store.file(b"contents", name=name)
    assert note.contents.name == name
    assert note.contents.read() == b"contents"
    assert {path for path in store.path.parent.rglob("*") if store.path not in path.parents} == before


def test_a_watcher_that_raises_is_called_again_and_disturbs_nobody(store: Store) -> None:
    seen: list[int] = []
    done = threading.Event()

    def bad(commit: Commit) -> None:
        raise RuntimeError(commit.label)

    def good(commit: Commit) -> None:
        seen.append(commit.number)
        if len(seen) == 3:
            done.set()

    with store.watch(bad), store.watch(good):
        for number in range(3):
            Note(store, number=number)
        assert done.wait(timeout=30)
    assert seen == sorted(seen)


def test_who_comes_during_a_recovery_waits_for_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    item = Item(store, text="x")
    engine, key = store._tenure.engine, pack_u64(item.item_id)
    recovering, come, go_on = threading.Event(), threading.Event(), threading.Event()
    reopen, check = engine._reopen, engine._check_usable
    records: list[bytes | None] = []

    def reopen_later() -> None:
        recovering.set()
        assert go_on.wait(PATIENCE)
        reopen()

    def check_usable() -> None:
        come.set()
        check()

    monkeypatch.setattr(engine, "_reopen", reopen_later)
    monkeypatch.setattr(engine._gate, "_check_usable", check_usable)
    engine._env.set_flags(db.DB_PANIC_ENVIRONMENT, 1)
    readers = [threading.Thread(target=lambda: records.append(engine.get(ITEMS, key))) for _ in range(2)]
    readers[0].start()
    assert recovering.wait(PATIENCE)
    readers[1].start()
    assert come.wait(PATIENCE)
    go_on.set()
    for reader in readers:
        reader.join(PATIENCE)
    assert len(records) == 2
    assert records[0] == records[1] is not None


def test_who_fails_because_of_another_is_told_why_that_one_did(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that finds the database failed may come to recover it before the one whose flush found the disk full."""
    engine = store._engine
    count = engine._count

    def fail_meanwhile(counters: dict[bytes, int], txn: object) -> None:
        count(counters, txn)
        engine._note(db.DBError(errno.ENOSPC, "No space left on device"))
        engine._env.set_flags(db.DB_PANIC_ENVIRONMENT, 1)

    before = store.head
    with monkeypatch.context() as patch:
        patch.setattr(engine, "_count", fail_meanwhile)
        with pytest.raises(StoreFull, match="make room"):
            Item(store)
    assert store.head == before
    Item(store)
    engine._env.set_flags(db.DB_PANIC_ENVIRONMENT, 1)  # of another time, which is not a full disk
    Item(store)
    assert store.verify().problems == []


def test_where_it_cannot_be_said_yet_what_a_full_disk_kept_that_is_the_reason(store: Store) -> None:
    engine = store._engine
    for cause, kind in ((StoreFull("full"), StoreFull), (StoreError("broken"), StoreError)):
        pending = Pending(1)
        engine._unflushed.append(pending)
        engine._settle(None, cause)
        assert type(pending.error) is kind
        with pytest.raises(kind, match="whether commit 1 was kept will be seen"):
            engine._flush(pending)
