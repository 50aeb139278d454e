"""What an attribute may hold, and that it comes back as it went in."""

from __future__ import annotations

import datetime
import enum
import io
import uuid
from collections import namedtuple
from dataclasses import InitVar, dataclass
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atop import (
    File,
    Index,
    Item,
    NoSuchFile,
    Store,
    StoreClosed,
    UnknownValue,
    UnstorableValue,
    register_value,
    values,
)

pytestmark = pytest.mark.every_kind

UTC = datetime.UTC
BERLIN = ZoneInfo("Europe/Berlin")


class Status(enum.Enum):
    OPEN = "open"
    DONE = "done"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Days(enum.Flag):
    MONDAY = enum.auto()
    TUESDAY = enum.auto()


@dataclass(frozen=True)
class Address:
    street: str
    city: str = ""
    lines: tuple[str, ...] = ()
    kind: Status = Status.OPEN


@pytest.fixture(autouse=True)
def registered():
    """The classes above are registered during each test, and forgotten after it."""
    for cls in (Status, Level, Days, Address):
        register_value(cls, f"test.{cls.__name__}")
    yield
    for name in ("Status", "Level", "Days", "Address", "Renamed"):
        forget(f"test.{name}")


def forget(name: str) -> None:
    """Be a program that has not registered the class."""
    cls = values._classes.pop(name, None)
    values._names.pop(cls, None)  # type: ignore[arg-type]  # None is no key


# -- values of every kind


SAMPLES: list[Any] = [
    None,
    True,
    0,
    -(10**40),
    1.5,
    float("inf"),
    "",
    "Zoë 🐘 \0",
    "\ud800",
    b"\0\xff",
    Decimal("1.10"),
    Decimal("NaN"),
    uuid.UUID(int=5),
    datetime.date(1815, 12, 10),
    datetime.time(12, 30, 1, 5),
    datetime.timedelta(days=-1, microseconds=1),
    datetime.datetime(2024, 2, 29, 12),
    datetime.datetime(2024, 2, 29, 12, tzinfo=UTC),
    datetime.datetime(2024, 2, 29, 12, tzinfo=datetime.timezone(datetime.timedelta(hours=5, minutes=30))),
    datetime.datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN, fold=1),
    datetime.time(12, tzinfo=BERLIN),
    Status.OPEN,
    Level.HIGH,
    Days.MONDAY | Days.TUESDAY,
    Address("Main St", lines=("a", "b"), kind=Status.DONE),
    [1, [2, {"a": {3}}]],
    (1, (2,)),
    {"a": 1, (1, 2): [3], None: 4, Status.OPEN: 5},
    {1, 2.5, (2, 3)},  # no text: its hash, and with that the order of a set, differs from run to run
    frozenset({"a"}),
]


@pytest.mark.parametrize("value", SAMPLES, ids=[f"{type(v).__name__}{n}" for n, v in enumerate(SAMPLES)])
def test_a_value_comes_back_as_it_went_in(open_store, value: Any) -> None:
    item_id = Item(open_store(), value=value).item_id
    again = open_store().get(item_id).value
    assert repr(again) == repr(value)
    if not isinstance(value, (list, dict, set)):
        assert type(again) is type(value)


def test_all_kinds_of_values_fit_into_one_item_and_its_history(store: Store) -> None:
    item = Item(store, values=SAMPLES)
    item.values = []
    store.undo(next(store.history()))
    assert repr(item.values) == repr(SAMPLES)
    assert store.verify().problems == []


def test_a_zone_is_kept_by_name_and_its_rules_come_from_this_device(open_store) -> None:
    before = datetime.datetime(2024, 3, 30, 12, tzinfo=BERLIN)
    item_id = Item(open_store(), when=before).item_id
    when = open_store().get(item_id).when
    assert when.tzinfo is BERLIN
    assert (when + datetime.timedelta(days=1)).utcoffset() == datetime.timedelta(hours=2)


@pytest.mark.parametrize(
    "value",
    [
        object(),
        1j,
        Fraction(1, 2),
        range(3),
        bytearray(b"x"),
        Path("/"),
        iter([]),
        int,
        len,
        datetime.datetime(2024, 1, 1, tzinfo=type("Zone", (datetime.tzinfo,), {})()),
    ],
    ids=lambda value: type(value).__name__,
)
def test_other_types_are_refused_by_name_and_before_anything_is_written(store: Store, value: Any) -> None:
    for hidden in (value, [value], {"a": value}, (1, (value,))):
        with pytest.raises(UnstorableValue, match=r"Item\.value"):
            Item(store, value=hidden)
    assert not list(store.items())


def test_subclasses_of_plain_types_become_plain(open_store) -> None:
    class Text(str):
        __slots__ = ()

    class Number(int):
        pass

    point = namedtuple("point", "x y")
    item_id = Item(open_store(), value=[Text("a"), Number(5), point(1, 2)]).item_id
    again = open_store().get(item_id).value
    assert again == ["a", 5, (1, 2)]
    assert [type(v) for v in again] == [str, int, tuple]


def test_names_of_every_kind_are_stored_as_plain_text(open_store) -> None:
    """A record that named a program's own subclass of str could never be read again."""

    class Word(enum.StrEnum):
        NAME = "name"
        OTHER = "other"
        LABEL = "label"
        POOL = "pool"
        TYPE = "test.typed"

    class Typed(Item, type_name=Word.TYPE):
        name: str

    register_value(Word, Word.POOL)
    store = open_store()
    with store.transaction(Word.LABEL):
        pool = store.pool(Word.POOL, indexes=[Word.NAME, (Word.OTHER, Word.NAME)])
        item = Typed(store, **{Word.NAME: "a", Word.OTHER: "b", "value": Word.NAME})
        pool.add(item)
    del item.other
    setattr(item, Word.OTHER, "c")
    pool.add_index(Index(Word.LABEL, Word.LABEL))
    pool.add_index(Word.LABEL.upper(), (Word.LABEL,))
    store.set_root(Word.LABEL, item)
    store = open_store()
    item = store.root("label")
    assert dict(item.attributes) == {"name": "a", "other": "c", "value": Word.NAME}
    assert store.pool("pool").indexes.keys() == {"name", "other,name", "label", "LABEL"}
    assert {type(label) for label in [c.label for c in store.history()]} == {str}
    assert store.verify().problems == []
    forget(Word.POOL)


plain = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(),
    st.binary(),
    st.decimals(allow_nan=False),
    st.uuids(),
    st.dates(),
    st.datetimes(timezones=st.none() | st.just(UTC) | st.just(BERLIN)),
    st.timedeltas(),
    st.sampled_from(Status),
    st.builds(Address, st.text(), lines=st.lists(st.text()).map(tuple)),
)
hashable = st.recursive(plain, lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=4)
anything = st.recursive(
    plain,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(hashable, inner, max_size=3),
        st.sets(hashable, max_size=3),
    ),
    max_leaves=10,
)


@pytest.mark.slow
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=anything)
def test_whatever_can_be_stored_comes_back_equal(store: Store, value: Any) -> None:
    item_id = Item(store, value=value).item_id  # nobody holds the item: it is read from the database
    assert store.get(item_id).value == value


# -- registered values


def test_a_registered_value_can_be_a_default_and_an_element(store: Store) -> None:
    class Task(Item):
        status: Status = Status.OPEN
        where: Address | None = None

    task = Task(store, where=Address("Main St", "Berlin"))
    assert (task.status, task.where) == (Status.OPEN, Address("Main St", "Berlin"))
    task.past = [Status.DONE]
    assert task.past == [Status.DONE]


def test_a_class_that_is_not_registered_is_refused_with_what_to_do(store: Store) -> None:
    class Colour(enum.Enum):
        RED = 1

    @dataclass(frozen=True)
    class Point:
        x: int

    with pytest.raises(UnstorableValue, match=r"Colour is not registered: decorate it with @atop\.register_value"):
        Item(store, value=Colour.RED)
    with pytest.raises(UnstorableValue, match=r"Point cannot be stored: register it with @atop\.register_value"):
        Item(store, value=Point(1))


def test_only_enums_and_frozen_dataclasses_can_be_registered() -> None:
    @dataclass
    class Mutable:
        x: int

    with pytest.raises(TypeError, match="frozen=True"):
        register_value(Mutable)
    with pytest.raises(TypeError, match="neither an Enum nor a frozen dataclass"):
        register_value(object)

    @dataclass(frozen=True)
    class Scaled:
        size: int
        scale: InitVar[int]

    with pytest.raises(TypeError, match="scale, an InitVar"):
        register_value(Scaled)


@pytest.mark.parametrize("inner", [[1], {"a": 1}, {1}, object()], ids=["list", "dict", "set", "object"])
def test_a_dataclass_that_holds_what_could_change_unnoticed_is_refused(store: Store, inner: Any) -> None:
    with pytest.raises(UnstorableValue, match="street of Address holds a"):
        Item(store, value=Address(street=inner))
    with pytest.raises(UnstorableValue, match="lines of Address holds a"):
        Item(store, value=[Address("", lines=(inner,))])


def test_a_dataclass_cannot_hold_an_item_or_a_file(store: Store) -> None:
    for inner in (Item(store), store.file(b"x")):
        with pytest.raises(UnstorableValue, match="street of Address holds"):
            Item(store, value=Address(street=inner))  # type: ignore[arg-type]


def test_a_value_of_a_class_that_is_not_registered_here_is_kept_and_shown(open_store) -> None:
    item_id = Item(open_store(), where=Address("Main St"), status=Status.DONE, days=Days.MONDAY, note="a").item_id
    for name in ("Address", "Status", "Days"):
        forget(f"test.{name}")
    item = open_store().get(item_id)
    assert item.status == UnknownValue("test.Status", "DONE")
    assert item.where.data["street"] == "Main St"
    assert "not imported here" in repr(item.where)
    item.note = "b"
    item.copy = item.where
    register_value(Address, "test.Address")
    register_value(Status, "test.Status")
    register_value(Days, "test.Days")
    item = open_store().get(item_id)
    assert (item.where, item.status, item.days) == (Address("Main St"), Status.DONE, Days.MONDAY)
    assert item.copy == Address("Main St")


def test_a_value_that_its_class_no_longer_takes_is_kept(open_store) -> None:
    item_id = Item(open_store(), value=Address("Main St"), status=Status.DONE).item_id
    forget("test.Address")
    forget("test.Status")

    @dataclass(frozen=True)
    class Renamed:
        road: str

    register_value(Renamed, "test.Address")
    register_value(enum.Enum("Renamed", "FINISHED"), "test.Status")  # type: ignore[arg-type]
    item = open_store().get(item_id)
    assert item.value.data["street"] == "Main St"
    assert item.status == UnknownValue("test.Status", "DONE")
    forget("test.Address")
    forget("test.Status")


def test_indexes_do_not_depend_on_registered_classes(open_store) -> None:
    """A program without the class can change, find, pool, delete and verify what is indexed by such a value."""
    store = open_store()
    pool = store.pool("tasks", indexes=["status", "days", ("level", "pair")])
    item = Item(store, status=Status.DONE, days=Days.MONDAY, level=Level.HIGH, pair=(Level.LOW, [Status.OPEN]))
    pool.add(item)
    for name in ("Status", "Level", "Days"):
        forget(f"test.{name}")
    store = open_store()
    assert store.verify().problems == []
    pool, again = store.pool("tasks"), store.get(item.item_id)
    assert list(pool.query("status", key="DONE")) == [again]
    again.note = "changed"
    pool.remove(again)
    pool.add(again)
    assert store.verify().problems == []
    again.delete()
    assert store.verify().problems == []


# -- files


def test_a_file_is_made_of_bytes_a_path_or_a_stream(store: Store, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_bytes(b"by path")
    assert store.file(b"bytes", name="a").read() == b"bytes"
    assert store.file(bytearray(b"array")).read() == b"array"
    assert store.file(io.BytesIO(b"stream")).read() == b"stream"
    file = store.file(tmp_path / "note.txt", media_type="text/plain")
    assert (file.name, file.media_type, file.size, file.read()) == ("note.txt", "text/plain", 7, b"by path")
    assert store.file(str(tmp_path / "note.txt"), name="other").name == "other"


def test_a_file_of_an_item_is_there_after_the_store_was_closed(open_store) -> None:
    store = open_store()
    item_id = Item(store, photo=store.file(b"jpeg" * 1000, name="me.jpg", media_type="image/jpeg")).item_id
    photo = open_store().get(item_id).photo
    assert isinstance(photo, File)
    assert (photo.name, photo.media_type, photo.size, photo.read()) == ("me.jpg", "image/jpeg", 4000, b"jpeg" * 1000)
    with photo.open() as stream:
        assert stream.read(4) == b"jpeg"


def test_equal_contents_are_kept_once(store: Store) -> None:
    one, two = store.file(b"same", name="a"), store.file(b"same", name="b")
    assert one.digest == two.digest
    assert one != two
    assert store.file(b"same", name="a") == one
    contents = [p for p in (store.path / "files").rglob("*") if p.is_file()]
    assert len(contents) == 1


def test_files_may_be_anywhere_in_an_attribute(store: Store) -> None:
    file = store.file(b"x")
    item = Item(store, all=[file, {"a": (file,)}], some={file})
    assert item.all[0].read() == item.all[1]["a"][0].read() == b"x"
    assert item.some == {file}


def test_a_file_name_is_for_people_and_never_a_path(store: Store) -> None:
    file = store.file(b"x", name="../../etc/passwd")
    assert Item(store, file=file).file.name == "../../etc/passwd"
    assert all(store.path in p.parents for p in store.path.rglob("*"))
    assert not list(store.path.rglob("*passwd*"))


def test_files_sort_and_are_found_by_name_in_an_index(store: Store) -> None:
    pool = store.pool("photos", indexes=["file"])
    for name in ("b.jpg", "a.jpg"):
        pool.add(Item(store, file=store.file(name.encode(), name=name)))
    assert [item.file.name for item in pool.query("file")] == ["a.jpg", "b.jpg"]
    assert next(pool.query("file", key="b.jpg")).file.read() == b"b.jpg"


def test_contents_that_nothing_names_go_with_compaction_and_others_stay(store: Store) -> None:
    kept, unused = store.file(b"kept"), store.file(b"unused")
    item = Item(store, file=kept)
    store.compact(grace=0)
    assert item.file.read() == b"kept"
    with pytest.raises(NoSuchFile, match="not on this device"):
        unused.read()


def test_an_item_cannot_name_contents_that_are_not_there(store: Store) -> None:
    unused = store.file(b"unused", name="lost.txt")
    store.compact(grace=0)
    with pytest.raises(NoSuchFile):
        Item(store, file=unused)
    assert not list(store.items())


# Across devices the rule is another one (docs/guarantees.md, contents of files): contents stay while any device names
# them. History is forgotten by the master alone, so on a replica they stay for good here; and on the master until the
# other device has followed and says so, which a later `compact` finds. Tests of that: `test_filesync.py`.
@pytest.mark.not_kinds("master", "replica", "attached_to_replica")
def test_contents_stay_while_the_history_names_them(store: Store) -> None:
    item = Item(store, file=store.file(b"old"))
    item.file = None
    store.compact(grace=0)
    store.undo(next(c for c in store.history() if c.label.startswith("set file")))
    assert item.file.read() == b"old"
    item.file = None
    store.compact(grace=0, keep=datetime.timedelta(0))
    Item(store)
    store.compact(grace=0, keep=datetime.timedelta(0))
    assert not [p for p in (store.path / "files").rglob("*") if p.is_file()]
    assert store.verify().problems == []


def test_a_path_that_cannot_be_read_is_the_systems_error_and_leaves_nothing(store: Store, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        store.file(tmp_path / "missing")
    assert not [p for p in (store.path / "files").rglob("*") if p.is_file()]


def test_a_stream_that_fails_leaves_nothing(store: Store) -> None:
    class Broken(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output"):
        store.file(Broken())  # type: ignore[arg-type]
    assert not [p for p in (store.path / "files").rglob("*") if p.is_file()]


def test_a_file_of_another_store_is_refused(store: Store, tmp_path: Path) -> None:
    with Store(tmp_path / "other") as other:
        file = other.file(b"elsewhere", name="a")
        with pytest.raises((UnstorableValue, NoSuchFile)):
            Item(store, file=file)
        assert Item(store, file=store.file(file.open(), name=file.name)).file.read() == b"elsewhere"


def test_a_closed_store_takes_no_files(store: Store) -> None:
    store.close()
    with pytest.raises(StoreClosed):
        store.file(b"x")
