"""Enforces what routes have declared: before the view, after the token was verified, in one place.

    at start     every route of every method has a rule, or the process does not start
    per request  token ─► principal (or what is wrong with it) ─► does the route's rule hold? ─► 401, 403, or the view

A public route takes anybody: a token that came along and is not believed is an error there only if the view asks for
its `principal`. Flask-Principal's ``g.identity`` is filled, where that package is in use.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

from flask import Flask, current_app, g, request
from werkzeug.routing import Rule as Route

from app.auth import bearer, declared
from app.auth.bearer import NOBODY, Bearer
from app.auth.principal import Principal
from app.auth.rules import Asked, Callers, Rule
from app.errors import Forbidden, InvalidToken, Misconfigured, PlatformError, Unauthorized
from app.mesh.observer import Decision
from app.service import Service
from app.web.views.current import EXTENSION

if TYPE_CHECKING:
    from app.auth.assembly import Auth
    from app.resources import Resources
    from app.web.bridge import AsyncFlask

_SCHEME = "bearer"
_IDENTITY = "mesh_identity"

Rules = Mapping[tuple[str, str], Rule]


def rules_of(app: Flask, service: Service) -> Rules:
    """The rule of every route, by endpoint and method.

    Raises:
        Misconfigured: names the routes that declare none.
    """
    found: dict[tuple[str, str], Rule] = {}
    silent: dict[str, None] = {}
    for route in app.url_map.iter_rules():
        for method in _methods(route):
            rule = declared.of(app.view_functions[route.endpoint], method, _blueprints(app, route.endpoint))
            if rule is None:
                silent[f"{method} {route.rule} ({route.endpoint})"] = None
            else:
                found[route.endpoint, method] = _for_callers(rule, service)
    if silent:
        raise Misconfigured(
            f"Service {service.name}: nothing says who may use {', '.join(silent)}; declare @requires(…) or @public"
        )
    return found


def rule_for(route: Route, method: str, rules: Rules) -> Rule | None:
    """The rule of a request; None where Flask itself answers: OPTIONS.

    Raises:
        Misconfigured: the route came after the rules were made, so nobody has looked at it.
    """
    rule = rules.get((route.endpoint, method))
    if rule is None and method in _methods(route):
        raise Misconfigured("Nothing says who may use this route")
    return rule


def identify() -> None:
    """Find out who bears the token of this request."""
    found = _bearer()
    bearer.current.set(found)
    scope = request.environ.get("asgi.scope")
    if found.principal is not None and scope is not None:
        scope["subject"] = found.principal.subject  # for the access log
    fill_identity()


def admit(rule: Rule) -> None:
    """Return if the bearer of this request's token may go on.

    Raises:
        Unauthorized: there is no token, or none that is believed.
        Forbidden: the rule does not hold.
        Unavailable: it can't be found out now.
    """
    if rule.is_public:
        return
    try:
        _admit(rule)
    except PlatformError as error:
        own = _resources()
        own.observer.decision(Decision("auth", own.service.name, error.code, detail=request.endpoint or ""))
        raise


def _admit(rule: Rule) -> None:
    found = bearer.current.get()
    if found.error is not None:
        raise found.error
    if found.principal is None or found.token is None:
        raise Unauthorized("This route asks for an access token")
    if rule.introspects:
        _wait(_auth().introspector.check(found.token, found.principal))
    if not rule.holds(Asked(found.principal, request.view_args or {}, _wait)):
        raise Forbidden(f"This route asks for: {rule}", scopes=_missing(rule, found.principal))


def principal() -> Principal | None:
    """Who asks; None without a token. Raises: InvalidToken: there is one, and it is not believed."""
    found = bearer.current.get()
    if found.error is not None:
        raise found.error
    return found.principal


def may(rule: Rule, **variables: Any) -> bool:
    """Whether `rule` holds for whoever asks: for views whose answer depends on it.

    Args:
        variables: what the rule looks at; by default those of the request's path.

    Raises:
        InvalidToken: a token is there, and it is not believed.
    """
    return rule.holds(Asked(principal(), variables or request.view_args or {}, _wait))


def demand(rule: Rule, **variables: Any) -> None:
    """Go on only if `rule` holds: for what a request's body says. Raises: Unauthorized, Forbidden."""
    if not may(rule, **variables):
        asking = principal()
        if asking is None:
            raise Unauthorized("This asks for an access token")
        raise Forbidden(f"This asks for: {rule}", scopes=_missing(rule, asking))


def _bearer() -> Bearer:
    header = request.headers.get("Authorization")
    if header is None:
        return NOBODY
    scheme, _, token = header.partition(" ")
    if scheme.lower() != _SCHEME:
        return Bearer(error=InvalidToken("It is not a bearer token"))
    token = token.strip()
    try:
        verifier = _auth().verifier
        known = verifier.recall(token)
        return Bearer(token, known if known is not None else _wait(verifier.verify(token)))
    except PlatformError as error:
        return Bearer(token, error=error)


def _resources() -> Resources:
    return cast("Resources", current_app.extensions[EXTENSION])


def _auth() -> Auth:
    return _resources().auth


def _wait(awaitable: Any) -> Any:
    return cast("AsyncFlask", current_app).async_to_sync(_awaited)(awaitable)


async def _awaited(awaitable: Any) -> Any:
    return await awaitable


def _missing(rule: Rule, asking: Principal) -> tuple[str, ...]:
    return rule.scopes if not asking.scopes.issuperset(rule.scopes) else ()


def _methods(route: Route) -> Iterable[str]:
    """Those that reach the view: OPTIONS is answered by Flask, HEAD by the view for GET."""
    automatic = {"OPTIONS"} if getattr(route, "provide_automatic_options", False) else set()
    return sorted((route.methods or set()) - automatic)


def _blueprints(app: Flask, endpoint: str) -> list[Any]:
    """The blueprints of `endpoint`, the innermost first."""
    name, found = endpoint.rpartition(".")[0], []
    while name:
        if name in app.blueprints:
            found.append(app.blueprints[name])
        name = name.rpartition(".")[0]
    return found


def _for_callers(rule: Rule, service: Service) -> Rule:
    if not service.callers or rule.is_public:
        return rule
    return Callers(frozenset(service.callers)) & rule


# ------------------------------------------------------------------------------------------------ Flask-Principal


def fill_identity() -> None:
    """``g.identity``, with the needs that the token fulfils, if anybody in this process uses Flask-Principal.

    Called before and after the application's own hooks: Flask-Principal's, where it is installed, knows no tokens.
    """
    principals: Any = sys.modules.get("flask_principal")
    if principals is None:
        return
    asking = bearer.current.get().principal
    if asking is None:
        g.setdefault("identity", principals.AnonymousIdentity())
        return
    identity = g.get(_IDENTITY)
    if identity is None:
        identity = _identity_of(asking, principals)
        setattr(g, _IDENTITY, identity)
        principals.identity_loaded.send(current_app._get_current_object(), identity=identity)  # type: ignore[attr-defined]  # noqa: SLF001  # as Flask's documentation does
    g.identity = identity


def _identity_of(asking: Principal, principals: Any) -> Any:
    identity = principals.Identity(asking.subject, _SCHEME)
    identity.provides.add(principals.UserNeed(asking.subject))
    identity.provides.update(principals.RoleNeed(role) for role in asking.roles)
    identity.provides.update(principals.ActionNeed(scope) for scope in asking.scopes)
    return identity
