"""Atop, and raw Berkeley DB doing the same reads and writes by hand.

By hand means: the same records, index entries, journal with its chain, counters, checkpoints and settings, and none
of what Atop adds: objects, checks, transactions that several threads may have at once, unpickling that is safe.
"""

from __future__ import annotations

import hashlib
import pickle
import struct
import threading
import time
from datetime import date
from typing import Any

from berkeleydb import db
from workload import INDEXES, PAGE

from atop import Item, Store
from atop.engine import CHECKPOINT_KIB, CHECKPOINT_MINUTES, MAINTENANCE_SECONDS, _suitable_cache
from atop.environment import LOG_BUFFER, LOG_FILE, MAX_LOCKS, PAGE_SIZE

_u64 = struct.Struct(">Q").pack
_prefix = struct.Struct(">QH").pack


class RawBerkeleyDB:
    """The puts and gets that the workload needs, with nothing around them: the same tables, the same settings."""

    def open(self, path: str) -> None:
        self._env = env = db.DBEnv()
        env.set_cachesize(0, _suitable_cache(), 1)
        env.set_lg_bsize(LOG_BUFFER)
        env.set_lg_max(LOG_FILE)
        env.set_lk_max_locks(MAX_LOCKS)
        env.set_lk_max_objects(MAX_LOCKS)
        env.set_lk_detect(db.DB_LOCK_MINWRITE)
        flags = db.DB_CREATE | db.DB_RECOVER | db.DB_PRIVATE | db.DB_THREAD
        env.open(path, flags | db.DB_INIT_MPOOL | db.DB_INIT_LOCK | db.DB_INIT_LOG | db.DB_INIT_TXN)
        names = ("items", "index", "journal", "commits", "counters")
        self._items, self._index, self._journal, self._commits, self._counters = map(self._table, names)
        self._number = self._next = 0
        self._chain = bytes(32)
        self._closing = threading.Event()
        self._checkpoints = threading.Thread(target=self._checkpoint)
        self._checkpoints.start()

    def _checkpoint(self) -> None:
        while not self._closing.wait(MAINTENANCE_SECONDS):
            self._env.txn_checkpoint(CHECKPOINT_KIB, CHECKPOINT_MINUTES)
            self._env.log_archive(db.DB_ARCH_REMOVE)

    def _table(self, name: str) -> Any:
        table = db.DB(self._env)
        table.set_flags(db.DB_CHKSUM)
        table.set_pagesize(PAGE_SIZE)
        table.open(name + ".db", dbtype=db.DB_BTREE, flags=db.DB_CREATE | db.DB_AUTO_COMMIT | db.DB_THREAD)
        return table

    def _log(self, changes: list[Any], label: str, more: int, txn: Any) -> None:
        self._number += 1
        body = pickle.dumps((self._number, time.time_ns() // 1000, label, changes), 5)
        self._chain = hashlib.blake2b(self._chain + body, digest_size=32).digest()
        self._journal.put(_u64(self._number), self._chain + body, txn)
        self._commits.put(_u64(self._number), _u64(self._number) + _u64(0), txn)
        if more:
            size = int.from_bytes(self._counters.get(b"p", b"", txn), "big")
            self._counters.put(b"p", (size + more).to_bytes(8, "big"), txn)

    def create(self, people: list[dict[str, Any]]) -> None:
        txn = self._env.txn_begin()
        items, index = self._items, self._index
        changes = []
        for person in people:
            self._next += 1
            key = _u64(self._next)
            items.put(key, _u64(self._number) + pickle.dumps(("Contact", 1, person, (1,)), 5), txn)
            index.put(_prefix(1, 0) + key, b"", txn)
            for number, name in enumerate(INDEXES, 1):
                index.put(_prefix(1, number) + b"(" + person[name].encode() + b"\0" + key, b"", txn)
            changes.append(("+", self._next))
        self._log(changes, "create", len(people), txn)
        txn.commit()

    def ids(self) -> list[int]:
        return list(range(1, self._next + 1))

    def get(self, identifier: int) -> str:
        return pickle.loads(self._items.get(_u64(identifier))[8:])[2]["name"]

    def page(self, start: str) -> list[str]:
        names = []
        cursor = self._index.cursor()
        found = cursor.set_range(_prefix(1, 1) + b"(" + start.encode())
        while found is not None and len(names) < PAGE and found[0][9] == 1:
            names.append(pickle.loads(self._items.get(found[0][-8:])[8:])[2]["name"])
            found = cursor.next()
        cursor.close()
        return names

    def update(self, identifiers: list[int], city: str) -> None:
        txn = self._env.txn_begin()
        items, index = self._items, self._index
        changes = []
        for identifier in identifiers:
            key = _u64(identifier)
            record = items.get(key, None, txn)
            _, schema, person, pools = pickle.loads(record[8:])
            old = person["city"]
            person["city"] = city
            items.put(key, _u64(self._number) + pickle.dumps(("Contact", schema, person, pools), 5), txn)
            if old != city:
                index.delete(_prefix(1, 3) + b"(" + old.encode() + b"\0" + key, txn)
                index.put(_prefix(1, 3) + b"(" + city.encode() + b"\0" + key, b"", txn)
            changes.append(("~", identifier, record[:8], {"city": old}))
        self._log(changes, "update", 0, txn)
        txn.commit()

    def close(self) -> None:
        self._closing.set()
        self._checkpoints.join()
        self._env.txn_checkpoint()
        for table in (self._items, self._index, self._journal, self._commits, self._counters):
            table.close()
        self._env.close()


class Contact(Item, type_name="bench.Contact"):
    """What the workload is about."""

    name: str
    email: str = ""
    city: str = ""
    phone: str = ""
    born: date | None = None
    note: str = ""


class Atop:
    """Atop, as a program uses it."""

    def open(self, path: str) -> None:
        self._store = Store(path)
        self._pool = self._store.pool("people", indexes=INDEXES)

    def create(self, people: list[dict[str, Any]]) -> None:
        store, add = self._store, self._pool.add
        with store.transaction("create"):
            for person in people:
                add(Contact(store, **person))

    def ids(self) -> list[int]:
        return [item.item_id for item in self._pool]

    def get(self, identifier: int) -> str:
        return self._store.get(identifier).name

    def page(self, start: str) -> list[str]:
        return [person.name for person in self._pool.page("name", PAGE, start=start).items]

    def update(self, identifiers: list[int], city: str) -> None:
        store = self._store
        with store.transaction("update"):
            for identifier in identifiers:
                store.get(identifier).city = city

    def close(self) -> None:
        self._store.close()
