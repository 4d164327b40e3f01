"""An issuer of the tests' own: the pages and the endpoints of a login as they are agreed upon, over real HTTP."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from html import escape
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, parse_qsl, quote, unquote_plus, urlencode, urlsplit

PASSWORDS = {"user7": "tr0ub4dor & <3", "admin": "correct horse"}
CLIENTS = {"demo-client": "s3cret: 100% + more"}
SCOPES = {"users:read", "orders:write"}


@dataclass
class Issuer:
    """What it does wrong, and what it has seen."""

    url: str = ""
    #: Where the login form goes, when not where it should.
    action: str = "/account/login"
    #: What the answer to the client says instead of what it should.
    answer: dict[str, str] = field(default_factory=dict)
    asks_consent: bool = False
    runs_in_circles: bool = False
    pages: list[str] = field(default_factory=list)
    passwords: list[str] = field(default_factory=list)
    token_requests: list[dict[str, str]] = field(default_factory=list)
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    sessions: set[str] = field(default_factory=set)
    visits: set[str] = field(default_factory=set)


@contextmanager
def running() -> Iterator[Issuer]:
    issuer = Issuer()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"issuer": issuer}))
    issuer.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield issuer
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    issuer: Issuer

    def log_message(self, *_: Any) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        at = urlsplit(self.path)
        query = dict(parse_qsl(at.query))
        self.issuer.pages.append(at.path)
        if at.path == "/oauth/authorize":
            self._authorize(query)
        elif at.path == "/account/login":
            self._login_page(query["next"])
        else:
            self._send(404, "nothing")

    def do_POST(self) -> None:
        at = urlsplit(self.path)
        form = dict(parse_qsl(self.rfile.read(int(self.headers["Content-Length"])).decode(), keep_blank_values=True))
        self.issuer.pages.append(at.path)
        if at.path == "/account/login":
            self._login(form)
        elif at.path == "/oauth/token":
            self.issuer.token_requests.append(form)
            self._token(form)
        else:
            self._send(404, "nothing")

    # The pages

    def _authorize(self, query: Mapping[str, str]) -> None:
        if query["client_id"] != "demo-web" or query["code_challenge_method"] != "S256":
            self._send(400, json.dumps({"error": "invalid_request"}), kind="application/json")
        elif self.issuer.runs_in_circles:
            self._redirect(self.path)
        elif not set(query.get("scope", "").split()) <= SCOPES:
            self._answer(query, error="invalid_scope", error_description="No such scope\x1b[31m")
        elif self._cookie("session") not in self.issuer.sessions:
            self._redirect(f"/account/login?next={quote(self.path)}")
        elif self.issuer.asks_consent:
            self._send(200, "<form method=post><button name=decision value=allow>Allow</button></form>")
        else:
            code = secrets.token_urlsafe()
            self.issuer.codes[code] = dict(query)
            self._answer(query, code=code)

    def _answer(self, query: Mapping[str, str], **said: str) -> None:
        said = {"state": query["state"], "iss": self.issuer.url, **said, **self.issuer.answer}
        self._redirect(f"{query['redirect_uri']}?{urlencode(said)}")

    def _login_page(self, following: str, error: str = "") -> None:
        visit = secrets.token_urlsafe()
        self.issuer.visits.add(visit)
        self._send(
            403 if error else 200,
            f"""<!doctype html><form action=/search><input name=q value=x></form>
            <p>{error}<form method="POST" action="{self.issuer.action}">
            <input type="hidden" name="form_token" value="{visit}&amp;&quot;1&quot;">
            <input type=hidden name=next value="{escape(following)}">
            <input name="username" value=""><input type="password" name="password">
            <input type=checkbox name=remember value=1><button name=other value=1>Log in</button></form>""",
            cookie=f"visit={visit}; HttpOnly; SameSite=Lax; Path=/",
        )

    def _login(self, form: Mapping[str, str]) -> None:
        self.issuer.passwords.append(form["password"])
        assert set(form) == {"form_token", "next", "username", "password"}
        visit = self._cookie("visit")
        if visit not in self.issuer.visits or form["form_token"] != f'{visit}&"1"':
            self._send(403, "not our form")
        elif PASSWORDS.get(form["username"]) != form["password"]:
            self._login_page(form["next"], error="wrong")
        else:
            session = secrets.token_urlsafe()
            self.issuer.sessions.add(session)
            self._redirect(form["next"], cookie=f"session={session}; HttpOnly; Path=/")

    # The token endpoint

    def _token(self, form: Mapping[str, str]) -> None:
        grants = {"client_credentials": self._own, "authorization_code": self._exchange}
        status, said = grants[form["grant_type"]](form)
        self._send(status, json.dumps(said), kind="application/json")

    def _own(self, form: Mapping[str, str]) -> tuple[int, dict[str, str]]:
        pair = base64.b64decode(self.headers["Authorization"].removeprefix("Basic ")).decode()
        name, secret = map(unquote_plus, pair.split(":"))
        if CLIENTS.get(name) != secret:
            return 401, {"error": "invalid_client"}
        if form.get("audience", "mesh") != "mesh":
            return 400, {"error": "invalid_target"}
        if not set(form.get("scope", "").split()) <= SCOPES:
            return 400, {"error": "invalid_scope", "error_description": "No such scope"}
        return 200, {"access_token": f"token-of-{name}", "token_type": "Bearer"}

    def _exchange(self, form: Mapping[str, str]) -> tuple[int, dict[str, str]]:
        asked = self.issuer.codes.pop(form["code"], None)
        digest = hashlib.sha256(form["code_verifier"].encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        if asked is None or asked["code_challenge"] != challenge or asked["redirect_uri"] != form["redirect_uri"]:
            return 400, {"error": "invalid_grant"}
        return 200, {"access_token": f"token-for-{asked.get('scope', 'everything')}", "token_type": "Bearer"}

    # HTTP

    def _cookie(self, name: str) -> str:
        found = SimpleCookie(self.headers.get("Cookie", "")).get(name)
        return "" if found is None else found.value

    def _redirect(self, location: str, cookie: str | None = None) -> None:
        self._send(302, "", cookie=cookie, location=location)

    def _send(
        self, status: int, body: str, *, kind: str = "text/html", cookie: str | None = None, location: str | None = None
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body.encode())))
        if cookie is not None:
            self.send_header("Set-Cookie", cookie)
        if location is not None:
            self.send_header("Location", location)
        self.end_headers()
        self.wfile.write(body.encode())


def query_of(url: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
