"""What `make docs` makes: docs/commands.md, the man pages in docs/man, and tables of fields.

The first two say what `--help` says, and where else an option can be set; the tables, in
docs/messages.md and docs/documents.md, say what the JSON Schemas say. They are made at the
developer's and committed: who installs needs no tool for them.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import click

from indexer import __version__
from indexer.base import options
from indexer.cli import piw_indexer

from ..support import REPOSITORY
from .field_tables import cell, fields

DOCS = REPOSITORY / "docs"
FILLED = ("messages.md", "documents.md")
"""Written by hand, but for tables."""

COMMANDS = dict(sorted(piw_indexer.commands.items()))
NOT_CONFIGURED = ("demo",)
"""Commands that read no configuration file."""

EXIT_STATUS = (
    (0, "done"),
    (1, "`check` or `reconcile` found differences"),
    (2, "usage or configuration"),
    (3, "the state is locked or unusable"),
    (4, "a peer did not answer, or stdout could not be written"),
)


class Setting(NamedTuple):
    """An option, as both kinds of page describe it; what it has not is empty."""

    names: list[str]
    metavar: str
    default: str
    variable: str
    key: str
    help: str


def _default(option: click.Option) -> str:
    value: Any = option.to_info_dict()["default"]
    if isinstance(value, (tuple, list)):
        return " ".join(map(str, value))
    return "" if value is None or value is False else str(value)


def settings(command: click.Command, name: str = "") -> list[Setting]:
    """The options of a command, `--help` aside."""
    found = []
    for option in command.params:
        if not isinstance(option, click.Option) or option.hidden:
            continue
        key = option.opts[-1].removeprefix("--")
        configured = key in options.OPTIONS or key in options.FLAGS
        takes_value = not option.is_flag and not option.count
        found.append(
            Setting(
                [*option.opts, *option.secondary_opts],
                option.make_metavar(click.Context(command)) if takes_value else "",
                _default(option),
                str(option.envvar or ""),
                key if configured and name not in NOT_CONFIGURED else "",
                option.help or "",
            )
        )
    return found


def usage(name: str) -> str:
    pieces = COMMANDS[name].collect_usage_pieces(click.Context(COMMANDS[name]))
    return " ".join(["piw-indexer", name, *pieces])


def paragraphs(command: click.Command) -> list[str]:
    """The paragraphs of a command's help, each on one line; those after a \\b as they are."""
    found = []
    for one in (command.help or "").partition("\f")[0].split("\n\n"):
        verbatim = one.startswith("\b\n")
        found.append(one.removeprefix("\b\n") if verbatim else " ".join(one.split()))
    return [one for one in found if one]


# Markdown


def _code(text: str) -> str:
    return f"`{cell(text)}`" if text else ""


def commands_md() -> str:
    """docs/commands.md."""
    lines = [
        "# Commands",
        "",
        "<!-- Made by `make docs` from the commands themselves; changes are made there. -->",
        "",
        "What `piw-indexer COMMAND --help` says, with every place where an option can be set. The",
        "command line counts before the environment, that before the section `[indexer]` of the",
        "configuration files, those before the default. A switch is set there by `true`.",
        "",
        *(f"- [`{name}`](#{name})" for name in COMMANDS),
        "",
        "Exit status: " + ", ".join(f"{number} {text}" for number, text in EXIT_STATUS) + ".",
    ]
    for name, command in COMMANDS.items():
        lines += ["", f"## {name}", "", "```text", usage(name), "```"]
        for one in paragraphs(command):
            lines += ["", one]
        lines += ["", "| option | default | environment | key | is |", "|---|---|---|---|---|"]
        for option in settings(command, name):
            *short, long = option.names
            names = [_code(one) for one in short] + [_code(f"{long} {option.metavar}".rstrip())]
            cells = (
                " ".join(names),
                _code(option.default),
                _code(option.variable),
                _code(option.key),
                cell(option.help),
            )
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines).replace("|  |", "| |").replace("|  |", "| |") + "\n"


# man(7)

Page = Iterator[str]


def _roff(text: str) -> str:
    """Text as roff takes it literally; what stands in backquotes is bold."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    text = re.sub(r"`([^`]+)`", r"\\fB\1\\fR", text)
    text = text.replace("'", "\\(aq").replace("`", "\\(ga").replace("^", "\\(ha")
    text = text.replace("~", "\\(ti").replace('"', "\\(dq")
    return text if not text.startswith(".") else "\\&" + text


def _head(name: str, section: int, about: str) -> Page:
    title = name.upper().replace("-", "\\-")
    # The day would be another at every build; the version says enough.
    yield f'.TH "{title}" {section} "" "piw\\-indexer {__version__}" "piw\\-indexer"'
    yield ".SH NAME"
    yield f"{_roff(name)} \\- {_roff(about)}"


def _text(texts: Iterable[str]) -> Page:
    first = True
    for one in texts:
        if not first:
            yield ".PP"
        first = False
        if "\n" in one:
            yield from (".nf", *map(_roff, one.split("\n")), ".fi")
        else:
            yield _roff(one)


def _term(text: str, lines: Iterable[str]) -> Page:
    yield ".TP"
    yield text
    yield from lines


def _bold(text: str) -> str:
    return f"\\fB{_roff(text)}\\fR"


def _option(option: Setting) -> Page:
    names = ", ".join(map(_bold, option.names))
    metavar = f" \\fI{_roff(option.metavar)}\\fR" if option.metavar else ""
    said = [_roff(option.help)]
    if option.default:
        said.append(f"Default: {_roff(option.default)}.")
    yield from _term(names + metavar, [*said])
    places = []
    if option.variable:
        places.append(f"environment {_bold(option.variable)}")
    if option.key:
        places.append(f"key {_bold(option.key)}")
    if places:
        yield ".br"
        yield "In the " + ", ".join(places) + "."


def _status() -> Page:
    yield ".SH EXIT STATUS"
    for number, text in EXIT_STATUS:
        yield from _term(_bold(str(number)), [_roff(text[0].upper() + text[1:] + ".")])


def _see_also(*pages: tuple[str, int]) -> Page:
    yield ".SH SEE ALSO"
    for number, (name, section) in enumerate(pages, 1):
        yield f".BR {_roff(name)} ({section})" + ("," if number < len(pages) else "")


def _short(command: click.Command) -> str:
    text = " ".join((command.short_help or paragraphs(command)[0]).split())
    text = re.split(r"(?<=[.;])\s", text)[0].rstrip(".;")
    return text.replace("`", "")


def _main_page() -> Page:
    yield from _head("piw-indexer", 1, "event-driven JSON API of piwheels")
    yield ".SH SYNOPSIS"
    yield _bold("piw-indexer") + " [" + _bold("-v") + "] [" + _bold("-q") + "] "
    yield "\\fICOMMAND\\fR [\\fIOPTION\\fR]... [\\fIARGUMENT\\fR]..."
    yield ".SH DESCRIPTION"
    yield from _text(paragraphs(piw_indexer))
    yield ".SH COMMANDS"
    for name, command in COMMANDS.items():
        yield from _term(
            f"\\fBpiw\\-indexer\\-{_roff(name)}\\fR(1)", [_roff(_short(command) + ".")]
        )
    yield ".SH OPTIONS"
    for option in settings(piw_indexer):
        yield from _option(option)
    yield ".SH FILES"
    yield from _term(_bold("/var/lib/piw-indexer"), ["The state: journal and index."])
    yield from _term(_bold("/var/www"), ["The web site; documents are written below it."])
    for file in options.FILES:
        yield from _term(_bold(file), ["Configuration, see \\fBpiw\\-indexer.conf\\fR(5)."])
    yield from _status()
    yield from _see_also(
        *((f"piw-indexer-{name}", 1) for name in COMMANDS), ("piw-indexer.conf", 5)
    )


def _command_page(name: str) -> Page:
    command = COMMANDS[name]
    yield from _head(f"piw-indexer-{name}", 1, _short(command))
    yield ".SH SYNOPSIS"
    yield _bold(f"piw-indexer {name}") + " " + _roff(usage(name).split(" ", 2)[2])
    yield ".SH DESCRIPTION"
    yield from _text(paragraphs(command))
    yield ".SH OPTIONS"
    for option in settings(command, name):
        yield from _option(option)
    yield from _status()
    yield from _see_also(("piw-indexer", 1), ("piw-indexer.conf", 5))


def _configuration_page() -> Page:
    yield from _head("piw-indexer.conf", 5, "configuration of piw-indexer")
    yield ".SH DESCRIPTION"
    yield from _text(
        (
            "piw-indexer reads the section `[indexer]` of piwheels' own configuration files; a"
            " later one counts before an earlier one: "
            + ", ".join(f"`{file}`" for file in options.FILES)
            + ", then that of `--configuration`. A mistake there is an error; other sections are"
            " not read.",
            "A line is `key = value`. What stands on the command line or in the environment counts"
            " before the file. Several addresses stand in one line, apart by spaces. A switch is"
            " set by `true`.",
            "piwheels itself knows no sections and takes the last line of a name: in one file for"
            " both, `[indexer]` stands before `[master]`.",
        )
    )
    yield ".SH KEYS"
    for key in (*options.OPTIONS, *options.FLAGS):
        users = []
        found = None
        for name, command in COMMANDS.items():
            for option in settings(command, name):
                if option.key == key:
                    users.append(name)
                    found = option
        if found is None:
            continue
        metavar = f" = \\fI{_roff(found.metavar)}\\fR" if found.metavar else " = true"
        said = [_roff(found.help)]
        if found.default:
            said.append(f"Default: {_roff(found.default)}.")
        yield from _term(_bold(key) + metavar, said)
        yield ".br"
        yield "Of " + ", ".join(f"\\fB{_roff(user)}\\fR" for user in users) + "."
    yield ".SH EXAMPLE"
    yield ".nf"
    yield from ("[indexer]", "state\\-dir = /srv/index", "output\\-path = /var/www")
    yield from ("changes\\-queue = ipc:///run/piw-indexer/changes",)
    yield from ("replay\\-queue = ipc:///run/piw-indexer/replay", "settle = 2")
    yield ".fi"
    yield from _see_also(("piw-indexer", 1))


def _page(lines: Page) -> str:
    return "\n".join(lines) + "\n"


def man_pages() -> dict[str, str]:
    """The man pages by the names of their files."""
    return {
        "piw-indexer.1": _page(_main_page()),
        **{f"piw-indexer-{name}.1": _page(_command_page(name)) for name in COMMANDS},
        "piw-indexer.conf.5": _page(_configuration_page()),
    }


_FIELDS = re.compile(r"(<!-- fields: ([\w-]+) -->\n).*?(<!-- end -->)", re.S)


def filled(name: str) -> str:
    """A document written by hand, with the tables of fields as the schemas have them."""
    text = (REPOSITORY / "docs" / name).read_text()
    return _FIELDS.sub(lambda found: f"{found[1]}\n{fields(str(found[2]))}\n\n{found[3]}", text)


def made() -> dict[str, str]:
    """Every file that is made, by its path below docs/."""
    return {
        "commands.md": commands_md(),
        **{name: filled(name) for name in FILLED},
        **{f"man/{name}": text for name, text in man_pages().items()},
    }


def outdated() -> list[str]:
    """The files that are not as they are made, or not made at all any more."""
    pages = made()
    there = {path.relative_to(DOCS).as_posix() for path in (DOCS / "man").glob("*")}
    there |= {name for name in ("commands.md", *FILLED) if (DOCS / name).is_file()}
    return sorted(
        name
        for name in pages.keys() | there
        if name not in there or (DOCS / name).read_text() != pages.get(name)
    )


def not_in_index() -> list[str]:
    """The pages to which docs/README.md has no link."""
    index = (REPOSITORY / "docs" / "README.md").read_text()
    pages = (page.name for page in (REPOSITORY / "docs").glob("*.md"))
    return sorted(name for name in pages if name != "README.md" and f"({name})" not in index)


def main() -> None:
    """Write what is outdated; with --check only say so."""
    found = outdated()
    if "--check" in sys.argv:
        if found:
            sys.exit(f"docs/{found[0]} is not what the commands say: run `make docs`")
        for name in not_in_index():
            sys.exit(f"docs/{name} is not in docs/README.md: give it a line there")
        return
    pages = made()
    (DOCS / "man").mkdir(exist_ok=True)
    for name in found:
        if name in pages:
            (DOCS / name).write_text(pages[name])
        else:
            (DOCS / name).unlink()
        print(f"docs/{name}")


if __name__ == "__main__":
    main()
