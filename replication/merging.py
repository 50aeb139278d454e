"""Merging what two sides did to one item while they were apart: values in, values out, and nothing else.

The rules, for each attribute that "mine" (the commit that is replayed) changed:

1. The other side left it alone, or changed it to the same: mine is applied, silently.
2. Both changed a list, set or dict: additions and removals of both, if their elements are simple values.
3. The item's class merges it: `merge(base, mine, theirs)`.
4. The later change is kept, by the hybrid clock; of two at one time, that of the device with the higher tag. The
   other value becomes a `Clash`, for a conflict item.

Promises: the same outcome wherever it is computed, from records alone; rules 1, 2 and 4 give the same values whichever
side is replayed. Nothing of the application's is called but `merge`, and what that raises changes nothing here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from atop.errors import UnstorableValue
from atop.records import State
from atop.values import to_stored
from atop.writeset import same

from .elements import are_mergeable, are_simple, elements_of, in_order_of, of_list, of_set, values, with_changes
from .moves import Elements, Moves, retold

log = logging.getLogger(__name__)


class _Absent:
    def __repr__(self) -> str:
        return "absent"


ABSENT: Final[Any] = _Absent()
"""Stands for the value of an attribute that is not there."""


class Stamp(NamedTuple):
    """When something was changed, and where: the later one wins, of two at one time that of the higher tag."""

    time: int  # microseconds of the hybrid clock
    device: int  # tag


@dataclass(frozen=True)
class Clash:
    """Two values of one attribute, of which one could be kept; or an item that one side deleted."""

    kind: str  # "value", "deleted", "name" or "item": see `atop.conflicts.ConflictItem`
    about: int  # item id
    attribute: str
    kept: Any  # ABSENT where the attribute is not there
    kept_by: Stamp | None  # None where that is not known any more
    other: Any
    other_by: Stamp | None


@dataclass
class Theirs:
    """What the other side did to one item since the two parted, as far as its journal tells."""

    attributes: dict[str, Stamp] = field(default_factory=dict)  # attribute -> its last change
    schema: Stamp | None = None  # the last change of the version of its class
    touched: Stamp | None = None  # the last change that was more than the consequence of a deletion
    deleted: Stamp | None = None
    state: State | None = None  # what it was when it was deleted
    deletion: int = 0  # id of the commit that deleted it
    moves: dict[str, Moves] = field(default_factory=dict)  # of lists, sets and POOLS, but for the last change
    # The elements before the last change, if that was theirs; None where they are not told apart.
    last: dict[str, Elements | None] = field(default_factory=dict)

    def changes(self, name: str, before: Elements | None, theirs: bool) -> None:
        """A list, set or set of pools is changed, which had these elements: by the other side, or by a replay."""
        self._settle(self.moves, name, before)
        if theirs:
            self.last[name] = before
        else:
            self.last.pop(name, None)

    def moved(self, name: str, now: Elements | None) -> Moves:
        """What the other side did to it, which has these elements now."""
        moves = {name: Moves(m.put_in, m.taken_out)} if (m := self.moves.get(name)) is not None else {}
        self._settle(moves, name, now)
        return moves.get(name) or Moves()

    def _settle(self, moves: dict[str, Moves], name: str, after: Elements | None) -> None:
        if name in self.last:
            before = self.last[name]
            if before is None or after is None:
                moves.pop(name, None)
            else:
                moves.setdefault(name, Moves()).step(before, after)


Merger = Callable[[dict[str, Any], dict[str, Any], dict[str, Any]], Mapping[str, Any]]


@dataclass
class Merged:
    """What an item comes to."""

    attributes: dict[str, Any]
    clashes: list[Clash] = field(default_factory=list)
    both: bool = False  # whether both sides had changed it


def merge_attributes(
    about: int,
    base: dict[str, Any],
    mine: dict[str, Any],
    now: dict[str, Any],
    changed: Mapping[str, Any],
    theirs: Theirs,
    stamp: Stamp,
    *,
    complete: bool,
    taken_back: Callable[[str], tuple[Elements, Elements]],
    merger: Merger | None = None,
) -> Merged:
    """Apply what `mine` changed to what the item is `now`.

    Args:
        about: the item's id.
        base, mine: all attributes before and after the commit that is replayed.
        now: all attributes as they are in the store.
        changed: the names of the attributes that the commit changed.
        theirs: what the other side did to the item.
        stamp: of the commit that is replayed.
        complete: whether `theirs` is all; else what differs may have been changed at any time.
        taken_back: what the commit takes back in an attribute of what its side did before: see `TakenBack.by`.
        merger: the class's `merge`, if it has one.
    """
    result = Merged(dict(now))
    open_names = []
    for name in sorted(changed):
        old, new, there = (each.get(name, ABSENT) for each in (base, mine, now))
        last = theirs.attributes.get(name)
        if last is not None or not complete:
            again, back = taken_back(name)
            if again or back:
                moves = theirs.moved(name, elements_of(None if there is ABSENT else there))
                old = retold(old, new, again & moves.put_in, back & moves.taken_out)
            result.both = result.both or not _same(there, old)
        if _same(new, there):
            continue
        if (last is None and complete) or (_same(there, old) and (last is None or last < stamp)):
            _put(result.attributes, name, new)
            continue
        combined = merge_collections(old, new, there)
        if combined is not ABSENT:
            _put(result.attributes, name, combined)
        else:
            open_names.append(name)
    if open_names and merger is not None:
        decided = _ask(about, merger, base, mine, now)
        result.attributes.update(decided)
        open_names = [name for name in open_names if name not in decided]
    for name in open_names:
        new, there = mine.get(name, ABSENT), now.get(name, ABSENT)
        last = theirs.attributes.get(name)
        if last is not None and stamp > last:
            _put(result.attributes, name, new)
            result.clashes.append(Clash("value", about, name, new, stamp, there, last))
        else:
            result.clashes.append(Clash("value", about, name, there, last, new, stamp))
    return result


def _put(attributes: dict[str, Any], name: str, value: Any) -> None:
    if value is ABSENT:
        attributes.pop(name, None)
    else:
        attributes[name] = value


def _same(one: Any, other: Any) -> bool:
    if one is ABSENT or other is ABSENT:
        return one is other
    return same(one, other)


def _ask(
    about: int, merger: Merger, base: dict[str, Any], mine: dict[str, Any], theirs: dict[str, Any]
) -> dict[str, Any]:
    """What the class's `merge` makes of it; nothing where that fails."""
    try:
        given = [{name: to_stored(value, name) for name, value in side.items()} for side in (base, mine, theirs)]
        return {str(name): to_stored(value, str(name)) for name, value in (merger(*given) or {}).items()}
    except UnstorableValue as error:
        log.warning("item %d: what merge() of its class returned cannot be stored: %s", about, error)
    except Exception:  # whatever an application's code raises is its own affair
        log.exception("item %d: merge() of its class failed; the later change is kept instead", about)
    return {}


# -- containers


def merge_collections(base: Any, mine: Any, theirs: Any) -> Any:
    """Both sides' additions and removals, or ABSENT if these are not containers of simple values that allow it."""
    kind = type(theirs)
    if type(mine) is not kind:
        return ABSENT
    if base is None or base is ABSENT:
        base = kind() if kind in (list, set, frozenset, dict) else base
    if type(base) is not kind:
        return ABSENT
    if kind in (set, frozenset):
        if not are_simple(base) or not are_simple(mine) or not are_simple(theirs):
            return ABSENT
        old, ours, others = (set(of_set(side)) for side in (base, mine, theirs))
        return kind(values([*(others - (old - ours)), *(ours - old - others)]))
    if kind is list:
        return _merge_lists(base, mine, theirs)
    if kind is dict:
        return _merge_dicts(base, mine, theirs)
    return ABSENT


def _merge_dicts(base: dict[Any, Any], mine: dict[Any, Any], theirs: dict[Any, Any]) -> Any:
    """Both sides' changes, if no key was changed on both in different ways."""
    if not all(map(are_simple, (base, mine, theirs))):
        return ABSENT
    merged = dict(theirs)
    for key in [*mine, *(key for key in base if key not in mine)]:
        old, new, there = (each.get(key, ABSENT) for each in (base, mine, theirs))
        if _same(new, old) or _same(new, there):
            continue
        if not _same(there, old):
            return ABSENT
        _put(merged, key, new)
    return merged


def _merge_lists(base: list[Any], mine: list[Any], theirs: list[Any]) -> Any:
    if not are_mergeable(base, mine, theirs):
        return ABSENT
    old, ours, others = map(of_list, (base, mine, theirs))
    if in_order_of(ours, old) == in_order_of(old, ours):
        return values(with_changes(old, ours, others))  # mine kept the order: its changes go into theirs
    if in_order_of(others, old) == in_order_of(old, others):
        return values(with_changes(old, others, ours))
    return ABSENT
