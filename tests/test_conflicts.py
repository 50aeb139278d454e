"""Conflicts: a transaction never acts on a mixture of two states, and `transact` tries again."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from atop import Conflict, Item, Pool, Store, transacted

pytestmark = pytest.mark.every_kind("embedded", "attached", "replica")


class Account(Item):
    name: str = ""
    balance: int = 0
    tags: list[str] = []

    @transacted
    def pay(self, other: Account, amount: int) -> int:
        self.balance -= amount
        other.balance += amount
        return self.balance


class Failure(Exception):
    pass


def in_thread(function: Callable[[], object]) -> None:
    """Run `function` in another thread, and wait for it; what it raises is raised here."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(function).result()


# -- conflicts


def test_a_change_elsewhere_of_what_was_read_is_a_conflict_that_names_the_item(store: Store, conflicting) -> None:
    read, written = Account(store), Account(store)
    with conflicting() as caught:
        written.balance = read.balance + 1
        in_thread(lambda: setattr(read, "balance", 5))
    assert caught.value.item_id == read.item_id
    assert f"item {read.item_id}" in str(caught.value)
    assert (read.balance, written.balance) == (5, 0)


def test_reading_again_what_has_changed_meanwhile_is_a_conflict_at_once(store: Store, conflicting) -> None:
    account = Account(store)
    with conflicting():
        assert account.balance == 0
        in_thread(lambda: setattr(account, "balance", 5))
        with pytest.raises(Conflict):
            account.balance  # noqa: B018
        with pytest.raises(Conflict):
            account.balance = 1


def test_a_transaction_that_only_reads_is_checked_too(store: Store, conflicting) -> None:
    one, two = Account(store, balance=10), Account(store, balance=10)
    with conflicting():
        total = one.balance
        in_thread(lambda: one.pay(two, 5))
        total += two.balance
        assert total == 25  # a mixture: the transaction must not end well


def test_a_query_whose_items_move_away_under_it_is_a_conflict(store: Store, conflicting) -> None:
    pool = store.pool("accounts", indexes=["balance"])
    one, two = Account(store, balance=10), Account(store, balance=20)
    pool.add(one)
    pool.add(two)
    with conflicting():
        found = pool.query("balance")
        assert next(found) == one
        in_thread(lambda: setattr(two, "balance", 5))
        assert list(found) == []  # it is in the pool, and at neither place: the transaction must not end well


def test_changes_elsewhere_of_other_items_are_no_conflict(store: Store) -> None:
    one, two = Account(store), Account(store)
    with store.transaction():
        one.balance = 1
        in_thread(lambda: setattr(two, "balance", 2))
    assert (one.balance, two.balance) == (1, 2)


def test_a_name_that_another_has_given_meanwhile_is_a_conflict(store: Store) -> None:
    turns = []

    def make() -> Pool:
        pool = store.pool("people")
        if not turns:
            turns.append(1)
            in_thread(lambda: store.pool("people"))
        return pool

    pool = store.transact(make)
    assert list(store.items()) == list(store.pools()) == [pool]


def test_a_member_added_elsewhere_conflicts_with_the_deletion_of_the_pool(store: Store, conflicting) -> None:
    pool, account = store.pool("people"), Account(store)
    with conflicting():
        pool.delete()
        in_thread(lambda: pool.add(account))
    assert list(pool) == [account]
    assert store.verify().problems == []


def test_two_that_create_the_same_named_pool_get_the_same_one(store: Store) -> None:
    def make() -> object:
        return store.transact(lambda: store.pool("people", indexes=["name"]))

    with ThreadPoolExecutor(4) as executor:
        pools = {f.result() for f in [executor.submit(make) for _ in range(8)]}
    assert len(pools) == 1
    assert len(list(store.pools())) == 1


# -- transact


def test_transact_returns_what_the_function_does_and_labels_it(store: Store) -> None:
    account = Account(store)

    def deposit(amount: int, *, twice: bool) -> int:
        account.balance += amount * (2 if twice else 1)
        return account.balance

    assert store.transact(deposit, 5, twice=True) == 10
    assert next(store.history()).label == "deposit"
    store.transact(deposit, 1, twice=False, label="interest")
    assert next(store.history()).label == "interest"


def test_transact_runs_again_after_a_conflict(store: Store) -> None:
    account = Account(store)
    seen = []

    def increment() -> None:
        seen.append(account.balance)
        if len(seen) < 3:
            in_thread(lambda: setattr(account, "balance", account.balance + 10))
        account.balance += 1

    store.transact(increment)
    assert seen == [0, 10, 20]
    assert account.balance == 21


def test_transact_does_not_run_again_after_another_error(store: Store) -> None:
    runs = []

    def fail() -> None:
        runs.append(1)
        raise Failure

    with pytest.raises(Failure):
        store.transact(fail)
    assert runs == [1]


def test_transact_within_a_transaction_is_a_savepoint_and_leaves_retrying_to_the_outer_one(store: Store) -> None:
    account = Account(store)
    runs = []

    def inner() -> None:
        runs.append(account.balance)
        account.balance = 1
        if len(runs) == 1:
            in_thread(lambda: setattr(account, "name", "changed"))

    def outer() -> None:
        store.transact(inner)

    store.transact(outer)
    assert (len(runs), account.balance, account.name) == (2, 1, "changed")


def test_a_transacted_method_runs_in_a_transaction_of_its_item(store: Store) -> None:
    one, two = Account(store, balance=10), Account(store)
    before = store.head.number
    assert one.pay(two, 3) == 7
    assert (one.balance, two.balance, store.head.number) == (7, 3, before + 1)
    assert next(store.history()).label == "pay"


def test_a_transacted_function_takes_the_store_and_any_names(store: Store) -> None:
    @transacted
    def make(store: Store, *, label: str, function: str) -> Account:
        return Account(store, name=label + function)

    assert make(store, label="a", function="b").name == "ab"
    with pytest.raises(TypeError, match="first argument of make"):
        make("no store", label="", function="")


def test_coroutines_and_generators_cannot_be_transacted() -> None:
    async def coroutine(store: Store) -> None: ...

    def generator(store: Store):
        yield

    for function in (coroutine, generator):
        with pytest.raises(TypeError, match=r"with store\.transaction"):
            transacted(function)


def test_a_coroutine_is_not_run_by_transact_because_it_would_run_later(store: Store) -> None:
    async def coroutine() -> None: ...

    with pytest.raises(TypeError, match=r"use `with store\.transaction"):
        store.transact(coroutine)


# -- many at once


def test_money_is_neither_made_nor_lost_when_threads_move_it(store: Store) -> None:
    accounts = [Account(store, balance=100) for _ in range(4)]
    failures: list[BaseException] = []
    done = threading.Event()

    def move(seed: int) -> None:
        for turn in range(40):
            source, target = accounts[(seed + turn) % 4], accounts[(seed * 3 + turn * 2 + 1) % 4]
            if source is not target:
                source.pay(target, turn)

    def audit() -> None:
        while not done.is_set():
            total = store.transact(lambda: sum(a.balance for a in accounts))
            if total != 400:
                failures.append(AssertionError(f"a mixture: {total}"))

    auditor = threading.Thread(target=audit)
    auditor.start()
    with ThreadPoolExecutor(3) as executor:
        for future in [executor.submit(move, seed) for seed in range(3)]:
            future.result()
    done.set()
    auditor.join()
    assert failures == []
    assert sum(a.balance for a in accounts) == 400
    assert store.verify().problems == []


def test_counting_threads_lose_no_increment(store: Store) -> None:
    account = Account(store)

    def increment() -> None:
        account.balance += 1

    with ThreadPoolExecutor(4) as executor:
        for future in [executor.submit(store.transact, increment) for _ in range(100)]:
            future.result()
    assert account.balance == 100


def test_readers_see_a_commit_whole_or_not_at_all_in_queries(store: Store) -> None:
    """Each commit passes the key on from one member to the next: no query in a transaction finds two that have it."""
    pool = store.pool("tokens", indexes=["has"])
    items = [Item(store, has=n == 0) for n in range(5)]
    for item in items:
        pool.add(item)
    stop = threading.Event()

    def pass_on() -> None:
        for turn in range(150):
            with store.transaction():
                items[turn % 5].has = False
                items[(turn + 1) % 5].has = True
        stop.set()

    thread = threading.Thread(target=pass_on)
    thread.start()
    while not stop.is_set():
        holders = store.transact(lambda: [i for i in pool.query("has", key=True) if i.has])
        assert len(holders) <= 1
    thread.join()
    assert list(pool.query("has", key=True)) == [items[0]]


def test_what_was_written_is_read_at_once_however_often(store: Store) -> None:
    account = Account(store)
    for balance in range(1, 60):
        account.balance = balance
        assert account.balance == balance
        assert store.head.number == balance + 1
