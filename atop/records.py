"""Item records and commit records as bytes, and the only place that unpickles.

An item record is its version (u64, big-endian) followed by a pickle, protocol 5, of
`(type name, schema version, {attribute: stored value}, pool ids)`.

Promises: what `dumps` writes, `loads` reads back equal. `loads` builds the value types of `atop.values` and nothing
else, whoever wrote the bytes: a pickle that names any other class or function raises `UnsafePickle`, and nothing that
it names is imported, called or changed. Damaged bytes raise `UnsafePickle` too, never an exception of pickle's own.
"""

from __future__ import annotations

import datetime
import decimal
import io
import pickle
import struct
import uuid
import zoneinfo
from collections.abc import Callable
from typing import Any, NamedTuple

from atop.errors import UnsafePickle, UnstorableValue
from atop.values import ATOMS, FileInfo, Reference, UnknownValue, put_together, registered_types, take_apart

PROTOCOL = 5
# The largest record, in bytes, that is written: one record travels and is locked as a whole; contents belong in Files.
MAX_RECORD = 64 << 20

pack_u64 = struct.Struct(">Q").pack
unpack_u64 = struct.Struct(">Q").unpack_from


class State(NamedTuple):
    """An item as one commit left it. Invariant: nothing in it is ever changed in place."""

    version: int  # id of the commit that wrote it
    type_name: str
    schema: int  # version of the class that wrote it
    attributes: dict[str, Any]  # name -> stored value
    pools: tuple[int, ...]  # ids of the pools that hold the item, ascending
    raw: State | None = None  # as the record has it, where the item's class has upgraded it since


# What State(...) comes to, without the call in between: one is made for every item read or written.
new_state = tuple.__new__


class _Constructor:
    """A callable that a pickle may call and can do nothing else with.

    The unpickler's BUILD instruction sets attributes on whatever it is given; having no slot and no `__dict__` to
    set, and not being a class, this cannot be changed by it, nor subclassed or instantiated without its check.
    """

    __slots__ = ("_make",)
    _make: Callable[..., Any]

    def __init__(self, make: Callable[..., Any]) -> None:
        object.__setattr__(self, "_make", make)

    def __call__(self, *arguments: Any) -> Any:
        return self._make(*arguments)

    def __setattr__(self, name: str, value: Any) -> None:
        raise UnsafePickle(f"a pickle tried to change {name!r} of what it may only call")


def _zone(key: str) -> zoneinfo.ZoneInfo:
    try:
        return zoneinfo.ZoneInfo(key)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError) as error:
        raise UnstorableValue(f"time zone {key!r} is not known on this device: install tzdata") from error


def _uuid(data: bytes) -> uuid.UUID:
    return uuid.UUID(bytes=data)


def _allowed() -> dict[tuple[str, str], Any]:
    """What a pickle may name. Classes that C code keeps immutable stand for themselves; the rest is wrapped."""
    immutable_type = 1 << 8  # Py_TPFLAGS_IMMUTABLETYPE
    table: dict[tuple[str, str], Any] = {
        ("atop.records", "_zone"): _Constructor(_zone),
        ("atop.values", "Reference"): _Constructor(Reference),
        ("atop.values", "FileInfo"): _Constructor(FileInfo),
        ("atop.values", "put_together"): _Constructor(put_together),
        ("atop.records", "_uuid"): _Constructor(_uuid),
    }
    for cls in (
        datetime.date,
        datetime.datetime,
        datetime.time,
        datetime.timedelta,
        datetime.timezone,
        decimal.Decimal,
    ):
        table[cls.__module__, cls.__qualname__] = cls if cls.__flags__ & immutable_type else _Constructor(cls)
    return table


_ALLOWED = _allowed()


class _Unpickler(pickle.Unpickler):
    """Builds plain values; refuses everything else by name."""

    __slots__ = ()

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise UnsafePickle(
                f"a record names {module}.{name}, which is not a value that Atop stores; it was not executed"
            ) from None


def loads(data: bytes) -> Any:
    """The value in `data`.

    Raises:
        UnsafePickle: `data` names something that is no storable value, or is not a pickle at all.
    """
    try:
        return _Unpickler(io.BytesIO(data)).load()
    except (UnsafePickle, UnstorableValue):
        raise
    except Exception as error:  # a hostile pickle can raise nearly anything out of the unpickler
        raise UnsafePickle(f"a record is damaged and cannot be read: {type(error).__name__}: {error}") from error


def _reduce_uuid(value: uuid.UUID) -> tuple[Any, tuple[bytes]]:
    return _uuid, (value.bytes,)


def _reduce_registered(value: Any) -> tuple[Any, tuple[str, Any]]:
    return put_together, take_apart(value)


def _reduce_zone(value: zoneinfo.ZoneInfo) -> tuple[Any, tuple[str]]:
    return _zone, (value.key,)


# Types that pickle writes by itself, with no name or with one that `_ALLOWED` has.
SELF_PICKLING = (ATOMS - {uuid.UUID}) | {Reference, FileInfo}


def pickles_itself(value: Any) -> bool:
    """Whether plain `pickle.dumps` writes `value` as `loads` wants it; it is several times as fast as `dumps`."""
    kind = type(value)
    if kind in SELF_PICKLING:
        return True
    if kind is list or kind is tuple or kind is set or kind is frozenset:
        return all(map(pickles_itself, value))
    if kind is dict:
        return all(map(pickles_itself, value)) and all(map(pickles_itself, value.values()))
    if kind is datetime.datetime or kind is datetime.time:
        return value.tzinfo is None or type(value.tzinfo) is datetime.timezone
    return False


def dumps(value: Any) -> bytes:
    """`value`, in its stored form, as bytes that `loads` reads."""
    if pickles_itself(value):
        return pickle.dumps(value, PROTOCOL)
    stream = io.BytesIO()
    pickler = pickle.Pickler(stream, PROTOCOL)
    table: dict[type, Any] = {
        uuid.UUID: _reduce_uuid,
        zoneinfo.ZoneInfo: _reduce_zone,
        UnknownValue: _reduce_registered,
    }
    for cls in registered_types():
        table[cls] = _reduce_registered
    pickler.dispatch_table = table
    pickler.dump(value)
    return stream.getvalue()


def encode(version: int, type_name: str, schema: int, attributes: dict[str, Any], pools: tuple[int, ...]) -> bytes:
    """An item record. Raises `UnstorableValue` past `MAX_RECORD`."""
    for value in attributes.values():
        if type(value) not in SELF_PICKLING and not pickles_itself(value):
            body = dumps((type_name, schema, attributes, pools))
            break
    else:
        body = pickle.dumps((type_name, schema, attributes, pools), PROTOCOL)
    if len(body) > MAX_RECORD:
        raise UnstorableValue(
            f"a {type_name} item takes {len(body):,} bytes; the limit is {MAX_RECORD:,}: keep large contents in a File"
        )
    return pack_u64(version) + body


def decode(record: bytes) -> State:
    """The state in an item record, as read from disk.

    Raises:
        UnsafePickle: see `loads`; also when the record does not have the shape of one.
    """
    try:
        type_name, schema, attributes, pools = _Unpickler(io.BytesIO(record[8:])).load()
    except (UnsafePickle, UnstorableValue):
        raise
    except Exception as error:  # a hostile pickle can raise nearly anything out of the unpickler
        raise UnsafePickle(f"an item record is damaged and cannot be read: {type(error).__name__}: {error}") from error
    if (
        type(attributes) is not dict
        or type(type_name) is not str
        or type(schema) is not int
        or type(pools) is not tuple
    ):
        raise UnsafePickle("an item record does not have the shape of one: it is damaged, or not Atop's")
    return new_state(State, (unpack_u64(record)[0], type_name, schema, attributes, pools, None))
