"""Pools: collections of items, and what a program may do with one."""

from __future__ import annotations

from itertools import pairwise

import pytest

from atop import Index, Item, NoSuchPool, NoTransaction, Pool, Store, StoreClosed

pytestmark = pytest.mark.every_kind


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


@pytest.fixture
def hundred(store: Store) -> Pool:
    pool = store.pool("numbers", indexes=["n"])
    with store.transaction():
        for n in range(100):
            pool.add(Item(store, n=n))
    return pool


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
