"""What a transaction's uncommitted changes do to indexes and references, so that its own queries see them.

The overlay is kept up to date when it is asked, not at each change: most transactions never query what they write.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from typing import TYPE_CHECKING

from atop.indexes import PREFIX_SIZE, Plan, entry_keys
from atop.records import pack_u64
from atop.values import ATOMS, Reference, walk

if TYPE_CHECKING:
    from atop.transaction import Entry, Transaction

# (source id, attribute): one place that refers to an item
Place = tuple[int, str]


class Overlay:
    """The pending index entries and references of one transaction."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._added: dict[bytes, list[bytes]] = {}  # index prefix -> keys that the commit will put, sorted
        self._removed: dict[bytes, set[bytes]] = {}  # index prefix -> keys that it will delete
        self._places: dict[int, set[Place]] = {}  # item id -> places that will refer to it
        self._contributed: dict[int, tuple[list[bytes], list[bytes], list[int]]] = {}
        # Invariant: holds the id of every entry that has changed since it contributed.
        self.stale: set[int] = set()

    def keys(self, prefix: bytes, start: bytes, stop: bytes) -> tuple[list[bytes], set[bytes]]:
        """The pending keys of an index in [start, stop), sorted, and all keys of it that are no longer valid."""
        self._refresh()
        added = self._added.get(prefix, [])
        return added[bisect_left(added, start) : bisect_left(added, stop)], self._removed.get(prefix, set())

    def places(self, item_id: int) -> set[Place]:
        """Where this transaction's changed items refer to `item_id`."""
        self._refresh()
        return self._places.get(item_id, set())

    def _refresh(self) -> None:
        while self.stale:
            item_id = self.stale.pop()
            self._withdraw(item_id)
            entry = self._transaction.entries.get(item_id)
            if entry is not None:
                self._contribute(item_id, entry)

    def _contribute(self, item_id: int, entry: Entry) -> None:
        old, new = self._transaction.entry_keys(item_id, entry)
        gone, come = list(old - new), list(new - old)
        for key in come:
            insort(self._added.setdefault(key[:PREFIX_SIZE], []), key)
        for key in gone:
            self._removed.setdefault(key[:PREFIX_SIZE], set()).add(key)
        targets = []
        if not entry.deleted:
            for target, attribute in references_of(entry.stored()[0]):
                self._places.setdefault(target, set()).add((item_id, attribute))
                targets.append(target)
        self._contributed[item_id] = (come, gone, targets)

    def _withdraw(self, item_id: int) -> None:
        come, gone, targets = self._contributed.pop(item_id, ((), (), ()))
        for key in come:
            keys = self._added[key[:PREFIX_SIZE]]
            del keys[bisect_left(keys, key)]
        for key in gone:
            self._removed[key[:PREFIX_SIZE]].discard(key)
        for target in targets:
            self._places[target] = {place for place in self._places[target] if place[0] != item_id}


def references_of(attributes: dict[str, object]) -> Iterator[tuple[int, str]]:
    """(target id, attribute) for every reference in stored attributes; the same pair may come more than once."""
    for name, value in attributes.items():
        if type(value) not in ATOMS:
            for inner in walk(value):
                if type(inner) is Reference:
                    yield inner.item_id, name


def keys_in(pools: tuple[int, ...], plans: dict[int, Plan], attributes: dict[str, object], item_id: int) -> set[bytes]:
    """The index entries of an item that is in these pools."""
    item_key = pack_u64(item_id)
    return {key for pool_id in pools for key in entry_keys(plans[pool_id], attributes, item_key)}
