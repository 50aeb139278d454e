"""What commits have changed lately: for the processes that are attached to this one's store.

Promises: a *position* counts commits and goes up; two positions tell which items were changed between them, or that
too much has, in which case whoever was at the earlier one is to forget what it knows. What is kept is bounded, however
far behind anybody is.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterable

# Commits that are kept, and ids of items in them all: beyond that, nobody is told of single items.
MAX_COMMITS = 4_096
MAX_IDS = 200_000


class Changes:
    """The commits of late, by position. May be used by any thread."""

    def __init__(self) -> None:
        # Whoever knows a position of another owner's is not to take it for one of this one's.
        self.position = secrets.randbits(62)
        self._first = self.position  # the earliest position from which changes can be told
        self._lock = threading.Lock()
        self._commits: list[tuple[int, ...] | None] = []  # ids of items; None: all that was known before may be wrong
        self._ids = 0

    def add(self, item_ids: Iterable[int] | None) -> None:
        """A commit has changed these items; or, with None, what was read before may not hold."""
        ids = None if item_ids is None else tuple(item_ids)
        with self._lock:
            self._commits.append(ids)
            self._ids += len(ids or ())
            if len(self._commits) > MAX_COMMITS or self._ids > MAX_IDS:
                gone = self._commits[: (len(self._commits) + 1) // 2]
                del self._commits[: len(gone)]
                self._first += len(gone)
                self._ids -= sum(len(ids or ()) for ids in gone)
            self.position += 1

    def between(self, known: int, position: int) -> list[int] | None:
        """The items that were changed after position `known`, up to `position`; None if all may have been."""
        if position <= known <= self.position:
            return []  # another thread of theirs has been told already
        with self._lock:
            if not self._first <= known < position <= self._first + len(self._commits):
                return None
            found: set[int] = set()
            for ids in self._commits[known - self._first : position - self._first]:
                if ids is None:
                    return None
                found.update(ids)
            return list(found)
