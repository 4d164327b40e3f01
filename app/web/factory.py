"""Makes the Flask application of a service."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from flask import request
from flask_openapi.blueprint import APIBlueprint
from werkzeug.routing import IntegerConverter

from app.events import catalogue
from app.resources import Resources
from app.service import Service
from app.settings import Settings
from app.web import problems
from app.web.documents import documenting, securing
from app.web.documents.openapi import DocumentedFlask
from app.web.health import health
from app.web.management import management
from app.web.views import guarding, idempotency
from app.web.views.current import EXTENSION


class _BoundedInteger(IntegerConverter):
    """``<int:…>`` of at most the 19 digits of 2**63 - 1: more is a 404, where int() would raise at some length."""

    regex = r"\d{1,19}"


class ServiceApp(DocumentedFlask):
    """The Flask application of one service."""

    # Who may do what, by endpoint and method; made when all routes are there.
    rules: guarding.Rules = MappingProxyType({})

    # The AsyncAPI document.
    events_doc: Mapping[str, Any] = MappingProxyType({})

    def generate_spec_json(self) -> None:
        super().generate_spec_json()  # type: ignore[no-untyped-call]  # flask-openapi has no types here
        documenting.complete(self.spec_json, self.url_map.iter_rules(), self.view_functions)
        securing.secure(self.spec_json, self.url_map.iter_rules(), self.rules)

    def preprocess_request(self) -> Any:
        route = request.url_rule
        if route is None:
            return super().preprocess_request()
        scope = request.environ.get("asgi.scope")
        if scope is not None:
            scope["route"] = route.rule  # metrics and logs go by the route: the paths are without number
        guarding.identify()
        rule = guarding.rule_for(route, request.method, self.rules)
        if rule is not None:
            guarding.admit(rule)
        answer = super().preprocess_request()
        # Flask-Principal's own hook, where it is installed, knows nothing of tokens.
        guarding.fill_identity()
        return answer


def create_app(service: Service, settings: Settings) -> ServiceApp:
    """The Flask application of `service`: its routes, its errors, its health and its documents.

    It needs `attach` before it can serve a view that uses the database or the mesh.
    """
    app = ServiceApp(
        service.name,
        title=service.name,
        version=settings.version,
        description=service.description,
        worker_threads=settings.worker_threads,
        static_folder=None,
    )
    app.url_map.converters["int"] = _BoundedInteger
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes
    problems.install(app)
    for blueprint in service.blueprints:
        if isinstance(blueprint, APIBlueprint):
            app.register_api(blueprint)
        else:
            app.register_blueprint(blueprint)
    app.register_blueprint(health)
    app.register_blueprint(management)
    app.rules = guarding.rules_of(app, service)
    idempotency.require_tables(app, service)
    app.events_doc = catalogue.document(
        service.name,
        version=settings.version,
        description=service.description,
        outbox=service.outbox,
        handlers=service.handlers,
    )
    return app


def attach(app: ServiceApp, resources: Resources) -> None:
    """Give the application what its views work with."""
    app.extensions[EXTENSION] = resources
