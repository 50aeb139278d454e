"""The group as this device knows it: its secret, its members, and the file that keeps both beside the store.

The file `local/group.json` (0600) is there so that links start before the store has caught up, and so that a member
that was removed stays out even where the store cannot be written. The devices' items in the store (see `membership`)
say the same to people and programs.

What is known of members only grows: a device is unknown, then a member, then removed, and a removed key never comes
back (a device that is paired again has a new one). So what two devices know can be put together in any order, any
number of times, and both come to the same: `merged` does that.

Promises: a change that `Group` has returned from is on the disk. A key that was removed is refused from the moment that
`merge` or `revoke` is called, even if the disk is full.
Never: the group's id in `repr`, in an error or in a log.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Final, NamedTuple

import msgspec
from msgspec import Meta

from atop.alone import GROUP_FILE, MAX_GROUP_BYTES
from atop.disk import explained, write_durably
from atop.errors import AtopError, StoreDamaged

from .identity import DeviceId, Identity
from .invitation import InvalidDeviceName, check_name
from .messages import MAX_MEMBERS, Hash, Member, Tag

GROUP_ID_BYTES: Final = 32
"""Drawn at random when the group is made: who does not have it cannot finish a handshake."""

MAX_DEVICES: Final = 100
"""Devices in the group at a time, removed ones not counted: their list must fit one message of pairing."""

VERSION: Final = 1

Key = bytes  # a device's public key


class GroupRecord(msgspec.Struct, frozen=True):
    """What the file holds. `others`, how many members there are beside this one, is for `atop/alone.py`."""

    version: int
    group_id: Annotated[bytes, Meta(min_length=GROUP_ID_BYTES, max_length=GROUP_ID_BYTES)]
    majority: bool
    tag: Tag
    copied: bool  # whether this device's store has been complete once
    removed: bool
    others: int
    members: Annotated[list[Member], Meta(max_length=MAX_MEMBERS)]

    def __repr__(self) -> str:
        return f"<GroupRecord of {len(self.members)} devices>"


class Changes(NamedTuple):
    """What a `merge` has brought: ids of devices."""

    added: tuple[DeviceId, ...] = ()
    revoked: tuple[DeviceId, ...] = ()
    renamed: bool = False

    def __bool__(self) -> bool:
        return bool(self.added or self.revoked or self.renamed)

    def and_then(self, more: Changes) -> Changes:
        """Both."""
        return Changes(self.added + more.added, self.revoked + more.revoked, self.renamed or more.renamed)


def merged(mine: Mapping[Key, Member], theirs: Iterable[Member], *, names: bool = False) -> dict[Key, Member]:
    """What is known after `theirs` was heard: all members of both, removed if either says so.

    The earlier removal counts. With `names`, known devices take the names given in `theirs`, else they keep theirs.
    """
    known = dict(mine)
    for heard in theirs:
        before = known.get(heard.public_key)
        if before is None:
            if len(known) < MAX_MEMBERS:
                known[heard.public_key] = heard
            continue
        times = [time for time in (before.revoked_at, heard.revoked_at) if time is not None]
        name = heard.name if names else before.name
        known[heard.public_key] = msgspec.structs.replace(before, revoked_at=min(times, default=None), name=name)
    return known


def distinct_name(name: str, taken: Iterable[str]) -> str:
    """`name`, or with a number after it if another device has it."""
    others = set(taken)
    candidate, number = name, 2
    while candidate in others:
        suffix = f" {number}"
        cut = name.encode()[: 63 - len(suffix)].decode(errors="ignore").rstrip()
        candidate, number = cut + suffix, number + 1
    return candidate


class Group:
    """The group of one device. Methods may be called by any thread."""

    def __init__(self, local: Path, identity: Identity, record: GroupRecord) -> None:
        self._path = local / GROUP_FILE
        self._own = identity.public_key
        self._lock = threading.Lock()  # guards changes; what is read is replaced whole
        self._record = record
        self.revision = 0  # grows with every change
        self._members: dict[Key, Member] = {member.public_key: member for member in record.members}
        self._owed = Changes()  # what is known, and is not on the disk
        self._ids: tuple[dict[Key, Member], frozenset[bytes]] = ({}, frozenset())  # of which members, and who is in

    @classmethod
    def load(cls, local: Path, identity: Identity) -> Group | None:
        """The group in `local`, or None if this device has none. Raises StoreDamaged."""
        path = local / GROUP_FILE
        mend = "remove it, and pair this device again"
        try:
            with path.open("rb") as file:
                record = msgspec.json.decode(file.read(MAX_GROUP_BYTES), type=GroupRecord)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise explained(error, path) from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise StoreDamaged(f"{path} is damaged: {mend}", local.parent) from None
        if record.version != VERSION:
            raise StoreDamaged(f"{path} was written by another version of Atop: update it", local.parent)
        if all(member.public_key != identity.public_key for member in record.members):
            raise StoreDamaged(f"{path} does not go with local/identity, which is of another device: {mend}", path)
        return cls(local, identity, record)

    @classmethod
    def found(cls, local: Path, identity: Identity, name: str, *, tag: int, majority: bool) -> Group:
        """A new group, of this device alone. It is one once it is written down: see `write`."""
        own = Member(identity.public_key, check_name(name), tag, None, None)
        record = GroupRecord(VERSION, secrets.token_bytes(GROUP_ID_BYTES), majority, tag, True, False, 0, [own])
        return cls(local, identity, record)

    def write(self) -> None:
        """Write the group down. Raises StoreFull, StoreReadOnly."""
        with self._lock:
            self._save()

    @classmethod
    def joined(
        cls,
        local: Path,
        identity: Identity,
        group_id: bytes,
        members: Iterable[Member],
        *,
        majority: bool,
    ) -> Group:
        """Take up membership of a group whose `members` have this device among them."""
        known = list(members)
        own = next(member for member in known if member.public_key == identity.public_key)
        record = GroupRecord(VERSION, group_id, majority, own.tag, False, False, 0, known)
        group = cls(local, identity, record)
        group._save()
        return group

    # -- reading

    @property
    def group_id(self) -> bytes:
        """The secret that handshakes are bound to."""
        return self._record.group_id

    @property
    def announced_tag(self) -> bytes:
        """What discovery announces of the group: it tells members who they are looking for, and nobody the id."""
        return hashlib.blake2s(b"atop discovery", key=self._record.group_id, digest_size=16).digest()

    @property
    def majority(self) -> bool:
        """Whether only a side with more than half of the devices may commit."""
        return self._record.majority

    @property
    def tag(self) -> int:
        """This device's part of the ids of items."""
        return self._record.tag

    @property
    def copied(self) -> bool:
        """Whether this device has had the whole store once."""
        return self._record.copied

    @property
    def removed(self) -> bool:
        """Whether this device was removed from the group."""
        return self._record.removed or self._members[self._own].revoked_at is not None

    @property
    def own(self) -> Member:
        """This device's entry."""
        return self._members[self._own]

    @property
    def count(self) -> int:
        """How many devices the group has; 1 for one that was removed, which is on its own."""
        return 1 if self.removed else len(self.current())

    def members(self) -> list[Member]:
        """All devices, removed ones too; as many as one message holds, those that are removed longest left out."""
        return sorted(self._members.values(), key=lambda m: (m.revoked_at is not None, -(m.revoked_at or 0)))[
            :MAX_MEMBERS
        ]

    def current(self) -> list[Member]:
        """The devices that are not removed."""
        return [member for member in self._members.values() if member.revoked_at is None]

    def member(self, device: DeviceId) -> Member | None:
        """The entry of a device, removed or not."""
        return next((m for m in self._members.values() if DeviceId.from_public_key(m.public_key) == device), None)

    def accepts(self, public_key: bytes) -> bool:
        """Whether the device with this key is a member."""
        member = self._members.get(public_key)
        return member is not None and member.revoked_at is None

    def includes(self, device: bytes) -> bool:
        """Whether the device whose id has these 32 bytes is a member; asked for every message of a relayed link."""
        members, ids = self._ids
        if members is not self._members:
            members = self._members
            current = [m.public_key for m in members.values() if m.revoked_at is None]
            ids = frozenset(DeviceId.from_public_key(key).digest for key in current)
            self._ids = (members, ids)
        return device in ids

    def is_removed(self, public_key: bytes) -> bool:
        """Whether it was one once."""
        member = self._members.get(public_key)
        return member is not None and member.revoked_at is not None

    # -- changing

    def merge(self, members: Iterable[Member], *, names: bool = False) -> Changes:
        """Put what was heard of members to what is known.

        Raises StoreFull, StoreReadOnly: it is not on the disk; the next call tries again, and returns it too.
        """
        with self._lock:
            before = self._members
            self._members = after = merged(before, [m for m in members if _is_sound(m)], names=names)
            changes = Changes(
                tuple(DeviceId.from_public_key(key) for key in after.keys() - before.keys()),
                tuple(
                    DeviceId.from_public_key(key)
                    for key, member in after.items()
                    if member.revoked_at is not None and (key not in before or before[key].revoked_at is None)
                ),
                any(before[key].name != member.name for key, member in after.items() if key in before),
            )
            self._owed = changes = self._owed.and_then(changes)
            if changes:
                self._save()
                self._owed = Changes()
            return changes

    def revoke(self, public_keys: Iterable[bytes], now: int) -> Changes:
        """Remove devices from the group; `now` is in microseconds."""
        gone = [self._members[key] for key in public_keys]
        return self.merge(msgspec.structs.replace(member, revoked_at=now) for member in gone)

    def mark_copied(self) -> None:
        """This device has the whole store now."""
        self._mark(copied=True)

    def mark_removed(self) -> None:
        """A member has said that this device was removed."""
        self._mark(removed=True)

    def _mark(self, **what: bool) -> None:
        with self._lock:
            if any(getattr(self._record, name) is not value for name, value in what.items()):
                before = self._record
                self._record = msgspec.structs.replace(before, **what)
                try:
                    self._save()
                except AtopError:
                    if not self.removed:  # a removal holds anyhow; what is not written down is written another time
                        self._record = before
                    raise

    def _save(self) -> None:
        others = 0 if self.removed else len(self.current()) - 1
        self.revision += 1
        self._record = msgspec.structs.replace(self._record, members=list(self._members.values()), others=others)
        try:
            write_durably(self._path, json.dumps(msgspec.to_builtins(self._record), indent=1).encode() + b"\n", 0o600)
        except OSError as error:
            raise explained(error, self._path) from error

    def __repr__(self) -> str:
        return f"<Group of {self.count} devices>"


def _is_sound(member: Member) -> bool:
    """Whether an entry is one that can be shown and used."""
    try:
        check_name(member.name)
    except InvalidDeviceName:
        return False
    return True


__all__ = [
    "GROUP_FILE",
    "GROUP_ID_BYTES",
    "MAX_DEVICES",
    "Changes",
    "Group",
    "GroupRecord",
    "Hash",
    "distinct_name",
    "merged",
]
