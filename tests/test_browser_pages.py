"""The pages in a real browser."""

from __future__ import annotations

import re
from typing import Any

import pytest
from browsing import Served
from waiting import until

from atop import Item, Pool, Store


def test_the_list_of_pools_follows_what_happens_elsewhere(served: Served, screen: Any) -> None:
    screen.get_by_text("This store is empty").wait_for()
    screen.get_by_text("Up to date").wait_for()
    served.store.pool("books", indexes=["title"])
    screen.locator("main").get_by_role("link", name="books").wait_for()


@pytest.fixture
def books(store: Store) -> Pool:
    pool = store.pool("books", indexes=["title"])
    with store.transaction():
        for n in range(1, 2_001):
            pool.add(Item(store, title=f"title {n:04}", pages=n, note=None))
    return pool


def open_table(served: Served, screen: Any, pool: Pool) -> Any:
    screen.goto(f"{served.base}/pools/{pool.item_id}")
    screen.get_by_role("gridcell", name="title 0001").wait_for()
    screen.get_by_text("Up to date").wait_for()
    return screen.get_by_role("grid")


def cell(screen: Any, text: str) -> Any:
    return screen.get_by_role("gridcell", name=text, exact=True).first


def test_a_table_is_scrolled_jumped_and_dragged_through(served: Served, books: Pool, screen: Any) -> None:
    grid = open_table(served, screen, books)
    screen.get_by_text("of 2\u202f000 items").wait_for()
    screen.locator(".grid-scroll").hover()
    while not grid.locator("tr[aria-rowindex='500']").count():  # by the wheel; the test's own limit ends it
        screen.mouse.wheel(0, 900)
    assert grid.locator("tbody tr").count() <= 240
    while not grid.locator("tr[aria-rowindex='2']").count():  # and up again
        screen.mouse.wheel(0, -900)
    cell(screen, grid.locator("tbody tr").nth(5).locator("td").first.inner_text()).click()
    screen.keyboard.type("title 15")
    cell(screen, "title 1500").wait_for()
    screen.keyboard.press("Escape")
    screen.keyboard.press("Control+End")
    cell(screen, "title 2000").wait_for()
    bar = screen.get_by_role("scrollbar").bounding_box()
    thumb = screen.locator(".thumb").bounding_box()
    screen.mouse.move(thumb["x"] + 3, thumb["y"] + 5)
    screen.mouse.down()
    screen.mouse.move(bar["x"] + 3, bar["y"] + bar["height"] / 2)
    screen.mouse.up()
    screen.locator(".place").filter(has_text=re.compile("^about (9\\d\\d|1\u202f0)")).wait_for()


def test_a_cell_is_edited_as_in_a_spreadsheet(served: Served, books: Pool, screen: Any) -> None:
    open_table(served, screen, books)
    item = next(iter(books.query("title", limit=1)))
    cell(screen, "title 0001").dblclick()
    screen.keyboard.type("title 0001 changed")
    screen.keyboard.press("Tab")
    screen.keyboard.press("Enter")
    screen.keyboard.type("seven")
    screen.keyboard.press("Enter")
    screen.get_by_text("a whole number").wait_for()  # the error stands in the cell, and nothing is lost
    screen.keyboard.press("Control+a")
    screen.keyboard.type("7")
    screen.keyboard.press("Enter")
    screen.get_by_role("gridcell", name="7", exact=True).first.wait_for()
    until(lambda: (item.title, item.pages) == ("title 0001 changed", 7))  # the cell shows it before it is written
    screen.keyboard.press("Control+z")
    screen.get_by_text("Undone: change pages").wait_for()
    assert item.pages == 1
    screen.keyboard.press("Enter")
    screen.keyboard.type("99")
    screen.keyboard.press("Escape")
    assert next(iter(books.query("title", start="title 0002", limit=1))).pages == 2


def test_a_change_from_elsewhere_is_shown_and_never_overwritten(served: Served, books: Pool, screen: Any) -> None:
    open_table(served, screen, books)
    item = next(iter(books.query("title", limit=1)))
    cell(screen, "title 0001").dblclick()
    screen.keyboard.type("title 0001 mine")
    item.title = "title 0001 theirs"
    screen.get_by_text("Changed elsewhere to “title 0001 theirs”").wait_for()
    screen.keyboard.press("Enter")
    screen.get_by_role("button", name="Keep mine").wait_for()
    assert item.title == "title 0001 theirs"
    screen.get_by_role("button", name="Keep mine").click()
    until(lambda: item.title == "title 0001 mine")
    cell(screen, "title 0001 mine").wait_for()
    item.pages = 4711  # and without an edit it simply appears
    cell(screen, "4711").wait_for()


def test_rows_are_selected_deleted_and_brought_back(served: Served, books: Pool, screen: Any) -> None:
    open_table(served, screen, books)
    cell(screen, "title 0001").click()
    screen.keyboard.press(" ")
    screen.keyboard.press("Shift+ArrowDown")
    screen.get_by_text("2 items selected").wait_for()
    screen.keyboard.press("Delete")
    screen.get_by_text("2 items deleted").wait_for()
    assert len(books) == 1_998
    screen.get_by_role("button", name="Undo").click()
    cell(screen, "title 0001").wait_for()
    assert len(books) == 2_000


def test_a_column_without_an_index_offers_to_make_one(served: Served, books: Pool, screen: Any) -> None:
    grid = open_table(served, screen, books)
    grid.get_by_role("button", name="pages").click()
    screen.get_by_role("button", name="Make the index").click()
    screen.get_by_role("columnheader", name="pages").and_(screen.locator("[aria-sort=ascending]")).wait_for()
    grid.get_by_role("button", name="pages").click()
    cell(screen, "title 2000").wait_for()
    assert books.indexes["pages"].state == "ready"


CARDS = "".join(
    f"BEGIN:VCARD\r\nVERSION:3.0\r\nUID:u{n}\r\nFN:{name}\r\nN:{name};;;;\r\nEMAIL:{name.lower()}@mail.example\r\nEND:VCARD\r\n"
    for n, name in enumerate(("Ada", "Bea", "Cyd"))
)
DROP = """([name, text]) => {
  const data = new DataTransfer();
  data.items.add(new File([text], name));
  for (const kind of ["dragenter", "dragover", "drop"])
    document.body.dispatchEvent(new DragEvent(kind, {dataTransfer: data, bubbles: true, cancelable: true}));
}"""


def test_a_file_is_dropped_looked_through_and_seen_by_a_second_page(served: Served, screen: Any) -> None:
    screen.evaluate(DROP, ["friends.vcf", CARDS])
    screen.get_by_text("friends.vcf: 3 added.").wait_for()
    screen.locator("main").get_by_role("link", name="contacts").click()
    cell(screen, "Ada").wait_for()
    screen.get_by_role("searchbox", name="Find words").fill("be")
    screen.get_by_text("1 to 1 of 1 item, filtered").wait_for()
    assert screen.locator("tbody tr").count() == 1
    screen.get_by_role("searchbox", name="Find words").fill("")
    cell(screen, "Cyd").wait_for()
    screen.get_by_role("button", name="Filter").click()
    screen.get_by_label("begins with").fill("C")
    screen.keyboard.press("Enter")
    screen.get_by_text("1 to 1 of 1 item, filtered").wait_for()
    screen.get_by_role("button", name="Show all").click()
    cell(screen, "Ada").wait_for()
    other = screen.context.new_page()
    other.goto(screen.url)
    cell(other, "Ada").wait_for()
    other.get_by_text("Up to date").wait_for()
    cell(screen, "Bea").dblclick()
    screen.keyboard.type("Beatrix")
    screen.keyboard.press("Enter")
    cell(other, "Beatrix").wait_for()
    screen.evaluate(DROP, ["nothing.txt", "\x01\x02 no format"])
    screen.get_by_text("no format that can be imported").wait_for()


def test_columns_are_chosen_ordered_resized_and_remembered(served: Served, books: Pool, screen: Any) -> None:
    grid = open_table(served, screen, books)
    headings = grid.locator("thead th")
    assert headings.all_inner_texts() == ["Item", "title", "pages"]
    screen.get_by_role("button", name="Columns").click()
    screen.get_by_role("checkbox", name="note").check()
    screen.get_by_role("button", name="Move note up").click()
    with screen.expect_response("**/layout"):
        screen.get_by_role("button", name="Show these").click()
    assert headings.all_inner_texts() == ["Item", "title", "note", "pages"]
    grid.get_by_role("button", name="note").focus()
    with screen.expect_response("**/layout"):
        screen.keyboard.press("Alt+Shift+ArrowLeft")
    assert headings.all_inner_texts() == ["Item", "note", "title", "pages"]
    with screen.expect_response("**/layout"):
        screen.keyboard.press("Alt+ArrowRight")
    grip = grid.locator(".grip").nth(1).bounding_box()
    screen.mouse.move(grip["x"] + 4, grip["y"] + 8)
    screen.mouse.down()
    screen.mouse.move(grip["x"] + 104, grip["y"] + 8)
    with screen.expect_response("**/layout"):
        screen.mouse.up()
    screen.reload()
    cell(screen, "title 0001").wait_for()
    assert headings.all_inner_texts() == ["Item", "note", "title", "pages"]
    layout = served.client.get(f"/api/pools/{books.item_id}").json()["layout"]
    assert layout["columns"][1]["width"] > 250


def test_items_and_pools_are_made_changed_together_and_exported(served: Served, books: Pool, screen: Any) -> None:
    open_table(served, screen, books)
    screen.get_by_role("button", name="New", exact=True).click()
    screen.get_by_role("dialog").get_by_label("title").fill("title 0000 new")
    screen.get_by_role("dialog").get_by_label("pages").fill("many")
    screen.get_by_role("button", name="Make it").click()
    screen.get_by_role("alert").filter(has_text="whole number").wait_for()
    screen.get_by_role("dialog").get_by_label("pages").fill("12")
    screen.get_by_role("button", name="Make it").click()
    cell(screen, "title 0000 new").wait_for()
    cell(screen, "title 0000 new").click()
    screen.keyboard.press(" ")
    screen.keyboard.press("Shift+ArrowDown")
    screen.get_by_role("button", name="Change").click()
    screen.get_by_label("Attribute").select_option("pages")
    screen.get_by_label("New value").fill("77")
    screen.get_by_role("button", name="Change all").click()
    screen.get_by_text("2 items changed").wait_for()
    assert [book.pages for book in books.query("title", limit=3)] == [77, 77, 2]
    screen.get_by_role("button", name="More").click()
    with screen.expect_download() as download:
        screen.get_by_role("menuitem", name="Export what is shown").click()
    text = download.value.path().read_text()
    assert text.splitlines()[0] == "id,title,pages"
    assert len(text.splitlines()) == 2_002
    screen.goto(f"{served.base}/pools")
    screen.get_by_role("button", name="New pool").click()
    screen.get_by_label("Name", exact=True).fill("films")
    screen.get_by_role("button", name="Make it").click()
    screen.get_by_text("This pool is empty").wait_for()
    screen.get_by_role("button", name="More").click()
    screen.get_by_role("menuitem", name="Delete this pool").click()
    screen.get_by_role("button", name="Delete the pool").click()
    screen.wait_for_url("**/pools")
    assert [pool.name for pool in served.store.pools()] == ["books"]
