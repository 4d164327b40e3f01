"""How a whole answer leaves while the client may still be sending its request."""

from __future__ import annotations

from typing import Any

from app.web.bridge.inbox import Inbox

# A body that nobody has read is thrown away: a small one before the answer, so that the connection can be kept; of a
# large one some more after it, since a client that is cut off while it sends sees a reset connection instead of the
# answer (a 413, say).
SMALL_BYTES, SMALL_SECONDS = 64 * 1024, 0.05
LINGER_BYTES, LINGER_SECONDS = 8 * 1024 * 1024, 2.0


async def send_whole(send: Any, inbox: Inbox, start: dict[str, Any], body: bytes, http_version: str) -> None:
    """Send an answer whose `body` is all there.

    Args:
        start: ASGI's start message.
        inbox: the request's; closed afterwards.
    """
    if inbox.unread:
        await inbox.discard(SMALL_BYTES, SMALL_SECONDS)
    if inbox.unread:
        if http_version in ("1.0", "1.1"):
            start["headers"] = [*start["headers"], (b"connection", b"close")]
        await send(start)
        await send({"type": "http.response.body", "body": body, "more_body": True})
        await inbox.discard(LINGER_BYTES, LINGER_SECONDS)
        body = b""
    else:
        await send(start)
    # The server tells of a disconnect when it is done with the answer, too: that one means nothing.
    inbox.close()
    await send({"type": "http.response.body", "body": body, "more_body": False})
