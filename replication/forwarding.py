"""A commit made on a replica, on its way to the master: WriteSet to message and back, errors too.

`to_write_set` judges what `messages.judge` cannot: that keys have the form of their table, that nothing is written
beside the tables of a commit, and that the journal's part is plain values that tell of this very commit. It executes
nothing. What it does not know: whether the commit fits the store; that is what the engine checks.
"""

from __future__ import annotations

from typing import Final

from atop.engine import CHAIN_SIZE
from atop.errors import (
    AtopError,
    Conflict,
    NoSuchFile,
    StoreBusy,
    StoreClosed,
    StoreDamaged,
    StoreError,
    StoreFull,
    StoreReadOnly,
    TransactionTooLarge,
    UnsafePickle,
)
from atop.forms import misshapen
from atop.indexes import ID_SIZE
from atop.journal import decode_commit
from atop.pickles import scan
from atop.records import loads
from atop.writeset import CATALOG, INDEX, INDEX_ENTRY_BYTES, ITEMS, REFERENCES, Operations, WriteSet

from .messages import MAX_TEXT, Commit, MessageRefused, Refused, explain


class NotMaster(AtopError):
    """The commit was sent to a device that is not (or no longer) the master; nothing was applied there."""


ERRORS: Final[dict[str, type[AtopError]]] = {
    "conflict": Conflict,
    "not master": NotMaster,
    "too large": TransactionTooLarge,
    "no file": NoSuchFile,
    "full": StoreFull,
    "read only": StoreReadOnly,
    "damaged": StoreDamaged,
    "busy": StoreBusy,
    "closed": StoreClosed,
    "wrong": UnsafePickle,
    "failed": StoreError,
}
"""The code of a REFUSED, and the error that it raises where the commit was made."""

_CODES: Final = {kind: code for code, kind in ERRORS.items()}


def to_commit(write_set: WriteSet) -> Commit:
    """The message that carries `write_set`."""
    tables = write_set.operations
    return Commit(
        commit_id=write_set.commit_id,
        time=write_set.time,
        label=write_set.label,
        checks=list(write_set.checks.items()),
        exists=write_set.exists,
        unreferenced=write_set.unreferenced,
        emptied=write_set.emptied,
        names=write_set.names,
        items=_pairs(tables, ITEMS),
        index=_pairs(tables, INDEX),
        references=_pairs(tables, REFERENCES),
        catalog=_pairs(tables, CATALOG),
        counters=write_set.counters,
        body=write_set.body,
        files=write_set.files,
        sizes=write_set.sizes,
    )


def to_write_set(commit: Commit) -> WriteSet:
    """The WriteSet in `commit`, to be applied with all its checks. Raises MessageRefused if it is not sound."""
    tables = {
        ITEMS: dict(commit.items),
        INDEX: dict(commit.index),
        REFERENCES: dict(commit.references),
        CATALOG: dict(commit.catalog),
    }
    if (what := misshapen(tables, commit.counters)) is not None:
        raise MessageRefused(f"a commit has {what}")
    for value in tables[ITEMS].values():
        if value is not None:
            _scan(value, ID_SIZE)
    _check_body(commit)
    written = sum(len(value) for value in tables[ITEMS].values() if value is not None)
    return WriteSet(
        commit.commit_id,
        commit.time,
        commit.label,
        checks=dict(commit.checks),
        exists=commit.exists,
        unreferenced=commit.unreferenced,
        emptied=commit.emptied,
        names=commit.names,
        operations=tables,
        counters=commit.counters,
        body=commit.body,
        length=written + len(commit.body) + INDEX_ENTRY_BYTES * len(commit.index),
        files=commit.files,
        sizes=commit.sizes,
    )


def _pairs(tables: dict[str, Operations], table: str) -> list[tuple[bytes, bytes | None]]:
    return list(tables.get(table, {}).items())


def to_refused(commit_id: int, error: AtopError) -> Refused:
    """The answer that says why a commit was not applied."""
    code = next((_CODES[kind] for kind in type(error).__mro__ if kind in _CODES), _CODES[StoreError])
    return Refused(commit_id, code, explain(error)[:MAX_TEXT], getattr(error, "item_id", None))


def to_error(refused: Refused) -> AtopError:
    """The error to raise where the commit was made; a code that this version does not know is a StoreError."""
    kind = ERRORS.get(refused.code, StoreError)
    text = explain(refused.text)
    if kind is Conflict:
        return Conflict(text, refused.item_id)
    if kind is StoreClosed:  # there, and not here: another device will be the master
        return NotMaster(text)
    return kind(text if kind is NotMaster else f"on the master: {text}")


def _scan(data: bytes, start: int) -> None:
    """Refuse a pickle that might take much memory to load: here, or wherever the record is read."""
    try:
        scan(data, start)
    except UnsafePickle:
        raise MessageRefused("a commit has a record that is not of stored values alone") from None


def _check_body(commit: Commit) -> None:
    """The journal's part: `(commit id, time, label, changes)`, each change a tuple of kind, item id and more."""
    _scan(commit.body, 0)
    try:
        journalled = loads(commit.body)
    except AtopError:
        raise MessageRefused("a commit's journal entry names what is no plain value") from None
    if (
        type(journalled) is not tuple
        or tuple(map(type, journalled)) != (int, int, str, list)
        or journalled[:3] != (commit.commit_id, commit.time, commit.label)
    ):
        raise MessageRefused("a commit's journal entry is not about this commit")
    try:
        read = decode_commit(bytes(8), bytes(CHAIN_SIZE + 8) + commit.body)
        count = len(read.changes) + len(read.names)
    except AtopError:
        count = -1
    if count != len(journalled[3]):
        raise MessageRefused("a commit's journal entry has a change of the wrong form")
