"""OpenAPI from the views' own schemas, by flask-openapi; this thin room is the only one that knows it."""

from __future__ import annotations

from typing import Any

from flask import current_app, request
from flask_openapi.blueprint import APIBlueprint
from flask_openapi.models.info import Info
from flask_openapi.openapi import OpenAPI
from flask_openapi.utils import parse_parameters
from pydantic import BaseModel, Field, ValidationError
from werkzeug.exceptions import BadRequest, UnsupportedMediaType

from app import errors
from app.errors import (
    BadInput,
    BodyTooLarge,
    Conflict,
    DeadlineExceeded,
    InvalidInput,
    MalformedJSON,
    NotFound,
    PlatformError,
    Unavailable,
)
from app.web.bridge import AsyncFlask
from app.web.problems import CONTENT_TYPE

VERSION = "3.1.0"
_PARTS = ("header", "cookie", "path", "query", "form", "body")


class FieldProblem(BaseModel):
    """One field that broke a rule."""

    path: str = Field(description="where it stands", examples=["body.items.0.quantity"])
    message: str
    type: str


class Problem(BaseModel):
    """An error, as RFC 9457 has it."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    instance: str
    code: str = Field(description="stable and meant for programs", examples=["not_found"])
    request_id: str
    errors: list[FieldProblem] | None = None


def problem(description: str) -> dict[str, Any]:
    """The response object of an error, as OpenAPI has it."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": description, "content": {CONTENT_TYPE: {"schema": schema}}}


# What any route may answer.
_COMMON: dict[int | str, Any] = {
    error.status: problem(error.title)
    for error in (BadInput, BodyTooLarge, InvalidInput, PlatformError, Unavailable, DeadlineExceeded)
}


class API(APIBlueprint):
    """The routes of a service, with their schemas.

    Args:
        name: the blueprint's name.
        import_name: ``__name__``.
        prefix: the path that all its routes begin with.
        tag: the heading in the documentation.
    """

    def __init__(self, name: str, import_name: str, *, prefix: str, tag: str | None = None) -> None:
        super().__init__(
            name,
            import_name,
            url_prefix=prefix,
            abp_tags=[{"name": tag or name}],
            abp_responses=dict(_COMMON),
        )

    def _collect_openapi_info(self, rule: str, func: Any, *, responses: Any = None, **options: Any) -> Any:
        documented = dict(responses or {})
        if "<" in rule:
            documented.setdefault(NotFound.status, problem(NotFound.title))
        if options.get("method") in ("POST", "PUT", "PATCH"):
            documented.setdefault(errors.UnsupportedMediaType.status, problem(errors.UnsupportedMediaType.title))
        if options.get("method") in ("POST", "PUT", "PATCH", "DELETE"):
            documented.setdefault(Conflict.status, problem(Conflict.title))
        # No `body.json` in a 204: flask-openapi leaves out what is None.
        return super()._collect_openapi_info(rule, func, responses=documented, **options)


class DocumentedFlask(AsyncFlask, OpenAPI):
    """An `AsyncFlask` whose API blueprints become an OpenAPI document (``api_doc``)."""

    def __init__(self, import_name: str, *, title: str, version: str, description: str, **options: Any) -> None:
        super().__init__(
            import_name,
            info=Info(title=title, version=version, description=description or None),
            validation_error_model=Problem,
            validation_error_callback=_raise_problem,
            doc_ui=False,
            **options,
        )
        self.openapi_version = VERSION

    def make_response(self, rv: Any) -> Any:
        """Flask's, and pydantic models are JSON bodies too."""
        body = rv[0] if isinstance(rv, tuple) and rv else rv
        if isinstance(body, BaseModel):
            response = self.response_class(body.model_dump_json().encode(), content_type="application/json")
            rv = (response, *rv[1:]) if isinstance(rv, tuple) else response
        return super().make_response(rv)


def _raise_problem(error: ValidationError) -> Any:
    part = _part_of(error)
    if part == "body":
        _require_json()
    fields = [
        {"path": ".".join([part, *map(str, e["loc"])]), "message": e["msg"], "type": e["type"]} for e in error.errors()
    ]
    names = ", ".join(dict.fromkeys(field["path"] for field in fields))
    raise InvalidInput(f"Invalid: {names}", errors=fields) from None


def _require_json() -> None:
    """flask-openapi reads a body silently: find out whether it was JSON at all, and say so if not."""
    try:
        request.get_json()
    except UnsupportedMediaType:
        raise
    except BadRequest:
        raise MalformedJSON("The request body is not valid JSON") from None


def _part_of(error: ValidationError) -> str:
    """Which part of the request `error` speaks of; pydantic names the model, and the view's signature knows it."""
    from_view = parse_parameters(_view_function())
    for part, model in zip(_PARTS, from_view, strict=False):
        if model is not None and error.title == (model.model_config.get("title") or model.__name__):
            return part
    return "request"


def _view_function() -> Any:
    view = current_app.view_functions[request.endpoint or ""]
    return getattr(view, "__wrapped__", view)
