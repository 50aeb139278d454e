"""Sending contents of files to devices that ask for them: a queue and a thread for each link that asks.

What a member may ask for: any contents in the file area, by hash. A member has a right to all that the store names;
and contents that it does not name (of a commit that is on its way, or salvaged from another history) are wanted by
those who know their hash alone, which nobody can guess. A hash that is not here is answered as such.

Promises: a device that does not take what it asked for holds up nobody else, and costs the memory of
`link.Room.file_bytes`; one that asks for more than `MAX_ASKED_BYTES` ahead loses its link. Contents that turn out to be
cut short are not sent.

Never: a path from outside, a byte of anything but contents in their place.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from atop.files import FileArea

from .handshake import LinkError
from .identity import DeviceId
from .messages import (
    FILE_CHUNK_BYTES,
    MAX_ASKED_BYTES,
    FileAbsent,
    FileAsked,
    FileChunk,
    FileHere,
    Message,
    Reason,
    Route,
)

log = logging.getLogger(__name__)

MAX_ASKS: Final = 1_000
"""Questions of one device that wait for their answer."""

IDLE_SECONDS: Final = 5.0
"""How long a thread waits for another question before it ends."""

WAIT_SECONDS: Final = 0.5
"""How often a thread that waits for the network looks whether it is to end."""


class LinkForFiles(Protocol):
    """What is needed of a link: see `link.Link`."""

    @property
    def device_id(self) -> DeviceId: ...  # noqa: D102 - as in Link
    @property
    def open(self) -> bool: ...  # noqa: D102
    def send(self, message: Message, route: Route | None = None) -> None: ...  # noqa: D102
    def send_file(self, chunk: FileChunk, timeout: float) -> bool: ...  # noqa: D102
    def close(self, reason: Reason = ..., *, wait: bool = ...) -> None: ...  # noqa: D102


class Server:
    """Answers what comes by one link.

    Args:
        is_coming: whether contents that are not here are being fetched.
        cut_short: told of contents that are here and shorter than what was asked for with their true size.
    """

    def __init__(
        self,
        link: LinkForFiles,
        area: FileArea,
        is_coming: Callable[[bytes], bool],
        cut_short: Callable[[bytes, int], None],
    ) -> None:
        self._link = link
        self._area = area
        self._is_coming = is_coming
        self._cut_short = cut_short
        self._changed = threading.Condition()
        self._asked: deque[FileAsked] = deque()
        self._waiting = 0  # bytes in these
        self._thread: threading.Thread | None = None
        self._closed = False
        self.sent = 0  # bytes of contents

    def ask(self, asked: FileAsked) -> None:
        """Queue a question. A device that asks for too much is not one of our protocol."""
        with self._changed:
            if self._closed:
                return
            if len(self._asked) >= MAX_ASKS or self._waiting + asked.length > MAX_ASKED_BYTES:
                self._link.close(Reason.WRONG_MESSAGE, wait=False)
                return
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="atop-files-send", daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # the system has no thread left: the device is told, and asks again
                    log.warning("contents are not sent: there is no thread to do it")
                    self._tell(FileAbsent(asked.digest, coming=True))
                    return
                self._thread = thread
            self._asked.append(asked)
            self._waiting += asked.length
            self._changed.notify()

    def close(self) -> None:
        """End the thread; what was asked for is not sent any more."""
        with self._changed:
            self._closed = True
            self._changed.notify()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        while (asked := self._next()) is not None:
            try:
                descriptor = os.open(self._area.path_of(asked.digest), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
                try:
                    self._answer(asked, descriptor)
                finally:
                    os.close(descriptor)
            except OSError as error:
                log.debug("contents cannot be read: %s", error)
                self._tell(FileAbsent(asked.digest, self._is_coming(asked.digest)))
            except LinkError as error:  # `_next` sees that the link has ended
                log.debug("contents were not sent: %s", error)

    def _next(self) -> FileAsked | None:
        """The next question; None when there has been none for a while, or the link has ended."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or bool(self._asked), IDLE_SECONDS)
            if self._closed or not self._asked or not self._link.open:
                self._thread = None
                return None
            asked = self._asked.popleft()
            self._waiting -= asked.length
            return asked

    def _answer(self, asked: FileAsked, descriptor: int) -> None:
        size = os.fstat(descriptor).st_size
        if size != asked.size:
            self._tell(FileAbsent(asked.digest, coming=False))
            self._cut_short(asked.digest, asked.size)
            return
        if not asked.length:
            self._tell(FileHere([asked.digest]))
            return
        offset, end = asked.offset, min(asked.offset + asked.length, size)
        while offset < end and not self._closed:
            data = os.pread(descriptor, min(FILE_CHUNK_BYTES, end - offset), offset)
            if not data:
                raise OSError("the contents have become shorter")
            while not self._link.send_file(FileChunk(asked.digest, offset, data), WAIT_SECONDS):
                if self._closed:
                    return
            offset += len(data)
            self.sent += len(data)

    def _tell(self, message: Message) -> None:
        try:
            self._link.send(message)
        except LinkError as error:
            log.debug("not sent: %s", error)
