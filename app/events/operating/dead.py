"""Dead letters: the events that a service could not handle, each with the reason, until somebody decides.

                 bury                         replay
    handler ──────────► dead:<group> ─────────────────────► again:<group>:<partition> ──► handler
                             │ drop
                             ▼
                           gone

Each step is one script: a letter is in one place, never in none and never in two.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.errors import Conflict, InvalidInput, NotFound
from app.events import envelope as envelopes
from app.events import partition as partitions
from app.events import position as positions
from app.events.envelope import CloudEvent, Unreadable
from app.events.position import START, Position
from app.mesh.coordination import line as lines
from app.mesh.coordination.line import Line
from app.mesh.keys import EVENTS_MS, Keys

_LETTERS, _REPLAY, _DROP = (lines.load("app.events.operating", name) for name in ("letters", "replay", "drop"))

PAGE = 100
FIRST = str(START)

# As Redis writes them, and not so long that it would refuse.
_ID = re.compile(r"\d{1,19}-\d{1,19}")


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter. Its repr says nothing of what is in it: that may be personal.

    Args:
        event: what could not be handled; None if it could not even be read.
        content: the same, as it was found.
        stream: the key of the stream from which it came.
        error: the name of the class.
        detail: what the error said, which may quote the event.
        tries: how often its handler has failed; 0 if it never came so far.
        at: when it was given up, in ISO 8601.
    """

    id: str
    event: CloudEvent | None = field(repr=False)
    content: bytes = field(repr=False)
    stream: str
    error: str
    detail: str = field(repr=False)
    trace: str = field(repr=False)
    tries: int
    at: str

    @property
    def position(self) -> Position:
        return positions.parse(self.id)


class DeadLetters:
    """Those of one group. Every method raises `Unavailable` if Redis is away.

    Args:
        partitions: how many there are: a letter goes back to that of its event's key.
    """

    def __init__(self, line: Line, keys: Keys, group: str, partitions: int) -> None:
        self._line, self._keys, self.group, self.partitions = line, keys, group, partitions
        self._key = keys.dead(group)

    def __repr__(self) -> str:
        return f"<DeadLetters of {self.group}>"

    async def list(self, limit: int = PAGE, after: str = FIRST) -> Sequence[Letter]:
        """Up to `limit` letters behind the id `after`, the oldest first.

        Raises:
            InvalidInput: `after` is no id.
        """
        if not _ID.fullmatch(after):
            raise InvalidInput("The id of a dead letter looks like 1700000000000-0")
        return (await self._read(f"({after}", limit))[1]

    async def show(self, letter_id: str) -> Letter:
        """Raises: NotFound: there is no such letter."""
        if _ID.fullmatch(letter_id):
            _, found = await self._read(letter_id, 1)
            if found and found[0].id == letter_id:
                return found[0]
        raise self._missing(letter_id)

    async def replay(self, letter_id: str) -> None:
        """Hand the letter to the group again: it is no dead letter any more, until it fails again.

        Raises:
            NotFound: there is no such letter.
            Conflict: it holds no event, or the group reads no partition that it could go to.
        """
        if not await self._replay(await self.show(letter_id)):
            raise self._missing(letter_id)

    async def drop(self, letter_id: str) -> None:
        """Remove the letter for good. Raises: NotFound: there is no such letter."""
        if not await self._drop(await self.show(letter_id)):
            raise self._missing(letter_id)

    async def replay_all(self) -> int:
        """Replay every letter that is there now; returns how many. Raises: Conflict: as `replay`; the rest stays."""
        return await self._each(self._replay)

    async def drop_all(self) -> int:
        """Remove every letter that is there now; returns how many."""
        return await self._each(self._drop)

    async def _each(self, act: Callable[[Letter], Awaitable[bool]]) -> int:
        # What comes meanwhile is left alone: what is replayed may be back before we are through.
        end, _ = await self._read(FIRST, 1)
        done, after = 0, FIRST
        while page := [letter for letter in await self.list(after=after) if letter.position <= end]:
            for letter in page:
                done += await act(letter)
            after = page[-1].id
        return done

    async def _replay(self, letter: Letter) -> bool:
        again = self._keys.again(self.group, self._home(letter))
        code = int(await self._line.run(_REPLAY, (self._key, again), (letter.id, EVENTS_MS, self.group)))
        if code == -1:
            raise Conflict(f"Dead letter {letter.id} holds no event")
        if code < 0:
            raise Conflict(
                f"Nobody handles partition {self._home(letter)} of {self.group} now: start the service, then replay"
            )
        return bool(code)

    async def _drop(self, letter: Letter) -> bool:
        return bool(await self._line.run(_DROP, (self._key,), (letter.id,)))

    def _home(self, letter: Letter) -> int:
        if letter.event is not None:
            return partitions.slot_of(letter.event.key) % self.partitions
        came_from = self._keys.event_stream(letter.stream)
        return 0 if came_from is None else came_from.partition % self.partitions

    async def _read(self, start: str, limit: int) -> tuple[Position, Sequence[Letter]]:
        end, found = await self._line.run(_LETTERS, (self._key,), (start, limit))
        return positions.parse(end), [_letter(entry.decode(), _named(fields)) for entry, fields in found]

    def _missing(self, letter_id: str) -> NotFound:
        return NotFound(f"{self.group} has no dead letter {letter_id!r}")


def _named(fields: Sequence[bytes]) -> Mapping[str, bytes]:
    return {name.decode("utf-8", "replace"): value for name, value in zip(fields[::2], fields[1::2], strict=True)}


def _letter(letter_id: str, fields: Mapping[str, bytes]) -> Letter:
    content = fields.get("event", b"")

    def text(name: str) -> str:
        return fields.get(name, b"").decode("utf-8", "replace")

    tries: Any = text("tries")
    return Letter(
        letter_id, _read(content), content, stream=text("stream"), error=text("error"), detail=text("detail"),
        trace=text("trace"), tries=int(tries) if tries.isdecimal() else 0, at=text("at"),
    )  # fmt: skip


def _read(content: bytes) -> CloudEvent | None:
    try:
        return envelopes.parse(content)
    except Unreadable:
        return None
