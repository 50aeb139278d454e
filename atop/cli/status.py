"""`atop status`: what the store holds, the commit it is at, and how the group's devices stand."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import click

from atop import NoSuchCall, Store
from atop.cli.pairing import device_of
from atop.cli.session import Session, StoreCommand, pass_session
from atop.cli.standing import LOOK, fields_of, lines_of, stopping, told_by_status
from atop.cli.text import many, plain

if TYPE_CHECKING:
    from pathlib import Path

    from replication import DeviceStatus

# Hexadecimal digits of the chain value shown to a person; --json has all of them.
SHOWN_CHAIN = 16


def status_of(store: Store) -> dict[str, Any]:
    """What `atop --json status` shows of the store itself."""
    number, chain = store.head
    return {
        "store": str(store.path),
        "role": "master",
        "commit": number,
        "chain": chain.hex(),
        "pools": [{"name": pool.name, "size": len(pool)} for pool in store.pools()],
    }


@click.command("status", cls=StoreCommand)
@click.option("--watch", is_flag=True, help="Take part in the group, and show every change until Ctrl-C.")
@pass_session
def status_command(session: Session, *, watch: bool) -> None:
    """Show what the store holds, the commit it is at, and how the other devices stand.

    Two devices, or a store and a backup of it, have the same contents exactly when commit and chain are equal; only
    then it says "in sync". The role is that of this device among those that share the store: "master", "replica",
    "stopped" while no device runs on a store that has others; a store without others is its own master.

    \b
    Examples:
      atop status
      atop status --watch
      atop --json status
    """
    if watch:
        _watch(session)
        return
    with session.open_store() as store:
        fields = status_of(store)
        lines = [f"store   {fields['store']}"]
        device = running_on(store)
        if device is not None:
            fields |= {"role": device.role, "device": fields_of(device)}
            lines += lines_of(device)
        elif is_grouped(store.path):
            names = [d.name for d in store.pool("devices", create=False) if d.revoked_at is None]
            fields["role"] = "stopped"
            lines += ["role    stopped: no device runs on this store (atop run)", f"devices {', '.join(names)}"]
        else:
            lines.append(f"role    {fields['role']}")
    session.output.result(fields, *lines, *store_lines(fields))


def running_on(store: Store) -> DeviceStatus | None:
    """How the device stands that another process runs on this store, if one does."""
    if store.owner_pid is None:
        return None
    from replication.calls import status_from

    try:
        return status_from(store.ask("device.status"))
    except NoSuchCall:
        return None


def is_grouped(path: Path) -> bool:
    """Whether a store belongs to a group of devices."""
    try:
        found = json.loads((path / "local" / "group.json").read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and bool(found.get("others")) and not found.get("removed")


def store_lines(fields: dict[str, Any]) -> list[str]:
    """The commit and the pools, for a person."""
    lines = [f"commit  {fields['commit']}, chain {fields['chain'][:SHOWN_CHAIN]}..."]
    pools = fields["pools"]
    if not pools:
        return [*lines, "", "no pools yet: atop import FILE fills them"]
    names = [plain(pool["name"]) for pool in pools]
    width = max(map(len, names))
    counts = [f"{name:<{width}}  {many(p['size'], 'item')}" for name, p in zip(names, pools, strict=True)]
    return [*lines, "", *counts]


def _watch(session: Session) -> None:
    with told_by_status(), device_of(session) as device, stopping() as stop:
        if session.output.json:
            _watch_lines(session, device, stop)
        else:
            _watch_screen(session, device, stop)


def _watch_lines(session: Session, device: Any, stop: threading.Event) -> None:
    told: dict[str, Any] = {}
    while not stop.is_set():
        status = device.status()
        fields = {**status_of(device.store), "role": status.role, "device": fields_of(status)}
        # round trips and silences change all the time, and tell nothing by themselves
        now = json.loads(json.dumps(fields))
        for peer in now["device"]["peers"]:
            peer["round_trip"] = peer["heard_seconds_ago"] = peer["seconds"] = None
        if now != told:
            session.output.result(fields)
            session.output.flush()
            told = now
        stop.wait(LOOK)


def _watch_screen(session: Session, device: Any, stop: threading.Event) -> None:
    import sys

    if not sys.stdout.isatty():
        from atop.cli.standing import watch

        watch(session, device, stop)
        return
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    with Live(console=Console(highlight=False), auto_refresh=False) as live:
        while not stop.is_set():
            lines = [*lines_of(device.status()), *store_lines(status_of(device.store))]
            live.update(Text("\n".join(plain(line, keep_lines=True) for line in lines)), refresh=True)
            stop.wait(LOOK)
