"""One process owns a store at a time.

The owner holds an exclusive `flock` on `local/owner.lock` for as long as it has the database open. The kernel drops it
with the process, however that ends, so there is never a stale lock to remove. The file holds the owner's process id,
for messages only: nothing is decided by it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from atop.disk import explained
from atop.errors import StoreBusy


class OwnerLock:
    """The exclusive right to open a store's database.

    Raises:
        StoreBusy: another holder has it.
        StoreReadOnly, StoreFull, StoreError: the lock's file cannot be opened.
    """

    def __init__(self, path: Path, store_path: Path) -> None:
        self._fd = -1
        try:
            while self._fd < 0:
                self._fd = _locked(path)
                if not _is_at(self._fd, path):
                    self.release()  # the store was moved just now; what is at its place has a lock of its own
            with contextlib.suppress(OSError):  # the disk is full: then messages cannot name this process
                os.ftruncate(self._fd, 0)
                os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)
        except _HeldError as held:
            who = f"process {held.pid}" if held.pid else "another process"
            who = "this process" if held.pid == os.getpid() else who
            raise StoreBusy(
                f"the store {store_path} is open in {who}: close it there first", store_path, held.pid
            ) from None
        except OSError as error:
            self.release()
            raise explained(error, store_path) from error

    def release(self) -> None:
        """Give the right up. May be called again. In a forked child, the parent keeps it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class _HeldError(Exception):
    def __init__(self, pid: int | None) -> None:
        super().__init__(pid)
        self.pid = pid


def _locked(path: Path) -> int:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(fd, 32, 0).strip()
        os.close(fd)
        raise _HeldError(int(text) if text.isdigit() else None) from None
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
