"""`atop conflicts`: shown, and settled, from a shell."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from atop import ConflictItem, Item, Store
from atop.cli import main


@pytest.fixture
def conflict(store_path: Path) -> int:
    """The id of a conflict about the name of item 1."""
    with Store(store_path) as store, store.transaction():
        Item(store, name="kept", size=1)
        pool = store.pool("conflicts", indexes=["about"])
        found = ConflictItem(
            store, about=1, attribute="name", kept="kept", kept_device=5, kept_time=10**15, other="other",
            other_device=0, other_time=10**15 - 1,
        )  # fmt: skip
        pool.add(found)
        return found.item_id


def run(capsys: pytest.CaptureFixture[str], store_path: Path, *arguments: str) -> tuple[int, str, str]:
    code = main(["--store", str(store_path), *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def name_of(store_path: Path) -> str:
    with Store(store_path) as store:
        assert len(store.conflicts) == 0
        name: str = store.get(1).name
        return name


def test_conflicts_are_shown_with_both_values(
    capsys: pytest.CaptureFixture[str], store_path: Path, conflict: int
) -> None:
    code, out, _ = run(capsys, store_path, "conflicts", "--json")
    shown = json.loads(out)
    assert code == 0
    assert shown["conflict"] == conflict
    assert (shown["item"], shown["attribute"]) == (1, "name")
    assert (shown["kept"]["value"], shown["kept"]["tag"]) == ("kept", 5)
    assert (shown["other"]["value"], shown["other"]["tag"]) == ("other", 0)
    _, out, _ = run(capsys, store_path, "conflicts")
    assert "kept" in out
    assert "other" in out


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["--keep", "kept"], "kept"),
        (["--keep", "other"], "other"),
        (["--keep", "mine"], "other"),
        (["--keep", "theirs"], "kept"),
        (["--value", "new"], "new"),
    ],
)
def test_a_conflict_is_settled(
    capsys: pytest.CaptureFixture[str], store_path: Path, conflict: int, arguments: list[str], name: str
) -> None:
    code, out, _ = run(capsys, store_path, "--json", "conflicts", "settle", str(conflict), *arguments)
    assert (code, json.loads(out)) == (0, {"settled": [conflict], "not_open": []})
    assert name_of(store_path) == name


def test_all_may_be_settled_and_once_is_enough(
    capsys: pytest.CaptureFixture[str], store_path: Path, conflict: int
) -> None:
    assert run(capsys, store_path, "conflicts", "settle", "--all", "--keep", "other")[0] == 0
    code, out, _ = run(capsys, store_path, "conflicts", "settle", str(conflict), "--keep", "kept")
    assert code == 0
    assert "no open conflict" in out
    assert name_of(store_path) == "other"


@pytest.mark.parametrize(
    "arguments",
    [["settle"], ["settle", "1"], ["--keep", "kept"], ["settle", "--all", "--keep", "kept", "--value", "x"]],
)
def test_what_makes_no_sense_is_said(
    capsys: pytest.CaptureFixture[str], store_path: Path, conflict: int, arguments: list[str]
) -> None:
    code, _, err = run(capsys, store_path, "conflicts", *arguments)
    assert code == 2
    assert "conflicts" in err
