"""Where a redirect may lead, and what a page may load."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable
from hashlib import sha256
from urllib.parse import SplitResult, urlsplit

HOME = "/account"
MAX_NEXT = 8_000
# No dot, so no "..", no second slash, no backslash: what a browser might read as another host or path.
_INSIDE = re.compile(r"/(?:account|oauth)(?:/[A-Za-z0-9_-]+)*(?:\?[\x21\x23-\x5b\x5d-\x7e]*)?")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")
_HOST = re.compile(r"[A-Za-z0-9.-]+")

# Never a script's, and a link of the kind would run one.
_NO_TARGET = frozenset({"", "javascript", "data", "blob", "vbscript", "file"})


def inside(path: str | None) -> str:
    """`path`, if it is one of our own pages; else the home page: nobody sends people from here to elsewhere."""
    if path is not None and len(path) <= MAX_NEXT and "#" not in path and _INSIDE.fullmatch(path):
        return path
    return HOME


def form_target(uri: str) -> str | None:
    """The CSP source that lets a form's answer lead to `uri`; None if there is none that is safe.

    Browsers check ``form-action`` on every redirect of a submitted form, so the client's own address must be in it.
    """
    try:
        parts = urlsplit(uri)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if parts.scheme in _NO_TARGET or not _SCHEME.fullmatch(parts.scheme):
        return None
    if parts.scheme not in ("http", "https"):
        return f"{parts.scheme}:"
    return _origin(parts, host, port)


def _origin(parts: SplitResult, host: str | None, port: int | None) -> str | None:
    if not host:
        return None
    if ":" in host:
        return f"{parts.scheme}:"  # CSP has no way to write an IPv6 address
    if not _HOST.fullmatch(host):
        return None
    return f"{parts.scheme}://{host}" if port is None else f"{parts.scheme}://{host}:{port}"


def headers(style: str, form_targets: Iterable[str] = ()) -> dict[str, str]:
    """The headers of every page.

    Args:
        style: the one stylesheet, exactly as it stands in the page.
        form_targets: where a form may lead besides to us.
    """
    digest = b64encode(sha256(style.encode()).digest()).decode()
    targets = " ".join(["'self'", *sorted(set(form_targets))])
    policy = (
        f"default-src 'none'; style-src 'sha256-{digest}'; form-action {targets}; "
        "frame-ancestors 'none'; base-uri 'none'"
    )  # fmt: skip
    return {
        "Content-Security-Policy": policy,
        "X-Frame-Options": "DENY",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
    }
