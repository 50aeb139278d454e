"""One process owns a store at a time.

The owner holds an exclusive `flock` on `local/owner.lock` for as long as it has the database open. The kernel drops it
with the process, however that ends, so there is never a stale lock to remove. The file holds the owner's process id,
for messages, and whether it answers others: nothing else is decided by it.

An owner that does answers at the socket `local/owner.sock`, which belongs to its user alone. Each side asks the kernel
whose process is at the other end, and has nothing to do with another user's.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from atop.disk import explained
from atop.errors import StoreBusy

LOCK_NAME: Final = "owner.lock"
SOCKET_NAME: Final = "owner.sock"
# The longest path that the address of a socket has room for.
LONGEST_PATH: Final = 100
# What the lock's file says beside the process id of an owner that answers nobody.
ALONE: Final = "alone"

_credentials = struct.Struct("3i")

# The locks' files, by device and inode, of the stores that this process has open: as the owner, or attached.
_open_here: set[tuple[int, int]] = set()


class OwnerLock:
    """The exclusive right to open a store's database. `alone` says that others are not to wait for an answer.

    Raises:
        StoreBusy: another holder has it.
        StoreReadOnly, StoreFull, StoreError: the lock's file cannot be opened.
    """

    def __init__(self, path: Path, store_path: Path, *, alone: bool = False) -> None:
        self._fd = -1
        try:
            while self._fd < 0:
                self._fd = _locked(path)
                if not _is_at(self._fd, path):
                    self.release()  # the store was moved just now; what is at its place has a lock of its own
            self.say(alone=alone)
        except _HeldError as held:
            raise busy(store_path, held.holder) from None
        except OSError as error:
            self.release()
            raise explained(error, store_path) from error

    def say(self, *, alone: bool) -> None:
        """Tell who has the store, and whether they answer others."""
        text = f"{os.getpid()} {ALONE}\n" if alone else f"{os.getpid()}\n"
        with contextlib.suppress(OSError):  # the disk is full: then messages cannot name this process
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, text.encode(), 0)

    def release(self) -> None:
        """Give the right up. May be called again. In a forked child, the parent keeps it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Holder(NamedTuple):
    """Who has a store, as the lock's file says."""

    pid: int | None
    alone: bool  # whether they answer nobody


def holder_of(local: Path) -> Holder:
    """Who had the store in `local` last. Raises OSError."""
    fd = os.open(local / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        return _said(fd)
    finally:
        os.close(fd)


def _said(fd: int) -> Holder:
    pid, _, rest = os.pread(fd, 32, 0).decode("ascii", "replace").strip().partition(" ")
    return Holder(int(pid) if pid.isascii() and pid.isdigit() else None, rest == ALONE)


def busy(store: Path, holder: Holder, why: str = "close it there first") -> StoreBusy:
    """The error for a store that somebody else has."""
    who = f"process {holder.pid}" if holder.pid else "another process"
    who = "this process" if holder.pid == os.getpid() else who
    return StoreBusy(f"the store {store} is open in {who}: {why}", store, holder.pid)


class Presence:
    """Notes that this process has a store open, be it as the owner or attached: it is not opened twice.

    Raises:
        StoreBusy: it has been noted before.
        StoreReadOnly, StoreFull, StoreError: the lock's file cannot be opened.
    """

    def __init__(self, local: Path) -> None:
        try:
            self._fd = os.open(local / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise explained(error, local.parent) from error
        status = os.fstat(self._fd)  # it stays open, so that no other file gets its inode
        self._path = local / LOCK_NAME
        self._key = status.st_dev, status.st_ino
        if self._key in _open_here:
            os.close(self._fd)
            raise busy(local.parent, Holder(os.getpid(), True))
        _open_here.add(self._key)

    def is_there(self) -> bool:
        """Whether the store that was opened is still at its path, and no other one, or none."""
        return _is_at(self._fd, self._path)

    def end(self) -> None:
        """The store is open here no longer. May be called again."""
        if self._fd >= 0:
            _open_here.discard(self._key)
            os.close(self._fd)
            self._fd = -1


os.register_at_fork(after_in_child=_open_here.clear)


class _HeldError(Exception):
    def __init__(self, holder: Holder) -> None:
        super().__init__(holder)
        self.holder = holder


def _locked(path: Path) -> int:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = _said(fd)
        os.close(fd)
        raise _HeldError(holder) from None
    except BaseException:
        os.close(fd)
        raise
    return fd


def _is_at(fd: int, path: Path) -> bool:
    try:
        there = path.lstat()
    except FileNotFoundError:
        return False
    mine = os.fstat(fd)
    return (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)


# -- the socket


def listen(local: Path) -> socket.socket:
    """The owner's socket in `local`, which other processes of this user can connect to. Raises OSError."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        (local / SOCKET_NAME).unlink(missing_ok=True)  # of an owner that was killed: its lock is this one's now
        with _address(local) as address:
            listener.bind(address)
        (local / SOCKET_NAME).chmod(0o600)  # nobody can connect before `listen`
        listener.listen(128)
    except BaseException:
        listener.close()
        raise
    return listener


def connect(local: Path, seconds: float) -> socket.socket:
    """A connection to the owner, whose calls wait so long. Raises OSError where there is none."""
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        connected.settimeout(seconds)
        with _address(local) as address:
            connected.connect(address)
    except BaseException:
        connected.close()
        raise
    return connected


@contextlib.contextmanager
def _address(local: Path) -> Iterator[str]:
    """The address of the socket in `local`: by way of a descriptor where an address has no room for its path."""
    path = os.fspath(local / SOCKET_NAME)
    if len(os.fsencode(path)) <= LONGEST_PATH:
        yield path
        return
    directory = os.open(local, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{SOCKET_NAME}"
    finally:
        os.close(directory)


def peer_of(connected: socket.socket) -> tuple[int, int]:
    """The process id and the user id at the other end, as the kernel has them. Raises OSError."""
    pid, uid, _ = _credentials.unpack(connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _credentials.size))
    return pid, uid


def is_ours(connected: socket.socket) -> bool:
    """Whether the process at the other end is this user's."""
    try:
        return peer_of(connected)[1] == os.geteuid()
    except OSError:
        return False
