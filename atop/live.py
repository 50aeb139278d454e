"""The objects in memory: one for each item that the program holds.

Promises: within a store, an id stands for one object for as long as anyone holds it. An object holds a state only if
that is the last one committed, or another thread is about to take it away: states come and go under one lock, in the
same moment, for readers, in which the database has them. Objects that nobody holds are not kept alive.
"""

from __future__ import annotations

import contextlib
import struct
import threading
import weakref
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from atop.database import Database
from atop.errors import NoSuchItem, UnsafePickle, UpgradeFailed
from atop.indexes import IndexDefinition, index_keys, prefix_of
from atop.item import Item, class_named, make, set_state, set_views
from atop.records import State, decode, pack_u64
from atop.transaction import CURRENT, current

if TYPE_CHECKING:
    from atop.store import Store

# References looked after before those to objects that nobody holds any more are swept out of the table.
FIRST_SWEEP = 4_096


class LiveItems:
    """The objects in memory of one store. May be used by any thread."""

    def __init__(self, store: Store, engine: Database) -> None:
        self._store = store
        self.engine = engine
        self._references: dict[int, weakref.ref[Item]] = {}
        # Re-entrant: an object that goes while it is held may have a `__del__` that uses the store.
        self._lock = threading.RLock()
        self._sweep_at = FIRST_SWEEP

    def find(self, item_id: int) -> Item | None:
        """The item with this id, or None."""
        if CURRENT.get() is not None:
            transaction = current(self._store)
            if transaction is not None and item_id in transaction.entries:
                entry = transaction.entries[item_id]
                return None if entry.deleted else entry.item
        reference = self._references.get(item_id)
        item = reference() if reference is not None else None
        if item is not None and item._state is not None:
            return item
        if type(item_id) is not int or not 0 < item_id < 1 << 63:
            self._store._check_open()
            return None
        return self._fetch(item_id, item)

    def _fetch(self, item_id: int, item: Item | None) -> Item | None:
        """Read an item from the database; `item` is the object that stands for it, if there is one."""
        engine = self.engine
        sequence = engine.sequence
        record = engine.get_item(pack_u64(item_id))
        if record is None:
            return None
        try:
            state = decode(record)
        except UnsafePickle as error:
            raise UnsafePickle(f"item {item_id}: {error}") from error
        with self._lock:  # a commit that is published between the question and the answer would be lost
            current = not sequence & 1 and engine.sequence == sequence
            item = self._object(item_id, item, state, current)
        if item._state is None and state.schema != type(item)._schema:
            self._adapt(item, state, sequence)
        if len(self._references) > self._sweep_at:
            self._sweep()
        return item

    def _object(self, item_id: int, item: Item | None, state: State, current: bool) -> Item:
        """Under the lock: the object that stands for an item, `item` if that is known, else the one that somebody
        holds, else a new one. It has this state if that is `current`, and needs no upgrade.
        """
        _, type_name, schema, _, _, _ = state
        if item is None:
            cls = class_named(type_name)
            if cls is None or cls._schema < schema:
                cls = Item
            item = make(cls, self._store, item_id, state if current and schema == cls._schema else None)
            reference = weakref.ref(item)
            known = self._references.setdefault(item_id, reference)
            if known is reference:
                return item
            there = known()
            if there is None:
                self._references[item_id] = reference
                return item
            item = there
        if current and schema == type(item)._schema:
            set_state(item, state)
        return item

    def _adapt(self, item: Item, state: State, sequence: int) -> None:
        """Have an object of a newer class hold a state that was read at `sequence`, upgraded."""
        with contextlib.suppress(UpgradeFailed):  # reading its attributes will try again, and raise
            self._keep_states([(item, item._adapt(state))], sequence)

    def _put_objects(
        self,
        items: list[Item | None],
        ids: Sequence[int],
        missing: list[int],
        records: list[bytes | None],
        sequence: int,
    ) -> bool:
        """Put objects with states into `items`, for records that were read at the engine's `sequence`, or later.

        `missing` has the place of each record in `items` and `ids`. An object that is there already stays; None comes
        where there is no record, and False is returned. Nothing of the program's own runs while it has the lock.
        """
        states: list[State | None] = []
        for place, record in zip(missing, records, strict=True):
            try:
                states.append(decode(record) if record is not None else None)
            except UnsafePickle as error:
                raise UnsafePickle(f"item {ids[place]}: {error}") from error
        outdated: list[tuple[Item, State]] = []
        with self._lock:
            current = not sequence & 1 and self.engine.sequence == sequence
            for place, state in zip(missing, states, strict=True):
                if state is None:
                    items[place] = None
                    continue
                item = items[place] = self._object(ids[place], items[place], state, current)
                if item._state is None and state.schema != type(item)._schema:
                    outdated.append((item, state))
        for item, state in outdated:
            self._adapt(item, state, sequence)
        if len(self._references) > self._sweep_at:
            self._sweep()
        return None not in states

    def _keep_states(self, states: list[tuple[Item, State]], sequence: int) -> None:
        """Have objects hold the states that were read at `sequence`, unless a commit may have come after."""
        with self._lock:  # a commit that is published between the question and the answer would be lost
            if not sequence & 1 and self.engine.sequence == sequence:
                for item, state in states:
                    set_state(item, state)

    def object_for(self, cls: type[Item], item_id: int) -> Item:
        """The object that stands for an item: the one there is, or a new one, without its state."""
        return self.remember(make(cls, self._store, item_id, None))

    def load_state(self, item: Item) -> State:
        """Fetch the committed state of an item. Raises `NoSuchItem`."""
        engine = self.engine
        sequence = engine.sequence
        record = engine.get_item(pack_u64(item._id))
        if record is None:
            raise NoSuchItem(item._id)
        state = item._adapt(_decoded(item._id, record))
        self._keep_states([(item, state)], sequence)
        return state

    def read_state(self, item_id: int) -> State | None:
        """The committed state of an item as its record has it, or None."""
        record = self.engine.get_item(pack_u64(item_id))
        return _decoded(item_id, record) if record is not None else None

    def items_at(
        self, keys: list[bytes], pool_id: int, definition: IndexDefinition | None, sequence: int
    ) -> tuple[list[bytes], list[Item]]:
        """The items of index entries, with their keys; without those that are gone or have that key no longer."""
        transaction = current(self._store)
        entries = transaction.entries if transaction is not None else {}
        item_keys = [key[-8:] for key in keys]
        ids: tuple[int, ...] = struct.unpack(f">{len(keys)}Q", b"".join(item_keys))
        items: list[Item | None] = [
            None if reference is None else reference() for reference in map(self._references.get, ids)
        ]
        missing = [place for place, item in enumerate(items) if item is None or item._state is None]
        if entries:
            for place in missing:
                if ids[place] in entries:
                    items[place] = entries[ids[place]].item
            missing = [place for place in missing if ids[place] not in entries]
        complete = True
        if missing:
            before = self.engine.sequence
            records = self.engine.get_items([item_keys[place] for place in missing])
            complete = self._put_objects(items, ids, missing, records, before)
        if not complete or sequence & 1 or self.engine.sequence != sequence:
            valid = [
                (key, item)
                for item, key in zip(items, keys, strict=True)
                if item is not None and (item._id in entries or self._has_key(item, key, pool_id, definition))
            ]
            return [key for key, _ in valid], [item for _, item in valid]
        return keys, items  # type: ignore[return-value]  # none of them is None

    def _has_key(self, item: Item, key: bytes, pool_id: int, definition: IndexDefinition | None) -> bool:
        """Whether a committed item has this entry in an index of a pool; in its membership, without a definition."""
        state = item._state or self.read_state(item._id)
        if state is None:
            return False
        raw = state.raw or state
        return _has_entry(key, pool_id, definition, raw.pools, raw.attributes)

    def still_has_key(self, item: Item, key: bytes, pool_id: int, definition: IndexDefinition | None) -> bool:
        """As `_has_key`, as the current transaction sees the item."""
        transaction = current(self._store)
        entry = transaction.entries.get(item._id) if transaction is not None else None
        if entry is None:
            return self._has_key(item, key, pool_id, definition)
        return not entry.deleted and _has_entry(key, pool_id, definition, entry.pools, entry.stored()[0])

    def remember(self, item: Item) -> Item:
        """Make an object the one that stands for its item; returns the one that already does, if there is one."""
        reference = weakref.ref(item)
        if self._references.setdefault(item._id, reference) is not reference:
            item = self._succeed(item, reference)
        if len(self._references) > self._sweep_at:
            self._sweep()
        return item

    def _succeed(self, item: Item, reference: weakref.ref[Item]) -> Item:
        """Put an object in the place of one that nobody holds any more; returns that one, if somebody does."""
        with self._lock:  # only under the lock does a reference make way for another
            there = self._references.setdefault(item._id, reference)()
            if there is not None:
                return there
            self._references[item._id] = reference
            return item

    def _sweep(self) -> None:
        """Drop the references to objects that nobody holds any more."""
        with self._lock:
            live = self._references
            for item_id in [item_id for item_id, reference in live.copy().items() if reference() is None]:
                if live[item_id]() is None:
                    del live[item_id]
            self._sweep_at = max(FIRST_SWEEP, 2 * len(live))

    def forget(self, item_ids: Iterable[int]) -> None:
        """Have the objects of these items read their states again: a commit made elsewhere has changed them."""
        live = self._references
        with self._lock:
            for item_id in item_ids:
                reference = live.get(item_id)
                item = reference() if reference is not None else None
                if item is not None:
                    set_state(item, None)
                    set_views(item, None)

    def forget_states(self) -> None:
        """Have every object in memory read its state again."""
        for reference in list(self._references.values()):
            item = reference()
            if item is not None:
                set_state(item, None)
                set_views(item, None)

    def publish(self, items: list[Item], states: list[State | None]) -> None:
        """Give the objects in memory their new states: in the same moment, for readers, as the database has them."""
        with self._lock:
            for item, state in zip(items, states, strict=True):
                set_state(item, state)
                if item._views is not None:
                    set_views(item, None)


def _decoded(item_id: int, record: bytes) -> State:
    """The state in a record. Raises `UnsafePickle`, naming the item."""
    try:
        return decode(record)
    except UnsafePickle as error:
        raise UnsafePickle(f"item {item_id}: {error}") from error


def _has_entry(
    key: bytes, pool_id: int, definition: IndexDefinition | None, pools: tuple[int, ...], attributes: dict[str, Any]
) -> bool:
    """Whether an item with these pools and attributes has this entry in an index; in the membership, without one."""
    if definition is None or pool_id not in pools:
        return pool_id in pools
    return key in index_keys(prefix_of(pool_id, definition.number), definition, attributes, key[-8:])
