"""When an event takes place: its rules of recurrence expanded, for the days that somebody looks at.

RRULE, RDATE, EXDATE and overridden occurrences of RFC 5545, on the clock of the event, given on the clock of whoever
looks. The rule itself is worked out by `dateutil`, here is what that leaves open: it starts shortly before the days
that are asked for, not at an event's beginning a century ago, and it never takes long. Whatever a rule says, it is
followed for `MAX_DAYS` days at the most and gives `MAX_OCCURRENCES` occurrences; what that leaves out is said.

Pure: no clock is read and no store is needed. The attributes may be of any type; those that make no sense count as
missing.
"""

from __future__ import annotations

import datetime
import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

from dateutil import rrule

from atop.pim.times import UTC, parse_date, parse_timestamp, parse_wall_time
from atop.pim.zones import FLOATING_ZONE, UTC_ZONE, Zone

# Days that one rule is followed through, and occurrences that it gives, in one look. A day counts for each time that
# the rule looks at it: a yearly rule looks at all days of each year.
MAX_DAYS = 40_000
MAX_OCCURRENCES = 500
MAX_INTERVAL = 100_000
MAX_RULE = 2_000  # characters

_DAY = datetime.timedelta(days=1)
_ZERO = datetime.timedelta()
_LAST = datetime.datetime.max - 400 * _DAY

_FREQUENCIES = {
    "YEARLY": rrule.YEARLY,
    "MONTHLY": rrule.MONTHLY,
    "WEEKLY": rrule.WEEKLY,
    "DAILY": rrule.DAILY,
    "HOURLY": rrule.HOURLY,
    "MINUTELY": rrule.MINUTELY,
    "SECONDLY": rrule.SECONDLY,
}
# Days that each step of a rule looks at.
_DAYS_LOOKED_AT = {rrule.YEARLY: 366, rrule.MONTHLY: 31, rrule.WEEKLY: 7}
_SECONDS = {rrule.WEEKLY: 604_800, rrule.DAILY: 86_400, rrule.HOURLY: 3_600, rrule.MINUTELY: 60, rrule.SECONDLY: 1}
# Parts of a rule that are lists of numbers: the argument, and the smallest and largest of them.
_LISTS = {
    "BYMONTH": ("bymonth", 1, 12),
    "BYMONTHDAY": ("bymonthday", -31, 31),
    "BYYEARDAY": ("byyearday", -366, 366),
    "BYWEEKNO": ("byweekno", -53, 53),
    "BYSETPOS": ("bysetpos", -366, 366),
    "BYHOUR": ("byhour", 0, 23),
    "BYMINUTE": ("byminute", 0, 59),
    "BYSECOND": ("bysecond", 0, 59),
}
_DAY_NAMES = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")
_WEEKDAYS = dict(zip(_DAY_NAMES, (rrule.MO, rrule.TU, rrule.WE, rrule.TH, rrule.FR, rrule.SA, rrule.SU), strict=True))


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
    replaced = {event.aware(moment) for moment, _ in overrides}
    left_out = replaced | {event.aware(moment) for moment in _moments(state.get("exdates"))}
    found = [
        event.occurrence(start, bool(event.rule or overrides or event.extra))
        for start in event.starts(low, high, budget)
        if event.aware(start) not in left_out
    ]
    for moment, override in overrides:
        changed = _Event({**state, **_CLEARED, "start": moment, "end": None, **override}, zone, event)
        if changed.start is not None:
            found.append(changed.occurrence(changed.start, True)._replace(replaces=moment))
    return sorted((o for o in found if o.start < high and (o.end > low or o.start >= low)), key=_by_time)


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
        self.rule = state["recurrence"] if isinstance(state.get("recurrence"), str) else ""
        self.extra = [self._reading(moment) for moment in _moments(state.get("rdates"))]

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
        low = low - _DAY - min(self.length, 400 * _DAY) if low.year > 2 else low
        until = self._until()
        if until is not None and until < low:
            return found
        expansion = _expand(self.rule, self.start, low, high + _DAY if high < _LAST else high, until)
        budget.days -= expansion.days
        budget.incomplete += not expansion.complete
        return found | set(expansion.starts)

    def _until(self) -> datetime.datetime | None:
        """The last moment of the rule by this clock; the end of the day where it names a day."""
        text = _parts(self.rule).get("UNTIL", "")
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


# ------------------------------------------------------------------------------------------- the rule


class _Expansion(NamedTuple):
    starts: tuple[datetime.datetime, ...]
    complete: bool
    days: int  # that were looked at


class _Paced(int):
    """The interval of a rule. `dateutil` adds it once in each step, or more often; after so many it refuses.

    A rule that never matches anything (the 30th of February) makes `dateutil` go on to the year 9999, without giving
    control back.
    """

    steps = 0
    limit = 0

    def _count(self) -> None:
        self.steps += 1
        if self.steps > self.limit:
            raise _TooLongError

    def __radd__(self, other: int) -> int:
        self._count()
        return int(other) + int(self)

    def __mul__(self, other: int) -> int:
        self._count()
        return int(self) * int(other)

    __rmul__ = __mul__


class _TooLongError(Exception):
    pass


def _parts(rule: str) -> dict[str, str]:
    return dict(part.strip().split("=", 1) for part in rule[:MAX_RULE].upper().split(";") if "=" in part)


def _numbers(text: str, low: int, high: int) -> tuple[int, ...]:
    """The numbers of a list. Raises ValueError if one is none, or out of range; 0 is never meant where there is -1."""
    numbers = tuple(int(number) for number in text.split(","))
    if not all(low <= number <= high and (number or low == 0) for number in numbers):
        raise ValueError(text)
    return numbers


def _weekdays(text: str) -> tuple[Any, ...]:
    days = []
    for day in text.split(","):
        weekday, ordinal = _WEEKDAYS[day[-2:]], day[:-2]
        if ordinal:
            _numbers(ordinal, -53, 53)
        days.append(weekday(int(ordinal)) if ordinal else weekday)
    return tuple(days)


def _arguments(rule: str, start: datetime.datetime) -> dict[str, Any]:
    """A rule as `dateutil` takes it. Raises ValueError or KeyError where it is none."""
    parts = _parts(rule)
    arguments: dict[str, Any] = {
        "freq": _FREQUENCIES[parts["FREQ"]],
        "interval": _numbers(parts.get("INTERVAL", "1"), 1, MAX_INTERVAL)[0],
        "wkst": _WEEKDAYS[parts.get("WKST", "MO")],
    }
    arguments |= {name: _numbers(parts[key], low, high) for key, (name, low, high) in _LISTS.items() if key in parts}
    if "BYDAY" in parts:
        arguments["byweekday"] = _weekdays(parts["BYDAY"])
    if "COUNT" in parts:
        arguments["count"] = int(parts["COUNT"])
    if not arguments.keys() & {"byweekno", "byyearday", "bymonthday", "byweekday"}:  # these come from the start then
        if arguments["freq"] <= rrule.MONTHLY:
            arguments["bymonthday"] = (start.day,)
        if arguments["freq"] == rrule.YEARLY:
            arguments.setdefault("bymonth", (start.month,))
        if arguments["freq"] == rrule.WEEKLY:
            arguments["byweekday"] = (start.weekday(),)
    one_month = len(arguments.get("bymonth", ())) == 1 and not arguments.keys() & {"byweekno", "byyearday"}
    if arguments["freq"] == rrule.YEARLY and one_month:
        # The same rule, which looks at a twelfth of the days: within a month "yearly" and "monthly" agree.
        arguments["freq"] = rrule.MONTHLY
        arguments["interval"] *= 12
    return arguments


@functools.lru_cache(maxsize=20_000)
def _expand(
    rule: str,
    start: datetime.datetime,
    low: datetime.datetime,
    high: datetime.datetime,
    until: datetime.datetime | None,
) -> _Expansion:
    """The starts from `low` to `high` that a rule gives to a series which begins at `start`."""
    try:
        arguments = _arguments(rule, start)
        freq = arguments["freq"]
        weight = _DAYS_LOOKED_AT.get(freq, 1)
        pace = _Paced(arguments["interval"])
        pace.limit = MAX_DAYS // weight
        arguments["interval"] = pace
        begin = _in_month(start, arguments)
        if "count" not in arguments:
            begin = _shifted(begin, freq, int(pace), low)
        # The end of the rule is not given to dateutil, which warns where there is a count as well.
        times = iter(rrule.rrule(dtstart=begin, **arguments))
    except (ValueError, KeyError, OverflowError):
        return _Expansion((), False, 1)
    end = min(high, until) if until is not None else high
    found: list[datetime.datetime] = []
    complete = True
    try:
        for moment in times:
            if moment > end:
                break
            if moment >= low and moment >= start:
                found.append(moment)
                if len(found) > MAX_OCCURRENCES:
                    complete = False
                    break
    except _TooLongError:
        complete = False
    except (ValueError, OverflowError):  # past the year 9999
        pass
    return _Expansion(tuple(islice(found, MAX_OCCURRENCES)), complete, pace.steps * weight + 1)


def _in_month(start: datetime.datetime, arguments: Mapping[str, Any]) -> datetime.datetime:
    """Where the steps of a rule begin that `_arguments` has made monthly: in its month, not in that of the start."""
    months = arguments["interval"]
    if arguments["freq"] != rrule.MONTHLY or months % 12 or len(arguments.get("bymonth", ())) != 1:
        return start
    month = arguments["bymonth"][0]
    if month == start.month:
        return start
    return start.replace(year=start.year + (months // 12 if month < start.month else 0), month=month, day=1)


def _shifted(start: datetime.datetime, freq: int, interval: int, low: datetime.datetime) -> datetime.datetime:
    """A moment shortly before `low` from which the rule takes the same steps as from `start`."""
    if low <= start:
        return start
    if freq == rrule.YEARLY:
        steps = (low.year - start.year) // interval - 1
        return start.replace(year=start.year + steps * interval, month=1, day=1) if steps > 0 else start
    if freq == rrule.MONTHLY:
        months = (low.year - start.year) * 12 + low.month - start.month
        steps = months // interval - 1
        if steps <= 0:
            return start
        years, month = divmod(start.month - 1 + steps * interval, 12)
        return start.replace(year=start.year + years, month=month + 1, day=1)
    seconds = int((low - start).total_seconds())
    steps = seconds // (_SECONDS[freq] * interval) - 1
    return start + steps * datetime.timedelta(seconds=_SECONDS[freq] * interval) if steps > 0 else start
