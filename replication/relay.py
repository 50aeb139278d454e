"""Devices that only a third one reaches: links to them through that one, over one hop.

Reachability is not always transitive: a VPN, an access point that isolates its clients. Each device says in STATUS
which devices it has links to. Where it names a member that this device has no link to, this device sends its own
STATUS there through it, with a route, once a second; the other one does the same, and who hears such a STATUS has a
`RelayedLink`, which looks like any other to its user. The device in between passes messages on, one hop.

What it promises: its user has one link to a device at a time. When a direct link comes it takes the place of the
relayed one, and the other way round, without the device being gone in between; requests that were under way are asked
again by whoever asked, and commit ids see to it that they are done once. Nothing is queued here: a log message that
the next link has no room for is dropped, and GAP says so; a commit that cannot be passed on is refused.

What it never does: pass a message on twice, or under another name than that of the device it came from; believe a
device about another one that is linked directly, is no member, or that it was not asked to reach.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final, Protocol

from .forwarding import NotMaster, to_refused
from .handshake import LinkError, LinkLost
from .identity import DeviceId
from .messages import Commit, Gap, Incoming, Log, Message, MessageRefused, Route, Status, next_hop

log = logging.getLogger(__name__)

Id = bytes

TELL_SECONDS: Final = 1.0
"""How often STATUS goes through a third device: it stands for the PING of a direct link."""

SILENCE_SECONDS: Final = 5.0
"""How long a relayed link lives with nothing heard: a direct one has 3 seconds, and there are two of them here."""


GRACE_SECONDS: Final = 5.0
"""How long log messages that were on their way through a third device are taken once there is a direct link."""


class LinkToDevice(Protocol):
    """What is needed of a link: see `link.Link`."""

    @property
    def device_id(self) -> DeviceId: ...  # noqa: D102 - as in Link
    @property
    def open(self) -> bool: ...  # noqa: D102
    def send(self, message: Message, route: Route | None = None) -> None: ...  # noqa: D102
    def send_log(self, log: Log, route: Route | None = None, *, asked: bool = False) -> bool: ...  # noqa: D102


class RelayedLink:
    """A link to a device through another one. It ends by `open` becoming false, and never lives again."""

    def __init__(self, own: Id, device_id: DeviceId, via: LinkToDevice, now: float) -> None:
        self.device_id: Final = device_id
        self.via = via  # changes when another device reaches that one, and this one does not any more
        self.open = True
        self.heard = now
        self._route = Route(own, device_id.digest)

    def send(self, message: Message, route: Route | None = None) -> None:
        """Queue a message on the way to the device. Raises LinkError; what was queued may still get lost."""
        if not self.open or route is not None:  # nothing is passed on over two hops
            raise LinkLost(f"device {self.device_id.short} is not reached through another one any more")
        self.via.send(message, self._route)

    def send_log(self, log: Log, route: Route | None = None, *, asked: bool = False) -> bool:
        """Queue a log message if there is room; return whether it was queued."""
        return self.open and route is None and self.via.send_log(log, self._route, asked=asked)

    def __repr__(self) -> str:
        return f"<RelayedLink to {self.device_id.short} through {self.via.device_id.short}>"


class User(Protocol):
    """Whoever uses the links. Called with the relay's lock held: to take note, and return."""

    def link_up(self, link: LinkToDevice) -> None:
        """There is a link to a device; if there was one, this takes its place."""

    def link_moved(self, link: LinkToDevice) -> None:
        """The link to a device has ended, and this takes its place; other devices should hear of it."""

    def link_down(self, link: LinkToDevice) -> None:
        """There is no link to that device any more."""

    def tick_soon(self) -> None:
        """Call `tick` soon, in a thread that may wait."""


class Relay:
    """Direct and relayed links of one device. Methods may be called by any thread."""

    def __init__(
        self,
        own: DeviceId,
        user: User,
        is_member: Callable[[Id], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._own = own.digest
        self._user = user
        self._is_member = is_member
        self._clock = clock
        self._lock = threading.Lock()  # guards what follows, and keeps what the user is told in order
        self._direct: dict[Id, LinkToDevice] = {}
        self._relayed: dict[Id, RelayedLink] = {}  # Invariant: never for a device that is in _direct
        self._before: dict[Id, RelayedLink] = {}  # of devices in _direct: the links in whose place those have come
        self._reaches: dict[Id, frozenset[Id]] = {}  # what devices that are linked directly said they are linked to
        self._told: dict[Id, float] = {}  # when STATUS was last sent to a device through another one
        self._passed: dict[Id, set[Id]] = {}  # for whom a device that is linked directly had log messages passed on

    # -- direct links

    def on_link(self, link: LinkToDevice) -> None:
        """There is a direct link."""
        device = link.device_id.digest
        with self._lock:
            self._direct[device] = link
            relayed = self._relayed.pop(device, None)
            if relayed is not None:
                relayed.open = False
                self._before[device] = relayed
            self._user.link_up(link)

    def on_closed(self, link: LinkToDevice) -> None:
        """A direct link has ended. A device that another one says it reaches is not taken to be gone."""
        device = link.device_id.digest
        with self._lock:
            if self._direct.get(device) is not link:
                return
            del self._direct[device]
            self._reaches.pop(device, None)
            self._passed.pop(device, None)
            self._before.pop(device, None)
            way = self._way_to(device)
            if way is None:
                self._user.link_down(link)
            else:
                relayed = self._relayed[device] = RelayedLink(self._own, link.device_id, way, self._clock())
                self._user.link_moved(relayed)
            self._review()

    def devices(self) -> list[Id]:
        """The devices that are linked directly: messages can be passed on to them."""
        with self._lock:
            return list(self._direct)

    # -- what comes in

    def on_status(self, link: LinkToDevice, status: Status) -> None:
        """A device that is linked directly says which ones it is linked to."""
        with self._lock:
            device = link.device_id.digest
            if self._direct.get(device) is not link:
                return
            self._reaches[device] = frozenset(status.reachable) - {self._own, device}
            self._review()
            if self._wanted() - self._told.keys():
                self._user.tick_soon()

    def on_gap(self, link: LinkToDevice, gap: Gap) -> None:
        """A device that is linked directly has dropped log messages, maybe some that were to be passed on."""
        with self._lock:
            passed = self._passed.get(link.device_id.digest, set())
            targets = [self._direct[device] for device in passed if device in self._direct]
        for target in targets:
            _send(target, gap)

    def take(self, link: LinkToDevice, incoming: Incoming) -> RelayedLink | None:
        """Pass a message with a route on; if it is for this device, return the link that it has come by.

        None for what was passed on or is not believed. Raises MessageRefused for a route that no device of ours makes.
        """
        message, route = incoming
        assert route is not None  # noqa: S101 - it is what brings it here
        sender = link.device_id.digest
        if route.origin == sender and route.destination == self._own:
            raise MessageRefused("a message has a route that it does not need")
        if next_hop(route, self._own, sender) != self._own:
            self._pass_on(link, message, route)
            return None
        with self._lock:
            origin = route.origin
            if not (self._is_member(origin) and self._is_member(sender)) or self._direct.get(sender) is not link:
                return None  # one was removed, of which the other may not have heard; or the link is over
            if origin in self._direct:  # it speaks for itself; but what it said before should not get lost
                before = self._before.get(origin) if type(message) is Log else None
                return before if before is not None and self._clock() < before.heard + GRACE_SECONDS else None
            relayed = self._relayed.get(origin)
            if relayed is None:
                if type(message) is not Status:
                    return None  # of a time that is over; a request is asked again
                relayed = self._relayed[origin] = RelayedLink(self._own, DeviceId(origin), link, self._clock())
                self._user.link_up(relayed)
            relayed.heard = self._clock()
            return relayed

    def _pass_on(self, link: LinkToDevice, message: Message, route: Route) -> None:
        with self._lock:
            target = self._direct.get(route.destination)
            if target is not None and type(message) is Log:
                self._passed.setdefault(route.origin, set()).add(route.destination)
        if type(message) is Log:
            if target is not None:
                target.send_log(message, route)
        elif (target is None or not _send(target, message, route)) and type(message) is Commit:
            _send(link, to_refused(message.commit_id, NotMaster("the master is not reached from here")))

    # -- as time goes

    def tick(self, standing: Callable[[], Status]) -> None:
        """Tell devices that are reached through others how this one stands, and forget those that are silent."""
        now = self._clock()
        with self._lock:
            self._review()
            wanted = self._wanted()
            self._told = {device: at for device, at in self._told.items() if device in wanted}
            due = [device for device in wanted if now >= self._told.get(device, now) + TELL_SECONDS]
            due += wanted - self._told.keys()
            ways: dict[Id, LinkToDevice] = {}
            for device in due:
                self._told[device] = now
                relayed = self._relayed.get(device)
                way = relayed.via if relayed is not None else self._way_to(device)
                if way is not None:
                    ways[device] = way
        if ways:
            status = standing()
            for device, way in ways.items():
                _send(way, status, Route(self._own, device))

    def _wanted(self) -> set[Id]:
        """Members that are not linked directly, and that another one is linked to, or has passed messages on from."""
        told_of = {device for reached in self._reaches.values() for device in reached} | self._relayed.keys()
        return {device for device in told_of - self._direct.keys() if self._is_member(device)}

    def _way_to(self, device: Id) -> LinkToDevice | None:
        """A direct link to a device that says it reaches this one, if it is a member."""
        if not self._is_member(device):
            return None
        ways = sorted(
            middle for middle, reached in self._reaches.items() if device in reached and self._is_member(middle)
        )
        return self._direct[ways[0]] if ways else None

    def _review(self) -> None:
        """Lead relayed links another way where theirs has ended; end those that have none, or that are silent."""
        now = self._clock()
        for device, relayed in list(self._relayed.items()):
            middle = relayed.via.device_id.digest
            said = self._reaches.get(middle)  # None before it has said anything
            ended = self._direct.get(middle) is not relayed.via or not self._is_member(middle)
            ended = ended or (said is not None and device not in said)
            way = self._way_to(device) if ended else relayed.via
            if way is None or now - relayed.heard >= SILENCE_SECONDS or not self._is_member(device):
                del self._relayed[device]
                relayed.open = False
                self._user.link_down(relayed)
            else:
                relayed.via = way


def _send(link: LinkToDevice, message: Message, route: Route | None = None) -> bool:
    try:
        link.send(message, route)
    except LinkError as error:
        log.debug("not passed on: %s", error)
        return False
    return True
