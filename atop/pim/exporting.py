"""Exports pools of a store as files that other programs read, and that an import reads back.

    export_pool(store, "contacts", "contacts.vcf")
    export_pool(store, store.pool("books"), "books.jsonl")

Promises: every item of the pool is in the file, or named in the report; the file is there whole or not at all, for it
is written beside its place and renamed when it is on the disk (a device or a named pipe is written into, and stays what
it is); a pool of any size takes the same memory. An import of the file into an empty store gives the same items,
attribute for attribute, as far as the format can say them: JSON Lines everything, the contents of files included; CSV
everything but these contents; vCard, iCalendar and mbox all attributes of contacts, of events and notes, and of
messages. What is changed while an export runs may be in it or not.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal, get_args

from atop import File, Item, Pool, Store
from atop.errors import NoSuchFile, UnknownFormat
from atop.pim.cells import MORE_HEADING, TYPE_HEADING, Column, columns_of, write_cell
from atop.pim.ical_out import CalendarWriter
from atop.pim.incoming import IMPORT_KEY, IMPORT_MARK, RECORD_ERRORS, reason_of
from atop.pim.items import KINDS, Contact, Event, Message, Note
from atop.pim.jsonl import file_lines, header_line, item_line
from atop.pim.mail_out import write_message
from atop.pim.message import FLAGS
from atop.pim.report import MAX_NAMED, Progress
from atop.pim.rows import MAX_COLUMNS
from atop.pim.typed import dumps
from atop.pim.vcard import NAME_PARTS, display_name
from atop.pim.vcard_out import write_card

ExportFormat = Literal["vcard", "vcard3", "icalendar", "mbox", "csv", "jsonl"]

FORMATS: tuple[str, ...] = get_args(ExportFormat)

SUFFIXES: dict[str, ExportFormat] = {
    ".vcf": "vcard",
    ".ics": "icalendar",
    ".mbox": "mbox",
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}

# Attributes that are about imports and not about what was imported: of contacts, events, messages and notes, and of
# items of other classes.
OWN_BOOKKEEPING = frozenset({"fingerprint"})
BOOKKEEPING = frozenset({IMPORT_KEY, IMPORT_MARK})

# Attributes that hold dicts, as `items` describes them.
ENTRY_LISTS = frozenset(
    {"emails", "phones", "addresses", "urls", "ims", "files", "properties", "overrides", "attendees", "alarms"}
)

# Digests remembered so that contents shared by items are written once; past it, some are written again.
MAX_REMEMBERED_FILES = 100_000


@dataclass
class ExportReport:
    """What an export wrote. `left_out` names the first of `left_out_count` items or parts of items that it lacks."""

    written: int = 0
    left_out: list[tuple[int, str]] = field(default_factory=list)  # item id, why
    left_out_count: int = 0

    def leave_out(self, item: Item, reason: str) -> None:
        """Count and name something that is not in the file."""
        self.left_out_count += 1
        if len(self.left_out) < MAX_NAMED:
            self.left_out.append((item.item_id, reason))


def export_pool(
    store: Store,
    pool: Pool | str,
    target: str | os.PathLike[str] | BinaryIO,
    kind: ExportFormat | None = None,
    progress: Progress | None = None,
) -> ExportReport:
    """Write all items of a pool to a file, or to a stream of bytes.

    Args:
        store: where from.
        pool: the pool or its name.
        target: a path, whose file is replaced only when all is written, and which is written into if it is no regular
            file; or a stream, which is left open.
        kind: the format ("vcard3" is vCard 3.0); by the suffix of the path unless given.
        progress: called now and then with how many items are written, and of how many.

    Raises:
        NoSuchPool: there is no pool of this name.
        UnknownFormat: the format is none, or cannot hold items of any class in the pool.
        OSError: the file cannot be written.
    """
    source = store.pool(pool, create=False) if isinstance(pool, str) else pool
    chosen = kind or (SUFFIXES.get(Path(target).suffix.lower()) if isinstance(target, (str, os.PathLike)) else None)
    if chosen not in FORMATS:
        raise UnknownFormat(f"say in which format to export: {', '.join(FORMATS)}")
    writer = _WRITERS[chosen](store, source)
    if isinstance(target, (str, os.PathLike)):
        with _writing(Path(target)) as stream:
            writer.write(stream, progress)
    else:
        writer.write(target, progress)
    return writer.report


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[BinaryIO]:
    """A stream to what `path` is to hold. Raises OSError, naming `path` or its folder."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        mode = stat.S_IFREG
    if stat.S_ISREG(mode):
        with _replacing(path.resolve(), path) as stream:
            yield stream
        return
    with _blamed(path), path.open("wb") as stream:  # a device, a named pipe: never replaced by a file
        yield stream


@contextlib.contextmanager
def _replacing(final: Path, called: Path) -> Iterator[BinaryIO]:
    """A stream to a new file beside `final`, that takes its place when it is whole and on the disk."""
    if not final.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "there is no such folder: make it first", str(called.parent))
    temporary = final.with_name(f".{final.name[:100]}.{secrets.token_hex(6)}.part")
    try:
        with _blamed(called, temporary), temporary.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(final)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(final.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextlib.contextmanager
def _blamed(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Have errors of the system that name no file, or the temporary one, name `path`."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename in (None, str(temporary)):
            error.filename = str(path)
        raise


def attributes_of(item: Item) -> dict[str, Any]:
    """The attributes of an item that an export has."""
    skipped = OWN_BOOKKEEPING if item.type_name in KINDS else BOOKKEEPING
    return {name: value for name, value in item.attributes.items() if name not in skipped}


def _called(item: Item) -> str:
    """What a person would call an item, to begin a report with."""
    names = (getattr(item, name, "") for name in ("name", "summary", "title", "subject"))
    return next((f"({name[:60]!r}) " for name in names if isinstance(name, str) and name), "")


def _wrong_attribute(item: Item) -> str:
    """Which attribute of an item is of another type than its class says; empty if none is."""
    found = (_wrong_type(name, getattr(item, name), default) for name, default in type(item)._defaults.items())
    return next(filter(None, found), "")


def _wrong_type(name: str, value: Any, default: Any) -> str:
    """That an attribute is of another type than its class says; empty if it is not."""
    if type(default) in (str, bool, int, list, dict) and not isinstance(value, type(default)):
        return f"its {name} is a {type(value).__name__}, not a {type(default).__name__}"
    if name in ENTRY_LISTS and (wrong := [entry for entry in value if not isinstance(entry, dict)]):
        return f"its {name} has an entry that is a {type(wrong[0]).__name__}, not a dict"
    return ""


def settled(item: Item, state: dict[str, Any]) -> dict[str, Any]:
    """The attributes of a contact, where two of them that say the same were not changed together: the later one holds.

    The first of a list and the attribute beside it, and the whole name and its parts.
    """
    for attribute, entries, key in (
        ("email", "emails", "value"),
        ("phone", "phones", "value"),
        ("city", "addresses", "city"),
    ):
        first = state[entries][0].get(key, "") if state[entries] else ""
        if first != state[attribute] and first and _is_later(item, entries, {attribute}):
            state[attribute] = first
    parts = set(NAME_PARTS)
    if any(state[part] for part in parts) and display_name(state) != state["name"] and _is_later(item, "name", parts):
        given, _, family = state["name"].strip().rpartition(" ")
        state |= {**dict.fromkeys(parts, ""), "given": given or family, "family": family if given else ""}
    return state


def _is_later(item: Item, name: str, others: set[str]) -> bool:
    """Whether an attribute was changed, and none of the others then or since, as far as the history tells."""
    for revision in item.history():
        if not others.isdisjoint(revision.changed):
            return False
        if name in revision.changed:
            return True
    return False


class _Writer:
    """Writes the items of a pool in one format."""

    def __init__(self, store: Store, pool: Pool) -> None:
        self.report = ExportReport()
        self._store = store
        self._pool = pool

    def write(self, stream: BinaryIO, progress: Progress | None) -> None:
        """Write all."""
        self.start(stream)
        total = len(self._pool)
        for number, item in enumerate(self._pool):
            if progress is not None and number % 200 == 0:
                progress(min(number, total), total)
            try:
                self.report.written += self.item(item, stream)
            except RECORD_ERRORS as error:  # an attribute of another type than its class says
                self.report.leave_out(
                    item, f"{_called(item)}cannot be written: {_wrong_attribute(item) or reason_of(error)}"
                )
        if not self.report.written and self.report.left_out:
            raise UnknownFormat(f"no item of {self._pool.name!r} can be written: each {self.report.left_out[0][1]}")
        self.finish(stream)
        if progress is not None:
            progress(total, total)

    def start(self, stream: BinaryIO) -> None:
        """Write what comes before the items."""

    def item(self, item: Item, stream: BinaryIO) -> bool:
        """Write an item; False if it is left out."""
        raise NotImplementedError

    def finish(self, stream: BinaryIO) -> None:
        """Write what comes after the items."""

    def _available(self, item: Item, name: str, value: Any) -> Any:
        """The value without the files whose contents are not on this device, which are named in the report."""
        if isinstance(value, File):
            try:
                value.open().close()
            except NoSuchFile as error:
                self.report.leave_out(item, f"{name}: {error}")
                return None
            return value
        if isinstance(value, list):
            if not any(isinstance(inner, (File, list, dict)) for inner in value):
                return value
            kept = [self._available(item, name, inner) for inner in value]
            return [new for new, old in zip(kept, value, strict=True) if new is not None or old is None]
        if isinstance(value, dict):
            kept_items = {key: self._available(item, name, inner) for key, inner in value.items()}
            if "property" in value and kept_items.get("file") is None:  # an entry of `Contact.files`
                return None
            return {key: new for key, new in kept_items.items() if new is not None or value[key] is None}
        return value


class _VCards(_Writer):
    version: Literal["4.0", "3.0"] = "4.0"

    def item(self, item: Item, stream: BinaryIO) -> bool:
        if not isinstance(item, Contact):
            self.report.leave_out(item, f"is a {item.type_name}, and a vCard is of a contact")
            return False
        try:
            state = settled(item, attributes_of(item))
            for name in ("photo", "files"):
                state[name] = self._available(item, name, state[name])
            card = write_card(state, self.version)
        except RECORD_ERRORS:
            card = self._part_of(item)
        stream.write(card)
        return True

    def _part_of(self, item: Contact) -> bytes:
        """A card of what can be written of a contact; the rest is named in the report."""
        defaults = type(item)._defaults
        known = {name: value for name, value in attributes_of(item).items() if name in defaults}
        state: dict[str, Any] = dict(defaults)
        card = write_card(state, self.version)
        for name, value in known.items():
            try:
                state[name] = self._available(item, name, value)
                card = write_card(state, self.version)
            except RECORD_ERRORS as error:
                reason = _wrong_type(name, value, defaults[name]) or f"its {name} cannot be written: {reason_of(error)}"
                self.report.leave_out(item, f"{_called(item)}is written in part: {reason}")
                state[name] = defaults[name]
                if isinstance(value, list):
                    state[name] = self._writable(state, name, value)
                    card = write_card(state, self.version)
        return card

    def _writable(self, state: dict[str, Any], name: str, entries: list[Any]) -> list[Any]:
        """The entries of an attribute that can be written by themselves."""
        found = []
        for entry in entries:
            with contextlib.suppress(*RECORD_ERRORS):  # the report names the attribute already
                write_card({**state, name: [entry]}, self.version)
                found.append(entry)
        return found


class _VCards3(_VCards):
    version = "3.0"


class _Calendar(_Writer):
    def start(self, stream: BinaryIO) -> None:
        self._writer = CalendarWriter()
        stream.write(self._writer.start())

    def item(self, item: Item, stream: BinaryIO) -> bool:
        if not isinstance(item, (Event, Note)):
            self.report.leave_out(item, f"is a {item.type_name}, and a calendar holds events, tasks and notes")
            return False
        state = attributes_of(item)
        for name in ("attachments", "overrides"):
            if name in state:
                state[name] = self._available(item, name, state[name])
        stream.write(self._writer.event(state) if isinstance(item, Event) else self._writer.note(state))
        return True

    def finish(self, stream: BinaryIO) -> None:
        stream.write(self._writer.finish())


class _Mailbox(_Writer):
    def item(self, item: Item, stream: BinaryIO) -> bool:
        if not isinstance(item, Message):
            self.report.leave_out(item, f"is a {item.type_name}, and a mailbox holds messages")
            return False
        state = attributes_of(item)
        for name in ("attachments", "inline"):
            state[name] = self._available(item, name, state[name])
        unknown = sorted(set(state["flags"]) - FLAGS)
        if unknown:
            self.report.leave_out(item, f"flags: a mailbox has none that is called {', '.join(unknown)}")
        pieces = write_message(state)
        stream.write(next(pieces))  # what this raises, it does before anything is written
        stream.writelines(pieces)
        return True


class _Table(_Writer):
    """CSV: in UTF-8 with a byte order mark, so that Excel sees that it is."""

    def start(self, stream: BinaryIO) -> None:
        self._names = self._find_names()
        stream.write(b"\xef\xbb\xbf")
        self._row([TYPE_HEADING, *self._names, MORE_HEADING], stream)

    def _find_names(self) -> list[str]:
        """The attributes of all items: those that their classes annotate, then others as they come."""
        names: dict[str, None] = {}
        for item in self._pool:
            own = attributes_of(item)
            for name in (*(n for n in columns_of(item.type_name) if n in own), *own):
                if len(names) < MAX_COLUMNS - 2:
                    names.setdefault(name)
        return list(names)

    def item(self, item: Item, stream: BinaryIO) -> bool:
        attributes = attributes_of(item)
        columns = columns_of(item.type_name)
        plain = Column()
        cells = [write_cell(attributes.pop(n), columns.get(n, plain)) if n in attributes else "" for n in self._names]
        self._row([item.type_name, *cells, dumps(attributes) if attributes else ""], stream)
        return True

    def _row(self, cells: list[str], stream: BinaryIO) -> None:
        text = io.StringIO(newline="")
        csv.writer(text).writerow(cells)
        stream.write(text.getvalue().encode("utf-8", "backslashreplace"))


class _JsonLines(_Writer):
    def start(self, stream: BinaryIO) -> None:
        self._written_files: set[bytes] = set()
        self._line(header_line(self._pool.name, secrets.token_hex(8)), stream)

    def item(self, item: Item, stream: BinaryIO) -> bool:
        attributes = attributes_of(item)
        for file in _files_in(list(attributes.values())):
            if file.digest in self._written_files:
                continue
            try:
                for line in file_lines(file):
                    self._line(line, stream)
            except NoSuchFile as error:
                self.report.leave_out(item, str(error))
                continue
            if len(self._written_files) >= MAX_REMEMBERED_FILES:
                self._written_files.clear()
            self._written_files.add(file.digest)
        self._line(item_line(item.type_name, item.item_id, attributes), stream)
        return True

    def _line(self, text: str, stream: BinaryIO) -> None:
        # Half of a surrogate pair has no UTF-8; its Python escape is that of JSON too.
        stream.write(text.encode("utf-8", "backslashreplace") + b"\n")


def _files_in(value: Any) -> Iterator[File]:
    """The files in a value, at any depth."""
    if isinstance(value, File):
        yield value
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _files_in(inner)
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _files_in(inner)


_WRITERS: dict[str, Callable[[Store, Pool], _Writer]] = {
    "vcard": _VCards,
    "vcard3": _VCards3,
    "icalendar": _Calendar,
    "mbox": _Mailbox,
    "csv": _Table,
    "jsonl": _JsonLines,
}
