"""A backup is a store as it was at one moment; a restore makes a store of it, and takes nothing else's place."""

from __future__ import annotations

import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from atop import File, Item, NoSuchStore, Store, StoreBusy, StoreError, restore

CACHE = 2 << 20


class Sheet(Item, type_name="backup.Sheet"):
    number: int = 0
    text: str = ""
    scan: File | None = None
    twin: Sheet | None = None


@pytest.fixture
def filled(store: Store) -> Store:
    """A store with a pool, an index, a reference and a file."""
    with store.transaction():
        pool = store.pool("sheets", indexes=["number"])
        first = Sheet(store, number=1, scan=store.file(b"contents", name="scan.pdf"))
        pool.add(first)
        pool.add(Sheet(store, number=2, twin=first))
    return store


def check_sheets(path: Path) -> None:
    with Store(path, cache_size=CACHE) as store:
        assert store.verify().problems == []
        first, second = store.pool("sheets").query("number")
        assert first.scan.read() == b"contents"
        assert second.twin is first


# -- backing up


def test_a_backup_is_a_store_and_can_be_opened(filled: Store, tmp_path: Path) -> None:
    filled.backup(tmp_path / "backup")
    check_sheets(tmp_path / "backup")


def test_a_backup_has_no_identity_and_no_long_log(filled: Store, tmp_path: Path) -> None:
    filled.backup(tmp_path / "backup")
    assert {path.name for path in (tmp_path / "backup").iterdir()} == {"data", "files"}
    assert len(list((tmp_path / "backup" / "data").glob("log.*"))) == 1


def test_progress_is_told_for_each_file(filled: Store, tmp_path: Path) -> None:
    filled.pool("sheets").add(Sheet(filled, scan=filled.file(b"another")))
    told: list[tuple[int, int]] = []
    filled.backup(tmp_path / "backup", progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 2), (2, 2)]


@pytest.mark.parametrize("where", ["inside", "data", "link to the store", "there already", "a link", "no directory"])
def test_a_backup_goes_to_a_new_directory_outside_of_the_store(filled: Store, tmp_path: Path, where: str) -> None:
    target = {
        "inside": filled.path / "backup",
        "data": filled.path / "data" / "backup",
        "link to the store": tmp_path / "link" / "backup",
        "there already": tmp_path / "there",
        "a link": tmp_path / "dangling",
        "no directory": tmp_path / "file" / "backup",
    }[where]
    (tmp_path / "there").mkdir()
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(filled.path)
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    with pytest.raises(StoreError):
        filled.backup(target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dangling", "file", "link", "there"]
    assert not (filled.path / "backup.incomplete").exists()
    assert filled.verify().problems == []


@pytest.mark.slow
def test_a_backup_that_is_made_while_others_commit_has_a_prefix_of_the_history(store: Store, tmp_path: Path) -> None:
    """And of each commit in it all: leaves of one sheet have one number; contents of files are there."""
    pool = store.pool("sheets", indexes=["number"])
    stop, turns = threading.Event(), threading.Semaphore(0)  # so many commits go with each backup, or less

    def write(worker: int) -> None:
        with store.transaction():
            mine = [Sheet(store, text=str(worker)) for _ in range(5)]
            for sheet in mine:
                pool.add(sheet)
        number = 0
        while not stop.is_set():
            if not turns.acquire(timeout=0.1):
                continue
            number += 1
            with store.transaction():
                scan = store.file(f"{worker} {number}".encode() * 1_000) if number % 30 == 1 else mine[0].scan
                for sheet in mine:
                    sheet.number = number
                    sheet.scan = scan

    def tidy() -> None:
        while not stop.is_set():
            store.compact(grace=0.5)
            store._engine.checkpoint()
            stop.wait(0.05)

    backups = [tmp_path / f"backup {number}" for number in range(4)]
    before, after = [], []
    with ThreadPoolExecutor(5) as threads:
        workers = [threads.submit(write, worker) for worker in range(4)] + [threads.submit(tidy)]
        try:
            for path in backups:
                turns.release(1_500)
                before.append(store.head.number)
                store.backup(path)
                after.append(store.head.number)
        finally:
            stop.set()
        for worker in workers:
            worker.result()
    chains = {commit.number: commit.chain for commit in store.history()}
    for path, first, last in zip(backups, before, after, strict=True):
        with Store(path, cache_size=CACHE) as backup:
            assert backup.verify().problems == []
            assert first <= backup.head.number <= last
            assert backup.head.chain == chains[backup.head.number]
            for worker in range(4):
                found = {(s.number, s.scan) for s in backup.pool("sheets") if s.text == str(worker)}
                assert len(found) <= 1
    assert store.verify().problems == []


# -- restoring


def test_a_restored_store_is_what_the_backup_was(filled: Store, tmp_path: Path) -> None:
    filled.backup(tmp_path / "backup")
    assert restore(tmp_path / "backup", tmp_path / "restored") is None
    check_sheets(tmp_path / "restored")
    check_sheets(tmp_path / "backup")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["backup", "restored"]


def test_restoring_moves_the_store_aside_and_only_if_told_to(filled: Store, tmp_path: Path) -> None:
    filled.backup(tmp_path / "backup")
    path = filled.path
    Sheet(filled, number=3)
    filled.close()
    with pytest.raises(StoreError, match="--force"):
        restore(tmp_path / "backup", path)
    aside = restore(tmp_path / "backup", path, force=True)
    assert aside == path.with_name("store.before-restore")
    check_sheets(path)
    with Store(aside) as old:
        assert len([item for item in old.items() if isinstance(item, Sheet)]) == 3
    assert restore(tmp_path / "backup", path, force=True) == path.with_name("store.before-restore-1")


def test_an_open_store_is_neither_replaced_nor_moved(filled: Store, tmp_path: Path) -> None:
    filled.backup(tmp_path / "backup")
    with pytest.raises(StoreBusy, match="this process"):
        restore(tmp_path / "backup", filled.path, force=True)
    Sheet(filled)
    assert sorted(path.name for path in filled.path.parent.iterdir()) == ["store"]


def test_a_backup_that_is_open_itself_is_not_copied(filled: Store, tmp_path: Path) -> None:
    filled.backup(tmp_path / "backup")
    with Store(tmp_path / "backup"), pytest.raises(StoreBusy):
        restore(tmp_path / "backup", tmp_path / "restored")
    assert not (tmp_path / "restored").exists()


def test_a_restored_store_never_uses_an_id_that_the_store_has_used_since(filled: Store, tmp_path: Path) -> None:
    filled.backup(tmp_path / "backup")
    with filled.transaction():
        since = {Sheet(filled).item_id for _ in range(2_000)}
    commits = {commit.commit_id for commit in filled.history()}
    restore(tmp_path / "backup", tmp_path / "restored")
    with Store(tmp_path / "restored") as restored:
        again = Sheet(restored)
        assert again.item_id > max(since)
        assert again.version > max(commits)
    restore(tmp_path / "backup", tmp_path / "again")


def test_what_is_no_backup_is_told(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for path in (tmp_path / "photos", tmp_path / "nothing"):
        with pytest.raises(NoSuchStore, match="not a backup"):
            restore(path, tmp_path / "restored")
    assert not (tmp_path / "restored").exists()


def test_what_is_no_store_is_not_replaced(filled: Store, tmp_path: Path) -> None:
    filled.backup(tmp_path / "backup")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "ada.jpg").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "photos", tmp_path / "file"):
        with pytest.raises(StoreError, match="is not a store"):
            restore(tmp_path / "backup", path, force=True)
    assert (tmp_path / "photos" / "ada.jpg").read_text() == "mine"
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("where", ["itself", "inside", "around"])
def test_a_backup_is_not_restored_over_itself(filled: Store, tmp_path: Path, where: str) -> None:
    around = tmp_path / "around"
    around.mkdir()
    filled.backup(around / "backup")
    target = {"itself": around / "backup", "inside": around / "backup" / "new", "around": around}[where]
    with pytest.raises(StoreError):
        restore(around / "backup", target, force=True)
    check_sheets(around / "backup")


def test_nothing_but_a_stores_own_files_is_restored(filled: Store, tmp_path: Path) -> None:
    """A backup may come from somewhere else: what it refers to outside of it stays there."""
    filled.backup(tmp_path / "backup")
    secret = tmp_path / "secret"
    secret.write_text("private")
    data, files = tmp_path / "backup" / "data", tmp_path / "backup" / "files"
    (data / "DB_CONFIG").write_text("set_data_dir /\n")
    (data / "log.0000000099").symlink_to(secret)
    (data / "program").write_text("#!/bin/sh")
    (files / "ab").mkdir()
    (files / "ab" / ("c" * 62)).symlink_to(secret)
    (files / "cd").symlink_to(tmp_path)
    os.mkfifo(data / "log.0000000098")
    (tmp_path / "backup" / "local").mkdir()
    (tmp_path / "backup" / "local" / "identity").write_text("another device's")
    restore(tmp_path / "backup", tmp_path / "restored")
    check_sheets(tmp_path / "restored")
    there = [path for path in (tmp_path / "restored").rglob("*") if path.is_symlink() or path.name in {"program"}]
    assert there == []
    assert not (tmp_path / "restored" / "local" / "identity").exists()
    assert "set_data_dir" not in (tmp_path / "restored" / "data" / "DB_CONFIG").read_text()


def test_a_backup_on_a_read_only_medium_can_be_restored(filled: Store, tmp_path: Path) -> None:
    filled.backup(tmp_path / "backup")
    with Store(tmp_path / "backup"):
        pass  # it has a lock file from now on
    for path in (tmp_path / "backup").rglob("*"):
        path.chmod(0o500 if path.is_dir() else 0o400)
    restore(tmp_path / "backup", tmp_path / "restored")
    check_sheets(tmp_path / "restored")
    shutil.rmtree(tmp_path / "backup", ignore_errors=True)
