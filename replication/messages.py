"""Every message on a link: what there is, how it stands on the wire, and the one function that judges what comes in.

Pure: bytes in, values out. A message on the wire ("body") is

    byte 0          kind: 0 a log message, 1 any other, 2 bytes of a file; 128 is added where a route follows
    64 bytes        only with a route: id of the origin's device, id of the destination's
    the rest        kind 0: flags (u32), length of the control bytes (u32), control bytes, record bytes
                    kind 1: a msgpack array: the number of the message type, then its fields in order
                    kind 2: hash of the contents (32 bytes), offset (u64), bytes of them

Devices are named by the 32 bytes of their id (`DeviceId.digest`). A message without a route is from the device at
the other end of the link, which the handshake has proven, and meant for this one. With a route it passes through a
third device: `next_hop` says what becomes of it.

Versions. A HELLO names the newest and the oldest version that its sender speaks; the link speaks the older of the two
newest ones, or closes if that is older than either side's oldest. Within a version every message has exactly these
fields; a new message or field is a new version, and is sent only where that was agreed on. HELLO, READY and GOODBYE
alone keep their number and first fields for ever, and what follows these is ignored: all versions must read them.

What it promises: `judge` returns a message whose every field has the right type and size, or raises
`MessageRefused`; it takes memory in proportion to what came in, and executes nothing. What it never does: put content
into an error or a `repr`.
"""

from __future__ import annotations

import struct
from enum import Enum, IntEnum
from typing import Annotated, Any, Final, NamedTuple

import msgspec
from msgspec import Meta

from atop.errors import AtopError

from .identity import DIGEST_BYTES
from .invitation import MAX_NAME_BYTES, InvalidDeviceName, check_name
from .noise import KEY_BYTES, MAX_PLAINTEXT_BYTES, Readable

PROTOCOL_VERSION: Final = 1
"""The newest version of what is said on a link that this program speaks."""

OLDEST_VERSION: Final = 1
"""The oldest one that it still speaks."""

MAX_BODY_BYTES: Final = 256 << 20
"""The longest message: a commit of 100,000 items with four indexes takes about a third of it."""

MAX_LOG_BYTES: Final = 16 << 20
"""The longest log message: Berkeley DB puts up to 1 MiB of records in one, or one record, which is about a page."""

MAX_SMALL_BODY_BYTES: Final = 128 << 10
"""The longest message that is neither a log message nor a commit: a member list of `MAX_MEMBERS`."""

MAX_MEMBERS: Final = 256
"""Devices of one group, removed ones included: one person's, with room."""

MAX_SAMPLES: Final = 64
"""Commits asked for at once in the search for the last common one."""

MAX_TAG: Final = 2**24 - 1
MAX_TEXT: Final = 2_000  # characters of an explanation that goes to a person
MAX_LABEL: Final = 1 << 20  # characters of a transaction's label
MAX_ROWS: Final = 1_000_000  # of one kind in a commit: as many as the engine applies at once
MAX_COUNT_CHANGE: Final = 2**40  # by which one commit can move a counter

FILE_CHUNK_BYTES: Final = MAX_PLAINTEXT_BYTES - 1 - 4 - 1 - DIGEST_BYTES - 8
"""The most bytes of a file in one message, which then fills a frame, with its lane, length, kind, hash and offset."""

MAX_ASKED_BYTES: Final = 16 << 20
"""Bytes of files that a device may have asked for and not got."""

MAX_HASHES: Final = 1_000
"""Contents that one message is about."""

_LOG, _STRUCTURED, _FILE, _ROUTED = 0, 1, 2, 0x80
_route = struct.Struct(f"{DIGEST_BYTES}s{DIGEST_BYTES}s")
_log_header = struct.Struct(">II")
_file_header = struct.Struct(f">{DIGEST_BYTES}sQ")

Tag = Annotated[int, Meta(ge=0, le=MAX_TAG)]
U16 = Annotated[int, Meta(ge=0, le=2**16 - 1)]
U32 = Annotated[int, Meta(ge=0, le=2**32 - 1)]
U63 = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Hash = Annotated[bytes, Meta(min_length=DIGEST_BYTES, max_length=DIGEST_BYTES)]
PublicKey = Annotated[bytes, Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]
RunId = Annotated[bytes, Meta(min_length=16, max_length=16)]
Name = Annotated[str, Meta(min_length=1, max_length=MAX_NAME_BYTES)]
Text = Annotated[str, Meta(max_length=MAX_TEXT)]
Key = Annotated[bytes, Meta(min_length=1, max_length=1 << 20)]
CountChange = Annotated[int, Meta(ge=-MAX_COUNT_CHANGE, le=MAX_COUNT_CHANGE)]
Operations = Annotated[list[tuple[Key, bytes | None]], Meta(max_length=MAX_ROWS)]
Ids = Annotated[list[U63], Meta(max_length=MAX_ROWS)]
IdPairs = Annotated[list[tuple[U63, U63]], Meta(max_length=MAX_ROWS)]


class MessageRefused(AtopError):
    """A message of the other side is not what the protocol has: its program is broken, or worse. Close the link."""


class MessageTooLong(AtopError):
    """A message of our own is over `MAX_BODY_BYTES` and cannot be sent."""


class Reason(IntEnum):
    """Why a link is closed; the number travels in GOODBYE. `text` is for the device that is told so."""

    OTHER = 0
    LEAVING = 1
    NOT_A_MEMBER = 2
    REMOVED = 3
    VERSION = 4
    DUPLICATE = 5
    CLONED = 6
    SAME_DEVICE = 7
    WRONG_MESSAGE = 8
    SILENT = 9
    STALLED = 10

    @property
    def text(self) -> str:
        """What it means, and what to do, seen from the device that was told."""
        return _REASON_TEXTS[self]


_REASON_TEXTS: Final = {
    Reason.OTHER: "the other device closed the link",
    Reason.LEAVING: "the other device is closing; it will be back when Atop runs there again",
    Reason.NOT_A_MEMBER: "the other device does not know this one as a member of its group (yet)",
    Reason.REMOVED: "this device was removed from the group; its data is kept. Pair it again to come back",
    Reason.VERSION: "the two devices speak no common version of the protocol: update Atop on the older one",
    Reason.DUPLICATE: "there is another link between the two devices, which goes on",
    Reason.CLONED: (
        "a device with the same identity is connected already. If this one is a copy of it, move local/identity away "
        "here and pair this device as a new one; if not, this mends itself in a few seconds"
    ),
    Reason.SAME_DEVICE: "the address leads back to this device",
    Reason.WRONG_MESSAGE: "the other device could not understand this one: update Atop on both",
    Reason.SILENT: "the other device heard nothing of this one for too long",
    Reason.STALLED: "this device did not take what the other one sent for too long",
}


class Role(Enum):
    """What a device is doing in its group."""

    STARTING = "starting"
    MASTER = "master"
    REPLICA = "replica"
    ELECTING = "electing"
    WAITING = "waiting"  # at the point before another history is followed, its own data still there


class Route(NamedTuple):
    """Where a message that passes through a third device comes from and goes to: ids of devices."""

    origin: bytes
    destination: bytes


class Lsn(NamedTuple):
    """A place in Berkeley DB's log."""

    file: U32
    offset: U32


class _Message(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"  # never the fields: they are content


class Log(msgspec.Struct, frozen=True):
    """A message of Berkeley DB's replication, as its send callback got it; nothing here looks into it."""

    flags: int
    control: bytes
    record: bytes

    def __repr__(self) -> str:
        return f"<Log of {len(self.control)} + {len(self.record)} bytes>"


class FileChunk(msgspec.Struct, frozen=True):
    """Bytes of the contents with this hash, from this offset on; they were asked for."""

    digest: bytes
    offset: int
    data: Readable

    def __repr__(self) -> str:
        return f"<FileChunk of {len(self.data)} bytes>"


class Hello(_Message, frozen=True, tag=1, forbid_unknown_fields=False):
    """The first message each way. `run` is drawn anew each time the program starts: two runs are two devices."""

    version: U16
    oldest: U16
    name: Name
    device_id: Hash
    run: RunId


class Ready(_Message, frozen=True, tag=2, forbid_unknown_fields=False):
    """Sent after HELLO by the device with the lower id, which decides: of all links between the two, this one.

    `number` grows: of several links that were READY, the one with the highest is meant.
    """

    number: U63


class Goodbye(_Message, frozen=True, tag=3, forbid_unknown_fields=False):
    """The last message: the sender closes the link. A reason that the receiver does not know is `OTHER`."""

    reason: U16

    @property
    def known_reason(self) -> Reason:
        """The reason as this version knows it."""
        return Reason(self.reason) if self.reason in _REASON_TEXTS else Reason.OTHER


class Ping(_Message, frozen=True, tag=4):
    """Sent every second: alive. With the sender's clock (microseconds), last commit, and end of log."""

    token: U63
    clock: U63
    generation: U32
    commit: U63
    lsn: Lsn


class Pong(_Message, frozen=True, tag=5):
    """The answer, with the token of the PING and the clock of who answers."""

    token: U63
    clock: U63


class Gap(_Message, frozen=True, tag=6):
    """The sender had dropped this many log messages for want of room, and has room again: ask for what lacks."""

    dropped: U63


class Ack(_Message, frozen=True, tag=7):
    """Everything up to this commit and place in the log of this generation is on the sender's disk."""

    generation: U32
    commit: U63
    lsn: Lsn


class Commit(_Message, frozen=True, tag=8):
    """A WriteSet for the master. Sent again it is done once: the commit id decides. See `forwarding`."""

    commit_id: U63
    time: U63
    label: Annotated[str, Meta(max_length=MAX_LABEL)]
    checks: IdPairs
    exists: Ids
    unreferenced: Ids
    emptied: Ids
    names: Annotated[list[tuple[Annotated[str, Meta(max_length=MAX_LABEL)], U63 | None]], Meta(max_length=MAX_ROWS)]
    items: Operations
    index: Operations
    references: Operations
    catalog: Operations
    counters: Annotated[dict[Key, CountChange], Meta(max_length=MAX_ROWS)]
    body: bytes
    files: Annotated[list[Hash], Meta(max_length=MAX_ROWS)]
    sizes: IdPairs


class Committed(_Message, frozen=True, tag=9):
    """The master's answer: the commit is in its journal, under this number, as of this generation."""

    commit_id: U63
    number: U63
    generation: U32


class Refused(_Message, frozen=True, tag=10):
    """The master's other answer: nothing was applied. `code` is one of `forwarding.ERRORS`."""

    commit_id: U63
    code: Annotated[str, Meta(max_length=40)]
    text: Text
    item_id: U63 | None


class Status(_Message, frozen=True, tag=11):
    """How the sender stands; sent when a link is new, and when it changes.

    `master` is the id of the master it follows (or is), `number` and `chain` the head of its journal, `reachable`
    the ids of the devices that it has links to, and so can pass messages on to.
    """

    role: Role
    generation: U32
    master: Hash | None
    priority: U32
    number: U63
    chain: Hash
    reachable: Annotated[list[Hash], Meta(max_length=MAX_MEMBERS)]


class Member(_Message, frozen=True):
    """One device of the group, in MEMBERS. `revoked_at` is microseconds of the hybrid clock, or None."""

    public_key: PublicKey
    name: Name
    tag: Tag
    added_by: Hash | None
    revoked_at: U63 | None


class Members(_Message, frozen=True, tag=12):
    """The devices of the group as the sender knows them: sent when a link is new, and when it changes."""

    members: Annotated[list[Member], Meta(max_length=MAX_MEMBERS)]


class Elect(_Message, frozen=True, tag=13):
    """Hold an election that only `winner` can win: the others take part with priority 0, a master steps down first.

    From a master that closes, from a device that is to take over, and where two masters have met.
    """

    generation: U32
    winner: Hash


class FileAsked(_Message, frozen=True, tag=30):
    """Send these bytes of the contents with this hash and size. With length 0: say whether they are there."""

    digest: Hash
    size: U63
    offset: U63
    length: Annotated[int, Meta(ge=0, le=MAX_ASKED_BYTES)]


class FileAbsent(_Message, frozen=True, tag=31):
    """The sender does not have these contents, or cannot read them. `coming`: it is fetching them itself."""

    digest: Hash
    coming: bool


class FileHere(_Message, frozen=True, tag=32):
    """The sender has these contents on its disk: it has just fetched them, or was asked."""

    digests: Annotated[list[Hash], Meta(max_length=MAX_HASHES)]


class NamedAsked(_Message, frozen=True, tag=33):
    """Which of these contents does the receiver's store name, or keep for another reason?"""

    token: U63
    digests: Annotated[list[Hash], Meta(max_length=MAX_HASHES)]


class NamedAnswered(_Message, frozen=True, tag=34):
    """These."""

    token: U63
    digests: Annotated[list[Hash], Meta(max_length=MAX_HASHES)]


class HistoryAsked(_Message, frozen=True, tag=14):
    """To a master, before it is followed: does its journal have this commit number with this chain value?"""

    number: U63
    chain: Hash


class HistoryAnswered(_Message, frozen=True, tag=15):
    """Whether it does: then the history up to there is the same, and nothing is lost by following."""

    number: U63
    same: bool


class Size(_Message, frozen=True, tag=22):
    """From a master to a device that waits to follow it: the bytes of its tables, for whom they may be copied."""

    total: U63


class CommonAsked(_Message, frozen=True, tag=20):
    """To a master whose history has parted from the sender's: which of these commits (number, chain value) are yours?

    Latest first.
    """

    samples: Annotated[list[tuple[U63, Hash]], Meta(min_length=1, max_length=MAX_SAMPLES)]


class CommonAnswered(_Message, frozen=True, tag=21):
    """`same` is the number of the first of them up to which the histories are the same; 0 is none.

    `asked` is the first number that was asked for.
    """

    asked: U63
    same: U63


Structured = (
    Hello
    | Ready
    | Goodbye
    | Ping
    | Pong
    | Gap
    | Ack
    | Commit
    | Committed
    | Refused
    | Status
    | Members
    | Elect
    | HistoryAsked
    | HistoryAnswered
    | Size
    | CommonAsked
    | CommonAnswered
    | FileAsked
    | FileAbsent
    | FileHere
    | NamedAsked
    | NamedAnswered
)
Message = Log | FileChunk | Structured
FileMessage = FileChunk | FileAsked | FileAbsent | FileHere | NamedAsked | NamedAnswered

_OF_FILES: Final = (FileAsked, FileAbsent, FileHere, NamedAsked, NamedAnswered)
# about the link itself, or what one of its ends has: never passed on
_OF_THE_LINK: Final = (Hello, Ready, Goodbye, Ping, Pong, Gap, Members, *_OF_FILES)
_FIRST: Final = (Hello, Goodbye)

_KINDS: Final = {Log: _LOG, FileChunk: _FILE}

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Structured] = msgspec.msgpack.Decoder(Structured)


class Incoming(NamedTuple):
    """A message that was found good. `route` is None where it comes from the other end of the link itself."""

    message: Message
    route: Route | None


def encode(message: Message, route: Route | None = None) -> bytes:
    """The body of `message`. Raises MessageTooLong."""
    kind = _KINDS.get(type(message), _STRUCTURED)
    head = bytes((kind,)) if route is None else bytes((kind | _ROUTED,)) + _route.pack(*route)
    if type(message) is Log:
        body = b"".join((head, _log_header.pack(message.flags, len(message.control)), message.control, message.record))
        limit = MAX_LOG_BYTES
    elif type(message) is FileChunk:
        body = b"".join((head, _file_header.pack(message.digest, message.offset), message.data))
        limit = 1 + _file_header.size + FILE_CHUNK_BYTES
    else:
        body = head + _encoder.encode(message)
        limit = MAX_BODY_BYTES if type(message) is Commit else MAX_SMALL_BODY_BYTES
    if len(body) > limit:
        raise MessageTooLong(f"a {type(message).__name__} of {len(body):,} bytes is over the {limit:,} of a link")
    return body


def judge(body: Readable, *, greeted: bool = True) -> Incoming:
    """The message in `body`, every field of it checked. `greeted` says whether HELLO has come before.

    Raises MessageRefused for everything that a device of our protocol does not send there.
    """
    view = memoryview(body)
    if not view:
        raise MessageRefused("an empty message")
    kind, view = view[0], view[1:]
    route = None
    if kind & _ROUTED:
        if len(view) < _route.size:
            raise MessageRefused("a message was cut within its route")
        route = Route(*_route.unpack_from(view))
        if route.origin == route.destination:
            raise MessageRefused("a message has a route that leads nowhere")
        kind, view = kind & ~_ROUTED, view[_route.size :]
    if kind == _LOG:
        if not greeted:
            raise MessageRefused("a log message came before HELLO")
        return Incoming(_log_of(view), route)
    if kind == _FILE:
        if not greeted:
            raise MessageRefused("bytes of a file came before HELLO")
        if route is not None:
            raise MessageRefused("bytes of a file were passed on by a third device")
        return Incoming(_chunk_of(view), None)
    if kind != _STRUCTURED:
        raise MessageRefused(f"a message of the unknown kind {kind}")
    return Incoming(_structured_of(view, greeted, routed=route is not None), route)


def _log_of(view: memoryview) -> Log:
    if not _log_header.size <= len(view) <= MAX_LOG_BYTES:
        raise MessageRefused(f"a log message of {len(view):,} bytes")
    flags, length = _log_header.unpack_from(view)
    end = _log_header.size + length
    if end > len(view):
        raise MessageRefused("a log message is shorter than it says")
    return Log(flags, bytes(view[_log_header.size : end]), bytes(view[end:]))


def _chunk_of(view: memoryview) -> FileChunk:
    if not _file_header.size < len(view) <= _file_header.size + FILE_CHUNK_BYTES:
        raise MessageRefused(f"a message of {len(view):,} bytes with bytes of a file")
    digest, offset = _file_header.unpack_from(view)
    return FileChunk(digest, offset, view[_file_header.size :])


def _structured_of(view: memoryview, greeted: bool, *, routed: bool) -> Structured:
    if len(view) > MAX_SMALL_BODY_BYTES and not greeted:
        raise MessageRefused(f"the first message has {len(view):,} bytes")
    try:
        message = _decoder.decode(view)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError):
        # what msgspec says may quote the content
        raise MessageRefused("a message has no known type, or wrong fields") from None
    if type(message) is not Commit and len(view) > MAX_SMALL_BODY_BYTES:
        raise MessageRefused(f"a {type(message).__name__} of {len(view):,} bytes")
    if type(message) is Hello if greeted else type(message) not in _FIRST:
        raise MessageRefused(f"a {type(message).__name__} came {'after' if greeted else 'before'} HELLO")
    if routed and type(message) in _OF_THE_LINK:
        raise MessageRefused(f"a {type(message).__name__} was passed on by a third device")
    _check_fields(message)
    return message


def _check_fields(message: Structured) -> None:
    """What a type cannot say."""
    if type(message) is Hello:
        if not 1 <= message.oldest <= message.version:
            raise MessageRefused("a HELLO whose oldest version is newer than its newest")
        _check_name(message.name)
    elif type(message) is Members:
        for member in message.members:
            _check_name(member.name)
        if len({member.public_key for member in message.members}) < len(message.members):
            raise MessageRefused("a MEMBERS that has one device twice")


def _check_name(name: str) -> None:
    try:
        check_name(name)
    except InvalidDeviceName:
        raise MessageRefused("a device name that cannot be shown") from None


def next_hop(route: Route, own: bytes, sender: bytes) -> bytes:
    """The id of the device that a routed message goes to next: `own` if it has arrived.

    `sender` is the id of the device at the other end of the link it came by. Messages are passed on once: by the
    device that got it from its origin. Raises MessageRefused for a route that no device of ours makes.
    """
    if route.origin == own or route.destination == sender:
        raise MessageRefused("a message came back to where it was sent from")
    if route.destination == own:
        return own
    if route.origin != sender:
        raise MessageRefused("a message was passed on more than once, or under another device's name")
    return route.destination


def agreed_version(ours: Hello, theirs: Hello) -> int | None:
    """The version that a link between the two speaks, or None if there is none."""
    version = min(ours.version, theirs.version)
    return version if version >= max(ours.oldest, theirs.oldest) else None


def explain(value: Any) -> str:
    """Text of another device, made fit to show: no control characters, at most `MAX_TEXT` characters."""
    return "".join(c if c.isprintable() else " " for c in str(value)[:MAX_TEXT])
