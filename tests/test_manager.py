"""The manager: several devices, one store. Links are in this process, so that a test decides when they break."""

from __future__ import annotations

import hashlib
import os
import random
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from berkeleydb import db
from grouping import Group, Machine, Note
from waiting import PATIENCE, until

from atop import NoMaster, StoreError
from replication import requests
from replication.manager import MAX_EVENTS
from replication.messages import Elect, Gap, Incoming, Log, MessageRefused, Ping, Refused, Role, Route
from replication.shipping import Shipping


@pytest.fixture
def group() -> Iterator[Group]:
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="atop-test-", dir=memory) as name:
        group = Group(Path(name))
        yield group
        group.close()


@pytest.fixture
def a(group: Group) -> Machine:
    """The first device: master, with one note."""
    machine = group.start("a")
    machine.write("first")
    machine.manager.set_members(2)
    return machine


@pytest.fixture
def b(group: Group, a: Machine) -> Machine:
    """The second one: a replica."""
    machine = group.start("b", size=2)
    until(lambda: machine.manager.role is Role.REPLICA)
    return machine


def equal(*machines: Machine) -> bool:
    heads = {machine.store.head for machine in machines}
    return len(heads) == 1 and all(machine.tables() == machines[0].tables() for machine in machines)


def test_one_device_alone_is_master_at_once(a: Machine) -> None:
    assert a.manager.role is Role.MASTER
    assert a.texts() == ["first"]


def test_a_device_that_joins_has_everything(a: Machine, b: Machine) -> None:
    assert b.texts() == ["first"]
    assert equal(a, b)


def test_a_database_that_fails_while_the_store_is_copied_is_told_at_once(
    group: Group, a: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = Shipping._begin

    def fail(shipping: Shipping) -> None:
        begin(shipping)
        shipping._environment.set_flags(db.DB_PANIC_ENVIRONMENT, 1)

    with monkeypatch.context() as patched:
        patched.setattr(Shipping, "_begin", fail)
        with pytest.raises(StoreError, match=r"could not be copied: .*open it again"):
            group.start("b", size=2)
    b = group.machines["b"]
    b.manager.close()
    group.unplug("b")
    del group.machines["b"]
    joined = Machine(group, "b", members=2, joining=True)  # and it is gone on with
    group.machines["b"] = joined
    group.link("b", "a")
    joined.open()
    assert joined.texts() == ["first"]


def test_a_write_on_a_replica_is_read_there_and_on_the_master(a: Machine, b: Machine) -> None:
    note = Note(b.store, text="from b")
    assert note.text == "from b"
    assert b.texts() == ["first", "from b"]
    assert a.texts() == ["first", "from b"]
    until(lambda: equal(a, b))


def test_what_a_replica_verifies_is_on_its_disk(a: Machine, b: Machine) -> None:
    # Berkeley DB makes no checkpoint on a replica, so its pages may wait in memory for the master's.
    a.write("a text to look for")
    until(lambda: equal(a, b))
    assert b.store.verify().problems == []
    assert b"a text to look for" in (b.path / "data" / "items.db").read_bytes()


def test_items_made_on_different_devices_have_different_ids(a: Machine, b: Machine) -> None:
    here, there = Note(a.store, text="x"), Note(b.store, text="y")
    assert here.item_id >> 39 == 0
    assert there.item_id >> 39 == b.device.tag


def test_an_object_held_on_the_master_shows_what_a_replica_wrote(a: Machine, b: Machine) -> None:
    held = Note(a.store, text="old")
    there = None
    until(lambda: b.store.head == a.store.head)
    there = b.store.get(held.item_id, Note)
    there.text = "new"
    assert held.text == "new"


def test_transact_on_two_devices_tries_again_when_they_conflict(a: Machine, b: Machine) -> None:
    here = Note(a.store, number=0)
    until(lambda: b.store.head == a.store.head)
    there = b.store.get(here.item_id, Note)

    def increment(note: Note) -> None:
        note.number += 1

    threads = [
        threading.Thread(target=lambda store=m.store, note=n: [store.transact(increment, note) for _ in range(20)])
        for m, n in ((a, here), (b, there))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    until(lambda: b.store.head == a.store.head)
    assert here.number == there.number == 40


def test_when_the_master_is_gone_the_other_takes_over_at_its_first_write(group: Group, a: Machine, b: Machine) -> None:
    group.unplug("a")
    b.write("alone")
    assert b.manager.role is Role.MASTER
    assert b.texts() == ["alone", "first"]


def test_closing_the_master_hands_over(a: Machine, b: Machine) -> None:
    a.write("second")
    a.close()
    until(lambda: b.manager.role is Role.MASTER)
    b.write("third")
    assert b.texts() == ["first", "second", "third"]


def test_a_device_that_comes_back_gets_what_it_missed(group: Group, a: Machine, b: Machine) -> None:
    b.close()
    a.write(*"xyz")
    b = group.start("b")
    until(lambda: b.store.head == a.store.head)
    assert equal(a, b)


def test_take_over_makes_a_replica_master_and_the_master_a_replica(a: Machine, b: Machine) -> None:
    b.manager.take_over(PATIENCE)
    assert b.manager.role is Role.MASTER
    until(lambda: a.manager.role is Role.REPLICA)
    a.write("through b")
    assert "through b" in b.texts()


def test_the_old_master_follows_the_new_one_if_nothing_was_missed(group: Group, a: Machine, b: Machine) -> None:
    until(lambda: b.store.head == a.store.head)
    group.cut("a", "b")
    b.write("from b")
    group.link("a", "b")
    until(lambda: a.store.head == b.store.head)
    until(lambda: {a.manager.role, b.manager.role} == {Role.MASTER, Role.REPLICA})
    assert equal(a, b)


def test_three_devices_elect_a_master_when_theirs_is_gone(group: Group, a: Machine, b: Machine) -> None:
    a.manager.set_members(3)
    b.manager.set_members(3)
    c = group.start("c", size=3)
    a.write("for all")
    until(lambda: b.store.head == c.store.head == a.store.head)
    group.unplug("a")
    until(lambda: {b.manager.role, c.manager.role} == {Role.MASTER, Role.REPLICA})
    b.write("from b")
    c.write("from c")
    until(lambda: b.store.head == c.store.head)
    assert equal(b, c)
    group.link("a", "b")
    group.link("a", "c")
    until(lambda: a.store.head == b.store.head)
    assert equal(a, b, c)


def test_with_majority_a_minority_can_be_read_and_not_written(group: Group) -> None:
    a = group.start("a", majority=True)
    a.manager.set_members(2)
    b = group.start("b", size=2, majority=True)
    b.manager.write_seconds = 0.2
    until(lambda: b.store.head == a.store.head)
    group.unplug("b")
    with pytest.raises(NoMaster):
        b.write("alone")
    assert b.texts() == []


def test_commits_in_flight_when_the_master_goes_are_made_once(group: Group, a: Machine, b: Machine) -> None:
    written: list[str] = []
    done = threading.Event()

    def write() -> None:
        for number in range(200):
            b.write(f"note {number}")
            written.append(f"note {number}")
            if number == 50:
                done.set()

    writer = threading.Thread(target=write)
    writer.start()
    done.wait(PATIENCE)
    group.unplug("a")
    writer.join()
    assert b.texts() == sorted(["first", *written])


def test_a_replica_that_missed_records_asks_for_them_when_a_ping_tells_of_more(
    group: Group, a: Machine, b: Machine
) -> None:
    group.wires["a", "b"].loses_logs = True
    a.write(*"xyz")
    group.wires["a", "b"].loses_logs = False

    def caught_up() -> bool:
        where = a.manager.position()
        group.wires["a", "b"].send(Ping(1, where.clock, where.generation, where.commit, where.lsn))
        return b.store.head == a.store.head

    until(caught_up)
    assert equal(a, b)


def test_a_replica_that_is_told_of_a_gap_asks_at_once(group: Group, a: Machine, b: Machine) -> None:
    group.wires["a", "b"].loses_logs = True
    a.write(*"xyz")
    group.wires["a", "b"].loses_logs = False

    def caught_up() -> bool:
        group.wires["a", "b"].send(Gap(3))
        return b.store.head == a.store.head

    until(caught_up)


def test_a_link_cut_while_the_first_copy_is_made_only_delays_it(group: Group, a: Machine) -> None:
    for _ in range(30):
        a.write("long" * 25_000)
    a.manager.set_members(2)
    opener = threading.Thread(target=lambda: group.start("b", size=2, linked=False))
    opener.start()
    until(lambda: "b" in group.machines)
    group.link("a", "b")
    for _ in range(5):
        group.cut("a", "b")
        group.link("a", "b")
    opener.join()
    b = group.machines["b"]
    until(lambda: b.store.head == a.store.head)
    assert equal(a, b)


def test_a_copy_that_lost_pages_is_shown_and_goes_on_when_it_is_told_of_the_gap(group: Group, a: Machine) -> None:
    for _ in range(30):
        a.write("long" * 25_000)
    opener = threading.Thread(target=lambda: group.start("b", size=2, linked=False))
    opener.start()
    until(lambda: "b" in group.machines)
    group.link("a", "b")
    group.wires["a", "b"].takes = 1 << 20
    b = group.machines["b"].manager
    until(lambda: (copy := b.status().copy) is not None and copy.total is not None)
    copy = b.status().copy
    assert copy is not None
    assert copy.total is not None
    assert 0 < copy.received < copy.total
    group.wires["a", "b"].takes = 1 << 60
    group.wires["a", "b"].loses_logs = False
    group.wires["a", "b"].send(Gap(3))
    opener.join()
    until(lambda: group.machines["b"].store.head == a.store.head)
    assert equal(a, group.machines["b"])
    until(lambda: b.status().copy is None)


def test_a_replicated_commit_is_on_the_other_device_when_it_returns(group: Group, a: Machine, b: Machine) -> None:
    until(lambda: [peer.in_sync for peer in a.manager.status().peers] == [True])
    a.store._engine.durability = "replicated"
    for number in range(20):
        a.write(f"{number}")
        assert b.store.head.number == a.store.head.number


def test_what_a_replica_cannot_flush_is_not_said_to_be_there(
    a: Machine, b: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    until(lambda: b.store.head == a.store.head)
    there, shipping = b.store.head, b.manager._shipping
    with monkeypatch.context() as full_disk:
        full_disk.setattr(shipping, "_flush", lambda environment: False)
        a.write("nowhere yet")
        until(lambda: b.store.head == a.store.head)
        told = b.manager._status()
        assert (told.number, told.chain) == there
        b.manager._events.put(b.manager._tell)
        until(lambda: (heard := a.manager._roles.peers[b.device.digest]) is not None and heard.number == there.number)
        assert a.manager._acknowledged[b.device.digest] == there.number
    until(lambda: a.manager._acknowledged[b.device.digest] == a.store.head.number)
    assert b.manager._status().number == a.store.head.number


def test_no_log_is_kept_for_a_device_that_was_removed(a: Machine) -> None:
    a.manager._logs_needed = {b"away": 7, b"removed": 0}
    (a.path / "data" / "log.0000000009").touch()
    try:
        assert a.manager.log_needed() == 0
        a.manager.is_member = lambda device: device == b"away"  # type: ignore[misc]
        assert a.manager.log_needed() == 7
    finally:
        (a.path / "data" / "log.0000000009").unlink()


def test_a_replicated_commit_does_not_wait_for_devices_that_are_away(group: Group, a: Machine, b: Machine) -> None:
    a.store._engine.durability = "replicated"
    group.unplug("b")
    a.write("alone")
    assert "alone" in a.texts()


@pytest.mark.parametrize("which", ["master", "replica"])
def test_a_device_whose_database_fails_goes_on_in_its_group(a: Machine, b: Machine, which: str) -> None:
    failing = a if which == "master" else b
    failing.store._engine._env.set_flags(db.DB_PANIC_ENVIRONMENT, 1)
    until(lambda: failing.manager.status().problem is not None or not failing.manager._thread.is_alive())
    assert failing.manager._thread.is_alive()
    a.write("by a")
    b.write("by b")
    until(lambda: a.texts() == b.texts() == ["by a", "by b", "first"])
    until(lambda: failing.manager.status().problem is None)


def test_what_was_acknowledged_before_is_not_taken_for_what_is_acknowledged_now(a: Machine, b: Machine) -> None:
    b.manager.take_over()
    until(lambda: a.manager.role is Role.REPLICA)
    a.manager._acknowledged[b.device.digest] = 10**9  # of a history that was given up
    a.manager.take_over()
    number = a.store.head.number
    until(lambda: a.manager._acknowledged.get(b.device.digest) == number)


def test_more_requests_than_there_is_room_for_are_sent_again(
    a: Machine, b: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "MAX_WAITING", 1)
    writers = [threading.Thread(target=b.write, args=(f"b{number}",)) for number in range(4)]
    with a.store._engine.no_commits():
        for writer in writers:
            writer.start()
        until(lambda: a.manager._requests.turned_away > 0)
    for writer in writers:
        writer.join()
    until(lambda: equal(a, b))
    assert a.texts() == ["b0", "b1", "b2", "b3", "first"]


def test_an_answer_that_another_device_gives_is_of_another_question(a: Machine, b: Machine) -> None:
    other = hashlib.blake2s(b"c").digest()
    with a.store._engine.no_commits():
        writer = threading.Thread(target=b.write, args=("b1",))
        writer.start()
        until(lambda: b.manager._asked)
        (commit_id,) = b.manager._asked
        b.manager._receive(other, b.group.wires["b", "a"], Refused(commit_id, "conflict", "of long ago", None))
        assert b.manager._answers == {}
    writer.join()
    until(lambda: equal(a, b))
    assert a.texts() == ["b1", "first"]


def test_in_sync_is_said_only_when_nothing_is_missing(group: Group, a: Machine, b: Machine) -> None:
    a.write("x")
    until(lambda: [peer.in_sync for peer in a.manager.status().peers] == [True])
    assert equal(a, b)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_devices_settle_whatever_links_come_and_go_and_nothing_one_has_written_is_lost(group: Group, seed: int) -> None:
    chance = random.Random(seed)
    devices = [group.start("a")]
    for size, name in ((2, "b"), (3, "c")):
        for device in devices:
            device.manager.set_members(size)
        devices.append(group.start(name, size=size))
    for number in range(12):
        one, two = chance.sample("abc", 2)
        chance.choice((group.cut, group.link))(one, two)
        devices[0].write(f"{number:02}")
    for one, two in ("ab", "ac", "bc"):
        group.link(one, two)

    def settled() -> bool:
        group.ping()
        roles = sorted(device.manager.role.value for device in devices)
        return roles == ["master", "replica", "replica"] and len({device.store.head for device in devices}) == 1

    until(settled)
    assert devices[0].texts() == [f"{number:02}" for number in range(12)]
    assert equal(*devices)


def test_what_a_device_says_without_end_is_heard_up_to_a_limit(a: Machine, b: Machine) -> None:
    """Else it would take all the memory: said faster than it is looked at."""
    wire, busy = a.group.wires["a", "b"], threading.Event()
    said = [Incoming(Elect(2**32 - 1, bytes(32)), None)]
    a.manager._events.put(lambda: busy.wait(PATIENCE) and None)
    with pytest.raises(MessageRefused):
        for _ in range(MAX_EVENTS + 100):
            a.manager.on_messages(wire, said)
    busy.set()
    until(lambda: a.manager._events.qsize() < MAX_EVENTS)
    a.write("still there")
    until(lambda: equal(a, b))


def test_a_hostile_log_message_ends_the_link_that_it_came_by(a: Machine, b: Machine) -> None:
    with pytest.raises(MessageRefused):
        a.manager.on_messages(a.group.wires["a", "b"], [Incoming(Log(0, b"\0\0\0", b""), None)])
    a.write("unharmed")
    until(lambda: equal(a, b))


def test_a_hostile_log_message_that_was_passed_on_does_not_end_the_link_in_between(group: Group, a: Machine) -> None:
    group.start("b", size=3)
    c = group.start("c", size=3)
    group.cut("a", "c")
    route = Route(c.device.digest, a.device.digest)
    until(lambda: c.device in {peer.device for peer in a.manager.status().peers})
    a.manager.on_messages(group.wires["a", "b"], [Incoming(Log(0, b"\0\0\0", b""), route)])
    a.write("unharmed")
    until(lambda: equal(a, c))
