"""Numbers for items and commits: 63 bits, of which 24 are this device's tag and 39 count up.

Promises: a number is handed out once, whatever is rolled back, and whatever crashes: blocks of numbers are reserved in
`local/counters` before the first of them is used. A clean close returns what is left of a block, so numbers stay dense.
"""

from __future__ import annotations

import copy
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from atop.disk import explained, write_durably
from atop.errors import AtopError, StoreClosed, StoreDamaged, StoreError

log = logging.getLogger(__name__)

COUNTER_BITS = 39
TAG_BITS = 24

# Numbers reserved at once: the first block is small, and each is twice the last, up to this many. A crash skips the
# rest of a block; a reservation costs two flushes of the disk.
FIRST_BLOCK = 256
LARGEST_BLOCK = 1 << 16
# Numbers skipped where the counters are lost, as they are in a store that was restored from a backup: the store that
# the backup was made of may have handed out that many since. It can be skipped 500 times.
UNKNOWN_GAP = 1 << 30
# How much of the counters' file is read, in characters: it has two short lines.
LONGEST = 1_000


def tag_of(number: int) -> int:
    """The tag of the device that made this item or commit id."""
    return number >> COUNTER_BITS


class Numbers(Protocol):
    """What hands out item ids and commit ids. May be used by any thread."""

    def item_id(self) -> int:
        """A new item id. Raises StoreFull, StoreReadOnly: numbers cannot be reserved."""

    def commit_id(self) -> int:
        """A new commit id. Raises StoreFull, StoreReadOnly: numbers cannot be reserved."""

    def lease(self, kind: str, count: int) -> tuple[int, int]:
        """So many numbers ("items" or "commits") for somebody else: from the first up to the second."""

    def take_back(self, kind: str, first: int, end: int) -> None:
        """These were leased, and not used."""

    def disown(self, why: str) -> None:
        """Hand out nothing any more: the numbers belong to another process."""

    def close(self) -> None:
        """Return the unused numbers. May be called again; whoever asks for one afterwards gets `StoreClosed`."""


class NumberAllocator:
    """Hands out item ids and commit ids; may be used by any thread.

    `last_item` and `last_commit` are the highest ids of this device in the database. They matter where the counters
    are missing or unreadable: then numbers may have been used that this database does not know of.

    Raises:
        StoreDamaged: the counters are past all numbers, or no file.
    """

    def __init__(self, path: Path, tag: int, last_item: int, last_commit: int) -> None:
        self._path = path
        self._first = tag << COUNTER_BITS
        self._lock = threading.Lock()
        self._closed: AtopError | None = None
        self._next = {"items": 1, "commits": 1}
        self._end = {"items": 1, "commits": 1}
        self._block = {"items": FIRST_BLOCK, "commits": FIRST_BLOCK}
        found = self._read()
        for kind, last in (("items", last_item), ("commits", last_commit)):
            above = last - self._first + 1 if last else 1
            if found is None and (last_item or last_commit):
                above += UNKNOWN_GAP
            start = max(above, found[kind] if found else 1)
            if start >> COUNTER_BITS:
                raise StoreDamaged(
                    f"{path} says that {start:,} {kind} were made, more than a store can number: remove it, and "
                    "numbers continue far past those in use",
                    path.parent.parent,
                )
            self._next[kind] = self._end[kind] = start

    def item_id(self) -> int:
        """A new item id. Raises StoreFull, StoreReadOnly: numbers cannot be reserved."""
        return self._new("items")

    def commit_id(self) -> int:
        """A new commit id. Raises StoreFull, StoreReadOnly: numbers cannot be reserved."""
        return self._new("commits")

    def lease(self, kind: str, count: int) -> tuple[int, int]:
        """So many numbers for another process: from the first up to the second."""
        count = max(1, min(count, LARGEST_BLOCK))
        with self._lock:
            first = self._next[kind]
            while first + count > self._end[kind]:
                self._reserve(kind)
            self._next[kind] = first + count
        return self._first | first, self._first | (first + count)

    def take_back(self, kind: str, first: int, end: int) -> None:
        """These were leased, and not used: they are handed out again if no later ones have been."""
        with self._lock:
            if self._closed is None and self._next[kind] == end - self._first and self._first <= first < end:
                self._next[kind] = first - self._first

    def close(self) -> None:
        """Return the unused numbers. May be called again; whoever asks for one afterwards gets `StoreClosed`."""
        with self._lock:
            if self._closed is not None:
                return
            self.disown(f"the store {self._path.parent.parent} is closed")
            self._end = dict(self._next)
            try:
                self._write()
            except OSError as error:
                log.warning("numbers reserved in %s are skipped: they cannot be returned: %s", self._path, error)

    def disown(self, why: str) -> None:
        """Hand out and write nothing any more: the counters belong to whoever opens the store."""
        self._closed = StoreClosed(why, self._path.parent.parent)

    def _new(self, kind: str) -> int:
        if self._closed is not None:
            raise copy.copy(self._closed)
        with self._lock:
            number = self._next[kind]
            if number >= self._end[kind]:
                self._reserve(kind)
            self._next[kind] = number + 1
            return self._first | number

    def _reserve(self, kind: str) -> None:
        if self._closed is not None:
            raise copy.copy(self._closed)
        before = self._end[kind]
        end = self._next[kind] + self._block[kind]
        if end >> COUNTER_BITS:
            raise StoreError(
                f"this device has made {end:,} {kind}, more than a store can number: export what it has to a new store",
                self._path.parent.parent,
            )
        self._end[kind] = end
        try:
            self._write()
        except BaseException as error:
            self._end[kind] = before  # what the file says now does not matter: it is more than was handed out
            if isinstance(error, OSError):
                raise explained(error, self._path.parent.parent) from error
            raise
        self._block[kind] = min(2 * self._block[kind], LARGEST_BLOCK)

    def _read(self) -> dict[str, int] | None:
        try:
            with self._path.open("r", encoding="ascii") as file:
                found = dict(line.split() for line in file.read(LONGEST).splitlines())
            return {"items": int(found["items"]), "commits": int(found["commits"])}
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreDamaged(
                f"{self._path} cannot be read ({error.strerror}): remove it, and numbers continue far past those "
                "in use",
                self._path.parent.parent,
            ) from error
        except (ValueError, KeyError):
            log.warning("%s is damaged: numbers continue far past those in use", self._path)
            return None

    def _write(self) -> None:
        write_durably(self._path, "".join(f"{kind} {end}\n" for kind, end in self._end.items()).encode())


# Numbers that an attached process asks for at first, and at most.
FIRST_LEASE, LARGEST_LEASE = 16, 1 << 13


class LeasedNumbers:
    """Hands out numbers that another process, which owns the store, has leased to this one.

    `lease` and `give_back` ask it. What is left when this process ends without closing is skipped.
    """

    def __init__(
        self,
        store: Path,
        lease: Callable[[str, int], tuple[int, int]],
        give_back: Callable[[str, int, int], None],
    ) -> None:
        self._store = store
        self._ask, self._give_back = lease, give_back
        self._lock = threading.Lock()
        self._closed: StoreClosed | None = None
        self._next = {"items": 0, "commits": 0}
        self._end = {"items": 0, "commits": 0}
        self._count = {"items": FIRST_LEASE, "commits": FIRST_LEASE}

    def item_id(self) -> int:
        """A new item id."""
        return self._new("items")

    def commit_id(self) -> int:
        """A new commit id."""
        return self._new("commits")

    def lease(self, kind: str, count: int) -> tuple[int, int]:
        """Numbers for somebody else, from the owner."""
        return self._ask(kind, count)

    def take_back(self, kind: str, first: int, end: int) -> None:
        """Numbers from somebody else, for the owner."""
        self._give_back(kind, first, end)

    def close(self) -> None:
        """Give what is left back to the owner. May be called again."""
        with self._lock:
            if self._closed is not None:
                return
            self.disown(f"the store {self._store} is closed")
            for kind, number in self._next.items():
                if number < self._end[kind]:
                    try:
                        self._give_back(kind, number, self._end[kind])
                    except AtopError as error:
                        log.info("numbers leased from the owner of %s are skipped: %s", self._store, error)

    def disown(self, why: str) -> None:
        """Hand out nothing any more."""
        self._closed = StoreClosed(why, self._store)

    def _new(self, kind: str) -> int:
        if self._closed is not None:
            raise copy.copy(self._closed)
        with self._lock:
            if self._next[kind] >= self._end[kind]:
                self._next[kind], self._end[kind] = self._ask(kind, self._count[kind])
                self._count[kind] = min(2 * self._count[kind], LARGEST_LEASE)
            number = self._next[kind]
            self._next[kind] = number + 1
            return number
