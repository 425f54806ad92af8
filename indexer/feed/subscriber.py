"""A subscriber of a change feed: every message once and in order, holes filled by replay.

A feed is taken only from the address that it belongs to. What a heartbeat or a `gone` says about
epochs and serials is believed only after a message or a replay confirms it.

What a subscriber returns is not durable yet: after a crash, the journal says where to continue.
Memory is bounded: messages that do not fit are dropped and requested again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeVar

import zmq

from ..base import times
from ..base.clock import Clock
from ..base.errors import DecodeError, PeerError, Problem
from ..base.log import NOTICE, event
from ..base.once_per import LimitedLog
from ..messages import decode, encode
from ..messages.decode import End, Gone, Published
from ..messages.elements import MAX_UNCOUNTED
from ..messages.entries import Accepted, Claimed, Entry, Lost
from ..messages.poison import PutAsideError
from ..messages.redact import refused
from ..messages.types import Position
from .connection import MAX_WAIT, Connection
from .names import FeedNames, Origin
from .security import LOCAL_CONNECTING, Connecting

log = logging.getLogger(__name__)

_Found = TypeVar("_Found")

MAX_EARLY = 20_000
"""Messages that are kept while the holes before them are filled."""

MAX_EARLY_BYTES = 16 * 1024 * 1024
MAX_BATCH_BYTES = 4 * 1024 * 1024
"""Bytes of the messages that one call returns, plus one message. Decoded short texts take 20 times
their size."""

MAX_FEEDS = 64
"""Feeds behind one address: a peer that makes up names must not fill the memory."""

REPLAY_LIMIT = 1000
ANSWER_TIMEOUT = 2.0
"""Seconds without an answer until a replay is requested again."""

SILENCE_TIMEOUT = 10 * times.SECOND
"""A publisher sends at least a heartbeat every second."""

MAX_TRIES = 3
"""Answers that lack the requested message, or break off at it, until that message is given up."""

MAX_BEHIND = 10
"""Heartbeats in a row with a lower serial than ours, until the publisher is asked for its last."""


class Limits(NamedTuple):
    """What the feeds of one address may use; see the constants."""

    early: int = MAX_EARLY
    early_bytes: int = MAX_EARLY_BYTES
    batch_bytes: int = MAX_BATCH_BYTES
    replay: int = REPLAY_LIMIT


LIMITS = Limits()


class Guard(Protocol):
    """Knows messages that must not be decoded; see `messages.poison`."""

    @property
    def careful(self) -> bool:
        """Whether messages are taken one by one."""

    def wants(self, size: int) -> bool:
        """Whether `refuses` must be asked about a message of this size."""

    def refuses(self, payload: bytes) -> bool:
        """Whether a message must not be decoded; false also notes that it is about to be."""


class _NoGuard:
    careful = False

    def wants(self, size: int) -> bool:
        return False

    def refuses(self, payload: bytes) -> bool:
        return False


@dataclass
class FeedState:
    """The state of one feed.

    Attributes:
        epoch: of the publisher's spool; None until a message of it has come.
        announced: the last serial of another epoch, which only heartbeats have mentioned.
        serial: the last message that was returned.
        published: the last serial that the publisher is known to have sent.
        heard: when anything last came from the publisher, microseconds since 1970.
        early: payloads that came before their turn, and when they came.
        claimed: whether the feed belongs to this address.
        behind: heartbeats in a row with a lower serial than ours.
        went_back: whether it was reported that the publisher's spool went back.
        hole: the serial before the hole that was reported.
        holed: whether a hole was reported and is not filled yet.
        silent: whether it was reported that nothing comes any more.
    """

    feed: str
    epoch: int | None = None
    announced: Position | None = None
    serial: int = 0
    published: int = 0
    heard: times.Time = 0
    early: dict[int, tuple[bytes, times.Time]] = field(default_factory=dict)
    claimed: bool = False
    behind: int = 0
    went_back: bool = False
    hole: int = 0
    holed: bool = False
    silent: bool = False

    @property
    def known_epoch(self) -> int | None:
        """The epoch; before the first message, the one that heartbeats announce."""
        if self.epoch is None and self.announced is not None:
            return self.announced.epoch
        return self.epoch


class Subscriber:
    """Follows the feed of one publisher.

    Args:
        changes_queue: the address of its PUB.
        replay_queue: the address of its ROUTER; empty if it has none.
        position: tells the last accepted serial of a feed and epoch.
        known_epoch: tells the last known epoch of a feed, or None.
        clock: the time of receipt.
        monotonic: seconds, for timeouts.
        protection: our keys and the publisher's.
        guard: knows messages that must not be decoded.
        names: which feeds belong to other addresses; without it, none do.
        limits: of memory, and of a request.

    Raises UsageError if an address is not one, or may not be connected with this protection.
    """

    def __init__(
        self,
        context: zmq.Context[Any],
        changes_queue: str,
        replay_queue: str,
        position: Callable[[str, int], int],
        known_epoch: Callable[[str], int | None],
        clock: Clock,
        monotonic: Callable[[], float],
        protection: Connecting = LOCAL_CONNECTING,
        guard: Guard | None = None,
        names: FeedNames | None = None,
        limits: Limits = LIMITS,
    ) -> None:
        self._limits = limits
        self._guard: Guard = guard or _NoGuard()
        self.changes_queue = changes_queue
        self.replay_queue = replay_queue
        self._position = position
        self._known_epoch = known_epoch
        self._clock = clock
        self._monotonic = monotonic
        self._log = LimitedLog(log, monotonic)  # a publisher must not be able to fill the log
        self._connection = Connection(context, changes_queue, replay_queue, protection)
        self._origin = Origin(changes_queue, protection.server_key.decode())
        self._names = names or FeedNames(lambda feed: None, [self._origin])
        self._conflicts: dict[str, Problem] = {}  # by feed: that it belongs to another address
        self.feeds: dict[str, FeedState] = {}
        self._early = self._early_bytes = 0  # of all feeds
        self._asked: FeedState | None = None  # whose replay is under way
        self._asked_epoch = 0  # and which epoch of it
        self._asked_at = 0  # the serial after which it was asked for
        self._unreadable = 0  # frames of the answer that could not be decoded
        self._deadline = 0.0
        self._fruitless = 0  # answers in a row that brought nothing
        self._silences = 0  # requests in a row that nobody answered
        self._broken_off = 0  # answers in a row that were broken off at the same message
        self._broken_off_at = -1
        self._next_request = 0.0
        self._entries: list[Entry] = []
        self._batch = 0  # bytes of what they were made of

    @property
    def changes(self) -> zmq.Socket[bytes]:
        """The socket that changes come from; replaced when it is opened again."""
        return self._connection.changes.socket

    @property
    def replay(self) -> zmq.Socket[bytes] | None:
        """The socket for requests; replaced when it is opened again."""
        replay = self._connection.replay
        return None if replay is None else replay.socket

    @property
    def problem(self) -> Problem | None:
        return self._connection.error

    @property
    def distrust(self) -> Problem | None:
        return self._connection.distrust

    @property
    def conflict(self) -> Problem | None:
        """Why a feed of this address is not taken: it belongs to another one. None if all are."""
        return next(iter(self._conflicts.values()), None)

    def receive(self, limit: int, until: float) -> list[Entry]:
        """What arrived, in order; returns when the sockets are empty.

        Args:
            limit: messages to take off the sockets.
            until: when to return at the latest, on the monotonic clock.
        """
        received = self._clock()
        count = self._batch = 0
        self._connection.look()
        for state in self.feeds.values():
            self._hand_on_early(state)
        replay, changes = self._connection.replay, self._connection.changes
        while (
            count < limit
            and self._batch < self._limits.batch_bytes
            and replay is not None
            and replay.open
        ):
            socket = replay.socket  # another one if an answer was given up
            try:
                frames = socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                # Few answers wait at a time. Waiting for the next one saves a commit.
                if not (count and self._asked) or self._monotonic() >= until or not socket.poll(1):
                    break
                continue
            count += 1
            self._batch += self._size(frames[-1])
            self._replayed(frames, received)
        receive = changes.socket.recv_multipart
        while count < limit and self._batch < self._limits.batch_bytes and changes.open:
            try:
                frames = receive(zmq.NOBLOCK)
            except zmq.Again:
                break
            count += 1
            self._batch += self._size(frames[-1])
            self._changed(frames, received)
            if not count % 256 and self._monotonic() >= until:
                break
        entries, self._entries = self._entries, []
        return entries

    @property
    def more(self) -> bool:
        """Whether `receive` would return something even if nothing arrives."""
        return any(state.serial + 1 in state.early for state in self.feeds.values())

    def _size(self, payload: bytes) -> int:
        """The size of a message; one that the guard notes ends its batch."""
        size = len(payload)
        return size + self._limits.batch_bytes if size > MAX_UNCOUNTED else size

    def _decoded(
        self, payload: bytes, received: times.Time, decoder: Callable[[bytes, times.Time], _Found]
    ) -> _Found | Published:
        """The content of a payload; an error in its place if it must not be decoded.

        Raises DecodeError if not even its position can be read.
        """
        if self._guard.wants(len(payload)) and self._guard.refuses(payload):
            position = decode.position_of(payload)
            if position is None:
                raise PutAsideError
            log.error(
                "message %d of feed %s was put aside: it ended the processes that handled it",
                position.serial,
                position.feed,
                extra=event("message-put-aside", feed=position.feed, feed_serial=position.serial),
            )
            return Published(position, None, PutAsideError())
        return decoder(payload, received)

    def _changed(self, frames: list[bytes], received: times.Time) -> None:
        payload = frames[-1]
        try:
            if len(frames) != 2:
                raise DecodeError("", f"a message has two frames, this has {len(frames)}")
            if frames[0] == encode.HEARTBEAT:
                self._heartbeat(decode.heartbeat(payload), received)
                return
            self._published(self._decoded(payload, received, decode.published), payload, received)
        except DecodeError as error:
            self._refuse(None, self.changes_queue, error, payload)

    def _state(self, feed: str, received: times.Time) -> FeedState | None:
        """The state of a feed; None if the feed belongs to another address.

        Raises DecodeError if this address has too many feeds.
        """
        state = self.feeds.get(feed)
        if state is None:
            if self._belongs_elsewhere(feed):
                return None
            if len(self.feeds) >= MAX_FEEDS:
                raise DecodeError("feed", f"this address has {MAX_FEEDS} other feeds already")
            state = self.feeds[feed] = FeedState(feed)
            state.epoch = self._known_epoch(feed)
            if state.epoch is not None:
                state.serial = state.published = self._position(feed, state.epoch)
            log.info(
                "feed %s is heard at %s; known up to serial %d",
                feed,
                self.changes_queue,
                state.serial,
                extra=event(
                    "feed-heard",
                    feed=feed,
                    serial=state.serial,
                    epoch=state.epoch,
                    address=self.changes_queue,
                ),
            )
        state.heard = received
        return state

    def _belongs_elsewhere(self, feed: str) -> bool:
        """Whether a feed belongs to another address; if so, an administrator has to decide."""
        owner = self._names.elsewhere(feed, self._origin)
        if owner is None:
            return False
        if feed not in self._conflicts and len(self._conflicts) < MAX_FEEDS:
            where = owner.address
            if owner.address == self.changes_queue:
                where = f"the publisher there with the key {owner.server_key or 'none'}"
            error = PeerError(
                f"take the feed {feed} from {self.changes_queue}",
                f"that name belongs to {where}",
                "give each publisher another name with its --feed; if the feed has moved, take"
                f" {owner.address} out of --changes-queue, and reload",
            )
            self._conflicts[feed] = error.problem
            log.error(
                "%s", error, extra=event("feed-name-taken", feed=feed, address=self.changes_queue)
            )
        return True

    def _claim(self, state: FeedState) -> bool:
        """Make a feed belong to this address; false if another one was quicker."""
        if self._belongs_elsewhere(state.feed):
            for serial in list(state.early):
                self._take_early(state, serial)
            del self.feeds[state.feed]
            if self._asked is state:
                self._give_up_request()
            return False
        before = self._names.claim(state.feed, self._origin)
        state.claimed = True
        if before != self._origin:
            self._entries.append(Claimed(state.feed, *self._origin))
        if before is not None and before != self._origin:
            log.log(
                NOTICE,
                "feed %s belongs to %s from now on; %s, where it was, is not followed any more",
                state.feed,
                self.changes_queue,
                before.address if before.address != self.changes_queue else "the previous key",
                extra=event("feed-moved", feed=state.feed, address=self.changes_queue),
            )
        return True

    def _log_broken(self, state: FeedState, why: str) -> None:
        self._log.error(
            "feed %s is broken: %s",
            state.feed,
            why,
            extra=event("feed-broken", feed=state.feed, epoch=state.epoch, serial=state.serial),
            of=state.feed,
        )

    def _new_epoch(self, state: FeedState, epoch: int) -> None:
        known = self._position(state.feed, epoch)
        if state.epoch is not None and known:
            self._log.warning(
                "feed %s goes back to epoch %d: are there two publishers of that name?",
                state.feed,
                epoch,
                extra=event("feed-epoch-back", feed=state.feed, epoch=epoch),
                of=state.feed,
            )
        elif state.epoch is not None:
            why = (
                f"its publisher has a new spool (epoch {epoch} after {state.epoch}): "
                f"what the old one held after serial {state.serial} may be lost"
            )
            self._log_broken(state, why)
            self._entries.append(Lost(Position(state.feed, epoch, 0), why))
        state.epoch = epoch
        state.serial = state.published = known
        if state.announced is not None and state.announced.epoch == epoch:
            state.published = max(known, state.announced.serial)
        state.announced = None
        state.behind = 0
        state.went_back = False
        state.holed = False
        for serial in list(state.early):
            self._take_early(state, serial)
        if self._asked is state and self._asked_epoch != epoch:
            self._give_up_request()

    def _published(self, message: Published, payload: bytes, received: times.Time) -> None:
        position = message.position
        state = self.feeds.get(position.feed) or self._state(position.feed, received)
        if state is None or not (state.claimed or self._claim(state)):
            return
        if state.epoch != position.epoch:
            self._new_epoch(state, position.epoch)
        serial = position.serial
        if serial > state.published:
            state.published = serial
        state.heard = received
        if serial in state.early:
            return
        if serial == state.serial + 1:
            self._hand_on(state, message, payload)
            if state.early:
                self._hand_on_early(state)
        elif serial > state.serial:
            limits = self._limits
            fits = self._early < limits.early and self._early_bytes < limits.early_bytes
            # The message that confirms where a replay begins is needed, whatever else there is.
            needed = self._asked is state and serial == self._asked_at + 1
            if needed and not fits:
                self._drop_early()
            if (fits and not self._guard.careful) or needed:
                state.early[serial] = payload, received
                self._early += 1
                self._early_bytes += len(payload)
            self._ask(state)

    def _hand_on(self, state: FeedState, message: Published, payload: bytes) -> None:
        state.serial = message.position.serial
        if message.message is not None:
            self._entries.append(Accepted(message.position, message.message))
        else:
            assert message.error is not None
            self._refuse(message.position, self.changes_queue, message.error, payload)

    def _refuse(
        self, position: Position | None, source: str, error: DecodeError, payload: bytes
    ) -> None:
        self._entries.append(refused(position, source, "msgpack", error, payload))

    def _hand_on_early(self, state: FeedState) -> None:
        """Return messages that came early; those that exceed a batch come with the next one."""
        while state.serial + 1 in state.early and self._batch < self._limits.batch_bytes:
            assert state.epoch is not None
            position = Position(state.feed, state.epoch, state.serial + 1)
            payload, received = self._take_early(state, position.serial)
            self._batch += self._size(payload)
            # Early messages are kept as payloads, because decoded ones may be many times as large.
            # By now this one may have to be put aside, or claim another place than before.
            try:
                message = self._decoded(payload, received, decode.published)
            except DecodeError as error:
                message = Published(position, None, error)
            self._hand_on(state, message._replace(position=position), payload)

    def _drop_early(self) -> None:
        """Forget the early messages of all feeds; they are requested again."""
        for state in self.feeds.values():
            for serial in list(state.early):
                self._take_early(state, serial)

    def _take_early(self, state: FeedState, serial: int) -> tuple[bytes, times.Time]:
        payload, received = state.early.pop(serial)
        self._early -= 1
        self._early_bytes -= len(payload)
        return payload, received

    def _heartbeat(self, position: Position, received: times.Time) -> None:
        state = self._state(position.feed, received)
        if state is None:
            return
        if position.epoch != state.epoch:
            state.announced = position
            if position.serial:
                self._ask(state, position.epoch)
            return
        state.announced = None
        if position.serial > state.published:
            state.published = position.serial
        if position.serial > state.serial:
            state.behind = 0
            self._ask(state)
        elif position.serial < state.serial and self._asked is None:
            # One heartbeat may be old, queued behind a replay; several in a row are not.
            state.behind += 1
            if state.behind >= MAX_BEHIND and not state.went_back:
                self._ask(state)
        else:
            state.behind = 0

    # Replay

    def _ask(self, state: FeedState, epoch: int | None = None, after: int | None = None) -> None:
        """Request what comes next, unless a replay is under way.

        Args:
            epoch: None for that of the feed.
            after: the serial before it; None for our last one of that epoch.
        """
        if epoch is None:
            epoch = state.epoch
        assert epoch is not None
        replay = self._connection.replay
        if replay is None:
            if state.early:
                self._lose(state, min(state.early) - 1, "no replay queue is set")
            return
        now = self._monotonic()
        if self._asked is not None or now < self._next_request or not replay.open:
            return
        if state.serial + 1 in state.early:
            return  # what comes next is here
        if after is None:
            after = state.serial
            if epoch != state.epoch:
                after = self._position(state.feed, epoch)
        try:
            replay.socket.send(
                encode.replay_request(epoch, after, self._limits.replay), zmq.NOBLOCK
            )
        except zmq.Again:
            self._next_request = now + 0.1  # not connected yet
            return
        if state.published > state.serial and not state.holed:
            state.holed, state.hole = True, state.serial
            self._log.info(
                "feed %s: messages after serial %d are missing; we ask for them",
                state.feed,
                state.serial,
                extra=event("hole-noticed", feed=state.feed, serial=state.serial),
                of=state.feed,
            )
        self._asked, self._asked_epoch, self._asked_at = state, epoch, after
        self._unreadable = 0
        self._deadline = now + ANSWER_TIMEOUT

    def _replayed(self, frames: list[bytes], received: times.Time) -> None:
        payload = frames[-1]
        try:
            answer = self._decoded(payload, received, decode.replayed)
            state = self._asked
            if isinstance(answer, Published) and state is not None:
                feed, epoch, _ = answer.position
                if (feed, epoch) == (state.feed, self._asked_epoch):
                    self._published(answer, payload, received)
        except DecodeError as error:
            self._unreadable += 1
            self._refuse(None, self.replay_queue, error, payload)
            return
        if state is not None:
            self._deadline = self._monotonic() + ANSWER_TIMEOUT
            self._silences = 0
        if isinstance(answer, Published) or state is None:
            pass  # handed on, or an answer to a request that was given up
        elif isinstance(answer, End):
            self._asked = None
            self._ended(state, answer.serial)
        else:
            self._asked = None
            self._gone(state, answer)

    def _ended(self, state: FeedState, last: int) -> None:
        if self._asked_epoch != state.epoch:
            # The answer is empty, but it confirms that this epoch continues where we are.
            if 0 < last == self._position(state.feed, self._asked_epoch):
                self._new_epoch(state, self._asked_epoch)
            return
        if self._asked_at > state.serial:
            # The publisher says that older messages are gone. The first that it keeps confirms it.
            if self._asked_at + 1 in state.early:
                self._lose(state, self._asked_at, "its publisher no longer keeps them")
        elif state.serial > self._asked_at:
            self._fruitless = 0
        elif last <= state.serial and not state.early:
            # The publisher has nothing later, whatever it said before.
            state.published = state.serial
            if last == state.serial:
                state.behind = 0
            elif state.behind >= MAX_BEHIND:
                self._report_went_back(state, last)
        elif state.published > state.serial:
            self._fruitless += 1
            if self._fruitless >= MAX_TRIES:
                self._fruitless = 0
                self._give_up(state, last)
        if state.published > state.serial:
            self._ask(state)
        else:
            self._log_filled(state)

    def _give_up(self, state: FeedState, last: int) -> None:
        """Continue without the messages that the publisher does not replay; it ends with `last`.

        Only messages show how many those are: later ones, or ones that could not be decoded.
        """
        beyond = [serial for serial in state.early if serial > last]
        for serial in beyond:
            self._take_early(state, serial)
        if beyond:
            self._log.warning(
                "feed %s: its publisher does not know %d messages, up to serial %d, that came in"
                " its name; they are ignored",
                state.feed,
                len(beyond),
                max(beyond),
                extra=event("messages-not-known", feed=state.feed, messages=len(beyond)),
                of=state.feed,
            )
        until = min(state.early, default=min(last, state.serial + self._unreadable) + 1) - 1
        if until > state.serial:
            self._lose(state, until, "its publisher does not replay them")
        state.published = max([state.serial, *state.early])

    def _report_went_back(self, state: FeedState, last: int) -> None:
        why = (
            f"its publisher's spool went back to serial {last}, "
            f"{state.serial} was accepted already: what it publishes up to there is ignored"
        )
        state.went_back = True
        self._log_broken(state, why)
        assert state.epoch is not None
        lost = Position(state.feed, state.epoch, state.serial)
        self._entries.append(Lost(lost, why))

    def _log_filled(self, state: FeedState) -> None:
        if not state.holed or state.published > state.serial:
            return
        state.holed = False
        self._log.info(
            "feed %s: messages %d to %d have arrived",
            state.feed,
            state.hole + 1,
            state.serial,
            extra=event(
                "hole-filled",
                feed=state.feed,
                serial=state.serial,
                messages=state.serial - state.hole,
            ),
            of=state.feed,
        )

    def _gone(self, state: FeedState, gone: Gone) -> None:
        self._fruitless = 0
        if gone.epoch != self._asked_epoch:
            if gone.epoch != state.epoch:
                self._ask(state, gone.epoch)
        elif gone.first > self._asked_at + 1:
            self._ask(state, gone.epoch, gone.first - 1)

    def _lose(self, state: FeedState, last: int, why: str) -> None:
        """Give up the messages up to serial `last`, and continue after them."""
        if not (state.claimed or self._claim(state)):
            return
        assert state.epoch is not None
        why = f"messages {state.serial + 1} to {last} are lost: {why}"
        self._log_broken(state, why)
        self._entries.append(Lost(Position(state.feed, state.epoch, last), why))
        state.serial = last
        state.holed = False  # whatever is missing after it is another hole
        for serial in [early for early in state.early if early <= last]:
            self._take_early(state, serial)
        self._hand_on_early(state)

    def tick(self) -> None:
        """Check timeouts; call it about once a second."""
        now = self._monotonic()
        self._listen()
        self._connection.look()
        replay = self._connection.replay
        if self._asked is not None and replay is not None and replay.broke_protocol:
            self._note_break(self._asked)
        if self._connection.fix(now):
            self._asked = None
        if self._asked is not None and now >= self._deadline:
            state = self._asked
            self._log.warning(
                "the publisher of feed %s does not answer at %s; we ask again",
                state.feed,
                self.replay_queue,
                extra=event("replay-silent", feed=state.feed, address=self.replay_queue),
                of=state.feed,
            )
            self._next_request = now + min(MAX_WAIT, self._silences)
            self._silences += 1
            self._give_up_request()
        if self._asked is None:
            for state in self.feeds.values():
                if state.published > state.serial:
                    self._ask(state)
                elif state.announced is not None and state.announced.serial:
                    self._ask(state, state.announced.epoch)

    def _listen(self) -> None:
        """Log once that a publisher has fallen silent, and once that it is back."""
        now = self._clock()
        for state in self.feeds.values():
            self._log_filled(state)
            silent = now - state.heard >= SILENCE_TIMEOUT
            if silent == state.silent:
                continue
            state.silent = silent
            if silent:
                self._log.warning(
                    "feed %s is silent: nothing came from %s since %s",
                    state.feed,
                    self.changes_queue,
                    times.to_rfc3339(state.heard),
                    extra=event("feed-silent", feed=state.feed, address=self.changes_queue),
                    of=state.feed,
                )
            else:
                self._log.log(
                    NOTICE,
                    "feed %s is back",
                    state.feed,
                    extra=event("feed-back", feed=state.feed, serial=state.serial),
                    of=state.feed,
                )

    def _note_break(self, state: FeedState) -> None:
        """A replay broke off. A message at which that happens repeatedly is given up."""
        if self._broken_off_at != state.serial:
            self._broken_off, self._broken_off_at = 0, state.serial
        self._broken_off += 1
        # Nothing is lost if the epoch was only announced, or if all that was sent has come.
        missing = self._asked_epoch == state.epoch and state.published > state.serial
        self._give_up_request()
        if self._broken_off >= MAX_TRIES and missing and state.serial + 1 not in state.early:
            self._broken_off = 0
            why = "its publisher's answer ends there: is the message larger than a frame may be?"
            self._lose(state, state.serial + 1, why)

    def _give_up_request(self) -> None:
        """Ignore the answers that still come."""
        self._asked = None
        if self._connection.replay is not None:
            self._connection.replay.reopen()

    @property
    def filling(self) -> bool:
        return self._asked is not None

    def close(self) -> None:
        self._connection.close()
