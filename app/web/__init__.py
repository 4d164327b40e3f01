"""Flask on ASGI.

    switch     synchronous code that awaits: greenlets and worker threads
    inbox      the receiving half of a request: body, disconnect
    environ    ASGI scope → WSGI environ
    intake     a body as the client gets it to us: how slow it may be
    answer     how a whole answer leaves while the client may still be sending
    wrappers   request, response and streamed body
    bridge     AsyncFlask and ASGIBridge: Flask's own wsgi_app on the event loop
    lifespan   start-up and shut-down functions
    json       orjson as Flask's JSON
    problems   every error as problem+json
    openapi    API blueprints whose schemas become the OpenAPI document
    health     /livez /readyz /metrics /openapi.json /asyncapi.json /docs
    management /_mesh, for operators
    current    database, mesh, cache and coordination, as proxies
    guarding   who may: the rules of the routes, enforced before the views
    securing   what the OpenAPI document says of the rules
    documenting  what it says of the headers that decorators look at
    preconditions  ETag, If-None-Match and If-Match: versions as conditions
    idempotency  Idempotency-Key: a request that comes again has its effect once
    decorating how a decorator stands for a view, async or plain
    prefer     Prefer: wait
    caching    @cached and @cached_view
    kept       a whole answer as bytes, and whether it may be kept
    coordinating  mesh_lock and @rate_limited
    limiter    how many requests may wait for an answer at once: a pure decision
    shedding   the gate that keeps to it, before Flask
    entry      context, gate, time bound, metrics and access log around everything
    factory    a service's application out of the above
    plain      HTTP/1.1 that leaves nothing to decide: a pure part of what h11 does
    http1      the short way for it, and Hypercorn's own for all else
    lines      Hypercorn's connections: one write per answer, one sweeper, one end
    server     Hypercorn, driven as one process of a mesh wants it

A service's views need only what is exported here.
"""

from app.web.bridge import AsyncFlask, await_
from app.web.caching import cached, cached_view
from app.web.coordinating import mesh_lock, rate_limited
from app.web.current import cache, coordination, database, mesh, resources
from app.web.guarding import demand, may, principal
from app.web.idempotency import current_key, idempotent
from app.web.openapi import API, Problem
from app.web.preconditions import expected, tagged, versioned
from app.web.prefer import patient, preferred_wait

__all__ = [
    "API", "AsyncFlask", "Problem", "await_", "cache", "cached", "cached_view", "coordination", "current_key", "database",
    "demand", "expected", "idempotent", "may", "mesh", "mesh_lock", "patient", "preferred_wait", "principal", "rate_limited",
    "resources", "tagged", "versioned",
]  # fmt: skip
