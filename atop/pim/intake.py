"""Puts records into a store: adds what is new, updates what has changed, leaves alone what is there already.

Records go in some hundreds a transaction, so that an import that is stopped has put in whole records, and the same
import again goes on with the rest. A record that cannot be stored is reported, and the others of its batch go in.

What counts as the same: a contact, event or note with the same `uid` (where a record has none, `matching` tells which
contact it was before); a message with the same Message-ID and contents.
An item keeps the fingerprint of the record it was made from, so a record that has not changed since it was imported
last changes nothing, also where the item has been changed here meanwhile. One that has changed since wins over changes
made here; these are in the item's history.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any, Literal

from atop import Item, Pool, Reference, Store
from atop.errors import (
    NoSuchItem,
    NoSuchPool,
    ReadOnlyItem,
    Restricted,
    TransactionTooLarge,
    UnsafePickle,
    UnstorableValue,
    UpgradeFailed,
)
from atop.item import class_named
from atop.pim import incoming, revisions
from atop.pim.incoming import IMPORT_KEY, IMPORT_MARK, MAX_SHOWN_NAME, Broken, Content, Kind, Record, is_pool_name
from atop.pim.items import CLASSES, KINDS, POOLS, open_pool
from atop.pim.jsonl import Referring
from atop.pim.matching import Matcher, Survey
from atop.pim.report import OnSkip, Report, Skipped
from atop.pim.seen import Seen
from atop.pim.typed import Decoder, encode
from atop.values import to_stored

# A transaction ends when it has so many records, or so many bytes of them: what is held in memory at a time.
BATCH_RECORDS = 500
BATCH_BYTES = 8 * 1024 * 1024

# References remembered while those of a batch are set, so that each item is looked up once: a few megabytes of them.
MAX_REMEMBERED = 20_000

# Attributes that may hold the contents of files.
HOLDERS = frozenset({"photo", "files", "attachments", "inline", "overrides"})

# What a single record may be to blame for: what it holds, or what is here where it would go.
RECORD_ERRORS = (
    *incoming.RECORD_ERRORS,
    UnstorableValue,
    TransactionTooLarge,
    ReadOnlyItem,
    Restricted,
    UpgradeFailed,
    UnsafePickle,
)

# Pools that the program itself lives by: a file from outside must not put anything into them.
RESERVED_POOLS = frozenset({"devices", "conflicts"})

PIM_POOLS = frozenset(name for name, _ in POOLS.values())

# What became of a record. "same" is counted as unchanged: it is the very record that was imported last.
Outcome = Literal["added", "updated", "unchanged", "same"]


class Refused(ValueError):
    """A record that is not to go in; the message says why."""


class Intake:
    """Takes the records of files: `begin` each file, `add` its records, `flush` at the end."""

    def __init__(self, store: Store, report: Report, on_skip: OnSkip | None) -> None:
        self._store = store
        self._report = report
        self._on_skip = on_skip
        self._path = ""
        self._folder = ""
        self.pool_name = ""  # of items of other classes
        self.source = ""  # what the labels of commits call the file or folder
        self._taken = 0  # records before this batch
        self._batch: list[Record] = []
        self._referring: list[Referring] = []  # the batch of those whose references are set
        self._references: dict[int, Reference | None] = {}  # to the items that exported ones became
        self._bytes = 0  # of either batch
        self._pools: dict[tuple[Kind, str], Pool] = {}  # by kind of record, and name for "item"
        self._here: dict[tuple[Kind, str], Any] = {}  # the items of the batch that is being put in, by uid; or None
        self._seen = Seen()
        self._matcher = Matcher()

    def begin(self, path: str, folder: str, pool_name: str, survey: Survey | None = None) -> None:
        """The records that follow are from this file, and from this mail folder; items go into this pool.

        `survey` gives the records of the file once more.
        """
        if survey is not None:
            self.flush()  # what an earlier file has is to be found
            empty = True
            with contextlib.suppress(NoSuchPool):
                empty = not len(self._store.pool(POOLS["contact"][0], create=False))
            survey = None if empty else survey  # nothing to be matched, but what comes from this very file
        self._path, self._folder, self.pool_name = path, folder, pool_name
        self._seen.begin()
        self._matcher.begin(survey)

    def close(self) -> None:
        """Let go of the temporary file."""
        self._seen.close()
        self._matcher.close()

    def add(self, found: Record | Broken) -> None:
        """Take a record, or report what is broken."""
        if isinstance(found, Broken):
            self._skip(found.line, found.reason)
            return
        problem = self._check_pool(found) if found.kind == "item" else ""
        problem = problem or _check_names(found)
        if problem:
            self._skip(found.line, problem)
            return
        found.path, found.folder = self._path, self._folder
        found.pool = self.pool_name if found.kind == "item" else ""
        found.repeated = self._seen.add(found)
        self._batch.append(found)
        self._bytes += found.size
        if len(self._batch) >= BATCH_RECORDS or self._bytes >= BATCH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Put in what has been taken so far."""
        batch, self._batch, self._bytes = self._batch, [], 0
        if batch:
            for kind, name in {(record.kind, record.pool) for record in batch}:
                self._pool(kind, name)
            if any(record.unidentified for record in batch):
                self._matcher.prepare(self._pool("contact", ""), batch)
            first, self._taken = self._taken + 1, self._taken + len(batch)
            self._put(batch, first)

    def _pool(self, kind: Kind, name: str) -> Pool:
        if (kind, name) not in self._pools:
            pool = open_pool(self._store, kind) if not name else self._store.pool(name, [IMPORT_KEY])
            self._pools[kind, name] = pool
        return self._pools[kind, name]

    def _check_pool(self, record: Record) -> str:
        """Why an item of another class cannot go into the pool that the file names; empty if it can."""
        if not is_pool_name(self.pool_name) or self.pool_name in RESERVED_POOLS:
            return f"would go into the pool {self.pool_name!r}, which is not for imports: rename the file"
        if not record.exported_id and self.pool_name in PIM_POOLS:
            return f"has no columns that the pool {self.pool_name!r} knows: rename them, or the file for another pool"
        return ""

    def _put(self, batch: list[Record], first: int) -> None:
        """One transaction; where that fails, each half of it, down to the record that is to blame."""
        label = f"import {self.source}, records {first}-{first + len(batch) - 1}"
        try:
            outcomes = self._store.transact(self._take_all, batch, label=label)
        except RECORD_ERRORS as error:
            if len(batch) == 1:
                self._skip(batch[0].line, f"{batch[0].name!r} cannot be stored: {error}", batch[0].path)
                return
            middle = len(batch) // 2
            self._put(batch[:middle], first)
            self._put(batch[middle:], first + middle)
            return
        for record, (outcome, item_id) in zip(batch, outcomes, strict=True):
            if item_id:
                self._report.count("unchanged" if outcome == "same" else outcome)
                self._seen.note(record, item_id, outcome)
                for loss in record.losses:
                    self._lose(record.line, loss, record.path)
            else:
                self._skip(record.line, outcome, record.path)

    def _take_all(self, batch: list[Record]) -> list[tuple[str, int]]:
        """For each record what became of it and the item's id, or why it is skipped and 0."""
        outcomes: list[tuple[str, int]] = []
        # All are looked up before the first is changed: after that, each query would have to work out the index
        # entries of all that is new in this transaction.
        self._here = {(r.kind, r.uid): _find(self._pools[r.kind, ""], r.uid) for r in batch if r.kind != "item"}
        for record in batch:
            if record.unidentified and self._here[record.kind, record.uid] is None:
                self._here[record.kind, record.uid] = self._matcher.find(self._pools[record.kind, ""], record)
        for record in batch:
            try:
                take = self._takers[record.kind]
                if record.type_name and record.kind != "item":  # of an export: all that is to be known of the item
                    take = Intake._take_exported
                outcome, item = take(self, record, self._pools[record.kind, record.pool])
                outcomes.append((outcome, item.item_id))
            except Refused as refusal:
                outcomes.append((str(refusal), 0))
        return outcomes

    def _skip(self, line: int, reason: str, path: str = "") -> None:
        skipped = Skipped(path or self._path, line, reason)
        self._report.skip(skipped)
        if self._on_skip is not None:
            self._on_skip(skipped)

    def _lose(self, line: int, what: str, path: str = "") -> None:
        loss = Skipped(path or self._path, line, what)
        self._report.lose(loss)
        if self._on_skip is not None:
            self._on_skip(loss)

    # -- one record, inside a transaction: Refused only before anything is changed

    def _take_plain(self, record: Record, pool: Pool) -> tuple[Outcome, Item]:
        """A contact or note, or any record of an export."""
        here = self._find(record, record.uid)
        if here is None:
            return self._create(record, pool, record.state)
        if here.fingerprint == record.fingerprint:
            return "same", here
        older = revisions.why_older(_Attributes(here), record)
        if older:
            raise Refused(older)
        if record.repeated and not revisions.is_newer(_Attributes(here), record):
            # Two records of one file that share a UID and differ: neither may overwrite the other.
            uid = f"{record.uid}#{record.fingerprint.hex()[:12]}"
            here = self._find(record, uid)
            return ("same", here) if here is not None else self._create(record, pool, {**record.state, "uid": uid})
        return self._update(here, record, record.state)

    def _take_exported(self, record: Record, pool: Pool) -> tuple[Outcome, Item]:
        """A contact, event, message or note of an export, whose attributes may be of any type."""
        for name, default in CLASSES[record.kind]._defaults.items():
            value = record.state.get(name, default)
            if type(default) in (str, bool, int, list, dict) and type(value) is not type(default):
                raise Refused(f"its {name} is a {type(value).__name__}, not a {type(default).__name__}")
        return self._take_plain(record, pool)

    def _take_event(self, record: Record, pool: Pool) -> tuple[Outcome, Item]:
        here = self._find(record, record.uid)
        if here is None:
            if not record.patch:
                return self._create(record, pool, record.state)
            if record.method == "CANCEL":
                raise Refused("cancels an event that is not here")
            return self._create(record, pool, revisions.event_of_exceptions(record))
        if here.fingerprint == record.fingerprint:
            return "same", here
        attributes = _Attributes(here)
        if record.patch:
            return self._update(
                here, record, {**revisions.patched(attributes, record), "fingerprint": here.fingerprint}
            )
        older = revisions.why_older(attributes, record)
        if older:
            raise Refused(older)
        if record.repeated and not revisions.is_newer(attributes, record):
            raise Refused("has the UID of another event of this file, and does not say that it is newer")
        state = record.state
        if here.recurrence_id is not None:
            state = revisions.with_own_exception(attributes, state)
        return self._update(here, record, state)

    def _take_message(self, record: Record, pool: Pool) -> tuple[Outcome, Item]:
        state, uid = record.state, record.uid
        here = self._find(record, uid)
        if here is not None and here.digest != state["digest"]:  # another message with this Message-ID
            uid = f"{uid}#{state['digest'].hex()}"
            here = self._find(record, uid)
        if here is None:
            return self._create(record, pool, {**state, "uid": uid, "folder": state.get("folder", record.folder)})
        if here.fingerprint == record.fingerprint:
            return "same", here
        # A copy elsewhere adds to what is known.
        flags = sorted({*here.flags, *state["flags"]})
        labels = list(dict.fromkeys([*here.labels, *state["labels"]]))
        return self._update(here, record, {"flags": flags, "labels": labels})

    def _take_item(self, record: Record, pool: Pool) -> tuple[Outcome, Item]:
        """An item of another class."""
        cls = importable_class(record.type_name)
        if cls is None:
            raise Refused(f"is a {record.type_name!r}, which this program has not imported")
        here = next(pool.query(IMPORT_KEY, key=record.uid, limit=1), None) or self._same_item(record, pool)
        if here is not None:
            if type(here) is not cls:
                raise Refused(f"is a {record.type_name!r}, and here it is a {here.type_name!r}")
            if getattr(here, IMPORT_MARK, b"") == record.fingerprint:
                return "same", here
            return self._update(here, record, record.state)
        state = {**record.state, **dict.fromkeys(record.references), IMPORT_KEY: record.uid, IMPORT_MARK: _mark(record)}
        item = cls(self._store, **state)
        pool.add(item)
        return "added", item

    def _same_item(self, record: Record, pool: Pool) -> Item | None:
        """The very item that was exported, if this is its store and it has not changed since."""
        try:
            item: Item = self._store.get(record.exported_id)
        except NoSuchItem:
            return None
        if item.type_name != record.type_name or item not in pool:
            return None
        here = _Attributes(item)
        if _origin(here.get(IMPORT_KEY)) == _origin(record.uid):
            return None  # it was made of another item of this export, and has this id by chance
        same = all(name in here and revisions.is_same(here[name], value) for name, value in record.state.items())
        return item if same else None

    _takers: Mapping[Kind, Callable[[Intake, Record, Pool], tuple[Outcome, Item]]] = {
        "contact": _take_plain,
        "note": _take_plain,
        "event": _take_event,
        "message": _take_message,
        "item": _take_item,
    }

    def _find(self, record: Record, uid: str) -> Any:
        """The item of the record's kind that has this uid, or None."""
        key = (record.kind, uid)
        if key not in self._here:
            self._here[key] = _find(self._pools[record.kind, ""], uid)
        return self._here[key]

    def _create(self, record: Record, pool: Pool, state: Mapping[str, Any]) -> tuple[Outcome, Item]:
        cls = CLASSES[record.kind]
        values = {name: self._live(value) if name in HOLDERS else value for name, value in state.items()}
        values |= dict.fromkeys(record.references)
        item = cls(self._store, **{**values, "fingerprint": _mark(record)})
        pool.add(item)
        self._here[record.kind, state["uid"]] = item
        return "added", item

    def _update(self, item: Item, record: Record, state: Mapping[str, Any]) -> tuple[Outcome, Item]:
        """Assign what differs. Nothing is written if nothing does, the fingerprint included."""
        here = _Attributes(item)
        changes = {
            name: value
            for name, value in state.items()
            if name != "uid" and name not in record.lossy and not revisions.is_same(here.get(name), value)
        }
        if not changes:
            return "unchanged", item
        changes.setdefault(_mark_of(item), state.get("fingerprint", _mark(record)))
        for name, value in changes.items():
            setattr(item, name, self._live(value) if name in HOLDERS else value)
        return "updated", item

    def _live(self, value: Any) -> Any:
        """The value with a File for each `Content`."""
        if isinstance(value, Content):
            return self._store.file(value.data, name=value.name, media_type=value.media_type)
        if isinstance(value, list):
            return [self._live(inner) for inner in value]
        if isinstance(value, dict):
            return {key: self._live(inner) for key, inner in value.items()}
        return value

    # -- references, after all items of an export are there

    def forget_items(self) -> None:
        """Forget which items the exported ones became: ids mean something in one file only."""
        self._seen.forget_items()

    def reference_to(self, exported_id: int) -> Reference | None:
        """A reference to the item that was made of an exported one by this import, if it is still there.

        Not the item itself, which would be read from the store for each reference to it.
        """
        if exported_id not in self._references:
            if len(self._references) >= MAX_REMEMBERED:
                self._references.clear()
            item = self._item_of(exported_id)
            self._references[exported_id] = None if item is None else Reference(item.item_id)
        return self._references[exported_id]

    def _item_of(self, exported_id: int) -> Item | None:
        item_id = self._seen.item_id(exported_id)
        try:
            return self._store.get(item_id) if item_id else None
        except NoSuchItem:  # deleted meanwhile
            return None

    def refer(self, referring: Referring, decoder: Decoder) -> None:
        """Set the attributes of an item that refer to others; where one is not found, an item that was here stays.

        Only then is the item marked as made of its record: so an import that was stopped before it is done again.
        They are set some hundreds at a time, the last ones by `flush_references`.
        """
        self._referring.append(referring)
        self._bytes += referring.size
        if len(self._referring) >= BATCH_RECORDS or self._bytes >= BATCH_BYTES:
            self.flush_references(decoder)

    def flush_references(self, decoder: Decoder) -> None:
        """Set the references of what has been taken so far."""
        batch, self._referring, self._bytes = self._referring, [], 0
        if batch:
            self._put_references(batch, decoder)

    def _put_references(self, batch: list[Referring], decoder: Decoder) -> None:
        """One transaction; where that fails, each half of it, down to the item that is to blame."""
        try:
            done = self._store.transact(self._assign_all, batch, decoder, label=f"import {self.source}, references")
        except RECORD_ERRORS as error:
            if len(batch) == 1:
                self._lose(batch[0].line, f"its references cannot be stored: {error}")
                return
            middle = len(batch) // 2
            self._put_references(batch[:middle], decoder)
            self._put_references(batch[middle:], decoder)
            return
        for referring, (changed, losses) in zip(batch, done, strict=True):
            if changed and self._seen.outcome(referring.exported_id) == "unchanged":
                self._report.unchanged -= 1
                self._report.updated += 1
            for loss in losses:
                self._lose(referring.line, loss)

    def _assign_all(self, batch: list[Referring], decoder: Decoder) -> list[tuple[bool, list[str]]]:
        """For each whether anything of its item is changed, and what was not found."""
        self._references.clear()  # another commit may have deleted some
        return [self._assign(referring, decoder) for referring in batch]

    def _assign(self, referring: Referring, decoder: Decoder) -> tuple[bool, list[str]]:
        outcome, typed = self._seen.outcome(referring.exported_id), referring.typed
        item = self._item_of(referring.exported_id) if outcome != "same" else None
        if item is None or (item.item_id == referring.exported_id and _refers_already(item, typed)):
            return False, []
        values, losses, lossy = decoder.decode_all(typed)
        here = item._read()  # in stored form, as `values` is: the items that it refers to are not read
        changes = {
            name: value
            for name, value in values.items()
            if to_stored(here.get(name), name) != to_stored(value, name) and (outcome == "added" or name not in lossy)
        }
        if changes or outcome in ("added", "updated"):
            changes[_mark_of(item)] = referring.fingerprint
        for name, value in changes.items():
            setattr(item, name, value)
        return bool(changes), losses


def _origin(key: Any) -> str:
    """The store that an export is of, from the uid of one of its items."""
    return key.rpartition(":")[0] if isinstance(key, str) else ""


def _check_names(record: Record) -> str:
    """Why the attributes that a record of an export names cannot be set; empty if they can."""
    for name in (*record.state, *record.references):
        if name.startswith("_"):
            return f"names {name[:MAX_SHOWN_NAME]!r}, and an attribute's name does not begin with an underscore"
    return ""


def _mark_of(item: Item) -> str:
    """The attribute that holds the fingerprint of the record that an item was made of."""
    return "fingerprint" if item.type_name in KINDS else IMPORT_MARK


def _mark(record: Record) -> bytes:
    """The fingerprint to keep with an item now: none yet where references are still to be set."""
    return b"" if record.references else record.fingerprint


def _refers_already(item: Item, typed: Mapping[str, Any]) -> bool:
    """Whether an item's attributes are what was exported, to the ids of the items that they refer to."""
    here = item._read()
    try:
        return all(encode(to_stored(here[name], name)) == value for name, value in typed.items())
    except (KeyError, TypeError):  # an attribute that it has not got, or that has no typed form
        return False


def importable_class(type_name: str) -> type[Item] | None:
    """The class of items that a file may name; None for those that the program itself lives by."""
    cls = class_named(type_name)
    if cls is None or cls is Item:
        return cls
    package = cls.__module__.partition(".")[0]
    return None if issubclass(cls, Pool) or package in ("atop", "replication", "discovery") else cls


def _find(pool: Pool, uid: str) -> Any:
    return next(pool.query("uid", key=uid, limit=1), None)


class _Attributes(Mapping[str, Any]):
    """An item's attributes as a mapping that reads each only when it is asked for."""

    def __init__(self, item: Item) -> None:
        self._item = item

    def __getitem__(self, name: str) -> Any:
        try:
            return getattr(self._item, name)
        except AttributeError:
            raise KeyError(name) from None

    def __iter__(self) -> Any:
        return iter(self._item.attributes)

    def __len__(self) -> int:
        return len(self._item.attributes)
