"""The calendar: events by month, by week and by day, on the clock of whoever looks, and what each of them says.

The clock is that of the browser, which tells it in a cookie, or that of this machine. Weeks begin on Monday.
"""

from __future__ import annotations

import datetime
import re
import zlib
import zoneinfo
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from dateutil import tz
from starlette.responses import RedirectResponse, Response

from atop import Item
from atop.browser import attributes as attr
from atop.browser.agenda import agenda_of
from atop.browser.layout import columns, lanes
from atop.browser.lists import pool_named
from atop.browser.prose import attachment, long_day, pieces
from atop.browser.rule_words import rule_in_words
from atop.browser.views import Call, Entry, Refusal, View, page
from atop.pim.occurrences import Budget, Occurrence, occurrences
from atop.pim.zones import known_zones

POOL = "events"
COOKIE = "atop_zone"
# Lines of a day in the month view; what is more is on the page of the day.
LINES = 5
FIRST_YEAR, LAST_YEAR = 2, 9_997

_DAY = datetime.timedelta(days=1)
_DATE = re.compile(r"(\d{4})-(\d\d)(?:-(\d\d))?")
_TINTS = 8


def start(call: Call) -> Response:
    """GET /calendar: the present month."""
    today = datetime.datetime.now(_zone(call)[1]).date()
    return RedirectResponse(f"{call.request.scope.get('root_path', '')}/calendar/month/{today:%Y-%m}", 303)


def show_month(call: Call) -> Response:
    """GET /calendar/month/2025-05."""
    day = _date(call).replace(day=1)
    following = (day + 32 * _DAY).replace(day=1)
    first = day - day.weekday() * _DAY
    last = following + (-following.weekday() % 7) * _DAY
    links = {"previous": f"/calendar/month/{day - _DAY:%Y-%m}", "next": f"/calendar/month/{following:%Y-%m}"}
    return _show(call, "month", day, first, last, f"{day:%B} {day.year}", links)


def show_week(call: Call) -> Response:
    """GET /calendar/week/2025-05-12: the week that the day is in."""
    day = _date(call)
    first = day - day.weekday() * _DAY
    last, end = first + 7 * _DAY, first + 6 * _DAY
    links = {"previous": f"/calendar/week/{first - 7 * _DAY}", "next": f"/calendar/week/{last}"}
    return _show(call, "week", day, first, last, f"{_short(first, end)} – {long_day(end)}", links)


def show_day(call: Call) -> Response:
    """GET /calendar/day/2025-05-12."""
    day = _date(call)
    links = {"previous": f"/calendar/day/{day - _DAY}", "next": f"/calendar/day/{day + _DAY}"}
    return _show(call, "day", day, day, day + _DAY, f"{day:%A} {long_day(day)}", links)


def show_event(call: Call) -> Response:
    """GET /calendar/event/ID?at=...: what an event says, of the occurrence that replaces or begins at that moment."""
    item = call.store.get(call.path["item_id"])
    zone_name, zone = _zone(call)
    event = _details(item, call.text("at", 60), zone)
    part = call.text("part", 10)
    template = "calendar_event.html" if part == "pane" else "calendar_event_page.html"
    return call.page(template, event["title"], event=event, zone=zone_name)


def _short(first: datetime.date, end: datetime.date) -> str:
    if first.month == end.month:
        return str(first.day)
    return f"{first.day} {first:%B}" if first.year == end.year else long_day(first)


def _zone(call: Call) -> tuple[str, datetime.tzinfo]:
    """The clock to show times by: a name, empty for this machine's, and what it is."""
    name = unquote(call.request.cookies.get(COOKIE, ""))[:100]
    if name in known_zones():
        return name, zoneinfo.ZoneInfo(name)
    return "", tz.tzlocal()


def _date(call: Call) -> datetime.date:
    match = _DATE.fullmatch(call.path["date"])
    try:
        if match is None:
            raise ValueError
        day = datetime.date(int(match[1]), int(match[2]), int(match[3] or 1))
    except ValueError:
        raise Refusal(404, "This is no date: it should look like 2025-05 or 2025-05-12.") from None
    if not FIRST_YEAR <= day.year <= LAST_YEAR:
        raise Refusal(404, f"The calendar goes from the year {FIRST_YEAR} to {LAST_YEAR}.")
    return day


# ------------------------------------------------------------------------------------------- days


def _show(
    call: Call,
    view: str,
    day: datetime.date,
    first: datetime.date,
    last: datetime.date,
    title: str,
    links: dict[str, str],
) -> Response:
    pool = pool_named(call, POOL)
    zone_name, zone = _zone(call)
    budget = Budget()
    found = agenda_of(call.store).between(pool, first, last, zone, budget) if pool is not None else []
    now = datetime.datetime.now(zone)
    today = now.date()
    anchor = today if first <= today < last and (view != "month" or today.month == day.month) else day
    context: dict[str, Any] = {
        "view": view,
        "heading": title,
        "links": {**links, "today": f"/calendar/{view}/{today:%Y-%m}" + (f"-{today:%d}" if view != "month" else "")},
        "views": [
            ("Month", f"/calendar/month/{anchor:%Y-%m}", view == "month"),
            ("Week", f"/calendar/week/{anchor}", view == "week"),
            ("Day", f"/calendar/day/{anchor}", view == "day"),
        ],
        "weeks": _weeks(found, first, last, today, day, LINES if view == "month" else 1_000),
        "view_day": day.isoformat(),
        "zone": zone_name,
        "now": now.hour * 60 + now.minute if first <= today < last else None,
        "incomplete": budget.incomplete,
        "is_empty": pool is None or not len(pool),
    }
    return call.page("calendar.html", title, **context)


def _weeks(
    found: list[tuple[Item, Occurrence]],
    first: datetime.date,
    last: datetime.date,
    today: datetime.date,
    shown: datetime.date,
    most: int,
) -> list[list[dict[str, Any]]]:
    """The days, week by week, with what takes place in each."""
    weeks = []
    while first < last:
        end = min(first + 7 * _DAY, last)
        weeks.append(_week(found, first, end, today, shown, most))
        first = end
    return weeks


def _week(
    found: list[tuple[Item, Occurrence]],
    first: datetime.date,
    last: datetime.date,
    today: datetime.date,
    shown: datetime.date,
    most: int,
) -> list[dict[str, Any]]:
    count = (last - first).days
    spans: list[tuple[int, int, dict[str, Any]]] = []  # what lies over whole days: its first day, the one after it
    timed: list[list[dict[str, Any]]] = [[] for _ in range(count)]
    for item, occurrence in found:
        begin, end = _days(occurrence, first)
        if end <= 0 or begin >= count:
            continue
        event = _event(item, occurrence)
        if occurrence.all_day or end - begin > 2:
            spans.append((begin, end, event))
            continue
        for place in range(max(0, begin), min(count, end)):
            day_start = datetime.datetime.combine(first + place * _DAY, datetime.time())
            timed[place].append(_part_of_day(event, occurrence, day_start))
    placed = lanes([(begin, end) for begin, end, _ in spans])
    days = []
    for place in range(count):
        day = first + place * _DAY
        bars = {
            lane: {**event, "begins": begin == place, "ends": end == place + 1, "named": place in (begin, 0)}
            for (begin, end, event), lane in zip(spans, placed, strict=True)
            if begin <= place < end
        }
        height = max(bars, default=-1) + 1
        lines: list[dict[str, Any] | None] = [bars.get(lane) for lane in range(height)]
        columns(timed[place])
        hidden = sum(line is not None for line in lines[most:]) + max(0, len(timed[place]) - max(0, most - height))
        if hidden:  # the last line says how many
            lines = lines[: most - 1]
            kept = timed[place][: max(0, most - 1 - len(lines))]
            hidden = len(bars) - sum(line is not None for line in lines) + len(timed[place]) - len(kept)
        else:
            kept = timed[place]
        days.append(
            {
                "date": day.isoformat(),
                "number": day.day,
                "name": f"{day:%A} {day.day} {day:%B}",
                "weekday": f"{day:%a}",
                "month": f"{day:%b}",
                "today": day == today,
                "outside": day.month != shown.month,
                "lines": lines,
                "timed": kept,
                "hidden": hidden,
                "count": len(bars) + len(timed[place]),
            }
        )
    return days


def _days(occurrence: Occurrence, first: datetime.date) -> tuple[int, int]:
    """The days that an occurrence touches, counted from `first`: its first, and the one after its last."""
    begin = (occurrence.start.date() - first).days
    last = occurrence.end
    if last > occurrence.start and last.time() == datetime.time():
        last -= _DAY
    return begin, max(begin, (last.date() - first).days) + 1


def _event(item: Item, occurrence: Occurrence) -> dict[str, Any]:
    """An occurrence as a line of a day."""
    state = occurrence.state
    series = occurrence.replaces
    at = (series or occurrence.start).isoformat()
    hue = attr.line(state.get("calendar")) + "".join(attr.lines(state.get("categories"), 1))
    return {
        "path": f"/calendar/event/{item.item_id}",
        "at": at,
        "id": f"{item.item_id}",
        "title": attr.line(state.get("summary")) or "(no title)",
        "place": attr.line(state.get("location"), 100),
        "time": "" if occurrence.all_day else f"{occurrence.start:%H:%M}",
        "until": "" if occurrence.all_day or occurrence.end == occurrence.start else f"{occurrence.end:%H:%M}",
        "all_day": occurrence.all_day,
        "task": state.get("kind") == "task",
        "done": state.get("status") == "COMPLETED",
        "cancelled": state.get("status") == "CANCELLED",
        "tentative": state.get("status") == "TENTATIVE" or state.get("transparent") is True,
        "series": series is not None,
        "tint": zlib.crc32(hue.encode("utf-8", "replace")) % _TINTS,
        "begins": True,
        "ends": True,
        "named": True,
    }


def _part_of_day(event: dict[str, Any], occurrence: Occurrence, day: datetime.datetime) -> dict[str, Any]:
    """The part of an occurrence that lies in one day, in minutes from its midnight."""
    begin = max(0, int((occurrence.start - day).total_seconds() // 60))
    end = min(1_440, int((occurrence.end - day).total_seconds() // 60))
    before, after = occurrence.start < day, occurrence.end > day + _DAY
    return {**event, "begin": begin, "end": max(end, begin), "begins": not before, "ends": not after}


# ------------------------------------------------------------------------------------------- one event


def _details(item: Item, at: str, zone: datetime.tzinfo) -> dict[str, Any]:
    occurrence = _occurrence_at(item, at, zone)
    state: Mapping[str, Any] = occurrence.state if occurrence is not None else item.attributes
    attendees = [_attendee(entry) for entry in attr.entries(state.get("attendees"))]
    url = attr.line(state.get("url"), 2_000)
    rule = attr.line(attr.get(item, "recurrence"), 2_000)
    return {
        "id": str(item.item_id),
        "title": attr.line(state.get("summary")) or "(no title)",
        "when": _when(occurrence) if occurrence is not None else "",
        "zone": attr.line(state.get("time_zone")),
        "task": state.get("kind") == "task",
        "rule": rule_in_words(rule) if rule else "",
        "changed": occurrence is not None and occurrence.state.get("recurrence_id") is not None and bool(rule),
        "place": attr.line(state.get("location")),
        "status": attr.line(state.get("status")).capitalize(),
        "description": pieces(attr.text(state.get("description"), 50_000)),
        "link": pieces(url),
        "organizer": attr.line(state.get("organizer")),
        "attendees": [entry for entry in attendees if entry[0]],
        "categories": attr.lines(state.get("categories")),
        "calendar": attr.line(state.get("calendar")),
        "alarms": [
            text for entry in attr.entries(state.get("alarms"), 10) if (text := attr.line(entry.get("trigger")))
        ],
        "attachments": [attachment(item, file) for file in attr.files(attr.get(item, "attachments"))],
    }


def _occurrence_at(item: Item, at: str, zone: datetime.tzinfo) -> Occurrence | None:
    """The occurrence that a line of the calendar stands for; the first one where it is not told."""
    state = item.attributes
    try:
        moment = datetime.datetime.fromisoformat(at)
    except ValueError:
        moment = next(
            (value for key in ("start", "end") if isinstance(value := state.get(key), datetime.datetime)), None
        )  # type: ignore[assignment]  # None says that there is none
    if moment is None or not FIRST_YEAR <= moment.year <= LAST_YEAR:
        return None
    day = moment.date()
    found = occurrences(state, day - 2 * _DAY, day + 3 * _DAY, zone)
    # An occurrence that was moved is looked for around the place where it is now.
    for override in attr.entries(state.get("overrides"), 10_000):
        start = override.get("start")
        if override.get("recurrence_id") == moment and isinstance(start, datetime.datetime):
            if FIRST_YEAR <= start.year <= LAST_YEAR:
                found = occurrences(state, start.date() - 2 * _DAY, start.date() + 3 * _DAY, zone)
            break
    same = [one for one in found if moment in (one.replaces, one.start)]
    return next(iter(same or found), None)


def _when(occurrence: Occurrence) -> str:
    """`Monday 12 May 2025, 09:00 – 10:00`."""
    begin, end = occurrence.start, occurrence.end
    if occurrence.all_day:
        last = max(begin, end - _DAY)
        text = f"{begin:%A} {long_day(begin)}"
        return text if last.date() == begin.date() else f"{text} – {last:%A} {long_day(last)}"
    text = f"{begin:%A} {long_day(begin)}, {begin:%H:%M}"
    if end == begin:
        return text
    return f"{text} – {end:%H:%M}" if end.date() == begin.date() else f"{text} – {end:%A} {long_day(end)}, {end:%H:%M}"


def _attendee(entry: Mapping[str, Any]) -> tuple[str, str]:
    """Who, and what they answered."""
    parameters = entry.get("parameters")
    answer = attr.lines(parameters.get("PARTSTAT"), 1) if isinstance(parameters, Mapping) else []
    who = attr.line(entry.get("name")) or attr.line(entry.get("address"))
    return who, _ANSWERS.get(answer[0].upper(), "") if answer else ""


_ANSWERS = {"ACCEPTED": "accepted", "DECLINED": "declined", "TENTATIVE": "perhaps", "NEEDS-ACTION": "no answer yet"}

VIEW = View(
    routes=[
        page("/calendar", start),
        page("/calendar/month/{date}", show_month),
        page("/calendar/week/{date}", show_week),
        page("/calendar/day/{date}", show_day),
        page("/calendar/event/{item_id:int}", show_event),
    ],
    entries=[Entry("Calendar", "/calendar", "calendar", pool=POOL)],
)
