"""The issuer, as a resource server and a client sees it: its keys, its tokens, its word."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import quote_plus, urlencode

import orjson

from app.errors import Unavailable

KEYS_PATH, TOKEN_PATH, INTROSPECTION_PATH = "/oauth/jwks", "/oauth/token", "/oauth/introspect"  # paths

_RETRY_AFTER_SECONDS = 1.0
_LONGEST_CODE = 64

# Method, path, body, headers → status and body; raises a `PlatformError` if nobody answers.
Send = Callable[[str, str, bytes, Mapping[str, str]], Awaitable[tuple[int, bytes]]]


class Issuer:
    """Asks the issuer as one client.

    Args:
        client_secret: None for a process without credentials, which can ask for the keys alone.
    """

    def __init__(self, send: Send, *, client_id: str, client_secret: str | None) -> None:
        self._send, self._client_id = send, client_id
        self._headers = None if client_secret is None else _basic(client_id, client_secret)

    def __repr__(self) -> str:
        return f"<Issuer for {self._client_id}{'' if self._headers else ', without credentials'}>"

    @property
    def knows_us(self) -> bool:
        """Whether this process has credentials."""
        return self._headers is not None

    async def keys(self) -> bytes:
        """Its JWK set. Raises: PlatformError: it does not answer."""
        status, body = await self._send("GET", KEYS_PATH, b"", {})
        if status != 200:
            raise Unavailable(f"The issuer answers {status} for its keys", retry_after=_RETRY_AFTER_SECONDS)
        return body

    async def token(self, form: Mapping[str, str]) -> Mapping[str, Any]:
        """A token response (RFC 6749, 5.1). Raises: PlatformError: it does not answer, or refuses."""
        return await self._ask(TOKEN_PATH, form)

    async def introspect(self, form: Mapping[str, str]) -> Mapping[str, Any]:
        """What it says of a token (RFC 7662). Raises: PlatformError: it does not answer, or refuses to."""
        return await self._ask(INTROSPECTION_PATH, form)

    async def _ask(self, path: str, form: Mapping[str, str]) -> Mapping[str, Any]:
        if self._headers is None:
            raise Unavailable("This process has no credentials at the issuer (MESH_AUTH__CLIENT_SECRET)")
        status, body = await self._send("POST", path, urlencode(form).encode(), self._headers)
        answer = _object(body)
        if status != 200:
            said = str(answer.get("error", ""))[:_LONGEST_CODE]
            raise Unavailable(f"The issuer answers {status} {said}", retry_after=_RETRY_AFTER_SECONDS)
        return answer


def _basic(client_id: str, client_secret: str) -> Mapping[str, str]:
    """``client_secret_basic``; both parts are form-encoded first (RFC 6749, 2.3.1)."""
    pair = f"{quote_plus(client_id)}:{quote_plus(client_secret)}".encode()
    return {
        "authorization": f"Basic {base64.b64encode(pair).decode()}",
        "content-type": "application/x-www-form-urlencoded",
    }


def _object(body: bytes) -> Mapping[str, Any]:
    try:
        found = orjson.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
