"""Which contents to ask which device for, and when: the decisions of `filesync`. Pure: no socket, disk or clock.

Events go in, actions come out. Contents are asked for in ranges, of one device at a time, in order; so what has come of
them is always a beginning, which another device, or another day, can go on with. Several are on their way at once, a
range of each in turn; those that somebody waits for (`urgent`) go before all others.

Promises:
- Not more is asked of a device than it can send in about `TARGET_SECONDS`: what is in the pipe is what delays the log.
- A device that has sent wrong contents is not asked for them again while this program runs, and is named.
- Contents that nobody reachable has wait (`parked`) until a device says that it has them, comes, or a while has passed;
  those that the disk did not take (`stuck`) are tried again every few seconds, and hold up no others.
- Bytes that were not asked for are not taken.

Never: a byte of contents, and anything about contents that it was not told to want.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from .messages import FILE_CHUNK_BYTES

Id = bytes
Digest = bytes

MAX_ACTIVE: Final = 8
"""Contents that are on their way at once, without those that somebody waits for."""

MAX_URGENT: Final = 32
"""Contents on their way that somebody waits for."""

MAX_WANTED: Final = 100_000
"""Contents that are known to be missing; when fewer are left, the store is looked through for more."""

MAX_BLAMED: Final = 100
"""Wrong contents that are remembered for the status."""

RANGE_BYTES: Final = 4 * FILE_CHUNK_BYTES
"""The most that is asked for at once."""

SMALLEST_WINDOW: Final = 4 * FILE_CHUNK_BYTES
LARGEST_WINDOW: Final = 4 << 20
"""Bytes that may be asked of a device and not here yet."""

TARGET_SECONDS: Final = 0.010
"""How long a range may take beyond the shortest time seen: more, and less is asked for."""

STALL_SECONDS: Final = 10.0
"""After so long without a byte that was asked for, another device is asked."""

RETRY_SECONDS: Final = 30.0
MAX_RETRY_SECONDS: Final = 960.0
"""When contents that nobody had are asked for again, although nothing was heard: after twice as long each time."""

DISK_SECONDS: Final = 5.0
"""How long nothing is fetched after the disk would not take it."""


class Open(NamedTuple):
    """Open what is here of the contents, or begin; then tell `opened`."""

    digest: Digest
    size: int


class Ask(NamedTuple):
    """Ask a device for a range."""

    device: Id
    digest: Digest
    size: int
    offset: int
    length: int


class Finish(NamedTuple):
    """All bytes are here: check them, put them in place, and tell `finished`."""

    digest: Digest


class Leave(NamedTuple):
    """Close what is here of the contents, which are not asked for at the moment; with `forget`, remove it too."""

    digest: Digest
    forget: bool


Action = Open | Ask | Finish | Leave


@dataclass(slots=True)
class Wanted:
    """Contents that are missing. `absent`, `coming` and `wrong` are of the devices that are, or were, reachable."""

    digest: Digest
    size: int
    urgent: bool = False
    stage: str = "ready"  # "ready", "parked", "stuck", "opening", "fetching" or "finishing"
    problem: str | None = None  # why the disk did not take it, when it was last tried
    received: int = 0  # bytes from the beginning that are here. Invariant: received <= asked <= size
    asked: int = 0
    source: Id | None = None  # Invariant: set in the stages "opening" and "fetching" alone
    sources: set[Id] = field(default_factory=set)  # devices whose bytes are in what is here
    resumed: bool = False  # whether bytes are in it of which the source is not known any more
    absent: set[Id] = field(default_factory=set)  # have said that they lack it
    coming: set[Id] = field(default_factory=set)  # of these, those that are fetching it themselves
    wrong: set[Id] = field(default_factory=set)  # have sent something else
    heard: float = 0.0  # when the last bytes came, or it was asked for

    @property
    def active(self) -> bool:
        """Whether it is on its way."""
        return self.stage in ("opening", "fetching", "finishing")


@dataclass(slots=True)
class _Device:
    window: float = float(LARGEST_WINDOW // 8)
    outstanding: int = 0  # bytes asked of it that are not here
    shortest: float = 60.0  # seconds that a range took at least
    asks: list[tuple[Digest, int, float]] = field(default_factory=list)  # (digest, end of the range, when), in order


class Fetches:
    """All contents that are missing here. Not for two threads at once; times are of one steady clock, in seconds."""

    def __init__(self) -> None:
        self.wanted: dict[Digest, Wanted] = {}
        self.fetched = 0
        self.disk_seconds = DISK_SECONDS
        self.blamed: dict[tuple[Id, Digest], None] = {}  # who has sent wrong contents, and in the place of which
        self._devices: dict[Id, _Device] = {}
        # Digests, in the order in which they are taken. A dict, for its order.
        self._urgent: dict[Digest, None] = {}
        self._ready: dict[Digest, None] = {}
        self._parked: dict[Digest, None] = {}
        self._stuck: dict[Digest, None] = {}
        self._active: dict[Digest, None] = {}
        self._stuck_until = math.inf  # when something is stuck: when it is tried again
        self._retry_at = math.inf  # when something has been parked: when it is asked for again
        self._retry_after = RETRY_SECONDS

    # -- events; after each, take `actions`

    def want(self, digest: Digest, size: int, *, urgent: bool = False) -> bool:
        """Contents are missing; False if there is no room to remember them. `urgent`: somebody waits for them."""
        wanted = self.wanted.get(digest)
        if wanted is None:
            if len(self.wanted) >= MAX_WANTED and not urgent:
                return False
            wanted = self.wanted[digest] = Wanted(digest, size)
            self._queue(wanted)
        elif wanted.size != size and wanted.stage == "parked":
            wanted.size = size  # an item may have named the contents with a size that is not theirs
            self._queue(wanted)
        if urgent:
            wanted.urgent = True
            if not wanted.active:
                wanted.absent.clear()
                wanted.coming.clear()
                self._queue(wanted)
        return True

    def calm(self, digest: Digest) -> None:
        """Nobody waits for these contents any more."""
        wanted = self.wanted.get(digest)
        if wanted is not None and wanted.urgent:
            wanted.urgent = False
            if wanted.stage == "ready":
                self._queue(wanted)

    def keep_only(self, named: set[Digest]) -> list[Action]:
        """Forget contents that nothing names any more; those on their way may end."""
        gone = [w for w in self.wanted.values() if w.digest not in named and not (w.active or w.urgent)]
        for wanted in gone:
            self._forget(wanted)
        return [Leave(wanted.digest, forget=True) for wanted in gone]

    def link_up(self, device: Id) -> None:
        """A device can be reached: it may have anything."""
        self._devices[device] = _Device()
        self._ask_again([device])

    def link_down(self, device: Id) -> list[Action]:
        """A device cannot be reached any more."""
        self._devices.pop(device, None)
        actions: list[Action] = []
        for digest in list(self._active):
            wanted = self.wanted[digest]
            if wanted.source == device:
                actions += self._release(wanted)
        for wanted in self.wanted.values():
            wanted.coming.discard(device)
        return actions

    def here(self, device: Id, digests: Iterable[Digest]) -> None:
        """A device has these contents now."""
        for digest in digests:
            wanted = self.wanted.get(digest)
            if wanted is not None:
                wanted.absent.discard(device)
                wanted.coming.discard(device)
                if wanted.stage == "parked":
                    self._queue(wanted)

    def absent(self, device: Id, digest: Digest, *, coming: bool) -> list[Action]:
        """A device lacks these contents, or will not send them; `coming`: it is fetching them itself."""
        wanted = self.wanted.get(digest)
        if wanted is None:
            return []
        wanted.absent.add(device)
        if coming:
            wanted.coming.add(device)
        else:
            wanted.coming.discard(device)
        return self._release(wanted) if wanted.source == device else []

    def opened(self, digest: Digest, received: int) -> list[Action]:
        """So many bytes are here, from before."""
        wanted = self.wanted.get(digest)
        if wanted is None or wanted.stage != "opening":
            return [Leave(digest, forget=False)]
        if not wanted.sources:
            wanted.resumed = received > 0
        wanted.received = wanted.asked = received
        wanted.stage = "fetching"
        return self._finish(wanted) if received == wanted.size else []

    def chunk(self, device: Id, digest: Digest, offset: int, length: int, now: float) -> bool:
        """Bytes have come; returns whether they are to be taken. Then call `took`."""
        wanted = self.wanted.get(digest)
        source = self._devices.get(device)
        if wanted is None or source is None or wanted.source != device or wanted.stage != "fetching":
            return False
        if offset != wanted.received or not 0 < length <= wanted.asked - offset:
            return False
        wanted.received += length
        wanted.heard = now
        wanted.sources.add(device)
        source.outstanding -= length
        self._measure(source, digest, wanted.received, now)
        return True

    def took(self, digest: Digest) -> list[Action]:
        """The bytes of the last chunk were written."""
        wanted = self.wanted[digest]
        wanted.problem = None
        return self._finish(wanted) if wanted.received == wanted.size else []

    def finished(self, digest: Digest, *, good: bool) -> list[Action]:
        """Complete contents were put in place; or they are not what their hash says."""
        wanted = self.wanted.get(digest)
        if wanted is None:
            return []
        if good:
            self.fetched += 1
            self._retry_after = RETRY_SECONDS
            self._forget(wanted)
            return []
        if len(wanted.sources) == 1 and not wanted.resumed:
            wanted.wrong |= wanted.sources
            self.blamed |= {(device, digest): None for device in wanted.sources}
            for oldest in list(self.blamed)[:-MAX_BLAMED]:
                del self.blamed[oldest]
        hopeless = not wanted.sources and not wanted.resumed  # no bytes at all, and still wrong
        wanted.received = wanted.asked = 0
        wanted.sources.clear()
        wanted.resumed = False
        self._active.pop(digest, None)
        if hopeless:
            self._park(wanted)
        else:
            self._queue(wanted)
        return [Leave(digest, forget=True)]

    def failed(self, digest: Digest, problem: str) -> list[Action]:
        """The disk would not take, or give, what is here of the contents: they are left alone for a while."""
        wanted = self.wanted.get(digest)
        if wanted is None or not wanted.active:
            return []
        self._release(wanted)
        self._ready.pop(digest, None)
        self._urgent.pop(digest, None)
        self._stuck[digest] = None
        self._stuck_until = math.inf
        wanted.stage, wanted.problem = "stuck", problem
        return [Leave(digest, forget=False)]

    @property
    def problem(self) -> str | None:
        """Why the disk does not take something, if it does not."""
        wanted = self.wanted.get(next(iter(self._stuck), b""))
        return wanted.problem if wanted is not None else None

    # -- what is to be done

    def actions(self, now: float) -> list[Action]:
        """What is to be done now, after what the events themselves have said; call it again until that is nothing."""
        actions: list[Action] = []
        for digest in list(self._active):
            wanted = self.wanted[digest]
            if wanted.stage == "fetching" and wanted.asked > wanted.received and now - wanted.heard > STALL_SECONDS:
                assert wanted.source is not None  # noqa: S101 - see Wanted.source
                actions += self.absent(wanted.source, digest, coming=True)  # it has not said that it lacks them
        if self._parked and now >= self._retry_at:
            self._ask_again(list(self._devices))
            self._retry_after = min(2 * self._retry_after, MAX_RETRY_SECONDS)
            self._retry_at = math.inf
        if self._stuck and self._stuck_until == math.inf:
            self._stuck_until = now + self.disk_seconds
        elif self._stuck and now >= self._stuck_until:
            for digest in list(self._stuck):
                self._queue(self.wanted[digest])
        actions += self._begin(now)
        if self._parked and self._retry_at == math.inf:
            self._retry_at = now + self._retry_after
        return actions or self._ask(now)  # what was just opened may have the first turn

    def _begin(self, now: float) -> Iterator[Action]:
        for queue, most in ((self._urgent, MAX_ACTIVE + MAX_URGENT), (self._ready, MAX_ACTIVE)):
            while queue and len(self._active) < most:
                wanted = self.wanted[next(iter(queue))]
                source = self._source_for(wanted)
                if source is None:
                    self._park(wanted)
                    continue
                del queue[wanted.digest]
                self._active[wanted.digest] = None
                wanted.source, wanted.stage, wanted.heard = source, "opening", now
                yield Open(wanted.digest, wanted.size)

    def _source_for(self, wanted: Wanted) -> Id | None:
        """Of the devices that may have it, the one of which the least is asked."""
        there = [d for d in self._devices if d not in wanted.absent and d not in wanted.wrong]
        busy = [self.wanted[digest].source for digest in self._active]
        return min(there, key=lambda d: (self._devices[d].outstanding, busy.count(d)), default=None)

    def _ask(self, now: float) -> list[Action]:
        """A range of each in turn, as long as there is room; what is urgent first."""
        active = [self.wanted[digest] for digest in self._active]
        actions = self._ask_in_turn([wanted for wanted in active if wanted.urgent], now)
        return actions + self._ask_in_turn([wanted for wanted in active if not wanted.urgent], now)

    def _ask_in_turn(self, turns: list[Wanted], now: float) -> list[Action]:
        actions: list[Action] = []
        while turns:
            again = []
            for wanted in turns:
                device = self._devices.get(wanted.source) if wanted.source is not None else None
                if device is None or wanted.stage != "fetching" or wanted.asked >= wanted.size:
                    continue
                room = int(device.window) - device.outstanding
                if room < FILE_CHUNK_BYTES:
                    continue
                length = min(RANGE_BYTES, room - room % FILE_CHUNK_BYTES, wanted.size - wanted.asked)
                assert wanted.source is not None  # noqa: S101 - `device` is it
                if wanted.asked == wanted.received:
                    wanted.heard = now
                actions.append(Ask(wanted.source, wanted.digest, wanted.size, wanted.asked, length))
                wanted.asked += length
                device.outstanding += length
                device.asks.append((wanted.digest, wanted.asked, now))
                self._active[wanted.digest] = self._active.pop(wanted.digest)  # the others have their turn first
                again.append(wanted)
            turns = again
        return actions

    def _measure(self, device: _Device, digest: Digest, received: int, now: float) -> None:
        """When a range is complete: ask for more at once if it came quickly, for less if it had to queue."""
        while device.asks:
            asked_digest, end, when = device.asks[0]
            wanted = self.wanted.get(asked_digest)
            if asked_digest == digest and end <= received:
                taken = now - when
                device.shortest = min(device.shortest, taken)
                step = FILE_CHUNK_BYTES if taken <= device.shortest + TARGET_SECONDS else -2 * FILE_CHUNK_BYTES
                device.window = min(max(device.window + step, SMALLEST_WINDOW), LARGEST_WINDOW)
            elif wanted is not None and wanted.stage == "fetching" and end > wanted.received:
                break  # it is still to come
            device.asks.pop(0)

    # -- moving between the stages

    def _queue(self, wanted: Wanted) -> None:
        for queue in (self._parked, self._stuck, self._ready, self._urgent):
            queue.pop(wanted.digest, None)
        wanted.stage, wanted.source = "ready", None
        (self._urgent if wanted.urgent else self._ready)[wanted.digest] = None

    def _park(self, wanted: Wanted) -> None:
        self._ready.pop(wanted.digest, None)
        self._urgent.pop(wanted.digest, None)
        wanted.stage, wanted.source = "parked", None
        self._parked[wanted.digest] = None

    def _release(self, wanted: Wanted) -> list[Action]:
        """It is not asked for any more, of whom it was."""
        device = self._devices.get(wanted.source) if wanted.source is not None else None
        if device is not None:
            device.outstanding -= wanted.asked - wanted.received
            device.asks = [ask for ask in device.asks if ask[0] != wanted.digest]
        wanted.asked = wanted.received
        self._active.pop(wanted.digest, None)
        self._queue(wanted)
        return [Leave(wanted.digest, forget=False)]

    def _finish(self, wanted: Wanted) -> list[Action]:
        wanted.stage, wanted.source = "finishing", None
        return [Finish(wanted.digest)]

    def _forget(self, wanted: Wanted) -> None:
        for queue in (self._urgent, self._ready, self._parked, self._stuck, self._active):
            queue.pop(wanted.digest, None)
        del self.wanted[wanted.digest]

    def _ask_again(self, devices: list[Id]) -> None:
        for wanted in self.wanted.values():
            wanted.absent.difference_update(devices)
            wanted.coming.difference_update(devices)
        for digest in list(self._parked):
            self._queue(self.wanted[digest])
