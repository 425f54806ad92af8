"""A signal that ends a command is never lost, wherever it comes."""

from __future__ import annotations

import os
import select
import signal

import pytest

from indexer.base.interruption import Interruption

pytestmark = pytest.mark.integration


def test_a_signal_in_a_destructor_is_not_lost() -> None:
    class Destroyed:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGINT)

    with Interruption(signal.SIGINT) as interruption:
        interruption.obey()
        Destroyed()
        assert interruption.wished == signal.SIGINT
        assert not interruption.wait(60.0), "it does not wait, and nothing can be read"
        with pytest.raises(KeyboardInterrupt):
            interruption.obey()


def test_the_second_signal_ends_the_command_at_once() -> None:
    with Interruption(signal.SIGINT, signal.SIGTERM) as interruption:
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(SystemExit) as ended:
            interruption.obey()
        assert ended.value.code == 143
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_the_handlers_of_before_are_there_again() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Interruption(signal.SIGTERM):
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_one_that_cannot_begin_leaves_nothing_behind() -> None:
    before, descriptors = signal.getsignal(signal.SIGTERM), os.listdir("/proc/self/fd")
    with pytest.raises(OSError, match="Invalid argument"), Interruption(signal.SIGTERM, 9):
        pytest.fail("nobody can catch signal 9")
    assert signal.getsignal(signal.SIGTERM) == before
    assert os.listdir("/proc/self/fd") == descriptors


def test_what_is_asked_for_meanwhile_ends_nothing() -> None:
    with Interruption(signal.SIGTERM, meanwhile=[signal.SIGHUP]) as interruption:
        assert not interruption.asked(signal.SIGHUP)
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGHUP)
        assert not interruption.wait(60.0), "it does not wait, and nothing can be read"
        interruption.obey()
        assert interruption.asked(signal.SIGHUP)
        assert not interruption.asked(signal.SIGHUP), "once for all that came"
        assert not can_be_read(interruption.bell), "or nobody would wait any more"


def test_a_wish_is_not_lost_over_what_was_asked_for() -> None:
    with Interruption(signal.SIGTERM, meanwhile=[signal.SIGHUP]) as interruption:
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGTERM)
        assert interruption.asked(signal.SIGHUP)
        assert interruption.wished == signal.SIGTERM
        assert can_be_read(interruption.bell)


def can_be_read(descriptor: int) -> bool:
    return bool(select.select([descriptor], [], [], 0)[0])


def test_what_is_typed_ends_the_wait() -> None:
    reader, writer = os.pipe()
    with Interruption() as interruption:
        os.write(writer, b"q")
        assert interruption.wait(60.0, reader)
    os.close(reader)
    os.close(writer)
