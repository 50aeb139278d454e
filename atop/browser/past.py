"""The history of the store: every commit, what it changed, and the way back.

A commit's differences are read from the journal: what an attribute was before, and what the commit made of it.
"""

from __future__ import annotations

import datetime
from itertools import islice
from typing import Any, NamedTuple

from starlette.responses import Response

from atop import AtopError, Commit, Item, NoSuchCommit, NoSuchItem
from atop.browser import attributes as attr
from atop.browser.cells import clean, item_label, text_of
from atop.browser.lists import MAX_ROWS
from atop.browser.prose import long_time, when
from atop.browser.tags import device_name, device_names
from atop.browser.views import Call, Entry, Refusal, View, page
from atop.journal import Change, undone_by

PAGE = 60
# Items of one commit that are shown, and how many of an item's commits are looked at for what one of them made of it.
MAX_ITEMS = 100
MAX_REVISIONS = 200
# A commit of more items than this is an import: of new items only the names are shown.
MANY = 20
LONGEST = 2_000  # characters of a value

_ABSENT = object()


class Difference(NamedTuple):
    """An attribute before and after a commit; None where it was not there, or cannot be told any more."""

    name: str
    before: str | None
    after: str | None
    known: bool


def show(call: Call) -> Response:
    """GET /history and /history/NUMBER: the page, or with `part` only the list or the commit."""
    part = call.text("part", 10)
    commit = _commit(call) if "number" in call.path else None
    if part == "pane":
        return call.page("history_pane.html", "History", commit=commit)
    count = call.number("count", PAGE, 1, MAX_ROWS)
    before = call.number("before", 0, 0, 1 << 62)
    found = list(call.store.history(limit=count + 1, before=before or None))
    names, now = device_names(call.store), datetime.datetime.now()
    listing = {
        "rows": [_row(one, names, now) for one in found[:count]],
        "more": found[count - 1].number if len(found) > count else None,
    }
    if part == "list":
        return call.page("history_rows.html", "History", listing=listing, current="")
    return call.page(
        "history.html",
        commit["label"] if commit else "History",
        listing=listing,
        commit=commit,
        current=commit["id"] if commit else "",
    )


def _row(commit: Commit, names: dict[int, str], now: datetime.datetime) -> dict[str, Any]:
    return {
        "id": str(commit.number),
        "label": attr.line(commit.label) or "(no label)",
        "when": when(attr.moment(commit.time), now),
        "device": device_name(names, commit.device),
        "touched": _count(commit),
    }


def _count(commit: Commit) -> int | None:
    try:
        return len(commit.item_ids)
    except AtopError:
        return None


def _commit(call: Call) -> dict[str, Any]:
    store, number = call.store, call.path["number"]
    if not 0 < number < 1 << 62:
        raise Refusal(404, f"The journal has no commit number {number}.")
    commit = next(store.history(limit=1, before=number + 1), None)
    if commit is None or commit.number != number:
        raise NoSuchCommit(f"the journal has no commit number {number}: it may have been trimmed")
    moment = attr.moment(commit.time)
    try:
        changes, problem = commit.changes, ""
    except AtopError as error:
        changes, problem = (), str(error)
    return {
        "id": str(number),
        "commit_id": str(commit.commit_id),
        "label": attr.line(commit.label) or "(no label)",
        "time": long_time(moment) if moment else "",
        "device": device_name(device_names(store), commit.device),
        "problem": problem,
        "changes": [_change(call, commit, change, len(changes) > MANY) for change in changes[:MAX_ITEMS]],
        "count": len(changes),
        "undoes": undone_by(commit),
    }


def _change(call: Call, commit: Commit, change: Change, brief: bool) -> dict[str, Any]:
    store = call.store
    try:
        item: Item | None = store.get(change.item_id)
    except AtopError:
        item = None
    label = item_label(item) if item is not None else _name_in(change.before) or f"item {change.item_id}"
    return {
        "id": str(change.item_id),
        "label": label,
        "there": item is not None,
        "kind": change.kind,
        "pools": _pools(call, change, item),
        "differences": [] if brief and change.kind == "created" else _differences(call, commit, change, item),
    }


def _differences(call: Call, commit: Commit, change: Change, item: Item | None) -> list[Difference]:
    """What the commit changed of an item. After it was deleted, only what was there before can be told."""
    store = call.store
    after: dict[str, Any] | None = {} if change.kind == "deleted" else None
    if item is not None and after is None:
        try:
            revision = next(
                (r for r in islice(item.history(), MAX_REVISIONS) if r.commit.number == commit.number), None
            )
        except (AtopError, NoSuchItem):
            revision = None
        if revision is not None:
            after = dict(revision.attributes)
    names = list(dict.fromkeys((*change.before, *change.added)))
    if change.kind == "created" and after is not None:
        names = list(after)
    found = []
    for name in names:
        before = change.before.get(name, _ABSENT)
        now = after.get(name, _ABSENT) if after is not None else _ABSENT
        if change.kind == "created" and now in (None, "", [], {}):
            continue  # a default that says nothing
        found.append(Difference(clean(str(name)), _shown(store, before), _shown(store, now), after is not None))
    return found


def _shown(store: Any, value: Any) -> str | None:
    if value is _ABSENT:
        return None
    text = text_of(value, store)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."


def _pools(call: Call, change: Change, item: Item | None) -> str:
    """How the commit changed which pools the item is in, as far as it can be told."""
    if change.pools is None or change.kind != "changed" or item is None:
        return ""
    names = []
    for pool_id in change.pools:
        try:
            names.append(item_label(call.store.get(pool_id)))
        except AtopError:
            names.append(f"pool {pool_id}")
    return f"was in {', '.join(names)}" if names else "was in no pool"


def _name_in(attributes: Any) -> str:
    """What an item that is gone was called."""
    for key in ("name", "title", "summary", "subject", "label"):
        if found := attr.line(attributes.get(key)):
            return found
    return ""


VIEW = View(
    routes=[page("/history", show), page("/history/{number:int}", show)],
    entries=[Entry("History", "/history", "history", group="more")],
)
