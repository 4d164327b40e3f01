"""``mesh call SERVICE METHOD PATH``: one call through the mesh client, as a service would make it, in whose name you like."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any

import typer

from app import context, redis_client, telemetry
from app.cli import running, terminal, tokens
from app.cli.running import DataDir, System
from app.cli.tokens import Wish
from app.context import Context
from app.dev.secrets import DEMO_CLIENT
from app.errors import InvalidInput, MeshError
from app.mesh import Mesh, Reply, Story, Trace, open_mesh

CALLER = "cli"
# It calls and is never called: the address stands in a record that is not registered.
NO_ADDRESS = "http://127.0.0.1:1"
_REDIS_SECONDS = 2.0
# RFC 6750, 2.1
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")


def register(mesh: typer.Typer) -> None:
    mesh.command("call")(call)


def call(
    service: Annotated[str, typer.Argument(help="Its name in the mesh.")],
    method: Annotated[str, typer.Argument(help="GET, POST, …")],
    path: Annotated[str, typer.Argument(help="As in /users/7.")],
    *,
    body: Annotated[str | None, typer.Option("--json", metavar="BODY", help="Sent as JSON.")] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Show who could answer, and each attempt.")] = False,
    json_explain: Annotated[bool, typer.Option("--json-explain", help="The same as JSON, on stderr.")] = False,
    timeout: Annotated[float | None, typer.Option(min=0.001, help="Seconds for the whole call.")] = None,
    sandbox: Annotated[str | None, typer.Option(help="Go to the instances of this sandbox.")] = None,
    user: Annotated[
        str | None, typer.Option("--as", metavar="NAME", help="In the name of this user of the demo.")
    ] = None,
    client: Annotated[str | None, typer.Option("--as-client", metavar="ID", help="As this client.")] = None,
    token: Annotated[str | None, typer.Option(metavar="TOKEN", help="With this token.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Call a service and print what it answers; the code is 0 if the status is below 400.

    Without --as, --as-client or --token it is nobody who calls: that is enough for what is public.
    """
    if not path.startswith("/"):
        raise InvalidInput(f"The path starts with a slash, as in /{path}")
    json_body, caller = _parse(body), Caller(user, client, token)
    system = running.find(data_dir)
    order = Order(service, method.upper(), path, json_body, timeout, sandbox, caller.token_in(system))
    telemetry.configure(system.settings.model_copy(update={"log_level": "error"}), service=CALLER, instance=CALLER)
    answer = asyncio.run(_carry_out(order, system))
    if explain:
        _tell(answer.story)
    if json_explain:
        typer.echo(json.dumps(answer.story.as_dict()), err=True)
    if isinstance(answer.outcome, MeshError):
        answer.outcome.detail = str(answer.outcome)
        raise answer.outcome
    _print(answer.outcome)
    if answer.outcome.status == 401:
        typer.echo(f"mesh: {_how_to_be_somebody(order)}", err=True)
    if answer.outcome.status >= 400:
        raise typer.Exit(1)


@dataclass(frozen=True, slots=True)
class Caller:
    """In whose name the call is made: a user's, a client's, that of a token, or nobody's.

    Raises:
        InvalidInput: more than one of them.
    """

    user: str | None
    client: str | None
    token: str | None

    def __post_init__(self) -> None:
        if sum(given is not None for given in (self.user, self.client, self.token)) > 1:
            raise InvalidInput("One of --as, --as-client and --token")
        if self.token is not None and not _TOKEN.fullmatch(self.token):
            raise InvalidInput("--token: that is no token; `mesh token` prints one")

    def token_in(self, system: System) -> str | None:
        """Raises: what `tokens.of_user` and `tokens.of_client` raise."""
        if self.user is not None:
            return tokens.of_user(system.settings, self.user, Wish())
        if self.client is not None:
            return tokens.of_client(system.settings, self.client, Wish())
        return self.token


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be called, and how."""

    service: str
    method: str
    path: str
    json: Any
    timeout: float | None
    sandbox: str | None
    token: str | None = field(default=None, repr=False)

    @property
    def headers(self) -> dict[str, str]:
        return {} if self.token is None else {"authorization": f"Bearer {self.token}"}


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of it, and how."""

    outcome: Reply | MeshError
    story: Story


def _parse(body: str | None) -> Any:
    try:
        return None if body is None else json.loads(body)
    except ValueError as error:
        raise InvalidInput(f"--json: {error}") from None


async def _carry_out(order: Order, system: System) -> Answer:
    async with (
        redis_client.open_async(system.redis_url, timeout_seconds=_REDIS_SECONDS) as client,
        open_mesh(
            redis=client,
            redis_url=system.redis_url,
            settings=system.settings,
            service=CALLER,
            url=NO_ADDRESS,
        ) as mesh,
    ):
        with _in_sandbox(order.sandbox):
            return await _call(order, mesh)


async def _call(order: Order, mesh: Mesh) -> Answer:
    trace = Trace()
    try:
        reply = await mesh.request(
            order.method,
            order.service,
            order.path,
            json=order.json,
            headers=order.headers,
            timeout=order.timeout,
            explain=trace,
        )
    except MeshError as error:
        return Answer(error, trace.story)
    return Answer(reply, trace.story)


@contextmanager
def _in_sandbox(name: str | None) -> Iterator[None]:
    if name is None:
        yield
        return
    with context.activate(Context(context.new_request_id(), sandbox=name)):
        yield


def _tell(story: Story) -> None:
    """On stderr, so that the answer itself can be piped on."""
    tell = terminal.console(sys.stderr).print
    registry = story.registry
    state = "answers" if registry["healthy"] else "away"
    age = "never" if registry["age_seconds"] is None else f"{registry['age_seconds']:.1f} s ago"
    tell(f"registry    {state}, last heard {age}, epoch {registry['epoch']}, change {registry['seq']}")
    for peer in story.candidates:
        cost = f"{peer['cost_seconds'] * 1000:.1f} ms, {peer['in_flight']} in flight, score {peer['score']:.4f}"
        where = f"{peer['id']}  {peer['url']}  {peer['version']}  {peer['zone']}"
        tell(f"candidate   {where}  share {peer['share']:.0%}  {cost}  {peer['state']}")
    if not story.candidates:
        tell("candidate   nobody is ready")
    tell(f"breaker     {story.breaker}")
    tell(f"budget      {story.repetitions_left:.0f} repetitions left, {story.allowed_seconds:.2f} s for the call")
    for step in story.attempts:
        took = (
            f"from {step.after_seconds * 1000:.1f} ms, for {step.seconds * 1000:.1f} ms of {step.allowed_seconds:.2f} s"
        )
        tell(
            f"attempt {step.number}   {step.instance}  {step.url}: {step.outcome}, {step.kind}, {took}; then {step.then}"
        )
    for after, note in story.notes:
        tell(f"decided     {note}, after {after * 1000:.1f} ms")
    tell(f"answer      {story.outcome} after {story.seconds * 1000:.1f} ms")


def _how_to_be_somebody(order: Order) -> str:
    if order.token is not None:
        return "the token is not believed; `mesh token` prints another"
    return f"it is to be known who calls: add --as {tokens.DEFAULT_USER}, --as-client {DEMO_CLIENT}, or --token TOKEN"


def _print(reply: Reply) -> None:
    if not reply.ok:
        typer.echo(f"HTTP {reply.status}", err=True)
    if sys.stdout.isatty() and "json" in reply.headers.get("content-type", ""):
        typer.echo(json.dumps(reply.json(), indent=2, ensure_ascii=False))
        return
    sys.stdout.buffer.write(reply.body if reply.body.endswith(b"\n") or not reply.body else reply.body + b"\n")
    sys.stdout.buffer.flush()
