"""What other devices ask of this one: commits that they forward, questions about its history. A few threads answer.

Promises: a request holds up no link. What waits is bounded, whoever asks: past that a commit is refused, to be sent
again in a moment, and a question goes without an answer, and is asked again. A commit is judged (`forwarding`) before
any of it is applied.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from atop.engine import CHAIN_SIZE, JOURNAL, Engine
from atop.errors import AtopError
from atop.records import loads, pack_u64

from .common import common_answer
from .forwarding import NotMaster, to_refused, to_write_set
from .messages import (
    Commit,
    Committed,
    CommonAnswered,
    CommonAsked,
    HistoryAnswered,
    HistoryAsked,
    Message,
    MessageRefused,
    Refused,
)
from .relay import LinkToDevice

log = logging.getLogger(__name__)

Request = Commit | HistoryAsked | CommonAsked
Answer = Committed | Refused | HistoryAnswered | CommonAnswered

WORKERS: Final = 4
"""Threads that commit what other devices forward: more share one flush of the log, and one lock."""

MAX_WAITING: Final = 1_000
MAX_WAITING_BYTES: Final = 256 << 20
"""Requests that wait or are being answered, and bytes of records in them; one that is larger is taken alone."""


class Requests:
    """Answers the requests of other devices. Methods may be called by any thread.

    Args:
        is_master: whether commits are applied here.
        generation: of the masters, as it is now.
        send: sends an answer, if the link is still there.
    """

    def __init__(
        self,
        is_master: Callable[[], bool],
        generation: Callable[[], int],
        send: Callable[[LinkToDevice, Message], None],
    ) -> None:
        self._is_master = is_master
        self._generation = generation
        self._send = send
        self._engine: Engine | None = None
        self._threads = ThreadPoolExecutor(WORKERS, thread_name_prefix="atop-forwarded")
        self._lock = threading.Lock()  # guards what follows
        self._waiting = self._bytes = 0
        self.turned_away = 0  # for want of room

    def attach(self, engine: Engine) -> None:
        """The store's tables are open."""
        self._engine = engine

    def close(self) -> None:
        """Answer nothing more; what is being answered still is."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def take(self, link: LinkToDevice, request: Request) -> None:
        """A request has come by a link."""
        size = _size_of(request)
        with self._lock:
            room = not self._waiting or (self._waiting < MAX_WAITING and self._bytes + size <= MAX_WAITING_BYTES)
            if room:
                self._waiting += 1
                self._bytes += size
            else:
                self.turned_away += 1
        if room:
            try:
                self._threads.submit(self._serve, link, request, size)
            except RuntimeError:  # it is closed: the link ends, and the other device asks elsewhere
                log.debug("a request came after the end")
        elif isinstance(request, Commit):
            self._send(link, to_refused(request.commit_id, NotMaster("the master has too much to do: try again")))

    def _serve(self, link: LinkToDevice, request: Request, size: int) -> None:
        try:
            answer = self._answer(request)
            if answer is not None:
                self._send(link, answer)
        except AtopError as error:  # a question: it is asked again
            log.info("the journal cannot be read: %s", error)
        except Exception:
            log.exception("a mistake in answering another device")
        finally:
            with self._lock:
                self._waiting -= 1
                self._bytes -= size

    def _answer(self, request: Request) -> Answer | None:
        engine = self._engine
        if isinstance(request, Commit):
            return self._commit(engine, request)
        if engine is None:
            return None
        if isinstance(request, CommonAsked):
            return common_answer(engine, request)
        record = engine.get(JOURNAL, pack_u64(request.number))
        same = record is not None and record[:CHAIN_SIZE] == request.chain
        return HistoryAnswered(request.number, same and request.number <= engine.settled())

    def _commit(self, engine: Engine | None, request: Commit) -> Committed | Refused:
        """Commit what another device has forwarded."""
        try:
            if engine is None or not self._is_master():
                raise NotMaster("this device is not the master")
            write_set = to_write_set(request)
            changed = [change[1] for change in loads(write_set.body)[3]]
            number = engine.commit(write_set, applied=lambda: engine.on_applied(changed))
            engine.on_applied([])  # it is on the disk now: whoever watches is told
        except (AtopError, MessageRefused) as error:
            return to_refused(request.commit_id, error)
        return Committed(request.commit_id, number, self._generation())


def _size_of(request: Request) -> int:
    """About how many bytes a request takes while it waits."""
    if not isinstance(request, Commit):
        return 0
    return len(request.body) + sum(len(value) for _, value in request.items if value is not None)
