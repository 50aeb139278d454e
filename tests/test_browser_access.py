"""The pages for everybody: axe-core, the keyboard alone, a narrow window, large text, light and dark."""

from __future__ import annotations

from typing import Any

import pytest
from browsing import PATIENCE, Served, faults_of, watched_page

from atop import Item, Pool, Store


@pytest.fixture
def books(store: Store) -> Pool:
    pool = store.pool("books", indexes=["title"])
    with store.transaction():
        first = Item(store, title="title 01", pages=None, tags=["a", "b"], note="two\nlines", absent=1)
        pool.add(first)
        for n in range(2, 13):
            pool.add(Item(store, title=f"title {n:02}", pages=n, tags=[], sequel_of=first))
    return pool


@pytest.mark.parametrize(("scheme", "width"), [("light", 1200), ("dark", 390)], ids=str)
def test_no_page_has_a_serious_fault(served: Served, books: Pool, chromium: Any, scheme: str, width: int) -> None:
    context = chromium.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    faults: list[str] = []
    page = watched_page(context, faults)
    page.goto(served.url)
    page.get_by_role("heading", name="Pools", level=1).wait_for()
    page.get_by_text("Up to date").wait_for(state="attached")
    faults += faults_of(page) if scheme == "light" else []
    page.goto(f"{served.base}/pools/{books.item_id}")
    page.get_by_role("gridcell", name="title 01", exact=True).first.click()
    page.keyboard.press(" ")
    page.get_by_role("button", name="Filter").click()
    faults += faults_of(page)
    page.get_by_role("button", name="New", exact=True).click()
    faults += faults_of(page)
    page.keyboard.press("Escape")
    page.goto(f"{served.base}/items/{next(iter(books)).item_id}")
    page.get_by_role("button", name="Edit tags").click()
    page.get_by_role("group", name="tags").wait_for()
    faults += faults_of(page)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    context.close()
    assert faults == []


def test_everything_of_the_table_is_done_by_the_keyboard(served: Served, books: Pool, screen: Any) -> None:
    screen.goto(f"{served.base}/pools/{books.item_id}")
    screen.get_by_role("gridcell", name="title 01", exact=True).first.wait_for()
    screen.keyboard.press("Tab")  # the link past the navigation
    screen.keyboard.press("Enter")
    for _ in range(20):
        screen.keyboard.press("Tab")
        if screen.evaluate("document.activeElement.closest('tbody') !== null"):
            break
    screen.keyboard.press("End")
    screen.keyboard.press("Home")
    screen.keyboard.press("ArrowRight")
    screen.keyboard.press("ArrowDown")
    assert screen.evaluate("document.activeElement.innerText") == "title 02"
    screen.keyboard.press("F2")
    screen.keyboard.type("title 02 by keys")
    screen.keyboard.press("Enter")
    screen.get_by_role("gridcell", name="title 02 by keys").wait_for()
    assert screen.evaluate("document.activeElement.innerText") == "title 03"
    screen.keyboard.press("Home")
    screen.keyboard.press("Enter")  # the first column opens the item
    screen.wait_for_url("**/items/*")
    screen.get_by_role("heading", name="title 03", level=1).wait_for()


def test_a_table_says_how_long_it_is_and_where_one_is(served: Served, books: Pool, screen: Any) -> None:
    screen.goto(f"{served.base}/pools/{books.item_id}")
    grid = screen.get_by_role("grid", name="books")
    screen.get_by_role("gridcell", name="title 01", exact=True).first.wait_for()
    assert grid.get_attribute("aria-rowcount") == "13"  # and the line of headings
    assert grid.get_by_role("row").nth(2).get_attribute("aria-rowindex") == "3"
    assert screen.get_by_role("scrollbar").get_attribute("aria-valuetext") == "about item 1 of 12"


def test_the_table_works_at_twice_the_size_and_on_a_phone(served: Served, books: Pool, chromium: Any) -> None:
    context = chromium.new_context(viewport={"width": 360, "height": 640}, has_touch=True, is_mobile=True)
    faults: list[str] = []
    page = watched_page(context, faults)
    page.goto(served.url)
    page.get_by_role("button", name="Menu").click()
    page.get_by_role("navigation").get_by_role("link", name="books").click()
    cell = page.get_by_role("gridcell", name="title 02", exact=True)
    cell.tap()
    cell.tap()
    page.locator(".cell-editor textarea").fill("title 02 by finger")
    page.keyboard.press("Enter")
    page.get_by_role("gridcell", name="title 02 by finger").wait_for(timeout=PATIENCE)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    context.close()
    assert faults == []


def test_a_lost_connection_is_shown_and_found_again(served: Served, books: Pool, chromium: Any) -> None:
    faults: list[str] = []
    context = chromium.new_context()
    screen = watched_page(context, faults)
    screen.goto(served.url)
    screen.goto(f"{served.base}/pools/{books.item_id}")
    screen.get_by_text("Up to date").wait_for()
    context.set_offline(True)
    served.server.browser.live.hang_up()
    screen.locator("#connection", has_text="Not connected").wait_for()
    next(iter(books)).title = "title 00 meanwhile"
    context.set_offline(False)
    screen.get_by_text("Up to date").wait_for()
    screen.get_by_role("gridcell", name="title 00 meanwhile", exact=True).first.wait_for()
    context.close()
    # Chromium says so itself where the page asks for something while there is no network.
    assert [fault for fault in faults if "ERR_INTERNET_DISCONNECTED" not in fault] == []
