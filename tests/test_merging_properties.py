"""Whatever two sides do, bringing it together leaves a sound store, the same from either side, and loses nothing."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from forking import Fork, make
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from atop import AtopError, ConflictItem, Item, Pool, Store, ref

MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
EXAMPLES = int(os.environ.get("ATOP_EXAMPLES", "25"))
ITEMS = (1, 2, 3, 4)
SCALARS = ("name", "size")


class Node(Item, type_name="merging.Node"):
    name: str = ""
    size: int = 0
    tags: list[str] = []
    marks: set[int] = set()
    link: Item | None = None
    parent: Item | None = ref(on_delete="cascade")
    guard: Item | None = ref(on_delete="restrict")


def prepare(store: Store) -> None:
    with store.transaction():
        nodes = [Node(store, name=f"n{i}", tags=["t"], marks={0}) for i in ITEMS]
        nodes[3].parent = nodes[2]
        for pool in (store.pool("p", indexes=["name"]), store.pool("q")):
            pool.add(nodes[0])
            pool.add(nodes[3])


ids = st.sampled_from(ITEMS)
operations = st.one_of(
    st.tuples(st.just("name"), ids, st.sampled_from("abc")),
    st.tuples(st.just("size"), ids, st.integers(0, 3)),
    st.tuples(st.just("tag"), ids, st.sampled_from("tuv")),
    st.tuples(st.just("untag"), ids, st.sampled_from("tuv")),
    st.tuples(st.just("mark"), ids, st.integers(0, 3)),
    st.tuples(st.just("unmark"), ids, st.integers(0, 3)),
    st.tuples(st.sampled_from(["link", "parent", "guard"]), ids, ids),
    st.tuples(st.just("delete"), ids, st.none()),
    st.tuples(st.just("create"), ids, st.sampled_from(["link", "parent", "guard"])),
    st.tuples(st.sampled_from(["join", "leave"]), ids, st.sampled_from("pqr")),
    st.tuples(st.just("index"), st.sampled_from("pqr"), st.sampled_from(["size", "name"])),
    st.tuples(st.just("drop"), st.sampled_from("pqr"), st.sampled_from(["size", "name"])),
    st.tuples(st.just("drop pool"), st.sampled_from("pqr"), st.none()),
    st.tuples(st.just("root"), ids, st.sampled_from("xy")),
    st.tuples(st.just("undo"), st.integers(1, 4), st.none()),
)
steps = st.lists(st.tuples(st.sampled_from(["left", "right"]), operations), min_size=1, max_size=14)


def perform(store: Store, what: str, one: Any, two: Any) -> None:
    """One transaction; none at all where it is about what is gone, or is not allowed."""
    try:
        match what:
            case "name" | "size":
                setattr(store.get(one), what, two)
            case "tag":
                store.get(one).tags.append(two)
            case "untag":
                store.get(one).tags.remove(two)
            case "mark":
                store.get(one).marks.add(two)
            case "unmark":
                store.get(one).marks.discard(two)
            case "link" | "parent" | "guard":
                setattr(store.get(one), what, store.get(two))
            case "delete":
                store.get(one).delete()
            case "create":
                Node(store, **{two: store.get(one)})
            case "join":
                store.pool(two).add(store.get(one))
            case "leave":
                store.pool(two).remove(store.get(one))
            case "index":
                store.pool(one).add_index(two)
            case "drop":
                store.pool(one).drop_index(two)
            case "drop pool":
                store.pool(one).delete()
            case "root":
                store.set_root(two, store.get(one))
            case "undo":
                commit = next(store.history(limit=1, before=store.head.number - one + 1), None)
                if commit is not None:
                    store.undo(commit)
    except (AtopError, ValueError, KeyError):
        pass  # it cannot be done now: then it is not


def seen(store: Store) -> dict[int, dict[str, Any]]:
    """The nodes as they are: lists as what is in them."""
    return {
        item.item_id: {
            "name": item.name,
            "size": item.size,
            "tags": Counter(item.tags),
            "marks": set(item.marks),
            "refers": [None if v is None else v.item_id for v in (item.link, item.parent, item.guard)],
            "pools": sorted(pool.name for pool in item.pools),
        }
        for item in store.items()
        if isinstance(item, Node)
    }


def values_of(store: Store) -> dict[tuple[int, str], Any]:
    return {(i, name): node[name] for i, node in seen(store).items() for name in SCALARS}


@pytest.fixture(scope="module")
def beginning() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="atop-test-", dir=MEMORY) as name:
        make(Path(name) / "store", prepare)
        yield Path(name) / "store"


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(plan=steps)
@example(
    plan=[
        ("left", ("tag", 1, "t")),
        ("right", ("tag", 1, "t")),
        ("right", ("size", 1, 2)),
        ("right", ("undo", 2, None)),
    ]
)
@example(
    plan=[
        ("left", ("mark", 1, 1)),
        ("right", ("mark", 1, 1)),
        ("right", ("unmark", 1, 1)),
        ("left", ("unmark", 1, 0)),
        ("right", ("unmark", 1, 0)),
        ("right", ("mark", 1, 0)),
    ]
)
@example(plan=[("left", ("join", 2, "p")), ("right", ("join", 2, "p")), ("right", ("leave", 2, "p"))])
@example(plan=[("left", ("delete", 3, None)), ("right", ("name", 4, "a")), ("right", ("parent", 4, 1))])
@example(
    plan=[
        ("left", ("drop pool", "p", None)),
        ("left", ("name", 1, "a")),
        ("left", ("undo", 1, None)),
        ("right", ("drop pool", "p", None)),
    ]
)
@example(plan=[("left", ("create", 1, "link")), ("left", ("name", 1, "a")), ("right", ("delete", 1, None))])
@example(plan=[("left", ("join", 2, "p")), ("left", ("index", "p", "size")), ("right", ("drop pool", "p", None))])
@example(plan=[("left", ("drop", "p", "name")), ("left", ("drop pool", "p", None))])
def test_two_sides_brought_together(beginning: Path, plan: list[tuple[str, tuple[str, Any, Any]]]) -> None:
    with tempfile.TemporaryDirectory(prefix="atop-test-", dir=MEMORY) as name:
        fork = Fork(Path(name), beginning)
        try:
            before = values_of(fork.left)
            had: dict[str, dict[tuple[int, str], set[Any]]] = {"left": {}, "right": {}}
            gone: set[int] = set()  # items that one side had deleted at some time
            for side, (what, one, two) in plan:
                store = getattr(fork, side)
                store._time = max(fork.left._time, fork.right._time)
                perform(store, what, one, two)
                for place, value in values_of(store).items():
                    had[side].setdefault(place, set()).add(value)
                gone |= {item_id for item_id, _ in had[side].keys() | before.keys()} - seen(store).keys()
            sides = [values_of(fork.left), values_of(fork.right)]
            salvages = fork.salvage(fork.left), fork.salvage(fork.right)
            fork.merge(fork.right, salvages[0], begun_again=len(plan) % 2 == 1)
            fork.merge(fork.left, salvages[1])
            for store in (fork.left, fork.right):
                check_nothing_lost(before, sides, [had["right"], had["left"]], store)
            check_alike(seen(fork.left), seen(fork.right), gone, {what for _, (what, _, _) in plan})
        finally:
            fork.close()


def check_alike(left: dict[int, Any], right: dict[int, Any], gone: set[int], done: set[str]) -> None:
    """Both orders lead to the same, but for what was deleted: it comes back if, for a while, something needed it."""
    assert left.keys() ^ right.keys() <= gone
    for item_id in (left.keys() & right.keys()) - gone:
        for node in (left[item_id], right[item_id]):
            node["refers"] = [None if target in gone else target for target in node["refers"]]
            if "drop pool" in done:
                del node["pools"]
        assert left[item_id] == right[item_id]


def check_nothing_lost(before: Any, sides: list[Any], others_had: list[Any], store: Store) -> None:
    """Every value that a side ended with is in effect or in a conflict, unless the other side had it and gave it up."""
    after = values_of(store)
    kept = {(c.about, c.attribute, value) for c in store.conflicts for value in (c.kept, c.other)}
    for side, other_had in zip(sides, others_had, strict=True):
        for place, value in side.items():
            known = before.get(place) == value or value in other_had.get(place, ())
            assert known or after.get(place) == value or (*place, value) in kept, (place, value)
    for item in store.items():
        assert isinstance(item, (Node, Pool, ConflictItem))
