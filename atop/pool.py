"""Pools: named collections of items, with indexes.

A pool is an item itself. It does not contain its items: they are in the store, each knows the pools it is in, and the
index table lists them. Every member stands in every index of the pool, under None where it lacks the attribute.

Ranges are half-open, as slices are: `start` is included, `end` is not. The keys of a compound index are tuples, and a
shorter tuple stands for all that begin with it.

A loop over a pool or a query may change and delete what it is given. It never meets an item that is gone, or has
another key by then. An item whose key it moves ahead comes again, and what it adds ahead comes too: such a loop goes
over `list(...)` of the query.

The module is long because members, definitions and queries of a pool share one table and one set of rules for reading
it beside writers; apart, each would have to repeat them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from heapq import merge
from typing import TYPE_CHECKING, Any, NamedTuple

from atop.building import fill_index, remove_doomed, remove_dropped
from atop.classic import ClassicPool
from atop.errors import NoSuchIndex, NoSuchItem, NoTransaction, StoreError, TransactionTooLarge
from atop.indexes import BUILDING, PREFIX_SIZE, READY, IndexDefinition, prefix_of, words_of
from atop.item import Item, lacks_default
from atop.keys import encode, encode_prefix, encode_tuple, successor
from atop.records import pack_u64, unpack_u64
from atop.transaction import Transaction, active, current
from atop.values import order_value, plain_text
from atop.writeset import INDEX, pool_counter

if TYPE_CHECKING:
    from atop.store import Store

Progress = Callable[[int, int], None]  # (done, of how many)

# How many indexes a pool can have had: entries hold the number in two bytes, and none is used twice.
MAX_INDEX_NUMBER = (1 << 16) - 1
# The most members of a pool that one transaction indexes, or takes out when it deletes the pool.
MAX_AT_ONCE = 10_000
# Index entries read at once, at first and at most: a query that is not read to its end should not read far ahead.
FIRST_CHUNK, LARGEST_CHUNK = 64, 1_024
# To find a part of an index: how many bytes of the keys are halved at once.
HALVED = 14
CLEAR_BATCH = 500  # members that one transaction of `clear` takes out

_UNSET: Any = object()
# The list of members as an index: its keys are empty, and its entries sort by id.
_MEMBERS = IndexDefinition(0, ())


class Index(NamedTuple):
    """What to ask for in `Store.pool(..., indexes=[...])` where a name alone does not say it."""

    name: str
    attributes: str | tuple[str, ...] | None = None
    nocase: bool = False
    words: bool = False


class Page:
    """Some items of a pool in the order of an index, and where they are in it."""

    __slots__ = ("_exact", "_first", "_last", "_more", "_pool", "_range", "_reverse", "items", "keys")

    def __init__(
        self,
        pool: Pool,
        span: tuple[bytes, bytes],
        items: list[Any],
        keys: list[bytes],
        low: bytes,
        more: bool,
        reverse: bool,
        exact: bool,
    ) -> None:
        self.items = items
        self.keys = keys  # of each item: what `after=` and `before=` of another page take
        self._pool = pool
        self._range = span
        self._first, self._last = (keys[0], keys[-1]) if keys else (low, low)
        self._exact = exact  # whether the range is the whole index, with one entry for each member
        self._more = more  # whether there are items beyond the page, in the direction in which it was read
        self._reverse = reverse

    @property
    def previous(self) -> bytes | None:
        """What gives the page before this one as `before=`; None if there is none."""
        more = self._more if self._reverse else self._pool._any(self._range[0], self._first)
        return self._first if more else None

    @property
    def next(self) -> bytes | None:
        """What gives the page after this one as `after=`; None if there is none."""
        more = self._pool._any(self._last + b"\0", self._range[1]) if self._reverse else self._more
        return self._last if more else None

    @property
    def position(self) -> float:
        """Where the page begins, as a part of the pool from 0 to 1: exact in small pools, about right in large ones."""
        return self._pool._fraction(self._first, *self._range)

    def total(self, limit: int = 20_000) -> tuple[int, bool]:
        """How many entries the range of the page has, and whether that is exact: past `limit` it is estimated."""
        if self._exact:
            return len(self._pool), True
        low, high = self._range
        counted = 0
        for keys, _ in self._pool._key_chunks(low, high, False, LARGEST_CHUNK):
            counted += len(keys)
            if counted > limit:
                base = low[:PREFIX_SIZE]
                whole = self._pool._share(base, _after(base))
                share = self._pool._share(low, high) / whole if whole > 0 else 0.0
                return max(counted, round(share * len(self._pool))), False
        return counted, True

    def __repr__(self) -> str:
        return f"<Page of {len(self.items)} items of {self._pool!r}>"


class Pool(ClassicPool, Item, type_name="atop.Pool"):
    """A collection of items with indexes."""

    name: str = ""

    def __init__(self, store: Store, name: str = "", indexes: Iterable[str | tuple[str, ...] | Index] = ()) -> None:
        super().__init__(store, name=name)
        transaction = active(store)
        attributes = transaction.write(self)
        attributes["indexes"] = {}
        attributes["next_number"] = 1
        attributes["doomed"] = ()
        for spec in index_specs(indexes):
            self.add_index(*spec)

    # -- members

    def add(self, item: Item) -> None:
        """Put an item into the pool; nothing happens if it is there."""
        self._check_member(item)
        transaction = current(self._store)
        if transaction is not None:
            transaction.join_pool(item, self)
        else:
            label = f"add {item._label()} to {self._called()}"
            self._store._run(lambda transaction: transaction.join_pool(item, self), label)

    def remove(self, item: Item) -> None:
        """Take an item out of the pool; it stays in the store. Raises KeyError if it is not in the pool."""
        self._check_member(item)

        def remove(transaction: Transaction) -> None:
            pools = transaction.pools_of(item)
            if self._id not in pools:
                raise KeyError(f"{item!r} is not in {self._called()}")
            transaction.read(self)
            transaction.set_pools(item, tuple(p for p in pools if p != self._id))

        self._store._run(remove, f"remove {item._label()} from {self._called()}")

    def clear(self, progress: Progress | None = None) -> None:
        """Take all items out, in batches: outside of a transaction."""
        self._needs_no_transaction("clear")
        total = len(self)
        done = 0
        while chunk := next(self._id_chunks(CLEAR_BATCH), None):

            def take(item_ids: list[int] = chunk) -> None:
                for item_id in item_ids:
                    item = self._store._objects.find(item_id)
                    if item is not None and item in self:
                        self.remove(item)

            self._store.transact(take, label=f"clear {self._called()}")
            done += len(chunk)
            if progress is not None:
                progress(min(done, total), total)

    def __contains__(self, item: object) -> bool:
        if not isinstance(item, Item) or item._store is not self._store:
            return False
        try:
            return self._id in item._pool_ids()
        except NoSuchItem:
            return False

    def __len__(self) -> int:
        self._read()
        size = self._store._engine.counter(pool_counter(self._id))
        transaction = current(self._store)
        if transaction is not None:
            for entry in transaction.entries.values():
                size += self._id in entry.pools and not entry.deleted
                size -= entry.base is not None and self._id in entry.base.pools
        return size

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[Any]:
        """The members, by id."""
        low = prefix_of(self._id, 0)
        yield from self._walk(None, low, _after(low), False, None)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "name":
            raise AttributeError(f"the name of {self._called()} cannot be changed: it is what store.pool finds it by")
        super().__setattr__(name, value)

    def _check_member(self, item: Item) -> None:
        if not isinstance(item, Item):
            raise TypeError(f"a pool holds items, not a {type(item).__name__}")
        if item._store is not self._store:
            raise ValueError(f"{item!r} belongs to another store than {self._called()}")

    # -- indexes

    @property
    def indexes(self) -> dict[str, IndexDefinition]:
        """The indexes by name; those that are still being built have the state "building"."""
        return {name: IndexDefinition(*fields) for name, fields in self._read()["indexes"].items()}

    def add_index(
        self,
        name: str | tuple[str, ...] | Index,
        attributes: str | tuple[str, ...] | None = None,
        nocase: bool = False,
        words: bool = False,
        progress: Progress | None = None,
    ) -> None:
        """Keep the items in the order of one or more attributes; or, with `words`, findable by the words in them.

        A full pool is indexed in batches, and stays in use meanwhile. If that is interrupted, the same call goes on
        with it. Nothing happens if the pool has this very index. Items for which reading one of the attributes gives a
        default that their class got after they were written are written again, with it: an index has what is stored.

        Raises:
            ValueError: the pool has another index of this name.
            NoTransaction: the pool is large, and a transaction is under way.
            UnstorableValue: an item has a value that cannot be ordered; the pool is as before.
        """
        asked = name if isinstance(name, Index) else Index(index_name(name), attributes or name, nocase, words)
        name, attributes = plain_text(asked.name), asked.attributes or asked.name
        chosen = (attributes,) if isinstance(attributes, str) else attributes
        if not name or not all(isinstance(a, str) and a for a in chosen):
            raise ValueError("an index needs a name and the names of attributes")
        chosen = tuple(map(plain_text, chosen))
        with_transaction = current(self._store) is not None
        definition = self._store._run(
            lambda t: self._define(t, name, chosen, asked.nocase, asked.words, with_transaction),
            f"add index {name} to {self._called()}",
        )
        if definition.state == BUILDING and not with_transaction:
            try:
                fill_index(self, definition, progress)
            except StoreError:
                raise  # the store could not be written: the index stays as it is, and may be gone on with
            except Exception:
                self.drop_index(name)
                raise
            self._store._run(
                lambda t: self._set_ready(t, name, definition), f"index {name} of {self._called()} is ready"
            )

    def _define(
        self,
        transaction: Transaction,
        name: str,
        chosen: tuple[str, ...],
        nocase: bool,
        words: bool,
        at_once: bool,
    ) -> IndexDefinition:
        there = self.indexes.get(name)
        if there is not None:
            if (there.attributes, there.nocase, there.words) != (chosen, nocase, words):
                raise ValueError(f"{self._called()} has another index {name!r}: drop it first, or choose another name")
            return there
        size = len(self)
        if at_once and size > MAX_AT_ONCE:
            raise NoTransaction(
                f"{self._called()} has {size:,} items: add the index {name!r} outside of a transaction, "
                f"where it is built in batches (a transaction indexes {MAX_AT_ONCE:,} at most)"
            )
        number = self._read()["next_number"]
        if number > MAX_INDEX_NUMBER:
            raise ValueError(
                f"{self._called()} has had {MAX_INDEX_NUMBER:,} indexes, which is all it can have: make another pool"
            )
        definition = IndexDefinition(number, chosen, nocase, words, READY if at_once else BUILDING)
        attributes = transaction.write(self)
        attributes["next_number"] = number + 1
        attributes["indexes"] = {**attributes["indexes"], name: tuple(definition)}
        if at_once:
            for item in self:
                base = transaction.entry(item).base
                if base is not None and lacks_default(base, chosen):
                    item._write_back(transaction)
            if not transaction.created(self._id):
                # Members whose versions are checked, and no others: one that is added meanwhile would be left out.
                transaction.sizes[self._id] = sum(
                    entry.base is not None and self._id in entry.base.pools for entry in transaction.entries.values()
                )
        return definition

    def _set_ready(self, transaction: Transaction, name: str, definition: IndexDefinition) -> None:
        indexes = self._read()["indexes"]
        if indexes.get(name) == tuple(definition):
            transaction.write(self)["indexes"] = {**indexes, name: tuple(definition._replace(state=READY))}

    def drop_index(self, name: str | tuple[str, ...]) -> None:
        """Remove an index. Raises `NoSuchIndex`."""
        name = index_name(name)

        def drop(transaction: Transaction) -> int:
            definition = self._definition(name, any_state=True)
            attributes = transaction.write(self)
            attributes["indexes"] = {n: d for n, d in attributes["indexes"].items() if n != name}
            attributes["doomed"] = (*attributes["doomed"], definition.number)
            transaction.after_commit.append(self._sweep)
            return definition.number

        self._store._run(drop, f"drop index {name} of {self._called()}")

    def _sweep(self) -> None:
        remove_dropped(self)

    def _definition(self, name: str | tuple[str, ...], any_state: bool = False) -> IndexDefinition:
        name = index_name(name)
        fields = self._read()["indexes"].get(name)
        if fields is None:
            known = ", ".join(self._read()["indexes"]) or "none"
            raise NoSuchIndex(
                f"{self._called()} has no index {name!r} (it has: {known}): add it with add_index (in atop shell, say)"
            )
        definition = IndexDefinition(*fields)
        if definition.state != READY and not any_state:
            raise NoSuchIndex(
                f"index {name!r} of {self._called()} is still being built: wait, or call add_index again "
                "(in atop shell, say)"
            )
        return definition

    # -- queries

    def query(
        self,
        index: str | tuple[str, ...],
        start: Any = _UNSET,
        end: Any = _UNSET,
        prefix: Any = _UNSET,
        key: Any = _UNSET,
        reverse: bool = False,
        limit: int | None = None,
    ) -> Iterator[Any]:
        """The items in the order of an index: all, or those in a range, with a prefix, or with one key.

        Raises:
            NoSuchIndex: the pool has no such index, or it is still being built.
            UnstorableValue: a bound is of a type that has no order.
        """
        definition = self._definition(index)
        low, high = self._span(definition, start, end, prefix, key)
        return self._walk(definition, low, high, reverse, limit)

    def count(self, index: str | tuple[str, ...], start: Any = _UNSET, end: Any = _UNSET, **only: Any) -> int:
        """How many items a query finds; `prefix` and `key` as there. Takes time in proportion to the answer."""
        definition = self._definition(index)
        low, high = self._span(definition, start, end, only.pop("prefix", _UNSET), only.pop("key", _UNSET))
        if only:
            raise TypeError(f"count() takes no argument {', '.join(only)}")
        if low == prefix_of(self._id, definition.number) and high == _after(low) and not definition.words:
            return len(self)
        return sum(len(keys) for keys, _ in self._key_chunks(low, high, False))

    def page(
        self,
        index: str | tuple[str, ...] | None,
        size: int = 50,
        *,
        after: bytes | None = None,
        before: bytes | None = None,
        at: float | None = None,
        start: Any = _UNSET,
        prefix: Any = _UNSET,
        first: Any = _UNSET,
        last: Any = _UNSET,
    ) -> Page:
        """`size` items in the order of an index, or of their ids where it is None.

        The first ones, or those after or before a key of another page. `at` is a position from 0 to 1, as a scroll bar
        gives it; `start` a key to jump to. Only items with a `prefix`, or from `first` to `last`: both are included,
        and a text as `last` stands for all that begin with it. The time it takes does not depend on the size of the
        pool.
        """
        if size < 1:
            raise ValueError(f"a page has at least one item, not {size}")
        definition = _MEMBERS if index is None else self._definition(index)
        low, high = span = self._part(definition, prefix, first, last)
        whole = prefix is first is last is _UNSET or span == self._part(definition, _UNSET, _UNSET, _UNSET)
        if start is not _UNSET:
            low = max(low, self._start_of(definition, start))
        elif at is not None:
            low = self._key_at(at, *span)
        elif after is not None:
            low = max(low, after + b"\0")
        reverse = before is not None and after is None and at is None and start is _UNSET
        if reverse:
            keys, items, more = self._take(definition, low, min(high, before or high), size, True)
            keys.reverse()
            items.reverse()
        else:
            keys, items, more = self._take(definition, low, high, size, False)
        return Page(self, span, items, keys, low, more, reverse, whole and not definition.words)

    def _part(self, definition: IndexDefinition, prefix: Any, first: Any, last: Any) -> tuple[bytes, bytes]:
        """The range of entries of an index that a page is to keep to."""
        if prefix is not _UNSET:
            if first is not _UNSET or last is not _UNSET:
                raise TypeError("a page takes prefix, or first and last")
            return self._span(definition, _UNSET, _UNSET, prefix, _UNSET)
        low, high = self._span(definition, _UNSET, _UNSET, _UNSET, _UNSET)
        if first is not _UNSET:
            low = self._start_of(definition, first)
        if last is not _UNSET:
            base = prefix_of(self._id, definition.number)
            text = type(last) is str and definition is not _MEMBERS
            end = encode_prefix(last, definition.nocase) if text else self._start_of(definition, last)[PREFIX_SIZE:]
            high = _exactly(base + end)[1]
        return low, max(low, high)

    def _start_of(self, definition: IndexDefinition, key: Any) -> bytes:
        """The first entry that a key can have; of the members, whose keys are their ids, the entry of an id."""
        base = prefix_of(self._id, definition.number)
        if definition is _MEMBERS:
            if type(key) is not int or not 0 <= key < 1 << 63:
                raise ValueError(f"not an item id: {key!r}")
            return base + pack_u64(key)
        return base + _encoded(definition, key)

    def search(self, text: str, index: str | None = None, limit: int | None = None) -> Iterator[Any]:
        """The items that have all words of `text`, by id; a last word that ends in `*` may be the start of one.

        With such a start the order may be that of the words that it begins, so that the first items come at once.
        `index` names the word index; the first one, unless given.
        """
        if index is None:
            index = next((n for n, d in self.indexes.items() if d.words and d.state == READY), None)
            if index is None:
                raise NoSuchIndex(
                    f"{self._called()} has no word index: add one with add_index(name, ..., words=True) "
                    "(in atop shell, say)"
                )
        definition = self._definition(index)
        if not definition.words:
            raise NoSuchIndex(f"index {index!r} of {self._called()} is not a word index")
        whole, _, last = text.strip().rpartition(" ")
        beginnings = words_of(last[:-1]) if last.endswith("*") else set()
        words = words_of(whole if last.endswith("*") else text)
        return self._search(definition, words, beginnings, limit)

    def _search(
        self, definition: IndexDefinition, words: set[str], beginnings: set[str], limit: int | None
    ) -> Iterator[Any]:
        prefix = prefix_of(self._id, definition.number)
        spans = [_exactly(prefix + encode(word)) for word in words]
        spans += [_exactly(prefix + encode_prefix(word)) for word in beginnings]
        if not spans:
            return
        rarest = min(spans, key=lambda span: self._share(*span))
        seen: set[int] = set()
        for item in self._walk(definition, *rarest, False, None):
            if item._id in seen:
                continue
            found = words_of([item._read().get(name) for name in definition.attributes])
            if words <= found and all(any(w.startswith(b) for w in found) for b in beginnings):
                if beginnings:
                    seen.add(item._id)
                yield item
                if limit is not None and (limit := limit - 1) <= 0:
                    return

    # -- the index table

    def _span(self, definition: IndexDefinition, start: Any, end: Any, prefix: Any, key: Any) -> tuple[bytes, bytes]:
        """The range of entries that a query means."""
        base = prefix_of(self._id, definition.number)
        if (key is not _UNSET) + (prefix is not _UNSET) + (start is not _UNSET or end is not _UNSET) > 1:
            raise TypeError("a query takes key, or prefix, or start and end")
        if key is not _UNSET:
            return _exactly(base + _encoded(definition, key))
        if prefix is not _UNSET:
            if len(definition.attributes) > 1 and isinstance(prefix, tuple):
                head = _encoded(definition, prefix[:-1])
                return _exactly(base + head + encode_prefix(prefix[-1], definition.nocase))
            return _exactly(base + encode_prefix(prefix, definition.nocase))
        low = base if start is _UNSET or start is None else base + _encoded(definition, start)
        high = _after(base) if end is _UNSET or end is None else base + _encoded(definition, end)
        return low, high

    def _key_chunks(
        self, low: bytes, high: bytes, reverse: bool, chunk: int = FIRST_CHUNK
    ) -> Iterator[tuple[list[bytes], int]]:
        """The keys of the entries in [low, high) in order, this transaction's changes included, some at a time.

        With each, the engine's sequence before they were read: while that stands, they and their items agree.
        """
        transaction = current(self._store)
        engine = self._store._engine
        while True:
            sequence = engine.sequence
            keys = engine.keys(INDEX, low, high, chunk, reverse)
            complete = len(keys) < chunk
            from_, to = low, high
            if not complete:
                from_, to = (keys[-1], high) if reverse else (low, keys[-1] + b"\0")
            if transaction is not None and transaction.open and transaction.entries:
                added, removed = transaction.overlay().keys(low[:10], from_, to)
                keys = [key for key in keys if key not in removed]
                if added:
                    keys = list(merge(keys, added[::-1] if reverse else added, reverse=reverse))
            yield keys, sequence
            if complete:
                return
            low, high = (low, from_) if reverse else (to, high)
            chunk = min(2 * chunk, LARGEST_CHUNK)

    def _walk(
        self, definition: IndexDefinition | None, low: bytes, high: bytes, reverse: bool, limit: int | None
    ) -> Iterator[Any]:
        """The items of a range, in order."""
        if limit is not None and limit <= 0:
            return
        chunk = FIRST_CHUNK if limit is None else min(limit, LARGEST_CHUNK)
        store = self._store
        engine = store._engine
        for keys, sequence in self._key_chunks(low, high, reverse, chunk):
            transaction = current(store)
            entries = transaction.entries if transaction is not None else {}
            valid, items = store._objects.items_at(keys, self._id, definition, sequence)
            if transaction is not None and len(valid) < len(keys):
                transaction.mixed = True
            for key, item in zip(valid, items, strict=True):
                # The caller may have changed or deleted it since the chunk was read.
                changed = engine.sequence != sequence or item._id in entries
                if changed and not store._objects.still_has_key(item, key, self._id, definition):
                    if transaction is not None and item._id not in entries:
                        transaction.mixed = True
                    continue
                if transaction is not None:
                    transaction.saw(item)
                yield item
                if limit is not None and (limit := limit - 1) <= 0:
                    return

    def _take(
        self, definition: IndexDefinition, low: bytes, high: bytes, size: int, reverse: bool
    ) -> tuple[list[bytes], list[Any], bool]:
        """Keys and items of a range, `size` of them at the most, and whether there may be more."""
        found_keys: list[bytes] = []
        found_items: list[Any] = []
        for keys, sequence in self._key_chunks(low, high, reverse, size + 1):
            wanted = keys[: size - len(found_items)]
            valid, items = self._store._objects.items_at(wanted, self._id, definition, sequence)
            found_keys += valid
            found_items += items
            transaction = current(self._store)
            if transaction is not None:
                transaction.mixed |= len(valid) < len(wanted)
                for item in items:
                    transaction.saw(item)
            if len(keys) > len(wanted):
                return found_keys, found_items, True
        return found_keys, found_items, False

    def _any(self, low: bytes, high: bytes) -> bool:
        return any(keys for keys, _ in self._key_chunks(low, high, False, 1))

    def _id_chunks(self, size: int) -> Iterator[list[int]]:
        """The ids of the committed members, in order, some at a time."""
        low = prefix_of(self._id, 0)
        stop = _after(low)
        while keys := self._store._engine.keys(INDEX, low, stop, size):
            yield [unpack_u64(key, len(key) - 8)[0] for key in keys]
            low = keys[-1] + b"\0"

    def _share(self, low: bytes, high: bytes) -> float:
        engine = self._store._engine
        return engine.position(INDEX, high) - engine.position(INDEX, low)

    def _fraction(self, key: bytes, low: bytes, high: bytes) -> float:
        """Which part of the range [low, high) is before `key`."""
        position = self._store._engine.position
        first, whole = position(INDEX, low), self._share(low, high)
        return min(1.0, max(0.0, (position(INDEX, key) - first) / whole)) if whole > 0 else 0.0

    def _key_at(self, fraction: float, low: bytes, high: bytes) -> bytes:
        """A key before which about this part of the range [low, high) lies: found by halving the space of keys."""
        engine = self._store._engine
        start, whole = engine.position(INDEX, low), self._share(low, high)
        ends = [*engine.keys(INDEX, low, high, 1), *engine.keys(INDEX, low, high, 1, True)]
        if not 0 < fraction <= 1 or whole <= 0 or not ends:
            return low
        last = found = ends[1]
        target = start + fraction * whole
        while ends and ends[0] != ends[1]:
            # Of the keys that come into question, the bytes that all of them have, and a few more, are halved.
            width = len(os.path.commonprefix(ends)) + HALVED  # noqa: RUF071 - of bytes, and of no path
            bottom, top = _number(ends[0], width), _number(ends[1], width) + 1
            while top - bottom > 1:
                middle = (bottom + top) // 2
                found = middle.to_bytes(width)
                there = engine.position(INDEX, found)
                if abs(there - target) < whole / 20_000:
                    return min(max(low, found), last)
                bottom, top = (middle, top) if there < target else (bottom, middle)
            found, high = max(low, bottom.to_bytes(width)), min(high, top.to_bytes(width))
            ends = [*engine.keys(INDEX, found, high, 1), *engine.keys(INDEX, found, high, 1, True)]
        return min(ends[0] if ends else found, last)

    # -- the rest

    def _called(self) -> str:
        name = self._read().get("name")
        return f"pool {name!r}" if name else f"pool {self._id}"

    def _label(self) -> str:
        return self._called()

    def _needs_no_transaction(self, what: str) -> None:
        if current(self._store) is not None:
            raise NoTransaction(f"{what} works in batches: call it outside of a transaction")

    def _before_delete(self, transaction: Transaction) -> None:
        size = len(self)
        if size > MAX_AT_ONCE:
            raise TransactionTooLarge(
                f"{self._called()} has {size:,} items, and one transaction takes out {MAX_AT_ONCE:,} at most: "
                "call clear() first"
            )
        if not transaction.created(self._id):
            remove_doomed(self._store, self._id)
        for item in list(self):
            transaction.set_pools(item, tuple(p for p in transaction.pools_of(item) if p != self._id))
        if self.name and transaction.store._named_pool_id(self.name) == self._id:
            transaction.name(pool_key(self.name), None)

    def _after_restore(self, transaction: Transaction) -> None:
        if self.name and transaction.store._named_pool_id(self.name) is None:
            transaction.name(pool_key(self.name), self._id)


def pool_key(name: str) -> str:
    """The key of the catalog under which a pool of this name stands."""
    return f"pool/{name}"


def index_name(name: str | tuple[str, ...]) -> str:
    """The name of an index; one that is given by its attributes is named after them."""
    return plain_text(name) if isinstance(name, str) else ",".join(name)


def index_specs(indexes: Iterable[str | tuple[str, ...] | Index]) -> list[Index]:
    """What to keep, in full, of the indexes that a caller asks for."""
    if isinstance(indexes, (str, Index)):
        raise TypeError(f"indexes is a list of what to index, as in indexes=[{indexes!r}]")
    return [spec if isinstance(spec, Index) else Index(index_name(spec), spec) for spec in indexes]


def _encoded(definition: IndexDefinition, key: Any) -> bytes:
    key = order_value(key)
    if len(definition.attributes) == 1 or not isinstance(key, tuple):
        return encode(key, definition.nocase)
    if len(key) > len(definition.attributes):
        raise ValueError(f"the index has {len(definition.attributes)} attributes; the key {key!r} has more")
    return encode_tuple(key, definition.nocase)


def _after(prefix: bytes) -> bytes:
    """The end of the range of keys that begin with an index's prefix."""
    return (int.from_bytes(prefix) + 1).to_bytes(len(prefix))


def _exactly(start: bytes) -> tuple[bytes, bytes]:
    """The range of all keys that begin with `start`."""
    return start, successor(start) or b"\xff" * 9  # pool ids have 63 bits: there is always a successor


def _number(key: bytes, width: int) -> int:
    return int.from_bytes(key[:width].ljust(width, b"\0"))
