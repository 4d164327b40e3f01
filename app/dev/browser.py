"""As much of a browser as a login needs: cookies, forms, one step at a time. It follows no redirect by itself."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from html.parser import HTMLParser
from http.cookiejar import CookieJar
from typing import IO, Any
from urllib.parse import urlencode, urljoin

from app.errors import Unavailable

ASK_SECONDS = 10.0
MOST_BYTES = 1_048_576
_REDIRECTS = (301, 302, 303, 307, 308)


@dataclass(frozen=True, slots=True)
class Page:
    """An answer. `location` is the absolute address of a redirect."""

    url: str
    status: int
    body: bytes
    location: str | None = None

    @property
    def is_redirect(self) -> bool:
        return self.location is not None


@dataclass(frozen=True, slots=True)
class Form:
    """A form of a page: where it goes, and what it already holds, hidden fields among them."""

    action: str
    method: str
    fields: Mapping[str, str]


class Browser:
    """Asks, and keeps cookies. One for each login."""

    def __init__(self) -> None:
        self._cookies = CookieJar()
        # No proxy: it would see the password, and the address is this machine's own as a rule.
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor(self._cookies), _Stay()
        )

    def get(self, url: str) -> Page:
        """Raises: Unavailable: nobody answers there."""
        return self._ask(urllib.request.Request(url))  # noqa: S310  # who calls has checked the scheme

    def post(self, url: str, fields: Mapping[str, str], headers: Mapping[str, str] | None = None) -> Page:
        """Send a form. Raises: Unavailable: nobody answers there."""
        content = {"Content-Type": "application/x-www-form-urlencoded", **(headers or {})}
        return self._ask(
            urllib.request.Request(url, data=urlencode(fields).encode(), headers=content)  # noqa: S310  # as above
        )

    def submit(self, form: Form, fields: Mapping[str, str]) -> Page:
        """Send `form` with `fields` filled in. Raises: Unavailable: nobody answers there."""
        return self.post(form.action, {**form.fields, **fields})

    def _ask(self, request: urllib.request.Request) -> Page:
        try:
            with self._opener.open(request, timeout=ASK_SECONDS) as reply:
                return _page(request, reply)
        except urllib.error.HTTPError as error:
            with error:
                return _page(request, error)
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            raise Unavailable(f"{request.type}://{request.host} does not answer: {reason}") from error


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def _page(request: urllib.request.Request, reply: Any) -> Page:
    url = request.full_url
    source: IO[bytes] = reply
    target = reply.headers.get("Location") if reply.status in _REDIRECTS else None
    return Page(url, reply.status, source.read(MOST_BYTES), None if target is None else urljoin(url, target))


def forms(page: Page) -> list[Form]:
    """The forms of a page, in their order."""
    parser = _Forms(page.url)
    parser.feed(page.body.decode(errors="replace"))
    parser.close()
    return parser.found


class _Forms(HTMLParser):
    """What a browser would send of each form if nothing were typed and nothing pressed."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url
        self._open: tuple[str, str, dict[str, str]] | None = None
        self.found: list[Form] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said = {name: value or "" for name, value in attrs}
        if tag == "form":
            self._end()
            # Without an action, a form goes to its own page.
            self._open = (urljoin(self._url, said.get("action", "")), said.get("method", "get").lower(), {})
        elif tag == "input" and self._open is not None and "name" in said and _is_sent(said):
            self._open[2][said["name"]] = said.get("value", "")

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._end()

    def close(self) -> None:
        super().close()
        self._end()

    def _end(self) -> None:
        if self._open is not None:
            self.found.append(Form(*self._open))
            self._open = None


def _is_sent(said: Mapping[str, str]) -> bool:
    kind = said.get("type", "text").lower()
    if "disabled" in said or kind in ("submit", "button", "image", "reset"):
        return False
    return kind not in ("checkbox", "radio") or "checked" in said
