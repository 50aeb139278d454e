"""A small disk that tests fill: a tmpfs, mounted for one test."""

from __future__ import annotations

import gc
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from atop.environment import free_space


class SmallDisk:
    """A disk of a few megabytes that a test can fill, and empty again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._hog = path / "hog"

    def fill(self, leave: int = 0) -> None:
        """Fill it, but for `leave` bytes."""
        with self._hog.open("ab") as hog:
            while (free := free_space(self.path) - leave) > 0:
                try:
                    os.posix_fallocate(hog.fileno(), hog.seek(0, os.SEEK_END), min(free, 1 << 20))
                except OSError:
                    return

    def free(self) -> None:
        """Make room."""
        self._hog.unlink()


def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    if os.geteuid() != 0:
        pytest.skip("a small disk is mounted by root alone")
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=160m", "tmpfs", path], capture_output=True, check=False, text=True
    )
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.strip()}")
    try:
        yield SmallDisk(path)
    finally:
        gc.collect()
        subprocess.run(["umount", "--lazy", path], check=True)
