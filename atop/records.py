"""Item records and commit records as bytes, and the only place that unpickles.

An item record is its version (u64, big-endian) followed by a pickle, protocol 5, of
`(type name, schema version, {attribute: stored value}, pool ids)`. Dates and datetimes that have a plain form stand
there in it (see `moments`); a fifth element has their places in the dict, from 0.

Promises: what `dumps` writes, `loads` reads back equal. `loads` builds the value types of `atop.values` and nothing
else, whoever wrote the bytes: a pickle that names any other class or function raises `UnsafePickle`, and nothing that
it names is imported, called or changed. Damaged bytes raise `UnsafePickle` too, never an exception of pickle's own.
What comes out is a tree of stored values, no deeper and no larger than the bytes account for, so that it can be walked.

What it does not promise is that loading hostile bytes takes little memory: a few of them can ask for gigabytes, and
what tells so beforehand, `pickles.scan`, takes many times as long as loading. Commits that come from another device
are scanned before they are loaded or written; what is in the store's own files is scanned by `Store.verify` alone.
"""

from __future__ import annotations

import copyreg
import datetime
import decimal
import io
import operator
import pickle
import struct
import uuid
import zoneinfo
from collections.abc import Callable
from typing import Any, NamedTuple

from atop import moments
from atop.errors import UnsafePickle, UnstorableValue
from atop.pickles import scan
from atop.values import ATOMS, MAX_DEPTH, FileInfo, Reference, UnknownValue, is_registered, put_together, take_apart

PROTOCOL = 5
# The largest record, in bytes, that is written: one record travels and is locked as a whole; contents belong in Files.
MAX_RECORD = 64 << 20

# Containers within containers that a record may have: more than `values.MAX_DEPTH` in a list of changes of the journal.
DEEPEST = MAX_DEPTH + 10
# Bytes of a pickle, and tuples in it, up to which it cannot nest them so deep that hashing one overflows the stack.
UNSUSPICIOUS = 10_000
_TUPLE_MAKERS = (pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3, pickle.TUPLE, pickle.FROZENSET)

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


class _Parts:
    """A registered value while its pickle is read: put together afterwards, out of reach of further instructions."""

    __slots__ = ("data", "type_name")
    data: Any
    type_name: str

    def __init__(self, type_name: str, data: Any) -> None:
        if type(type_name) is not str:
            raise UnsafePickle("a record names a registered class by something other than text")
        object.__setattr__(self, "type_name", type_name)
        object.__setattr__(self, "data", data)

    def __setattr__(self, name: str, value: Any) -> None:
        raise UnsafePickle(f"a pickle tried to change {name!r} of a value it had made")


# How a pickle names the function that puts a registered value together.
_PARTS = "atop.values", "put_together"


def _zone(key: str) -> zoneinfo.ZoneInfo:
    return moments.zone_named(key)


def _uuid(data: bytes) -> uuid.UUID:
    return uuid.UUID(bytes=data)


def _decimal(text: str) -> decimal.Decimal:
    if type(text) is not str:  # a long int would take the square of its length to convert
        raise UnsafePickle("a record makes a Decimal of something other than text")
    return decimal.Decimal(text)


def _allowed() -> dict[tuple[str, str], Any]:
    """What a pickle may name. Classes that C code keeps immutable stand for themselves; the rest is wrapped."""
    immutable_type = 1 << 8  # Py_TPFLAGS_IMMUTABLETYPE
    table: dict[tuple[str, str], Any] = {
        ("atop.records", "_zone"): _Constructor(_zone),
        ("atop.values", "Reference"): _Constructor(Reference),
        ("atop.values", "FileInfo"): _Constructor(FileInfo),
        _PARTS: _Constructor(_Parts),
        ("atop.records", "_uuid"): _Constructor(_uuid),
        ("decimal", "Decimal"): _Constructor(_decimal),
    }
    for cls in (
        datetime.date,
        datetime.datetime,
        datetime.time,
        datetime.timedelta,
        datetime.timezone,
    ):
        table[cls.__module__, cls.__qualname__] = cls if cls.__flags__ & immutable_type else _Constructor(cls)
    return table


_ALLOWED = _allowed()
_MAKES_PARTS = _ALLOWED[_PARTS]
# Atoms that no instruction can have changed after they were made: a UUID is a Python object.
_SURE = ATOMS - {uuid.UUID}
# Values that are no atoms and hold no others. Classes that are registered come as their parts.
_LEAVES = frozenset({datetime.datetime, datetime.time, datetime.timezone, zoneinfo.ZoneInfo})
_FLAT = frozenset({list, tuple, set, frozenset})
_are_sure = _SURE.issuperset
# Elements up to which a list of atoms is looked at without being counted against the bytes of its record.
_FEW = 200


class _Unpickler(pickle.Unpickler):
    """Builds plain values, and the parts of registered ones; refuses everything else by name."""

    __slots__ = ("has_parts",)

    def find_class(self, module: str, name: str) -> Any:
        allowed = _ALLOWED.get((module, name))
        if allowed is None:
            raise UnsafePickle(
                f"a record names {module}.{name}, which is not a value that Atop stores; it was not executed"
            )
        if allowed is _MAKES_PARTS:
            self.has_parts = True
        return allowed


# What libraries have given a number in pickles, instead of a name: nothing, as a rule.
_extensions: dict[tuple[str, str], int] = copyreg._extension_registry  # type: ignore[attr-defined]


def _unpickler(data: bytes) -> _Unpickler:
    if _extensions:  # what has a number is found without a name, and then not asked for by `find_class`
        scan(data)
    return _Unpickler(io.BytesIO(data))


_load = pickle.loads
_from_ordinal = datetime.date.fromordinal
# All bytes but those that begin an instruction which names something, and the end of a line. A later protocol may have
# others, and pickle's own unpickler in Python, where there is none in C, takes the end of the data for that of a line.
_IS_KNOWN = pickle.HIGHEST_PROTOCOL == PROTOCOL and pickle.Unpickler.__module__ == "_pickle"
_HARMLESS = bytes(set(range(256)) - set(b"\x93\x82\x83\x84\n")) if _IS_KNOWN else b""
_NAMES_NOTHING = b"", b"\n"  # what may be left without them


def names_nothing(data: bytes) -> bool:
    """Whether a pickle has none of the instructions that name a class or function, so that it may just be loaded.

    What it makes are then numbers, texts and containers of these, and nothing to call is among them. STACK_GLOBAL and
    the EXTs are known by their byte; GLOBAL and INST by the two lines that they take. These bytes may stand for
    something else, too, in a text of several lines, say: then the answer is False, and it is the unpickler that looks
    at each name, which takes longer and comes to the same.
    """
    return data.translate(None, _HARMLESS) in _NAMES_NOTHING


def loads(data: bytes) -> Any:
    """The value in `data`.

    Raises:
        UnsafePickle: `data` names something that is no storable value, or is not a pickle at all.
    """
    try:
        if len(data) > UNSUSPICIOUS:
            _check_nesting(data)
        if names_nothing(data):
            return _load(data)
        unpickler = _unpickler(data)
        value = unpickler.load()
    except (UnsafePickle, UnstorableValue):
        raise
    except Exception as error:  # a hostile pickle can raise nearly anything out of the unpickler
        raise UnsafePickle(f"a record is damaged and cannot be read: {type(error).__name__}: {error}") from error
    return checked(value, len(data)) if hasattr(unpickler, "has_parts") else value


def checked(value: Any, size: int) -> Any:
    """A value that was loaded from `size` bytes, if it is a tree of stored values. Raises `UnsafePickle`."""
    return _Tree(size).checked(value)


class _Tree:
    """Walks what was loaded from `size` bytes: each node of a tree takes a byte at least.

    What `dumps` writes has every container in one place only, so whatever takes more was made to.
    """

    def __init__(self, size: int) -> None:
        self._left = size

    def checked(self, value: Any) -> Any:
        """`value` with its registered values put together; the same object where there are none. See `checked`."""
        try:
            return self._checked(value, 0)
        except TypeError as error:
            raise UnsafePickle(f"a record holds a set or dict of what these cannot hold: {error}") from error

    def _count(self, nodes: int, depth: int) -> None:
        self._left -= nodes
        if self._left < 0:
            raise UnsafePickle("a record holds more than its bytes account for: it has a value in several places")
        if depth > DEEPEST:
            raise UnsafePickle("a record nests values deeper than Atop stores them")

    def _checked(self, value: Any, depth: int) -> Any:
        kind = type(value)
        if kind in _SURE:
            return value
        if kind in _FLAT:
            self._count(len(value), depth)
            if _are_sure(map(type, value)):
                return value
            inner = [self._checked(v, depth + 1) for v in value]
            return value if all(map(operator.is_, inner, value)) else kind(inner)
        if kind is dict:
            self._count(2 * len(value), depth)
            pairs = {self._checked(k, depth + 1): self._checked(v, depth + 1) for k, v in value.items()}
            same = (
                len(pairs) == len(value)
                and all(map(operator.is_, pairs, value))
                and all(map(operator.is_, pairs.values(), value.values()))
            )
            return value if same else pairs
        if kind is _Parts:
            self._count(1, depth)
            return put_together(value.type_name, self._checked(value.data, depth + 1))
        if not _is_leaf(value):
            raise UnsafePickle(f"a record holds a {kind.__name__} that is not a value that Atop stores")
        return value


def _is_leaf(value: Any) -> bool:
    """Whether a value that holds no others is a stored one: an instruction may have changed what made it so."""
    kind = type(value)
    if kind is Reference:
        return type(value.item_id) is int and 0 < value.item_id < 1 << 63
    if kind is FileInfo:
        numbers = type(value.digest) is bytes and len(value.digest) == 32 and type(value.size) is int
        return numbers and 0 <= value.size < 1 << 63 and type(value.name) is type(value.media_type) is str
    if kind is uuid.UUID:
        return type(value.int) is int and 0 <= value.int < 1 << 128
    return kind in _LEAVES or kind is UnknownValue or is_registered(kind)


def _check_nesting(data: bytes, start: int = 0) -> None:
    """Scan a pickle that makes so many tuples that Python might run out of stack when it hashes one of them."""
    if sum(map(data.count, _TUPLE_MAKERS)) > UNSUSPICIOUS:
        scan(data, start)


def _reduce_uuid(value: uuid.UUID) -> tuple[Any, tuple[bytes]]:
    return _uuid, (value.bytes,)


class _Apart:
    """A registered value, taken apart, in one place of what is about to be pickled."""

    __slots__ = ("data", "type_name")

    def __init__(self, type_name: str, data: Any) -> None:
        self.type_name = type_name
        self.data = data

    def __reduce__(self) -> tuple[Any, tuple[str, Any]]:
        return put_together, (self.type_name, self.data)


def apart(value: Any) -> Any:
    """A copy of a stored value for `dumps`, registered values taken apart, with no container in two places.

    A pickle has what is in several places once, and then the value is larger than the bytes account for.
    """
    kind = type(value)
    if kind in _FLAT:
        return kind(map(apart, value))
    if kind is dict:
        return {apart(k): apart(v) for k, v in value.items()}
    if kind is UnknownValue or is_registered(kind):
        type_name, data = take_apart(value)
        return _Apart(type_name, apart(data))
    return value


def _reduce_zone(value: zoneinfo.ZoneInfo) -> tuple[Any, tuple[str]]:
    return _zone, (value.key,)


_REDUCE: dict[type, Any] = {uuid.UUID: _reduce_uuid, zoneinfo.ZoneInfo: _reduce_zone}

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


def _check_names() -> None:
    """Refuse to write while a library has given one of the names that records have a number with copyreg."""
    for name in _ALLOWED.keys() & _extensions.keys():
        raise UnstorableValue(
            f"a library has registered {'.'.join(name)} as an extension of pickle (copyreg): what names it cannot be "
            "stored meanwhile"
        )


def dumps(value: Any) -> bytes:
    """`value`, in its stored form, as bytes that `loads` reads."""
    if _extensions:
        _check_names()
    if pickles_itself(value):
        return pickle.dumps(value, PROTOCOL)
    stream = io.BytesIO()
    pickler = pickle.Pickler(stream, PROTOCOL)
    pickler.dispatch_table = _REDUCE
    pickler.dump(apart(value))
    return stream.getvalue()


def encode(
    version: int,
    type_name: str,
    schema: int,
    attributes: dict[str, Any],
    pools: tuple[int, ...],
    kinds: set[type] | None = None,
) -> bytes:
    """An item record; `kinds` are the types of the values. Raises `UnstorableValue` past `MAX_RECORD`."""
    if kinds is None:
        kinds = set(map(type, attributes.values()))
    if _extensions:
        _check_names()
    fields: tuple[Any, ...] = type_name, schema, attributes, pools
    if not kinds.isdisjoint(moments.MOMENTS):
        attributes, places = moments.with_plain(attributes)
        fields = type_name, schema, attributes, pools, places
    if kinds <= SELF_PICKLING or all(map(pickles_itself, attributes.values())):
        body = pickle.dumps(fields, PROTOCOL)
    else:
        body = dumps(fields)
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
        if len(record) > UNSUSPICIOUS:
            _check_nesting(record, 8)
        body = record[8:]
        # `names_nothing`, written out: this is done for every item that is read.
        fields = _load(body) if body.translate(None, _HARMLESS) in _NAMES_NOTHING else _unpickler(body).load()
        if len(fields) == 5:
            type_name, schema, attributes, pools, places = fields
            names = list(attributes)
            for place in places:
                form = attributes[names[place]]
                attributes[names[place]] = _from_ordinal(form) if type(form) is int else moments.from_plain(form)
        else:
            type_name, schema, attributes, pools = fields
    except (UnsafePickle, UnstorableValue):
        raise
    except Exception as error:  # a hostile pickle can raise nearly anything out of the unpickler
        raise UnsafePickle(f"an item record is damaged and cannot be read: {type(error).__name__}: {error}") from error
    if (
        type(attributes) is not dict
        or type(type_name) is not str
        or type(schema) is not int
        or schema < 1
        or type(pools) is not tuple
    ):
        raise UnsafePickle("an item record does not have the shape of one: it is damaged, or not Atop's")
    for pool_id in pools:
        if type(pool_id) is not int or not 0 < pool_id < 1 << 63:
            raise UnsafePickle("an item record names a pool by something other than an id")
    tree: _Tree | None = None
    for name, value in attributes.items():
        if type(value) not in _SURE or type(name) is not str:
            kind = type(value)
            if type(name) is not str:
                raise UnsafePickle(f"an item record has an attribute whose name is a {type(name).__name__}, not text")
            if kind in _FLAT:
                if not value or (len(value) <= _FEW and _are_sure(map(type, value))):
                    continue
            elif kind in _LEAVES or (kind is Reference and type(value.item_id) is int and 0 < value.item_id < 1 << 63):
                continue
            tree = tree or _Tree(len(record))
            attributes[name] = tree.checked(value)
    return new_state(State, (unpack_u64(record)[0], type_name, schema, attributes, pools, None))
