"""Dates and times as vCard and iCalendar write them (RFC 6350 section 4.3, RFC 5545 section 3.3).

Pure: no clock is read, no zone is looked up here. What is no date gives None, never an error.
"""

from __future__ import annotations

import datetime
import re

UTC = datetime.UTC

_DATE = re.compile(r"(\d{4})-?(\d\d)-?(\d\d)(?=[T ]|\Z)")
_TIMESTAMP = re.compile(
    r"(\d{4})-?(\d\d)-?(\d\d)[T ]?(\d\d):?(\d\d)(?::?(\d\d)(?:[.,](\d{1,9}))?)?(Z|[+-]\d\d(?::?\d\d)?)?\Z",
    re.IGNORECASE,
)
_DURATION = re.compile(
    r"([+-]?)P(?:(\d{1,6})W)?(?:(\d{1,7})D)?(?:T(?:(\d{1,8})H)?(?:(\d{1,9})M)?(?:(\d{1,10})S)?)?\Z", re.IGNORECASE
)
_OFFSET = re.compile(r"([+-])(\d\d):?(\d\d):?(\d\d)?\Z")


def parse_date(text: str) -> datetime.date | None:
    """A complete date; the time of day that some programs write after it is ignored."""
    match = _DATE.match(text)
    if match is None:
        return None
    try:
        return datetime.date(int(match[1]), int(match[2]), int(match[3]))
    except ValueError:  # the 30th of February
        return None


def parse_wall_time(text: str) -> datetime.datetime | None:
    """`20240131T090000`, with or without `Z`, as a naive time on some clock. A leap second is the one before."""
    if len(text) < 13:
        return None
    match = _TIMESTAMP.match(text)
    if match is None:
        return None
    fraction = int((match[7] or "0").ljust(6, "0")[:6])
    year, month, day, hour, minute, second = (int(match[i] or 0) for i in range(1, 7))
    try:
        return datetime.datetime(year, month, day, hour, minute, min(second, 59), fraction)
    except ValueError:
        return None


def parse_timestamp(text: str) -> datetime.datetime | None:
    """An instant; one without an offset is taken for UTC, which is what RFC 6350 and RFC 5545 ask of it."""
    wall = parse_wall_time(text)
    if wall is None:
        day = parse_date(text)
        return None if day is None else datetime.datetime(day.year, day.month, day.day, tzinfo=UTC)
    offset = _TIMESTAMP.match(text)[8]  # type: ignore[index]  # it matched a moment ago
    delta = datetime.timedelta() if offset in (None, "Z", "z") else parse_offset(offset.ljust(5, "0"))
    return None if delta is None else wall.replace(tzinfo=datetime.timezone(delta))


def in_utc(moment: datetime.datetime) -> datetime.datetime:
    """An aware time in UTC; within a day of the years 1 and 9999, where it may have none, its reading."""
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        return moment.replace(tzinfo=UTC)


def parse_offset(text: str) -> datetime.timedelta | None:
    """`+0100`, `-05:30` or `+013020`: less than a day from UTC."""
    match = _OFFSET.match(text)
    if match is None:
        return None
    delta = datetime.timedelta(hours=int(match[2]), minutes=int(match[3]), seconds=int(match[4] or 0))
    if delta >= datetime.timedelta(days=1):
        return None
    return -delta if match[1] == "-" else delta


def parse_duration(text: str) -> datetime.timedelta | None:
    """`P1DT2H` or `-PT15M`."""
    match = _DURATION.match(text.strip())
    if match is None or not any(match[i] for i in range(2, 7)):
        return None
    weeks, days, hours, minutes, seconds = (int(match[i] or 0) for i in range(2, 7))
    try:
        delta = datetime.timedelta(weeks=weeks, days=days, hours=hours, minutes=minutes, seconds=seconds)
    except OverflowError:
        return None
    return -delta if match[1] == "-" else delta


def format_duration(delta: datetime.timedelta) -> str:
    """The shortest form of a duration, to the second."""
    total = abs(delta)
    hours, rest = divmod(total.seconds, 3600)
    minutes, seconds = divmod(rest, 60)
    time = "".join(f"{n}{unit}" for n, unit in ((hours, "H"), (minutes, "M"), (seconds, "S")) if n)
    text = "P" + (f"{total.days}D" if total.days else "") + (f"T{time}" if time else "")
    return ("-" if delta < datetime.timedelta() else "") + (text if len(text) > 1 else "PT0S")


def format_wall_time(moment: datetime.datetime) -> str:
    """`20240131T090000`: the clock's reading, whatever the zone."""
    return f"{moment.year:04}{moment.month:02}{moment.day:02}T{moment.hour:02}{moment.minute:02}{moment.second:02}"


def format_utc(moment: datetime.datetime) -> str:
    """`20240131T080000Z`: the instant; a naive time is taken for UTC."""
    return format_wall_time(moment if moment.tzinfo is None else in_utc(moment)) + "Z"


def format_date(day: datetime.date) -> str:
    """`20240131`."""
    return f"{day.year:04}{day.month:02}{day.day:02}"


def format_offset(delta: datetime.timedelta) -> str:
    """`+0100`, with seconds where there are any."""
    seconds = int(abs(delta).total_seconds())
    text = f"{'-' if delta < datetime.timedelta() else '+'}{seconds // 3600:02}{seconds // 60 % 60:02}"
    return text + (f"{seconds % 60:02}" if seconds % 60 else "")
