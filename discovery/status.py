"""What discovery says of itself: frozen values, fit to be shown, without secrets."""

from __future__ import annotations

from dataclasses import dataclass

from discovery.candidates import Candidate
from discovery.resolving import FixedStatus


@dataclass(frozen=True, slots=True)
class InterfaceStatus:
    """An interface in use. `flapping`: it changes so often that its latest change is held back."""

    name: str
    addresses: tuple[str, ...]
    flapping: bool = False


@dataclass(frozen=True, slots=True)
class DiscoveryStatus:
    """How discovery is doing.

    `announced_as` is the instance name that others see, None while there is none. `left_out` names each
    interface that is not used, with the reason. `problems` are those of now, `last_error` is the latest there
    ever was. `other_groups` counts the devices heard that belong to other groups, `unusable` announcements
    that make no sense, `crowded_out` those dropped because there were too many; `refreshes` how often the
    network was asked anew.
    """

    running: bool = False
    announced_as: str | None = None
    interfaces: tuple[InterfaceStatus, ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()
    fixed: tuple[FixedStatus, ...] = ()
    candidates: tuple[Candidate, ...] = ()
    problems: tuple[str, ...] = ()
    last_error: str | None = None
    other_groups: int = 0
    unusable: int = 0
    crowded_out: int = 0
    refreshes: int = 0
