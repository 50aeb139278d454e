"""The owner's side of sharing a store: the socket, and a thread for each connection of an attached process.

Promises: the socket is this user's alone, and so is every process that is answered. A process that stops reading, or
sends what is no question, costs one thread and one frame's memory until it is cut off; nobody else waits for it. What
it wrote into its socket before it died is done or not, once.

A connection's thread spends its time waiting in the kernel. With nobody attached there is one thread, which waits for a
connection, and commits cost nothing more than without it. What is answered is worked out in `answering`.
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
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from atop.answering import Answers, Asker, nothing
from atop.engine import Engine
from atop.errors import AtopError, StoreError
from atop.owner import SOCKET_NAME, is_ours, listen
from atop.passing import error_to, plain_to
from atop.records import unpack_u64
from atop.wire import (
    ERROR,
    HELLO,
    MAX_HELLO,
    OK,
    PROGRESS,
    REFUSED,
    VERSION,
    Channel,
    WireError,
    pack_list,
    unpack_hello,
    unpack_list,
)

if TYPE_CHECKING:
    from atop.store import Store

log = logging.getLogger(__name__)

# Connections at once: a process needs one, and one more for each thread that uses the store at the same time.
MAX_CONNECTIONS: Final = 512
# How long a stranger may take to say hello, and anybody to read an answer, in seconds.
HELLO_SECONDS, SEND_SECONDS = 5.0, 20.0
# How long closing waits for what is being answered, in seconds.
PATIENCE: Final = 5.0


class Server:
    """Answers other processes, until it is closed. One for each store that this process owns."""

    def __init__(self, store: Store, engine: Engine, local: Path) -> None:
        self.local = local
        self.instance = secrets.token_bytes(8)
        self.replicated = engine.is_replicated
        self.answers = Answers(store, engine)
        self._lock = threading.Lock()  # over who is connected
        self._connections: set[_Connection] = set()
        self._closing = False
        self._listener = listen(local)
        _all.add(self)
        self._thread = threading.Thread(target=self._accept, name="atop-attach", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # the system has no thread left: nobody is to wait for an answer
            self._listener.close()
            raise

    # -- what has happened

    def changed(self, item_ids: list[int] | None) -> None:
        """These items were changed by what is being applied; None says that nothing read before may hold."""
        if self._connections:
            self.answers.changes.add(item_ids)

    def notify(self) -> None:
        """There is news for those who wait."""
        if self._connections:
            self.answers.notify()

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
            with self._lock:
                if self._closing:
                    connected.close()
                    return
                if not self._connections:
                    self.answers.note_commits(True)
                self._connections.add(connection)
            try:
                connection.start()
            except RuntimeError:  # the system has no thread left: the other side tries again
                self.end(connection)
                connected.close()

    def end(self, connection: _Connection) -> None:
        """This connection is no more."""
        with self._lock:
            self._connections.discard(connection)
            if not self._connections:
                self.answers.note_commits(False)

    def close(self) -> None:
        """Answer nobody any more: what is being answered, still is, within reason."""
        with self._lock:
            self._closing = True
            connections = list(self._connections)
        self.answers.end()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread
        self._listener.close()
        with contextlib.suppress(OSError):
            (self.local / SOCKET_NAME).unlink()
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
        self._asker = Asker()

    def run(self) -> None:
        """Answer until the other side, or the server, has had enough."""
        try:
            if self._welcome():
                while True:
                    self._answer(*self.channel.receive())
        except (EOFError, OSError):
            self._asker.position = self._asker.settled = 0  # it may not have read what it was told
        except WireError as error:
            log.info("a process that is attached to %s is cut off: %s", self._server.local.parent, error)
        finally:
            self._server.end(self)
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
        server, answers = self._server, self._server.answers
        self._asker = answers.asker(name)
        _, position = answers.exact(nothing)
        welcome = {"instance": server.instance, "replicated": server.replicated}
        self.channel.send(OK, answers.news(position, position), pack_list([plain_to(welcome, "the welcome")]))
        return True

    def _answer(self, kind: int, body: bytes) -> None:
        if len(body) < 12:
            raise WireError("a question is too short")
        answers = self._server.answers
        known = unpack_u64(body)[0]
        elements = unpack_list(body, 8)
        try:
            found, position = answers.answer(self._asker, kind, known, elements, self._progress)
            parts = OK, answers.news(known, position), pack_list(found)
        except AtopError as error:
            parts = self._failed(known, error)
        except (EOFError, OSError, WireError):
            raise
        except Exception as error:
            log.exception("answering an attached process failed")
            parts = self._failed(known, StoreError(f"the process that has the store failed: {error!r}"))
        self.channel.send(*parts)

    def _progress(self, *done: Any) -> None:
        self.channel.send(PROGRESS, pack_list([plain_to(done, "progress")]))

    def _failed(self, known: int, error: AtopError) -> tuple[int, bytes, bytes]:
        answers, position = self._server.answers, known
        with contextlib.suppress(AtopError):  # the store is closed, or cannot be read: that is being told
            _, position = answers.exact(nothing)
        return ERROR, answers.news(known, position), pack_list(error_to(error))


_all: weakref.WeakSet[Server] = weakref.WeakSet()


def _disown_all() -> None:
    for server in list(_all):
        server.disown()


os.register_at_fork(after_in_child=_disown_all)
