"""A rule of recurrence in words: "every 2 weeks on Monday and Friday, until 3 May 2025". Pure."""

from __future__ import annotations

from atop.browser.prose import long_day
from atop.pim.times import parse_date

_UNITS = {
    "YEARLY": "year",
    "MONTHLY": "month",
    "WEEKLY": "week",
    "DAILY": "day",
    "HOURLY": "hour",
    "MINUTELY": "minute",
    "SECONDLY": "second",
}
_DAYS = {
    "MO": "Monday",
    "TU": "Tuesday",
    "WE": "Wednesday",
    "TH": "Thursday",
    "FR": "Friday",
    "SA": "Saturday",
    "SU": "Sunday",
}
_MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
_PLACES = {"1": "first", "2": "second", "3": "third", "4": "fourth", "5": "fifth", "-1": "last", "-2": "last but one"}
# What is said in words; a rule with any other part is shown as it is written.
_SAID = {"FREQ", "INTERVAL", "BYDAY", "BYMONTH", "BYMONTHDAY", "UNTIL", "COUNT", "WKST"}


def rule_in_words(rule: str) -> str:
    """The rule in words, or as it is written where there are none for it."""
    parts = dict(part.split("=", 1) for part in rule.upper().split(";") if "=" in part)
    unit = _UNITS.get(parts.get("FREQ", ""))
    interval = parts.get("INTERVAL", "1")
    if unit is None or parts.keys() - _SAID or not (interval.isdigit() and len(interval) < 6):
        return rule
    text = f"every {unit}" if interval == "1" else f"every {interval} {unit}s"
    try:
        if "BYMONTHDAY" in parts:
            text += " on " + _listed([_month_day(day) for day in parts["BYMONTHDAY"].split(",")])
        if "BYDAY" in parts:
            text += " on " + _listed([_weekday(day) for day in parts["BYDAY"].split(",")])
        if "BYMONTH" in parts:
            text += " in " + _listed([_MONTHS[int(month) - 1] for month in parts["BYMONTH"].split(",")])
    except (KeyError, ValueError, IndexError):
        return rule
    if "COUNT" in parts:
        text += f", {parts['COUNT']} times"
    until = parse_date(f"{parts.get('UNTIL', '')[:8]}")
    return f"{text}, until {long_day(until)}" if until is not None else text


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _weekday(text: str) -> str:
    name, place = _DAYS[text[-2:]], text[:-2].lstrip("+")
    return f"the {_PLACES[place]} {name}" if place else name


def _month_day(text: str) -> str:
    number = int(text)
    if number < 0:
        return f"the {_PLACES[text]} day"
    ending = "th" if 10 < number < 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"the {number}{ending}"
