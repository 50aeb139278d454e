"""Who is master: what is decided on each event, shown without a store or a network."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replication import roles
from replication.messages import Role, Status
from replication.roles import (
    Appointed,
    AskForGeneration,
    AskHistory,
    BecomeMaster,
    BecomeReplica,
    Behind,
    Elected,
    ElectionEnded,
    Event,
    GaveWay,
    GenerationWanted,
    Heard,
    HistoryAnswered,
    HoldElection,
    InStep,
    LinkDown,
    LinkUp,
    MasterFound,
    RaiseGeneration,
    Roles,
    Secured,
    Self,
    Sync,
    Tell,
    Tick,
    WriteWanted,
)

OWN, LAPTOP, PHONE = b"a" * 32, b"b" * 32, b"c" * 32
CHAIN = bytes(32)


def me(number: int = 10, generation: int = 1, found: bytes | None = None, **more: Any) -> Self:
    return Self(generation, number, CHAIN, found, **more)


def says(role: Role, number: int = 10, generation: int = 1, master: bytes | None = None) -> Status:
    return Status(role, generation, master, roles.PRIORITY, number, CHAIN, [])


def device(*events: Event, **settings: Any) -> Roles:
    """A device of a group of three that has seen these events."""
    decisions = Roles(OWN, **{"members": 3, **settings})
    for event in events:
        decisions.step(event, 0.0, me())
    return decisions


def after(decisions: Roles, event: Event, now: float = 100.0, **how: Any) -> list[roles.Action]:
    """What is to be done, statuses to other devices aside."""
    return [action for action in decisions.step(event, now, me(**how)) if action != Tell()]


FOLLOWING = (LinkUp(LAPTOP), MasterFound(LAPTOP), HistoryAnswered(LAPTOP, 10, True), InStep())
MASTER = (LinkUp(LAPTOP), Elected())


def test_nothing_is_done_before_another_device_or_a_write_asks_for_it() -> None:
    assert after(device(), Tick()) == []


def test_a_write_makes_a_device_alone_master() -> None:
    decisions = device(Tick())
    assert after(decisions, WriteWanted()) == [BecomeMaster()]
    assert decisions.role is Role.MASTER


def test_a_write_just_after_the_start_gives_other_devices_time_to_appear() -> None:
    decisions = device(Tick())
    assert after(decisions, WriteWanted(), now=roles.START_GRACE / 2) == []
    assert after(decisions, WriteWanted(), now=roles.START_GRACE) == [BecomeMaster()]


def test_a_device_that_sees_others_does_not_take_over_by_itself() -> None:
    assert after(device(LinkUp(LAPTOP)), WriteWanted()) == []


def test_devices_without_a_master_hold_an_election() -> None:
    decisions = device(LinkUp(LAPTOP))
    assert after(decisions, Heard(LAPTOP, says(Role.REPLICA))) == [HoldElection(2, 2)]
    assert decisions.role is Role.ELECTING


def test_an_election_waits_until_every_reachable_device_has_said_how_it_stands() -> None:
    decisions = device(LinkUp(LAPTOP), LinkUp(PHONE))
    assert after(decisions, Heard(LAPTOP, says(Role.REPLICA))) == []
    assert after(decisions, Heard(PHONE, says(Role.REPLICA))) == [HoldElection(3, 2)]


def test_the_loss_of_the_master_is_followed_by_an_election_at_once() -> None:
    decisions = device(*FOLLOWING, LinkUp(PHONE), Heard(PHONE, says(Role.REPLICA)))
    assert after(decisions, LinkDown(LAPTOP)) == [HoldElection(2, 2)]


def test_a_failed_election_is_held_again_after_a_pause() -> None:
    decisions = device(LinkUp(LAPTOP), Heard(LAPTOP, says(Role.REPLICA)))
    assert after(decisions, ElectionEnded(failed=True), now=1.0) == []
    assert after(decisions, Tick(), now=1.0 + roles.ELECTION_PAUSE) == [HoldElection(2, 2)]


def test_a_master_that_has_all_that_is_here_is_followed() -> None:
    decisions = device(LinkUp(LAPTOP))
    assert after(decisions, MasterFound(LAPTOP)) == [AskHistory(LAPTOP, 10)]
    assert after(decisions, HistoryAnswered(LAPTOP, 10, True)) == [Sync()]
    after(decisions, InStep())
    assert (decisions.role, decisions.master) == (Role.REPLICA, LAPTOP)


def test_a_master_that_lacks_what_is_here_is_not_followed() -> None:
    decisions = device(LinkUp(LAPTOP), MasterFound(LAPTOP))
    assert after(decisions, HistoryAnswered(LAPTOP, 10, False)) == [AskHistory(LAPTOP, 10)]  # it may get it yet
    assert decisions.role is Role.WAITING
    assert decisions.parted
    assert after(decisions, WriteWanted()) == []


def test_what_a_master_lacks_is_given_up_once_it_is_in_safety() -> None:
    decisions = device(LinkUp(LAPTOP), MasterFound(LAPTOP), HistoryAnswered(LAPTOP, 10, False))
    for other in (Secured(PHONE, 10, CHAIN), Secured(LAPTOP, 9, CHAIN), Secured(LAPTOP, 10, b"x" * 32)):
        assert Sync() not in after(decisions, other)  # another master, not all that is here, another history
        assert decisions.parted
    assert Sync() in after(decisions, Secured(LAPTOP, 10, CHAIN))
    assert not decisions.parted


def test_an_answer_of_a_master_that_is_none_any_more_does_not_count() -> None:
    decisions = device(LinkUp(LAPTOP), LinkUp(PHONE), MasterFound(LAPTOP), MasterFound(PHONE))
    assert after(decisions, HistoryAnswered(LAPTOP, 10, True), now=0.0) == []


def test_a_question_about_the_history_that_is_not_answered_is_asked_again() -> None:
    decisions = device(LinkUp(LAPTOP), MasterFound(LAPTOP))
    assert after(decisions, Tick(), now=0.1) == []
    assert after(decisions, Tick(), now=1.0) == [AskHistory(LAPTOP, 10)]
    assert after(decisions, HistoryAnswered(LAPTOP, 10, True), now=1.1) == [Sync()]
    assert after(decisions, Tick(), now=2.0) == []


def test_a_rollback_that_stands_still_is_asked_for_again() -> None:
    decisions = device(LinkUp(LAPTOP), MasterFound(LAPTOP))
    assert after(decisions, HistoryAnswered(LAPTOP, 10, True), now=1.0) == [Sync()]
    assert after(decisions, Tick(), now=1.5) == []
    assert after(decisions, Tick(), now=2.5) == [BecomeReplica()]
    assert after(decisions, Tick(), now=3.0) == []
    assert after(decisions, Tick(), now=3.4, number=9) == []
    assert after(decisions, Tick(), now=4.0, number=9) == []


def test_a_device_without_a_copy_has_nothing_to_lose_and_never_leads() -> None:
    decisions = device(LinkUp(LAPTOP), has_copy=False)
    assert after(decisions, Heard(LAPTOP, says(Role.REPLICA))) == []
    assert after(decisions, Appointed()) == []
    assert after(decisions, MasterFound(LAPTOP)) == [Sync()]


def test_the_master_that_comes_back_is_followed_again_without_being_found_again() -> None:
    decisions = device(*FOLLOWING, LinkDown(LAPTOP), LinkUp(LAPTOP))
    assert after(decisions, Heard(LAPTOP, says(Role.MASTER)), found=LAPTOP) == [BecomeReplica()]
    assert (decisions.role, decisions.master) == (Role.REPLICA, LAPTOP)


def test_a_copy_that_was_broken_off_begins_again_when_the_link_is_back() -> None:
    decisions = device(*FOLLOWING[:3], LinkDown(LAPTOP), LinkUp(LAPTOP))
    actions = after(decisions, Heard(LAPTOP, says(Role.MASTER)), found=LAPTOP)
    assert actions == [AskHistory(LAPTOP, 10), BecomeReplica()]


@pytest.mark.parametrize(("theirs", "keeps"), [(9, True), (11, False)])
def test_of_two_masters_the_one_with_more_commits_keeps(theirs: int, keeps: bool) -> None:
    decisions = device(*MASTER)
    assert after(decisions, Heard(LAPTOP, says(Role.MASTER, theirs))) == ([] if keeps else [BecomeReplica()])


@given(st.integers(0, 5), st.integers(0, 5), st.booleans())
def test_of_two_masters_exactly_one_keeps(mine: int, theirs: int, swapped: bool) -> None:
    ids = [OWN, LAPTOP][:: -1 if swapped else 1]
    gives_way = []
    for own, other, ours, others in ((ids[0], ids[1], mine, theirs), (ids[1], ids[0], theirs, mine)):
        decisions = Roles(own, members=2)
        decisions.step(LinkUp(other), 0.0, me(ours))
        decisions.step(Elected(), 0.0, me(ours))
        gives_way.append(BecomeReplica() in decisions.step(Heard(other, says(Role.MASTER, others)), 1.0, me(ours)))
    assert sorted(gives_way) == [False, True]


def test_the_master_that_keeps_begins_a_later_generation_than_the_other_had() -> None:
    decisions = device(*MASTER, Heard(LAPTOP, says(Role.MASTER, 5, generation=1)))
    stood_down = Heard(LAPTOP, says(Role.REPLICA, 5, generation=1))
    assert after(decisions, stood_down, generation=1) == [RaiseGeneration()]
    assert after(decisions, Tick(), generation=2) == []


def test_a_replica_of_a_later_generation_makes_the_master_begin_a_new_one() -> None:
    decisions = device(*MASTER)
    assert after(decisions, Heard(LAPTOP, says(Role.REPLICA, generation=4))) == [RaiseGeneration()]


def test_a_replica_of_another_master_is_left_to_that_one() -> None:
    decisions = device(*MASTER)
    assert after(decisions, Heard(LAPTOP, says(Role.REPLICA, generation=4, master=PHONE))) == []


def test_a_master_does_not_follow_one_that_was_found_before() -> None:
    decisions = device(*MASTER)
    assert after(decisions, MasterFound(LAPTOP)) == []
    assert decisions.role is Role.MASTER


def test_a_second_master_of_one_generation_is_asked_to_begin_another() -> None:
    decisions = device(*FOLLOWING, LinkDown(LAPTOP), LinkUp(PHONE))
    actions = after(decisions, Heard(PHONE, says(Role.MASTER, generation=3)), generation=3, found=LAPTOP)
    assert actions == [AskForGeneration(PHONE), BecomeReplica()]
    led = device(*MASTER)
    assert after(led, GenerationWanted(3), generation=3) == [RaiseGeneration()]
    assert after(led, GenerationWanted(3), generation=4) == []


def test_who_is_appointed_does_not_mind_what_the_old_master_said_before() -> None:
    decisions = device(*FOLLOWING, Heard(LAPTOP, says(Role.MASTER, 10)))
    assert after(decisions, Appointed()) == [BecomeMaster()]
    assert decisions.role is Role.MASTER


def test_who_gave_way_leaves_the_other_time_before_it_calls_an_election() -> None:
    decisions = device(*MASTER, Heard(LAPTOP, says(Role.REPLICA, master=OWN)))
    assert after(decisions, GaveWay(LAPTOP), now=5.0) == []
    assert after(decisions, Tick(), now=7.0) == [HoldElection(2, 2)]


def test_a_master_that_says_it_is_none_is_followed_no_longer() -> None:
    decisions = device(*FOLLOWING)
    assert after(decisions, Heard(LAPTOP, says(Role.REPLICA, generation=1))) == [HoldElection(2, 2)]


def test_standing_still_behind_the_master_makes_a_replica_ask() -> None:
    decisions = device(*FOLLOWING)
    assert after(decisions, Behind(), now=1.0) == []
    assert after(decisions, Behind(), now=1.0 + roles.STALL_SECONDS) == [BecomeReplica()]


def test_getting_on_behind_the_master_does_not_make_a_replica_ask() -> None:
    decisions = device(*FOLLOWING)
    assert after(decisions, Behind(), now=1.0, number=10) == []
    assert after(decisions, Behind(), now=2.0, number=11) == []


def test_records_known_to_be_dropped_are_asked_for_at_once() -> None:
    assert after(device(*FOLLOWING), Behind(dropped=True)) == [BecomeReplica()]


def test_a_full_copy_that_stands_still_is_begun_anew() -> None:
    decisions = device(LinkUp(LAPTOP), MasterFound(LAPTOP), has_copy=False)
    assert after(decisions, Tick(), now=1000.0) == [BecomeReplica()]  # no page has come
    assert after(decisions, Tick(), now=1001.0, pages=5) == []
    assert after(decisions, Tick(), now=1005.0, pages=6) == []
    assert after(decisions, Tick(), now=1009.0, pages=6) == []
    assert after(decisions, Tick(), now=1010.5, pages=6) == [AskForGeneration(LAPTOP)]
    assert after(decisions, Tick(), now=1020.0, pages=6) == []
    assert after(decisions, Tick(), now=1021.0, pages=6) == [AskForGeneration(LAPTOP)]


def test_a_full_copy_whose_link_was_lost_is_begun_anew_when_there_is_one_again() -> None:
    decisions = device(LinkUp(LAPTOP), MasterFound(LAPTOP), has_copy=False)
    assert after(decisions, Tick(), now=1.0, pages=5) == []
    assert after(decisions, LinkDown(LAPTOP), now=2.0, pages=5) == []
    decisions.step(LinkUp(LAPTOP), 3.0, me(pages=5, found=LAPTOP))
    heard = Heard(LAPTOP, says(Role.MASTER, master=LAPTOP))
    assert after(decisions, heard, now=3.0, pages=5, found=LAPTOP) == [Sync(), BecomeReplica()]
    assert after(decisions, Tick(), now=4.5, pages=5, found=LAPTOP) == [AskForGeneration(LAPTOP)]


def test_a_full_copy_of_which_something_was_dropped_is_begun_anew_soon_if_nothing_more_comes() -> None:
    decisions = device(LinkUp(LAPTOP), MasterFound(LAPTOP), has_copy=False)
    assert after(decisions, Tick(), now=1.0, pages=5) == []
    assert after(decisions, Behind(dropped=True), now=1.5, pages=5) == []
    assert after(decisions, Tick(), now=2.2, pages=5) == [AskForGeneration(LAPTOP)]


def test_being_in_step_counts_even_if_it_was_told_while_another_master_was_thought_of() -> None:
    decisions = device(LinkUp(LAPTOP), MasterFound(LAPTOP))
    assert after(decisions, HistoryAnswered(LAPTOP, 10, True), now=0.0) == [Sync()]
    decisions.step(Tick(), 0.1, me(found=PHONE, in_step=True))
    assert decisions.role is Role.WAITING
    decisions.step(Tick(), 0.2, me(found=LAPTOP, in_step=True))
    assert (decisions.role, decisions.master) == (Role.REPLICA, LAPTOP)


def test_with_majority_a_minority_has_no_master() -> None:
    decisions = device(majority=True)
    assert after(decisions, WriteWanted()) == []
    led = device(LinkUp(LAPTOP), Elected(), majority=True)
    assert after(led, LinkDown(LAPTOP)) == [BecomeReplica()]


def test_with_majority_an_election_needs_more_than_half_of_the_group() -> None:
    decisions = device(LinkUp(LAPTOP), LinkUp(PHONE), Heard(LAPTOP, says(Role.REPLICA)), members=5, majority=True)
    assert after(decisions, Heard(PHONE, says(Role.REPLICA))) == [HoldElection(3, 3)]


EVENTS = st.one_of(
    st.sampled_from(
        [
            LinkUp(LAPTOP),
            LinkUp(PHONE),
            LinkDown(LAPTOP),
            LinkDown(PHONE),
            MasterFound(LAPTOP),
            MasterFound(PHONE),
            HistoryAnswered(LAPTOP, 10, True),
            HistoryAnswered(PHONE, 10, False),
            Secured(PHONE, 10, CHAIN),
            Secured(PHONE, 9, CHAIN),
            Elected(),
            ElectionEnded(True),
            ElectionEnded(False),
            InStep(),
            Behind(),
            WriteWanted(),
            Appointed(),
            GaveWay(PHONE),
            Tick(),
        ]
    ),
    st.builds(
        lambda device, role, number, generation: Heard(device, says(role, number, generation)),
        st.sampled_from([LAPTOP, PHONE]),
        st.sampled_from(list(Role)),
        st.integers(0, 20),
        st.integers(0, 4),
    ),
)


@given(st.lists(EVENTS, max_size=30))
def test_whatever_happens_nothing_is_synced_that_was_not_found_to_be_safe(events: list[Event]) -> None:
    decisions = Roles(OWN, members=3)
    for now, event in enumerate(events):
        actions = decisions.step(event, float(now), me())
        if Sync() in actions:
            assert event in (HistoryAnswered(decisions.master or b"", 10, True), Secured(PHONE, 10, CHAIN))
        assert not decisions.parted or decisions.role is Role.WAITING
        assert (decisions.role is Role.MASTER) == (decisions.master == OWN)


def test_a_device_that_has_no_others_any_more_is_master_by_itself() -> None:
    decisions = device(*FOLLOWING)
    assert after(decisions, LinkDown(LAPTOP)) == []
    decisions.members = 1
    assert after(decisions, Tick()) == [BecomeMaster()]


def test_a_device_is_master_for_others_that_wait_for_their_first_copy() -> None:
    decisions = device(LinkUp(LAPTOP))
    assert after(decisions, Heard(LAPTOP, says(Role.REPLICA, number=0))) == [BecomeMaster()]
    assert after(device(LinkUp(LAPTOP)), Heard(LAPTOP, says(Role.REPLICA, number=1))) == [HoldElection(2, 2)]
