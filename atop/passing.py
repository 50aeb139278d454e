"""What passes between processes that share a store, beyond keys and records: commits, errors, plain values.

Promises: what `write_set_from` returns has the form that the engine expects, whatever the bytes: tables, keys and
counts that it may apply. It loads no pickle for that: records and journal entries go into the store as they are, and
are read by `records` like all others. Both sides are processes of one user, who may write to the store's files
anyhow, so it is mistakes that are kept out here, not a person.

A commit travels as a list (see `wire`):

    0   u64 commit id, u64 time, u64 length (about how many bytes the operations take), u8 durability,
        u64 the position at which all checks were known to hold, or 0
    1   label, UTF-8            2   body, what the journal keeps
    3   checks: pairs of u64    4   exists: u64s         5   unreferenced: u64s     6   emptied: u64s
    7   sizes: pairs of u64     8   files: digests of 32 bytes
    9   names: a list of name, item id as u64 or None, ...
    10  counters: a list of key, what to add as i64, ...
    11  operations: a list of table, a list of key, value to put or None to delete, ..., and so on

An error travels as the name of its class, its text, and its fields.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Any, Final

from atop.database import Durability
from atop.errors import AtopError, StoreError, UnsafePickle, UnstorableValue
from atop.forms import misshapen
from atop.pickles import scan
from atop.records import checked, dumps, loads
from atop.values import to_stored, walk
from atop.wire import WireError, pack_list, present, unpack_list
from atop.writeset import CATALOG, INDEX, ITEMS, REFERENCES, Operations, WriteSet

DURABILITIES: Final[tuple[Durability, ...]] = ("buffered", "flushed", "replicated")
DIGEST_SIZE: Final = 32
# The most bytes of a plain value that is asked with, or answered: such calls are for a few words and figures.
MAX_PLAIN: Final = 16 << 20

_start = struct.Struct(">QQQBQ")


def write_set_to(write_set: WriteSet, durability: Durability, position: int) -> list[bytes | None]:
    """The list that `write_set` travels as; `position` is that at which its checks held, or 0."""
    operations: list[bytes | None] = []
    for table, of_table in write_set.operations.items():
        if of_table:
            operations += (table.encode(), pack_list([part for operation in of_table.items() for part in operation]))
    names = [part for name, item_id in write_set.names for part in (name.encode(), _optional(item_id))]
    counters: list[bytes | None] = []
    for key, more in write_set.counters.items():
        counters += (key, more.to_bytes(8, signed=True))
    return [
        _start.pack(write_set.commit_id, write_set.time, write_set.length, DURABILITIES.index(durability), position),
        write_set.label.encode("utf-8", "surrogatepass"),
        write_set.body,
        _numbers(number for check in write_set.checks.items() for number in check),
        _numbers(write_set.exists),
        _numbers(write_set.unreferenced),
        _numbers(write_set.emptied),
        _numbers(number for size in write_set.sizes for number in size),
        b"".join(write_set.files),
        pack_list(names),
        pack_list(counters),
        pack_list(operations),
    ]


def write_set_from(elements: Sequence[bytes | None]) -> tuple[WriteSet, Durability, int]:
    """The WriteSet in a list, how durable it is to be, and the position that it names. Raises `WireError`."""
    parts = present(elements, 12)
    try:
        commit_id, time, length, durability, position = _start.unpack(parts[0])
        names, counters = unpack_list(parts[9]), present(unpack_list(parts[10]))
        operations: dict[str, Operations] = {ITEMS: {}, INDEX: {}, REFERENCES: {}, CATALOG: {}}
        tables = present(unpack_list(parts[11]))
        for table, listed in zip(tables[::2], tables[1::2], strict=True):
            operations[table.decode()] = _operations(unpack_list(listed))
        write_set = WriteSet(
            commit_id,
            time,
            parts[1].decode("utf-8", "surrogatepass"),
            checks=dict(_pairs(parts[3])),
            exists=_unpacked(parts[4]),
            unreferenced=_unpacked(parts[5]),
            emptied=_unpacked(parts[6]),
            names=[
                (present([name])[0].decode(), None if item_id is None else int.from_bytes(item_id))
                for name, item_id in zip(names[::2], names[1::2], strict=True)
            ],
            operations=operations,
            counters={k: int.from_bytes(v, signed=True) for k, v in zip(counters[::2], counters[1::2], strict=True)},
            body=parts[2],
            length=length,
            files=[parts[8][at : at + DIGEST_SIZE] for at in range(0, len(parts[8]), DIGEST_SIZE)],
            sizes=_pairs(parts[7]),
        )
        chosen = DURABILITIES[durability]
    except (struct.error, ValueError, LookupError) as error:
        raise WireError("a commit does not have the form of one") from error
    _check(write_set)
    return write_set, chosen, position


def _check(write_set: WriteSet) -> None:
    """Raise `WireError` if something would be written that is of no table's form."""
    if not 0 < write_set.commit_id < 1 << 63 or not write_set.time < 1 << 63:
        raise WireError("a commit does not have the form of one")
    if (what := misshapen(write_set.operations, write_set.counters)) is not None:
        raise WireError(f"a commit has {what}")


def _operations(flat: list[bytes | None]) -> Operations:
    return dict(zip(present(flat[::2]), flat[1::2], strict=True))


def _optional(item_id: int | None) -> bytes | None:
    return None if item_id is None else item_id.to_bytes(8)


def _numbers(numbers: Iterable[int]) -> bytes:
    listed = list(numbers)
    return struct.pack(f">{len(listed)}Q", *listed)


def _unpacked(data: bytes) -> list[int]:
    return list(struct.unpack(f">{len(data) // 8}Q", data))


def _pairs(data: bytes) -> list[tuple[int, int]]:
    numbers = _unpacked(data)
    return list(zip(numbers[::2], numbers[1::2], strict=True))


# -- errors


def error_to(error: AtopError) -> list[bytes | None]:
    """The list that an error travels as."""
    fields = {name: value for name, value in vars(error).items() if type(value) in _FIELDS}
    fields |= {name: [*value] for name, value in vars(error).items() if type(value) is tuple and _plain_ids(value)}
    return [type(error).__name__.encode(), str(error).encode("utf-8", "surrogatepass"), dumps(fields)]


def error_from(elements: Sequence[bytes | None]) -> AtopError:
    """The error in a list; one of a class that this program has not imported is a `StoreError`."""
    name, text, fields = present(elements, 3)
    kind = _classes().get(name.decode(errors="replace"), StoreError)
    said = text.decode("utf-8", "surrogatepass")
    error = kind.__new__(kind)
    error.args = (said,)
    if kind is StoreError:
        error.path = None  # type: ignore[attr-defined]  # a StoreError has one
    for field, value in plain_from(fields).items():
        setattr(error, str(field), tuple(value) if type(value) is list else value)
    return error


_FIELDS: Final = frozenset({int, str, bytes, bool, type(None)})


def _plain_ids(value: tuple[Any, ...]) -> bool:
    return all(type(inner) is int for inner in value)


def _classes() -> dict[str, type[AtopError]]:
    """Every class of errors of ours that is imported, by name."""
    found: dict[str, type[AtopError]] = {}
    waiting: list[type[AtopError]] = [AtopError]
    while waiting:
        kind = waiting.pop()
        found[kind.__name__] = kind
        waiting += kind.__subclasses__()
    return found


# -- plain values


def plain_to(value: Any, what: str) -> bytes:
    """A plain value as bytes. Raises `UnstorableValue`, naming `what` it is, if it is none."""
    stored = to_stored(value, what)
    if next(walk(stored), None) is not None:
        raise UnstorableValue(f"{what} holds an item or a file, and is to be plain values: pass its number instead")
    return dumps(stored)


def plain_from(data: bytes) -> Any:
    """The plain value in `data`. Raises `UnsafePickle`."""
    if len(data) > MAX_PLAIN:
        raise UnsafePickle(f"a value of {len(data):,} bytes is too long to be passed from one process to another")
    scan(data)
    return checked(loads(data), len(data))
