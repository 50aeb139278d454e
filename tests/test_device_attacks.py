"""Devices under attack, over real sockets: nothing gets in, nothing comes out, and the honest ones go on."""

from __future__ import annotations

import contextlib
import logging
import queue
import secrets
import select
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from devices import CACHE, Home, Note, equal, member_names, texts
from waiting import PATIENCE, until

from atop import Store
from discovery import Candidate, Change
from replication import Comparison, Device, PairingFailed, SettingsError
from replication.connections import Connections
from replication.handshake import Purpose
from replication.identity import Identity
from replication.invitation import Invitation, PairingCode
from replication.membership import Member, entries
from replication.pairing import MAX_MESSAGE_BYTES, Joiner, PairingState
from replication.pairing_socket import LENGTH_BYTES, MAX_TALKS, OpenInvitation, _talk, join


@pytest.fixture
def home(store_path: Path) -> Iterator[Home]:
    home = Home(store_path.parent)
    yield home
    home.end()


def pairing_socket(device: Device) -> socket.socket:
    """A connection to a device's port that says it wants to pair."""
    assert device.port is not None
    sock = socket.create_connection(("127.0.0.1", device.port), PATIENCE)
    sock.sendall(Purpose.PAIRING.value)
    return sock


def has_ended(sock: socket.socket) -> bool:
    """Whether the other side has ended the connection by now."""
    while select.select([sock], [], [], 0)[0]:
        try:
            if not sock.recv(1000):
                return True
        except ConnectionError:
            return True
    return False


def is_ended(sock: socket.socket) -> bool:
    """Whether the other side ends the connection, maybe after a few words."""
    sock.settimeout(PATIENCE)
    try:
        while sock.recv(1000):
            continue
    except ConnectionError:
        return True
    except TimeoutError:
        return False
    return True


# -- pairing


def test_without_an_invitation_nobody_pairs(home: Home) -> None:
    a = home.open("laptop")
    a.invite().close()
    with pytest.raises(PairingFailed):
        home.join("desktop", a, "7-guitar-orbit")
    assert member_names(a) == ["laptop"]


def test_an_expired_code_lets_nobody_in(home: Home) -> None:
    a = home.open("laptop")
    invitation = a.invite()
    invitation._invitation = Invitation(invitation._invitation.code, time.monotonic() - 601)  # type: ignore[misc]
    with pytest.raises(PairingFailed, match="ten minutes"):
        home.join("desktop", a, invitation.code)
    assert (invitation.status.state, member_names(a)) == ("failed", ["laptop"])


def test_people_see_other_digits_where_somebody_with_the_code_is_in_between(home: Home) -> None:
    a = home.open("laptop")
    invitation = a.invite(ask=True)
    code, middle = PairingCode.parse(invitation.code), Identity.generate()
    assert a.port is not None
    seen: dict[str, str] = {}
    held = threading.Event()

    def to_the_inviter() -> None:
        def confirm(comparison: Comparison) -> bool:
            seen["the middle shows the inviter"] = comparison.digits
            held.wait(PATIENCE)
            return True

        with pytest.raises(PairingFailed):
            join(code, middle, "desktop", ["127.0.0.1"], a.port or 0, confirm)

    trap = OpenInvitation(middle, "laptop", payload_for=lambda key, name: b"", admit=lambda key, name: None)
    trap._invitation = Invitation(code, time.monotonic())  # type: ignore[misc]
    with socket.create_server(("127.0.0.1", 0)) as server:
        attacker = threading.Thread(target=to_the_inviter)
        attacker.start()
        catcher = threading.Thread(target=lambda: trap.serve(caught(server)))
        catcher.start()

        def confirm(comparison: Comparison) -> bool:
            seen["joiner"] = comparison.digits
            return False

        with pytest.raises(PairingFailed):
            join(code, Identity.generate(), "desktop", ["127.0.0.1"], server.getsockname()[1], confirm)
        catcher.join()
    status = invitation.wait(PATIENCE, states=("comparing",))
    assert status.digits != seen["joiner"]
    invitation.answer(False)
    held.set()
    attacker.join()
    trap.close()
    assert member_names(a) == ["laptop"]


def caught(server: socket.socket) -> socket.socket:
    """A connection for pairing, with its preamble read."""
    sock, _ = server.accept()
    assert sock.recv(12, socket.MSG_WAITALL) == Purpose.PAIRING.value
    return sock


@pytest.mark.parametrize("position", [1, 2, 30, 80, 150, 170])
def test_a_byte_changed_on_the_way_ends_a_pairing(home: Home, position: int) -> None:
    a = home.open("laptop")
    code = a.invite().code
    with socket.create_server(("127.0.0.1", 0)) as server:
        wire = threading.Thread(target=carry, args=(server, a.port, position))
        wire.start()
        with pytest.raises(PairingFailed):
            join(PairingCode.parse(code), Identity.generate(), "desktop", ["127.0.0.1"], server.getsockname()[1])
        wire.join()
    assert member_names(a) == ["laptop"]


def carry(server: socket.socket, port: int, position: int) -> None:
    """Carry one connection to the port, with a byte that the joiner sends (after the preamble) changed."""
    near, _ = server.accept()
    far = socket.create_connection(("127.0.0.1", port))

    def back() -> None:
        copy(far, near, -1)

    thread = threading.Thread(target=back)
    thread.start()
    copy(near, far, len(Purpose.PAIRING.value) + position)
    thread.join()
    near.close()
    far.close()


def copy(source: socket.socket, target: socket.socket, position: int) -> None:
    done = 0
    try:
        while data := bytearray(source.recv(65536)):
            if done <= position < done + len(data):
                data[position - done] ^= 1
            done += len(data)
            target.sendall(data)
    except OSError:
        pass  # the other direction has ended it
    for sock in (source, target):
        try:
            sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            continue  # it is


def test_garbage_and_claims_of_length_end_a_connection_and_leave_the_code_good(home: Home) -> None:
    a = home.open("laptop")
    code = a.invite().code
    for garbage in (
        (MAX_MESSAGE_BYTES + 1).to_bytes(2) + b"x",
        b"\xff\xff",
        b"\0\0",
        b"\0\x01\x07",
        b"\0\x40" + secrets.token_bytes(500),
    ):
        with pairing_socket(a) as sock:
            sock.sendall(garbage)
            assert is_ended(sock)
    assert home.join("desktop", a, code).name == "desktop"


def test_connections_that_say_nothing_keep_nobody_out(home: Home) -> None:
    a = home.open("laptop")
    invitation = a.invite()
    silent = [pairing_socket(a) for _ in range(3 * MAX_TALKS)]
    until(lambda: sum(map(has_ended, silent)) == 2 * MAX_TALKS)
    home.join("desktop", a, invitation.code)
    assert len(invitation._talks) <= MAX_TALKS
    for sock in silent:
        sock.close()


@pytest.mark.parametrize("speakers", [1, MAX_TALKS - 1])
def test_connections_that_say_nothing_displace_each_other_first_while_they_are_many(home: Home, speakers: int) -> None:
    a = home.open("laptop")
    invitation = a.invite()
    joiner = Joiner(PairingCode.parse(invitation.code), Identity.generate(), "desktop", time.monotonic())
    first = b"".join(len(message).to_bytes(LENGTH_BYTES) + message for message in joiner.start())

    def spoken() -> int:
        return sum(talk.state is PairingState.AWAITING_HELLO for _, talk in invitation._talks.values())

    with contextlib.ExitStack() as closing:
        for number in range(speakers):
            closing.enter_context(pairing_socket(a)).sendall(first)
            until(lambda number=number: spoken() == number + 1)
        silent = [closing.enter_context(pairing_socket(a)) for _ in range(3 * MAX_TALKS)]
        until(lambda: sum(map(has_ended, silent)) == 2 * MAX_TALKS + min(speakers, MAX_TALKS // 2))
        assert spoken() == min(speakers, MAX_TALKS // 2)


def test_a_name_that_would_move_the_cursor_is_refused_wherever_it_comes_from(home: Home) -> None:
    evil = "lap\x1b[31mtop"
    with pytest.raises(SettingsError):
        Device.open(home.directory / "x", name=evil)
    a = home.open("laptop")
    invitation = a.invite()
    identity = Identity.generate()
    joiner = Joiner(PairingCode.parse(invitation.code), identity, "fine", time.monotonic())
    joiner._name = evil
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
    with pairing_socket(a) as sock:
        _talk(sock, joiner, joiner.start(), lambda comparison: None, answers, lambda: None)
    assert joiner.failure is not None
    assert invitation.wait(PATIENCE).state == "failed"
    a.store.pool("devices").add(Member(a.store, name=evil, public_key=identity.public_key, tag=5))
    assert [entry.name for entry in entries(a.store)] == ["laptop"]
    assert evil not in str(a.status())


def test_no_code_and_no_key_gets_into_a_log_or_a_status(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    a = home.open("laptop")
    invitation = a.invite()
    b = home.join("desktop", a, invitation.code)
    told = f"{caplog.text} {a.status()} {b.status()} {invitation!r} {invitation.status} {a!r} {a._participant.group!r}"
    group = a._participant.group
    assert group is not None
    for secret in (invitation.code, *invitation.code.split("-")[1:], group.group_id.hex(), repr(group.group_id)):
        assert secret not in told
    assert a._identity.private_key.hex() not in told


# -- after pairing


def test_a_member_of_another_group_gets_no_link(home: Home) -> None:
    a = home.open("laptop")
    a.invite()
    stranger = home.open("stranger", a)
    stranger.invite()
    until(lambda: any("group" in problem for problem in stranger.status().problems))
    assert a.links() == stranger.links() == []


def test_a_cloned_identity_is_refused_and_told_how_to_mend_it(home: Home) -> None:
    a = home.open("laptop")
    b = home.join("desktop", a)
    until(lambda: equal(a, b))
    home.close("desktop")
    shutil.copytree(home.directory / "desktop", home.directory / "copy")
    b = home.open("desktop", a)
    until(b.links)
    clone = home.open("copy", a)
    until(lambda: any("move local/identity away" in problem for problem in clone.status().problems))
    assert len(a.links()) == len(b.links()) == 1
    assert not clone.links()
    Note(a.store, text="x")
    until(lambda: texts(b.store) == ["x"])


def test_forged_announcements_lead_nowhere_and_leave_the_links_alone(home: Home) -> None:
    a = home.open("laptop")
    b = home.join("desktop", a)
    connections = a._participant._steward.connections
    assert isinstance(connections, Connections)
    with socket.create_server(("127.0.0.1", 0)) as trap:
        for number in range(1000):
            forged = Candidate(
                f"forged-{number}",
                f"device {number}",
                ("127.0.0.1",),
                trap.getsockname()[1],
                device_id=f"FORGED{number}",
            )
            connections._on_candidate(Change.FOUND, forged)
        assert threading.active_count() < 100
        Note(a.store, text="x")
        until(lambda: texts(b.store) == ["x"])


def test_what_a_removed_device_still_has_lets_it_in_nowhere(home: Home) -> None:
    a = home.open("laptop")
    home.join("desktop", a)
    home.close("desktop")
    a.remove("desktop")
    group = home.directory / "desktop" / "local" / "group.json"
    before = group.read_bytes()
    b = home.open("desktop", a)
    until(lambda: b.status().removed)
    home.close("desktop")
    group.write_bytes(before)  # it forgets that it was told
    Note(a.store, text="secret")
    b = home.open("desktop", a)
    until(lambda: b.status().removed)
    assert texts(b.store) == []
    home.close("desktop")
    shutil.rmtree(home.directory / "desktop" / "data")
    group.unlink()
    with pytest.raises(PairingFailed, match="new, empty store"):
        home.join("desktop", a)


def test_a_removed_member_cannot_be_made_one_again_by_editing_the_store(home: Home) -> None:
    a = home.open("laptop")
    home.join("desktop", a)
    home.close("desktop")
    a.remove("desktop")
    item = next(item for item in a.store.pool("devices") if item.name == "desktop")
    item.revoked_at = None
    until(lambda: item.revoked_at is not None)
    b = home.open("desktop", a)
    until(lambda: b.status().removed)


def test_a_store_that_is_read_by_plain_programs_shows_the_devices(home: Home) -> None:
    a = home.open("laptop")
    a.invite()
    home.close("laptop")
    with Store(home.directory / "laptop", cache_size=CACHE) as store:
        assert [item.name for item in store.pool("devices")] == ["laptop"]


def test_a_forged_inviter_under_the_same_number_keeps_nobody_from_joining(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = home.open("laptop")
    code = a.invite().code
    with socket.create_server(("127.0.0.1", 0)) as trap:

        def hang_up() -> None:
            sock, _ = trap.accept()
            sock.sendall(b"\0\x05wrong")
            sock.close()

        def heard(number: int, chosen: Any, until: list[float]) -> Iterator[tuple[list[str], int]]:
            yield ["127.0.0.1"], trap.getsockname()[1]
            yield ["127.0.0.1"], a.port or 0

        monkeypatch.setattr("replication.joining._on_the_network", heard)
        forger = threading.Thread(target=hang_up)
        forger.start()
        joined = Device.join(home.directory / "desktop", code, name="desktop", port=0, multicast=False)
        home.devices["desktop"] = joined
        forger.join()
    assert member_names(a) == ["desktop", "laptop"]
