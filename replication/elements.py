"""The elements of lists, told apart: what was put in and what was taken out, whatever else moved."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from typing import Any, Final

from atop.values import ATOMS, FileInfo, Reference

MAX_ELEMENTS: Final = 100_000
"""The longest list that is merged element by element; a longer one is one value."""

Element = tuple[type, Any, int]
"""Type, value, and how many that are equal to it came before."""


def are_simple(collection: Any) -> bool:
    """Whether all values in it are such that they can be compared, and change as a whole only."""
    return all(
        (type(value) in ATOMS and not (type(value) is Decimal and value.is_snan()))
        or type(value) in (Reference, FileInfo)
        for value in collection
    )


def are_mergeable(*collections: Any) -> bool:
    """Whether lists or sets are short and simple enough to be merged element by element."""
    return max(map(len, collections)) <= MAX_ELEMENTS and all(map(are_simple, collections))


def elements_of(value: Any) -> frozenset[Element] | None:
    """The elements of a list or set, none of an attribute that is not there; None for what is not told apart."""
    if value is None:
        return frozenset()
    if type(value) not in (list, set, frozenset) or not are_mergeable(value):
        return None
    return frozenset(of_list(value) if type(value) is list else ((type(v), v, 0) for v in value))


def of_list(collection: list[Any]) -> list[Element]:
    """Its elements, in order."""
    seen: Counter[tuple[type, Any]] = Counter()
    numbered = []
    for value in collection:
        key = type(value), value
        numbered.append((*key, seen[key]))
        seen[key] += 1
    return numbered


def values(elements: list[Element]) -> list[Any]:
    """What elements stand for."""
    return [value for _, value, _ in elements]


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
