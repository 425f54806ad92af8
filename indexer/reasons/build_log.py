"""Reads a build's log once, from front to back, and says why the build failed.

However long a log is, and however long its lines are, only what is near a few words is looked at,
and only about 100 KiB are in memory. The work that a hostile log can cause has a bound: beyond it,
only the log's end is looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO

from ..base import printable
from ..messages.types import Failure
from .rules import NEEDLES, RULES

UNKNOWN = "unknown"
"""The category where no rule matches."""

CHUNK_BYTES = 64 * 1024
"""Of a log, at a time; searching is slower in larger ones, which do not fit a processor's cache."""

MAX_TEXT = 16 * 1024 * 1024
"""Characters, from the end, of a log that is in memory: a third of a second."""

MAX_DETAIL = 200
"""Characters."""

_BEFORE, _AFTER = 600, 1600
"""Bytes that are looked at before and after a word that was found."""

_STEP = 1000
"""Bytes after a word in which no other word is searched for: it is looked at with the first."""

_MAX_LINE = 1000
"""Characters of a line."""

_MAX_EXAMINED = 256 * 1024
"""Bytes that are looked at before only the end of a log counts."""

_END = 16 * 1024
"""Bytes of the end that is always looked at."""

_COLOUR = re.compile(rb"\x1b(?:\[[0-?]{0,30}[ -/]?[@-~]|\][^\x07\x1b\n]{0,200}(?:\x07|\x1b\\)?|.)?")
_LINE_BREAK = re.compile(rb"[\r\n]")
_QUOTES = str.maketrans("‘’‛“”\t\x0b\x0c\x85\u2028\u2029", "'''\"\"      ")
_PREFIX = re.compile(
    r"\s*(?:\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d[,.]\d+(?:Z\b)?)?(?:[ \t│|×╰>]|─>|\x00|::)*"
)
"""What pip and others put before a line: the time, indentation and bars."""

_NOISE = re.compile(
    r"(?:WARNING|Warning|DEPRECATION|warning|note|hint)\b(?!.{0,40}total=0)"
    r"(?!.* (?:has inconsistent|is invalid:) )|^#(?!error)|^-- "
    r"|_?conf(?:ig)?test\b|CMakeFiles/(?:CMakeTmp|CMakeScratch)|^checking |^Checking |: warning: "
    r"|^\+ |^raise |^removing |^copying |^adding |^creating |^Collecting |^Downloading "
    r"|^Looking in "
)
"""Lines that mention errors and are not errors: warnings, what a configuration tries, source."""

_ERROR = re.compile(
    r"(?i:\b(?:error|fatal|failed|failure|fail|exception|cannot|can't|could not|unable|aborted"
    r"|abort|sorry)\b|error:)"
)
_SUMMARY = re.compile(
    r"(?i:error: subprocess-exited-with-error|did not run successfully|this error originates from"
    r"|failed building wheel|failed to build|metadata-generation-failed|encountered error while"
    r"|finished with status 'error'|\.\.\. error$|command errored out|failed with error code"
    r"|failed-wheel-build|error: could not build wheels|check the logs|this is an issue with the)"
    r"|failed with exit (?:code|status)"
)
"""What pip says after every failure."""

_TEMPORARY = re.compile(r"/(?:tmp|home|root|var|build)/[^\s'\"]*/(?=[^\s/'\"])")


class BuildLog:
    """A log that is given in pieces."""

    def __init__(self) -> None:
        self._bytes = b""  # not looked at yet, and some before it
        self._from = 0  # of these: words that begin before this are done
        self._examined = 0
        self._rule = len(RULES)  # the best that matched so far
        self._detail = ""

    def feed(self, piece: bytes) -> None:
        """Read on, by any number of bytes."""
        for at in range(0, len(piece), CHUNK_BYTES):
            self._bytes += piece[at : at + CHUNK_BYTES]
            self._search(len(self._bytes) - _AFTER)

    def failure(self) -> Failure:
        """Why the build failed, as far as can be told after the log's last piece."""
        self._examined = 0
        self._search(len(self._bytes))
        self._examine(self._bytes[-_AFTER:])
        category = RULES[self._rule].category if self._rule < len(RULES) else UNKNOWN
        return Failure(category, self._detail)

    def _search(self, until: int) -> None:
        """Look at the surroundings of every word that begins before `until`."""
        content, begin = self._bytes, self._from
        if until <= begin:
            return
        places = {word: _find(content, word, begin, until) for word in NEEDLES}
        while (hit := min(places.values())) < until and self._examined < _MAX_EXAMINED:
            self._examine(_lines_around(content, hit))
            for word, place in places.items():
                if place < hit + _STEP:
                    places[word] = _find(content, word, min(hit + _STEP, until), until)
        keep = _BEFORE if self._examined < _MAX_EXAMINED else _END
        dropped = max(0, until - keep)
        self._bytes = content[dropped:]
        self._from = until - dropped if self._examined < _MAX_EXAMINED else 0

    def _examine(self, block: bytes) -> None:
        self._examined += len(block)
        lines = list(_clean(block))
        text = "\n".join(lines)
        for number, rule in enumerate(RULES[: self._rule + 1]):
            if number == self._rule and not rule.last:
                return
            found = None
            if any(word in text for word in rule.words):
                found = rule.pattern.search(text)
            if found is not None:
                if rule.last:
                    *_, found = rule.pattern.finditer(text)
                self._rule = number
                self._detail = _detail(next(filter(None, found.groups()), ""))
                return
        if self._rule == len(RULES):
            said = [one for one in lines if _ERROR.search(one) and not _SUMMARY.search(one)]
            if said:
                self._detail = _detail(said[-1])


def read(stream: BinaryIO) -> Failure:
    """Why a build failed, from its log, which is read to its end.

    Raises:
        OSError: if it cannot be read.
        EOFError: if it is compressed, and ends early.
    """
    log = BuildLog()
    while piece := stream.read(CHUNK_BYTES):
        log.feed(piece)
    return log.failure()


def read_text(log: str) -> Failure:
    """Why a build failed, from its log in memory; what it takes has a bound, however long it is."""
    found = BuildLog()
    for at in range(max(0, len(log) - MAX_TEXT), len(log), CHUNK_BYTES):
        found.feed(log[at : at + CHUNK_BYTES].encode(errors="replace"))
    return found.failure()


def _find(content: bytes, word: bytes, begin: int, until: int) -> int:
    """Where a word begins; `until` if it does not before that."""
    place = content.find(word, begin, until + len(word) - 1)
    return until if place < 0 else place


def _lines_around(content: bytes, hit: int) -> bytes:
    """The lines around a place, whole unless they are too long."""
    begin, end = max(0, hit - _BEFORE), hit + _AFTER
    if begin and (whole := _LINE_BREAK.search(content, begin, hit)):
        begin = whole.end()
    if end < len(content) and (line := content.rfind(b"\n", hit, end)) >= 0:
        end = line
    return content[begin:end]


def _clean(block: bytes) -> Iterator[str]:
    """The lines of a piece of a log, without what only makes it pretty, and without noise."""
    block = _COLOUR.sub(b"", block).replace(b"\r", b"\n")
    for line in block.decode(errors="replace").translate(_QUOTES).split("\n"):
        line = line[: _MAX_LINE + 200]
        line = line[_PREFIX.match(line).end() :][:_MAX_LINE].rstrip()  # type: ignore[union-attr]
        if line and not _NOISE.match(line) and not _noise_inside(line):
            yield line


def _noise_inside(line: str) -> bool:
    return ": warning: " in line or "conftest" in line or "_configtest" in line


def _detail(found: str) -> str:
    """The detail as it is published: on one line, without the directory that it was built in."""
    found = " ".join(_TEMPORARY.sub("", found).split())
    return printable.line(found, MAX_DETAIL)
