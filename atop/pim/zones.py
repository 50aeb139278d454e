"""Time zones of calendar files: what a TZID means, and the offset from UTC at a local time.

A zone is an IANA name where the TZID is one, holds one (`/mozilla.org/20070129_1/Europe/Berlin`), or is a name that
Windows has for one ("W. Europe Standard Time"); else it is the rules of the file's own VTIMEZONE.
Never opens a file by a name from the data: names are looked up among the known ones first. The rules of a file are
evaluated in bounded time, whatever they say.
"""

from __future__ import annotations

import calendar
import contextlib
import datetime
import functools
import re
import zoneinfo
from typing import NamedTuple

from atop.pim.contentline import ContentLine, parse_record
from atop.pim.times import UTC, format_duration, in_utc, parse_duration, parse_offset, parse_wall_time

FLOATING = "floating"  # the name of the time that is the same on every clock

# Most observances ("standard time since ...") of one zone, and most dates of one of them, that are evaluated.
MAX_OBSERVANCES = 400
MAX_ONSETS = 1_000

_WEEKDAYS = {"MO": 0, "TU": 1, "WE": 2, "TH": 3, "FR": 4, "SA": 5, "SU": 6}
_BYDAY = re.compile(r"([+-]?\d{0,2})(MO|TU|WE|TH|FR|SA|SU)\Z")


class Zone(NamedTuple):
    """A clock: its name, and its VTIMEZONE where the name is not enough. "" is UTC."""

    name: str
    rules: str = ""

    @property
    def is_known(self) -> bool:
        """Whether it can be told here what time it is on this clock."""
        return bool(not self.name or self.name == FLOATING or self.rules or self.name in known_zones())

    def aware(self, wall: datetime.datetime) -> datetime.datetime:
        """The local time with the offset from UTC that holds then."""
        return wall.replace(tzinfo=datetime.timezone(self._offset(wall)))

    def convert(self, moment: datetime.datetime) -> datetime.datetime:
        """The same instant on this clock; on the floating one, the same reading."""
        if self.name == FLOATING:
            return moment.replace(tzinfo=UTC)
        if not self.name or not (self.rules or self.name in known_zones()):
            return _shifted(moment, datetime.timedelta())
        offset = _ZERO
        with contextlib.suppress(OverflowError):  # within a day of year 1 or 9999
            if not self.rules:
                offset = moment.astimezone(zoneinfo.ZoneInfo(self.name)).utcoffset() or _ZERO
            else:  # these are given in local time: try with the offset of the reading in UTC, then once more
                utc = in_utc(moment).replace(tzinfo=None)
                offset = self._offset(utc)
                offset = self._offset(utc + offset)
        return _shifted(moment, offset)

    def _offset(self, wall: datetime.datetime) -> datetime.timedelta:
        if self.rules:
            return _offset_by_rules(self.rules, wall)
        if self.name in known_zones():
            return wall.replace(tzinfo=zoneinfo.ZoneInfo(self.name)).utcoffset() or _ZERO
        return _ZERO


_ZERO = datetime.timedelta()
UTC_ZONE = Zone("")
FLOATING_ZONE = Zone(FLOATING)


def _shifted(moment: datetime.datetime, offset: datetime.timedelta) -> datetime.datetime:
    try:
        return moment.astimezone(datetime.timezone(offset))
    except OverflowError:  # within a day of year 1 or 9999: the reading is all there is
        return moment.replace(tzinfo=UTC)


@functools.cache
def known_zones() -> frozenset[str]:
    """The IANA names that this device knows."""
    return frozenset(zoneinfo.available_timezones())


@functools.cache
def _windows_zones() -> dict[str, str]:
    from icalendar.timezone.windows_to_olson import WINDOWS_TO_OLSON

    return {windows.casefold(): iana for windows, iana in WINDOWS_TO_OLSON.items()}


@functools.lru_cache(maxsize=1_000)
def find_zone(tzid: str, rules: str = "") -> Zone:
    """The zone that a TZID names, `rules` being the text of the VTIMEZONE of the same file, if there is one."""
    name = tzid.strip().strip('"')
    if name.upper() in ("UTC", "Z", "GMT", "ETC/UTC"):
        return UTC_ZONE
    if not name or name == FLOATING:
        return FLOATING_ZONE
    found = _iana_name(name)
    if not found and rules:
        found = _iana_name(_location_of(rules))
    return Zone(found) if found else Zone(name, rules)


def _iana_name(name: str) -> str:
    known = known_zones()
    if name in known:
        return name
    parts = [part for part in name.split("/") if part]
    for count in (3, 2):
        tail = "/".join(parts[-count:])
        if len(parts) >= count and tail in known:
            return tail
    return _windows_zones().get(name.casefold(), "")


def _location_of(rules: str) -> str:
    for line in parse_record([rules.encode("utf-8")]):
        if line.name == "X-LIC-LOCATION":
            return line.value.strip()
    return ""


# --------------------------------------------------------------------------------- rules of a VTIMEZONE


class _Observance(NamedTuple):
    """One stretch of standard or summer time: when it sets in, in local time, and what it changes."""

    start: datetime.datetime
    offset_from: datetime.timedelta
    offset_to: datetime.timedelta
    dates: tuple[datetime.datetime, ...]
    rule: dict[str, str]


def _offset_by_rules(rules: str, wall: datetime.datetime) -> datetime.timedelta:
    """What the observance says that set in last before a local time (RFC 5545 section 3.6.5)."""
    observances = _parse_rules(rules)
    if not observances:
        return _ZERO
    latest: tuple[datetime.datetime, datetime.timedelta] | None = None
    for observance in observances:
        onset = _last_onset(observance, wall)
        if onset is not None and (latest is None or onset >= latest[0]):
            latest = (onset, observance.offset_to)
    if latest is not None:
        return latest[1]
    return min(observances, key=lambda observance: observance.start).offset_from


@functools.lru_cache(maxsize=200)
def _parse_rules(rules: str) -> tuple[_Observance, ...]:
    observances: list[_Observance] = []
    current: list[ContentLine] = []
    for line in parse_record([rules.encode("utf-8")]):
        if line.name == "BEGIN":
            current = []
        elif line.name == "END" and line.value.strip().upper() in ("STANDARD", "DAYLIGHT"):
            observance = _read_observance(current)
            if observance is not None and len(observances) < MAX_OBSERVANCES:
                observances.append(observance)
        else:
            current.append(line)
    return tuple(observances)


def _read_observance(lines: list[ContentLine]) -> _Observance | None:
    values = {line.name: line.value for line in lines}
    start = parse_wall_time(values.get("DTSTART", ""))
    before = parse_offset(values.get("TZOFFSETFROM", ""))
    after = parse_offset(values.get("TZOFFSETTO", ""))
    if start is None or after is None:
        return None
    texts = [text for line in lines if line.name == "RDATE" for text in line.value.split(",")][:MAX_ONSETS]
    dates = tuple(sorted(date for text in texts if (date := parse_wall_time(text)) is not None))
    rule = dict(part.split("=", 1) for part in values.get("RRULE", "").upper().split(";") if "=" in part)
    return _Observance(start, after if before is None else before, after, dates, rule)


def _last_onset(observance: _Observance, wall: datetime.datetime) -> datetime.datetime | None:
    onsets = [date for date in (observance.start, *observance.dates) if date <= wall]
    for year in (wall.year, wall.year - 1):
        onset = _yearly_onset(observance, year)
        if onset is not None and observance.start <= onset <= wall:
            onsets.append(onset)
            break
    until = parse_wall_time(observance.rule.get("UNTIL", ""))
    if until is not None:  # past it the rule has no onset: the one of its last year is the latest
        last = _yearly_onset(observance, min(until.year, wall.year))
        onsets = [onset for onset in onsets if onset <= until or onset in observance.dates]
        if last is not None and observance.start <= last <= wall and last.date() <= until.date():
            onsets.append(last)
    return max(onsets, default=None)


def _yearly_onset(observance: _Observance, year: int) -> datetime.datetime | None:
    """When a yearly rule sets in, in a year; None for other rules, of which no zone has need."""
    rule = observance.rule
    if rule.get("FREQ") != "YEARLY" or year < 1:
        return None
    try:
        month = int(rule.get("BYMONTH", observance.start.month))
        last = calendar.monthrange(year, month)[1]
        days = [int(day) for day in rule.get("BYMONTHDAY", "").split(",") if day]
    except (ValueError, calendar.IllegalMonthError):
        return None
    days = [day if day > 0 else last + 1 + day for day in days] or list(range(1, last + 1))
    match = _BYDAY.match(rule.get("BYDAY", ""))
    if match is not None:
        weekday = _WEEKDAYS[match[2]]
        first = calendar.weekday(year, month, 1)
        days = [d for d in days if 1 <= d <= last and (first + d - 1) % 7 == weekday]
        position = int(match[1] or 1)
    elif "BYMONTHDAY" in rule:
        position = 1
    else:
        position = observance.start.day
    index = position - 1 if position > 0 else position
    if not -len(days) <= index < len(days) or not 1 <= days[index] <= last:
        return None
    return observance.start.replace(year=year, month=month, day=days[index])


def add_duration(start: datetime.datetime, text: str, zone: Zone) -> datetime.datetime | None:
    """`start` plus a duration: days by the clock, hours in time that passes (RFC 5545 section 3.3.6)."""
    delta = parse_duration(text)
    if delta is None:
        return None
    try:
        if "T" not in text.upper():
            return zone.aware(start.replace(tzinfo=None) + delta)
        return zone.convert(start + delta)
    except OverflowError:
        return None


def duration_between(start: datetime.datetime, end: datetime.datetime) -> str:
    """The time that passes from one instant to another, as a duration."""
    return format_duration(end - start)
