"""What a store needs of its database, whoever has it: this process (`engine`), or another (`attached`).

All that stands above goes through these: get, scans, position, counters, and commit of a WriteSet.

Promises of both: a call sees a commit as a whole or not at all. `sequence` moves when commits are applied, is odd while
one is, and has moved before anything of a later commit can be read: two readings of one even number enclose one state.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol

from atop.errors import StoreClosed
from atop.writeset import WriteSet

Durability = Literal["flushed", "replicated", "buffered"]


class Head(NamedTuple):
    """The end of the journal: the number of the last commit, and the chain value over it and all before it."""

    number: int
    chain: bytes


class Database(Protocol):
    """The database of one store. Every method may be called by any thread."""

    # Called when what was read before may not hold.
    on_recovery: Callable[[], None]
    # Called with the ids of items that commits made elsewhere have changed, before `sequence` says so.
    on_applied: Callable[[list[int]], None]

    @property
    def sequence(self) -> int:
        """Moves when commits are applied: see above."""

    @property
    def head(self) -> Head:
        """The end of the journal."""

    @property
    def last_time(self) -> int:
        """The time of the last commit, in microseconds of the hybrid clock."""

    def quiet_sequence(self) -> int | None:
        """The sequence, or None while a commit is being applied."""

    def wait_applied(self) -> None:
        """Return when the commit that is being applied, if there is one, is: what is read then is of one state."""

    def get(self, table: str, key: bytes) -> bytes | None:
        """The value of a key as committed, or None."""

    def get_item(self, key: bytes) -> bytes | None:
        """The record of an item, or None."""

    def get_items(self, keys: list[bytes]) -> list[bytes | None]:
        """The records of several items, None where there is none."""

    def version(self, item_id: int) -> int | None:
        """The version of an item as committed, or None if there is no such item."""

    def catalog_get(self, name: str) -> int | None:
        """The item id that a name in the catalog stands for, or None."""

    def counter(self, key: bytes) -> int:
        """The value of a counter; 0 where there is none."""

    def keys(self, table: str, start: bytes, stop: bytes, limit: int, reverse: bool = False) -> list[bytes]:
        """Up to `limit` keys in [start, stop), from the first on, or from the last back."""

    def pairs(
        self, table: str, start: bytes, stop: bytes, limit: int, reverse: bool = False
    ) -> list[tuple[bytes, bytes]]:
        """Up to `limit` (key, value) pairs with keys in [start, stop), from the first on, or from the last back."""

    def position(self, table: str, key: bytes) -> float:
        """About which part of a table's keys is less than `key`: 0 to 1."""

    def check_reads(self, versions: dict[int, int], names: dict[str, int | None]) -> None:
        """Raise `Conflict` unless, at one moment, all these items have these versions and names stand for these."""

    def commit(
        self,
        write_set: WriteSet,
        before: Callable[[], None] | None = None,
        applied: Callable[[], None] | None = None,
    ) -> int:
        """Apply a WriteSet, once; returns its commit number. See `Engine.commit`."""

    def settled(self) -> int:
        """The number up to which commits will still be there after a crash; up to the last, if that may lose some."""

    def oldest_commit(self) -> int:
        """The number of the oldest commit that the journal has; one past the head if it is empty."""

    def closed_error(self) -> StoreClosed:
        """The error for a store that is closed, or was never this process's."""

    def disown(self) -> None:
        """In a forked child: have nothing to do with the database, which is its parent's, ever again."""

    def close(self) -> None:
        """Leave the database. May be called again."""
