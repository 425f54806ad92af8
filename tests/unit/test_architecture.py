"""The picture of the imports: they point one way, down the river, and stages keep to themselves."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import indexer
from indexer.schema import messages

pytestmark = pytest.mark.unit

PICTURE = (
    (
        "what everything may use",
        "printable errors times clock once_per names filesystem directories disk notify process"
        " progress journal_log notes waiting problems sqlite_bug screen_parts interruption",
    ),
    (
        "what is stored and sent",
        "schema schema.messages schema.piwheels messages entries pending tags differences",
    ),
    (
        "doors to the machine",
        "lock privileges database config feed feed.curve feed.ipc feed.names schema.index schema.journal"
        " reload",
    ),
    (
        "bytes and rows",
        "elements poison encode decode index feed.security quarantine piwheels piwheels.cbor piwheels.redact piwheels.changes"
        " piwheels.status_messages",
    ),
    (
        "the live farm",
        "piwheels.farm_picture piwheels.farm piwheels.farm_store piwheels.farm_view",
    ),
    ("single stages", "journal_reader counters render publish feed.sockets feed.connections"),
    ("one connection", "feed.line"),
    ("the journal", "batch journal checkpoint damaged"),
    ("receive and apply", "built_files apply feed.publisher feed.spool_server salvage"),
    (
        "a master whose changes are published",
        "piwheels.marks piwheels.outbox piwheels.bridge piwheels.master",
    ),
    (
        "stages that belong together",
        "files feed.peer feed.subscriber source state writer backup",
    ),
    (
        "a piwheels that runs",
        "piwheels.translate piwheels.compare piwheels.oracle piwheels.snapshots"
        " piwheels.log_forward piwheels.log_relay"
        " piwheels.backfill piwheels.site piwheels.status_feed piwheels.postgres piwheels.fill",
    ),
    ("processes", "writer_process resumption check"),
    ("the daemon", "live daemon"),
    (
        "what is shown of it",
        "status monitor metrics farm_screen status_screen top_screen lookup project_screen history"
        " explain",
    ),
    ("a service of systemd", "installation manual_pages"),
    ("a farm to look at", "simulation demo_screen demo"),
    ("what others build on", "commands commands.write"),
    (
        "the commands",
        "commands.backfill commands.backup commands.bridge commands.check commands.checkpoint"
        " commands.demo commands.explain commands.farm commands.history commands.import_site"
        " commands.ingest commands.install commands.keys commands.metrics commands.publish"
        " commands.quarantine commands.rebuild commands.reconcile"
        " commands.run commands.show commands.status commands.top",
    ),
    ("the command line", "cli __main__"),
)
"""From the source to the mouth: a module imports from lines above its own, or, within its own,
from modules before it. A new module finds its place here first."""

ORDER = {
    module: number
    for number, module in enumerate(module for _, line in PICTURE for module in line.split())
}

STAGES_NEVER = {
    "feed.sockets": "sqlite3 database journal index msgpack",
    "feed.peer": "sqlite3 database journal index msgpack decode",
    "feed.subscriber": "sqlite3 database index apply state",
    "feed.publisher": "sqlite3 database index apply state",
    "decode": "sqlite3 database zmq os socket time clock pathlib",
    "encode": "sqlite3 database zmq os socket time clock pathlib",
    "journal_reader": "apply index decode schema.messages zmq",
    "batch": "sqlite3 database apply index decode schema.messages zmq os pathlib",
    "journal": "apply index decode schema.messages zmq",
    "apply": "zmq os socket time clock pathlib publish render writer journal_reader datetime",
    "counters": "zmq os socket time clock pathlib publish render writer datetime",
    "pending": "zmq os socket time clock pathlib publish render writer datetime",
    "tags": "sqlite3 zmq os socket time clock pathlib",
    "render": "sqlite3 database zmq os socket time clock pathlib publish datetime",
    "publish": "sqlite3 database index pending render",
    "writer": "zmq time clock journal apply state",
    "piwheels.cbor": "sqlite3 database zmq os socket time clock pathlib",
    "piwheels.status_messages": "sqlite3 database zmq os socket time clock pathlib",
    "piwheels.farm": "sqlite3 database zmq os socket time clock pathlib",
    "piwheels.farm_view": "sqlite3 database zmq os socket time clock pathlib",
    "piwheels.farm_store": "zmq os socket time clock pathlib",
    "piwheels.status_feed": "index apply state",
    "names": "sqlite3 zmq os socket time clock pathlib",
    "times": "sqlite3 zmq os socket time clock pathlib",
}
"""What a stage must not know of (DESIGN section 2: "what it never does")."""

ONLY = {
    "zmq": "daemon source feed.connections feed.curve feed.line feed.peer feed.publisher"
    " feed.security feed.sockets feed.subscriber piwheels.log_forward piwheels.log_relay"
    " piwheels.oracle"
    " piwheels.snapshots piwheels.status_feed",
    "time": "clock",
    "psycopg": "piwheels.postgres",
    "prometheus_client": "metrics commands.metrics",
    "fcntl": "lock feed.connections piwheels.log_forward",
    "click": "cli config printable commands.*",
    "voluptuous": "decode piwheels.cbor piwheels.site piwheels.translate schema.messages"
    " schema.piwheels",
    "multiprocessing": "writer writer_process",
}
"""Who alone may import a library."""

CALLS_ONLY = {
    "sqlite3.connect": "database",
    "time.time": "clock",
    "time.time_ns": "clock",
    "time.monotonic": "clock",
    "time.sleep": "clock",
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
    """What a module imports: ours by their names below `indexer`, and others by their own."""
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


def test_every_module_is_in_the_picture() -> None:
    assert MODULES.keys() <= ORDER.keys()


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_up_the_river(module: str) -> None:
    for other in imported(module) & MODULES.keys():
        assert ORDER[other] < ORDER[module], f"{module} imports {other}"


@pytest.mark.parametrize("module", STAGES_NEVER)
def test_stages_keep_to_themselves(module: str) -> None:
    assert imported(module) & set(STAGES_NEVER[module].split()) == set()


@pytest.mark.parametrize("library", ONLY)
def test_who_alone_imports_a_library(library: str) -> None:
    allowed = ONLY[library].split()
    for module in MODULES:
        if {name.split(".")[0] for name in imported(module)} & {library}:
            assert module in allowed or f"{module.split('.')[0]}.*" in allowed, module


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
    "filesystem": "all",
    "publish": "os.rename os.fchmod",  # links, and the directory that is locked
    "cli": "os.open",  # /dev/null
    "feed.spool_server": "Path('/proc/self/oom_score_adj').write_text",  # of the kernel
    "files": "shutil.copyfileobj",  # the standard input, into a file without a name
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


@pytest.mark.parametrize("module", MODULES)
def test_one_place_opens_files_to_write(module: str) -> None:
    allowed = MAY_WRITE.get(module, "").split()
    for node, called in calls(MODULES[module]):
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
    """The test above can fail."""
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
    """That which makes texts printable: rich's own does not."""
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
    assert bases == ["progress.PrintableConsole"]
