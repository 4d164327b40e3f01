"""``/``: what can be asked for here, for a person or a program that has nothing but the address."""

from __future__ import annotations

from pydantic import BaseModel, Field

from app.auth import public
from app.mesh import Instance
from app.web import API, mesh

api = public(API("index", __name__, prefix="", tag="gateway"))


class Prefix(BaseModel):
    """One public path prefix."""

    href: str = Field(examples=["/users"])
    service: str
    ready: int = Field(description="how many instances take requests now")


class Index(BaseModel):
    """The public prefixes, and where to read on."""

    prefixes: list[Prefix]
    links: dict[str, str]


LINKS = {"docs": "/docs", "openapi": "/openapi.json", "ready": "/readyz"}


@api.get("/", responses={200: Index})
async def index() -> Index:
    """What is served here."""
    directory = mesh.directory
    instances = [instance for service in directory.services() for instance in directory.instances(service)]
    return Index(prefixes=prefixes_of(instances), links=LINKS)


def prefixes_of(instances: list[Instance]) -> list[Prefix]:
    """Every prefix that `instances` announce, once, sorted."""
    ready: dict[tuple[str, str], int] = {}
    for instance in instances:
        for prefix in instance.prefixes:
            key = (prefix, instance.service)
            ready[key] = ready.get(key, 0) + instance.takes_requests
    return [Prefix(href=prefix, service=service, ready=count) for (prefix, service), count in sorted(ready.items())]
