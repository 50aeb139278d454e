"""Connecting: which address to try when, and the connection itself.

`Target` is pure: time and randomness are passed in. A target is a place where a device may be, as discovery found it
or a person wrote it down. It is tried at once when it is reported, then after 0.1 s, 0.2 s, 0.4 s ... up to 5 s, each
shortened at random by up to a half, so that two devices do not go on meeting in the middle; and only every 30 s where
the other side has said no for a reason that does not pass by itself.
"""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from .handshake import LinkClosed, LinkError, LinkLost, LinkRefused, LinkSilent
from .identity import DeviceId
from .messages import Reason
from .sockets import adopt, set_options

FIRST_RETRY_SECONDS: Final = 0.1
MAX_RETRY_SECONDS: Final = 5.0
REFUSED_RETRY_SECONDS: Final = 30.0
STAGGER_SECONDS: Final = 0.25
"""How long one address has before the next is tried beside it (RFC 8305, section 5)."""

LASTING: Final = frozenset({Reason.REMOVED, Reason.VERSION, Reason.SAME_DEVICE})
"""Reasons that only a person changes."""

_IN_PROGRESS: Final = {0, errno.EINPROGRESS, errno.EWOULDBLOCK}


@dataclass(slots=True)
class Target:
    """Where a device may be, and when to try. `device_claimed` is a short device id, heard and not proven."""

    key: str
    addresses: tuple[str, ...]
    port: int
    device_claimed: str | None
    due: float
    failures: int = 0
    tried: float = float("-inf")  # when the last attempt began
    dialing: bool = False
    device: DeviceId | None = None  # who answered there, proven
    problem: str | None = None  # why the last attempt failed

    def reported(self, now: float) -> None:
        """It was found, or has changed: try soon, whatever failed before."""
        self.failures = 0
        self.due = max(now, self.tried + FIRST_RETRY_SECONDS)

    def begin(self, now: float) -> None:
        """An attempt begins."""
        self.dialing = True
        self.tried = now

    def succeeded(self, device: DeviceId) -> None:
        """A link is up."""
        self.dialing = False
        self.failures = 0
        self.device = device
        self.problem = None

    def failed(self, now: float, error: LinkError, chance: float) -> None:
        """An attempt has failed, or a link from here has ended; `chance` is drawn from 0 to 1."""
        self.dialing = False
        self.problem = str(error)
        reason = error.reason if isinstance(error, LinkRefused | LinkClosed) else Reason.OTHER
        delay = min(FIRST_RETRY_SECONDS * 2 ** min(self.failures, 16), MAX_RETRY_SECONDS)
        if reason in LASTING:
            delay = REFUSED_RETRY_SECONDS
        self.failures += 1
        self.due = now + delay * (1 - chance / 2)


def connect(
    addresses: Sequence[str], port: int, deadline: float, cancelled: Callable[[], bool] = lambda: False
) -> socket.socket:
    """Connect to whichever of a device's addresses answers first; the next step is `handshake.introduce`.

    Each next address is tried a little after the one before, or when one has failed. `deadline` is a time of
    `time.monotonic`; `cancelled` is asked again and again. Addresses are numeric; an IPv6 one may have its zone.
    Raises LinkLost, LinkSilent.
    """
    untried = list(addresses)
    problem = "it has no address"
    with selectors.DefaultSelector() as selector, contextlib.ExitStack() as losers:
        while untried or selector.get_map():
            if untried:
                try:
                    sock = _begin(untried.pop(0), port)
                except OSError as error:
                    problem = error.strerror or str(error)
                    continue
                losers.callback(sock.close)
                selector.register(sock, selectors.EVENT_WRITE, sock)
            left = deadline - time.monotonic()
            if left <= 0 or cancelled():
                raise LinkSilent(f"no answer at {', '.join(addresses)}, port {port}")
            for key, _ in selector.select(min(left, STAGGER_SECONDS)):
                sock = key.data
                selector.unregister(sock)
                failed = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if not failed:
                    winner = adopt(sock.dup())  # the original is closed with the losers
                    set_options(winner)
                    return winner
                problem = _words(failed)
    raise LinkLost(f"cannot connect to {', '.join(addresses)}, port {port}: {problem}")


def _words(failed: int) -> str:
    """What an error number means, for people: Connection refused."""
    return os.strerror(failed)


def _begin(address: str, port: int) -> socket.socket:
    """Begin to connect. Raises OSError."""
    found = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    family, kind, protocol, _, place = found[0]
    sock = adopt(socket.socket(family, kind, protocol))
    sock.setblocking(False)
    failed = sock.connect_ex(place)
    if failed not in _IN_PROGRESS:
        sock.close()
        raise OSError(failed, _words(failed))
    return sock
