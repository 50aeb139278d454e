"""Transactions: all or nothing, for objects in memory too; each thread and task on its own; never on a mixture."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from atop import Item, NoSuchItem, NoSuchPool, Store, StoreClosed, TransactionTooLarge, transacted, writeset

pytestmark = pytest.mark.every_kind


class Account(Item):
    name: str = ""
    balance: int = 0
    tags: list[str] = []

    @transacted
    def pay(self, other: Account, amount: int) -> int:
        self.balance -= amount
        other.balance += amount
        return self.balance


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


def test_a_label_is_text_and_a_long_one_is_cut(store: Store) -> None:
    with pytest.raises(TypeError, match="label"):
        store.transaction(5)  # type: ignore[arg-type]
    store.transact(lambda: Account(store), label="x" * 5_000)
    assert next(store.history()).label == "x" * 999 + "…"
    store.transact(
        lambda: Account(store), label="import caf\udce9.vcf"
    )  # as Python has names of files that are no text
    assert next(store.history()).label == r"import caf\udce9.vcf"


def test_a_transaction_whose_old_values_are_more_than_the_history_takes_is_refused_whole(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = [Item(store, text=str(n) * 1_000) for n in range(5)]
    monkeypatch.setattr(writeset, "MAX_LENGTH", 3_000)
    with pytest.raises(TransactionTooLarge, match="split it"):
        store.transact(lambda: [item.delete() for item in items])
    assert list(store.items()) == items
    with pytest.raises(TransactionTooLarge, match="split it"):
        store.transact(lambda: [Item(store, text=str(n) * 1_000) for n in range(5)])
    assert list(store.items()) == items


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


def test_a_context_that_is_copied_to_a_thread_does_not_take_the_transaction_along(store: Store) -> None:
    account = Account(store)
    seen = []
    with store.transaction():
        account.balance = 7
        context = contextvars.copy_context()
        in_thread(lambda: context.run(lambda: seen.append(account.balance)))
    assert seen == [0]


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


def test_a_list_first_changed_in_a_savepoint_that_fails_is_as_it_was(store: Store, undone) -> None:
    item = Item(store, data={"inner": [1]})
    inner = item.data["inner"]
    with store.transaction():
        with undone():
            inner.append(2)
        assert (inner, item.data) == ([1], {"inner": [1]})
        inner.append(3)
    assert (inner, item.data) == ([1, 3], {"inner": [1, 3]})


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
