"""The torturer: starts the devices, does things to them, heals everything, and checks what is left.

It prints what it does. With the same seed it decides the same; what the devices make of it depends on the machine.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import queue
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from proxies import Network

HERE = Path(__file__).parent
PATIENCE = 180.0  # seconds in which everything must have come together after it was healed
CLOCKS = [0, 0, 3600, -3600, -90_000, 86_400 * 400, -86_400 * 3650, 86_400 * 365 * 70]  # seconds


class Failed(Exception):
    """Something was lost, or does not come together."""


class Process:
    """A device's process, and everything it has said."""

    def __init__(self, directory: Path, name: str, port: int, arguments: list[str]) -> None:
        self.name = name
        self.stopped = False
        self.said: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self.acknowledged: list[dict[str, Any]] = []
        self.begun: dict[str, dict[str, Any]] = {}
        self._errors = (directory / f"{name}.errors").open("ab")
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "device.py"), str(directory / name), name, str(port), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, "PYTHONPATH": str(HERE.parent.parent)},
        )
        self._reader = threading.Thread(target=self._read, name=f"reads {name}", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 - it was asked for
        for line in self._process.stdout:
            fields = json.loads(line)
            if "begin" in fields:
                self.begun[fields["value"]] = fields
            elif "skipped" in fields:
                self.begun.pop(fields["value"], None)
            elif "done" in fields:
                self.acknowledged.append(fields)
                self.begun.pop(fields["value"], None)
            elif "failed" in fields:
                self.begun.pop(fields["value"], None) if "NoMaster" not in fields["error"] else None
            else:
                self.said.put(fields)
        self.said.put(None)

    def tell(self, *command: Any) -> None:
        """Give a command; its answer is awaited elsewhere."""
        assert self._process.stdin is not None  # noqa: S101 - it was asked for
        with contextlib.suppress(OSError):  # it has ended: whoever waits for the answer finds out
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()

    def answer(self, timeout: float = PATIENCE) -> dict[str, Any]:
        """The next answer. Raises Failed."""
        try:
            found = self.said.get(timeout=timeout)
        except queue.Empty:
            raise Failed(f"device {self.name} does not answer") from None
        if found is None:
            raise Failed(f"device {self.name} has ended: see {self._errors.name}")
        return found

    def ask(self, *command: Any) -> dict[str, Any]:
        """Give a command, and await the answer."""
        self.tell(*command)
        return self.answer()

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self.wait()

    def stop(self, stopped: bool) -> None:
        """Have it stand still, or go on."""
        self.stopped = stopped
        self._process.send_signal(signal.SIGSTOP if stopped else signal.SIGCONT)

    def wait(self) -> None:
        """Wait until it has ended, and all that it said is read."""
        self._process.wait()
        self._reader.join()
        self._errors.close()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


class Torture:
    """A run."""

    def __init__(self, directory: Path, names: list[str], seed: int, quiet: bool) -> None:
        self._directory, self._names = directory, names
        self._chance = random.Random(seed)
        self._quiet = quiet
        self._begin = time.monotonic()
        self._ports = {name: free_port() for name in names}
        self._network = Network(self._ports)
        self._devices: dict[str, Process] = {}
        self._working: dict[str, bool] = dict.fromkeys(names, False)
        self._acknowledged: list[dict[str, Any]] = []
        self._uncertain: dict[str, dict[str, Any]] = {}  # begun, and not known to be done: either is right

    def tell(self, text: str) -> None:
        if not self._quiet:
            print(f"{time.monotonic() - self._begin:7.2f}  {text}", flush=True)

    def run(self, seconds: float) -> None:
        """All of it. Raises Failed."""
        self._gather()
        self.tell(f"{len(self._names)} devices are together; {seconds:.0f} s of torture")
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._do_something()
            time.sleep(self._chance.random() * 0.4)
        self._heal()
        self._await_peace()
        self._check()

    def close(self) -> None:
        """End all processes."""
        for device in self._devices.values():
            if device.stopped:
                device.stop(False)
            device.kill()
        self._network.close()

    def _start(self, name: str, *arguments: str) -> None:
        addresses = list(arguments) or self._network.addresses_for(name)
        device = Process(self._directory, name, self._ports[name], addresses)
        self._devices[name] = device

    def _gather(self) -> None:
        first, *others = self._names
        self._start(first)
        self._devices[first].answer()
        self._devices[first].ask("prepare")
        for name in others:
            code = self._devices[first].ask("invite")["code"]
            self._start(name, "--join", code, f"127.0.0.1:{self._ports[first]}")
            self._devices[name].answer()
            self._end(name)
            self._start(name)
            self._devices[name].answer()
        self._await_peace()

    def _end(self, name: str) -> None:
        """Close a device as its user would."""
        device = self._devices.pop(name)
        device.tell("close")
        self._take_over(device)

    def _take_over(self, device: Process) -> None:
        device.wait()
        self._acknowledged += device.acknowledged
        self._uncertain |= device.begun
        self._working[device.name] = False

    # -- what is done to them

    def _do_something(self) -> None:
        alive = sorted(self._devices)
        self._collect_answers()
        for name in alive:
            device = self._devices[name]
            if not self._working[name] and not device.stopped and self._chance.random() < 0.8:
                device.tell("work", self._chance.randint(1, 30), self._chance.randrange(1 << 30), 0.02)
                self._working[name] = True
        event = self._chance.choices(
            ["nothing", "cut", "heal", "kill", "close", "start", "stop", "continue", "clock"],
            [6, 8, 4, 1, 1, 4, 1, 3, 2],
        )[0]
        if event in ("cut", "heal"):
            one, two = self._chance.sample(self._names, 2)
            if self._network.is_cut(one, two) == (event == "heal"):
                self.tell(f"{event} {one}-{two}")
                self._network.set_cut(one, two, event == "cut")
        elif event == "start":
            self._start_one()
        elif event != "nothing" and alive:
            self._do_to(self._chance.choice(alive), event)

    def _start_one(self) -> None:
        away = sorted(set(self._names) - self._devices.keys())
        if away:
            name = self._chance.choice(away)
            self.tell(f"start {name}")
            self._start(name)
            self._working[name] = True  # until it is ready

    def _do_to(self, name: str, event: str) -> None:
        device = self._devices[name]
        if event == "kill":
            self.tell(f"kill {name}")
            if device.stopped:
                device.stop(False)
            device.kill()
            self._take_over(self._devices.pop(name))
        elif event == "close" and not device.stopped and not self._working[name]:
            self.tell(f"close {name}")
            self._end(name)
        elif event in ("stop", "continue") and device.stopped == (event == "continue"):
            self.tell(f"{event} {name}")
            device.stop(event == "stop")
        elif event == "clock" and not device.stopped and not self._working[name]:
            seconds = self._chance.choice(CLOCKS)
            self.tell(f"clock of {name} {seconds:+} s")
            device.tell("clock", seconds)
            self._working[name] = True

    def _collect_answers(self) -> None:
        for name, device in self._devices.items():
            while not device.said.empty():
                if device.said.get() is None:
                    raise Failed(f"device {name} has ended by itself: see {name}.errors")
                self._working[name] = False

    # -- the end

    def _heal(self) -> None:
        self.tell("healing")
        for one in self._names:
            for two in self._names:
                if one < two:
                    self._network.set_cut(one, two, False)
        for name in self._names:
            if name not in self._devices:
                self._start(name)
                self._working[name] = True
            elif self._devices[name].stopped:
                self._devices[name].stop(False)
        for name, device in self._devices.items():
            if self._working[name]:
                device.answer()
                self._working[name] = False

    def _await_peace(self) -> None:
        """Wait until all devices have one history, and nothing is left to be done."""
        deadline = time.monotonic() + PATIENCE
        while True:
            reports = {name: device.ask("report")["report"] for name, device in self._devices.items()}
            roles = sorted(report["role"] for report in reports.values())
            if (
                len({(report["commit"], report["chain"]) for report in reports.values()}) == 1
                and roles == ["master", *["replica"] * (len(reports) - 1)]
                and not any(report["work"] or report["missing"] for report in reports.values())
            ):
                break
            if time.monotonic() > deadline:
                raise Failed(f"it does not come together: {json.dumps(reports, indent=2)}")
            time.sleep(0.1)
        totals = {key: sum(report[key] for report in reports.values()) for key in ("replayed", "merged", "conflicts")}
        self.tell(f"together at commit {next(iter(reports.values()))['commit']}; {totals}")

    def _check(self) -> None:
        for device in self._devices.values():
            self._acknowledged += device.acknowledged
            self._uncertain |= device.begun
        everything = {name: device.ask("contents")["contents"] for name, device in self._devices.items()}
        for name, device in self._devices.items():
            problems = device.ask("verify")["problems"]
            if problems:
                raise Failed(f"device {name} is not sound: {problems[:5]}")
        first, *others = everything.values()
        for other in others:
            differing = [table for table in first["tables"] if first["tables"][table] != other["tables"][table]]
            if differing:
                raise Failed(f"the devices differ in {differing}")
        lost = self._lost(first)
        if lost:
            raise Failed(f"{len(lost)} of {len(self._acknowledged)} acknowledged writes are lost: {lost[:5]}")
        self.tell(
            f"{len(self._acknowledged)} acknowledged writes, all there; {len(first['notes'])} notes, "
            f"{len(first['conflicts'])} conflicts; {len(self._uncertain)} writes of killed devices may be there or not"
        )

    def _lost(self, found: dict[str, Any]) -> list[dict[str, Any]]:
        """The acknowledged writes that are neither in effect, nor in a conflict, nor changed by a later write."""
        notes = found["notes"]
        aside = "\n".join(text for conflict in found["conflicts"] for text in conflict[3:])
        past = "\n".join(found["past"])
        deleted = {one["target"] for one in [*self._acknowledged, *self._uncertain.values()]
                   if one.get("done", one.get("begin")) == "delete"}  # fmt: skip
        lost = []
        for write in self._acknowledged:
            what, value, target = write["done"], write["value"], write["target"]
            note = notes.get(target)
            if what in ("create", "file", "child"):
                there = value in notes or value in deleted
            elif what == "set":
                there = note is None or note[write["attribute"]] == value or quoted(value, aside) or quoted(value, past)
            elif what in ("word", "mark"):
                there = note is None or value in note[f"{what}s"] or quoted(value, aside)
            elif what == "delete":
                there = target not in notes
            else:
                there = True
            if not there:
                lost.append(write)
        return lost


def quoted(value: str, text: str) -> bool:
    """Whether a value is in a text that shows values."""
    return f"'{value}'" in text


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/torture")
    parser.add_argument("--devices", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--keep", action="store_true", help="leave the stores where they are")
    parser.add_argument("--quiet", action="store_true", help="say only how it ended")
    chosen = parser.parse_args()
    seed = chosen.seed if chosen.seed is not None else random.SystemRandom().randrange(1 << 30)
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - a directory of our own in it
    directory = Path(tempfile.mkdtemp(prefix="atop-torture-", dir=memory))
    names = [chr(ord("a") + number) for number in range(chosen.devices)]
    print(f"seed {seed}; {chosen.devices} devices in {directory}", flush=True)
    torture = Torture(directory, names, seed, chosen.quiet)
    failed = True
    try:
        torture.run(chosen.seconds)
        failed = False
    except Failed as failure:
        print(f"FAILED with seed {seed}: {failure}", flush=True)
    finally:
        torture.close()
        if not (chosen.keep or failed):
            shutil.rmtree(directory, ignore_errors=True)
    if not failed:
        print(f"all is well; seed {seed}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
