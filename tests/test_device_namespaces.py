"""Two devices on a real network: they find each other by multicast, pair, keep each other up to date, and move."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from test_discovery_namespaces import World, why_no_namespaces

PROGRAM = Path(__file__).with_name("device_process.py")
PATIENCE = 40.0  # seconds until a condition counts as never coming true

pytestmark = pytest.mark.slow


class Machine:
    """A device in a namespace."""

    def __init__(self, namespace: str, path: Path, name: str) -> None:
        self.name = name
        self.log = path.with_suffix(".log")
        with self.log.open("wb") as errors:
            self.process = subprocess.Popen(
                ["ip", "netns", "exec", namespace, sys.executable, str(PROGRAM), str(path), name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={**os.environ, "PYTHONPATH": str(PROGRAM.parent.parent)},
            )

    def ask(self, *words: str) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(" ".join(words) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, f"{self.name} has ended: {self.log.read_text()}"
        answer = json.loads(line)
        assert not (isinstance(answer, dict) and "error" in answer), answer
        return answer

    def until(self, condition: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE
        while True:
            status: dict[str, Any] = self.ask("status")
            if condition(status):
                return status
            assert time.monotonic() < deadline, f"never so: {status}; {self.log.read_text()}"
            time.sleep(0.05)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


class Network(World):
    """Namespaces with devices in them."""

    def __init__(self, directory: Path, stores: Path) -> None:
        super().__init__(directory)
        self.stores = stores
        self.machines: list[Machine] = []

    def device(self, name: str) -> Machine:
        machine = Machine(self._prefix + name, self.stores / name, name)
        self.machines.append(machine)
        return machine


@pytest.fixture
def network(tmp_path: Path, store_path: Path) -> Iterator[Network]:
    reason = why_no_namespaces()
    if reason:
        pytest.skip(reason)
    made = Network(tmp_path, store_path.parent)
    try:
        made.switch("lan")
        yield made
    finally:
        for machine in made.machines:
            machine.end()
        made.end()


def other(status: dict[str, Any]) -> dict[str, Any]:
    (peer,) = status["peers"]
    return peer  # type: ignore[no-any-return]


def test_devices_find_each_other_pair_and_survive_a_change_of_address(network: Network) -> None:
    for name, address in (("laptop", "10.7.0.1/24"), ("desktop", "10.7.0.2/24")):
        network.machine(name)
        network.plug(name, "lan", "eth0", address, ipv6=False)
    laptop, desktop = network.device("laptop"), network.device("desktop")
    laptop.ask("open")
    laptop.ask("write", "before")
    code = laptop.ask("invite")["code"]
    desktop.ask("join", code)  # nobody has told it where
    assert desktop.ask("texts") == ["before"]
    laptop.until(lambda status: status["in_sync"] and other(status)["address"] == "10.7.0.2")

    network.ip("desktop", "address del 10.7.0.2/24 dev eth0")
    laptop.until(lambda status: not other(status)["online"])
    laptop.ask("write", "apart")
    network.ip("desktop", "address add 10.7.0.77/24 dev eth0")
    laptop.until(lambda status: status["in_sync"] and other(status)["address"] == "10.7.0.77")
    desktop.ask("write", "together")
    assert desktop.ask("texts") == ["apart", "before", "together"]

    desktop.ask("close")
    laptop.until(lambda status: not other(status)["online"])
    assert laptop.ask("texts") == ["apart", "before", "together"]
    laptop.ask("close")
