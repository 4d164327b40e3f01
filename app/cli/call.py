"""``mesh call SERVICE METHOD PATH``: one call through the mesh client, as a service would make it."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import dataclass, field
from typing import Annotated, Any

import redis.asyncio
import typer

from app import telemetry
from app.cli import running, terminal
from app.cli.running import DataDir, System
from app.errors import InvalidInput, MeshError
from app.mesh import Mesh, Reply, open_mesh
from app.mesh.observer import Attempt, NullObserver

CALLER = "cli"
# It calls and is never called: the address stands in a record that is not registered.
NO_ADDRESS = "http://127.0.0.1:1"


def register(mesh: typer.Typer) -> None:
    mesh.command("call")(call)


def call(
    service: Annotated[str, typer.Argument(help="Its name in the mesh.")],
    method: Annotated[str, typer.Argument(help="GET, POST, …")],
    path: Annotated[str, typer.Argument(help="As in /users/7.")],
    *,
    body: Annotated[str | None, typer.Option("--json", metavar="BODY", help="Sent as JSON.")] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Show who could answer, and each attempt.")] = False,
    timeout: Annotated[float | None, typer.Option(min=0.001, help="Seconds for the whole call.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Call a service and print what it answers; the code is 0 if the status is below 400."""
    if not path.startswith("/"):
        raise InvalidInput(f"The path starts with a slash, as in /{path}")
    order = Order(service, method.upper(), path, _parse(body), timeout)
    system = running.find(data_dir)
    telemetry.configure(system.settings.model_copy(update={"log_level": "error"}), service=CALLER, instance=CALLER)
    answer = asyncio.run(_carry_out(order, system))
    if explain:
        _explain(answer)
    if answer.error is not None:
        raise answer.error
    _print(answer.reply)
    if answer.reply.status >= 400:
        raise typer.Exit(1)


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be called, and how."""

    service: str
    method: str
    path: str
    json: Any
    timeout: float | None


@dataclass(slots=True)
class Answer(NullObserver):
    """What came of it, and how: it listens to the mesh while the call lasts."""

    reply: Reply = field(default_factory=lambda: Reply(0))
    error: MeshError | None = None
    seconds: float = 0.0
    candidates: tuple[tuple[str, ...], ...] = ()
    registry: str = ""
    attempts: list[Attempt] = field(default_factory=list)

    def attempt(self, details: Attempt, /) -> None:
        self.attempts.append(details)


def _parse(body: str | None) -> Any:
    try:
        return None if body is None else json.loads(body)
    except ValueError as error:
        raise InvalidInput(f"--json: {error}") from None


async def _carry_out(order: Order, system: System) -> Answer:
    answer = Answer()
    async with (
        redis.asyncio.Redis.from_url(system.redis_url) as client,
        open_mesh(
            redis=client,
            redis_url=system.redis_url,
            settings=system.settings,
            service=CALLER,
            url=NO_ADDRESS,
            observer=answer,
        ) as mesh,
    ):
        _look_around(mesh, order.service, answer)
        began = time.perf_counter()
        try:
            answer.reply = await mesh.request(
                order.method, order.service, order.path, json=order.json, timeout=order.timeout
            )
        except MeshError as error:
            answer.error = error
        answer.seconds = time.perf_counter() - began
    return answer


def _look_around(mesh: Mesh, service: str, answer: Answer) -> None:
    peers = mesh.directory.instances(service)
    answer.candidates = tuple((p.id, p.url, p.state, f"{p.weight:g}", p.zone, p.version) for p in peers)
    answer.registry = repr(mesh.directory)


def _explain(answer: Answer) -> None:
    """On stderr, so that the answer itself can be piped on."""
    tell = terminal.console(sys.stderr).print
    tell(f"registry    {answer.registry}")
    for candidate in answer.candidates or (("nobody is registered",),):
        tell(f"candidate   {'  '.join(candidate)}")
    for attempt in answer.attempts:
        outcome = attempt.error or f"status {attempt.status}"
        after = ", trying again" if attempt.retrying else ""
        tell(f"attempt {attempt.number}   {attempt.instance}: {outcome} after {attempt.seconds * 1000:.1f} ms{after}")
    tell(f"answer      {answer.reply.status or '-'} after {answer.seconds * 1000:.1f} ms")


def _print(reply: Reply) -> None:
    if not reply.ok:
        typer.echo(f"HTTP {reply.status}", err=True)
    if sys.stdout.isatty() and "json" in reply.headers.get("content-type", ""):
        typer.echo(json.dumps(reply.json(), indent=2, ensure_ascii=False))
        return
    sys.stdout.buffer.write(reply.body if reply.body.endswith(b"\n") or not reply.body else reply.body + b"\n")
    sys.stdout.buffer.flush()
