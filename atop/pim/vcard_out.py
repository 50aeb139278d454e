"""Writes vCards 4.0 (RFC 6350) and 3.0 (RFC 2426) that `vcard` reads back attribute for attribute.

Takes the attributes of a `Contact` as a mapping. What the RFCs have no place for is written in the way of the
programs that people have: the labels of Apple, `X-ANNIVERSARY`, the kinds and members of address book groups.
Times are written to the second. Never writes a line that is not valid, whatever the attributes hold.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from atop.pim.contentline import Parameters, escape, fold, format_line
from atop.pim.incoming import Readable
from atop.pim.times import format_date, format_utc
from atop.pim.vcard import ADDRESS_PARTS, APPLE_LABELS, ENTRIES, NAME_PARTS, TEXTS, display_name, is_yearless

Version = Literal["4.0", "3.0"]

# Properties that vCard 3.0 knows under another name.
NAMES_3_0 = {
    "KIND": "X-ADDRESSBOOKSERVER-KIND",
    "MEMBER": "X-ADDRESSBOOKSERVER-MEMBER",
    "ANNIVERSARY": "X-ANNIVERSARY",
}


def write_card(state: Mapping[str, Any], version: Version = "4.0") -> bytes:
    """One card, folded, with CRLF line ends."""
    return b"".join(map(fold, _Writer(state, version).lines()))


class _Writer:
    """One card as it is written."""

    def __init__(self, state: Mapping[str, Any], version: Version) -> None:
        self._state = state
        self._version = version
        used = [
            entry.get("group", "") for key in ("emails", "phones", "addresses", "urls", "ims") for entry in state[key]
        ]
        used += [entry.get("group", "") for entry in state["properties"]]
        self._groups = (g for n in range(1, 1_000_000) if (g := f"item{n}") not in used)

    def lines(self) -> Iterator[str]:
        """The card's lines, unfolded."""
        state = self._state
        yield "BEGIN:VCARD"
        yield f"VERSION:{self._version}"
        if state["uid"]:
            yield self._text("UID", state["uid"])
        for name, attribute in TEXTS.items():
            text = state[attribute] or (display_name(dict(state)) if name == "FN" else "")
            if text or name == "FN":  # the one property that every card must have
                yield self._text(name, text)
        yield from self._structured_name()
        yield from self._entries()
        yield from self._addresses()
        if state["organization"] or state["departments"]:
            parts = [state["organization"], *state["departments"]]
            yield self._line("ORG", ";".join(map(escape, parts)))
        yield from self._days()
        if state["note"]:
            yield self._text("NOTE", state["note"])
        if state["categories"]:
            yield self._line("CATEGORIES", ",".join(map(escape, state["categories"])))
        if state["kind"]:
            yield self._text(self._own_name("KIND"), state["kind"])
        for member in state["members"]:
            yield self._text(self._own_name("MEMBER"), member)
        yield from self._contents()
        yield from self._others()
        if state["revised"] is not None:
            yield f"REV:{format_utc(state['revised'])}"
        yield "END:VCARD"

    def _own_name(self, name: str) -> str:
        return NAMES_3_0.get(name, name) if self._version == "3.0" else name

    def _line(self, name: str, value: str, extra: Parameters | None = None) -> str:
        """A property that occurs once, with the parameters that it was read with."""
        return format_line(name, value, {**self._state["parameters"].get(name, {}), **(extra or {})})

    def _text(self, name: str, text: str, extra: Parameters | None = None) -> str:
        return self._line(name, escape(text), extra)

    def _structured_name(self) -> Iterator[str]:
        parts = [self._state[part] for part in NAME_PARTS]
        if any(parts) or self._version == "3.0":  # 3.0 requires it
            yield self._line("N", ";".join(map(escape, parts)))

    def _entries(self) -> Iterator[str]:
        for name, attribute in ENTRIES.items():
            entries = list(self._state[attribute])
            first = self._state.get({"emails": "email", "phones": "phone"}.get(attribute, ""), "")
            for entry in with_first(entries, first):
                value = entry.get("value") or ""
                value = value.replace("\\", "\\\\") if attribute in ("urls", "ims") else escape(value)
                if attribute == "phones" and value[:4].lower() == "tel:":
                    value = f"tel:{value}"  # a reader takes the first one for the scheme of a URI
                yield from self._entry(name, value, entry)

    def _addresses(self) -> Iterator[str]:
        addresses = list(self._state["addresses"])
        city = self._state["city"]
        if city and not addresses:
            addresses = [{"city": city, "kinds": []}]
        elif city and addresses[0].get("city", "") != city:
            addresses[0] = {**addresses[0], "city": city}
        for entry in addresses:
            yield from self._entry("ADR", ";".join(escape(entry.get(part, "")) for part in ADDRESS_PARTS), entry)

    def _entry(self, name: str, value: str, entry: Mapping[str, Any]) -> Iterator[str]:
        kinds = list(entry.get("kinds") or ())
        parameters: Parameters = {}
        preferred = entry.get("preferred")
        if preferred is not None and (self._version == "4.0" or preferred != 1):
            parameters["PREF"] = [str(preferred)]
        elif preferred is not None:
            kinds.append("pref")
        if kinds:
            parameters["TYPE"] = kinds
        parameters.update(entry.get("parameters", {}))
        if entry.get("formatted"):
            parameters["LABEL"] = [entry["formatted"]]
        yield from self._labelled(name, value, parameters, entry)

    def _labelled(self, name: str, value: str, parameters: Parameters, entry: Mapping[str, Any]) -> Iterator[str]:
        """A property with its group, and with its label as Apple writes it."""
        group, label = entry.get("group", ""), entry.get("label", "")
        if label and not group:
            group = next(self._groups)
        yield format_line(name, value, parameters, group)
        if label:
            yield format_line("X-ABLabel", escape(f"_$!<{label}>!$_" if label in APPLE_LABELS else label), {}, group)

    def _days(self) -> Iterator[str]:
        birthday, text = self._state["birthday"], self._state["birthday_text"]
        if birthday is not None:
            yield self._line("BDAY", birthday.isoformat() if self._version == "3.0" else format_date(birthday))
        elif is_yearless(text) and self._version == "4.0":
            yield self._line("BDAY", f"--{text[2:4]}{text[5:7]}")
        elif is_yearless(text):  # as Apple says it, in a leap year
            yield self._line("BDAY", f"1604{text[1:]}", {"X-APPLE-OMIT-YEAR": ["1604"]})
        elif text:
            yield self._text("BDAY", text, {"VALUE": ["text"]} if self._version == "4.0" else None)
        if self._state["anniversary"] is not None:
            yield self._line(self._own_name("ANNIVERSARY"), format_date(self._state["anniversary"]))

    def _contents(self) -> Iterator[str]:
        if self._state["photo"] is not None:
            yield self._content("PHOTO", self._state["photo"], self._state["parameters"].get("PHOTO", {}))
        for entry in self._state["files"]:
            yield self._content(entry["property"], entry["file"], entry.get("parameters", {}))

    def _content(self, name: str, content: Readable, parameters: Parameters) -> str:
        parameters = dict(parameters)
        media_type = content.media_type
        encoded = base64.b64encode(content.read()).decode("ascii")
        if content.name:
            parameters["X-FILENAME"] = [content.name]
        if self._version == "4.0":
            plain = media_type if _is_plain_media_type(media_type) else ""
            if media_type != plain:
                parameters["MEDIATYPE"] = [media_type]
            return format_line(name, f"data:{plain};base64,{encoded}", parameters)
        parameters["ENCODING"] = ["b"]
        kind = media_type.removeprefix("image/")
        is_short = name == "PHOTO" and kind != media_type and kind.isalnum() and kind.islower()
        if is_short and kind not in ("jpg", "pref", "home", "work"):
            parameters["TYPE"] = [kind.upper()]
        elif media_type:
            parameters["MEDIATYPE"] = [media_type]
        return format_line(name, encoded, parameters)

    def _others(self) -> Iterator[str]:
        for entry in self._state["properties"]:
            parameters = dict(entry.get("parameters", {}))
            yield from self._labelled(entry["name"], entry.get("value", ""), parameters, entry)


def with_first(entries: list[dict[str, Any]], first: str) -> list[dict[str, Any]]:
    """The entries of which `first` is the value of the first one: another one that has it comes to the front, else the
    first one gets it."""
    if not first or (entries and entries[0].get("value") == first):
        return entries
    if not entries:
        return [{"value": first}]
    place = next((i for i, entry in enumerate(entries) if entry.get("value") == first), 0)
    rank = {"preferred": entries[0]["preferred"]} if "preferred" in entries[0] else {}
    found = {name: value for name, value in entries[place].items() if name != "preferred"} | rank
    return [{**found, "value": first}, *(entry for i, entry in enumerate(entries) if i != place)]


def _is_plain_media_type(text: str) -> bool:
    return text.isascii() and text == text.lower() and text.replace("/", "").replace("-", "").replace(".", "").isalnum()
