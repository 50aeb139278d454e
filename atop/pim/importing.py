"""Imports files into a store: address books, calendars, mailboxes, tables, exports.

    report = import_file(store, "contacts.vcf")
    print(report.added, report.updated, report.unchanged)
    for path, line, reason in report.skipped: ...

Promises: a file of any size takes the same memory; one broken record is named with its file and line, and the rest
goes in; the same file again changes nothing, and makes no commit; nothing in a file is executed, followed or used as a
path; nothing of a record is dropped without being named in the report, except what is about the file itself (the
program that wrote it, DTSTAMP, the encodings).
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

from atop import File, FileInfo, Item, Store
from atop.errors import StoreDamaged, UnknownFormat
from atop.pim.calendar_file import read_calendar
from atop.pim.incoming import RECORD_ERRORS, Broken, Record, reason_of
from atop.pim.intake import Intake
from atop.pim.jsonl import JsonLines, read_references
from atop.pim.lines import LineFile, Watch
from atop.pim.mailbox_file import RawMessage, is_maildir, maildir_files, read_mbox, read_message_file
from atop.pim.matching import Survey
from atop.pim.message import read_message
from atop.pim.report import OnSkip, Progress, Report
from atop.pim.sniffing import FORMATS, Format, sniff
from atop.pim.table import read_table
from atop.pim.typed import Decoder
from atop.pim.vcard import read_vcards

# Deepest folders looked into: deeper ones are a loop, or nobody's mail.
MAX_FOLDERS = 64


def import_file(
    store: Store,
    path: str | os.PathLike[str],
    kind: Format | None = None,
    progress: Progress | None = None,
    on_skip: OnSkip | None = None,
) -> Report:
    """Put what a file or folder holds into the store's pools `contacts`, `events`, `messages` and `notes`.

    Args:
        store: where to; call this outside of a transaction, since it makes one for each few hundred records.
        path: a file, a maildir, or a folder of such.
        kind: the format; found out by contents and name unless given.
        progress: called now and then with what has been read and what there is to read, in bytes (of a folder: files).
        on_skip: called for each record that is skipped, or incomplete, when it is.

    Raises:
        OSError: the file cannot be read.
        UnknownFormat: it is of no format that can be imported, or `kind` is none.
        StoreError: the store cannot be written; what was put in before is whole, and the import can be run again.
    """
    source = Path(path)
    if kind is not None and kind not in FORMATS:
        raise UnknownFormat(f"{kind!r} is no format: choose one of {', '.join(FORMATS)}")
    report = Report()
    with closing(Intake(store, report, on_skip)) as intake:
        intake.source = source.name or source.resolve().name
        importer = _Importer(store, intake, progress)
        if source.is_dir():
            if kind not in (None, "maildir"):
                raise UnknownFormat(f"{source} is a folder: leave the format out, each file in it has its own")
            importer.take_folder(source)
        elif not source.is_file():  # a pipe, which cannot be read twice
            with tempfile.TemporaryDirectory() as folder:
                copy = Path(folder) / source.name
                with source.open("rb") as stream, copy.open("wb") as target:
                    shutil.copyfileobj(stream, target)
                importer.take_file(copy, _format_of(copy, kind), source)
        else:
            importer.take_file(source, _format_of(source, kind), source)
    return report


def _format_of(path: Path, kind: Format | None) -> Format:
    found = kind or sniff(path)
    if found is None or found == "maildir":
        raise UnknownFormat(
            f"{path} is of no format that can be imported ({', '.join(FORMATS)}): if it is one, say which"
        )
    return found


class _Importer:
    """Reads files, and hands what is in them to an intake."""

    def __init__(self, store: Store, intake: Intake, progress: Progress | None) -> None:
        self._store = store
        self._intake = intake
        self._progress = progress

    def take_file(self, path: Path, kind: Format, called: Path) -> None:
        """Import one file, reporting how much of it is read. `called` is what reports call it."""
        total = path.stat().st_size

        def watch(position: int) -> None:
            if self._progress is not None:
                self._progress(min(position, total), total)

        self._take(path, kind, watch, called)
        self._intake.flush()
        watch(total)

    def take_folder(self, root: Path) -> None:
        """Import the files of a folder and those below it, reporting how many are read."""
        total = sum(1 for _ in files_below(root))
        for done, (path, flags, folder) in enumerate(files_below(root)):
            if self._progress is not None:
                self._progress(done, total)
            try:
                self._take_found(path, flags, folder)
            except OSError as error:
                self._intake.add(Broken(0, f"cannot be read: {error.strerror or error}"))
        self._intake.flush()
        if self._progress is not None:
            self._progress(total, total)

    def _take_found(self, path: Path, flags: tuple[str, ...], folder: str | None) -> None:
        self._intake.begin(str(path), folder or "", "")
        if folder is not None:
            found = read_message_file(path)
            self._intake.add(_message_of(found if isinstance(found, Broken) else found._replace(flags=flags)))
            return
        kind = sniff(path)
        if kind is not None:
            self._take(path, kind, None, path)
        else:
            self._intake.add(Broken(0, "is of no format that can be imported"))

    def _take(self, path: Path, kind: Format, watch: Watch | None, called: Path) -> None:
        # The mailboxes of Apple Mail are folders, each with a file called mbox.
        folder = path.parent.stem if path.name == "mbox" and path.parent.suffix == ".mbox" else path.stem
        survey = _survey_of(path, kind)
        self._intake.begin(str(called), folder if kind == "mbox" else "", path.stem, survey)
        if kind == "jsonl":
            self._take_export(path, watch)
        elif kind == "icalendar":
            self._add_all(read_calendar(path, watch))
        elif kind == "eml":
            self._add_all([_message_of(read_message_file(path))])
        else:
            with LineFile(path, watch) as lines:
                if kind == "vcard":
                    self._add_all(read_vcards(lines))
                elif kind == "mbox":
                    self._add_all(map(_message_of, read_mbox(lines)))
                else:
                    self._add_all(read_table(lines, Decoder(_no_item, self._find_file)))

    def _add_all(self, records: Iterable[Record | Broken]) -> None:
        for found in records:
            self._intake.add(found)

    def _take_export(self, path: Path, watch: Watch | None) -> None:
        intake = self._intake
        with LineFile(path, watch) as lines:
            reader = JsonLines(lines, Decoder(_no_item, self._find_file), self._keep_file)
            for found in reader.records():
                if reader.pool:
                    intake.pool_name = reader.pool
                intake.add(found)
            intake.flush()
        if reader.refers:
            decoder = Decoder(intake.reference_to, self._find_file)
            with LineFile(path) as lines:
                for referring in read_references(lines):
                    intake.refer(referring, decoder)
            intake.flush_references(decoder)
        intake.forget_items()

    def _find_file(self, info: FileInfo) -> File | None:
        """The file of this description, if its contents are in the store."""
        file = File(self._store, info)
        if not file.is_here:
            return None
        try:
            file.open().close()
        except StoreDamaged:
            raise ValueError(f"the contents of the file {info.name!r} have another size than it says") from None
        return file

    def _keep_file(self, digest: bytes, contents: BinaryIO) -> None:
        if not File(self._store, FileInfo(digest, 0)).is_here and self._store.file(contents).digest != digest:
            raise ValueError("the contents of a file are not those that were exported")


def _survey_of(path: Path, kind: Format) -> Survey | None:
    """What reads the contacts of a file once more; None if it is of a format without contacts."""

    def survey() -> Iterator[Record | Broken]:
        with LineFile(path) as lines:
            yield from read_vcards(lines) if kind == "vcard" else read_table(lines, Decoder(_no_item, lambda _: None))

    return survey if kind in ("vcard", "csv") else None


def _no_item(_item_id: int) -> Item | None:
    return None


def _message_of(found: RawMessage | Broken) -> Record | Broken:
    if isinstance(found, Broken):
        return found
    try:
        return read_message(found)
    except RECORD_ERRORS as error:
        return Broken(found.line, reason_of(error))


def files_below(folder: Path, name: str = "", depth: int = 0) -> Iterator[tuple[Path, tuple[str, ...], str | None]]:
    """The files in a folder and those below it: path, flags, and the mail folder that they are in, if it is a maildir.

    Symbolic links are not followed, and hidden files are left out.
    """
    maildir = is_maildir(folder)
    if maildir:
        for path, flags in maildir_files(folder):
            yield path, flags, name or "Inbox"
    with os.scandir(folder) as scan:
        entries = sorted(scan, key=lambda entry: entry.name)
    for entry in entries:
        path = Path(entry.path)
        is_folder = entry.is_dir(follow_symlinks=False)
        if is_folder and not (maildir and entry.name in ("cur", "new", "tmp")) and depth < MAX_FOLDERS:
            if not entry.name.startswith(".") or is_maildir(path):
                inner = entry.name.lstrip(".").replace(".", "/") if entry.name.startswith(".") else entry.name
                yield from files_below(path, f"{name}/{inner}" if name else inner, depth + 1)
        elif entry.is_file(follow_symlinks=False) and not (maildir or entry.name.startswith(".")):
            yield path, (), None
