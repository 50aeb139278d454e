"""The hybrid clock: wall time, but later than every commit that was seen.

A commit has a time so that "later" means something when what devices did apart is brought together. So a device's
clock is never behind a commit that it has seen, however far its own is slow. But one device whose clock is years ahead
must not take all others along for ever: what is more than `MAX_LEAP` ahead of the wall is passed over. Such a commit
keeps the time that it has; those after it have the time that it is.

Times are in microseconds since 1970.
"""

from __future__ import annotations

import time
from typing import Final

MAX_LEAP: Final = 24 * 3600 * 1_000_000
"""How far ahead of this device's clock another one is believed, in microseconds: further is no slowness of ours."""


def wall() -> int:
    """What the system's clock says."""
    return time.time_ns() // 1000


def is_believed(moment: int) -> bool:
    """Whether a time may be that of a clock which is right, or nearly so."""
    return moment <= wall() + MAX_LEAP


def latest(seen: int, moment: int) -> int:
    """The latest time that was seen, after one more has been: passed over if it is too far ahead."""
    return moment if moment > seen and is_believed(moment) else seen


def after(*seen: int) -> int:
    """The time of something that comes after what has been seen."""
    now = wall()
    furthest = now + MAX_LEAP
    for moment in seen:
        if now <= moment <= furthest:
            now = moment + 1
    return now
