"""After a partition: nothing that was committed on the side that gives way is lost.

A device that has to follow another history stops first, its own data in place (`roles`). Then:

1. The last common commit is found, in an exchange with the master.
2. Salvage: every commit after it is written to `local/salvage`, with the new state of each item, and flushed.
3. The device follows: Berkeley DB rolls back, or copies.
4. Replay: each salvaged commit, in order, is made anew through the ordinary path, merged with what the other side did.
5. The file is removed when all of it is committed, and on the disk here.

Promises: step 3 does not come before step 2 is complete; where the disk is full it does not come at all, until there is
room. A crash anywhere repeats a step, which does no harm: a commit whose id is in the journal is not made again. A
salvage file that is damaged is reported in the status for as long as it is there, and no part of it is applied.

Never: a decision about who follows whom (`roles`), or about values (`merging`).
"""

from __future__ import annotations

import contextlib
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Final, Literal

from atop.building import remove_doomed
from atop.conflicts import POOL_NAME
from atop.disk import explained, sync_directory
from atop.engine import COMMITS, JOURNAL, Engine, Head
from atop.environment import free_space
from atop.errors import AtopError, Conflict, StoreClosed, TransactionTooLarge, UnstorableValue
from atop.ids import tag_of
from atop.indexes import BUILDING
from atop.pool import Index, Pool
from atop.records import pack_u64
from atop.writeset import is_pool

from . import roles
from .aside import ConflictWriter, NoConflictsPool
from .common import find_common, samples_of
from .copying import size_of_tables
from .gathering import Gathering
from .messages import CommonAnswered, CommonAsked, Message, Role
from .replaying import Outcome, Replay
from .salvage import SUFFIX, Commit, Header, Salvage, SalvageDamaged, write
from .theirs import HistoryMoved

log = logging.getLogger(__name__)

Id = bytes

RETRY_SECONDS: Final = 2.0
"""How soon a step that failed, for want of room, say, is tried again."""

SHORTLY_SECONDS: Final = 0.1
"""How soon a step that a change of roles has interrupted is begun again."""

ANSWER_SECONDS: Final = 10.0
"""How long an answer of the master is waited for before the search for the common commit begins anew."""

COPY_BYTES_PER_SECOND: Final = 100e6
"""About how fast a full copy comes."""

WORTH_SECONDS: Final = 2.0
"""A rollback that takes less than this is never replaced by a copy: the old data can be read meanwhile."""

ATTEMPTS: Final = 200
"""How often a replayed commit is worked out anew because others were faster, before it is put aside whole."""

NAME: Final = re.compile(r"(\d{8})\.salvage")

Phase = Literal["idle", "comparing", "salvaging", "following", "replaying"]


@dataclass(frozen=True)
class ReconcileStatus:
    """How far a reconciliation is, and what those since the start came to."""

    phase: Phase = "idle"
    done: int = 0  # commits salvaged, or replayed
    total: int = 0  # of so many
    replayed: int = 0  # commits made anew
    merged: int = 0  # items that both sides had changed
    conflicts: int = 0  # values that were put aside
    problem: str | None = None  # why it does not go on, for people


class Reconciler:
    """The reconciliation of one store with the histories it meets. Its methods may be called by any thread.

    Args:
        send: sends a message to a device; False if there is no link to it.
        tell: tells `roles` what has happened.
        copy: takes a full copy from a master, in place of what is here up to a commit; False if it did not come.
    """

    def __init__(
        self,
        send: Callable[[Id, Message], bool],
        tell: Callable[[roles.Event], None],
        copy: Callable[[Id, Head], bool] = lambda master, head: False,
    ) -> None:
        self.retry_seconds = RETRY_SECONDS
        self._copy = copy
        self._round_trip = 0.0  # seconds: the shortest that was measured in the last exchange with a master
        self._undone = 0  # commits that are to be undone
        self._requests = 0  # that had been sent when the rollback began
        self._send = send
        self._tell = tell
        self._engine: Engine | None = None
        self._store: Any = None
        self._directory = Path()
        self._changed = threading.Condition()  # guards what follows
        self._parted_from: Id | None = None  # the master whose history lacks commits that are here
        self._may_replay = False
        self._answer: CommonAnswered | None = None
        self._closed = False
        self._status = ReconcileStatus()
        # From which master what is in safety, up to which commit, and in which file, if that took one.
        self._secured: tuple[Id, Head, Path | None] | None = None
        self._problems: dict[str, str] = {}  # step -> why it failed last
        self._threads: list[threading.Thread] = []
        self.pending = False  # whether there is a salvage file, as far as was seen

    # -- for the manager

    def attach(self, engine: Engine) -> None:
        """The store's tables are open."""
        self._engine = engine
        self._directory = engine.path.parent / "local" / "salvage"

    def serve(self, store: Any) -> None:
        """The store is open."""
        with self._changed:
            self._store = store
            with contextlib.suppress(OSError):  # a file that a crash left half-written; the next one takes its place
                for path in self._directory.glob("*.new"):
                    path.unlink()
            self.pending = bool(self._files())
            if not self._threads and not self._closed:
                for name, step, wanted in (
                    ("atop-salvage", self._salvage, lambda: self._parted_from is not None),
                    ("atop-replay", self._replay, lambda: self._may_replay and self.pending),
                ):
                    thread = threading.Thread(target=self._run, args=(step, wanted), name=name, daemon=True)
                    self._threads.append(thread)
                    thread.start()

    def consider(self, role: Role, master: Id | None, parted: bool, requests: int = 0) -> None:
        """The device stands so now. Called often: by the thread that decides, after each of its steps.

        `requests` counts the messages to single devices: a rollback sends one for each commit that it undoes.
        """
        with self._changed:
            if self._status.phase == "following":
                done = min(self._status.total, requests - self._requests)
                self._status = replace(self._status, done=done)
            else:
                self._requests = requests
        parted_from = master if role is Role.WAITING and parted else None
        may_replay = role is Role.MASTER or (role is Role.REPLICA and master is not None)
        if (parted_from, may_replay) != (self._parted_from, self._may_replay):
            with self._changed:
                if role is not Role.WAITING and self._status.phase in ("comparing", "salvaging", "following"):
                    self._status = replace(self._status, phase="idle", done=0, total=0)
                self._parted_from, self._may_replay = parted_from, may_replay
                self._changed.notify_all()

    def secures(self, master: Id, head: Head) -> bool:
        """Whether what is here up to a commit, and a master lacks, is in safety still."""
        with self._changed:
            if self._secured is None or self._secured[:2] != (master, head):
                return False
            path = self._secured[2]
            return path is None or path.exists()  # it may have been replayed and removed just before it was noted

    def answered(self, device: Id, answer: CommonAnswered) -> None:
        """A master has said which of the commits that it was asked for it has."""
        with self._changed:
            if device == self._parted_from:
                self._answer = answer
                self._changed.notify_all()

    @property
    def status(self) -> ReconcileStatus:
        """How things stand."""
        with self._changed:
            phase = "replaying" if self._status.phase == "idle" and self.pending else self._status.phase
            return replace(self._status, phase=phase, problem="; ".join(self._problems.values()) or None)

    def close(self) -> None:
        """End; what is not done goes on when the store is opened again."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            threads = list(self._threads)
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join()

    # -- the two threads

    def _run(self, step: Callable[[], None], wanted: Callable[[], bool]) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or wanted())
                if self._closed:
                    return
            try:
                step()
                self._problem(step.__name__, None)
            except StoreClosed:
                return
            except _InterruptedError as error:
                log.debug("reconciliation waits: %s", error)
                self._wait(SHORTLY_SECONDS)
            except AtopError as error:
                log.info("reconciliation waits: %s", error)
                self._problem(step.__name__, str(error))
                self._wait(self.retry_seconds)
            except Exception as error:  # a bug: nothing is lost, but nothing goes on either, and it must be seen
                log.exception("reconciliation failed")
                self._problem(step.__name__, f"bringing histories together failed, which is a bug in Atop: {error!r}")
                self._wait(self.retry_seconds)

    def _wait(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed, seconds)

    def _problem(self, step: str, text: str | None) -> None:
        with self._changed:
            if text is None:
                self._problems.pop(step, None)
            else:
                self._problems[step] = text

    def _progress(self, phase: Phase, done: int, total: int, **counts: int) -> None:
        with self._changed:
            more = {name: getattr(self._status, name) + count for name, count in counts.items()}
            self._status = replace(self._status, phase=phase, done=done, total=total, **more)

    def _ask(self, master: Id, numbers: list[int]) -> CommonAnswered:
        """Which of these commits the master has. Raises if it does not say, or is not the one to follow any more."""
        samples = samples_of(self._required(), numbers)
        if not samples:
            return CommonAnswered(numbers[0], 0)
        with self._changed:
            self._answer = None
        if not self._send(master, CommonAsked(samples)):
            raise _InterruptedError("there is no link to the master any more")

        def there() -> bool:
            found = self._answer is not None and self._answer.asked == samples[0][0]
            return found or self._closed or self._parted_from != master

        began = time.monotonic()
        with self._changed:
            self._changed.wait_for(there, ANSWER_SECONDS)
            answer = self._answer
        self._round_trip = min(self._round_trip, time.monotonic() - began)
        if answer is None or answer.asked != samples[0][0]:
            raise _InterruptedError("the master did not say which commits it has")
        return answer

    def _required(self) -> Engine:
        if self._engine is None:
            raise StoreClosed("the store is not open yet")
        return self._engine

    # -- salvage

    def _salvage(self) -> None:
        """Have everything that the master lacks in a file; then let it be followed."""
        engine, master = self._required(), self._parted_from
        if master is None:
            return
        head = engine.head
        if not self.secures(master, head):
            self._progress("comparing", 0, 0)
            self._round_trip = ANSWER_SECONDS
            common = find_common(engine, head.number, lambda numbers: self._ask(master, numbers))
            path = self._write(engine, head, common)
            with self._changed:
                self._secured = master, head, path
            self._undone = head.number - common
            self._progress("following", 0, self._undone)
            if self._copy_is_cheaper(engine) and self._copy(master, head):
                return
        self._progress("following", 0, self._undone)
        self._tell_secured(master, head)
        with self._changed:  # until it is followed, or something else has happened
            self._changed.wait_for(lambda: self._closed or self._parted_from != master, self.retry_seconds)

    def _copy_is_cheaper(self, engine: Engine) -> bool:
        """Whether a full copy takes less time than a rollback, which costs a round trip for each commit."""
        size = size_of_tables(engine.path)
        if free_space(engine.path) < 2 * size + (64 << 20):
            return False  # the old tables stay until the new ones are there
        rollback = self._undone * self._round_trip
        return rollback > WORTH_SECONDS and rollback > 2 * size / COPY_BYTES_PER_SECOND

    def _tell_secured(self, master: Id, head: Head) -> None:
        self._tell(roles.Secured(master, head.number, head.chain))

    def _write(self, engine: Engine, head: Head, parted: int) -> Path | None:
        """Salvage what came after commit `parted`; returns the file, or None where there is nothing to be kept."""
        older = [salvage for salvage in map(self._open, self._files()) if salvage is not None]
        common = min([parted, *(salvage.header.common for salvage in older)])
        total = head.number - parted
        samples = tuple(self._samples(engine, common))

        def latest_first() -> Iterator[Commit]:
            for salvage in reversed(older):
                for commit in salvage.commits(latest_first=True):
                    if engine.get(COMMITS, pack_u64(commit.commit_id)) is None:
                        yield commit
            for done, commit in enumerate(Gathering(engine, parted).latest_first(), 1):
                self._progress("salvaging", done, total)
                yield commit

        commits = latest_first()
        first = next(commits, None)
        path: Path | None = None
        if first is not None:
            numbers = [int(match[1]) for path in self._files() if (match := NAME.fullmatch(path.name))]
            path = self._directory / f"{max(numbers, default=0) + 1:08}{SUFFIX}"
            header = Header(tag_of(first.commit_id), head.number, head.chain, common, samples)
            write(path, header, chain([first], commits))
            with self._changed:
                self.pending = True
        for salvage in older:
            self._remove(salvage.path)
        return path

    @staticmethod
    def _samples(engine: Engine, common: int) -> Iterator[tuple[int, bytes]]:
        """Chain values at growing distances before the common commit: should another history be followed one day."""
        number, distance = common, 1
        while number > 0:
            record = engine.get(JOURNAL, pack_u64(number))
            if record is not None:
                yield number, record[:32]
            number, distance = common - distance, 2 * distance

    def _files(self) -> list[Path]:
        try:
            return sorted(path for path in self._directory.iterdir() if NAME.fullmatch(path.name))
        except OSError:
            return []

    def _open(self, path: Path) -> Salvage | None:
        """A salvage file; None, and it is said in the status, if it is damaged."""
        try:
            found = Salvage(path)
        except SalvageDamaged as error:
            self._problem(path.name, str(error))
            return None
        self._problem(path.name, None)
        return found

    def _remove(self, path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
            sync_directory(self._directory)
        except OSError as error:
            raise explained(error, path) from error

    # -- replay

    def _replay(self) -> None:
        """Make all salvaged commits anew, and remove the files."""
        left = False
        for path in self._files():
            salvage = self._open(path)
            if salvage is None:
                left = True
                continue
            try:
                self._replay_file(salvage)
            except HistoryMoved:
                return  # from the start again: what was made stays made, if the new history has it
            self._forget(path)
        with self._changed:
            self.pending = left
            self._status = replace(self._status, phase="idle", done=0, total=0)
            if left:  # it is looked at again: somebody may put it back
                self._changed.wait_for(lambda: self._closed, self.retry_seconds)

    def _forget(self, path: Path) -> None:
        """Remove a file all of which is in the store: should that be given up, it is to be salvaged anew."""
        self._required().flush()
        with self._changed:
            if not self._may_replay:
                raise _InterruptedError("the replay of salvaged commits waits for a master")
            self._secured = None
            self._remove(path)

    def _replay_file(self, salvage: Salvage) -> None:
        engine, store = self._required(), self._store
        conflicts = ConflictWriter(engine, store._new_item_id)
        replay = Replay(engine, salvage.commits, self._common(engine, salvage.header), conflicts)
        total = len(salvage)
        for done, commit in enumerate(salvage.commits()):
            self._progress("replaying", done, total)
            if self._closed or not self._may_replay:
                raise _InterruptedError("the replay of salvaged commits waits for a master")
            outcome = self._make(engine, replay, commit)
            if outcome is not None:
                self._progress(
                    "replaying", done + 1, total, replayed=1, merged=outcome.merged, conflicts=len(outcome.clashes)
                )
        self._finish_pools(salvage, replay)

    def _make(self, engine: Engine, replay: Replay, commit: Commit) -> Outcome | None:
        """Make one commit; None if it was there. Returns when it is applied here."""
        aside = False
        for attempt in range(2 * ATTEMPTS):
            if engine.get(COMMITS, pack_u64(commit.commit_id)) is not None:
                replay.made(commit)
                return None
            aside = aside or attempt >= ATTEMPTS
            try:
                outcome = replay.refused(commit) if aside else replay.commit(commit)
                item_ids = outcome.item_ids
                for pool_id in outcome.write_set.emptied:
                    remove_doomed(self._store, pool_id)
                engine.commit(outcome.write_set, applied=lambda item_ids=item_ids: engine.on_applied(item_ids))  # type: ignore[misc]
                engine.on_applied([])  # it is on the disk now: whoever watches is told
            except NoConflictsPool:
                self._store.pool(POOL_NAME, indexes=["about"])
            except Conflict as error:
                log.debug("commit %d is worked out again: %s", commit.commit_id, error)
            except (UnstorableValue, TransactionTooLarge) as error:
                if aside:
                    raise
                log.warning("commit %d (%r) cannot be made as it was: %s", commit.commit_id, commit.label, error)
                aside = True
            except AtopError:
                raise
            except Exception:  # a bug, or what the application's classes do: its values are put aside, and it goes on
                if aside:
                    raise
                log.exception("commit %d (%r) could not be merged", commit.commit_id, commit.label)
                aside = True
            else:
                replay.made(commit)
                return outcome
        raise _InterruptedError(f"commit {commit.commit_id} ({commit.label!r}) could not be made: others were faster")

    @staticmethod
    def _common(engine: Engine, header: Header) -> int:
        """The number of the last commit that the history here and the salvaged one have in common."""
        for number, value in header.samples:
            record = engine.get(JOURNAL, pack_u64(number))
            if record is not None and record[:32] == value:
                return number
        return 0

    def _finish_pools(self, salvage: Salvage, replay: Replay) -> None:
        """Build the indexes that were added, and remove what is left of those that were dropped."""
        pools = {
            replay.pool_of(change.item_id)
            for commit in salvage.commits()
            for change in commit.changes
            if change.after is not None and is_pool(change.after)
        }
        for pool_id in sorted(pools):
            pool = self._store._objects.find(pool_id)
            if not isinstance(pool, Pool):
                continue
            for name, definition in pool.indexes.items():
                if definition.state == BUILDING:
                    try:
                        pool.add_index(Index(name, definition.attributes, definition.nocase, definition.words))
                    except UnstorableValue as error:  # the index is dropped again: it holds no data
                        log.warning("index %r of pool %d is dropped: %s", name, pool_id, error)
            pool._sweep()


class _InterruptedError(AtopError):
    """A step could not be finished, and will be begun again."""
