"""What every instance answers about itself: alive, ready, metrics, and its documentation."""

from __future__ import annotations

import html
from importlib.resources import files
from typing import Any

import orjson
from flask import Blueprint, Response, current_app, send_from_directory

from app.auth import public
from app.web.views.current import resources

health = public(Blueprint("health", __name__))

# Swagger UI comes in a Python package, so the page works without the internet.
_SWAGGER = str(files("flask_openapi_swagger") / "templates" / "swagger")

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="stylesheet" href="docs/assets/css/swagger-ui.css">
<link rel="icon" href="docs/assets/images/swagger.svg">
<style>body {{ margin: 0 }} nav {{ font: 14px sans-serif; padding: 8px 20px }}</style>
</head>
<body>
<nav>Events, as AsyncAPI: {links}</nav>
<div id="swagger-ui"></div>
<script src="docs/assets/js/swagger-ui-bundle.js"></script>
<script src="docs/assets/js/swagger-ui-standalone-preset.js"></script>
<script>
SwaggerUIBundle({{
  urls: {urls}, dom_id: "#swagger-ui", deepLinking: true, layout: "StandaloneLayout",
  presets: [SwaggerUIBundle.presets.apis, SwaggerUIStandalonePreset], validatorUrl: null
}})
</script>
</body>
</html>
"""


@health.get("/livez")
async def livez() -> dict[str, str]:
    """The process runs and its loop turns; nothing else is asked."""
    return {"status": "alive"}


@health.get("/readyz")
async def readyz() -> tuple[dict[str, Any], int]:
    """Whether to send requests here. Redis is not asked: the mesh serves its last known peers without it."""
    checks = await resources.checks()
    ready = all(checks.values())
    return {"status": "ready" if ready else "not ready", "checks": checks}, 200 if ready else 503


@health.get("/metrics")
async def metrics() -> Response:
    body, content_type = resources.metrics.render()
    return Response(body, content_type=content_type)


@health.get("/openapi.json")
async def openapi() -> Response:
    return Response(orjson.dumps(current_app.api_doc), content_type="application/json")  # type: ignore[attr-defined]


@health.get("/asyncapi.json")
async def asyncapi() -> Response:
    return Response(orjson.dumps(current_app.events_doc), content_type="application/json")  # type: ignore[attr-defined]


@health.get("/docs")
async def docs() -> str:
    return page(current_app.name, [(current_app.name, "openapi.json")], events=[(current_app.name, "asyncapi.json")])


@health.get("/docs/assets/<path:name>")
def assets(name: str) -> Response:
    return send_from_directory(_SWAGGER, name, max_age=3600)


def page(title: str, documents: list[tuple[str, str]], *, events: list[tuple[str, str]]) -> str:
    """Swagger UI over one or several OpenAPI documents, and links to those of the events.

    Args:
        title: the page's title.
        documents: (name, relative address) of each.
        events: the same of the AsyncAPI documents.
    """
    links = " ".join(f'<a href="{html.escape(url)}">{html.escape(name)}</a>' for name, url in events)
    urls = orjson.dumps([{"name": name, "url": url} for name, url in documents]).decode().replace("<", "\\u003c")
    return _PAGE.format(title=html.escape(title), urls=urls, links=links)
