"""`atop shell`: Python with the store open.

Promises: what the code raises is shown as Python shows it, without frames of Atop's, and the exit code is then 1. A
mistyped name of a pool makes no pool.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterable
from typing import Any

import click

from atop import Index, NoSuchPool, Pool, Store
from atop.cli.session import FAILED, Session, StoreCommand, pass_session, pools_of
from atop.cli.text import plain


class ShellStore(Store):
    """The store as the shell has it."""

    def pool(
        self, name: str, indexes: Iterable[str | tuple[str, ...] | Index] = (), *, create: bool | None = None
    ) -> Pool:
        """As in any store, but a new pool is made only with indexes or `create=True`: a name alone may be a mistake.

        The pools of contacts, events, messages and notes have their indexes without being told.
        """
        from atop.pim.items import POOLS

        wanted = tuple(indexes) or dict(POOLS.values()).get(name, ())
        try:
            return super().pool(name, wanted, create=bool(wanted) if create is None else create)
        except NoSuchPool as error:
            raise NoSuchPool(f"{error} ({pools_of(self)}; create=True makes a new one)") from None


@click.command("shell", cls=StoreCommand)
@click.option("--command", "-c", "code", metavar="CODE", help="Run this Python code instead.")
@pass_session
def shell_command(session: Session, code: str | None) -> None:
    """Start Python with the store open as `store`.

    The names of atop and atop.pim (Item, Pool, File, Contact, Event ...) are there without an import. What is
    changed outside of a transaction is committed at once. Here store.pool(NAME) makes no new pool, unless with
    indexes or create=True. Code from a pipe or a file is run as with -c: up to the first error, which is shown
    and makes the exit code 1.

    \b
    Examples:
      atop shell
      atop shell -c 'print(len(store.pool("contacts")))'
      atop shell < program.py
    """
    if session.output.json:
        raise click.UsageError("shell has no JSON output: its output is that of the code you run.")
    with session.open_store(kind=ShellStore) as store:
        names = names_for(store)
        if code is not None:
            _run(session, code, "<command>", names)
        elif not sys.stdin.isatty():
            _run(session, sys.stdin.read(), "<stdin>", names)
        else:
            _interact(names)


def _run(session: Session, code: str, called: str, names: dict[str, Any]) -> None:
    """Run code; an error in it is shown as Python would, and makes the command fail."""
    try:
        exec(compile(code, called, "exec"), names)  # noqa: S102 - the user's own code, on their own store
    except BrokenPipeError:
        raise
    except Exception as error:
        frames = error.__traceback__.tb_next if error.__traceback__ else None  # the first one is of this function
        session.output.note("".join(traceback.format_exception(type(error), error, frames)).rstrip())
        session.exit_code = FAILED


def names_for(store: Store) -> dict[str, Any]:
    """The names that the shell starts with."""
    import atop.pim

    modules = (atop, atop.pim)
    public = {name: getattr(module, name) for module in modules for name in module.__all__}
    return {"__name__": "__console__", **public, "store": store}


def _interact(names: dict[str, Any]) -> None:
    import code
    import readline
    import rlcompleter

    readline.set_completer(rlcompleter.Completer(names).complete)
    readline.parse_and_bind("tab: complete")
    store = names["store"]
    pools = ", ".join(plain(pool.name) for pool in store.pools()) or "none yet"
    version = sys.version.split()[0]
    banner = f"Python {version} with the store {plain(str(store.path))} open as `store` (pools: {pools})"
    code.interact(banner=banner, local=names, exitmsg="")
