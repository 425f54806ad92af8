"""The documentation's snippets for web servers, in Debian's own servers."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

import pytest

from .. import needs, samples
from ..support import REPOSITORY, Site, eventually, free_ports

pytestmark = pytest.mark.acceptance

DOCUMENT = REPOSITORY / "docs" / "beside-a-master.md"
MODULES = "mpm_event authz_core alias dir headers mime rewrite setenvif"


def snippet(language: str, output_path: Path) -> str:
    """The snippets of one language in the documentation, changed to another output path."""
    [found] = re.findall(rf"```{language}\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert "/srv/piw-indexer" in found
    return str(found).replace("/srv/piw-indexer", str(output_path))


def nginx(home: Path, old: Path, output_path: Path, port: int) -> list[str]:
    """The command of an nginx that serves an old site with ours over it."""
    configuration = home / "nginx.conf"
    temporary = "\n".join(
        f"{name}_temp_path {home}/{name};"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;" if os.geteuid() == 0 else ""
    configuration.write_text(
        f"""daemon off; {user} pid {home}/nginx.pid; error_log {home}/error.log;
        events {{}}
        http {{
            access_log off; {temporary}
            server {{
                listen 127.0.0.1:{port};
                root {old};
                {snippet("nginx", output_path)}
            }}
        }}"""
    )
    return [
        needs.program("nginx"),
        "-c",
        str(configuration),
        "-p",
        str(home),
        "-e",
        f"{home}/error.log",
    ]


def apache(home: Path, old: Path, output_path: Path, port: int) -> list[str]:
    """The command of an Apache that serves an old site with ours over it."""
    modules = "\n".join(
        f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so"
        for name in MODULES.split()
    )
    configuration = home / "apache.conf"
    configuration.write_text(
        f"""ServerRoot {home}
        ServerName localhost
        PidFile {home}/apache.pid
        Listen 127.0.0.1:{port}
        {modules}
        TypesConfig /dev/null
        ErrorLog {home}/error.log
        <VirtualHost 127.0.0.1:{port}>
            DocumentRoot {old}
            <Directory {old}>
                Require all granted
            </Directory>
            {snippet("apache", output_path)}
        </VirtualHost>"""
    )
    return [needs.program("apache2"), "-X", "-f", str(configuration)]


@dataclass(frozen=True)
class Answer:
    """The answer of a server."""

    status: int
    type: str | None
    encoding: str | None
    origin: str | None
    etag: str | None
    modified: str | None
    cache: str | None
    body: bytes


class Server:
    """A web server on a port of this machine."""

    def __init__(self, port: int) -> None:
        self.port = port

    def get(self, path: str, **headers: str) -> Answer:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path, headers=headers)
            found: HTTPResponse = connection.getresponse()
            return Answer(
                found.status,
                found.getheader("Content-Type"),
                found.getheader("Content-Encoding"),
                found.getheader("Access-Control-Allow-Origin"),
                found.getheader("ETag"),
                found.getheader("Last-Modified"),
                found.getheader("Cache-Control"),
                found.read(),
            )
        finally:
            connection.close()

    def answers(self) -> bool:
        try:
            self.get("/")
        except OSError:
            return False
        return True


@pytest.fixture(params=[nginx, apache], ids=["nginx", "apache"])
def server(site: Site, request: pytest.FixtureRequest) -> Iterator[Server]:
    """A site of piwheels, over which our documents are mapped."""
    site.take(
        samples.set_abis("cp311"),
        samples.new_package("numpy", description="ours"),
        samples.new_name("numpy", "NumPy"),
    )
    old = site.home / "old"
    theirs = old / "project" / "numpy"
    (theirs / "json").mkdir(parents=True)
    (theirs / "json" / "index.json").write_text('{"summary": "theirs"}')
    (theirs / "index.html").write_text("the page")
    (old / "packages.json").write_text("[]")
    (old / "index.html").write_text("home")
    for path in (site.home, *site.home.parents):
        if path.stat().st_uid == os.geteuid() and path != Path("/"):
            path.chmod(path.stat().st_mode | 0o055)  # for the server's own user
    [port] = free_ports(1)
    command = request.param(site.home, old, site.output_path, port)
    with (site.home / "server.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    found = Server(port)

    def logs() -> str:
        return "".join(path.read_text() for path in site.home.glob("*.log"))

    try:
        eventually(lambda: found.answers() or process.poll() is not None, logs)
        assert process.poll() is None, logs()
        yield found
    finally:
        process.terminate()
        process.wait()


def test_documents_are_ours_and_the_rest_is_as_it_was(server: Server, site: Site) -> None:
    paths = ("numpy/json", "numpy/json/", "numpy/json/index.json", "NumPy/json", "NumPy/json/")
    for path in (f"/project/{path}" for path in paths):
        found = server.get(path)
        assert (found.status, found.type) == (200, "application/json"), path
        assert json.loads(found.body)["summary"] == "ours", path
        assert found.origin == "*", path
    assert server.get("/project/numpy/index.html").body == b"the page"
    assert server.get("/index.html").body == b"home"
    assert server.get("/project/unheard-of/json/").status == 404


@pytest.mark.parametrize(
    "path",
    ["/project/numpy/json", "/project/numpy/json/", "/packages.json", "/failures.json"],
)
def test_what_has_not_changed_is_not_sent_again(server: Server, path: str) -> None:
    found = server.get(path)
    assert found.etag
    assert found.modified
    for headers in ({"If-None-Match": found.etag}, {"If-Modified-Since": found.modified}):
        again = server.get(path, **headers)
        assert (again.status, again.body) == (304, b"")
        assert server.get(path, **{"If-None-Match": '"another"'}).status == 200


def test_pages_of_other_origins_may_read_the_counters(server: Server) -> None:
    """Three public pages read them so; without the header a browser refuses the answer."""
    assert server.get("/packages.json").origin == "*"
    assert server.get("/packages.json", **{"Accept-Encoding": "gzip"}).origin == "*"


# What readers of today do with the answers


def test_a_badge_of_the_newest_release(server: Server, site: Site) -> None:
    """Like shields.io, which asks with the slash."""
    site.take(
        *(samples.new_version("numpy", version) for version in ("1.0", "2.0", "3.0rc1", "4.0")),
        samples.log_build(1, "numpy", "1.0", "numpy-1.0-py3-none-any.whl"),
        samples.log_build(2, "numpy", "2.0", "numpy-2.0-py3-none-any.whl"),
        samples.message("YANKVER", package="numpy", version="4.0"),
    )
    releases = json.loads(server.get("/project/numpy/json/").body)["releases"]
    for release in releases.values():
        assert type(release["prerelease"]) is type(release["yanked"]) is bool
        assert type(release["files"]) is dict
    stable = [
        version
        for version, release in releases.items()
        if not release["yanked"] and not release["prerelease"] and release["files"]
    ]
    assert stable[0] == "2.0"
    assert server.get("/project/unheard-of/json/").status == 404


def test_a_table_of_downloads(server: Server, site: Site) -> None:
    site.take(samples.log_download("numpy-1.0-cp311-cp311-linux_armv7l.whl"))
    site.piw("write", "--as-of", samples.AT)
    rows = json.loads(server.get("/packages.json").body)
    assert {name: (month, ever) for name, month, ever, *_ in rows} == {"numpy": (1, 1)}


def test_a_builder_that_looks_for_the_siblings_of_a_wheel(server: Server, site: Site) -> None:
    names = [f"numpy-1.0-cp311-cp311-linux_{arch}.whl" for arch in ("armv6l", "armv7l")]
    site.take(samples.log_build(1, "numpy", "1.0", *names))
    files = json.loads(server.get("/project/numpy/json").body)["releases"]["1.0"]["files"]
    armv7 = files["numpy-1.0-cp311-cp311-linux_armv7l.whl"]
    assert files[names[0]]["filehash"] == armv7["filehash"] == samples.HASH


def test_what_a_wheel_needs_by_its_abi(server: Server, site: Site) -> None:
    site.take(samples.log_build(1, "numpy", "1.0", "numpy-1.0-cp311-cp311-linux_armv7l.whl"))
    release = json.loads(server.get("/project/numpy/json").body)["releases"]["1.0"]
    needed = {
        filename.split("-")[3]: file["apt_dependencies"]
        for filename, file in release["files"].items()
    }
    assert type(needed["cp311"]) is list


@pytest.mark.parametrize(
    ("path", "content"),
    [("/packages.json", [["numpy", 0, 0]]), ("/failures.json", {"reasons": []})],
)
def test_documents_of_all_packages_are_ours_and_compressed_for_who_can_read_that(
    server: Server, site: Site, path: str, content: object
) -> None:
    plain = server.get(path)
    assert (plain.status, plain.type, plain.encoding) == (200, "application/json", None)
    assert json.loads(plain.body) == content
    packed = server.get(path, **{"Accept-Encoding": "gzip"})
    assert (packed.status, packed.type, packed.encoding) == (200, "application/json", "gzip")
    assert gzip.decompress(packed.body) == plain.body


def test_what_the_farm_does_is_asked_for_again(server: Server, site: Site) -> None:
    (site.output_path / "status.json").write_text('{"serial": 3}')  # as a daemon would
    found = server.get("/status.json")
    assert (found.status, found.type, found.body) == (200, "application/json", b'{"serial": 3}')
    assert (found.origin, found.cache) == ("*", "no-cache")
    assert server.get("/status.json", **{"If-None-Match": found.etag or ""}).status == 304
    assert server.get("/packages.json").cache is None


def test_what_changes_is_seen_at_once(server: Server, site: Site) -> None:
    site.take(samples.message("SETDESC", package="numpy", description="newer"))
    found = server.get("/project/numpy/json/index.json")
    assert json.loads(found.body)["summary"] == "newer"
