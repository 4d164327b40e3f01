"""``mesh inspect``: what one instance says of itself at ``/_mesh``."""

from __future__ import annotations

import http.client
import json
import sys
from typing import Any
from urllib.parse import urlsplit

import typer

from app.cli import instances, running
from app.cli.instances import InstanceId
from app.cli.running import DataDir
from app.context import TARGET
from app.dev import roster
from app.errors import BadReply, NotFound, PeerUnreachable
from app.mesh.registry.record import Instance

PATH = "/_mesh"
ASK_SECONDS = 5.0


def register(mesh: typer.Typer) -> None:
    mesh.command("inspect")(inspect)


def inspect(instance: InstanceId, *, data_dir: DataDir = None) -> None:
    """Print what an instance knows and decides: its peers, breakers, limits, and how it stands with the registry.

    The token that opens it is that of the running system, else MESH_MANAGEMENT_TOKEN.
    """
    system = running.find(data_dir)
    who = instances.find(roster.read(system.redis_url, system.settings.registry), instance).instance
    token = system.settings.management_token
    said = _ask(who, token.get_secret_value() if token else "")
    typer.echo(json.dumps(said, indent=2 if sys.stdout.isatty() else None, ensure_ascii=False))


def _ask(who: Instance, token: str) -> Any:
    at = urlsplit(who.url)
    make = http.client.HTTPSConnection if at.scheme == "https" else http.client.HTTPConnection
    connection = make(at.hostname or "", at.port, timeout=ASK_SECONDS)
    try:
        connection.request("GET", PATH, headers={"Authorization": f"Bearer {token}", TARGET: who.id})
        reply = connection.getresponse()
        body = reply.read()
    except (OSError, http.client.HTTPException) as error:
        raise PeerUnreachable(f"{who.id} at {who.url} does not answer: {error}", sent=False) from error
    finally:
        connection.close()
    return _read(who, reply.status, body)


def _read(who: Instance, status: int, body: bytes) -> Any:
    if status == 404:
        raise NotFound(f"{who.id} does not open {PATH} to us: its MESH_MANAGEMENT_TOKEN is another, or not set")
    try:
        said = json.loads(body)
    except ValueError:
        said = None
    if status != 200 or said is None:
        raise BadReply(f"{who.id} answers {status} at {PATH}")
    return said
