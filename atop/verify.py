"""Checking a whole store against itself: what `atop verify` does.

Every item is read and every index entry, reference and counter that follows from it is looked up; then whatever is
there that follows from no item is found by counting. Memory does not grow with the number of items.

What is wrong with one record is a line of the report, whatever it is: records are looked at before they are loaded, and
what they break is caught.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from atop import contents
from atop.engine import CHAIN_SIZE, COUNTERS, JOURNAL, Engine
from atop.errors import AtopError, StoreClosed, StoreError, UnsafePickle, UnstorableValue
from atop.indexes import BUILDING, Plan, entry_keys, make_plan, prefix_of
from atop.journal import check_chain, decode_commit
from atop.overlay import references_of
from atop.pickles import scan
from atop.pool import pool_key
from atop.records import State, decode, pack_u64, unpack_u64
from atop.values import FileInfo, walk
from atop.writeset import CATALOG, INDEX, ITEMS, REFERENCES, file_counter

if TYPE_CHECKING:
    from atop.store import Store

CHUNK = 500
END = b"\xff" * 9
# How many problems are listed; there may be as many as there are items.
MAX_PROBLEMS = 1_000


@dataclass
class VerifyReport:
    """What `verify` found: nothing in `problems` means that all is well."""

    items: int = 0
    index_entries: int = 0
    commits: int = 0
    files: int = 0
    files_missing: int = 0  # whose contents are not on this device: with other devices, these are still to come
    problems: list[str] = field(default_factory=list)
    damaged: bool = False  # whether pages, records or the journal's chain are, and not just what they say of each other

    @property
    def ok(self) -> bool:
        """Whether there are no problems."""
        return not self.problems

    def damage(self, text: str) -> None:
        """As `problem`, of what cannot be read, or is not what was written."""
        self.damaged = True
        self.problem(text)

    def problem(self, text: str) -> None:
        """Add a problem to the list, unless that is long already."""
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(text)


def verify(store: Store, *, files: bool, progress: Callable[[int, int], None] | None) -> VerifyReport:
    """Check the store; no commit is made meanwhile."""
    report = VerifyReport()
    engine = store._tenure.engine
    with engine.no_commits():
        try:
            for problem in engine.verify_pages():
                report.damage(problem)
            if report.ok:  # what stands on broken pages cannot be read
                _Check(store, report).run(files, progress)
        except StoreClosed:
            raise
        except AtopError as error:
            report.damage(str(error))
    return report


class _Check:
    def __init__(self, store: Store, report: VerifyReport) -> None:
        self._store = store
        self._engine: Engine = store._tenure.engine
        self._report = report
        self._plans: dict[int, Plan | None] = {}
        self._partial: list[bytes] = []  # prefixes of the indexes that are being built or removed
        self._members: Counter[int] = Counter()
        self._entries = self._references = 0
        self._uses: Counter[bytes] = Counter()  # by the key of the counter of uses

    def run(self, files: bool, progress: Callable[[int, int], None] | None) -> None:
        """Check items, then what else there is, then the files."""
        total = self._engine.count(ITEMS)
        start = b""
        while pairs := self._engine.pairs(ITEMS, start, END, CHUNK):
            for key, record in pairs:
                self._item(key, record)
            start = pairs[-1][0] + b"\0"
            if progress is not None:
                progress(self._report.items, total)
        self._leftovers()
        self._catalog()
        self._journal()
        self._counters()
        self._files(files)

    def _item(self, key: bytes, record: bytes) -> None:
        self._report.items += 1
        try:
            if len(key) != 8:
                raise UnsafePickle(f"the key {key.hex()} is no item's")
            scan(record, 8)
            self._state(unpack_u64(key)[0], key, decode(record))
        except StoreError:
            raise
        except Exception as error:  # a record that is not what Atop writes may break anything
            self._report.damage(f"item {int.from_bytes(key[:8])}: {_said(error)}")

    def _state(self, item_id: int, key: bytes, state: State) -> None:
        if self._store._number_of(state.version) is None:
            self._report.problem(f"item {item_id}: its version {state.version} is no known commit")
        if not all(type(name) is str for name in state.attributes):
            raise UnsafePickle("an attribute's name is not text")
        for pool_id in state.pools:
            self._entries_of(item_id, key, state, pool_id)
        for target, attribute in set(references_of(state.attributes)):
            if self._engine.get(REFERENCES, pack_u64(target) + key + attribute.encode()) is None:
                self._report.problem(f"item {item_id}: its reference {attribute} to item {target} is not in the table")
            else:
                self._references += 1
            if self._engine.version(target) is None:
                self._report.problem(f"item {item_id}: {attribute} refers to item {target}, which is not there")
        self._count_files(state.attributes.values())

    def _entries_of(self, item_id: int, key: bytes, state: State, pool_id: int) -> None:
        plan = self._plan(pool_id)
        if plan is None:
            self._report.problem(f"item {item_id}: it is in pool {pool_id}, which is not there or cannot be read")
            return
        self._members[pool_id] += 1
        try:
            keys = entry_keys(plan, state.attributes, key)
        except UnstorableValue as error:
            self._report.problem(str(error))
            return
        for entry in keys:
            if self._engine.get(INDEX, entry) is None:
                number = int.from_bytes(entry[8:10])
                self._report.problem(f"item {item_id}: its entry in index {number} of pool {pool_id} is missing")
            else:
                self._entries += 1

    def _plan(self, pool_id: int) -> Plan | None:
        """How entries of a pool are made; None if there is no such pool, or its record cannot be read."""
        if pool_id not in self._plans:
            self._plans[pool_id] = None
            try:
                state = self._store._objects.read_state(pool_id)
                if state is not None:
                    # An index that is being built, or being removed, may have any part of its entries.
                    definitions = state.attributes["indexes"]
                    ready = {n: d for n, d in definitions.items() if d[4] != BUILDING}
                    self._plans[pool_id] = make_plan(pool_id, ready)
                    numbers = [d[0] for d in definitions.values() if d[4] == BUILDING]
                    self._partial += [prefix_of(pool_id, n) for n in (*numbers, *state.attributes["doomed"])]
            except StoreError:
                raise
            except Exception as error:  # a record that is not what Atop writes may break anything
                self._report.damage(f"pool {pool_id}: {_said(error)}")
        return self._plans[pool_id]

    def _leftovers(self) -> None:
        self._report.index_entries = there = self._engine.count(INDEX)
        expected = self._entries + sum(self._engine.count_between(INDEX, low, low + END) for low in self._partial)
        if there > expected:
            self._report.problem(f"index: {there - expected} entries belong to no item")
        there = self._engine.count(REFERENCES)
        if there > self._references:
            self._report.problem(f"references: {there - self._references} entries belong to no item")

    def _catalog(self) -> None:
        """Every name stands for an item; those of pools for pools."""
        start = b"\x01"  # what begins with a zero byte is the engine's
        while pairs := self._engine.pairs(CATALOG, start, END, CHUNK):
            for key, value in pairs:
                item_id = int.from_bytes(value)
                name = key.decode(errors="replace")
                if self._engine.version(item_id) is None:
                    self._report.problem(f"catalog: {name!r} stands for item {item_id}, which is not there")
                elif name.startswith(pool_key("")) and self._plan(item_id) is None:
                    self._report.problem(f"catalog: {name!r} stands for item {item_id}, which is no pool")
            start = pairs[-1][0] + b"\0"

    def _journal(self) -> None:
        for problem in check_chain(self._engine):
            self._report.damage(problem)
        start = b""
        while pairs := self._engine.pairs(JOURNAL, start, END, CHUNK):
            for key, record in pairs:
                self._commit(key, record)
            start = pairs[-1][0] + b"\0"

    def _commit(self, key: bytes, record: bytes) -> None:
        self._report.commits += 1
        try:
            scan(record, CHAIN_SIZE + 8)
            commit = decode_commit(key, record)
            if self._store._number_of(commit.commit_id) != commit.number:
                self._report.problem(f"journal: commit number {commit.number} is not in the table of commits")
            for change in commit.changes:
                self._count_files(change.before.values())
        except StoreError:
            raise
        except Exception as error:  # a record that is not what Atop writes may break anything
            self._report.damage(f"journal: commit number {int.from_bytes(key)}: {_said(error)}")

    def _count_files(self, values: object) -> None:
        for value in values:  # type: ignore[attr-defined]  # a view of a dict's values
            for inner in walk(value):
                if type(inner) is FileInfo:
                    self._uses[file_counter(inner)] += 1

    def _counters(self) -> None:
        expected = {b"p" + pack_u64(pool_id): n for pool_id, n in self._members.items()}
        expected |= self._uses
        start = b""
        while pairs := self._engine.pairs(COUNTERS, start, END * 5, CHUNK):
            for key, value in pairs:
                count = int.from_bytes(value, signed=True)
                if expected.pop(key, 0) != count:
                    what = f"pool {unpack_u64(key, 1)[0]}" if key[:1] == b"p" else f"file {key[1:].hex()[:12]}"
                    self._report.problem(f"counters: {what} is said to be {count}, which is wrong")
            start = pairs[-1][0] + b"\0"
        for key in expected:
            self._report.problem(f"counters: the one of {key.hex()} is missing")

    def _files(self, whole: bool) -> None:
        store, area = self._store, self._store._file_area
        for key in self._uses:
            digest, size = key[1:33], unpack_u64(key, 33)[0]
            self._report.files += 1
            try:
                if not area.has(digest):
                    self._report.files_missing += 1
                    if store._tenure.replication is None:  # else they are on their way
                        self._report.problem(f"files: the contents of {digest.hex()[:12]} are missing")
                elif whole and not area.is_whole(digest):
                    mending = contents.mend(store, digest, size)
                    self._report.problem(f"files: the contents of {digest.hex()[:12]} are damaged: {mending}")
            except OSError as error:
                self._report.problem(f"files: {digest.hex()[:12]} cannot be read: {error.strerror}")


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, AtopError) else f"it is not what Atop writes ({error!r})"
