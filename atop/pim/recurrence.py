"""Rules of recurrence (RRULE of RFC 5545), expanded in bounded time.

The rule itself is worked out by `dateutil`; here is what that leaves open. It starts shortly before the time that is
asked for, not at an event's beginning a century ago; and whatever a rule says, it is followed for `MAX_DAYS` days at
the most, and gives `MAX_OCCURRENCES` occurrences. Pure; times are readings of one clock, without an offset.
"""

from __future__ import annotations

import datetime
import functools
from collections.abc import Mapping
from itertools import islice
from typing import Any, NamedTuple

from dateutil import rrule

# Days that one rule is followed through, and occurrences that it gives, in one look. A day counts for each time that
# the rule looks at it: a yearly rule looks at all days of each year.
MAX_DAYS = 40_000
MAX_OCCURRENCES = 500
MAX_INTERVAL = 100_000
MAX_RULE = 2_000  # characters

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


class Expansion(NamedTuple):
    """What a rule gives in a span of time."""

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


def rule_parts(rule: str) -> dict[str, str]:
    """The parts of a rule by name."""
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
    parts = rule_parts(rule)
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
def expand(
    rule: str,
    start: datetime.datetime,
    low: datetime.datetime,
    high: datetime.datetime,
    until: datetime.datetime | None,
) -> Expansion:
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
        return Expansion((), False, 1)
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
    return Expansion(tuple(islice(found, MAX_OCCURRENCES)), complete, pace.steps * weight + 1)


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
