"""A client in its own name: by secret, or by signed assertion."""

from __future__ import annotations

import base64
import hmac
import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey

from app.services.identity.client import CLIENT_CREDENTIALS, Client, digest
from tests.services.identity.parties import ISSUER, SECRETS, Identity, Json

OWN = {"grant_type": "client_credentials"}
KEY = ECKey.generate_key("P-256", auto_kid=True)
ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


async def test_a_client_gets_a_token_for_one_service(identity: Identity) -> None:
    answer = await identity.ask(OWN | {"audience": "inventory", "scope": "inventory:read"}, client="orders")
    assert set(answer) == {"access_token", "token_type", "expires_in", "scope"}
    claims = await identity.claims(answer["access_token"])
    assert claims == {
        "iss": ISSUER, "sub": "orders", "client_id": "orders", "aud": "inventory", "scope": "inventory:read",
        "jti": claims["jti"], "iat": claims["iat"], "exp": claims["iat"] + 600,
    }  # fmt: skip


async def test_without_a_wish_a_client_gets_all_it_is_registered_for(identity: Identity) -> None:
    answer = await identity.ask(OWN, client="demo-client")
    assert "inventory:read" in answer["scope"]
    assert "inventory:reserve" not in answer["scope"]
    assert (await identity.claims(answer["access_token"]))["aud"] == "mesh"
    resource = await identity.ask(OWN | {"resource": "inventory"}, client="orders")
    assert (await identity.claims(resource["access_token"]))["aud"] == "inventory"


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"scope": "inventory:reserve"}, "invalid_scope"),
        ({"scope": "nonsense"}, "invalid_scope"),
        ({"scope": "openid"}, "invalid_scope"),
        ({"audience": "inventory"}, "invalid_target"),
        ({"audience": ["mesh", "inventory"]}, "invalid_target"),
        ({"audience": "mesh", "resource": "inventory"}, "invalid_target"),
        ({"grant_type": "authorization_code"}, "unauthorized_client"),
    ],
)
async def test_a_client_gets_no_more_than_it_is_registered_for(
    identity: Identity, changes: dict[str, Any], error: str
) -> None:
    assert await identity.refused(OWN | changes, client="demo-client") == error


NOBODY: list[dict[str, Any]] = [
    {"auth": ("demo-client", "wrong")},
    {"auth": ("nobody", "wrong")},
    {"auth": ("demo-web", "")},
    {"auth": ("\0", "\0")},
    {"headers": {"authorization": "Basic \u00fc".encode("latin-1")}},
    {"headers": {"authorization": "Basic /w=="}},
    {"headers": {"authorization": "Bearer x"}},
    {},
]


async def test_who_cannot_be_authenticated_hears_nothing_else(identity: Identity, subtests: pytest.Subtests) -> None:
    for options in NOBODY:
        with subtests.test(**options):
            assert await identity.refused(OWN, status=401, **options) == "invalid_client"


async def test_a_secret_goes_where_it_is_registered_to_go(identity: Identity) -> None:
    form = OWN | {"client_id": "demo-client", "client_secret": SECRETS["demo-client"]}
    assert await identity.refused(form, status=401) == "invalid_client"
    poster = await add(identity, auth_method="client_secret_post", secret_digest=digest("s3cret"))
    await identity.ask(OWN | {"client_id": poster.client_id, "client_secret": "s3cret"})
    wrong = OWN | {"client_id": poster.client_id, "client_secret": "secret"}
    assert await identity.refused(wrong, status=401) == "invalid_client"


async def test_a_public_client_has_nothing_in_its_own_name(identity: Identity) -> None:
    assert await identity.refused(OWN | {"client_id": "demo-web"}, status=401) == "invalid_client"


async def test_while_a_secret_is_rotated_both_count(identity: Identity) -> None:
    now = datetime.now(UTC)
    assert await identity.clients.rotate_secret("orders", digest("new"), until=now + timedelta(hours=1))
    form = OWN | {"audience": "inventory"}
    await identity.ask(form, client="orders")
    await identity.ask(form, auth=("orders", "new"))
    assert await identity.clients.rotate_secret("orders", digest("newer"), until=now)
    assert await identity.refused(form, status=401, auth=("orders", "new")) == "invalid_client"
    assert not await identity.clients.rotate_secret("nobody", digest("new"), until=now)


# private_key_jwt


async def add(identity: Identity, **changes: Any) -> Client:
    fields: dict[str, Any] = {
        "client_id": "reports",
        "name": "Reports",
        "grant_types": (CLIENT_CREDENTIALS,),
        "scopes": ("orders:read",),
        "audiences": ("mesh",),
    }
    client = Client(**(fields | changes))
    assert await identity.clients.add(client, now=datetime.now(UTC))
    return client


async def add_signer(identity: Identity) -> None:
    jwks = json.dumps({"keys": [KEY.as_dict(private=False)]})
    await add(identity, auth_method="private_key_jwt", jwks=jwks)


def claims(**changes: Any) -> Json:
    now = int(time.time())
    made = {
        "iss": "reports",
        "sub": "reports",
        "aud": f"{ISSUER}/oauth/token",
        "exp": now + 60,
        "iat": now,
        "jti": "one",
    }
    return {name: value for name, value in (made | changes).items() if value is not None}


def proof(assertion: str, **changes: Any) -> Json:
    return OWN | {"client_assertion_type": ASSERTION, "client_assertion": assertion} | changes


def signed(**changes: Any) -> str:
    return jwt.encode({"alg": "ES256", "kid": KEY.kid}, claims(**changes), KEY)


def encoded(header: Json) -> str:
    return base64url(json.dumps(header).encode())


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


async def test_an_assertion_proves_once_who_the_client_is(identity: Identity) -> None:
    await add_signer(identity)
    assertion = signed()
    answer = await identity.ask(proof(assertion))
    assert (await identity.claims(answer["access_token"]))["sub"] == "reports"
    assert await identity.refused(proof(assertion), status=401) == "invalid_client"
    await identity.ask(proof(signed(jti="two", aud=ISSUER), client_id="reports"))


WRONG_ASSERTIONS: list[Json] = [
    {"aud": "https://another.example/oauth/token"},
    {"aud": None},
    {"iss": "orders"},
    {"iss": None},
    {"sub": "orders"},
    {"sub": 7},
    {"exp": int(time.time()) - 120},
    {"exp": int(time.time()) + 100_000},
    {"exp": None},
    {"exp": 10**20},
    {"exp": 1e400},
    {"exp": True},
    {"sub": "\0"},
    {"exp": "soon"},
    {"jti": None},
    {"jti": 7},
    {"nbf": int(time.time()) + 100_000},
]


async def test_an_assertion_that_is_not_all_right_proves_nothing(identity: Identity, subtests: pytest.Subtests) -> None:
    await add_signer(identity)
    for changes in WRONG_ASSERTIONS:
        with subtests.test(**changes):
            assert await identity.refused(proof(signed(**changes)), status=401) == "invalid_client"


async def test_an_assertion_is_signed_by_the_clients_key_alone(identity: Identity) -> None:
    await add_signer(identity)
    header, body, signature = signed().split(".")
    other = jwt.encode({"alg": "ES256", "kid": KEY.kid}, claims(), ECKey.generate_key("P-256"))
    none = f"{encoded({'alg': 'none'})}.{body}."
    # Signed with the public key, as if that were a secret.
    start = f"{encoded({'alg': 'HS256', 'kid': KEY.kid})}.{body}"
    mac = hmac.digest(KEY.as_pem(private=False), start.encode(), "sha256")
    for forged in (
        none,
        f"{start}.{base64url(mac)}",
        other,
        f"{header}.{body}.",
        f"{header}.{body}",
        "",
        "x",
        f"{header}.{signature}.{body}",
    ):
        assert await identity.refused(proof(forged), status=401) == "invalid_client", forged
    assert await identity.refused(proof(signed(), client_id="orders"), status=401) == "invalid_client"
    assert await identity.refused(proof(signed(jti="x"), client_assertion_type="x"), status=401) == "invalid_client"
