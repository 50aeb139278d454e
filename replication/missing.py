"""Finding out which contents a store names and does not have.

Items that commits from elsewhere have changed are looked at soon after; the whole store, by its counters of uses, when
it opens, every few minutes, and after so many changes that looking at each would take more time. For one thread, but
for `items_changed`.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable
from typing import Final

from atop.engine import Engine
from atop.errors import UnsafePickle
from atop.files import FileArea
from atop.records import decode, pack_u64
from atop.values import FileInfo, walk
from atop.writeset import ITEMS

log = logging.getLogger(__name__)

Digest = bytes

LOOK_SECONDS: Final = 0.05
"""How often changed items are looked at, at most."""

MAX_CHANGED: Final = 500
"""Items that changed meanwhile that are looked at one by one; when there are more, the store is looked through."""

SCAN_SECONDS: Final = 300.0
"""How often the store is looked through for contents that are missing, or that nothing names any more."""

SCAN_AGAIN_SECONDS: Final = 2.0
"""How soon it may be looked through again because of many changes; at least `SCAN_SHARE` times as long as it took."""

SCAN_SHARE: Final = 20


class Missing:
    """The contents that a store names and does not have.

    Args:
        want: is told of contents that are missing, by hash and size; returns whether there was room to remember them.
        keep_only: is told, after all of a store was looked through, which contents those were.
        clock: seconds.
    """

    def __init__(
        self,
        area: FileArea,
        engine: Engine,
        want: Callable[[Digest, int], bool],
        keep_only: Callable[[set[Digest]], None],
        clock: Callable[[], float],
    ) -> None:
        self._area = area
        self._engine = engine
        self._want = want
        self._keep_only = keep_only
        self._clock = clock
        self._lock = threading.Lock()  # guards the two below
        self._items: set[int] = set()  # have changed, and were not looked at
        self._all = True  # whether anything may have changed
        self._looked = self._scanned = -math.inf
        self._scan_took = 0.0
        self._looking = False
        self.more = False  # whether there was no room to remember something

    def items_changed(self, item_ids: list[int] | None) -> bool:
        """These items have changed, or, None, anything; returns whether that is news. Called inside commits."""
        with self._lock:
            news = not (self._items or self._all)
            if item_ids is None or len(self._items) > MAX_CHANGED:
                self._all = True
                self._items.clear()
            else:
                self._items.update(item_ids)
            return news

    @property
    def waits(self) -> bool:
        """Whether there are changed items to look at."""
        return bool(self._items)

    @property
    def all_found(self) -> bool:
        """Whether everything was looked at, and all that is missing is known."""
        return not (self._all or self._items or self._looking or self.more)

    def look(self, *, room: bool) -> None:
        """Find what is missing, if it is time; `room` says whether contents can be remembered that could not."""
        self._looking = True
        try:
            self._look(room=room)
        finally:
            self._looking = False

    def _look(self, *, room: bool) -> None:
        now = self._clock()
        if self._items and now - self._looked >= LOOK_SECONDS:
            with self._lock:
                items, self._items = self._items, set()
            self._looked = now
            for item_id in items:
                self._look_at(item_id)
        soon = self._all or (self.more and room)
        if now - self._scanned >= (max(SCAN_AGAIN_SECONDS, SCAN_SHARE * self._scan_took) if soon else SCAN_SECONDS):
            with self._lock:
                self._all = False
            self._scan()
            self._scanned = now
            self._scan_took = self._clock() - now

    def notice(self, digest: Digest, size: int) -> None:
        """Something is said to be missing."""
        if not self._area.has(digest):
            self.more |= not self._want(digest, size)

    def _look_at(self, item_id: int) -> None:
        record = self._engine.get(ITEMS, pack_u64(item_id))
        if record is None or b"FileInfo" not in record:
            return
        try:
            values = list(decode(record).attributes.values())
        except UnsafePickle as error:
            log.info("item %d cannot be read: %s", item_id, error)
            return
        for inner in walk(values):
            if type(inner) is FileInfo:
                self.notice(inner.digest, inner.size)

    def _scan(self) -> None:
        missing: set[Digest] = set()
        self.more = False
        for digest, size in self._engine.named_files():
            if not self._area.has(digest):
                missing.add(digest)
                self.more |= not self._want(digest, size)
        self._keep_only(missing)
        for digest in self._area.partials():
            if digest not in missing and not self._engine.names_file(digest):
                self._area.drop_partial(digest)
