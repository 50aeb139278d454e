"""What the other side did since two histories parted: read from the journal, for the items that a salvage touches."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from atop.engine import CHAIN_SIZE, JOURNAL, Engine
from atop.errors import AtopError, StoreDamaged
from atop.ids import tag_of
from atop.overlay import references_of
from atop.records import State, loads, pack_u64, unpack_u64
from atop.writeset import CREATED, DELETED, NAMED, UPDATED

from .merging import Stamp, Theirs

CHUNK = 200
END = b"\xff" * 8
_NONE = Theirs()


class HistoryMoved(AtopError):
    """The history that was read is no longer the one in the store: begin again."""


class TheirChanges:
    """The commits after number `common` that are not `mine`, in what they did to items: first to those `tracked`.

    `complete` says whether the journal goes back to `common`.
    """

    def __init__(self, engine: Engine, common: int, mine: Iterable[int], tracked: Iterable[int]) -> None:
        self._engine = engine
        self._mine = frozenset(mine)
        self._tracked = set(tracked)
        self._common = common
        self._seen = common
        self._chain: bytes | None = None  # over the commit that was seen last
        self._items: dict[int, Theirs] = {}
        self._names: dict[str, Stamp] = {}
        self.complete = engine.oldest_commit() <= common + 1

    def of(self, item_id: int) -> Theirs:
        """What they did to one item; one that was not tracked is from now on, at the price of reading all again."""
        if item_id not in self._tracked:
            self._tracked.add(item_id)
            self._items.clear()
            self._seen, self._chain = self._common, None
            self.catch_up()
        return self._items.get(item_id, _NONE)

    def name(self, name: str) -> Stamp | None:
        """When they last gave a name of the catalog to an item, or took it away."""
        return self._names.get(name)

    def catch_up(self) -> None:
        """Look at the commits that have come since the last time. Raises HistoryMoved, StoreDamaged."""
        if self._chain is not None:
            record = self._engine.get(JOURNAL, pack_u64(self._seen))
            if record is None or record[:CHAIN_SIZE] != self._chain:
                raise HistoryMoved("the store follows another history than when the replay began")
        while pairs := self._engine.pairs(JOURNAL, pack_u64(self._seen + 1), END, CHUNK):
            for key, record in pairs:
                self._seen, self._chain = int(unpack_u64(key)[0]), record[:CHAIN_SIZE]
                if int(unpack_u64(record, CHAIN_SIZE)[0]) not in self._mine:
                    self._look_at(record)

    def _look_at(self, record: bytes) -> None:
        try:
            commit_id, time, _, changes = loads(record[CHAIN_SIZE + 8 :])
            stamp = Stamp(time, tag_of(commit_id))
            gone = {change[1] for change in changes if change[0] == DELETED}
            for change in changes:
                if change[0] == NAMED:
                    self._names[change[2]] = stamp
                elif change[1] in self._tracked:
                    theirs = self._items.setdefault(change[1], Theirs())
                    _note(theirs, change, commit_id, stamp, gone)
        except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
            store = self._engine.path.parent
            raise StoreDamaged(f"the journal of {store} has a record that is none", store, JOURNAL) from error


def _note(theirs: Theirs, change: tuple[Any, ...], commit_id: int, stamp: Stamp, gone: set[int]) -> None:
    kind = change[0]
    if kind == CREATED:
        theirs.deleted, theirs.touched = None, stamp
    elif kind == DELETED:
        theirs.deleted, theirs.deletion = stamp, commit_id
        theirs.state = State(change[2], *change[3])
    elif kind == UPDATED:
        _, _, _, before, added, pools, schema, *_ = change
        names = [*before, *added]
        for name in names:
            theirs.attributes[name] = stamp
        if schema is not None:
            theirs.schema = stamp
        values = all(any(target in gone for target, _ in references_of({name: before.get(name)})) for name in names)
        members = pools is None or not gone.isdisjoint(pools)
        if not (values and members) or schema is not None:
            theirs.touched = stamp
