"""Indexes come and go while a pool is in use, and are exact."""

from __future__ import annotations

import threading

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from atop import Item, NoSuchIndex, NoTransaction, Pool, Store, UnstorableValue, building
from atop import pool as pool_module
from atop.indexes import MAX_KEY, IndexDefinition, index_keys, make_plan, prefix_of


class Person(Item):
    name: str = ""
    city: str = ""
    age: int | None = None
    notes: str = ""


NAMES = ["Ada", "Bob", "Cleo", "Dora", "Emil"]


@pytest.fixture
def people(store: Store) -> Pool:
    """Five people of two cities, indexed."""
    pool = store.pool("people", indexes=["name", ("city", "name"), "age"])
    with store.transaction():
        for number, name in enumerate(NAMES):
            pool.add(Person(store, name=name, city="London" if number % 2 else "Paris", age=20 + number))
    return pool


def names(items) -> list[str]:
    return [item.name for item in items]


def test_an_index_added_to_a_full_pool_is_built_with_progress(people: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "BATCH", 2)
    seen = []
    people.add_index("notes", progress=lambda done, total: seen.append((done, total)))
    assert seen == [(2, 5), (4, 5), (5, 5)]
    assert names(people.query("notes")) == NAMES


def test_adding_the_same_index_again_does_nothing_and_another_of_its_name_is_refused(people: Pool) -> None:
    people.add_index("name")
    with pytest.raises(ValueError, match="another index 'name'"):
        people.add_index("name", nocase=True)


def test_an_index_cannot_be_queried_while_it_is_built_and_the_pool_stays_readable(people: Pool) -> None:
    def look(done: int, total: int) -> None:
        assert people.indexes["notes"].state == "building"
        assert names(people.query("name")) == NAMES
        with pytest.raises(NoSuchIndex, match="still being built"):
            people.query("notes")

    people.add_index("notes", progress=look)
    assert people.indexes["notes"].state == "ready"


def test_an_interrupted_build_is_finished_by_asking_again(people: Pool, open_store) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        people.add_index("notes", progress=interrupt)
    store = open_store()
    assert store.verify().problems == []
    people = store.pool("people", indexes=["notes"])
    assert names(people.query("notes")) == NAMES
    assert store.verify().problems == []


def test_an_index_that_cannot_hold_what_is_there_is_not_added(people: Pool, store: Store) -> None:
    people.add(Item(store, name="odd", shape={"round": True}))
    with pytest.raises(UnstorableValue, match="shape is indexed"):
        people.add_index("shape")
    assert "shape" not in people.indexes
    assert store.verify().problems == []


def test_an_index_that_is_built_while_others_write_misses_nothing(
    people: Pool, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between any two batches others add, change, remove and delete: at the end the index is exact."""
    monkeypatch.setattr(building, "BATCH", 1)

    def meddle(done: int, total: int) -> None:
        if done > 4:
            return

        def write() -> None:
            people.add(Person(store, name=f"New {done}", notes=f"n{done}"))
            members = list(people)
            members[0].notes = f"changed {done}"
            members[-2].notes = f"changed {done}"
            if done == 2:
                members[1].delete()
                people.remove(members[-3])

        thread = threading.Thread(target=write)
        thread.start()
        thread.join()

    people.add_index("notes", progress=meddle)
    assert sorted(people.query("notes"), key=id) == sorted(people, key=id)
    assert [p.notes for p in people.query("notes")] == sorted(p.notes for p in people)
    assert store.verify().problems == []


def test_an_index_that_is_dropped_while_it_is_built_leaves_nothing_behind(
    people: Pool, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "BATCH", 1)

    def drop(done: int, total: int) -> None:
        if done == 2:
            thread = threading.Thread(target=people.drop_index, args=("notes",))
            thread.start()
            thread.join()

    people.add_index("notes", progress=drop)
    assert "notes" not in people.indexes
    assert store.verify().problems == []


def test_an_index_added_while_threads_write_is_exact(people: Pool, store: Store) -> None:
    stop = threading.Event()
    failures = []

    def write(number: int) -> None:
        try:
            turn = 0
            while not stop.is_set() and turn < 1_000:
                turn += 1
                person = Person(store, name=f"{number}-{turn}", notes=str(turn % 7))

                def change(person: Person = person) -> None:
                    people.add(person)
                    person.notes = "changed"

                store.transact(change)
                if turn % 3 == 0:
                    store.transact(person.delete)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        people.add_index("city")
        people.add_index("words", "notes", words=True)
        people.drop_index("city")
        people.drop_index("words")
    people.add_index("notes")
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert people.count("notes") == len(list(people.query("notes"))) == len(list(people)) == len(people)
    assert store.verify().problems == []


def test_an_index_added_in_a_transaction_may_be_queried_there(people: Pool, store: Store) -> None:
    with store.transaction():
        people.add(Person(store, name="Fay", notes="a"))
        people.add_index("notes")
        assert names(people.query("notes"))[-1] == "Fay"
        people.add(Person(store, name="Gus", notes="b"))
        assert names(people.query("notes"))[-1] == "Gus"
    assert names(people.query("notes"))[-2:] == ["Fay", "Gus"]
    assert store.verify().problems == []


def test_an_index_that_was_added_and_rolled_back_is_gone(people: Pool, store: Store, undone) -> None:
    with undone():
        people.add_index("notes")
    assert "notes" not in people.indexes
    with store.transaction():
        with undone():
            people.add_index("notes")
        next(people.query("name")).notes = "x"
        people.add_index("notes")
        assert names(people.query("notes", start="a")) == ["Ada"]
    assert store.verify().problems == []


@pytest.mark.parametrize("empty", [True, False])
def test_an_item_added_elsewhere_conflicts_with_an_index_added_in_a_transaction(
    people: Pool, store: Store, empty: bool
) -> None:
    """Otherwise the index would have a hole."""
    if empty:
        people.clear()
    turns = []

    def add_index() -> None:
        people.add_index("notes")
        if not turns:
            turns.append(1)
            thread = threading.Thread(target=lambda: people.add(Person(store, name="Late")))
            thread.start()
            thread.join()

    store.transact(add_index)
    assert "Late" in names(people.query("notes"))
    assert store.verify().problems == []


def test_a_large_pool_is_not_indexed_in_a_transaction(
    people: Pool, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "MAX_AT_ONCE", 3)
    with store.transaction(), pytest.raises(NoTransaction, match="outside of a transaction"):
        people.add_index("notes")
    people.add_index("notes")
    assert names(people.query("notes")) == NAMES


def test_a_dropped_index_is_gone_with_its_entries(people: Pool, store: Store) -> None:
    entries = store.verify().index_entries
    people.drop_index("name")
    with pytest.raises(NoSuchIndex):
        people.query("name")
    with pytest.raises(NoSuchIndex):
        people.drop_index("name")
    report = store.verify()
    assert (report.problems, report.index_entries) == ([], entries - 5)


@pytest.mark.parametrize("then", ["delete", "compact"])
def test_a_drop_that_was_interrupted_leaves_nothing_behind_in_the_end(
    people: Pool, store: Store, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    def interrupt(self: Pool) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Pool, "_sweep", interrupt)
        with pytest.raises(KeyboardInterrupt):
            people.drop_index("name")
    assert "name" not in people.indexes
    assert store.verify().problems == []
    people.delete() if then == "delete" else store.compact()
    report = store.verify()
    assert (report.problems, report.index_entries) == ([], 0 if then == "delete" else 15)


def test_an_index_dropped_in_a_transaction_that_fails_is_still_there(people: Pool, undone) -> None:
    with undone():
        people.drop_index("name")
        with pytest.raises(NoSuchIndex):
            people.query("name")
    assert names(people.query("name")) == NAMES


def test_an_index_may_be_dropped_and_made_otherwise(people: Pool, store: Store) -> None:
    with store.transaction():
        people.drop_index("name")
        people.add_index("name", "name", nocase=True)
    assert names(people.query("name", prefix="a")) == ["Ada"]
    assert store.verify().problems == []


def test_an_index_needs_a_name_and_attributes(people: Pool) -> None:
    for wrong in ("", ("", "name")):
        with pytest.raises(ValueError, match="needs a name"):
            people.add_index(wrong)


# -- the keys of entries

indexed = st.dictionaries(
    st.sampled_from(["name", "city"]),
    st.none() | st.text(max_size=20) | st.integers() | st.dates() | st.lists(st.text(max_size=3), max_size=3),
)
definitions = st.builds(
    IndexDefinition,
    st.just(3),
    st.sampled_from([("name",), ("city",), ("name", "city"), ("city", "name")]),
    st.booleans(),
    st.booleans(),
)


def keys_or_error(make, *arguments) -> set[bytes] | str:
    try:
        return set(make(*arguments))
    except UnstorableValue as error:
        return str(error)


@given(indexed, definitions)
@example({"name": "x" * MAX_KEY}, IndexDefinition(3, ("name",)))
@example({"name": "\1" * (MAX_KEY // 2)}, IndexDefinition(3, ("name",)))
@example({"name": "\ud800\0"}, IndexDefinition(3, ("name",)))
def test_the_plan_of_a_pool_makes_the_keys_that_its_definitions_say(attributes, definition: IndexDefinition) -> None:
    """A plan has a shorter way to the keys of most indexes."""
    (make,) = make_plan(7, {"an index": definition}).indexes
    item_key = (5).to_bytes(8)
    plainly = keys_or_error(index_keys, prefix_of(7, 3), definition, attributes, item_key)
    assert keys_or_error(make, attributes, item_key) == plainly
