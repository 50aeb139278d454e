"""Copies of a whole store, made while it is in use, and putting them back.

A backup is a store itself, in all but its identity: opened with `Store(path)` it can be looked at. Restoring one makes
a store whose new numbers lie far past those of the backup, so that what was written after it is never confused with
what will be written now.

Promises: a backup has every commit that had returned when it began, and none in part. It is recovered and its pages are
checked before it gets its name, so there is no backup that cannot be opened. A restore leaves the store that was there
as it was, aside; it copies what belongs to a store and nothing else, and follows no symbolic link.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from atop.disk import explained, sync_directory, sync_tree
from atop.engine import Engine
from atop.errors import AtopError, NoSuchStore, StoreDamaged, StoreError, StoreReadOnly
from atop.files import FileArea
from atop.owner import OwnerLock

if TYPE_CHECKING:
    import os

    from atop.store import Store

Progress = Callable[[int, int], None]

# The files of a database: all that is copied of a backup's data directory.
_DATABASE_FILE = re.compile(r"\w+\.db|log\.\d{10}")
# Memory for pages, in bytes, while a copy is checked.
CHECK_CACHE = 16 << 20


def back_up(store: Store, target: Path, progress: Progress | None) -> None:
    """Copy the database, then the contents of files that it may name, to the new directory `target`."""
    target = target.parent.resolve() / target.name
    if target.exists() or target.is_symlink():
        raise StoreError(f"{target} is there already: a backup goes to a new directory", target)
    if target.is_relative_to(store.path.resolve()):
        raise StoreError(f"{target} is inside the store: a backup goes elsewhere, best to another disk", target)
    incomplete = target.with_name(target.name + ".incomplete")
    try:
        shutil.rmtree(incomplete, ignore_errors=True)
        incomplete.mkdir(mode=0o700, parents=True)
        (incomplete / "data").mkdir(mode=0o700)
        (incomplete / "files").mkdir(mode=0o700)
        store._engine.backup(incomplete / "data")
        _make_whole(incomplete / "data", store.path)
        # After the database: contents are in place before a commit names them, so all that it names are here now.
        _copy_files(store._file_area, FileArea(incomplete / "files"), progress)
        sync_tree(incomplete)
        incomplete.rename(target)
        sync_directory(target.parent)
    except OSError as error:
        raise explained(error, target) from error
    finally:
        shutil.rmtree(incomplete, ignore_errors=True)


def _make_whole(data: Path, store: Path) -> None:
    """Recover a copy of the database, and check its pages. Raises `StoreDamaged` if they came damaged."""
    engine = Engine(data, cache_size=CHECK_CACHE)
    try:
        problems = list(engine.verify_pages())
    finally:
        engine.close()
    if problems:
        raise StoreDamaged(
            f"the store {store} is damaged ({problems[0]}): no backup was made, lest it take the place of a good one; "
            "restore the store from an earlier backup (atop restore)",
            store,
        )


def restore(backup: str | os.PathLike[str], target: str | os.PathLike[str], *, force: bool = False) -> Path | None:
    """Make the store `target` what the backup is; returns where the store that was there before is now, or None.

    Args:
        force: if a store is there, move it aside (to a name that ends in `.before-restore`) instead of refusing.

    Raises:
        NoSuchStore: `backup` is not a backup.
        StoreError: `target` is there, and `force` is not given; or it is the backup, or a part of it.
        StoreBusy: the store at `target`, or the backup, is open.
        StoreDamaged, UnsupportedStore: the backup is; `target` is as it was.
    """
    source, path = Path(backup).expanduser().resolve(), Path(target).expanduser().resolve()
    if not (source / "data").is_dir():
        raise NoSuchStore(f"{source} is not a backup of a store", source)
    if path.is_relative_to(source) or source.is_relative_to(path):
        raise StoreError(f"{path} and the backup {source} are not apart: choose another path", path)
    there = path.exists() and (not path.is_dir() or any(path.iterdir()))
    if there and not (path / "data").is_dir():
        raise StoreError(f"{path} is there and is not a store: choose another path", path)
    if there and not force:
        raise StoreError(f"{path} is there already: choose another path, or move it aside with force (--force)", path)
    incoming = path.with_name(path.name + ".incoming")
    with contextlib.ExitStack() as locks:
        if there:
            locks.enter_context(_kept_closed(path))
        if (source / "local").is_dir():
            with contextlib.suppress(StoreReadOnly):  # then nobody can have it open
                locks.enter_context(_kept_closed(source))
        try:
            shutil.rmtree(incoming, ignore_errors=True)
            _copy_store(source, incoming)
            _check_copy(incoming, source)
            sync_tree(incoming)
            aside = _move_aside(path) if there else None
            if path.exists():
                path.rmdir()
            incoming.rename(path)
            sync_directory(path.parent)
        except OSError as error:
            raise explained(error, path) from error
        finally:
            shutil.rmtree(incoming, ignore_errors=True)
    return aside


@contextlib.contextmanager
def _kept_closed(path: Path) -> Iterator[None]:
    """Keep everybody from opening the store at `path`. Raises `StoreBusy` if somebody has."""
    try:
        (path / "local").mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise explained(error, path) from error
    lock = OwnerLock(path / "local" / "owner.lock", path)
    try:
        yield
    finally:
        lock.release()


def _copy_store(source: Path, target: Path) -> None:
    target.mkdir(mode=0o700, parents=True)
    (target / "data").mkdir(mode=0o700)
    (target / "files").mkdir(mode=0o700)
    for path in sorted((source / "data").iterdir()):
        if _DATABASE_FILE.fullmatch(path.name) and _is_plain(path):
            shutil.copyfile(path, target / "data" / path.name)
            (target / "data" / path.name).chmod(0o600)
    if (source / "files").is_dir():
        _copy_files(FileArea(source / "files"), FileArea(target / "files"), None)


def _check_copy(path: Path, source: Path) -> None:
    from atop.store import Store

    try:
        with Store(path, create=False, cache_size=CHECK_CACHE) as store:
            report = store.verify()
    except StoreDamaged as error:
        raise _unusable(source, str(error), error.table) from error
    except AtopError as error:
        error.args = (str(error).replace(str(path), str(source)), *error.args[1:])
        raise
    if not report.ok:
        raise _unusable(source, report.problems[0], None)
    shutil.rmtree(path / "local")


def _unusable(source: Path, why: str, table: str | None) -> StoreDamaged:
    return StoreDamaged(f"the backup {source} is damaged, and was not restored: {why}", source, table)


def _move_aside(path: Path) -> Path:
    """Move the store at `path`, which is kept closed, out of the way."""
    number = 0
    while (aside := path.with_name(f"{path.name}.before-restore{f'-{number}' if number else ''}")).exists():
        number += 1
    path.rename(aside)
    return aside


def _copy_files(source: FileArea, target: FileArea, progress: Progress | None) -> None:
    digests = list(source.digests())
    for done, digest in enumerate(digests, 1):
        origin, path = source.path_of(digest), target.path_of(digest)
        if _is_plain(origin) and not origin.parent.is_symlink():
            path.parent.mkdir(mode=0o700, exist_ok=True)
            shutil.copyfile(origin, path)
            path.chmod(0o400)
        if progress is not None:
            progress(done, len(digests))


def _is_plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


__all__ = ["back_up", "restore"]
