"""Devices: who is in the group and how each stands; inviting, removing, renaming, taking over.

It is reached through the device object that `app` was given, and knows nothing else of replication. A code is shown
on the page that asked for it and nowhere else: it is in no status, no address and no log.
"""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from atop import AtopError
from atop.browser import attributes as attr
from atop.browser.prose import long_time
from atop.browser.views import Call, Entry, Refusal, View, action, page

MAX_NAME = 200

# What a role means, for a person.
ROLES = {
    "master": "master: orders what all write",
    "replica": "replica",
    "electing": "agreeing on a master",
    "waiting": "waiting for a master",
    "starting": "starting",
    "stopped": "not taking part",
}


def show(call: Call) -> Response:
    """GET /devices; with `part=state` only what changes by itself."""
    template = "devices_state.html" if call.text("part", 10) == "state" else "devices.html"
    if call.device is None:
        return call.page("devices_none.html", "Devices")
    return call.page(template, "Devices", group=_group(call.device.status()))


def _group(status: Any) -> dict[str, Any]:
    """The group as the page shows it."""
    return {
        "name": attr.line(status.name),
        "id": status.device_id,
        "role": "on its own" if status.removed else ROLES.get(status.role, status.role),
        "is_master": status.role == "master",
        "master": attr.line(status.master),
        "commit": status.commit,
        "summary": attr.line(status.summary),
        "in_sync": status.in_sync,
        "grouped": status.grouped,
        "consistency": status.consistency,
        "port": status.port,
        "work": [attr.line(work.text) for work in getattr(status, "work", ())],
        "problems": [attr.line(problem, 1_000) for problem in status.problems],
        "peers": [_peer(peer) for peer in status.peers if peer.removed_at is None],
        "removed": [_peer(peer) for peer in status.peers if peer.removed_at is not None],
        "invitation": _invitation(status.invitation),
        "files": _files(getattr(status, "files", None)),
    }


def _peer(peer: Any) -> dict[str, Any]:
    removed = attr.moment(peer.removed_at)
    return {
        "name": attr.line(peer.name),
        "id": peer.device_id,
        "online": peer.online,
        "role": ROLES.get(peer.role or "", "") if peer.online else "",
        "in_sync": peer.in_sync,
        "behind": peer.behind or 0,
        "ahead": peer.ahead or 0,
        "seconds": None if peer.seconds is None else max(1, round(peer.seconds)),
        "address": attr.line(peer.address),
        "through": attr.line(getattr(peer, "through", None)),
        "milliseconds": None if peer.round_trip is None else f"{peer.round_trip * 1000:.1f}",
        "heard": None if peer.heard_seconds_ago is None else round(peer.heard_seconds_ago),
        "removed": long_time(removed) if removed else "",
    }


def _files(files: Any) -> dict[str, Any] | None:
    """The contents of files that this device still lacks."""
    missing = getattr(files, "missing", 0)
    if not missing:
        return None
    return {
        "missing": missing,
        "bytes": files.missing_bytes,
        "waiting": files.waiting,
        "problem": attr.line(files.problem),
    }


def _invitation(invitation: Any) -> dict[str, Any] | None:
    """How the latest invitation stands; the code is not in it."""
    if invitation is None:
        return None
    return {
        "number": invitation.number,
        "state": invitation.state,
        "minutes": max(1, round(invitation.expires_in / 60)),
        "question": attr.line(invitation.question),
        "digits": attr.line(invitation.digits),
        "other": attr.line(invitation.other_name),
        "problem": attr.line(invitation.problem),
    }


# ------------------------------------------------------------------------------------------- actions


def _device(call: Call) -> Any:
    if call.device is None:
        raise Refusal(
            409,
            "The program that serves this page takes no part in a group of devices: close it, open the store with "
            "atop browse, and invite from there.",
        )
    return call.device


def describe(call: Call) -> Any:
    """GET /api/devices."""
    return _group(_device(call).status())


def invite(call: Call) -> Any:
    """POST /api/devices/invite: the code, to be typed on the other device within ten minutes."""
    invitation = _device(call).invite(ask=True)
    return {"code": invitation.code, "invitation": _invitation(invitation.status)}


def answer(call: Call) -> Any:
    """POST /api/devices/answer: `{"number": 7, "equal": true}`, what the person says who compared the digits."""
    invitation = _latest(call)
    invitation.answer(call.field("equal", bool))
    return {"invitation": _invitation(invitation.status)}


def withdraw(call: Call) -> Any:
    """POST /api/devices/withdraw: `{"number": 7}`, the code is good no more."""
    invitation = _latest(call)
    invitation.close()
    return {"invitation": _invitation(invitation.status)}


def _latest(call: Call) -> Any:
    invitation = _device(call).invitation
    if invitation is None or invitation.number != call.field("number", int):
        raise Refusal(409, "There is another invitation by now, or none: look at the page again.")
    return invitation


def remove(call: Call) -> Any:
    """POST /api/devices/remove: `{"device": id, "lost": false}`."""
    _device(call).remove(call.field("device", str), lost=call.field("lost", bool, False))
    return {}


def rename(call: Call) -> Any:
    """POST /api/devices/rename: `{"device": id, "name": "desktop"}`."""
    name = call.field("name", str).strip()
    if not name or len(name) > MAX_NAME:
        raise Refusal(400, f"A device's name has 1 to {MAX_NAME} characters.")
    device, wanted = _device(call), call.field("device", str)
    try:
        device.rename(name, None if wanted == str(device.device_id) else wanted)
    except AtopError:
        raise
    except (ValueError, LookupError) as error:
        raise Refusal(422, f"{error}.") from None
    return {}


def take_over(call: Call) -> Any:
    """POST /api/devices/take-over: this device becomes the master."""
    _device(call).take_over()
    return {}


VIEW = View(
    routes=[
        page("/devices", show),
        action("/api/devices", describe, methods=["GET"]),
        *(
            action(f"/api/devices/{name}", handler)
            for name, handler in {
                "invite": invite,
                "answer": answer,
                "withdraw": withdraw,
                "remove": remove,
                "rename": rename,
                "take-over": take_over,
            }.items()
        ),
    ],
    entries=[Entry("Devices", "/devices", "devices", group="more")],
)
