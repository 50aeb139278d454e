"""The script and the style sheet: parts on the disk, one file each on the wire.

The parts are joined when the application starts, and named by their hash, so that a browser keeps them for good and
never keeps old ones. There is no other step between the source and what is served.
"""

from __future__ import annotations

import gzip
import hashlib
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response

# In this order. `core` is first, for all others stand on it.
# fmt: off
SCRIPT = (
    "core", "live", "tools",
    "gridrows", "gridview", "grid", "scrollbar", "cell", "table",
    "editors", "item",
    "pools", "split", "calendar", "group",
)
STYLE = (
    "tokens", "base",
    "table", "item",
    "pools", "split", "calendar", "group",
)
# fmt: on

FOREVER = "public, max-age=31536000, immutable"

_ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="32" height="32" rx="7" fill="#1f5c7a"/>'
    '<path d="M8 11h16M8 16h16M8 21h10" stroke="#fff" stroke-width="2.4" stroke-linecap="round"/></svg>'
)


class Assets:
    """What is served below /static/."""

    def __init__(self) -> None:
        here = files("atop.browser") / "static"

        def joined(directory: str, suffix: str, names: tuple[str, ...]) -> str:
            return "\n".join((here / directory / f"{name}{suffix}").read_text("utf-8") for name in names)

        script = f'(() => {{\n"use strict";\n{joined("script", ".js", SCRIPT)}\nAtop.start();\n}})();\n'
        self._contents: dict[str, tuple[bytes, bytes, str]] = {}  # name -> octets, the same compressed, type
        self.script = self._add("atop", ".js", script, "text/javascript; charset=utf-8")
        self.style = self._add("atop", ".css", joined("style", ".css", STYLE), "text/css; charset=utf-8")
        self.icon = self._add("icon", ".svg", _ICON, "image/svg+xml")

    def _add(self, name: str, suffix: str, text: str, media_type: str) -> str:
        data = text.encode()
        path = f"{name}-{hashlib.blake2b(data, digest_size=8).hexdigest()}{suffix}"
        self._contents[path] = data, gzip.compress(data, 9, mtime=0), media_type
        return path

    async def serve(self, request: Request) -> Response:
        """One of the files, by its name."""
        found = self._contents.get(request.path_params["name"])
        if found is None:
            return Response(status_code=404)
        data, compressed, media_type = found
        headers = {"cache-control": FOREVER, "vary": "accept-encoding"}
        if "gzip" in request.headers.get("accept-encoding", ""):
            return Response(compressed, media_type=media_type, headers={**headers, "content-encoding": "gzip"})
        return Response(data, media_type=media_type, headers=headers)
