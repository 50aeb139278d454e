"""What an import has met so far, in memory that does not grow with the file."""

from __future__ import annotations

import sqlite3

from atop.pim.incoming import Record


class Seen:
    """The identifiers that an import has met, and what became of them; on disk, since their number is not bounded."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("", isolation_level=None)  # a file without a name, gone when it is closed
        self._database.execute("create table uids (uid blob primary key) without rowid")
        self._database.execute("create table items (exported integer primary key, item integer, outcome text)")
        self._database.execute("begin")

    def begin(self) -> None:
        """Another file begins: what came before in another one is not repeated in this."""
        self._database.execute("delete from uids")

    def forget_items(self) -> None:
        """Forget the exported items."""
        self._database.execute("delete from items")

    def add(self, record: Record) -> bool:
        """Whether a record with this identifier has come before."""
        if record.kind == "message" or record.patch:
            return False  # these say themselves what is the same
        key = f"{record.kind}:{record.uid}".encode("utf-8", "surrogatepass")
        return self._database.execute("insert or ignore into uids values (?)", (key,)).rowcount == 0

    def note(self, record: Record, item_id: int, outcome: str) -> None:
        """Remember which item an exported one became."""
        if record.exported_id:
            row = (record.exported_id, item_id, outcome)
            self._database.execute("insert or ignore into items values (?, ?, ?)", row)

    def item_id(self, exported_id: int) -> int:
        """The item that an exported one became; 0 if it did not."""
        if not 0 < exported_id < 1 << 63:
            return 0
        row = self._database.execute("select item from items where exported = ?", (exported_id,)).fetchone()
        return 0 if row is None else int(row[0])

    def outcome(self, exported_id: int) -> str:
        """What became of an exported item; empty if it was skipped."""
        if not 0 < exported_id < 1 << 63:
            return ""
        row = self._database.execute("select outcome from items where exported = ?", (exported_id,)).fetchone()
        return "" if row is None else str(row[0])

    def close(self) -> None:
        """Let go of the temporary file."""
        self._database.close()
