"""Who belongs to the group, kept in step in three places: this device's file, its store, and the other devices.

News of members come from pairing, from a person who removes a device, from other devices (MEMBERS), and from the store.
Each goes the same way (`apply`): what is new is written down, links to removed devices end, the others are told. What
the store lacks is put there by whoever is master, now or later: a removal holds from the moment it is known, whether
the store can be written or not.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from atop import AtopError, NoMaster, Store

from . import membership
from .connections import Connections
from .errors import NotAMember
from .group import MAX_DEVICES, Changes, Group, distinct_name
from .identity import DeviceId, Identity
from .invitation import InvalidDeviceName, PairingFailed, check_name
from .joining import Welcome, welcome_bytes
from .manager import ReplicationManager
from .messages import MAX_MEMBERS, Member, Members
from .pairing import Refusal
from .pairing_socket import Refused

log = logging.getLogger(__name__)

Work = Callable[[], object]


class Steward:
    """The members of one device's group. Methods may be called by any thread, `look` and `go_alone` by the device's.

    Fields: `group`, None for a device on its own; `store` and `connections`, set by the device; `problem`, for people.

    Args:
        later: has a piece of work done by the device's thread.
        on_alone: called when this device was removed.
    """

    def __init__(
        self,
        path: Path,
        identity: Identity,
        manager: ReplicationManager,
        group: Group | None,
        *,
        later: Callable[[Work], None],
        on_alone: Work,
    ) -> None:
        self.group = group
        self.store: Store | None = None
        self.connections: Connections | None = None
        self.problem: str | None = None
        self._path = path
        self._identity = identity
        self._manager = manager
        self._later = later
        self._on_alone = on_alone
        self._looked_at = (-1, -1)  # the commit, and the group's revision, at which store and group were last equal

    @property
    def joined(self) -> Group:
        """The group. Raises NotAMember if this device is on its own."""
        if self.group is None or self.group.removed:
            raise NotAMember("this device shares its store with no other: invite one first (atop invite)")
        return self.group

    def found(self, name: str, *, majority: bool) -> Group:
        """Make a group of this device alone."""
        store = self._open_store()
        tag = self.group.tag if self.group is not None else 0
        group = Group.found(self._path / "local", self._identity, name, tag=tag, majority=majority)
        # First the store: while it has devices of a former group, as that of a backup may, nobody is to believe it.
        membership.found(store, group)
        group.write()
        self.group = group
        self._manager.set_members(1, majority=majority)
        return group

    def _open_store(self) -> Store:
        if self.store is None:
            raise NotAMember("this device waits for its copy of the store")
        return self.store

    # -- news

    def list(self) -> Members:
        """What to tell other devices."""
        return Members(self.group.members() if self.group is not None else [])

    def heard(self, message: Members) -> None:
        """Another device says who the members are."""
        if self.group is None or self.group.removed:
            return
        group = self.group
        try:
            self._learn(lambda: group.merge(message.members))
        except AtopError as error:
            self.problem = f"what was heard of the group's devices is not written down: {error}"

    def told_removed(self, public_key: bytes) -> None:
        """A device says that this one was removed."""
        group = self.group
        if group is not None and not group.removed and group.accepts(public_key):
            self._later(self.go_alone)

    def _learn(self, news: Callable[[], Changes]) -> None:
        """Take news of members in, and act on them. Raises why they cannot be written down; a removal holds anyhow."""
        try:
            changes = news()
        except AtopError:
            connections = self.connections
            if connections is not None:
                connections.part()
            raise
        self.apply(changes)

    def apply(self, changes: Changes) -> None:
        """Act on changed members."""
        group, connections = self.group, self.connections
        if not changes or group is None:
            return
        if group.removed:
            self._later(self.go_alone)
            return
        self._manager.set_members(group.count)
        if connections is not None:
            connections.members_changed(changes, self.list())
        self._later(self.look)

    def go_alone(self) -> None:
        """This device was removed: it keeps what it has, and has nothing to do with the others any more."""
        if self.group is not None:
            log.warning("%s was removed from the group; its data is kept", self.group.own.name)
            self.group.mark_removed()
        self._on_alone()
        self._manager.set_members(1)

    def look(self) -> None:
        """Bring the store and what this device knows together. Raises what a commit raises."""
        group, store = self.group, self.store
        if group is None or group.removed or store is None:
            return
        now = store.head.number, group.revision
        if now != self._looked_at:
            self._learn(lambda: membership.pull(store, group))
            if self._manager.is_master and not group.removed:
                membership.push(store, group)
            if not membership.differs(store, group):
                self._looked_at = now
        self.problem = None

    # -- what people do

    def remove(self, name: str, *, lost: bool, reachable: int) -> None:
        """Remove a device; see `Device.remove`. `reachable`: how many devices are, this one included."""
        group = self.joined
        gone = membership.find(group, name)
        if gone.public_key == self._identity.public_key:
            raise NotAMember("a device cannot remove itself: do it on another one, or stop using this one")
        if group.majority and not lost and 2 * reachable <= group.count:
            raise NoMaster(
                f"less than half of the group's devices are reachable, and it wants a majority: {gone.name} was not "
                "removed. If the others are lost for good, remove them with lost=True (atop devices remove --lost)"
            )
        self._learn(lambda: group.revoke([gone.public_key], time.time_ns() // 1000))
        try:
            membership.push(self._open_store(), group, f"remove device {gone.name}")
        except NoMaster as error:
            log.info("a removal is written down here, and goes into the store later: %s", error)

    def rename(self, name: str, device: str | None) -> bool:
        """Give a device another name; returns whether it is this one. See `Device.rename`."""
        check_name(name)
        group = self.group
        if group is None or group.removed:
            if device is not None:
                raise NotAMember("this device is in no group, and knows no other")
            return True
        member = group.own if device is None else membership.find(group, device)
        if any(one.name == name and one.public_key != member.public_key for one in group.current()):
            raise InvalidDeviceName(f"the group has a device named {name!r}: choose another name")
        store = self._open_store()
        membership.push(store, group)
        membership.rename(store, member.public_key, name)
        self._learn(lambda: membership.pull(store, group))
        return member.public_key == self._identity.public_key

    # -- pairing

    def welcome_for(self, public_key: bytes, name: str) -> bytes:
        """What a device is given that has proven the code. Raises Refused."""
        group = self.joined
        entry = self._entry_for(group, public_key, name)
        others = [member for member in group.current() if member.public_key != public_key]
        return welcome_bytes(Welcome(group.group_id, group.majority, [*others, entry]))

    def admit(self, public_key: bytes, name: str) -> None:
        """Make a device that has proven the code a member. Raises PairingFailed, and what writing raises."""
        group = self.joined
        try:
            self._learn(lambda: group.merge([self._entry_for(group, public_key, name)]))
        except Refused as refused:
            raise PairingFailed(refused.text) from None

    def _entry_for(self, group: Group, public_key: bytes, name: str) -> Member:
        device = DeviceId.from_public_key(public_key)
        if group.is_removed(public_key):
            raise Refused(Refusal.REMOVED, f"device {device.short} was removed before: it joins with a new store")
        if any(member.tag == device.tag and member.public_key != public_key for member in group.members()):
            raise Refused(Refusal.TAG_TAKEN, f"device {device.short} has the tag of another one: it tries again")
        taken = [member.name for member in group.current() if member.public_key != public_key]
        known = group.members()
        full = len(known) >= MAX_MEMBERS and all(member.public_key != public_key for member in known)
        if len(taken) >= MAX_DEVICES or full:
            raise Refused(Refusal.FULL, Refusal.FULL.text)
        return Member(public_key, distinct_name(name, taken), device.tag, self._identity.device_id.digest, None)
