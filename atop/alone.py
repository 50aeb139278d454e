"""A store that belongs to a group of devices, opened by a program that links to none of them.

`Store(path)`, or `atop import` while no device runs, may meet a store that other devices have too. What is written
there must not look as if they had it: it is written as the first master of a new generation would write it, with
nobody listening. When the device runs again, the others find out that the histories have parted, as after any time
apart, and nothing of either is lost.

A store that is only read is left as it was: the new generation begins with the first commit.

Never: a commit in a group that wants a majority of its devices for each (`NoMaster`), a store that was paired and not
yet copied, which would become a new one.

What this module knows of a group is in `local/group.json`, which `replication/group.py` writes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from berkeleydb import db

from atop.environment import explained
from atop.errors import NoMaster, NoSuchFile, NoSuchStore, StoreDamaged, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from atop.engine import Engine
    from atop.store import Store
    from atop.values import FileInfo
    from atop.writeset import WriteSet

GROUP_FILE: Final = "group.json"

MAX_GROUP_BYTES: Final = 1 << 20
"""Of the file: 256 devices need a tenth of it."""

LOG_FILES: Final = 16
"""Log files that are kept for the other devices, which may follow what is written here."""

MAX_TAG: Final = (1 << 24) - 1


class GroupOfStore(NamedTuple):
    """What opening a store needs to know of its group."""

    tag: int  # this device's part of the ids of items
    may_write: bool  # whether this device may commit without asking others


def group_of(store: Path) -> GroupOfStore | None:
    """The group that a store belongs to; None if it is on its own.

    Raises:
        StoreDamaged: the file about the group cannot be read.
        NoSuchStore: the store was paired, and its copy has not come yet.
    """
    path = store / "local" / GROUP_FILE
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(MAX_GROUP_BYTES))
        tag, majority, copied, others = (found[name] for name in ("tag", "majority", "copied", "others"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise StoreDamaged(
            f"{path} cannot be read ({type(error).__name__}): what is written without it might get the numbers of "
            "another device. Restore it, or pair this device again",
            store,
        ) from error
    if type(tag) is not int or not 0 <= tag <= MAX_TAG or type(others) is not int:
        raise StoreDamaged(f"{path} holds something else than a group of devices: pair this device again", store)
    if not copied:
        raise NoSuchStore(
            f"the store {store} was paired, and has not been copied yet: run 'atop run' until it is there", store
        )
    return GroupOfStore(tag, not majority or others <= 0)


class Alone:
    """The replication of a store in a group, with no link to any other device. See `atop.replicated`."""

    def __init__(self, may_write: bool) -> None:
        self.is_master = False  # Invariant: changes only within `Engine.at_rest`
        self._may_write = may_write
        self._environment: Any = None
        self._engine: Engine | None = None
        self._data: Path | None = None

    def configure(self, environment: Any) -> int:
        """Prepare an environment that is about to be opened; returns the flags to add."""
        environment.rep_set_transport(0, lambda *message: 0)  # there is nobody to send anything to
        environment.rep_set_config(db.DB_REP_CONF_DELAYCLIENT, 1)
        environment.rep_set_timeout(db.DB_REP_CHECKPOINT_DELAY, 0)
        return int(db.DB_INIT_REP)

    def start(self, environment: Any, data: Path) -> None:
        """Take up an open environment: as it was left, until the first commit."""
        environment.rep_set_config(db.DB_REP_CONF_NOWAIT, 1)
        environment.rep_start(db.DB_REP_MASTER if self.is_master else db.DB_REP_CLIENT)
        self._environment, self._data = environment, data

    def attach(self, engine: Engine) -> None:
        """The tables are open."""
        self._engine = engine

    def serve(self, store: Store) -> None:
        """The store is open. What waits to be replayed waits for the device."""

    def forward(self, write_set: WriteSet) -> None:
        """Begin a new generation, so that the commit is applied here. Raises NoMaster if this device may not."""
        if not self._may_write:
            raise NoMaster(
                "this store's group commits only where more than half of its devices are reachable: start this "
                "device ('atop run', or Device.open), and write beside it"
            )
        engine = self._engine
        if engine is None:
            raise StoreError("the store is not open yet")
        with engine.at_rest():
            if not self.is_master:
                try:
                    self._environment.rep_start(db.DB_REP_MASTER)
                except (db.DBError, MemoryError) as error:
                    raise explained(error, engine.path.parent) from error
                self.is_master = True

    def await_replicated(self, number: int) -> None:
        """No other device is there to have it."""

    def close_files(self) -> None:
        """No contents of files are exchanged here."""

    def items_changed(self, item_ids: list[int] | None) -> None:
        """Nothing is fetched here."""

    def fetch_file(self, info: FileInfo, timeout: float) -> None:
        """Raise NoSuchFile."""
        raise NoSuchFile(
            f"the contents of {info.described()} have not come to this device yet: start it ('atop run', or "
            "Device.open), so that it fetches them from another one"
        )

    def mend_file(self, digest: bytes, size: int) -> bool:
        """There is nowhere to get contents from."""
        return False

    def await_files(self, digests: Iterable[bytes]) -> None:
        """No other device is there to have them."""

    def named_elsewhere(self, digests: list[bytes]) -> set[bytes]:
        """All of them: the other devices of the group cannot be asked."""
        return set(digests)

    def stop(self) -> None:
        """Leave the environment."""
        self._environment = None

    def log_needed(self) -> int:
        """The number of the first log file that another device may still ask for."""
        files = self._data.glob("log.*") if self._data is not None else ()
        return max(0, max((int(path.suffix[1:]) for path in files), default=0) - LOG_FILES)
