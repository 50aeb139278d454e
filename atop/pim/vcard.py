"""Reads vCards of versions 2.1, 3.0 (RFC 2426) and 4.0 (RFC 6350), as programs really write them.

`read_vcards` gives one `Record` for each card, with the attributes of `Contact`; what no attribute is made for is
kept in `properties` and written again by `vcard_out`. Nothing of a card is dropped but its version, the program that
wrote it, and the encodings that are undone here.
Never follows a URL, in a photograph or elsewhere.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from atop.pim.components import Component, read_components
from atop.pim.contentline import ContentLine, parse_record, split_escaped, split_texts, unescape
from atop.pim.contents import CONTENT_PARAMETERS, TECHNICAL, read_content
from atop.pim.incoming import (
    MAX_RECORD_BYTES,
    RECORD_ERRORS,
    Broken,
    Record,
    fingerprint,
    hashed_uid,
    reason_of,
)
from atop.pim.times import in_utc, parse_date, parse_timestamp

ADDRESS_PARTS = ("po_box", "extended", "street", "city", "region", "postal_code", "country")
NAME_PARTS = ("family", "given", "additional", "prefix", "suffix")

# Attributes that hold one text, and their properties.
TEXTS = {"FN": "name", "NICKNAME": "nickname", "TITLE": "title", "ROLE": "role"}

# Attributes that hold a list of entries with kinds, and their properties.
ENTRIES = {"EMAIL": "emails", "TEL": "phones", "URL": "urls", "IMPP": "ims"}

# Labels that Apple translates, and marks for that: what they stand for is kept, and they are marked again on writing.
APPLE_LABELS = frozenset(
    {"Home", "HomeFAX", "HomePage", "Main", "Mobile", "Other", "OtherFAX", "Pager", "School", "Work", "WorkFAX"}
    | {"Anniversary", "Assistant", "Brother", "Child", "Daughter", "Father", "Friend", "Manager", "Mother", "Parent"}
    | {"Partner", "Sister", "Son", "Spouse"}
)

_YEARLESS = re.compile(r"--(\d\d)-?(\d\d)\Z", re.ASCII)
_APPLE_LABEL = re.compile(r"_\$!<(.*)>!\$_\Z", re.DOTALL)
_NOT_CONTENT = re.compile(rb"^(?:VERSION|PRODID|REV)[;:].*$", re.IGNORECASE | re.MULTILINE)


def read_vcards(lines: Iterable[bytes | None], max_bytes: int = MAX_RECORD_BYTES) -> Iterator[Record | Broken]:
    """The cards in the lines of a file, in order."""
    for component in read_components(lines, max_bytes=max_bytes):
        if component.problem:
            yield Broken(component.line, component.problem)
        elif component.name != "VCARD":
            yield Broken(component.line, f"is a {component.name}, not a vCard")
        else:
            try:
                yield read_card(component)
            except RECORD_ERRORS as error:
                yield Broken(component.line, reason_of(error))


def read_card(component: Component) -> Record:
    """One card. Raises ValueError if it has nothing to know a person by."""
    raw = b"".join(component.lines)
    card = _Card()
    properties = parse_record(component.lines[1:-1])
    card.settle_groups(properties)
    position = 0
    while position < len(properties):
        line = properties[position]
        if line.name == "BEGIN":  # a card inside the card: the value of an AGENT
            position = card.add_agent(properties, position)
            continue
        card.add(line)
        position += 1
    state = card.finish()
    record = Record("contact", state["uid"], state, component.line, len(raw), fingerprint(raw))
    if not record.uid:
        state["uid"] = record.uid = hashed_uid("vcard", _NOT_CONTENT.sub(b"", raw.replace(b"\r", b"")))
        record.unidentified = True
    return record


def blank() -> dict[str, Any]:
    """The attributes of a contact of which nothing is known."""
    return {
        "uid": "",
        "name": "",
        "family": "",
        "given": "",
        "additional": "",
        "prefix": "",
        "suffix": "",
        "nickname": "",
        "email": "",
        "phone": "",
        "city": "",
        "emails": [],
        "phones": [],
        "addresses": [],
        "organization": "",
        "departments": [],
        "title": "",
        "role": "",
        "birthday": None,
        "birthday_text": "",
        "anniversary": None,
        "urls": [],
        "ims": [],
        "note": "",
        "categories": [],
        "kind": "",
        "members": [],
        "photo": None,
        "revised": None,
        "files": [],
        "parameters": {},
        "properties": [],
    }


class _Card:
    """A card as it is read, property by property."""

    def __init__(self) -> None:
        self.state = blank()
        self._labels: dict[str, str] = {}  # group -> label
        self._kept_groups: frozenset[str] = frozenset()
        self._seen: set[str] = set()  # names of properties that may occur once
        self._notes: list[str] = []
        self._category_names: dict[str, None] = {}  # a set that keeps the order

    def settle_groups(self, properties: list[ContentLine]) -> None:
        """Find the labels that Apple gives to groups, and the groups that hold more than one labelled value."""
        members: dict[str, int] = {}
        for line in properties:
            if not line.group:
                continue
            if line.name == "X-ABLABEL" and line.group not in self._labels:
                text = unescape(line.value)
                match = _APPLE_LABEL.match(text)
                self._labels[line.group] = match[1] if match and match[1] in APPLE_LABELS else text
            else:
                members[line.group] = members.get(line.group, 0) + 1
        self._kept_groups = frozenset(group for group, count in members.items() if count > 1)
        self._labels = {group: label for group, label in self._labels.items() if group in members}

    def add(self, line: ContentLine) -> None:
        """Take up one property."""
        name = line.name
        if name in ENTRIES:
            self._add_entry(ENTRIES[name], line)
        elif name in _ONCE and name not in self._seen and self._takes_group(line):
            self._seen.add(name)
            if _ONCE[name](self, line):
                self._keep_parameters(name, line)
            else:
                self._keep(line)
        elif name in _MANY:
            _MANY[name](self, line)
        elif name == "X-ABLABEL" and line.group in self._labels:
            if line.group in self._kept_groups:
                self._keep(line)
        elif name not in ("VERSION", "PRODID", "END"):
            self._add_other(line)

    def _takes_group(self, line: ContentLine) -> bool:
        return not line.group or (line.group not in self._kept_groups and line.group not in self._labels)

    def add_agent(self, properties: list[ContentLine], start: int) -> int:
        """Keep a card that stands inside this one as text; the position after it."""
        depth = 0
        texts = []
        for position in range(start, len(properties)):
            line = properties[position]
            texts.append(f"{line.name}:{line.value}")
            depth += (line.name == "BEGIN") - (line.name == "END")
            if depth == 0:
                break
        others = self.state["properties"]
        if others and others[-1]["name"] == "AGENT" and not others[-1]["value"]:
            others.pop()
        others.append({"name": "AGENT", "value": "\\n".join(text.replace("\\", "\\\\") for text in texts)})
        return position + 1

    # -- properties that occur once; False if the value is not understood and is to be kept as it is

    def _text(self, line: ContentLine) -> bool:
        self.state[TEXTS[line.name]] = unescape(line.value)
        return True

    def _name(self, line: ContentLine) -> bool:
        for attribute, part in zip(NAME_PARTS, split_escaped(line.value, ";"), strict=False):
            self.state[attribute] = unescape(part)
        return True

    def _organization(self, line: ContentLine) -> bool:
        first, *rest = (unescape(part) for part in split_escaped(line.value, ";"))
        while rest and not rest[-1]:
            rest.pop()
        self.state["organization"] = first
        self.state["departments"] = rest
        return True

    def _uid(self, line: ContentLine) -> bool:
        self.state["uid"] = unescape(line.value).strip()
        return True

    def _kind(self, line: ContentLine) -> bool:
        if self.state["kind"]:
            return False
        self.state["kind"] = unescape(line.value).strip().lower()
        return True

    def _birthday(self, line: ContentLine) -> bool:
        text = unescape(line.value).strip()
        day = parse_date(text)
        omitted = line.parameters.pop("X-APPLE-OMIT-YEAR", None)
        if day is not None and omitted and omitted[0] == str(day.year):
            self.state["birthday_text"] = f"--{day.month:02}-{day.day:02}"
        elif day is not None:
            self.state["birthday"] = day
        else:
            yearless = _YEARLESS.match(text)
            self.state["birthday_text"] = f"--{yearless[1]}-{yearless[2]}" if yearless else text
        return True

    def _anniversary(self, line: ContentLine) -> bool:
        day = parse_date(line.value.strip())
        if day is None or self.state["anniversary"] is not None:
            return False
        self.state["anniversary"] = day
        return True

    def _revised(self, line: ContentLine) -> bool:
        revised = parse_timestamp(line.value.strip())
        self.state["revised"] = None if revised is None else in_utc(revised)
        return revised is not None

    def _photo(self, line: ContentLine) -> bool:
        content = read_content(line, "image/")
        if content is None:
            return False
        self.state["photo"] = content
        return True

    # -- properties that may occur many times

    def _add_entry(self, attribute: str, line: ContentLine) -> None:
        value = unescape(line.value)
        if attribute == "phones" and value[:4].lower() == "tel:":
            value = value[4:]
        if not value.strip():
            return
        self.state[attribute].append(self._entry({"value": value}, line))

    def _entry(self, entry: dict[str, Any], line: ContentLine) -> dict[str, Any]:
        """The entry with what its property's parameters and group tell of it."""
        kinds, rest = [], {}
        for name, values in line.parameters.items():
            if name == "TYPE":
                kinds = [kind for value in values if (kind := value.strip().lower())]
            elif name == "PREF" and values[0].isdecimal() and 1 <= int(values[0][:4]) <= 100:
                entry["preferred"] = int(values[0])
            elif name == "LABEL":
                entry["formatted"] = values[0].replace("\\n", "\n")
            elif name not in TECHNICAL:
                rest[name] = values
        if "pref" in kinds:
            entry.setdefault("preferred", 1)
        entry["kinds"] = [k for k in dict.fromkeys(kinds) if k not in ("pref", "internet")]
        if line.group in self._kept_groups:
            entry["group"] = line.group
        elif line.group in self._labels:
            entry["label"] = self._labels[line.group]
        if rest:
            entry["parameters"] = rest
        return entry

    def _address(self, line: ContentLine) -> None:
        parts = [unescape(part) for part in split_escaped(line.value, ";")]
        entry = {name: part for name, part in zip(ADDRESS_PARTS, parts, strict=False) if part}
        entry = self._entry(entry, line)
        if set(entry) - {"kinds"}:
            self.state["addresses"].append(entry)

    def _note(self, line: ContentLine) -> None:
        self._notes.append(unescape(line.value))
        self._keep_parameters("NOTE", line)

    def _categories(self, line: ContentLine) -> None:
        self._category_names.update(dict.fromkeys(split_texts(line.value)))

    def _member(self, line: ContentLine) -> None:
        self.state["members"].append(unescape(line.value))

    def _labelled_date(self, line: ContentLine) -> None:
        is_plain = self._labels.get(line.group) == "Anniversary" and line.group not in self._kept_groups
        if not (is_plain and "X-APPLE-OMIT-YEAR" not in line.parameters and self._anniversary(line)):
            self._keep(line)

    def _add_other(self, line: ContentLine) -> None:
        content = read_content(line, "")
        if content is None:
            self._keep(line)
            return
        entry: dict[str, Any] = {"property": line.name, "file": content}
        rest = {name: v for name, v in line.parameters.items() if name not in CONTENT_PARAMETERS}
        if rest:
            entry["parameters"] = rest
        self.state["files"].append(entry)

    def _keep(self, line: ContentLine) -> None:
        """Keep a property as it is written, for the next one who knows it."""
        kept: dict[str, Any] = {"name": line.name, "value": line.value}
        parameters = {name: v for name, v in line.parameters.items() if name != "CHARSET"}
        if parameters:
            kept["parameters"] = parameters
        if line.group in self._labels and line.group not in self._kept_groups:
            kept["label"] = self._labels[line.group]
        elif line.group:
            kept["group"] = line.group
        self.state["properties"].append(kept)

    def _keep_parameters(self, name: str, line: ContentLine) -> None:
        if line.parameters:
            ignored = CONTENT_PARAMETERS if name == "PHOTO" else TECHNICAL
            rest = {key: values for key, values in line.parameters.items() if key not in ignored}
            if rest:
                self.state["parameters"][name] = rest

    def finish(self) -> dict[str, Any]:
        """The attributes, the first of each list set beside it."""
        state = self.state
        state["note"] = "\n\n".join(filter(None, self._notes))
        state["categories"] = list(self._category_names)
        for attribute in ("emails", "phones", "addresses"):
            if len(state[attribute]) > 1:
                state[attribute].sort(key=lambda entry: entry.get("preferred", 101))
        if state["emails"]:
            state["email"] = state["emails"][0]["value"]
        if state["phones"]:
            state["phone"] = state["phones"][0]["value"]
        if state["addresses"]:
            state["city"] = state["addresses"][0].get("city", "")
        if not state["name"].strip():
            state["name"] = display_name(state)
        if not state["name"]:
            raise ValueError("has no name, organization, e-mail address or number")
        return state


_ONCE: dict[str, Callable[[_Card, ContentLine], bool]] = {
    **dict.fromkeys(TEXTS, _Card._text),
    "N": _Card._name,
    "ORG": _Card._organization,
    "UID": _Card._uid,
    "KIND": _Card._kind,
    "X-ADDRESSBOOKSERVER-KIND": _Card._kind,
    "BDAY": _Card._birthday,
    "ANNIVERSARY": _Card._anniversary,
    "X-ANNIVERSARY": _Card._anniversary,
    "REV": _Card._revised,
    "PHOTO": _Card._photo,
}

_MANY: dict[str, Callable[[_Card, ContentLine], None]] = {
    "ADR": _Card._address,
    "NOTE": _Card._note,
    "CATEGORIES": _Card._categories,
    "MEMBER": _Card._member,
    "X-ABDATE": _Card._labelled_date,
    "X-ADDRESSBOOKSERVER-MEMBER": _Card._member,
}


def display_name(state: dict[str, Any]) -> str:
    """The name of a contact that has no formatted one; empty if there is nothing to make it of."""
    parts = (state[key].strip() for key in ("prefix", "given", "additional", "family", "suffix"))
    name = " ".join(part for part in parts if part)
    return str(name or state["organization"] or state["nickname"] or state["email"] or state["phone"]).strip()


def is_yearless(text: str) -> bool:
    """Whether this is a day of any year, `--04-12`, which vCard 4.0 can write as a date."""
    try:
        return datetime.datetime.strptime(f"2000{text}", "%Y--%m-%d") is not None
    except ValueError:
        return False
