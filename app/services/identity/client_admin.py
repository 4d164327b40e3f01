"""What an administrator does to clients from the command line. A secret is told once, to who has asked for it."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from app.data import Database
from app.errors import Conflict, InvalidInput, Misconfigured, NotFound
from app.services.identity import client_auth, scopes
from app.services.identity.account_store import AccountStore
from app.services.identity.client import (
    AUTHORIZATION_CODE,
    CLIENT_CREDENTIALS,
    DEVICE_CODE,
    PUBLIC,
    REFRESH_TOKEN,
    TOKEN_EXCHANGE,
    Client,
    digest,
    may_be_redirect_uri,
    new_secret,
)
from app.services.identity.client_store import ClientStore
from app.services.identity.journal import Audit

# How they are called by who types them; the whole name will do, too.
GRANTS = {
    "authorization_code": AUTHORIZATION_CODE,
    "refresh_token": REFRESH_TOKEN,
    "client_credentials": CLIENT_CREDENTIALS,
    "device_code": DEVICE_CODE,
    "token_exchange": TOKEN_EXCHANGE,
}
_NEED_A_SECRET = frozenset({CLIENT_CREDENTIALS, TOKEN_EXCHANGE})

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# RFC 6749, 3.3
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,100}")
_AUDIENCE = re.compile(r"[\x21-\x7e]{1,200}")
_LONGEST_NAME = 100
# As long as the columns are.
_LONGEST_SCOPES = _LONGEST_AUDIENCES = 1000
LONGEST_OVERLAP = timedelta(days=90)


@dataclass(frozen=True, slots=True)
class Issued:
    """A client with the secret that nobody will see again; None for a public client.

    Args:
        old_until: until when the secret before it counts; None if there was none.
    """

    client: Client
    secret: str | None
    old_until: datetime | None = None

    def __repr__(self) -> str:
        return f"<Issued {self.client.client_id}>"


async def add_client(
    database: Database,
    client_id: str,
    *,
    audiences: Sequence[str],
    name: str | None = None,
    scope: Sequence[str] = (),
    grants: Sequence[str] = (),
    redirect_uris: Sequence[str] = (),
    public: bool = False,
    trusted: bool = False,
) -> Issued:
    """Register a client.

    Args:
        audiences: whom its tokens may be for, the usual one first.
        scope: what it may ask for.
        grants: keys of `GRANTS`; by default authorization code and refresh for a public client, else client
            credentials.
        public: it cannot keep a secret, and has none.
        trusted: one of our own, for which nobody is asked for consent.

    Raises:
        InvalidInput: says which argument breaks a rule.
        Conflict: there is a client of this id.
    """
    secret = None if public else new_secret()
    client = Client(
        client_id=client_id,
        name=client_id if name is None else name,
        auth_method=PUBLIC if public else client_auth.BASIC,
        grant_types=_grants(grants, public=public),
        scopes=tuple(dict.fromkeys(scope)),
        audiences=tuple(dict.fromkeys(audiences)),
        redirect_uris=tuple(dict.fromkeys(redirect_uris)),
        secret_digest=None if secret is None else digest(secret),
        trusted=trusted,
    )
    _check(client)
    if not await ClientStore(database).add(client, now=datetime.now(UTC)):
        raise Conflict(f"There is a client {client_id} already")
    await _audit(database).record("client_created", client_id=client_id, detail=f"scopes: {scopes.text(client.scopes)}")
    return Issued(client, secret)


async def rotate_secret(database: Database, client_id: str, overlap: timedelta, *, in_demo: bool = False) -> Issued:
    """Give a client another secret.

    Args:
        overlap: how long the one before still counts. A secret of the demo counts no longer once the client leaves it.
        in_demo: the new one will be the demo's.

    Raises:
        InvalidInput: the client has no secret, or the overlap is none.
        NotFound: there is no such client.
    """
    if not timedelta(0) <= overlap <= LONGEST_OVERLAP:
        raise InvalidInput(f"The overlap is from 0 to {LONGEST_OVERLAP.total_seconds():.0f} seconds")
    store = ClientStore(database)
    client = await store.find(client_id) if _ID.fullmatch(client_id) else None
    if client is None:
        raise NotFound(f"There is no client {client_id!r}; `mesh client list` lists them")
    if client.secret_digest is None:
        raise InvalidInput(f"The client {client_id} has no secret")
    secret, now = new_secret(), datetime.now(UTC)
    leaves_demo = client.demo and not in_demo
    until = now if leaves_demo else now + overlap
    await store.rotate_secret(client_id, digest(secret), until=until, demo=client.demo and in_demo)
    await _audit(database).record("secret_rotated", client_id=client_id, detail=f"the old one until {until:%FT%TZ}")
    return Issued(client, secret, until)


async def refuse_demo(database: Database) -> None:
    """Raises: Misconfigured: clients are there whose secrets are the demo's."""
    found = await ClientStore(database).of_demo()
    if found:
        raise Misconfigured(
            f"Not in production: identity's database holds clients of the demo ({', '.join(found)}); "
            "production has a database of its own"
        )


def _audit(database: Database) -> Audit:
    return Audit(AccountStore(database))


def _grants(words: Sequence[str], *, public: bool) -> tuple[str, ...]:
    if not words:
        return (AUTHORIZATION_CODE, REFRESH_TOKEN) if public else (CLIENT_CREDENTIALS,)
    unknown = [word for word in words if word not in GRANTS and word not in GRANTS.values()]
    if unknown:
        raise InvalidInput(f"No grant {unknown[0]!r}; there are: {', '.join(GRANTS)}")
    return tuple(dict.fromkeys(GRANTS.get(word, word) for word in words))


def _check(client: Client) -> None:
    """Raises: InvalidInput."""
    if not _ID.fullmatch(client.client_id):
        raise InvalidInput("A client's id has 1 to 64 letters, digits, dots, underscores and hyphens")
    if not client.name or len(client.name) > _LONGEST_NAME or not client.name.isprintable():
        raise InvalidInput(f"A client's name has 1 to {_LONGEST_NAME} printable characters")
    _check_words("scope", client.scopes, _SCOPE, _LONGEST_SCOPES)
    _check_words("audience", client.audiences, _AUDIENCE, _LONGEST_AUDIENCES)
    if not client.audiences:
        raise InvalidInput("A client needs an audience")
    _check_grants(client)


def _check_words(what: str, words: Collection[str], shape: re.Pattern[str], longest: int) -> None:
    wrong = [word for word in words if not shape.fullmatch(word)]
    if wrong:
        raise InvalidInput(f"{wrong[0]!r} is no {what}")
    if len(" ".join(words)) > longest:
        raise InvalidInput(f"There are too many {what}s: {longest} characters at most")


def _check_grants(client: Client) -> None:
    if client.is_public and not _NEED_A_SECRET.isdisjoint(client.grant_types):
        raise InvalidInput("A public client has no secret, so it gets no token of its own or in exchange")
    wrong = [uri for uri in client.redirect_uris if not may_be_redirect_uri(uri)]
    if wrong:
        raise InvalidInput(f"{wrong[0]!r}: a redirect URI is https, loopback, or of a scheme like com.example.app")
    if (AUTHORIZATION_CODE in client.grant_types) != bool(client.redirect_uris):
        raise InvalidInput("The authorization code needs a redirect URI, and nothing else does")
