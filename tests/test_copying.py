"""How far a full copy has come, for people."""

from __future__ import annotations

from atop.environment import PAGE_SIZE
from replication.copying import CopyMeter, CopyStatus


def test_nothing_is_said_before_a_page_has_come_or_when_the_copy_is_complete() -> None:
    meter = CopyMeter()
    meter.saw(0, 0, 10.0)
    assert meter.status is None
    meter.saw(5, 0, 11.0)
    assert meter.status is not None
    meter.saw(8, 1, 12.0)
    assert meter.status is None


def test_the_time_left_follows_from_the_speed_so_far_once_the_size_is_known() -> None:
    meter = CopyMeter()
    meter.saw(0, 0, 10.0)
    meter.saw(100, 0, 12.0)
    assert meter.status == CopyStatus(100 * PAGE_SIZE)
    meter.expect(400 * PAGE_SIZE)
    meter.saw(200, 0, 14.0)
    assert meter.status == CopyStatus(200 * PAGE_SIZE, 400 * PAGE_SIZE, 4.0)


def test_tables_that_have_grown_meanwhile_are_not_more_than_copied() -> None:
    meter = CopyMeter()
    meter.expect(10 * PAGE_SIZE)
    meter.saw(0, 0, 10.0)
    meter.saw(20, 0, 12.0)
    assert meter.status == CopyStatus(20 * PAGE_SIZE, 20 * PAGE_SIZE, 0.0)


def test_an_environment_that_was_opened_anew_counts_from_the_start() -> None:
    meter = CopyMeter()
    meter.saw(50, 1, 10.0)
    meter.saw(0, 1, 11.0)
    meter.saw(3, 1, 12.0)
    assert meter.status == CopyStatus(3 * PAGE_SIZE)
