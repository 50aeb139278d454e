"""The calls of a device for other processes that have its store open: `atop status`, `atop invite` beside `atop run`.

The owner of the store offers them by name (`Store.provide`), the others ask (`Store.ask`); what passes are plain
values. A code passes too, to a process of the same user that asked for it, and is kept nowhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, Final

from atop import Store

from .device_status import DeviceStatus, FileCounts, PeerStatus, WorkStatus
from .invitation import PairingFailed
from .pairing_socket import InvitationStatus

if TYPE_CHECKING:
    from .participant import Participant

POLL_SECONDS: Final = 0.1


class Calls:
    """What a device offers other processes; `taking_part` returns the participant, or raises."""

    def __init__(self, taking_part: Callable[[], Participant]) -> None:
        self._taking_part = taking_part

    def offer(self, store: Store) -> None:
        """Offer the calls. They are performed while this process owns the store."""
        for name in ("status", "invite", "answer", "withdraw", "remove", "rename", "take_over"):
            store.provide(f"device.{name}", getattr(self, f"_{name}"))

    def _status(self) -> dict[str, Any]:
        plain: dict[str, Any] = to_plain(self._taking_part().status())
        return plain

    def _invite(self, ask: bool) -> dict[str, Any]:
        invitation = self._taking_part().invite(ask=ask)
        return {"code": invitation.code, "status": to_plain(invitation.status)}

    def _answer(self, number: int, yes: bool) -> None:
        invitation = self._taking_part().invitation
        if invitation is None or invitation.number != number:
            raise PairingFailed("there is another invitation now")
        invitation.answer(yes)

    def _withdraw(self, number: int) -> None:
        invitation = self._taking_part().invitation
        if invitation is not None and invitation.number == number:
            invitation.close()

    def _remove(self, name: str, lost: bool) -> None:
        self._taking_part().remove(name, lost=lost)

    def _rename(self, name: str, device: str | None) -> None:
        self._taking_part().rename(name, device)

    def _take_over(self, timeout: float) -> None:
        self._taking_part().manager.take_over(timeout)

    @staticmethod
    def invitation_from(store: Store, plain: dict[str, Any]) -> RemoteInvitation:
        """What another process's invitation is to this one."""
        return RemoteInvitation(store, plain["code"], InvitationStatus(**plain["status"]))


class RemoteInvitation:
    """An invitation of the process that owns the store; see `OpenInvitation`."""

    def __init__(self, store: Store, code: str | None, status: InvitationStatus) -> None:
        self._store = store
        self._code = code
        self._last = status

    @property
    def code(self) -> str:
        """The code. Raises PairingFailed if it was given to another process: it is shown there."""
        if self._code is None:
            raise PairingFailed("the code is shown by the program that made the invitation")
        return self._code

    @property
    def number(self) -> int:
        """The public part of the code."""
        return self._last.number

    @property
    def status(self) -> InvitationStatus:
        """How it stands."""
        found = status_from(self._store.ask("device.status")).invitation
        if found is not None and found.number == self._last.number:
            self._last = found
        return self._last

    def answer(self, yes: bool) -> None:
        """What the person says who compared."""
        self._store.ask("device.answer", number=self.number, yes=yes)

    def wait(self, timeout: float | None = None, *, states: Sequence[str] = ("paired", "failed")) -> InvitationStatus:
        """Return the status once its state is one of these, or after `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            status = self.status
            left = POLL_SECONDS if deadline is None else deadline - time.monotonic()
            if status.state in states or left <= 0:
                return status
            time.sleep(min(left, POLL_SECONDS))

    def close(self) -> None:
        """Withdraw the code."""
        self._store.ask("device.withdraw", number=self.number)


def to_plain(value: Any) -> Any:
    """A status as plain values."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple):
        return [to_plain(one) for one in value]
    return value


def status_from(plain: dict[str, Any]) -> DeviceStatus:
    """The status that plain values stand for."""
    invitation = plain["invitation"]
    return DeviceStatus(
        **{
            **plain,
            "peers": tuple(PeerStatus(**peer) for peer in plain["peers"]),
            "files": FileCounts(**plain["files"]),
            "work": tuple(WorkStatus(**work) for work in plain["work"]),
            "problems": tuple(plain["problems"]),
            "invitation": None if invitation is None else InvitationStatus(**invitation),
        }
    )
