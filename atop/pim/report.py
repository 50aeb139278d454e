"""What an import did, and what it is working on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

# Skipped records that a report names; all are counted, and all are told to `on_skip`.
MAX_NAMED = 10_000


class Skipped(NamedTuple):
    """A record that did not go in, or not whole: the file, the line where it begins (0: the whole file), and why."""

    path: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.path}{f':{self.line}' if self.line else ''}: {self.reason}"


Progress = Callable[[int, int], None]
OnSkip = Callable[[Skipped], None]


@dataclass
class Report:
    """What became of the records of an import: each is counted once.

    `skipped` names the first `MAX_NAMED` of `skipped_count`. Where a record went in but something of it could not be
    taken up, it is counted as added or updated, and named in `incomplete`, in the same way.
    """

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    skipped: list[Skipped] = field(default_factory=list)
    skipped_count: int = 0
    incomplete: list[Skipped] = field(default_factory=list)
    incomplete_count: int = 0

    def count(self, outcome: str) -> None:
        """Count a record as "added", "updated" or "unchanged"."""
        setattr(self, outcome, getattr(self, outcome) + 1)

    def skip(self, skipped: Skipped) -> None:
        """Count and name a record that did not go in."""
        self.skipped_count += 1
        if len(self.skipped) < MAX_NAMED:
            self.skipped.append(skipped)

    def lose(self, skipped: Skipped) -> None:
        """Count and name something that is missing in a record that went in."""
        self.incomplete_count += 1
        if len(self.incomplete) < MAX_NAMED:
            self.incomplete.append(skipped)
