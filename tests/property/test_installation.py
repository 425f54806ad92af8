"""Whatever is found on a machine: no value becomes another line of what root and systemd read."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from indexer.base import options
from indexer.base.errors import UsageError
from indexer.install import files as installation
from indexer.install.files import Machine, Setting

from .profiles import examples

pytestmark = pytest.mark.property

MASTER = {
    "status-queue": Setting("ipc:///tmp/piw-status", "/etc/piwheels.conf, line 1"),
    "db-queue": Setting("ipc:///tmp/piw-db", "/etc/piwheels.conf, line 2"),
    "log-queue": Setting("ipc:///tmp/piw-logger", "/etc/piwheels.conf, line 3"),
    "output-path": Setting("/var/www", "/etc/piwheels.conf, line 4"),
}
PLAIN = Machine(
    command=Path("/opt/bin/piw-indexer"),
    user="piwheels",
    output_path=Path("/srv/x"),
    piwheels=MASTER,
    sockets=frozenset(),
    systemd=0,
)

PARTS = st.sampled_from(
    [
        *"\n\r\t\0\x0b\x0c\x1c\x1e\x7f\x85\u2028\u2029\xa0\u202e\ud800 \"'\\%$;#=[]:-+!@/.",
        *("..", "%n", "%%", "$HOME", "${X}", "srv", "a b", "ü", "-x", "\\n", "\\x0a", " ;", " #"),
        *("\nExecStartPre=+/home/evil", "\n[Service]\nUser=root", "\\\nExecStart=", "\n  x = y"),
    ]
)
TEXTS = st.lists(PARTS, max_size=8).map("".join) | st.text(max_size=12)


def lines(text: str) -> list[str]:
    """The lines of a unit, as systemd reads it: https://github.com/systemd/systemd, read_line()."""
    return re.split(r"\n|\r|\0", text)


def keys(text: str) -> list[str]:
    """What each line sets, comments and headers whole."""
    return [
        line if line.startswith(("#", "[")) else line.partition("=")[0]
        for line in lines(text.partition("\n")[2])
    ]


def words(value: str) -> list[str]:
    """A value's words as systemd has them, of those that we write; see systemd.syntax(7)."""
    found = [quoted or plain for quoted, plain in re.findall(r'"([^"\\]*)"|([^\s"\'\\]+)', value)]
    assert all("%" not in word.replace("%%", "") for word in found), "a specifier"
    return [word.replace("%%", "%") for word in found]


def values(text: str, key: str) -> list[str]:
    return [line.partition("=")[2] for line in lines(text) if line.startswith(f"{key}=")]


@examples(90)
@given(TEXTS.map("/".__add__), st.sampled_from(["piwheels", "root", "a.b-c_d"]), TEXTS)
@example("/srv/x\n  ExecStartPre=+/home/piwheels/evil", "piwheels", "")
@example("/srv/a site", "piwheels", "opt/50% of $HOME/bin")
@example("/srv/%n", "piwheels", "opt/%n")
@example('/srv/x" "/etc', "piwheels", "")
@example("/srv/'x y'", "piwheels", "")
@example("/srv/x\\x2f", "piwheels", "opt\\\\bin")
def test_units_have_the_lines_that_they_should(output: str, user: str, command: str) -> None:
    machine = Machine(
        **{
            **PLAIN.__dict__,
            "command": Path(f"/{command}"),
            "user": user,
            "output_path": Path(output),
        }
    )
    try:
        found = installation.files(machine)
    except UsageError:
        return
    plain = installation.files(PLAIN)
    for name in installation.UNITS:
        path = f"{installation.UNIT_DIRECTORY}/{name}"
        assert keys(found[path]) == keys(plain[path])
        if name.endswith(".service"):
            assert values(found[path], "User") == [user]
            [written] = values(found[path], "ReadWritePaths")
            assert words(written) == [f"-{machine.output_path}"]
            [start] = values(found[path], "ExecStart")
            [path_of_command, *arguments] = words(start)
            assert path_of_command == str(machine.command)
            assert arguments[1:] == ["-c", "/etc/piw-indexer.conf"]
    assert keys(found[installation.CONFIGURATION]) == keys(plain[installation.CONFIGURATION])


@examples(90)
@given(st.dictionaries(st.sampled_from(sorted(MASTER)), TEXTS | st.just("ipc:///x")), TEXTS)
@example({"status-queue": "ipc:///tmp/x\noutput-path = /etc"}, "")
@example({"db-queue": "ipc:///tmp/x\x1b[2J"}, "")
def test_what_a_master_has_configured(settings: dict[str, str], place: str) -> None:
    """From a file that its user may write."""
    with tempfile.TemporaryDirectory() as directory:
        theirs = Path(directory, "piwheels.conf")
        text = "".join(f"{name} = {value}\n" for name, value in settings.items())
        theirs.write_bytes(text.encode(errors="surrogatepass"))
        try:
            piwheels = installation.piwheels_settings([theirs], Path(directory))
        except UsageError:
            return  # not a text
        machine = Machine(**{**PLAIN.__dict__, "piwheels": piwheels})
        written = installation.files(machine)[installation.CONFIGURATION]
        assert all(line.isprintable() for line in written.splitlines())
        ours = Path(directory, "piw-indexer.conf")
        ours.write_text(written)
        found = options.read_file(ours)
    assert found.keys() <= {"output_path", "status_queue", "db_queue"}
    assert found["output_path"] == PLAIN.output_path
