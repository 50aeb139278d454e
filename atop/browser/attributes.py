"""Attributes as the views read them: of the type that is expected, or as good as missing.

Any program may have written anything into an item, so a contact's `emails` may be a number and its `name` a file.
Nothing here raises for that. Texts are cut at a length that a page can show.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from atop import File, Item

# Characters of one text, and elements of one list, that a page shows.
LONGEST = 100_000
SHORT = 300
MOST = 200


def text(value: Any, longest: int = LONGEST) -> str:
    """A text, with halves of surrogate pairs replaced, which no page can show."""
    if not isinstance(value, str):
        return ""
    shown: str = value[:longest]
    return shown if shown.isascii() else shown.encode("utf-8", "replace").decode()


def line(value: Any, longest: int = SHORT) -> str:
    """A text as one line."""
    return " ".join(text(value, longest).split())


def get(item: Item, name: str) -> Any:
    """An attribute, or None."""
    return getattr(item, name, None)


def elements(value: Any, most: int = MOST) -> list[Any]:
    """The elements of a list, tuple or set."""
    if not isinstance(value, (list, tuple, set, frozenset)):
        return []
    return [element for element, _ in zip(value, range(most), strict=False)]


def lines(value: Any, most: int = MOST) -> list[str]:
    """The texts of a list, each as one line, without empty ones."""
    return [found for element in elements(value, most) if (found := line(element))]


def entries(value: Any, most: int = MOST) -> list[Mapping[str, Any]]:
    """The dicts of a list."""
    return [element for element in elements(value, most) if isinstance(element, Mapping)]


def files(value: Any, most: int = MOST) -> list[File]:
    """The files of a list."""
    return [element for element in elements(value, most) if isinstance(element, File)]


def moment(value: Any) -> datetime.datetime | None:
    """A time on the clock of this machine, without an offset; one that had none is taken as it is."""
    if isinstance(value, datetime.datetime):
        if value.tzinfo is None:
            return value
        try:
            return value.astimezone().replace(tzinfo=None)
        except (OverflowError, OSError, ValueError):  # within a day of year 1 or 9999, or past what this clock knows
            return value.replace(tzinfo=None)
    if isinstance(value, datetime.date):
        return datetime.datetime(value.year, value.month, value.day)
    return None


def day(value: Any) -> datetime.date | None:
    """A date."""
    if isinstance(value, datetime.datetime):
        return value.date()
    return value if isinstance(value, datetime.date) else None


def unique(values: Iterable[str]) -> list[str]:
    """The values in order, each once."""
    return list(dict.fromkeys(values))


class Attributes(Mapping[str, Any]):
    """An item's attributes, each read when it is asked for: most have dozens, of which few are needed."""

    def __init__(self, item: Item) -> None:
        self._item = item

    def __getitem__(self, name: str) -> Any:
        value = getattr(self._item, name, _MISSING)
        if value is _MISSING:
            raise KeyError(name)
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._item.attributes)

    def __len__(self) -> int:
        return len(self._item.attributes)


_MISSING = object()
