"""The sample data: the same on every machine, and of the kinds that people have."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

from test_pim_import import SCRIPTS, load_samples  # noqa: F401 - a fixture


def written(samples: ModuleType, folder: Path, seed: int) -> bytes:
    folder.mkdir()
    samples.write_contacts(folder / "contacts.vcf", 30, seed)
    samples.write_calendar(folder / "calendar.ics", 30, seed)
    samples.write_mailbox(folder / "mail.mbox", 30, seed)
    return b"".join(path.read_bytes() for path in sorted(folder.iterdir()))


def test_the_same_seed_gives_the_same_octets_and_another_others(samples: ModuleType, tmp_path: Path) -> None:
    first, again, other = (written(samples, tmp_path / name, seed) for name, seed in (("1", 1), ("2", 1), ("3", 2)))
    assert first == again != other


def test_a_longer_file_begins_like_a_shorter_one(samples: ModuleType, tmp_path: Path) -> None:
    samples.write_contacts(tmp_path / "short", 10)
    samples.write_contacts(tmp_path / "long", 20)
    assert (tmp_path / "long").read_bytes().startswith((tmp_path / "short").read_bytes())


def test_there_is_something_of_everything(samples: ModuleType, tmp_path: Path) -> None:
    octets = written(samples, tmp_path / "all", 1)
    for mark in (
        *(b"VERSION:2.1", b"VERSION:3.0", b"VERSION:4.0", b"QUOTED-PRINTABLE", b"PHOTO", b"X-ABLabel"),
        *(b"RRULE", b"RECURRENCE-ID", b"EXDATE", b"W. Europe Standard Time", b"VTIMEZONE", b"VTODO", b"VJOURNAL"),
        *(b"=?utf-8?B?", b"iso-8859-1", b"multipart/mixed", b"text/html", b">From here", b"In-Reply-To"),
        *(word.encode() for word in ("тропа", "θάλασσα", "דרך", "山道", "바람")),
    ):
        assert mark in octets


def test_the_command_writes_three_files_of_any_size(tmp_path: Path) -> None:
    command = [sys.executable, SCRIPTS / "sample_data.py", tmp_path / "new", "--contacts", "3", "--events", "2"]
    subprocess.run([*command, "--messages", "1"], check=True)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["calendar.ics", "contacts.vcf", "mail.mbox"]
    assert (tmp_path / "new" / "contacts.vcf").read_bytes().count(b"BEGIN:VCARD") == 3
    assert (tmp_path / "new" / "mail.mbox").read_bytes().count(b"From: ") == 1
