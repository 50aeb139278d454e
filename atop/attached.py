"""The database of a store that another process owns: asks that process.

Promises: to all that stands above, it is as the engine is (see `database`). What one thread learns with an answer,
all know before the answer is used: objects in memory never show what an answer has made old, and `sequence` moves.
A commit that the owner answered for is as durable as it said; one that it did not answer for, because it died, is
asked for again, and is applied once: its id decides. When the owner is gone, this process takes its place, or attaches
to the one that did; callers wait meanwhile, and notice nothing else.

Never: a file of the database opened, a lock on it held, a decision that the owner would have made otherwise.

Each thread that asks has a connection of its own while it does. One more thread waits for news, and for the end of
the owner.
"""

from __future__ import annotations

import copy
import logging
import struct
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from atop.database import Database, Durability, Head
from atop.environment import COUNTERS, JOURNAL
from atop.errors import (
    AtopError,
    StoreBusy,
    StoreClosed,
    StoreError,
    TransactionTooLarge,
)
from atop.ids import Numbers
from atop.joining import Welcome, greet, join
from atop.owner import OwnerLock
from atop.passing import error_from, plain_from, plain_to, write_set_to
from atop.records import pack_u64, unpack_u64
from atop.wire import (
    ASK,
    CHECK,
    COMMIT,
    ERROR,
    GET,
    GET_ITEMS,
    KEYS_ONLY,
    LEASE,
    MAX_FRAME,
    OK,
    PAIRS,
    POSITION,
    PROGRESS,
    RETURN,
    REVERSE,
    WAIT,
    Channel,
    News,
    WireError,
    pack_list,
    present,
    unpack_list,
    unpack_news,
)
from atop.writeset import CATALOG, WriteSet

log = logging.getLogger(__name__)

# How long a question waits in the kernel before it is seen whether the owner still lives, in seconds.
LOOK_SECONDS: Final = 1.0
# How often the owner says that it lives, in seconds, and how long it may be silent before calls fail.
NEWS_SECONDS, SILENCE_SECONDS = 2.0, 20.0
# How long it takes at least, in seconds, before taking over is tried again, where it failed.
RETRY_SECONDS: Final = 0.5
# How often one owner may break off the connection on which it is asked one thing.
MAX_FAILURES: Final = 3
# Connections that are kept though no thread uses them.
IDLE_CONNECTIONS: Final = 8
# The most bytes of records that are kept to be asked about by their version.
CACHE_SIZE: Final = 16 << 20

END = b"\xff" * 9


class Succession(Protocol):
    """What the store does when its process becomes the owner."""

    def __call__(self, lock: OwnerLock) -> tuple[Database, Numbers]:
        """Open the database here, under the lock. Raises an AtopError: then the lock was released."""


class AttachedDatabase:
    """The database of one store, by way of the process that owns it. Every method may be called by any thread.

    Args:
        local: the store's directory for what is this device's.
        asker: what tells this store, here, from all others: see `wire`.
        welcome: the first connection, as `join` returned it.
        succeed: called when this process becomes the owner.
        patient: whether to let others take over first: those that have what this process lacks.
    """

    def __init__(
        self, local: Path, asker: bytes, welcome: Welcome, durability: Durability, succeed: Succession, patient: bool
    ) -> None:
        self.on_recovery: Callable[[], None] = lambda: None
        self.on_applied: Callable[[list[int]], None] = lambda item_ids: None
        self.on_news: Callable[[], None] = lambda: None  # called when there may be commits that watchers have not seen
        self.silence_seconds = SILENCE_SECONDS
        self._local = local
        self._asker = asker
        self._durability: Durability = durability
        self._succeed = succeed
        self._patient = patient
        self._closed: StoreClosed | None = None
        self._leaving = False  # whether this process will close the store next, and is not to own it any more
        self._successor: tuple[Database, Numbers] | None = None
        self._failure: AtopError | None = None  # why this process could not take over, when it tried last
        self._retry_at = 0.0
        # Taken, in this order, to find the owner; to learn what it says.
        self._joining = threading.RLock()
        self._state = threading.RLock()
        self._welcome = welcome
        self._sequence = 2
        self._position = self._settled = self._last_time = 0
        self._head = Head(0, b"")
        self._heard = 0.0  # when the owner last said that it lives
        self._records = Records(CACHE_SIZE)
        self._idle: list[_Line] = []
        self._busy: set[_Line] = set()
        self._adopt(welcome)
        self._listener: threading.Thread | None = None

    def start(self) -> None:
        """Hear of news from now on."""
        self._listener = threading.Thread(target=self._listen, name="atop-news", daemon=True)
        self._listener.start()

    # -- what is known

    @property
    def sequence(self) -> int:
        """Moves when this process learns of commits; odd while it does."""
        return self._sequence if self._successor is None else self._successor[0].sequence

    @property
    def head(self) -> Head:
        """The end of the journal, as it is now."""
        self._ask(WAIT, [struct.pack(">QI", 0, 0)])
        return self._head if self._successor is None else self._successor[0].head

    @property
    def last_time(self) -> int:
        """The time of the last commit that this process knows of."""
        return self._last_time if self._successor is None else self._successor[0].last_time

    @property
    def owner_pid(self) -> int | None:
        """The process that owns the store; None if that is this one."""
        return self._welcome.pid if self._successor is None else None

    def settled(self) -> int:
        """The number up to which commits are known to outlive a crash."""
        return self._settled if self._successor is None else self._successor[0].settled()

    def quiet_sequence(self) -> int | None:
        """The sequence, or None while a commit is being learnt of."""
        sequence = self.sequence
        return None if sequence & 1 else sequence

    def wait_applied(self) -> None:
        """Return when what is being learnt of is."""
        if self._successor is not None:
            self._successor[0].wait_applied()
            return
        with self._state:
            return

    # -- reading

    def get(self, table: str, key: bytes) -> bytes | None:
        """The value of a key as committed, or None."""
        answer = self._ask(GET, [table.encode(), key])
        return answer[0] if answer is not None else self._next.get(table, key)

    def get_item(self, key: bytes) -> bytes | None:
        """The record of an item, or None."""
        return self.get_items([key])[0]

    def get_items(self, keys: list[bytes]) -> list[bytes | None]:
        """The records of several items, None where there is none."""
        found: list[bytes | None] = []
        known = self._records.known(keys)
        while len(found) < len(keys):
            wanted = [
                key + (record[:8] if record is not None else bytes(8))
                for key, record in zip(keys[len(found) :], known[len(found) :], strict=True)
            ]
            answer = self._ask(GET_ITEMS, wanted)
            if answer is None:
                return self._next.get_items(keys)
            if not answer or len(answer) > len(wanted):
                raise self._misspoken()
            for record in answer:
                at = len(found)
                found.append(record if record != b"" else known[at])
                if record:
                    self._records.keep(keys[at], record)
        return found

    def version(self, item_id: int) -> int | None:
        """The version of an item as committed, or None if there is no such item."""
        record = self.get_item(pack_u64(item_id))
        return unpack_u64(record)[0] if record is not None else None

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
        if limit <= 0:
            return []
        asked = struct.pack(">IB", limit, KEYS_ONLY | (REVERSE if reverse else 0))
        answer = self._ask(PAIRS, [table.encode(), start, stop, asked])
        return self._next.keys(table, start, stop, limit, reverse) if answer is None else present(answer)

    def pairs(
        self, table: str, start: bytes, stop: bytes, limit: int, reverse: bool = False
    ) -> list[tuple[bytes, bytes]]:
        """Up to `limit` (key, value) pairs with keys in [start, stop), from the first on, or from the last back."""
        found: list[tuple[bytes, bytes]] = []
        while len(found) < limit:
            asked = struct.pack(">IB", limit - len(found), REVERSE if reverse else 0)
            answer = self._ask(PAIRS, [table.encode(), start, stop, asked])
            if answer is None:
                return self._next.pairs(table, start, stop, limit, reverse)
            flat = present(answer)
            if not flat:
                break
            found += zip(flat[::2], flat[1::2], strict=True)
            start, stop = (start, found[-1][0]) if reverse else (found[-1][0] + b"\0", stop)
        return found

    def position(self, table: str, key: bytes) -> float:
        """About which part of a table's keys is less than `key`: 0 to 1."""
        answer = self._ask(POSITION, [table.encode(), key])
        if answer is None:
            return self._next.position(table, key)
        return float(struct.unpack(">d", present(answer, 1)[0])[0])

    def check_reads(self, versions: dict[int, int], names: dict[str, int | None]) -> None:
        """Raise `Conflict` unless, at one moment, all these items have these versions and names stand for these."""
        numbers = [number for pair in versions.items() for number in pair]
        stand: list[bytes | None] = []
        for name, item_id in names.items():
            stand += (name.encode(), None if item_id is None else pack_u64(item_id))
        if self._ask(CHECK, [struct.pack(f">{len(numbers)}Q", *numbers), *stand]) is None:
            self._next.check_reads(versions, names)

    def oldest_commit(self) -> int:
        """The number of the oldest commit that the journal has; one past the head if it is empty."""
        first = self.keys(JOURNAL, b"", END, 1)
        return int(unpack_u64(first[0])[0]) if first else self.head.number + 1

    # -- committing

    def commit(
        self,
        write_set: WriteSet,
        before: Callable[[], None] | None = None,
        applied: Callable[[], None] | None = None,
    ) -> int:
        """Have a WriteSet applied, once; returns its commit number.

        `before` is for the owner, who checks for itself. `applied` is called in the moment in which this process
        learns of the commit, unless a later one may have come before that.
        """
        with self._state:
            position = self._position if write_set.base == self._sequence else 0
        # What is asked again after a failure may have been applied: then it is the id that must be looked at.
        elements = write_set_to(write_set, self._durability, position)
        size = sum(len(element) for element in elements if element is not None)
        if size > MAX_FRAME - 1_024:
            raise TransactionTooLarge(
                f"{write_set.label!r} writes {size:,} bytes; {MAX_FRAME:,} can be sent to the process that has the "
                "store open: split it"
            )
        again = write_set_to(write_set, self._durability, 0) if position else None
        answer = self._ask(COMMIT, elements, again, applied)
        if answer is None:
            write_set.base = None
            return self._next.commit(write_set, before, applied)
        return int.from_bytes(present(answer, 2)[0])

    def lease(self, kind: str, count: int) -> tuple[int, int]:
        """Numbers that are this process's alone, from the first up to the second."""
        answer = self._ask(LEASE, [kind.encode(), struct.pack(">I", count)])
        if answer is None:
            return self._successor[1].lease(kind, count)  # type: ignore[index]  # there is one
        first, end = present(answer, 2)
        return int.from_bytes(first), int.from_bytes(end)

    def give_back(self, kind: str, first: int, end: int) -> None:
        """Numbers of a lease that will not be used. Raises AtopError if nobody takes them."""
        if self._ask(RETURN, [kind.encode(), struct.pack(">QQ", first, end)]) is None:
            self._successor[1].take_back(kind, first, end)  # type: ignore[index]  # there is one

    def call(self, name: str, arguments: dict[str, Any], progress: Callable[..., object] | None) -> tuple[Any] | None:
        """What the owner's call of this name returns, in a tuple; None if this process is the owner now."""
        answer = self._ask(ASK, [name.encode(), plain_to(arguments, f"an argument of {name!r}")], progress=progress)
        return None if answer is None else (plain_from(present(answer, 1)[0]),)

    # -- questions and answers

    @property
    def _next(self) -> Database:
        """The database, where this process has become the owner."""
        if self._successor is None:
            raise self.closed_error()
        return self._successor[0]

    def _ask(
        self,
        kind: int,
        elements: Sequence[bytes | None],
        again: Sequence[bytes | None] | None = None,
        applied: Callable[[], None] | None = None,
        progress: Callable[..., object] | None = None,
    ) -> list[bytes | None] | None:
        """The owner's answer, or None if this process is the owner; `again` is what to ask after a failure."""
        body = pack_list(elements)
        failures: dict[bytes, int] = {}  # by owner
        while self._successor is None:
            line = self._line()
            if line is None:
                break
            try:
                answer = self._exchange(line, kind, body, applied, progress)
            except (OSError, EOFError) as error:
                self._drop(line)
                instance = line.welcome.instance
                failures[instance] = failures.get(instance, 0) + 1
                if failures[instance] > MAX_FAILURES:
                    raise self._misspoken() from error
                if again is not None:
                    body = pack_list(again)
                continue
            except WireError as error:
                self._drop(line)
                raise self._misspoken() from error
            except BaseException:
                if not line.quiet:
                    self._drop(line)  # its answer is yet to come
                else:
                    self._release(line)
                raise
            self._release(line)
            return answer
        return None

    def _exchange(
        self,
        line: _Line,
        kind: int,
        body: bytes,
        applied: Callable[[], None] | None,
        progress: Callable[..., object] | None,
    ) -> list[bytes | None]:
        line.quiet = False
        line.looks = 0
        line.channel.send(kind, pack_u64(self._position), body)
        while True:
            answered, data = line.channel.receive(waiting=line.look)
            if answered != PROGRESS:
                break
            if progress is not None:
                progress(*plain_from(present(unpack_list(data), 1)[0]))
        line.quiet = True
        if answered not in (OK, ERROR):
            raise WireError("an answer is none")
        news, end = unpack_news(data)
        found = unpack_list(data, end)
        own = applied if answered == OK and kind == COMMIT and found[1:] == [b"own"] else None
        self._hear(line, news, own)
        if answered == ERROR:
            raise error_from(found)
        return found

    def _hear(self, line: _Line, news: News, applied: Callable[[], None] | None = None) -> None:
        """Learn what an answer tells."""
        if news.position == self._position and news.settled == self._settled and not news.forget and applied is None:
            return
        with self._state:
            if line.welcome is not self._welcome:
                return  # of an owner that is gone
            fresh = news.settled > self._settled
            self._settled = max(self._settled, news.settled)
            if news.position > self._position:
                fresh = True
                try:
                    self._sequence |= 1
                    self._head, self._last_time = Head(news.number, news.chain), max(self._last_time, news.time)
                    if news.forget:
                        self._settled = news.settled
                        self._records.clear()
                        self.on_recovery()
                    else:
                        self._records.drop(news.changed)
                        self.on_applied(list(news.changed))
                    if applied is not None:
                        applied()
                    self._position = news.position  # not if this was broken off: then it is told again
                finally:
                    self._sequence = (self._sequence | 1) + 1
            elif applied is not None and news.position == self._position:
                applied()  # another thread was told of this commit first, and of none after it
        if fresh:
            self.on_news()

    def _misspoken(self) -> StoreError:
        return StoreError(
            f"process {self._welcome.pid}, which has the store {self._local.parent} open, does not answer as it "
            "should: close it there, and try again",
            self._local.parent,
        )

    # -- connections

    def _line(self) -> _Line | None:
        """A connection to the owner, for this thread alone; None if this process is the owner."""
        while True:
            with self._state:
                if self._closed is not None:
                    raise copy.copy(self._closed)
                if self._successor is not None:
                    return None
                welcome = self._welcome
                if self._idle:
                    line = self._idle.pop()
                    self._busy.add(line)
                    return line
            try:
                greeted = greet(self._local, self._asker)
            except (OSError, EOFError, WireError):
                self._rejoin(welcome)
                continue
            with self._state:
                if self._closed is None and welcome is self._welcome and greeted.instance == welcome.instance:
                    line = _Line(self, welcome, greeted.channel)
                    self._busy.add(line)
                    return line
            greeted.channel.close()
            if greeted.instance != welcome.instance:
                self._rejoin(welcome)

    def _release(self, line: _Line) -> None:
        with self._state:
            self._busy.discard(line)
            if line.welcome is self._welcome and self._closed is None and len(self._idle) < IDLE_CONNECTIONS:
                self._idle.append(line)
                return
        line.channel.close()

    def _drop(self, line: _Line) -> None:
        with self._state:
            self._busy.discard(line)
        line.channel.close()

    def _adopt(self, welcome: Welcome) -> None:
        """This is the owner now: all that the last one said may be wrong."""
        with self._state:
            news = welcome.news
            for line in self._idle:
                line.channel.close()
            self._idle.clear()
            self._heard = time.monotonic()
            try:
                self._sequence |= 1
                self._position, self._settled = news.position, news.settled
                self._head, self._last_time = Head(news.number, news.chain), news.time
                self._records.clear()
                self.on_recovery()
                self._idle.append(_Line(self, welcome, welcome.channel))
                self._welcome = welcome  # not if this was broken off: then it is done again
            finally:
                self._sequence = (self._sequence | 1) + 1

    def _rejoin(self, lost: Welcome) -> None:
        """The owner `lost` cannot be reached: find the one that has come after it, or become it."""
        with self._joining:
            if lost is not self._welcome or self._successor is not None:
                return
            if self._leaving or self._closed is not None:
                raise self.closed_error()
            if self._failure is not None and time.monotonic() < self._retry_at:
                raise copy.copy(self._failure)
            found = join(
                self._local, self._asker, patient=self._patient and lost.replicated, stopped=lambda: self._leaving
            )
            try:
                if isinstance(found, Welcome):
                    if found.instance != lost.instance:
                        log.info("attached to process %d, which has taken over %s", found.pid, self._local.parent)
                        self._adopt(found)
                    else:
                        found.channel.close()
                    self._failure = None
                    return
                self._become_owner(found)
            except AtopError as error:
                self._failure, self._retry_at = error, time.monotonic() + RETRY_SECONDS
                raise
        self.on_news()

    def _become_owner(self, lock: OwnerLock) -> None:
        successor = self._succeed(lock)
        with self._state:
            if self._closed is not None:
                raise copy.copy(self._closed)
            self._sequence += 1
            self._successor = successor
            self._records.clear()
            self._failure = None
            for line in (*self._idle, *self._busy):
                line.channel.break_off()
            self._idle.clear()

    def _listen(self) -> None:
        """Wait for news, and for the end of the owner; returns when this process is the owner, or has closed."""
        line: _Line | None = None
        trouble = ""
        while self._closed is None and self._successor is None:
            try:
                line = self._line()
                if line is None:
                    return
                while line.welcome is self._welcome:
                    asked = struct.pack(">QI", self._settled, int(NEWS_SECONDS * 1000))
                    line.looks = -1  # this is the one that waits as long as it takes
                    self._exchange_news(line, asked)
                    self._heard = time.monotonic()
                self._drop(line)
            except (OSError, EOFError, WireError):
                if line is not None:
                    self._drop(line)
            except StoreClosed:
                return
            except AtopError as error:
                if str(error) != trouble:  # it is tried again every moment, and told once
                    log.warning("%s has lost its owner: %s", self._local.parent, error)
                trouble = str(error)
                time.sleep(RETRY_SECONDS)

    def _exchange_news(self, line: _Line, asked: bytes) -> None:
        line.channel.send(WAIT, pack_u64(self._position), pack_list([asked]))
        answered, data = line.channel.receive(waiting=line.look)
        if answered != OK:
            raise WireError("an answer is none")
        self._hear(line, unpack_news(data)[0])

    def check_alive(self, line: _Line) -> None:
        """Raise `StoreBusy` if the owner has said nothing for long."""
        if time.monotonic() - self._heard > self.silence_seconds:
            raise StoreBusy(
                f"process {line.welcome.pid}, which has the store {self._local.parent} open, does not answer: it is "
                "stopped, or hangs; whether what was being committed is kept will be seen when it goes on",
                self._local.parent,
                line.welcome.pid,
            )

    # -- the end

    def closed_error(self) -> StoreClosed:
        """The error for a store that is closed, or was never this process's."""
        store = self._local.parent
        return copy.copy(self._closed) if self._closed else StoreClosed(f"the store {store} is closed", store)

    def leave(self) -> None:
        """Do not take over any more: the store will be closed."""
        self._leaving = True

    def close(self) -> None:
        """Leave the owner alone. May be called again."""
        self._leaving = True
        with self._state:
            if self._closed is None:
                self._closed = StoreClosed(f"the store {self._local.parent} is closed", self._local.parent)
            lines = [*self._idle, *self._busy]
            self._idle.clear()
        for line in lines:
            line.channel.break_off()
        if self._listener is not None and self._listener is not threading.current_thread():
            self._listener.join(LOOK_SECONDS * 2)

    def disown(self) -> None:
        """In a forked child: leave the connections to the parent."""
        store = self._local.parent
        self._closed = StoreClosed(f"the store {store} is open in the process that this one was forked from", store)
        self._joining, self._state = threading.RLock(), threading.RLock()
        for line in (*self._idle, *self._busy):
            line.channel.close()


class _Line:
    """A connection to the owner, for one thread at a time."""

    def __init__(self, database: AttachedDatabase, welcome: Welcome, channel: Channel) -> None:
        self._database = database
        self.welcome = welcome
        self.channel = channel
        self.quiet = True  # whether nothing is being asked
        self.looks = 0  # how often the answer was not there yet; negative where that does not matter
        channel.set_timeout(LOOK_SECONDS)

    def look(self) -> None:
        """The answer is not there yet: raise `StoreBusy` if it may never be, StoreClosed if nobody wants it."""
        if self._database._closed is not None:
            raise self._database.closed_error()
        if self.looks >= 0:
            self.looks += 1
            if self.looks > 2:  # the thread that hears the owner has had time to
                self._database.check_alive(self)


class Records:
    """Records of items as they were last, up to so many bytes. May be used by any thread."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._records: dict[bytes, bytes] = {}
        self._bytes = 0
        self._lock = threading.Lock()

    def known(self, keys: list[bytes]) -> list[bytes | None]:
        """What is known of the items with these keys."""
        get = self._records.get
        return [get(key) for key in keys]

    def keep(self, key: bytes, record: bytes) -> None:
        """Remember a record; those that were remembered first make room for it."""
        with self._lock:
            old = self._records.pop(key, None)
            self._records[key] = record
            self._bytes += len(record) - len(old or b"")
            while self._bytes > self._size:
                first = next(iter(self._records))
                self._bytes -= len(self._records.pop(first))

    def drop(self, item_ids: Sequence[int]) -> None:
        """Forget the records of these items."""
        with self._lock:
            for item_id in item_ids:
                gone = self._records.pop(pack_u64(item_id), None)
                self._bytes -= len(gone or b"")

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._records.clear()
            self._bytes = 0


__all__ = ["AttachedDatabase", "Records"]
