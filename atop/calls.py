"""Calls into Berkeley DB: their way in, their failures, and when what they wrote is on the disk.

Promises:
- No call is made into an environment that is closed, closing, failed, or another process's (after a fork).
- A call that was ended to break a deadlock, or because another call had failed, or because replication is replacing
  what it reads, is made again.
- A failure that Berkeley DB does not survive costs one recovery: the environment is abandoned with nothing more
  written, and opened again; while that is not possible, calls raise why, and each tries again.
- Every commit whose flush was waited for gets a true answer: on the disk, or not in the store. After a failure the
  recovered store says which, or, where it cannot be opened yet, the log as a recovery will find it.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from berkeleydb import db

from atop.environment import (
    COMMITS,
    TABLES,
    Environment,
    Place,
    commits_in_log,
    explained,
    free_space,
    is_bystander,
    is_out_of_locks,
)
from atop.errors import AtopError, StoreClosed, StoreDamaged, StoreError, StoreFull, UnsupportedStore
from atop.gate import Gate
from atop.records import pack_u64
from atop.replacing import forget, move_aside, put_back
from atop.replicated import Replication
from atop.writeset import ITEMS

log = logging.getLogger(__name__)

T = TypeVar("T")

# How often a call that Berkeley DB ended to break a deadlock is made again before it is an error.
MAX_DEADLOCKS = 1_000
# How often a call that failed because another one had is made again.
MAX_BYSTANDING = 5
# How long, in seconds, a reader waits for a large transaction that has taken the last lock there is.
LOCK_PATIENCE = 30.0
# How often, in seconds, calls try to open an environment again that could not be opened for want of space; and how
# much more space, in bytes, has them try at once.
RETRY_SECONDS, RETRY_SPACE = 0.5, 1 << 20
# How long a call waits, in seconds, before it tries again while Berkeley DB replaces the history of a replica.
LOCKOUT_SECONDS = 0.001


# Failures that pass by themselves.
_PASSING = (db.DBLockDeadlockError, db.DBRepLockoutError, db.DBRepHandleDeadError)


class Pending:
    """A commit that is not known to be on the disk yet."""

    __slots__ = ("commit_id", "error", "kept", "number", "transaction")

    def __init__(self, commit_id: int) -> None:
        self.commit_id = commit_id
        self.number = 0  # its commit number, once it is being committed
        # The id of Berkeley DB's transaction, as in the log; 0 if an earlier call had made this very commit.
        self.transaction = 0
        self.kept: bool | None = None  # whether it is in the store for good; None while that is open
        self.error: AtopError | None = None  # why it is not, or why it cannot be said


class UncertainError(Exception):
    """Ending a transaction failed: whether it was committed is for a recovery to say."""


def end_transaction(end: Callable[..., object], *arguments: Any) -> None:
    """Commit or abort a transaction of Berkeley DB's. Raises `UncertainError`."""
    try:
        end(*arguments)
    except (db.DBError, MemoryError) as error:
        raise UncertainError from error


class Calls:
    """An environment, and the way into it. The base of `Engine`, which says what the calls are."""

    def __init__(self, data: Path, cache_size: int, replication: Replication | None) -> None:
        self.path = data
        self._replication = replication
        self.on_recovery: Callable[[], None] = lambda: None  # called when what was read before may not hold
        self._cache_size = cache_size
        self._gate = Gate(self._usable, self._check_usable)
        self._inside = self._gate.inside
        self._closing = self._closed = self._forked = False
        self._down: AtopError | None = None  # why no environment is open
        self._recovering = False  # whether that may be over in a moment
        self._retry_at, self._retry_space = 0.0, 0
        self._writing: str | None = None  # the table that is being written, for errors
        self._era = 0  # counts the failures; calls that overlap one can tell by it
        # The last failure that was not one of Berkeley DB's because of another, and its era.
        self._culprit: tuple[int, AtopError] | None = None
        self._write_lock = threading.RLock()
        self._flush_lock = threading.Lock()  # taken after the write lock, if both
        # Commits that are not known to be on the disk, in order. Invariant: appended to under the write lock, shortened
        # under the flush lock or alone.
        self._unflushed: list[Pending] = []
        try:
            put_back(data)
        except OSError as error:
            raise explained(error, data.parent) from error
        self._use(self._new_environment())
        _all.add(self)

    def _new_environment(self) -> Environment:
        return Environment(self.path, self._cache_size, self._replication)

    def _use(self, environment: Environment) -> None:
        self._environment = environment
        self._env: Any = environment.env
        self._tables = environment.tables
        self._items = environment.tables[ITEMS]
        try:
            self._opened()
        except BaseException as error:
            environment.abandon()
            if isinstance(error, db.DBError):
                raise explained(error, self.path.parent) from error
            raise
        if self._replication is not None:
            self._replication.attach(self)  # type: ignore[arg-type]  # an Engine is what this is the base of

    def _opened(self) -> None:
        """Called, alone, when an environment has been opened. An exception closes it again."""

    # -- the way in

    def _call(self, table: str | None, operate: Callable[[], T], writing: bool = False) -> T:
        """Make one call into Berkeley DB; `table` is what an error should name if it does not itself.

        Raises an AtopError for every failure of Berkeley DB's; `operate` may be called several times.
        """
        gate, inside = self._gate, self._inside
        tries, deadline = 0, 0.0
        while True:
            try:
                inside.append(None)
                if gate.shut:
                    gate.wait_outside()
                era, tables = self._era, self._tables
                return operate()
            except (db.DBError, MemoryError, UncertainError) as error:
                failure = error
                self._note(error)
            finally:
                inside.pop()
            tries += 1
            if isinstance(failure, db.DBLockDeadlockError) and tries < MAX_DEADLOCKS:
                time.sleep(min(tries, 100) * 0.000_01)
            elif is_out_of_locks(failure) and not writing:
                deadline = deadline or time.monotonic() + LOCK_PATIENCE
                if time.monotonic() > deadline:
                    raise StoreError(f"no lock to be had in {LOCK_PATIENCE:.0f} s: try again", self.path.parent)
                time.sleep(0.01)
            elif isinstance(failure, db.DBRepLockoutError):
                time.sleep(LOCKOUT_SECONDS)  # history is being replaced: there will be one, or the store closes
            elif isinstance(failure, db.DBRepHandleDeadError):
                self._reopen_tables(tables)
            else:
                self._judge(failure, self._writing if writing else table, era, tries)

    def _judge(self, failure: BaseException, table: str | None, era: int, tries: int) -> None:
        """Recover if a failure needs it; return if the call should then be made again, else raise why it failed."""
        if isinstance(failure, db.DBLockDeadlockError):
            raise StoreError(f"no lock to be had after {MAX_DEADLOCKS} tries: try again", self.path.parent) from failure
        uncertain = isinstance(failure, UncertainError)
        if uncertain or isinstance(failure, db.DBRunRecoveryError):
            self._recover(era, failure, table)
            if not uncertain and is_bystander(failure) and tries < MAX_BYSTANDING:
                return
        raise self._why(era, failure, table) from failure

    def _note(self, failure: BaseException) -> None:
        """A call has failed: called while it is inside, so that whoever recovers, alone, knows what the cause was."""
        cause = failure.__cause__ or failure
        if not isinstance(cause, _PASSING) and not is_bystander(cause):
            self._culprit = self._era, explained(cause, self.path.parent)

    def _why(self, era: int, failure: BaseException, table: str | None = None) -> AtopError:
        """A failure as an error of ours: where it only says that there was another in that era, it is that one."""
        cause = failure.__cause__ or failure
        if is_bystander(cause) and self._culprit is not None and self._culprit[0] >= era:
            return copy.copy(self._culprit[1])
        return explained(cause, self.path.parent, table)

    def _usable(self) -> bool:
        return self._down is None and not self._closed

    def _check_usable(self) -> None:
        """Raise why no call can be made, if that will not pass by itself; open the environment again if it can be."""
        if self._closed:
            raise self.closed_error()
        down = self._down
        if down is None or self._recovering:  # whoever comes meanwhile waits for what comes of it
            return
        if self._may_retry(down):
            with self._gate.alone():
                if self._down is down and not self._closed:
                    self._reopen()
        if (down := self._down) is not None:
            raise copy.copy(down)

    def _may_retry(self, down: AtopError) -> bool:
        """Whether it is time to try to open the environment again: at once, when there is more room than there was."""
        if isinstance(down, (StoreDamaged, UnsupportedStore)):
            return False
        return time.monotonic() >= self._retry_at or self._space() > self._retry_space + RETRY_SPACE

    def _space(self) -> int:
        try:
            return free_space(self.path)
        except StoreError:
            return 0

    def closed_error(self) -> StoreClosed:
        """The error for a store that is closed, or was never this process's."""
        store = self.path.parent
        if self._forked:
            return StoreClosed(f"the store {store} is open in the process that this one was forked from", store)
        return StoreClosed(f"the store {store} is closed", store)

    def _reopen_tables(self, dead: dict[str, Any]) -> bool:
        """Open the tables again: replication has replaced what the handles stood for. False if it is still at it."""
        with self._write_lock, self._gate.alone():
            if self._tables is not dead or not self._usable():
                return True  # another thread has done it
            fresh: dict[str, Any] = {}
            try:
                for name in TABLES:
                    fresh[name] = self._environment.open_table(name, create=False)
            except db.DBError:  # the files are being replaced: the caller meets that again, and waits
                dead = fresh
            else:
                self._tables, self._items = fresh, fresh[ITEMS]
                self._environment.tables = fresh
            for table in dead.values():
                with contextlib.suppress(db.DBError):  # a dead handle says once more that it is
                    table.close()
        if dead is fresh:
            time.sleep(LOCKOUT_SECONDS)
        return dead is not fresh

    @contextlib.contextmanager
    def at_rest(self) -> Iterator[None]:
        """Have nobody in Berkeley DB in the block: no commit is under way, and calls wait. For changes of role."""
        with self._write_lock, self._gate.alone():
            yield

    # -- failing

    def _recover(self, era: int, failure: BaseException, table: str | None = None) -> None:
        """Give the environment up and open it again, unless that has been done since `era`."""
        with self._gate.alone():
            if self._era == era and not self._closed:
                cause = self._why(era, failure, table)
                log.warning("recovering %s: %s", self.path, cause)
                self._era += 1
                self._down, self._recovering = cause, True
                try:
                    self._environment.abandon()
                    self.on_recovery()  # what was read, and what was committed and not flushed, may be gone
                    self._reopen()
                finally:
                    self._recovering = False

    def start_over(self) -> bool:
        """Have replication fill the database anew, from another device; returns whether it came. Calls wait meanwhile.

        If it does not come, or the process ends before it has, the database is as it was.
        """
        with self._write_lock, self._gate.alone():
            if not self._usable():
                return False
            try:
                self._env.log_flush()
            except db.DBError as error:
                log.warning("%s is not copied anew: %s", self.path, error)
                return False
            for pending in self._unflushed:
                pending.kept = True
            self._unflushed.clear()
            self._era += 1
            self._environment.abandon()
            came = self._replace()
            if not came:
                self._reopen()
            self.on_recovery()
            return came

    def _replace(self) -> bool:
        """Open an environment that replication fills; False if that does not come, and none is open."""
        try:
            move_aside(self.path)
        except OSError as error:
            log.warning("%s is not copied anew: %s", self.path, error)
            return False
        try:
            self._use(self._new_environment())
            self._environment.checkpoint()
            forget(self.path)  # or they would be put back one day, in the place of what is committed from now on
        except (AtopError, db.DBError, OSError) as error:
            log.warning("no copy of %s came: %s", self.path, error)
            self._environment.abandon()
            with contextlib.suppress(OSError):  # the next to open the store does it, or says why not
                put_back(self.path)
            return False
        return True

    def _reopen(self) -> None:
        """Alone: open the environment; then, or if that fails, tell of every commit in doubt whether it was kept."""
        cause, start = self._down, self._environment.start
        self._retry_at, self._retry_space = time.monotonic() + RETRY_SECONDS, self._space()
        try:
            self._use(self._new_environment())
        except AtopError as error:
            self._down = error
            self._settle(self._kept_in_log(start), cause)
            return
        self._down = None
        self._settle(self._kept_in_table(), cause)
        self.on_recovery()

    def _kept_in_table(self) -> set[int] | None:
        """The commits in doubt that the recovery has found; None if that cannot be told."""
        get = self._tables[COMMITS].get
        try:
            return {p.commit_id for p in self._unflushed if get(pack_u64(p.commit_id)) is not None}
        except db.DBError as error:
            log.warning("which commits of %s were kept cannot be told: %s", self.path, error)
            return None

    def _kept_in_log(self, start: Place) -> set[int] | None:
        """The commits in doubt that a recovery will find, after `start` in the log; None if that cannot be told."""
        if not self._unflushed:
            return set()
        try:
            there = commits_in_log(self.path, start)
        except (AtopError, OSError) as error:
            log.warning("which commits of %s were kept cannot be told yet: %s", self.path, error)
            return None
        lost = {p.commit_id for p in self._unflushed if p.transaction and p.transaction not in there}
        return {p.commit_id for p in self._unflushed} - lost

    def _settle(self, kept: set[int] | None, cause: AtopError | None) -> None:
        full = isinstance(cause, StoreFull) or isinstance(self._down, StoreFull)
        for pending in self._unflushed:
            if kept is not None:
                pending.kept = pending.commit_id in kept
                pending.error = cause
            else:
                pending.error = (StoreFull if full else StoreError)(
                    f"the store {self.path.parent} failed ({cause}), and cannot be opened again yet: whether commit "
                    f"{pending.commit_id} was kept will be seen when it can",
                    self.path.parent,
                )
        self._unflushed.clear()

    # -- flushing

    def flush(self) -> None:
        """Have every commit on the disk that there is. Raises `StoreFull`; then it may be tried again."""
        with self._flush_lock:
            self._flush_log(give_up=False)

    def _flush(self, pending: Pending) -> None:
        """Return when a commit is on the disk; concurrent calls share one flush. Raises why it was not kept."""
        if pending.kept is None and pending.error is None:
            with self._flush_lock:
                if pending.kept is None and pending.error is None:
                    try:
                        self._flush_log(give_up=True)
                    except AtopError:
                        if pending.kept is None and pending.error is None:
                            raise
        if not pending.kept:
            raise copy.copy(pending.error) if pending.error else self.closed_error()

    def _flush_log(self, give_up: bool) -> None:
        """Under the flush lock: flush the log, and settle the commits that it had.

        If the disk is full, either `give_up` what could not be flushed, which takes a recovery, or raise `StoreFull`
        and leave it for another try.
        """
        try:
            self._inside.append(None)
            if self._gate.shut:
                self._gate.wait_outside()
            era, flushed = self._era, len(self._unflushed)
            self._env.log_flush()
            for pending in self._unflushed[:flushed]:
                pending.kept = True
            del self._unflushed[:flushed]
            return
        except db.DBError as error:
            failure = error
            self._note(error)
        finally:
            self._inside.pop()
        reason = self._why(era, failure)
        if isinstance(reason, StoreFull) and not give_up:
            raise reason from failure
        self._recover(era, failure)

    # -- closing

    def close(self) -> None:
        """Write everything out and close. May be called again.

        Raises:
            StoreFull, StoreDamaged: commits that were not waited for ("buffered") could not be written, and are lost.
        """
        if self._closing:
            return
        self._closing = True
        self._before_close()
        with self._write_lock, self._flush_lock, self._gate.alone():
            self._closed = True
            if self._down is not None:
                return
            try:
                self._environment.close()
            except AtopError as error:
                self._down = error
                lost = len(self._unflushed)
                self._settle(self._kept_in_log(self._environment.start), error)
                if lost:
                    raise
                log.warning("closing %s: %s", self.path, error)
            for pending in self._unflushed:
                pending.kept = True
            self._unflushed.clear()

    def _before_close(self) -> None:
        """Called, by whoever closes, before calls are kept out."""

    def disown(self) -> None:
        """In a forked child: have nothing to do with the environment, which is its parent's, ever again."""
        self._closing = self._closed = self._forked = self._gate.shut = True
        self._inside.clear()
        self._write_lock, self._flush_lock = threading.RLock(), threading.Lock()
        self._environment.freeze()


_all: weakref.WeakSet[Calls] = weakref.WeakSet()


def _disown_all() -> None:
    for calls in list(_all):
        if not calls._closed:
            calls.disown()


os.register_at_fork(after_in_child=_disown_all)
