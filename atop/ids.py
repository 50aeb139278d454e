"""Numbers for items and commits: 63 bits, of which 24 are this device's tag and 39 count up.

Promises: a number is handed out once, whatever is rolled back, and whatever crashes: blocks of numbers are reserved in
`local/counters` before the first of them is used. A clean close returns what is left of a block, so numbers stay dense.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

from atop.errors import StoreDamaged, StoreFull

COUNTER_BITS = 39
TAG_BITS = 24

# Numbers reserved at once: the first block is small, and each is twice the last, up to this many. A crash skips the
# rest of a block; a reservation costs two flushes of the disk.
FIRST_BLOCK = 256
LARGEST_BLOCK = 1 << 16


def tag_of(number: int) -> int:
    """The tag of the device that made this item or commit id."""
    return number >> COUNTER_BITS


class NumberAllocator:
    """Hands out item ids and commit ids; may be used by any thread.

    `last_used(kind, low, high)` finds the highest number of that kind in the database, for a store whose counters are
    missing: one that was restored from a backup.
    """

    def __init__(self, path: Path, tag: int, last_item: int, last_commit: int) -> None:
        self._path = path
        self._first = tag << COUNTER_BITS
        self._lock = threading.Lock()
        self._next = {"items": 1, "commits": 1}
        self._end = {"items": 1, "commits": 1}
        self._block = {"items": FIRST_BLOCK, "commits": FIRST_BLOCK}
        found = self._read()
        for kind, last in (("items", last_item), ("commits", last_commit)):
            above = last - self._first + 1
            if found is None and last:
                # Numbers may have been used that the backup does not know of: skip far past them.
                above += LARGEST_BLOCK
            start = max(above, found[kind] if found else 1)
            self._next[kind] = self._end[kind] = start

    def item_id(self) -> int:
        """A new item id."""
        return self._new("items")

    def commit_id(self) -> int:
        """A new commit id."""
        return self._new("commits")

    def close(self) -> None:
        """Return the unused numbers. Nothing may be asked for afterwards."""
        with self._lock:
            self._end = dict(self._next)
            self._write()

    def _new(self, kind: str) -> int:
        with self._lock:
            number = self._next[kind]
            if number >= self._end[kind]:
                self._reserve(kind)
            self._next[kind] = number + 1
            return self._first | number

    def _reserve(self, kind: str) -> None:
        before = self._end[kind]
        self._end[kind] = self._next[kind] + self._block[kind]
        if self._end[kind] >> COUNTER_BITS:
            raise OverflowError(f"this device has made {self._end[kind]:,} {kind}, more than a store can number")
        try:
            self._write()
        except OSError as error:
            self._end[kind] = before
            raise StoreFull(f"cannot write {self._path}: {error.strerror}; make room and try again") from error
        self._block[kind] = min(2 * self._block[kind], LARGEST_BLOCK)

    def _read(self) -> dict[str, int] | None:
        try:
            text = self._path.read_text("ascii")
        except FileNotFoundError:
            return None
        try:
            found = dict(line.split() for line in text.splitlines())
            return {"items": int(found["items"]), "commits": int(found["commits"])}
        except (ValueError, KeyError) as error:
            raise StoreDamaged(
                f"{self._path} is damaged: remove it, and numbers continue past those in use", self._path
            ) from error

    def _write(self) -> None:
        write_durably(self._path, "".join(f"{kind} {end}\n" for kind, end in self._end.items()).encode())


def write_durably(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replace the file at `path` by `data`: afterwards it has the old contents or the new, whatever happens."""
    temporary = path.with_name(path.name + ".new")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Flush a directory, so that names made or renamed in it outlive a crash."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
