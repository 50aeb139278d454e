"""Finding the last commit that two histories have in common: the questions, and the answers.

A device asks a master about its own commits at distances that double, and then between the last that the master has
and the first that it has not, until these are neighbours: for a million commits, four messages or so. Numbers of
commits are those of who asks.
"""

from __future__ import annotations

from collections.abc import Callable

from atop.engine import JOURNAL, Engine
from atop.records import pack_u64

from .messages import MAX_SAMPLES, CommonAnswered, CommonAsked

Ask = Callable[[list[int]], CommonAnswered]
Sample = tuple[int, bytes]


def find_common(engine: Engine, head: int, ask: Ask) -> int:
    """The number of the last commit up to which the histories are one; 0 where none is found.

    The master may have later commits of this device's as well, which another one has brought it. That says nothing
    about those before them: it may have them in another order, or not at all.
    """
    oldest = max(1, engine.oldest_commit())
    numbers, distance = [head], 1
    while numbers[-1] > oldest:
        numbers.append(max(oldest, head - distance))
        distance *= 2
    return _narrow(ask, numbers, oldest, head)


def _narrow(ask: Ask, numbers: list[int], oldest: int, newest: int) -> int:
    """The highest number in a range for which the master says yes, as it does up to that one; or 0."""
    low, high = 0, newest + 1  # yes, or not known; no
    while True:
        samples = sorted({n for n in numbers if max(low + 1, oldest) <= n < high}, reverse=True)[:MAX_SAMPLES]
        if not samples:
            first = max(low + 1, oldest)
            if first >= high:
                return low
            step = max(1, -(-(high - first) // MAX_SAMPLES))
            numbers = list(range(first, high, step))
            continue
        low = max(low, ask(samples).same)
        high = min([n for n in samples if n > low], default=high)
        numbers = []


def samples_of(engine: Engine, numbers: list[int]) -> list[Sample]:
    """The commits of these numbers as they are asked for: number, and chain value."""
    records = ((number, engine.get(JOURNAL, pack_u64(number))) for number in numbers)
    return [(number, record[:32]) for number, record in records if record is not None]


def common_answer(engine: Engine, asked: CommonAsked) -> CommonAnswered:
    """What a master says: up to which of these commits, if any, its history is the same, on its disk."""
    settled = engine.settled()
    for number, value in asked.samples:
        record = engine.get(JOURNAL, pack_u64(number))
        if record is not None and record[:32] == value and number <= settled:
            return CommonAnswered(asked.samples[0][0], number)
    return CommonAnswered(asked.samples[0][0], 0)
