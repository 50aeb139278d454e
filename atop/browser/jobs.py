"""Long work in threads of its own: building an index, importing a file. A page asks how far it is.

Promises: at most `MAX_RUNNING` at a time, the next is refused in words; what is over is kept for a while for those who
ask, at most `MAX_KEPT`. A job that fails says why, as any error does.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from atop import AtopError
from atop.browser.views import Refusal

log = logging.getLogger(__name__)

MAX_RUNNING = 4
MAX_KEPT = 50
# How long closing waits for work that is under way, in seconds; it is carried on by the same request another time.
PATIENCE = 10.0


@dataclass
class Job:
    """One piece of work. Its fields are set by its own thread, and read by any."""

    number: int
    label: str
    done: int = 0
    total: int = 0
    state: str = "running"  # then "done" or "failed"
    result: dict[str, Any] = field(default_factory=dict)
    message: str = ""

    def progress(self, done: int, total: int) -> None:
        """Say how far it is."""
        self.done, self.total = done, total

    def describe(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "job": self.number,
            "label": self.label,
            "done": self.done,
            "total": self.total,
            "state": self.state,
            "result": self.result,
            "message": self.message,
        }


class Jobs:
    """The jobs of one application. May be used by any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: dict[int, Job] = {}
        self._threads: set[threading.Thread] = set()
        self._next = 1

    def start(self, label: str, work: Callable[[Job], dict[str, Any] | None]) -> Job:
        """Begin to work. Raises Refusal where too much is under way."""
        with self._lock:
            if len(self._threads) >= MAX_RUNNING:
                raise Refusal(429, "Several long tasks are running already: try again when one of them is done.")
            job = Job(self._next, label)
            thread = threading.Thread(target=self._run, args=(job, work), name="atop-browser-job", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the system has no thread left
                raise Refusal(503, "No task can be begun just now: try again in a moment.") from None
            self._threads.add(thread)
            self._next += 1
            self._jobs[job.number] = job
            over = [number for number, old in self._jobs.items() if old.state != "running"]
            for number in over[: max(0, len(self._jobs) - MAX_KEPT)]:
                del self._jobs[number]
        return job

    def _run(self, job: Job, work: Callable[[Job], dict[str, Any] | None]) -> None:
        try:
            job.result = work(job) or {}
            job.state = "done"
        except (AtopError, OSError) as error:
            job.message, job.state = str(error), "failed"
        except (Refusal, ValueError) as error:
            job.message, job.state = str(error), "failed"
        except Exception:
            log.exception("%s failed", job.label)
            job.message, job.state = "This is a bug in Atop. The log of the program has the details.", "failed"
        finally:
            with self._lock:
                self._threads.discard(threading.current_thread())

    def find(self, number: int) -> Job:
        """The job of this number. Raises Refusal."""
        with self._lock:
            job = self._jobs.get(number)
        if job is None:
            raise Refusal(404, "There is no such task (any more).")
        return job

    def close(self) -> None:
        """Wait for what is under way, for a while."""
        with self._lock:
            threads = list(self._threads)
        for thread in threads:
            thread.join(PATIENCE)
