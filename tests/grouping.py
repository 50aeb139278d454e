"""A group of devices in this process, with links that a test can cut, for the tests of the manager."""

from __future__ import annotations

import hashlib
import queue
import threading
from pathlib import Path

from waiting import PATIENCE

from atop import Item, Store
from atop.engine import TABLES
from replication.handshake import LinkLost
from replication.identity import DeviceId
from replication.manager import ReplicationManager
from replication.messages import FileChunk, Log, Message, Ping, Reason, Route, encode, judge

CACHE = 4 << 20


class Note(Item):
    """What the stores in these tests are filled with."""

    text: str = ""
    number: int = 0


class Wire:
    """One end of a link. What is sent is given to the other end's manager, in order, by a thread."""

    def __init__(self, owner: Machine, other: Machine) -> None:
        self.owner, self.other = owner, other
        self.device_id = other.device
        self.open = True
        self.loses_logs = False
        self.takes = 1 << 60  # bytes of log messages after which it begins to lose them
        self.far: Wire
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self.thread = threading.Thread(target=self._carry, name="atop-test-wire", daemon=True)

    def send(self, message: Message, route: Route | None = None) -> None:
        if not self.open:
            raise LinkLost("the test has cut this link")
        self._queue.put(encode(message, route))

    def send_log(self, log: Log, route: Route | None = None, *, asked: bool = False) -> bool:
        self.takes -= len(log.record)
        self.loses_logs |= self.takes < 0
        if self.open and not self.loses_logs:
            self._queue.put(encode(log, route))
        return self.open

    def send_file(self, chunk: FileChunk, timeout: float) -> bool:
        self.send(chunk)
        return True

    def close(self, reason: Reason = Reason.LEAVING, *, wait: bool = True) -> None:
        self.open = False

    def end(self) -> None:
        self.open = False
        self._queue.put(None)

    def _carry(self) -> None:
        while (body := self._queue.get()) is not None:
            self.other.manager.on_messages(self.far, [judge(body)])


class Machine:
    """A device: a store and its manager."""

    def __init__(self, group: Group, name: str, *, members: int, joining: bool = False, majority: bool = False) -> None:
        self.group, self.name, self.path = group, name, group.directory / name
        self.device = DeviceId(hashlib.blake2s(name.encode()).digest())
        self.manager = ReplicationManager(self.device, members=members, joining=joining, majority=majority)
        self.manager.write_seconds = PATIENCE
        self.store: Store

    def open(self) -> Store:
        tag = 0 if self.name == "a" else self.device.tag
        self.store = Store(self.path, cache_size=CACHE, replication=self.manager, tag=tag)
        return self.store

    def close(self) -> None:
        self.manager.close()
        self.group.unplug(self.name)
        self.store.close()
        del self.group.machines[self.name]

    def tables(self) -> dict[str, list[tuple[bytes, bytes]]]:
        return {table: self.store._engine.pairs(table, b"", b"\xff" * 64, 10**9) for table in TABLES}

    def write(self, *texts: str) -> None:
        for text in texts:
            Note(self.store, text=text)

    def texts(self) -> list[str]:
        return sorted(item.text for item in self.store.items() if isinstance(item, Note))


class Group:
    """Devices by name; the first one opened makes the group, the others join it. All are linked unless cut."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.machines: dict[str, Machine] = {}
        self.wires: dict[tuple[str, str], Wire] = {}
        self.size = 1

    def start(self, name: str, *, size: int | None = None, linked: bool = True, majority: bool = False) -> Machine:
        """Open a device's store again, or make it: as the first of the group, or as one that joins."""
        new = not (self.directory / name / "data").exists()
        joining = new and any(self.directory.iterdir())
        self.size = size or self.size
        machine = Machine(self, name, members=self.size, joining=joining, majority=majority)
        self.machines[name] = machine
        if linked:
            for other in list(self.machines):
                if other != name:
                    self.link(name, other)
        machine.open()
        return machine

    def link(self, one: str, two: str) -> None:
        if (one, two) in self.wires:
            return
        first, second = self.machines[one], self.machines[two]
        there, back = Wire(first, second), Wire(second, first)
        there.far, back.far = back, there
        self.wires[one, two], self.wires[two, one] = there, back
        first.manager.on_link(there)
        second.manager.on_link(back)
        there.thread.start()
        back.thread.start()

    def cut(self, one: str, two: str) -> None:
        ends = [self.wires.pop((one, two), None), self.wires.pop((two, one), None)]
        for wire in filter(None, ends):
            wire.end()
        for wire in filter(None, ends):
            wire.thread.join()
            wire.owner.manager.on_closed(wire)

    def ping(self) -> None:
        """Tell every device where the others are, as links do every second."""
        for (one, _), wire in list(self.wires.items()):
            where = self.machines[one].manager.position()
            wire.send(Ping(1, where.clock, where.generation, where.commit, where.lsn))

    def unplug(self, name: str) -> None:
        for other in list(self.machines):
            if other != name:
                self.cut(name, other)

    def close(self) -> None:
        for one, two in list(self.wires):
            self.cut(one, two)
        for machine in list(self.machines.values()):
            machine.close()
