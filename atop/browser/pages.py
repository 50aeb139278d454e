"""Templates, and what every page is given: the navigation, the address where the application is, the assets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from atop import AtopError
from atop.browser.display import count_text, size_text, time_text

if TYPE_CHECKING:
    from atop.browser.application import Browser


# Pools of Atop's own, which have pages of their own and are in the list of pools.
OWN_PAGES = frozenset({"conflicts", "devices"})


class Pages:
    """Renders templates. Everything that they show is escaped, whatever their name."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._templates = Environment(
            loader=PackageLoader("atop.browser", "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters.update(count=count_text, size=size_text, time=time_text)

    def render(self, request: Request, template: str, title: str, status: int, context: dict[str, Any]) -> Response:
        """A page, complete; `title` stands in the tab and may hold anything."""
        base = request.scope.get("root_path", "")
        path = request.scope["path"].removeprefix(base)
        try:
            navigation, problem = self._navigation(path), ""
        except AtopError as error:  # the page that tells of it should still be shown
            navigation, problem = {"views": [], "pools": [], "more": []}, str(error)
        html = self._templates.get_template(template).render(
            base=base,
            path=path,
            title=title,
            assets=self._browser.assets,
            navigation=navigation,
            navigation_problem=problem,
            store_name=self._browser.store.path.name,
            store_path=str(self._browser.store.path),
            **context,
        )
        return HTMLResponse(html.encode("utf-8", "replace"), status)

    def _navigation(self, path: str) -> dict[str, list[dict[str, Any]]]:
        """The lines of the navigation by group, the present one marked."""
        store = self._browser.store
        pools = list(store.pools())
        sizes = {pool.name: len(pool) for pool in pools}
        lines: dict[str, list[dict[str, Any]]] = {"views": [], "pools": [], "more": []}
        for entry in self._browser.entries:
            here = path == entry.path or (entry.path != "/pools" and path.startswith(f"{entry.path}/"))
            count = sizes.get(entry.pool) if entry.counted else None
            if not entry.pool or (entry.pool in sizes and (count != 0 or here)):
                lines[entry.group].append(
                    {"label": entry.label, "path": entry.path, "icon": entry.icon, "here": here, "count": count or None}
                )
        for pool in pools:
            if pool.name in OWN_PAGES:
                continue
            target = f"/pools/{pool.item_id}"
            lines["pools"].append(
                {"label": pool.name, "path": target, "icon": "table", "here": path == target, "count": len(pool)}
            )
        return lines
