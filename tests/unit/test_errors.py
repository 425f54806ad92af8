"""Errors say operation, object, cause and remedy, and have an exit status."""

from __future__ import annotations

import pytest

from indexer.base import errors

pytestmark = pytest.mark.unit


def test_an_error_says_operation_cause_and_remedy() -> None:
    error = errors.IndexerError("open /x", OSError("too late"), "come earlier")
    assert str(error) == "cannot open /x: too late\n  what to do: come earlier"
    assert str(errors.IndexerError("open /x", "too late")) == "cannot open /x: too late"


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (errors.IndexerError, 3),
        (errors.UsageError, 2),
        (errors.StateError, 3),
        (errors.NewerDatabaseError, 3),
        (errors.JournalError, 3),
        (errors.PublishError, 3),
        (errors.PeerError, 4),
    ],
)
def test_each_error_has_its_exit_status(kind: type[errors.IndexerError], status: int) -> None:
    assert issubclass(kind, errors.IndexerError)
    assert kind.exit_status == status
    assert kind.__doc__


def test_a_decode_error_says_where_and_why() -> None:
    assert str(errors.DecodeError("data.package", "is missing")) == "data.package: is missing"
    assert str(errors.DecodeError("", "is not JSON")) == "is not JSON"
