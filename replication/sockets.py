"""What every socket of replication has in common: its options, how it is closed, and that a fork does not keep it.

A forked child holds a copy of each descriptor. With it a link would stay open when this process has died, and the
other device would wait for nothing; so the child closes its copies at once, and without a word on the wire.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import time
import weakref
from typing import Final

UNSENT_BYTES: Final = 128 << 10
"""How much the kernel takes that is not on its way yet (TCP_NOTSENT_LOWAT): what is urgent waits behind no more."""

MAX_UNREAD_READS: Final = 16
"""How much of what nobody wants is thrown away before a connection is closed, in reads of 64 KiB."""

_ours: weakref.WeakSet[socket.socket] = weakref.WeakSet()


def adopt(sock: socket.socket) -> socket.socket:
    """Close this socket in forked children; returns it."""
    _ours.add(sock)
    return sock


def set_options(sock: socket.socket) -> None:
    """What a connection needs: no waiting for more to send, and a short queue in the kernel. Raises OSError."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)


def set_timeouts(sock: socket.socket, *, receive: float, send: float) -> None:
    """Let calls on a blocking socket end with BlockingIOError after so many seconds.

    The kernel does the waiting: `settimeout` would add a system call to each one.
    """
    sock.settimeout(None)
    for option, seconds in ((socket.SO_RCVTIMEO, receive), (socket.SO_SNDTIMEO, send)):
        sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", int(seconds), int(seconds % 1 * 1_000_000)))


def close_politely(sock: socket.socket, linger: float = 0.0) -> None:
    """Close such that what was sent still arrives: a close with unread data would destroy it on the way.

    Waits for the other side to close too, for at most `linger` seconds.
    """
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_WR)
        deadline = time.monotonic() + linger
        for _ in range(MAX_UNREAD_READS):
            sock.settimeout(max(0.0, deadline - time.monotonic()))
            if not sock.recv(1 << 16):
                break
    sock.close()


def end(sock: socket.socket) -> None:
    """Let whoever waits on the socket, in another thread, find that it is over; that thread closes it."""
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def _close_in_child() -> None:
    for sock in list(_ours):
        with contextlib.suppress(OSError):
            sock.close()


os.register_at_fork(after_in_child=_close_in_child)
