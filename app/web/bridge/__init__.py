"""Flask natively on ASGI; ``application`` tells how.

application  AsyncFlask and ASGIBridge: Flask's own wsgi_app on the event loop
switch       synchronous code that awaits: greenlets and worker threads
inbox        the receiving half of a request: body, disconnect
environ      ASGI scope → WSGI environ
answer       how a whole answer leaves while the client may still be sending
wrappers     request, response and streamed body
lifespan     start-up and shut-down functions
json         orjson as Flask's JSON
"""

from app.web.bridge.application import (
    ASGIBridge,
    AsyncBody,
    AsyncFlask,
    AsyncResponse,
    NoBridge,
    await_,
    stream_with_context,
)

__all__ = ["ASGIBridge", "AsyncBody", "AsyncFlask", "AsyncResponse", "NoBridge", "await_", "stream_with_context"]
