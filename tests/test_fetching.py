"""What is asked of whom, and when: the pure part of fetching contents."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from replication import fetching
from replication.fetching import Action, Ask, Fetches, Finish, Leave, Open
from replication.messages import FILE_CHUNK_BYTES as CHUNK

ONE, TWO, THREE = (bytes([n]) * 32 for n in (1, 2, 3))  # devices
A, B, C = (bytes([n]) * 32 for n in (101, 102, 103))  # contents
LARGE = 1 << 30


class Bench:
    """Fetches, with everything done at once that the disk is asked for."""

    def __init__(self, *devices: bytes) -> None:
        self.fetches = Fetches()
        self.now = 1000.0
        self.there: dict[bytes, int] = {}  # contents -> bytes on the disk
        self.asks: list[Ask] = []
        self.finished: list[bytes] = []
        self.left: list[Leave] = []
        for device in devices:
            self.fetches.link_up(device)

    def act(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Open(digest, _):
                    self.act(self.fetches.opened(digest, self.there.get(digest, 0)))
                case Ask():
                    self.asks.append(action)
                case Finish(digest):
                    self.finished.append(digest)
                case Leave(digest, forget):
                    self.left.append(action)
                    if forget:
                        self.there.pop(digest, None)

    def go(self) -> list[Ask]:
        """Do what is to be done now; returns what was asked."""
        before = len(self.asks)
        while actions := self.fetches.actions(self.now):
            self.act(actions)
        return self.asks[before:]

    def send(self, device: bytes, digest: bytes, offset: int, length: int) -> bool:
        taken = self.fetches.chunk(device, digest, offset, length, self.now)
        if taken:
            self.there[digest] = self.there.get(digest, 0) + length
            self.act(self.fetches.took(digest))
        return taken

    def answer(self, ask: Ask) -> None:
        """All that was asked for comes."""
        for offset in range(ask.offset, ask.offset + ask.length, CHUNK):
            assert self.send(ask.device, ask.digest, offset, min(CHUNK, ask.offset + ask.length - offset))


def test_all_of_it_is_asked_for_in_order_and_then_finished() -> None:
    bench = Bench(ONE)
    bench.fetches.want(A, 10 * CHUNK + 5)
    asked = 0
    while asks := bench.go():
        for ask in asks:
            assert ask.offset == asked
            asked += ask.length
            bench.answer(ask)
    assert asked == 10 * CHUNK + 5
    assert bench.finished == [A]
    bench.act(bench.fetches.finished(A, good=True))
    assert not bench.fetches.wanted


def test_no_more_is_asked_for_than_the_window_has_room_for() -> None:
    bench = Bench(ONE)
    bench.fetches.want(A, LARGE)
    first = sum(ask.length for ask in bench.go())
    assert first <= fetching.LARGEST_WINDOW
    assert bench.go() == []
    bench.answer(bench.asks[0])
    assert 0 < sum(ask.length for ask in bench.go()) <= bench.asks[0].length + CHUNK


def test_what_takes_long_is_asked_for_in_smaller_portions_and_what_comes_quickly_in_larger_ones() -> None:
    bench = Bench(ONE)
    bench.fetches.want(A, LARGE)
    bench.go()

    def outstanding(seconds: float) -> int:
        for _ in range(200):
            ask = bench.asks.pop(0)
            bench.now += seconds * ask.length / sum(a.length for a in [ask, *bench.asks])
            bench.answer(ask)
            bench.go()
        return sum(ask.length for ask in bench.asks)

    quick = outstanding(0.002)
    assert quick > fetching.LARGEST_WINDOW // 2
    slow = outstanding(0.5)
    assert slow <= fetching.SMALLEST_WINDOW + fetching.RANGE_BYTES


def test_several_are_on_their_way_at_once_and_each_has_its_turn() -> None:
    bench = Bench(ONE)
    for digest in (A, B, C):
        bench.fetches.want(digest, LARGE)
    turns = []
    for _ in range(9):
        bench.go()
        ask = bench.asks.pop(0)
        turns.append(ask.digest)
        bench.answer(ask)
    assert turns == [A, B, C] * 3


def test_what_somebody_waits_for_goes_first() -> None:
    bench = Bench(ONE)
    for number in range(20):
        bench.fetches.want(bytes([number]) * 32, LARGE)
    bench.go()
    bench.fetches.want(A, LARGE, urgent=True)
    bench.answer(bench.asks[0])
    assert {ask.digest for ask in bench.go()} == {A}


def test_of_several_devices_each_has_something_to_send() -> None:
    bench = Bench(ONE, TWO)
    for digest in (A, B):
        bench.fetches.want(digest, LARGE)
    assert {(ask.device, ask.digest) for ask in bench.go()} in ({(ONE, A), (TWO, B)}, {(TWO, A), (ONE, B)})


@pytest.mark.parametrize(
    ("device", "digest", "offset", "length"),
    [(TWO, A, 0, 1), (ONE, B, 0, 1), (ONE, A, 1, 1), (ONE, A, 0, LARGE), (ONE, A, 0, 0)],
    ids=["another device", "other contents", "another place", "more than asked for", "nothing"],
)
def test_bytes_that_were_not_asked_for_are_not_taken(device: bytes, digest: bytes, offset: int, length: int) -> None:
    bench = Bench(ONE)
    bench.fetches.want(A, LARGE)
    bench.go()
    bench.fetches.link_up(TWO)
    assert not bench.send(device, digest, offset, length)


def test_a_device_that_lacks_it_is_not_asked_again_until_it_says_that_it_has_it() -> None:
    bench = Bench(ONE, TWO)
    bench.fetches.want(A, CHUNK)
    (ask,) = bench.go()
    bench.act(bench.fetches.absent(ask.device, A, coming=False))
    (second,) = bench.go()
    assert second.device != ask.device
    bench.act(bench.fetches.absent(second.device, A, coming=False))
    assert bench.go() == []
    assert bench.fetches.wanted[A].stage == "parked"
    bench.fetches.here(ask.device, [A])
    assert [again.device for again in bench.go()] == [ask.device]


def test_what_nobody_had_is_asked_for_again_after_a_while_and_when_a_device_comes() -> None:
    bench = Bench(ONE)
    bench.fetches.want(A, CHUNK)
    bench.go()
    bench.act(bench.fetches.absent(ONE, A, coming=False))
    assert bench.go() == []
    bench.now += fetching.RETRY_SECONDS + 1
    assert [ask.device for ask in bench.go()] == [ONE]
    bench.act(bench.fetches.absent(ONE, A, coming=False))
    bench.go()
    bench.fetches.link_up(TWO)
    assert [ask.device for ask in bench.go()] == [TWO]


def test_after_a_cut_only_the_rest_is_asked_for_of_another_device() -> None:
    bench = Bench(ONE)
    bench.fetches.want(A, 100 * CHUNK)
    bench.answer(bench.go()[0])
    bench.act(bench.fetches.link_down(ONE))
    assert bench.go() == []
    bench.fetches.link_up(TWO)
    again = bench.go()
    assert (again[0].device, again[0].offset) == (TWO, bench.there[A])


def test_a_device_that_sends_nothing_is_given_up_for_another_one() -> None:
    bench = Bench(ONE, TWO)
    bench.fetches.want(A, CHUNK)
    (ask,) = bench.go()
    bench.now += fetching.STALL_SECONDS + 1
    assert [again.device for again in bench.go()] == [TWO if ask.device == ONE else ONE]


def test_who_alone_has_sent_wrong_contents_is_not_asked_for_them_again() -> None:
    bench = Bench(ONE, TWO)
    bench.fetches.want(A, CHUNK)
    (ask,) = bench.go()
    bench.answer(ask)
    bench.act(bench.fetches.finished(A, good=False))
    assert bench.fetches.wanted[A].wrong == {ask.device}
    (second,) = bench.go()
    assert second.device != ask.device
    bench.act(bench.fetches.absent(second.device, A, coming=False))
    bench.fetches.here(ask.device, [A])
    bench.fetches.link_up(ask.device)
    assert bench.go() == []


@pytest.mark.parametrize("how", ["two devices", "from before"])
def test_where_it_is_not_known_who_sent_wrong_contents_it_begins_anew(how: str) -> None:
    bench = Bench(ONE)
    bench.fetches.want(A, 20 * CHUNK)
    if how == "from before":
        bench.there[A] = CHUNK
    bench.answer(bench.go()[0])
    bench.asks.pop(0)
    if how == "two devices":
        bench.act(bench.fetches.link_down(ONE))
        bench.fetches.link_up(TWO)
        bench.asks.clear()
    while bench.go() or bench.asks:
        bench.answer(bench.asks.pop(0))
    bench.act(bench.fetches.finished(A, good=False))
    assert bench.fetches.wanted[A].wrong == set()
    assert bench.go()[0].offset == 0


def test_what_the_disk_does_not_take_is_told_tried_again_and_holds_up_nothing_else() -> None:
    bench = Bench(ONE)
    bench.fetches.want(A, LARGE)
    bench.go()
    bench.act(bench.fetches.failed(A, "the disk is full"))
    assert bench.fetches.problem == "the disk is full"
    bench.fetches.want(B, CHUNK)
    assert [ask.digest for ask in bench.go()] == [B]
    bench.now += fetching.DISK_SECONDS
    assert bench.go()[0].digest == A
    assert bench.fetches.problem is None


def test_contents_that_could_not_be_placed_are_finished_again_without_asking() -> None:
    bench = Bench(ONE)
    bench.fetches.want(A, CHUNK)
    bench.answer(bench.go()[0])
    bench.act(bench.fetches.failed(A, "the disk is full"))
    bench.go()
    bench.now += fetching.DISK_SECONDS
    assert bench.go() == []
    assert bench.finished == [A, A]


def test_what_nothing_names_any_more_is_forgotten() -> None:
    bench = Bench()
    bench.fetches.want(A, CHUNK)
    bench.fetches.want(B, CHUNK)
    bench.act(bench.fetches.keep_only({B}))
    assert list(bench.fetches.wanted) == [B]
    assert bench.left == [Leave(A, forget=True)]


def test_empty_contents_that_are_not_their_hash_are_not_tried_for_ever() -> None:
    bench = Bench(ONE)
    bench.fetches.want(A, 0)
    bench.go()
    assert bench.finished == [A]
    bench.act(bench.fetches.finished(A, good=False))
    assert bench.go() == []


class Machine(RuleBasedStateMachine):
    """Any order of events leaves what is kept consistent."""

    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench()
        self.up: set[bytes] = set()

    @rule(digest=st.sampled_from([A, B, C]), chunks=st.integers(0, 30), urgent=st.booleans())
    def want(self, digest: bytes, chunks: int, urgent: bool) -> None:
        self.bench.fetches.want(digest, chunks * CHUNK // 2, urgent=urgent)

    @rule(device=st.sampled_from([ONE, TWO, THREE]))
    def up_or_down(self, device: bytes) -> None:
        if device in self.up:
            self.up.discard(device)
            self.bench.act(self.bench.fetches.link_down(device))
        else:
            self.up.add(device)
            self.bench.fetches.link_up(device)

    @rule()
    def go(self) -> None:
        self.bench.go()

    @precondition(lambda self: self.bench.asks)
    @rule(data=st.data())
    def some_come(self, data: st.DataObject) -> None:
        ask = self.bench.asks.pop(data.draw(st.integers(0, len(self.bench.asks) - 1)))
        for offset in range(ask.offset, ask.offset + ask.length, CHUNK):
            self.bench.send(ask.device, ask.digest, offset, min(CHUNK, ask.offset + ask.length - offset))

    @precondition(lambda self: self.bench.asks)
    @rule(coming=st.booleans())
    def is_absent(self, coming: bool) -> None:
        ask = self.bench.asks.pop()
        self.bench.act(self.bench.fetches.absent(ask.device, ask.digest, coming=coming))

    @precondition(lambda self: self.bench.finished)
    @rule(how=st.sampled_from(["good", "bad", "full"]))
    def ends(self, how: str) -> None:
        digest = self.bench.finished.pop(0)
        fetches = self.bench.fetches
        wanted = fetches.wanted.get(digest)
        if wanted is None or wanted.stage != "finishing":
            return
        full = how == "full"
        self.bench.act(fetches.failed(digest, how) if full else fetches.finished(digest, good=how == "good"))

    @rule(digest=st.sampled_from([A, B, C]))
    def fails(self, digest: bytes) -> None:
        wanted = self.bench.fetches.wanted.get(digest)
        if wanted is not None and wanted.stage in ("opening", "fetching"):
            self.bench.act(self.bench.fetches.failed(digest, "full"))

    @rule(seconds=st.sampled_from([0.01, 1.0, 20.0, 2000.0]))
    def time_passes(self, seconds: float) -> None:
        self.bench.now += seconds

    @rule(named=st.sets(st.sampled_from([A, B, C])))
    def are_named(self, named: set[bytes]) -> None:
        self.bench.act(self.bench.fetches.keep_only(named))

    @invariant()
    def holds(self) -> None:
        fetches = self.bench.fetches
        queues = [fetches._urgent, fetches._ready, fetches._parked, fetches._stuck, fetches._active]
        assert sorted(digest for q in queues for digest in q) == sorted(fetches.wanted)
        outstanding = dict.fromkeys(self.up, 0)
        for wanted in fetches.wanted.values():
            assert 0 <= wanted.received <= wanted.asked <= wanted.size
            assert (wanted.source is not None) is (wanted.stage in ("opening", "fetching"))
            assert wanted.active is (wanted.digest in fetches._active)
            if wanted.source is not None:
                outstanding[wanted.source] += wanted.asked - wanted.received
        assert outstanding == {device: state.outstanding for device, state in fetches._devices.items()}


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
