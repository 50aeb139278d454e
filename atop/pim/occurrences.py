"""When an event takes place: its rules of recurrence expanded, for the days that somebody looks at.

RRULE, RDATE, EXDATE and overridden occurrences of RFC 5545, on the clock of the event, given on the clock of whoever
looks. It never takes long, whatever a rule says (`recurrence`); what that leaves out is said.

Pure: no clock is read and no store is needed. The attributes may be of any type; those that make no sense count as
missing.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from atop.pim.recurrence import MAX_DAYS, expand, rule_parts
from atop.pim.times import UTC, parse_date, parse_timestamp, parse_wall_time
from atop.pim.zones import FLOATING_ZONE, UTC_ZONE, Zone

_DAY = datetime.timedelta(days=1)
_ZERO = datetime.timedelta()
_LAST = datetime.datetime.max - 400 * _DAY


class Occurrence(NamedTuple):
    """One time that an event takes place, on the clock of whoever looks (of an all-day event, on any clock)."""

    start: datetime.datetime  # without an offset
    end: datetime.datetime  # the first moment after it; equal to `start` for a moment without length
    all_day: bool
    replaces: datetime.datetime | None  # the start that the series has for it; None if there is no series
    state: Mapping[str, Any]  # the event's attributes as they are for this occurrence


@dataclass
class Budget:
    """What one look may cost: rules share it, so that a thousand bad ones take no longer than a few."""

    days: int = 15 * MAX_DAYS
    incomplete: int = 0  # how many events had more occurrences than were worked out


def occurrences(
    state: Mapping[str, Any],
    first: datetime.date,
    last: datetime.date,
    zone: datetime.tzinfo,
    budget: Budget | None = None,
) -> list[Occurrence]:
    """When an event with these attributes takes place in the days from `first` up to, not including, `last`.

    `zone` is the clock of whoever looks. In order of time.
    """
    budget = budget or Budget()
    event = _Event(state, zone)
    if event.start is None:
        return []
    low, high = (datetime.datetime.combine(day, datetime.time()) for day in (first, last))
    overrides = list(_overrides(state))
    found: list[Occurrence] = []
    starts = [start for start in event.starts(low, high, budget) if _is_near(start, start + event.bounded, low, high)]
    if starts:
        left_out = {event.aware(moment) for moment in (*(m for m, _ in overrides), *_moments(state.get("exdates")))}
        of_series = bool(event.rule or overrides or event.extra)
        found = [event.occurrence(start, of_series) for start in starts if event.aware(start) not in left_out]
    for moment, override in overrides:
        begin = _moment(override.get("start")) or moment
        end = _moment(override.get("end")) or begin.replace(tzinfo=None) + event.bounded
        if _is_near(begin.replace(tzinfo=None), end.replace(tzinfo=None), low, high):
            changed = _Event({**state, **_CLEARED, "start": moment, "end": None, **override}, zone, event)
            if changed.start is not None:
                found.append(changed.occurrence(changed.start, True)._replace(replaces=moment))
    return sorted((o for o in found if o.start < high and (o.end > low or o.start >= low)), key=_by_time)


def _is_near(begin: datetime.datetime, end: datetime.datetime, low: datetime.datetime, high: datetime.datetime) -> bool:
    """Whether it may fall into the span on the clock of whoever looks, which is less than two days from any other."""
    return begin < high + 2 * _DAY and end > low - 2 * _DAY


def _by_time(occurrence: Occurrence) -> tuple[datetime.datetime, bool, datetime.datetime]:
    return occurrence.start, not occurrence.all_day, occurrence.end


# What an override does not have from its series.
_CLEARED = {"recurrence": "", "rdates": [], "exdates": [], "overrides": [], "duration": ""}


def _moments(values: Any) -> Iterator[datetime.datetime]:
    """The times in what should be a list of them."""
    if isinstance(values, Iterable) and not isinstance(values, (str, bytes)):
        yield from (moment for value in values if (moment := _moment(value)) is not None)


def _moment(value: Any) -> datetime.datetime | None:
    if isinstance(value, datetime.datetime):
        return value
    if isinstance(value, datetime.date):
        return datetime.datetime(value.year, value.month, value.day, tzinfo=UTC)
    return None


def _overrides(state: Mapping[str, Any]) -> Iterator[tuple[datetime.datetime, Mapping[str, Any]]]:
    """The exceptions to a series: which start each replaces, and what is different."""
    overrides = state.get("overrides")
    for override in overrides if isinstance(overrides, Iterable) and not isinstance(overrides, (str, bytes)) else ():
        if isinstance(override, Mapping) and (moment := _moment(override.get("recurrence_id"))) is not None:
            yield moment, override


class _Event:
    """An event's times, on its own clock."""

    def __init__(self, state: Mapping[str, Any], viewer: datetime.tzinfo, series: _Event | None = None) -> None:
        self._state = state
        self._viewer = viewer
        self.all_day = state.get("all_day") is True
        start, end = _moment(state.get("start")), _moment(state.get("end"))
        self._zone = _clock(state, start or end, self.all_day)
        self.start: datetime.datetime | None = None  # the reading of its clock
        if start is None and end is not None:
            start = end  # a task: all that is known is when it is due
        if start is not None and datetime.datetime.min + 2 * _DAY < start.replace(tzinfo=None) < _LAST:
            self.start = self._reading(start)
        self.length: datetime.timedelta = (
            self._length(end) if end is not None else series.length if series else self._length(None)
        )
        # So that no sum of it is past the year 9999; no span of days that is looked at is as long.
        self.bounded = min(self.length, 400 * _DAY)
        self.rule = state["recurrence"] if isinstance(state.get("recurrence"), str) else ""
        self.extra = [m for m in map(self._reading, _moments(state.get("rdates"))) if m < _LAST]

    def _reading(self, moment: datetime.datetime) -> datetime.datetime:
        if moment.tzinfo is None:
            return moment
        if self.all_day or self._zone.name == FLOATING_ZONE.name:
            return moment.replace(tzinfo=None)
        return self._zone.convert(moment).replace(tzinfo=None)

    def aware(self, moment: datetime.datetime) -> datetime.datetime:
        """A time as it can be compared with others: a reading of this clock gets its offset."""
        if self.all_day:
            return moment.replace(tzinfo=UTC)
        return moment if moment.tzinfo is not None else self._zone.aware(moment)

    def _length(self, end: datetime.datetime | None) -> datetime.timedelta:
        usual = _DAY if self.all_day and self._state.get("kind") != "task" else _ZERO
        if end is None or self.start is None:
            return usual
        length = self._reading(end) - self.start
        return length if length > _ZERO else usual

    def starts(self, low: datetime.datetime, high: datetime.datetime, budget: Budget) -> set[datetime.datetime]:
        """The readings of its clock at which it begins, a day and its length around what is asked for."""
        assert self.start is not None  # noqa: S101 - checked by the only caller
        found = {self.start, *self.extra}
        if not self.rule:
            return found
        if budget.days <= 0:
            budget.incomplete += 1
            return found
        low = low - _DAY - self.bounded if low.year > 2 else low
        until = self._until()
        if until is not None and until < low:
            return found
        expansion = expand(self.rule, self.start, low, high + _DAY if high < _LAST else high, until)
        budget.days -= expansion.days
        budget.incomplete += not expansion.complete
        return found | set(expansion.starts)

    def _until(self) -> datetime.datetime | None:
        """The last moment of the rule by this clock; the end of the day where it names a day."""
        text = rule_parts(self.rule).get("UNTIL", "")
        if not text:
            return None
        wall = parse_wall_time(text)
        if wall is None:
            day = parse_date(text)
            return datetime.datetime.combine(day, datetime.time.max) if day is not None else None
        if text[-1:] in "Zz" and not self.all_day:
            moment = parse_timestamp(text)
            return self._reading(moment) if moment is not None else None
        return datetime.datetime.combine(wall.date(), datetime.time.max) if self.all_day else wall

    def occurrence(self, start: datetime.datetime, of_series: bool) -> Occurrence:
        """The occurrence that begins at this reading of its clock, for whoever looks."""
        shown, end = start, start + min(self.length, datetime.datetime.max - start)
        if not self.all_day and self._zone.name != FLOATING_ZONE.name:
            try:
                shown = self._zone.aware(start).astimezone(self._viewer).replace(tzinfo=None)
                end = self._zone.aware(end).astimezone(self._viewer).replace(tzinfo=None)
            except OverflowError:  # within a day of year 1 or 9999
                pass
        return Occurrence(shown, max(shown, end), self.all_day, self.aware(start) if of_series else None, self._state)


def _clock(state: Mapping[str, Any], leading: datetime.datetime | None, all_day: bool) -> Zone:
    """The clock of an event, as `ical_out` has it."""
    if all_day:
        return UTC_ZONE
    name, rules = (
        state.get(key) if isinstance(state.get(key), str) else "" for key in ("time_zone", "time_zone_rules")
    )
    if not name and leading is not None:
        if leading.tzinfo is None:
            return FLOATING_ZONE
        name = getattr(leading.tzinfo, "key", "")
    zone = Zone(name or "", rules or "")
    return zone if zone.name != "UTC" and zone.is_known else UTC_ZONE
