"""`atop history` and `atop undo`: what was done, and taking it back."""

from __future__ import annotations

import itertools
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import click

from atop import Commit, Item, NoSuchCommit, Revision, Store
from atop.cli.session import Session, StoreCommand, pass_session
from atop.cli.text import describe, local

# Commits shown on a terminal unless --limit says otherwise.
TERMINAL_LIMIT = 25

# A line of output in both forms: fields for --json, cells for people.
Row = tuple[dict[str, Any], list[Any]]


@click.command("history", cls=StoreCommand)
@click.option("--item", "item_id", metavar="ID", type=int, help="Only the commits that changed this item, and how.")
@click.option("--limit", metavar="COUNT", type=click.IntRange(min=0), help="At most that many commits; 0: all.")
@pass_session
def history_command(session: Session, *, item_id: int | None, limit: int | None) -> None:
    """Show what was done to the store, the latest commit first.

    Without --limit, a terminal shows the last 25; a pipe, a file and --json get all that the journal has. The
    number in the first column is what `atop undo` takes.

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
        "commit": commit.commit_id,
        "number": commit.number,
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
        yield fields, [commit.commit_id, local(commit.time), summary, commit.label]


def _revision_rows(item: Item) -> Iterator[Row]:
    for revision in item.history():
        commit = revision.commit
        fields = {**_fields_of(commit), "kind": revision.kind, "changed": revision.changed}
        yield fields, [commit.commit_id, local(commit.time), _summary(revision), commit.label]


def _summary(revision: Revision) -> str:
    if revision.kind != "changed":
        return revision.kind
    return "; ".join(
        f"{name}: {describe(old) or 'nothing'} -> {describe(new) or 'nothing'}"
        for name, (old, new) in revision.changed.items()
    )


@click.command("undo", cls=StoreCommand)
@click.argument("commit_id", metavar="[COMMIT]", type=int, required=False)
@click.option("--last", is_flag=True, help="The latest commit, whichever that is.")
@pass_session
def undo_command(session: Session, *, commit_id: int | None, last: bool) -> None:
    """Take back what a commit did.

    COMMIT is a number from the first column of `atop history`. Taking it back is a commit of its own, which
    can be undone as well. Refused if later commits build on it; the message says which.

    \b
    Examples:
      atop undo 12
      atop undo --last
    """
    if last == (commit_id is not None):
        raise click.UsageError("name either a COMMIT (see 'atop history') or --last.")
    with session.open_store() as store:
        if commit_id is None:
            latest = next(store.history(limit=1), None)
            if latest is None:
                raise NoSuchCommit("there is nothing to undo: the store has no commits yet")
            commit_id = latest.commit_id
        label = store.commit(commit_id).label
        store.undo(commit_id)
    words = f"undid commit {commit_id}: {label or '(no label)'}"
    session.output.result({"undone": commit_id, "label": label}, words)
