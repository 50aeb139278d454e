"""How far a full copy of another device's tables has come: pages and times go in, a `CopyStatus` comes out.

Berkeley DB counts the pages that it is sent. How many there are in all, the device that sends them says once (SIZE):
the bytes of its tables, which may grow while they are copied. So the total is an estimate, and never less than what
has come.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from atop.environment import PAGE_SIZE, TABLES


def size_of_tables(data: Path) -> int:
    """The bytes of a store's tables, as far as they are on the disk."""
    size = 0
    for table in TABLES:
        with contextlib.suppress(OSError):  # being made, or replaced
            size += (data / f"{table}.db").stat().st_size
    return size


@dataclass(frozen=True)
class CopyStatus:
    """A full copy on its way. Bytes; `total` is None until it is known, `seconds` left until that can be said."""

    received: int
    total: int | None = None
    seconds: float | None = None


class CopyMeter:
    """Follows the copies that this device receives, one after the other. One thread at a time."""

    def __init__(self) -> None:
        self.status: CopyStatus | None = None  # None while there is no copy
        self._total: int | None = None
        self._pages = self._copies = 0  # of earlier copies
        self._began = 0.0

    def expect(self, total: int) -> None:
        """The tables to be copied have this many bytes."""
        self._total = total

    def saw(self, pages: int, copies: int, now: float) -> None:
        """So many pages were received, and so many copies were complete, since the environment was opened."""
        if copies != self._copies or pages < self._pages:
            self._pages, self._copies, self.status = pages, copies, None
        if pages == self._pages:
            self._began = now  # what is waited for may be something else than pages
            return
        received = (pages - self._pages) * PAGE_SIZE
        total = None if self._total is None else max(self._total, received)
        taken = now - self._began
        seconds = None if total is None or taken <= 0 else (total - received) * taken / received
        self.status = CopyStatus(received, total, seconds)
