"""History: every commit is journalled, can be looked at and followed."""

from __future__ import annotations

import datetime
import threading
from typing import Any

import pytest

from atop import Commit, Item, NoSuchCommit, Store, ref

pytestmark = pytest.mark.every_kind


class Company(Item):
    name: str


class Person(Item):
    name: str = ""
    city: str = ""
    employer: Company | None = None
    friends: list[Item] = []


class Letter(Item):
    sender: Person | None = ref(on_delete="cascade")


def last(store: Store) -> Commit:
    return next(store.history(1))


def state(store: Store) -> dict[int, Any]:
    """Every item as it is now, but for its version: what an undo has to bring back."""
    return {
        item.item_id: (item.type_name, next(item.history()).attributes, [p.item_id for p in item.pools])
        for item in store.items()
    }


# -- looking back


def test_history_is_every_commit_latest_first(store: Store) -> None:
    for label in ("one", "two", "three"):
        with store.transaction(label):
            Item(store)
    assert [(c.number, c.label) for c in store.history()] == [(3, "three"), (2, "two"), (1, "one")]


def test_history_may_be_cut_and_continued(store: Store) -> None:
    for _ in range(5):
        Item(store)
    assert [c.number for c in store.history(limit=2)] == [5, 4]
    assert [c.number for c in store.history(limit=2, before=4)] == [3, 2]
    assert [c.number for c in store.history(before=1)] == []


def test_a_commit_says_when_by_which_device_and_what(store: Store) -> None:
    before = datetime.datetime.now(datetime.UTC)
    ada = Person(store, name="Ada")
    commit = last(store)
    assert before - datetime.timedelta(seconds=1) <= commit.time <= before + datetime.timedelta(minutes=1)
    assert (commit.device, commit.item_ids, commit.label) == (ada.item_id >> 39, (ada.item_id,), "create Person")
    assert [c.kind for c in commit.changes] == ["created"]
    assert store.commit(commit.commit_id) == commit
    assert ada.version == commit.commit_id
    assert (store.head.number, store.head.chain) == (commit.number, commit.chain)


def test_times_of_commits_only_go_forward(store: Store) -> None:
    for _ in range(20):
        Item(store)
    times = [c.time for c in store.history()]
    assert times == sorted(set(times), reverse=True)


def test_changes_hold_the_old_values(store: Store) -> None:
    pool = store.pool("people")
    ada = Person(store, name="Ada")
    with store.transaction():
        ada.name = "Augusta"
        ada.title = "Countess"
        pool.add(ada)
    (change,) = last(store).changes
    assert (change.kind, change.before, change.added, change.pools) == ("changed", {"name": "Ada"}, ("title",), ())
    ada.delete()
    (change,) = last(store).changes
    assert (change.kind, change.before["title"], change.pools) == ("deleted", "Countess", (pool.item_id,))


def test_there_is_no_commit_that_was_not_made(store: Store) -> None:
    for commit_id in (7, 0, -1, 1 << 63):
        with pytest.raises(NoSuchCommit, match=str(commit_id)):
            store.commit(commit_id)
        with pytest.raises(NoSuchCommit):
            store.undo(commit_id)


def test_an_items_history_shows_each_change_with_old_and_new_values(store: Store) -> None:
    ada = Person(store, name="Ada")
    Person(store, name="Bob")
    ada.city = "London"
    with store.transaction():
        ada.name = "Augusta"
        del ada.city
        ada.title = "Countess"
    revisions = list(ada.history())
    assert [r.kind for r in revisions] == ["changed", "changed", "created"]
    assert revisions[0].changed == {"name": ("Ada", "Augusta"), "city": ("London", ""), "title": (None, "Countess")}
    assert revisions[1].changed == {"city": ("", "London")}
    assert revisions[2].changed["name"] == (None, "Ada")
    assert [r.attributes["name"] for r in revisions] == ["Augusta", "Ada", "Ada"]
    assert [r.commit.number for r in revisions] == [4, 3, 1]
    assert len(list(ada.history(limit=2))) == 2


def test_the_history_of_a_pooled_item_shows_when_it_was_pooled(store: Store) -> None:
    pool = store.pool("people")
    ada = Person(store, name="Ada")
    pool.add(ada)
    revision = next(ada.history())
    assert (revision.changed, revision.commit.changes[0].pools) == ({}, ())


# -- following


def test_changes_are_a_feed_of_what_came_since(store: Store) -> None:
    for _ in range(3):
        Item(store)
    assert [c.number for c in store.changes()] == [1, 2, 3]
    assert [c.number for c in store.changes(since=2)] == [3]
    assert list(store.changes(since=3)) == []
    Item(store)
    assert [c.number for c in store.changes(since=3)] == [4]


@pytest.mark.not_kinds("replica", "attached_to_replica")  # only a master forgets history
def test_a_feed_that_the_journal_no_longer_has_is_refused(store: Store) -> None:
    for _ in range(3):
        Item(store)
    store.compact(keep=datetime.timedelta(0))
    with pytest.raises(NoSuchCommit, match="begins at commit number 3"):
        list(store.changes(since=1))
    assert [c.number for c in store.changes(since=2)] == [3]


class Recorder:
    """A watcher that a test can wait for."""

    def __init__(self) -> None:
        self.labels: list[str] = []
        self._more = threading.Condition()

    def __call__(self, commit: Commit) -> None:
        with self._more:
            self.labels.append(commit.label)
            self._more.notify_all()

    def wait(self, count: int) -> list[str]:
        with self._more:
            assert self._more.wait_for(lambda: len(self.labels) >= count, timeout=10)
            return self.labels


def test_a_watcher_is_given_every_commit_from_now_on_in_order(store: Store) -> None:
    Item(store)
    seen = Recorder()
    store.watch(seen)
    for n in range(5):
        with store.transaction(f"{n}"):
            Item(store)
    assert seen.wait(5) == ["0", "1", "2", "3", "4"]


def test_a_watcher_that_was_closed_is_given_nothing_more(store: Store) -> None:
    seen, witness = Recorder(), Recorder()
    with store.watch(seen):
        store.transact(lambda: Item(store), label="a")
        seen.wait(1)
    store.watch(witness)
    store.transact(lambda: Item(store), label="b")
    assert witness.wait(1) == ["b"]
    assert seen.labels == ["a"]


def test_a_watcher_that_raises_is_called_again_with_the_next_commit(store: Store, caplog) -> None:
    seen = Recorder()

    def fail(commit: Commit) -> None:
        seen(commit)
        raise ZeroDivisionError

    store.watch(fail)
    for label in "ab":
        store.transact(lambda: Item(store), label=label)
    assert seen.wait(2) == ["a", "b"]


def test_closing_the_store_gives_watchers_what_they_have_not_seen(store: Store) -> None:
    seen = Recorder()
    store.watch(seen)
    for n in range(20):
        store.transact(lambda: Item(store), label=str(n))
    store.close()
    assert seen.labels == [str(n) for n in range(20)]


def test_a_watcher_may_write(store: Store) -> None:
    done = threading.Event()

    def answer(commit: Commit) -> None:
        if commit.label == "question":
            store.transact(lambda: Item(store), label="answer")
        if commit.label == "answer":
            done.set()

    store.watch(answer)
    store.transact(lambda: Item(store), label="question")
    assert done.wait(10)
