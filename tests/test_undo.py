"""Undo: a commit is taken back by a new one, and what came later elsewhere stays."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from atop import Commit, Item, NoSuchItem, NoSuchPool, Store, UndoRefused, ref

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


# -- undo of one thing


def test_undo_gives_names_back(store: Store) -> None:
    ada, bob = Person(store, name="Ada"), Person(store, name="Bob")
    store.set_root("me", ada)
    with store.transaction():
        store.set_root("me", bob)
        bob.city = "London"
    store.undo(last(store))
    assert (store.root("me"), bob.city) == (ada, "")
    ada.delete()
    store.undo(last(store))
    assert store.root("me") is ada
    store.set_root("me", None)
    store.undo(last(store))
    assert store.root("me") is ada
    named = next(commit for commit in store.history() if "name" in commit.label and commit.number == 3)
    store.set_root("me", bob)
    with pytest.raises(UndoRefused, match="'me' was given to another item since"):
        store.undo(named)


def test_a_signalling_nan_can_be_undone(store: Store) -> None:
    ada = Person(store, name="Ada", number=Decimal("sNaN"))
    made = last(store)
    ada.number = 1
    with pytest.raises(UndoRefused):
        store.undo(made)
    store.undo(last(store))
    assert ada.number.is_snan()


def test_undoing_a_creation_deletes_the_item(store: Store) -> None:
    ada = Person(store, name="Ada")
    store.undo(last(store))
    with pytest.raises(NoSuchItem):
        ada.name  # noqa: B018
    assert (last(store).label, not list(store.items())) == ("undo 1: create Person", True)


def test_undoing_a_change_puts_the_old_values_back(store: Store) -> None:
    ada = Person(store, name="Ada", nickname="A")
    with store.transaction():
        ada.name = "Eve"
        ada.title = "Ms"
        del ada.nickname
    store.undo(last(store).commit_id, label="oops")
    assert (ada.name, ada.nickname, hasattr(ada, "title")) == ("Ada", "A", False)
    assert last(store).label == "oops"


def test_undoing_a_deletion_brings_the_item_back_with_references_and_pools(store: Store) -> None:
    pool = store.pool("people", indexes=["name"])
    company = Company(store, name="C")
    ada = Person(store, name="Ada", employer=company)
    bob = Person(store, name="Bob", friends=[ada, company], employer=company)
    pool.add(ada)
    before = state(store)
    ada.delete()
    store.undo(last(store))
    assert state(store) == before
    assert list(pool.query("name", key="Ada")) == [ada]
    assert list(ada.referrers()) == [bob]
    assert store.verify().problems == []


def test_undoing_a_deletion_that_nullified_and_cascaded_brings_all_back(store: Store) -> None:
    ada = Person(store, name="Ada")
    letter = Letter(store, sender=ada)
    Person(store, friends=[ada, letter], best=ada, by_name={"a": letter})
    before = state(store)
    ada.delete()
    assert len(list(store.items())) == 1
    store.undo(last(store))
    assert state(store) == before
    assert letter.sender is ada
    assert store.verify().problems == []


def test_undoing_changes_of_pools_merges_them(store: Store) -> None:
    friends, family, work = (store.pool(name) for name in ("friends", "family", "work"))
    ada = Person(store)
    friends.add(ada)
    with store.transaction():
        friends.remove(ada)
        family.add(ada)
    swap = last(store)
    work.add(ada)
    store.undo(swap)
    assert ada.pools == (friends, work)
    assert store.verify().problems == []


def test_undoing_the_deletion_of_a_pool_brings_back_name_members_and_indexes(store: Store) -> None:
    pool = store.pool("people", indexes=["name"])
    for name in ("Ada", "Bob"):
        pool.add(Person(store, name=name))
    before = state(store)
    pool.delete()
    store.undo(last(store))
    assert state(store) == before
    assert store.pool("people", create=False) is pool
    assert [p.name for p in pool.query("name")] == ["Ada", "Bob"]
    assert len(pool) == 2
    assert store.verify().problems == []


def test_undoing_the_replacement_of_a_pool_gives_its_name_back(store: Store) -> None:
    old = store.pool("people")
    old.add(Person(store, name="Ada"))
    with store.transaction():
        old.delete()
        store.pool("people")
    store.undo(last(store))
    assert store.pool("people", create=False) is old
    assert [p.name for p in old] == ["Ada"]


def test_undoing_the_creation_of_a_pool_removes_its_name_too(store: Store) -> None:
    with store.transaction():
        store.pool("people").add(Person(store, name="Ada"))
    store.undo(last(store))
    with pytest.raises(NoSuchPool):
        store.pool("people", create=False)
    assert not list(store.items())
    assert store.verify().problems == []


def test_undoing_the_creation_of_a_pool_that_others_filled_is_refused(store: Store) -> None:
    pool = store.pool("people")
    creation = last(store)
    pool.add(Person(store))
    with pytest.raises(UndoRefused, match="pool 'people' has items that were added since"):
        store.undo(creation)
    assert len(pool) == 1


def test_an_undo_can_be_undone_and_that_again(store: Store) -> None:
    ada = Person(store, name="Ada")
    ada.name = "Eve"
    for expected in ("Ada", "Eve", "Ada"):
        store.undo(last(store))
        assert ada.name == expected
    ada.delete()
    for there in (True, False, True):
        store.undo(last(store))
        assert bool(list(store.items())) is there


def test_undoing_backwards_commit_by_commit_leads_to_the_beginning(store: Store) -> None:
    ada = Person(store, name="Ada")
    ada.name = "Eve"
    ada.delete()
    for commit in list(store.history()):
        store.undo(commit)
    assert not list(store.items())


def test_the_history_of_an_item_that_was_brought_back_goes_on_before_its_deletion(store: Store) -> None:
    ada = Person(store, name="Ada")
    ada.name = "Eve"
    ada.delete()
    store.undo(last(store))
    revisions = list(ada.history())
    assert [r.kind for r in revisions] == ["created", "deleted", "changed", "created"]
    assert [dict(r.attributes).get("name") for r in revisions] == ["Eve", None, "Eve", "Ada"]
    assert revisions[1].changed["name"] == ("Eve", None)


def test_undoing_an_undo_again_and_again_makes_no_label_that_grows_without_end(store: Store) -> None:
    Person(store, name="Ada")
    for _ in range(200):
        store.undo(last(store))
    assert len(last(store).label) <= 1_000


# -- undo among later commits


def test_later_changes_of_other_attributes_and_items_stay(store: Store) -> None:
    ada, bob = Person(store, name="Ada"), Person(store, name="Bob")
    with store.transaction():
        ada.name = "Eve"
        bob.name = "Eve"
    renamed = last(store)
    ada.city = "London"
    bob.friends.append(ada)
    store.undo(renamed)
    assert (ada.name, ada.city, bob.name, bob.friends) == ("Ada", "London", "Bob", [ada])


def test_a_later_change_of_the_same_attribute_refuses_the_undo_and_is_named(store: Store) -> None:
    ada, bob = Person(store, name="Ada"), Person(store, name="Bob")
    with store.transaction("rename both"):
        ada.name = bob.name = "Eve"
    renamed = last(store)
    store.transact(setattr, ada, "name", "Adele", label="rename again")
    before = state(store)
    with pytest.raises(UndoRefused) as caught:
        store.undo(renamed)
    assert f"commit 3 ('rename both') cannot be undone: name of item {ada.item_id} was changed" in str(caught.value)
    assert "commit 4 ('rename again'): undo that first" in str(caught.value)
    assert state(store) == before
    store.undo(last(store))
    store.undo(renamed)
    assert (ada.name, bob.name) == ("Ada", "Bob")


def test_undoing_a_creation_is_refused_when_the_item_was_changed_since(store: Store) -> None:
    ada = Person(store, name="Ada")
    creation = last(store)
    ada.city = "London"
    with pytest.raises(UndoRefused, match=rf"item {ada.item_id} was changed since by commit 2 \('set city of "):
        store.undo(creation)


def test_undoing_a_creation_is_possible_once_the_later_changes_are_undone(store: Store) -> None:
    pool = store.pool("people")
    ada = Person(store, name="Ada")
    creation = last(store)
    pool.add(ada)
    addition = last(store)
    ada.city = "London"
    store.undo(last(store))
    with pytest.raises(UndoRefused, match="changed since"):
        store.undo(creation)
    store.undo(addition)
    store.undo(creation)
    assert list(store.items()) == [pool]
    assert store.verify().problems == []


def test_undoing_a_change_is_refused_when_the_item_was_deleted_since(store: Store) -> None:
    ada = Person(store, name="Ada")
    ada.city = "London"
    change = last(store)
    ada.delete()
    with pytest.raises(UndoRefused, match=f"item {ada.item_id} has been deleted since"):
        store.undo(change)


def test_undoing_a_deletion_twice_is_refused(store: Store) -> None:
    ada = Person(store)
    ada.delete()
    deletion = last(store)
    store.undo(deletion)
    with pytest.raises(UndoRefused, match="is there again"):
        store.undo(deletion)


def test_undoing_a_creation_is_refused_when_another_item_forbids_the_deletion(store: Store) -> None:
    class Contract(Item):
        party: Item | None = ref(on_delete="restrict")

    company = Company(store, name="C")
    creation = last(store)
    Contract(store, party=company)
    with pytest.raises(UndoRefused, match="forbid"):
        store.undo(creation)


def test_undoing_the_creation_of_items_that_forbid_each_others_deletion_works(store: Store) -> None:
    class Part(Item):
        whole: Item | None = ref(on_delete="restrict")

    with store.transaction():
        one = Part(store)
        one.whole = Part(store, whole=one)
    store.undo(last(store))
    assert not list(store.items())


def test_undoing_a_deletion_drops_references_to_what_is_gone_by_now(store: Store) -> None:
    pool, company = store.pool("people"), Company(store, name="C")
    ada = Person(store, employer=company, friends=[company])
    pool.add(ada)
    ada.delete()
    deletion = last(store)
    company.delete()
    pool.delete()
    store.undo(deletion)
    assert (ada.employer, ada.friends, ada.pools) == (None, [], ())
    assert store.verify().problems == []


def test_undoing_a_change_does_not_point_to_what_is_gone_by_now(store: Store) -> None:
    company = Company(store, name="C")
    ada = Person(store, employer=company)
    ada.employer = None
    change = last(store)
    company.delete()
    store.undo(change)
    assert ada.employer is None
    assert store.verify().problems == []


def test_a_commit_that_changed_an_index_is_not_undone_but_said_how(store: Store) -> None:
    pool = store.pool("people")
    with store.transaction():
        pool.add_index("name")
    with pytest.raises(UndoRefused, match="with add_index and drop_index"):
        store.undo(last(store))


def test_a_commit_without_changes_of_items_or_names_cannot_be_undone(store: Store) -> None:
    people = store.pool("people", indexes=["name"])
    people.add(Person(store))
    people.drop_index("name")
    entries = next(commit for commit in store.history() if not (commit.changes or commit.names))
    with pytest.raises(UndoRefused, match="nothing to undo"):
        store.undo(entries)


def test_undo_joins_the_transaction_it_is_called_in(store: Store, undone) -> None:
    ada, bob = Person(store, name="Ada"), Person(store, name="Bob")
    ada.name = "Eve"
    change = last(store)
    with undone():
        store.undo(change)
        assert ada.name == "Ada"
    assert ada.name == "Eve"
    with store.transaction("mend"):
        store.undo(change)
        bob.city = "London"
    assert (ada.name, last(store).label, last(store).item_ids) == ("Ada", "mend", (ada.item_id, bob.item_id))


def test_undo_is_refused_in_a_transaction_that_has_changed_the_item_itself(store: Store) -> None:
    ada = Person(store, name="Ada")
    ada.name = "Eve"
    change = last(store)
    with store.transaction():
        ada.name = "Adele"
        with pytest.raises(UndoRefused, match="undo it outside of that"):
            store.undo(change)
    assert ada.name == "Adele"


def test_an_undone_list_is_what_the_program_sees(store: Store) -> None:
    ada = Person(store, name="Ada", tags=["a"])
    tags = ada.tags
    tags.append("b")
    store.undo(last(store))
    assert ada.tags == ["a"]
    with store.transaction():
        assert ada.tags == ["a"]


def test_files_of_a_deleted_item_are_there_when_the_deletion_is_undone(store: Store) -> None:
    item = Item(store, photo=store.file(b"jpeg", name="me.jpg"))
    item.delete()
    store.compact(grace=0)
    store.undo(next(c for c in store.history() if "delete" in c.label))
    assert item.photo.read() == b"jpeg"
    assert store.verify().problems == []


def test_history_survives_the_end_of_the_program(open_store) -> None:
    store = open_store()
    ada = Person(store, name="Ada")
    ada.name = "Eve"
    head = store.head
    store = open_store()
    assert store.head == head
    store.undo(last(store))
    assert store.get(ada.item_id).name == "Ada"
