"""Which commits `atop undo` takes back, and how: several of them newest first, in as few transactions as they fit.

Promises: each transaction is whole or not at all, and an error names what had been taken back before it. What was
taken back is known by the labels that `Store.undo` gives (see `atop.journal.undo_label`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from atop import AtopError, Commit, NoSuchCommit, Store
from atop.journal import undo_label, undone_by

# Changes of items taken back in one transaction: some 100 MB of memory, and far from the locks that there are.
MAX_CHANGES = 20_000

NUMBERS = re.compile(r"(\d{1,18})(?:\.\.(\d{1,18}))?", re.ASCII)

Range = tuple[int, int | None]  # the first and last number; None where one commit is named


def read_numbers(text: str) -> Range:
    """`12` or `12..20`, in either order. Raises ValueError."""
    found = NUMBERS.fullmatch(text)
    if found is None:
        raise ValueError(text)
    first, last = int(found[1]), found[2]
    return (first, None) if last is None else (min(first, int(last)), max(first, int(last)))


def latest(store: Store) -> Commit:
    """The latest commit that did something which is not taken back. Raises NoSuchCommit."""
    for commit in _standing(store, 0):
        return commit
    raise NoSuchCommit("there is nothing to undo: the history has no commit that is not taken back already")


def chosen(store: Store, ranges: Iterable[Range]) -> list[Commit]:
    """The commits of these numbers, newest first, each once; of a range, those that stand. Raises NoSuchCommit."""
    found: dict[int, Commit] = {}
    for low, high in ranges:
        if high is None:
            commit = next(store.history(limit=1, before=low + 1), None)
            if commit is None or commit.number != low:
                raise NoSuchCommit(f"the history has no commit {low}: see 'atop history'")
            found[low] = commit
            continue
        within = [commit for commit in _standing(store, low) if commit.number <= high]
        if not within:
            raise NoSuchCommit(f"the history has nothing to undo in {low}..{high}: see 'atop history'")
        found.update((commit.number, commit) for commit in within)
    return [found[number] for number in sorted(found, reverse=True)]


def _standing(store: Store, low: int) -> Iterable[Commit]:
    """The commits from number `low` on, latest first, that changed items, are no undo, and are not undone."""
    undone: set[int] = set()
    for commit in store.history():
        if commit.number < low:
            return
        if commit.number in undone:
            continue
        taken_back = undone_by(commit)
        for first, last in taken_back:
            undone.update(range(first, last + 1))
        if not taken_back and commit.item_ids:
            yield commit


def take_back(store: Store, commits: Sequence[Commit]) -> None:
    """Undo the commits in this order. A commit that touches items which the transaction has changed begins another.

    Raises:
        AtopError: of one of them, such as UndoRefused; the message says which had been undone before, and stay so.
    """
    done = 0
    while done < len(commits):
        try:
            done += _take_back_some(store, commits[done:])
        except AtopError as error:
            if done:
                before = ", ".join(str(commit.number) for commit in commits[:done])
                error.args = (f"{error}; taken back before that, and left so: {before}", *error.args[1:])
            raise


def _take_back_some(store: Store, commits: Sequence[Commit]) -> int:
    """Undo the first of these commits, and as many more as fit into its transaction; returns how many."""
    with store.transaction() as transaction:
        count = changes = 0
        for commit in commits:
            changes += len(commit.item_ids)
            if count and (changes > MAX_CHANGES or not transaction.entries.keys().isdisjoint(commit.item_ids)):
                break
            store.undo(commit)
            count += 1
        transaction.label = undo_label(commits[:count])
    return count
