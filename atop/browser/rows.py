"""Rows of a pool in the order of an index, either way: what the table asks for when it is scrolled.

Pool.page does the work; here are the descending order, keys as text, and columns: which attributes a pool's items have.
"""

from __future__ import annotations

import base64
import binascii
import datetime
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from atop import AtopError, IndexDefinition, Item, Pool, Store
from atop.browser.cells import ABSENT, NAMES, cell, kind_of, stored_of
from atop.browser.reading import read_key
from atop.item import class_named
from atop.pim.cells import columns_of

MAX_ROWS = 500
MAX_COLUMNS = 60
MAX_FOUND = 500  # items of a search by words
LONGEST_KEY = 1 << 16  # characters of a key in a request

# Items looked at to learn which attributes a pool has: some at each of these positions.
SAMPLE_AT = (0.0, 0.2, 0.4, 0.6, 0.8)
SAMPLE_SIZE = 24

# Columns that are shown unless a person chooses.
DEFAULT_COLUMNS = 8
# Attributes by which imports know records again: shown only when they are asked for.
HIDDEN = frozenset({"uid", "message_id", "fingerprint", "import_key", "import_mark", "digest"})
# Kinds that make a good column.
PLAIN_KINDS = frozenset(
    {"str", "int", "float", "decimal", "bool", "date", "datetime", "time", "timedelta", "enum", "ref", "file"}
)

_END = b"\xff" * 20  # after every key of any index

_ANNOTATED = {
    "str": "str",
    "int": "int",
    "float": "float",
    "bool": "bool",
    "bytes": "bytes",
    "list": "list",
    "dict": "dict",
    "set": "set",
    "tuple": "tuple",
    "File": "file",
    "datetime.date": "date",
    "date": "date",
    "datetime.datetime": "datetime",
    "datetime": "datetime",
    "datetime.time": "time",
    "datetime.timedelta": "timedelta",
    "decimal.Decimal": "decimal",
    "Decimal": "decimal",
    "uuid.UUID": "uuid",
    "UUID": "uuid",
}


@dataclass
class Column:
    """An attribute that items of a pool have."""

    name: str
    kind: str = "str"  # the kind that most of its values have, or that the class says
    used: int = 0  # how many of the sample have a value that is not the default
    index: str | None = None  # an index that begins with it


@dataclass
class Shape:
    """What the items of a pool look like."""

    columns: list[Column] = field(default_factory=list)
    types: list[str] = field(default_factory=list)  # type names, the most frequent first

    def kind(self, name: str) -> str:
        """The kind of an attribute."""
        return next((column.kind for column in self.columns if column.name == name), "str")


def shape_of(pool: Pool) -> Shape:
    """Which attributes the items of a pool have, by a sample from all over it, and by their classes."""
    kinds: dict[str, Counter[str]] = {}
    types: Counter[str] = Counter()
    for item in _sample(pool):
        defaults = type(item)._defaults
        try:
            types[item.type_name] += 1
            attributes = item._read()
        except AtopError:
            continue  # its row will say why it cannot be read
        for name, value in attributes.items():
            counts = kinds.setdefault(name, Counter())
            if name not in defaults or value != defaults[name]:
                counts[kind_of(value)] += 1
    annotated: dict[str, str] = {}
    for type_name, _ in types.most_common(5):
        for name, column in columns_of(type_name).items():
            annotated.setdefault(name, _ANNOTATED.get(column.kind, ""))
    indexes = {d.attributes[0]: n for n, d in reversed(pool.indexes.items()) if not d.words}
    order = dict.fromkeys([*annotated, *kinds, *(a for d in pool.indexes.values() for a in d.attributes)])
    columns = []
    for name in order:
        counts = kinds.get(name, Counter())
        common = [kind for kind, _ in counts.most_common() if kind != "none"]
        kind = annotated.get(name) or (common[0] if common else "str")
        columns.append(Column(name, kind, sum(counts.values()) - counts["none"], indexes.get(name)))
    return Shape(columns, [name for name, _ in types.most_common()])


def _sample(pool: Pool) -> list[Item]:
    if len(pool) <= len(SAMPLE_AT) * SAMPLE_SIZE:
        return list(pool)
    found = {item.item_id: item for at in SAMPLE_AT for item in pool.page(None, SAMPLE_SIZE, at=at).items}
    return list(found.values())


def default_columns(pool: Pool, shape: Shape) -> list[str]:
    """What is shown unless a person chooses: what people look items up by, then what is used most."""
    known = {column.name: column for column in shape.columns}
    chosen = dict.fromkeys(
        name for d in pool.indexes.values() if not d.words for name in d.attributes if name not in HIDDEN
    )
    first = [name for name in NAMES if name in known and (known[name].used or name in chosen)]
    chosen = dict.fromkeys([*first, *chosen])
    plain = [c for c in shape.columns if c.kind in PLAIN_KINDS and c.used and c.name not in HIDDEN]
    for column in sorted(plain, key=lambda c: -c.used):
        chosen.setdefault(column.name)
    used = [name for name in chosen if name in known and known[name].used] or [name for name in chosen if name in known]
    return used[:DEFAULT_COLUMNS]


@dataclass(frozen=True)
class Order:
    """What a table shows: an index (None: by id), a direction, and a part of the index."""

    index: str | None
    reverse: bool = False
    part: Mapping[str, Any] = field(default_factory=dict)  # `prefix`, or `first` and `last`


def index_kind(pool: Pool, index: str | None, shape: Shape | None = None) -> str:
    """The kind of the first attribute of an index."""
    if index is None:
        return "int"
    definition = pool.indexes.get(index)
    if definition is None:
        return "str"
    name = definition.attributes[0]
    for item in pool.query(index, reverse=True, limit=1):  # None sorts first: the last has a value, if any has
        value = stored_of(item).get(name)
        return _annotated_kind(item, name) if value is None else kind_of(value)
    return shape.kind(name) if shape else "str"


def _annotated_kind(item: Item, name: str) -> str:
    column = columns_of(item.type_name).get(name)
    return _ANNOTATED.get(column.kind, "str") if column else "str"


def typed_key(pool: Pool, index: str | None, text: str, *, last: bool = False) -> Any:
    """A key that a person typed. Raises ValueError."""
    kind = index_kind(pool, index)
    if index is None:
        digits = text.strip().lstrip("#")
        if not (digits.isascii() and digits.isdigit() and len(digits) <= 18):
            raise ValueError("An item's id is a whole number.")
        return int(digits)
    key = read_key(text, kind, last=last)
    if isinstance(key, datetime.datetime) and key.tzinfo is None and _is_aware(pool, index):
        key = key.astimezone()  # where a person names no offset, the clocks here are meant
    return key


def _is_aware(pool: Pool, index: str) -> bool:
    name = pool.indexes[index].attributes[0]
    for item in pool.query(index, reverse=True, limit=1):
        value = stored_of(item).get(name)
        return isinstance(value, datetime.datetime) and value.tzinfo is not None
    return False


def fetch(pool: Pool, order: Order, size: int, place: Mapping[str, Any]) -> dict[str, Any]:
    """Items and keys of one page, and where it is. `place` is one of `after`, `before`, `at`, `start`, or empty."""
    part = order.part
    if order.reverse:
        place = _mirrored(pool, order, place)
    page = pool.page(order.index, size, **place, **part)
    if not page.items and ("at" in place or "start" in place):  # past the end: the last page
        page = pool.page(order.index, size, before=_END, **part)
    first, last, position = page.previous is not None, page.next is not None, page.position
    items, keys = list(page.items), list(page.keys)
    if order.reverse:
        items.reverse()
        keys.reverse()
        first, last = last, first
        end = pool.page(order.index, 1, after=keys[0], **part) if keys and first else None
        position = 1 - end.position if end is not None and end.items else 0.0
    return {"items": items, "keys": keys, "before": first, "after": last, "position": position, "page": page}


def _mirrored(pool: Pool, order: Order, place: Mapping[str, Any]) -> dict[str, Any]:
    """The place, in ascending order, of what is wanted in descending order."""
    if "after" in place:
        return {"before": place["after"]}
    if "before" in place:
        return {"after": place["before"]}
    mark: list[bytes] = []
    if "at" in place and place["at"] > 0:
        mark = pool.page(order.index, 1, at=1 - place["at"], **order.part).keys
    elif "start" in place:
        mark = pool.page(order.index, 1, last=place["start"], before=_END).keys
        if not mark:  # nothing is at or before that key: the last page
            return {}
    return {"before": mark[0] + b"\0" if mark else _END}


def including(key: bytes, *, reverse: bool) -> bytes:
    """What, as `after`, gives a page that begins with the row of this key."""
    if reverse:
        return key + b"\0"
    if not key or key[-1] == 0:
        return key[:-1]
    return key[:-1] + bytes([key[-1] - 1]) + b"\xff" * 9  # keys end in an id of 8 bytes: none is in between


def row(store: Store, item: Item, key: bytes, columns: Sequence[str]) -> dict[str, Any]:
    """An item as a row; one that cannot be read says so."""
    try:
        attributes = stored_of(item)
        made: dict[str, Any] = {
            "id": str(item.item_id),
            "version": str(item.version),
            "key": key_text(key),
            "cells": [cell(store, attributes.get(name, ABSENT)) for name in columns],
        }
        if class_named(item.type_name) is not type(item):
            made["fixed"] = True  # of a class that is not imported here: shown, not changed
        return made
    except AtopError as error:
        return {"id": str(item.item_id), "version": "0", "key": key_text(key), "cells": [], "problem": str(error)}


def key_text(key: bytes) -> str:
    """A key of the index table as text for an address."""
    return base64.urlsafe_b64encode(key).rstrip(b"=").decode()


def key_bytes(text: str) -> bytes:
    """What `key_text` has written. Raises ValueError."""
    if len(text) > LONGEST_KEY:
        raise ValueError("the key is too long")
    try:
        return base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise ValueError("this is no key of a row") from None


def describe_index(name: str, definition: IndexDefinition) -> dict[str, Any]:
    """An index as JSON."""
    return {
        "name": name,
        "attributes": list(definition.attributes),
        "nocase": definition.nocase,
        "words": definition.words,
        "ready": definition.state == "ready",
    }
