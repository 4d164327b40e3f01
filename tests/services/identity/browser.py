"""A browser without a screen: cookies, redirects as far as they stay with us, forms read from the HTML."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit

import httpx
from sqlalchemy import insert

from app.data import Database
from app.services.identity import admin, passwords
from app.services.identity.accounts import Account
from app.services.identity.models import clients
from tests.services.conftest import PLAIN, Running

PASSWORD = "correct horse"
CALLBACK = "https://client.example/callback"
LOGGED_OUT = "https://client.example/bye"


@dataclass
class Form:
    """A form as it stands in a page; `buttons` are (name, value)."""

    action: str
    method: str
    fields: dict[str, str] = field(default_factory=dict)
    buttons: list[tuple[str, str]] = field(default_factory=list)
    unlabelled: list[str] = field(default_factory=list)


class Reader(HTMLParser):
    """What a page says."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.forms: list[Form] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.labels: set[str] = set()
        self.texts: dict[str, str] = {}
        self._open: list[str] = []
        self._alert = False
        self.alert = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.tags.append(tag)
        self._open.append(tag)
        self._alert = self._alert or values.get("role") == "alert"
        if tag == "form":
            self.forms.append(Form(values["action"], values["method"]))
        if tag == "label":
            self.labels.add(values["for"])
        if tag == "a":
            self.links.append(values["href"])
        if tag == "input":
            self.forms[-1].fields[values["name"]] = values.get("value", "")
            if values.get("type") != "hidden":
                self.forms[-1].unlabelled.append(values["id"])
        if tag == "button" and "name" in values:
            self.forms[-1].buttons.append((values["name"], values["value"]))

    def handle_data(self, data: str) -> None:
        if self._open:
            self.texts[self._open[-1]] = self.texts.get(self._open[-1], "") + data
        if self._alert:
            self.alert += data

    def handle_endtag(self, tag: str) -> None:
        if tag in self._open:
            del self._open[len(self._open) - 1 - self._open[::-1].index(tag) :]
        if tag in ("div", "p", "main"):
            self._alert = False


@dataclass
class Page:
    """Where the browser ended up; `url` is foreign if it was sent away."""

    url: str
    answer: httpx.Response

    @property
    def status(self) -> int:
        return self.answer.status_code

    @property
    def text(self) -> str:
        return self.answer.text

    @property
    def reader(self) -> Reader:
        return Reader(self.text)

    @property
    def title(self) -> str:
        return self.reader.texts.get("h1", "")

    @property
    def alert(self) -> str:
        return " ".join(self.reader.alert.split())

    @property
    def form(self) -> Form:
        (form,) = self.reader.forms
        return form

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.url).query))

    @property
    def path(self) -> str:
        return urlsplit(self.url).path


class Browser:
    """One person's browser, at one running identity service."""

    def __init__(self, running: Running) -> None:
        self.home = str(running.client.base_url).rstrip("/")
        self.client = httpx.AsyncClient(base_url=self.home, timeout=20, verify=PLAIN)

    async def open(self, path: str, **options: Any) -> Page:
        return await self._follow(await self.client.get(path, **options))

    async def submit(self, page: Page, button: str | None = None, **filled: str) -> Page:
        """Send the page's form; `button` is the value of the one that is pressed."""
        form = page.form
        data = {**form.fields, **filled}
        data.update({name: value for name, value in form.buttons if value == button})
        return await self._follow(await self.client.post(form.action, data=data))

    async def log_in(self, username: str = "ada", password: str = PASSWORD, path: str = "/account/login") -> Page:
        return await self.submit(await self.open(path), username=username, password=password)

    @property
    def session(self) -> str | None:
        return self.client.cookies.get("mesh-session")

    async def _follow(self, answer: httpx.Response) -> Page:
        for _ in range(10):
            if not answer.has_redirect_location:
                return Page(str(answer.url), answer)
            url = urljoin(str(answer.url), answer.headers["location"])
            if not url.startswith(f"{self.home}/"):
                return Page(url, answer)
            answer = await self.client.get(url)
        raise AssertionError("redirected in a circle")


async def add_account(database: Database, username: str = "ada", **options: Any) -> Account:
    return await admin.add_account(database, username, PASSWORD, parameters=passwords.CHEAP, **options)


async def add_client(database: Database, client_id: str = "shop", **changed: Any) -> None:
    row = {
        "client_id": client_id,
        "name": "The Shop",
        "auth_method": "none",
        "grant_types": "authorization_code refresh_token urn:ietf:params:oauth:grant-type:device_code",
        "redirect_uris": CALLBACK,
        "logout_uris": LOGGED_OUT,
        "scope": "openid profile email orders:read orders:write",
        "audiences": "mesh",
        "trusted": False,
        "demo": False,
        "created_at": datetime.now(UTC),
        **changed,
    }
    async with database.session() as session:
        await session.execute(insert(clients).values(row))


def request_of(**changed: str) -> str:
    """The address of an authorization request."""
    parameters = {
        "response_type": "code",
        "client_id": "shop",
        "redirect_uri": CALLBACK,
        "scope": "openid orders:read",
        "state": "a state",
        "nonce": "a nonce",
        # RFC 7636, appendix B
        "code_challenge": "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
        "code_challenge_method": "S256",
        **changed,
    }
    return "/oauth/authorize?" + urlencode(parameters)
