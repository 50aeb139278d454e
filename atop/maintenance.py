"""Giving disk space back: old history, contents of files that nothing names, empty pages."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from atop import clock
from atop.files import GRACE
from atop.journal import Commit, commits_after
from atop.pool import Pool
from atop.values import FileInfo, walk
from atop.writeset import file_counter

if TYPE_CHECKING:
    from atop.store import Store

# How long history is kept: undo, histories of items and deleted files reach back so far.
DEFAULT_KEEP = timedelta(days=400)
# How long the ids of commits are known, whatever history is kept: a device that was away for less cannot commit twice.
KEEP_IDS = timedelta(days=400)
TRIM_BATCH = 200
MAX_LEAP = timedelta(microseconds=clock.MAX_LEAP)
# Contents that the other devices are asked about at once, before they are removed.
COLLECT_BATCH = 1_000


@dataclass
class CompactReport:
    """What `compact` gave back."""

    commits: int = 0  # removed from the journal
    files: int = 0  # whose contents were removed
    kept: int = 0  # files that nothing names whose contents are younger than the grace, and stay until another time
    elsewhere: int = 0  # files that another device names; or may name, because it cannot be asked now
    bytes: int = 0  # of disk space, of contents and of the database together


def compact(
    store: Store, keep: timedelta, progress: Callable[[str], None] | None, grace: float | None
) -> CompactReport:
    """Give disk space back, in steps that leave the store in use; one caller at a time."""
    with store._caring:
        return _compact(store, keep, progress, grace)


def _compact(
    store: Store, keep: timedelta, progress: Callable[[str], None] | None, grace: float | None
) -> CompactReport:
    report = CompactReport()
    tell = progress or (lambda step: None)
    tell("finishing the removal of indexes")
    for item in store.items():
        if isinstance(item, Pool) and item._read()["doomed"]:
            item._sweep()
    tell("removing old history")
    _trim(store, keep, report)
    tell("removing contents of files that nothing names")
    _collect(store, GRACE if grace is None else grace, report)
    tell("giving back empty pages")
    report.bytes += store._tenure.engine.compact()
    return report


def _trim(store: Store, keep: timedelta, report: CompactReport) -> None:
    """Remove the commits older than `keep` from the journal, and ids past their time from the table of commits."""
    now = datetime.now(UTC)
    try:
        oldest_kept = now - keep
    except OverflowError:  # so long ago, or so far ahead, that no calendar has it
        oldest_kept = datetime.min.replace(tzinfo=UTC) if keep > timedelta(0) else datetime.max.replace(tzinfo=UTC)
    oldest = store._tenure.engine.oldest_commit()
    batch: list[Commit] = []
    ahead: list[Commit] = []  # by a clock that was wrong: they are as old as the next one says
    for commit in commits_after(store._tenure.engine, oldest - 1):
        if commit.time > now + MAX_LEAP and commit.number != store.head.number:
            ahead.append(commit)
            continue
        if commit.time >= oldest_kept or commit.number == store.head.number:
            break  # the last one stays: it holds the chain
        batch += [*ahead, commit]
        ahead = []
        if len(batch) >= TRIM_BATCH:
            _trim_batch(store, batch, report)
            batch = []
    _trim_batch(store, batch, report)
    cutoff = int((now - KEEP_IDS).timestamp() * 1_000_000)
    store._tenure.engine.forget_commit_ids(cutoff)


def _trim_batch(store: Store, batch: list[Commit], report: CompactReport) -> None:
    if batch:
        uses: Counter[bytes] = Counter()
        for commit in batch:
            for change in commit.changes:
                for value in change.before.values():
                    uses.update(file_counter(inner) for inner in walk(value) if type(inner) is FileInfo)
        counters = {key: -count for key, count in uses.items()}
        store._tenure.engine.trim_journal(batch[0].number, batch[-1].number, counters)
        report.commits += len(batch)


def _collect(store: Store, grace: float, report: CompactReport) -> None:
    """Remove contents that neither an item nor the journal names."""
    area, engine = store._file_area, store._tenure.engine
    engine.flush()  # a commit that let go of contents must not be lost by a crash once they are

    def used(digest: bytes) -> bool:
        return engine.names_file(digest) or store._pins.keeps(digest)

    for digests in _batches(digest for digest in area.digests() if not used(digest)):
        replication = store._tenure.replication
        needed = replication.named_elsewhere(digests) if replication is not None else set()
        for digest in digests:
            if digest in needed:
                report.elsewhere += 1
                continue
            with engine.no_commits():  # a commit that names it looks whether it is there, just before it is made
                size = area.remove_unless(used, digest, grace)
            if size is not None:
                report.files += 1
                report.bytes += size
            elif not used(digest):
                report.kept += 1
    for digest in area.partials():
        if not used(digest):
            area.drop_partial(digest)


def _batches(digests: Iterator[bytes]) -> Iterator[list[bytes]]:
    while batch := list(itertools.islice(digests, COLLECT_BATCH)):
        yield batch
