"""Putting contents together on the disk: their beginning is kept, the rest appended, all of it hashed, then placed.

Promises: contents get their place when all their bytes are on the disk and have their hash. A beginning stays, over a
cut and a restart. What the disk does not take is told to `fetching`, and is tried again. One thread; what takes long
(reading a beginning again, flushing, placing) is done by workers.

Never: more of the disk than leaves `free_bytes` for the database.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, BinaryIO, Final

from atop.disk import explained
from atop.errors import AtopError, StoreFull
from atop.files import CHUNK, FileArea
from atop.pins import DIGEST_SIZE

from . import fetching
from .identity import DeviceId
from .noise import Readable

if TYPE_CHECKING:
    from hashlib import blake2b

log = logging.getLogger(__name__)

Digest = bytes

SYNC_BYTES: Final = 8 << 20
"""How much is written before it is sent to the disk: left to the system, gigabytes would hold up the log's flush."""

WORKERS: Final = 4
"""Threads that flush, hash and place."""


class _Partial:
    """Contents that are being put together."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.hasher: blake2b = hashlib.blake2b(digest_size=DIGEST_SIZE)
        self.unsynced = 0


class Assembler:
    """The contents that are being put together. For one thread, but for `submit`.

    Args:
        fetches: is told how it went.
        post: has a function called by that one thread.
        act: does what `fetches` says is to be done.
        placed: is told of contents that are here now.
    """

    def __init__(
        self,
        area: FileArea,
        fetches: fetching.Fetches,
        free_bytes: Callable[[], int],
        post: Callable[[Callable[[], None]], None],
        act: Callable[[list[fetching.Action]], None],
        placed: Callable[[Digest], None],
    ) -> None:
        self._area = area
        self._fetches = fetches
        self._free_bytes = free_bytes
        self._post = post
        self._act = act
        self._placed = placed
        self._partials: dict[Digest, _Partial] = {}
        self._workers = ThreadPoolExecutor(WORKERS, thread_name_prefix="atop-files-disk")
        self.received = 0  # bytes since the beginning

    def submit(self, work: Callable[[], None]) -> None:
        """Have a worker do something; nothing, once it is closed. May be called by any thread."""
        try:
            self._workers.submit(work)
        except RuntimeError:
            log.debug("something was to be done after the end")

    def close(self) -> None:
        """Leave everything as it is."""
        self._workers.shutdown(cancel_futures=True)
        for digest in list(self._partials):
            self.leave(digest, forget=False)

    def leave(self, digest: Digest, *, forget: bool) -> None:
        """Close what is here of contents; with `forget`, remove it too."""
        partial = self._partials.pop(digest, None)
        if partial is not None:
            partial.file.close()
        if forget:
            self._area.drop_partial(digest)

    def open(self, digest: Digest, size: int) -> None:
        """Open what is here of contents of this size, or begin; `fetches.opened` is told, maybe later."""
        self.leave(digest, forget=False)
        try:
            file = self._open_file(digest, size)
        except OSError as error:
            self._fail(digest, explained(error, self._area.path))
            return
        except StoreFull as error:
            self._fail(digest, error)
            return
        partial = self._partials[digest] = _Partial(file)
        if not os.fstat(file.fileno()).st_size:
            self._act(self._fetches.opened(digest, 0))
        else:
            self.submit(lambda: self._read_again(digest, partial))

    def _open_file(self, digest: Digest, size: int) -> BinaryIO:
        descriptor = os.open(
            self._area.partial_path(digest), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
        file = open(descriptor, "r+b", buffering=0)  # noqa: SIM115 - closed when it is complete, or left
        try:
            there = os.fstat(descriptor).st_size
            if there > size:
                file.truncate(0)
                there = 0
            free = shutil.disk_usage(self._area.path).free
            if size - there > free - self._free_bytes():
                raise StoreFull(
                    f"the disk of {self._area.path.parent} has {free >> 20} MiB left, and a file of {size >> 20} MiB "
                    "is to be fetched: make room, and it goes on by itself",
                    self._area.path,
                )
        except BaseException:
            file.close()
            raise
        return file

    def _read_again(self, digest: Digest, partial: _Partial) -> None:
        """Hash what is here from before. In a worker."""
        try:
            while data := partial.file.read(CHUNK):
                partial.hasher.update(data)
            received = partial.file.tell()
        except ValueError:  # it was left meanwhile
            return
        except OSError as error:
            problem = explained(error, self._area.path)
            self._post(lambda: self._fail(digest, problem))
            return

        def tell() -> None:
            if self._partials.get(digest) is partial:
                self._act(self._fetches.opened(digest, received))

        self._post(tell)

    def take(self, digest: Digest, data: Readable) -> None:
        """Append bytes that `fetches` has found to be the next ones."""
        partial = self._partials[digest]
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[partial.file.write(rest) :]
        except OSError as error:
            self._fail(digest, explained(error, self._area.path))
            return
        partial.hasher.update(data)
        self.received += len(data)
        partial.unsynced += len(data)
        if partial.unsynced >= SYNC_BYTES:
            partial.unsynced = 0
            self.submit(lambda: _sync(partial.file))
        self._act(self._fetches.took(digest))

    def finish(self, digest: Digest) -> None:
        """All bytes are here: compare their hash, and give them their place; `fetches.finished` is told later."""
        partial = self._partials.pop(digest)
        good = partial.hasher.digest() == digest

        def place() -> None:
            try:
                with partial.file:
                    if good:
                        os.fsync(partial.file.fileno())
                if good:
                    self._area.place_partial(digest)
            except OSError as error:
                problem: AtopError = explained(error, self._area.path)
            except AtopError as error:
                problem = error
            else:
                self._post(lambda: self._finished(digest, good))
                return
            self._post(lambda: self._fail(digest, problem))

        self.submit(place)

    def _finished(self, digest: Digest, good: bool) -> None:
        before = set(self._fetches.blamed)
        self._act(self._fetches.finished(digest, good=good))
        if good:
            self._placed(digest)
        for device, _ in self._fetches.blamed.keys() - before:
            log.warning(
                "device %s has sent something else in the place of a file (%s): it is not asked for it again",
                DeviceId(device).short,
                digest.hex()[:12],
            )

    def _fail(self, digest: Digest, error: AtopError) -> None:
        log.info("a file is not fetched now: %s", error)
        self._act(self._fetches.failed(digest, str(error)))


def _sync(file: BinaryIO) -> None:
    with contextlib.suppress(OSError, ValueError):  # it is flushed, and its errors told, before it gets its place
        os.fdatasync(file.fileno())
