"""Which events take place in a span of days.

Most events take place once and are short: the index `start` finds them. The others (series, long ones, tasks without
a start) are few, and their ids are kept in memory: worked out from the whole pool once, and then from what commits
change. Nothing is kept that the pool does not say.
"""

from __future__ import annotations

import datetime
import threading
from collections.abc import Iterator
from typing import Any
from weakref import WeakKeyDictionary

from atop import Item, NoSuchCommit, NoSuchItem, Pool, Store
from atop.browser import attributes as attr
from atop.browser.lists import order
from atop.pim.occurrences import Budget, Occurrence, occurrences

# The longest that an event may be to be found by its start alone.
SHORT = datetime.timedelta(days=1)
# Around the days that are asked for: an event's length, and how far clocks are apart.
MARGIN = datetime.timedelta(days=3)
# Most occurrences in one answer, and answers that are kept until an event changes.
MAX_OCCURRENCES = 5_000
MAX_ANSWERS = 24

_agendas: WeakKeyDictionary[Store, Agenda] = WeakKeyDictionary()
_making = threading.Lock()


def agenda_of(store: Store) -> Agenda:
    """The agenda of a store, which all its pages share."""
    with _making:
        return _agendas.setdefault(store, Agenda())


class Agenda:
    """The events of one pool that the index `start` does not find, kept up to date. Any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._special: set[int] = set()
        self._pool_id = 0
        self._read: tuple[int, bytes] | None = None  # number and chain value of the last commit that is taken in
        # What was found for a span on a clock, and how many rules were cut short; emptied when an event changes.
        self._answers: dict[tuple[Any, ...], tuple[list[tuple[Item, Occurrence]], int]] = {}

    def between(
        self, pool: Pool, first: datetime.date, last: datetime.date, zone: datetime.tzinfo, budget: Budget
    ) -> list[tuple[Item, Occurrence]]:
        """What takes place from the day `first` up to, not including, `last`, in order of time."""
        with self._lock:
            self._catch_up(pool)
            special = sorted(self._special)
            key, answers = (pool.item_id, first, last, repr(zone)), self._answers
            kept = answers.get(key)
        if kept is not None:
            budget.incomplete += kept[1]
            return kept[0]
        before = budget.incomplete
        found: list[tuple[Item, Occurrence]] = []
        for item in self._candidates(pool, first, last, special):
            found += [
                (item, occurrence) for occurrence in occurrences(attr.Attributes(item), first, last, zone, budget)
            ]
            if len(found) > MAX_OCCURRENCES:
                budget.incomplete += 1
                break
        found.sort(key=lambda pair: (pair[1].start, not pair[1].all_day, -_length(pair[1]), pair[0].item_id))
        with self._lock:  # an event that changed meanwhile has put another dict in the place of this one
            if len(answers) >= MAX_ANSWERS:
                answers.clear()
            answers[key] = found, budget.incomplete - before
        return found

    @staticmethod
    def _candidates(pool: Pool, first: datetime.date, last: datetime.date, special: list[int]) -> Iterator[Item]:
        for item_id in special:
            try:
                yield pool.store.get(item_id)
            except NoSuchItem:
                continue  # it went a moment ago
        if order(pool, "start") == "start":
            low, high = (_utc(day, margin) for day, margin in ((first, -MARGIN), (last, MARGIN)))
            yield from (item for item in pool.query("start", start=low, end=high) if not _is_special(item))

    # -- the ids

    def _catch_up(self, pool: Pool) -> None:
        store = pool.store
        head = store.head.number
        if self._read is not None and self._pool_id == pool.item_id:
            number, chain = self._read
            try:
                if number == head and store.head.chain == chain:
                    return
                commits = store.changes(number - 1)
                if next(commits).chain == chain:  # else another device's history has taken the place of this
                    known = {item.item_id for found, _ in self._answers.values() for item, _ in found}
                    for commit in commits:
                        for item_id in commit.item_ids:
                            if self._take(pool, item_id) or item_id in known:
                                self._answers = {}
                        self._read = commit.number, commit.chain
                    return
            except (NoSuchCommit, StopIteration):
                pass
        last = store.head  # what is committed while the pool is read is taken in again the next time
        self._answers = {}
        self._pool_id = pool.item_id
        self._special = {item.item_id for item in pool if _is_special(item)}
        self._read = (last.number, last.chain) if last.number else None

    def _take(self, pool: Pool, item_id: int) -> bool:
        """Look at an item that has changed; returns whether it is an event of the pool, or was a special one."""
        was = item_id in self._special
        try:
            item = pool.store.get(item_id)
            member = item in pool
        except NoSuchItem:
            member = False
        if member and _is_special(item):
            self._special.add(item_id)
        else:
            self._special.discard(item_id)
        return member or was


def _is_special(item: Item) -> bool:
    """Whether its start alone does not say when it takes place."""
    if any(attr.get(item, name) for name in ("recurrence", "rdates", "overrides")):
        return True
    start, end = attr.get(item, "start"), attr.get(item, "end")
    if not isinstance(start, datetime.datetime) or start.tzinfo is None:
        return True
    if not isinstance(end, datetime.datetime) or end.tzinfo is None:
        return end is not None
    return end - start > SHORT


def _utc(day: datetime.date, margin: datetime.timedelta) -> datetime.datetime:
    return datetime.datetime(day.year, day.month, day.day, tzinfo=datetime.UTC) + margin


def _length(occurrence: Occurrence) -> datetime.timedelta:
    return occurrence.end - occurrence.start
