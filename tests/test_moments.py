"""Dates and datetimes in item records: a plain form that comes back as it was, to the last detail."""

from __future__ import annotations

import datetime
import pickle
import zoneinfo
from datetime import UTC, date, timedelta, timezone
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from atop import UnsafePickle, UnstorableValue
from atop.moments import from_plain, to_plain, with_plain
from atop.records import decode, encode, pack_u64

BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
REPEATED = datetime.datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN)  # this hour came twice

zones = st.sampled_from([None, UTC, BERLIN, zoneinfo.ZoneInfo("America/St_Johns"), timezone(timedelta(hours=2))])
moments = st.dates() | st.builds(
    lambda when, zone, fold: when.replace(tzinfo=zone, fold=fold), st.datetimes(), zones, st.integers(0, 1)
)


def details(value: Any) -> tuple[Any, ...]:
    """All that there is to a moment: equality leaves out the zone, and the side of a repeated hour."""
    if type(value) is date:
        return date, value
    zone = value.tzinfo
    return (
        type(value),
        value.replace(tzinfo=None),
        value.fold,
        type(zone),
        zone if zone is None else zone.utcoffset(value),
        str(zone),
    )


@given(moments)
@example(date.min)
@example(date.max)
@example(datetime.datetime.min)
@example(datetime.datetime.max.replace(tzinfo=UTC))
@example(REPEATED.replace(fold=1))
def test_a_record_gives_back_every_detail_of_a_moment(moment: Any) -> None:
    attributes = {"before": "x", "moment": moment, "after": [moment]}
    found = decode(encode(7, "moments.Thing", 1, attributes, (3,)))
    assert details(found.attributes["moment"]) == details(moment)
    assert details(found.attributes["after"][0]) == details(moment)
    assert list(found.attributes) == list(attributes)
    assert (found.version, found.type_name, found.schema, found.pools) == (7, "moments.Thing", 1, (3,))
    plain = to_plain(moment)
    assert plain is None or details(from_plain(plain)) == details(moment)


def test_ordinary_moments_have_a_plain_form_and_what_is_more_than_that_has_none() -> None:
    when = datetime.datetime(2020, 1, 2, 3, 4, 5)
    assert to_plain(date(1, 1, 2)) == 2
    assert to_plain(when) == "2020-01-02T03:04:05"
    assert to_plain(when.replace(tzinfo=UTC)) == "2020-01-02T03:04:05+00:00"
    assert to_plain(when.replace(tzinfo=BERLIN)) == ("2020-01-02T03:04:05", "Europe/Berlin")
    assert to_plain(when.replace(tzinfo=timezone(timedelta(hours=2)))) is None
    assert to_plain(REPEATED.replace(fold=1)) is None
    assert to_plain("2020-01-02") is None


def test_what_is_given_stays_as_it_was() -> None:
    attributes = {"name": "Ada", "born": date(1815, 12, 10), "place": "London"}
    ordinal = date(1815, 12, 10).toordinal()
    assert with_plain(attributes) == ({"name": "Ada", "born": ordinal, "place": "London"}, (1,))
    assert attributes == {"name": "Ada", "born": date(1815, 12, 10), "place": "London"}


def test_records_from_before_there_were_plain_forms_are_read() -> None:
    attributes = {"born": date(1815, 12, 10), "met": REPEATED.astimezone(UTC)}
    record = pack_u64(7) + pickle.dumps(("moments.Thing", 1, attributes, (3,)), 5)
    assert decode(record).attributes == attributes


@pytest.mark.parametrize(
    "form",
    [
        *(0, -1, 1 << 40, 1 << 400, True, None, 1.5, "", "yesterday", "2020-13-01T00:00:00", (), ("2020-01-01",)),
        *(("2020-01-01T00:00:00", 5), (5, "Europe/Berlin"), ["x"] * 3, {"a": 1}),
    ],
)
def test_a_form_that_is_none_is_refused(form: Any) -> None:
    record = pack_u64(7) + pickle.dumps(("moments.Thing", 1, {"born": form}, (), (0,)), 5)
    with pytest.raises(UnsafePickle):
        decode(record)


@pytest.mark.parametrize("places", [(1,), (-2,), (0, 0), 5, None, "0", ("born",), (None,), (1 << 70,), {"born": 0}])
def test_places_where_no_form_stands_are_refused(places: Any) -> None:
    record = pack_u64(7) + pickle.dumps(("moments.Thing", 1, {"born": 5}, (), places), 5)
    with pytest.raises(UnsafePickle):
        decode(record)


def test_a_moment_that_is_none_stays_as_it_came() -> None:
    """Python makes these from a pickle without a look at the day."""
    no_day = datetime.datetime(b"\x07\xe4\x02\x1f\x01\x01\x01\0\0\0")  # type: ignore[call-overload, arg-type]
    no_date = date(b"\x07\xe4\x02\x1f")  # type: ignore[call-arg, arg-type]
    assert to_plain(no_day) is None
    assert to_plain(no_date) is None
    decode(encode(1, "moments.Thing", 1, {"a": no_day, "b": no_date}, ()))


@pytest.mark.parametrize(
    "key", ["a/" * 5_000 + "b", "Europe", "Mars/Olympus", "../../etc/passwd", "/etc/localtime", ""]
)
def test_a_zone_that_this_device_does_not_know_is_named(key: str) -> None:
    record = pack_u64(7) + pickle.dumps(("moments.Thing", 1, {"met": ("2020-01-01T00:00:00", key)}, (), (0,)), 5)
    with pytest.raises(UnstorableValue, match="tzdata"):
        decode(record)
