"""A commit worked out from item states alone, without the application's classes, to be committed as any other.

A draft reads items and names from the store, and is told what they are to be. `write_set` compares the two: index
entries by the definitions in the pools' records, references with their rules, counters, uses of files, and what the
journal will say. Everything that was read is checked when the WriteSet is applied, so a draft that others overtook is a
`Conflict` and is made anew.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

from atop.engine import Engine
from atop.indexes import Plan, entry_keys, make_plan, prefix_of
from atop.overlay import references_of
from atop.records import State, decode, dumps, encode, pack_u64, unpack_u64
from atop.writeset import (
    CATALOG,
    CREATED,
    DELETED,
    INDEX,
    INDEX_ENTRY_BYTES,
    ITEMS,
    NAMED,
    REFERENCES,
    ROOTS,
    UPDATED,
    Operations,
    WriteSet,
    check_length,
    is_pool,
    pool_counter,
    same,
    uses_of_files,
    written_label,
)

CHUNK = 500
MAX_LENGTH: Final = 250 << 20
"""The longest commit: what a link takes. It may be longer than it was, by what is kept as conflicts."""


class Draft:
    """One commit in the making."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._read: dict[int, State | None] = {}  # as the store has them
        self._written: dict[int, State | None] = {}  # as they are to be
        self._rules: dict[tuple[int, str], bytes] = {}
        self._deletions: dict[int, int] = {}  # item that is brought back -> commit that had deleted it
        self._names: dict[str, tuple[int | None, int | None]] = {}  # name -> (as it is, as it is to be)
        self._plans: dict[tuple[int, bool], Plan] = {}

    # -- what there is

    def state(self, item_id: int) -> State | None:
        """What an item is as of this draft; None if it is not there."""
        if item_id in self._written:
            return self._written[item_id]
        return self.committed(item_id)

    def committed(self, item_id: int) -> State | None:
        """What an item is in the store; None if it is not there. The commit will depend on it."""
        if item_id not in self._read:
            record = self._engine.get_item(pack_u64(item_id))
            self._read[item_id] = decode(record) if record is not None else None
        return self._read[item_id]

    def named(self, name: str) -> int | None:
        """The item that a name in the catalog stands for as of this draft."""
        if name not in self._names:
            found = self._engine.catalog_get(name)
            self._names[name] = found, found
        return self._names[name][1]

    def roots_of(self, item_id: int) -> list[str]:
        """The names that `Store.set_root` gave to an item, as of this draft."""
        names: dict[str, int | None] = {}
        start = ROOTS
        while pairs := self._engine.pairs(CATALOG, start, ROOTS + b"\xff", CHUNK):
            names.update((key.decode(), int(unpack_u64(value)[0])) for key, value in pairs)
            start = pairs[-1][0] + b"\0"
        names.update({name: now for name, (_, now) in self._names.items() if name.encode().startswith(ROOTS)})
        return sorted(name for name, now in names.items() if now == item_id)

    def is_pool(self, item_id: int) -> bool:
        """Whether there is an item with this id, as of this draft, that is a pool."""
        state = self.state(item_id)
        return state is not None and is_pool(state)

    def referrers(self, item_id: int) -> Iterator[tuple[int, str, bytes]]:
        """(source id, attribute, rule) for each reference to an item, as of this draft."""
        places = dict(self._committed_referrers(item_id))
        for source, state in self._written.items():
            places = {place: rule for place, rule in places.items() if place[0] != source}
            if state is not None:
                for target, attribute in references_of(state.attributes):
                    if target == item_id:
                        places[source, attribute] = self.rule(source, attribute)
        for (source, attribute), rule in sorted(places.items()):
            yield source, attribute, rule

    def _committed_referrers(self, item_id: int) -> Iterator[tuple[tuple[int, str], bytes]]:
        start, stop = pack_u64(item_id), pack_u64(item_id + 1)
        while pairs := self._engine.pairs(REFERENCES, start, stop, CHUNK):
            for key, rule in pairs:
                yield (int(unpack_u64(key, 8)[0]), key[16:].decode()), rule
            start = pairs[-1][0] + b"\0"

    def members(self, pool_id: int) -> Iterator[int]:
        """The ids of a pool's members, as of this draft."""
        found = set(self._committed_members(pool_id))
        for item_id, state in self._written.items():
            found.discard(item_id)
            if state is not None and pool_id in state.pools:
                found.add(item_id)
        yield from sorted(found)

    def _committed_members(self, pool_id: int) -> Iterator[int]:
        start = prefix_of(pool_id, 0)
        stop = prefix_of(pool_id, 1)
        while keys := self._engine.keys(INDEX, start, stop, CHUNK):
            for key in keys:
                yield int.from_bytes(key[-8:])
            start = keys[-1] + b"\0"

    def rule(self, source: int, attribute: str) -> bytes:
        """What an attribute says about the deletion of what it refers to."""
        known = self._rules.get((source, attribute))
        if known is not None:
            return known
        state = self.committed(source)
        for target, name in references_of(state.attributes) if state is not None else ():
            if name == attribute:
                key = pack_u64(target) + pack_u64(source) + attribute.encode()
                return self._engine.get(REFERENCES, key) or b""
        return b""

    # -- what there is to be

    def put(self, item_id: int, state: State) -> None:
        """Have an item be this; made if it is not there."""
        self.committed(item_id)
        self._written[item_id] = state

    def restore(self, item_id: int, state: State, deletion: int) -> None:
        """Have an item be there again that the commit `deletion` deleted."""
        self.put(item_id, state)
        self._deletions[item_id] = deletion

    def delete(self, item_id: int) -> None:
        """Have an item be gone. Its referrers, and the members of a pool, are for the caller to see to."""
        if self.committed(item_id) is None:
            del self._written[item_id]
        else:
            self._written[item_id] = None

    def name(self, name: str, item_id: int | None) -> None:
        """Have a name in the catalog stand for an item, or for none."""
        self.named(name)
        self._names[name] = self._names[name][0], item_id

    def set_rules(self, item_id: int, rules: dict[str, bytes]) -> None:
        """Say what attributes of an item say about deletion."""
        for attribute, rule in rules.items():
            self._rules[item_id, attribute] = rule

    # -- the commit

    @property
    def item_ids(self) -> list[int]:
        """The ids of the items that it writes or deletes."""
        return list(self._written)

    def write_set(self, commit_id: int, time: int, label: str) -> WriteSet:
        """The WriteSet.

        Raises:
            UnstorableValue: a value cannot be indexed.
            TransactionTooLarge: its history would be.
        """
        work = _Differences(self, commit_id)
        for item_id, after in sorted(self._written.items()):
            work.add(item_id, self._read[item_id], after)
        names = [(name, old, new) for name, (old, new) in sorted(self._names.items()) if old != new]
        work.changes += [(NAMED, 0, name, old, new) for name, old, new in names]
        label = written_label(label)
        body = dumps((commit_id, time, label, work.changes))
        check_length(label, work.bytes + len(body), work.index, MAX_LENGTH)
        gone = [item_id for item_id, after in self._written.items() if after is None]
        return WriteSet(
            commit_id,
            time,
            label,
            checks={item_id: 0 if state is None else state.version for item_id, state in self._read.items()},
            exists=[],
            unreferenced=gone,
            emptied=[item_id for item_id in gone if is_pool(self._read[item_id] or _NOTHING)],
            names=[(name, old) for name, (old, _) in self._names.items()],
            operations={
                ITEMS: work.items,
                INDEX: work.index,
                REFERENCES: work.references,
                CATALOG: {name.encode(): None if new is None else pack_u64(new) for name, _, new in names},
            },
            counters={
                **{pool_counter(pool_id): more for pool_id, more in work.members.items() if more},
                **{key: more for key, more in work.files.items() if more},
            },
            body=body,
            length=work.bytes + len(body) + INDEX_ENTRY_BYTES * len(work.index),
        )

    def deletion_of(self, item_id: int) -> int:
        """The commit that had deleted an item which is brought back; 0 for any other."""
        return self._deletions.get(item_id, 0)

    def plan(self, pool_id: int, *, before: bool) -> Plan | None:
        """How entries of a pool are made, before this commit or after it; None if it is not there then."""
        if (pool_id, before) not in self._plans:
            state = self.committed(pool_id) if before else self.state(pool_id)
            if state is None or not is_pool(state):
                return None
            self._plans[pool_id, before] = make_plan(pool_id, state.attributes["indexes"])
        return self._plans[pool_id, before]


class _Differences:
    """The operations that lead from what items are to what they are to be."""

    def __init__(self, draft: Draft, commit_id: int) -> None:
        self._draft = draft
        self._commit_id = commit_id
        self.items: Operations = {}
        self.index: Operations = {}
        self.references: Operations = {}
        self.members: Counter[int] = Counter()
        self.files: Counter[bytes] = Counter()  # by the key of the counter of uses
        self.changes: list[tuple[Any, ...]] = []
        self.bytes = 0

    def add(self, item_id: int, before: State | None, after: State | None) -> None:
        if after is None:
            if before is not None:
                self._delete(item_id, before)
        elif before is None:
            deletion = self._draft.deletion_of(item_id)
            self.changes.append((CREATED, item_id, deletion) if deletion else (CREATED, item_id))
            self._write(item_id, _NOTHING, after)
            self._use(after.attributes)
        else:
            self._update(item_id, before, after)

    def _delete(self, item_id: int, before: State) -> None:
        self.items[pack_u64(item_id)] = None
        self._entries(item_id, before, _NOTHING)
        self._refer(item_id, before.attributes, {})
        values = (before.type_name, before.schema, before.attributes, before.pools)
        self.changes.append((DELETED, item_id, before.version, values))  # the journal takes over its uses of files

    def _update(self, item_id: int, before: State, after: State) -> None:
        old, new = before.attributes, after.attributes
        changed = {n: v for n, v in old.items() if n not in new or not same(v, new[n])}
        added = tuple(n for n in new if n not in old)
        pools_differ = before.pools != after.pools
        schema_differs = (before.type_name, before.schema) != (after.type_name, after.schema)
        if not (changed or added or pools_differ or schema_differs):
            return
        self.changes.append(
            (
                UPDATED,
                item_id,
                before.version,
                changed,
                added,
                before.pools if pools_differ else None,
                (before.type_name, before.schema) if schema_differs else None,
            )
        )
        self._write(item_id, before, after)
        self._use({n: new[n] for n in (*changed, *added) if n in new})

    def _write(self, item_id: int, before: State, after: State) -> None:
        record = encode(self._commit_id, after.type_name, after.schema, after.attributes, after.pools)
        self.bytes += len(record)
        self.items[pack_u64(item_id)] = record
        self._entries(item_id, before, after)
        self._refer(item_id, before.attributes, after.attributes)

    def _entries(self, item_id: int, before: State, after: State) -> None:
        old, new = self._keys(item_id, before, before=True), self._keys(item_id, after, before=False)
        self.index.update(dict.fromkeys(old - new))
        self.index.update(dict.fromkeys(new - old, b""))
        self.members.update(set(after.pools) - set(before.pools))
        self.members.subtract(set(before.pools) - set(after.pools))

    def _keys(self, item_id: int, state: State, *, before: bool) -> set[bytes]:
        plans = [self._draft.plan(pool_id, before=before) for pool_id in state.pools]
        key = pack_u64(item_id)
        return {entry for plan in plans if plan is not None for entry in entry_keys(plan, state.attributes, key)}

    def _refer(self, item_id: int, before: dict[str, Any], after: dict[str, Any]) -> None:
        old, new = set(references_of(before)), set(references_of(after))
        source = pack_u64(item_id)
        for target, attribute in old - new:
            self.references[pack_u64(target) + source + attribute.encode()] = None
        for target, attribute in new - old:
            rule = self._draft.rule(item_id, attribute)
            self.references[pack_u64(target) + source + attribute.encode()] = rule

    def _use(self, attributes: dict[str, Any]) -> None:
        """Count the files that these attributes hold. Old values go on being used: by the journal."""
        self.files.update(uses_of_files(attributes))


_NOTHING = State(0, "", 0, {}, ())
