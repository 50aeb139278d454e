"""Copies of a whole store, made while it is in use, and putting them back.

A backup is a store itself, in all but its identity: opened with `Store(path)` it can be looked at. Restoring one makes
a store whose new numbers lie far past those of the backup, so that what was written after it is never confused with
what will be written now.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from atop.disk import sync_directory
from atop.engine import Engine
from atop.errors import NoSuchStore, StoreBusy, StoreDamaged, StoreError, StoreFull, StoreReadOnly
from atop.files import FileArea
from atop.owner import OwnerLock

Progress = Callable[[int, int], None]


def back_up(engine: Engine, files: FileArea, target: Path, progress: Progress | None) -> None:
    """Copy the database, then the contents of files that it may name, to the new directory `target`."""
    if target.exists():
        raise StoreError(f"{target} is there already: a backup goes to a new directory", target)
    incomplete = target.with_name(target.name + ".incomplete")
    shutil.rmtree(incomplete, ignore_errors=True)
    try:
        (incomplete / "data").mkdir(mode=0o700, parents=True)
        (incomplete / "files").mkdir(mode=0o700)
        engine.backup(incomplete / "data")
        # After the database: contents are in place before a commit names them, so all that it names are here now.
        _copy_files(files, FileArea(incomplete / "files"), progress)
        _sync_tree(incomplete)
        incomplete.rename(target)
        sync_directory(target.parent)
    except OSError as error:
        raise explained(error, target) from error
    finally:
        shutil.rmtree(incomplete, ignore_errors=True)


def restore(backup: str | os.PathLike[str], target: str | os.PathLike[str], *, force: bool = False) -> Path | None:
    """Make the store `target` what the backup is; returns where the store that was there before is now, or None.

    Args:
        force: if a store is there, move it aside (to a name that ends in `.before-restore`) instead of refusing.

    Raises:
        NoSuchStore: `backup` is not a backup.
        StoreError: `target` is there, and `force` is not given.
        StoreBusy: the store at `target` is open.
        StoreDamaged: the backup is; `target` is as it was.
    """
    source = Path(backup).expanduser().absolute()
    path = Path(target).expanduser().absolute()
    if not (source / "data").is_dir():
        raise NoSuchStore(f"{source} is not a backup of a store", source)
    there = path.exists() and any(path.iterdir())
    if there and not force:
        raise StoreError(f"{path} is there already: choose another path, or move it aside with force (--force)", path)
    if there and not (path / "data").is_dir():
        raise StoreError(f"{path} is there and is not a store: choose another path", path)
    incoming = path.with_name(path.name + ".incoming")
    shutil.rmtree(incoming, ignore_errors=True)
    try:
        shutil.copytree(source, incoming, ignore=shutil.ignore_patterns("local"), symlinks=True)
        _check_copy(incoming)
        _sync_tree(incoming)
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


def _check_copy(path: Path) -> None:
    from atop.store import Store

    with Store(path, create=False) as store:
        report = store.verify()
    if not report.ok:
        raise StoreDamaged(f"the backup is damaged: {report.problems[0]}; it was not restored", path)
    shutil.rmtree(path / "local")


def _move_aside(path: Path) -> Path:
    """Move the store at `path` out of the way, unless a process has it open."""
    number = 0
    while (aside := path.with_name(f"{path.name}.before-restore{f'-{number}' if number else ''}")).exists():
        number += 1
    (path / "local").mkdir(mode=0o700, exist_ok=True)
    lock = OwnerLock(path / "local" / "owner.lock", path)
    try:
        path.rename(aside)
    finally:
        lock.release()
    return aside


def _copy_files(source: FileArea, target: FileArea, progress: Progress | None) -> None:
    digests = list(source.digests())
    for done, digest in enumerate(digests, 1):
        path = target.path_of(digest)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        try:
            shutil.copyfile(source.path_of(digest), path)
        except FileNotFoundError:
            continue  # collected meanwhile: nothing names it
        path.chmod(0o400)
        if progress is not None:
            progress(done, len(digests))


def _sync_tree(path: Path) -> None:
    for directory, _, names in os.walk(path):
        for name in names:
            fd = os.open(Path(directory) / name, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        sync_directory(Path(directory))


def explained(error: OSError, path: Path) -> StoreError:
    """A system's error about writing `path`, as one of ours."""
    import errno

    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreFull(f"the disk of {path} is full: make room and try again", path)
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return StoreReadOnly(f"{path} cannot be written: check its permissions and its disk", path)
    return StoreError(f"{path}: {error.strerror or error}", path)


__all__ = ["StoreBusy", "back_up", "explained", "restore"]
