"""Backup, verify, compact: done by the process that owns the store, whoever asks for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atop import backup as backups
from atop import maintenance
from atop import verify as verifying
from atop.maintenance import CompactReport
from atop.verify import VerifyReport

if TYPE_CHECKING:
    from atop.store import Store

BACKUP, VERIFY, COMPACT = "atop.backup", "atop.verify", "atop.compact"

Tell = Callable[..., None] | None


def provide(store: Store) -> None:
    """Offer to other processes what is done for them."""

    def back_up_here(target: str, progress: Tell) -> None:
        back_up(store, Path(target), progress)

    def verify_here(files: bool, progress: Tell) -> dict[str, Any]:
        return dataclasses.asdict(verify(store, files, progress))

    def compact_here(keep: timedelta, grace: float | None, progress: Tell) -> dict[str, Any]:
        return dataclasses.asdict(compact(store, keep, progress, grace))

    store.provide(BACKUP, back_up_here)
    store.provide(VERIFY, verify_here)
    store.provide(COMPACT, compact_here)


def back_up(store: Store, target: Path, progress: Callable[[int, int], None] | None) -> None:
    """See `Store.backup`."""
    if store._tenure.attached is not None:
        store.ask(BACKUP, target=str(target), progress=progress)
        return
    with store._caring:
        backups.back_up(store, target, progress)


def verify(store: Store, files: bool, progress: Callable[[int, int], None] | None) -> VerifyReport:
    """See `Store.verify`."""
    if store._tenure.attached is not None:
        return VerifyReport(**store.ask(VERIFY, files=files, progress=progress))
    return verifying.verify(store, files=files, progress=progress)


def compact(
    store: Store, keep: timedelta, progress: Callable[[str], None] | None, grace: float | None
) -> CompactReport:
    """See `Store.compact`."""
    if store._tenure.attached is not None:
        return CompactReport(**store.ask(COMPACT, keep=keep, grace=grace, progress=progress))
    return maintenance.compact(store, keep, progress, grace)
