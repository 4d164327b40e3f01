"""Errors as ``application/problem+json`` (RFC 9457): every one of them, and never a stack trace."""

from __future__ import annotations

import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import orjson
from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from app import context, telemetry
from app.errors import BadInput, BodyTooLarge, InvalidInput, NotFound, PlatformError, Unavailable

CONTENT_TYPE = "application/problem+json"

_CODES = {
    error.status: error.code for error in (BadInput, NotFound, BodyTooLarge, InvalidInput, Unavailable, PlatformError)
}
_log = telemetry.log("web")


def document(error: PlatformError, instance: str, request_id: str) -> dict[str, Any]:
    """The problem document of `error`.

    Args:
        error: what happened.
        instance: the path that was asked for.
        request_id: by which the logs find it.
    """
    return _document(error.status, error.title, error.detail, error.code, instance, request_id, error.extensions)


def body_and_headers(error: PlatformError, instance: str, request_id: str) -> tuple[bytes, dict[str, str]]:
    """The encoded problem document of `error`, and the headers that go with it."""
    return orjson.dumps(document(error, instance, request_id)), _headers(error)


async def send(send: Any, error: PlatformError, *, instance: str) -> None:
    """Answer an ASGI request with `error`, for rooms that stand outside Flask."""
    start, body = messages(error, instance=instance)
    await send(start)
    await send({"type": "http.response.body", "body": body, "more_body": False})


def messages(error: PlatformError, *, instance: str) -> tuple[dict[str, Any], bytes]:
    """The start of an ASGI answer that tells of `error`, and its body."""
    body, headers = body_and_headers(error, instance, _request_id())
    encoded = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    encoded.append((b"content-length", str(len(body)).encode()))
    return {"type": "http.response.start", "status": error.status, "headers": encoded}, body


def install(app: Flask) -> None:
    """Make every error of `app` a problem document."""
    app.register_error_handler(PlatformError, _of_platform)
    app.register_error_handler(HTTPException, _of_http)
    app.register_error_handler(Exception, _of_anything)


def _of_platform(error: PlatformError) -> Response:
    if error.status == HTTPStatus.INTERNAL_SERVER_ERROR:
        _log.error("request failed", exc_info=error)
    return _respond(error)


def _of_http(error: HTTPException) -> Response:
    status = error.code or 500
    if error.response is not None or status < 400:
        return error.get_response()  # type: ignore[return-value]  # a redirect, or a response that a view aborted with
    code = _CODES.get(status) or error.name.lower().replace(" ", "_")
    body = _document(status, error.name, error.description or error.name, code, request.path, _request_id(), {})
    response = Response(orjson.dumps(body), status, content_type=CONTENT_TYPE)
    for name, value in error.get_headers():
        # Allow and Retry-After belong to the answer; the HTML page's type does not.
        if name.lower() != "content-type":
            response.headers.add(name, value)
    return response


def _of_anything(error: Exception) -> Response:
    _log.error("request failed", exc_info=error)
    return _respond(PlatformError("Something went wrong on our side; the logs know this request id"))


def _respond(error: PlatformError) -> Response:
    body, headers = body_and_headers(error, request.path, _request_id())
    return Response(body, error.status, headers)


def _document(
    status: int, title: str, detail: str, code: str, instance: str, request_id: str, extensions: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "type": "about:blank",
        "title": title,
        "status": status,
        "detail": detail,
        # A path may hold lone surrogates, which JSON cannot.
        "instance": instance.encode("utf-8", "replace").decode(),
        "code": code,
        "request_id": request_id,
        **extensions,
    }


def _headers(error: PlatformError) -> dict[str, str]:
    headers = {"Content-Type": CONTENT_TYPE, **error.headers}
    if error.retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    return headers


def _request_id() -> str:
    current = context.current()
    return current.request_id if current is not None else ""
