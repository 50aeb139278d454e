"""Shipping: what one store commits, others have, whatever the network between them does to the messages."""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import random
import struct
import sys
import tempfile
import threading
import time
import types
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from berkeleydb import db

from atop import Item, Store
from atop.engine import TABLES, Engine
from atop.errors import NoMaster, StoreDamaged
from atop.values import FileInfo
from atop.writeset import WriteSet
from replication.messages import Log
from replication.shipping import Applied, Broken, Device, InStep, MasterFound, Notice, Shipping

CACHE = 4 << 20
PATIENCE = 20.0  # seconds after which a test that waits has failed


class Note(Item):
    """What the stores in these tests are filled with."""

    text: str = ""
    number: int = 0


class Network:
    """Carries messages between nodes in this process; a test may cut, hold, drop and shuffle them."""

    def __init__(self) -> None:
        self.nodes: dict[Device, Node] = {}
        self.cut: set[frozenset[Device]] = set()
        self.holding = False
        self.held: list[tuple[Device, Device, Log]] = []
        self._lock = threading.Lock()

    def carry(self, origin: Device, destination: Device | None, message: Log) -> None:
        for name in list(self.nodes) if destination is None else [destination]:
            if name == origin or name not in self.nodes or frozenset((origin, name)) in self.cut:
                continue
            with self._lock:
                if self.holding:
                    self.held.append((origin, name, message))
                    continue
            self.nodes[name].shipping.receive(origin, message)

    def release(self, arrange: Callable[[list[Any]], None] = lambda messages: None) -> None:
        """Deliver what was held, after `arrange` has done with the list what it likes, and hold no longer."""
        with self._lock:
            self.holding = False
            messages, self.held = self.held, []
        arrange(messages)
        for origin, destination, message in messages:
            self.nodes[destination].shipping.receive(origin, message)


class Node:
    """A store with its shipping; follows any master at once."""

    def __init__(self, network: Network, name: Device, path: Path, *, master: bool = False) -> None:
        self.name, self.network, self.path = name, network, path
        self.notices: queue.Queue[Notice] = queue.Queue()
        self.shipping = Shipping(self, self.notices.put, master=master, await_copy=self.follow)
        network.nodes[name] = self
        self.store = Store(path, cache_size=CACHE, replication=self)
        self.engine: Engine = self.store._engine

    def ship(self, device: Device | None, message: Log) -> None:
        self.network.carry(self.name, device, message)

    def await_notice(self, kind: type[Notice]) -> Any:
        while True:
            notice = self.notices.get(timeout=PATIENCE)
            if isinstance(notice, kind):
                return notice

    def follow(self) -> None:
        """Follow the master that makes itself known, until this node has all it has."""
        assert self.shipping.sync(self.await_notice(MasterFound).device)
        self.await_notice(InStep)

    def await_number(self, number: int) -> None:
        while self.store.head.number < number:
            self.await_notice(Applied)

    def catch_up(self, number: int) -> None:
        """Ask for what is missing, as often as it takes."""
        while self.store.head.number < number:
            self.shipping.become_replica()
            with contextlib.suppress(queue.Empty):
                while not isinstance(found := self.notices.get(timeout=0.2), MasterFound):
                    pass
                self.shipping.sync(found.device)

    def tables(self) -> dict[str, list[tuple[bytes, bytes]]]:
        return {table: self.engine.pairs(table, b"", b"\xff" * 64, 10**9) for table in TABLES}

    # what the engine asks of a replication
    @property
    def is_master(self) -> bool:
        return self.shipping.is_master

    def configure(self, environment: Any) -> int:
        return self.shipping.configure(environment)

    def start(self, environment: Any, data: Path) -> None:
        self.shipping.start(environment, data)

    def attach(self, engine: Engine) -> None:
        self.shipping.attach(engine)

    def forward(self, write_set: WriteSet) -> int | None:
        raise NoMaster("nothing is forwarded here")

    def await_replicated(self, number: int) -> None:
        raise NotImplementedError

    def close_files(self) -> None:
        pass

    def items_changed(self, item_ids: list[int] | None) -> None:
        pass

    def fetch_file(self, info: FileInfo, timeout: float) -> None:
        raise NotImplementedError

    def mend_file(self, digest: bytes, size: int) -> bool:
        raise NotImplementedError

    def await_files(self, digests: Iterable[bytes]) -> None:
        raise NotImplementedError

    def named_elsewhere(self, digests: list[bytes]) -> set[bytes]:
        raise NotImplementedError

    def stop(self) -> None:
        self.shipping.stop()

    def log_needed(self) -> int:
        return 0

    def serve(self, store: Store) -> None:
        pass  # nothing waits for it


@pytest.fixture
def directory() -> Iterator[Path]:
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="atop-test-", dir=memory) as name:
        yield Path(name)


@pytest.fixture
def network(directory: Path) -> Iterator[Network]:
    network = Network()
    yield network
    for node in network.nodes.values():
        node.store.close()


@pytest.fixture
def desktop(network: Network, directory: Path) -> Node:
    """The master, with a pool of a few notes."""
    node = Node(network, b"desktop", directory / "desktop", master=True)
    with node.store.transaction():
        pool = node.store.pool("notes", indexes=["number"])
        for number in range(10):
            pool.add(Note(node.store, text="first", number=number))
    return node


@pytest.fixture
def laptop(network: Network, directory: Path, desktop: Node) -> Node:
    """A replica."""
    return Node(network, b"laptop", directory / "laptop")


def write_notes(node: Node, count: int) -> None:
    for number in range(count):
        node.store.pool("notes").add(Note(node.store, text="more", number=number))


def test_a_new_replica_gets_a_copy(desktop: Node, laptop: Node) -> None:
    assert [note.number for note in laptop.store.pool("notes").query("number")] == list(range(10))
    assert laptop.tables() == desktop.tables()


def test_commits_arrive_and_the_stores_are_equal_table_by_table(desktop: Node, laptop: Node) -> None:
    write_notes(desktop, 50)
    laptop.await_number(desktop.store.head.number)
    assert laptop.store.head == desktop.store.head
    assert laptop.tables() == desktop.tables()
    assert laptop.store.verify().problems == []


def test_objects_in_memory_show_what_was_committed_elsewhere(desktop: Node, laptop: Node) -> None:
    there = next(iter(desktop.store.pool("notes").query("number")))
    here = laptop.store.get(there.item_id, Note)
    assert here.text == "first"
    there.text = "second"
    laptop.await_number(desktop.store.head.number)
    assert here.text == "second"


def test_a_watch_on_a_replica_sees_every_commit_in_order(desktop: Node, laptop: Node) -> None:
    seen: queue.Queue[int] = queue.Queue()
    start = laptop.store.head.number
    with laptop.store.watch(lambda commit: seen.put(commit.number)):
        write_notes(desktop, 20)
        end = desktop.store.head.number
        assert [seen.get(timeout=PATIENCE) for _ in range(end - start)] == list(range(start + 1, end + 1))


def test_a_replica_opened_again_goes_on_from_where_it_was(desktop: Node, laptop: Node, directory: Path) -> None:
    laptop.store.close()
    del laptop.network.nodes[b"laptop"]
    write_notes(desktop, 20)
    again = Node(desktop.network, b"laptop", directory / "laptop")
    again.follow()
    again.await_number(desktop.store.head.number)
    assert again.tables() == desktop.tables()


@pytest.mark.parametrize("seed", range(5))
def test_messages_may_come_in_any_order_twice_or_not_at_all(desktop: Node, laptop: Node, seed: int) -> None:
    chance = random.Random(seed)

    def mistreat(messages: list[Any]) -> None:
        messages[:] = [message for message in messages if chance.random() > 0.2]
        messages += [message for message in messages if chance.random() < 0.2]
        chance.shuffle(messages)

    desktop.network.holding = True
    write_notes(desktop, 40)
    desktop.network.release(mistreat)
    laptop.catch_up(desktop.store.head.number)
    assert laptop.tables() == desktop.tables()


def test_a_replica_made_master_goes_on_with_the_history(desktop: Node, laptop: Node) -> None:
    write_notes(desktop, 5)
    laptop.await_number(desktop.store.head.number)
    desktop.shipping.become_replica()
    laptop.shipping.become_master()
    desktop.await_notice(MasterFound)
    assert desktop.shipping.sync(b"laptop")
    write_notes(laptop, 5)
    desktop.await_number(laptop.store.head.number)
    assert desktop.tables() == laptop.tables()
    assert desktop.store.verify().problems == []


def test_nothing_is_given_up_before_sync(desktop: Node, laptop: Node) -> None:
    network = desktop.network
    network.cut.add(frozenset((b"desktop", b"laptop")))
    write_notes(desktop, 3)
    laptop.shipping.become_master()
    write_notes(laptop, 7)
    mine = desktop.store.head
    network.cut.clear()
    desktop.shipping.become_replica()
    desktop.await_notice(MasterFound)
    assert desktop.store.head == mine
    assert len(list(desktop.store.pool("notes"))) == 13
    assert not desktop.shipping.sync(b"another")  # the question whether to follow was about that one's history
    assert desktop.store.head == mine
    assert desktop.shipping.sync(b"laptop")
    desktop.await_number(laptop.store.head.number)
    assert desktop.tables() == laptop.tables()
    assert len(list(desktop.store.pool("notes"))) == 17


def test_a_full_copy_replaces_what_objects_in_memory_show(desktop: Node, laptop: Node) -> None:
    held = laptop.store.get(next(iter(laptop.store.pool("notes"))).item_id, Note)
    desktop.network.cut.add(frozenset((b"desktop", b"laptop")))
    desktop.store.get(held.item_id).text = "changed"
    for _ in range(20):
        Note(desktop.store, text="long" * 250_000)
    desktop.engine.checkpoint()
    (desktop.path / "data" / "log.0000000001").unlink()  # as if the laptop had been away for long
    desktop.network.cut.clear()
    laptop.catch_up(desktop.store.head.number)
    assert held.text == "changed"
    assert laptop.tables() == desktop.tables()
    write_notes(desktop, 3)
    laptop.await_number(desktop.store.head.number)
    assert laptop.store.verify().problems == []


def test_reading_goes_on_while_commits_are_applied(desktop: Node, laptop: Node) -> None:
    done = threading.Event()
    failures: list[BaseException] = []

    def read() -> None:
        try:
            while not done.is_set():
                numbers = [note.number for note in laptop.store.pool("notes").query("number")]
                assert numbers == sorted(numbers)
        except BaseException as error:
            failures.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    write_notes(desktop, 300)
    laptop.await_number(desktop.store.head.number)
    done.set()
    reader.join()
    assert failures == []


class FullDisk:
    """An environment that cannot write its log."""

    def log_flush(self) -> None:
        raise db.DBError(errno.ENOSPC, "No space left on device")


def test_what_is_not_on_the_disk_is_not_acknowledged(
    desktop: Node, laptop: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    full, flush = [FullDisk()], laptop.shipping._flush
    laptop.await_number(desktop.store.head.number)
    monkeypatch.setattr(laptop.shipping, "_flush", lambda environment: flush(full[0] if full else environment))
    Note(desktop.store, text="nowhere yet")
    notice = laptop.await_notice(Broken)
    assert "No space" in notice.reason
    number = desktop.store.head.number
    told = []
    while laptop.store.head.number < number or len(told) < 3:  # it tries again, and says so
        told.append(laptop.notices.get(timeout=PATIENCE))
    assert not [notice for notice in told if isinstance(notice, Applied) and notice.head.number >= number]
    full.clear()  # and nothing more comes from the master
    while laptop.await_notice(Applied).head.number < number:
        pass


def test_messages_of_many_threads_leave_no_room_taken(laptop: Node) -> None:
    shipping = Shipping(laptop, lambda notice: None, master=True, await_copy=lambda: None)
    message = Log(0, struct.pack(">9I", 7, 19, 0, 0, 30, 0, 0, 0, 0), bytes(28))  # a vote
    threads = [
        threading.Thread(target=lambda name: [shipping.receive(name, message) for _ in range(2_000)], args=(name,))
        for name in (b"1", b"2", b"3", b"4")
    ]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        taken = 0
        while taken < 8_000:
            taken += len(shipping._taken())
    finally:
        sys.setswitchinterval(interval)
        for thread in threads:
            thread.join()
    assert shipping._inbox_bytes == 0


@pytest.mark.parametrize("which", ["master", "replica"])
def test_a_database_that_fails_is_recovered_without_being_asked(desktop: Node, laptop: Node, which: str) -> None:
    failing = desktop if which == "master" else laptop
    environment = failing.engine._env
    environment.set_flags(db.DB_PANIC_ENVIRONMENT, 1)
    with pytest.raises(StoreDamaged):
        failing.shipping.standing()
    deadline = time.monotonic() + PATIENCE
    while failing.engine._env is environment:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    Note(desktop.store, text="afterwards")
    laptop.catch_up(desktop.store.head.number)
    assert laptop.tables() == desktop.tables()


def test_a_log_file_that_cannot_be_removed_is_told_and_left(
    desktop: Node, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    environment = desktop.engine._environment

    def unlink(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(environment, "env", types.SimpleNamespace(log_archive=lambda: [b"log.0000000001"]))
        patch.setattr(Path, "unlink", unlink)
        environment._remove_logs(2)
    assert "cannot be removed" in caplog.text
