"""Attribute values as the cells of a table, without loss.

A cell is empty where the item has not got the attribute, or has the default of its class. Text is written as it is.
A value of the type that the class annotates is written plainly (1815-12-10, true, 42, a list as JSON); any other value
as `json:` and its typed form. A text that could be taken for anything else than text begins with an apostrophe, which
is taken off on reading. That goes for what a spreadsheet would run as a formula (it begins with = + - @, a tab or a
carriage return) as well; numbers and telephone numbers are left as they are, since there is no harm in them.
"""

from __future__ import annotations

import contextlib
import datetime
import inspect
import re
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

from atop import Item
from atop.item import class_named
from atop.pim.typed import Decoder, dumps

TYPE_HEADING = "atop_type"  # the first column of every table that is exported: the type name of the item's class
MORE_HEADING = "atop_more"  # attributes that have no column of their own

ABSENT: Any = object()  # the value of a cell that says nothing

_RISKY = re.compile(r"[=+\-@\t\r]")
_HARMLESS = re.compile(r"[+-]?[\d ()/.,-]*\d\Z")


class Column(NamedTuple):
    """What is known of an attribute: its default, and the type that its annotation begins with."""

    default: Any = ABSENT
    kind: str = ""


# Annotated type -> the type, how a value is written plainly, how that is read.
_PLAIN: dict[str, tuple[type, Callable[[Any], str], Callable[[str], Any]]] = {
    "int": (int, str, int),
    "datetime.date": (datetime.date, datetime.date.isoformat, datetime.date.fromisoformat),
    "datetime.datetime": (datetime.datetime, datetime.datetime.isoformat, datetime.datetime.fromisoformat),
}


def columns_of(type_name: str) -> dict[str, Column]:
    """The attributes that a class annotates, in order; none for a class that is not imported."""
    cls = class_named(type_name)
    return {} if cls is None else _columns(cls)


@cache
def _columns(cls: type[Item]) -> dict[str, Column]:
    columns: dict[str, Column] = {}
    for base in reversed(cls.__mro__):
        for name, annotation in inspect.get_annotations(base).items():
            field = cls._fields.get(name)
            if field is not None:
                kind = str(annotation).partition("|")[0].partition("[")[0].strip().strip("\"'")
                columns[name] = Column(ABSENT if field.required else field.default, kind)
    return columns


def is_default(value: Any, default: Any) -> bool:
    """Whether a value is the default, and of the same type: 1 is not True."""
    if isinstance(value, (list, dict, set)):
        return isinstance(default, (list, dict, set)) and value == default
    return type(value) is type(default) and bool(value == default)


def write_cell(value: Any, column: Column) -> str:
    """A value as a cell; empty if it is the default of its column."""
    if value is ABSENT or is_default(value, column.default):
        return ""
    if type(value) is str and column.kind in ("str", ""):
        if not _is_text(value):
            return f"json:{dumps(value)}"
        if value and not value.startswith(("'", "json:")) and (not _RISKY.match(value) or _HARMLESS.match(value)):
            return value
        return f"'{value}"
    if column.kind in ("list", "dict") and isinstance(value, (list, dict)):
        return dumps(value)
    if column.kind == "bool" and type(value) is bool:
        return "true" if value else "false"
    if column.kind in _PLAIN and type(value) is _PLAIN[column.kind][0]:
        _, write, read = _PLAIN[column.kind]
        with contextlib.suppress(ValueError):  # an integer of more digits than Python writes
            text = write(value)
            if repr(read(text)) == repr(value):  # not of a time with a named zone
                return text
    return f"json:{dumps(value)}"


def _is_text(value: str) -> bool:
    """Whether a text is characters, and no half of a surrogate pair."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def read_cell(cell: str, column: Column, decoder: Decoder) -> Any:
    """The value that `write_cell` wrote; `ABSENT` where it says nothing and the column has no default.

    Raises ValueError.
    """
    if not cell:
        return column.default
    if cell.startswith("json:"):
        return decoder.loads(cell[5:])
    if column.kind in ("list", "dict") and cell[0] in "[{":
        return decoder.loads(cell)
    if column.kind == "bool" and cell.lower() in ("true", "false"):
        return cell.lower() == "true"
    if column.kind in _PLAIN:
        try:
            return _PLAIN[column.kind][2](cell)
        except ValueError:
            raise ValueError(f"has a cell that is no {column.kind}: {cell[:40]!r}") from None
    return cell[1:] if cell.startswith("'") else cell
