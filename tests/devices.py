"""What the tests of devices share: devices on loopback, found by addresses, closed at the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from atop import Item, Store
from replication import Device

CACHE = 4 << 20


class Note(Item):
    """What the stores in these tests are filled with."""

    text: str = ""


class Home:
    """Devices of this test, by name; on loopback, found by addresses."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.devices: dict[str, Device] = {}

    def open(self, name: str, *others: Device, **more: Any) -> Device:
        peers = [f"127.0.0.1:{other.port}" for other in others]
        more = {"multicast": False, "port": 0, "peers": peers, "cache_size": CACHE, **more}
        device = self.devices[name] = Device.open(self.directory / name, name=name, **more)
        return device

    def join(self, name: str, inviter: Device, code: str | None = None, **more: Any) -> Device:
        code = code or inviter.invite().code
        more = {"multicast": False, "port": 0, "cache_size": CACHE, **more}
        address = f"127.0.0.1:{inviter.port}"
        device = self.devices[name] = Device.join(self.directory / name, code, name=name, address=address, **more)
        return device

    def close(self, name: str) -> None:
        self.devices.pop(name).close()

    def end(self) -> None:
        for device in list(self.devices.values()):
            device.close()


def texts(store: Store) -> list[str]:
    return sorted(item.text for item in store.items() if isinstance(item, Note))


def equal(*devices: Device) -> bool:
    return len({device.store.head for device in devices}) == 1


def member_names(device: Device) -> list[str]:
    return sorted(item.name for item in device.store.pool("devices") if item.revoked_at is None)
