"""The configuration file: which parts are ours, and errors that say field, value and reason."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click import BadParameter

from indexer.base import options
from indexer.base.errors import UsageError

pytestmark = pytest.mark.unit


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "piwheels.conf"


def test_file_of_piwheels_alone(file: Path) -> None:
    file.write_text(
        "dsn = postgres:///piwheels\n"
        "; a comment\n"
        "[master]\n"
        "dsn = postgres:///%(user)s\n"
        "dsn = twice\n"
        "[slave]\n"
        "master=10.0.0.1\n"
    )
    assert options.read_file(file) == {}


def test_links_that_lead_to_themselves_are_refused(file: Path) -> None:
    """Once a master's user could end root's `install` with a traceback."""
    file.symlink_to(file)
    with pytest.raises(UsageError, match="not a regular file"):
        options.read_file(file)


def test_lines_of_spaces_are_refused(file: Path) -> None:
    """A parser takes the square of their number: one mebibyte of them took more than a day."""
    file.write_text(f"[indexer]\nsettle ={' ' * 200}1\n")
    assert options.read_file(file) == {"settle": 1.0}
    file.write_text(f"[indexer]\nsettle ={' ' * 1000}1\n")
    with pytest.raises(UsageError, match="line 2 has more than 200 spaces in a row"):
        options.read_file(file)


def test_an_empty_file_sets_nothing(file: Path) -> None:
    file.write_text("")
    assert options.read_file(file) == {}


def test_values_have_the_types_of_their_options(file: Path) -> None:
    file.write_text(
        "[indexer]\n"
        "state-dir = /srv/x\n"
        "settle: 2\n"
        "changes_queue =\n"
        "  ipc:///a\n"
        "  tcp://b:1\n"
        "Site-URL = https://x.org  \n"
    )
    assert options.read_file(file) == {
        "state_dir": Path("/srv/x"),
        "settle": 2.0,
        "changes_queue": ["ipc:///a", "tcp://b:1"],
        "site_url": "https://x.org",
    }


@pytest.mark.parametrize(
    "text",
    ["output-path = /srv/x\n  ExecStartPre=+/evil", "site-url = https://x\x1b[2J", "user = a\x00b"],
)
def test_a_value_is_of_one_line(file: Path, text: str) -> None:
    """Otherwise the file that the value is copied to would have a line chosen by somebody else."""
    file.write_text(f"[indexer]\n{text}\n")
    with pytest.raises(UsageError, match="line break or another control character") as error:
        options.read_file(file)
    assert "\x1b" not in str(error.value)


def test_paths_are_from_the_root(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands leave the directory in which they are typed."""
    monkeypatch.chdir(file.parent)
    file.write_text(
        "[indexer]\noutput-path = site\ncurve-key = my.key\ncurve-server-key = their.pub other\n"
        "log-queue = ipc://logger\nchanges-queue = ipc:///a ipc://@abstract tcp://b:1\n"
    )
    (file.parent / "their.pub").touch()
    here = file.parent
    assert options.read_file(file) == {
        "output_path": here / "site",
        "curve_key": here / "my.key",
        "curve_server_key": [f"{here}/their.pub", "other"],
        "log_queue": f"ipc://{here}/logger",
        "changes_queue": ["ipc:///a", "ipc://@abstract", "tcp://b:1"],
    }
    assert options.as_typed(here / "site" / "project") == Path("site/project")
    assert options.as_typed(Path("/elsewhere")) == Path("/elsewhere")


def test_keys_of_a_default_section_are_not_ours(file: Path) -> None:
    file.write_text("[DEFAULT]\ndsn = x\n[indexer]\nsettle = 1\n")
    assert options.read_file(file) == {"settle": 1.0}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[indexer]\nsetle = 1\n", ["'setle'", "did you mean settle?"]),
        ("[indexer]\nfrobnicate = 1\n", ["'frobnicate'", "--help"]),
        ("[indexer]\nsettle = soon\n", ["settle", "'soon'", "seconds"]),
        ("[indexer]\nstate-dir = {file}\n", ["state-dir", "{file}", "is a file"]),
        ("[indexer]\nreplay-queue = ipc:///a b\n", ["replay-queue", "'b'", "address"]),
        ("[indexer\n", ["[indexer"]),
    ],
)
def test_errors_say_file_field_value_and_reason(text: str, says: list[str], file: Path) -> None:
    file.write_text(text.replace("{file}", str(file)))
    with pytest.raises(UsageError) as error:
        options.read_file(file)
    assert error.value.exit_status == 2
    assert error.value.remedy
    for part in [str(file), *says]:
        assert part.replace("{file}", str(file)) in str(error.value)


def test_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="it is not a regular file"):
        options.read_file(tmp_path)


def test_file_that_is_too_large(file: Path) -> None:
    file.write_text("[indexer]\nsettle = 3\n")
    os.truncate(file, 2**40)  # a terabyte, and no block on the disk
    with pytest.raises(UsageError, match=r"plain-conf: it has more than 1 MiB"):
        options.read_file(file.rename(file.with_name("plain-conf")))


def test_a_link_leads_to_a_file_and_to_nothing_else(file: Path) -> None:
    there = file.with_name("there")
    there.write_text("[indexer]\nsettle = 3\n")
    file.symlink_to(there)
    assert options.read_file(file) == {"settle": 3.0}
    there.unlink()
    os.mkfifo(there)  # nobody writes to it: whoever waits for that waits for ever
    with pytest.raises(UsageError, match="it is not a regular file"):
        options.read_file(file)


def test_one_file_with_a_master(file: Path) -> None:
    """As in the documentation: piwheels takes the last line of a name, in any section."""
    document = Path(__file__).parents[2] / "docs" / "beside-a-master.md"
    _, _, sample = document.read_text().partition("```ini\n")
    sample, _, _ = sample.partition("```")
    file.write_text(sample)
    ours = options.read_file(file)
    lines = [line.partition(" = ") for line in sample.splitlines() if " = " in line]
    masters = {name: value for name, _, value in lines}
    assert ours["log_queue"] != masters["log-queue"] == ours["log_forward"]
    assert str(ours["output_path"]) != masters["output-path"] == "/var/www"
    assert ours["db_queue"] == masters["db-queue"]


@pytest.mark.parametrize("name", ["", "a\nb", "\x1b[2J", "\u202e", "x" * 101, "file:abc"])
def test_a_name_that_no_subscriber_takes_is_refused(name: str) -> None:
    with pytest.raises(BadParameter, match="is not a name of a feed"):
        options.OPTIONS["feed"]["type"].convert(name, None, None)


def test_the_longest_name_of_a_feed() -> None:
    assert options.OPTIONS["feed"]["type"].convert("ä" * 100, None, None) == "ä" * 100
