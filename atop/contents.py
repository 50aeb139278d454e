"""Contents of files on the way to whoever reads them: from this disk, or fetched from another device first.

Fetching is done by the process that owns the store, whoever asks; reading by the process that asks.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, BinaryIO

from atop.errors import NoSuchFile, StoreDamaged
from atop.values import FileInfo

if TYPE_CHECKING:
    from atop.store import Store

FETCH, MEND, AWAIT = "atop.fetch_file", "atop.mend_file", "atop.await_files"

FETCH_SECONDS = 30.0
"""How long opening contents that are on other devices waits for the next byte of them, by default."""


def provide(store: Store) -> None:
    """Offer to other processes what is done for them."""

    def fetch_here(digest: bytes, size: int, name: str, timeout: float) -> None:
        _fetch(store, FileInfo(digest, size, name), timeout)

    def mend_here(digest: bytes, size: int) -> str:
        return mend(store, digest, size)

    def await_here(digests: list[bytes]) -> None:
        await_elsewhere(store, digests)

    store.provide(FETCH, fetch_here)
    store.provide(MEND, mend_here)
    store.provide(AWAIT, await_here)


def open_file(store: Store, info: FileInfo, timeout: float | None) -> BinaryIO:
    """See `File.open`."""
    store._check_open()
    try:
        return store._file_area.open(info)
    except NoSuchFile:
        if store._tenure.attached is None and store._tenure.replication is None:
            raise
    except StoreDamaged as error:
        told = _mending(store, error, info)
        if store._file_area.has(info.digest):  # still; or again, when they came quickly
            try:
                return store._file_area.open(info)
            except StoreDamaged:
                raise told from None
    _fetch(store, info, FETCH_SECONDS if timeout is None else timeout)
    return store._file_area.open(info)


def read_file(store: Store, info: FileInfo, timeout: float | None) -> bytes:
    """See `File.read`."""
    for last in (False, True):
        with open_file(store, info, timeout) as stream:
            try:
                return stream.read()
            except StoreDamaged as error:
                told = _mending(store, error, info)
                if last or (store._tenure.attached is None and store._tenure.replication is None):
                    raise told from None
    raise AssertionError("the second time returns or raises")


def _fetch(store: Store, info: FileInfo, timeout: float) -> None:
    if store._tenure.attached is not None:
        store.ask(FETCH, digest=info.digest, size=info.size, name=info.name, timeout=timeout)
    elif (replication := store._tenure.replication) is not None:
        replication.fetch_file(info, timeout)
    else:
        raise NoSuchFile(f"the contents of {info.described()} are not on this device")


def _mending(store: Store, error: StoreDamaged, info: FileInfo) -> StoreDamaged:
    """The error about damaged contents, with what is done about it, which is begun."""
    return StoreDamaged(f"{error}; {mend(store, info.digest, info.size)}", error.path, error.table)


def mend(store: Store, digest: bytes, size: int) -> str:
    """Have damaged contents fetched again, if there is somewhere to fetch them; returns what is to be done."""
    if store._tenure.attached is not None:
        return str(store.ask(MEND, digest=digest, size=size))
    try:
        if store._file_area.is_whole(digest):
            return f"they are whole, and it is the size, {size:,} bytes, that is wrong: set the file anew"
    except OSError:
        pass  # they are gone, or cannot be read to their end: then fetch them
    replication = store._tenure.replication
    if replication is not None and replication.mend_file(digest, size):
        return "they are fetched again from another device of the group: try again in a moment"
    return "restore them from a backup (atop restore)"


def await_elsewhere(store: Store, digests: Iterable[bytes]) -> None:
    """Return when another device has these contents on its disk, or none is there to have them."""
    if store._tenure.attached is not None:
        store.ask(AWAIT, digests=list(digests))
    elif (replication := store._tenure.replication) is not None:
        replication.await_files(digests)
