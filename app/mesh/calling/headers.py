"""What a call says of itself on the wire: the headers that carry the request's context to the peer.

`of_call` writes those that stay the same over all attempts of a call, `of_attempt` those that do not.
"""

from __future__ import annotations

from app import context
from app.context import Context, Priority
from app.mesh.calling.exchange import Headers

IDEMPOTENCY_KEY = "idempotency-key"

# Set anew on every attempt: what a caller passes on under these names is dropped.
_PER_ATTEMPT = frozenset({context.TIMEOUT_MS, context.CALLER, context.ATTEMPT, context.TARGET})


def of_call(headers: Headers, current: Context | None, now: float, *, priority: Priority | None) -> Headers:
    """`headers`, names in lower case, with those of the current request, which come first in rank.

    Args:
        priority: of this one call, in the place of the request's.
    """
    carried = current.outbound_headers(now) if current is not None else {}
    if priority is not None:
        carried[context.PRIORITY] = priority
    if isinstance(headers, list):
        return _listed(headers, carried)
    headers.update(carried)
    if context.REQUEST_ID not in headers:
        headers[context.REQUEST_ID] = context.new_request_id()
    return headers


def _listed(headers: list[tuple[str, str]], carried: dict[str, str]) -> Headers:
    kept = [(name, value) for name, value in headers if name not in carried and name not in _PER_ATTEMPT]
    kept.extend((name, value) for name, value in carried.items() if name not in _PER_ATTEMPT)
    if all(name != context.REQUEST_ID for name, _ in kept):
        kept.append((context.REQUEST_ID, context.new_request_id()))
    return kept


def of_attempt(headers: Headers, *, caller: str, target: str, number: int, seconds: float) -> Headers:
    """What `of_call` has made, for one attempt; a dictionary is written over by the next one.

    Args:
        target: the id of the instance that it is meant for.
        number: 1 for the first attempt.
        seconds: how long the peer has.
    """
    timeout_ms = str(int(seconds * 1000)) if seconds > 0 else "0"
    if isinstance(headers, dict):
        headers[context.CALLER] = caller
        headers[context.ATTEMPT] = str(number)
        headers[context.TIMEOUT_MS] = timeout_ms
        headers[context.TARGET] = target
        return headers
    own = [
        (context.CALLER, caller),
        (context.ATTEMPT, str(number)),
        (context.TIMEOUT_MS, timeout_ms),
        (context.TARGET, target),
    ]
    return [*headers, *own]


def has_idempotency_key(headers: Headers) -> bool:
    if isinstance(headers, dict):
        return IDEMPOTENCY_KEY in headers
    return any(name == IDEMPOTENCY_KEY for name, _ in headers)
