"""What it costs to use a store that another process owns: the same work embedded and attached, in turns.

`attached.py own STORE` is that other process: it opens the store, says so, and waits to be killed.
"""

from __future__ import annotations

import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from subjects_core import Atop
from workload import BATCH, contacts, page_starts

from atop import Store

CACHED = 2_000  # items that are read again and again: they fit into what an attached process keeps
# What is asked of attached rows, as multiples of the embedded ones; of the import, as a part of its speed.
LIMITS = {"get, cached here": 25.0, "page of 50": 4.0, "create": 1 / 0.4}


class Owner:
    """A process that owns the store in `path`."""

    def __init__(self, path: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "own", path], stdout=subprocess.PIPE, stdin=subprocess.PIPE
        )
        if self._process.stdout is None or not self._process.stdout.readline():
            raise RuntimeError("the process that was to own the store has failed")

    def kill(self) -> None:
        """End it without a word."""
        self._process.kill()
        self._process.communicate()


def rows(path: str, count: int, seed: int) -> dict[str, float]:
    """One round: microseconds for each contact, page or commit, in a store that is open in whatever way."""
    rng = random.Random(seed)
    subject = Atop()
    subject.open(path)
    people = contacts(count, seed)
    result: dict[str, float] = {}
    begin = time.perf_counter()
    while batch := list(islice(people, BATCH)):
        subject.create(batch)
    result["create"] = (time.perf_counter() - begin) / count * 1e6
    cached = rng.sample(subject.ids(), min(CACHED, count))

    def each(calls: list[Any], call: Callable[[Any], Any]) -> float:
        begin = time.perf_counter()
        for argument in calls:
            call(argument)
        return (time.perf_counter() - begin) / len(calls) * 1e6

    each(cached, subject.get)
    result["get, cached here"] = each(rng.choices(cached, k=10_000), subject.get)
    starts = page_starts(1_000, seed)
    each(starts[:50], subject.page)
    result["page of 50"] = each(starts, subject.page)
    result["durable commit"] = each(list(contacts(300, seed + 1)), lambda person: subject.create([person]))
    subject.close()
    return result


def measure_attached(count: int, rounds: int) -> Iterator[tuple[str, str, float]]:
    """(What, unit, figure) for each row: embedded, attached, and the multiple."""
    taken: dict[str, list[dict[str, float]]] = {"embedded": [], "attached": []}
    for round_ in range(rounds):
        for how, results in taken.items():
            path = tempfile.mkdtemp(prefix="bench-")
            print(f"{count:,} contacts, round {round_ + 1} of {rounds}: {how} ...", file=sys.stderr)
            owner = Owner(path) if how == "attached" else None
            try:
                results.append(rows(path, count, round_ + 1))
            finally:
                if owner is not None:
                    owner.kill()
                shutil.rmtree(path, ignore_errors=True)
    for row in taken["embedded"][0]:
        embedded, attached = (statistics.median(result[row] for result in taken[how]) for how in taken)
        yield f"{row}, embedded", "us", embedded
        yield f"{row}, attached", "us", attached
        limit = f" (at most {LIMITS[row]:g})" if row in LIMITS else ""
        yield f"{row}, attached / embedded{limit}", "times", attached / embedded
    yield "owner killed, to the next commit here", "ms", statistics.median(take_over() for _ in range(5)) * 1e3
    yield "commit of the owner, to the object that shows it", "ms", lag() * 1e3


def take_over() -> float:
    """Seconds from the death of the owner to the next commit, in a process that was attached to it."""
    path = tempfile.mkdtemp(prefix="bench-")
    try:
        owner = Owner(path)
        with Store(path) as store:
            pool = store.pool("numbers", indexes=["number"])
            subject = Atop()
            subject._store, subject._pool = store, pool
            subject.create(list(contacts(1_000)))
            owner.kill()
            begin = time.perf_counter()
            subject.create(list(contacts(1)))
            return time.perf_counter() - begin
    finally:
        shutil.rmtree(path, ignore_errors=True)


def lag() -> float:
    """Seconds from when a commit of the owner has returned, to when an object that is held here has its value."""
    path = tempfile.mkdtemp(prefix="bench-")
    owner = Owner(path)
    try:
        with Store(path) as store:
            store.ask("make")
            item = store.get(1)
            item.number  # noqa: B018 - so that it is held with its state
            taken = []
            for number in range(1, 101):
                store.ask("soon", number=number)
                while item.number != number:
                    time.sleep(0.000_02)
                seen = time.monotonic()
                taken.append(seen - store.ask("when"))
            return statistics.median(taken)
    finally:
        owner.kill()
        shutil.rmtree(path, ignore_errors=True)


def own(path: str) -> None:
    """Be the owner."""
    from atop import Item

    when = 0.0

    def make() -> None:
        Item(store, number=0)

    def soon(number: int) -> None:
        def change() -> None:
            nonlocal when
            store.get(1).number = number
            when = time.monotonic()

        threading.Timer(0.005, change).start()

    store = Store(path)
    store.provide("make", make)
    store.provide("soon", soon)
    store.provide("when", lambda: when)
    print("open", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    own(sys.argv[2])
