"""Times the workload on each store, in turns, and prints the medians and their ratios."""

from __future__ import annotations

import argparse
import importlib
import json
import random
import shutil
import statistics
import sys
import tempfile
import time
from typing import Any

from workload import BATCH, Subject, contacts, page_starts

SUBJECTS = {
    "raw Berkeley DB": "subjects_core:RawBerkeleyDB",
    "Atop": "subjects_core:Atop",
}
ROWS = ("create", "get", "page of 50", "update", "durable commit")


def per_call(calls: int, run: Any) -> float:
    """Microseconds for each of `calls`."""
    begin = time.perf_counter()
    run()
    return (time.perf_counter() - begin) / calls * 1e6


def measure(subject: Subject, count: int, seed: int) -> dict[str, float]:
    """One round of the workload: microseconds for each contact, page or commit."""
    rng = random.Random(seed)
    path = tempfile.mkdtemp(prefix="bench-")
    try:
        subject.open(path)
        people = list(contacts(count, seed))
        batches = [people[i : i + BATCH] for i in range(0, count, BATCH)]
        result = {"create": per_call(count, lambda: [subject.create(batch) for batch in batches])}
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


def load(name: str) -> Subject:
    module, _, cls = SUBJECTS[name].partition(":")
    return getattr(importlib.import_module(module), cls)()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", action="append", choices=SUBJECTS)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    chosen = options.only or list(SUBJECTS)
    results: dict[str, dict[str, list[float]]] = {name: {row: [] for row in ROWS} for name in chosen}
    for round_ in range(options.rounds):
        for name in chosen:
            for row, value in measure(load(name), options.items, round_ + 1).items():
                results[name][row].append(value)
            print(f"round {round_ + 1}: {name}", file=sys.stderr)
    medians = {name: {row: statistics.median(values) for row, values in rows.items()} for name, rows in results.items()}
    if options.json:
        print(json.dumps(medians, indent=1))
        return
    print(f"microseconds each, {options.items:,} contacts, median of {options.rounds} rounds")
    base = medians.get("raw Berkeley DB")
    for name in chosen:
        cells = [f"{medians[name][row]:9.1f}" + (f" ({medians[name][row] / base[row]:4.2f})" if base else "") for row in ROWS]
        print(f"{name:18}", *cells)


if __name__ == "__main__":
    main()
