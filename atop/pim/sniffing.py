"""What a file is, by its first bytes and its name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, get_args

from atop.pim.lines import SNIFF_BYTES, sniff_encoding
from atop.pim.mailbox_file import is_maildir

Format = Literal["vcard", "icalendar", "mbox", "maildir", "eml", "csv", "jsonl"]

FORMATS: tuple[str, ...] = get_args(Format)

SUFFIXES: dict[str, Format] = {
    ".vcf": "vcard",
    ".vcard": "vcard",
    ".ics": "icalendar",
    ".ical": "icalendar",
    ".ifb": "icalendar",
    ".vcs": "icalendar",
    ".mbox": "mbox",
    ".mbx": "mbox",
    ".eml": "eml",
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}

_BEGIN = re.compile(r"^\s*BEGIN:(VCARD|VCALENDAR|VEVENT|VTODO|VJOURNAL)[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)
_MAIL_HEADER = re.compile(
    r"(?:(?:From|To|Subject|Date|Message-ID|Received|Return-Path|Delivered-To|MIME-Version|X-[\w-]+)[ \t]*:)",
    re.IGNORECASE,
)


def sniff(path: Path) -> Format | None:
    """The format of a file or folder; None if it is none that can be read here. Raises OSError."""
    if path.is_dir():
        return "maildir" if is_maildir(path) else None
    with path.open("rb") as stream:
        start = stream.read(SNIFF_BYTES)
    return sniff_start(start) or _by_name(path, start)


def sniff_start(start: bytes) -> Format | None:
    """The format that the first bytes of a file show."""
    encoding = sniff_encoding(start)
    text = start.decode(encoding or "utf-8", "replace").lstrip("\ufeff")
    begin = _BEGIN.search(text)
    if begin is not None and not text[: begin.start()].strip():
        return "vcard" if begin[1].upper() == "VCARD" else "icalendar"
    if text.startswith("From "):
        return "mbox"
    if text.lstrip().startswith("{") and '"' in text:
        return "jsonl"
    if _MAIL_HEADER.match(text):
        return "eml"
    if begin is not None:  # after text that belongs to no record
        return "vcard" if begin[1].upper() == "VCARD" else "icalendar"
    return None


def _by_name(path: Path, start: bytes) -> Format | None:
    """By the suffix; a file without one that has bytes of a program or picture is none."""
    found = SUFFIXES.get(path.suffix.lower())
    if found is not None:
        return found
    is_text = b"\0" not in start or sniff_encoding(start) is not None
    first_line = start.partition(b"\n")[0]
    if path.suffix.lower() == ".txt" and is_text and any(mark in first_line for mark in (b",", b";", b"\t")):
        return "csv"
    return None
