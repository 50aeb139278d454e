"""Accepting connections: from members, from devices that pair, and from whatever else finds the port.

Every connection is a stranger until its handshake is done, and gets little: one of `Limits.unfinished` places, one of
`Limits.per_source` for its address (an IPv6 /64 counts as one), and `HANDSHAKE_SECONDS`. When the places are taken,
the oldest connection of the address that holds most of them gives way: an honest handshake takes milliseconds, so it
is through before its turn comes, and who holds connections open loses them. An address that connects too often is
closed without a look.

`Admission` decides that, and is pure. `Listener` has one thread that accepts, and one for each unfinished handshake.
What it never does: read from a connection more than its purpose, hold a place for a link that is up, stop because a
connection misbehaved or the system ran out of descriptors.
"""

from __future__ import annotations

import errno
import ipaddress
import logging
import os
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from atop.errors import AtopError

from .handshake import (
    HANDSHAKE_SECONDS,
    Credentials,
    Introduced,
    LinkError,
    Purpose,
    introduce,
    receive_purpose,
)
from .sockets import adopt, close_politely, end, set_options

log = logging.getLogger(__name__)

BACKLOG: Final = 256
"""Connections that the kernel holds until they are accepted."""

MAX_SOURCES: Final = 1024
"""Addresses whose connections are counted; the one that was quiet longest is forgotten first."""

OUT_OF_DESCRIPTORS_SECONDS: Final = 0.1
"""How long to wait when the system has no descriptor for a new connection."""


class CannotListen(AtopError):
    """The port cannot be opened; the message says why."""


@dataclass(frozen=True)
class Limits:
    """How much strangers get."""

    unfinished: int = 32  # handshakes at a time; each has a thread
    per_source: int = 8  # of them from one address
    burst: int = 100  # connections that one address may make at once ...
    per_second: float = 50.0  # ... and from then on: a handshake costs about a millisecond


class Admission:
    """Who gets a place. Pure: time is passed in; connections are known by a number. One thread at a time."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._places: OrderedDict[int, str] = OrderedDict()  # connection -> source, the oldest first
        self._credit: OrderedDict[str, tuple[float, float]] = OrderedDict()  # source -> (connections left, as of)

    @property
    def unfinished(self) -> int:
        """Places that are taken."""
        return len(self._places)

    def arrive(self, now: float, connection: int, source: str) -> list[int] | None:
        """Give a connection a place: return those that have to go for it, or None if it gets none."""
        left, as_of = self._credit.pop(source, (float(self._limits.burst), now))
        left = min(float(self._limits.burst), left + (now - as_of) * self._limits.per_second)
        self._credit[source] = (max(0.0, left - 1), now)
        if len(self._credit) > MAX_SOURCES:
            self._credit.popitem(last=False)
        if left < 1:
            return None
        going = []
        if sum(held == source for held in self._places.values()) >= self._limits.per_source:
            going.append(self._oldest_of(source))
        elif len(self._places) >= self._limits.unfinished:
            sources = list(self._places.values())
            going.append(self._oldest_of(max(sources, key=sources.count)))
        for old in going:
            del self._places[old]
        self._places[connection] = source
        return going

    def leave(self, connection: int) -> None:
        """A connection needs its place no more."""
        self._places.pop(connection, None)

    def _oldest_of(self, source: str) -> int:
        return next(connection for connection, held in self._places.items() if held == source)


def source_of(address: str) -> str:
    """What counts as one sender: an IPv4 address, or the /64 of an IPv6 one, within which anybody has many."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.IPv6Network((int(found) >> 64 << 64, 64)))
    return str(found)


@dataclass(frozen=True, slots=True)
class ListenerStatus:
    """What has come to the port. `turned_away`: closed for want of a place, or for coming too often."""

    port: int
    unfinished: int
    accepted: int
    turned_away: int
    failed: int
    last_failure: str | None


OnLink = Callable[[Introduced, float], None]
"""Takes over a member's connection. The number is the deadline for READY, a time of `time.monotonic`."""

OnPairing = Callable[[socket.socket], None]
"""Takes over the connection of a device that wants to pair, with nothing read but its purpose."""


class Listener:
    """Accepts connections on one port, from when it is made until `close`.

    `on_link` is called in the connection's own thread, with a device that has proven to be a member; `on_pairing` must
    return at once; without it, connections for pairing are closed. LinkErrors that they raise are counted. `host` None
    is every address, IPv6 and IPv4; port 0 is any free one. Raises CannotListen.
    """

    def __init__(
        self,
        credentials: Credentials,
        on_link: OnLink,
        on_pairing: OnPairing | None = None,
        *,
        host: str | None = None,
        port: int = 0,
        limits: Limits | None = None,
        handshake_seconds: float = HANDSHAKE_SECONDS,
    ) -> None:
        self._credentials = credentials
        self._on_link = on_link
        self._on_pairing = on_pairing
        self._handshake_seconds = handshake_seconds
        self._lock = threading.Lock()  # guards what follows, to the counts
        self._admission = Admission(limits or Limits())
        self._strangers: dict[int, socket.socket] = {}
        self._threads: set[threading.Thread] = set()
        self._accepted = self._turned_away = self._failed = 0
        self._last_failure: str | None = None
        self._closing = False
        self._pid = os.getpid()
        self._socket = _listening(host, port)
        self.port: Final = int(self._socket.getsockname()[1])
        self._thread = threading.Thread(target=self._accept, name="atop-links-accept", daemon=True)
        self._thread.start()

    def status(self) -> ListenerStatus:
        """What has come so far."""
        with self._lock:
            return ListenerStatus(
                self.port,
                self._admission.unfinished,
                self._accepted,
                self._turned_away,
                self._failed,
                self._last_failure,
            )

    def close(self) -> None:
        """Accept nothing more, and end the handshakes that go on; wait for calls of `on_link`. Nothing is left."""
        if os.getpid() != self._pid:
            return
        self._closing = True
        end(self._socket)
        self._thread.join()
        self._socket.close()
        with self._lock:
            strangers, threads = list(self._strangers.values()), list(self._threads)
        for sock in strangers:
            end(sock)
        for thread in threads:
            thread.join()

    def _accept(self) -> None:
        while not self._closing:
            try:
                sock, place = self._socket.accept()
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    self._note(f"this device has no room for another connection: {error.strerror}")
                    time.sleep(OUT_OF_DESCRIPTORS_SECONDS)
                continue  # anything else is about that connection, or the end
            self._receive(adopt(sock), str(place[0]))

    def _receive(self, sock: socket.socket, address: str) -> None:
        thread = threading.Thread(target=self._serve, args=(sock,), name="atop-links-handshake", daemon=True)
        connection = id(sock)
        with self._lock:
            self._accepted += 1
            going = self._admission.arrive(time.monotonic(), connection, source_of(address))
            if going is None:
                self._turned_away += 1
                sock.close()
                return
            self._turned_away += len(going)
            for old in going:
                end(self._strangers.pop(old))  # its thread finds out, and closes it
            self._strangers[connection] = sock
            self._threads.add(thread)
        try:
            thread.start()
        except RuntimeError:
            self._note("this device cannot start another thread: close some programs")
            self._leave(connection, thread)
            sock.close()

    def _serve(self, sock: socket.socket) -> None:
        deadline = time.monotonic() + self._handshake_seconds
        try:
            set_options(sock)
            if receive_purpose(sock, deadline) is Purpose.LINK:
                introduced = introduce(sock, self._credentials, initiator=False, deadline=deadline)
                self._leave(id(sock))  # no stranger any more: nobody can push it out
                self._on_link(introduced, deadline)
            elif self._on_pairing is not None:
                self._leave(id(sock))
                self._on_pairing(sock)
            else:
                close_politely(sock)
        except LinkError as error:
            close_politely(sock)
            self._note(str(error))
        except OSError as error:
            sock.close()
            self._note(f"a connection was lost: {error.strerror or error}")
        except Exception as error:  # a mistake of the caller's: the port stays open for the others
            sock.close()
            log.error("a connection could not be taken", exc_info=error)
            self._note(f"a connection could not be taken: {type(error).__name__}")
        finally:
            self._leave(id(sock), threading.current_thread())

    def _leave(self, connection: int, thread: threading.Thread | None = None) -> None:
        """Give up a connection's place; with `thread`, that has ended too."""
        with self._lock:
            self._admission.leave(connection)
            self._strangers.pop(connection, None)
            if thread is not None:
                self._threads.discard(thread)

    def _note(self, failure: str) -> None:
        with self._lock:
            self._failed += 1
            self._last_failure = failure


def _listening(host: str | None, port: int) -> socket.socket:
    try:
        if host is not None:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            return adopt(socket.create_server((host, port), family=family, backlog=BACKLOG))
        if socket.has_dualstack_ipv6():
            return adopt(
                socket.create_server(("::", port), family=socket.AF_INET6, backlog=BACKLOG, dualstack_ipv6=True)
            )
        return adopt(socket.create_server(("0.0.0.0", port), backlog=BACKLOG))  # noqa: S104 - devices must reach it
    except OSError as error:
        where = f"port {port}" if port else "any port"
        hint = "another program has it: choose another" if error.errno == errno.EADDRINUSE else error.strerror
        raise CannotListen(f"cannot listen on {where} of {host or 'this device'}: {hint}") from error
