"""Conflicts: what two devices changed while they were apart, side by side, to be settled with a click."""

from __future__ import annotations

from itertools import islice
from typing import Any

from starlette.responses import Response

from atop import Item
from atop.browser import attributes as attr
from atop.browser.cells import clean, item_label, text_of
from atop.browser.changes import commit_with
from atop.browser.display import time_text
from atop.browser.tags import device_name, device_names
from atop.browser.views import Call, Entry, Refusal, View, action, page
from atop.values import to_stored

# Conflicts on one page; those after them come once these are settled.
MOST = 100
LONGEST = 5_000  # characters of a value


def show(call: Call) -> Response:
    """GET /conflicts."""
    names = device_names(call.store)
    conflicts = [_conflict(call, conflict, names) for conflict in islice(call.store.conflicts, MOST)]
    return call.page("conflicts.html", "Conflicts", conflicts=conflicts, count=len(call.store.conflicts))


def settle(call: Call) -> Any:
    """POST /api/conflicts/ID: `{"keep": "kept"}` leaves things as they are, `"other"` puts the other value there."""
    keep = call.field("keep", str)
    if keep not in ("kept", "other"):
        raise Refusal(400, 'A conflict is settled with "kept" or "other".')
    conflict_id = call.path["conflict_id"]
    settled = call.store.conflicts.settle(conflict_id, keep)
    commit = commit_with(call.store, conflict_id, f"settle conflict {conflict_id}") if settled else None
    return {"settled": settled, "commit": commit}


def _conflict(call: Call, conflict: Item, names: dict[int, str]) -> dict[str, Any]:
    about = attr.get(conflict, "about")
    item = attr.get(conflict, "item") if type(about) is int else None
    kind = attr.line(attr.get(conflict, "kind"))
    return {
        "id": str(conflict.item_id),
        "kind": kind if kind in _WORDS else "value",
        "words": _WORDS.get(kind, _WORDS["value"]),
        "about": str(about),
        "label": item_label(item) if isinstance(item, Item) else f"item {about}, which is gone",
        "there": isinstance(item, Item),
        "attribute": attr.line(attr.get(conflict, "attribute")).removeprefix("root/"),
        "kept": _side(call, conflict, "kept", names),
        "other": _side(call, conflict, "other", names),
        "possible": isinstance(item, Item) or kind in ("name", "item", "deleted"),
    }


# What each kind of conflict is, and what its two buttons do.
_WORDS = {
    "value": ("was changed on both devices", "Keep this", "Take this instead"),
    "deleted": ("was changed on one device and deleted on the other", "Keep the item", "Delete the item"),
    "name": ("is a name that both devices gave to something", "Keep this", "Take this instead"),
    "item": ("was changed on both devices as a whole", "Keep this", "Take this instead"),
}


def _side(call: Call, conflict: Item, side: str, names: dict[int, str]) -> dict[str, Any]:
    try:
        moment = attr.moment(attr.get(conflict, f"{side}_at"))
    except (TypeError, ValueError, OverflowError):  # no number, or one that is no time
        moment = None
    value = attr.get(conflict, side)
    there = attr.get(conflict, f"{side}_there") is not False
    text = text_of(to_stored(value, side, call.store), call.store)
    if isinstance(value, Item):
        text = item_label(value)
    return {
        "there": there,
        "text": clean(text[:LONGEST]),
        "empty": there and not text,
        "device": device_name(names, attr.get(conflict, f"{side}_device")) or "a device",
        "time": time_text(moment) if moment else "",
    }


VIEW = View(
    routes=[page("/conflicts", show), action("/api/conflicts/{conflict_id:int}", settle)],
    entries=[Entry("Conflicts", "/conflicts", "conflicts", group="more", pool="conflicts", counted=True)],
)
