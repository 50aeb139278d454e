"""`atop import` and `atop export`: data in, data out."""

from __future__ import annotations

import contextlib
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from atop import AtopError, Store
from atop.cli.session import DONE_IN_PART, FAILED, Session, StoreCommand, complete_pool, pass_session
from atop.cli.text import many

if TYPE_CHECKING:
    from atop.pim.exporting import ExportReport
    from atop.pim.report import Report, Skipped

# What `--format` takes; a test compares them with what atop.pim reads and writes.
IMPORT_FORMATS = ("vcard", "icalendar", "mbox", "maildir", "eml", "csv", "jsonl")
EXPORT_FORMATS = ("vcard", "vcard3", "icalendar", "mbox", "csv", "jsonl")


@click.command("import", cls=StoreCommand)
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--format",
    "kind",
    metavar="FORMAT",
    type=click.Choice(IMPORT_FORMATS),
    help=f"What the files are, where that is not seen by itself: {', '.join(IMPORT_FORMATS)}.",
)
@pass_session
def import_command(session: Session, *, files: tuple[Path, ...], kind: Any) -> None:
    """Put contacts, events, messages and notes into the store.

    Reads vCard, iCalendar, mailboxes (mbox, maildir, single messages), CSV tables and what `atop export`
    wrote; of a folder, all files in it. Makes the store if there is none. The pools are `contacts`, `events`,
    `messages` and `notes`.

    Importing a file again updates what changed in it and duplicates nothing, so an import that was
    interrupted is simply run again. A record or FILE that cannot be read is named on standard error, the
    others go in, and the exit code is 3. Where nothing at all could be read it is 1, and no store is made.

    \b
    Examples:
      atop import contacts.vcf
      atop import calendar.ics mail.mbox ~/Maildir
      atop import --format csv addresses.txt
    """
    from atop.errors import UnknownFormat

    there = session.store_path.exists()
    new = not (session.store_path / "data").exists()
    taken = 0
    with session.open_store(create=True) as store:
        for path in files:
            try:
                report = _import(session, store, path, kind)
            except (UnknownFormat, OSError) as error:
                if isinstance(error, BrokenPipeError):
                    raise
                message = str(error) if isinstance(error, AtopError) else f"{path}: {error.strerror or error}"
                session.output.error(type(error).__name__, message)
                session.exit_code = DONE_IN_PART
                continue
            taken += report.added + report.updated + report.unchanged
            counts = _counts(report)
            words = ", ".join(f"{count:,} {what}" for what, count in counts.items() if count) or "nothing in it"
            session.output.result({"file": str(path), **counts}, f"{path}: {words}")
    if session.exit_code == DONE_IN_PART and not taken:
        session.exit_code = FAILED
        if new:
            _remove_new_store(store.path, keep_directory=there)


def _remove_new_store(path: Path, *, keep_directory: bool) -> None:
    """Remove a store that this command has made and put nothing into."""
    for part in ("data", "files", "local"):
        shutil.rmtree(path / part, ignore_errors=True)
    if not keep_directory:
        with contextlib.suppress(OSError):
            path.rmdir()


def _import(session: Session, store: Store, path: Path, kind: Any) -> Report:
    from atop.pim.importing import import_file

    def name(skipped: Skipped) -> None:
        session.skip({"file": skipped.path, "line": skipped.line, "reason": skipped.reason}, str(skipped))

    with session.output.progress(f"importing {path.name}") as progress:
        return import_file(store, path, kind, progress=progress.update, on_skip=name)


def _counts(report: Report) -> dict[str, int]:
    return {
        "added": report.added,
        "updated": report.updated,
        "unchanged": report.unchanged,
        "skipped": report.skipped_count,
        "incomplete": report.incomplete_count,
    }


@click.command("export", cls=StoreCommand)
@click.argument("pool_name", metavar="POOL", shell_complete=complete_pool)
@click.argument("target", metavar="[FILE]", required=False, type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--format",
    "kind",
    metavar="FORMAT",
    type=click.Choice(EXPORT_FORMATS),
    help=f"One of {', '.join(EXPORT_FORMATS)} [default: by the name of FILE; with --json: jsonl].",
)
@pass_session
def export_command(session: Session, *, pool_name: str, target: Path | None, kind: Any) -> None:
    """Write a pool to a file or a pipe.

    Writes all items of POOL to FILE, or to standard output without one. JSON Lines has everything, files
    included; CSV everything but the contents of files; vCard is for contacts, iCalendar for events and notes.
    `atop import` reads all of them back. FILE is replaced when the export is whole. An item that the format
    cannot hold is named on standard error, and the exit code is 3.

    \b
    Examples:
      atop export contacts everyone.vcf
      atop export events --format icalendar > calendar.ics
      atop --json export notes | jq .attributes.title
    """
    from atop.pim.exporting import SUFFIXES, export_pool

    to_output = target is None or str(target) == "-"
    if to_output:
        if session.output.json and kind not in (None, "jsonl"):
            raise click.UsageError(f"--json writes JSON Lines to standard output: name a FILE for {kind}.")
        kind = kind or ("jsonl" if session.output.json else None)
        if kind is None:
            raise click.UsageError(f"name a FILE, or say --format: {', '.join(EXPORT_FORMATS)}.")
        if sys.stdout.isatty():
            raise click.UsageError("the data is not for a terminal: name a FILE, or lead it elsewhere with | or >.")
    elif kind is None and target is not None and target.suffix.lower() not in SUFFIXES:
        raise click.UsageError(f"the name {target.name!r} does not say in which format: --format does.")

    with session.open_store() as store:
        pool = session.find_pool(store, pool_name)
        with session.output.progress(f"exporting {pool_name}") as progress:
            sink = sys.stdout.buffer if target is None or to_output else target
            report = export_pool(store, pool, sink, kind, progress=progress.update)
    _name_left_out(session, report)
    if not to_output:
        fields = {"file": str(target), "pool": pool_name, "written": report.written, "left_out": report.left_out_count}
        session.output.result(fields, f"wrote {many(report.written, 'item')} to {target}")


def _name_left_out(session: Session, report: ExportReport) -> None:
    for item_id, reason in report.left_out:
        session.skip({"id": item_id, "reason": reason}, f"item {item_id} {reason}")
    more = report.left_out_count - len(report.left_out)
    if more > 0:
        session.skip({"more": more}, f"{more:,} more")
