"""Splits mailboxes into the octets of one message after the other, in bounded memory.

Reads mbox files of all kinds (mboxo, mboxrd, mboxcl, those of Thunderbird and of Google Takeout), maildir folders and
single messages. A message that is too large is given as a `Broken`, and the next one is read as if nothing had
happened. Folders are read where they are; symbolic links in them are not followed, and nothing is moved or marked.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from atop.pim.incoming import MAX_RECORD_BYTES, MAX_RECORD_LINES, Broken

# "From ", the sender, and a date as asctime writes it, perhaps with the zone; in Thunderbird's, "From - " and the date.
_ENVELOPE = re.compile(
    rb"From (?:.{1,500} )??(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun),? +"
    rb"(?:[A-Z][a-z]{2} +\d{1,2}|\d{1,2} +[A-Z][a-z]{2})\b.{0,80}\d\d:\d\d"
)
_HEADER = re.compile(rb"[!-9;-~]{1,80}[ \t]*:")
_QUOTED_FROM = re.compile(rb"^>(>*From )", re.MULTILINE)

# The flags of maildir file names (the letters after ":2,"), and of the Status headers of mbox files.
MAILDIR_FLAGS = {"S": "seen", "R": "answered", "F": "flagged", "D": "draft", "T": "deleted", "P": "forwarded"}


class RawMessage(NamedTuple):
    """The octets of a message, where it begins, and what the mailbox says of it."""

    octets: bytes
    line: int
    flags: tuple[str, ...] = ()


def read_mbox(lines: Iterable[bytes | None], max_bytes: int = MAX_RECORD_BYTES) -> Iterator[RawMessage | Broken]:
    """The messages of an mbox file, in order, their quoting of "From " undone."""
    splitter = _Mbox(max_bytes)
    number = 0
    for number, line in enumerate(lines, 1):
        yield from splitter.add(number, line)
    yield from splitter.finish()


class _Mbox:
    """Where the reader of an mbox file is.

    A message begins at a "From " line that has the form of an envelope; after the blank line that should come before
    it, or where header fields follow. In a file whose first such line has another form (Eudora), it is any "From "
    that comes after a blank line and before a header field.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._lines: list[bytes] = []
        self._line = 0
        self._size = 0
        self._is_too_large = False
        self._candidate: bytes | None = None  # a "From " line, until the next line shows what it is
        self._after_blank = True
        self._is_strict: bool | None = None  # the envelopes of this file have the usual form; None: none seen yet

    def add(self, number: int, line: bytes | None) -> Iterator[RawMessage | Broken]:
        """The next line; gives a message when the one after it begins."""
        if self._candidate is not None:
            candidate, self._candidate = self._candidate, None
            if self._is_envelope(candidate, line):
                yield from self.finish()
                self._line = number - 1
            else:
                self._keep(candidate)
                self._after_blank = False
        if line is not None and line.startswith(b"From "):
            self._candidate = line
        else:
            self._keep(line, number)
            self._after_blank = line is not None and not line.strip(b"\r\n")

    def _is_envelope(self, candidate: bytes, following: bytes | None) -> bool:
        before_header = following is not None and _HEADER.match(following) is not None
        strict = _ENVELOPE.match(candidate) is not None
        if self._is_strict is None:
            self._is_strict = strict
            return True
        if self._is_strict:
            return strict and (self._after_blank or before_header)
        return self._after_blank and before_header

    def _keep(self, line: bytes | None, number: int = 0) -> None:
        self._line = self._line or number
        self._size += self._max_bytes if line is None else len(line)
        if line is None or self._size > self._max_bytes or len(self._lines) >= MAX_RECORD_LINES:
            self._is_too_large = True
            self._lines.clear()
        elif not self._is_too_large:
            self._lines.append(line)

    def finish(self) -> Iterator[RawMessage | Broken]:
        """The message that was read last."""
        if self._candidate is not None:
            candidate, self._candidate = self._candidate, None
            self._keep(candidate)
        if self._is_too_large:
            yield Broken(self._line, f"is larger than {self._max_bytes >> 20} MiB, or has a line that is too long")
        elif any(line.strip() for line in self._lines):
            octets = b"".join(self._lines)
            if b"\n>" in octets:
                octets = _QUOTED_FROM.sub(rb"\1", octets)
            yield RawMessage(octets.removesuffix(b"\n").removesuffix(b"\r"), self._line)
        self._lines = []
        self._line = self._size = 0
        self._is_too_large = False
        self._after_blank = False


def is_maildir(path: Path) -> bool:
    """Whether a folder is a maildir: it has `cur` and `new`."""
    return (path / "cur").is_dir() and (path / "new").is_dir()


def maildir_files(path: Path) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """The files of the messages of a maildir, not of its subfolders, with their flags; in no certain order."""
    for name in ("new", "cur"):
        with os.scandir(path / name) as entries:
            for entry in entries:
                if entry.is_file(follow_symlinks=False) and not entry.name.startswith("."):
                    yield Path(entry.path), _flags_of(entry.name)


def _flags_of(name: str) -> tuple[str, ...]:
    letters = re.split(r"[:;!]2,", name)[-1] if re.search(r"[:;!]2,", name) else ""
    return tuple(sorted(flag for letter, flag in MAILDIR_FLAGS.items() if letter in letters))


def read_message_file(path: Path, max_bytes: int = MAX_RECORD_BYTES) -> RawMessage | Broken:
    """The message that a file holds."""
    with path.open("rb") as stream:
        octets = stream.read(max_bytes + 1)
    if len(octets) > max_bytes:
        return Broken(1, f"is larger than {max_bytes >> 20} MiB")
    if not octets.strip():
        return Broken(1, "is empty")
    if octets.startswith(b"From "):  # a single message saved with its envelope
        octets = octets.partition(b"\n")[2]
    return RawMessage(octets, 1)
