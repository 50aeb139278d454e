"""Pairing as two people see it, and as somebody between them, or with a wrong code, would like it to go."""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spake2 import ed25519_basic

from atop.errors import AtopError
from replication import pairing
from replication.identity import Identity
from replication.invitation import (
    CODE_SECONDS,
    MAX_ATTEMPTS,
    MAX_NAME_BYTES,
    CodeExpired,
    CodeSpent,
    InvalidDeviceName,
    InvalidPairingCode,
    Invitation,
    PairingBroken,
    PairingCode,
    PairingFailed,
    PairingRefused,
    PairingTimeout,
    PairingVersion,
    SameDevice,
    WrongCode,
    check_name,
)
from replication.pairing import (
    CONFIRM_SECONDS,
    HANDSHAKE_SECONDS,
    MAX_MESSAGE_BYTES,
    MAX_PAYLOAD_BYTES,
    PROTOCOL_VERSION,
    Inviter,
    Joiner,
    PairingState,
    _Event,
    _Machine,
)
from replication.words import SHORTEST_PREFIX, WORDS

CODE = PairingCode(7, ("guitar", "orbit"))
WRONG = PairingCode(7, ("guitar", "otter"))
LAPTOP = Identity(bytes(range(32)))
DESKTOP = Identity(bytes(range(32, 64)))
MESSAGES = ["OPEN", "SHARE", "HELLO", "REPLY", "PROOF", "GREETING", "CONFIRM", "WELCOME"]

Tamper = Callable[[int, bytes], bytes]


@pytest.fixture(autouse=True, scope="module")
def _remembered_spake2() -> Iterator[None]:
    """SPAKE2 in pure Python takes 30 ms a meeting; with fixed randomness its results can be looked up."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("scalarmult_element", "scalarmult_element_safe_slow"):
            patch.setattr(ed25519_basic, name, functools.cache(getattr(ed25519_basic, name)))
        yield


def fixed_bytes(seed: str) -> Callable[[int], bytes]:
    """Randomness that is the same each time: for tests of what does not depend on it."""
    counter = itertools.count()
    return lambda size: hashlib.shake_256(b"%s %d" % (seed.encode(), next(counter))).digest(size)


def invite(code: PairingCode = CODE) -> Invitation:
    return Invitation(code, now=0)


def inviter(invitation: Invitation, now: float = 0, seed: str = "inviter") -> Inviter:
    return Inviter(invitation, DESKTOP, "desktop", now, fixed_bytes(seed))


def joiner(code: PairingCode = CODE, now: float = 0, seed: str = "joiner") -> Joiner:
    return Joiner(code, LAPTOP, "laptop", now, fixed_bytes(seed))


def meet(
    join: Joiner, host: Inviter, now: float = 0, tamper: Tamper = lambda _, message: message, stop: int = 99
) -> list[bytes]:
    """Carry messages to and fro until none is left, and return them; both people agree when they are asked.

    `tamper(number, message)` may change each on its way. Message number `stop` is not carried any more.
    """
    carried: list[bytes] = []
    waiting: list[tuple[Joiner | Inviter, bytes]] = [(host, message) for message in join.start()]
    while True:
        while waiting:
            to, message = waiting.pop(0)
            carried.append(message)
            if len(carried) > stop:
                return carried
            other: Joiner | Inviter = join if to is host else host
            waiting += [(other, answer) for answer in to.receive(tamper(len(carried) - 1, message), now)]
        if (join.state, _Event.AGREE_HERE) in join._TABLE:
            waiting += [(host, message) for message in join.agree(now, b"from the joiner")]
        if (host.state, _Event.AGREE_HERE) in host._TABLE:
            waiting += [(join, message) for message in host.agree(now, b"the member list")]
        if not waiting:
            return carried


def only(number: int, change: Callable[[bytes], bytes]) -> Tamper:
    return lambda at, message: change(message) if at == number else message


def resize(message: bytes, size: int) -> bytes:
    return message.ljust(size, b"x")[:size]


def instead(message: bytes, other: bytes) -> bytes:
    return other


def meeting(code: PairingCode = CODE) -> tuple[Joiner, Inviter]:
    return joiner(code), inviter(invite())


def failures(*machines: _Machine) -> list[type[Exception] | None]:
    return [type(machine.failure) if machine.failure else None for machine in machines]


# -- two people, two devices --------------------------------------------------------------------------------


def test_two_devices_with_one_code_learn_each_others_key_name_and_payload() -> None:
    invitation = invite()
    join, host = joiner(), inviter(invitation)
    meet(join, host)
    assert [join.state, host.state] == [PairingState.DONE] * 2
    assert join.outcome.remote_public_key == DESKTOP.public_key
    assert join.outcome.remote_id == DESKTOP.device_id
    assert join.outcome.remote_name == "desktop"
    assert join.outcome.payload == b"the member list"
    assert host.outcome.remote_public_key == LAPTOP.public_key
    assert host.outcome.remote_name == "laptop"
    assert host.outcome.payload == b"from the joiner"
    assert invitation.status(0) == "used"


def test_the_protocol_is_as_it_was() -> None:
    """With fixed randomness each byte of a meeting is fixed. A change here is a change of PROTOCOL_VERSION."""
    join, host = meeting()
    carried = meet(join, host)
    assert [(_Event(message[0]).name, len(message)) for message in carried] == [
        ("OPEN", 35),
        ("SHARE", 66),
        ("HELLO", 49),
        ("REPLY", 97),
        ("PROOF", 71),
        ("GREETING", 24),
        ("CONFIRM", 32),
        ("WELCOME", 32),
    ]
    assert PROTOCOL_VERSION == 1
    assert join.comparison is not None
    assert join.comparison.digits == "209 798"
    assert (
        hashlib.blake2s(b"".join(carried)).hexdigest()
        == "4b7e8cf3e3359f62a418a513bbcd2e6911669eb7e17708ae8d3962f06ac4c832"
    )


def test_both_people_see_the_same_digits_and_both_names_before_anything_is_handed_over() -> None:
    join, host = meeting()
    meet(join, host, stop=6)
    assert [join.state, host.state] == [PairingState.AGREED_HERE, PairingState.AGREED_HERE]
    assert join.comparison is not None
    assert host.comparison is not None
    assert join.comparison.digits == host.comparison.digits
    assert (join.comparison.own_name, join.comparison.other_name) == ("laptop", "desktop")
    assert (host.comparison.own_id, host.comparison.other_id) == (DESKTOP.device_id, LAPTOP.device_id)
    for comparison in (join.comparison, host.comparison):
        for shown in ("laptop", "desktop", LAPTOP.device_id.short, DESKTOP.device_id.short, comparison.digits):
            assert shown in comparison.text


@pytest.mark.parametrize("first", ["joiner", "inviter"])
def test_the_member_list_leaves_only_when_both_people_agreed_in_any_order(first: str) -> None:
    join, host = meeting()
    meet_until_compared(join, host)
    if first == "joiner":
        [confirm] = join.agree(1)
        assert host.receive(confirm, 1) == []
        assert host.state is PairingState.AGREED_THERE
        [welcome] = host.agree(2, b"members")
    else:
        assert host.agree(1, b"members") == []
        [confirm] = join.agree(2)
        [welcome] = host.receive(confirm, 2)
    assert join.receive(welcome, 3) == []
    assert join.outcome.payload == b"members"
    assert host.finished


def meet_until_compared(join: Joiner, host: Inviter, now: float = 0) -> None:
    messages = join.start()
    while join.state is not PairingState.COMPARING:
        answers = [answer for message in messages for answer in host.receive(message, now)]
        messages = [answer for message in answers for answer in join.receive(message, now)]
    assert host.state is PairingState.COMPARING


def test_digits_differ_from_meeting_to_meeting() -> None:
    digits = set()
    for number in range(5):
        join, host = joiner(seed=f"joiner {number}"), inviter(invite())
        meet_until_compared(join, host)
        assert join.comparison is not None
        digits.add(join.comparison.digits)
    assert len(digits) == 5


def test_real_randomness_works_too() -> None:
    join = Joiner(CODE, LAPTOP, "laptop", 0)
    host = Inviter(invite(), DESKTOP, "desktop", 0)
    meet(join, host)
    assert join.outcome.remote_id == DESKTOP.device_id


def test_the_largest_payload_passes_and_one_byte_more_is_not_sent() -> None:
    join, host = meeting()
    meet_until_compared(join, host)
    with pytest.raises(PairingFailed, match="hand over"):
        join.agree(0, bytes(MAX_PAYLOAD_BYTES + 1))
    [confirm] = join.agree(0, bytes(MAX_PAYLOAD_BYTES))
    assert len(confirm) == MAX_MESSAGE_BYTES
    host.receive(confirm, 0)
    [welcome] = host.agree(0, bytes(MAX_PAYLOAD_BYTES))
    join.receive(welcome, 0)
    assert len(join.outcome.payload) == len(host.outcome.payload) == MAX_PAYLOAD_BYTES


# -- wrong, late and used codes -----------------------------------------------------------------------------


def test_a_wrong_code_fails_on_both_sides_and_spends_the_code() -> None:
    invitation = invite()
    join, host = joiner(WRONG), inviter(invitation)
    meet(join, host)
    assert failures(join, host) == [WrongCode, WrongCode]
    assert invitation.status(0) == "spent"
    late = joiner()
    again = inviter(invitation)
    meet(late, again)
    assert failures(late, again) == [CodeSpent, CodeSpent]


def test_another_number_is_another_code() -> None:
    join, host = joiner(PairingCode(8, ("guitar", "orbit"))), inviter(invite())
    meet(join, host)
    assert failures(join, host) == [WrongCode, WrongCode]


def test_one_code_gives_one_guess_however_many_connect_at_once() -> None:
    """Connections brought to the brink of the proof, the right code among them, then all let go."""
    invitation = invite()
    sides = [(joiner(code, seed=f"{n}"), inviter(invitation)) for n, code in enumerate([WRONG, CODE, WRONG])]
    proofs = [meet(join, host, stop=4)[-1] for join, host in sides]
    assert [host.state for _, host in sides] == [PairingState.AWAITING_PROOF] * 3
    for (_, host), proof in zip(sides, proofs, strict=True):
        host.receive(proof, 0)
    assert failures(*(host for _, host in sides)) == [WrongCode, CodeSpent, CodeSpent]


def test_a_right_code_works_once() -> None:
    invitation = invite()
    meet(joiner(), inviter(invitation))
    join, host = joiner(), inviter(invitation)
    meet(join, host)
    assert failures(join, host) == [CodeSpent, CodeSpent]


def test_a_connection_that_ends_before_the_proof_does_not_spend_the_code() -> None:
    invitation = invite()
    for stop in range(5):
        meet(joiner(), inviter(invitation), stop=stop)
    join, host = joiner(), inviter(invitation)
    meet(join, host)
    assert failures(join, host) == [None, None]


def test_too_many_connections_spend_the_code() -> None:
    invitation = invite()
    for _ in range(MAX_ATTEMPTS):
        meet(joiner(), inviter(invitation), stop=2)
    assert invitation.status(0) == "open"
    join, host = joiner(), inviter(invitation)
    meet(join, host)
    assert failures(join, host) == [CodeSpent, CodeSpent]


def test_a_code_lives_ten_minutes() -> None:
    almost = CODE_SECONDS - 0.001
    join, host = joiner(now=almost), inviter(invite(), now=almost)
    meet(join, host, now=almost)
    assert failures(join, host) == [None, None]

    invitation = invite()
    join, host = joiner(now=CODE_SECONDS), inviter(invitation, now=CODE_SECONDS)
    meet(join, host, now=CODE_SECONDS)
    assert failures(join, host) == [CodeExpired, CodeExpired]
    assert invitation.status(CODE_SECONDS) == "expired"


def test_a_code_that_expires_before_the_proof_is_refused() -> None:
    almost = CODE_SECONDS - 1
    join, host = joiner(now=almost), inviter(invite(), now=almost)
    proof = meet(join, host, now=almost, stop=4)[-1]
    host.receive(proof, CODE_SECONDS)
    assert failures(host) == [CodeExpired]


def test_people_may_still_compare_when_the_code_has_expired() -> None:
    almost = CODE_SECONDS - 1
    join, host = joiner(now=almost), inviter(invite(), now=almost)
    meet_until_compared(join, host, almost)
    [confirm] = join.agree(CODE_SECONDS + 60)
    host.receive(confirm, CODE_SECONDS + 60)
    [welcome] = host.agree(CODE_SECONDS + 60)
    join.receive(welcome, CODE_SECONDS + 60)
    assert failures(join, host) == [None, None]


def test_a_cancelled_invitation_lets_nobody_in() -> None:
    invitation = invite()
    join, host = joiner(), inviter(invitation)
    proof = meet(join, host, stop=4)[-1]
    invitation.cancel()
    host.receive(proof, 0)
    assert failures(host) == [CodeSpent]


# -- somebody in between ------------------------------------------------------------------------------------


def test_who_only_relays_sees_no_name_no_key_and_no_payload() -> None:
    join, host = meeting()
    seen = b"".join(meet(join, host))
    assert join.outcome.remote_public_key == DESKTOP.public_key
    for secret in (b"laptop", b"desktop", b"member list", LAPTOP.public_key, DESKTOP.public_key, b"guitar"):
        assert secret not in seen


def test_who_stands_between_without_the_code_fails_on_both_sides() -> None:
    """The attacker plays inviter to the joiner and joiner to the inviter, with a guess."""
    mallory = Identity.generate()
    join, host = meeting()
    fake_host = Inviter(invite(WRONG), mallory, "desktop", 0)
    fake_join = Joiner(WRONG, mallory, "laptop", 0)
    meet(join, fake_host)
    meet(fake_join, host)
    assert failures(join, host) == [WrongCode, WrongCode]


def test_who_stands_between_with_the_code_shows_other_digits() -> None:
    mallory = Identity.generate()
    join, host = meeting()
    fake_host = Inviter(invite(), mallory, "desktop", 0, fixed_bytes("fake inviter"))
    fake_join = Joiner(CODE, mallory, "laptop", 0, fixed_bytes("fake joiner"))
    meet_until_compared(join, fake_host)
    meet_until_compared(fake_join, host)
    assert join.comparison is not None
    assert host.comparison is not None
    assert join.comparison.digits != host.comparison.digits


def test_an_inviter_that_chooses_its_key_after_it_saw_the_joiners_is_found_out() -> None:
    """Else who stands between could try keys until the digits agree."""
    join, host = meeting()
    [opening] = join.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pairing, "_commitment", lambda key: hashlib.blake2s(b"some other key").digest())
        [share] = host.receive(opening, 0)
    [hello] = join.receive(share, 0)
    [reply] = host.receive(hello, 0)
    join.receive(reply, 0)
    assert failures(join) == [PairingBroken]
    assert "promised" in str(join.failure)


@pytest.mark.parametrize("number", range(8), ids=MESSAGES)
def test_a_flipped_bit_in_any_byte_of_any_message_never_ends_in_two_paired_devices(number: int) -> None:
    length = len(meet(*meeting())[number])
    for place in range(length):

        def flip(message: bytes, place: int = place) -> bytes:
            return message[:place] + bytes([message[place] ^ 1 << place % 8]) + message[place + 1 :]

        join, host = meeting()
        meet(join, host, tamper=only(number, flip))
        receiver = join if number % 2 else host
        assert receiver.state is PairingState.FAILED, f"byte {place} of {MESSAGES[number]}"


@pytest.mark.parametrize("number", range(8), ids=MESSAGES)
def test_a_message_cut_at_any_byte_or_longer_fails(number: int) -> None:
    length = len(meet(*meeting())[number])
    for size in (*range(length), length + 1):
        join, host = meeting()
        meet(join, host, tamper=only(number, functools.partial(resize, size=size)))
        receiver = join if number % 2 else host
        assert receiver.state is PairingState.FAILED
        assert host.state is PairingState.FAILED or number == 7  # WELCOME is the last, and nobody answers it


@pytest.mark.parametrize("number", range(8), ids=MESSAGES)
@pytest.mark.parametrize("size", [MAX_MESSAGE_BYTES + 1, 1_000_000])
def test_an_oversized_message_is_refused_unread(number: int, size: int) -> None:
    join, host = meeting()
    meet(join, host, tamper=only(number, functools.partial(resize, size=size)))
    receiver = join if number % 2 else host
    assert failures(receiver) == [PairingBroken]


@pytest.mark.parametrize("relabel", [False, True], ids=["as it is", "labelled as the answer"])
@pytest.mark.parametrize("number", range(7), ids=MESSAGES[:7])
def test_a_message_reflected_to_its_sender_fails(number: int, relabel: bool) -> None:
    join, host = meeting()
    carried: list[bytes] = []

    def reflect(at: int, message: bytes) -> bytes:
        carried.append(message)
        if at != number + 1:
            return message
        mine = carried[number]
        if not relabel:
            return mine
        return message[:1] + mine[1:].ljust(len(message) - 1, b"\0")[: len(message) - 1]

    meet(join, host, tamper=reflect)
    sender = host if number % 2 else join
    assert sender.state is PairingState.FAILED


def test_a_share_reflected_with_its_side_changed_fails() -> None:
    """The point is taken over, the byte that names the side is set to the other one."""
    join = joiner()
    [opening] = join.start()
    join.receive(bytes([_Event.SHARE]) + b"B" + opening[3:] + bytes(32), 0)
    assert failures(join) == [PairingBroken]


@pytest.mark.parametrize("number", range(8), ids=MESSAGES)
def test_a_message_that_comes_twice_fails_or_is_ignored_after_the_end(number: int) -> None:
    join, host = meeting()
    receiver = join if number % 2 else host
    carried = meet(join, host, stop=number + 1)
    was_finished = receiver.finished
    receiver.receive(carried[number], 0)
    assert receiver.state is (PairingState.DONE if was_finished else PairingState.FAILED)


def test_a_message_of_another_meeting_fails() -> None:
    other = meet(joiner(seed="other"), inviter(invite(), seed="other"))
    for number in range(2, 8):
        join, host = meeting()
        meet(join, host, tamper=only(number, functools.partial(instead, other=other[number])))
        receiver = join if number % 2 else host
        assert receiver.state is PairingState.FAILED


def test_whatever_the_table_does_not_have_ends_the_pairing() -> None:
    for stop in range(9):
        for kind in range(256):
            join, host = meeting()
            meet(join, host, stop=stop)
            for machine in (join, host):
                before = machine.state
                event = pairing._event_of(bytes([kind]))
                if machine.finished or (event is not None and (before, event) in machine._TABLE):
                    continue
                size = pairing._SIZES[event][0] if event is not None else 10
                machine.receive(bytes([kind]) + bytes(size), 0)
                assert failures(machine) == [PairingBroken], f"{before}, {kind}"
            if stop and kind > 12:
                break  # kinds that no message has are all alike


@settings(max_examples=40)
@given(stop=st.integers(0, 8), message=st.binary(max_size=120))
def test_random_bytes_raise_nothing_and_pair_nobody(stop: int, message: bytes) -> None:
    join, host = meeting()
    meet(join, host, stop=stop)
    for machine in (join, host):
        was_done = machine.state is PairingState.DONE
        answers = machine.receive(message, 0)
        assert len(answers) <= 1
        assert was_done or machine.state is not PairingState.DONE


@settings(max_examples=25)
@given(st.binary(min_size=32, max_size=32), st.sampled_from([b"A", b"B", b"S", b"\0"]))
def test_random_shares_raise_nothing_and_pair_nobody(point: bytes, side: bytes) -> None:
    host = inviter(invite())
    host.receive(bytes([_Event.OPEN, PROTOCOL_VERSION]) + side + point, 0)
    join = joiner()
    join.start()
    join.receive(bytes([_Event.SHARE]) + side + point + bytes(32), 0)
    for machine in (join, host):
        assert machine.failure is None or isinstance(machine.failure, PairingBroken)


@pytest.mark.parametrize(
    "point",
    [
        "01" + "00" * 31,
        "ec" + "ff" * 30 + "7f",
        "00" * 32,
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    ],
    ids=["the neutral element", "order 2", "order 4", "order 8"],
)
def test_a_share_of_low_order_is_refused(point: str) -> None:
    host = inviter(invite())
    host.receive(bytes([_Event.OPEN, PROTOCOL_VERSION]) + b"A" + bytes.fromhex(point), 0)
    assert failures(host) == [PairingBroken]


# -- people, time, versions, names --------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["joiner", "inviter"])
@pytest.mark.parametrize("stop", range(6), ids=MESSAGES[:6])
def test_either_side_can_stop_before_it_agreed_and_the_other_is_told(who: str, stop: int) -> None:
    join, host = meeting()
    on_its_way = meet(join, host, stop=stop)[-1]
    stopped, other = (join, host) if who == "joiner" else (host, join)
    [farewell] = stopped.refuse()
    assert failures(stopped) == [PairingRefused]
    assert stopped.refuse() == []
    if other is (join if stop % 2 else host):
        other.receive(on_its_way, 0)
    assert other.receive(farewell, 0) == []
    assert failures(other) == [PairingRefused]


@pytest.mark.parametrize("stop", range(5))
def test_a_stalled_peer_is_given_up(stop: int) -> None:
    join, host = meeting()
    meet(join, host, stop=stop)
    for machine in (join, host):
        assert machine.tick(HANDSHAKE_SECONDS - 0.001) == []
        assert machine.failure is None
        [farewell] = machine.tick(HANDSHAKE_SECONDS)
        assert failures(machine) == [PairingTimeout]
        assert farewell[0] == _Event.ABORT


def test_people_who_do_not_answer_are_given_up() -> None:
    join, host = meeting()
    meet_until_compared(join, host)
    for machine in (join, host):
        assert machine.tick(CONFIRM_SECONDS - 0.001) == []
        assert len(machine.tick(CONFIRM_SECONDS)) == 1
        assert failures(machine) == [PairingTimeout]
        assert machine.comparison is None


def test_a_message_or_an_answer_that_comes_too_late_is_not_acted_on() -> None:
    join, host = meeting()
    meet_until_compared(join, host)
    [confirm] = join.agree(0)
    host.receive(confirm, CONFIRM_SECONDS)
    assert failures(host) == [PairingTimeout]
    join, host = meeting()
    meet_until_compared(join, host)
    [farewell] = host.agree(CONFIRM_SECONDS, b"members")
    assert farewell[0] == _Event.ABORT
    assert failures(host) == [PairingTimeout]


@pytest.mark.parametrize("body", [bytes([PROTOCOL_VERSION + 1]) + bytes(33), b"\0", bytes([9]) * 255])
def test_another_version_is_named_as_the_reason_on_both_sides(body: bytes) -> None:
    join, host = meeting()
    join.start()
    [farewell] = host.receive(bytes([_Event.OPEN]) + body, 0)
    join.receive(farewell, 0)
    assert failures(join, host) == [PairingVersion, PairingVersion]


@pytest.mark.parametrize("reason", range(256))
def test_every_reason_to_abort_becomes_an_error_and_gets_no_answer(reason: int) -> None:
    join = joiner()
    join.start()
    assert join.receive(bytes([_Event.ABORT, reason]), 0) == []
    assert isinstance(join.failure, PairingFailed)
    assert str(join.failure)


def test_a_copy_of_a_device_is_refused_with_the_way_to_mend_it() -> None:
    join = Joiner(CODE, DESKTOP, "laptop", 0, fixed_bytes("joiner"))
    host = inviter(invite())
    meet(join, host)
    assert failures(join, host) == [SameDevice, SameDevice]
    assert "local/identity" in str(join.failure)


@pytest.mark.parametrize("name", [b"\x1b[2Jdesktop", b"\xff\xfe", b" desktop", "\u202edesktop".encode(), b"a\nb"])
def test_a_name_that_could_fool_a_terminal_is_refused(name: bytes) -> None:
    class Rude:
        def encode(self) -> bytes:
            return name

    join, host = meeting()
    join._name = Rude()  # type: ignore[assignment] # a device that does not check its own name
    meet(join, host)
    assert failures(join, host) == [PairingBroken, PairingBroken]
    join, host = meeting()
    host._name = Rude()  # type: ignore[assignment] # the same for the inviter
    meet(join, host)
    assert failures(join) == [PairingBroken]


def test_calls_out_of_turn_say_so() -> None:
    join, host = meeting()
    for machine in (join, host):
        with pytest.raises(PairingFailed, match="nothing to agree"):
            machine.agree(0)
        with pytest.raises(PairingFailed, match="not finished"):
            _ = machine.outcome
        assert machine.comparison is None
    meet(join, host)
    for machine in (join, host):
        with pytest.raises(PairingFailed, match="nothing to agree"):
            machine.agree(0)
        assert machine.receive(b"late", 0) == []
        assert machine.refuse() == []
        assert machine.tick(1e9) == []
        assert machine.outcome
    with pytest.raises(PairingFailed, match="begun before"):
        join.start()


def test_a_failed_pairing_raises_its_failure_as_the_outcome() -> None:
    join, host = meeting(WRONG)
    meet(join, host)
    with pytest.raises(WrongCode):
        _ = join.outcome
    with pytest.raises(AtopError):
        _ = host.outcome


def test_nothing_that_can_be_shown_or_logged_holds_the_code() -> None:
    for code in (CODE, WRONG):
        for stop in range(9):
            invitation = invite()
            join, host = joiner(code), inviter(invitation)
            meet(join, host, stop=stop)
            shown: list[Any] = [CODE, invitation, join, host, join.state, host.state, join.failure, host.failure]
            shown += [join.comparison, host.comparison, invitation.status(0), join.comparison and join.comparison.text]
            shown += [machine.outcome for machine in (join, host) if machine.state is PairingState.DONE]
            for value in shown:
                for text in (repr(value), str(value)):
                    assert "guitar" not in text
                    assert "orbit" not in text
                    assert "otter" not in text


# -- the code as people type it -----------------------------------------------------------------------------


def test_the_words_are_easy_to_tell_apart() -> None:
    assert len(WORDS) == len(set(WORDS)) == 512
    assert list(WORDS) == sorted(WORDS)
    assert len({word[:SHORTEST_PREFIX] for word in WORDS}) == 512
    assert all(word.isascii() and word.isalpha() and word.islower() and 4 <= len(word) <= 8 for word in WORDS)


def test_one_slip_of_the_finger_never_makes_another_word() -> None:
    words = set(WORDS)
    letters = "abcdefghijklmnopqrstuvwxyz"
    for word in WORDS:
        for place in range(len(word) + 1):
            before, after = word[:place], word[place:]
            slips = {before + after[1:]}
            slips |= {before + letter + after for letter in letters}
            slips |= {before + letter + after[1:] for letter in letters}
            slips.add(before + after[1:2] + after[:1] + after[2:])
            assert not (slips - {word}) & words


def test_codes_are_uniform_over_numbers_and_words() -> None:
    asked: list[int] = []

    def highest(below: int) -> int:
        asked.append(below)
        return below - 1

    assert PairingCode.random(highest) == PairingCode(99, (WORDS[-1], WORDS[-1]))
    assert sorted(asked) == [99, 512, 512]
    assert PairingCode.random(lambda below: 0) == PairingCode(1, (WORDS[0], WORDS[0]))
    assert PairingCode.random() != PairingCode.random() or PairingCode.random() != PairingCode.random()


@given(st.integers(1, 99), st.sampled_from(WORDS), st.sampled_from(WORDS))
def test_a_code_is_read_back_from_its_text(number: int, first: str, second: str) -> None:
    code = PairingCode(number, (first, second))
    assert PairingCode.parse(code.text) == code


@pytest.mark.parametrize(
    "typed",
    [
        "7-guitar-orbit",
        "7 guitar orbit",
        "07-GUITAR-Orbit",
        "  7 - guitar - orbit \n",
        "7guitar orbit",
        "7.guitar,orbit",
        "7–guitar—orbit",
        "7_guitar_orbit",
        "7-guit-orbi",
        "7 guita orbit",
    ],
)
def test_many_spellings_give_the_same_code(typed: str) -> None:
    assert PairingCode.parse(typed) == CODE


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        ("", "like 7-"),
        ("7", "like 7-"),
        ("7-guitar", "like 7-"),
        ("7-guitar-orbit-otter", "like 7-"),
        ("guitar-orbit", "like 7-"),
        ("guitar-7-orbit", "like 7-"),
        ("7-7-orbit", "first word"),
        ("0-guitar-orbit", "1 to 99"),
        ("100-guitar-orbit", "1 to 99"),
        ("7-gui-orbit", "first word"),
        ("7-gitar-orbit", "first word"),
        ("7-guitarr-orbit", "first word"),
        ("7-guitar-orbot", "second word"),
        ("7-guitar-ørbit", "second word"),
        ("²-guitar-orbit", "like 7-"),
        ("7-guitar-orbit" * 9, "short"),
    ],
)
def test_a_mistyped_code_is_refused_before_it_costs_the_guess_and_is_not_repeated(typed: str, hint: str) -> None:
    with pytest.raises(InvalidPairingCode, match=hint) as caught:
        PairingCode.parse(typed)
    assert "gitar" not in str(caught.value)
    assert "orbot" not in str(caught.value)


@given(st.text(max_size=90))
def test_no_text_raises_anything_but_an_invalid_code(text: str) -> None:
    with pytest.raises(InvalidPairingCode):
        PairingCode.parse(text)


@pytest.mark.parametrize("parts", [(0, ("guitar", "orbit")), (100, ("guitar", "orbit")), (7, ("guitar", "xyzzy"))])
def test_only_numbers_and_words_of_the_list_make_a_code(parts: Any) -> None:
    with pytest.raises(InvalidPairingCode):
        PairingCode(*parts)


@pytest.mark.parametrize(
    "name", ["laptop", "Ada's laptop", "Büro-Rechner 2", "工作站", "a", "🖥️ desk", "x" * MAX_NAME_BYTES]
)
def test_ordinary_names_are_names(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name", ["", " ", " a", "a ", "a  b", "a\tb", "a\x00", "\x1b[31m", "a\u202eb", "ü" * 32, "a\ud800", "\u200b"]
)
def test_names_that_cannot_be_shown_or_announced_are_refused(name: str) -> None:
    with pytest.raises(InvalidDeviceName):
        check_name(name)
    with pytest.raises(InvalidDeviceName):
        Joiner(CODE, LAPTOP, name, 0)
