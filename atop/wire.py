"""The protocol between the process that owns a store and those that are attached to it: frames, byte for byte.

A stream socket in the store's `local/` carries frames, all numbers big-endian:

    u32  length of what follows, at most MAX_FRAME; MAX_HELLO for the first frame
    u8   kind
    ...  body

The first frame comes from the attached process: HELLO, whose body is `MAGIC`, a u16, the version of the protocol, and 8
bytes that are the same for all connections of one attached store.
The answer is OK with a welcome (see below), or REFUSED with a text, and the end. From then on the attached process
asks, one question at a time on each connection, and the owner answers.

The body of a question is a u64, the position up to which the asker knows of changes, and a *list*. The body of OK and
of ERROR is *news* and a list; that of PROGRESS, of which any number may come before the answer, a list. A list is

    u32      n, its length
    n x u32  the length of each element; ABSENT (2**32 - 1) for one that is not there
    ...      the elements, one after the other

and holds bytes, or None; what the elements are, and how numbers are packed in them, stands in `KINDS` below. News is

    u64      position: counts the commits that the owner knows of, from some number on
    u64      number of the last commit
    u64      number of the last commit that will outlive a crash
    u64      time of the last commit, in microseconds of the hybrid clock
    32 bytes chain value over all commits
    u8       1: whatever the asker knows may be wrong; 0: it is right but for these
    u32      n
    n x u64  ids of the items that were changed between the asker's position and this one

An answer is exactly the state at its position: no commit is in it in part, and none beyond it.

Never: a pickle of anything but plain values (`ask`, and the records of items, which are loaded by `records`), memory
for more bytes than have arrived.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

MAGIC: Final = b"ATOP attach\n"
VERSION: Final = 1

# The longest frame: a commit of 1,000,000 operations of a usual size. And the longest one from a stranger.
MAX_FRAME: Final = 1 << 30
MAX_HELLO: Final = 64
ABSENT: Final = (1 << 32) - 1
# Bytes read at once; most frames take one call.
CHUNK: Final = 1 << 16

# Kinds of frames, and the lists in them: what is asked for, and what OK brings. Keys and values are as in the tables.
HELLO = 1
GET = 2  # [table, key] -> [value]
GET_ITEMS = 3  # [id and version known (2 u64), ...] -> [record | empty: as known | None: no such item, ...]
# No more than MAX_PAIRS in one answer, and fewer where the values are large: the rest is asked for again.
PAIRS = 4  # [table, start, stop, limit u32 and flags u8] -> [key, value, ...], or [key, ...]
POSITION = 5  # [table, key] -> [f64]
CHECK = 6  # [versions (n x 2 u64), name, item id u64 | None, ...] -> []
COMMIT = 7  # a WriteSet, see `passing` -> [commit number u64]
WAIT = 8  # [number known to outlive a crash u64, milliseconds u32] -> [], when there is news, or it is late
LEASE = 9  # [what, count u32] -> [first u64, end u64]: numbers for items ("items") or commits ("commits")
RETURN = 10  # [what, first u64, end u64] -> []: numbers that were not used
ASK = 11  # [name, arguments as a pickle of plain values] -> [result likewise]
OK = 128
ERROR = 129  # [class, text, fields as a pickle of plain values]
PROGRESS = 130  # [pickle of plain values]
REFUSED = 131

# Flags of PAIRS.
REVERSE, KEYS_ONLY = 1, 2
MAX_PAIRS: Final = 1 << 14

_frame = struct.Struct(">IB")
_news = struct.Struct(">QQQQ32sBI")
_hello = struct.Struct(f">{len(MAGIC)}sH8s")


class WireError(Exception):
    """The other side does not keep to the protocol, or has gone."""


class News(NamedTuple):
    """What has happened since the asker's position."""

    position: int
    number: int
    settled: int
    time: int
    chain: bytes
    forget: bool  # whether all that the asker knows may be wrong
    changed: Sequence[int]  # ids of items


def pack_list(elements: Sequence[bytes | None]) -> bytes:
    """A list, as above."""
    lengths = [ABSENT if element is None else len(element) for element in elements]
    return b"".join(
        [struct.pack(f">I{len(lengths)}I", len(lengths), *lengths), *[e for e in elements if e is not None]]
    )


def unpack_list(data: bytes, at: int = 0) -> list[bytes | None]:
    """The elements of the list that `data` ends with. Raises `WireError` if it is none."""
    try:
        (count,) = struct.unpack_from(">I", data, at)
        if 4 * count > len(data) - at - 4:
            raise WireError("a list is longer than its frame")
        lengths = struct.unpack_from(f">{count}I", data, at + 4)
    except struct.error as error:
        raise WireError("a frame ends within a list") from error
    at += 4 + 4 * count
    found: list[bytes | None] = []
    for length in lengths:
        if length == ABSENT:
            found.append(None)
        else:
            found.append(data[at : at + length])
            at += length
    if at != len(data):
        raise WireError("a list does not fill its frame")
    return found


def present(elements: Sequence[bytes | None], count: int | None = None) -> list[bytes]:
    """A list none of whose elements may be None, nor their number another than `count`. Raises `WireError`."""
    if None in elements or (count is not None and len(elements) != count):
        raise WireError("a list is not what its kind of frame has")
    return elements  # type: ignore[return-value]  # None is not in it


def pack_news(news: News) -> bytes:
    """News, as above."""
    changed = news.changed
    return _news.pack(*news[:5], news.forget, len(changed)) + (
        struct.pack(f">{len(changed)}Q", *changed) if changed else b""
    )


def unpack_news(data: bytes) -> tuple[News, int]:
    """The news that `data` begins with, and where it ends. Raises `WireError`."""
    try:
        position, number, settled, time, chain, forget, count = _news.unpack_from(data)
        end = _news.size + 8 * count
        changed = struct.unpack_from(f">{count}Q", data, _news.size) if count and end <= len(data) else ()
    except struct.error as error:
        raise WireError("an answer is too short") from error
    if len(changed) != count:
        raise WireError("an answer ends within its news")
    return News(position, number, settled, time, chain, bool(forget), changed), end


def pack_hello(asker: bytes) -> bytes:
    """The body of a HELLO."""
    return _hello.pack(MAGIC, VERSION, asker)


def unpack_hello(body: bytes) -> tuple[int, bytes]:
    """The version that a HELLO speaks, and who says it. Raises `WireError`."""
    if len(body) < _hello.size or not body.startswith(MAGIC):
        raise WireError("the first frame is no hello")
    _, version, asker = _hello.unpack_from(body)
    return version, asker


class Channel:
    """One end of a connection. For one thread at a time; `close` may be called by any."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._rest = b""  # what has arrived beyond the last frame

    def send(self, kind: int, *parts: bytes) -> None:
        """Send one frame. Raises `WireError` if it is too long, OSError if the other side has gone."""
        length = 1 + sum(map(len, parts))
        if length > MAX_FRAME:
            raise WireError(f"a message of {length:,} bytes is too long")
        self._socket.sendall(b"".join((_frame.pack(length, kind), *parts)))

    def receive(self, longest: int = MAX_FRAME, waiting: Callable[[], None] | None = None) -> tuple[int, bytes]:
        """The kind and the body of the next frame.

        Where the socket has a timeout, `waiting` is called whenever nothing has come for so long.

        Raises:
            EOFError: the other side has closed the connection.
            OSError: it has gone.
            WireError: it sends what is no frame.
        """
        data = self._rest or self._read(CHUNK, waiting)
        while len(data) < 5:
            data += self._read(CHUNK, waiting)
        length, kind = _frame.unpack_from(data)
        if not 1 <= length <= longest:
            raise WireError(f"a frame says that it has {length:,} bytes")
        end = 4 + length
        if len(data) < end:
            whole = bytearray(data)
            while len(whole) < end:
                whole += self._read(min(1 << 20, max(CHUNK, end - len(whole))), waiting)
            data = bytes(whole)
        self._rest = data[end:]
        return kind, data[5:end]

    def _read(self, most: int, waiting: Callable[[], None] | None) -> bytes:
        while True:
            try:
                data = self._socket.recv(most)
            except TimeoutError:
                if waiting is None:
                    raise
                waiting()
                continue
            if not data:
                raise EOFError("the other side has closed the connection")
            return data

    def set_timeout(self, seconds: float | None) -> None:
        """How long a call may wait for the other side."""
        self._socket.settimeout(seconds)

    def finish(self) -> None:
        """Read nothing more, from any thread; what is being answered may still be."""
        with contextlib.suppress(OSError):  # it has gone already
            self._socket.shutdown(socket.SHUT_RD)

    def break_off(self) -> None:
        """End the connection, from any thread: whoever waits for it gets EOFError or OSError."""
        with contextlib.suppress(OSError):  # it has gone already
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Give the connection up. Also in a forked child, whose parent keeps it."""
        self._socket.close()
