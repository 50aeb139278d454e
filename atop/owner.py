"""One process owns a store at a time.

The owner holds an exclusive `flock` on `local/owner.lock` for as long as it has the database open. The kernel drops it
with the process, however that ends, so there is never a stale lock to remove. The file holds the owner's process id,
for messages only: nothing is decided by it.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from atop.errors import StoreBusy


class OwnerLock:
    """The exclusive right to open a store's database. Raises `StoreBusy` if another holder has it."""

    def __init__(self, path: Path, store_path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = _read_pid(self._fd)
            os.close(self._fd)
            who = "this process" if pid == os.getpid() else f"process {pid}" if pid else "another process"
            raise StoreBusy(f"the store {store_path} is open in {who}: close it there first", store_path, pid) from None
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Give the right up. May be called again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _read_pid(fd: int) -> int | None:
    text = os.pread(fd, 32, 0).strip()
    return int(text) if text.isdigit() else None
