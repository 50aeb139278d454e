"""A store whose process is killed, at any instant and in the middle of anything, has every commit that returned, no
half one, and nothing astray."""

from __future__ import annotations

import os
import random
import signal
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import timedelta
from pathlib import Path

import pytest
from victims import Say, Victim, killed_after

from atop import File, Item, Store, engine, ids
from atop.files import FileArea
from atop.values import FileInfo
from atop.writeset import Operations

CACHE = 1 << 20  # bytes: small, so that pages are written out in the middle of transactions
ROUNDS = int(os.environ.get("ATOP_CRASH_ROUNDS", "8"))  # of each kind; more find more


class Ledger(Item, type_name="crash.Ledger"):
    """Says how far the victim is. Every commit of one thread counts it up by one."""

    number: int = 0


class Leaf(Item, type_name="crash.Leaf"):
    """What a victim fills its store with: all leaves of a ledger are rewritten with its number, or none is."""

    ledger: Ledger | None = None
    number: int = 0
    name: str = ""
    note: str = ""
    photo: File | None = None


def open_hurried(path: Path, **options: object) -> Store:
    """A store that writes out all the time: checkpoints, log files and blocks of numbers are small."""
    engine.CHECKPOINT_KIB, engine.MAINTENANCE_SECONDS = 64, 0.001
    ids.FIRST_BLOCK = ids.LARGEST_BLOCK = 8
    return Store(path, cache_size=CACHE, **options)  # type: ignore[arg-type]


def verified(path: Path) -> Store:
    """The store, opened after a crash, with nothing wrong in it."""
    store = Store(path, cache_size=CACHE)
    problems = store.verify().problems
    if problems:
        store.close()
    assert problems == []
    return store


def orphans(store: Store) -> set[bytes]:
    """The contents in the file area that no item and no journal record names."""
    named = {photo.digest for item in store.items() if isinstance(photo := getattr(item, "photo", None), File)}
    for commit in store.history():
        for change in commit.changes:
            named |= {value.digest for value in change.before.values() if type(value) is FileInfo}
    return set(store._file_area.digests()) - named


# -- commits, by several threads, with everything else that a store does


def new_ledger(store: Store) -> Ledger:
    with store.transaction("ledger"):
        pool = store.pool("leaves", indexes=["number", "name"])
        ledger = Ledger(store)
        for index in range(6):
            pool.add(Leaf(store, ledger=ledger, name=f"leaf {index}"))
    return ledger


def turn_over(store: Store, ledger: Ledger, chance: random.Random) -> None:
    """One commit: rewrites all leaves of a ledger; takes one away, and makes one."""
    with store.transaction(f"turn {ledger.number}"):
        ledger.number += 1
        pool = store.pool("leaves")
        leaves = list(ledger.referrers("ledger"))
        for leaf in leaves:
            leaf.number = ledger.number
            leaf.note = "x" * chance.randrange(3_000)
        chance.choice(leaves).delete()
        photo = store.file(chance.randbytes(chance.randrange(1, 20_000))) if chance.random() < 0.3 else None
        pool.add(Leaf(store, ledger=ledger, number=ledger.number, name=f"new {chance.random()}", photo=photo))


def work_on(path: Path, seed: int, say: Say) -> None:
    """Three threads turn over a ledger each, for ever; each acknowledges its commits."""
    store = open_hurried(path)

    def turn(number: int) -> None:
        chance = random.Random(seed * 10 + number)
        ledger = new_ledger(store)
        while True:
            say(f"{ledger.item_id} {ledger.number}")
            turn_over(store, ledger, chance)

    with ThreadPoolExecutor(3) as threads:
        for future in as_completed([threads.submit(turn, number) for number in range(3)]):
            future.result()


def check_ledgers(store: Store, acknowledged: dict[int, int]) -> None:
    """Each ledger is where it was acknowledged to be, or one commit further; and its leaves say the same."""
    for item_id, number in acknowledged.items():
        ledger = store.get(item_id, Ledger)
        assert number <= ledger.number <= number + 1
        leaves = list(ledger.referrers("ledger"))
        assert len(leaves) == 6
        assert {leaf.number for leaf in leaves} == {ledger.number}


@pytest.mark.slow
def test_what_was_acknowledged_is_there_and_nothing_by_half_however_often_the_process_is_killed(
    store_path: Path,
) -> None:
    acknowledged: dict[int, int] = {}
    chance = random.Random(1)
    round_ = 0
    while round_ < ROUNDS or len(acknowledged) <= ROUNDS:  # a slow machine acknowledges little before it is killed
        round_ += 1
        said = killed_after(chance.uniform(0.02, 0.4), lambda say, seed=round_: work_on(store_path, seed, say))
        for line in said:
            item_id, number = map(int, line.split())
            acknowledged[item_id] = number
        with verified(store_path) as store:
            check_ledgers(store, acknowledged)
            acknowledged = {item_id: store.get(item_id).number for item_id in acknowledged}
            assert len(store.pool("leaves", indexes=["number", "name"])) == sum(
                isinstance(item, Leaf) for item in store.items()
            )
            store.compact(grace=0)
            assert orphans(store) == set()


def work_buffered(path: Path, seed: int, say: Say) -> None:
    store = open_hurried(path, durability="buffered")
    ledger, chance = new_ledger(store), random.Random(seed)
    say(f"{ledger.item_id}")
    while True:
        turn_over(store, ledger, chance)


@pytest.mark.slow
def test_a_buffered_store_may_lose_the_last_commits_and_has_all_before_them(store_path: Path) -> None:
    chance = random.Random(2)
    for round_ in range(ROUNDS // 2):
        said = killed_after(chance.uniform(0.05, 0.3), lambda say, seed=round_: work_buffered(store_path, seed, say))
        with verified(store_path) as store:
            for ledger in [item for item in store.items() if isinstance(item, Ledger)]:
                assert {leaf.number for leaf in ledger.referrers("ledger")} == {ledger.number}
        assert len(said) <= 1


def change_and_die(path: Path, item_id: int) -> None:
    """Changes an item; is killed when it has written one record, and a checkpoint has come after that."""
    store = Store(path)
    engine = store._engine
    write = engine._write

    def write_and_die(table: str, operations: Operations, transaction: object) -> None:
        write(table, operations, transaction)
        engine._environment.checkpoint()
        os.kill(os.getpid(), signal.SIGKILL)

    engine._write = write_and_die  # type: ignore[method-assign]
    store.get(item_id, Ledger).number = 1


def test_a_checkpoint_after_the_first_record_of_a_commit_does_not_keep_it(store_path: Path) -> None:
    # Berkeley DB alone keeps it: its recovery finds no transaction after the place that the checkpoint goes back to.
    with Store(store_path) as store, store.transaction():
        item_id = Ledger(store).item_id
    victim = Victim(lambda say: change_and_die(store_path, item_id))
    victim.wait()
    assert victim.status == -signal.SIGKILL
    with verified(store_path) as store:
        assert store.get(item_id, Ledger).number == 0


# -- what works in steps of its own


def fill(path: Path, count: int) -> None:
    with Store(path, cache_size=CACHE) as store, store.transaction():
        pool = store.pool("leaves")
        for number in range(count):
            pool.add(Leaf(store, number=number, name=f"leaf {number % 97}", note="a few words to find"))


def build_indexes(path: Path, say: Say) -> None:
    store = open_hurried(path)
    pool = store.pool("leaves")
    for round_ in range(100):
        for name in ("number", "name"):
            if name in pool.indexes and round_:
                pool.drop_index(name)
            pool.add_index(name)
            say(name)
        pool.add_index("words", "note", words=True)
        pool.drop_index("words")


@pytest.mark.slow
def test_an_index_build_that_is_killed_is_gone_on_with(store_path: Path) -> None:
    fill(store_path, 2_000)
    chance = random.Random(3)
    broken_off = 0
    for _ in range(ROUNDS):
        killed_after(chance.uniform(0.02, 0.3), lambda say: build_indexes(store_path, say))
        with verified(store_path) as store:
            broken_off += any(d.state == "building" for d in store.pool("leaves").indexes.values())
            pool = store.pool("leaves", indexes=["number", "name"])
            assert [leaf.number for leaf in pool.query("number")] == list(range(2_000))
            assert pool.count("name", start="leaf 5", end="leaf 6") == sum(
                "leaf 5" <= f"leaf {n % 97}" < "leaf 6" for n in range(2_000)
            )
            store.compact()
            assert store.verify().problems == []
            for name in list(pool.indexes):
                pool.drop_index(name)
    assert broken_off


def tidy_up(path: Path, seed: int, say: Say) -> None:
    """Makes history and files, and trims, collects and compacts them away, for ever."""
    store, chance = open_hurried(path), random.Random(seed)
    ledger = new_ledger(store)
    while True:
        for _ in range(chance.randrange(1, 15)):
            turn_over(store, ledger, chance)
        say(f"{ledger.item_id} {ledger.number}")
        store.compact(keep=timedelta(0), grace=0)


@pytest.mark.slow
def test_a_compaction_that_is_killed_loses_nothing_that_is_named(store_path: Path) -> None:
    chance = random.Random(4)
    acknowledged: dict[int, int] = {}
    for round_ in range(ROUNDS):
        said = killed_after(chance.uniform(0.05, 0.4), lambda say, seed=round_: tidy_up(store_path, seed, say))
        for line in said:
            item_id, number = map(int, line.split())
            acknowledged[item_id] = number
        with verified(store_path) as store:
            for item_id, number in acknowledged.items():
                assert store.get(item_id, Ledger).number >= number
            store.compact(keep=timedelta(0), grace=0)
            assert orphans(store) == set()
            assert store.verify().problems == []


def back_up_for_ever(path: Path, target: Path, say: Say) -> None:
    store = open_hurried(path)
    for number in range(1_000):
        store.backup(target / f"backup {number}")
        say(f"backup {number}")


@pytest.mark.slow
def test_a_backup_that_is_killed_leaves_no_half_backup(store_path: Path, tmp_path: Path) -> None:
    fill(store_path, 500)
    chance = random.Random(5)
    for round_ in range(ROUNDS // 2):
        target = tmp_path / str(round_)
        target.mkdir()
        said = killed_after(
            chance.uniform(0.05, 0.3), lambda say, target=target: back_up_for_ever(store_path, target, say)
        )
        whole = [path for path in target.iterdir() if not path.name.endswith(".incomplete")]
        assert {path.name for path in whole} >= set(said)
        for path in whole[-2:]:
            with verified(path) as store:
                assert len(store.pool("leaves")) == 500


# -- numbers, files, and the making of a store


def make_items(path: Path, say: Say) -> None:
    store = open_hurried(path)
    while True:
        item = Leaf(store)
        say(f"{item.item_id} {item.version}")
        item.delete()


@pytest.mark.slow
def test_ids_are_never_used_again_after_a_crash(store_path: Path) -> None:
    items: list[int] = []
    commits: list[int] = []
    chance = random.Random(6)
    for _ in range(ROUNDS):
        for line in killed_after(chance.uniform(0.02, 0.15), lambda say: make_items(store_path, say)):
            item_id, commit_id = map(int, line.split())
            items.append(item_id)
            commits.append(commit_id)
    assert items == sorted(set(items))
    assert commits == sorted(set(commits))


def write_files(path: Path, seed: int, say: Say) -> None:
    store, chance = open_hurried(path), random.Random(seed)
    leaf = Leaf(store)
    while True:
        leaf.photo = store.file(chance.randbytes(chance.randrange(1, 3 << 20)))
        say(leaf.photo.digest.hex())


@pytest.mark.slow
def test_the_contents_of_a_file_are_whole_once_an_item_names_them(store_path: Path) -> None:
    chance = random.Random(7)
    for round_ in range(ROUNDS // 2):
        said = killed_after(chance.uniform(0.05, 0.3), lambda say, seed=round_: write_files(store_path, seed, say))
        with verified(store_path) as store:
            area: FileArea = store._file_area
            assert all(area.is_whole(bytes.fromhex(digest)) for digest in said)
            store.compact(grace=0)
            assert orphans(store) == set()
            assert list((store_path / "files" / "incoming").iterdir()) == []


@pytest.mark.slow
def test_a_store_whose_making_was_killed_can_be_made(store_path: Path) -> None:
    chance = random.Random(8)
    for round_ in range(ROUNDS * 2):
        path = store_path / str(round_)
        store_path.mkdir(exist_ok=True)
        killed_after(chance.uniform(0.0005, 0.02), lambda say, path=path: open_hurried(path))
        with verified(path) as store:
            assert Leaf(store).item_id >= 1


def recover(path: Path, say: Say) -> None:
    open_hurried(path)
    say("open")


@pytest.mark.slow
def test_a_recovery_that_is_killed_is_done_again(store_path: Path) -> None:
    chance = random.Random(9)
    acknowledged: dict[int, int] = {}
    for line in killed_after(0.3, lambda say: work_on(store_path, 0, say)):
        item_id, number = map(int, line.split())
        acknowledged[item_id] = number
    for _ in range(ROUNDS):
        killed_after(chance.uniform(0.001, 0.03), lambda say: recover(store_path, say))
    with verified(store_path) as store:
        check_ledgers(store, acknowledged)


def test_a_commit_that_was_acknowledged_is_there_after_a_kill(store_path: Path) -> None:
    def work(say: Say) -> None:
        leaf = Leaf(open_hurried(store_path), name="written")
        say(str(leaf.item_id))
        os.kill(os.getpid(), 9)

    item_id = int(Victim(work).wait()[0])
    with verified(store_path) as store:
        assert store.get(item_id, Leaf).name == "written"


def test_log_files_go_once_a_checkpoint_has_made_them_superfluous(store_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("atop.environment.LOG_FILE", 1 << 20)
    monkeypatch.setattr("atop.environment.LOG_BUFFER", 1 << 16)
    with Store(store_path, cache_size=CACHE) as store:
        leaf = Leaf(store)
        for number in range(40):
            leaf.note = f"{number:10}" * 10_000
        assert len(list((store_path / "data").glob("log.*"))) > 3
        store._engine.checkpoint()
        assert len(list((store_path / "data").glob("log.*"))) == 1
    with verified(store_path) as store:
        assert len(store.get(leaf.item_id, Leaf).note) == 100_000
