"""Messages into encrypted frames and back: what is on the wire after the handshake. Pure: no socket, no clock.

    frame       length (u16, big-endian) of what follows, then the ciphertext of one Noise message
    plaintext   lane (1 byte), then bytes of that lane's stream
    stream      for each message its length (u32, big-endian) and its body (see `messages`)

There are three lanes, so that an answer need not wait behind a hundred megabytes of log, nor the log behind contents
of files. Messages of a lane arrive in the order in which they were sent; between the lanes there is no order. A frame
may hold many messages, and a message may go over many frames; a length is never cut in two. Each side changes the key
of its direction after every `REKEY_FRAMES` frames, and the other side follows by counting.

What it promises: a frame that was altered, cut, repeated, left out or reordered is refused, and nothing after it is
read. No more than a lane's limit is ever held of a message that is not complete, and no memory is set aside because
a length says so. One thread at a time for each direction.
"""

from __future__ import annotations

import struct
from collections import deque
from enum import IntEnum
from typing import Final

from .messages import FILE_CHUNK_BYTES, MAX_BODY_BYTES, MAX_SMALL_BODY_BYTES, MessageRefused
from .noise import MAX_PLAINTEXT_BYTES, TAG_BYTES, CipherState, Readable

LENGTH_BYTES: Final = 2
"""What goes before each frame."""

MIN_FRAME_BYTES: Final = TAG_BYTES + 2
"""A lane and a byte for it: shorter frames have no use."""

REKEY_FRAMES: Final = 1 << 16
"""At most 4 GiB under one key. Part of the protocol: both sides count."""

MAX_FIRST_BODY_BYTES: Final = 1 << 10
"""The longest message before the link is open: HELLO, with room."""

ROUTE_BYTES: Final = 80
"""Room for what goes before a message's fields, above the limits of `messages`."""

PASSED_OVER: Final = 16
"""So many times frames are taken of the other lanes alone; then one frame of a file goes too, so that it gets there."""

_length = struct.Struct(">H")
_message_length = struct.Struct(">I")


class Lane(IntEnum):
    """URGENT goes first and takes small messages only. FILES goes when nothing else waits, or has waited for long."""

    URGENT = 0
    BULK = 1
    FILES = 2


LIMITS: Final = {
    Lane.URGENT: MAX_SMALL_BODY_BYTES + ROUTE_BYTES,
    Lane.BULK: MAX_BODY_BYTES + ROUTE_BYTES,
    Lane.FILES: FILE_CHUNK_BYTES + ROUTE_BYTES,
}
"""Bytes of the longest message in each lane."""


def lane_for(body: bytes) -> Lane:
    """The lane for a message that need not keep an order with others: short ones are urgent."""
    return Lane.URGENT if len(body) <= LIMITS[Lane.URGENT] else Lane.BULK


class Outbox:
    """Messages that wait to be sent, and the plaintexts of frames made of them. Not for two threads at once."""

    def __init__(self) -> None:
        self._lanes: tuple[deque[bytes], deque[bytes], deque[bytes]] = (deque(), deque(), deque())
        self._begun = [0, 0, 0]  # bytes of each lane's first message that are in frames already
        self.waiting = [0, 0, 0]  # bytes of each lane that are in no frame yet, without their lengths
        self._passed_over = 0  # how often the files' lane had something, and nothing of it was taken

    def __bool__(self) -> bool:
        return any(self._lanes)

    def append(self, lane: Lane, body: bytes) -> None:
        """Put a message at the end of a lane."""
        self._lanes[lane].append(body)
        self.waiting[lane] += len(body)

    def forget(self) -> None:
        """Forget what is not on its way yet; an urgent message of which a part has gone still goes.

        Nothing may be appended to the other lanes afterwards, of which a message may have been cut.
        """
        urgent, bulk, files = self._lanes
        bulk.clear()
        files.clear()
        while len(urgent) > (self._begun[Lane.URGENT] > 0):
            urgent.pop()

    def take(self, frames: int) -> list[bytes]:
        """The plaintexts of the next frames, at most so many (2 or more): urgent ones first, but not all of them."""
        plaintexts: list[bytes] = []
        files = self._lanes[Lane.FILES]
        overdue = bool(files) and self._passed_over >= PASSED_OVER
        frames -= overdue
        for lane in (Lane.URGENT, Lane.BULK):
            most = frames - 1 if lane is Lane.URGENT and self._lanes[Lane.BULK] else frames
            while self._lanes[lane] and len(plaintexts) < most:
                plaintexts.append(self._take_frame(lane))
        if files and plaintexts and not overdue:
            self._passed_over += 1
            return plaintexts
        most = 1 if plaintexts else frames + overdue
        self._passed_over = 0
        while files and most:
            plaintexts.append(self._take_frame(Lane.FILES))
            most -= 1
        return plaintexts

    def _take_frame(self, lane: Lane) -> bytes:
        queue, begun = self._lanes[lane], self._begun[lane]
        parts: list[bytes | memoryview] = [bytes((lane,))]
        room = MAX_PLAINTEXT_BYTES - 1
        while queue and room > _message_length.size:
            body = queue[0]
            if not begun:
                parts.append(_message_length.pack(len(body)))
                room -= _message_length.size
            rest = len(body) - begun
            if rest > room:
                parts.append(memoryview(body)[begun : begun + room])
                begun += room
                self.waiting[lane] -= room
                break
            parts.append(memoryview(body)[begun:] if begun else body)
            room -= rest
            self.waiting[lane] -= rest
            begun = 0
            queue.popleft()
        self._begun[lane] = begun
        return b"".join(parts)


class Sealer:
    """Encrypts frames, in order."""

    def __init__(self, cipher: CipherState, rekey_frames: int = REKEY_FRAMES) -> None:
        self._cipher = cipher
        self._rekey_frames = rekey_frames
        self.frames = 0

    def seal(self, plaintexts: list[bytes]) -> bytes:
        """The bytes to send for these plaintexts, one frame each."""
        parts: list[bytes] = []
        for plaintext in plaintexts:
            parts += (_length.pack(len(plaintext) + TAG_BYTES), self._cipher.encrypt(b"", plaintext))
            self.frames += 1
            if self.frames % self._rekey_frames == 0:
                self._cipher.rekey()
        return b"".join(parts)

    def seal_alone(self, body: bytes) -> bytes:
        """The bytes to send for one short message in a frame of its own."""
        return self.seal([bytes((Lane.URGENT,)) + _message_length.pack(len(body)) + body])


class Opener:
    """Decrypts frames, in order, and puts the messages together. `limits`: the longest message of each lane."""

    def __init__(
        self, cipher: CipherState, limits: dict[Lane, int] | None = None, rekey_frames: int = REKEY_FRAMES
    ) -> None:
        self.limits = LIMITS if limits is None else limits
        self._cipher = cipher
        self._rekey_frames = rekey_frames
        self._partial: dict[int, _Partial] = {}
        self.frames = 0

    def open(self, data: memoryview) -> tuple[list[Readable], int]:
        """The bodies of the messages that are complete with `data`, and how many bytes of it were used.

        The rest is the beginning of a frame: give it again, with what follows. Raises NoiseRefused and
        MessageRefused; the stream is over then.
        """
        bodies: list[Readable] = []
        position = 0
        while len(data) - position >= LENGTH_BYTES:
            length = frame_length(data[position : position + LENGTH_BYTES])
            start = position + LENGTH_BYTES
            if start + length > len(data):
                break
            self._take(self._cipher.decrypt(b"", data[start : start + length]), bodies)
            position = start + length
            self.frames += 1
            if self.frames % self._rekey_frames == 0:
                self._cipher.rekey()
        return bodies, position

    def _take(self, plaintext: bytes, bodies: list[Readable]) -> None:
        lane = plaintext[0]
        limit = self.limits.get(Lane(lane)) if lane <= Lane.FILES else None
        if limit is None:
            raise MessageRefused(f"a frame for lane {lane}, which there is not")
        view, position = memoryview(plaintext), 1
        partial = self._partial.pop(lane, None)
        if partial is not None:
            position += partial.add(view[1:])
            if partial.missing:
                self._partial[lane] = partial
                return
            bodies.append(partial.data)
        while position < len(view):
            if len(view) - position < _message_length.size:
                raise MessageRefused("a frame ends within the length of a message")
            (length,) = _message_length.unpack_from(view, position)
            position += _message_length.size
            if not 0 < length <= limit:
                raise MessageRefused(f"a message of {length:,} bytes, in a lane for 1 to {limit:,}")
            if position + length > len(view):
                partial = self._partial[lane] = _Partial(length)
                partial.add(view[position:])
                return
            bodies.append(view[position : position + length])
            position += length


class _Partial:
    """The beginning of a message. Holds what came, and not what its length promises."""

    __slots__ = ("data", "missing")

    def __init__(self, length: int) -> None:
        self.missing = length
        self.data = bytearray()

    def add(self, data: memoryview) -> int:
        """Take what belongs to the message; return how many bytes that was."""
        part = data[: self.missing]
        self.data += part
        self.missing -= len(part)
        return len(part)


def frame_length(header: memoryview | bytes) -> int:
    """The length of the frame that begins with these two bytes. Raises MessageRefused for one that is too short."""
    (length,) = _length.unpack(header)
    if length < MIN_FRAME_BYTES:
        raise MessageRefused(f"a frame of {length} bytes is shorter than any there is")
    return int(length)
