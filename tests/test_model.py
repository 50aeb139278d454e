"""A store against a model of it: plain dicts that are copied to begin a transaction and put back to undo one.

A state machine does at random what programs do: it makes, changes, deletes and pools items, lets them refer to each
other, adds and drops indexes, opens transactions in transactions, ends or breaks them, undoes commits, has another
thread interfere, and closes and opens the store. After every step all that can be asked of the store, in the current
transaction and outside of it, is what the model says; at the end the store finds nothing wrong with itself.
"""

from __future__ import annotations

import copy
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from atop import Conflict, Index, Item, NoSuchPool, Restricted, Store, UndoRefused, ref


class Thing(Item, type_name="test.model.Thing"):
    name: str = ""
    city: str = ""
    age: Any = None
    text: str = ""
    tags: list[str] = []
    friend: Item | None = None
    friends: list[Item] = []
    owner: Item | None = ref(on_delete="cascade")
    boss: Item | None = ref(on_delete="restrict")


DEFAULTS = {"name": "", "city": "", "age": None, "text": "", "tags": [], "friends": []}
REFERENCES = ("friend", "owner", "boss")
POOLS = ("a", "b")
INDEXES = {
    index.name: index
    for index in (
        Index("name", ("name",)),
        Index("age", ("age",)),
        Index("nocase", ("name",), nocase=True),
        Index("compound", ("city", "age", "name")),
        Index("friend", ("friend",)),
        Index("words", ("text", "tags"), words=True),
    )
}
WORDS = ("alpha", "beta", "al", "gamma")

names = st.sampled_from(["", "a", "A", "b", "ab", "Ab", "ß"])
values = st.fixed_dictionaries(
    {},
    optional={
        "name": names,
        "city": st.sampled_from(["", "Rome", "Oslo"]),
        "age": st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from(["old", "0"]),
        "text": st.lists(st.sampled_from(WORDS), max_size=2).map(" ".join),
        "tags": st.lists(st.sampled_from(WORDS), max_size=2),
    },
)
choices = st.integers(0, 50)  # which of the items, or pools, there are
indexes = st.sampled_from(sorted(INDEXES))


class Failure(Exception):
    """What breaks a transaction."""


class Model:
    """What a store holds. References are ids."""

    def __init__(self) -> None:
        self.items: dict[int, dict[str, Any]] = {}
        self.members: dict[str, set[int]] = {}  # pool -> ids
        self.indexes: dict[str, set[str]] = {}  # pool -> names
        self.made: set[str] = set()  # pools that the current transaction has made
        self.redefined: set[str] = set()  # pools from before it whose indexes it has changed

    def visible(self, item_id: int) -> dict[str, Any]:
        """The attributes as a program sees them, references as ids."""
        return {**DEFAULTS, **dict.fromkeys(REFERENCES), **self.items[item_id]}

    def referrers(self, target: int) -> set[tuple[int, str]]:
        """(id, attribute) for each place that refers to an item."""
        found = {(i, a) for i, attributes in self.items.items() for a in REFERENCES if attributes.get(a) == target}
        return found | {
            (i, "friends") for i, attributes in self.items.items() if target in attributes.get("friends", [])
        }

    def doomed_by(self, item_id: int) -> set[int]:
        """The items that go when this one is deleted. Raises `Restricted`."""
        doomed: set[int] = set()
        waiting = [item_id]
        while waiting:
            one = waiting.pop()
            if one not in doomed:
                doomed.add(one)
                waiting += [source for source, attribute in self.referrers(one) if attribute == "owner"]
        for one in doomed:
            forbidding = [s for s, attribute in self.referrers(one) if attribute == "boss" and s not in doomed]
            if forbidding:
                raise Restricted("the model says so", one, tuple(forbidding))
        return doomed

    def delete(self, item_id: int) -> None:
        """Delete an item and do to its referrers what their attributes say."""
        doomed = self.doomed_by(item_id)
        for one in doomed:
            for source, attribute in self.referrers(one):
                if source not in doomed:
                    attributes = self.items[source]
                    if attribute == "friends":
                        attributes["friends"] = [f for f in attributes["friends"] if f != one]
                    else:
                        attributes[attribute] = None
            for members in self.members.values():
                members.discard(one)
        for one in doomed:
            del self.items[one]

    def ordered(self, pool: str, index: str) -> list[tuple[Any, int]]:
        """(key, id) for each member, in the order of an index."""
        definition = INDEXES[index]
        keys = []
        for item_id in self.members[pool]:
            parts = [order(self.items[item_id].get(name), definition.nocase, name) for name in definition.attributes]
            keys.append((parts, item_id))
        return sorted(keys)

    def found(self, pool: str, words: set[str]) -> list[int]:
        """The members that have all these words, by id."""
        return sorted(i for i in self.members[pool] if words <= self.words(i))

    def words(self, item_id: int) -> set[str]:
        attributes = self.items[item_id]
        return set(re.findall(r"\w+", " ".join([attributes.get("text", ""), *attributes.get("tags", [])])))


def order(value: Any, nocase: bool, name: str) -> tuple[int, Any]:
    """What sorts as a value does in an index: None, then truth values, numbers, texts, items."""
    if value is None:
        return 0, 0
    if isinstance(value, bool):
        return 1, value
    if isinstance(value, int):
        return (4 if name in REFERENCES else 2), value
    return 3, value.casefold() if nocase else value


class StoreMachine(RuleBasedStateMachine):
    """Does things to a store and to its model."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        shutil.rmtree(path, ignore_errors=True)
        self.store = Store(path, cache_size=1 << 20)
        self.elsewhere = ThreadPoolExecutor(1)  # the thread from which everything is looked at from outside
        self.model = Model()  # as the current transaction sees it
        self.committed = self.model  # as everyone else does
        self.scopes: list[Any] = []
        self.saved: list[Model] = []  # for each scope, the model at its beginning
        self.undoable: list[tuple[int, Model]] = []  # (commit number, the model before it), without gaps to the last
        self.held: dict[int, Item] = {}  # objects that the program has not let go of

    # -- how a step is done

    def item(self, choice: int) -> Thing:
        """One of the items that there are."""
        ids = sorted(self.model.items)
        return self.store.get(ids[choice % len(ids)], Thing)

    def pool_name(self, choice: int) -> str:
        """The name of one of the pools that there are."""
        names = sorted(self.model.members)
        return names[choice % len(names)]

    def do(self, to_store: Any, to_model: Any) -> Any:
        """Do one thing to both, as a commit of its own where there is no transaction."""
        if self.scopes:
            result = to_store()
            to_model(self.model)
            return result
        before, number = copy.deepcopy(self.model), self.store.head.number
        result = to_store()
        to_model(self.model)
        self.note_commit(before, number)
        return result

    def note_commit(self, before: Model, number: int) -> None:
        """Remember how to undo what has been committed since commit `number`, if that is one commit."""
        made = self.store.head.number - number
        if made > 1:
            self.undoable.clear()  # an index came or went: that takes several
        elif made == 1:
            self.undoable.append((number + 1, before))
        if not self.scopes:
            self.committed = self.model

    # -- items

    @initialize(things=st.lists(values, min_size=2, max_size=5), pools=st.lists(st.sets(indexes), max_size=2))
    def begin_with_something(self, things: list[dict[str, Any]], pools: list[set[str]]) -> None:
        for name, wanted in zip(POOLS, pools, strict=False):
            self.make_pool(name, wanted)
        for number, attributes in enumerate(things):
            self.create(attributes, number if pools else None, bool(number % 2))

    @rule(attributes=values, pool=st.none() | choices, hold=st.booleans())
    def create(self, attributes: dict[str, Any], pool: int | None, hold: bool) -> None:
        name = self.pool_name(pool) if pool is not None and self.model.members else None

        def make() -> Item:
            with self.store.transaction():
                thing = Thing(self.store, **attributes)
                if name is not None:
                    self.store.pool(name).add(thing)
            return thing

        made: list[int] = []

        def to_model(model: Model) -> None:
            # A constructor stores the defaults too, so that indexes have them.
            model.items[made[0]] = {**copy.deepcopy(DEFAULTS), **dict.fromkeys(REFERENCES), **attributes}
            if name is not None:
                model.members[name].add(made[0])

        def to_store() -> Item:
            thing = make()
            made.append(thing.item_id)
            return thing

        thing = self.do(to_store, to_model)
        if hold:
            self.held[thing.item_id] = thing

    @precondition(lambda self: self.model.items)
    @rule(choice=choices, attributes=values)
    def change(self, choice: int, attributes: dict[str, Any]) -> None:
        thing = self.item(choice)

        def to_store() -> None:
            with self.store.transaction():
                for name, value in attributes.items():
                    setattr(thing, name, value)

        self.do(to_store, lambda model: model.items[thing.item_id].update(attributes))

    @precondition(lambda self: self.model.items)
    @rule(choice=choices, name=st.sampled_from(["name", "city", "age", "tags"]))
    def remove_attribute(self, choice: int, name: str) -> None:
        thing = self.item(choice)
        if name in self.model.items[thing.item_id]:
            self.do(
                lambda: delattr(thing, name), lambda model: model.items[thing.item_id].update({name: DEFAULTS[name]})
            )

    @precondition(lambda self: self.model.items)
    @rule(choice=choices, word=st.sampled_from(WORDS))
    def append_tag(self, choice: int, word: str) -> None:
        thing = self.item(choice)
        tags = [*self.model.visible(thing.item_id)["tags"], word]
        self.do(lambda: thing.tags.append(word), lambda model: model.items[thing.item_id].update(tags=tags))

    @precondition(lambda self: self.model.items)
    @rule(choice=choices, towards=choices, name=st.sampled_from(REFERENCES), nothing=st.booleans())
    def refer(self, choice: int, towards: int, name: str, nothing: bool) -> None:
        thing, other = self.item(choice), self.item(towards)
        value = None if nothing else other
        self.do(
            lambda: setattr(thing, name, value),
            lambda model: model.items[thing.item_id].update({name: None if nothing else other.item_id}),
        )

    @precondition(lambda self: self.model.items)
    @rule(choice=choices, towards=choices, again=st.booleans())
    def befriend(self, choice: int, towards: int, again: bool) -> None:
        thing, other = self.item(choice), self.item(towards)
        friends = [*self.model.visible(thing.item_id)["friends"], *[other.item_id] * (1 + again)]
        self.do(
            lambda: thing.friends.extend([other] * (1 + again)),
            lambda model: model.items[thing.item_id].update(friends=friends),
        )

    @precondition(lambda self: self.model.items)
    @rule(choice=choices)
    def delete(self, choice: int) -> None:
        thing = self.item(choice)
        try:
            self.model.doomed_by(thing.item_id)
        except Restricted:
            with pytest.raises(Restricted):
                thing.delete()
            return
        self.do(thing.delete, lambda model: model.delete(thing.item_id))

    @rule(choice=choices)
    def let_go(self, choice: int) -> None:
        self.held.pop(choice, None)

    # -- pools and indexes

    @rule(name=st.sampled_from(POOLS), wanted=st.sets(indexes, max_size=3))
    def make_pool(self, name: str, wanted: set[str]) -> None:
        if name in self.model.members:
            return

        def to_model(model: Model) -> None:
            model.members[name], model.indexes[name] = set(), set(wanted)
            model.made.add(name)

        self.do(lambda: self.store.pool(name, indexes=[INDEXES[n] for n in sorted(wanted)]), to_model)

    @precondition(lambda self: self.model.items and self.model.members)
    @rule(pool=choices, choice=choices)
    def add(self, pool: int, choice: int) -> None:
        name, thing = self.pool_name(pool), self.item(choice)
        self.do(
            lambda: self.store.pool(name).add(thing),
            lambda model: model.members[name].add(thing.item_id),
        )

    @precondition(lambda self: self.model.items and self.model.members)
    @rule(pool=choices, choice=choices)
    def remove(self, pool: int, choice: int) -> None:
        name, thing = self.pool_name(pool), self.item(choice)
        if thing.item_id not in self.model.members[name]:
            with pytest.raises(KeyError):
                self.store.pool(name).remove(thing)
            return
        self.do(
            lambda: self.store.pool(name).remove(thing),
            lambda model: model.members[name].remove(thing.item_id),
        )

    @precondition(lambda self: self.model.members)
    @rule(pool=choices)
    def delete_pool(self, pool: int) -> None:
        name = self.pool_name(pool)

        def to_model(model: Model) -> None:
            del model.members[name], model.indexes[name]
            model.made.discard(name)
            model.redefined.discard(name)

        self.do(self.store.pool(name).delete, to_model)

    @precondition(lambda self: self.model.members)
    @rule(pool=choices, index=indexes)
    def add_index(self, pool: int, index: str) -> None:
        name = self.pool_name(pool)
        if index in self.model.indexes[name]:
            return

        def to_model(model: Model) -> None:
            model.indexes[name].add(index)
            model.redefined |= {name} - model.made

        self.do(lambda: self.store.pool(name).add_index(*INDEXES[index]), to_model)

    @precondition(lambda self: self.model.members)
    @rule(pool=choices, index=indexes)
    def drop_index(self, pool: int, index: str) -> None:
        name = self.pool_name(pool)
        if index not in self.model.indexes[name]:
            return

        def to_model(model: Model) -> None:
            model.indexes[name].remove(index)
            model.redefined |= {name} - model.made

        self.do(lambda: self.store.pool(name).drop_index(index), to_model)

    # -- transactions

    @precondition(lambda self: len(self.scopes) < 3)
    @rule()
    def begin(self) -> None:
        if not self.scopes:
            self.committed = self.model
            self.model = copy.deepcopy(self.model)
            self.model.redefined, self.model.made = set(), set()
            self.number = self.store.head.number
        self.saved.append(copy.deepcopy(self.model))
        self.scopes.append(self.store.transaction())
        self.scopes[-1].__enter__()

    @precondition(lambda self: self.scopes)
    @rule()
    def end(self) -> None:
        self.scopes.pop().__exit__(None, None, None)
        self.saved.pop()
        if not self.scopes:
            before, self.committed = self.committed, self.model
            if self.model.redefined:
                self.undoable.clear()
                self.check_index_change_is_not_undone(self.model.redefined)
            else:
                self.note_commit(before, self.number)

    def check_index_change_is_not_undone(self, redefined: set[str]) -> None:
        commit = next(c for c in self.store.changes(self.number))
        if any(self.store.pool(name).item_id in commit.item_ids for name in redefined if name in self.model.members):
            with pytest.raises(UndoRefused):
                self.store.undo(commit)

    @precondition(lambda self: self.scopes)
    @rule()
    def fail(self) -> None:
        self.scopes.pop().__exit__(Failure, Failure(), None)
        self.model = self.saved.pop()
        if not self.scopes:
            self.model = self.committed

    @precondition(lambda self: self.scopes and self.committed.items)
    @rule(choice=choices)
    def interfere(self, choice: int) -> None:
        """Another thread changes what this transaction has read: the transaction must not end well."""
        ids = sorted(self.committed.items)
        item_id = ids[choice % len(ids)]
        self.elsewhere.submit(lambda: setattr(self.store.get(item_id), "city", "Elsewhere")).result()
        if self.committed.items[item_id].get("city") == "Elsewhere":
            return  # it has not changed anything
        while len(self.scopes) > 1:
            self.scopes.pop().__exit__(None, None, None)
        with pytest.raises(Conflict):
            self.scopes.pop().__exit__(None, None, None)
        self.saved.clear()
        self.model = copy.deepcopy(self.committed)
        self.model.items[item_id]["city"] = "Elsewhere"
        self.committed = self.model
        self.undoable.clear()

    # -- undo, and the disk

    @precondition(lambda self: self.undoable and not self.scopes)
    @rule()
    def undo(self) -> None:
        number, before = self.undoable.pop()
        (commit,) = [c for c in self.store.changes(number - 1) if c.number == number]
        after = self.model
        self.store.undo(commit)
        assert self.store.head.number == number + 1
        self.model = self.committed = before
        self.undoable = [(number + 1, after)]

    @precondition(lambda self: not self.scopes)
    @rule()
    def reopen(self) -> None:
        self.held.clear()
        self.store.close()
        self.store = Store(self.path, cache_size=1 << 20)

    # -- what must hold after every step

    @invariant()
    def this_transaction_sees_the_model(self) -> None:
        self.check(self.model)

    @invariant()
    def everyone_else_sees_what_is_committed(self) -> None:
        self.elsewhere.submit(self.check, self.committed).result()

    def check(self, model: Model) -> None:
        for item_id in model.items:
            self.check_item(model, item_id)
        for name in POOLS:
            if name in model.members:
                self.check_pool(model, name)
            else:
                with pytest.raises(NoSuchPool):
                    self.store.pool(name, create=False)

    def check_item(self, model: Model, item_id: int) -> None:
        thing = self.store.get(item_id, Thing)
        if item_id in self.held:
            assert thing is self.held[item_id]
        seen = dict(thing.attributes)
        for name in REFERENCES:
            seen[name] = None if seen[name] is None else seen[name].item_id
        seen["friends"] = [friend.item_id for friend in seen["friends"]]
        assert seen == model.visible(item_id)
        assert [r.item_id for r in thing.referrers()] == sorted({source for source, _ in model.referrers(item_id)})
        assert {p.name for p in thing.pools} == {name for name, members in model.members.items() if item_id in members}

    def check_pool(self, model: Model, name: str) -> None:
        pool, members = self.store.pool(name, create=False), model.members[name]
        assert [item.item_id for item in pool] == sorted(members)
        assert len(pool) == len(members)
        assert set(pool.indexes) == model.indexes[name]
        for index in model.indexes[name]:
            if INDEXES[index].words:
                for words in ({"alpha"}, {"beta", "al"}):
                    assert [item.item_id for item in pool.search(" ".join(words))] == model.found(name, words)
            else:
                self.check_index(model, name, index)

    def check_index(self, model: Model, name: str, index: str) -> None:
        pool, ordered = self.store.pool(name), model.ordered(name, index)
        ids = [item_id for _, item_id in ordered]
        assert [item.item_id for item in pool.query(index)] == ids
        assert [item.item_id for item in pool.query(index, reverse=True)] == ids[::-1]
        assert [item.item_id for item in pool.page(index, size=3).items] == ids[:3]
        assert pool.count(index) == len(ids)
        if index in {"name", "nocase"}:
            for key in ("a", "A", "b"):
                wanted = order(key, index == "nocase", "name")
                assert [i.item_id for i in pool.query(index, key=key)] == [i for (k,), i in ordered if k == wanted]
                assert [i.item_id for i in pool.query(index, start=key)] == [i for (k,), i in ordered if k >= wanted]
                assert pool.count(index, end=key) == sum(k < wanted for (k,), _ in ordered)

    def teardown(self) -> None:
        try:
            while self.scopes:
                self.scopes.pop().__exit__(Failure, Failure(), None)
            self.check(self.committed)
            assert self.store.verify().problems == []
        finally:
            self.elsewhere.shutdown()
            self.store.close()
            shutil.rmtree(self.path, ignore_errors=True)


def run(path: Path, examples: int, steps: int) -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        lambda: StoreMachine(path),
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.slow
def test_a_store_behaves_as_its_model(store_path: Path) -> None:
    run(store_path, examples=60, steps=40)
