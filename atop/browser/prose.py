"""Plain text for a page: its links, its quotations, and dates as short as they can be told."""

from __future__ import annotations

import datetime
import re
from typing import Any, NamedTuple

from atop import File, Item
from atop.browser import attributes as attr

_URL = re.compile(r"\bhttps?://[^\s<>\"'\u0000-\u001f]+", re.IGNORECASE)
_QUOTE = re.compile(r"> ?")
MAX_DEPTH = 5


class Piece(NamedTuple):
    """A stretch of plain text; with an address, a link."""

    text: str
    address: str


class Paragraph(NamedTuple):
    """Lines of plain text that are quoted equally often."""

    depth: int
    pieces: list[Piece]


def paragraphs(body: str) -> list[Paragraph]:
    """A plain text by how often it is quoted."""
    found: list[tuple[int, list[str]]] = []
    for text in body.replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        depth, rest = 0, text
        while depth < MAX_DEPTH and (match := _QUOTE.match(rest)):
            depth, rest = depth + 1, rest[match.end() :]
        if found and found[-1][0] == depth:
            found[-1][1].append(rest)
        else:
            found.append((depth, [rest]))
    joined = ((depth, "\n".join(lines).strip("\n")) for depth, lines in found)
    return [Paragraph(depth, pieces(text)) for depth, text in joined if text.strip()]


def pieces(text: str) -> list[Piece]:
    """A plain text with its links."""
    found, end = [], 0
    for match in _URL.finditer(text):
        address = match[0].rstrip(".,;:!?)]}'\"")
        found += [Piece(text[end : match.start()], ""), Piece(address, address)]
        end = match.start() + len(address)
    return [piece for piece in (*found, Piece(text[end:], "")) if piece.text]


def when(moment: datetime.datetime | None, now: datetime.datetime) -> str:
    """The time today, the day this year, else the date."""
    if moment is None:
        return ""
    if moment.date() == now.date():
        return f"{moment:%H:%M}"
    if moment.year == now.year:
        return f"{moment.day} {moment:%b}"
    return moment.date().isoformat()


def long_day(day: datetime.date) -> str:
    """`12 April 1815`."""
    return f"{day.day} {day:%B} {day.year}"


def long_time(moment: datetime.datetime) -> str:
    """`Monday 12 April 1815, 09:30`."""
    return f"{moment:%A} {long_day(moment)}, {moment:%H:%M}"


def attachment(item: Item, file: File) -> dict[str, Any]:
    """A file of an item, as a page names it."""
    return {
        "name": attr.line(file.name) or "file",
        "size": file.size,
        "type": attr.line(file.media_type),
        "path": f"/api/items/{item.item_id}/files/{file.digest.hex()}",
    }
