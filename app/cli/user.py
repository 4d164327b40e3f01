"""``mesh user``: who can log in."""

from __future__ import annotations

import asyncio
import secrets
import sys
import time
from collections.abc import Mapping
from typing import Annotated

import typer

from app.cli import identity, running, terminal
from app.cli.running import DataDir, System
from app.errors import InvalidInput, Unavailable
from app.mesh.coordination import Board, open_line
from app.mesh.keys import Keys
from app.resources import REVOKED_SESSIONS
from app.services.identity import admin
from app.services.identity.account_store import AccountStore
from app.services.identity.alongside import longest_life

_REDIS_SECONDS = 2.0

Name = Annotated[str, typer.Argument(metavar="NAME", help="What is typed into the login form.")]


def register(mesh: typer.Typer) -> None:
    user = typer.Typer(help="Who can log in: added, listed, disabled.", no_args_is_help=True)
    user.command("add")(add)
    user.command("list")(show)
    user.command("disable")(disable)
    mesh.add_typer(user, name="user")


def add(
    username: Name,
    *,
    role: Annotated[list[str] | None, typer.Option(metavar="ROLE", help="As in admin; may be repeated.")] = None,
    email: Annotated[str, typer.Option(help="Their e-mail address.")] = "",
    subject: Annotated[
        str | None, typer.Option(help="What tokens call them: their id in users [default: a random one].")
    ] = None,
    name: Annotated[str | None, typer.Option(help="What people call them [default: NAME].")] = None,
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="The password is the first line of the input.")
    ] = False,
    generate: Annotated[bool, typer.Option("--generate", help="Make a password, and print it, once.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Add somebody who can log in. The password is asked for, unless an option says where it comes from."""
    settings = identity.settings_for(data_dir)
    password = _password(from_stdin=password_stdin, generate=generate)
    account = identity.run(
        settings,
        lambda database: admin.add_account(
            database, username, password, name=name, email=email, roles=role or (), subject=subject
        ),
    )
    typer.echo(f"{account.username} is added, with the subject {account.subject}.", err=generate)
    if generate:
        typer.echo(password)


def show(*, data_dir: DataDir = None) -> None:
    """List who can log in, and who could."""
    settings = identity.settings_for(data_dir)
    found = identity.run(settings, lambda database: AccountStore(database).every())
    rows = [
        (a.username, a.subject, a.name, a.email or "-", " ".join(a.roles) or "-", "disabled" if a.disabled else "-")
        for a in found
    ]
    terminal.print_table(("USER", "SUBJECT", "NAME", "E-MAIL", "ROLES", "STATE"), rows)


def disable(username: Name, *, data_dir: DataDir = None) -> None:
    """Let somebody log in no more. Where a system runs, their tokens count no longer at once; else until they expire."""
    settings = identity.settings_for(data_dir)
    ended = identity.run(settings, lambda database: admin.disable_account(database, username))
    life = longest_life(settings).total_seconds()
    told = _tell(dict.fromkeys(ended, time.time() + life), data_dir)
    rest = "none of their tokens counts" if told else f"a token that they have may count for another {life:.0f} s"
    typer.echo(f"{username} is disabled: {rest}.")


def _password(*, from_stdin: bool, generate: bool) -> str:
    if from_stdin and generate:
        raise InvalidInput("Either --password-stdin or --generate")
    if generate:
        return secrets.token_urlsafe(18)
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise InvalidInput("There is nobody to ask for a password: give --password-stdin, or --generate")
    return str(typer.prompt("Password", hide_input=True, confirmation_prompt="Once more", err=True))


def _tell(ended: Mapping[str, float], data_dir: DataDir) -> bool:
    """Have every process of the running system hear which sessions have ended; False if there is none to be told."""
    if not ended:
        return True
    try:
        system = running.find(data_dir)
    except Unavailable:
        return False
    return asyncio.run(_post(ended, system))


async def _post(ended: Mapping[str, float], system: System) -> bool:
    keys = Keys(system.settings.registry.namespace)
    async with open_line(system.redis_url, timeout_seconds=_REDIS_SECONDS) as line:
        board = Board(REVOKED_SESSIONS, line=line, keys=keys)
        try:
            return await board.post(ended)
        finally:
            await board.aclose()
