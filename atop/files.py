"""Files: contents of any size beside the items, named by their hash.

An attribute holds a `File`: a name, a media type, a size and the BLAKE2b-256 of the contents. The contents are in the
store's `files/` directory, in a file whose path is that hash; equal contents are there once.

Promises: contents are complete and on the disk before the commit that names them can be made on this device; a path
comes from a hash alone, never from a name; contents that no item and no journal record names, and nothing keeps
(see `pins`), are removed by `Store.compact`, and no others. What is read from beginning to end was checked against the
hash when the end is reached.

Beside the contents, `files/` has `incoming/` (what this program is writing), `partial/` (contents that come from
another device and are not complete: they go on where they were) and `damaged/` (what was found not to have its hash any
more, on a device that can get it from another one: removed when the contents are here again).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import os
import re
import secrets
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from atop import contents
from atop.disk import check_directory, explained, sync_directory
from atop.errors import NoSuchFile, StoreDamaged
from atop.pins import DIGEST_SIZE
from atop.values import FileInfo, live_converters

if TYPE_CHECKING:
    from atop.store import Store

CHUNK = 1 << 20  # bytes read and hashed at a time
# What contents are called until they are complete.
_TEMPORARY = re.compile("[0-9a-f]{16}")
_DIGEST = re.compile("[0-9a-f]{64}")
READ_BUFFER = 128 << 10  # bytes that a stream reads at a time
# Contents younger than this, in seconds, are not removed: the transaction that will name them may not have committed.
GRACE = 3600.0


class File:
    """The contents of a file and what it is called. Immutable; made by `Store.file`."""

    __slots__ = ("_info", "_store")

    def __init__(self, store: Store, info: FileInfo) -> None:
        self._store = store
        self._info = info

    @property
    def name(self) -> str:
        """What the file is called: a name for people, which may hold anything and is never used as a path."""
        return self._info.name

    @property
    def size(self) -> int:
        """The length of the contents in bytes."""
        return self._info.size

    @property
    def media_type(self) -> str:
        """What the contents are said to be, such as `image/jpeg`; empty if unknown."""
        return self._info.media_type

    @property
    def digest(self) -> bytes:
        """The BLAKE2b-256 of the contents, 32 bytes."""
        return self._info.digest

    @property
    def is_here(self) -> bool:
        """Whether the contents are on this device, so that `open` and `read` need no other one."""
        return self._store._file_area.has(self._info.digest)

    def open(self, timeout: float | None = None) -> BinaryIO:
        """The contents as a stream of bytes, to be closed by the caller.

        Contents that are not on this device are fetched first, from any device of the group that has them.

        Args:
            timeout: how many seconds may pass without a byte of them arriving; by default 30.

        Raises:
            NoSuchFile: they are not here, and no device that can be reached has them, or sends them in time.
            StoreDamaged: they have been changed on the disk; raised by the stream, if that is seen while reading.
        """
        return contents.open_file(self._store, self._info, timeout)

    def read(self, timeout: float | None = None) -> bytes:
        """The contents. Raises what `open` does; where damaged contents can be fetched again, that is done."""
        return contents.read_file(self._store, self._info, timeout)

    def __eq__(self, other: object) -> bool:
        return self._info == other._info if isinstance(other, File) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._info)

    def __repr__(self) -> str:
        return f"<File {self.name!r}, {self.size:,} bytes>"


def _convert_file(value: Any, store: Store | None) -> FileInfo | None:
    return value._info if isinstance(value, File) else None


live_converters.append(_convert_file)


class FileArea:
    """The `files/` directory of a store. May be used by any thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._incoming = path / "incoming"
        self._partial = path / "partial"
        self._damaged = path / "damaged"
        self._placing = threading.Lock()  # held while contents get their place, or lose it

    def prepare(self) -> None:
        """Make the directories, and remove what a crash left half-written, and nothing else.

        Raises:
            StoreFull, StoreReadOnly, StoreError: that cannot be done, or a directory is a symbolic link.
        """
        try:
            for directory in (self.path, self._incoming):
                directory.mkdir(mode=0o700, exist_ok=True)
            for directory in (self.path, self._incoming, self._partial, self._damaged):
                check_directory(directory)
            with os.scandir(self._incoming) as entries:
                leftovers = [
                    e.path for e in entries if _TEMPORARY.fullmatch(e.name) and e.is_file(follow_symlinks=False)
                ]
            for leftover in leftovers:
                _remove_abandoned(leftover)
        except OSError as error:
            raise explained(error, self.path) from error

    def path_of(self, digest: bytes) -> Path:
        """Where contents with this hash are, or would be."""
        name = digest.hex()
        return self.path / name[:2] / name[2:]

    def has(self, digest: bytes) -> bool:
        """Whether contents with this hash are here."""
        return self.path_of(digest).exists()

    def still_has(self, digest: bytes) -> bool:
        """As `has`, and if they are held (see `pins`) since before this call, they stay."""
        with self._placing:  # whoever removes contents looks whether they are held, and removes them, under this lock
            return self.has(digest)

    def add(self, source: BinaryIO) -> tuple[bytes, int]:
        """Keep what `source` yields; returns its hash and size once it is on the disk.

        Raises:
            StoreFull, StoreReadOnly, StoreError: nothing was kept.
            OSError: what `source` raises when it is read; nothing was kept.
        """
        temporary = self._incoming / secrets.token_hex(8)
        digest, size = hashlib.blake2b(digest_size=DIGEST_SIZE), 0
        held = contextlib.ExitStack()
        try:
            with self._writing(temporary, held) as write:
                while chunk := source.read(CHUNK):
                    digest.update(chunk)
                    size += len(chunk)
                    write(chunk)
            try:
                self._place(temporary, digest.digest())
            except OSError as error:
                raise explained(error, self.path) from error
        finally:
            with contextlib.suppress(OSError):  # what is left is removed when the store is opened
                temporary.unlink(missing_ok=True)
            held.close()
        return digest.digest(), size

    @contextlib.contextmanager
    def _writing(self, path: Path, held: contextlib.ExitStack) -> Iterator[Callable[[bytes], None]]:
        """A function that writes to the new file `path`, which is on the disk afterwards; its errors are ours.

        Until `held` is closed, another process that comes to own the store leaves the file alone.
        """
        try:
            while True:
                target = path.open("xb")
                held.callback(os.close, os.dup(target.fileno()))  # a lock lasts as long as one descriptor of it does
                fcntl.flock(target, fcntl.LOCK_EX)
                if path.exists():
                    break
                target.close()  # it was taken for an abandoned one just before it was locked
        except OSError as error:
            raise explained(error, self.path) from error

        def write(chunk: bytes) -> None:
            try:
                target.write(chunk)
            except OSError as error:
                raise explained(error, self.path) from error

        with contextlib.ExitStack() as ending:
            ending.callback(_close_quietly, target)
            yield write
            try:
                target.flush()
                os.fsync(target.fileno())
            except OSError as error:
                raise explained(error, self.path) from error

    def _place(self, temporary: Path, digest: bytes) -> None:
        final = self.path_of(digest)
        temporary.chmod(0o400)
        with self._placing:
            with contextlib.suppress(FileNotFoundError):
                os.utime(final)  # it is there; a collection under way must see that it is wanted again
                return
            while True:
                if not final.parent.exists():
                    final.parent.mkdir(mode=0o700, exist_ok=True)
                    sync_directory(self.path)
                try:
                    temporary.rename(final)
                    break
                except FileNotFoundError:  # another process has just removed the last contents beside it
                    temporary.lstat()
            sync_directory(final.parent)
            with contextlib.suppress(OSError):  # it does no harm
                (self._damaged / digest.hex()).unlink(missing_ok=True)

    def open(self, info: FileInfo) -> BinaryIO:
        """The contents as a stream, which raises `StoreDamaged` where they are not what they were.

        Raises:
            NoSuchFile: they are not here.
            StoreError: the system cannot read them.
        """
        try:
            raw = _Contents(self.path_of(info.digest), info)
        except FileNotFoundError:
            raise NoSuchFile(f"the contents of {info.described()} are not on this device") from None
        except OSError as error:
            raise explained(error, self.path) from error
        try:
            raw.check_size()
        except BaseException:
            raw.close()
            raise
        return io.BufferedReader(raw, READ_BUFFER)

    # -- contents that come from another device

    def partial_path(self, digest: bytes) -> Path:
        """Where contents are put together, until they are complete; the directory is there. Raises OSError."""
        self._partial.mkdir(mode=0o700, exist_ok=True)
        return self._partial / digest.hex()

    def partials(self) -> dict[bytes, int]:
        """The contents that are not complete, and how many bytes of them are here."""
        found = {}
        with contextlib.suppress(FileNotFoundError), os.scandir(self._partial) as entries:
            for entry in entries:
                if _DIGEST.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                    with contextlib.suppress(FileNotFoundError):
                        found[bytes.fromhex(entry.name)] = entry.stat(follow_symlinks=False).st_size
        return found

    def place_partial(self, digest: bytes) -> None:
        """Give contents that were put together, and checked, their place. They are on the disk already.

        Raises:
            StoreFull, StoreReadOnly, StoreError: they stay where they are.
        """
        partial = self.partial_path(digest)
        try:
            self._place(partial, digest)
            partial.unlink(missing_ok=True)
        except OSError as error:
            raise explained(error, self.path) from error

    def drop_partial(self, digest: bytes) -> None:
        """Forget what is here of contents that are not complete."""
        with contextlib.suppress(OSError):  # it is looked for again when the store is opened
            self.partial_path(digest).unlink(missing_ok=True)

    def set_aside(self, digest: bytes) -> None:
        """Take damaged contents out of their place, so that whole ones can come there. They are kept until then.

        Raises:
            StoreReadOnly, StoreError: that cannot be done.
        """
        try:
            with self._placing:
                self._damaged.mkdir(mode=0o700, exist_ok=True)
                self.path_of(digest).rename(self._damaged / digest.hex())
        except FileNotFoundError:
            return  # somebody else was faster
        except OSError as error:
            raise explained(error, self.path) from error

    def digests(self) -> Iterator[bytes]:
        """The hashes of all contents that are here."""
        for directory in sorted(self.path.iterdir()):
            if len(directory.name) != 2:
                continue
            try:
                names = sorted(path.name for path in directory.iterdir())
            except (FileNotFoundError, NotADirectoryError):
                continue  # its last contents were removed just now, or it is not one of ours
            for name in names:
                with contextlib.suppress(ValueError):  # not one of ours: left alone
                    digest = bytes.fromhex(directory.name + name)
                    if len(digest) == DIGEST_SIZE:
                        yield digest

    def is_whole(self, digest: bytes) -> bool:
        """Whether the contents still have their hash. Raises FileNotFoundError."""
        found = hashlib.blake2b(digest_size=DIGEST_SIZE)
        with self.path_of(digest).open("rb") as stream:
            while chunk := stream.read(CHUNK):
                found.update(chunk)
        return found.digest() == digest

    def remove_unless(self, used: Callable[[bytes], bool], digest: bytes, older_than: float) -> int | None:
        """Remove contents that are not `used` and at least `older_than` seconds old; returns their size if it did."""
        path = self.path_of(digest)
        with self._placing:
            try:
                status = path.lstat()
            except FileNotFoundError:
                return None
            if not stat.S_ISREG(status.st_mode):
                return None  # not one of ours: left alone
            if used(digest) or time.time() - status.st_mtime < older_than:
                return None
            if not self._take_away(path, status.st_mtime_ns):
                return None
            with contextlib.suppress(OSError):  # other contents share the directory
                path.parent.rmdir()
        return status.st_size

    def _take_away(self, path: Path, changed: int) -> bool:
        """Remove contents, unless another process has wanted them again since they were `changed`."""
        aside = self._incoming / secrets.token_hex(8)
        path.rename(aside)  # whoever wants them from now on brings their own
        if aside.lstat().st_mtime_ns != changed:
            aside.rename(path)
            return False
        aside.unlink()
        return True


def _remove_abandoned(path: str) -> None:
    """Remove a file that was being written, unless a process that is attached to the store is still at it."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return  # its writer lives, and has just finished
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(path)
    except BlockingIOError:
        pass  # its writer lives
    finally:
        os.close(fd)


class _Contents(io.FileIO):
    """A file that is hashed as it is read in order, and compared with its hash at the end.

    What is read from elsewhere than where the last read ended is not checked, nor is anything after that.
    """

    def __init__(self, path: Path, info: FileInfo) -> None:
        super().__init__(path, "rb")
        self._info = info
        self._hash = hashlib.blake2b(digest_size=DIGEST_SIZE)
        self._hashed = 0  # bytes from the beginning

    def check_size(self) -> None:
        if os.fstat(self.fileno()).st_size != self._info.size:
            raise self._error()

    def readinto(self, buffer: Any) -> int:
        start = self.tell()
        count = super().readinto(buffer)
        self._look(start, memoryview(buffer)[:count])
        return count

    def readall(self) -> bytes:
        start = self.tell()
        data = super().readall()
        self._look(start, data)
        return data

    def read(self, size: int | None = -1) -> bytes:
        if size is None or size < 0:
            return self.readall()
        start = self.tell()
        data = super().read(size)
        self._look(start, data)
        return data

    def _look(self, start: int, data: bytes | memoryview) -> None:
        if start != self._hashed or self._hashed == self._info.size:
            return
        self._hash.update(data)
        self._hashed += len(data)
        if self._hashed == self._info.size and self._hash.digest() != self._info.digest:
            raise self._error()

    def _error(self) -> StoreDamaged:
        return StoreDamaged(
            f"the contents of {self._info.described()} have been changed on the disk of this device: {self.name}",
            self.name,
            "files",
        )


def _close_quietly(file: BinaryIO) -> None:
    """Close a file that was flushed, or is not wanted: what closing it says has been said."""
    with contextlib.suppress(OSError):
        file.close()
