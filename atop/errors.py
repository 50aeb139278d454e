"""Every error that Atop raises on purpose.

All derive from `AtopError`, so one `except` catches whatever the store reports.
The classes say who can mend it:

- `Conflict` is retryable: run the transaction again (`Store.transact` does).
- `StoreClosed`, `StoreBusy`, `StoreFull`, `StoreReadOnly` are about this process and this disk.
- `StoreDamaged`, `UnsafePickle`, `UnsupportedStore` are about what is on the disk.
- the rest are about what was asked for, and derive from the builtin that fits too.

Errors carry what they are about as fields; the message names it and the next step.
"""

from __future__ import annotations

import os


class AtopError(Exception):
    """The root of all errors of Atop."""


class Conflict(AtopError):
    """Another commit changed what this transaction had read: run it again.

    `item_id` is the item that changed, or None if it was a name or a set of referrers.
    """

    def __init__(self, message: str, item_id: int | None = None) -> None:
        super().__init__(message)
        self.item_id = item_id


class UndoRefused(AtopError):
    """A commit cannot be undone because later commits build on it; the message names them."""


class NoSuchItem(AtopError, LookupError):
    """There is no item with this id (any more)."""

    def __init__(self, item_id: int, message: str = "") -> None:
        super().__init__(message or f"there is no item {item_id} in this store: it was deleted or never existed")
        self.item_id = item_id


class NoSuchCommit(AtopError, LookupError):
    """The journal has no such commit: the id is wrong, or it is older than what the journal keeps."""


class NoSuchPool(AtopError, LookupError):
    """There is no pool of this name."""


class NoSuchIndex(AtopError, LookupError):
    """The pool has no index of this name, or is still building it."""


class NoSuchFile(AtopError, LookupError):
    """The contents of a file are not on this device."""


class NoSuchCall(AtopError, LookupError):
    """The process that owns the store performs no call of this name for others."""


class UnstorableValue(AtopError, TypeError):
    """A value of a type that the store does not keep, or that an index cannot order."""


class ReadOnlyItem(AtopError, TypeError):
    """The item's class is not imported, or is older than its record: it can be read, not changed."""


class UpgradeFailed(AtopError):
    """An application's upgrade function raised; the item keeps its old record. `item_id` is the item."""

    def __init__(self, message: str, item_id: int) -> None:
        super().__init__(message)
        self.item_id = item_id


class Restricted(AtopError):
    """The item cannot be deleted while others refer to it with `on_delete="restrict"`.

    `item_id` is the item, `referrer_ids` are some of those that refer to it.
    """

    def __init__(self, message: str, item_id: int, referrer_ids: tuple[int, ...]) -> None:
        super().__init__(message)
        self.item_id = item_id
        self.referrer_ids = referrer_ids


class TransactionTooLarge(AtopError):
    """One transaction changes more than the store can lock at once: split it into several."""


class UnknownFormat(AtopError, ValueError):
    """A file is of no format that can be imported, or a pool cannot be exported in this one."""


class NoTransaction(AtopError):
    """The call needs to be outside of, or inside of, a transaction, and is not."""


class StoreError(AtopError):
    """Something about the store as a whole; `path` is its directory."""

    def __init__(self, message: str, path: str | os.PathLike[str] | None = None) -> None:
        super().__init__(message)
        self.path = None if path is None else os.fspath(path)


class NoSuchStore(StoreError, LookupError):
    """There is no store at this path."""


class StoreClosed(StoreError):
    """The store was closed by this program, or belongs to the process that it was forked from."""


class StoreBusy(StoreError):
    """Another process has the store open; `pid` is that process where it is known."""

    def __init__(self, message: str, path: str | os.PathLike[str] | None = None, pid: int | None = None) -> None:
        super().__init__(message, path)
        self.pid = pid


class StoreFull(StoreError):
    """The disk is full. Nothing of this commit was kept; the store goes on once there is room."""


class StoreReadOnly(StoreError):
    """The directory or the disk cannot be written to."""


class StoreDamaged(StoreError):
    """What is on the disk is not what was written; `table` names the table. Restore from a backup."""

    def __init__(self, message: str, path: str | os.PathLike[str] | None = None, table: str | None = None) -> None:
        super().__init__(message, path)
        self.table = table


class UnsupportedStore(StoreError):
    """The store was written by a newer version of Atop than this one."""


class UnsafePickle(AtopError):
    """A record or message names something other than plain values. It was not executed."""


class NoMaster(AtopError):
    """The device that applies commits cannot be reached, and this one may not take its place. Nothing was written.

    Reading goes on. Try again once another device of the group is reachable.
    """
