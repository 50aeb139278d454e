"""What the other side did since two histories parted: read from the journal, for the items that a salvage touches."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator

from atop.engine import CHAIN_SIZE, JOURNAL, Engine
from atop.errors import AtopError
from atop.journal import Change, Commit, decode_commit
from atop.overlay import references_of
from atop.records import State, pack_u64, unpack_u64

from .elements import elements_of
from .merging import Stamp, Theirs
from .moves import POOLS, Attribute, pools_as_elements

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
        self._watched: defaultdict[int, set[str]] = defaultdict(set)  # by item: the attributes whose moves are noted
        self.seen = 0  # commits of theirs that were looked at
        self.complete = engine.oldest_commit() <= common + 1

    def of(self, item_id: int) -> Theirs:
        """What they did to one item; one that was not tracked is from now on, at the price of reading all again."""
        if item_id not in self._tracked:
            self._tracked.add(item_id)
            self._read_again()
        return self._items.get(item_id, _NONE)

    def changed(self) -> Iterator[Attribute]:
        """The attributes of tracked items that they changed, POOLS too."""
        for item_id, theirs in self._items.items():
            yield from ((item_id, name) for name in (*theirs.attributes, POOLS))

    def watch(self, attributes: Iterable[Attribute]) -> None:
        """Note the moves of these as well (those of POOLS always are), at the price of reading all again."""
        new = [(item_id, name) for item_id, name in attributes if name != POOLS and name not in self._watched[item_id]]
        for item_id, name in new:
            self._watched[item_id].add(name)
        if new:
            self._read_again()

    def _read_again(self) -> None:
        self._items.clear()
        self._seen, self._chain = self._common, None
        self.catch_up()

    def name(self, name: str) -> Stamp | None:
        """When they last gave a name of the catalog to an item, or took it away."""
        return self._names.get(name)

    def catch_up(self) -> None:
        """Look at the commits that have come since the last time. Raises HistoryMoved, UnsafePickle."""
        if self._chain is not None:
            record = self._engine.get(JOURNAL, pack_u64(self._seen))
            if record is None or record[:CHAIN_SIZE] != self._chain:
                raise HistoryMoved("the store follows another history than when the replay began")
        while pairs := self._engine.pairs(JOURNAL, pack_u64(self._seen + 1), END, CHUNK):
            for key, record in pairs:
                self._seen, self._chain = int(unpack_u64(key)[0]), record[:CHAIN_SIZE]
                self._look_at(decode_commit(key, record))

    def _look_at(self, commit: Commit) -> None:
        own = commit.commit_id in self._mine  # replayed, and no act of the other side
        stamp = Stamp(commit._moment, commit.device)
        if not own:
            self._names.update((name, stamp) for name, _, _ in commit.names)
        if self._tracked.isdisjoint(commit.item_ids):
            return
        self.seen += not own
        changes = commit.changes
        gone = {change.item_id for change in changes if change.kind == "deleted"}
        for change in changes:
            if change.item_id in self._tracked:
                theirs = self._items.setdefault(change.item_id, Theirs())
                _note_moves(theirs, change, self._watched.get(change.item_id, ()), gone, own)
                if not own:
                    _note(theirs, change, commit.commit_id, stamp, gone)


def _note_moves(theirs: Theirs, change: Change, watched: Collection[str], gone: set[int], own: bool) -> None:
    if change.kind == "created":
        return  # or brought back, as it was when it was deleted
    if change.kind == "deleted":
        for name in set(theirs.last) - {POOLS}:
            theirs.changes(name, elements_of(change.before.get(name)), False)
        theirs.changes(POOLS, pools_as_elements(change.pools or ()), False)
        return
    for name in watched:
        if (name in change.before or name in change.added) and not (own and name not in theirs.last):
            theirs.changes(name, elements_of(change.before.get(name)), not own)
    if change.pools is not None:  # a pool that was deleted is no act upon its members
        theirs.changes(POOLS, pools_as_elements(change.pools), not own)
        if not own:
            theirs.last[POOLS] = pools_as_elements(set(change.pools) - gone)


def _note(theirs: Theirs, change: Change, commit_id: int, stamp: Stamp, gone: set[int]) -> None:
    if change.kind == "created":
        theirs.deleted, theirs.touched = None, stamp
    elif change.kind == "deleted":
        type_name, schema = change.schema or ("", 0)
        theirs.deleted, theirs.deletion = stamp, commit_id
        theirs.state = State(change.base, type_name, schema, dict(change.before), change.pools or ())
    else:
        names = [*change.before, *change.added]
        for name in names:
            theirs.attributes[name] = stamp
        if change.schema is not None:
            theirs.schema = stamp
        values = all(
            any(target in gone for target, _ in references_of({name: change.before.get(name)})) for name in names
        )
        members = change.pools is None or not gone.isdisjoint(change.pools)
        if not (values and members) or change.schema is not None:
            theirs.touched = stamp
