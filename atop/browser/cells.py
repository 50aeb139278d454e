"""Stored values as the script shows them: what kind each is, its text, and what an editor needs.

A cell is JSON: null where the item has no such attribute and its class no default; a string for a text of one line;
true or false; else an object with `k`, the kind, and `t`, the text that is shown and, for kinds in `reading.KINDS`,
edited. More of it: `cut`, the length of a text that is longer than what is sent; `id` of an item that is referred to,
`gone` if it was deleted; `size` and `type` of a file.

Texts are those of the data, whatever they hold: the page shows them as text.
"""

from __future__ import annotations

import datetime
import decimal
import enum
import uuid
from collections.abc import Mapping
from typing import Any

from atop import AtopError, FileInfo, Item, NoSuchItem, Reference, Store, UnknownValue
from atop.values import take_apart

# Characters of a text, and of a container's description, that are sent for a cell of a table.
SHOWN = 240
# Bytes that are sent in hexadecimal.
SHOWN_BYTES = 64
# Elements of a container that are described, and how deep.
SHOWN_ELEMENTS = 12
SHOWN_DEPTH = 3

ABSENT: Any = object()

# What an item is called, by the first of these that is a text.
NAMES = ("name", "title", "summary", "subject", "label")


def kind_of(value: Any) -> str:
    """The kind of a stored value."""
    if value is None:
        return "none"
    kind = _KINDS.get(type(value))
    if kind is not None:
        return kind
    return "enum" if isinstance(value, enum.Enum) else "value"


_KINDS: dict[type, str] = {
    bool: "bool",
    int: "int",
    float: "float",
    str: "str",
    bytes: "bytes",
    decimal.Decimal: "decimal",
    uuid.UUID: "uuid",
    datetime.datetime: "datetime",
    datetime.date: "date",
    datetime.time: "time",
    datetime.timedelta: "timedelta",
    list: "list",
    tuple: "tuple",
    set: "set",
    frozenset: "frozenset",
    dict: "dict",
    Reference: "ref",
    FileInfo: "file",
}


def stored_of(item: Item) -> dict[str, Any]:
    """All attributes of an item in their stored form, those that have the default of their class included."""
    return {**type(item)._defaults, **item._read()}


def cell(store: Store, value: Any, shown: int = SHOWN) -> Any:
    """A stored value, or ABSENT, as a cell."""
    if value is ABSENT:
        return None
    if type(value) is bool:
        return value
    if type(value) is str:
        text = clean(value)
        if len(text) > shown:
            return {"k": "str", "t": text[:shown], "cut": len(text)}
        return text if "\n" not in text else {"k": "str", "t": text}
    kind = kind_of(value)
    if kind == "ref":
        label = label_of(store, value.item_id)
        found = {"k": kind, "id": str(value.item_id), "t": label or f"item {value.item_id}, deleted"}
        return found if label is not None else {**found, "gone": True}
    if kind == "file":
        return {"k": kind, "t": clean(value.name) or "file", "size": value.size, "type": value.media_type[:100]}
    text = text_of(value, store)
    if len(text) > shown:
        return {"k": kind, "t": text[:shown], "cut": len(text)}
    return {"k": kind, "t": text}


def clean(text: str) -> str:
    """The text with halves of surrogate pairs replaced, which UTF-8 has no bytes for."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def text_of(value: Any, store: Store | None = None, depth: int = 0) -> str:
    """A stored value as text: what an editor takes again, for kinds that are edited as text, else a description."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case str():
            return clean(value)
        case enum.Enum() | UnknownValue():
            return clean(_registered(value))
        case int():
            return integer_text(value)
        case datetime.datetime():
            return value.isoformat(" ", "auto" if value.second or value.microsecond else "minutes")
        case datetime.timedelta():
            return duration_text(value)
        case datetime.date() | datetime.time():
            return value.isoformat()
        case bytes():
            return value[:SHOWN_BYTES].hex(" ") + (" ..." if len(value) > SHOWN_BYTES else "")
        case Reference():
            found = label_of(store, value.item_id) if store is not None else None
            return found or f"item {value.item_id}"
        case FileInfo():
            return clean(value.name) or "file"
        case Mapping() | list() | tuple() | set() | frozenset():
            return _container(value, store, depth)
    if isinstance(value, (float, decimal.Decimal, uuid.UUID)):
        return str(value)
    return clean(_registered(value))


def _container(value: Any, store: Store | None, depth: int) -> str:
    if depth >= SHOWN_DEPTH:
        return "..."
    parts: list[str] = []
    members = value.items() if isinstance(value, Mapping) else value
    for number, member in enumerate(members):
        if number == SHOWN_ELEMENTS:
            parts.append(f"... ({len(value):,} in all)")
            break
        if isinstance(value, Mapping):
            parts.append(f"{text_of(member[0], store, depth + 1)}: {text_of(member[1], store, depth + 1)[:SHOWN]}")
        else:
            parts.append(text_of(member, store, depth + 1)[:SHOWN])
    if isinstance(value, (set, frozenset)):
        parts.sort()
    joined = ", ".join(parts)
    return f"({joined})" if depth and not isinstance(value, str) else joined


def _registered(value: Any) -> str:
    name, data = take_apart(value)
    short = name.rpartition(".")[2]
    if isinstance(data, dict):
        return f"{short}({', '.join(f'{clean(str(k))}={text_of(v)[:SHOWN]}' for k, v in data.items())})"
    return str(data) if isinstance(value, enum.Enum) else f"{short}.{text_of(data)[:SHOWN]}"


def integer_text(value: int) -> str:
    """An integer in decimal digits, or in hexadecimal ones where Python refuses to write so many."""
    try:
        return str(value)
    except ValueError:
        return hex(value)


def duration_text(value: datetime.timedelta) -> str:
    """A duration as `-1 d 02:03:04.5`."""
    sign, value = ("-", -value) if value < datetime.timedelta(0) else ("", value)
    hours, rest = divmod(value.seconds, 3600)
    minutes, seconds = divmod(rest, 60)
    text = f"{hours:02}:{minutes:02}:{seconds:02}" + (f".{value.microseconds:06}" if value.microseconds else "")
    return f"{sign}{value.days} d {text}" if value.days else f"{sign}{text}"


def label_of(store: Store | None, item_id: int) -> str | None:
    """What an item is called, in a line; None if it is not there."""
    if store is None:
        return None
    try:
        item = store._objects.find(item_id)
        return None if item is None else item_label(item)
    except NoSuchItem:
        return None
    except AtopError:
        return f"item {item_id}, which cannot be read"


def item_label(item: Item) -> str:
    """What an item is called, in a line."""
    attributes = item._read()
    for name in NAMES:
        value = attributes.get(name)
        if type(value) is str and value.strip():
            return clean(" ".join(value.split()))[:SHOWN]
    return f"{clean(item.type_name.rpartition('.')[2])} {item.item_id}"
