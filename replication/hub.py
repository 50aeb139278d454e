"""What the links of a device are told to: the replication manager, the list of members, and whoever else listens.

`Hub` is the one handler of `Peers`. It passes everything on, in order, and keeps what `status` shows of other devices:
when they were heard, how far they are, how fast they move, and whether their history is this one's.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from atop import clock

from .handshake import LinkClosed, LinkError
from .link import Link, Position
from .manager import ReplicationManager
from .messages import Ack, HistoryAnswered, HistoryAsked, Incoming, Members, Message, Ping, Reason, Route, Status

RATE_SECONDS: Final = 10.0
"""Over how long the speed of another device is measured."""


class LinkListener(Protocol):
    """Hears of every link, beside the manager. Calls come from the links' threads, and must be short."""

    def on_link(self, link: Link) -> None:
        """There is a link."""

    def on_messages(self, link: Link, messages: list[Incoming]) -> None:
        """These have arrived."""

    def on_closed(self, link: Link) -> None:
        """The link has ended."""


@dataclass
class Heard:
    """What was heard of another device last. Times are of `time.monotonic`."""

    at: float
    commit: int = 0
    said: tuple[int, bytes] | None = None  # its last commit by number and chain value, as of its last STATUS
    same_at: int | None = None  # the number of this device's commit that the other one has with the same chain value
    asked_at: int | None = None
    rate: float | None = None  # commits a second
    measured_at: float = 0.0
    measured_commit: int = 0
    clock_ahead: float | None = None  # seconds that its clock is ahead of this device's, as of its last PING

    def moved(self, now: float, commit: int) -> None:
        """It says that it has this commit now."""
        self.at = now
        if self.measured_at and now - self.measured_at >= 1.0:
            rate = max(0.0, (commit - self.measured_commit) / (now - self.measured_at))
            self.rate = rate if self.rate is None else self.rate + (rate - self.rate) / 3
        if not self.measured_at or now - self.measured_at >= 1.0:
            self.measured_at, self.measured_commit = now, commit
        self.commit = max(commit, self.commit) if commit else self.commit


class Hub:
    """The handler of a device's links.

    Args:
        members: what to say of the group's devices when a link is new.
        on_members: called with what another device says of them.
        on_removed: called when a member has said that this device was removed.
        on_link: called when there is a new link.
    """

    def __init__(
        self,
        manager: ReplicationManager,
        *,
        members: Callable[[], Members],
        on_members: Callable[[Members], None],
        on_removed: Callable[[bytes], None],
        on_link: Callable[[Link], None] = lambda link: None,
    ) -> None:
        self._manager = manager
        self._members = members
        self._on_members = on_members
        self._on_removed = on_removed
        self._on_link = on_link
        self._lock = threading.Lock()
        self._heard: dict[bytes, Heard] = {}  # device -> what was heard; kept when its link ends
        self._listeners: list[LinkListener] = []

    def add(self, listener: LinkListener) -> None:
        """Have a listener hear of all links from now on."""
        self._listeners = [*self._listeners, listener]

    def heard(self, device: bytes) -> Heard | None:
        """What was heard of a device."""
        return self._heard.get(device)

    def compare(self, link: Link, number: int, chain: bytes) -> None:
        """Ask another device whether it has this device's last commit, unless it was asked about that one."""
        with self._lock:
            heard = self._heard.setdefault(link.device_id.digest, Heard(time.monotonic()))
            if heard.asked_at == number or not number:
                return
            heard.asked_at = number
        send(link, HistoryAsked(number, chain))

    # -- as the handler of the links

    def on_link(self, link: Link) -> None:
        """Pass it on, and say who the members are."""
        with self._lock:
            self._heard[link.device_id.digest] = Heard(time.monotonic())
        self._manager.on_link(link)
        send(link, self._members())
        self._on_link(link)
        for listener in self._listeners:
            listener.on_link(link)

    def on_messages(self, link: Link, messages: list[Incoming]) -> None:
        """Pass them on."""
        for message, route in messages:
            if route is None and type(message) in (Ping, Members, HistoryAnswered, Status, Ack):
                self._take(link, message)
            elif route is not None and type(message) is Status and self._is_about_member(route):
                with self._lock:  # of a device that is reached through this one
                    heard = self._heard.setdefault(route.origin, Heard(time.monotonic()))
                self._hear(heard, message)
        self._manager.on_messages(link, messages)
        for listener in self._listeners:
            listener.on_messages(link, messages)

    def on_closed(self, link: Link) -> None:
        """Pass it on."""
        self._manager.on_closed(link)
        for listener in self._listeners:
            listener.on_closed(link)
        failure = link.failure
        if isinstance(failure, LinkClosed) and not failure.by_us and failure.reason is Reason.REMOVED:
            self._on_removed(link.public_key)

    def position(self) -> Position:
        """What a PING tells."""
        return self._manager.position()

    def _is_about_member(self, route: Route) -> bool:
        return route.destination == self._manager.own.digest and self._manager.is_member(route.origin)

    def _take(self, link: Link, message: Message) -> None:
        now = time.monotonic()
        heard = self._heard.get(link.device_id.digest)
        if heard is None:
            return
        if isinstance(message, Members):
            self._on_members(message)
        elif isinstance(message, Ping):
            heard.moved(now, message.commit)
            if message.clock:
                heard.clock_ahead = (message.clock - clock.wall()) / 1e6
        elif isinstance(message, Status):
            self._hear(heard, message)
        elif isinstance(message, Ack):
            heard.commit = max(heard.commit, message.commit)
        elif isinstance(message, HistoryAnswered):
            if message.same:
                heard.same_at = message.number
            elif heard.asked_at == message.number:
                heard.asked_at = None  # it may have it soon

    @staticmethod
    def _hear(heard: Heard, status: Status) -> None:
        heard.moved(time.monotonic(), status.number)
        heard.said = status.number, status.chain


def send(link: Link, message: Message) -> None:
    """Send a message if the link takes it; a link tells of its end by itself."""
    try:
        link.send(message)
    except LinkError:
        return
