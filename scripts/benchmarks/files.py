"""Measures contents of files between two devices: two processes, one encrypted link on loopback.

    .venv/bin/python scripts/benchmarks/files.py [--megabytes 500] [--during 1000] [--rounds 3] [--json]

Two rows: how fast one file gets to the other device, from the commit that names it to its place there, checked and on
the disk; and the lag of commits (from the commit's return to the moment in which the other device shows it) with
nothing else going on, and while a large file travels.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from atop import File, Item, Store
from replication.handshake import Credentials
from replication.identity import Identity
from replication.manager import ReplicationManager
from replication.peers import Peers

COMMITS_PER_SECOND = 100
QUIET_COMMITS = 300
POLL_SECONDS = 0.0003


class Scan(Item):
    """What holds the file."""

    file: File | None = None


class Note(Item):
    """What is committed meanwhile."""

    text: str = ""


class Device:
    """In the process of one device: answers commands, one a line."""

    def __init__(self, path: Path, name: str, port: int) -> None:
        identity = Identity(hashlib.blake2s(name.encode()).digest())
        about = Credentials(identity, name, hashlib.blake2s(b"bench").digest(), lambda key: True, lambda key: False)
        joining = port > 0
        self.manager = ReplicationManager(identity.device_id, members=2 if joining else 1, joining=joining)
        self.peers = Peers(about, self.manager)
        self.port = self.peers.listen("127.0.0.1")
        if joining:
            self.peers.found("other", ["127.0.0.1"], port)
        self.store = Store(path, replication=self.manager, tag=identity.device_id.tag if joining else 0)
        self.seen: list[tuple[int, float]] = []
        self.watching = False

    def run(self, command: str, argument: int) -> Any:
        """One command."""
        match command:
            case "add":  # a file of so many megabytes, which no other round has
                with tempfile.TemporaryFile() as stream:
                    block = os.urandom(1 << 20)
                    for number in range(argument):
                        stream.write(number.to_bytes(8) + block[8:])
                    stream.seek(0)
                    kept = self.store.file(stream)
                at = time.time()
                Scan(self.store, file=kept)
                return {"digest": kept.digest.hex(), "at": at}
            case "members":
                self.manager.set_members(2)
            case "missing":
                return self.manager.status().files.missing
            case "commit":  # so many, at an even pace; the time when each had returned
                returned = []
                for number in range(argument):
                    Note(self.store, text=str(number))
                    returned.append((self.store.head.number, time.time()))
                    time.sleep(1 / COMMITS_PER_SECOND)
                return returned
            case "head":
                return self.store.head.number
            case "watch":
                self.watching, self.seen = True, []
                threading.Thread(target=self._watch, daemon=True).start()
            case "seen":
                self.watching = False
                return self.seen
            case "close":
                self.manager.close()
                self.peers.close()
                self.store.close()
        return None

    def wait_for(self, digest: bytes) -> float:
        """When the contents are here."""
        while not self.store._file_area.has(digest):
            time.sleep(0.001)
        return time.time()

    def _watch(self) -> None:
        last = self.store.head.number
        while self.watching:
            number = self.store.head.number
            if number != last:
                self.seen.append((number, time.time()))
                last = number
            time.sleep(POLL_SECONDS)


def serve(path: str, name: str, port: str) -> None:
    """The process of one device."""
    device = Device(Path(path), name, int(port))
    print(json.dumps({"port": device.port}), flush=True)
    for line in sys.stdin:
        command, argument = line.split()
        answer = device.wait_for(bytes.fromhex(argument)) if command == "wait" else device.run(command, int(argument))
        print(json.dumps(answer), flush=True)
        if command == "close":
            return


class Process:
    """A device in a process of its own, as the benchmark sees it."""

    def __init__(self, directory: Path, name: str, port: int = 0) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--device", str(directory / name), name, str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent.parent)},
        )
        self._input: Any = self.process.stdin
        self._output: Any = self.process.stdout
        self.port: int = self.receive()["port"]

    def send(self, command: str, argument: object = 0) -> None:
        self._input.write(f"{command} {argument}\n")
        self._input.flush()

    def receive(self) -> Any:
        return json.loads(self._output.readline())

    def ask(self, command: str, argument: object = 0) -> Any:
        self.send(command, argument)
        return self.receive()


@contextlib.contextmanager
def two_devices() -> Iterator[tuple[Process, Process]]:
    """A master and a replica."""
    with tempfile.TemporaryDirectory(prefix="bench-files-") as name:
        one = Process(Path(name), "one")
        other = Process(Path(name), "other", one.port)
        one.ask("members")
        try:
            yield one, other
        finally:
            for device in (other, one):
                device.ask("close")
                device.process.wait()


def travel(one: Process, other: Process, megabytes: int) -> float:
    """Megabytes (of a million bytes) a second of one file."""
    added = one.ask("add", megabytes)
    there = other.ask("wait", added["digest"])
    return megabytes * (1 << 20) / 1e6 / (there - added["at"])


def lags(returned: list[tuple[int, float]], seen: list[tuple[int, float]]) -> list[float]:
    """The lag of each commit in milliseconds; 0 where it was to be seen before it had returned."""
    found = []
    later = iter(seen)
    shown = next(later, None)
    for number, at in returned:
        while shown is not None and shown[0] < number:
            shown = next(later, None)
        if shown is not None:
            found.append(max(0.0, shown[1] - at) * 1000)
    return found


def lag(one: Process, other: Process, megabytes: int) -> dict[str, float]:
    """Lag of commits: quiet, and while a file travels."""
    figures: dict[str, float] = {}
    for when in ("quiet", "during"):
        other.ask("watch")
        digest, at = "", 0.0
        if when == "during":
            added = one.ask("add", megabytes)
            digest, at = added["digest"], added["at"]
        returned = []
        begin = time.time()
        while time.time() - begin < 2 or (digest and other.ask("missing")):
            returned += one.ask("commit", 50)
            if not digest and len(returned) >= QUIET_COMMITS:
                break
        last = returned[-1][0]
        while other.ask("head") < last:
            time.sleep(0.01)
        found = sorted(lags(returned, other.ask("seen")))
        if digest:
            there = other.ask("wait", digest)
            figures["MB/s during"] = megabytes * (1 << 20) / 1e6 / (there - at)
        figures |= {
            f"lag {when}, median": statistics.median(found),
            f"lag {when}, p99": found[int(len(found) * 0.99)],
            f"lag {when}, most": found[-1],
            f"commits {when}": len(found),
        }
    return figures


def main() -> None:
    if sys.argv[1:2] == ["--device"]:
        serve(*sys.argv[2:5])
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--megabytes", type=int, default=500, help="the size of the file")
    parser.add_argument("--during", type=int, default=1000, help="the size of the file during which lag is measured")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with two_devices() as (one, other):
        rates = [travel(one, other, options.megabytes) for _ in range(options.rounds)]
        figures = {"MB/s": statistics.median(rates), "MB/s, least": min(rates)}
        figures |= lag(one, other, options.during)
    if options.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            unit = "" if "MB/s" in name or "commits" in name else " ms"
            print(f"{name:24}{value:10.2f}{unit}")


if __name__ == "__main__":
    main()
