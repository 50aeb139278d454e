"""Links: what is sent arrives, nothing else does, and nothing is left when they end."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from linking import (
    BRISK,
    GROUP,
    OTHER_GROUP,
    PATIENCE,
    POSITION,
    Recorder,
    Wire,
    connection,
    credentials,
    greet,
    identity,
    linked,
    no_socket_left,
    wait_until,
)

from replication.frames import LIMITS, MAX_FIRST_BODY_BYTES, PASSED_OVER, Lane, Opener, Outbox, Sealer
from replication.handshake import (
    Credentials,
    Introduced,
    LinkBroken,
    LinkClosed,
    LinkError,
    LinkLost,
    LinkRefused,
    LinkSilent,
    LinkStalled,
    Purpose,
    introduce,
)
from replication.link import Link, Position, Room, Timing
from replication.messages import (
    FILE_CHUNK_BYTES,
    Ack,
    FileAsked,
    FileChunk,
    Gap,
    Goodbye,
    Hello,
    Incoming,
    Log,
    Lsn,
    Message,
    MessageRefused,
    Ping,
    Pong,
    Ready,
    Reason,
    Route,
    encode,
    judge,
)
from replication.noise import MAX_PLAINTEXT_BYTES, HandshakeState, NoiseError, Readable

SECRET = b"the address of Ada"


@pytest.fixture(autouse=True)
def no_sockets_left() -> Iterator[None]:
    with no_socket_left():
        yield


def log(number: int, size: int = 100) -> Log:
    return Log(number, b"control", bytes(size))


def numbers(recorder: Recorder) -> list[int]:
    return [message.flags for message in recorder.messages if type(message) is Log]


# -- frames -----------------------------------------------------------------------------------------------------


def ciphers(rekey_frames: int = 1 << 16, limits: dict[Lane, int] | None = None) -> tuple[Sealer, Opener]:
    """The sending end and the receiving end of one direction."""
    initiator = HandshakeState(True, bytes(range(32)), b"p", None, bytes(range(1, 33)))
    responder = HandshakeState(False, bytes(range(32, 64)), b"p", None, bytes(range(2, 34)))
    responder.read_message(initiator.write_message())
    initiator.read_message(responder.write_message())
    responder.read_message(initiator.write_message())
    return Sealer(initiator.split()[0], rekey_frames), Opener(responder.split()[1], limits, rekey_frames)


def sealed(sealer: Sealer, *bodies: bytes, lane: Lane = Lane.BULK) -> list[bytes]:
    """One frame for each short body."""
    return [sealer.seal([bytes((lane,)) + struct.pack(">I", len(body)) + body]) for body in bodies]


def opened(opener: Opener, data: bytes) -> list[bytes]:
    bodies, used = opener.open(memoryview(data))
    assert used == len(data)
    return [bytes(body) for body in bodies]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(Lane), st.integers(1, 150_000)), max_size=10),
    st.integers(2, 6),
    st.integers(3_000, 70_000),
    st.integers(1, 5),
)
def test_messages_come_out_whole_and_in_the_order_of_their_lane(
    sent: list[tuple[Lane, int]], frames: int, piece: int, rekey_frames: int
) -> None:
    sealer, opener = ciphers(rekey_frames, dict.fromkeys(Lane, 200_000))
    outbox = Outbox()
    for number, (lane, size) in enumerate(sent):
        outbox.append(lane, bytes((number, lane)) + bytes(size - 1))
    stream = b""
    while outbox:
        plaintexts = outbox.take(frames)
        assert 0 < len(plaintexts) <= frames
        stream += sealer.seal(plaintexts)
    assert outbox.waiting == [0, 0, 0]
    got: list[bytes] = []
    pending = b""
    for start in range(0, len(stream), piece):
        pending += stream[start : start + piece]
        bodies, used = opener.open(memoryview(pending))
        got += [bytes(body) for body in bodies]
        pending = pending[used:]
    assert not pending
    for lane in Lane:
        expected = [(number, size) for number, (own, size) in enumerate(sent) if own is lane]
        assert [(body[0], len(body) - 1) for body in got if body[1] == lane] == expected


def test_what_is_urgent_goes_before_what_waits_and_does_not_keep_it_out() -> None:
    outbox = Outbox()
    for _ in range(4):
        outbox.append(Lane.BULK, bytes(1 << 20))
    outbox.take(4)
    for _ in range(200):
        outbox.append(Lane.URGENT, bytes(60_000))
    assert [plaintext[0] for plaintext in outbox.take(4)] == [Lane.URGENT] * 3 + [Lane.BULK]


def test_files_wait_for_the_other_lanes_and_are_not_left_behind_for_ever() -> None:
    outbox = Outbox()
    for _ in range(40):
        outbox.append(Lane.BULK, bytes(200_000))
        outbox.append(Lane.FILES, bytes(FILE_CHUNK_BYTES + 41))
    taken = [[plaintext[0] for plaintext in outbox.take(4)] for _ in range(PASSED_OVER + 1)]
    assert taken == [[Lane.BULK] * 4] * PASSED_OVER + [[Lane.BULK] * 3 + [Lane.FILES]]


def test_bytes_of_a_file_fill_one_frame() -> None:
    outbox = Outbox()
    for _ in range(3):
        outbox.append(Lane.FILES, encode(FileChunk(bytes(32), 0, bytes(FILE_CHUNK_BYTES))))
    assert [len(plaintext) for plaintext in outbox.take(4)] == [MAX_PLAINTEXT_BYTES] * 3


def test_who_sends_a_file_waits_for_room_and_hears_when_there_is_nobody_to_take_it() -> None:
    with linked(BRISK, Room(file_bytes=1)) as (near, _, far, heard):
        chunk = FileChunk(bytes(32), 0, bytes(FILE_CHUNK_BYTES))
        for _ in range(20):
            assert near.send_file(chunk, PATIENCE)
        heard.wait_until(lambda: heard.messages == [chunk] * 20)
        far.close()
        assert near.wait_ended(PATIENCE)
        with pytest.raises(LinkError):
            near.send_file(chunk, PATIENCE)


def test_a_device_that_reads_nothing_costs_its_sender_no_more_than_the_room_for_files() -> None:
    room = 200_000
    with linked(room=Room(file_bytes=room)) as (near, _, _, heard):
        gate, take = threading.Event(), heard.on_messages

        def when_open(link: Link, messages: list[Incoming]) -> None:
            gate.wait(PATIENCE)
            take(link, messages)

        heard.on_messages = when_open  # type: ignore[method-assign]
        chunk = FileChunk(bytes(32), 0, bytes(FILE_CHUNK_BYTES))
        sent = 0
        while near.send_file(chunk, 0.1):
            sent += 1
            assert near._outbox.waiting[Lane.FILES] <= room + len(encode(chunk))
        assert near.open
        gate.set()
        heard.wait_until(lambda: heard.messages == [chunk] * sent)


def test_a_stream_cut_at_any_byte_gives_the_messages_before_the_cut_and_no_byte_more() -> None:
    sealer, _ = ciphers()
    frames = sealed(sealer, b"one", b"two", b"three")
    stream = b"".join(frames)
    ends = [len(frames[0]), len(frames[0] + frames[1]), len(stream)]
    for cut in range(len(stream) + 1):
        bodies, used = ciphers()[1].open(memoryview(stream[:cut]))
        assert len(bodies) == sum(end <= cut for end in ends)
        assert used == max([0, *(end for end in ends if end <= cut)])


def test_a_change_in_any_byte_is_refused() -> None:
    stream = b"".join(sealed(ciphers()[0], b"one", b"two"))
    for place in range(len(stream)):
        changed = bytearray(stream)
        changed[place] ^= 1
        opener = ciphers()[1]
        bodies: list[Readable] = []
        with contextlib.suppress(NoiseError, MessageRefused):
            bodies, _ = opener.open(memoryview(changed))
        assert [bytes(body) for body in bodies] in ([], [b"one"])  # a longer length waits for bytes that never come


@pytest.mark.parametrize("order", [(0, 0), (1,), (1, 0), (0, 2), (0, 1, 0), (0, 1, 1)], ids=str)
def test_a_frame_that_is_repeated_left_out_or_out_of_order_is_refused(order: tuple[int, ...]) -> None:
    sealer, opener = ciphers()
    frames = sealed(sealer, b"0", b"1", b"2")
    got: list[bytes] = []
    with contextlib.suppress(NoiseError):
        for number in order:
            got += opened(opener, frames[number])
    assert got == [b"0", b"1", b"2"][: len(got)]
    assert len(got) < len(order)
    with pytest.raises(NoiseError):
        opener.open(memoryview(frames[2]))


def test_a_frame_of_our_own_sent_back_is_refused() -> None:
    initiator = HandshakeState(True, bytes(range(32)))
    responder = HandshakeState(False, bytes(range(32, 64)))
    responder.read_message(initiator.write_message())
    initiator.read_message(responder.write_message())
    responder.read_message(initiator.write_message())
    send, receive = initiator.split()
    with pytest.raises(NoiseError):
        opened(Opener(receive), sealed(Sealer(send), b"one")[0])


@pytest.mark.parametrize(
    "plaintext",
    [
        bytes((Lane.BULK,)) + b"\xff\xff\xff\xff",
        bytes((Lane.BULK,)) + struct.pack(">I", LIMITS[Lane.BULK] + 1) + b"x",
        bytes((Lane.URGENT,)) + struct.pack(">I", LIMITS[Lane.URGENT] + 1) + b"x",
        bytes((Lane.URGENT,)) + bytes(4),
        bytes((Lane.URGENT,)) + b"\0\0\0",
        bytes((Lane.FILES,)) + struct.pack(">I", LIMITS[Lane.FILES] + 1) + b"x",
        b"\x03" + struct.pack(">I", 1) + b"x",
        b"\xff" + struct.pack(">I", 1) + b"x",
    ],
    ids=[
        "4 GB",
        "too long",
        "too long to be urgent",
        "empty",
        "cut in its length",
        "too long a file",
        "lane 3",
        "lane 255",
    ],
)
def test_an_unsound_frame_of_a_true_member_is_refused(plaintext: bytes) -> None:
    sealer, opener = ciphers()
    with pytest.raises(MessageRefused):
        opener.open(memoryview(sealer.seal([plaintext])))


@pytest.mark.parametrize("length", range(18))
def test_a_frame_too_short_to_hold_anything_is_refused_unread(length: int) -> None:
    with pytest.raises(MessageRefused):
        ciphers()[1].open(memoryview(struct.pack(">H", length)))


def test_the_keys_change_after_so_many_frames_on_both_sides_and_only_so() -> None:
    sealer, opener = ciphers(rekey_frames=3)
    _, stubborn = ciphers(rekey_frames=1 << 16)
    frames = sealed(sealer, *(b"%d" % number for number in range(10)))
    assert [opened(opener, frame)[0] for frame in frames] == [b"%d" % number for number in range(10)]
    assert [opened(stubborn, frame)[0] for frame in frames[:3]] == [b"0", b"1", b"2"]
    with pytest.raises(NoiseError):
        opened(stubborn, frames[3])


# -- who gets in ------------------------------------------------------------------------------------------------


def meet(one: Credentials, other: Credentials) -> tuple[Introduced | LinkError, Introduced | LinkError]:
    near, far = connection()
    outcomes = greet(near, far, one, other)
    near.close()
    far.close()
    return outcomes


def test_two_members_learn_who_the_other_is_and_one_of_them_decides() -> None:
    one, other = meet(credentials("laptop", "desktop"), credentials("desktop", "laptop"))
    assert isinstance(one, Introduced)
    assert isinstance(other, Introduced)
    assert one.device_id == identity("desktop").device_id
    assert other.device_id == identity("laptop").device_id
    assert (one.hello.name, other.hello.name, one.version, other.version) == ("desktop", "laptop", 1, 1)
    assert one.handshake_hash == other.handshake_hash
    assert one.decides != other.decides
    assert one.decides == (identity("laptop").device_id < identity("desktop").device_id)


def test_a_device_without_pairing_is_told_and_gets_no_further() -> None:
    one, other = meet(credentials("stranger"), credentials("desktop", "laptop"))
    assert isinstance(one, LinkClosed)
    assert one.reason is Reason.NOT_A_MEMBER
    assert isinstance(other, LinkRefused)
    assert other.reason is Reason.NOT_A_MEMBER


def test_a_device_shows_its_key_only_to_a_device_that_it_accepts() -> None:
    one, other = meet(credentials("laptop", "desktop"), credentials("stranger"))
    assert isinstance(one, LinkRefused)
    assert one.reason is Reason.NOT_A_MEMBER
    assert isinstance(other, LinkLost)  # the third message, which has the key, never came


@pytest.mark.parametrize("dials", ["the removed device", "the other one"])
def test_a_removed_device_is_told_so_whoever_connects(dials: str) -> None:
    removed, other = credentials("phone"), credentials("desktop", "laptop", removed=("phone",))
    if dials == "the removed device":
        at_removed, at_other = meet(removed, other)
    else:
        at_other, at_removed = meet(other, removed)
    assert isinstance(at_removed, LinkClosed)
    assert at_removed.reason is Reason.REMOVED
    assert "its data is kept" in str(at_removed)
    assert isinstance(at_other, LinkRefused)
    assert at_other.reason is Reason.REMOVED


def test_a_member_of_another_group_does_not_get_in() -> None:
    for outcome in meet(credentials("laptop"), credentials("desktop", group=OTHER_GROUP)):
        assert isinstance(outcome, LinkBroken | LinkLost)


def test_a_device_that_meets_itself_says_so() -> None:
    one, _ = meet(credentials("laptop"), credentials("laptop"))
    assert isinstance(one, LinkRefused)
    assert one.reason is Reason.SAME_DEVICE


def test_a_machine_in_the_middle_that_answers_for_both_gets_nothing_of_either() -> None:
    near, middle_near = connection()
    middle_far, far = connection()
    outcomes: list[tuple[Introduced | LinkError, Introduced | LinkError]] = []
    thread = threading.Thread(
        target=lambda: outcomes.append(greet(near, middle_near, credentials("laptop", "desktop"), credentials("evil")))
    )
    thread.start()
    outcomes.append(greet(middle_far, far, credentials("evil"), credentials("desktop", "laptop")))
    thread.join()
    assert all(isinstance(outcome, LinkError) for pair in outcomes for outcome in pair)
    for sock in (near, middle_near, middle_far, far):
        sock.close()


def test_a_handshake_changed_at_any_byte_on_the_way_fails_on_both_sides() -> None:
    for place in range(12 + 2 + 32 + 2 + 64):  # of what the initiator sends before HELLO
        wire = Wire()
        position = 0

        def flip(data: bytes, place: int = place) -> bytes:
            nonlocal position
            changed = bytearray(data)
            if position <= place < position + len(data):
                changed[place - position] ^= 0x40
            position += len(data)
            return bytes(changed)

        wire.change = flip
        outcomes = greet(*wire.ends, credentials("laptop"), credentials("desktop"))
        wire.close()
        assert all(isinstance(outcome, LinkError) for outcome in outcomes), place
        for sock in wire.ends:
            sock.close()


def test_no_message_of_a_device_that_is_not_accepted_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*arguments: object) -> None:
        raise AssertionError("a frame of a stranger was opened")

    monkeypatch.setattr(Opener, "open", read)
    one, _ = meet(credentials("stranger", "laptop"), credentials("desktop", "laptop"))
    assert isinstance(one, LinkRefused)
    near, far = connection()
    stranger = HandshakeState(True, identity("stranger").private_key, Purpose.LINK.value + GROUP)
    near.sendall(_framed(stranger.write_message()))
    thread = threading.Thread(target=_answer_stranger, args=(near, stranger))
    thread.start()
    with pytest.raises(LinkRefused):
        introduce(far, credentials("desktop", "laptop"), initiator=False, deadline=time.monotonic() + PATIENCE)
    thread.join()
    near.close()


def _framed(message: bytes) -> bytes:
    return len(message).to_bytes(2) + message


def _answer_stranger(sock: socket.socket, noise: HandshakeState) -> None:
    """Finish the handshake, and send a message with it."""
    noise.read_message(sock.recv(98, socket.MSG_WAITALL)[2:])
    third = _framed(noise.write_message())
    sealer = Sealer(noise.split()[0])
    sock.sendall(third + sealer.seal_alone(encode(credentials("stranger").hello())))
    while sock.recv(1 << 16):
        pass
    sock.close()


def test_devices_without_a_common_version_part_with_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    newer = Hello(9, 5, "desktop", identity("desktop").device_id.digest, bytes(16))
    desktop = credentials("desktop")
    monkeypatch.setattr(Credentials, "hello", lambda self: newer if self is desktop else honest(self))
    one, other = meet(credentials("laptop"), desktop)
    assert {type(one), type(other)} <= {LinkRefused, LinkClosed}
    assert isinstance(one, LinkError)
    assert isinstance(other, LinkError)
    assert one.reason is other.reason is Reason.VERSION
    assert "update Atop" in str(one)


honest: Callable[[Credentials], Hello] = Credentials.hello


@pytest.mark.parametrize(
    "first",
    [
        Hello(1, 1, "laptop", identity("phone").device_id.digest, bytes(16)),
        Ready(1),
        Log(1, b"", SECRET),
        Ack(1, 1, Lsn(1, 1)),
        Log(1, b"", bytes(MAX_FIRST_BODY_BYTES)),
    ],
    ids=["an id of another device", "READY", "a log message", "ACK", "a long message"],
)
def test_a_member_whose_first_message_is_wrong_gets_no_link(first: Message, monkeypatch: pytest.MonkeyPatch) -> None:
    laptop = credentials("laptop")
    monkeypatch.setattr(Credentials, "hello", lambda self: first if self is laptop else honest(self))
    near, far = connection()
    monkeypatch.setattr("replication.handshake.agreed_version", lambda ours, theirs: 1)
    _, other = greet(near, far, laptop, credentials("desktop"))
    assert isinstance(other, LinkBroken)
    assert SECRET.decode() not in str(other)
    near.close()
    far.close()


# -- a link that is up --------------------------------------------------------------------------------------------


def test_messages_arrive_on_both_sides_in_order() -> None:
    with linked() as (one, at_one, other, at_other):
        for number in range(1_000):
            assert one.send_log(log(number))
            other.send(Ack(1, number, Lsn(1, number)))
        at_other.wait_until(lambda: len(at_other.messages) == 1_000)
        at_one.wait_until(lambda: len(at_one.messages) == 1_000)
        assert numbers(at_other) == list(range(1_000))
        assert at_one.messages == [Ack(1, number, Lsn(1, number)) for number in range(1_000)]


def test_a_message_of_many_frames_arrives_whole() -> None:
    record = os.urandom(3_000_000)
    with linked() as (one, _, _, at_other):
        one.send_log(Log(1, b"control", record))
        at_other.wait_until(lambda: at_other.messages)
        assert at_other.messages == [Log(1, b"control", record)]


def test_a_route_arrives_with_its_message() -> None:
    route = Route(bytes(32), b"\1" * 32)
    heard: list[Incoming] = []

    class Routed(Recorder):
        def on_messages(self, link: Link, messages: list[Incoming]) -> None:
            heard.extend(message for message in messages if message.route is not None)
            super().on_messages(link, messages)

    near, far = connection()
    one, other = greet(near, far, credentials("laptop"), credentials("desktop"))
    assert isinstance(one, Introduced)
    assert isinstance(other, Introduced)
    recorder = Routed()
    links = Link(one, Recorder()), Link(other, recorder)
    for link in links:
        link.start()
    links[0].send_log(log(1), route)
    links[0].send(Gap(1))
    recorder.wait_until(lambda: len(recorder.messages) == 2)
    assert heard == [Incoming(log(1), route)]
    for link in links:
        link.close()


def test_pings_tell_where_each_side_is_and_how_long_the_way_takes() -> None:
    with linked(BRISK) as (one, at_one, other, at_other):
        for link, recorder in ((one, at_one), (other, at_other)):
            recorder.wait_until(lambda recorder=recorder: len(recorder.pings) >= 3)
            wait_until(lambda link=link: link.status().round_trip is not None)
            ping = recorder.pings[0]
            assert Position(ping.clock, ping.generation, ping.commit, ping.lsn) == POSITION


def test_silence_ends_a_link() -> None:
    near, far = connection()
    one, _ = greet(near, far, credentials("laptop"), credentials("desktop"))
    assert isinstance(one, Introduced)
    recorder = Recorder()
    link = Link(one, recorder, Timing(ping_seconds=0.05, silence_seconds=0.2))
    link.start()  # the other end is there, and says nothing
    assert link.wait_ended(PATIENCE)
    assert isinstance(link.failure, LinkSilent)
    assert recorder.events == ["closed"]
    with pytest.raises(LinkSilent):
        link.send(Gap(1))
    assert not link.send_log(log(1))
    far.close()


def test_a_cut_connection_ends_a_link_on_both_sides() -> None:
    wire = Wire()
    with linked(wire=wire) as (one, at_one, other, at_other):
        wire.close()
        assert one.wait_ended(PATIENCE)
        assert other.wait_ended(PATIENCE)
        assert isinstance(one.failure, LinkLost)
        assert isinstance(other.failure, LinkLost)
        assert at_one.events == at_other.events == ["closed"]


def _flip(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.parametrize(
    "change",
    [_flip, lambda data: data + data, lambda data: data[:5] + data[6:], lambda data: bytes(len(data))],
    ids=["changed", "repeated", "a byte missing", "zeros"],
)
def test_what_is_changed_on_the_way_ends_the_link_and_is_not_delivered(change: Callable[[bytes], bytes]) -> None:
    wire = Wire()
    with linked(wire=wire) as (one, _, other, at_other):
        at_other.wait_until(lambda: at_other.pings)
        wire.change = change
        one.send_log(Log(1, b"", SECRET * 10))
        one.send(Gap(1))
        wait_until(lambda: len(wire.seen) > 3)
        one.send_log(Log(2, b"", SECRET * 10_000))
        assert other.wait_ended(PATIENCE)
        assert isinstance(other.failure, LinkBroken | LinkLost)
        allowed = (Log(1, b"", SECRET * 10), Gap(1))
        assert all(at_other.messages.count(message) == 1 and message in allowed for message in at_other.messages)
        assert SECRET.decode() not in str(other.failure)


def test_what_was_recorded_cannot_be_played_again() -> None:
    wire = Wire()
    with linked(wire=wire) as (one, _, other, at_other):
        at_other.wait_until(lambda: at_other.pings)
        before = len(wire.seen)
        one.send_log(log(1))
        at_other.wait_until(lambda: at_other.messages)
        wire.inject(b"".join(wire.seen[before:]))
        assert other.wait_ended(PATIENCE)
        assert isinstance(other.failure, LinkBroken)
        assert at_other.messages == [log(1)]


class Impostor:
    """A true member at the near end, whose program does what it wants; a link at the far end."""

    def __init__(self, timing: Timing | None = None, room: Room | None = None) -> None:
        self.sock, far = connection()
        self.introduced, other = greet(self.sock, far, credentials("laptop"), credentials("desktop"))
        assert isinstance(self.introduced, Introduced)
        assert isinstance(other, Introduced)
        self.recorder = Recorder()
        self.link = Link(other, self.recorder, timing or Timing(close_seconds=0.1), room)
        self.link.start()

    def send(self, *bodies: bytes) -> None:
        assert isinstance(self.introduced, Introduced)
        for body in bodies:
            self.sock.sendall(self.introduced.sealer.seal_alone(body))

    def heard(self) -> list[Message]:
        """All that the link sends until it ends."""
        assert isinstance(self.introduced, Introduced)
        self.introduced.opener.limits = LIMITS
        data = b""
        self.sock.settimeout(PATIENCE)
        with contextlib.suppress(ConnectionError):
            while more := self.sock.recv(1 << 16):
                data += more
        return [judge(body).message for body in self.introduced.opener.open(memoryview(data))[0]]

    def __enter__(self) -> Impostor:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()
        self.link.close()


WRONG = {
    "garbage": b"\1garbage " + SECRET,
    "nothing known": b"\x07" + SECRET,
    "HELLO again": encode(Hello(1, 1, "laptop", bytes(32), bytes(16))),
    "READY on a link that is up": encode(Ready(1)),
    "a PING of another device": encode(Ping(1, 2, 3, 4, Lsn(5, 6)), Route(bytes(32), b"\1" * 32)),
    "a cut log message": encode(log(1))[:10],
}


@pytest.mark.parametrize("body", WRONG.values(), ids=WRONG)
def test_a_wrong_message_of_a_true_member_ends_its_link_and_nothing_else(body: bytes) -> None:
    with Impostor() as member:
        member.send(encode(log(1)), body, encode(log(2)))
        assert member.heard()[-1] == Goodbye(Reason.WRONG_MESSAGE)
        assert member.link.wait_ended(PATIENCE)
        assert isinstance(member.link.failure, LinkBroken)
        assert member.recorder.messages in ([], [log(1)])
        assert SECRET.decode() not in str(member.link.failure)


@pytest.mark.slow
def test_a_flood_of_pings_from_a_member_that_reads_nothing_ends_its_link() -> None:
    room = Room(request_bytes=20_000)
    with Impostor(Timing(stall_seconds=0.3, silence_seconds=PATIENCE), room) as member:
        ping = encode(Ping(1, 2, 3, 4, Lsn(5, 6)))
        with contextlib.suppress(OSError):
            while member.link.open:
                member.send(*[ping] * 500)
        assert member.link.wait_ended(PATIENCE)
        assert isinstance(member.link.failure, LinkStalled | LinkLost)
        assert member.link.status().waiting_bytes <= room.request_bytes + 100


def fill(link: Link, size: int = 50_000, *, asked: bool = False) -> int:
    """Send log messages until they are dropped; return how many were taken."""
    taken = 0
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if not link.send_log(log(taken, size), asked=asked):
            return taken
        taken += 1
    raise AssertionError("the queue has no bound")


def test_a_side_that_reads_nothing_costs_bounded_memory_and_requests_fail_clearly() -> None:
    room = Room(log_bytes=1_000_000, request_bytes=100_000)
    with Impostor(Timing(stall_seconds=PATIENCE, silence_seconds=PATIENCE), room) as member:
        link = member.link
        fill(link)
        with pytest.raises(LinkStalled, match="does not take"):
            send_for_ever(link, Gap(1))
        assert link.status().waiting_bytes <= room.log_bytes + room.request_bytes
        assert link.status().dropped_logs > 0
        assert link.open


def test_log_messages_that_were_asked_for_have_more_room_which_has_an_end_too() -> None:
    room = Room(log_bytes=1_000_000, answer_bytes=2_000_000)
    with Impostor(Timing(stall_seconds=PATIENCE, silence_seconds=PATIENCE), room) as member:
        fill(member.link)
        before = member.link.status().waiting_bytes
        assert before <= room.log_bytes
        assert fill(member.link, asked=True) > 10
        assert before < member.link.status().waiting_bytes <= room.answer_bytes


def test_a_side_that_reads_nothing_for_long_is_given_up() -> None:
    with Impostor(Timing(stall_seconds=0.3, silence_seconds=PATIENCE), Room(log_bytes=1_000_000)) as member:
        fill(member.link)
        assert member.link.wait_ended(PATIENCE)
        assert isinstance(member.link.failure, LinkStalled)


def send_for_ever(link: Link, message: Message) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        link.send(message)


class Blocked(Recorder):
    """A handler that is busy until the test lets it go on."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = threading.Event()

    def on_messages(self, link: Link, messages: list[Incoming]) -> None:
        assert self.go_on.wait(PATIENCE)
        super().on_messages(link, messages)


def test_after_log_messages_were_dropped_the_other_side_hears_of_it_behind_those_that_were_not() -> None:
    near, far = connection()
    one, other = greet(near, far, credentials("laptop"), credentials("desktop"))
    assert isinstance(one, Introduced)
    assert isinstance(other, Introduced)
    busy = Blocked()
    links = Link(one, Recorder(), Timing(silence_seconds=PATIENCE), Room(log_bytes=500_000)), Link(other, busy)
    for link in links:
        link.start()
    taken = fill(links[0])
    assert not links[0].send_log(log(999, 1))  # even a small one: what is lost is one piece
    busy.go_on.set()
    busy.wait_until(lambda: any(type(message) is Gap for message in busy.messages))
    assert busy.messages == [*(log(number, 50_000) for number in range(taken)), Gap(2)]
    assert links[0].send_log(log(taken))
    busy.wait_until(lambda: busy.messages[-1] == log(taken))
    for link in links:
        link.close()


def test_a_large_request_is_taken_though_logs_wait_and_the_next_one_is_not() -> None:
    room = Room(log_bytes=1_000, large_bytes=1_000_000)
    with Impostor(Timing(stall_seconds=PATIENCE, silence_seconds=PATIENCE), room) as member:
        member.link.send(log(1, 8_000_000))
        with pytest.raises(LinkStalled):
            send_for_ever(member.link, log(2, 8_000_000))


# -- the end -------------------------------------------------------------------------------------------------------


def test_a_link_that_closes_sends_what_was_queued_and_says_why() -> None:
    with linked() as (one, at_one, other, at_other):
        for number in range(200):
            one.send_log(log(number, 10_000))
        one.close(Reason.LEAVING)
        assert other.wait_ended(PATIENCE)
        assert numbers(at_other) == list(range(200))
        assert isinstance(one.failure, LinkClosed)
        assert isinstance(other.failure, LinkClosed)
        assert (one.failure.by_us, other.failure.by_us) == (True, False)
        assert other.failure.reason is Reason.LEAVING
        assert at_one.events == at_other.events == ["closed"]


def test_a_removed_device_is_told_at_once_and_gets_nothing_more() -> None:
    with Impostor(Timing(stall_seconds=PATIENCE, close_seconds=PATIENCE)) as member:
        fill(member.link)
        member.link.close(Reason.REMOVED, wait=False)
        heard = member.heard()
        assert heard[-1] == Goodbye(Reason.REMOVED)
        assert len(numbers_in(heard)) < 300
        assert not member.link.send_log(log(1))
        with pytest.raises(LinkClosed):
            member.link.send(Gap(1))


def numbers_in(messages: list[Message]) -> list[int]:
    return [message.flags for message in messages if type(message) is Log]


def test_closing_does_not_wait_for_ever_for_a_side_that_reads_nothing() -> None:
    with Impostor(Timing(stall_seconds=PATIENCE, close_seconds=0.2, silence_seconds=PATIENCE)) as member:
        fill(member.link)
        member.link.close()
        assert member.link.wait_ended(0)


def test_a_link_can_be_closed_twice_and_by_its_own_threads() -> None:
    class Closing(Recorder):
        def on_messages(self, link: Link, messages: list[Incoming]) -> None:
            link.close(Reason.OTHER)
            super().on_messages(link, messages)

        def on_closed(self, link: Link) -> None:
            link.close()
            super().on_closed(link)

    near, far = connection()
    one, other = greet(near, far, credentials("laptop"), credentials("desktop"))
    assert isinstance(one, Introduced)
    assert isinstance(other, Introduced)
    recorder = Closing()
    links = Link(one, Recorder()), Link(other, recorder)
    for link in links:
        link.start()
    for link in links:
        assert link.wait_ended(PATIENCE)
        link.close()
        link.close()
    assert recorder.events == ["closed"]


def test_a_handler_that_fails_ends_the_link_and_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Recorder):
        def on_messages(self, link: Link, messages: list[Incoming]) -> None:
            raise BlockingIOError(SECRET.decode())

    near, far = connection()
    one, other = greet(near, far, credentials("laptop"), credentials("desktop"))
    assert isinstance(one, Introduced)
    assert isinstance(other, Introduced)
    links = Link(one, Recorder()), Link(other, Failing())
    for link in links:
        link.start()
    for link in links:
        assert link.wait_ended(PATIENCE)
    assert type(links[1].failure) is LinkError
    assert "BlockingIOError" in str(links[1].failure)
    assert caplog.records[-1].levelno == logging.ERROR


def test_a_route_that_the_handler_refuses_ends_the_link_as_a_wrong_message_does() -> None:
    class Refusing(Recorder):
        def on_messages(self, link: Link, messages: list[Incoming]) -> None:
            raise MessageRefused("a message was passed on more than once, or under another device's name")

    near, far = connection()
    one, other = greet(near, far, credentials("laptop"), credentials("desktop"))
    assert isinstance(one, Introduced)
    assert isinstance(other, Introduced)
    links = Link(one, Recorder()), Link(other, Refusing())
    for link in links:
        link.start()
    for link in links:
        assert link.wait_ended(PATIENCE)
    assert isinstance(links[1].failure, LinkBroken)
    assert isinstance(links[0].failure, LinkClosed)
    assert links[0].failure.reason is Reason.WRONG_MESSAGE


def test_what_an_ended_link_raises_says_why_and_holds_on_to_nothing() -> None:
    with linked() as (one, _, other, _):
        other.close(Reason.REMOVED)
        assert one.wait_ended(PATIENCE)
        raised = []
        for _ in range(2):
            with pytest.raises(LinkClosed) as caught:
                one.send(log(1, 1_000_000))
            raised.append(caught.value)
        assert raised[0] is not raised[1]
        assert [(error.reason, error.by_us, str(error)) for error in raised] == [
            (Reason.REMOVED, False, Reason.REMOVED.text)
        ] * 2
        assert one.failure is not None
        assert one.failure.__traceback__ is one.failure.__context__ is None


def test_many_threads_may_send_and_close_at_once() -> None:
    with linked() as (one, at_one, _, at_other):

        def send(first: int) -> None:
            with contextlib.suppress(LinkClosed):
                for number in range(first, first + 300):
                    one.send(Gap(number))

        threads = [threading.Thread(target=send, args=(1_000 * n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        closers = [threading.Thread(target=one.close) for _ in range(4)]
        for thread in closers:
            thread.start()
        for thread in closers:
            thread.join()
        at_other.wait_until(lambda: at_other.events)
        received = [message.dropped for message in at_other.messages if type(message) is Gap]
        for n in range(4):
            own = [number for number in received if number // 1_000 == n]
            assert own == list(range(1_000 * n, 1_000 * n + 300))
        assert at_one.events == at_other.events == ["closed"]


def test_a_forked_child_is_cut_off_and_its_parent_is_not_disturbed() -> None:
    with linked() as (one, _, _, at_other):
        at_other.wait_until(lambda: at_other.pings)
        child = os.fork()
        if child == 0:
            code = 1
            with contextlib.suppress(BaseException):
                refused = False
                try:
                    one.send(Gap(666))
                except LinkClosed:
                    refused = True
                one.close()
                code = 0 if refused and not one.send_log(log(666)) and not one.open else 1
            os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        one.send(Gap(1))
        at_other.wait_until(lambda: at_other.messages)
        assert at_other.messages == [Gap(1)]


def test_a_forked_child_does_not_hold_the_connection_open() -> None:
    reader, writer = os.pipe()
    with linked(Timing(silence_seconds=PATIENCE)) as (one, _, other, _):
        child = os.fork()
        if child == 0:
            os.close(writer)
            select.select([reader], [], [], PATIENCE)
            os._exit(0)
        one.close(Reason.OTHER)
        assert other.wait_ended(PATIENCE)
        os.close(writer)
        os.close(reader)
        os.waitpid(child, 0)


def test_no_key_and_no_content_in_repr_status_or_logs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    who = credentials("laptop")
    with linked() as (one, _, other, at_other):
        one.send_log(Log(1, b"", SECRET))
        at_other.wait_until(lambda: at_other.messages)
        shown = repr([one, other, one.status(), who, at_other.messages]) + str(one.status())
    shown += caplog.text
    for secret in (
        SECRET,
        who.identity.private_key,
        who.identity.public_key,
        who.group_id,
        who.run,
        identity("desktop").public_key,
    ):
        assert repr(secret)[2:-1] not in shown
        assert secret.hex() not in shown


# -- golden transcript -----------------------------------------------------------------------------------------------

# The bytes that two devices exchange, with keys that are known: a difference is another protocol, and needs a version.
TRANSCRIPT = """\
-> preamble atop link 1
-> noise: 34 bytes 4c2da5acfa4e90bc
<- noise: 98 bytes c03d10362e22910a
-> noise: 66 bytes 3ecc10eb15def7df
-> HELLO: 87 bytes e2996f6c6ad32f3e
<- HELLO: 88 bytes ee87217c94e73937
-> READY: 27 bytes 0b157b6aa55dc0c1
-> PING, LOG and GAP: 100099 bytes 347fba55a2d71f47
-> FILE_CHUNK: 81 bytes 86150560a23456d0
<- PONG: 28 bytes 077047ac077868b8
<- FILE_ASKED: 67 bytes 46fa9883d01cd421
<- ACK: 31 bytes 6419cae2b6bd525c
-> GOODBYE: 27 bytes ec56a5a75e2023ef
"""


def transcript() -> str:
    laptop, desktop = credentials("laptop"), credentials("desktop")
    one = HandshakeState(True, laptop.identity.private_key, laptop.prologue, None, bytes(range(32)))
    other = HandshakeState(False, desktop.identity.private_key, desktop.prologue, None, bytes(range(32, 64)))
    lines = [f"-> preamble {Purpose.LINK.value.decode().strip()}"]

    def line(arrow: str, what: str, data: bytes) -> None:
        lines.append(f"{arrow} {what}: {len(data)} bytes {hashlib.blake2s(data, digest_size=8).hexdigest()}")

    for arrow, writer, reader in (("->", one, other), ("<-", other, one), ("->", one, other)):
        message = writer.write_message()
        reader.read_message(message)
        line(arrow, "noise", len(message).to_bytes(2) + message)
    one_sealer, other_sealer = Sealer(one.split()[0]), Sealer(other.split()[0])
    hellos = [Hello(1, 1, name, identity(name).device_id.digest, bytes(16)) for name in ("laptop", "desktop")]
    line("->", "HELLO", one_sealer.seal_alone(encode(hellos[0])))
    line("<-", "HELLO", other_sealer.seal_alone(encode(hellos[1])))
    line("->", "READY", one_sealer.seal_alone(encode(Ready(1))))
    outbox = Outbox()
    outbox.append(Lane.BULK, encode(Log(4, b"control", bytes(100_000))))
    outbox.append(Lane.URGENT, encode(Ping(1, 2, 3, 4, Lsn(5, 6))))
    outbox.append(Lane.FILES, encode(FileChunk(bytes(32), 65_473, b"the end of a file")))
    outbox.append(Lane.BULK, encode(Gap(7)))
    line("->", "PING, LOG and GAP", one_sealer.seal(outbox.take(4)))
    line("->", "FILE_CHUNK", one_sealer.seal(outbox.take(4)))
    line("<-", "PONG", other_sealer.seal_alone(encode(Pong(1, 8))))
    line("<-", "FILE_ASKED", other_sealer.seal_alone(encode(FileAsked(bytes(32), 65_490, 65_473, 17))))
    line("<-", "ACK", other_sealer.seal_alone(encode(Ack(3, 4, Lsn(5, 6)))))
    line("->", "GOODBYE", one_sealer.seal_alone(encode(Goodbye(Reason.LEAVING))))
    return "\n".join(lines) + "\n"


def test_the_transcript_of_version_1_does_not_change() -> None:
    assert transcript() == TRANSCRIPT
