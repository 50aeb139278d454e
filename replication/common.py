"""Finding the last commit that two histories have in common: the questions, and the answers.

A device asks a master about its own commits at distances that double, and then between the last that the master has
and the first that it has not, until these are neighbours: for a million commits, four messages or so. Numbers of
commits are those of who asks.
"""

from __future__ import annotations

from collections.abc import Callable

from atop.engine import COMMITS, JOURNAL, Engine
from atop.records import pack_u64, unpack_u64

from .messages import MAX_SAMPLES, CommonAnswered, CommonAsked

Ask = Callable[[list[int]], CommonAnswered]
Sample = tuple[int, bytes, int]


def find_common(engine: Engine, head: int, ask: Ask) -> tuple[int, int]:
    """The numbers of the last commit that the master has, and of the last up to which the histories are one.

    The master may have commits of this device's that another device has replayed; then the first is the higher.
    """
    oldest = max(1, engine.oldest_commit())
    numbers, distance = [head], 1
    while numbers[-1] > oldest:
        numbers.append(max(oldest, head - distance))
        distance *= 2
    has = _narrow(ask, numbers, oldest, head, lambda answer: answer.has)
    if not has:
        return 0, 0
    return has, _narrow(ask, [n for n in numbers if n <= has], oldest, has, lambda answer: answer.same)


def _narrow(ask: Ask, numbers: list[int], oldest: int, newest: int, of: Callable[[CommonAnswered], int]) -> int:
    """The highest number in a range for which the master says yes, as it does up to some number; or 0."""
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
        low = max(low, of(ask(samples)))
        high = min([n for n in samples if n > low], default=high)
        numbers = []


def samples_of(engine: Engine, numbers: list[int]) -> list[Sample]:
    """The commits of these numbers as they are asked for: number, chain value, id."""
    records = ((number, engine.get(JOURNAL, pack_u64(number))) for number in numbers)
    return [(number, record[:32], int(unpack_u64(record, 32)[0])) for number, record in records if record is not None]


def common_answer(engine: Engine, asked: CommonAsked) -> CommonAnswered:
    """What a master says: which of these commits it has on its disk, and up to which the histories are the same."""
    has = same = 0
    settled = engine.settled()
    for number, value, commit_id in asked.samples:
        known = engine.get(COMMITS, pack_u64(commit_id))
        if not has and known is not None and unpack_u64(known)[0] <= settled:
            has = number
        record = engine.get(JOURNAL, pack_u64(number))
        if not same and record is not None and record[:32] == value and number <= settled:
            same = number
    return CommonAnswered(asked.samples[0][0], max(has, same), same)
