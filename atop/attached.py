"""The database of a store that another process owns: asks that process.

Promises: to all that stands above, it is as the engine is (see `database`). A commit that the owner answered for is as
durable as it said; one that it did not answer for, because it died, is asked for again, and is applied once: its id
decides.

Never: a file of the database opened, a lock on it held, a decision that the owner would have made otherwise.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from atop.asking import Asking, Succession
from atop.database import Durability
from atop.environment import COUNTERS, JOURNAL
from atop.errors import TransactionTooLarge
from atop.joining import Welcome
from atop.passing import plain_from, plain_to, write_set_to
from atop.records import pack_u64, unpack_u64
from atop.wire import (
    ASK,
    CHECK,
    COMMIT,
    GET,
    GET_ITEMS,
    KEYS_ONLY,
    LEASE,
    MAX_FRAME,
    MAX_PAIRS,
    PAIRS,
    POSITION,
    RETURN,
    REVERSE,
    present,
)
from atop.writeset import CATALOG, WriteSet

# The most bytes of records that are kept to be asked about by their version.
CACHE_SIZE: Final = 16 << 20

END = b"\xff" * 9


class AttachedDatabase(Asking):
    """The database of one store, by way of the process that owns it. Every method may be called by any thread.

    Args as of `Asking`, and `durability`, of commits made here: at least as durable as the owner's they are anyhow.
    """

    def __init__(
        self,
        local: Path,
        asker: bytes,
        welcome: Welcome,
        durability: Durability,
        succeed: Succession,
        is_same: Callable[[], bool],
        patient: bool,
    ) -> None:
        self._durability: Durability = durability
        self._records = Records(CACHE_SIZE)
        super().__init__(local, asker, welcome, succeed, is_same, patient)

    def _forget(self, item_ids: Sequence[int] | None) -> None:
        if item_ids is None:
            self._records.clear()
        else:
            self._records.drop(item_ids)
        super()._forget(item_ids)

    # -- reading

    def get(self, table: str, key: bytes) -> bytes | None:
        """The value of a key as committed, or None."""
        answer = self._ask(GET, [table.encode(), key])
        return answer[0] if answer is not None else self._next.get(table, key)

    def get_item(self, key: bytes) -> bytes | None:
        """The record of an item, or None."""
        return self.get_items([key])[0]

    def get_items(self, keys: list[bytes]) -> list[bytes | None]:
        """The records of several items, None where there is none."""
        found: list[bytes | None] = []
        known = self._records.known(keys)
        while len(found) < len(keys):
            wanted = [
                key + (record[:8] if record is not None else bytes(8))
                for key, record in zip(keys[len(found) :], known[len(found) :], strict=True)
            ]
            answer = self._ask(GET_ITEMS, wanted)
            if answer is None:
                return self._next.get_items(keys)
            if not answer or len(answer) > len(wanted):
                raise self._misspoken()
            for record in answer:
                at = len(found)
                found.append(record if record != b"" else known[at])
                if record:
                    self._records.keep(keys[at], record)
        return found

    def version(self, item_id: int) -> int | None:
        """The version of an item as committed, or None if there is no such item."""
        record = self.get_item(pack_u64(item_id))
        return unpack_u64(record)[0] if record is not None else None

    def catalog_get(self, name: str) -> int | None:
        """The item id that a name in the catalog stands for, or None."""
        found = self.get(CATALOG, name.encode())
        return unpack_u64(found)[0] if found is not None else None

    def counter(self, key: bytes) -> int:
        """The value of a counter; 0 where there is none."""
        found = self.get(COUNTERS, key)
        return int.from_bytes(found, signed=True) if found is not None else 0

    def keys(self, table: str, start: bytes, stop: bytes, limit: int, reverse: bool = False) -> list[bytes]:
        """Up to `limit` keys in [start, stop), from the first on, or from the last back."""
        found: list[bytes] = []
        while len(found) < limit:
            asked = struct.pack(">IB", min(limit - len(found), MAX_PAIRS), KEYS_ONLY | (REVERSE if reverse else 0))
            answer = self._ask(PAIRS, [table.encode(), start, stop, asked])
            if answer is None:
                return found + self._next.keys(table, start, stop, limit - len(found), reverse)
            keys = present(answer)
            found += keys
            if len(keys) < MAX_PAIRS:
                break
            start, stop = (start, keys[-1]) if reverse else (keys[-1] + b"\0", stop)
        return found

    def pairs(
        self, table: str, start: bytes, stop: bytes, limit: int, reverse: bool = False
    ) -> list[tuple[bytes, bytes]]:
        """Up to `limit` (key, value) pairs with keys in [start, stop), from the first on, or from the last back."""
        found: list[tuple[bytes, bytes]] = []
        while len(found) < limit:
            asked = struct.pack(">IB", min(limit - len(found), MAX_PAIRS), REVERSE if reverse else 0)
            answer = self._ask(PAIRS, [table.encode(), start, stop, asked])
            if answer is None:
                return found + self._next.pairs(table, start, stop, limit - len(found), reverse)
            flat = present(answer)
            if not flat:
                break
            found += zip(flat[::2], flat[1::2], strict=True)
            start, stop = (start, found[-1][0]) if reverse else (found[-1][0] + b"\0", stop)
        return found

    def position(self, table: str, key: bytes) -> float:
        """About which part of a table's keys is less than `key`: 0 to 1."""
        answer = self._ask(POSITION, [table.encode(), key])
        if answer is None:
            return self._next.position(table, key)
        return float(struct.unpack(">d", present(answer, 1)[0])[0])

    def check_reads(self, versions: dict[int, int], names: dict[str, int | None]) -> None:
        """Raise `Conflict` unless, at one moment, all these items have these versions and names stand for these."""
        numbers = [number for pair in versions.items() for number in pair]
        stand: list[bytes | None] = []
        for name, item_id in names.items():
            stand += (name.encode(), None if item_id is None else pack_u64(item_id))
        if self._ask(CHECK, [struct.pack(f">{len(numbers)}Q", *numbers), *stand]) is None:
            self._next.check_reads(versions, names)

    def oldest_commit(self) -> int:
        """The number of the oldest commit that the journal has; one past the head if it is empty."""
        first = self.keys(JOURNAL, b"", END, 1)
        return int(unpack_u64(first[0])[0]) if first else self.head.number + 1

    # -- committing

    def commit(
        self,
        write_set: WriteSet,
        before: Callable[[], None] | None = None,
        applied: Callable[[], None] | None = None,
    ) -> int:
        """Have a WriteSet applied, once; returns its commit number.

        `before` is for the owner, who checks for itself. `applied` is called in the moment in which this process
        learns of the commit, unless a later one may have come before that.
        """
        with self._state:
            position = self._position if write_set.base == self._sequence else 0
        # What is asked again after a failure may have been applied: then it is the id that must be looked at.
        elements = write_set_to(write_set, self._durability, position)
        size = sum(len(element) for element in elements if element is not None)
        if size > MAX_FRAME - 1_024:
            raise TransactionTooLarge(
                f"{write_set.label!r} writes {size:,} bytes; {MAX_FRAME:,} can be sent to the process that has the "
                "store open: split it"
            )
        again = write_set_to(write_set, self._durability, 0) if position else None
        answer = self._ask(COMMIT, elements, again, applied)
        if answer is None:
            write_set.base = None
            return self._next.commit(write_set, before, applied)
        return int.from_bytes(present(answer, 2)[0])

    def lease(self, kind: str, count: int) -> tuple[int, int]:
        """Numbers that are this process's alone, from the first up to the second."""
        answer = self._ask(LEASE, [kind.encode(), struct.pack(">I", count)])
        if answer is None:
            return self._successor[1].lease(kind, count)  # type: ignore[index]  # there is one
        first, end = present(answer, 2)
        return int.from_bytes(first), int.from_bytes(end)

    def give_back(self, kind: str, first: int, end: int) -> None:
        """Numbers of a lease that will not be used. Raises AtopError if nobody takes them."""
        if self._ask(RETURN, [kind.encode(), struct.pack(">QQ", first, end)]) is None:
            self._successor[1].take_back(kind, first, end)  # type: ignore[index]  # there is one

    def call(self, name: str, arguments: dict[str, Any], progress: Callable[..., object] | None) -> tuple[Any] | None:
        """What the owner's call of this name returns, in a tuple; None if this process is the owner now."""
        answer = self._ask(ASK, [name.encode(), plain_to(arguments, f"an argument of {name!r}")], progress=progress)
        return None if answer is None else (plain_from(present(answer, 1)[0]),)


class Records:
    """Records of items as they were last, up to so many bytes. May be used by any thread."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._records: dict[bytes, bytes] = {}
        self._bytes = 0
        self._lock = threading.Lock()

    def known(self, keys: list[bytes]) -> list[bytes | None]:
        """What is known of the items with these keys."""
        get = self._records.get
        return [get(key) for key in keys]

    def keep(self, key: bytes, record: bytes) -> None:
        """Remember a record; those that were remembered first make room for it."""
        with self._lock:
            old = self._records.pop(key, None)
            self._records[key] = record
            self._bytes += len(record) - len(old or b"")
            while self._bytes > self._size:
                first = next(iter(self._records))
                self._bytes -= len(self._records.pop(first))

    def drop(self, item_ids: Sequence[int]) -> None:
        """Forget the records of these items."""
        with self._lock:
            for item_id in item_ids:
                gone = self._records.pop(pack_u64(item_id), None)
                self._bytes -= len(gone or b"")

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._records.clear()
            self._bytes = 0
