"""Pairing over sockets: the machines of `pairing`, their messages carried on connections, their questions to people.

After the preamble `atop pair 1` each message is a length (u16) and its bytes; a length past the longest message ends
the connection unread. Every connection has its machine's deadline: 30 seconds until the code is proven, and then 300
for people to compare.

`OpenInvitation` is the inviter's side: as many connections as come, one code, one guess. `join` is the joiner's.

Promises: a device gets the group's secret only once it has proven the code, this side's person agreed (or none was
to be asked), and `admit` has returned, which makes it a member. What fails changes nothing on either side.
Never: a code in a status, an error or a log. More than `MAX_TALKS` connections at a time. A second guess.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import select
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from atop.errors import AtopError

from .dialing import connect
from .handshake import LinkError, Purpose
from .identity import Identity
from .invitation import (
    Invitation,
    PairingBroken,
    PairingCode,
    PairingFailed,
    PairingTimeout,
)
from .pairing import MAX_MESSAGE_BYTES, Comparison, Inviter, Joiner, PairingOutcome, PairingState, Refusal
from .sockets import close_politely, end

log = logging.getLogger(__name__)

LENGTH_BYTES: Final = 2

MAX_TALKS: Final = 8
"""Connections of one invitation at a time. When one more comes, the oldest one that has not proven the code gives way;
one of those whose first message has not been worked through, while these hold half of the places."""

CONNECT_SECONDS: Final = 5.0
ANSWER_POLL_SECONDS: Final = 0.05
"""How often a connection that waits for its person looks whether there is an answer."""

Confirm = Callable[[Comparison], bool]
"""Asks a person whether the digits are equal. Runs in a thread of its own."""

Answers = queue.SimpleQueue[Callable[[], list[bytes]]]
"""What people have said, for the thread of a connection to do; it returns what is to be sent."""


class Refused(Exception):
    """Raised by `payload_for`: the other device is turned away for this reason; `text` is for this side."""

    def __init__(self, why: Refusal, text: str) -> None:
        super().__init__(text)
        self.why = why
        self.text = text


# -- messages -------------------------------------------------------------------------------------------------


class _Wire:
    """Whole messages on a connection. Raises PairingBroken where it ends, PairingTimeout past the deadline."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._received = bytearray()

    def send(self, messages: Sequence[bytes], deadline: float) -> None:
        data = b"".join(len(message).to_bytes(LENGTH_BYTES) + message for message in messages)
        if not data:
            return
        try:
            self._sock.settimeout(max(0.001, deadline - time.monotonic()))
            self._sock.sendall(data)
        except TimeoutError:
            raise PairingTimeout("the other device does not take what it is sent: begin again") from None
        except OSError:
            raise PairingBroken("the other device ended the connection before the pairing was done") from None

    def receive(self, until: float) -> bytes | None:
        """The next message; None if it has not come by then."""
        while True:
            message = self._next()
            if message is not None:
                return message
            left = until - time.monotonic()
            if left <= 0 or not select.select([self._sock], [], [], left)[0]:
                return None
            try:
                part = self._sock.recv(MAX_MESSAGE_BYTES + LENGTH_BYTES)
            except OSError:
                part = b""
            if not part:
                raise PairingBroken("the other device ended the connection before the pairing was done")
            self._received += part

    def _next(self) -> bytes | None:
        received = self._received
        if len(received) < LENGTH_BYTES:
            return None
        length = int.from_bytes(received[:LENGTH_BYTES])
        if not 0 < length <= MAX_MESSAGE_BYTES:
            raise PairingBroken(f"the other side sent a message of {length:,} bytes")
        if len(received) < LENGTH_BYTES + length:
            return None
        message = bytes(received[LENGTH_BYTES : LENGTH_BYTES + length])
        del received[: LENGTH_BYTES + length]
        return message


def _talk(
    sock: socket.socket,
    machine: Inviter | Joiner,
    first: Sequence[bytes],
    compare: Callable[[Comparison], None],
    answers: Answers,
    before_last: Callable[[], None],
) -> None:
    """Carry a machine's messages until it is finished. `compare` begins to ask; `answers` are what people say.

    `before_last` is called when the machine is done and its last message is about to be sent.
    """
    wire = _Wire(sock)
    wire.send(first, machine.deadline)
    asked = False
    while not machine.finished:
        waiting = machine.comparison is not None
        until = min(machine.deadline, time.monotonic() + ANSWER_POLL_SECONDS) if waiting else machine.deadline
        message = wire.receive(until)
        out: list[bytes] = []
        if message is not None:
            out = machine.receive(message, time.monotonic())
        elif not answers.empty():
            out = answers.get()()
        else:
            out = machine.tick(time.monotonic())
        if machine.state is PairingState.DONE:
            before_last()
        with contextlib.suppress(PairingFailed) if machine.state is PairingState.FAILED else contextlib.nullcontext():
            wire.send(out, time.monotonic() + CONNECT_SECONDS)
        comparison = machine.comparison
        if comparison is not None and not asked:
            asked = True
            compare(comparison)


# -- the inviter's side ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class InvitationStatus:
    """How an invitation stands. It never holds the code.

    `state` is one of "open" (waiting for the other device), "comparing" (a device has proven the code: a person is to
    compare, see `OpenInvitation.answer`), "agreed" (agreed here, waiting for the other side), "paired" (with
    `other_name` and `other_id`), "failed" (see `problem`). Times are in seconds.
    """

    number: int
    state: str
    expires_in: float
    question: str | None = None
    digits: str | None = None
    other_name: str | None = None
    other_id: str | None = None
    problem: str | None = None


class OpenInvitation:
    """One code, as long as it is good. Methods may be called by any thread.

    Args:
        payload_for: what a device that is about to become a member is given; raises `Refused`.
        admit: makes it a member, for good; what it raises ends the pairing.
        ask: whether a person is to compare (see `answer`); else the code alone is enough.
    """

    def __init__(
        self,
        identity: Identity,
        name: str,
        *,
        payload_for: Callable[[bytes, str], bytes],
        admit: Callable[[bytes, str], None],
        ask: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._identity = identity
        self._name = name
        self._payload_for = payload_for
        self._admit = admit
        self._ask = ask
        self._clock = clock
        self._invitation = Invitation(PairingCode.random(), clock())
        self._changed = threading.Condition()  # guards what follows
        self._talks: OrderedDict[threading.Thread, tuple[socket.socket, Inviter]] = OrderedDict()
        self._ending: set[threading.Thread] = set()  # of connections that had to give way
        self._compared: tuple[Inviter, Comparison, Answers] | None = None
        self._agreed = False
        self._paired: Comparison | None = None
        self._failure: str | None = None
        self._closed = False

    @property
    def code(self) -> str:
        """The code, for the screen of this device and nothing else."""
        return self._invitation.code.text

    @property
    def number(self) -> int:
        """The public part of the code, for the announcement."""
        return self._invitation.number

    @property
    def status(self) -> InvitationStatus:
        """How it stands."""
        with self._changed:
            return self._status()

    def _status(self) -> InvitationStatus:
        now = self._clock()
        left = max(0.0, self._invitation.deadline - now)
        shown = self._paired or (self._compared[1] if self._compared is not None else None)
        problem = self._failure
        if self._paired is not None:
            state = "paired"
        elif self._compared is not None and problem is None:
            state = "agreed" if self._agreed else "comparing"
        else:
            found = self._invitation.status(now)
            state = "open" if found == "open" and not self._closed and problem is None else "failed"
            if state == "failed" and problem is None:
                problem = "the code is older than ten minutes" if found == "expired" else "the code was withdrawn"
                if found == "spent" and not self._closed:
                    problem = "somebody tried the code and failed: it is spent"
        return InvitationStatus(
            self.number,
            state,
            left,
            question=shown.text if shown is not None and state == "comparing" else None,
            digits=shown.digits if shown is not None and state == "comparing" else None,
            other_name=shown.other_name if shown is not None else None,
            other_id=str(shown.other_id) if shown is not None else None,
            problem=problem if state == "failed" else None,
        )

    def answer(self, yes: bool) -> None:
        """What the person says who compared. Raises PairingFailed if there is nothing to say."""
        with self._changed:
            if self._compared is None or self._agreed or self._failure is not None:
                raise PairingFailed("no device waits for an answer: the invitation says how it stands")
            inviter, comparison, answers = self._compared
            self._agreed = yes
            key = inviter.remote_public_key
        answers.put(lambda: self._answered(inviter, comparison, key, yes))

    def _answered(self, inviter: Inviter, comparison: Comparison, key: bytes, yes: bool) -> list[bytes]:
        if not yes:
            return inviter.refuse(text=f"somebody said no to {comparison.other_name} on this device")
        try:
            payload = self._payload_for(key, comparison.other_name)
        except Refused as refused:
            return inviter.refuse(refused.why, refused.text)
        return inviter.agree(time.monotonic(), payload)

    def wait(self, timeout: float | None = None, *, states: Sequence[str] = ("paired", "failed")) -> InvitationStatus:
        """Return the status once its state is one of these, or after `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while True:
                status = self._status()
                left = 1.0 if deadline is None else deadline - time.monotonic()
                if status.state in states or left <= 0:
                    return status
                self._changed.wait(min(left, 1.0))

    def close(self) -> None:
        """Withdraw the code, and end what goes on; a pairing that is done stays done."""
        with self._changed:
            self._closed = True
            talks, ending = dict(self._talks), set(self._ending)
            self._changed.notify_all()
        self._invitation.cancel()
        for sock, _ in talks.values():
            end(sock)
        for thread in {*talks, *ending} - {threading.current_thread()}:
            thread.join()

    # -- connections

    def serve(self, sock: socket.socket) -> None:
        """Take over the connection of a device that wants to pair; returns at once."""
        inviter = Inviter(self._invitation, self._identity, self._name, time.monotonic())
        thread = threading.Thread(target=self._serve, args=(sock, inviter), name="atop-pairing", daemon=True)
        with self._changed:
            if self._closed or self._paired is not None:
                sock.close()
                return
            if len(self._talks) >= MAX_TALKS:
                unproven = [t for t, (_, machine) in self._talks.items() if machine.comparison is None]
                silent = [t for t in unproven if self._talks[t][1].state is PairingState.AWAITING_OPEN]
                leaving = (silent if len(silent) >= MAX_TALKS // 2 else unproven)[0]
                end(self._talks.pop(leaving)[0])  # its thread finds out, and closes it
                self._ending.add(leaving)
            self._talks[thread] = sock, inviter
            try:
                thread.start()
            except RuntimeError:
                del self._talks[thread]
                sock.close()

    def _serve(self, sock: socket.socket, inviter: Inviter) -> None:
        failure: str | None = None
        answers: Answers = queue.SimpleQueue()  # of this connection alone: another one may wait at the same time
        try:
            _talk(
                sock, inviter, (), lambda comparison: self._compare(inviter, comparison, answers), answers,
                lambda: self._admit_joiner(inviter),
            )  # fmt: skip
            outcome = inviter.outcome  # raises if it failed
            log.info("paired with device %s", outcome.remote_id.short)
            with self._changed:
                self._paired = inviter.comparison
        except AtopError as error:
            failure = str(error)
        finally:
            close_politely(sock, 1.0)
            with self._changed:
                self._talks.pop(threading.current_thread(), None)
                self._ending.discard(threading.current_thread())
                proven = self._compared is not None and self._compared[0] is inviter
                spent = self._invitation.status(self._clock()) != "open"
                if failure is not None and (proven or spent) and self._paired is None and self._failure is None:
                    self._failure = failure
                self._changed.notify_all()

    def _compare(self, inviter: Inviter, comparison: Comparison, answers: Answers) -> None:
        with self._changed:
            self._compared = inviter, comparison, answers
            self._changed.notify_all()
        if not self._ask:
            self.answer(True)

    def _admit_joiner(self, inviter: Inviter) -> None:
        outcome = inviter.outcome
        self._admit(outcome.remote_public_key, outcome.remote_name)

    def __repr__(self) -> str:
        return f"<OpenInvitation {self.number}-…: {self.status.state}>"


# -- the joiner's side ----------------------------------------------------------------------------------------


def join(
    code: PairingCode,
    identity: Identity,
    name: str,
    addresses: Sequence[str],
    port: int,
    confirm: Confirm | None = None,
) -> PairingOutcome:
    """Pair with the inviter that is at one of these (numeric) addresses. Raises PairingFailed.

    Raises LinkError if nobody is there; then nothing was said, and the code is as good as before.
    """
    sock = connect(addresses, port, time.monotonic() + CONNECT_SECONDS)
    joiner = Joiner(code, identity, name, time.monotonic())
    answers: Answers = queue.SimpleQueue()

    def agree() -> list[bytes]:
        return joiner.agree(time.monotonic())

    def compare(comparison: Comparison) -> None:
        if confirm is None:
            answers.put(agree)
            return

        def ask() -> None:
            answer: Callable[[], list[bytes]] = joiner.refuse
            try:
                if confirm(comparison):
                    answer = agree
            finally:
                answers.put(answer)

        threading.Thread(target=ask, name="atop-pairing-ask", daemon=True).start()

    try:
        try:
            sock.sendall(Purpose.PAIRING.value)
        except OSError as error:
            raise LinkError(f"the connection was lost: {error.strerror or error}") from None
        _talk(sock, joiner, joiner.start(), compare, answers, lambda: None)
        return joiner.outcome
    finally:
        close_politely(sock, 0.5)


__all__ = ["Confirm", "InvitationStatus", "OpenInvitation", "Refused", "join"]
