"""History, conflicts and devices: the pages and what their buttons ask for."""

from __future__ import annotations

import datetime
import re
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from browsing import Served
from devices import Home, equal, member_names
from test_browser_views import ODD, SCRIPT, texts
from waiting import until

from atop import Item, Store
from atop.browser import serve_in_thread
from atop.conflicts import ConflictItem
from atop.pim import Contact, open_pool


@pytest.fixture
def home(store_path: Path) -> Iterator[Home]:
    home = Home(store_path)
    store_path.mkdir()
    yield home
    home.end()


class ServedDevice(Served):
    """A device that is served; `Served` with another thing behind it."""

    def __init__(self, device: Any) -> None:
        self.store = device.store
        self.server = serve_in_thread(device, port=0)
        self.base = self.server.base
        self.url = self.server.url
        self._clients = []
        self.client = self.stranger()
        self.client.get(self.url)


def conflict_about(store: Store, item: Item, **more: Any) -> ConflictItem:
    fields: dict[str, Any] = {
        "kept": "kept value",
        "other": SCRIPT,
        "kept_device": 5,
        "kept_time": 1_700_000_000_000_000,
        "attribute": "name",
        "about": item.item_id,
    }
    with store.transaction():
        conflict = ConflictItem(store, **{**fields, **more})
        store.pool("conflicts").add(conflict)
    return conflict


def test_history_shows_what_each_commit_changed(served: Served) -> None:
    store = served.store
    person = Contact(store, name="Ada", city="London")
    with store.transaction("move and rename"):
        person.city, person.name = "Turin", SCRIPT
    person.delete()
    page = texts(served, "/history", *(f"/history/{number}" for number in (1, 2, 3)))
    assert SCRIPT not in page
    changed = texts(served, "/history/2?part=pane")
    assert '<del dir="auto">London</del>' in texts(served, "/history/3?part=pane") or "London" in changed
    assert "what it became is not known any more" in changed  # it is gone, and the journal keeps old values
    store.undo(next(store.history()))
    changed = texts(served, "/history/2?part=pane")
    assert '<del dir="auto">London</del><ins dir="auto">Turin</ins>' in changed
    assert "takes back" in texts(served, "/history/4")
    assert served.client.get("/history/99").status_code == 404


def test_history_is_read_to_its_beginning(served: Served) -> None:
    person = Contact(served.store, name="Ada")
    for number in range(130):
        person.name = f"Ada {number}"
    first = texts(served, "/history?part=list")
    assert first.count('class="row ') == 60
    assert 'href="/history?before=72"' in first
    assert texts(served, "/history?part=list&before=12").count('class="row ') == 11


def test_values_of_any_type_are_shown_in_history_and_conflicts(served: Served) -> None:
    store = served.store
    item = Item(store)
    for name, value in ODD.items():
        setattr(item, name.replace(" ", "_"), value)
        setattr(item, name.replace(" ", "_"), [value])
        for field in ("kept", "other", "attribute", "about", "kind", "kept_time", "kept_device", "kept_there"):
            conflict_about(store, item, **{field: value})
    texts(served, "/history", *(f"/history/{number}" for number in range(2, 28)), f"/history/{store.head.number}")
    assert SCRIPT not in texts(served, "/conflicts")


def test_conflicts_are_counted_in_the_navigation_and_atops_own_pools_are_not_among_the_persons(served: Served) -> None:
    store = served.store
    assert served.client.get("/").headers["location"] == "/pools"
    person = Contact(store, name="kept value")
    store.pool("devices").add(Item(store))
    store.pool("books")
    conflict = conflict_about(store, person)
    navigation = texts(served, "/history").partition("</nav>")[0]
    links = re.findall(
        r'<a href="(/[^"]+)".*?class="label"[^>]*>([^<]+)</span>(?:<span class="count">(\d+))?', navigation
    )
    assert ("/conflicts", "Conflicts", "1") in links
    assert [label for path, label, _ in links if path.startswith("/pools/")] == ["books"]
    assert all(f"/pools/{store.pool(name).item_id}" in texts(served, "/pools") for name in ("devices", "conflicts"))
    store.conflicts.settle(conflict.item_id, "kept")
    assert "/conflicts" not in texts(served, "/history").partition("</nav>")[0]
    open_pool(store, "contact").add(person)
    assert served.client.get("/").headers["location"] == "/contacts"


def test_a_conflict_is_settled_either_way(served: Served) -> None:
    store = served.store
    person = Contact(store, name="kept value")
    for keep, name in (("kept", "kept value"), ("other", SCRIPT)):
        conflict = conflict_about(store, person)
        page = texts(served, "/conflicts")
        assert "kept value" in page
        assert "&lt;script&gt;" in page
        answer = served.client.post(f"/api/conflicts/{conflict.item_id}", json={"keep": keep}).json()
        assert answer["settled"]
        assert person.name == name
        again = served.client.post(f"/api/conflicts/{conflict.item_id}", json={"keep": keep}).json()
        assert again == {"settled": False, "commit": None}
    served.client.post("/api/undo", json={"commit": answer["commit"]})
    assert person.name == "kept value"
    assert len(store.conflicts) == 1
    assert served.client.post(f"/api/conflicts/{conflict.item_id}", json={"keep": "mine"}).status_code == 400


def test_a_store_without_a_group_says_how_to_get_one(served: Served) -> None:
    assert "atop browse" in texts(served, "/devices")
    assert "no conflicts" in texts(served, "/conflicts")
    assert served.client.post("/api/devices/invite", json={}).status_code == 409


def test_a_device_is_invited_compared_renamed_and_removed(home: Home) -> None:
    first = home.open("laptop")
    with closing(ServedDevice(first)) as served:
        assert "No other device has this store" in texts(served, "/devices")
        answer = served.client.post("/api/devices/invite", json={}).json()
        assert answer["code"] not in texts(served, "/devices") + served.client.get("/api/devices").text
        seen: list[str] = []

        def confirm(comparison: Any) -> bool:
            seen.append(comparison.digits)
            return True

        joiner = threading.Thread(target=lambda: home.join("desktop", first, answer["code"], confirm=confirm))
        joiner.start()
        until(lambda: served.client.get("/api/devices").json()["invitation"]["state"] == "comparing")
        invitation = served.client.get("/api/devices").json()["invitation"]
        number = invitation["number"]
        wrong = served.client.post("/api/devices/answer", json={"number": number + 1, "equal": True})
        assert wrong.status_code == 409
        served.client.post("/api/devices/answer", json={"number": number, "equal": True})
        joiner.join()
        assert seen == [invitation["digits"]]
        second = home.devices["desktop"]
        until(lambda: equal(first, second))
        until(lambda: "in sync" in texts(served, "/devices?part=state"))
        identity = str(second.device_id)
        for name, status in (("study", 200), ("laptop", 409), ("x\ny", 409), ("", 400)):
            answer = served.client.post("/api/devices/rename", json={"device": identity, "name": name})
            assert answer.status_code == status, answer.text
        assert "study" in texts(served, "/devices?part=state")
        assert served.client.post("/api/devices/take-over", json={}).status_code == 200
        assert served.client.post("/api/devices/remove", json={"device": "nobody"}).status_code == 409
        assert served.client.post("/api/devices/remove", json={"device": identity}).status_code == 200
        assert member_names(first) == ["laptop"]
        assert "Removed" in texts(served, "/devices?part=state")


def test_commits_name_the_device_that_made_them(home: Home) -> None:
    first = home.open("laptop")
    second = home.join("desktop", first)
    with closing(ServedDevice(first)) as served:
        person = Contact(second.store, name="Ada")
        until(lambda: equal(first, second))
        assert "on desktop" in texts(served, "/history")
        assert second.store.get(person.item_id).name == "Ada"
        open_pool(second.store, "contact")


def test_times_of_conflicts_are_told(served: Served) -> None:
    person = Contact(served.store, name="Ada")
    conflict = conflict_about(served.store, person, kind="deleted")
    moment = conflict.kept_at
    assert moment is not None
    local = moment.astimezone(datetime.datetime.now().astimezone().tzinfo)
    page = texts(served, "/conflicts")
    assert f"{local:%H:%M}" in page
    assert "Delete the item" in page
    assert re.findall(r"<i>(.*?)</i>", page) == ["changed", "deleted"]
