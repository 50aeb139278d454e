"""`Discovery`: announce this device, hear of others. The public class, for any thread.

One thread ("atop-discovery") runs an event loop with all the network's work, another
("atop-discovery-notify") calls the application. Both end in `close`.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Self

from discovery.addresses import parse_peers
from discovery.announcement import checked_device_id, checked_group_tag, checked_pairing, checked_port
from discovery.candidates import Candidate
from discovery.errors import SettingError
from discovery.interfaces import IGNORED_INTERFACES, Wanted, checked_interfaces
from discovery.notifier import Notifier, OnCandidate
from discovery.settings import Settings, Surroundings, Timing
from discovery.status import DiscoveryStatus
from discovery.worker import Worker


class Discovery:
    """Finds devices of one group on the local network, and makes this one findable.

    - `name` is the device's name, `device_id` its short id, `port` where it accepts links. `group_tag` is a
      keyed hash of the group id, ready made: 1 to 32 bytes, or text. A device without a group yet (one that
      joins) leaves out `port`, `device_id` and `group_tag`: then nothing is announced.
    - Only devices with the same group tag become candidates; with `seeking=7` also those that invite under
      number 7.
    - `on_candidate(change, candidate)` is called in the thread "atop-discovery-notify", one call at a time.
      It may block and may use this object. When it is busy, changes in between are put together. It is not
      called after `close` has returned.
    - `interfaces`: None uses every interface that leads to other devices (not those that match `ignored`:
      containers, virtual machines, tunnels); "loopback" only this machine; a list names them (patterns as in
      "eth*" allowed).
    - `fixed`: addresses to try in any case, such as "desktop.lan:4747", "[fe80::1%eth0]:4747", "10.0.0.2".
    - `multicast=False` neither announces nor listens: fixed addresses alone.

    Nothing that is found is to be trusted: it only says where to try a handshake. A lost candidate says
    nothing about a link that is up.

    Raises SettingError or AddressError for what cannot be used. Trouble with the network is never raised:
    it is part of `status()`, and is overcome as soon as the network allows. All methods may be called from
    any thread.
    """

    def __init__(
        self,
        *,
        name: str,
        port: int | None = None,
        device_id: str | None = None,
        group_tag: bytes | str | None = None,
        on_candidate: OnCandidate | None = None,
        interfaces: Wanted = None,
        fixed: Iterable[str] = (),
        seeking: int | None = None,
        ignored: Sequence[str] = IGNORED_INTERFACES,
        multicast: bool = True,
        timing: Timing | None = None,
        surroundings: Surroundings | None = None,
    ) -> None:
        if not isinstance(name, str):
            raise SettingError(f"the device's name is text, not {type(name).__name__}")
        self._settings = Settings(
            name=name,
            port=None if port is None else checked_port(port),
            device_id=None if device_id is None else checked_device_id(device_id),
            group_tag=None if group_tag is None else checked_group_tag(group_tag),
            seeking=checked_pairing(seeking),
            interfaces=checked_interfaces(interfaces),
            ignored=tuple(ignored),
            fixed=parse_peers(fixed),
            multicast=multicast,
            timing=timing or Timing(),
            surroundings=surroundings or Surroundings(),
        )
        self._on_candidate = on_candidate
        self._pairing: int | None = None
        self._preferred: frozenset[str] = frozenset()
        self._lock = threading.Lock()  # guards the fields above and _run; never held while waiting
        self._run: _Run | None = None
        self._last_error: str | None = None

    def start(self) -> None:
        """Begin to announce and to listen; returns at once. Does nothing if it is running."""
        with self._lock:
            if self._run is None:
                self._run = _Run(self._settings, self._pairing, self._preferred, self._on_candidate)

    def close(self) -> None:
        """Say goodbye and end both threads; may be started again. Does nothing if it is not running.

        Takes about a third of a second, and waits for a call of the callback that is under way (unless called
        from it). The one thing that can outlast it, by as long as the system's
        resolver takes to give up, is a daemon thread that looks up the name of a fixed address; its answer is
        dropped.
        """
        with self._lock:
            run, self._run = self._run, None
        if run is not None:
            run.end()
            self._last_error = run.status().last_error

    def status(self) -> DiscoveryStatus:
        """How discovery is doing now; a frozen value."""
        run = self._run
        return DiscoveryStatus(last_error=self._last_error) if run is None else run.status()

    def candidates(self) -> tuple[Candidate, ...]:
        """Where a handshake may be tried now, in order of name; none when it is not running."""
        return self.status().candidates

    def set_pairing(self, number: int | None) -> None:
        """Announce an open invitation under this number (the one the pairing code begins with); None ends it.

        Kept over close and start. A device that announces nothing cannot invite this way.
        """
        number = checked_pairing(number)
        with self._lock:
            self._pairing = number
            if self._run is not None:
                self._run.call(lambda worker: worker.set_pairing(number))

    def prefer(self, device_ids: Iterable[str]) -> None:
        """The short ids of the devices of the group: when too many are heard, these are the ones kept."""
        preferred = frozenset(device_ids)
        with self._lock:
            self._preferred = preferred
            if self._run is not None:
                self._run.call(lambda worker: worker.prefer(preferred))

    def refresh(self) -> None:
        """Ask the network anew and look names up again, soon; in the long run once in twenty seconds."""
        with self._lock:
            if self._run is not None:
                self._run.call(lambda worker: worker.refresh())

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class _Run:
    """One run from start to close: two threads, and what they published last."""

    def __init__(
        self,
        settings: Settings,
        pairing: int | None,
        preferred: frozenset[str],
        on_candidate: OnCandidate | None,
    ) -> None:
        self._settings = settings
        self._pairing = pairing
        self._preferred = preferred
        self._notifier = None if on_candidate is None else Notifier(on_candidate)
        self._status = DiscoveryStatus(running=True)  # replaced whole, by the loop's thread only
        self._loop: asyncio.AbstractEventLoop | None = None
        self._worker: Worker | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._main, name="atop-discovery", daemon=True)
        self._thread.start()
        self._ready.wait()

    def status(self) -> DiscoveryStatus:
        """What was published last, with the trouble of the callback if there is any."""
        status = self._status
        error = None if self._notifier is None else self._notifier.error
        if error is None:
            return status
        return replace(status, problems=(*status.problems, error), last_error=error)

    def call(self, action: Callable[[Worker], None]) -> None:
        """Have the loop's thread do something with the worker; nothing if that has ended."""
        loop, worker = self._loop, self._worker
        if loop is not None and worker is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: it has ended
                loop.call_soon_threadsafe(action, worker)

    def end(self) -> None:
        """End both threads."""
        self.call(lambda worker: worker.stop())
        self._thread.join()
        if self._notifier is not None:
            self._notifier.stop()

    def _main(self) -> None:
        try:
            with asyncio.Runner() as runner:
                runner.run(self._work())
        except Exception as error:
            problem = f"discovery ended: {error!r}"
            self._status = replace(self._status, problems=(problem,), last_error=problem)
            raise  # into threading.excepthook, where a program that wants to know listens
        finally:
            self._ready.set()

    async def _work(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._worker = Worker(self._settings, self._pairing, self._preferred, self._publish)
        self._ready.set()
        await self._worker.run()

    def _publish(self, candidates: Mapping[str, Candidate], status: DiscoveryStatus) -> None:
        self._status = status
        if self._notifier is not None:
            self._notifier.offer(candidates)
