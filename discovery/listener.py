"""Listening: what zeroconf hears of other devices, judged, into the table of candidates.

Promises: at most MAX_NAMES names are followed at once and at most MAX_LOOKUPS questions are asked at once,
whatever the network claims; nothing is believed that `announcement.judge` refuses. `ask_again` forgets all
that was cached and asks anew, so that what is heard afterwards is fresh.

zeroconf reports what appears, but not what goes with it: the addresses that a new announcement no longer has
leave its cache in silence a second later (RFC 6762 section 10.2). `reread` makes up for that, a moment after
anything was heard and at intervals.

For use from one event loop; `changed` is called in it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from zeroconf import (  # type: ignore[attr-defined]  # the records are public, but not in its __all__
    DNSPointer,
    DNSService,
    DNSText,
    Error,
    ServiceInfo,
    ServiceStateChange,
    Zeroconf,
)
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from discovery.addresses import IPNetwork
from discovery.announcement import SERVICE_TYPE, judge
from discovery.candidates import CandidateTable
from discovery.errors import AnnouncementError

MAX_NAMES = 1000  # instance names followed at once: forged ones must not grow without end
MAX_LOOKUPS = 8  # names asked about at once, because what was heard of them is incomplete
MAX_LOOKUPS_OF_NAME = 3  # until it is heard of again
MAX_HOST_RECORDS = 64  # of one host: zeroconf compares each address with each, which thousands turn into seconds
MAX_RIVALS = 16  # records under our own name that are looked at
_LOOKUP_MILLISECONDS = 3000
_FLUSH_SECONDS = 1.2  # after which a cache has dropped what an announcement replaced: one second, RFC 6762
_TYPE_PTR, _TYPE_TXT, _TYPE_SRV, _CLASS_IN = 12, 16, 33, 1  # RFC 1035 section 3.2, RFC 2782


class Listener:
    """Follows the instances of the service type on one zeroconf instance.

    `networks` and `loopback` say which addresses make sense (see `judge`) and may be set at any time.
    Invariant: what is in `_lookups` is running; every name there and in `_attempts` is in `_names`.
    """

    def __init__(
        self,
        zeroconf: AsyncZeroconf,
        table: CandidateTable,
        now: Callable[[], float],
        changed: Callable[[], None],
    ) -> None:
        self.networks: Sequence[IPNetwork] = ()
        self.loopback = False
        self._zeroconf = zeroconf
        self._table = table
        self._now = now
        self._changed = changed
        self._browser: AsyncServiceBrowser | None = None
        self._names: set[str] = set()
        self._attempts: dict[str, int] = {}
        self._lookups: dict[str, asyncio.Task[None]] = {}
        self._unusable: dict[str, str] = {}
        self._heard_at: float | None = None  # when something was heard that was not reread since

    @property
    def is_flooded(self) -> bool:
        """Whether so many names are heard that further ones are ignored."""
        return len(self._names) >= MAX_NAMES

    @property
    def unusable(self) -> int:
        """How many announcements are heard that no device of this program makes."""
        return len(self._unusable)

    async def ask_again(self) -> None:
        """Forget everything cached, and ask who is there: now, and after 1, 5 and 14 seconds."""
        await self.stop()
        cache = self._zeroconf.zeroconf.cache
        for name in cache.names():
            cache.async_remove_records(cache.entries_with_name(name))
        self._names.clear()
        self._attempts.clear()
        self._unusable.clear()
        self._table.forget_turned_away()
        self._browser = AsyncServiceBrowser(self._zeroconf.zeroconf, SERVICE_TYPE, handlers=[self._on_change])

    async def stop(self) -> None:
        """Follow nothing any more; the table stays as it is."""
        if self._browser is not None:
            await self._browser.async_cancel()
            self._browser = None
        lookups = list(self._lookups.values())
        for lookup in lookups:
            lookup.cancel()
        await asyncio.gather(*lookups, return_exceptions=True)
        self._lookups.clear()  # one cancelled before it began has not done so itself

    def is_reread_due(self, now: float) -> bool:
        """Whether what was heard lately may look different by now."""
        return self._heard_at is not None and now - self._heard_at >= _FLUSH_SECONDS

    def reread(self) -> None:
        """Take in what zeroconf has cached of every name, and ask about those that are incomplete."""
        self._heard_at = None
        pointers = self._zeroconf.zeroconf.cache.get_all_by_details(SERVICE_TYPE, _TYPE_PTR, _CLASS_IN)
        for pointer in pointers[:MAX_NAMES]:
            if isinstance(pointer, DNSPointer):
                self._consider(pointer.alias)

    def rivals(self, name: str, device_id: str) -> set[str]:
        """The ids of other devices that announce themselves under the full name `name`."""
        records = self._zeroconf.zeroconf.cache.get_all_by_details(name, _TYPE_TXT, _CLASS_IN)
        rivals = set()
        for record in records[-MAX_RIVALS:]:
            if not isinstance(record, DNSText):
                continue
            claimed = ServiceInfo(SERVICE_TYPE, name, properties=record.text).properties.get(b"device")
            if claimed and claimed != device_id.encode():
                rivals.add(claimed.decode("ascii", errors="replace"))
        return rivals

    def _on_change(self, zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange) -> None:
        """What zeroconf calls, with these names for its arguments."""
        del zeroconf, service_type
        key = name.lower()
        if state_change is ServiceStateChange.Removed:
            self._names.discard(key)
            self._attempts.pop(key, None)
            self._unusable.pop(key, None)
            self._table.gone(key)
            self._changed()
            return
        self._attempts.pop(key, None)
        self._heard_at = self._now()
        self._consider(name)

    def _consider(self, name: str) -> None:
        key = name.lower()
        if key not in self._names:
            if self.is_flooded:
                return
            self._names.add(key)
        try:
            info = AsyncServiceInfo(SERVICE_TYPE, name)
        except Error as error:  # not a name that DNS-SD allows
            self._refuse(key, str(error))
            return
        if self._is_overloaded(name):
            self._refuse(key, f"more than {MAX_HOST_RECORDS} addresses")
            return
        if info.load_from_cache(self._zeroconf.zeroconf):
            self._take_in(key, info)
        elif key not in self._lookups and len(self._lookups) < MAX_LOOKUPS:
            self._attempts[key] = self._attempts.get(key, 0) + 1
            if self._attempts[key] <= MAX_LOOKUPS_OF_NAME:
                self._lookups[key] = asyncio.create_task(self._look_up(key, info))

    def _is_overloaded(self, name: str) -> bool:
        """Whether a name leads to a host with more records than are worth reading."""
        cache = self._zeroconf.zeroconf.cache
        service = cache.get_by_details(name, _TYPE_SRV, _CLASS_IN)
        return isinstance(service, DNSService) and len(cache.entries_with_name(service.server)) > MAX_HOST_RECORDS

    async def _look_up(self, key: str, info: AsyncServiceInfo) -> None:
        """Ask for what is missing of a name."""
        try:
            complete = await info.async_request(self._zeroconf.zeroconf, _LOOKUP_MILLISECONDS)
        except Error:  # zeroconf is closing: as good as no answer
            complete = False
        finally:
            self._lookups.pop(key, None)
        if complete and key in self._names:  # it may have said goodbye meanwhile
            self._take_in(key, info)

    def _take_in(self, key: str, info: AsyncServiceInfo) -> None:
        try:
            heard = judge(
                info.name,
                host=info.server,
                port=info.port,
                addresses=info.parsed_scoped_addresses(),
                text_size=len(info.text),
                properties=info.properties,
                networks=self.networks,
                loopback=self.loopback,
            )
        except AnnouncementError as reason:
            self._refuse(key, str(reason))
        else:
            self._unusable.pop(key, None)
            self._table.heard(self._now(), key, heard)
            self._changed()

    def _refuse(self, key: str, reason: str) -> None:
        self._unusable[key] = reason
        self._table.gone(key)
        self._changed()
