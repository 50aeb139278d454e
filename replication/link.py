"""One encrypted, authenticated connection to another device: messages go in and come out.

A link is made of a connection whose two ends have proven who they are and greeted (`handshake`). Two threads serve
it: one reads, one writes. They block in the kernel, wake once a second for a PING, and end with the link.

What it promises:

- `send` and `send_log` queue and return; they never wait for the network. What is queued is bounded: log messages
  past the bound are dropped (Berkeley DB asks for them again, and GAP tells the other side to do so when the queue
  has drained), and a request past it raises `LinkStalled`: a request that was taken is sent, or the link ends.
- Messages are given to the handler in the order in which they arrived, in batches: all that came with one read. They
  were judged before; one that is not as it should be ends the link.
- A link ends once, for one reason (`failure`), whatever happens at the same time. `on_closed` is the last call of the
  handler. Nothing is left then: no thread, no socket.
- After `Timing.silence_seconds` without a byte from the other side the link ends; the other side's end sends PING
  every `ping_seconds`. A side that reads nothing for `stall_seconds` while there is something to send ends it too.
- In a forked child a link is closed, and nothing the child does is seen by the other device.

What it never does: reconnect, say what a message means, look into a log message, or show content, keys or names in
`repr`, errors or logs.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from .frames import LIMITS, Lane, Outbox, lane_for
from .handshake import Introduced, LinkBroken, LinkClosed, LinkError, LinkLost, LinkSilent, LinkStalled
from .identity import DeviceId
from .messages import (
    FileChunk,
    Gap,
    Goodbye,
    Hello,
    Incoming,
    Log,
    Lsn,
    Message,
    MessageRefused,
    MessageTooLong,
    Ping,
    Pong,
    Ready,
    Reason,
    Route,
    encode,
    judge,
)
from .noise import NoiseError
from .sockets import set_options, set_timeouts

log = logging.getLogger(__name__)

READ_BYTES: Final = 512 << 10
"""The buffer of the reader: some frames, so that a fast sender is read with few system calls."""

FRAMES_AT_ONCE: Final = 4
"""Frames sent with one system call: what is urgent waits behind at most 256 KiB of log."""

PACE_SECONDS: Final = 0.001
"""The least time between two sends of log messages alone: a fast stream of commits costs the committing thread, which
shares the interpreter with the writer, half of its speed otherwise. A commit after a pause goes at once."""

PACE_BYTES: Final = 64 << 10
"""Log messages that are sent without waiting for that."""

SEND_WAKE_SECONDS: Final = 0.2
"""How often a writer that the other side keeps waiting looks whether the link has ended."""


_forks = 0  # how often this process, or one it was forked from, was forked: in a child, another number than before


def _count_fork() -> None:
    global _forks  # noqa: PLW0603 - it is of the process
    _forks += 1


os.register_at_fork(after_in_child=_count_fork)


@dataclass(frozen=True)
class Timing:
    """The clocks of a link, in seconds. Both ends should have the same; tests shorten them."""

    ping_seconds: float = 1.0
    silence_seconds: float = 3.0  # two PINGs may be late
    stall_seconds: float = 10.0  # a device may be busy; one that takes nothing for so long is better reconnected
    close_seconds: float = 1.0  # for the last messages to leave, and the other side to close too


@dataclass(frozen=True)
class Room:
    """How many bytes of messages wait to be sent at most; past it, log messages are dropped and requests fail."""

    log_bytes: int = 16 << 20  # of log messages for all devices: commits as they are made
    answer_bytes: int = 32 << 20  # of all log messages, where one is queued that the other side has asked for
    request_bytes: int = 8 << 20
    large_bytes: int = 32 << 20  # of requests too long for the urgent lane; one more than fits is always taken
    file_bytes: int = 512 << 10  # of files: whoever reads them from the disk waits for the network


class Position(NamedTuple):
    """Where this device is: what its PINGs tell. The clock is that of its system, in microseconds."""

    clock: int = 0
    generation: int = 0
    commit: int = 0
    lsn: Lsn = Lsn(0, 0)


class Handler(Protocol):
    """Whoever uses links. Calls come from the threads of the links, and must be short: a link is not read meanwhile."""

    def on_messages(self, link: Link, messages: list[Incoming]) -> None:
        """These have arrived, in this order. PING and PONG are among them, for what they tell; they are answered."""

    def on_closed(self, link: Link) -> None:
        """The link has ended; `link.failure` says why. The last call for this link."""

    def position(self) -> Position:
        """What to tell in a PING: called once a second for each link. Must not wait for anything."""


@dataclass(frozen=True, slots=True)
class LinkStatus:
    """How a link is doing. Times in seconds."""

    device_id: DeviceId
    address: str
    initiator: bool
    version: int
    age: float
    round_trip: float | None
    silent_for: float
    waiting_bytes: int
    dropped_logs: int
    sent_bytes: int
    received_bytes: int
    failure: str | None


class Link:
    """A link, from `start` until it ends. Methods may be called by any thread.

    Fields to read: `device_id`, `public_key`, `hello` and `version` of the other side, `initiator` (whether this side
    connected), `handshake_hash`, `address`, `started` (a time of `time.monotonic`).
    """

    def __init__(
        self, introduced: Introduced, handler: Handler, timing: Timing | None = None, room: Room | None = None
    ) -> None:
        self.device_id: Final = introduced.device_id
        self.public_key: Final = introduced.public_key
        self.hello: Final[Hello] = introduced.hello
        self.version: Final = introduced.version
        self.initiator: Final = introduced.initiator
        self.handshake_hash: Final = introduced.handshake_hash
        self.address: Final = _address_of(introduced.sock)
        self._sock = introduced.sock
        self._sealer = introduced.sealer
        self._opener = introduced.opener
        self._opener.limits = LIMITS
        self._handler = handler
        self._timing = timing or Timing()
        self._room = room or Room()
        self._pid = os.getpid()
        self._born_after = _forks
        lock = threading.Lock()  # guards the five below; never held while waiting
        self._wake = threading.Condition(lock)
        self._file_room = threading.Condition(lock)
        self._outbox = Outbox()
        self._writer_sleeps = False
        self._writer_paces = False  # Invariant: only while it sleeps: log messages alone need not wake it
        self._unreported = 0  # log messages dropped that no GAP has told of; while it is not 0, all are dropped
        self._failure: LinkError | None = None  # Invariant: set once
        self._end_by = 0.0  # when a link that says goodbye gives up; past, if there is nobody to hear it
        self._drained = threading.Event()  # the reader has seen the end of the stream, or will read no more
        self._ended = threading.Event()
        self.started: Final = time.monotonic()
        self._heard = self.started
        self._pinged = 0  # the token of the last PING
        self._round_trip: float | None = None
        self._dropped = self._sent_bytes = self._received_bytes = 0
        name = f"atop-link-{self.device_id.short}"
        self._reader = threading.Thread(target=self._read, name=f"{name}-read", daemon=True)
        self._writer = threading.Thread(target=self._write, name=f"{name}-write", daemon=True)

    # -- for any thread

    def start(self) -> None:
        """Begin to read and write. Called once."""
        with contextlib.suppress(OSError):  # it has ended already: the reader finds out
            set_options(self._sock)
            set_timeouts(self._sock, receive=self._timing.silence_seconds, send=SEND_WAKE_SECONDS)
        try:
            self._reader.start()
            self._writer.start()
        except RuntimeError:  # no more threads to be had
            self._end(LinkLost("this device cannot start another thread: close some programs"))
            if self._reader.ident is None:
                self._finish()

    @property
    def failure(self) -> LinkError | None:
        """Why the link has ended, or is about to; None while it is up."""
        if self._failure is None and _forks != self._born_after:
            return LinkClosed(Reason.OTHER, by_us=True)
        return self._failure

    @property
    def open(self) -> bool:
        """Whether messages are taken."""
        return self.failure is None

    def send(self, message: Message, route: Route | None = None) -> None:
        """Queue a message that must not get lost: it is sent, or the link ends.

        Raises LinkError (the `failure`) if the link has ended, LinkStalled if there is no room because the other side
        does not take what it is sent, MessageTooLong.
        """
        body = encode(message, route)
        lane = Lane.BULK if type(message) is Log else lane_for(body)
        most = self._room.request_bytes if lane is Lane.URGENT else self._room.large_bytes
        self._check_open()
        with self._wake:
            self._check_open()
            waiting = self._outbox.waiting[lane]
            if waiting and waiting + len(body) > most:
                raise LinkStalled(
                    f"device {self.device_id.short} does not take what it is sent: {waiting:,} bytes are waiting"
                )
            self._append(lane, body)

    def send_log(self, log: Log, route: Route | None = None, *, asked: bool = False) -> bool:
        """Queue a log message if there is room; return whether it was queued. Never raises and never waits.

        What the other side has `asked` for has more room, and need not wait until what was dropped is reported:
        pages of a full copy that are lost at its end are not asked for again.
        """
        if self.failure is not None:
            return False
        try:
            body = encode(log, route)
        except MessageTooLong:
            return False
        with self._wake:
            if self._failure is not None:
                return False
            waiting = self._outbox.waiting[Lane.BULK]
            most = self._room.answer_bytes if asked else self._room.log_bytes
            if (self._unreported and not asked) or (waiting and waiting + len(body) > most):
                self._unreported += 1
                self._dropped += 1
                return False
            self._append(Lane.BULK, body)
            return True

    def send_file(self, chunk: FileChunk, timeout: float) -> bool:
        """Queue bytes of a file, once there is room for them; False if there was none for so many seconds.

        Raises LinkError (the `failure`) if the link has ended.
        """
        body = encode(chunk)
        deadline = time.monotonic() + timeout
        self._check_open()
        with self._wake:
            while self._failure is None and self._outbox.waiting[Lane.FILES] >= self._room.file_bytes:
                if not self._file_room.wait(deadline - time.monotonic()):
                    return False
            self._check_open()
            self._append(Lane.FILES, body)
        return True

    def close(self, reason: Reason = Reason.LEAVING, *, wait: bool = True) -> None:
        """Tell the other side why, and end the link; what was queued still goes if this device is leaving.

        With `wait`, returns when `on_closed` has, after at most two `close_seconds`: then hold no lock that the
        handler takes. In a thread of the link, and in a forked child, it does not wait. May be called again.
        """
        if os.getpid() != self._pid:
            return
        self._end(LinkClosed(reason, by_us=True))
        if wait and self._reader.ident is not None and threading.current_thread() not in (self._reader, self._writer):
            self._ended.wait()

    def wait_ended(self, timeout: float | None = None) -> bool:
        """Wait until the link has ended and nothing of it is left; return whether it has."""
        return self._ended.wait(timeout)

    def status(self) -> LinkStatus:
        """How it is doing now."""
        now = time.monotonic()
        failure = self.failure
        return LinkStatus(
            device_id=self.device_id,
            address=self.address,
            initiator=self.initiator,
            version=self.version,
            age=now - self.started,
            round_trip=self._round_trip,
            silent_for=now - self._heard,
            waiting_bytes=sum(self._outbox.waiting),
            dropped_logs=self._dropped,
            sent_bytes=self._sent_bytes,
            received_bytes=self._received_bytes,
            failure=None if failure is None else str(failure),
        )

    def __repr__(self) -> str:
        return f"<Link to {self.device_id.short}: {'open' if self.open else 'ended'}>"

    def _check_open(self) -> None:
        failure = self.failure
        if failure is not None:
            raise _copy_of(failure)  # each caller its own: an error that is raised holds on to where it was

    def _append(self, lane: Lane, body: bytes) -> None:
        self._outbox.append(lane, body)
        if self._writer_sleeps and not (self._writer_paces and self._may_wait()):
            self._writer_sleeps = False
            self._wake.notify()

    def _may_wait(self) -> bool:
        """Whether all that is to be sent is a few log messages."""
        waiting = self._outbox.waiting
        return 0 < waiting[Lane.BULK] < PACE_BYTES and sum(waiting) == waiting[Lane.BULK]

    def _end(self, error: LinkError) -> None:
        """End the link for this reason, unless it has one. The writer says goodbye, if there is somebody to hear it."""
        with self._wake:
            if self._failure is not None:
                return
            self._failure = _copy_of(error)
            gone = isinstance(error, LinkLost) or (isinstance(error, LinkClosed) and not error.by_us)
            gone = gone or error.reason is Reason.DUPLICATE  # the other side has given it up, and connected anew
            if gone:
                self._shut_down()
            else:
                self._end_by = time.monotonic() + self._timing.close_seconds
                if error.reason is not Reason.LEAVING:
                    self._outbox.forget()
            self._wake.notify()
            self._file_room.notify_all()

    def _shut_down(self, how: int = socket.SHUT_RDWR) -> None:
        """End both threads' calls in the kernel. The descriptor stays, so that no other one gets its number."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(how)

    # -- the writer's thread

    def _write(self) -> None:
        try:
            self._send_until_ended()
            self._send_farewell()
        except LinkError as error:
            self._end(error)
        except OSError as error:
            self._end(LinkLost(f"the connection was lost: {error.strerror or error}"))
        except Exception as error:  # of the handler's position(), or a mistake here: the link must not look alive
            self._end(_failed(error))
        self._shut_down()

    def _send_until_ended(self) -> None:
        next_ping = next_send = 0.0
        while True:
            now = time.monotonic()
            if now >= next_ping:
                self._ping()
                next_ping = now + self._timing.ping_seconds
            with self._wake:
                if not self._outbox and self._failure is None and not self._unreported:
                    self._writer_sleeps = True
                    self._wake.wait(next_ping - now)
                    self._writer_sleeps = False
                if self._failure is None and self._may_wait() and (early := next_send - time.monotonic()) > 0:
                    self._writer_sleeps = self._writer_paces = True
                    self._wake.wait(early)
                    self._writer_sleeps = self._writer_paces = False
                if self._failure is not None:
                    return
                if self._unreported and not self._outbox.waiting[Lane.BULK]:
                    self._outbox.append(Lane.BULK, encode(Gap(self._unreported)))
                    self._unreported = 0
                plaintexts = self._outbox.take(FRAMES_AT_ONCE)
                if self._outbox.waiting[Lane.FILES] <= self._room.file_bytes // 2:
                    self._file_room.notify_all()
            if plaintexts:
                self._send_all(self._sealer.seal(plaintexts))
                next_send = time.monotonic() + PACE_SECONDS

    def _send_farewell(self) -> None:
        """Send what is still to be sent, then GOODBYE, and wait for the other side to close; nothing if it is gone."""
        while time.monotonic() < self._end_by:
            with self._wake:
                plaintexts = self._outbox.take(FRAMES_AT_ONCE)
            if plaintexts:
                self._send_all(self._sealer.seal(plaintexts))
                continue
            assert self._failure is not None  # noqa: S101 - what brought us here
            self._send_all(self._sealer.seal_alone(encode(Goodbye(self._failure.reason))))
            self._shut_down(socket.SHUT_WR)
            self._drained.wait(max(0.0, self._end_by - time.monotonic()))
            break

    def _send_all(self, data: bytes) -> None:
        view = memoryview(data)
        progress = time.monotonic()
        while view:
            try:
                sent = self._sock.send(view)
            except BlockingIOError:
                now = time.monotonic()
                if self._failure is not None and now >= self._end_by:
                    raise LinkStalled("the other device did not take the last messages") from None
                if now - progress >= self._timing.stall_seconds:
                    raise LinkStalled(
                        f"device {self.device_id.short} took nothing for {now - progress:.0f} seconds"
                    ) from None
                continue
            view = view[sent:]
            self._sent_bytes += sent
            progress = time.monotonic()

    def _ping(self) -> None:
        position = self._handler.position()
        self._pinged = time.monotonic_ns()
        self._answer(Ping(self._pinged, position.clock, position.generation, position.commit, position.lsn))

    def _answer(self, message: Ping | Pong) -> None:
        """Send a message of the link's own; if there is no room even for that, the link ends."""
        try:
            self.send(message)
        except LinkError:
            if self._failure is None:
                raise

    # -- the reader's thread

    def _read(self) -> None:
        try:
            self._receive_until_ended()
        except BlockingIOError:
            self._end(LinkSilent(f"nothing was heard of device {self.device_id.short} for too long"))
        except OSError as error:
            self._end(LinkLost(f"the connection was lost: {error.strerror or error}"))
        except LinkError as error:
            self._end(error)
        except (NoiseError, MessageRefused) as error:
            self._end(LinkBroken(f"device {self.device_id.short} does not keep to the protocol: {error}"))
        except Exception as error:  # of the handler's position(), or a mistake here
            self._end(_failed(error))
        self._finish()

    def _receive_until_ended(self) -> None:
        buffer = memoryview(bytearray(READ_BYTES))
        end = 0
        while True:
            count = self._sock.recv_into(buffer[end:])
            if not count:
                raise LinkLost("the other device, or its system, ended the connection")
            if self._failure is not None:
                return
            self._heard = time.monotonic()
            self._received_bytes += count
            end += count
            bodies, used = self._opener.open(buffer[:end])
            if used < end:
                buffer[: end - used] = buffer[used:end]
            end -= used
            messages: list[Incoming] = []
            for body in bodies:
                incoming = judge(body)
                if type(incoming.message) is not Log and type(incoming.message) is not FileChunk:
                    try:
                        self._notice(incoming)
                    except LinkClosed:
                        self._deliver(messages)  # what was sent before GOODBYE counts
                        raise
                messages.append(incoming)
            self._deliver(messages)

    def _deliver(self, messages: list[Incoming]) -> None:
        if messages:
            try:
                self._handler.on_messages(self, messages)
            except MessageRefused:  # of a route, which only the handler can judge
                raise
            except Exception as error:  # it has not seen what it must see; and its errors are not the network's
                raise _failed(error) from error

    def _notice(self, incoming: Incoming) -> None:
        """What concerns the link itself. Raises LinkClosed for GOODBYE, LinkBroken for what has no place here."""
        message = incoming.message
        if type(message) is Ping:
            self._answer(Pong(message.token, self._handler.position().clock))
        elif type(message) is Pong:
            if message.token == self._pinged:
                self._round_trip = (time.monotonic_ns() - message.token) / 1e9
        elif type(message) is Goodbye:
            raise LinkClosed(message.known_reason, by_us=False)
        elif type(message) is Ready:
            raise LinkBroken(f"device {self.device_id.short} sent READY on a link that is up")

    def _finish(self) -> None:
        """Read what is left to the end, so that GOODBYE is not destroyed on its way; then leave nothing."""
        scrap = bytearray(1 << 16)
        with contextlib.suppress(OSError):
            while time.monotonic() < self._end_by and self._sock.recv_into(scrap):
                pass
        self._drained.set()
        if self._writer.ident is not None:
            self._writer.join()
        self._sock.close()
        try:
            self._handler.on_closed(self)
        finally:
            self._ended.set()


def _failed(error: Exception) -> LinkError:
    log.error("a link was ended because of a failure on this device", exc_info=error)
    return LinkError(f"the link was ended because of a failure on this device: {type(error).__name__}")


def _copy_of(error: LinkError) -> LinkError:
    """The same error, without the frames that it came through and what is in them."""
    copy = type(error).__new__(type(error))
    copy.args = error.args
    copy.__dict__.update(error.__dict__)
    return copy


def _address_of(sock: socket.socket) -> str:
    try:
        return str(sock.getpeername()[0])
    except OSError:
        return "?"
