"""SQLite through Python's own sqlite3: a table with columns, four indexes, a flush at each commit."""

from __future__ import annotations

import os
import sqlite3
from typing import Any

from workload import INDEXES, PAGE

INSERT = "INSERT INTO contact (name, email, city, phone, born, note) VALUES (?, ?, ?, ?, ?, ?)"
# Of the journal modes the one with the fastest commits; "full" is what flushes each of them.
PRAGMAS = {"journal_mode": "wal", "synchronous": "full"}


class SQLite:
    """SQL by hand, with the prepared statements that sqlite3 keeps."""

    def open(self, path: str) -> None:
        self._database = sqlite3.connect(os.path.join(path, "contacts.sqlite"), isolation_level=None)
        for name, value in PRAGMAS.items():
            self._database.execute(f"PRAGMA {name} = {value}")
        self._database.execute(
            "CREATE TABLE contact (id INTEGER PRIMARY KEY, "
            "name TEXT, email TEXT, city TEXT, phone TEXT, born TEXT, note TEXT)"
        )
        for name in INDEXES:
            self._database.execute(f"CREATE INDEX contact_{name} ON contact ({name})")

    def create(self, people: list[dict[str, Any]]) -> None:
        execute = self._database.execute
        execute("BEGIN IMMEDIATE")
        self._database.executemany(INSERT, [(*list(p.values())[:4], p["born"].isoformat(), p["note"]) for p in people])
        execute("COMMIT")

    def ids(self) -> list[int]:
        return [row[0] for row in self._database.execute("SELECT id FROM contact ORDER BY id")]

    def get(self, identifier: int) -> str:
        row = self._database.execute("SELECT * FROM contact WHERE id = ?", (identifier,)).fetchone()
        return str(row[1])

    def page(self, start: str) -> list[str]:
        query = "SELECT * FROM contact WHERE name >= ? ORDER BY name LIMIT ?"
        return [row[1] for row in self._database.execute(query, (start, PAGE))]

    def update(self, identifiers: list[int], city: str) -> None:
        execute = self._database.execute
        execute("BEGIN IMMEDIATE")
        self._database.executemany("UPDATE contact SET city = ? WHERE id = ?", [(city, i) for i in identifiers])
        execute("COMMIT")

    def close(self) -> None:
        self._database.close()
