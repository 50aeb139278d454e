"""The owner's side of sharing a store: answers the processes that are attached to it.

Promises: the socket is this user's alone, and so is every process that is answered. An answer is the state at one
position (see `wire`). A process that stops reading, or sends what is no question, costs one thread and one frame's
memory until it is cut off; nobody else waits for it. What it wrote into its socket before it died is done or not, once.

Each connection has a thread, which spends its time waiting in the kernel. With nobody attached there is one thread,
which waits for a connection, and commits cost nothing more than without it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
import struct
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from atop.changes import Changes
from atop.engine import TABLES, Engine
from atop.errors import AtopError, StoreError, UnsafePickle
from atop.owner import SOCKET_NAME, is_ours, listen
from atop.passing import error_to, plain_from, plain_to, write_set_from
from atop.records import unpack_u64
from atop.wire import (
    ASK,
    CHECK,
    COMMIT,
    ERROR,
    GET,
    GET_ITEMS,
    HELLO,
    KEYS_ONLY,
    LEASE,
    MAX_HELLO,
    OK,
    PAIRS,
    POSITION,
    PROGRESS,
    REFUSED,
    RETURN,
    REVERSE,
    VERSION,
    WAIT,
    Channel,
    News,
    WireError,
    pack_list,
    pack_news,
    present,
    unpack_hello,
    unpack_list,
)
from atop.writeset import ITEMS, WriteSet

if TYPE_CHECKING:
    from atop.store import Store

log = logging.getLogger(__name__)

T = TypeVar("T")

# Connections at once: a process needs one, and one more for each thread that uses the store at the same time.
MAX_CONNECTIONS: Final = 512
# How long a stranger may take to say hello, and anybody to read an answer, in seconds.
HELLO_SECONDS, SEND_SECONDS = 5.0, 20.0
# How long closing waits for what is being answered, in seconds.
PATIENCE: Final = 5.0
# How often reading is tried beside commits before it keeps them waiting.
TRIES: Final = 4
# How many bytes of records one answer has: the rest is asked for again.
MAX_ANSWER: Final = 32 << 20
# The longest that WAIT waits, in seconds: an owner that says nothing for much longer than that is stopped, or hangs.
LONGEST_WAIT: Final = 60.0

_item = struct.Struct(">QQ")
_limit = struct.Struct(">IB")


class Server:
    """Answers other processes, until it is closed. One for each store that this process owns."""

    def __init__(self, store: Store, engine: Engine, local: Path) -> None:
        self._store = store
        self._engine = engine
        self._local = local
        self._instance = secrets.token_bytes(8)
        self._changes = Changes()
        self._news = threading.Condition()
        self._connections: set[_Connection] = set()
        self._askers: weakref.WeakValueDictionary[bytes, _Asker] = weakref.WeakValueDictionary()
        self._closing = False
        self._listener = listen(local)
        _all.add(self)
        self._thread = threading.Thread(target=self._accept, name="atop-attach", daemon=True)
        self._thread.start()

    # -- what has happened

    def changed(self, item_ids: list[int] | None) -> None:
        """These items were changed by what is being applied; None says that nothing read before may hold."""
        if self._connections:
            self._changes.add(item_ids)

    def notify(self) -> None:
        """There is news for those who wait."""
        if self._connections:
            with self._news:
                self._news.notify_all()

    def _committed(self, write_set: WriteSet) -> None:
        self._changes.add([unpack_u64(key)[0] for key, _ in write_set.operations.get(ITEMS, ())])

    # -- connections

    def _accept(self) -> None:
        while True:
            try:
                connected, _ = self._listener.accept()
            except OSError:
                if self._closing:
                    return
                time.sleep(0.1)  # no file descriptors are left: some may be, in a moment
                continue
            if not is_ours(connected) or len(self._connections) >= MAX_CONNECTIONS:
                connected.close()
                continue
            connection = _Connection(self, connected)
            with self._news:
                if self._closing:
                    connected.close()
                    return
                if not self._connections:
                    self._changes.add(None)  # what was committed while nobody was attached has not been noted
                self._connections.add(connection)
                # From the first connection on, commits are noted. One that is under way is seen by `exact`.
                self._engine.on_commit = self._committed
            connection.start()

    def _end(self, connection: _Connection) -> None:
        with self._news:
            self._connections.discard(connection)
            if not self._connections:
                self._engine.on_commit = None

    def close(self) -> None:
        """Answer nobody any more: what is being answered, still is, within reason."""
        with self._news:
            self._closing = True
            connections = list(self._connections)
            self._news.notify_all()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread
        self._listener.close()
        with contextlib.suppress(OSError):
            (self._local / SOCKET_NAME).unlink()
        deadline = time.monotonic() + PATIENCE
        for connection in connections:
            connection.channel.finish()
        for connection in connections:
            if connection is not threading.current_thread():  # else a call that it performs has closed the store
                connection.join(max(0.0, deadline - time.monotonic()))
                connection.channel.break_off()
        self._thread.join(PATIENCE)

    def disown(self) -> None:
        """In a forked child: leave the connections to the parent."""
        self._listener.close()
        for connection in self._connections:
            connection.channel.close()

    # -- answers

    def exact(self, read: Callable[[], T]) -> tuple[T, int]:
        """What `read` returns for the state at one position, and that position."""
        engine, changes = self._engine, self._changes
        for attempt in range(TRIES):
            sequence, position = engine.sequence, changes.position
            if sequence & 1:
                time.sleep(0.000_05 * attempt)
                continue
            found = read()
            if engine.sequence == sequence and changes.position == position:
                return found, position
        with engine.no_commits():
            while True:
                position = changes.position
                found = read()
                if changes.position == position:  # a recovery does not wait
                    return found, position

    def news(self, known: int, position: int) -> bytes:
        """What whoever knows position `known` has to be told with an answer at `position`."""
        engine = self._engine
        changed = self._changes.between(known, position)
        head = engine.head
        return pack_news(
            News(position, head.number, engine.settled(), engine.last_time, head.chain, changed is None, changed or ())
        )

    def wait(self, asker: _Asker, known: int, settled: int, seconds: float) -> None:
        """Return when there is news for an asker that knows so much, or after so many seconds."""
        deadline = time.monotonic() + min(seconds, LONGEST_WAIT)
        with self._news:
            while (
                self._changes.position <= max(known, asker.position)
                and self._engine.settled() <= max(settled, asker.settled)
                and not self._closing
                and (left := deadline - time.monotonic()) > 0
            ):
                self._news.wait(left)

    def commit(self, asker: _Asker, elements: list[bytes | None]) -> tuple[int, int | None]:
        """Apply a commit; returns its number, and its position, unless it was made before or by another device."""
        write_set, durability, position = write_set_from(elements)
        store, engine, changes = self._store, self._engine, self._changes
        sequence = engine.sequence
        if not sequence & 1 and changes.position == position and engine.sequence == sequence:
            write_set.base = sequence
        own: int | None = None

        def applied() -> None:
            nonlocal own
            own = asker.position = changes.position
            store._objects.forget([unpack_u64(key)[0] for key, _ in write_set.operations[ITEMS]])

        with store._pins.held(write_set.files):
            number = engine.commit(write_set, store._file_check(write_set), applied, durability)
        asker.settled = engine.settled()
        store._notify()
        return number, own

    def asker(self, name: bytes) -> _Asker:
        """The attached store of this name, one of whose connections has just come up."""
        with self._news:
            return self._askers.setdefault(name, _Asker())


class _Asker:
    """One attached store, which may have several connections: what it is being told on any of them."""

    __slots__ = ("__weakref__", "position", "settled")

    def __init__(self) -> None:
        self.position = self.settled = 0


class _Connection(threading.Thread):
    """One connection of an attached process, and the thread that answers what comes in on it."""

    def __init__(self, server: Server, connected: socket.socket) -> None:
        super().__init__(name="atop-attached", daemon=True)
        self._server = server
        connected.settimeout(HELLO_SECONDS)
        seconds, fraction = divmod(SEND_SECONDS, 1)
        connected.setsockopt(
            socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(seconds), int(fraction * 1_000_000))
        )
        self.channel = Channel(connected)
        self._asker = _Asker()

    def run(self) -> None:
        """Answer until the other side, or the server, has had enough."""
        try:
            if self._welcome():
                while True:
                    self._answer(*self.channel.receive())
        except (EOFError, OSError):
            self._asker.position = self._asker.settled = 0  # it may not have read what it was told
        except WireError as error:
            log.warning("a process that is attached to %s is cut off: %s", self._server._local.parent, error)
        finally:
            self._server._end(self)
            self.channel.close()

    def _welcome(self) -> bool:
        kind, body = self.channel.receive(MAX_HELLO)
        if kind != HELLO:
            raise WireError("the first frame is no hello")
        version, name = unpack_hello(body)
        if version != VERSION:
            text = f"it speaks version {VERSION} of the protocol between processes, and this program version {version}"
            self.channel.send(REFUSED, text.encode())
            return False
        self.channel.set_timeout(None)
        server = self._server
        self._asker = server.asker(name)
        _, position = server.exact(_nothing)
        welcome = {"instance": server._instance, "replicated": server._engine.is_replicated}
        self.channel.send(OK, server.news(position, position), pack_list([plain_to(welcome, "the welcome")]))
        return True

    def _answer(self, kind: int, body: bytes) -> None:
        answer = _ANSWERS.get(kind)
        if answer is None or len(body) < 12:
            raise WireError(f"a question of kind {kind} is none")
        server = self._server
        known = unpack_u64(body)[0]
        elements = unpack_list(body, 8)
        try:
            found, position = answer(self, known, elements)
            parts = OK, server.news(known, position), pack_list(found)
        except AtopError as error:
            parts = self._failed(known, error)
        except (struct.error, ValueError) as error:
            raise WireError("a question does not have the form of one") from error
        except (EOFError, OSError, WireError):
            raise
        except Exception as error:
            log.exception("answering an attached process failed")
            parts = self._failed(known, StoreError(f"the process that has the store failed: {error!r}"))
        self.channel.send(*parts)

    def _failed(self, known: int, error: AtopError) -> tuple[int, bytes, bytes]:
        position = known
        with contextlib.suppress(AtopError):  # the store is closed, or cannot be read: that is being told
            _, position = self._server.exact(_nothing)
        return ERROR, self._server.news(known, position), pack_list(error_to(error))

    # -- one for each kind of question: (position known, list) -> (list, position)

    def _get(self, known: int, elements: list[bytes | None]) -> tuple[list[bytes | None], int]:
        table, key = present(elements, 2)
        get, name = self._server._engine.get, _table(table)
        return self._server.exact(lambda: [get(name, key)])

    def _get_items(self, known: int, elements: list[bytes | None]) -> tuple[list[bytes | None], int]:
        wanted = [_item.unpack(element) for element in present(elements)]
        keys = [element[:8] for element in present(elements)]

        def read() -> list[bytes | None]:
            found: list[bytes | None] = []
            size = 0
            for record, (_, version) in zip(self._server._engine.get_items(keys), wanted, strict=True):
                if record is not None and version and unpack_u64(record)[0] == version:
                    found.append(b"")
                else:
                    found.append(record)
                    size += len(record or b"")
                    if size > MAX_ANSWER:
                        break
            return found

        return self._server.exact(read)

    def _pairs(self, known: int, elements: list[bytes | None]) -> tuple[list[bytes | None], int]:
        table, start, stop, asked = present(elements, 4)
        limit, flags = _limit.unpack(asked)
        engine, name, reverse = self._server._engine, _table(table), bool(flags & REVERSE)

        def read() -> list[bytes | None]:
            if flags & KEYS_ONLY:
                return [*engine.keys(name, start, stop, limit, reverse)]
            found: list[bytes | None] = []
            size = 0
            for key, value in engine.pairs(name, start, stop, limit, reverse):
                found += (key, value)
                size += len(value)
                if size > MAX_ANSWER:
                    break
            return found

        return self._server.exact(read)

    def _position(self, known: int, elements: list[bytes | None]) -> tuple[list[bytes | None], int]:
        table, key = present(elements, 2)
        name = _table(table)
        return self._server.exact(lambda: [struct.pack(">d", self._server._engine.position(name, key))])

    def _check(self, known: int, elements: list[bytes | None]) -> tuple[list[bytes | None], int]:
        (versions, *names) = elements
        numbers = struct.unpack(f">{len(versions or b'') // 8}Q", versions or b"")
        expected = dict(zip(numbers[::2], numbers[1::2], strict=True))
        stand = {
            present([name])[0].decode(): None if item_id is None else int.from_bytes(item_id)
            for name, item_id in zip(names[::2], names[1::2], strict=True)
        }
        self._server._engine.check_reads(expected, stand)
        return self._server.exact(_nothing)

    def _commit(self, known: int, elements: list[bytes | None]) -> tuple[list[bytes | None], int]:
        number, own = self._server.commit(self._asker, elements)
        answer: list[bytes | None] = [number.to_bytes(8), b"" if own is None else b"own"]
        if own is not None:
            return answer, own
        return answer, self._server.exact(_nothing)[1]

    def _wait(self, known: int, elements: list[bytes | None]) -> tuple[list[bytes | None], int]:
        (asked,) = present(elements, 1)
        settled, milliseconds = struct.unpack(">QI", asked)
        self._server.wait(self._asker, known, settled, milliseconds / 1000)
        return self._server.exact(_nothing)

    def _lease(self, known: int, elements: list[bytes | None]) -> tuple[list[bytes | None], int]:
        what, asked = present(elements, 2)
        (count,) = struct.unpack(">I", asked)
        first, end = self._server._store._numbers.lease(_number_kind(what), count)
        return [first.to_bytes(8), end.to_bytes(8)], known

    def _return(self, known: int, elements: list[bytes | None]) -> tuple[list[bytes | None], int]:
        what, unused = present(elements, 2)
        self._server._store._numbers.take_back(_number_kind(what), *struct.unpack(">QQ", unused))
        return [], known

    def _ask(self, known: int, elements: list[bytes | None]) -> tuple[list[bytes | None], int]:
        name, packed = present(elements, 2)
        arguments = plain_from(packed)
        if type(arguments) is not dict or not all(type(argument) is str for argument in arguments):
            raise UnsafePickle("the arguments of a call are named")

        def progress(*done: Any) -> None:
            self.channel.send(PROGRESS, pack_list([plain_to(done, "progress")]))

        result = self._server._store._errands.perform(name.decode(), arguments, progress)
        answer = plain_to(result, f"the result of {name.decode()!r}")
        return self._server.exact(lambda: [answer])


_ANSWERS: Final[dict[int, Callable[[_Connection, int, list[bytes | None]], tuple[list[bytes | None], int]]]] = {
    GET: _Connection._get,
    GET_ITEMS: _Connection._get_items,
    PAIRS: _Connection._pairs,
    POSITION: _Connection._position,
    CHECK: _Connection._check,
    COMMIT: _Connection._commit,
    WAIT: _Connection._wait,
    LEASE: _Connection._lease,
    RETURN: _Connection._return,
    ASK: _Connection._ask,
}


def _nothing() -> list[bytes | None]:
    """What is read where only the position matters."""
    return []


def _table(name: bytes) -> str:
    table = name.decode()
    if table not in TABLES:
        raise WireError("a question is about a table that there is not")
    return table


def _number_kind(what: bytes) -> str:
    if what not in (b"items", b"commits"):
        raise WireError("a question is about numbers that there are not")
    return what.decode()


_all: weakref.WeakSet[Server] = weakref.WeakSet()


def _disown_all() -> None:
    for server in list(_all):
        server.disown()


os.register_at_fork(after_in_child=_disown_all)
