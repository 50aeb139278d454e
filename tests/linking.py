"""What the tests of links share: devices, links between two ends of a real connection, and a wire to tamper with."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from replication.handshake import Credentials, Introduced, LinkError, introduce, receive_purpose
from replication.identity import Identity
from replication.link import Link, Position, Room, Timing
from replication.messages import Incoming, Lsn, Message, Ping, Pong

GROUP = hashlib.blake2s(b"a group").digest()
OTHER_GROUP = hashlib.blake2s(b"another group").digest()
PATIENCE = 60.0  # seconds until a condition that does not come true fails the test
POSITION = Position(clock=1_000, generation=2, commit=3, lsn=Lsn(4, 5))
BRISK = Timing(ping_seconds=0.05, silence_seconds=1.0, stall_seconds=0.5, close_seconds=0.5)


def identity(name: str) -> Identity:
    """The same key for the same name in every run."""
    return Identity(hashlib.blake2s(name.encode()).digest())


def credentials(
    name: str, *friends: str, group: bytes = GROUP, removed: tuple[str, ...] = (), **more: Any
) -> Credentials:
    """A device that accepts its friends; with none named, everybody."""
    keys = {identity(friend).public_key for friend in friends}
    gone = {identity(friend).public_key for friend in removed}
    return Credentials(
        identity(name),
        name,
        group,
        accept=(lambda key: key in keys) if friends else (lambda key: True),
        is_removed=gone.__contains__,
        **more,
    )


class Recorder:
    """A handler that remembers what it was told, and lets a test wait for it."""

    def __init__(self) -> None:
        self.messages: list[Message] = []  # without PING and PONG
        self.pings: list[Ping] = []
        self.events: list[str] = []
        self.links: list[Link] = []
        self._changed = threading.Condition()

    def on_link(self, link: Link) -> None:
        with self._changed:
            self.links.append(link)
            self.events.append("link")
            self._changed.notify_all()

    def on_messages(self, link: Link, messages: list[Incoming]) -> None:
        with self._changed:
            for message, _ in messages:
                if type(message) is Ping:
                    self.pings.append(message)
                elif type(message) is not Pong:
                    self.messages.append(message)
            self._changed.notify_all()

    def on_closed(self, link: Link) -> None:
        with self._changed:
            self.events.append("closed")
            self._changed.notify_all()

    def position(self) -> Position:
        return POSITION

    def wait_until(self, condition: Callable[[], Any]) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, PATIENCE), f"did not come true; {self.events}"


def wait_until(condition: Callable[[], Any]) -> None:
    """Wait for something that nobody announces."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "did not come true"
        time.sleep(0.002)


def connection() -> tuple[socket.socket, socket.socket]:
    """Both ends of a TCP connection on this machine."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        far, _ = server.accept()
    return near, far


def greet(
    near: socket.socket, far: socket.socket, one: Credentials, other: Credentials
) -> tuple[Introduced | LinkError, Introduced | LinkError]:
    """Let the two ends introduce themselves; where one fails, its error stands for it."""
    outcomes: dict[str, Introduced | LinkError] = {}

    def side(name: str, sock: socket.socket, who: Credentials) -> None:
        deadline = time.monotonic() + PATIENCE
        try:
            if name == "far":
                receive_purpose(sock, deadline)
            outcomes[name] = introduce(sock, who, initiator=name == "near", deadline=deadline)
        except LinkError as error:
            sock.close()
            outcomes[name] = error

    thread = threading.Thread(target=side, args=("far", far, other))
    thread.start()
    side("near", near, one)
    thread.join()
    return outcomes["near"], outcomes["far"]


@contextlib.contextmanager
def linked(
    timing: Timing | None = None, room: Room | None = None, wire: Wire | None = None
) -> Iterator[tuple[Link, Recorder, Link, Recorder]]:
    """Two links that are up: the two ends of one connection, and what each hears."""
    near, far = wire.ends if wire is not None else connection()
    ends = greet(near, far, credentials("laptop"), credentials("desktop"))
    recorders = Recorder(), Recorder()
    links = []
    for introduced, recorder in zip(ends, recorders, strict=True):
        assert isinstance(introduced, Introduced), introduced
        links.append(Link(introduced, recorder, timing, room))
    for link in links:
        link.start()
    try:
        yield links[0], recorders[0], links[1], recorders[1]
    finally:
        for link in links:
            link.close(wait=False)
        if wire is not None:
            wire.close()
        for link in links:
            link.close()
        near.close()
        far.close()


class Wire:
    """A connection through a machine in the middle, which can change what goes from the near to the far end.

    `change` gets each piece that is read and returns what goes on; the other direction is left alone.
    """

    def __init__(self) -> None:
        self.change: Callable[[bytes], bytes] = lambda data: data
        self.seen: list[bytes] = []
        near, self._near_inside = connection()
        self._far_inside, far = connection()
        self.ends = near, far
        self._threads = [
            threading.Thread(target=self._carry, args=(self._near_inside, self._far_inside, True)),
            threading.Thread(target=self._carry, args=(self._far_inside, self._near_inside, False)),
        ]
        for thread in self._threads:
            thread.start()

    def _carry(self, source: socket.socket, destination: socket.socket, changing: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if changing:
                    self.seen.append(data)
                    data = self.change(data)
                destination.sendall(data)
        with contextlib.suppress(OSError):
            destination.shutdown(socket.SHUT_WR)

    def inject(self, data: bytes) -> None:
        """Send to the far end as if it came from the near one."""
        self._far_inside.sendall(data)

    def cut(self) -> None:
        """End the connection to the far end."""
        self._far_inside.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        for sock in (self._near_inside, self._far_inside):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._near_inside.close()
        self._far_inside.close()


def open_sockets() -> set[str]:
    """The sockets that this process has open."""
    found = set()
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            target = os.readlink(f"/proc/self/fd/{descriptor}")
            if target.startswith("socket:"):
                found.add(target)
    return found


@contextlib.contextmanager
def no_socket_left() -> Iterator[None]:
    """Fail if the block leaves a socket open."""
    before = open_sockets()
    yield
    wait_until(lambda: open_sockets() <= before)
