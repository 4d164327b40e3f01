"""Stock Flask in asgiref's ``WsgiToAsgi``, with a ``ThreadSensitiveContext`` per request: concurrent, a thread each."""

from __future__ import annotations

from typing import Any

from asgiref.sync import ThreadSensitiveContext
from asgiref.wsgi import WsgiToAsgi
from flask import Flask

from app.lab.bench.subjects import views


def make(url: str) -> Any:
    wrapped: Any = WsgiToAsgi(views.add_views(Flask("lab")))  # type: ignore[no-untyped-call]  # asgiref leaves it unannotated

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async with ThreadSensitiveContext():
            await wrapped(scope, receive, send)

    return app
