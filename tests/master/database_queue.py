"""A piwheels master's database queue: a real socket that answers what a real master answered."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import zmq

from indexer.piwheels import cbor
from indexer.schema.piwheels import NO_DATA

from .captured import DIRECTORY, Capture, captures

Answers = dict[bytes, bytes]
"""The frame of an answer by the frame of its request."""


def recorded(found: Iterable[Capture], asked: str, answered: str) -> Answers:
    """The last answer to each request of a capture in which they take turns."""
    answers: Answers = {}
    request: Capture | None = None
    for capture in found:
        if capture.direction == asked:
            request = capture
        elif capture.direction == answered and request is not None:
            answers[request.frame] = capture.frame
            request = None
    return answers


def answers_in_time(path: Path) -> Iterator[tuple[datetime, bytes, bytes]]:
    """When which request got which answer, in a capture of many clients at once."""
    waiting: dict[str, bytes] = {}
    for line in path.read_bytes().splitlines():
        found = json.loads(line)
        if len(found["frames"]) < 3:
            continue
        address, frame = found["frames"][0], bytes.fromhex(found["frames"][-1])
        if found["dir"] == "recv":
            waiting[address] = frame
        elif address in waiting:
            yield datetime.fromisoformat(found["t"]), waiting.pop(address), frame


def small() -> Answers:
    """Many packages of all kinds."""
    return recorded(captures(DIRECTORY / "oracle.jsonl"), "request", "reply")


SITE = DIRECTORY / "farm" / "site"
"""What that farm's master published."""


def farm() -> Answers:
    """A farm at the end of its life, as its site shows it."""
    path = DIRECTORY / "farm" / "wire-the_oracle.jsonl"
    answers = {request: answer for _, request, answer in answers_in_time(path)}
    # Nobody asked for these when all was done; the site tells what they would have been.
    packages = {path.name for path in (SITE / "project").iterdir() if not path.is_symlink()}
    answers[cbor.dumps("ALLPKGS")] = cbor.dumps("OK", packages)
    answers[cbor.dumps("GETABIS", True)] = answers[cbor.dumps("GETABIS", False)]
    counters = {row[0]: row[1:] for row in json.loads((SITE / "packages.json").read_bytes())}
    answers[cbor.dumps("GETSEARCH")] = cbor.dumps("OK", counters)
    return answers


class Master:
    """Answers on a ROUTER, until it is closed; may be told to be slow or silent.

    Attributes:
        answers: what it says; others get an ERROR. May be changed at any time.
        asked: every request so far.
        silent: it answers nothing.
    """

    def __init__(self, address: str, answers: Answers) -> None:
        self.address = address
        self.answers = answers
        self.asked: list[tuple[str, Any]] = []
        self.silent = False
        self.held: threading.Event | None = None
        self._stop = threading.Event()
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.linger = 0
        self._socket.bind(address)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def put(self, name: str, data: Any, answer: Any) -> None:
        """Have an answer to a request from now on."""
        self.answers[cbor.dumps(name, data)] = cbor.dumps("OK", answer)

    def get(self, name: str, data: Any = NO_DATA) -> Any:
        """The answer that it would give."""
        return cbor.loads(self.answers[cbor.dumps(name, data)])[1]

    def _run(self) -> None:
        while not self._stop.is_set():
            if not self._socket.poll(20):
                continue
            *address, frame = self._socket.recv_multipart()
            self.asked.append(cbor.loads(frame))
            answer = self._answer(frame)
            if self.held is not None:
                self.held.wait(30)
            if not self.silent:
                self._socket.send_multipart([*address, answer])

    def _answer(self, frame: bytes) -> bytes:
        name, data = cbor.loads(frame)
        if name == "PKGEXISTS":
            return cbor.dumps("OK", data in self.get("ALLPKGS"))
        return self.answers.get(frame, cbor.dumps("ERROR", "no such thing"))

    def __enter__(self) -> Master:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        if self.held is not None:
            self.held.set()
        self._thread.join()
        self._context.destroy(linger=0)
