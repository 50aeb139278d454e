"""After a partition: what each side committed is there, once, on all devices."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from grouping import Group, Machine, Note, until

from replication.messages import Role


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
