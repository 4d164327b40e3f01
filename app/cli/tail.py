"""``mesh events tail``: what is published, one line each, as it comes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated

import orjson
import typer

from app import redis_client
from app.cli import running
from app.cli.running import DataDir, System
from app.errors import NotFound, Unavailable
from app.events.operating.surveyor import Surveyor
from app.events.operating.tail import Entry, Tail
from app.mesh.coordination import open_line
from app.mesh.keys import EventStream, Keys
from app.service import discover

_BLOCK_SECONDS = 2.0
_AGAIN_SECONDS = 1.0


def tail(
    service: Annotated[
        str | None, typer.Argument(metavar="[SERVICE]", help="Whose events [default: everybody's].", show_default=False)
    ] = None,
    *,
    type_: Annotated[
        str | None, typer.Option("--type", metavar="TYPE", help="Only these, as in orders.placed.")
    ] = None,
    from_start: Annotated[bool, typer.Option("--from-start", help="Begin with what the streams still have.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Each event whole, as JSON, payload and all.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Follow what is published until Ctrl-C: when, what, its key, its id. It is nobody's loss: all hear it as before."""
    asyncio.run(_follow(running.find_quietly(data_dir), service, type_=type_, from_start=from_start, as_json=as_json))


async def _follow(system: System, service: str | None, *, type_: str | None, from_start: bool, as_json: bool) -> None:
    streams = await _streams(system, service)
    async with redis_client.open_watch(system.redis_url, block_seconds=_BLOCK_SECONDS) as client:
        following = Tail(client, streams, block_seconds=_BLOCK_SECONDS)
        if not from_start:
            await following.skip()
        while True:
            for entry in await _next(following):
                if type_ is None or (entry.event is not None and entry.event.type == type_):
                    typer.echo(json_of(entry) if as_json else line_of(entry))


async def _next(following: Tail) -> Sequence[Entry]:
    said = False
    while True:
        try:
            return await following.read()
        except Unavailable as error:
            if not said:
                typer.echo(f"mesh: {error.detail}; waiting for it", err=True)
            said = True
            await asyncio.sleep(_AGAIN_SECONDS)


async def _streams(system: System, service: str | None) -> Sequence[EventStream]:
    """Those that are there, and those that the services have as soon as they publish something.

    Raises:
        NotFound: nobody of that name publishes anything.
    """
    keys, partitions = Keys(system.settings.registry.namespace), system.settings.events.partitions
    async with (
        open_line(system.redis_url, timeout_seconds=_BLOCK_SECONDS) as line,
        redis_client.open_async(system.redis_url, timeout_seconds=_BLOCK_SECONDS) as client,
    ):
        there = [stream for stream in await Surveyor(line, client, keys).find() if stream.kind == "events"]
    to_come = [EventStream(keys.events(n, p), "events", n, p) for n in discover() for p in range(partitions)]
    streams = [stream for stream in dict.fromkeys([*there, *to_come]) if service in (None, stream.name)]
    if not streams:
        raise NotFound(f"Nobody of the name {service!r} publishes events")
    return streams


def line_of(entry: Entry) -> str:
    """When, what, its key, its id."""
    event = entry.event
    if event is None:
        return f"unreadable: entry {entry.position} of partition {entry.stream.partition} of {entry.stream.name}"
    when = event.time.isoformat(timespec="milliseconds")
    return "  ".join(map(printable, (when, event.type, event.key, event.id)))


def json_of(entry: Entry) -> str:
    """The whole event."""
    if entry.event is None:
        return orjson.dumps({"unreadable": str(entry.position), "stream": entry.stream.key}).decode()
    # Anew, so that it is one line whoever has written it.
    return orjson.dumps(orjson.loads(entry.content)).decode()


def printable(text: str) -> str:
    """Without what would steer a terminal: a key may be what somebody has typed somewhere."""
    return "".join(character if character.isprintable() else "�" for character in text)
