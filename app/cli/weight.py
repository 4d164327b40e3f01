"""``mesh weight``: how much of a service's traffic goes where, shown and changed while it runs."""

from __future__ import annotations

from typing import Annotated

import typer

from app.cli import running
from app.cli.running import DataDir
from app.dev import roster
from app.dev.roster import Roster
from app.errors import InvalidInput
from app.mesh.registry import rules


def register(mesh: typer.Typer) -> None:
    mesh.command("weight")(weight)


def weight(
    service: Annotated[str, typer.Argument(help="Its name in the mesh.")],
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="RULE", help="v2=5% (a version's share), ID=0.5 (an instance's weight), v2= (no more)."),
    ] = None,
    *,
    clear: Annotated[bool, typer.Option("--clear", help="No rule any more: by the weight of each instance.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Show or change how a service's traffic is shared, as in `mesh weight orders v2=5%`.

    Callers follow within moments. What a rule does not name shares the rest by weight.
    """
    if clear and words:
        raise InvalidInput("Either a rule or --clear")
    system = running.find(data_dir)
    with roster.opened(system.redis_url, system.settings.registry) as registry:
        if clear:
            registry.clear_rule(service)
        elif words:
            _warn_of_strangers(registry, service, words)
            registry.change_rule(service, words)
        rule = registry.rule(service)
    typer.echo(f"{service}: {rules.describe(rule) or 'no rule, by the weight of each instance'}")


def _warn_of_strangers(registry: Roster, service: str, words: list[str]) -> None:
    """A rule may come before what it speaks of; a slip of the pen looks the same."""
    members = [member.instance for member in registry.look().members if member.instance.service == service]
    known = {instance.version for instance in members} | {instance.id for instance in members}
    for name in [word.partition("=")[0] for word in words]:
        if name not in known:
            typer.echo(f"mesh: {service} has no version or instance {name!r} now; the rule waits for one", err=True)
