"""The talk of 2004: its snippet runs as it stands, and so do classes written as it showed."""

from __future__ import annotations

import pytest

from atop import Item, Store

pytestmark = pytest.mark.every_kind("embedded", "attached", "master", "replica", "attached_to_replica")

# As on the slide, but for `print`, which was a statement then.
SNIPPET = """
pool = store.getItemByID(7)
for item in pool.queryIndex('name', startKey='Bob'): print(item.name)
"""


class Contact(Item):
    """As the talk wrote classes: its own constructor, which calls that of Item."""

    def __init__(self, store: Store, name: str, email: str = "") -> None:
        super().__init__(store, name=name)
        self.email = email

    def address(self) -> str:
        return f"{self.name} <{self.email}>"


class Friend(Contact):
    def __init__(self, store: Store, name: str, nickname: str) -> None:
        super().__init__(store, name, f"{nickname}@example.org")
        self.nickname = nickname


@pytest.mark.not_kinds("master", "replica", "attached_to_replica")  # it needs an item 7, so the group's first device
def test_the_snippet_of_the_talk_runs_as_it_stands(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(6):
        Item(store)
    pool = store.pool("people", indexes=["name"])
    assert pool.item_id == 7
    for name in ("Cleo", "Ada", "Bob"):
        pool.add(Contact(store, name))
    exec(SNIPPET, {"store": store})  # noqa: S102 - what is promised is that this text runs
    assert capsys.readouterr().out == "Bob\nCleo\n"


def test_a_class_with_its_own_constructor_stores_what_that_sets(open_store) -> None:
    ada = Contact(open_store(), "Ada", "ada@example.org")
    again = open_store().get(ada.item_id)
    assert (type(again), again.name, again.address()) == (Contact, "Ada", "Ada <ada@example.org>")


def test_a_constructor_of_ones_own_is_one_transaction(store: Store) -> None:
    Contact(store, "Ada", "ada@example.org")
    assert store.head.number == 1


def test_constructors_chain(store: Store) -> None:
    bob = Friend(store, "Bob", nickname="bobby")
    assert (bob.address(), bob.nickname) == ("Bob <bobby@example.org>", "bobby")


def test_a_constructor_that_fails_leaves_nothing(store: Store) -> None:
    with pytest.raises(TypeError):
        Friend(store, "Bob")  # type: ignore[call-arg]
    assert not list(store.items())


def test_the_old_names_do_what_todays_do(store: Store) -> None:
    pool = store.pool("people")
    pool.addIndex("name")
    with store.batch("old style"):
        people = [Contact(store, name) for name in ("Ada", "Bob", "Cleo", "Dora")]
        for person in people:
            pool.addItem(person)
    assert next(store.history()).label == "old style"
    assert list(pool.queryIndex("name")) == people
    assert list(pool.queryIndex("name", startKey="Bob", endKey="Dora")) == people[1:3]
    assert list(pool.queryIndex("name", "Bob", "Dora", backwards=True)) == people[2:0:-1]
    assert pool.getIndexItem("name", "Cleo") is people[2]
    assert pool.getIndexItem("name", "Zoe") is None
    pool.removeItem(people[0])
    assert store.getItemByID(people[0].item_id) not in pool
