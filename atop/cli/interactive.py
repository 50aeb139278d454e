"""`atop shell`: Python with the store open."""

from __future__ import annotations

import sys
from typing import Any

import click

from atop import Store
from atop.cli.session import Session, StoreCommand, pass_session
from atop.cli.text import plain


@click.command("shell", cls=StoreCommand)
@click.option("--command", "-c", "code", metavar="CODE", help="Run this Python code instead.")
@pass_session
def shell_command(session: Session, code: str | None) -> None:
    """Start Python with the store open as `store`.

    The names of atop and atop.pim (Item, Pool, File, Contact, Event ...) are there without an import. What is
    changed outside of a transaction is committed at once.

    \b
    Examples:
      atop shell
      atop shell -c 'print(len(store.pool("contacts")))'
    """
    if session.output.json:
        raise click.UsageError("shell has no JSON output: its output is that of the code you run.")
    with session.open_store() as store:
        names = names_for(store)
        if code is not None:
            exec(compile(code, "<command>", "exec"), names)  # noqa: S102 - the user's own code, on their own store
        else:
            _interact(names)


def names_for(store: Store) -> dict[str, Any]:
    """The names that the shell starts with."""
    import atop.pim

    modules = (atop, atop.pim)
    public = {name: getattr(module, name) for module in modules for name in module.__all__}
    return {"__name__": "__console__", **public, "store": store}


def _interact(names: dict[str, Any]) -> None:
    import code

    if sys.stdin.isatty():
        import readline
        import rlcompleter

        readline.set_completer(rlcompleter.Completer(names).complete)
        readline.parse_and_bind("tab: complete")
    store = names["store"]
    pools = ", ".join(plain(pool.name) for pool in store.pools()) or "none yet"
    version = sys.version.split()[0]
    banner = f"Python {version} with the store {plain(str(store.path))} open as `store` (pools: {pools})"
    code.interact(banner=banner, local=names, exitmsg="")
