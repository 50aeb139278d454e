"""Notes as iCalendar journal entries (VJOURNAL, RFC 5545 section 3.6.3): in, one component at a time."""

from __future__ import annotations

from typing import Any

from atop.pim.contentline import parse_record, split_texts, unescape
from atop.pim.contents import read_content
from atop.pim.ical import INSTANTS, as_text, kept, split_parts
from atop.pim.times import in_utc, parse_date, parse_timestamp, parse_wall_time


def blank_note() -> dict[str, Any]:
    """The attributes of a note of which nothing is known."""
    return {
        "uid": "",
        "title": "",
        "text": "",
        "created": None,
        "modified": None,
        "day": None,
        "tags": [],
        "attachments": [],
        "properties": [],
        "components": [],
    }


def read_note(lines: list[bytes]) -> dict[str, Any]:
    """The attributes of a VJOURNAL."""
    state = blank_note()
    own, parts = split_parts(parse_record(lines))
    seen: set[str] = set()
    texts: list[str] = []
    tags: dict[str, None] = {}  # a set that keeps the order
    for line in own[1:-1]:
        name, text = line.name, unescape(line.value)
        once = name not in seen
        seen.add(name)
        if name == "UID" and once:
            state["uid"] = text.strip()
        elif name == "SUMMARY" and once:
            state["title"] = text
        elif name == "DESCRIPTION":
            texts.append(text)
        elif name == "CATEGORIES":
            tags.update(dict.fromkeys(split_texts(line.value)))
        elif name in ("CREATED", "LAST-MODIFIED") and once and (moment := parse_timestamp(text.strip())):
            state[INSTANTS[name]] = in_utc(moment)
        elif name == "DTSTART" and once and (day := parse_date(text.strip())):
            state["day"] = day
            if parse_wall_time(text.strip()) is not None:  # a time of day, which `day` cannot hold
                state["properties"].append(kept(line))
        elif name == "ATTACH" and (content := read_content(line, "")):
            state["attachments"].append(content)
        elif name != "DTSTAMP":
            state["properties"].append(kept(line))
    for part in parts:
        state["components"].append("\n".join(map(as_text, part)))
    state["text"] = "\n\n".join(filter(None, texts))
    state["tags"] = list(tags)
    return state
