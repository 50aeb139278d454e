"""Telling the application of changes, in a thread of its own.

Promises: the callback runs in the thread "atop-discovery-notify", one call at a time; it may block, and may
call the public class, without holding up discovery. Changes that come while it is busy are put together: it
is told what leads from what it was told last to what is so now, so that nothing piles up. After `stop` it is
not called any more.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping

from discovery.candidates import Candidate, Change, differences

_log = logging.getLogger(__name__)

OnCandidate = Callable[[Change, Candidate], None]


class Notifier:
    """Calls `callback` for each difference between the snapshots it is given. For any thread."""

    def __init__(self, callback: OnCandidate) -> None:
        self._callback = callback
        self._ready = threading.Condition()
        self._current: Mapping[str, Candidate] = {}
        self._told: dict[str, Candidate] = {}
        self._stopped = False
        self._failing = False
        self._error: str | None = None
        self._thread = threading.Thread(target=self._run, name="atop-discovery-notify", daemon=True)
        self._thread.start()

    @property
    def error(self) -> str | None:
        """The last exception of the callback, None if the last call went well."""
        return self._error

    def offer(self, snapshot: Mapping[str, Candidate]) -> None:
        """Have the application told of what is different now. The mapping is not changed afterwards."""
        with self._ready:
            self._current = snapshot
            self._ready.notify_all()

    def stop(self) -> None:
        """End the thread after the call that it may be in; waits for that unless called from it."""
        with self._ready:
            self._stopped = True
            self._ready.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        while True:
            with self._ready:
                self._ready.wait_for(lambda: self._stopped or self._current != self._told)
                if self._stopped:
                    return
                change, candidate = differences(self._told, self._current)[0]
            if change is Change.LOST:
                del self._told[candidate.key]
            else:
                self._told[candidate.key] = candidate
            self._tell(change, candidate)

    def _tell(self, change: Change, candidate: Candidate) -> None:
        try:
            self._callback(change, candidate)
        except Exception as error:
            self._error = f"the callback for candidates failed: {error!r}"
            if not self._failing:  # once, until it works again
                _log.exception("the callback for candidates failed on %s %s", change.value, candidate.name)
            self._failing = True
        else:
            self._error = None
            self._failing = False
