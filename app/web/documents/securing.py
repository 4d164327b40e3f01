"""What an OpenAPI document says of who may: the bearer scheme, and for each route what its rule asks for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from werkzeug.routing import Rule as Route

from app.auth.rules import Rule
from app.errors import Forbidden, Unauthorized
from app.web.documents import documenting
from app.web.documents.openapi import problem

SCHEME = "bearer"

_ANSWERS = {str(error.status): problem(error.title) for error in (Unauthorized, Forbidden)}


def secure(document: dict[str, Any], routes: Iterable[Route], rules: Mapping[tuple[str, str], Rule]) -> None:
    """Write `rules` into `document`; public routes stay as they are.

    Args:
        document: OpenAPI, as plain values.
        rules: by endpoint and method.
    """
    asked: list[Rule] = []
    for route, _, method, operation in documenting.operations(document, routes):
        rule = rules.get((route.endpoint, method))
        if rule is not None and not rule.is_public:
            _ask(operation, rule)
            asked.append(rule)
    if asked:
        scopes = sorted({scope for rule in asked for scope in rule.scopes})
        document["components"].setdefault("securitySchemes", {})[SCHEME] = _scheme(scopes)


def _ask(operation: dict[str, Any], rule: Rule) -> None:
    said = operation.get("description", "")
    operation["description"] = f"{said}\n\nAsks for: {rule}.".strip()
    # No list of scopes here: it would say that all are needed, where a rule may leave a choice.
    operation["security"] = [{SCHEME: []}]
    operation["responses"] |= _ANSWERS


def _scheme(scopes: list[str]) -> dict[str, str]:
    said = f"A JWT access token (RFC 9068). Scopes: {', '.join(scopes) or 'none'}."
    return {"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": said}
