"""Devices of a group in this process with real links, for the tests of files: stores, managers, sockets."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Iterator
from pathlib import Path

from linking import BRISK, credentials, wait_until

from atop import File, Item, Store
from replication.link import Room
from replication.manager import ReplicationManager
from replication.messages import Role
from replication.peers import Peers

CACHE = 4 << 20


class Document(Item):
    """An item with a file."""

    title: str = ""
    file: File | None = None


class Device:
    """A store with its manager and its links."""

    def __init__(self, directory: Path, name: str, size: int, *others: Device, room: Room | None = None) -> None:
        self.path, self.name = directory / name, name
        about = credentials(name)
        self.id = about.identity.device_id
        new = not (self.path / "data").exists()
        self.manager = ReplicationManager(self.id, members=size if others else 1, joining=new and bool(others))
        self.manager.files.free_bytes = 0
        self.peers = Peers(about, self.manager, timing=BRISK, room=room)
        self.port = self.peers.listen("127.0.0.1")
        for other in others:
            self.find(other)
        tag = 0 if name == "a" else self.id.tag
        self.store = Store(self.path, replication=self.manager, tag=tag, cache_size=CACHE)
        self.open = True

    def find(self, other: Device) -> None:
        self.peers.found(other.name, ["127.0.0.1"], other.port)

    def lose(self, other: Device) -> None:
        self.peers.lost(other.name)

    def is_linked(self, other: Device) -> bool:
        return self.peers.link(other.id) is not None

    def has(self, file: File) -> bool:
        return self.store._file_area.has(file.digest)

    def files(self) -> dict[str, File]:
        return {item.title: item.file for item in self.store.items() if isinstance(item, Document) and item.file}

    def close(self) -> None:
        if self.open:
            self.open = False
            self.manager.close()
            self.peers.close()
            self.store.close()


class FileGroup:
    """Devices by name. The first one makes the group; the others join it, and find those that they are told of."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.devices: dict[str, Device] = {}

    def start(self, name: str, *, size: int = 2, find: str = "", room: Room | None = None) -> Device:
        """Open a device; it finds those named in `find`, or all there are."""
        others = [d for d in self.devices.values() if d.open and d.name != name and (not find or d.name in find)]
        device = self.devices[name] = Device(self.directory, name, size, *others, room=room)
        for other in self.devices.values():
            if other.open:
                other.manager.set_members(size)
        if others:
            wait_until(lambda: device.manager.role in (Role.REPLICA, Role.MASTER))
        return device

    def close(self) -> None:
        threads = [threading.Thread(target=device.close) for device in self.devices.values()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def contents(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


@contextlib.contextmanager
def fetching_at_most(device: Device, size: int) -> Iterator[None]:
    """Keep a device from asking, in the block, for what is beyond the first `size` bytes of any contents."""
    fetches = device.manager.files._fetches
    ask = fetches._ask
    fetches._ask = lambda now: [  # type: ignore[method-assign]
        a._replace(length=min(a.length, size - a.offset)) for a in ask(now) if a.offset < size
    ]
    try:
        yield
    finally:
        fetches._ask = ask  # type: ignore[method-assign]
        files = device.manager.files
        if device.open:  # what was not asked for, although it was taken to be, is to be asked for now
            files._events.put(lambda: [files._act(fetches._release(fetches.wanted[d])) for d in list(fetches._active)])
