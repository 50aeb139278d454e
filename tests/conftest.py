"""What the tests share: a store of their own each, and a check that nothing is left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from browsing import chromium, screen, served  # noqa: F401 - fixtures
from victims import Say, Victim

from atop import Conflict, Store

# A store's threads have names that begin so; an open store has at least one.
THREADS = "atop"
# Memory for pages, in bytes: small stores need little, and opening is faster.
CACHE = 4 << 20


def _our_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith(THREADS)}


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Fail a test that leaves a store open or a thread of one running."""
    before = _our_threads()
    yield
    left = _our_threads() - before
    for thread in left:
        thread.join(timeout=5)
    alive = sorted(thread.name for thread in left if thread.is_alive())
    assert not alive, f"left running: {', '.join(alive)}: a store was not closed"


@pytest.fixture
def store_path(tmp_path: Path) -> Iterator[Path]:
    """Where a test may make a store: in memory where there is such a directory, because a flush there costs nothing."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path / "store"
        return
    with tempfile.TemporaryDirectory(prefix="atop-test-", dir=memory) as directory:
        yield Path(directory) / "store"


def _own(path: Path, say: Say) -> None:
    """Have a store open until the test has done with it."""
    done = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: done.set())
    with Store(path, cache_size=CACHE) as store:
        say("open")
        done.wait()
        assert store.verify().problems == []


@contextlib.contextmanager
def embedded(path: Path) -> Iterator[Callable[[], Store]]:
    """Stores that the process of the test owns."""
    yield lambda: Store(path, cache_size=CACHE)


@contextlib.contextmanager
def attached(path: Path) -> Iterator[Callable[[], Store]]:
    """Stores that another process owns, and that is whole at the end."""
    owner = Victim(lambda say: _own(path, say))
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


# The ways in which a program can have a store: what holds for one, holds for all. Modules marked `every_kind` run once
# for each, with `open_store` and all that stands on it.
KINDS = {"embedded": embedded, "attached": attached}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the tests of modules that are marked so with every kind of store."""
    if "store_kind" in metafunc.fixturenames:
        marks = [mark.name for mark in metafunc.definition.iter_markers()]
        kinds = (
            ["attached"]
            if os.environ.get("ATALL")
            else [*KINDS]
            if "every_kind" in marks and "embedded_only" not in marks
            else ["embedded"]
        )
        metafunc.parametrize("store_kind", kinds, ids=kinds if len(kinds) > 1 else [pytest.HIDDEN_PARAM])


@pytest.fixture
def open_store(store_path: Path, store_kind: str) -> Iterator[Callable[[], Store]]:
    """Open the test's store; called again, close it first, so that what is read then comes from the disk."""
    opened: list[Store] = []
    with KINDS[store_kind](store_path) as open_one:

        def open_again() -> Store:
            if opened:
                opened.pop().close()
            opened.append(open_one())
            return opened[0]

        yield open_again
        if opened:
            opened[0].close()


@pytest.fixture
def store(open_store: Callable[[], Store]) -> Store:
    """An empty store."""
    return open_store()


class Failure(Exception):
    """What goes wrong at the end of a transaction that a test wants undone."""


@pytest.fixture
def undone(store: Store) -> Callable[[], AbstractContextManager[None]]:
    """`with undone():` is a transaction that fails when its block has ended."""

    @contextlib.contextmanager
    def transaction() -> Iterator[None]:
        with contextlib.suppress(Failure), store.transaction():
            yield
            raise Failure

    return transaction


@pytest.fixture
def conflicting(store: Store) -> Callable[[], AbstractContextManager[pytest.ExceptionInfo[Conflict]]]:
    """`with conflicting() as caught:` is a transaction that ends, or fails before that, with a Conflict."""

    @contextlib.contextmanager
    def transaction() -> Iterator[pytest.ExceptionInfo[Conflict]]:
        with pytest.raises(Conflict) as caught, store.transaction():
            yield caught

    return transaction
