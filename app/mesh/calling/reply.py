"""What a caller gets back: a whole reply, or one that is still coming."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

from app.errors import BadReply, MeshError, Unavailable
from app.mesh.calling.exchange import Exchange


class ReplyHeaders(Mapping[str, str]):
    """Headers by name: lower-case when listed, in any case when asked for. Costs nothing until it is read.

    Args:
        received: by name in any case, duplicates listed one after another.
    """

    __slots__ = ("_received",)

    def __init__(self, received: Mapping[str, str]) -> None:
        self._received = received

    def __repr__(self) -> str:
        return repr(dict(self))

    def __getitem__(self, name: str) -> str:
        first = self._received[name]
        if len(self._received) == len(set(self._received)):
            return first
        return ", ".join(value for key, value in self._received.items() if key.lower() == name.lower())

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name.lower() for name in self._received))

    def __len__(self) -> int:
        return len({name.lower() for name in self._received})


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole reply.

    Args:
        headers: lower-case name → value; duplicates joined by a comma (``set-cookie`` cannot be: stream it).
        service: who was asked, for errors.
        fallback: empty for a peer's answer to this call; ``stale`` for one to an earlier call, ``function`` for what
            the caller's own fallback gave in its place.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    service: str = ""
    fallback: Literal["", "stale", "function"] = ""

    @classmethod
    def of(cls, value: Any, *, status: int = 200) -> Reply:
        """A reply with `value` as JSON, as for a fallback."""
        return cls(status, {"content-type": "application/json"}, orjson.dumps(value))

    @property
    def ok(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status < 300

    def json(self) -> Any:
        """The body, parsed. Raises: BadReply: it is not JSON."""
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError as error:
            raise BadReply(f"{self._who} did not answer with JSON (status {self.status})") from error

    def expect(self, *statuses: int) -> Reply:
        """This reply, if its status is one of `statuses`.

        Raises:
            Unavailable: it is 503; with the peer's Retry-After.
            BadReply: any other status.
        """
        if self.status in statuses:
            return self
        if self.status == 503:
            raise Unavailable(f"{self._who} is unavailable", retry_after=self.retry_after_seconds)
        raise BadReply(f"{self._who} answered {self.status}, not {' or '.join(map(str, statuses))}")

    def as_error(self) -> MeshError:
        """What a fallback hears where this reply is a failure."""
        if self.status == 503:
            return MeshError(f"{self._who} is unavailable", retry_after=self.retry_after_seconds)
        return BadReply(f"{self._who} answered {self.status}")

    @property
    def retry_after_seconds(self) -> float | None:
        """Retry-After in its form as seconds; None if there is none or it is a date."""
        value = self.headers.get("retry-after", "")
        return float(value) if value.isascii() and value.isdigit() and len(value) < 10 else None

    @property
    def _who(self) -> str:
        return self.service or "A peer"


@dataclass(frozen=True, slots=True)
class StreamedReply:
    """A reply whose head is here; lives inside ``async with mesh.stream(…)``.

    Args:
        headers: in order, with duplicates, as they came.
        instance: the id of the peer that answered.
    """

    status: int
    headers: list[tuple[bytes, bytes]]
    instance: str
    _exchange: Exchange
    _idle_seconds: float

    def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes, not decoded, once.

        Raises:
            PeerUnreachable: cut before its end.
            DeadlineExceeded: the peer kept silent for the call's whole timeout.
        """
        return self._exchange.chunks(idle_seconds=self._idle_seconds)
