"""Gets the token that a command is to print or to carry."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from app.dev import login, secrets
from app.errors import InvalidInput
from app.settings import Settings

DEFAULT_USER = "user7"
# RFC 6749, 3.3: words between single spaces.
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+(?: [\x21\x23-\x5b\x5d-\x7e]+)*")
_NAME = re.compile(r"[\x21-\x7e]{1,200}")


@dataclass(frozen=True, slots=True)
class Wish:
    """What the token is to allow, and whom it is for; None for what the issuer does by itself.

    Raises:
        InvalidInput: it is not written as scopes and audiences are.
    """

    scope: str | None = None
    audience: str | None = None

    def __post_init__(self) -> None:
        if self.scope is not None and not _SCOPE.fullmatch(self.scope):
            raise InvalidInput('--scope: words between spaces, as in "users:read orders:write"')
        if self.audience is not None and not _NAME.fullmatch(self.audience):
            raise InvalidInput("--audience: one word, as in inventory")


def of_user(settings: Settings, username: str, wish: Wish, *, password: str | None = None) -> str:
    """A user's token, after a login with `password` (default: the demo's).

    Raises:
        InvalidInput: no password of that user is known.
        What `login.user_token` raises.
    """
    known = secrets.read(settings.secrets_file)
    accounts: Mapping[str, str] = {} if known is None else known.accounts
    if password is None and username not in accounts:
        raise InvalidInput(f"The password of {username!r} is not known: {_those(accounts)}; or give --password-stdin")
    return login.user_token(
        settings.auth.issuer, username, password or accounts[username], scope=wish.scope, audience=wish.audience
    )


def of_client(settings: Settings, client_id: str, wish: Wish) -> str:
    """A client's token; its secret is MESH_AUTH__CLIENT_SECRET, else the demo's.

    Raises:
        InvalidInput: no secret of that client is known.
        What `login.client_token` raises.
    """
    secret = _secret_of(settings, client_id)
    return login.client_token(settings.auth.issuer, client_id, secret, scope=wish.scope, audience=wish.audience)


def _secret_of(settings: Settings, client_id: str) -> str:
    if settings.auth.client_secret is not None:
        return settings.auth.client_secret.get_secret_value()
    known = secrets.read(settings.secrets_file)
    clients: Mapping[str, str] = {} if known is None else known.clients
    if client_id not in clients:
        raise InvalidInput(
            f"The secret of {client_id!r} is not known: {_those(clients)}; or set MESH_AUTH__CLIENT_SECRET"
        )
    return clients[client_id]


def _those(names: Iterable[str]) -> str:
    found = ", ".join(names)
    return f"the demo's are {found}" if found else "there is no demo here"
