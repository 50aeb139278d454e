"""Contents of files between devices: what this one lacks is fetched, what others ask for is sent.

A commit brings the names of contents; the contents follow by themselves. What is missing is found by looking through
the store's counters when it opens and now and then, and through the items that commits from elsewhere have changed.
`fetching` decides what is asked of whom; here are the threads, the disk and the links.

The commit of a replica that names new contents is accepted by the master before it has them: they are on the disk of
the device that made it, as with any commit that is only "flushed". If that device dies for good before the contents
have travelled, the item is there and its contents are not. Who needs more uses `durability="replicated"`: such a commit
returns when another device has them on its disk (`await_files`).

Promises:
- Contents get their place when all their bytes are on the disk and have their hash, and not before.
- Only contents that the store names are fetched. What a peer sends beyond what was asked for is thrown away.
- What has come stays, and is gone on with: with another device, after a cut, after a restart.
- Nothing is removed from any device's area while another device of the group names it (`named_elsewhere`).
- Nothing here holds up a link, a commit, or the log: links' threads queue, one thread decides and writes.

Never: contents in a log, an error, or a `repr`.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import logging
import os
import queue
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Final

from atop.disk import explained
from atop.engine import Engine
from atop.errors import AtopError, NoSuchFile, StoreClosed, StoreFull, UnsafePickle
from atop.files import CHUNK, FileArea
from atop.pins import DIGEST_SIZE, Pins
from atop.records import decode, pack_u64
from atop.values import FileInfo, walk
from atop.writeset import ITEMS

from . import fetching
from .fileserving import MAX_ASKS, LinkForFiles, Server
from .handshake import LinkError
from .identity import DeviceId
from .messages import (
    MAX_HASHES,
    FileAbsent,
    FileAsked,
    FileChunk,
    FileHere,
    FileMessage,
    Message,
    NamedAnswered,
    NamedAsked,
)

if TYPE_CHECKING:
    from hashlib import blake2b

    from atop.store import Store

log = logging.getLogger(__name__)

Id = bytes
Digest = bytes

TICK_SECONDS: Final = 0.5
"""How often decisions are looked at when nothing happens."""

SCAN_SECONDS: Final = 300.0
"""How often the store is looked through for contents that are missing, or that nothing names any more."""

LOOK_SECONDS: Final = 0.05
"""How often changed items are looked at, at most."""

BUSY_SECONDS: Final = 0.25
"""How often they are looked at at least, whatever else comes in."""

MAX_CHANGED: Final = 500
"""Items that changed meanwhile that are looked at one by one; when there are more, the store is looked through."""

SCAN_AGAIN_SECONDS: Final = 2.0
"""How soon it may be looked through again because of many changes; at least `SCAN_SHARE` times as long as it took."""

SCAN_SHARE: Final = 20

MAX_QUEUED: Final = 2_000
"""Events of links that wait; more are dropped. A device that sends what it was asked for comes nowhere near it."""

RATE_SECONDS: Final = 2.0
"""How long is looked at to say how fast contents come."""

SYNC_BYTES: Final = 32 << 20
"""How much is written before it is sent to the disk: left to the system, gigabytes would hold up the log's flush."""

FREE_BYTES: Final = 256 << 20
"""Disk space that fetching leaves free, above all that commits need."""

LINK_SECONDS: Final = 3.0
"""How long a file that is wanted now waits for a first device to be reachable."""

ANSWER_SECONDS: Final = 5.0
"""How long the other devices have to say what they name."""

AWAITED_AT_ONCE: Final = 200
"""Contents that other devices are asked about together: fewer than `fileserving.MAX_ASKS`."""

STATUS_SECONDS: Final = 1.0
"""How old a status may be where much is missing, which takes time to add up."""

WORKERS: Final = 4
"""Threads that flush, hash and place."""


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
    received_bytes: int = 0  # of these, and of those on their way; what was asked for and taken
    rate: float = 0.0  # bytes a second that have come lately
    problem: str | None = None  # why nothing can be written
    wrong: tuple[tuple[DeviceId, bytes], ...] = ()  # who has sent other contents than those with this hash


class _Partial:
    """Contents that are being put together."""

    def __init__(self, file: BinaryIO, hasher: blake2b) -> None:
        self.file = file
        self.hasher = hasher
        self.unsynced = 0
        self.syncing: Future[None] | None = None


class FileSync:
    """The contents of one store's files. `on_link`, `on_closed` and `receive` are for the threads of links.

    Args:
        members: how many devices the group has now.
    """

    def __init__(self, members: Callable[[], int]) -> None:
        self.free_bytes = FREE_BYTES
        self.name_of: Callable[[DeviceId], str] = lambda device: device.short  # how errors call a device
        self._members = members
        self._area: FileArea | None = None
        self._engine: Engine | None = None
        self._pins: Pins | None = None
        self._fetches = fetching.Fetches()  # of the one thread, and read by others
        self._events: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._changed = threading.Condition()  # guards the six below; notified when contents have moved
        self._links: dict[Id, LinkForFiles] = {}
        self._servers: dict[Id, Server] = {}
        self._early: dict[Id, deque[FileAsked]] = {}  # what was asked before the store was open
        self._answers: dict[int, dict[Id, set[Digest]]] = {}  # token -> device -> what it names
        self._seen_elsewhere: dict[Digest, set[Id]] = {}  # awaited contents -> devices that have them
        self._waiters = 0
        self._tokens = itertools.count(1)
        self._thread: threading.Thread | None = None
        self._closed = False
        self._workers: ThreadPoolExecutor | None = None
        # of the one thread alone, and read by others
        self._received, self._rate = 0, 0.0
        self._looked_around = 0.0
        self._told = -STATUS_SECONDS, FilesStatus()  # the last status, and when it was made
        self._rated = 0.0, 0  # when the rate was last looked at, and how much had come then
        self._partials: dict[Digest, _Partial] = {}
        self._new: list[Digest] = []  # that are here now, and the other devices do not know it
        self._items: set[int] = set()  # that have changed, and were not looked at; guarded by `_changed`
        self._scan_wanted = True
        self._scanned, self._scan_took, self._looked = -SCAN_SECONDS, 0.0, 0.0
        self._more = False  # whether more is missing than there is room to remember

    # -- for the store (see atop/replicated.py)

    def open(self, store: Store) -> None:
        """Begin to fetch what the store names and does not have, and to send what others ask for."""
        self._workers = ThreadPoolExecutor(WORKERS, thread_name_prefix="atop-files-disk")
        with self._changed:
            area = self._area = store._file_area
            self._engine, self._pins = store._tenure.engine, store._pins
            for device, link in self._links.items():
                server = self._servers[device] = self._server(link, area)
                for asked in self._early.pop(device, ()):
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
        self._events.put(None)
        if self._thread is not None:
            self._thread.join()
        for server in servers:
            server.close()
        if self._workers is not None:
            self._workers.shutdown(cancel_futures=True)
        for partial in self._partials.values():
            partial.file.close()
        self._partials.clear()

    def items_changed(self, item_ids: list[int] | None) -> None:
        """Commits from elsewhere have changed these items, or anything. Called inside commits."""
        with self._changed:
            if item_ids is None or len(self._items) > MAX_CHANGED:
                self._scan_wanted = True
                self._items.clear()
            else:
                wake = not self._items
                self._items.update(item_ids)
                if not wake:
                    return
        self._events.put(_nothing)

    def fetch(self, info: FileInfo, timeout: float) -> None:
        """Return when the contents are here. Raises NoSuchFile."""
        area, engine = self._area, self._engine
        if area is None or engine is None or self._closed:
            raise StoreClosed("the store is closed")
        digest = info.digest
        if not engine.names_file(digest):
            raise NoSuchFile(
                f"the contents of {info.described()} are not on this device, and no item names them any more: they are "
                "not fetched. Undo the change that removed the file, and read it then"
            )
        with self._changed:
            self._waiters += 1
        asked = threading.Event()

        def ask() -> None:
            self._want(digest, info.size, urgent=True)
            asked.set()

        try:
            self._events.put(ask)
            self._await_contents(info, area, timeout, asked)
        finally:
            with self._changed:
                self._waiters -= 1
            self._events.put(lambda: self._fetches.calm(digest))

    def _await_contents(self, info: FileInfo, area: FileArea, timeout: float, asked: threading.Event) -> None:
        begin = progress = time.monotonic()
        seen = -1
        with self._changed:
            while not area.has(info.digest):
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
        names = ", ".join(sorted(self.name_of(DeviceId(device)) for device in links))
        wrong = wanted.wrong & links if wanted is not None else set()
        if wrong:
            senders = ", ".join(sorted(self.name_of(DeviceId(device)) for device in wrong))
            return NoSuchFile(f"{start}: asked {names}, of which {senders} has other contents in its place: {then}")
        absent = wanted.absent if wanted is not None else set()
        if links <= absent:
            return NoSuchFile(f"{start}, and none that can be reached has them (asked: {names}): {then}")
        return NoSuchFile(
            f"{start}, and did not come in time ({received:,} of {info.size:,} bytes; asked: {names}): try again, what "
            "has come is kept"
        )

    def mend(self, digest: Digest, size: int) -> bool:
        """Set damaged contents aside and fetch them; False, and nothing is done, if there is no other device."""
        area = self._area
        if area is None or self._members() <= 1:
            return False
        area.set_aside(digest)
        self._events.put(lambda: self._want(digest, size))
        return True

    def await_elsewhere(self, digests: Iterable[Digest], seconds: float) -> None:
        """Return when another device has these contents, none can be reached, or none has asked for any for so long."""
        area = self._area
        if area is None:
            return
        sizes = {}
        for digest in digests:
            with contextlib.suppress(OSError):  # they are not here: then they are not from here
                sizes[digest] = area.path_of(digest).stat().st_size
        waiting = list(sizes)
        while waiting and self._await_some({digest: sizes[digest] for digest in waiting[:AWAITED_AT_ONCE]}, seconds):
            del waiting[:AWAITED_AT_ONCE]

    def _await_some(self, sizes: dict[Digest, int], seconds: float) -> bool:
        """Whether another device has all of these now."""
        with self._changed:
            for digest in sizes:
                self._seen_elsewhere.setdefault(digest, set())
            links = list(self._links.values())
        for link in links:
            for digest, size in sizes.items():
                _send(link, FileAsked(digest, size, 0, 0))

        def there() -> bool:
            return all(self._seen_elsewhere.get(digest) for digest in sizes)

        with self._changed:
            progress, sent = time.monotonic(), -1
            while not there() and self._links and not self._closed and time.monotonic() - progress < seconds:
                now_sent = sum(server.sent for server in self._servers.values())
                if now_sent != sent:
                    progress, sent = time.monotonic(), now_sent
                self._changed.wait(TICK_SECONDS)
            found = there()
            for digest in sizes:
                self._seen_elsewhere.pop(digest, None)
        return found

    def named_elsewhere(self, digests: list[Digest]) -> set[Digest]:
        """Those of these contents that another device names; all of them, unless every other device has answered."""
        token = next(self._tokens)
        named: dict[Id, set[Digest]] = {}
        with self._changed:
            links = list(self._links.values())
            if len(links) < self._members() - 1:
                return set(digests)
            self._answers[token] = named
        for link in links:
            _send(link, NamedAsked(token, digests))
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(named) >= len(links), ANSWER_SECONDS)
            del self._answers[token]
            complete = len(named) >= max(len(links), self._members() - 1)
        return set().union(*named.values()) if complete else set(digests)

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
            received_bytes=self._received,
            rate=self._rate,
            problem=self._fetches.problem,
            wrong=tuple((DeviceId(device), w.digest) for w in wanted for device in sorted(w.wrong)),
        )

    # -- for the links

    def on_link(self, link: LinkForFiles) -> None:
        """There is a link."""
        device = link.device_id.digest
        with self._changed:
            self._links[device] = link
            if self._area is not None and not self._closed:
                self._servers[device] = self._server(link, self._area)
        self._events.put(lambda: self._fetches.link_up(device))

    def on_closed(self, link: LinkForFiles) -> None:
        """A link has ended."""
        device = link.device_id.digest
        with self._changed:
            server = None
            if self._links.get(device) is link:
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
        if isinstance(message, FileChunk | FileAbsent | FileHere) and self._events.qsize() > MAX_QUEUED:
            return
        if isinstance(message, FileChunk):
            self._events.put(lambda: self._take(device, message))
        elif isinstance(message, FileAsked):
            with self._changed:
                server = self._servers.get(device)
                if server is None and self._area is None and not self._closed:
                    self._early.setdefault(device, deque(maxlen=MAX_ASKS)).append(message)
            if server is not None:
                server.ask(message)
        elif isinstance(message, FileAbsent):
            self._events.put(lambda: self._act(self._fetches.absent(device, message.digest, coming=message.coming)))
        elif isinstance(message, FileHere):
            with self._changed:
                for digest in message.digests:
                    if digest in self._seen_elsewhere:
                        self._seen_elsewhere[digest].add(device)
                self._changed.notify_all()
            self._events.put(lambda: self._fetches.here(device, message.digests))
        elif isinstance(message, NamedAsked):
            self._submit(lambda: self._answer_named(link, message))
        else:
            with self._changed:
                if message.token in self._answers:
                    self._answers[message.token][device] = set(message.digests)
                    self._changed.notify_all()

    def _answer_named(self, link: LinkForFiles, message: NamedAsked) -> None:
        engine, pins = self._engine, self._pins
        assert engine is not None  # noqa: S101 - the workers are there only after
        assert pins is not None  # noqa: S101
        try:
            named = [d for d in message.digests if engine.names_file(d) or pins.keeps(d)]
        except AtopError as error:  # no answer means that nothing is removed
            log.info("another device is not told which files are named here: %s", error)
            return
        _send(link, NamedAnswered(message.token, named))

    def _server(self, link: LinkForFiles, area: FileArea) -> Server:
        return Server(link, area, self._is_coming, lambda digest, size: self._submit(lambda: self._check(digest, size)))

    def _is_coming(self, digest: Digest) -> bool:
        wanted = self._fetches.wanted.get(digest)
        return wanted is not None and wanted.active

    def _submit(self, work: Callable[[], None]) -> None:
        try:
            if self._workers is not None:
                self._workers.submit(work)
        except RuntimeError:  # it is closed
            log.debug("something was asked after the end")

    def _check(self, digest: Digest, size: int) -> None:
        """Contents here have another size than another device asked for: one of the two is wrong."""
        area, engine = self._area, self._engine
        try:
            if area is not None and engine is not None and engine.names_file(digest) and not area.is_whole(digest):
                log.warning("the contents of a file (%s) were damaged on the disk: fetching them", digest.hex()[:12])
                self.mend(digest, size)
        except (OSError, AtopError) as error:
            log.info("contents cannot be checked: %s", error)

    # -- the one thread

    def _run(self) -> None:
        while True:
            try:
                event = self._events.get(timeout=LOOK_SECONDS if self._items else TICK_SECONDS)
            except queue.Empty:
                event = _nothing
            if event is None:
                return
            try:
                event()
                if self._events.empty() or time.monotonic() - self._looked_around >= BUSY_SECONDS:
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
                    self._open_partial(digest, size)
                case fetching.Ask(device, digest, size, offset, length):
                    link = self._links.get(device)
                    if link is not None:
                        _send(link, FileAsked(digest, size, offset, length))
                case fetching.Finish(digest):
                    self._finish(digest)
                case fetching.Leave(digest, forget):
                    partial = self._partials.pop(digest, None)
                    if partial is not None:
                        partial.file.close()
                    if forget and self._area is not None:
                        self._area.drop_partial(digest)

    # -- what is missing

    def _look_around(self) -> None:
        """Find contents that are missing, and tell the others what is not missing any more."""
        now = self._looked_around = time.monotonic()
        since, before = self._rated
        if now - since >= RATE_SECONDS:
            self._rate = (self._received - before) / (now - since)
            self._rated = now, self._received
        if self._items and now - self._looked >= LOOK_SECONDS:
            with self._changed:
                items, self._items = self._items, set()
            self._looked = now
            self._look_at(items)
        more = self._more and len(self._fetches.wanted) < fetching.MAX_WANTED // 2
        due = max(SCAN_AGAIN_SECONDS, SCAN_SHARE * self._scan_took) if self._scan_wanted or more else SCAN_SECONDS
        if now - self._scanned >= due:
            with self._changed:
                self._scan_wanted = False
            self._scanned = now
            self._scan()
            self._scan_took = time.monotonic() - now
        while self._new:
            told, self._new = self._new[:MAX_HASHES], self._new[MAX_HASHES:]
            with self._changed:
                links = list(self._links.values())
            for link in links:
                _send(link, FileHere(told))

    def _scan(self) -> None:
        """Look through all contents that the store names."""
        engine, area = self._engine, self._area
        assert engine is not None  # noqa: S101 - the thread runs only after
        assert area is not None  # noqa: S101
        missing: set[Digest] = set()
        self._more = False
        for digest, size in engine.named_files():
            if not area.has(digest):
                missing.add(digest)
                self._more |= not self._fetches.want(digest, size)
        self._act(self._fetches.keep_only(missing))
        for digest in area.partials():
            if digest not in missing and digest not in self._fetches.wanted:
                area.drop_partial(digest)

    def _look_at(self, items: set[int]) -> None:
        """Look whether these items name contents that are missing."""
        engine = self._engine
        assert engine is not None  # noqa: S101 - the thread runs only after
        for item_id in items:
            record = engine.get(ITEMS, pack_u64(item_id))
            if record is None or b"FileInfo" not in record:
                continue
            try:
                values = list(decode(record).attributes.values())
            except UnsafePickle as error:
                log.info("item %d cannot be read: %s", item_id, error)
                continue
            for inner in walk(values):
                if type(inner) is FileInfo:
                    self._want(inner.digest, inner.size)

    def _want(self, digest: Digest, size: int, *, urgent: bool = False) -> None:
        area = self._area
        if area is not None and not area.has(digest):
            self._more |= not self._fetches.want(digest, size, urgent=urgent)

    # -- putting contents together

    def _open_partial(self, digest: Digest, size: int) -> None:
        area = self._area
        assert area is not None  # noqa: S101 - the thread runs only after
        try:
            path = area.partial_path(digest)
            if digest in self._partials:
                self._partials.pop(digest).file.close()
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            file = open(descriptor, "r+b", buffering=0)  # noqa: SIM115 - closed when it is complete, or left
            there = os.fstat(descriptor).st_size
            if there > size:
                os.ftruncate(descriptor, 0)
                there = 0
            free = shutil.disk_usage(area.path).free
            if size - there > free - self.free_bytes:
                file.close()
                raise StoreFull(
                    f"the disk of {area.path.parent} has {free >> 20} MiB left, and a file of {size >> 20} MiB is to "
                    "be fetched: make room, and it goes on by itself",
                    area.path,
                )
        except OSError as error:
            self._fail(digest, explained(error, area.path))
            return
        except StoreFull as error:
            self._fail(digest, error)
            return
        partial = self._partials[digest] = _Partial(file, hashlib.blake2b(digest_size=DIGEST_SIZE))
        if not there:
            self._act(self._fetches.opened(digest, 0))
            return

        def read() -> None:
            """Hash what is here from before."""
            try:
                while data := file.read(CHUNK):
                    partial.hasher.update(data)
                received = file.tell()
            except (OSError, ValueError) as error:  # a ValueError: it was closed meanwhile
                problem = explained(error, path) if isinstance(error, OSError) else None
                self._events.put(lambda: self._fail(digest, problem) if problem is not None else None)
                return
            self._events.put(
                lambda: (
                    self._act(self._fetches.opened(digest, received)) if self._partials.get(digest) is partial else None
                )
            )

        self._submit(read)

    def _take(self, device: Id, chunk: FileChunk) -> None:
        """Write bytes that have come, if they were asked for."""
        digest = chunk.digest
        if not self._fetches.chunk(device, digest, chunk.offset, len(chunk.data), time.monotonic()):
            return
        partial = self._partials[digest]
        try:
            rest = memoryview(chunk.data)
            while rest:
                rest = rest[partial.file.write(rest) :]
            partial.hasher.update(chunk.data)
            partial.unsynced += len(chunk.data)
            self._received += len(chunk.data)
            if partial.unsynced >= SYNC_BYTES and (partial.syncing is None or partial.syncing.done()):
                partial.unsynced = 0
                assert self._workers is not None  # noqa: S101 - the thread runs only after
                partial.syncing = self._workers.submit(_sync, partial.file)
        except OSError as error:
            assert self._area is not None  # noqa: S101 - the thread runs only after
            self._fail(digest, explained(error, self._area.path))
            return
        self._act(self._fetches.took(digest))

    def _fail(self, digest: Digest, error: AtopError) -> None:
        log.info("fetching files waits: %s", error)
        self._act(self._fetches.failed(digest, str(error), time.monotonic()))

    def _finish(self, digest: Digest) -> None:
        partial = self._partials.pop(digest)
        area = self._area
        assert area is not None  # noqa: S101 - the thread runs only after
        good = partial.hasher.digest() == digest

        def place() -> None:
            try:
                with partial.file:
                    if good:
                        os.fsync(partial.file.fileno())
                if good:
                    area.place_partial(digest)
            except OSError as error:
                problem: AtopError = explained(error, area.path)
            except AtopError as error:
                problem = error
            else:
                self._events.put(lambda: self._placed(digest, good))
                return
            self._events.put(lambda: self._fail(digest, problem))

        self._submit(place)

    def _placed(self, digest: Digest, good: bool) -> None:
        wanted = self._fetches.wanted.get(digest)
        if not good and wanted is not None and len(wanted.sources) == 1 and not wanted.resumed:
            (device,) = wanted.sources
            log.warning(
                "device %s has sent something else in the place of a file (%s): it is not asked for it again",
                DeviceId(device).short,
                digest.hex()[:12],
            )
        self._act(self._fetches.finished(digest, good=good))
        if good:
            self._new.append(digest)
            with self._changed:
                self._changed.notify_all()


def _nothing() -> None:
    """An event that only wakes the thread."""


def _sync(file: BinaryIO) -> None:
    with contextlib.suppress(OSError, ValueError):  # it is flushed, and its errors told, before it gets its place
        os.fdatasync(file.fileno())


def _send(link: LinkForFiles, message: Message) -> None:
    try:
        link.send(message)
    except LinkError as error:  # the link tells of its end by itself
        log.debug("not sent: %s", error)


__all__ = ["FileProgress", "FileSync", "FilesStatus"]
