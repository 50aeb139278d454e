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
from hypothesis import settings
from kinds import DEFAULT, OPENERS

from atop import Conflict, Store

# A store's threads have names that begin so; an open store has at least one.
THREADS = "atop"
# Memory for pages, in bytes: small stores need little, and opening is faster.
CACHE = 4 << 20

# How long an example takes says what else the machine does.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in the background of a shell: what tests interrupt goes on
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("atop", deadline=None)
settings.load_profile("atop")


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


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--kind replica` runs the modules that are for every kind with that one alone."""
    parser.addoption("--kind", action="append", choices=[*OPENERS], help="the kind of store (see tests/kinds.py)")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the tests of modules that are marked so with every kind of store."""
    if "store_kind" in metafunc.fixturenames:
        kinds = ["embedded"]
        if (mark := metafunc.definition.get_closest_marker("every_kind")) is not None:
            kinds = metafunc.config.getoption("--kind") or [*(mark.args or DEFAULT)]
        if (mark := metafunc.definition.get_closest_marker("not_kinds")) is not None:
            kinds = [kind for kind in kinds if kind not in mark.args]
        metafunc.parametrize("store_kind", kinds, ids=kinds if len(kinds) > 1 else [pytest.HIDDEN_PARAM])


@pytest.fixture
def open_store(store_path: Path, store_kind: str) -> Iterator[Callable[[], Store]]:
    """Open the test's store; called again, close it first, so that what is read then comes from the disk."""
    opened: list[Store] = []
    with OPENERS[store_kind](store_path) as open_one:

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
