"""Classes change and items stay: upgrades, and records that this program's classes do not know."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from typing import Any

import pytest

from atop import Item, ReadOnlyItem, Store, UndoRefused, UpgradeFailed, upgrade
from atop import item as item_module

NAME = "test.Contact"


@pytest.fixture(autouse=True)
def no_class_of_another_test() -> Iterator[None]:
    """Each test begins and ends in a program that has not imported the class."""
    yield
    forget()


def forget() -> None:
    """Be a program that has not imported the class."""
    item_module._classes.pop(NAME, None)
    gc.collect()


def make_old(store: Store, **attributes: Any) -> int:
    """An item of the first version of the class, which nobody holds; returns its id."""

    class Contact(Item, type_name=NAME):
        fullname: str = ""

    item_id = Contact(store, **attributes).item_id
    forget()
    return item_id


def version_two() -> type[Item]:
    class Contact(Item, type_name=NAME, version=2):
        first: str = ""
        last: str = ""

        @upgrade(1)
        def split_the_name(state):  # noqa: N805 - an upgrade has no self
            state["first"], _, state["last"] = state.pop("fullname").partition(" ")
            return state

    return Contact


# -- upgrades


def test_a_reference_that_an_upgrade_moves_lets_go_of_what_is_deleted(store: Store) -> None:
    class Old(Item, type_name=NAME):
        owner: Item | None = None

    target = Item(store)
    item_id = Old(store, owner=target).item_id
    del Old
    forget()

    class New(Item, type_name=NAME, version=2):
        boss: Item | None = None

        @upgrade(1)
        def rename(state):  # noqa: N805 - an upgrade has no self
            state["boss"] = state.pop("owner")
            return state

    target.delete()
    assert dict(store.get(item_id, New).attributes) == {"boss": None}
    assert store.verify().problems == []


def test_an_old_item_is_upgraded_when_it_is_read(store: Store) -> None:
    item_id = make_old(store, fullname="Ada Lovelace")
    ada = store.get(item_id, version_two())
    assert (ada.first, ada.last) == ("Ada", "Lovelace")
    assert not hasattr(ada, "fullname")


def test_reading_does_not_write_and_the_next_change_does(store: Store, open_store) -> None:
    item_id = make_old(store, fullname="Ada Lovelace")
    version_two()
    before = store.head.number
    ada = store.get(item_id)
    assert ada.first == "Ada"
    assert store.head.number == before
    ada.last = "King"
    change = next(store.history(1)).changes[0]
    assert change.schema == (NAME, 1)
    assert change.before == {"fullname": "Ada Lovelace"}
    del ada
    forget()

    class Contact(Item, type_name=NAME, version=2):
        pass

    again = open_store().get(item_id)
    assert dict(again.attributes) == {"first": "Ada", "last": "King"}


def test_upgrades_are_chained(store: Store) -> None:
    item_id = make_old(store, fullname="Ada Lovelace")

    class Contact(Item, type_name=NAME, version=4):
        greeting: str = ""

        @upgrade(1)
        @staticmethod
        def split(state):
            first, last = state["fullname"].split()
            return {"first": first, "last": last}

        @upgrade(3)
        @staticmethod
        def greet(state):
            return {"greeting": f"Dear {state['first']}", "last": state["last"]}

    ada = store.get(item_id)
    assert dict(ada.attributes) == {"greeting": "Dear Ada", "last": "Lovelace"}


def test_an_attribute_added_with_a_default_needs_no_upgrade(store: Store) -> None:
    item_id = make_old(store, fullname="Ada")

    class Contact(Item, type_name=NAME):
        fullname: str = ""
        tags: list[str] = ["new"]
        friend: Item | None = None

    ada = store.get(item_id)
    assert (ada.fullname, ada.tags, ada.friend) == ("Ada", ["new"], None)


@pytest.mark.parametrize("at_once", [False, True], ids=["in batches", "in a transaction"])
def test_an_index_of_an_attribute_added_with_a_default_has_the_default(store: Store, at_once: bool) -> None:
    pool = store.pool("people")
    old = [make_old(store, fullname="Ada"), make_old(store, fullname="Bob"), make_old(store, city="Paris")]
    for item_id in old:
        pool.add(store.get(item_id))

    class Contact(Item, type_name=NAME):
        fullname: str = ""
        city: str = "London"
        friend: Item | None = None

    gc.collect()
    with store.transaction() if at_once else contextlib.nullcontext():
        pool.add_index("city")
        pool.add_index("friend")
    assert [item.item_id for item in pool.query("city", key="London")] == old[:2]
    assert [item.item_id for item in pool.query("city")] == old
    assert pool.count("city", key=None) == 0
    assert pool.count("friend", key=None) == 3
    assert store.verify().problems == []


def test_upgrade_all_writes_defaults_into_indexes_that_are_there_already(store: Store) -> None:
    pool = store.pool("people", indexes=["city"])
    item_id = make_old(store, fullname="Ada")
    pool.add(store.get(item_id))

    class Contact(Item, type_name=NAME):
        fullname: str = ""
        city: str = "London"

    gc.collect()
    assert store.upgrade_all() == 1
    assert [item.item_id for item in pool.query("city", key="London")] == [item_id]
    assert store.upgrade_all() == 0
    assert store.verify().problems == []


def test_an_attribute_added_without_a_default_is_missing_until_it_is_set(store: Store) -> None:
    item_id = make_old(store, fullname="Ada")

    class Contact(Item, type_name=NAME):
        fullname: str = ""
        phone: str

    ada = store.get(item_id)
    with pytest.raises(AttributeError, match="phone"):
        ada.phone  # noqa: B018
    ada.phone = "123"
    assert ada.phone == "123"


def test_an_upgrade_may_change_containers_in_place(store: Store) -> None:
    item_id = make_old(store, fullname="Ada", tags=["a"])

    class Contact(Item, type_name=NAME, version=2):
        fullname: str = ""

        @upgrade(1)
        @staticmethod
        def tag(state):
            state["tags"].append("b")
            return state

    ada = store.get(item_id)
    assert ada.tags == ["a", "b"]
    ada.touch()
    assert next(store.history(1)).changes[0].before == {"tags": ["a"]}


def test_an_upgrade_that_raises_names_the_item_and_leaves_it_as_it_was(store: Store, open_store) -> None:
    item_id = make_old(store, fullname="Ada")

    class Contact(Item, type_name=NAME, version=2):
        @upgrade(1)
        @staticmethod
        def fail(state):
            raise ZeroDivisionError("oops")

    ada = store.get(item_id)
    assert "unreadable" in repr(ada)
    for ask in (lambda: ada.fullname, lambda: setattr(ada, "x", 1), lambda: dict(ada.attributes)):
        with pytest.raises(
            UpgradeFailed, match=f"item {item_id}: .*version 1 failed: ZeroDivisionError: oops"
        ) as caught:
            ask()
        assert caught.value.item_id == item_id
    forget()
    assert open_store().get(item_id).fullname == "Ada"


@pytest.mark.parametrize("result", [None, 5, {"x": object()}])
def test_an_upgrade_that_returns_no_attributes_is_an_error_too(store: Store, result: Any) -> None:
    item_id = make_old(store, fullname="Ada")

    class Contact(Item, type_name=NAME, version=2):
        @upgrade(1)
        @staticmethod
        def wrong(state):
            return result

    with pytest.raises(UpgradeFailed):
        dict(store.get(item_id).attributes)


def test_one_item_that_fails_to_upgrade_does_not_stop_a_query(store: Store) -> None:
    pool = store.pool("people", indexes=["fullname"])
    for name in ("Ada", "Bob", "Cleo"):
        item_id = make_old(store, fullname=name)
        pool.add(store.get(item_id))

    class Contact(Item, type_name=NAME, version=2):
        @upgrade(1)
        @staticmethod
        def fail(state):
            if state["fullname"] == "Bob":
                raise ValueError("not Bob")
            return state

    gc.collect()
    found = list(pool.query("fullname"))
    assert [type(item) for item in found] == [Contact] * 3
    assert (found[0].fullname, found[2].fullname) == ("Ada", "Cleo")


def test_a_class_that_gives_no_version_is_upgraded_as_the_one_it_extends(store: Store) -> None:
    item_id = make_old(store, fullname="Ada Lovelace")

    class Person(Item, type_name="test.Person", version=2):
        first: str = ""

        @upgrade(1)
        @staticmethod
        def split(state):
            return {"first": state["fullname"].split()[0]}

    class Contact(Person, type_name=NAME):
        pass

    assert store.get(item_id, Contact).first == "Ada"
    forget()

    class Later(Person, type_name=NAME, version=4):
        @upgrade(3)
        @staticmethod
        def never_mind(state):
            return state

    gc.collect()
    assert store.get(item_id, Later).fullname == "Ada Lovelace"  # a version of its own: upgrades of its own


# -- upgrade_all


def test_upgrade_all_writes_back_what_is_old_and_nothing_else(store: Store) -> None:
    old = [make_old(store, fullname=f"Name {n}") for n in range(5)]
    Item(store)
    version_two()
    seen = []
    assert store.upgrade_all(progress=lambda done, total: seen.append((done, total))) == 5
    assert seen[-1][0] >= 6
    assert next(store.history(1)).item_ids == tuple(old)
    before = store.head
    assert store.upgrade_all() == 0
    assert store.head == before


def test_upgrade_all_goes_on_past_what_fails_and_names_it_at_the_end(store: Store) -> None:
    item_ids = [make_old(store, fullname=name) for name in ("Ada", "Bob", "Eve", "Bob")]

    class Contact(Item, type_name=NAME, version=2):
        @upgrade(1)
        @staticmethod
        def fail(state):
            if state["fullname"] == "Bob":
                raise ValueError("not Bob")
            return state

    with pytest.raises(UpgradeFailed, match=r"not Bob.*1 more") as caught:
        store.upgrade_all()
    assert caught.value.item_id == item_ids[1]
    assert next(store.history(1)).item_ids == (item_ids[0], item_ids[2])


def test_indexes_are_right_after_an_upgrade(store: Store) -> None:
    pool = store.pool("people", indexes=["first", "fullname"])
    item_id = make_old(store, fullname="Ada Lovelace")
    pool.add(store.get(item_id))
    cls = version_two()
    gc.collect()
    assert [item.first for item in pool.query("fullname", key="Ada Lovelace")] == ["Ada"]
    assert store.verify().problems == []
    store.upgrade_all()
    assert list(pool.query("first", key="Ada")) == [store.get(item_id, cls)]
    assert list(pool.query("fullname", key="Ada Lovelace")) == []
    assert store.verify().problems == []


def test_an_item_that_is_not_yet_written_back_can_be_changed_pooled_and_deleted(store: Store, undone) -> None:
    pool = store.pool("people", indexes=["first", "fullname"])
    item_id = make_old(store, fullname="Ada Lovelace")
    pool.add(store.get(item_id))
    version_two()
    gc.collect()
    ada = store.get(item_id)
    with undone():
        ada.first = "Augusta"
        assert list(pool.query("first", key="Augusta")) == [ada]
        assert list(pool.query("fullname", key="Ada Lovelace")) == []
    with undone():
        pool.remove(ada)
    with undone():
        ada.delete()
    assert store.verify().problems == []
    pool.remove(ada)
    assert store.verify().problems == []
    pool.add(ada)
    ada.delete()
    assert store.verify().problems == []


def test_an_upgrade_may_drop_a_reference(store: Store) -> None:
    target = Item(store)
    item_id = make_old(store, fullname="Ada", friend=target)

    class Contact(Item, type_name=NAME, version=2):
        @upgrade(1)
        @staticmethod
        def alone(state):
            del state["friend"]
            return state

    store.get(item_id).touch()
    assert list(target.referrers()) == []
    assert store.verify().problems == []


# -- undo across upgrades


def test_undoing_a_change_that_upgraded_keeps_the_upgrade(store: Store) -> None:
    item_id = make_old(store, fullname="Ada Lovelace")
    version_two()
    ada = store.get(item_id)
    ada.last = "King"
    store.undo(next(store.history(1)))
    assert (ada.first, ada.last) == ("Ada", "Lovelace")
    assert dict(ada.attributes) == {"first": "Ada", "last": "Lovelace"}
    assert store.verify().problems == []


def test_undoing_a_change_from_before_an_upgrade_that_is_not_written_yet(store: Store) -> None:
    class Contact(Item, type_name=NAME):
        fullname: str = ""

    ada = Contact(store, fullname="Ada Byron")
    ada.fullname = "Ada Lovelace"
    change, item_id = next(store.history(1)), ada.item_id
    del ada
    forget()
    version_two()
    store.undo(change)
    assert (store.get(item_id).first, store.get(item_id).last) == ("Ada", "Byron")


def test_undoing_a_change_from_before_an_upgrade_that_is_written_is_refused(store: Store) -> None:
    class Contact(Item, type_name=NAME):
        fullname: str = ""
        city: str = ""

    ada = Contact(store, fullname="Ada Byron")
    ada.city = "London"
    change, item_id = next(store.history(1)), ada.item_id
    del ada
    forget()
    version_two()
    store.get(item_id).touch()
    with pytest.raises(UndoRefused, match=r"upgraded since by commit 3 \('touch Contact 1'\): change it by hand"):
        store.undo(change)


def test_undoing_a_deletion_from_before_an_upgrade_upgrades(store: Store, open_store) -> None:
    item_id = make_old(store, fullname="Ada Lovelace")
    store.get(item_id).delete()
    gc.collect()
    version_two()
    store.undo(next(store.history(1)))
    assert store.get(item_id).first == "Ada"
    assert open_store().get(item_id).last == "Lovelace"


# -- what this program does not know


def test_an_item_of_a_class_that_is_not_imported_is_a_plain_one_with_its_attributes(store: Store) -> None:
    item_id = make_old(store, fullname="Ada", tags=["a"])
    ada = store.get(item_id)
    assert (type(ada), ada.type_name) == (Item, NAME)
    assert dict(ada.attributes) == {"fullname": "Ada", "tags": ["a"]}
    assert ada.fullname == "Ada"


def test_an_item_of_a_class_that_is_not_imported_is_read_only_and_says_why(store: Store) -> None:
    ada = store.get(make_old(store, fullname="Ada", tags=["a"]))
    for change in (
        lambda: setattr(ada, "fullname", "Eve"),
        lambda: ada.tags.append("b"),
        lambda: delattr(ada, "fullname"),
        ada.touch,
    ):
        with pytest.raises(ReadOnlyItem, match=r"is a test\.Contact, which this program has not imported: import it"):
            change()
    assert (ada.fullname, ada.tags) == ("Ada", ["a"])


def test_an_item_that_a_newer_program_wrote_is_read_only_and_says_why(store: Store) -> None:
    class New(Item, type_name=NAME, version=3):
        fullname: str = ""

    item_id = New(store, fullname="Ada").item_id
    forget()

    class Contact(Item, type_name=NAME, version=2):
        fullname: str = ""

    ada = store.get(item_id)
    assert (type(ada), ada.fullname) == (Item, "Ada")
    with pytest.raises(
        ReadOnlyItem, match=r"written by version 3 of test\.Contact; this program has version 2: update"
    ):
        ada.fullname = "Eve"


def test_an_item_of_an_unknown_class_can_be_pooled_deleted_and_brought_back(store: Store, open_store) -> None:
    pool = store.pool("people", indexes=["fullname"])
    item_id = make_old(store, fullname="Ada")
    ada = store.get(item_id)
    pool.add(ada)
    assert list(pool.query("fullname")) == [ada]
    ada.delete()
    assert list(pool) == []
    store.undo(next(store.history(1)))
    del ada
    store = open_store()

    class Contact(Item, type_name=NAME):
        fullname: str = ""

    ada = store.get(item_id, Contact)
    assert ada.pools == (store.pool("people"),)
    ada.fullname = "Augusta"
    assert store.verify().problems == []


def test_undo_changes_an_item_of_an_unknown_class_too(store: Store) -> None:
    class Contact(Item, type_name=NAME):
        fullname: str = ""

    ada = Contact(store, fullname="Ada")
    ada.fullname = "Eve"
    item_id = ada.item_id
    del ada
    forget()
    store.undo(next(store.history(1)))
    assert store.get(item_id).fullname == "Ada"


def test_history_of_an_upgraded_item_shows_both_versions(store: Store) -> None:
    item_id = make_old(store, fullname="Ada Lovelace")
    version_two()
    ada = store.get(item_id)
    ada.touch()
    written, created = ada.history()
    assert dict(written.attributes) == {"first": "Ada", "last": "Lovelace"}
    assert written.changed["fullname"] == ("Ada Lovelace", None)
    assert dict(created.attributes) == {"fullname": "Ada Lovelace"}


def test_an_item_that_was_read_before_its_class_was_imported_says_so_when_changed(store: Store) -> None:
    item_id = make_old(store, fullname="Ada")
    ada = store.get(item_id)
    version_two()
    with pytest.raises(ReadOnlyItem, match="let go of it, and get it again"):
        ada.fullname = "Eve"
    del ada
    gc.collect()
    assert store.get(item_id).first == "Ada"


@pytest.mark.parametrize("version", [0, -1, "2", 1.0, True])
def test_a_version_is_a_number_from_one(version: Any) -> None:
    with pytest.raises(TypeError, match="version must be 1 or more"):

        class Wrong(Item, version=version):
            pass
