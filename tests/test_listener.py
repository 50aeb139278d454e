"""The port, and the links of a device: members get in, one link for two devices, and strangers cost little."""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import socket
import struct
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from linking import (
    BRISK,
    OTHER_GROUP,
    PATIENCE,
    Recorder,
    connection,
    credentials,
    greet,
    identity,
    no_socket_left,
    wait_until,
)

from replication import dialing, listener
from replication.dialing import Target, connect
from replication.handshake import Introduced, LinkClosed, LinkError, LinkLost, LinkRefused, Purpose, introduce
from replication.identity import DeviceId
from replication.link import Link, Timing
from replication.listener import Admission, CannotListen, Limits, Listener, source_of
from replication.messages import Gap, Reason
from replication.peers import MAX_TARGETS, Peers

LOCAL = "127.0.0.1"
LOW, HIGH = sorted(("laptop", "desktop"), key=lambda name: identity(name).device_id)


@pytest.fixture(autouse=True)
def nothing_stays_open() -> Iterator[None]:
    with no_socket_left():
        yield


class Device:
    """A device with its links."""

    def __init__(
        self, name: str, *friends: str, listen: bool = True, timing: Timing | None = BRISK, **more: Any
    ) -> None:
        self.name = name
        self.recorder = Recorder()
        limits = more.pop("limits", None)
        seconds = more.pop("handshake_seconds", PATIENCE)
        self.credentials = credentials(name, *friends, **more)
        self.peers = Peers(self.credentials, self.recorder, timing=timing, handshake_seconds=seconds)
        self.port = self.peers.listen(LOCAL, limits=limits) if listen else 0

    @property
    def id(self) -> DeviceId:
        return self.credentials.identity.device_id

    def dial(self, other: Device) -> None:
        self.peers.found(other.name, [LOCAL], other.port)

    def linked_to(self, other: Device) -> bool:
        return self.peers.link(other.id) is not None


@pytest.fixture
def device() -> Iterator[Callable[..., Device]]:
    made: list[Device] = []

    def make(*arguments: Any, **more: Any) -> Device:
        made.append(Device(*arguments, **more))
        return made[-1]

    yield make
    for one in made:
        one.peers.close()


def meet(one: Device, other: Device) -> None:
    one.dial(other)
    wait_until(lambda: one.linked_to(other) and other.linked_to(one))


# -- who gets a place ---------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.sampled_from(["a", "b", "c"]), st.floats(0, 0.5), st.booleans()), max_size=60))
def test_places_are_never_more_than_the_limits_and_the_newest_has_one(steps: list[tuple[str, float, bool]]) -> None:
    limits = Limits(unfinished=4, per_source=3, burst=10, per_second=5)
    admission = Admission(limits)
    held: dict[int, str] = {}
    now = 0.0
    for number, (source, later, leaves) in enumerate(steps):
        now += later
        if leaves and held:
            gone = next(iter(held))
            admission.leave(gone)
            del held[gone]
        going = admission.arrive(now, number, source)
        if going is not None:
            for old in going:
                del held[old]
            held[number] = source
        assert admission.unfinished == len(held) <= limits.unfinished
        assert all(list(held.values()).count(one) <= limits.per_source for one in "abc")


def test_when_all_places_are_taken_the_oldest_of_the_greediest_goes() -> None:
    admission = Admission(Limits(unfinished=4, per_source=3))
    for number, source in enumerate(["honest", "greedy", "greedy", "greedy"]):
        assert admission.arrive(0.0, number, source) == []
    assert admission.arrive(0.0, 4, "other") == [1]
    assert admission.arrive(0.0, 5, "greedy") == [2]
    admission.leave(0)
    assert admission.arrive(0.0, 6, "honest") == []


def test_an_address_that_comes_too_often_is_turned_away_and_others_are_not() -> None:
    admission = Admission(Limits(burst=3, per_second=1))
    for number in range(3):
        assert admission.arrive(0.0, number, "often") is not None
        admission.leave(number)
    assert admission.arrive(0.0, 3, "often") is None
    assert admission.arrive(0.0, 4, "other") is not None
    assert admission.arrive(1.5, 5, "often") is not None
    assert admission.arrive(1.5, 6, "often") is None


def test_addresses_that_are_remembered_are_bounded() -> None:
    admission = Admission(Limits())
    for number in range(3 * listener.MAX_SOURCES):
        admission.arrive(0.0, number, str(number))
        admission.leave(number)
    assert len(admission._credit) == listener.MAX_SOURCES


def test_an_ipv6_network_counts_as_one_address() -> None:
    assert source_of("2001:db8::1") == source_of("2001:db8::ffff:1") != source_of("2001:db8:0:1::1")
    assert source_of("::ffff:10.0.0.1") == source_of("10.0.0.1") != source_of("10.0.0.2")


# -- strangers at the port ------------------------------------------------------------------------------------------

GARBAGE = {
    "nothing": b"",
    "half a preamble": b"atop li",
    "a web browser": b"GET / HTTP/1.1\r\nHost: desktop.lan\r\n\r\n",
    "zeros": bytes(1_000),
    "another version": b"atop link 9\n" + bytes(34),
    "a handshake message of 65,535 bytes": Purpose.LINK.value + b"\xff\xff" + bytes(100),
    "a handshake message of 4 GB": Purpose.LINK.value + b"\xff\xff\xff\xff" + bytes(100),
    "an empty handshake message": Purpose.LINK.value + bytes(2),
    "a key of low order": Purpose.LINK.value + struct.pack(">H", 32) + bytes(32),
    "pairing where nobody invites": Purpose.PAIRING.value,
}


@pytest.mark.parametrize("data", GARBAGE.values(), ids=GARBAGE)
def test_garbage_is_closed_and_members_still_get_in(data: bytes, device: Callable[..., Device]) -> None:
    desktop, laptop = device("desktop", "laptop"), device("laptop", "desktop", listen=False)
    with socket.create_connection((LOCAL, desktop.port)) as stranger:
        stranger.sendall(data)
        stranger.shutdown(socket.SHUT_WR)
        stranger.settimeout(PATIENCE)
        with contextlib.suppress(ConnectionError):
            received = stranger.recv(1 << 16)
            assert len(received) in (0, 98)  # the responder's part of the handshake, where it began
            while stranger.recv(1 << 16):
                pass
    meet(laptop, desktop)
    assert desktop.recorder.messages == []


def test_a_thousand_strangers_leave_no_memory_behind(device: Callable[..., Device]) -> None:
    desktop = device("desktop", "laptop", limits=Limits(burst=10_000, per_second=10_000))

    def strangers(count: int) -> int:
        for number in range(count):
            with socket.create_connection((LOCAL, desktop.port)) as stranger:
                stranger.sendall(list(GARBAGE.values())[number % len(GARBAGE)])
        wait_until(lambda: desktop.peers.status().listener.unfinished == 0)  # type: ignore[union-attr]
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        before = strangers(200)
        assert strangers(1_000) < before + 200_000
    finally:
        tracemalloc.stop()


def test_a_connection_cut_at_any_byte_of_the_handshake_leaves_nothing_behind(device: Callable[..., Device]) -> None:
    desktop = device("desktop", "laptop")
    data = Purpose.LINK.value + struct.pack(">H", 32) + identity("laptop").public_key
    for length in range(len(data) + 1):
        with socket.create_connection((LOCAL, desktop.port)) as stranger:
            stranger.sendall(data[:length])
    wait_until(lambda: desktop.peers.status().listener.accepted == len(data) + 1)  # type: ignore[union-attr]
    wait_until(lambda: desktop.peers.status().listener.unfinished == 0)  # type: ignore[union-attr]


def test_who_sends_a_byte_now_and_then_loses_its_place_at_the_deadline(device: Callable[..., Device]) -> None:
    desktop = device("desktop", "laptop", handshake_seconds=0.3)
    with socket.create_connection((LOCAL, desktop.port)) as stranger:
        stranger.settimeout(0.02)
        closed = False
        deadline = time.monotonic() + PATIENCE
        for byte in itertools.cycle(Purpose.LINK.value[:1]):
            assert time.monotonic() < deadline
            try:
                stranger.send(bytes((byte,)))
                closed = stranger.recv(1) == b""
            except TimeoutError:
                continue
            except ConnectionError:
                closed = True
            if closed:
                break
    assert closed


def test_connections_held_open_do_not_keep_a_member_out(device: Callable[..., Device]) -> None:
    limits = Limits(unfinished=4, per_source=4, burst=1_000)
    desktop, laptop = device("desktop", "laptop", limits=limits), device("laptop", "desktop", listen=False)
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(socket.create_connection((LOCAL, desktop.port)))
        wait_until(lambda: desktop.peers.status().listener.accepted == 20)  # type: ignore[union-attr]
        meet(laptop, desktop)
        status = desktop.peers.status().listener
        assert status is not None
        assert status.unfinished <= 4
        assert status.turned_away >= 16


def test_a_flood_of_connections_is_turned_away_and_links_go_on(device: Callable[..., Device]) -> None:
    desktop = device("desktop", "laptop", limits=Limits(burst=20, per_second=0.001))
    laptop = device("laptop", "desktop", listen=False)
    meet(laptop, desktop)
    threads = threading.active_count()
    for _ in range(200):
        with contextlib.suppress(ConnectionError), socket.create_connection((LOCAL, desktop.port)) as flooder:
            flooder.sendall(Purpose.LINK.value)
    wait_until(lambda: desktop.peers.status().listener.accepted >= 201)  # type: ignore[union-attr]
    wait_until(lambda: threading.active_count() <= threads)
    status = desktop.peers.status().listener
    assert status is not None
    assert status.turned_away >= 180
    link = laptop.peers.link(desktop.id)
    assert link is not None
    link.send(Gap(1))
    desktop.recorder.wait_until(lambda: desktop.recorder.messages == [Gap(1)])


def test_a_device_of_another_group_or_without_pairing_gets_no_link(device: Callable[..., Device]) -> None:
    desktop = device("desktop", "laptop")
    for stranger in (device("laptop", "desktop", listen=False, group=OTHER_GROUP), device("stranger", listen=False)):
        stranger.dial(desktop)
        wait_until(lambda stranger=stranger: stranger.peers.status().problems)
        assert not stranger.peers.links()
    assert not desktop.peers.links()
    assert desktop.recorder.events == []


def test_a_connection_for_pairing_is_handed_over_unread() -> None:
    taken: list[socket.socket] = []
    server = Listener(credentials("desktop"), lambda introduced, deadline: None, taken.append, host=LOCAL)
    with socket.create_connection((LOCAL, server.port)) as joiner:
        joiner.sendall(Purpose.PAIRING.value + b"what comes next")
        wait_until(lambda: taken)
        assert taken[0].recv(100) == b"what comes next"
        server.close()
        taken[0].sendall(b"still there")
        assert joiner.recv(100) == b"still there"
        taken[0].close()


def test_a_port_that_is_taken_is_named(device: Callable[..., Device]) -> None:
    desktop = device("desktop")
    with pytest.raises(CannotListen, match=f"port {desktop.port}.*another program"):
        Listener(credentials("laptop"), lambda introduced, deadline: None, host=LOCAL, port=desktop.port)


def test_closing_does_not_wait_for_handshakes_that_go_on(device: Callable[..., Device]) -> None:
    desktop = device("desktop", handshake_seconds=100 * PATIENCE)
    with contextlib.ExitStack() as stack:
        for _ in range(5):
            stranger = stack.enter_context(socket.create_connection((LOCAL, desktop.port)))
            stranger.sendall(Purpose.LINK.value)
        wait_until(lambda: desktop.peers.status().listener.unfinished == 5)  # type: ignore[union-attr]
        desktop.peers.close()


def test_a_device_listens_on_every_address(device: Callable[..., Device]) -> None:
    desktop = device("desktop", listen=False)
    port = desktop.peers.listen()
    families = [LOCAL, "::1"] if socket.has_dualstack_ipv6() else [LOCAL]
    for address in families:
        socket.create_connection((address, port)).close()


# -- one link for two devices ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("attempt", range(15))
def test_two_devices_that_dial_each_other_at_once_keep_exactly_one_link(
    attempt: int, device: Callable[..., Device]
) -> None:
    one, other = device("laptop", "desktop"), device("desktop", "laptop")
    barrier = threading.Barrier(2)

    def dial(who: Device, whom: Device) -> None:
        barrier.wait()
        who.dial(whom)

    threads = [threading.Thread(target=dial, args=pair) for pair in ((one, other), (other, one))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    def settled() -> bool:
        links = one.peers.links() + other.peers.links()
        quiet = not one.peers._dials and not other.peers._dials
        return len(links) == 2 and links[0].handshake_hash == links[1].handshake_hash and quiet

    wait_until(settled)
    for who in (one, other):
        assert who.recorder.events.count("link") - who.recorder.events.count("closed") == 1
    link = one.peers.links()[0]
    link.send(Gap(attempt))
    other.recorder.wait_until(lambda: other.recorder.messages == [Gap(attempt)])


def test_the_next_link_to_a_device_comes_after_the_end_of_the_last(device: Callable[..., Device]) -> None:
    one, other = device(LOW, HIGH), device(HIGH, LOW, listen=False)
    meet(other, one)
    for number in range(2, 5):
        other.peers.links()[0].close(Reason.OTHER, wait=False)
        for recorder in (one.recorder, other.recorder):
            recorder.wait_until(lambda recorder=recorder, n=number: recorder.events.count("link") == n)
    for recorder in (one.recorder, other.recorder):
        assert recorder.events == ["link", *["closed", "link"] * 3]


def raw_member(device: Device, name: str, run: bytes | None = None) -> Introduced | LinkError:
    """A member that connects by hand, and has greeted."""
    deadline = time.monotonic() + PATIENCE
    who = credentials(name) if run is None else credentials(name, run=run)
    try:
        sock = connect([LOCAL], device.port, deadline)
        introduced = introduce(sock, who, initiator=True, deadline=deadline)
    except LinkError as error:
        return error
    return introduced


def test_a_device_that_lost_its_link_gets_a_new_one_and_the_old_one_ends(
    device: Callable[..., Device], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("replication.peers.SIMULTANEOUS_SECONDS", 0.0)
    one = device(LOW, HIGH, timing=Timing(silence_seconds=PATIENCE))
    run = bytes(16)
    first = raw_member(one, HIGH, run)
    assert isinstance(first, Introduced)
    assert first.wait_ready(time.monotonic() + PATIENCE) == 1
    second = raw_member(one, HIGH, run)
    assert isinstance(second, Introduced)
    assert second.wait_ready(time.monotonic() + PATIENCE) == 2
    one.recorder.wait_until(lambda: one.recorder.events == ["link", "closed", "link"])
    failure = one.recorder.links[0].failure
    assert isinstance(failure, LinkClosed)
    assert failure.reason is Reason.DUPLICATE
    first.sock.close()
    second.sock.close()


def test_a_connection_that_comes_with_the_link_is_its_double_and_refused(
    device: Callable[..., Device], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("replication.peers.SIMULTANEOUS_SECONDS", PATIENCE)
    one = device(LOW, HIGH, timing=Timing(silence_seconds=PATIENCE))
    members = [raw_member(one, HIGH, bytes(16)) for _ in range(2)]
    first, second = members
    assert isinstance(first, Introduced)
    assert isinstance(second, Introduced)
    outcomes = []
    for member in (first, second):
        try:
            outcomes.append(member.wait_ready(time.monotonic() + PATIENCE))
        except LinkClosed as error:
            outcomes.append(error.reason)
    assert sorted(map(repr, outcomes)) == sorted(map(repr, [1, Reason.DUPLICATE]))
    one.recorder.wait_until(lambda: one.recorder.events == ["link"])
    first.sock.close()
    second.sock.close()


def test_the_handler_hears_the_end_of_a_link_before_the_next_one_however_long_that_takes(
    device: Callable[..., Device], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = device(LOW, HIGH)
    second_link = threading.Event()
    on_link, on_closed = one.recorder.on_link, one.recorder.on_closed

    def slow_on_closed(link: Link) -> None:
        second_link.wait(0.3)  # it does not come: the wait is as long as a wrong program would need
        on_closed(link)

    def noted_on_link(link: Link) -> None:
        if one.recorder.links:
            second_link.set()
        on_link(link)

    monkeypatch.setattr(one.recorder, "on_closed", slow_on_closed)
    monkeypatch.setattr(one.recorder, "on_link", noted_on_link)
    for number in (1, 2):
        member = raw_member(one, HIGH, bytes(16))
        assert isinstance(member, Introduced)
        assert member.wait_ready(time.monotonic() + PATIENCE) == number
        one.recorder.wait_until(lambda number=number: number == 2 or one.recorder.links)
        member.sock.close()
        wait_until(lambda: not one.peers.links() or one.recorder.events.count("link") == 2)
    one.recorder.wait_until(lambda: one.recorder.events.count("closed") == 2)
    assert one.recorder.events == ["link", "closed", "link", "closed"]


def test_a_member_that_waits_for_ready_cannot_be_pushed_out(device: Callable[..., Device]) -> None:
    limits = Limits(unfinished=1, per_source=1, burst=1_000)
    one = device(HIGH, LOW, limits=limits, timing=Timing(silence_seconds=PATIENCE))
    member = raw_member(one, LOW)
    assert isinstance(member, Introduced)
    with contextlib.ExitStack() as stack:
        wait_until(lambda: one.peers._following)
        for _ in range(5):
            stack.enter_context(socket.create_connection((LOCAL, one.port)))
        wait_until(lambda: one.peers.status().listener.accepted == 6)  # type: ignore[union-attr]
        member.send_ready(1)
        one.recorder.wait_until(lambda: one.recorder.events == ["link"])
    member.sock.close()


def test_a_program_that_was_killed_is_noticed_though_a_child_of_it_lives(device: Callable[..., Device]) -> None:
    one = device(LOW, HIGH, timing=Timing(silence_seconds=100 * PATIENCE))
    reader, writer = os.pipe()
    program = os.fork()
    if program == 0:
        with contextlib.suppress(BaseException):
            member = raw_member(one, HIGH)
            assert isinstance(member, Introduced)
            member.wait_ready(time.monotonic() + PATIENCE)
            if os.fork() == 0:
                os.close(writer)
                os.read(reader, 1)  # until the test is over
        os._exit(0)
    os.close(reader)
    os.waitpid(program, 0)
    one.recorder.wait_until(lambda: one.recorder.events == ["link", "closed"])
    os.close(writer)


def test_closing_does_not_wait_for_a_ready_that_does_not_come(device: Callable[..., Device]) -> None:
    one = device(HIGH, LOW, handshake_seconds=100 * PATIENCE)
    member = raw_member(one, LOW)
    assert isinstance(member, Introduced)
    wait_until(lambda: one.peers._following)
    one.peers.close()
    member.sock.close()


def test_of_several_connections_the_one_with_the_highest_ready_is_used(device: Callable[..., Device]) -> None:
    one = device(HIGH, LOW, timing=Timing(silence_seconds=PATIENCE))  # the other one decides
    run = bytes(16)
    members = [raw_member(one, LOW, run) for _ in range(3)]
    for member, number in zip(members, (2, 3, 1), strict=True):
        assert isinstance(member, Introduced)
        member.send_ready(number)
        if number == 1:
            with contextlib.suppress(OSError):
                assert member.sock.recv(1 << 16)  # GOODBYE
        else:
            one.recorder.wait_until(lambda number=number: one.recorder.events.count("link") == number - 1)
    assert one.recorder.events == ["link", "closed", "link"]
    for member in members:
        assert isinstance(member, Introduced)
        member.sock.close()


@pytest.mark.parametrize("own", [LOW, HIGH])
def test_a_copy_of_an_identity_is_refused_while_the_other_one_is_there(own: str, device: Callable[..., Device]) -> None:
    name = HIGH if own == LOW else LOW
    one, honest = device(own, name), device(name, own, listen=False)
    meet(honest, one)
    clone = device(name, own, listen=False)
    clone.dial(one)
    wait_until(lambda: "same identity" in clone.peers.status().problems.get(own, ""))
    assert "local/identity" in clone.peers.status().problems[own]
    assert honest.linked_to(one)
    assert one.recorder.events == ["link"]
    honest.peers.close()
    wait_until(lambda: clone.linked_to(one))  # as for a device that has restarted


def test_a_device_that_reaches_itself_makes_no_link(device: Callable[..., Device]) -> None:
    laptop = device("laptop")
    laptop.dial(laptop)
    wait_until(lambda: "back to this device" in laptop.peers.status().problems.get("laptop", ""))
    assert not laptop.peers.links()


# -- members come and go ----------------------------------------------------------------------------------------------


def test_a_removed_member_is_told_so_at_once_and_does_not_get_in_again(device: Callable[..., Device]) -> None:
    desktop, phone = device("desktop"), device("phone", listen=False)
    removed: list[bytes] = []
    object.__setattr__(desktop.credentials, "is_removed", removed.__contains__)
    meet(phone, desktop)
    removed.append(identity("phone").public_key)
    desktop.peers.close_device(phone.id, Reason.REMOVED)
    phone.recorder.wait_until(lambda: "closed" in phone.recorder.events)
    failure = phone.recorder.links[0].failure
    assert isinstance(failure, LinkClosed)
    assert failure.reason is Reason.REMOVED
    phone.peers.retry()
    wait_until(lambda: "removed from the group" in phone.peers.status().problems.get("desktop", ""))
    assert not desktop.peers.links()
    desktop.recorder.wait_until(lambda: desktop.recorder.events == ["link", "closed"])


def test_a_member_removed_during_its_handshake_does_not_get_in(device: Callable[..., Device]) -> None:
    desktop = device(LOW)
    answers = iter([False])  # the first look, in the handshake, comes before the removal
    object.__setattr__(desktop.credentials, "is_removed", lambda key: next(answers, True))
    member = raw_member(desktop, HIGH)
    assert isinstance(member, Introduced)
    with pytest.raises(LinkClosed) as caught:
        member.wait_ready(time.monotonic() + PATIENCE)
    assert caught.value.reason is Reason.REMOVED
    assert desktop.recorder.events == []
    member.sock.close()


def test_a_member_removed_while_its_link_comes_up_loses_it_at_once(device: Callable[..., Device]) -> None:
    desktop = device(LOW)
    answers = iter([False, False])  # in the handshake, and before READY
    object.__setattr__(desktop.credentials, "is_removed", lambda key: next(answers, True))
    member = raw_member(desktop, HIGH)
    assert isinstance(member, Introduced)
    assert member.wait_ready(time.monotonic() + PATIENCE) == 1
    desktop.recorder.wait_until(lambda: desktop.recorder.links and not desktop.recorder.links[0].open)
    failure = desktop.recorder.links[0].failure
    assert failure is not None
    assert failure.reason is Reason.REMOVED
    member.sock.close()
    desktop.recorder.wait_until(lambda: desktop.recorder.events == ["link", "closed"])


def test_a_link_that_is_lost_is_made_again(device: Callable[..., Device]) -> None:
    desktop, laptop = device("desktop"), device("laptop", listen=False)
    meet(laptop, desktop)
    desktop.peers.close_device(laptop.id, Reason.OTHER)
    laptop.recorder.wait_until(lambda: laptop.recorder.events == ["link", "closed", "link"])


def test_a_place_that_is_lost_is_not_tried_again(device: Callable[..., Device]) -> None:
    desktop, laptop = device("desktop"), device("laptop", listen=False)
    meet(laptop, desktop)
    laptop.peers.lost("desktop")
    assert laptop.linked_to(desktop)  # what discovery says ends no link
    desktop.peers.close_device(laptop.id, Reason.OTHER)
    laptop.recorder.wait_until(lambda: "closed" in laptop.recorder.events)
    assert not laptop.peers._targets
    assert laptop.recorder.events == ["link", "closed"]


def test_a_device_that_comes_back_at_another_port_is_found(device: Callable[..., Device]) -> None:
    laptop, desktop = device("laptop", listen=False), device("desktop")
    meet(laptop, desktop)
    desktop.peers.close()
    again = device("desktop")
    laptop.peers.found("desktop", [LOCAL], again.port)
    wait_until(lambda: laptop.linked_to(again))


def test_five_devices_that_all_dial_each_other_have_ten_links(device: Callable[..., Device]) -> None:
    devices = [device(f"device {number}") for number in range(5)]
    for one, other in itertools.permutations(devices, 2):
        one.dial(other)
    wait_until(lambda: all(len(one.peers.links()) == 4 for one in devices))
    hashes = {link.handshake_hash for one in devices for link in one.peers.links()}
    wait_until(lambda: len({link.handshake_hash for one in devices for link in one.peers.links()}) == 10)
    assert len(hashes) >= 10


def test_closing_ends_attempts_that_wait_for_an_answer(device: Callable[..., Device]) -> None:
    with socket.create_server((LOCAL, 0)) as silent:
        laptop = device("laptop", listen=False, handshake_seconds=100 * PATIENCE)
        laptop.peers.found("silent", [LOCAL], silent.getsockname()[1])
        accepted, _ = silent.accept()
        with accepted:
            accepted.recv(12)
            laptop.peers.close()


def test_a_closed_device_tells_its_peers_and_can_be_closed_again(device: Callable[..., Device]) -> None:
    desktop, laptop = device("desktop"), device("laptop", listen=False)
    meet(laptop, desktop)
    desktop.peers.close()
    desktop.peers.close()
    laptop.recorder.wait_until(lambda: "closed" in laptop.recorder.events)
    failure = laptop.recorder.links[0].failure
    assert isinstance(failure, LinkClosed)
    assert failure.reason is Reason.LEAVING


def test_a_forked_child_can_close_without_harm(device: Callable[..., Device]) -> None:
    desktop, laptop = device("desktop"), device("laptop", listen=False)
    meet(laptop, desktop)
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            laptop.peers.close()
            desktop.peers.close()
            os._exit(0)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    desktop.peers.links()[0].send(Gap(1))
    laptop.recorder.wait_until(lambda: laptop.recorder.messages == [Gap(1)])
    socket.create_connection((LOCAL, desktop.port)).close()


def test_places_to_try_are_bounded(device: Callable[..., Device]) -> None:
    laptop = device("laptop", listen=False)
    with laptop.peers._changed:  # nothing is tried meanwhile
        laptop.peers._closing = True
    for number in range(MAX_TARGETS):
        assert laptop.peers.found(str(number), [LOCAL], 1)
    assert not laptop.peers.found("one more", [LOCAL], 1)
    assert laptop.peers.found("0", [LOCAL], 2)


# -- connecting -------------------------------------------------------------------------------------------------------


def test_the_first_address_that_answers_is_used() -> None:
    with socket.create_server((LOCAL, 0)) as server:
        port = server.getsockname()[1]
        for addresses in ([LOCAL], ["127.0.0.2", LOCAL], ["192.0.2.1", LOCAL], ["not an address", LOCAL]):
            sock = connect(addresses, port, time.monotonic() + PATIENCE)
            assert sock.getpeername() == (LOCAL, port)
            sock.close()
            server.accept()[0].close()


def test_nobody_there_is_an_error_that_names_the_place() -> None:
    with socket.create_server((LOCAL, 0)) as server:
        port = server.getsockname()[1]
    for addresses in ([LOCAL], []):
        with pytest.raises(LinkLost, match=f"port {port}"):
            connect(addresses, port, time.monotonic() + PATIENCE)
    with pytest.raises(LinkLost, match="no answer"):
        connect([LOCAL], port, time.monotonic() - 1)


def test_a_target_is_tried_less_and_less_often_and_at_once_when_it_is_reported() -> None:
    target = Target("desktop", (LOCAL,), 4747, None, due=0.0)
    waits = []
    now = 0.0
    for _ in range(10):
        target.begin(now)
        target.failed(now, LinkLost("nobody there"), chance=0.0)
        waits.append(target.due - now)
        now = target.due
    assert waits[:4] == pytest.approx([0.1, 0.2, 0.4, 0.8])
    assert waits[-1] == pytest.approx(dialing.MAX_RETRY_SECONDS)
    target.failed(now, LinkLost("nobody there"), chance=1.0)
    assert target.due - now == pytest.approx(dialing.MAX_RETRY_SECONDS / 2)
    target.reported(now + 1)
    assert target.due == now + 1
    target.begin(now + 1)
    target.failed(now + 1, LinkLost("nobody there"), chance=0.0)
    target.reported(now + 1.01)
    assert target.due == pytest.approx(now + 1.1)  # however often it is reported


@pytest.mark.parametrize("reason", sorted(dialing.LASTING))
def test_a_target_that_says_no_for_good_is_tried_seldom(reason: Reason) -> None:
    for error in (LinkRefused(reason, "no"), LinkClosed(reason, by_us=False)):
        target = Target("desktop", (LOCAL,), 4747, None, due=0.0)
        target.failed(0.0, error, chance=0.0)
        assert target.due == dialing.REFUSED_RETRY_SECONDS


def test_a_link_between_the_ends_of_one_connection_needs_no_port() -> None:
    near, far = connection()
    one, other = greet(near, far, credentials("laptop"), credentials("desktop"))
    assert isinstance(one, Introduced)
    assert isinstance(other, Introduced)
    links = Link(one, Recorder()), Link(other, Recorder())
    for link in links:
        link.start()
    for link in links:
        link.close()
