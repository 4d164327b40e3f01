"""Flask's JSON, by orjson."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import orjson
from flask.json.provider import DefaultJSONProvider

if TYPE_CHECKING:
    from flask import Response

_OPTIONS = orjson.OPT_NON_STR_KEYS | orjson.OPT_PASSTHROUGH_DATETIME


class OrjsonProvider(DefaultJSONProvider):
    """Flask's provider with orjson inside.

    Keys are sorted as Flask sorts them (``app.json.sort_keys = False`` keeps the view's order). What orjson does not
    know (``Decimal``, ``datetime`` in Flask's form, ``__html__``) goes through Flask's ``default``; options that only
    ``json.dumps`` has, integers beyond 64 bits and indented output in debug mode are left to it.
    """

    def dumps(self, obj: Any, **kwargs: Any) -> str:
        return super().dumps(obj, **kwargs) if kwargs else self._encode(obj).decode()

    def loads(self, s: str | bytes, **kwargs: Any) -> Any:
        return super().loads(s, **kwargs) if kwargs else orjson.loads(s)

    def response(self, *args: Any, **kwargs: Any) -> Response:
        if self.compact is False or (self.compact is None and self._app.debug):
            return cast("Response", super().response(*args, **kwargs))
        body = self._encode(self._prepare_response_obj(args, kwargs))
        response_class: Any = self._app.response_class
        return cast("Response", response_class(body, content_type=self.mimetype))

    def _encode(self, obj: Any) -> bytes:
        try:
            return orjson.dumps(obj, self.default, _OPTIONS | (orjson.OPT_SORT_KEYS if self.sort_keys else 0))
        except orjson.JSONEncodeError:
            return super().dumps(obj).encode()
