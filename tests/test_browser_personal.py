"""Contacts, mail, the calendar, history, conflicts and devices in a real browser, mostly by keyboard."""

from __future__ import annotations

import datetime
import re
import threading
from contextlib import closing
from typing import Any

from browsing import Served, watched_page
from devices import Home, equal
from test_browser_group import ServedDevice, conflict_about, home
from test_browser_views import PNG, mailbox
from test_sanitise import HOSTILE
from waiting import until

from atop.browser.sanitise import sanitise
from atop.pim import Contact, Event, Message, open_pool

UTC = datetime.UTC
__all__ = ["home"]  # a fixture


def pane(screen: Any) -> Any:
    return screen.locator("#pane")


def focused(screen: Any) -> str:
    text: str = screen.evaluate("document.activeElement.innerText || document.activeElement.name || ''")
    return text


def test_mail_is_read_with_the_keyboard_alone(served: Served, screen: Any) -> None:
    messages = mailbox(served.store, 90)
    screen.goto(f"{served.base}/mail")
    screen.keyboard.press("/")
    assert focused(screen) == "q"
    screen.keyboard.type("harbour 7*")
    screen.get_by_text("11 messages", exact=True).wait_for()
    screen.keyboard.press("ArrowDown")
    screen.keyboard.press("ArrowDown")
    pane(screen).get_by_role("heading", name="Subject 78").wait_for()
    screen.keyboard.press("Delete")
    screen.get_by_text("The message is deleted.").wait_for()
    until(lambda: len(served.store.pool("messages")) == 89)
    pane(screen).get_by_role("heading", name="Subject 77").wait_for()
    screen.get_by_role("button", name="Undo").click()
    screen.locator(".row", has_text="Subject 78").wait_for()
    assert served.store.get(messages[78].item_id).subject == "Subject 78"
    screen.locator(".row", has_text="Subject 77").focus()
    screen.keyboard.press("Enter")
    pane(screen).get_by_role("button", name="Mark as read").press("Enter")
    pane(screen).get_by_role("button", name="Mark as unread").wait_for()
    assert served.store.get(messages[77].item_id).flags == ["seen"]
    pane(screen).press("Escape")
    assert "Subject 77" in focused(screen)


def test_a_list_grows_as_it_is_scrolled_and_keeps_its_place(served: Served, screen: Any) -> None:
    mailbox(served.store, 200)
    screen.goto(f"{served.base}/mail")
    rows = screen.locator(".row")
    screen.get_by_text("Up to date").wait_for()
    while rows.count() < 200:
        screen.locator(".row").last.scroll_into_view_if_needed()
    top = screen.evaluate("document.querySelector('.split-rows').scrollTop")
    assert top > 1000
    served.store.get(served.store.pool("messages").page("date", 1).items[0].item_id).subject = "Changed elsewhere"
    screen.locator(".row", has_text="Changed elsewhere").wait_for()
    assert rows.count() == 200
    assert screen.evaluate("document.querySelector('.split-rows').scrollTop") == top


def test_hostile_mail_runs_nothing_and_loads_nothing(served: Served, screen: Any) -> None:
    asked: list[str] = []
    screen.context.on("request", lambda request: asked.append(request.url))
    screen.context.on("page", lambda page: asked.append(f"a page: {page.url}"))
    screen.on("dialog", lambda dialog: asked.append(f"a dialog: {dialog.message}"))
    # Those that leave what comes after them as it is stand in one message, those that swallow it in one each.
    calm = [text for text in HOSTILE.values() if "the end" in sanitise(f"{text}<p>the end</p>").html]
    with served.store.transaction():
        pool = open_pool(served.store, "message")
        for text in ("<div>".join(calm), *(text for text in HOSTILE.values() if text not in calm)):
            logo = served.store.file(PNG, name="logo.png")
            pool.add(Message(served.store, subject="Hostile", html=f"<p>beginning</p>{text}", inline={"logo": logo}))
    assert len(calm) > 20
    for item in served.store.pool("messages"):
        screen.goto(f"{served.base}/mail/{item.item_id}")
        screen.frame_locator(".mail-frame").get_by_text("beginning", exact=True).wait_for()
    assert [url for url in asked if not url.startswith((served.base, "data:image/png"))] == []
    assert (
        screen.frame_locator(".mail-frame")
        .locator("script, form, iframe, svg, object, link, style:not(head *)")
        .count()
        == 0
    )


def test_a_link_in_mail_opens_apart_and_shows_where_it_leads(served: Served, chromium: Any) -> None:
    html = '<a href="https://evil.example/login">www.bank.example</a>'
    message = Message(served.store, subject="Pay", html=html)
    open_pool(served.store, "message").add(message)
    screen = signed_in(chromium, served, f"/mail/{message.item_id}", [])
    screen.get_by_text("but leads to evil.example").wait_for()
    link = screen.frame_locator(".mail-frame").get_by_role("link")
    link.focus()
    shown = link.evaluate("element => getComputedStyle(element, '::after').content")
    assert shown == '"https://evil.example/login"'
    page = {"body": "<p>elsewhere</p>", "content_type": "text/html"}
    screen.context.route("https://evil.example/**", lambda route: route.fulfill(**page))
    with screen.context.expect_page() as opened:
        screen.keyboard.press("Enter")
    opened.value.wait_for_url("https://evil.example/login")
    assert opened.value.evaluate("window.opener === null && document.referrer === ''")
    screen.context.close()


def test_contacts_are_found_by_letter_and_follow_what_happens_elsewhere(served: Served, screen: Any) -> None:
    with served.store.transaction():
        pool = open_pool(served.store, "contact")
        people = [Contact(served.store, name=f"{letter}nna {n:02}") for letter in "ABCDE" for n in range(60)]
        for person in people:
            pool.add(person)
    screen.goto(f"{served.base}/contacts")
    screen.get_by_role("link", name="D", exact=True).press("Enter")
    screen.locator(".row", has_text="Dnna 00").wait_for()
    screen.locator(".row", has_text="Cnna 59").wait_for(state="attached")  # what is before it is read as well
    screen.locator(".row", has_text="Dnna 00").focus()
    screen.keyboard.press("ArrowUp")
    pane(screen).get_by_role("heading", name="Cnna 59").wait_for()
    people[179].email = "new@mail.example"
    pane(screen).get_by_role("link", name="new@mail.example").wait_for()
    people[179].name = "Cnna 59 of Turin"
    pane(screen).get_by_role("heading", name="Cnna 59 of Turin").wait_for()


def test_the_calendar_is_used_with_the_keyboard_alone(served: Served, screen: Any) -> None:
    pool = open_pool(served.store, "event")

    def add(summary: str, day: int, hour: int, **more: Any) -> None:
        start = datetime.datetime(2025, 5, day, hour, tzinfo=UTC)
        pool.add(Event(served.store, summary=summary, start=start, end=start + datetime.timedelta(hours=1), **more))

    add("Standup", 1, 12, recurrence="FREQ=DAILY")
    screen.goto(f"{served.base}/calendar/month/2025-05")
    screen.get_by_role("heading", name="May 2025").wait_for()
    screen.locator('.day[data-date="2025-05-30"]').focus()
    screen.keyboard.press("ArrowRight")
    assert "Saturday 31 May" in screen.evaluate("document.activeElement.textContent")
    screen.keyboard.press("ArrowDown")
    screen.get_by_role("heading", name="June 2025").wait_for()
    screen.wait_for_function("document.activeElement.dataset.date === '2025-06-07'")
    add("Added elsewhere", 28, 10, recurrence="FREQ=WEEKLY")
    screen.get_by_text("Added elsewhere").first.wait_for()
    assert screen.evaluate("document.activeElement.dataset.date") == "2025-06-07"
    screen.keyboard.press("Tab")
    screen.keyboard.press("Enter")
    dialog = screen.get_by_role("dialog", name="Event")
    dialog.get_by_text("every day").wait_for()
    dialog.get_by_text("Saturday 7 June 2025").wait_for()
    screen.keyboard.press("Escape")
    screen.wait_for_function("document.activeElement.innerText.includes('Standup')")
    screen.keyboard.press("w")
    screen.get_by_role("heading", name="2 – 8 June 2025").wait_for()
    event = screen.locator(".hours .event", has_text="Added elsewhere")
    hour, height = event.evaluate("e => [e.offsetTop / e.parentElement.offsetParent.offsetHeight * 24, e.offsetHeight]")
    assert round(hour) == datetime.datetime(2025, 6, 4, 10, tzinfo=UTC).astimezone().hour
    assert height > 30
    screen.keyboard.press("PageDown")
    screen.get_by_role("heading", name="9 – 15 June 2025").wait_for()
    screen.keyboard.press("d")
    screen.get_by_role("heading", name=re.compile("day 9 June 2025")).wait_for()
    screen.go_back()
    screen.get_by_role("heading", name="9 – 15 June 2025").wait_for()


def test_history_is_undone_and_a_conflict_settled_with_a_click(served: Served, screen: Any) -> None:
    store = served.store
    person = Contact(store, name="Ada")
    with store.transaction("marry"):
        person.name = "Ada King"
    screen.goto(f"{served.base}/history")
    screen.locator(".row", has_text="marry").click()
    pane(screen).locator("del", has_text="Ada").wait_for()
    pane(screen).get_by_role("button", name="Undo this").click()
    screen.locator(".row", has_text="undo 2: marry").wait_for()
    assert person.name == "Ada"
    conflict_about(store, person, other="Augusta")
    screen.goto(f"{served.base}/conflicts")
    screen.get_by_role("button", name="Take this instead").press("Enter")
    screen.get_by_text("There are no conflicts.").wait_for()
    assert person.name == "Augusta"
    screen.get_by_role("button", name="Undo").click()
    screen.get_by_role("button", name="Take this instead").wait_for()


def signed_in(chromium: Any, served: Served, path: str, faults: list[str]) -> Any:
    page = watched_page(chromium.new_context(viewport={"width": 1100, "height": 700}), faults)
    page.goto(served.url)
    page.wait_for_url(re.compile("/(pools|contacts)$"))
    page.goto(served.base + path)
    return page


def test_two_devices_pair_and_a_change_travels_from_page_to_page(chromium: Any, home: Home) -> None:
    faults: list[str] = []
    first = home.open("laptop")
    with closing(ServedDevice(first)) as here:
        page = signed_in(chromium, here, "/devices", faults)
        page.get_by_role("button", name="Invite a device").click()
        code = page.locator(".code b").inner_text().removeprefix("atop join ")
        digits: list[str] = []

        def confirm(comparison: Any) -> bool:
            digits.append(comparison.digits)
            return True

        joiner = threading.Thread(target=lambda: home.join("desktop", first, code, confirm=confirm))
        joiner.start()
        page.get_by_text("Do both devices show these digits?").wait_for()
        assert page.locator(".code b").inner_text() == digits[0]
        page.get_by_role("button", name="They are equal").click()
        page.get_by_role("row", name="desktop").get_by_text("in sync").wait_for()
        joiner.join()
        second = home.devices["desktop"]
        with first.store.transaction():
            person = Contact(first.store, name="Ada Lovelace", city="London")
            open_pool(first.store, "contact").add(person)
        until(lambda: equal(first, second))
        with closing(ServedDevice(second)) as there:
            one = signed_in(chromium, here, f"/contacts/{person.item_id}", faults)
            other = signed_in(chromium, there, f"/contacts/{person.item_id}", faults)
            for screen in (one, other):
                screen.get_by_text("Up to date").wait_for()
            there.client.patch(
                f"/api/items/{person.item_id}",
                json={
                    "version": str(second.store.get(person.item_id).version),
                    "set": {"note": {"kind": "str", "text": "Hi"}},
                },
            ).raise_for_status()
            for screen in (one, other):
                pane(screen).get_by_text("Hi", exact=True).wait_for()
            one.get_by_role("button", name="Delete").click()
            other.get_by_text("There is no contact here.").wait_for()
            one.context.close()
            other.context.close()
        page.get_by_role("row", name="desktop").get_by_role("button", name="Remove").click()
        page.get_by_role("dialog").get_by_role("button", name="Remove").click()
        page.get_by_text("No other device has this store.").wait_for()
        page.context.close()
    assert faults == []
