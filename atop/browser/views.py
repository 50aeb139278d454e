"""What a view is made of: routes, entries of the navigation, and the call that a handler is given.

Handlers run in a thread of a pool, so they may use the store; bodies are read before that, each with a limit. What a
handler returns is a Response, or a value that becomes JSON.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from atop import Store

if TYPE_CHECKING:
    from atop.browser.application import Browser

# Bytes of a JSON body: room for an edit of ten thousand items, or for a long text.
MAX_BODY = 4 << 20
# How deep JSON may be nested: as deep as the store keeps values, and a little for what is around them.
MAX_NESTING = 120

Handler = Callable[["Call"], Any]


class Refusal(Exception):
    """The request itself is wrong. `status` is that of HTTP, `message` a sentence for a person."""

    def __init__(self, status: int, message: str, **details: Any) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.details = details


@dataclass(frozen=True)
class Entry:
    """A line of the navigation. `icon` is a name in `icons.html`; `group` "views" stands above the pools."""

    label: str
    path: str
    icon: str
    group: str = "views"
    pool: str = ""  # shown only where the store has a pool of this name
    counted: bool = False  # shown with the number of items in that pool, and only while there are any


@dataclass(frozen=True)
class View:
    """What a module adds."""

    routes: Sequence[BaseRoute]
    entries: Sequence[Entry] = ()


@dataclass
class Call:
    """One request, as a handler sees it."""

    request: Request
    browser: Browser
    body: dict[str, Any] = field(default_factory=dict)

    @property
    def store(self) -> Store:
        """The store that is shown."""
        return self.browser.store

    @property
    def device(self) -> Any:
        """The `replication.Device` that the store is on, or None."""
        return self.browser.device

    @property
    def path(self) -> Mapping[str, Any]:
        """The parts of the path that the route names."""
        return self.request.path_params

    @property
    def query(self) -> Mapping[str, str]:
        """What stands behind the question mark."""
        return self.request.query_params

    def page(self, template: str, title: str, status: int = 200, **context: Any) -> Response:
        """A page made of a template."""
        return self.browser.pages.render(self.request, template, title, status, context)

    def number(self, name: str, default: int, low: int, high: int) -> int:
        """A whole number of the query. Raises Refusal unless it is from `low` to `high`."""
        text = self.query.get(name, "")
        if not text:
            return default
        if not (text.isascii() and text.isdigit() and len(text) <= 19 and low <= int(text) <= high):
            raise Refusal(400, f"{name} should be a whole number from {low:,} to {high:,}.")
        return int(text)

    def text(self, name: str, longest: int = 1_000) -> str:
        """A text of the query, empty if it is not there. Raises Refusal if it is too long or no text."""
        text = self.query.get(name, "")
        if len(text) > longest:
            raise Refusal(400, f"{name} is longer than {longest:,} characters.")
        return checked_text(text, name)

    def field(self, name: str, kind: type, default: Any = None) -> Any:
        """A member of the JSON body, of this type. Raises Refusal; without a default it must be there."""
        value = self.body.get(name, default)
        if type(value) is not kind and (value is not default or default is None):
            raise Refusal(400, f"The body needs {name!r}, a {_WORDS.get(kind, kind.__name__)}.")
        return checked_text(value, name) if isinstance(value, str) else value


_WORDS = {str: "text", int: "whole number", dict: "object", list: "list", bool: "true or false"}


def checked_text(text: str, name: str) -> str:
    """The text itself. Raises Refusal if it has half of a surrogate pair, which no page can show."""
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise Refusal(400, f"{name} is not text that can be written as UTF-8.")
    return text


class Json(JSONResponse):
    """JSON of data that may hold anything: halves of surrogate pairs, which UTF-8 lacks, become question marks."""

    def render(self, content: Any) -> bytes:
        """The octets."""
        text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.encode("utf-8", "replace")


def page(path: str, handler: Handler, name: str | None = None) -> Route:
    """A route for a page that is read."""
    return Route(path, _endpoint(handler), methods=["GET"], name=name)


def action(path: str, handler: Handler, methods: Sequence[str] = ("POST",)) -> Route:
    """A route of the HTTP interface: JSON in, JSON out."""
    return Route(path, _endpoint(handler), methods=list(methods))


def _endpoint(handler: Handler) -> Callable[[Request], Any]:
    async def endpoint(request: Request) -> Response:
        body = {} if request.method in ("GET", "HEAD") else await read_json(request)
        call = Call(request, request.app.state.browser, body)
        answer = await run_in_threadpool(handler, call)
        return answer if isinstance(answer, Response) else Json(answer)

    return endpoint


async def read_json(request: Request) -> dict[str, Any]:
    """The object in the body of a request; an empty one for an empty body. Raises Refusal."""
    data = await read_body(request, MAX_BODY)
    if not data:
        return {}
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise Refusal(415, "The body should be JSON, with the content type application/json.")
    try:
        value = json.loads(data, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise Refusal(400, "The body is not JSON.") from None
    if not isinstance(value, dict):
        raise Refusal(400, "The body should be a JSON object.")
    return value


def _refuse_constant(name: str) -> Any:
    raise ValueError(name)


async def read_body(request: Request, limit: int) -> bytes:
    """The body of a request. Raises Refusal once it is longer than `limit` bytes."""
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise Refusal(413, f"The body is longer than {limit:,} bytes.")
        chunks.append(chunk)
    return b"".join(chunks)
