"""A PostgreSQL of the tests' own, on a socket in a temporary directory."""

from __future__ import annotations

import os
import pwd
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from . import needs

SUPERUSER = "admin"
LAYOUT = Path(__file__).with_name("piwheels-layout.sql")


def _user() -> dict[str, Any]:
    """As whom to run it: it refuses to be root."""
    if os.geteuid():
        return {}
    names = {one.pw_name: one for one in pwd.getpwall()}
    user = names.get("postgres") or names["nobody"]
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


class Server:
    """A running server.

    Attributes:
        directory: of its socket.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._databases = 0

    def dsn(self, database: str, user: str = SUPERUSER) -> str:
        """How to connect, as libpq wants it."""
        return f"host={self.directory} user={user} dbname={database}"

    def url(self, database: str, user: str = SUPERUSER) -> str:
        """The same as a URL."""
        return f"postgresql://{user}@/{database}?host={self.directory}"

    def psql(self, database: str, sql: str) -> str:
        """Execute SQL, in one transaction; what it prints."""
        done = subprocess.run(
            ["psql", "-X", "-q", "-A", "-t", "-1", "-v", "ON_ERROR_STOP=1", "-f", "-"],
            input=sql,
            env={
                "PATH": os.environ.get("PATH", os.defpath),
                "PGHOST": str(self.directory),
                "PGUSER": SUPERUSER,
                "PGDATABASE": database,
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def piwheels(self) -> str:
        """The name of a new database with piwheels' tables."""
        name = self.new_database()
        self.psql(name, LAYOUT.read_text())
        return name

    def new_database(self) -> str:
        """The name of a new, empty database."""
        self._databases += 1
        name = f"test_{self._databases}"
        done = subprocess.run(
            ["psql", "-X", "-q", "-c", f"CREATE DATABASE {name}", self.dsn("postgres")],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return name


@contextmanager
def server() -> Iterator[Server]:
    """Start one."""
    needs.program("psql")
    binaries = Path(needs.program("initdb")).resolve().parent
    user = _user()
    with tempfile.TemporaryDirectory(prefix="piw-pg-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        home = directory / "home"
        home.mkdir()
        if user:
            os.chown(directory, user["user"], user["group"])
            os.chown(home, user["user"], user["group"])
        data = home / "data"

        def run(program: str, *arguments: str) -> None:
            done = subprocess.run(
                [binaries / program, "-D", str(data), *arguments],
                cwd=home,
                env={"LC_ALL": "C.UTF-8", "PATH": os.defpath},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
                **user,
            )
            assert done.returncode == 0, done.stdout

        run(
            "initdb", "-U", SUPERUSER, "-A", "trust", "-E", "UTF8", "--no-sync", "--no-instructions"
        )
        settings = f"-k {directory} -c listen_addresses='' -c fsync=off -c max_connections=30"
        log = str(home / "log")
        run("pg_ctl", "-s", "-w", "-l", log, "-o", settings, "start")
        try:
            yield Server(directory)
        finally:
            run("pg_ctl", "-s", "-w", "-m", "immediate", "stop")
