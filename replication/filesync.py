"""Contents of files between devices: what this one lacks is fetched, what others ask for is sent.

A commit brings the names of contents; the contents follow by themselves. `missing` finds what is not here, `fetching`
decides what is asked of whom, `assembling` puts it together, `fileserving` sends, `elsewhere` asks what others have;
here they meet the links, the store, and whoever waits for a file.

The commit of a replica that names new contents is accepted by the master before it has them: they are on the disk of
the device that made it, as with any commit that is only "flushed". If that device dies for good before the contents
have travelled, the item is there and its contents are not. Who needs more uses `durability="replicated"`: such a commit
returns when another device has them on its disk (`await_elsewhere`).

Promises:
- Only contents that the store names are fetched. What a peer sends beyond what was asked for is thrown away.
- What has come stays, and is gone on with: with another device, after a cut, after a restart.
- Nothing here holds up a link, a commit, or the log: links' threads queue, one thread decides and writes.

Never: contents in a log, an error, or a `repr`.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from atop.engine import Engine
from atop.errors import AtopError, NoSuchFile, StoreClosed
from atop.files import FileArea
from atop.values import FileInfo

from . import fetching
from .assembling import Assembler
from .elsewhere import Elsewhere, answer, send
from .fileserving import MAX_ASKS, LinkForFiles, Server
from .identity import DeviceId
from .messages import MAX_HASHES, FileAbsent, FileAsked, FileChunk, FileHere, FileMessage, NamedAsked
from .missing import LOOK_SECONDS, Missing

if TYPE_CHECKING:
    from atop.store import Store

log = logging.getLogger(__name__)

Id = bytes
Digest = bytes

TICK_SECONDS: Final = 0.5
"""How often decisions are looked at when nothing happens."""

BUSY_SECONDS: Final = 0.25
"""How often it is looked at least what is missing, whatever comes in."""

MAX_QUEUED: Final = 2_000
"""Events of links that wait; more are dropped. A device that sends what it was asked for comes nowhere near it."""

MAX_ERRANDS: Final = 100
"""Questions of devices that take the disk, or the database, and are being answered; more are dropped."""

FREE_BYTES: Final = 256 << 20
"""Disk space that fetching leaves free, above all that commits need."""

LINK_SECONDS: Final = 3.0
"""How long a file that is wanted now waits for a first device to be reachable."""

RATE_SECONDS: Final = 2.0
"""How long is looked at to say how fast contents come."""

STATUS_SECONDS: Final = 1.0
"""How old a status may be where much is missing, which takes time to add up."""


@dataclass(frozen=True, slots=True)
class FileProgress:
    """Contents that are on their way."""

    digest: bytes
    size: int
    received: int
    source: DeviceId | None


@dataclass(frozen=True, slots=True)
class FilesStatus:
    """How the contents of files stand on this device. `missing` counts all that is not here, in files and bytes."""

    missing: int = 0
    missing_bytes: int = 0
    fetching: tuple[FileProgress, ...] = ()
    waiting: int = 0  # of the missing ones, those that no reachable device has
    fetched: int = 0  # since the store was opened
    received_bytes: int = 0  # since then: of these, and of those on their way
    sent_bytes: int = 0  # to those that are linked now, since they are
    rate: float = 0.0  # bytes a second that have come lately
    problem: str | None = None  # why nothing can be written
    wrong: tuple[tuple[DeviceId, bytes], ...] = ()  # who has sent other contents than those with this hash
    all_found: bool = True  # whether the store was looked through, and all that is missing is counted


class FileSync:
    """The contents of one store's files. `on_link`, `on_closed` and `receive` are for the threads of links.

    Args:
        members: how many devices the group has now.
    """

    def __init__(self, members: Callable[[], int]) -> None:
        self.free_bytes = FREE_BYTES
        self.name_of: Callable[[DeviceId], str] = lambda device: device.short  # how errors call a device
        self._members = members
        self._events: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._changed = threading.Condition()  # guards the next six; notified when contents have moved
        self._links: dict[Id, LinkForFiles] = {}
        self._servers: dict[Id, Server] = {}
        self._early: dict[Id, deque[FileAsked]] = {}  # what was asked before the store was open
        self._errands: set[object] = set()  # what workers do because a device has asked for it
        self._waiters = 0
        self._closed = False
        self._elsewhere = Elsewhere(self._all_links, members, lambda: sum(s.sent for s in self._all_servers()))
        self._fetches = fetching.Fetches()  # changed by the one thread
        # Set by `open`, before that thread begins.
        self._store: Store | None = None
        self._area: FileArea
        self._engine: Engine
        self._missing: Missing
        self._assembler: Assembler
        self._thread: threading.Thread | None = None
        # Of the one thread.
        self._new: list[Digest] = []  # contents that are here now, and the other devices do not know it
        self._looked = 0.0
        self._rated, self._rate = (0.0, 0), 0.0  # when the rate was worked out last, and how much had come then
        self._told = -STATUS_SECONDS, FilesStatus()  # the last status, and when it was made

    # -- for the store (see atop/replicated.py)

    def open(self, store: Store) -> None:
        """Begin to fetch what the store names and does not have, and to send what others ask for."""
        area = self._area = store._file_area
        engine = self._engine = store._tenure.engine
        self._assembler = Assembler(
            area, self._fetches, lambda: self.free_bytes, self._events.put, self._act, self._placed
        )
        self._missing = Missing(
            area,
            engine,
            self._fetches.want,
            lambda named: self._act(self._fetches.keep_only(named)),
            time.monotonic,
        )
        with self._changed:
            self._store = store
            for device, link in self._links.items():
                server = self._servers[device] = self._server(link)
                for asked in self._early.get(device, ()):
                    server.ask(asked)
            self._early.clear()
        self._thread = threading.Thread(target=self._run, name="atop-files", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End: no thread is left, and nothing is read from the store any more. May be called again."""
        with self._changed:
            self._closed = True
            servers = list(self._servers.values())
            self._servers.clear()
            self._changed.notify_all()
        self._elsewhere.close()
        self._events.put(None)
        if self._thread is not None:
            self._thread.join()
            self._assembler.close()
        for server in servers:
            server.close()

    def items_changed(self, item_ids: list[int] | None) -> None:
        """Commits from elsewhere have changed these items, or anything. Called inside commits."""
        if self._store is not None and self._missing.items_changed(item_ids):
            self._events.put(_nothing)

    def fetch(self, info: FileInfo, timeout: float) -> None:
        """Return when the contents are here. Raises NoSuchFile."""
        if self._store is None or self._closed:
            raise StoreClosed("the store is closed")
        if not self._engine.names_file(info.digest):
            raise NoSuchFile(
                f"the contents of {info.described()} are not on this device, and no item names them any more: they are "
                "not fetched. Undo the change that removed the file, and read it then"
            )
        with self._changed:
            self._waiters += 1
        asked = threading.Event()

        def ask() -> None:
            if not self._area.has(info.digest):
                self._fetches.want(info.digest, info.size, urgent=True)
            asked.set()

        try:
            self._events.put(ask)
            self._await_contents(info, timeout, asked)
        finally:
            with self._changed:
                self._waiters -= 1
            self._events.put(lambda: self._fetches.calm(info.digest))

    def _await_contents(self, info: FileInfo, timeout: float, asked: threading.Event) -> None:
        begin = progress = time.monotonic()
        seen = -1
        with self._changed:
            while not self._area.has(info.digest):
                now = time.monotonic()
                wanted = self._fetches.wanted.get(info.digest)
                received = wanted.received if wanted is not None else 0
                if received != seen:
                    seen, progress = received, now
                links = set(self._links)
                if self._closed:
                    raise StoreClosed("the store is closed")
                if now - progress >= timeout or (not links and now - begin >= min(timeout, LINK_SECONDS)):
                    raise self._unreachable(info, received, wanted, links)
                if wanted is not None and asked.is_set() and not wanted.active:
                    nowhere = links and links <= (wanted.absent - wanted.coming) | wanted.wrong
                    if nowhere or wanted.problem is not None:
                        raise self._unreachable(info, received, wanted, links)
                self._changed.wait(min(TICK_SECONDS, max(0.01, timeout - (now - progress))))

    def _unreachable(self, info: FileInfo, received: int, wanted: fetching.Wanted | None, links: set[Id]) -> NoSuchFile:
        """The error about contents that cannot be had now."""
        start = f"the contents of {info.described()} are not on this device"
        then = "switch on a device that has it, best the one where it was added, and try again"
        if wanted is not None and wanted.problem is not None:
            return NoSuchFile(f"{start}, and cannot be fetched: {wanted.problem}")
        if not links:
            return NoSuchFile(f"{start}, and no other device can be reached: {then}")
        names = self._names(links)
        wrong = wanted.wrong & links if wanted is not None else set()
        if wrong:
            return NoSuchFile(
                f"{start}: asked {names}, of which {self._names(wrong)} has other contents in its place: {then}"
            )
        if wanted is not None and links <= wanted.absent - wanted.coming:
            return NoSuchFile(f"{start}, and none that can be reached has them (asked: {names}): {then}")
        return NoSuchFile(
            f"{start}, and did not come in time ({received:,} of {info.size:,} bytes; asked: {names}): try again, what "
            "has come is kept"
        )

    def _names(self, devices: set[Id]) -> str:
        return ", ".join(sorted(self.name_of(DeviceId(device)) for device in devices))

    def mend(self, digest: Digest, size: int) -> bool:
        """Set damaged contents aside and fetch them; False, and nothing is done, if there is no other device."""
        if self._store is None or self._members() <= 1:
            return False
        self._area.set_aside(digest)
        self._events.put(lambda: self._missing.notice(digest, size))
        return True

    def await_elsewhere(self, digests: Iterable[Digest], seconds: float) -> None:
        """Return when another device has these contents, none can be reached, or none has asked for any for so long."""
        if self._store is None:
            return
        sizes = {}
        for digest in digests:
            with contextlib.suppress(OSError):  # they are not here: then they are not from here
                sizes[digest] = self._area.path_of(digest).stat().st_size
        self._elsewhere.await_there(sizes, seconds)

    def named_elsewhere(self, digests: list[Digest]) -> set[Digest]:
        """Those of these contents that another device names; all of them, unless every other device has answered."""
        return self._elsewhere.named(digests)

    def status(self) -> FilesStatus:
        """How things stand; where much is missing, how they stood a moment ago."""
        told, status = self._told
        if len(self._fetches.wanted) <= MAX_HASHES or time.monotonic() - told >= STATUS_SECONDS:
            status = self._status()
            self._told = time.monotonic(), status
        return status

    def _status(self) -> FilesStatus:
        wanted = list(self._fetches.wanted.values())
        return FilesStatus(
            missing=len(wanted),
            missing_bytes=sum(w.size - w.received for w in wanted),
            fetching=tuple(
                FileProgress(w.digest, w.size, w.received, DeviceId(w.source) if w.source is not None else None)
                for w in wanted
                if w.active
            ),
            waiting=sum(w.stage == "parked" for w in wanted),
            fetched=self._fetches.fetched,
            received_bytes=self._assembler.received if self._store is not None else 0,
            sent_bytes=sum(server.sent for server in self._all_servers()),
            rate=self._rate,
            problem=self._fetches.problem,
            wrong=tuple((DeviceId(device), digest) for device, digest in list(self._fetches.blamed)),
            all_found=self._store is None or self._missing.all_found,
        )

    # -- for the links

    def on_link(self, link: LinkForFiles) -> None:
        """There is a link."""
        device = link.device_id.digest
        with self._changed:
            self._links[device] = link
            if self._store is not None and not self._closed:
                self._servers[device] = self._server(link)
        self._events.put(lambda: self._fetches.link_up(device))

    def on_closed(self, link: LinkForFiles) -> None:
        """A link has ended."""
        device = link.device_id.digest
        with self._changed:
            if self._links.get(device) is not link:
                return
            del self._links[device]
            self._early.pop(device, None)
            server = self._servers.pop(device, None)
            self._changed.notify_all()
        if server is not None:
            server.close()
        self._events.put(lambda: self._act(self._fetches.link_down(device)))

    def receive(self, link: LinkForFiles, message: FileMessage) -> None:
        """A message about files has arrived."""
        device = link.device_id.digest
        if isinstance(message, FileAsked):
            self._asked(device, message)
        elif isinstance(message, NamedAsked):
            store = self._store
            if store is not None:
                self._errand((device, message.token), lambda: answer(link, message, self._engine, store._pins))
        elif not isinstance(message, FileChunk | FileAbsent | FileHere):
            self._elsewhere.answered(device, message)
        elif self._events.qsize() > MAX_QUEUED:
            log.debug("device %s sends more than it was asked for", link.device_id.short)
        elif isinstance(message, FileChunk):
            self._events.put(lambda: self._take(device, message))
        elif isinstance(message, FileAbsent):
            self._events.put(lambda: self._act(self._fetches.absent(device, message.digest, coming=message.coming)))
        else:
            self._elsewhere.here(device, message.digests)
            self._events.put(lambda: self._fetches.here(device, message.digests))

    def _asked(self, device: Id, message: FileAsked) -> None:
        with self._changed:
            server = self._servers.get(device)
            if self._store is None:
                self._early.setdefault(device, deque(maxlen=MAX_ASKS)).append(message)
        if server is not None:
            server.ask(message)

    def _all_links(self) -> list[LinkForFiles]:
        with self._changed:
            return list(self._links.values())

    def _all_servers(self) -> list[Server]:
        with self._changed:
            return list(self._servers.values())

    def _server(self, link: LinkForFiles) -> Server:
        def check(digest: Digest, size: int) -> None:
            self._errand(digest, lambda: self._check(digest, size))

        return Server(link, self._area, self._is_coming, check)

    def _errand(self, what: object, work: Callable[[], None]) -> None:
        """Have a worker do what a device has asked for, unless that is being done, or too much is."""
        with self._changed:
            if what in self._errands or len(self._errands) >= MAX_ERRANDS:
                return
            self._errands.add(what)

        def run() -> None:
            try:
                work()
            finally:
                with self._changed:
                    self._errands.discard(what)

        self._assembler.submit(run)

    def _is_coming(self, digest: Digest) -> bool:
        wanted = self._fetches.wanted.get(digest)
        return wanted is not None and wanted.active

    def _check(self, digest: Digest, size: int) -> None:
        """Contents here have another size than another device asked for: one of the two is wrong."""
        try:
            if self._engine.names_file(digest) and not self._area.is_whole(digest) and self.mend(digest, size):
                log.warning("the contents of a file (%s) were damaged on the disk: fetching them", digest.hex()[:12])
        except (OSError, AtopError) as error:
            log.info("contents cannot be checked: %s", error)

    # -- the one thread

    def _run(self) -> None:
        while True:
            try:
                event = self._events.get(timeout=LOOK_SECONDS if self._missing.waits else TICK_SECONDS)
            except queue.Empty:
                event = _nothing
            if event is None:
                return
            try:
                event()
                if self._events.empty() or time.monotonic() - self._looked >= BUSY_SECONDS:
                    self._look_around()
                while actions := self._fetches.actions(time.monotonic()):
                    self._act(actions)
            except StoreClosed:
                return
            except AtopError as error:  # of the store: it is tried again
                log.info("looking for missing files: %s", error)
            except Exception:
                log.exception("a mistake in fetching files")
            if self._waiters:
                with self._changed:
                    self._changed.notify_all()

    def _act(self, actions: list[fetching.Action]) -> None:
        for action in actions:
            match action:
                case fetching.Open(digest, size):
                    self._assembler.open(digest, size)
                case fetching.Ask(device, digest, size, offset, length):
                    link = self._links.get(device)
                    if link is not None:
                        send(link, FileAsked(digest, size, offset, length))
                case fetching.Finish(digest):
                    self._assembler.finish(digest)
                case fetching.Leave(digest, forget):
                    self._assembler.leave(digest, forget=forget)

    def _take(self, device: Id, chunk: FileChunk) -> None:
        if self._fetches.chunk(device, chunk.digest, chunk.offset, len(chunk.data), time.monotonic()):
            self._assembler.take(chunk.digest, chunk.data)

    def _placed(self, digest: Digest) -> None:
        self._new.append(digest)
        with self._changed:
            self._changed.notify_all()

    def _look_around(self) -> None:
        """Find contents that are missing, and tell the others what is not missing any more."""
        now = self._looked = time.monotonic()
        since, before = self._rated
        if now - since >= RATE_SECONDS:
            received = self._assembler.received
            self._rated, self._rate = (now, received), (received - before) / (now - since)
        self._missing.look(room=len(self._fetches.wanted) < fetching.MAX_WANTED // 2)
        while self._new:
            told, self._new = self._new[:MAX_HASHES], self._new[MAX_HASHES:]
            for link in self._all_links():
                send(link, FileHere(told))


def _nothing() -> None:
    """An event that only wakes the thread."""


__all__ = ["FileProgress", "FileSync", "FilesStatus"]
