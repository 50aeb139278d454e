"""The page of an item, in a real browser and as the server writes it."""

from __future__ import annotations

import datetime
import decimal
import re
import uuid
import zoneinfo
from pathlib import Path
from typing import Any

import pytest
from browsing import Served

from atop import Index, Item, Pool, Store

ZURICH = zoneinfo.ZoneInfo("Europe/Zurich")


@pytest.fixture
def people(store: Store) -> Pool:
    return store.pool("people", indexes=[Index("name", nocase=True)])


@pytest.fixture
def ada(store: Store, people: Pool) -> Item:
    with store.transaction("two people"):
        byron = Item(store, name="Byron")
        ada = Item(
            store,
            name="Ada <script>alert(1)</script>",
            born=datetime.date(1815, 12, 10),
            father=byron,
            tags=["maths", "poetry"],
            emails=[{"value": "ada@mail.example", "kinds": ["home"]}],
            note="One line.\nAnother.",
            nothing=None,
            blank="",
            raw=b"\0\xff",
            odd={1: (2, {3}), "two": [None, True]},
            numbers=[1, 2.5, decimal.Decimal("3.10")],
            key=uuid.UUID(int=7),
            seen=datetime.datetime(2024, 5, 1, 9, 30, tzinfo=ZURICH),
        )
        people.add(ada)
        people.add(byron)
    return ada


def page(served: Served, path: str) -> str:
    answer = served.client.get(path, headers={"accept": "text/html"})
    return answer.text


def test_every_kind_of_value_is_shown_and_none_is_markup(served: Served, ada: Item) -> None:
    text = page(served, f"/items/{ada.item_id}")
    assert "<script>alert" not in text
    for part in ("Ada &lt;script&gt;", "1815-12-10", "Byron", "maths", "00 ff", "3.10", "empty"):
        assert part in text
    assert 'class="none">none' in text
    assert 'class="none">empty text' in text
    father = ada.father.item_id
    assert f"/items/{ada.item_id}" in page(served, f"/items/{father}")  # who refers to it


def test_every_kind_of_value_goes_to_its_editor_and_back(served: Served, ada: Item) -> None:
    """What the editor is given, sent back as it is, changes nothing."""

    def sent(tree: dict[str, Any]) -> dict[str, Any]:
        kind = tree["k"]
        if kind == "ref":
            return {"kind": kind, "text": tree["id"]}
        if kind == "dict":
            return {"kind": kind, "entries": [[sent(k), sent(v)] for k, v in tree["entries"]]}
        if "items" in tree:
            return {"kind": kind, "items": [sent(member) for member in tree["items"]]}
        return {"kind": kind, "text": tree["t"]}

    before, version = dict(ada.attributes), str(ada.version)
    values = {}
    for name in before:
        tree = served.client.get(f"/api/items/{ada.item_id}/tree", params={"name": name}).json()["value"]
        values[name] = sent(tree)
    answer = served.client.patch(f"/api/items/{ada.item_id}", json={"version": version, "set": values})
    assert answer.status_code == 200, answer.text
    assert dict(ada.attributes) == before
    assert [type(value) for value in ada.attributes.values()] == [type(value) for value in before.values()]
    assert ada.seen.tzinfo is ZURICH  # the text of a time says only how far the zone is from UTC
    assert answer.json()["commit"] is None


def test_an_item_that_is_gone_offers_to_bring_it_back(served: Served, ada: Item, screen: Any) -> None:
    ada.delete()
    screen.goto(f"{served.base}/items/{ada.item_id}")
    screen.get_by_role("button", name="Bring it back").click()
    screen.get_by_role("heading", name="Ada <script>alert(1)</script>").wait_for()
    assert "never existed" in page(served, "/items/123456789")


def attribute(screen: Any, name: str) -> Any:
    return screen.locator(f".attribute[data-attribute='{name}']")


def test_values_are_edited_by_type_with_history_and_undo(
    served: Served, ada: Item, screen: Any, tmp_path: Path
) -> None:
    screen.goto(f"{served.base}/items/{ada.item_id}")
    screen.get_by_role("button", name="Edit born").click()
    screen.get_by_label("born", exact=True).fill("1815-12-11")
    screen.keyboard.press("Enter")
    attribute(screen, "born").get_by_text("1815-12-11").wait_for()
    assert ada.born == datetime.date(1815, 12, 11)

    screen.get_by_role("button", name="Edit father").click()
    screen.get_by_role("combobox", name="father", exact=True).fill("ada")
    screen.get_by_role("option", name=re.compile("^Ada")).wait_for()
    screen.keyboard.press("Enter")
    screen.keyboard.press("Enter")
    attribute(screen, "father").get_by_role("link", name=re.compile("^Ada")).wait_for()
    assert ada.father is ada

    screen.get_by_role("button", name="Edit tags").click()
    attribute(screen, "tags").get_by_role("button", name="Add", exact=True).click()
    screen.keyboard.type("engines")
    screen.keyboard.press("Control+Enter")
    attribute(screen, "tags").get_by_text("engines").wait_for()
    assert list(ada.tags) == ["maths", "poetry", "engines"]

    screen.get_by_role("button", name="Add an attribute").click()
    screen.get_by_label("Name", exact=True).fill("portrait")
    screen.get_by_role("combobox", name="Kind", exact=True).select_option("file")
    screen.get_by_role("button", name="Go on").click()
    picture = tmp_path / "ada.txt"
    picture.write_text("a portrait")
    screen.locator("input[type=file]").set_input_files(str(picture))
    screen.get_by_text("ada.txt, 10 bytes").wait_for()
    screen.get_by_role("button", name="Keep").click()
    attribute(screen, "portrait").get_by_role("link", name="ada.txt").wait_for()
    assert ada.portrait.read() == b"a portrait"

    history = screen.get_by_role("region", name="History")
    history.locator("del", has_text="10").or_(history.locator("ins", has_text="engines")).first.wait_for()
    history.get_by_role("button", name=re.compile("^Undo change portrait")).click()
    attribute(screen, "portrait").wait_for(state="detached")
    assert "portrait" not in ada.attributes


def test_an_edit_here_and_a_change_elsewhere_meet(served: Served, ada: Item, screen: Any) -> None:
    screen.goto(f"{served.base}/items/{ada.item_id}")
    screen.get_by_text("Up to date").wait_for()
    screen.get_by_role("button", name="Edit note").click()
    field = screen.get_by_label("note", exact=True)
    field.fill("mine")
    ada.blank = "elsewhere"
    ada.note = "theirs"
    screen.get_by_text("Changed elsewhere to “theirs”").wait_for()
    assert field.input_value() == "mine"
    screen.get_by_role("button", name="Keep mine").click()
    attribute(screen, "note").locator(".text", has_text="mine").wait_for()
    assert ada.note == "mine"
    attribute(screen, "blank").get_by_text("elsewhere").wait_for()
