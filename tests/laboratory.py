"""Devices in processes of their own (`replica_process.py`), and the wires between them, which a test can cut.

A device that starts knows where those are that run already, through a `Proxy` for each: so a test has every link in
its hands. The first one makes the group; the others join it.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PATIENCE = 60.0  # seconds after which a test that waits has failed
PROGRAM = Path(__file__).with_name("replica_process.py")


class Proxy:
    """A wire to a port of this machine, as a TCP connection through a machine in between."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._flows = threading.Event()  # clear: nothing goes through, and nobody is told
        self._flows.set()
        self._broken = False  # new connections are refused
        self._lock = threading.Lock()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._threads: list[threading.Thread] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self.passed = 0  # bytes
        self._start(self._accept)

    def stall(self) -> None:
        """Let nothing through from now on, without a word, as a wire that is pulled out."""
        self._flows.clear()

    def resume(self) -> None:
        """Go on, with what has waited."""
        self._broken = False
        self._flows.set()

    def cut(self) -> None:
        """End all connections; the next ones go through."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for sock in (sock for pair in pairs for sock in pair):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def break_off(self) -> None:
        """End all connections, and refuse others until `resume`."""
        self._broken = True
        self.cut()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self.break_off()
        self._flows.set()
        self.cut()
        for thread in self._threads:
            thread.join()
        self._server.close()

    def _start(self, work: Any, *arguments: Any) -> None:
        thread = threading.Thread(target=work, args=arguments, name="test-proxy", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            try:
                if self._broken:
                    raise OSError
                far = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                near.close()
                continue
            with self._lock:
                self._pairs.append((near, far))
            self._start(self._carry, near, far)
            self._start(self._carry, far, near)

    def _carry(self, source: socket.socket, destination: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                self._flows.wait()
                destination.sendall(data)
                self.passed += len(data)
        for sock in (source, destination):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        source.close()  # each of the two threads closes the end that it reads


class Device:
    """A device in a process."""

    def __init__(
        self, path: Path, name: str, size: int, how: str, ports: list[int], own_port: int, **more: str
    ) -> None:
        self.path, self.name = path, name
        self.process = subprocess.Popen(
            [sys.executable, str(PROGRAM), str(path), name, str(size), how, str(own_port), *map(str, ports)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(PROGRAM.parent.parent), **more},
        )
        self.port = own_port

    @property
    def lives(self) -> bool:
        return self.process.poll() is None

    def send(self, *words: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()

    def receive(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"device {self.name} has ended"
        return json.loads(line)

    def ask(self, *words: object) -> Any:
        self.send(*words)
        answer = self.receive()
        assert not (isinstance(answer, dict) and "error" in answer), answer
        return answer

    def run_and_fail(self, *words: object) -> str:
        """What it says in answer to a command that fails."""
        self.send(*words)
        return str(self.receive()["error"])

    def await_status(self, **wanted: object) -> dict[str, Any]:
        """Wait until the status says this."""
        deadline = time.monotonic() + PATIENCE
        while not wanted.items() <= (status := self.ask("status")).items():
            assert time.monotonic() < deadline, status
            time.sleep(0.02)
        return dict(status)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def leave(self) -> None:
        """Close in good order, and end."""
        self.ask("close")
        self.process.wait()

    def end(self) -> None:
        if self.lives:
            self.go_on()
            self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


class Lab:
    """Devices by name, where their stores are, and the wires between them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.devices: dict[str, Device] = {}
        self.all: list[Device] = []
        self.places: dict[str, Path] = {}  # of stores that are elsewhere
        self.wires: dict[frozenset[str], Proxy] = {}
        self.ports: dict[str, int] = {}

    def start(self, name: str, size: int = 2, *, to: str | None = None, wait: bool = True, **more: str) -> Device:
        """Start a device, again or for the first time, with wires to those that run (or of these, to `to`)."""
        path = self.places.get(name, self.directory / name)
        running = [device for key, device in self.devices.items() if key != name and device.lives]
        if name not in self.ports:
            self.ports[name] = free_port()
        ports = [self.wire(name, other.name).port for other in running if to is None or other.name in to]
        how = "open" if (path / "data").exists() else "join" if running else "found"
        device = Device(path, name, 1 if how == "found" else size, how, ports, self.ports[name], **more)
        self.devices[name] = device
        self.all.append(device)
        if wait:
            device.receive()
        for other in running:
            other.ask("members", size)
        return device

    def wire(self, name: str, other: str) -> Proxy:
        """The wire between two devices; made by, and leading away from, the one that starts later at first."""
        key = frozenset((name, other))
        leads_to = self.wires.get(key)
        if leads_to is None or leads_to._target != self.ports[other]:
            self.wires[key] = proxy = Proxy(self.ports[other])
            if leads_to is not None:
                leads_to.close()
            return proxy
        return leads_to

    def settle(self) -> None:
        """Wait until all living devices have the same history, and check that their tables are equal and sound."""
        living = [device for device in self.devices.values() if device.lives]
        deadline = time.monotonic() + PATIENCE
        while True:
            states = [device.ask("status") for device in living]
            equal = len({(state["number"], state["chain"]) for state in states}) == 1
            idle = all(state["reconciling"] == "idle" for state in states)
            if equal and idle and {state["role"] for state in states} <= {"master", "replica"}:
                break
            assert time.monotonic() < deadline, states
            time.sleep(0.02)
        for device in living:
            assert device.ask("verify") == []
        tables = [device.ask("tables") for device in living]
        unequal = {name for one in tables for name in one if one[name] != tables[0][name]}
        assert unequal == set()

    def close(self) -> None:
        for device in self.all:
            device.end()
        for wire in self.wires.values():
            wire.close()


def free_port() -> int:
    """A port that nobody listens on, and that no connection is given by itself before somebody does."""
    given = Path("/proc/sys/net/ipv4/ip_local_port_range")
    first_given = int(given.read_text().split()[0]) if given.exists() else 49_152
    while True:
        port = random.randrange(max(1_024, first_given - 20_000), first_given)
        with socket.socket() as server, contextlib.suppress(OSError):
            server.bind(("127.0.0.1", port))
            return port


def laboratory() -> Iterator[Lab]:
    """What a fixture is made of."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="atop-test-", dir=memory) as name:
        lab = Lab(Path(name))
        try:
            yield lab
        finally:
            lab.close()
