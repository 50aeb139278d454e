"""The `atop` command, as a person or a script uses it."""

from __future__ import annotations

import contextlib
import datetime
import errno
import json
import os
import pty
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import click
import pytest

from atop import Index, Item, Store
from atop.cli import main
from atop.cli.root import COMMANDS, root
from atop.cli.transfer import EXPORT_FORMATS, IMPORT_FORMATS
from atop.pim import ExportFormat, Format

ESCAPE = "\x1b]0;owned\x07"
EPOCH = datetime.date(1900, 1, 1)


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No store of the person who runs the tests is ever touched."""
    monkeypatch.delenv("ATOP_STORE", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data-home"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


class Outcome:
    """How a run of the command ended."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def json(self) -> Any:
        """The one object on standard output."""
        (line,) = self.out.splitlines()
        return json.loads(line)

    @property
    def json_lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def rows(self) -> list[list[str]]:
        """The cells of a table, without its heading."""
        return [line.split("\t") for line in self.out.splitlines()[1:]]


class Command:
    """Runs `atop` in this process, on one store."""

    def __init__(self, store: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.store = store
        self._capsys = capsys

    def __call__(self, *arguments: str) -> Outcome:
        """Run with `--store`; any exit code will do."""
        self._capsys.readouterr()
        code = main(["--store", str(self.store), *arguments])
        captured = self._capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    def done(self, *arguments: str) -> Outcome:
        """Run; it has to succeed."""
        outcome = self(*arguments)
        assert outcome.code == 0, outcome.err
        return outcome


@pytest.fixture
def atop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(tmp_path / "store", capsys)


NAMES = ["Ada", "Bob", "Cleo", "Dora", "Emil", "Fay"]


@pytest.fixture
def people(atop: Command) -> Command:
    """A store with six people, one of them with an escape sequence for a city."""
    with Store(atop.store) as store, store.transaction("first people"):
        indexes: list[str | tuple[str, ...] | Index] = [
            "name",
            ("city", "name"),
            "born",
            Index("words", "note", words=True),
        ]
        pool = store.pool("people", indexes=indexes)
        for number, name in enumerate(NAMES):
            city = ESCAPE if name == "Fay" else ("London", "Paris")[number % 2]
            born = EPOCH + datetime.timedelta(days=365 * number)
            pool.add(Item(store, name=name, city=city, born=born, note=f"likes {name} and tea"))
    return atop


def environment(**changes: str) -> dict[str, str]:
    return {**os.environ, **changes}


def process(*arguments: str, **settings: Any) -> subprocess.Popen[str]:
    """The installed command, in a process of its own."""
    command = [str(Path(sys.executable).with_name("atop")), *arguments]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8", **settings
    )


def finish(running: subprocess.Popen[str]) -> Outcome:
    out, err = running.communicate(timeout=60)
    return Outcome(running.returncode, out, err)


def on_terminal(*arguments: str, columns: int = 100) -> tuple[int, str]:
    """The exit code and what a terminal of that width gets from `atop`, both streams together."""
    return run_on_terminal([str(Path(sys.executable).with_name("atop")), *arguments], columns)


def run_on_terminal(command: Sequence[str], columns: int = 100) -> tuple[int, str]:
    try:
        main_end, terminal = pty.openpty()
    except OSError as error:
        pytest.skip(f"this system gives no pseudo terminal: {error}")
    settings = environment(COLUMNS=str(columns))
    with subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal, env=settings) as running:
        os.close(terminal)
        received = bytearray()
        with contextlib.suppress(OSError):  # EIO is how Linux says that the terminal is closed
            while data := os.read(main_end, 65536):
                received += data
        os.close(main_end)
        code = running.wait(timeout=60)
    return code, received.decode()


# -- which store


@pytest.mark.parametrize(
    "arguments",
    [
        ["status"],
        ["query", "people", "name"],
        ["export", "people", "people.csv"],
        ["history"],
        ["undo", "1"],
        ["backup", "copy"],
        ["verify"],
        ["compact"],
        ["shell", "-c", "1"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_store_that_is_not_there_is_not_made_by(arguments: Sequence[str], atop: Command) -> None:
    outcome = atop(*arguments)
    assert (outcome.code, outcome.out) == (1, "")
    assert str(atop.store) in outcome.err
    assert "atop init" in outcome.err
    assert not atop.store.exists()


def test_init_makes_a_store_and_leaves_one_that_is_there(people: Command, tmp_path: Path) -> None:
    assert Command(tmp_path / "new", people._capsys).done("--json", "init").json["created"] is True
    assert people.done("--json", "init").json["created"] is False
    assert people.done("--json", "status").json["pools"] == [{"name": "people", "size": 6}]


def test_init_refuses_a_directory_that_holds_something_else(atop: Command) -> None:
    atop.store.mkdir()
    (atop.store / "thesis.odt").write_text("years of work")
    outcome = atop("init")
    assert outcome.code == 1
    assert "not a store" in outcome.err
    assert [path.name for path in atop.store.iterdir()] == ["thesis.odt"]


def test_the_option_comes_before_the_variable_before_the_data_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def made_by(*arguments: str) -> str:
        assert main(["--json", *arguments, "init"]) == 0
        return str(Path(json.loads(capsys.readouterr().out)["store"]).relative_to(tmp_path))

    assert made_by() == "data-home/atop"
    monkeypatch.setenv("ATOP_STORE", "")
    assert made_by() == "data-home/atop"
    monkeypatch.setenv("ATOP_STORE", "~/chosen")
    assert made_by() == "chosen"
    assert made_by("--store", "~/named") == "named"


def test_global_options_may_stand_before_or_after_the_command(people: Command) -> None:
    before = people.done("--json", "status").json
    assert main(["status", "--json", "--store", str(people.store)]) == 0
    assert json.loads(people._capsys.readouterr().out) == before


# -- what it writes


def test_status_has_role_commit_chain_and_the_size_of_each_pool(people: Command) -> None:
    with Store(people.store) as store:
        number, chain = store.head
    assert people.done("--json", "status").json == {
        "store": str(people.store),
        "role": "master",
        "commit": number,
        "chain": chain.hex(),
        "pools": [{"name": "people", "size": 6}],
    }
    shown = people.done("status").out
    assert "people  6 items" in shown
    assert chain.hex()[:16] in shown


EVERY_COMMAND = {
    "init": ["init"],
    "status": ["status"],
    "query": ["query", "people", "name"],
    "import": ["import", "good.vcf"],
    "export": ["export", "people", "people.csv"],
    "history": ["history"],
    "undo": ["undo", "--last"],
    "backup": ["backup", "copy"],
    "restore": ["restore", "saved", "--force"],
    "verify": ["verify"],
    "compact": ["compact"],
}


@pytest.mark.parametrize("name", EVERY_COMMAND)
def test_json_is_all_that_is_on_standard_output(name: str, people: Command) -> None:
    if name == "restore":
        people.done("backup", "saved")
    Path("good.vcf").write_text(ADDRESSES)
    outcome = people.done("--json", *EVERY_COMMAND[name])
    assert outcome.json_lines
    assert all(isinstance(each, dict) for each in outcome.json_lines)
    assert outcome.err == ""


def test_errors_are_json_on_standard_error_when_results_are(people: Command) -> None:
    for arguments, code, kind in [
        (["query", "nobody"], 1, "NoSuchPool"),
        (["query", "people", "shoe"], 1, "NoSuchIndex"),
        (["qurey"], 2, "UsageError"),
        (["query", "people", "--limit", "x"], 2, "UsageError"),
    ]:
        outcome = people("--json", *arguments)
        assert (outcome.code, outcome.out) == (code, "")
        assert json.loads(outcome.err)["error"]["type"] == kind


def test_an_error_of_the_store_is_a_message_without_traceback(people: Command) -> None:
    outcome = people("query", "nobody")
    assert outcome.code == 1
    assert outcome.err.startswith("atop: there is no pool 'nobody'")
    assert "people" in outcome.err  # the pools that there are
    assert "Traceback" not in outcome.err


def test_an_error_nobody_meant_is_shown_with_its_traceback(people: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Store, "pools", lambda self: 1 / 0)
    outcome = people("status")
    assert outcome.code == 1
    assert "ZeroDivisionError" in outcome.err
    assert "bug in Atop" in outcome.err
    outcome = people("--json", "status")
    assert json.loads(outcome.err)["error"]["type"] == "ZeroDivisionError"


def test_control_characters_of_the_data_reach_neither_pipe_nor_terminal(people: Command) -> None:
    piped = people.done("query", "people", "name", "--columns", "name,city")
    assert ["6", "Fay", r"\x1b]0;owned\x07"] in [[str(len(NAMES)), *row[1:]] for row in piped.rows]
    assert "\x1b" not in piped.out
    assert "\x1b" not in people.done("--json", "query", "people").out
    code, seen = on_terminal("--store", str(people.store), "query", "people", "name", "--columns", "name,city")
    assert code == 0
    assert r"\x1b]0;owned\x07" in seen
    assert ESCAPE not in seen


def test_control_characters_in_errors_are_escaped(people: Command) -> None:
    people.store = people.store / f"nowhere{ESCAPE}"
    outcome = people("status")
    assert outcome.code == 1
    assert r"nowhere\x1b]0;owned\x07" in outcome.err
    assert "\x1b" not in outcome.err


# -- query


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["name"], NAMES),
        (["name", "--reverse"], NAMES[::-1]),
        (["name", "--limit", "2"], ["Ada", "Bob"]),
        (["name", "--limit", "0"], NAMES),
        (["name", "--start", "Bo", "--end", "Dora"], ["Bob", "Cleo"]),
        (["name", "--start", "D", "--reverse"], ["Fay", "Emil", "Dora"]),
        (["name", "--prefix", "E"], ["Emil"]),
        (["name", "--key", "Bob"], ["Bob"]),
        (["name", "--key", "Nobody"], []),
        (["city,name", "--key", "Paris"], ["Bob", "Dora"]),
        (["city,name", "--start", "London,Cleo", "--end", "London,E"], ["Cleo"]),
        (["city,name", "--prefix", "Paris,D"], ["Dora"]),
        (["born", "--start", "1902-06-01", "--end", "1904-06-01"], ["Dora", "Emil"]),
        (["--search", "bob TEA"], ["Bob"]),
        (["words", "--search", "coffee"], []),
        ([], NAMES),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_query_finds_what_the_index_has(arguments: list[str], names: list[str], people: Command) -> None:
    outcome = people.done("--json", "query", "people", *arguments)
    assert [each["attributes"]["name"] for each in outcome.json_lines] == names
    shown = people.done("query", "people", *arguments, "--columns", "name")
    assert [row[1] for row in shown.rows] == names


def test_query_shows_first_what_people_look_items_up_by(people: Command) -> None:
    heading = people.done("query", "people", "born").out.splitlines()[0]
    assert heading.split("\t") == ["id", "born", "name", "city"]


def test_query_shows_identifiers_only_where_they_are_asked_for(atop: Command, files: Path) -> None:
    atop.done("import", str(files / "good.vcf"))

    def heading(*arguments: str) -> list[str]:
        return atop.done("query", "contacts", *arguments).out.splitlines()[0].split("\t")

    assert "uid" not in heading("name")
    assert heading("uid")[1] == "uid"
    assert heading("name", "--columns", "uid") == ["id", "uid"]


def test_a_missing_attribute_is_empty_for_people_and_null_for_programs(people: Command) -> None:
    with Store(people.store) as store:
        next(store.pool("people").query("name", reverse=True)).shoe = 42
    assert people.done("query", "people", "name", "--key", "Ada", "--columns", "id,shoe").rows[0][1:] == [""]
    found = people.done("--json", "query", "people", "name", "--key", "Ada", "--columns", "shoe,name").json
    assert found["attributes"] == {"shoe": None, "name": "Ada"}


def test_a_column_that_no_item_has_is_wrong_use_and_answered_with_those_that_there_are(people: Command) -> None:
    outcome = people("query", "people", "name", "--columns", "name,ctiy")
    assert (outcome.code, outcome.out) == (2, "")
    assert "'ctiy'" in outcome.err
    assert "name, city, born, note" in outcome.err


def test_a_count_that_is_none_is_answered_with_what_it_should_be(people: Command) -> None:
    for count in ("abc", "-1", "1.5"):
        outcome = people("history", "--limit", count)
        assert outcome.code == 2
        assert f"'{count}' should be a whole number, 0 or more" in outcome.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--start", "B"],
        ["--reverse"],
        ["name", "--key", "Ada", "--start", "B"],
        ["born", "--start", "soon"],
        ["born", "--prefix", "19"],
        ["name", "--limit", "-1"],
        ["words", "--search", "tea", "--reverse"],
    ],
    ids=" ".join,
)
def test_a_query_that_makes_no_sense_is_wrong_use(arguments: list[str], people: Command) -> None:
    outcome = people("query", "people", *arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert "Usage: atop query" in outcome.err


def test_a_terminal_shows_a_hundred_items_and_says_so_a_pipe_gets_all(atop: Command) -> None:
    with Store(atop.store) as store, store.transaction():
        pool = store.pool("numbers", indexes=["number"])
        for number in range(120):
            pool.add(Item(store, number=number))
    assert len(atop.done("query", "numbers", "number").rows) == 120
    code, seen = on_terminal("--store", str(atop.store), "query", "numbers", "number")
    assert code == 0
    assert "only the first 100 are shown" in seen
    assert " 99" in seen
    assert " 100" not in seen.replace("first 100 ", "")
    code, seen = on_terminal("--store", str(atop.store), "query", "numbers", "number", "--limit", "0")
    assert " 119" in seen
    assert "only the first" not in seen


def test_a_narrow_terminal_shortens_texts_but_neither_ids_nor_dates(people: Command) -> None:
    with Store(people.store) as store:
        ada = next(store.pool("people").query("name"))
        ada.city = "a city with a very long name " * 5
    arguments = ["--store", str(people.store), "query", "people", "name", "--columns", "city,born,name"]
    code, seen = on_terminal(*arguments, columns=24)
    assert code == 0
    assert "…" in seen
    for item in people.done(*arguments[2:]).rows:
        assert f"{item[0]} " in seen
        assert item[2] in seen


# -- import and export

ADDRESSES = """\
BEGIN:VCARD
VERSION:4.0
UID:ada
FN:Ada Lovelace
EMAIL:ada@example.org
END:VCARD
BEGIN:VCARD
VERSION:4.0
UID:bob
FN:Bob \x1b[31m
END:VCARD
"""

BROKEN = "BEGIN:VCARD\nVERSION:4.0\nFN:Half\n"

APPOINTMENT = """\
BEGIN:VCALENDAR
VERSION:2.0
BEGIN:VEVENT
UID:lunch
SUMMARY:Lunch
DTSTART:20260131T120000Z
END:VEVENT
END:VCALENDAR
"""


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with an address book, one that ends in the middle, a calendar, and something else."""
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "good.vcf").write_text(ADDRESSES)
    (folder / "broken.vcf").write_text(ADDRESSES + BROKEN)
    (folder / "lunch.ics").write_text(APPOINTMENT)
    (folder / "program").write_bytes(b"\x7fELF\0\0\0")
    return folder


def test_import_makes_the_store_and_says_what_came_in(atop: Command, files: Path) -> None:
    outcome = atop.done("--json", "import", str(files / "good.vcf"), str(files / "lunch.ics"))
    nothing_else = {"updated": 0, "unchanged": 0, "skipped": 0, "incomplete": 0}
    assert outcome.json_lines == [
        {"file": str(files / "good.vcf"), "added": 2, **nothing_else},
        {"file": str(files / "lunch.ics"), "added": 1, **nothing_else},
    ]
    pools = atop.done("--json", "status").json["pools"]
    assert {"name": "contacts", "size": 2} in pools
    assert {"name": "events", "size": 1} in pools


def test_the_same_import_again_changes_nothing(atop: Command, files: Path) -> None:
    atop.done("import", str(files / "good.vcf"))
    before = atop.done("--json", "status").json
    assert "2 unchanged" in atop.done("import", str(files / "good.vcf")).out
    assert atop.done("--json", "status").json == before


def test_a_record_that_cannot_be_read_is_named_and_the_others_go_in(atop: Command, files: Path) -> None:
    outcome = atop("import", str(files / "broken.vcf"))
    assert outcome.code == 3
    assert "2 added, 1 skipped" in outcome.out
    line = ADDRESSES.count("\n") + 1
    assert f"{files / 'broken.vcf'}:{line}:" in outcome.err
    named = json.loads(atop("--json", "import", str(files / "broken.vcf")).err)["skipped"]
    assert (named["file"], named["line"]) == (str(files / "broken.vcf"), line)


def test_a_file_that_is_not_there_is_named_and_the_others_go_in(atop: Command, files: Path) -> None:
    outcome = atop("import", str(files / "missing.vcf"), str(files / "good.vcf"))
    assert outcome.code == 3
    assert "2 added" in outcome.out
    assert f"{files / 'missing.vcf'}: No such file" in outcome.err


@pytest.mark.parametrize("name", ["missing.vcf", "program", "half.vcf"])
def test_an_import_that_can_read_nothing_fails_and_makes_no_store(name: str, atop: Command, files: Path) -> None:
    (files / "half.vcf").write_text(BROKEN)
    outcome = atop("import", str(files / name))
    assert outcome.code == 1
    assert name in outcome.err
    assert not atop.store.exists()
    atop.store.mkdir()
    assert atop("import", str(files / name)).code == 1
    assert list(atop.store.iterdir()) == []
    atop.done("init")
    assert atop("import", str(files / name)).code == 1
    atop.done("status")


def test_a_file_of_no_known_kind_is_named_and_the_others_go_in(atop: Command, files: Path) -> None:
    alone = atop("import", str(files / "program"))
    assert alone.code == 1
    assert "program" in alone.err
    among_others = atop("import", str(files / "program"), str(files / "good.vcf"))
    assert among_others.code == 3
    assert "2 added" in among_others.out
    assert "program" in among_others.err


def test_import_takes_the_word_of_the_user_for_what_a_file_is(atop: Command, tmp_path: Path) -> None:
    table = tmp_path / "table"
    table.write_text("Name,E-mail\nAda,ada@example.org\n")
    atop.done("import", "--format", "csv", str(table))
    assert atop.done("--json", "query", "contacts", "name").json["attributes"]["email"] == "ada@example.org"


@pytest.mark.parametrize("name", ["all.vcf", "all.csv", "all.jsonl"])
def test_what_is_exported_is_imported_again(name: str, atop: Command, files: Path, tmp_path: Path) -> None:
    atop.done("import", str(files / "good.vcf"))
    target = tmp_path / name
    assert atop.done("--json", "export", "contacts", str(target)).json == {
        "file": str(target), "pool": "contacts", "written": 2, "left_out": 0
    }  # fmt: skip
    other = Command(tmp_path / "other", atop._capsys)
    other.done("import", str(target))
    shown = ["query", "contacts", "name", "--columns", "name,email"]
    assert [row[1:] for row in other.done(*shown).rows] == [row[1:] for row in atop.done(*shown).rows]


def test_an_export_goes_to_a_pipe(atop: Command, files: Path) -> None:
    atop.done("import", str(files / "good.vcf"))
    outcome = finish(process("--store", str(atop.store), "export", "contacts", "--format", "vcard"))
    assert outcome.code == 0
    assert outcome.out.startswith("BEGIN:VCARD")
    assert outcome.out.count("END:VCARD") == 2
    lines = finish(process("--store", str(atop.store), "--json", "export", "contacts")).json_lines
    assert [line["attributes"]["uid"] for line in lines if "attributes" in line] == ["ada", "bob"]


def test_an_export_never_goes_to_a_terminal(atop: Command, files: Path) -> None:
    atop.done("import", str(files / "good.vcf"))
    code, seen = on_terminal("--store", str(atop.store), "export", "contacts", "--format", "vcard")
    assert code == 2
    assert "not for a terminal" in seen
    assert "VCARD" not in seen.replace("vcard", "")


def test_an_item_that_the_format_cannot_hold_is_named(atop: Command, files: Path, tmp_path: Path) -> None:
    atop.done("import", str(files / "good.vcf"))
    with Store(atop.store) as store:
        thing = Item(store, name="a thing")
        store.pool("contacts").add(thing)
    outcome = atop("--json", "export", "contacts", str(tmp_path / "out.vcf"))
    assert outcome.code == 3
    assert (outcome.json["written"], outcome.json["left_out"]) == (2, 1)
    assert json.loads(outcome.err)["skipped"]["id"] == thing.item_id


def test_an_export_writes_into_a_named_pipe_and_leaves_it_one(atop: Command, files: Path, tmp_path: Path) -> None:
    atop.done("import", str(files / "good.vcf"))
    pipe = tmp_path / "pipe.vcf"
    os.mkfifo(pipe)
    running = process("--store", str(atop.store), "export", "contacts", str(pipe))
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(reader, True)
    assert finish(running).code == 0
    with open(reader, "rb") as stream:
        assert stream.read().count(b"END:VCARD") == 2
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_an_export_to_a_folder_that_is_not_there_says_so(atop: Command, files: Path) -> None:
    atop.done("import", str(files / "good.vcf"))
    outcome = atop("export", "contacts", "nowhere/all.vcf")
    assert outcome.code == 1
    assert outcome.err == "atop: nowhere: there is no such folder: make it first\n"


def test_an_export_that_cannot_be_written_says_where(
    atop: Command, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    atop.done("import", str(files / "good.vcf"))

    def fail(*_: Any) -> bytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("atop.pim.exporting.write_card", fail)
    outcome = atop("export", "contacts", str(tmp_path / "all.vcf"))
    assert outcome.code == 1
    assert outcome.err == f"atop: {tmp_path / 'all.vcf'}: No space left on device\n"


@pytest.mark.parametrize(
    "arguments", [[], ["--format", "doc"], ["--json", "--format", "vcard"], ["all"], ["all.doc"]], ids=" ".join
)
def test_an_export_to_nowhere_is_wrong_use(arguments: list[str], atop: Command, files: Path) -> None:
    atop.done("import", str(files / "good.vcf"))
    assert atop("export", "contacts", *arguments).code == 2


def test_the_formats_are_those_that_are_read_and_written() -> None:
    assert get_args(Format) == IMPORT_FORMATS
    assert get_args(ExportFormat) == EXPORT_FORMATS


# -- progress

BUSY = """
import atop.cli.output as output
output.PROGRESS_AFTER = 0
with output.Output(json={json}).progress("importing [b]\\x1b[31m.vcf") as progress:
    progress.update(5, 10)
    while {drawn} and progress._bar is None:
        pass
print("done")
"""


def test_progress_is_drawn_on_a_terminal_without_markup_or_escapes_of_the_label() -> None:
    code, seen = run_on_terminal([sys.executable, "-c", BUSY.format(json=False, drawn=True)])
    assert code == 0
    assert r"importing [b]\x1b[31m.vcf" in seen
    assert "50%" in seen


def test_progress_is_drawn_neither_with_json_nor_into_a_pipe() -> None:
    code, seen = run_on_terminal([sys.executable, "-c", BUSY.format(json=True, drawn=False)])
    assert (code, seen.strip()) == (0, "done")
    command = [sys.executable, "-c", BUSY.format(json=False, drawn=False)]
    outcome = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (outcome.stdout, outcome.stderr) == ("done\n", "")


# -- history and undo


def rename(command: Command, name: str, new_name: str) -> int:
    """Rename a person; returns the number of the commit."""
    with Store(command.store) as store:
        with store.transaction(f"rename {name}"):
            (person,) = store.pool("people").query("name", key=name)
            person.name = new_name
        return next(store.history()).number


def test_history_has_the_latest_commit_first(people: Command) -> None:
    number = rename(people, "Bob", "Robert")
    commits = people.done("--json", "history").json_lines
    assert (commits[0]["number"], commits[0]["label"]) == (number, "rename Bob")
    assert [change["attributes"] for change in commits[0]["changes"]] == [["name"]]
    assert [commit["number"] for commit in commits] == sorted((c["number"] for c in commits), reverse=True)
    assert people.done("history", "--limit", "1").rows == [
        [str(number), people.done("history").rows[0][1], "1 changed", "rename Bob"]
    ]


def test_history_of_an_item_says_what_changed(people: Command) -> None:
    rename(people, "Bob", "Robert")
    (bob,) = people.done("--json", "query", "people", "name", "--key", "Robert").json_lines
    latest, first = people.done("--json", "history", "--item", str(bob["id"])).json_lines
    assert latest["changed"] == {"name": ["Bob", "Robert"]}
    assert first["kind"] == "created"
    assert people.done("history", "--item", str(bob["id"])).rows[0][2] == "name: Bob -> Robert"


def test_undo_takes_back_a_commit_and_undoing_that_puts_it_in_again(people: Command) -> None:
    number = rename(people, "Bob", "Robert")
    (undone,) = people.done("--json", "undo", str(number)).json["undone"]
    assert (undone["number"], undone["label"]) == (number, "rename Bob")
    assert people.done("query", "people", "name", "--key", "Bob").rows
    assert people.done("--json", "history", "--limit", "1").json["label"] == f"undo {number}: rename Bob"
    people.done("undo", str(number + 1))
    assert people.done("query", "people", "name", "--key", "Robert").rows


def test_undo_is_refused_where_later_commits_build_on_it(people: Command) -> None:
    first = rename(people, "Bob", "Robert")
    rename(people, "Robert", "Rob")
    outcome = people("undo", str(first))
    assert outcome.code == 1
    assert people.done("query", "people", "name", "--key", "Rob").rows


def test_the_number_that_is_shown_is_the_one_that_undo_takes_whatever_the_ids_are(people: Command) -> None:
    people.done("backup", "copy")
    people.done("restore", "copy", "--force")  # new ids lie far past those of the backup
    number = rename(people, "Bob", "Robert")
    commit = people.done("--json", "history", "--limit", "1").json
    assert commit["number"] == number != commit["commit_id"]
    assert people.done("--json", "status").json["commit"] == number
    assert people.done("--json", "backup", "copy of it").json["commit"] == number
    assert people.done("history", "--limit", "1").rows[0][0] == str(number)
    assert people("undo", str(commit["commit_id"])).code == 1
    people.done("undo", str(number))
    assert people.done("query", "people", "name", "--key", "Bob").rows


def test_each_undo_of_the_last_goes_one_step_further_back(people: Command) -> None:
    for old, new in [("Bob", "Robert"), ("Robert", "Rob"), ("Rob", "Bobby")]:
        rename(people, old, new)
    for name in ("Rob", "Robert", "Bob"):
        people.done("undo", "--last")
        assert people.done("query", "people", "name", "--key", name).rows
    number = people.done("--json", "history", "--limit", "1").json["number"]
    people.done("undo", str(number))  # so that is there again
    assert people.done("query", "people", "name", "--key", "Robert").rows
    people.done("undo", "--last")
    assert people.done("query", "people", "name", "--key", "Bob").rows
    people.done("undo", "--last")  # the first people and their pool
    outcome = people("undo", "--last")
    assert outcome.code == 1
    assert "nothing to undo" in outcome.err


def test_several_commits_are_undone_newest_first_in_one_transaction_if_they_fit(people: Command) -> None:
    first = rename(people, "Bob", "Robert")
    rename(people, "Ada", "Adele")
    third = rename(people, "Cleo", "Clio")
    undone = people.done("--json", "undo", f"{first}..{third}").json["undone"]
    assert [commit["number"] for commit in undone] == [third, third - 1, first]
    assert [row[1] for row in people.done("query", "people", "name", "--columns", "name").rows] == NAMES
    latest = people.done("--json", "history", "--limit", "1").json
    assert (latest["number"], latest["label"]) == (third + 1, f"undo {first}..{third}")
    assert people("undo", f"{first}..{third}").code == 1  # taken back already
    people.done("undo", str(third + 1))
    assert people.done("query", "people", "name", "--key", "Clio").rows


def test_a_range_of_commits_that_build_on_each_other_is_undone(people: Command) -> None:
    first = rename(people, "Bob", "Robert")
    rename(people, "Robert", "Rob")
    third = rename(people, "Rob", "Bobby")
    people.done("undo", str(third))
    rename(people, "Ada", "Adele")
    people.done("undo", f"{third}..{first}", str(third + 2))
    assert [row[1] for row in people.done("query", "people", "name", "--columns", "name").rows] == NAMES


def test_an_undo_that_is_refused_halfway_says_what_was_taken_back(people: Command) -> None:
    first = rename(people, "Bob", "Robert")
    rename(people, "Robert", "Rob")
    third = rename(people, "Rob", "Bobby")
    outcome = people("undo", str(first), str(third))
    assert outcome.code == 1
    assert f"taken back before that, and left so: {third}" in outcome.err
    assert people.done("query", "people", "name", "--key", "Rob").rows


@pytest.mark.parametrize("arguments", [[], ["1", "--last"], ["first"], ["1-3"], ["-1"]], ids=repr)
def test_undo_wants_one_commit_or_the_last(arguments: list[str], people: Command) -> None:
    assert people("undo", *arguments).code == 2


def test_undo_in_an_empty_store_has_nothing_to_do(atop: Command) -> None:
    atop.done("init")
    outcome = atop("undo", "--last")
    assert outcome.code == 1
    assert "nothing to undo" in outcome.err


# -- care


def test_a_backup_is_restored_with_the_same_contents(people: Command, tmp_path: Path) -> None:
    backup = tmp_path / "copies" / "monday"
    before = people.done("--json", "status").json
    people.done("backup", str(backup))
    rename(people, "Bob", "Robert")
    refused = people("restore", str(backup))
    assert refused.code == 1
    assert "--force" in refused.err
    restored = people.done("--json", "restore", str(backup), "--force").json
    assert people.done("--json", "status").json == before
    assert Path(restored["moved"]).is_dir()
    elsewhere = Command(tmp_path / "elsewhere", people._capsys)
    assert elsewhere.done("--json", "restore", str(backup)).json["moved"] is None
    assert elsewhere.done("--json", "status").json["chain"] == before["chain"]


def test_stores_backups_and_what_is_restored_are_the_users_alone(people: Command, tmp_path: Path) -> None:
    with Store(people.store) as store:
        store.pool("people").add(Item(store, photo=store.file(b"a photo")))
    people.done("backup", str(tmp_path / "copy"))
    restored = Command(tmp_path / "restored", people._capsys)
    restored.done("restore", str(tmp_path / "copy"))
    restored.done("verify")
    assert (restored.store / "local" / "log-mark").exists()
    for top in (people.store, tmp_path / "copy", restored.store):
        modes = {path.relative_to(tmp_path): stat.S_IMODE(path.stat().st_mode) for path in [top, *top.rglob("*")]}
        assert [str(path) for path, mode in modes.items() if mode & 0o077] == []


def test_a_backup_is_never_written_over_something(people: Command, tmp_path: Path) -> None:
    people.done("backup", str(tmp_path / "copy"))
    assert people("backup", str(tmp_path / "copy")).code == 1


def test_a_store_with_a_damaged_page_is_not_backed_up(atop: Command, tmp_path: Path) -> None:
    with Store(atop.store) as store, store.transaction():
        pool = store.pool("people")
        for number in range(200):
            pool.add(Item(store, name=f"person {number}", note="x" * 100))
    table = atop.store / "data" / "items.db"
    pages = bytearray(table.read_bytes())
    pages[pages.index(b"person 100")] ^= 0xFF  # in a leaf
    table.write_bytes(pages)
    outcome = atop("backup", str(tmp_path / "copy"))
    assert (outcome.code, outcome.out) == (1, "")
    assert "damaged" in outcome.err
    assert [path.name for path in tmp_path.iterdir() if "copy" in path.name] == []


def test_verify_names_each_problem_and_fails(people: Command) -> None:
    assert people.done("--json", "verify").json["problems"] == []
    with Store(people.store) as store:
        store.pool("people").add(Item(store, name="Gus", picture=store.file(b"a picture", name="gus.png")))
    for path in (people.store / "files").rglob("*"):
        if path.is_file():
            path.unlink()
    outcome = people("--json", "verify")
    assert outcome.code == 1
    assert len(outcome.json["problems"]) == 1
    shown = people("verify")
    assert shown.code == 1
    assert "found 1 problem" in shown.out
    assert "atop restore" in shown.err


def test_compact_removes_history_that_is_older_than_asked(people: Command) -> None:
    rename(people, "Bob", "Robert")
    report = people.done("--json", "compact", "--keep", "0").json
    assert report["commits"] > 0
    assert len(people.done("--json", "history").json_lines) == 1  # the last one stays
    people.done("verify")


def test_compact_says_how_many_young_files_it_kept(people: Command) -> None:
    with Store(people.store) as store:
        store.file(b"nothing names this")
    report = people.done("--json", "compact").json
    assert (report["files"], report["kept_files"]) == (0, 1)
    assert "kept the contents of 1 file younger than an hour" in people.done("compact").out


# -- shell


def test_shell_has_the_store_open_and_the_names_of_atop(people: Command) -> None:
    code = 'pool = store.pool("people"); pool.add(Item(store, name="Gus")); print(len(pool))'
    assert people.done("shell", "-c", code).out == "7\n"
    assert people.done("query", "people", "name", "--key", "Gus").rows


def test_shell_has_the_classes_of_peoples_data(atop: Command, files: Path) -> None:
    atop.done("import", str(files / "good.vcf"))
    atop.done("shell", "-c", "next(store.pool('contacts').query('name', start='Ada')).city = 'Rome'")
    assert atop.done("query", "contacts", "name", "--columns", "city", "--limit", "1").rows[0][1] == "Rome"


def test_shell_reads_lines_from_a_pipe(people: Command) -> None:
    outcome = piped_to_shell(people, "for pool in store.pools():\n    print(len(pool))\nprint('done')\n")
    assert (outcome.code, outcome.out) == (0, "6\ndone\n")


@pytest.mark.parametrize("code", ["1/0", "def f():\n    1/0\nf()", "1 +"], ids=repr)
def test_shell_shows_the_users_error_alone_and_fails(code: str, people: Command) -> None:
    for outcome in (people("shell", "-c", code), piped_to_shell(people, code)):
        assert outcome.code == 1
        assert "Traceback" in outcome.err or "SyntaxError" in outcome.err
        assert "bug in Atop" not in outcome.err
        assert "interactive.py" not in outcome.err
    people.done("verify")


def piped_to_shell(command: Command, code: str) -> Outcome:
    running = process("--store", str(command.store), "shell", stdin=subprocess.PIPE)
    out, err = running.communicate(code, timeout=60)
    return Outcome(running.returncode, out, err)


def test_shell_makes_no_pool_of_a_mistyped_name(people: Command) -> None:
    outcome = people("shell", "-c", "store.pool('poeple').add(Item(store))")
    assert outcome.code == 1
    assert "there is no pool 'poeple'" in outcome.err
    assert "its pools: people; create=True makes a new one" in outcome.err
    people.done("shell", "-c", "store.pool('books', ['title']); store.pool('boxes', create=True)")
    pools = people.done("--json", "status").json["pools"]
    assert [pool["name"] for pool in pools] == ["books", "boxes", "people"]


def test_shell_gives_the_pools_of_peoples_data_their_indexes(atop: Command) -> None:
    atop.done("init")
    atop.done("shell", "-c", "store.pool('events').add(Event(store, summary='Lunch'))")
    assert atop.done("query", "events", "summary", "--prefix", "lu", "--columns", "summary").rows[0][1] == "Lunch"


def test_shell_refuses_json(people: Command) -> None:
    assert people("--json", "shell", "-c", "1").code == 2


# -- how it ends


def test_the_installed_command_runs(people: Command) -> None:
    outcome = finish(process("--json", "status", env=environment(ATOP_STORE=str(people.store))))
    assert outcome.code == 0
    assert outcome.json["pools"] == [{"name": "people", "size": 6}]


def test_without_a_command_it_shows_its_help_and_that_is_wrong_use(atop: Command) -> None:
    outcome = atop()
    assert outcome.code == 2
    assert all(name in outcome.err for name in COMMANDS)


def test_help_is_a_command_too(atop: Command) -> None:
    assert atop.done("help").out == atop.done("--help").out
    assert atop.done("help", "query").out == atop.done("query", "--help").out
    assert atop("help", "qurey").code == 2


def test_a_mistyped_command_is_answered_with_the_right_one(atop: Command) -> None:
    outcome = atop("stauts")
    assert outcome.code == 2
    assert "Did you mean status?" in outcome.err


def test_version_is_shown(atop: Command) -> None:
    from atop import __version__

    assert atop.done("--version").out == f"atop {__version__}\n"
    assert atop.done("--json", "--version").json == {"version": __version__}


def test_a_closed_pipe_ends_it_quietly(atop: Command) -> None:
    with Store(atop.store) as store, store.transaction():
        pool = store.pool("numbers", indexes=["number"])
        for number in range(500):
            pool.add(Item(store, number=number, text="x" * 500))
    running = process("--json", "--store", str(atop.store), "query", "numbers", "number")
    assert running.stdout is not None
    assert running.stderr is not None
    running.stdout.readline()
    running.stdout.close()
    assert running.stderr.read() == ""
    running.stderr.close()
    assert running.wait(timeout=60) == 141


def test_a_full_disk_is_an_error_and_not_silence(people: Command) -> None:
    with open("/dev/full", "w") as full:
        command = [str(Path(sys.executable).with_name("atop")), "--store", str(people.store), "status"]
        outcome = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert outcome.returncode == 1
    assert outcome.stderr == "atop: standard output: No space left on device\n"


def test_ctrl_c_closes_the_store_and_says_so(people: Command) -> None:
    code = "print('ready', flush=True); import signal; signal.pause()"
    running = process("--store", str(people.store), "shell", "-c", code)
    assert running.stdout is not None
    assert running.stdout.readline() == "ready\n"
    running.send_signal(signal.SIGINT)
    outcome = finish(running)
    assert outcome.code == 130
    assert outcome.err == "atop: interrupted\n"
    people.done("verify")


def test_names_that_the_terminal_cannot_show_do_not_fail(atop: Command) -> None:
    with Store(atop.store) as store:
        store.pool("people").add(Item(store, name="Zoë 李"))
    arguments = ["--store", str(atop.store), "query", "people"]
    outcome = finish(process(*arguments, env=environment(PYTHONIOENCODING="ascii")))
    assert outcome.code == 0
    assert r"Zo\xeb \u674e" in outcome.out


def test_without_click_it_says_which_extra_to_install() -> None:
    code = "import sys; sys.modules['click'] = None; from atop.cli import main; sys.exit(main(['status']))"
    outcome = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert outcome.returncode == 2
    assert "pip install '.[all]'" in outcome.stderr  # another project has the name on package indexes


def test_help_needs_neither_rich_nor_the_readers_of_files() -> None:
    code = (
        "import sys; from atop.cli import main; main(['--help']); "
        "print([name for name in ('rich', 'atop.pim', 'platformdirs', 'icalendar') if name in sys.modules])"
    )
    outcome = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert outcome.stdout.splitlines()[-1] == "[]"


@pytest.fixture
def completions(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[str], list[str]]:
    def complete(line: str) -> list[str]:
        monkeypatch.setenv("_ATOP_COMPLETE", "bash_complete")
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(len(line.split()) - 1))
        assert main([]) == 0
        return [each.partition(",")[2] for each in capsys.readouterr().out.splitlines() if each]

    return complete


def test_the_shell_completes_commands_and_options(completions: Callable[[str], list[str]]) -> None:
    assert completions("atop ver") == ["verify"]
    assert "--columns" in completions("atop query --c")


def test_the_shell_completes_pools_and_indexes_of_the_store_that_is_named(
    people: Command, completions: Callable[[str], list[str]]
) -> None:
    named = f"atop --store {people.store} query"
    assert completions(f"{named} p") == ["people"]
    assert completions(f"{named} people n") == ["name"]
    assert completions(f"{named} people x") == []
    assert completions(f"{named} nobody n") == []
    assert completions("atop query p") == []


# -- help and documentation


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_examples(name: str) -> None:
    command = root.get_command(click.Context(root), name)
    assert command is not None
    assert command.name == name
    assert command.help is not None
    assert f"atop {name}" in command.help or f" {name} " in command.help
    assert "Examples:" in command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.opts} has no help"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_shows_its_help(name: str, atop: Command) -> None:
    assert atop.done(name, "--help").out.startswith(f"Usage: atop {name}")


def document(*arguments: str) -> Outcome:
    script = Path(__file__).parent.parent / "scripts" / "document.py"
    return finish(
        subprocess.Popen(
            [sys.executable, str(script), *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    )


def test_generated_documentation_is_as_the_code_has_it() -> None:
    outcome = document("--check")
    assert outcome.code == 0, outcome.out + outcome.err


def test_every_command_is_documented() -> None:
    page = (Path(__file__).parent.parent / "docs" / "cli.md").read_text(encoding="utf-8")
    for name in COMMANDS:
        assert f"### atop {name}\n" in page
