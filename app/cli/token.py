"""``mesh token``: an access token, and nothing else, for a shell to put where it is needed."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from app.cli import running, tokens
from app.cli.running import DataDir
from app.cli.tokens import Wish
from app.errors import InvalidInput


def register(mesh: typer.Typer) -> None:
    mesh.command("token")(token)


def token(
    *,
    user: Annotated[
        str | None, typer.Option(metavar="NAME", help=f"Log in as this user [default: {tokens.DEFAULT_USER}].")
    ] = None,
    client: Annotated[str | None, typer.Option(metavar="ID", help="The client's own, as in demo-client.")] = None,
    scope: Annotated[
        str | None, typer.Option(metavar="SCOPES", help='As in "users:read orders:write" [default: all there are].')
    ] = None,
    audience: Annotated[
        str | None, typer.Option(metavar="NAME", help="For one service alone [default: the public API].")
    ] = None,
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="The password of --user is the first line of the input.")
    ] = False,
    data_dir: DataDir = None,
) -> None:
    """Print an access token: of a user, after a login like in a browser, or of a client.

    As in `curl -H "Authorization: Bearer $(mesh token)" http://127.0.0.1:8000/users/7`.
    """
    if user is not None and client is not None:
        raise InvalidInput("Either --user or --client")
    if password_stdin and client is not None:
        raise InvalidInput("A client has no password; its secret is MESH_AUTH__CLIENT_SECRET, or the demo's")
    wish = Wish(scope, audience)
    settings = running.issuing(data_dir)
    if client is not None:
        typer.echo(tokens.of_client(settings, client, wish))
        return
    password = sys.stdin.readline().rstrip("\r\n") if password_stdin else None
    typer.echo(tokens.of_user(settings, user or tokens.DEFAULT_USER, wish, password=password))
