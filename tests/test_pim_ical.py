"""Calendars in and out: zones, recurrences and their exceptions, tasks, diaries, invitations."""

from __future__ import annotations

import datetime
import io
import zoneinfo
from collections.abc import Callable
from pathlib import Path
from typing import Any

import icalendar
import pytest
from dateutil.tz import tzical
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atop.pim import calendar_file
from atop.pim.calendar_file import as_override, read_calendar
from atop.pim.ical import blank_event
from atop.pim.ical_note import blank_note
from atop.pim.ical_out import CalendarWriter
from atop.pim.incoming import Broken, Content, Record
from atop.pim.items import Event, Note
from atop.pim.zones import FLOATING, Zone, find_zone, known_zones

UTC = datetime.UTC
Read = Callable[..., list[Record | Broken]]


def offset(hours: float) -> datetime.timezone:
    return datetime.timezone(datetime.timedelta(hours=hours))


def moment(
    year: int, month: int, day: int, hour: int = 0, minute: int = 0, zone: datetime.tzinfo = UTC
) -> datetime.datetime:
    return datetime.datetime(year, month, day, hour, minute, tzinfo=zone)


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Reads a file of these lines."""

    def read(*lines: str, **options: int) -> list[Record | Broken]:
        path = tmp_path / "a.ics"
        path.write_bytes("\r\n".join([*lines, ""]).encode())
        return list(read_calendar(path, **options))

    return read


@pytest.fixture
def event(read: Read) -> Callable[..., dict[str, Any]]:
    """The attributes of an event with these properties."""

    def event(*lines: str, zones: tuple[str, ...] = (), kind: str = "VEVENT") -> dict[str, Any]:
        (found,) = read(
            "BEGIN:VCALENDAR", "VERSION:2.0", *zones, f"BEGIN:{kind}", "UID:1", *lines, f"END:{kind}", "END:VCALENDAR"
        )
        assert isinstance(found, Record), found
        return found.state

    return event


Make = Callable[..., dict[str, Any]]

HARBOUR = (
    *("BEGIN:VTIMEZONE", "TZID:Harbour Time", "BEGIN:STANDARD", "DTSTART:16010101T030000"),
    *("RRULE:FREQ=YEARLY;BYDAY=-1SU;BYMONTH=10", "TZOFFSETFROM:+0200", "TZOFFSETTO:+0100", "END:STANDARD"),
    *("BEGIN:DAYLIGHT", "DTSTART:16010101T020000", "RRULE:FREQ=YEARLY;BYDAY=-1SU;BYMONTH=3"),
    *("TZOFFSETFROM:+0100", "TZOFFSETTO:+0200", "END:DAYLIGHT", "END:VTIMEZONE"),
)


def states(found: list[Record | Broken]) -> list[dict[str, Any]]:
    return [record.state for record in found if isinstance(record, Record)]


def test_the_reader_gives_just_the_attributes_of_the_items() -> None:
    assert set(blank_event()) == set(Event._fields) - {"fingerprint"}
    assert set(blank_note()) == set(Note._fields) - {"fingerprint"}


# ------------------------------------------------------------------------------------ times and zones


def test_a_time_in_a_zone_has_the_offset_of_that_day(event: Make) -> None:
    state = event("DTSTART;TZID=Europe/Paris:20240705T090000", "DTEND;TZID=Europe/Paris:20240705T100000")
    assert (state["start"], state["start"].utcoffset()) == (moment(2024, 7, 5, 7), datetime.timedelta(hours=2))
    assert (state["time_zone"], state["time_zone_rules"], state["end"].hour) == ("Europe/Paris", "", 10)


@pytest.mark.parametrize(
    ("tzid", "name"),
    [
        ("W. Europe Standard Time", "Europe/Berlin"),
        ('"Tokyo Standard Time"', "Asia/Tokyo"),
        ("/mozilla.org/20070129_1/America/Argentina/Ushuaia", "America/Argentina/Ushuaia"),
        ("/freeassociation.sourceforge.net/Tzfile/Europe/Berlin", "Europe/Berlin"),
        ("Etc/UTC", ""),
        ("GMT", ""),
    ],
)
def test_names_of_zones_that_programs_use_for_iana_zones(event: Make, tzid: str, name: str) -> None:
    assert event(f"DTSTART;TZID={tzid}:20240705T090000")["time_zone"] == name


def test_the_name_of_a_zone_is_never_used_as_a_path() -> None:
    for name in ("../../etc/passwd", "/etc/localtime", "Europe/../../../etc/passwd", "\0", "x" * 5000):
        assert find_zone(name).aware(datetime.datetime(2024, 1, 1)).utcoffset() == datetime.timedelta()


def test_a_zone_of_the_file_is_kept_with_its_rules(event: Make) -> None:
    state = event("DTSTART;TZID=Harbour Time:20240705T090000", zones=HARBOUR)
    assert (state["time_zone"], state["start"].utcoffset()) == ("Harbour Time", datetime.timedelta(hours=2))
    assert state["time_zone_rules"] == "\n".join(HARBOUR)


def test_a_zone_may_be_named_after_the_events_that_use_it(read: Read) -> None:
    (found,) = read(
        *("BEGIN:VCALENDAR", "BEGIN:VEVENT", "UID:1", "DTSTART;TZID=Harbour Time:20240705T090000", "END:VEVENT"),
        *HARBOUR,
        "END:VCALENDAR",
    )
    assert isinstance(found, Record)
    assert found.state["start"] == moment(2024, 7, 5, 7)


def test_two_calendars_of_one_file_may_mean_different_zones_by_one_name(read: Read) -> None:
    other = [line.replace("+0200", "+0700").replace("+0100", "+0600") for line in HARBOUR]
    lines = [
        line
        for zone, uid in ((HARBOUR, 1), (other, 2))
        for line in (
            *("BEGIN:VCALENDAR", *zone, "BEGIN:VEVENT", f"UID:{uid}"),
            *("DTSTART;TZID=Harbour Time:20240705T090000", "END:VEVENT", "END:VCALENDAR"),
        )
    ]
    first, second = states(read(*lines))
    assert (first["start"], second["start"]) == (moment(2024, 7, 5, 7), moment(2024, 7, 5, 2))


@settings(max_examples=100)
@given(st.datetimes(datetime.datetime(1990, 1, 1), datetime.datetime(2090, 1, 1)))
def test_rules_of_a_zone_give_the_offsets_that_another_library_finds(wall: datetime.datetime) -> None:
    text = "\n".join(HARBOUR).replace("16010101", "19700101")
    other = tzical(io.StringIO(text)).get()
    ours = Zone("Harbour Time", text).aware(wall)
    assert ours.utcoffset() == wall.replace(tzinfo=other).utcoffset()


@settings(max_examples=100)
@given(st.datetimes(datetime.datetime(1971, 1, 1), datetime.datetime(2036, 1, 1)))
def test_a_zone_written_as_rules_has_the_offsets_of_the_iana_zone(wall: datetime.datetime) -> None:
    text = icalendar.Timezone.from_tzid("Europe/Zurich").to_ical().decode().replace("\r\n ", "").replace("\r", "")
    expected = wall.replace(tzinfo=zoneinfo.ZoneInfo("Europe/Zurich"))
    exists = expected.astimezone(UTC).astimezone(expected.tzinfo).replace(tzinfo=None) == wall
    ambiguous = expected.utcoffset() != expected.replace(fold=1).utcoffset()
    if exists and not ambiguous:
        assert Zone("elsewhere", text).aware(wall).utcoffset() == expected.utcoffset()


@pytest.mark.parametrize(
    "rule",
    ["FREQ=SECONDLY", "FREQ=YEARLY;BYMONTH=99", "FREQ=YEARLY;BYDAY=53MO", "FREQ=YEARLY;BYMONTHDAY=x", "FREQ=", "=;="],
)
def test_hostile_rules_of_a_zone_take_no_time(rule: str) -> None:
    text = "\n".join(HARBOUR).replace("FREQ=YEARLY;BYDAY=-1SU;BYMONTH=10", rule)
    Zone("Harbour Time", text).aware(datetime.datetime(2024, 7, 5))


@given(st.datetimes(), st.sampled_from(["Europe/Paris", "America/New_York", "Asia/Kathmandu"]))
def test_converting_to_a_zone_keeps_the_instant(wall: datetime.datetime, name: str) -> None:
    instant = wall.replace(tzinfo=UTC)
    for zone in (Zone(name), Zone("Harbour Time", "\n".join(HARBOUR))):
        if 2 < wall.year < 9998:
            assert zone.convert(instant) == instant


@given(st.datetimes(datetime.datetime(1971, 1, 1), datetime.datetime(2036, 1, 1)))
def test_converting_to_an_iana_zone_gives_its_reading(wall: datetime.datetime) -> None:
    instant = wall.replace(tzinfo=UTC)
    expected = instant.astimezone(zoneinfo.ZoneInfo("America/New_York"))
    assert Zone("America/New_York").convert(instant).replace(tzinfo=None) == expected.replace(tzinfo=None, fold=0)


@pytest.mark.parametrize("stamp", ["00010101T000000+1400", "99991231T235959-1400", "00010101T000000Z"])
def test_the_ends_of_time_are_read(event: Make, stamp: str) -> None:
    zone = ("TZID=Asia/Tokyo:", "TZID=Harbour Time:", "TZID=America/New_York:")
    for name in zone:
        event(
            f"DTSTART;{name}{stamp[:15]}",
            f"LAST-MODIFIED:{stamp}",
            f"EXDATE:{stamp[:15]}Z",
            "DURATION:P1D",
            zones=HARBOUR,
        )


def test_utc_floating_and_whole_days(event: Make) -> None:
    utc = event("DTSTART:20240705T090000Z")
    floating = event("DTSTART:20240705T090000")
    day = event("DTSTART;VALUE=DATE:20240705", "DTEND;VALUE=DATE:20240707")
    assert (utc["start"], utc["time_zone"]) == (moment(2024, 7, 5, 9), "")
    assert (floating["start"], floating["time_zone"]) == (moment(2024, 7, 5, 9), FLOATING)
    assert (day["start"], day["end"], day["all_day"]) == (moment(2024, 7, 5), moment(2024, 7, 7), True)


def test_a_flight_ends_on_another_clock(event: Make) -> None:
    state = event("DTSTART;TZID=Europe/Paris:20240705T090000", "DTEND;TZID=Asia/Tokyo:20240706T060000")
    assert (state["end_time_zone"], state["end"]) == ("Asia/Tokyo", moment(2024, 7, 5, 21))


@pytest.mark.parametrize(
    ("duration", "end"),
    [("PT1H30M", moment(2024, 3, 30, 13, 30)), ("P1D", moment(2024, 3, 31, 11)), ("PT24H", moment(2024, 3, 31, 12))],
)
def test_days_of_a_duration_go_by_the_clock_and_hours_by_time(
    event: Make, duration: str, end: datetime.datetime
) -> None:
    """In the night to 31 March 2024 Paris went to summer time: that day has 23 hours."""
    state = event("DTSTART;TZID=Europe/Paris:20240330T130000", f"DURATION:{duration}")
    assert (state["end"], state["duration"]) == (end, duration)


def test_a_time_that_is_none_makes_the_event_broken_and_names_it(read: Read) -> None:
    found = read("BEGIN:VEVENT", "UID:1", "DTSTART:tomorrow", "END:VEVENT", "BEGIN:VEVENT", "UID:2", "END:VEVENT")
    assert found == [Broken(1, "has a time that is none: 'tomorrow'"), Broken(5, "has no start (DTSTART)")]


def test_other_values_that_are_not_understood_are_kept(event: Make) -> None:
    state = event("DTSTART:20240705T090000Z", "DTEND:whenever", "PRIORITY:high", "EXDATE:never", "SEQUENCE:-1")
    kept = {entry["name"]: entry["value"] for entry in state["properties"]}
    assert kept == {"DTEND": "whenever", "PRIORITY": "high", "EXDATE": "never", "SEQUENCE": "-1"}


# ------------------------------------------------------------------------------------ recurrences


def test_recurrences_are_kept_and_exceptions_are_on_the_clock_of_the_event(event: Make) -> None:
    state = event(
        *("DTSTART;TZID=Europe/Paris:20240705T090000", "RRULE:FREQ=WEEKLY;BYDAY=FR"),
        *("EXDATE;TZID=Europe/Paris:20240712T090000,20240719T090000", "EXDATE:20240726T070000Z"),
        *(
            "EXDATE;VALUE=DATE:20240802",
            "RDATE;TZID=Europe/Paris:20240703T090000",
            "RDATE;VALUE=PERIOD:20240704T090000Z/PT1H",
        ),
    )
    assert state["recurrence"] == "FREQ=WEEKLY;BYDAY=FR"
    assert state["exdates"] == [
        moment(2024, month, day, 9, zone=offset(2)) for month, day in ((7, 12), (7, 19), (7, 26), (8, 2))
    ]
    assert {date.utcoffset() for date in state["exdates"]} == {datetime.timedelta(hours=2)}
    assert state["rdates"] == [moment(2024, 7, 3, 7)]
    assert state["properties"][0]["name"] == "RDATE"


def test_exceptions_are_put_into_their_event_wherever_they_stand(read: Read) -> None:
    exception = (
        "BEGIN:VEVENT",
        "UID:1",
        "RECURRENCE-ID:20240712T070000Z",
        "DTSTART:20240713T070000Z",
        "SUMMARY:moved",
        "END:VEVENT",
    )
    series = ("BEGIN:VEVENT", "UID:1", "DTSTART;TZID=Europe/Paris:20240705T090000", "RRULE:FREQ=WEEKLY", "END:VEVENT")
    other = ("BEGIN:VEVENT", "UID:2", "DTSTART:20240705T090000Z", "END:VEVENT")
    before = states(read("BEGIN:VCALENDAR", *exception, *other, *series, "END:VCALENDAR"))
    after = states(read("BEGIN:VCALENDAR", *series, *other, *exception, "END:VCALENDAR"))
    assert before[1] == after[0]
    (override,) = after[0]["overrides"]
    assert override["recurrence_id"] == moment(2024, 7, 12, 9, zone=offset(2))
    assert override["recurrence_id"].utcoffset() == datetime.timedelta(hours=2)
    assert override["summary"] == "moved"


def test_the_range_of_an_exception_is_kept(read: Read) -> None:
    found = states(
        read(
            *(
                "BEGIN:VEVENT",
                "UID:1",
                "DTSTART:20240705T090000Z",
                "RRULE:FREQ=DAILY",
                "END:VEVENT",
                "BEGIN:VEVENT",
                "UID:1",
            ),
            *("RECURRENCE-ID;RANGE=THISANDFUTURE:20240706T090000Z", "DTSTART:20240706T100000Z", "END:VEVENT"),
        )
    )
    assert found[0]["overrides"][0]["parameters"] == {"RECURRENCE-ID": {"RANGE": ["THISANDFUTURE"]}}


def test_a_broken_exception_does_not_take_its_event_along(read: Read) -> None:
    event, broken = read(
        *("BEGIN:VEVENT", "UID:1", "DTSTART:20240705T090000Z", "RRULE:FREQ=DAILY", "END:VEVENT"),
        *("BEGIN:VEVENT", "UID:1", "RECURRENCE-ID:20240706T090000Z", "DTSTART:never", "END:VEVENT"),
    )
    assert isinstance(event, Record)
    assert broken == Broken(6, "has a time that is none: 'never'")


def test_an_exception_without_its_event_is_a_patch(read: Read) -> None:
    (found,) = read(
        *(
            "BEGIN:VEVENT",
            "UID:1",
            "RECURRENCE-ID:20240706T090000Z",
            "DTSTART:20240706T100000Z",
            "SUMMARY:moved",
            "END:VEVENT",
        )
    )
    assert isinstance(found, Record)
    assert (found.patch, [o["summary"] for o in found.state["overrides"]]) == (True, ["moved"])


# ------------------------------------------------------------------------------------ other components


def test_a_task_is_an_event_that_is_due(event: Make) -> None:
    state = event(
        "DUE;VALUE=DATE:20240705", "SUMMARY:Mend the roof", "STATUS:needs-action", "PERCENT-COMPLETE:0", kind="VTODO"
    )
    assert (state["kind"], state["start"], state["end"]) == ("task", None, moment(2024, 7, 5))
    assert (state["status"], state["percent"]) == ("NEEDS-ACTION", 0)


def test_a_page_of_a_diary_is_a_note(read: Read) -> None:
    (found,) = read(
        *(
            "BEGIN:VJOURNAL",
            "UID:1",
            "DTSTART;VALUE=DATE:20240705",
            "SUMMARY:Rain",
            "DESCRIPTION:a\\nb",
            "DESCRIPTION:c",
        ),
        *("CATEGORIES:diary,weather", "END:VJOURNAL"),
    )
    assert isinstance(found, Record)
    assert found.kind == "note"
    assert (found.state["title"], found.state["text"]) == ("Rain", "a\nb\n\nc")
    assert (found.state["day"], found.state["tags"]) == (datetime.date(2024, 7, 5), ["diary", "weather"])


def test_alarms_people_and_attachments(event: Make) -> None:
    state = event(
        *(
            "DTSTART:20240705T090000Z",
            'ORGANIZER;CN="Lovelace, Ada":MAILTO:ada@example.org',
            "ATTENDEE;CN=Charles;ROLE=CHAIR:mailto:c@x",
        ),
        *("ATTENDEE:urn:uuid:5", "ATTACH;ENCODING=BASE64;VALUE=BINARY;FMTTYPE=text/plain;X-FILENAME=a.txt:aGk="),
        *("ATTACH:https://example.org/b.pdf", "BEGIN:VALARM", "ACTION:EMAIL", "TRIGGER;RELATED=END:-PT15M"),
        *("ATTENDEE:mailto:ada@example.org", "END:VALARM", "BEGIN:VLOCATION", "NAME:Room 5", "END:VLOCATION"),
    )
    assert (state["organizer"], state["organizer_parameters"]) == ("ada@example.org", {"CN": ["Lovelace, Ada"]})
    assert state["attendees"] == [
        {"address": "c@x", "name": "Charles", "parameters": {"ROLE": ["CHAIR"]}},
        {"address": "urn:uuid:5"},
    ]
    assert state["attachments"] == [Content(b"hi", "a.txt", "text/plain")]
    assert [p["value"] for p in state["properties"]] == ["https://example.org/b.pdf"]
    assert state["alarms"] == [
        {
            "action": "EMAIL",
            "trigger": "-PT15M",
            "parameters": {"RELATED": ["END"]},
            "properties": [{"name": "ATTENDEE", "value": "mailto:ada@example.org"}],
        }
    ]
    assert state["components"] == ["BEGIN:VLOCATION\nNAME:Room 5\nEND:VLOCATION"]


def test_what_is_no_event_is_reported(read: Read) -> None:
    found = read(
        "BEGIN:VCALENDAR", "BEGIN:VFREEBUSY", "UID:1", "END:VFREEBUSY", "BEGIN:VEVENT", "UID:2", "END:VCALENDAR"
    )
    assert found == [
        Broken(2, "is a VFREEBUSY, which is no event, task or note"),
        Broken(5, "is not finished: END:VEVENT is missing before END:VCALENDAR"),
    ]


def test_replies_to_invitations_are_no_events(read: Read) -> None:
    found = read(
        "BEGIN:VCALENDAR",
        "METHOD:REPLY",
        "BEGIN:VEVENT",
        "UID:1",
        "DTSTART:20240705T090000Z",
        "END:VEVENT",
        "END:VCALENDAR",
    )
    assert found == [Broken(3, "is a REPLY to an invitation, not an event")]


def test_more_zones_than_a_file_can_need_are_reported(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calendar_file, "MAX_ZONES", 1)
    zones = [line.replace("Harbour", name) for name in ("Harbour", "Other") for line in HARBOUR]
    (found,) = read("BEGIN:VCALENDAR", *zones, "END:VCALENDAR")
    assert isinstance(found, Broken)
    assert "time zone too many" in found.reason


def test_the_name_of_the_calendar_is_that_of_its_events(event: Make) -> None:
    assert event("DTSTART:20240705T090000Z", zones=("X-WR-CALNAME:Work\\, mostly",))["calendar"] == "Work, mostly"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(junk=st.binary(max_size=200))
def test_no_octets_make_the_reader_fail(tmp_path: Path, junk: bytes) -> None:
    path = tmp_path / "junk.ics"
    path.write_bytes(
        b"BEGIN:VCALENDAR\nBEGIN:VEVENT\nUID:1\nDTSTART:20240705T090000Z\n" + junk + b"\nEND:VEVENT\nEND:VCALENDAR\n"
    )
    list(read_calendar(path))


# ------------------------------------------------------------------------------------ round trip

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), max_size=20)
words = texts.filter(lambda text: text.strip() == text and text != "")
names = st.sampled_from(["Europe/Paris", "America/New_York", "", FLOATING, "Harbour Time"])
walls = st.datetimes(datetime.datetime(1900, 1, 1), datetime.datetime(2100, 1, 1)).map(
    lambda wall: wall.replace(microsecond=0, fold=0)
)
instants = walls.map(lambda wall: wall.replace(tzinfo=UTC))
contents = st.builds(Content, st.binary(min_size=1, max_size=20), texts, st.sampled_from(["", "text/plain"]))


@st.composite
def times(draw: st.DrawFn, series: dict[str, Any] | None = None) -> dict[str, Any]:
    """Start, end and their clocks, as the reader or the library would make them."""
    all_day = draw(st.booleans())
    name = "" if all_day else draw(names)
    zone = Zone(name, "\n".join(HARBOUR) if name == "Harbour Time" else "")

    def clock(wall: datetime.datetime) -> datetime.datetime:
        return wall.replace(hour=0, minute=0, second=0, tzinfo=UTC) if all_day else zone.aware(wall)

    state: dict[str, Any] = {"all_day": all_day, "time_zone": name, "time_zone_rules": zone.rules}
    state["start"] = clock(draw(walls))
    state["end"] = draw(st.none() | walls.map(clock))
    if series is None:
        state["exdates"] = list(dict.fromkeys(draw(st.lists(walls.map(clock), max_size=2))))
        state["rdates"] = list(dict.fromkeys(draw(st.lists(walls.map(clock), max_size=2))))
        state["recurrence"] = draw(st.sampled_from(["", "FREQ=WEEKLY;BYDAY=MO"]))
    return state


@st.composite
def events(draw: st.DrawFn) -> dict[str, Any]:
    state = {**blank_event(), **draw(times()), "uid": draw(words)}
    for name in ("summary", "location", "description"):
        state[name] = draw(texts)
    state["kind"] = draw(st.sampled_from(["event", "task"]))
    state["status"] = draw(st.sampled_from(["", "CONFIRMED", "X-Ω"]))
    state["sequence"] = draw(st.integers(0, 5))
    state["priority"] = draw(st.none() | st.integers(0, 9))
    for name in ("created", "modified", "completed"):
        state[name] = draw(st.none() | instants)
    state["transparent"] = draw(st.booleans())
    state["categories"] = draw(st.lists(words, unique=True, max_size=2))
    state["organizer"] = draw(st.sampled_from(["", "ada@example.org", "urn:uuid:5"]))
    state["attendees"] = draw(
        st.lists(st.fixed_dictionaries({"address": st.just("c@x")}, optional={"name": words}), max_size=2)
    )
    state["alarms"] = draw(
        st.lists(
            st.fixed_dictionaries(
                {"action": st.just("DISPLAY"), "trigger": st.sampled_from(["-PT5M", "20240705T090000Z"])},
                optional={"description": texts},
            ),
            max_size=1,
        )
    )
    state["attachments"] = draw(st.lists(contents, max_size=1))
    state["calendar"] = draw(texts)
    state["url"] = draw(st.sampled_from(["", "https://example.org/?a=1,2;3"]))
    return state


def series_zone(state: dict[str, Any]) -> Zone:
    return Zone(state["time_zone"], state["time_zone_rules"])


def written(*items: tuple[str, dict[str, Any]]) -> bytes:
    writer = CalendarWriter()
    octets = writer.start()
    for kind, state in items:
        octets += writer.event(state) if kind == "event" else writer.note(state)
    return octets + writer.finish()


def same(first: Any, second: Any) -> bool:
    """Equal, and times with the same offset."""
    return bool(first == second) and plain(first) == plain(second)


def plain(value: Any) -> str:
    if isinstance(value, dict):
        return str(sorted((name, plain(inner)) for name, inner in value.items()))
    return str([plain(inner) for inner in value]) if isinstance(value, list) else repr(value)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=80)
@given(state=events(), moved=st.data())
def test_what_is_written_is_read_back_attribute_for_attribute(
    tmp_path: Path, state: dict[str, Any], moved: Any
) -> None:
    if state["recurrence"]:
        own = {**blank_event(), **moved.draw(times(state)), "kind": state["kind"], "summary": moved.draw(texts)}
        wall = moved.draw(walls)
        zone = series_zone(state)
        own["recurrence_id"] = (
            wall.replace(hour=0, minute=0, second=0, tzinfo=UTC) if state["all_day"] else zone.aware(wall)
        )
        state["overrides"] = [as_override(own)]
    path = tmp_path / "a.ics"
    path.write_bytes(written(("event", state)))
    (found,) = states(list(read_calendar(path)))
    assert same(found, state)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    title=texts,
    text=texts,
    tags=st.lists(words, unique=True, max_size=2),
    day=st.none() | st.dates(),
    created=st.none() | instants,
    attachments=st.lists(contents, max_size=1),
)
def test_notes_are_read_back_attribute_for_attribute(tmp_path: Path, **attributes: Any) -> None:
    state = {**blank_note(), "uid": "1", **attributes}
    path = tmp_path / "a.ics"
    path.write_bytes(written(("note", state)))
    assert states(list(read_calendar(path))) == [state]


def test_different_rules_by_one_name_are_written_in_calendars_of_their_own(tmp_path: Path) -> None:
    rules = "\n".join(HARBOUR)
    both = []
    for number, text in enumerate((rules, rules.replace("+0200", "+0700"))):
        zone = Zone("Harbour Time", text)
        both.append(
            {
                **blank_event(),
                "uid": str(number),
                "time_zone": zone.name,
                "time_zone_rules": text,
                "start": zone.aware(datetime.datetime(2024, 7, 5, 9)),
            }
        )
    octets = written(("event", both[0]), ("event", both[1]), ("event", both[0]))
    assert octets.count(b"BEGIN:VCALENDAR") == 3
    path = tmp_path / "a.ics"
    path.write_bytes(octets)
    assert same(states(list(read_calendar(path))), [both[0], both[1], both[0]])


def test_an_event_made_with_an_ordinary_time_is_written_as_it_is_meant(tmp_path: Path) -> None:
    paris = datetime.datetime(2024, 7, 5, 9, tzinfo=zoneinfo.ZoneInfo("Europe/Paris"))
    octets = b"".join(
        written(("event", {**blank_event(), "uid": "1", "start": start}))
        for start in (paris, datetime.datetime(2024, 7, 5, 9), moment(2024, 7, 5, 9))
    )
    assert b"DTSTART;TZID=Europe/Paris:20240705T090000\r\n" in octets
    assert b"DTSTART:20240705T090000\r\n" in octets
    assert b"DTSTART:20240705T090000Z\r\n" in octets


def test_another_library_reads_what_is_written() -> None:
    zone = Zone("Europe/Paris")
    state = {
        **blank_event(),
        "uid": "1",
        "summary": "Déjeuner, long; \\ strange\nlines",
        "time_zone": zone.name,
        "start": zone.aware(datetime.datetime(2024, 7, 5, 9)),
        "recurrence": "FREQ=WEEKLY",
        "exdates": [zone.aware(datetime.datetime(2024, 7, 12, 9))],
    }
    calendar = icalendar.Calendar.from_ical(written(("event", state)))
    (other,) = calendar.walk("VEVENT")
    assert str(other["SUMMARY"]) == state["summary"]
    assert other.decoded("DTSTART") == state["start"]
    assert other["EXDATE"].dts[0].dt == state["exdates"][0]
    assert [str(z["TZID"]) for z in calendar.walk("VTIMEZONE")] == ["Europe/Paris"]


def test_the_names_of_windows_lead_to_zones_that_are_known() -> None:
    from atop.pim.zones import _windows_zones

    assert len(_windows_zones()) > 100
    assert not set(_windows_zones().values()) - known_zones()
