"""A device in a process of its own, for replication_bench: reads commands from standard input, answers in JSON.

`device_worker.py PATH NAME [listen=PORT] [PEER_PORT...]` opens a device; `PATH NAME join CODE PORT` joins the group of
the device at that port; `PATH alone` opens the store without a device.
Times are of `time.monotonic`, which all processes of a machine share.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import threading
import time
from typing import Any

from atop import Item, Store
from replication import Device

BATCH = 500


class Letter(Item):
    """What is written: about as large as a message."""

    text: str = ""
    number: int = 0


class Worker:
    """Runs commands on a store, alone or of a device."""

    def __init__(self, opened: Store | Device) -> None:
        self.opened = opened
        self.store = opened.store if isinstance(opened, Device) else opened

    @property
    def device(self) -> Device:
        """The device; TypeError for a store alone."""
        if not isinstance(self.opened, Device):
            raise TypeError("this is a store alone")
        return self.opened

    def run(self, command: str, *arguments: str) -> Any:
        """The answer to a command."""
        method = getattr(self, f"do_{command}")
        return method(*map(int, arguments))

    def do_durability(self, replicated: int) -> Any:
        """Wait for a peer (2), the disk (1) or nothing (0) in each commit from now on."""
        self.store._engine.durability = ("buffered", "flushed", "replicated")[replicated]
        return {}

    def do_commits(self, count: int, threads: int, size: int) -> Any:
        """Make so many commits of one letter each; the rate, and the median time of one."""
        text, took = "x" * size, []

        def write() -> None:
            for number in range(count // threads):
                begin = time.monotonic()
                Letter(self.store, text=text, number=number)
                took.append(time.monotonic() - begin)

        begin = time.monotonic()
        workers = [threading.Thread(target=write) for _ in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return {"rate": len(took) / (time.monotonic() - begin), "median": statistics.median(took)}

    def do_fill(self, megabytes: int, size: int) -> Any:
        """Put so much into the store, in transactions of some letters each; the rate of letters."""
        count, text, begin = (megabytes << 20) // size, "x" * size, time.monotonic()
        for start in range(0, count, BATCH):
            with self.store.transaction():
                for number in range(start, start + BATCH):
                    Letter(self.store, text=text, number=number)
        return {"rate": count / (time.monotonic() - begin)}

    def do_await(self, number: int) -> Any:
        """When this commit, or a later one, was first seen here."""
        while self.store.head.number < number:
            time.sleep(0.0001)
        return {"at": time.monotonic()}

    def do_curve(self, number: int) -> Any:
        """How fast commits up to this one arrive, from the first that is seen to arrive on."""
        start = self.store.head.number
        while self.store.head.number == start:
            time.sleep(0.0005)
        first, begin = self.store.head.number, time.monotonic()
        while self.store.head.number < number:
            time.sleep(0.0005)
        return {"rate": (number - first) / max(time.monotonic() - begin, 1e-9), "commits": number - first}

    def do_write(self) -> Any:
        """One commit, and when it had returned."""
        Letter(self.store, text="x")
        return {"at": time.monotonic(), "number": self.store.head.number}

    def do_status(self) -> Any:
        """Where this device is."""
        return {
            "role": self.device.role,
            "port": self.device.port,
            "number": self.store.head.number,
            "links": len(self.device.links()),
        }

    def do_connected(self) -> Any:
        """When there was a link."""
        while not self.device.links():
            time.sleep(0.001)
        return {"at": min(link.started for link in self.device.links())}

    def do_invite(self) -> Any:
        """A code to join with."""
        return {"code": self.device.invite().code, "port": self.device.port}

    def do_cost(self) -> Any:
        """Processor seconds used so far, and resident memory in MiB, without what is shared with a file."""
        with open("/proc/self/status") as lines:
            status = dict(line.split(":", 1) for line in lines)
        times = os.times()
        return {
            "at": time.monotonic(),
            "cpu": times.user + times.system,
            "memory": int(status["RssAnon"].split()[0]) / 1024,
        }

    def do_bytes(self) -> Any:
        """Bytes of the tables."""
        return {"bytes": sum(path.stat().st_size for path in self.store.path.glob("data/*.db"))}

    def do_checkpoint(self) -> Any:
        """Bring the tables on the disk up to date."""
        self.store._engine.checkpoint()
        return {}

    def do_close(self) -> Any:
        """Close."""
        self.opened.close()
        return {}


def opened(path: str, name: str, *more: str) -> Worker:
    """The worker that the command line asks for."""
    if name == "alone":
        return Worker(Store(path))
    if more[:1] == ("join",):
        code, inviter = more[1:]
        return Worker(Device.join(path, code, name=name, address=f"127.0.0.1:{inviter}", multicast=False, port=0))
    port = next((int(word.removeprefix("listen=")) for word in more if word.startswith("listen=")), 0)
    peers = [f"127.0.0.1:{word}" for word in more if word.isdecimal()]
    return Worker(Device.open(path, name=name, peers=peers, multicast=False, port=port))


def main() -> None:
    began = time.monotonic()
    worker = opened(*sys.argv[1:])
    print(json.dumps({"began": began, "at": time.monotonic()}), flush=True)
    for line in sys.stdin:
        answer = worker.run(*line.split())
        print(json.dumps(answer), flush=True)
        if line.startswith("close"):
            return


if __name__ == "__main__":
    main()
