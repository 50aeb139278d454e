"""How a device and its group stand: frozen values with plain fields, for people, programs and the browser.

Nothing secret is in them: no code, no key, no content.
"""

from __future__ import annotations

import datetime
import shlex
import time
from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Final

from discovery import DiscoveryStatus

from .group import Group
from .hub import Heard, Hub
from .identity import DeviceId
from .link import LinkStatus
from .manager import ManagerStatus
from .membership import id_of, to_time
from .messages import Member
from .pairing_socket import InvitationStatus
from .peers import PeersStatus

PHASES: Final = {
    "comparing": "comparing histories",
    "salvaging": "putting commits in safety",
    "following": "following the other history",
    "replaying": "bringing commits together",
}

SETTLING: Final = {
    "starting": "looking for the other devices",
    "waiting": "looking for a master",
    "electing": "agreeing on a master",
}
"""What a device does in a role that is none yet: it is not said to be in sync before."""

CLOCK_SECONDS: Final = 300.0
"""How far clocks may be apart before it is said: of two changes the later one is kept, by the devices' clocks."""

RATE_FLOOR: Final = 1.0
BYTES_FLOOR: Final = 1_000.0
"""Commits and bytes a second below which it is not said how long something will take."""


@dataclass(frozen=True)
class PeerStatus:
    """Another device of the group.

    `online`: it is reached. `role`: "master", "replica", "electing", "waiting", "starting", or None while it is
    not heard. `in_sync`: its history ends with the same commit as this device's, by number and chain. `behind` and
    `ahead`: how many commits it lacks, or has more (None: not known); `seconds`: about how long until that is made up.
    `through` names the device that passes messages on, where there is no link of their own. `round_trip` is in seconds;
    so is `clock_ahead`: how far its clock is ahead of this device's (None: not known). `removed_at` is set for a device
    that was removed.
    """

    name: str
    device_id: str
    online: bool
    role: str | None = None
    in_sync: bool = False
    commit: int | None = None
    behind: int | None = None
    ahead: int | None = None
    seconds: float | None = None
    address: str | None = None
    through: str | None = None
    round_trip: float | None = None
    heard_seconds_ago: float | None = None
    removed_at: datetime.datetime | None = None
    clock_ahead: float | None = None


@dataclass(frozen=True)
class WorkStatus:
    """Something that takes a while: `what` in words, and how much of it is done.

    `unit` is "bytes" or "commits"; `total` and `seconds` (left) are None while they are not known.
    """

    what: str
    unit: str
    done: int
    total: int | None = None
    seconds: float | None = None

    @property
    def text(self) -> str:
        """A line for people."""
        if self.total == 0:  # it is not known yet how much it is
            return self.what
        scale, name = 1, self.unit
        if self.unit == "bytes":
            most = max(self.done, self.total or 0)
            scale, name = (10**6, "MB") if most >= 10**7 else (10**3, "kB")
        of = f" of {self.total / scale:,.0f}" if self.total is not None else ""
        about = f", about {duration(self.seconds)}" if self.seconds is not None else ""
        return f"{self.what}: {self.done / scale:,.0f}{of} {name}{about}"


@dataclass(frozen=True)
class FileCounts:
    """Contents of files that this device lacks; of these, `waiting` are on no device that is reachable now.

    `sent_bytes` went to devices that are linked now, since they are. `all_found`: whether the store was looked through
    for what is missing; there may be more while it was not.
    """

    missing: int = 0
    missing_bytes: int = 0
    waiting: int = 0
    problem: str | None = None
    sent_bytes: int = 0
    all_found: bool = True


@dataclass(frozen=True)
class DeviceStatus:
    """A device.

    `role` is one of "master", "replica", "electing", "waiting", "starting"; a device on its own is master. `grouped`:
    whether it shares its store with others; `removed`: whether it did, and was removed. `in_sync`: every other device
    that is online has the same history, and there is one at least. `parted`: the master lacks commits that are here;
    this device waits, its data readable. `work` is what takes a while just now; `files` counts contents that have
    not come yet. Since the start, `replayed` commits of this device were brought into another history, `merged` items
    had been changed on both sides, and `conflicts` values were put aside. `problems` are for people, in order of
    weight.
    """

    name: str
    device_id: str
    store: str
    role: str
    master: str | None
    commit: int
    chain: str
    grouped: bool
    removed: bool
    consistency: str
    in_sync: bool
    parted: bool
    port: int | None
    announced_as: str | None
    peers: tuple[PeerStatus, ...]
    invitation: InvitationStatus | None
    problems: tuple[str, ...]
    work: tuple[WorkStatus, ...] = ()
    files: FileCounts = FileCounts()
    conflicts: int = 0
    replayed: int = 0
    merged: int = 0

    @property
    def summary(self) -> str:
        """One line: in sync, or what is missing where, and how long it will take."""
        return "; ".join(filter(None, (self._commits_summary(), self._files_summary())))

    def _files_summary(self) -> str:
        waiting = self.files.waiting
        return f"contents of {_count(waiting, 'file')} on no device that can be reached" if waiting else ""

    def _commits_summary(self) -> str:
        if self.removed:
            return "removed from the group; the data is kept, and this device goes on alone"
        present = [peer for peer in self.peers if peer.removed_at is None]
        if not self.grouped or not present:
            return "no other devices: atop invite adds one"
        online = [peer for peer in present if peer.online]
        if not online:
            return "no other device is reachable; what is written here reaches them when they are back"
        if self.work:
            return "; ".join(work.text for work in self.work)
        if self.parted:
            return "waiting: the master lacks commits that are here; they are being put in safety"
        if self.in_sync and self.role in SETTLING:
            return f"about to follow {self.master}" if self.role == "waiting" and self.master else SETTLING[self.role]
        if self.in_sync:
            away = [peer.name for peer in present if not peer.online]
            return "in sync" + (f" with {_names(online)}; not reachable: {', '.join(away)}" if away else "")
        return "; ".join(text for peer in online if (text := lag_of(peer)))


def lag_of(peer: PeerStatus) -> str:
    """What a device that is online lacks, or has more; empty if it is in sync."""
    if peer.in_sync:
        return ""
    about = f", about {duration(peer.seconds)}" if peer.seconds is not None else ""
    if peer.behind:
        return f"{peer.name} lacks {_commits(peer.behind)}{about}"
    if peer.ahead:
        return f"{_commits(peer.ahead)} of {peer.name} missing here{about}"
    return f"comparing with {peer.name}"


def duration(seconds: float) -> str:
    """A time that something will take, for people."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _names(peers: list[PeerStatus]) -> str:
    return ", ".join(peer.name for peer in peers)


def _commits(count: int) -> str:
    return _count(count, "commit")


def _count(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


@dataclass(frozen=True)
class Sources:
    """What a status is made of."""

    name: str
    device_id: DeviceId
    store: str
    group: Group | None
    manager: ManagerStatus
    hub: Hub
    port: int | None
    linking: PeersStatus | None
    discovery: DiscoveryStatus | None
    invitation: InvitationStatus | None
    problem: str | None
    awaited: Container[str]  # ids of devices that were paired and have not been here

    def name_of(self, device: DeviceId) -> str:
        """How people call a device."""
        member = self.group.member(device) if self.group is not None else None
        return member.name if member is not None else self.name if device == self.device_id else device.short


def status_of(sources: Sources) -> DeviceStatus:
    """How a device stands."""
    group, manager, found = sources.group, sources.manager, sources.discovery
    peers = _peers_of(sources)
    online = [peer for peer in peers if peer.online]
    removed = group is not None and group.removed
    return DeviceStatus(
        name=sources.name,
        device_id=str(sources.device_id),
        store=sources.store,
        role=manager.role.value,
        master=None if manager.master is None else sources.name_of(manager.master),
        commit=manager.head.number,
        chain=manager.head.chain.hex(),
        grouped=group is not None and not removed,
        removed=removed,
        consistency="majority" if group is not None and group.majority else "available",
        in_sync=bool(online) and all(peer.in_sync for peer in online),
        parted=manager.parted,
        port=sources.port,
        announced_as=found.announced_as if found is not None else None,
        peers=peers,
        invitation=sources.invitation,
        problems=_problems_of(sources, removed, peers),
        work=_work_of(manager),
        files=FileCounts(
            manager.files.missing,
            manager.files.missing_bytes,
            manager.files.waiting,
            manager.files.problem,
            manager.files.sent_bytes,
            manager.files.all_found,
        ),
        conflicts=manager.reconcile.conflicts,
        replayed=manager.reconcile.replayed,
        merged=manager.reconcile.merged,
    )


def _work_of(manager: ManagerStatus) -> tuple[WorkStatus, ...]:
    """What takes a while."""
    found = []
    copy, reconcile, files = manager.copy, manager.reconcile, manager.files
    if copy is not None:
        found.append(WorkStatus("copying the store", "bytes", copy.received, copy.total, copy.seconds))
    if reconcile.phase != "idle":
        found.append(
            WorkStatus(PHASES.get(reconcile.phase, reconcile.phase), "commits", reconcile.done, reconcile.total)
        )
    if files.fetching:
        received = sum(one.received for one in files.fetching)
        seconds = files.missing_bytes / files.rate if files.rate >= BYTES_FLOOR else None
        found.append(WorkStatus("fetching files", "bytes", received, received + files.missing_bytes, seconds))
    return tuple(found)


def _peers_of(sources: Sources) -> tuple[PeerStatus, ...]:
    """The other devices of a group, the removed ones last."""
    group, hub = sources.group, sources.hub
    if group is None or group.removed:
        return ()
    links = {link.device_id.digest: link for link in sources.linking.links} if sources.linking is not None else {}
    others = [member for member in group.members() if member.public_key != group.own.public_key]
    heard = [(member, hub.heard(id_of(member).digest)) for member in others]
    own_rate = max((one.rate or 0.0 for _, one in heard if one is not None), default=0.0)
    return tuple(_peer(sources, member, links, one, own_rate) for member, one in heard)


def _peer(
    sources: Sources, member: Member, links: Mapping[bytes, LinkStatus], heard: Heard | None, rate: float
) -> PeerStatus:
    manager = sources.manager
    device = id_of(member)
    link = links.get(device.digest)
    link = link if link is not None and link.failure is None else None
    known = next((peer for peer in manager.peers if peer.device == device), None)
    if member.revoked_at is not None:
        return PeerStatus(member.name, str(device), False, removed_at=to_time(member.revoked_at))
    ago = None if heard is None else time.monotonic() - heard.at
    if (link is None and known is None) or heard is None:
        last = None if heard is None else heard.commit
        return PeerStatus(member.name, str(device), False, commit=last, heard_seconds_ago=ago)
    commit = max(heard.commit, known.number if known is not None else 0)
    head = manager.head.number
    same = commit == head and (head in (heard.same_at, 0) or heard.said == manager.head)
    behind, ahead = max(0, head - commit), max(0, commit - head)
    speed = (heard.rate if behind else rate) or 0.0
    return PeerStatus(
        member.name,
        str(device),
        True,
        role=known.role.value if known is not None and known.role is not None else None,
        in_sync=same,
        commit=commit,
        behind=behind,
        ahead=ahead,
        seconds=(behind or ahead) / speed if (behind or ahead) and speed >= RATE_FLOOR else None,
        address=None if link is None else link.address.removeprefix("::ffff:"),  # IPv4 on a socket for both
        through=None if known is None or known.via is None else sources.name_of(known.via),
        round_trip=None if link is None else link.round_trip,
        heard_seconds_ago=ago if link is None else link.silent_for,
        clock_ahead=None if link is None else heard.clock_ahead,
    )


def _problems_of(sources: Sources, removed: bool, peers: tuple[PeerStatus, ...]) -> tuple[str, ...]:
    """What is wrong, the weightiest first."""
    manager = sources.manager
    said = (sources.problem, manager.problem, manager.reconcile.problem, manager.files.problem)
    found = [text for text in said if text is not None]
    found += [
        f"{sources.name_of(device)} has sent something else in the place of a file ({digest.hex()[:12]}), and is not "
        "asked for it again: run 'atop verify' there"
        for device, digest in manager.files.wrong
    ]
    if removed:
        found.insert(0, "this device was removed from the group; its data is kept")
    found += [text for peer in peers if (text := _clock_problem(peer))]
    found += [
        f"{peer.name}: paired, and has never been here: remove it if the pairing was broken off "
        f"(atop devices remove {shlex.quote(peer.name)})"
        for peer in peers
        if not peer.online and peer.removed_at is None and peer.device_id in sources.awaited
    ]
    if sources.linking is not None:
        found += _unreached(sources, sources.linking)
    if sources.discovery is not None:
        found += sources.discovery.problems
    return tuple(dict.fromkeys(found))


def _clock_problem(peer: PeerStatus) -> str:
    """That the clocks of two devices are apart, if they are."""
    ahead = peer.clock_ahead or 0.0
    if abs(ahead) < CLOCK_SECONDS:
        return ""
    way = "ahead of" if ahead > 0 else "behind"
    return f"{peer.name}'s clock is {_long_time(abs(ahead))} {way} this device's: set the one that is wrong"


def _long_time(seconds: float) -> str:
    """How far clocks are apart, for people: in the largest unit of which there are two, or in minutes."""
    for unit, size in (("year", 365.25 * 86400), ("day", 86400.0), ("hour", 3600.0)):
        if seconds >= 1.95 * size:
            return _count(round(seconds / size), unit)
    return _count(round(seconds / 60), "minute")


def _unreached(sources: Sources, linking: PeersStatus) -> list[str]:
    """Why devices are not reached, in a line for each: it may be looked for at several places."""
    group = sources.group
    names = {id_of(member).short: member.name for member in group.members()} if group is not None else {}
    told: dict[str, list[str]] = {}
    for place, problem in linking.problems.items():
        name = names.get(linking.devices.get(place, ""), place.removeprefix("fixed:"))
        if problem not in told.setdefault(name, []):
            told[name].append(problem)
    return [f"{name}: {'; '.join(problems)}" for name, problems in told.items()]
