"""What has been heard: a bounded table of candidates, and the difference between two looks at it.

Promises: however much the network claims, the table stays within its limits, and a device that the group
knows is never pushed out by strangers. Pure: time is passed in.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from discovery.addresses import PeerAddress
from discovery.announcement import Announcement

MAX_CANDIDATES = 128  # heard on the network and kept: one person's devices many times over
MAX_PER_DEVICE = 4  # names under which one device id is kept: a renamed device and a forger or two
MAX_PREFERRED = 1024  # device ids to prefer: more than any group has
MAX_TURNED_AWAY = 1024  # names remembered only to be counted


class Change(enum.Enum):
    """What happened to a candidate."""

    FOUND = "found"
    CHANGED = "changed"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A place where a handshake may be tried. Nothing in it is proven before that handshake.

    `key` identifies it from found to lost. `name` is fit for display. `device_id` and `group_tag` are what
    the other side claims, None for a fixed address. `pairing` is the number of its open invitation. `version`
    is its protocol version, None for a fixed address. `addresses` are never empty, best first; an IPv6
    link-local one has its zone.
    """

    key: str
    name: str
    addresses: tuple[str, ...]
    port: int
    device_id: str | None = None
    group_tag: str | None = None
    pairing: int | None = None
    version: int | None = None
    fixed: bool = False


def from_announcement(key: str, heard: Announcement) -> Candidate:
    """The candidate that an announcement makes."""
    return Candidate(
        key=key,
        name=heard.name,
        addresses=heard.addresses,
        port=heard.port,
        device_id=heard.device_id,
        group_tag=heard.group_tag,
        pairing=heard.pairing,
        version=heard.version,
    )


def from_fixed(peer: PeerAddress, addresses: tuple[str, ...]) -> Candidate:
    """The candidate that a fixed address makes, once its name is looked up."""
    return Candidate(key=f"fixed:{peer}", name=str(peer), addresses=addresses, port=peer.port, fixed=True)


def differences(before: Mapping[str, Candidate], after: Mapping[str, Candidate]) -> list[tuple[Change, Candidate]]:
    """What leads from one set of candidates to another: those lost, as they last were, then the others."""
    lost = [(Change.LOST, candidate) for key, candidate in before.items() if key not in after]
    rest = [
        (Change.CHANGED if key in before else Change.FOUND, candidate)
        for key, candidate in after.items()
        if before.get(key) != candidate
    ]
    return lost + rest


class CandidateTable:
    """The candidates heard on the network, by their full name in lower case.

    `wanted_group` keeps devices with that group tag, `wanted_pairing` those that invite under that number; a
    device needs to match only one. `own_device_id` is never a candidate.

    Invariants: at most MAX_CANDIDATES entries, at most MAX_PER_DEVICE of one device id.
    """

    def __init__(self, own_device_id: str | None, wanted_group: str | None, wanted_pairing: int | None) -> None:
        self._own_device_id = own_device_id
        self._wanted_group = wanted_group
        self._wanted_pairing = wanted_pairing
        self._preferred: frozenset[str] = frozenset()
        self._candidates: dict[str, Candidate] = {}
        self._heard_at: dict[str, float] = {}
        self._other_groups: set[str] = set()
        self._crowded_out: set[str] = set()

    @property
    def other_groups(self) -> int:
        """How many devices are heard that belong to other groups."""
        return len(self._other_groups)

    @property
    def crowded_out(self) -> int:
        """How many announcements found no room."""
        return len(self._crowded_out)

    def prefer(self, device_ids: Iterable[str]) -> None:
        """Ids of the group's devices, which never give way to others; MAX_PREFERRED of them count."""
        self._preferred = frozenset(sorted(device_ids)[:MAX_PREFERRED])

    def heard(self, now: float, key: str, announcement: Announcement) -> None:
        """Take in an announcement, if it is wanted and there is room; one that is no longer wanted goes."""
        if announcement.device_id == self._own_device_id:
            self.gone(key)
            return
        in_group = self._wanted_group is not None and announcement.group_tag == self._wanted_group
        invites = self._wanted_pairing is not None and announcement.pairing == self._wanted_pairing
        if not in_group and not invites:
            self.gone(key)
            if len(self._other_groups) < MAX_TURNED_AWAY:
                self._other_groups.add(key)
            return
        candidate = from_announcement(key, announcement)
        known = self._candidates.get(key)
        same_device = known is not None and known.device_id == candidate.device_id
        if not same_device and not self._make_room(key, announcement.device_id):
            if len(self._crowded_out) < MAX_TURNED_AWAY:
                self._crowded_out.add(key)
            return
        self._other_groups.discard(key)
        self._crowded_out.discard(key)
        self._candidates[key] = candidate
        self._heard_at[key] = now

    def gone(self, key: str) -> None:
        """Forget a candidate: it said goodbye, or its announcement ran out."""
        self._candidates.pop(key, None)
        self._heard_at.pop(key, None)
        self._other_groups.discard(key)
        self._crowded_out.discard(key)

    def forget_turned_away(self) -> None:
        """Start counting anew: what is heard from now on counts."""
        self._other_groups.clear()
        self._crowded_out.clear()

    def sweep(self, heard_before: float) -> None:
        """Forget every candidate that was not heard since that time."""
        for key in [key for key, heard_at in self._heard_at.items() if heard_at < heard_before]:
            self.gone(key)

    def snapshot(self) -> dict[str, Candidate]:
        """A copy of the table."""
        return dict(self._candidates)

    def _make_room(self, key: str, device_id: str) -> bool:
        """Whether `key` may become a candidate of `device_id`; a stranger gives way to a preferred device."""
        others = [one for other, one in self._candidates.items() if other != key]
        if sum(one.device_id == device_id for one in others) >= MAX_PER_DEVICE:
            return False
        if len(others) < MAX_CANDIDATES:
            return True
        if device_id not in self._preferred:
            return False
        strangers = [one.key for one in others if one.device_id not in self._preferred]
        if not strangers:
            return False
        self.gone(min(strangers, key=lambda stranger: self._heard_at[stranger]))
        return True
