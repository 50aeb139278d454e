"""Several processes share a store: one owns it, the others are attached; what is theirs alone to do and to survive.

That an attached store does what any store does is shown by the modules that are marked `every_kind`.
"""

from __future__ import annotations

import datetime
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from victims import Say, Victim
from waiting import until

from atop import (
    Conflict,
    Item,
    NoSuchCall,
    NoSuchFile,
    NoSuchItem,
    NoSuchPool,
    Store,
    StoreBusy,
    StoreClosed,
    StoreError,
    UnstorableValue,
    serving,
    tenure,
)

CACHE = 4 << 20


class Leaf(Item, type_name="attached.Leaf"):
    number: int = 0
    text: str = ""


def serve(path: Path, say: Say, wanted: Callable[[Store, str], object] | None = None) -> None:
    """Own a store until killed, or told to end by SIGTERM; make it and say so first."""
    done = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: done.set())
    with Store(path, cache_size=CACHE) as store:
        assert store.owner_pid is None
        leaves = store.pool("leaves", indexes=["number"])
        with store.transaction("leaves"):
            for number in range(20):
                leaves.add(Leaf(store, number=number))
        store.provide("double", lambda number: 2 * number)
        store.provide("set", lambda item_id, number: setattr(store.get(item_id), "number", number))
        store.provide("fail", lambda: {}["nothing"])
        store.provide("refuse", lambda: store.get(10**9))
        store.provide("steps", steps)
        store.provide("item", lambda: store.get(1))
        store.provide("closing", closing)
        say("ready")
        done.wait()


def steps(count: int, progress: Callable[..., object]) -> int:
    for step in range(count):
        progress(step, count)
    return count


said: list[str] = []


def closing() -> str:
    """What an owner says that is about to close, and then does not."""
    said.append("closed")
    if len(said) < 3:
        raise StoreClosed("the store is closed")
    return "open"


@pytest.fixture
def owner(store_path: Path) -> Iterator[Victim]:
    """A process that owns the test's store, with twenty leaves in it."""
    victim = Victim(lambda say: serve(store_path, say))
    assert victim.line() == "ready"
    yield victim
    if victim.status is None:
        victim.kill()
        os.kill(victim.pid, signal.SIGCONT)
        victim.wait()


@pytest.fixture
def store(owner: Victim, store_path: Path) -> Iterator[Store]:
    """That store, attached."""
    with Store(store_path, cache_size=CACHE) as attached:
        assert attached.owner_pid == owner.pid
        yield attached


# -- what is committed elsewhere


def test_a_commit_of_the_owner_shows_in_objects_that_are_held_here(store: Store) -> None:
    leaf = next(store.pool("leaves").query("number", start=3))
    seen: list[int] = []
    with store.watch(lambda commit: seen.extend(commit.item_ids)):
        store.ask("set", item_id=leaf.item_id, number=-5)
        assert leaf.number == -5  # the answer brings it
        assert next(iter(store.pool("leaves").query("number"))) is leaf
        until(lambda: seen == [leaf.item_id])


def test_a_commit_of_a_third_process_shows_everywhere(store: Store, store_path: Path) -> None:
    leaf = next(store.pool("leaves").query("number", start=3))
    assert leaf.number == 3
    third = Victim(lambda say: change(store_path, leaf.item_id, 77))
    third.wait()
    until(lambda: leaf.number == 77)


def change(path: Path, item_id: int, number: int) -> None:
    with Store(path) as store:
        store.get(item_id).number = number


def test_a_transaction_that_another_process_has_overtaken_conflicts(store: Store) -> None:
    leaf = next(store.pool("leaves").query("number", start=3))
    with pytest.raises(Conflict), store.transaction():
        leaf.number += 1
        store.ask("set", item_id=leaf.item_id, number=50)
    assert leaf.number == 50
    tries: list[int] = []

    def add() -> None:
        tries.append(leaf.number)
        if len(tries) == 1:
            store.ask("set", item_id=leaf.item_id, number=60)
        leaf.number += 1

    store.transact(add)
    assert leaf.number == 61
    assert len(tries) == 2


def test_a_transaction_that_only_reads_never_sees_a_mixture(store: Store) -> None:
    one, other = list(store.pool("leaves").query("number", limit=2))
    with pytest.raises(Conflict), store.transaction():
        before = one.number
        store.ask("set", item_id=one.item_id, number=40)
        store.ask("set", item_id=other.item_id, number=40)
        assert other.number - before > 1


def test_counts_of_several_processes_and_threads_add_up(store: Store, store_path: Path) -> None:
    leaf = next(store.pool("leaves").query("number", start=3))

    def count(store: Store, item_id: int) -> None:
        held = store.get(item_id)

        def more() -> None:
            held.number += 1

        for _ in range(20):
            store.transact(more)

    def another(say: Say) -> None:
        with Store(store_path) as own:
            count(own, leaf.item_id)

    others = [Victim(another) for _ in range(2)]
    with ThreadPoolExecutor(2) as threads:
        for done in [threads.submit(count, store, leaf.item_id) for _ in range(2)]:
            done.result()
    for process in others:
        process.wait()
    assert next(iter(store.items())) is not None
    assert store.get(leaf.item_id).number == 3 + 80


def test_numbers_never_collide_and_what_is_left_over_is_given_back(store: Store, store_path: Path) -> None:
    def make(say: Say) -> None:
        with Store(store_path) as own:
            for _ in range(30):
                say(str(Leaf(own).item_id))

    found = [int(line) for _ in range(3) for line in Victim(make).wait()]
    found += [Leaf(store).item_id for _ in range(30)]
    assert len(set(found)) == 120
    assert max(found) < 500
    numbers = [commit.commit_id for commit in store.history()]
    assert len(set(numbers)) == len(numbers)


# -- files


def test_contents_go_to_the_same_place(store: Store, owner: Victim) -> None:
    leaf = Leaf(store, number=100)
    leaf.picture = store.file(b"picture" * 1000, name="p.png")
    assert store.verify().problems == []
    assert leaf.picture.read() == b"picture" * 1000
    assert store.compact(grace=0).files == 0
    del leaf.picture
    assert store.compact(keep=datetime.timedelta(0), grace=0).commits > 0
    assert store.verify().files <= 1


def test_contents_that_were_collected_before_the_commit_are_missed(store: Store) -> None:
    picture = store.file(b"gone")
    assert store.compact(grace=0).files == 1
    with pytest.raises(NoSuchFile, match="not in this store"):
        Leaf(store, picture=picture)


# -- care, and calls by name


def test_the_owner_does_what_only_it_can(store: Store, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    report = store.verify(progress=lambda *done: told.append(done))
    assert report.ok
    assert report.items == 21
    assert told[-1] == (21, 21)
    store.backup(tmp_path / "backup")
    with Store(tmp_path / "backup") as backup:
        assert len(backup.pool("leaves")) == 20
    with pytest.raises(StoreError, match="is there already"):
        store.backup(tmp_path / "backup")


def test_calls_by_name(store: Store, owner: Victim) -> None:
    assert store.ask("double", number=21) == 42
    assert store.ask("double", number="ab") == "abab"
    with pytest.raises(NoSuchCall, match="'triple'"):
        store.ask("triple", number=1)
    with pytest.raises(StoreError, match="'fail' failed: KeyError"):
        store.ask("fail")
    with pytest.raises(StoreError, match="unexpected keyword"):
        store.ask("double", count=1)
    with pytest.raises(NoSuchItem) as caught:
        store.ask("refuse")
    assert caught.value.item_id == 10**9
    with pytest.raises(UnstorableValue):
        store.ask("double", number=object())
    with pytest.raises(UnstorableValue):
        store.ask("item")
    told: list[tuple[int, int]] = []
    assert store.ask("steps", count=3, progress=lambda *done: told.append(done)) == 3
    assert told == [(0, 3), (1, 3), (2, 3)]
    assert store.ask("double", number=1) == 2  # the connection is as good as ever


def test_what_is_provided_here_is_asked_for_once_this_process_is_the_owner(store: Store, owner: Victim) -> None:
    store.provide("here", lambda: "here")
    with pytest.raises(NoSuchCall):
        store.ask("here")
    owner.kill()
    until(lambda: store.owner_pid is None)
    assert store.ask("here") == "here"


# -- the owner goes


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "closed"])
def test_when_the_owner_goes_the_store_goes_on_here(store: Store, owner: Victim, how: signal.Signals) -> None:
    leaves = store.pool("leaves")
    leaf = next(leaves.query("number", start=3))
    query = leaves.query("number")
    first = [next(query).number for _ in range(3)]
    with store.transaction("across"):
        leaf.text = "mine"
        made = Leaf(store, number=1000)
        os.kill(owner.pid, how)
        owner.wait()
        leaves.add(made)
    assert store.owner_pid is None
    assert leaf.text == "mine"
    assert store.get(leaf.item_id) is leaf
    assert next(leaves.query("number", start=1000)) is made
    assert [*first, *(found.number for found in query)] == [*range(20)]
    leaf.text = "again"
    assert next(store.history()).changes[0].before == {"text": "mine"}
    assert store.verify().problems == []


def test_an_idle_process_takes_over_by_itself_and_tells_its_program(store_path: Path, owner: Victim) -> None:
    taken = threading.Event()
    with Store(store_path, on_owner=taken.set) as store:
        owner.kill()
        assert taken.wait(20)
        assert store.owner_pid is None


def test_taking_over_that_fails_half_way_leaves_the_store_to_others_and_to_the_next_try(
    store: Store, store_path: Path, owner: Victim, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = os.getpid()

    class Broken(serving.Server):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            if os.getpid() == here:
                self.close()
                raise ZeroDivisionError("a mistake")

    held = next(iter(store.pool("leaves")))
    with monkeypatch.context() as patch:
        patch.setattr(tenure, "Server", Broken)
        owner.kill()
        with pytest.raises(StoreError, match=r"could not take over .* a mistake"):
            held.text = "nowhere"
        another = Victim(lambda say: serve(store_path, say))
        assert another.line() == "ready"
        until(lambda: store.owner_pid == another.pid)
        held.text = "through the other"
    another.kill()
    until(lambda: store.owner_pid is None)
    assert held.text == "through the other"
    held.text = "here"


def test_of_several_one_takes_over_and_the_others_attach_to_it(store: Store, store_path: Path, owner: Victim) -> None:
    done = threading.Event()

    def follow(say: Say) -> None:
        signal.signal(signal.SIGTERM, lambda *_: done.set())
        with Store(store_path, cache_size=CACHE) as own:
            say(str(own.owner_pid))
            until(lambda: own.owner_pid != owner.pid)
            Leaf(own, text=str(os.getpid()))
            say(str(own.owner_pid or os.getpid()))
            done.wait()

    others = [Victim(follow) for _ in range(3)]
    assert [other.line() for other in others] == [str(owner.pid)] * 3
    owner.kill()
    owner.wait()
    owners = {other.line() for other in others} | {str(store.owner_pid or os.getpid())}
    assert len(owners) == 1
    texts = {leaf.text for leaf in store.items() if isinstance(leaf, Leaf) and leaf.text}
    assert texts == {str(other.pid) for other in others}
    for other in others:
        os.kill(other.pid, signal.SIGTERM)
        other.wait()


def test_a_watcher_misses_nothing_across_a_take_over(store: Store, owner: Victim) -> None:
    seen: list[int] = []
    with store.watch(lambda commit: seen.append(commit.number)):
        first = store.head.number + 1
        for number in range(5):
            Leaf(store, number=number)
        owner.kill()
        for number in range(5):
            Leaf(store, number=number)
        until(lambda: len(seen) >= 10)
    assert seen == [*range(first, first + 10)]


def test_an_attached_process_that_closes_leaves_the_owner_alone(store_path: Path, owner: Victim) -> None:
    store = Store(store_path)
    store.get(2)
    store.close()
    store.close()
    for attempt in (lambda: Leaf(store), lambda: store.get(10**6), store.verify, lambda: store.ask("double", number=1)):
        with pytest.raises(StoreClosed):
            attempt()
    for _ in range(3):
        with Store(store_path) as again:
            assert again.owner_pid == owner.pid


def test_closing_after_the_owner_has_gone_takes_over_nothing(store_path: Path, owner: Victim) -> None:
    store = Store(store_path)
    Leaf(store)
    owner.kill()
    store.close()
    with Store(store_path) as again:
        assert again.owner_pid is None


def test_an_owner_that_is_closing_is_asked_again(store: Store) -> None:
    """A device that closes can commit nothing more, a moment before its store is closed: that is its own affair."""
    assert store.ask("closing") == "open"


def test_another_store_in_the_place_of_this_one_is_left_alone(store: Store, store_path: Path, owner: Victim) -> None:
    leaf = store.get(2)
    store_path.rename(store_path.with_name("moved"))
    with Store(store_path) as another:
        item_id = Item(another, text="another").item_id
    owner.kill()
    owner.wait()
    for attempt in (lambda: Leaf(store), lambda: store.get(10**6), lambda: setattr(leaf, "number", 1)):
        with pytest.raises(StoreError, match="was moved, or replaced by another"):
            attempt()
    store.close()
    with Store(store_path.with_name("moved")) as moved:
        assert len(moved.pool("leaves")) == 20
    with Store(store_path) as another:
        assert [item.item_id for item in another.items()] == [item_id]


# -- who may attach


def test_a_store_is_open_once_in_a_process(store: Store, store_path: Path) -> None:
    with pytest.raises(StoreBusy, match="this process"):
        Store(store_path)


def test_the_socket_is_this_users_alone(store: Store, store_path: Path) -> None:
    socket = store_path / "local" / "owner.sock"
    assert socket.is_socket()
    assert socket.stat().st_mode & 0o777 == 0o600


def test_a_forked_child_of_an_attached_process_has_nothing_to_do_with_its_connections(
    store: Store, store_path: Path, owner: Victim
) -> None:
    leaf = store.get(2)

    def meddle(say: Say) -> None:
        for attempt in (lambda: store.get(10**6), lambda: setattr(leaf, "number", 5), lambda: Leaf(store)):
            with pytest.raises(StoreClosed, match="forked"):
                attempt()
        with Store(store_path) as own:
            assert own.owner_pid == owner.pid
            own.get(2).text = "child"

    Victim(meddle).wait()
    until(lambda: leaf.text == "child")


def test_a_path_that_is_too_long_for_a_socket_is_no_matter(store_path: Path) -> None:
    path = store_path.parent / ("long" * 40) / "store"
    path.parent.mkdir()
    victim = Victim(lambda say: serve(path, say))
    assert victim.line() == "ready"
    try:
        with Store(path) as store:
            assert store.owner_pid == victim.pid
            Leaf(store)
    finally:
        victim.kill()
        victim.wait()


def test_a_store_that_is_not_there_is_not_made_by_attaching(store: Store, store_path: Path) -> None:
    with pytest.raises(NoSuchPool):
        store.pool("nothing", create=False)


def test_the_command_works_beside_an_application(owner: Victim, store_path: Path, tmp_path: Path) -> None:
    (tmp_path / "friends.csv").write_text("name,email\nAda,ada@example.org\n")

    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", "atop.cli", "--store", str(store_path), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "leaves" in run("status")
    assert run("--json", "query", "leaves", "number", "--limit", "2").count("\n") == 2
    run("import", str(tmp_path / "friends.csv"))
    assert "Ada" in run("query", "contacts", "name")
    assert "import" in run("history", "--limit", "3")
    number = run("--json", "history", "--limit", "1").split('"number": ')[1].split(",")[0]
    run("undo", number)
    run("verify")
    run("compact")
    run("backup", str(tmp_path / "backup"))
    assert os.waitpid(owner.pid, os.WNOHANG) == (0, 0)
