"""Attribute values as JSON, without loss: what JSON cannot say is an object with one key that begins with "$".

    {"$date": "1815-12-10"}   {"$datetime": "2024-05-01T09:00:00+02:00"}   {"$decimal": "1.10"}   {"$bytes": "AQI="}
    {"$ref": 7}               {"$file": {"digest": "6b0c...", "size": 12, "name": "a.txt", "media_type": "text/plain"}}

`decode(json, ...)` of `encode(value)` is an equal value of the same type, for every value that the store keeps.
Nothing is executed: the names of registered classes are looked up among those that the program has registered.
"""

from __future__ import annotations

import base64
import datetime
import decimal
import json
import math
import uuid
import zoneinfo
from collections.abc import Callable, Mapping
from typing import Any

from atop import File, FileInfo, Item, Reference
from atop.pim.incoming import Content
from atop.pim.zones import known_zones
from atop.values import UnknownValue, is_registered, put_together, take_apart

# Deepest nesting read: as deep as the store keeps, twice, for the objects of the typed form around each value.
MAX_DEPTH = 120

# Integers beyond this are written as text, since other programs read JSON's numbers as floats.
SAFE_INTEGER = 2**53

FindItem = Callable[[int], Item | Reference | None]
FindFile = Callable[[FileInfo], File | None]


def dumps(value: Any) -> str:
    """A typed value as one line of JSON."""
    return json.dumps(encode(value), ensure_ascii=False, separators=(",", ":"))


def encode(value: Any) -> Any:
    """A value as what `json` can write."""
    if value is None or value is True or value is False or type(value) is str:
        return value
    if is_registered(type(value)) or isinstance(value, UnknownValue):  # first: it may be a kind of str or int
        name, data = take_apart(value)
        return {"$value": [name, encode(data)]}
    if isinstance(value, list):
        return [encode(inner) for inner in value]
    if isinstance(value, dict):
        if all(type(key) is str and key[:1] != "$" for key in value):
            return {key: encode(inner) for key, inner in value.items()}
        return {"$dict": [[encode(key), encode(inner)] for key, inner in value.items()]}
    for kind, write in _WRITERS:
        if isinstance(value, kind):
            return write(value)
    raise TypeError(f"a {type(value).__qualname__} has no typed form")


def _encode_int(value: int) -> Any:
    return int(value) if abs(value) < SAFE_INTEGER else {"$int": hex(value)}


def _encode_float(value: float) -> Any:
    return float(value) if math.isfinite(value) else {"$float": repr(float(value))}


def _encode_datetime(value: datetime.datetime) -> Any:
    return _encode_moment("$datetime", value)


def _encode_time(value: datetime.time) -> Any:
    return _encode_moment("$time", value)


def _encode_moment(mark: str, value: Any) -> dict[str, Any]:
    typed: dict[str, Any] = {}
    zone = value.tzinfo
    if isinstance(zone, zoneinfo.ZoneInfo):
        typed[mark] = value.replace(tzinfo=None).isoformat()
        typed["zone"] = zone.key
    else:
        typed[mark] = value.isoformat()
        if isinstance(zone, datetime.timezone) and repr(zone) != repr(_unnamed(zone)):
            typed["offset_name"] = zone.tzname(None)
    if value.fold:
        typed["fold"] = 1
    return typed


def _unnamed(zone: datetime.timezone) -> datetime.timezone:
    return datetime.timezone(zone.utcoffset(None))


def describe_file(file: File | FileInfo | Content) -> dict[str, Any]:
    """What the typed form says of a file; its contents are elsewhere."""
    digest = file.digest() if isinstance(file, Content) else file.digest
    size = len(file.data) if isinstance(file, Content) else file.size
    return {"digest": digest.hex(), "size": size, "name": file.name, "media_type": file.media_type}


def _encode_set(value: set[Any] | frozenset[Any]) -> Any:
    members = sorted((encode(inner) for inner in value), key=lambda typed: json.dumps(typed, sort_keys=True))
    return {"$frozenset" if isinstance(value, frozenset) else "$set": members}


_WRITERS: tuple[tuple[Any, Callable[[Any], Any]], ...] = (
    (int, _encode_int),
    (float, _encode_float),
    (datetime.datetime, _encode_datetime),  # before date, of which it is a subclass
    (datetime.date, lambda value: {"$date": value.isoformat()}),
    (datetime.time, _encode_time),
    (datetime.timedelta, lambda value: {"$timedelta": [value.days, value.seconds, value.microseconds]}),
    (bytes, lambda value: {"$bytes": base64.b64encode(value).decode("ascii")}),
    (decimal.Decimal, lambda value: {"$decimal": str(value)}),
    (uuid.UUID, lambda value: {"$uuid": str(value)}),
    (tuple, lambda value: {"$tuple": [encode(inner) for inner in value]}),
    ((set, frozenset), _encode_set),
    ((Item, Reference), lambda value: {"$ref": value.item_id}),
    ((File, FileInfo, Content), lambda value: {"$file": describe_file(value)}),
    (str, str),  # a subclass
)


class Decoder:
    """Reads typed values; `find_item` and `find_file` turn references and file descriptions into what they mean.

    Where they find nothing, the value is None, and `take_losses` tells.
    """

    def __init__(self, find_item: FindItem, find_file: FindFile) -> None:
        self._find_item = find_item
        self._find_file = find_file
        self._losses: list[str] = []

    def decode_all(self, typed: Mapping[str, Any]) -> tuple[dict[str, Any], list[str], set[str]]:
        """Values by name, what was not found, and in which of them. Raises ValueError."""
        values: dict[str, Any] = {}
        losses: list[str] = []
        lossy: set[str] = set()
        self._losses = []  # those of values that turned out to be none
        for name, inner in typed.items():
            values[name] = self.decode(inner)
            if self._losses:
                losses += self.take_losses()
                lossy.add(name)
        return values, losses, lossy

    def take_losses(self) -> list[str]:
        """What was not found since this was called last."""
        losses, self._losses = self._losses, []
        return losses

    def loads(self, text: str) -> Any:
        """The value of one line of JSON. Raises ValueError."""
        return self.decode(loads(text))

    def decode(self, typed: Any, depth: int = 0) -> Any:
        """The value of a typed form. Raises ValueError for what is none."""
        if depth > MAX_DEPTH:
            raise ValueError(f"is nested more than {MAX_DEPTH} deep")
        if isinstance(typed, list):
            return [self.decode(inner, depth + 1) for inner in typed]
        if not isinstance(typed, dict):
            return typed
        mark = next(iter(typed), "")
        if mark[:1] != "$":
            return {key: self.decode(inner, depth + 1) for key, inner in typed.items()}
        try:
            return self._decode_marked(mark, typed[mark], typed, depth + 1)
        except (TypeError, KeyError, ArithmeticError, AttributeError) as error:
            raise ValueError(f"has a {mark} that is none: {error}") from error

    def _decode_marked(self, mark: str, data: Any, typed: dict[str, Any], depth: int) -> Any:
        simple = _READERS.get(mark)
        if simple is not None:
            return simple(data)
        if mark in ("$datetime", "$time"):
            return _decode_time(mark, data, typed)
        if mark == "$ref":
            item = self._find_item(_checked(data, int))
            if item is None:
                self._losses.append(f"refers to item {data}, which is neither in the file nor here")
            return item
        if mark == "$file":
            file = self._find_file(file_info(data))
            if file is None:
                self._losses.append(f"has the file {data['name']!r}, whose contents are neither in the file nor here")
            return file
        inner = [self.decode(part, depth) for part in _checked(data, list)]
        if mark == "$tuple":
            return tuple(inner)
        if mark == "$set":
            return set(inner)
        if mark == "$frozenset":
            return frozenset(inner)
        if mark == "$dict":
            return dict(inner)
        if mark == "$value":
            name, value = inner
            return put_together(_checked(name, str), value)
        raise ValueError(f"has a value marked {mark[:40]!r}, which this version does not know")


def loads(text: str) -> Any:
    """JSON as `json` reads it, every failure a ValueError."""
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("is nested too deep") from None


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def file_info(data: Any) -> FileInfo:
    """The description of a file. Raises ValueError or TypeError."""
    digest = bytes.fromhex(_checked(data["digest"], str))
    return FileInfo(digest, _checked(data["size"], int), _checked(data["name"], str), _checked(data["media_type"], str))


def _checked(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise TypeError(f"{kind.__name__} expected, not {type(value).__name__}")
    return value


def _decode_time(mark: str, data: Any, typed: dict[str, Any]) -> Any:
    cls: Any = datetime.datetime if mark == "$datetime" else datetime.time
    value = cls.fromisoformat(_checked(data, str))
    zone = typed.get("zone")
    if zone is not None:
        if zone not in known_zones():
            raise ValueError(f"has the time zone {zone!r}, which is not known here: install tzdata")
        value = value.replace(tzinfo=zoneinfo.ZoneInfo(zone))
    elif "offset_name" in typed:
        value = value.replace(tzinfo=datetime.timezone(value.utcoffset(), _checked(typed["offset_name"], str)))
    return value.replace(fold=1) if typed.get("fold") == 1 else value


_READERS: dict[str, Callable[[Any], Any]] = {
    "$int": lambda data: int(_checked(data, str), 16),
    "$float": lambda data: float(_checked(data, str)),
    "$date": lambda data: datetime.date.fromisoformat(_checked(data, str)),
    "$timedelta": lambda data: datetime.timedelta(*(_checked(part, int) for part in data[:3])),
    "$bytes": lambda data: base64.b64decode(_checked(data, str), validate=True),
    "$decimal": lambda data: decimal.Decimal(_checked(data, str)),
    "$uuid": lambda data: uuid.UUID(_checked(data, str)),
}
