"""Fixed addresses: when to look up their names, and the looking up.

Promises: a name is looked up again at intervals and after every change of the network, a failing one less and
less often; one that resolved once keeps its last addresses while lookups fail, because a dead name server
says nothing about the device. `FixedPeers` is pure: time is passed in.

The system's resolver cannot be interrupted. Each lookup has a daemon thread of its own, so that one that
hangs delays neither the others nor the end of the program.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace

from discovery.addresses import MAX_ADDRESSES, PeerAddress
from discovery.candidates import Candidate, from_fixed

MAX_LOOKUPS = 4  # at once: threads that a dead name server can hold
_FIRST_RETRY_SECONDS = 2.0  # after a failed lookup; doubles with each further one
_LAST_RETRY_SECONDS = 300.0  # the most that a name which never resolves costs: twelve lookups an hour
_HURRY_SECONDS = 5.0  # at most so often does a changed network make all names due at once


@dataclass(frozen=True, slots=True)
class FixedStatus:
    """One fixed address: what it resolved to last, and why the last lookup failed if it did."""

    text: str
    addresses: tuple[str, ...] = ()
    error: str | None = None


@dataclass(slots=True)
class _Entry:
    status: FixedStatus
    due: float = 0.0
    failures: int = 0
    underway: bool = False


class FixedPeers:
    """The fixed addresses with what is known of each, and when each is due to be looked up.

    Invariant: an entry that is under way is not due until `succeeded` or `failed` is called for it.
    """

    def __init__(self, peers: Iterable[PeerAddress], refresh_seconds: float) -> None:
        self._refresh_seconds = refresh_seconds
        self._hurried_at: float | None = None
        self._entries: dict[PeerAddress, _Entry] = {}
        for peer in peers:
            addresses = (peer.host,) if peer.is_literal else ()
            self._entries[peer] = _Entry(FixedStatus(str(peer), addresses))

    def take_due(self, now: float) -> list[PeerAddress]:
        """The names to look up now; each counts as under way from here on. IP addresses are never due."""
        due = [
            peer
            for peer, entry in self._entries.items()
            if not peer.is_literal and not entry.underway and entry.due <= now
        ]
        for peer in due:
            self._entries[peer].underway = True
        return due

    def succeeded(self, now: float, peer: PeerAddress, addresses: tuple[str, ...]) -> None:
        """Note the addresses that a lookup gave."""
        entry = self._entries[peer]
        entry.status = FixedStatus(str(peer), addresses[:MAX_ADDRESSES])
        entry.failures = 0
        entry.underway = False
        entry.due = now + self._refresh_seconds

    def failed(self, now: float, peer: PeerAddress, reason: str) -> None:
        """Note a lookup that gave nothing; the addresses known before stay."""
        entry = self._entries[peer]
        entry.status = replace(entry.status, error=reason)
        entry.due = now + min(_LAST_RETRY_SECONDS, _FIRST_RETRY_SECONDS * 2 ** min(entry.failures, 16))
        entry.failures += 1
        entry.underway = False

    def hurry(self, now: float) -> None:
        """The network changed: make every name due now, unless that was so a moment ago."""
        if self._hurried_at is not None and now - self._hurried_at < _HURRY_SECONDS:
            return
        self._hurried_at = now
        for entry in self._entries.values():
            entry.due = now
            entry.failures = 0

    def snapshot(self) -> dict[str, Candidate]:
        """A candidate for each entry whose addresses are known."""
        found = [
            from_fixed(peer, entry.status.addresses) for peer, entry in self._entries.items() if entry.status.addresses
        ]
        return {candidate.key: candidate for candidate in found}

    def statuses(self) -> tuple[FixedStatus, ...]:
        """One status for each entry, in the order given."""
        return tuple(entry.status for entry in self._entries.values())


class Resolver:
    """Looks up host names with the system's resolver, a few at once. For use from one event loop."""

    def __init__(self) -> None:
        self._slots = asyncio.Semaphore(MAX_LOOKUPS)
        self._threads: set[threading.Thread] = set()

    async def resolve(self, host: str) -> tuple[str, ...]:
        """The addresses of a host name, without duplicates; raises OSError if there are none.

        Cancelling gives up waiting; the thread ends when the system's resolver does, and its answer is
        dropped.
        """
        async with self._slots:
            answer: asyncio.Future[tuple[str, ...]] = asyncio.get_running_loop().create_future()
            thread = threading.Thread(
                target=_look_up, args=(host, answer), name=f"atop-discovery-resolve-{host[:40]}", daemon=True
            )
            self._threads = {one for one in self._threads if one.is_alive()} | {thread}
            thread.start()
            return await answer

    def join(self, timeout: float) -> None:
        """Wait for lookups that were given up, `timeout` seconds at most."""
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))


def _look_up(host: str, answer: asyncio.Future[tuple[str, ...]]) -> None:
    """The body of a lookup's thread."""
    addresses: tuple[str, ...] = ()
    problem: OSError | None = None
    try:
        entries = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        addresses = tuple(dict.fromkeys(str(entry[4][0]) for entry in entries))[:MAX_ADDRESSES]
    except OSError as error:
        problem = error
    except UnicodeError as error:  # a label that the resolver's IDNA codec refuses
        problem = OSError(f"not a host name: {error}")

    def deliver() -> None:
        if answer.done():
            return
        if problem is not None:
            answer.set_exception(problem)
        else:
            answer.set_result(addresses)

    # The loop is closed if discovery was closed while the resolver was busy: then nobody wants the answer.
    with contextlib.suppress(RuntimeError):
        answer.get_loop().call_soon_threadsafe(deliver)
