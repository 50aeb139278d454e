"""The work of discovery: one loop that looks at interfaces and clocks, and acts on what changed.

Promises: each look is short and does nothing while nothing changed; whatever fails is noted in the status,
logged once, and tried again. Runs in one event loop; only `stop`, `refresh`, `set_pairing` and `prefer` may
be called, in that loop, from outside.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Mapping

from discovery.addresses import PeerAddress, is_connectable
from discovery.announcement import full_name
from discovery.announcer import Announcer, Presence
from discovery.candidates import Candidate, CandidateTable
from discovery.damping import Damper, StateChanges, TokenBucket, WakeDetector
from discovery.interfaces import Interface, Selection, announced_addresses, networks_of, select
from discovery.listener import Listener
from discovery.multicast import Multicast
from discovery.quiet import QuietLog
from discovery.resolving import FixedPeers, Resolver
from discovery.settings import Settings
from discovery.status import DiscoveryStatus, InterfaceStatus

_log = logging.getLogger(__name__)

# Called in the worker's loop with all candidates and the status, whenever one of them may have changed.
Publish = Callable[[Mapping[str, Candidate], DiscoveryStatus], None]

_RESOLVER_PATIENCE_SECONDS = 1.0  # for lookups still in the system's resolver when discovery closes
_PUBLISH_SECONDS = 0.02  # so long are changes put together: one packet can bring several
_REFRESH_BURST = 3  # refreshes at once, so that one that was asked for does not hold up one after a sleep
_SETTLE_BURST = 3  # tries to get the sockets that are still missing, one a look,
_SETTLE_SECONDS = 30.0  # then one in this time


class Worker:
    """Everything between start and close. Make it in the event loop that runs it."""

    def __init__(self, settings: Settings, pairing: int | None, preferred: Iterable[str], publish: Publish) -> None:
        timing = settings.timing
        self._settings = settings
        self._now = settings.surroundings.monotonic
        self._publish_to = publish
        self._pairing = pairing
        self._table = CandidateTable(settings.device_id, settings.group_tag, settings.seeking)
        self._table.prefer(preferred)
        self._damper: Damper[str, Interface] = Damper(timing.change_burst, timing.change_refill)
        self._wake = WakeDetector(timing.wake_jump, timing.wake_stall)
        self._refresh_bucket = TokenBucket(_REFRESH_BURST, timing.refresh_refill)
        self._flood_bucket = TokenBucket(1, timing.flood_refill)
        self._settle_bucket = TokenBucket(_SETTLE_BURST, _SETTLE_SECONDS)
        self._fixed = FixedPeers(settings.fixed, timing.resolve)
        self._resolver = Resolver()
        self._lookups: set[asyncio.Task[None]] = set()
        self._selection = Selection((), ())
        self._multicast: Multicast | None = None
        self._announcer: Announcer | None = None
        self._listener: Listener | None = None
        self._reopen_at = 0.0
        self._reopen_wait = timing.reopen_first
        self._reread_at = 0.0
        self._sweeps: list[tuple[float, float]] = []  # (when, what was heard before this goes)
        self._refresh_wanted = False
        self._woke = False
        self._refreshes = 0
        self._problems: StateChanges[str] = StateChanges()
        self._last_error: str | None = None
        self._publishing: asyncio.TimerHandle | None = None
        self._stopping = asyncio.Event()
        self._nudged = asyncio.Event()

    # --- from outside

    def stop(self) -> None:
        """Make `run` end."""
        self._stopping.set()

    def refresh(self) -> None:
        """Ask the network anew, soon."""
        self._refresh_wanted = True
        self._nudged.set()

    def set_pairing(self, number: int | None) -> None:
        """Announce an open invitation under this number, or none."""
        self._pairing = number
        self._nudged.set()

    def prefer(self, device_ids: Iterable[str]) -> None:
        """See `CandidateTable.prefer`."""
        self._table.prefer(device_ids)

    async def run(self) -> None:
        """Work until `stop`; leaves no task and no socket behind."""
        quiet = QuietLog(self._now, self._remember_trouble)
        quiet.install()
        looking = asyncio.create_task(self._look_forever())
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({looking, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            tasks = [looking, stopping, *self._lookups]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if self._publishing is not None:
                self._publishing.cancel()
            await self._close_multicast()
            quiet.remove()
            self._resolver.join(_RESOLVER_PATIENCE_SECONDS)
        if not looking.cancelled():
            looking.result()  # raises what ended the loop: nothing but an error can

    # --- the loop

    async def _look_forever(self) -> None:
        while True:
            try:
                await self._look()
            except OSError as error:
                await self._start_over(f"the network cannot be used: {error}")
            except Exception as error:
                await self._start_over(f"discovery starts over: {error!r}", error)
            self._publish()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._nudged.wait(), self._settings.timing.poll)
            self._nudged.clear()

    async def _start_over(self, problem: str, unexpected: Exception | None = None) -> None:
        """Close what is open; a later look opens it again, after longer and longer waits."""
        self._note("multicast", problem, unexpected)
        await self._close_multicast()
        self._reopen_at = self._now() + self._reopen_wait
        self._reopen_wait = min(self._settings.timing.reopen_last, self._reopen_wait * 2)

    async def _look(self) -> None:
        now = self._now()
        surroundings = self._settings.surroundings
        if self._wake.observe(now, surroundings.since_boot(), surroundings.wall()):
            self._woke = self._refresh_wanted = True
        changed = self._look_at_interfaces(now)
        refresh = self._refresh_wanted and self._refresh_bucket.take(now)
        woke = refresh and self._woke
        if refresh:
            self._woke = self._refresh_wanted = False
        if changed or refresh:
            self._fixed.hurry(now)
            self._publish_soon()  # acting on it takes a second
        self._start_lookups(now)
        if self._settings.multicast:
            await self._look_at_multicast(now, changed=changed, refresh=refresh, woke=woke)
        for when, heard_before in self._sweeps:
            if when <= now:
                self._table.sweep(heard_before)
        self._sweeps = [sweep for sweep in self._sweeps if sweep[0] > now]

    def _look_at_interfaces(self, now: float) -> bool:
        """Read and choose the interfaces; whether those to use have changed."""
        try:
            interfaces = self._settings.surroundings.interfaces()
        except OSError as error:
            self._note("interfaces", f"the network interfaces cannot be read: {error}")
            return False
        self._note("interfaces", None)
        self._selection = select(interfaces, self._settings.interfaces, self._settings.ignored)
        changed = self._damper.observe(now, {one.name: one for one in self._selection.used})
        self._note("network", None if self._damper.applied else "no network interface can be used")
        return changed

    @property
    def _interfaces(self) -> tuple[Interface, ...]:
        """The interfaces in use, in order of name."""
        return tuple(sorted(self._damper.applied.values(), key=lambda interface: interface.name))

    async def _look_at_multicast(self, now: float, *, changed: bool, refresh: bool, woke: bool) -> None:
        """Bring sockets, announcement and listening in line with the interfaces."""
        interfaces = self._interfaces
        if self._multicast is None:
            if now < self._reopen_at:
                return
            self._open_multicast(interfaces)
            refresh = True
        else:
            refresh |= await self._use_interfaces(self._multicast, now, changed=changed, woke=woke)
        await self._listen(now, interfaces, ask=changed or refresh)
        await self._announce(interfaces)
        await self._settle_conflict(now)
        self._note("multicast", None)
        self._reopen_wait = self._settings.timing.reopen_first

    def _open_multicast(self, interfaces: tuple[Interface, ...]) -> None:
        self._multicast = Multicast(interfaces)
        zeroconf = self._multicast.zeroconf
        self._listener = Listener(zeroconf, self._table, self._now, self._publish_soon)
        self._announcer = None
        if self._settings.announces:
            self._announcer = Announcer(zeroconf, self._settings.surroundings.wall)

    async def _close_multicast(self) -> None:
        multicast, listener = self._multicast, self._listener
        self._multicast = self._listener = self._announcer = None
        try:
            if listener is not None:
                await listener.stop()
            if multicast is not None:
                await multicast.close()
        except OSError as error:
            self._note("closing", f"the network could not be left in order: {error}")
        else:
            self._note("closing", None)

    async def _use_interfaces(self, multicast: Multicast, now: float, *, changed: bool, woke: bool) -> bool:
        """Have sockets on the interfaces of now; whether new ones want to be asked through."""
        interfaces = self._interfaces
        if changed or woke:
            # After a sleep every socket is made anew: an access point may have forgotten our groups.
            await multicast.release(interfaces, all_of_them=woke)
            # On interfaces that stay, the addresses that are gone should not be tried any more.
            await self._announce(interfaces)
            await multicast.use(interfaces)
            return True
        if multicast.is_settled or not self._settle_bucket.take(now):
            return False
        before = multicast.addresses_in_use
        await multicast.use(interfaces)
        return multicast.addresses_in_use > before

    async def _listen(self, now: float, interfaces: tuple[Interface, ...], *, ask: bool) -> None:
        """Hear what there is to hear, on all sockets; with `ask`, from everybody and anew."""
        listener = self._listener
        if listener is None:
            return
        listener.networks = networks_of(interfaces)
        listener.loopback = bool(interfaces) and all(interface.loopback for interface in interfaces)
        flooded = listener.is_flooded
        self._note("flood", "more devices are heard than can be real: are they forged?" if flooded else None)
        if ask or (flooded and self._flood_bucket.take(now)):
            self._refreshes += 1
            self._sweeps.append((self._now() + self._settings.timing.sweep_grace, self._now()))
            self._reread_at = now + self._settings.timing.reread
            await listener.ask_again()
        elif now >= self._reread_at or listener.is_reread_due(now):
            self._reread_at = now + self._settings.timing.reread
            listener.reread()

    async def _announce(self, interfaces: tuple[Interface, ...]) -> None:
        settings = self._settings
        addresses = tuple(announced_addresses(interfaces))
        if self._announcer is None or not addresses:
            return
        if settings.device_id is None or settings.group_tag is None or settings.port is None:
            return  # then there is no announcer: see Settings.announces
        await self._announcer.announce(
            Presence(
                device_name=settings.name,
                device_id=settings.device_id,
                group_tag=settings.group_tag,
                port=settings.port,
                pairing=self._pairing,
                addresses=addresses,
            )
        )

    async def _settle_conflict(self, now: float) -> None:
        """See that no other device goes by our name."""
        announcer, listener, device_id = self._announcer, self._listener, self._settings.device_id
        if announcer is None or listener is None or announcer.label is None or device_id is None:
            return
        await announcer.settle_conflict(now, listener.rivals(full_name(announcer.label), device_id))

    # --- fixed addresses

    def _start_lookups(self, now: float) -> None:
        for peer in self._fixed.take_due(now):
            task = asyncio.create_task(self._look_up(peer))
            self._lookups.add(task)
            task.add_done_callback(self._lookups.discard)

    async def _look_up(self, peer: PeerAddress) -> None:
        try:
            addresses = await self._resolve(peer.host)
        except OSError as error:
            problem = f"{peer} cannot be found: {error.strerror or error}"
            self._fixed.failed(self._now(), peer, problem)
            self._note(f"fixed {peer}", problem)
        else:
            self._fixed.succeeded(self._now(), peer, addresses)
            self._note(f"fixed {peer}", None)
        self._publish_soon()

    async def _resolve(self, host: str) -> tuple[str, ...]:
        """The addresses of a host name; for `.local` multicast is asked first, RFC 6762 section 3."""
        if host.endswith(".local") and self._multicast is not None:
            found = await self._multicast.resolve_local(host)
            if found:
                return found
        found = tuple(address for address in await self._resolver.resolve(host) if is_connectable(address))
        if not found:
            raise OSError(f"{host} has no address that can be connected to")
        return found

    # --- what others see

    def _note(self, key: str, problem: str | None, unexpected: Exception | None = None) -> None:
        """Keep a problem, or its end, for the status, and log it if it is news; what is unexpected with a trace."""
        if problem:
            self._last_error = problem
        if not self._problems.is_news(key, problem):
            return
        if problem:
            _log.warning("%s", problem, exc_info=unexpected)
        else:
            _log.info("%s: in order again", key)

    def _remember_trouble(self, text: str) -> None:
        """Keep what zeroconf warned of; it has logged it itself."""
        self._last_error = text

    def _publish_soon(self) -> None:
        if self._publishing is None:
            self._publishing = asyncio.get_running_loop().call_later(_PUBLISH_SECONDS, self._publish)

    def _publish(self) -> None:
        if self._publishing is not None:
            self._publishing.cancel()
            self._publishing = None
        candidates = {**self._table.snapshot(), **self._fixed.snapshot()}
        self._publish_to(candidates, self._status(candidates))

    def _status(self, candidates: Mapping[str, Candidate]) -> DiscoveryStatus:
        held = self._damper.held
        in_use = [InterfaceStatus(one.name, one.ipv4 + one.ipv6, one.name in held) for one in self._interfaces]
        waiting = [(name, "changes too often") for name in sorted(held) if name not in self._damper.applied]
        return DiscoveryStatus(
            running=True,
            announced_as=None if self._announcer is None else self._announcer.label,
            interfaces=tuple(in_use),
            left_out=(*self._selection.left_out, *waiting),
            fixed=self._fixed.statuses(),
            candidates=tuple(sorted(candidates.values(), key=lambda one: (one.name, one.key))),
            problems=self._problems.problems(),
            last_error=self._last_error,
            other_groups=self._table.other_groups,
            unusable=0 if self._listener is None else self._listener.unusable,
            crowded_out=self._table.crowded_out,
            refreshes=self._refreshes,
        )
