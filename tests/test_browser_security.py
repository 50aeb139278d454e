"""Who gets an answer from the data browser, and what an answer may do."""

from __future__ import annotations

import asyncio
import re
import socket
import stat
from pathlib import Path

import httpx
import pytest
from browsing import Served
from starlette.applications import Starlette
from starlette.routing import Mount, Route

from atop import Store
from atop.browser import app
from atop.browser.application import VIEWS
from atop.browser.serving import exposure, kept_secret


def token_of(served: Served) -> str:
    return served.server.browser.token


def test_nothing_but_static_files_is_answered_without_the_token(served: Served) -> None:
    stranger = served.stranger()
    for path in ("/", "/pools", "/api/pools", "/api/events", "/nowhere"):
        assert stranger.get(path).status_code == 401
    assert stranger.get("/?token=wrong").status_code == 401
    assert stranger.get(f"/static/{served.server.browser.assets.script}").status_code == 200


def test_the_first_url_gives_a_cookie_that_scripts_and_other_sites_cannot_use(served: Served) -> None:
    cookie = served.stranger().get(served.url).headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert token_of(served) not in cookie


def test_a_program_shows_the_token_as_a_header(served: Served) -> None:
    with httpx.Client(base_url=served.base, headers={"authorization": f"Bearer {token_of(served)}"}) as program:
        assert program.get("/api/pools").json() == {"pools": []}
        assert program.post("/api/pools", json={}).status_code in (400, 405)  # past the guard


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "127.0.0.1:99999999", "a" * 4000])
def test_a_name_that_is_not_ours_is_not_answered(served: Served, host: str) -> None:
    assert served.client.get("/api/pools", headers={"host": host}).status_code == 421


@pytest.mark.parametrize("origin", ["http://evil.example", "http://127.0.0.1:1", "null"])
def test_another_origin_can_neither_read_nor_change(served: Served, origin: str) -> None:
    assert served.client.get("/api/pools", headers={"origin": origin}).status_code == 403
    assert served.client.post("/api/pools", headers={"origin": origin}, json={}).status_code == 403


def test_a_change_without_an_origin_is_refused(served: Served) -> None:
    request = served.client.build_request("POST", "/api/pools", json={})
    del request.headers["origin"]
    assert served.client.send(request).status_code == 403


def test_scripts_of_another_port_cannot_read(served: Served) -> None:
    request = served.client.build_request("GET", "/api/pools", headers={"sec-fetch-site": "same-site"})
    del request.headers["origin"]
    assert served.client.send(request).status_code == 403


def test_every_answer_has_the_policy(served: Served) -> None:
    for response in (served.client.get("/pools"), served.stranger().get("/pools"), served.client.get("/nowhere")):
        assert "unsafe" not in response.headers["content-security-policy"]
        assert "default-src 'none'" in response.headers["content-security-policy"]
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["cache-control"] == "no-store"


def test_first_paint_is_small(served: Served) -> None:
    assets = served.server.browser.assets
    paths = ("/pools", f"/static/{assets.script}", f"/static/{assets.style}", f"/static/{assets.icon}")
    assert sum(int(served.client.get(path).headers["content-length"]) for path in paths) < 100_000


def test_a_page_of_a_name_that_looks_like_markup_shows_the_name(served: Served) -> None:
    served.store.pool("<script>alert(1)</script>")
    page = served.client.get("/pools", headers={"accept": "text/html"}).text
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_the_secret_is_kept_for_its_owner_alone(served: Served) -> None:
    path = served.store.path / "local" / "browser.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = path.read_bytes()
    assert kept_secret(path.parent) == before
    path.chmod(0o644)
    assert kept_secret(path.parent) != before  # others have seen it


def test_errors_are_words(served: Served) -> None:
    assert served.client.get("/nowhere", headers={"accept": "text/html"}).status_code == 404
    answer = served.client.get("/api/nowhere")
    assert (answer.status_code, answer.json()["error"]) == (404, "Refused")


def test_listening_elsewhere_says_what_it_means() -> None:
    assert exposure("127.0.0.1") == exposure("::1") == exposure("localhost") == ""
    assert "not encrypted" in exposure("::")
    assert "not encrypted" in exposure("192.168.1.5")


def test_garbage_is_answered_or_closed(served: Served) -> None:
    with socket.create_connection(("127.0.0.1", served.server.port)) as connection:
        connection.sendall(b"\x16\x03\x01nonsense\r\n\r\n")
        connection.settimeout(20)
        assert b"500" not in connection.recv(1000)
    assert served.client.get("/api/pools").status_code == 200


def test_an_application_has_a_secret_of_its_own_or_a_long_one(store: Store) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        app(store, secret=b"short")
    assert app(store).token != app(store).token


def test_every_request_is_documented() -> None:
    page = (Path(__file__).parent.parent / "docs" / "browser.md").read_text(encoding="utf-8")
    routes = [route for view in VIEWS for route in view.routes if isinstance(route, Route)]
    asked = {
        f"{method} {re.sub(r'{item_id:int}|{pool_id:int}|{conflict_id:int}', 'ID', route.path)}".replace(
            "{number:int}", "NUMBER"
        ).replace("{digest:str}", "DIGEST")
        for route in routes
        for method in route.methods or ()
        if method != "HEAD" and route.path.startswith("/api/")
    }
    assert len(asked) > 20
    assert [request for request in sorted(asked) if not re.search(rf"`{re.escape(request)}[`?]", page)] == []


def test_it_is_mounted_in_an_application_of_ones_own(store: Store) -> None:
    store.pool("books")
    browser = app(store, hosts=["example.org"])
    outer = Starlette(routes=[Mount("/data", browser)])

    async def visit() -> None:
        transport = httpx.ASGITransport(app=outer)
        async with httpx.AsyncClient(transport=transport, base_url="https://example.org") as client:
            assert (await client.get("/data/pools")).status_code == 401
            welcome = await client.get(f"/data/?token={browser.token}")
            assert 'content="0;url=/data/"' in welcome.text
            assert "path=/data" in welcome.headers["set-cookie"].lower()
            assert "secure" in welcome.headers["set-cookie"].lower()
            page = (await client.get("/data/pools")).text
            assert 'href="/data/pools/' in page
            script = re.search(r'src="(/data/static/[^"]+)"', page)
            assert script is not None
            assert (await client.get(script[1])).status_code == 200
            assert (await client.get("/data/")).headers["location"] == "/data/pools"
            assert (await client.get("/data/api/pools")).json()["pools"][0]["name"] == "books"
            assert (await client.get("/data/api/nowhere")).json()["error"] == "Refused"

    asyncio.run(visit())
    browser.close()
