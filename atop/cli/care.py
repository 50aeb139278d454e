"""`atop backup`, `restore`, `verify` and `compact`: keeping a store safe and small."""

from __future__ import annotations

import datetime
from pathlib import Path

import click

from atop import restore
from atop.cli.session import FAILED, Count, Session, StoreCommand, pass_session
from atop.cli.text import many, plain, size
from atop.maintenance import DEFAULT_KEEP


@click.command("backup", cls=StoreCommand)
@click.argument("target", metavar="TARGET", type=click.Path(path_type=Path))
@pass_session
def backup_command(session: Session, target: Path) -> None:
    """Copy the store, while it is in use.

    TARGET is a directory that is not there yet. The copy is complete in itself, files included, as of one
    commit. `atop restore TARGET` puts it back.

    \b
    Examples:
      atop backup /media/usb/pim-2026-01-31
    """
    with session.open_store() as store, session.output.progress("backing up") as progress:
        store.backup(target, progress=progress.update)
        number = store.head.number
    session.output.result(
        {"backup": str(target), "commit": number},
        f"backed up {store.path} to {target}, up to commit {number}",
    )


@click.command("restore", cls=StoreCommand)
@click.argument("backup", metavar="BACKUP", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Move the store that is there aside.")
@pass_session
def restore_command(session: Session, backup: Path, force: bool) -> None:
    """Make the store anew from a backup.

    BACKUP is a directory that `atop backup` wrote; it is verified first. A store that is there already is
    replaced only with --force, and moved aside: the message says where it is.

    \b
    Examples:
      atop --store ~/pim restore /media/usb/pim-2026-01-31
    """
    with session.output.progress("restoring"):
        aside = restore(backup, session.store_path, force=force)
    with session.open_store() as store:
        number = store.head.number
    moved = f"; the store that was there is now {aside}" if aside else ""
    session.output.result(
        {
            "store": str(store.path),
            "backup": str(backup),
            "commit": number,
            "moved": str(aside) if aside else None,
        },
        f"restored {store.path} from {backup}, up to commit {number}{moved}",
    )


@click.command("verify", cls=StoreCommand)
@pass_session
def verify_command(session: Session) -> None:
    """Check every page, record, index and file of the store.

    Each problem is named; the exit code is 1 if there is one.

    \b
    Examples:
      atop verify
    """
    with session.open_store() as store, session.output.progress("verifying") as progress:
        report = store.verify(progress=progress.update)
    checked = {"items": report.items, "commits": report.commits, "files": report.files}
    missing = f"; {many(report.files_missing, 'file')} still to come" if report.files_missing else ""
    verdict = f"found {many(len(report.problems), 'problem')}" if report.problems else "no problems found"
    extent = ", ".join(many(count, noun[:-1]) for noun, count in checked.items())
    session.output.result(
        {"store": str(store.path), "problems": report.problems, **checked, "files_missing": report.files_missing},
        *map(plain, report.problems),
        f"{verdict} ({extent}{missing})",
    )
    if report.problems:
        session.exit_code = FAILED
        session.output.note("restore a backup: atop restore BACKUP --force")


@click.command("compact", cls=StoreCommand)
@click.option("--keep", metavar="DAYS", type=Count(), help="Keep that many days of history [default: 400].")
@pass_session
def compact_command(session: Session, *, keep: int | None) -> None:
    """Give disk space back.

    Removes old history and the contents of files that nothing names, and gives back empty pages. What has
    left the history can no longer be undone. Contents younger than an hour are kept, since a program may be
    about to name them; a later compact removes them. In a group of devices, contents are removed only while
    all of them can be asked whether they name them.

    \b
    Examples:
      atop compact
      atop compact --keep 30
    """
    kept = DEFAULT_KEEP if keep is None else datetime.timedelta(days=min(keep, datetime.timedelta.max.days))
    with session.open_store() as store, session.output.progress("compacting") as progress:
        report = store.compact(kept, progress=progress.step)
    session.output.result(
        {
            "store": str(store.path),
            "commits": report.commits,
            "files": report.files,
            "kept_files": report.kept,
            "kept_for_other_devices": report.elsewhere,
            "bytes": report.bytes,
        },
        f"gave back {size(report.bytes)}; removed {many(report.commits, 'commit')} from the history "
        f"and the contents of {many(report.files, 'file')}",
        *([f"kept the contents of {many(report.kept, 'file')} younger than an hour"] if report.kept else []),
        *(
            [f"kept the contents of {many(report.elsewhere, 'file')} that another device names, or may name"]
            if report.elsewhere
            else []
        ),
    )
