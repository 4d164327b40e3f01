"""``mesh run SERVICE``: one process of one service in the foreground, as in production."""

from __future__ import annotations

from typing import Annotated

import typer

from app.asgi import serve
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
    data_dir: DataDir = None,
) -> None:
    """Serve one service until SIGTERM: one process, one event loop, one entry in the registry."""
    serve(load_settings(data_dir, service=load(service).name, host=host, port=port))
