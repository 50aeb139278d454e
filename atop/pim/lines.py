"""Reads files of any size line by line in bounded memory.

Promises: no more than `max_line` bytes of a line are held, whatever the file contains; lines are
numbered from 1 as a text editor numbers them; UTF-16, UTF-32 and a byte order mark are turned into plain
UTF-8, and the lone carriage returns of old Macs into line feeds.
Never opens a path that comes from the data, and never guesses a legacy 8-bit encoding: lines of those are
passed on as they are, since the record they belong to may name its encoding.
"""

from __future__ import annotations

import codecs
import contextlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

# Longest line kept, in bytes. Some programs write a photograph as one unfolded line of base64.
MAX_LINE_BYTES = 24 * 1024 * 1024

# Bytes read ahead to find out what a file is.
SNIFF_BYTES = 64 * 1024

# Bytes transcoded at a time.
CHUNK_BYTES = 256 * 1024

# Lines between two calls of what watches the reading: a fraction of a second's work.
WATCH_LINES = 1_000

# Codecs of Python that are no charsets of files, and take long or give what was not written.
NOT_CHARSETS = frozenset({"idna", "punycode", "unicode_escape", "raw_unicode_escape"})

Watch = Callable[[int], None]

BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark is the beginning of this one
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def sniff_encoding(start: bytes) -> str | None:
    """The Unicode encoding that the first bytes of a file show, or None for UTF-8 and 8-bit encodings."""
    for mark, name in BYTE_ORDER_MARKS:
        if start.startswith(mark):
            return name
    if len(start) >= 4 and start[1] == 0 and start[3] == 0 and start[0] and start[2]:
        return "utf-16-le"
    if len(start) >= 4 and start[0] == 0 and start[2] == 0 and start[1] and start[3]:
        return "utf-16-be"
    return None


class _Translated(io.RawIOBase):
    """A binary stream that gives the bytes of another one, passed chunk by chunk through a function."""

    def __init__(self, source: BinaryIO, translate: Callable[[bytes, bool], bytes]) -> None:
        self._source = source
        self._translate = translate
        self._pending = b""
        self._at_end = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]  # typeshed has no common buffer type in 3.11
        while not self._pending and not self._at_end:
            chunk = self._source.read(CHUNK_BYTES)
            self._at_end = not chunk
            self._pending = self._translate(chunk, self._at_end)
        count = min(len(view), len(self._pending))
        view[:count] = self._pending[:count]
        self._pending = self._pending[count:]
        return count

    def close(self) -> None:
        if not self.closed:
            self._source.close()
        super().close()


def _to_utf8(encoding: str) -> Callable[[bytes, bool], bytes]:
    decoder = codecs.getincrementaldecoder(encoding)(errors="replace")
    return lambda chunk, final: decoder.decode(chunk, final).encode("utf-8", "replace")


def _carriage_returns_to_line_feeds(chunk: bytes, _final: bool) -> bytes:
    return chunk.replace(b"\r", b"\n")


def read_lines(stream: BinaryIO, max_line: int = MAX_LINE_BYTES) -> Iterator[bytes | None]:
    """The lines of a stream, each with its line feed; None stands for one that is longer than `max_line`."""
    readline = stream.readline
    while line := readline(max_line):
        if len(line) == max_line and not line.endswith(b"\n"):
            while rest := readline(CHUNK_BYTES):
                if rest.endswith(b"\n"):
                    break
            yield None
        else:
            yield line


class LineFile:
    """A file, read line by line once: iterate over it. Its encoding is UTF-8 or an 8-bit one, as far as lines show.

    `watch` is called now and then with the position in the file, in bytes.
    """

    def __init__(self, path: Path, watch: Watch | None = None, max_line: int = MAX_LINE_BYTES) -> None:
        """Open the file. Raises OSError."""
        self._raw = path.open("rb")
        self._stream: BinaryIO = self._raw
        self._watch = watch
        self._max_line = max_line
        try:
            self._find_encoding()
        except BaseException:
            self._raw.close()
            raise

    def _find_encoding(self) -> None:
        start = self._raw.read(SNIFF_BYTES)
        self._raw.seek(0)
        encoding = sniff_encoding(start)
        if encoding == "utf-8-sig":
            self._raw.seek(len(codecs.BOM_UTF8))
        elif encoding is not None:
            self._stream = io.BufferedReader(_Translated(self._raw, _to_utf8(encoding)), CHUNK_BYTES)
        elif b"\r" in start and b"\n" not in start:
            self._stream = io.BufferedReader(_Translated(self._raw, _carriage_returns_to_line_feeds), CHUNK_BYTES)

    def __iter__(self) -> Iterator[bytes | None]:
        if self._watch is None:
            yield from read_lines(self._stream, self._max_line)
            return
        for number, line in enumerate(read_lines(self._stream, self._max_line)):
            if number % WATCH_LINES == 0:
                self._watch(self._raw.tell())
            yield line

    def __enter__(self) -> LineFile:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stream.close()


def decode(data: bytes, charset: str | None = None) -> str:
    """Text of bytes in a declared or unknown encoding; never fails.

    Tries the declared charset, then UTF-8, then Windows-1252, which is what programs of its time wrote when
    they named nothing; what no character stands for becomes U+FFFD.
    """
    for name in (charset, "utf-8", "cp1252"):
        if name and name.lower().replace("-", "_") not in NOT_CHARSETS:
            with contextlib.suppress(LookupError, ValueError):  # unknown charset, or bytes that it does not allow
                return data.decode(name)  # which refuses codecs that are none of text, such as "zlib"
    return data.decode("utf-8", "replace")
