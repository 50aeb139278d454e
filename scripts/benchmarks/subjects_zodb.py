"""ZODB on a FileStorage, which flushes each commit; contacts and indexes in BTrees."""

from __future__ import annotations

import os
from itertools import islice
from typing import Any

import transaction
import ZODB
import ZODB.FileStorage
from BTrees.LOBTree import LOBTree
from BTrees.OOBTree import OOBTree
from persistent import Persistent
from workload import INDEXES, PAGE

# ZODB returns objects that it has in memory without reading them. The rows are about reading, so its cache has the
# default size, and is cut back to that as often as short transactions would do it.
GETS_IN_A_TRANSACTION = 50


class Contact(Persistent):
    """What the workload is about."""

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


class Zodb:
    """A tree of contacts by number, and one tree for each index, keyed by (value, number)."""

    def open(self, path: str) -> None:
        storage = ZODB.FileStorage.FileStorage(os.path.join(path, "contacts.fs"))
        self._database = ZODB.DB(storage)
        self._connection = self._database.open()
        root = self._connection.root()
        root["contacts"] = self._contacts = LOBTree()
        self._indexes = {name: OOBTree() for name in INDEXES}
        root.update(self._indexes)
        self._next = self._gets = 0
        transaction.commit()

    def create(self, people: list[dict[str, Any]]) -> None:
        for person in people:
            self._next += 1
            contact = self._contacts[self._next] = Contact(**person)
            for name, tree in self._indexes.items():
                tree[person[name], self._next] = contact
        transaction.commit()

    def ids(self) -> list[int]:
        return list(self._contacts.keys())

    def get(self, identifier: int) -> str:
        self._gets += 1
        if self._gets % GETS_IN_A_TRANSACTION == 0:
            self._connection.cacheGC()
        return str(self._contacts[identifier].name)

    def page(self, start: str) -> list[str]:
        names = [contact.name for contact in islice(self._indexes["name"].itervalues((start, 0)), PAGE)]
        self._connection.cacheGC()
        return names

    def update(self, identifiers: list[int], city: str) -> None:
        cities = self._indexes["city"]
        for identifier in identifiers:
            contact = self._contacts[identifier]
            del cities[contact.city, identifier]
            contact.city = city
            cities[city, identifier] = contact
        transaction.commit()

    def close(self) -> None:
        transaction.abort()
        self._connection.close()
        self._database.close()
