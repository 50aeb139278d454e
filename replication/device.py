"""`Device`: a store on this device, kept equal to those of the group's other devices.

    with Device.open("~/pim", name="laptop") as device:
        print(device.invite().code)             # 7-guitar-orbit: to be typed on the other device
        ...
        device.store.pool("people").add(...)    # the store is used as ever

    with Device.join("~/pim", "7-guitar-orbit", name="desktop") as device:
        ...                                     # a full copy, from now on kept equal

A device on its own has no port open and says nothing on the network: that begins with its first invitation.

What it stands on: `manager` (who is master, commits to the master), `peers` (links), `discovery`, `group` and
`membership` (who belongs), `pairing_socket`. Locks are taken in none of its calls while it waits for the network.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from atop import AtopError, NoMaster, Store, StoreError
from atop.disk import explained
from atop.engine import Durability
from atop.owner import OwnerLock
from discovery import DEFAULT_PORT, Candidate, Change, Discovery

from . import membership, settings
from .device_status import DeviceStatus, PeerStatus, peers_of, problems_of
from .group import MAX_DEVICES, Changes, Group, distinct_name
from .handshake import Credentials
from .hub import Hub, LinkListener
from .identity import DeviceId, Identity
from .invitation import PairingFailed, check_name
from .joining import Welcome, pair, prepare, welcome_bytes
from .link import Link
from .listener import CannotListen
from .manager import ReplicationManager
from .messages import Member, Members, Reason
from .pairing import Refusal
from .pairing_socket import Confirm, OpenInvitation, Refused
from .peers import Peers

if TYPE_CHECKING:
    import socket

log = logging.getLogger(__name__)

TICK_SECONDS: Final = 0.5
"""How often a device looks whether the store knows of other members than it does, and compares heads."""


class NotAMember(AtopError):
    """This device does not belong to a group, or not any more; or what was asked for needs one."""


class Device:
    """A store and its part in a group. Made by `open` and `join`; methods may be called by any thread.

    Fields to read: `store`, an open `atop.Store`, and `path`.
    """

    store: Store

    def __init__(self, path: Path, chosen: settings.Settings, options: dict[str, Any]) -> None:
        self.path = path
        self._local = path / "local"
        self._settings = chosen
        self._identity = Identity.load_or_create(self._local)
        self._group = Group.load(self._local, self._identity)
        self._lock = threading.Lock()  # over making the group, the connections and invitations; never held long
        self._peers: Peers | None = None
        self._discovery: Discovery | None = None
        self._port: int | None = None
        self._invitation: OpenInvitation | None = None
        self._problem: str | None = None  # about members: what could not be written down
        self._looked_at = -1  # the commit at which the store was last looked at for members
        self._closed = False
        self._work: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        group = self._group
        if group is not None and group.removed and not group.copied:
            raise NotAMember(
                f"the store {path} was paired, and its device removed before a copy came: pair it again in a new store"
            )
        self._manager = ReplicationManager(
            self._identity.device_id,
            members=group.count if group is not None else 1,
            majority=group is not None and group.majority,
            joining=group is not None and not group.copied,
        )
        self._hub = Hub(
            self._manager,
            members=self._member_list,
            on_members=self._heard_members,
            on_removed=self._told_removed,
        )
        with contextlib.ExitStack() as undo:
            undo.callback(self._disconnect)
            undo.callback(self._manager.close)
            if group is not None and not group.removed:
                self._connect(group)
            tag = group.tag if group is not None else 0
            self.store = Store(path, replication=self._manager, tag=tag, **options)
            undo.callback(self.store.close)
            if group is not None:
                group.mark_copied()
            undo.pop_all()
        self._thread = threading.Thread(target=self._run, name="atop-device", daemon=True)
        self._thread.start()

    # -- opening and closing

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        name: str | None = None,
        port: int | None = None,
        peers: Iterable[str] | None = None,
        interfaces: Iterable[str] | None = None,
        multicast: bool | None = None,
        consistency: str | None = None,
        durability: Durability = "flushed",
        cache_size: int | None = None,
    ) -> Device:
        """Open the store at `path`, made if it is not there, as a device of its group.

        What is not given is taken from `local/settings.toml` (see `replication/settings.py`).

        Args:
            name: how the device is called. It is kept; a device that has one keeps that (see `rename`).
            port: where it accepts links; 0 is any free one.
            peers: addresses ("desktop.lan:4747") to try beside what is found on the network.
            interfaces: names or patterns of the network interfaces to look for devices on.
            multicast: whether to announce this device, and listen for others.
            consistency: of the group that this device makes, if it makes one: "available" (an application's write
                succeeds whatever is switched off) or "majority" (where less than half of the devices are reachable,
                writing raises NoMaster).
            durability, cache_size: as of `Store`.

        Raises:
            StoreBusy: another process has it open.
            CannotListen: the port that was asked for is taken.
            NoMaster: a device that has just been paired has found no other to copy the store from.
            SettingsError, IdentityError, and what `Store` raises.
        """
        where = Path(path).expanduser().absolute()
        local = prepare(where)
        OwnerLock(local / "owner.lock", where).release()  # raises StoreBusy before anything is said on the network
        chosen = _chosen(local, name, port, peers, interfaces, multicast, consistency)
        return cls(where, chosen, {"durability": durability, "cache_size": cache_size})

    @classmethod
    def join(
        cls,
        path: str | os.PathLike[str],
        code: str,
        *,
        name: str | None = None,
        address: str | None = None,
        confirm: Confirm | None = None,
        **more: Any,
    ) -> Device:
        """Join the group of the device that shows `code`, and copy its store to `path`, which must be empty or new.

        Args:
            name: how this device is to be called.
            address: where the inviting device is ("desktop.lan:4747"); else it is looked for on the local network.
            confirm: asks a person whether both devices show the same digits; else the code alone is enough.
            more: as of `open`.

        Raises:
            PairingFailed: nothing was changed; the message says what to do.
            NoMaster: the devices are paired, and the copy has not come: `open` goes on with it.
            StoreError: there is something at `path` already.
        """
        where = Path(path).expanduser().absolute()
        local = prepare(where, joining=True)
        with contextlib.closing(_Released(OwnerLock(local / "owner.lock", where))):
            chosen = _chosen(local, name, more.pop("port", None), more.pop("peers", None), more.pop("interfaces", None),
                             more.pop("multicast", None), None)  # fmt: skip
            pair(where, code, chosen, address, confirm)
        return cls.open(where, port=chosen.port, peers=None, interfaces=chosen.interfaces, multicast=chosen.multicast,
                        **more)  # fmt: skip

    def close(self) -> None:
        """Hand over if this device is master, take leave of the others, and close the store. May be called again."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._work.put(None)
        self._thread.join()
        self._manager.close()
        self._disconnect()
        self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Device {self.name} ({self.device_id.short}) at {self.path}>"

    # -- reading

    @property
    def name(self) -> str:
        """How this device is called."""
        group = self._group
        return group.own.name if group is not None else self._settings.name

    @property
    def device_id(self) -> DeviceId:
        """This device's id."""
        return self._identity.device_id

    @property
    def port(self) -> int | None:
        """Where this device accepts links; None while it is on its own."""
        return self._port

    @property
    def role(self) -> str:
        """What this device is doing in its group: "master", "replica", "electing", "waiting" or "starting"."""
        return self._manager.role.value

    @property
    def peers(self) -> tuple[PeerStatus, ...]:
        """The other devices of the group, and how they stand."""
        return self.status().peers

    @property
    def invitation(self) -> OpenInvitation | None:
        """The latest invitation of this device."""
        return self._invitation

    def status(self) -> DeviceStatus:
        """How this device and its group stand, as a frozen value."""
        group, peers, discovery, invitation = self._group, self._peers, self._discovery, self._invitation
        manager = self._manager.status()
        links = {} if peers is None else {link.device_id.digest: link.status() for link in peers.links()}
        others = peers_of(group, manager, links, self._hub)
        online = [peer for peer in others if peer.online]
        found = discovery.status() if discovery is not None else None
        removed = group is not None and group.removed
        master = None if manager.master is None else self._name_of(manager.master)
        return DeviceStatus(
            name=self.name,
            device_id=str(self.device_id),
            store=str(self.path),
            role=manager.role.value,
            master=master,
            commit=manager.head.number,
            chain=manager.head.chain.hex(),
            grouped=group is not None and not removed,
            removed=removed,
            consistency="majority" if group is not None and group.majority else "available",
            in_sync=bool(online) and all(peer.in_sync for peer in online),
            parted=manager.parted,
            port=self._port,
            announced_as=found.announced_as if found is not None else None,
            peers=others,
            invitation=invitation.status if invitation is not None else None,
            problems=problems_of(
                manager,
                peers.status() if peers is not None else None,
                found.problems if found is not None else (),
                (self._problem, "this device was removed from the group; its data is kept" if removed else None),
            ),
        )

    def _name_of(self, device: DeviceId) -> str:
        member = self._group.member(device) if self._group is not None else None
        return member.name if member is not None else self.name if device == self.device_id else device.short

    # -- pairing

    def invite(self, *, ask: bool = False) -> OpenInvitation:
        """Let another device join: returns an invitation, whose `code` is to be typed there within ten minutes.

        The first one makes the group. An earlier invitation is withdrawn.

        Args:
            ask: whether the invitation waits for a person, who compares digits (`OpenInvitation.answer`); else
                whoever knows the code joins.

        Raises:
            PairingFailed: this device waits for its copy, or the group is full.
            CannotListen, NoMaster, and what a commit raises.
        """
        with self._lock:
            self._check_open()
            group = self._group
            if group is None or group.removed:
                group = self._found_group()
            if len(group.current()) >= MAX_DEVICES:
                raise PairingFailed(Refusal.FULL.text)
            if self._peers is None:
                self._connect(group)
            before = self._invitation
            self._invitation = invitation = OpenInvitation(
                self._identity,
                self.name,
                payload_for=self._welcome_for,
                admit=self._admit,
                ask=ask,
            )
            if self._discovery is not None:
                self._discovery.set_pairing(invitation.number)
        if before is not None:
            before.close()
        return invitation

    def _found_group(self) -> Group:
        tag = self._group.tag if self._group is not None else 0
        majority = self._settings.consistency == "majority"
        group = Group.found(self._local, self._identity, self.name, tag=tag, majority=majority)
        self._group = group
        self._manager.set_members(1, majority=majority)
        membership.found(self.store, group)
        return group

    def _on_pairing(self, sock: socket.socket) -> None:
        invitation = self._invitation
        if invitation is None:
            sock.close()
        else:
            invitation.serve(sock)

    def _entry_for(self, public_key: bytes, name: str) -> Member:
        group = self._group
        assert group is not None  # noqa: S101 - an invitation makes one
        device = DeviceId.from_public_key(public_key)
        if group.is_removed(public_key):
            raise Refused(Refusal.REMOVED, f"device {device.short} was removed before: it joins with a new store")
        if any(member.tag == device.tag and member.public_key != public_key for member in group.members()):
            raise Refused(Refusal.TAG_TAKEN, f"device {device.short} has the tag of another one: it tries again")
        if len(group.current()) >= MAX_DEVICES:
            raise Refused(Refusal.FULL, Refusal.FULL.text)
        taken = [member.name for member in group.current() if member.public_key != public_key]
        return Member(public_key, distinct_name(name, taken), device.tag, self.device_id.digest, None)

    def _welcome_for(self, public_key: bytes, name: str) -> bytes:
        group = self._group
        assert group is not None  # noqa: S101 - an invitation makes one
        entry = self._entry_for(public_key, name)
        others = [member for member in group.current() if member.public_key != public_key]
        size = sum(path.stat().st_size for path in (self.path / "data").glob("*.db"))
        return welcome_bytes(Welcome(group.group_id, group.majority, size, [*others, entry]))

    def _admit(self, public_key: bytes, name: str) -> None:
        group = self._group
        assert group is not None  # noqa: S101 - an invitation makes one
        try:
            self._apply(group.merge([self._entry_for(public_key, name)]))
        except Refused as refused:
            raise PairingFailed(refused.text) from None
        if self._discovery is not None:
            self._discovery.set_pairing(None)

    # -- members

    def _member_list(self) -> Members:
        group = self._group
        return Members(group.members() if group is not None else [])

    def _heard_members(self, message: Members) -> None:
        group = self._group
        if group is None or group.removed:
            return
        try:
            self._apply(group.merge(message.members))
            self._problem = None
        except AtopError as error:
            self._problem = f"what was heard of the group's devices is not written down: {error}"

    def _apply(self, changes: Changes) -> None:
        """Act on changed members: links end at once, and everybody hears of it."""
        group, peers = self._group, self._peers
        if not changes or group is None:
            return
        if group.removed:
            self._work.put(self._go_alone)
            return
        self._manager.set_members(group.count)
        if peers is not None:
            for device in changes.revoked:
                peers.close_device(device, Reason.REMOVED)
            news = self._member_list()
            for link in peers.links():
                with contextlib.suppress(AtopError):  # a link tells of its end by itself
                    link.send(news)
            if changes.added:
                peers.retry()
        if self._discovery is not None:
            self._discovery.prefer(membership.id_of(member).short for member in group.current())
        self._work.put(self._look)

    def _told_removed(self, public_key: bytes) -> None:
        """A member says that this device was removed."""
        group = self._group
        if group is not None and not group.removed and group.accepts(public_key):
            self._work.put(self._go_alone)

    def _go_alone(self) -> None:
        """This device was removed: it keeps what it has, and has nothing to do with the others any more."""
        if self._group is not None:
            self._group.mark_removed()
        log.warning("%s was removed from the group; its data is kept", self.name)
        self._disconnect()
        self._manager.set_members(1)

    def _look(self) -> None:
        """Bring the store and what this device knows of the members together."""
        group = self._group
        if group is None or group.removed:
            return
        number = self.store.head.number
        if number != self._looked_at:
            self._apply(membership.pull(self.store, group))
            self._looked_at = number
        if self._manager.is_master and not group.removed:
            membership.push(self.store, group)

    def remove(self, name: str, *, lost: bool = False) -> None:
        """Remove a device, given by name or id, from the group: its links end at once everywhere.

        It is told so when it next finds one of the others, and keeps its data.

        Args:
            lost: in a group that wants a majority: remove it even though less than half of the devices are
                reachable, because the others will not come back. Should they, they are a group of their own.

        Raises:
            NoSuchDevice: there is none of this name.
            NotAMember: this device is in no group.
            NoMaster: the group wants a majority, and `lost` is not given.
        """
        group = self._grouped()
        gone = membership.find(group, name)
        if gone.public_key == self._identity.public_key:
            raise PairingFailed("a device cannot remove itself: do it on another one, or close it for good")
        if group.majority and not lost and not self._may_write():
            raise NoMaster(
                f"less than half of the group's devices are reachable, and it wants a majority: {gone.name} was not "
                "removed. If the others are lost for good, remove them with lost=True (atop devices remove --lost)"
            )
        self._apply(group.revoke([gone.public_key], time.time_ns() // 1000))
        try:
            membership.push(self.store, group, f"remove device {gone.name}")
        except NoMaster as error:
            log.info("the removal of a device is written down here, and goes into the store later: %s", error)

    def _may_write(self) -> bool:
        group = self._group
        online = len(self._peers.links()) + 1 if self._peers is not None else 1
        return group is not None and 2 * online > group.count

    def rename(self, name: str, device: str | None = None) -> None:
        """Give this device, or another one of the group, another name.

        Raises:
            InvalidDeviceName: the name cannot be shown, or another device has it.
            NoSuchDevice, NoMaster.
        """
        check_name(name)
        group = self._group
        own = device is None or (group is not None and membership.find(group, device) == group.own)
        if group is not None and not group.removed:
            member = group.own if device is None else membership.find(group, device)
            membership.push(self.store, group)
            membership.rename(self.store, member.public_key, name)
            self._apply(membership.pull(self.store, group))
        elif not own:
            raise NotAMember("this device is in no group, and knows no other")
        if own:
            settings.change(self._local, name=name)
            self._settings = settings.load(self._local)
            self._announce_anew()

    def take_over(self, timeout: float = 15.0) -> None:
        """Make this device the master. Raises NoMaster if that could not be done in `timeout` seconds."""
        self._check_open()
        self._manager.take_over(timeout)

    def add_listener(self, listener: LinkListener) -> None:
        """Have a listener hear of every link and message, beside the manager."""
        self._hub.add(listener)

    def links(self) -> list[Link]:
        """The links that are up."""
        return self._peers.links() if self._peers is not None else []

    def _grouped(self) -> Group:
        self._check_open()
        group = self._group
        if group is None or group.removed:
            raise NotAMember("this device shares its store with no other: invite one first (atop invite)")
        return group

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError(f"the device {self.name} is closed", self.path)

    # -- connections

    def _connect(self, group: Group) -> None:
        """Open the port, and look for the others."""
        about = Credentials(
            self._identity,
            group.own.name,
            group.group_id,
            accept=group.accepts,
            is_removed=group.is_removed,
            told_removed=self._told_removed,
            run=secrets.token_bytes(16),
        )
        peers = Peers(about, self._hub)
        try:
            self._port = self._listen(peers)
        except BaseException:
            peers.close()
            raise
        self._peers = peers
        self._discover(group)

    def _listen(self, peers: Peers) -> int:
        wanted = self._settings.port
        try:
            return peers.listen(None, DEFAULT_PORT if wanted is None else wanted, on_pairing=self._on_pairing)
        except CannotListen:
            if wanted is not None:
                raise
            return peers.listen(None, 0, on_pairing=self._on_pairing)

    def _discover(self, group: Group) -> None:
        chosen = self._settings
        discovery = Discovery(
            name=group.own.name,
            port=self._port,
            device_id=self.device_id.short,
            group_tag=group.announced_tag,
            on_candidate=self._on_candidate,
            interfaces=chosen.interfaces,
            fixed=chosen.peers,
            multicast=chosen.multicast,
        )
        discovery.prefer(membership.id_of(member).short for member in group.current())
        discovery.start()
        self._discovery = discovery

    def _announce_anew(self) -> None:
        """Announce this device under its new name."""
        group, before = self._group, self._discovery
        if group is not None and before is not None:
            before.close()
            self._discover(group)

    def _on_candidate(self, change: Change, candidate: Candidate) -> None:
        peers = self._peers
        if peers is None:
            return
        if change is Change.LOST:
            peers.lost(candidate.key)
        else:
            peers.found(candidate.key, candidate.addresses, candidate.port, candidate.device_id)

    def _disconnect(self) -> None:
        """End all links, and be silent."""
        with self._lock:
            invitation, discovery, peers = self._invitation, self._discovery, self._peers
            self._discovery = self._peers = self._port = None
        if invitation is not None:
            invitation.close()
        if discovery is not None:
            discovery.close()
        if peers is not None:
            peers.close()

    # -- what is to be done now and then

    def _run(self) -> None:
        while True:
            try:
                work = self._work.get(timeout=TICK_SECONDS)
                if work is None:
                    return
            except queue.Empty:
                work = self._tick
            try:
                work()
                self._problem = None
            except AtopError as error:
                self._problem = f"what was heard of the group's devices is not written down: {error}"

    def _tick(self) -> None:
        self._look()
        invitation, discovery = self._invitation, self._discovery
        if invitation is not None and discovery is not None and invitation.status.state in ("paired", "failed"):
            discovery.set_pairing(None)
        head = self.store.head
        for link in self.links():
            heard = self._hub.heard(link.device_id.digest)
            if heard is not None and heard.commit == head.number:
                self._hub.compare(link, *head)


class _Released:
    """Lets `contextlib.closing` give an owner's lock up."""

    def __init__(self, lock: OwnerLock) -> None:
        self._lock = lock

    def close(self) -> None:
        self._lock.release()


def _chosen(
    local: Path,
    name: str | None,
    port: int | None,
    peers: Iterable[str] | None,
    interfaces: Iterable[str] | None,
    multicast: bool | None,
    consistency: str | None,
) -> settings.Settings:
    """The settings of the file, with what was given in their place. The name is kept if there was none."""
    found = settings.load(local)
    given = {
        "name": name if not (local / settings.SETTINGS_FILE).exists() else None,
        "port": port,
        "peers": None if peers is None else tuple(peers),
        "interfaces": None if interfaces is None else tuple(interfaces),
        "multicast": multicast,
        "consistency": consistency,
    }
    values = {field: getattr(found, field) for field in given} | {k: v for k, v in given.items() if v is not None}
    chosen = settings.checked({k: v for k, v in values.items() if v is not None}, "what was given")
    try:
        if not (local / settings.SETTINGS_FILE).exists():
            settings.change(local, name=chosen.name)
    except OSError as error:
        raise explained(error, local) from error
    return chosen
