"""`atop browse`: the store in a web page, on this machine."""

from __future__ import annotations

import contextlib
import threading
import webbrowser
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from atop.cli.pairing import device_of
from atop.cli.root import OWN_PACKAGES
from atop.cli.session import Session, StoreCommand, pass_session

if TYPE_CHECKING:
    from atop import Store
    from atop.browser import Server
    from replication import Device


@click.command("browse", cls=StoreCommand)
@click.option("--no-open", is_flag=True, help="Only print the address; do not open the system's browser.")
@click.option("--port", type=click.IntRange(0, 65535), help="Listen on this port [default: 4780, or any that is free].")
@click.option(
    "--host",
    metavar="ADDRESS",
    default="127.0.0.1",
    help="Listen on this address [default: 127.0.0.1, this machine alone]. Others that reach it and learn the token "
    "can read and change everything, unencrypted.",
)
@click.option("--name", "names", metavar="NAME", multiple=True, help="A further name that this machine is opened by.")
@pass_session
def browse_command(session: Session, *, no_open: bool, port: int | None, host: str, names: tuple[str, ...]) -> None:
    """Look at and change everything in a web page.

    Opens the system's browser at the address, and serves it until Ctrl-C. The address has a token that lets a
    browser in; what comes without it is turned away. Makes the store if there is none. Where the store is shared
    with other devices, this one takes part meanwhile, as with 'atop run', or beside it.

    \b
    Examples:
      atop browse
      atop browse --no-open --port 8000
    """
    from atop.browser import Server
    from atop.browser.serving import exposure

    with _opened(session) as store_or_device:
        warning = exposure(host)
        if warning:
            session.output.note(f"atop: {warning}\n")
        with Server(store_or_device, host, port, names) as server:
            session.output.result({"url": server.url}, f"Atop is at {server.url}", "Ctrl-C ends it.")
            session.output.flush()
            _serve(server, opened=not no_open)


@contextlib.contextmanager
def _opened(session: Session) -> Iterator[Device | Store]:
    """The device of the session's store, or the store by itself where the extra for several devices is missing."""
    try:
        import replication  # noqa: F401 - to see whether all that it needs is there
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in OWN_PACKAGES:
            raise
        with session.open_store(create=True) as store:
            yield store
        return
    with device_of(session, create=True) as device:
        yield device


def _serve(server: Server, *, opened: bool) -> None:
    if opened:  # in a thread: a browser in the terminal would keep us from serving it
        threading.Thread(target=webbrowser.open, args=(server.url,), daemon=True).start()
    server.run()
