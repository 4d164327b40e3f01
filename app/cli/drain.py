"""``mesh drain``: one instance taken out of the traffic, and put back."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated

import typer

from app.cli import instances, running, terminal
from app.cli.instances import InstanceId
from app.cli.running import DataDir
from app.dev import roster
from app.dev.roster import Look, Member, Roster
from app.errors import NotFound, Unavailable
from app.mesh.registry.operations import Position
from app.mesh.registry.record import Instance
from app.service import GATEWAY

LOOK_SECONDS = 0.2
NAMED = 5


def register(mesh: typer.Typer) -> None:
    mesh.command("drain")(drain)


def drain(
    instance: InstanceId,
    *,
    undo: Annotated[bool, typer.Option("--undo", help="Let it take requests again.")] = False,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait until it is so.")] = 30.0,
    data_dir: DataDir = None,
) -> None:
    """Take an instance out of the traffic, and wait until all its callers know and nothing is in flight.

    It runs on, so that it can be looked at, and stays out until --undo or its end. The code is 1 if it is not so in
    time; the wish stands nevertheless.
    """
    system = running.find(data_dir)
    with roster.opened(system.redis_url, system.settings.registry) as registry:
        who = instances.find(registry.look().members, instance).instance
        registry.wish(who, "ready" if undo else "draining")
        began, give_up = time.monotonic(), time.monotonic() + timeout
        with terminal.Screen(f"{who.id}: {'back into' if undo else 'out of'} the traffic") as screen:
            steps = _Return(registry, who) if undo else _Drain(registry, who)
            _follow(steps, screen, give_up)
    typer.echo(f"{who.id} {_outcome(who, undo=undo)} (after {time.monotonic() - began:.1f} s).")


def _outcome(who: Instance, *, undo: bool) -> str:
    if undo:
        return "takes requests again"
    if who.service == GATEWAY:
        return "drains: its /readyz says so to what stands before it, and whoever connects to it is still served"
    return "is out of the traffic: all callers know, nothing is in flight"


class _Return:
    """Until the instance says that it is ready."""

    def __init__(self, registry: Roster, who: Instance) -> None:
        self._registry, self._who = registry, who

    def waits_for(self) -> str:
        """What is still missing; empty when it is done. Raises: NotFound: the instance has gone."""
        member = _still_there(self._registry.look(), self._who)
        return "" if member.instance.state == "ready" else "it to hear of the wish"


class _Drain:
    """Until the instance drains, its callers know, and a heartbeat after that says that nothing is in flight."""

    def __init__(self, registry: Roster, who: Instance, clock: Callable[[], float] = time.monotonic) -> None:
        self._registry, self._who, self._clock = registry, who, clock
        self._announced: Position | None = None
        self._known_since: float | None = None

    def waits_for(self) -> str:
        """What is still missing; empty when it is done. Raises: NotFound: the instance has gone."""
        look = self._registry.look()
        member = _still_there(look, self._who)
        if member.instance.state != "draining":
            return "it to hear of the wish"
        return self._acknowledgement(look.position) or self._in_flight(member)

    def _acknowledgement(self, position: Position) -> str:
        if self._known_since is not None:
            return ""
        self._announced = self._announced or position
        deaf = self._registry.laggards(self._announced, but=self._who)
        if deaf is None:
            self._announced = None
            return "the registry, which has begun anew"
        if deaf:
            return f"{', '.join(deaf[:NAMED])}{' …' if len(deaf) > NAMED else ''} to acknowledge it"
        self._known_since = self._clock()
        return ""

    def _in_flight(self, member: Member) -> str:
        # Strangers do not read the registry: a gateway is idle when what stands before it sends nobody any more.
        if self._who.service == GATEWAY:
            return ""
        if self._known_since is not None and member.age_seconds > self._clock() - self._known_since:
            return "its next heartbeat"
        count = member.load.in_flight
        return f"{count} in flight" if count else ""


def _follow(steps: _Return | _Drain, screen: terminal.Screen, give_up: float) -> None:
    said = ""
    while missing := steps.waits_for():
        if missing != said:
            screen.step(f"waiting for {missing}")
            said = missing
        if time.monotonic() > give_up:
            raise Unavailable(f"It was not so in time, still waiting for {missing}; the wish stands")
        time.sleep(LOOK_SECONDS)


def _still_there(look: Look, who: Instance) -> Member:
    for member in look.members:
        if (member.instance.id, member.instance.generation) == (who.id, who.generation):
            return member
    raise NotFound(f"{who.id} has left the registry")
