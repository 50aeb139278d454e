"""The store: a directory that holds items, for every process that opens it.

    with Store("~/pim") as store:
        with store.transaction("first contact"):
            people = store.pool("people", indexes=["name"])
            people.add(Contact(store, name="Ada Lovelace"))

Every method may be called by any thread. What a call changes outside of a transaction is a transaction of its own.

The module is long because it is the public face of the store: most of it says what its methods promise, and each hands
on to the module that does the work.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import functools
import inspect
import logging
import os
import re
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, ParamSpec, TypeVar, overload

from atop import care, clock, contents, journal
from atop.classic import ClassicStore
from atop.conflicts import Conflicts
from atop.database import Database, Durability, Head
from atop.disk import check_directory, explained
from atop.engine import COMMITS, TABLES
from atop.errands import Errands
from atop.errors import (
    AtopError,
    Conflict,
    NoSuchCommit,
    NoSuchFile,
    NoSuchItem,
    NoSuchPool,
    NoSuchStore,
    NoTransaction,
    StoreDamaged,
    StoreError,
    UpgradeFailed,
)
from atop.files import File, FileArea
from atop.ids import Numbers
from atop.indexes import Plan
from atop.item import Item, Rule
from atop.journal import Commit, Revision
from atop.live import LiveItems
from atop.maintenance import DEFAULT_KEEP, CompactReport
from atop.pins import Pins
from atop.pool import Index, Pool, index_specs, pool_key
from atop.records import dumps, pack_u64, unpack_u64
from atop.replacing import is_aside
from atop.replicated import Replication
from atop.tenure import Tenure
from atop.transaction import CURRENT, Transaction, active, current
from atop.undo import undo
from atop.values import FileInfo, plain_text
from atop.verify import VerifyReport
from atop.watching import Watch, Watchers
from atop.writeset import CATALOG, INDEX, ITEMS, REFERENCES, ROOTS, RULES, Builder, Operations, WriteSet

if TYPE_CHECKING:
    from types import TracebackType

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")
ItemClass = TypeVar("ItemClass", bound=Item)

_NOTHING_TO_HOLD = contextlib.nullcontext()

# How often `transact` runs a function that meets conflicts; after the first few it does so one caller at a time.
ATTEMPTS = 100
PATIENT_AFTER = 3
# After this many, commits of other threads wait for it, this many seconds at the most: so it comes to an end.
URGENT_AFTER, MAKE_WAY_SECONDS = 10, 0.5

# The directories of a store; files of its database; and what else is in `data` before there is any of those.
_PARTS = ("data", "files", "local")
_TABLE_FILES = frozenset(f"{name}.db" for name in TABLES)
_BEGINNINGS = re.compile(r"DB_CONFIG(\.new)?|log\.\d{10}|__db\..*|room\.new")


class _Scope:
    """What `Store.transaction` returns: the outermost one commits, an inner one is a savepoint.

    A transaction lasts no longer than its scope, which the `with` statement holds: where an interrupt keeps
    `__exit__` from running, the transaction is over all the same.
    """

    __slots__ = ("__weakref__", "_inner", "_label", "_store", "_transaction")

    def __init__(self, store: Store, label: str) -> None:
        if not isinstance(label, str):
            raise TypeError(f"the label of a transaction is text, not {label!r}")
        self._store = store
        self._label = label
        self._inner: Any = None
        self._transaction: Transaction | None = None

    def __enter__(self) -> Transaction:
        if self._transaction is not None:
            raise NoTransaction("this transaction is under way: ask the store for another")
        outer = current(self._store)
        if outer is not None:
            self._inner = outer.savepoint()
            self._inner.__enter__()
            self._transaction = outer
            return outer
        self._store._check_open()
        around = CURRENT.get()
        transaction = Transaction(self._store, self._label, around, weakref.ref(self))
        try:
            self._transaction = transaction
            CURRENT.set(transaction)
        except BaseException:
            CURRENT.set(around)
            transaction.rollback()
            raise
        return transaction

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        transaction, inner = self._transaction, self._inner
        self._transaction = self._inner = None
        if transaction is None:
            raise NoTransaction("a transaction ends once, after it has begun")
        if inner is not None:
            inner.__exit__(kind, error, trace)
            if kind is None and not transaction.open:
                raise NoTransaction("the transaction around this one has ended: nothing of this one is kept")
            return
        try:
            if kind is not None:
                transaction.rollback()
            else:
                self._store._commit(transaction)
        finally:
            CURRENT.set(transaction.outer)


class Store(ClassicStore):
    """A store of items, open in this process.

    The first process that opens a store owns its database. Another that opens it is attached to that one, and has the
    same interface; it takes over when the owner is gone.

    Args:
        path: the store's directory; `~` is expanded. It is made if it is not there, unless `create` is False.
        durability: "flushed" (a commit is on the disk when it returns), "replicated" (on that of another device too, if
            one is connected) or "buffered" (within a second). While attached, the stronger of this and the owner's.
        cache_size: bytes of memory for pages of the database; by default a part of what the machine has.
        replication: what keeps this store equal to those on other devices, or a function that makes it, called when
            this process becomes the owner; see `replication.Device`.
        tag: of this device, 0 for the first one: the part of its items' ids that no other device uses.
        on_owner: called, in a thread of its own, when this process has become the owner after it was attached.

    Raises:
        NoSuchStore: the directory is not there and `create` is False, or it holds something else.
        StoreBusy: another process has the store open, and does not share it, or this one has.
        StoreDamaged, StoreFull, StoreReadOnly, UnsupportedStore: it cannot be opened as it is.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        create: bool = True,
        durability: Durability = "flushed",
        cache_size: int | None = None,
        replication: Replication | Callable[[], Replication] | None = None,
        tag: int = 0,
        on_owner: Callable[[], object] | None = None,
    ) -> None:
        if durability not in ("flushed", "replicated", "buffered"):
            raise ValueError(f"durability must be flushed, replicated or buffered, not {durability!r}")
        self.path = Path(path).expanduser().absolute()
        self._clock_lock = threading.Lock()
        self._durability = durability
        self._patience = threading.Lock()
        self._urgent: int | None = None  # the thread that others make way for; it holds `_patience`
        self._way = threading.Event()  # Invariant: clear only while `_urgent` is set
        self._way.set()
        self._caring = threading.Lock()  # held by a backup or compaction: what one copies the other must not remove
        self._closed = False
        self._prepare(create, copying=replication is not None)
        self._file_area = FileArea(self.path / "files")
        self._pins = Pins(self.path / "local" / "salvage")
        self._errands = Errands()
        care.provide(self)
        contents.provide(self)
        self._tenure = Tenure(
            self, durability=durability, cache_size=cache_size, replication=replication, tag=tag, on_owner=on_owner
        )
        self._engine: Database
        self._numbers: Numbers
        self._engine, self._numbers = self._tenure.begin()
        self._time = self._engine.last_time
        self._objects = LiveItems(self, self._engine)
        self._watchers = Watchers(self._engine)
        # Pool id -> definitions of indexes, and the plan made of these. One for each pool that was written to.
        self._plans: dict[int, tuple[Any, Plan]] = {}
        self._engine.on_recovery = self._recovered
        self._engine.on_applied = self._applied_elsewhere
        self.conflicts = Conflicts(self)
        try:
            self._tenure.serve()
        except BaseException:
            self._tenure.end()
            raise
        _open_stores.add(self)

    def _use(self, database: Database, numbers: Numbers) -> None:
        """Go on with another database: this process has become the owner, or lost it."""
        self._engine = self._objects.engine = self._watchers.engine = database
        self._numbers = numbers
        database.on_recovery = self._recovered
        database.on_applied = self._applied_elsewhere
        self._recovered()

    def _prepare(self, create: bool, copying: bool) -> None:
        """Make the directories of a new store. With `copying`, its tables may be on their way from another device."""
        try:
            for part in _PARTS:
                check_directory(self.path / part)
            if not (self.path / "data" / f"{CATALOG}.db").exists() and not copying and not is_aside(self.path):
                if not create:
                    raise NoSuchStore(f"there is no store at {self.path}", self.path)
                self._check_vacant()
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            for part in _PARTS:
                (self.path / part).mkdir(mode=0o700, exist_ok=True)
                if not os.access(self.path / part, os.W_OK | os.X_OK):
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        except OSError as error:
            raise explained(error, self.path) from error

    def _check_vacant(self) -> None:
        """Raise `NoSuchStore`, `StoreDamaged` unless a store may be made: nothing is there, or a start of that."""
        if not os.path.lexists(self.path):
            return
        data = self.path / "data"
        names = {path.name for path in data.iterdir()} if data.is_dir() else set()
        if not names.isdisjoint(_TABLE_FILES):
            raise StoreDamaged(
                f"the store {self.path} is damaged: its file {CATALOG}.db is missing; restore it from a backup "
                "(atop restore)",
                self.path,
                CATALOG,
            )
        if (
            not self.path.is_dir()
            or not {path.name for path in self.path.iterdir()} <= set(_PARTS)
            or not all(map(_BEGINNINGS.fullmatch, names))
        ):
            raise NoSuchStore(f"{self.path} is there and is not a store: choose another path", self.path)

    def close(self) -> None:
        """Write everything out and close. May be called again; transactions under way fail with `StoreClosed`.

        Raises:
            StoreFull, StoreDamaged: commits of the last second of a "buffered" store could not be written, and are
                lost. It is closed all the same.
        """
        if self._closed:
            return
        self._closed = True
        _open_stores.discard(self)
        try:
            self._watchers.close()
        finally:
            self._tenure.end()

    def _disown(self) -> None:
        """In a forked child: leave the store to the parent."""
        self._closed = True
        self._tenure.disown(f"the store {self.path} is open in the process that this one was forked from")

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Store {self.path}{', closed' if self._closed else ''}>"

    def _check_open(self) -> None:
        if self._closed:
            raise self._engine.closed_error()

    # -- transactions

    def transaction(self, label: str = "") -> _Scope:
        """A transaction for a `with` block; `label` says in the history what it was.

        An exception that leaves the block undoes all of it, objects in memory included. Within another transaction
        it joins that. At the end of the outermost block the commit may raise `Conflict`; `transact` tries again.
        """
        return _Scope(self, label)

    def transact(self, function: Callable[..., T], /, *arguments: Any, label: str = "", **named: Any) -> T:
        """Call `function` in a transaction and return what it does; again, from the start, when there is a Conflict.

        The function should do nothing but use the store: it may run several times.

        Raises:
            TypeError: it is a coroutine function, whose body would run after the transaction.
        """
        if inspect.iscoroutinefunction(function):
            raise TypeError("a coroutine runs when it is awaited: use `with store.transaction()` in it")
        if current(self) is not None:
            with self.transaction():
                return function(*arguments, **named)
        label = label or getattr(function, "__name__", "")
        for _ in range(PATIENT_AFTER):
            try:
                with self.transaction(label):
                    return function(*arguments, **named)
            except Conflict:
                continue
        with self._patience:
            try:
                for attempt in range(PATIENT_AFTER, ATTEMPTS - 1):
                    if attempt == URGENT_AFTER:
                        self._urgent = threading.get_ident()
                        self._way.clear()
                    self._engine.wait_applied()
                    try:
                        with self.transaction(label):
                            return function(*arguments, **named)
                    except Conflict:
                        continue
                with self.transaction(label):
                    return function(*arguments, **named)
            finally:
                self._urgent = None
                self._way.set()

    def _run(self, operate: Callable[[Transaction], T], label: str) -> T:
        """`operate` in the current transaction, or in one of its own."""
        transaction = current(self)
        if transaction is not None:
            return operate(transaction)

        def alone() -> T:
            transaction = active(self)
            return operate(transaction)

        return self.transact(alone, label=label)

    def _commit(self, transaction: Transaction) -> None:
        try:
            if transaction.mixed:
                raise Conflict("another commit changed items while a query read them: try again")
            if not (transaction.entries or transaction.catalog):
                self._check_reads(transaction)
                transaction.open = False
                transaction.return_views()
                return
            builder = Builder(transaction, self._numbers.commit_id())
            write_set = builder.build(self._now())
            if write_set is None:
                self._check_reads(transaction)
            else:
                if not self._way.is_set() and self._urgent != threading.get_ident():
                    self._way.wait(MAKE_WAY_SECONDS)
                with self._pins.held(write_set.files) if write_set.files else _NOTHING_TO_HOLD:
                    self._engine.commit(
                        write_set,
                        before=self._file_check(write_set),
                        applied=functools.partial(self._objects.publish, builder.items, builder.states),
                    )
                self._notify()
                if write_set.files and self._durability == "replicated":
                    contents.await_elsewhere(self, write_set.files)
        except BaseException:
            transaction.rollback()
            raise
        transaction.open = False
        transaction.return_views()
        for callback in transaction.after_commit:
            callback()

    def _check_reads(self, transaction: Transaction) -> None:
        if self._engine.sequence != transaction.base:
            looked_up = {name: found for name, (found, _) in transaction.catalog.items()}
            if transaction.reads or looked_up:
                self._engine.check_reads(transaction.reads.copy(), looked_up)

    def _notify(self) -> None:
        """There are new commits: tell who watches, here and in other processes."""
        self._watchers.notify()
        self._tenure.notify()

    def _file_check(self, write_set: WriteSet) -> Callable[[], None] | None:
        """What is to be called just before a commit is made, if it names files."""
        return functools.partial(self._check_files, write_set) if write_set.files else None

    def _check_files(self, write_set: WriteSet) -> None:
        for digest in write_set.files:
            # Contents that the group has may be named where they have not arrived, as by the undo of a deletion.
            shared = self._tenure.replication is not None and self._tenure.engine.names_file(digest)
            if not shared and not self._file_area.still_has(digest):
                raise NoSuchFile(
                    f"{write_set.label!r} names a file whose contents ({digest.hex()[:12]}) are not in this store: "
                    "add them with store.file"
                )

    def _recovered(self) -> None:
        """What was read before may not hold: the database was recovered, or rolled back."""
        self._objects.forget_states()
        self._watchers.rewind()
        self._tenure.changed(None)

    def _applied_elsewhere(self, item_ids: list[int]) -> None:
        self._objects.forget(item_ids)
        self._tenure.changed(item_ids)
        self._notify()

    def _commit_entries(self, batch: Callable[[], tuple[dict[int, int], Operations]], label: str) -> None:
        """Commit index entries that `batch` works out, with the versions they depend on; again when those change."""
        while True:
            versions, operations = batch()
            if not operations:
                return
            commit_id, now = self._numbers.commit_id(), self._now()
            write_set = WriteSet(
                commit_id,
                now,
                label,
                checks=versions,
                exists=[],
                unreferenced=[],
                emptied=[],
                names=[],
                operations={INDEX: operations},
                counters={},
                body=dumps((commit_id, now, label, [])),
            )
            try:
                self._engine.commit(write_set)
            except Conflict:
                continue
            self._notify()
            return

    def _now(self) -> int:
        """The hybrid clock, in microseconds: see `atop.clock`."""
        with self._clock_lock:
            now = clock.after(self._time, self._engine.last_time)
            self._time = min(now, journal.LATEST)
            return self._time

    # -- items

    @overload
    def get(self, item_id: int) -> Any: ...
    @overload
    def get(self, item_id: int, cls: type[ItemClass]) -> ItemClass: ...
    def get(self, item_id: int, cls: type[Item] | None = None) -> Any:
        """The item with this id. Raises `NoSuchItem`; with `cls`, TypeError if it is not one of those."""
        item = self._objects.find(item_id)
        if item is None:
            raise NoSuchItem(item_id)
        if cls is not None and not isinstance(item, cls):
            raise TypeError(f"item {item_id} is a {item.type_name}, not a {cls.__name__}")
        return item

    def items(self) -> Iterator[Any]:
        """All items there are, pools included, by id. Not the uncommitted ones of a transaction."""
        start = b""
        while keys := self._engine.keys(ITEMS, start, b"\xff" * 8, 500):
            for key in keys:
                item = self._objects.find(unpack_u64(key)[0])
                if item is not None:
                    yield item
            start = keys[-1] + b"\0"

    def upgrade_all(self, progress: Callable[[int, int], None] | None = None) -> int:
        """Write back every item whose class is imported and newer than its record; returns how many there were.

        Newer is a class with a higher version, and one with a default that the record lacks. Until then an item
        stands in indexes as its record has it.

        Raises:
            UpgradeFailed: of the first item whose upgrade failed; all others were written back.
        """
        upgraded = done = 0
        failed: list[UpgradeFailed] = []
        start = b""
        while keys := self._engine.keys(ITEMS, start, b"\xff" * 8, 500):

            def batch(keys: list[bytes] = keys) -> tuple[int, list[UpgradeFailed]]:
                count, failed = 0, []
                for key in keys:
                    try:
                        item = self._objects.find(unpack_u64(key)[0])
                        if item is not None:
                            count += item._write_back(active(self))
                    except UpgradeFailed as error:
                        failed.append(error)
                return count, failed

            count, failures = self.transact(batch, label="upgrade items")
            upgraded += count
            failed += failures
            done += len(keys)
            start = keys[-1] + b"\0"
            if progress is not None:
                progress(done, done)
        if failed:
            more = f" ({len(failed) - 1:,} more items failed too)" if len(failed) > 1 else ""
            raise UpgradeFailed(f"{failed[0]}{more}", failed[0].item_id) from failed[0]
        return upgraded

    def _new_item_id(self) -> int:
        return self._numbers.item_id()

    # -- references

    def _committed_places(self, item_id: int) -> Iterator[tuple[int, str, str]]:
        """(source id, attribute, rule) for each committed reference to an item."""
        start, stop = pack_u64(item_id), pack_u64(item_id + 1)
        while pairs := self._engine.pairs(REFERENCES, start, stop, 200):
            for key, rule in pairs:
                yield unpack_u64(key, 8)[0], key[16:].decode(), RULES.get(rule, "nullify")
            start = pairs[-1][0] + b"\0"

    def _rule(self, source: Item, target_id: int, attribute: str) -> Rule:
        """What the reference from `source.attribute` says about the deletion of its target."""
        field = type(source)._fields.get(attribute)
        if field is not None:
            return field.on_delete
        found = self._engine.get(REFERENCES, pack_u64(target_id) + pack_u64(source._id) + attribute.encode())
        return RULES.get(found, "nullify") if found is not None else "nullify"  # type: ignore[return-value]  # its values are rules

    def _referrers(self, item: Item, attribute: str | None) -> Iterator[Item]:
        item._read()
        transaction = current(self)
        places: Iterable[tuple[int, str, str]]
        places = transaction.places(item._id) if transaction is not None else self._committed_places(item._id)
        last = 0
        for source_id, name, _ in places:
            if source_id != last and (attribute is None or name == attribute):
                source = self._objects.find(source_id)
                if source is not None:
                    last = source_id
                    yield source

    # -- pools and names

    def pool(self, name: str, indexes: Iterable[str | tuple[str, ...] | Index] = (), *, create: bool = True) -> Pool:
        """The pool of this name, with at least these indexes: made, and added, where they are not there.

        Raises:
            NoSuchPool: there is none, and `create` is False.
        """
        if not isinstance(name, str) or not name or "\0" in name or _unwritable(name):
            raise ValueError(f"a pool's name is text that can be written as UTF-8, without NUL, not {name!r}")
        name = plain_text(name)
        pool_id = self._named_pool_id(name)
        if pool_id is None:
            if not create:
                raise NoSuchPool(f"there is no pool {name!r} in {self.path}")
            return self.transact(self._make_pool, name, index_specs(indexes), label=f"create pool {name!r}")
        pool = self._pool_by_id(pool_id)
        wanted = index_specs(indexes)
        if wanted:
            there = pool.indexes
            for spec in wanted:
                if spec.name not in there or there[spec.name].state != "ready":
                    pool.add_index(*spec)
        return pool

    def _make_pool(self, name: str, indexes: list[Any]) -> Pool:
        there = self._named_pool_id(name)
        if there is not None:
            return self.pool(name, indexes)
        pool = Pool(self, name, indexes)
        transaction = active(self)
        transaction.name(pool_key(name), pool._id)
        return pool

    def pools(self) -> Iterator[Pool]:
        """The named pools, by name."""
        prefix = pool_key("")
        names = {key.decode() for key in self._engine.keys(CATALOG, prefix.encode(), b"pool0", 1_000_000)}
        transaction = current(self)
        if transaction is not None:
            names |= {name for name in transaction.catalog if name.startswith(prefix)}
        for name in sorted(names):
            pool_id = self._named_pool_id(name.removeprefix(prefix))
            if pool_id is not None:
                yield self._pool_by_id(pool_id)

    def _named_pool_id(self, name: str) -> int | None:
        return self._named(pool_key(name))

    def _named(self, name: str) -> int | None:
        transaction = current(self)
        return self._engine.catalog_get(name) if transaction is None else transaction.named(name)

    def _pool_by_id(self, pool_id: int) -> Pool:
        return self.get(pool_id, Pool)

    def root(self, name: str) -> Any:
        """The item that `set_root` gave this name. Raises `NoSuchItem`."""
        item_id = self._named(_root_key(name))
        if item_id is None:
            raise NoSuchItem(0, f"no item has the name {name!r}: give it to one with set_root")
        return self.get(item_id)

    def set_root(self, name: str, item: Item | None) -> None:
        """Give a name to an item, to find it by `root`; None takes the name away, and so does the item's deletion.

        Raises:
            NoSuchItem: the item was deleted.
        """
        if item is not None and item._store is not self:
            raise ValueError(f"{item!r} belongs to another store")
        key = _root_key(name)

        def give(transaction: Transaction) -> None:
            if item is not None:
                gone = transaction.deleted(item._id)
                if gone or not (transaction.created(item._id) or self._engine.version(item._id)):
                    raise NoSuchItem(item._id)
            transaction.name(key, None if item is None else item._id)

        self._run(give, f"name {name}")

    def _root_names(self, transaction: Transaction, item_id: int) -> list[str]:
        """The catalog's names that `set_root` gave to this item, as the transaction sees them. They are few."""
        names: dict[str, int | None] = {}
        start = ROOTS
        while pairs := self._engine.pairs(CATALOG, start, ROOTS + b"\xff", 200):
            names.update((key.decode(), unpack_u64(value)[0]) for key, value in pairs)
            start = pairs[-1][0] + b"\0"
        for name, (_, now) in transaction.catalog.items():
            if name.encode().startswith(ROOTS):
                names[name] = now
        return [name for name, now in names.items() if now == item_id]

    # -- files

    def file(self, source: bytes | str | os.PathLike[str] | BinaryIO, *, name: str = "", media_type: str = "") -> File:
        """Keep the contents of a file: given as bytes, as a path, or as a stream, which is read to its end.

        The result is a value for an attribute. Contents that no committed item names are removed in time.

        Raises:
            StoreFull, StoreReadOnly: nothing was kept.
            OSError: the path or stream cannot be read.
        """
        import io

        self._check_open()
        if isinstance(source, (bytes, bytearray, memoryview)):
            digest, size = self._file_area.add(io.BytesIO(source))
        elif isinstance(source, (str, os.PathLike)):
            path = Path(source).expanduser()
            name = name or path.name
            with path.open("rb") as stream:
                digest, size = self._file_area.add(stream)
        else:
            digest, size = self._file_area.add(source)
        return File(self, FileInfo(digest, size, name, media_type))

    def _file(self, info: FileInfo) -> File:
        return File(self, info)

    # -- history

    @property
    def head(self) -> Head:
        """The number of the last commit, and the chain value over all commits."""
        return self._engine.head

    def history(self, limit: int | None = None, before: int | None = None) -> Iterator[Commit]:
        """The commits, latest first: at most `limit`, from the one before number `before` on."""
        for count, commit in enumerate(journal.commits_back(self._engine, before)):
            if limit is not None and count >= limit:
                return
            yield commit

    def changes(self, since: int = 0) -> Iterator[Commit]:
        """The commits after number `since`, in order, up to now.

        Raises:
            NoSuchCommit: the journal no longer goes back that far.
        """
        return journal.commits_after(self._engine, since)

    def watch(self, callback: Callable[[Commit], object]) -> Watch:
        """Have `callback` called with every commit from now on, in order, in a thread of its own.

        What it raises is logged, and changes nothing. Call `close()` on the result to stop.
        """
        self._check_open()
        _ = self.head  # where another process has the database, this brings what has been committed there until now
        return self._watchers.add(callback)

    def commit(self, commit_id: int) -> Commit:
        """The commit with this id. Raises `NoSuchCommit`."""
        number = self._number_of(commit_id)
        if number is None:
            raise NoSuchCommit(f"the journal has no commit with the id {commit_id}")
        return journal.commit_at(self._engine, number)

    def undo(self, commit: Commit | int, label: str = "") -> None:
        """Undo a commit, given as such or by its id, with a new one; what later commits did elsewhere stays.

        Raises:
            UndoRefused: later commits changed the same; the message names one.
            NoSuchCommit: there is none, or the journal no longer has it.
        """
        found = commit if isinstance(commit, Commit) else self.commit(commit)
        self.transact(undo, self, found, label=label or journal.undo_label([found]))

    def _number_of(self, commit_id: int) -> int | None:
        if type(commit_id) is not int or not 0 < commit_id < 1 << 63:
            return None
        found = self._engine.get(COMMITS, pack_u64(commit_id))
        return unpack_u64(found)[0] if found is not None else None

    def _item_history(self, item: Item, limit: int | None) -> Iterator[Revision]:
        state = self._objects.read_state(item._id)
        if state is None:
            raise NoSuchItem(item._id)
        for count, revision in enumerate(journal.revisions(self._engine, item._id, state, self._number_of)):
            if limit is not None and count >= limit:
                return
            yield revision

    # -- care

    def backup(self, target: str | os.PathLike[str], progress: Callable[[int, int], None] | None = None) -> None:
        """Copy the store, as it is now and while it is in use, to the new directory `target`. See `atop.restore`.

        Raises:
            StoreError: `target` is there already, or inside the store.
            StoreFull, StoreReadOnly: it cannot be written; what was written of it is removed.
            StoreDamaged: pages of the store are damaged: there is no backup of such a store.
        """
        self._check_open()
        care.back_up(self, Path(target).expanduser().absolute(), progress)

    def verify(self, *, files: bool = True, progress: Callable[[int, int], None] | None = None) -> VerifyReport:
        """Check everything: pages, records, indexes, counters, references, the journal's chain, contents of files."""
        self._check_open()
        return care.verify(self, files, progress)

    def compact(
        self,
        keep: timedelta = DEFAULT_KEEP,
        progress: Callable[[str], None] | None = None,
        grace: float | None = None,
    ) -> CompactReport:
        """Give disk space back: history older than `keep`, contents of files that nothing names, empty pages."""
        self._check_open()
        if current(self) is not None:
            raise StoreError("compact works in steps of its own: call it outside of a transaction", self.path)
        return care.compact(self, keep, progress, grace)

    # -- other processes

    @property
    def owner_pid(self) -> int | None:
        """The process that owns the store, to which this one is attached; None if it is this one."""
        return self._tenure.owner_pid

    def provide(self, name: str, function: Callable[..., Any]) -> None:
        """Offer a function to every process that has the store open, while this one owns it: they call it by `ask`.

        It takes and returns plain values (what an attribute may hold, but items and files), and is called in some
        thread, by several at once. If it has a parameter `progress`, it may call that with plain values now and then.
        """
        self._errands.provide(name, function)

    def ask(self, name: str, /, *, progress: Callable[..., object] | None = None, **arguments: Any) -> Any:
        """Call the function that the owner offers under this name, wherever that is, and return its result.

        Raises:
            NoSuchCall: it offers none.
            UnstorableValue: an argument, or the result, is no plain value.
            AtopError: what the function raised; what was no AtopError comes as a StoreError.
        """
        self._check_open()
        attached = self._tenure.attached
        answer = attached.call(name, arguments, progress) if attached is not None else None
        return answer[0] if answer is not None else self._errands.perform(name, arguments, progress)


def _root_key(name: str) -> str:
    """The key of the catalog under which an item of this name stands. Raises ValueError if that is no name."""
    if not isinstance(name, str) or _unwritable(name):
        raise ValueError(f"a name is text that can be written as UTF-8, not {name!r}")
    return ROOTS.decode() + name


def _unwritable(name: str) -> bool:
    """Whether a text has half of a surrogate pair: UTF-8 has no such thing."""
    return any("\ud800" <= character <= "\udfff" for character in name)


_open_stores: set[Store] = set()


@atexit.register
def _close_all() -> None:
    """Close what the program did not, so that the handles are not destroyed in some order that loses something."""
    for store in list(_open_stores):
        try:
            store.close()
        except AtopError as error:
            log.error("closing %s at the end of the program: %s", store.path, error)


def _disown_all() -> None:
    for store in list(_open_stores):
        store._disown()
    _open_stores.clear()


os.register_at_fork(after_in_child=_disown_all)


def transacted(function: Callable[P, T]) -> Callable[P, T]:
    """Make a function or method run in a transaction of the store, or of the item, that is its first argument.

    It runs again, from the start, when there is a Conflict: see `Store.transact`.

    Raises:
        TypeError: the function is a coroutine or a generator, whose body runs after its transaction would have ended.
    """
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        raise TypeError(f"{function.__qualname__} runs when its result is used: use `with store.transaction()` in it")

    @functools.wraps(function)
    def run(*arguments: P.args, **named: P.kwargs) -> T:
        first = arguments[0] if arguments else None
        store = first._store if isinstance(first, Item) else first
        if not isinstance(store, Store):
            raise TypeError(f"the first argument of {function.__name__} must be a Store or an Item")
        return store.transact(functools.partial(function, *arguments, **named), label=function.__name__)

    return run
