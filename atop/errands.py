"""Calls by name that the owner of a store performs for every process that has it open.

A program offers a function with `Store.provide`; `Store.ask` calls the one that the owner has, wherever that is. What
goes in and comes out is plain values. A function may take `progress`, which it calls with plain values now and then.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from atop.errors import AtopError, NoSuchCall, StoreError

Function = Callable[..., Any]
Progress = Callable[..., object]


class Errands:
    """The functions that one program offers. May be used by any thread."""

    def __init__(self) -> None:
        self._functions: dict[str, tuple[Function, bool]] = {}  # with whether it takes `progress`

    def provide(self, name: str, function: Function) -> None:
        """Offer a function under a name, instead of what was offered under it before."""
        if not isinstance(name, str) or not name:
            raise ValueError(f"a call has a name, not {name!r}")
        self._functions[name] = function, "progress" in inspect.signature(function).parameters

    def perform(self, name: str, arguments: dict[str, Any], progress: Progress | None) -> Any:
        """What the function of this name returns.

        Raises:
            NoSuchCall: there is none.
            StoreError: it failed with an error that is not Atop's.
        """
        function, takes_progress = self._functions.get(name, (None, False))
        if function is None:
            raise NoSuchCall(f"the program that owns the store offers no {name!r}: it may be of another kind, or older")
        if takes_progress:
            arguments = {**arguments, "progress": progress}
        try:
            return function(**arguments)
        except AtopError:
            raise
        except Exception as error:
            raise StoreError(f"{name!r} failed: {type(error).__name__}: {error}") from error
