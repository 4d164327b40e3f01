"""Who takes part: a running identity service, its demo clients and accounts, and what they say to each other."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
from flask import Response, request
from joserfc import jwt
from joserfc.jwk import KeySet

from app.auth import public
from app.data import Database
from app.services.identity import algorithms, authorize, demo, repository
from app.services.identity.account_store import AccountStore
from app.services.identity.accounts import Account, Session
from app.services.identity.authorization import Code
from app.services.identity.authorize import Refused
from app.services.identity.client import DEVICE_CODE, TOKEN_EXCHANGE, digest, new_secret
from app.services.identity.client_store import ClientStore
from app.services.identity.token_store import TokenStore
from app.web.views import guarding
from tests.services.conftest import Running

ISSUER = "http://127.0.0.1:8000"
CALLBACK = "http://127.0.0.1:54321/callback"
SECRETS = {name: f"secret of {name}, +%:/" for name in ("users", "orders", "inventory", "demo-client")}
VERIFIER = "a" * 43
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
LOGGED_IN_AT = datetime(2026, 11, 28, 10, tzinfo=UTC)

Json = dict[str, Any]


async def populate(database: Database) -> dict[str, Account]:
    """The demo's clients; the accounts admin and user7, whose passwords do not matter here."""
    await demo.seed_with(database, accounts={}, clients=SECRETS, issuer=ISSUER)
    store = AccountStore(database)
    people = {}
    for username, subject, roles in (("admin", "admin", ("admin",)), ("user7", "7", ())):
        people[username] = await store.add(
            subject=subject,
            username=username,
            name=username.capitalize(),
            email=f"{username}@example.com",
            password_hash="-",
            roles=roles,
            created_at=LOGGED_IN_AT,
        )
    return people


def add_page(running: Running) -> None:
    """A page in the place of the real one: whoever is named is logged in, and says yes unless told otherwise."""

    async def page() -> Response:
        name = request.headers.get("x-user")
        account = None if name is None else await repository.accounts.find_by_username(name)
        try:
            asked = await authorize.inspect(account)
        except Refused as refused:
            return refused.response
        if account is None:
            return Response(f"log in, {asked.prompt}, {asked.max_age}", 401)
        if "x-deny" in request.headers:
            return await authorize.answer(None, None)
        now = datetime.now(UTC)
        return await authorize.answer(account, Session("5" * 64, account, LOGGED_IN_AT, now + timedelta(hours=1)))

    app = running.process.flask
    app.add_url_rule("/test/authorize", "test_authorize", public(page))
    app.rules = guarding.rules_of(app, running.process.service)


def query_of(location: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(location).query))


@dataclass(frozen=True)
class Identity:
    """A running identity service, asked as its clients ask it."""

    running: Running
    people: dict[str, Account]

    @property
    def database(self) -> Database:
        return self.running.database

    @property
    def tokens(self) -> TokenStore:
        return TokenStore(self.database)

    @property
    def clients(self) -> ClientStore:
        return ClientStore(self.database)

    async def post(self, path: str, form: Json, *, client: str | None = None, **options: Any) -> httpx.Response:
        """Args: client: authenticates with its secret (Basic)."""
        if client is not None:
            options["auth"] = (client, SECRETS[client].replace("%", "%25").replace("+", "%2B"))
        return await self.running.client.post(path, data=form, **options)

    async def ask(self, form: Json, *, client: str | None = None, path: str = "/oauth/token", **options: Any) -> Json:
        """The answer to a request that is granted."""
        answer = await self.post(path, form, client=client, **options)
        assert answer.status_code == 200, answer.text
        assert answer.headers["cache-control"] == "no-store"
        found: Json = answer.json()
        return found

    async def refused(
        self, form: Json, *, client: str | None = None, path: str = "/oauth/token", status: int = 400, **options: Any
    ) -> str:
        """The error of a request that is refused."""
        answer = await self.post(path, form, client=client, **options)
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["cache-control"] == "no-store"
        assert set(answer.json()) <= {"error", "error_description"}
        assert ("www-authenticate" in answer.headers) == (status == 401)
        error: str = answer.json()["error"]
        return error

    # Authorization codes

    async def code(self, **changes: Any) -> str:
        """A code, as after a login and a consent."""
        secret, now = new_secret(), datetime.now(UTC)
        code = Code(
            digest=digest(secret),
            sid=new_secret()[:32],
            client_id="demo-web",
            account_id=self.people["user7"].id,
            session_digest="5" * 64,
            redirect_uri=CALLBACK,
            scope="openid orders:read",
            audience="mesh",
            nonce="n-1",
            challenge=CHALLENGE,
            auth_time=LOGGED_IN_AT,
            expires_at=now + timedelta(minutes=1),
        )
        await self.tokens.add_code(replace(code, **changes))
        return secret

    async def login(self, **changes: Any) -> Json:
        """The tokens that a code is good for."""
        return await self.ask(redemption(await self.code(**changes)))

    async def admin_login(self, scope: str) -> Json:
        return await self.login(account_id=self.people["admin"].id, scope=scope)

    async def authorize(self, *, user: str | None = "user7", deny: bool = False, **query: Any) -> httpx.Response:
        headers = {} if user is None else {"x-user": user}
        headers |= {"x-deny": "1"} if deny else {}
        found = {name: value for name, value in (wish() | query).items() if value is not None}
        return await self.running.client.get("/test/authorize", params=found, headers=headers)

    # Reading tokens

    async def claims(self, token: str, *, kind: str = "at+jwt") -> Json:
        keys = (await self.running.client.get("/oauth/jwks")).json()
        decoded = jwt.decode(token, KeySet.import_key_set(keys), ["ES256", "EdDSA"], registry=algorithms.own)
        assert decoded.header["typ"] == kind
        return decoded.claims

    async def is_active(self, token: str, *, client: str = "orders") -> bool:
        found = await self.ask({"token": token}, client=client, path="/oauth/introspect")
        assert found["active"] or found == {"active": False}
        return bool(found["active"])


def wish() -> Json:
    """The parameters of an authorization request that is all right."""
    return {
        "response_type": "code",
        "client_id": "demo-web",
        "redirect_uri": CALLBACK,
        "scope": "openid orders:read",
        "state": "xyz",
        "nonce": "n-1",
        "code_challenge": CHALLENGE,
        "code_challenge_method": "S256",
    }


def redemption(code: str, /, **changes: Any) -> Json:
    form = {
        "grant_type": "authorization_code",
        "client_id": "demo-web",
        "code": code,
        "redirect_uri": CALLBACK,
        "code_verifier": VERIFIER,
    }
    return {name: value for name, value in (form | changes).items() if value is not None}


def refreshing(token: str, /, **changes: Any) -> Json:
    return {"grant_type": "refresh_token", "client_id": "demo-web", "refresh_token": token} | changes


def exchanging(token: str, /, **changes: Any) -> Json:
    form = {
        "grant_type": TOKEN_EXCHANGE,
        "audience": "inventory",
        "subject_token": token,
        "subject_token_type": ACCESS_TOKEN,
    }
    return {name: value for name, value in (form | changes).items() if value is not None}


def polling(device_code: str, /, **changes: Any) -> Json:
    return {"grant_type": DEVICE_CODE, "client_id": "demo-device", "device_code": device_code} | changes
