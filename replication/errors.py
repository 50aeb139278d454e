"""What a device may be told that no other module has a word for. All derive from `atop.AtopError`."""

from __future__ import annotations

from atop.errors import AtopError


class NotAMember(AtopError):
    """This device does not belong to a group, or not any more; or what was asked for needs one."""


class NotRunning(AtopError):
    """The process that owns the store runs no device, so nothing can be asked of one."""
