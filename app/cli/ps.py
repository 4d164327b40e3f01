"""``mesh ps``: who is in the registry."""

from __future__ import annotations

import json
import time
from typing import Annotated, Any

import typer

from app.cli import running, terminal
from app.cli.running import DataDir
from app.dev import roster, traffic
from app.dev.roster import Look, Member
from app.dev.traffic import Shares
from app.mesh.registry import rules

HEADINGS = (
    "SERVICE", "INSTANCE", "URL", "PID", "VERSION", "ZONE", "SANDBOX", "STATE", "SHARE", "IN FLIGHT", "LAG", "HEARTBEAT",
    "UP",
)  # fmt: skip
AsJson = Annotated[bool, typer.Option("--json", help="As a JSON array, for scripts.")]


def register(mesh: typer.Typer) -> None:
    mesh.command("ps")(ps)


def ps(*, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """List every registered process: where it is, how it is, what it gets, and when it was last heard of."""
    system = running.find(data_dir)
    with roster.opened(system.redis_url, system.settings.registry) as registry:
        look = registry.look()
    shares = traffic.shares(look)
    if as_json:
        typer.echo(json.dumps([describe(member, look, shares) for member in look.members], indent=2))
        return
    if not look.members:
        typer.echo("Nobody is registered.")
        return
    _print(look, shares)


def describe(member: Member, look: Look, shares: Shares) -> dict[str, Any]:
    """What the JSON form says of one process; times are seconds, shares from 0 to 1."""
    instance, load = member.instance, member.load
    rule = look.rules.get(instance.service)
    return {
        "service": instance.service,
        "id": instance.id,
        "generation": instance.generation,
        "url": instance.url,
        "pid": instance.pid,
        "version": instance.version,
        "zone": instance.zone,
        "weight": dict(rule.weights).get(instance.id, instance.weight) if rule else instance.weight,
        "share": shares.get(instance.id, 0.0),
        "sandbox": instance.sandbox,
        "rule": rules.describe(rule) if rule else "",
        "state": instance.state,
        "prefixes": list(instance.prefixes),
        "load": {"in_flight": load.in_flight, "limit": load.limit, "loop_lag_seconds": load.loop_lag_seconds},
        "heartbeat_age_seconds": member.age_seconds,
        "lease_left_seconds": member.lease_left_seconds,
        "started_at": instance.started_at,
    }


def _print(look: Look, shares: Shares) -> None:
    now = time.time()
    rows = [_row(member, shares, now) for member in look.members]
    # A column that says nothing of anybody is not shown.
    shown = [place for place, heading in enumerate(HEADINGS) if heading != "SANDBOX" or any(row[place] for row in rows)]
    terminal.print_table([HEADINGS[place] for place in shown], [[row[place] for place in shown] for row in rows])
    for service, rule in sorted(look.rules.items()):
        typer.echo(f"Rule of {service}: {rules.describe(rule)}")


def _row(member: Member, shares: Shares, now: float) -> tuple[str, ...]:
    instance, load = member.instance, member.load
    busy = f"{load.in_flight}/{load.limit}" if load.limit else str(load.in_flight)
    lag = f"{load.loop_lag_seconds * 1000:.0f} ms"
    return (
        instance.service,
        instance.id,
        instance.url,
        str(instance.pid),
        instance.version,
        instance.zone,
        instance.sandbox or "",
        instance.state,
        f"{shares.get(instance.id, 0.0) * 100:.3g} %",
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
