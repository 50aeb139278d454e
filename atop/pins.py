"""Contents of files that must be kept although no item and no journal record here names them (yet).

Who is about to name contents holds them (`held`), for as long as the call takes. While commits of another history wait
in `local/salvage` to be made again, everything is kept: they name contents, and a file there that cannot be read may
name any. May be used by any thread.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

DIGEST_SIZE = 32


class Pins:
    """The contents that collection leaves alone. `salvage` is the directory of commits that wait."""

    def __init__(self, salvage: Path) -> None:
        self._salvage = salvage
        self._lock = threading.Lock()
        self._held: Counter[bytes] = Counter()

    @contextlib.contextmanager
    def held(self, digests: Iterable[bytes]) -> Iterator[None]:
        """Keep these contents in the block."""
        held = list(digests)
        with self._lock:
            self._held.update(held)
        try:
            yield
        finally:
            with self._lock:
                self._held.subtract(held)
                self._held = +self._held

    def keeps(self, digest: bytes) -> bool:
        """Whether contents with this hash must be kept."""
        with self._lock:
            return self._held[digest] > 0 or self._waiting()

    def _waiting(self) -> bool:
        try:
            with os.scandir(self._salvage) as entries:
                return any(True for _ in entries)
        except FileNotFoundError:
            return False
        except OSError:
            return True  # what cannot be seen may be there


__all__ = ["DIGEST_SIZE", "Pins"]
