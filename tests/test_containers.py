"""Lists, dicts and sets of items: changed in place like any other, and the store knows."""

from __future__ import annotations

import copy
import heapq
import operator
import threading
from collections import Counter, OrderedDict, defaultdict
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atop import Conflict, Item, Store, UnstorableValue
from atop.containers import TrackedDict, TrackedList, TrackedSet


class Note(Item):
    title: str = ""
    tags: list[Any] = []
    fields: dict[Any, Any] = {}
    words: set[Any] = set()


# -- no trap


def test_a_change_in_place_is_a_commit(store: Store) -> None:
    note = Note(store)
    before = store.head.number
    note.tags.append("a")
    note.fields["b"] = 1
    note.words.add("c")
    assert store.head.number == before + 3
    assert (note.tags, note.fields, note.words) == (["a"], {"b": 1}, {"c"})


def test_a_change_in_place_is_there_after_the_store_was_closed(open_store) -> None:
    note = Note(open_store())
    note.tags.append("a")
    note.fields.setdefault("list", []).append(1)
    note.words |= {"c"}
    again = open_store().get(note.item_id)
    assert (again.tags, again.fields, again.words) == (["a"], {"list": [1]}, {"c"})


def test_a_change_at_any_depth_is_noticed(open_store) -> None:
    note = Note(open_store(), fields={"a": [{"b": ({"c": [1]},)}]})
    note.fields["a"][0]["b"][0]["c"].append(2)
    again = open_store().get(note.item_id)
    assert again.fields == {"a": [{"b": ({"c": [1, 2]},)}]}


def test_what_is_put_in_is_noticed_from_then_on(store: Store) -> None:
    note = Note(store)
    note.tags.append([])
    note.tags[0].append({})
    note.tags[0][0]["x"] = 1
    assert note.tags == [[{"x": 1}]]


def test_what_is_put_in_is_copied_as_by_an_assignment(store: Store) -> None:
    note = Note(store)
    mine = [1]
    note.tags.append(mine)
    note.fields = {"mine": mine}
    mine.append(2)
    assert (note.tags, note.fields) == ([[1]], {"mine": [1]})


def test_a_default_is_not_shared_between_items(store: Store) -> None:
    one, two = Note(store), Note(store)
    one.tags.append("a")
    one.fields["a"] = 1
    assert (two.tags, two.fields, Note(store).tags) == ([], {}, [])


def test_a_default_of_a_class_that_old_items_lack_can_be_changed_in_place(store: Store) -> None:
    class Old(Item, type_name="test.Grown"):
        pass

    item_id = Old(store).item_id

    class Grown(Item, type_name="test.Grown"):
        tags: list[str] = []

    grown = store.get(item_id, Grown)
    grown.tags.append("a")
    assert grown.tags == ["a"]
    assert next(grown.history()).changed == {"tags": (None, ["a"])}


def test_several_changes_in_a_transaction_are_one_commit(store: Store) -> None:
    note = Note(store)
    before = store.head.number
    with store.transaction():
        for n in range(10):
            note.tags.append(n)
    assert store.head.number == before + 1
    assert note.tags == list(range(10))


def test_a_change_to_what_was_there_already_is_no_commit(store: Store) -> None:
    note = Note(store, tags=[1, 2], fields={"a": 1}, words={1})
    before = store.head.number
    note.tags[0] = 1
    note.tags.sort()
    note.fields["a"] = 1
    note.words.add(1)
    note.words.discard(7)
    assert store.head.number == before


def test_a_value_that_cannot_be_stored_is_refused_and_changes_nothing(store: Store) -> None:
    note = Note(store, tags=[1], fields={"a": 1}, words={1})
    for change in (
        lambda: note.tags.append(object()),
        lambda: note.tags.extend([2, object()]),
        lambda: note.tags.__setitem__(0, object()),
        lambda: note.fields.update(b=2, c=object()),
        lambda: note.fields.setdefault("d", object()),
        lambda: note.words.update({2, object()}),
    ):
        with pytest.raises(UnstorableValue):
            change()
    assert (note.tags, note.fields, note.words) == ([1], {"a": 1}, {1})


def test_containers_nested_too_deep_or_in_a_circle_are_refused(store: Store) -> None:
    deep: list[Any] = []
    for _ in range(60):
        deep = [deep]
    circle: list[Any] = []
    circle.append(circle)
    for value in (deep, circle):
        with pytest.raises(UnstorableValue, match="nested"):
            Note(store, tags=value)


# -- they are what they look like


def test_they_are_lists_dicts_and_sets(store: Store) -> None:
    note = Note(store, tags=[1], fields={"a": 1}, words={1})
    assert isinstance(note.tags, list)
    assert isinstance(note.fields, dict)
    assert isinstance(note.words, set)
    assert (repr(note.tags), repr(note.fields), repr(note.words)) == ("[1]", "{'a': 1}", "{1}")
    for unhashable in (note.tags, note.fields, note.words):
        with pytest.raises(TypeError):
            hash(unhashable)


def test_what_is_made_of_them_is_plain(store: Store) -> None:
    note = Note(store, tags=[1], fields={"a": 1}, words={1})
    made = [
        note.tags.__add__([2]),
        note.tags * 2,
        note.tags[:],
        note.tags.copy(),
        note.fields | {"b": 2},
        note.fields.copy(),
        note.words | {2},
        note.words & {1},
        note.words - {1},
        note.words ^ {2},
        note.words.union({2}),
    ]
    assert {type(value) for value in made} == {list, dict, set}


def test_a_copy_of_a_set_can_be_changed_and_changes_nothing(store: Store) -> None:
    note = Note(store, words={1})
    mine = note.words.copy()
    mine.add(2)
    assert (mine, note.words) == ({1, 2}, {1})


def test_a_held_container_does_not_take_what_is_equal_for_what_it_holds(store: Store) -> None:
    note = Note(store, tags=[1])
    held = note.tags
    note.tags = [True]
    with pytest.raises(Conflict, match="tags changed since"):
        held.append(2)
    assert note.tags == [True]
    assert note.tags[0] is True


@pytest.mark.parametrize(
    ("attribute", "past", "then"),
    [
        ("tags", lambda tags: heapq.heappush(tags, 1), lambda tags: tags.append(9)),
        ("fields", lambda fields: dict.__setitem__(fields, "b", 2), lambda fields: fields.update(c=3)),
        ("words", lambda words: set.add(words, "b"), lambda words: words.add("c")),
    ],
)
def test_a_change_past_the_methods_of_a_container_is_noticed_by_the_next_one_and_loses_nothing(
    store: Store, attribute: str, past: Any, then: Any
) -> None:
    note = Note(store, tags=[3], fields={"a": 1}, words={"a"})
    before = next(note.history(1))
    held = getattr(note, attribute)
    past(held)
    mine = copy.copy(held)
    with pytest.raises(Conflict, match=f"{attribute} changed since"):
        then(held)
    assert held == mine
    assert next(note.history(1)) == before
    setattr(note, attribute, mine)
    assert getattr(note, attribute) == mine == next(note.history(1)).attributes[attribute]


def test_subclasses_of_containers_become_plain_ones(open_store) -> None:
    counted, ordered = Counter("aab"), OrderedDict(x=1)
    item = Item(open_store(), counted=counted, ordered=ordered, grouped=defaultdict(list, a=[1]))
    again = open_store().get(item.item_id)
    assert (again.counted, again.ordered, again.grouped) == ({"a": 2, "b": 1}, {"x": 1}, {"a": [1]})


@pytest.mark.parametrize(("plain", "tracked"), [(list, TrackedList), (dict, TrackedDict), (set, TrackedSet)])
def test_every_method_that_changes_a_container_is_noticed(plain: type, tracked: type) -> None:
    harmless = {
        *dir(tuple),
        *dir(frozenset),
        *("copy", "get", "items", "keys", "values", "fromkeys", "__reversed__", "__or__", "__ror__"),
        "__class_getitem__",
    } - {"__init__", "__setattr__", "__delattr__"}
    changing = set(dir(plain)) - harmless - {"__init__", "__setattr__", "__delattr__"}
    assert changing
    assert {name for name in changing if name not in vars(tracked)} == set()


# -- the same as plain ones, whatever is done


values = st.integers(-3, 3) | st.sampled_from(["", "a", "b"]) | st.none()
nested = st.recursive(values, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(values, inner, max_size=3))
indexes = st.integers(-6, 6)
slices = st.builds(slice, st.none() | indexes, st.none() | indexes, st.sampled_from([None, 1, 2, -1]))

list_operations = st.one_of(
    st.tuples(st.just("append"), nested),
    st.tuples(st.just("extend"), st.lists(nested, max_size=3)),
    st.tuples(st.just("insert"), indexes, nested),
    st.tuples(st.just("pop")),
    st.tuples(st.just("pop"), indexes),
    st.tuples(st.just("remove"), values),
    st.tuples(st.just("clear")),
    st.tuples(st.just("reverse")),
    st.tuples(st.just("sort")),
    st.tuples(st.just("__setitem__"), indexes, nested),
    st.tuples(st.just("__setitem__"), slices, st.lists(nested, max_size=3)),
    st.tuples(st.just("__delitem__"), indexes | slices),
    st.tuples(st.just("__iadd__"), st.lists(nested, max_size=3)),
    st.tuples(st.just("__imul__"), st.integers(-1, 2)),
)
dict_operations = st.one_of(
    st.tuples(st.just("__setitem__"), values, nested),
    st.tuples(st.just("__delitem__"), values),
    st.tuples(st.just("update"), st.dictionaries(values, nested, max_size=3)),
    st.tuples(st.just("update"), st.lists(st.tuples(values, nested), max_size=3)),
    st.tuples(st.just("setdefault"), values, nested),
    st.tuples(st.just("setdefault"), values),
    st.tuples(st.just("pop"), values),
    st.tuples(st.just("pop"), values, nested),
    st.tuples(st.just("popitem")),
    st.tuples(st.just("clear")),
    st.tuples(st.just("__ior__"), st.dictionaries(values, nested, max_size=3)),
)
set_operations = st.one_of(
    *(st.tuples(st.just(name), values) for name in ("add", "discard", "remove")),
    st.tuples(st.just("clear")),
    *(
        st.tuples(st.just(name), st.sets(values, max_size=3))
        for name in (
            *("update", "intersection_update", "difference_update", "symmetric_difference_update"),
            *("__ior__", "__iand__", "__isub__", "__ixor__"),
        )
    ),
)


def run(container: Any, operation: tuple[Any, ...]) -> Any:
    """What the operation returns, or the type of what it raises; in-place operators return the container itself."""
    name, *arguments = operation
    try:
        result = getattr(container, name)(*arguments)
    except Exception as error:
        return type(error)
    return "itself" if result is container else result


def check_alike(store: Store, attribute: str, plain: Any, operations: list[tuple[Any, ...]]) -> None:
    """The same operations on an item's container and on a plain one have the same results, at every step."""
    note = Note(store, **{attribute: plain})
    held = getattr(note, attribute)
    for operation in operations:
        before = copy.deepcopy(plain)
        expected = run(plain, operation)
        if isinstance(expected, type):
            plain = before  # a plain list that fails to be sorted is left half sorted; an item's is left as it was
        assert run(held, operation) == expected
        assert held == plain == getattr(note, attribute)
        assert isinstance(plain, set) or list(held) == list(plain)
        assert getattr(note, attribute) is held
    assert next(note.history(1)).attributes[attribute] == plain


alike = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@alike
@given(start=st.lists(nested, max_size=4), operations=st.lists(list_operations, max_size=6))
def test_a_list_behaves_as_a_plain_list(store: Store, start: list[Any], operations: list[Any]) -> None:
    check_alike(store, "tags", start, operations)


@alike
@given(start=st.dictionaries(values, nested, max_size=4), operations=st.lists(dict_operations, max_size=6))
def test_a_dict_behaves_as_a_plain_dict(store: Store, start: dict[Any, Any], operations: list[Any]) -> None:
    check_alike(store, "fields", start, operations)


@alike
@given(start=st.sets(values, max_size=4), operations=st.lists(set_operations, max_size=6))
def test_a_set_behaves_as_a_plain_set(store: Store, start: set[Any], operations: list[Any]) -> None:
    check_alike(store, "words", start, operations)


@alike
@given(start=st.lists(nested, max_size=3), operations=st.lists(list_operations, max_size=5))
def test_changes_in_a_transaction_that_fails_leave_everything_as_it_was(
    store: Store, undone, start: list[Any], operations: list[Any]
) -> None:
    note = Note(store, tags=start)
    held = note.tags
    inside = list(held)
    with undone():
        for operation in operations:
            run(held, operation)
    assert held == start == note.tags
    assert all(map(operator.is_, held, inside))


def test_a_set_pops_what_it_holds(store: Store) -> None:
    note = Note(store, words={1, 2})
    popped = {note.words.pop(), note.words.pop()}
    assert (popped, note.words) == ({1, 2}, set())
    with pytest.raises(KeyError):
        note.words.pop()


def test_a_list_sorts_by_key_and_backwards(store: Store) -> None:
    note = Note(store, tags=["b", "A", "c"])
    note.tags.sort(key=str.lower, reverse=True)
    assert note.tags == ["c", "b", "A"]


def test_augmented_assignment_to_the_attribute_works(store: Store) -> None:
    note = Note(store)
    note.tags += ["a"]
    note.tags *= 2
    note.fields |= {"b": 1}
    note.words |= {1, 2}
    note.words -= {1}
    note.words &= {2, 3}
    note.words ^= {4}
    assert (note.tags, note.fields, note.words) == (["a", "a"], {"b": 1}, {2, 4})


# -- stale ones


def test_a_container_whose_attribute_was_assigned_since_refuses_to_be_changed(store: Store) -> None:
    note = Note(store, tags=["old"])
    tags = note.tags
    note.tags = ["new"]
    with pytest.raises(Conflict, match=r"item 1: tags changed since this list was read .*read the attribute again"):
        tags.append("x")
    assert (note.tags, tags) == (["new"], ["old"])


def test_a_container_whose_attribute_another_thread_changed_refuses_to_be_changed(store: Store, conflicting) -> None:
    note = Note(store, fields={"a": 1})
    with conflicting():
        fields = note.fields
        thread = threading.Thread(target=lambda: setattr(note, "fields", {"a": 2}))
        thread.start()
        thread.join()
        with pytest.raises(Conflict):
            fields["b"] = 1
    assert note.fields == {"a": 2}


def test_a_container_of_a_deleted_item_refuses_to_be_changed(store: Store) -> None:
    note = Note(store, tags=["a"])
    tags = note.tags
    note.delete()
    with pytest.raises(LookupError):
        tags.append("b")
    assert tags == ["a"]


def test_a_container_is_good_again_when_its_attribute_holds_the_same(store: Store) -> None:
    note = Note(store, tags=["a"])
    tags = note.tags
    note.tags = ["b"]
    note.tags = ["a"]
    tags.append("c")
    assert note.tags == ["a", "c"]


def test_a_container_that_was_taken_out_is_the_programs_own(store: Store) -> None:
    note = Note(store, fields={"inner": [1]})
    inner = note.fields.pop("inner")
    inner.append(2)
    assert (inner, note.fields) == ([1, 2], {})


def test_two_threads_that_append_lose_nothing(store: Store) -> None:
    note = Note(store)

    def append(value: int) -> None:
        note.tags.append(value)

    threads = [
        threading.Thread(target=lambda n=n: [store.transact(append, n * 10 + i) for i in range(10)]) for n in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(note.tags) == list(range(30))
