"""Devices that only a third one reaches: two members, one hop, and what a liar in between gets."""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from grouping import Group, Machine
from linking import identity
from waiting import PATIENCE, until

from replication.group import Group as DeviceGroup
from replication.hub import Hub
from replication.identity import DeviceId
from replication.manager import ReplicationManager
from replication.messages import (
    Ack,
    Commit,
    Gap,
    Incoming,
    Log,
    Lsn,
    Member,
    Members,
    Message,
    MessageRefused,
    Refused,
    Role,
    Route,
    Status,
)
from replication.relay import GRACE_SECONDS, SILENCE_SECONDS, TELL_SECONDS, LinkToDevice, Relay, RelayedLink

# -- the relay alone: no thread, and a clock of the test's

A, B, C, D = (hashlib.blake2s(name).digest() for name in (b"a", b"b", b"c", b"d"))
LOG = Log(0, b"control", b"record")
COMMIT = Commit(1, 2, "", [], [], [], [], [], [], [], [], [], {}, b"", [], [])


def status(*reachable: bytes) -> Status:
    return Status(Role.REPLICA, 1, None, 100, 1, bytes(32), list(reachable))


class End:
    """A direct link: remembers what it was given."""

    def __init__(self, device: bytes) -> None:
        self.device_id, self.open = DeviceId(device), True
        self.sent: list[tuple[Message, Route | None]] = []

    def send(self, message: Message, route: Route | None = None) -> None:
        self.sent.append((message, route))

    def send_log(self, log: Log, route: Route | None = None, *, asked: bool = False) -> bool:
        self.sent.append((log, route))
        return True


class Desk:
    """Device A: its relay, what the relay told, and links to B and C where a test makes them."""

    def __init__(self) -> None:
        self.now = 100.0
        self.members = {A, B, C, D}
        self.told: list[tuple[str, LinkToDevice]] = []
        self.relay = Relay(DeviceId(A), self, lambda device: device in self.members, lambda: self.now)

    def link_up(self, link: LinkToDevice) -> None:
        self.told.append(("up", link))

    def link_moved(self, link: LinkToDevice) -> None:
        self.told.append(("moved", link))

    def link_down(self, link: LinkToDevice) -> None:
        self.told.append(("down", link))

    def tick_soon(self) -> None:
        pass

    def link(self, device: bytes, *reachable: bytes) -> End:
        end = End(device)
        self.relay.on_link(end)
        self.relay.on_status(end, status(*reachable))
        self.told.clear()
        return end

    def tick(self) -> None:
        self.relay.tick(lambda: status(*self.relay.devices()))

    def hear(self, link: End, message: Message, origin: bytes, destination: bytes = A) -> RelayedLink | None:
        return self.relay.take(link, Incoming(message, Route(origin, destination)))

    def relayed(self, via: End, device: bytes = C) -> RelayedLink:
        link = self.hear(via, status(B), device)
        assert link is not None
        return link


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_a_device_that_another_one_reaches_is_told_how_this_one_stands_once_a_second(desk: Desk) -> None:
    b = desk.link(B, A, C)
    desk.tick()
    desk.tick()
    assert b.sent == [(status(B), Route(A, C))]
    desk.now += TELL_SECONDS
    desk.tick()
    assert b.sent == [(status(B), Route(A, C))] * 2
    assert desk.told == []  # it may not hear: there is a link when it has answered


def test_a_status_through_a_third_device_makes_a_link(desk: Desk) -> None:
    b = desk.link(B, A, C)
    link = desk.relayed(b)
    assert desk.told == [("up", link)]
    link.send(Ack(1, 2, Lsn(3, 4)))
    assert link.send_log(LOG)
    assert b.sent == [(Ack(1, 2, Lsn(3, 4)), Route(A, C)), (LOG, Route(A, C))]
    assert desk.hear(b, LOG, C) is link


def test_messages_are_passed_on_over_one_hop(desk: Desk) -> None:
    b, c = desk.link(B), desk.link(C)
    for message in (LOG, status(A), COMMIT):
        assert desk.hear(b, message, B, C) is None
    assert c.sent == [(message, Route(B, C)) for message in (LOG, status(A), COMMIT)]


@pytest.mark.parametrize(
    ("origin", "destination"),
    [(C, D), (D, C), (A, B), (C, B), (A, C), (B, A)],
    ids=["anothers-name", "second-hop", "ours-back", "back-to-sender", "our-name", "needless"],
)
def test_a_forged_route_is_refused(desk: Desk, origin: bytes, destination: bytes) -> None:
    b, c = desk.link(B, A, C, D), desk.link(C)
    with pytest.raises(MessageRefused):
        desk.hear(b, COMMIT, origin, destination)
    assert not b.sent
    assert not c.sent


def test_a_commit_that_cannot_be_passed_on_is_refused_to_whom_it_came_from(desk: Desk) -> None:
    b = desk.link(B)
    desk.hear(b, COMMIT, B, C)
    desk.hear(b, LOG, B, C)
    ((answer, route),) = b.sent
    assert isinstance(answer, Refused)
    assert (answer.commit_id, answer.code, route) == (1, "not master", None)


def test_a_third_device_is_not_believed_about_one_that_is_linked_directly(desk: Desk) -> None:
    b, _ = desk.link(B, A, C), desk.link(C)
    assert desk.hear(b, Ack(1, 1000, Lsn(1, 1)), C) is None
    assert desk.hear(b, status(), C) is None
    assert desk.told == []


def test_log_messages_that_were_on_their_way_are_taken_when_there_is_a_direct_link(desk: Desk) -> None:
    b = desk.link(B, A, C)
    link = desk.relayed(b)
    desk.link(C)
    assert desk.hear(b, LOG, C) is link
    assert desk.hear(b, Ack(1, 1000, Lsn(1, 1)), C) is None
    desk.now += GRACE_SECONDS
    assert desk.hear(b, LOG, C) is None


def test_what_a_device_outside_the_group_has_sent_through_a_member_is_not_taken(desk: Desk) -> None:
    b = desk.link(B, A, C)
    desk.members.remove(C)
    assert desk.hear(b, status(), C) is None
    desk.tick()
    assert not b.sent
    assert desk.told == []


def test_no_way_leads_through_a_removed_member(desk: Desk) -> None:
    b = desk.link(B, A, C)
    link = desk.relayed(b)
    desk.members.remove(B)
    assert desk.hear(b, LOG, C) is None
    desk.tick()
    assert desk.told[-1] == ("down", link)
    assert not b.sent


def test_a_removed_member_is_not_reached_through_others_any_more(desk: Desk) -> None:
    link = desk.relayed(desk.link(B, A, C))
    desk.members.remove(C)
    desk.tick()
    assert desk.told[-1] == ("down", link)
    assert not link.open


def test_a_direct_link_takes_the_place_of_a_relayed_one_without_the_device_being_gone(desk: Desk) -> None:
    link = desk.relayed(desk.link(B, A, C))
    direct = End(C)
    desk.relay.on_link(direct)
    assert [what for what, _ in desk.told] == ["up", "up"]
    assert desk.told[-1][1] is direct
    assert not link.open
    with pytest.raises(Exception, match="not reached"):
        link.send(COMMIT)


def test_a_relayed_link_takes_the_place_of_a_direct_one_if_another_device_reaches_it(desk: Desk) -> None:
    b, c = desk.link(B, A, C), desk.link(C)
    desk.relay.on_closed(c)
    ((what, link),) = desk.told
    assert what == "moved"
    desk.relay.on_status(b, status(A))  # it was gone for that one too
    assert desk.told[1:] == [("down", link)]


def test_a_relayed_link_ends_when_the_one_in_between_does_not_reach_the_device(desk: Desk) -> None:
    b = desk.link(B, A, C)
    link = desk.relayed(b)
    desk.relay.on_status(b, status(A))
    assert desk.told == [("up", link), ("down", link)]


def test_a_relayed_link_goes_another_way_when_its_own_has_ended(desk: Desk) -> None:
    b, d = desk.link(B, A, C), desk.link(D, A, C)
    link = desk.relayed(b)
    desk.relay.on_closed(b)
    assert link.open
    link.send(COMMIT)
    assert d.sent == [(COMMIT, Route(A, C))]
    desk.relay.on_closed(d)
    assert desk.told[-2:] == [("down", d), ("down", link)]


def test_a_device_that_is_silent_through_a_third_one_is_not_reachable(desk: Desk) -> None:
    link = desk.relayed(desk.link(B, A, C))
    desk.now += SILENCE_SECONDS
    desk.tick()
    assert desk.told[-1] == ("down", link)


def test_a_gap_is_passed_on_to_whom_log_messages_were_passed_on(desk: Desk) -> None:
    b, c, d = desk.link(B), desk.link(C), desk.link(D)
    desk.hear(b, LOG, B, C)
    desk.relay.on_gap(b, Gap(7))
    assert c.sent == [(LOG, Route(B, C)), (Gap(7), None)]
    assert not d.sent


def test_what_a_liar_names_takes_no_memory_and_no_message(desk: Desk) -> None:
    strangers = [os.urandom(32) for _ in range(250)]
    b = desk.link(B, *strangers)
    desk.tick()
    for stranger in strangers:
        assert desk.hear(b, status(), stranger) is None
    assert not b.sent
    assert desk.told == []


def test_the_hub_remembers_members_alone() -> None:
    manager = ReplicationManager(DeviceId(A), members=2, is_member=lambda device: device == C)
    hub = Hub(manager, members=lambda: Members([]), on_members=lambda news: None, on_removed=lambda key: None)
    try:
        middle = End(B)
        for origin in (C, *(bytes([number]) * 32 for number in range(100, 110))):
            hub.on_messages(middle, [Incoming(status(), Route(origin, A))])  # type: ignore[arg-type]
        assert list(hub._heard) == [C]
    finally:
        manager.close()


def test_the_members_of_a_group_are_those_that_were_not_removed(tmp_path: Path) -> None:
    own, other = identity("laptop"), identity("desktop")
    group = DeviceGroup.found(tmp_path, own, "laptop", tag=0, majority=False)
    assert group.includes(own.device_id.digest)
    assert not group.includes(other.device_id.digest)
    group.merge([Member(other.public_key, "desktop", 1, None, None)])
    assert group.includes(other.device_id.digest)
    group.revoke([other.public_key], 1)
    assert not group.includes(other.device_id.digest)


# -- three stores


@pytest.fixture
def group() -> Iterator[Group]:
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="atop-test-", dir=memory) as name:
        group = Group(Path(name))
        yield group
        group.close()


@pytest.fixture
def line(group: Group) -> tuple[Machine, Machine, Machine]:
    """a, b and c in a row: a is master, and c has everything of it through b."""
    a = group.start("a")
    a.write("first")
    a.manager.set_members(3)
    b = group.start("b", size=3)
    until(lambda: b.store.head == a.store.head)
    opener = threading.Thread(target=lambda: group.start("c", linked=False))
    opener.start()
    until(lambda: "c" in group.machines)
    group.link("b", "c")
    opener.join()
    c = group.machines["c"]
    until(lambda: c.manager.role is Role.REPLICA and c.store.head == a.store.head)
    return a, b, c


def settled(*machines: Machine) -> bool:
    roles = sorted(machine.manager.role.value for machine in machines)
    heads = {machine.store.head for machine in machines}
    return roles == ["master", *["replica"] * (len(machines) - 1)] and len(heads) == 1


def test_a_copy_writes_and_commits_of_others_pass_through_a_third_device(
    line: tuple[Machine, Machine, Machine],
) -> None:
    a, b, c = line
    until(lambda: [peer.via for peer in a.manager.status().peers if peer.device == c.device] == [b.device])
    c.write("from c")
    assert "from c" in a.texts()
    a.write("from a")
    until(lambda: settled(a, b, c))
    assert a.tables() == b.tables() == c.tables()
    until(lambda: [peer.in_sync for peer in a.manager.status().peers] == [True, True])


def test_a_master_that_is_reached_through_a_third_device_is_not_replaced(
    group: Group, line: tuple[Machine, Machine, Machine]
) -> None:
    a, b, c = line
    for _ in range(3):
        group.link("a", "c")
        c.write("direct")
        group.cut("a", "c")
        c.write("relayed")
    until(lambda: settled(a, b, c))
    assert a.manager.role is Role.MASTER
    assert a.texts() == ["direct"] * 3 + ["first"] + ["relayed"] * 3


def test_nothing_is_lost_or_done_twice_while_the_way_changes(
    group: Group, line: tuple[Machine, Machine, Machine]
) -> None:
    a, b, c = line
    stop, written = threading.Event(), []

    def write() -> None:
        while not stop.is_set():
            c.write(f"note {len(written)}")
            written.append(f"note {len(written)}")

    writer = threading.Thread(target=write)
    writer.start()
    for change in (group.link, group.cut, group.link, group.cut):
        enough = len(written) + 20
        until(lambda enough=enough: group.ping() or len(written) > enough)  # type: ignore[misc, func-returns-value]
        change("a", "c")
    stop.set()
    writer.join(PATIENCE)
    until(lambda: settled(a, b, c))
    assert b.texts() == sorted(["first", *written])


def test_two_devices_elect_through_a_third_one_and_the_old_master_follows(
    group: Group, line: tuple[Machine, Machine, Machine]
) -> None:
    a, b, c = line
    c.manager.take_over(PATIENCE)
    until(lambda: settled(a, b, c))
    assert c.manager.role is Role.MASTER
    a.write("through b")
    assert "through b" in c.texts()


def test_the_devices_in_a_row_go_on_when_the_one_in_the_middle_leaves_and_agree_when_it_is_back(
    group: Group, line: tuple[Machine, Machine, Machine]
) -> None:
    a, b, c = line
    b.close()
    a.write("from a")
    until(lambda: not a.manager.status().peers and not c.manager.status().peers)
    group.start("b", linked=False)
    b = group.machines["b"]
    group.link("a", "b")
    group.link("b", "c")
    until(lambda: settled(a, b, c))
    assert c.texts() == ["first", "from a"]
