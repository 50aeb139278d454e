"""How a connection becomes a link: the two prove who they are, and greet. Blocking, with one deadline for all of it.

    1  initiator   preamble (12 bytes): what this connection is for, and the version of this handshake
    2  initiator   length (u16), first Noise message: 32 bytes
    3  responder   length (u16), second Noise message: 96 bytes
       the initiator knows the responder's key now, and goes no further unless it accepts it
    4  initiator   length (u16), third Noise message: 64 bytes
       the responder knows the initiator's key, and reads nothing more unless it accepts it
    5  initiator   HELLO, in an encrypted frame (see `frames`), sent together with 4
    6  responder   HELLO
    7  either      READY, from the device with the lower id: this is the link to use. Until then each may still say
                   GOODBYE; see `peers`

The pattern is Noise_XX_25519_ChaChaPoly_BLAKE2s, with empty payloads; the prologue is the preamble and the group id,
so that two groups, or a link and a pairing, never understand each other. In place of HELLO there may be a GOODBYE: a
device that is refused is told why if it has proven its key.

What it promises: nothing of a connection is looked at longer than the deadline; a length other than the expected one
ends it unread; no message of a device that is not accepted is decrypted. An initiator shows its key only to a device
that it accepts. Whoever connects learns the responder's public key, and nothing else.

Whoever fails gets an error of `LinkError`'s family, and the connection is closed. What it never does: decide who is
trusted, keep a thread, or retry.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from atop.errors import AtopError

from .frames import LENGTH_BYTES, MAX_FIRST_BODY_BYTES, Lane, Opener, Sealer, frame_length
from .identity import DeviceId, Identity
from .messages import (
    OLDEST_VERSION,
    PROTOCOL_VERSION,
    Goodbye,
    Hello,
    Incoming,
    MessageRefused,
    Ready,
    Reason,
    agreed_version,
    encode,
    judge,
)
from .noise import HandshakeState, NoiseError
from .sockets import close_politely

HANDSHAKE_SECONDS: Final = 5.0
"""From the connection to HELLO: four journeys over a network that may be slow, and 2 ms of work."""

MIN_GROUP_BYTES: Final = 16
"""A group id is drawn at random; a shorter one could be guessed."""

_SIZES: Final = (32, 96, 64)  # of the three Noise messages


class LinkError(AtopError):
    """The root of what ends a link, or keeps it from coming up. `reason` is what one side is told by the other."""

    reason: Reason = Reason.OTHER


class LinkLost(LinkError):
    """The network or the other device's system ended the connection, or it could not be made. Try again."""


class LinkSilent(LinkLost):
    """Nothing was heard of the other device for too long."""

    reason = Reason.SILENT


class LinkStalled(LinkLost):
    """The other device takes nothing, or not fast enough: what was to be sent has no room."""

    reason = Reason.STALLED


class LinkBroken(LinkError):
    """The other side does not keep to the protocol: another program, a damaged one, or an attack."""

    reason = Reason.WRONG_MESSAGE


class LinkRefused(LinkError):
    """This device does not want the other one, for the `reason` given; the link never came up."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class LinkClosed(LinkError):
    """The link was closed for the `reason` given, from here (`by_us`) or from there."""

    def __init__(self, reason: Reason, *, by_us: bool) -> None:
        super().__init__("the link was closed on this device" if by_us else reason.text)
        self.reason = reason
        self.by_us = by_us


class Purpose(Enum):
    """What a connection is for: its first twelve bytes."""

    LINK = b"atop link 1\n"
    PAIRING = b"atop pair 1\n"


PREAMBLE_BYTES: Final = 12

LINGER_SECONDS: Final = 0.5
"""How long a device that is refused may take to read why."""


@dataclass(frozen=True)
class Credentials:
    """Who this device is, and whom it accepts.

    `accept(public_key)` says whether the device with this key is a member; `is_removed(public_key)` whether it was
    one once, so that it can be told. Both are called from many threads, at the time of the handshake. `run` tells
    two runs of a program with one identity apart.
    """

    identity: Identity
    name: str
    group_id: bytes = field(repr=False)
    accept: Callable[[bytes], bool]
    is_removed: Callable[[bytes], bool] = lambda public_key: False
    told_removed: Callable[[bytes], None] = lambda public_key: None
    run: bytes = field(default_factory=lambda: secrets.token_bytes(16), repr=False)

    def __post_init__(self) -> None:
        if len(self.group_id) < MIN_GROUP_BYTES:
            raise ValueError(f"a group id has at least {MIN_GROUP_BYTES} bytes")

    @property
    def prologue(self) -> bytes:
        """What both sides of a handshake must agree on beforehand."""
        return Purpose.LINK.value + self.group_id

    def hello(self) -> Hello:
        """How this device greets."""
        return Hello(PROTOCOL_VERSION, OLDEST_VERSION, self.name, self.identity.device_id.digest, self.run)


@dataclass(frozen=True, eq=False)
class Introduced:
    """A connection whose two ends have greeted; what a `Link` is made of, once. Nothing of it can be copied."""

    sock: socket.socket = field(repr=False)
    sealer: Sealer = field(repr=False)
    opener: Opener = field(repr=False)
    initiator: bool
    public_key: bytes = field(repr=False)
    hello: Hello
    version: int
    decides: bool  # whether this device is the one that sends READY
    handshake_hash: bytes = field(repr=False)

    @property
    def device_id(self) -> DeviceId:
        """The other device."""
        return DeviceId.from_public_key(self.public_key)

    def send_ready(self, number: int) -> None:
        """Say that this is the link to use. Raises LinkLost."""
        self._send(self.sealer.seal_alone(encode(Ready(number))))

    def wait_ready(self, deadline: float) -> int:
        """Wait for the other side to say so; return its number. Raises LinkLost, LinkBroken, LinkClosed."""
        with _translated():
            message = receive_one(self.sock, self.opener, deadline, greeted=True).message
            if type(message) is not Ready:
                raise LinkBroken(f"the other device sent a {type(message).__name__} where READY belongs")
            return message.number

    def refuse(self, reason: Reason) -> None:
        """Tell the other side why not, and close."""
        with contextlib.suppress(LinkError):
            self._send(self.sealer.seal_alone(encode(Goodbye(reason))))
        close_politely(self.sock, LINGER_SECONDS)

    def _send(self, data: bytes) -> None:
        with _translated():
            self.sock.sendall(data)


def introduce(sock: socket.socket, credentials: Credentials, *, initiator: bool, deadline: float) -> Introduced:
    """Take a fresh connection through the steps; for a responder, `receive_purpose` has been called before.

    `deadline` is a time of `time.monotonic`. Raises LinkError's family, having closed the connection.
    """
    try:
        with _translated():
            return _introduce(sock, credentials, initiator, deadline)
    except BaseException as error:
        close_politely(sock, LINGER_SECONDS if isinstance(error, LinkRefused) else 0.0)
        raise


def _introduce(sock: socket.socket, credentials: Credentials, initiator: bool, deadline: float) -> Introduced:
    noise = HandshakeState(initiator, credentials.identity.private_key, credentials.prologue)
    set_deadline(sock, deadline)
    if initiator:
        sock.sendall(Purpose.LINK.value + _framed(noise.write_message()))
        noise.read_message(_receive_exactly(sock, _SIZES[1], deadline))
        refusal = refusal_of(credentials, noise.remote_static_public_key)
        if refusal not in (None, Reason.REMOVED):
            raise _refused(refusal, noise.remote_static_public_key)  # it does not learn who asked
        third = _framed(noise.write_message())
    else:
        noise.read_message(_receive_exactly(sock, _SIZES[0], deadline))
        sock.sendall(_framed(noise.write_message()))
        noise.read_message(_receive_exactly(sock, _SIZES[2], deadline))
        refusal = refusal_of(credentials, noise.remote_static_public_key)
        third = b""
    public_key, handshake_hash = noise.remote_static_public_key, noise.handshake_hash
    send, receive = noise.split()
    sealer, opener = Sealer(send), Opener(receive, {Lane.URGENT: MAX_FIRST_BODY_BYTES})
    if refusal is not None:
        sock.sendall(third + sealer.seal_alone(encode(Goodbye(refusal))))
        raise _refused(refusal, public_key)

    ours = credentials.hello()
    sock.sendall(third + sealer.seal_alone(encode(ours)))
    try:
        theirs = receive_one(sock, opener, deadline, greeted=False).message
    except LinkClosed as closed:
        if closed.reason is Reason.REMOVED:
            credentials.told_removed(public_key)
        raise
    other = DeviceId.from_public_key(public_key)
    if type(theirs) is not Hello:
        raise LinkBroken(f"device {other.short} sent a {type(theirs).__name__} where HELLO belongs")
    version = agreed_version(ours, theirs)
    if version is None:
        sock.sendall(sealer.seal_alone(encode(Goodbye(Reason.VERSION))))
        raise LinkRefused(
            Reason.VERSION,
            f"device {other.short} speaks versions {theirs.oldest} to {theirs.version} of the protocol, this one "
            f"{ours.oldest} to {ours.version}: update Atop on the older one",
        )
    if theirs.device_id != other.digest:
        raise LinkBroken(f"device {other.short} greets with an id that is not its own")
    decides = credentials.identity.device_id < other
    return Introduced(sock, sealer, opener, initiator, public_key, theirs, version, decides, handshake_hash)


def refusal_of(credentials: Credentials, public_key: bytes) -> Reason | None:
    """Why the device with this key is not wanted; None if it is."""
    if public_key == credentials.identity.public_key:
        return Reason.SAME_DEVICE
    if credentials.is_removed(public_key):
        return Reason.REMOVED
    return None if credentials.accept(public_key) else Reason.NOT_A_MEMBER


def _refused(reason: Reason | None, public_key: bytes) -> LinkRefused:
    other = DeviceId.from_public_key(public_key).short
    text = {
        Reason.SAME_DEVICE: "the address leads back to this device, or to a copy of its identity",
        Reason.REMOVED: f"device {other} was removed from the group, and was told so",
    }
    return LinkRefused(
        reason or Reason.OTHER,
        text.get(reason or Reason.OTHER, f"device {other} is not a member of this group: pair it to make it one"),
    )


# -- bytes ----------------------------------------------------------------------------------------------------


def receive_purpose(sock: socket.socket, deadline: float) -> Purpose:
    """What a connection is for. Raises LinkLost, LinkBroken."""
    with _translated():
        preamble = _receive(sock, PREAMBLE_BYTES, deadline)
        try:
            return Purpose(preamble)
        except ValueError:
            raise LinkBroken("something that is not Atop, or of another version, has connected") from None


def receive_one(sock: socket.socket, opener: Opener, deadline: float, *, greeted: bool) -> Incoming:
    """The one message of the next frame. Raises what `_translated` translates, and LinkClosed for a GOODBYE."""
    header = _receive(sock, LENGTH_BYTES, deadline)
    frame = _receive(sock, frame_length(header), deadline)
    bodies, _ = opener.open(memoryview(header + frame))
    if len(bodies) != 1:
        raise LinkBroken("the first frames of a link must hold one message each")
    incoming = judge(bodies[0], greeted=greeted)
    if type(incoming.message) is Goodbye:
        raise LinkClosed(incoming.message.known_reason, by_us=False)
    return incoming


def _framed(message: bytes) -> bytes:
    return len(message).to_bytes(LENGTH_BYTES) + message


def _receive_exactly(sock: socket.socket, size: int, deadline: float) -> bytes:
    header = _receive(sock, LENGTH_BYTES, deadline)
    if int.from_bytes(header) != size:
        raise LinkBroken(f"a handshake message of {int.from_bytes(header):,} bytes came where {size} belong")
    return _receive(sock, size, deadline)


def _receive(sock: socket.socket, size: int, deadline: float) -> bytes:
    data = bytearray()
    while len(data) < size:
        set_deadline(sock, deadline)
        part = sock.recv(size - len(data))
        if not part:
            raise LinkLost("the other side closed the connection before the link was up")
        data += part
    return bytes(data)


def set_deadline(sock: socket.socket, deadline: float) -> None:
    """Let the next call on the socket end by then. Raises TimeoutError if it is past."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    sock.settimeout(left)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except TimeoutError:
        raise LinkSilent("the other side did not finish the handshake in time") from None
    except OSError as error:
        raise LinkLost(f"the connection ended before the link was up: {error.strerror or error}") from None
    except NoiseError:
        raise LinkBroken(
            "the handshake failed: the other side is of another group, or what it sent was changed on the way"
        ) from None
    except MessageRefused as error:
        raise LinkBroken(f"the other side sent what does not belong in a handshake: {error}") from None
