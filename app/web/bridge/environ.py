"""An ASGI HTTP scope as a WSGI environ (PEP 3333): a pure translation."""

from __future__ import annotations

import sys
from typing import Any
from urllib.parse import unquote_to_bytes

# Header names come from clients: the memo is bounded, so that nobody can fill it.
_MEMO_LIMIT = 512
_keys: dict[bytes, str] = {b"content-type": "CONTENT_TYPE", b"content-length": "CONTENT_LENGTH"}

_ALWAYS: dict[str, Any] = {
    "wsgi.version": (1, 0),
    # The stream ends by itself: Werkzeug need not trust Content-Length.
    "wsgi.input_terminated": True,
    "wsgi.multithread": True,
    "wsgi.multiprocess": False,
    "wsgi.run_once": False,
}


def build(scope: Any, stream: Any) -> dict[str, Any]:
    """Translate `scope`, with `stream` as ``wsgi.input``.

    The path comes from ``raw_path``, so that bytes that are not UTF-8 survive as WSGI wants them (latin-1).
    """
    raw_path, query = scope.get("raw_path"), scope["query_string"]
    path = _path_info(scope["path"], raw_path)
    script_name = _latin1(scope.get("root_path", ""))
    target = raw_path.decode("latin-1") if raw_path else path
    query_string = query.decode("latin-1")
    server = scope.get("server") or ("localhost", 80)
    client = scope.get("client")
    environ: dict[str, Any] = {
        **_ALWAYS,
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": script_name,
        "PATH_INFO": _below_root(path, script_name),
        "QUERY_STRING": query_string,
        "REQUEST_URI": f"{target}?{query_string}" if query_string else target,
        "SERVER_NAME": server[0],
        "SERVER_PORT": str(server[1] or 80),
        "SERVER_PROTOCOL": "HTTP/" + scope["http_version"],
        "wsgi.url_scheme": scope.get("scheme", "http"),
        "wsgi.input": stream,
        "wsgi.errors": sys.stderr,
        "asgi.scope": scope,
    }
    if client is not None:
        environ["REMOTE_ADDR"] = client[0]
        environ["REMOTE_PORT"] = str(client[1])
    _add_headers(environ, scope["headers"])
    return environ


def has_body(scope: Any) -> bool:
    """Whether the request may carry a body; on HTTP/2 neither header is required."""
    if scope["http_version"] not in ("1.0", "1.1"):
        return scope["method"] not in ("GET", "HEAD", "OPTIONS")
    for name, value in scope["headers"]:
        if name == b"content-length":
            return bool(value != b"0")
        if name == b"transfer-encoding":
            return True
    return False


def _add_headers(environ: dict[str, Any], headers: Any) -> None:
    for name, value in headers:
        key = _keys.get(name) or _key(name)
        if not key:
            continue
        text = value.decode("latin-1")
        if key in environ:
            text = environ[key] + ("; " if key == "HTTP_COOKIE" else ",") + text
        environ[key] = text


def _key(name: bytes) -> str:
    # CVE-2026-3902: in CGI's naming X_User and X-User become one variable, so that a client could
    # forge a header that a proxy sets. No standard header has an underscore: such names are dropped.
    lower = name.lower()
    if lower in (b"content-type", b"content-length"):
        return _keys[lower]
    key = "" if b"_" in name or name.startswith(b":") else "HTTP_" + name.decode("latin-1").upper().replace("-", "_")
    if name == b":authority":
        key = "HTTP_HOST"
    if len(_keys) < _MEMO_LIMIT:
        _keys[name] = key
    return key


def _path_info(path: str, raw_path: bytes | None) -> str:
    if raw_path is None:
        return _latin1(path)
    if not raw_path.startswith(b"/") and b"://" in raw_path:
        # Absolute form, as a proxy's client sends it: "http://host/path".
        raw_path = b"/" + raw_path.partition(b"://")[2].partition(b"/")[2]
    return (unquote_to_bytes(raw_path) if b"%" in raw_path else raw_path).decode("latin-1")


def _below_root(path: str, root: str) -> str:
    """ASGI's path includes the root path; older servers leave it out, so it is only taken off where it is."""
    if root and (path == root or path.startswith(root.rstrip("/") + "/")):
        return path[len(root.rstrip("/")) :]
    return path


def _latin1(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("latin-1")
