"""When to act on a change: flapping interfaces, a machine that slept, a log that must not fill up.

Pure: time is passed in (seconds of a clock that never goes back), nothing is read or sent.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class TokenBucket:
    """Allows a burst of actions, then one in every `refill_seconds`.

    Invariant: in any span of t seconds at most `burst + t / refill_seconds` calls of `take` return True.
    """

    def __init__(self, burst: int, refill_seconds: float) -> None:
        self._burst = burst
        self._refill_seconds = refill_seconds
        self._tokens = float(burst)
        self._filled_at: float | None = None

    def take(self, now: float) -> bool:
        """Whether one more action is allowed now; if so it is counted."""
        self._fill(now)
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def is_full(self, now: float) -> bool:
        """Whether nothing happened for so long that the bucket need not be kept."""
        self._fill(now)
        return self._tokens >= self._burst

    def _fill(self, now: float) -> None:
        if self._filled_at is not None and now > self._filled_at:
            self._tokens = min(self._burst, self._tokens + (now - self._filled_at) / self._refill_seconds)
        self._filled_at = now if self._filled_at is None else max(now, self._filled_at)


class Damper(Generic[Key, Value]):
    """Follows a set of named values, each of which may change only so often.

    A change is taken up at once unless its name has changed too often lately; then it is held back, and the
    value of that moment is taken up when its name's bucket allows. Other names are not held back with it.

    Invariant: `held` are the names whose value in `applied` is not the one last observed.
    """

    def __init__(self, burst: int, refill_seconds: float) -> None:
        self._burst = burst
        self._refill_seconds = refill_seconds
        self._buckets: dict[Key, TokenBucket] = {}
        self.applied: dict[Key, Value] = {}
        self.held: frozenset[Key] = frozenset()

    def observe(self, now: float, seen: Mapping[Key, Value]) -> bool:
        """Take up what may change; whether `applied` is now different."""
        changed = False
        held = set()
        for key in [*self.applied, *(key for key in seen if key not in self.applied)]:
            if seen.get(key) == self.applied.get(key):
                continue
            bucket = self._buckets.setdefault(key, TokenBucket(self._burst, self._refill_seconds))
            if not bucket.take(now):
                held.add(key)
                continue
            changed = True
            if key in seen:
                self.applied[key] = seen[key]
            else:
                del self.applied[key]
        self.held = frozenset(held)
        for key in [key for key, bucket in self._buckets.items() if bucket.is_full(now)]:
            del self._buckets[key]
        return changed


@dataclass(slots=True)
class WakeDetector:
    """Notices that this machine slept, or that this process was stopped, from how far clocks moved between
    two looks.

    `jump_seconds`: how much further than the monotonic clock another clock (wall clock, time since boot) has
    to move; above what NTP corrects in one step in daily use. `stall_seconds`: how late a look has to be.
    """

    jump_seconds: float
    stall_seconds: float
    _last: tuple[float, ...] | None = field(default=None, init=False)

    def observe(self, monotonic: float, *others: float) -> bool:
        """Whether, since the last look, time passed that this process did not see. The first look says no."""
        last, self._last = self._last, (monotonic, *others)
        if last is None or len(last) != len(self._last):
            return False
        passed = monotonic - last[0]
        ahead = (now - before - passed for now, before in zip(others, last[1:], strict=True))
        return passed > self.stall_seconds or any(seconds > self.jump_seconds for seconds in ahead)


class StateChanges(Generic[Key]):
    """Tells apart a problem that is new, one that goes on, and one that is over, so that each is logged once.

    The text of a problem may differ from time to time: that alone is no news.
    """

    def __init__(self) -> None:
        self._problems: dict[Key, str] = {}

    def is_news(self, key: Key, problem: str | None) -> bool:
        """Whether `key` just got a problem, or (with None) just got rid of one."""
        before = self._problems.pop(key, None)
        if problem is not None:
            self._problems[key] = problem
        return (before is None) != (problem is None)

    def problems(self) -> tuple[str, ...]:
        """The problems there are now, each as last told."""
        return tuple(self._problems.values())
