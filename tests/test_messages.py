"""The messages of a link: what goes in comes out, and nothing else gets in."""

from __future__ import annotations

import contextlib
import pickle
import struct
import tracemalloc
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from linking import identity

from atop import Item, Store
from atop.engine import Engine
from atop.errors import AtopError, Conflict, StoreClosed, StoreError, StoreFull
from atop.writeset import CATALOG, INDEX, ITEMS, REFERENCES, WriteSet
from replication import messages
from replication.forwarding import ERRORS, NotMaster, to_commit, to_error, to_refused, to_write_set
from replication.messages import (
    Ack,
    Commit,
    Committed,
    CommonAnswered,
    CommonAsked,
    Elect,
    FileAbsent,
    FileAsked,
    FileChunk,
    FileHere,
    FileMessage,
    Gap,
    Goodbye,
    Hello,
    HistoryAnswered,
    HistoryAsked,
    Log,
    Lsn,
    Member,
    Members,
    Message,
    MessageRefused,
    MessageTooLong,
    NamedAnswered,
    NamedAsked,
    Ping,
    Pong,
    Ready,
    Reason,
    Refused,
    Role,
    Route,
    Size,
    Status,
    agreed_version,
    encode,
    judge,
    next_hop,
)

LAPTOP, DESKTOP, PHONE = (identity(name).device_id.digest for name in ("laptop", "desktop", "phone"))
HELLO = Hello(1, 1, "laptop", LAPTOP, bytes(16))
BODY = pickle.dumps((77, 1_000, "first contacts", [("+", 1)]), 5)
COMMIT = Commit(
    commit_id=77,
    time=1_000,
    label="first contacts",
    checks=[(1, 76)],
    exists=[2],
    unreferenced=[3],
    emptied=[4],
    names=[("people", None), ("pets", 5)],
    items=[(bytes(8), b"version." + pickle.dumps(("Contact", 1, {}, ()), 5)), (b"\1" * 8, None)],
    index=[(bytes(18), b""), (b"\1" * 30, None)],
    references=[(bytes(17), b"c"), (b"\1" * 20, None)],
    catalog=[(b"people", bytes(8)), (b"pets", None)],
    counters={b"p" + bytes(8): 1, b"f" + bytes(40): -1},
    body=BODY,
    files=[bytes(32)],
    sizes=[(4, 0)],
)
EXAMPLES: list[Message] = [
    HELLO,
    Ready(1),
    Goodbye(Reason.REMOVED),
    Ping(1, 2, 3, 4, Lsn(5, 6)),
    Pong(1, 2),
    Gap(100),
    Ack(3, 4, Lsn(5, 6)),
    COMMIT,
    Committed(77, 12, 3),
    Refused(77, "conflict", "item 1 was changed", 1),
    Status(Role.MASTER, 3, LAPTOP, 100, 12, bytes(32), [DESKTOP]),
    Members([Member(bytes(32), "laptop", 0, None, None), Member(b"\1" * 32, "desktop", 5, LAPTOP, 1_000)]),
    Elect(3, DESKTOP),
    HistoryAsked(41, bytes(range(32))),
    HistoryAnswered(41, True),
    CommonAsked([(41, bytes(range(32))), (40, bytes(32))]),
    CommonAnswered(41, 40),
    FileAsked(bytes(32), 1_000, 0, 1_000),
    FileAbsent(bytes(32), True),
    FileHere([bytes(32)]),
    NamedAsked(9, [bytes(32)]),
    NamedAnswered(9, []),
    Size(1 << 40),
    Log(4, b"control", b"record"),
    FileChunk(bytes(32), 5, b"contents"),
]
each_example = pytest.mark.parametrize("message", EXAMPLES, ids=lambda message: type(message).__name__)
FIRST = (Hello, Goodbye)


def judged(body: bytes, greeted: bool = True) -> Message:
    return judge(body, greeted=greeted).message


def raw(*fields: Any) -> bytes:
    """The body of a message with any fields at all."""
    return b"\1" + msgspec.msgpack.encode(fields)


# -- what is sent arrives -------------------------------------------------------------------------------------


@each_example
def test_what_is_encoded_is_judged_to_be_the_same(message: Message) -> None:
    assert judged(encode(message), greeted=type(message) is not Hello) == message


def test_every_type_has_an_example_here() -> None:
    assert {type(message) for message in EXAMPLES} == set(messages.Structured.__args__) | {Log, FileChunk}


@given(st.integers(0, 2**32 - 1), st.binary(), st.binary())
def test_log_messages_come_out_byte_by_byte(flags: int, control: bytes, record: bytes) -> None:
    assert judged(encode(Log(flags, control, record))) == Log(flags, control, record)


@each_example
def test_a_route_goes_along_unless_the_message_is_about_the_link_itself(message: Message) -> None:
    route = Route(LAPTOP, DESKTOP)
    body = encode(message, route)
    if isinstance(message, Hello | Ready | Goodbye | Ping | Pong | Gap | Members | FileMessage):
        with pytest.raises(MessageRefused):
            judge(body, greeted=type(message) is not Hello)
    else:
        assert judge(body) == (message, route)


def test_the_bytes_of_version_1_do_not_change() -> None:
    assert encode(Ping(1, 2, 3, 4, Lsn(5, 6))).hex() == "01960401020304920506"
    assert encode(Goodbye(Reason.REMOVED)).hex() == "01920303"
    assert encode(Log(4, b"ctl", b"rec")).hex() == "00000000040000000363746c726563"
    assert encode(FileChunk(bytes(32), 5, b"xyz")).hex() == "02" + "00" * 32 + "0000000000000005" + "78797a"
    assert encode(FileAsked(bytes(32), 9, 0, 9)).hex() == "01951ec420" + "00" * 32 + "090009"
    assert encode(Gap(7), Route(bytes(32), b"\1" * 32)).hex() == "81" + "00" * 32 + "01" * 32 + "920607"
    assert encode(HELLO).hex() == "0196010101a66c6170746f70c420" + LAPTOP.hex() + "c410" + "00" * 16


# -- nothing else gets in -------------------------------------------------------------------------------------


@each_example
def test_a_message_cut_at_any_byte_is_refused(message: Message) -> None:
    body = encode(message)
    end = len(body)
    if isinstance(message, Log):
        end = 1 + 8 + len(message.control)  # its record is whatever follows
    elif isinstance(message, FileChunk):
        end = 1 + 32 + 8 + 1
    for length in range(end):
        with pytest.raises(MessageRefused):
            judge(body[:length], greeted=type(message) is not Hello)


@each_example
def test_bytes_after_a_message_are_refused(message: Message) -> None:
    if not isinstance(message, Log | FileChunk):
        with pytest.raises(MessageRefused):
            judge(encode(message) + b"\0", greeted=type(message) is not Hello)


@given(st.binary(max_size=200), st.booleans())
def test_garbage_raises_nothing_but_refusal(garbage: bytes, greeted: bool) -> None:
    for body in (garbage, b"\1" + garbage, b"\x81" + bytes(32) + b"\1" * 32 + garbage):
        with contextlib.suppress(MessageRefused):
            judge(body, greeted=greeted)


@given(st.sampled_from(EXAMPLES), st.data())
def test_a_changed_message_raises_nothing_but_refusal(message: Message, data: st.DataObject) -> None:
    body = bytearray(encode(message))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(MessageRefused):
        found = judged(bytes(body))
        if type(found) is Commit:
            to_write_set(found)


WRONG_FIELDS = {
    "a number for a name": raw(1, 1, 1, 5, LAPTOP, bytes(16)),
    "an empty name": raw(1, 1, 1, "", LAPTOP, bytes(16)),
    "a name that turns the writing direction": raw(1, 1, 1, "lap\u202etop", LAPTOP, bytes(16)),
    "a name with a control character": raw(1, 1, 1, "lap\x1b[2Jtop", LAPTOP, bytes(16)),
    "a name that is too long": raw(1, 1, 1, "x" * 64, LAPTOP, bytes(16)),
    "a short device id": raw(1, 1, 1, "laptop", LAPTOP[1:], bytes(16)),
    "a text for a device id": raw(1, 1, 1, "laptop", "x" * 32, bytes(16)),
    "version 0": raw(1, 1, 0, "laptop", LAPTOP, bytes(16)),
    "an oldest version after the newest": raw(1, 1, 2, "laptop", LAPTOP, bytes(16)),
}
WRONG_LATER = {
    "an unknown type": raw(99, 1),
    "no type": raw(),
    "a map": b"\1" + msgspec.msgpack.encode({"tag": 4}),
    "a field too few": raw(5, 1),
    "a field too many": raw(5, 1, 2, 3),
    "a negative number": raw(6, -1),
    "a number over 63 bits": raw(6, 2**63),
    "a float for an integer": raw(6, 1.0),
    "true for an integer": raw(6, True),
    "null for an integer": raw(6, None),
    "an LSN of three": raw(7, 1, 2, (3, 4, 5)),
    "an unknown role": raw(11, "emperor", 1, None, 1, 1, bytes(32), []),
    "a short chain": raw(11, "master", 1, None, 1, 1, bytes(31), []),
    "too many reachable": raw(11, "master", 1, None, 1, 1, bytes(32), [LAPTOP] * 257),
    "an unsound name among members": raw(12, [(bytes(32), "a\nb", 1, None, None)]),
    "a member twice": raw(12, [(bytes(32), "a", 1, None, None), (bytes(32), "b", 2, None, None)]),
    "a tag over 24 bits": raw(12, [(bytes(32), "a", 2**24, None, None)]),
    "too many members": raw(12, [(i.to_bytes(32), "a", 1, None, None) for i in range(257)]),
    "a text that is too long": raw(10, 1, "conflict", "x" * 2_001, None),
    "an unknown kind": b"\2" + encode(Gap(1))[1:],
    "nothing": b"",
    "a route and nothing": b"\x81",
    "a route from a device to itself": encode(Gap(1), Route(LAPTOP, LAPTOP)),
    "a log message that claims 4 GB of control": b"\0" + struct.pack(">II", 0, 2**32 - 1) + b"x",
    "deep nesting": b"\1" + b"\x91" * 50_000,
}


@pytest.mark.parametrize("body", WRONG_FIELDS.values(), ids=WRONG_FIELDS)
def test_a_hello_with_a_wrong_field_is_refused(body: bytes) -> None:
    with pytest.raises(MessageRefused):
        judge(body, greeted=False)


@pytest.mark.parametrize("body", WRONG_LATER.values(), ids=WRONG_LATER)
def test_a_message_with_a_wrong_field_is_refused(body: bytes) -> None:
    with pytest.raises(MessageRefused):
        judge(body)


@pytest.mark.parametrize("header", [b"\xdd", b"\xdf", b"\xc6", b"\xdb"], ids=["list", "map", "bytes", "text"])
def test_a_claim_of_four_billion_elements_takes_no_memory(header: bytes) -> None:
    tracemalloc.start()
    try:
        for place in range(1, 17):
            before = [1, 2, "label", [], [], [], [], [], [], [], [], [], {}, b"", [], []][: place - 1]
            fields = b"".join(msgspec.msgpack.encode(field) for field in [8, *before])
            with pytest.raises(MessageRefused):
                judge(b"\1\xdc" + struct.pack(">H", 17) + fields + header + b"\xff" * 4)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_before_hello_only_the_first_messages_are_read_and_hello_only_then() -> None:
    for message in EXAMPLES:
        if type(message) in FIRST:
            judge(encode(message), greeted=False)
        else:
            with pytest.raises(MessageRefused):
                judge(encode(message), greeted=False)
    with pytest.raises(MessageRefused):
        judge(encode(HELLO), greeted=True)


def test_later_versions_may_add_to_hello_ready_and_goodbye_alone() -> None:
    assert judged(raw(1, 7, 1, "laptop", LAPTOP, bytes(16), {"new": [1]}), greeted=False) == replace_hello(version=7)
    assert judged(raw(2, 5, "new")) == Ready(5)
    goodbye = judged(raw(3, 999, "new"))
    assert isinstance(goodbye, Goodbye)
    assert goodbye.known_reason is Reason.OTHER


def replace_hello(**changes: Any) -> Hello:
    return msgspec.structs.replace(HELLO, **changes)


@pytest.mark.parametrize(
    ("ours", "theirs", "agreed"),
    [((1, 1), (1, 1), 1), ((3, 1), (2, 1), 2), ((3, 3), (2, 1), None), ((2, 1), (9, 2), 2), ((2, 1), (9, 3), None)],
)
def test_a_link_speaks_the_older_of_the_newest_versions(
    ours: tuple[int, int], theirs: tuple[int, int], agreed: int | None
) -> None:
    one = replace_hello(version=ours[0], oldest=ours[1])
    other = replace_hello(version=theirs[0], oldest=theirs[1])
    assert agreed_version(one, other) == agreed
    assert agreed_version(other, one) == agreed


def test_what_is_too_long_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MessageTooLong):
        encode(Log(0, b"", bytes(messages.MAX_LOG_BYTES)))
    with pytest.raises(MessageTooLong):
        encode(Refused(1, "conflict", "x" * messages.MAX_SMALL_BODY_BYTES, None))
    monkeypatch.setattr(messages, "MAX_BODY_BYTES", 100)
    with pytest.raises(MessageTooLong):
        encode(COMMIT)


@each_example
def test_repr_and_refusals_show_no_content(message: Message) -> None:
    assert repr(message).startswith(f"<{type(message).__name__}")
    for secret in ("laptop", "first contacts", "record", "was changed"):
        assert secret not in repr(message)
    with pytest.raises(MessageRefused) as caught:
        judge(raw(10, "secret words", "secret words", "secret words", "secret words"))
    assert "secret" not in str(caught.value) + repr(caught.value.__cause__)


# -- relay ----------------------------------------------------------------------------------------------------


def test_a_routed_message_is_passed_on_once_and_by_its_receiver_only() -> None:
    route = Route(LAPTOP, DESKTOP)
    assert next_hop(route, own=PHONE, sender=LAPTOP) == DESKTOP
    assert next_hop(route, own=DESKTOP, sender=PHONE) == DESKTOP
    assert next_hop(route, own=DESKTOP, sender=LAPTOP) == DESKTOP
    for own, sender in [(PHONE, bytes(32)), (LAPTOP, PHONE), (PHONE, DESKTOP), (LAPTOP, DESKTOP)]:
        with pytest.raises(MessageRefused):
            next_hop(route, own, sender)


# -- forwarded commits ----------------------------------------------------------------------------------------


def test_a_write_set_of_the_store_comes_through_unchanged(store_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[WriteSet] = []
    apply = Engine.commit

    def commit(engine: Engine, write_set: WriteSet, **callbacks: Any) -> int:
        arrived = to_write_set(judged(encode(to_commit(write_set))))  # type: ignore[arg-type]
        assert arrived.base is None
        sent.append(replace(write_set, base=None))
        assert arrived == sent[-1]
        return apply(engine, arrived, **callbacks)

    monkeypatch.setattr(Engine, "commit", commit)
    with Store(store_path, cache_size=4 << 20) as store:
        people = store.pool("people", indexes=["name"])
        ada, bob = Item(store, name="Ada", tags=["first"]), Item(store, name="Bob")
        people.add(ada)
        people.add(bob)
        bob.friend = ada
        bob.photo = store.file(b"picture", name="bob.png")
        bob.friend = None
        ada.delete()
        assert [person.name for person in people.query("name")] == ["Bob"]
    assert len(sent) >= 7


def entry(changes: list[Any], time: Any = 1_000) -> bytes:
    return pickle.dumps((77, time, "first contacts", changes), 5)


UNSOUND = {
    "the format of the store": {"catalog": [(b"\0format", bytes(8))]},
    "a name that stands for no id": {"catalog": [(b"people", b"x")]},
    "an item without an id": {"items": [(b"x", b"version.pickle")]},
    "an item without a version": {"items": [(bytes(8), b"version.")]},
    "an item that asks for gigabytes": {"items": [(bytes(8), b"version." + b"\x80\x05Nr\xff\xff\xff\x1f.")]},
    "an index entry without an item": {"index": [(bytes(17), b"")]},
    "an index entry with a value": {"index": [(bytes(18), b"x")]},
    "a reference without an attribute": {"references": [(bytes(16), b"")]},
    "a reference with an unknown rule": {"references": [(bytes(17), b"?")]},
    "an unknown counter": {"counters": {b"x" + bytes(8): 1}},
    "a counter of no pool": {"counters": {b"p": 1}},
    "a journal entry that names a function": {"body": b"cos\nsystem\n(S'true'\ntR."},
    "a journal entry that asks for gigabytes": {"body": b"\x80\x05Nr\xff\xff\xff\x1f."},
    "a journal entry that is no pickle": {"body": b"pickle"},
    "a journal entry of another commit": {"body": pickle.dumps((78, 1_000, "first contacts", []), 5)},
    "a journal entry of another time": {"body": pickle.dumps((77, 1_001, "first contacts", []), 5)},
    "a journal entry with a strange change": {"body": pickle.dumps((77, 1_000, "first contacts", [("!", 1)]), 5)},
    "a journal entry with no changes": {"body": pickle.dumps((77, 1_000, "first contacts", None), 5)},
    "a journal entry whose time is not to be compared": {"body": entry([], time=Decimal("sNaN"))},
    "a journal entry with a change that is cut short": {"body": entry([("~", 1, 2)])},
    "a journal entry with old values that are none": {"body": entry([("~", 1, 2, [], (), None, None)])},
    "a journal entry with a new attribute of no name": {"body": entry([("~", 1, 2, {}, (3,), None, None)])},
    "a journal entry with a pool that is none": {"body": entry([("~", 1, 2, {}, (), ("x",), None)])},
    "a journal entry with a deleted item of no class": {"body": entry([("-", 1, 2, (None, 1, {}, ()))])},
    "a journal entry with a name of no text": {"body": entry([("=", 0, 5, None, 1)])},
}


@pytest.mark.parametrize("change", UNSOUND.values(), ids=UNSOUND)
def test_a_commit_that_no_store_makes_is_refused(change: dict[str, Any]) -> None:
    assert to_write_set(COMMIT).operations.keys() == {ITEMS, INDEX, REFERENCES, CATALOG}
    with pytest.raises(MessageRefused):
        to_write_set(msgspec.structs.replace(COMMIT, **change))


@pytest.mark.parametrize(("code", "kind"), ERRORS.items(), ids=ERRORS)
def test_an_error_of_the_master_is_raised_on_the_replica(code: str, kind: type[AtopError]) -> None:
    refused = judged(encode(to_refused(77, kind("it did not work"))))
    assert isinstance(refused, Refused)
    assert refused.code == code
    error = to_error(refused)
    # A store that is closed there is open here: another device will be the master.
    assert type(error) is (NotMaster if kind is StoreClosed else kind)
    assert "it did not work" in str(error)


def test_a_conflict_names_its_item_and_an_unknown_error_is_an_error_of_the_store() -> None:
    conflict = to_error(to_refused(77, Conflict("changed", 12)))
    assert isinstance(conflict, Conflict)
    assert conflict.item_id == 12
    assert type(to_error(Refused(77, "of a later version", "text", None))) is StoreError
    assert type(to_error(to_refused(77, AtopError("something else")))) is StoreError
    assert type(to_error(to_refused(77, NotMaster("no more")))) is NotMaster


def test_texts_of_another_device_cannot_move_the_cursor() -> None:
    assert "\x1b" not in str(to_error(Refused(77, "full", "no room\x1b[2J", None)))
    assert to_refused(77, StoreFull("x" * 10_000)).text == "x" * messages.MAX_TEXT
