"""All links of one device: made from both sides, one for each other device, made again when they end.

Two devices that find each other both connect, and then there are two connections for one link. One of the two
devices decides, so that they cannot disagree: the one with the lower id. It sends READY on the connection that it
wants, with a number that grows, and GOODBYE on others; the other device uses the one with the highest number. The rule
of the one that decides:

    no link to that device                   the new one is READY
    a link to another run of that device     the new one is refused as CLONED: the identity was copied, or the device
                                             has restarted and its old link ends by itself within three seconds
    it has connected itself, or the link     the new one is refused as DUPLICATE: both have connected at once
    is younger than `SIMULTANEOUS_SECONDS`
    otherwise                                the other device has lost the link, and connects anew: the old one is
                                             closed without a word, and the new one is READY

What it promises: for one device, `on_closed` of a link comes before `on_link` of the next one. A device that
`Credentials` stop to accept gets no link after `close_device` has returned. After `close` nothing is left.
What it never does: find devices, or decide who is a member.
"""

from __future__ import annotations

import os
import random
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from .dialing import MAX_RETRY_SECONDS, Target, connect
from .handshake import (
    HANDSHAKE_SECONDS,
    Credentials,
    Introduced,
    LinkClosed,
    LinkError,
    LinkRefused,
    introduce,
    refusal_of,
)
from .identity import DeviceId
from .link import Handler, Link, LinkStatus, Position, Room, Timing
from .listener import Limits, Listener, ListenerStatus, OnPairing
from .messages import Incoming, Reason
from .sockets import end

SIMULTANEOUS_SECONDS: Final = 1.0
"""A connection that comes so soon after a link is the other device's side of the same meeting."""

MAX_TARGETS: Final = 256
"""Places to try: what discovery keeps, and the fixed addresses."""

MAX_DIALS: Final = 16
"""Attempts at one time; each has a thread for as long as the handshake may take."""


class PeersHandler(Handler, Protocol):
    """Whoever uses the links."""

    def on_link(self, link: Link) -> None:
        """A link is up: messages may be sent, and none has come yet. Called before anything else about it."""


@dataclass(frozen=True, slots=True)
class PeersStatus:
    """How the links are doing. `problems`: for each place that cannot be reached, why.

    `devices`: the short id of the device that answered at such a place, or is said to be there.
    """

    links: tuple[LinkStatus, ...]
    listener: ListenerStatus | None
    problems: dict[str, str]
    devices: dict[str, str]


class Peers:
    """The links of one device. Methods may be called by any thread; `handler` is called by the links' threads."""

    def __init__(
        self,
        credentials: Credentials,
        handler: PeersHandler,
        *,
        timing: Timing | None = None,
        room: Room | None = None,
        handshake_seconds: float = HANDSHAKE_SECONDS,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._credentials = credentials
        self._handler = handler
        self._timing = timing
        self._room = room
        self._handshake_seconds = handshake_seconds
        self._chance = chance
        self._pid = os.getpid()
        self._changed = threading.Condition(threading.Lock())  # guards what follows; never held while waiting
        self._links: dict[DeviceId, Link] = {}
        self._turns: dict[DeviceId, threading.Lock] = {}  # held while a link to that device is made or replaced
        self._ready_numbers: dict[tuple[DeviceId, bytes], int] = {}  # of the other device's run: the highest heard
        self._next_ready = 1
        self._targets: dict[str, Target] = {}
        self._dials: dict[threading.Thread, socket.socket | None] = {}
        self._following: set[socket.socket] = set()  # connections that wait for READY
        self._closing = False
        self._listener: Listener | None = None
        self._dialer = threading.Thread(target=self._dial_when_due, name="atop-links-dial", daemon=True)
        self._dialer.start()

    # -- for any thread

    def listen(
        self,
        host: str | None = None,
        port: int = 0,
        *,
        on_pairing: OnPairing | None = None,
        limits: Limits | None = None,
    ) -> int:
        """Accept connections; return the port. Raises CannotListen. Called once at most."""
        self._listener = Listener(
            self._credentials,
            self._admit,
            on_pairing,
            host=host,
            port=port,
            limits=limits,
            handshake_seconds=self._handshake_seconds,
        )
        return self._listener.port

    def found(self, key: str, addresses: Sequence[str], port: int, device_claimed: str | None = None) -> bool:
        """A device may be there: try now, and as long as there is no link to it. False if there is no room for it.

        `key` names the place in `lost`, `device_claimed` is the short id that it was announced with.
        """
        now = time.monotonic()
        with self._changed:
            target = self._targets.get(key)
            if target is None:
                if len(self._targets) >= MAX_TARGETS:
                    return False
                target = self._targets[key] = Target(key, (), port, device_claimed, now)
            if (target.addresses, target.port) != (tuple(addresses), port):
                target.device = None
            target.addresses, target.port, target.device_claimed = tuple(addresses), port, device_claimed
            target.reported(now)
            self._changed.notify()
        return True

    def lost(self, key: str) -> None:
        """Do not try there any more. A link that is up stays."""
        with self._changed:
            self._targets.pop(key, None)

    def retry(self) -> None:
        """Try every place again now: the network, or the list of members, has changed."""
        now = time.monotonic()
        with self._changed:
            for target in self._targets.values():
                target.reported(now)
            self._changed.notify()

    def links(self) -> list[Link]:
        """The links that are up."""
        with self._changed:
            return [link for link in self._links.values() if link.open]

    def link(self, device: DeviceId) -> Link | None:
        """The link to a device, if it is up."""
        with self._changed:
            found = self._links.get(device)
        return found if found is not None and found.open else None

    def close_device(self, device: DeviceId, reason: Reason) -> None:
        """End the link to a device, if there is one, and tell it why. Does not wait until it has ended.

        For a device that was removed, `Credentials` must say so before: then it gets no new link.
        """
        found = self.link(device)
        if found is not None:
            found.close(reason, wait=False)

    def status(self) -> PeersStatus:
        """How the links are doing."""
        listener = self._listener
        with self._changed:
            failing = [t for t in self._targets.values() if t.problem is not None and self._wants(t)]
            problems = {t.key: t.problem for t in failing if t.problem is not None}
            claimed = {t.key: t.device.short if t.device is not None else t.device_claimed for t in failing}
            links = list(self._links.values())
        return PeersStatus(
            links=tuple(link.status() for link in links),
            listener=None if listener is None else listener.status(),
            problems=problems,
            devices={key: short for key, short in claimed.items() if short is not None},
        )

    def close(self, reason: Reason = Reason.LEAVING) -> None:
        """End all links, telling the other devices why, and all threads. In a forked child it does nothing."""
        if os.getpid() != self._pid:
            return
        with self._changed:
            self._closing = True
            self._changed.notify()
            for following in self._following:
                end(following)
        if self._listener is not None:
            self._listener.close()
        self._dialer.join()
        with self._changed:
            dials = dict(self._dials)
        for link in self.links():
            link.close(reason, wait=False)
        for thread, sock in dials.items():
            if sock is not None:
                end(sock)
            thread.join()
        with self._changed:
            links = list(self._links.values())
        for link in links:
            link.close(reason)

    # -- making a link, in the thread of its handshake

    def _admit(self, introduced: Introduced, deadline: float) -> None:
        """Make a link of a connection, or refuse it. Raises LinkError's family, having closed it."""
        try:
            if introduced.decides:
                self._decide(introduced)
            else:
                self._follow(introduced, deadline)
        except LinkRefused as error:
            introduced.refuse(error.reason)
            raise
        except LinkError:
            introduced.sock.close()
            raise

    def _decide(self, introduced: Introduced) -> None:
        device = introduced.device_id
        with self._turn(device):
            existing = self._check_wanted(introduced)
            if existing is not None:
                young = time.monotonic() - existing.started < SIMULTANEOUS_SECONDS
                if introduced.initiator or young:
                    raise LinkRefused(Reason.DUPLICATE, f"there is a link to device {device.short} already")
                existing.close(Reason.DUPLICATE)
            with self._changed:
                number, self._next_ready = self._next_ready, self._next_ready + 1
            introduced.send_ready(number)
            self._begin(introduced)

    def _follow(self, introduced: Introduced, deadline: float) -> None:
        device = introduced.device_id
        with self._turn(device):
            self._check_wanted(introduced)
        with self._changed:
            self._following.add(introduced.sock)
            if self._closing:
                end(introduced.sock)
        try:
            number = introduced.wait_ready(deadline)
        finally:
            with self._changed:
                self._following.discard(introduced.sock)
        with self._turn(device):
            existing = self._check_wanted(introduced)
            run = (device, introduced.hello.run)
            if number <= self._ready_numbers.get(run, 0):
                raise LinkRefused(Reason.DUPLICATE, f"device {device.short} has chosen another connection")
            self._ready_numbers = {k: v for k, v in self._ready_numbers.items() if k[0] != device} | {run: number}
            if existing is not None:
                existing.close(Reason.DUPLICATE)
            self._begin(introduced)

    def _check_wanted(self, introduced: Introduced) -> Link | None:
        """Return the link that there is to that device. Raises LinkRefused if there must be no other."""
        refusal = refusal_of(self._credentials, introduced.public_key)
        if refusal is not None:
            raise LinkRefused(refusal, f"device {introduced.device_id.short} is not a member any more")
        if self._closing:
            raise LinkRefused(Reason.LEAVING, "this device is closing")
        existing = self.link(introduced.device_id)
        if existing is not None and existing.hello.run != introduced.hello.run:
            raise LinkRefused(
                Reason.CLONED,
                f"two devices with the identity {introduced.device_id.short} are there. If one of them was made by "
                "copying the other, move local/identity away on the copy, and pair it as a new device",
            )
        return existing

    def _begin(self, introduced: Introduced) -> None:
        link = Link(introduced, self, self._timing, self._room)
        with self._changed:
            before = self._links.get(link.device_id)
            self._links[link.device_id] = link
        if before is not None:
            before.wait_ended()  # it has failed already: its last call comes before the first of the new one
        try:
            self._handler.on_link(link)
        finally:
            link.start()
            # Whoever closes or removes looks at the links after saying so; so does this, the other way round.
            refusal = Reason.LEAVING if self._closing else refusal_of(self._credentials, link.public_key)
            if refusal is not None:
                link.close(refusal, wait=False)

    def _turn(self, device: DeviceId) -> threading.Lock:
        with self._changed:
            return self._turns.setdefault(device, threading.Lock())

    # -- as the handler of the links

    def on_messages(self, link: Link, messages: list[Incoming]) -> None:
        """Pass messages on."""
        self._handler.on_messages(link, messages)

    def position(self) -> Position:
        """Pass the question on."""
        return self._handler.position()

    def on_closed(self, link: Link) -> None:
        """Pass it on, then forget the link, and connect again: until then, the next one waits."""
        try:
            self._handler.on_closed(link)
        finally:
            self._forget(link)

    def _forget(self, link: Link) -> None:
        now = time.monotonic()
        with self._changed:
            if self._links.get(link.device_id) is link:
                del self._links[link.device_id]
            for target in self._targets.values():
                if target.device == link.device_id and not target.dialing:
                    if now - link.started > MAX_RETRY_SECONDS:
                        target.failures = 0
                    target.failed(now, link.failure or LinkClosed(Reason.OTHER, by_us=True), self._chance())
            self._changed.notify()

    # -- connecting

    def _dial_when_due(self) -> None:
        while True:
            with self._changed:
                now = time.monotonic()
                if self._closing:
                    return
                waiting = sorted(
                    (t for t in self._targets.values() if not t.dialing and self._wants(t)), key=lambda t: t.due
                )
                for target in waiting:
                    if target.due > now or len(self._dials) >= MAX_DIALS:
                        break
                    self._begin_dial(target, now)
                later = [target.due for target in waiting if not target.dialing and target.due > now]
                self._changed.wait(min(later) - now if later else None)

    def _wants(self, target: Target) -> bool:
        """Whether there is no link yet to the device that may be there."""
        links = [link for link in self._links.values() if link.open]
        if target.device is not None:
            return all(link.device_id != target.device for link in links)
        return target.device_claimed is None or all(link.device_id.short != target.device_claimed for link in links)

    def _begin_dial(self, target: Target, now: float) -> None:
        target.begin(now)
        thread = threading.Thread(target=self._dial, args=(target,), name="atop-links-dial-one", daemon=True)
        self._dials[thread] = None
        try:
            thread.start()
        except RuntimeError:  # no more threads to be had
            del self._dials[thread]
            target.failed(now, LinkError("this device cannot start another thread"), self._chance())

    def _dial(self, target: Target) -> None:
        deadline = time.monotonic() + self._handshake_seconds
        failure: LinkError | None = None
        device: DeviceId | None = None
        try:
            sock = connect(target.addresses, target.port, deadline, lambda: self._closing)
            with self._changed:
                self._dials[threading.current_thread()] = sock  # `close` can end it from here on
                closing = self._closing
            if closing:
                end(sock)
            introduced = introduce(sock, self._credentials, initiator=True, deadline=deadline)
            device = introduced.device_id
            self._admit(introduced, deadline)
        except LinkError as error:
            failure = error
        finally:
            with self._changed:
                if device is not None:
                    target.device = device
                if device is not None and failure is None:
                    target.succeeded(device)
                else:
                    target.failed(time.monotonic(), failure or LinkError("the attempt failed"), self._chance())
                self._dials.pop(threading.current_thread(), None)
                self._changed.notify()


__all__ = ["Peers", "PeersHandler", "PeersStatus"]
