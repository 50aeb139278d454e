"""The group's devices as items of the store, and how these and what this device knows (`group`) are kept equal.

The pool "devices" has one `Member` for each device, removed ones included: people and programs look there, it goes
with every copy, and its history says who was added and removed when. `local/group.json` says the same, and counts
where the two differ for a while: a device that was paired, or removed, while the store could not be written.

`pull` takes what the store has into the group, `push` puts into the store what it lacks. Both may be called at any
time, any number of times; a device only ever goes from unknown to member to removed.
"""

from __future__ import annotations

import datetime
from typing import Any, Final

import msgspec

from atop import Item, NoSuchPool, Pool, Store
from atop.errors import AtopError

from . import messages
from .group import Changes, Group
from .identity import DeviceId
from .invitation import InvalidDeviceName, check_name
from .messages import MAX_MEMBERS

POOL: Final = "devices"

_EPOCH: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_MICROSECOND: Final = datetime.timedelta(microseconds=1)


class NoSuchDevice(AtopError, LookupError):
    """The group has no device of this name or id."""


class Member(Item, type_name="atop.Member"):
    """A device of the group. Changed through `Device`, not by hand: what is added here by hand is believed.

    `revoked_at` is None for a member, and the time of the removal for a device that is one no longer.
    """

    name: str
    device_id: str = ""
    public_key: bytes = b""
    tag: int = 0
    added_by: str = ""
    revoked_at: datetime.datetime | None = None

    @staticmethod
    def merge(base: dict[str, Any], mine: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
        """What both sides changed while they were apart: a removal stands, and the first one counts."""
        times = [side["revoked_at"] for side in (mine, theirs) if side.get("revoked_at") is not None]
        return {"revoked_at": min(times)} if times else {}


def entries(store: Store) -> list[messages.Member]:
    """The devices that the store has items for; an item that describes no device is left out."""
    try:
        pool = store.pool(POOL, create=False)
    except NoSuchPool:
        return []
    found: dict[bytes, messages.Member] = {}
    for item in pool:
        entry = _entry_of(item)
        if entry is not None and len(found) < MAX_MEMBERS:
            found[entry.public_key] = entry
    return list(found.values())


def pull(store: Store, group: Group) -> Changes:
    """Take what the store has into the group."""
    return group.merge(entries(store), names=True)


def differs(store: Store, group: Group) -> bool:
    """Whether the store lacks something that the group has."""
    there = {entry.public_key: entry for entry in entries(store)}
    return any(_lacks(there.get(member.public_key), member) for member in group.members())


def push(store: Store, group: Group, label: str = "devices of the group") -> None:
    """Put into the store what it lacks. Raises what a commit raises."""
    if differs(store, group):
        store.transact(_project, store, group.members(), label=label)


def found(store: Store, group: Group) -> None:
    """Have the store say who is in a group that has just been made: those of a former group are not."""
    store.transact(_project, store, group.members(), only=True, label="a group of devices")


def rename(store: Store, public_key: bytes, name: str) -> None:
    """Give a device another name. Raises InvalidDeviceName, NoSuchDevice, and what a commit raises."""
    check_name(name)

    def change() -> None:
        for item in _pool(store):
            if item.name == name and item.revoked_at is None and item.public_key != public_key:
                raise InvalidDeviceName(f"the group has a device named {name!r}: choose another name")
        item = next((item for item in _pool(store) if item.public_key == public_key), None)
        if item is None:
            raise NoSuchDevice("the store does not know this device yet: try again in a moment")
        item.name = name

    store.transact(change, label=f"rename a device to {name}")


def find(group: Group, text: str) -> messages.Member:
    """The member with this name, or id, whole or the first group of it. Raises NoSuchDevice."""
    wanted = text.strip()
    named = [member for member in group.current() if member.name == wanted]
    if not named:
        upper = wanted.upper()
        named = [m for m in group.current() if upper in (id_of(m).short, str(id_of(m)))]
    if len(named) == 1:
        return named[0]
    names = ", ".join(f"{member.name} ({id_of(member).short})" for member in group.current())
    if named:
        raise NoSuchDevice(f"more than one device is called {wanted!r}: give the id of one; there are {names}")
    raise NoSuchDevice(f"the group has no device {wanted!r}; there are {names}")


def id_of(member: messages.Member) -> DeviceId:
    """The id of a member."""
    return DeviceId.from_public_key(member.public_key)


def to_time(microseconds: int | None) -> datetime.datetime | None:
    """A time of a message as one of an item."""
    return None if microseconds is None else _EPOCH + microseconds * _MICROSECOND


def _project(store: Store, members: list[messages.Member], only: bool = False) -> None:
    pool = _pool(store)
    there: dict[bytes, Item] = {}
    for item in pool:
        key = getattr(item, "public_key", None)
        if only and all(key != member.public_key for member in members):
            item.delete()
        elif type(key) is bytes:
            there[key] = item
    for member in members:
        item = there.get(member.public_key)
        if item is None:
            pool.add(_item_of(store, member))
        elif member.revoked_at is not None and getattr(item, "revoked_at", None) is None:
            item.revoked_at = to_time(member.revoked_at)


def _pool(store: Store) -> Pool:
    return store.pool(POOL, indexes=["name"])


def _item_of(store: Store, member: messages.Member) -> Member:
    return Member(
        store,
        name=member.name,
        device_id=str(id_of(member)),
        public_key=member.public_key,
        tag=member.tag,
        added_by="" if member.added_by is None else str(DeviceId(member.added_by)),
        revoked_at=to_time(member.revoked_at),
    )


def _entry_of(item: Any) -> messages.Member | None:
    """What an item says of a device; None if that is not sound: anybody can edit items."""
    try:
        revoked_at = item.revoked_at
        added_by = item.added_by
        return msgspec.convert(
            (
                item.public_key,
                check_name(item.name),
                item.tag,
                DeviceId.parse(added_by).digest if added_by else None,
                None if revoked_at is None else (revoked_at - _EPOCH) // _MICROSECOND,
            ),
            type=messages.Member,
        )
    except (AtopError, AttributeError, TypeError, ValueError, msgspec.ValidationError):
        return None


def _lacks(entry: messages.Member | None, member: messages.Member) -> bool:
    return entry is None or (member.revoked_at is not None and entry.revoked_at is None)
