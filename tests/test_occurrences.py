"""Recurring events, day by day: as RFC 5545 says, on the clock of whoever looks, and in bounded time."""

from __future__ import annotations

import datetime
import warnings
import zoneinfo

import pytest
from dateutil import rrule
from hypothesis import given, settings
from hypothesis import strategies as st

from atop.pim.occurrences import Budget, occurrences
from atop.pim.recurrence import MAX_OCCURRENCES, expand

UTC = datetime.UTC
BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
NEW_YORK = zoneinfo.ZoneInfo("America/New_York")


def event(start, rule="", hours=1, zone="America/New_York", **more):
    moment = datetime.datetime.fromisoformat(start).replace(tzinfo=zoneinfo.ZoneInfo(zone) if zone else UTC)
    fixed = moment.replace(tzinfo=datetime.timezone(moment.utcoffset()))
    end = fixed + datetime.timedelta(hours=hours)
    return {"start": fixed, "end": end, "recurrence": rule, "time_zone": zone, "summary": "x", **more}


def at(text, zone=NEW_YORK):
    return datetime.datetime.fromisoformat(text).replace(tzinfo=zone)


def seen(state, first, last, zone=NEW_YORK, budget=None):
    """The starts in a span of days, as text."""
    days = datetime.date.fromisoformat(first), datetime.date.fromisoformat(last)
    return [o.start.isoformat(" ", "minutes") for o in occurrences(state, *days, zone, budget)]


# Of RFC 5545, section 3.8.5.3: start, rule, span, and what falls into it.
EXAMPLES = {
    "daily for ten": ("1997-09-02T09:00", "FREQ=DAILY;COUNT=10", "1997-09-10", "1997-10-01", ["09-10", "09-11"]),
    "until": ("1997-09-02T09:00", "FREQ=DAILY;UNTIL=19971224T000000Z", "1997-12-22", "1998-02-01", ["12-22", "12-23"]),
    "every other day": ("1997-09-02T09:00", "FREQ=DAILY;INTERVAL=2", "2007-10-01", "2007-10-06", ["10-02", "10-04"]),
    "two days of other weeks": (
        "1997-09-02T09:00",
        "FREQ=WEEKLY;INTERVAL=2;WKST=SU;BYDAY=TU,TH",
        "1997-09-14",
        "1997-10-03",
        ["09-16", "09-18", "09-30", "10-02"],
    ),
    "first friday": ("1997-09-05T09:00", "FREQ=MONTHLY;BYDAY=1FR", "2026-01-01", "2026-03-01", ["01-02", "02-06"]),
    "last but one monday": (
        "1997-09-22T09:00",
        "FREQ=MONTHLY;COUNT=6;BYDAY=-2MO",
        "1997-12-01",
        "1998-12-01",
        ["12-22", "01-19", "02-16"],
    ),
    "third to the last day": (
        "1997-09-28T09:00",
        "FREQ=MONTHLY;BYMONTHDAY=-3",
        "1998-02-01",
        "1998-03-31",
        ["02-26", "03-29"],
    ),
    "the 31st": ("1997-01-31T09:00", "FREQ=MONTHLY", "1998-01-01", "1998-06-01", ["01-31", "03-31", "05-31"]),
    "june and july": ("1997-06-10T09:00", "FREQ=YEARLY;BYMONTH=6,7", "2001-01-01", "2001-12-31", ["06-10", "07-10"]),
    "day 200 of each third year": (
        "1997-01-01T09:00",
        "FREQ=YEARLY;INTERVAL=3;BYYEARDAY=1,100,200",
        "2003-02-01",
        "2003-12-01",
        ["04-10", "07-19"],
    ),
    "monday of week 20": (
        "1997-05-12T09:00",
        "FREQ=YEARLY;BYWEEKNO=20;BYDAY=MO",
        "1999-01-01",
        "1999-12-31",
        ["05-17"],
    ),
    "friday the 13th": (
        "1997-09-02T09:00",
        "FREQ=MONTHLY;BYDAY=FR;BYMONTHDAY=13",
        "1999-01-01",
        "2000-12-01",
        ["08-13", "10-13"],
    ),
    "election day": (
        "1996-11-05T09:00",
        "FREQ=YEARLY;INTERVAL=4;BYMONTH=11;BYDAY=TU;BYMONTHDAY=2,3,4,5,6,7,8",
        "2004-01-01",
        "2005-01-01",
        ["11-02"],
    ),
    "last work day": (
        "1997-09-29T09:00",
        "FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-1",
        "2026-05-01",
        "2026-06-01",
        ["05-29"],
    ),
    "leap day": ("2000-02-29T09:00", "FREQ=YEARLY", "2025-01-01", "2029-01-01", ["02-29"]),
    "another month than its start": (
        "2020-12-01T09:00",
        "FREQ=YEARLY;INTERVAL=2;BYMONTH=1;BYMONTHDAY=5",
        "2021-01-01",
        "2025-01-01",
        ["01-05", "01-05"],
    ),
    "in small letters": ("2020-12-01T09:00", "freq=daily;count=3", "2020-12-02", "2021-01-01", ["12-02", "12-03"]),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_rules_give_what_the_standard_says(name):
    start, rule, first, last, days = EXAMPLES[name]
    assert [text[5:10] for text in seen(event(start, rule), first, last)] == days


BY = st.fixed_dictionaries(
    {},
    optional={
        "BYMONTH": st.lists(st.integers(1, 12), min_size=1, max_size=3),
        "BYMONTHDAY": st.lists(st.integers(1, 31) | st.integers(-31, -1), min_size=1, max_size=3),
        "BYDAY": st.lists(st.sampled_from(["MO", "TU", "SA", "SU"]), min_size=1, max_size=3),
        "BYSETPOS": st.sampled_from([[1], [-1], [2]]),
        "BYHOUR": st.lists(st.integers(0, 23), min_size=1, max_size=2),
    },
)


@settings(deadline=None)  # a rule that finds nothing is followed for long
@given(
    freq=st.sampled_from(["YEARLY", "MONTHLY", "WEEKLY", "DAILY"]),
    interval=st.integers(1, 5),
    by=BY,
    count=st.none() | st.integers(1, 60),
    start=st.datetimes(datetime.datetime(1995, 1, 1), datetime.datetime(2004, 1, 1)),
    first=st.dates(datetime.date(1995, 1, 1), datetime.date(2012, 1, 1)),
)
def test_beginning_near_the_days_gives_what_beginning_at_the_start_gives(freq, interval, by, count, start, first):
    rule = f"FREQ={freq};INTERVAL={interval}"
    rule += "".join(f";{key}={','.join(map(str, values))}" for key, values in by.items())
    rule += f";COUNT={count}" if count else ""
    start = start.replace(microsecond=0)
    low = datetime.datetime.combine(first, datetime.time())
    high = low + datetime.timedelta(days=400)
    found = expand(rule, start, low, high, None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # A step of dateutil's that finds nothing for 8,000 years: the other side would not come back either.
        text = rule if count else f"{rule};UNTIL={high:%Y%m%dT%H%M%S}"
        expected = []
        if found.complete:
            expected = list(rrule.rrulestr(text, dtstart=start).between(low, high, inc=True))
    assert not found.complete or list(found.starts) == expected[:MAX_OCCURRENCES]


def test_a_weekly_meeting_stays_at_its_hour_when_the_clocks_change():
    meeting = event("2026-03-02T09:00", "FREQ=WEEKLY", zone="Europe/Berlin")
    assert seen(meeting, "2026-03-20", "2026-04-01", BERLIN) == ["2026-03-23 09:00", "2026-03-30 09:00"]
    assert seen(meeting, "2026-03-20", "2026-04-01", UTC) == ["2026-03-23 08:00", "2026-03-30 07:00"]
    assert seen(meeting, "2026-03-20", "2026-04-01") == ["2026-03-23 04:00", "2026-03-30 03:00"]


def test_a_time_that_the_clock_leaves_out_is_shown_as_it_passes():
    nightly = event("2026-03-28T02:30", "FREQ=DAILY;COUNT=3", zone="Europe/Berlin")
    assert seen(nightly, "2026-03-28", "2026-04-01", BERLIN) == [
        "2026-03-28 02:30",
        "2026-03-29 03:30",
        "2026-03-30 02:30",
    ]


def test_all_day_events_are_of_the_same_day_everywhere():
    day = datetime.datetime(2026, 7, 14, tzinfo=UTC)
    birthday = {"start": day, "end": day + datetime.timedelta(days=1), "all_day": True, "recurrence": "FREQ=YEARLY"}
    for zone in (UTC, zoneinfo.ZoneInfo("Pacific/Kiritimati"), zoneinfo.ZoneInfo("Pacific/Pago_Pago")):
        (found,) = occurrences(birthday, datetime.date(2031, 7, 1), datetime.date(2031, 8, 1), zone)
        assert found.start == datetime.datetime(2031, 7, 14)
        assert found.end == datetime.datetime(2031, 7, 15)
    assert seen(birthday, "2031-07-15", "2031-07-16") == []


def test_floating_times_are_the_same_on_each_clock():
    alarm = event("2026-01-01T07:00", "FREQ=DAILY", zone="UTC") | {"time_zone": "floating"}
    assert seen(alarm, "2026-02-01", "2026-02-02", BERLIN) == seen(alarm, "2026-02-01", "2026-02-02", NEW_YORK)


def test_a_zone_with_rules_of_its_own():
    rules = (
        "BEGIN:VTIMEZONE\nTZID:Harbour\nBEGIN:STANDARD\nDTSTART:19701025T030000\nRRULE:FREQ=YEARLY;BYMONTH=10;BYDAY=-1SU\n"
        "TZOFFSETFROM:+0200\nTZOFFSETTO:+0100\nEND:STANDARD\nBEGIN:DAYLIGHT\nDTSTART:19700329T020000\n"
        "RRULE:FREQ=YEARLY;BYMONTH=3;BYDAY=-1SU\nTZOFFSETFROM:+0100\nTZOFFSETTO:+0200\nEND:DAYLIGHT\nEND:VTIMEZONE"
    )
    state = event("2026-03-02T09:00", "FREQ=WEEKLY", zone="Europe/Berlin")
    state |= {"time_zone": "Harbour", "time_zone_rules": rules}
    assert seen(state, "2026-03-23", "2026-04-01", UTC) == ["2026-03-23 08:00", "2026-03-30 07:00"]


def test_events_over_several_days_are_found_in_the_middle():
    trip = event("2026-06-28T18:00", hours=24 * 9)
    (found,) = occurrences(trip, datetime.date(2026, 7, 1), datetime.date(2026, 7, 2), NEW_YORK)
    assert found.end == datetime.datetime(2026, 7, 7, 18)
    assert seen(trip, "2026-07-08", "2026-07-09") == [] == seen(trip, "2026-06-01", "2026-06-28")
    series = event("2026-01-30T18:00", "FREQ=MONTHLY;BYMONTHDAY=-1", hours=72)
    assert seen(series, "2026-07-02", "2026-07-03") == ["2026-06-30 18:00"]


def test_dates_left_out_added_and_replaced():
    state = event(
        "2026-05-04T09:00",
        "FREQ=WEEKLY",
        exdates=[at("2026-05-11T09:00").astimezone(UTC), "no date", None],
        rdates=[at("2026-05-13T15:00")],
        overrides=[
            {"recurrence_id": at("2026-05-18T09:00"), "start": at("2026-05-19T20:00"), "summary": "later"},
            {"recurrence_id": at("2026-06-15T09:00"), "start": at("2026-05-20T07:00"), "end": at("2026-05-20T10:00")},
            {"recurrence_id": at("2026-05-25T09:00"), "status": "CANCELLED"},
            {"summary": "of no date"},
            "no override",
        ],
    )
    found = occurrences(state, datetime.date(2026, 5, 1), datetime.date(2026, 6, 1), NEW_YORK)
    assert [o.start.isoformat(" ", "minutes") for o in found] == [
        *("2026-05-04 09:00", "2026-05-13 15:00", "2026-05-19 20:00", "2026-05-20 07:00", "2026-05-25 09:00")
    ]
    assert found[2].state["summary"] == "later"
    assert found[2].end == datetime.datetime(2026, 5, 19, 21)
    assert found[2].replaces == at("2026-05-18T09:00")
    assert found[3].end.hour == 10
    assert found[4].state["status"] == "CANCELLED"
    assert found[4].state["summary"] == "x"
    assert seen(state, "2026-06-15", "2026-06-16") == []  # it was moved to May


def test_a_task_stands_where_it_is_due():
    due = datetime.datetime(2026, 5, 5, tzinfo=UTC)
    assert seen({"kind": "task", "end": due, "all_day": True}, "2026-05-05", "2026-05-06") == ["2026-05-05 00:00"]


HOSTILE = {
    "each second": "FREQ=SECONDLY",
    "each second, never": "FREQ=SECONDLY;BYMONTH=2;BYMONTHDAY=30",
    "each minute, never": "FREQ=MINUTELY;BYSETPOS=99",
    "30 february": "FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30",
    "30 february by years": "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30",
    "30 february by weeks": "FREQ=WEEKLY;BYMONTH=2;BYMONTHDAY=30",
    "endless count": "FREQ=SECONDLY;COUNT=999999999999",
    "count of nothing": "FREQ=MONTHLY;BYDAY=5MO;BYMONTHDAY=1;COUNT=5",
    "interval 0": "FREQ=DAILY;INTERVAL=0",
    "interval of ages": "FREQ=DAILY;INTERVAL=99999999999999999999",
    "no such day": "FREQ=WEEKLY;BYDAY=XX",
    "no frequency": "BYDAY=MO",
    "no number": "FREQ=DAILY;COUNT=many",
    "another rule in it": "FREQ=DAILY\nEXRULE:FREQ=DAILY",
    "long": "FREQ=DAILY;BYMONTHDAY=" + ",".join(["1"] * 1_000_000),
    "byeaster": "FREQ=YEARLY;BYEASTER=0;BYDAY=999999MO",
    "leap second": "FREQ=MINUTELY;BYSECOND=60",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_no_rule_takes_long(name):
    budget = Budget()
    state = event("1970-01-01T00:00", HOSTILE[name])
    before = budget.days
    assert len(occurrences(state, datetime.date(2026, 5, 1), datetime.date(2026, 6, 1), UTC, budget)) <= MAX_OCCURRENCES
    assert before - budget.days <= 50_000  # days looked at: the measure of its time


def test_many_bad_rules_take_no_longer_than_a_few():
    budget = Budget()
    for number in range(200):
        state = event("1970-01-01T00:00", f"FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30;INTERVAL={number % 3 + 1}")
        occurrences(state, datetime.date(2026, 5, 1), datetime.date(2026, 6, 1), UTC, budget)
    assert budget.incomplete == 200
    assert budget.days > -50_000


ODD = [None, 0, -1, True, 1.5, "", "x" * 1000, b"x", [], {}, [None], [{}], datetime.date(2026, 5, 5), datetime.time(5)]
ODD += [
    datetime.datetime.min,
    datetime.datetime.max,
    datetime.datetime(9999, 12, 31, tzinfo=UTC),
    datetime.timedelta(1),
]
ODD += [datetime.datetime.max.replace(tzinfo=datetime.timezone(-datetime.timedelta(hours=23)))]
NAMES = [
    "start",
    "end",
    "all_day",
    "time_zone",
    "time_zone_rules",
    "recurrence",
    "exdates",
    "rdates",
    "overrides",
    "kind",
]


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(NAMES), st.sampled_from(ODD)))
def test_attributes_of_any_type_are_borne(odd):
    for state in (
        odd,
        {**event("2026-05-05T09:00", "FREQ=DAILY", overrides=[odd, {"recurrence_id": at("2026-05-05T09:00")}]), **odd},
    ):
        for year in (1, 2026, 9998):
            occurrences(state, datetime.date(year, 5, 1), datetime.date(year, 6, 1), BERLIN)
