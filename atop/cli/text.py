"""What the store holds, as text that is safe to show and as JSON.

Promises: no control character, escape sequence, text direction mark or lone surrogate of the data is in what
`plain` and `json_text` return; they are shown as escapes (`\\x1b`, `\\u202e`), so nothing is hidden either.
Functions of their arguments: no terminal; of a store only items that are values already.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime
import decimal
import enum
import json
import math
import re
import uuid
from collections.abc import Mapping
from typing import Any

from atop import AtopError, File, FileInfo, Item, Reference, UnknownValue

# Bytes of a value shown in a table; what is longer is there in full with --json.
SHOWN_BYTES = 24

# C0 and C1 controls, marks that change the direction of text, line separators, lone surrogates.
_UNSAFE = "\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff"
_UNSAFE_CHARACTER = re.compile(f"[{_UNSAFE}]")
_HEXADECIMAL = ("0x", "-0x")
_SHORT_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    code = ord(character)
    return _SHORT_ESCAPES.get(character) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


def plain(text: str, *, keep_lines: bool = False) -> str:
    """The text with every unsafe character as an escape; with `keep_lines`, line ends and tabs stay."""
    if keep_lines:
        return "\n".join("\t".join(map(plain, line.split("\t"))) for line in text.split("\n"))
    return _UNSAFE_CHARACTER.sub(_escape, text)


def json_text(value: Any) -> str:
    """One line of JSON (RFC 8259), safe to show and to encode in UTF-8."""
    text = json.dumps(to_json(value), ensure_ascii=False, allow_nan=False)
    # What json leaves raw can only stand inside of strings, where \uXXXX means the same.
    return _UNSAFE_CHARACTER.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def to_json(value: Any) -> Any:
    """The value in JSON's types.

    Dates and times are ISO 8601, durations seconds, Decimals and UUIDs text, bytes base64, sets sorted lists.
    An item is its id and type, a file its name, type and size. Numbers that JSON lacks (inf, nan) are text, and so are,
    in hexadecimal, those of more digits than Python writes (`sys.get_int_max_str_digits`) and many a parser reads.
    """
    match value:
        case None | bool():
            return value
        case enum.Enum():
            return to_json(value.value)
        case str():
            return value
        case int():
            text = _integer(value)
            return text if text.startswith(_HEXADECIMAL) else value
        case float():
            return value if math.isfinite(value) else str(value)
        case decimal.Decimal() | uuid.UUID():
            return str(value)
        case datetime.datetime() | datetime.date() | datetime.time():
            return value.isoformat()
        case datetime.timedelta():
            return value.total_seconds()
        case bytes():
            return base64.b64encode(value).decode("ascii")
        case Mapping():
            return {key if isinstance(key, str) else describe(key): to_json(each) for key, each in value.items()}
        case set() | frozenset():
            return sorted((to_json(each) for each in value), key=repr)
        case list() | tuple():
            return [to_json(each) for each in value]
        case Item():
            return {"id": value.item_id, "type": value.type_name}
        case Reference():
            return {"id": value.item_id}
        case File() | FileInfo():
            return {"name": value.name, "media_type": value.media_type, "size": value.size}
        case UnknownValue():
            return {"type": value.type_name, "value": to_json(value.data)}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return {field.name: to_json(getattr(value, field.name)) for field in fields}
    return _text_of(value)


def _integer(value: int) -> str:
    """An integer in decimal digits, or in hexadecimal ones where Python refuses to write so many."""
    try:
        return str(value)
    except ValueError:
        return hex(value)


def _text_of(value: Any) -> str:
    try:
        return str(value)
    except ValueError:  # such an integer is somewhere in it
        return f"a {type(value).__name__} with a very large number"


def describe(value: Any) -> str:
    """The value in a few words for a table cell, safe to show. None is empty."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case str():
            return plain(value)
        case enum.Enum():
            return plain(value.name)
        case int():
            return plain(_integer(value))
        case datetime.datetime():
            return value.isoformat(" ", "auto" if value.second or value.microsecond else "minutes")
        case bytes():
            shown = value[:SHOWN_BYTES].hex(" ")
            return shown if len(value) <= SHOWN_BYTES else f"{shown} ... ({size(len(value))})"
        case Mapping():
            return ", ".join(f"{describe(key)}: {describe(each)}" for key, each in value.items())
        case set() | frozenset():
            return ", ".join(sorted(describe(each) for each in value))
        case list() | tuple():
            return ", ".join(describe(each) for each in value)
        case Item():
            return _describe_item(value)
        case Reference():
            return f"item {value.item_id}"
        case File() | FileInfo():
            return plain(f"{value.name or 'file'} ({size(value.size)})")
    return plain(_text_of(value))


def _describe_item(item: Item) -> str:
    """An item as the value of another one's attribute: by its name, else its class and id."""
    try:
        name = item.attributes.get("name")
    except AtopError:
        return f"item {item.item_id}"  # deleted meanwhile, or unreadable: no reason to fail the table
    return plain(name if isinstance(name, str) and name else f"{item.type_name.rpartition('.')[2]} {item.item_id}")


def size(count: int) -> str:
    """A number of bytes for a person: `512 B`, `1.5 kB`, `20 MB` (decimal units)."""
    if count < 1000:
        return f"{count} B"
    amount = float(count)
    for unit in ("kB", "MB", "GB", "TB"):
        amount /= 1000
        if amount < 999.5 or unit == "TB":
            break
    return f"{amount:.1f} {unit}" if amount < 9.95 else f"{amount:.0f} {unit}"


def many(count: int, noun: str) -> str:
    """The count with its noun: `1 item`, `2,500 items`."""
    return f"{count:,} {noun if count == 1 else noun + 's'}"


def local(time: datetime.datetime) -> str:
    """A point in time as the clocks here show it, to the second: `2026-11-26 00:37:00`."""
    return time.astimezone().replace(tzinfo=None).isoformat(" ", "seconds")
