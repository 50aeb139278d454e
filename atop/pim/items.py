"""What a personal information manager keeps: contacts, events, messages and notes, and the pools for them.

The attributes are those that people see and search; whatever else a file said of a record is kept in `properties`
(or `headers`), so that an export has it again. Lists of dicts hold what comes in any number:

- an entry of `emails`, `phones`, `urls`, `ims`, `addresses`: `kinds` (list of lower-case words such as "home"), and
  `value`, or for an address any of `po_box`, `extended`, `street`, `city`, `region`, `postal_code`, `country`.
  Perhaps also `preferred` (1 to 100, 1 is best), `label` (in the user's own words), `formatted` (an address as it is
  printed), `group` (shared with entries of `properties`), `parameters`.
- an entry of `properties`: `name`, `value` (as written in the file), perhaps `group` and `parameters`
  (dict of parameter name to list of values).
- an entry of `files`: `property`, `file`, perhaps `parameters`.
- an entry of `attendees`: `address`, perhaps `name` and `parameters`.
- an entry of `alarms`: `action`, `trigger` ("-PT15M", or a time), perhaps `description` and `properties`.
- an entry of `overrides`: `recurrence_id` (the start that it replaces), and the attributes of `Event` that it has.
"""

from __future__ import annotations

import datetime
import uuid
from typing import TYPE_CHECKING, Any

from atop import File, Index, Item, Pool, Store
from atop.pim.incoming import Kind


class _Identified:
    """Gives an item a `uid` of its own where it is made without one, so that an export can be told from a copy."""

    if not TYPE_CHECKING:  # a checker should see the constructor that the annotations describe

        def __init__(self, store, **attributes):
            if not attributes.get("uid"):
                attributes["uid"] = f"urn:uuid:{uuid.uuid4()}"
            super().__init__(store, **attributes)


class Contact(_Identified, Item, type_name="pim.Contact"):
    """A person, an organization or a group of them.

    `email`, `phone` and `city` are those of the first entry of `emails`, `phones` and `addresses`, to sort and search
    by. In a vCard the two are one: where they differ, the one that was changed last is the first entry; and a `name`
    that was changed while its parts were not is taken apart anew.
    """

    uid: str = ""
    name: str = ""  # as it is to be shown
    family: str = ""
    given: str = ""
    additional: str = ""
    prefix: str = ""
    suffix: str = ""
    nickname: str = ""
    email: str = ""
    phone: str = ""
    city: str = ""
    emails: list[dict[str, Any]] = []
    phones: list[dict[str, Any]] = []
    addresses: list[dict[str, Any]] = []
    organization: str = ""
    departments: list[str] = []  # from the largest to the smallest
    title: str = ""
    role: str = ""
    birthday: datetime.date | None = None
    birthday_text: str = ""  # where there is no full date: "--04-12", "circa 1800"
    anniversary: datetime.date | None = None
    urls: list[dict[str, Any]] = []
    ims: list[dict[str, Any]] = []  # instant messaging, as URIs
    note: str = ""
    categories: list[str] = []
    kind: str = ""  # "group", "org" or, for a person, mostly empty
    members: list[str] = []  # of a group: "urn:uuid:..." or "mailto:..."
    photo: File | None = None
    revised: datetime.datetime | None = None  # as the program that wrote the card said, in UTC
    files: list[dict[str, Any]] = []  # logos, sounds, keys
    parameters: dict[str, dict[str, list[str]]] = {}  # vCard property -> parameters, of those that occur once
    properties: list[dict[str, Any]] = []
    fingerprint: bytes = b""  # of the record that was imported last; see `intake`


class Event(_Identified, Item, type_name="pim.Event"):
    """An appointment, or a task (`kind` "task", `end` the time it is due).

    Times carry the offset from UTC that holds at that moment, so they sort by instant and show the local time as
    they are. `time_zone` says which clock: an IANA name, the name of `time_zone_rules`, "floating" for a time that is
    the same on every clock, or empty for UTC. Floating times and the midnights of all-day events have offset 0.
    `end` is the first moment after the event, or None where the file names none.
    """

    uid: str = ""
    kind: str = "event"
    summary: str = ""
    start: datetime.datetime | None = None
    end: datetime.datetime | None = None
    all_day: bool = False
    time_zone: str = ""
    end_time_zone: str = ""  # where it is another one than `time_zone`
    time_zone_rules: str = ""  # VTIMEZONE text, where `time_zone` is no IANA name
    duration: str = ""  # where the file gave one instead of an end: "PT1H"
    location: str = ""
    description: str = ""
    url: str = ""
    recurrence: str = ""  # RRULE: "FREQ=WEEKLY;BYDAY=MO"
    exdates: list[datetime.datetime] = []
    rdates: list[datetime.datetime] = []
    overrides: list[dict[str, Any]] = []
    recurrence_id: datetime.datetime | None = None  # of an invitation to one occurrence only
    status: str = ""  # "CONFIRMED", "CANCELLED", "NEEDS-ACTION" ...
    completed: datetime.datetime | None = None
    percent: int | None = None
    priority: int | None = None  # 1 is highest, 9 lowest
    organizer: str = ""
    organizer_parameters: dict[str, list[str]] = {}
    attendees: list[dict[str, Any]] = []
    alarms: list[dict[str, Any]] = []
    categories: list[str] = []
    visibility: str = ""  # "PUBLIC", "PRIVATE", "CONFIDENTIAL"
    transparent: bool = False  # does not make one busy
    sequence: int = 0  # of an invitation: the higher one is newer
    calendar: str = ""  # name of the calendar that it came from
    attachments: list[File] = []
    created: datetime.datetime | None = None
    modified: datetime.datetime | None = None
    parameters: dict[str, dict[str, list[str]]] = {}
    properties: list[dict[str, Any]] = []
    components: list[str] = []  # parts of other kinds, as text
    fingerprint: bytes = b""


class Message(_Identified, Item, type_name="pim.Message"):
    """A mail message.

    Two messages with the same Message-ID and the same contents are one; if the contents differ, both are kept, and
    the `uid` of the second has a hash of its contents added.
    """

    uid: str = ""
    message_id: str = ""  # without angle brackets; empty if the message has none
    subject: str = ""
    sender: str = ""
    to: list[str] = []
    cc: list[str] = []
    bcc: list[str] = []
    reply_to: list[str] = []
    date: datetime.datetime | None = None
    text: str = ""
    html: str = ""
    attachments: list[File] = []
    inline: dict[str, File] = {}  # Content-ID -> picture of the HTML text
    in_reply_to: str = ""
    references: list[str] = []
    folder: str = ""
    labels: list[str] = []
    flags: list[str] = []  # "seen", "answered", "flagged", "draft", "deleted", "forwarded"
    headers: list[list[str]] = []  # [name, value], all of them, in order, decoded
    size: int = 0  # bytes of the message as it was sent
    digest: bytes = b""  # of sender, date, subject, texts and attachments
    fingerprint: bytes = b""


class Note(_Identified, Item, type_name="pim.Note"):
    """A text to keep, or an entry of a journal."""

    uid: str = ""
    title: str = ""
    text: str = ""
    created: datetime.datetime | None = None
    modified: datetime.datetime | None = None
    day: datetime.date | None = None  # of an entry of a journal
    tags: list[str] = []
    attachments: list[File] = []
    properties: list[dict[str, Any]] = []
    components: list[str] = []
    fingerprint: bytes = b""


CLASSES: dict[Kind, type[Item]] = {"contact": Contact, "event": Event, "message": Message, "note": Note}
KINDS: dict[str, Kind] = {cls._type_name: kind for kind, cls in CLASSES.items()}

# The pool of each kind, and its indexes. "words" is what `Pool.search` looks in.
POOLS: dict[Kind, tuple[str, list[str | tuple[str, ...] | Index]]] = {
    "contact": (
        "contacts",
        [
            "uid",
            "fingerprint",
            Index("name", "name", nocase=True),
            Index("email", "email", nocase=True),
            ("city", "name"),
            "organization",
            "birthday",
            Index(
                "words",
                ("name", "nickname", "emails", "phones", "organization", "title", "note", "categories"),
                words=True,
            ),
        ],
    ),
    "event": (
        "events",
        [
            "uid",
            "start",
            ("kind", "start"),
            Index("summary", "summary", nocase=True),
            Index("words", ("summary", "location", "description", "attendees", "categories"), words=True),
        ],
    ),
    "message": (
        "messages",
        [
            "uid",
            "date",
            "message_id",
            "in_reply_to",
            Index("sender", "sender", nocase=True),
            Index("subject", "subject", nocase=True),
            ("folder", "date"),
            Index("words", ("subject", "sender", "to", "cc", "text"), words=True),
        ],
    ),
    "note": (
        "notes",
        [
            "uid",
            Index("title", "title", nocase=True),
            "modified",
            Index("words", ("title", "text", "tags"), words=True),
        ],
    ),
}


def open_pool(store: Store, kind: Kind) -> Pool:
    """The pool of a kind of item, made or completed with its indexes where it is not there."""
    name, indexes = POOLS[kind]
    return store.pool(name, indexes)
