"""Writes messages as mail (RFC 5322, MIME) in an mbox file, so that `message` reads them back attribute for attribute.

The header fields are written as they came, in their order; those that say how the body is written (Content-Type and its
like), and those that the item's attributes contradict, are made anew, and what they were stands beside them in fields
`X-Atop-Was-...`, for the next import here. The body is built from the texts and files of the item, so it is not the
octets that were sent: a signature over these does not hold. Lines that begin with "From " are quoted (mboxrd).
Files are read piece by piece. Never writes a header field that holds more than one.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import email.utils
import re
import urllib.parse
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from typing import Any

from atop import File
from atop.pim.addresses import split_addresses
from atop.pim.contentline import clean
from atop.pim.message import (
    EXPORT_MARK,
    FLAG_LETTERS,
    FORWARDED,
    MADE_TYPE,
    WAS_PREFIX,
    blank,
    header_text,
    read_headers,
    same_when_parsed,
)
from atop.pim.times import UTC, in_utc

# Longest line written where it can be cut, and longest one that RFC 5322 section 2.1.1 allows, in octets.
LINE_OCTETS = 76
MAX_LINE_OCTETS = 998

# Bytes of a file that are encoded at a time: whole lines of base64, of 57 bytes each.
PIECE_BYTES = 57 * 1024

# Header fields that hold addresses, and other ones that an attribute stands for.
ADDRESSES = {"From": "sender", "To": "to", "Cc": "cc", "Bcc": "bcc", "Reply-To": "reply_to"}
OTHERS = {
    "Subject": "subject",
    "Date": "date",
    "Message-ID": "message_id",
    "In-Reply-To": "in_reply_to",
    "References": "references",
}
_BY_NAME = {name.lower(): (name, attribute) for name, attribute in (ADDRESSES | OTHERS).items()}

_FIELD_NAME = re.compile(r"[!-9;-~]{1,200}\Z")
_PLAIN = re.compile(r"[\t -~]*\Z")
_PLAIN_BODY = re.compile(r"[\t\n -~]*\Z")
_FROM = re.compile(rb"^(>*From )", re.MULTILINE)
_NAMED_ADDRESS = re.compile(r"(.*) <([^<>]*)>\Z", re.DOTALL)
_NEEDS_QUOTES = re.compile(r"[^\w !#$%&'*+/=?^`{|}~-]", re.ASCII)
_MEDIA_TYPE = re.compile(r"(?!multipart/|message/)[a-z0-9!#$&^_.+-]+/[a-z0-9!#$&^_.+-]+\Z")
_TOKEN = re.compile(r"[\w.+-]+\Z", re.ASCII)


def write_message(state: Mapping[str, Any]) -> Iterator[bytes]:
    """A message as it stands in an mbox file, its envelope before and a blank line after it.

    Raises ValueError, before anything is given, for a header field that has no name; and NoSuchFile.
    """
    head = _envelope(state) + "".join(f"{line}\n" for line in _Headers(state).lines())
    yield head.encode("utf-8", "replace")
    yield from _Body(state).pieces()
    yield b"\n"


def _envelope(state: Mapping[str, Any]) -> str:
    people = split_addresses(state["sender"], 1)
    address = people[0][1] if people else ""
    date = state["date"] or datetime.datetime(1970, 1, 1, tzinfo=UTC)
    sender = address if "@" in address and re.fullmatch(r"[!-~]+", address) else "MAILER-DAEMON"
    return f"From {sender} {_aware(date).ctime()}\n"


def _aware(date: datetime.datetime) -> datetime.datetime:
    return date.replace(tzinfo=UTC) if date.tzinfo is None else in_utc(date)


# --------------------------------------------------------------------------------------------- header fields


class _Headers:
    """The header fields of a message: those that it came with, and those that are made anew."""

    def __init__(self, state: Mapping[str, Any]) -> None:
        self._state = state
        self._fields = [(str(name), str(value)) for name, value in state["headers"]]
        for name, _ in self._fields:
            if not _FIELD_NAME.match(name):
                raise ValueError(f"its headers have a field that has no name for one: {name[:40]!r}")
        self._texts = [self._text_of(name, value) for name, value in self._fields]

    def lines(self) -> Iterator[str]:
        """The lines without their ends; the header fields of the body follow."""
        made = self._made()
        for (name, value), text in zip(self._fields, self._texts, strict=True):
            if _is_of_body(name) or name.lower() in made:
                yield from _field(f"{WAS_PREFIX}{name}", _encoded(value))
            else:
                yield from _field(name, text)
        for text in filter(None, made.values()):
            yield text
        yield from _field(EXPORT_MARK, ", ".join(["mime-version", *made]))
        yield from self._of_the_mailbox()

    def _text_of(self, name: str, value: str) -> str:
        """A field as it is to be written: addresses must not be encoded as a whole."""
        canonical, attribute = _BY_NAME.get(name.lower(), ("", ""))
        if canonical not in ADDRESSES or _is_plain(value):
            return _encoded(value)
        text = _write_addresses(self._state[attribute])
        return text if header_text(text) == value else _encoded(value)

    def _made(self) -> dict[str, str]:
        """The fields that are made of attributes, by name in lower case: those which the others do not tell."""
        told = blank()
        read_headers(told, list(zip((name for name, _ in self._fields), self._texts, strict=True)))
        made: dict[str, str] = {}
        for lower, (name, attribute) in _BY_NAME.items():
            here = self._state[attribute]
            same = told[attribute] == here
            if attribute == "date" and here is not None and told["date"] is not None:
                same = same and told["date"].utcoffset() == here.utcoffset()
            if not same:
                made[lower] = "\n".join(_field(name, _write_attribute(attribute, here))) if here else ""
        return made

    def _of_the_mailbox(self) -> Iterator[str]:
        state = self._state
        flags = set(state["flags"])
        yield "Status: RO" if "seen" in flags else "Status: O"
        letters = "".join(letter for letter, flag in FLAG_LETTERS.items() if letter != "R" and flag in flags)
        if letters:
            yield f"X-Status: {letters}"
        if "forwarded" in flags:
            yield f"X-Mozilla-Status: {FORWARDED:04x}"
        if state["labels"]:
            labels = (f'"{label}"' if "," in label else label for label in state["labels"])
            yield from _field("X-Gmail-Labels", _encoded(",".join(labels)))
        yield from _field("X-Atop-Folder", _encoded(state["folder"]))
        if not state["message_id"]:
            yield from _field("X-Atop-Uid", _encoded(state["uid"]))
        yield f"X-Atop-Size: {state['size']}"


def _is_of_body(name: str) -> bool:
    return name.lower() == "mime-version" or name.lower().startswith("content-")


def _is_plain(text: str) -> bool:
    return _PLAIN.match(text) is not None and "=?" not in text


def _field(name: str, text: str) -> Iterator[str]:
    """A header field, folded at spaces."""
    line = f"{name}:"
    for word in text.split(" "):
        if len(line) + len(word) >= LINE_OCTETS and line.strip() and word and line != f"{name}:":
            yield line
            line = ""
        line += f" {word}"
    yield line


def _encoded(text: str) -> str:
    """A text as a header field holds it, in encoded words (RFC 2047) where it has to be."""
    fits = all(len(word) < MAX_LINE_OCTETS - 250 for word in text.split(" "))
    return text if _is_plain(text) and fits else _encoded_words(text)


def _encoded_words(text: str) -> str:
    words = []
    piece = b""
    for character in clean(text) if "\r" not in text else text:
        octets = character.encode("utf-8", "replace")
        if len(piece) + len(octets) > 45:
            words.append(piece)
            piece = b""
        piece += octets
    return " ".join(f"=?utf-8?B?{base64.b64encode(word).decode('ascii')}?=" for word in (*words, piece))


def _write_addresses(value: str | list[str]) -> str:
    people = [value] if isinstance(value, str) else value
    return ", ".join(map(_write_address, filter(None, people)))


def _write_address(person: str) -> str:
    match = _NAMED_ADDRESS.match(person)
    if match is None:  # of a bare one there is nothing that could be encoded
        return " ".join(person.split())
    name, address = match[1], "".join(match[2].split())
    if not _is_plain(name):
        name = _encoded_words(name)
    elif _NEEDS_QUOTES.search(name):
        name = '"{}"'.format(name.replace("\\", "\\\\").replace('"', '\\"'))
    return f"{name} <{address}>"


def _write_attribute(attribute: str, value: Any) -> str:
    if attribute == "subject":
        return _encoded(value)
    if attribute == "date":
        return email.utils.format_datetime(value if value.tzinfo is not None else value.replace(tzinfo=UTC))
    if attribute in ADDRESSES.values():
        return _write_addresses(value)
    ids = [value] if isinstance(value, str) else value
    return " ".join(f"<{''.join(message_id.split())}>" for message_id in ids)


# ---------------------------------------------------------------------------------------------------- body


class _Body:
    """The body of a message: its texts, the pictures in them, and its attachments."""

    def __init__(self, state: Mapping[str, Any]) -> None:
        self._state = state
        files = [*state["attachments"], *state["inline"].values()]
        mark = blake2b(digest_size=12)
        for octets in (
            *(state[n].encode("utf-8", "replace") for n in ("uid", "text", "html")),
            *(f.digest for f in files),
        ):
            mark.update(octets)
        self._boundary = f"=_atop_{mark.hexdigest()}"  # which no text holds that it is made of

    def pieces(self) -> Iterator[bytes]:
        """The header fields of the body, a blank line, and the body."""
        yield b"MIME-Version: 1.0\n"
        state = self._state
        inline = [(self._file, file, content_id) for content_id, file in state["inline"].items()]
        html: tuple[Any, ...] | None = (self._text, "html") if state["html"].strip() else None
        if html is not None and inline:
            html, inline = (self._several, "related", [html, *inline]), []
        texts = [part for part in ((self._text, "text") if state["text"].strip() else None, html) if part is not None]
        body: tuple[Any, ...] = (self._several, "alternative", texts)
        if len(texts) < 2:
            body = texts[0] if texts else (self._text, "text")
        others = [*inline, *((self._file, file, "") for file in state["attachments"])]
        write, *arguments = (self._several, "mixed", [body, *others]) if others else body
        yield from write(*arguments)

    def _several(self, kind: str, parts: list[tuple[Any, ...]]) -> Iterator[bytes]:
        boundary = f"{self._boundary}_{kind}"
        yield f'Content-Type: multipart/{kind};\n boundary="{boundary}"\n\n'.encode()
        for write, *arguments in parts:
            yield f"--{boundary}\n".encode()
            yield from write(*arguments)
            yield b"\n"
        yield f"--{boundary}--\n".encode()

    def _text(self, attribute: str) -> Iterator[bytes]:
        text = self._state[attribute]
        octets = text.encode("utf-8", "replace")
        encoding = "quoted-printable"
        if "\r" in text:
            encoding, octets = "base64", base64.encodebytes(octets)
        elif not text or (text.endswith("\n") and _PLAIN_BODY.match(text) and _fits(octets)):
            encoding = "7bit"
        else:
            octets = binascii.b2a_qp(octets, istext=True)
            if not octets.endswith(b"\n"):
                octets += b"=\n"
        kind = "html" if attribute == "html" else "plain"
        yield f'Content-Type: text/{kind}; charset="utf-8"\nContent-Transfer-Encoding: {encoding}\n\n'.encode()
        yield _FROM.sub(rb">\1", octets)

    def _file(self, file: File, content_id: str) -> Iterator[bytes]:
        media_type = file.media_type
        parameters = _parameter("filename", file.name) if file.name else ""
        yield f"Content-Disposition: {'inline' if content_id else 'attachment'}{parameters}\n".encode()
        if content_id:
            yield "".join(f"{line}\n" for line in _field("Content-ID", _encoded(f"<{content_id}>"))).encode()
        if media_type == "message/rfc822" and same_when_parsed(data := file.read()):
            yield b"Content-Type: message/rfc822\nContent-Transfer-Encoding: 8bit\n\n" + _FROM.sub(rb">\1", data)
            return
        if _MEDIA_TYPE.match(media_type):
            yield f"Content-Type: {media_type}\n".encode()
        else:
            yield f"Content-Type: application/octet-stream{_parameter(MADE_TYPE, media_type)}\n".encode()
        yield b"Content-Transfer-Encoding: base64\n\n"
        with file.open() as stream:
            while piece := stream.read(PIECE_BYTES):
                yield base64.encodebytes(piece)


def _fits(octets: bytes) -> bool:
    return all(len(line) <= MAX_LINE_OCTETS for line in octets.split(b"\n"))


def _parameter(name: str, value: str) -> str:
    """A parameter of a header field of the body (RFC 2231)."""
    if _TOKEN.match(value):
        return f'; {name}="{value}"'
    return f";\n {name}*=utf-8''{urllib.parse.quote(value, safe='', errors='replace')}"
