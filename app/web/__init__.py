"""Flask on ASGI.

    bridge/      Flask's own wsgi_app, in a greenlet on the event loop
    serving/     Hypercorn, as one process of a mesh wants it
    entrance/    what a request passes before Flask: context, gate, time bound, access log
    problems     every error as problem+json
    documents/   the OpenAPI document
    views/       what views use: proxies and decorators
    health       /livez /readyz /metrics /openapi.json /asyncapi.json /docs
    management   /_mesh, for operators
    factory      a service's application out of the above

A service's views need only what is exported here.
"""

from app.web.bridge import AsyncFlask, await_
from app.web.documents.openapi import API, Problem
from app.web.views.caching import cached, cached_view
from app.web.views.coordinating import mesh_lock, rate_limited
from app.web.views.current import cache, coordination, database, mesh, resources
from app.web.views.guarding import demand, may, principal
from app.web.views.idempotency import current_key, idempotent
from app.web.views.preconditions import expected, tagged, versioned
from app.web.views.prefer import patient, preferred_wait

__all__ = [
    "API", "AsyncFlask", "Problem", "await_", "cache", "cached", "cached_view", "coordination", "current_key", "database",
    "demand", "expected", "idempotent", "may", "mesh", "mesh_lock", "patient", "preferred_wait", "principal", "rate_limited",
    "resources", "tagged", "versioned",
]  # fmt: skip
