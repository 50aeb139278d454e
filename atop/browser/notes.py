"""Notes: a list, the one changed last first, beside the text of one."""

from __future__ import annotations

import datetime
from typing import Any

from starlette.responses import Response

from atop import Item, Pool
from atop.browser import attributes as attr
from atop.browser.lists import MAX_ROWS, newest, order, place, pool_named, search, slice_of
from atop.browser.prose import Paragraph, attachment, long_day, pieces, when
from atop.browser.views import Call, Entry, View, page

POOL = "notes"
PAGE = 60
MAX_TEXT = 500_000


def show(call: Call) -> Response:
    """GET /notes and /notes/ID: the page, or with `part` only the list or the note."""
    pool = pool_named(call, POOL)
    if pool is None:
        return call.page("notes_empty.html", "Notes")
    part = call.text("part", 10)
    note = _note(call.store.get(call.path["item_id"])) if "item_id" in call.path else None
    if part == "pane":
        return call.page("notes_pane.html", "Notes", note=note)
    listing = _listing(call, pool)
    if part == "list":
        return call.page("notes_rows.html", "Notes", listing=listing, current="")
    title = note["title"] if note else "Notes"
    return call.page("notes.html", title, listing=listing, note=note, current=note["id"] if note else "")


def _listing(call: Call, pool: Pool) -> dict[str, Any]:
    words = call.text("q")
    count = call.number("count", PAGE, 1, MAX_ROWS)
    found, more = None, None
    if words.strip():
        items = search(pool, words)
        found = len(items)
        items, more = slice_of(call, items, count, {"q": words})
    else:
        index = order(pool, "modified")
        items, cursor = newest(pool, index, place(call, "after"), count) if index else ([], None)
        more = {"after": cursor.hex()} if cursor else None
    now = datetime.datetime.now()
    return {"rows": [_row(item, now) for item in items], "q": words, "more": more, "found": found}


def _row(item: Item, now: datetime.datetime) -> dict[str, str]:
    text = " ".join(attr.text(attr.get(item, "text"), 1_000).split())
    title = attr.line(attr.get(item, "title"))
    moment = attr.moment(attr.get(item, "day")) or attr.moment(attr.get(item, "modified"))
    return {
        "id": str(item.item_id),
        "title": title or text[:60] or "(empty)",
        "snippet": text[:160] if title else text[60:220],
        "when": when(moment, now),
    }


def _note(item: Item) -> dict[str, Any]:
    text = attr.text(attr.get(item, "text"), MAX_TEXT)
    times = [
        (name, attr.moment(attr.get(item, key))) for name, key in (("Created", "created"), ("Changed", "modified"))
    ]
    day = attr.day(attr.get(item, "day"))
    return {
        "id": str(item.item_id),
        "title": attr.line(attr.get(item, "title")) or "(no title)",
        "day": f"{day:%A} {long_day(day)}" if day else "",
        "times": [(name, f"{long_day(moment)}, {moment:%H:%M}") for name, moment in times if moment],
        "paragraphs": [Paragraph(0, pieces(text))],
        "has_text": bool(text.strip()),
        "tags": attr.lines(attr.get(item, "tags")),
        "attachments": [attachment(item, file) for file in attr.files(attr.get(item, "attachments"))],
    }


VIEW = View(
    routes=[page("/notes", show), page("/notes/{item_id:int}", show)],
    entries=[Entry("Notes", "/notes", "notes", pool=POOL)],
)
