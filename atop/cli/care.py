"""`atop backup`, `restore`, `verify` and `compact`: keeping a store safe and small."""

from __future__ import annotations

from pathlib import Path

import click

from atop.cli.session import FAILED, Session, StoreCommand, pass_session
from atop.cli.text import many, plain, size


@click.command("backup", cls=StoreCommand)
@click.argument("target", metavar="TARGET", type=click.Path(path_type=Path))
@pass_session
def backup_command(session: Session, target: Path) -> None:
    """Copy the store to the directory TARGET, while it is in use.

    The copy is complete in itself, files included, as of one commit. `atop restore TARGET` puts it back.

    \b
    Examples:
      atop backup /media/usb/pim-2026-01-31
    """
    with session.open_store() as store, session.output.progress("backing up") as progress:
        store.backup(target, progress=progress)
        number, _ = store.head
    session.output.result(
        {"backup": str(target), "commit": number},
        f"backed up {store.path} to {target}, up to commit {number}",
    )


@click.command("restore", cls=StoreCommand)
@click.argument("backup", metavar="BACKUP", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Replace the store that is there.")
@pass_session
def restore_command(session: Session, backup: Path, force: bool) -> None:
    """Make the store anew from BACKUP, a directory that `atop backup` wrote.

    A store that is there already is replaced only with --force.

    \b
    Examples:
      atop --store ~/pim restore /media/usb/pim-2026-01-31
    """
    from atop import restore

    restore(backup, session.store_path, force=force)
    with session.open_store() as store:
        number, _ = store.head
    session.output.result(
        {"store": str(session.store_path), "backup": str(backup), "commit": number},
        f"restored {session.store_path} from {backup}, up to commit {number}",
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
        report = store.verify(progress=progress)
    problems = [str(problem) for problem in report.problems]
    verdict = f"found {many(len(problems), 'problem')}" if problems else "no problems found"
    session.output.result({"store": str(store.path), "problems": problems}, *map(plain, problems), verdict)
    if problems:
        session.exit_code = FAILED
        session.output.note("restore a backup: atop restore BACKUP --force")


@click.command("compact", cls=StoreCommand)
@pass_session
def compact_command(session: Session) -> None:
    """Give back the disk space that deleted and changed items have left behind.

    \b
    Examples:
      atop compact
    """
    with session.open_store() as store, session.output.progress("compacting") as progress:
        freed = store.compact(progress=progress)
    session.output.result({"store": str(store.path), "freed": freed}, f"gave back {size(freed)}")
