"""The elements of lists, told apart: what was put in and what was taken out, whatever else moved."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

from atop.records import dumps
from atop.values import ATOMS, FileInfo, Reference
from atop.writeset import EXACT

MAX_ELEMENTS: Final = 100_000
"""The longest list that is merged element by element; a longer one is one value."""

Element = tuple[type, Any, int]
"""Type, value (see `_distinct`), and how many that are the same came before."""


class _Exact:
    """A value that is the same as another one if it is written so: as a NaN is, and as 1.0 and 1.00 are not."""

    __slots__ = ("_written", "value")

    def __init__(self, value: Any) -> None:
        self.value = value
        self._written = dumps(value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Exact) and other._written == self._written

    def __hash__(self) -> int:
        return hash(self._written)


def _distinct(value: Any) -> Any:
    """A value as what is equal to that of another element only if both are the same."""
    return value if type(value) in EXACT else _Exact(value)


def are_simple(collection: Any) -> bool:
    """Whether all values in it are such that they can be compared, and change as a whole only."""
    return all(type(value) in ATOMS or type(value) in (Reference, FileInfo) for value in collection)


def are_mergeable(*collections: Any) -> bool:
    """Whether lists or sets are short and simple enough to be merged element by element."""
    return max(map(len, collections)) <= MAX_ELEMENTS and all(map(are_simple, collections))


def elements_of(value: Any) -> frozenset[Element] | None:
    """The elements of a list or set, none of an attribute that is not there; None for what is not told apart."""
    if value is None:
        return frozenset()
    if type(value) not in (list, set, frozenset) or not are_mergeable(value):
        return None
    return frozenset(of_list(value) if type(value) is list else of_set(value))


def of_list(collection: list[Any]) -> list[Element]:
    """Its elements, in order."""
    seen: Counter[tuple[type, Any]] = Counter()
    numbered = []
    for value in collection:
        key = type(value), _distinct(value)
        numbered.append((*key, seen[key]))
        seen[key] += 1
    return numbered


def of_set(collection: set[Any] | frozenset[Any]) -> list[Element]:
    """Its elements."""
    return [(type(value), _distinct(value), 0) for value in collection]


def values(elements: list[Element]) -> list[Any]:
    """What elements stand for."""
    return [value.value if type(value) is _Exact else value for _, value, _ in elements]


def in_order_of(one: list[Element], other: list[Element]) -> list[Element]:
    """The elements of `one` that `other` has too."""
    there = set(other)
    return [element for element in one if element in there]


def with_changes(base: list[Element], changed: list[Element], frame: list[Element]) -> list[Element]:
    """`frame` with what `changed` added to `base` and removed from it; added elements follow the one before them."""
    before, after, there = set(base), set(changed), set(frame)
    following: dict[Element | None, list[Element]] = {}
    anchor: Element | None = None
    for element in changed:
        if element not in before and element not in there:
            following.setdefault(anchor, []).append(element)
        elif element in there:
            anchor = element
    result = list(following.get(None, ()))
    for element in frame:
        if element not in before or element in after:
            result.append(element)
        result += following.get(element, ())
    return result
