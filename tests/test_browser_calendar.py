"""The calendar: what stands where, and that no event, whatever is in it, breaks it."""

from __future__ import annotations

import contextlib
import datetime
import itertools
import re
import zoneinfo
from typing import Any

import pytest
from browsing import Served
from hypothesis import given, settings
from hypothesis import strategies as st
from test_browser_views import ODD, SCRIPT, texts

from atop import Item, Store, UnstorableValue
from atop.browser.agenda import agenda_of
from atop.browser.layout import columns, lanes
from atop.browser.rule_words import rule_in_words
from atop.pim import Event, open_pool
from atop.pim.occurrences import Budget

UTC = datetime.UTC
BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
NAMES = (
    "summary start end all_day time_zone time_zone_rules duration location description url recurrence exdates rdates "
    "overrides status organizer attendees alarms categories calendar attachments kind"
)
VIEWS = ("/calendar/month/2025-05", "/calendar/week/2025-05-14", "/calendar/day/2025-05-14")


def at(text: str, zone: datetime.tzinfo = UTC) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text).replace(tzinfo=zone)


def add(store: Store, summary: str, start: str, hours: float = 1, **more: Any) -> Event:
    begin = at(start)
    with store.transaction():
        event = Event(store, summary=summary, start=begin, end=begin + datetime.timedelta(hours=hours), **more)
        open_pool(store, "event").add(event)
    return event


def titles(served: Served, path: str) -> list[str]:
    return re.findall(r'class="title[^"]*" dir="auto">([^<]*)<|<b dir="auto">([^<]*)</b>', texts(served, path))  # type: ignore[return-value]


def shown(served: Served, path: str) -> list[str]:
    return ["".join(pair) for pair in titles(served, path)]


@pytest.fixture
def utc(served: Served) -> Served:
    served.client.cookies.set("atop_zone", "UTC")
    return served


def test_each_view_shows_what_takes_place(utc: Served) -> None:
    store = utc.store
    add(store, "Lunch", "2025-05-14T12:00")
    add(store, "Standup", "2024-01-03T09:00", recurrence="FREQ=WEEKLY")
    add(store, "Other week", "2025-05-21T12:00")
    add(store, "Birthday", "1990-05-14T00:00", 24, all_day=True, recurrence="FREQ=YEARLY")
    add(store, "Trip", "2025-05-10T00:00", 24 * 8, all_day=True)
    assert shown(utc, "/calendar/day/2025-05-14") == ["Trip", "Birthday", "Standup", "Lunch"]
    week = shown(utc, "/calendar/week/2025-05-14")
    assert [week.count(title) for title in ("Trip", "Birthday", "Standup", "Lunch", "Other week")] == [6, 1, 1, 1, 0]
    month = shown(utc, "/calendar/month/2025-05")
    assert [month.count(title) for title in ("Trip", "Birthday", "Standup", "Lunch", "Other week")] == [8, 1, 5, 1, 1]


def test_times_are_of_the_clock_that_the_browser_has(served: Served) -> None:
    add(served.store, "Late", "2025-05-14T22:30")
    for zone, day in (("UTC", "2025-05-14"), ("Europe/Berlin", "2025-05-15")):
        served.client.cookies.set("atop_zone", zone)
        assert shown(served, f"/calendar/day/{day}") == ["Late"]
        served.client.cookies.delete("atop_zone")
    served.client.cookies.set("atop_zone", "../../etc/passwd")
    assert "Late" in texts(served, "/calendar/month/2025-05")


def test_a_day_with_more_than_fits_says_how_much_more(utc: Served) -> None:
    for number in range(9):
        add(utc.store, f"Event {number}", f"2025-05-14T{number + 8:02}:00")
    month = texts(utc, "/calendar/month/2025-05")
    assert month.count("Event ") == 4
    assert ">5 more</a>" in month
    assert len(shown(utc, "/calendar/day/2025-05-14")) == 9


def test_an_event_says_what_it_is_at_each_of_its_times(utc: Served) -> None:
    moved = {
        "recurrence_id": at("2025-05-14T09:00"),
        "start": at("2025-06-20T15:00"),
        "summary": "Moved",
        "location": "Hall",
    }
    event = add(utc.store, "Series", "2025-05-07T09:00", recurrence="FREQ=WEEKLY;BYDAY=WE", overrides=[moved])
    assert "Series" not in texts(utc, "/calendar/day/2025-05-14")
    day = texts(utc, "/calendar/day/2025-06-20")
    path = re.search(r'href="(/calendar/event/[^"]+)"', day)
    assert path is not None
    card = texts(utc, path[1].replace("&amp;", "&"))
    for text in (
        "Moved",
        "Hall",
        "every week on Wednesday",
        "Friday 20 June 2025, 15:00 – 16:00",
        "this time is another",
    ):
        assert text in card
    assert "Wednesday 7 May 2025, 09:00" in texts(utc, f"/calendar/event/{event.item_id}")


def test_the_agenda_follows_what_is_committed(store: Store) -> None:
    pool = open_pool(store, "event")

    def seen() -> list[str]:
        days = datetime.date(2025, 5, 1), datetime.date(2025, 6, 1)
        return [o.state["summary"] for _, o in agenda_of(store).between(pool, *days, UTC, Budget())]

    assert seen() == []
    single = add(store, "single", "2025-05-14T12:00")
    series = add(store, "series", "2025-05-20T12:00", recurrence="FREQ=YEARLY")
    assert seen() == ["single", "series"]
    single.end = at("2025-05-29T12:00")  # a long one now
    series.start = at("2025-05-02T12:00")
    assert seen() == ["series", "single"]
    single.end, series.recurrence = at("2025-05-14T13:00"), ""
    assert seen() == ["series", "single"]
    pool.remove(series)
    assert seen() == ["single"]
    single.delete()
    store.undo(next(store.history()))
    assert seen() == ["single"]
    single.delete()
    assert seen() == []


def test_events_with_anything_in_them_are_shown(utc: Served) -> None:
    pool = open_pool(utc.store, "event")
    events: list[Item] = [Item(utc.store)]
    pool.add(events[0])
    for number, value in enumerate(ODD.values()):
        event = add(utc.store, f"event {number}", "2025-05-14T12:00", recurrence="FREQ=DAILY")
        for name in NAMES.split():
            with contextlib.suppress(UnstorableValue):  # what is indexed has an order, so that it is no list
                setattr(event, name, value)
        event.start = event.start if number % 2 else at("2025-05-14T12:00")
        events.append(event)
        for name in NAMES.split()[3:]:
            other = add(utc.store, SCRIPT, "2025-05-14T12:00")
            with contextlib.suppress(UnstorableValue):
                setattr(other, name, value)
    page = texts(utc, *VIEWS)
    for event in events:
        page += texts(utc, f"/calendar/event/{event.item_id}", f"/calendar/event/{event.item_id}?part=pane&at=x")
    assert SCRIPT not in page
    assert "&lt;script&gt;" in page


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/calendar/month/2025-13", 404),
        ("/calendar/day/2025-02-30", 404),
        ("/calendar/day/0001-01-01", 404),
        ("/calendar/month/9999-12", 404),
        ("/calendar/month/9997-12", 200),
        ("/calendar/month/0002-01", 200),
        ("/calendar/week/x", 404),
        ("/calendar/event/99", 404),
        ("/calendar", 303),
    ],
)
def test_the_calendar_has_an_end(utc: Served, path: str, status: int) -> None:
    add(utc.store, "Series", "2025-05-07T09:00", recurrence="FREQ=DAILY")
    assert utc.client.get(path).status_code == status


def test_a_store_without_events_says_what_to_do(utc: Served) -> None:
    assert "atop import calendar.ics" in texts(utc, "/calendar/month/2025-05")


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(-3, 9), st.integers(1, 7)).map(lambda pair: (pair[0], pair[0] + pair[1])), max_size=12
    )
)
def test_nothing_in_a_lane_overlaps(spans: list[tuple[int, int]]) -> None:
    found = lanes(spans)
    for lane in set(found):
        inside = sorted(span for span, own in zip(spans, found, strict=True) if own == lane)
        assert all(before[1] <= after[0] for before, after in itertools.pairwise(inside))
    most = max((sum(a <= day < b for a, b in spans) for day in range(-3, 20)), default=0)
    assert len(set(found)) == most


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1400), st.integers(0, 300)), max_size=12))
def test_events_side_by_side_do_not_cover_each_other(pairs: list[tuple[int, int]]) -> None:
    events: list[dict[str, Any]] = [{"begin": begin, "end": begin + length} for begin, length in pairs]
    columns(events)
    for one in events:
        for other in events:
            if one is not other and one["begin"] <= other["begin"] < max(one["end"], one["begin"] + 30):
                assert (one["column"], one["columns"]) != (other["column"], other["columns"])
                assert one["columns"] == other["columns"]


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("FREQ=WEEKLY;INTERVAL=2;BYDAY=MO,FR", "every 2 weeks on Monday and Friday"),
        ("FREQ=MONTHLY;BYDAY=-1FR;COUNT=5", "every month on the last Friday, 5 times"),
        ("FREQ=YEARLY;BYMONTH=11;BYMONTHDAY=22", "every year on the 22nd in November"),
        ("FREQ=DAILY;UNTIL=20250503T000000Z", "every day, until 3 May 2025"),
        ("FREQ=YEARLY;BYWEEKNO=20", "FREQ=YEARLY;BYWEEKNO=20"),
        ("FREQ=MONTHLY;BYDAY=99XX", "FREQ=MONTHLY;BYDAY=99XX"),
        ("nonsense", "nonsense"),
    ],
)
def test_rules_are_said_in_words(rule: str, words: str) -> None:
    assert rule_in_words(rule) == words
