"""What a replayed commit did to pools: members, and definitions of indexes.

A pool that the salvage makes, and whose name another one has, is not made: that other one stands for it, wherever it is
named. Indexes that were added or dropped are added or dropped again by name, under numbers of their own: two sides may
have given one number to different ones. An added index begins as one that is being built, and is built when all commits
are made (`reconcile`); its entries for items that are written meanwhile are kept as of any index.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from atop.indexes import BUILDING
from atop.pool import pool_key
from atop.writeset import INDEX_ATTRIBUTES, same

from .drafting import Draft
from .merging import Stamp
from .theirs import TheirChanges


class Pools:
    """The pools of one draft.

    Args:
        draft: the commit in the making.
        made: the pools that the salvage makes, with their names.
        theirs: what the other side did.
        stamp: of the commit that is replayed.
    """

    def __init__(self, draft: Draft, made: Mapping[int, str], theirs: TheirChanges, stamp: Stamp) -> None:
        self._draft = draft
        self._made = made
        self._theirs = theirs
        self._stamp = stamp

    def stand_in(self, pool_id: int) -> int:
        """The pool that stands for one that the salvage makes, if there is another one of its name."""
        name = self._made.get(pool_id)
        if name is None or self._draft.state(pool_id) is not None:
            return pool_id
        return self._draft.named(pool_key(name)) or pool_id

    def of(self, pools: Iterable[int]) -> tuple[int, ...]:
        """Those of these pools that there are, with those that stand for others."""
        return tuple(sorted({p for p in map(self.stand_in, pools) if self._draft.is_pool(p)}))

    def put(self, item_id: int, change: Callable[[set[int]], set[int]]) -> None:
        """Have an item be in the pools that `change` makes of those that it is in."""
        state = self._draft.state(item_id)
        if state is not None:
            pools = self.of(change(set(state.pools)))
            if pools != state.pools:
                self._draft.put(item_id, state._replace(pools=pools))

    def apply_indexes(self, pool_id: int, old: dict[str, Any], new: dict[str, Any], begin: str = BUILDING) -> None:
        """Add and drop what the commit added and dropped, by name. Added indexes begin in the state `begin`."""
        state = self._draft.state(pool_id)
        if state is None:
            return
        attributes = dict(state.attributes)
        indexes, doomed, number = dict(attributes["indexes"]), list(attributes["doomed"]), attributes["next_number"]
        for name in sorted({*old, *new}):
            before, after, there = old.get(name), new.get(name), indexes.get(name)
            if after is not None and (before is None or before[1:4] != after[1:4]):
                if there is not None:
                    if there[1:4] == after[1:4] or not self._is_later(pool_id):
                        continue
                    doomed.append(there[0])
                indexes[name] = (number, *after[1:4], begin)
                number += 1
            elif after is None and before is not None and there is not None and there[1:4] == before[1:4]:
                doomed.append(there[0])
                del indexes[name]
        attributes.update(indexes=indexes, doomed=tuple(doomed), next_number=number)
        if not all(same(attributes[name], state.attributes[name]) for name in INDEX_ATTRIBUTES):
            self._draft.put(pool_id, state._replace(attributes=attributes))

    def _is_later(self, pool_id: int) -> bool:
        last = self._theirs.of(pool_id).attributes.get("indexes")
        return last is None or self._stamp > last
