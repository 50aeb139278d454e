"""`Device`: a store on this device, kept equal to those of the group's other devices.

    with Device.open("~/pim", name="laptop") as device:
        print(device.invite().code)             # 7-guitar-orbit: to be typed on the other device
        ...
        device.store.pool("people").add(...)    # the store is used as ever

    with Device.join("~/pim", "7-guitar-orbit", name="desktop") as device:
        ...                                     # a full copy, from now on kept equal

A device on its own has no port open and says nothing on the network: that begins with its first invitation.

Where another process owns the store, as `atop run` does, the device is attached to that one, and has the same
interface; when that one ends, this one takes its part.

What it stands on: `participant`, which has the parts: who is master, links and discovery, who belongs, invitations.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from atop import AtopError, Store, StoreError
from atop.engine import Durability
from atop.errors import NoSuchCall
from atop.owner import LOCK_NAME, OwnerLock
from atop.replicated import Replication

from . import settings
from .calls import Calls, RemoteInvitation, status_from
from .copying import CopyStatus
from .device_status import DeviceStatus, PeerStatus
from .errors import NotRunning
from .group import Group
from .hub import LinkListener
from .identity import DeviceId, Identity
from .joining import Progress, check_empty, copying, pair, prepare
from .link import Link
from .pairing_socket import Confirm, OpenInvitation
from .participant import Participant

log = logging.getLogger(__name__)

TAKE_OVER_SECONDS: Final = 15.0
BEGUN_SECONDS: Final = 5.0
"""How long a call waits for this process to have become the owner, which takes a fraction of a second."""

BEGIN_SECONDS: Final = 0.5  # how soon a device that has taken over, and could not begin, tries again


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
        self._lock = threading.Lock()  # guards what follows
        self._participant: Participant | None = None  # while this process owns the store
        self._begun = False  # whether the participant has its store
        self._closed = False
        self._listeners: list[LinkListener] = []
        self._calls = Calls(self._taking_part)
        try:
            with copying(progress, self._copy):
                self.store = Store(
                    path,
                    replication=self._own,
                    on_owner=self._succeed,
                    tag=group.tag if group is not None else 0,
                    **options,
                )
        except BaseException:
            self._leave()
            raise
        _open_devices.add(self)
        try:
            self._calls.offer(self.store)
            self._begin()
        except BaseException:
            self.close()
            raise

    def _own(self) -> Replication:
        """This process is about to own the store: take part in the group."""
        self._leave()  # of an attempt that failed
        participant = Participant(self.path, settings.current(self.path / "local", self._settings))
        for listener in self._listeners:
            participant.add_listener(listener)
        with self._lock:
            self._participant = participant
        return participant.manager

    def _begin(self) -> None:
        """This process owns the store, and it is open; or it is attached to another one, and there is nothing to do."""
        with self._lock:
            participant = self._participant
            if participant is None or self._begun or self._closed:
                return
            participant.begin(self.store)
            self._begun = True

    def _succeed(self) -> None:
        """This process has become the owner, and a thread of its own says so: take part, as soon as that can be."""
        while True:
            try:
                return self._begin()
            except (AtopError, RuntimeError) as error:  # the disk is full, or the system has no thread left
                participant = self._participant
                if participant is not None:
                    participant.not_begun(error)
                time.sleep(BEGIN_SECONDS)

    def _await_begun(self) -> None:
        """Where this process is just becoming the owner: wait a moment until the participant has its store."""
        deadline = time.monotonic() + BEGUN_SECONDS
        while self._participant is not None and not self._begun and time.monotonic() < deadline:
            time.sleep(0.01)

    def _leave(self) -> None:
        with self._lock:
            participant, self._participant = self._participant, None
            self._begun = False
        if participant is not None:
            participant.close()

    def _copy(self) -> CopyStatus | None:
        participant = self._participant
        return participant.manager.status().copy if participant is not None else None

    def _taking_part(self) -> Participant:
        participant = self._participant
        if participant is None or self._closed:
            raise StoreError(f"the device at {self.path} is closed, or another process has it", self.path)
        return participant

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
            StoreBusy: another process has it open, and does not share it; or this one has.
            CannotListen: the port that was asked for is taken.
            NoMaster: a device that has just been paired has found no other to copy the store from.
            SettingsError, IdentityError, and what `Store` raises.
        """
        where = Path(path).expanduser().absolute()
        local = prepare(where)
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
        local = prepare(where)
        given = {setting: more.pop(setting, None) for setting in ("port", "peers", "interfaces", "multicast")}
        lock = OwnerLock(local / LOCK_NAME, where)
        try:
            check_empty(where)
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
        _open_devices.discard(self)
        self._leave()
        try:
            self.store.close()
        finally:
            self._leave()  # the owner has gone meanwhile, and this process began to take its place

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Device {self.device_id.short} at {self.path}>"

    # -- reading

    @property
    def attached(self) -> bool:
        """Whether another process owns the store, and has the device's part in the group."""
        return self._participant is None

    @property
    def name(self) -> str:
        """How this device is called."""
        participant = self._participant
        return participant.name if participant is not None else self.status().name

    @property
    def device_id(self) -> DeviceId:
        """This device's id."""
        return self._identity.device_id

    @property
    def port(self) -> int | None:
        """Where this device accepts links; None while it is on its own."""
        participant = self._participant
        return participant.port if participant is not None else self.status().port

    @property
    def role(self) -> str:
        """What this device is doing in its group: see `DeviceStatus`."""
        participant = self._participant
        return participant.manager.role.value if participant is not None else self.status().role

    @property
    def peers(self) -> tuple[PeerStatus, ...]:
        """The other devices of the group, and how they stand."""
        return self.status().peers

    @property
    def invitation(self) -> OpenInvitation | RemoteInvitation | None:
        """The latest invitation of this device."""
        participant = self._participant
        if participant is not None:
            return participant.invitation
        found = self.status().invitation
        return None if found is None else RemoteInvitation(self.store, None, found)

    def status(self) -> DeviceStatus:
        """How this device and its group stand, as a frozen value."""
        participant = self._participant
        if participant is not None:
            return participant.status()
        try:
            return status_from(self.store.ask("device.status"))
        except NoSuchCall:
            return self._stopped()

    def _stopped(self) -> DeviceStatus:
        """How it stands where the process that owns the store runs no device."""
        number, chain = self.store.head
        group = Group.load(self.path / "local", self._identity)
        return DeviceStatus(
            name=group.own.name if group is not None else self._settings.name,
            device_id=str(self.device_id),
            store=str(self.path),
            role="stopped",
            master=None,
            commit=number,
            chain=chain.hex(),
            grouped=group is not None and not group.removed,
            removed=group is not None and group.removed,
            consistency="majority" if group is not None and group.majority else "available",
            in_sync=False,
            parted=False,
            port=None,
            announced_as=None,
            peers=(),
            invitation=None,
            problems=(f"{self._who_has_it()}: this one takes part when that one ends",),
        )

    def _who_has_it(self) -> str:
        return f"the store is open in process {self.store.owner_pid}, which runs no device"

    def _ask(self, call: str, /, **arguments: Any) -> Any:
        try:
            return self.store.ask(f"device.{call}", **arguments)
        except NoSuchCall:
            raise NotRunning(f"{self._who_has_it()}: close it first, or open its store as a device") from None

    # -- pairing

    def invite(self, *, ask: bool = False) -> OpenInvitation | RemoteInvitation:
        """Let another device join: returns an invitation, whose `code` is to be typed there within ten minutes.

        The first one makes the group. An earlier invitation is withdrawn.

        Args:
            ask: whether the invitation waits for a person, who compares digits (`OpenInvitation.answer`); else
                whoever knows the code joins.

        Raises:
            PairingFailed: the group is full.
            CannotListen, NoMaster, and what a commit raises.
        """
        self._check_open()
        participant = self._participant
        if participant is not None:
            self._await_begun()
            return participant.invite(ask=ask)
        return self._calls.invitation_from(self.store, self._ask("invite", ask=ask))

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
        participant = self._participant
        if participant is not None:
            self._await_begun()
            participant.remove(name, lost=lost)
        else:
            self._ask("remove", name=name, lost=lost)

    def rename(self, name: str, device: str | None = None) -> None:
        """Give this device, or another one of the group, another name.

        Raises:
            InvalidDeviceName: the name cannot be shown, or another device has it.
            NoSuchDevice, NoMaster.
        """
        self._check_open()
        participant = self._participant
        if participant is not None:
            self._await_begun()
            participant.rename(name, device)
        else:
            self._ask("rename", name=name, device=device)

    def take_over(self, timeout: float = TAKE_OVER_SECONDS) -> None:
        """Make this device the master. Raises NoMaster if that could not be done in `timeout` seconds."""
        self._check_open()
        participant = self._participant
        if participant is not None:
            participant.manager.take_over(timeout)
        else:
            self._ask("take_over", timeout=timeout)

    def add_listener(self, listener: LinkListener) -> None:
        """Have a listener hear of every link and message that this process has, beside the manager."""
        with self._lock:
            self._listeners.append(listener)
            participant = self._participant
        if participant is not None:
            participant.add_listener(listener)

    def links(self) -> list[Link]:
        """The links of this process that are up."""
        participant = self._participant
        return participant.links() if participant is not None else []

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError(f"the device at {self.path} is closed", self.path)


_open_devices: set[Device] = set()


@atexit.register
def _close_all() -> None:
    """Close what the program did not: a master hands over, and the others need not find out by themselves."""
    for device in list(_open_devices):
        try:
            device.close()
        except AtopError as error:
            log.error("closing %s at the end of the program: %s", device.path, error)


os.register_at_fork(after_in_child=_open_devices.clear)
