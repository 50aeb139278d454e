"""Pools: collections of items with indexes, and what can be asked of them."""

from __future__ import annotations

import datetime
import enum
import threading
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atop import (
    Index,
    Item,
    NoSuchIndex,
    NoSuchPool,
    NoTransaction,
    Pool,
    Store,
    StoreClosed,
    UnstorableValue,
    register_value,
)
from atop import pool as pool_module


class Person(Item):
    name: str = ""
    city: str = ""
    age: int | None = None
    notes: str = ""


@register_value
class Priority(enum.Enum):
    HIGH = 3
    LOW = 1


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


# -- members


def test_a_pool_holds_what_was_added_once(store: Store) -> None:
    pool = store.pool("people")
    ada = Person(store, name="Ada")
    pool.add(ada)
    pool.add(ada)
    assert (list(pool), len(pool), ada in pool) == ([ada], 1, True)


def test_removing_leaves_the_item_in_the_store(people: Pool, store: Store) -> None:
    ada = next(people.query("name"))
    people.remove(ada)
    assert (ada in people, len(people), store.get(ada.item_id)) == (False, 4, ada)
    with pytest.raises(KeyError, match="Ada"):
        people.remove(ada)


def test_an_item_may_be_in_several_pools_and_knows_them(store: Store) -> None:
    friends, family = store.pool("friends"), store.pool("family")
    ada = Person(store, name="Ada")
    for pool in (friends, family):
        pool.add(ada)
    assert ada.pools == (friends, family)
    friends.remove(ada)
    assert ada.pools == (family,)


def test_a_deleted_item_leaves_its_pools(people: Pool) -> None:
    ada = next(people.query("name"))
    ada.delete()
    assert (ada in people, len(people), names(people)) == (False, 4, NAMES[1:])


def test_what_is_no_item_of_the_store_is_in_no_pool(people: Pool) -> None:
    assert "Ada" not in people
    assert None not in people
    for wrong in ("Ada", None):
        with pytest.raises(TypeError, match="a pool holds items"):
            people.add(wrong)
        with pytest.raises(TypeError, match="a pool holds items"):
            people.remove(wrong)


def test_an_empty_pool_is_true_because_it_is_there(store: Store) -> None:
    pool = store.pool("nobody")
    assert len(pool) == 0
    assert pool


def test_iteration_is_by_id(people: Pool) -> None:
    assert [a.item_id < b.item_id for a, b in pairwise(people)] == [True] * 4


def test_clear_takes_all_items_out_and_reports_progress(people: Pool, store: Store) -> None:
    seen = []
    people.clear(progress=lambda done, total: seen.append((done, total)))
    assert (len(people), list(people), list(people.query("name"))) == (0, [], [])
    assert seen[-1] == (5, 5)
    assert sum(isinstance(item, Person) for item in store.items()) == 5


def test_clear_is_refused_in_a_transaction(people: Pool, store: Store) -> None:
    with store.transaction(), pytest.raises(NoTransaction, match="clear"):
        people.clear()


# -- pools by name


def test_a_pool_is_made_once_and_found_by_name(open_store) -> None:
    pool_id = open_store().pool("people").item_id
    store = open_store()
    assert store.pool("people").item_id == pool_id
    assert store.pool("people", create=False).name == "people"
    with pytest.raises(NoSuchPool, match="strangers"):
        store.pool("strangers", create=False)


def test_pools_are_listed_by_name(store: Store) -> None:
    for name in ("notes", "contacts", "events"):
        store.pool(name)
    assert names(store.pools()) == ["contacts", "events", "notes"]


def test_indexes_that_are_asked_for_later_are_added(people: Pool, store: Store) -> None:
    assert store.pool("people", indexes=["name", "notes"]) is people
    assert list(people.indexes) == ["name", "city,name", "age", "notes"]
    assert names(people.query("notes")) == NAMES


@pytest.mark.parametrize("indexes", ["name", Index("name")])
def test_one_index_that_is_not_in_a_list_is_refused_and_nothing_is_made(store: Store, indexes) -> None:
    with pytest.raises(TypeError, match=r"indexes=\["):
        store.pool("people", indexes=indexes)
    assert not list(store.pools())


@pytest.mark.parametrize("name", ["", "a\0b", None])
def test_a_pools_name_is_text(store: Store, name) -> None:
    with pytest.raises(ValueError, match="name"):
        store.pool(name)


def test_the_name_of_a_pool_cannot_be_changed(people: Pool) -> None:
    with pytest.raises(AttributeError, match="people"):
        people.name = "persons"


def test_a_deleted_pool_leaves_its_items_and_its_name(people: Pool, store: Store) -> None:
    ada = next(people.query("name"))
    people.delete()
    assert ada.pools == ()
    with pytest.raises(NoSuchPool):
        store.pool("people", create=False)
    assert len(store.pool("people")) == 0
    assert store.verify().problems == []


def test_a_pool_may_be_deleted_in_the_transaction_that_dropped_its_index(people: Pool, store: Store) -> None:
    with store.transaction():
        people.drop_index("name")
        people.delete()
    assert store.verify().problems == []


def test_nothing_can_be_added_to_a_pool_that_the_transaction_has_deleted(people: Pool, store: Store) -> None:
    ada = next(people.query("name"))
    with store.transaction():
        people.delete()
        with pytest.raises(LookupError):
            people.add(Person(store, name="Late"))
        with pytest.raises(LookupError):
            people.add(ada)
    assert store.verify().problems == []


def test_a_pool_may_have_no_name_and_be_found_by_reference(store: Store) -> None:
    album = Item(store, title="Holidays", pictures=Pool(store, indexes=["title"]))
    album.pictures.add(Item(store, title="Beach"))
    assert [p.title for p in album.pictures.query("title")] == ["Beach"]
    assert not list(store.pools())


# -- queries: whole, ranges, prefix, key


def test_a_query_gives_all_in_the_order_of_the_index(people: Pool) -> None:
    assert names(people.query("name")) == NAMES
    assert names(people.query("age", reverse=True)) == NAMES[::-1]


def test_a_range_includes_its_start_and_not_its_end(people: Pool) -> None:
    assert names(people.query("name", start="Bob")) == NAMES[1:]
    assert names(people.query("name", end="Bob")) == NAMES[:1]
    assert names(people.query("name", start="Bob", end="Dora")) == ["Bob", "Cleo"]
    assert names(people.query("name", start="Bob", end="Dora", reverse=True)) == ["Cleo", "Bob"]


def test_bounds_need_not_be_there_and_none_means_open(people: Pool) -> None:
    assert names(people.query("name", start="B", end="D")) == ["Bob", "Cleo"]
    assert names(people.query("name", start=None, end=None)) == NAMES
    assert names(people.query("age", start=21.5, end=23)) == ["Cleo"]


def test_a_range_that_ends_before_it_starts_is_empty(people: Pool) -> None:
    assert names(people.query("name", start="Z", end="A")) == []
    assert names(people.query("name", start="Z", end="A", reverse=True)) == []


def test_a_key_gives_the_items_that_have_just_it(people: Pool, store: Store) -> None:
    people.add(Person(store, name="Bob", city="Rome"))
    assert [p.city for p in people.query("name", key="Bob")] == ["London", "Rome"]
    assert list(people.query("name", key="Bo")) == []


def test_a_prefix_gives_the_texts_that_begin_so(people: Pool, store: Store) -> None:
    people.add(Person(store, name="Cleopatra"))
    assert names(people.query("name", prefix="Cle")) == ["Cleo", "Cleopatra"]
    assert names(people.query("name", prefix="")) == [*NAMES[:3], "Cleopatra", *NAMES[3:]]


def test_a_limit_ends_a_query(people: Pool) -> None:
    assert names(people.query("name", limit=2)) == ["Ada", "Bob"]
    assert names(people.query("name", limit=2, reverse=True)) == ["Emil", "Dora"]
    assert names(people.query("name", limit=0)) == []


def test_equal_keys_come_by_id(store: Store) -> None:
    pool = store.pool("people", indexes=["name"])
    twins = [Person(store, name="Twin") for _ in range(4)]
    for twin in reversed(twins):
        pool.add(twin)
    assert list(pool.query("name")) == twins


def test_key_prefix_and_range_do_not_go_together(people: Pool) -> None:
    for wrong in ({"key": "A", "prefix": "A"}, {"key": "A", "start": "A"}, {"prefix": "A", "end": "B"}):
        with pytest.raises(TypeError, match="key, or prefix, or start and end"):
            people.query("name", **wrong)


def test_an_index_that_is_not_there_is_an_error_at_once_that_names_those_that_are(people: Pool) -> None:
    with pytest.raises(NoSuchIndex, match=r"pool 'people' has no index 'street' \(it has: name, city,name, age\)"):
        people.query("street")


# -- what sorts where


def test_none_sorts_first_and_so_do_items_without_the_attribute(store: Store) -> None:
    pool = store.pool("things", indexes=["size"])
    items = [Item(store, size=2), Item(store, size=None), Item(store), Item(store, size=1)]
    for item in items:
        pool.add(item)
    assert list(pool.query("size")) == [items[1], items[2], items[3], items[0]]
    assert list(pool.query("size", key=None)) == items[1:3]


def test_numbers_texts_and_dates_may_stand_in_one_index(store: Store) -> None:
    pool = store.pool("things", indexes=["v"])
    values = [None, False, True, -1, 1, 1.5, 10, b"a", "1", "a", datetime.date(2000, 1, 1)]
    for value in reversed(values):
        pool.add(Item(store, v=value))
    assert [item.v for item in pool.query("v")] == values


def test_an_integer_and_an_equal_float_are_one_key(store: Store) -> None:
    pool = store.pool("things", indexes=["v"])
    one = Item(store, v=1.0)
    pool.add(one)
    assert list(pool.query("v", key=1)) == [one]
    assert list(pool.query("v", key=True)) == []


def test_enumeration_members_sort_and_are_found_by_name(store: Store) -> None:
    pool = store.pool("tasks", indexes=["priority"])
    low, high = Item(store, priority=Priority.LOW), Item(store, priority=Priority.HIGH)
    pool.add(low)
    pool.add(high)
    assert list(pool.query("priority")) == [high, low]
    assert list(pool.query("priority", key=Priority.LOW)) == [low]


def test_items_may_be_indexed_by_whom_they_refer_to(store: Store) -> None:
    pool = store.pool("letters", indexes=["sender"])
    ada = Person(store, name="Ada")
    letter = Item(store, sender=ada)
    for item in (letter, Item(store, sender=Person(store)), Item(store)):
        pool.add(item)
    assert list(pool.query("sender", key=ada)) == [letter]
    ada.delete()
    assert len(list(pool.query("sender", key=None))) == 2


def test_what_cannot_be_ordered_cannot_be_put_under_an_index(store: Store) -> None:
    pool = store.pool("things", indexes=["v"])
    item = Item(store, v=1)
    pool.add(item)
    with pytest.raises(UnstorableValue, match="v is indexed, and a dict has no order"):
        item.v = {"a": 1}
    assert item.v == 1
    with pytest.raises(UnstorableValue):
        pool.query("v", key={})


def test_a_text_too_long_for_an_index_is_refused_with_what_to_do(store: Store) -> None:
    pool = store.pool("things", indexes=["v"])
    with pytest.raises(UnstorableValue, match=r"too long to be indexed .* use a word index"):
        pool.add(Item(store, v="x" * 300_000))


# -- compound and case


def test_a_compound_index_sorts_by_one_attribute_after_the_other(people: Pool) -> None:
    assert names(people.query(("city", "name"))) == ["Bob", "Dora", "Ada", "Cleo", "Emil"]
    assert names(people.query("city,name")) == names(people.query(("city", "name")))


def test_a_shorter_tuple_stands_for_all_that_begin_with_it(people: Pool) -> None:
    by_city = ("city", "name")
    assert names(people.query(by_city, key=("London",))) == ["Bob", "Dora"]
    assert names(people.query(by_city, key="London")) == ["Bob", "Dora"]
    assert names(people.query(by_city, key=("London", "Dora"))) == ["Dora"]
    assert names(people.query(by_city, start=("London", "C"), end=("Paris", "C"))) == ["Dora", "Ada"]
    assert names(people.query(by_city, end=("Paris",))) == ["Bob", "Dora"]


def test_a_prefix_of_a_compound_index_is_of_the_last_part_that_is_given(people: Pool) -> None:
    assert names(people.query(("city", "name"), prefix=("Paris", "C"))) == ["Cleo"]
    assert names(people.query(("city", "name"), prefix="Lon")) == ["Bob", "Dora"]


def test_a_key_longer_than_the_index_is_refused(people: Pool) -> None:
    with pytest.raises(ValueError, match="2 attributes"):
        people.query(("city", "name"), key=("a", "b", "c"))


def test_nocase_ignores_case_in_order_and_in_keys(store: Store) -> None:
    pool = store.pool("people", indexes=[Index("name", nocase=True)])
    for name in ("bob", "Ada", "BOB", "straße"):
        pool.add(Person(store, name=name))
    assert names(pool.query("name")) == ["Ada", "bob", "BOB", "straße"]
    assert names(pool.query("name", key="Bob")) == ["bob", "BOB"]
    assert names(pool.query("name", prefix="STRASS")) == ["straße"]


# -- counts


def test_count_is_the_length_of_the_query(people: Pool) -> None:
    for options in ({}, {"start": "B"}, {"end": "D"}, {"start": "B", "end": "D"}, {"key": "Ada"}, {"prefix": "E"}):
        assert people.count("name", **options) == len(list(people.query("name", **options)))
    with pytest.raises(TypeError, match="limit"):
        people.count("name", limit=3)


def test_len_and_count_in_a_transaction_are_those_of_its_own_changes(people: Pool, store: Store, undone) -> None:
    with undone():
        people.add(Person(store, name="Fay"))
        assert (len(people), people.count("name"), people.count("name", start="E")) == (6, 6, 2)
        next(people.query("name")).delete()
        people.remove(next(people.query("name")))
        assert (len(people), people.count("name")) == (4, 4)
    assert (len(people), people.count("name")) == (5, 5)


# -- pages


@pytest.fixture
def hundred(store: Store) -> Pool:
    pool = store.pool("numbers", indexes=["n"])
    with store.transaction():
        for n in range(100):
            pool.add(Item(store, n=n))
    return pool


def numbers(page) -> list[int]:
    return [item.n for item in page.items]


def test_pages_follow_one_another_to_the_end(hundred: Pool) -> None:
    page = hundred.page("n", size=30)
    seen = [numbers(page)]
    assert page.previous is None
    while page.next is not None:
        page = hundred.page("n", size=30, after=page.next)
        seen.append(numbers(page))
    assert seen == [list(range(i, min(i + 30, 100))) for i in (0, 30, 60, 90)]


def test_pages_go_back_to_the_beginning(hundred: Pool) -> None:
    page = hundred.page("n", size=30, start=95)
    seen = []
    while page.previous is not None:
        page = hundred.page("n", size=30, before=page.previous)
        assert page.next is not None
        seen.append(numbers(page))
    assert seen == [list(range(65, 95)), list(range(35, 65)), list(range(5, 35)), list(range(5))]


def test_a_page_may_start_at_a_key(hundred: Pool) -> None:
    page = hundred.page("n", size=3, start=41.5)
    assert numbers(page) == [42, 43, 44]
    assert page.previous is not None
    assert hundred.page("n", size=3, start=1000).items == []


def test_a_page_may_start_at_a_position_and_says_where_it_is(store: Store) -> None:
    pool = store.pool("numbers", indexes=["n"])
    with store.transaction():
        for n in range(3_000):
            pool.add(Item(store, n=n))
    assert numbers(pool.page("n", size=1, at=0.0)) == [0]
    assert pool.page("n", size=1).position == 0.0
    for at in (0.1, 0.5, 0.9):
        page = pool.page("n", size=1, at=at)
        assert abs(numbers(page)[0] / 3_000 - at) < 0.1
        assert abs(page.position - at) < 0.1
    positions = [pool.page("n", size=1, start=n).position for n in range(0, 3_000, 300)]
    assert positions == sorted(positions)


def test_a_page_goes_on_where_it_was_when_items_come_and_go(hundred: Pool, store: Store) -> None:
    page = hundred.page("n", size=10)
    page.items[-1].delete()
    hundred.add(Item(store, n=9.5))
    assert numbers(hundred.page("n", size=3, after=page.next)) == [9.5, 10, 11]


def test_pages_of_an_empty_pool_are_empty(store: Store) -> None:
    page = store.pool("none", indexes=["n"]).page("n")
    assert (page.items, page.next, page.previous, page.position) == ([], None, None, 0.0)


def test_a_page_that_is_just_full_has_no_next_one(hundred: Pool) -> None:
    assert hundred.page("n", size=100).next is None
    assert hundred.page("n", size=99).next is not None


def test_a_page_in_a_transaction_shows_its_changes(hundred: Pool, store: Store, undone) -> None:
    with undone():
        hundred.add(Item(store, n=-1))
        next(hundred.query("n", key=0)).n = 0.5
        page = hundred.page("n", size=3)
        assert numbers(page) == [-1, 0.5, 1]
        assert numbers(hundred.page("n", size=2, after=page.next)) == [2, 3]
    assert numbers(hundred.page("n", size=2)) == [0, 1]


@pytest.mark.parametrize("size", [0, -1])
def test_a_page_without_items_cannot_be_asked_for(hundred: Pool, size: int) -> None:
    with pytest.raises(ValueError, match="at least one"):
        hundred.page("n", size=size)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    keys=st.lists(st.none() | st.integers(0, 5) | st.sampled_from(["", "a", "b"]), max_size=25),
    size=st.integers(1, 7),
)
def test_pages_both_ways_give_the_query(store: Store, keys: list, size: int) -> None:
    """Whatever the keys and the size, going forward and then back shows the query, page by page."""
    pool = store.pool("shared", indexes=["k"])
    with store.transaction():
        for item in list(pool):
            item.delete()
        for key in keys:
            pool.add(Item(store, k=key))
    whole = list(pool.query("k"))
    pages = [pool.page("k", size)]
    while pages[-1].next is not None:
        pages.append(pool.page("k", size, after=pages[-1].next))
    assert [item for page in pages for item in page.items] == whole
    back = [pages[-1].items]
    page = pages[-1]
    while page.previous is not None:
        page = pool.page("k", size, before=page.previous)
        back.insert(0, page.items)
    assert [item for items in back for item in items] == whole


# -- words


@pytest.fixture
def library(store: Store) -> Pool:
    pool = store.pool("books", indexes=[Index("words", ("title", "tags"), words=True), "title"])
    for title, tags in (
        ("The Origin of Species", ["biology"]),
        ("The Descent of Man", ["biology", "Origin"]),
        ("Crème Brûlée", []),
    ):
        pool.add(Item(store, title=title, tags=tags))
    return pool


def titles(items) -> list[str]:
    return [item.title for item in items]


def test_search_finds_items_that_have_all_the_words(library: Pool) -> None:
    assert titles(library.search("origin")) == ["The Origin of Species", "The Descent of Man"]
    assert titles(library.search("the origin, species!")) == ["The Origin of Species"]
    assert titles(library.search("origin cookery")) == []


def test_search_ignores_case_and_accents(library: Pool) -> None:
    assert titles(library.search("CREME brulee")) == ["Crème Brûlée"]


def test_the_last_word_of_a_search_may_be_a_beginning(library: Pool) -> None:
    assert titles(library.search("biology spec*")) == ["The Origin of Species"]
    assert titles(library.search("spec")) == []


def test_search_follows_changes_also_within_a_transaction(library: Pool, undone) -> None:
    book = next(library.search("creme"))
    with undone():
        book.title = "Custard"
        assert titles(library.search("custard")) == ["Custard"]
        assert titles(library.search("creme")) == []
    assert titles(library.search("creme")) == ["Crème Brûlée"]
    book.title = "Custard"
    assert titles(library.search("creme")) == []


def test_search_gives_an_item_once_and_ends_at_the_limit(library: Pool, store: Store) -> None:
    library.add(Item(store, title="species specimen special", tags=[]))
    assert sorted(titles(library.search("spec*"))) == ["The Origin of Species", "species specimen special"]
    assert len(titles(library.search("the", limit=1))) == 1


@pytest.mark.parametrize("text", ["", "  ", "?!", "*"])
def test_a_search_for_no_words_finds_nothing(library: Pool, text: str) -> None:
    assert titles(library.search(text)) == []


def test_search_needs_a_word_index(people: Pool, library: Pool) -> None:
    with pytest.raises(NoSuchIndex, match="no word index: add one with"):
        people.search("Ada")
    with pytest.raises(NoSuchIndex, match="not a word index"):
        library.search("x", index="title")


# -- adding and dropping indexes


def test_an_index_added_to_a_full_pool_is_built_with_progress(people: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "BUILD_BATCH", 2)
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
    monkeypatch.setattr(pool_module, "BUILD_BATCH", 1)

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


# -- changing while looking


def test_a_query_sees_the_changes_of_its_transaction(people: Pool, store: Store, undone) -> None:
    with undone():
        ada, bob, cleo, *_ = people.query("name")
        ada.name = "Zoe"
        bob.delete()
        people.remove(cleo)
        people.add(Person(store, name="Carl"))
        assert names(people.query("name")) == ["Carl", "Dora", "Emil", "Zoe"]
        assert names(people.query("name", reverse=True)) == ["Zoe", "Emil", "Dora", "Carl"]
        assert names(people.query("name", start="D", limit=2)) == ["Dora", "Emil"]
    assert names(people.query("name")) == NAMES


def test_what_a_query_loop_deletes_ahead_of_itself_does_not_come(people: Pool) -> None:
    seen = []
    for person in people.query("name"):
        seen.append(person.name)
        if person.name == "Bob":
            next(people.query("name", key="Dora")).delete()
            people.remove(next(people.query("name", key="Cleo")))
    assert seen == ["Ada", "Bob", "Emil"]


def test_what_a_query_loop_deletes_ahead_in_a_transaction_does_not_come(people: Pool, store: Store) -> None:
    seen = []
    with store.transaction():
        for person in people.query("name"):
            seen.append(person.name)
            if person.name == "Bob":
                next(people.query("name", key="Dora")).delete()
                people.remove(next(people.query("name", key="Cleo")))
    assert seen == ["Ada", "Bob", "Emil"]


def test_a_loop_may_delete_or_remove_each_item_it_is_given(hundred: Pool, store: Store) -> None:
    for item in hundred.query("n"):
        if item.n % 2:
            item.delete()
        else:
            hundred.remove(item)
    assert (len(hundred), list(hundred), list(hundred.query("n"))) == (0, [], [])
    assert store.verify().problems == []


def test_a_query_skips_an_item_that_no_longer_has_the_key(people: Pool) -> None:
    seen = []
    for person in people.query(("city", "name"), key="Paris"):
        seen.append(person.name)
        next(people.query("name", key="Cleo")).city = "Rome"
    assert seen == ["Ada", "Emil"]


def test_a_pool_may_be_added_to_while_it_is_iterated(people: Pool, store: Store) -> None:
    for person in list(people):
        people.add(Person(store, name=person.name * 2))
    assert len(people) == 10


def test_a_query_that_is_not_read_to_its_end_holds_nothing(hundred: Pool, open_store) -> None:
    query = hundred.query("n")
    assert next(query).n == 0
    open_store()
    with pytest.raises(StoreClosed):
        list(query)


def test_a_query_may_go_on_after_its_transaction(hundred: Pool, store: Store) -> None:
    with store.transaction():
        query = hundred.query("n")
        first = [next(query).n for _ in range(3)]
        hundred.add(Item(store, n=1000))
    assert [*first, *(item.n for item in query)][:100] == list(range(100))
