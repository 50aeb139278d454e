"""The connections of a device in its group: its port, where the other devices may be, links to them.

Made when a device has a group, closed when it leaves or is removed. It decides nothing: who is accepted is the group's
to say, what arrives is the hub's.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING

from atop import AtopError
from discovery import DEFAULT_PORT, Candidate, Change, Discovery, DiscoveryError, DiscoveryStatus

from .group import Changes, Group
from .handshake import Credentials
from .hub import Hub, send
from .identity import Identity
from .link import Link
from .listener import CannotListen
from .membership import id_of
from .messages import Members, Reason
from .peers import Peers, PeersStatus
from .places import Places
from .settings import Settings, SettingsError

if TYPE_CHECKING:
    import socket


class Connections:
    """An open port, and the search for the other devices. Raises CannotListen if the port that was asked for is taken.

    Fields to read: `port`, and `announces`, the name under which this device is announced.
    """

    def __init__(
        self,
        identity: Identity,
        group: Group,
        hub: Hub,
        chosen: Settings,
        places: Places,
        *,
        on_pairing: Callable[[socket.socket], None],
        told_removed: Callable[[bytes], None],
    ) -> None:
        self._identity = identity
        self._group = group
        self._chosen = chosen
        self._on_pairing = on_pairing
        self._places = places
        self.announces: str | None = None
        self._pairing: int | None = None  # the number of an open invitation
        self._announced: dict[str, Candidate] = {}  # by short device id: what was heard last
        about = Credentials(
            identity,
            group.own.name,
            group.group_id,
            accept=group.accepts,
            is_removed=group.is_removed,
            told_removed=told_removed,
            run=secrets.token_bytes(16),
        )
        self._peers = Peers(about, hub)
        try:
            self.port = self._listen()
            self._discovery = self._new_discovery()
            self._start_discovery()
        except BaseException:
            self._peers.close()
            raise
        for device, place in places.known().items():
            if device in self._short_ids():
                self._peers.found(f"remembered:{device}", place.addresses, place.port, device)

    def _listen(self) -> int:
        wanted = self._chosen.port
        try:
            return self._peers.listen(None, DEFAULT_PORT if wanted is None else wanted, on_pairing=self._on_pairing)
        except CannotListen:
            if wanted is not None:
                raise
            return self._peers.listen(None, 0, on_pairing=self._on_pairing)

    def _new_discovery(self) -> Discovery:
        try:
            discovery = Discovery(
                name=self._group.own.name,
                port=self.port,
                device_id=self._identity.device_id.short,
                group_tag=self._group.announced_tag,
                on_candidate=self._on_candidate,
                interfaces=self._chosen.interfaces,
                fixed=self._chosen.peers,
                multicast=self._chosen.multicast,
            )
        except DiscoveryError as error:
            raise SettingsError(f"devices cannot be looked for: {error}") from None
        discovery.prefer(self._short_ids())
        discovery.set_pairing(self._pairing)
        return discovery

    def _start_discovery(self) -> None:
        name = self._group.own.name
        try:
            self._discovery.start()
        except RuntimeError as error:
            raise AtopError(f"devices are not looked for: the system has no thread left ({error})") from error
        self.announces = name

    def _on_candidate(self, change: Change, candidate: Candidate) -> None:
        if change is Change.LOST:
            self._peers.lost(candidate.key)
        else:
            device = candidate.device_id
            if device is not None and device in self._short_ids():
                self._announced[device] = candidate
                self.remember(device)
            self._peers.found(candidate.key, candidate.addresses, candidate.port, candidate.device_id)

    def _short_ids(self) -> list[str]:
        return [id_of(member).short for member in self._group.current()]

    # -- for the device

    def links(self) -> list[Link]:
        """The links that are up."""
        return self._peers.links()

    def status(self) -> tuple[PeersStatus, DiscoveryStatus]:
        """How the links and the search are doing."""
        return self._peers.status(), self._discovery.status()

    def remember(self, device: str) -> None:
        """Keep in mind where this device (a short id) was announced, if there is a link to it."""
        candidate = self._announced.get(device)
        if candidate is not None and any(link.device_id.short == device for link in self._peers.links()):
            self._places.remember(device, candidate.addresses, candidate.port)

    def set_pairing(self, number: int | None) -> None:
        """Announce an open invitation, or its end."""
        self._pairing = number
        self._discovery.set_pairing(number)

    def members_changed(self, changes: Changes, news: Members) -> None:
        """End the links to devices that were removed, at once, and tell the others."""
        self.part()
        for link in self._peers.links():
            send(link, news)
        if changes.added:
            self._peers.retry()
        self._discovery.prefer(self._short_ids())

    def part(self) -> None:
        """End the links to devices that are no members any more."""
        for link in self._peers.links():
            if not self._group.accepts(link.public_key):
                self._peers.close_device(link.device_id, Reason.REMOVED)

    def announce_anew(self) -> None:
        """Announce this device under its new name.

        Raises AtopError: that could not be done, `announces` is still the old name, and it may be tried again.
        """
        fresh = self._new_discovery()
        self._discovery.close()
        self._discovery = fresh
        self._start_discovery()

    def close(self) -> None:
        """End all links, and be silent."""
        self._discovery.close()
        self._peers.close()
