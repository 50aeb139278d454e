"""Checking a whole store against itself: what `atop verify` does.

Every item is read and every index entry, reference and counter that follows from it is looked up; then whatever is
there that follows from no item is found by counting. Memory does not grow with the number of items.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from atop.engine import COUNTERS, Engine
from atop.errors import AtopError, UnstorableValue
from atop.indexes import BUILDING, Plan, entry_keys, make_plan, prefix_of
from atop.journal import check_chain, commits_back
from atop.overlay import references_of
from atop.records import State, decode, pack_u64, unpack_u64
from atop.values import FileInfo, walk
from atop.writeset import INDEX, ITEMS, REFERENCES

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
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether there are no problems."""
        return not self.problems

    def problem(self, text: str) -> None:
        """Add a problem to the list, unless that is long already."""
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(text)


def verify(store: Store, *, files: bool, progress: Callable[[int, int], None] | None) -> VerifyReport:
    """Check the store; no commit is made meanwhile."""
    report = VerifyReport()
    engine = store._engine
    with engine.no_commits():
        for problem in engine.verify_pages():
            report.problem(problem)
        if report.problems:
            return report  # what stands on broken pages cannot be read
        try:
            _Check(store, report).run(files, progress)
        except AtopError as error:
            report.problem(str(error))
    return report


class _Check:
    def __init__(self, store: Store, report: VerifyReport) -> None:
        self._store = store
        self._engine: Engine = store._engine
        self._report = report
        self._plans: dict[int, Plan | None] = {}
        self._members: Counter[int] = Counter()
        self._entries = self._references = 0
        self._uses: Counter[bytes] = Counter()

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
        self._journal()
        self._counters()
        self._files(files)

    def _item(self, key: bytes, record: bytes) -> None:
        item_id = unpack_u64(key)[0]
        self._report.items += 1
        try:
            state = decode(record)
        except AtopError as error:
            self._report.problem(f"item {item_id}: {error}")
            return
        if self._store._number_of(state.version) is None:
            self._report.problem(f"item {item_id}: its version {state.version} is no known commit")
        for pool_id in state.pools:
            self._entries_of(item_id, key, state, pool_id)
        for target, attribute in set(references_of(state.attributes)):
            self._references += 1
            if self._engine.get(REFERENCES, pack_u64(target) + key + attribute.encode()) is None:
                self._report.problem(f"item {item_id}: its reference {attribute} to item {target} is not in the table")
            if self._engine.version(target) is None:
                self._report.problem(f"item {item_id}: {attribute} refers to item {target}, which is not there")
        self._count_files(state.attributes.values())

    def _entries_of(self, item_id: int, key: bytes, state: State, pool_id: int) -> None:
        plan = self._plan(pool_id)
        if plan is None:
            self._report.problem(f"item {item_id}: it is in pool {pool_id}, which is not there")
            return
        self._members[pool_id] += 1
        try:
            keys = entry_keys(plan, state.attributes, key)
        except UnstorableValue as error:
            self._report.problem(str(error))
            return
        for entry in keys:
            self._entries += 1
            if self._engine.get(INDEX, entry) is None:
                number = int.from_bytes(entry[8:10])
                self._report.problem(f"item {item_id}: its entry in index {number} of pool {pool_id} is missing")

    def _plan(self, pool_id: int) -> Plan | None:
        if pool_id not in self._plans:
            state = self._store._objects.read_state(pool_id)
            definitions = None if state is None else state.attributes.get("indexes")
            if definitions is None:
                self._plans[pool_id] = None
            else:
                # An index that is being built, or being removed, may have any part of its entries.
                ready = {n: d for n, d in definitions.items() if d[4] != BUILDING}
                self._plans[pool_id] = make_plan(pool_id, ready)
        return self._plans[pool_id]

    def _partial(self) -> int:
        """The entries of indexes that are being built or removed."""
        count = 0
        for pool_id in self._plans:
            state = self._store._objects.read_state(pool_id)
            if state is not None:
                numbers = [d[0] for d in state.attributes["indexes"].values() if d[4] == BUILDING]
                for number in (*numbers, *state.attributes["doomed"]):
                    low = prefix_of(pool_id, number)
                    count += self._engine.count_between(INDEX, low, low + END)
        return count

    def _leftovers(self) -> None:
        self._report.index_entries = there = self._engine.count(INDEX)
        expected = self._entries + self._partial()
        if there > expected:
            self._report.problem(f"index: {there - expected} entries belong to no item")
        there = self._engine.count(REFERENCES)
        if there > self._references:
            self._report.problem(f"references: {there - self._references} entries belong to no item")

    def _journal(self) -> None:
        for problem in check_chain(self._engine):
            self._report.problem(problem)
        for commit in commits_back(self._engine):
            self._report.commits += 1
            if self._store._number_of(commit.commit_id) != commit.number:
                self._report.problem(f"journal: commit number {commit.number} is not in the table of commits")
            for change in commit.changes:
                self._count_files(change.before.values())

    def _count_files(self, values: object) -> None:
        for value in values:  # type: ignore[attr-defined]  # a view of a dict's values
            for inner in walk(value):
                if type(inner) is FileInfo:
                    self._uses[inner.digest] += 1

    def _counters(self) -> None:
        expected = {b"p" + pack_u64(pool_id): n for pool_id, n in self._members.items()}
        expected |= {b"f" + digest: n for digest, n in self._uses.items()}
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

    def _files(self, contents: bool) -> None:
        area = self._store._file_area
        for digest in self._uses:
            self._report.files += 1
            try:
                if not area.has(digest):
                    self._report.problem(f"files: the contents of {digest.hex()[:12]} are missing")
                elif contents and not area.is_whole(digest):
                    self._report.problem(f"files: the contents of {digest.hex()[:12]} are damaged")
            except OSError as error:
                self._report.problem(f"files: {digest.hex()[:12]} cannot be read: {error.strerror}")
