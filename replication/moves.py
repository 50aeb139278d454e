"""What one side put into lists, sets and pools, and took out of them, from one of its commits to the next.

An element that a side put in and took out again it has not touched, in the end. That matters where the other side put
in the same one: that one stays. So it is with an element that both took out, and one of them put in again.

It is all told by the two histories: nothing here depends on how far a replay has come, or how often it was begun.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from atop.writeset import UPDATED

from .elements import Element, elements_of, of_list, of_set, values, with_changes
from .salvage import Commit

POOLS: Final = "\0pools"
"""What the pools of an item are called among its attributes."""

Elements = frozenset[Element]
Attribute = tuple[int, str]  # of which item, and its name
NOTHING: Final[Elements] = frozenset()


class Moves:
    """What a side has put into one list, set or set of pools, and taken out, and not taken back."""

    def __init__(self, put_in: Elements = NOTHING, taken_out: Elements = NOTHING) -> None:
        self.put_in = put_in
        self.taken_out = taken_out

    def step(self, before: Elements, after: Elements, unmoved: Elements = NOTHING) -> tuple[Elements, Elements]:
        """A change; returns what it took out that the side had put in, and put in that it had taken out.

        Those `unmoved` went because something else happened, such as that a pool was deleted.
        """
        again, back = (before - after) & self.put_in, (after - before) & self.taken_out
        self.put_in = (self.put_in - again) | (after - before - back)
        self.taken_out = (self.taken_out - back) | (before - after - again - unmoved)
        return again, back


class TakenBack:
    """What each commit of a salvage takes back of what the ones before it did: for the attributes that matter."""

    def __init__(self, commits: Callable[[], Iterable[Commit]]) -> None:
        self._commits = commits
        self._covered: set[Attribute] = set()
        self._found: dict[tuple[int, int, str], tuple[Elements, Elements]] = {}

    def cover(self, attributes: Iterable[Attribute]) -> set[Attribute]:
        """Look at these as well; returns those of which something is taken back, and that were not covered before."""
        new = set(attributes) - self._covered
        self._covered |= new
        moves: dict[Attribute, Moves] = {}
        before = set(self._found)
        for commit in self._commits() if new else ():
            self._look_at(commit, new, moves)
        return {(item_id, name) for _, item_id, name in self._found.keys() - before}

    def _look_at(self, commit: Commit, wanted: set[Attribute], moves: dict[Attribute, Moves]) -> None:
        deleted = pools_as_elements(change.item_id for change in commit.changes if change.after is None)
        for change in commit.changes:
            if change.kind != UPDATED or change.after is None:
                continue
            item_id = change.item_id
            for name in (*change.before, *change.added):
                if (item_id, name) in wanted:
                    old, new = elements_of(change.before.get(name)), elements_of(change.after.attributes.get(name))
                    if old is not None and new is not None:
                        step = moves.setdefault((item_id, name), Moves()).step(old, new)
                        self._note(commit, item_id, name, step)
            if change.pools is not None and (item_id, POOLS) in wanted:
                old, new = pools_as_elements(change.pools), pools_as_elements(change.after.pools)
                step = moves.setdefault((item_id, POOLS), Moves()).step(old, new, deleted)
                self._note(commit, item_id, POOLS, step)

    def _note(self, commit: Commit, item_id: int, name: str, step: tuple[Elements, Elements]) -> None:
        if any(step):
            self._found[commit.commit_id, item_id, name] = step

    def by(self, commit_id: int, item_id: int, name: str) -> tuple[Elements, Elements]:
        """What a commit takes out of an attribute that was put in before, and puts in that was taken out."""
        return self._found.get((commit_id, item_id, name), (NOTHING, NOTHING))


def pools_as_elements(pools: Iterable[int]) -> Elements:
    """Pools of an item, as the elements of a set."""
    return frozenset((int, pool_id, 0) for pool_id in pools)


def retold(base: Any, mine: Any, again: Elements, back: Elements) -> Any:
    """The value `base`, of which a side made `mine`, as if it had not put in `again` and taken out `back` before."""
    kind = type(mine)
    if not (again or back) or kind not in (list, set, frozenset):
        return base
    elements: Callable[[Any], list[Element]] = of_list if kind is list else of_set
    old = elements(base) if type(base) is kind else []
    kept = [element for element in old if element not in again]
    if not back:
        return kind(values(kept))
    there = back.union(old)
    return kind(values(with_changes([], [element for element in elements(mine) if element in there], kept)))


__all__ = ["NOTHING", "POOLS", "Attribute", "Elements", "Moves", "TakenBack", "pools_as_elements", "retold"]
