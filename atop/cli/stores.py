"""`atop init` and `atop status`: a store as a whole."""

from __future__ import annotations

from typing import Any

import click

from atop import NoSuchStore, Store
from atop.cli.session import Session, StoreCommand, pass_session
from atop.cli.text import many, plain

# Hexadecimal digits of the chain value shown to a person; --json has all of them.
SHOWN_CHAIN = 16


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


def status_of(store: Store) -> dict[str, Any]:
    """What `atop --json status` shows."""
    number, chain = store.head
    return {
        "store": str(store.path),
        "role": "master",
        "commit": number,
        "chain": chain.hex(),
        "pools": [{"name": pool.name, "size": len(pool)} for pool in store.pools()],
    }


@click.command("status", cls=StoreCommand)
@pass_session
def status_command(session: Session) -> None:
    """Show what the store holds and the commit it is at.

    A store and a backup of it have the same contents exactly when commit and chain are equal. The role is that of
    this device among those that share the store: "master", since there are no others.

    \b
    Examples:
      atop status
      atop --json status
    """
    with session.open_store() as store:
        fields = status_of(store)
    lines = [
        f"store   {fields['store']}",
        f"role    {fields['role']}",
        f"commit  {fields['commit']}, chain {fields['chain'][:SHOWN_CHAIN]}...",
    ]
    pools = fields["pools"]
    if pools:
        names = [plain(pool["name"]) for pool in pools]
        width = max(map(len, names))
        lines.append("")
        lines += [f"{name:<{width}}  {many(p['size'], 'item')}" for name, p in zip(names, pools, strict=True)]
    else:
        lines += ["", "no pools yet: atop import FILE fills them"]
    session.output.result(fields, *lines)
