"""Devices that this one has paired and not met since: `local/awaited.json`.

One whose `join` was broken off stays a member that nobody ever reaches, and counts as one. The status says so of those
named here. A file that cannot be read or written does no harm.
"""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from atop.disk import write_durably

from .group import MAX_DEVICES

log = logging.getLogger(__name__)

AWAITED_FILE: Final = "awaited.json"

MAX_BYTES: Final = 1 << 16

GRACE_SECONDS: Final = 30.0
"""A device that was paired comes within seconds: nothing is said of it before."""


class Awaited:
    """Ids of devices, for any thread. One that was paired just now is not among them yet."""

    def __init__(self, local: Path) -> None:
        self._path = local / AWAITED_FILE
        self._lock = threading.Lock()
        self._devices = self._read()
        self._paired: dict[object, float] = {}  # by this process: device -> when, of `time.monotonic`

    def __contains__(self, device: object) -> bool:
        return device in self._devices and device not in self._paired_lately()

    def add(self, device: str) -> None:
        """It was paired just now."""
        with self._lock:
            self._paired[device] = time.monotonic()
            self._write([*(one for one in self._devices if one != device), device][-MAX_DEVICES:])

    def arrived(self, device: str) -> None:
        """There is a link to it."""
        with self._lock:
            if device in self._devices:
                self._write([one for one in self._devices if one != device])

    def _paired_lately(self) -> list[object]:
        now = time.monotonic()
        return [device for device, at in list(self._paired.items()) if now < at + GRACE_SECONDS]

    def _write(self, devices: list[str]) -> None:
        self._devices = devices
        try:
            write_durably(self._path, msgspec.json.encode(devices))
        except OSError as error:
            log.info("which devices are awaited is not written down: %s", error)

    def _read(self) -> list[str]:
        try:
            with self._path.open("rb") as file:
                found = msgspec.json.decode(file.read(MAX_BYTES), type=list[Annotated[str, Meta(max_length=100)]])
        except FileNotFoundError:
            return []
        except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            log.info("%s cannot be read, and is written anew: %s", self._path, type(error).__name__)
            return []
        return found[-MAX_DEVICES:]
