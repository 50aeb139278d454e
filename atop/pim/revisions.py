"""Which of two versions of a record is newer, and what invitations and exceptions change in an event.

Pure decisions on attributes: nothing is read from or written to a store here.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

from atop import File
from atop.pim.calendar_file import as_override
from atop.pim.ical import blank_event
from atop.pim.incoming import Content, Record
from atop.pim.times import UTC
from atop.pim.zones import Zone


def why_older(here: Mapping[str, Any], record: Record) -> str:
    """Why a record is an older revision of what is here; empty if it is not, or if neither says."""
    new = record.state
    if record.kind == "event" and "sequence" in new:
        if new["sequence"] < here["sequence"]:
            return f"is an older revision (SEQUENCE {new['sequence']}) of what is here ({here['sequence']})"
        if new["sequence"] > here["sequence"]:
            return ""
    name = {"event": "modified", "note": "modified", "contact": "revised"}.get(record.kind, "")
    before, after = here.get(name), new.get(name)
    if before is not None and after is not None and after < before:
        return f"is an older revision (of {after:%Y-%m-%d %H:%M}) of what is here (of {before:%Y-%m-%d %H:%M})"
    return ""


def is_newer(here: Mapping[str, Any], record: Record) -> bool:
    """Whether a record says that it is a newer revision of what is here."""
    new = record.state
    if record.kind == "event" and new.get("sequence", 0) != here["sequence"]:
        return bool(new.get("sequence", 0) > here["sequence"])
    name = {"event": "modified", "note": "modified", "contact": "revised"}.get(record.kind, "")
    before, after = here.get(name), new.get(name)
    return before is not None and after is not None and after > before


def patched(here: Mapping[str, Any], record: Record) -> dict[str, Any]:
    """What a patch changes in an event: a cancellation of all of it, or exceptions to it."""
    changes: dict[str, Any] = {}
    new = record.state
    if record.method == "CANCEL" and new.get("sequence", 0) >= here["sequence"]:
        changes = {"status": "CANCELLED", "sequence": new.get("sequence", 0)}
    overrides = [dict(override) for override in here["overrides"]]
    for override in new["overrides"]:
        moment = on_clock_of(here, override["recurrence_id"])
        if here["recurrence_id"] is not None and moment == here["recurrence_id"]:
            changes |= {**override, "recurrence_id": moment}
            continue
        place = next((i for i, there in enumerate(overrides) if there["recurrence_id"] == moment), len(overrides))
        if place < len(overrides) and overrides[place].get("sequence", 0) > override.get("sequence", 0):
            continue
        overrides[place : place + 1] = [{**override, "recurrence_id": moment}]
    if overrides != here["overrides"]:
        changes["overrides"] = overrides
    return changes


def event_of_exceptions(record: Record) -> dict[str, Any]:
    """The event to keep where there are only exceptions to one: the first of them, with the others."""
    first, *others = record.state["overrides"]
    return {**blank_event(), **first, "uid": record.uid, "overrides": others}


def with_own_exception(here: Mapping[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    """The attributes of an event that has come, when so far only an exception to it was here: which is kept."""
    there = {override["recurrence_id"] for override in state["overrides"]}
    own = as_override({name: here[name] for name in blank_event() if name != "overrides"})
    kept = [{**o, "recurrence_id": on_clock_of(state, o["recurrence_id"])} for o in (own, *here["overrides"])]
    return {**state, "overrides": state["overrides"] + [o for o in kept if o["recurrence_id"] not in there]}


def on_clock_of(series: Mapping[str, Any], moment: datetime.datetime) -> datetime.datetime:
    """The start of an occurrence, as the event that it belongs to writes its times."""
    if series["all_day"]:
        return moment.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=UTC)
    return Zone(series["time_zone"], series["time_zone_rules"]).convert(moment)


def is_same(old: Any, new: Any) -> bool:
    """Whether a value that an item holds is what a record brings: times with their offsets, files by contents."""
    if isinstance(new, Content):
        if not isinstance(old, File) or old.size != len(new.data):
            return False
        return (old.name, old.media_type, old.digest) == (new.name, new.media_type, new.digest())
    if isinstance(new, dict):
        return isinstance(old, dict) and old.keys() == new.keys() and all(is_same(old[k], v) for k, v in new.items())
    if isinstance(new, list):
        return isinstance(old, list) and len(old) == len(new) and all(map(is_same, old, new))
    if isinstance(new, datetime.datetime):
        return type(old) is datetime.datetime and old == new and old.utcoffset() == new.utcoffset()
    return type(old) is type(new) and bool(old == new)
