"""Keeps zeroconf's log readable while discovery runs.

zeroconf reports a packet that cannot be sent with a traceback, and a port that is taken with every try. A network that
is away is daily life for a laptop: here such a report becomes one line, and the same line comes once an hour at most.
What it says is also handed on, for the status.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from discovery.damping import TokenBucket

_REPEAT_SECONDS = 3600.0
_MAX_REMEMBERED = 64  # texts; beyond, the oldest is forgotten and may be logged again


class QuietLog(logging.Filter):
    """A filter for zeroconf's logger; `on_trouble` is called with each warning, in the thread that logs it."""

    def __init__(self, now: Callable[[], float], on_trouble: Callable[[str], None]) -> None:
        super().__init__()
        self._now = now
        self._on_trouble = on_trouble
        self._logger = logging.getLogger("zeroconf")
        self._allowed: dict[str, TokenBucket] = {}

    def install(self) -> None:
        """Begin to filter."""
        self._logger.addFilter(self)

    def remove(self) -> None:
        """Leave the logger as it was."""
        self._logger.removeFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is logged; takes the traceback of a network error out of it."""
        if record.levelno < logging.WARNING:
            return True
        if record.exc_info and isinstance(record.exc_info[1], OSError):
            record.exc_info = record.exc_text = None
        text = record.getMessage()
        self._on_trouble(text)
        if text not in self._allowed:
            while len(self._allowed) >= _MAX_REMEMBERED:
                del self._allowed[next(iter(self._allowed))]
            self._allowed[text] = TokenBucket(1, _REPEAT_SECONDS)
        return self._allowed[text].take(self._now())
