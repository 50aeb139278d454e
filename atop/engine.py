"""The Berkeley DB environment of one store: the only module of `atop` that knows Berkeley DB.

Above it, a store is four things: `get`, `keys`/`pairs` (scans, in chunks), `position`, and `commit` of a WriteSet.

Promises:
- The environment is private to this process, and is opened with recovery, under the owner's lock.
- A WriteSet is applied as a whole or not at all, once, and in the order of commit numbers. What `commit` has returned
  for is on the disk (`durability="flushed"`), or was written within the last second ("buffered").
- No cursor and no lock outlives a call; a reader that meets a writer waits or tries again.
- No exception of Berkeley DB's leaves it.

Never: a transaction across calls, an environment shared with another process, an open without recovery.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from berkeleydb import db

from atop.errors import (
    AtopError,
    Conflict,
    StoreClosed,
    StoreDamaged,
    StoreError,
    StoreFull,
    StoreReadOnly,
    TransactionTooLarge,
    UnsupportedStore,
)
from atop.indexes import prefix_of
from atop.records import loads, pack_u64, unpack_u64
from atop.replicated import Replication
from atop.writeset import CATALOG, INDEX, ITEMS, REFERENCES, WriteSet, pool_counter

log = logging.getLogger(__name__)

T = TypeVar("T")
Durability = Literal["flushed", "buffered"]

JOURNAL, COMMITS, COUNTERS = "journal", "commits", "counters"
TABLES = (ITEMS, INDEX, REFERENCES, JOURNAL, COMMITS, COUNTERS, CATALOG)

# The version of everything under data/. A store with a higher one is refused; one with a lower one is brought up.
FORMAT_VERSION = 1
FORMAT_KEY = b"\0format"

PAGE_SIZE = 8192
# One 32nd of the memory there is, within these bounds. It counts as memory of the process, and the kernel caches too.
SMALLEST_CACHE, LARGEST_CACHE = 8 << 20, 128 << 20
LOG_BUFFER = 1 << 20
LOG_FILE = 16 << 20
# Locks that one transaction may hold, one for each page it touches.
MAX_LOCKS = 120_000
# The most operations of one WriteSet: at the worst every one is on a page of its own.
MAX_OPERATIONS = 1_000_000
# How much may be logged between checkpoints (bounds recovery), and how long a checkpoint may be put off.
CHECKPOINT_KIB, CHECKPOINT_MINUTES = 32 << 10, 5
MAINTENANCE_SECONDS = 1.0
# Disk space that a commit leaves free: for what is in the cache and in the log's buffer, and for a recovery.
RESERVE = 24 << 20
# How long a call waits, in seconds, before it tries again while Berkeley DB replaces the history of a replica.
LOCKOUT_SECONDS = 0.001
# How often a call that Berkeley DB ended to break a deadlock is made again before it is an error.
MAX_DEADLOCKS = 1_000

ZERO_CHAIN = bytes(32)
CHAIN_SIZE = 32


class Head(NamedTuple):
    """The end of the journal: the number of the last commit, and the chain value over it and all before it."""

    number: int
    chain: bytes


class Engine:
    """The database of one store, open. Every method may be called by any thread."""

    def __init__(
        self,
        data: Path,
        *,
        cache_size: int | None = None,
        durability: Durability = "flushed",
        replication: Replication | None = None,
    ) -> None:
        self.path = data
        self._replication = replication
        self.durability = durability
        self._cache_size = cache_size or _suitable_cache()
        self._calls: list[None] = []  # one element for each call under way; append and pop are atomic
        self._shut = False  # Invariant: while it is set, no call enters Berkeley DB
        self._opened = threading.Event()
        self._exclusive_lock = threading.RLock()
        self._write_lock = threading.RLock()
        self._flush_lock = threading.Lock()
        # Counts up by one when the application of a commit begins, and again when it has ended: odd in between.
        self.sequence = 0
        self.head = Head(0, ZERO_CHAIN)
        self.last_time = 0  # of the last commit, in microseconds of the hybrid clock
        self._flushed = 0  # Invariant: commits up to this number are on the disk
        self._failure: AtopError | None = None
        self._closed = False
        self.on_recovery: Callable[[], None] = lambda: None  # called when what was read before may not hold
        self.behind = False  # whether commits have been applied that could not be looked at yet
        # Called with the ids of items that commits made elsewhere have changed, before `sequence` says so.
        self.on_applied: Callable[[list[int]], None] = lambda item_ids: None
        self._pid = os.getpid()
        self._due = threading.Event()
        self._open()
        self._maintenance = threading.Thread(target=self._maintain, name="atop-maintenance", daemon=True)
        self._maintenance.start()

    # -- opening and closing

    def _open(self) -> None:
        try:
            self.path.mkdir(mode=0o700, exist_ok=True)
            self._env = self._open_environment()
            try:
                if self._replication is not None:
                    self._replication.start(self._env, self.path)
                self._tables = {name: self._open_table(name) for name in TABLES}
                self._read_head()
            except BaseException:
                self._close_handles()
                raise
        except (db.DBError, OSError, MemoryError) as error:
            raise self._explained(error) from error
        self._items = self._tables[ITEMS]
        self._opened.set()
        if self._replication is not None:
            self._replication.attach(self)

    @property
    def _is_replica(self) -> bool:
        return self._replication is not None and not self._replication.is_master

    def _open_environment(self) -> Any:
        env = db.DBEnv()
        env.set_cachesize(0, self._cache_size, 1)
        env.set_lg_bsize(LOG_BUFFER)
        env.set_lg_max(LOG_FILE)
        env.set_lk_max_locks(MAX_LOCKS)
        env.set_lk_max_objects(MAX_LOCKS)
        env.set_lk_max_lockers(10_000)
        env.set_lk_detect(db.DB_LOCK_MINWRITE)
        env.set_tx_max(1_000)
        env.set_get_returns_none(2)
        more = self._replication.configure(env) if self._replication is not None else 0
        env.open(
            os.fspath(self.path),
            more
            | db.DB_CREATE
            | db.DB_RECOVER
            | db.DB_PRIVATE
            | db.DB_THREAD
            | db.DB_INIT_MPOOL
            | db.DB_INIT_LOCK
            | db.DB_INIT_LOG
            | db.DB_INIT_TXN,
            0o600,
        )
        return env

    def _open_table(self, name: str) -> Any:
        table = db.DB(self._env)
        table.set_flags(db.DB_CHKSUM)
        table.set_pagesize(PAGE_SIZE)
        table.set_get_returns_none(2)
        try:
            table.open(
                f"{name}.db",
                dbtype=db.DB_BTREE,
                flags=db.DB_AUTO_COMMIT | db.DB_THREAD | (0 if self._is_replica else db.DB_CREATE),
                mode=0o600,
            )
        except (db.DBRepLockoutError, db.DBRepHandleDeadError, db.DBNoSuchFileError):
            raise
        except (db.DBError, MemoryError) as error:
            raise self._explained(error, name) from error
        return table

    def _read_head(self) -> None:
        found = self._tables[CATALOG].get(FORMAT_KEY)
        if found is None:
            if self._is_replica:
                raise StoreDamaged(
                    f"the copy of the store in {self.path.parent} has no format: copy it again", self.path
                )
            txn = self._env.txn_begin()
            self._tables[CATALOG].put(FORMAT_KEY, pack_u64(FORMAT_VERSION), txn)
            txn.commit()
        elif unpack_u64(found)[0] > FORMAT_VERSION:
            raise UnsupportedStore(
                f"the store {self.path.parent} has format {unpack_u64(found)[0]}, and this version of Atop knows "
                f"formats up to {FORMAT_VERSION}: update Atop to open it",
                self.path.parent,
            )
        cursor = self._tables[JOURNAL].cursor()
        try:
            last = cursor.last()
        finally:
            cursor.close()
        if last is None:
            self.head, self._flushed = Head(0, ZERO_CHAIN), 0
        else:
            number = unpack_u64(last[0])[0]
            self.head = Head(number, last[1][:CHAIN_SIZE])
            stamp = self._tables[COMMITS].get(commit_id_of(last[1]))
            self.last_time = unpack_u64(stamp, 8)[0] if stamp else 0
            self._flushed = number

    def close(self) -> None:
        """Write everything out and close. May be called again."""
        if self._closed:
            return
        self._closed = True
        self._due.set()
        if os.getpid() != self._pid:
            return  # a forked child: the environment is its parent's
        self._maintenance.join()
        with self._write_lock, self._alone():
            try:
                if self._failure is None:
                    self._env.log_flush()
                    self._env.txn_checkpoint(0, 0, db.DB_FORCE)
                    self._env.log_archive(db.DB_ARCH_REMOVE)
            except db.DBError as error:
                # Nothing is lost: the log has it all, and the next open recovers from that.
                log.warning("closing %s without a checkpoint: %s", self.path, error)
            self._close_handles()

    def _close_handles(self) -> None:
        if self._replication is not None:
            self._replication.stop()
        for table in getattr(self, "_tables", {}).values():
            with contextlib.suppress(db.DBError):  # the environment has failed, or the log has it all
                table.close()
        with contextlib.suppress(db.DBError):
            self._env.close()

    def _reopen(self) -> None:
        """Recover after a failure of Berkeley DB's that closing and opening again mends."""
        with self._alone():
            if self._closed:
                return  # whoever owns the store by now has the environment open
            self._close_handles()
            try:
                self._open()
            except AtopError as error:
                self._failure = error
                raise
            self.sequence += 2
            self._failure = None
            self.on_recovery()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Let no other call into Berkeley DB in the block, and wait for those that are there to leave."""
        with self._exclusive_lock:
            self._opened.clear()
            self._shut = True
            while self._calls:
                time.sleep(0.0001)
            try:
                yield
            finally:
                self._shut = self._closed
                self._opened.set()

    # -- for replication

    @contextlib.contextmanager
    def at_rest(self) -> Iterator[None]:
        """Have nobody in Berkeley DB in the block: no commit is under way, and calls wait. For changes of role."""
        with self._write_lock, self._alone():
            yield

    @contextlib.contextmanager
    def applying(self) -> Iterator[None]:
        """Apply records of the log, which another device made, in the block; then tell of the commits in them."""
        with self._write_lock:
            self.sequence += 1
            try:
                yield
                self._catch_up()
            finally:
                self.sequence += 1

    def _catch_up(self) -> None:
        """Learn of the commits that came after the head without having been made here. The write lock is held."""
        tables = self._tables
        try:
            self._learn_commits()
            self.behind = False
        except db.DBRepHandleDeadError:
            self.behind = True
            self._reopen_tables(tables)
        except (db.DBRepLockoutError, db.DBLockDeadlockError):
            self.behind = True  # it will be possible after more records, or in a moment
        except (db.DBError, MemoryError) as error:
            raise self._failed(error, JOURNAL) from error

    def _learn_commits(self) -> None:
        journal = self._tables[JOURNAL]
        number, chain = self.head
        if number and (journal.get(pack_u64(number)) or b"")[:CHAIN_SIZE] != chain:
            self._read_head()  # history was rolled back, or replaced
            self.on_recovery()
            return
        changed: list[int] = []
        cursor = journal.cursor()
        try:
            pair = cursor.set_range(pack_u64(number + 1))
            while pair is not None:
                _, when, _, changes = loads(pair[1][CHAIN_SIZE + 8 :])
                changed += [change[1] for change in changes]
                self.last_time = max(self.last_time, when)
                self.head = Head(unpack_u64(pair[0])[0], pair[1][:CHAIN_SIZE])
                pair = cursor.next()
        finally:
            cursor.close()
            if self.head.number != number:
                self.on_applied(changed)

    def _reopen_tables(self, dead: dict[str, Any]) -> None:
        """Open the tables again: Berkeley DB has replaced what the handles stood for."""
        with self._write_lock, self._alone():
            if self._tables is not dead:
                return  # another thread has done it
            fresh: dict[str, Any] = {}
            try:
                for name in TABLES:
                    fresh[name] = self._open_table(name)
            except db.DBError:  # the files are being replaced: the caller meets that again, and waits
                dead = fresh
            else:
                self._tables, self._items = fresh, fresh[ITEMS]
            for table in dead.values():
                with contextlib.suppress(db.DBError):  # a dead handle says once more that it is
                    table.close()
        if dead is fresh:
            time.sleep(LOCKOUT_SECONDS)

    def _enter(self) -> None:
        """Wait, having found the engine shut, until it is not. Raises what keeps it shut for good."""
        self._calls.pop()
        if self._closed or os.getpid() != self._pid:
            raise StoreClosed(f"the store {self.path.parent} is closed", self.path.parent)
        if self._failure is not None:
            raise self._failure
        self._opened.wait()
        self._calls.append(None)
        if self._shut:
            self._enter()

    def _call(self, table: str, operate: Callable[[], T]) -> T:
        """Make one call into Berkeley DB: again after a deadlock, with errors explained."""
        deadlocks = 0
        while deadlocks < MAX_DEADLOCKS:
            self._calls.append(None)
            if self._shut:
                self._enter()
            tables = self._tables
            try:
                return operate()
            except db.DBLockDeadlockError:
                deadlocks += 1
                continue
            except db.DBRepLockoutError:  # history is being replaced: there will be one to read, or the store closes
                time.sleep(LOCKOUT_SECONDS)
                continue
            except db.DBRepHandleDeadError:
                pass
            except (db.DBError, MemoryError) as error:
                raise self._failed(error, table) from error
            finally:
                self._calls.pop()
            self._reopen_tables(tables)
        raise StoreError(f"table {table}: no lock to be had after {MAX_DEADLOCKS} tries: try again", self.path.parent)

    # -- reading

    def get(self, table: str, key: bytes) -> bytes | None:
        """The value of a key as committed, or None."""
        found: bytes | None = self._call(table, lambda: self._tables[table].get(key))
        return found

    def get_item(self, key: bytes) -> bytes | None:
        """The record of an item; as `get`, for the most frequent call of all."""
        self._calls.append(None)
        if self._shut:
            self._enter()
        try:
            return self._items.get(key)  # type: ignore[no-any-return]
        except db.DBError:
            pass
        finally:
            self._calls.pop()
        return self.get(ITEMS, key)

    def get_items(self, keys: list[bytes]) -> list[bytes | None]:
        """The records of several items, None where there is none."""

        def read() -> list[bytes | None]:
            get = self._items.get
            return [get(key) for key in keys]

        return self._call(ITEMS, read)

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
            finally:
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

    def check_versions(self, versions: dict[int, int]) -> None:
        """Raise `Conflict` unless all these items (id -> version) have these versions at one moment."""
        with self._write_lock:
            self._call(ITEMS, lambda: self._check_versions(list(versions.items()), None))

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
    ) -> int:
        """Apply a WriteSet, once; returns its commit number.

        `before` and `applied` run while no other commit can be applied: `before` may refuse by raising, `applied` is
        called when the database has the commit and `sequence` does not yet say so.

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
        number = self._commit_here(write_set, before, applied)
        while number is None:
            if before is not None:
                before()
            if self._replication is not None and (elsewhere := self._replication.forward(write_set)) is not None:
                return elsewhere
            number = self._commit_here(write_set, before, applied)
        if self.durability == "flushed":
            self.flush(number, write_set)
        return number

    def _commit_here(
        self, write_set: WriteSet, before: Callable[[], None] | None, applied: Callable[[], None] | None
    ) -> int | None:
        """Apply a WriteSet to this database, and return its number; None if that is for the master to do."""
        with self._write_lock:
            if self._replication is not None and not self._replication.is_master:
                return None
            if before is not None:
                before()
            try:
                number = self._call("", lambda: self._apply(write_set, applied))
            except (StoreFull, StoreError):
                number = self._after_failure(write_set)
        if not self._due.is_set():
            self._due.set()
        return number

    def _apply(self, write_set: WriteSet, applied: Callable[[], None] | None) -> int:
        commit_key = pack_u64(write_set.commit_id)
        fresh = write_set.base is not None and write_set.base == self.sequence
        txn = self._env.txn_begin()
        try:
            if not fresh:
                known = self._tables[COMMITS].get(commit_key, txn=txn)
                if known is not None:
                    txn.abort()
                    return int(unpack_u64(known)[0])
                self._check(write_set, txn)
            for table, operations in write_set.operations.items():
                if operations:
                    self._write(self._tables[table], operations, txn)
            if not fresh:
                self._check_after(write_set, txn)
            self._count(write_set.counters, txn)
            number = self.head.number + 1
            chain = hashlib.blake2b(self.head.chain + write_set.body, digest_size=CHAIN_SIZE).digest()
            number_key = pack_u64(number)
            self._tables[JOURNAL].put(number_key, chain + commit_key + write_set.body, txn)
            self._tables[COMMITS].put(commit_key, number_key + pack_u64(write_set.time), txn)
        except BaseException:
            txn.abort()
            raise
        self.sequence += 1
        try:
            txn.commit(db.DB_TXN_NOSYNC)
            self.head = Head(number, chain)
            self.last_time = max(self.last_time, write_set.time)
            if applied is not None:
                applied()
        finally:
            self.sequence += 1
        return number

    @staticmethod
    def _write(handle: Any, operations: list[tuple[bytes, bytes | None]], txn: Any) -> None:
        put, delete = handle.put, handle.delete
        for key, value in operations:
            if value is not None:
                put(key, value, txn)
            else:
                try:
                    delete(key, txn)
                except db.DBNotFoundError:
                    continue  # gone already: what was asked for

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
        for item_id in write_set.exists:
            if self._items.get(pack_u64(item_id), txn=txn, dlen=8, doff=0) is None:
                raise Conflict(f"item {item_id}, which {write_set.label!r} refers to, has been deleted", item_id)
        for name, expected in write_set.names:
            found = self._tables[CATALOG].get(name.encode(), txn=txn)
            if (unpack_u64(found)[0] if found is not None else None) != expected:
                raise Conflict(f"another commit has given the name {name!r} to another item")
        for pool_id, size in write_set.sizes:
            counter = self._tables[COUNTERS].get(pool_counter(pool_id), txn=txn)
            if (int.from_bytes(counter, signed=True) if counter is not None else 0) != size:
                raise Conflict(f"another commit added an item to pool {pool_id} meanwhile: try again", pool_id)

    def _check_versions(self, versions: list[tuple[int, int]], txn: Any) -> None:
        get = self._items.get
        for item_id, version in versions:
            start = get(pack_u64(item_id), txn=txn, dlen=8, doff=0)
            if start is None or unpack_u64(start)[0] != version:
                raise Conflict(f"item {item_id} was changed by another commit meanwhile: try again", item_id)

    def _check_after(self, write_set: WriteSet, txn: Any) -> None:
        for item_id in write_set.unreferenced:
            if self._has(REFERENCES, pack_u64(item_id), txn):
                raise Conflict(f"another commit made an item refer to item {item_id} meanwhile: try again", item_id)
        for pool_id in write_set.emptied:
            if self._has(INDEX, prefix_of(pool_id, 0), txn):
                raise Conflict(f"another commit added an item to pool {pool_id} meanwhile: try again", pool_id)

    def _has(self, table: str, prefix: bytes, txn: Any) -> bool:
        cursor = self._tables[table].cursor(txn)
        try:
            pair = cursor.set_range(prefix)
            return pair is not None and pair[0].startswith(prefix)
        finally:
            cursor.close()

    def flush(self, number: int, write_set: WriteSet | None = None) -> None:
        """Return when the commits up to `number` are on the disk. Concurrent calls share one flush."""
        with self._flush_lock:
            if self._flushed >= number:
                return
            end = self.head.number
            try:
                self._call("", self._env.log_flush)
            except AtopError:
                if write_set is None:
                    raise
                with self._write_lock:
                    self._after_failure(write_set)
                return
            self._flushed = end

    def _after_failure(self, write_set: WriteSet) -> int:
        """Recover, and tell by the log whether a commit whose writing failed is there; raise why if it is not."""
        error = self._failure
        if self._closed:
            raise error or StoreClosed(f"the store {self.path.parent} is closed", self.path.parent)
        self._reopen()
        known = self.get(COMMITS, pack_u64(write_set.commit_id))
        if known is not None:
            return int(unpack_u64(known)[0])
        raise error or StoreError(f"{write_set.label!r} could not be written", self.path.parent)

    def _check_space(self, write_set: WriteSet) -> None:
        needed = RESERVE + 4 * write_set.length
        status = os.statvfs(self.path)
        free = status.f_bavail * status.f_frsize
        if free < needed:
            raise StoreFull(
                f"{write_set.label!r} was not written: the disk of {self.path.parent} has {free >> 20} MiB left and "
                f"{needed >> 20} MiB are needed: make room and try again",
                self.path.parent,
            )

    # -- errors

    def _failed(self, error: BaseException, table: str) -> AtopError:
        explained = self._explained(error, table)
        if isinstance(error, db.DBRunRecoveryError) or isinstance(explained, (StoreFull, StoreDamaged)):
            self._failure = explained
        return explained

    def _explained(self, error: BaseException, table: str | None = None) -> AtopError:
        """An error of Berkeley DB's or the system's, as one of ours."""
        if isinstance(error, AtopError):
            return error
        store = self.path.parent
        code = error.args[0] if error.args and isinstance(error.args[0], int) else 0
        if code in (errno.ENOSPC, errno.EDQUOT) or isinstance(error, db.DBNoSpaceError):
            return StoreFull(f"the disk of {store} is full: make room and try again", store)
        if code in (errno.EROFS, errno.EACCES, errno.EPERM):
            return StoreReadOnly(f"{store} cannot be written: check its permissions and its disk", store)
        if isinstance(error, MemoryError) or code == errno.ENOMEM:
            return TransactionTooLarge(
                f"the transaction touches more pages than the {MAX_LOCKS:,} that can be locked at once: split it"
            )
        if isinstance(error, db.DBOldVersionError) or code == errno.EINVAL:
            return UnsupportedStore(f"{store} was written by another version of Berkeley DB: {error}", store)
        where = f" (table {table})" if table else ""
        return StoreDamaged(
            f"the store {store} is damaged{where}: {error}; restore it from a backup (atop restore)",
            store,
            table,
        )

    # -- maintenance

    def _maintain(self) -> None:
        """Checkpoint and remove logs, once a second at most, while there is something to do."""
        while not self._closed:
            self._due.wait()
            self._due.clear()
            if self._closed:
                return
            try:
                if self.durability == "buffered":
                    self.flush(self.head.number)
                self.checkpoint(force=False)
            except AtopError as error:
                log.warning("checkpoint of %s failed: %s", self.path, error)
            deadline = time.monotonic() + MAINTENANCE_SECONDS
            while not self._closed and (left := deadline - time.monotonic()) > 0:
                time.sleep(min(left, 0.05))

    def checkpoint(self, force: bool = True) -> None:
        """Write the cache to the tables, and remove log files that are not needed any more."""
        flags = db.DB_FORCE if force else 0
        self._call("", lambda: self._env.txn_checkpoint(CHECKPOINT_KIB, CHECKPOINT_MINUTES, flags))
        if self._replication is None:
            self._call("", lambda: self._env.log_archive(db.DB_ARCH_REMOVE))
        else:
            self._call("", functools.partial(self._remove_logs, self._replication.log_needed()))

    def _remove_logs(self, needed: int) -> None:
        """Remove the log files before number `needed` that recovery has no use for."""
        for name in sorted(os.fsdecode(name) for name in self._env.log_archive()):
            if int(name.rpartition(".")[2]) >= needed:
                break
            (self.path / name).unlink(missing_ok=True)

    def oldest_commit(self) -> int:
        """The number of the oldest commit that the journal has; one past the head if it is empty."""
        first = self.pairs(JOURNAL, b"", b"\xff" * 9, 1)
        return int(unpack_u64(first[0][0])[0]) if first else self.head.number + 1

    def trim_journal(self, first: int, last: int, counters: dict[bytes, int]) -> None:
        """Remove the commits with these numbers from the journal, and count what they no longer hold."""

        def trim() -> None:
            txn = self._env.txn_begin()
            try:
                self._write(self._tables[JOURNAL], [(pack_u64(n), None) for n in range(first, last + 1)], txn)
                self._count(counters, txn)
            except BaseException:
                txn.abort()
                raise
            txn.commit()

        with self._write_lock:
            if not self._is_replica:  # the master's trimming gets here by itself
                self._call(JOURNAL, trim)

    def forget_commit_ids(self, cutoff: int) -> None:
        """Remove the ids of commits made before `cutoff` (microseconds) that the journal has no longer."""
        start, oldest = b"", self.oldest_commit()
        while pairs := self.pairs(COMMITS, start, b"\xff" * 9, 1_000):
            start = pairs[-1][0] + b"\0"
            gone: list[tuple[bytes, bytes | None]] = [
                (key, None)
                for key, value in pairs
                if unpack_u64(value)[0] < oldest and unpack_u64(value, 8)[0] < cutoff
            ]
            if gone:
                with self._write_lock:
                    if self._is_replica:
                        return
                    self._call(COMMITS, functools.partial(self._write_alone, COMMITS, gone))

    def _write_alone(self, table: str, operations: list[tuple[bytes, bytes | None]]) -> None:
        txn = self._env.txn_begin()
        try:
            self._write(self._tables[table], operations, txn)
        except BaseException:
            txn.abort()
            raise
        txn.commit()

    def compact(self) -> int:
        """Give empty pages back to the file system; returns how many bytes of disk that freed."""
        if self._is_replica:
            return 0  # the pages are the same on all devices: they are given back where the master does it
        before = self._size()
        for table in self._tables.values():
            self._call("", functools.partial(table.compact, flags=db.DB_FREE_SPACE))
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
        """A line for each table whose pages are damaged. Commits must be kept out meanwhile."""
        self.checkpoint()
        for name in TABLES:
            try:
                db.DB().verify(os.fspath(self.path / f"{name}.db"))
            except db.DBError as error:
                yield f"table {name}: its pages are damaged: {error}"

    def backup(self, target: Path) -> None:
        """Copy the database, as of some moment during the call, into the directory `target`."""
        self._call("", lambda: self._env.backup(os.fspath(target), db.DB_BACKUP_CLEAN))


def commit_id_of(journal_value: bytes) -> bytes:
    """The commit id, as 8 bytes, in a journal record."""
    return journal_value[CHAIN_SIZE : CHAIN_SIZE + 8]


def _suitable_cache() -> int:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(SMALLEST_CACHE, min(memory // 32, LARGEST_CACHE))
