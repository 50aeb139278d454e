"""Many threads, large transactions and slow watchers get along; nobody sees half of what another does."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from atop import Commit, Item, Store, StoreClosed, TransactionTooLarge, engine, environment, watching
from atop.engine import ITEMS
from atop.records import pack_u64

CACHE = 4 << 20
PATIENCE = 20.0  # seconds after which a test that waits has failed


class Account(Item, type_name="crowds.Account"):
    balance: int = 0
    name: str = ""


# -- threads


@pytest.mark.slow
def test_nobody_ever_sees_half_a_commit(store: Store) -> None:
    """Money moves between accounts; whoever adds it all up in a transaction finds the same sum, query or not."""
    pool = store.pool("accounts", indexes=["balance"])
    with store.transaction():
        accounts = [Account(store, balance=100) for _ in range(40)]
        for account in accounts:
            pool.add(account)
    stop = threading.Event()

    def move(seed: int) -> int:
        chance, moved = random.Random(seed), 0
        while not stop.is_set():
            one, other = chance.sample(accounts, 2)

            def transfer(one: Account = one, other: Account = other) -> None:
                one.balance -= 1
                other.balance += 1

            store.transact(transfer)
            moved += 1
        return moved

    def add_up() -> int:
        sums = 0
        for _ in range(150):
            assert store.transact(lambda: sum(account.balance for account in accounts)) == 4_000
            assert store.transact(lambda: sum(account.balance for account in pool.query("balance"))) == 4_000
            assert store.transact(lambda: len(list(pool.query("balance")))) == 40
            sums += 1
        return sums

    with ThreadPoolExecutor(6) as threads:
        movers = [threads.submit(move, seed) for seed in range(3)]
        readers = [threads.submit(add_up) for _ in range(3)]
        try:
            assert [reader.result() for reader in readers] == [150, 150, 150]
        finally:
            stop.set()
        assert all(mover.result() for mover in movers)
    assert sum(account.balance for account in accounts) == 4_000
    assert store.verify().problems == []


@pytest.mark.slow
def test_of_64_threads_that_count_one_item_up_none_is_lost(store: Store) -> None:
    counter = Account(store)

    def count(turns: int) -> None:
        def up() -> None:
            counter.balance += 1

        for _ in range(turns):
            store.transact(up)

    with ThreadPoolExecutor(64) as threads:
        for done in [threads.submit(count, 10) for _ in range(64)]:
            done.result()
    assert counter.balance == 640
    assert sum(1 for _ in store.history()) == 641


def test_a_reader_that_is_ended_to_break_a_deadlock_reads_again(store: Store) -> None:
    """It stands on a page that a commit wants, and wants one that the commit has."""
    with store.transaction():
        accounts = [Account(store, name="x" * 900) for _ in range(100)]
    keys = [pack_u64(account.item_id) for account in accounts]
    reading, writing = threading.Event(), threading.Event()
    reads: list[int] = []
    inner = store._engine

    def read() -> int:
        reads.append(1)
        cursor = inner._tables[ITEMS].cursor()
        try:
            found, pair = 0, cursor.set_range(keys[0])
            reading.set()
            assert writing.wait(PATIENCE)
            while pair is not None:
                found += 1
                pair = cursor.next()
        finally:
            cursor.close()
        return found

    def write() -> None:
        txn = inner._env.txn_begin()
        for number in reversed(range(100)):
            inner._items.put(keys[number], b"written", txn)
            if number == 10:
                writing.set()
        txn.commit()

    with ThreadPoolExecutor(2) as threads:
        reader = threads.submit(inner._call, ITEMS, read)
        assert reading.wait(PATIENCE)
        threads.submit(write).result(PATIENCE)
        assert reader.result(PATIENCE) == 100
    assert len(reads) > 1


# -- large transactions


@pytest.fixture
def few_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "MAX_LOCKS", 500)


@pytest.mark.slow
def test_a_transaction_of_100_000_items_commits(store: Store) -> None:
    pool = store.pool("accounts", indexes=["name", "balance"])
    with store.transaction():
        for number in range(100_000):
            pool.add(Account(store, balance=-number, name=f"{number * 7919 % 100_000}"))
    assert len(pool) == 100_000

    def touch_all() -> None:
        for account in pool:
            account.balance += 1

    store.transact(touch_all)
    assert next(pool.query("balance", reverse=True)).balance == 1
    assert len(next(store.history()).changes) == 100_000


def test_a_transaction_past_the_locks_there_are_says_so_and_the_store_goes_on(
    few_locks: None, open_store: Callable[[], Store]
) -> None:
    store = open_store()
    account = Account(store, balance=1)
    with pytest.raises(TransactionTooLarge, match="split it"), store.transaction():
        account.balance = 2
        for number in range(10_000):
            Account(store, name=f"{number:0500}")
    assert account.balance == 1
    assert len(list(store.items())) == 1
    account.balance = 3
    assert store.verify().problems == []


@pytest.mark.slow
def test_readers_wait_for_locks_that_a_large_transaction_has_taken(
    few_locks: None, open_store: Callable[[], Store]
) -> None:
    store = open_store()
    accounts = [Account(store, name=f"{number}") for number in range(50)]
    stop = threading.Event()

    def read() -> int:
        reads = 0
        while not stop.is_set():
            for account in accounts:
                assert store._engine.get_item(pack_u64(account.item_id)) is not None
                reads += 1
        return reads

    with ThreadPoolExecutor(2) as threads:
        readers = [threads.submit(read) for _ in range(2)]
        try:
            for _ in range(3):
                with pytest.raises(TransactionTooLarge), store.transaction():
                    for number in range(10_000):
                        Account(store, name=f"{number:0500}")
        finally:
            stop.set()
        assert all(reader.result() for reader in readers)


def test_a_transaction_of_too_many_records_is_refused_before_it_is_applied(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "MAX_OPERATIONS", 100)
    with pytest.raises(TransactionTooLarge, match="101 records"), store.transaction():
        for _ in range(101):
            Account(store)
    assert list(store.items()) == []


# -- watchers


def waited(condition: Callable[[], bool]) -> bool:
    """Whether a condition comes to hold; what it needs is done by another thread."""
    for _ in range(int(PATIENCE * 1_000)):
        if condition():
            return True
        threading.Event().wait(0.001)
    return False


def test_a_watcher_may_use_the_store_and_sees_what_it_does_itself(store: Store) -> None:
    account = Account(store)
    seen: list[str] = []

    def answer(commit: Commit) -> None:
        seen.append(commit.label)
        if commit.label == "question":
            with store.transaction("answer"):
                account.balance = 42

    with store.watch(answer):
        with store.transaction("question"):
            account.balance = 1
        assert waited(lambda: seen == ["question", "answer"])
    assert account.balance == 42


def test_a_watcher_that_closes_itself_is_called_no_more(store: Store) -> None:
    seen: list[int] = []
    with store.transaction():
        pass

    def once(commit: Commit) -> None:
        seen.append(commit.number)
        watch.close()

    others: list[int] = []
    watch = store.watch(once)
    with store.watch(lambda commit: others.append(commit.number)):
        for _ in range(20):
            Account(store)
        assert waited(lambda: others == list(range(1, 21)))
    assert seen == [1]


@pytest.mark.parametrize("error", [RuntimeError, SystemExit, KeyboardInterrupt, GeneratorExit])
def test_a_watcher_that_raises_anything_is_called_again(store: Store, error: type[BaseException]) -> None:
    seen: list[int] = []

    def fail(commit: Commit) -> None:
        seen.append(commit.number)
        raise error

    with store.watch(fail):
        for _ in range(3):
            Account(store)
        assert waited(lambda: seen == [1, 2, 3])


def test_a_watcher_may_close_the_store(store_path: Path) -> None:
    store = Store(store_path, cache_size=CACHE)
    closed = threading.Event()

    def close(commit: Commit) -> None:
        store.close()
        closed.set()

    store.watch(close)
    Account(store)
    assert closed.wait(PATIENCE)
    with pytest.raises(StoreClosed):
        Account(store)
    with Store(store_path) as store:
        assert len(list(store.items())) == 1


def test_a_watcher_that_hangs_does_not_keep_the_store_open(
    store_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(watching, "PATIENCE", 0.05)
    called, let_go = threading.Event(), threading.Event()

    def hang(commit: Commit) -> None:
        called.set()
        let_go.wait(PATIENCE)

    with Store(store_path) as store:
        store.watch(hang)
        Account(store)
        assert called.wait(PATIENCE)
    let_go.set()
    assert "has not come back" in caplog.text
    with Store(store_path) as store:
        assert len(list(store.items())) == 1


def test_a_watcher_that_is_slower_than_the_journal_is_kept_goes_on_with_what_is_left(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    from datetime import timedelta

    seen: list[int] = []
    called, let_go = threading.Event(), threading.Event()

    def slow(commit: Commit) -> None:
        seen.append(commit.number)
        called.set()
        let_go.wait(PATIENCE)

    with store.watch(slow):
        Account(store)
        assert called.wait(PATIENCE)
        for _ in range(200):
            Account(store)
        store.compact(keep=timedelta(0))
        let_go.set()
        last = Account(store).version
        assert waited(lambda: seen[-1] == store.commit(last).number)
    assert seen[0] == 1
    assert seen == sorted(seen)
    assert "missed commits" in caplog.text
