"""The log of a backup that somebody handed over: what Berkeley DB would replay, to any file of the user's."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

import pytest
from berkeleydb import db

from atop import Item, Store, StoreDamaged, restore
from atop.logrecords import BadLogRecord, check_log

ENVIRONMENT = db.DB_INIT_MPOOL | db.DB_INIT_TXN | db.DB_INIT_LOG | db.DB_INIT_LOCK | db.DB_PRIVATE | db.DB_CREATE


@pytest.fixture
def backup(store: Store, tmp_path: Path) -> Path:
    Item(store, name="Ada")
    store.backup(tmp_path / "there" / "backup")
    return tmp_path / "there" / "backup"


def test_restoring_a_backup_writes_nowhere_else(backup: Path, tmp_path: Path) -> None:
    """Whoever made this one had Berkeley DB log that a file beside the store was made."""
    environment = db.DBEnv()
    environment.open(str(backup / "data"), ENVIRONMENT | db.DB_RECOVER)
    table = db.DB(environment)
    table.open("../../evil.db", dbtype=db.DB_BTREE, flags=db.DB_CREATE | db.DB_AUTO_COMMIT)
    table.close()
    environment.log_flush()
    handed_over = tmp_path / "here" / "backup"
    shutil.copytree(backup, handed_over)  # before a checkpoint would make replaying needless
    environment.close()
    (backup.parent / "evil.db").unlink()
    with pytest.raises(StoreDamaged, match="not written by Atop"):
        restore(handed_over, tmp_path / "home" / "store")
    assert not list(tmp_path.rglob("evil*"))
    assert not (tmp_path / "home" / "store").exists()


def test_the_log_of_a_store_that_has_seen_much_is_sound(store: Store) -> None:
    pool = store.pool("notes", indexes=["text"])
    for size in (10, 3_000, 60_000):
        with store.transaction():
            for number in range(40):
                pool.add(Item(store, text="x" * (size + number)))
    with pytest.raises(ZeroDivisionError), store.transaction():
        Item(store, number=1 / 0)
    for item in list(pool)[::2]:
        item.delete()
    store.compact()
    check_log(store.path / "data")


def replaced(log: bytes, before: bytes, after: bytes) -> bytes:
    assert before in log
    return log.replace(before, after)


def with_another_back(log: bytes) -> bytes:
    second = struct.unpack_from("<III", log, 0)[1]
    third = second + struct.unpack_from("<III", log, second)[1]
    return log[:third] + struct.pack("<I", 17) + log[third + 4 :]


CHANGED = {
    "a name": lambda log: replaced(log, b"items.db\0", b"../../x\0\0"),
    "where the record before begins": with_another_back,
}


@pytest.mark.parametrize("name", CHANGED)
def test_a_log_that_was_changed_is_refused(name: str, open_store) -> None:
    with open_store() as store:
        Item(store, name="Ada")
        path = store.path / "data" / "log.0000000001"
    check_log(path.parent)
    path.write_bytes(CHANGED[name](path.read_bytes()))
    with pytest.raises(BadLogRecord):
        check_log(path.parent)


def test_a_log_that_is_cut_short_ends_there(store: Store) -> None:
    Item(store, name="Ada")
    path = store.path / "data" / "log.0000000001"
    whole = path.read_bytes().rstrip(b"\0")
    for length in (0, 5, 40, 1_000, len(whole) - 3):
        copy = store.path / "files" / "log.0000000001"
        copy.write_bytes(whole[:length])
        check_log(copy.parent)
        copy.unlink()
