"""Errors as answers: a page for a person, JSON for a script, in plain words and never with a traceback.

What Atop raises on purpose has its own status; anything else is a bug, which is logged with its traceback and told as
one.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from atop import (
    AtopError,
    Conflict,
    NoMaster,
    NoSuchCommit,
    NoSuchFile,
    NoSuchIndex,
    NoSuchItem,
    NoSuchPool,
    NoTransaction,
    ReadOnlyItem,
    Restricted,
    StoreClosed,
    StoreError,
    StoreFull,
    TransactionTooLarge,
    UndoRefused,
    UnknownFormat,
    UnsafePickle,
    UnstorableValue,
    UpgradeFailed,
)
from atop.browser.views import Json, Refusal

log = logging.getLogger(__name__)

# The first class that an error is of decides.
STATUS: tuple[tuple[type[Exception], int], ...] = (
    (NoSuchItem, 404),
    (NoSuchPool, 404),
    (NoSuchFile, 404),
    (NoSuchCommit, 404),
    (NoSuchIndex, 409),
    (Conflict, 409),
    (UndoRefused, 409),
    (Restricted, 409),
    (ReadOnlyItem, 409),
    (UpgradeFailed, 409),
    (NoTransaction, 409),
    (TransactionTooLarge, 413),
    (UnstorableValue, 422),
    (UnknownFormat, 422),
    (UnsafePickle, 409),
    (StoreFull, 507),
    (StoreClosed, 503),
    (NoMaster, 503),
    (StoreError, 503),
    (AtopError, 409),
)

TITLES = {
    400: "This cannot be understood",
    404: "There is nothing here",
    405: "This cannot be done here",
    409: "This cannot be done as things are",
    413: "This is too large",
    500: "A bug in Atop",
    503: "The store is not available",
    507: "The disk is full",
}

_BUG = "This is a bug in Atop. Nothing of this request was kept. The log of the program has the details."
_NOT_FOUND = "No page has this address."


def answer(request: Request, status: int, kind: str, message: str, details: dict[str, Any] | None = None) -> Response:
    """An error as what the asker reads: JSON under /api, else a page."""
    path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
    if path.startswith("/api/") or "application/json" in request.headers.get("accept", ""):
        return Json({"error": kind, "message": message, **(details or {})}, status)
    browser = request.app.state.browser
    title = TITLES.get(status, "This was not done")
    response: Response = browser.pages.render(request, "problem.html", title, status, {"message": message})
    return response


async def _refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)  # noqa: S101 - it is registered for these alone
    return answer(request, error.status, "Refused", error.message, error.details)


async def _atop_error(request: Request, error: Exception) -> Response:
    status = next(status for kind, status in STATUS if isinstance(error, kind))
    if status >= 500:
        log.warning("%s %s: %s", request.method, request.url.path, error)
    return answer(request, status, type(error).__name__, str(error))


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - it is registered for these alone
    message = _NOT_FOUND if error.status_code == 404 else f"{error.detail}."
    response = answer(request, error.status_code, "Refused", message)
    response.headers.update(error.headers or {})
    return response


async def _system(request: Request, error: Exception) -> Response:
    """What the operating system refused while something was sent or kept: mostly a full disk."""
    assert isinstance(error, OSError)  # noqa: S101 - it is registered for these alone
    status = 507 if error.errno in (errno.ENOSPC, errno.EDQUOT) else 503
    log.warning("%s %s: %s", request.method, request.url.path, error)
    return answer(request, status, "System", f"The system refused: {error.strerror or 'an error without a name'}.")


async def _bug(request: Request, error: Exception) -> Response:
    log.error("%s %s failed: %r", request.method, request.url.path, error)  # the server logs the traceback
    return answer(request, 500, "Bug", _BUG)


async def _gone(_request: Request, _error: Exception) -> Response:
    return Response(status_code=400)  # nobody is there to read it


Problem = Callable[[Request, Exception], Awaitable[Response]]

HANDLERS: dict[Any, Problem] = {
    Refusal: _refusal,
    AtopError: _atop_error,
    HTTPException: _http_error,
    ClientDisconnect: _gone,
    OSError: _system,
    Exception: _bug,
}
