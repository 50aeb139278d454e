"""Knows a contact again whose record has no UID, when the record has changed since it was imported last.

Most address books give their tables and cards no UID. A record that has not changed is known by its contents; one that
has changed is taken for the contact that an earlier import made of such a record, if that has the same name and

1. an e-mail address of the record, or else
2. a telephone number of the record, or else
3. is the only one of that name that a file of the same make gave, and the record the only one of that name in its file.

Wherever two contacts or two records of the file come into question, nothing is matched: a contact too many can be seen
and removed, two people made into one cannot be told apart again. No contact that has a UID of its own is ever matched,
none twice in a file, and none that another record of the file still describes as it was.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from atop import Pool
from atop.pim.incoming import Broken, Record
from atop.pim.items import Contact

# Most contacts of one name that are looked at; past it there is no telling them apart.
MAX_NAMESAKES = 100

# The identifiers that `hashed_uid` gives, and the make of file that they tell.
_HASHED = re.compile(r"((?:vcard|row)(?:-[0-9a-f]{8})?)-[0-9a-f]{40}(?:#.*)?\Z")

_NOT_DIGIT = re.compile(r"\D")

# Reads the file that is being imported once more.
Survey = Callable[[], Iterable[Record | Broken]]


def make_of(uid: str) -> str:
    """What make of file a contact without a UID came from; empty for one with a UID."""
    match = _HASHED.match(uid)
    return match[1] if match else ""


def ways_to_reach(contact: Mapping[str, Any]) -> tuple[set[str], set[str]]:
    """The e-mail addresses and telephone numbers of a contact, as they are compared."""
    emails = {str(entry.get("value", "")) for entry in contact["emails"]} | {contact["email"]}
    phones = {str(entry.get("value", "")) for entry in contact["phones"]} | {contact["phone"]}
    return (
        {text for email in emails if (text := email.strip().casefold())},
        {digits for phone in phones if (digits := _NOT_DIGIT.sub("", phone))},
    )


def _name_of(contact: Mapping[str, Any]) -> str:
    return " ".join(contact["name"].casefold().split())


def _keys_of(contact: Mapping[str, Any]) -> set[str]:
    """What a record may be matched by."""
    name = _name_of(contact)
    emails, phones = ways_to_reach(contact)
    return {name, *(f"{name}\0@{email}" for email in emails), *(f"{name}\0#{phone}" for phone in phones)}


class Matcher:
    """Finds the contacts that the records of one file after the other were before; `begin` each file.

    Reads the file a second time, but only if it has a record that may be matched. What it knows of a file is on disk,
    since a file has any length.
    """

    def __init__(self) -> None:
        self._database = sqlite3.connect("", isolation_level=None)  # a file without a name, gone when it is closed
        self._database.execute("create table keys (key blob primary key, count integer) without rowid")
        self._database.execute("create table marks (mark blob primary key) without rowid")
        self._database.execute("create table taken (item integer primary key, uid blob)")
        self._database.execute("begin")
        self._survey: Survey | None = None
        self._is_surveyed = False

    def begin(self, survey: Survey | None) -> None:
        """Another file begins; None: nothing in it is to be matched."""
        self._database.execute("delete from keys")
        self._database.execute("delete from marks")
        self._database.execute("delete from taken")
        self._survey, self._is_surveyed = survey, False

    def close(self) -> None:
        """Let go of the temporary file."""
        self._database.close()

    def prepare(self, pool: Pool, records: Iterable[Record]) -> None:
        """Look through the file, if one of these records may have to be matched. To be called before the transaction:
        it takes as long as reading the file does."""
        if self._survey is None or self._is_surveyed:
            return
        if not any(r.unidentified and _is_new(pool, r) and _namesakes(pool, r) for r in records):
            return
        self._is_surveyed = True
        for found in self._survey():
            if isinstance(found, Record) and found.kind == "contact":
                self._database.executemany(
                    "insert into keys values (?, 1) on conflict (key) do update set count = count + 1",
                    [(_octets(key),) for key in _keys_of(found.state)],
                )
                marks = [(_octets(found.uid),), (found.fingerprint,)]
                self._database.executemany("insert or ignore into marks values (?)", marks)

    def find(self, pool: Pool, record: Record) -> Any:
        """The contact that a record without a UID was before, or None. `record.uid` is that of no contact.

        Call it before anything of the transaction is changed.
        """
        if self._survey is None or not record.unidentified:
            return None
        same = next((i for i in pool.query("fingerprint", key=record.fingerprint, limit=5) if _may_match(i)), None)
        if same is not None:
            return same
        if not self._is_surveyed:
            return None
        candidates = [item for item in _namesakes(pool, record) if not self._is_described(item)]
        found = self._choose(candidates, record)
        if found is not None:
            row = (found.item_id, _octets(record.uid))
            self._database.execute("insert or ignore into taken values (?, ?)", row)
            if self._database.execute("select 1 from taken where item = ? and uid = ?", row).fetchone() is None:
                return None  # another record of the file has it
        return found

    def _choose(self, candidates: list[Any], record: Record) -> Any:
        name = _name_of(record.state)
        if self._count(name) == 1 and len(candidates) == 1 and make_of(candidates[0].uid) == make_of(record.uid):
            return candidates[0]
        emails, phones = ways_to_reach(record.state)
        for number, (mark, values) in enumerate((("@", emails), ("#", phones))):
            sharing = [item for item in candidates if ways_to_reach(item.attributes)[number] & values]
            if sharing:
                shared = ways_to_reach(sharing[0].attributes)[number] & values
                alone = all(self._count(f"{name}\0{mark}{value}") == 1 for value in shared)
                return sharing[0] if len(sharing) == 1 and alone else None
        return None

    def _count(self, key: str) -> int:
        row = self._database.execute("select count from keys where key = ?", (_octets(key),)).fetchone()
        return 0 if row is None else int(row[0])

    def _is_described(self, item: Any) -> bool:
        """Whether another record of the file is the very one that this contact was made of."""
        marks = (_octets(item.uid), item.fingerprint)
        return self._database.execute("select 1 from marks where mark in (?, ?)", marks).fetchone() is not None


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _is_new(pool: Pool, record: Record) -> bool:
    return not any(
        next(pool.query(index, key=key, limit=1), None)
        for index, key in (("uid", record.uid), ("fingerprint", record.fingerprint))
    )


def _namesakes(pool: Pool, record: Record) -> list[Any]:
    """The contacts without a UID of a record's name; none if they are too many."""
    found = list(pool.query("name", key=record.state["name"], limit=MAX_NAMESAKES + 1))
    return [] if len(found) > MAX_NAMESAKES else [item for item in found if _may_match(item)]


def _may_match(item: Any) -> bool:
    return isinstance(item, Contact) and bool(make_of(item.uid))
