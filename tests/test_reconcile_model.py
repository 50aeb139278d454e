"""Three devices, links that come and go, and a plain model: every commit has happened.

More examples and longer ones: ATOP_EXAMPLES=200 ATOP_STEPS=40.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from grouping import Group
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from test_reconcile import heal

from atop import Item, NoSuchItem
from replication.messages import Role

EXAMPLES = int(os.environ.get("ATOP_EXAMPLES", "3"))
STEPS = int(os.environ.get("ATOP_STEPS", "14"))
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
NAMES = "abc"

devices = st.sampled_from(NAMES)
shared = st.integers(0, 1)
pairs = st.sampled_from([("a", "b"), ("a", "c"), ("b", "c")])


class Card(Item, type_name="reconcile.Card"):
    text: str = ""
    tags: list[str] = []


class Devices(RuleBasedStateMachine):
    """What is done to the devices, and what must come of it."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory(prefix="atop-test-", dir=MEMORY)
        self.group = Group(Path(self.directory.name))
        first = self.group.start("a")
        with first.store.transaction():
            pool = first.store.pool("cards", indexes=["text"])
            self.cards = [Card(first.store) for _ in range(2)]
            for card in self.cards:
                pool.add(card)
        self.ids = [card.item_id for card in self.cards]
        for size, name in ((2, "b"), (3, "c")):
            for machine in list(self.group.machines.values()):
                machine.manager.set_members(size)
            self.group.start(name, size=size)
        self.number = 0
        # The model: what was made, deleted, added; and for each value of a text the one that it was put in place of.
        self.made: set[str] = set()
        self.tags: dict[int, set[str]] = {0: set(), 1: set()}
        self.texts: dict[int, dict[str, str]] = {0: {}, 1: {}}
        self.gone: set[int] = set()

    def value(self) -> str:
        self.number += 1
        return f"value {self.number}"

    def store(self, name: str) -> Any:
        return self.group.machines[name].store

    @rule(name=devices)
    def create(self, name: str) -> None:
        value = self.value()
        store = self.store(name)
        store.transact(lambda: store.pool("cards").add(Card(store, text=value)))
        self.made.add(value)

    @rule(name=devices, which=shared)
    def change(self, name: str, which: int) -> None:
        value, store = self.value(), self.store(name)

        def put() -> str:
            card = store.get(self.ids[which])
            before: str = card.text
            card.text = value
            return before

        try:
            self.texts[which][value] = store.transact(put)
        except NoSuchItem:
            assert which in self.gone

    @rule(name=devices, which=shared)
    def tag(self, name: str, which: int) -> None:
        value, store = self.value(), self.store(name)
        try:
            store.transact(lambda: store.get(self.ids[which]).tags.append(value))
            self.tags[which].add(value)
        except NoSuchItem:
            assert which in self.gone

    @rule(name=devices)
    def delete(self, name: str) -> None:
        store = self.store(name)

        def remove() -> None:
            store.get(self.ids[1]).delete()

        try:
            store.transact(remove)
        except NoSuchItem:
            assert 1 in self.gone
        self.gone.add(1)

    @rule(pair=pairs)
    def cut(self, pair: tuple[str, str]) -> None:
        self.group.cut(*pair)

    @rule(pair=pairs)
    def link(self, pair: tuple[str, str]) -> None:
        self.group.link(*pair)

    @rule(name=devices)
    def open_again(self, name: str) -> None:
        others = [other for other in NAMES if (name, other) in self.group.wires]
        self.group.machines[name].close()
        self.group.start(name, linked=False)
        for other in others:
            self.group.link(name, other)

    @invariant()
    def every_device_can_be_read(self) -> None:
        for machine in self.group.machines.values():
            assert machine.store.get(self.ids[0]).text is not None
            assert machine.manager.role in Role

    def teardown(self) -> None:
        try:
            heal(self.group)
            self.check()
        finally:
            self.group.close()
            self.directory.cleanup()

    def check(self) -> None:
        """Every commit has happened: it is in effect, in a conflict, or was replaced by one that knew it."""
        store = self.store("a")
        cards = [item for item in store.items() if isinstance(item, Card)]
        assert self.made <= {card.text for card in cards}
        assert len(cards) >= len(self.made) + 1
        assert len(store.pool("cards")) == len(cards)
        for which, item_id in enumerate(self.ids):
            card = next((card for card in cards if card.item_id == item_id), None)
            if card is None:
                assert which in self.gone
                continue
            aside = {v for c in store.conflicts if c.about == item_id for v in (c.kept, c.other)}
            replaced = set(self.texts[which].values())
            assert {v for v in self.texts[which] if v not in replaced} <= {card.text} | aside
            assert self.tags[which] == set(card.tags)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_every_commit_has_happened() -> None:
    run_state_machine_as_test(
        Devices,
        settings=settings(
            max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
