"""The one error tree. Every error knows its HTTP status, its stable ``code`` and its title.

    PlatformError 500 internal_error
    ├── BadInput 400 bad_request             the request cannot be read
    │   ├── MalformedJSON 400 malformed_json
    │   ├── UnsupportedMediaType 415 unsupported_media_type
    │   ├── BodyTooLarge 413 body_too_large
    │   ├── RequestTimeout 408 request_timeout    the body came too slowly, or not at all
    │   ├── Misdirected 421 misdirected           meant for another instance than the one it reached; nothing was done
    │   ├── TooManyRequests 429 rate_limited      ``retry_after`` says when the next one is welcome
    │   ├── IdempotencyKeyReused 422 idempotency_key_reused   for another request than the one that it belongs to
    │   └── InvalidInput 422 invalid_input    it can be read, and breaks a rule; ``errors`` names the fields
    ├── Unauthorized 401 unauthorized         nobody has said who asks
    │   └── InvalidToken 401 invalid_token        or in a way that is not believed
    ├── Forbidden 403 forbidden               it is known who asks, and they may not
    ├── NotFound 404 not_found
    ├── Conflict 409 conflict                 the state forbids it (out of stock, duplicate)
    │   ├── RequestInFlight 409 request_in_flight the same request is being dealt with: ``retry_after`` says when to ask
    │   └── ReplyNotKept 409 reply_not_kept       it was dealt with, and its reply was too large to be kept
    ├── PreconditionFailed 412 precondition_failed   it has changed since whoever asks has seen it
    ├── Unavailable 503 unavailable           try again later: ``retry_after`` says when
    │   ├── Overloaded 503 overloaded             more than this process can serve; nothing was done
    │   ├── NotAcquired 503 not_acquired          a distributed lock was not to be had in time
    │   ├── LeaseLost 503 lease_lost              held no longer: somebody else may hold it now
    │   └── MeshError 503 mesh_error          a call to a peer did not succeed
    │       ├── NoInstance 503 no_instance         nobody is registered and ready
    │       ├── PeerUnreachable 503 peer_unreachable   refused, reset or cut; ``sent`` tells if it may have arrived
    │       ├── CircuitOpen 503 circuit_open       rejected here, without a call, while the peer recovers
    │       ├── NoCredentials 503 no_credentials   the issuer gives us no token for that peer
    │       ├── DeadlineExceeded 504 deadline_exceeded
    │       └── BadReply 502 bad_reply             a peer answered what its contract does not allow
    └── Misconfigured 500 misconfigured       a setting or a service definition is wrong: refuse to start

The foreign errors of a room (Redis, SQL, aiohttp) are translated where they are imported, with their cause.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar


class PlatformError(Exception):
    """An error with an HTTP meaning.

    Args:
        detail: one sentence for the caller; never a secret, never a stack trace.
        retry_after: seconds after which trying again makes sense (sent as ``Retry-After``).
        extensions: further members of the problem document.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    title: ClassVar[str] = "Internal server error"

    def __init__(
        self,
        detail: str = "",
        *,
        retry_after: float | None = None,
        extensions: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail or self.title)
        self.detail = detail or self.title
        self.retry_after = retry_after
        self.extensions = dict(extensions or {})

    @property
    def headers(self) -> Mapping[str, str]:
        """What the answer says besides its body."""
        return {}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.status} {self.code}: {self.detail}>"


class BadInput(PlatformError):
    status, code, title = 400, "bad_request", "Bad request"


class MalformedJSON(BadInput):
    code, title = "malformed_json", "The body is not valid JSON"


class UnsupportedMediaType(BadInput):
    status, code, title = 415, "unsupported_media_type", "Unsupported media type"


class BodyTooLarge(BadInput):
    status, code, title = 413, "body_too_large", "Request body too large"


class RequestTimeout(BadInput):
    status, code, title = 408, "request_timeout", "The request came too slowly"


class Misdirected(BadInput):
    """It reached another instance than the one it was meant for; nothing was done, so any method may be repeated."""

    status, code, title = 421, "misdirected", "Not the instance that was asked for"


class TooManyRequests(BadInput):
    status, code, title = 429, "rate_limited", "Too many requests"


class IdempotencyKeyReused(BadInput):
    status, code, title = 422, "idempotency_key_reused", "The Idempotency-Key belongs to another request"


class InvalidInput(BadInput):
    """Readable input that breaks a rule.

    Args:
        errors: one mapping per field: ``{"path": "body.items.0.quantity", "message": "…", "type": "…"}``.
    """

    status, code, title = 422, "invalid_input", "Invalid input"

    def __init__(self, detail: str = "", *, errors: Sequence[Mapping[str, Any]] = ()) -> None:
        super().__init__(detail, extensions={"errors": list(errors)} if errors else None)


class Unauthorized(PlatformError):
    """Nobody has said who asks. ``WWW-Authenticate`` says how to (RFC 6750, 3)."""

    status, code, title = 401, "unauthorized", "Who asks is not known"

    @property
    def headers(self) -> Mapping[str, str]:
        return {"WWW-Authenticate": 'Bearer realm="mesh"'}


class InvalidToken(Unauthorized):
    """A token is there and is not believed; `detail` says why, in plain ASCII without quotes."""

    code, title = "invalid_token", "The token is not valid"

    @property
    def headers(self) -> Mapping[str, str]:
        return {"WWW-Authenticate": f'Bearer realm="mesh", error="invalid_token", error_description="{self.detail}"'}


class Forbidden(PlatformError):
    """It is known who asks, and they may not.

    Args:
        scopes: with which a token might do, if more scopes would help.
    """

    status, code, title = 403, "forbidden", "Not allowed"

    def __init__(self, detail: str = "", *, scopes: Sequence[str] = ()) -> None:
        super().__init__(detail)
        self.scopes = tuple(scopes)

    @property
    def headers(self) -> Mapping[str, str]:
        wanted = f', scope="{" ".join(self.scopes)}"' if self.scopes else ""
        return {"WWW-Authenticate": f'Bearer realm="mesh", error="insufficient_scope"{wanted}'}


class NotFound(PlatformError):
    status, code, title = 404, "not_found", "Not found"


class Conflict(PlatformError):
    status, code, title = 409, "conflict", "Conflict"


class RequestInFlight(Conflict):
    code, title = "request_in_flight", "The same request is still being dealt with"


class ReplyNotKept(Conflict):
    """A request that is repeated has had its effect, and how it was answered is not known any more."""

    code, title = "reply_not_kept", "The reply was not kept"


class PreconditionFailed(PlatformError):
    """What was to be changed is not what whoever asks has seen; nothing was changed."""

    status, code, title = 412, "precondition_failed", "It has changed meanwhile"


class Unavailable(PlatformError):
    status, code, title = 503, "unavailable", "Service unavailable"


class Overloaded(Unavailable):
    """More than this process can serve now; nothing was done, so any method may be repeated elsewhere."""

    code, title = "overloaded", "Too busy"


class NotAcquired(Unavailable):
    code, title = "not_acquired", "The lock is held by somebody else"


class LeaseLost(Unavailable):
    code, title = "lease_lost", "The lease was lost"


class MeshError(Unavailable):
    """A call to a peer did not succeed."""

    code, title = "mesh_error", "A peer could not be reached"


class NoInstance(MeshError):
    code, title = "no_instance", "No ready instance"


class PeerUnreachable(MeshError):
    """The connection was refused, reset or cut.

    Args:
        sent: whether the peer may have seen the request; ``False`` makes any method safe to retry.
    """

    code, title = "peer_unreachable", "Peer unreachable"

    def __init__(self, detail: str = "", *, sent: bool, retry_after: float | None = 1.0) -> None:
        super().__init__(detail, retry_after=retry_after)
        self.sent = sent


class CircuitOpen(MeshError):
    """Rejected without a call: a rejection is no failure of the peer's. ``retry_after`` says when probes begin."""

    code, title = "circuit_open", "Circuit breaker open"


class NoCredentials(MeshError):
    """The issuer gives us no token for that peer; nothing was sent."""

    code, title = "no_credentials", "No credentials for a peer"


class DeadlineExceeded(MeshError):
    status, code, title = 504, "deadline_exceeded", "Deadline exceeded"


class BadReply(MeshError):
    status, code, title = 502, "bad_reply", "A peer sent an unexpected reply"


class Misconfigured(PlatformError):
    """A setting or a service definition is wrong; the process refuses to start."""

    code, title = "misconfigured", "Misconfigured"
