"""``mesh run SERVICE``: one process of one service in the foreground, as in production."""

from __future__ import annotations

from typing import Annotated

import typer

from app.asgi import serve
from app.cli import running
from app.cli.running import DataDir, load_settings
from app.service import load


def register(mesh: typer.Typer) -> None:
    mesh.command("run")(run)


def run(
    service: Annotated[str, typer.Argument(help="A folder of app/services, or gateway.")],
    *,
    host: Annotated[str | None, typer.Option(help="Address to listen on [default: MESH_HOST].")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="0: any free one [default: MESH_PORT, or 0].")
    ] = None,
    version: Annotated[
        str | None, typer.Option(help="What it calls itself in the mesh, as in v2 [default: MESH_VERSION].")
    ] = None,
    zone: Annotated[str | None, typer.Option(help="Where it runs [default: MESH_ZONE].")] = None,
    weight: Annotated[
        float | None, typer.Option(min=0, max=1000, help="Its share of the load beside others [default: 1].")
    ] = None,
    sandbox: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only requests with `x-mesh-sandbox: NAME` come here.")
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Serve one service until SIGTERM: one process, one event loop, one entry in the registry.

    Without REDIS_URL it joins what `mesh up` runs on the data directory: a canary, or a sandbox for what you work on.
    """
    given = load_settings(
        data_dir,
        service=load(service).name,
        host=host,
        port=port,
        version=version,
        zone=zone,
        weight=weight,
        sandbox=sandbox,
    )
    settings, known = running.joining(given)
    if known is not None:
        typer.echo(f"Joining what runs at {known.url} (data directory {settings.data_dir.resolve()}).", err=True)
    serve(settings)
