"""A salvage file: every commit that another history lacks, with the new state of each item, safe beside the database.

It is written before the database follows that other history, and removed when all of it is committed there.

    8 bytes        magic
    frames         length u32, BLAKE2b-128 of the body, body: one for each commit, the latest first
    frame          the header: a pickle of plain values (`Header`)
    frame          the place of every commit's frame, u64 each, in the order in which the commits were made
    48 bytes       place of the header's frame u64, place of the last frame u64, BLAKE2b-256 of everything before

Promises: the file is complete and on the disk, its name too, when `write` returns; a file that was cut, lengthened or
changed anywhere is told from a good one by `Salvage`, before any of it is used; reading it executes nothing, and takes
memory for one commit at a time.

Never: a file that is there and is neither used nor reported.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

from atop.disk import explained, sync_directory
from atop.errors import AtopError, StoreError, UnsafePickle
from atop.records import State, dumps, loads

MAGIC: Final = b"ATOPSLV1"
SUFFIX: Final = ".salvage"

CHUNK: Final = 1 << 20
"""Bytes read and hashed at a time."""

MAX_FRAME: Final = 1 << 30
"""The longest frame in bytes: a commit of the largest size, with old and new values."""

_frame = struct.Struct(">I16s")
_place = struct.Struct(">Q")
_trailer = struct.Struct(">QQ32s")


class SalvageDamaged(StoreError):
    """A salvage file is not what was written. Nothing of it was applied, and it is kept."""


class Change(NamedTuple):
    """What a commit did to one item, as in the journal, and the state it left."""

    kind: str  # CREATED, UPDATED, DELETED, or WHOLE
    item_id: int
    base: int  # the item's version before; of one that was brought back, the commit that had deleted it
    before: dict[str, Any]  # old values of the attributes that changed; all of them where the item was deleted
    added: tuple[str, ...]  # attributes that it did not have before
    pools: tuple[int, ...] | None  # the pools it was in, if that changed
    after: State | None  # None where it was deleted
    rules: dict[str, bytes]  # attribute -> what it says about deletion, where that is not "nullify"


WHOLE: Final = "?"
"""The kind of a change of which the journal has no more than its result: the state, and no old values."""


@dataclass(frozen=True)
class Commit:
    """One salvaged commit."""

    commit_id: int
    time: int  # microseconds of the hybrid clock
    label: str
    changes: tuple[Change, ...]
    names: tuple[tuple[str, int | None, int | None], ...] = ()  # as in `journal.Commit.names`
    undone: tuple[tuple[int, int], ...] = ()  # (number, commit id) of the commits that its label says it undoes


@dataclass(frozen=True)
class Header:
    """What a salvage file as a whole is about."""

    tag: int  # of the device that wrote it
    head: int  # number of the last commit of its history, and the chain value over that
    chain: bytes
    common: int  # number of the last commit up to which the other history was the same; 0 where none was found
    samples: tuple[tuple[int, bytes], ...] = field(default=())  # (number, chain value) of commits up to `common`


class Salvage:
    """A salvage file, found good. May be read by one thread at a time.

    Raises:
        SalvageDamaged: it is not what was written.
        StoreError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                self._read(file)
        except OSError as error:
            raise explained(error, path) from error

    def _read(self, file: BinaryIO) -> None:
        size = os.fstat(file.fileno()).st_size
        if size < len(MAGIC) + _trailer.size or file.read(len(MAGIC)) != MAGIC:
            raise self._damaged("it is too short, or no such file")
        file.seek(size - _trailer.size)
        header, index, digest = _trailer.unpack(file.read(_trailer.size))
        if _digest(file, size - 32) != digest:
            raise self._damaged("its checksum is wrong")
        try:
            self.header = Header(*loads(self._frame(file, header)))
        except (TypeError, UnsafePickle) as error:
            raise self._damaged("its header is not one") from error
        places = self._frame(file, index)
        self._places = [place for (place,) in _place.iter_unpack(places)]

    def _frame(self, file: BinaryIO, place: int) -> bytes:
        file.seek(place)
        head = file.read(_frame.size)
        if len(head) < _frame.size:
            raise self._damaged("it ends within a frame")
        length, digest = _frame.unpack(head)
        body = file.read(length)
        if len(body) != length or hashlib.blake2b(body, digest_size=16).digest() != digest:
            raise self._damaged("a frame of it has changed")
        return body

    def __len__(self) -> int:
        return len(self._places)

    def commits(self, *, latest_first: bool = False) -> Iterator[Commit]:
        """The commits, in the order in which they were made, or back. Raises SalvageDamaged, StoreError."""
        try:
            with self.path.open("rb") as file:
                for place in reversed(self._places) if latest_first else self._places:
                    yield decode(self._frame(file, place))
        except OSError as error:
            raise explained(error, self.path) from error
        except (UnsafePickle, TypeError, ValueError) as error:
            raise self._damaged(str(error)) from error

    def _damaged(self, what: str) -> SalvageDamaged:
        return SalvageDamaged(
            f"the salvage file {self.path} is damaged: {what}. It holds commits of this device that the other devices "
            "lack, and none of it was applied. Put it back from a copy; or move it away to go on without those commits",
            self.path.parent.parent.parent,
        )


def _digest(file: BinaryIO, end: int) -> bytes:
    """The hash of a file's first `end` bytes."""
    file.seek(0)
    found = hashlib.blake2b(digest_size=32)
    while end > 0 and (chunk := file.read(min(CHUNK, end))):
        found.update(chunk)
        end -= len(chunk)
    return found.digest()


def encode(commit: Commit) -> bytes:
    """A commit as a frame's body."""
    changes: list[Any] = [
        (*change[:6], None if change.after is None else tuple(change.after[:5]), change.rules)
        for change in commit.changes
    ]
    return dumps((commit.commit_id, commit.time, commit.label, changes, commit.names, commit.undone))


def decode(body: bytes) -> Commit:
    """The commit in a frame's body. Raises UnsafePickle, TypeError or ValueError if it is none."""
    commit_id, time, label, changes, names, undone = loads(body)
    made = tuple(
        Change._make((*fields[:6], None if fields[6] is None else State(*fields[6]), fields[7])) for fields in changes
    )
    return Commit(commit_id, time, label, made, names, undone)


def write(path: Path, header: Header, latest_first: Iterable[Commit | bytes]) -> int:
    """Write a salvage file; returns the number of commits in it once it is on the disk.

    Raises:
        StoreFull, StoreReadOnly, StoreError: it could not be written, and nothing of it is left.
        AtopError: what `latest_first` raises; nothing is left either.
    """
    temporary = path.with_suffix(".new")
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(fd, "wb") as file:
            count = _write(file, header, latest_first)
            file.flush()
            os.fsync(file.fileno())
        Salvage(temporary)  # it is read back: nothing is given up for the sake of a file that cannot be read
        temporary.replace(path)
        sync_directory(path.parent)
        sync_directory(path.parent.parent)
    except OSError as error:
        _remove(temporary)
        raise explained(error, path.parent.parent.parent) from error
    except AtopError:
        _remove(temporary)
        raise
    return count


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return  # the next one to be written takes its place


class _Hashed:
    """A file that is written from start to end, and hashed meanwhile."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.place = 0
        self.digest = hashlib.blake2b(digest_size=32)

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self.digest.update(data)
        self.place += len(data)

    def frame(self, body: bytes) -> int:
        place = self.place
        if len(body) > MAX_FRAME:
            raise StoreError(f"a commit of {len(body):,} bytes is too long to be salvaged")
        self.write(_frame.pack(len(body), hashlib.blake2b(body, digest_size=16).digest()))
        self.write(body)
        return place


def _write(file: BinaryIO, header: Header, latest_first: Iterable[Commit | bytes]) -> int:
    target = _Hashed(file)
    target.write(MAGIC)
    places = [target.frame(commit if isinstance(commit, bytes) else encode(commit)) for commit in latest_first]
    fields = (header.tag, header.head, header.chain, header.common, header.samples)
    header_place = target.frame(dumps(fields))
    index_place = target.frame(b"".join(map(_place.pack, reversed(places))))
    target.write(struct.pack(">QQ", header_place, index_place))
    file.write(target.digest.digest())
    return len(places)
