"""A gate: many calls inside together, or one caller alone.

Promises: while a caller is alone, no call is inside, and none gets in. Passing an open gate costs two list operations.
A call that an exception ends, KeyboardInterrupt included, leaves nothing behind.

A call passes like this, so that its place is given back however it ends:

    try:
        gate.inside.append(None)
        if gate.shut:
            gate.wait_outside()
        ...
    finally:
        gate.inside.pop()

`append` comes first in the block, where CPython does not look for signals before it is done.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# How often a caller that wants to be alone looks whether the others have left, in seconds: calls take microseconds.
POLL = 0.0001


class Gate:
    """Lets calls pass until someone wants to be alone.

    `usable` says, at the end of each `alone`, whether the gate may open again. `check_usable` is called by those who
    find it shut, once they have stepped aside: it raises what is to keep them out, or mends, alone, what keeps it shut.
    """

    def __init__(self, usable: Callable[[], bool], check_usable: Callable[[], None]) -> None:
        self.inside: list[None] = []  # one element for each call inside; append and pop are atomic
        self.shut = False
        self._usable = usable
        self._check_usable = check_usable
        self._changed = threading.Event()  # set but while a caller is alone, or waits to be
        self._changed.set()
        self._one_alone = threading.Lock()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Shut the gate, and wait until nobody is inside. Not for a caller who is inside, or alone already."""
        with self._one_alone:
            try:
                self._changed.clear()
                self.shut = True
                while self.inside:
                    time.sleep(POLL)
                yield
            finally:
                self.shut = not self._usable()
                self._changed.set()

    def wait_outside(self) -> None:
        """Having come in and found the gate shut: step aside until it opens, and come in again.

        Raises what `check_usable` does; then, too, the caller counts as inside, and gives its place back.
        """
        while self.shut:
            try:
                self.inside.pop()
                self._check_usable()
                self._changed.wait()
            finally:
                self.inside.append(None)
