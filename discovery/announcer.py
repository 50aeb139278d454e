"""Announcing this device, under a name that no other device uses.

Promises: a name that another device announced first is left to it; where two came to use one name unseen
(both started at once, or two networks became one), the device with the smaller id keeps it and the other
takes a name with its id in it. Which device is which is decided by its id alone, never by its name.

For use from one event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from zeroconf import NonUniqueNameException
from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

from discovery.announcement import SERVICE_TYPE, full_name, host_name, instance_label, text_record
from discovery.damping import TokenBucket

# How long others may believe an announcement that is not renewed. RFC 6762 section 10 recommends 75 minutes
# for all but host records; 20 minutes forget a vanished device sooner, and zeroconf takes no less than 19.
_RECORD_SECONDS = 1200
_HOST_RECORD_SECONDS = 120  # RFC 6762 section 10
_CONFLICT_BURST = 3  # conflicts dealt with at once,
_CONFLICT_SECONDS = 10.0  # then one in this time: a forger who repeats our name causes no storm


@dataclass(frozen=True, slots=True)
class Presence:
    """What this device announces. Two equal values need no new announcement."""

    device_name: str
    device_id: str
    group_tag: str
    port: int
    pairing: int | None
    addresses: tuple[str, ...]


class Announcer:
    """Keeps one service instance registered with zeroconf, as the presence last given says."""

    def __init__(self, zeroconf: AsyncZeroconf, wall: Callable[[], float]) -> None:
        """`wall` is the wall clock in seconds: revisions follow it, so as to grow over restarts as well."""
        self._zeroconf = zeroconf
        self._wall = wall
        self._revision = 0
        self._presence: Presence | None = None
        self._info: AsyncServiceInfo | None = None
        self._distinct = False  # whether the name carries the device id
        self._conflicts = TokenBucket(_CONFLICT_BURST, _CONFLICT_SECONDS)

    @property
    def label(self) -> str | None:
        """The instance name as announced, None before there is one."""
        return None if self._info is None else self._info.name[: -len(SERVICE_TYPE) - 1]

    async def announce(self, presence: Presence) -> None:
        """Announce what is new; the first time takes a second, to ask whether the name is free."""
        if presence == self._presence:
            return
        if self._info is None:
            await self._register(presence)
        else:
            await self._update(presence, self._info.name)

    async def settle_conflict(self, now: float, rivals: Collection[str]) -> None:
        """Deal with other devices, given by their ids, that are heard under our name."""
        presence, info = self._presence, self._info
        if not rivals or presence is None or info is None or not self._conflicts.take(now):
            return
        if self._distinct or presence.device_id < min(rivals):
            await self._update(presence, info.name)
            return
        # No goodbye: it would be taken for that of the device that keeps the name.
        self._zeroconf.zeroconf.registry.async_remove(info)
        self._info = None
        self._distinct = True
        await self._register(presence)

    async def _register(self, presence: Presence) -> None:
        label = instance_label(presence.device_name, presence.device_id, distinct=self._distinct)
        info = self._service_info(presence, full_name(label))
        try:
            sent = await self._zeroconf.async_register_service(info, allow_name_change=self._distinct)
        except NonUniqueNameException:
            self._distinct = True
            await self._register(presence)
            return
        self._info = info
        self._presence = presence
        await sent

    async def _update(self, presence: Presence, name: str) -> None:
        self._info = self._service_info(presence, name)
        self._presence = presence
        await (await self._zeroconf.async_update_service(self._info))

    def _service_info(self, presence: Presence, name: str) -> AsyncServiceInfo:
        self._revision = max(self._revision + 1, int(self._wall()))
        return AsyncServiceInfo(
            SERVICE_TYPE,
            name,
            port=presence.port,
            properties=text_record(presence.device_id, presence.group_tag, presence.pairing, self._revision),
            server=host_name(presence.device_id),
            host_ttl=_HOST_RECORD_SECONDS,
            other_ttl=_RECORD_SECONDS,
            parsed_addresses=list(presence.addresses),
        )
