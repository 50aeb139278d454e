"""Measures the store beside others on one workload, in turns, and prints medians and their ratios.

Every subject flushes every commit to the disk, has the same batches, and starts each round with an empty directory.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import os
import platform
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import Any

from attached import measure_attached
from browser import measure_browser
from large import measure_imports, measure_large
from workload import BATCH, Subject, contacts, page_starts

BASE = "raw Berkeley DB"
SUBJECTS = {
    BASE: "subjects_core:RawBerkeleyDB",
    "Atop": "subjects_core:Atop",
    "SQLite": "subjects_sqlite:SQLite",
    "SQLAlchemy": "subjects_orm:SQLAlchemy",
    "peewee": "subjects_orm:Peewee",
    "ZODB": "subjects_zodb:Zodb",
}
ROWS = ("create", "get", "page of 50", "update", "durable commit")
SIZES = (10_000, 100_000)
LARGE = 1_000_000
LARGE_SUBJECTS = (BASE, "Atop", "SQLite")  # with a million items the others take up to a quarter of an hour each
SHARED = 20_000  # contacts of the store that two processes share
IMPORTED = 5_000  # records of the files that are imported

Figures = dict[str, dict[str, float]]  # subject -> row -> microseconds


def per_call(calls: int, run: Callable[[], Any]) -> float:
    """Microseconds for each of `calls`."""
    begin = time.perf_counter()
    run()
    return (time.perf_counter() - begin) / calls * 1e6


def measure(subject: Subject, count: int, seed: int) -> dict[str, float]:
    """One round of the workload: microseconds for each contact, page or commit."""
    rng = random.Random(seed)
    path = tempfile.mkdtemp(prefix="bench-")
    gc.collect()
    gc.freeze()  # Python's collector does not look through what other subjects' libraries hold, at this one's expense
    try:
        subject.open(path)
        people = contacts(count, seed)
        taken = 0.0
        while batch := list(islice(people, BATCH)):
            taken += per_call(1, partial(subject.create, batch))
        result = {"create": taken / count}
        identifiers = subject.ids()
        wanted = rng.choices(identifiers, k=min(count, 50_000))
        result["get"] = per_call(len(wanted), lambda: [subject.get(i) for i in wanted])
        starts = page_starts(1_000, seed)
        for start in starts[:50]:
            subject.page(start)
        result["page of 50"] = per_call(len(starts), lambda: [subject.page(s) for s in starts])
        chosen = rng.sample(identifiers, min(count, 20_000))
        groups = [chosen[i : i + BATCH] for i in range(0, len(chosen), BATCH)]
        result["update"] = per_call(len(chosen), lambda: [subject.update(g, f"City {n}") for n, g in enumerate(groups)])
        singles = list(contacts(500, seed + 1))
        result["durable commit"] = per_call(len(singles), lambda: [subject.create([p]) for p in singles])
        subject.close()
        return result
    finally:
        shutil.rmtree(path, ignore_errors=True)


def load(name: str) -> Callable[[], Subject] | None:
    """The class of a subject; None, with a word on standard error, where what it needs is not installed."""
    module, _, cls = SUBJECTS[name].partition(":")
    try:
        found: Callable[[], Subject] = getattr(importlib.import_module(module), cls)
    except ImportError as error:
        print(f"{name} is left out: {error}", file=sys.stderr)
        return None
    return found


def compare(makers: dict[str, Callable[[], Subject]], count: int, rounds: int) -> Figures:
    """The medians of some rounds."""
    taken: dict[str, dict[str, list[float]]] = {name: {row: [] for row in ROWS} for name in makers}
    for round_ in range(rounds):
        for name, make in makers.items():
            print(f"{count:,} contacts, round {round_ + 1} of {rounds}: {name} ...", file=sys.stderr)
            for row, value in measure(make(), count, round_ + 1).items():
                taken[name][row].append(value)
    return {name: {row: statistics.median(values) for row, values in rows.items()} for name, rows in taken.items()}


def show(figures: Figures, count: int, rounds: int) -> None:
    """Print one table: microseconds, and multiples of what raw Berkeley DB takes."""
    print(f"\n{count:,} contacts with four indexes: microseconds each, median of {rounds}")
    print(f"{'(x raw Berkeley DB)':16}", *(f"{row:>17}" for row in ROWS))
    base = figures.get(BASE)
    for name, rows in figures.items():
        ratios = [f"({rows[row] / base[row]:.2f})" if base else "" for row in ROWS]
        print(f"{name:19}", *(f"{rows[row]:9.1f} {ratio:>7}" for row, ratio in zip(ROWS, ratios, strict=True)))


def show_others(title: str, figures: list[tuple[str, str, float]]) -> None:
    """Print figures that stand alone."""
    print(f"\n{title}")
    for what, unit, figure in figures:
        print(f"{what:52} {figure:>12,.{0 if figure >= 100 else 2}f} {unit}")


def machine() -> str:
    """What this runs on, in a line."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 30
    system = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    return f"{os.cpu_count()} CPUs, {memory} GiB, {system}"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, action="append", help="contacts; again for further sizes [10000, 100000]")
    parser.add_argument("--rounds", type=int, default=3, help="rounds to take the median of [3]")
    parser.add_argument("--only", action="append", choices=SUBJECTS, help="one subject; again for more [all]")
    parser.add_argument("--full", action="store_true", help="also 1,000,000 items, memory, opening, imports of files")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    options = parser.parse_args()
    if options.rounds < 1 or any(count < BATCH for count in options.items or ()):
        parser.error(f"at least one round, and {BATCH} items")
    return options


def main() -> None:
    options = parse()
    makers = {name: maker for name in options.only or SUBJECTS if (maker := load(name)) is not None}
    sizes = options.items or [*SIZES, *([LARGE] if options.full else [])]
    results: dict[str, Any] = {"machine": machine(), "rounds": options.rounds, "sizes": {}}
    if not options.json:
        print(results["machine"])
    for count in sizes:
        rounds = options.rounds if count < LARGE else 1  # minutes each
        chosen = {n: m for n, m in makers.items() if count < LARGE or n in (options.only or LARGE_SUBJECTS)}
        results["sizes"][count] = figures = compare(chosen, count, rounds)
        if not options.json:
            show(figures, count, rounds)
    others = []
    if "Atop" in makers:
        title = f"{SHARED:,} contacts in a store that another process owns"
        others.append(("attached", title, measure_attached(SHARED, options.rounds)))
    if options.full:
        others.append(("large", f"A store of {LARGE:,} contacts with four indexes", measure_large(LARGE)))
        others.append(("imports", "Imports of files", measure_imports(IMPORTED)))
        others.append(("browser", "The data browser over HTTP on loopback", measure_browser(LARGE)))
    for key, title, figures in others:
        results[key] = list(figures)
        if not options.json:
            show_others(title, results[key])
    if options.json:
        print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
