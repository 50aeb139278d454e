"""Queries: what can be asked of a pool's indexes, and in which order the answers come."""

from __future__ import annotations

import datetime
import enum
import random

import pytest

from atop import Index, Item, NoSuchIndex, Pool, Store, UnstorableValue, register_value
from atop.indexes import words_of

pytestmark = pytest.mark.every_kind


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


def test_the_words_of_a_large_set_do_not_depend_on_its_order() -> None:
    texts = [f"word{number:05}" for number in range(6_000)]
    chance = random.Random(1)
    found = words_of(sorted(texts))
    assert len(found) < len(texts)
    for kind in (set, frozenset):
        for _ in range(3):
            chance.shuffle(texts)
            assert words_of(kind(texts)) == found


@pytest.mark.parametrize("text", ["", "  ", "?!", "*"])
def test_a_search_for_no_words_finds_nothing(library: Pool, text: str) -> None:
    assert titles(library.search(text)) == []


def test_search_needs_a_word_index(people: Pool, library: Pool) -> None:
    with pytest.raises(NoSuchIndex, match="no word index: add one with"):
        people.search("Ada")
    with pytest.raises(NoSuchIndex, match="not a word index"):
        library.search("x", index="title")
