"""Whatever the messages say, nothing is written outside the state directory and the output path."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.base import names
from indexer.base.errors import DecodeError, PublishError
from indexer.documents.kind import Document
from indexer.documents.publish import Link, Output, Publisher
from indexer.messages import decode
from indexer.messages.entries import Accepted, Entry
from indexer.messages.redact import refused
from indexer.messages.types import Position

from . import strategies as s
from .profiles import examples
from .world import Tree, World, tree, world

pytestmark = pytest.mark.property

PLANTED = (
    ("link", "project/foo", "../../elsewhere"),
    ("link", "project/foo", "../../elsewhere/json"),
    ("link", "project/foo", "bar"),
    ("link", "project/foo", "foo"),
    ("link", "project/foo", ".."),
    ("link", "project/bar/json", "../../../elsewhere/json"),
    ("link", "project/bar/json/index.json", "../../../../elsewhere/json/index.json"),
    ("link", "project/bar/json/.index.json.piw-indexer", "../../../../elsewhere/json/index.json"),
    ("link", "project/Foo", "../../elsewhere"),
    ("link", "packages.json", "../elsewhere/json/index.json"),
    ("link", ".packages.json.piw-indexer", "../elsewhere/json/index.json"),
    ("link", "packages.json.gz", "../elsewhere/json/index.json"),
    ("directory", "project/b/json/index.json", ""),
    ("directory", "project/Foo", ""),
    ("file", "project/x2", ""),
    ("file", "project/foo-bar/index.html", ""),
    ("file", "project/foo-bar/json/other.json", ""),
)
"""What an administrator, or an attacker, may have put into the output tree: kind, path, target."""

_INSIDE = re.compile(
    r"(packages|failures)\.json(\.gz)?|project|project/[a-z0-9-]+(/json(/index\.json)?)?", re.ASCII
)
_STATE = re.compile(r"lock|handling|journal|(journal/\d{4}-\d\d|index)\.db(-wal|-shm)?", re.ASCII)


def elsewhere(root: Path) -> Tree:
    """All around the two directories that are written to."""
    return {
        path: found for path, found in tree(root).items() if not path.startswith(("www", "state"))
    }


def surround(here: World) -> None:
    """Files for whoever gets out: at the places that the hostile names lead to."""
    for path in ("elsewhere/json/index.json", "x/json/index.json", "etc/passwd", "foo"):
        file = here.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("not ours")


def plant(output: Path, planted: list[tuple[str, str, str]]) -> None:
    (output / "project").mkdir(parents=True)
    for kind, path, target in planted:
        there = output / path
        try:
            there.parent.mkdir(parents=True, exist_ok=True)
            if kind == "link":
                there.symlink_to(target)
            elif kind == "directory":
                there.mkdir()
            else:
                there.write_text("not ours")
        except OSError:
            pass  # something planted before is in the way


def take(here: World, messages: list[s.Message]) -> None:
    entries: list[Entry] = []
    for serial, message in enumerate(messages, 1):
        position = Position("../../feed", 1, serial)
        raw = s.line(message)
        try:
            entries.append(Accepted(position, decode.from_json(raw, 0)))
        except DecodeError as error:
            entries.append(refused(position, "../../source", "json", error, raw))
    here.state.take(entries)


@examples(25)
@given(st.lists(s.misnamed | s.messages, min_size=1, max_size=20), st.booleans())
def test_no_message_gets_out(messages: list[s.Message], restart: bool) -> None:
    with world() as here:
        surround(here)
        before = elsewhere(here.root)
        take(here, messages)
        here.publish(s.NOW)
        if restart:
            here.restart()
            here.publish(s.NOW, everything=True)
        assert elsewhere(here.root) == before
        packages = {row[0] for row in here.view("SELECT package FROM packages")}
        aliases = dict(here.view("SELECT name, package FROM package_names"))
        for path, (kind, content) in tree(here.output).items():
            if kind == "link":
                directory, name = path.split("/", 1)
                assert directory == "project"
                assert not names.unsafe(name, names.MAX_NAME)
                assert aliases[name] == content
                assert content in packages
            else:
                assert _INSIDE.fullmatch(path), path
                if path.startswith("project/"):
                    assert path.split("/")[1] in packages
        for path in tree(here.root / "state"):
            assert _STATE.fullmatch(path), path


@examples(25)
@given(
    st.lists(st.sampled_from(PLANTED), max_size=4, unique=True),
    st.lists(s.messages, min_size=1, max_size=10),
    st.lists(s.messages_of("DELPKG", "DELPKG", "NEWPKG", "NEWPKGNAME", "SNAPSHOT"), max_size=6),
)
def test_no_link_leads_out(
    planted: list[tuple[str, str, str]], messages: list[s.Message], more: list[s.Message]
) -> None:
    with world() as here:
        surround(here)
        plant(here.output, planted)
        foreign = {
            path: found
            for path, found in tree(here.output).items()
            if found == ("file 0o644", b"not ours")
        }
        before = elsewhere(here.root)
        for batch in (messages, more):
            here.take(batch)
            try:
                here.publish(s.NOW)
            except PublishError:
                pass  # what stands in the way is said, and left alone
            assert elsewhere(here.root) == before
            after = tree(here.output)
            assert {path: after.get(path) for path in foreign} == foreign


def gone(name: str) -> Output:
    """Nothing belongs to the name."""
    documents = [Document(f"project/{name}/json/index.json", None)]
    return Output(
        name, documents if names.is_canonical(name) else [], [Link("project", name, None)]
    )


@given(st.lists(st.sampled_from(PLANTED), max_size=5, unique=True))
def test_only_what_is_ours_is_removed(planted: list[tuple[str, str, str]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        output = Path(directory, "www")
        plant(output, planted)
        before = tree(output)
        publisher = Publisher(output)
        for name in {*s.PACKAGES, *s.SPELLINGS}:
            try:
                publisher.publish_name(gone(name))
            except PublishError:
                pass  # what stands in the way is said, and left alone
        after = tree(output)
        assert after.items() <= before.items()
        for path in before.keys() - after.keys():
            kind, content = before[path]
            if kind == "link" and path.count("/") == 1:
                assert names.is_canonical(str(content)), path
            elif kind != "directory":
                assert path.endswith(("/json/index.json", "/json/.index.json.piw-indexer")), path


@examples(25)
@given(
    s.mutations(s.messages_of("LOGDOWNLOAD", "LOGBUILD", "NEWVER"), s.junk),
    st.sampled_from(("json", "msgpack")),
)
def test_neither_address_nor_log_is_kept_of_what_is_refused(
    message: s.Message, encoding: str
) -> None:
    if not isinstance(message.get("data"), dict):
        return
    message["data"] |= {"host": "2001:db8::4711", "output": "gcc: error 4711"}
    position = Position("test", 1, 1)
    raw = s.line(message) if encoding == "json" else s.wire(message)
    read = {"json": decode.from_json, "msgpack": decode.from_msgpack}[encoding]
    entry: Entry
    try:
        entry = Accepted(position, read(raw, 0))
    except DecodeError as error:
        entry = refused(position, "here", encoding, error, raw)
    with world() as here:
        here.state.take([entry])
        here.restart()
        for directory, _, files in os.walk(here.root / "state"):
            for file in files:
                # More than digits: the number of a journal is random, and has any of them at times.
                found = Path(directory, file).read_bytes()
                assert b"db8::4711" not in found, file
                assert b"error 4711" not in found, file
