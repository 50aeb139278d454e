"""The handshake and its ciphers: published vectors, another implementation, and every kind of damage."""

from __future__ import annotations

import copy
import itertools
import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from noise.connection import Keypair, NoiseConnection

from replication import noise
from replication.noise import (
    MAX_MESSAGE_BYTES,
    MAX_NONCE,
    MAX_PLAINTEXT_BYTES,
    CipherState,
    HandshakeState,
    NoiseDead,
    NoiseKeyRefused,
    NoiseMisuse,
    NoiseNonceExhausted,
    NoiseRefused,
    NoiseTooLong,
    public_key_of,
)

VECTORS = json.loads((Path(__file__).parent / "noise_vectors.json").read_text())["vectors"]
INITIATOR_KEY = bytes(range(32))
RESPONDER_KEY = bytes(range(32, 64))
PSK = b"thirty-two bytes that both know."
PROLOGUE = b"the group"

psks = pytest.mark.parametrize("psk", [None, PSK], ids=["XX", "XXpsk3"])

# Every point of small order on Curve25519 and its twist, with the non-canonical spellings of 0 and 1.
LOW_ORDER_POINTS = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]


def pair(psk: bytes | None = None) -> tuple[HandshakeState, HandshakeState]:
    return (
        HandshakeState(True, INITIATOR_KEY, PROLOGUE, psk),
        HandshakeState(False, RESPONDER_KEY, PROLOGUE, psk),
    )


def shake_hands(first: HandshakeState, second: HandshakeState) -> None:
    for number in range(3):
        writer, reader = (first, second) if number % 2 == 0 else (second, first)
        assert reader.read_message(writer.write_message(b"payload %d" % number)) == b"payload %d" % number


def ciphers(psk: bytes | None = None) -> tuple[CipherState, CipherState]:
    """A sending cipher and the receiving one at the other end."""
    initiator, responder = pair(psk)
    shake_hands(initiator, responder)
    return initiator.split()[0], responder.split()[1]


# -- vectors and the other implementation -------------------------------------------------------------------


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["protocol_name"])
def test_each_byte_is_as_in_the_published_vectors(vector: dict[str, Any]) -> None:
    def side(role: str, initiator: bool) -> HandshakeState:
        return HandshakeState(
            initiator,
            bytes.fromhex(vector[f"{role}_static"]),
            bytes.fromhex(vector["prologue"]),
            bytes.fromhex(vector["psk"]) if vector["psk"] else None,
            bytes.fromhex(vector[f"{role}_ephemeral"]),
        )

    sides = [side("init", True), side("resp", False)]
    messages = [(bytes.fromhex(m["payload"]), bytes.fromhex(m["ciphertext"])) for m in vector["messages"]]
    for number, (payload, ciphertext) in enumerate(messages[:3]):
        assert sides[number % 2].write_message(payload) == ciphertext
        assert sides[1 - number % 2].read_message(ciphertext) == payload
    assert [state.handshake_hash.hex() for state in sides] == [vector["handshake_hash"]] * 2
    assert sides[1].remote_static_public_key == public_key_of(bytes.fromhex(vector["init_static"]))
    assert sides[0].remote_static_public_key == public_key_of(bytes.fromhex(vector["resp_static"]))

    split = [state.split() for state in sides]
    for number, (payload, ciphertext) in enumerate(messages[3:], start=3):
        assert split[number % 2][0].encrypt(b"", payload) == ciphertext
        assert split[1 - number % 2][1].decrypt(b"", ciphertext) == payload


def other_implementation(psk: bytes | None, initiator: bool) -> NoiseConnection:
    name = b"Noise_XX%s_25519_ChaChaPoly_BLAKE2s" % (b"psk3" if psk else b"")
    connection = NoiseConnection.from_name(name)
    connection.set_prologue(PROLOGUE)
    connection.set_keypair_from_private_bytes(Keypair.STATIC, RESPONDER_KEY)
    if psk:
        connection.set_psks(psk)
    if initiator:
        connection.set_as_initiator()
    else:
        connection.set_as_responder()
    connection.start_handshake()
    return connection


@psks
@pytest.mark.parametrize("initiator", [True, False], ids=["we start", "they start"])
def test_talks_with_another_implementation_before_and_after_rekey(psk: bytes | None, initiator: bool) -> None:
    ours = HandshakeState(initiator, INITIATOR_KEY, PROLOGUE, psk)
    theirs = other_implementation(psk, not initiator)
    while not ours.finished:
        if ours.my_turn:
            assert theirs.read_message(ours.write_message(b"from us")) == b"from us"
        else:
            assert ours.read_message(bytes(theirs.write_message(b"from them"))) == b"from them"
    assert theirs.handshake_finished
    assert ours.handshake_hash == theirs.get_handshake_hash()
    assert ours.remote_static_public_key == public_key_of(RESPONDER_KEY)

    send, receive = ours.split()
    for _ in range(3):
        for number in range(3):
            assert theirs.decrypt(send.encrypt(b"", b"to them %d" % number)) == b"to them %d" % number
            assert receive.decrypt(b"", theirs.encrypt(b"to us %d" % number)) == b"to us %d" % number
        send.rekey()
        theirs.rekey_inbound_cipher()
        receive.rekey()
        theirs.rekey_outbound_cipher()


# -- what a handshake proves --------------------------------------------------------------------------------


@psks
def test_both_sides_learn_each_others_key_and_one_hash(psk: bytes | None) -> None:
    initiator, responder = pair(psk)
    shake_hands(initiator, responder)
    assert initiator.finished
    assert responder.finished
    assert initiator.remote_static_public_key == public_key_of(RESPONDER_KEY)
    assert responder.remote_static_public_key == public_key_of(INITIATOR_KEY)
    assert initiator.handshake_hash == responder.handshake_hash


def test_the_initiator_knows_the_other_key_before_it_shows_its_own() -> None:
    initiator, responder = pair()
    responder.read_message(initiator.write_message())
    with pytest.raises(NoiseMisuse):
        _ = initiator.remote_static_public_key
    initiator.read_message(responder.write_message())
    assert initiator.remote_static_public_key == public_key_of(RESPONDER_KEY)
    with pytest.raises(NoiseMisuse):
        _ = responder.remote_static_public_key


def test_no_two_handshakes_share_a_byte_of_key() -> None:
    first, second = ciphers()[0], ciphers()[0]
    assert first.encrypt(b"", bytes(64)) != second.encrypt(b"", bytes(64))


def test_another_prologue_is_refused_at_the_first_encrypted_message() -> None:
    initiator = HandshakeState(True, INITIATOR_KEY, b"group one")
    responder = HandshakeState(False, RESPONDER_KEY, b"group two")
    responder.read_message(initiator.write_message())
    with pytest.raises(NoiseRefused):
        initiator.read_message(responder.write_message())


def test_another_psk_is_refused_by_the_responder() -> None:
    initiator = HandshakeState(True, INITIATOR_KEY, PROLOGUE, bytes(32))
    responder = HandshakeState(False, RESPONDER_KEY, PROLOGUE, PSK)
    responder.read_message(initiator.write_message())
    initiator.read_message(responder.write_message())
    with pytest.raises(NoiseRefused):
        responder.read_message(initiator.write_message())


def test_a_side_with_a_psk_and_a_side_without_refuse_each_other() -> None:
    initiator = HandshakeState(True, INITIATOR_KEY, PROLOGUE, PSK)
    responder = HandshakeState(False, RESPONDER_KEY, PROLOGUE)
    responder.read_message(initiator.write_message())
    with pytest.raises(NoiseRefused):
        initiator.read_message(responder.write_message())


class LowOrderKey:
    """A "private key" whose public key is a point of low order: whatever it meets, the secret is zeros."""

    def __init__(self, point: str) -> None:
        self.point = bytes.fromhex(point)

    def public_key(self) -> LowOrderKey:
        return self

    def public_bytes_raw(self) -> bytes:
        return self.point


@pytest.fixture
def attacker_accepts_zeros(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = noise._agree

    def agree(private: Any, public: bytes) -> bytes:
        return bytes(32) if isinstance(private, LowOrderKey) else honest(private, public)

    monkeypatch.setattr(noise, "_agree", agree)


@pytest.mark.usefixtures("attacker_accepts_zeros")
@psks
@pytest.mark.parametrize("point", LOW_ORDER_POINTS)
@pytest.mark.parametrize("which", ["_ephemeral", "_static"])
@pytest.mark.parametrize("attacker_starts", [True, False])
def test_a_key_of_low_order_is_refused(point: str, psk: bytes | None, which: str, attacker_starts: bool) -> None:
    sides = pair(psk)
    attacker, victim = sides if attacker_starts else sides[::-1]
    setattr(attacker, which, LowOrderKey(point))

    def run() -> None:
        for number in range(3):
            sides[1 - number % 2].read_message(sides[number % 2].write_message())

    with pytest.raises(NoiseKeyRefused):
        run()
    assert not victim.finished
    with pytest.raises(NoiseDead):
        victim.split()


# -- damage: no altered message gets through ----------------------------------------------------------------


def run_with_damage(psk: bytes | None, damaged: int, damage: Any) -> None:
    """A handshake in which message `damaged` (0, 1 or 2) passes through `damage` on its way."""
    sides = pair(psk)
    for number in range(3):
        message = sides[number % 2].write_message(b"payload")
        sides[1 - number % 2].read_message(damage(message) if number == damaged else message)
    # Message 0 has no authentication of its own without a psk; what follows it has.
    initiator, responder = sides
    assert initiator.handshake_hash == responder.handshake_hash


@psks
@given(damaged=st.integers(0, 2), where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_anywhere_in_a_handshake_is_refused(
    psk: bytes | None, damaged: int, where: float, bit: int
) -> None:
    def flip(message: bytes) -> bytes:
        position = int(where * len(message))
        return message[:position] + bytes([message[position] ^ 1 << bit]) + message[position + 1 :]

    with pytest.raises(NoiseRefused):
        run_with_damage(psk, damaged, flip)


@psks
@pytest.mark.parametrize("damaged", [0, 1, 2])
def test_a_handshake_message_cut_at_any_byte_is_refused(psk: bytes | None, damaged: int) -> None:
    whole = len(b"payload") + [32 + (16 if psk else 0), 96, 64][damaged]
    for length in range(whole):
        with pytest.raises(NoiseRefused):
            run_with_damage(psk, damaged, lambda message, length=length: message[:length])


@psks
def test_a_first_message_too_short_for_its_key_is_refused_at_once(psk: bytes | None) -> None:
    for length in range(32 + (16 if psk else 0)):
        with pytest.raises(NoiseRefused, match="cut"):
            pair(psk)[1].read_message(bytes(length))


@psks
@given(damaged=st.integers(0, 2), extra=st.binary(min_size=1, max_size=40))
def test_a_handshake_message_with_bytes_added_is_refused(psk: bytes | None, damaged: int, extra: bytes) -> None:
    with pytest.raises(NoiseRefused):
        run_with_damage(psk, damaged, lambda message: message + extra)


@given(noise_bytes=st.binary(max_size=300), message=st.integers(0, 1))
def test_random_bytes_never_finish_a_handshake_nor_raise_anything_untyped(noise_bytes: bytes, message: int) -> None:
    initiator, responder = pair(PSK)
    reader = responder
    if message == 1:
        initiator.write_message()
        reader = initiator
    with pytest.raises(NoiseRefused):
        reader.read_message(noise_bytes)


@given(
    plaintext=st.binary(max_size=200),
    ad=st.binary(max_size=20),
    where=st.floats(0, 1, exclude_max=True),
    bit=st.integers(0, 7),
)
def test_a_flipped_bit_in_a_transport_message_is_refused(plaintext: bytes, ad: bytes, where: float, bit: int) -> None:
    send, receive = CipherState(bytes(32)), CipherState(bytes(32))
    message = bytearray(send.encrypt(ad, plaintext))
    message[int(where * len(message))] ^= 1 << bit
    with pytest.raises(NoiseRefused):
        receive.decrypt(ad, message)


@given(plaintext=st.binary(max_size=60), length=st.floats(0, 1, exclude_max=True))
def test_a_cut_transport_message_is_refused(plaintext: bytes, length: float) -> None:
    send, receive = CipherState(bytes(32)), CipherState(bytes(32))
    message = send.encrypt(b"", plaintext)
    with pytest.raises(NoiseRefused):
        receive.decrypt(b"", message[: int(length * len(message))])


def test_other_associated_data_is_refused() -> None:
    send, receive = ciphers()
    with pytest.raises(NoiseRefused):
        receive.decrypt(b"two", send.encrypt(b"one", b"text"))


@given(order=st.lists(st.integers(0, 4), min_size=1, max_size=8))
def test_only_the_order_of_sending_is_accepted(order: list[int]) -> None:
    """Repeated, swapped and left out messages: the reader gets the longest true beginning, then nothing."""
    send, receive = CipherState(bytes(32)), CipherState(bytes(32))
    messages = [send.encrypt(b"", b"%d" % number) for number in range(5)]
    for expected, number in enumerate(order):
        if number != expected:
            with pytest.raises(NoiseRefused):
                receive.decrypt(b"", messages[number])
            return
        assert receive.decrypt(b"", messages[number]) == b"%d" % number


def test_a_message_reflected_to_its_sender_is_refused() -> None:
    initiator, responder = pair()
    shake_hands(initiator, responder)
    send, receive = initiator.split()
    with pytest.raises(NoiseRefused):
        receive.decrypt(b"", send.encrypt(b"", b"text"))


# -- after a refusal, and other ends ------------------------------------------------------------------------


def test_a_refused_handshake_message_ends_the_handshake() -> None:
    initiator, responder = pair()
    responder.read_message(initiator.write_message())
    good = responder.write_message()
    with pytest.raises(NoiseRefused):
        initiator.read_message(good[:-1])
    for call in (lambda: initiator.read_message(good), initiator.write_message, initiator.split):
        with pytest.raises(NoiseDead):
            call()
    with pytest.raises(NoiseDead):
        _ = initiator.remote_static_public_key
    assert not initiator.finished


def test_a_refused_transport_message_ends_the_direction() -> None:
    send, receive = ciphers()
    good = send.encrypt(b"", b"text")
    with pytest.raises(NoiseRefused):
        receive.decrypt(b"", good[:-1])
    with pytest.raises(NoiseDead):
        receive.decrypt(b"", good)
    with pytest.raises(NoiseDead):
        receive.rekey()


def test_a_side_that_rekeys_alone_is_refused() -> None:
    send, receive = ciphers()
    send.rekey()
    with pytest.raises(NoiseRefused):
        receive.decrypt(b"", send.encrypt(b"", b"text"))


def test_rekey_does_not_start_the_count_again() -> None:
    send, receive = ciphers()
    receive.decrypt(b"", send.encrypt(b"", b"first"))
    send.rekey()
    receive.rekey()
    assert next(send._nonces) == 1
    assert next(receive._nonces) == 1


def test_the_last_nonce_is_never_used() -> None:
    send, receive = ciphers()
    send._nonces = itertools.count(MAX_NONCE - 1)
    receive._nonces = itertools.count(MAX_NONCE - 1)
    assert receive.decrypt(b"", send.encrypt(b"", b"the last")) == b"the last"
    with pytest.raises(NoiseNonceExhausted):
        send.encrypt(b"", b"one too many")
    with pytest.raises(NoiseNonceExhausted):
        receive.decrypt(b"", bytes(16))
    with pytest.raises(NoiseDead):
        send.encrypt(b"", b"one too many")


def test_a_failed_encryption_does_not_give_its_nonce_to_the_next() -> None:
    send, _ = ciphers()
    with pytest.raises(TypeError):
        send.encrypt(b"", [1, 2, 3])  # type: ignore[arg-type] # a list is what the test is about
    assert next(send._nonces) == 1


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_nothing_that_counts_nonces_can_be_copied(duplicate: Any) -> None:
    for state in (*ciphers(), *pair()):
        with pytest.raises(TypeError):
            duplicate(state)


def test_split_works_once() -> None:
    initiator, responder = pair()
    with pytest.raises(NoiseMisuse):
        initiator.split()
    shake_hands(initiator, responder)
    initiator.split()
    with pytest.raises(NoiseMisuse):
        initiator.split()


def test_a_forked_child_cannot_repeat_its_parents_nonces() -> None:
    send, receive = ciphers()
    handshake = pair()[0]
    child = os.fork()
    if child == 0:
        refused = 0
        for call in (lambda: send.encrypt(b"", b"from the child"), send.rekey, handshake.write_message):
            try:
                call()
            except NoiseMisuse:
                refused += 1
        os._exit(0 if refused == 3 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert receive.decrypt(b"", send.encrypt(b"", b"from the parent")) == b"from the parent"


# -- sizes, turns, arguments --------------------------------------------------------------------------------


def test_the_largest_transport_message_passes_and_one_byte_more_does_not() -> None:
    send, receive = ciphers()
    largest = send.encrypt(b"", bytes(MAX_PLAINTEXT_BYTES))
    assert len(largest) == MAX_MESSAGE_BYTES
    assert receive.decrypt(b"", largest) == bytes(MAX_PLAINTEXT_BYTES)
    with pytest.raises(NoiseMisuse):
        send.encrypt(b"", bytes(MAX_PLAINTEXT_BYTES + 1))
    with pytest.raises(NoiseTooLong):
        receive.decrypt(b"", bytes(MAX_MESSAGE_BYTES + 1))
    with pytest.raises(NoiseDead):
        receive.decrypt(b"", send.encrypt(b"", b"text"))
    assert len(send.encrypt(b"", b"still usable")) == 28


@psks
def test_the_largest_handshake_messages_pass_and_one_byte_more_does_not(psk: bytes | None) -> None:
    sides = pair(psk)
    for number, overhead in enumerate([32 + (16 if psk else 0), 96, 64]):
        room = MAX_MESSAGE_BYTES - overhead
        with pytest.raises(NoiseMisuse):
            sides[number % 2].write_message(bytes(room + 1))
        message = sides[number % 2].write_message(bytes(room))
        assert len(message) == MAX_MESSAGE_BYTES
        assert sides[1 - number % 2].read_message(message) == bytes(room)
    with pytest.raises(NoiseTooLong):
        pair(psk)[1].read_message(bytes(MAX_MESSAGE_BYTES + 1))


def test_a_call_out_of_turn_is_refused_and_changes_nothing() -> None:
    initiator, responder = pair()
    with pytest.raises(NoiseMisuse):
        initiator.read_message(bytes(32))
    with pytest.raises(NoiseMisuse):
        responder.write_message()
    with pytest.raises(NoiseMisuse):
        _ = initiator.handshake_hash
    shake_hands(initiator, responder)
    for state in (initiator, responder):
        with pytest.raises(NoiseMisuse):
            state.write_message()
        with pytest.raises(NoiseMisuse):
            state.read_message(bytes(64))


@pytest.mark.parametrize(
    "arguments",
    [
        {"static_private_key": bytes(31)},
        {"static_private_key": bytes(33)},
        {"static_private_key": "x" * 32},
        {"static_private_key": INITIATOR_KEY, "psk": bytes(31)},
        {"static_private_key": INITIATOR_KEY, "psk": b""},
        {"static_private_key": INITIATOR_KEY, "ephemeral_private_key": b""},
    ],
)
def test_keys_of_the_wrong_size_or_type_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(NoiseMisuse, match="must be 32 bytes"):
        HandshakeState(True, **arguments)


def test_no_repr_and_no_error_shows_a_key() -> None:
    initiator, responder = pair(PSK)
    texts = [repr(initiator), repr(responder)]
    shake_hands(initiator, responder)
    send, _ = initiator.split()
    texts += [repr(initiator), repr(send)]
    with pytest.raises(NoiseMisuse) as caught:
        HandshakeState(True, INITIATOR_KEY[:-1])
    texts.append(str(caught.value))
    for text in texts:
        for secret in (INITIATOR_KEY, RESPONDER_KEY, PSK, send._key):
            assert secret.hex() not in text
            assert repr(secret) not in text
