"""Who may ask, and what an answer may do in a browser: an ASGI application around the real one.

Promises, for every request:

1. `Host` is one of those that this server is known by. A page of another site whose name was pointed to this address
   (DNS rebinding) is turned away.
2. The request has the cookie, or the token: in the first URL (`?token=`), which exchanges it for the cookie, or as
   `Authorization: Bearer`. Both are compared in constant time. The cookie is HttpOnly and SameSite=Strict.
3. What changes something comes from a page of this very origin, by `Origin`; or it has the token as a header, which no
   page of another origin can send. What is only read is not handed to scripts and frames of another origin or port.
4. The answer has a content security policy without `unsafe-inline`, and headers that forbid sniffing, framing,
   referrers and keeping it in a cache. A handler may set a stricter one of these itself.

Static files, the same for everybody, need no token. Nothing here knows the store.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Collection
from typing import Any
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = "; ".join((
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self' data: blob:",
    "font-src 'self'",
    "connect-src 'self'",
    "frame-src 'self'",
    "form-action 'self'",
    "base-uri 'none'",
    "frame-ancestors 'none'",
))  # fmt: skip

HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "cache-control": "no-store",
}

SAFE_METHODS = frozenset({"GET", "HEAD"})
LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")
COOKIE_SECONDS = 90 * 24 * 3600
# A Host header is no longer than a name of the DNS and a port.
MAX_HOST = 300
# Characters of a path: longer ones name nothing, and numbers in them would take long to read.
MAX_PATH = 2_000
# Bytes of a query string that is looked at.
MAX_QUERY = 40 << 10

_HOST = re.compile(r"(\[[0-9a-fA-F:.]{2,45}\]|[A-Za-z0-9._-]{1,255})(?::(\d{1,5}))?")


class Guard:
    """Lets through what may pass.

    Args:
        inner: the application itself.
        token: the secret of the first URL.
        secret: what the cookie is worked out from; it outlives the process where the caller keeps it.
        hosts: names that the server is known by, without port, besides those of the loopback interface.
        public: beginning of the paths that need no token.
    """

    def __init__(self, inner: ASGIApp, token: str, secret: bytes, hosts: Collection[str], public: str) -> None:
        self._inner = inner
        self._token = token
        self._cookie = hmac.new(secret, b"atop browser session", hashlib.sha256).hexdigest()
        self._hosts = frozenset(name.lower() for name in (*LOOPBACK_NAMES, *hosts))
        self._public = public

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, as ASGI has it."""
        if scope["type"] == "lifespan":
            await self._inner(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        response = self._judge(scope)
        await (response or self._inner)(scope, receive, _with_headers(send))

    def _judge(self, scope: Scope) -> Response | None:
        """What to answer instead of passing the request on, or None."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        match = _HOST.fullmatch(host) if len(host) <= MAX_HOST else None
        if match is None or match[1].lower() not in self._hosts:
            return _refused(
                scope,
                421,
                "This is not a name that this server is known by. Open it as 127.0.0.1, or start it with --host NAME.",
            )
        path = scope["path"]
        if len(path) > MAX_PATH:
            return _refused(scope, 414, f"The address is longer than {MAX_PATH:,} characters.")
        root = scope.get("root_path", "")
        if path.removeprefix(root).startswith(self._public) and scope["method"] in SAFE_METHODS:
            return None
        query = scope.get("query_string", b"")
        if len(query) > MAX_QUERY:
            return _refused(scope, 414, f"The part of the address after ? is longer than {MAX_QUERY:,} bytes.")
        bearer = headers.get("authorization", "").removeprefix("Bearer ")
        if bearer and _same(bearer, self._token):
            return None
        if not self._from_here(scope, headers, host):
            return _refused(scope, 403, "This request comes from a page of another origin, so it was not answered.")
        cookies = cookie_parser(headers.get("cookie", ""))
        if _same(cookies.get(self._cookie_name(match[2]), ""), self._cookie):
            return None
        given = parse_qs(query.decode("latin-1"), max_num_fields=100) if b"token=" in query[:MAX_QUERY] else {}
        if scope["method"] == "GET" and _same(given.get("token", [""])[0], self._token):
            return self._welcome(scope, match[2])
        return _refused(
            scope,
            401,
            "This page needs the address that the program printed when it started: it ends in ?token=... "
            "Type 'atop browse' to have it opened.",
        )

    @staticmethod
    def _from_here(scope: Scope, headers: Headers, host: str) -> bool:
        origin = headers.get("origin")
        if origin is not None and origin.lower() not in (f"http://{host.lower()}", f"https://{host.lower()}"):
            return False
        if scope["method"] not in SAFE_METHODS:
            return origin is not None
        site = headers.get("sec-fetch-site")
        return site not in ("cross-site", "same-site") or (
            headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
        )

    def _cookie_name(self, port: str | None) -> str:
        return f"atop_{port or 80}"  # cookies of one host are shared by all its ports

    def _welcome(self, scope: Scope, port: str | None) -> Response:
        """The cookie, and the same address without the token.

        No redirection: a Strict cookie is not sent along with one that began on another site, such as a web mailer.
        """
        target = scope["path"] if scope["path"].startswith("/") and not scope["path"].startswith("//") else "/"
        response = HTMLResponse(_WELCOME.format(target=_escaped(target)))
        response.set_cookie(
            self._cookie_name(port),
            self._cookie,
            max_age=COOKIE_SECONDS,
            path=scope.get("root_path") or "/",
            httponly=True,
            samesite="strict",
            secure=scope["scheme"] == "https",
        )
        return response


_WELCOME = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Atop</title>
<link rel="icon" href="data:,">
<meta http-equiv="refresh" content="0;url={target}"></head>
<body><p><a href="{target}">Go on to Atop</a></p></body></html>
"""

_REFUSED = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Atop</title>
<link rel="icon" href="data:,">
<meta name="viewport" content="width=device-width"></head>
<body><main><h1>Atop</h1><p>{message}</p></main></body></html>
"""


def _refused(scope: Scope, status: int, message: str) -> Response:
    if "application/json" in Headers(scope=scope).get("accept", ""):
        return JSONResponse({"error": "Refused", "message": message}, status)
    return HTMLResponse(_REFUSED.format(message=_escaped(message)), status)


def _escaped(text: str) -> str:
    return "".join(f"&#{ord(c)};" if c in "<>&\"'" else c for c in text)


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), wanted.encode())


def _with_headers(send: Send) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers: Any = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return send_with_headers
