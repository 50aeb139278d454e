"""One opening of a store's Berkeley DB environment: all that is peculiar about opening, failing and closing one.

Promises:
- What is open has been recovered; its log reaches as far as it was once known to; no table is missing.
- After `abandon` nothing is written any more, however the process ends. This matters: Berkeley DB, closed while its
  log cannot be written, writes pages whose log records are lost, and such a table cannot be opened again.
- Errors of Berkeley DB's, and the system's, come out as Atop's, with the table's name where there is one.

Never: an environment that is shared with another process, or settings that came with the files.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import stat
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from berkeleydb import db

from atop.disk import write_durably
from atop.errors import (
    AtopError,
    StoreDamaged,
    StoreError,
    StoreFull,
    StoreReadOnly,
    TransactionTooLarge,
    UnsupportedStore,
)
from atop.records import pack_u64, unpack_u64
from atop.replicated import Replication
from atop.writeset import CATALOG, INDEX, ITEMS, REFERENCES

log = logging.getLogger(__name__)

JOURNAL, COMMITS, COUNTERS = "journal", "commits", "counters"
TABLES = (ITEMS, INDEX, REFERENCES, JOURNAL, COMMITS, COUNTERS, CATALOG)
LOG = "log"  # stands for the log files where an error names a table

# The version of everything under data/. A store with a higher one is refused; one with a lower one is brought up.
FORMAT_VERSION = 1
FORMAT_KEY = b"\0format"

# What file systems and disks write as a whole. A larger page that a power failure, or a full disk, leaves half-written
# cannot be recovered: the log has what changed in a page, and needs the page to be the old one or the new.
PAGE_SIZE = 4096
LOG_BUFFER = 1 << 20
LOG_FILE = 16 << 20
# Locks that one transaction may hold, one for each page it touches: 100,000 items with four indexes in a store of many
# millions. Each lock that is held takes 270 bytes; the table itself is small because its size is set apart (in a file,
# the module has no call for it), where by default it would grow with the limit, to 80 MB.
MAX_LOCKS = 1_000_000
SETTINGS = b"set_lk_tablesize 65536\n"
# With less free space than this, in bytes, a recovery that fails has failed for want of it.
LITTLE_SPACE = 8 << 20

# What is written to the log, many times, to fill a file of it. Berkeley DB crashes when it is given far more at once.
FILLER = b"-" * 2_000
# What the transaction writes to the log that each checkpoint is made in.
CHECKPOINT_NOTE = b"checkpoint"

# The name of the file in local/ that says how far the log is known to reach.
MARK = "log-mark"

# What a commit looks like in the log: record type 10, transaction id, the transaction's record before, and 1.
_COMMIT_RECORD: Final = struct.Struct("=II8xI")
_COMMIT_TYPE, _COMMIT_CODE = 10, 1
# A file begins with 12 bytes of its own, then magic number and version, in the byte order of the machine. Versions past
# the latest that there may be are damage.
_HEADER: Final = struct.Struct("=12xII")
_LOG_MAGIC, _LOG_VERSION, _LATEST_LOG_VERSION = 0x040988, 19, 40
_BTREE_MAGIC, _BTREE_VERSIONS, _LATEST_BTREE_VERSION = 0x053162, (8, 9), 20

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)

Place = tuple[int, int]  # in the log: file number, offset


class Environment:
    """The tables of one store, open, and recovered if need be.

    Raises:
        StoreDamaged, StoreFull, StoreReadOnly, UnsupportedStore: it cannot be opened; the files are as they were, or
            as a recovery left them.
    """

    def __init__(self, data: Path, cache_size: int, replication: Replication | None = None) -> None:
        self.path = data
        self._replication = replication
        self._mark_path = data.parent / "local" / MARK
        self._checkpointed = time.monotonic()
        self.tables: dict[str, Any] = {}
        self.env: Any = None
        try:
            self.path.mkdir(mode=0o700, exist_ok=True)
            self._local = _directory(self._mark_path.parent)
            _check_plain(self.path)
            if self._local is not None:
                _check_plain(self._mark_path.parent)
            self._settle_settings()
            _check_versions(self.path)
            self._check_log()
            self.env = self._open_environment(cache_size)
            if replication is not None:
                self._mark_path.unlink(missing_ok=True)  # it may go back from here on, to follow another's history
                replication.start(self.env, self.path)
            self._open_tables()
            self.start = self.log_end()
        except (db.DBError, OSError, MemoryError) as error:
            self.abandon()
            raise self._why_not(error) from error
        except BaseException:
            self.abandon()
            raise

    # -- opening

    def _settle_settings(self) -> None:
        """Have DB_CONFIG say what it should: Berkeley DB obeys it, and it may have come with somebody's backup."""
        path = self.path / "DB_CONFIG"
        if path.is_symlink() or not path.is_file() or path.read_bytes() != SETTINGS:
            path.unlink(missing_ok=True)
            write_durably(path, SETTINGS)

    def _check_log(self) -> None:
        """Refuse a log that ends before where it is known to have reached: opening it would undo what is missing."""
        mark = self._read_mark()
        if mark is None:
            return
        end = log_end(self.path)
        if end is None or end < mark:
            raise StoreDamaged(
                f"the log of the store {self.path.parent} is damaged or incomplete: it should reach {mark} at least, "
                f"and can be read up to {end or 'nowhere'}; restore it from a backup (atop restore). If {self.path} "
                f"itself was put back from an older copy, remove {self._mark_path}",
                self.path.parent,
                LOG,
            )

    def _open_environment(self, cache_size: int) -> Any:
        env = db.DBEnv()
        env.set_cachesize(0, cache_size, 1)
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

    def _open_tables(self) -> None:
        """Open the tables; all of them are there, unless the store is new, or was new when its making broke off."""
        names = [CATALOG, *(name for name in TABLES if name != CATALOG)]
        is_replica = self._replication is not None and not self._replication.is_master
        complete = is_replica or (self.path / f"{CATALOG}.db").exists()
        if complete and self._format() is None:
            if is_replica:
                raise self._damaged("the copy has no format version: copy the store again", CATALOG)
            complete = False
        for name in names:
            if name not in self.tables:
                self.tables[name] = self.open_table(name, create=not complete)
        if complete:
            self._check_holes()
            return
        for name, table in self.tables.items():
            with cursor_over(table) as cursor:
                empty = cursor.first() is None
            if not empty:
                raise self._damaged(f"it holds records, and the table {CATALOG} says that it is new", name)
        txn = self.env.txn_begin()
        self.tables[CATALOG].put(FORMAT_KEY, pack_u64(FORMAT_VERSION), txn)
        txn.commit()

    def _format(self) -> int | None:
        """The format version, or None where the making of the store was not completed. Raises `UnsupportedStore`."""
        self.tables[CATALOG] = self.open_table(CATALOG, create=False)
        found = self.tables[CATALOG].get(FORMAT_KEY)
        if found is None:
            return None
        if len(found) != 8:
            raise self._damaged("its format version cannot be read", CATALOG)
        version: int = unpack_u64(found)[0]
        if version > FORMAT_VERSION:
            raise UnsupportedStore(
                f"the store {self.path.parent} has format {version}, and this version of Atop knows formats up to "
                f"{FORMAT_VERSION}: update Atop to open it",
                self.path.parent,
            )
        return version

    def open_table(self, name: str, *, create: bool) -> Any:
        """A handle for a table, which is there already, unless it is to be created."""
        table = db.DB(self.env)
        table.set_flags(db.DB_CHKSUM)
        table.set_pagesize(PAGE_SIZE)
        table.set_get_returns_none(2)
        flags = db.DB_AUTO_COMMIT | db.DB_THREAD | (db.DB_CREATE if create else 0)
        try:
            table.open(f"{name}.db", dbtype=db.DB_BTREE, flags=flags, mode=0o600)
        except (db.DBRepLockoutError, db.DBRepHandleDeadError):
            raise
        except db.DBNoSuchFileError as error:
            raise self._damaged(f"its file {name}.db is missing", name) from error
        except (db.DBError, MemoryError) as error:
            raise explained(error, self.path.parent, name) from error
        return table

    def _check_holes(self) -> None:
        """Refuse a table part of whose file the file system has lost: Berkeley DB would search in it for ever."""
        for name in TABLES:
            path = self.path / f"{name}.db"
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                size = os.fstat(fd).st_size
                whole = not size or os.lseek(fd, 0, os.SEEK_HOLE) >= size
            except OSError:
                whole = True  # this file system cannot tell
            finally:
                os.close(fd)
            if not whole and (problem := page_problem(path)) is not None:
                raise self._damaged(problem, name)

    def _why_not(self, error: BaseException) -> AtopError:
        """Why the environment does not open: of a recovery that fails, Berkeley DB does not say why."""
        if not isinstance(error, db.DBRunRecoveryError):
            return explained(error, self.path.parent)
        try:
            try_writing(self.path)
        except OSError as reason:
            return explained(reason, self.path.parent)
        if (problem := log_problem(self.path)) is not None:
            return self._damaged(problem, LOG)
        for name in TABLES:
            path = self.path / f"{name}.db"
            if path.exists() and (problem := page_problem(path)) is not None:
                return self._damaged(problem, name)
        return explained(error, self.path.parent)

    def _damaged(self, what: str, table: str) -> StoreDamaged:
        return damaged(self.path.parent, what, table)

    # -- the log

    def log_end(self) -> Place:
        """Where the next log record goes."""
        stat = self.env.log_stat()
        return stat["cur_file"], stat["cur_offset"]

    def checkpoint(self, kib: int = 0, minutes: int = 0) -> None:
        """Write the cache to the tables if so much was logged since, or so long ago; always, with neither."""
        if self._replication is not None and not self._replication.is_master:
            # A replica's checkpoints are the master's: Berkeley DB does nothing when it is asked for one.
            if not (kib or minutes):
                self.env.memp_sync()
        elif self._is_due(kib, minutes):
            with self._noted():
                self.env.txn_checkpoint(0, 0, db.DB_FORCE)
            self._checkpointed = time.monotonic()
        if self._replication is None:
            stat = self.env.log_stat()
            self._write_mark((stat["disk_file"], stat["disk_offset"]))
            self.env.log_archive(db.DB_ARCH_REMOVE)
        else:
            self._remove_logs(self._replication.log_needed())

    def _is_due(self, kib: int, minutes: int) -> bool:
        stat = self.env.log_stat()
        logged = (stat["wc_mbytes"] << 20) + stat["wc_bytes"]  # since the last one, but for what waits in memory
        late = time.monotonic() - self._checkpointed >= minutes * 60
        return logged >= kib << 10 or bool(late and logged)

    @contextlib.contextmanager
    def _noted(self) -> Iterator[None]:
        """Have a transaction in the block that has written to the log, and to nothing else.

        A recovery goes back to the first record of the oldest transaction that was open when the last checkpoint began.
        Berkeley DB 5.3 does not look at that record when it asks whether there is any transaction to undo or to redo
        (`__db_apprec`, pass 0): if none has a record after it, the change that it tells of, and that the checkpoint
        has written to its table, stays there, half a transaction. The note comes after it, and it is found.
        """
        begun: list[Any] = []
        try:
            begun.extend(map(self.env.txn_begin, (None,)))  # in one step, between which no interrupt can come
            self.env.log_printf(CHECKPOINT_NOTE, begun[0])
            yield
        finally:
            for transaction in begun:
                transaction.abort()

    def _remove_logs(self, needed: int) -> None:
        """Remove the log files before number `needed` that recovery has no use for."""
        for name in sorted(os.fsdecode(name) for name in self.env.log_archive()):
            if int(name.rpartition(".")[2]) >= needed:
                break
            try:
                (self.path / name).unlink(missing_ok=True)
            except OSError as error:  # they take room, and do no harm: the next checkpoint tries again
                log.warning("a log file of %s cannot be removed: %s", self.path, error)
                break

    def log_problem(self) -> str | None:
        """What is wrong with the log files, or None."""
        self.env.log_flush()
        stat = self.env.log_stat()
        return log_problem(self.path, (stat["disk_file"], stat["disk_offset"]))

    def renew_log(self) -> None:
        """Begin a new log file, and remove the ones before it, of which nothing is needed: the tables have it all."""
        file = self.log_end()[0]
        while self.log_end()[0] == file:
            self.env.log_printf(FILLER)
        self.checkpoint()

    def _read_mark(self) -> Place | None:
        try:
            file, offset = self._mark_path.read_text("ascii").split()
            return int(file), int(offset)
        except (OSError, ValueError):
            return None  # a crash may lose it: then what it would have found is found when it is met

    def _write_mark(self, place: Place) -> None:
        # Not flushed: an older mark, or none, promises less and is as true.
        new = self._mark_path.with_suffix(".new")
        with contextlib.suppress(OSError):
            if _directory(new.parent) != self._local:
                return  # the store was moved, and another one may be in its place
            new.touch(mode=0o600)
            new.write_text(f"{place[0]} {place[1]}\n", "ascii")
            new.replace(self._mark_path)

    # -- closing

    def close(self) -> None:
        """Write everything out and close. Raises why the log cannot be flushed; then what it lacks is given up."""
        try:
            self.env.log_flush()
        except db.DBError as error:
            self.abandon()
            raise explained(error, self.path.parent) from error
        try:
            self.checkpoint()
        except db.DBError as error:
            # Nothing is lost: the log has it all, and the next to open recovers from that.
            log.warning("closing %s without a checkpoint: %s", self.path, error)
            self.freeze()
        self._close_handles()

    def abandon(self) -> None:
        """Close without writing anything: what the log on the disk does not have is given up."""
        if self.env is not None:
            self.freeze()
            self._close_handles()

    def freeze(self) -> None:
        """Have nothing written any more, whoever uses or destroys the handles."""
        with contextlib.suppress(db.DBError):  # it is in that state already
            self.env.set_flags(db.DB_PANIC_ENVIRONMENT, 1)

    def _close_handles(self) -> None:
        if self._replication is not None:
            self._replication.stop()
        for table in self.tables.values():
            with contextlib.suppress(db.DBError):  # frozen, or failing: the log has what the tables lack
                table.close()
        with contextlib.suppress(db.DBError):
            self.env.close()


def explained(error: BaseException, store: Path, table: str | None = None) -> AtopError:
    """An error of Berkeley DB's, or the system's, about a store as one of ours."""
    if isinstance(error, AtopError):
        return error
    code = error.args[0] if error.args and isinstance(error.args[0], int) else 0
    # A backup says EPERM, and only in the text what it was; a cache whose pages cannot be written says ENOMEM.
    no_space = code in _NO_SPACE or any(os.strerror(reason) in str(error) for reason in _NO_SPACE)
    no_cache = "buffer cache" in str(error) and free_space(store) < LITTLE_SPACE
    if is_out_of_locks(error):
        return TransactionTooLarge(
            f"the transaction touches more pages than the {MAX_LOCKS:,} that can be locked at once: split it"
        )
    if isinstance(error, MemoryError) and not no_cache:
        return StoreError(f"there is not enough memory for {store}: {_told(error)}", store)
    if no_space or no_cache:
        return StoreFull(f"the disk of {store} is full: make room and try again", store)
    if code in (errno.EROFS, errno.EACCES, errno.EPERM):
        return StoreReadOnly(f"{store} cannot be written: check its permissions and its disk", store)
    if isinstance(error, db.DBOldVersionError) or re.search(r"unsupported \w+ version", str(error)):
        return UnsupportedStore(f"{store} was written by another version of Berkeley DB: {_told(error)}", store)
    if isinstance(error, OSError):
        return StoreError(f"{store} cannot be used: {error.strerror or error}", store)
    if "log files from a database environment" in str(error):
        return damaged(store, "the log ends before what the tables hold", LOG)
    named = [name for name in re.findall(r"(\w+)\.db\b", str(error)) if name in TABLES]
    return damaged(store, _told(error), named[-1] if named else table)


def damaged(store: Path, what: str, table: str | None) -> StoreDamaged:
    """The error that says so; `table` may be LOG."""
    where = "" if not table else " (the log)" if table == LOG else f" (table {table})"
    return StoreDamaged(
        f"the store {store} is damaged{where}: {what}; restore it from a backup (atop restore)", store, table or None
    )


def is_bystander(error: BaseException) -> bool:
    """Whether a call failed only because the environment had failed before."""
    return isinstance(error, db.DBRunRecoveryError) and "BDB0060" in str(error)


def is_out_of_locks(error: BaseException) -> bool:
    """Whether a call failed because the table of locks is full."""
    return isinstance(error, MemoryError) and "Lock table" in str(error)


def _directory(path: Path) -> tuple[int, int] | None:
    """What a directory is, whatever it is called; None if there is none."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def free_space(path: Path) -> int:
    """The bytes that may still be written to the disk that has `path`. Raises `StoreError` if that is gone."""
    try:
        status = os.statvfs(path)
    except OSError as error:
        raise explained(error, path) from error
    return status.f_bavail * status.f_frsize


def try_writing(data: Path) -> None:
    """Raise OSError if the files in `data` cannot be written, or no more than a little; because of a quota, say."""
    for path in data.iterdir():
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW))
    probe = data / "room.new"
    fd = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.posix_fallocate(fd, 0, LITTLE_SPACE)
    finally:
        os.close(fd)
        probe.unlink()


def page_problem(path: Path) -> str | None:
    """What is wrong with the pages of a table's file, or None. It reads all of the file."""
    try:
        db.DB().verify(os.fspath(path))
    except db.DBError as error:
        return f"its pages are damaged ({_told(error)})"
    return None


def _log_files(data: Path) -> list[Path]:
    return sorted(data.glob("log.??????????"))


@contextlib.contextmanager
def _log_alone(data: Path) -> Iterator[Any]:
    """The log files as a recovery would find them, to read: nothing in them, nor in the tables, is changed."""
    env = db.DBEnv()
    try:
        env.open(os.fspath(data), db.DB_CREATE | db.DB_PRIVATE | db.DB_INIT_LOG)
        env.set_get_returns_none(2)
        yield env
    finally:
        with contextlib.suppress(db.DBError):  # it has failed: that is what the caller is told
            env.close()


def log_end(data: Path) -> Place | None:
    """Where a recovery would find the end of the log files; None if there is no log to be found."""
    if not _log_files(data):
        return None
    try:
        with _log_alone(data) as env:
            stat = env.log_stat()
    except db.DBError:
        return None
    return stat["cur_file"], stat["cur_offset"]


def log_problem(data: Path, until: Place = (0, 0)) -> str | None:
    """What is wrong with the log files, which should reach `until` at least, or None. It reads all of them."""
    if not _log_files(data):
        return "its files are missing"
    try:
        with _log_alone(data) as env:
            cursor = env.log_cursor()
            record = cursor.first()
            while record is not None:
                record = cursor.next()
            cursor.close()
            stat = env.log_stat()
    except db.DBError as error:
        return f"its files are damaged ({_told(error)})"
    end = stat["cur_file"], stat["cur_offset"]
    return f"its files are damaged (they seem to end at {end}, before {until})" if end < until else None


def commits_in_log(data: Path, since: Place) -> set[int]:
    """The ids of the transactions whose commit is in the log files, after the place `since`, and on the disk.

    Raises:
        StoreDamaged, OSError: the log cannot be read, or not be flushed: what it has will be seen when it can.
    """
    found = set()
    try:
        with _log_alone(data) as env:
            cursor = env.log_cursor()
            record = cursor.last()
            while record is not None and record[0] >= since:
                if len(record[1]) >= _COMMIT_RECORD.size:
                    kind, transaction, code = _COMMIT_RECORD.unpack_from(record[1])
                    if kind == _COMMIT_TYPE and code == _COMMIT_CODE:
                        found.add(transaction)
                record = cursor.prev()
            cursor.close()
    except db.DBError as error:
        raise StoreDamaged(f"the log in {data} cannot be read: {_told(error)}", data.parent, LOG) from error
    for path in _log_files(data)[-2:]:  # what was written and not flushed is in one of these
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    return found


def _check_plain(directory: Path) -> None:
    """Refuse pipes and devices in the place of files: whoever opens one may wait for ever."""
    for path in directory.iterdir():
        kind = path.stat(follow_symlinks=False).st_mode
        if stat.S_ISFIFO(kind) or stat.S_ISCHR(kind) or stat.S_ISBLK(kind):
            raise StoreDamaged(
                f"the store {directory.parent} is damaged: {path} is no plain file; restore it from a backup "
                "(atop restore)",
                directory.parent,
                LOG,
            )


def _check_versions(data: Path) -> None:
    """Raise `UnsupportedStore` for files that another version of Berkeley DB, or another kind of machine, wrote.

    A recovery would not say so, but fail. What is neither ours nor another version's is damaged, and is left to it.
    """
    for path in _log_files(data)[-1:]:
        magic, version = _header(path)
        if int.from_bytes(magic.to_bytes(4, "little"), "big") == _LOG_MAGIC:
            raise _other(data, f"on a machine whose byte order is not {sys.byteorder}-endian")
        if magic == _LOG_MAGIC and version != _LOG_VERSION and version <= _LATEST_LOG_VERSION:
            raise _other(data, f"by another version of Berkeley DB (its logs have version {version})")
    for name in TABLES:
        magic, version = _header(data / f"{name}.db")
        if magic == _BTREE_MAGIC and version not in _BTREE_VERSIONS and version <= _LATEST_BTREE_VERSION:
            raise _other(data, f"by another version of Berkeley DB (the table {name} has version {version})")


def _header(path: Path) -> tuple[int, int]:
    """The magic number and the version that a file says it has; zeros if it says nothing."""
    try:
        with path.open("rb") as file:
            return _HEADER.unpack(file.read(_HEADER.size))
    except (FileNotFoundError, struct.error):
        return 0, 0


def _other(data: Path, how: str) -> UnsupportedStore:
    return UnsupportedStore(f"the store {data.parent} was written {how}: export its items there", data.parent)


@contextlib.contextmanager
def cursor_over(table: Any, txn: Any = None) -> Iterator[Any]:
    """A cursor; closed in the end, in such a way that the first error is the one that is seen."""
    cursor = table.cursor(txn)
    try:
        yield cursor
    except BaseException:
        close_quietly(cursor)
        raise
    cursor.close()


def close_quietly(cursor: Any) -> None:
    """Close a cursor because of an error that says more than what closing it might say."""
    with contextlib.suppress(db.DBError):
        cursor.close()


def _told(error: BaseException) -> str:
    """What Berkeley DB says, without the repetition of what it means."""
    text = str(error.args[1]) if len(error.args) > 1 else str(error)
    return text.rpartition(" -- ")[2]
