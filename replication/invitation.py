"""The code of a pairing, what it may be used for, and how a pairing can fail.

A code, `7-guitar-orbit`, is a number and two of 512 words. The number is public: it says which invitation is
meant, so that a device that joins does not spend another invitation's only guess. The secret is the words: 18
bits. An `Invitation` is such a code while it lives: ten minutes, and one guess, right or wrong.

What this module never does: show a code in `repr`, `str`, status or errors. Only `PairingCode.text` does.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from atop.errors import AtopError

from .words import SHORTEST_PREFIX, WORDS

CODE_SECONDS: Final = 600.0
"""A code lives ten minutes: time to walk to the other device, not for it to lie around."""

MAX_ATTEMPTS: Final = 32
"""Connections that one invitation answers; each costs about 15 ms of SPAKE2 in pure Python."""

MAX_NUMBER: Final = 99
"""The highest number of a code: two digits are easily said."""

MAX_CODE_CHARACTERS: Final = 80
"""The longest text that `PairingCode.parse` looks at."""

MAX_NAME_BYTES: Final = 63
"""A device's name in UTF-8: what fits the instance name of an mDNS announcement (RFC 6763, section 4.1.1)."""


class PairingFailed(AtopError):
    """The root of what ends a pairing; nothing was changed on this device."""


class InvalidPairingCode(PairingFailed, ValueError):
    """A text is not a pairing code. Nothing was sent, so the code is still good: type it again."""


class InvalidDeviceName(PairingFailed, ValueError):
    """A device name is empty, too long, or has characters that cannot be seen."""


class WrongCode(PairingFailed):
    """The two devices do not have the same code. It is spent now: make a new one."""


class CodeExpired(PairingFailed):
    """The code is older than ten minutes: make a new one."""


class CodeSpent(PairingFailed):
    """The code was used before, rightly or wrongly: make a new one."""


class PairingRefused(PairingFailed):
    """Somebody said no, here or on the other device; `why` is a number of `pairing.Refusal`."""

    why: int = 0


class PairingTimeout(PairingFailed):
    """The other device, or a person, took too long."""


class PairingVersion(PairingFailed):
    """The devices speak different versions of the pairing protocol: update the older one."""


class PairingBroken(PairingFailed):
    """The other side sent something that the protocol does not have there: broken, or an attack."""


class SameDevice(PairingFailed):
    """The other device has this device's own key: it was copied. Remove the identity on one of the two."""


@dataclass(frozen=True, slots=True)
class PairingCode:
    """A number and two words. Only `text` shows it; `number` alone is public."""

    number: int
    words: tuple[str, str] = field(repr=False)

    def __post_init__(self) -> None:
        if not 1 <= self.number <= MAX_NUMBER or len(self.words) != 2 or not set(self.words) <= set(WORDS):
            raise InvalidPairingCode("a pairing code is a number from 1 to 99 and two words of the list")

    @classmethod
    def random(cls, below: Callable[[int], int] = secrets.randbelow) -> PairingCode:
        """A new code; `below(n)` gives a uniform number from 0 to n - 1."""
        first, second = (WORDS[below(len(WORDS))] for _ in range(2))
        return cls(1 + below(MAX_NUMBER), (first, second))

    @classmethod
    def parse(cls, text: str) -> PairingCode:
        """Read a code as people type it: any case, spaces and dashes, words cut to four letters or more.

        Raises InvalidPairingCode, which says what to look at without repeating what was typed.
        """
        if len(text) > MAX_CODE_CHARACTERS:
            raise InvalidPairingCode("a pairing code is short, like 7-guitar-orbit")
        parts = re.findall(r"[0-9]+|[^\W\d_]+", text.lower())
        if len(parts) != 3 or not parts[0].isascii() or not parts[0].isdigit():
            raise InvalidPairingCode("a pairing code is a number and two words, like 7-guitar-orbit")
        if not 1 <= int(parts[0]) <= MAX_NUMBER:
            raise InvalidPairingCode(f"a pairing code begins with a number from 1 to {MAX_NUMBER}")
        return cls(int(parts[0]), (_word("first", parts[1]), _word("second", parts[2])))

    @property
    def text(self) -> str:
        """The code, for the screen of the inviting device and nothing else."""
        return f"{self.number}-{self.words[0]}-{self.words[1]}"

    def __str__(self) -> str:
        return f"{self.number}-…"


def _word(which: str, typed: str) -> str:
    if len(typed) >= SHORTEST_PREFIX:
        for word in WORDS:
            if word.startswith(typed):
                return word
    raise InvalidPairingCode(f"the {which} word is not one that codes are made of: compare its spelling")


def check_name(name: str) -> str:
    """Return `name` if a device can be called so, else raise InvalidDeviceName.

    1 to `MAX_NAME_BYTES` bytes of UTF-8, only visible characters and single spaces inside: a name is shown in
    terminals and lists, and must not move the cursor or turn the writing direction.
    """
    if not name or len(name.encode("utf-8", "replace")) > MAX_NAME_BYTES:
        raise InvalidDeviceName(f"a device name has 1 to {MAX_NAME_BYTES} bytes (UTF-8)")
    if not name.isprintable() or name != " ".join(name.split()):
        raise InvalidDeviceName("a device name has visible characters and single spaces only")
    return name


class Invitation:
    """One code, shown to one person, good for one guess. Shared by the `Inviter`s of all that connect.

    Invariant: at most one PROOF is ever compared with the code.
    """

    def __init__(self, code: PairingCode, now: float) -> None:
        self.code: Final = code
        self.deadline: Final = now + CODE_SECONDS
        # The right to guess is an object in a list: `pop` is one step, so two threads never both get it.
        self._guesses = [True]
        self._attempts = 0
        self._used = False

    @property
    def number(self) -> int:
        """The public part of the code, for the announcement."""
        return self.code.number

    def status(self, now: float) -> str:
        """One of "open", "used", "spent" (a wrong guess or too many connections) and "expired"."""
        if self._used:
            return "used"
        if not self._guesses:
            return "spent"
        return "open" if now < self.deadline else "expired"

    def check_open(self, now: float) -> None:
        """Raise CodeSpent or CodeExpired unless the code can still be used."""
        status = self.status(now)
        if status == "expired":
            raise CodeExpired("this code is older than ten minutes: make a new one on the inviting device")
        if status != "open":
            raise CodeSpent("this code was used already: make a new one on the inviting device")

    def cancel(self) -> None:
        """Let nobody in with this code any more."""
        self._guesses.clear()

    def begin_attempt(self, now: float) -> None:
        """Count a connection. Raises CodeSpent or CodeExpired."""
        self.check_open(now)
        self._attempts += 1
        if self._attempts > MAX_ATTEMPTS:
            self.cancel()
            self.check_open(now)

    def take_guess(self, now: float) -> None:
        """Spend the code. Raises CodeSpent or CodeExpired."""
        self.check_open(now)
        try:
            self._guesses.pop()
        except IndexError:
            self.check_open(now)

    def mark_used(self) -> None:
        """The guess was right."""
        self._used = True

    def __repr__(self) -> str:
        return f"<Invitation {self.number}-…>"
