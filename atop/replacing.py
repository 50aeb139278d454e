"""Having a database replaced by another device's, so that the old one is there until the new one is complete.

The files are moved aside, beside the database, and removed when it has come whole. A store that is opened while they
are still there was broken off in between: it gets them back.

    data/       the database, or what has come of the other device's
    replaced/   the old one, while that is on its way
    replaced.gone/   what is being removed
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

from atop.disk import sync_directory

ASIDE: Final = "replaced"
GONE: Final = "replaced.gone"


def is_aside(store: Path) -> bool:
    """Whether a store's database was moved aside, and what is to take its place has not come whole."""
    return (store / ASIDE).is_dir()


def move_aside(data: Path) -> None:
    """Move the files of a database, which nobody has open, aside. Raises OSError; then they are where they were."""
    aside = data.parent / ASIDE
    shutil.rmtree(data.parent / GONE, ignore_errors=True)
    data.rename(aside)
    try:
        data.mkdir(mode=0o700)
    except OSError:
        aside.rename(data)
        raise
    sync_directory(data.parent)


def forget(data: Path) -> None:
    """Remove the old files: the new ones are complete, and on the disk. Raises OSError."""
    os.rename(data.parent / ASIDE, data.parent / GONE)
    sync_directory(data.parent)
    shutil.rmtree(data.parent / GONE, ignore_errors=True)


def put_back(data: Path) -> None:
    """Put the old files back, if a replacement was broken off. Nobody has the database open. Raises OSError."""
    shutil.rmtree(data.parent / GONE, ignore_errors=True)
    aside = data.parent / ASIDE
    if not aside.is_dir() or aside.is_symlink():
        return
    if data.exists():
        shutil.rmtree(data)  # where this ends half-way, the next to open goes on
    aside.rename(data)
    sync_directory(data.parent)
