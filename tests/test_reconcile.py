"""After a partition: what each side committed is there, once, on all devices."""

from __future__ import annotations

import datetime
import errno
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from grouping import Group, Machine, Note
from waiting import PATIENCE, until

from atop import NoMaster, StoreFull, calls, replacing
from replication import reconcile
from replication.messages import Role
from replication.reconcile import Reconciler


@pytest.fixture
def group() -> Iterator[Group]:
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="atop-test-", dir=memory) as name:
        group = Group(Path(name))
        yield group
        group.close()


def settled(group: Group) -> bool:
    """Whether all devices have one history, and nothing waits to be replayed."""
    group.ping()
    machines = list(group.machines.values())
    return (
        len({machine.store.head for machine in machines}) == 1
        and sorted(machine.manager.role.value for machine in machines)[1:] == ["replica"] * (len(machines) - 1)
        and not any(machine.manager.reconciler.pending for machine in machines)
    )


def heal(group: Group) -> None:
    """Link all devices, wait until they have settled, and check that they are equal and sound."""
    names = list(group.machines)
    for one in names:
        for two in names:
            if one < two:
                group.link(one, two)
    until(lambda: settled(group))
    machines = list(group.machines.values())
    tables = [machine.tables() for machine in machines]
    assert all(other == tables[0] for other in tables)
    for machine in machines:
        assert machine.store.verify().problems == []


@pytest.fixture
def a(group: Group) -> Machine:
    machine = group.start("a")
    machine.write("first")
    machine.manager.set_members(2)
    return machine


@pytest.fixture
def b(group: Group, a: Machine) -> Machine:
    machine = group.start("b", size=2)
    until(lambda: machine.manager.role is Role.REPLICA)
    return machine


def test_what_both_sides_wrote_is_there(group: Group, a: Machine, b: Machine) -> None:
    group.cut("a", "b")
    a.write("a1")
    b.write("b1", "b2", "b3")
    heal(group)
    assert a.texts() == b.texts() == ["a1", "b1", "b2", "b3", "first"]
    assert a.manager.status().reconcile.replayed == 1
    assert len(a.store.conflicts) == 0


def test_one_attribute_changed_on_both_sides_the_later_is_kept_and_the_other_put_aside(
    group: Group, a: Machine, b: Machine
) -> None:
    note = Note(a.store, text="old", number=1)
    until(lambda: b.store.head == a.store.head)
    group.cut("a", "b")
    note.text = "from a"
    b.store.get(note.item_id).text = "from b"
    b.store.get(note.item_id).number = 2
    heal(group)
    assert (note.text, note.number) == ("from b", 2)
    (conflict,) = a.store.conflicts
    assert (conflict.about, conflict.attribute, conflict.kept, conflict.other) == (
        note.item_id, "text", "from b", "from a",
    )  # fmt: skip
    b.store.conflicts.settle(conflict.item_id, "theirs")
    until(lambda: note.text == "from a" and not len(a.store.conflicts))


# -- what goes wrong on the way


def part(group: Group, a: Machine, b: Machine) -> None:
    """Two masters, of which `a` has less, and gives way."""
    until(lambda: b.store.head == a.store.head)
    group.cut("a", "b")
    a.write("a1", "a2")
    b.write("b1", "b2", "b3")


def salvage_files(store: Path) -> list[Path]:
    return sorted((store / "local" / "salvage").glob("*"))


def test_where_the_disk_is_full_nothing_is_given_up_until_there_is_room(
    group: Group, a: Machine, b: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    part(group, a, b)
    a.manager.reconciler.retry_seconds = 0.05
    full = threading.Event()
    full.set()
    real = reconcile.write

    def write(*arguments: Any) -> int:
        if full.is_set():
            raise StoreFull("the disk of this device is full: make room and try again")
        return real(*arguments)

    monkeypatch.setattr(reconcile, "write", write)
    group.link("a", "b")
    until(lambda: "full" in (a.manager.status().problem or ""))
    assert (a.manager.role, a.manager.status().parted) == (Role.WAITING, True)
    assert a.texts() == ["a1", "a2", "first"]
    with pytest.raises(NoMaster, match="full"):
        a.write("a3")
    b.write("b4")
    full.clear()
    heal(group)
    assert a.texts() == ["a1", "a2", "b1", "b2", "b3", "b4", "first"]
    assert a.manager.status().problem is None
    assert salvage_files(a.path) == []


@pytest.mark.parametrize("step", ["comparing", "salvaging", "secured", "replaying", "removing"])
def test_a_device_that_ends_at_any_step_goes_on_when_it_is_back(
    group: Group, a: Machine, b: Machine, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    part(group, a, b)
    reached = threading.Event()
    at = {
        "comparing": "_ask",
        "salvaging": "_write",
        "secured": "_tell_secured",
        "replaying": "_make",
        "removing": "_remove",
    }[step]
    real = getattr(Reconciler, at)
    calls = iter(range(1 << 30))

    def stop_here(self: Reconciler, *arguments: Any) -> Any:
        if self is not a_manager.reconciler or (step == "replaying" and next(calls) == 0):
            return real(self, *arguments)
        reached.set()
        raise StoreFull("this is as far as the test goes")

    a_manager = a.manager
    monkeypatch.setattr(Reconciler, at, stop_here)
    group.link("a", "b")
    until(reached.is_set)
    a.close()
    monkeypatch.setattr(Reconciler, at, real)
    a = group.start("a")
    heal(group)
    assert a.texts() == b.texts() == ["a1", "a2", "b1", "b2", "b3", "first"]
    assert salvage_files(a.path) == []


def test_what_was_salvaged_and_found_again_is_salvaged_once_more_before_it_is_given_up(
    group: Group, a: Machine, b: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    part(group, a, b)
    begun = threading.Event()
    monkeypatch.setattr(a.manager, "_sync", begun.set)  # the rollback begins, and does not come far
    group.link("a", "b")
    assert begun.wait(PATIENCE)
    group.cut("a", "b")
    a.manager.take_over()  # nothing is written: the history ends where it did
    until(lambda: not a.manager.reconciler.pending)
    assert salvage_files(a.path) == []
    monkeypatch.undo()
    heal(group)
    assert a.texts() == b.texts() == ["a1", "a2", "b1", "b2", "b3", "first"]


def test_a_damaged_salvage_file_is_told_kept_and_not_used(
    group: Group, a: Machine, b: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    part(group, a, b)

    def later(self: Reconciler, *arguments: Any) -> None:
        raise StoreFull("this is as far as the test goes")

    monkeypatch.setattr(Reconciler, "_make", later)
    group.link("a", "b")
    until(lambda: a.store.head == b.store.head and a.manager.role is Role.REPLICA and bool(salvage_files(a.path)))
    a.close()
    monkeypatch.undo()
    (path,) = salvage_files(group.directory / "a")
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    a = group.start("a")
    a.manager.reconciler.retry_seconds = 0.05
    until(lambda: str(path) in (a.manager.status().problem or ""))
    b.write("b4")
    until(lambda: a.store.head == b.store.head)
    assert a.texts() == ["b1", "b2", "b3", "b4", "first"]
    assert path.read_bytes() == whole[:-100]
    path.write_bytes(whole)  # somebody had a copy
    heal(group)
    assert a.texts() == b.texts() == ["a1", "a2", "b1", "b2", "b3", "b4", "first"]
    assert a.manager.status().problem is None


# -- away for long


@pytest.mark.parametrize("which", ["the one that keeps", "the one that gives way", "both"])
def test_where_the_journal_was_trimmed_nothing_is_lost(group: Group, a: Machine, b: Machine, which: str) -> None:
    note = Note(a.store, text="old", number=1)
    other = Note(a.store, text="other", number=1)
    part(group, a, b)
    note.number = 2
    other.text = "other by a"
    for text in ("b5", "b6", "b7"):
        b.write(text)
    b.store.get(note.item_id).number = 3
    for machine in (a, b):
        if which == "both" or (machine is a) == (which == "the one that gives way"):
            machine.store.compact(keep=datetime.timedelta(0))
            assert machine.store._engine.oldest_commit() == machine.store.head.number
    heal(group)
    assert {"a1", "a2", "b1", "b7", "first"} <= set(a.texts())
    values = {note.number, *(v for c in a.store.conflicts for v in (c.kept, c.other) if c.about == note.item_id)}
    assert {2, 3} <= values | {v.get("number") for v in values if isinstance(v, dict)}
    texts = {other.text, *(v for c in a.store.conflicts for v in (c.kept, c.other) if c.about == other.item_id)}
    assert "other by a" in texts


def test_a_device_that_was_away_past_the_log_gets_a_copy_and_loses_nothing(
    group: Group, a: Machine, b: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    part(group, a, b)
    b.manager.log_needed = lambda: 1 << 30  # type: ignore[method-assign]  # as if it had written for months
    for _ in range(40):
        b.write("long" * 200_000)
    b.store._engine.checkpoint()
    heal(group)
    assert a.manager._shipping.copies == 1
    assert {"a1", "a2", "b1", "b2", "b3", "first"} <= set(a.texts())
    assert len(a.texts()) == 46


def test_what_was_replayed_by_another_device_is_not_replayed_again(group: Group, a: Machine, b: Machine) -> None:
    for machine in (a, b):
        machine.manager.set_members(3)
    c = group.start("c", size=3)
    until(lambda: a.store.head == b.store.head == c.store.head)
    for one, two in ("ab", "bc"):
        group.cut(one, two)
    a.write("a1")  # and c has it too
    until(lambda: c.store.head == a.store.head)
    b.write("b1", "b2", "b3")
    heal(group)
    assert a.texts() == b.texts() == c.texts() == ["a1", "b1", "b2", "b3", "first"]
    assert len([commit for commit in a.store.history() if commit.device == 0 and commit.label == "create Note"]) == 2


def test_what_was_seen_before_another_device_brought_it_is_no_change_of_the_others(
    group: Group, a: Machine, b: Machine
) -> None:
    for machine in (a, b):
        machine.manager.set_members(3)
    c = group.start("c", size=3)
    until(lambda: a.store.head == b.store.head == c.store.head)
    for one, two in ("ab", "bc"):
        group.cut(one, two)
    note = Note(a.store, text="made with c")
    until(lambda: c.store.head == a.store.head)
    group.cut("a", "c")
    note.delete()
    b.write("b1", "b2", "b3", "b4", "b5")
    group.link("b", "c")  # c brings b what a has made
    until(lambda: c.store.head == b.store.head and "made with c" in b.texts())
    heal(group)
    assert a.texts() == ["b1", "b2", "b3", "b4", "b5", "first"]
    assert len(a.store.conflicts) == 0


@pytest.mark.parametrize("order", ["ab ac bc", "bc ab ac", "ac bc ab"])
def test_a_group_of_three_that_splits_into_three_heals_in_any_order(
    group: Group, a: Machine, b: Machine, order: str
) -> None:
    for machine in (a, b):
        machine.manager.set_members(3)
    c = group.start("c", size=3)
    note = Note(a.store, text="old")
    machines = (a, b, c)
    until(lambda: a.store.head == b.store.head == c.store.head)
    for one, two in ("ab", "bc", "ac"):
        group.cut(one, two)
    for number, machine in enumerate(machines, 1):
        machine.store.get(note.item_id).text = f"by {machine.name}"
        machine.write(*(f"{machine.name}{n}" for n in range(number)))
    for pair in order.split():
        group.link(*pair)
        machines[0].write(f"between {pair}")
    heal(group)
    made = ["a0", "b0", "b1", "c0", "c1", "c2", "first", *(f"between {pair}" for pair in order.split())]
    for machine in machines:
        assert machine.texts() == sorted([*made, machine.store.get(note.item_id).text])
    values = {note.text, *(v for c in a.store.conflicts for v in (c.kept, c.other))}
    assert values == {"by a", "by b", "by c"}


def test_clocks_that_are_years_apart(group: Group, a: Machine, b: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    note = Note(a.store, text="old")
    until(lambda: b.store.head == a.store.head)
    group.cut("a", "b")
    year_2099 = 4_070_908_800_000_000
    monkeypatch.setattr(b.store, "_now", lambda: year_2099)
    b.store.get(note.item_id).text = "from the future"
    monkeypatch.undo()
    note.text = "from today"
    a.write("a1", "a2")
    heal(group)
    assert note.text == "from the future"
    (conflict,) = a.store.conflicts
    assert conflict.other == "from today"
    for machine in (a, b):  # and nobody's clock is wrong for it from then on
        machine.write("after")
        commit = next(machine.store.history())
        assert commit.time.year < 2099


# -- a copy instead of a rollback


def test_a_copy_is_taken_where_a_rollback_would_take_longer(
    group: Group, a: Machine, b: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    part(group, a, b)
    monkeypatch.setattr(Reconciler, "_copy_is_cheaper", lambda self, engine: True)
    held = next(item for item in a.store.items() if isinstance(item, Note) and item.text == "a1")
    heal(group)
    assert a.manager._shipping.copies == 1
    assert a.texts() == b.texts() == ["a1", "a2", "b1", "b2", "b3", "first"]
    assert held.text == "a1"
    assert sorted(path.name for path in a.path.iterdir()) == ["data", "files", "local"]


def test_a_copy_whose_place_cannot_be_made_is_given_up(
    group: Group, a: Machine, b: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    part(group, a, b)

    failures = [OSError(errno.EIO, "Input/output error")]

    def forget(data: Path) -> None:
        if failures:
            raise failures.pop()
        replacing.forget(data)

    monkeypatch.setattr(calls, "forget", forget)
    monkeypatch.setattr(Reconciler, "_copy_is_cheaper", lambda self, engine: True)
    heal(group)
    assert a.texts() == b.texts() == ["a1", "a2", "b1", "b2", "b3", "first"]
    a.write("after")
    a.close()
    a = group.start("a")
    assert "after" in a.texts()


def test_where_no_copy_comes_the_data_is_as_it_was(
    group: Group, a: Machine, b: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    part(group, a, b)
    a.manager.copy_seconds = 0.5
    monkeypatch.setattr(Reconciler, "_copy_is_cheaper", lambda self, engine: True)
    moved = threading.Event()
    real = replacing.move_aside

    def move_aside(data: Path) -> None:
        real(data)
        group.wires["b", "a"].loses_logs = True  # nothing comes from now on
        moved.set()

    monkeypatch.setattr("atop.calls.move_aside", move_aside)
    group.link("a", "b")
    until(moved.is_set)
    until(lambda: not (a.path / "replaced").exists())
    assert a.texts() == ["a1", "a2", "first"]
    monkeypatch.undo()
    group.cut("a", "b")
    heal(group)
    assert a.texts() == b.texts() == ["a1", "a2", "b1", "b2", "b3", "first"]


def test_a_device_that_ends_while_it_is_copied_to_has_its_old_data(group: Group, a: Machine, b: Machine) -> None:
    part(group, a, b)
    a.close()
    replacing.move_aside(a.path / "data")
    (a.path / "data" / "items.db").write_bytes(b"half of it")
    a = group.start("a", linked=False)
    assert a.texts() == ["a1", "a2", "first"]
    heal(group)
    assert a.texts() == b.texts() == ["a1", "a2", "b1", "b2", "b3", "first"]


@pytest.mark.parametrize(
    ("undone", "round_trip", "megabytes", "cheaper"),
    [(10, 0.01, 1, False), (10_000, 0.01, 100, True), (10_000, 0.0001, 1, False), (10_000, 0.01, 10_000, False)],
)
def test_which_is_cheaper(
    monkeypatch: pytest.MonkeyPatch, undone: int, round_trip: float, megabytes: int, cheaper: bool
) -> None:
    reconciler = Reconciler(lambda device, message: True, lambda event: None)
    reconciler._undone, reconciler._round_trip = undone, round_trip
    monkeypatch.setattr(reconcile, "size_of_tables", lambda path: megabytes << 20)
    monkeypatch.setattr(reconcile, "free_space", lambda path: 1 << 50)
    engine: Any = type("Engine", (), {"path": Path()})
    assert reconciler._copy_is_cheaper(engine) is cheaper


def test_a_commit_that_cannot_be_merged_is_put_aside_and_the_others_go_on(
    group: Group, a: Machine, b: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = Note(a.store, text="old")
    until(lambda: b.store.head == a.store.head)
    group.cut("a", "b")
    note.text = "from a"
    a.write("a1")
    b.write("b1", "b2", "b3")

    def fail(*arguments: Any, **named: Any) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("replication.replaying.merge_attributes", fail)
    heal(group)
    assert a.texts() == ["a1", "b1", "b2", "b3", "first", "old"]
    (conflict,) = a.store.conflicts
    assert (conflict.kind, conflict.other["text"]) == ("item", "from a")
    b.store.conflicts.settle(conflict.item_id, "other")
    until(lambda: note.text == "from a")
