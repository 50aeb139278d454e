"""Items: objects that are just there, and what a program may do with one."""

from __future__ import annotations

import copy
import datetime
import gc
import json
import pickle
import threading
import zoneinfo
from decimal import Decimal
from pathlib import Path
from typing import ClassVar

import pytest

import atop
from atop import Item, NoSuchItem, Restricted, Store, UnstorableValue, ref

pytestmark = pytest.mark.every_kind


class Company(Item):
    name: str
    city: str = ""


class Contact(Item):
    name: str
    email: str = ""
    born: datetime.date | None = None
    employer: Company | None = None
    tags: list[str] = []
    shown: ClassVar[str] = "not an attribute of items"

    @property
    def domain(self) -> str:
        return self.email.rpartition("@")[2]

    @domain.setter
    def domain(self, domain: str) -> None:
        if "@" in domain:
            raise ValueError("a domain has no @")
        self.email = f"{self.email.partition('@')[0]}@{domain}"

    def greeting(self) -> str:
        return f"Dear {self.name}"


# -- making one


def test_an_item_has_the_attributes_it_was_given_and_the_defaults_of_its_class(store: Store) -> None:
    ada = Contact(store, name="Ada Lovelace", email="ada@example.org")
    assert (ada.name, ada.email, ada.born, ada.tags) == ("Ada Lovelace", "ada@example.org", None, [])


def test_items_are_numbered_from_one_in_the_first_store(store: Store) -> None:
    assert [Item(store).item_id for _ in range(3)] == [1, 2, 3]


def test_an_item_is_read_back_after_the_store_was_closed(open_store) -> None:
    item_id = Contact(open_store(), name="Ada", tags=["x"]).item_id
    ada = open_store().get(item_id)
    assert (type(ada), ada.name, ada.tags) == (Contact, "Ada", ["x"])


def test_a_plain_item_takes_any_attributes(store: Store) -> None:
    note = Item(store, title="Milk", pages=3)
    note.colour = "yellow"
    assert dict(note.attributes) == {"title": "Milk", "pages": 3, "colour": "yellow"}


def test_an_annotated_class_takes_other_attributes_as_well(store: Store) -> None:
    ada = Contact(store, name="Ada", nickname="Countess")
    ada.house = "Ockham Park"
    assert (ada.nickname, ada.house) == ("Countess", "Ockham Park")


def test_an_attribute_without_a_default_must_be_given(store: Store) -> None:
    with pytest.raises(TypeError, match="Contact needs name"):
        Contact(store, email="ada@example.org")
    assert not list(store.items())


@pytest.mark.parametrize("name", ["label", "function", "self", "cls", "arguments", "named", "limit"])
def test_no_name_of_a_parameter_within_atop_is_taken_from_attributes(store: Store, name: str) -> None:
    item = Item(store, **{name: "mine"})
    with store.transaction():
        other = Item(store, **{name: "mine"})
    assert getattr(item, name) == getattr(other, name) == "mine"


def test_the_first_argument_must_be_a_store() -> None:
    with pytest.raises(TypeError, match="first argument is a Store"):
        Contact("~/pim", name="Ada")  # type: ignore[arg-type]


def test_an_item_knows_its_store(store: Store) -> None:
    assert Contact(store, name="Ada").store is store


def test_a_constructor_that_fails_leaves_no_item_behind(store: Store) -> None:
    class Picky(Item):
        name: str

        def __init__(self, store: Store, name: str) -> None:
            super().__init__(store, name=name)
            if not name:
                raise ValueError("nameless")

    with store.transaction():
        with pytest.raises(ValueError, match="nameless"):
            Picky(store, "")
        kept = Picky(store, "kept")
    assert list(store.items()) == [kept]


def test_a_constructor_may_be_given_properties(store: Store) -> None:
    ada = Contact(store, name="Ada", email="ada@x", domain="example.org")
    assert ada.email == "ada@example.org"


def test_a_constructor_whose_property_refuses_leaves_no_item_behind(store: Store) -> None:
    with store.transaction(), pytest.raises(ValueError, match="no @"):
        Contact(store, name="Ada", domain="a@b")
    assert not list(store.items())


def test_a_constructor_that_assigns_before_the_item_is_there_says_what_to_do(store: Store) -> None:
    class Eager(Item):
        def __init__(self, store: Store) -> None:
            self.name = "too early"
            super().__init__(store)

    with pytest.raises(AttributeError, match=r"call super\(\).__init__\(store, ...\) first"):
        Eager(store)


# -- classes


def test_a_subclass_has_the_attributes_of_its_bases(store: Store) -> None:
    class Friend(Contact):
        since: int = 2000

    assert Friend(store, name="Ada", since=1990).domain == ""
    with pytest.raises(TypeError, match="name"):
        Friend(store)


def test_a_subclass_may_change_a_default_as_a_plain_class_would(store: Store) -> None:
    class Colleague(Contact):
        email = "info@example.org"

    mate = Colleague(store, name="Ada")
    assert mate.email == "info@example.org"
    mate.email = "ada@example.org"
    assert (mate.email, Contact(store, name="Bob").email) == ("ada@example.org", "")


def test_class_variables_and_underscore_names_are_not_stored(open_store) -> None:
    ada = Contact(open_store(), name="Ada")
    ada._cache = "of this process"
    assert (ada._cache, ada.shown) == ("of this process", "not an attribute of items")
    assert "_cache" not in ada.attributes
    again = open_store().get(ada.item_id)
    assert not hasattr(again, "_cache")


def test_records_know_their_class_by_module_and_name_unless_another_is_given(store: Store) -> None:
    class Short(Item, type_name="pim.Short"):
        pass

    assert Contact(store, name="Ada").type_name == f"{__name__}.Contact"
    assert Short(store).type_name == "pim.Short"


@pytest.mark.parametrize("name", ["item_id", "delete", "history", "store", "pools", "version"])
def test_a_class_cannot_take_a_name_of_items_own(name: str) -> None:
    with pytest.raises(TypeError, match=f"{name}.*Item's own"):
        type(Item)("Clash", (Item,), {"__annotations__": {name: "str"}, "__module__": __name__})


def test_a_reference_rule_without_an_annotation_is_refused() -> None:
    with pytest.raises(TypeError, match="needs an annotation"):

        class Mistaken(Item):
            employer = ref(on_delete="cascade")


@pytest.mark.parametrize("name", ["item_id", "delete", "store", "attributes"])
def test_items_own_names_cannot_be_assigned(store: Store, name: str) -> None:
    item = Item(store)
    with pytest.raises(AttributeError, match=name):
        setattr(item, name, 1)
    with pytest.raises(AttributeError, match=name):
        Item(store, **{name: 1})


def test_a_method_of_the_class_cannot_be_hidden_by_an_attribute(store: Store) -> None:
    ada = Contact(store, name="Ada")
    with pytest.raises(AttributeError, match="greeting"):
        ada.greeting = "Hello"
    assert ada.greeting() == "Dear Ada"


# -- identity


def test_the_same_id_is_the_same_object_while_anyone_holds_it(store: Store) -> None:
    ada = Contact(store, name="Ada")
    assert store.get(ada.item_id) is ada


def test_an_item_that_nobody_holds_is_not_kept_in_memory(store: Store) -> None:
    item_id = Contact(store, name="Ada").item_id
    gc.collect()
    assert not [o for o in gc.get_objects() if isinstance(o, Contact) and o._id == item_id]
    assert store.get(item_id).name == "Ada"


def test_items_are_equal_by_store_and_id(store: Store, tmp_path) -> None:
    with Store(tmp_path / "other") as other:
        assert Item(store) != Item(other)
        assert Item(store).item_id == Item(other).item_id == 2


def test_items_serve_in_sets_and_as_keys_also_after_they_are_deleted(store: Store) -> None:
    ada, bob = Contact(store, name="Ada"), Contact(store, name="Bob")
    known = {ada, bob}
    ada.delete()
    assert ada in known
    assert ada != bob
    assert ada == ada  # noqa: PLR0124 - that is the point


def test_an_undone_deletion_brings_back_the_very_object(store: Store) -> None:
    ada = Contact(store, name="Ada")
    ada.delete()
    store.undo(next(store.history()))
    assert store.get(ada.item_id) is ada
    assert ada.name == "Ada"


def test_every_thread_sees_the_same_object(store: Store) -> None:
    ada = Contact(store, name="Ada")
    found = []
    thread = threading.Thread(target=lambda: found.append(store.get(ada.item_id)))
    thread.start()
    thread.join()
    assert found[0] is ada


def test_get_checks_the_class_that_is_asked_for(store: Store) -> None:
    ada = Contact(store, name="Ada")
    assert store.get(ada.item_id, Contact) is ada
    with pytest.raises(TypeError, match=r"is a .*Contact, not a Company"):
        store.get(ada.item_id, Company)


@pytest.mark.parametrize("item_id", [99, 0, -1, 1 << 63, 1 << 70, "1", None, 1.5])
def test_an_id_that_nothing_has_is_no_such_item(store: Store, item_id: object) -> None:
    with pytest.raises(NoSuchItem, match="no item") as caught:
        store.get(item_id)  # type: ignore[call-overload]
    assert caught.value.item_id == item_id
    assert isinstance(caught.value, LookupError)


# -- changing and deleting


def test_an_assignment_outside_of_a_transaction_is_a_commit_of_its_own(store: Store) -> None:
    ada = Contact(store, name="Ada")
    before = store.head.number
    ada.email = "ada@example.org"
    assert store.head.number == before + 1


def test_assigning_what_is_there_already_commits_nothing(store: Store) -> None:
    ada = Contact(store, name="Ada")
    before = store.head.number
    ada.name = "Ada"
    assert store.head.number == before


def test_touch_writes_an_item_that_has_not_changed(store: Store) -> None:
    ada = Contact(store, name="Ada")
    before = ada.version
    ada.touch()
    assert ada.version > before


def test_a_deleted_attribute_goes_back_to_its_default(store: Store) -> None:
    ada = Contact(store, name="Ada", email="ada@example.org", house="Ockham Park")
    del ada.email, ada.house
    assert ada.email == ""
    assert not hasattr(ada, "house")
    with pytest.raises(AttributeError, match="house"):
        del ada.house


def test_an_index_has_a_deleted_attribute_where_its_default_is(store: Store) -> None:
    people = store.pool("people", indexes=["email"])
    ada, bob = Contact(store, name="Ada"), Contact(store, name="Bob", email="bob@example.org")
    people.add(ada)
    people.add(bob)
    del bob.email
    assert list(people.query("email")) == [ada, bob]
    assert list(people.query("email", key="")) == [ada, bob]
    people.drop_index("email")
    people.add_index("email")
    assert list(people.query("email")) == [ada, bob]


def test_an_attribute_has_a_name(store: Store) -> None:
    ada = Contact(store, name="Ada")
    with pytest.raises(AttributeError, match="needs a name"):
        setattr(ada, "", 1)
    with pytest.raises(AttributeError, match="needs a name"):
        Contact(store, **{"name": "Bob", "": 1})
    assert list(store.items()) == [ada]


def test_a_time_zone_that_only_a_file_knows_is_refused(store: Store) -> None:
    path = next(Path(p) / "Europe/Berlin" for p in zoneinfo.TZPATH if (Path(p) / "Europe/Berlin").exists())
    with path.open("rb") as file:
        zone = zoneinfo.ZoneInfo.from_file(file, key="My/Zone")
    with pytest.raises(UnstorableValue, match="My/Zone"):
        Contact(store, name="Ada", born=datetime.datetime(1815, 12, 10, tzinfo=zone))


def test_a_value_that_cannot_be_stored_is_refused_by_name(store: Store) -> None:
    ada = Contact(store, name="Ada")
    with pytest.raises(UnstorableValue, match=r"Contact 1\.email: a object cannot be stored"):
        ada.email = object()  # type: ignore[assignment]
    with pytest.raises(UnstorableValue, match=r"Contact\.tags"):
        Contact(store, name="Bob", tags=[object()])  # type: ignore[list-item]
    assert ada.email == ""


def test_a_deleted_item_says_so_whatever_is_asked_of_it(store: Store) -> None:
    ada = Contact(store, name="Ada")
    ada.delete()
    for ask in (
        lambda: ada.name,
        lambda: ada.version,
        lambda: ada.attributes,
        lambda: store.get(ada.item_id),
        ada.delete,
        lambda: setattr(ada, "name", "Eve"),
        lambda: list(ada.referrers()),
        lambda: list(ada.history()),
        lambda: hasattr(ada, "name"),
    ):
        with pytest.raises(NoSuchItem, match="1"):
            ask()
    assert repr(ada) == "<Contact 1, deleted>"
    assert ada.item_id == 1


def test_an_id_is_never_used_again(store: Store, undone, open_store) -> None:
    Item(store).delete()
    with undone():
        Item(store)
    assert Item(open_store()).item_id == 3


def test_touching_a_missing_attribute_is_an_attribute_error(store: Store) -> None:
    ada = Contact(store, name="Ada")
    assert not hasattr(ada, "shoe_size")
    assert getattr(ada, "shoe_size", 38) == 38
    with pytest.raises(AttributeError, match="<Contact 1 'Ada'> has no attribute 'shoe_size'"):
        ada.shoe_size  # noqa: B018


# -- what else programs do with objects


def test_a_copy_of_an_item_is_the_item(store: Store) -> None:
    ada = Contact(store, name="Ada")
    assert copy.copy(ada) is ada
    assert copy.deepcopy({"who": ada})["who"] is ada


def test_an_item_is_not_pickled_but_names_what_to_keep_instead(store: Store) -> None:
    with pytest.raises(TypeError, match="keep item_id"):
        pickle.dumps(Contact(store, name="Ada"))


def test_lists_dicts_and_sets_of_an_item_can_be_pickled_copied_and_dumped(store: Store) -> None:
    item = Item(store, data={"numbers": [1, 2], "names": {"a"}})
    for same in (pickle.loads(pickle.dumps(item.data)), copy.deepcopy(item.data), copy.copy(item.data)):
        assert same == item.data
        assert type(same) is dict
    assert type(copy.deepcopy(item.data)["names"]) is set
    assert json.dumps(item.data["numbers"]) == "[1, 2]"


def test_an_item_is_true_and_shows_itself_by_name(store: Store) -> None:
    ada = Contact(store, name="Ada")
    assert ada
    assert repr(ada) == "<Contact 1 'Ada'>"
    assert repr(Item(store, title="Milk")) == "<Item 2 'Milk'>"
    assert repr(Item(store)) == "<Item 3>"
    assert repr(Item(store, name=1 << 40_000)) == f"<Item 4 {1 << 40_000:#x}>"
    assert repr(Item(store, name=[1 << 40_000])) == "<Item 5 list with a very large number>"


def test_dir_lists_what_an_item_holds(store: Store) -> None:
    assert {"colour", "item_id", "delete"} <= set(dir(Item(store, colour="red")))


def test_attributes_are_a_copy_that_cannot_be_changed(store: Store) -> None:
    ada = Contact(store, name="Ada")
    attributes = ada.attributes
    with pytest.raises(TypeError):
        attributes["name"] = "Eve"  # type: ignore[index]
    ada.name = "Augusta"
    assert attributes["name"] == "Ada"


def test_an_item_cannot_refer_to_one_of_another_store(store: Store, tmp_path) -> None:
    with Store(tmp_path / "other") as other:
        with pytest.raises(UnstorableValue, match="another store"):
            Contact(store, name="Ada", employer=Company(other, name="Babbage & Co"))
        with pytest.raises(ValueError, match="another store"):
            store.pool("people").add(Item(other))


def test_all_items_come_by_id(store: Store) -> None:
    made = [Item(store) for _ in range(5)]
    made[2].delete()
    assert list(store.items()) == [*made[:2], *made[3:]]


def test_a_root_gives_an_item_a_name(store: Store) -> None:
    me = Contact(store, name="Ada")
    store.set_root("me", me)
    assert store.root("me") is me
    store.set_root("me", None)
    with pytest.raises(NoSuchItem, match="me"):
        store.root("me")


def test_numbers_keep_their_type(open_store) -> None:
    item_id = Item(open_store(), values=[1, 1.0, True, Decimal(1)]).item_id
    item = open_store().get(item_id)
    assert [type(v) for v in item.values] == [int, float, bool, Decimal]


def test_errors_of_a_deletion_name_the_item_and_who_forbids_it(store: Store) -> None:
    class Employee(Item):
        company: Company | None = ref(on_delete="restrict")

    company = Company(store, name="Babbage & Co")
    employee = Employee(store, company=company)
    with pytest.raises(Restricted) as caught:
        company.delete()
    assert (caught.value.item_id, caught.value.referrer_ids) == (company.item_id, (employee.item_id,))


def test_items_are_made_only_through_their_class(store: Store) -> None:
    bare = Item.__new__(Item)
    with pytest.raises(TypeError, match="makes an item"):
        bare.__init__(store)  # type: ignore[misc]


def test_every_public_error_is_an_atop_error() -> None:
    errors = [getattr(atop, name) for name in atop.__all__ if name[0].isupper()]
    errors = [e for e in errors if isinstance(e, type) and issubclass(e, BaseException)]
    assert len(errors) > 10
    assert all(issubclass(e, atop.AtopError) for e in errors)


class Slotted(Item):
    __slots__ = ("scratch",)
    name: str


def test_a_class_may_have_slots_of_its_own(open_store) -> None:
    with open_store() as store:
        item_id = Slotted(store, name="Ada").item_id
    with open_store() as store:
        found = store.get(item_id, Slotted)
        assert type(found) is Slotted
        assert found.name == "Ada"
        found.name = "Bob"
        assert store.get(item_id).name == "Bob"
