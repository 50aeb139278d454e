"""Reads a mail message (RFC 5322, MIME) into the attributes of `Message`, whatever is wrong with it.

Broken charsets, encodings and boundaries give what text there is; no message is refused that has anything in it.
Parts are recognised by what they say of themselves; nothing is rendered, executed or fetched, and the file name of an
attachment is a name only, without folders.
"""

from __future__ import annotations

import contextlib
import datetime
import email.utils
import re
from email.message import Message as Mail
from email.parser import BytesParser
from email.policy import Compat32
from hashlib import blake2b
from typing import Any

from atop.pim.addresses import split_addresses
from atop.pim.header_words import decode_words
from atop.pim.incoming import Content, Record, fingerprint, hashed_uid
from atop.pim.lines import decode
from atop.pim.mailbox_file import RawMessage
from atop.pim.times import in_utc

# Longest text kept as text, in characters; a longer one is an attachment. Novels are shorter.
MAX_TEXT = 4 * 1024 * 1024

# Most parts of a message, attachments included; of a message with more, the whole is one attachment besides.
MAX_PARTS = 1_000

# Past so many bytes of headers, lines, or lines that may be boundaries, what the parser makes of a message would take
# many times its size in memory. A message with 50 MB of attachments has a million lines, and a handful of boundaries.
MAX_HEADER_BYTES = 1024 * 1024
MAX_LINES = 1_500_000
MAX_BOUNDARIES = 10_000

# Longest Content-Type, Content-Disposition and the like, in characters: they hold some words and the name of a file.
# The standard library takes time in the square of their length to take them apart: many seconds for a megabyte.
MAX_CONTENT_HEADER = 64 * 1024

# Longest subject and the like, in characters: they are indexed, and so many fit into the key of an index (256 KiB) even
# if they are of those that take six bytes when case does not count.
MAX_INDEXED = 40_000
INDEXED = ("uid", "message_id", "subject", "sender", "folder")

# Most header fields kept, and addresses of one field: mailing lists stay far below.
MAX_HEADERS = 2_000
MAX_ADDRESSES = 10_000

FLAG_LETTERS = {"R": "seen", "A": "answered", "F": "flagged", "T": "draft", "D": "deleted"}
# X-Mozilla-Status: bits of a hexadecimal number.
FORWARDED = 0x1000
MOZILLA_FLAGS = ((0x1, "seen"), (0x2, "answered"), (0x4, "flagged"), (0x8, "deleted"), (FORWARDED, "forwarded"))
FLAGS = frozenset({*FLAG_LETTERS.values(), "forwarded"})
# Headers that say how a mailbox keeps the message, not what it is.
MAILBOX_HEADERS = frozenset(
    {"status", "x-status", "x-mozilla-status", "x-mozilla-status2", "x-mozilla-keys", "x-uid", "x-gmail-labels"}
)

# Header fields of an export of Atop's own. The mark names the fields that were made for it, and are none of the
# message; "X-Atop-Was-" and a name is a field that another one stands for. The parameter is the media type of a file.
EXPORT_MARK = "X-Atop-Export"
WAS_PREFIX = "X-Atop-Was-"
OWN_HEADERS = frozenset({EXPORT_MARK.lower(), "x-atop-folder", "x-atop-uid", "x-atop-size"})
MADE_TYPE = "x-atop-type"

_LABEL = re.compile(r'\s*+"([^"]*)"\s*(?:,|\Z)|([^,]+)')
_MESSAGE_ID = re.compile(r"<([^<>\s]+)>")
_SPACES = re.compile(r"\s+")
_NOT_NAME = re.compile(r"[/\\\0]")
_HEAD_END = re.compile(rb"\n\r?\n")
_FOLD = re.compile(r"\r?\n[ \t]?")
_QUOTED_FROM = re.compile(r"^>+(?=From )", re.MULTILINE)


class _Raw(Compat32):
    """The policy that gives header fields as they were written, where the usual one replaces what is not ASCII.

    Fields about contents that are too long are cut, in parts of the message too, and named in `cut`.
    """

    cut: dict[str, None]

    def __init__(self) -> None:
        super().__init__()
        object.__setattr__(self, "cut", {})  # a policy refuses what it does not know

    def header_source_parse(self, sourcelines: list[str]) -> tuple[str, str]:
        name, value = super().header_source_parse(sourcelines)
        if len(value) > MAX_CONTENT_HEADER and name.lower().startswith("content-"):
            self.cut[name.title()[:80]] = None
            value = value[:MAX_CONTENT_HEADER]
        return name, value

    def header_fetch_parse(self, name: str, value: str) -> str:
        return value


def blank() -> dict[str, Any]:
    """The attributes of a message of which nothing is known."""
    return {
        "uid": "",
        "message_id": "",
        "subject": "",
        "sender": "",
        "to": [],
        "cc": [],
        "bcc": [],
        "reply_to": [],
        "date": None,
        "text": "",
        "html": "",
        "attachments": [],
        "inline": {},
        "in_reply_to": "",
        "references": [],
        "labels": [],
        "flags": [],
        "headers": [],
        "size": 0,
        "digest": b"",
    }


def read_message(raw: RawMessage) -> Record:
    """One message. Raises ValueError if there is nothing in it that a mail message has."""
    policy = _Raw()
    mail = _parse(raw.octets, policy)
    headers = [(name, header_text(value)) for name, value in mail.raw_items()][:MAX_HEADERS]
    first: dict[str, str] = {}
    for name, value in headers:
        first.setdefault(name.lower(), value)
    if not headers or not first.keys() & {"from", "to", "subject", "date", "message-id", "received", "content-type"}:
        raise ValueError("is no mail message: it has neither sender, recipient, subject nor date")
    state = blank()
    state["headers"] = _own_headers(headers, first)
    _read_headers(state, first, mail)
    state["flags"] = sorted({*raw.flags, *_flags(first)})
    state["labels"] = _labels(first.get("x-gmail-labels", ""))
    parts = _Parts(state)
    parts.add(mail)
    if parts.count > MAX_PARTS:
        state["attachments"].append(Content(raw.octets, "whole message.eml", "message/rfc822"))
    state["size"] = len(raw.octets)
    state["digest"] = digest_of(state)
    state["uid"] = state["message_id"] or hashed_uid("message", state["digest"])
    if EXPORT_MARK.lower() in first:
        _read_own(state, first)
    losses = [f"its {name} is cut after {MAX_CONTENT_HEADER >> 10} KiB" for name in policy.cut]
    losses += _cut_indexed(state)
    mark = fingerprint(raw.octets, ",".join([*state["flags"], *state["labels"]]).encode("utf-8", "replace"))
    return Record("message", state["uid"], state, raw.line, len(raw.octets), mark, losses=losses)


def _cut_indexed(state: dict[str, Any]) -> list[str]:
    """Cut what is too long for an index, and say so."""
    losses = []
    for name in INDEXED:
        if len(state.get(name, "")) > MAX_INDEXED:
            state[name] = state[name][:MAX_INDEXED]
            if name != "uid":  # which is the Message-ID, or of no interest
                losses.append(f"its {name} is cut after {MAX_INDEXED} characters: the whole is among its headers")
    return losses


def _parse(octets: bytes, policy: _Raw) -> Mail:
    """The message taken apart; only its headers, the rest being one attachment, where that would be too much.

    Raises ValueError if the headers are too large.
    """
    head = _HEAD_END.search(octets)
    if (len(octets) if head is None else head.start()) > MAX_HEADER_BYTES:
        raise ValueError(f"has more than {MAX_HEADER_BYTES >> 10} KiB of headers")
    parser = BytesParser(policy=policy)
    if octets.count(b"\n--") <= MAX_BOUNDARIES and octets.count(b"\n") <= MAX_LINES:
        with contextlib.suppress(RecursionError):  # parts inside parts, a hundred deep
            return parser.parsebytes(octets)
    return parser.parsebytes(octets, headersonly=True)


def header_text(value: str) -> str:
    """A header field as text: encoded words and raw 8-bit characters decoded, folding undone; never fails."""
    return decode_words(_FOLD.sub(" ", _raw_text(value))).strip()


def _raw_text(text: str) -> str:
    """Undo the surrogates in which the parser keeps octets that are not ASCII."""
    return text if text.isascii() else decode(text.encode("utf-8", "surrogateescape"))


def _read_headers(state: dict[str, Any], first: dict[str, str], mail: Mail) -> None:
    state["subject"] = first.get("subject", "")
    ids = _ids(first.get("message-id", ""))
    state["message_id"] = ids[0] if ids else ""
    state["references"] = _ids(first.get("references", ""))
    reply_ids = _ids(first.get("in-reply-to", ""))
    state["in_reply_to"] = reply_ids[0] if reply_ids else ""
    state["sender"] = next(iter(addresses(mail, "From") or addresses(mail, "Sender")), first.get("from", ""))
    for name, attribute in (("To", "to"), ("Cc", "cc"), ("Bcc", "bcc"), ("Reply-To", "reply_to")):
        state[attribute] = addresses(mail, name)
    state["date"] = _date(first.get("date", "")) or _date(first.get("received", "").rpartition(";")[2])


def _ids(text: str) -> list[str]:
    found = _MESSAGE_ID.findall(text)
    if found or not text.strip() or " " in text.strip():
        return [str(message_id) for message_id in found][:MAX_ADDRESSES]
    return [text.strip()]  # without the brackets


def addresses(mail: Mail, name: str) -> list[str]:
    """The addresses of a header field: `Ada <ada@example.org>`, or the bare address where there is no name."""
    text = ",".join(_FOLD.sub(" ", _raw_text(value)) for value in mail.get_all(name, []))
    found = []
    for person, address in split_addresses(text, MAX_ADDRESSES):
        display = header_text(person).replace('"', "")
        if display and address and display != address:
            found.append(f"{display} <{address}>")
        elif address or display:
            found.append(address or display)
    return found


def _date(text: str) -> datetime.datetime | None:
    try:
        parsed = email.utils.parsedate_to_datetime(text.strip())
    except (ValueError, TypeError, IndexError, OverflowError):  # each has been seen of some date
        return None
    if parsed.tzinfo is None:  # "-0000": in UTC, sender's zone not known
        return parsed.replace(tzinfo=datetime.UTC)
    return parsed


def _flags(first: dict[str, str]) -> set[str]:
    letters = first.get("status", "") + first.get("x-status", "")
    flags = {flag for letter, flag in FLAG_LETTERS.items() if letter in letters}
    mozilla = first.get("x-mozilla-status", "")
    if re.fullmatch(r"[0-9A-Fa-f]{1,8}", mozilla):
        flags |= {flag for bit, flag in MOZILLA_FLAGS if int(mozilla, 16) & bit}
    return flags


def _labels(text: str) -> list[str]:
    found = (match[1] if match[1] is not None else match[2].strip().strip('"') for match in _LABEL.finditer(text))
    return [label for label in found if label]


def _own_headers(headers: list[tuple[str, str]], first: dict[str, str]) -> list[list[str]]:
    """The header fields that are the message's; of an export, as they were before it."""
    if EXPORT_MARK.lower() not in first:
        return [[name, value] for name, value in headers if name.lower() not in MAILBOX_HEADERS]
    made = {name.strip() for name in first[EXPORT_MARK.lower()].split(",")} | OWN_HEADERS | MAILBOX_HEADERS
    own: list[list[str]] = []
    for name, value in headers:
        lower = name.lower()
        if lower.startswith(WAS_PREFIX.lower()) and len(lower) > len(WAS_PREFIX):
            own.append([name[len(WAS_PREFIX) :], value])
        elif lower not in made and not lower.startswith("content-"):
            own.append([name, value])
    return own


def _read_own(state: dict[str, Any], first: dict[str, str]) -> None:
    """What only an export says of a message."""
    if not state["message_id"] and first.get("x-atop-uid"):
        state["uid"] = first["x-atop-uid"]
    if re.fullmatch(r"\d{1,15}", first.get("x-atop-size", ""), re.ASCII):
        state["size"] = int(first["x-atop-size"])
    state["folder"] = first.get("x-atop-folder", "")


def read_headers(state: dict[str, Any], fields: list[tuple[str, str]]) -> None:
    """Set the attributes of a message that such header fields would give it."""
    mail = Mail(policy=_Raw())
    first: dict[str, str] = {}
    for name, text in fields:
        mail.add_header(name, text)
        first.setdefault(name.lower(), header_text(text))
    _read_headers(state, first, mail)


def same_when_parsed(octets: bytes) -> bool:
    """Whether a message is attached to another one as it is, and comes out of that the same."""
    try:
        return _parse(octets, _Raw()).as_bytes() == octets
    except (ValueError, LookupError, TypeError, AttributeError):  # what the writer cannot write again
        return False


class _Parts:
    """Takes the parts of a message: the first text of each kind is its text, the rest are attachments."""

    def __init__(self, state: dict[str, Any]) -> None:
        self._state = state
        self.count = 0

    def add(self, mail: Mail, depth: int = 0) -> None:
        """Take one part, and those inside it."""
        self.count += 1
        if self.count > MAX_PARTS:
            return
        kind = mail.get_content_type()
        if kind == "message/rfc822" or (mail.is_multipart() and depth > 50):
            self._attach_message(mail, kind)
        elif mail.is_multipart():
            for part in mail.get_payload():
                if isinstance(part, Mail):
                    self.add(part, depth + 1)
        elif kind in ("text/plain", "text/html") and self._is_text(mail):
            self._add_text(mail, "html" if kind == "text/html" else "text")
        else:
            self._attach(mail, kind)

    def _is_text(self, mail: Mail) -> bool:
        return mail.get_content_disposition() != "attachment" and not _file_name(mail)

    def _add_text(self, mail: Mail, attribute: str) -> None:
        charset = mail.get_param("charset")
        name = email.utils.collapse_rfc2231_value(charset) if charset else None
        text = decode(_octets(mail), name).replace("\r\n", "\n")
        if not text.strip():
            return
        before = self._state[attribute]
        if len(before) + len(text) > MAX_TEXT:
            self._attach(mail, mail.get_content_type())
        else:
            self._state[attribute] = f"{before}\n{text}" if before else text

    def _attach(self, mail: Mail, kind: str) -> None:
        data = _octets(mail)
        made_type = mail.get_param(MADE_TYPE)
        if made_type is not None:
            kind = email.utils.collapse_rfc2231_value(made_type)
        content = Content(data, _file_name(mail), kind)
        content_id = next(iter(_ids(header_text(mail.get("Content-ID", "")))), "")
        is_shown = kind.startswith("image/") and mail.get_content_disposition() != "attachment"
        if content_id and is_shown and content_id not in self._state["inline"]:
            self._state["inline"][content_id] = content
        elif data or content.name:
            self._state["attachments"].append(content)

    def _attach_message(self, mail: Mail, kind: str) -> None:
        inner = mail.get_payload()
        part = inner[0] if isinstance(inner, list) and inner else mail
        try:
            data = part.as_bytes() if isinstance(part, Mail) else _octets(mail)
        except (ValueError, LookupError, TypeError, AttributeError):  # what the writer cannot write again
            data = str(inner).encode("utf-8", "replace")
        subject = header_text(part.get("Subject", "")) if isinstance(part, Mail) else ""
        name = _file_name(mail) or f"{_NOT_NAME.sub(' ', subject) or 'message'}.eml"
        self._state["attachments"].append(Content(data, name, kind))


def _octets(mail: Mail) -> bytes:
    try:
        data = mail.get_payload(decode=True)
    except (ValueError, LookupError):  # uuencoded text that is none
        data = None
    if isinstance(data, bytes):
        return data
    payload = mail.get_payload()
    return payload.encode("utf-8", "surrogateescape") if isinstance(payload, str) else b""


def _file_name(mail: Mail) -> str:
    """The name that a part gives itself, without folders."""
    try:
        name = mail.get_filename() or ""
    except (ValueError, LookupError, TypeError):  # a charset in it that does not exist
        name = ""
    text = header_text(name).replace("\\", "/").rpartition("/")[2].replace("\0", "")
    return text if text not in (".", "..") else ""


def digest_of(state: dict[str, Any]) -> bytes:
    """16 bytes that are the same for two copies of a message that came different ways.

    Of sender, date, subject, texts and attachments; white space and the quoting of "From " do not count.
    """
    digest = blake2b(digest_size=16)
    sender = split_addresses(state["sender"], 1)
    address = sender[0][1].lower() if sender else ""
    date = in_utc(state["date"]).isoformat() if state["date"] is not None else ""
    texts = [_QUOTED_FROM.sub("", state[name]) for name in ("text", "html")]
    for text in (address, date, state["subject"], *texts):
        digest.update(_SPACES.sub("", text).encode("utf-8", "replace") + b"\0")
    for content in (*state["attachments"], *state["inline"].values()):
        digest.update(content.name.encode("utf-8", "replace") + b"\0" + content.digest())
    return digest.digest()
