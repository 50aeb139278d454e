"""What may stand in a log that somebody else wrote, before Berkeley DB, which trusts its log, replays it.

Replaying a log creates, writes, renames and removes files by the names in it, and follows its lengths wherever they
lead. So a log that comes with somebody's backup, or from another device, is taken apart here first, by the formats of
Berkeley DB 5.3.28 (its `.src` files describe them):

- each record is of a type that tables of ours cause, its parts end where it ends, and it points backwards only;
- a file that is named is a table, Berkeley DB's own one beside them, or a temporary name of one; in no directory.

Never: a byte of a log in an error. What this cannot tell is whether a record fits the page that it changes: one of the
right form that does not can still spoil a table, or end the process that replays it.
"""

from __future__ import annotations

import re
import struct
from array import array
from bisect import bisect_left
from pathlib import Path
from typing import Final

from atop.environment import PAGE_SIZE, TABLES

Place = tuple[int, int]
"""A place in the log: number of the file, offset in it."""


class BadLogRecord(Exception):
    """A record that must not be replayed."""


_frame = struct.Struct("<III")  # in a log file, before each record: where the one before begins, length, checksum
_header = struct.Struct("<4I")  # of a log record: type, transaction, place of the one before it (file, offset)
_number = struct.Struct("<I")
_place = struct.Struct("<II")
_lock = struct.Struct("<HH")

# Log records, after the header: n a number, p a place in the log, d data with its length before it.
_FORMATS: Final = {
    2: "nddnnnn",  # a table is opened or closed
    10: "nnnd",  # the end of a transaction
    11: "ppnnn",  # a checkpoint
    12: "np",  # the end of a transaction within another
    14: "nn",  # numbers of transactions begin anew
    36: "nnpnnd",
    41: "nnnnnddp",
    43: "nnnnndppp",
    44: "nnnp",
    47: "dnddn",  # a note, for whoever reads the log
    48: "nnp",
    49: "npnpnnnn",
    50: "nnpndnn",
    52: "nnpndnnd",
    55: "nnpnnn",
    56: "nnpnnn",
    57: "nnpn",
    58: "nnpnnddnn",
    59: "nnnp",
    60: "nndd",
    62: "nnnpnpnnpnpnddd",
    63: "nndnndp",
    64: "nnnnnnnn",
    66: "nnpnpnnd",
    67: "nnpnnddd",
    142: "nndp",
    143: "ddnn",  # a file is created,
    144: "ddn",  # removed,
    145: "ddnnnndn",  # written,
    146: "ddddn",  # renamed
    147: "nnnnpnp",
    148: "nnpnpddn",
    149: "nnpnnn",
    150: "ddddn",  # renamed for good
}
_SIZES: Final = {"n": 4, "p": 8}
# Fixed bytes before each piece of data, and after the last one.
_LAYOUTS: Final = {
    kind: tuple(sum(_SIZES[part] for part in piece) for piece in form.split("d")) for kind, form in _FORMATS.items()
}
# Which pieces of data name files, and which one the directory of them.
_NAMES: Final = {2: (0,), 143: (0,), 144: (0,), 145: (0,), 146: (0, 1), 150: (0, 1)}
_DIRECTORIES: Final = {143: 1, 145: 1, 146: 2, 150: 2}
_COMMIT, _CHECKPOINT, _CHILD, _ADD = 10, 11, 12, 41
_ADD_FIXED: Final = 40  # bytes from the beginning of such a record to its first piece of data

_SYSTEM: Final = b"__db.rep.system"
FILES: Final[dict[bytes, int]] = {f"{name}.db".encode(): PAGE_SIZE for name in TABLES} | {_SYSTEM: 1024}
_TEMPORARY: Final = re.compile(rb"__db\.[0-9a-f]{1,8}\.[0-9a-f]{1,8}")


def check_log(data: Path) -> None:
    """Raise BadLogRecord if the log files of the database in the directory `data` have a record that is not sound.

    Raises OSError.
    """
    starts: dict[int, array[int]] = {}  # of records, by log file
    before = 0  # where the record before begins
    for path in sorted(data.glob("log.*")):
        log, number, start = path.read_bytes(), int(path.suffix[1:]), 0
        known = starts[number] = array("L")
        while start + _frame.size <= len(log):
            back, length, _ = _frame.unpack_from(log, start)
            end = start + length
            if length <= _frame.size or end > len(log):
                break  # empty; or it was being written when its writer was killed: the log ends there
            if known and back != before:
                raise BadLogRecord("a log record that is not after the one before it")
            known.append(start)
            try:
                pointers = check_record(log, (number, start), start + _frame.size, end) if start else ()
            except struct.error:
                raise BadLogRecord("a log record is cut short") from None
            if not all(_begins(pointer, starts) for pointer in pointers):
                raise BadLogRecord("a log record that points into another one")
            before, start = start, end
        known.append(start)  # what was to be written next went to another file, and may be pointed at here


def _begins(place: Place, starts: dict[int, array[int]]) -> bool:
    """Whether a record begins there, as far as the log is here."""
    file, offset = place
    if not file or file < min(starts):
        return True
    known = starts.get(file, array("L"))
    index = bisect_left(known, offset)
    return index < len(known) and known[index] == offset


def check_record(record: bytes, place: Place, start: int, end: int) -> tuple[Place, ...]:
    """Raise BadLogRecord for bytes from `start` to `end` that are no record of ours at that place of the log.

    Returns the places that it points back to. Raises struct.error where the bytes are too short to tell.
    """
    kind, _, file, offset = _header.unpack_from(record, start)
    if kind == _ADD and (file, offset) < place:  # nine of ten are of this type, so it is told apart quickly
        second = start + _ADD_FIXED + _number.unpack_from(record, start + _ADD_FIXED - 4)[0]
        if second + 12 <= end and second + 12 + _number.unpack_from(record, second)[0] == end:
            return ((file, offset),)
    layout = _LAYOUTS.get(kind)
    if layout is None:
        raise BadLogRecord("a log record of a type that no table of ours causes")
    start += _header.size
    pointers = [(file, offset)]
    if kind == _CHILD:
        pointers.append(_place.unpack_from(record, start + 4))
    elif kind == _CHECKPOINT:
        pointers += [_place.unpack_from(record, start), _place.unpack_from(record, start + _place.size)]
    if (file, offset) >= place or max(pointers) > place:
        raise BadLogRecord("a log record that points forwards")
    pieces = []
    for fixed in layout[:-1]:
        start += fixed
        if start + 4 > end:
            break
        length = _number.unpack_from(record, start)[0]
        start += 4
        pieces.append((start, length))
        start += length
    if start + layout[-1] != end or len(pieces) != len(layout) - 1:
        raise BadLogRecord("a log record whose parts are not where it says")
    if kind == _COMMIT:
        _check_locks(record, *pieces[0])
    elif kind in _NAMES:
        for index in _NAMES[kind]:
            _check_name(record, *pieces[index])
        directory = _DIRECTORIES.get(kind)
        if directory is not None and pieces[directory][1]:
            raise BadLogRecord("a log record about a file in a directory")
    return tuple(pointers)


def _check_locks(record: bytes, start: int, length: int) -> None:
    """The list of locks of a transaction: for each page of a table, and further pages."""
    end = start + length
    if not length:
        return
    count = _number.unpack_from(record, start)[0]
    start += 4
    for _ in range(count):
        if start + 4 > end:
            break
        pages, size = _lock.unpack_from(record, start)
        start += 4 + size + 4 * pages
        if size != 28:  # page, the table's id, kind
            raise BadLogRecord("a log record with a lock on no page")
    if start != end or count > length:
        raise BadLogRecord("a log record with a broken list of locks")


def _check_name(record: bytes, start: int, length: int) -> None:
    name = record[start : start + length]
    if not (name.endswith(b"\0") and (name[:-1] in FILES or _TEMPORARY.fullmatch(name[:-1]))):
        raise BadLogRecord("a log record about a file that is no table")
