"""Atop beside raw Berkeley DB in short turns, for machines with other work to do: `ratios.py [COUNT] [--cpu]`.

Both have a store open and take turns of some milliseconds, so that a busy moment hits both. Prints the medians, in
microseconds, and the median of the turns' ratios. With `--cpu` it counts the time that the processor worked for the
turn, and not what it waited for the disk and for others.
"""

from __future__ import annotations

import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from subjects_core import Atop, RawBerkeleyDB
from workload import BATCH, Subject, contacts, page_starts

TURNS = 25

Turn = tuple[str, int, Callable[[Subject, list[Any]], object]]  # row, calls, what to do given the ids


def create(people: list[dict[str, Any]], subject: Subject, _: list[Any]) -> None:
    subject.create(people)


def single(people: list[dict[str, Any]], subject: Subject, _: list[Any]) -> None:
    for person in people:
        subject.create([person])


def turns(count: int) -> Iterator[Turn]:
    """What both do, in order."""
    people, rng = list(contacts(count)), random.Random(1)
    for start in range(0, count, BATCH):
        yield "create", len(people[start : start + BATCH]), partial(create, people[start : start + BATCH])
    for turn in range(TURNS):
        some = rng.sample(range(count), min(count, BATCH))
        starts = page_starts(100, turn)
        yield "get", len(some), lambda subject, ids, some=some: [subject.get(ids[i]) for i in some]
        yield "page of 50", 100, lambda subject, _, starts=starts: [subject.page(start) for start in starts]
    for turn in range(TURNS):
        some = rng.sample(range(count), min(count, BATCH))
        yield (
            "update",
            len(some),
            lambda subject, ids, some=some, turn=turn: subject.update([ids[i] for i in some], f"City {turn}"),
        )
        yield "durable commit", 50, partial(single, list(contacts(50, turn + 2)))


def main(count: int, clock: Callable[[], float]) -> None:
    subjects: tuple[Subject, Subject] = RawBerkeleyDB(), Atop()
    paths = [tempfile.mkdtemp(prefix="bench-") for _ in subjects]
    taken: dict[str, list[list[float]]] = {}
    try:
        for subject, path in zip(subjects, paths, strict=True):
            subject.open(path)
        ids: list[list[Any]] = [[], []]
        for row, calls, run in turns(count):
            if row != "create" and not ids[0]:
                ids = [subject.ids() for subject in subjects]
            both = []
            for subject, known in zip(subjects, ids, strict=True):
                begin = clock()
                run(subject, known)
                both.append((clock() - begin) / calls * 1e6)
            taken.setdefault(row, []).append(both)
        for subject in subjects:
            subject.close()
    finally:
        for path in paths:
            shutil.rmtree(path, ignore_errors=True)
    for row, pairs in taken.items():
        raw, atop = (statistics.median(pair[i] for pair in pairs) for i in (0, 1))
        ratio = statistics.median(pair[1] / pair[0] for pair in pairs)
        print(f"{row:16} raw {raw:8.1f}  Atop {atop:8.1f}  ratio {ratio:.2f}")


if __name__ == "__main__":
    counts = [int(argument) for argument in sys.argv[1:] if argument != "--cpu"]
    main(counts[0] if counts else 100_000, time.thread_time if "--cpu" in sys.argv else time.perf_counter)
