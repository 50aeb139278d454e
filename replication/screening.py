"""What another device's log messages may be, before Berkeley DB, which trusts them, gets to see them.

Berkeley DB 5.3 follows lengths in a message wherever they lead, and creates, writes, renames and removes files by the
names in it: it was made for sites that trust each other. A member of a group whose program is hostile could crash
others with three bytes, and write outside of their stores. So each message is taken apart here first, by the formats
of Berkeley DB 5.3.28 (`src/rep/rep.msg`):

- the control part has the versions and the length that this Berkeley DB itself sends, and a known type;
- the record part is what that type has, to the last byte;
- each log record in it is sound (`atop.logrecords`), and a full copy is of tables of ours alone;
- a generation is near those that this device has seen: one that is far ahead would leave no later ones;
- of no file far more pages are asked for than there are: Berkeley DB would look for each.

Pure. What it cannot tell is whether a record fits the page that it changes: a member could still spoil the database of
another one, or end its process, with records of the right form.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from atop.logrecords import FILES, BadLogRecord, Place, check_record

from .messages import Log, MessageRefused

REPLICATION_VERSION: Final = 7
LOG_VERSION: Final = 19

MAX_GENERATIONS_AHEAD: Final = 1_000_000
"""How far a message's generation may be ahead of this device's: a master a minute, for two years."""

MAX_PAGES_BEYOND: Final = 1 << 18
"""How far behind the end of a file on the disk a page may be that is asked for: the last ones may be in memory yet."""

_LEASE: Final = 0x10  # a flag of the control part: Berkeley DB panics where leases are not used

_ALIVE, _ALIVE_REQ, _ALL_REQ, _BULK_LOG, _BULK_PAGE, _DUPMASTER, _FILE_FAIL = 1, 2, 3, 4, 5, 6, 8
_LOG, _LOG_MORE, _LOG_REQ, _MASTER_REQ, _NEWCLIENT, _NEWFILE, _NEWMASTER, _NEWSITE = 11, 12, 13, 14, 15, 16, 17, 18
_PAGE, _PAGE_FAIL, _PAGE_MORE, _PAGE_REQ, _REREQUEST, _START_SYNC = 19, 20, 21, 22, 23, 24
_UPDATE, _UPDATE_REQ, _VERIFY, _VERIFY_FAIL, _VERIFY_REQ, _VOTE1, _VOTE2 = 25, 26, 27, 28, 29, 30, 31

# The lengths of record parts that are numbers alone, and of those that are nothing.
_LENGTHS: Final[dict[int, tuple[int, ...]]] = {
    _ALIVE: (4,),
    _NEWCLIENT: (0,),
    _NEWFILE: (0, 4),
    _NEWSITE: (0,),
    _VOTE1: (28,),
    _VOTE2: (28,),
}
# Requests: some name the place to which log records are wanted.
_LENGTHS.update(dict.fromkeys((_ALL_REQ, _LOG_REQ, _VERIFY_REQ, _UPDATE_REQ, _REREQUEST, _START_SYNC), (0, 8)))
_LENGTHS.update(dict.fromkeys((_ALIVE_REQ, _MASTER_REQ, _NEWMASTER, _DUPMASTER, _VERIFY_FAIL), (0, 8)))

_control = struct.Struct(">9I")  # two versions, place (file, offset), type, generation, time (2), flags
_bulk = struct.Struct(">4I")  # length, place (file, offset), length
_update = struct.Struct(">4I")  # place (file, offset), version, number of files
_file = struct.Struct(">7I")  # page size, page, last page, number of the file, flags, type, flags
_big = struct.Struct(">I")
_PAGE_SIZES: Final = frozenset(FILES.values())
SMALLEST_PAGE: Final = min(_PAGE_SIZES)


def screen(message: Log, generation: int) -> None:
    """Raise MessageRefused for a message that Berkeley DB must not see. `generation` is the one this device is in."""
    control, record = message.control, message.record
    if len(control) != _control.size:
        raise MessageRefused("a log message whose control part has the wrong length")
    replication, version, file, offset, kind, of_generation, _, _, flags = _control.unpack(control)
    if replication != REPLICATION_VERSION or version != LOG_VERSION:
        raise MessageRefused("a log message of another version of Berkeley DB")
    if flags & _LEASE:
        raise MessageRefused("a log message about leases, which are not used")
    if of_generation > generation + MAX_GENERATIONS_AHEAD:
        raise MessageRefused("a log message of a generation far ahead")
    lengths = _LENGTHS.get(kind)
    if lengths is not None:
        if len(record) not in lengths:
            raise MessageRefused("a log message with a record part of the wrong length")
        if kind in (_ALIVE, _VOTE1, _VOTE2) and _big.unpack_from(record)[0] > generation + MAX_GENERATIONS_AHEAD:
            raise MessageRefused("a vote for a generation far ahead")
        return
    check = _CHECKS.get(kind)
    if check is None:
        raise MessageRefused("a log message of an unknown type")
    try:
        check(record, (file, offset))
    except BadLogRecord as error:
        raise MessageRefused(str(error)) from None
    except struct.error:
        raise MessageRefused("a log message that is cut short") from None


def _check_bulk_log(record: bytes, _: Place) -> None:
    start, end = 0, len(record)
    while start < end:
        length, file, offset, again = _bulk.unpack_from(record, start)
        start += _bulk.size
        if length != again or start + length > end:
            raise MessageRefused("log records that are cut short")
        check_record(record, (file, offset), start, start + length)
        start += length


def _check_one(record: bytes, place: Place) -> None:
    check_record(record, place, 0, len(record))


def _check_update(record: bytes, _: Place) -> None:
    """The files of a full copy."""
    count = _update.unpack_from(record)[3]
    start = _update.size
    for _number_of_file in range(min(count, len(FILES) + 1)):
        page_size, info, start = _check_file(record, start)
        _check_file_name(page_size, info)
    if start != len(record) or count > len(FILES):
        raise MessageRefused("a full copy of other files than the tables")


def _check_pages(record: bytes, _: Place) -> None:
    start = 0
    while start < len(record):
        length, _, _, again = _bulk.unpack_from(record, start)
        page_size, info, end = _check_file(record, start + _bulk.size)
        if length != again or end != start + _bulk.size + length or len(info) != page_size:
            raise MessageRefused("pages that are cut short")
        start = end


def _check_page(record: bytes, _: Place) -> None:
    page_size, info, end = _check_file(record, 0)
    if end != len(record) or len(info) != page_size:
        raise MessageRefused("a page that is cut short")


def pages_asked(message: Log) -> tuple[str, int] | None:
    """The file of which pages are asked for, and the last one of them; None for any other message. It was screened."""
    if _control.unpack(message.control)[4] != _PAGE_REQ:
        return None
    return _check_file(message.record, 0)[1][:-1].decode(), _file.unpack_from(message.record)[2]


def _check_request(record: bytes, _: Place) -> None:
    page_size, info, end = _check_file(record, 0)
    if end != len(record):
        raise MessageRefused("a request for pages with more behind it")
    _check_file_name(page_size, info)


def _check_failure(record: bytes, _: Place) -> None:
    """A request that could not be met, or not all of it: as it was, or with the page before."""
    if _check_file(record, 0)[2] != len(record):
        raise MessageRefused("a refused request for pages with more behind it")


def _check_file(record: bytes, start: int) -> tuple[int, bytes, int]:
    """A file, or a page of it: the size of its pages, its name or the page, and where what follows begins."""
    page_size = _file.unpack_from(record, start)[0]
    if page_size not in _PAGE_SIZES:
        raise MessageRefused("a file with pages of another size")
    pieces = []
    start += _file.size
    for _ in range(3):  # id, name or page, directory
        length = _big.unpack_from(record, start)[0]
        start += 4
        if start + length > len(record):
            raise MessageRefused("a file or page that is cut short")
        pieces.append(record[start : start + length])
        start += length
    if len(pieces[0]) != 20 or pieces[2]:
        raise MessageRefused("a file in a directory, or without an id")
    return page_size, pieces[1], start


def _check_file_name(page_size: int, name: bytes) -> None:
    if not name.endswith(b"\0") or FILES.get(name[:-1]) != page_size:
        raise MessageRefused("a file that is no table")


_CHECKS: Final[dict[int, Callable[[bytes, Place], None]]] = {
    _BULK_LOG: _check_bulk_log,
    _BULK_PAGE: _check_pages,
    _FILE_FAIL: _check_failure,
    _LOG: _check_one,
    _LOG_MORE: _check_one,
    _PAGE: _check_page,
    _PAGE_FAIL: _check_failure,
    _PAGE_MORE: _check_page,
    _PAGE_REQ: _check_request,
    _UPDATE: _check_update,
    _VERIFY: lambda record, place: None,  # it is compared, byte by byte, with what is here; empty where it is nowhere
}
