"""A whole answer as bytes, and whether it may be kept at all (RFC 9111, 3)."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from typing import NamedTuple

import orjson
from flask import Response, current_app, request
from flask.globals import request_ctx

from app import telemetry

_log = telemetry.log("web.caching")

_KEPT_STATUSES = frozenset({200, 203, 301, 308})
# Made anew for every answer, or not ours to repeat.
_NOT_KEPT = frozenset(
    {
        "age", "connection", "content-length", "date", "keep-alive", "proxy-authenticate", "proxy-connection",
        "set-cookie", "te", "trailer", "transfer-encoding", "upgrade", "x-request-id",
    }
)  # fmt: skip


class Answer(NamedTuple):
    """A whole answer, as it is kept."""

    status: int
    headers: list[tuple[str, str]]
    public: bool
    body: bytes

    @classmethod
    def of(cls, response: Response, *, public: bool) -> Answer:
        body = response.get_data()
        if not response.headers.get("ETag"):
            response.set_etag(hashlib.blake2b(body, digest_size=16).hexdigest())
        headers = [(name, value) for name, value in response.headers if name.lower() not in _NOT_KEPT]
        return cls(response.status_code, headers, public or bool(response.cache_control.public), body)

    def pack(self) -> bytes:
        return orjson.dumps([self.status, self.headers, self.public]) + b"\n" + self.body

    @classmethod
    def unpack(cls, packed: bytes) -> Answer:
        head, _, body = packed.partition(b"\n")
        status, headers, public = orjson.loads(head)
        return cls(status, headers, public, body)

    def response(self) -> Response:
        response = current_app.response_class(self.body, self.status)
        # Not the response's own default: what was kept has a content type, or has none on purpose.
        response.headers.clear()
        for name, value in self.headers:
            response.headers.add(name, value)
        return response


def why_not(response: Response, *, vary: Collection[str], personal: bool) -> str:
    """Why an answer is not to be kept; empty if it is.

    Args:
        vary: the request headers, in lower case, that its key knows.
        personal: whether its key tells users apart.
    """
    control = response.cache_control
    varies = {name.lower() for name in response.vary}
    reasons = {
        "status": response.status_code not in _KEPT_STATUSES,
        "streamed": not response.is_sequence or response.direct_passthrough,
        "set-cookie": "Set-Cookie" in response.headers,
        "session": session_is_in_use(),
        "cache-control": control.no_store or control.no_cache or (control.private and not personal),
        "max-age": own_max_age(response) == 0,
        "vary": not varies <= set(vary),
    }
    found = next((reason for reason, holds in reasons.items() if holds), "")
    if found == "vary" and "*" not in varies:
        undeclared = sorted(varies.difference(vary))
        _log.warning("a view's Vary names headers that its vary= does not", endpoint=request.endpoint, names=undeclared)
    return found


def own_max_age(response: Response) -> int | None:
    """What the view itself says of how long its answer is good for, here."""
    control = response.cache_control
    return control.s_maxage if control.s_maxage is not None else control.max_age


def session_is_in_use() -> bool:
    """Whether anybody has looked at flask.session during this request."""
    # Not by flask.session: looking at that is what counts as using it.
    session = request_ctx._session  # noqa: SLF001  # Flask has no public way to ask
    return session is not None and session.accessed
