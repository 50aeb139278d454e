"""`atop browse`: the store in a web page, on this machine."""

from __future__ import annotations

import threading
import webbrowser
from typing import TYPE_CHECKING

import click

from atop.cli.session import Session, StoreCommand, pass_session

if TYPE_CHECKING:
    from atop.browser import Server


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
    browser in; what comes without it is turned away. Makes the store if there is none.

    \b
    Examples:
      atop browse
      atop browse --no-open --port 8000
    """
    from atop.browser import Server
    from atop.browser.serving import exposure

    with session.open_store(create=True) as store:
        warning = exposure(host)
        if warning:
            session.output.note(f"atop: {warning}\n")
        with Server(store, host, port, names) as server:
            session.output.result({"url": server.url}, f"Atop is at {server.url}", "Ctrl-C ends it.")
            session.output.flush()
            _serve(server, opened=not no_open)


def _serve(server: Server, *, opened: bool) -> None:
    if opened:  # in a thread: a browser in the terminal would keep us from serving it
        threading.Thread(target=webbrowser.open, args=(server.url,), daemon=True).start()
    server.run()
