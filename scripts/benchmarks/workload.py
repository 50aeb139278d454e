"""The workload that every store runs: contacts with four indexes, made, fetched, paged, changed and committed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import date
from typing import Any, Protocol

BATCH = 1_000  # contacts created or changed in one transaction
PAGE = 50
INDEXES = ("name", "email", "city", "phone")

FIRST_NAMES = (
    *("Ada", "Bea", "Cyd", "Dan", "Eve", "Fay", "Gus", "Hal", "Ida", "Jon", "Kay", "Lou", "Mia"),
    *("Ned", "Ola", "Pia", "Quin", "Rae", "Sam", "Tim", "Uma", "Val", "Wes", "Xia", "Yul", "Zoe"),
)
LAST_NAMES = (
    *("Abel", "Boole", "Cantor", "Dirac", "Euler", "Fermat", "Gauss", "Hilbert"),
    *("Ito", "Jacobi", "Klein", "Laplace", "Markov", "Noether", "Ohm", "Pascal"),
)
CITIES = [
    name + end
    for name in ("Nor", "Sud", "Ost", "West", "Mid", "Alt", "Neu", "Ober")
    for end in ("au", "berg", "dorf", "heim", "stadt", "wald")
]


def contacts(count: int, seed: int = 1) -> Iterator[dict[str, Any]]:
    """`count` made-up contacts, the same ones for the same seed."""
    rng = random.Random(seed)
    for number in range(count):
        name = f"{rng.choice(FIRST_NAMES)} {rng.choice(LAST_NAMES)} {rng.randrange(10**6):06d}"
        yield {
            "name": name,
            "email": f"{name.replace(' ', '.').lower()}@example.org",
            "city": rng.choice(CITIES),
            "phone": f"+49 {rng.randrange(10**9):09d}",
            "born": date(1930 + rng.randrange(80), 1 + rng.randrange(12), 1 + rng.randrange(28)),
            "note": f"contact number {number}",
        }


def page_starts(count: int, seed: int = 2) -> list[str]:
    """Names to start pages at."""
    rng = random.Random(seed)
    return [f"{rng.choice(FIRST_NAMES)} {rng.choice(LAST_NAMES)} {rng.randrange(10**6):06d}" for _ in range(count)]


class Subject(Protocol):
    """One store under test. Each method is timed by the caller."""

    def open(self, path: str) -> None:
        """Make or open the store in the directory `path`."""

    def create(self, people: list[dict[str, Any]]) -> None:
        """Make these contacts in one transaction, flushed."""

    def ids(self) -> list[Any]:
        """What `get` takes, for every contact, in order of creation."""

    def get(self, identifier: Any) -> str:
        """The name of one contact, read from the store."""

    def page(self, start: str) -> list[str]:
        """The names of the next PAGE contacts from `start` on, in order of name."""

    def update(self, identifiers: list[Any], city: str) -> None:
        """Move these contacts to another city, in one transaction, flushed."""

    def close(self) -> None:
        """Close it."""
