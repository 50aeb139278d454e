"""References between items: loaded when touched, found from the other end, mended when an item is deleted."""

from __future__ import annotations

import threading

import pytest

from atop import Item, NoSuchItem, Restricted, Store, ref

pytestmark = pytest.mark.every_kind


class Company(Item):
    name: str
    owner: Item | None = None


class Person(Item):
    name: str = ""
    employer: Company | None = None
    friends: list[Item] = []


class Letter(Item):
    sender: Person | None = ref(on_delete="cascade")


class Contract(Item):
    party: Item | None = ref(on_delete="restrict")


def test_a_reference_is_the_item_itself_when_touched(open_store) -> None:
    store = open_store()
    ada = Person(store, employer=Company(store, name="Babbage & Co"))
    store = open_store()
    again = store.get(ada.item_id)
    assert again.employer.name == "Babbage & Co"
    assert again.employer is store.get(again.employer.item_id)


def test_items_may_refer_to_each_other_and_to_themselves(store: Store) -> None:
    with store.transaction():
        ada = Person(store)
        company = Company(store, name="Ada's", owner=ada)
        ada.employer = company
        ada.friends = [ada]
    assert ada.employer.owner is ada
    assert ada.friends == [ada]


def test_lists_tuples_sets_and_dicts_may_hold_items_at_any_depth(open_store) -> None:
    store = open_store()
    a, b = Item(store), Item(store)
    holder = Item(store, data=[{"pair": (a, b), "all": {a, b}, a: "as a key"}])
    again = open_store().get(holder.item_id)
    pair = again.data[0]["pair"]
    assert [i.item_id for i in pair] == [a.item_id, b.item_id]
    assert again.data[0]["all"] == set(pair)
    assert again.data[0][pair[0]] == "as a key"


# -- referrers


def test_referrers_are_the_items_that_point_here_by_id(store: Store) -> None:
    company = Company(store, name="C")
    ada, bob = Person(store, employer=company), Person(store, friends=[company])
    Person(store, name="neither")
    assert list(company.referrers()) == [ada, bob]
    assert list(company.referrers("employer")) == [ada]


def test_an_item_that_points_here_twice_is_one_referrer(store: Store) -> None:
    company = Company(store, name="C")
    ada = Person(store, employer=company, friends=[company, company])
    assert list(company.referrers()) == [ada]


def test_referrers_follow_every_change(store: Store) -> None:
    company, other = Company(store, name="C"), Company(store, name="D")
    ada = Person(store, employer=company)
    ada.employer = other
    assert (list(company.referrers()), list(other.referrers())) == ([], [ada])
    ada.friends.append(company)
    assert list(company.referrers()) == [ada]
    ada.friends.clear()
    assert list(company.referrers()) == []


def test_a_transaction_sees_its_own_referrers(store: Store, undone) -> None:
    company = Company(store, name="C")
    ada = Person(store, employer=company)
    with undone():
        bob = Person(store, employer=company)
        assert list(company.referrers()) == [ada, bob]
        ada.employer = None
        assert list(company.referrers()) == [bob]
        bob.delete()
        assert list(company.referrers()) == []
    assert list(company.referrers()) == [ada]


# -- deleting: nullify


def test_nullify_makes_the_attribute_none(store: Store) -> None:
    company = Company(store, name="C")
    ada = Person(store, employer=company)
    company.delete()
    assert ada.employer is None


def test_nullify_takes_the_item_out_of_lists_and_sets_and_leaves_none_in_dicts_and_tuples(store: Store) -> None:
    gone, kept = Item(store), Item(store)
    holder = Item(store, many=[gone, kept, gone], some={gone, kept}, named={"a": gone, gone: 1}, pair=(gone, kept))
    gone.delete()
    assert holder.many == [kept]
    assert holder.some == {kept}
    assert holder.named == {"a": None}
    assert holder.pair == (None, kept)


def test_nullify_reaches_into_the_keys_of_dicts(store: Store) -> None:
    gone = Item(store)
    holder = Item(store, hours={(gone, 2024): 7})
    gone.delete()
    assert holder.hours == {(None, 2024): 7}
    assert store.verify().problems == []


def test_nullify_reaches_items_whose_class_is_not_imported(open_store) -> None:
    store = open_store()

    class Passing(Item, type_name="test.Passing"):
        target: Item | None = None

    target = Item(store)
    item_id = Passing(store, target=target).item_id
    from atop import item as module

    del module._classes["test.Passing"]
    store = open_store()
    store.get(target.item_id).delete()
    assert store.get(item_id).target is None
    assert store.verify().problems == []


# -- deleting: cascade


def test_cascade_deletes_the_referrer_too_and_theirs(store: Store) -> None:
    ada = Person(store, name="Ada")
    letter = Letter(store, sender=ada)
    Letter(store, sender=letter)
    bystander = Person(store, friends=[letter])
    ada.delete()
    assert list(store.items()) == [bystander]
    assert bystander.friends == []


def test_cascade_ends_in_a_circle(store: Store) -> None:
    with store.transaction():
        one = Letter(store)
        two = Letter(store, sender=one)
        one.sender = two
    one.delete()
    assert not list(store.items())


def test_a_cascade_is_one_commit(store: Store) -> None:
    ada = Person(store)
    for _ in range(5):
        Letter(store, sender=ada)
    before = store.head.number
    ada.delete()
    assert store.head.number == before + 1


# -- deleting: restrict


def test_restrict_refuses_the_deletion_and_changes_nothing(store: Store) -> None:
    company = Company(store, name="C")
    ada = Person(store, employer=company)
    Contract(store, party=company)
    with pytest.raises(Restricted, match=f"item {company.item_id} cannot be deleted"):
        company.delete()
    assert ada.employer is company


def test_restrict_further_down_refuses_a_whole_cascade(store: Store) -> None:
    ada = Person(store)
    letter = Letter(store, sender=ada)
    Contract(store, party=letter)
    with pytest.raises(Restricted) as caught:
        ada.delete()
    assert caught.value.item_id == letter.item_id
    assert ada.name == letter.sender.name == ""


def test_restrict_does_not_count_a_referrer_that_goes_with_it(store: Store) -> None:
    class Seal(Item):
        letter: Letter | None = ref(on_delete="restrict")
        owner: Person | None = ref(on_delete="cascade")

    ada = Person(store)
    Seal(store, letter=Letter(store, sender=ada), owner=ada)
    ada.delete()
    assert not list(store.items())


def test_a_refused_deletion_leaves_the_rest_of_its_transaction_alone(store: Store) -> None:
    company = Company(store, name="C")
    contract = Contract(store, party=company)
    with store.transaction():
        company.name = "D"
        with pytest.raises(Restricted):
            company.delete()
        assert company.name == "D"
    assert (company.name, contract.party) == ("D", company)


def test_restrict_ends_with_the_reference(store: Store) -> None:
    company = Company(store, name="C")
    contract = Contract(store, party=company)
    with store.transaction():
        contract.party = None
        company.delete()
    assert list(store.items()) == [contract]


def test_the_rule_of_a_class_holds_where_that_is_not_imported(open_store) -> None:
    store = open_store()

    class Deed(Item, type_name="test.Deed"):
        party: Item | None = ref(on_delete="restrict")

    company = Company(store, name="C")
    Deed(store, party=company)
    from atop import item as module

    del module._classes["test.Deed"]
    store = open_store()
    with pytest.raises(Restricted):
        store.get(company.item_id).delete()


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(ValueError, match="nullify, cascade or restrict"):
        ref(on_delete="explode")  # type: ignore[arg-type]


# -- never a reference to nothing


def test_a_deleted_item_cannot_be_referred_to(store: Store) -> None:
    ada, company = Person(store), Company(store, name="C")
    company.delete()
    with pytest.raises(NoSuchItem):
        ada.employer = company
    with pytest.raises(NoSuchItem):
        ada.friends.append(company)
    with pytest.raises(NoSuchItem):
        Person(store, employer=company)
    with store.transaction():
        ada.delete()
        with pytest.raises(NoSuchItem):
            Person(store, friends=[ada])
    assert store.verify().problems == []


def test_an_item_of_a_rolled_back_transaction_cannot_be_referred_to(store: Store, undone) -> None:
    ada = Person(store)
    with undone():
        company = Company(store, name="C")
    with pytest.raises(NoSuchItem):
        ada.employer = company
    assert store.verify().problems == []


def test_a_reference_made_before_the_deletion_in_the_same_transaction_is_nullified(store: Store) -> None:
    ada, company = Person(store), Company(store, name="C")
    with store.transaction():
        ada.employer = company
        ada.friends.append(company)
        company.delete()
        assert (ada.employer, ada.friends) == (None, [])
    assert (ada.employer, ada.friends) == (None, [])
    assert store.verify().problems == []


def test_a_deletion_elsewhere_conflicts_with_a_new_reference(store: Store, conflicting) -> None:
    ada, company = Person(store), Company(store, name="C")
    with conflicting():
        ada.employer = company
        thread = threading.Thread(target=company.delete)
        thread.start()
        thread.join()
    assert ada.employer is None
    assert store.verify().problems == []


def test_a_new_reference_elsewhere_conflicts_with_a_deletion(store: Store, conflicting) -> None:
    ada, company = Person(store), Company(store, name="C")
    with conflicting():
        company.delete()
        thread = threading.Thread(target=lambda: setattr(ada, "employer", company))
        thread.start()
        thread.join()
    assert ada.employer is company
    assert store.verify().problems == []
