"""Contacts, mail, the calendar, history, conflicts and devices for everybody: axe-core, a narrow window, large text."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest
from browsing import Served, faults_of
from devices import Home
from test_browser_group import conflict_about
from test_browser_personal import signed_in
from test_browser_views import mailbox

from atop.browser import serve_in_thread
from atop.pim import Contact, Event, Message, Note, open_pool

UTC = datetime.UTC
SCREENS = [
    *("/contacts", "/mail", "/notes", "/history", "/devices", "/conflicts"),
    *("/calendar/month/2025-05", "/calendar/week/2025-05-14", "/calendar/day/2025-05-14"),
]


@pytest.fixture
def filled(served: Served) -> list[str]:
    """A store with one of everything; the paths of all its pages."""
    store = served.store
    mailbox(store, 3)
    with store.transaction():
        long = "Wolfeschlegelsteinhausenbergerdorff" * 3
        person = Contact(store, name=long, email="x" * 90 + "@mail.example", note="y" * 300, categories=["friends"])
        person.addresses = [{"street": "Via Po 5", "city": "Torino", "kinds": ["home"]}]
        open_pool(store, "contact").add(person)
        start = datetime.datetime(2025, 5, 14, 12, tzinfo=UTC)
        title = "Donaudampfschifffahrtsgesellschaft" * 4
        event = Event(store, summary=title, start=start, end=start, recurrence="FREQ=DAILY", location="Wien")
        open_pool(store, "event").add(event)
        days = Event(store, summary="Trip", start=start.replace(hour=0), all_day=True, calendar="home")
        days.end = start.replace(hour=0) + datetime.timedelta(days=9)
        open_pool(store, "event").add(days)
        html = Message(
            store, subject="News", html='<h1>News</h1><a href="https://x.example">y.example</a><img src="//z">'
        )
        html.attachments = [store.file(b"x", name="a file.txt")]
        open_pool(store, "message").add(html)
        note = Note(store, title="Idea", text="https://example.org/" + "z" * 300)
        open_pool(store, "note").add(note)
    person.city = "Turin"
    conflict_about(store, person, other="z" * 300)
    items = (f"/contacts/{person.item_id}", f"/mail/{html.item_id}", f"/notes/{note.item_id}")
    return [*SCREENS, *items, f"/history/{store.head.number - 1}", f"/calendar/event/{event.item_id}"]


@pytest.mark.parametrize(("scheme", "width"), [("light", 640), ("dark", 390)], ids=str)  # 200 % of 1280, and a phone
def test_nothing_sticks_out_and_no_page_has_a_serious_fault(
    served: Served, filled: list[str], chromium: Any, scheme: str, width: int
) -> None:
    faults: list[str] = []
    screen = signed_in(chromium, served, "/contacts", faults)
    screen.emulate_media(color_scheme=scheme)
    screen.set_viewport_size({"width": width, "height": 800})
    for path in filled if scheme == "light" else filled[-5:]:
        screen.goto(served.base + path)
        screen.get_by_text("Up to date").wait_for(state="attached")
        if screen.evaluate("document.documentElement.scrollWidth") > width:
            faults.append(f"{path} is too wide")
        faults += [f"{path}: {fault}" for fault in faults_of(screen)]
    screen.set_viewport_size({"width": 1280, "height": 800})
    screen.goto(f"{served.base}/calendar/month/2025-05")
    screen.locator(".event").first.click()
    screen.get_by_role("dialog").get_by_role("button", name="Close").wait_for()
    faults += faults_of(screen)
    screen.context.close()
    assert faults == []


def test_the_devices_page_has_no_serious_fault(chromium: Any, tmp_path: Path) -> None:
    home = Home(tmp_path)
    try:
        device = home.open("laptop")
        server = serve_in_thread(device, port=0)
        faults: list[str] = []
        context = chromium.new_context()
        page = context.new_page()
        page.goto(server.url)
        page.goto(f"{server.base}/devices")
        page.get_by_role("button", name="Invite a device").click()
        page.locator(".code").wait_for()
        faults += faults_of(page)
        page.get_by_role("button", name="Rename").click()
        faults += faults_of(page)
        context.close()
        server.close()
    finally:
        home.end()
    assert faults == []
