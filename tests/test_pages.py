"""Pages: a pool read piece by piece, forwards, backwards and from anywhere."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atop import Item, Pool, Store

pytestmark = pytest.mark.every_kind


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


@pytest.mark.parametrize("index", ["url", "city,name", "crowded"])
def test_a_page_begins_at_a_part_of_the_pool_whatever_its_keys_have_in_common(store: Store, index: str) -> None:
    pool = store.pool("numbers", indexes=["url", ("city", "name"), "crowded"])
    with store.transaction():
        for n in range(3_000):
            url = f"https://www.example.com/a/long/way/{n:05}"
            crowded = "a" if n == 0 else "z" if n == 2_999 else url
            pool.add(Item(store, n=n, url=url, city="Frankfurt am Main", name=f"{n:05}", crowded=crowded))
    for at in (0.1, 0.5, 0.9, 1.0):
        page = pool.page(index, size=1, at=at)
        assert abs(numbers(page)[0] / 3_000 - at) < 0.2
        assert abs(page.position - at) < 0.2


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


def test_a_page_of_a_part_of_an_index(hundred: Pool) -> None:
    page = hundred.page("n", size=3, first=10, last=14)
    assert (numbers(page), page.previous, page.total()) == ([10, 11, 12], None, (5, True))
    page = hundred.page("n", size=3, after=page.next, first=10, last=14)
    assert (numbers(page), page.next) == ([13, 14], None)
    assert numbers(hundred.page("n", size=2, start=12, first=10, last=14)) == [12, 13]
    assert hundred.page("n", size=3, first=50, last=40).items == []
    with pytest.raises(TypeError, match="prefix, or first and last"):
        hundred.page("n", prefix=b"x", last=3)


def test_a_page_by_id_needs_no_index(hundred: Pool) -> None:
    ids = [item.item_id for item in hundred]
    page = hundred.page(None, size=40)
    assert ([item.item_id for item in page.items], page.total()) == (ids[:40], (100, True))
    page = hundred.page(None, size=100, after=page.keys[9])
    assert [item.item_id for item in page.items] == ids[10:]
    assert hundred.page(None, size=1, start=ids[70]).items[0].item_id == ids[70]
    with pytest.raises(ValueError, match="not an item id"):
        hundred.page(None, start="name")


def test_a_text_at_the_end_of_a_range_stands_for_all_that_begin_with_it(store: Store) -> None:
    pool = store.pool("words", indexes=["w"])
    with store.transaction():
        for word in ("a", "ab", "abc", "b", "ba", "c"):
            pool.add(Item(store, w=word))
    assert [item.w for item in pool.page("w", first="ab", last="b").items] == ["ab", "abc", "b", "ba"]
    assert [item.w for item in pool.page("w", prefix="ab").items] == ["ab", "abc"]
    counted, exact = pool.page("w", first="ab").total(limit=2)
    assert (counted >= 3, exact) == (True, False)
