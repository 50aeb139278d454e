"""Writes iCalendar (RFC 5545) that `calendar_file` reads back attribute for attribute.

`CalendarWriter` takes the attributes of `Event` and `Note` one item at a time and gives octets, so that a calendar of
any size is written in little memory. A VTIMEZONE is written before the first event that needs it; where two events
call different rules by one name, a new VCALENDAR begins in the same file.
Times are written to the second, and nothing that is not valid, whatever the attributes hold.
"""

from __future__ import annotations

import base64
import datetime
import re
from collections.abc import Iterator, Mapping
from typing import Any

from atop.pim.contentline import Parameters, escape, fold, format_line, parse_record
from atop.pim.ical import INSTANTS, NUMBERS, RAW, TEXTS, as_text, blank_event
from atop.pim.incoming import Readable
from atop.pim.times import UTC, format_date, format_utc, format_wall_time
from atop.pim.zones import FLOATING, UTC_ZONE, Zone, add_duration, known_zones

PRODUCT = "-//Atop//Personal information//EN"

# What DTSTAMP says of an event that does not know when it was changed; the same export gives the same octets.
NO_STAMP = datetime.datetime(1970, 1, 1, tzinfo=UTC)

_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


class CalendarWriter:
    """One iCalendar file, item by item: `start()`, `event(...)` or `note(...)` for each, `finish()`."""

    def __init__(self) -> None:
        self._written_zones: dict[str, str] = {}  # TZID -> rules, of the VCALENDAR that is open

    def start(self) -> bytes:
        """The beginning of a VCALENDAR."""
        self._written_zones.clear()
        return _octets(["BEGIN:VCALENDAR", "VERSION:2.0", f"PRODID:{PRODUCT}", "CALSCALE:GREGORIAN"])

    def finish(self) -> bytes:
        """The end of the VCALENDAR."""
        return _octets(["END:VCALENDAR"])

    def event(self, state: Mapping[str, Any]) -> bytes:
        """An event or task, its overrides after it."""
        overrides = [{**blank_event(), **override} for override in state["overrides"]]
        octets = b"".join(self._zones([state, *overrides]))
        octets += _octets(_EventLines(state, state).lines())
        for override in overrides:
            override["uid"], override["kind"] = state["uid"], state["kind"]
            octets += _octets(_EventLines(override, state).lines())
        return octets

    def note(self, state: Mapping[str, Any]) -> bytes:
        """A note, as a VJOURNAL."""
        return _octets(_note_lines(state))

    def _zones(self, states: list[Mapping[str, Any]]) -> Iterator[bytes]:
        """The VTIMEZONEs that are needed and not written yet."""
        needed: dict[str, str] = {}
        for state in states:
            for name in (state["time_zone"], state["end_time_zone"]):
                if name and name not in (FLOATING, "UTC"):
                    needed.setdefault(name, state["time_zone_rules"] if name == state["time_zone"] else "")
        if any(self._written_zones.get(name, rules) != rules for name, rules in needed.items()):
            yield self.finish() + self.start()
        for name, rules in needed.items():
            if name not in self._written_zones:
                self._written_zones[name] = rules
                yield _write_zone(name, rules)


def _write_zone(name: str, rules: str) -> bytes:
    if rules:
        return _octets(as_text(line) for line in parse_record([rules.encode("utf-8", "replace")]))
    if name not in known_zones():
        return b""
    from icalendar import Timezone

    return bytes(Timezone.from_tzid(name).to_ical())


def _octets(lines: Iterator[str] | list[str]) -> bytes:
    return b"".join(map(fold, lines))


class _EventLines:
    """One VEVENT or VTODO; `series` is the event whose occurrence it replaces, or the event itself."""

    def __init__(self, state: Mapping[str, Any], series: Mapping[str, Any]) -> None:
        self._state = state
        self._series = series

    def lines(self) -> Iterator[str]:
        """The component's lines, unfolded."""
        state = self._state
        name = "VTODO" if state["kind"] == "task" else "VEVENT"
        yield f"BEGIN:{name}"
        yield f"UID:{escape(state['uid'])}"
        yield f"DTSTAMP:{format_utc(state['modified'] or state['created'] or NO_STAMP)}"
        yield from self._times()
        for property_name, attribute in TEXTS.items():
            if state[attribute]:
                yield self._line(property_name, escape(state[attribute]))
        for property_name, attribute in RAW.items():
            if state[attribute]:
                yield self._line(property_name, state[attribute])
        yield from self._recurrence()
        yield from self._details()
        for entry in state["properties"]:
            yield format_line(entry["name"], entry.get("value", ""), entry.get("parameters"))
        for alarm in state["alarms"]:
            yield from _alarm_lines(alarm)
        for text in state["components"]:
            yield from text.split("\n")
        yield f"END:{name}"

    def _line(self, name: str, value: str, extra: Parameters | None = None) -> str:
        return format_line(name, value, {**self._state["parameters"].get(name, {}), **(extra or {})})

    def _times(self) -> Iterator[str]:
        state = self._state
        zone = _zone_of(state)
        start, end = state["start"], state["end"]
        if start is not None:
            yield self._moment("DTSTART", start, zone, state["all_day"])
        if end is None:
            return
        clock = UTC_ZONE if state["all_day"] else zone
        if start is not None and state["duration"] and add_duration(start, state["duration"], clock) == end:
            yield self._line("DURATION", state["duration"])
            return
        own_zone = state["end_time_zone"]
        end_zone = zone if not own_zone else UTC_ZONE if own_zone == "UTC" else Zone(own_zone)
        yield self._moment("DUE" if state["kind"] == "task" else "DTEND", end, end_zone, state["all_day"])

    def _moment(self, name: str, moment: datetime.datetime, zone: Zone, all_day: bool) -> str:
        parameters, value = _written(moment, zone, all_day)
        return self._line(name, value, parameters)

    def _recurrence(self) -> Iterator[str]:
        state, series = self._state, self._series
        if state["recurrence_id"] is not None:
            yield self._moment("RECURRENCE-ID", state["recurrence_id"], _zone_of(series), series["all_day"])
        for name, dates in (("EXDATE", state["exdates"]), ("RDATE", state["rdates"])):
            for date in dates:
                parameters, value = _written(date, _zone_of(state), state["all_day"])
                yield format_line(name, value, parameters)

    def _details(self) -> Iterator[str]:
        state = self._state
        for name, attribute in (("STATUS", "status"), ("CLASS", "visibility")):
            if state[attribute]:
                yield self._line(name, escape(state[attribute]))
        if state["transparent"]:
            yield self._line("TRANSP", "TRANSPARENT")
        for name, attribute in NUMBERS.items():
            if state[attribute]:
                yield self._line(name, str(state[attribute]))
            elif state[attribute] == 0 and attribute != "sequence":
                yield self._line(name, "0")
        for name, attribute in INSTANTS.items():
            if state[attribute] is not None:
                yield self._line(name, format_utc(state[attribute]))
        if state["categories"]:
            yield self._line("CATEGORIES", ",".join(map(escape, state["categories"])))
        if state["calendar"]:
            yield self._line("X-ATOP-CALENDAR", escape(state["calendar"]))
        if state["organizer"]:
            yield format_line("ORGANIZER", _as_uri(state["organizer"]), state["organizer_parameters"])
        for attendee in state["attendees"]:
            name_first = {"CN": [attendee["name"]]} if attendee.get("name") else {}
            yield format_line(
                "ATTENDEE", _as_uri(attendee.get("address", "")), {**name_first, **attendee.get("parameters", {})}
            )
        for attachment in state["attachments"]:
            yield _attachment_line(attachment)


def _zone_of(state: Mapping[str, Any]) -> Zone:
    """The clock of an event's times; one made with a ZoneInfo and without a name has that."""
    name = state["time_zone"]
    if not name and not state["all_day"]:
        leading = state["start"] or state["end"]
        name = getattr(leading.tzinfo, "key", "") if leading is not None else ""
        if leading is not None and leading.tzinfo is None:
            name = FLOATING
    return UTC_ZONE if name == "UTC" else Zone(name, state["time_zone_rules"])


def _written(moment: datetime.datetime, zone: Zone, all_day: bool) -> tuple[Parameters, str]:
    """The parameters and the value that say when."""
    if all_day:
        return {"VALUE": ["DATE"]}, format_date(moment)
    if zone.name == FLOATING:
        return {}, format_wall_time(moment)
    if moment.tzinfo is None:
        moment = zone.aware(moment)
    if not zone.name:
        return {}, format_utc(moment)
    if zone.aware(moment.replace(tzinfo=None)).utcoffset() != moment.utcoffset():
        moment = zone.convert(moment)
    return {"TZID": [zone.name]}, format_wall_time(moment)


def _as_uri(address: str) -> str:
    return address if _URI.match(address) else f"mailto:{address}"


def _alarm_lines(alarm: Mapping[str, Any]) -> Iterator[str]:
    yield "BEGIN:VALARM"
    if alarm.get("action"):
        yield f"ACTION:{escape(alarm['action'])}"
    if alarm.get("trigger"):
        yield format_line("TRIGGER", alarm["trigger"], alarm.get("parameters"))
    if "description" in alarm:
        yield f"DESCRIPTION:{escape(alarm['description'])}"
    for entry in alarm.get("properties", ()):
        yield format_line(entry["name"], entry.get("value", ""), entry.get("parameters"))
    yield "END:VALARM"


def _attachment_line(content: Readable) -> str:
    parameters: Parameters = {"ENCODING": ["BASE64"], "VALUE": ["BINARY"]}
    if content.media_type:
        parameters["FMTTYPE"] = [content.media_type]
    if content.name:
        parameters["X-FILENAME"] = [content.name]
    return format_line("ATTACH", base64.b64encode(content.read()).decode("ascii"), parameters)


def _note_lines(state: Mapping[str, Any]) -> Iterator[str]:
    yield "BEGIN:VJOURNAL"
    yield f"UID:{escape(state['uid'])}"
    yield f"DTSTAMP:{format_utc(state['modified'] or state['created'] or NO_STAMP)}"
    has_time = any(entry["name"] == "DTSTART" for entry in state["properties"])
    if state["day"] is not None and not has_time:
        yield f"DTSTART;VALUE=DATE:{format_date(state['day'])}"
    if state["title"]:
        yield f"SUMMARY:{escape(state['title'])}"
    if state["text"]:
        yield f"DESCRIPTION:{escape(state['text'])}"
    for name, attribute in (("CREATED", "created"), ("LAST-MODIFIED", "modified")):
        if state[attribute] is not None:
            yield f"{name}:{format_utc(state[attribute])}"
    if state["tags"]:
        yield "CATEGORIES:" + ",".join(map(escape, state["tags"]))
    for attachment in state["attachments"]:
        yield _attachment_line(attachment)
    for entry in state["properties"]:
        yield format_line(entry["name"], entry.get("value", ""), entry.get("parameters"))
    for text in state["components"]:
        yield from text.split("\n")
    yield "END:VJOURNAL"
