"""The page of an item: all it has, who refers to it, the pools it is in, its history with undo. And finding items."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from starlette.responses import RedirectResponse, Response

from atop import AtopError, Commit, Item, NoSuchItem, Pool, Store
from atop.browser.cells import item_label, kind_of, label_of, stored_of
from atop.browser.changes import is_fixed
from atop.browser.rows import HIDDEN
from atop.browser.trees import difference, tree
from atop.browser.views import Call, Refusal, View, action, page

# Referrers and revisions on the page, and the most that "Show more" shows.
SHOWN_REFERRERS = 30
SHOWN_REVISIONS = 8
MAX_REVISIONS = 200
# Commits looked through for the one that deleted an item.
LOOKED_BACK = 500
MAX_FOUND = 20
# Items of one pool looked at for a name, where it has no index that could be asked.
LOOKED_THROUGH = 200
LONGEST_TEXT = 200


def show(call: Call) -> Response:
    """The page."""
    store, item_id = call.store, call.path["item_id"]
    try:
        item: Item = store.get(item_id)
    except NoSuchItem:
        return _show_gone(call, item_id)
    if isinstance(item, Pool):
        base = call.request.scope.get("root_path", "")
        return RedirectResponse(f"{base}/pools/{item_id}", 303)
    attributes = dict(sorted(stored_of(item).items(), key=lambda pair: pair[0] in HIDDEN))
    defaults = type(item)._defaults
    filled = {n: v for n, v in attributes.items() if not _is_empty(v) and (n not in defaults or v != defaults[n])}
    limit = call.number("history", SHOWN_REVISIONS, 1, MAX_REVISIONS)
    return call.page(
        "item.html",
        item_label(item),
        item=item,
        item_id=str(item_id),
        version=str(item.version),
        type_name=item.type_name,
        fixed=is_fixed(item),
        filled={name: tree(store, value) for name, value in filled.items()},
        empty={name: tree(store, value) for name, value in attributes.items() if name not in filled},
        pools=[{"id": str(pool.item_id), "name": pool.name} for pool in item.pools],
        referrers=list(itertools.islice(_referrers(store, item_id), SHOWN_REFERRERS + 1)),
        shown_referrers=SHOWN_REFERRERS,
        revisions=_revisions(store, item, limit + 1),
        limit=limit,
        most=MAX_REVISIONS,
    )


def _is_empty(value: Any) -> bool:
    return value is None or value == "" or (isinstance(value, (list, dict, set, tuple, frozenset, bytes)) and not value)


def _referrers(store: Store, item_id: int) -> Iterator[dict[str, str]]:
    for source_id, attribute, _ in store._committed_places(item_id):
        label = label_of(store, source_id)
        if label is not None:
            yield {"id": str(source_id), "label": label, "attribute": attribute}


def _revisions(store: Store, item: Item, limit: int) -> list[dict[str, Any]]:
    """The last commits that wrote the item; as far as the history can be read."""
    found: list[dict[str, Any]] = []
    try:
        for revision in item.history(limit=limit):
            changes = {}
            if revision.kind != "created":
                changes = {n: difference(store, old, new) for n, (old, new) in revision.changed.items()}
            found.append({**describe_commit(revision.commit), "kind": revision.kind, "changes": changes})
    except AtopError as error:
        found.append({"problem": str(error)})
    return found


def describe_commit(commit: Commit) -> dict[str, Any]:
    """A commit as pages show it."""
    return {
        "id": str(commit.commit_id),
        "number": commit.number,
        "time": commit.time,
        "label": commit.label or "no label",
        "device": commit.device,
        "items": len(commit.item_ids),
    }


def _show_gone(call: Call, item_id: int) -> Response:
    """The page of an item that is not there: which commit deleted it, if that is not long ago."""
    commit = None
    for candidate in call.store.history(limit=LOOKED_BACK):
        if item_id in candidate.item_ids and any(
            change.item_id == item_id and change.kind == "deleted" for change in candidate.changes
        ):
            commit = describe_commit(candidate)
            break
    return call.page("gone.html", f"Item {item_id}", 404, item_id=str(item_id), commit=commit)


def show_tree(call: Call) -> Any:
    """GET /api/items/ID/tree?name=NAME: an attribute for its editor."""
    item: Item = call.store.get(call.path["item_id"])
    attributes = stored_of(item)
    name = call.text("name")
    if name not in attributes:
        raise Refusal(404, f"{item_label(item)} has no attribute of this name.")
    return {
        "version": str(item.version),
        "value": tree(call.store, attributes[name], whole=True),
        "kind": kind_of(attributes[name]),
        "own": name not in type(item)._fields,
    }


def find_items(call: Call) -> Any:
    """GET /api/find?q=TEXT: items that could be meant, by number, by their words, by the beginning of their name."""
    text = call.text("q", LONGEST_TEXT).strip()
    found: dict[int, str] = {}
    digits = text.lstrip("#")
    if digits.isascii() and digits.isdigit() and len(digits) <= 19:
        label = label_of(call.store, int(digits))
        if label is not None:
            found[int(digits)] = ""
    for pool in call.store.pools():
        if len(found) >= MAX_FOUND:
            break
        try:
            for item in itertools.islice(_found_in(pool, text), MAX_FOUND):
                found.setdefault(item.item_id, pool.name)
        except AtopError:
            continue  # an index that is being built, an item that cannot be read: the others may have it
    items = [
        {"id": str(item_id), "label": label_of(call.store, item_id) or "", "pool": pool}
        for item_id, pool in itertools.islice(found.items(), MAX_FOUND)
    ]
    return {"items": items}


def _found_in(pool: Pool, text: str) -> Iterator[Item]:
    indexes = pool.indexes
    if not text:
        return iter(pool)
    words = next((n for n, d in indexes.items() if d.words and d.state == "ready"), None)
    if words is not None:
        return pool.search(f"{text}*", words)
    for name, definition in indexes.items():
        if definition.attributes[0] in ("name", "title", "summary", "subject") and definition.state == "ready":
            return pool.query(name, prefix=text)
    folded = text.casefold()
    return (item for item in itertools.islice(pool, LOOKED_THROUGH) if folded in item_label(item).casefold())


VIEW = View(
    routes=[
        page("/items/{item_id:int}", show),
        action("/api/items/{item_id:int}/tree", show_tree, methods=["GET"]),
        action("/api/find", find_items, methods=["GET"]),
    ],
)
