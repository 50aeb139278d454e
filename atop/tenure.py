"""How a store has its database: owned by this process or by another, and what happens when that changes.

Promises: a process that opens a store owns it, if nobody does; else it is attached to whoever does. When that one goes,
the store here goes on: with the database opened here and served to others, or attached to the one who was quicker.
Whoever holds the `Store`, its items and its transactions notices nothing but a moment's wait.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from atop.alone import Alone, group_of
from atop.attached import AttachedDatabase
from atop.database import Database, Durability
from atop.engine import COMMITS, Engine
from atop.errors import AtopError, StoreBusy, StoreError
from atop.ids import COUNTER_BITS, LeasedNumbers, NumberAllocator, Numbers
from atop.joining import join
from atop.owner import OwnerLock, Presence
from atop.records import pack_u64, unpack_u64
from atop.replicated import Replication
from atop.serving import Server
from atop.writeset import ITEMS

if TYPE_CHECKING:
    from atop.store import Store

log = logging.getLogger(__name__)

MakeReplication = Callable[[], Replication]


class Tenure:
    """The way in which one store has its database. Made by `Store`."""

    def __init__(
        self,
        store: Store,
        *,
        durability: Durability,
        cache_size: int | None,
        replication: Replication | MakeReplication | None,
        tag: int,
        on_owner: Callable[[], object] | None,
    ) -> None:
        self._store = store
        self._local = store.path / "local"
        self._durability: Durability = durability
        self._cache_size = cache_size
        self._replication = replication
        self.tag = tag  # of this device
        self._on_owner = on_owner
        self._changing = threading.Lock()  # held while the database changes hands, and when the store closes
        self._ended = False
        self._lock: OwnerLock | None = None
        self._server: Server | None = None
        self._engine: Engine | None = None
        self._in_use: Replication | None = None  # what keeps the database here equal to others, if anything does
        self._attached: AttachedDatabase | None = None
        self._presence = Presence(self._local)

    def begin(self) -> tuple[Database, Numbers]:
        """The database, and where numbers come from. Raises what `Store` does."""
        try:
            asker = secrets.token_bytes(8)
            found = join(self._local, asker)
            if isinstance(found, OwnerLock):
                return self._own(found, 0)
            if self._replication is None and (group := group_of(self._store.path)) is not None:
                self.tag = group.tag
            self._attached = AttachedDatabase(
                self._local,
                asker,
                found,
                self._durability,
                self._succeed,
                self._presence.is_there,
                patient=self._replication is None,
            )
        except BaseException:
            self._presence.end()
            raise
        return self._attached, LeasedNumbers(self._store.path, self._attached.lease, self._attached.give_back)

    def serve(self) -> None:
        """Answer other processes from now on, where this one is the owner; hear of them, where it is not."""
        if self._attached is not None and self._engine is None:
            self._attached.on_news = self._store._notify
            self._attached.start()
        if self._engine is None:
            return
        try:
            self._server = Server(self._store, self._engine, self._local)
        except (OSError, RuntimeError) as error:  # the latter where the system has no thread left
            log.warning("no other process can open %s meanwhile: %s", self._store.path, error)
            if self._lock is not None:
                self._lock.say(alone=True)
        if self._in_use is not None:
            self._in_use.serve(self._store)

    def _own(self, lock: OwnerLock, sequence: int) -> tuple[Engine, NumberAllocator]:
        """Open the database, under the lock, which is released if that fails."""
        store = self._store
        with contextlib.ExitStack() as opened:
            opened.callback(lock.release)
            replication = self._replication() if callable(self._replication) else self._replication
            if replication is None and (group := group_of(store.path)) is not None:
                replication, self.tag = Alone(group.may_write), group.tag
            engine = Engine(
                store.path / "data",
                cache_size=self._cache_size,
                durability=self._durability,
                replication=replication,
                first_sequence=sequence,
            )
            opened.callback(engine.close)
            store._file_area.prepare()
            numbers = self._open_numbers(engine)
            opened.pop_all()
        self._lock, self._engine, self._in_use = lock, engine, replication
        return engine, numbers

    def _open_numbers(self, engine: Engine) -> NumberAllocator:
        tag = self.tag
        low, high = pack_u64(tag << COUNTER_BITS), pack_u64((tag + 1) << COUNTER_BITS)

        def last(table: str) -> int:
            keys = engine.keys(table, low, high, 1, reverse=True)
            return unpack_u64(keys[0])[0] if keys else 0

        return NumberAllocator(self._local / "counters", tag, last(ITEMS), last(COMMITS))

    def _succeed(self, lock: OwnerLock) -> tuple[Engine, NumberAllocator]:
        """The owner has gone, and this process has the lock: take its place."""
        with self._changing:
            if self._ended or self._attached is None:
                lock.release()
                raise self._store._engine.closed_error()
            before = self._store._engine, self._store._numbers
            try:
                # Past every number that was seen here, so that nothing which was read before is taken to hold.
                engine, numbers = self._own(lock, (self._attached.sequence | 1) + 1)
                try:
                    self._store._use(engine, numbers)
                    self.serve()
                    if self._on_owner is not None:
                        threading.Thread(target=self._on_owner, name="atop-owner", daemon=True).start()
                except BaseException:
                    self._give_up(numbers, *before)
                    raise
            except AtopError:
                raise
            except Exception as error:  # no thread to be had, or a mistake: others may do better, and this one later
                raise StoreError(
                    f"this process could not take over {self._store.path}: {error}", self._store.path
                ) from error
        log.info("this process has taken over %s", self._store.path)
        return engine, numbers

    def _give_up(self, numbers: Numbers, *before: Any) -> None:
        """Taking over failed when the database was open here: close it, and leave it to others, or to the next try."""
        engine, lock, in_use, server = self._engine, self._lock, self._in_use, self._server
        with contextlib.ExitStack() as last:
            if lock is not None:
                last.callback(lock.release)
            last.callback(numbers.close)
            if engine is not None:
                last.callback(engine.close)
            if in_use is not None:
                last.callback(in_use.close_files)
            if server is not None:
                last.callback(server.close)
            self._lock = self._engine = self._in_use = self._server = None
            self._store._use(*before)

    # -- what others are to know

    def changed(self, item_ids: list[int] | None) -> None:
        """These items are being changed by a commit of another device; or, None: what was read may not hold."""
        if self._server is not None:
            self._server.changed(item_ids)
        if self._in_use is not None:
            self._in_use.items_changed(item_ids)

    def notify(self) -> None:
        """There are new commits."""
        if self._server is not None:
            self._server.notify()

    # -- whose it is

    @property
    def engine(self) -> Engine:
        """The database in this process. Raises `StoreBusy` where another has it."""
        if self._engine is None:
            raise StoreBusy(
                f"the store {self._store.path} is open in process {self.owner_pid}, which alone can do this: close it "
                "there first",
                self._store.path,
                self.owner_pid,
            )
        return self._engine

    @property
    def replication(self) -> Replication | None:
        """What keeps the database in this process equal to those on other devices; None if nothing does."""
        return self._in_use

    @property
    def attached(self) -> AttachedDatabase | None:
        """The database in another process; None where it is in this one."""
        return self._attached if self._engine is None else None

    @property
    def owner_pid(self) -> int | None:
        """The process that owns the store; None if it is this one."""
        return self._attached.owner_pid if self._attached is not None and self._engine is None else None

    # -- the end

    def end(self) -> None:
        """Leave the database, and close it if it is this process's. May be called again.

        Raises:
            StoreFull, StoreDamaged: see `Store.close`.
        """
        with self._changing:
            ended, self._ended = self._ended, True
        if ended:
            return
        with contextlib.ExitStack() as last:
            last.callback(self._presence.end)
            numbers = self._store._numbers
            if self._attached is not None:
                self._attached.leave()
            if self._engine is None:
                numbers.close()
            else:
                if self._lock is not None:
                    last.callback(self._lock.release)
                last.callback(numbers.close)
                last.callback(self._engine.close)
                if self._in_use is not None:
                    last.callback(self._in_use.close_files)
                if self._server is not None:
                    self._server.close()
            if self._attached is not None:
                self._attached.close()

    def disown(self, why: str) -> None:
        """In a forked child: leave all of it to the parent."""
        self._ended = True
        self._store._numbers.disown(why)
        if self._attached is not None:
            self._attached.disown()
        if self._lock is not None:
            self._lock.release()
        self._presence.end()
