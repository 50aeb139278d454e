"""`atop query`: items of a pool in the order of an index."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import click

from atop import Item, Pool
from atop.cli.keys import read_key, read_prefix, samples_of
from atop.cli.session import Count, Session, StoreCommand, complete_index, complete_pool, pass_session

# Items shown on a terminal unless --limit says otherwise: a few screens.
TERMINAL_LIMIT = 100

# Columns shown on a terminal unless --columns says otherwise: what fits a line of a usual window.
TERMINAL_COLUMNS = 6

# Bounds that exclude each other.
CONTRARY = (("key", "prefix"), ("key", "start"), ("key", "end"), ("prefix", "start"), ("prefix", "end"))

# Attributes by which imports know records again: shown only when they are asked for.
IDENTIFIERS = frozenset({"uid", "message_id", "fingerprint", "import_key"})

# Items whose attributes are gathered to choose the columns.
SAMPLE = 100

# Attributes named where one was not found.
MAX_NAMED = 100


@click.command("query", cls=StoreCommand)
@click.argument("pool_name", metavar="POOL", shell_complete=complete_pool)
@click.argument("index", metavar="[INDEX]", required=False, shell_complete=complete_index)
@click.option("--start", metavar="KEY", help="Begin at this key.")
@click.option("--end", metavar="KEY", help="End before this key.")
@click.option("--prefix", metavar="TEXT", help="Only keys that begin with this text.")
@click.option("--key", metavar="KEY", help="Only this key.")
@click.option("--search", metavar="WORDS", help="Only items with all of these words, by a word index.")
@click.option("--reverse", is_flag=True, help="The last key first.")
@click.option("--limit", metavar="COUNT", type=Count(), help="At most that many items; 0: all.")
@click.option("--columns", metavar="NAMES", help="The attributes to show, with commas between them.")
@pass_session
def query_command(
    session: Session,
    *,
    pool_name: str,
    index: str | None,
    start: str | None,
    end: str | None,
    prefix: str | None,
    key: str | None,
    search: str | None,
    reverse: bool,
    limit: int | None,
    columns: str | None,
) -> None:
    """Show items of a pool, in the order of an index.

    Without INDEX the items of POOL are shown in the order of their ids.

    Without --limit, a terminal shows the first 100; a pipe, a file and --json get all. Keys are read as what
    the index holds: text, numbers, dates like 2026-01-31. For an index on several attributes they stand with
    commas between them: --start London,Bob

    \b
    Examples:
      atop query contacts name --start B --end C
      atop query events start --start 2026-01-01 --columns start,summary,location
      atop --json query contacts email --key ada@example.org
    """
    import atop.pim  # noqa: F401 - the classes of people's data, which bring records of older versions up to date

    cut = limit is None and sys.stdout.isatty() and not session.output.json
    most = TERMINAL_LIMIT if cut else limit or None
    names = [name.strip() for name in columns.split(",") if name.strip() != "id"] if columns else None
    given = {"start": start, "end": end, "prefix": prefix, "key": key}
    bounds = {name: text for name, text in given.items() if text is not None}
    with session.open_store() as store:
        pool = session.find_pool(store, pool_name)
        if search is not None:
            items, first = _search(pool, index, search, bounds, reverse)
        else:
            items, first = _find(pool, index, bounds, reverse)
        _show(session, pool, itertools.islice(items, most), first, names)
        if cut and next(items, None) is not None:
            session.output.note(f"only the first {most} are shown; --limit 0 shows all")


def _search(
    pool: Pool, index: str | None, words: str, bounds: Mapping[str, str], reverse: bool
) -> tuple[Iterator[Item], tuple[str, ...]]:
    """The items that have all of these words."""
    if bounds or reverse:
        other = next(iter(bounds), "reverse")
        raise click.UsageError(f"--search finds items in the order of their ids: leave out --{other}.")
    return iter(pool.search(words, index)), ()


def _find(
    pool: Pool, index: str | None, bounds: Mapping[str, str], reverse: bool
) -> tuple[Iterator[Item], tuple[str, ...]]:
    """The items asked for, and the attributes that the index orders by."""
    if index is None:
        if bounds:
            raise click.UsageError(f"--{next(iter(bounds))} needs an INDEX: the attribute to look for it in.")
        if reverse:
            raise click.UsageError("--reverse needs an INDEX.")
        return iter(pool), ()
    for first, second in CONTRARY:
        if first in bounds and second in bounds:
            raise click.UsageError(f"--{first} and --{second} cannot be combined.")
    definition = pool.indexes.get(index)
    attributes = definition.attributes if definition else ()
    samples = samples_of(pool, index, attributes) if bounds else ()
    keys: dict[str, Any] = {}
    for name, text in bounds.items():
        try:
            keys[name] = (read_prefix if name == "prefix" else read_key)(text, samples)
        except ValueError as error:
            raise click.BadParameter(f"{error}.", param_hint=f"--{name}") from None
    return pool.query(index, reverse=reverse, **keys), attributes


def _show(
    session: Session, pool: Pool, items: Iterable[Item], first: Sequence[str], columns: Sequence[str] | None
) -> None:
    """Write the items. `first` are the columns that stand first where none are named."""
    remaining = iter(items)
    if columns is not None:
        sample = list(itertools.islice(remaining, SAMPLE))
        _check_columns(pool, sample, columns)
        remaining = itertools.chain(sample, remaining)
    elif not session.output.json:
        sample = list(itertools.islice(remaining, SAMPLE))
        columns = _choose_columns(pool, sample, first)
        remaining = itertools.chain(sample, remaining)
    session.output.rows(["id", *(columns or ())], (_row(item, columns) for item in remaining))


def _check_columns(pool: Pool, sample: Sequence[Item], columns: Sequence[str]) -> None:
    """Raise BadParameter if no item of the pool has one of these attributes. Of an empty pool all are taken."""
    indexed = (name for definition in pool.indexes.values() for name in definition.attributes)
    known = dict.fromkeys(indexed)
    for item in itertools.chain(sample, pool):  # all of the pool only where a name is rare, or mistyped
        known.update(dict.fromkeys(item.attributes))
        if known.keys() >= set(columns):
            return
    missing = [name for name in columns if name not in known]
    if missing and len(pool):
        there = ", ".join(list(known)[:MAX_NAMED])
        raise click.BadParameter(
            f"no item of {pool.name!r} has {missing[0]!r}; they have: {there}.", param_hint="--columns"
        )


def _choose_columns(pool: Pool, items: Sequence[Item], first: Sequence[str]) -> list[str]:
    """What people look items up by: the attributes of this index, then those of the pool's other indexes.

    Word indexes are over long texts and do not count. Without any index, all attributes of some items; on a
    terminal, in both cases, only as many as fit.
    """
    definitions = [definition for definition in pool.indexes.values() if not definition.words]
    names = dict.fromkeys([*first, *(name for definition in definitions for name in definition.attributes)])
    if not names:
        names = dict.fromkeys(name for item in items for name in item.attributes)
    for name in IDENTIFIERS.difference(first):
        names.pop(name, None)
    return list(names)[:TERMINAL_COLUMNS] if sys.stdout.isatty() else list(names)


def _row(item: Item, columns: Sequence[str] | None) -> tuple[dict[str, Any], list[Any]]:
    """An item as fields for --json and as cells for people."""
    attributes = item.attributes
    if columns is None:
        return {"id": item.item_id, "type": item.type_name, "attributes": attributes}, []
    chosen = {name: attributes.get(name) for name in columns}
    fields = {"id": item.item_id, "type": item.type_name, "attributes": chosen}
    return fields, [item.item_id, *chosen.values()]
