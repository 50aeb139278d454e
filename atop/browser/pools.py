"""The list of pools: the first page."""

from __future__ import annotations

from typing import Any

from starlette.responses import RedirectResponse, Response

from atop.browser.views import Call, Entry, View, action, page


def _pools(call: Call) -> list[dict[str, Any]]:
    return [
        {
            "id": str(pool.item_id),
            "name": pool.name,
            "size": len(pool),
            "indexes": [
                {"name": name, "attributes": list(d.attributes), "words": d.words, "state": d.state}
                for name, d in pool.indexes.items()
            ],
        }
        for pool in call.store.pools()
    ]


def show(call: Call) -> Response:
    """The page."""
    return call.page("pools.html", "Pools", pools=_pools(call))


def list_pools(call: Call) -> Any:
    """GET /api/pools."""
    return {"pools": _pools(call)}


def begin(call: Call) -> Response:
    """The root leads to the first page."""
    return RedirectResponse(f"{call.request.scope.get('root_path', '')}/pools", 303)


VIEW = View(
    routes=[page("/", begin), page("/pools", show), action("/api/pools", list_pools, methods=["GET"])],
    entries=[Entry("Pools", "/pools", "pools", group="more")],
)
