"""Whatever is sent, no answer is a 500, and what was kept is whole: random requests to every route."""

from __future__ import annotations

import base64
import json
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from browsing import Served
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.routing import Route

from atop import Index, Item, Store
from atop.browser.application import VIEWS

SETTINGS = settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)


def filled_store(store: Store) -> None:
    """A pool with a little of everything."""
    pool = store.pool("books", indexes=["title", ("year", "title"), Index("words", "title", words=True)])
    with store.transaction():
        for n in range(20):
            item = Item(store, title=f"title {n}", year=n, tags=["a", 1, None], deep={"x": [{1, 2}]}, b=b"\0")
            pool.add(item)
            item.next = item
            item.file = store.file(b"contents", name="a.txt", media_type="text/plain")


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A store for the whole module."""
    path: Path = tmp_path_factory.mktemp("fuzz") / "store"
    with Store(path, cache_size=4 << 20) as store:
        served = Served(store)
        yield served
        served.close()


def present(target: Served) -> dict[str, str]:
    """What POOL, ITEM and so on stand for now; the pool is made again where a request has deleted or emptied it."""
    target.server.browser.jobs.close()  # waits for what an earlier request has begun
    store = target.store
    pool = next((pool for pool in store.pools() if pool.name == "books" and len(pool)), None)
    if pool is None or len(pool.indexes) < 3:
        filled_store(store)
        pool = store.pool("books", create=False)
    item = next(iter(pool))
    key = base64.urlsafe_b64encode(pool.page(None, 1).keys[0]).rstrip(b"=").decode()
    numbers = {"POOL": pool.item_id, "ITEM": item.item_id, "VERSION": item.version, "COMMIT": item.version}
    return {"KEY": key, **{name: str(number) for name, number in numbers.items()}}


def resolved(value: Any, there: dict[str, str]) -> Any:
    """The value with what stands for things replaced by them."""
    if isinstance(value, str):
        return there.get(value, value)
    if isinstance(value, (list, tuple)):
        return [resolved(one, there) for one in value]
    if isinstance(value, dict):
        return {name: resolved(one, there) for name, one in value.items()}
    return value


ROUTES = sorted(
    {
        (method, route.path)
        for view in VIEWS
        for route in view.routes
        if isinstance(route, Route)
        for method in route.methods or ()
        if method != "HEAD"
    }
)

odd_text = st.one_of(
    st.text(max_size=20),
    st.text(st.characters(), max_size=5),
    st.sampled_from(
        ["", "0", "-1", "1e9", "nan", "NaN", "inf", "\0", "..", "title", "year", "words", "a" * 5000, "9" * 19]
    ),
)
item_ids = st.one_of(
    st.just("ITEM"), st.integers(0, 25).map(str), st.sampled_from(["9" * 18, "9" * 19, "9" * 400, "0"]), odd_text
)
names = st.one_of(
    st.sampled_from(["title", "year", "tags", "_x", "delete", "item_id", "indexes", "next", "file", "new"]), odd_text
)

json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), odd_text),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(odd_text, inner, max_size=3)),
    max_leaves=8,
)
kinds = st.sampled_from(
    ["str", "int", "float", "decimal", "bool", "date", "datetime", "time", "timedelta", "uuid", "bytes", "ref", "none"]
)
typed_text = st.one_of(
    odd_text,
    json_values.map(json.dumps),
    st.sampled_from([
        '{"$date": "2024-01-01"}', '{"$ref": 5}', '{"$ref": -5}', '{"$file": {}}', '{"$value": ["x", {}]}',
        '{"$tuple": [1]}', '{"$dict": [[[1], 2]]}', "[" * 200,
        '{"$set": [[]]}', '{"$int": "zz"}', '{"$decimal": "NaN"}',
    ]),
)  # fmt: skip
values = st.recursive(
    st.one_of(
        st.fixed_dictionaries({"kind": kinds, "text": odd_text}),
        st.fixed_dictionaries({"kind": st.just("json"), "text": typed_text}),
        json_values,
    ),
    lambda inner: st.one_of(
        st.fixed_dictionaries(
            {"kind": st.sampled_from(["list", "set", "tuple"]), "items": st.lists(inner, max_size=3)}
        ),
        st.fixed_dictionaries({"kind": st.just("dict"), "entries": st.lists(st.tuples(inner, inner), max_size=2)}),
    ),
    max_leaves=5,
)
# The members that bodies have, each as it should be, nearly so, or anything.
fields = {
    "set": st.one_of(st.dictionaries(names, values, max_size=3), json_values),
    "remove": st.one_of(st.lists(names, max_size=2), json_values),
    "ids": st.one_of(st.lists(item_ids, max_size=4), json_values),
    "version": st.one_of(st.just("VERSION"), st.just("VERSION"), item_ids, json_values),
    "commit": st.one_of(st.just("COMMIT"), item_ids, json_values),
    "name": st.one_of(names, json_values),
    "attributes": st.one_of(st.lists(names, max_size=3), json_values),
    "indexes": st.one_of(st.lists(names, max_size=3), json_values),
    "columns": st.one_of(st.lists(st.fixed_dictionaries({"name": names}), max_size=3), json_values),
    "type": st.one_of(st.sampled_from(["atop.Item", "atop.Pool", "pim.Contact", "pim.Event"]), json_values),
    "words": st.one_of(st.booleans(), json_values),
    "nocase": st.one_of(st.booleans(), json_values),
}
bodies = st.one_of(st.fixed_dictionaries({}, optional=fields), json_values)
queries = st.lists(
    st.tuples(
        st.sampled_from([
            "index", "reverse", "size", "columns", "prefix", "first", "last", "after", "before", "near", "at", "start",
            "count", "q", "name", "format", "history", "token", "month", "week", "day", "page", "folder", "view",
        ]),
        st.one_of(odd_text, st.sampled_from(["KEY", "0.5", "1", "5", "title", "year,title"])),
    ),
    max_size=4,
)  # fmt: skip


def filled(path: str, part: str, there: dict[str, str]) -> str:
    """A route's path with something in place of its parameters; "right" is what is meant to be there."""
    pieces = []
    for piece in path.split("/"):
        if not piece.startswith("{"):
            pieces.append(piece)
            continue
        right = there["POOL" if "pool" in piece else "ITEM"]
        text = right if part == "right" else there.get(part, part)
        pieces.append(quote(text.encode("utf-8", "replace"), safe=""))
    return "/".join(pieces)


parts = st.one_of(st.just("right"), st.just("right"), st.just("right"), item_ids)


@SETTINGS
@given(route=st.sampled_from(ROUTES), part=parts, query=queries, body=bodies)
def test_no_request_is_a_bug(target: Served, route: tuple[str, str], part: str, query: Any, body: Any) -> None:
    method, path = route
    there = present(target)
    encoded = [(name, resolved(text, there).encode("utf-8", "replace")) for name, text in query]
    content = json.dumps(resolved(body, there)).encode() if method != "GET" else None
    headers = {"content-type": "application/json"} if content else {}
    answer = target.client.request(method, filled(path, part, there), params=encoded, content=content, headers=headers)
    assert answer.status_code < 500 or answer.status_code == 503, (method, path, part, query, body, answer.text)


@settings(SETTINGS, max_examples=15)
@given(path=st.text(string.printable, max_size=60), raw=st.binary(max_size=60))
def test_no_path_and_no_body_is_a_bug(target: Served, path: str, raw: bytes) -> None:
    for prefix in ("/", "/api/items/", "/static/", "/items/"):
        assert target.client.get(prefix + quote(path)).status_code < 500
    for url in ("/api/items/delete", "/api/undo", "/api/pools", "/api/import?name=x.vcf", "/api/files"):
        assert target.client.post(url, content=raw, headers={"content-type": "application/json"}).status_code < 500


def test_the_store_is_whole_after_all_that(target: Served) -> None:
    report = target.store.verify()
    assert report.problems == []
    assert target.client.get("/api/pools").status_code == 200
