"""What other devices have and name: questions about contents to all of them, for a commit and before contents go.

- `await_there`: a commit with `durability="replicated"` returns when another device has the contents that it names.
- `named`: contents are removed only if every other device of the group says that it neither names nor keeps them.
  A device that cannot be asked, or does not answer, may name anything.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from atop.engine import Engine
from atop.errors import AtopError
from atop.pins import Pins

from .fileserving import LinkForFiles
from .handshake import LinkError
from .messages import FileAsked, Message, NamedAnswered, NamedAsked

log = logging.getLogger(__name__)

Id = bytes
Digest = bytes

ANSWER_SECONDS: Final = 5.0
"""How long the other devices have to say what they name."""

AWAITED_AT_ONCE: Final = 200
"""Contents that other devices are asked about together: fewer than `fileserving.MAX_ASKS`."""

LOOK_SECONDS: Final = 0.5
"""How often it is looked whether anything has moved."""


class Elsewhere:
    """Questions to all other devices. Its methods may be called by any thread.

    Args:
        links: the links there are.
        members: how many devices the group has now.
        sent: bytes of contents that were sent so far.
    """

    def __init__(
        self, links: Callable[[], list[LinkForFiles]], members: Callable[[], int], sent: Callable[[], int]
    ) -> None:
        self._links = links
        self._members = members
        self._sent = sent
        self._changed = threading.Condition()  # guards what follows
        self._answers: dict[int, dict[Id, set[Digest]]] = {}  # token -> device -> what it names
        self._awaited: dict[Digest, set[Id]] = {}  # contents -> devices that have them
        self._awaiting: Counter[Digest] = Counter()  # how many calls wait for each of these
        self._tokens = itertools.count(1)
        self._closed = False

    def close(self) -> None:
        """Let everybody go who waits."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def here(self, device: Id, digests: list[Digest]) -> None:
        """A device has these contents."""
        with self._changed:
            for digest in digests:
                if digest in self._awaited:
                    self._awaited[digest].add(device)
                    self._changed.notify_all()

    def answered(self, device: Id, message: NamedAnswered) -> None:
        """A device has said what it names."""
        with self._changed:
            if message.token in self._answers:
                self._answers[message.token][device] = set(message.digests)
                self._changed.notify_all()

    def await_there(self, sizes: dict[Digest, int], seconds: float) -> None:
        """Return when another device has these contents, none is linked, or nothing has been sent for so long."""
        waiting = list(sizes.items())
        while waiting and self._await_some(dict(waiting[:AWAITED_AT_ONCE]), seconds):
            del waiting[:AWAITED_AT_ONCE]

    def _await_some(self, sizes: dict[Digest, int], seconds: float) -> bool:
        with self._changed:
            self._awaiting.update(sizes.keys())
            for digest in sizes:
                self._awaited.setdefault(digest, set())
        try:
            return self._await_asked(sizes, seconds)
        finally:
            with self._changed:
                for digest in sizes:
                    self._awaiting[digest] -= 1
                    if not self._awaiting[digest]:  # else another call waits for what is said of it
                        del self._awaiting[digest], self._awaited[digest]

    def _await_asked(self, sizes: dict[Digest, int], seconds: float) -> bool:
        for link in self._links():
            for digest, size in sizes.items():
                send(link, FileAsked(digest, size, 0, 0))

        def there() -> bool:
            return all(self._awaited.get(digest) for digest in sizes)

        with self._changed:
            progress, sent = time.monotonic(), -1
            while not there() and self._links() and not self._closed and time.monotonic() - progress < seconds:
                if (now_sent := self._sent()) != sent:
                    progress, sent = time.monotonic(), now_sent
                self._changed.wait(LOOK_SECONDS)
            return there()

    def named(self, digests: list[Digest]) -> set[Digest]:
        """Those of these contents that another device names; all of them, unless every other device has answered."""
        links, token = self._links(), next(self._tokens)
        if len(links) < self._members() - 1:
            return set(digests)
        said: dict[Id, set[Digest]] = {}
        with self._changed:
            self._answers[token] = said
        for link in links:
            send(link, NamedAsked(token, digests))
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(said) >= len(links), ANSWER_SECONDS)
            del self._answers[token]
        complete = len(said) >= max(len(links), self._members() - 1)
        return set().union(*said.values()) if complete else set(digests)


def answer(link: LinkForFiles, message: NamedAsked, engine: Engine, pins: Pins) -> None:
    """Say which contents this device names, or keeps. No answer is as good as all of them."""
    try:
        named = [d for d in message.digests if engine.names_file(d) or pins.keeps(d)]
    except AtopError as error:
        log.info("another device is not told which files are named here: %s", error)
        return
    send(link, NamedAnswered(message.token, named))


def send(link: LinkForFiles, message: Message) -> None:
    """Queue a message, if the link is still there."""
    try:
        link.send(message)
    except LinkError as error:  # the link tells of its end by itself
        log.debug("not sent: %s", error)
