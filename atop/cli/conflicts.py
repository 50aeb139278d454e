"""`atop conflicts`: what could not be merged when devices that had been apart met again, and settling it."""

from __future__ import annotations

from typing import Any

import click

from atop import ConflictItem, Store
from atop.cli.session import Session, StoreCommand, pass_session
from atop.cli.text import describe, local

SIDES = ("kept", "other", "mine", "theirs")

Row = tuple[dict[str, Any], list[Any]]


@click.command("conflicts", cls=StoreCommand)
@click.argument("action", type=click.Choice(["list", "settle"]), default="list")
@click.argument("conflict_ids", metavar="[CONFLICT]...", type=int, nargs=-1)
@click.option("--keep", type=click.Choice(SIDES), help="Which value is to stand.")
@click.option("--value", metavar="TEXT", help="A text that is to stand instead of either.")
@click.option("--all", "everything", is_flag=True, help="Settle all of them.")
@pass_session
def conflicts_command(
    session: Session,
    *,
    action: str,
    conflict_ids: tuple[int, ...],
    keep: str | None,
    value: str | None,
    everything: bool,
) -> None:
    """Show what could not be merged when devices met again, or settle it.

    Where two devices changed one attribute while they were apart, the later value was kept, and the other is shown
    here beside it, with the devices and times of both. "deleted" is an item that one device deleted and another
    changed: it was kept, and "other" is to delete it.

    `settle` takes CONFLICTs by the number in the first column. --keep kept leaves things as they are, other puts
    the other value in place, mine and theirs say the same by which of the two this device made.

    \b
    Examples:
      atop conflicts
      atop conflicts settle 1099511627781 --keep other
      atop conflicts settle 1099511627781 --value "Ada Lovelace"
      atop conflicts settle --all --keep kept
    """
    if action == "list":
        if conflict_ids or keep or value is not None or everything:
            raise click.UsageError("these go with 'atop conflicts settle'.")
        with session.open_store() as store:
            columns = ["conflict", "item", "what", "kept", "by", "at", "other", "by", "at"]
            session.output.rows(columns, [_row(conflict, _device_names(store)) for conflict in store.conflicts])
        return
    if (keep is None) == (value is None):
        raise click.UsageError("say what is to stand: --keep kept, other, mine or theirs; or --value TEXT.")
    if bool(conflict_ids) == everything:
        raise click.UsageError("name the CONFLICTs (see 'atop conflicts'), or --all.")
    with session.open_store() as store:
        chosen = [conflict.item_id for conflict in store.conflicts] if everything else list(conflict_ids)
        settled = [conflict_id for conflict_id in chosen if _settle(store, conflict_id, keep, value)]
    already = [conflict_id for conflict_id in chosen if conflict_id not in settled]
    lines = [f"settled {conflict_id}" for conflict_id in settled]
    lines += [f"{conflict_id} is no open conflict: it was settled before, or never was one" for conflict_id in already]
    session.output.result({"settled": settled, "not_open": already}, *lines or ["there are no conflicts"])


def _settle(store: Store, conflict_id: int, keep: str | None, value: str | None) -> bool:
    try:
        if value is not None:
            return store.conflicts.settle(conflict_id, value=value)
        return store.conflicts.settle(conflict_id, keep or "kept")  # type: ignore[arg-type]  # one of SIDES
    except ValueError as error:
        raise click.UsageError(f"{error}.") from None


def _device_names(store: Store) -> dict[int, str]:
    """The names of the group's devices, by tag."""
    pools = [pool for pool in store.pools() if pool.name == "devices"]
    members = (member.attributes for pool in pools for member in pool)
    return {a["tag"]: a["name"] for a in members if isinstance(a.get("tag"), int) and isinstance(a.get("name"), str)}


def _row(conflict: ConflictItem, names: dict[int, str]) -> Row:
    item = conflict.item
    fields: dict[str, Any] = {
        "conflict": conflict.item_id,
        "kind": conflict.kind,
        "item": conflict.about,
        "type": conflict.item_type,
        "attribute": conflict.attribute,
    }
    cells: list[Any] = [conflict.item_id, describe(item) if item is not None else f"{conflict.about}, gone"]
    cells.append(conflict.attribute or conflict.kind)
    for side, value, there, device, at in (
        ("kept", conflict.kept, conflict.kept_there, conflict.kept_device, conflict.kept_at),
        ("other", conflict.other, conflict.other_there, conflict.other_device, conflict.other_at),
    ):
        name = None if device is None else names.get(device, str(device))
        fields[side] = {"value": value, "there": there, "device": name, "tag": device, "time": at}
        shown = (
            value if there else {"kept": "changed", "other": "deleted"}[side] if conflict.kind == "deleted" else None
        )
        cells += [shown, name, local(at) if at is not None else None]
    return fields, cells
