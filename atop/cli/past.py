"""`atop history` and `atop undo`: what was done, and taking it back."""

from __future__ import annotations

import itertools
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import click

from atop import Commit, Item, Revision, Store
from atop.cli.session import Count, Session, StoreCommand, pass_session
from atop.cli.text import describe, local
from atop.cli.undoing import Range, chosen, latest, read_numbers, take_back

# Commits shown on a terminal unless --limit says otherwise.
TERMINAL_LIMIT = 25

# A line of output in both forms: fields for --json, cells for people.
Row = tuple[dict[str, Any], list[Any]]


@click.command("history", cls=StoreCommand)
@click.option("--item", "item_id", metavar="ID", type=int, help="Only the commits that changed this item, and how.")
@click.option("--limit", metavar="COUNT", type=Count(), help="At most that many commits; 0: all.")
@pass_session
def history_command(session: Session, *, item_id: int | None, limit: int | None) -> None:
    """Show what was done to the store, the latest commit first.

    Without --limit, a terminal shows the last 25; a pipe, a file and --json get all that the journal has. The
    number in the first column is what `atop undo` takes, and what `status` and `backup` show.

    \b
    Examples:
      atop history
      atop history --item 7
      atop --json history --limit 1
    """
    cut = limit is None and sys.stdout.isatty() and not session.output.json
    most = TERMINAL_LIMIT if cut else limit or None
    with session.open_store() as store:
        if item_id is None:
            columns, rows = ["commit", "time", "changes", "label"], _commit_rows(store)
        else:
            columns, rows = ["commit", "time", "change", "label"], _revision_rows(store.get(item_id))
        session.output.rows(columns, itertools.islice(rows, most))
        if cut and next(rows, None) is not None:
            session.output.note(f"only the last {most} are shown; --limit 0 shows all")


def _fields_of(commit: Commit) -> dict[str, Any]:
    return {
        "number": commit.number,
        "commit_id": commit.commit_id,
        "time": commit.time,
        "device": commit.device,
        "label": commit.label,
    }


def _commit_rows(store: Store) -> Iterator[Row]:
    for commit in store.history():
        changes = [
            {"kind": change.kind, "id": change.item_id, "attributes": [*change.before, *change.added]}
            for change in commit.changes
        ]
        kinds = Counter(change.kind for change in commit.changes)
        summary = ", ".join(f"{count:,} {kind}" for kind, count in kinds.items())
        fields = {**_fields_of(commit), "changes": changes}
        yield fields, [commit.number, local(commit.time), summary, commit.label]


def _revision_rows(item: Item) -> Iterator[Row]:
    for revision in item.history():
        commit = revision.commit
        fields = {**_fields_of(commit), "kind": revision.kind, "changed": revision.changed}
        yield fields, [commit.number, local(commit.time), _summary(revision), commit.label]


def _summary(revision: Revision) -> str:
    if revision.kind != "changed":
        return revision.kind
    return "; ".join(
        f"{name}: {describe(old) or 'nothing'} -> {describe(new) or 'nothing'}"
        for name, (old, new) in revision.changed.items()
    )


class Numbers(click.ParamType[Range]):
    """The number of a commit, or a range of them."""

    name = "commit"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Range:
        """Read `12` or `12..20`."""
        try:
            return read_numbers(value)
        except ValueError:
            self.fail(f"{value!r} should be the number of a commit, or a range like 12..20.", param, ctx)


@click.command("undo", cls=StoreCommand)
@click.argument("commits", metavar="[COMMIT]...", type=Numbers(), nargs=-1)
@click.option("--last", is_flag=True, help="The latest commit that is not taken back already.")
@pass_session
def undo_command(session: Session, *, commits: tuple[Range, ...], last: bool) -> None:
    """Take back what commits did.

    COMMIT is a number from the first column of `atop history`, or a range of them like 12..20. Several are
    taken back newest first, in one transaction if they fit and change different items. Of a range, what is
    taken back already, and the commits that took it back, are left out.

    Taking back is a commit of its own, which can be undone by its number as well. --last passes over those,
    so that each --last goes one step further back. Refused if later commits build on it; the message says
    which.

    \b
    Examples:
      atop undo 12
      atop undo 12..20
      atop undo --last
    """
    if last == bool(commits):
        raise click.UsageError("name either COMMITs (see 'atop history') or --last.")
    with session.open_store() as store:
        found = chosen(store, commits) if commits else [latest(store)]
        take_back(store, found)
    session.output.result(
        {
            "undone": [
                {"number": commit.number, "commit_id": commit.commit_id, "label": commit.label} for commit in found
            ]
        },
        *(f"undid commit {commit.number}: {commit.label or '(no label)'}" for commit in found),
    )
