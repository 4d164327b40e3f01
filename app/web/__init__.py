"""Flask on ASGI.

    switch     synchronous code that awaits: greenlets and worker threads
    inbox      the receiving half of a request: body, disconnect
    environ    ASGI scope → WSGI environ
    wrappers   request, response and streamed body
    bridge     AsyncFlask and ASGIBridge: Flask's own wsgi_app on the event loop
    lifespan   start-up and shut-down functions
    json       orjson as Flask's JSON
    problems   every error as problem+json
    openapi    API blueprints whose schemas become the OpenAPI document
    health     /livez /readyz /metrics /openapi.json /docs
    current    database and mesh, as proxies
    entry      context, time bound, metrics and access log around everything
    factory    a service's application out of the above
    server     Hypercorn, driven as one process of a mesh wants it

A service's views need only what is exported here.
"""

from app.web.bridge import AsyncFlask, await_
from app.web.current import database, mesh, resources
from app.web.openapi import API, Problem

__all__ = ["API", "AsyncFlask", "Problem", "await_", "database", "mesh", "resources"]
