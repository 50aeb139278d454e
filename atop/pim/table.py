"""Tables (CSV) in and out: contacts, events and notes of other programs, and any table at all.

The export's own tables are known by their first heading, and read by `cells`. Tables of other programs are contacts,
events or notes if their headings say so, and plain items else, one attribute a column, all of them text.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Any

from atop import Item
from atop.pim.cells import ABSENT, MORE_HEADING, TYPE_HEADING, Column, columns_of, read_cell
from atop.pim.contact_table import ContactTable, DateOrder, date_order, looks_like_contacts, read_table_date, simplify
from atop.pim.contentline import escape
from atop.pim.ical import blank_event
from atop.pim.ical_note import blank_note
from atop.pim.incoming import (
    IMPORT_KEY,
    IMPORT_MARK,
    RECORD_ERRORS,
    Broken,
    Kind,
    Record,
    fingerprint,
    hashed_uid,
    reason_of,
)
from atop.pim.items import KINDS
from atop.pim.rows import Row, read_rows
from atop.pim.times import UTC, parse_wall_time
from atop.pim.typed import Decoder
from atop.pim.zones import FLOATING

# Rows looked at before the first is read, to find out which way round dates are.
LOOK_AHEAD = 1_000

_CLOCK = re.compile(r"(\d{1,2})[:.](\d\d)(?:[:.](\d\d))?\s*(?:([ap])\.?m\.?)?\Z", re.IGNORECASE)
_NOT_IDENTIFIER = re.compile(r"\W+", re.ASCII)

EVENT_COLUMNS = {
    "subject": "summary",
    "summary": "summary",
    "title": "summary",
    "start date": "start date",
    "start": "start date",
    "start time": "start time",
    "end date": "end date",
    "end": "end date",
    "end time": "end time",
    "all day event": "all day",
    "all day": "all day",
    "description": "description",
    "notes": "description",
    "location": "location",
    "private": "private",
    "categories": "categories",
}
NOTE_COLUMNS = {"title": "title", "text": "text", "content": "text", "body": "text", "note": "text", "tags": "tags"}


def read_table(lines: Iterable[bytes | None], decoder: Decoder) -> Iterator[Record | Broken]:
    """The records of a table, in order."""
    rows = read_rows(lines)
    header = next(rows, None)
    while isinstance(header, Broken):
        yield header
        header = next(rows, None)
    if header is None:
        return
    headings = [heading.strip() for heading in header.cells]
    reader = _reader_for(headings, decoder)
    ahead = list(islice(rows, LOOK_AHEAD))
    reader.learn([row.cells for row in ahead if isinstance(row, Row)])
    for row in chain(ahead, rows):
        if isinstance(row, Broken):
            yield row
        elif len(row.cells) > len(headings) and any(row.cells[len(headings) :]):
            yield Broken(row.line, f"has {len(row.cells)} cells, and the table has {len(headings)} columns")
        else:
            try:
                yield reader.record(row)
            except RECORD_ERRORS as error:
                yield Broken(row.line, reason_of(error))


def _reader_for(headings: list[str], decoder: Decoder) -> _Reader:
    simple = [simplify(heading) for heading in headings]
    if headings[0] == TYPE_HEADING:
        return _OwnRows(headings, decoder)
    if looks_like_contacts(headings):
        return _ContactRows(headings)
    if {"subject", "summary", "title"} & set(simple) and {"start date", "start"} & set(simple):
        return _EventRows(simple, headings)
    if "title" in simple and {"text", "content", "body", "note"} & set(simple):
        return _NoteRows(simple)
    return _PlainRows(headings)


class _Reader:
    """What makes records of the rows of one table."""

    def learn(self, rows: list[list[str]]) -> None:
        """Look at the first rows before any is read."""

    def record(self, row: Row) -> Record:
        """The record of a row. Raises ValueError."""
        raise NotImplementedError


def _record(kind: Kind, prefix: str, state: dict[str, Any], row: Row) -> Record:
    octets = [cell.encode("utf-8", "surrogatepass") for cell in row.cells]
    state["uid"] = state.get("uid") or hashed_uid(prefix, *octets)
    mark = fingerprint(*(len(cell).to_bytes(8, "big") + cell for cell in octets))
    return Record(kind, state["uid"], state, row.line, sum(map(len, octets)), mark)


class _ContactRows(_Reader):
    def __init__(self, headings: list[str]) -> None:
        self._table = ContactTable(headings)
        # Two address books may each have one John Smith: so the headings tell their records apart.
        self._prefix = f"row-{fingerprint(*(heading.encode('utf-8', 'replace') for heading in headings))[:4].hex()}"

    def learn(self, rows: list[list[str]]) -> None:
        self._table.learn(rows)

    def record(self, row: Row) -> Record:
        record = _record("contact", self._prefix, self._table.read(row.cells), row)
        record.unidentified = record.uid.startswith(f"{self._prefix}-")
        return record


class _EventRows(_Reader):
    """The calendar tables of Google and Outlook. Their times are on no certain clock."""

    def __init__(self, simple: list[str], headings: list[str]) -> None:
        self._columns = [EVENT_COLUMNS.get(heading, "") for heading in simple]
        self._headings = headings
        self._order: DateOrder = ""

    def learn(self, rows: list[list[str]]) -> None:
        dates = [i for i, column in enumerate(self._columns) if column.endswith("date")]
        # Google documents month first, so where no row tells, it is that.
        self._order = date_order(cells[i] for cells in rows for i in dates if i < len(cells)) or "month first"

    def record(self, row: Row) -> Record:
        state = blank_event()
        cells: dict[str, str] = {}
        for column, heading, cell in zip(self._columns, self._headings, row.cells, strict=False):
            text = cell.strip()
            if column and not cells.get(column):
                cells[column] = text
            elif text and cells.get(column) != text:
                entry = {"name": "X-ATOP-COLUMN", "value": escape(cell), "parameters": {"LABEL": [heading]}}
                state["properties"].append(entry)
        for name in ("summary", "description", "location"):
            state[name] = cells.get(name, "")
        state["categories"] = [part for text in re.split("[;,]", cells.get("categories", "")) if (part := text.strip())]
        state["visibility"] = "PRIVATE" if cells.get("private", "").lower() == "true" else ""
        start = self._moment(cells.get("start date", ""), cells.get("start time", ""))
        if start is None:
            raise ValueError(f"has a start that is no date: {cells.get('start date', '')[:40]!r}")
        state["start"] = start[0]
        state["all_day"] = cells.get("all day", "").lower() == "true" or not start[1]
        state["time_zone"] = "" if state["all_day"] else FLOATING
        end = self._moment(cells.get("end date", "") or cells.get("start date", ""), cells.get("end time", ""))
        if end is not None and state["all_day"]:  # the last day, in these tables
            state["start"], state["end"] = _midnight(start[0]), _midnight(end[0]) + datetime.timedelta(days=1)
        elif end is not None and end[1]:
            state["end"] = end[0]
        return _record("event", "row", state, row)

    def _moment(self, date: str, time: str) -> tuple[datetime.datetime, bool] | None:
        """The moment, and whether it has a time of day."""
        wall = parse_wall_time(date)
        day = read_table_date(date, self._order)
        if wall is None and day is not None:
            clock = read_clock(time)
            wall = datetime.datetime.combine(day, clock or datetime.time())
            return wall.replace(tzinfo=UTC), clock is not None
        return None if wall is None else (wall.replace(tzinfo=UTC), True)


def _midnight(moment: datetime.datetime) -> datetime.datetime:
    return moment.replace(hour=0, minute=0, second=0, microsecond=0)


def read_clock(text: str) -> datetime.time | None:
    """A time of day: `14:30`, `2:30 PM`, `14.30`."""
    match = _CLOCK.match(text.strip())
    if match is None:
        return None
    hour, minute, second = int(match[1]), int(match[2]), int(match[3] or 0)
    if match[4]:
        hour = hour % 12 + (12 if match[4].lower() == "p" else 0)
    return datetime.time(hour, minute, second) if hour < 24 and minute < 60 and second < 60 else None


class _NoteRows(_Reader):
    def __init__(self, simple: list[str]) -> None:
        self._columns = [NOTE_COLUMNS.get(heading, "") for heading in simple]
        self._headings = simple

    def record(self, row: Row) -> Record:
        state = blank_note()
        for column, heading, cell in zip(self._columns, self._headings, row.cells, strict=False):
            if column == "tags":
                state["tags"] = [part for text in re.split("[;,]", cell) if (part := text.strip())]
            elif column and not state[column]:
                state[column] = cell
            elif cell.strip():
                entry = {"name": "X-ATOP-COLUMN", "value": escape(cell), "parameters": {"LABEL": [heading]}}
                state["properties"].append(entry)
        return _record("note", "row", state, row)


class _PlainRows(_Reader):
    """A table of anything: an item a row, a text a column."""

    def __init__(self, headings: list[str]) -> None:
        self._names: list[str] = []
        for number, heading in enumerate(headings, 1):
            name = attribute_name(heading) or f"column_{number}"
            while name in self._names:
                name += "_"
            self._names.append(name)
        self._keys = [i for i, name in enumerate(self._names) if name in ("uid", "id")][:1]

    def record(self, row: Row) -> Record:
        state: dict[str, Any] = dict.fromkeys(self._names, "")
        state.update(zip(self._names, row.cells, strict=False))
        keys = [row.cells[i].strip() for i in self._keys if i < len(row.cells) and row.cells[i].strip()]
        record = _record("item", "row", {"uid": f"id:{keys[0]}" if keys else ""}, row)
        record.state = state
        record.type_name = "atop.Item"
        return record


def attribute_name(heading: str) -> str:
    """A heading as the name of an attribute that an item can have; empty if nothing of it can be."""
    name = _NOT_IDENTIFIER.sub("_", heading.strip().lower()).strip("_")
    if name[:1].isdigit():
        name = f"column_{name}"
    return f"{name}_" if hasattr(Item, name) or name in ("store", IMPORT_KEY, IMPORT_MARK) else name


class _OwnRows(_Reader):
    """The rows of a table that was exported here."""

    def __init__(self, headings: list[str], decoder: Decoder) -> None:
        self._headings = headings
        self._decoder = decoder

    def record(self, row: Row) -> Record:
        cells = dict(zip(self._headings, row.cells, strict=False))
        type_name = cells.pop(TYPE_HEADING)
        more = cells.pop(MORE_HEADING, "")
        kind = KINDS.get(type_name, "item")
        columns = columns_of(type_name)
        plain = Column()
        state: dict[str, Any] = {}
        losses: list[str] = []
        lossy: set[str] = set()
        for name, cell in cells.items():
            value = read_cell(cell, columns.get(name, plain), self._decoder)
            found = self._decoder.take_losses()
            if found:
                losses += found
                lossy.add(name)
            if value is not ABSENT:
                state[name] = value
        if more:
            state |= self._decoder.loads(more)
        record = _record(kind, "row", dict(state) if kind == "item" else state, row)
        if kind == "item":
            record.state = state
        record.type_name = type_name
        record.losses, record.lossy = losses + self._decoder.take_losses(), lossy
        return record
