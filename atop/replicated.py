"""What an engine asks of whatever keeps its database equal to those on other devices.

The store knows nothing of networks: it is given an object that does, or none. The engine calls these methods; the
other direction is `Engine.applying` and `Engine.at_rest`.

The order of locks is: the engine's write lock, its gate, and only then one of the replication's own.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

    from atop.engine import Engine
    from atop.store import Store
    from atop.values import FileInfo
    from atop.writeset import WriteSet


class Replication(Protocol):
    """Replication, as the engine sees it."""

    @property
    def is_master(self) -> bool:
        """Whether this device's commits are applied here. Invariant: changes only within `Engine.at_rest`."""

    def configure(self, environment: Any) -> int:
        """Prepare an environment that is about to be opened; returns the flags to add to its opening.

        May be called again after `stop`, for the environment that takes the place of one that failed.
        """

    def start(self, environment: Any, data: Path) -> None:
        """Take up the environment, which is open and has no table open yet.

        Returns when the tables can be opened: made where `is_master` says so, there already otherwise.
        """

    def attach(self, engine: Engine) -> None:
        """The tables are open: from now on, tell the engine of what is applied."""

    def serve(self, store: Store) -> None:
        """The store is open: what waits to be made in it, as any commit is, can be made from now on."""

    def forward(self, write_set: WriteSet) -> int | None:
        """Have the master commit a WriteSet, and wait until it is applied here; returns its commit number.

        None says that this device has become the master meanwhile, and is to apply it itself.

        Raises:
            Conflict and what else a commit raises: nothing was applied.
            NoMaster: there is none to be had.
        """

    def await_replicated(self, number: int) -> None:
        """Return when another device has the commit of this number on its disk, or none is there to have it."""

    def stop(self) -> None:
        """Leave the environment, which is about to be closed: no thread is in it when this returns."""

    def log_needed(self) -> int:
        """The number of the first log file that another device may still ask for."""

    # -- contents of files. The store calls these; those that name a file may be called by any thread.

    def close_files(self) -> None:
        """Exchange no more contents. What has arrived in part stays, and goes on the next time."""

    def items_changed(self, item_ids: list[int] | None) -> None:
        """Commits made elsewhere have changed these items; None: everything may be different. Must return at once."""

    def fetch_file(self, info: FileInfo, timeout: float) -> None:
        """Return when the contents of a file are in the area; those wait behind nothing else.

        `timeout` is how many seconds may pass without a byte of them. Raises `NoSuchFile`, which says who was asked.
        """

    def mend_file(self, digest: bytes, size: int) -> bool:
        """Contents are damaged here: have them fetched again. False if there is no other device: nothing is done."""

    def await_files(self, digests: Iterable[bytes]) -> None:
        """Return when another device has these contents on its disk, or none is there to have them."""

    def named_elsewhere(self, digests: list[bytes]) -> set[bytes]:
        """Those of these contents that another device of the group names, or may name: it cannot be asked now."""
