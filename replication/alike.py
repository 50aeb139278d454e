"""What both sides did alike to the elements of lists and sets, while the commits of one side are replayed.

An element that both put in is there once, and is the other side's too: when a later commit that is replayed takes it
out again, its side takes back what it had done itself, and what the other one did stays. So it is with an element
that both took out, and one of them puts in again. Otherwise the outcome would depend on which side is replayed.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from .elements import Element, are_mergeable, of_list, values, with_changes


class _Both(NamedTuple):
    put_in: frozenset[Element] = frozenset()
    taken_out: frozenset[Element] = frozenset()


class Alike:
    """Remembers it, by item and attribute, from one commit to the next."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, str], _Both] = {}
        self._found: dict[tuple[int, str], _Both] = {}  # by the commit that is being worked out

    def begin(self) -> None:
        """A commit is worked out, perhaps once more."""
        self._found = {}

    def made(self) -> None:
        """The commit that was worked out last has been made."""
        self._known.update(self._found)

    def base(self, about: int, name: str, base: Any, mine: Any, now: Any) -> Any:
        """The value that a commit, which made `mine` of `base`, is to be compared with: where it takes back what
        both had done, as if its own side had not done it.
        """
        kind = type(mine)
        if kind not in (list, set, frozenset) or type(now) is not kind:
            return base
        old = kind() if type(base) is not kind else base
        if not are_mergeable(old, mine, now):
            return base
        before, after, there = (frozenset(_elements(value)) for value in (old, mine, now))
        both = self._known.get((about, name), _Both())
        again = (before - after) & both.put_in
        back = (after - before) & both.taken_out
        self._found[about, name] = _Both(
            (both.put_in - again) | ((after - before) & there), (both.taken_out - back) | (before - after) - there
        )
        if not again and not back:
            return base
        kept = [element for element in _elements(old) if element not in again]
        returned = [element for element in _elements(mine) if element in before or element in back]
        return kind(values(with_changes([], returned, kept) if back else kept))


def _elements(collection: Any) -> list[Element]:
    return of_list(collection) if type(collection) is list else [(type(value), value, 0) for value in collection]
