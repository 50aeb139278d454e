"""The settings of one device: `local/settings.toml`, written by people and kept as they wrote it.

    name = "laptop"                   # how the other devices and people call it
    port = 4747                       # where it accepts links; without it 4747, or any free one where that is taken
    peers = ["desktop.lan:4747"]      # addresses to try, for networks where devices do not find each other
    interfaces = ["eth*"]             # where to look for other devices; without it everywhere
    multicast = true                  # whether to look for others, and be found, on the local network
    consistency = "available"         # or "majority"; of a group that this device makes

Promises: a file with a mistake in it is refused with the line to look at, and nothing is changed in it. When the
program changes a value, the other lines stay as they are.
"""

from __future__ import annotations

import json
import os
import re
import socket
import tomllib
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

from atop.disk import explained, write_durably
from atop.errors import AtopError
from discovery import DiscoveryError, parse_peers

from .invitation import InvalidDeviceName, check_name

SETTINGS_FILE: Final = "settings.toml"

MAX_SETTINGS_BYTES: Final = 1 << 20
CONSISTENCIES: Final = ("available", "majority")


class SettingsError(AtopError, ValueError):
    """A setting that cannot be used; the message says which, and where."""


@dataclass(frozen=True)
class Settings:
    """The settings of a device; each is as the module says."""

    name: str
    port: int | None = None
    peers: tuple[str, ...] = ()
    interfaces: tuple[str, ...] | None = None
    multicast: bool = True
    consistency: str = "available"


def load(local: Path) -> Settings:
    """The settings in `local`; what is not there has its default. Raises SettingsError, StoreReadOnly."""
    path = local / SETTINGS_FILE
    try:
        with path.open("rb") as file:
            text = file.read(MAX_SETTINGS_BYTES).decode()
        found = tomllib.loads(text)
    except FileNotFoundError:
        found = {}
    except OSError as error:
        raise explained(error, path) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SettingsError(f"{path} cannot be read: {error}") from None
    return checked(found, str(path))


def checked(values: dict[str, Any], where: str) -> Settings:
    """Settings of these values. Raises SettingsError."""
    known = [field.name for field in fields(Settings)]
    strange = sorted(values.keys() - set(known))
    if strange:
        raise SettingsError(f"{where}: there is no setting {strange[0]!r}; there are {', '.join(known)}")
    try:
        name = check_name(_text(values, "name", where)) if "name" in values else own_name()
        peers = _texts(values, "peers", where) or ()
        parse_peers(peers)
    except (InvalidDeviceName, DiscoveryError) as error:
        raise SettingsError(f"{where}: {error}") from None
    port = values.get("port")
    if port is not None and (type(port) is not int or not 0 <= port <= 65535):
        raise SettingsError(f"{where}: port must be a number from 1 to 65535, not {port!r}")
    multicast = values.get("multicast", True)
    if type(multicast) is not bool:
        raise SettingsError(f"{where}: multicast must be true or false, not {multicast!r}")
    consistency = values.get("consistency", "available")
    if consistency not in CONSISTENCIES:
        raise SettingsError(f"{where}: consistency must be one of {', '.join(CONSISTENCIES)}, not {consistency!r}")
    return Settings(name, port, peers, _texts(values, "interfaces", where), multicast, consistency)


def change(local: Path, **values: str | int | bool | tuple[str, ...] | list[str]) -> None:
    """Write values into the file; its other lines stay. Raises SettingsError, StoreFull, StoreReadOnly."""
    path = local / SETTINGS_FILE
    try:
        text = path.read_text("utf-8") if path.exists() else ""
        for name, value in values.items():
            text = _with(text, name, value)
        checked(tomllib.loads(text), str(path))
        write_durably(path, text.encode(), 0o600)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} cannot be changed: {error}") from None
    except OSError as error:
        raise explained(error, path) from error


def chosen(local: Path, given: dict[str, Any]) -> Settings:
    """The settings of the file, with what was given (and is not None) in their place.

    The name is kept: the one that is given counts for a device that has none yet.
    """
    path = local / SETTINGS_FILE
    found = load(local)
    values = {field.name: getattr(found, field.name) for field in fields(Settings)}
    for setting, value in given.items():
        if value is not None and not (setting == "name" and path.exists()):
            values[setting] = tuple(value) if setting in ("peers", "interfaces") else value
    result = checked({setting: value for setting, value in values.items() if value is not None}, "what was given")
    if not path.exists():
        change(local, name=result.name)
    return result


def current(local: Path, before: Settings) -> Settings:
    """The settings that a program was started with, with the name that the device has by now."""
    return replace(before, name=load(local).name)


def own_name() -> str:
    """What to call a device that was given no name: what the machine calls itself."""
    name = " ".join("".join(c if c.isprintable() else " " for c in socket.gethostname()).split())
    cut = name.encode()[:63].decode(errors="ignore").strip()
    return cut or f"device {os.getpid()}"


def _with(text: str, name: str, value: Any) -> str:
    """The file with a value in it: in the place of the former one, or at the top."""
    line = f"{name} = {json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)}"
    pattern = re.compile(rf"^[ \t]*{name}[ \t]*=[ \t]*(\[[^\]]*\]|[^\n#]*)", re.MULTILINE)
    if pattern.search(text):
        return pattern.sub(lambda _: line + " ", text, count=1).replace(line + " \n", line + "\n")
    return f"{line}\n{text}"


def _text(values: dict[str, Any], name: str, where: str) -> str:
    value = values[name]
    if type(value) is not str:
        raise SettingsError(f"{where}: {name} must be text, not {value!r}")
    return value


def _texts(values: dict[str, Any], name: str, where: str) -> tuple[str, ...] | None:
    value = values.get(name)
    if value is None:
        return None
    if not isinstance(value, (list, tuple)) or not all(type(text) is str for text in value):
        raise SettingsError(f"{where}: {name} must be a list of texts, not {value!r}")
    return tuple(value)
