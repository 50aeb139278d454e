"""What a person types, as a value of a kind; and what a page sends as a value.

A value that a page sends is `{"kind": "date", "text": "2024-05-31"}`. The kinds that are written as one text are those
of `KINDS`; `list`, `tuple`, `set` and `frozenset` have `items`, a list of such values; `dict` has `entries`, a list of
pairs of them; `ref` has the item's id as text; `none` has nothing; `json` is the typed JSON of `atop.pim.typed`, for
anything else. Every mistake is a ValueError that says what was expected.
"""

from __future__ import annotations

import calendar
import datetime
import decimal
import re
import uuid
from collections.abc import Callable
from typing import Any

from atop import Item, Store
from atop.pim.typed import MAX_DEPTH, Decoder

# The longest text that is read as a number, a date and so on; what is longer is none.
LONGEST = 20_000

_TRUE = frozenset({"true", "yes", "1", "on"})
_FALSE = frozenset({"false", "no", "0", "off", ""})
_DURATION = re.compile(
    r"(?P<sign>-)?(?:(?P<days>\d{1,9}) ?d(?:ays?)?,? ?)?"
    r"(?:(?P<hours>\d{1,2}):(?P<minutes>\d{1,2})(?::(?P<seconds>\d{1,2}(?:\.\d{1,6})?))?)?"
)
_PARTIAL_DATE = re.compile(r"(\d{4})(?:-(\d{1,2}))?")


def _bool(text: str) -> bool:
    if text.lower() not in _TRUE | _FALSE:
        raise ValueError
    return text.lower() in _TRUE


def _int(text: str) -> int:
    plain = re.sub(r"[\s\u202f\u00a0_]", "", text)
    return int(plain, 16) if plain.lower().lstrip("-").startswith("0x") else int(plain)


def _decimal(text: str) -> decimal.Decimal:
    try:
        return decimal.Decimal(text)
    except decimal.InvalidOperation:
        raise ValueError from None


def _datetime(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text.replace(" +", "+"))


def _timedelta(text: str) -> datetime.timedelta:
    found = _DURATION.fullmatch(text)
    if found is None or not text.strip("-"):
        raise ValueError
    value = datetime.timedelta(
        days=int(found["days"] or 0),
        hours=int(found["hours"] or 0),
        minutes=int(found["minutes"] or 0),
        seconds=float(found["seconds"] or 0),
    )
    return -value if found["sign"] else value


# Kind -> how its text is read, and what to write, for a person who wrote something else.
KINDS: dict[str, tuple[Callable[[str], Any], str]] = {
    "str": (str, "text"),
    "bool": (_bool, "true or false"),
    "int": (_int, "a whole number, such as 42"),
    "float": (float, "a number, such as 4.2"),
    "decimal": (_decimal, "a number, such as 4.20"),
    "date": (datetime.date.fromisoformat, "a date, such as 2024-05-31"),
    "datetime": (_datetime, "a date and time, such as 2024-05-31 09:30, perhaps with an offset: +02:00"),
    "time": (datetime.time.fromisoformat, "a time of day, such as 09:30"),
    "timedelta": (_timedelta, "a duration, such as 1 d 02:30:00"),
    "uuid": (uuid.UUID, "a UUID, such as 123e4567-e89b-12d3-a456-426614174000"),
    "bytes": (bytes.fromhex, "bytes in hexadecimal, such as 0a ff 10"),
}

_COLLECTIONS: dict[str, Callable[[list[Any]], Any]] = {
    "list": list,
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
}


def read_text(kind: str, text: str) -> Any:
    """The value of a kind that is written as one text. Raises ValueError, saying what was expected."""
    if kind not in KINDS:
        raise ValueError(f"A value of the kind {kind[:40]!r} is not written as text.")
    if kind == "str":
        return text
    read, expected = KINDS[kind]
    stripped = text.strip()
    try:
        if len(stripped) > LONGEST:
            raise ValueError
        return read(stripped)
    except (ValueError, OverflowError, ArithmeticError):
        shown = f"{stripped[:40]}..." if len(stripped) > 40 else stripped
        raise ValueError(f"This should be {expected}, not “{shown}”." if shown else f"Write {expected}.") from None


def read_value(store: Store, sent: Any, depth: int = 0) -> Any:
    """The value that a page has sent. Raises ValueError."""
    if depth > MAX_DEPTH:
        raise ValueError("This is nested too deep.")
    if not isinstance(sent, dict) or type(kind := sent.get("kind")) is not str:
        raise ValueError("A value is an object with its kind.")
    if kind == "none":
        return None
    if kind == "json":
        return _typed(store, sent.get("text"))
    if kind == "ref":
        return referred(store, sent.get("text"))
    if kind in _COLLECTIONS or kind == "dict":
        members = sent.get("entries" if kind == "dict" else "items")
        if type(members) is not list:
            raise ValueError(f"A {kind} needs a list of what is in it.")
        try:
            if kind == "dict":
                return {read_value(store, k, depth + 1): read_value(store, v, depth + 1) for k, v in members}
            return _COLLECTIONS[kind]([read_value(store, member, depth + 1) for member in members])
        except TypeError:
            raise ValueError(f"A {kind} cannot hold this.") from None
    text = sent.get("text")
    if type(text) is not str:
        raise ValueError(f"A value of the kind {kind[:40]!r} needs a text.")
    return read_text(kind, text)


def referred(store: Store, text: Any) -> Item:
    """The item with this id. Raises ValueError."""
    if type(text) is not str or not (text.isascii() and text.isdigit() and len(text) <= 19):
        raise ValueError("Choose an item, or write its number.")
    item: Item | None = store._objects.find(int(text))
    if item is None:
        raise ValueError(f"There is no item {text}: it was deleted or never existed.")
    return item


def _typed(store: Store, text: Any) -> Any:
    if type(text) is not str:
        raise ValueError("Typed JSON is sent as text.")

    def find_item(item_id: int) -> Item:
        return referred(store, str(item_id))

    def find_file(info: Any) -> Any:
        if not store._file_area.has(info.digest):
            raise ValueError(f"The contents of the file {info.name[:60]!r} are not in this store: upload it.")
        return store._file(info)

    try:
        return Decoder(find_item, find_file).loads(text)
    except RecursionError:
        raise ValueError("This is nested too deep.") from None
    except ValueError as error:
        raise ValueError(f"This is not typed JSON: {error}") from None


def read_key(text: str, kind: str, *, last: bool = False) -> Any:
    """What a person types to jump to a key, or to bound a range, in an index that holds this kind.

    A date may be a part of one: `2024` or `2024-05`, which is its first day or, with `last`, its last moment. A time
    without an offset is that of the clocks here. Raises ValueError.
    """
    text = text.strip()
    if kind in ("date", "datetime"):
        moment = _partial(text, last)
        if moment is None:
            moment = read_text("date" if len(text) <= 10 else "datetime", text)
        if kind == "date":
            return moment.date() if isinstance(moment, datetime.datetime) else moment
        if not isinstance(moment, datetime.datetime):
            moment = datetime.datetime.combine(moment, datetime.time.max if last else datetime.time.min)
        return moment
    if kind in ("int", "float", "decimal"):
        return read_text("decimal", text)
    return read_text(kind, text) if kind in KINDS else text


def _partial(text: str, last: bool) -> datetime.date | None:
    found = _PARTIAL_DATE.fullmatch(text)
    if found is None:
        return None
    year, month = int(found[1]), int(found[2] or (12 if last else 1))
    if not (1 <= year <= 9999 and 1 <= month <= 12):
        return None
    return datetime.date(year, month, calendar.monthrange(year, month)[1] if last else 1)
