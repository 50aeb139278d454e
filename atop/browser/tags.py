"""Names of devices by their tags, as commits and conflicts name who wrote."""

from __future__ import annotations

from typing import Any

from atop import NoSuchPool, Store
from atop.browser import attributes as attr

POOL = "devices"
MOST = 100


def device_names(store: Store) -> dict[int, str]:
    """The names of the group's devices by tag; empty where the store is on one device alone."""
    try:
        pool = store.pool(POOL, create=False)
    except NoSuchPool:
        return {}
    names: dict[int, str] = {}
    for item, _ in zip(pool, range(MOST), strict=False):
        tag, name = attr.get(item, "tag"), attr.line(attr.get(item, "name"))
        if type(tag) is int and name:
            names[tag] = name
    return names


def device_name(names: dict[int, str], tag: Any) -> str:
    """What the device with this tag is called."""
    if tag is None or not names:
        return ""
    return names.get(tag) or f"device {tag:06x}" if type(tag) is int else ""
