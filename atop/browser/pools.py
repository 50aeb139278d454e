"""The list of pools, and what is done to a pool as a whole: making and deleting it, its indexes."""

from __future__ import annotations

from typing import Any

from starlette.responses import RedirectResponse, Response

from atop import Index, NoSuchPool
from atop.browser.changes import check_name, commit_with, find_pool
from atop.browser.jobs import Job
from atop.browser.layouts import LONGEST_NAME
from atop.browser.lists import pool_named
from atop.browser.rows import describe_index
from atop.browser.views import Call, Entry, Refusal, View, action, page

MAX_INDEXED = 16  # attributes of one index


def _pools(call: Call) -> list[dict[str, Any]]:
    return [
        {
            "id": str(pool.item_id),
            "name": pool.name,
            "size": len(pool),
            "indexes": [describe_index(name, definition) for name, definition in pool.indexes.items()],
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
    """The root leads to the contacts, where there are any, else to the list of pools."""
    contacts = pool_named(call, "contacts")
    first = "contacts" if contacts is not None and len(contacts) else "pools"
    return RedirectResponse(f"{call.request.scope.get('root_path', '')}/{first}", 303)


def create_pool(call: Call) -> Any:
    """POST /api/pools: `{"name": "books", "indexes": ["title"]}`."""
    name = call.field("name", str).strip()
    if not 0 < len(name) <= LONGEST_NAME or "\0" in name:
        raise Refusal(422, f"A pool has a name of at most {LONGEST_NAME} characters.", name="name")
    indexes = [check_name(attribute) for attribute in call.field("indexes", list, [])[:MAX_INDEXED]]
    try:
        call.store.pool(name, create=False)
    except NoSuchPool:
        pool = call.store.pool(name, indexes=list(dict.fromkeys(indexes)))
        return {"id": str(pool.item_id), "name": pool.name}
    raise Refusal(409, f"There is a pool {name!r} already: choose another name.", name="name")


def delete_pool(call: Call) -> Any:
    """DELETE /api/pools/ID: the pool goes, the items stay in the store; a job, for a large one takes a while."""
    pool = find_pool(call)
    name = pool.name
    label = f"delete pool {name!r}"

    def work(job: Job) -> dict[str, Any]:
        if len(pool) > 1_000:
            pool.clear(job.progress)
            call.store.transact(pool.delete, label=label)
            return {"commit": None}
        call.store.transact(pool.delete, label=label)
        return {"commit": commit_with(call.store, pool.item_id, label)}

    return call.browser.jobs.start(label, work).describe()


def add_index(call: Call) -> Any:
    """POST /api/pools/ID/indexes: `{"attributes": ["city", "name"], "nocase": true, "words": false}`; a job."""
    pool = find_pool(call)
    attributes = [check_name(name) for name in call.field("attributes", list)]
    if not 0 < len(attributes) <= MAX_INDEXED:
        raise Refusal(422, f"An index has from 1 to {MAX_INDEXED} attributes.")
    words, nocase = call.field("words", bool, False), call.field("nocase", bool, False)
    name = call.field("name", str, "words" if words else ",".join(attributes))
    if not 0 < len(name) <= LONGEST_NAME:
        raise Refusal(422, f"An index has a name of at most {LONGEST_NAME} characters.")
    index = Index(name, tuple(attributes), nocase, words)

    def work(job: Job) -> dict[str, Any]:
        pool.add_index(index, progress=job.progress)
        return {"index": name}

    return call.browser.jobs.start(f"index {name}", work).describe()


def drop_index(call: Call) -> Any:
    """POST /api/pools/ID/drop-index: `{"name": "city,name"}`; a job, for its entries are removed."""
    pool = find_pool(call)
    name = call.field("name", str)

    def work(_job: Job) -> dict[str, Any]:
        pool.drop_index(name)
        return {}

    return call.browser.jobs.start(f"drop index {name}", work).describe()


def show_job(call: Call) -> Any:
    """GET /api/jobs/NUMBER."""
    job: dict[str, Any] = call.browser.jobs.find(call.path["number"]).describe()
    return job


VIEW = View(
    routes=[
        page("/", begin),
        page("/pools", show),
        action("/api/pools", list_pools, methods=["GET"]),
        action("/api/pools", create_pool),
        action("/api/pools/{pool_id:int}", delete_pool, methods=["DELETE"]),
        action("/api/pools/{pool_id:int}/indexes", add_index),
        action("/api/pools/{pool_id:int}/drop-index", drop_index),
        action("/api/jobs/{number:int}", show_job, methods=["GET"]),
    ],
    entries=[Entry("Pools", "/pools", "pools", group="more")],
)
