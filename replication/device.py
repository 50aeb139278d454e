"""`Device`: a store on this device, kept equal to those of the group's other devices.

    with Device.open("~/pim", name="laptop") as device:
        print(device.invite().code)             # 7-guitar-orbit: to be typed on the other device
        ...
        device.store.pool("people").add(...)    # the store is used as ever

    with Device.join("~/pim", "7-guitar-orbit", name="desktop") as device:
        ...                                     # a full copy, from now on kept equal

A device on its own has no port open and says nothing on the network: that begins with its first invitation.

What it stands on: `manager` (who is master, commits to the master), `connections` (links, discovery), `steward` (who
belongs), `pairing_socket` (invitations). What each of them promises holds here.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from atop import AtopError, Store, StoreError
from atop.engine import Durability
from atop.owner import OwnerLock

from . import settings
from .connections import Connections
from .device_status import DeviceStatus, PeerStatus, Sources, status_of
from .errors import NotAMember
from .group import MAX_DEVICES, Group
from .hub import Hub, LinkListener
from .identity import DeviceId, Identity
from .invitation import PairingFailed
from .joining import Progress, copying, pair, prepare
from .link import Link
from .manager import ReplicationManager
from .pairing import Refusal
from .pairing_socket import Confirm, OpenInvitation
from .steward import Steward

if TYPE_CHECKING:
    import socket

TICK_SECONDS: Final = 0.5
"""How often a device looks whether the store knows of other members than it does, and compares heads."""


class Device:
    """A store and its part in a group. Made by `open` and `join`; methods may be called by any thread.

    Fields to read: `store`, an open `atop.Store`, and `path`.
    """

    store: Store

    def __init__(
        self, path: Path, chosen: settings.Settings, options: dict[str, Any], progress: Progress | None = None
    ) -> None:
        self.path = path
        self._settings = chosen
        self._identity = Identity.load_or_create(path / "local")
        group = Group.load(path / "local", self._identity)
        if group is not None and group.removed and not group.copied:
            raise NotAMember(
                f"the store {path} was paired, and its device removed before a copy came: pair it again in a new store"
            )
        self._lock = threading.Lock()  # over making the group, the connections and invitations
        self._invitation: OpenInvitation | None = None
        self._closed = False
        self._work: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._manager = ReplicationManager(
            self._identity.device_id,
            members=group.count if group is not None else 1,
            majority=group is not None and group.majority,
            joining=group is not None and not group.copied,
            is_member=lambda device: (group := self._steward.group) is not None and group.includes(device),
        )
        self._steward = steward = Steward(
            path, self._identity, self._manager, group, later=self._work.put, on_alone=self._disconnect
        )
        self._hub = Hub(self._manager, members=steward.list, on_members=steward.heard, on_removed=steward.told_removed)
        with contextlib.ExitStack() as undo:
            undo.callback(self._disconnect)
            undo.callback(self._manager.close)
            if group is not None and not group.removed:
                self._connect(group)
            with copying(progress, group, self.links):
                self.store = Store(path, replication=self._manager, tag=group.tag if group else 0, **options)
            undo.callback(self.store.close)
            if group is not None:
                group.mark_copied()
            undo.pop_all()
        steward.store = self.store
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
        progress: Progress | None = None,
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
            progress: is called with (bytes received, bytes in all or None) while a copy is on its way.

        Raises:
            StoreBusy: another process has it open.
            CannotListen: the port that was asked for is taken.
            NoMaster: a device that has just been paired has found no other to copy the store from.
            SettingsError, IdentityError, and what `Store` raises.
        """
        where = Path(path).expanduser().absolute()
        local = prepare(where)
        OwnerLock(local / "owner.lock", where).release()  # raises StoreBusy before anything is said on the network
        chosen = settings.chosen(
            local,
            {
                "name": name,
                "port": port,
                "peers": peers,
                "interfaces": interfaces,
                "multicast": multicast,
                "consistency": consistency,
            },
        )
        return cls(where, chosen, {"durability": durability, "cache_size": cache_size}, progress)

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
        given = {setting: more.pop(setting, None) for setting in ("port", "peers", "interfaces", "multicast")}
        lock = OwnerLock(local / "owner.lock", where)
        try:
            if name is not None:
                settings.change(local, name=name)
            pair(where, code, settings.chosen(local, given), address, confirm)
        finally:
            lock.release()
        return cls.open(where, **{**given, "peers": None}, **more)

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
        group = self._steward.group
        return group.own.name if group is not None else self._settings.name

    @property
    def device_id(self) -> DeviceId:
        """This device's id."""
        return self._identity.device_id

    @property
    def port(self) -> int | None:
        """Where this device accepts links; None while it is on its own."""
        connections = self._steward.connections
        return connections.port if connections is not None else None

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
        steward, invitation = self._steward, self._invitation
        connections = steward.connections
        linking, found = connections.status() if connections is not None else (None, None)
        return status_of(
            Sources(
                name=self.name,
                device_id=self.device_id,
                store=str(self.path),
                group=steward.group,
                manager=self._manager.status(),
                hub=self._hub,
                port=self.port,
                linking=linking,
                discovery=found,
                invitation=invitation.status if invitation is not None else None,
                problem=steward.problem,
            )
        )

    # -- pairing

    def invite(self, *, ask: bool = False) -> OpenInvitation:
        """Let another device join: returns an invitation, whose `code` is to be typed there within ten minutes.

        The first one makes the group. An earlier invitation is withdrawn.

        Args:
            ask: whether the invitation waits for a person, who compares digits (`OpenInvitation.answer`); else
                whoever knows the code joins.

        Raises:
            PairingFailed: the group is full.
            CannotListen, NoMaster, and what a commit raises.
        """
        with self._lock:
            self._check_open()
            steward = self._steward
            group = steward.group
            if group is None or group.removed:
                group = steward.found(self.name, majority=self._settings.consistency == "majority")
            if len(group.current()) >= MAX_DEVICES:
                raise PairingFailed(Refusal.FULL.text)
            connections = steward.connections or self._connect(group)
            before = self._invitation
            self._invitation = invitation = OpenInvitation(
                self._identity, self.name, payload_for=steward.welcome_for, admit=steward.admit, ask=ask
            )
            connections.set_pairing(invitation.number)
        if before is not None:
            before.close()
        return invitation

    def _on_pairing(self, sock: socket.socket) -> None:
        invitation = self._invitation
        if invitation is None:
            sock.close()
        else:
            invitation.serve(sock)

    # -- the group

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
        self._check_open()
        self._steward.remove(name, lost=lost, reachable=len(self.links()) + 1)

    def rename(self, name: str, device: str | None = None) -> None:
        """Give this device, or another one of the group, another name.

        Raises:
            InvalidDeviceName: the name cannot be shown, or another device has it.
            NoSuchDevice, NoMaster.
        """
        self._check_open()
        if self._steward.rename(name, device):
            settings.change(self.path / "local", name=name)
            self._settings = settings.load(self.path / "local")
            connections = self._steward.connections
            if connections is not None:
                connections.announce_anew()

    def take_over(self, timeout: float = 15.0) -> None:
        """Make this device the master. Raises NoMaster if that could not be done in `timeout` seconds."""
        self._check_open()
        self._manager.take_over(timeout)

    def add_listener(self, listener: LinkListener) -> None:
        """Have a listener hear of every link and message, beside the manager."""
        self._hub.add(listener)

    def links(self) -> list[Link]:
        """The links that are up."""
        connections = self._steward.connections
        return connections.links() if connections is not None else []

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError(f"the device {self.name} is closed", self.path)

    def _connect(self, group: Group) -> Connections:
        connections = Connections(
            self._identity,
            group,
            self._hub,
            self._settings,
            on_pairing=self._on_pairing,
            told_removed=self._steward.told_removed,
        )
        self._steward.connections = connections
        return connections

    def _disconnect(self) -> None:
        """End all links, and be silent."""
        with self._lock:
            invitation, connections = self._invitation, self._steward.connections
            self._steward.connections = None
        if invitation is not None:
            invitation.close()
        if connections is not None:
            connections.close()

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
            except AtopError as error:
                self._steward.problem = f"what was heard of the group's devices is not written down: {error}"

    def _tick(self) -> None:
        self._steward.look()
        invitation, connections = self._invitation, self._steward.connections
        if invitation is not None and connections is not None and invitation.status.state in ("paired", "failed"):
            connections.set_pairing(None)
        head = self.store.head
        for link in self.links():
            heard = self._hub.heard(link.device_id.digest)
            if heard is not None and heard.commit == head.number:
                self._hub.compare(link, *head)
