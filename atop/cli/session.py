"""What one run of the command knows: which store, which form of output, and whether anything was left out."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from atop import AtopError, NoSuchPool, NoSuchStore, Pool, Store
from atop.cli.output import Output

# The exit codes; docs/cli.md explains them.
DONE = 0
FAILED = 1
WRONG_USE = 2
DONE_IN_PART = 3
INTERRUPTED = 130
PIPE_CLOSED = 141


# Digits of the numbers that options take: enough for any id.
MAX_DIGITS = 18

NO_STORE_HINT = "('atop init' makes an empty one, 'atop import FILE' one with data; --store PATH names another)"


class Session:
    """One run of the command. Not for threads."""

    def __init__(self) -> None:
        self.output = Output()
        self.store_option: str | None = None  # --store
        self.exit_code = DONE

    @property
    def store_path(self) -> Path:
        """The store's directory: `--store`, else `$ATOP_STORE`, else the user's data directory."""
        chosen = self.store_option or os.environ.get("ATOP_STORE")
        if chosen:
            return Path(chosen).expanduser()
        import platformdirs

        return platformdirs.user_data_path("atop", appauthor=False)

    @contextlib.contextmanager
    def open_store(self, *, create: bool = False, kind: type[Store] = Store) -> Iterator[Store]:
        """The store, closed again at the end of the block. Raises NoSuchStore unless `create`."""
        try:
            store = kind(self.store_path, create=create)
        except NoSuchStore as error:
            if create:
                raise
            raise NoSuchStore(f"{error}\n{NO_STORE_HINT}", self.store_path) from None
        with store:
            yield store

    @staticmethod
    def find_pool(store: Store, name: str) -> Pool:
        """The pool of this name. Raises NoSuchPool, naming those that there are."""
        try:
            return store.pool(name, create=False)
        except NoSuchPool as error:
            raise NoSuchPool(f"{error} ({pools_of(store)})") from None

    def skip(self, fields: Mapping[str, Any], text: str) -> None:
        """Name a record that was left out, wholly or in part; the command then ends with the exit code for that."""
        self.output.skipped(fields, text)
        self.exit_code = DONE_IN_PART


def pools_of(store: Store) -> str:
    """The names of the pools, to be shown where one was not found."""
    return "its pools: " + (", ".join(pool.name for pool in store.pools()) or "none yet: atop import makes them")


class Count(click.ParamType[int]):
    """A whole number that is not negative."""

    name = "count"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read a number as a person writes it."""
        text = str(value)
        if not (text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS):
            self.fail(f"{text!r} should be a whole number, 0 or more.", param, ctx)
        return int(text)


pass_session = click.make_pass_decorator(Session)


def complete_pool(context: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    """The pools whose names begin so, for the shell; none where the store cannot be opened."""
    with contextlib.suppress(AtopError), context.ensure_object(Session).open_store() as store:
        return [pool.name for pool in store.pools() if pool.name.startswith(begun)]
    return []


def complete_index(context: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    """The indexes, of the pool that was named before, whose names begin so."""
    with contextlib.suppress(AtopError), context.ensure_object(Session).open_store() as store:
        indexes = store.pool(context.params["pool_name"], create=False).indexes
        return [name for name in indexes if name.startswith(begun)]
    return []


def _choose_store(context: click.Context, _parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        if not value:
            raise click.BadParameter("the path is empty.")
        context.ensure_object(Session).store_option = value


def _choose_json(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value:
        context.ensure_object(Session).output.json = True


def global_options(*, hidden: bool) -> list[click.Option]:
    """`--store` and `--json`. Every command takes them too, so that their place does not matter."""
    common: dict[str, Any] = {"expose_value": False, "is_eager": True, "hidden": hidden}
    return [
        click.Option(
            ["--store"],
            metavar="PATH",
            callback=_choose_store,
            help="The store's directory [default: $ATOP_STORE, else the user's data directory].",
            **common,
        ),
        click.Option(
            ["--json"],
            is_flag=True,
            callback=_choose_json,
            help="Write JSON: one object, or one object a line, and nothing else.",
            **common,
        ),
    ]


class StoreCommand(click.Command):
    """A command of `atop`: it takes the global options as well, unseen in its help."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.params.extend(global_options(hidden=True))
