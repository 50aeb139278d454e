"""The database of one store: what it is read with, and the one way in which it is written.

Above it, a store is four things: `get`, `keys`/`pairs` (scans, in chunks), `position`, and `commit` of a WriteSet.

Promises:
- The environment is private to this process, and is opened with recovery, under the owner's lock.
- A WriteSet is applied as a whole or not at all, once, and in the order of commit numbers. What `commit` has returned
  for is on the disk (`durability="flushed"`), on that of another device too if one is there ("replicated"), or was
  written within the last second ("buffered").
- No cursor and no lock outlives a call; a reader that meets a writer waits or tries again.
- No exception of Berkeley DB's leaves it.

Never: a transaction across calls, an environment shared with another process, an open without recovery.

Berkeley DB is known to three modules: this one, `calls.py` (getting into it, and surviving its failures) and
`environment.py` (opening and closing it).
"""

from __future__ import annotations

import contextlib
import copy
import functools
import hashlib
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from berkeleydb import db

from atop import clock
from atop.calls import Calls, Pending, UncertainError, end_transaction
from atop.database import Durability, Head
from atop.environment import (
    COMMITS,
    COUNTERS,
    JOURNAL,
    LOG,
    LOG_BUFFER,
    LOG_FILE,
    MAX_LOCKS,
    PAGE_SIZE,
    TABLES,
    close_quietly,
    cursor_over,
    damaged,
    explained,
    free_space,
    page_problem,
)
from atop.errors import AtopError, Conflict, StoreFull, TransactionTooLarge
from atop.indexes import prefix_of
from atop.pickles import scan as scan_pickle
from atop.records import loads, pack_u64, unpack_u64
from atop.replicated import Replication
from atop.writeset import (
    CATALOG,
    FILE_USES,
    FILE_USES_SIZE,
    INDEX,
    ITEMS,
    REFERENCES,
    ROOTS,
    Operations,
    WriteSet,
    pool_counter,
)

log = logging.getLogger(__name__)

T = TypeVar("T")

# One 32nd of the memory there is, within these bounds. It counts as memory of the process, and the kernel caches too.
SMALLEST_CACHE, LARGEST_CACHE = 8 << 20, 172 << 20
# The most operations of one WriteSet: at the worst every one is on a page of its own.
MAX_OPERATIONS = 1_000_000
# How much may be logged between checkpoints (bounds recovery), and how long a checkpoint may be put off.
CHECKPOINT_KIB, CHECKPOINT_MINUTES = 32 << 10, 5
MAINTENANCE_SECONDS = 1.0
# Disk space, in bytes, that a commit leaves free: for new pages that wait in the cache, of which there may be as many
# as is logged between checkpoints, for the next log file, and for a recovery.
RESERVE = 48 << 20
# Where at least this many bytes are free, commits go on for this many seconds before the disk is asked again: asking
# gives way to other threads, and would cost more than the rest of a small commit.
AMPLE, AMPLE_SECONDS = 1 << 30, 0.25

ZERO_CHAIN = bytes(32)
CHAIN_SIZE = 32
END = b"\xff" * 9  # past every key that begins with an id


class Engine(Calls):
    """The database of one store, open. Every method may be called by any thread."""

    def __init__(
        self,
        data: Path,
        *,
        cache_size: int | None = None,
        durability: Durability = "flushed",
        replication: Replication | None = None,
        first_sequence: int = 0,
    ) -> None:
        self.durability = durability
        self._ample_until = 0.0  # the monotonic time until which there is room enough on the disk
        # Counts up by one when the application of a commit begins, and again when it has ended: odd in between.
        self.sequence = first_sequence
        self.head = Head(0, ZERO_CHAIN)
        self.last_time = 0  # of the last commit, in microseconds of the hybrid clock
        self.behind = False  # whether commits have been applied that could not be looked at yet
        # Set by replication when the files were replaced. Berkeley DB would tell of that by dead handles, but it
        # tells them by the second: handles that were opened in the same second would go on with the old files.
        self.replaced = False
        # Called with the ids of items that commits made elsewhere have changed, before `sequence` says so.
        self.on_applied: Callable[[list[int]], None] = lambda item_ids: None
        # Called with each commit that is made here, before `sequence` says so.
        self.on_commit: Callable[[WriteSet], None] | None = None
        # Invariant: set unless `head` may be behind the database, because a commit was broken off (by Ctrl-C).
        self._in_step = True
        super().__init__(data, cache_size or _suitable_cache(), replication)
        self._checkpoint_lock = threading.Lock()
        self._due, self._ending = threading.Event(), threading.Event()
        self._maintenance = threading.Thread(target=self._maintain, name="atop-maintenance", daemon=True)
        try:
            self._maintenance.start()
        except RuntimeError:  # the system has no thread left: whoever has the lock next finds nobody in the environment
            self._closing = self._closed = True
            self._environment.abandon()
            raise

    def _opened(self) -> None:
        self._read_head()
        self.sequence += 2

    def _read_head(self) -> None:
        with cursor_over(self._tables[JOURNAL]) as cursor:
            last = cursor.last()
        if last is None:
            self.head = Head(0, ZERO_CHAIN)
        else:
            if len(last[0]) != 8 or len(last[1]) < CHAIN_SIZE + 8:
                raise damaged(self.path.parent, "the last record of the journal cannot be read", JOURNAL)
            self.head = Head(unpack_u64(last[0])[0], last[1][:CHAIN_SIZE])
            known = self._tables[COMMITS].get(commit_id_of(last[1]))
            self.last_time = clock.latest(self.last_time, unpack_u64(known, 8)[0] if known else 0)
        self._in_step = True

    def _before_close(self) -> None:
        self._ending.set()
        self._due.set()
        self._maintenance.join()

    # -- for replication

    @property
    def is_replicated(self) -> bool:
        """Whether this database is kept equal to those on other devices."""
        return self._replication is not None

    @property
    def _is_replica(self) -> bool:
        return self._replication is not None and not self._replication.is_master

    @contextlib.contextmanager
    def applying(self) -> Iterator[None]:
        """Apply records of the log, which another device made, in the block; then tell of the commits in them."""
        with self._write_lock:
            self.sequence += 1
            try:
                yield
                self._catch_up()
                if self.behind:
                    self.on_applied([])  # which items have changed will be told; that something has, is to be known
            finally:
                self.sequence += 1

    def _catch_up(self) -> None:
        """Learn of the commits that came after the head without having been made here. The write lock is held."""
        tables = self._tables
        if self.replaced:
            self.replaced = not self._reopen_tables(tables)
            self.behind = True
            return
        dead = False

        def look() -> None:
            nonlocal dead
            try:
                self._learn_commits()
                self.behind = False
            except db.DBRepHandleDeadError:
                self.behind = dead = True
            except (db.DBRepLockoutError, db.DBLockDeadlockError):
                self.behind = True  # it will be possible after more records, or in a moment

        self._call(JOURNAL, look)
        if dead:
            self._reopen_tables(tables)

    def _learn_commits(self) -> None:
        number, chain = head = self.head
        changed: list[int] = []
        # A cursor is refused at once while history is replaced; a plain get would sleep for seconds.
        try:
            with cursor_over(self._tables[JOURNAL]) as cursor:
                pair = cursor.set(pack_u64(number)) if number else None
                rewritten = bool(number) and (pair is None or pair[1][:CHAIN_SIZE] != chain)
                pair = None if rewritten else cursor.set_range(pack_u64(number + 1))
                while pair is not None:
                    key, record = pair
                    scan_pickle(record, CHAIN_SIZE + 8)
                    when, items = self._changed_in(record)
                    changed += items
                    self.last_time = clock.latest(self.last_time, when)
                    head = Head(unpack_u64(key)[0], record[:CHAIN_SIZE])
                    pair = cursor.next()
        finally:
            if head.number != number:
                self.on_applied(changed)  # first: whoever sees that there is a commit sees what it changed
                self.head = head
                self.on_applied([])  # and then whoever watches looks for it
        if rewritten:
            self._read_head()
            self.on_recovery()

    def _changed_in(self, record: bytes) -> tuple[int, list[int]]:
        """The time of a commit in the journal, and the ids of the items that it changed."""
        try:
            _, when, _, changes = loads(record[CHAIN_SIZE + 8 :])
            items = [change[1] for change in changes]
            if type(when) is not int or not all(type(item_id) is int for item_id in items):
                raise TypeError
        except (TypeError, ValueError, LookupError) as error:
            raise damaged(self.path.parent, "a record of the journal cannot be read", JOURNAL) from error
        return when, items

    # -- reading

    def get(self, table: str, key: bytes) -> bytes | None:
        """The value of a key as committed, or None."""
        found: bytes | None = self._call(table, lambda: self._tables[table].get(key))
        return found

    def get_item(self, key: bytes) -> bytes | None:
        """The record of an item; as `get`, for the most frequent call of all."""
        inside = self._inside
        try:
            inside.append(None)
            if self._gate.shut:
                self._gate.wait_outside()
            return self._items.get(key)  # type: ignore[no-any-return]
        except (db.DBError, MemoryError):
            pass  # `get` makes the same call, and deals with what it meets
        finally:
            inside.pop()
        return self.get(ITEMS, key)

    def get_items(self, keys: list[bytes]) -> list[bytes | None]:
        """The records of several items, None where there is none."""

        def get_all() -> list[bytes | None]:
            get = self._items.get
            return [get(key) for key in keys]

        return self._call(ITEMS, get_all)

    def version(self, item_id: int) -> int | None:
        """The version of an item as committed, or None if there is no such item."""
        start = self._call(ITEMS, lambda: self._items.get(pack_u64(item_id), dlen=8, doff=0))
        return unpack_u64(start)[0] if start is not None else None

    def catalog_get(self, name: str) -> int | None:
        """The item id that a name in the catalog stands for, or None."""
        found = self.get(CATALOG, name.encode())
        return unpack_u64(found)[0] if found is not None else None

    def counter(self, key: bytes) -> int:
        """The value of a counter; 0 where there is none."""
        found = self.get(COUNTERS, key)
        return int.from_bytes(found, signed=True) if found is not None else 0

    def names_file(self, digest: bytes) -> bool:
        """Whether an item, or an old value in the journal, names contents with this hash."""
        start = FILE_USES + digest
        return any(int.from_bytes(value, signed=True) > 0 for _, value in self.pairs(COUNTERS, start, start + END, 8))

    def named_files(self) -> Iterator[tuple[bytes, int]]:
        """The hashes and sizes of all contents that the store names, by hash."""
        start = FILE_USES
        while pairs := self.pairs(COUNTERS, start, FILE_USES + END * 5, 1_000):
            for key, value in pairs:
                size = unpack_u64(key, FILE_USES_SIZE - 8)[0] if len(key) == FILE_USES_SIZE else -1
                if 0 <= size < 1 << 63 and int.from_bytes(value, signed=True) > 0:
                    yield key[1:-8], size
            start = pairs[-1][0] + b"\0"

    def keys(self, table: str, start: bytes, stop: bytes, limit: int, reverse: bool = False) -> list[bytes]:
        """Up to `limit` keys in [start, stop), from the first on, or from the last back."""
        return [pair[0] for pair in self.pairs(table, start, stop, limit, reverse)]

    def pairs(
        self, table: str, start: bytes, stop: bytes, limit: int, reverse: bool = False
    ) -> list[tuple[bytes, bytes]]:
        """Up to `limit` (key, value) pairs with keys in [start, stop), from the first on, or from the last back."""

        def scan() -> list[tuple[bytes, bytes]]:
            found: list[tuple[bytes, bytes]] = []
            add = found.append
            cursor = self._tables[table].cursor()
            try:
                if reverse:
                    pair = cursor.prev() if cursor.set_range(stop) is not None else cursor.last()
                    step = cursor.prev
                    while pair is not None and pair[0] >= start:
                        add(pair)
                        if len(found) >= limit:
                            break
                        pair = step()
                else:
                    pair = cursor.set_range(start)
                    step = cursor.next
                    while pair is not None and pair[0] < stop:
                        add(pair)
                        if len(found) >= limit:
                            break
                        pair = step()
            except BaseException:
                close_quietly(cursor)
                raise
            cursor.close()
            return found

        return self._call(table, scan) if limit > 0 else []

    def position(self, table: str, key: bytes) -> float:
        """About which part of a table's keys is less than `key`: 0 to 1."""
        return float(self._call(table, lambda: self._tables[table].key_range(key))[0])

    def quiet_sequence(self) -> int | None:
        """The sequence, or None while a commit is being applied."""
        sequence = self.sequence
        return None if sequence & 1 else sequence

    def wait_applied(self) -> None:
        """Return when the commit that is being applied, if there is one, is: what is read then is of one state."""
        if self.sequence & 1:
            with self._write_lock:
                return

    def check_reads(self, versions: dict[int, int], names: dict[str, int | None]) -> None:
        """Raise `Conflict` unless, at one moment, all these items have these versions and names stand for these."""

        def check() -> None:
            self._check_versions(versions, None)
            self._check_names(list(names.items()), None)

        with self._write_lock:
            self._call(ITEMS, check)

    # -- committing

    @contextlib.contextmanager
    def no_commits(self) -> Iterator[None]:
        """Keep commits from being applied in the block; they wait. Reading goes on."""
        with self._write_lock:
            yield

    def commit(
        self,
        write_set: WriteSet,
        before: Callable[[], None] | None = None,
        applied: Callable[[], None] | None = None,
        durability: Durability | None = None,
    ) -> int:
        """Apply a WriteSet, once; returns its commit number.

        `before` and `applied` run while no other commit can be applied: `before` may refuse by raising, `applied` is
        called when the database has the commit and `sequence` does not yet say so; on a replica, when it has none after
        it. With `durability`, it is at least
        so durable as that when this returns.

        Raises:
            Conflict: what the WriteSet depends on has changed; nothing was applied.
            TransactionTooLarge, StoreFull, StoreReadOnly, StoreDamaged: nothing was applied.
        """
        if write_set.size() > MAX_OPERATIONS:
            raise TransactionTooLarge(
                f"{write_set.label!r} writes {write_set.size():,} records; one transaction may write "
                f"{MAX_OPERATIONS:,}: split it"
            )
        self._check_space(write_set)
        pending = Pending(write_set.commit_id)
        number = self._commit_here(write_set, pending, before, applied)
        while number is None:
            if before is not None:
                before()
            if self._replication is not None and (elsewhere := self._replication.forward(write_set)) is not None:
                # It is in the tables, and the objects in memory may not have been told yet.
                with self._write_lock:
                    if applied is not None and self.head.number == elsewhere:
                        applied()
                return elsewhere
            number = self._commit_here(write_set, pending, before, applied)
        if self.durability != "buffered" or (durability or "buffered") != "buffered":
            self._flush(pending)
        if "replicated" in (self.durability, durability) and self._replication is not None:
            self._replication.await_replicated(number)
        return number

    def _commit_here(
        self,
        write_set: WriteSet,
        pending: Pending,
        before: Callable[[], None] | None,
        applied: Callable[[], None] | None,
    ) -> int | None:
        """Apply a WriteSet to this database, and return its number; None if that is for the master to do."""
        with self._write_lock:
            if self._is_replica:
                return None
            if not self._in_step:
                self._get_in_step()
            if before is not None:
                before()
            try:
                number = self._call(None, lambda: self._apply(write_set, pending, applied), writing=True)
            except AtopError as error:
                if not pending.kept:
                    raise (copy.copy(pending.error) if pending.error and pending.kept is None else error) from error
                number = pending.number  # a failure came after the commit, and the recovery has found it
            except BaseException:
                if not self._in_step:
                    self._get_in_step()
                raise
        if not self._due.is_set():
            self._due.set()
        return number

    def _apply(self, write_set: WriteSet, pending: Pending, applied: Callable[[], None] | None) -> int:
        commit_key = pack_u64(write_set.commit_id)
        fresh = write_set.base is not None and write_set.base == self.sequence
        begun: list[Any] = []
        try:
            txn = self._begin(begun)
            if not fresh:
                known = self._tables[COMMITS].get(commit_key, txn=txn)
                if known is not None:
                    txn.abort()
                    self._unflushed.append(pending)  # it may be another call's, which has not flushed it yet
                    pending.number = int(unpack_u64(known)[0])
                    return pending.number
                self._check(write_set, txn)
            self._check_exist(write_set, txn)
            for table, operations in write_set.operations.items():
                if operations:
                    self._write(table, operations, txn)
            if not fresh:
                self._check_after(write_set, txn)
            self._count(write_set.counters, txn)
            number = self.head.number + 1
            chain = hashlib.blake2b(self.head.chain + write_set.body, digest_size=CHAIN_SIZE).digest()
            number_key = pack_u64(number)
            self._put(JOURNAL, number_key, chain + commit_key + write_set.body, txn)
            self._put(COMMITS, commit_key, number_key + pack_u64(write_set.time), txn)
            pending.number, pending.transaction = number, txn.id() & 0xFFFF_FFFF
            self._unflushed.append(pending)
            self._in_step = False
            self.sequence += 1
            try:
                end_transaction(txn.commit, db.DB_TXN_NOSYNC)
                self.head = Head(number, chain)
                self.last_time = clock.latest(self.last_time, write_set.time)
                if self.on_commit is not None:
                    self.on_commit(write_set)
                if applied is not None:
                    applied()
                self._in_step = True
            finally:
                self.sequence += 1
        except BaseException as error:
            self._abort(begun, error)
            raise
        return number

    def _begin(self, begun: list[Any]) -> Any:
        """Begin a transaction, and put it into `begun` in the same step, between which no interrupt can come.

        One that nobody holds is ended by its destructor, which warns of that, and the interrupt ends as a SystemError.
        """
        begun.extend(map(self._env.txn_begin, (None,)))
        return begun[0]

    def _abort(self, begun: list[Any], error: BaseException) -> None:
        """End a transaction that `error` broke off, so that it holds no lock while the error is looked at."""
        if not begun or isinstance(error, (db.DBRunRecoveryError, UncertainError)):
            return  # there is none, or the environment is about to be given up
        (txn,) = begun
        if self._in_step:
            end_transaction(txn.abort)
        else:
            with contextlib.suppress(db.DBError):  # it was committed just before
                txn.abort()

    def _get_in_step(self) -> None:
        """Find out how far the database is, after a commit was broken off; what was read before may not hold."""

        def look() -> None:
            self.sequence += 2
            self._read_head()
            self.on_recovery()

        self._call(JOURNAL, look)

    def _write(self, table: str, operations: Operations, txn: Any) -> None:
        self._writing = table
        handle = self._tables[table]
        put, delete = handle.put, handle.delete
        for key in sorted(operations):  # neighbours are on the same page
            value = operations[key]
            if value is not None:
                put(key, value, txn)
            else:
                try:
                    delete(key, txn)
                except db.DBNotFoundError:
                    continue  # gone already: what was asked for

    def _put(self, table: str, key: bytes, value: bytes, txn: Any) -> None:
        self._writing = table
        self._tables[table].put(key, value, txn)

    def _count(self, counters: dict[bytes, int], txn: Any) -> None:
        handle = self._tables[COUNTERS]
        for key, more in sorted(counters.items()):
            found = handle.get(key, txn=txn)
            value = (int.from_bytes(found, signed=True) if found is not None else 0) + more
            if value:
                handle.put(key, value.to_bytes(8, signed=True), txn)
            elif found is not None:
                handle.delete(key, txn)

    def _check(self, write_set: WriteSet, txn: Any) -> None:
        self._check_versions(write_set.checks, txn)
        self._check_names(write_set.names, txn)
        for pool_id, size in write_set.sizes:
            counter = self._tables[COUNTERS].get(pool_counter(pool_id), txn=txn)
            if (int.from_bytes(counter, signed=True) if counter is not None else 0) != size:
                raise Conflict(f"another commit added an item to pool {pool_id} meanwhile: try again", pool_id)

    def _check_exist(self, write_set: WriteSet, txn: Any) -> None:
        """Raise `Conflict` if an item that is referred to is gone. It may have gone before the transaction began."""
        for item_id in write_set.exists:
            if self._items.get(pack_u64(item_id), txn=txn, dlen=8, doff=0) is None:
                raise Conflict(f"item {item_id}, which {write_set.label!r} refers to, has been deleted", item_id)

    def _check_names(self, names: list[tuple[str, int | None]], txn: Any) -> None:
        for name, expected in names:
            found = self._tables[CATALOG].get(name.encode(), txn=txn)
            if (unpack_u64(found)[0] if found is not None else None) != expected:
                raise Conflict(f"another commit has given the name {name!r} to another item")

    def _check_versions(self, versions: dict[int, int], txn: Any) -> None:
        """Version 0 stands for an item that must not be there."""
        get = self._items.get
        for item_id, version in versions.items():
            start = get(pack_u64(item_id), txn=txn, dlen=8, doff=0)
            if (unpack_u64(start)[0] if start is not None else 0) != version:
                raise Conflict(f"item {item_id} was changed by another commit meanwhile: try again", item_id)

    def _check_after(self, write_set: WriteSet, txn: Any) -> None:
        for item_id in write_set.unreferenced:
            if self._has(REFERENCES, pack_u64(item_id), txn):
                raise Conflict(f"another commit made an item refer to item {item_id} meanwhile: try again", item_id)
        if write_set.unreferenced:
            self._check_unnamed(write_set.unreferenced, txn)
        for pool_id in write_set.emptied:
            if self._has(INDEX, prefix_of(pool_id, 0), txn):
                raise Conflict(f"another commit added an item to pool {pool_id} meanwhile: try again", pool_id)

    def _check_unnamed(self, item_ids: list[int], txn: Any) -> None:
        gone = set(item_ids)
        cursor = self._tables[CATALOG].cursor(txn)
        try:
            pair = cursor.set_range(ROOTS)
            while pair is not None and pair[0].startswith(ROOTS):
                if (item_id := unpack_u64(pair[1])[0]) in gone:
                    raise Conflict(f"another commit has given a name to item {item_id} meanwhile: try again", item_id)
                pair = cursor.next()
        finally:
            cursor.close()

    def _has(self, table: str, prefix: bytes, txn: Any) -> bool:
        with cursor_over(self._tables[table], txn) as cursor:
            pair = cursor.set_range(prefix)
            return pair is not None and pair[0].startswith(prefix)

    def _check_space(self, write_set: WriteSet) -> None:
        needed = RESERVE + 4 * write_set.length
        if needed < AMPLE // 4 and time.monotonic() < self._ample_until:
            return
        free = free_space(self.path)
        self._ample_until = time.monotonic() + AMPLE_SECONDS if free >= AMPLE else 0.0
        if free < needed:
            raise StoreFull(
                f"{write_set.label!r} was not written: the disk of {self.path.parent} has {free >> 20} MiB left and "
                f"{needed >> 20} MiB are needed: make room and try again",
                self.path.parent,
            )

    # -- maintenance

    def _maintain(self) -> None:
        """Checkpoint and remove logs, once a second at most, while there is something to do."""
        trouble = ""
        while True:
            self._due.wait()
            self._due.clear()
            if self._ending.is_set():
                return
            try:
                if self._unflushed and self.durability == "buffered":
                    self.flush()
                self.checkpoint(force=False)
                trouble = ""
            except AtopError as error:
                if str(error) != trouble:  # it is tried again every second, and told once
                    log.warning("writing out %s failed: %s", self.path, error)
                trouble = str(error)
                self._due.set()
            if self._ending.wait(MAINTENANCE_SECONDS):
                return

    def maintain_soon(self) -> None:
        """Have the database looked after within a second or so, and recovered if it has failed; returns at once."""
        self._due.set()

    def checkpoint(self, force: bool = True) -> None:
        """Write the cache to the tables, and remove log files that are not needed any more."""
        kib, minutes = (0, 0) if force else (CHECKPOINT_KIB, CHECKPOINT_MINUTES)
        with self._checkpoint_lock:
            self._call(None, lambda: self._environment.checkpoint(kib, minutes))

    def settled(self) -> int:
        """The number up to which commits will still be there after a crash; up to the last, if that may lose some."""
        head, unflushed = self.head.number, self._unflushed
        if self.durability == "buffered":
            return head
        try:
            return unflushed[0].number - 1
        except IndexError:
            return head

    def oldest_commit(self) -> int:
        """The number of the oldest commit that the journal has; one past the head if it is empty."""
        first = self.pairs(JOURNAL, b"", END, 1)
        return int(unpack_u64(first[0][0])[0]) if first else self.head.number + 1

    def trim_journal(self, first: int, last: int, counters: dict[bytes, int]) -> None:
        """Remove the commits with these numbers from the journal, and count what they no longer hold."""

        gone: Operations = dict.fromkeys(map(pack_u64, range(first, last + 1)))
        with self._write_lock:
            if not self._is_replica:  # the master's trimming gets here by itself
                self._call(JOURNAL, lambda: self._write_alone(JOURNAL, gone, counters), writing=True)

    def forget_commit_ids(self, cutoff: int) -> None:
        """Remove the ids of commits made before `cutoff` (microseconds) that the journal has no longer."""
        start, oldest = b"", self.oldest_commit()
        while pairs := self.pairs(COMMITS, start, END, 1_000):
            start = pairs[-1][0] + b"\0"
            gone: Operations = {
                key: None for key, value in pairs if unpack_u64(value)[0] < oldest and unpack_u64(value, 8)[0] < cutoff
            }
            if gone:
                with self._write_lock:
                    if self._is_replica:
                        return
                    self._call(COMMITS, functools.partial(self._write_alone, COMMITS, gone), writing=True)

    def _write_alone(self, table: str, operations: Operations, counters: dict[bytes, int] | None = None) -> None:
        """Write to one table, and to counters, in a transaction that is flushed and no commit of the store's."""
        begun: list[Any] = []
        try:
            txn = self._begin(begun)
            self._write(table, operations, txn)
            self._count(counters or {}, txn)
        except BaseException as error:
            self._abort(begun, error)
            raise
        end_transaction(txn.commit, db.DB_TXN_SYNC)

    def compact(self) -> int:
        """Give empty pages back to the file system; returns how many bytes of disk that freed."""
        if self._is_replica:
            return 0  # the pages are the same on all devices: they are given back where the master does it
        before = self._size()
        for table in TABLES:
            self._call(table, lambda table=table: self._tables[table].compact(flags=db.DB_FREE_SPACE))  # type: ignore[misc]
        self.checkpoint()
        return max(0, before - self._size())

    def _size(self) -> int:
        return sum(path.stat().st_size for path in self.path.glob("*.db"))

    def count(self, table: str) -> int:
        """The number of records in a table, by reading all of it."""
        return self.count_between(table, b"", b"\xff" * 64)

    def count_between(self, table: str, start: bytes, stop: bytes) -> int:
        """The number of records with keys in [start, stop), by reading all of them."""
        count = 0
        while keys := self.keys(table, start, stop, 4_096):
            count += len(keys)
            start = keys[-1] + b"\0"
        return count

    def verify_pages(self) -> Iterator[str]:
        """A line for each table whose pages are damaged, and for the log. Commits must be kept out meanwhile.

        A damaged log is replaced, as long as the tables have what was in it: opened with it, the store would lose that.
        """
        self.checkpoint()
        for name in TABLES:
            if (problem := page_problem(self.path / f"{name}.db")) is not None:
                yield f"table {name}: {problem}"
        problem = self._call(None, self._environment.log_problem)
        if problem is not None and self._replication is None:
            self._call(None, self._environment.renew_log)
            problem += "; it was replaced just now, and nothing is lost"
        if problem is not None:
            yield f"{LOG}: {problem}"

    def backup(self, target: Path) -> None:
        """Copy the database, as of some moment during the call, into the empty directory `target`.

        Raises:
            StoreFull, StoreReadOnly, StoreError: `target` cannot be written.
        """
        self.checkpoint()  # so that there is little log to copy, and to recover from
        # Without a checkpoint meanwhile, the last one is older than every page that is copied: an ordinary recovery
        # brings all of them to the same moment.
        with self._checkpoint_lock:
            self._call(None, lambda: self._copy(target))

    def _copy(self, target: Path) -> None:
        try:
            self._env.backup(os.fspath(target), db.DB_BACKUP_CLEAN)
        except db.DBRunRecoveryError:
            raise
        except db.DBError as error:
            raise explained(error, target) from error
        # Pages are copied as they are in memory, where they may be ahead of the log on the disk, which is copied as it
        # is there: once all that they tell of is in it, its end is copied again. No log file is removed meanwhile.
        self._env.log_flush()
        try:
            newest = max(path.name for path in target.glob("log.*"))
            for path in sorted(self.path.glob("log.*")):
                if path.name >= newest:
                    shutil.copyfile(path, target / path.name)
        except OSError as error:
            raise explained(error, target) from error


def commit_id_of(journal_value: bytes) -> bytes:
    """The commit id, as 8 bytes, in a journal record."""
    return journal_value[CHAIN_SIZE : CHAIN_SIZE + 8]


__all__ = [
    "CHAIN_SIZE",
    "COMMITS",
    "COUNTERS",
    "JOURNAL",
    "LOG_BUFFER",
    "LOG_FILE",
    "MAX_LOCKS",
    "PAGE_SIZE",
    "TABLES",
    "Durability",
    "Engine",
    "Head",
]


def _suitable_cache() -> int:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(SMALLEST_CACHE, min(memory // 32, LARGEST_CACHE))
