"""``mesh ps``: who is in the registry."""

from __future__ import annotations

import json
import time
from typing import Annotated, Any

import typer

from app.cli import running, terminal
from app.cli.running import DataDir
from app.dev import roster
from app.dev.roster import Member

AsJson = Annotated[bool, typer.Option("--json", help="As a JSON array, for scripts.")]


def register(mesh: typer.Typer) -> None:
    mesh.command("ps")(ps)


def ps(*, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """List every registered process: where it is, how it is, and when it was last heard of."""
    system = running.find(data_dir)
    members = roster.read(system.redis_url, system.settings.registry)
    if as_json:
        typer.echo(json.dumps([describe(member) for member in members], indent=2))
        return
    if not members:
        typer.echo("Nobody is registered.")
        return
    headings = ("SERVICE", "INSTANCE", "URL", "PID", "VERSION", "STATE", "IN FLIGHT", "LAG", "HEARTBEAT", "UP")
    terminal.print_table(headings, [_row(member, time.time()) for member in members])


def describe(member: Member) -> dict[str, Any]:
    """What the JSON form says of one process; times are seconds."""
    instance, load = member.instance, member.load
    return {
        "service": instance.service,
        "id": instance.id,
        "generation": instance.generation,
        "url": instance.url,
        "pid": instance.pid,
        "version": instance.version,
        "zone": instance.zone,
        "weight": instance.weight,
        "state": instance.state,
        "prefixes": list(instance.prefixes),
        "load": {"in_flight": load.in_flight, "limit": load.limit, "loop_lag_seconds": load.loop_lag_seconds},
        "heartbeat_age_seconds": member.age_seconds,
        "lease_left_seconds": member.lease_left_seconds,
        "started_at": instance.started_at,
    }


def _row(member: Member, now: float) -> tuple[str, ...]:
    instance, load = member.instance, member.load
    busy = f"{load.in_flight}/{load.limit}" if load.limit else str(load.in_flight)
    lag = f"{load.loop_lag_seconds * 1000:.0f} ms"
    return (
        instance.service,
        instance.id,
        instance.url,
        str(instance.pid),
        instance.version,
        instance.state,
        busy,
        lag,
        f"{member.age_seconds:.1f} s ago",
        _duration(now - instance.started_at),
    )


def _duration(seconds: float) -> str:
    """As in ``4 s``, ``12 min``, ``3 h``, ``2 d``."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
