"""What is damaged is found, named, and never mistaken for what was stored; what is not can still be read."""

from __future__ import annotations

import os
import random
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from berkeleydb import db

from atop import (
    File,
    Item,
    Store,
    StoreDamaged,
    UnsafePickle,
    UnsupportedStore,
    restore,
)
from atop.engine import JOURNAL, PAGE_SIZE, TABLES, Engine
from atop.environment import FORMAT_KEY
from atop.ids import UNKNOWN_GAP
from atop.records import pack_u64

CACHE = 1 << 20  # bytes: small, so that what is damaged is read from the disk
INTERNAL, LEAF, META = 3, 5, 9  # types of pages, as in the byte 25 of each
COUNT = 3_000


class Card(Item, type_name="damage.Card"):
    name: str = ""
    friend: Card | None = None
    photo: File | None = None


@pytest.fixture(scope="module")
def sound() -> Iterator[Path]:
    """A directory with a store, and a backup of it. Not to be changed."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="atop-test-", dir=memory) as directory:
        path = Path(directory)
        with Store(path / "store", cache_size=CACHE) as store:
            pool = store.pool("cards", indexes=["name"])
            for start in range(0, COUNT, 500):
                with store.transaction(f"cards from {start}"):
                    friend = Card(store, name="friend")
                    for number in range(start, start + 500):
                        pool.add(Card(store, name=f"card {number:05}", friend=friend))
            for number in range(400):
                friend.name = f"friend {number}"
            for number in range(60):
                with store.transaction():
                    store.pool(f"pool {number}").add(friend)
                    friend.photo = store.file(b"photo %d" % number)
            store.backup(path / "backup")
        yield path


@pytest.fixture
def store_path(sound: Path, tmp_path: Path) -> Path:
    """A copy of the store, to be damaged."""
    shutil.copytree(sound / "store", tmp_path / "store")
    return tmp_path / "store"


def table_file(path: Path, table: str) -> Path:
    return path / "data" / f"{table}.db"


def pages(path: Path, kind: int) -> list[int]:
    """The numbers of the pages of a type."""
    data = path.read_bytes()
    return [n for n in range(len(data) // PAGE_SIZE) if data[n * PAGE_SIZE + 25] == kind]


def flip(path: Path, offset: int, length: int = 16) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        there = file.read(length)
        file.seek(offset)
        file.write(bytes(byte ^ 0xFF for byte in there))


def touch_everything(store: Store) -> None:
    """Read every record of every table, as a program would."""
    for item in store.items():
        assert isinstance(item.attributes, object)
        for _ in item.referrers():
            pass
    for pool in store.pools():
        assert len(pool) == len(list(pool))
        for index in pool.indexes:
            assert len(list(pool.query(index))) == len(pool)
    for commit in store.history():
        assert store.commit(commit.commit_id).changes == commit.changes


def find_damage(path: Path) -> StoreDamaged:
    """The error that opening the store, or reading all of it, raises."""
    with pytest.raises(StoreDamaged) as caught, Store(path, cache_size=CACHE) as store:
        touch_everything(store)
    return caught.value


def check_restored(sound: Path, path: Path) -> None:
    restore(sound / "backup", path, force=True)
    with Store(path, cache_size=CACHE) as store:
        touch_everything(store)
        assert store.verify().problems == []
        assert sum(isinstance(item, Card) for item in store.items()) == COUNT + COUNT // 500


# -- pages


@pytest.mark.parametrize("kind", [LEAF, INTERNAL, META], ids=["leaf", "internal", "meta"])
@pytest.mark.parametrize("table", TABLES)
def test_a_damaged_page_is_told_with_its_table_and_found_by_verify(store_path: Path, table: str, kind: int) -> None:
    path = table_file(store_path, table)
    damaged = pages(path, kind)
    if not damaged:
        assert kind == INTERNAL  # the table is small: its leaf is its root
        return
    flip(path, damaged[len(damaged) // 2] * PAGE_SIZE + (200 if kind == META else PAGE_SIZE // 2))
    error = find_damage(store_path)
    assert error.table == table
    assert f"table {table}" in str(error)
    assert "restore" in str(error)
    try:
        store = Store(store_path, cache_size=CACHE)
    except StoreDamaged:
        return
    with store:
        problems = store.verify().problems
        assert [problem for problem in problems if f"table {table}" in problem] == problems != []


@pytest.mark.slow
@pytest.mark.parametrize("table", TABLES)
def test_restoring_a_backup_mends_a_damaged_table(sound: Path, store_path: Path, table: str) -> None:
    path = table_file(store_path, table)
    flip(path, pages(path, LEAF)[0] * PAGE_SIZE + 2_000)
    check_restored(sound, store_path)


def test_what_is_not_damaged_can_still_be_read(store_path: Path) -> None:
    path = table_file(store_path, "items")
    leaves = pages(path, LEAF)
    flip(path, leaves[len(leaves) // 2] * PAGE_SIZE + 2_000)
    with Store(store_path, cache_size=CACHE) as store:
        found, lost = 0, 0
        for item_id in range(1, COUNT + COUNT // 500):
            try:
                found += store.get(item_id).item_id == item_id
            except StoreDamaged:
                lost += 1
        assert found > COUNT * 0.9
        assert 0 < lost < 100


def test_no_backup_is_made_of_a_damaged_store(store_path: Path, tmp_path: Path) -> None:
    path = table_file(store_path, "items")
    flip(path, pages(path, LEAF)[5] * PAGE_SIZE + 2_000)
    with Store(store_path, cache_size=CACHE) as store, pytest.raises(StoreDamaged, match="no backup was made"):
        store.backup(tmp_path / "backup")
    assert [entry.name for entry in tmp_path.iterdir()] == ["store"]


def test_a_damaged_backup_is_not_restored(sound: Path, tmp_path: Path) -> None:
    shutil.copytree(sound / "backup", tmp_path / "backup")
    path = table_file(tmp_path / "backup", "index")
    flip(path, pages(path, LEAF)[3] * PAGE_SIZE + 2_000)
    with pytest.raises(StoreDamaged, match="was not restored"):
        restore(tmp_path / "backup", tmp_path / "restored")
    assert [entry.name for entry in tmp_path.iterdir()] == ["backup"]


def test_random_damage_is_never_read_as_data(store_path: Path) -> None:
    """Whatever bytes are changed: an item reads as it was written, or raises."""
    chance = random.Random(1)
    for _ in range(8):
        path = table_file(store_path, chance.choice(TABLES))
        flip(path, chance.randrange(path.stat().st_size), 1)
    try:
        store = Store(store_path, cache_size=CACHE)
    except StoreDamaged:
        return
    with store:
        for item_id in range(1, COUNT + COUNT // 500):
            try:
                item = store.get(item_id)
                assert item.name.startswith(("card", "friend", "pool"))
            except StoreDamaged:
                pass
        assert not store.verify().ok


# -- files of tables


@pytest.mark.parametrize("table", TABLES)
def test_a_missing_table_is_not_made_anew(store_path: Path, table: str) -> None:
    table_file(store_path, table).unlink()
    error = find_damage(store_path)
    assert error.table in (table, "items" if table == "catalog" else table)
    assert table_file(store_path, table).exists() is (table == "catalog" and table_file(store_path, table).exists())


@pytest.mark.parametrize("left", [0, 100, PAGE_SIZE, PAGE_SIZE * 10, PAGE_SIZE * 10 + 1_000])
def test_a_truncated_table_is_told(sound: Path, store_path: Path, left: int) -> None:
    os.truncate(table_file(store_path, "items"), left)
    assert find_damage(store_path).table == "items"
    check_restored(sound, store_path)


def test_a_table_that_is_garbage_is_told(store_path: Path) -> None:
    path = table_file(store_path, "references")
    path.write_bytes(random.Random(2).randbytes(path.stat().st_size))
    assert find_damage(store_path).table == "references"


def test_a_hole_in_a_table_is_found_when_the_store_is_opened(store_path: Path) -> None:
    """What a file system lost reads as zeros, in which Berkeley DB would search for ever."""
    path = table_file(store_path, "items")
    hole = pages(path, LEAF)[3] * PAGE_SIZE
    data = path.read_bytes()
    with path.open("wb") as file:
        file.write(data[:hole])
        file.seek(hole + PAGE_SIZE)
        file.write(data[hole + PAGE_SIZE :])
    with pytest.raises(StoreDamaged) as caught:
        Store(store_path)
    assert caught.value.table == "items"


def test_zeros_in_a_table_are_found_by_verify(store_path: Path) -> None:
    path = table_file(store_path, "items")
    with path.open("r+b") as file:
        file.seek(pages(path, LEAF)[3] * PAGE_SIZE)
        file.write(bytes(PAGE_SIZE))
    with Store(store_path) as store:
        assert "table items" in store.verify().problems[0]


# -- the log


def log_files(path: Path) -> list[Path]:
    return sorted((path / "data").glob("log.*"))


def damage_middle(logs: list[Path]) -> None:
    written = max(i for i, byte in enumerate(logs[-1].read_bytes()) if byte)
    flip(logs[-1], written // 2)


LOG_DAMAGE: dict[str, Callable[[list[Path]], object]] = {
    "middle": damage_middle,
    "beginning": lambda logs: flip(logs[-1], 0, 64),
    "missing": lambda logs: [log.unlink() for log in logs],
    "empty": lambda logs: os.truncate(logs[-1], 0),
    "garbage": lambda logs: logs[-1].write_bytes(random.Random(3).randbytes(10_000)),
}


@pytest.mark.parametrize("kind", LOG_DAMAGE)
def test_a_damaged_log_is_told_before_anything_is_undone(sound: Path, store_path: Path, kind: str) -> None:
    """Berkeley DB takes a damaged log for a shorter one, and would take what is missing out of the tables."""
    LOG_DAMAGE[kind](log_files(store_path))
    before = {path.name: path.read_bytes() for path in (store_path / "data").glob("*.db")}
    for _ in range(2):
        with pytest.raises(StoreDamaged, match="log") as caught:
            Store(store_path)
        assert caught.value.table == "log"
    assert {path.name: path.read_bytes() for path in (store_path / "data").glob("*.db")} == before
    check_restored(sound, store_path)


def test_a_log_that_is_damaged_while_the_store_is_open_is_found_and_replaced_by_verify(store_path: Path) -> None:
    with Store(store_path) as store:
        card = next(item for item in store.items() if isinstance(item, Card))
        for number in range(50):
            card.name = f"name {number}"
        store._engine.checkpoint()
        damage_middle(log_files(store_path))
        problems = store.verify().problems
        assert len(problems) == 1
        assert problems[0].startswith("log:")
        assert store.verify().problems == []
    with Store(store_path) as store:
        assert store.get(card.item_id).name == "name 49"
        assert store.verify().problems == []


# -- records


def put(path: Path, table: str, key: bytes, value: bytes) -> None:
    """Write a record past everything that checks it."""
    engine = Engine(path / "data")
    engine._call(table, lambda: engine._write_alone(table, {key: value}))
    engine.close()


def test_a_journal_record_that_was_changed_breaks_the_chain(store_path: Path) -> None:
    with Store(store_path) as store:
        number = next(commit.number for commit in store.history() if commit.label == "cards from 2000")
        record = store._engine.get(JOURNAL, pack_u64(number))
    assert record is not None
    put(store_path, JOURNAL, pack_u64(number), record.replace(b"cards from 2000", b"cards from 9000"))
    with Store(store_path) as store:
        assert any("chain" in p and f"commit number {number}" in p for p in store.verify().problems)


def test_a_journal_record_that_is_no_pickle_is_told_and_found(store_path: Path) -> None:
    put(store_path, JOURNAL, pack_u64(9), bytes(40) + b"no pickle")
    with Store(store_path) as store:
        with pytest.raises(UnsafePickle):
            list(store.history())
        assert any("commit number 9" in problem for problem in store.verify().problems)


def test_a_journal_whose_end_is_cut_short_is_told(store_path: Path) -> None:
    with Store(store_path) as store:
        number = store.head.number
    put(store_path, JOURNAL, pack_u64(number), b"short")
    with pytest.raises(StoreDamaged) as caught:
        Store(store_path)
    assert caught.value.table == JOURNAL


def test_entries_that_do_not_fit_each_other_are_found(store_path: Path) -> None:
    engine = Engine(store_path / "data")
    index = engine.keys("index", b"", b"\xff" * 9, 1_000)
    reference = engine.keys("references", b"", b"\xff" * 9, 10)
    changes: dict[str, dict[bytes, bytes | None]] = {
        "index": {index[500]: None, index[501] + b"x": b""},
        "references": {reference[3]: None},
        "counters": {b"p" + pack_u64(1): (5).to_bytes(8, signed=True)},
        "catalog": {b"pool/nothing": pack_u64(999_999)},
        "commits": {engine.keys("commits", b"", b"\xff" * 9, 1)[0]: None},
    }
    for table, operations in changes.items():
        engine._call(table, lambda table=table, operations=operations: engine._write_alone(table, operations))
    engine.close()
    with Store(store_path) as store:
        problems = "\n".join(store.verify().problems)
    assert "its entry in index" in problems
    assert "entries belong to no item" in problems
    assert "its reference friend to item" in problems
    assert "counters: pool 1 is said to be 5" in problems
    assert "'pool/nothing' stands for item 999999" in problems
    assert "is not in the table of commits" in problems


def test_contents_of_a_file_that_were_changed_or_lost_are_found(store_path: Path) -> None:
    contents = sorted(path for path in (store_path / "files").rglob("*") if path.is_file())
    contents[0].chmod(0o600)
    contents[0].write_bytes(b"something else")
    contents[1].unlink()
    with Store(store_path) as store:
        problems = store.verify().problems
        assert any("damaged" in p for p in problems)
        assert any("missing" in p for p in problems)
        assert len(problems) == 2
        assert not any("damaged" in p for p in store.verify(files=False).problems)


# -- other versions


def test_a_store_of_a_newer_format_is_refused_and_left_alone(store_path: Path) -> None:
    put(store_path, "catalog", FORMAT_KEY, pack_u64(99))
    before = {path.name: path.read_bytes() for path in (store_path / "data").glob("*.db")}
    for _ in range(2):
        with pytest.raises(UnsupportedStore, match=r"format 99.*update Atop"):
            Store(store_path)
    assert {path.name: path.read_bytes() for path in (store_path / "data").glob("*.db")} == before


def test_a_log_of_another_berkeley_db_is_told_as_such(store_path: Path) -> None:
    with log_files(store_path)[-1].open("r+b") as log:
        log.seek(16)
        log.write(struct.pack("=I", 22))
    with pytest.raises(UnsupportedStore, match="another version of Berkeley DB"):
        Store(store_path)


def test_a_log_of_another_kind_of_machine_is_told_as_such(store_path: Path) -> None:
    with log_files(store_path)[-1].open("r+b") as log:
        log.seek(12)
        log.write(struct.pack(">I" if struct.pack("=H", 1) == b"\1\0" else "<I", 0x040988))
    with pytest.raises(UnsupportedStore, match="byte order"):
        Store(store_path)


def test_a_table_of_another_berkeley_db_is_told_as_such(store_path: Path) -> None:
    path = table_file(store_path, "references")
    path.unlink()
    table = db.DB()
    table.open(os.fspath(path), dbtype=db.DB_BTREE, flags=db.DB_CREATE)
    table.close()
    with path.open("r+b") as file:
        file.seek(16)
        file.write(struct.pack("=I", 11))
    with pytest.raises(UnsupportedStore, match="another version of Berkeley DB"):
        Store(store_path)


# -- what is beside the tables


def test_settings_that_came_with_the_files_are_not_obeyed(store_path: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (store_path / "data" / "DB_CONFIG").write_text(f"set_data_dir {elsewhere}\nset_lg_dir {elsewhere}\n")
    with Store(store_path) as store:
        Card(store)
    assert list(elsewhere.iterdir()) == []


def test_counters_that_are_damaged_or_lost_are_made_far_past_all_that_may_have_been_used(store_path: Path) -> None:
    counters = store_path / "local" / "counters"
    counters.write_bytes(b"items \xff\xff\n")
    with Store(store_path) as store:
        first = Card(store)
        assert first.item_id > UNKNOWN_GAP
        assert first.version > UNKNOWN_GAP
    counters.unlink()
    with Store(store_path) as store:
        assert Card(store).item_id > first.item_id + UNKNOWN_GAP - 1
