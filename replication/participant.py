"""The part that a process takes in a group while it owns the store: manager, members, connections, invitations.

`Device` makes one when its process becomes the owner of the store, before the store's database is opened: a device that
has just been paired needs its links to get the copy. `begin` follows once the store is open.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from atop import AtopError, Store

from . import settings
from .awaited import Awaited
from .connections import Connections
from .device_status import DeviceStatus, Sources, status_of
from .errors import NotAMember
from .group import MAX_DEVICES, Group
from .hub import Hub, LinkListener
from .identity import DeviceId, Identity
from .invitation import PairingFailed
from .link import Link
from .manager import ReplicationManager
from .pairing import Refusal
from .pairing_socket import OpenInvitation
from .places import Places
from .steward import Steward

if TYPE_CHECKING:
    import socket

TICK_SECONDS: Final = 0.5
"""How often a device looks whether the store knows of other members than it does, and compares heads."""


class Participant:
    """One process's part in the group of a store. Methods may be called by any thread.

    Fields to read: `manager`, which is given to the store; `group`, None for a device on its own.

    Raises:
        NotAMember: the device was removed before it had a copy.
        CannotListen: the port that was asked for is taken.
    """

    def __init__(self, path: Path, chosen: settings.Settings) -> None:
        self._path = path
        self._settings = chosen
        self._identity = Identity.load_or_create(path / "local")
        group = Group.load(path / "local", self._identity)
        if group is not None and group.removed and not group.copied:
            raise NotAMember(
                f"the store {path} was paired, and its device removed before a copy came: pair it again in a new store"
            )
        self._lock = threading.Lock()  # over making the group, the connections and invitations
        self._invitation: OpenInvitation | None = None
        self._thread: threading.Thread | None = None
        self._work: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self.manager: Final = ReplicationManager(
            self._identity.device_id,
            members=group.count if group is not None else 1,
            majority=group is not None and group.majority,
            joining=group is not None and not group.copied,
            is_member=lambda device: (group := self._steward.group) is not None and group.includes(device),
        )
        self.manager.files.name_of = self._name_of
        self._steward = steward = Steward(
            path, self._identity, self.manager, group, later=self._work.put, on_alone=self._disconnect
        )
        self._hub = Hub(
            self.manager,
            members=steward.list,
            on_members=steward.heard,
            on_removed=steward.told_removed,
            on_link=self._remember,
        )
        self._places = Places(path / "local")
        self._awaited = Awaited(path / "local")
        if group is not None and not group.removed:
            try:
                self._connect(group)
            except BaseException:
                self.manager.close()
                raise

    def _name_of(self, device: DeviceId) -> str:
        group = self._steward.group
        member = group.member(device) if group is not None else None
        return member.name if member is not None else device.short

    def begin(self, store: Store) -> None:
        """The store is open: look after its members from now on.

        Raises:
            AtopError: that the store is complete cannot be written down.
            RuntimeError: the system has no thread left.
        """
        group = self._steward.group
        if group is not None:
            group.mark_copied()
        self._steward.store = store
        thread = threading.Thread(target=self._run, name="atop-device", daemon=True)
        thread.start()
        self._thread = thread

    def not_begun(self, why: Exception) -> None:
        """`begin` has failed, and will be tried again: say so meanwhile."""
        self._steward.problem = f"this device does not look after its group yet: {why}"

    def close(self) -> None:
        """Hand over if this device is master, and take leave of the others. The store is closed afterwards."""
        self._work.put(None)
        if self._thread is not None:
            self._thread.join()
        self.manager.close()
        self._disconnect()

    # -- reading

    @property
    def group(self) -> Group | None:
        """The group, if there is one."""
        return self._steward.group

    @property
    def name(self) -> str:
        """How this device is called."""
        group = self._steward.group
        return group.own.name if group is not None else self._settings.name

    @property
    def port(self) -> int | None:
        """Where this device accepts links; None while it is on its own."""
        connections = self._steward.connections
        return connections.port if connections is not None else None

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
                device_id=self._identity.device_id,
                store=str(self._path),
                group=steward.group,
                manager=self.manager.status(),
                hub=self._hub,
                port=self.port,
                linking=linking,
                discovery=found,
                invitation=invitation.status if invitation is not None else None,
                problem=steward.problem,
                awaited=self._awaited,
            )
        )

    # -- pairing

    def invite(self, *, ask: bool = False) -> OpenInvitation:
        """See `Device.invite`."""
        with self._lock:
            steward = self._steward
            group = steward.group
            if group is None or group.removed:
                group = steward.found(self.name, majority=self._settings.consistency == "majority")
            if len(group.current()) >= MAX_DEVICES:
                raise PairingFailed(Refusal.FULL.text)
            connections = steward.connections or self._connect(group)
            before = self._invitation
            self._invitation = invitation = OpenInvitation(
                self._identity, self.name, payload_for=steward.welcome_for, admit=self._admit, ask=ask
            )
            connections.set_pairing(invitation.number)
        if before is not None:
            before.close()
        return invitation

    def _admit(self, public_key: bytes, name: str) -> None:
        """A device has proven the code: it is a member now, and has yet to come. Raises what `Steward.admit` does."""
        device = str(DeviceId.from_public_key(public_key))
        self._awaited.add(device)  # before: it may be here at once
        try:
            self._steward.admit(public_key, name)
        except BaseException:
            self._awaited.arrived(device)
            raise

    def _on_pairing(self, sock: socket.socket) -> None:
        invitation = self._invitation
        if invitation is None:
            sock.close()
        else:
            invitation.serve(sock)

    # -- the group

    def remove(self, name: str, *, lost: bool = False) -> None:
        """See `Device.remove`."""
        self._steward.remove(name, lost=lost, reachable=len(self.manager.status().peers) + 1)

    def rename(self, name: str, device: str | None = None) -> None:
        """See `Device.rename`."""
        if self._steward.rename(name, device):
            self._renamed(name)

    def _renamed(self, name: str) -> None:
        """This device has another name now, given here or elsewhere."""
        settings.change(self._path / "local", name=name)
        self._settings = settings.current(self._path / "local", self._settings)
        self._work.put(self._announce)

    def _announce(self) -> None:
        """Announce this device under the name that it has. What fails is tried again at each tick."""
        connections = self._steward.connections
        if connections is not None and connections.announces != self.name:
            try:
                connections.announce_anew()
            except AtopError as error:
                self._steward.problem = f"{self.name} is not announced under this name yet: {error}"

    def add_listener(self, listener: LinkListener) -> None:
        """Have a listener hear of every link and message, beside the manager."""
        self._hub.add(listener)

    def links(self) -> list[Link]:
        """The links that are up."""
        connections = self._steward.connections
        return connections.links() if connections is not None else []

    def _connect(self, group: Group) -> Connections:
        connections = Connections(
            self._identity,
            group,
            self._hub,
            self._settings,
            self._places,
            on_pairing=self._on_pairing,
            told_removed=self._steward.told_removed,
        )
        self._steward.connections = connections
        return connections

    def _remember(self, link: Link) -> None:
        """There is a link: it is awaited no longer, and next time the same place is tried first."""

        def remember() -> None:
            self._awaited.arrived(str(link.device_id))
            connections = self._steward.connections
            if connections is not None:
                connections.remember(link.device_id.short)

        self._work.put(remember)

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
        if self.name != self._settings.name:
            self._renamed(self.name)
        self._announce()
        invitation, connections = self._invitation, self._steward.connections
        if invitation is not None and connections is not None and invitation.status.state in ("paired", "failed"):
            connections.set_pairing(None)
        store = self._steward.store
        assert store is not None  # noqa: S101 - set before the thread begins
        head = store.head
        for link in self.links():
            heard = self._hub.heard(link.device_id.digest)
            if heard is not None and heard.commit == head.number:
                self._hub.compare(link, *head)
