"""What a person types as the start, end or key of a query, as a value that the index can compare.

The index says what it holds: its last entry has values of its types, and the words are read as those. Pure
functions, apart from `samples_of`, which reads that one entry.
"""

from __future__ import annotations

import datetime
import decimal
import json
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from atop import Pool

YES = frozenset({"true", "yes", "1"})
NO = frozenset({"false", "no", "0"})


def _read_bool(text: str) -> bool:
    if text.lower() not in YES | NO:
        raise ValueError(text)
    return text.lower() in YES


def _read_number(text: str) -> int | decimal.Decimal:
    try:
        return int(text)
    except ValueError:
        try:
            return decimal.Decimal(text)
        except decimal.InvalidOperation:
            raise ValueError(text) from None


# How to read a type that an index may hold, and what to call it with an example.
READERS: dict[type, tuple[Callable[[str], Any], str]] = {
    bool: (_read_bool, "yes or no"),
    int: (_read_number, "a number"),
    float: (_read_number, "a number"),
    decimal.Decimal: (_read_number, "a number"),
    datetime.datetime: (datetime.datetime.fromisoformat, "a date and time like 2026-01-31T09:30"),
    datetime.date: (datetime.date.fromisoformat, "a date like 2026-01-31"),
    datetime.time: (datetime.time.fromisoformat, "a time like 09:30"),
    uuid.UUID: (uuid.UUID, "a UUID"),
    bytes: (bytes.fromhex, "bytes in hexadecimal"),
}


def samples_of(pool: Pool, index: str, attributes: Sequence[str]) -> tuple[Any, ...]:
    """A value of each attribute of the index: those of its last item, None where there is none."""
    for item in pool.query(index, reverse=True, limit=1):
        return tuple(getattr(item, name, None) for name in attributes)
    return (None,) * len(attributes)


def read_key(text: str, samples: Sequence[Any]) -> Any:
    """The key that `text` means: a value of the sample's type, or a tuple for an index on several attributes.

    Several values stand in one text with commas between them, or as a JSON list where a value holds a comma.
    Empty text is None except where the index holds text. Raises ValueError with what was expected.
    """
    if len(samples) == 1:
        return _read_value(text, samples[0])
    return tuple(map(_read_value, _split(text, len(samples)), samples))


def read_prefix(text: str, samples: Sequence[Any]) -> Any:
    """What the text, or the last of several values, begins with. Raises ValueError if that is not text."""
    parts = _split(text, len(samples)) if len(samples) > 1 else [text]
    sample = samples[len(parts) - 1]
    if sample is not None and not isinstance(sample, str):
        raise ValueError(f"only text has a beginning, and the index holds {_expected(type(sample))}")
    values = [*map(_read_value, parts[:-1], samples), parts[-1]]
    return tuple(values) if len(values) > 1 else values[0]


def _split(text: str, most: int) -> list[str]:
    if text.startswith("["):
        try:
            values = json.loads(text)
        except ValueError as error:
            raise ValueError(f"{text!r} is no JSON list: {error}") from None
        parts = ["" if value is None else value if isinstance(value, str) else json.dumps(value) for value in values]
    else:
        parts = text.split(",", most - 1)
    if not 0 < len(parts) <= most:
        raise ValueError(f"{text!r} has {len(parts)} values, and the index has {most}")
    return parts


def _expected(kind: type) -> str:
    return READERS[kind][1] if kind in READERS else "values of another kind"


def _read_value(text: str, sample: Any) -> Any:
    kind = type(sample)
    if kind not in READERS:
        return text
    if not text:
        return None
    try:
        value = READERS[kind][0](text)
    except ValueError:
        raise ValueError(f"{text!r} should be {_expected(kind)}, as the index holds") from None
    if isinstance(sample, datetime.datetime) and sample.tzinfo is not None and value.tzinfo is None:
        return value.astimezone()  # where a person names no time zone, the local one is meant
    return value
