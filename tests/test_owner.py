"""One process owns a store, from opening to closing, and opens it once; nothing of it gets out with a fork."""

from __future__ import annotations

import gc
import os
import random
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from victims import Say, Victim

from atop import (
    Conflict,
    Item,
    NoSuchStore,
    Store,
    StoreBusy,
    StoreClosed,
    StoreDamaged,
    StoreError,
)

CACHE = 4 << 20


class Page(Item, type_name="owner.Page"):
    number: int = 0
    text: str = ""


def hold(path: Path, say: Say) -> None:
    """Open a store, say so, and keep it until killed."""
    store = Store(path, cache_size=CACHE)
    say(str(Page(store, number=7).item_id))
    threading.Event().wait()


# -- one owner


def test_a_store_whose_owner_was_killed_opens_at_once(store_path: Path) -> None:
    owner = Victim(lambda say: hold(store_path, say))
    item_id = int(owner.line())
    owner.kill()
    owner.wait()
    with Store(store_path) as store:
        assert store.get(item_id).number == 7
        assert store.verify().problems == []


def test_a_second_opening_in_one_process_is_refused_by_whatever_path(store_path: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(store_path)
    with Store(store_path) as store:
        for path in (store_path, tmp_path / "link", store_path.parent / "." / store_path.name):
            with pytest.raises(StoreBusy, match="this process"):
                Store(path)
        Page(store)
    with Store(tmp_path / "link") as store:
        assert len(list(store.items())) == 1


def test_a_store_that_was_moved_while_it_is_open_is_still_taken(store_path: Path, tmp_path: Path) -> None:
    with Store(store_path) as store:
        page = Page(store, number=1)
        moved = store_path.with_name("moved")
        store_path.rename(moved)
        with pytest.raises(StoreBusy):
            Store(moved)
        with Store(store_path) as another:
            assert list(another.items()) == []
        moved.rename(store_path.with_name("back"))
        assert page.number == 1


def test_an_opening_that_fails_leaves_the_store_to_others(store_path: Path) -> None:
    with Store(store_path):
        pass
    table = store_path / "data" / "index.db"
    kept = table.read_bytes()
    table.unlink()
    for _ in range(3):
        with pytest.raises(StoreDamaged):
            Store(store_path)
    table.write_bytes(kept)
    with Store(store_path) as store:
        Page(store)


@pytest.mark.parametrize("kind", ["file", "link to a file", "link to nothing", "below a file", "another directory"])
def test_what_is_no_store_is_left_alone(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "path"
    (tmp_path / "file").write_text("mine")
    if kind == "file":
        path = tmp_path / "file"
    elif kind == "link to a file":
        path.symlink_to(tmp_path / "file")
    elif kind == "link to nothing":
        path.symlink_to(tmp_path / "nothing")
    elif kind == "below a file":
        path = tmp_path / "file" / "store"
    else:
        path.mkdir()
        (path / "photo.jpg").write_text("mine")
    before = sorted(str(p) for p in tmp_path.rglob("*"))
    with pytest.raises((NoSuchStore, StoreError)):
        Store(path)
    with pytest.raises((NoSuchStore, StoreError)):
        Store(path, create=False)
    assert sorted(str(p) for p in tmp_path.rglob("*")) == before


# -- forks


def test_a_forked_child_cannot_use_the_store_and_harms_nothing(store_path: Path) -> None:
    with Store(store_path, cache_size=CACHE) as store:
        page = Page(store, number=1)
        held = page.number
        pool = store.pool("pages")

        def meddle(say: Say) -> None:
            for attempt in (
                lambda: store.get(page.item_id + 1_000),
                lambda: Page(store),
                lambda: setattr(page, "number", 2),
                lambda: list(pool),
                lambda: store.file(b"x"),
                lambda: store.backup(store_path.with_name("backup")),
                store.verify,
                store.compact,
                lambda: store.watch(print),
                lambda: list(store.history()),
            ):
                with pytest.raises(StoreClosed, match="forked"):
                    attempt()
            store.close()
            with Store(store_path) as own:  # what a child may do is open the store for itself
                assert own.owner_pid == os.getppid()
                assert own.get(page.item_id).number == held
            say("done")

        for _ in range(3):
            held = page.number
            assert Victim(meddle).wait() == ["done"]
            page.number += 1
        assert page.number == 4
        assert store.verify().problems == []
    with Store(store_path) as store:
        assert store.get(page.item_id).number == 4


def test_a_child_that_ends_like_any_program_writes_nothing_into_its_parents_store(store_path: Path) -> None:
    """Its interpreter destroys the handles that it has inherited."""
    program = f"""if True:
        import os, sys, threading
        from atop import Item, Store
        store = Store({str(store_path)!r}, durability="buffered")
        item = Item(store, text="x" * 1000)
        for number in range(20):
            item.number = number
            child = os.fork()
            if child == 0:
                item = None
                sys.exit(0)
            os.waitpid(child, 0)
        assert store.verify().problems == []
        store.close()
    """
    subprocess.run([sys.executable, "-c", program], check=True)
    with Store(store_path) as store:
        assert [item.number for item in store.items()] == [19]
        assert store.verify().problems == []


@pytest.mark.slow
def test_forks_in_the_middle_of_everything_disturb_nobody(store_path: Path) -> None:
    with Store(store_path, cache_size=CACHE) as store, ThreadPoolExecutor(3) as threads:
        stop = threading.Event()

        def write() -> int:
            page, count = Page(store), 0
            while not stop.is_set():
                page.text = f"{count}" * 500
                count += 1
            return count

        def child(say: Say) -> None:
            with pytest.raises(StoreClosed):
                Page(store)
            with pytest.raises(StoreClosed):
                store.get(10**9)
            gc.collect()
            say("done")

        working = [threads.submit(write) for _ in range(3)]
        try:
            for _ in range(10):
                assert Victim(child).wait() == ["done"]
        finally:
            stop.set()
        assert all(future.result() for future in working)
        assert store.verify().problems == []


def test_a_child_does_not_keep_the_store_from_being_opened_again(store_path: Path) -> None:
    def own_and_fork(say: Say) -> None:
        Store(store_path)
        if os.fork() == 0:
            say("child")
            threading.Event().wait(5)
            os._exit(0)
        threading.Event().wait()

    owner = Victim(own_and_fork)
    assert owner.line() == "child"
    owner.kill()
    os.waitpid(owner.pid, 0)
    with Store(store_path) as store:
        Page(store)
    owner._reader.close()


# -- closing


def test_after_closing_everything_raises_and_closing_again_does_not(store_path: Path) -> None:
    store = Store(store_path)
    page, pool = Page(store), store.pool("pages", indexes=["number"])
    pool.add(page)
    history = store.history()
    next(history)
    rest = iter(pool)
    store.close()
    store.close()
    for attempt in (
        lambda: Page(store),
        lambda: setattr(page, "number", 1),
        lambda: store.get(10**6),
        lambda: list(store.items()),
        lambda: list(store.history()),
        lambda: list(history),
        lambda: next(rest),
        lambda: store.file(b"x"),
        lambda: store.pool("another"),
        store.verify,
        store.compact,
        lambda: store.backup(store_path.with_name("backup")),
        lambda: store.watch(print),
    ):
        with pytest.raises(StoreClosed, match="is closed"):
            attempt()


def test_a_transaction_that_outlives_its_store_is_refused(store_path: Path) -> None:
    store = Store(store_path)
    page = Page(store, number=1)
    with pytest.raises(StoreClosed), store.transaction():
        page.number = 2
        store.close()
    with Store(store_path) as store:
        assert store.get(page.item_id).number == 1


@pytest.mark.slow
def test_closing_while_threads_read_and_commit_ends_each_with_store_closed(store_path: Path) -> None:
    """No crash, no hang; and whoever's commit returned has it."""
    chance = random.Random(1)
    numbers: dict[int, int] = {}
    for _ in range(20):
        store = Store(store_path, cache_size=CACHE)
        pool = store.pool("pages", indexes=["number"])
        started = threading.Barrier(7)

        def write(store: Store = store, pool=pool, started: threading.Barrier = started) -> None:
            page = Page(store)
            pool.add(page)
            started.wait()
            number = 0
            while True:
                number += 1
                page.number = number
                numbers[page.item_id] = number

        def read(store: Store = store, pool=pool, started: threading.Barrier = started) -> None:
            started.wait()
            while True:
                for page in pool.query("number"):
                    assert page.number >= 0
                list(store.history(limit=20))
                store.pool("pages").page("number")

        with ThreadPoolExecutor(6) as threads:
            futures = [threads.submit(work) for work in (write, write, write, read, read, read)]
            started.wait()
            threading.Event().wait(chance.uniform(0, 0.05))
            store.close()
            for future in futures:
                assert isinstance(future.exception(timeout=20), (StoreClosed, Conflict))
    with Store(store_path) as store:
        assert store.verify().problems == []
        for item_id, number in numbers.items():
            assert number <= store.get(item_id).number <= number + 1


def test_a_program_that_does_not_close_its_store_loses_nothing(store_path: Path) -> None:
    program = f"""if True:
        from atop import Item, Store
        store = Store({str(store_path)!r}, durability="buffered")
        with store.transaction():
            for number in range(100):
                Item(store, number=number)
    """
    subprocess.run([sys.executable, "-c", program], check=True)
    with Store(store_path) as store:
        assert sorted(item.number for item in store.items()) == list(range(100))
        assert Item(store).item_id == 101  # closed as it should be: no numbers are skipped


def test_ctrl_c_in_the_middle_of_anything_leaves_objects_and_store_in_step(store_path: Path) -> None:
    """Whatever a KeyboardInterrupt breaks off: it is done or not, memory says the same, and closing does not hang."""
    program = f"""if True:
        import random, signal, sys, threading, time
        from atop import Item, Store
        chance = random.Random({{seed}})
        store = Store({str(store_path)!r}, cache_size=1 << 20)
        pool = store.pool("things", indexes=["number"])
        item = next(iter(pool), None)
        if item is None:
            item = Item(store, number=0)
            pool.add(item)

        def interrupt(number, frame):
            raise KeyboardInterrupt

        signal.signal(signal.SIGALRM, interrupt)
        for turn in range(150):
            try:
                signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.0001, 0.003))
                while True:
                    number = item.number
                    with store.transaction(str(number + 1)):
                        item.number = number + 1
                    assert next(pool.query("number")).number == item.number
            except KeyboardInterrupt:
                signal.setitimer(signal.ITIMER_REAL, 0)
            held = item.number
            labels = [commit.label for commit in store.history(limit=3)]
            assert str(held) in labels[:1] or held == 0, (held, labels)
            assert item.version == next(iter(store.history())).commit_id or held == 0
        assert [commit.number for commit in store.history()] == list(range(store.head.number, 0, -1))
        assert store.verify().problems == []
        store.close()
        print("closed", item.number)
    """
    for seed in range(2):
        done = subprocess.run(
            [sys.executable, "-c", program.format(seed=seed)], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.stdout.startswith("closed"), done.stderr
