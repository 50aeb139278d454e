"""Showing how a device stands, once or until it is stopped: for `run`, `join --run` and `status --watch`."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from atop.cli.session import Session
from atop.cli.text import many, to_json

if TYPE_CHECKING:
    from replication import Device, DeviceStatus

# Seconds between two looks at how the device stands.
LOOK = 0.5


@contextlib.contextmanager
def stopping() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set, in the block."""
    stop = threading.Event()

    def end(number: int, frame: Any) -> None:
        stop.set()

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def told_by_status() -> Iterator[None]:
    """In the block the status is shown, and with it what discovery would log besides; what is unexpected is logged."""

    def is_unexpected(record: logging.LogRecord) -> bool:
        return record.exc_info is not None or record.levelno > logging.WARNING

    log = logging.getLogger("discovery.worker")
    log.addFilter(is_unexpected)
    try:
        yield
    finally:
        log.removeFilter(is_unexpected)


def fields_of(status: DeviceStatus) -> dict[str, Any]:
    """How a device stands, as --json shows it."""
    fields: dict[str, Any] = _plain(status)
    return {**fields, "summary": status.summary}


def _plain(value: Any) -> Any:
    if hasattr(value, "__dataclass_fields__"):
        return {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return to_json(value)


def lines_of(status: DeviceStatus) -> list[str]:
    """How a device stands, for a person: a line for the whole, and one for each other device."""
    role = status.role
    if status.grouped and status.master not in (None, status.name):
        role = f"{role}, {status.master} is master"
    lines = [f"device  {status.name} ({status.device_id[:7]})", f"role    {role}", f"state   {status.summary}"]
    for peer in status.peers:
        if peer.removed_at is not None:
            continue
        state = "not reachable"
        if peer.online:
            state = "in sync" if peer.in_sync else "catching up"
            lag = f", round trip {peer.round_trip * 1000:.1f} ms" if peer.round_trip is not None else ""
            way = f" through {peer.through}" if peer.through is not None else ""
            state += f" ({peer.role or 'unknown'}{way}{lag})"
        lines.append(f"        {peer.name}: {state}")
    if status.files.missing:
        lines.append(f"files   the contents of {many(status.files.missing, 'file')} have not come yet")
    if status.conflicts:
        lines.append(f"        {many(status.conflicts, 'value')} put aside: atop conflicts")
    return [*lines, *(f"problem {problem}" for problem in status.problems)]


def watch(session: Session, device: Device, stop: threading.Event) -> None:
    """Say how the device stands, in a line, whenever that changes, until it is to stop."""
    told: tuple[Any, ...] = ()
    while not stop.is_set():
        status = device.status()
        now: tuple[Any, ...] = (status.role, status.master, status.summary, status.problems)
        if session.output.json:
            now = (*now, status.commit)
        if now != told:
            follows = status.role == "replica" and status.master not in (None, status.name)
            role = f"replica of {status.master}" if follows else status.role
            session.output.result(fields_of(status), f"{role}: {status.summary}", *new_problems(status, told))
            session.output.flush()
            told = now
        stop.wait(LOOK)


def new_problems(status: DeviceStatus, told: tuple[Any, ...]) -> list[str]:
    """The problems that were not told before."""
    before = told[3] if told else ()
    return [f"  {problem}" for problem in status.problems if problem not in before]
