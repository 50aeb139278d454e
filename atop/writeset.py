"""A WriteSet: one commit, worked out by whoever made it, to be applied by whoever owns the database.

It names what must still be true (checks), what to write (operations), and what changed (for the journal). Whoever
applies it needs none of the classes of the items in it, and can tell from the commit id that it has applied it before.
"""

from __future__ import annotations

import pickle
import uuid
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Any

from atop.errors import TransactionTooLarge, UnstorableValue
from atop.indexes import Plan, entry_keys
from atop.overlay import references_of
from atop.records import PROTOCOL, SELF_PICKLING, State, apart, dumps, encode, new_state, pack_u64, pickles_itself
from atop.values import ATOMS, FileInfo, Reference, UnknownValue, is_registered, plain_text, take_apart, walk

if TYPE_CHECKING:
    from atop.item import Item
    from atop.transaction import Entry, Transaction

# The tables that operations are on.
ITEMS, INDEX, REFERENCES, CATALOG = "items", "index", "references", "catalog"

# What the catalog's names of single items, which `Store.set_root` gives, begin with.
ROOTS = b"root/"

# What a change in the journal is: the first field of its tuple. NAMED is one of the catalog, and of no item.
CREATED, UPDATED, DELETED, NAMED = "+", "~", "-", "="

# The rules of references as they stand in the references table.
RULE_BYTES = {"nullify": b"", "cascade": b"c", "restrict": b"r"}
RULES = {value: name for name, value in RULE_BYTES.items()}

# What the counter of uses of a file begins with, and how long its key is: digest and size follow.
FILE_USES, FILE_USES_SIZE = b"f", 1 + 32 + 8

# The longest label of a commit, in characters: it is shown in lists, and an undo's holds that of what it undoes.
MAX_LABEL = 1_000
# The most bytes that one commit may write, with the old values that the journal keeps: it is sent as one message.
MAX_LENGTH = 192 << 20

# The attributes of a pool that tell of its indexes.
INDEX_ATTRIBUTES = frozenset({"indexes", "next_number", "doomed"})

# About what one entry of an index takes, in bytes.
INDEX_ENTRY_BYTES = 60

Operations = dict[bytes, bytes | None]  # key -> value to put, or None to delete it


@dataclass(slots=True)
class WriteSet:
    """One commit. Keys and values are bytes as in the tables; times are microseconds of the hybrid clock."""

    commit_id: int
    time: int
    label: str
    checks: dict[int, int]  # item id -> version that it must have
    exists: list[int]  # items that must be there
    unreferenced: list[int]  # items that nothing may refer to once this is applied
    emptied: list[int]  # pools that may have no members once this is applied
    names: list[tuple[str, int | None]]  # (catalog name, item id that it must stand for)
    operations: dict[str, Operations]  # by table
    counters: dict[bytes, int]  # key of the counters table -> what to add
    body: bytes  # what the journal keeps: pickle of (commit id, time, label, changes)
    length: int = 0  # about how many bytes the operations take
    files: list[bytes] = field(default_factory=list)  # digests of contents that must be in the file area
    sizes: list[tuple[int, int]] = field(default_factory=list)  # (pool id, members that it must have)
    base: int | None = None  # the engine's sequence at which all checks were known to hold; None elsewhere

    def size(self) -> int:
        """The number of operations."""
        return sum(map(len, self.operations.values()))


def pool_counter(pool_id: int) -> bytes:
    """The key of the counter that holds the number of items in a pool."""
    return b"p" + pack_u64(pool_id)


def file_counter(info: FileInfo) -> bytes:
    """The key of the counter of uses of a file: attributes that hold it, and old values of them in the journal.

    The size stands in it for devices that lack the contents: they see what there is to fetch.
    """
    return FILE_USES + info.digest + pack_u64(info.size)


class Builder:
    """Turns a transaction into a WriteSet. One use each."""

    def __init__(self, transaction: Transaction, commit_id: int) -> None:
        self._transaction = transaction
        self._commit_id = commit_id
        self._items: Operations = {}
        self._index: Operations = {}
        self._references: Operations = {}
        self._members: defaultdict[int, int] = defaultdict(int)  # pool id -> members more
        self._files: defaultdict[bytes, int] = defaultdict(int)  # key of the counter of uses -> uses more
        self._named_files: set[bytes] = set()
        self._changes: list[tuple[Any, ...]] = []
        self._targets: set[int] = set()  # items newly referred to, or named
        self._gone: list[int] = []
        self._plans: dict[int, Plan] = {}
        # Pools -> their plans, or None if this transaction changes one of the pools itself.
        self._steady_plans: dict[tuple[int, ...], list[Plan] | None] = {}
        self._bytes = 0
        self._plain_body = True  # whether the old values that the journal gets need no help of `dumps`
        # What the items' states are once the commit is applied, one for each item; None for deleted ones.
        self.items: list[Item] = []
        self.states: list[State | None] = []

    def build(self, time: int) -> WriteSet | None:
        """The WriteSet, or None if the transaction changes nothing."""
        transaction = self._transaction
        for item_id, entry in transaction.entries.items():
            if entry.base is None:
                if not entry.deleted:
                    self._create(item_id, entry)
            elif entry.deleted:
                self._delete(item_id, entry, entry.base)
            else:
                self._update(item_id, entry, entry.base)
        catalog = self._name(transaction.catalog) if transaction.catalog else {}
        if not (self._items or self._index or catalog):
            return None
        entries = transaction.entries
        counters = {pool_counter(pool_id): more for pool_id, more in self._members.items() if more}
        counters.update((key, more) for key, more in self._files.items() if more)
        label = written_label(transaction.label)
        journalled = (self._commit_id, time, label, self._changes)
        body = pickle.dumps(journalled, PROTOCOL) if self._plain_body else dumps(journalled)
        check_length(label, self._bytes + len(body), self._index, MAX_LENGTH)
        return WriteSet(
            self._commit_id,
            time,
            label,
            checks=transaction.reads.copy(),  # a signal handler may read more while they are checked
            exists=self._outside_targets() if self._targets else [],
            unreferenced=self._gone,
            emptied=[i for i in self._gone if is_pool(entries[i].base or _NOTHING)],
            names=[(name, old) for name, (old, _) in transaction.catalog.items()],
            operations={
                ITEMS: self._items,
                INDEX: self._index,
                REFERENCES: self._references,
                CATALOG: catalog,
            },
            counters=counters,
            body=body,
            length=self._bytes + len(body) + INDEX_ENTRY_BYTES * len(self._index),
            files=sorted(self._named_files),
            sizes=list(transaction.sizes.items()),
            base=transaction.base,
        )

    def _name(self, names: dict[str, tuple[int | None, int | None]]) -> Operations:
        operations: Operations = {}
        for name, (old, new) in sorted(names.items()):
            if new != old:
                self._changes.append((NAMED, 0, name, old, new))
                operations[name.encode()] = None if new is None else pack_u64(new)
                if new is not None:
                    self._targets.add(new)
        return operations

    def _outside_targets(self) -> list[int]:
        """The items newly referred to, or named, that this transaction has neither made nor read."""
        transaction = self._transaction
        return [t for t in self._targets if not transaction.created(t) and t not in transaction.reads]

    def _plan(self, pool_id: int) -> Plan:
        plan = self._plans.get(pool_id)
        if plan is None:
            plan = self._plans[pool_id] = self._transaction.plan(pool_id)
        return plan

    def _steady_plans_of(self, pools: tuple[int, ...]) -> list[Plan] | None:
        if pools not in self._steady_plans:
            steady = self._transaction.entries.keys().isdisjoint(pools)
            self._steady_plans[pools] = [self._plan(pool_id) for pool_id in pools] if steady else None
        return self._steady_plans[pools]

    def _create(self, item_id: int, entry: Entry) -> None:
        cls = type(entry.item)
        type_name, schema, deletion = entry.restored or (cls._type_name, cls._schema, 0)
        attributes, kinds = entry.stored()
        simple = kinds <= SIMPLE
        key = pack_u64(item_id)
        pools = entry.pools
        record = encode(self._commit_id, type_name, schema, attributes, pools, kinds)
        self._bytes += len(record)
        self._items[key] = record
        for pool_id in pools:
            self._index.update(dict.fromkeys(entry_keys(self._plan(pool_id), attributes, key), b""))
            self._members[pool_id] += 1
        if not simple:
            self._refer(item_id, entry, {}, attributes)
            self._use_files({}, attributes)
        self._changes.append((CREATED, item_id, deletion) if deletion else (CREATED, item_id))
        self._leave(entry.item, new_state(State, (self._commit_id, type_name, schema, attributes, pools, None)))

    def _delete(self, item_id: int, entry: Entry, base: State) -> None:
        raw = base.raw or base
        key = pack_u64(item_id)
        self._items[key] = None
        old, _ = self._transaction.entry_keys(item_id, entry)
        self._index.update(dict.fromkeys(old))
        for pool_id in raw.pools:
            self._members[pool_id] -= 1
        self._refer(item_id, entry, raw.attributes, {})
        self._use_files(raw.attributes, {})
        old_values = raw.attributes.copy()
        self._journal_values(old_values)
        self._changes.append((DELETED, item_id, raw.version, (raw.type_name, raw.schema, old_values, raw.pools)))
        self._gone.append(item_id)
        self._leave(entry.item, None)

    def _leave(self, item: Item, state: State | None) -> None:
        self.items.append(item)
        self.states.append(state)

    def _update(self, item_id: int, entry: Entry, base: State) -> None:
        raw = base.raw or base
        before, pools = raw.attributes, entry.pools
        after, kinds = entry.stored()
        old_values: dict[str, Any] = {}  # of the attributes that differ
        new_values: dict[str, Any] = {}
        added: list[str] = []
        simple = True  # whether no value that differs can hold a reference or a file
        for name, value in after.items():
            old = before.get(name, _ABSENT)
            if old is value:
                continue
            if old is _ABSENT:
                added.append(name)
            elif same(old, value):
                continue
            else:
                old_values[name] = old
                simple = simple and type(old) in SIMPLE
            new_values[name] = value
            simple = simple and type(value) in SIMPLE
        changed: Collection[str] = new_values
        if len(before) > len(after) - len(added):
            old_values.update((name, before[name]) for name in before.keys() - after.keys())
            changed = old_values.keys() | new_values.keys()
            simple = False
        pools_differ = pools != raw.pools
        key = pack_u64(item_id)
        self._index_again(key, entry, raw, after, changed)
        if not (changed or pools_differ or entry.touched):
            return  # its schema alone is not worth a write: the upgrade runs again at the next read
        record = encode(self._commit_id, base.type_name, base.schema, after, pools, kinds)
        self._bytes += len(record)
        self._items[key] = record
        if pools_differ:
            for pool_id in set(pools) - set(raw.pools):
                self._members[pool_id] += 1
            for pool_id in set(raw.pools) - set(pools):
                self._members[pool_id] -= 1
        if not simple:
            self._refer(item_id, entry, old_values, new_values)
            self._use_files(old_values, new_values)
            self._journal_values(old_values)
        old_pools = raw.pools if pools_differ else None
        old_schema = (raw.type_name, raw.schema) if raw.schema != base.schema else None
        self._changes.append((UPDATED, item_id, raw.version, old_values, tuple(added), old_pools, old_schema))
        self._leave(entry.item, new_state(State, (self._commit_id, base.type_name, base.schema, after, pools, None)))

    def _index_again(
        self, key: bytes, entry: Entry, raw: State, after: dict[str, Any], changed: Collection[str]
    ) -> None:
        """The index entries that a changed item loses and gains."""
        plans = self._steady_plans_of(raw.pools) if entry.pools == raw.pools else None
        if plans is None:
            olds, news = self._transaction.entry_keys(entry.item._id, entry)
            self._replace(olds, news)
            return
        for plan in plans:
            for make in plan.affected(changed):
                self._replace(make(raw.attributes, key), make(after, key))

    def _replace(self, olds: Collection[bytes], news: Collection[bytes]) -> None:
        if olds == news:
            return
        index = self._index
        for old in olds:
            if old not in news:
                index[old] = None
        for new in news:
            if new not in olds:
                index[new] = b""

    def _refer(self, item_id: int, entry: Entry, before: dict[str, Any], after: dict[str, Any]) -> None:
        old, new = set(references_of(before)), set(references_of(after))
        source = pack_u64(item_id)
        for target, attribute in old - new:
            self._references[pack_u64(target) + source + attribute.encode()] = None
        for target, attribute in new - old:
            field_ = type(entry.item)._fields.get(attribute)
            rule = RULE_BYTES[field_.on_delete] if field_ is not None else b""
            self._references[pack_u64(target) + source + attribute.encode()] = rule
            self._targets.add(target)

    def _use_files(self, before: dict[str, Any], after: dict[str, Any]) -> None:
        """Count the uses of files by the item: what was there before goes on in the journal."""
        for key in uses_of_files(after):
            self._named_files.add(key[1:33])
            self._files[key] += 1
        for key in uses_of_files(before):
            self._files[key] -= 1

    def _journal_values(self, values: dict[str, Any]) -> None:
        """Note old values that the journal will hold: it counts as a user of the files in them."""
        for name, value in values.items():
            if type(value) not in SELF_PICKLING:
                if pickles_itself(value):
                    values[name] = apart(value)  # a default of a class is in many items, and is to be there with each
                else:
                    self._plain_body = False
                for key in uses_of_files({"": value}):
                    self._files[key] += 1
            elif type(value) is FileInfo:
                self._files[file_counter(value)] += 1


def written_label(label: str) -> str:
    """A label as it is written: not too long, and such that it can be sent; a path may be no text."""
    label = plain_text(label)
    if not label.isascii():
        label = label.encode("utf-8", "backslashreplace").decode("utf-8")
    return label if len(label) <= MAX_LABEL else f"{label[: MAX_LABEL - 1]}…"


def check_length(label: str, length: int, index: Operations, limit: int) -> None:
    """Raise `TransactionTooLarge` for a commit that is too long, given the length of its records and its history."""
    if length + len(index) * INDEX_ENTRY_BYTES * 10 > limit:
        length += sum(map(len, index))
        if length > limit:
            raise TransactionTooLarge(
                f"{label!r} writes {length:,} bytes, together with what its history keeps; the limit is {limit:,}: "
                "split it"
            )


# Types of which no value is a reference, a file, or in need of help to be pickled.
SIMPLE = (ATOMS & SELF_PICKLING) - {Reference, FileInfo}

_ABSENT: Any = object()
_NOTHING = State(0, "", 0, {}, ())


def is_pool(state: State) -> bool:
    """Whether an item is a pool, of whatever class."""
    return state.attributes.keys() >= INDEX_ATTRIBUTES


def uses_of_files(attributes: dict[str, Any]) -> list[bytes]:
    """The keys of the counters of uses for the files in stored attributes: one for each time that one stands there."""
    return [
        file_counter(inner)
        for value in attributes.values()
        if type(value) not in ATOMS
        for inner in walk(value)
        if type(inner) is FileInfo
    ]


# Types whose equal values are the same in every respect; 1.0 and -0.0, or one instant in two zones, are not.
EXACT = frozenset({str, int, bool, bytes, type(None), date, uuid.UUID, Reference, FileInfo})


def same(one: Any, other: Any) -> bool:
    """Whether two stored values are the same to the last detail."""
    if one is other:
        return True
    kind = type(one)
    if kind is not type(other):
        return False
    if kind in EXACT:
        return bool(one == other)
    if kind is list or kind is tuple:
        return len(one) == len(other) and all(map(same, one, other))
    if kind is dict:
        return len(one) == len(other) and same(list(one), list(other)) and all(map(same, one.values(), other.values()))
    if kind is set or kind is frozenset:
        there = {value: value for value in other}
        if len(one) != len(there) or not all(same(value, there[value]) for value in one if value in there):
            return False
        # A NaN is not found, for it is equal to none.
        rests = ([value for value in one if value not in there], [value for value in other if value not in one])
        return sorted(map(dumps, rests[0])) == sorted(map(dumps, rests[1]))
    if kind is UnknownValue or is_registered(kind):
        return same(take_apart(one), take_apart(other))
    return dumps(one) == dumps(other)


__all__ = [
    "CATALOG",
    "CREATED",
    "DELETED",
    "EXACT",
    "FILE_USES",
    "FILE_USES_SIZE",
    "INDEX",
    "INDEX_ATTRIBUTES",
    "ITEMS",
    "NAMED",
    "REFERENCES",
    "ROOTS",
    "RULES",
    "UPDATED",
    "Builder",
    "UnstorableValue",
    "WriteSet",
    "file_counter",
    "is_pool",
    "pool_counter",
    "same",
    "uses_of_files",
]
