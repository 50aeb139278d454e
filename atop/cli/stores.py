"""`atop init`: a new store."""

from __future__ import annotations

import click

from atop import NoSuchStore
from atop.cli.session import Session, StoreCommand, pass_session


@click.command("init", cls=StoreCommand)
@pass_session
def init_command(session: Session) -> None:
    """Make a new, empty store.

    `atop import` makes the store by itself where there is none, so this is needed only to begin with nothing.
    A store that is there already is left as it is.

    \b
    Examples:
      atop init
      atop --store ~/pim init
    """
    created = False
    try:
        with session.open_store() as store:
            path = str(store.path)
    except NoSuchStore:
        with session.open_store(create=True) as store:
            path = str(store.path)
        created = True
    words = f"made an empty store in {path}" if created else f"{path} is a store already; it is left as it is"
    session.output.result({"store": path, "created": created}, words)
