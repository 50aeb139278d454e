"""One salvaged commit, worked out anew for a store whose history went on without it.

`Replay.commit` says what the commit comes to there: a WriteSet with the same id, time and label, to be committed as any
other. What both sides changed is merged (`merging`); what could not be kept is put into a conflict item in the same
commit. A commit of which nothing is left is still made, so that its id says that it was.

How the parts of an item beside its attributes are merged:

- Deleted here and changed there, or the other way round: it stays, with a conflict item.
- Deleted here, referred to there since: "nullify" attributes let go of it; for the sake of "cascade" and "restrict"
  ones it stays, with a conflict item. So with a reference made here to what was deleted there.
- Pools: what was put in and taken out is done again; a pool that is gone takes nobody in. Two pools of one name
  become one, with the members and the indexes of both.
- Indexes of a pool: those added and dropped are added and dropped again, under numbers of their own. Of two
  definitions under one name, the later is kept.
- Names: the later stands, and the other item is named in a conflict item.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from atop.conflicts import CONFLICT_TYPE
from atop.engine import COMMITS, Engine
from atop.ids import tag_of
from atop.indexes import READY
from atop.item import Field, class_named
from atop.journal import commit_at, relabelled
from atop.overlay import references_of
from atop.pool import pool_key
from atop.records import State, pack_u64, unpack_u64
from atop.transaction import without
from atop.values import Reference
from atop.writeset import (
    CREATED,
    DELETED,
    INDEX_ATTRIBUTES,
    ROOTS,
    RULE_BYTES,
    UPDATED,
    WriteSet,
    is_pool,
    same,
)

from .aside import ConflictWriter
from .drafting import Draft
from .merging import ABSENT, Clash, Merger, Stamp, Theirs, merge_attributes
from .moves import POOLS, TakenBack, pools_as_elements
from .pools import Pools
from .salvage import WHOLE, Change, Commit
from .theirs import TheirChanges

CONFLICT_ATTRIBUTES: Final = frozenset({"about", "attribute", "kept", "kept_device", "other", "other_device"})
"""What tells a conflict item that was deleted, of which the journal has the attributes."""


# Item, attribute or POOLS, and the value with which it held on to something.
Hold = tuple[int, str, Any]


@dataclass
class Outcome:
    """What a commit came to."""

    write_set: WriteSet
    merged: int  # items that both sides had changed
    clashes: list[Clash]
    item_ids: list[int]  # of the items it writes


class Replay:
    """Works out the commits of one salvage, in order.

    Args:
        engine: of the store in which they are to be made.
        commits: gives all of them, each time it is called.
        common: the number of the last commit that both histories have.
        conflicts: turns a clash into a conflict item, in a draft.
    """

    def __init__(
        self, engine: Engine, commits: Callable[[], Iterable[Commit]], common: int, conflicts: ConflictWriter
    ) -> None:
        self._engine = engine
        self._conflicts = conflicts
        self._pools: dict[int, str] = {}  # pools that the salvage makes, with their names
        self.taken_back = TakenBack(commits)
        self._covered = 0  # the commits of the other side that are looked for in it
        # What is gone -> (item, attribute) that refers to it, or (item, POOLS) for its members -> the value, as the
        # commits that are made by now have left it.
        self._let_go: defaultdict[int, dict[tuple[int, str], Any]] = defaultdict(dict)
        self._let_go_by: defaultdict[tuple[int, str], set[int]] = defaultdict(set)
        # The deletion that was asked about last, for it may have deleted many items: see `consequences`.
        self._deletion: tuple[int, defaultdict[int, list[str]], defaultdict[int, list[Hold]]] | None = None
        mine: set[int] = set()
        tracked: set[int] = set()
        for commit in commits():
            mine.add(commit.commit_id)
            for change in commit.changes:
                tracked.add(change.item_id)
                state = change.after
                if state is not None:
                    tracked.update(target for target, _ in references_of(state.attributes))
                    tracked.update(state.pools)
                    if change.kind in (CREATED, WHOLE) and is_pool(state) and state.attributes.get("name"):
                        self._pools[change.item_id] = str(state.attributes["name"])
        self._theirs = TheirChanges(engine, common, mine, tracked)
        self._mine = mine

    def made(self, commit: Commit) -> None:
        """A commit is in the store, made just now or before: note what it holds on to that is gone."""
        for key, value, targets in holds(commit):
            for target in self._let_go_by.pop(key, ()):
                del self._let_go[target][key]
            gone = {target for target in targets if self._engine.version(self.pool_of(target)) is None}
            for target in gone:
                self._let_go[target][key] = value
            if gone:
                self._let_go_by[key] = gone

    def let_go(self, target: int) -> dict[tuple[int, str], Any]:
        """The attributes, and the memberships (POOLS), that commits before have had let go of what was gone."""
        return self._let_go.get(target, {})

    def commit(self, commit: Commit) -> Outcome:
        """What a commit comes to, as the store is now. Raises UnstorableValue, TransactionTooLarge."""
        work = _Work(self, commit)
        work.read()
        self._theirs.catch_up()
        if self._covered != self._theirs.seen:
            self._theirs.watch(self.taken_back.cover(self._theirs.changed()))
            self._covered = self._theirs.seen
        work.run()
        return self._outcome(work)

    def pool_of(self, pool_id: int) -> int:
        """The pool that stands for one that the salvage makes: itself, or the one of its name that was there."""
        name = self._pools.get(pool_id)
        if name is None or self._engine.version(pool_id) is not None:
            return pool_id
        return self._engine.catalog_get(pool_key(name)) or pool_id

    def consequences(self, deletion: int, item_id: int) -> tuple[list[str], list[Hold]]:
        """What a commit of the journal, which deleted an item, did beside: the names that it took from it, and what
        let go of it."""
        if self._deletion is None or self._deletion[0] != deletion:
            number = self._number_of(deletion)
            names: defaultdict[int, list[str]] = defaultdict(list)
            lost: defaultdict[int, list[Hold]] = defaultdict(list)
            commit = commit_at(self._engine, number) if number is not None else None
            for name, old, _ in commit.names if commit is not None else ():
                names[old or 0].append(name)
            for change in commit.changes if commit is not None else ():
                for pool_id in change.pools or ():
                    lost[pool_id].append((change.item_id, POOLS, ()))
                for target, name in set(references_of(dict(change.before))):
                    lost[target].append((change.item_id, name, change.before[name]))
            self._deletion = deletion, names, lost
        _, names, lost = self._deletion
        return names[item_id], [hold for hold in lost[item_id] if hold[0] != item_id]

    def refused(self, commit: Commit) -> Outcome:
        """A commit that cannot be made here as it is: all that it holds becomes conflict items."""
        work = _Work(self, commit)
        work.set_aside()
        return self._outcome(work)

    def _outcome(self, work: _Work) -> Outcome:
        commit, draft = work.commit, work.draft
        for clash in work.clashes:
            self._conflicts.write(draft, clash, commit.commit_id, self._mine)
        numbers = {number: self._number_of(commit_id) for number, commit_id in commit.undone}
        label = relabelled(commit.label, numbers) if numbers else commit.label
        write_set = draft.write_set(commit.commit_id, commit.time, label)
        return Outcome(write_set, work.merged, work.clashes, draft.item_ids)

    def _number_of(self, commit_id: int) -> int | None:
        found = self._engine.get(COMMITS, pack_u64(commit_id))
        return int(unpack_u64(found)[0]) if found is not None else None


def holds(commit: Commit) -> Iterator[tuple[tuple[int, str], Any, set[int]]]:
    """(item, attribute), its value, and what it refers to, for each attribute that a commit left with a new value; and
    for each item that it wrote (item, POOLS), nothing, and the pools that it left it in.
    """
    for change in commit.changes:
        after = change.after.attributes if change.after is not None else {}
        names = set(after) if change.kind != UPDATED else {*change.before, *change.added}
        targets: defaultdict[str, set[int]] = defaultdict(set)
        for target, name in references_of({name: after[name] for name in names if name in after}):
            targets[name].add(target)
        for name in names:
            yield (change.item_id, name), after.get(name), targets[name]
        yield (change.item_id, POOLS), (), set(change.after.pools) if change.after is not None else set()


class _Work:
    """One commit being worked out."""

    def __init__(self, replay: Replay, commit: Commit) -> None:
        self.commit = commit
        self.draft = Draft(replay._engine)
        self.clashes: list[Clash] = []
        self.merged = 0
        self._replay = replay
        self._theirs = replay._theirs
        self._stamp = Stamp(commit.time, tag_of(commit.commit_id))
        self._pools = Pools(self.draft, replay._pools, self._theirs, self._stamp)
        self._deleted = {change.item_id for change in commit.changes if change.kind == DELETED}
        self._staying: set[int] = set()
        self._settled: set[tuple[int, str]] = set()

    def read(self) -> None:
        """Read the items that the commit is about."""
        for change in self.commit.changes:
            self.draft.committed(change.item_id)
            if change.after is not None:
                for pool_id in change.after.pools:
                    self.draft.committed(self._pools.stand_in(pool_id))

    def run(self) -> None:
        """Work it out."""
        self._find_settled()
        self._find_staying()
        for change in sorted(self.commit.changes, key=_pools_first):
            if change.after is not None:
                self.draft.set_rules(change.item_id, change.rules)
                self._apply(change, change.after)
        for change in self.commit.changes:
            if change.after is None:
                self._delete(change)
        for name, old, new in self.commit.names:
            self._name(name, old, new)

    def set_aside(self) -> None:
        """Keep all values in conflict items, and change nothing."""
        for change in self.commit.changes:
            state = change.after
            if state is not None and state.type_name != CONFLICT_TYPE:
                values = dict(state.attributes)
                self.clashes.append(Clash("item", change.item_id, "", ABSENT, None, self._mended(values), self._stamp))

    # -- deletions

    def _find_settled(self) -> None:
        """Attributes of which this commit settles a conflict: to settle one twice makes no new one."""
        for change in self.commit.changes:
            if change.kind == DELETED and change.before.keys() >= CONFLICT_ATTRIBUTES:
                self._settled.add((change.before["about"], change.before["attribute"]))

    def _find_staying(self) -> None:
        """Which of the items that the commit deletes have to stay."""
        gone = {item_id for item_id in self._deleted if self.draft.committed(item_id) is not None}
        stay = {item_id for item_id in gone if self._was_touched(item_id)}
        waiting = True
        while waiting:
            more = {item_id for item_id in gone - stay if self._is_needed(item_id, gone - stay)}
            waiting = bool(more)
            stay |= more
        self._staying = stay

    def _was_touched(self, item_id: int) -> bool:
        """Whether the other side changed an item, so that its deletion here does not hold."""
        state = self.draft.committed(item_id)
        if state is None or state.type_name == CONFLICT_TYPE:
            return False
        if self._theirs.complete:
            return self._theirs.of(item_id).touched is not None
        base = next(change.base for change in self.commit.changes if change.item_id == item_id)
        return state.version != base and state.version not in self._replay._mine

    def _is_needed(self, item_id: int, gone: set[int]) -> bool:
        return any(rule and source not in gone for source, _, rule in self.draft.referrers(item_id))

    def _delete(self, change: Change) -> None:
        item_id = change.item_id
        state = self.draft.state(item_id)
        if state is None:
            return
        if item_id in self._staying:
            last = self._theirs.of(item_id).touched
            self._clash(Clash("deleted", item_id, "", ABSENT, last, ABSENT, self._stamp))
            return
        if is_pool(state):
            for member in self.draft.members(item_id):
                self._pools.put(member, lambda pools: pools - {item_id})
            name = pool_key(str(state.attributes.get("name", "")))
            if self.draft.named(name) == item_id:
                self.draft.name(name, None)
        for name in self.draft.roots_of(item_id):
            self.draft.name(name, None)
        for source, attribute, _ in list(self.draft.referrers(item_id)):
            there = self.draft.state(source)
            if there is not None and source != item_id and source not in self._deleted - self._staying:
                value = without(there.attributes.get(attribute), item_id)
                self.draft.put(source, there._replace(attributes={**there.attributes, attribute: value}))
        self.draft.delete(item_id)

    # -- items

    def _apply(self, change: Change, after: State) -> None:
        now = self.draft.state(change.item_id)
        theirs = self._theirs.of(change.item_id)
        if is_pool(after) and self._apply_pool(change, after, now):
            return
        if now is None:
            if change.kind == CREATED:
                self._create(change, after)
            elif not self._is_consequence(change, after) and after.type_name != CONFLICT_TYPE:
                self._bring_back(change, after, theirs)
        elif not (change.kind == CREATED and change.base):  # to bring back what is there changes nothing
            self._merge(change, after, now, theirs)

    def _create(self, change: Change, after: State) -> None:
        attributes = self._mended(after.attributes, change.rules)
        state = after._replace(attributes=attributes, pools=self._pools.of(after.pools))
        if change.base:
            self.draft.restore(change.item_id, state, change.base)
        else:
            self.draft.put(change.item_id, state)

    def _bring_back(self, change: Change, after: State, theirs: Theirs) -> None:
        """Changed here, deleted there: it stays."""
        self._clash(Clash("deleted", change.item_id, "", ABSENT, self._stamp, ABSENT, theirs.deleted))
        if theirs.state is None or theirs.deleted is None:  # the journal does not tell what it was
            self._create(change, after)
            return
        rules = class_rules(theirs.state.type_name)
        self.draft.restore(change.item_id, theirs.state, theirs.deletion)
        self.draft.set_rules(change.item_id, rules)
        self._merge(change, after, theirs.state, theirs, rules)
        self._take_back_consequences(change.item_id, theirs.deletion)

    def _revive(self, item_id: int, state: State, deletion: int) -> None:
        """Bring back what the commit `deletion` deleted."""
        rules = class_rules(state.type_name)
        self.draft.restore(item_id, state._replace(pools=()), deletion)  # so that a circle of references ends here
        self.draft.set_rules(item_id, rules)
        attributes = self._mended(state.attributes, rules)
        self.draft.put(item_id, state._replace(attributes=attributes, pools=self._pools.of(state.pools)))
        self._take_back_consequences(item_id, deletion)

    def _take_back_consequences(self, item_id: int, deletion: int) -> None:
        """Undo what a deletion did to names, to members of a pool, and to attributes that let go of the item."""
        names, lost = self._replay.consequences(deletion, item_id)
        for name in names:
            if self.draft.named(name) is None:
                self.draft.name(name, item_id)
        for source, name, before in lost:  # which may have been brought back as well
            if name == POOLS:
                self._pools.put(source, lambda pools: pools | {item_id})
            else:
                self._refer_again(source, name, before, item_id)
        self._hold_on_again(item_id)

    @cached_property
    def _holds(self) -> tuple[set[tuple[int, str]], dict[int, dict[tuple[int, str], Any]]]:
        """What the commit left with a new value; and by what that refers to, or is a member of, the values."""
        written: set[tuple[int, str]] = set()
        held: defaultdict[int, dict[tuple[int, str], Any]] = defaultdict(dict)
        for key, value, targets in holds(self.commit):
            written.add(key)
            for target in targets:
                held[target][key] = value
        return written, held

    def _hold_on_again(self, target: int) -> None:
        """Have the items refer to what was brought back, and be in it, that its side left so; unless the other side
        has said otherwise."""
        written, held_here = self._holds
        held = {key: value for key, value in self._replay.let_go(target).items() if key not in written}
        held.update(held_here.get(target, {}))
        for (source, name), value in held.items():
            theirs = self._theirs.of(source)
            if name == POOLS:
                there = self.draft.state(source)
                moves = theirs.moved(POOLS, pools_as_elements(there.pools) if there is not None else None)
                if (int, target, 0) not in moves.taken_out:
                    self._pools.put(source, lambda pools: pools | {target})
            elif name not in theirs.attributes:
                self._refer_again(source, name, value, target)

    def _refer_again(self, source: int, name: str, before: Any, target: int) -> None:
        """Give an attribute back the value that it had before it let go of an item, and nothing else happened to it."""
        there = self.draft.state(source)
        referred = any(item_id == target for item_id, _ in references_of({name: before}))
        if there is not None and referred and same(there.attributes.get(name), without(before, target)):
            attributes = {**there.attributes, name: before}
            self.draft.put(source, there._replace(attributes=self._mended(attributes)))

    def _is_consequence(self, change: Change, after: State) -> bool:
        """Whether a change is no more than what the deletion of other items did to this one."""
        if change.kind != UPDATED or change.added:
            return False
        references = all(
            any(target in self._deleted for target, _ in references_of({name: value}))
            for name, value in change.before.items()
        )
        before, now = set(after.pools if change.pools is None else change.pools), set(after.pools)
        return references and now <= before and before - now <= self._deleted

    def _merge(
        self, change: Change, after: State, now: State, theirs: Theirs, rules: dict[str, bytes] | None = None
    ) -> None:
        item_id = change.item_id
        base, changed = self._base(change, after)
        if is_pool(now):
            for name in INDEX_ATTRIBUTES:
                changed.pop(name, None)
        schemas_differ = change.kind == UPDATED and now.schema != after.schema
        if schemas_differ and self._merge_schemas(change, after, now, theirs):
            return
        for name in [name for name in changed if self._only_lets_go(base.get(name), after.attributes.get(name))]:
            del changed[name]
        result = merge_attributes(
            item_id,
            base,
            after.attributes,
            now.attributes,
            changed,
            theirs,
            self._stamp,
            complete=self._theirs.complete and change.kind != WHOLE,
            taken_back=lambda name: self._replay.taken_back.by(self.commit.commit_id, item_id, name),
            merger=_merger(now.type_name, now.schema),
        )
        self.merged += result.both
        for clash in result.clashes:
            self._clash(clash)
        schema = max(now.schema, after.schema) if now.type_name == after.type_name else now.schema
        mine = {name: rule for name, rule in change.rules.items() if name in changed}
        attributes = self._mended(result.attributes, {**(rules or {}), **mine})
        self.draft.put(item_id, now._replace(attributes=attributes, schema=schema, pools=self._pools.of(now.pools)))
        if is_pool(now) and is_pool(after):
            self._pools.apply_indexes(item_id, base.get("indexes", {}), after.attributes["indexes"])
        if change.kind in (CREATED, WHOLE):
            self._pools.put(item_id, lambda pools: pools | set(after.pools))
        elif change.pools is not None:
            self._merge_pools(item_id, change.pools, after.pools, now.pools)

    def _merge_pools(self, item_id: int, base: tuple[int, ...], mine: tuple[int, ...], now: tuple[int, ...]) -> None:
        """Put an item into the pools that the commit put it into, and take it out of those that it took it out of."""
        stand_in = self._pools.stand_in
        # The members of a pool that is deleted are taken out by `_delete`, unless it stays; those of another one that
        # stands for it, here.
        old = {stand_in(p) for p in base if p not in self._deleted or stand_in(p) != p}
        new = set(map(stand_in, mine))
        moves = self._theirs.of(item_id).moved(POOLS, pools_as_elements(now))
        again, back = self._replay.taken_back.by(self.commit.commit_id, item_id, POOLS)
        old -= {stand_in(p) for _, p, _ in again} & {p for _, p, _ in moves.put_in}
        old |= {stand_in(p) for _, p, _ in back} & {p for _, p, _ in moves.taken_out}
        self._pools.put(item_id, lambda pools: pools - (old - new) | (new - old))

    @staticmethod
    def _base(change: Change, after: State) -> tuple[dict[str, Any], dict[str, None]]:
        """All attributes before the commit, and the names of those that it changed."""
        if change.kind != UPDATED:
            return {}, dict.fromkeys(after.attributes)
        base = {name: value for name, value in after.attributes.items() if name not in change.added}
        base.update(change.before)
        return base, dict.fromkeys([*change.before, *change.added])

    def _only_lets_go(self, before: Any, after: Any) -> bool:
        """Whether an attribute changed only because what it refers to was deleted, which does not happen now."""
        return any(
            any(target == item_id for target, _ in references_of({"": before}))
            and same(without(before, item_id), after)
            for item_id in self._staying
        )

    def _merge_schemas(self, change: Change, after: State, now: State, theirs: Theirs) -> bool:
        """Two versions of a class, both changed: the newer version is kept, the other whole; False if only one was."""
        if theirs.touched is None and self._theirs.complete:
            if after.schema > now.schema:
                self.draft.put(
                    change.item_id, now._replace(schema=after.schema, attributes=self._mended(after.attributes))
                )
                return True
            return False
        newer = after if after.schema > now.schema else now
        older = now if newer is after else after
        stamps = (self._stamp, theirs.touched) if newer is after else (theirs.touched, self._stamp)
        self.draft.put(change.item_id, now._replace(schema=newer.schema, attributes=self._mended(newer.attributes)))
        self._clash(
            Clash(
                "item",
                change.item_id,
                "",
                ABSENT,
                stamps[0],
                self._mended(dict(older.attributes)),
                stamps[1],
            )
        )
        self.merged += 1
        return True

    # -- what items refer to

    def _mended(self, attributes: dict[str, Any], rules: dict[str, bytes] | None = None) -> dict[str, Any]:
        """Attributes without references to what is gone; what `rules` do not let go of is brought back."""
        mended, rules = attributes, rules or {}
        references = set(references_of(attributes))
        for target, name in sorted(references, key=lambda place: place[1] not in rules):  # what brings back comes first
            pool = self._pools.stand_in(target)
            if pool != target:
                mended = {**mended, name: _with_other(mended[name], target, pool)}
            elif self._is_gone(target) and not (rules.get(name) and self._bring_back_target(target)):
                mended = {**mended, name: without(mended[name], target)}
        return mended

    def _is_gone(self, item_id: int) -> bool:
        """Whether an item is not there, and is not made by this commit either."""
        made = (change.item_id for change in self.commit.changes if change.kind in (CREATED, WHOLE))
        return self.draft.state(item_id) is None and item_id not in made

    def _bring_back_target(self, target: int) -> bool:
        """Bring back what was deleted there, and is referred to here by an attribute whose rule does not let it go."""
        theirs = self._theirs.of(target)
        if theirs.state is None or theirs.deleted is None:
            return False
        self._revive(target, theirs.state, theirs.deletion)
        self._clash(Clash("deleted", target, "", ABSENT, self._stamp, ABSENT, theirs.deleted))
        return True

    # -- pools

    def _apply_pool(self, change: Change, after: State, now: State | None) -> bool:
        """Make a pool, or change the indexes of one; False if the rest of it is to be merged as of any item."""
        item_id = change.item_id
        if now is None and change.kind in (CREATED, WHOLE):
            name = str(after.attributes.get("name", ""))
            there = self.draft.named(pool_key(name)) if name else None
            if there is not None and self.draft.is_pool(there):
                self._pools.apply_indexes(there, {}, after.attributes["indexes"])
                return True
            self._create(change, after._replace(attributes={**after.attributes, "indexes": {}, "doomed": ()}))
            if name:
                self.draft.name(pool_key(name), item_id)
            self._pools.apply_indexes(item_id, {}, after.attributes["indexes"], READY)  # it has no members yet
            return True
        if now is None and change.kind == UPDATED and changed_only_indexes(change):
            target = self._pools.stand_in(item_id)
            if target != item_id:  # it became one with another pool
                old = self._base(change, after)[0].get("indexes", {})
                self._pools.apply_indexes(target, old, after.attributes["indexes"])
                return True
        return False

    # -- names

    def _name(self, name: str, old: int | None, new: int | None) -> None:
        there = self.draft.named(name)
        wanted = None if new is None else self._pools.stand_in(new)
        if wanted is not None and self.draft.state(wanted) is None:
            return
        if old in self._staying or there == wanted or not name.encode().startswith(ROOTS):
            return  # names of pools come and go with their pools
        last = self._theirs.name(name)
        if there == old and (last is None or last < self._stamp):
            self.draft.name(name, wanted)
        elif last is not None and self._stamp > last:
            self.draft.name(name, wanted)
            self._clash(Clash("name", wanted or there or 0, name, _ref(wanted), self._stamp, _ref(there), last))
        else:
            self._clash(Clash("name", there or wanted or 0, name, _ref(there), last, _ref(wanted), self._stamp))

    def _clash(self, clash: Clash) -> None:
        state = self.draft.state(clash.about)
        if (clash.about, clash.attribute) in self._settled or (state is not None and state.type_name == CONFLICT_TYPE):
            return
        self.clashes.append(clash)


def class_rules(type_name: str) -> dict[str, bytes]:
    """What the attributes of a class say about deletion, where that is not "nullify" and the class is imported."""
    fields = getattr(class_named(type_name), "_fields", {})
    return {name: rule for name, field in fields.items() if (rule := RULE_BYTES[field.on_delete])}


def changed_only_indexes(change: Change) -> bool:
    """Whether a commit did no more to a pool than add or drop indexes."""
    return {*change.before, *change.added} <= INDEX_ATTRIBUTES


def _pools_first(change: Change) -> tuple[int, int]:
    made = change.after is not None and is_pool(change.after)
    return (0 if made else 1), change.item_id


def _ref(item_id: int | None) -> Any:
    return None if item_id is None else Reference(item_id)


def _with_other(value: Any, old: int, new: int) -> Any:
    """A stored value that refers to another item in the place of one."""
    kind = type(value)
    if kind is Reference:
        return Reference(new) if value.item_id == old else value
    if kind in (list, tuple, set, frozenset):
        return kind(_with_other(inner, old, new) for inner in value)
    if kind is dict:
        return {_with_other(k, old, new): _with_other(v, old, new) for k, v in value.items()}
    return value


def _merger(type_name: str, schema: int) -> Merger | None:
    """The `merge` of an item class, where it is imported, and no older than the record."""
    cls = class_named(type_name)
    found = getattr(cls, "merge", None) if cls is not None and cls._schema == schema else None
    return found if callable(found) and not isinstance(found, Field) else None
