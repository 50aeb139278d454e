"""One store that goes two ways and is brought together again, without devices: for the tests of merging."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from atop import Store
from atop.engine import TABLES
from replication.gathering import Gathering
from replication.reconcile import Reconciler, _InterruptedError
from replication.salvage import Header, Salvage, write

CACHE = 4 << 20
TAGS = {"left": 0, "right": 7}


class Fork:
    """Two stores, `left` and `right`, equal when it is made."""

    def __init__(self, directory: Path, prepare: Callable[[Store], object] | Path) -> None:
        self.directory = directory
        if isinstance(prepare, Path):
            shutil.copytree(prepare, directory / "left")
        else:
            make(directory / "left", prepare)
        shutil.copytree(directory / "left", directory / "right")
        (directory / "right" / "local" / "counters").unlink()
        self.left = Store(directory / "left", cache_size=CACHE)
        self.right = Store(directory / "right", cache_size=CACHE, tag=TAGS["right"])
        self.common = self.left.head.number
        self.reconciler: Reconciler

    def close(self) -> None:
        self.left.close()
        self.right.close()

    def salvage(self, store: Store, common: int | None = None, has: int | None = None) -> Salvage | None:
        """The file of what `store` has and the other lacks; None if that is nothing."""
        common = self.common if common is None else common
        record = store._engine.get("journal", common.to_bytes(8))
        samples = ((common, record[:32]),) if record is not None else ()
        path = self.directory / f"of {store._tenure.tag}" / "salvage" / "00000001.salvage"
        path.parent.mkdir(parents=True, exist_ok=True)
        count = write(
            path,
            Header(store._tenure.tag, *store.head, common, samples),
            Gathering(store._engine, common if has is None else has).latest_first(),
        )
        return Salvage(path) if count else None

    def merge(self, into: Store, salvage: Salvage | None = None, *, begun_again: bool = False) -> None:
        """Replay into one store what the other has done; if `begun_again`, the device ends after each commit."""
        other = self.right if into is self.left else self.left
        salvage = salvage or self.salvage(other)
        while salvage is not None:
            self.reconciler = reconciler = Reconciler(lambda device, message: False, lambda event: None)
            reconciler.attach(into._engine)
            reconciler._store, reconciler._may_replay = into, True
            if begun_again:
                end_after_one(reconciler)
            with contextlib.suppress(_InterruptedError):
                reconciler._replay_file(salvage)
                break
        problems = into.verify().problems
        assert problems == []


def end_after_one(reconciler: Reconciler) -> None:
    """Have a replay end when it has made a commit."""
    make_commit = reconciler._make

    def make_and_end(*arguments: Any) -> Any:
        outcome = make_commit(*arguments)
        reconciler._may_replay = outcome is None
        return outcome

    reconciler._make = make_and_end  # type: ignore[method-assign]


def make(path: Path, prepare: Callable[[Store], object]) -> None:
    """A store to begin with."""
    with Store(path, cache_size=CACHE) as store:
        prepare(store)


def tables(store: Store) -> dict[str, list[tuple[bytes, bytes]]]:
    return {table: store._engine.pairs(table, b"", b"\xff" * 64, 10**9) for table in TABLES}
