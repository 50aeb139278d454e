"""A device in a process of its own, for tests that kill it or put it on another network.

`device_process.py PATH NAME [SETTINGS as JSON]` reads commands from standard input, one a line, and answers each with
one line of JSON.
"""

from __future__ import annotations

import json
import sys
import threading
from typing import Any

from atop import Item
from replication import Device
from replication.device_status import DeviceStatus


class Note(Item):
    """What is written."""

    text: str = ""


def described(status: DeviceStatus) -> dict[str, Any]:
    return {
        "role": status.role,
        "commit": status.commit,
        "chain": status.chain,
        "in_sync": status.in_sync,
        "summary": status.summary,
        "removed": status.removed,
        "port": status.port,
        "announced_as": status.announced_as,
        "problems": status.problems,
        "peers": [
            {"name": peer.name, "online": peer.online, "address": peer.address, "in_sync": peer.in_sync}
            for peer in status.peers
        ],
        "invitation": None if status.invitation is None else status.invitation.state,
    }


def run(device: Device, command: str, arguments: list[str]) -> Any:
    match command:
        case "invite":
            return {"code": device.invite().code, "port": device.port}
        case "write":
            for _ in range(int(arguments[1]) if len(arguments) > 1 else 1):
                Note(device.store, text=arguments[0])
            return {}
        case "texts":
            return sorted(item.text for item in device.store.items() if isinstance(item, Note))
        case "status":
            return described(device.status())
        case "threads":
            return threading.active_count()
        case "remove":
            device.remove(arguments[0])
            return {}
        case "verify":
            return device.store.verify().problems
        case "close":
            device.close()
            return {}
    raise ValueError(command)


def main() -> None:
    path, name = sys.argv[1:3]
    settings = json.loads(sys.argv[3]) if len(sys.argv) > 3 else {}
    device: Device | None = None
    for line in sys.stdin:
        command, *arguments = line.split()
        try:
            if command == "open":
                device = Device.open(path, name=name, **settings)
                answer: Any = described(device.status())
            elif command == "join":
                device = Device.join(path, arguments[0], name=name, address=(arguments[1:] or [None])[0], **settings)
                answer = described(device.status())
            else:
                assert device is not None
                answer = run(device, command, arguments)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)
        if command == "close":
            return


if __name__ == "__main__":
    main()
