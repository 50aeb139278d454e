"""Mail: a list of messages, newest first, beside the one that is read.

Promises: nothing in a message runs or is loaded from anywhere. Its HTML goes through `sanitise` and is shown by a page
of its own, in a sandboxed frame, with a policy that allows pictures which are part of it and nothing else. Reading
changes nothing: a message is marked as read where the person says so.
"""

from __future__ import annotations

import datetime
import functools
import re
from typing import Any, NamedTuple

from starlette.responses import HTMLResponse, Response

from atop import File, Item, NoSuchFile, Pool
from atop.browser import attributes as attr
from atop.browser.conversation import conversation
from atop.browser.lists import MAX_FOUND, MAX_ROWS, newest, order, place, pool_named, search, slice_of
from atop.browser.prose import attachment, long_time, paragraphs, when
from atop.browser.sanitise import FRAME_POLICY, MAX_HTML, MAX_PICTURE, Sanitised, frame_page, sanitise
from atop.browser.views import Call, Entry, Refusal, View, page

POOL = "messages"
PAGE = 60
MAX_FOLDERS = 100
# Characters of the text of a message that a list shows, and of one that is read.
SNIPPET = 140
MAX_TEXT = 500_000

_ADDRESS = re.compile(r"\s*(.*?)\s*<([^<>]*)>\s*", re.DOTALL)


class Row(NamedTuple):
    """A message in the list."""

    id: str
    sender: str
    subject: str
    snippet: str
    when: str
    date: datetime.datetime | None
    seen: bool
    flagged: bool
    has_files: bool
    is_reply: bool


def show(call: Call) -> Response:
    """GET /mail and /mail/ID: the page, or with `part` only the list or the message."""
    pool = pool_named(call, POOL)
    part = call.text("part", 10)
    if pool is None:
        return call.page("mail_empty.html", "Mail")
    message = _message(call, pool) if "item_id" in call.path else None
    if part == "pane":
        return call.page("mail_pane.html", "Mail", message=message)
    listing = _listing(call, pool)
    if part == "list":
        return call.page("mail_rows.html", "Mail", listing=listing, current="")
    return call.page(
        "mail.html",
        message["subject"] if message else "Mail",
        listing=listing,
        folders=_folders(pool),
        message=message,
        current=message["id"] if message else "",
    )


def frame(call: Call) -> Response:
    """GET /mail/ID/html: the HTML of a message, made harmless, for a sandboxed frame."""
    item = call.store.get(call.path["item_id"])
    content = _content(item)
    if content is None:
        raise Refusal(404, "This message has no HTML that can be shown.")
    headers = {"content-security-policy": FRAME_POLICY, "x-frame-options": "SAMEORIGIN"}
    return HTMLResponse(frame_page(content, attr.line(attr.get(item, "subject"))), headers=headers)


# ------------------------------------------------------------------------------------------- the list


def _listing(call: Call, pool: Pool) -> dict[str, Any]:
    """The rows that are asked for, and the addresses of more."""
    words, folder = call.text("q"), call.text("folder")
    count = call.number("count", PAGE, 1, MAX_ROWS)
    scope = {"q": words, "folder": folder}
    if words.strip():
        items = _search(pool, words, folder)
        rows, more = slice_of(call, items, count, scope)
        return _described(rows, scope, more, len(items))
    rows, cursor = _newest(pool, folder, place(call, "after"), count)
    return _described(rows, scope, {**scope, "after": cursor.hex()} if cursor else None, None)


def _described(
    items: list[Item], scope: dict[str, str], more: dict[str, str] | None, found: int | None
) -> dict[str, Any]:
    now = datetime.datetime.now()
    return {
        "rows": [_row(item, now) for item in items],
        "scope": scope,
        "query": {name: value for name, value in scope.items() if value},
        "more": {name: value for name, value in more.items() if value} if more else None,
        "found": found,
        "cut": found == MAX_FOUND,
    }


def _newest(pool: Pool, folder: str, after: bytes, count: int) -> tuple[list[Item], bytes | None]:
    """Messages by date, the newest first, and the place where those after them begin."""
    index = order(pool, "folder,date" if folder else "date")
    if not index:
        return [], None
    if folder and not after:
        after = pool.page(index, 1, start=(f"{folder}\0",)).previous or b""
        if not after:
            return [], None
    items, cursor = newest(pool, index, after, count)
    if folder:
        inside = [item for item in items if attr.get(item, "folder") == folder]
        return inside, cursor if len(inside) == len(items) else None
    return items, cursor


def _search(pool: Pool, words: str, folder: str) -> list[Item]:
    """Messages with all these words, the newest first."""
    found = [item for item in search(pool, words) if not folder or attr.get(item, "folder") == folder]
    oldest = datetime.datetime.min
    return sorted(found, key=lambda item: attr.moment(attr.get(item, "date")) or oldest, reverse=True)


def _folders(pool: Pool) -> list[str]:
    """The names of the folders, found by jumping from one to the next."""
    names: list[str] = []
    if "folder,date" not in pool.indexes:
        return names
    start = "\0"
    while len(names) < MAX_FOLDERS:
        item = next(pool.query("folder,date", start=(start,), limit=1), None)
        folder = attr.get(item, "folder") if item is not None else None
        if not isinstance(folder, str):
            return names
        names.append(attr.text(folder))
        start = f"{folder}\0"
    return names


def _row(item: Item, now: datetime.datetime) -> Row:
    date = attr.moment(attr.get(item, "date"))
    flags = attr.lines(attr.get(item, "flags"))
    return Row(
        id=str(item.item_id),
        sender=person(attr.line(attr.get(item, "sender")))[0],
        subject=attr.line(attr.get(item, "subject")),
        snippet=_snippet(attr.text(attr.get(item, "text"), 2_000)),
        when=when(date, now),
        date=date,
        seen="seen" in flags,
        flagged="flagged" in flags,
        has_files=bool(attr.files(attr.get(item, "attachments"), 1)),
        is_reply=bool(attr.line(attr.get(item, "in_reply_to"))),
    )


def _snippet(body: str) -> str:
    """The beginning of what the sender wrote: without quotations."""
    own = " ".join(line for line in body.split("\n") if line.strip() and not line.startswith((">", "-- ", "--\r")))
    return " ".join(own.split())[:SNIPPET]


def person(address: str) -> tuple[str, str]:
    """The name and the address in `Ada <ada@example.org>`; the address twice where there is no name."""
    match = _ADDRESS.fullmatch(address)
    if match is None:
        return address, address if "@" in address else ""
    return match[1].strip('"') or match[2], match[2]


# ------------------------------------------------------------------------------------------- one message


def _message(call: Call, pool: Pool) -> dict[str, Any]:
    item = call.store.get(call.path["item_id"])
    date = attr.moment(attr.get(item, "date"))
    content = _content(item)
    html = attr.get(item, "html")
    body = attr.text(attr.get(item, "text"), MAX_TEXT)
    attachments = attr.files(attr.get(item, "attachments"))
    flags = attr.lines(attr.get(item, "flags"))
    return {
        "id": str(item.item_id),
        "version": str(item.version),
        "subject": attr.line(attr.get(item, "subject")) or "(no subject)",
        "sender": person(attr.line(attr.get(item, "sender"))),
        "people": [(name, _people(attr.get(item, key))) for name, key in (("To", "to"), ("Cc", "cc"), ("Bcc", "bcc"))],
        "date": date,
        "day": long_time(date) if date else "",
        "folder": attr.line(attr.get(item, "folder")),
        "labels": attr.lines(attr.get(item, "labels")),
        "seen": "seen" in flags,
        "flags": flags,
        "html": content,
        "unshown": content is None and bool(attr.text(html, MAX_HTML).strip()),
        "paragraphs": paragraphs(body) if content is None or call.text("as") == "text" else [],
        "cut": isinstance(attr.get(item, "text"), str) and len(attr.get(item, "text")) > MAX_TEXT,
        "has_text": bool(body.strip()),
        "attachments": [attachment(item, file) for file in attachments],
        "headers": _headers(attr.get(item, "headers")),
        "conversation": [
            (_row(other, datetime.datetime.now()), other.item_id == item.item_id) for other in conversation(pool, item)
        ],
    }


def _people(value: Any) -> list[tuple[str, str]]:
    return [person(address) for address in attr.lines(value)]


def _headers(value: Any) -> list[tuple[str, str]]:
    pairs = [attr.lines(pair, 2) for pair in attr.elements(value)]
    return [(pair[0], pair[1]) for pair in pairs if len(pair) == 2]


def _content(item: Item) -> Sanitised | None:
    """The message's HTML as it may be shown; None if it has none, or none that can be."""
    html = attr.get(item, "html")
    if not isinstance(html, str) or not html.strip():
        return None
    return _sanitised(item, item.version, html)


@functools.lru_cache(maxsize=2)  # the message and its frame are asked for one after the other
def _sanitised(item: Item, _version: int, html: str) -> Sanitised | None:
    inline = attr.get(item, "inline")
    parts = inline if hasattr(inline, "get") else {}

    def picture(content_id: str) -> bytes | None:
        file = parts.get(content_id)
        if not isinstance(file, File) or file.size > MAX_PICTURE:
            return None
        try:
            return file.read()
        except NoSuchFile:  # this device does not have it yet
            return None

    return sanitise(html, picture)


VIEW = View(
    routes=[page("/mail", show), page("/mail/{item_id:int}", show), page("/mail/{item_id:int}/html", frame)],
    entries=[Entry("Mail", "/mail", "mail", pool=POOL)],
)
