"""Transactions: all or nothing, for objects in memory too; each thread and task on its own; never on a mixture."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from atop import Conflict, Item, NoSuchItem, NoSuchPool, Store, StoreClosed, transacted


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


# -- all or nothing


def test_a_transaction_is_one_commit_with_its_label(store: Store) -> None:
    with store.transaction("two accounts"):
        Account(store)
        Account(store)
    commits = list(store.history())
    assert [(c.label, len(c.changes)) for c in commits] == [("two accounts", 2)]


def test_a_transaction_that_changes_nothing_is_no_commit(store: Store) -> None:
    account = Account(store)
    before = store.head
    with store.transaction():
        account.balance += 0
        assert account.balance == 0
    assert store.head == before


def test_an_exception_undoes_what_was_created_changed_and_deleted(store: Store, undone) -> None:
    pool = store.pool("accounts", indexes=["name"])
    kept, other = Account(store, name="kept"), Account(store, name="other")
    pool.add(kept)
    with undone():
        kept.name = "changed"
        other.delete()
        pool.add(Account(store, name="new"))
        pool.remove(kept)
        store.pool("another")
    assert (kept.name, other.name) == ("kept", "other")
    assert list(store.items()) == [pool, kept, other]
    assert list(pool.query("name")) == [kept]
    with pytest.raises(NoSuchPool):
        store.pool("another", create=False)


def test_an_item_made_in_a_transaction_that_failed_never_existed(store: Store, undone) -> None:
    with undone():
        account = Account(store)
    with pytest.raises(NoSuchItem):
        account.balance  # noqa: B018
    assert repr(account) == f"<Account {account.item_id}, deleted>"


def test_a_rollback_puts_back_the_lists_dicts_and_sets_that_the_program_holds(store: Store, undone) -> None:
    item = Item(store, many=[1, [2]], named={"a": {"b": 1}}, some={1})
    many, inner, named, deep, some = item.many, item.many[1], item.named, item.named["a"], item.some
    with undone():
        many.append(3)
        inner.append(4)
        named["c"] = 5
        deep.clear()
        some.add(6)
        many.pop(1)
    assert (many, inner, named, deep, some) == ([1, [2]], [2], {"a": {"b": 1}}, {"b": 1}, {1})
    assert many[1] is inner
    assert named["a"] is deep


def test_after_a_rollback_the_lists_that_the_program_holds_still_work(store: Store, undone) -> None:
    item = Item(store, data={"inner": [1]})
    inner = item.data["inner"]
    with undone():
        inner.append(2)
    inner.append(3)
    assert item.data == {"inner": [1, 3]}
    assert item.data["inner"] is inner


def test_a_list_held_by_the_program_is_the_one_that_the_item_shows_after_a_commit(store: Store) -> None:
    account = Account(store)
    tags = account.tags
    for tag in "abc":
        account.tags.append(tag)
    with store.transaction():
        account.tags.append("d")
    assert tags == ["a", "b", "c", "d"]
    assert account.tags is tags


def test_what_a_transaction_had_read_of_a_list_stays_good_after_it(store: Store, undone) -> None:
    account = Account(store, tags=["a"])
    for end in (store.transaction, undone):
        with end():
            tags = account.tags
        assert account.tags is tags


def test_a_change_of_a_list_may_fail_and_leaves_it_as_it_was(store: Store) -> None:
    account = Account(store, tags=["a"])
    tags = account.tags
    with pytest.raises(TypeError):
        tags.append(object())
    with pytest.raises(IndexError):
        tags.pop(7)
    assert tags == account.tags == ["a"]


def test_base_exceptions_undo_as_well(store: Store) -> None:
    account = Account(store)

    def interrupted() -> None:
        account.balance = 7
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.transact(interrupted)
    assert account.balance == 0


# -- its own view


def test_a_transaction_reads_what_it_has_written(store: Store) -> None:
    account = Account(store)
    with store.transaction():
        account.balance = 7
        assert account.balance == store.get(account.item_id).balance == 7
        new = Account(store, name="new")
        assert store.get(new.item_id) is new
        assert (new.version, new.type_name) == (0, f"{__name__}.Account")
        account.delete()
        with pytest.raises(NoSuchItem, match="in this transaction"):
            account.balance  # noqa: B018
        with pytest.raises(NoSuchItem):
            store.get(account.item_id)


def test_other_threads_do_not_see_a_transaction_before_its_commit(store: Store) -> None:
    account = Account(store)
    seen = []
    with store.transaction():
        account.balance = 7
        new = Account(store)
        in_thread(lambda: seen.append(account.balance))
        with pytest.raises(NoSuchItem):
            in_thread(lambda: store.get(new.item_id))
    in_thread(lambda: seen.append(account.balance))
    assert seen == [0, 7]


def test_threads_have_transactions_of_their_own(store: Store) -> None:
    one, two = Account(store), Account(store)

    def other() -> None:
        with store.transaction("inner"):
            two.balance = 2

    with store.transaction("outer"):
        one.balance = 1
        in_thread(other)
        assert two.balance == 2
    assert [c.label for c in store.history(2)] == ["outer", "inner"]


def test_transactions_of_two_stores_do_not_mix(store: Store, undone, tmp_path) -> None:
    with Store(tmp_path / "other") as other:
        here, there = Account(store), Account(other)
        with undone():
            here.balance = 1
            with other.transaction():
                there.balance = 2
                here.balance = 3
        assert (here.balance, there.balance) == (0, 2)


# -- asyncio


def test_tasks_have_transactions_of_their_own(store: Store) -> None:
    one, two = Account(store), Account(store)

    async def change(account: Account, mine: asyncio.Event, other: asyncio.Event) -> int:
        with store.transaction():
            account.balance = 1
            mine.set()
            await other.wait()
            return one.balance + two.balance

    async def main() -> list[int]:
        events = asyncio.Event(), asyncio.Event()
        return await asyncio.gather(change(one, *events), change(two, *events[::-1]))

    assert asyncio.run(main()) == [2, 1]  # the second ends first, and has not seen what the first was about to do


def test_a_task_started_within_a_transaction_is_not_part_of_it(store: Store) -> None:
    account = Account(store)

    async def look() -> int:
        return account.balance

    async def main() -> tuple[int, int]:
        with store.transaction():
            account.balance = 7
            return await asyncio.create_task(look()), await look()

    assert asyncio.run(main()) == (0, 7)


def test_to_thread_is_not_part_of_the_transaction(store: Store) -> None:
    account = Account(store)

    async def main() -> int:
        with store.transaction():
            account.balance = 7
            return await asyncio.to_thread(lambda: account.balance)

    assert asyncio.run(main()) == 0


def test_a_loop_run_within_a_transaction_is_not_part_of_it(store: Store, conflicting) -> None:
    account = Account(store)

    async def change() -> int:
        with store.transaction():
            seen = account.balance
            account.name = "by the task"
        return seen

    with conflicting():
        account.balance = 7
        assert asyncio.run(change()) == 0
        assert account.name == ""
    assert (account.balance, account.name) == (0, "by the task")


def test_a_transaction_may_span_awaits(store: Store) -> None:
    account = Account(store)

    async def main() -> None:
        with store.transaction():
            account.balance = 1
            await asyncio.sleep(0)
            account.balance += 1

    asyncio.run(main())
    assert account.balance == 2


# -- nested ones


def test_a_nested_transaction_joins_the_outer_one(store: Store) -> None:
    account = Account(store)
    before = store.head.number
    with store.transaction("outer"):
        with store.transaction("inner"):
            account.balance = 1
        account.name = "x"
        assert store.head.number == before
    assert [c.label for c in store.history(1)] == ["outer"]


def test_a_nested_transaction_is_a_savepoint(store: Store, undone) -> None:
    account, other = Account(store), Account(store)
    tags = account.tags
    with store.transaction():
        account.balance = 1
        tags.append("outer")
        with undone():
            account.balance = 2
            tags.append("inner")
            other.delete()
            new = Account(store)
        assert (account.balance, tags, other.balance) == (1, ["outer"], 0)
        with pytest.raises(NoSuchItem):
            new.balance  # noqa: B018
    assert (account.balance, account.tags, tags) == (1, ["outer"], ["outer"])
    assert list(store.items()) == [account, other]


def test_savepoints_nest_to_any_depth(store: Store, undone) -> None:
    item = Item(store, log=[])
    log = item.log
    with store.transaction():
        log.append(1)
        with store.transaction():
            log.append(2)
            with undone():
                log.append(3)
                with store.transaction():
                    log.append(4)
            log.append(5)
        with undone(), store.transaction():
            log.append(6)
    assert (item.log, log) == ([1, 2, 5], [1, 2, 5])


def test_what_a_released_savepoint_did_goes_with_the_outer_one(store: Store, undone) -> None:
    account = Account(store)
    with undone():
        with store.transaction():
            account.balance = 1
            account.tags.append("x")
        account.balance = 2
    assert (account.balance, account.tags) == (0, [])


def test_queries_see_savepoints_come_and_go(store: Store, undone) -> None:
    pool = store.pool("accounts", indexes=["name"])
    with store.transaction():
        pool.add(Account(store, name="a"))
        with undone():
            pool.add(Account(store, name="b"))
            next(pool.query("name")).name = "c"
            assert [a.name for a in pool.query("name")] == ["b", "c"]
        assert [a.name for a in pool.query("name")] == ["a"]
        assert len(pool) == 1


def test_a_transaction_object_may_be_used_again_after_it_ended(store: Store) -> None:
    account = Account(store)
    scope = store.transaction()
    with store.transaction(), scope:
        account.balance += 1
    with scope:
        account.balance += 1
    assert account.balance == 2
    assert len(list(account.history())) == 3


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


def test_changes_elsewhere_of_other_items_are_no_conflict(store: Store) -> None:
    one, two = Account(store), Account(store)
    with store.transaction():
        one.balance = 1
        in_thread(lambda: setattr(two, "balance", 2))
    assert (one.balance, two.balance) == (1, 2)


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
    """Each commit moves the only member that has the key: a query in a transaction finds just one."""
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


# -- the end


def test_a_transaction_that_outlives_the_store_fails_and_changes_nothing(open_store) -> None:
    store = open_store()
    account = Account(store)

    def outlive() -> None:
        account.balance = 1
        store.close()

    with pytest.raises(StoreClosed):
        store.transact(outlive)
    with pytest.raises(StoreClosed):
        account.balance = 2
    assert open_store().get(account.item_id).balance == 0


def test_a_closed_store_says_so(store: Store) -> None:
    account = Account(store)
    store.close()
    for ask in (
        lambda: setattr(account, "balance", 1),
        lambda: Account(store),
        lambda: store.get(99),
        lambda: list(store.history()),
        lambda: store.pool("people"),
        lambda: list(store.items()),
        store.transaction().__enter__,
        store.verify,
    ):
        with pytest.raises(StoreClosed, match="is closed"):
            ask()
    store.close()
