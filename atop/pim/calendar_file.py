"""Reads a whole iCalendar file of any size: events put together from their parts, in bounded memory.

A file may name a zone after the events that use it, and may have the exceptions to a recurring event far from the
event itself. So the file is read twice: first its zones and exceptions are found, the exceptions going to a temporary
database on disk; then its events are read one by one, each with its exceptions.

Invitations (RFC 5546) come as calendars with a METHOD: a cancellation is given as a patch of the event, an exception
without its event too. Replies and the like are no events, and are reported.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from atop.pim.components import Component, read_components
from atop.pim.contentline import parse_record, unescape
from atop.pim.ical import as_text, blank_event, read_event
from atop.pim.ical_note import read_note
from atop.pim.incoming import MAX_RECORD_BYTES, RECORD_ERRORS, Broken, Record, fingerprint, hashed_uid, reason_of
from atop.pim.lines import LineFile, Watch
from atop.pim.zones import Zone, find_zone

CONTAINERS = frozenset({"VCALENDAR"})

# Most zones of one file that have rules of their own, and the largest text of one. The rules of all IANA zones with
# all their history are less, and those do not count.
MAX_ZONES = 1_000
MAX_ZONE_BYTES = 256 * 1024

# Most exceptions to one event that are put into it: twice a day for 13 years.
MAX_OVERRIDES = 10_000

# Methods of calendars that hold no event: answers to invitations.
NOT_EVENTS = frozenset({"REPLY", "COUNTER", "DECLINECOUNTER", "REFRESH", "ADD"})

# Properties that differ between two exports of the same event.
VOLATILE = (b"DTSTAMP", b"LAST-MO", b"SEQUENC")


def read_calendar(
    path: Path, watch: Watch | None = None, max_bytes: int = MAX_RECORD_BYTES
) -> Iterator[Record | Broken]:
    """The events, tasks and notes of a file, in order, then exceptions whose event the file does not have.

    `watch` is told the position in the file while it is read for the second time.
    """
    zones = _Zones()
    with closing(_Exceptions()) as exceptions:
        with LineFile(path) as lines:
            _find_parts(lines, zones, exceptions, max_bytes)
        reader = _Reader(zones, exceptions)
        with LineFile(path, watch) as lines:
            for component in read_components(lines, CONTAINERS, max_bytes):
                yield from reader.read(component)
        yield from reader.read_rest()


class _Zones:
    """The zones of a file that have rules of their own, by calendar and TZID."""

    def __init__(self) -> None:
        self._common: dict[str, str] = {}  # TZID -> rules, of the first calendar that has it
        self._special: dict[tuple[int, str], str] = {}  # where another calendar has other rules

    def add(self, calendar: int, lines: list[bytes]) -> bool:
        """Keep a VTIMEZONE; False if it is too large, or one too many."""
        if sum(map(len, lines)) > MAX_ZONE_BYTES:
            return False
        rules = "\n".join(map(as_text, parse_record(lines)))
        tzid = read_property(lines, "TZID")
        if find_zone(tzid) == find_zone(tzid, rules) or self._rules(calendar, tzid) == rules:
            return True
        if len(self._common) + len(self._special) >= MAX_ZONES:
            return False
        if tzid in self._common:
            self._special[calendar, tzid] = rules
        else:
            self._common[tzid] = rules
        return True

    def _rules(self, calendar: int, tzid: str) -> str:
        return self._special.get((calendar, tzid)) or self._common.get(tzid, "")

    def find(self, calendar: int) -> Callable[[str], Zone]:
        """What finds a zone by its TZID in one calendar."""
        return lambda tzid: find_zone(tzid, self._rules(calendar, tzid))


class _Exception(NamedTuple):
    """A component that replaces one occurrence: where it stood, and its lines."""

    calendar: int
    method: str
    line: int
    octets: bytes


class _Exceptions:
    """The exceptions of a file, by UID, on disk: their number is not bounded by memory."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("")  # a file without a name, gone when it is closed
        self._database.execute(
            "create table exceptions (uid blob, calendar integer, method text, line integer, octets blob)"
        )
        self._is_empty = True
        self._is_indexed = False

    def add(self, uid: str, exception: _Exception) -> None:
        """Keep an exception for later."""
        self._database.execute("insert into exceptions values (?, ?, ?, ?, ?)", (uid.encode("utf-8"), *exception))
        self._is_empty = False

    def take(self, uid: str) -> list[_Exception]:
        """The exceptions to an event, in order; each is given once."""
        if self._is_empty:
            return []
        if not self._is_indexed:
            self._database.execute("create index by_uid on exceptions (uid)")
            self._is_indexed = True
        key = uid.encode("utf-8")
        query = "select calendar, method, line, octets from exceptions where uid = ? order by line limit ?"
        rows = self._database.execute(query, (key, MAX_OVERRIDES)).fetchall()
        if rows:
            self._database.execute("delete from exceptions where uid = ? and line <= ?", (key, rows[-1][2]))
        return [_Exception(*row) for row in rows]

    def next_uid(self) -> str | None:
        """The event of an exception that nobody has taken; None when there are no more."""
        row = self._database.execute("select uid from exceptions order by rowid limit 1").fetchone()
        return None if row is None else row[0].decode("utf-8")

    def close(self) -> None:
        self._database.close()


def _find_parts(lines: LineFile, zones: _Zones, exceptions: _Exceptions, max_bytes: int) -> None:
    calendar, method = 0, ""
    for component in read_components(lines, CONTAINERS, max_bytes):
        if component.problem:
            continue  # reported when the file is read for the second time
        if component.name == "VCALENDAR":
            calendar += 1
            method = read_property(component.lines, "METHOD").upper()
        elif component.name == "VTIMEZONE":
            zones.add(calendar, component.lines)
        elif component.name in ("VEVENT", "VTODO") and method not in NOT_EVENTS and is_exception(component.lines):
            uid = read_property(component.lines, "UID")
            if uid:
                exceptions.add(uid, _Exception(calendar, method, component.line, b"".join(component.lines)))


def is_exception(lines: list[bytes]) -> bool:
    """Whether a component replaces one occurrence of a recurring event."""
    return any(line[:13].upper() == b"RECURRENCE-ID" for line in lines)


def read_property(lines: list[bytes], name: str) -> str:
    """The text of the first property of this name in some lines; empty if there is none."""
    start = name[0].encode("ascii").lower()
    if not any(line[:1].lower() == start for line in lines):
        return ""
    return next((unescape(line.value).strip() for line in parse_record(lines) if line.name == name), "")


class _Reader:
    """Reads the components of a file for the second time, knowing its zones and exceptions."""

    def __init__(self, zones: _Zones, exceptions: _Exceptions) -> None:
        self._zones = zones
        self._exceptions = exceptions
        self._calendar = 0
        self._calendar_name = ""
        self._method = ""
        self._broken_overrides: list[Broken] = []

    def read(self, component: Component) -> Iterator[Record | Broken]:
        """What one component gives."""
        try:
            found = self._read(component)
        except RECORD_ERRORS as error:
            found = Broken(component.line, reason_of(error))
        if found is not None:
            yield found
        yield from self._broken_overrides
        self._broken_overrides.clear()

    def _read(self, component: Component) -> Record | Broken | None:
        name, line = component.name, component.line
        if component.problem:
            return Broken(line, component.problem)
        if name == "VCALENDAR":
            self._calendar += 1
            self._method = read_property(component.lines, "METHOD").upper()
            self._calendar_name = read_property(component.lines, "X-WR-CALNAME") or read_property(
                component.lines, "NAME"
            )
        elif name in ("VEVENT", "VTODO"):
            if self._method in NOT_EVENTS:
                return Broken(line, f"is a {self._method} to an invitation, not an event")
            if not is_exception(component.lines):
                return self._read_event(component)
            if not read_property(component.lines, "UID"):
                return Broken(line, "replaces an occurrence of an event, but does not say of which (no UID)")
        elif name == "VJOURNAL":
            return read_journal(component)
        elif name != "VTIMEZONE":
            return Broken(line, f"is a {name}, which is no event, task or note")
        elif not self._zones.add(self._calendar, component.lines):
            return Broken(line, f"is a time zone too many (over {MAX_ZONES}), or one too large: times in it are off")
        return None

    def _read_event(self, component: Component) -> Record:
        state = read_event(component.lines, self._zones.find(self._calendar))
        state["calendar"] = state["calendar"] or self._calendar_name
        state["uid"] = state["uid"] or stable_uid("event", component.lines)
        parts = [self._calendar_name.encode("utf-8"), *component.lines]
        for exception in self._exceptions.take(state["uid"]):
            state["overrides"].extend(self._read_override(exception, state))
            parts.append(exception.octets)
        record = Record("event", state["uid"], state, component.line, sum(map(len, parts)), fingerprint(*parts))
        record.losses = [
            f"has times in {tzid!r}, which neither the file nor this device knows: kept as local time without a zone"
            for tzid in unknown_zones(state)
        ]
        record.method = self._method
        record.patch = self._method == "CANCEL"
        return record

    def _read_override(self, exception: _Exception, series: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
        lines = [line + b"\n" for line in exception.octets.split(b"\n")]
        try:
            state = read_event(lines, self._zones.find(exception.calendar), series)
        except RECORD_ERRORS as error:
            self._broken_overrides.append(Broken(exception.line, reason_of(error)))
            return
        if exception.method == "CANCEL":
            state["status"] = "CANCELLED"
        if state["recurrence_id"] is not None:
            yield as_override(state)
        else:
            self._broken_overrides.append(Broken(exception.line, "replaces no occurrence that can be told"))

    def read_rest(self) -> Iterator[Record | Broken]:
        """The exceptions whose event is not in the file: each event's together, as a patch of it."""
        while (uid := self._exceptions.next_uid()) is not None:
            exceptions = self._exceptions.take(uid)
            overrides = [override for e in exceptions for override in self._read_override(e, None)]
            yield from self._broken_overrides
            self._broken_overrides.clear()
            parts = [exception.octets for exception in exceptions]
            state = {"uid": uid, "overrides": overrides}
            if overrides:
                yield Record(
                    "event", uid, state, exceptions[0].line, sum(map(len, parts)), fingerprint(*parts), patch=True
                )


def unknown_zones(state: dict[str, Any]) -> list[str]:
    """The names of the clocks of an event that nobody here knows: those are kept with the properties."""
    parameters = [part.get("parameters", {}) for part in (state, *state["overrides"])]
    return sorted({tzid for of in parameters for values in of.values() for tzid in values.get("TZID", ())})


def as_override(state: dict[str, Any]) -> dict[str, Any]:
    """The attributes of an exception that say something, as they are kept in `overrides` of its event."""
    blank = blank_event()
    return {name: value for name, value in state.items() if value != blank[name] and name not in ("uid", "calendar")}


def read_journal(component: Component) -> Record:
    """The note that a VJOURNAL is."""
    state = read_note(component.lines)
    state["uid"] = state["uid"] or stable_uid("note", component.lines)
    recurrence_id = next((p["value"] for p in state["properties"] if p["name"] == "RECURRENCE-ID"), "")
    if recurrence_id and not state["uid"].endswith(f"/{recurrence_id}"):  # an entry of its own in a series
        state["uid"] += f"/{recurrence_id}"
    size = sum(map(len, component.lines))
    return Record("note", state["uid"], state, component.line, size, fingerprint(*component.lines))


def stable_uid(prefix: str, lines: list[bytes]) -> str:
    """A UID for a component that has none, the same whenever it is exported again."""
    return hashed_uid(prefix, *(line.strip() for line in lines if line[:7].upper() not in VOLATILE))
