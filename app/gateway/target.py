"""What a request aims at: its request-target, checked once, and then passed on byte for byte."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

from app.errors import BadInput

# Visible ASCII without "#": anything else would end, split or rewrite the request line that we write to the service.
_PATH = re.compile(rb"/[\x21\x22\x24-\x7e]*")
_QUERY = re.compile(rb"[\x21\x22\x24-\x7e]*")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

# RFC 9112, 3.2.2: a server must accept it. The authority says who the client thinks we are, never whom we call.
_ABSOLUTE = re.compile(rb"https?://(?P<authority>[^/?#@]+)(?P<path>/.*)?", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Target:
    """A request-target in origin form.

    Args:
        path: percent-decoded, as the service's own router will see it: what decides on the route.
        raw_path: as the client sent it.
        query: as the client sent it, without the question mark.
        authority: the host of an absolute-form target, which outranks the Host header.
    """

    path: str
    raw_path: bytes
    query: bytes
    authority: bytes | None = None

    @property
    def wire(self) -> str:
        """Path and query for the service, unchanged."""
        raw = self.raw_path + b"?" + self.query if self.query else self.raw_path
        return raw.decode("ascii")


def read(scope: Any) -> Target:
    """The target of an ASGI HTTP scope.

    Raises:
        BadInput: it cannot be passed on verbatim, or asks for something other than a resource.
    """
    method = scope["method"]
    if method == "CONNECT" or not _TOKEN.fullmatch(method):
        raise BadInput("This method is not served here")
    raw_path, query = scope.get("raw_path") or quote(scope["path"]).encode(), scope["query_string"]
    if _PATH.fullmatch(raw_path) and _QUERY.fullmatch(query):
        return Target(scope["path"], raw_path, query)
    absolute = _ABSOLUTE.fullmatch(raw_path)
    raw_path = (absolute["path"] or b"/") if absolute else b""
    if absolute is None or not _PATH.fullmatch(raw_path) or not _QUERY.fullmatch(query):
        raise BadInput("The request target is not a path")
    return Target(unquote(raw_path.decode("ascii")), raw_path, query, absolute["authority"])
