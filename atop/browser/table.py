"""The table of a pool: its page, and what its script asks for.

GET /api/pools/ID/rows takes `index` (none: by id), `reverse=1`, `size`, `columns` (repeated), a part of the index
(`prefix`, or `first` and `last`, as typed), and one place: `after` or `before` a row's key, `near` it (from it on),
`at` a position from 0 to 1, `start` a key as typed. With `count=1` it also says how many rows there are.
"""

from __future__ import annotations

import itertools
from typing import Any

from starlette.responses import Response

from atop import Pool
from atop.browser.changes import MAX_AT_ONCE, find_pool
from atop.browser.layouts import LONGEST_NAME
from atop.browser.rows import (
    MAX_COLUMNS,
    MAX_FOUND,
    MAX_ROWS,
    Order,
    default_columns,
    describe_index,
    fetch,
    including,
    key_bytes,
    row,
    shape_of,
    typed_key,
)
from atop.browser.views import Call, Refusal, View, action, page
from atop.item import class_named

LONGEST_TEXT = 300  # characters that a person types to jump, filter or search


def show(call: Call) -> Response:
    """The page."""
    pool = find_pool(call)
    return call.page("table.html", pool.name or f"Pool {pool.item_id}", pool=pool, pool_id=str(pool.item_id))


def describe_pool(call: Call) -> Any:
    """GET /api/pools/ID: columns, indexes, types and the layout."""
    pool = find_pool(call)
    shape = shape_of(pool)
    types = [name for name in shape.types if class_named(name) is not None]
    return {
        "id": str(pool.item_id),
        "name": pool.name,
        "size": len(pool),
        "columns": [{"name": c.name, "kind": c.kind, "used": c.used, "index": c.index} for c in shape.columns],
        "shown": default_columns(pool, shape),
        "types": types or ["atop.Item"],
        "indexes": [describe_index(name, definition) for name, definition in pool.indexes.items()],
        "layout": call.browser.layouts.get(pool.item_id),
    }


def order_of(call: Call, pool: Pool) -> Order:
    """What the request says about the order and the part of it. Raises Refusal."""
    index = call.text("index", LONGEST_NAME) or None
    part: dict[str, Any] = {}
    for name in ("prefix", "first", "last"):
        text = call.text(name, LONGEST_TEXT)
        if text:
            part[name] = text
    if "prefix" in part and len(part) > 1:
        raise Refusal(400, "Give a beginning, or a range: not both.")
    for name in ("first", "last"):
        if name in part:
            part[name] = _key(pool, index, part[name], name)
    if "prefix" in part and index is None:
        raise Refusal(400, "The order by id has no texts that could begin with something: choose another.")
    return Order(index, call.query.get("reverse") == "1", part)


def _key(pool: Pool, index: str | None, text: str, field: str) -> Any:
    try:
        return typed_key(pool, index, text, last=field == "last")
    except (ValueError, OverflowError) as error:
        raise Refusal(422, str(error), name=field) from None


def columns_in(call: Call) -> list[str]:
    """The columns that the request asks for. Raises Refusal."""
    names = call.request.query_params.getlist("columns")
    if len(names) > MAX_COLUMNS:
        raise Refusal(400, f"{MAX_COLUMNS} columns at most.")
    if any(len(name) > LONGEST_NAME for name in names):
        raise Refusal(400, f"The name of a column has {LONGEST_NAME} characters at most.")
    return names


def list_rows(call: Call) -> Any:
    """GET /api/pools/ID/rows."""
    pool = find_pool(call)
    order = order_of(call, pool)
    size = call.number("size", 50, 1, MAX_ROWS)
    found = fetch(pool, order, size, _place(call, pool, order))
    columns = columns_in(call)
    answer = {
        "rows": [row(call.store, item, key, columns) for item, key in zip(found["items"], found["keys"], strict=True)],
        "before": found["before"],
        "after": found["after"],
        "position": round(found["position"], 9),
        "size": len(pool),
    }
    if call.query.get("count") == "1":
        answer["total"], answer["exact"] = found["page"].total()
    return answer


def _place(call: Call, pool: Pool, order: Order) -> dict[str, Any]:
    given = [name for name in ("after", "before", "near", "at", "start") if call.query.get(name)]
    if len(given) > 1:
        raise Refusal(400, f"Give one place, not both {given[0]} and {given[1]}.")
    if not given:
        return {}
    (name,) = given
    if name == "start":
        return {"start": _key(pool, order.index, call.text("start", LONGEST_TEXT), "start")}
    try:
        if name == "at":
            at = float(call.query["at"])
            if not 0 <= at <= 1:
                raise ValueError("a position is from 0 to 1")
            return {"at": at}
        key = key_bytes(call.query[name])
        return {"after": including(key, reverse=order.reverse)} if name == "near" else {name: key}
    except ValueError as error:
        raise Refusal(400, f"{name}: {error}.") from None


def search(call: Call) -> Any:
    """GET /api/pools/ID/search?q=WORDS&columns=...: the first items that have all words."""
    pool = find_pool(call)
    columns = columns_in(call)
    words = call.text("q", LONGEST_TEXT).strip()
    wanted = words if words.endswith("*") or not words else f"{words}*"  # as one types, the last word is not whole
    found = list(itertools.islice(pool.search(wanted, call.text("index", LONGEST_NAME) or None), MAX_FOUND + 1))
    return {
        "rows": [row(call.store, item, b"", columns) for item in found[:MAX_FOUND]],
        "more": len(found) > MAX_FOUND,
        "size": len(pool),
    }


def list_ids(call: Call) -> Any:
    """GET /api/pools/ID/ids: the ids of all that is shown, for a change of all of them."""
    pool = find_pool(call)
    words = call.text("q", LONGEST_TEXT).strip()
    if words:
        items = pool.search(words if words.endswith("*") else f"{words}*")
        ids = [str(item.item_id) for item in itertools.islice(items, MAX_AT_ONCE + 1)]
    else:
        order = order_of(call, pool)
        ids = [str(item.item_id) for item in pool.page(order.index, MAX_AT_ONCE + 1, **order.part).items]
    if len(ids) > MAX_AT_ONCE:
        raise Refusal(413, f"More than {MAX_AT_ONCE:,} items cannot be changed at once: narrow the selection.")
    return {"ids": ids}


def keep_layout(call: Call) -> Any:
    """PUT /api/pools/ID/layout."""
    call.browser.layouts.put(find_pool(call).item_id, call.body)
    return {}


VIEW = View(
    routes=[
        page("/pools/{pool_id:int}", show),
        action("/api/pools/{pool_id:int}", describe_pool, methods=["GET"]),
        action("/api/pools/{pool_id:int}/rows", list_rows, methods=["GET"]),
        action("/api/pools/{pool_id:int}/search", search, methods=["GET"]),
        action("/api/pools/{pool_id:int}/ids", list_ids, methods=["GET"]),
        action("/api/pools/{pool_id:int}/layout", keep_layout, methods=["PUT"]),
    ],
)
