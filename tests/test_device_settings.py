"""The settings of a device: what is accepted, what is refused and how it is said, what a change leaves alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from replication import SettingsError
from replication.settings import Settings, change, chosen, load


def write(directory: Path, text: str) -> Path:
    (directory / "settings.toml").write_text(text, encoding="utf-8")
    return directory


def test_all_settings_are_read(tmp_path: Path) -> None:
    text = """
        name = "läptop"
        port = 5000
        peers = ["desktop.lan:4747", "10.0.0.2"]
        interfaces = ["eth*"]
        multicast = false
        consistency = "majority"
    """
    assert load(write(tmp_path, text)) == Settings(
        "läptop", 5000, ("desktop.lan:4747", "10.0.0.2"), ("eth*",), False, "majority"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nam = 'x'", "there is no setting 'nam'"),
        ("name = 5", "name must be text"),
        ('name = "a\\u0007b"', "settings.toml"),
        ("port = 70000", "port must be a number"),
        ("port = true", "port must be a number"),
        ("peers = 'desktop'", "peers must be a list"),
        ("peers = ['a b']", "settings.toml"),
        ("multicast = 1", "true or false"),
        ("consistency = 'most'", "available, majority"),
        ("port = \n", "line 1"),
        ("\x00", "settings.toml"),
    ],
    ids=lambda value: value[:12] if isinstance(value, str) else None,
)
def test_a_mistake_is_refused_and_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        load(write(tmp_path, text))


def test_a_change_leaves_the_other_lines_as_they_are(tmp_path: Path) -> None:
    before = '# mine\nport = 5000  # as the firewall has it\nname = "old"\npeers = [\n  "a.lan",\n]\n'
    change(write(tmp_path, before), name='new "one"', peers=("b.lan", "c.lan"))
    text = (tmp_path / "settings.toml").read_text("utf-8")
    assert "# mine\nport = 5000  # as the firewall has it\n" in text
    assert load(tmp_path) == Settings('new "one"', 5000, ("b.lan", "c.lan"))


def test_a_change_that_would_not_be_read_changes_nothing(tmp_path: Path) -> None:
    write(tmp_path, 'name = "old"\n')
    with pytest.raises(SettingsError):
        change(tmp_path, name="a\x1bb")
    assert load(tmp_path).name == "old"


def test_what_is_given_counts_for_this_time_and_the_first_name_stays(tmp_path: Path) -> None:
    assert chosen(tmp_path, {"name": "laptop", "port": 0, "peers": ["a.lan"], "multicast": None}) == Settings(
        "laptop", 0, ("a.lan",)
    )
    assert chosen(tmp_path, {"name": "another"}) == Settings("laptop")
