"""Where other devices were reached last: `local/places.json`, for networks on which announcements get lost.

What is kept is only where a handshake may be tried, as with discovery. A place that is somebody else's by now learns
nothing from that.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from atop.disk import write_durably

log = logging.getLogger(__name__)

PLACES_FILE: Final = "places.json"

MAX_BYTES: Final = 1 << 20
MAX_ADDRESSES: Final = 16
MAX_PLACES: Final = 100
"""As many as a group has devices."""


class Place(msgspec.Struct, frozen=True):
    """Numeric addresses, best first, and a port."""

    addresses: Annotated[list[Annotated[str, Meta(max_length=80)]], Meta(min_length=1, max_length=MAX_ADDRESSES)]
    port: Annotated[int, Meta(ge=1, le=65535)]


class Places:
    """Places by the short id of a device, for any thread. A file that cannot be read or written does no harm."""

    def __init__(self, local: Path) -> None:
        self._path = local / PLACES_FILE
        self._lock = threading.Lock()
        self._places = self._read()

    def known(self) -> dict[str, Place]:
        """All that are known."""
        with self._lock:
            return dict(self._places)

    def remember(self, device: str, addresses: tuple[str, ...], port: int) -> None:
        """A device was reached there."""
        place = Place(list(addresses[:MAX_ADDRESSES]), port)
        with self._lock:
            if self._places.get(device) == place:
                return
            kept = {key: value for key, value in self._places.items() if key != device}
            self._places = {**dict(list(kept.items())[1 - MAX_PLACES :]), device: place}
            try:
                write_durably(self._path, msgspec.json.encode(self._places))
            except OSError as error:
                log.info("where a device was reached is not written down: %s", error)

    def _read(self) -> dict[str, Place]:
        try:
            with self._path.open("rb") as file:
                found = msgspec.json.decode(file.read(MAX_BYTES), type=dict[str, Place])
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            log.info("%s cannot be read, and is written anew: %s", self._path, type(error).__name__)
            return {}
        return dict(list(found.items())[-MAX_PLACES:])
