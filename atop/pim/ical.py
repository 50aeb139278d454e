"""Reads iCalendar components (RFC 5545) as programs really write them: one component, one set of attributes.

`read_event` makes the attributes of `Event` from a VEVENT or VTODO; `ical_note` those of `Note` from a VJOURNAL.
What no attribute is made for is kept in `properties` and `components`, and written again by `ical_out`; dropped are
only DTSTAMP, which is about the file and not about the event, and encodings that are undone here.
Recurrences are kept as the rules that they are; nothing here expands one, so no rule can take time.
`calendar_file` puts the components of a whole file together.
"""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Callable, Mapping
from typing import Any

from atop.pim.contentline import ContentLine, format_line, parse_record, split_texts, unescape
from atop.pim.contents import TECHNICAL, read_content
from atop.pim.times import UTC, in_utc, parse_date, parse_timestamp, parse_wall_time
from atop.pim.zones import FLOATING_ZONE, UTC_ZONE, Zone, add_duration

FindZone = Callable[[str], Zone]

# Attributes that hold one text, and their properties.
TEXTS = {"SUMMARY": "summary", "LOCATION": "location", "DESCRIPTION": "description"}

# Attributes that hold a value as it is written.
RAW = {"RRULE": "recurrence", "URL": "url"}

# Attributes that hold a number, and their properties.
NUMBERS = {"SEQUENCE": "sequence", "PRIORITY": "priority", "PERCENT-COMPLETE": "percent"}

# Attributes that hold an instant, and their properties.
INSTANTS = {"CREATED": "created", "LAST-MODIFIED": "modified", "COMPLETED": "completed"}

# Largest number taken for one: what any program's integers hold.
MAX_NUMBER = 2**31 - 1


def blank_event() -> dict[str, Any]:
    """The attributes of an event of which nothing is known."""
    return {
        "uid": "",
        "kind": "event",
        "summary": "",
        "start": None,
        "end": None,
        "all_day": False,
        "time_zone": "",
        "end_time_zone": "",
        "time_zone_rules": "",
        "duration": "",
        "location": "",
        "description": "",
        "url": "",
        "recurrence": "",
        "exdates": [],
        "rdates": [],
        "overrides": [],
        "recurrence_id": None,
        "status": "",
        "completed": None,
        "percent": None,
        "priority": None,
        "organizer": "",
        "organizer_parameters": {},
        "attendees": [],
        "alarms": [],
        "categories": [],
        "visibility": "",
        "transparent": False,
        "sequence": 0,
        "calendar": "",
        "attachments": [],
        "created": None,
        "modified": None,
        "parameters": {},
        "properties": [],
        "components": [],
    }


def read_event(lines: list[bytes], zone_of: FindZone, series: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The attributes of a VEVENT or VTODO; `recurrence_id` is set if it replaces one occurrence of a series.

    That is written on the clock of the series, where its attributes are given. Raises ValueError if it has no start
    (an event) or neither start nor end nor summary (a task).
    """
    event = _Event(zone_of, series)
    own, parts = split_parts(parse_record(lines))
    event.state["kind"] = "task" if own[0].value.strip().upper() == "VTODO" else "event"
    event.add_times(own)
    for line in own[1:-1]:
        event.add(line)
    for part in parts:
        event.add_part(part)
    return event.finish()


def split_parts(properties: list[ContentLine]) -> tuple[list[ContentLine], list[list[ContentLine]]]:
    """The properties of a component itself, and those of each component inside it; BEGIN and END included."""
    own: list[ContentLine] = []
    parts: list[list[ContentLine]] = []
    depth = 0
    for line in properties:
        if line.name == "BEGIN":
            depth += 1
            if depth == 2:
                parts.append([])
        (own if depth <= 1 else parts[-1]).append(line)
        if line.name == "END":
            depth -= 1
    return own, parts


class Moment:
    """The value of DTSTART and its like: a local time on some clock, or a day."""

    __slots__ = ("is_day", "unknown_zone", "value", "zone")

    def __init__(self, text: str, tzid: str, zone_of: FindZone) -> None:
        """Raises ValueError if it is no time."""
        text = text.strip()
        self.unknown_zone = ""  # the name of a clock that nobody here knows: then this is local time
        wall = parse_wall_time(text)
        day = parse_date(text) if wall is None else None
        self.is_day = wall is None
        if wall is None:
            if day is None:
                raise ValueError(f"has a time that is none: {text[:40]!r}")
            self.zone = UTC_ZONE
            self.value = datetime.datetime(day.year, day.month, day.day, tzinfo=UTC)
        else:
            if text[-1] in "Zz":
                self.zone = UTC_ZONE
            else:
                self.zone = zone_of(tzid) if tzid else FLOATING_ZONE
                if not self.zone.is_known:
                    self.unknown_zone, self.zone = tzid, FLOATING_ZONE
            self.value = self.zone.aware(wall)

    def on(self, zone: Zone, all_day: bool) -> datetime.datetime:
        """This moment as a time of an event that has that clock, or of one that lasts whole days."""
        if all_day:
            return self.value.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=UTC)
        if self.is_day or FLOATING_ZONE in (zone, self.zone):
            return zone.aware(self.value.replace(tzinfo=None))
        return self.value if self.zone == zone else zone.convert(self.value)

    def occurrence_of(self, series: Mapping[str, Any]) -> datetime.datetime:
        """This moment as the start of an occurrence of an event; a day means the occurrence of that day."""
        zone = Zone(series["time_zone"], series["time_zone_rules"])
        if self.is_day and not series["all_day"] and series["start"] is not None:
            return zone.aware(datetime.datetime.combine(self.value, series["start"].time()))
        return self.on(zone, series["all_day"])


class _Event:
    """An event as it is read, property by property."""

    def __init__(self, zone_of: FindZone, series: Mapping[str, Any] | None) -> None:
        self.state = blank_event()
        self._series = series
        self._zone_of = zone_of
        self._zone = FLOATING_ZONE
        self._all_day = False
        self._unknown_zones: dict[str, str] = {}  # property -> the TZID that is kept with it
        self._seen: set[str] = set()
        self._category_names: dict[str, None] = {}  # a set that keeps the order

    def _moment(self, line: ContentLine) -> Moment:
        return Moment(line.value, line.parameter("TZID"), self._zone_of)

    def add_times(self, properties: list[ContentLine]) -> None:
        """Take up start and end, on which the meaning of the other times depends."""
        state = self.state
        first = {line.name: line for line in reversed(properties)}
        start_line, end_line = first.get("DTSTART"), first.get("DTEND" if state["kind"] == "event" else "DUE")
        start = self._moment(start_line) if start_line else None
        end = None
        if end_line is not None:
            with contextlib.suppress(ValueError):  # `_time` keeps the line
                end = self._moment(end_line)
        leading = start or end
        if leading is None and (state["kind"] == "event" or "SUMMARY" not in first):
            raise ValueError("has no start (DTSTART)" if state["kind"] == "event" else "has neither date nor summary")
        if leading is None:
            return
        self._zone, self._all_day = leading.zone, leading.is_day
        state["all_day"] = leading.is_day
        state["time_zone"], state["time_zone_rules"] = ("", "") if leading.is_day else leading.zone
        for line, moment in ((start_line, start), (end_line, end)):
            if line is not None and moment is not None and moment.unknown_zone:
                self._unknown_zones[line.name] = moment.unknown_zone
        if start is not None:
            state["start"] = start.value
        if end is not None:
            own_zone = not (leading.is_day or end.is_day or end.zone in (leading.zone, FLOATING_ZONE) or end.zone.rules)
            state["end"] = end.value if own_zone else end.on(leading.zone, leading.is_day)
            if own_zone:
                state["end_time_zone"] = end.zone.name or "UTC"
        elif "DURATION" in first and start is not None:
            text = first["DURATION"].value.strip()
            state["end"] = add_duration(start.value, text, UTC_ZONE if leading.is_day else leading.zone)
            if state["end"] is not None:
                state["duration"] = text

    def add(self, line: ContentLine) -> None:
        """Take up one property."""
        name = line.name
        if name in _ONCE and name not in self._seen:
            self._seen.add(name)
            if not _ONCE[name](self, line):
                self._keep(line)
            elif line.parameters and name != "ORGANIZER":
                rest = {key: values for key, values in line.parameters.items() if key not in _TECHNICAL}
                if name in self._unknown_zones:
                    rest["TZID"] = [self._unknown_zones[name]]
                if rest:
                    self.state["parameters"][name] = rest
        elif name in _MANY:
            if not _MANY[name](self, line):
                self._keep(line)
        elif name != "DTSTAMP":
            self._keep(line)

    def _keep(self, line: ContentLine) -> None:
        self.state["properties"].append(kept(line))

    # -- properties that occur once; False if the value is not understood and is to be kept as it is

    def _text(self, line: ContentLine) -> bool:
        self.state[TEXTS[line.name]] = unescape(line.value)
        return True

    def _raw(self, line: ContentLine) -> bool:
        self.state[RAW[line.name]] = line.value.strip()
        return True

    def _word(self, line: ContentLine) -> bool:
        attribute = {"STATUS": "status", "CLASS": "visibility"}[line.name]
        self.state[attribute] = line.value.strip().upper()
        return True

    def _number(self, line: ContentLine) -> bool:
        text = line.value.strip()
        if not (text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= MAX_NUMBER):
            return False
        self.state[NUMBERS[line.name]] = int(text)
        return True

    def _instant(self, line: ContentLine) -> bool:
        moment = parse_timestamp(line.value.strip())
        if moment is None:
            return False
        self.state[INSTANTS[line.name]] = in_utc(moment)
        return True

    def _uid(self, line: ContentLine) -> bool:
        self.state["uid"] = unescape(line.value).strip()
        return True

    def _transparency(self, line: ContentLine) -> bool:
        text = line.value.strip().upper()
        self.state["transparent"] = text == "TRANSPARENT"
        return text in ("TRANSPARENT", "OPAQUE")

    def _calendar(self, line: ContentLine) -> bool:
        self.state["calendar"] = unescape(line.value)
        return True

    def _organizer(self, line: ContentLine) -> bool:
        self.state["organizer"] = read_address(line.value)
        self.state["organizer_parameters"] = dict(line.parameters)
        return True

    def _recurrence_id(self, line: ContentLine) -> bool:
        try:
            moment = self._moment(line)
        except ValueError:
            return False
        if self._series is None:
            self.state["recurrence_id"] = moment.on(self._zone, self._all_day)
        else:
            self.state["recurrence_id"] = moment.occurrence_of(self._series)
        return True

    def _time(self, line: ContentLine) -> bool:
        """Taken up before; to be kept where it was not understood."""
        taken = {"DTSTART": "start", "DURATION": "duration", "DTEND": "end", "DUE": "end"}[line.name]
        is_other_kind = line.name == ("DUE" if self.state["kind"] == "event" else "DTEND")
        return bool(self.state[taken]) and not is_other_kind

    # -- properties that may occur many times

    def _dates(self, line: ContentLine) -> bool:
        if line.parameter("VALUE").upper() == "PERIOD" or "/" in line.value:
            return False
        tzid = line.parameter("TZID")
        try:
            moments = [Moment(text, tzid, self._zone_of) for text in line.value.split(",") if text.strip()]
        except ValueError:
            return False
        attribute = "exdates" if line.name == "EXDATE" else "rdates"
        self.state[attribute].extend(moment.occurrence_of(self.state) for moment in moments)
        return True

    def _categories(self, line: ContentLine) -> bool:
        self._category_names.update(dict.fromkeys(split_texts(line.value)))
        return True

    def _attendee(self, line: ContentLine) -> bool:
        entry: dict[str, Any] = {"address": read_address(line.value)}
        rest = dict(line.parameters)
        if rest.get("CN", [""])[0]:
            entry["name"] = ",".join(rest.pop("CN"))
        if rest:
            entry["parameters"] = rest
        self.state["attendees"].append(entry)
        return True

    def _attachment(self, line: ContentLine) -> bool:
        content = read_content(line, "")
        if content is not None:
            self.state["attachments"].append(content)
        return content is not None

    def add_part(self, lines: list[ContentLine]) -> None:
        """Take up a component inside the event."""
        if lines[0].value.strip().upper() != "VALARM" or any(line.name == "BEGIN" for line in lines[1:]):
            self.state["components"].append("\n".join(map(as_text, lines)))
            return
        alarm: dict[str, Any] = {"action": "", "trigger": ""}
        for line in lines[1:-1]:
            plain = not line.parameters and not line.group
            if line.name == "ACTION" and plain:
                alarm["action"] = line.value.strip().upper()
            elif line.name == "TRIGGER" and not alarm["trigger"]:
                alarm["trigger"] = line.value.strip()
                if line.parameters:
                    alarm["parameters"] = line.parameters
            elif line.name == "DESCRIPTION" and plain and "description" not in alarm:
                alarm["description"] = unescape(line.value)
            else:
                alarm.setdefault("properties", []).append(kept(line))
        self.state["alarms"].append(alarm)

    def finish(self) -> dict[str, Any]:
        """The attributes, nothing in them twice."""
        for attribute in ("exdates", "rdates"):
            self.state[attribute] = list(dict.fromkeys(self.state[attribute]))
        self.state["categories"] = list(self._category_names)
        return self.state


_ONCE: dict[str, Callable[[_Event, ContentLine], bool]] = {
    **dict.fromkeys(TEXTS, _Event._text),
    **dict.fromkeys(RAW, _Event._raw),
    **dict.fromkeys(NUMBERS, _Event._number),
    **dict.fromkeys(INSTANTS, _Event._instant),
    "STATUS": _Event._word,
    "CLASS": _Event._word,
    "UID": _Event._uid,
    "TRANSP": _Event._transparency,
    "X-ATOP-CALENDAR": _Event._calendar,
    "ORGANIZER": _Event._organizer,
    "RECURRENCE-ID": _Event._recurrence_id,
    **dict.fromkeys(("DTSTART", "DTEND", "DUE", "DURATION"), _Event._time),
}

_MANY: dict[str, Callable[[_Event, ContentLine], bool]] = {
    "EXDATE": _Event._dates,
    "RDATE": _Event._dates,
    "CATEGORIES": _Event._categories,
    "ATTENDEE": _Event._attendee,
    "ATTACH": _Event._attachment,
}

_TECHNICAL = TECHNICAL | {"TZID"}


def kept(line: ContentLine) -> dict[str, Any]:
    """A property as it is kept for the next one who knows it."""
    entry: dict[str, Any] = {"name": line.name, "value": line.value}
    parameters = {name: values for name, values in line.parameters.items() if name != "CHARSET"}
    if parameters:
        entry["parameters"] = parameters
    return entry


def as_text(line: ContentLine) -> str:
    """A property as one unfolded line."""
    return format_line(line.name, line.value, line.parameters, line.group)


def read_address(value: str) -> str:
    """An e-mail address; another URI stays as it is."""
    text = value.strip()
    return text[7:] if text[:7].lower() == "mailto:" else text
