"""What the readers of this package give: records that an importer turns into items, and what went wrong.

Pure values: no store, no paths.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from email.errors import MessageError
from hashlib import blake2b
from typing import Any, Literal, Protocol

Kind = Literal["contact", "event", "message", "note", "item"]

# Most bytes of one record, its photographs and attachments included: what is held in memory at a time.
MAX_RECORD_BYTES = 64 * 1024 * 1024

# Most lines of one record: as many as fill `MAX_RECORD_BYTES` when they are as long as base64 makes them. Each costs
# some 40 bytes besides its own.
MAX_RECORD_LINES = 1_500_000


# What reading one record may raise: ValueError where a reader knows what is wrong, the others where odd data surprises
# it (the last two are of the standard library's mail parser). In either case the record is reported, and the next one
# read.
RECORD_ERRORS = (
    ValueError,
    ArithmeticError,
    LookupError,
    TypeError,
    AttributeError,
    RuntimeError,
    AssertionError,
    MessageError,
)

# Longest name of a pool, in characters.
MAX_POOL_NAME = 200

_SURROGATE = re.compile("[\ud800-\udfff]")

# Longest name of a record in a message about it, in characters.
MAX_SHOWN_NAME = 100


def reason_of(error: Exception) -> str:
    """What a report says of one of these errors."""
    return str(error) if isinstance(error, ValueError) else f"cannot be read ({type(error).__name__}: {error})"


# Attributes by which an item of a class that has no `uid` is known again, and its record seen to be the same.
IMPORT_KEY = "import_key"
IMPORT_MARK = "import_mark"


class Readable(Protocol):
    """What the writers need of a File: a `Content` does as well."""

    @property
    def name(self) -> str:
        """The name of the file, without folders."""

    @property
    def media_type(self) -> str:
        """Such as "image/png", or empty."""

    def read(self) -> bytes:
        """All of the contents."""


@dataclass(frozen=True, slots=True)
class Content:
    """The contents of a file found inside a record, to be put into the store as a File."""

    data: bytes = field(repr=False)
    name: str = ""
    media_type: str = ""

    def read(self) -> bytes:
        """The contents, as `File.read` gives them."""
        return self.data

    def digest(self) -> bytes:
        """BLAKE2b-256 of the contents: what the store knows them by."""
        return blake2b(self.data, digest_size=32).digest()


@dataclass(slots=True)
class Record:
    """One contact, event, message or note, or another item of an export.

    `uid` is stable: the record's own identifier, or a hash of its contents where it has none. An "item", whose class
    may have no attribute for it, is known by it as `import_key`.
    `state` has the attributes that the format can express, with `Content` in place of each File; attributes that
    it does not name stay as they are in an item that is updated.
    `fingerprint` is the same for a record that was written the same way.
    """

    kind: Kind
    uid: str
    state: dict[str, Any]
    line: int
    size: int
    fingerprint: bytes = b""
    patch: bool = False  # changes an event of this uid that is there already, and is not a whole event itself
    method: str = ""  # of an invitation (RFC 5546), in capitals
    path: str = ""  # the file that it is from
    folder: str = ""  # the mail folder that it is in
    pool: str = ""  # where an "item" goes
    unidentified: bool = False  # a contact that brings no UID: `uid` is a hash
    repeated: bool = False  # another record of the same file had this `uid`
    losses: list[str] = field(default_factory=list)  # what of it could not be taken up
    lossy: set[str] = field(default_factory=set)  # the attributes that this is about: an item there keeps its own
    type_name: str = ""  # of an "item": its class
    exported_id: int = 0  # in the store that the record was exported from
    references: list[str] = field(default_factory=list)  # attributes that refer to items which may come later

    @property
    def name(self) -> str:
        """What a person would call it, for a message: never fails."""
        for key in ("name", "summary", "title", "subject"):
            value = self.state.get(key)
            if isinstance(value, str) and value:  # of an export it may be anything
                return value[:MAX_SHOWN_NAME]
        return self.uid[:MAX_SHOWN_NAME]


@dataclass(frozen=True, slots=True)
class Broken:
    """A record that cannot be read: the line where it begins, and why."""

    line: int
    reason: str


def fingerprint(*parts: bytes) -> bytes:
    """16 bytes that tell records apart. Not a secret, and not an identity."""
    digest = blake2b(digest_size=16)
    for part in parts:
        digest.update(part)
    return digest.digest()


def is_pool_name(name: str) -> bool:
    """Whether a pool can be called so: text that is not empty, not too long, without NUL and halves of surrogates."""
    return 0 < len(name) <= MAX_POOL_NAME and "\0" not in name and not _SURROGATE.search(name)


def hashed_uid(prefix: str, *parts: bytes) -> str:
    """An identifier for a record that brings none: the same contents give the same one."""
    digest = blake2b(digest_size=20)
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return f"{prefix}-{digest.hexdigest()}"
