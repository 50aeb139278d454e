"""Reads the rows of CSV files of any size, dialect and encoding, in bounded memory.

The delimiter is found by looking: Excel writes semicolons in half of Europe, tabs for "Unicode text". A row whose
quotes are never closed is reported at its line, and reading goes on at the line after it.
"""

from __future__ import annotations

import csv
import threading
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from atop.pim.incoming import Broken
from atop.pim.lines import decode

# Most bytes and lines of one row: a cell may hold a letter, but not a library.
MAX_ROW_BYTES = 16 * 1024 * 1024
MAX_ROW_LINES = 100_000

# Most columns: what Excel has.
MAX_COLUMNS = 16_384

DELIMITERS = ",;\t|"

_limit_lock = threading.Lock()


class Row(NamedTuple):
    """One row: the line where it begins, and its cells."""

    line: int
    cells: list[str]


class _RowTooLarge(Exception):
    """The row goes on for longer than a row may."""


def find_delimiter(header: str) -> str:
    """The delimiter of a header line: the character that it has most often outside of quotes."""
    plain = "".join(header.split('"')[::2])
    return max(DELIMITERS, key=lambda delimiter: (plain.count(delimiter), -DELIMITERS.index(delimiter)))


def read_rows(
    lines: Iterable[bytes | None], delimiter: str = "", max_bytes: int = MAX_ROW_BYTES
) -> Iterator[Row | Broken]:
    """The rows of a file that are not empty, the header first."""
    _allow_long_cells(max_bytes)
    source = _Source(lines, max_bytes)
    while True:
        start = source.peek()
        if start is None:
            return
        if start is _TOO_LONG:
            yield Broken(source.line, "has a line that is too long")
            source.skip()
            continue
        delimiter = delimiter or find_delimiter(start)
        source.mark()
        line = source.line
        try:
            cells = next(csv.reader(source, delimiter=delimiter), [])
        except _RowTooLarge:
            yield Broken(line, f"is a row of more than {max_bytes >> 20} MiB: perhaps a quote is not closed")
            source.rewind()
        except csv.Error as error:
            yield Broken(line, f"is not CSV: {error}")
            source.rewind()
        else:
            if source.at_end and source.is_unclosed(delimiter):
                yield Broken(line, "has a quote that is not closed")
                source.rewind()
            elif len(cells) > MAX_COLUMNS:
                yield Broken(line, f"has more than {MAX_COLUMNS} columns")
            elif any(cells):
                yield Row(line, cells)


def _allow_long_cells(max_bytes: int) -> None:
    """Raise the limit that `csv` has for the whole process, which is below what a long note needs."""
    with _limit_lock:
        if csv.field_size_limit() < max_bytes:
            csv.field_size_limit(max_bytes)


_TOO_LONG = "\0too long"


class _Source:
    """The lines of a file as text, one row's at a time, so that a broken row can be gone back to."""

    def __init__(self, lines: Iterable[bytes | None], max_bytes: int) -> None:
        self._lines = iter(lines)
        self._max_bytes = max_bytes
        self._waiting: list[str] = []  # lines to read again, the next one last
        self._row: list[str] = []
        self._size = 0
        self.line = 1  # of the next line that is read
        self.at_end = False

    def _fetch(self) -> str | None:
        if self._waiting:
            return self._waiting.pop()
        try:
            line = next(self._lines)
        except StopIteration:
            self.at_end = True
            return None
        return _TOO_LONG if line is None else decode(line)

    def peek(self) -> str | None:
        """The next line, without reading it."""
        line = self._fetch()
        if line is not None:
            self._waiting.append(line)
        return line

    def skip(self) -> None:
        """Leave a line out."""
        self._fetch()
        self.line += 1

    def mark(self) -> None:
        """A row begins here."""
        self._row = []
        self._size = 0

    def rewind(self) -> None:
        """Go back to the line after the one with which the row began."""
        again = self._row[1:]
        self.line -= len(again)
        self._waiting.extend(reversed(again))
        self._row = []

    def is_unclosed(self, delimiter: str) -> bool:
        """Whether the last row ended only because the file did."""
        if len(self._row) < 2:
            text = "".join(self._row)
            if text.count('"') % 2 == 0:
                return False
        try:
            list(csv.reader(self._row, delimiter=delimiter, strict=True))
        except csv.Error as error:
            return "unexpected end" in str(error)
        return False

    def __iter__(self) -> _Source:
        return self

    def __next__(self) -> str:
        line = self._fetch()
        if line is None:
            raise StopIteration
        self._size += len(line)
        if line is _TOO_LONG or self._size > self._max_bytes or len(self._row) >= MAX_ROW_LINES:
            if self._row:
                self._waiting.append(line)
            else:  # this line alone is too large: it is not read again
                self.line += 1
            raise _RowTooLarge
        self._row.append(line)
        self.line += 1
        return line
