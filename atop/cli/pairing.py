"""`atop invite` and `atop join`: how a second device comes to the store."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

from atop import NoSuchStore, StoreError
from atop.cli.output import Progress
from atop.cli.session import NO_STORE_HINT, Session, StoreCommand, pass_session
from atop.cli.standing import stopping, watch
from atop.cli.text import many, plain, size

if TYPE_CHECKING:
    from replication import Comparison, Device, InvitationStatus, OpenInvitation, RemoteInvitation

# Seconds between two looks at an invitation, or at a copy that is on its way.
LOOK = 0.2
# Seconds that a device which has everything stays, so that the other one knows.
SEEN_SECONDS = 3.0
# Seconds without a byte after which the other device is taken to have the files that it can get here.
QUIET_SECONDS = 3.0


@contextlib.contextmanager
def device_of(session: Session, *, create: bool = False, **settings: Any) -> Iterator[Device]:
    """The device of the session's store, open; closed at the end of the block. Raises NoSuchStore unless `create`."""
    from replication import Device

    path = session.store_path
    if not create and not any((path / there).exists() for there in ("data/catalog.db", "local/group.json")):
        raise NoSuchStore(f"there is no store at {path}\n{NO_STORE_HINT}", path)
    with Device.open(path, **settings) as device:
        yield device


def may_ask(session: Session) -> bool:
    """Whether there is a person to ask."""
    return not session.output.json and sys.stdin.isatty()


@click.command("invite", cls=StoreCommand)
@click.option("--yes", is_flag=True, help="Whoever knows the code joins; do not ask whether the digits are equal.")
@click.option("--name", metavar="NAME", help="What to call this device, if it has no name yet [default: the host's].")
@click.option("--port", type=click.IntRange(0, 65535), help="Accept links on this port [default: 4747, or any free].")
@click.option("--majority", is_flag=True, help="A new group wants more than half of its devices for each commit.")
@pass_session
def invite_command(session: Session, *, yes: bool, name: str | None, port: int | None, majority: bool) -> None:
    """Let another device join: shows a code to type there.

    The code is good for ten minutes and for one guess. Both devices then show who the other is, and the same six
    digits; type y on both if they are equal. The new device copies the store; this command waits for that, and stays
    while files are copied.

    \b
    Examples:
      atop invite
      atop invite --yes
    """
    ask = not yes and may_ask(session)
    if not yes and not ask:
        raise click.UsageError("there is nobody to ask whether the digits are equal: add --yes")
    more: dict[str, Any] = {"consistency": "majority"} if majority else {}
    with device_of(session, name=name, port=port, **more) as device:
        invitation = device.invite(ask=ask)
        try:
            show_code(session, device, invitation)
            status = ask_here(session, invitation, ask=ask)
        finally:
            if invitation.status.state != "paired":
                invitation.close()
        if status is None or status.state != "paired":
            raise StoreError(f"no device has joined: {status.problem if status else 'the code was withdrawn'}")
        tell_paired(session, status)
        hand_over(session, device, status)


@click.command("join", cls=StoreCommand)
@click.argument("code")
@click.option(
    "--address", metavar="ADDRESS", help="Where the inviting device is, as desktop.lan:4747 [default: found]."
)
@click.option("--name", metavar="NAME", help="What to call this device [default: the host's name].")
@click.option("--port", type=click.IntRange(0, 65535), help="Accept links on this port [default: 4747, or any free].")
@click.option("--yes", is_flag=True, help="Do not ask whether the digits are equal.")
@click.option("--run", "go_on", is_flag=True, help="Go on as 'atop run' does, instead of ending when all is copied.")
@pass_session
def join_command(
    session: Session,
    *,
    code: str,
    address: str | None,
    name: str | None,
    port: int | None,
    yes: bool,
    go_on: bool,
) -> None:
    """Join the device that shows CODE, and copy its store.

    The store must be empty, or not there yet. Run 'atop invite' on the other device first. It ends when every item is
    here, and the contents of every file that a reachable device has.

    \b
    Examples:
      atop join 7-guitar-orbit
      atop join 7-guitar-orbit --address 192.168.1.20 --run
    """
    from replication import Device

    if not yes and not may_ask(session):
        raise click.UsageError("there is nobody to ask whether the digits are equal: add --yes")

    over = threading.Event()

    def confirm(comparison: Comparison) -> bool:
        return ask_person(session, comparison.text, over.is_set) or False

    begun = time.monotonic()
    with contextlib.ExitStack() as shown:
        shown.callback(over.set)
        bars: list[Progress] = []

        def progress(done: int, total: int | None) -> None:
            if not bars:  # not before: it would be drawn over the question
                bars.append(shown.enter_context(session.output.progress("copying the store")))
            bars[0].update(done, total)

        device = Device.join(
            session.store_path,
            code,
            name=name,
            address=address,
            port=port,
            confirm=None if yes else confirm,
            progress=progress,
        )
    with device:
        _be_seen(device)
        missing = device.status().files.missing if go_on else fetch_files(session, device)
        items = sum(len(pool) for pool in device.store.pools() if pool.name != "devices")
        number, chain = device.store.head
        copied = size(sum(path.stat().st_size for path in (device.path / "data").glob("*.db")))
        session.output.result(
            {"device": device.name, "device_id": str(device.device_id), "store": str(device.path), "commit": number,
             "chain": chain.hex(), "files_missing": missing},
            f"this device is {device.name} ({device.device_id.short}); it has {many(items, 'item')} now "
            f"({copied}, {time.monotonic() - begun:.1f} s)",
            *([f"the contents of {many(missing, 'file')} have not come yet"] if missing else []),
            *([] if go_on else ["keep it up to date:  atop run"]),
        )  # fmt: skip
        session.output.flush()
        if go_on:
            with stopping() as stop:
                watch(session, device, stop)


def _be_seen(device: Device) -> None:
    """Wait until the other device can know that this one has everything."""
    deadline = time.monotonic() + SEEN_SECONDS
    while not device.status().in_sync and time.monotonic() < deadline:
        time.sleep(LOOK)


def fetch_files(session: Session, device: Device) -> int:
    """Wait until the contents of all files are here, or no reachable device has more; how many are missing then."""
    with session.output.progress("copying files") as progress:
        while True:
            status = device.status()
            files = status.files
            here = any(peer.online for peer in status.peers)
            if files.all_found and (files.missing <= files.waiting or files.problem is not None or not here):
                return files.missing
            progress.update(0, files.missing)
            time.sleep(LOOK)


def show_code(session: Session, device: Device, invitation: OpenInvitation | RemoteInvitation) -> None:
    """Show the code of an invitation."""
    port = device.port
    session.output.result(
        {"code": invitation.code, "expires_in": round(invitation.status.expires_in), "port": port},
        f"the code is  {invitation.code}",
        "on the other device, within ten minutes:",
        f"  atop join {invitation.code}",
        f"(where devices do not find each other: --address {_own_host()}{'' if port == 4747 else f':{port}'})",
    )
    session.output.flush()


def ask_person(session: Session, question: str, over: Callable[[], bool]) -> bool | None:
    """Ask a person on the terminal, until there is an answer, or it is `over` (then None).

    Nothing waits in a read: a thread that did could not be ended.
    """
    session.output.note(question)
    while True:
        sys.stderr.write("Equal? [y/N]: ")
        sys.stderr.flush()
        while not select.select([sys.stdin], [], [], LOOK)[0]:
            if over():
                session.output.note("")
                return None
        said = os.read(sys.stdin.fileno(), 1_000).decode(errors="replace").strip().lower()
        if said in ("y", "yes", "n", "no", ""):
            return said.startswith("y")


def ask_here(
    session: Session, invitation: OpenInvitation | RemoteInvitation, *, ask: bool, stop: threading.Event | None = None
) -> InvitationStatus | None:
    """Wait until a device has joined, asking whether the digits are equal; None if it is to stop."""
    from replication import PairingFailed

    asked = False
    while stop is None or not stop.is_set():
        status = invitation.wait(LOOK)
        if status.state in ("paired", "failed"):
            return status
        if status.state == "comparing" and ask and not asked:
            asked = True

            def over() -> bool:
                return (stop is not None and stop.is_set()) or invitation.status.state != "comparing"

            answer = ask_person(session, status.question or "", over)
            if answer is not None:
                with contextlib.suppress(PairingFailed):  # it has just ended: its status says how
                    invitation.answer(answer)
    return None


def tell_paired(session: Session, status: InvitationStatus) -> None:
    """Say who has joined, or why nobody has."""
    if status.state != "paired":
        session.output.note(f"no device has joined: {status.problem}")
        return
    name = plain(status.other_name or "")
    session.output.result(
        {"paired": {"name": status.other_name, "device_id": status.other_id}},
        f"{name} ({(status.other_id or '')[:7]}) has joined",
    )
    session.output.flush()


def hand_over(session: Session, device: Device, joined: InvitationStatus) -> None:
    """Wait until the device that has joined has everything, or is gone."""
    seen = False
    waited = time.monotonic()
    enough = device.store.head.number  # whatever is committed from here on comes to it as ever
    with session.output.progress("the other device copies the store") as progress:
        while True:
            peer = next((peer for peer in device.peers if peer.device_id == joined.other_id), None)
            if peer is None or peer.in_sync or (peer.commit or 0) >= enough:
                break
            seen = seen or peer.online
            if not peer.online and (seen or time.monotonic() - waited > 30):
                raise StoreError(f"{joined.other_name} has joined, and left before it had everything: atop run there")
            progress.update(peer.commit or 0, device.store.head.number)
            time.sleep(LOOK)
    _hand_over_files(session, device, joined)
    session.output.result({"in_sync": True}, "it has every item", "keep both up to date, their files too:  atop run")


def _hand_over_files(session: Session, device: Device, joined: InvitationStatus) -> None:
    """Stay while the device that has joined fetches files from here: this one may be alone in having them."""
    sent, quiet = -1, time.monotonic()
    with session.output.progress("the other device copies files") as progress:
        while any(peer.online and peer.device_id == joined.other_id for peer in device.peers):
            now = device.status().files.sent_bytes
            if now != sent:
                sent, quiet = now, time.monotonic()
            if time.monotonic() - quiet >= QUIET_SECONDS:
                return
            progress.update(now, None)
            time.sleep(LOOK)


def _own_host() -> str:
    """Where this machine can be reached: its address on the network that leads outside, else its name."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("10.255.255.255", 9))  # sends nothing: it only looks the way up
        return str(probe.getsockname()[0])
    return plain(socket.gethostname())
