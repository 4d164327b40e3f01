"""``mesh client``: which programs may ask for tokens."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer

from app.cli import identity, terminal
from app.cli.running import DataDir
from app.dev import secrets
from app.services.identity import client_admin
from app.services.identity.client import Client
from app.services.identity.client_admin import GRANTS, LONGEST_OVERLAP
from app.services.identity.client_store import ClientStore
from app.settings import Settings

_HOUR, _DAY = 3_600, 86_400

Id = Annotated[str, typer.Argument(metavar="ID", help="Its client_id.")]


def register(mesh: typer.Typer) -> None:
    client = typer.Typer(
        help="Which programs may ask for tokens: added, listed, given another secret.", no_args_is_help=True
    )
    client.command("add")(add)
    client.command("list")(show)
    client.command("rotate")(rotate)
    mesh.add_typer(client, name="client")


def add(
    client_id: Id,
    *,
    scope: Annotated[
        list[str] | None, typer.Option(metavar="SCOPES", help='As in "users:read orders:write"; may be repeated.')
    ] = None,
    grant: Annotated[
        list[str] | None, typer.Option(metavar="GRANT", help=f"{', '.join(GRANTS)}; may be repeated.")
    ] = None,
    redirect_uri: Annotated[
        list[str] | None, typer.Option(metavar="URI", help="Where people come back to; may be repeated.")
    ] = None,
    audience: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Whom its tokens may be for; may be repeated [default: the public API]."),
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="It cannot keep a secret, and gets none.")] = False,
    trusted: Annotated[
        bool, typer.Option("--trusted", help="One of our own, as each service is: nobody is asked for consent.")
    ] = False,
    name: Annotated[str | None, typer.Option(help="What people see of it [default: ID].")] = None,
    data_dir: DataDir = None,
) -> None:
    """Register a program, and print its secret, once.

    Its grant is client_credentials, or with --public authorization_code and refresh_token.
    """
    settings = identity.settings_for(data_dir)
    issued = identity.run(
        settings,
        lambda database: client_admin.add_client(
            database,
            client_id,
            audiences=audience or (settings.auth.audience,),
            name=name,
            scope=[word for words in scope or () for word in words.split()],
            grants=grant or (),
            redirect_uris=redirect_uri or (),
            public=public,
            trusted=trusted,
        ),
    )
    typer.echo(f"{client_id} is added{'; it has no secret' if public else ', with this secret:'}", err=not public)
    if issued.secret is not None:
        typer.echo(issued.secret)


def show(*, data_dir: DataDir = None) -> None:
    """List the programs that may ask for tokens."""
    settings = identity.settings_for(data_dir)
    found = identity.run(settings, lambda database: ClientStore(database).every())
    terminal.print_table(("CLIENT", "NAME", "PROOF", "GRANTS", "AUDIENCES", "SCOPES", "NOTE"), [_row(c) for c in found])


def rotate(
    client_id: Id,
    *,
    overlap: Annotated[
        int,
        typer.Option(min=0, max=LONGEST_OVERLAP.days * _DAY, metavar="SECONDS", help="How long the old one counts."),
    ] = _HOUR,
    data_dir: DataDir = None,
) -> None:
    """Give a program another secret, and print it, once. The old one counts for the overlap."""
    settings = identity.settings_for(data_dir)
    in_demo = _is_of_demo(settings, client_id)
    issued = identity.run(
        settings,
        lambda database: client_admin.rotate_secret(database, client_id, timedelta(seconds=overlap), in_demo=in_demo),
    )
    # Whoever is started from now on gets the new one: `mesh rollout` hands it out. Not if it is another database's.
    if in_demo and issued.client.demo and issued.secret is not None:
        secrets.replace_client(settings.secrets_file, client_id, issued.secret)
    typer.echo(f"The old secret of {client_id} counts until {issued.old_until:%F %T} UTC; the new one:", err=True)
    typer.echo(issued.secret)


def _is_of_demo(settings: Settings, client_id: str) -> bool:
    known = None if settings.env == "production" else secrets.read(settings.secrets_file)
    return known is not None and client_id in known.clients


def _row(client: Client) -> tuple[str, ...]:
    names = {grant: name for name, grant in GRANTS.items()}
    notes = [word for word, holds in (("trusted", client.trusted), ("demo", client.demo)) if holds]
    return (
        client.client_id,
        client.name,
        client.auth_method,
        " ".join(names.get(grant, grant) for grant in client.grant_types) or "-",
        " ".join(client.audiences) or "-",
        " ".join(client.scopes) or "-",
        " ".join(notes) or "-",
    )
