"""Contacts: a list by name beside a card that looks like one.

The list begins at a letter or at a contact and grows in both directions, so that a book of any size opens at once.
Everything that a card shows may be missing or of another type than it should be.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import quote

from starlette.responses import Response

from atop import File, Item, NoSuchFile, Pool
from atop.browser import attributes as attr
from atop.browser.lists import END, MAX_FOUND, MAX_ROWS, order, place, pool_named, search, slice_of
from atop.browser.prose import long_day
from atop.browser.sanitise import MAX_PICTURE, picture_type
from atop.browser.views import Call, Entry, Refusal, View, page

POOL = "contacts"
PAGE = 100
MAX_LETTERS = 80

_TINTS = 8  # colours for initials
_SAFE_URL = re.compile(r"https?://[^\s<>\"]+", re.IGNORECASE)
_PARTIAL_DATE = re.compile(r"--(\d\d)-?(\d\d)")


class Row(NamedTuple):
    """A contact in the list."""

    id: str
    name: str
    detail: str
    initials: str
    tint: int


class Detail(NamedTuple):
    """A line of a card: what kind it is, what it says, and where a click leads."""

    kind: str
    text: str
    address: str = ""


def show(call: Call) -> Response:
    """GET /contacts and /contacts/ID: the page, or with `part` only the list or the card."""
    pool = pool_named(call, POOL)
    if pool is None:
        return call.page("contacts_empty.html", "Contacts")
    part = call.text("part", 10)
    card = _card(call.store.get(call.path["item_id"])) if "item_id" in call.path else None
    if part == "pane":
        return call.page("contacts_pane.html", "Contacts", card=card)
    listing = _listing(call, pool, card)
    if part == "list":
        return call.page("contacts_rows.html", "Contacts", listing=listing, current="")
    return call.page(
        "contacts.html",
        card["name"] if card else "Contacts",
        listing=listing,
        letters=_letters(pool),
        card=card,
        current=card["id"] if card else "",
    )


def photo(call: Call) -> Response:
    """GET /contacts/ID/photo: the picture, if it is one that may be shown."""
    item = call.store.get(call.path["item_id"])
    file = attr.get(item, "photo")
    if not isinstance(file, File) or file.size > MAX_PICTURE:
        raise Refusal(404, "This contact has no photo that can be shown.")
    try:
        data = file.read()
    except NoSuchFile:
        raise Refusal(404, "This device does not have the photo yet.") from None
    media_type = picture_type(data)
    if media_type is None:
        raise Refusal(404, "This contact has no photo that can be shown.")
    headers = {"content-security-policy": "default-src 'none'; sandbox", "cache-control": "private, max-age=3600"}
    return Response(data, media_type=media_type, headers=headers)


# ------------------------------------------------------------------------------------------- the list


def _listing(call: Call, pool: Pool, card: dict[str, Any] | None) -> dict[str, Any]:
    words = call.text("q")
    count = call.number("count", PAGE, 1, MAX_ROWS)
    listing: dict[str, Any] = {"q": words, "found": None, "cut": False, "more": None, "less": None}
    if words.strip():
        items = _by_name(search(pool, words))
        listing |= {"found": len(items), "cut": len(items) == MAX_FOUND}
        items, listing["more"] = slice_of(call, items, count, {"q": words})
        return listing | {"rows": [_row(item) for item in items]}
    index = order(pool, "name")
    if not index:
        return listing | {"rows": []}
    after, before = place(call, "after"), place(call, "before")
    letter = call.text("letter", 10) or (_start_of(card) if card else "")
    if before:
        found = pool.page(index, count, before=before)
    elif after:
        found = pool.page(index, count, after=after)
    elif letter:
        found = pool.page(index, count, start=letter)
        if not found.items:  # behind the last
            found = pool.page(index, count, before=END)
    else:
        found = pool.page(index, count)
    following, previous = found.next, found.previous
    listing["more"] = {"after": following.hex()} if following and not before else None
    listing["less"] = {"before": previous.hex()} if previous and not after else None
    return listing | {"rows": [_row(item) for item in found.items]}


def _start_of(card: dict[str, Any]) -> str:
    """Where the list begins so that this contact is in it, not at its very top."""
    return str(card["sort"])[:1]


def _by_name(items: list[Item]) -> list[Item]:
    return sorted(items, key=lambda item: (_name(item).casefold(), item.item_id))


def _letters(pool: Pool) -> list[str]:
    """The letters that names begin with, found by jumping from one to the next."""
    letters: list[str] = []
    definition = pool.indexes.get("name")
    if definition is None or not definition.nocase:
        return letters
    start = "\0"
    while len(letters) < MAX_LETTERS:
        item = next(pool.query("name", start=start, limit=1), None)
        name = attr.get(item, "name") if item is not None else None
        if not isinstance(name, str) or not name:
            return letters
        first = name.casefold()[0]
        if first < start or ord(first) >= 0x10FFFE:
            return letters
        if first.isalpha() and not "\ud800" <= first <= "\udfff":
            letters.append(first.upper() if len(first.upper()) == 1 else first)
        start = chr(ord(first) + 1)
        if "\ud800" <= start <= "\udfff":
            start = "\ue000"
    return letters


def _name(item: Item) -> str:
    """What a contact is called: its name, or whatever else there is of it."""
    for key in ("name", "organization", "nickname", "email", "phone"):
        if found := attr.line(attr.get(item, key)):
            return found
    return ""


def _row(item: Item) -> Row:
    name = _name(item)
    others = (attr.line(attr.get(item, key)) for key in ("organization", "email", "phone"))
    detail = next((other for other in others if other and other != name), "")
    return Row(str(item.item_id), name, detail, initials(name), item.item_id % _TINTS)


def initials(name: str) -> str:
    """Two letters for a person without a photo; of names that are not written with spaces, one."""
    words = [word for word in name.split() if word[0].isalnum()]
    return "".join(word[0] for word in (words[:1] + words[1:][-1:])).upper()[:2]


# ------------------------------------------------------------------------------------------- a card


def _card(item: Item) -> dict[str, Any]:
    name = _name(item)
    file = attr.get(item, "photo")
    about = [
        attr.line(attr.get(item, "title")),
        attr.line(attr.get(item, "role")),
        attr.line(attr.get(item, "organization")),
        *attr.lines(attr.get(item, "departments")),
    ]
    return {
        "id": str(item.item_id),
        "name": name or "(no name)",
        "sort": attr.text(attr.get(item, "name"), 50).casefold(),
        "initials": initials(name),
        "tint": item.item_id % _TINTS,
        "photo": f"/contacts/{item.item_id}/photo?{file.digest.hex()[:12]}" if isinstance(file, File) else "",
        "nickname": attr.line(attr.get(item, "nickname")),
        "about": attr.unique(part for part in about if part and part != name),
        "sections": [(title, lines) for title, lines in _sections(item) if lines],
        "note": attr.text(attr.get(item, "note"), 20_000),
        "categories": attr.lines(attr.get(item, "categories")),
    }


def _sections(item: Item) -> list[tuple[str, list[Detail]]]:
    emails = _values(item, "emails", "email", "mailto:")
    phones = _values(item, "phones", "phone", "tel:")
    others = [
        *_values(item, "ims", "", ""),
        *(Detail("group member", member) for member in attr.lines(attr.get(item, "members"))),
    ]
    return [
        ("Phone", phones),
        ("E-mail", emails),
        ("Address", [_address(entry) for entry in attr.entries(attr.get(item, "addresses"))]),
        ("Dates", _dates(item)),
        ("Web", _values(item, "urls", "", "")),
        ("Other", others),
    ]


def _values(item: Item, plural: str, single: str, scheme: str) -> list[Detail]:
    """The entries of a list such as `emails`, and the attribute beside it where it is not among them."""
    found = []
    for entry in attr.entries(attr.get(item, plural)):
        value = attr.line(entry.get("value"))
        if value:
            found.append(Detail(_kind(entry), value, _link(scheme, value)))
    first = attr.line(attr.get(item, single)) if single else ""
    if first and all(entry.text != first for entry in found):
        found.insert(0, Detail("", first, _link(scheme, first)))
    return found


def _link(scheme: str, value: str) -> str:
    if scheme == "mailto:":
        return f"mailto:{quote(value, safe='@+._-')}" if "@" in value else ""
    if scheme == "tel:":
        number = "".join(c for c in value if c in "+0123456789*#")
        return f"tel:{number}" if number else ""
    return value if _SAFE_URL.fullmatch(value) else ""


def _kind(entry: Mapping[str, Any]) -> str:
    label = attr.line(entry.get("label"), 60)
    return label or ", ".join(kind for kind in attr.lines(entry.get("kinds")) if kind not in ("voice", "internet"))


def _address(entry: Mapping[str, Any]) -> Detail:
    formatted = attr.text(entry.get("formatted"), 1_000)
    if not formatted.strip():
        part = {key: attr.line(entry.get(key)) for key in _ADDRESS}
        town = " ".join(filter(None, (part["postal_code"], part["city"])))
        lines = (part["po_box"], part["extended"], part["street"], town, part["region"], part["country"])
        formatted = "\n".join(filter(None, lines))
    return Detail(_kind(entry), formatted or attr.line(entry.get("value")))


_ADDRESS = ("po_box", "extended", "street", "city", "region", "postal_code", "country")


def _dates(item: Item) -> list[Detail]:
    found = []
    birthday, text = attr.day(attr.get(item, "birthday")), attr.line(attr.get(item, "birthday_text"))
    if birthday is not None:
        found.append(Detail("birthday", long_day(birthday)))
    elif text:
        match = _PARTIAL_DATE.fullmatch(text)
        found.append(Detail("birthday", _day_and_month(int(match[1]), int(match[2])) or text if match else text))
    anniversary = attr.day(attr.get(item, "anniversary"))
    if anniversary is not None:
        found.append(Detail("anniversary", long_day(anniversary)))
    return found


def _day_and_month(month: int, day: int) -> str:
    try:
        moment = datetime.date(2000, month, day)
    except ValueError:
        return ""
    return f"{moment.day} {moment:%B}"


VIEW = View(
    routes=[
        page("/contacts", show),
        page("/contacts/{item_id:int}", show),
        page("/contacts/{item_id:int}/photo", photo),
    ],
    entries=[Entry("Contacts", "/contacts", "contacts", pool=POOL)],
)
