"""Imports point one way, from later packages to earlier ones, and stages keep to their work."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import indexer
from indexer.schema import messages

pytestmark = pytest.mark.unit

PACKAGES = """
    base schema messages reasons journal index documents state feed daemon
    piwheels piwheels.farm piwheels.queues piwheels.sources piwheels.bridge piwheels.backfill
    check watch ask screens install demo commands cli
""".split()
"""The way of a message, and what looks at it: a package imports only from those before it."""

NO_IO = "zmq os socket time base.clock pathlib"
NO_SQL = "sqlite3 base.database"
NO_INDEX = "index.queries index.apply state.state"

STAGES_NEVER = {
    "feed.sockets": f"{NO_SQL} {NO_INDEX} journal.journal msgpack",
    "feed.connection": f"{NO_SQL} {NO_INDEX} journal.journal msgpack messages.decode",
    "feed.subscriber": f"{NO_SQL} {NO_INDEX}",
    "feed.publisher": f"{NO_SQL} {NO_INDEX}",
    "messages.decode": f"{NO_IO} {NO_SQL}",
    "messages.encode": f"{NO_IO} {NO_SQL}",
    "reasons.rules": f"{NO_IO} {NO_SQL}",
    "reasons.build_log": f"{NO_IO} {NO_SQL}",
    "journal.reader": "messages.decode schema.messages zmq",
    "journal.quarantine": "messages.decode schema.messages zmq os",
    "journal.journal": "messages.decode schema.messages zmq",
    "index.apply": f"{NO_IO} journal.reader datetime",
    "index.downloads": f"{NO_IO} datetime",
    "index.pending": f"{NO_IO} datetime",
    "index.fits": f"{NO_IO} sqlite3",
    "documents.kind": f"{NO_IO} base.database documents.publish datetime",
    "documents.project": f"{NO_IO} {NO_SQL} documents.publish datetime",
    "documents.counters": f"{NO_IO} {NO_SQL} documents.publish datetime",
    "documents.atomic": f"{NO_SQL} index.queries index.pending",
    "documents.publish": f"{NO_SQL} index.queries index.pending",
    "documents.writer": "zmq time base.clock journal.journal index.apply",
    "piwheels.cbor": f"{NO_IO} {NO_SQL}",
    "piwheels.farm.messages": f"{NO_IO} {NO_SQL}",
    "piwheels.farm.farm": f"{NO_IO} {NO_SQL}",
    "piwheels.farm.view": f"{NO_IO} {NO_SQL}",
    "piwheels.farm.store": NO_IO,
    "piwheels.farm.status_queue": NO_INDEX,
    "base.names": f"{NO_IO} sqlite3",
    "base.times": f"{NO_IO} sqlite3",
}
"""What a stage must not know, even if it comes before (docs/design.md: "never")."""

ONLY = {
    "zmq": "daemon.daemon daemon.source feed.* piwheels.queues.* piwheels.farm.status_queue",
    "time": "base.clock",
    "psycopg": "piwheels.backfill.postgres",
    "prometheus_client": "watch.prometheus commands.metrics",
    "fcntl": "base.lock feed.peer_connection",
    "click": "cli base.options base.printable commands.*",
    "voluptuous": "schema.* messages.decode piwheels.cbor piwheels.translate"
    " piwheels.backfill.from_site",
    "multiprocessing": "documents.writer daemon.writer daemon.writer_loop",
}
"""Who alone may import a library."""

CALLS_ONLY = {
    "sqlite3.connect": "base.database",
    "time.time": "base.clock",
    "time.time_ns": "base.clock",
    "time.monotonic": "base.clock",
    "time.thread_time": "base.clock",
    "time.sleep": "base.clock",
    "datetime.now": "",
    "datetime.utcnow": "",
    "datetime.today": "",
    "date.today": "",
}
"""Who alone may call a function: one place opens a database, one reads the clock."""


def sources() -> Iterator[tuple[str, Path]]:
    """Every module, by its name below `indexer`, and its file."""
    package = Path(indexer.__file__).parent
    schema = Path(messages.__file__).parent
    for root, prefix in ((package, ()), (schema, ("schema",))):
        for path in sorted(root.rglob("*.py")):
            parts = (*prefix, *path.relative_to(root).with_suffix("").parts)
            if prefix == () and parts[0] == "schema":
                continue
            name = ".".join(part for part in parts if part != "__init__")
            if name:
                yield name, path


MODULES = dict(sources())


@cache
def nodes(path: Path) -> list[ast.AST]:
    """The syntax tree of a file, flat."""
    return list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


@cache
def calls(path: Path) -> list[tuple[ast.Call, str]]:
    """The calls in a file, each with what is called."""
    return [(node, ast.unparse(node.func)) for node in nodes(path) if isinstance(node, ast.Call)]


@cache
def imported(module: str) -> set[str]:
    """What a module imports: our modules by their names below `indexer`, others by their own."""
    path = MODULES[module]
    package = ["indexer", *module.split(".")]
    if path.name != "__init__.py":
        package.pop()
    found: set[str] = set()
    for node in nodes(path):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = [*base, *(node.module or "").split(".")] if node.module else base
            for alias in node.names:
                whole = ".".join([*base, alias.name]).removeprefix("indexer.")
                found.add(whole if whole in MODULES else ".".join(base).removeprefix("indexer."))
    return found - {"indexer", "__future__"}


def package_of(module: str) -> str:
    """The package that a module belongs to; those at the top belong to the command line."""
    if module in PACKAGES:
        return module
    return module.rpartition(".")[0] or "cli"


def test_imports_point_up_the_river() -> None:
    """This also holds transitively: no module can reach one of a later package."""
    for module in MODULES.keys() - {"systemd"}:
        place = PACKAGES.index(package_of(module))
        for other in imported(module) & MODULES.keys():
            assert PACKAGES.index(package_of(other)) <= place, f"{module} imports {other}"


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_in_a_package_have_no_circle(package: str) -> None:
    inside = {module for module in MODULES if package_of(module) == package}
    TopologicalSorter({one: imported(one) & inside for one in inside}).prepare()


@pytest.mark.parametrize("module", STAGES_NEVER)
def test_stages_keep_to_themselves(module: str) -> None:
    assert imported(module) & set(STAGES_NEVER[module].split()) == set()


@pytest.mark.parametrize("library", ONLY)
def test_who_alone_imports_a_library(library: str) -> None:
    allowed = ONLY[library].split()
    for module in MODULES:
        if {name.split(".")[0] for name in imported(module)} & {library}:
            assert module in allowed or f"{package_of(module)}.*" in allowed, module


@pytest.mark.parametrize("call", CALLS_ONLY)
def test_who_alone_calls_a_function(call: str) -> None:
    for module, path in MODULES.items():
        for node, called in calls(path):
            if called == call:
                assert module == CALLS_ONLY[call], f"{module}:{node.lineno} calls {call}"


WRITES = re.compile(
    r"os\.(rename|renames|replace|chmod|fchmod|lchmod|truncate|mkfifo|mknod|creat)"
    r"|shutil\.(copy\w*|move)|\w.*\.(write_text|write_bytes|touch|chmod|rename)"
)
"""Calls that write, but for those of open files and of strings."""

WRITE_FLAGS = {"O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC", "O_APPEND"}

MAY_WRITE = {
    "base.filesystem": "all",
    "documents.atomic": "os.fchmod",  # of a document that is ours alone
    "documents.publish": "os.rename os.fchmod",  # links, and the directory that is locked
    "base.output": "os.open",  # /dev/null
    "feed.spool_server": "Path('/proc/self/oom_score_adj').write_text",  # of the kernel
    "messages.jsonl": "shutil.copyfileobj",  # the standard input, into a file without a name
}
"""One place opens files to write: elsewhere links, FIFOs and modes would be forgotten."""


def writing(node: ast.Call, call: str) -> str:
    """The call that writes to what has a name; empty if it does not."""
    if WRITES.fullmatch(call) and not call.startswith("filesystem."):
        return call
    words = {one.attr for part in node.args for one in ast.walk(part) if hasattr(one, "attr")}
    if call == "os.open" and words & WRITE_FLAGS:
        return call
    if call.split(".")[-1] == "open" and not call.startswith("os."):
        modes = [one.value for one in node.args if isinstance(one, ast.Constant)]
        opened = ast.unparse(node.args[0]) if node.args else ""
        if any(set("wax+") & set(str(mode)) for mode in modes) and not (
            opened == "descriptor" or opened.startswith("filesystem.")
        ):
            return call
    return ""


def test_one_place_opens_files_to_write() -> None:
    for module, path in MODULES.items():
        allowed = MAY_WRITE.get(module, "").split()
        for node, called in calls(path):
            if allowed != ["all"]:
                call = writing(node, called)
                assert not call or call in allowed, f"{module}:{node.lineno} calls {call}"


@pytest.mark.parametrize(
    "text",
    [
        "path.write_text(text)",
        "Path(name).with_suffix('.new').write_bytes(text)",
        "os.open(path, os.O_RDWR | os.O_CREAT)",
        "path.open('wb')",
        "open(path, 'r+b')",
        "os.rename(new, path)",
        "self._path.chmod(0o644)",
        "shutil.copyfile(one, other)",
    ],
)
def test_calls_that_write_are_found(text: str) -> None:
    """Proves that the test above can fail."""
    [call] = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)][:1]
    assert writing(call, ast.unparse(call.func))


def test_modules_and_public_functions_say_what_they_are_for() -> None:
    missing = []
    for module, path in MODULES.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if ast.get_docstring(tree) is None:
            missing.append(module)
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_":
                if ast.get_docstring(node) is None:
                    missing.append(f"{module}.{node.name}")
    assert missing == []


def test_what_is_printed_passes_the_door_that_makes_it_printable() -> None:
    for path in Path(indexer.__file__).parent.rglob("*.py"):
        if path.name != "printable.py":
            for _, called in calls(path):
                assert called not in ("click.echo", "click.secho", "print"), path


SCREENS = ("Live", "Progress", "Status", "Prompt")
"""Of rich: without a console they make one of their own, which prints whatever it is given."""


def test_one_console_prints() -> None:
    """The one that makes text printable, which rich's own console does not."""
    for module, path in MODULES.items():
        for node, whole in calls(path):
            called = whole.split(".")[-1]
            assert called not in ("Console", "get_console"), f"{module}:{node.lineno}"
            if called in SCREENS and "rich" in {one.split(".")[0] for one in imported(module)}:
                assert "console" in {one.arg for one in node.keywords}, f"{module}:{node.lineno}"
    bases = [
        f"{module}.{node.name}"
        for module, path in MODULES.items()
        for node in nodes(path)
        if isinstance(node, ast.ClassDef) and "Console" in map(ast.unparse, node.bases)
    ]
    assert bases == ["base.console.PrintableConsole"]
