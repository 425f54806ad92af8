"""Why a build failed, from its log: the rules, and what must not disturb them."""

from __future__ import annotations

import io
import re
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.base import times
from indexer.messages import decode
from indexer.messages.types import Failure, LogFailure
from indexer.reasons import build_log
from indexer.reasons.build_log import BuildLog, read
from indexer.reasons.rules import NEEDLES, RULES, Rule

pytestmark = pytest.mark.unit

LOGS = Path(__file__).parents[1] / "logs"
PAGE = (Path(__file__).parents[2] / "docs" / "reasons.md").read_text()

HELD_OUT = (41, 44)
"""Excerpts of which the whole reason is right, and of which the category is."""


def excerpts(name: str) -> list[tuple[str, bytes]]:
    """Of a file: what is expected, and the log."""
    parts = re.split(r"^=== ", (LOGS / name).read_text(encoding="utf-8"), flags=re.MULTILINE)
    heads = [part.partition("\n") for part in parts[1:]]
    return [(head.strip().removesuffix(":"), log.encode()) for head, _, log in heads]


NOW = times.parse_rfc3339("2026-11-28T04:00:00Z")
KNOWN = excerpts("known.txt")


def reason(log: bytes) -> str:
    return str(read(io.BytesIO(log)))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.category}-{rule.example[:20]}")
def test_each_rule_matches_its_example(rule: Rule) -> None:
    assert rule.pattern.search(rule.example)
    assert any(word in rule.example for word in rule.words)
    assert reason(rule.example.encode()) == str(Failure(rule.category, rule.detail))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.category}-{rule.example[:20]}")
def test_no_rule_takes_for_ever_on_a_hostile_line(rule: Rule) -> None:
    """What almost matches, as long as a line may be; a pattern that backtracks never ends here."""
    example = rule.example
    beginnings = [example[: len(example) * part // 8] for part in range(8)] + list(rule.words)
    for beginning in ("Python 1.", "Rust 1.", "= "):  # a long number, for square time to show
        rule.pattern.search(beginning + "1" * 100 * build_log._MAX_LINE)
    for beginning in beginnings:
        for more in ("a", " ", "/", "a.", "1,", "'", "\n", beginning or "a", f"{beginning} "):
            line = beginning + more * (build_log._MAX_LINE // len(more))
            rule.pattern.search(f"{line}\n{line}!")


@pytest.mark.parametrize(("expected", "log"), KNOWN, ids=[expected for expected, _ in KNOWN])
def test_known_logs(expected: str, log: bytes) -> None:
    assert reason(log) == expected


def test_words_hide_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a rule are in all that its pattern matches."""
    monkeypatch.setattr(build_log, "RULES", [rule._replace(words=("",)) for rule in RULES])
    assert [reason(log) for _, log in KNOWN] == [expected for expected, _ in KNOWN]


def test_how_often_it_is_right_on_logs_that_the_rules_were_not_made_for() -> None:
    """When a change makes these better, the page says so; they must not lead to a rule."""
    held_out = excerpts("held_out.txt")
    found = [(expected, reason(log)) for expected, log in held_out]
    right = sum(expected == got for expected, got in found)
    category = sum(expected.split(":")[0] == got.split(":")[0] for expected, got in found)
    assert (right, category) == HELD_OUT
    assert f"{right} of {len(held_out)}" in PAGE
    assert f"{category} of {len(held_out)}" in PAGE


def with_time(log: bytes) -> bytes:
    if re.match(rb"\d{4}-", log):
        return log
    return b"".join(b"2026-11-28T04:00:00,123 " + line for line in log.splitlines(keepends=True))


DISGUISES: dict[str, Callable[[bytes], bytes]] = {
    "pip's time": with_time,
    "colour": lambda log: log.replace(b"error:", b"\x1b[01;31m\x1b[Kerror:\x1b[m\x1b[K"),
    "colour of Rust": lambda log: log.replace(b"error:", b"\x1b[1m\x1b[31merror\x1b[0m\x1b[1m:"),
    "carriage returns": lambda log: log.replace(b"\n", b"\r\n"),
    "a progress bar": lambda log: b"   0%|    | 0.0/9.1 MB\r  99%|### | 9.0/9.1 MB\r" * 99 + log,
    "bytes that are no text": lambda log: b"\xff\xfe\x00 \xc3\x28\n" * 999 + log + b"\xf0\x9f\n",
    "much before": lambda log: b"gcc -Werror=format -c src/errors.c\n" * 2000 + log,
    "a line without an end": lambda log: b"x" * 200_000 + b"\n" + log,
}


@pytest.mark.parametrize("disguise", DISGUISES)
def test_what_must_not_disturb(disguise: str) -> None:
    for expected, log in KNOWN:
        if expected != "unknown":
            assert reason(DISGUISES[disguise](log)) == expected


@pytest.mark.parametrize("size", [1, 7, 100, 1000, 65_536])
def test_pieces_of_any_size(size: int) -> None:
    """Whatever is on the border of two pieces is found."""
    for expected, log in KNOWN:
        found = BuildLog()
        for at in range(0, len(log), size):
            found.feed(log[at : at + size])
        assert str(found.failure()) == expected


BORDER = build_log.CHUNK_BYTES - build_log._AFTER
"""Words that begin before this are looked at in the first of the pieces that are read."""


@pytest.mark.parametrize("before", range(BORDER - 40, BORDER + 3))
def test_borders_of_what_is_read_at_a_time(before: int) -> None:
    log = b"." * before + b"\nconfigure: error: nothing here\n" + b"." * 200_000
    assert reason(log) == "configure-error: nothing here"


def test_words_that_are_searched_for_are_found_at_the_very_end() -> None:
    for word in NEEDLES:
        log = BuildLog()
        log.feed(b"." * 200_000 + b"\nconfigure: error: no compiler here\n" + b"." * 5000 + word)
        assert log.failure() == ("configure-error", "no compiler here")


@given(st.binary(max_size=3000), st.sampled_from(KNOWN), st.integers(0, 3000))
def test_whatever_a_log_holds_the_reason_can_be_published(
    noise: bytes, known: tuple[str, bytes], cut: int
) -> None:
    """A log that ends in the middle, too."""
    failure = read(io.BytesIO(noise + known[1][:cut] + noise))
    data = {"build_id": 1, "failure": failure._asdict()}
    message = decode.from_json(orjson.dumps({"msg": "FAILURE", "data": data}), NOW)
    assert message.data == LogFailure(1, failure)
    assert len(failure.detail) <= build_log.MAX_DETAIL


class Endless(io.RawIOBase):
    """A log of so many MB, made as it is read."""

    def __init__(self, pieces: int) -> None:
        self._pieces: Iterator[bytes] = iter([b"gcc -Werror=x -c a.c: ok\n" * 2621] * pieces)

    def read(self, size: int = -1) -> bytes:
        return next(self._pieces, b"")


def test_a_long_log_takes_no_more_memory_than_a_short_one() -> None:
    peaks = []
    for pieces in (20, 400):
        tracemalloc.start()
        read(Endless(pieces))  # type: ignore[arg-type]
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 50_000


@pytest.mark.parametrize("line", [b"rror:\n", b"rror: ", b"CMake Error\n", b"not found " * 400])
def test_a_log_full_of_such_words_costs_no_more_than_a_bound(line: bytes) -> None:
    """And what its end says still counts."""
    log = BuildLog()
    for _ in range(40):
        log.feed(line * (100_000 // len(line)))
    assert log._examined < 300_000
    log.feed(
        b"\nsrc/a.c:3:10: fatal error: ffi.h: No such file or directory\n" + (line * 20)[:8000]
    )
    assert log.failure() == ("missing-header", "ffi.h")


def test_the_detail_is_one_line_without_the_directory_of_the_build() -> None:
    log = b"a.c:1: error: in \x1b]0;x\x07\x9b2J\xe2\x80\xae /tmp/pip-x/thing/a.h " + b"y" * 900
    [detail] = {read(io.BytesIO(log)).detail}
    assert detail.isprintable()
    assert "/tmp" not in detail
    assert len(detail) == build_log.MAX_DETAIL


def test_every_category_is_on_the_page() -> None:
    listed = re.findall(r"^\| `([a-z0-9-]+)` \|", PAGE, re.MULTILINE)
    assert sorted(listed) == sorted({*(rule.category for rule in RULES), build_log.UNKNOWN})
