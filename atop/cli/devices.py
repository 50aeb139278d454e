"""`atop devices`: who is in the group, and who not any more."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from atop.cli.pairing import device_of, may_ask
from atop.cli.session import Session, StoreCommand, global_options, pass_session
from atop.cli.standing import told_by_status

if TYPE_CHECKING:
    from replication import DeviceStatus, PeerStatus

# Seconds for the news of a removal to reach devices that are there.
SPREAD = 2.0

COLUMNS = ("name", "id", "state", "role", "commit", "address")


class DevicesGroup(click.Group):
    """A command with commands of its own; each takes the global options as well."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.params.extend(global_options(hidden=True))


@click.group("devices", cls=DevicesGroup, invoke_without_command=True)
@click.pass_context
def devices_command(context: click.Context) -> None:
    """Show the devices that share the store; remove or rename one.

    A removed device gets nothing any more, from the moment of the removal; what it has, it keeps. In a group that
    wants a majority, --lost removes devices that will not come back, when too few are left to agree.

    \b
    Examples:
      atop devices
      atop devices rename laptop notebook
      atop devices remove phone
    """
    if context.invoked_subcommand is None:
        _show(context.ensure_object(Session))


def _show(session: Session) -> None:
    with told_by_status(), device_of(session) as device:
        _settle(device)
        status = device.status()
    session.output.rows(COLUMNS, [_own_row(status), *(_row(peer) for peer in status.peers)])
    session.output.note(status.summary)
    for problem in status.problems:
        session.output.note(problem)


def _settle(device: Any) -> None:
    """Give links a moment to come up, where there are others."""
    deadline = time.monotonic() + SPREAD
    while time.monotonic() < deadline:
        status = device.status()
        present = [peer for peer in status.peers if peer.removed_at is None]
        if all(peer.online and peer.in_sync for peer in present):
            return
        time.sleep(0.05)


def _own_row(status: DeviceStatus) -> tuple[dict[str, Any], Sequence[Any]]:
    fields = {
        "name": status.name,
        "device_id": status.device_id,
        "state": "removed" if status.removed else "this device",
        "role": status.role,
        "commit": status.commit,
        "address": None,
    }
    return fields, (status.name, status.device_id[:7], fields["state"], status.role, status.commit, "")


def _row(peer: PeerStatus) -> tuple[dict[str, Any], Sequence[Any]]:
    if peer.removed_at is not None:
        state = "removed"
    elif not peer.online:
        state = "not reachable"
    else:
        state = "in sync" if peer.in_sync else "catching up"
    fields = {
        "name": peer.name,
        "device_id": peer.device_id,
        "state": state,
        "role": peer.role,
        "commit": peer.commit,
        "address": peer.address,
    }
    return fields, (peer.name, peer.device_id[:7], state, peer.role or "", peer.commit, peer.address or "")


@devices_command.command("remove", cls=StoreCommand)
@click.argument("name")
@click.option("--lost", is_flag=True, help="Remove it though less than half of the devices are left to agree.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@pass_session
def remove_command(session: Session, *, name: str, lost: bool, yes: bool) -> None:
    """Remove the device NAME (or with this id) from the group."""
    if not yes:
        if not may_ask(session):
            raise click.UsageError("there is nobody to ask: add --yes")
        click.confirm(f"Remove {name}? It gets nothing any more, and keeps what it has.", abort=True, err=True)
    with device_of(session) as device:
        device.remove(name, lost=lost)
        _settle(device)
        status = device.status()
    told = [peer.name for peer in status.peers if peer.online]
    away = [peer.name for peer in status.peers if not peer.online and peer.removed_at is None]
    session.output.result(
        {"removed": name, "told": told, "not_reachable": away},
        f"{name} is removed",
        *([f"not reachable now, told when they are: {', '.join(away)}"] if away else []),
    )


@devices_command.command("rename", cls=StoreCommand)
@click.argument("name")
@click.argument("new_name")
@pass_session
def rename_command(session: Session, *, name: str, new_name: str) -> None:
    """Call the device NAME by NEW_NAME from now on."""
    with device_of(session) as device:
        own = name == device.name
        device.rename(new_name, None if own else name)
    session.output.result({"renamed": name, "name": new_name}, f"{name} is {new_name} now")
