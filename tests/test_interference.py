"""Transactions that get in each other's way, or are torn from their blocks, lose and leak nothing."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest

from atop import AtopError, Conflict, Item, NoTransaction, Store, UndoRefused


class Person(Item, type_name="interference.Person"):
    name: str = ""
    on_call: bool = True
    tags: list[str] = []
    friend: Item | None = None


def in_thread(function: Callable[[], Any]) -> Any:
    """What `function` returns, or the error of ours that it raises, in a thread of its own."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(function())
        except AtopError as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(timeout=30)
    assert outcome, "the thread did not end"
    return outcome[0]


def test_a_transaction_whose_block_was_torn_away_is_over(store: Store, open_store: Callable[[], Store]) -> None:
    person = Person(store, name="before")
    scope = store.transaction("torn")
    scope.__enter__()  # an interrupt at the start of __exit__ leaves it like this
    person.name = "never committed"
    del scope
    assert person.name == "before"
    with store.transaction("next"):
        person.name = "after"
    item_id = person.item_id
    assert open_store().get(item_id).name == "after"


def test_a_scope_is_entered_once_at_a_time(store: Store) -> None:
    scope = store.transaction()
    with scope, pytest.raises(NoTransaction), scope:
        pass
    Person(store, name="kept")
    assert len(list(store.items())) == 1


def test_a_block_whose_outer_transaction_has_ended_says_that_it_is_not_kept(store: Store) -> None:
    outer, inner = store.transaction(), store.transaction()
    outer.__enter__()
    inner.__enter__()
    Person(store)
    outer.__exit__(KeyError, KeyError(), None)
    with pytest.raises(NoTransaction):
        inner.__exit__(None, None, None)
    assert list(store.items()) == []


def test_a_container_that_two_threads_hold_is_changed_by_one_transaction_at_a_time(store: Store) -> None:
    person = Person(store, tags=["b", "a"])
    held = person.tags
    with store.transaction():
        held.sort()
        assert isinstance(in_thread(lambda: held.append("not yet")), Conflict)
    assert in_thread(lambda: held.append("now")) is None
    assert person.tags == ["a", "b", "now"]


def test_no_reference_to_an_item_that_was_deleted_meanwhile_is_committed(store: Store) -> None:
    person, friend = Person(store), Person(store)
    with pytest.raises(Conflict), store.transaction():
        person.friend = friend
        in_thread(friend.delete)
    assert person.friend is None
    assert store.verify().problems == []


def test_a_default_cannot_be_an_item(store: Store) -> None:
    shared = Person(store)
    with pytest.raises(TypeError, match="friend"):
        type("Bad", (Item,), {"__annotations__": {"friend": "Item"}, "friend": shared})


def test_a_deletion_is_undone_once(store: Store) -> None:
    pool = store.pool("people")
    person = Person(store)
    pool.add(person)
    person.delete()
    deletion = next(store.history())
    with pytest.raises((Conflict, UndoRefused)), store.transaction():
        store.undo(deletion)
        assert in_thread(lambda: store.undo(deletion)) is None
    assert len(pool) == len(list(pool)) == 1
    assert store.verify().problems == []


def test_two_who_count_before_they_leave_do_not_both_leave(store: Store) -> None:
    with store.transaction():
        pool = store.pool("on call", indexes=["on_call"])
        people = [Person(store, name=name) for name in "ab"]
        for person in people:
            pool.add(person)

    def leave(person: Person) -> None:
        if len(list(pool.query("on_call", key=True))) > 1:
            person.on_call = False

    with pytest.raises(Conflict), store.transaction():
        leave(people[0])
        in_thread(lambda: store.transact(leave, people[1]))
    assert len(list(pool.query("on_call", key=True))) == 1


def test_a_page_in_a_transaction_is_what_it_has_read(store: Store) -> None:
    pool = store.pool("people", indexes=["name"])
    person = Person(store, name="a")
    pool.add(person)
    with pytest.raises(Conflict), store.transaction():
        assert pool.page("name").items == [person]
        in_thread(lambda: setattr(person, "name", "b"))
        Person(store, name="made because of what the page showed")


def test_a_transaction_that_only_reads_names_sees_one_state(store: Store) -> None:
    one, other = Person(store), Person(store)
    store.set_root("chosen", one)
    with pytest.raises(Conflict), store.transaction():
        assert store.root("chosen") is one
        in_thread(lambda: store.set_root("chosen", other))


def test_a_signal_that_reads_while_a_commit_is_checked_disturbs_nothing(store: Store) -> None:
    with store.transaction():
        read = [Person(store) for _ in range(3_000)]
        more = [Person(store) for _ in range(3_000)]
    left = iter(more)
    before = signal.signal(signal.SIGALRM, lambda *_: next(left).name)
    try:
        with store.transaction():
            assert {person.name for person in read} == {""}
            read[0].name = "Ada"
            # Another commit comes between, so that what was read must be checked.
            other = threading.Thread(target=lambda: setattr(more[-1], "name", "Bob"))
            other.start()
            other.join()
            signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert read[0].name == "Ada"
    assert next(left) is not more[0], "no signal came"
