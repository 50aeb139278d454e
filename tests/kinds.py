"""The ways in which a program can have a store: what holds for one, holds for all.

Modules of tests that are marked `every_kind` run once for each kind of `OPENERS` that the mark names: with a store that
this process owns, with one that another process owns, on the master of a group of devices, on a replica, and attached
to a process that is a replica. Without names they run embedded and attached; with `pytest --kind replica`, all of them
run on a replica.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from victims import Say, Victim

from atop import Store

CACHE = 4 << 20  # memory for pages, in bytes: small stores need little, and opening is faster

Open = Callable[[], Store]
DEFAULT = ("embedded", "attached")


@contextlib.contextmanager
def embedded(path: Path) -> Iterator[Open]:
    """A store that the process of the test owns."""
    yield lambda: Store(path, cache_size=CACHE)


@contextlib.contextmanager
def attached(path: Path) -> Iterator[Open]:
    """A store that another process owns, and that is whole at the end."""
    with _owned_elsewhere(path, embedded) as open_attached:
        yield open_attached


@contextlib.contextmanager
def master(path: Path) -> Iterator[Open]:
    """A store on the device that commits for its group, which a replica follows."""
    with _group(path, path, path.with_name("other")) as open_store:
        yield open_store


@contextlib.contextmanager
def replica(path: Path) -> Iterator[Open]:
    """A store on a device whose commits go to the master, and come back."""
    with _group(path, path.with_name("other"), path) as open_store:
        yield open_store


@contextlib.contextmanager
def attached_to_replica(path: Path) -> Iterator[Open]:
    """A store that another process owns, as a replica."""
    with _owned_elsewhere(path, replica) as open_attached:
        yield open_attached


OPENERS: dict[str, Callable[[Path], AbstractContextManager[Open]]] = {
    kind.__name__: kind for kind in (embedded, attached, master, replica, attached_to_replica)
}


@contextlib.contextmanager
def _owned_elsewhere(path: Path, kind: Callable[[Path], AbstractContextManager[Open]]) -> Iterator[Open]:
    owner = Victim(lambda say: _own(path, kind, say))
    try:
        assert owner.line() == "open"

        def open_attached() -> Store:
            store = Store(path, cache_size=CACHE)
            assert store.owner_pid == owner.pid
            return store

        yield open_attached
        os.kill(owner.pid, signal.SIGTERM)
    except BaseException:
        owner.kill()
        raise
    finally:
        owner.wait()


def _own(path: Path, kind: Callable[[Path], AbstractContextManager[Open]], say: Say) -> None:
    """Have a store open until the test has done with it."""
    done = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: done.set())
    with kind(path) as open_store, open_store() as store:
        say("open")
        done.wait()
        assert store.verify().problems == []


@contextlib.contextmanager
def _group(path: Path, first: Path, second: Path) -> Iterator[Open]:
    """Two devices in this process; the first one is master when the store at `path` is opened."""
    from grouping import Group
    from waiting import until

    group = Group(path.parent)

    def open_store() -> Store:
        for name in (path.name, *(machine for machine in group.machines if machine != path.name)):
            if name in group.machines:
                group.machines[name].close()
        leading, following = group.start(first.name, size=1), group.start(second.name, size=2)
        until(lambda: leading.manager.is_master and not following.manager.is_master)
        return group.machines[path.name].store

    try:
        yield open_store
    finally:
        group.close()
