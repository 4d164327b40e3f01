"""OAuth clients that others have written, Authlib's and requests-oauthlib, against a whole system, through its edge."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl, urljoin, urlsplit

import httpx
import pytest
import requests
from authlib.integrations.base_client import OAuthError
from authlib.integrations.requests_client import OAuth2Session as AuthlibSession
from joserfc import jwt
from joserfc.jwk import KeySet
from requests_oauthlib import OAuth2Session

from app.dev import secrets
from tests.dev.system import System, until
from tests.services.identity.browser import Reader

pytestmark = pytest.mark.timeout(180)

CALLBACK = "http://127.0.0.1:8765/callback"
SCOPE = ["openid", "profile", "email", "users:read", "orders:read", "orders:write"]
DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    system = System(tmp_path_factory.mktemp("clients") / "data")
    try:
        started = system.up_detached()
        assert started.returncode == 0, started.stderr
        yield system
    finally:
        system.stop()


@pytest.fixture(autouse=True)
def plain_http(monkeypatch: pytest.MonkeyPatch) -> None:
    """oauthlib speaks to loopback without TLS only if it is told to."""
    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")


def secret_of(system: System, client_id: str) -> str:
    found = secrets.read(system.data_dir / "secrets.json")
    assert found is not None
    return found.clients[client_id]


class Person:
    """Somebody at a browser, which keeps cookies and follows links and forms; no JavaScript."""

    def __init__(self, system: System, username: str = "user7") -> None:
        found = secrets.read(system.data_dir / "secrets.json")
        assert found is not None
        self.username, self.password = username, found.accounts[username]
        self.session = requests.Session()

    def follow(self, url: str, **filled: str) -> str:
        """Open `url`, fill in what is asked for until one is sent away from there, and return where to."""
        answer = self.session.get(url, allow_redirects=False)
        for _ in range(10):
            if answer.is_redirect or answer.status_code == 303:
                there = urljoin(answer.url, answer.headers["location"])
                if urlsplit(there).netloc != urlsplit(url).netloc:
                    return there
                answer = self.session.get(there, allow_redirects=False)
                continue
            assert answer.status_code == 200, answer.text
            forms = Reader(answer.text).forms
            if not forms:
                return answer.url
            (form,) = forms
            data = form.fields | {name: value for name, value in self._known(filled).items() if name in form.fields}
            data |= dict(form.buttons[:1])
            answer = self.session.post(urljoin(answer.url, form.action), data=data, allow_redirects=False)
        raise AssertionError("it never ends")

    def _known(self, filled: dict[str, str]) -> dict[str, str]:
        return {"username": self.username, "password": self.password} | filled


def metadata(system: System) -> dict[str, Any]:
    found: dict[str, Any] = requests.get(f"{system.url}/.well-known/openid-configuration", timeout=10).json()
    assert found["issuer"] == system.url
    return found


def keys(system: System) -> KeySet:
    return KeySet.import_key_set(requests.get(metadata(system)["jwks_uri"], timeout=10).json())


def claims(token: str) -> dict[str, Any]:
    part = token.split(".")[1]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return found


def test_requests_oauthlib_gets_a_code_tokens_and_new_ones(running: System) -> None:
    known = metadata(running)
    client = OAuth2Session("demo-web", redirect_uri=CALLBACK, scope=SCOPE, pkce="S256")
    url, state = client.authorization_url(known["authorization_endpoint"], nonce="a nonce")
    back = Person(running).follow(url)
    query = dict(parse_qsl(urlsplit(back).query))
    assert (query["state"], query["iss"]) == (state, running.url)
    token = client.fetch_token(known["token_endpoint"], authorization_response=back, include_client_id=True)
    assert client.get(f"{running.url}/users/7").json()["email"] == "user7@example.com"
    assert client.get(f"{running.url}/users/8").json() == {"id": 8, "name": "User8"}
    assert client.get(known["userinfo_endpoint"]).json()["preferred_username"] == "user7"
    identity = jwt.decode(token["id_token"], keys(running), algorithms=["ES256"]).claims
    assert (identity["sub"], identity["aud"], identity["nonce"]) == ("7", "demo-web", "a nonce")
    assert identity["exp"] > time.time()
    before = dict(token)
    after = client.refresh_token(known["token_endpoint"], client_id="demo-web")
    assert after["refresh_token"] != before["refresh_token"]
    assert client.get(f"{running.url}/orders").status_code == 200


def test_authlibs_client_does_the_same_and_revokes(running: System) -> None:
    known = metadata(running)
    with AuthlibSession(
        "demo-web", redirect_uri=CALLBACK, scope=" ".join(SCOPE), code_challenge_method="S256",
        token_endpoint_auth_method="none",
    ) as client:  # fmt: skip
        verifier = "v" * 64
        url, _ = client.create_authorization_url(known["authorization_endpoint"], code_verifier=verifier)
        token = client.fetch_token(
            known["token_endpoint"], authorization_response=Person(running).follow(url), code_verifier=verifier
        )
        orders = f"{running.url}/orders"
        assert client.get(orders).status_code == 200
        client.revoke_token(known["revocation_endpoint"], token["refresh_token"], token_type_hint="refresh_token")
        # Everywhere, and long before the access token has expired.
        until("every service has heard", lambda: client.get(orders).status_code == 401)


def own_session(client_id: str, secret: str, *, method: str) -> AuthlibSession:
    return AuthlibSession(client_id, secret, token_endpoint_auth_method=method, scope="orders:admin")


def test_authlibs_client_speaks_for_itself(running: System) -> None:
    known = metadata(running)
    secret = secret_of(running, "demo-client")
    with own_session("demo-client", secret, method="client_secret_basic") as client:
        token = client.fetch_token(known["token_endpoint"], grant_type="client_credentials")
        assert (token["scope"], claims(token["access_token"])["sub"]) == ("orders:admin", "demo-client")
        assert client.get(f"{running.url}/orders").status_code == 200
        assert client.get(f"{running.url}/users").status_code == 403
        told = client.introspect_token(known["introspection_endpoint"], token["access_token"]).json()
        assert (told["active"], told["client_id"]) == (True, "demo-client")


def test_a_client_is_registered_for_one_proof_and_no_other_will_do(running: System) -> None:
    secret = secret_of(running, "demo-client")
    with (
        own_session("demo-client", secret, method="client_secret_post") as client,
        pytest.raises(OAuthError, match="invalid_client"),
    ):
        client.fetch_token(metadata(running)["token_endpoint"], grant_type="client_credentials")


def test_a_logout_holds_everywhere(running: System) -> None:
    known, person = metadata(running), Person(running)
    client = OAuth2Session("demo-web", redirect_uri=CALLBACK, scope=SCOPE, pkce="S256")
    url, _ = client.authorization_url(known["authorization_endpoint"])
    token = client.fetch_token(
        known["token_endpoint"], authorization_response=person.follow(url), include_client_id=True
    )
    places = [f"{process.url}/orders" for process in running.state().processes if process.service == "orders"]
    places.append(f"{running.url}/orders")
    assert [client.get(place).status_code for place in places] == [200, 200]
    person.session.get(known["end_session_endpoint"], params={"id_token_hint": token["id_token"]}, timeout=10)
    until("every process has heard", lambda: [client.get(place).status_code for place in places] == [401, 401])
    with pytest.raises(Exception, match="invalid_grant"):
        client.refresh_token(known["token_endpoint"], client_id="demo-web")
    refused = client.get(f"{running.url}/orders")
    assert 'error="invalid_token"' in refused.headers["www-authenticate"]


def test_a_device_gets_its_token_once_a_person_has_allowed_it(running: System) -> None:
    known = metadata(running)
    asked = requests.post(
        known["device_authorization_endpoint"], data={"client_id": "demo-device", "scope": "orders:read"}, timeout=10
    ).json()
    form = {"grant_type": DEVICE_CODE, "device_code": asked["device_code"], "client_id": "demo-device"}
    pending = requests.post(known["token_endpoint"], data=form, timeout=10)
    assert (pending.status_code, pending.json()["error"]) == (400, "authorization_pending")
    Person(running).follow(asked["verification_uri_complete"])

    def answer() -> dict[str, Any] | None:
        # As often as the device may: sooner, and it is told to slow down.
        reply = requests.post(known["token_endpoint"], data=form, timeout=10)
        return reply.json() if reply.status_code == 200 else None

    time.sleep(asked["interval"])  # RFC 8628, 3.5: it is the protocol that wants it
    token = until("the device has its token", answer)
    assert (token["scope"], claims(token["access_token"])["sub"]) == ("orders:read", "7")


def test_a_service_calls_on_in_a_users_name(running: System) -> None:
    known = metadata(running)
    user = running.typed("token", "--user", "user7", "--scope", "orders:read orders:write").stdout.strip()
    form = {
        "grant_type": EXCHANGE, "subject_token": user, "subject_token_type": ACCESS_TOKEN, "audience": "inventory",
    }  # fmt: skip
    proof = ("orders", secret_of(running, "orders"))
    token = requests.post(known["token_endpoint"], data=form, auth=proof, timeout=10).json()
    said = claims(token["access_token"])
    assert (said["sub"], said["aud"], said["act"]) == ("7", "inventory", {"sub": "orders"})
    assert set(token["scope"].split()) <= {"orders:read", "orders:write"}
    # The service that it is for believes it, and knows who calls; the others do not.
    bearer = {"Authorization": f"Bearer {token['access_token']}"}
    by_service = {process.service: process.url for process in running.state().processes}
    reserved = httpx.get(f"{by_service['inventory']}/inventory/reservations/none", headers=bearer)
    assert reserved.status_code == 404
    elsewhere = httpx.get(f"{by_service['orders']}/orders", headers=bearer)
    assert (elsewhere.status_code, elsewhere.json()["code"]) == (401, "invalid_token")
    direct = httpx.get(
        f"{by_service['inventory']}/inventory/reservations/none", headers={"Authorization": f"Bearer {user}"}
    )
    assert direct.status_code == 403


def test_what_identity_has_given_counts_while_it_is_away(running: System) -> None:
    mine = running.typed("token", "--user", "user7").stdout.strip()
    bearer = {"Authorization": f"Bearer {mine}"}
    [item, *_] = [each for each in running.ask("/inventory").body["items"] if each["available"] >= 10]
    order = {"user_id": 7, "items": [{"sku": item["sku"], "quantity": 1}]}
    assert httpx.post(f"{running.url}/orders", json=order, headers=bearer).status_code == 202
    [identity] = [process for process in running.state().processes if process.service == "identity"]
    running.stand_still(identity)
    try:
        # Keys, verified tokens and our own tokens are at hand: nothing waits for identity.
        for _ in range(5):
            assert httpx.post(f"{running.url}/orders", json=order, headers=bearer).status_code == 202
    finally:
        running.go_on(identity)
