"""Where things go that overlap: bars over several days one below the other, events of one day side by side. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

# The shortest that an event is drawn, in minutes: its title needs the room.
SHORTEST = 30


def lanes(spans: Sequence[tuple[int, int]]) -> list[int]:
    """A lane for each span (its first day, the one after its last), so that none in a lane overlap; low ones first."""
    busy_until: list[int] = []
    found = [0] * len(spans)
    for place in sorted(range(len(spans)), key=lambda at: (spans[at][0], -spans[at][1], at)):
        begin, end = spans[place]
        lane = next((n for n, until in enumerate(busy_until) if until <= begin), len(busy_until))
        if lane == len(busy_until):
            busy_until.append(end)
        busy_until[lane] = end
        found[place] = lane
    return found


def columns(events: list[dict[str, Any]]) -> None:
    """Give each event of a day (`begin` and `end` in minutes) its `column`, and of how many (`columns`)."""
    events.sort(key=lambda event: (event["begin"], -event["end"]))
    cluster: list[dict[str, Any]] = []
    cluster_end = 0
    for event in events:
        end = max(event["end"], event["begin"] + SHORTEST)
        if cluster and event["begin"] >= cluster_end:
            _spread(cluster)
            cluster, cluster_end = [], 0
        cluster.append(event)
        cluster_end = max(cluster_end, end)
    _spread(cluster)


def _spread(cluster: list[dict[str, Any]]) -> None:
    spans = [(event["begin"], max(event["end"], event["begin"] + SHORTEST)) for event in cluster]
    found = lanes(spans)
    for event, column in zip(cluster, found, strict=True):
        event["column"], event["columns"] = column, max(found) + 1
