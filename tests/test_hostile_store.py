"""A store and what does not belong in it: names of items that are gone, links, foreign and damaged files."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta, timezone
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from atop import Item, NoSuchItem, NoSuchStore, Store, StoreDamaged, StoreError, UnsafePickle, UnstorableValue, restore
from atop.records import dumps, loads


def in_thread(function: Callable[[], object]) -> None:
    """Run `function` in another thread, and wait for it; what it raises is raised here."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(function).result()


# -- names that set_root gave


def test_the_names_of_an_item_go_when_it_is_deleted(store: Store) -> None:
    item, other = Item(store), Item(store)
    store.set_root("one", item)
    store.set_root("two", item)
    store.set_root("three", other)
    item.delete()
    for name in ("one", "two"):
        with pytest.raises(NoSuchItem, match=name):
            store.root(name)
    assert store.root("three") is other
    assert store.verify().problems == []


def test_a_name_and_the_deletion_of_its_item_may_be_one_transaction(store: Store) -> None:
    with store.transaction():
        item = Item(store)
        store.set_root("settings", item)
        item.delete()
    assert store.verify().problems == []


def test_a_deletion_that_is_rolled_back_leaves_the_name(store: Store, undone) -> None:
    item = Item(store)
    store.set_root("settings", item)
    with undone():
        item.delete()
    assert store.root("settings") is item


def test_an_item_that_is_gone_is_given_no_name(store: Store) -> None:
    item, other = Item(store), Item(store)
    item.delete()
    with pytest.raises(NoSuchItem):
        store.set_root("settings", item)
    with pytest.raises(NoSuchItem), store.transaction():
        other.delete()
        store.set_root("settings", other)
    assert store.verify().problems == []


def test_an_item_that_is_deleted_meanwhile_is_given_no_name(store: Store, conflicting) -> None:
    item = Item(store)
    with conflicting():
        store.set_root("settings", item)
        in_thread(item.delete)
    assert store.verify().problems == []


def test_an_item_that_is_given_a_name_meanwhile_is_not_deleted(store: Store, conflicting) -> None:
    item = Item(store)
    with conflicting():
        item.delete()
        in_thread(lambda: store.set_root("settings", item))
    assert store.root("settings") is item


# -- what a restore takes, and what it leaves alone


def write_past_the_store(store: Store, table: str, key: bytes, value: bytes | None) -> None:
    """Change one record of a table, and nothing that goes with it."""
    handle = store._engine._tables[table]
    if value is None:
        store._engine._call(table, lambda: handle.delete(key), writing=True)
    else:
        store._engine._call(table, lambda: handle.put(key, value), writing=True)


def dangling_name(store: Store) -> None:
    write_past_the_store(store, "catalog", b"root/settings", (999).to_bytes(8))


def wrong_count(store: Store) -> None:
    write_past_the_store(store, "counters", b"p" + store.pool("people").item_id.to_bytes(8), (7).to_bytes(8))


def missing_entry(store: Store) -> None:
    key = store._engine.keys("index", b"", b"\xff" * 9, 1)[0]
    write_past_the_store(store, "index", key, None)


def missing_contents(store: Store) -> None:
    for digest in store._file_area.digests():
        store._file_area.path_of(digest).unlink()


@pytest.mark.parametrize("fault", [dangling_name, wrong_count, missing_entry, missing_contents])
def test_a_backup_whose_records_do_not_fit_together_is_restored_and_that_is_said(
    fault: Callable[[Store], None], store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    item = Item(store, name="Ada", photo=store.file(b"a picture"))
    store.pool("people", indexes=["name"]).add(item)
    fault(store)
    store.backup(tmp_path / "copy")
    with caplog.at_level(logging.WARNING):
        restore(tmp_path / "copy", tmp_path / "again")
    with Store(tmp_path / "again", create=False) as again:
        assert again.get(item.item_id).name == "Ada"
        for problem in again.verify().problems:
            assert problem in caplog.text
        assert again.verify().problems != []


@pytest.mark.parametrize("table", ["items", "journal"])
def test_a_backup_with_a_record_that_cannot_be_read_is_not_restored(table: str, store: Store, tmp_path: Path) -> None:
    Item(store)
    key, record = store._engine.pairs(table, b"", b"\xff" * 9, 1)[0]
    write_past_the_store(store, table, key, record[:-5])
    store.backup(tmp_path / "copy")
    with pytest.raises(StoreDamaged, match="was not restored"):
        restore(tmp_path / "copy", tmp_path / "again")
    assert [path.name for path in tmp_path.iterdir() if "again" in path.name] == []


def test_a_backup_is_restored_whatever_its_name_is(store: Store, tmp_path: Path) -> None:
    item = Item(store)
    backup = tmp_path / "again.incoming"
    store.backup(backup)
    restore(backup, tmp_path / "again")
    assert (backup / "data" / "catalog.db").is_file()
    with Store(tmp_path / "again", create=False) as again:
        assert [found.item_id for found in again.items()] == [item.item_id]


def test_backup_and_restore_remove_nothing_that_they_have_not_made(store: Store, tmp_path: Path) -> None:
    for suffix in (".incomplete", ".incoming", ".backup.incomplete", ".restore.incomplete"):
        for name in ("copy", "again"):
            (tmp_path / f"{name}{suffix}").mkdir()
            (tmp_path / f"{name}{suffix}" / "letter").write_text("mine")
    before = {path: path.read_text() for path in tmp_path.glob("*/letter")}
    store.backup(tmp_path / "copy")
    restore(tmp_path / "copy", tmp_path / "again")
    assert {path: path.read_text() for path in tmp_path.glob("*/letter")} == before
    assert len(list(tmp_path.iterdir())) == 8 + 2


def test_a_directory_without_a_catalog_is_no_backup(store: Store, tmp_path: Path) -> None:
    store.backup(tmp_path / "copy")
    (tmp_path / "copy" / "data" / "catalog.db").unlink()
    with pytest.raises(NoSuchStore, match="not a backup"):
        restore(tmp_path / "copy", tmp_path / "again")


def test_copies_are_the_users_alone_under_any_umask(store: Store, tmp_path: Path) -> None:
    Item(store, photo=store.file(b"a picture"))
    before = os.umask(0)
    try:
        store.backup(tmp_path / "copy")
        for path in (tmp_path / "copy").rglob("*"):
            path.chmod(0o777 if path.is_dir() else 0o666)  # as on a stick
        restore(tmp_path / "copy", tmp_path / "again")
        with Store(tmp_path / "again") as again:
            Item(again)
    finally:
        os.umask(before)
    restored = [tmp_path / "again", *(tmp_path / "again").rglob("*")]
    assert [path for path in restored if path.stat().st_mode & 0o077] == []


# -- what is taken for a store, and what is removed in it


def contents_of(directory: Path) -> dict[Path, str | None]:
    return {path: path.read_text() if path.is_file() else None for path in sorted(directory.rglob("*"))}


@pytest.mark.parametrize("part", ["data", "files", "local", "files/incoming"])
def test_a_directory_of_a_store_that_is_a_link_is_refused(part: str, open_store) -> None:
    path = open_store().path
    open_store().close()
    elsewhere = path.parent / "elsewhere"
    (path / part).rename(elsewhere)
    (elsewhere / "0123456789abcdef").write_text("mine")
    (path / part).symlink_to(elsewhere)
    before = sorted(elsewhere.iterdir())
    with pytest.raises(StoreError, match="symbolic link"):
        Store(path)
    assert sorted(elsewhere.iterdir()) == before


def test_opening_removes_contents_that_were_not_completed_and_nothing_else(open_store) -> None:
    incoming = open_store().path / "files" / "incoming"
    (incoming / "0123456789abcdef").write_text("half")
    (incoming / "letter").write_text("mine")
    (incoming / "fedcba9876543210").mkdir()
    (incoming / "1111111111111111").symlink_to("letter")
    open_store()
    assert sorted(path.name for path in incoming.iterdir()) == ["1111111111111111", "fedcba9876543210", "letter"]


@pytest.mark.parametrize("create", [False, True])
@pytest.mark.parametrize("name", ["data/table.csv", "data/log.txt", "letter"])
def test_a_directory_of_something_else_is_no_store_and_stays_as_it_is(create: bool, name: str, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / name).write_text("mine")
    before = contents_of(tmp_path)
    with pytest.raises(NoSuchStore):
        Store(tmp_path, create=create)
    assert contents_of(tmp_path) == before


def test_a_store_without_its_catalog_is_damaged_and_stays_as_it_is(open_store) -> None:
    path = open_store().path
    open_store().close()
    (path / "data" / "catalog.db").unlink()
    before = {found.name: found.stat().st_mtime_ns for found in path.rglob("*")}
    with pytest.raises(StoreDamaged, match=r"catalog\.db is missing"):
        Store(path)
    assert {found.name: found.stat().st_mtime_ns for found in path.rglob("*")} == before


# -- records that no store writes


MISSHAPEN: dict[str, tuple[Any, ...]] = {
    "a name that is no text": ("atop.Item", 1, {5: 6}, ()),
    "a name that is no text, of a container": ("atop.Item", 1, {"a": 1, 5: [6]}, ()),
    "a pool that is no id": ("atop.Item", 1, {}, ("people",)),
    "a pool of number 0": ("atop.Item", 1, {}, (0,)),
    "a pool past all ids": ("atop.Item", 1, {}, (1, 1 << 63)),
    "a schema that is no number": ("atop.Item", "1", {}, ()),
    "a schema before the first": ("atop.Item", -(10**12), {}, ()),
    "a class that is no text": (5, 1, {}, ()),
}


@pytest.mark.parametrize("fields", MISSHAPEN.values(), ids=MISSHAPEN)
def test_a_record_of_another_shape_is_refused_and_its_item_named(fields: tuple[Any, ...], open_store) -> None:
    item_id = Item(open_store()).item_id
    write_past_the_store(open_store(), "items", item_id.to_bytes(8), (1).to_bytes(8) + dumps(fields))
    store = open_store()
    for read in (store.get, store._objects.read_state, lambda item_id: list(store.items())):
        with pytest.raises(UnsafePickle, match=f"item {item_id}: "):
            read(item_id)
    assert [problem for problem in store.verify().problems if problem.startswith(f"item {item_id}: ")]


# -- numbers, times and names past what there is


@pytest.mark.parametrize("keep", [timedelta.max, timedelta(days=4_000_000), timedelta.min])
def test_history_can_be_kept_for_longer_than_calendars_reach(keep: timedelta, store: Store) -> None:
    Item(store)
    Item(store)
    assert store.compact(keep=keep).commits == (0 if keep > timedelta(0) else 1)


def test_a_history_that_goes_round_in_a_circle_ends(store: Store) -> None:
    item = Item(store)
    item.name = "Ada"
    key, record = store._engine.pairs("journal", b"", b"\xff" * 9, 5)[1]
    commit_id, when, label, changes = loads(record[40:])
    kind, item_id, _, *rest = changes[0]
    forged = dumps((commit_id, when, label, [(kind, item_id, commit_id, *rest)]))
    write_past_the_store(store, "journal", key, record[:40] + forged)
    assert len(list(islice(item.history(), 10))) == 1


@pytest.mark.parametrize(
    "fields",
    [
        (1, Decimal("sNaN"), "label", []),
        (1, 5, "label", [("~", "x", 1, {}, (), None, None)]),
        (1, 5, "label", [("~", 1, 1, {}, 7, None, None)]),
        (1, 5, "label", [7]),
        (1, 5, "label", None),
    ],
)
def test_a_commit_of_another_shape_is_told_and_nothing_else_is_raised(fields: tuple[Any, ...], store: Store) -> None:
    Item(store)
    key, record = store._engine.pairs("journal", b"", b"\xff" * 9, 1)[0]
    write_past_the_store(store, "journal", key, record[:40] + dumps(fields))
    with pytest.raises(UnsafePickle):
        [(commit.changes, commit.item_ids) for commit in store.history()]
    with pytest.raises(StoreDamaged, match="journal"):
        store._engine._changed_in(record[:40] + dumps((*fields[:1], Decimal(5), *fields[2:])))
    assert any("commit number 1" in problem for problem in store.verify().problems)


def test_a_clock_past_the_last_year_leaves_the_history_readable(open_store, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store()
    monkeypatch.setattr("time.time_ns", lambda: 10**21)
    item = Item(store)
    monkeypatch.undo()
    store = open_store()
    store.get(item.item_id).name = "Ada"
    times = [commit.time for commit in store.history()]
    assert times[1].year == 9999
    assert times[0].year < 9999  # the next commit has the time that it is
    assert times[1].astimezone(timezone(timedelta(hours=14))).year == 9999


@pytest.mark.parametrize("text", ["items 99999999999999999999\ncommits 1\n", f"items 1\ncommits {1 << 39}\n"])
def test_counters_past_all_numbers_are_damage(text: str, open_store) -> None:
    path = open_store().path
    open_store().close()
    (path / "local" / "counters").write_text(text)
    with pytest.raises(StoreDamaged, match="remove it"):
        Store(path)
    (path / "local" / "counters").unlink()
    with Store(path) as store:
        assert Item(store).item_id > 0


def test_counters_that_are_no_file_are_damage(open_store) -> None:
    path = open_store().path
    open_store().close()
    (path / "local" / "counters").unlink()
    (path / "local" / "counters").mkdir()
    with pytest.raises(StoreDamaged, match="remove it"):
        Store(path)


HALF = "\ud800"  # of a surrogate pair: a str may hold it, and no UTF-8


def test_names_that_cannot_be_written_are_refused_at_once(store: Store) -> None:
    item = Item(store)
    before = store.head
    with store.transaction():
        for use in (
            lambda: store.pool(HALF),
            lambda: store.set_root(HALF, item),
            lambda: store.root(HALF),
            lambda: setattr(item, HALF, item),
            lambda: Item(store, **{HALF: item}),
        ):
            with pytest.raises((ValueError, UnstorableValue), match="written as UTF-8"):
                use()
    assert store.head == before


def test_a_pool_that_has_had_all_index_numbers_says_so_and_stays_as_it_is(store: Store) -> None:
    pool = store.pool("people")
    pool.add(Item(store, name="Ada"))
    with store.transaction() as transaction:
        transaction.write(pool)["next_number"] = 65_535
    pool.add_index("name")
    before = store.head
    with pytest.raises(ValueError, match="make another pool"):
        pool.add_index("born")
    assert store.head == before
    assert store.verify().problems == []


def test_a_number_past_all_commits_is_after_the_last(store: Store) -> None:
    Item(store)
    assert [commit.number for commit in store.history(before=1 << 70)] == [1]


def test_what_is_no_file_of_contents_is_left_alone_by_compaction(store: Store) -> None:
    directory = store.path / "files" / "ab" / ("0" * 62)
    directory.mkdir(parents=True)
    link = directory.with_name("1" * 62)
    link.symlink_to(store.path / "data" / "items.db")
    assert store.compact(grace=0).files == 0
    assert directory.is_dir()
    assert link.is_symlink()


@pytest.mark.parametrize(
    "name", ["data/items.db", "data/log.0000000001", "data/__db.rep.init", "local/counters", "local/log-mark"]
)
def test_a_pipe_in_the_place_of_a_file_is_damage_and_not_waited_for(name: str, open_store) -> None:
    path = open_store().path
    open_store().close()
    (path / name).unlink(missing_ok=True)
    os.mkfifo(path / name)
    with pytest.raises(StoreDamaged, match="no plain file"):
        Store(path)
