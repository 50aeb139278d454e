"""Dates and datetimes as an item record holds them: as a number, text, or two texts.

A pickle names the class of each of them, and to look that up takes longer than all the rest of an ordinary record.
So those that an attribute holds by itself are written without it:

    date                                       its ordinal: 1 January of year 1 is 1
    datetime, naive or in UTC                  its ISO 8601 text
    datetime in a zone of the tz database      a tuple of its ISO 8601 text, naive, and the key of the zone

Promise: `from_plain(to_plain(moment))` is the moment to the last detail. What has more to it, as an hour that a clock
repeats or an offset without a zone, has no plain form and stays as it is; so do moments within containers.
"""

from __future__ import annotations

import datetime
import zoneinfo
from typing import Any

from atop.errors import UnstorableValue

Plain = int | str | tuple[str, str]

LONGEST_KEY = 100  # of a zone, in characters: looking for one takes memory many times its length

MOMENTS = frozenset({datetime.date, datetime.datetime})


def to_plain(moment: Any) -> Plain | None:
    """The plain form of a date or datetime; None for one that has none, and for every other value."""
    kind = type(moment)
    if kind not in MOMENTS:
        return None
    try:
        moment.replace()  # a hostile pickle can make moments that are none, such as 31 February
    except ValueError:
        return None
    if kind is datetime.date:
        ordinal: int = moment.toordinal()
        return ordinal
    if moment.fold:
        return None
    zone = moment.tzinfo
    if zone is None or zone is datetime.UTC:
        text: str = moment.isoformat()
        return text
    if type(zone) is zoneinfo.ZoneInfo and type(zone.key) is str:
        return moment.replace(tzinfo=None).isoformat(), zone.key
    return None


def from_plain(plain: Any) -> datetime.date | datetime.datetime:
    """The moment of a plain form. Raises ValueError or TypeError if it is none; `UnstorableValue` for a zone that
    this device does not know."""
    kind = type(plain)
    if kind is int:
        return datetime.date.fromordinal(plain)
    if kind is str:
        return datetime.datetime.fromisoformat(plain)
    text, key = plain
    return datetime.datetime.fromisoformat(text).replace(tzinfo=zone_named(key))


def zone_named(key: str) -> zoneinfo.ZoneInfo:
    """The time zone of this name. Raises `UnstorableValue` if this device does not know it."""
    try:
        if len(key) > LONGEST_KEY:
            raise ValueError("no zone has such a name")
        return zoneinfo.ZoneInfo(key)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise UnstorableValue(f"time zone {key[:LONGEST_KEY]!r} is not known on this device: install tzdata") from error


def with_plain(attributes: dict[str, Any]) -> tuple[dict[str, Any], tuple[int, ...]]:
    """The attributes with the plain forms of their moments, and the places of these among them, from 0."""
    plain, places = attributes.copy(), []
    for place, (name, value) in enumerate(attributes.items()):
        if type(value) in MOMENTS and (form := to_plain(value)) is not None:
            plain[name] = form
            places.append(place)
    return plain, tuple(places)


__all__ = ["MOMENTS", "Plain", "from_plain", "to_plain", "with_plain", "zone_named"]
