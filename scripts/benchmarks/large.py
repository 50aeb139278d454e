"""What a large store costs, each step in a process of its own: `large.py STEP STORE COUNT` prints one JSON object.

Steps: `import` makes a store of COUNT contacts in batches; `open` times opening it; `scan` reads every contact;
`page` times pages; `hold` commits, says so, and waits to be killed.
"""

from __future__ import annotations

import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from subjects_core import Atop, Contact
from workload import BATCH, contacts, page_starts

from atop import Store

SMALL = 10_000  # items of the store whose pages the large one's are compared with
ROUNDS = 11  # how often pages of the two are timed, in turns


def memory() -> float:
    """The most memory that this process has had, in MiB.

    From /proc where there is one: what getrusage says includes the process that started this one.
    """
    try:
        status = Path("/proc/self/status").read_text("ascii")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 1 << 20)
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def step_import(path: str, count: int) -> dict[str, float]:
    store = Atop()
    store.open(path)
    people = contacts(count)
    begin = time.perf_counter()
    while batch := list(islice(people, BATCH)):
        store.create(batch)
    seconds = time.perf_counter() - begin
    begin = time.perf_counter()
    store.close()
    return {"seconds": seconds, "close": time.perf_counter() - begin, "memory": memory()}


def step_open(path: str, _: int) -> dict[str, float]:
    begin = time.perf_counter()
    store = Store(path)
    name = next(store.pool("people").query("name", limit=1)).name
    seconds = time.perf_counter() - begin
    store.close()
    return {"seconds": seconds, "first": len(name)}


def step_scan(path: str, count: int) -> dict[str, float]:
    with Store(path) as store:
        begin = time.perf_counter()
        seen = sum(1 for person in store.pool("people") if person.name)
        seconds = time.perf_counter() - begin
    if seen < count:
        raise SystemExit(f"the scan found {seen:,} of {count:,} contacts")
    return {"seconds": seconds, "memory": memory()}


def step_hold(path: str, _: int) -> dict[str, float]:
    with Store(path) as store:
        people = store.pool("people")
        for number in range(2_000):
            with store.transaction("before the end"):
                people.add(Contact(store, name=f"Zoe {number}", email=f"{number}@example.org"))
        print("ready", flush=True)
        time.sleep(600)
    return {}


def step_page(path: str, count: int) -> dict[str, float]:
    """Medians of pages of both stores, in turns; each round at new places, warmed up once."""
    small = tempfile.mkdtemp(prefix="bench-")
    try:
        step_import(small, SMALL)
        with Store(small) as few, Store(path) as many:
            pools = few.pool("people"), many.pool("people")
            times: tuple[list[float], list[float]] = [], []
            for round_ in range(ROUNDS):
                starts = page_starts(200, round_)
                for pool, taken in zip(pools, times, strict=True):
                    for warm in (True, False):
                        begin = time.perf_counter()
                        for start in starts:
                            [person.name for person in pool.page("name", 50, start=start).items]
                        if not warm:
                            taken.append((time.perf_counter() - begin) / len(starts) * 1e6)
        return {
            "small": statistics.median(times[0]),
            "large": statistics.median(times[1]),
            "ratio": statistics.median(b / a for a, b in zip(*times, strict=True)),
        }
    finally:
        shutil.rmtree(small, ignore_errors=True)


STEPS = {"import": step_import, "open": step_open, "scan": step_scan, "page": step_page, "hold": step_hold}


def child(step: str, path: str, count: int) -> Any:
    """What a step prints, done in a process of its own."""
    command = [sys.executable, __file__, step, path, str(count)]
    outcome = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(outcome.stdout)


def killed(path: str, count: int) -> None:
    """Have a process write to the store, and kill it."""
    with subprocess.Popen([sys.executable, __file__, "hold", path, str(count)], stdout=subprocess.PIPE) as process:
        if process.stdout is None or process.stdout.readline() != b"ready\n":
            raise SystemExit("the process that was to be killed ended by itself")
        process.kill()


def measure_large(count: int) -> Iterator[tuple[str, str, float]]:
    """(what, unit, figure) for a store of `count` contacts."""
    directory = tempfile.mkdtemp(prefix="bench-")
    path = str(Path(directory) / "store")
    Path(path).mkdir()
    try:
        imported = child("import", path, count)
        yield f"import in batches of {BATCH:,}: contacts a second", "/s", count / imported["seconds"]
        yield "import: most memory", "MiB", imported["memory"]
        yield "close, after the import", "s", imported["close"]
        yield "open after a clean close, to the first contact", "s", child("open", path, count)["seconds"]
        scanned = child("scan", path, count)
        yield "scan: contacts a second", "/s", count / scanned["seconds"]
        yield "scan: most memory", "MiB", scanned["memory"]
        pages = child("page", path, count)
        yield f"page of 50, with {SMALL:,} contacts", "us", pages["small"]
        yield f"page of 50, with {count:,} contacts", "us", pages["large"]
        yield "the second as a multiple of the first", "x", pages["ratio"]
        killed(path, count)
        yield "open after kill -9, to the first contact", "s", child("open", path, count)["seconds"]
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def measure_imports(count: int) -> Iterator[tuple[str, str, float]]:
    """(what, unit, figure) for files of `count` records as `scripts/sample_data.py` writes them."""
    from atop.pim import import_file

    directory = Path(tempfile.mkdtemp(prefix="bench-"))
    samples = Path(__file__).resolve().parent.parent / "sample_data.py"
    sizes = ["--contacts", str(count), "--events", "1", "--messages", str(count)]
    try:
        subprocess.run([sys.executable, samples, directory, *sizes], stdout=subprocess.DEVNULL, check=True)
        for name in ("contacts.vcf", "mail.mbox"):
            source = directory / name
            with Store(directory / f"store of {name}") as store:
                begin = time.perf_counter()
                report = import_file(store, source)
                seconds = time.perf_counter() - begin
            yield f"{name}: records a second, of {report.added:,}", "/s", report.added / seconds
            yield f"{name}: MB a second", "MB/s", source.stat().st_size / seconds / 1e6
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    print(json.dumps(STEPS[sys.argv[1]](sys.argv[2], int(sys.argv[3]))))
