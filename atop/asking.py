"""Asking the process that owns a store: connections, what answers tell, and what happens when it goes.

Promises: what one thread learns with an answer, all know before the answer is used: objects in memory never show what
an answer has made old, and `sequence` moves. What the owner did not answer, because it died, is asked again of whoever
came after it. When the owner is gone, this process takes its place, or attaches to the one that did; callers wait
meanwhile.

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
from typing import Final, Protocol

from atop.database import Database, Head
from atop.errors import AtopError, StoreBusy, StoreClosed, StoreError
from atop.ids import Numbers
from atop.joining import Welcome, greet, join
from atop.owner import OwnerLock
from atop.passing import error_from, plain_from
from atop.records import pack_u64
from atop.wire import (
    COMMIT,
    ERROR,
    OK,
    PROGRESS,
    WAIT,
    Channel,
    News,
    WireError,
    pack_list,
    present,
    unpack_list,
    unpack_news,
)

log = logging.getLogger(__name__)

# How long a question waits in the kernel before it is seen whether the owner still lives, in seconds.
LOOK_SECONDS: Final = 1.0
# How often the owner says that it lives, in seconds, and how long it may be silent before calls fail.
NEWS_SECONDS, SILENCE_SECONDS = 2.0, 20.0
# How long it takes at least, in seconds, before taking over is tried again, where it failed.
RETRY_SECONDS: Final = 0.5
# How long an owner may say that it closes the store before it has, and how often it is asked meanwhile, in seconds.
CLOSING_SECONDS, CLOSING_PAUSE = 15.0, 0.02
# How often one owner may break off the connection on which it is asked one thing.
MAX_FAILURES: Final = 3
# Connections that are kept though no thread uses them.
IDLE_CONNECTIONS: Final = 8


class Succession(Protocol):
    """What the store does when its process becomes the owner."""

    def __call__(self, lock: OwnerLock) -> tuple[Database, Numbers]:
        """Open the database here, under the lock. Raises an AtopError: then the lock was released."""


class Asking:
    """One store's connections to its owner. The base of `AttachedDatabase`, which says what is asked.

    Args:
        local: the store's directory for what is this device's.
        asker: what tells this store, here, from all others: see `wire`.
        welcome: the first connection, as `join` returned it.
        succeed: called when this process becomes the owner.
        is_same: whether there is still the same store where it was opened.
        patient: whether to let others take over first: those that have what this process lacks.
    """

    def __init__(
        self,
        local: Path,
        asker: bytes,
        welcome: Welcome,
        succeed: Succession,
        is_same: Callable[[], bool],
        patient: bool,
    ) -> None:
        self.on_recovery: Callable[[], None] = lambda: None
        self.on_applied: Callable[[list[int]], None] = lambda item_ids: None
        self.on_news: Callable[[], None] = lambda: None  # called when there may be commits that watchers have not seen
        self.silence_seconds = SILENCE_SECONDS
        self._local = local
        self._asker = asker
        self._succeed = succeed
        self._is_same = is_same
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
        deadline = 0.0
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
            except _OwnerClosesError as closing:
                self._release(line)
                deadline = deadline or time.monotonic() + CLOSING_SECONDS
                if time.monotonic() > deadline:
                    raise closing.error from None
                time.sleep(CLOSING_PAUSE)
                if again is not None:
                    body = pack_list(again)
                continue
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
            error = error_from(found)
            raise _OwnerClosesError(error) if isinstance(error, StoreClosed) else error
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
                    self._forget(None if news.forget else news.changed)
                    if applied is not None:
                        applied()
                    self._position = news.position  # not if this was broken off: then it is told again
                finally:
                    self._sequence = (self._sequence | 1) + 1
            elif applied is not None and news.position == self._position:
                applied()  # another thread was told of this commit first, and of none after it
        if fresh:
            self.on_news()

    def _forget(self, item_ids: Sequence[int] | None) -> None:
        """These items have been changed; with None, whatever was read may be wrong."""
        if item_ids is None:
            self.on_recovery()
        else:
            self.on_applied(list(item_ids))

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
                self._forget(None)
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
            if not self._is_same():
                raise self._replaced(None)
            found = join(
                self._local, self._asker, patient=self._patient and lost.replicated, stopped=lambda: self._leaving
            )
            try:
                if not self._is_same():
                    raise self._replaced(found)
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

    def _replaced(self, found: Welcome | OwnerLock | None) -> StoreError:
        """The error for another store in the place of this one, to which `found` has led."""
        if isinstance(found, Welcome):
            found.channel.close()
        elif found is not None:
            found.release()
        store = self._local.parent
        return StoreError(
            f"the store {store} was moved, or replaced by another, while it was open: open it again", store
        )

    def _become_owner(self, lock: OwnerLock) -> None:
        successor = self._succeed(lock)
        with self._state:
            if self._closed is not None:
                raise copy.copy(self._closed)
            self._sequence += 1
            self._successor = successor
            self._forget(None)
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


class _OwnerClosesError(Exception):
    """The owner is about to go: what was asked is asked again of the next one."""

    def __init__(self, error: StoreClosed) -> None:
        super().__init__(error)
        self.error = error


class _Line:
    """A connection to the owner, for one thread at a time."""

    def __init__(self, database: Asking, welcome: Welcome, channel: Channel) -> None:
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
