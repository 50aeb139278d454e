"""The commit journal: what every commit changed, for history, undo and feeds.

A journal record is the chain value (32 bytes), the commit id (u64) and the pickle of `(commit id, time, label,
changes)`. The chain value is the BLAKE2b-256 of the chain value before it and that pickle, so equal chain values mean
equal histories. Changes hold the old values of what changed; the new ones are in the item, or in the next change.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, Literal

from atop.database import Database
from atop.engine import CHAIN_SIZE, JOURNAL
from atop.errors import NoSuchCommit, StoreDamaged, UnsafePickle
from atop.ids import tag_of
from atop.records import State, checked, loads, pack_u64, unpack_u64
from atop.writeset import CREATED, DELETED, NAMED, UPDATED

CHUNK = 50  # journal records read at once
END = b"\xff" * 8

# The last moment, in microseconds since 1970, that has a date in every time zone: a clock past that counts as this.
LATEST = 253_402_214_400_000_000

Kind = Literal["created", "changed", "deleted"]
_KINDS: dict[str, Kind] = {CREATED: "created", UPDATED: "changed", DELETED: "deleted"}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Change:
    """What a commit did to one item. Values are in their stored form."""

    kind: Kind
    item_id: int
    base: int  # the item's version before; 0 for a new item; for one that was brought back, the commit that deleted it
    before: Mapping[str, Any]  # old values of the attributes that changed; all of them where the item was deleted
    added: tuple[str, ...] = ()  # attributes that it did not have before
    pools: tuple[int, ...] | None = None  # the pools it was in, if that changed
    schema: tuple[str, int] | None = None  # the type name and schema version it had, if that changed


@dataclass(frozen=True)
class Commit:
    """One commit, as the journal has it."""

    commit_id: int
    number: int  # its place in the journal: 1, 2, 3 ...
    time: datetime  # in UTC; of the hybrid clock: see `atop.clock`
    label: str
    chain: bytes  # over this commit and all before it
    _changes: tuple[tuple[Any, ...], ...]
    _size: int  # of the record that it was read from, in bytes
    _moment: int  # as `time`, in microseconds since 1970, and not cut at what calendars have

    @property
    def device(self) -> int:
        """The tag of the device that made it; 0 is the store's first device."""
        return tag_of(self.commit_id)

    @cached_property
    def changes(self) -> tuple[Change, ...]:
        """What it changed, in order of item. Raises `UnsafePickle` if the record does not say so."""
        try:
            return tuple(_change(fields) for fields in checked(self._changes, self._size) if fields[0] != NAMED)
        except (TypeError, ValueError, LookupError) as error:
            raise _misshapen() from error

    @property
    def item_ids(self) -> tuple[int, ...]:
        """The ids of the items it changed. Raises `UnsafePickle` if the record does not say so."""
        try:
            found = tuple(fields[1] for fields in self._changes if fields[0] != NAMED)
        except (TypeError, LookupError) as error:
            raise _misshapen() from error
        if not all(type(item_id) is int for item_id in found):
            raise _misshapen()
        return found

    @property
    def names(self) -> tuple[tuple[str, int | None, int | None], ...]:
        """(name in the catalog, item id that it stood for, and that it stands for since), for each it changed."""
        try:
            found = tuple((name, old, new) for _, _, name, old, new in (f for f in self._changes if f[0] == NAMED))
        except (TypeError, ValueError, LookupError) as error:
            raise _misshapen() from error
        if not all(type(name) is str and {type(old), type(new)} <= {int, type(None)} for name, old, new in found):
            raise _misshapen()
        return found


@dataclass(frozen=True)
class Revision:
    """One commit as one item saw it."""

    commit: Commit
    kind: Kind
    attributes: Mapping[str, Any]  # all attributes as the commit left them, in stored form; empty if it deleted them
    changed: Mapping[str, tuple[Any, Any]]  # attribute -> (old value, new value); None where there was or is none


def _change(fields: tuple[Any, ...]) -> Change:
    kind = _KINDS[fields[0]]
    if kind == "created":
        change = Change(kind, fields[1], fields[2] if len(fields) > 2 else 0, {})
    elif kind == "deleted":
        type_name, schema, attributes, pools = fields[3]
        change = Change(kind, fields[1], fields[2], attributes, (), pools, (type_name, schema))
    else:
        change = Change(kind, *fields[1:])
    if type(change.item_id) is not int or type(change.base) is not int or type(change.before) is not dict:
        raise TypeError
    _check_kinds(tuple(change.before), str)
    _check_kinds(change.added, str)
    _check_kinds(change.pools or (), int)
    if change.schema is not None and tuple(map(type, change.schema)) != (str, int):
        raise TypeError
    return change


def _check_kinds(values: tuple[Any, ...], kind: type) -> None:
    if type(values) is not tuple or not all(type(value) is kind for value in values):
        raise TypeError


# How an undo says what it took back: numbers of commits, and ranges of them, newest first.
_NUMBERS = r"\d{1,18}(?:\.\.\d{1,18})?"
_UNDO_LABEL = re.compile(rf"undo ({_NUMBERS}(?:, {_NUMBERS})*)(?:: .*)?", re.ASCII | re.DOTALL)


def undo_label(commits: Sequence[Commit]) -> str:
    """The label of a commit that undoes these: `undo 12: import friends.vcf`, `undo 10..12, 7`."""
    if len(commits) == 1:
        label = commits[0].label
        return f"undo {commits[0].number}" + (f": {label}" if label else "")
    return f"undo {_numbers_as_text(sorted((commit.number for commit in commits), reverse=True))}"


def _numbers_as_text(numbers: Iterable[int]) -> str:
    """Numbers, latest first, and ranges of them where they follow each other."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and ranges[-1][0] == number + 1:
            ranges[-1][0] = number
        else:
            ranges.append([number, number])
    return ", ".join(f"{low}..{high}" if low < high else str(low) for low, high in ranges)


def undone_by(commit: Commit) -> list[tuple[int, int]]:
    """The ranges of numbers, both ends included, of the commits that this one undid; none if it is no undo."""
    found = _UNDO_LABEL.fullmatch(commit.label)
    if found is None:
        return []
    return [(low, min(high, commit.number - 1)) for low, high in _ranges(found[1])]


def _ranges(text: str) -> list[tuple[int, int]]:
    ends = [part.split("..") for part in text.split(", ")]
    return [(int(pair[0]), int(pair[-1])) for pair in ends]


def relabelled(label: str, numbers: Mapping[int, int | None]) -> str:
    """An undo's label with other numbers in it: what it took back has these, or (None) none, in another history."""
    found = _UNDO_LABEL.fullmatch(label)
    if found is None:
        return label
    named = {n for low, high in _ranges(found[1]) for n in range(low, min(high, low + len(numbers)) + 1)}
    new = sorted({number for n in named if (number := numbers.get(n)) is not None}, reverse=True)
    return f"undo {_numbers_as_text(new)}{label[found.end(1) :]}" if new else f"undo{label[found.end(1) :]}"


def decode_commit(key: bytes, record: bytes) -> Commit:
    """The commit in a journal record. Raises `UnsafePickle` if it is not one."""
    fields = loads(record[CHAIN_SIZE + 8 :])
    try:
        commit_id, time, label, changes = fields
        if (type(commit_id), type(time), type(label)) != (int, int, str):
            raise TypeError
        when = _EPOCH + timedelta(microseconds=min(time, LATEST))
        number, chain = unpack_u64(key)[0], record[:CHAIN_SIZE]
        return Commit(commit_id, number, when, label, chain, tuple(changes), len(record), time)
    except (TypeError, ValueError, OverflowError) as error:
        raise _misshapen() from error


def _misshapen() -> UnsafePickle:
    return UnsafePickle("a journal record does not have the shape of one: it is damaged, or not Atop's")


def commit_at(engine: Database, number: int) -> Commit:
    """The commit of this number. Raises `NoSuchCommit`."""
    record = engine.get(JOURNAL, pack_u64(number)) if 0 < number < 1 << 63 else None
    if record is None:
        raise NoSuchCommit(f"the journal has no commit number {number}")
    return decode_commit(pack_u64(number), record)


def commits_back(engine: Database, before: int | None = None) -> Iterator[Commit]:
    """All commits, latest first, from the one before number `before` on."""
    stop = END if before is None else pack_u64(min(max(before, 0), 1 << 63))
    while pairs := engine.pairs(JOURNAL, b"", stop, CHUNK, reverse=True):
        for key, record in pairs:
            yield decode_commit(key, record)
        stop = pairs[-1][0]


def commits_after(engine: Database, since: int) -> Iterator[Commit]:
    """The commits after number `since`, in order, up to the last that a crash will not undo.

    Raises `NoSuchCommit` if the journal does not go back so far, or is trimmed meanwhile to where it does not.
    """
    first = engine.pairs(JOURNAL, b"", END, 1)
    oldest = unpack_u64(first[0][0])[0] if first else engine.head.number + 1
    expected = max(since, 0) + 1
    if expected < oldest:
        raise _forgotten(oldest, since)
    settled = engine.settled()
    while expected <= settled and (pairs := engine.pairs(JOURNAL, pack_u64(expected), pack_u64(settled + 1), CHUNK)):
        for key, record in pairs:
            if unpack_u64(key)[0] != expected:
                raise _forgotten(unpack_u64(key)[0], expected - 1)
            yield decode_commit(key, record)
            expected += 1
        settled = engine.settled()


def _forgotten(oldest: int, since: int) -> NoSuchCommit:
    return NoSuchCommit(
        f"the journal begins at commit number {oldest}; what happened after number {since} is not all in it"
    )


def revisions(engine: Database, item_id: int, state: State, number_of: Any) -> Iterator[Revision]:
    """The revisions of an item from `state` back, as far as the journal goes; `number_of` finds a commit's number."""
    attributes, version = dict(state.attributes), state.version
    last = 1 << 63  # numbers decrease; in a damaged journal they might go round in a circle
    while version:
        number = number_of(version)
        record = engine.get(JOURNAL, pack_u64(number)) if number is not None and number < last else None
        if record is None:
            return
        last = number
        commit = decode_commit(pack_u64(number), record)
        change = next((c for c in commit.changes if c.item_id == item_id), None)
        if change is None:
            return
        after = {} if change.kind == "deleted" else dict(attributes)
        for name in change.added:
            attributes.pop(name, None)
        attributes.update(change.before)
        if change.kind == "created":  # or brought back: `base` is the deletion, which has the attributes from before
            attributes = {}
        names = after if change.kind == "created" else [*change.before, *change.added]
        yield Revision(commit, change.kind, after, {n: (attributes.get(n), after.get(n)) for n in names})
        version = change.base


def check_chain(engine: Database) -> Iterator[str]:
    """A line for each record of the journal whose chain value is wrong, or whose number is missing."""
    previous: bytes | None = None
    expected = 0
    start = b""
    while pairs := engine.pairs(JOURNAL, start, END, CHUNK):
        for key, record in pairs:
            number = unpack_u64(key)[0]
            if previous is None:
                previous = bytes(CHAIN_SIZE) if number == 1 else None
            elif number != expected:
                yield f"journal: commit number {expected} is missing"
            body = record[CHAIN_SIZE + 8 :]
            if (
                previous is not None
                and hashlib.blake2b(previous + body, digest_size=CHAIN_SIZE).digest() != record[:CHAIN_SIZE]
            ):
                yield f"journal: the chain is broken at commit number {number}"
            previous, expected = record[:CHAIN_SIZE], number + 1
        start = pairs[-1][0] + b"\0"


__all__ = [
    "Change",
    "Commit",
    "Revision",
    "StoreDamaged",
    "check_chain",
    "commit_at",
    "commits_after",
    "commits_back",
    "undo_label",
    "undone_by",
]
