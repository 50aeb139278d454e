"""Values as a person reads them: counts, sizes, times. The script has the same rules for what it shows by itself."""

from __future__ import annotations

import datetime

_UNITS = ("bytes", "KB", "MB", "GB", "TB")


def count_text(number: int) -> str:
    """A count with its thousands apart: 12 345, with spaces that do not break."""
    return f"{number:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def size_text(size: int) -> str:
    """A size in bytes as `3.4 MB`: thousands, as file managers count."""
    if size == 1:
        return "1 byte"
    amount, unit = float(size), 0
    while amount >= 999.5 and unit < len(_UNITS) - 1:
        amount, unit = amount / 1000, unit + 1
    return f"{amount:.1f} {_UNITS[unit]}" if unit and amount < 99.95 else f"{amount:.0f} {_UNITS[unit]}"


def time_text(moment: datetime.datetime) -> str:
    """A moment in the time of this machine: `2024-05-01 09:30:12`."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")
