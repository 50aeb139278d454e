"""Copies of a whole store, made while it is in use, and putting them back.

A backup is a store itself, in all but its identity: opened with `Store(path)` it can be looked at. Restoring one makes
a store whose new numbers lie far past those of the backup, so that what was written after it is never confused with
what will be written now.

Promises: a backup has every commit that had returned when it began, and none in part. It is recovered and its pages are
checked before it gets its name, so there is no backup that cannot be opened. A restore leaves the store that was there
as it was, aside; it copies what belongs to a store and nothing else, and follows no symbolic link. Neither removes or
replaces anything that it has not made itself. What a crash leaves of either has a name that ends in
`.backup.incomplete` or `.restore.incomplete`, and may be removed.

A backup with damaged pages, records or journal is not restored. One in which records merely do not fit together (an
index entry, a count, a reference to an item that is gone, the missing contents of a file) is, and the log says so: the
store that it was made of had those faults too.
"""

from __future__ import annotations

import contextlib
import logging
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from atop.disk import explained, sync_directory, sync_tree
from atop.engine import Engine
from atop.errors import AtopError, NoSuchStore, StoreDamaged, StoreError, StoreReadOnly
from atop.files import FileArea
from atop.logrecords import BadLogRecord, check_log
from atop.owner import LOCK_NAME, OwnerLock
from atop.writeset import CATALOG

if TYPE_CHECKING:
    import os

    from atop.store import Store

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]

# The files of a database: all that is copied of a backup's data directory.
_DATABASE_FILE = re.compile(r"\w+\.db|log\.\d{10}")
# Memory for pages, in bytes, while a copy is checked.
CHECK_CACHE = 16 << 20
# How many faults of a store that is restored are logged, each in a line.
MAX_TOLD = 10


def back_up(store: Store, target: Path, progress: Progress | None) -> None:
    """Copy the database, then the contents of files that it may name, to the new directory `target`."""
    target = target.parent.resolve() / target.name
    if target.exists() or target.is_symlink():
        raise StoreError(f"{target} is there already: a backup goes to a new directory", target)
    if target.is_relative_to(store.path.resolve()):
        raise StoreError(f"{target} is inside the store: a backup goes elsewhere, best to another disk", target)
    with _arriving(target, "backup") as incomplete:
        store._tenure.engine.backup(incomplete / "data")
        _make_whole(incomplete / "data", store.path)
        # After the database: contents are in place before a commit names them, so all that it names are here now.
        _copy_files(store._file_area, FileArea(incomplete / "files"), progress)
        missing = sum(not store._file_area.has(digest) for digest, _ in store._tenure.engine.named_files())
        if missing:  # they are on other devices, and have not come yet; or they are lost, as verify says
            log.warning("%s lacks the contents of %d files, which are not on this device", target, missing)
        sync_tree(incomplete)
        incomplete.rename(target)
        sync_directory(target.parent)


@contextlib.contextmanager
def _arriving(target: Path, what: str) -> Iterator[Path]:
    """A new directory beside `target`, with empty parts of a store, removed at the end if it still has that name."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        incomplete = Path(tempfile.mkdtemp(f".{what}.incomplete", f"{target.name}.", target.parent))
    except OSError as error:
        raise explained(error, target) from error
    try:
        (incomplete / "data").mkdir(mode=0o700)
        (incomplete / "files").mkdir(mode=0o700)
        yield incomplete
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

    Faults of the backup that are no damage (see above) are logged as warnings.

    Args:
        force: if a store is there, move it aside (to a name that ends in `.before-restore`) instead of refusing.

    Raises:
        NoSuchStore: `backup` is not a backup.
        StoreError: `target` is there, and `force` is not given; or it is the backup, or a part of it.
        StoreBusy: the store at `target`, or the backup, is open.
        StoreDamaged, UnsupportedStore: the backup is; `target` is as it was.
    """
    source, path = Path(backup).expanduser().resolve(), Path(target).expanduser().resolve()
    if not _is_plain(source / "data" / f"{CATALOG}.db"):
        raise NoSuchStore(f"{source} is not a backup of a store", source)
    if path.is_relative_to(source) or source.is_relative_to(path):
        raise StoreError(f"{path} and the backup {source} are not apart: choose another path", path)
    there = path.exists() and (not path.is_dir() or any(path.iterdir()))
    if there and not (path / "data").is_dir():
        raise StoreError(f"{path} is there and is not a store: choose another path", path)
    if there and not force:
        raise StoreError(f"{path} is there already: choose another path, or move it aside with force (--force)", path)
    with contextlib.ExitStack() as locks:
        if there:
            locks.enter_context(_kept_closed(path))
        if (source / "local").is_dir():
            with contextlib.suppress(StoreReadOnly):  # then nobody can have it open
                locks.enter_context(_kept_closed(source))
        incoming = locks.enter_context(_arriving(path, "restore"))
        _copy_store(source, incoming)
        problems = _check_copy(incoming, source)
        sync_tree(incoming)
        aside = _move_aside(path) if there else None
        if path.exists():
            path.rmdir()
        incoming.rename(path)
        sync_directory(path.parent)
    for problem in problems[:MAX_TOLD]:
        log.warning("%s was restored with a fault that the backup has: %s", path, problem)
    if len(problems) > MAX_TOLD:
        log.warning("%s was restored with %d more faults: see them with atop verify", path, len(problems) - MAX_TOLD)
    return aside


@contextlib.contextmanager
def _kept_closed(path: Path) -> Iterator[None]:
    """Keep everybody from opening the store at `path`. Raises `StoreBusy` if somebody has."""
    try:
        (path / "local").mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise explained(error, path) from error
    lock = OwnerLock(path / "local" / LOCK_NAME, path, alone=True)
    try:
        yield
    finally:
        lock.release()


def _copy_store(source: Path, target: Path) -> None:
    for path in sorted((source / "data").iterdir()):
        if _DATABASE_FILE.fullmatch(path.name) and _is_plain(path):
            shutil.copyfile(path, target / "data" / path.name)
            (target / "data" / path.name).chmod(0o600)
    if (source / "files").is_dir():
        _copy_files(FileArea(source / "files"), FileArea(target / "files"), None)


def _check_copy(path: Path, source: Path) -> list[str]:
    """Have a copy open and read as a whole; returns its faults. Raises `StoreDamaged` if it is of no use."""
    from atop.store import Store

    try:
        check_log(path / "data")
    except BadLogRecord as error:
        raise _unusable(source, f"its log was not written by Atop: {error}", None) from None
    try:
        with Store(path, create=False, cache_size=CHECK_CACHE) as store:
            report = store.verify()
    except StoreDamaged as error:
        raise _unusable(source, str(error), error.table) from error
    except AtopError as error:
        error.args = (str(error).replace(str(path), str(source)), *error.args[1:])
        raise
    if report.damaged:
        raise _unusable(source, report.problems[0], None)
    shutil.rmtree(path / "local")
    return report.problems


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
