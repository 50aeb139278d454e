"""The errors that this package raises on purpose.

It has its own root because it knows nothing of the store: whoever uses both turns these into errors of its
own. Trouble on the network is never raised: it is part of `Discovery.status()`, and discovery tries again by
itself.
"""

from __future__ import annotations


class DiscoveryError(Exception):
    """The root of all errors of discovery."""


class SettingError(DiscoveryError, ValueError):
    """A name, port, tag or list of interfaces that discovery cannot work with; the message says why."""


class AddressError(DiscoveryError, ValueError):
    """A fixed address that cannot be read; `text` is what was given and the message shows how to write it."""

    def __init__(self, message: str, text: str) -> None:
        super().__init__(message)
        self.text = text


class AnnouncementError(DiscoveryError):
    """Something heard on the network that is no sound announcement of a device; it is counted and dropped."""
