"""`atop run`: the device as a service."""

from __future__ import annotations

import contextlib
import shlex
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from atop.cli.pairing import ask_here, device_of, may_ask, show_code, tell_paired
from atop.cli.session import Session, StoreCommand, pass_session
from atop.cli.standing import stopping, told_by_status, watch

if TYPE_CHECKING:
    from replication import Device

UNIT = """[Unit]
Description=Atop keeps this device's store up to date with the others

[Service]
Type=exec
ExecStart={command}
KillSignal=SIGTERM
TimeoutStopSec=30
Restart=on-failure
RestartSec=2
NoNewPrivileges=yes
UMask=0077

[Install]
WantedBy=default.target
"""


@click.command("run", cls=StoreCommand)
@click.option("--name", metavar="NAME", help="What to call this device, if it has no name yet [default: the host's].")
@click.option(
    "--port", type=click.IntRange(0, 65535), help="Accept links on this port [default: 4747, or any that is free]."
)
@click.option("--peer", "peers", metavar="ADDRESS", multiple=True, help="Try this address too, as desktop.lan:4747.")
@click.option("--invite", is_flag=True, help="Invite another device at once: shows a code.")
@click.option("--yes", is_flag=True, help="With --invite: whoever knows the code joins; do not ask.")
@click.option("--browse", is_flag=True, help="Serve the data browser too, to this machine.")
@click.option(
    "--print-unit", is_flag=True, help="Print a systemd user unit that runs this with the options given, and exit."
)
@pass_session
def run_command(
    session: Session,
    *,
    name: str | None,
    port: int | None,
    peers: tuple[str, ...],
    invite: bool,
    yes: bool,
    browse: bool,
    print_unit: bool,
) -> None:
    """Keep this device up to date with the others, until it is stopped.

    Makes the store if there is none. Ctrl-C or SIGTERM ends it cleanly: the device hands over to another one, and
    takes leave. With --json it writes an object for each change of how the device stands.

    \b
    Examples:
      atop run
      atop run --invite
      atop run --print-unit > ~/.config/systemd/user/atop.service
      systemctl --user enable --now atop
    """
    if print_unit:
        given = [("--name", name), ("--port", port), *(("--peer", peer) for peer in peers)]
        unit = unit_of(session, [str(part) for pair in given if pair[1] is not None for part in pair])
        session.output.result({"unit": unit}, unit.rstrip("\n"))
        return
    if invite and not yes and not may_ask(session):
        raise click.UsageError("there is nobody to ask whether the digits are equal: add --yes")
    with (
        told_by_status(),
        device_of(session, create=True, name=name, port=port, peers=peers or None) as device,
        stopping() as stop,
    ):
        tell_running(session, device)
        if name is not None and name != device.name:
            session.output.note(f"this device is called {device.name}: atop devices rename gives it another name")
        with serving(session, device, browse):
            if invite:
                _invite(session, device, ask=not yes, stop=stop)
            watch(session, device, stop)
            session.output.note(f"{device.name} takes leave")


def unit_of(session: Session, options: list[str]) -> str:
    """The systemd unit for this store and this installation, which runs with these options."""
    command = [sys.executable, "-m", "atop.cli", "--store", str(session.store_path.absolute()), "run", *options]
    return UNIT.format(command=shlex.join(command).replace("%", "%%"))


@contextlib.contextmanager
def serving(session: Session, device: Device, browse: bool) -> Iterator[None]:
    """Serve the data browser beside the device, if it is wanted."""
    if not browse:
        yield
        return
    from atop.browser import Server

    with Server(device) as server:
        server.start()
        session.output.result({"url": server.url}, f"the data browser is at {server.url}")
        session.output.flush()
        yield


def tell_running(session: Session, device: Device) -> None:
    """Say what runs, and where."""
    status = device.status()
    where = f", links on port {status.port}" if status.port is not None else ""
    if device.attached:
        session.output.note(
            f"process {device.store.owner_pid} has the store: this one takes its part when that one ends"
        )
    session.output.result(
        {"device": status.name, "device_id": status.device_id, "store": status.store, "port": status.port},
        f"{status.name} ({status.device_id[:7]}) runs on {status.store}{where}",
    )
    session.output.flush()


def _invite(session: Session, device: Device, *, ask: bool, stop: threading.Event) -> None:
    invitation = device.invite(ask=ask)
    show_code(session, device, invitation)

    def attend() -> None:
        status = ask_here(session, invitation, ask=ask, stop=stop)
        if status is not None:
            tell_paired(session, status)

    threading.Thread(target=attend, name="atop-invite", daemon=True).start()
