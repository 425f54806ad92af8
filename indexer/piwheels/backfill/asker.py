"""Asks a running master for what a backfill or a comparison needs, package by package."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

from ...base.clock import Clock
from ...base.errors import DecodeError, PeerError
from ...messages.entries import Refused
from ...messages.types import Message, SetAbis
from ...schema import piwheels as schema
from .. import cbor, translate
from ..queues.oracle import SUMS_TIMEOUT, CannotTellError, Oracle
from ..redact import refused

MAX_FAILURES = 10
"""Packages in a row that the master cannot answer for, until its database counts as broken."""

_Found = TypeVar("_Found")


class NoAnswer(NamedTuple):
    """The master has a package, and cannot say what it knows about it."""

    why: str


class Asker:
    """Asks a master for what a backfill or a comparison needs.

    Args:
        pause: seconds between two packages.
        clock: the time of an answer.
    """

    def __init__(
        self, oracle: Oracle, pause: float, clock: Clock, sleep: Callable[[float], None]
    ) -> None:
        self._oracle = oracle
        self._pause = pause
        self._sleep = sleep
        self._failures = 0  # in a row
        self.clock = clock

    @property
    def received(self) -> int:
        """Bytes of all answers so far."""
        return self._oracle.received

    def abis(self, known: SetAbis) -> Message:
        """The build ABIs; what a master does not say about them stays as it is known.

        Raises PeerError if the master does not answer.
        """
        active, every = (self._oracle.request("GETABIS", skipped) for skipped in (True, False))
        return self._sound(
            "GETABIS",
            lambda: translate.set_abis(
                translate.checked(schema.NAMES, active),
                translate.checked(schema.NAMES, every),
                dict(known.build_abis),
                dict(known.preinstalled_apt_packages),
                self.clock(),
            ),
        )

    def packages(self) -> list[str]:
        """All packages, sorted; raises PeerError if the master does not answer."""
        answer = self._oracle.request("ALLPKGS")
        packages: list[str] = self._sound(
            "ALLPKGS", lambda: translate.checked(schema.NAMES, answer, "ALLPKGS")
        )
        return sorted(packages)

    def package(self, package: str) -> Message | Refused | NoAnswer | None:
        """The SNAPSHOT of a package; a refusal if the answer is not valid; `NoAnswer` if the
        master fails; None if it does not have the package.

        Raises PeerError if the master does not answer.
        """
        self._sleep(self._pause)
        try:
            project = self._oracle.request("PROJDATA", package)
        except CannotTellError as error:
            if not self._oracle.request("PKGEXISTS", package):
                return None
            self._failures += 1
            if self._failures > MAX_FAILURES:
                raise CannotTellError(
                    f"{error.operation}, of {package} and {MAX_FAILURES} before it",
                    error.cause,
                    error.remedy,
                ) from error
            return NoAnswer(error.cause)
        self._failures = 0
        if translate.is_unknown(project):
            return None
        spellings = self._oracle.request("GETPKGNAMES", package)
        try:
            return translate.snapshot(package, project, spellings, self.clock())
        except DecodeError as error:
            return refused("db-queue", error, cbor.dumps("OK", project))

    def counters(self) -> dict[str, dict[str, int]]:
        """Downloads of the last 30 days, and ever, of every package.

        Raises PeerError if the master does not answer.
        """
        answer = self._oracle.request("GETSEARCH", within=SUMS_TIMEOUT)
        counters: dict[str, dict[str, int]] = self._sound(
            "GETSEARCH", lambda: translate.checked(schema.COUNTERS, answer, "GETSEARCH")
        )
        return counters

    @staticmethod
    def _sound(name: str, make: Callable[[], _Found]) -> _Found:
        try:
            return make()
        except DecodeError as error:
            raise PeerError(
                f"understand the master's answer to {name}",
                str(error),
                "see that the versions of piwheels and piw-indexer go together",
            ) from error
