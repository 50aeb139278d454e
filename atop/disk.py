"""Writing files so that a crash cannot tear them, and what the system says when it will not."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from atop.errors import AtopError, StoreError, StoreFull, StoreReadOnly


def write_durably(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replace the file at `path` by `data`: afterwards it has the old contents or the new, whatever happens."""
    temporary = path.with_name(path.name + ".new")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Flush a directory, so that names made or renamed in it outlive a crash."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_tree(path: Path) -> None:
    """Flush all files and directories below `path`, and itself."""
    for directory, _, names in os.walk(path):
        for name in names:
            fd = os.open(Path(directory) / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        sync_directory(Path(directory))


def check_directory(path: Path) -> None:
    """Raise `StoreError` if a directory of a store is a symbolic link: what is removed there may be somebody else's."""
    if path.is_symlink():
        raise StoreError(f"{path} is a symbolic link, and a store's own directories are not: mount a disk there", path)


def explained(error: OSError, path: Path) -> AtopError:
    """A system's error about writing `path`, a store or a part of one, as one of ours."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreFull(f"the disk of {path} is full: make room and try again", path)
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return StoreReadOnly(f"{path} cannot be written: check its permissions and its disk", path)
    return StoreError(f"{path} cannot be used: {error.strerror or error}", path)
