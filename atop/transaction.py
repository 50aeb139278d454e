"""The unit of work: what one transaction has read and changed, before it is committed.

Reads see the committed store plus the transaction's own changes. Changes collect here, in memory; objects keep their
committed state. Commit turns the unit of work into one WriteSet (`writeset.py`); a rollback drops it.

Each thread and each asyncio task has its own current transaction. A nested one joins: it is a savepoint, so that an
exception which leaves it, and is caught further out, undoes just what it did.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import get_ident
from typing import TYPE_CHECKING, Any

from atop.containers import TRACKED, contents_below, put_back
from atop.errors import Conflict, NoSuchItem, NoTransaction, Restricted
from atop.indexes import Plan, make_plan
from atop.overlay import Overlay, keys_in
from atop.records import State
from atop.values import Reference, to_stored

if TYPE_CHECKING:
    from atop.item import Item
    from atop.store import Store

CURRENT: ContextVar[Transaction | None] = ContextVar("atop.transaction", default=None)


def current(store: Store) -> Transaction | None:
    """The transaction of `store` that this thread or task is in."""
    transaction = CURRENT.get()
    while transaction is not None:
        if (
            transaction.store is store
            and transaction.open
            and transaction.thread == get_ident()
            and transaction.task is (_running_task() if _ASYNCIO in _modules else None)
        ):
            if transaction.scope() is not None:
                return transaction
            transaction.rollback()  # an interrupt came just when it was to end
        transaction = transaction.outer
    return None


def active(store: Store) -> Transaction:
    """The transaction of `store` that this thread or task is in. Raises `NoTransaction` if it is in none."""
    transaction = current(store)
    if transaction is None:
        raise NoTransaction("this needs a transaction: with store.transaction(): ...")
    return transaction


# To import asyncio takes about as long as to import all of Atop. No task runs in a program that has not done so.
_ASYNCIO, _modules = "asyncio.events", sys.modules


def _running_task() -> Any:
    """The asyncio task that this thread runs, or None."""
    # Another thread may be importing asyncio just now. Asking for the loop is several times as fast as having
    # current_task() raise an error.
    running_loop = getattr(_modules.get(_ASYNCIO), "_get_running_loop", None)
    if running_loop is None or running_loop() is None:
        return None
    import asyncio

    return asyncio.current_task()


class Entry:
    """One item in a transaction that has changed it, or means to."""

    __slots__ = ("attributes", "base", "deleted", "item", "level", "pools", "restored", "touched")

    def __init__(
        self, item: Item, base: State | None, attributes: dict[str, Any], pools: tuple[int, ...], level: int
    ) -> None:
        self.item = item
        self.base = base  # the committed state that the changes start from; None for an item created here
        self.attributes = attributes  # stored values, and containers that the program holds and changes
        self.pools = pools
        self.deleted = False
        self.touched = False
        # Of an item that is brought back: its type name and schema version, and the commit that deleted it.
        self.restored: tuple[str, int, int] | None = None
        self.level = level  # the savepoint that knows how to undo what was done since

    def stored(self) -> tuple[dict[str, Any], set[type]]:
        """The attributes, all in their stored form, and the types of these."""
        kinds = set(map(type, self.attributes.values()))
        if kinds.isdisjoint(TRACKED):
            return self.attributes, kinds
        stored = {n: to_stored(v, n) if type(v) in TRACKED else v for n, v in self.attributes.items()}
        return stored, set(map(type, stored.values()))


class _Snapshot:
    """How to put an entry back to where it was when a savepoint began."""

    def __init__(self, entry: Entry) -> None:
        self._entry = entry
        self._attributes = dict(entry.attributes)
        self._held = [contents_below(v) for v in entry.attributes.values() if type(v) in TRACKED]
        self._rest = entry.pools, entry.deleted, entry.touched, entry.level

    def restore(self) -> None:
        """Put attributes, and the containers that the program holds, back."""
        entry = self._entry
        entry.attributes = self._attributes
        for contents in self._held:
            put_back(contents)
        entry.pools, entry.deleted, entry.touched, entry.level = self._rest


class Transaction:
    """One unit of work on one store. Made by `Store.transaction`; not for use by several threads."""

    def __init__(self, store: Store, label: str, outer: Transaction | None, scope: Callable[[], object | None]) -> None:
        self.store = store
        self.label = label
        self.outer = outer
        self.scope = scope  # what holds it: once that gives None, the transaction is over
        self.open = True
        self.thread = get_ident()
        self.task = _running_task()
        # The engine's sequence when nothing had been read; None where a commit was being applied just then.
        self.base = store._engine.quiet_sequence()
        self.entries: dict[int, Entry] = {}
        # Versions of the items read. Invariant: one version for each; a second one is a Conflict.
        self.reads: dict[int, int] = {}
        self.mixed = False  # whether a query has met an entry whose item another commit had changed by then
        self.views: dict[int, dict[str, Any]] = {}  # item id -> attribute -> container shown to the program
        self.catalog: dict[str, tuple[int | None, int | None]] = {}  # name -> (item id expected, item id to be)
        self._joined: dict[int, Item] = {}  # the pools that items were put into, by id
        self.sizes: dict[int, int] = {}  # pool id -> how many members it had when an index was made of them
        self.after_commit: list[Callable[[], None]] = []
        # What containers that the program had got before held, until they were changed here.
        self._borrowed: list[list[tuple[Any, Any]]] = []
        self._savepoints: list[dict[int, _Snapshot | None]] = []
        self._overlay: Overlay | None = None

    # -- reading

    def created(self, item_id: int) -> bool:
        """Whether this transaction has created the item."""
        entry = self.entries.get(item_id)
        return entry is not None and entry.base is None

    def deleted(self, item_id: int) -> bool:
        """Whether this transaction has deleted the item."""
        entry = self.entries.get(item_id)
        return entry is not None and entry.deleted

    def read(self, item: Item) -> dict[str, Any]:
        """The item's attributes as this transaction sees them; not to be changed."""
        entry = self.entries.get(item._id)
        if entry is None:
            return self.state(item).attributes
        if entry.deleted:
            raise NoSuchItem(item._id, f"item {item._id} was deleted in this transaction")
        return entry.attributes

    def pools_of(self, item: Item) -> tuple[int, ...]:
        """The ids of the pools that hold the item, as this transaction sees them."""
        self.read(item)
        entry = self.entries.get(item._id)
        return entry.pools if entry is not None else self.state(item).pools

    def state(self, item: Item) -> State:
        """The committed state that this transaction reads. Raises `Conflict` if it has changed since the first time."""
        state = item._state or item._load()
        version = state.version
        if self.reads.setdefault(item._id, version) != version:
            raise Conflict(f"item {item._id} was changed by another commit while this transaction used it", item._id)
        return state

    def saw(self, item: Item) -> None:
        """A query has found the item: what it is now is what this transaction has read."""
        if item._state is not None and item._id not in self.entries:
            self.state(item)

    # -- changing

    def create(self, item: Item, attributes: dict[str, Any]) -> None:
        """Add a new item with these stored attributes."""
        self.entries[item._id] = Entry(item, None, attributes, (), len(self._savepoints))
        if self._savepoints:
            self._savepoints[-1].setdefault(item._id, None)
        self._changed(item._id)

    def restore(self, item: Item, type_name: str, schema: int, attributes: dict[str, Any], deletion: int) -> None:
        """Add an item as it was before the commit `deletion`."""
        self.create(item, attributes)
        self.reads[item._id] = 0  # another commit may have brought it back
        self.entries[item._id].restored = type_name, schema, deletion

    def write(self, item: Item) -> dict[str, Any]:
        """The item's attributes, to be changed. Raises `ReadOnlyItem` where the program does not know its class."""
        item_id = item._id
        entry = self.entries.get(item_id)
        if entry is None:
            state = self.state(item)
            cls = type(item)
            if state.schema != cls._schema or state.type_name != cls._type_name:
                item._check_writable(state)
            return self._enter(item_id, item, state).attributes
        if entry.base is not None:
            item._check_writable(entry.base)
        return self.entry(item).attributes

    def assign(self, item: Item, name: str, stored: Any) -> None:
        """Give an attribute a stored value."""
        self.write(item)[name] = stored
        if self.views:
            self.views.get(item._id, {}).pop(name, None)

    def unassign(self, item: Item, name: str) -> None:
        """Remove an attribute; one that has a default has that again, and so have the indexes of it."""
        default = type(item)._defaults.get(name)
        attributes = self.write(item)
        if default is None:
            attributes.pop(name, None)
        else:
            attributes[name] = default
        self.views.get(item._id, {}).pop(name, None)

    def touch(self, item: Item) -> None:
        """Have the item written even if nothing in it changes."""
        self.write(item)
        self.entries[item._id].touched = True

    def join_pool(self, item: Item, pool: Item) -> None:
        """Put an item into a pool, if it is not in it."""
        pool_id = pool._id
        if pool_id not in self.reads or pool_id in self.entries:
            self.read(pool)  # its indexes decide which entries are written, so the commit depends on its version
            self._joined[pool_id] = pool
        entry = self.entries.get(item._id)
        if entry is not None and entry.base is None and not (entry.pools or entry.deleted or self._savepoints):
            entry.pools = (pool_id,)
            self._changed(item._id)
        else:
            pools = self.pools_of(item)
            if pool_id not in pools:
                self.set_pools(item, tuple(sorted((*pools, pool_id))))

    def set_pools(self, item: Item, pools: tuple[int, ...]) -> None:
        """Change which pools hold the item; ids ascending."""
        self.entry(item).pools = pools

    def entry(self, item: Item) -> Entry:
        """The item's entry, about to be changed."""
        item_id = item._id
        entry = self.entries.get(item_id)
        if entry is None:
            return self._enter(item_id, item, self.state(item))
        if entry.deleted:
            raise NoSuchItem(item_id, f"item {item_id} was deleted in this transaction")
        if entry.level < len(self._savepoints):
            self._savepoints[-1].setdefault(item_id, _Snapshot(entry))
            entry.level = len(self._savepoints)
        self._changed(item_id)
        return entry

    def _enter(self, item_id: int, item: Item, state: State) -> Entry:
        """A new entry for an item that is about to be changed from this committed state."""
        entry = self.entries[item_id] = Entry(item, state, state.attributes.copy(), state.pools, len(self._savepoints))
        if self._savepoints:
            self._savepoints[-1].setdefault(item_id, None)
        if self._overlay is not None:
            self._overlay.stale.add(item_id)
        return entry

    def borrow(self, top: Any) -> None:
        """Note what a container of the program's, about to be changed here, holds, for a rollback."""
        self._borrowed.append(contents_below(top))

    def name(self, name: str, item_id: int | None) -> None:
        """Have the catalog's `name` stand for this item, or for none."""
        self.named(name)
        self.catalog[name] = self.catalog[name][0], item_id

    def named(self, name: str) -> int | None:
        """The id of the item that the catalog's `name` stands for here; the commit depends on it."""
        if name not in self.catalog:
            found = self.store._engine.catalog_get(name)
            self.catalog[name] = found, found
        return self.catalog[name][1]

    def _changed(self, item_id: int) -> None:
        if self._overlay is not None:
            self._overlay.stale.add(item_id)

    # -- deleting

    def delete(self, *items: Item) -> None:
        """Delete items and do to their referrers what their attributes say. Raises `Restricted`, changing nothing."""
        restricting: dict[int, list[int]] = {}  # item id -> ids of those that forbid its deletion
        with self.savepoint():
            for item in items:
                self._delete(item, restricting)
            for item_id, sources in restricting.items():
                left = [source for source in sources if not self.deleted(source)]
                if left:
                    raise Restricted(
                        f"item {item_id} cannot be deleted: {len(left)} items refer to it and forbid that, "
                        f"among them item {left[0]}; change or delete those first",
                        item_id,
                        tuple(left[:10]),
                    )

    def _delete(self, item: Item, restricting: dict[int, list[int]]) -> None:
        waiting = [item]
        while waiting:
            item = waiting.pop()
            if self.deleted(item._id):
                continue
            item._before_delete(self)
            self.entry(item).deleted = True
            for name in self.store._root_names(self, item._id):
                self.name(name, None)
            for source_id, attribute, rule in self.places(item._id):
                if self.deleted(source_id):
                    continue
                source = self.store.get(source_id)
                if rule == "restrict":
                    restricting.setdefault(item._id, []).append(source_id)
                elif rule == "cascade":
                    waiting.append(source)
                else:
                    self._let_go(source, attribute, item._id)

    def _let_go(self, source: Item, attribute: str, target: int) -> None:
        """Have an attribute refer no longer to an item that is deleted."""
        entry = self.entry(source)
        # An upgrade that is not written yet may have moved the reference to another attribute.
        upgraded = entry.base is not None and entry.base.raw is not None
        for name in list(entry.attributes) if upgraded else [attribute]:
            entry.attributes[name] = without(to_stored(entry.attributes.get(name), name), target)
            self.views.get(source._id, {}).pop(name, None)

    def places(self, item_id: int) -> list[tuple[int, str, str]]:
        """(source id, attribute, rule) for each place that refers to the item, in order of source id."""
        places = {
            (source, attribute): rule
            for source, attribute, rule in self.store._committed_places(item_id)
            if source not in self.entries
        }
        for source, attribute in self.overlay().places(item_id):
            places[source, attribute] = self.store._rule(self.entries[source].item, item_id, attribute)
        return sorted((source, attribute, rule) for (source, attribute), rule in places.items())

    # -- indexes

    def overlay(self) -> Overlay:
        """The pending index entries and references."""
        if self._overlay is None:
            self._overlay = Overlay(self)
            self._overlay.stale.update(self.entries)
        return self._overlay

    def plan(self, pool_id: int) -> Plan:
        """How entries of this pool are made, with this transaction's changes to its indexes."""
        pool = self._joined.get(pool_id)
        if pool is None:
            pool = self.store._pool_by_id(pool_id)
        definitions = self.read(pool)["indexes"]
        known = self.store._plans.get(pool_id)
        if known is None or known[0] is not definitions:
            known = self.store._plans[pool_id] = definitions, make_plan(pool_id, definitions)
        return known[1]

    def base_plan(self, pool_id: int) -> Plan:
        """How entries of this pool were made before this transaction."""
        entry = self.entries.get(pool_id)
        if entry is None or entry.base is None:
            return self.plan(pool_id)
        return make_plan(pool_id, entry.base.attributes["indexes"])

    def entry_keys(self, item_id: int, entry: Entry) -> tuple[set[bytes], set[bytes]]:
        """The index entries that the item has, and those that it will have."""
        old: set[bytes] = set()
        new: set[bytes] = set()
        if entry.base is not None and entry.base.pools:
            raw = entry.base.raw or entry.base
            old = keys_in(raw.pools, {p: self.base_plan(p) for p in raw.pools}, raw.attributes, item_id)
        if entry.pools and not entry.deleted:
            new = keys_in(entry.pools, {p: self.plan(p) for p in entry.pools}, entry.stored()[0], item_id)
        return old, new

    # -- the end

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """Undo what is done in the block, objects included, if an exception leaves it."""
        snapshots: dict[int, _Snapshot | None] = {}
        catalog, borrowed, callbacks = dict(self.catalog), len(self._borrowed), len(self.after_commit)
        self._savepoints.append(snapshots)
        try:
            yield
        except BaseException:
            if not self.open:
                raise  # all of it has been dropped
            self._savepoints.pop()
            looked_up = {name: (found, found) for name, (found, _) in self.catalog.items()}
            self.catalog = {**looked_up, **catalog}
            del self.after_commit[callbacks:]
            self._return_borrowed(borrowed)
            for item_id, snapshot in snapshots.items():
                if snapshot is None:
                    del self.entries[item_id]
                else:
                    snapshot.restore()
                self.views.pop(item_id, None)
                self._changed(item_id)
            raise
        if not self.open:
            return
        self._savepoints.pop()
        level = len(self._savepoints)
        for item_id, snapshot in snapshots.items():
            self.entries[item_id].level = min(self.entries[item_id].level, level)
            if level:
                self._savepoints[-1].setdefault(item_id, snapshot)

    def rollback(self) -> None:
        """Drop everything, and put the containers that the program holds back to what they showed."""
        self.open = False
        self._return_borrowed(0)
        self.return_views()
        self.entries.clear()
        self.views.clear()

    def return_views(self) -> None:
        """Let items go on showing the containers that they showed here, where these hold what is committed."""
        for views in self.views.values():
            for name, top in views.items():
                if type(top) in TRACKED:
                    top._root.item._keep_view(name, top)

    def _return_borrowed(self, down_to: int) -> None:
        while len(self._borrowed) > down_to:
            put_back(self._borrowed.pop())


def without(value: Any, item_id: int) -> Any:
    """A stored value with no reference to this item: elements of lists and sets go, all else becomes None."""
    kind = type(value)
    if kind is Reference:
        return None if value.item_id == item_id else value
    gone = Reference(item_id)
    if kind is list:
        return [without(v, item_id) for v in value if v != gone]
    if kind is set or kind is frozenset:
        return kind(without(v, item_id) for v in value if v != gone)
    if kind is tuple:
        return tuple(without(v, item_id) for v in value)
    if kind is dict:
        return {without(k, item_id): without(v, item_id) for k, v in value.items() if k != gone}
    return value
