"""Gathering what another history lacks: this device's commits after one that both have, latest first.

The journal has the old values of what each commit changed. Going back from the items as they are now, that gives the
state that every commit left. Where the journal no longer goes back far enough, items written by the commits that are
missing from it are gathered as they are (`salvage.WHOLE`), each under the commit that wrote it last; what those commits
deleted, and that they did, is not known any more.

Promises: nothing is changed; nothing of Berkeley DB's is held between two records. Memory is taken for the states of
the items that the commits changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from atop.engine import COMMITS, JOURNAL, Engine
from atop.ids import tag_of
from atop.item import class_named
from atop.journal import Commit as Journalled
from atop.journal import commits_back, undone_by
from atop.overlay import references_of
from atop.records import State, decode, pack_u64, unpack_u64
from atop.writeset import CREATED, DELETED, ITEMS, REFERENCES, RULE_BYTES, UPDATED

from .salvage import WHOLE, Change, Commit

MAX_UNDONE: Final = 1_000
"""How many commits an undo's label is followed up for: more than a person takes back at a time."""

CHUNK: Final = 500
END: Final = b"\xff" * 8

_KINDS: Final = {"created": CREATED, "changed": UPDATED, "deleted": DELETED}


class Gathering:
    """What is to be salvaged of one store, whose history ends at `engine.head` and does not change meanwhile."""

    def __init__(self, engine: Engine, common: int) -> None:
        self._engine = engine
        self._common = common
        self._states: dict[int, State | None] = {}  # items as they were after the commit that is looked at next

    def latest_first(self) -> Iterator[Commit]:
        """The commits after the common one, latest first."""
        oldest = self._engine.head.number + 1
        for commit in commits_back(self._engine):
            if commit.number <= self._common:
                return
            yield self._commit(commit)
            oldest = commit.number
        if oldest > self._common + 1:
            yield from self._trimmed(oldest)

    def _commit(self, commit: Journalled) -> Commit:
        changes = []
        for change in commit.changes:
            after = self._state(change.item_id)
            kind = _KINDS[change.kind]
            before: State | None = None
            if change.kind == "deleted":
                assert change.schema is not None  # noqa: S101 - every deletion has it
                before = State(change.base, *change.schema, dict(change.before), change.pools or ())
                after = None
            elif change.kind == "changed" and after is not None:
                attributes = {name: value for name, value in after.attributes.items() if name not in change.added}
                attributes.update(change.before)
                schema = change.schema or (after.type_name, after.schema)
                pools = after.pools if change.pools is None else change.pools
                before = State(change.base, *schema, attributes, pools)
            if after is not None:
                after = after._replace(version=commit.commit_id)
            rules = self._rules_of(change.item_id, after) if after is not None else {}
            changes.append(
                Change(kind, change.item_id, change.base, dict(change.before), change.added, change.pools, after, rules)
            )
            self._states[change.item_id] = before
        # A commit may name an item once only, so the order of its changes does not matter.
        undone = tuple(self._undone(commit))
        time = self._time_of(commit.commit_id)
        return Commit(commit.commit_id, time, commit.label, tuple(changes), commit.names, undone)

    def _state(self, item_id: int) -> State | None:
        if item_id not in self._states:
            record = self._engine.get(ITEMS, pack_u64(item_id))
            self._states[item_id] = decode(record) if record is not None else None
        return self._states[item_id]

    def _time_of(self, commit_id: int) -> int:
        """The time of a commit in microseconds: `Commit.time` is cut at what calendars have."""
        known = self._engine.get(COMMITS, pack_u64(commit_id))
        return int(unpack_u64(known, 8)[0]) if known is not None else 0

    def _undone(self, commit: Journalled) -> Iterator[tuple[int, int]]:
        numbers = [n for low, high in undone_by(commit) for n in range(low, min(high, low + MAX_UNDONE) + 1)]
        for number in numbers[:MAX_UNDONE]:
            record = self._engine.get(JOURNAL, pack_u64(number))
            if record is not None:
                yield number, int(unpack_u64(record, 32)[0])

    def _rules_of(self, item_id: int, state: State) -> dict[str, bytes]:
        """What the attributes that hold references say about deletion: by the class, or by what the table says."""
        fields = getattr(class_named(state.type_name), "_fields", {})
        rules: dict[str, bytes] = {}
        for target, attribute in references_of(state.attributes):
            if attribute in rules:
                continue
            if attribute in fields:
                rule = RULE_BYTES[fields[attribute].on_delete]
            else:
                key = pack_u64(target) + pack_u64(item_id) + attribute.encode()
                rule = self._engine.get(REFERENCES, key) or b""
            if rule:
                rules[attribute] = rule
        return rules

    def _trimmed(self, oldest: int) -> Iterator[Commit]:
        """The items written by commits after the common one that the journal has no longer, under those commits."""
        wanted: dict[int, list[int]] = {}  # number of the commit -> ids of items
        start = b""
        while pairs := self._engine.pairs(ITEMS, start, END, CHUNK):
            for key, record in pairs:
                item_id = int(unpack_u64(key)[0])
                state = self._states[item_id] if item_id in self._states else decode(record)
                known = self._engine.get(COMMITS, pack_u64(state.version)) if state is not None else None
                number = int(unpack_u64(known)[0]) if known is not None else 0
                if self._common < number < oldest:
                    wanted.setdefault(number, []).append(item_id)
            start = pairs[-1][0] + b"\0"
        for number in sorted(wanted, reverse=True):
            changes = []
            for item_id in wanted[number]:
                state = self._state(item_id)
                if state is not None:
                    rules = self._rules_of(item_id, state)
                    changes.append(Change(WHOLE, item_id, 0, {}, (), None, state, rules))
            commit_id = changes[0].after.version if changes and changes[0].after is not None else 0
            if commit_id:
                yield Commit(
                    commit_id, self._time_of(commit_id), f"what device {tag_of(commit_id)} did", tuple(changes)
                )
