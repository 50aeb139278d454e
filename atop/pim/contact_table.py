"""Contacts from the rows of a table: what the columns of Google, Outlook, Thunderbird and home-made lists mean.

A column that nobody knows is kept, as a property of the contact. A date that can be read two ways ("4/5/1985") is kept
as the text that it is, unless another row of the file shows which way round its dates are.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterable
from typing import Any, Literal

from atop.pim.contentline import escape
from atop.pim.times import parse_date
from atop.pim.vcard import blank, display_name

DateOrder = Literal["day first", "month first", ""]

DATE_HEADINGS = frozenset({"birthday", "anniversary", "geburtstag", "geburtsdatum", "date of birth", "jahrestag"})

# Column headings, in the form that `simplify` gives them, and the attribute that they fill.
PLAIN = {
    "name": "name",
    "full name": "name",
    "display name": "name",
    "given name": "given",
    "first name": "given",
    "vorname": "given",
    "weitere vornamen": "additional",
    "zweiter vorname": "additional",
    "anrede": "prefix",
    "namenszusatz": "suffix",
    "spitzname": "nickname",
    "familienname": "family",
    "anzeigename": "name",
    "vollständiger name": "name",
    "organisation name": "organization",
    "berufsbezeichnung": "title",
    "beruf": "title",
    "anmerkungen": "note",
    "bemerkungen": "note",
    "additional name": "additional",
    "middle name": "additional",
    "family name": "family",
    "last name": "family",
    "surname": "family",
    "nachname": "family",
    "name prefix": "prefix",
    "name suffix": "suffix",
    "suffix": "suffix",
    "nickname": "nickname",
    "nick name": "nickname",
    "company": "organization",
    "organization": "organization",
    "organisation": "organization",
    "organization name": "organization",
    "organization 1 name": "organization",
    "firma": "organization",
    "job title": "title",
    "organization title": "title",
    "organization 1 title": "title",
    "position": "title",
    "role": "role",
    "notes": "note",
    "note": "note",
    "comment": "note",
    "comments": "note",
    "notizen": "note",
    "city": "city",
    "town": "city",
    "ort": "city",
    "stadt": "city",
    "uid": "uid",
}

DEPARTMENTS = frozenset({"department", "organization department", "organization 1 department", "abteilung"})
CATEGORIES = frozenset({"categories", "category", "labels", "group membership", "groups", "tags", "kategorien"})

EMAILS = {
    "email": "",
    "e mail": "",
    "mail": "",
    "email address": "",
    "e mail address": "",
    "e mail adresse": "",
    "e mail 2 adresse": "",
    "e mail 3 adresse": "",
    "e mail privat": "home",
    "e mail geschäftlich": "work",
    "weitere e mail adresse": "other",
    "primary email": "",
    "secondary email": "",
    "home email": "home",
    "work email": "work",
}

PHONES = {
    "phone": "",
    "phone number": "",
    "telephone": "",
    "telefon": "",
    "telefonnummer": "",
    "haupttelefon": "",
    "telefon privat": "home",
    "telefon geschäftlich": "work",
    "telefon firma": "work",
    "weiteres telefon": "other",
    "mobiltelefon": "cell",
    "telefon mobil": "cell",
    "mobilnummer": "cell",
    "autotelefon": "car",
    "fax privat": "home,fax",
    "fax geschäftlich": "work,fax",
    "weiteres fax": "other,fax",
    "faxnummer": "fax",
    "tel": "",
    "primary phone": "",
    "other phone": "other",
    "home phone": "home",
    "private phone": "home",
    "business phone": "work",
    "work phone": "work",
    "company main phone": "work",
    "mobile": "cell",
    "mobile phone": "cell",
    "mobile number": "cell",
    "cell": "cell",
    "cell phone": "cell",
    "handy": "cell",
    "mobil": "cell",
    "car phone": "car",
    "pager": "pager",
    "pager number": "pager",
    "fax": "fax",
    "fax number": "fax",
    "home fax": "home,fax",
    "business fax": "work,fax",
    "work fax": "work,fax",
    "other fax": "other,fax",
}

URLS = {
    "website": "",
    "web page": "",
    "url": "",
    "homepage": "",
    "webseite": "",
    "internetseite": "",
    "webseite privat": "home",
    "webseite geschäftlich": "work",
    "personal web page": "home",
    "web page 1": "work",
    "web page 2": "home",
}

ADDRESS_KINDS = {"home": "home", "business": "work", "work": "work", "other": "other"}
ADDRESS_WORDS = {
    "street": "street",
    "address": "street",
    "street 2": "extended",
    "address 2": "extended",
    "city": "city",
    "state": "region",
    "region": "region",
    "postal code": "postal_code",
    "zip": "postal_code",
    "zipcode": "postal_code",
    "zip code": "postal_code",
    "country": "country",
    "country region": "country",
    "po box": "po_box",
    "extended address": "extended",
    "formatted": "formatted",
}
# German Outlook says the kind after the word, and "weiterer Ort" for another one.
GERMAN_WORDS = {
    "strasse": "street",
    "strasse 2": "extended",
    "ort": "city",
    "stadt": "city",
    "region": "region",
    "bundesland": "region",
    "bundesland kanton": "region",
    "kanton": "region",
    "postleitzahl": "postal_code",
    "plz": "postal_code",
    "land": "country",
    "land region": "country",
    "postfach": "po_box",
}
GERMAN_KINDS = {"geschäftlich": "work", "privat": "home"}

# The same without the kind, as home-made lists have them.
PLAIN_ADDRESS = {
    **{word: part for word, part in ADDRESS_WORDS.items() if word not in ("city", "formatted")},
    "strasse": "street",
    "postleitzahl": "postal_code",
    "bundesland": "region",
    "postfach": "po_box",
    "plz": "postal_code",
    "land": "country",
    "postcode": "postal_code",
}

_NUMBERED = re.compile(
    r"(e mail|phone|website|address|im|relation|event|custom field) (\d{1,2}) "
    rf"(type|label|value|{'|'.join(word for word in ADDRESS_WORDS if word != 'address')})\Z"
)
_SPELLED_NUMBER = re.compile(r"(.+?)(?: (\d{1,2}))?( address)?\Z")
_GERMAN_ADDRESS = re.compile(
    r"(?=weitere|.* (?:geschäftlich|privat))(weitere[rs]? (?:[re] )?)?"
    rf"({'|'.join(sorted(GERMAN_WORDS, key=len, reverse=True))})"
    r"(?: (geschäftlich|privat))?( 2)?\Z"
)
_NOT_WORD = re.compile(r"[\W_]+")
_PARTS_OF_DATE = re.compile(r"(\d{1,4})[/.\-](\d{1,2})[/.\-](\d{1,4})(?:[ T].*)?\Z")

# What Google puts between several values in one cell.
_SEVERAL = " ::: "

# One column's way of filling in a contact; True if it took the cell.
_Filler = Callable[[dict[str, Any], str, DateOrder], None]


def simplify(heading: str) -> str:
    """A heading in lower case, its punctuation turned into single spaces."""
    return _NOT_WORD.sub(" ", heading.casefold()).strip()


def looks_like_contacts(headings: Iterable[str]) -> bool:
    """Whether a table's headings are those of people: a name and something else, or an e-mail address."""
    simple = {simplify(heading) for heading in headings}
    names = {heading for heading in simple if PLAIN.get(heading) in ("name", "given", "family", "nickname")}
    ways = {h for h in simple if h in EMAILS or h in PHONES or h.startswith(("e mail 1", "phone 1", "email 1"))}
    return bool(ways) or (bool(names) and any(h in PLAIN_ADDRESS or PLAIN.get(h) == "city" for h in simple - names))


def date_order(texts: Iterable[str]) -> DateOrder:
    """Which way round dates like 31/12/1985 are, if any of these tells."""
    for text in texts:
        match = _PARTS_OF_DATE.match(text.strip())
        if match is not None and len(match[1]) <= 2:
            first, second = int(match[1]), int(match[2])
            if first > 12 >= second:
                return "day first"
            if second > 12 >= first:
                return "month first"
    return ""


def read_table_date(text: str, order: DateOrder) -> datetime.date | None:
    """A date as tables have it; None if it is none, or can be read two ways."""
    text = text.strip()
    day = parse_date(text)
    if day is not None:
        return day
    match = _PARTS_OF_DATE.match(text)
    if match is None:
        return None
    first, second, third = int(match[1]), int(match[2]), int(match[3])
    try:
        if len(match[1]) == 4:
            return datetime.date(first, second, third)
        if len(match[3]) != 4:
            return None
        if "." in text or order == "day first" or (not order and first > 12) or first == second:
            return datetime.date(third, second, first)
        if order == "month first" or second > 12:
            return datetime.date(third, first, second)
    except ValueError:  # no such day
        pass
    return None


class ContactTable:
    """The columns of one table; `read` turns a row's cells into the attributes of a contact."""

    def __init__(self, headings: list[str]) -> None:
        simple = [simplify(heading) for heading in headings]
        has_job_title = "job title" in simple
        self._order: DateOrder = ""
        self._fillers = [
            _filler(plain, heading, has_job_title) for plain, heading in zip(simple, headings, strict=True)
        ]
        self._date_columns = [i for i, plain in enumerate(simple) if plain in DATE_HEADINGS]

    def learn(self, rows: Iterable[list[str]]) -> None:
        """Find out from some rows which way round the table's dates are."""
        texts = (cells[i] for cells in rows for i in self._date_columns if i < len(cells))
        self._order = date_order(texts)

    def read(self, cells: list[str]) -> dict[str, Any]:
        """The attributes of the contact in a row. Raises ValueError if there is nothing to know it by."""
        state = blank()
        for fill, cell in zip(self._fillers, cells, strict=False):
            text = cell.strip()
            if text:
                fill(state, text, self._order)
        _settle(state)
        if not state["name"]:
            raise ValueError("has no name, organization, e-mail address or number")
        return state


def _settle(state: dict[str, Any]) -> None:
    """Bring the entries together, and set the first of each beside its list."""
    numbered = state.pop("_numbered", {})
    birth = state.pop("_birth", {})
    if birth and state["birthday"] is None and not state["birthday_text"]:
        text = "{}-{}-{}".format(birth.get("year", "-"), birth.get("month", "").zfill(2), birth.get("day", "").zfill(2))
        state["birthday"] = parse_date(text)
        state["birthday_text"] = "" if state["birthday"] else text
    for (what, _number), parts in numbered.items():
        _settle_numbered(state, what, parts)
    addresses = state.pop("_addresses", {})
    if state["city"]:
        addresses = {"": {}, **addresses}  # the first
        addresses[""].setdefault("city", state["city"])
    for kind, parts in addresses.items():
        state["addresses"].append({**parts, "kinds": [kind] if kind else []})
    for attribute, first in (("emails", "email"), ("phones", "phone")):
        if state[attribute]:
            state[first] = state[attribute][0]["value"]
    if state["addresses"]:
        state["city"] = state["addresses"][0].get("city", "")
    if not state["name"]:
        state["name"] = display_name(state)


def _settle_numbered(state: dict[str, Any], what: str, parts: dict[str, str]) -> None:
    """One of Google's groups of columns, such as `E-mail 1 - Label` and `E-mail 1 - Value`."""
    stated = parts.pop("label", "") or parts.pop("type", "")
    preferred = stated.startswith("*")
    label = stated.lstrip("* ")
    kind = label.lower()
    known = {"mobile": "cell", "work fax": "work,fax", "home fax": "home,fax"}.get(kind, kind)
    entry: dict[str, Any] = {"kinds": known.split(",") if known in _KINDS or "," in known else []}
    if label and not entry["kinds"]:
        entry["label"] = label
    if preferred:
        entry["preferred"] = 1
    value = parts.get("value", "")
    if what == "address":
        entry |= {ADDRESS_WORDS[name]: text for name, text in parts.items() if name in ADDRESS_WORDS}
        if len(entry) > 1:
            state["addresses"].append(entry)
        return
    if not value:
        return
    if what in _LISTS:
        state[_LISTS[what]].extend({"value": text.strip(), **entry} for text in value.split(_SEVERAL))
    elif what == "event" and kind == "anniversary" and (day := read_table_date(value, "")):
        state["anniversary"] = day
    else:
        _keep(state, f"{what.capitalize()}: {label}" if label else what.capitalize(), value)


_KINDS = frozenset({"home", "work", "other", "cell", "pager", "fax", "main", "school"})
_LISTS = {"e mail": "emails", "phone": "phones", "website": "urls", "im": "ims"}


def _filler(plain: str, heading: str, has_job_title: bool) -> _Filler:
    """What to do with the cells of a column."""
    if plain == "title":
        plain = "name prefix" if has_job_title else "job title"
    numbered = _NUMBERED.match(plain)
    if numbered is not None:
        return _in_group(numbered[1], int(numbered[2]), numbered[3])
    match = _SPELLED_NUMBER.match(plain)
    base = (match[1] + (match[3] or "")) if match else plain
    for table, attribute in ((EMAILS, "emails"), (PHONES, "phones"), (URLS, "urls")):
        kinds = table.get(plain, table.get(base))
        if kinds is not None:
            return _in_list(attribute, [kind for kind in kinds.split(",") if kind])
    if plain in DEPARTMENTS:
        return lambda state, text, order: state["departments"].append(text)
    if plain in CATEGORIES:
        return _categories
    if plain in ("birthday", "geburtstag", "date of birth", "geburtsdatum"):
        return _birthday
    if plain in ("birth year", "birth month", "birth day"):
        return lambda state, text, order: state.setdefault("_birth", {}).setdefault(plain[6:], text)
    if plain in ("anniversary", "jahrestag"):
        return lambda state, text, order: _anniversary(state, text, order, heading)
    if plain in PLAIN:
        return _in_attribute(PLAIN[plain], heading)
    if plain in PLAIN_ADDRESS:
        return _in_address("", PLAIN_ADDRESS[plain], heading)
    kind, _, word = plain.partition(" ")
    if kind in ADDRESS_KINDS and word in ADDRESS_WORDS:
        return _in_address(ADDRESS_KINDS[kind], ADDRESS_WORDS[word], heading)
    german = _german_address(plain)
    if german is not None:
        return _in_address(*german, heading)
    return lambda state, text, order: _keep(state, heading, text)


def _german_address(plain: str) -> tuple[str, str] | None:
    """The kind and part of an address in "Straße geschäftlich 2", "Weiterer Ort" and the like; None if it is none."""
    match = _GERMAN_ADDRESS.match(plain)
    if match is None:
        return None
    word = f"{match[2]}{match[4] or ''}"
    return (GERMAN_KINDS.get(match[3] or "", "other"), GERMAN_WORDS[word]) if word in GERMAN_WORDS else None


def _in_attribute(attribute: str, heading: str) -> _Filler:
    def fill(state: dict[str, Any], text: str, order: DateOrder) -> None:
        if not state[attribute]:
            state[attribute] = text
        elif state[attribute] != text:
            _keep(state, heading, text)

    return fill


def _in_list(attribute: str, kinds: list[str]) -> _Filler:
    def fill(state: dict[str, Any], text: str, order: DateOrder) -> None:
        state[attribute].append({"value": text, "kinds": list(kinds)})

    return fill


def _in_address(kind: str, part: str, heading: str) -> _Filler:
    def fill(state: dict[str, Any], text: str, order: DateOrder) -> None:
        address = state.setdefault("_addresses", {}).setdefault(kind, {})
        if address.setdefault(part, text) != text:
            _keep(state, heading, text)

    return fill


def _in_group(what: str, number: int, part: str) -> _Filler:
    def fill(state: dict[str, Any], text: str, order: DateOrder) -> None:
        state.setdefault("_numbered", {}).setdefault((what, number), {})[part] = text

    return fill


def _categories(state: dict[str, Any], text: str, order: DateOrder) -> None:
    parts = text.split(_SEVERAL) if _SEVERAL in text or text.startswith("*") else re.split(r"[;,]", text)
    for part in parts:
        category = part.strip()
        if category and not category.startswith("* ") and category not in state["categories"]:
            state["categories"].append(category)


def _birthday(state: dict[str, Any], text: str, order: DateOrder) -> None:
    if text in ("0/0/00", "00/00/00", "0/0/0000"):  # Outlook's way of saying none
        return
    day = read_table_date(text, order)
    state["birthday"] = day
    state["birthday_text"] = "" if day else text.strip()


def _anniversary(state: dict[str, Any], text: str, order: DateOrder, heading: str) -> None:
    day = read_table_date(text, order)
    if day is not None:
        state["anniversary"] = day
    elif text not in ("0/0/00", "00/00/00", "0/0/0000"):
        _keep(state, heading, text)


def _keep(state: dict[str, Any], heading: str, text: str) -> None:
    """Keep a cell that no attribute is made for."""
    state["properties"].append({"name": "X-ATOP-COLUMN", "value": escape(text), "parameters": {"LABEL": [heading]}})
