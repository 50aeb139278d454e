"""Processes that are killed in the middle of their work, for tests of what is left.

A victim is a fork of the test process that does some work on a store of its own and is killed by a timer: the kernel
ends all of its threads at once, wherever they are, as `kill -9` does. What it has said through its pipe before that is
what a user would have seen acknowledged.
"""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable

Say = Callable[[str], None]

# A victim that goes on for so many seconds hangs.
LONGEST = 60.0


class Victim:
    """A forked process that runs `work(say)`; `wait` returns what it has said."""

    def __init__(self, work: Callable[[Say], object], *, lives: float | None = None) -> None:
        reader, writer = os.pipe()
        self._timed = lives is not None
        self.pid = os.fork()
        if self.pid == 0:
            os.close(reader)
            _perform(work, writer, lives)
        os.close(writer)
        self._reader = os.fdopen(reader, "r")
        self.status: int | None = None

    def line(self) -> str:
        """The next thing that it says; empty when it has ended."""
        return self._reader.readline().rstrip("\n")

    def kill(self) -> None:
        """End it as the kernel would for want of memory: at once, and without a word."""
        os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> list[str]:
        """What it said and nobody has read, when it has ended. Fails if it ended by itself and not well."""
        said = self._reader.read().splitlines()
        self._reader.close()
        self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        expected = {0, -signal.SIGKILL} | ({-signal.SIGALRM} if self._timed else set())
        assert self.status in expected, f"the victim failed ({self.status}): {' | '.join(said[-30:])}"
        return said


def _perform(work: Callable[[Say], object], writer: int, lives: float | None) -> None:
    status = 1
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, LONGEST if lives is None else lives)
        work(lambda text: os.write(writer, f"{text}\n".encode()))
        status = 0
    except BaseException:
        os.write(writer, traceback.format_exc().encode())
    finally:
        os._exit(status)  # nothing of the test process's is to be ended here


def killed_after(seconds: float, work: Callable[[Say], object]) -> list[str]:
    """Run `work(say)` in a process that is killed after so many seconds; returns what it said."""
    return Victim(work, lives=seconds).wait()
