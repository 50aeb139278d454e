"""Log messages of a member whose program is hostile: Berkeley DB, which trusts them, does not get to see them."""

from __future__ import annotations

import contextlib
import random
import struct
from collections.abc import Iterator

import pytest
from test_shipping import Network, Node, Note

from replication.messages import Log, MessageRefused
from replication.screening import MAX_GENERATIONS_AHEAD, screen
from replication.shipping import Device

BULK_LOG, LOG, PAGE_REQ, UPDATE, BULK_PAGE, VOTE = 4, 11, 22, 25, 5, 30
TABLE, OUTSIDE = b"catalog.db\0", b"../../evil\0"


class Wire(Network):
    """Keeps what it carries; what is refused is lost, and noted."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Log] = []
        self.refused: list[str] = []

    def carry(self, origin: Device, destination: Device | None, message: Log) -> None:
        self.seen.append(message)
        try:
            super().carry(origin, destination, message)
        except MessageRefused as error:
            self.refused.append(str(error))


def kind_of(message: Log) -> int:
    return int(struct.unpack(">9I", message.control)[4])


def control(kind: int, *, generation: int = 1, flags: int = 4, versions: tuple[int, int] = (7, 19)) -> bytes:
    return struct.pack(">9I", *versions, 1, 10_000, kind, generation, 0, 0, flags)


def logged(kind: int, *parts: bytes | int) -> bytes:
    """A log record: numbers and pieces of data."""
    packed = (
        struct.pack("<I", part) if isinstance(part, int) else struct.pack("<I", len(part)) + part for part in parts
    )
    return struct.pack("<4I", kind, 1, 0, 0) + b"".join(packed)


@pytest.fixture(scope="module")
def traffic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Wire, Node, Node]]:
    """A master and a replica that has copied it, and what they said; then they are apart."""
    directory, wire = tmp_path_factory.mktemp("screening"), Wire()
    master = Node(wire, b"1", directory / "1", master=True)
    pool = master.store.pool("notes", indexes=["text"])
    with master.store.transaction():
        for number in range(30):
            pool.add(Note(master.store, text="x" * 300, number=number))
    replica = Node(wire, b"2", directory / "2")
    Note(master.store, text="y" * 10_000)
    next(iter(pool)).delete()
    replica.await_number(master.store.head.number)
    wire.cut.add(frozenset((b"1", b"2")))
    yield wire, master, replica
    for node in (replica, master):
        node.store.close()


def test_what_devices_say_to_each_other_passes(traffic: tuple[Wire, Node, Node]) -> None:
    wire, _, _ = traffic
    assert wire.refused == []
    assert {kind_of(message) for message in wire.seen} >= {BULK_LOG, BULK_PAGE, PAGE_REQ, UPDATE}


HOSTILE = {
    "three bytes": Log(0, b"\0\0\0", b""),
    "no control": Log(0, b"", b""),
    "an older version, whose fields are read without a look at the length": Log(0, control(1, versions=(3, 19)), b""),
    "a version in the order of this machine": Log(0, struct.pack("<9I", 3, 16, *[0] * 7), b""),
    "a newer log": Log(0, control(LOG, versions=(7, 20)), logged(14, 1, 2)),
    "leases, at which Berkeley DB panics": Log(0, control(2, flags=0x14), b""),
    "a lease": Log(0, control(10), bytes(8)),
    "alive, without a number": Log(0, control(1), b""),
    "a vote that is cut short": Log(0, control(VOTE), bytes(20)),
    "a vote of the last generation": Log(0, control(VOTE), b"\xff" * 4 + bytes(24)),
    "the last generation": Log(0, control(17, generation=2**32 - 1), b""),
    "a generation far ahead": Log(0, control(17, generation=MAX_GENERATIONS_AHEAD + 2), b""),
    "no type": Log(0, control(99), b""),
    "a record of no type": Log(0, control(LOG), logged(99)),
    "an empty record": Log(0, control(LOG), b""),
    "a table that could not be read, which keeps a store from being opened": Log(0, control(LOG), logged(51)),
    "a piece longer than the record": Log(0, control(LOG), logged(144, 1_000, 1, 1)),
    "more after a record": Log(0, control(LOG), logged(14, 1, 2) + b"."),
    "a record that points at itself": Log(0, control(LOG), struct.pack("<6I", 14, 1, 1, 10_000, 1, 2)),
    "a file created elsewhere": Log(0, control(LOG), logged(143, OUTSIDE, b"", 1, 0o600)),
    "a file created at a path": Log(0, control(LOG), logged(143, b"/tmp/evil\0", b"", 1, 0o600)),
    "a file created in a directory": Log(0, control(LOG), logged(143, TABLE, b"/tmp\0", 1, 0o600)),
    "the settings of the database": Log(0, control(LOG), logged(145, b"DB_CONFIG\0", b"", 1, 512, 0, 0, b"x", 0)),
    "a file removed elsewhere": Log(0, control(LOG), logged(144, OUTSIDE, bytes(20), 1)),
    "a file renamed to elsewhere": Log(0, control(LOG), logged(146, TABLE, OUTSIDE, b"", bytes(20), 1)),
    "a table that is elsewhere": Log(0, control(LOG), logged(2, 1, OUTSIDE, bytes(20), 0, 1, 0, 0)),
    "a name that has no end": Log(0, control(LOG), logged(144, TABLE[:-1], bytes(20), 1)),
    "locks without end": Log(0, control(LOG), logged(10, 1, 0, 0, struct.pack("<IHH", 2**32 - 1, 0, 28))),
    "bulk that is cut short": Log(0, control(BULK_LOG), struct.pack(">4I", 100, 1, 28, 100) + bytes(50)),
    "bulk of two lengths": Log(0, control(BULK_LOG), struct.pack(">4I", 24, 1, 28, 20) + logged(14, 1, 2)),
    "a copy of nothing, said to be much": Log(0, control(UPDATE), struct.pack(">4I", 1, 28, 19, 2**32 - 1)),
    "a page longer than it is": Log(0, control(19), struct.pack(">8I", 4096, 0, 0, 0, 0, 1, 0, 20) + bytes(200)),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_message_is_refused(name: str) -> None:
    with pytest.raises(MessageRefused):
        screen(HOSTILE[name], 1)


def test_records_of_the_same_form_that_are_sound_pass() -> None:
    """So that the ones above are refused for what is wrong with them."""
    screen(Log(0, control(LOG), logged(143, TABLE, b"", 1, 0o600)), 1)
    screen(Log(0, control(LOG), logged(146, b"__db.80000002.d9872ad6\0", TABLE, b"", bytes(20), 1)), 1)
    screen(Log(0, control(LOG), logged(14, 1, 2)), 1)
    screen(Log(0, control(VOTE), bytes(28)), 1)
    screen(Log(0, control(17, generation=MAX_GENERATIONS_AHEAD), b""), 1)


def test_a_copy_writes_no_file_outside_of_the_store(traffic: tuple[Wire, Node, Node]) -> None:
    """Berkeley DB would: this very message had it write `evil` beside the directory of the store."""
    wire, master, replica = traffic
    copy = next(message for message in wire.seen if kind_of(message) == UPDATE)
    assert TABLE in copy.record
    replica.shipping.receive(master.name, copy)
    with pytest.raises(MessageRefused, match="no table"):
        replica.shipping.receive(master.name, Log(4, copy.control, copy.record.replace(TABLE, OUTSIDE)))


@pytest.mark.parametrize("role", ["master", "replica"])
def test_messages_changed_at_random_end_nothing(traffic: tuple[Wire, Node, Node], role: str) -> None:
    """Their control parts, and the lengths of their records: either crashed Berkeley DB before they were screened."""
    wire, master, replica = traffic
    node, other = (master, replica.name) if role == "master" else (replica, master.name)
    numbers = random.Random(role)
    for _ in range(300):
        message = numbers.choice(wire.seen)
        head, record = bytearray(message.control), message.record
        place = 4 * numbers.randrange(9)
        head[place : place + 4] = struct.pack(">I", numbers.choice([0, 1, 2, 2**31, 2**32 - 1, numbers.randrange(40)]))
        changed = numbers.choice([
            Log(4, bytes(head), record),
            Log(4, message.control, record[: numbers.randrange(len(record) + 1)]),
            Log(4, message.control[: numbers.randrange(36)], record),
        ])  # fmt: skip
        with contextlib.suppress(MessageRefused):
            node.shipping.receive(other, changed)
    assert node.store.head.number == master.store.head.number


def test_of_a_table_no_more_pages_are_asked_for_than_there_are(traffic: tuple[Wire, Node, Node]) -> None:
    wire, master, replica = traffic
    asked = next(message for message in wire.seen if kind_of(message) == PAGE_REQ)
    endless = Log(4, asked.control, asked.record[:8] + b"\xff" * 4 + asked.record[12:])
    with pytest.raises(MessageRefused, match="not there"):
        master.shipping.receive(replica.name, endless)
