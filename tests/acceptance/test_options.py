"""Options: documented, and taken from command line, environment and configuration file."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from indexer.base import options as config
from indexer.cli import piw_indexer

from .. import samples
from ..support import Process, Site, free_ports, piw

pytestmark = pytest.mark.acceptance

COMMANDS = dict(sorted(piw_indexer.commands.items()))

DESIGNED = {
    "run": ["changes-queue", "replay-queue", "settle", "max-delay", "counters-interval"],
    "ingest": ["write", "as-of"],
    "write": ["all", "as-of"],
    "publish": ["changes-queue", "replay-queue", "rate", "exit", "state-dir"],
    "rebuild": [],
    "check": ["fix"],
    "status": ["json", "monitor"],
    "farm": ["json"],
    "metrics": ["textfile", "listen"],
    "top": [],
    "show": ["json"],
    "history": ["json"],
    "explain": ["json", "output-path", "site-url"],
    "quarantine": ["retry"],
    "keys": [],
    "demo": [],
    "install": ["dry-run", "root", "user", "remove"],
}
"""Every command of DESIGN section 8 that there is so far, with the options that it names there."""

NEED_STATE = [
    *(
        "run",
        "ingest",
        "write",
        "publish",
        "rebuild",
        "check",
        "status",
        "farm",
        "show",
        "history",
        "explain",
        "metrics",
        "top",
        "quarantine",
    )
]
NEED_OUTPUT = ["run", "ingest", "write", "rebuild", "check", "explain"]

OPTIONS = [
    (command, option)
    for command, found in COMMANDS.items()
    for option in found.params
    if isinstance(option, click.Option)
]


def test_commands_are_those_of_the_design() -> None:
    assert COMMANDS.keys() >= DESIGNED.keys()
    for command, options in DESIGNED.items():
        have = {name.lstrip("-") for one in COMMANDS[command].params for name in one.opts}
        assert have.issuperset(options), command
        assert ("state-dir" in have) >= (command in NEED_STATE), command
        assert ("output-path" in have) >= (command in NEED_OUTPUT), command
        assert {"configuration", "c"} <= have or command in ("demo", "install")


def test_help_lists_every_command(tmp_path: Path) -> None:
    text = piw("--help", home=tmp_path).stdout
    for name, command in COMMANDS.items():
        assert f"\n  {name} " in text
        assert command.help, name


@pytest.mark.parametrize("command", COMMANDS)
def test_help_documents_every_option(command: str, tmp_path: Path) -> None:
    text = " ".join(piw(command, "--help", home=tmp_path).stdout.split())
    for option in COMMANDS[command].params:
        if isinstance(option, click.Option):
            assert option.help, option.name
            assert option.help in text
            for name in option.opts:
                assert name in text
            if option.envvar and not option.is_flag:
                assert str(option.envvar) in text


def test_every_option_is_one_of_the_environment() -> None:
    missing = [
        f"{command} {option.opts[-1]}"
        for command, option in OPTIONS
        if option.opts[-1] != "--configuration"  # it says where the configuration is
        and option.envvar != "PIW_INDEXER_" + option.opts[-1][2:].upper().replace("-", "_")
    ]
    assert missing == []


VALUES = {
    "state-dir": "elsewhere",
    "output-path": "elsewhere",
    "site-url": "https://example.org",
    "changes-queue": "ipc:///a tcp://b:1",
    "replay-queue": "ipc:///a tcp://b:1",
    "settle": "0.5",
    "max-delay": "20",
    "counters-interval": "0",
    "as-of": "2026-11-20T12:00:00Z",
    "status-queue": "ipc:///run/nobody/status",
    "control-queue": "tcp://master:5561",
    "feed": "master",
    "rate": "100.5",
    "textfile": "/var/lib/prometheus/node-exporter/piw-indexer.prom",
    "listen": "127.0.0.1:9817",
    "fix": "yes",
    "write": "no",
    "all": "true",
    "exit": "false",
    "json": "on",
    "monitor": "on",
    "retry": "off",
    "spool": "1",
}


@pytest.mark.parametrize("name", VALUES)
def test_option_of_a_configuration_file(name: str, tmp_path: Path) -> None:
    file = tmp_path / "piwheels.conf"
    users = {option.name for _, option in OPTIONS if option.opts[-1] == f"--{name}"}
    for key in (name, name.replace("-", "_")):
        file.write_text(f"[indexer]\n{key} = {VALUES[name]}\n")
        assert set(config.read_file(file)) == users


def test_every_option_is_one_of_a_configuration_file() -> None:
    """Except which file to read; `demo` has no configuration."""
    have = {option.opts[-1][2:] for name, option in OPTIONS if name != "demo"}
    assert have - config.OPTIONS.keys() - config.FLAGS.keys() <= {"configuration"}


def test_switches_of_a_configuration_file(site: Site) -> None:
    file = site.home / "piwheels.conf"
    file.write_text("[indexer]\njson = yes\nwrite = yes\n")
    site.piw("ingest", "-c", file, "-", input=samples.line(samples.new_package("numpy")))
    assert (site.output_path / "packages.json").read_bytes() == b'[["numpy",0,0]]'
    assert site.piw("status", "-c", file).stdout.startswith("{")
    file.write_text("[indexer]\njson = no\n")
    assert not site.piw("status", "-c", file).stdout.startswith("{")


def site_url(site: Site) -> str:
    """The site's URL as a document shows it."""
    text = (site.output_path / "project" / "numpy" / "json" / "index.json").read_text()
    url, slash, _ = text.split('"piwheels_url":"')[1].partition("/project/")
    assert slash
    return url


def test_command_line_counts_before_environment_before_file_before_default(site: Site) -> None:
    site.take(samples.new_package("numpy"))
    assert site_url(site) == "https://www.piwheels.org"

    home = site.home / ".config" / "piwheels"
    home.mkdir(parents=True)
    (home / "piwheels.conf").write_text("[indexer]\nsite-url = https://home.example/\n")
    site.piw("write", "--all")
    assert site_url(site) == "https://home.example"

    named = site.home / "named.conf"
    named.write_text("[indexer]\nsite_url: https://named.example\n")
    site.piw("write", "--all", "-c", named)
    assert site_url(site) == "https://named.example"

    environment = {"PIW_INDEXER_SITE_URL": "https://environment.example"}
    site.piw("write", "--all", "-c", named, settings=environment)
    assert site_url(site) == "https://environment.example"

    site.piw(
        "write", "--all", "-c", named, "--site-url", "https://line.example", settings=environment
    )
    assert site_url(site) == "https://line.example"

    # The order of the options does not matter.
    site.piw("write", "--site-url", "https://line.example/", "--all", "-c", named)
    assert site_url(site) == "https://line.example"


def test_everything_from_the_environment(site: Site) -> None:
    settings = {
        "PIW_INDEXER_STATE_DIR": str(site.state_dir),
        "PIW_INDEXER_OUTPUT_PATH": str(site.output_path),
        "PIW_INDEXER_WRITE": "1",
        "PIW_INDEXER_AS_OF": "2026-11-20T12:00:00Z",
        "PIW_INDEXER_JSON": "1",
    }
    lines = [
        samples.new_package("numpy"),
        samples.log_download("numpy-1-py3-none-any.whl", "2026-10-21T12:59:59Z"),
        samples.log_download("numpy-1-py3-none-any.whl", "2026-10-21T13:00:00Z"),
    ]
    data = b"".join(map(samples.line, lines))
    piw("ingest", "-", home=site.home, settings=settings, input=data)
    assert (site.output_path / "packages.json").read_bytes() == b'[["numpy",1,2]]'
    assert piw("status", home=site.home, settings=settings).stdout.startswith("{")


def test_everything_from_a_file(site: Site) -> None:
    changes, replay, other, another = free_ports(4)
    file = site.home / "piwheels.conf"
    file.write_text(
        "# piwheels' own keys and sections are passed over\n"
        "dsn = postgres:///piwheels\n"
        "debug\n"
        "[master]\n"
        "skip-default = %(no interpolation)s\n"
        "[indexer]\n"
        f"state-dir = {site.state_dir}\n"
        f"output-path={site.output_path}\n"
        f"changes-queue = tcp://127.0.0.1:{changes}\n"
        f"    tcp://127.0.0.1:{other}\n"
        f"replay-queue = tcp://127.0.0.1:{replay} tcp://127.0.0.1:{another}\n"
        "settle = 0\n"
        "max_delay = 0.5\n"
        "[slave]\n"
        "master = localhost\n"
    )
    with Process(site.home, "run", "-c", file) as daemon:
        site.wait(lambda found: found["daemon"] is not None, daemon)
        status = site.status()
        daemon.terminate()
    assert status["daemon"]["queues"] == [
        [f"tcp://127.0.0.1:{changes}", f"tcp://127.0.0.1:{replay}"],
        [f"tcp://127.0.0.1:{other}", f"tcp://127.0.0.1:{another}"],
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[indexer]\nsetle = 1\n", ["setle", "did you mean settle?"]),
        ("[indexer]\nfrobnicate = 1\n", ["frobnicate"]),
        ("[indexer]\nas-of = yesterday\n", ["as-of", "yesterday"]),
        ("[indexer]\njson = perhaps\n", ["json", "perhaps"]),
        ("[indexer]\nsettle = soon\n", ["settle", "soon"]),
        ("[indexer]\nsettle = -1\n", ["settle", "-1"]),
        ("[indexer]\nsettle = nan\n", ["settle", "nan"]),
        ("[indexer]\nsettle\n", ["settle"]),
        ("[indexer]\nsettle =\n", ["settle"]),
        ("[indexer]\nchanges-queue = nowhere\n", ["changes-queue", "nowhere"]),
        ("[indexer]\nchanges-queue =\n", ["changes-queue"]),
        ("[indexer\nsettle = 1\n", ["[indexer"]),
        ("[indexer]\n  nonsense\n", ["nonsense"]),
        ("[indexer]\nchanges-queue = ipc:///a ipc:///b\n", ["changes-queue", "replay-queue"]),
        ("[indexer]\nsite-url = \xe4\n".encode("latin-1"), ["utf-8"]),
    ],
    ids=lambda value: repr(value)[:40] if isinstance(value, str | bytes) else "",
)
def test_mistakes_in_a_file(text: str | bytes, says: list[str], site: Site) -> None:
    file = site.home / "piwheels.conf"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    result = piw("run", "-c", file, *site.state, *site.output, home=site.home, status=2)
    for part in says:
        assert part in result.stderr
    assert not site.state_dir.exists(), "the configuration is checked before anything is opened"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SETTLE", "soon"),
        ("SETTLE", "nan"),
        ("MAX_DELAY", "-3"),
        ("CHANGES_QUEUE", "nowhere"),
        ("REPLAY_QUEUE", "ipc:///a ipc:///b"),
        ("STATE_DIR", "file"),
        ("OUTPUT_PATH", "file"),
    ],
)
def test_mistakes_in_the_environment(name: str, value: str, site: Site) -> None:
    (site.home / "file").write_text("")
    settings = {
        "PIW_INDEXER_STATE_DIR": str(site.state_dir),
        "PIW_INDEXER_OUTPUT_PATH": str(site.output_path),
        f"PIW_INDEXER_{name}": value,
    }
    result = piw("run", home=site.home, status=2, settings=settings)
    option = "--" + name.lower().replace("_", "-")
    assert option in result.stderr
    assert not site.state_dir.exists()
