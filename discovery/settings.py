"""What discovery is told: checked settings, intervals, clocks."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from discovery.addresses import PeerAddress
from discovery.interfaces import IGNORED_INTERFACES, Interface, Wanted, read_interfaces


def _time_since_boot() -> float:
    """Seconds since boot, sleep included where the system counts it; Linux's monotonic clock does not."""
    boot_clock: int | None = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boot_clock is None else time.clock_gettime(boot_clock)


@dataclass(frozen=True, slots=True)
class Timing:
    """Intervals in seconds. The defaults notice a changed network or a wake within 5 s."""

    poll: float = 2.0  # between two looks at the interfaces and the clocks
    # Changes of one interface acted on at once: unplugging and plugging in makes three or four, one for each
    # address that comes. Then one in so many seconds: what flaps for hours is announced six times a minute.
    change_burst: int = 10
    change_refill: float = 10.0
    wake_jump: float = 4.0  # a clock this far ahead of the monotonic one means that the machine slept
    wake_stall: float = 15.0  # a look this late means that the process was stopped, and missed things
    refresh_refill: float = 20.0  # between two refreshes for other reasons than a changed interface
    sweep_grace: float = 20.0  # after asking anew, time to answer; zeroconf asks after 0, 1, 5 and 14 s
    reread: float = 10.0  # between two looks at everything that zeroconf has cached
    flood_refill: float = 60.0  # between two fresh starts when forged names crowd out everything else
    reopen_first: float = 5.0  # after the multicast sockets could not be opened; doubles
    reopen_last: float = 60.0  # the most of that
    resolve: float = 60.0  # between two lookups of a fixed address that resolves


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What discovery knows of the world: tests replace it to make clocks jump and interfaces go."""

    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    since_boot: Callable[[], float] = _time_since_boot
    interfaces: Callable[[], tuple[Interface, ...]] = read_interfaces


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that stays the same from start to close. `group_tag` or `port` None: listen only."""

    name: str
    port: int | None
    device_id: str | None
    group_tag: str | None
    seeking: int | None
    interfaces: Wanted
    ignored: tuple[str, ...] = IGNORED_INTERFACES
    fixed: tuple[PeerAddress, ...] = ()
    multicast: bool = True
    timing: Timing = field(default_factory=Timing)
    surroundings: Surroundings = field(default_factory=Surroundings)

    @property
    def announces(self) -> bool:
        """Whether this device announces itself."""
        return self.multicast and None not in (self.port, self.device_id, self.group_tag)
