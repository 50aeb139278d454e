"""News of commits: who hears them, and what a client can make the server keep."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import httpx
from browsing import Served

from atop import Item
from atop.browser.live import MAX_CLIENTS


def events(response: httpx.Response) -> Iterator[tuple[str, Any]]:
    """(event, data) as they come."""
    name = ""
    for line in response.iter_lines():
        if line.startswith("event: "):
            name = line[7:]
        elif line.startswith("data: "):
            yield name, json.loads(line[6:])


def test_a_commit_is_told_with_its_items(served: Served) -> None:
    with served.client.stream("GET", "/api/events") as response:
        heard = events(response)
        assert next(heard) == ("hello", {"head": served.store.head.number})
        item = Item(served.store, name="x")
        name, data = next(heard)
        assert (name, data["items"], data["number"]) == ("commit", [str(item.item_id)], served.store.head.number)
        with served.store.transaction("many"):
            for _ in range(600):
                Item(served.store)
        assert next(heard)[1]["items"] is None


def test_a_client_that_does_not_read_is_told_to_read_anew(served: Served) -> None:
    live = served.server.browser.live
    with served.client.stream("GET", "/api/events") as response:
        heard = events(response)
        next(heard)
        for number in range(8_000):
            live.publish("commit", {"number": number, "label": "x" * 2_000})
        names = []
        for name, _ in heard:
            names.append(name)
            if name == "reset":
                break
        assert len(names) < 8_000


def test_clients_that_went_away_are_not_counted(served: Served) -> None:
    live = served.server.browser.live
    for _ in range(MAX_CLIENTS + 10):
        with served.client.stream("GET", "/api/events") as response:
            next(events(response))
    gone = threading.Event()
    while live._clients:  # the server notices in its own time; the test's limit ends this
        gone.wait(0.01)
    assert live._watch is None  # and nobody watches the store any more


def test_there_is_a_limit_to_those_who_listen(served: Served) -> None:
    limits = httpx.Limits(max_connections=None)
    with httpx.Client(base_url=served.base, cookies=served.client.cookies, limits=limits) as crowd:
        open_ones = [crowd.send(crowd.build_request("GET", "/api/events"), stream=True) for _ in range(MAX_CLIENTS)]
        heard = [events(response) for response in open_ones]  # held, for a generator that goes closes its response
        assert {next(one)[0] for one in heard} == {"hello"}
        assert crowd.get("/api/events").status_code == 503
        assert crowd.get("/pools").status_code == 200
        for response in open_ones:
            response.close()
