"""What an attribute may hold, and the form in which the store keeps it.

A value has two forms. The *live* form is what a program sees: items, `File`s, lists that notice their own changes.
The *stored* form is what is written: plain containers, a `Reference` for an item, a `FileInfo` for a file.
`to_stored` copies a live value into its stored form and refuses what the store does not keep.
A stored value is never changed in place once it is made, so it may be shared between records, threads and defaults.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import uuid
import zoneinfo
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from atop.errors import UnstorableValue
from atop.moments import zone_named

# How deep containers may be nested: far below Python's recursion limit, far above what data of people needs.
MAX_DEPTH = 50

# Types whose values are stored as they are, and need no second look.
ATOMS: frozenset[type] = frozenset(
    {
        type(None),
        bool,
        int,
        float,
        str,
        bytes,
        decimal.Decimal,
        uuid.UUID,
        datetime.date,
        datetime.timedelta,
    }
)


class Reference:
    """The stored form of an item as a value: its id. Immutable."""

    __slots__ = ("item_id",)

    def __init__(self, item_id: int) -> None:
        if type(item_id) is not int or not 0 < item_id < 1 << 63:
            raise ValueError(f"not an item id: {item_id!r}")
        self.item_id = item_id

    def __repr__(self) -> str:
        return f"Reference({self.item_id})"

    def __eq__(self, other: object) -> bool:
        return other.item_id == self.item_id if isinstance(other, Reference) else NotImplemented

    def __hash__(self) -> int:
        return hash((Reference, self.item_id))

    def __reduce__(self) -> tuple[type, tuple[int]]:
        return Reference, (self.item_id,)


class FileInfo:
    """The stored form of a file: what it is called, and where its contents are. Immutable.

    `digest` is the BLAKE2b-256 of the contents (32 bytes), `size` their length in bytes.
    """

    __slots__ = ("digest", "media_type", "name", "size")

    def __init__(self, digest: bytes, size: int, name: str = "", media_type: str = "") -> None:
        if type(digest) is not bytes or len(digest) != 32 or type(size) is not int or not 0 <= size < 1 << 63:
            raise ValueError("not a file: the digest must be 32 bytes and the size a number of bytes")
        if type(name) is not str or type(media_type) is not str:
            raise ValueError("not a file: name and media type must be text")
        self.digest = digest
        self.size = size
        self.name = name
        self.media_type = media_type

    def _fields(self) -> tuple[bytes, int, str, str]:
        return self.digest, self.size, self.name, self.media_type

    def described(self) -> str:
        """The file, for people: its name, size, and the beginning of its hash."""
        return f"file {self.name!r} ({self.size:,} bytes, {self.digest.hex()[:12]})"

    def __repr__(self) -> str:
        return f"FileInfo({self.name!r}, {self.size} bytes, {self.digest.hex()[:12]})"

    def __eq__(self, other: object) -> bool:
        return other._fields() == self._fields() if isinstance(other, FileInfo) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._fields())

    def __reduce__(self) -> tuple[type, tuple[bytes, int, str, str]]:
        return FileInfo, self._fields()


class UnknownValue:
    """A registered value whose class this program has not registered: kept, shown and written back unchanged."""

    __slots__ = ("data", "type_name")

    def __init__(self, type_name: str, data: Any) -> None:
        self.type_name = type_name
        self.data = data

    def __repr__(self) -> str:
        return f"<{self.type_name} {self.data!r}, of a class that is not imported here>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, UnknownValue):
            return NotImplemented
        return (other.type_name, other.data) == (self.type_name, self.data)

    def __hash__(self) -> int:
        try:
            data = frozenset(self.data.items()) if type(self.data) is dict else self.data
            return hash((self.type_name, data))
        except TypeError:  # of a class that was no frozen dataclass
            return hash(self.type_name)


ValueClass = TypeVar("ValueClass", bound=type)

_names: dict[type, str] = {}  # registered class -> name
_classes: dict[str, type] = {}  # name -> registered class


def register_value(cls: ValueClass, name: str | None = None) -> ValueClass:
    """Let attributes hold values of `cls`, an Enum or a frozen dataclass; returns `cls`, so it works as a decorator.

    `name` is what records call the class, `module.qualname` unless given. Raises TypeError for any other class,
    and for a dataclass that is not frozen, because a change inside one could not be noticed.
    """
    if dataclasses.is_dataclass(cls):
        if not cls.__dataclass_params__.frozen:  # type: ignore[attr-defined]  # typeshed leaves it out
            raise TypeError(f"{cls.__qualname__} must be @dataclass(frozen=True) to be stored")
        for field in cls.__dataclass_fields__.values():
            needed = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
            if needed and field not in dataclasses.fields(cls) and "InitVar" in str(field.type):
                raise TypeError(
                    f"{cls.__qualname__} takes {field.name}, an InitVar, which is not kept to make it again"
                )
    elif not issubclass(cls, enum.Enum):
        raise TypeError(f"{cls.__qualname__} is neither an Enum nor a frozen dataclass")
    type_name = plain_text(name or f"{cls.__module__}.{cls.__qualname__}")
    _names[cls] = type_name
    _classes[type_name] = cls
    return cls


def is_registered(cls: type) -> bool:
    """Whether `register_value` has been given this class."""
    return cls in _names


def take_apart(value: Any) -> tuple[str, Any]:
    """The name and the plain data of a registered value.

    The data is an Enum's member name, a Flag's number, a dataclass's fields as a dict.
    """
    if isinstance(value, UnknownValue):
        return value.type_name, value.data
    name = _names[type(value)]
    if isinstance(value, enum.Flag):
        return name, value.value
    if isinstance(value, enum.Enum):
        return name, value.name
    return name, {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.init}


def put_together(type_name: str, data: Any) -> Any:
    """The registered value of this name and data, or an `UnknownValue` where its class is not known or refuses it."""
    cls = _classes.get(type_name)
    try:
        if cls is not None and issubclass(cls, enum.Flag):
            return cls(data)
        if cls is not None and issubclass(cls, enum.Enum):
            return cls[data]
        if cls is not None:
            return cls(**data)
    except Exception:  # noqa: S110 - the class is the application's: whatever it raises, the data is kept
        pass
    return UnknownValue(type_name, data)


def plain_text(text: str) -> str:
    """Text of a subclass of str, such as a StrEnum's, as plain str: a record cannot hold the subclass."""
    return str.__str__(text)


# Added to by item.py and files.py, which know the live classes: (live value, store) -> stored value, or None if the
# value is not theirs.
live_converters: list[Callable[[Any, Any], Any]] = []


def to_stored(value: Any, where: str, store: Any = None, depth: int = 0) -> Any:
    """A copy of `value` in its stored form, for an item of `store`; `where` names the attribute in errors.

    Raises:
        UnstorableValue: for a type the store does not keep, or containers nested more than `MAX_DEPTH` deep.
    """
    kind = type(value)
    if kind in ATOMS or kind is Reference or kind is FileInfo:
        return value
    if kind in _names or kind is UnknownValue:
        _check_depth(value, where, depth)
        if kind in _names:
            _check_registered(value, where)
        return value
    if depth > MAX_DEPTH:
        raise _too_deep(where)
    if kind is datetime.datetime or kind is datetime.time:
        return _checked_zone(value, where)
    if isinstance(value, list):
        return [to_stored(v, where, store, depth + 1) for v in value]
    if isinstance(value, dict):
        return {_hashable(k, where, store, depth): to_stored(v, where, store, depth + 1) for k, v in value.items()}
    if isinstance(value, tuple):
        return tuple(to_stored(v, where, store, depth + 1) for v in value)
    if isinstance(value, set):
        return {_hashable(v, where, store, depth) for v in value}
    if isinstance(value, frozenset):
        return frozenset(_hashable(v, where, store, depth) for v in value)
    for convert in live_converters:
        stored = convert(value, store)
        if stored is not None:
            return stored
    return _from_subclass(value, where)


def _hashable(value: Any, where: str, store: Any, depth: int) -> Any:
    stored = to_stored(value, where, store, depth + 1)
    try:
        hash(stored)
    except TypeError:
        raise UnstorableValue(f"{where}: a set or the key of a dict cannot hold {value!r}") from None
    return stored


def _checked_zone(value: Any, where: str) -> Any:
    zone = value.tzinfo
    if zone is None or type(zone) is datetime.timezone:
        return value
    if type(zone) is zoneinfo.ZoneInfo and zone.key:
        zone_named(zone.key)  # it may have come from a file, by a name that nobody else knows
        return value
    raise UnstorableValue(
        f"{where}: time zone {zone!r} cannot be stored: use datetime.timezone or zoneinfo.ZoneInfo with a name"
    )


def _too_deep(where: str) -> UnstorableValue:
    return UnstorableValue(f"{where}: values may be nested {MAX_DEPTH} deep; this goes deeper")


def _check_depth(value: Any, where: str, depth: int) -> None:
    """Refuse what is nested deeper than a record may be, in which a dataclass is a name and a dict of its fields."""
    kind = type(value)
    inner: Iterable[Any] = ()
    if kind is UnknownValue:
        inner = (value.data,)
    elif kind in _names and not isinstance(value, enum.Enum):
        depth += 1
        inner = [getattr(value, field.name) for field in dataclasses.fields(value) if field.init]
    elif kind is dict:
        inner = [*value, *value.values()]
    elif kind in (list, tuple, set, frozenset):
        inner = value
    else:
        return
    if depth > MAX_DEPTH:
        raise _too_deep(where)
    for each in inner:
        _check_depth(each, where, depth + 1)


def _check_registered(value: Any, where: str) -> None:
    """Refuse what a registered dataclass may not hold: it is stored as it is, so nothing in it may change."""
    if isinstance(value, enum.Enum):
        return
    waiting = [(f.name, getattr(value, f.name)) for f in dataclasses.fields(value) if f.init]
    for name, inner in waiting:
        kind = type(inner)
        if kind in _names:
            _check_registered(inner, where)
        elif kind is tuple or kind is frozenset:
            waiting.extend((name, v) for v in inner)
        elif kind is datetime.datetime or kind is datetime.time:
            _checked_zone(inner, where)
        elif kind not in ATOMS and kind is not UnknownValue:
            raise UnstorableValue(
                f"{where}: {name} of {type(value).__qualname__} holds a {kind.__qualname__}: a registered dataclass "
                "holds plain values, tuples and frozensets of them, and other registered values"
            )


def _from_subclass(value: Any, where: str) -> Any:
    """Subclasses of str, int, float and bytes (but no Enum) are kept as their plain base."""
    if isinstance(value, enum.Enum):
        raise UnstorableValue(
            f"{where}: the Enum {type(value).__qualname__} is not registered: decorate it with @atop.register_value"
        )
    if isinstance(value, str):
        return plain_text(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, bytes):
        return bytes(value)
    hint = ": register it with @atop.register_value" if dataclasses.is_dataclass(value) else ""
    raise UnstorableValue(f"{where}: a {type(value).__qualname__} cannot be stored{hint}")


def order_value(value: Any) -> Any:
    """What stands for a stored value in an index: an Enum's member name, a Flag's number, a file's name, else itself.

    It depends on nothing but what the record holds, so it is the same where a registered class is not imported.
    """
    kind = type(value)
    if kind in ATOMS:
        return value
    if isinstance(value, enum.Flag):
        return value.value
    if isinstance(value, enum.Enum):
        return value.name
    if kind is UnknownValue:
        return value.data
    if kind is FileInfo:
        return value.name
    if kind is tuple or isinstance(value, list):
        return tuple(map(order_value, value))
    return value


def walk(value: Any) -> Iterator[Any]:
    """The Reference and FileInfo values inside a stored value, at any depth."""
    kind = type(value)
    if kind is Reference or kind is FileInfo:
        yield value
    elif kind is list or kind is tuple or kind is set or kind is frozenset:
        for inner in value:
            if type(inner) not in ATOMS:
                yield from walk(inner)
    elif kind is dict:
        for key, inner in value.items():
            if type(key) not in ATOMS:
                yield from walk(key)
            if type(inner) not in ATOMS:
                yield from walk(inner)
