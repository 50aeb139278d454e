"""Serving the data browser: in the foreground for `atop browse`, or in a thread beside a device.

The server listens on the loopback interface unless it is told otherwise. The secret of its cookie is kept in the
store's `local/` directory, readable by its owner alone, so that a page that is open finds its server again after a
restart; the token of the first URL is new each time.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import secrets
import signal
import socket
import threading
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import uvicorn

from atop.browser.application import Browser, app
from atop.disk import explained, write_durably
from atop.errors import StoreError

log = logging.getLogger(__name__)

PORT = 4780
SECRET_SIZE = 32
SECRET_FILE = "browser.key"  # noqa: S105 - a name
# How many connections wait to be accepted.
BACKLOG = 256
# How long open requests have to end when the server stops, in seconds.
GRACE = 2


def is_loopback(address: str) -> bool:
    """Whether an address, or `localhost`, can be reached from this machine alone."""
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def exposure(address: str) -> str:
    """What it means to listen on an address that others can reach, in words to be shown; empty for the loopback."""
    if is_loopback(address):
        return ""
    return (
        f"listening on {address}: everyone who can reach this address and learns the token can read and change "
        "everything in the store, and the connection is not encrypted. Use it in a network that you trust, or put a "
        "server with TLS in front."
    )


def listen(address: str, port: int | None) -> socket.socket:
    """A listening socket; with no port, the usual one or, where that is taken, any. Raises StoreError."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    choices = [PORT, 0] if port is None else [port]
    for choice in choices:
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((address, choice))
            listener.listen(BACKLOG)
        except OSError as error:
            listener.close()
            if choice == choices[-1]:
                where = f"{address} port {choice}" if choice else address
                raise StoreError(
                    f"cannot listen on {where}: {error.strerror or error}; choose another with --host and --port"
                ) from error
            continue
        return listener
    raise AssertionError("a choice is made or raised for")


def kept_secret(local: Path) -> bytes:
    """The secret in the store's `local` directory, made on first use."""
    path = local / SECRET_FILE
    try:
        with contextlib.suppress(FileNotFoundError):
            secret = path.read_bytes()
            if len(secret) == SECRET_SIZE and not path.stat().st_mode & 0o077:
                return secret
        secret = secrets.token_bytes(SECRET_SIZE)
        write_durably(path, secret, 0o600)
        return secret
    except OSError as error:
        raise explained(error, path) from error


class Server:
    """A server that listens, and serves once `run` or `start` is called.

    Args:
        store_or_device: what `app` takes.
        address: where to listen; see `exposure` for any but the loopback interface.
        port: None for the usual one, or any that is free where that is taken; 0 for any.
        names: further names that people use for this machine.

    Raises:
        StoreError: it cannot listen there.
    """

    def __init__(
        self,
        store_or_device: Any,
        address: str = "127.0.0.1",
        port: int | None = None,
        names: Collection[str] = (),
    ) -> None:
        self._listener = listen(address, port)
        host = f"[{address}]" if ":" in address else address
        self.port: int = self._listener.getsockname()[1]
        shown = host
        hosts = [host, *names]
        if address in ("0.0.0.0", "::"):  # noqa: S104 - what a person asked for, with a warning
            shown = socket.gethostname()
            hosts += [shown, *_own_addresses()]
        store = getattr(store_or_device, "store", store_or_device)
        try:
            self.browser: Browser = app(store_or_device, hosts=hosts, secret=kept_secret(store.path / "local"))
        except BaseException:
            self._listener.close()
            raise
        self.base = f"http://{shown}:{self.port}"
        self.url = self.browser.first_url(self.base)
        config = uvicorn.Config(
            self.browser,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE,
            lifespan="on",
            ws="none",
        )
        self._server = _Uvicorn(config, self.browser)
        self._thread: threading.Thread | None = None

    def run(self) -> None:
        """Serve until Ctrl-C, SIGTERM, or `close`; then it returns."""
        try:
            self._server.run(sockets=[self._listener])
        finally:
            self._listener.close()

    def start(self) -> None:
        """Serve in a thread of its own; returns once requests are answered."""
        self._thread = threading.Thread(target=self._run_quietly, name="atop-browser", daemon=True)
        self._thread.start()
        self._server.ready.wait()

    def _run_quietly(self) -> None:
        try:
            with contextlib.closing(self._listener):
                asyncio.run(self._server.serve(sockets=[self._listener]))
        except Exception:
            log.exception("the data browser stopped")
        finally:
            self._server.ready.set()

    def close(self) -> None:
        """Stop serving, and wait for that; the store stays open. May be called again."""
        self._server.should_exit = True
        self.browser.close()
        if self._thread is not None:
            self._thread.join()
        self._listener.close()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class _Uvicorn(uvicorn.Server):
    """A server that says when it is ready, and ends the streams of events before it waits for requests to end."""

    def __init__(self, config: uvicorn.Config, browser: Browser) -> None:
        super().__init__(config)
        self.ready = threading.Event()
        self._browser = browser

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM end the server, and nothing else: the caller has a store to close."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn does."""
        await super().startup(sockets)
        self.ready.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn does, without waiting for pages that listen."""
        self._browser.close()
        await super().shutdown(sockets)


def _own_addresses() -> list[str]:
    """The addresses of this machine, as they stand in a Host header."""
    found: set[str] = set()
    with contextlib.suppress(OSError):
        for family, *_, where in socket.getaddrinfo(socket.gethostname(), None):
            found.add(f"[{where[0]}]" if family == socket.AF_INET6 else str(where[0]))
    return sorted(found)


def serve(store_or_device: Any, address: str = "127.0.0.1", port: int | None = None) -> None:
    """Serve the data browser until Ctrl-C or SIGTERM."""
    Server(store_or_device, address, port).run()


def serve_in_thread(store_or_device: Any, address: str = "127.0.0.1", port: int | None = None) -> Server:
    """Serve the data browser in a thread of its own; `url` of the result opens it, `close()` ends it."""
    server = Server(store_or_device, address, port)
    server.start()
    return server
