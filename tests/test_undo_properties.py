"""What undo and write sets promise, for whatever a commit has done."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atop import Conflict, Index, Item, NoSuchItem, Restricted, Store, UndoRefused, ref
from atop.engine import TABLES
from atop.records import decode

pytestmark = pytest.mark.slow


class Node(Item, type_name="test.undo.Node"):
    name: str = ""
    tags: list[str] = []
    friend: Item | None = None
    owner: Item | None = ref(on_delete="cascade")
    boss: Item | None = ref(on_delete="restrict")


# One thing that a commit does: what, to which of the items, with which other, and a value.
actions = st.tuples(
    st.sampled_from(
        [
            "create",
            "delete",
            "rename",
            "tag",
            "forget",
            "friend",
            "owner",
            "boss",
            "pool",
            "unpool",
            "file",
            "drop pool",
        ]
    ),
    st.integers(0, 9),
    st.integers(0, 9),
    st.sampled_from(["", "a", "b", "B"]),
)
commits = st.lists(actions, min_size=1, max_size=6)
few_commits = st.lists(commits, min_size=1, max_size=4)

quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def perform(store: Store, done: list[tuple[Any, ...]]) -> None:
    """Make one commit of these actions; what cannot be done is left out."""
    everyone = [item for item in store.items() if isinstance(item, Node)]
    with store.transaction("actions"):
        for what, which, other, value in done:
            nodes = [node for node in everyone if is_there(node)]
            pools = list(store.pools())
            if what == "create" or not nodes:
                node = Node(store, name=value)
                everyone.append(node)
                if pools:
                    pools[which % len(pools)].add(node)
                continue
            node, target = nodes[which % len(nodes)], nodes[other % len(nodes)]
            if what == "delete":
                try:
                    node.delete()
                except Restricted:
                    continue
            elif what == "rename":
                node.name = value
            elif what == "tag":
                node.tags.append(value)
            elif what == "forget":
                with contextlib.suppress(AttributeError):  # it has been forgotten already
                    del node.tags
            elif what in ("friend", "owner", "boss"):
                setattr(node, what, target)
            elif what == "file":
                node.photo = store.file(value.encode(), name=value)
            elif pools:
                pool = pools[other % len(pools)]
                if what == "drop pool":
                    pool.delete()
                elif what == "pool":
                    pool.add(node)
                elif node in pool:
                    pool.remove(node)


def is_there(node: Node) -> bool:
    """Whether the current transaction sees the item."""
    try:
        return bool(node.attributes)
    except NoSuchItem:
        return False


def begin(store: Store) -> None:
    """Make a few items and two pools with indexes of every kind; nothing of what an example before left is there."""
    with store.transaction("clear"):
        for node in [item for item in store.items() if isinstance(item, Node)]:
            node.boss = node.owner = None
        for item in list(store.items()):
            item.delete()
    with store.transaction("begin"):
        for name in ("one", "two"):
            store.pool(name, indexes=["name", ("name", "tags"), "friend", Index("words", "tags", words=True)])
        for name in "ab":
            store.pool("one").add(Node(store, name=name))


def contents(store: Store) -> dict[str, dict[bytes, Any]]:
    """Every table but the journal; of the items, all but which commit wrote them last."""
    tables: dict[str, dict[bytes, Any]] = {}
    for table in set(TABLES) - {"journal", "commits"}:
        tables[table] = dict(store._engine.pairs(table, b"", b"\xff" * 64, 100_000))
    tables["items"] = {key: decode(record)._replace(version=0) for key, record in tables["items"].items()}
    # The journal is a user of files too, and it goes on: what undo restores is what items use.
    tables["counters"] = {key: value for key, value in tables["counters"].items() if key[:1] != b"f"}
    return tables


def commits_after(store: Store, number: int) -> list[Any]:
    return list(store.changes(number))


@quick
@given(earlier=few_commits, last=commits)
def test_undoing_the_last_commit_restores_every_record_index_entry_reference_and_counter(
    store: Store, earlier: list[Any], last: Any
) -> None:
    begin(store)
    for done in earlier:
        perform(store, done)
    before, number = contents(store), store.head.number
    perform(store, last)
    for commit in commits_after(store, number):
        store.undo(commit)
    assert contents(store) == before
    assert store.verify().problems == []


@quick
@given(done=few_commits)
def test_undoing_all_commits_backwards_restores_the_beginning(store: Store, done: list[Any]) -> None:
    begin(store)
    before, number = contents(store), store.head.number
    for one in done:
        perform(store, one)
    for commit in reversed(commits_after(store, number)):
        store.undo(commit)
    assert contents(store) == before
    assert store.verify().problems == []


@quick
@given(done=few_commits)
def test_undoing_an_undo_restores_what_was_undone(store: Store, done: list[Any]) -> None:
    begin(store)
    number = store.head.number
    for one in done:
        perform(store, one)
    made = commits_after(store, number)
    if made:
        after = contents(store)
        store.undo(made[-1])
        store.undo(next(store.history(1)))
        assert contents(store) == after
        assert store.verify().problems == []


@quick
@given(done=few_commits, choice=st.integers(0, 9))
def test_an_undo_of_any_commit_is_refused_or_leaves_a_sound_store(store: Store, done: list[Any], choice: int) -> None:
    begin(store)
    number = store.head.number
    for one in done:
        perform(store, one)
    made = commits_after(store, number)
    if made:
        before = contents(store)
        try:
            store.undo(made[choice % len(made)])
        except UndoRefused:
            assert contents(store) == before
        assert store.verify().problems == []


@quick
@given(done=few_commits, fail=commits)
def test_a_transaction_that_fails_leaves_every_table_as_it_was(
    store: Store, undone, done: list[Any], fail: Any
) -> None:
    begin(store)
    for one in done:
        perform(store, one)
    before, head = contents(store), store.head
    with undone():
        perform(store, fail)
    assert contents(store) == before
    assert store.head == head


@quick
@given(done=commits, fail=commits)
def test_a_savepoint_that_fails_is_as_if_it_had_not_been(store: Store, undone, done: Any, fail: Any) -> None:
    """The same commit, with and without a savepoint that fails in it, makes the same tables."""
    outcomes = []
    for with_savepoint in (False, True):
        begin(store)
        start = min(item.item_id for item in store.items())
        with store.transaction():
            if with_savepoint:
                with undone():
                    perform(store, fail)
            perform(store, done)
        outcomes.append(_relative(store, start))
        assert store.verify().problems == []
    assert outcomes[0] == outcomes[1]


def _relative(store: Store, start: int) -> list[Any]:
    """What the items hold, without their ids."""
    return [
        (
            i.type_name,
            [p.name for p in i.pools],
            sorted((n, repr(v)) for n, v in i.attributes.items() if type(v) is str),
        )
        for i in store.items()
        if i.item_id >= start
    ]


@quick
@given(done=few_commits)
def test_the_history_of_each_item_leads_from_nothing_to_what_it_is(store: Store, done: list[Any]) -> None:
    begin(store)
    for one in done:
        perform(store, one)
    for item in store.items():
        revisions = list(item.history())
        assert revisions[-1].kind == "created"
        assert [r.commit.number for r in revisions] == sorted({r.commit.number for r in revisions}, reverse=True)
        for later, earlier in pairwise(revisions):
            for name, (old, new) in later.changed.items():
                assert earlier.attributes.get(name) == old
                assert later.attributes.get(name) == new


# -- write sets


def written(store: Store, change: Callable[[], None]) -> Any:
    """The WriteSet that a change makes; it is applied."""
    sets = []
    commit = store._engine.commit
    store._engine.commit = lambda ws, **options: (sets.append(ws), commit(ws, **options))[1]  # type: ignore[method-assign]
    try:
        change()
    finally:
        store._engine.commit = commit  # type: ignore[method-assign]
    return sets


@quick
@given(done=few_commits)
def test_a_write_set_applied_again_changes_nothing_and_has_the_same_answer(store: Store, done: list[Any]) -> None:
    begin(store)
    sets = []
    for one in done:
        sets += written(store, lambda one=one: perform(store, one))
    before, head = contents(store), store.head
    for write_set in sets:
        number = store._engine.commit(write_set)
        assert next(store.changes(number - 1)).commit_id == write_set.commit_id
    assert contents(store) == before
    assert store.head == head


def test_a_write_set_that_depends_on_what_has_changed_is_refused_whole(store: Store) -> None:
    begin(store)
    node = next(store.pool("one").query("name"))
    (stale,) = written(store, lambda: setattr(node, "name", "x"))
    stale.commit_id, stale.base = store._numbers.commit_id(), None
    before = contents(store)
    with pytest.raises(Conflict):
        store._engine.commit(stale)
    assert contents(store) == before
