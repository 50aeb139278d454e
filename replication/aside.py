"""Putting aside: a clash becomes a conflict item, in the commit that met it.

A device that changed an attribute several times meets the other side's value with each commit: they make one conflict
item, with the last value. What an earlier salvage, or a third device, put aside is left as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Any

from atop.conflicts import CONFLICT_TYPE, POOL_NAME, open_about
from atop.engine import Engine
from atop.errors import AtopError
from atop.overlay import references_of
from atop.pool import pool_key
from atop.records import State
from atop.transaction import without

from .drafting import Draft
from .merging import ABSENT, Clash, Stamp


class NoConflictsPool(AtopError):
    """The pool of conflicts is not there yet: make it, and work the commit out again."""


class ConflictWriter:
    """Writes conflict items into drafts.

    Args:
        engine: of the store.
        new_item_id: hands out ids for items.
    """

    def __init__(self, engine: Engine, new_item_id: Callable[[], int]) -> None:
        self._engine = engine
        self._new_item_id = new_item_id
        self._ids: dict[tuple[int, str, int, str], int] = {}  # so that a draft made anew takes no new numbers

    def write(self, draft: Draft, clash: Clash, commit_id: int, salvage: Container[int]) -> None:
        """Put a clash that a commit of `salvage` met into a conflict item. Raises NoConflictsPool."""
        pool_id = draft.named(pool_key(POOL_NAME))
        pool = draft.state(pool_id) if pool_id is not None else None
        if pool_id is None or pool is None:
            raise NoConflictsPool("the pool of conflicts is not there")
        about = draft.state(clash.about)
        attributes = {
            "kind": clash.kind,
            "about": clash.about,
            "attribute": clash.attribute,
            "item_type": about.type_name if about is not None else "",
            "item_schema": about.schema if about is not None else 1,
            **_side("kept", clash.kept, clash.kept_by),
            **_side("other", clash.other, clash.other_by),
            "commit": commit_id,
        }
        for target, name in set(references_of(attributes)):
            if draft.state(target) is None:
                attributes[name] = without(attributes[name], target)
        same_pair = self._open_of(draft, clash, pool_id, pool.attributes["indexes"], salvage)
        if same_pair is not None:
            item_id, state = same_pair
            draft.put(item_id, state._replace(attributes={**state.attributes, **attributes}))
            return
        key = (commit_id, clash.kind, clash.about, clash.attribute)
        item_id = self._ids.setdefault(key, 0) or self._new_item_id()
        self._ids[key] = item_id
        draft.put(item_id, State(commit_id, CONFLICT_TYPE, 1, attributes, (pool_id,)))

    def _open_of(
        self, draft: Draft, clash: Clash, pool_id: int, indexes: dict[str, Any], salvage: Container[int]
    ) -> tuple[int, State] | None:
        """The conflict item that this very salvage made of the same two devices' values."""
        wanted = {_device(clash.kept_by), _device(clash.other_by)}
        for item_id in open_about(self._engine, pool_id, indexes, clash.about):
            state = draft.state(item_id)
            if state is None or state.type_name != CONFLICT_TYPE:
                continue
            there = state.attributes
            if (
                (there.get("kind"), there.get("attribute")) == (clash.kind, clash.attribute)
                and {there.get("kept_device"), there.get("other_device")} == wanted
                and there.get("commit") in salvage
            ):
                return item_id, state
        return None


def _device(stamp: Stamp | None) -> int | None:
    return None if stamp is None else stamp.device


def _side(name: str, value: Any, stamp: Stamp | None) -> dict[str, Any]:
    return {
        name: None if value is ABSENT else value,
        f"{name}_there": value is not ABSENT,
        f"{name}_device": _device(stamp),
        f"{name}_time": None if stamp is None else stamp.time,
    }
