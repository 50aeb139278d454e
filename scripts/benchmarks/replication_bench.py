"""Measures replication between real processes on this machine, over the encrypted links, and prints a table.

Each device is a process of its own (device_worker.py), paired as a user would, on a directory of the disk. Every commit
is flushed to the disk where a row does not say otherwise. Targets are those that Atop sets itself.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
PATIENCE = 120.0  # seconds after which a benchmark that waits has failed
LETTER = 200  # bytes of text in a commit
COPY_LETTER = 2_000
BUFFERED, FLUSHED, REPLICATED = range(3)


class Row(NamedTuple):
    """One figure. `better` says which way the target is: ">" or "<"."""

    what: str
    figure: float
    unit: str
    better: str
    target: float

    @property
    def met(self) -> bool:
        """Whether the target is reached."""
        return self.figure >= self.target if self.better == ">" else self.figure <= self.target


class Worker:
    """A device, or a store alone, in a process."""

    def __init__(self, place: Path, *arguments: object) -> None:
        self.name = place.name
        path = os.pathsep.join((str(HERE.parent.parent), os.environ.get("PYTHONPATH", "")))
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "device_worker.py"), str(place), *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        self.started = time.monotonic()
        self.hello: dict[str, Any] = {}

    def opened(self) -> Worker:
        """Wait until it is open."""
        self.hello = self.receive()
        return self

    @property
    def port(self) -> int:
        """Where it accepts links."""
        return int(self.ask("status")["port"])

    def send(self, *words: object) -> None:
        """Give it a command."""
        if self.process.stdin is None:
            raise RuntimeError("the worker has ended")
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()

    def receive(self) -> Any:
        """The answer to a command."""
        line = self.process.stdout.readline() if self.process.stdout is not None else ""
        if not line:
            raise RuntimeError("a worker has ended: see its error above")
        return json.loads(line)

    def ask(self, *words: object) -> Any:
        """Give it a command, and wait for the answer."""
        self.send(*words)
        return self.receive()

    def kill(self) -> None:
        """End it as a power failure would."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


class Lab:
    """The devices of one benchmark, in directories that are removed with them.

    The first device has its store on the disk; the others have theirs in memory where there is such a directory,
    unless `one_disk` is set: two devices have two disks, and would wait for each other's flushes here.
    """

    def __init__(self, directory: Path, memory: Path) -> None:
        self.directory, self.memory = directory, memory
        self.one_disk = False
        self.workers: list[Worker] = []

    def open(self, name: str, *others: Worker) -> Worker:
        """Open a device, which knows where the others are."""
        return self.begin(name, name, *(other.port for other in others)).opened()

    def alone(self, name: str) -> Worker:
        """Open a store without a device."""
        return self.begin(name, "alone").opened()

    def join(self, name: str, inviter: Worker) -> Worker:
        """Pair a new device, and wait until it has its copy."""
        invitation = inviter.ask("invite")
        worker = self.begin(name, name, "join", invitation["code"], invitation["port"])
        return worker.opened()

    def pair(self) -> tuple[Worker, Worker]:
        """A master, and a replica that has all of it."""
        master = self.open("a")
        replica = self.join("b", master)
        self.settle(master, replica)
        return master, replica

    def settle(self, *workers: Worker) -> None:
        """Wait until all have the same last commit, and one of them is master."""
        deadline = time.monotonic() + PATIENCE
        while True:
            states = [worker.ask("status") for worker in workers]
            numbers = {state["number"] for state in states}
            roles = sorted(state["role"] for state in states)
            if len(numbers) == 1 and roles == ["master", *["replica"] * (len(workers) - 1)]:
                return
            if time.monotonic() > deadline:
                raise RuntimeError(f"the devices did not settle: {states}")
            time.sleep(0.02)

    def begin(self, name: str, *arguments: object) -> Worker:
        """Start a process; it is open when `Worker.opened` has returned."""
        here = self.directory if self.one_disk or name in ("a", "store") else self.memory
        worker = Worker(here / name, *arguments)
        self.workers.append(worker)
        return worker


@contextlib.contextmanager
def laboratory() -> Iterator[Lab]:
    directory = tempfile.mkdtemp(prefix="bench-")
    in_memory = "/dev/shm"  # noqa: S108 - a directory of a random name is made in it
    memory = tempfile.mkdtemp(prefix="bench-", dir=in_memory if os.access(in_memory, os.W_OK) else None)
    lab = Lab(Path(directory), Path(memory))
    try:
        yield lab
    finally:
        for worker in lab.workers:
            worker.kill()
        shutil.rmtree(directory, ignore_errors=True)
        shutil.rmtree(memory, ignore_errors=True)


def _rate(worker: Worker, durability: int, rounds: int) -> float:
    """Commits a second."""
    worker.ask("durability", durability)
    count = 500 if durability == FLUSHED else 3_000
    return statistics.median(worker.ask("commits", count, 1, LETTER)["rate"] for _ in range(rounds))


# -- the rows


def measure_commits(rounds: int) -> Iterator[Row]:
    """What commits cost with a replica, on it, and until they are there."""
    with laboratory() as lab:
        master = lab.open("a")
        alone = [_rate(master, kind, rounds) for kind in (FLUSHED, BUFFERED)]
        replica = lab.join("b", master)
        lab.settle(master, replica)
        shared = [_rate(master, kind, rounds) / before for kind, before in zip((FLUSHED, BUFFERED), alone, strict=True)]
        yield Row("master with a replica: its speed alone, durable", shared[0], "x", ">", 0.7)
        yield Row("the same, not flushed", shared[1], "x", ">", 0.7)
        lab.settle(master, replica)
        master.ask("durability", FLUSHED)
        there = master.ask("commits", 500, 1, LETTER)["median"]
        forwarded = statistics.median(replica.ask("commits", 500, 1, LETTER)["median"] for _ in range(rounds))
        yield Row("write on a replica: one on the master", forwarded / there, "x", "<", 3.0)
        lags = []
        for _ in range(100 * rounds):
            number = master.ask("status")["number"] + 1
            replica.send("await", number)
            written = master.ask("write")
            lags.append(replica.receive()["at"] - written["at"])
        yield Row("lag, from commit returned to visible, median", statistics.median(lags) * 1e3, "ms", "<", 1.5)
        master.ask("durability", REPLICATED)
        one = statistics.median(master.ask("commits", 500, 1, LETTER)["rate"] for _ in range(rounds))
        eight = statistics.median(master.ask("commits", 2_000, 8, LETTER)["rate"] for _ in range(rounds))
        yield Row("replicated commits, one thread", one, "/s", ">", 500)
        yield Row("replicated commits, eight threads", eight, "/s", ">", one)


def measure_apply(commits: int) -> Iterator[Row]:
    """How fast a replica catches up, and whether it keeps up."""
    with laboratory() as lab:
        master, replica = lab.pair()
        replica.ask("close")
        master.ask("durability", BUFFERED)
        master.ask("commits", commits, 1, LETTER)
        number = master.ask("status")["number"]
        replica = lab.open("b", master)
        yield Row(f"replica applies, {commits:,} commits behind", replica.ask("curve", number)["rate"], "/s", ">", 2e4)
        lab.settle(master, replica)
        replica.send("curve", number + commits)
        rate = master.ask("commits", commits, 1, LETTER)["rate"]
        kept = replica.receive()["rate"]
        yield Row(f"replica keeps up with {rate:,.0f} commits/s, not flushed", kept / rate, "x", ">", 0.95)


def measure_copy(megabytes: int) -> Iterator[Row]:
    """How fast a new device gets its copy."""
    with laboratory() as lab:
        lab.one_disk = True
        master = lab.open("a")
        master.ask("durability", BUFFERED)
        master.ask("fill", megabytes, COPY_LETTER)
        master.ask("checkpoint")
        size = master.ask("bytes")["bytes"]
        replica = lab.join("b", master)
        seconds = replica.hello["at"] - replica.hello["began"]  # pairing included
        yield Row(f"full copy of {size / 1e6:,.0f} MB of tables", size / 1e6 / seconds, "MB/s", ">", 100)


def measure_failover(rounds: int) -> Iterator[Row]:
    """From the end of a master to the next commit."""
    for devices in (2, 3):
        taken = []
        with laboratory() as lab:
            workers = [lab.open("a")]
            workers += [lab.join(name, workers[0]) for name in "bc"[: devices - 1]]
            for _ in range(rounds):
                lab.settle(*workers)
                roles = [worker.ask("status")["role"] for worker in workers]
                master = workers.pop(roles.index("master"))
                master.kill()
                killed = time.monotonic()
                taken.append(workers[0].ask("write")["at"] - killed)
                workers.append(lab.open(master.name, *workers))
        what = f"killed master of {devices}, to the next commit, median"
        yield Row(what, statistics.median(taken) * 1e3, "ms", "<", 100)


def measure_silence(rounds: int) -> Iterator[Row]:
    """From the moment when a master stops without a word to the next commit."""
    taken = []
    for _ in range(rounds):
        with laboratory() as lab:
            master, replica = lab.pair()
            master.process.send_signal(signal.SIGSTOP)
            stopped = time.monotonic()
            taken.append(replica.ask("write")["at"] - stopped)
    yield Row("stopped master, to the next commit, longest", max(taken), "s", "<", 4)


def measure_start(rounds: int) -> Iterator[Row]:
    """From when two programs open their devices until both have a link."""
    taken = []
    with laboratory() as lab:
        master, replica = lab.pair()
        port = master.port
        for _ in range(rounds):
            replica.ask("close")
            master.ask("close")
            master = lab.begin("a", "a", f"listen={port}")
            replica = lab.begin("b", "b", port)
            master.opened()
            replica.opened()
            connected = max(worker.ask("connected")["at"] for worker in (master, replica))
            taken.append(connected - max(worker.hello["began"] for worker in (master, replica)))
            lab.settle(master, replica)
    yield Row("both started to connected, median", statistics.median(taken), "s", "<", 1)


def measure_idle(seconds: float) -> Iterator[Row]:
    """What a device with two links costs while nothing happens."""
    with laboratory() as lab:
        store = lab.alone("store")
        store.ask("commits", 200, 1, LETTER)
        memory = store.ask("cost")["memory"]
        first = lab.open("a")
        first.ask("commits", 200, 1, LETTER)
        workers = [first, lab.join("b", first), lab.join("c", first)]
        lab.settle(*workers)
        time.sleep(2)
        before = first.ask("cost")
        time.sleep(seconds)
        after = first.ask("cost")
        used = (after["cpu"] - before["cpu"]) / (after["at"] - before["at"])
        yield Row("idle with two links: of a core", used * 100, "%", "<", 1)
        yield Row("idle with two links: memory above a store alone", after["memory"] - memory, "MiB", "<", 60)


def rows(options: argparse.Namespace) -> Iterator[Row]:
    """All figures, one after the other."""
    parts = {
        "commits": lambda: measure_commits(options.rounds),
        "apply": lambda: measure_apply(options.commits),
        "copy": lambda: measure_copy(options.megabytes),
        "failover": lambda: measure_failover(3 * options.rounds),
        "silence": lambda: measure_silence(options.rounds),
        "start": lambda: measure_start(options.rounds),
        "idle": lambda: measure_idle(10.0),
    }
    for name in options.part or parts:
        print(f"{name} ...", file=sys.stderr)
        yield from parts[name]()


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench --replication", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="rounds to take the median of [3]")
    parser.add_argument("--commits", type=int, default=20_000, help="commits that a replica is behind [20000]")
    parser.add_argument("--megabytes", type=int, default=200, help="MiB of text in the store that is copied [200]")
    parser.add_argument("--part", action="append", help="one part, again for more: commits, apply, copy, failover, ...")
    parser.add_argument("--json", action="store_true", help="print one JSON object for each row")
    return parser.parse_args()


def main() -> None:
    options = parse()
    for row in rows(options):
        if options.json:
            print(json.dumps({**row._asdict(), "met": row.met}), flush=True)
        else:
            target = f"{'>=' if row.better == '>' else '<='} {row.target:,.4g}"
            print(f"{row.what:52} {row.figure:12,.4g} {row.unit:5} {target:>10} {'' if row.met else 'missed'}")


if __name__ == "__main__":
    main()
